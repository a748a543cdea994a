//! `auth.*`: how a provider is signed in to.

use talkline_auth::TokenCell;

use super::{One, Type};
use crate::{
    Application, ClientSecret, DeveloperTools, HostIdentity, Identity, IdentityKind, KeyPlace,
    Problem, VaultIdentity, WatchedKey,
    keys::{self, IdForm, Kind, Known},
    reader::{Reader, quoted},
    secret::KeyVault,
    tree::{Node, Place, Value, dotted},
};

/// How a provider is signed in to.
pub(super) enum SignIn {
    /// With its key.
    Key,
    /// Not at all.
    Nothing,
    /// With Microsoft Entra ID.
    Entra(Identity),
}

/// The settings beside `auth.kind`.
const SETTINGS: &[&str] = &[
    "clientId",
    "objectId",
    "resourceId",
    "tenantId",
    "clientSecret",
    "certificate",
    "certificateKey",
    "tokenFile",
    "scope",
    "authority",
];

/// The settings that a kind reads.
fn settings_of(kind: &str) -> &'static [&'static str] {
    match kind {
        "managed-identity" => &["clientId", "objectId", "resourceId", "scope"],
        "workload-identity" => &["clientId", "tenantId", "tokenFile", "scope", "authority"],
        "client-secret" => &["clientId", "tenantId", "clientSecret", "scope", "authority"],
        "client-assertion" => &[
            "clientId",
            "tenantId",
            "certificate",
            "certificateKey",
            "scope",
            "authority",
        ],
        "azure-cli" | "azd" => &["tenantId", "scope"],
        "auto" => &["clientId", "tenantId", "scope", "authority"],
        _ => &[],
    }
}

/// The variables by which `auto` chooses, the first that is set.
const MARKERS: &[(&str, &str)] = &[
    ("AZURE_FEDERATED_TOKEN_FILE", "workload-identity"),
    ("AZURE_CLIENT_CERTIFICATE_PATH", "client-assertion"),
    ("AZURE_CLIENT_SECRET", "client-secret"),
    ("IDENTITY_ENDPOINT", "managed-identity"),
    ("MSI_ENDPOINT", "managed-identity"),
];

/// Variables of the identity that a platform hands to a process, for settings that are left out.
fn variable_of(setting: &str) -> Option<&'static str> {
    let path = format!("talk.realtime.providers.*.auth.{setting}");
    let spec = keys::KEYS.iter().find(|spec| spec.path == path)?;
    spec.variables.first().copied()
}

impl One<'_> {
    /// Reads `auth.kind` and everything that it needs. `host` is the upstream's, for the cloud that
    /// it belongs to.
    pub(super) fn sign_in(
        &self,
        reader: &mut Reader<'_>,
        provider: Type,
        host: &str,
    ) -> Option<SignIn> {
        let path = ["talk", "realtime", "providers", self.id, "auth", "kind"];
        let Some(found) = reader.choice(&path) else {
            if reader.entry(&path).is_some() {
                return None;
            }
            self.refuse_unused(reader, "api-key");
            return Some(SignIn::Key);
        };
        let kind = found.value.as_str();
        let problem = if keys::is_entra(kind) && provider != Type::Azure {
            Problem::error(
                "auth.azure-only",
                "Microsoft Entra ID signs in to Azure only",
            )
            .hint("write \"api-key\", or make it an Azure provider with azureEndpoint")
        } else if kind == "none" && provider != Type::Custom {
            Problem::error(
                "auth.none",
                "only a custom provider can go without a credential",
            )
            .hint("remove auth.kind, or write \"api-key\"")
        } else if let (true, Some(key)) = (kind != "api-key", self.written_key(reader)) {
            let message = format!("auth.kind is `{kind}` and `{key}` is given as well");
            Problem::error("auth.conflict", message).hint(format!(
                "keep one of them: remove {key}, or write auth.kind = \"api-key\""
            ))
        } else {
            self.refuse_unused(reader, kind);
            return match kind {
                "api-key" => Some(SignIn::Key),
                "none" => Some(SignIn::Nothing),
                kind => {
                    let place = found.entry.node.place.clone();
                    let prefix = Some(["talk", "realtime", "providers", self.id, "auth"]);
                    let mut auth = Auth {
                        reader,
                        prefix,
                        place,
                        key: dotted(&found.path[..found.path.len() - 1]),
                        host,
                    };
                    auth.identity(self.id, kind).map(SignIn::Entra)
                }
            };
        };
        let problem = reader.at_value(problem, &found);
        reader.problem(problem);
        None
    }

    fn written_key(&self, reader: &Reader<'_>) -> Option<&'static str> {
        ["apiKey", "apiKeySecondary"]
            .into_iter()
            .find(|key| reader.entry(&self.path(key)).is_some())
    }

    fn refuse_unused(&self, reader: &mut Reader<'_>, kind: &str) {
        for setting in SETTINGS {
            let path = ["talk", "realtime", "providers", self.id, "auth", setting];
            let Some(found) = reader.found(&path) else {
                continue;
            };
            if settings_of(kind).contains(setting) {
                continue;
            }
            let fitting = keys::AUTH_KINDS
                .iter()
                .filter(|kind| settings_of(kind).contains(setting))
                .map(|kind| format!("`{kind}`"))
                .collect::<Vec<_>>()
                .join(", ");
            let message = format!("`{setting}` has no meaning with auth.kind `{kind}`");
            let problem = Problem::error("auth.unused", message).hint(format!(
                "remove it, or choose the auth.kind that it belongs to: {fitting}"
            ));
            let problem = reader.at_key(problem, &found);
            reader.problem(problem);
        }
    }
}

