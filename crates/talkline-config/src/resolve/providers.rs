//! Provider tables to upstreams, and the model names that lead to them.

use std::{collections::BTreeMap, sync::Arc};

use talkline_auth::{Azure, Credential, Custom, OpenAi, Origin, OriginRules, Secret};
use talkline_dialect::{AzureApi, AzureUpstream, CustomUpstream, OpenAiUpstream, Upstream};

use super::selection::{Choice, Selection, default_is_azure};
use crate::{
    Problem, Routes,
    endpoint::{Endpoint, EndpointKind, EndpointRules, normalise},
    keys,
    reader::{Found, Reader, quoted},
    shown::{cleaned, looks_secret, shown},
    structure::is_azure_key,
    tree::{Table, Value, dotted},
};

/// What the provider tables come to.
pub(super) struct Providers {
    /// `None` when one of the providers or routes has a problem.
    pub(super) routes: Option<Routes>,
    pub(super) default_is_azure: bool,
    /// Every upstream key, so that nobody hands one to clients.
    pub(super) keys: Vec<Secret>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Type {
    Azure,
    OpenAi,
    Custom,
}

/// A provider as read, before the routes are made.
struct Provider {
    upstream: Upstream,
    key: Option<Secret>,
    /// Names by which clients may ask for it.
    names: Vec<String>,
}

pub(super) fn read(reader: &mut Reader<'_>, selection: &Selection) -> Providers {
    let azure = default_is_azure(selection, reader.root);
    let mut out = Providers {
        routes: None,
        default_is_azure: azure,
        keys: Vec::new(),
    };
    if !is_chosen(reader, selection) {
        return out;
    }
    reader.text(&["talk", "realtime", "provider"]);
    let allow_any_model = reader.flag_or_off(&["talk", "realtime", "allowAnyModel"]);
    let realtime_model = reader
        .text(&["talk", "realtime", "model"])
        .map(|found| found.value);

    let mut ids: Vec<String> = reader
        .table(&["talk", "realtime", "providers"])
        .map(|tables| {
            tables
                .entries
                .iter()
                .map(|entry| entry.key.clone())
                .collect()
        })
        .unwrap_or_default();
    ids.retain(|id| selection.uses(id) || has_azure_key(reader, id));
    if !ids.contains(&selection.table) {
        ids.push(selection.table.clone());
    }
    ids.sort();
    ids.dedup();

    let mut providers = BTreeMap::new();
    let mut sound = true;
    for id in &ids {
        let is_default = *id == selection.table;
        let mut one = One {
            id,
            is_default,
            azure,
            realtime_model: &realtime_model,
            allow_any_model,
        };
        match one.read(reader) {
            Some(provider) => {
                out.keys.extend(provider.key.clone());
                providers.insert(id.clone(), provider);
            }
            None => sound = false,
        }
    }
    let aliases = aliases(reader, selection, &ids, &providers, realtime_model);
    let (true, Some(aliases)) = (sound, aliases) else {
        return out;
    };
    let upstreams = providers
        .into_iter()
        .map(|(id, one)| (id, Arc::new(one.upstream)))
        .collect();
    out.routes = Routes::new(upstreams, aliases, selection.table.clone(), allow_any_model);
    out
}

/// Whether there is a default provider; if not, says how to choose one.
fn is_chosen(reader: &mut Reader<'_>, selection: &Selection) -> bool {
    let provider_path = ["talk", "realtime", "provider"];
    match selection.choice {
        Choice::Nothing => {
            let problem = Problem::error("config.nothing", "no Realtime provider is configured").hint(
                "either set AZURE_OPENAI_ENDPOINT, AZURE_OPENAI_DEPLOYMENT_NAME and AZURE_OPENAI_API_KEY, \
                 or write talk.realtime.provider and its table in talkline.toml",
            );
            reader.problem(problem.key(dotted(&provider_path)));
            false
        }
        Choice::Ambiguous => {
            let ids = table_ids(reader);
            let problem = Problem::error("provider.ambiguous", "several providers and none chosen")
                .key(dotted(&provider_path))
                .hint(format!(
                    "set talk.realtime.provider to one of {}",
                    listed(&ids)
                ));
            let problem = match reader.entry(&["talk", "realtime", "providers"]) {
                Some(entry) => reader.at(problem, &entry.key_place),
                None => problem,
            };
            reader.problem(problem);
            false
        }
        Choice::Written => is_known(reader, selection),
        Choice::Only | Choice::Variables => true,
    }
}

/// Whether `talk.realtime.provider` names a table, or a built-in provider where there is no table.
fn is_known(reader: &mut Reader<'_>, selection: &Selection) -> bool {
    let ids = table_ids(reader);
    let built_in = keys::TYPES.contains(&selection.table.as_str());
    if ids.contains(&selection.table) || (built_in && ids.is_empty()) {
        return true;
    }
    let Some(found) = reader.found(&["talk", "realtime", "provider"]) else {
        return false;
    };
    let mut candidates: Vec<&str> = ids.iter().map(String::as_str).collect();
    if ids.is_empty() {
        candidates.extend(keys::TYPES);
    }
    let hint = match keys::suggestion(&selection.table, &candidates) {
        Some(meant) => format!("did you mean \"{meant}\"?"),
        None => format!(
            "write one of {}, or add its table under talk.realtime.providers",
            listed(&candidates)
        ),
    };
    let message = format!(
        "provider {} has no table under talk.realtime.providers",
        shown(&selection.table)
    );
    let problem = reader.at_value(
        Problem::error("provider.unknown", message).hint(hint),
        &found,
    );
    reader.problem(problem);
    false
}

fn table_ids(reader: &Reader<'_>) -> Vec<String> {
    let place = |entry: &&crate::tree::Entry| !entry.key_place.is_untyped();
    reader
        .table(&["talk", "realtime", "providers"])
        .map(|table| {
            table
                .entries
                .iter()
                .filter(place)
                .map(|entry| entry.key.clone())
                .collect()
        })
        .unwrap_or_default()
}

fn listed<S: AsRef<str>>(ids: &[S]) -> String {
    ids.iter()
        .map(|id| format!("\"{}\"", cleaned(id.as_ref())))
        .collect::<Vec<_>>()
        .join(", ")
}

fn has_azure_key(reader: &Reader<'_>, id: &str) -> bool {
    reader
        .table(&["talk", "realtime", "providers", id])
        .is_some_and(|table| table.entries.iter().any(|entry| is_azure_key(&entry.key)))
}

/// One provider while it is read.
struct One<'a> {
    id: &'a str,
    is_default: bool,
    /// Whether the default provider is Azure.
    azure: bool,
    realtime_model: &'a Option<String>,
    allow_any_model: bool,
}

