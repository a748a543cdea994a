//! Who a client is, from what its upgrade request carried.
//!
//! Clients present a key in one of three places: `Authorization: Bearer`, `api-key`, or (browsers,
//! whose WebSocket API cannot set headers) the subprotocol `openai-insecure-api-key.<key>`. A key
//! in the query string is refused: it ends up in logs and histories.

use crate::{
    Secret,
    grant::{TOKEN_BYTES_MAX, TOKEN_PREFIX},
    oidc::USER_TOKEN_BYTES_MAX,
};

/// Prefix of the subprotocol by which OpenAI's browser SDKs hand over a key.
pub const KEY_SUBPROTOCOL_PREFIX: &str = "openai-insecure-api-key.";

/// The longest key that is looked at; `ek_` tokens and users' tokens may be longer. What is longer is
/// refused unread.
pub const KEY_BYTES_MAX: usize = 4096;

/// A key that a client sent, not yet checked.
#[derive(Clone, Debug)]
pub struct PresentedKey(Secret);

impl PresentedKey {
    /// Finds the key in a request's header fields (names in any case) and query.
    ///
    /// `Ok(None)` means that no key was presented.
    ///
    /// # Errors
    ///
    /// [`Admission`] when the same request carries two different keys, the same header twice, a
    /// key in the query, an authorization scheme other than `Bearer`, or bytes that are no key.
    pub fn find<'a>(
        headers: impl Iterator<Item = (&'a str, &'a [u8])>,
        query: Option<&str>,
    ) -> Result<Option<Self>, Admission> {
        if query.is_some_and(carries_key) {
            return Err(Admission::KeyInQuery);
        }
        let (mut bearer, mut api_key, mut subprotocol) = (None, None, None);
        for (name, value) in headers {
            if name.eq_ignore_ascii_case("authorization") {
                once(&mut bearer, bearer_token(value)?)?;
            } else if name.eq_ignore_ascii_case("api-key") {
                once(&mut api_key, text(value)?)?;
            } else if name.eq_ignore_ascii_case("sec-websocket-protocol") {
                for offer in offers(value) {
                    if let Some(key) = offer.strip_prefix(KEY_SUBPROTOCOL_PREFIX) {
                        once(&mut subprotocol, key.to_owned())?;
                    }
                }
            }
        }
        let mut found: Option<String> = None;
        for key in [bearer, api_key, subprotocol].into_iter().flatten() {
            match &found {
                Some(first) if *first != key => return Err(Admission::ConflictingKeys),
                _ => found = Some(key),
            }
        }
        match found {
            Some(key) if key.is_empty() || key.len() > bytes_max(&key) => {
                Err(Admission::MalformedKey)
            }
            Some(key) => Ok(Some(Self(Secret::new(key)))),
            None => Ok(None),
        }
    }

    pub(crate) fn secret(&self) -> &Secret {
        &self.0
    }
}

/// The longest that a key may be, by what it begins like.
fn bytes_max(key: &str) -> usize {
    if key.starts_with(TOKEN_PREFIX) {
        TOKEN_BYTES_MAX
    } else if key.starts_with("ey") {
        USER_TOKEN_BYTES_MAX
    } else {
        KEY_BYTES_MAX
    }
}

/// The subprotocols that a `Sec-WebSocket-Protocol` value offers, in order.
pub fn offers(value: &[u8]) -> impl Iterator<Item = &str> {
    std::str::from_utf8(value)
        .unwrap_or_default()
        .split(',')
        .map(str::trim)
        .filter(|o| !o.is_empty())
}

/// Why a client was not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Admission {
    /// No key was presented and one is needed.
    #[error(
        "no client key was presented; send it as `Authorization: Bearer`, as `api-key`, or in a browser as the subprotocol `openai-insecure-api-key.<key>`"
    )]
    KeyMissing,
    /// The key is not one of ours.
    #[error(
        "the client key is not known to this relay; it is the relay's key that belongs here, not the Azure or OpenAI key"
    )]
    KeyUnknown,
    /// The key is empty, too long, not text, or under a scheme other than `Bearer`.
    #[error("the client key is malformed")]
    MalformedKey,
    /// Two different keys, or one header twice.
    #[error("the request carries more than one client key; send exactly one")]
    ConflictingKeys,
    /// A key stands in the query string.
    #[error(
        "a key in the query string is refused because URLs are logged; send it in a header or subprotocol"
    )]
    KeyInQuery,
}

impl Admission {
    /// HTTP status of the refusal.
    pub fn status(self) -> u16 {
        match self {
            Admission::KeyMissing | Admission::KeyUnknown | Admission::MalformedKey => 401,
            Admission::ConflictingKeys | Admission::KeyInQuery => 400,
        }
    }

    /// Stable code of the refusal.
    pub fn code(self) -> &'static str {
        match self {
            Admission::KeyMissing => "client_key_missing",
            Admission::KeyUnknown => "client_key_unknown",
            Admission::MalformedKey => "client_key_malformed",
            Admission::ConflictingKeys => "client_key_conflict",
            Admission::KeyInQuery => "client_key_in_query",
        }
    }
}

fn once(slot: &mut Option<String>, value: String) -> Result<(), Admission> {
    match slot.replace(value) {
        Some(_) => Err(Admission::ConflictingKeys),
        None => Ok(()),
    }
}

