use talkline_auth::{ClientKey, FailureRules, Grant, RingKey, Secret};

use super::*;
use crate::{
    dial::{DialTimeouts, Dialer},
    tls,
};

const UPGRADE: &[(&str, &str)] = &[
    ("host", "relay.test"),
    ("upgrade", "websocket"),
    ("connection", "keep-alive, Upgrade"),
    ("sec-websocket-version", "13"),
    ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

fn gate(clients: ClientKeys, names: Names, allowed: &[&str], own: &[&str]) -> Gate {
    let timeouts = DialTimeouts {
        dns: Duration::ZERO,
        tcp: Duration::ZERO,
        tls: Duration::ZERO,
        upgrade: Duration::ZERO,
    };
    let owned = |list: &[&str]| list.iter().map(|&it| it.to_owned()).collect();
    let dialer = Dialer::new(tls::client_config().unwrap(), timeouts, Vec::new());
    Gate::new(GateParts {
        jwks: Jwks::new(clients.issuers(), dialer),
        clients,
        ring: KeyRing::new(vec![RingKey::ephemeral(&[7; 32])], "test").unwrap(),
        token_lifetime: Duration::from_secs(60),
        origins: OriginPolicy {
            allowed: owned(allowed),
            own_hosts: owned(own),
        },
        names,
        proxies: TrustedProxies::default(),
        failures: FailureRules::default(),
    })
}

fn keys() -> ClientKeys {
    ClientKeys::new(vec![ClientKey::unrestricted("web", Secret::new("k-1"))])
}

fn peer() -> Peer {
    Peer {
        address: ([192, 0, 2, 1], 4711).into(),
        tls: false,
    }
}

/// Replaces (or with an empty value removes, or with `+name` adds) headers of a good request.
fn request(method: &str, target: &str, changes: &[(&str, &str)]) -> Request<()> {
    let mut request = Request::builder().method(method).uri(target);
    for (name, value) in UPGRADE {
        if !changes.iter().any(|(changed, _)| changed == name) {
            request = request.header(*name, *value);
        }
    }
    for (name, value) in changes.iter().filter(|(_, value)| !value.is_empty()) {
        request = request.header(name.trim_start_matches('+'), *value);
    }
    request.body(()).unwrap()
}

async fn verdict(gate: &Gate, request: &Request<()>) -> String {
    let admitted = match gate.arrive(request.headers(), peer()) {
        Ok(arrival) => admit(request, &arrival, gate).await,
        Err(refusal) => Err(refusal),
    };
    match admitted {
        Ok(admitted) => format!("{} {:?}", admitted.who.client.name(), admitted.ask.alias),
        Err(refusal) => format!("{} {}", refusal.status().as_u16(), refusal.code()),
    }
}

async fn check(method: &str, target: &str, changes: &[(&str, &str)], expected: &str) {
    check_with(keys(), method, target, changes, expected).await;
}

async fn check_with(
    clients: ClientKeys,
    method: &str,
    target: &str,
    changes: &[(&str, &str)],
    expected: &str,
) {
    let gate = gate(clients, Names::Any, &["https://app.test"], &[]);
    let got = verdict(&gate, &request(method, target, changes)).await;
    assert_eq!(got, expected, "{method} {target} {changes:?}");
}

const KEY: (&str, &str) = ("api-key", "k-1");
const PATH: &str = "/v1/realtime?model=m";

#[tokio::test]
async fn upgrades() {
    check("GET", PATH, &[KEY], "web Some(\"m\")").await;
    check(
        "GET",
        PATH,
        &[KEY, ("upgrade", "WebSocket")],
        "web Some(\"m\")",
    )
    .await;
    check("POST", PATH, &[KEY], "405 method_not_allowed").await;
    check("GET", PATH, &[KEY, ("upgrade", "")], "426 upgrade_required").await;
    check(
        "GET",
        PATH,
        &[KEY, ("upgrade", "h2c")],
        "426 upgrade_required",
    )
    .await;
    check(
        "GET",
        PATH,
        &[KEY, ("connection", "close")],
        "400 bad_upgrade",
    )
    .await;
    check(
        "GET",
        PATH,
        &[KEY, ("sec-websocket-version", "8")],
        "426 upgrade_required",
    )
    .await;
    check(
        "GET",
        PATH,
        &[KEY, ("sec-websocket-version", "")],
        "426 upgrade_required",
    )
    .await;
    check(
        "GET",
        PATH,
        &[KEY, ("+sec-websocket-version", "13")],
        "400 bad_upgrade",
    )
    .await;
    check(
        "GET",
        PATH,
        &[KEY, ("sec-websocket-key", "")],
        "400 bad_upgrade",
    )
    .await;
    check(
        "GET",
        PATH,
        &[KEY, ("sec-websocket-key", "c2hvcnQ=")],
        "400 bad_upgrade",
    )
    .await;
    check(
        "GET",
        PATH,
        &[KEY, ("sec-websocket-key", "not base64!")],
        "400 bad_upgrade",
    )
    .await;
    check(
        "GET",
        PATH,
        &[KEY, ("+sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")],
        "400 bad_upgrade",
    )
    .await;
}

#[tokio::test]
async fn keys_come_before_models() {
    check(
        "GET",
        "/v1/realtime?model=%00",
        &[],
        "401 client_key_missing",
    )
    .await;
    check("GET", "/v1/realtime?model=%00", &[KEY], "400 invalid_model").await;
    check(
        "GET",
        "/v1/realtime?model=m&api-key=k-1",
        &[],
        "400 client_key_in_query",
    )
    .await;
    check("GET", PATH, &[("api-key", "k-2")], "401 client_key_unknown").await;
}

#[tokio::test]
async fn origins() {
    check(
        "GET",
        PATH,
        &[KEY, ("origin", "https://app.test")],
        "web Some(\"m\")",
    )
    .await;
    check(
        "GET",
        PATH,
        &[KEY, ("origin", "https://relay.test")],
        "web Some(\"m\")",
    )
    .await;
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
        )
        .await;
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
    )
    .await;
}

