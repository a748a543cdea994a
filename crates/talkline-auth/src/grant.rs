//! `ek_` tokens: what a browser holds in place of a client key.
//!
//! A token is `ek_` and a JWT (RFC 7519), signed with HS256 by a key of the relay's [`KeyRing`].
//! It is good for one session, for about a minute, and says what that session may be. Replicas that
//! share a ring accept each other's tokens; only that each opens one session needs a shared
//! [`LimitStore`](crate::LimitStore).
//!
//! Everybody who holds a token can read its claims. The settings of the session, the operator's
//! prompt among them, stand in it sealed (AES-256-GCM); the relay alone can open them.

mod claims;
mod ring;

use std::{
    fmt,
    time::{Duration, SystemTime},
};

pub use ring::{KeyRing, RingKey, RingKeyError, Shown};

use crate::{AllowedRoutes, ClientIdentity, ClientLimits, Secret};

/// What every client token begins with.
pub const TOKEN_PREFIX: &str = "ek_";

/// Longest token: it travels as a header value, in a request head of 16 KiB by default.
pub const TOKEN_BYTES_MAX: usize = 10 * 1024;

/// Longest session settings. Sealed and twice in base64 they take 1.8 times as much.
pub const SETTINGS_BYTES_MAX: usize = 4 * 1024;

/// How long a token can be used, unless something else is configured.
pub const LIFETIME_DEFAULT: Duration = Duration::from_secs(60);

/// Longest time that a token can be used. Every used token is remembered until it expires, and a
/// token in a page is a token in a browser's memory.
pub const LIFETIME_MAX: Duration = Duration::from_secs(10 * 60);

/// How much the clocks of replicas may differ for a token to be valid from its first moment.
pub const CLOCK_SKEW: Duration = Duration::from_secs(5);

/// Longest session that a token can speak of; there is no longer one.
const SESSION_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Longest name, model, policy or origin in a token.
const NAME_BYTES_MAX: usize = 256;

/// What a token allows.
#[derive(Clone, PartialEq, Eq)]
pub struct Grant {
    /// Name of the identity that had it minted, whose limits hold for the session.
    pub client: String,
    /// The model that the session is with, by the name that clients use. `None`: any that the
    /// identity may ask for.
    pub model: Option<String>,
    /// The web origin whose pages may use it. `None`: any that the relay lets in.
    pub origin: Option<String>,
    /// Name of the session policy, where the identity has none of its own.
    pub policy: Option<String>,
    /// The session's settings, a JSON object as text: instructions, voice, tools, … Sealed in the
    /// token.
    pub session: Option<String>,
    /// Bounds of the session.
    pub limits: GrantLimits,
}

impl Grant {
    /// A grant for whatever the identity may do.
    pub fn new(client: impl Into<String>) -> Self {
        Self {
            client: client.into(),
            model: None,
            origin: None,
            policy: None,
            session: None,
            limits: GrantLimits::default(),
        }
    }

    /// Whether an identity may have this minted: nobody hands out more than they have.
    ///
    /// # Errors
    ///
    /// [`MintError::Model`] or [`MintError::Policy`].
    pub fn check_minter(&self, identity: &ClientIdentity) -> Result<(), MintError> {
        if let (Some(model), AllowedRoutes::Only(_)) = (&self.model, &identity.routes)
            && !identity.routes.allows(model)
        {
            return Err(MintError::Model);
        }
        match (&self.policy, &identity.policy) {
            (Some(asked), Some(own)) if asked != own => Err(MintError::Policy),
            _ => Ok(()),
        }
    }

    /// Whether a request from a page of this origin may use it. A token that is bound to an origin
    /// is for browsers alone.
    ///
    /// # Errors
    ///
    /// [`TokenRefusal::Origin`].
    pub fn check_origin(&self, origin: Option<&str>) -> Result<(), TokenRefusal> {
        match (&self.origin, origin) {
            (None, _) => Ok(()),
            (Some(bound), Some(origin)) if bound == origin => Ok(()),
            (Some(_), _) => Err(TokenRefusal::Origin),
        }
    }

    /// The model that a request gets which asks for `asked`, or for none.
    ///
    /// # Errors
    ///
    /// [`TokenRefusal::Model`] when it asks for another than the token is bound to.
    pub fn model_for<'a>(
        &'a self,
        asked: Option<&'a str>,
    ) -> Result<Option<&'a str>, TokenRefusal> {
        match (&self.model, asked) {
            (Some(bound), Some(asked)) if bound != asked => Err(TokenRefusal::Model),
            (Some(bound), _) => Ok(Some(bound)),
            (None, asked) => Ok(asked),
        }
    }
}

/// Without the session's settings, which are the operator's secret.
impl fmt::Debug for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grant")
            .field("client", &self.client)
            .field("model", &self.model)
            .field("origin", &self.origin)
            .field("policy", &self.policy)
            .field("session", &self.session.as_ref().map(|_| "[sealed]"))
            .field("limits", &self.limits)
            .finish()
    }
}

