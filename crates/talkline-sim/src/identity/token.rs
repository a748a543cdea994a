//! Access tokens as the fakes issue them.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};

use crate::ids;

/// The tenant of all fakes, unless another is set.
pub const TENANT: &str = "5d0c6f0e-3b7e-4c8a-9d61-1f2a7c3b4e5d";

/// Entra dates its tokens back by this much, so that a slow clock takes them.
const BACKDATED_SECS: u64 = 300;

/// What the tokens of a fake say.
///
/// A token has the structure of a JWT (RFC 7519) and the claims of an Entra v1 access token. **Its signature is
/// not one and verifies against nothing**; [`crate::BearerRule`], which looks at claims only, takes it. Every
/// token is different, even in the same second.
///
/// ```
/// use std::time::Duration;
/// use talkline_sim::identity::TokenSpec;
///
/// let short = TokenSpec::new().object_id("1b7a0c52-0000-4000-8000-000000000007").ttl(Duration::from_secs(90));
/// # drop(short);
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct TokenSpec {
    tenant: String,
    issuer: Option<String>,
    audience: Option<String>,
    object_id: Option<String>,
    app_id: Option<String>,
    ttl_secs: i64,
    refresh_in: Option<Duration>,
    expiry: Expiry,
    extra: Map<String, Value>,
    signature: Option<String>,
}

/// How a managed identity endpoint writes `expires_on`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Expiry {
    /// Seconds since 1970 in a string, as documented.
    #[default]
    EpochString,
    /// Seconds since 1970 as a number.
    EpochNumber,
    /// Milliseconds since 1970 in a string.
    EpochMillis,
    /// A date in words, as an early version of the App Service endpoint wrote it.
    DateString,
    /// Neither `expires_on` nor `expires_in`.
    Missing,
}

/// A token that was issued.
#[derive(Debug, Clone)]
pub(super) struct Issued {
    pub(super) token: String,
    /// Seconds it has yet to live; negative if it was issued dead.
    pub(super) ttl_secs: i64,
    pub(super) expires_unix: i64,
    pub(super) not_before_unix: u64,
    pub(super) refresh_in_secs: Option<u64>,
    pub(super) expiry: Expiry,
}

impl Default for TokenSpec {
    fn default() -> Self {
        Self::new()
    }
}

impl TokenSpec {
    /// Tokens of [`TENANT`] that live one hour and name no time to refresh.
    pub fn new() -> Self {
        Self {
            tenant: TENANT.to_owned(),
            issuer: None,
            audience: None,
            object_id: None,
            app_id: None,
            ttl_secs: 3600,
            refresh_in: None,
            expiry: Expiry::default(),
            extra: Map::new(),
            signature: None,
        }
    }

    /// The claim `tid`, and the tenant in `iss`. Defaults to [`TENANT`]. The tenant of a request to
    /// [`super::EntraAuthority`] goes before it.
    pub fn tenant(mut self, id: impl Into<String>) -> Self {
        self.tenant = id.into();
        self
    }

    /// The claim `iss`. Defaults to the v1 issuer of the tenant, `https://sts.windows.net/<tenant>/`.
    pub fn issuer(mut self, issuer: impl Into<String>) -> Self {
        self.issuer = Some(issuer.into());
        self
    }

    /// The claim `aud`, whatever was asked for. Defaults to what the request named.
    pub fn audience(mut self, audience: impl Into<String>) -> Self {
        self.audience = Some(audience.into());
        self
    }

    /// The claims `oid` and `sub`. Defaults to the identity that was asked for.
    pub fn object_id(mut self, id: impl Into<String>) -> Self {
        self.object_id = Some(id.into());
        self
    }

    /// The claim `appid`. Defaults to the client that asked.
    pub fn app_id(mut self, id: impl Into<String>) -> Self {
        self.app_id = Some(id.into());
        self
    }

