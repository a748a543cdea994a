//! One provider table to one upstream.

pub(super) mod auth;
mod azure;
mod compatible;
mod key;

use talkline_auth::{Origin, OriginRules, Secret};
use talkline_dialect::Upstream;
use talkline_session::policy::Helpers;

use super::names::{is_model, model_name};
use crate::{
    Identity, Problem, Severity, WatchedKey,
    endpoint::{Endpoint, EndpointKind, EndpointRules, normalise},
    keys,
    reader::{Found, Reader, quoted},
    shown::{cleaned, shown},
    structure::is_azure_key,
    tree::{Table, Value, dotted},
};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Type {
    Azure,
    OpenAi,
    Custom,
}

/// A provider as read, before the routes are made.
pub(super) struct Provider {
    pub(super) upstream: Upstream,
    /// What no client may hold: keys, and the secret of an application.
    pub(super) secrets: Vec<Secret>,
    pub(super) identity: Option<Identity>,
    pub(super) watched_key: Option<WatchedKey>,
    /// Names by which clients may ask for it.
    pub(super) names: Vec<String>,
    /// What it does for its clients' session settings, but for the names of models.
    pub(super) helpers: Helpers,
    /// Whether `session.model` is put into the upstream's words.
    pub(super) maps_models: bool,
}

/// One provider while it is read.
pub(super) struct One<'a> {
    pub(super) id: &'a str,
    pub(super) is_default: bool,
    /// Whether the default provider is Azure.
    pub(super) azure: bool,
    pub(super) realtime_model: &'a Option<String>,
    pub(super) allow_any_model: bool,
}

impl<'a> One<'a> {
    fn path(&self, key: &'a str) -> [&'a str; 5] {
        ["talk", "realtime", "providers", self.id, key]
    }

    fn key(&self, key: &str) -> String {
        dotted(&["talk", "realtime", "providers", self.id, key])
    }

    pub(super) fn read(&self, reader: &mut Reader<'_>) -> Option<Provider> {
        let kind = self.kind(reader)?;
        self.refuse_foreign_keys(reader, kind);
        let before = reader.problems.len();
        let provider = match kind {
            Type::Azure => self.azure(reader),
            Type::OpenAi => self.openai(reader),
            Type::Custom => self.custom(reader),
        };
        let sound = reader.problems[before..]
            .iter()
            .all(|p| p.severity == Severity::Warning);
        provider.filter(|_| sound)
    }

    /// Which rules hold, from the id, the `type` and every key that speaks of Azure.
    fn kind(&self, reader: &mut Reader<'_>) -> Option<Type> {
        let written = reader.choice(&self.path("type"));
        if written.is_none() && reader.entry(&self.path("type")).is_some() {
            return None;
        }
        let azure_key = self.azure_key(reader);
        let kind = match (self.id, written.as_ref().map(|found| found.value.as_str())) {
            ("azure-openai", Some("openai" | "custom"))
            | ("openai", Some("custom"))
            | ("custom", Some("openai" | "azure-openai")) => {
                let found = written?;
                let message = format!(
                    "provider \"{}\" cannot have type {}",
                    self.id,
                    shown(&found.value)
                );
                let problem = Problem::error("provider.type", message)
                    .hint("give the provider another name, or leave `type` out");
                let problem = reader.at_value(problem, &found);
                reader.problem(problem);
                return None;
            }
            (_, Some("azure-openai")) | ("azure-openai", None) => Type::Azure,
            (_, Some("openai")) => Type::OpenAi,
            (_, Some(_)) | ("custom", None) => Type::Custom,
            ("openai", None) if azure_key.is_some() || (self.is_default && self.azure) => {
                Type::Azure
            }
            ("openai", None) => Type::OpenAi,
            (_, None) => {
                let kind = if azure_key.is_some() {
                    "azure-openai"
                } else {
                    "custom"
                };
                let message = format!("provider \"{}\" has no `type`", cleaned(self.id));
                let problem = Problem::error("provider.type-missing", message)
                    .key(self.key("type"))
                    .hint(format!(
                        "write type = \"{kind}\" (possible are {})",
                        super::providers::listed(keys::TYPES)
                    ));
                let problem = match reader.entry(&["talk", "realtime", "providers", self.id]) {
                    Some(entry) => reader.at(problem, &entry.key_place),
                    None => problem,
                };
                reader.problem(problem);
                return None;
            }
        };
        match azure_key {
            Some(found) if kind != Type::Azure => {
                let message = format!(
                    "`{}` says Azure, the provider's type says otherwise",
                    cleaned(&found.entry.key)
                );
                let problem = Problem::error("azure.contradiction", message)
                    .hint("set type = \"azure-openai\", or remove every azure* key");
                let problem = reader.at_key(problem, &found);
                reader.problem(problem);
                None
            }
            _ => Some(kind),
        }
    }

