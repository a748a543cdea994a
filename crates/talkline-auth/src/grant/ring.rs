//! The keys that sign tokens.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    hkdf,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Validation};

use super::{
    CLOCK_SKEW, Grant, GrantLimits, LIFETIME_MAX, MintError, Minted, NAME_BYTES_MAX, SESSION_MAX,
    SETTINGS_BYTES_MAX, TOKEN_BYTES_MAX, TOKEN_PREFIX, TokenId, TokenRefusal, Verified,
    claims::{Claims, Header},
};
use crate::Secret;

const ISSUER: &str = "talkline";
/// Longest header of a token, in base64url.
const HEADER_BYTES_MAX: usize = 256;
/// A key of fewer bytes could be guessed from a token, which holds a signature to compare with.
const KEY_BYTES_MIN: usize = 32;
const ID_BYTES_MAX: usize = 64;

/// One key of a ring: an id that stands in each token, and a secret.
#[derive(Clone)]
pub struct RingKey {
    id: String,
    sign: EncodingKey,
    verify: DecodingKey,
    /// What the keys that seal settings are derived from.
    seal: hkdf::Prk,
}

/// Why a key cannot be on a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RingKeyError {
    /// The id is not 1 to 64 letters, digits, `-`, `_` and `.`.
    #[error("an id has 1 to 64 letters, digits, `-`, `_` and `.`")]
    Id,
    /// The secret is shorter than 32 bytes.
    #[error("the key is shorter than 32 bytes")]
    Short,
}

impl RingKey {
    /// A key that the configuration gives.
    ///
    /// # Errors
    ///
    /// [`RingKeyError`].
    pub fn new(id: impl Into<String>, secret: &Secret) -> Result<Self, RingKeyError> {
        if secret.expose().len() < KEY_BYTES_MIN {
            return Err(RingKeyError::Short);
        }
        Self::of_bytes(id.into(), secret.expose().as_bytes())
    }

    /// A key of this process alone, made from 32 random bytes.
    pub fn ephemeral(random: &[u8; 32]) -> Self {
        Self::of_bytes("ephemeral".to_owned(), random).expect("the id is a legal one")
    }

    fn of_bytes(id: String, secret: &[u8]) -> Result<Self, RingKeyError> {
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if !(1..=ID_BYTES_MAX).contains(&id.len()) || !id.bytes().all(legal) {
            return Err(RingKeyError::Id);
        }
        // One secret, two uses, two keys (RFC 5869).
        let root = hkdf::Salt::new(hkdf::HKDF_SHA256, b"talkline ek_ v1").extract(secret);
        let mut sign = [0; 32];
        expand(&root, b"sign", &mut sign);
        let mut seal = [0; 32];
        expand(&root, b"seal", &mut seal);
        Ok(Self {
            id,
            sign: EncodingKey::from_secret(&sign),
            verify: DecodingKey::from_secret(&sign),
            seal: hkdf::Prk::new_less_safe(hkdf::HKDF_SHA256, &seal),
        })
    }

    /// The id that stands in tokens.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The key that seals the settings of one token, and of no other: its id is in it. So the nonce
    /// can be the same for all.
    fn sealing_key(&self, token: &TokenId) -> Option<LessSafeKey> {
        let mut key = [0; 32];
        expand(&self.seal, token.as_str().as_bytes(), &mut key);
        UnboundKey::new(&AES_256_GCM, &key)
            .ok()
            .map(LessSafeKey::new)
    }

    fn seal(&self, token: &TokenId, settings: &str) -> Option<String> {
        let mut bytes = settings.as_bytes().to_vec();
        self.sealing_key(token)?
            .seal_in_place_append_tag(nonce(), Aad::from(self.id.as_bytes()), &mut bytes)
            .ok()?;
        Some(URL_SAFE_NO_PAD.encode(bytes))
    }

    fn open(&self, token: &TokenId, sealed: &str) -> Option<String> {
        let mut bytes = URL_SAFE_NO_PAD.decode(sealed).ok()?;
        let opened = self
            .sealing_key(token)?
            .open_in_place(nonce(), Aad::from(self.id.as_bytes()), &mut bytes)
            .ok()?;
        String::from_utf8(opened.to_vec()).ok()
    }
}

fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}

fn expand(root: &hkdf::Prk, purpose: &[u8], key: &mut [u8; 32]) {
    root.expand(&[purpose], hkdf::HKDF_SHA256)
        .and_then(|bytes| bytes.fill(key))
        .expect("32 bytes are one block of SHA-256");
}

impl fmt::Debug for RingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RingKey({})", self.id)
    }
}

