//! What a vault knows, and how it answers.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};

use crate::clock::now_unix;
use crate::record::SeenRequest;

use super::super::answer::{Answer, Reaction};
use super::super::fault::{Fault, Modes};
use super::super::form::{pairs, value};
use super::super::host::Service;
use super::super::token::{Jwt, TENANT};
use super::VaultMode;

#[derive(Debug, Clone)]
pub(super) struct Version {
    pub(super) id: String,
    pub(super) value: String,
    pub(super) enabled: bool,
    pub(super) created_unix: u64,
    pub(super) expires_unix: Option<u64>,
}

#[derive(Debug)]
pub(super) struct Rules {
    pub(super) modes: Modes<VaultMode>,
    pub(super) host_name: String,
    /// The audience of tokens, without a trailing slash.
    pub(super) resource: String,
    /// By name in lower case; versions in the order added.
    pub(super) secrets: Mutex<BTreeMap<String, Vec<Version>>>,
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

    pub(super) fn secrets(&self) -> MutexGuard<'_, BTreeMap<String, Vec<Version>>> {
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
