//! Users who signed in with an identity provider (OpenID Connect, Microsoft Entra ID): JWTs that are
//! verified against the provider's published keys.
//!
//! The keys are fetched by somebody else, who finds them through [`OidcIssuer::keys_at`].

mod keys;
mod unique;

use std::{
    fmt,
    str::FromStr,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::Validation;
use serde_json::{Map, Value};

pub use keys::{KeySet, KeySetError};

use crate::{Client, ClientIdentity, Means, Secret};

/// Longest user token. Entra's stay below 5 KB unless they list groups, which they do not beyond 200
/// (<https://learn.microsoft.com/entra/identity-platform/access-token-claims-reference>).
pub const USER_TOKEN_BYTES_MAX: usize = 8 * 1024;

/// Longest user name; longer ones are refused rather than cut, so that no two are taken for one.
const USER_BYTES_MAX: usize = 128;

/// How much the issuer's clock may differ from the relay's.
const CLOCK_SKEW: Duration = Duration::from_secs(60);

/// The algorithms that user tokens may be signed with. All have a public key: with a shared secret,
/// whoever can verify could also sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UserAlgorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256; what Entra and most others use.
    Rs256,
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    Rs384,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    Rs512,
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// RSASSA-PSS with SHA-384.
    Ps384,
    /// RSASSA-PSS with SHA-512.
    Ps512,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// ECDSA on P-384 with SHA-384.
    Es384,
    /// Ed25519.
    EdDsa,
}

impl UserAlgorithm {
    /// Every one, by its name in a JWT's header (RFC 7518 section 3.1, RFC 8037).
    pub const ALL: [(&str, Self); 9] = [
        ("RS256", Self::Rs256),
        ("RS384", Self::Rs384),
        ("RS512", Self::Rs512),
        ("PS256", Self::Ps256),
        ("PS384", Self::Ps384),
        ("PS512", Self::Ps512),
        ("ES256", Self::Es256),
        ("ES384", Self::Es384),
        ("EdDSA", Self::EdDsa),
    ];

    fn as_library(self) -> jsonwebtoken::Algorithm {
        use jsonwebtoken::Algorithm;

        match self {
            Self::Rs256 => Algorithm::RS256,
            Self::Rs384 => Algorithm::RS384,
            Self::Rs512 => Algorithm::RS512,
            Self::Ps256 => Algorithm::PS256,
            Self::Ps384 => Algorithm::PS384,
            Self::Ps512 => Algorithm::PS512,
            Self::Es256 => Algorithm::ES256,
            Self::Es384 => Algorithm::ES384,
            Self::EdDsa => Algorithm::EdDSA,
        }
    }
}

/// A text names no algorithm with a public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an algorithm with a public key, such as RS256")]
pub struct UserAlgorithmError;

impl FromStr for UserAlgorithm {
    type Err = UserAlgorithmError;

    fn from_str(text: &str) -> Result<Self, UserAlgorithmError> {
        Self::ALL
            .iter()
            .find(|(name, _)| *name == text)
            .map(|(_, algorithm)| *algorithm)
            .ok_or(UserAlgorithmError)
    }
}

/// Where an issuer's keys are found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeysAt {
    /// At this URL.
    Uri(String),
    /// At the `jwks_uri` of the document at this URL, which also names the issuer (OpenID Connect
    /// Discovery 1.0 section 4).
    Discovery(String),
}

/// An issuer of user tokens, and which of them are accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OidcIssuer {
    /// What its users' tokens and limits are called by, and what they may do: each user is an
    /// identity like this one, named `<name>:<user>`.
    pub identity: ClientIdentity,
    /// The exact `iss`.
    pub issuer: String,
    /// Of these one must be in `aud`.
    pub audiences: Vec<String>,
    /// Of these one must be `alg`.
    pub algorithms: Vec<UserAlgorithm>,
    /// URL of the keys; `None` finds it by discovery.
    pub jwks_uri: Option<String>,
    /// The claim that names the user.
    pub name_claim: String,
    /// All of these must be in `scp` (Entra) or `scope` (RFC 9068).
    pub required_scopes: Vec<String>,
    /// All of these must be in `roles`.
    pub required_roles: Vec<String>,
}

impl OidcIssuer {
    /// The name in the configuration.
    pub fn name(&self) -> &str {
        &self.identity.name
    }