#[tokio::test]
async fn a_rebound_name_is_not_ours() {
    let open = ClientKeys::default().with_anonymous(true);
    let from = |host: &'static str, origin: &'static str| [("host", host), ("origin", origin)];
    check_with(
        open.clone(),
        "GET",
        PATH,
        &from("evil.test", "http://evil.test"),
        "403 origin_not_allowed",
    )
    .await;
    check_with(
        open.clone(),
        "GET",
        PATH,
        &from("localhost:8080", "http://localhost:8080"),
        "anonymous Some(\"m\")",
    )
    .await;
    check_with(
        open.clone(),
        "GET",
        PATH,
        &from("[::1]:8080", "http://[::1]:8080"),
        "anonymous Some(\"m\")",
    )
    .await;
    check_with(
        open.clone(),
        "GET",
        PATH,
        &from("127.0.0.1:1", "http://127.0.0.1:2"),
        "403 origin_not_allowed",
    )
    .await;
    check_with(open.clone(), "GET", PATH, &[], "anonymous Some(\"m\")").await;
}

/// Host and origin, where the relay's names are known or not, and an origin list.
async fn check_names(names: Names, allowed: &[&str], host: &str, origin: &str, expected: &str) {
    let gate = gate(
        keys().with_anonymous(true),
        names,
        allowed,
        &["relay.test", "other.test:8443"],
    );
    let request = request("GET", PATH, &[("host", host), ("origin", origin)]);
    let got = verdict(&gate, &request).await;
    assert_eq!(got, expected, "{names:?} {allowed:?} {host} {origin}");
}

const IN: &str = "anonymous Some(\"m\")";

#[tokio::test]
async fn a_relay_on_loopback_has_known_names() {
    for host in [
        "localhost",
        "localhost:8080",
        "127.0.0.1:1",
        "127.9.9.9",
        "[::1]:8080",
        "relay.test",
        "RELAY.test:80",
        "other.test:8443",
    ] {
        check_names(Names::Known, &[], host, "", IN).await;
    }
    for host in [
        "attacker.test",
        "relay.test.evil.test",
        "localhost.evil.test",
        "other.test",
        "127.0.0.1.evil.test",
        "[::2]",
    ] {
        check_names(Names::Known, &[], host, "", "403 host_not_allowed").await;
        check_names(Names::Any, &[], host, "", IN).await;
    }
    for host in ["a b", "a/b", "a@b", "a,b"] {
        check_names(Names::Any, &[], host, "", "400 malformed_request").await;
    }
}

#[tokio::test]
async fn a_listed_origin_of_this_host_says_which_scheme_is_meant() {
    check_names(Names::Any, &[], "relay.test", "http://relay.test", IN).await;
    check_names(Names::Any, &[], "relay.test", "https://relay.test", IN).await;
    let listed = &["https://relay.test"];
    check_names(Names::Any, listed, "relay.test", "https://relay.test", IN).await;
    check_names(
        Names::Any,
        listed,
        "relay.test",
        "http://relay.test",
        "403 origin_not_allowed",
    )
    .await;
    check_names(
        Names::Any,
        listed,
        "relay.test",
        "ftp://relay.test",
        "403 origin_not_allowed",
    )
    .await;
    check_names(Names::Any, listed, "localhost:1", "http://localhost:1", IN).await;
}

