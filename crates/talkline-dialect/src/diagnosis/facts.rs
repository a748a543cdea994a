//! What is known of a failure, and the texts that it fills in.

use super::{Circumstances, claims::TokenClaims};

/// Values for the placeholders of the table. One that is not known stays a placeholder, as in
/// `<resource>`.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts(Vec<(&'static str, String)>);

/// Suffixes of the hosts whose first label is the resource's name.
const RESOURCE_SUFFIXES: [&str; 9] = [
    ".openai.azure.com",
    ".cognitiveservices.azure.com",
    ".services.ai.azure.com",
    ".openai.azure.us",
    ".cognitiveservices.azure.us",
    ".services.ai.azure.us",
    ".openai.azure.cn",
    ".cognitiveservices.azure.cn",
    ".services.ai.azure.cn",
];

impl Facts {
    pub(super) fn of(circumstances: &Circumstances<'_>) -> Self {
        let target = circumstances.target;
        let mut facts = Self::default()
            .with("host", target.host().to_owned())
            .with("port", target.port().to_string())
            .maybe("resource", resource(target.host()))
            .maybe(
                "deployment",
                circumstances
                    .upstream
                    .deployment()
                    .map(|name| super::said::clean(name, 80)),
            );
        if let Some(claims) = circumstances.claims {
            facts = facts.claims(claims);
        }
        facts
    }

    fn claims(self, claims: &TokenClaims) -> Self {
        self.maybe("principal", claims.object_id.clone())
            .maybe(
                "principal-type",
                claims.principal.map(|kind| kind.as_str().to_owned()),
            )
            .maybe("tenant", claims.tenant_id.clone())
            .maybe("audience", claims.audience.clone())
    }

    /// Adds a value; it replaces nothing that is there.
    pub(super) fn with(mut self, name: &'static str, value: String) -> Self {
        self.0.push((name, value));
        self
    }

    pub(super) fn maybe(self, name: &'static str, value: Option<String>) -> Self {
        match value {
            Some(value) if !value.is_empty() => self.with(name, value),
            _ => self,
        }
    }

    /// `template` with each `{name}` replaced by its value, or by `<name>`.
    pub(super) fn fill(&self, template: &str) -> String {
        let mut filled = String::with_capacity(template.len());
        let mut rest = template;
        while let Some((before, after)) = rest.split_once('{') {
            let Some((name, after)) = after.split_once('}') else {
                break;
            };
            filled.push_str(before);
            match self.0.iter().find(|(known, _)| *known == name) {
                Some((_, value)) => filled.push_str(value),
                None => {
                    filled.push('<');
                    filled.push_str(&name.replace('-', " "));
                    filled.push('>');
                }
            }
            rest = after;
        }
        filled.push_str(rest);
        filled
    }
}

/// The name of the Azure resource, where the host tells it. A regional host does not, nor does a
/// gateway's or a custom domain.
fn resource(host: &str) -> Option<String> {
    let name = RESOURCE_SUFFIXES
        .iter()
        .find_map(|suffix| host.strip_suffix(suffix))?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    (!name.is_empty() && name.bytes().all(plain)).then(|| name.to_owned())
}
