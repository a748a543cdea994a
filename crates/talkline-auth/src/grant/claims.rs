//! The claims as they stand in the JWT. Every unknown or repeated name is refused.

use serde::{Deserialize, Serialize};

/// The one header that tokens have.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Header {
    #[serde(rename = "typ")]
    pub(super) kind: String,
    pub(super) alg: String,
    pub(super) kid: String,
}

/// Short names, because a token travels in a header.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Claims {
    /// Issuer.
    pub(super) iss: String,
    /// The relays that it is meant for.
    pub(super) aud: String,
    /// The client that had it minted.
    pub(super) sub: String,
    /// The id.
    pub(super) jti: String,
    /// Times in seconds since 1970: made, valid from, expires.
    pub(super) iat: u64,
    pub(super) nbf: u64,
    pub(super) exp: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) model: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) origin: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) policy: Option<String>,
    /// Longest session in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) seconds: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) responses: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) tokens: Option<u64>,
    /// The session's settings, sealed, in base64url.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) sealed: Option<String>,
}