    /// How long a token lives, counted from its answer; zero is dead on arrival. Defaults to one hour.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl_secs = i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX);
        self
    }

    /// Issues tokens that had expired this long ago.
    pub fn expired(mut self, ago: Duration) -> Self {
        self.ttl_secs = i64::try_from(ago.as_secs()).map_or(i64::MIN, |secs| -secs);
        self
    }

    /// When the holder is to ask again, as `refresh_in`. Defaults to not saying.
    pub fn refresh_in(mut self, after: Duration) -> Self {
        self.refresh_in = Some(after);
        self
    }

    /// How a managed identity endpoint writes the expiry. Defaults to [`Expiry::EpochString`].
    pub fn expiry(mut self, expiry: Expiry) -> Self {
        self.expiry = expiry;
        self
    }

    /// Adds a claim or replaces one.
    pub fn claim(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.extra.insert(name.into(), value.into());
        self
    }

    /// The third part of every token, verbatim: something to search logs for. It must be base64url without
    /// padding, or the token is no JWT. Defaults to random bytes.
    pub fn signature(mut self, part: impl Into<String>) -> Self {
        self.signature = Some(part.into());
        self
    }

    /// One token for that audience, unless the spec has its own, at that time: for a test that gives tokens out
    /// itself, at [`super::now_unix`] mostly.
    #[must_use]
    pub fn mint(&self, audience: &str, now_unix: u64) -> String {
        self.issue(
            &Asked {
                audience,
                object_id: None,
                app_id: None,
                tenant: None,
            },
            now_unix,
        )
        .token
    }

    pub(super) fn issue(&self, asked: &Asked<'_>, now_unix: u64) -> Issued {
        let pick = |own: &Option<String>, asked: Option<&str>, default: &str| {
            own.as_deref().or(asked).unwrap_or(default).to_owned()
        };
        let object_id = pick(
            &self.object_id,
            asked.object_id,
            "7f4f0a6e-9c1d-4f5b-8a57-2d7c9b1e0f33",
        );
        let app_id = pick(
            &self.app_id,
            asked.app_id,
            "c2a1d7be-58f4-4b1e-9f0a-6e3d5c4b7a21",
        );
        let tenant = asked.tenant.unwrap_or(&self.tenant);
        let issuer = format!("https://sts.windows.net/{tenant}/");
        let now = i64::try_from(now_unix).unwrap_or(i64::MAX);
        let expires_unix = now.saturating_add(self.ttl_secs);
        let not_before_unix = now_unix.saturating_sub(BACKDATED_SECS);
        let mut claims = json!({
            "aud": self.audience.as_deref().unwrap_or(asked.audience),
            "iss": self.issuer.as_deref().unwrap_or(&issuer),
            "iat": not_before_unix,
            "nbf": not_before_unix,
            "exp": expires_unix.max(0),
            "appid": app_id,
            "appidacr": "2",
            "idtyp": "app",
            "oid": object_id,
            "sub": object_id,
            "tid": tenant,
            "uti": ids::id("uti"),
            "ver": "1.0",
        });
        if let Some(claims) = claims.as_object_mut() {
            claims.extend(self.extra.clone());
        }
        Issued {
            token: self.sign(&claims),
            ttl_secs: self.ttl_secs,
            expires_unix,
            not_before_unix,
            refresh_in_secs: self.refresh_in.map(|after| after.as_secs()),
            expiry: self.expiry,
        }
    }

    /// Writes the claims as a JWT; what stands for the signature is not one.
    fn sign(&self, claims: &Value) -> String {
        let header = URL_SAFE_NO_PAD.encode(r#"{"typ":"JWT","alg":"RS256","kid":"simulated"}"#);
        let claims = URL_SAFE_NO_PAD.encode(claims.to_string());
        let random = || URL_SAFE_NO_PAD.encode(ids::random::<32>());
        let signature = self.signature.clone().unwrap_or_else(random);
        format!("{header}.{claims}.{signature}")
    }
}

/// What a request says about the token that it wants.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) audience: &'a str,
    pub(super) object_id: Option<&'a str>,
    pub(super) app_id: Option<&'a str>,
    pub(super) tenant: Option<&'a str>,
}

/// The parts of a JWT, decoded, its signature unverified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Jwt {
    /// The header.
    pub header: Value,
    /// The claims.
    pub claims: Value,
    /// The signature's bytes.
    pub signature: Vec<u8>,
}

impl Jwt {
    /// Takes a JWT apart; `None` if it is none. Verifies nothing.
    #[must_use]
    pub fn decode(token: &str) -> Option<Self> {
        let mut parts = token.split('.');
        let mut next = || URL_SAFE_NO_PAD.decode(parts.next()?).ok();
        let (header, claims, signature) = (next()?, next()?, next()?);
        if parts.next().is_some() {
            return None;
        }
        Some(Self {
            header: serde_json::from_slice(&header).ok()?,
            claims: serde_json::from_slice(&claims).ok()?,
            signature,
        })
    }

    /// A claim that is a string.
    #[must_use]
    pub fn claim(&self, name: &str) -> Option<&str> {
        self.claims.get(name)?.as_str()
    }
}