    /// Where the keys are found.
    pub fn keys_at(&self) -> KeysAt {
        match &self.jwks_uri {
            Some(uri) => KeysAt::Uri(uri.clone()),
            None => KeysAt::Discovery(format!(
                "{}/.well-known/openid-configuration",
                self.issuer.trim_end_matches('/')
            )),
        }
    }

    /// The identity of one of its users.
    ///
    /// # Errors
    ///
    /// [`UserRefusal::Name`].
    pub(crate) fn identity_of(&self, user: &str) -> Result<ClientIdentity, UserRefusal> {
        let sound = (1..=USER_BYTES_MAX).contains(&user.len())
            && !user.chars().any(|c| c.is_control() || c.is_whitespace());
        if !sound {
            return Err(UserRefusal::Name);
        }
        Ok(ClientIdentity {
            name: format!("{}:{user}", self.identity.name),
            ..self.identity.clone()
        })
    }
}

/// A token that says it comes from one of the issuers. Nothing of it has been verified.
#[derive(Clone)]
pub struct UserCheck {
    token: Secret,
    issuer: Arc<OidcIssuer>,
    key_id: Option<String>,
    algorithm: UserAlgorithm,
}

impl UserCheck {
    /// The issuer that a key claims to come from, when it is a JWT that claims to come from one.
    pub(crate) fn find(key: &Secret, issuers: &[Arc<OidcIssuer>]) -> Option<Self> {
        if issuers.is_empty() || !key.expose().starts_with("ey") {
            return None;
        }
        let (header, payload) = parts(key.expose())?;
        let header = unique::object(&header).ok()?;
        let claims = unique::object(&payload).ok()?;
        // Extensions that must be understood are not (RFC 7515 section 4.1.11).
        if header.contains_key("crit") {
            return None;
        }
        let algorithm = header.get("alg")?.as_str()?.parse().ok()?;
        let key_id = match header.get("kid") {
            None => None,
            Some(id) => Some(id.as_str()?.to_owned()),
        };
        let from = claims.get("iss")?.as_str()?;
        // One issuer may stand there several times, for several audiences.
        let matching = || issuers.iter().filter(|issuer| issuer.issuer == from);
        let issuer = matching()
            .find(|issuer| has_audience(&claims, &issuer.audiences))
            .or_else(|| matching().next())?;
        Some(Self {
            token: key.clone(),
            issuer: Arc::clone(issuer),
            key_id,
            algorithm,
        })
    }

    /// Whose keys are needed.
    pub fn issuer(&self) -> &Arc<OidcIssuer> {
        &self.issuer
    }

    /// Verifies the token.
    ///
    /// # Errors
    ///
    /// [`UserRefusal`]. After [`UserRefusal::UnknownKey`] it is worth a try with fresh keys.
    pub fn verify(&self, keys: &KeySet, now: SystemTime) -> Result<Client, UserRefusal> {
        if !self.issuer.algorithms.contains(&self.algorithm) {
            return Err(UserRefusal::Algorithm);
        }
        let candidates = keys.find(self.key_id.as_deref(), self.algorithm);
        if candidates.is_empty() {
            return Err(UserRefusal::UnknownKey);
        }
        let validation = signature_only(self.algorithm.as_library());
        let signed = candidates.iter().any(|key| {
            jsonwebtoken::decode::<Map<String, Value>>(self.token.expose(), key, &validation)
                .is_ok()
        });
        if !signed {
            return Err(UserRefusal::Signature);
        }
        let (_, payload) = parts(self.token.expose()).ok_or(UserRefusal::Malformed)?;
        let claims = unique::object(&payload).map_err(|_| UserRefusal::Malformed)?;
        self.judge(&claims, now)
    }

    fn judge(&self, claims: &Map<String, Value>, now: SystemTime) -> Result<Client, UserRefusal> {
        let issuer = &self.issuer;
        if claims.get("iss").and_then(Value::as_str) != Some(&issuer.issuer)
            || !has_audience(claims, &issuer.audiences)
        {
            return Err(UserRefusal::Audience);
        }
        check_time(claims, now)?;
        let scopes = words(claims, "scp").chain(words(claims, "scope"));
        let scopes: Vec<&str> = scopes.collect();
        let roles: Vec<&str> = words(claims, "roles").collect();
        let has = |all: &[&str], needed: &[String]| {
            needed.iter().all(|needed| all.contains(&needed.as_str()))
        };
        if !has(&scopes, &issuer.required_scopes) || !has(&roles, &issuer.required_roles) {
            return Err(UserRefusal::Permission);
        }
        let user = claims.get(&issuer.name_claim).and_then(Value::as_str);
        let identity = issuer.identity_of(user.ok_or(UserRefusal::Name)?)?;
        Ok(Client::new(Arc::new(identity), Means::User))
    }
}