    fn azure_key<'t>(&self, reader: &Reader<'t>) -> Option<Found<'t, ()>> {
        let table: &Table = reader.table(&["talk", "realtime", "providers", self.id])?;
        let entry = table
            .entries
            .iter()
            .find(|entry| is_azure_key(&entry.key))?;
        reader.found(&self.path(&entry.key))
    }

    /// Keys that the table knows but this type of provider does not take.
    fn refuse_foreign_keys(&self, reader: &mut Reader<'_>, kind: Type) {
        let foreign: &[(&str, &str)] = match kind {
            Type::Azure => &[
                ("baseUrl", "write it as `azureEndpoint`"),
                (
                    "allowInsecureUpstream",
                    "remove it: Azure is reached by TLS only",
                ),
                (
                    "model",
                    "remove it: Azure chooses by `azureDeployment`; for more client names use `aliases`",
                ),
            ],
            Type::OpenAi => &[
                (
                    "apiKeySecondary",
                    "remove it: only an Azure resource has two keys",
                ),
                (
                    "allowedHosts",
                    "remove it: an OpenAI key goes to api.openai.com only",
                ),
                (
                    "allowInsecureUpstream",
                    "remove it: OpenAI is reached by TLS only",
                ),
            ],
            Type::Custom => &[(
                "apiKeySecondary",
                "remove it: only an Azure resource has two keys",
            )],
        };
        for (key, hint) in foreign {
            // OpenClaw's own tables have a `model` beside azure* keys.
            let openclaw = *key == "model" && self.in_json(reader, key);
            if let Some(found) = reader.found(&self.path(key)).filter(|_| !openclaw) {
                let message = format!("`{key}` has no meaning for this type of provider");
                let problem = Problem::error("key.not-for-provider", message).hint(*hint);
                let problem = reader.at_key(problem, &found);
                reader.problem(problem);
            }
        }
    }

    fn in_json(&self, reader: &Reader<'_>, key: &str) -> bool {
        reader
            .entry(&self.path_of(key))
            .is_some_and(|entry| reader.is_in_json(&entry.key_place))
    }

    fn endpoint(
        &self,
        reader: &mut Reader<'_>,
        kind: EndpointKind,
        path: &[&str; 5],
        rules: &EndpointRules<'_>,
        missing: impl FnOnce() -> Problem,
    ) -> Option<Endpoint> {
        let Some(found) = reader.text(path) else {
            self.missing(reader, path[4], missing);
            return None;
        };
        match normalise(kind, &found.value, rules) {
            Ok(endpoint) => {
                let written = format!("{}{}", endpoint.origin, endpoint.base_path);
                reader.setting(dotted(path), quoted(&written), &found.entry.key_place);
                Some(endpoint)
            }
            Err(error) => {
                let problem = Problem::error(error.code, error.message).hint(error.hint);
                let problem = reader.at_value(problem, &found);
                reader.problem(problem);
                None
            }
        }
    }

    /// Reports a missing key, unless it stands there unreadable or under a misspelt name.
    fn missing(&self, reader: &mut Reader<'_>, key: &str, problem: impl FnOnce() -> Problem) {
        let misspelt = reader
            .table(&["talk", "realtime", "providers", self.id])
            .is_some_and(|table| {
                let siblings = keys::children(&["talk", "realtime", "providers", self.id]);
                table.entries.iter().any(|entry| {
                    !siblings.contains(&entry.key.as_str())
                        && keys::suggestion(&entry.key, &siblings) == Some(key)
                })
            });
        if misspelt || reader.entry(&self.path_of(key)).is_some() {
            return;
        }
        let problem = problem().key(self.key(key));
        let problem = match reader.entry(&["talk", "realtime", "providers", self.id]) {
            Some(entry) if !entry.key_place.is_untyped() => reader.at(problem, &entry.key_place),
            _ => problem,
        };
        reader.problem(problem);
    }

    fn path_of<'k>(&'k self, key: &'k str) -> [&'k str; 5] {
        ["talk", "realtime", "providers", self.id, key]
    }

    fn allowed_hosts(&self, reader: &mut Reader<'_>) -> Vec<String> {
        let path = self.path("allowedHosts");
        let mut hosts = Vec::new();
        for (host, place) in reader.list(&path) {
            let name = host.trim_start_matches('[').trim_end_matches(']');
            let bare = name.parse::<std::net::IpAddr>().is_ok()
                || name
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-'));
            let problem = if !bare {
                Problem::error("allowed-hosts.form", "this is not a bare host name")
                    .hint("write the host only, such as \"gateway.azure-api.net\": no scheme, port, path or `*`")
            } else if name
                .to_ascii_lowercase()
                .trim_end_matches('.')
                .ends_with("openai.com")
            {
                Problem::error(
                    "allowed-hosts.openai",
                    "OpenAI's hosts cannot be allowed for another provider",
                )
                .hint("remove it: another provider's key is never sent to OpenAI")
            } else {
                hosts.push(name.to_owned());
                continue;
            };
            let problem = reader.at(problem.key(dotted(&path)), &place);
            reader.problem(problem);
        }
        hosts
    }

    fn aliases(&self, reader: &mut Reader<'_>) -> Vec<String> {
        let path = self.path("aliases");
        let mut names = Vec::new();
        for (name, place) in reader.list(&path) {
            if is_model(&name) {
                names.push(name);
                continue;
            }
            let problem = model_name().key(dotted(&path));
            let problem = reader.at(problem, &place);
            reader.problem(problem);
        }
        names
    }

    /// The model that is asked of the upstream, and the names that clients may use.
    fn model(&self, reader: &mut Reader<'_>) -> (Option<String>, Vec<String>) {
        let found = reader.text(&self.path("model"));
        if let Some(found) = found.as_ref().filter(|found| !is_model(&found.value)) {
            let problem = reader.at_value(model_name(), found);
            reader.problem(problem);
        }
        let inherited = self.realtime_model.clone().filter(|_| self.is_default);
        let model = found.map(|found| found.value).or(inherited);
        let mut names: Vec<String> = model.iter().cloned().collect();
        names.extend(self.aliases(reader));
        (model, names)
    }

    /// Without a model, a client must be able to name one.
    fn require_name(&self, reader: &mut Reader<'_>, names: &[String]) -> Option<()> {
        let routed = reader
            .table(&["talk", "realtime", "routes"])
            .is_some_and(|routes| {
                routes
                    .entries
                    .iter()
                    .any(|entry| matches!(&entry.node.value, Value::Text(id) if id == self.id))
            });
        if !names.is_empty() || routed || (self.allow_any_model && self.is_default) {
            return Some(());
        }
        self.missing(reader, "model", || {
            Problem::error("model.missing", "no client can ask for this provider: it has no model")
                .hint("write model = \"gpt-realtime\", or talk.realtime.allowAnyModel = true to accept any name")
        });
        None
    }

    /// The typed origin; the endpoint's own rules have passed, so a refusal is a disagreement
    /// between the two tables of rules and is reported rather than overruled.
    fn origin<P: talkline_auth::Provider>(
        &self,
        reader: &mut Reader<'_>,
        key: &'a str,
        endpoint: &Endpoint,
        rules: &OriginRules,
    ) -> Option<Origin<P>> {
        match Origin::<P>::parse(&endpoint.origin, rules) {
            Ok(origin) => Some(origin),
            Err(error) => {
                let problem =
                    Problem::error("endpoint.origin", error.to_string()).key(self.key(key));
                let problem = match reader.found(&self.path(key)) {
                    Some(found) => reader.at_value(problem, &found),
                    None => problem,
                };
                reader.problem(problem);
                None
            }
        }
    }
}