/// The identity for Key Vault, where a key is kept there: chosen as `auto` chooses, from the
/// environment alone.
pub(in crate::resolve) fn vault_identity(
    reader: &mut Reader<'_>,
    keys: &[WatchedKey],
) -> Option<VaultIdentity> {
    let in_vault = |place: Option<&KeyPlace>| matches!(place, Some(KeyPlace::KeyVault(_)));
    let slot = keys.iter().find_map(|key| {
        let slot = match (
            in_vault(Some(&key.primary)),
            in_vault(key.secondary.as_ref()),
        ) {
            (true, _) => "apiKey",
            (false, true) => "apiKeySecondary",
            (false, false) => return None,
        };
        Some(["talk", "realtime", "providers", &key.provider, slot])
    })?;
    let place = reader.found(&slot)?.entry.node.place.clone();
    let key = dotted(&slot);
    let mut auth = Auth {
        reader,
        prefix: None,
        place,
        key,
        host: "",
    };
    let (kind, reason) = auth.auto();
    let kind = auth.kind(kind)?;
    Some(VaultIdentity { kind, reason })
}

/// Reads the settings of one identity, first from its table, then from the platform's variables.
struct Auth<'a, 'r, 't> {
    reader: &'r mut Reader<'t>,
    /// The table `auth`; `None` reads variables alone.
    prefix: Option<[&'a str; 5]>,
    /// What a missing setting is reported at.
    place: Place,
    /// Dotted key of the table, or of what stands for it.
    key: String,
    host: &'a str,
}

/// A setting with its place.
struct Given {
    value: String,
    place: Place,
}

impl<'a> Auth<'a, '_, '_> {
    fn identity(&mut self, provider: &str, kind: &str) -> Option<Identity> {
        let (kind, reason) = match kind {
            "auto" => self.auto(),
            kind => (kind, "auth.kind names it".to_owned()),
        };
        let scope = self.scope();
        let kind = self.kind(kind)?;
        Some(Identity {
            provider: provider.to_owned(),
            cell: TokenCell::new(kind.as_str()),
            kind,
            reason,
            scope: scope?,
        })
    }

    /// Chooses a kind by what the environment holds, once; an error later never leads to another.
    fn auto(&self) -> (&'static str, String) {
        let mut set = MARKERS
            .iter()
            .filter(|(name, _)| self.variable(name).is_some());
        if let Some((name, kind)) = set.next() {
            let unused: Vec<&str> = set.map(|(name, _)| *name).collect();
            let reason = match unused.as_slice() {
                [] => format!("{name} is set"),
                unused => format!(
                    "{name} is set; also set and not used: {}",
                    unused.join(", ")
                ),
            };
            return (kind, reason);
        }
        match self.reader.inputs.developer_tools {
            DeveloperTools::Allowed => (
                "azure-cli",
                "no variable names an identity, and --dev is given".to_owned(),
            ),
            DeveloperTools::Refused => (
                "managed-identity",
                "no variable names an identity: taken for a virtual machine or an AKS node"
                    .to_owned(),
            ),
        }
    }