impl fmt::Debug for UserCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UserCheck({})", self.issuer.name())
    }
}

/// Why a user's token is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UserRefusal {
    /// It is no JWT that can be read.
    #[error("the user token is malformed")]
    Malformed,
    /// It is signed by an algorithm that is not allowed.
    #[error("the user token is signed by an algorithm that is not allowed here")]
    Algorithm,
    /// None of the issuer's keys is the one that it is signed with.
    #[error("the user token is signed with a key that its issuer does not publish")]
    UnknownKey,
    /// The signature does not fit.
    #[error("the signature of the user token is wrong")]
    Signature,
    /// It is meant for somebody else, or not from the issuer.
    #[error("the user token is not meant for this relay")]
    Audience,
    /// It has no expiry, or is expired.
    #[error("the user token has expired; sign in again")]
    Expired,
    /// Its time has not come.
    #[error("the user token is not valid yet")]
    NotYetValid,
    /// A scope or role is missing.
    #[error("the user lacks a scope or role that this relay requires")]
    Permission,
    /// The claim that names the user is missing, too long, or holds spaces or control characters.
    #[error("the user token does not name its user in the expected claim")]
    Name,
}

impl UserRefusal {
    /// HTTP status of the refusal.
    pub fn status(self) -> u16 {
        match self {
            Self::Permission => 403,
            _ => 401,
        }
    }

    /// Stable code of the refusal.
    pub fn code(self) -> &'static str {
        match self {
            Self::Malformed => "user_token_malformed",
            Self::Algorithm => "user_token_algorithm",
            Self::UnknownKey => "user_token_key_unknown",
            Self::Signature => "user_token_signature",
            Self::Audience => "user_token_audience",
            Self::Expired => "user_token_expired",
            Self::NotYetValid => "user_token_not_yet_valid",
            Self::Permission => "user_not_permitted",
            Self::Name => "user_token_name",
        }
    }
}

/// The decoded header and payload of a compact JWS (RFC 7515 section 7.1).
fn parts(token: &str) -> Option<(Vec<u8>, Vec<u8>)> {
    if token.len() > USER_TOKEN_BYTES_MAX {
        return None;
    }
    let mut parts = token.split('.');
    let (header, payload, _, None) = (parts.next()?, parts.next()?, parts.next()?, parts.next())
    else {
        return None;
    };
    Some((
        URL_SAFE_NO_PAD.decode(header).ok()?,
        URL_SAFE_NO_PAD.decode(payload).ok()?,
    ))
}

/// Claims are judged here, because the library would ask the system's clock for the time.
fn signature_only(algorithm: jsonwebtoken::Algorithm) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    validation
}

fn has_audience(claims: &Map<String, Value>, audiences: &[String]) -> bool {
    let ours = |value: &Value| {
        value
            .as_str()
            .is_some_and(|value| audiences.iter().any(|own| own == value))
    };
    match claims.get("aud") {
        Some(Value::Array(values)) => values.iter().any(ours),
        Some(value) => ours(value),
        None => false,
    }
}

fn check_time(claims: &Map<String, Value>, now: SystemTime) -> Result<(), UserRefusal> {
    let now = now
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs_f64();
    let skew = CLOCK_SKEW.as_secs_f64();
    let expires = claims.get("exp").and_then(Value::as_f64);
    if expires.ok_or(UserRefusal::Malformed)? + skew <= now {
        return Err(UserRefusal::Expired);
    }
    match claims.get("nbf").map(Value::as_f64) {
        Some(None) => Err(UserRefusal::Malformed),
        Some(Some(from)) if from > now + skew => Err(UserRefusal::NotYetValid),
        _ => Ok(()),
    }
}

/// The words of a claim: a text with spaces between them (RFC 8693 section 4.2), or a list.
fn words<'a>(claims: &'a Map<String, Value>, name: &str) -> Box<dyn Iterator<Item = &'a str> + 'a> {
    match claims.get(name) {
        Some(Value::String(text)) => Box::new(text.split(' ').filter(|word| !word.is_empty())),
        Some(Value::Array(values)) => Box::new(values.iter().filter_map(Value::as_str)),
        _ => Box::new(std::iter::empty()),
    }
}

#[cfg(test)]
mod tests;
