//! Azure Key Vault, as far as reading secrets goes.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

use crate::clock::now_unix;
use crate::ids;
use crate::record::SeenRequest;

use super::ca::TestCa;
use super::fault::{Fault, Mode, Modes};
use super::host::{Answer, Host, Reaction, Service, pairs, serving, value};
use super::token::{Jwt, TENANT};

/// What the vault does with a request that carries a token.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum VaultMode {
    /// Checks the token and gives the secret.
    Works,
    /// 403: the caller lacks a role; the text has `\r\n` in it, as the real one has.
    ForbiddenByRbac,
    /// 403: public network access is off.
    ForbiddenByConnection,
    /// 403: the firewall does not let the caller's address in.
    ForbiddenByFirewall,
    /// 403: the secret is disabled. [`KeyVault::set_enabled`] does it for one.
    SecretDisabled,
    /// 404: there is no such secret. [`KeyVault::remove_secret`] does it for one.
    SecretNotFound,
    /// 429.
    Throttled {
        /// The value of `Retry-After`, in whole seconds.
        retry_after: Duration,
    },
    /// The challenge names this resource in place of the vault's own: a lure for a token. Requests with a token
    /// are answered properly.
    ChallengesFor(String),
    /// Refuses every token with another challenge.
    RefusesTokens,
    /// Fails, before the challenge already.
    Fault(Fault),
}

impl From<Fault> for VaultMode {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl Mode for VaultMode {
    fn fault(&self) -> Option<&Fault> {
        match self {
            Self::Fault(fault) => Some(fault),
            Self::Works
            | Self::ForbiddenByRbac
            | Self::ForbiddenByConnection
            | Self::ForbiddenByFirewall
            | Self::SecretDisabled
            | Self::SecretNotFound
            | Self::Throttled { .. }
            | Self::ChallengesFor(_)
            | Self::RefusesTokens => None,
        }
    }
}

/// A vault, over TLS, under its real name.
///
/// A client must be made to reach it as [`KeyVault::vault_host`], port 443, by a resolver of the test's own: clients
/// check that the name ends like a vault's. Serves `GET /secrets/{name}[/{version}]?api-version=7.x` ("Get Secret",
/// Key Vault REST API), after a challenge to the request without a token.
#[derive(Debug)]
pub struct KeyVault {
    host: Host,
    rules: Arc<Rules>,
    ca: TestCa,
}

/// Settings of a vault that has not started.
#[derive(Debug)]
#[must_use = "a builder does nothing until it is started"]
pub struct VaultBuilder {
    ca: Option<TestCa>,
    name: String,
    suffix: String,
    mode: VaultMode,
    secrets: Vec<(String, String)>,
}

impl VaultBuilder {
    /// Who signs its certificate. Defaults to an authority of its own.
    pub fn ca(mut self, ca: &TestCa) -> Self {
        self.ca = Some(ca.clone());
        self
    }

    /// The vault's name. Defaults to `talkline-test`.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// What follows the vault's name and a dot. Defaults to `vault.azure.net`, the public cloud's.
    pub fn suffix(mut self, suffix: impl Into<String>) -> Self {
        self.suffix = suffix.into();
        self
    }

    /// What it does at first. Defaults to [`VaultMode::Works`].
    pub fn mode(mut self, mode: impl Into<VaultMode>) -> Self {
        self.mode = mode.into();
        self
    }

    /// A secret that is there from the start.
    pub fn secret(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.secrets.push((name.into(), value.into()));
        self
    }

    /// Listens on a free loopback port and begins to serve. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// What binding or making the certificate said.
    ///
    /// # Cancel safety
    /// Dropping the future frees the port.
    pub async fn start(self) -> io::Result<KeyVault> {
        let ca = self.ca.map_or_else(TestCa::new, Ok)?;
        let host_name = format!("{}.{}", self.name, self.suffix);
        let tls = ca.server_config(&[&host_name, &format!("*.{}", self.suffix)])?;
        let rules = Arc::new(Rules {
            modes: Modes::new(self.mode),
            resource: format!("https://{}", self.suffix),
            host_name,
            secrets: Mutex::default(),
        });
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let host = Host::start(listen, Some(tls), Arc::clone(&rules)).await?;
        let vault = KeyVault { host, rules, ca };
        for (name, value) in self.secrets {
            vault.set_secret(&name, value);
        }
        Ok(vault)
    }
}

impl KeyVault {
    /// Starts from the defaults.
    pub fn builder() -> VaultBuilder {
        VaultBuilder {
            ca: None,
            name: "talkline-test".to_owned(),
            suffix: "vault.azure.net".to_owned(),
            mode: VaultMode::Works,
            secrets: Vec::new(),
        }
    }