    fn kind(&mut self, kind: &str) -> Option<IdentityKind> {
        match kind {
            "managed-identity" => self.managed_identity(),
            "workload-identity" => {
                let application = self.application(kind);
                let file = self.needed(kind, "tokenFile", "the file of the federated token");
                Some(IdentityKind::WorkloadIdentity {
                    application: application?,
                    token_file: file?.value,
                })
            }
            "client-secret" => {
                let application = self.application(kind);
                let secret = self.client_secret(kind);
                Some(IdentityKind::ClientSecret {
                    application: application?,
                    secret: secret?,
                })
            }
            "client-assertion" => {
                let application = self.application(kind);
                let certificate = self.needed(kind, "certificate", "the path of a certificate");
                let key = self.optional("certificateKey");
                let certificate = certificate?.value;
                Some(IdentityKind::ClientAssertion {
                    application: application?,
                    certificate_key: key?.map_or_else(|| certificate.clone(), |key| key.value),
                    certificate,
                })
            }
            tool => self.developer_tool(tool),
        }
    }

    fn managed_identity(&mut self) -> Option<IdentityKind> {
        let mut given = Vec::new();
        for name in ["objectId", "resourceId", "clientId"] {
            // A variable of the platform does not compete with what the file says.
            let id = match (name, given.is_empty()) {
                ("clientId", true) => self.id(name),
                _ => self.written_id(name),
            };
            given.extend(id?.map(|id| (name, id)));
        }
        if let [(first, _), (second, id), ..] = given.as_slice() {
            let message = format!("`{first}` and `{second}` both choose an identity");
            let place = id.place.clone();
            let hint = "keep one; `clientId` works on every Azure host";
            self.refuse("auth.two-ids", second, &place, message, hint);
            return None;
        }
        self.warn_of_federation();
        let Some((name, Given { value, place })) = given.pop() else {
            return Some(IdentityKind::ManagedIdentity(HostIdentity::System));
        };
        if name == "resourceId" && self.variable("IDENTITY_ENDPOINT").is_some() {
            let message =
                "App Service and Container Apps do not find an identity by its resource id";
            let hint = "write its clientId";
            self.refuse("auth.resource-id", name, &place, message.into(), hint);
            return None;
        }
        Some(IdentityKind::ManagedIdentity(match name {
            "objectId" => HostIdentity::ObjectId(value),
            "resourceId" => HostIdentity::ResourceId(value),
            _ => HostIdentity::ClientId(value),
        }))
    }

    /// On AKS, the node's identity is rarely the one that is meant.
    fn warn_of_federation(&mut self) {
        if self.variable("AZURE_FEDERATED_TOKEN_FILE").is_some() {
            let message =
                "AZURE_FEDERATED_TOKEN_FILE is set, but `managed-identity` does not use it";
            let problem = Problem::warning("auth.federation-unused", message)
                .key(format!("{}.kind", self.key))
                .hint("on AKS with workload identity write auth.kind = \"workload-identity\"");
            let problem = self.reader.at(problem, &self.place);
            self.reader.problem(problem);
        }
    }

    fn developer_tool(&mut self, tool: &str) -> Option<IdentityKind> {
        let tenant_id = self.id("tenantId");
        if self.reader.inputs.developer_tools == DeveloperTools::Refused {
            let message = format!("`{tool}` takes whoever is signed in on this machine");
            let hint = "start with --dev on a developer's machine; on Azure write auth.kind = \"managed-identity\"";
            let place = self.place.clone();
            self.refuse("auth.developer-tool", "kind", &place, message, hint);
            return None;
        }
        let tenant_id = tenant_id?.map(|tenant| tenant.value);
        Some(match tool {
            "azd" => IdentityKind::AzureDeveloperCli { tenant_id },
            _ => IdentityKind::AzureCli { tenant_id },
        })
    }