fn text(value: &[u8]) -> Result<String, Admission> {
    let value = std::str::from_utf8(value)
        .map_err(|_| Admission::MalformedKey)?
        .trim();
    let legal = value.bytes().all(|byte| byte.is_ascii_graphic());
    if legal {
        Ok(value.to_owned())
    } else {
        Err(Admission::MalformedKey)
    }
}

fn bearer_token(value: &[u8]) -> Result<String, Admission> {
    let split = value
        .iter()
        .position(|byte| *byte == b' ')
        .ok_or(Admission::MalformedKey)?;
    let (scheme, token) = value.split_at(split);
    if !scheme.eq_ignore_ascii_case(b"bearer") {
        return Err(Admission::MalformedKey);
    }
    text(token)
}

/// Whether the query names a credential, in any of the spellings that clients have used.
fn carries_key(query: &str) -> bool {
    query.split('&').any(|pair| {
        let name = pair.split('=').next().unwrap_or_default();
        let name = percent_encoding::percent_decode_str(name).decode_utf8_lossy();
        let name: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
        matches!(
            name.to_ascii_lowercase().as_str(),
            "apikey" | "authorization" | "accesstoken" | "subscriptionkey" | "key" | "token"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ClientKey, ClientKeys, Lookup};

    fn keys() -> ClientKeys {
        let key = |name: &str, secret: &str| ClientKey::unrestricted(name, Secret::new(secret));
        ClientKeys::new(vec![key("web", "w-1"), key("ops", "o-2")])
    }

    fn check(headers: &[(&str, &str)], query: Option<&str>, expected: &str) {
        check_with(&keys(), headers, query, expected);
    }

    fn check_with(
        keys: &ClientKeys,
        headers: &[(&str, &str)],
        query: Option<&str>,
        expected: &str,
    ) {
        let fields = headers
            .iter()
            .map(|(name, value)| (*name, value.as_bytes()));
        let got = PresentedKey::find(fields, query)
            .and_then(|key| keys.look_up(key.as_ref()))
            .map_or_else(
                |refusal| refusal.code().to_owned(),
                |found| match found {
                    Lookup::Admitted(client) => client.name().to_owned(),
                    other => format!("{other:?}"),
                },
            );
        assert_eq!(got, expected, "{headers:?} {query:?}");
    }

    #[test]
    fn a_key_is_found_wherever_sdks_put_it() {
        check(&[("authorization", "Bearer w-1")], None, "web");
        check(&[("Authorization", "bearer o-2")], None, "ops");
        check(&[("api-key", "o-2")], None, "ops");
        check(
            &[(
                "sec-websocket-protocol",
                "realtime, openai-insecure-api-key.w-1",
            )],
            None,
            "web",
        );
        check(
            &[(
                "sec-websocket-protocol",
                "openai-insecure-api-key.w-1,realtime,openai-agents-sdk.0.20.0",
            )],
            None,
            "web",
        );
        check(
            &[
                ("authorization", "Bearer w-1"),
                ("sec-websocket-protocol", "realtime"),
            ],
            Some("model=m"),
            "web",
        );
        check(
            &[("authorization", "Bearer w-1"), ("api-key", "w-1")],
            None,
            "web",
        );
    }

    #[test]
    fn everything_else_is_refused() {
        check(&[], None, "client_key_missing");
        check(
            &[("authorization", "Bearer w-2")],
            None,
            "client_key_unknown",
        );
        check(
            &[("authorization", "Bearer w-1x")],
            None,
            "client_key_unknown",
        );
        check(
            &[("authorization", "Basic dzox")],
            None,
            "client_key_malformed",
        );
        check(&[("authorization", "w-1")], None, "client_key_malformed");
        check(&[("api-key", "")], None, "client_key_malformed");
        check(&[("api-key", "w 1")], None, "client_key_malformed");
        check(
            &[("api-key", &"x".repeat(5000))],
            None,
            "client_key_malformed",
        );
        check(
            &[("authorization", "Bearer w-1"), ("api-key", "o-2")],
            None,
            "client_key_conflict",
        );
        check(
            &[("api-key", "w-1"), ("api-key", "w-1")],
            None,
            "client_key_conflict",
        );
        for query in [
            "api-key=w-1",
            "model=m&API-KEY=w-1",
            "api%2Dkey=w",
            "Authorization=Bearer%20w",
            "api_key=",
        ] {
            check(&[("api-key", "w-1")], Some(query), "client_key_in_query");
        }
    }

    #[test]
    fn anonymous_only_when_allowed() {
        let open = ClientKeys::default().with_anonymous(true);
        check_with(&open, &[], None, "anonymous");
        check_with(&open, &[("api-key", "anything")], None, "anonymous");
        let both = keys().with_anonymous(true);
        check_with(&both, &[], None, "anonymous");
        check_with(&both, &[("api-key", "wrong")], None, "client_key_unknown");
        check_with(&ClientKeys::default(), &[], None, "client_key_missing");
        check_with(
            &ClientKeys::default(),
            &[("api-key", "x")],
            None,
            "client_key_unknown",
        );
    }

    #[test]
    fn debug_shows_no_key() {
        let shown = format!("{:?}", ClientKey::unrestricted("n", Secret::new("CANARY")));
        assert!(!shown.contains("CANARY"));
    }
}