/// The keys of a relay and its replicas: the first signs, each verifies.
///
/// A key is replaced in two steps. First the new one is put behind the old one on every replica,
/// then in front of it; when the last token of the old key has expired, that one can go.
#[derive(Clone, Debug)]
pub struct KeyRing {
    /// Invariant: at least one.
    keys: Arc<[RingKey]>,
    audience: Arc<str>,
}

/// What stands in a token for everybody to read. Nothing of it has been verified.
#[derive(Clone, Debug)]
pub struct Shown {
    /// The id of the key that it says it is signed with.
    pub key: String,
    /// Which relays it is meant for.
    pub audience: String,
    /// What it allows; the settings are not in it.
    pub grant: Grant,
    /// The id.
    pub id: TokenId,
    /// Whether it carries sealed session settings.
    pub has_settings: bool,
    /// When it was made.
    pub issued_at: SystemTime,
    /// From when on it is valid.
    pub valid_from: SystemTime,
    /// From then on it opens no session.
    pub expires_at: SystemTime,
}

impl KeyRing {
    /// A ring, for relays that accept each other's tokens: those with the same keys and the same
    /// `audience`. `None` without a key.
    pub fn new(keys: Vec<RingKey>, audience: impl Into<Arc<str>>) -> Option<Self> {
        (!keys.is_empty()).then(|| Self {
            keys: keys.into(),
            audience: audience.into(),
        })
    }

    /// The id of the key that signs.
    pub fn signing_key(&self) -> &str {
        self.keys.first().map_or("", |key| &key.id)
    }

    /// Makes a token that is valid from `now` for `lifetime`. `random` is to be 128 fresh bits.
    ///
    /// # Errors
    ///
    /// [`MintError`]. What the client may have minted is for [`Grant::check_minter`] to say.
    pub fn mint(
        &self,
        grant: &Grant,
        lifetime: Duration,
        now: SystemTime,
        random: [u8; 16],
    ) -> Result<Minted, MintError> {
        check(grant)?;
        if lifetime < Duration::from_secs(1) || lifetime > LIFETIME_MAX {
            return Err(MintError::Lifetime);
        }
        let key = self.keys.first().ok_or(MintError::Signing)?;
        let id = TokenId::of_bits(random);
        let sealed = match &grant.session {
            Some(settings) => Some(key.seal(&id, settings).ok_or(MintError::Signing)?),
            None => None,
        };
        let issued = seconds(now);
        let expires = issued + lifetime.as_secs();
        let claims = Claims {
            iss: ISSUER.to_owned(),
            aud: self.audience.to_string(),
            sub: grant.client.clone(),
            jti: id.as_str().to_owned(),
            iat: issued,
            nbf: issued,
            exp: expires,
            model: grant.model.clone(),
            origin: grant.origin.clone(),
            policy: grant.policy.clone(),
            seconds: grant
                .limits
                .session_duration_max
                .map(|max| max.min(SESSION_MAX).as_secs().max(1)),
            responses: grant.limits.responses_max,
            tokens: grant.limits.tokens_max,
            sealed,
        };
        let mut header = jsonwebtoken::Header::new(Algorithm::HS256);
        header.kid = Some(key.id.clone());
        let jwt =
            jsonwebtoken::encode(&header, &claims, &key.sign).map_err(|_| MintError::Signing)?;
        Ok(Minted {
            secret: Secret::new(format!("{TOKEN_PREFIX}{jwt}")),
            id,
            expires_at: time(expires),
        })
    }

    /// Reads a token that one of the ring's keys has signed, opens its settings, and checks its
    /// audience and its time.
    ///
    /// # Errors
    ///
    /// [`TokenRefusal`].
    pub fn verify(&self, token: &str, now: SystemTime) -> Result<Verified, TokenRefusal> {
        let (header, jwt) = split(token)?;
        let key = self
            .keys
            .iter()
            .find(|key| key.id == header.kid)
            .ok_or(TokenRefusal::UnknownKey)?;
        let claims: Claims = jsonwebtoken::decode(jwt, &key.verify, &signature_only())
            .map_err(refusal)?
            .claims;
        if claims.iss != ISSUER || *claims.aud != *self.audience {
            return Err(TokenRefusal::Audience);
        }
        check_time(&claims, seconds(now))?;
        let id = TokenId::parse(&claims.jti).ok_or(TokenRefusal::Malformed)?;
        let settings = match &claims.sealed {
            Some(sealed) => Some(key.open(&id, sealed).ok_or(TokenRefusal::Malformed)?),
            None => None,
        };
        Ok(Verified {
            id,
            issued_at: time(claims.iat),
            expires_at: time(claims.exp),
            grant: grant(claims, settings),
        })
    }
}