    fn application(&mut self, kind: &str) -> Option<Application> {
        let tenant = self.id("tenantId");
        let client = self.id("clientId");
        let authority = self.authority();
        let tenant = tenant.and_then(|given| self.or_missing(given, kind, "tenantId", "a tenant"));
        let client =
            client.and_then(|given| self.or_missing(given, kind, "clientId", "an application"));
        Some(Application {
            tenant_id: tenant?.value,
            client_id: client?.value,
            authority: authority?,
        })
    }

    fn client_secret(&mut self, kind: &str) -> Option<ClientSecret> {
        let variable = variable_of("clientSecret").unwrap_or_default();
        let key = format!("{}.clientSecret", self.key);
        let written = self.path("clientSecret").and_then(|path| {
            let entry = self.reader.entry(&path)?;
            Some(entry.node.clone())
        });
        let node = match (written, self.variable(variable)) {
            (Some(node), _) => node,
            (None, Some(value)) => Node {
                place: Place::Variable(variable.to_owned()),
                value: Value::Text(value.to_owned()),
            },
            (None, None) => {
                self.or_missing(None, kind, "clientSecret", "the application's secret");
                return None;
            }
        };
        let resolved = self
            .reader
            .secret(&key, &node, variable, KeyVault::Refused)?;
        self.reader.setting(key, resolved.shown, &node.place);
        Some(ClientSecret(resolved.secret))
    }