impl<'a> One<'a> {
    fn path(&self, key: &'a str) -> [&'a str; 5] {
        ["talk", "realtime", "providers", self.id, key]
    }

    fn key(&self, key: &str) -> String {
        dotted(&["talk", "realtime", "providers", self.id, key])
    }

    fn read(&mut self, reader: &mut Reader<'_>) -> Option<Provider> {
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
            .all(|p| p.severity == crate::Severity::Warning);
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
                        listed(keys::TYPES)
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
                    "allowedHosts",
                    "remove it: an OpenAI key goes to api.openai.com only",
                ),
                (
                    "allowInsecureUpstream",
                    "remove it: OpenAI is reached by TLS only",
                ),
            ],
            Type::Custom => &[],
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
        let Some(entry) = reader.entry(&self.path(key)) else {
            return false;
        };
        match entry.key_place {
            crate::tree::Place::File { file, .. } => reader
                .inputs
                .files
                .get(file)
                .is_some_and(|file| file.format == crate::Format::Json5),
            _ => false,
        }
    }

    fn azure(&self, reader: &mut Reader<'_>) -> Option<Provider> {
        let allowed_hosts = self.allowed_hosts(reader);
        let endpoint = self.azure_endpoint(reader, &allowed_hosts);
        let deployment = self.azure_deployment(reader, endpoint.as_ref());
        let api = self.azure_api(reader, endpoint.as_ref());
        let kind = self.auth_kind(reader, Type::Azure);
        let secret = self.api_key(reader, Type::Azure, "AZURE_OPENAI_API_KEY");
        let aliases = self.aliases(reader);
        let (endpoint, deployment, api, secret) = (endpoint?, deployment?, api?, secret?);
        kind?;
        let rules = OriginRules {
            allowed_hosts,
            allow_insecure: false,
        };
        let origin = self.origin::<Azure>(reader, "azureEndpoint", &endpoint, &rules)?;
        let mut names = vec![deployment.clone()];
        names.extend(aliases);
        Some(Provider {
            upstream: Upstream::Azure(AzureUpstream {
                credential: Credential::<Azure>::api_key(origin, secret.clone()),
                base_path: endpoint.base_path,
                api,
                deployment,
            }),
            key: Some(secret),
            names,
        })
    }

    fn azure_endpoint(
        &self,
        reader: &mut Reader<'_>,
        allowed_hosts: &[String],
    ) -> Option<Endpoint> {
        let rules = EndpointRules {
            allowed_hosts,
            allow_insecure: false,
        };
        let path = self.path("azureEndpoint");
        self.endpoint(reader, EndpointKind::Azure, &path, &rules, || {
            Problem::error("azure.endpoint-missing", "Azure needs the endpoint of the resource").hint(
                "write azureEndpoint = \"https://<resource>.openai.azure.com\" or set AZURE_OPENAI_ENDPOINT",
            )
        })
    }

    fn azure_deployment(
        &self,
        reader: &mut Reader<'_>,
        endpoint: Option<&Endpoint>,
    ) -> Option<String> {
        let path = self.path("azureDeployment");
        let pasted = endpoint.and_then(|endpoint| endpoint.deployment.as_deref());
        let Some(found) = reader.text(&path) else {
            let hint = match pasted {
                Some(name) if is_deployment(name) => {
                    format!("write azureDeployment = {}, as the endpoint's URL has it", quoted(name))
                }
                _ => "write azureDeployment = \"<name of the deployment>\" or set AZURE_OPENAI_DEPLOYMENT_NAME; \
                      it is the deployment's name, not the model's"
                    .to_owned(),
            };
            self.missing(reader, "azureDeployment", || {
                Problem::error(
                    "azure.deployment-missing",
                    "Azure needs the name of the deployment",
                )
                .hint(hint)
            });
            return None;
        };
        if found.value.contains(['<', '>', '{', '}']) {
            let problem = Problem::error(
                "value.placeholder",
                "this is a placeholder, not a deployment",
            )
            .hint("write the name that the portal lists under \"Deployments\"");
            let problem = reader.at_value(problem, &found);
            reader.problem(problem);
            return None;
        }
        if !is_deployment(&found.value) {
            let message = "a deployment's name has at most 64 letters, digits, `-`, `_` and `.`";
            let hint = match found.value.contains("://") {
                true => "write only the name; the URL belongs in `azureEndpoint`",
                false => "write the name that the portal lists under \"Deployments\"",
            };
            let problem = Problem::error("azure.deployment-name", message).hint(hint);
            let problem = reader.at_value(problem, &found);
            reader.problem(problem);
            return None;
        }
        if let Some(pasted) = pasted.filter(|pasted| *pasted != found.value) {
            let message = format!(
                "the endpoint's URL names the deployment {}, this key another",
                shown(pasted)
            );
            let problem = Problem::error("azure.deployment-disagrees", message)
                .hint("remove the path and query from `azureEndpoint`, or correct this name");
            let problem = reader.at_value(problem, &found);
            reader.problem(problem);
            return None;
        }
        Some(found.value)
    }

    fn azure_api(&self, reader: &mut Reader<'_>, endpoint: Option<&Endpoint>) -> Option<AzureApi> {
        let path = self.path("azureApiVersion");
        let pasted = endpoint.and_then(|endpoint| endpoint.api_version.as_deref());
        let Some(found) = reader.text(&path) else {
            if reader.entry(&path).is_some() {
                return None;
            }
            if let (Some(pasted), Some(found)) = (pasted, reader.found(&self.path("azureEndpoint")))
            {
                let message = "the api-version in the endpoint's URL is not used: without azureApiVersion the GA path is";
                let hint = match is_api_version(pasted) {
                    true => format!(
                        "write azureApiVersion = \"{pasted}\" for the preview path, or remove the query"
                    ),
                    false => "remove the query from the endpoint".to_owned(),
                };
                let problem = Problem::warning("azure.api-version-in-endpoint", message).hint(hint);
                let problem = reader.at_value(problem, &found);
                reader.problem(problem);
            }
            return Some(AzureApi::Ga);
        };
        let refused = if matches!(
            found.value.as_str(),
            "v1" | "ga" | "GA" | "latest" | "preview"
        ) {
            Some((
                "azure.api-version-ga",
                "the GA path `/openai/v1/realtime` has no api-version; Azure refuses one there"
                    .to_owned(),
                "remove azureApiVersion for GA, or write a version such as \"2025-04-01-preview\" for the preview path",
            ))
        } else if !is_api_version(&found.value) {
            Some((
                "azure.api-version",
                format!("{} is not an api-version", shown(&found.value)),
                "write it as YYYY-MM-DD or YYYY-MM-DD-preview, or remove it for the GA path",
            ))
        } else if pasted.is_some_and(|pasted| pasted != found.value) {
            Some((
                "azure.api-version-disagrees",
                "the endpoint's URL names another api-version".to_owned(),
                "remove the query from `azureEndpoint`",
            ))
        } else {
            None
        };
        if let Some((code, message, hint)) = refused {
            let problem = reader.at_value(Problem::error(code, message).hint(hint), &found);
            reader.problem(problem);
            return None;
        }
        Some(AzureApi::Preview {
            api_version: found.value,
        })
    }

    fn openai(&self, reader: &mut Reader<'_>) -> Option<Provider> {
        let path = self.path("baseUrl");
        let endpoint = match reader.entry(&path) {
            Some(_) => {
                let rules = EndpointRules::default();
                let missing = || Problem::error("value.empty", "the value is empty");
                self.endpoint(reader, EndpointKind::OpenAi, &path, &rules, missing)
            }
            None => normalise(
                EndpointKind::OpenAi,
                "https://api.openai.com",
                &EndpointRules::default(),
            )
            .ok(),
        };
        let kind = self.auth_kind(reader, Type::OpenAi);
        let secret = self.api_key(reader, Type::OpenAi, "OPENAI_API_KEY");
        let (model, names) = self.model(reader);
        let named = self.require_name(reader, &names);
        let (endpoint, secret) = (endpoint?, secret?);
        kind?;
        named?;
        let origin =
            self.origin::<OpenAi>(reader, "baseUrl", &endpoint, &OriginRules::default())?;
        let credential = Credential::<OpenAi>::api_key(origin, secret.clone());
        let upstream = Upstream::OpenAi(OpenAiUpstream { credential, model });
        Some(Provider {
            upstream,
            key: Some(secret),
            names,
        })
    }

    fn custom(&self, reader: &mut Reader<'_>) -> Option<Provider> {
        let allowed_hosts = self.allowed_hosts(reader);
        let allow_insecure = reader.flag_or_off(&self.path("allowInsecureUpstream"));
        let rules = EndpointRules {
            allowed_hosts: &allowed_hosts,
            allow_insecure,
        };
        let endpoint = self.endpoint(
            reader,
            EndpointKind::Custom,
            &self.path("baseUrl"),
            &rules,
            || {
                Problem::error(
                    "custom.base-url-missing",
                    "a custom provider needs its base URL",
                )
                .hint("write baseUrl = \"https://host.example/v1\" or set OPENAI_BASE_URL")
            },
        );
        let kind = self.auth_kind(reader, Type::Custom);
        let secret = match kind.as_deref() {
            Some("none") => None,
            _ => self.api_key(reader, Type::Custom, "OPENAI_API_KEY"),
        };
        let (model, names) = self.model(reader);
        let named = self.require_name(reader, &names);
        let endpoint = endpoint?;
        named?;
        let rules = OriginRules {
            allowed_hosts,
            allow_insecure,
        };
        let origin = self.origin::<Custom>(reader, "baseUrl", &endpoint, &rules)?;
        let credential = match (kind?.as_str(), secret.clone()) {
            ("none", _) => Credential::<Custom>::none(origin),
            (_, Some(secret)) => Credential::<Custom>::api_key(origin, secret),
            (_, None) => return None,
        };
        let upstream = Upstream::Custom(CustomUpstream {
            credential,
            base_path: endpoint.base_path,
            model,
        });
        Some(Provider {
            upstream,
            key: secret,
            names,
        })
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

    fn auth_kind(&self, reader: &mut Reader<'_>, kind: Type) -> Option<String> {
        let path = ["talk", "realtime", "providers", self.id, "auth", "kind"];
        let Some(found) = reader.choice(&path) else {
            return reader.entry(&path).is_none().then(|| "api-key".to_owned());
        };
        if found.value == "none" && kind != Type::Custom {
            let problem = Problem::error(
                "auth.none",
                "only a custom provider can go without a credential",
            )
            .hint("remove auth.kind, or write \"api-key\"");
            let problem = reader.at_value(problem, &found);
            reader.problem(problem);
            return None;
        }
        if found.value == "none" && reader.entry(&self.path("apiKey")).is_some() {
            let problem = Problem::error(
                "auth.conflict",
                "auth.kind is \"none\" and an apiKey is given",
            )
            .hint("remove one of the two");
            let problem = reader.at_value(problem, &found);
            reader.problem(problem);
            return None;
        }
        Some(found.value)
    }

    fn api_key(&self, reader: &mut Reader<'_>, kind: Type, variable: &str) -> Option<Secret> {
        let path = self.path("apiKey");
        let Some(entry) = reader.entry(&path) else {
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
            if kind != Type::Custom && set(other) {
                hint.push_str(&format!("; {other} is set but never used here"));
            }
            let (code, message) = match kind {
                Type::Azure => ("azure.key-missing", "Azure needs a key"),
                Type::OpenAi => ("openai.key-missing", "OpenAI needs a key"),
                Type::Custom => (
                    "custom.key-missing",
                    "the endpoint needs a key, or the word that it needs none",
                ),
            };
            self.missing(reader, "apiKey", || {
                Problem::error(code, message).hint(hint)
            });
            return None;
        };
        let resolved = reader.secret(&self.key("apiKey"), &entry.node, variable)?;
        reader.setting(self.key("apiKey"), resolved.shown, &entry.key_place);
        Some(resolved.secret)
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

/// Names that clients may ask for. `None` when a route leads nowhere.
fn aliases(
    reader: &mut Reader<'_>,
    selection: &Selection,
    ids: &[String],
    providers: &BTreeMap<String, Provider>,
    realtime_model: Option<String>,
) -> Option<BTreeMap<String, String>> {
    let mut aliases = BTreeMap::new();
    let routes: Vec<String> = reader
        .table(&["talk", "realtime", "routes"])
        .map(|routes| {
            routes
                .entries
                .iter()
                .map(|entry| entry.key.clone())
                .collect()
        })
        .unwrap_or_default();
    let mut sound = true;
    for alias in &routes {
        let Some(found) = reader.text(&["talk", "realtime", "routes", alias]) else {
            sound = false;
            continue;
        };
        let by_alias = selection.by_alias && found.value == "azure-openai";
        let id = if by_alias {
            &selection.table
        } else {
            &found.value
        };
        if ids.contains(id) && is_model(alias) {
            aliases.insert(alias.clone(), id.clone());
            continue;
        }
        sound = false;
        let problem = if is_model(alias) {
            let candidates: Vec<&str> = ids.iter().map(String::as_str).collect();
            let hint = match keys::suggestion(id, &candidates) {
                Some(meant) => format!("did you mean \"{meant}\"?"),
                None => format!("configured are {}", listed(ids)),
            };
            let message = format!("the route leads to {}, which is no provider", shown(id));
            reader.at_value(
                Problem::error("route.unknown-provider", message).hint(hint),
                &found,
            )
        } else {
            reader.at_key(model_name(), &found)
        };
        reader.problem(problem);
    }
    if !routes.is_empty() {
        return sound.then_some(aliases);
    }
    let default = &selection.table;
    let own = providers
        .get(default)
        .into_iter()
        .flat_map(|one| one.names.iter().cloned());
    for name in own.chain(realtime_model) {
        aliases.insert(name, default.clone());
    }
    for (id, provider) in providers.iter().filter(|(id, _)| *id != default) {
        for name in &provider.names {
            let taken = aliases.entry(name.clone()).or_insert_with(|| id.clone());
            if taken != id && taken != default {
                sound = false;
                let message = format!(
                    "{} could mean provider \"{}\" or \"{}\"",
                    shown(name),
                    cleaned(taken),
                    cleaned(id)
                );
                let problem = Problem::error("route.ambiguous", message)
                    .key("talk.realtime.routes")
                    .hint(format!(
                        "write talk.realtime.routes.{} = \"{}\"",
                        dotted(&[name]),
                        cleaned(id)
                    ));
                reader.problem(problem);
            }
        }
    }
    sound.then_some(aliases)
}

fn is_model(name: &str) -> bool {
    (1..=128).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_graphic())
        && !looks_secret(name)
}

fn model_name() -> Problem {
    Problem::error("model.name", "this is no name of a model")
        .hint("a model's name has at most 128 visible ASCII characters and no space")
}

fn is_deployment(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        && !matches!(name, "." | "..")
}

/// `YYYY-MM-DD` or `YYYY-MM-DD-preview`, with a month and day that exist.
fn is_api_version(text: &str) -> bool {
    let date = text.strip_suffix("-preview").unwrap_or(text);
    let parts: Vec<&str> = date.split('-').collect();
    let number = |part: &str, digits: usize| {
        let plain = part.len() == digits && part.bytes().all(|byte| byte.is_ascii_digit());
        part.parse::<u32>().ok().filter(|_| plain)
    };
    match parts.as_slice() {
        [year, month, day] => {
            number(year, 4).is_some_and(|year| year >= 2020)
                && number(month, 2).is_some_and(|month| (1..=12).contains(&month))
                && number(day, 2).is_some_and(|day| (1..=31).contains(&day))
        }
        _ => false,
    }
}
