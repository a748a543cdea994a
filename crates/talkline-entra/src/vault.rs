//! Secrets in Azure Key Vault.

mod diagnosis;
mod reference;

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use http::{HeaderValue, header};
use http_body_util::Full;
use serde_json::{Map, Value};
use talkline_auth::{Secret, TokenError, TokenSource};
use tracing::debug;

pub use reference::VaultReference;

use crate::{
    Network,
    redact::Redactor,
    transport::{Destination, Failure, Reach, send},
};

/// The version with the widest support in all clouds.
const API_VERSION: &str = "7.4";

/// One secret of one vault
/// (<https://learn.microsoft.com/rest/api/keyvault/secrets/get-secret/get-secret>).
///
/// The token goes with the first request. Key Vault's challenge, which tells other clients whom to
/// ask for a token and for what, decides nothing here: the reference names the domain, the domain
/// the audience, and a challenge for anything else is an error.
#[derive(Debug)]
pub struct KeyVault {
    reference: VaultReference,
    identity: Arc<dyn TokenSource>,
    network: Network,
    destination: Destination,
}

impl KeyVault {
    /// Reads `reference` with tokens of `identity`, which must be for
    /// [`VaultReference::scope`]; sends nothing.
    pub fn new(
        reference: VaultReference,
        identity: Arc<dyn TokenSource>,
        network: Network,
    ) -> Self {
        let destination = Destination {
            host: reference.host(),
            port: 443,
            tls: true,
            reach: Reach::Anywhere,
            takes_identity_header: false,
        };
        Self {
            reference,
            identity,
            network,
            destination,
        }
    }

    /// Which secret is read.
    pub fn reference(&self) -> &VaultReference {
        &self.reference
    }

    /// Fetches a token and reads the secret: two requests, nothing is kept.
    ///
    /// A reference without version is to be read about every 10 minutes, which leaves the limits
    /// of the vault and of the identity service far away; one with a version, once.
    ///
    /// # Errors
    ///
    /// [`VaultError`]; its codes begin with `vault_`, or are those of the [`TokenError`] when there
    /// was no token.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future abandons the request; the next call starts afresh.
    pub async fn read(&self) -> Result<VaultSecret, VaultError> {
        let token = self.identity.fetch().await?.secret;
        let redactor = Redactor::new([token.clone()]);
        let result = match self.request(&token).await {
            Ok(secret) => Ok(secret),
            Err(failure) => Err(diagnosis::explain(&self.reference, &failure, &redactor)),
        };
        match &result {
            Ok(secret) => debug!(
                reference = %self.reference,
                fingerprint = secret.value.fingerprint(),
                "secret read"
            ),
            Err(error) => debug!(
                reference = %self.reference,
                code = error.code,
                "secret not read"
            ),
        }
        result
    }

    async fn request(&self, token: &Secret) -> Result<VaultSecret, Failure> {
        let unfit = |_| Failure::Http("the token is not a header value".into());
        let mut bearer =
            HeaderValue::from_str(&format!("Bearer {}", token.expose())).map_err(unfit)?;
        bearer.set_sensitive(true);
        let request = http::Request::get(format!(
            "{}?api-version={API_VERSION}",
            self.reference.path()
        ))
        .header(header::HOST, self.destination.authority())
        .header(header::CONNECTION, "close")
        .header(header::ACCEPT, "application/json")
        .header(header::AUTHORIZATION, bearer)
        .body(Full::new(Bytes::new()))
        .map_err(|error| Failure::Http(error.to_string()))?;
        let answer = send(&self.network, &self.destination, request).await?;
        if !answer.status.is_success() {
            return Err(Failure::Status(Box::new(answer)));
        }
        if answer.truncated {
            return Err(Failure::TooLarge(self.network.limits.body_bytes_max));
        }
        let refused = |json, why| Failure::NotAToken {
            content_type: answer.content_type.clone(),
            length: answer.body.len(),
            json,
            why,
        };
        let Ok(Value::Object(bundle)) = serde_json::from_slice(&answer.body) else {
            return Err(refused(false, crate::answer::NOT_JSON));
        };
        VaultSecret::read(&bundle).ok_or_else(|| refused(true, "it has no value"))
    }
}

/// A secret as the vault holds it.
#[derive(Clone, Debug)]
pub struct VaultSecret {
    /// The value, as it was put in: white space at its ends included.
    pub value: Secret,
    /// Its version; tells when a reference without one has moved on.
    pub version: Option<String>,
    /// When it is marked to expire. Key Vault hands it out all the same.
    pub expires: Option<SystemTime>,
    /// Whether it may be used. A vault refuses to hand out one that may not, as
    /// `vault_secret_disabled`; this is for those that do not.
    pub enabled: bool,
}

impl VaultSecret {
    fn read(bundle: &Map<String, Value>) -> Option<Self> {
        let value = bundle.get("value")?.as_str()?;
        let attributes = bundle.get("attributes");
        let attribute = |name| attributes.and_then(|attributes| attributes.get(name));
        let version = || {
            let id = bundle.get("id")?.as_str()?;
            let version = id.rsplit_once('/')?.1;
            let good = version.len() == 32 && version.bytes().all(|b| b.is_ascii_hexdigit());
            good.then(|| version.to_owned())
        };
        let expires = || {
            let seconds = attribute("exp")?.as_u64()?;
            UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
        };
        Some(Self {
            value: Secret::new(value),
            version: version(),
            expires: expires(),
            enabled: attribute("enabled").and_then(Value::as_bool) != Some(false),
        })
    }
}

/// Why a secret was not read. Cheap to clone.
///
/// `Display` says what happened; the next step, [`hint`](Self::hint), is printed apart from it.
#[derive(Clone, Debug, thiserror::Error)]
pub struct VaultError {
    /// What kind of failure it is, in a word that stays the same: `vault_forbidden_rbac`,
    /// `vault_forbidden_network`, `vault_secret_disabled`, …
    pub code: &'static str,
    /// What the vault, the identity service or the transport said, without any secret.
    pub detail: Arc<str>,
    /// What an operator can do about it.
    pub hint: Option<Arc<str>>,
    /// The status that the vault or the identity service answered with.
    pub http_status: Option<u16>,
    /// How long the service asks to be left alone, as it said it: without a limit.
    pub retry_after: Option<Duration>,
    /// Whether asking again is useless until somebody changes something.
    pub permanent: bool,
}

impl fmt::Display for VaultError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl From<TokenError> for VaultError {
    /// Without a token the vault was not asked.
    fn from(error: TokenError) -> Self {
        Self {
            detail: Arc::from(format!("no token for the vault: {error}")),
            code: error.code,
            hint: error.hint,
            http_status: error.http_status,
            retry_after: error.retry_after,
            permanent: error.permanent,
        }
    }
}