    /// The name under which it must be reached, such as `talkline-test.vault.azure.net`.
    #[must_use]
    pub fn vault_host(&self) -> &str {
        &self.rules.host_name
    }

    /// The versionless address of a secret, as a reference in a configuration would have it.
    #[must_use]
    pub fn secret_url(&self, name: &str) -> String {
        format!("https://{}/secrets/{name}", self.vault_host())
    }

    /// Who signed its certificate.
    #[must_use]
    pub fn ca(&self) -> &TestCa {
        &self.ca
    }

    /// Does this from the next request (or connection) on.
    pub fn set_mode(&self, mode: impl Into<VaultMode>) {
        self.rules.modes.set(mode.into());
    }

    /// Does each of `first` for one request, then `then` for all others. Requests without a token count for
    /// [`VaultMode::Fault`] and [`VaultMode::ChallengesFor`] only.
    pub fn set_modes(
        &self,
        first: impl IntoIterator<Item = VaultMode>,
        then: impl Into<VaultMode>,
    ) {
        self.rules.modes.set_all(first, then.into());
    }

    /// Adds a version of a secret, which is the current one from now on, and returns its id: 32 hexadecimal digits.
    pub fn set_secret(&self, name: &str, value: impl Into<String>) -> String {
        let version = ids::uuid().replace('-', "");
        let now_unix = now_unix();
        let added = Version {
            id: version.clone(),
            value: value.into(),
            enabled: true,
            created_unix: now_unix,
            expires_unix: None,
        };
        self.rules
            .secrets()
            .entry(name.to_ascii_lowercase())
            .or_default()
            .push(added);
        version
    }

    /// Enables or disables the current version of a secret, if there is one.
    pub fn set_enabled(&self, name: &str, state: SecretState) {
        self.change(name, |version| {
            version.enabled = state == SecretState::Enabled
        });
    }

    /// Dates the current version of a secret, if there is one: its attribute `exp`, in seconds since 1970. The
    /// vault gives the value beyond that time too, as the real one does.
    pub fn set_expiry(&self, name: &str, at_unix: Option<u64>) {
        self.change(name, |version| version.expires_unix = at_unix);
    }

    /// Deletes a secret with all versions.
    pub fn remove_secret(&self, name: &str) {
        self.rules.secrets().remove(&name.to_ascii_lowercase());
    }

    fn change(&self, name: &str, change: impl FnOnce(&mut Version)) {
        let mut secrets = self.rules.secrets();
        if let Some(version) = secrets
            .get_mut(&name.to_ascii_lowercase())
            .and_then(|all| all.last_mut())
        {
            change(version);
        }
    }
}

serving!(KeyVault);

/// Whether a secret may be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecretState {
    /// It may.
    Enabled,
    /// It may not: 403, `SecretDisabled`.
    Disabled,
}

#[derive(Debug, Clone)]
struct Version {
    id: String,
    value: String,
    enabled: bool,
    created_unix: u64,
    expires_unix: Option<u64>,
}

#[derive(Debug)]
struct Rules {
    modes: Modes<VaultMode>,
    host_name: String,
    /// The audience of tokens, without a trailing slash.
    resource: String,
    /// By name in lower case; versions in the order added.
    secrets: Mutex<BTreeMap<String, Vec<Version>>>,
}

impl Service for Rules {
    fn greet(&self) -> Option<Fault> {
        self.modes.greet()
    }