/// Bounds of one session, as a token carries them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GrantLimits {
    /// Longest session, counted from the client's 101, in whole seconds.
    pub session_duration_max: Option<Duration>,
    /// Responses.
    pub responses_max: Option<u64>,
    /// Tokens, input and output together.
    pub tokens_max: Option<u64>,
}

impl GrantLimits {
    /// The same bounds as a client's.
    pub fn as_client_limits(&self) -> ClientLimits {
        ClientLimits {
            session_duration_max: self.session_duration_max,
            responses_per_session: self.responses_max,
            tokens_per_session: self.tokens_max,
            ..ClientLimits::default()
        }
    }
}

/// The id of a token (`jti`): 128 random bits, 32 hexadecimal digits. No secret.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TokenId(String);

impl TokenId {
    fn of_bits(bits: [u8; 16]) -> Self {
        Self(bits.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// Reads an id: 32 hexadecimal digits in lower case.
    pub fn parse(text: &str) -> Option<Self> {
        let legal = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        (text.len() == 32 && text.bytes().all(legal)).then(|| Self(text.to_owned()))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A token that was just made.
#[derive(Clone, Debug)]
pub struct Minted {
    /// `ek_…`
    pub secret: Secret,
    /// Its id.
    pub id: TokenId,
    /// From then on it opens no session.
    pub expires_at: SystemTime,
}

/// A token that this relay, or a replica with the same ring, has made.
///
/// Not yet: whether it was used ([`LimitStore::use_once`](crate::LimitStore::use_once)), and whether
/// this request may use it ([`Grant::check_origin`], [`Grant::model_for`]).
#[derive(Clone, Debug)]
pub struct Verified {
    /// What it allows.
    pub grant: Grant,
    /// Its id.
    pub id: TokenId,
    /// When it was made.
    pub issued_at: SystemTime,
    /// From then on it opens no session.
    pub expires_at: SystemTime,
}

/// Why a token cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MintError {
    /// More settings than a token can carry.
    #[error(
        "the session settings are {0} bytes of JSON and a token carries at most {SETTINGS_BYTES_MAX}; keep long instructions in a session policy"
    )]
    SettingsTooLong(usize),
    /// The settings are no JSON object.
    #[error("the session settings are not one JSON object")]
    SettingsForm,
    /// A name, model, policy or origin that is empty, too long or holds control characters.
    #[error("the {0} is empty, longer than 256 bytes, or holds control characters")]
    Name(&'static str),
    /// A lifetime of nothing, or of more than [`LIFETIME_MAX`].
    #[error("a token lives for 1 to 600 seconds")]
    Lifetime,
    /// The identity may not ask for the model.
    #[error("this client may not use the model that the token would be for")]
    Model,
    /// The identity is under another policy.
    #[error("this client is under another session policy than the token would be")]
    Policy,
    /// The cryptographic library failed.
    #[error("the token could not be signed")]
    Signing,
}

impl MintError {
    /// Stable code.
    pub fn code(self) -> &'static str {
        match self {
            Self::SettingsTooLong(_) => "session_settings_too_long",
            Self::SettingsForm => "session_settings_form",
            Self::Name(_) => "invalid_value",
            Self::Lifetime => "invalid_lifetime",
            Self::Model => "model_not_allowed",
            Self::Policy => "policy_not_allowed",
            Self::Signing => "token_not_signed",
        }
    }
}

/// Why a token is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenRefusal {
    /// It is no token, or not in the one form in which they are made.
    #[error("the client token is malformed")]
    Malformed,
    /// It is signed by another algorithm than the relay's.
    #[error("the client token is not signed the way this relay signs")]
    Algorithm,
    /// Its key is not on the ring.
    #[error("the client token was made by another relay, or its key has been retired")]
    UnknownKey,
    /// The signature does not fit.
    #[error("the client token has been altered")]
    Signature,
    /// It was made for another relay.
    #[error("the client token is meant for another relay")]
    Audience,
    /// Its time has not come.
    #[error("the client token is not valid yet")]
    NotYetValid,
    /// Its time is over.
    #[error("the client token has expired; ask for a new one just before connecting")]
    Expired,
    /// It is bound to another origin.
    #[error("the client token is bound to another web origin")]
    Origin,
    /// It is bound to another model.
    #[error("the client token is bound to another model")]
    Model,
    /// The identity that had it minted is not configured any more.
    #[error("the client that this token was made for is not known any more")]
    Client,
}

impl TokenRefusal {
    /// HTTP status of the refusal.
    pub fn status(self) -> u16 {
        match self {
            Self::Origin | Self::Model => 403,
            _ => 401,
        }
    }

    /// Stable code of the refusal.
    pub fn code(self) -> &'static str {
        match self {
            Self::Malformed => "client_token_malformed",
            Self::Algorithm => "client_token_algorithm",
            Self::UnknownKey => "client_token_key_unknown",
            Self::Signature => "client_token_signature",
            Self::Audience => "client_token_audience",
            Self::NotYetValid => "client_token_not_yet_valid",
            Self::Expired => "client_token_expired",
            Self::Origin => "client_token_origin",
            Self::Model => "client_token_model",
            Self::Client => "client_token_client_unknown",
        }
    }
}

#[cfg(test)]
mod tests;