fn token(gate: &Gate, grant: &Grant) -> String {
    let minted = gate
        .ring
        .mint(grant, Duration::from_secs(60), SystemTime::now(), [1; 16]);
    minted.unwrap().secret.expose().to_owned()
}

#[tokio::test]
async fn tokens_are_bound_to_what_they_were_made_for() {
    let gate = gate(
        keys(),
        Names::Any,
        &["https://app.test", "https://b.test"],
        &[],
    );
    let grant = Grant {
        model: Some("m".into()),
        origin: Some("https://app.test".into()),
        ..Grant::new("web")
    };
    let check = async |grant: &Grant, target: &str, origin: &str, expected: &str| {
        let protocols = format!("realtime, openai-insecure-api-key.{}", token(&gate, grant));
        let changes = [
            ("sec-websocket-protocol", protocols.as_str()),
            ("origin", origin),
        ];
        let got = verdict(&gate, &request("GET", target, &changes)).await;
        assert_eq!(got, expected, "{target} {origin}");
    };
    check(
        &grant,
        "/v1/realtime",
        "https://app.test",
        "web Some(\"m\")",
    )
    .await;
    check(&grant, PATH, "https://app.test", "web Some(\"m\")").await;
    check(
        &grant,
        "/v1/realtime?model=n",
        "https://app.test",
        "403 client_token_model",
    )
    .await;
    check(&grant, PATH, "https://b.test", "403 client_token_origin").await;
    check(&grant, PATH, "", "403 client_token_origin").await;
    check(&Grant::new("web"), PATH, "", "web Some(\"m\")").await;
    check(
        &Grant::new("gone"),
        PATH,
        "",
        "401 client_token_client_unknown",
    )
    .await;
}

#[tokio::test]
async fn ten_thousand_guesses_are_ten() {
    let gate = gate(keys(), Names::Any, &[], &[]);
    let mut counts = std::collections::BTreeMap::new();
    for guess in 0..10_000 {
        let guess = format!("k-{guess:05}");
        let got = verdict(&gate, &request("GET", PATH, &[("api-key", &guess)])).await;
        *counts.entry(got).or_insert(0) += 1;
    }
    let expected = [
        ("401 client_key_unknown", 10),
        ("429 too_many_failures", 9_990),
    ];
    assert_eq!(
        counts,
        expected.map(|(got, count)| (got.to_owned(), count)).into()
    );
    // The right key does not help either: the source is not heard.
    let right = request("GET", PATH, &[KEY]);
    assert_eq!(verdict(&gate, &right).await, "429 too_many_failures");
    let elsewhere = Peer {
        address: ([192, 0, 2, 2], 1).into(),
        tls: false,
    };
    let arrival = gate.arrive(right.headers(), elsewhere).unwrap();
    assert!(admit(&right, &arrival, &gate).await.is_ok());
}

/// Whatever credentials a request carries together, it counts as one failure or as none.
#[tokio::test]
async fn every_failure_counts_once() {
    let wrong_token = format!("ek_{}", "eyJhbGciOiJub25lIn0.e30.");
    let wrong = [
        "",
        "Bearer nope",
        "Basic eDp5",
        "nope",
        &format!("Bearer {wrong_token}"),
        "Bearer eyJhbGciOiJSUzI1NiJ9.e30.x",
    ];
    let api_keys = ["", "nope", "k-2"];
    let offers = [
        "",
        "realtime",
        "openai-insecure-api-key.nope",
        "openai-insecure-api-key.a, openai-insecure-api-key.b",
    ];
    let targets = [PATH, "/v1/realtime?api-key=k-1", "/v1/realtime?model=%00"];
    for authorization in wrong {
        for api_key in api_keys {
            for offer in offers {
                for target in targets {
                    let gate = gate(keys(), Names::Any, &[], &[]);
                    let changes = [
                        ("authorization", authorization),
                        ("api-key", api_key),
                        ("sec-websocket-protocol", offer),
                    ];
                    let request = request("GET", target, &changes);
                    for _ in 0..10 {
                        let got = verdict(&gate, &request).await;
                        assert!(got.starts_with("40"), "{target} {changes:?}: {got}");
                    }
                    let got = verdict(&gate, &request).await;
                    assert_eq!(got, "429 too_many_failures", "{target} {changes:?}");
                }
            }
        }
    }
}
