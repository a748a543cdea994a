//! Strict admission of an upgrade request: RFC 6455 section 4.2.1, the `Origin` rule, the client key.

use base64::Engine as _;
use http::{HeaderMap, Method, Request, StatusCode, header};
use talkline_auth::{Admission, Client, ClientKeys, Lookup, PresentedKey};
use talkline_dialect::{Ask, Correlation};

use crate::{handshake::lists, refusal::HttpRefusal};

/// Which pages may open sessions.
#[derive(Clone, Debug, Default)]
pub(crate) struct OriginPolicy {
    /// Exact origins beside the relay's own.
    pub(crate) allowed: Vec<String>,
    /// Host names under which the relay is reached, beside loopback ones.
    pub(crate) own_hosts: Vec<String>,
}

/// A request that may become a session.
#[derive(Debug)]
pub(crate) struct Admitted {
    pub(crate) ask: Ask,
    pub(crate) client: Client,
    pub(crate) correlation: Correlation,
    /// `Sec-WebSocket-Key` as it came.
    pub(crate) websocket_key: String,
}

/// Decides whether a request may become a session.
///
/// The order is: the shape of the upgrade, then the origin, then the key, then what is asked for.
/// A caller that is not admitted learns nothing about models or upstreams.
pub(crate) fn admit<B>(
    request: &Request<B>,
    keys: &ClientKeys,
    origins: &OriginPolicy,
) -> Result<Admitted, HttpRefusal> {
    let headers = request.headers();
    let websocket_key = check_upgrade(request.method(), headers)?;
    let presented = PresentedKey::find(fields(headers), request.uri().query());
    check_origin(
        headers,
        origins,
        matches!(presented, Ok(Some(_))) && !keys.is_empty(),
    )?;
    let client = presented
        .and_then(|key| match keys.look_up(key.as_ref())? {
            Lookup::Admitted(client) => Ok(client),
            Lookup::Token(_) | Lookup::Slow(_) | Lookup::User(_) => Err(Admission::KeyUnknown),
        })
        .map_err(|refusal| {
            let status = StatusCode::from_u16(refusal.status()).unwrap_or(StatusCode::UNAUTHORIZED);
            let answer = HttpRefusal::new(status, refusal.code(), refusal.to_string());
            match status {
                StatusCode::UNAUTHORIZED => answer.with_header(header::WWW_AUTHENTICATE, "Bearer"),
                _ => answer,
            }
        })?;
    let ask = Ask::parse(request.uri().path(), request.uri().query(), fields(headers)).map_err(
        |error| HttpRefusal::new(StatusCode::BAD_REQUEST, error.code(), error.to_string()),
    )?;
    Ok(Admitted {
        ask,
        client,
        correlation: Correlation::from_headers(fields(headers)),
        websocket_key,
    })
}

fn fields(headers: &HeaderMap) -> impl Iterator<Item = (&str, &[u8])> {
    headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_bytes()))
}

fn check_upgrade(method: &Method, headers: &HeaderMap) -> Result<String, HttpRefusal> {
    let bad = |message| HttpRefusal::new(StatusCode::BAD_REQUEST, "bad_upgrade", message);
    let needed = |message| {
        HttpRefusal::new(StatusCode::UPGRADE_REQUIRED, "upgrade_required", message)
            .with_header(header::SEC_WEBSOCKET_VERSION, "13")
    };
    if method != Method::GET {
        return Err(HttpRefusal::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
            "a session is opened by GET with a WebSocket upgrade",
        )
        .with_header(header::ALLOW, "GET"));
    }
    if !lists(headers, &header::UPGRADE, "websocket") {
        return Err(needed(
            "this is a WebSocket endpoint: Upgrade: websocket is missing",
        ));
    }
    if !lists(headers, &header::CONNECTION, "upgrade") {
        return Err(bad("Connection: Upgrade is missing"));
    }
    match one(headers, &header::SEC_WEBSOCKET_VERSION)
        .map_err(|()| bad("Sec-WebSocket-Version is given twice"))?
    {
        Some("13") => {}
        _ => return Err(needed("only WebSocket version 13 is spoken here")),
    }
    let key = one(headers, &header::SEC_WEBSOCKET_KEY)
        .map_err(|()| bad("Sec-WebSocket-Key is given twice"))?
        .ok_or_else(|| bad("Sec-WebSocket-Key is missing"))?;
    match base64::engine::general_purpose::STANDARD.decode(key) {
        Ok(nonce) if nonce.len() == 16 => Ok(key.to_owned()),
        _ => Err(bad("Sec-WebSocket-Key is not 16 bytes in base64")),
    }
}

