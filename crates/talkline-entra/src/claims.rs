//! What tokens say about their bearer.

use std::{
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value};
use talkline_auth::Secret;

use crate::redact::Redactor;

/// What an access token of Entra says about its bearer, unverified: for a person who compares it
/// with what an upstream that answers 401 or 403 expects. None of it is secret.
///
/// Claims: <https://learn.microsoft.com/entra/identity-platform/access-token-claims-reference>.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TokenClaims {
    /// `aud`: which service the token is for.
    pub audience: Option<String>,
    /// `tid`: the tenant.
    pub tenant_id: Option<String>,
    /// `oid`: the principal that roles are assigned to.
    pub object_id: Option<String>,
    /// `appid`, or `azp` in tokens of version 2: the application or the managed identity's client.
    pub client_id: Option<String>,
    /// `exp`.
    pub expires: Option<SystemTime>,
}

impl TokenClaims {
    /// `None` when the token is no JSON web token: a service may use another form.
    pub fn of(token: &Secret) -> Option<Self> {
        let claims = payload(token)?;
        let redactor = Redactor::new([token.clone()]);
        let text = |name: &str| Some(redactor.quote(claims.get(name)?.as_str()?));
        let expires = || {
            let seconds = claims.get("exp")?.as_u64()?;
            UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
        };
        Some(Self {
            audience: text("aud"),
            tenant_id: text("tid"),
            object_id: text("oid"),
            client_id: text("appid").or_else(|| text("azp")),
            expires: expires(),
        })
    }
}

impl fmt::Display for TokenClaims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = |claim: &Option<String>| claim.clone().unwrap_or_else(|| "unknown".into());
        write!(
            f,
            "audience {}, tenant {}, object id {}, client id {}",
            part(&self.audience),
            part(&self.tenant_id),
            part(&self.object_id),
            part(&self.client_id),
        )
    }
}

/// Issuer, subject and audience of a federated token: what somebody has to compare with the
/// federated credential. They are no secret.
pub(crate) fn federation(assertion: &Secret) -> Option<String> {
    let claims = payload(assertion)?;
    let claim = |name| claims.get(name).unwrap_or(&Value::Null);
    Some(format!(
        "issuer {}, subject {}, audience {}",
        claim("iss"),
        claim("sub"),
        claim("aud")
    ))
}

/// The claims of a JWT (RFC 7519, section 4), unverified.
fn payload(token: &Secret) -> Option<Map<String, Value>> {
    let payload = token.expose().split('.').nth(1)?;
    let payload = URL_SAFE_NO_PAD.decode(payload).ok()?;
    serde_json::from_slice(&payload).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_says_whose_it_is() {
        fn check(payload: &str, expected: Option<&str>) {
            let payload = URL_SAFE_NO_PAD.encode(payload);
            let claims = TokenClaims::of(&Secret::new(format!("eyJ9.{payload}.c2ln")));
            let shown = claims.map(|claims| claims.to_string());
            assert_eq!(shown.as_deref(), expected, "{payload}");
        }
        check(
            r#"{"aud":"https://cognitiveservices.azure.com","tid":"t","oid":"o","appid":"a","exp":1}"#,
            Some(
                "audience https://cognitiveservices.azure.com, tenant t, object id o, client id a",
            ),
        );
        check(
            r#"{"aud":"x\r\ny","azp":"a","exp":"soon"}"#,
            Some("audience x y, tenant unknown, object id unknown, client id a"),
        );
        check("[]", None);
        check("{", None);
        for opaque in ["", "opaque", "a.!.c"] {
            assert_eq!(TokenClaims::of(&Secret::new(opaque)), None, "{opaque}");
        }
    }

    #[test]
    fn an_expiry_beyond_time_is_none() {
        let payload = URL_SAFE_NO_PAD.encode(format!(r#"{{"exp":{}}}"#, u64::MAX));
        let claims = TokenClaims::of(&Secret::new(format!("e.{payload}.s"))).unwrap();
        assert_eq!(claims.expires, None);
    }
}