    /// Entra of the cloud that the upstream belongs to, unless somebody says otherwise.
    ///
    /// Source: <https://learn.microsoft.com/entra/identity-platform/authentication-national-cloud>.
    fn authority(&mut self) -> Option<String> {
        let Some(given) = self.optional("authority")? else {
            let host = match Cloud::of(self.host) {
                Cloud::Public => "login.microsoftonline.com",
                Cloud::UsGovernment => "login.microsoftonline.us",
                Cloud::China => "login.partner.microsoftonline.cn",
            };
            return Some(format!("https://{host}"));
        };
        let url = given.value.trim_end_matches('/');
        let host = url.strip_prefix("https://").unwrap_or_default();
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b':');
        if !host.is_empty() && host.bytes().all(legal) {
            self.record("authority", url, &given.place);
            return Some(url.to_owned());
        }
        let message = "the authority is not an https URL of a host";
        let hint = "write https://login.microsoftonline.com or that of another cloud; the tenant belongs in tenantId";
        self.refuse(
            "auth.authority",
            "authority",
            &given.place,
            message.into(),
            hint,
        );
        None
    }

    /// The audience of the Realtime API, by the cloud that the host belongs to.
    ///
    /// Source: <https://learn.microsoft.com/azure/ai-foundry/openai/how-to/realtime-audio-websockets>
    /// and <https://learn.microsoft.com/azure/azure-government/compare-azure-government-global-azure>.
    fn scope(&mut self) -> Option<String> {
        let Some(given) = self.optional("scope")? else {
            let top_level = match Cloud::of(self.host) {
                Cloud::Public => "com",
                Cloud::UsGovernment => "us",
                Cloud::China => "cn",
            };
            return Some(format!(
                "https://cognitiveservices.azure.{top_level}/.default"
            ));
        };
        let resource = given.value.strip_suffix("/.default").unwrap_or_default();
        let legal = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#' | b'@');
        if resource.contains("://") && resource.bytes().all(legal) {
            self.record("scope", &given.value, &given.place);
            return Some(given.value);
        }
        let message = "a scope is the URL of a resource with /.default behind it";
        let hint = "write \"https://cognitiveservices.azure.com/.default\" or \"https://ai.azure.com/.default\", or leave it out";
        self.refuse("auth.scope", "scope", &given.place, message.into(), hint);
        None
    }

    /// An id from the table or its variable; `None` where it is malformed.
    fn id(&mut self, name: &str) -> Option<Option<Given>> {
        let given = self.optional(name)?;
        self.well_formed(name, given)
    }

    /// An id from the table.
    fn written_id(&mut self, name: &str) -> Option<Option<Given>> {
        let given = self.written(name)?;
        self.well_formed(name, given)
    }

    fn well_formed(&mut self, name: &str, given: Option<Given>) -> Option<Option<Given>> {
        let Some(given) = given else {
            return Some(None);
        };
        let path = ["talk", "realtime", "providers", "*", "auth", name];
        let Known::Key(keys::KeySpec {
            kind: Kind::Id(form),
            ..
        }) = keys::known(&path)
        else {
            return Some(Some(given));
        };
        if form.admits(&given.value) {
            return Some(Some(given));
        }
        let (message, hint) = match form {
            IdForm::Guid => (
                "this is not an id of Entra's",
                "write it as the portal shows it, 8-4-4-4-12 hexadecimal digits; a client secret belongs in clientSecret as a reference",
            ),
            IdForm::Tenant => (
                "this is not a tenant",
                "write the directory (tenant) id or a domain of the tenant, such as contoso.onmicrosoft.com; `common` and its like are for users",
            ),
            IdForm::Resource => (
                "this is not a resource id",
                "write /subscriptions/…/userAssignedIdentities/<name>, as `az identity show --query id` prints it",
            ),
        };
        self.refuse("auth.id", name, &given.place, message.into(), hint);
        None
    }

    fn needed(&mut self, kind: &str, name: &str, what: &str) -> Option<Given> {
        let given = self.optional(name)?;
        self.or_missing(given, kind, name, what)
    }

    fn or_missing(
        &mut self,
        given: Option<Given>,
        kind: &str,
        name: &str,
        what: &str,
    ) -> Option<Given> {
        if given.is_some() {
            return given;
        }
        let message = format!("`{kind}` needs {what}");
        let variable = variable_of(name);
        let hint = match (self.prefix, variable) {
            (None, Some(variable)) => format!("set {variable}"),
            (_, Some(variable)) => format!("write auth.{name} or set {variable}"),
            (_, None) => format!("write auth.{name}"),
        };
        let place = self.place.clone();
        self.refuse("auth.missing", name, &place, message, &hint);
        None
    }

    /// A setting from the table or its variable; `None` where it cannot be read.
    fn optional(&mut self, name: &str) -> Option<Option<Given>> {
        if let Some(written) = self.written(name)? {
            return Some(Some(written));
        }
        let Some(variable) = variable_of(name) else {
            return Some(None);
        };
        let Some(value) = self.variable(variable).map(str::to_owned) else {
            return Some(None);
        };
        let place = Place::Variable(variable.to_owned());
        let is_url = matches!(name, "authority" | "scope");
        if !is_url {
            self.record(name, &value, &place);
        }
        Some(Some(Given { value, place }))
    }

    fn written(&mut self, name: &str) -> Option<Option<Given>> {
        let Some(path) = self.path(name) else {
            return Some(None);
        };
        if self.reader.entry(&path).is_none() {
            return Some(None);
        }
        let found = self.reader.text(&path)?;
        Some(Some(Given {
            value: found.value,
            place: found.entry.node.place.clone(),
        }))
    }

    fn path<'n>(&self, name: &'n str) -> Option<[&'n str; 6]>
    where
        'a: 'n,
    {
        let [talk, realtime, providers, id, auth] = self.prefix?;
        Some([talk, realtime, providers, id, auth, name])
    }

    /// A variable of the platform; an empty one counts as unset.
    fn variable(&self, name: &str) -> Option<&str> {
        let value = self.reader.inputs.variables.get(name)?;
        Some(value.as_str()).filter(|value| !value.trim().is_empty())
    }

    fn record(&mut self, name: &str, value: &str, place: &Place) {
        if self.prefix.is_some() {
            let key = format!("{}.{name}", self.key);
            self.reader.setting(key, quoted(value), place);
        }
    }

    fn refuse(
        &mut self,
        code: &'static str,
        name: &str,
        place: &Place,
        message: String,
        hint: &str,
    ) {
        let key = match self.prefix {
            Some(_) => format!("{}.{name}", self.key),
            None => self.key.clone(),
        };
        let problem = Problem::error(code, message).key(key).hint(hint);
        let problem = self.reader.at(problem, place);
        self.reader.problem(problem);
    }
}

enum Cloud {
    Public,
    UsGovernment,
    China,
}

impl Cloud {
    fn of(host: &str) -> Self {
        if host.ends_with(".azure.us") {
            Cloud::UsGovernment
        } else if host.ends_with(".azure.cn") {
            Cloud::China
        } else {
            Cloud::Public
        }
    }
}
