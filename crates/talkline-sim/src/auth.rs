//! Which credential Azure takes at the upgrade, and which it refuses.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

use crate::caller::Secret;
use crate::refusal::Refusal;
use crate::simulator::DEFAULT_API_KEY;

/// The audiences that Microsoft documents for Azure OpenAI and for AI Foundry.
const AUDIENCES: [&str; 2] = [
    "https://cognitiveservices.azure.com",
    "https://ai.azure.com",
];

/// What a bearer token must say to be taken.
///
/// A token must have the structure of a JWT and claims that pass this rule. **Its signature is not verified**: a
/// simulator has no business with the keys of Entra, and a test must be able to make its own tokens.
#[derive(Debug, Clone)]
pub struct BearerRule {
    /// Accepted values of `aud`. A trailing slash makes no difference. Defaults to the two documented ones,
    /// `https://cognitiveservices.azure.com` and `https://ai.azure.com`.
    pub audiences: Vec<String>,
    /// The tenant that `tid` must name; another is refused with [`Refusal::tenant_mismatch_400`]. `None`, the
    /// default, takes any.
    pub tenant: Option<String>,
    /// Object ids (`oid`) of principals without a role on the resource, refused with [`Refusal::rbac_old`].
    pub without_role: Vec<String>,
}

impl Default for BearerRule {
    fn default() -> Self {
        Self {
            audiences: AUDIENCES.map(str::to_owned).to_vec(),
            tenant: None,
            without_role: Vec::new(),
        }
    }
}

/// A token with these claims, in the structure of a JWT, under a signature that verifies against nothing.
///
/// For tests: a simulator takes it if its claims pass the [`BearerRule`], and nobody else does.
///
/// ```
/// let claims = serde_json::json!({"aud": "https://ai.azure.com", "exp": 4_102_444_800_u64});
/// assert_eq!(talkline_sim::unsigned_token(&claims).split('.').count(), 3);
/// ```
#[must_use]
pub fn unsigned_token(claims: &serde_json::Value) -> String {
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"RS256","typ":"JWT"}"#);
    let claims = URL_SAFE_NO_PAD.encode(claims.to_string());
    let signature = URL_SAFE_NO_PAD.encode("not a signature");
    format!("{header}.{claims}.{signature}")
}

/// What lets a caller in, all of which can change while the simulator runs.
#[derive(Debug)]
pub(crate) struct Access {
    pub(crate) api_keys: Vec<Secret>,
    pub(crate) bearer: BearerRule,
}

impl Default for Access {
    fn default() -> Self {
        Self {
            api_keys: vec![Secret::new(DEFAULT_API_KEY)],
            bearer: BearerRule::default(),
        }
    }
}

impl Access {
    fn takes_key(&self, key: &str) -> bool {
        self.api_keys.iter().any(|each| each.expose() == key)
    }
}

/// The credentials of one request, wherever they stood.
#[derive(Default)]
#[cfg_attr(test, derive(Debug))]
pub(crate) struct Offered<'a> {
    pub(crate) key_header: Option<&'a str>,
    pub(crate) key_query: Option<String>,
    pub(crate) authorization: Option<&'a str>,
    /// Whether a subprotocol carried a key, and which.
    pub(crate) key_subprotocol: Option<&'a str>,
}

impl Offered<'_> {
    /// The API key, from the header or the query.
    pub(crate) fn key(&self) -> Option<&str> {
        self.key_header.or(self.key_query.as_deref())
    }
}

#[derive(Debug, Deserialize)]
struct Claims {
    aud: Option<Audience>,
    exp: Option<u64>,
    nbf: Option<u64>,
    tid: Option<String>,
    oid: Option<String>,
}

/// RFC 7519, section 4.1.3: one audience, or several.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

/// Azure's rules: an API key in its own header or query, an Entra token as bearer, and never both.
pub(crate) fn check_azure(
    offered: &Offered<'_>,
    access: &Access,
    now_unix: u64,
) -> Result<(), Refusal> {
    match (offered.key(), offered.authorization) {
        (Some(_), Some(_)) => Err(Refusal::two_credentials()),
        (Some(key), None) if access.takes_key(key) => Ok(()),
        (Some(_), None) => Err(Refusal::key_invalid()),
        (None, Some(authorization)) => check_bearer(authorization, &access.bearer, now_unix),
        (None, None) if offered.key_subprotocol.is_some() => Err(Refusal::subprotocol_auth()),
        (None, None) => Err(Refusal::no_auth()),
    }
}

/// The rules of api.openai.com: the key as bearer, or as a subprotocol for browsers.
pub(crate) fn check_openai(offered: &Offered<'_>, access: &Access) -> Result<(), Refusal> {
    let bearer = offered.authorization.and_then(bearer_token);
    match bearer.or(offered.key_subprotocol) {
        Some(key) if access.takes_key(key) => Ok(()),
        Some(_) => Err(Refusal::openai(
            "incorrect_api_key",
            401,
            "invalid_api_key",
            "Incorrect API key provided.",
        )),
        None => Err(Refusal::openai(
            "missing_bearer",
            401,
            "missing_api_key",
            "Missing bearer or basic authentication in header",
        )),
    }
}

fn check_bearer(authorization: &str, rule: &BearerRule, now_unix: u64) -> Result<(), Refusal> {
    let bad_token = Refusal::token_bad_audience_or_expired;
    let claims = bearer_token(authorization)
        .and_then(claims_of)
        .ok_or_else(bad_token)?;
    let in_time = claims.exp.is_some_and(|exp| now_unix < exp)
        && claims.nbf.is_none_or(|nbf| nbf <= now_unix);
    let for_us = match &claims.aud {
        Some(Audience::One(aud)) => rule.takes(aud),
        Some(Audience::Several(all)) => all.iter().any(|aud| rule.takes(aud)),
        None => false,
    };
    if !in_time || !for_us {
        return Err(bad_token());
    }
    if rule.tenant.is_some() && rule.tenant != claims.tid {
        return Err(Refusal::tenant_mismatch_400());
    }
    if claims
        .oid
        .is_some_and(|oid| rule.without_role.contains(&oid))
    {
        return Err(Refusal::rbac_old());
    }
    Ok(())
}

impl BearerRule {
    fn takes(&self, audience: &str) -> bool {
        let bare = audience.trim_end_matches('/');
        self.audiences
            .iter()
            .any(|each| each.trim_end_matches('/') == bare)
    }
}

/// The token of an `Authorization: Bearer` value (RFC 6750, section 2.1; the scheme in any case).
fn bearer_token(authorization: &str) -> Option<&str> {
    let (scheme, token) = authorization.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// The claims of a compact JWS (RFC 7515, section 7.1), signature unverified.
fn claims_of(token: &str) -> Option<Claims> {
    let mut parts = token.split('.');
    let (header, payload, signature) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || signature.is_empty() {
        return None;
    }
    let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).ok();
    let header: serde_json::Value = serde_json::from_slice(&decode(header)?).ok()?;
    header.get("alg")?.as_str()?;
    decode(signature)?;
    serde_json::from_slice(&decode(payload)?).ok()
}

#[cfg(test)]
mod tests;
