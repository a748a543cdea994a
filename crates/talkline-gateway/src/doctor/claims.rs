//! What a bearer token says about itself: claims for a person to compare, never the token.

use base64::Engine as _;
use serde_json::{Map, Value};

/// A token longer than this is not looked into; Entra's are 1 to 3 KiB.
const TOKEN_BYTES_MAX: usize = 16 * 1024;
/// Longest claim that is shown, in characters.
const CLAIM_CHARS_MAX: usize = 120;

/// Claims of an access token that tell which identity it stands for, and for what.
///
/// Read without checking the signature: the token is our own, and only the upstream's verdict
/// counts. Sources: RFC 7519 section 4.1; Microsoft identity platform, "Access token claims
/// reference".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenClaims {
    /// `tid`: the tenant that issued it.
    pub tenant: Option<String>,
    /// `oid`: the object id of the principal, which role assignments name.
    pub object_id: Option<String>,
    /// `appid` or `azp`: the application that asked for it.
    pub application_id: Option<String>,
    /// `aud`: the service that it is for; several are joined by a space.
    pub audience: Option<String>,
    /// `iss`: who signed it.
    pub issuer: Option<String>,
    /// `idtyp`: `app` for managed identities and service principals, `user` for people.
    pub kind: Option<String>,
    /// `nbf`: seconds since 1970 before which it is not valid.
    pub not_before: Option<u64>,
    /// `exp`: seconds since 1970 after which it is not valid.
    pub expires: Option<u64>,
}

impl TokenClaims {
    /// Reads the claims of a JSON Web Token; `None` when the text is none, as an opaque key is not.
    pub fn of(token: &str) -> Option<Self> {
        if token.len() > TOKEN_BYTES_MAX {
            return None;
        }
        let mut parts = token.split('.');
        let (Some(_header), Some(payload), Some(_signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return None;
        };
        let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD
            .decode(payload.trim_end_matches('='))
            .ok()?;
        let claims: Map<String, Value> = serde_json::from_slice(&bytes).ok()?;
        let text = |name: &str| claims.get(name).and_then(Value::as_str).map(shown);
        let audience = match claims.get("aud") {
            Some(Value::Array(items)) => {
                let items: Vec<_> = items.iter().filter_map(Value::as_str).collect();
                Some(shown(&items.join(" ")))
            }
            _ => text("aud"),
        };
        Some(Self {
            tenant: text("tid"),
            object_id: text("oid"),
            application_id: text("appid").or_else(|| text("azp")),
            audience,
            issuer: text("iss"),
            kind: text("idtyp"),
            not_before: claims.get("nbf").and_then(Value::as_u64),
            expires: claims.get("exp").and_then(Value::as_u64),
        })
    }

    /// The claims as evidence, times as seconds from `now_unix`.
    pub fn evidence(&self, now_unix: u64) -> Map<String, Value> {
        let mut evidence = Map::new();
        let texts = [
            ("tenant", &self.tenant),
            ("objectId", &self.object_id),
            ("applicationId", &self.application_id),
            ("audience", &self.audience),
            ("issuer", &self.issuer),
            ("principalType", &self.kind),
        ];
        for (name, value) in texts {
            if let Some(value) = value {
                evidence.insert(name.to_owned(), value.as_str().into());
            }
        }
        if let Some(expires) = self.expires {
            evidence.insert("expiresUnix".into(), expires.into());
            let left = i64::try_from(i128::from(expires) - i128::from(now_unix));
            evidence.insert("expiresInSeconds".into(), left.unwrap_or(i64::MAX).into());
        }
        evidence
    }

    /// Whether one of the audiences is one that Azure OpenAI takes tokens for, in any cloud.
    ///
    /// Microsoft's pages name both `cognitiveservices.azure.com` and `ai.azure.com`.
    pub fn is_for_azure_openai(&self) -> bool {
        const AUDIENCES: [&str; 5] = [
            "https://cognitiveservices.azure.com",
            "https://ai.azure.com",
            "https://cognitiveservices.azure.us",
            "https://ai.azure.us",
            "https://cognitiveservices.azure.cn",
        ];
        self.audience.as_deref().is_some_and(|audiences| {
            audiences
                .split(' ')
                .any(|audience| AUDIENCES.contains(&audience.trim_end_matches('/')))
        })
    }
}

fn shown(text: &str) -> String {
    let visible = text.chars().filter(|c| c.is_ascii_graphic() || *c == ' ');
    visible.take(CLAIM_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(claims: &str) -> String {
        let encode = |text: &str| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text);
        format!(
            "{}.{}.SIGNATURE",
            encode(r#"{"alg":"RS256"}"#),
            encode(claims)
        )
    }

    #[track_caller]
    fn check(claims: &str, expected: &str) {
        let read = TokenClaims::of(&token(claims)).map(|claims| {
            let azure = claims.is_for_azure_openai();
            (Value::Object(claims.evidence(1_000)), azure)
        });
        let expected = expected.split_once(" azure=").map(|(evidence, azure)| {
            let evidence = serde_json::from_str(evidence).unwrap();
            (evidence, azure == "true")
        });
        assert_eq!(read, expected);
    }

    #[test]
    fn claims() {
        check(
            r#"{"aud":"https://cognitiveservices.azure.com/","tid":"t-1","oid":"o-1","appid":"a-1","exp":1600,"idtyp":"app","secret":"x"}"#,
            r#"{"tenant":"t-1","objectId":"o-1","applicationId":"a-1","audience":"https://cognitiveservices.azure.com/","principalType":"app","expiresUnix":1600,"expiresInSeconds":600} azure=true"#,
        );
        check(
            r#"{"aud":["https://graph.microsoft.com","https://ai.azure.com"],"azp":"a-2","exp":400}"#,
            r#"{"applicationId":"a-2","audience":"https://graph.microsoft.com https://ai.azure.com","expiresUnix":400,"expiresInSeconds":-600} azure=true"#,
        );
        check(
            r#"{"aud":"https://management.azure.com","oid":7}"#,
            r#"{"audience":"https://management.azure.com"} azure=false"#,
        );
        check(
            r#"{"oid":"line\nbreak\u001b[2J","exp":-1}"#,
            r#"{"objectId":"linebreak[2J"} azure=false"#,
        );
        check(
            r#"{"exp":18446744073709551615}"#,
            r#"{"expiresUnix":18446744073709551615,"expiresInSeconds":9223372036854775807} azure=false"#,
        );
        check("[]", "no claims");
        check("", "no claims");
    }

    #[test]
    fn opaque_keys_have_no_claims() {
        for key in [
            "sk-proj-abc",
            "",
            "a.b",
            "a.b.c",
            "a.b.c.d",
            "..",
            &"x.".repeat(20_000),
        ] {
            assert_eq!(TokenClaims::of(key), None);
        }
    }
}
