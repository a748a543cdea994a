//! What a token is asked for.

use std::fmt;

use crate::SetupError;

/// The audience that the realtime API of a resource expects, by the cloud its host name belongs to.
///
/// Everything under `azure.us` and `azure.cn` belongs to the government and the China cloud; every
/// other name, private names included, is taken for the public cloud. A Foundry *project* endpoint
/// (a path under `/api/projects/`) wants `https://ai.azure.com/.default`, which no host name tells:
/// that choice is the caller's.
///
/// Source: <https://learn.microsoft.com/azure/ai-foundry/openai/how-to/realtime-audio-websockets>
/// and <https://learn.microsoft.com/azure/azure-government/compare-azure-government-global-azure>.
///
/// ```
/// use talkline_entra::scope_for_host;
///
/// assert_eq!(scope_for_host("r.openai.azure.com"), "https://cognitiveservices.azure.com/.default");
/// assert_eq!(scope_for_host("r.openai.azure.us"), "https://cognitiveservices.azure.us/.default");
/// ```
pub fn scope_for_host(host: &str) -> &'static str {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    if host.ends_with(".azure.us") {
        "https://cognitiveservices.azure.us/.default"
    } else if host.ends_with(".azure.cn") {
        "https://cognitiveservices.azure.cn/.default"
    } else {
        "https://cognitiveservices.azure.com/.default"
    }
}

/// Exactly one scope, of the form `<resource>/.default`: the only form that an application (as
/// opposed to a user) can ask for.
///
/// Source: <https://learn.microsoft.com/entra/identity-platform/scopes-oidc#the-default-scope>.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope(String);

impl Scope {
    /// Checks the form of a scope.
    ///
    /// # Errors
    ///
    /// [`SetupError::Scope`] when it does not end in `/.default`, names no resource, or holds
    /// anything but printable ASCII without spaces.
    pub fn parse(text: &str) -> Result<Self, SetupError> {
        let resource = text.strip_suffix("/.default").unwrap_or_default();
        if resource.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(SetupError::Scope(text.escape_default().to_string()));
        }
        Ok(Self(text.to_owned()))
    }

    /// The scope of [`scope_for_host`].
    pub fn for_host(host: &str) -> Self {
        Self(scope_for_host(host).to_owned())
    }

    /// A scope of which the form is known to be right.
    #[cfg(feature = "key-vault")]
    pub(crate) fn known(scope: &'static str) -> Self {
        Self(scope.to_owned())
    }

    /// The scope as it is sent.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_follow_the_cloud_of_the_host() {
        fn check(host: &str, top_level: &str) {
            let expected = format!("https://cognitiveservices.azure.{top_level}/.default");
            assert_eq!(scope_for_host(host), expected, "{host}");
        }
        check("r.openai.azure.com", "com");
        check("r.cognitiveservices.azure.com", "com");
        check("r.services.ai.azure.com", "com");
        check("R.OpenAI.Azure.US.", "us");
        check("r.cognitiveservices.azure.us", "us");
        check("r.openai.azure.cn", "cn");
        check("openai.corp.example", "com");
        check("openai.azure.us.example", "com");
        check("notazure.us", "com");
    }

    #[test]
    fn a_scope_names_one_resource() {
        fn check(text: &str, good: bool) {
            assert_eq!(Scope::parse(text).is_ok(), good, "{text:?}");
        }
        check("https://cognitiveservices.azure.com/.default", true);
        check("api://0a1b/.default", true);
        check("", false);
        check("/.default", false);
        check("https://cognitiveservices.azure.com", false);
        check("https://a/.default https://b/.default", false);
        check("https://a\r\nx/.default", false);
        check("https://ä/.default", false);
    }
}
