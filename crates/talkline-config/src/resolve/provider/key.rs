//! `apiKey` and `apiKeySecondary`.

use talkline_auth::{Credential, KeyCell, Origin, Secret};

use super::{One, Type};
use crate::{
    KeyPlace, Problem, WatchedKey,
    reader::Reader,
    secret::{KeyVault, Resolved},
};

/// The keys of a provider as read.
pub(super) struct ApiKey {
    primary: Resolved,
    secondary: Option<Resolved>,
}

impl ApiKey {
    /// The values, of those that are known.
    pub(super) fn secrets(&self) -> Vec<Secret> {
        [Some(&self.primary), self.secondary.as_ref()]
            .into_iter()
            .flatten()
            .map(|key| key.secret.clone())
            .filter(|secret| !secret.expose().is_empty())
            .collect()
    }

    /// The credential, and what is to be watched where the key may change.
    pub(super) fn credential<P: talkline_auth::Provider>(
        self,
        provider: &str,
        origin: Origin<P>,
    ) -> (Credential<P>, Option<WatchedKey>) {
        if self.primary.place == KeyPlace::Fixed && self.secondary.is_none() {
            return (Credential::api_key(origin, self.primary.secret), None);
        }
        let (secondary, place) = match self.secondary {
            Some(key) => (
                // Without a value there is nothing to switch to.
                Some(key.secret).filter(|secret| !secret.expose().is_empty()),
                Some(key.place),
            ),
            None => (None, None),
        };
        let cell = KeyCell::new(self.primary.secret, secondary);
        let watched = WatchedKey {
            provider: provider.to_owned(),
            cell: cell.clone(),
            primary: self.primary.place,
            secondary: place,
        };
        (Credential::rotating_key(origin, cell), Some(watched))
    }
}

impl<'a> One<'a> {
    pub(super) fn api_key(
        &self,
        reader: &mut Reader<'_>,
        kind: Type,
        variable: &str,
    ) -> Option<ApiKey> {
        let primary = match self.one_key(reader, "apiKey", variable) {
            Some(read) => read,
            None => {
                self.missing_key(reader, kind, variable);
                None
            }
        };
        let secondary = match kind {
            Type::Azure => self.one_key(reader, "apiKeySecondary", "AZURE_OPENAI_API_KEY_2"),
            Type::OpenAi | Type::Custom => None,
        };
        let (primary, secondary) = match (primary, secondary) {
            (Some(primary), None) => (primary, None),
            (Some(primary), Some(Some(secondary))) => (primary, Some(secondary)),
            (None, _) | (_, Some(None)) => return None,
        };
        let key = ApiKey { primary, secondary };
        if let [one, other] = key.secrets().as_slice()
            && one.expose() == other.expose()
            && let Some(found) = reader.found(&self.path("apiKeySecondary"))
        {
            let problem = Problem::warning("azure.keys-equal", "both keys are the same one")
                .hint("refer to KEY2 of the resource, or remove apiKeySecondary");
            let problem = reader.at_value(problem, &found);
            reader.problem(problem);
        }
        Some(key)
    }

    /// `None` where the key is not written; `Some(None)` where it has a problem.
    fn one_key(
        &self,
        reader: &mut Reader<'_>,
        name: &'a str,
        variable: &str,
    ) -> Option<Option<Resolved>> {
        let entry = reader.entry(&self.path(name))?;
        let key = self.key(name);
        let resolved = reader.secret(&key, &entry.node, variable, KeyVault::Accepted);
        if let Some(resolved) = &resolved {
            reader.setting(key, resolved.shown.clone(), &entry.key_place);
        }
        Some(resolved)
    }

    fn missing_key(&self, reader: &mut Reader<'_>, kind: Type, variable: &str) {
        let other = match kind {
            Type::Azure => "OPENAI_API_KEY",
            Type::OpenAi | Type::Custom => "AZURE_OPENAI_API_KEY",
        };
        let set = |name: &str| reader.inputs.variables.contains_key(name);
        let mut hint = match (kind, self.is_default) {
            (Type::Custom, _) => format!(
                "write apiKey = {{ env = \"{variable}\" }}, or auth.kind = \"none\" if the endpoint asks for none"
            ),
            (_, true) => format!(
                "set {variable}, or write apiKey = {{ env = \"NAME\" }} or {{ file = \"PATH\" }}"
            ),
            (_, false) => "write apiKey = { env = \"NAME\" } or { file = \"PATH\" }".to_owned(),
        };
        if kind == Type::Azure {
            hint.push_str("; without a key, auth.kind = \"managed-identity\" and its like");
        }
        if kind != Type::Custom && set(other) {
            hint.push_str(&format!("; {other} is set but never used here"));
        }
        let (code, message) = match kind {
            Type::Azure => ("azure.key-missing", "Azure needs a key or an identity"),
            Type::OpenAi => ("openai.key-missing", "OpenAI needs a key"),
            Type::Custom => (
                "custom.key-missing",
                "the endpoint needs a key, or the word that it needs none",
            ),
        };
        self.missing(reader, "apiKey", || {
            Problem::error(code, message).hint(hint)
        });
    }
}