/// Cross-site WebSocket hijacking is stopped here, because browsers do not apply CORS to WebSockets.
///
/// A page is let in when its origin is on the list, or when it was served under the same host and
/// either a key was presented (a page elsewhere cannot know it) or the host is one of the relay's
/// own names (a rebound DNS name is not).
fn check_origin(
    headers: &HeaderMap,
    policy: &OriginPolicy,
    key_presented: bool,
) -> Result<(), HttpRefusal> {
    let origin = one(headers, &header::ORIGIN).map_err(|()| HttpRefusal::origin_not_allowed())?;
    let Some(origin) = origin else {
        // Not a browser. Its key decides.
        return if headers.contains_key(header::ORIGIN) {
            Err(HttpRefusal::origin_not_allowed())
        } else {
            Ok(())
        };
    };
    if policy.allowed.iter().any(|allowed| allowed == origin) {
        return Ok(());
    }
    let host = one(headers, &header::HOST)
        .ok()
        .flatten()
        .unwrap_or_default();
    let same_host = origin.split_once("://").is_some_and(|(scheme, rest)| {
        matches!(scheme, "http" | "https") && rest.eq_ignore_ascii_case(host)
    });
    if same_host && (key_presented || is_own_host(host, policy)) {
        Ok(())
    } else {
        Err(HttpRefusal::origin_not_allowed())
    }
}

fn is_own_host(authority: &str, policy: &OriginPolicy) -> bool {
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    };
    let loopback = host.eq_ignore_ascii_case("localhost")
        || host == "[::1]"
        || host
            .parse::<std::net::Ipv4Addr>()
            .is_ok_and(|address| address.is_loopback());
    loopback
        || policy
            .own_hosts
            .iter()
            .any(|own| own.eq_ignore_ascii_case(host))
}

/// The value of a header that may stand once. `Err` when it stands more often or is not text.
fn one<'a>(headers: &'a HeaderMap, name: &header::HeaderName) -> Result<Option<&'a str>, ()> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => value.to_str().map(Some).map_err(|_| ()),
        (Some(_), Some(_)) => Err(()),
    }
}

#[cfg(test)]
mod tests {
    use talkline_auth::{ClientKey, Secret};

    use super::*;