    fn react(&self, request: &SeenRequest) -> Reaction {
        let token = request
            .header("authorization")
            .and_then(|value| value.strip_prefix("Bearer "));
        let Some(token) = token else {
            return self.challenge_first(request);
        };
        match self.modes.take().0 {
            VaultMode::Works | VaultMode::ChallengesFor(_) => self.proper(request, token).into(),
            VaultMode::RefusesTokens => self.challenge(&self.resource, REFUSED).into(),
            VaultMode::Throttled { retry_after } => refuse(429, "Throttled", THROTTLED, None)
                .header("retry-after", retry_after.as_secs().to_string())
                .into(),
            VaultMode::ForbiddenByRbac => self.forbid("ForbiddenByRbac", RBAC, token),
            VaultMode::ForbiddenByConnection => {
                self.forbid("ForbiddenByConnection", CONNECTION, token)
            }
            VaultMode::ForbiddenByFirewall => self.forbid("ForbiddenByFirewall", FIREWALL, token),
            VaultMode::SecretDisabled => disabled().into(),
            VaultMode::SecretNotFound => not_found(&request.path).into(),
            VaultMode::Fault(fault) => fault.react(|| self.proper(request, token)),
        }
    }
}

const MISSING: &str = "AKV10000: Request is missing a Bearer or PoP token.";
const REFUSED: &str =
    "AKV10032: Invalid issuer. Expected one of https://sts.windows.net/, found another.";
const THROTTLED: &str = "Request was not processed because too many requests were received. Reason: \
                         VaultRequestTypeLimitReached";
const RBAC: &str = "Caller is not authorized to perform action on resource.\r\nIf role assignments, deny assignments \
                    or role definitions were changed recently, please observe propagation time.\r\nCaller: \
                    {caller}\r\nAction: 'Microsoft.KeyVault/vaults/secrets/getSecret/action'\r\nAssignment: (not \
                    found)\r\nDenyAssignmentId: null\r\nDecisionReason: null\r\nVault: \
                    {vault};location=eastus2\r\n";
const CONNECTION: &str = "Public network access is disabled and request is not from a trusted service nor via an \
                          approved private link.\r\nCaller: {caller}\r\nVault: {vault};location=eastus2";
const FIREWALL: &str = "Client address is not authorized and caller is not a trusted service.\r\nClient address: \
                        203.0.113.7\r\nCaller: {caller}\r\nVault: {vault};location=eastus2";

impl Rules {
    /// Answers a request without a token: a challenge, unless the fault or the lure is for it.
    fn challenge_first(&self, request: &SeenRequest) -> Reaction {
        let meant =
            |mode: &VaultMode| matches!(mode, VaultMode::Fault(_) | VaultMode::ChallengesFor(_));
        match self.modes.take_if(meant) {
            Some(VaultMode::Fault(fault)) => {
                fault.react(|| self.challenge(&self.resource, MISSING))
            }
            Some(VaultMode::ChallengesFor(resource)) => self.challenge(&resource, MISSING).into(),
            _ if request.method == "GET" => self.challenge(&self.resource, MISSING).into(),
            _ => refuse(
                405,
                "MethodNotAllowed",
                "This fake reads secrets only.",
                None,
            )
            .into(),
        }
    }

    fn challenge(&self, resource: &str, message: &str) -> Answer {
        let challenge = format!(
            r#"Bearer authorization="https://login.windows.net/{TENANT}", resource="{resource}""#
        );
        refuse(401, "Unauthorized", message, None).header("www-authenticate", challenge)
    }

    fn proper(&self, request: &SeenRequest, token: &str) -> Answer {
        if let Err(message) = self.check(token) {
            return self.challenge(&self.resource, message);
        }
        // `host:port` names the same vault.
        let host = request
            .header("host")
            .unwrap_or_default()
            .split(':')
            .next()
            .unwrap_or_default();
        if !host.eq_ignore_ascii_case(&self.host_name) {
            return refuse(
                404,
                "VaultNotFound",
                "The request names another vault.",
                None,
            );
        }
        let query = pairs(&request.query);
        if !value(&query, "api-version").is_some_and(is_version) {
            return refuse(
                400,
                "BadParameter",
                "The api-version is missing or not supported.",
                None,
            );
        }
        let mut parts = request.path.trim_matches('/').split('/');
        let (collection, name, version) = (parts.next(), parts.next(), parts.next());
        match (request.method.as_str(), collection, name, parts.next()) {
            ("GET", Some("secrets"), Some(name), None) => self.give(name, version, &request.path),
            _ => refuse(404, "NotFound", "This fake has secrets only.", None),
        }
    }

