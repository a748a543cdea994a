//! What federated tokens say about themselves.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value};
use talkline_auth::Secret;

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
    fn a_federated_token_says_what_to_compare() {
        let payload = URL_SAFE_NO_PAD.encode(r#"{"iss":"https://i","sub":"s","aud":"a"}"#);
        let told = federation(&Secret::new(format!("e.{payload}.c2ln")));
        let expected = r#"issuer "https://i", subject "s", audience "a""#;
        assert_eq!(told.as_deref(), Some(expected));
        for opaque in ["", "opaque", "a.!.c", "e.W10.c"] {
            assert_eq!(federation(&Secret::new(opaque)), None, "{opaque}");
        }
    }
}