    const UPGRADE: &[(&str, &str)] = &[
        ("host", "relay.test"),
        ("upgrade", "websocket"),
        ("connection", "keep-alive, Upgrade"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];

    /// Replaces (or with an empty value removes, or with `+name` adds) headers of a good request.
    fn check(method: &str, target: &str, changes: &[(&str, &str)], expected: &str) {
        let keys = ClientKeys::new(vec![ClientKey::unrestricted("web", Secret::new("k-1"))]);
        check_with(&keys, method, target, changes, expected);
    }

    fn check_with(
        keys: &ClientKeys,
        method: &str,
        target: &str,
        changes: &[(&str, &str)],
        expected: &str,
    ) {
        let policy = OriginPolicy {
            allowed: vec!["https://app.test".into()],
            own_hosts: vec![],
        };
        let mut request = Request::builder().method(method).uri(target);
        for (name, value) in UPGRADE {
            if !changes.iter().any(|(changed, _)| changed == name) {
                request = request.header(*name, *value);
            }
        }
        for (name, value) in changes.iter().filter(|(_, value)| !value.is_empty()) {
            request = request.header(name.trim_start_matches('+'), *value);
        }
        let got = match admit(&request.body(()).unwrap(), keys, &policy) {
            Ok(admitted) => format!("{} {:?}", admitted.client.name(), admitted.ask.alias),
            Err(refusal) => format!("{} {}", refusal.status().as_u16(), refusal.code()),
        };
        assert_eq!(got, expected, "{method} {target} {changes:?}");
    }

    const KEY: (&str, &str) = ("api-key", "k-1");
    const PATH: &str = "/v1/realtime?model=m";

    #[test]
    fn upgrades() {
        check("GET", PATH, &[KEY], "web Some(\"m\")");
        check(
            "GET",
            PATH,
            &[KEY, ("upgrade", "WebSocket")],
            "web Some(\"m\")",
        );
        check("POST", PATH, &[KEY], "405 method_not_allowed");
        check("GET", PATH, &[KEY, ("upgrade", "")], "426 upgrade_required");
        check(
            "GET",
            PATH,
            &[KEY, ("upgrade", "h2c")],
            "426 upgrade_required",
        );
        check(
            "GET",
            PATH,
            &[KEY, ("connection", "close")],
            "400 bad_upgrade",
        );
        check(
            "GET",
            PATH,
            &[KEY, ("sec-websocket-version", "8")],
            "426 upgrade_required",
        );
        check(
            "GET",
            PATH,
            &[KEY, ("sec-websocket-version", "")],
            "426 upgrade_required",
        );
        check(
            "GET",
            PATH,
            &[KEY, ("+sec-websocket-version", "13")],
            "400 bad_upgrade",
        );
        check(
            "GET",
            PATH,
            &[KEY, ("sec-websocket-key", "")],
            "400 bad_upgrade",
        );
        check(
            "GET",
            PATH,
            &[KEY, ("sec-websocket-key", "c2hvcnQ=")],
            "400 bad_upgrade",
        );
        check(
            "GET",
            PATH,
            &[KEY, ("sec-websocket-key", "not base64!")],
            "400 bad_upgrade",
        );
        check(
            "GET",
            PATH,
            &[KEY, ("+sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")],
            "400 bad_upgrade",
        );
    }

    #[test]
    fn keys_come_before_models() {
        check(
            "GET",
            "/v1/realtime?model=%00",
            &[],
            "401 client_key_missing",
        );
        check("GET", "/v1/realtime?model=%00", &[KEY], "400 invalid_model");
        check(
            "GET",
            "/v1/realtime?model=m&api-key=k-1",
            &[],
            "400 client_key_in_query",
        );
        check("GET", PATH, &[("api-key", "k-2")], "401 client_key_unknown");
    }

    #[test]
    fn origins() {
        check(
            "GET",
            PATH,
            &[KEY, ("origin", "https://app.test")],
            "web Some(\"m\")",
        );
        check(
            "GET",
            PATH,
            &[KEY, ("origin", "https://relay.test")],
            "web Some(\"m\")",
        );
        for origin in [
            "https://evil.test",
            "null",
            "https://app.test.evil.test",
            "https://app.test:444",
            "https://APP.test",
        ] {
            check(
                "GET",
                PATH,
                &[KEY, ("origin", origin)],
                "403 origin_not_allowed",
            );
        }
        check(
            "GET",
            PATH,
            &[
                KEY,
                ("origin", "https://app.test"),
                ("+origin", "https://evil.test"),
            ],
            "403 origin_not_allowed",
        );
    }

    #[test]
    fn a_rebound_name_is_not_ours() {
        let open = ClientKeys::default().with_anonymous(true);
        let from = |host: &'static str, origin: &'static str| [("host", host), ("origin", origin)];
        check_with(
            &open,
            "GET",
            PATH,
            &from("evil.test", "http://evil.test"),
            "403 origin_not_allowed",
        );
        check_with(
            &open,
            "GET",
            PATH,
            &from("localhost:8080", "http://localhost:8080"),
            "anonymous Some(\"m\")",
        );
        check_with(
            &open,
            "GET",
            PATH,
            &from("[::1]:8080", "http://[::1]:8080"),
            "anonymous Some(\"m\")",
        );
        check_with(
            &open,
            "GET",
            PATH,
            &from("127.0.0.1:1", "http://127.0.0.1:2"),
            "403 origin_not_allowed",
        );
        check_with(&open, "GET", PATH, &[], "anonymous Some(\"m\")");
    }
}