    fn check(&self, token: &str) -> Result<(), &'static str> {
        let jwt = Jwt::decode(token).ok_or("AKV10021: Invalid token.")?;
        let audience = jwt.claim("aud").unwrap_or_default().trim_end_matches('/');
        let seconds = |name: &str| jwt.claims.get(name).and_then(Value::as_u64);
        let now_unix = now_unix();
        if audience != self.resource {
            return Err("AKV10022: Invalid audience. Expected the vault's own.");
        }
        match (seconds("nbf"), seconds("exp")) {
            (Some(from), _) if now_unix < from => Err("AKV10023: The token is not valid yet."),
            (_, Some(until)) if now_unix < until => Ok(()),
            _ => Err("AKV10024: The token has expired."),
        }
    }

    fn give(&self, name: &str, version: Option<&str>, path: &str) -> Answer {
        let secrets = self.secrets();
        let all = secrets
            .get(&name.to_ascii_lowercase())
            .map_or(&[][..], Vec::as_slice);
        let found = match version {
            Some(id) => all.iter().find(|each| each.id == id),
            None => all.last(),
        };
        match found {
            None => not_found(path),
            Some(version) if !version.enabled => disabled(),
            Some(version) => Answer::json(200, &self.describe(name, version)),
        }
    }

    fn describe(&self, name: &str, version: &Version) -> Value {
        let mut body = json!({
            "value": version.value,
            "id": format!("https://{}/secrets/{name}/{}", self.host_name, version.id),
            "attributes": {
                "enabled": version.enabled,
                "created": version.created_unix,
                "updated": version.created_unix,
                "recoveryLevel": "Recoverable+Purgeable",
                "recoverableDays": 90,
            },
            "tags": {},
        });
        if let Some(at) = version.expires_unix {
            body["attributes"]["exp"] = at.into();
        }
        body
    }

    fn forbid(&self, code: &str, template: &str, token: &str) -> Reaction {
        let jwt = Jwt::decode(token);
        let claim = |name: &str| {
            jwt.as_ref()
                .and_then(|jwt| jwt.claim(name))
                .unwrap_or("(none)")
                .to_owned()
        };
        let caller = format!(
            "appid={};oid={};iss={}",
            claim("appid"),
            claim("oid"),
            claim("iss")
        );
        let vault = self.host_name.split('.').next().unwrap_or_default();
        let message = template
            .replace("{caller}", &caller)
            .replace("{vault}", vault);
        refuse(403, "Forbidden", &message, Some(code)).into()
    }

    fn secrets(&self) -> MutexGuard<'_, BTreeMap<String, Vec<Version>>> {
        self.secrets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn disabled() -> Answer {
    refuse(
        403,
        "Forbidden",
        "Operation get is not allowed on a disabled secret.",
        Some("SecretDisabled"),
    )
}

fn not_found(path: &str) -> Answer {
    let name = path.trim_start_matches("/secrets/");
    let message = format!(
        "A secret with (name/id) {name} was not found in this key vault. If you recently deleted this secret you may \
         be able to recover it using the correct recovery command. For help resolving this issue, please see \
         https://go.microsoft.com/fwlink/?linkid=2125182"
    );
    refuse(404, "SecretNotFound", &message, None)
}

fn refuse(status: u16, code: &str, message: &str, inner: Option<&str>) -> Answer {
    let mut body = json!({"error": {"code": code, "message": message}});
    if let Some(inner) = inner {
        body["error"]["innererror"] = json!({"code": inner});
    }
    Answer::json(status, &body)
}

/// `7.0` to `7.6`, previews of them, or a version by date.
fn is_version(text: &str) -> bool {
    let number = text.split('-').next().unwrap_or_default();
    let by_number = number
        .strip_prefix("7.")
        .is_some_and(|minor| minor.parse::<u8>().is_ok());
    by_number || text.starts_with("2025-") || text.starts_with("2026-")
}