impl Shown {
    /// Reads what a token shows to everybody, and verifies nothing.
    ///
    /// # Errors
    ///
    /// [`TokenRefusal::Malformed`] or [`TokenRefusal::Algorithm`].
    pub fn read(token: &str) -> Result<Self, TokenRefusal> {
        let (header, jwt) = split(token)?;
        let payload = jwt.split('.').nth(1).unwrap_or_default();
        let payload = URL_SAFE_NO_PAD
            .decode(payload)
            .map_err(|_| TokenRefusal::Malformed)?;
        let claims: Claims =
            serde_json::from_slice(&payload).map_err(|_| TokenRefusal::Malformed)?;
        Ok(Self {
            key: header.kid,
            audience: claims.aud.clone(),
            id: TokenId::parse(&claims.jti).ok_or(TokenRefusal::Malformed)?,
            has_settings: claims.sealed.is_some(),
            issued_at: time(claims.iat),
            valid_from: time(claims.nbf),
            expires_at: time(claims.exp),
            grant: grant(claims, None),
        })
    }
}

/// The header and the JWT of a token that has the one form that tokens have.
fn split(token: &str) -> Result<(Header, &str), TokenRefusal> {
    let jwt = token
        .strip_prefix(TOKEN_PREFIX)
        .filter(|_| token.len() <= TOKEN_BYTES_MAX)
        .ok_or(TokenRefusal::Malformed)?;
    let mut parts = jwt.split('.');
    let (Some(header), Some(_), Some(_), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(TokenRefusal::Malformed);
    };
    if header.len() > HEADER_BYTES_MAX {
        return Err(TokenRefusal::Malformed);
    }
    let header = URL_SAFE_NO_PAD
        .decode(header)
        .map_err(|_| TokenRefusal::Malformed)?;
    let header: Header = serde_json::from_slice(&header).map_err(|_| TokenRefusal::Malformed)?;
    if header.kind != "JWT" {
        return Err(TokenRefusal::Malformed);
    }
    // `none` and every public-key algorithm end here, before any key is looked for.
    if header.alg != "HS256" {
        return Err(TokenRefusal::Algorithm);
    }
    Ok((header, jwt))
}

/// Times and audience are checked here, because the library would ask the system's clock.
fn signature_only() -> Validation {
    let mut validation = Validation::new(Algorithm::HS256);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    validation
}

fn refusal(error: jsonwebtoken::errors::Error) -> TokenRefusal {
    use jsonwebtoken::errors::ErrorKind;

    match error.kind() {
        ErrorKind::InvalidSignature => TokenRefusal::Signature,
        ErrorKind::InvalidAlgorithm => TokenRefusal::Algorithm,
        _ => TokenRefusal::Malformed,
    }
}

fn check_time(claims: &Claims, now: u64) -> Result<(), TokenRefusal> {
    if now >= claims.exp {
        return Err(TokenRefusal::Expired);
    }
    let soon = now + CLOCK_SKEW.as_secs();
    if claims.nbf > soon || claims.iat > soon {
        return Err(TokenRefusal::NotYetValid);
    }
    // Longer than any relay makes it: a used token is remembered until it expires.
    if claims.exp - now > LIFETIME_MAX.as_secs() + CLOCK_SKEW.as_secs() {
        return Err(TokenRefusal::Malformed);
    }
    Ok(())
}

fn grant(claims: Claims, settings: Option<String>) -> Grant {
    Grant {
        client: claims.sub,
        model: claims.model,
        origin: claims.origin,
        policy: claims.policy,
        session: settings,
        limits: GrantLimits {
            session_duration_max: claims
                .seconds
                .map(|seconds| Duration::from_secs(seconds).min(SESSION_MAX)),
            responses_max: claims.responses,
            tokens_max: claims.tokens,
        },
    }
}

fn check(grant: &Grant) -> Result<(), MintError> {
    let names = [
        ("client", Some(&grant.client)),
        ("model", grant.model.as_ref()),
        ("origin", grant.origin.as_ref()),
        ("policy", grant.policy.as_ref()),
    ];
    for (what, name) in names {
        let sound = |name: &String| {
            (1..=NAME_BYTES_MAX).contains(&name.len()) && !name.chars().any(char::is_control)
        };
        if name.is_some_and(|name| !sound(name)) {
            return Err(MintError::Name(what));
        }
    }
    let Some(settings) = &grant.session else {
        return Ok(());
    };
    if settings.len() > SETTINGS_BYTES_MAX {
        return Err(MintError::SettingsTooLong(settings.len()));
    }
    match serde_json::from_str::<serde_json::Value>(settings) {
        Ok(serde_json::Value::Object(_)) => Ok(()),
        _ => Err(MintError::SettingsForm),
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}

/// Seconds beyond what a clock can show are as far away as it can show.
fn time(seconds: u64) -> SystemTime {
    const YEAR_10000: u64 = 253_402_300_800;
    UNIX_EPOCH + Duration::from_secs(seconds.min(YEAR_10000))
}
