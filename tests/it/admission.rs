//! Who is let in, seen from outside.

use crate::kit::{CLIENT_KEY, RawSession, Relay, azure, raw, simulator};

fn upgrade(target: &str, headers: &str) -> Vec<u8> {
    format!(
        "GET {target} HTTP/1.1\r\nHost: relay.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
    )
    .into_bytes()
}

#[tokio::test]
async fn refusals_come_before_anything_upstream() {
    let sim = simulator().await;
    let relay = Relay::start(&azure(&sim.base_url())).await;
    let key = format!("api-key: {CLIENT_KEY}\r\n");
    let long = format!("{key}X: {}\r\n", "a".repeat(20_000));
    let cases: &[(&str, &str, &str, &str)] = &[
        ("/v1/realtime", "", "401", "client_key_missing"),
        (
            "/v1/realtime",
            "Authorization: Bearer wrong\r\n",
            "401",
            "client_key_unknown",
        ),
        (
            "/v1/realtime",
            "Sec-WebSocket-Protocol: realtime, openai-insecure-api-key.wrong\r\n",
            "401",
            "client_key_unknown",
        ),
        ("/v1/realtime?api-key=x", &key, "400", "client_key_in_query"),
        (
            "/v1/realtime?model=a&model=b",
            &key,
            "400",
            "ambiguous_parameter",
        ),
        ("/v1/realtime?model=..%2f..", &key, "400", "invalid_model"),
        ("/v1/models", &key, "404", "unknown_path"),
        ("/v1/../admin", &key, "404", "unknown_path"),
        ("/v1/realtime", &long, "431", "head_too_large"),
    ];
    for (target, headers, status, code) in cases {
        let answer = raw(relay.authority(), &upgrade(target, headers)).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{target} {answer}"
        );
        assert!(
            answer.contains(&format!("\"code\":\"{code}\"")),
            "{target} {answer}"
        );
        assert!(
            answer.to_lowercase().contains("connection: close\r\n"),
            "{answer}"
        );
        assert!(!answer.to_lowercase().contains("\r\nserver:"), "{answer}");
        let body = answer.split_once("\r\n\r\n").unwrap().1;
        assert!(body.len() <= 512, "{body}");
    }
    assert_eq!(sim.requests().len(), 0);
}

#[tokio::test]
async fn one_connection_is_one_request() {
    let sim = simulator().await;
    let relay = Relay::start(&azure(&sim.base_url())).await;
    let mut two = upgrade("/v1/models", "");
    two.extend(upgrade(
        "/v1/realtime",
        &format!("api-key: {CLIENT_KEY}\r\n"),
    ));
    let answer = raw(relay.authority(), &two).await;
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
    assert_eq!(sim.requests().len(), 0);
}

#[tokio::test]
async fn only_the_realtime_subprotocol_is_echoed() {
    let sim = simulator().await;
    let relay = Relay::start(&azure(&sim.base_url())).await;
    let offers = [
        (
            format!("realtime, openai-insecure-api-key.{CLIENT_KEY}"),
            Some("realtime"),
        ),
        (format!("openai-insecure-api-key.{CLIENT_KEY}"), None),
    ];
    for (offer, chosen) in offers {
        let headers = format!(
            "Sec-WebSocket-Protocol: {offer}\r\nSec-WebSocket-Extensions: permessage-deflate\r\n"
        );
        let session = RawSession::open(relay.authority(), "/v1/realtime", &headers).await;
        assert!(
            session.head.starts_with("HTTP/1.1 101 "),
            "{}",
            session.head
        );
        let head = session.head.to_lowercase();
        let echoed = head
            .lines()
            .find_map(|line| line.strip_prefix("sec-websocket-protocol: "));
        assert_eq!(echoed, chosen);
        assert!(!head.contains("sec-websocket-extensions"), "{head}");
        assert!(!session.head.contains(CLIENT_KEY));
    }
}

#[tokio::test]
async fn health_is_asked_without_a_key() {
    let sim = simulator().await;
    let relay = Relay::start(&azure(&sim.base_url())).await;
    for path in ["/healthz", "/readyz"] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
        let answer = raw(relay.authority(), request.as_bytes()).await;
        assert!(
            answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("ok\n"),
            "{answer}"
        );
    }
    let answer = raw(
        relay.authority(),
        b"TRACE /healthz HTTP/1.1\r\nHost: a\r\n\r\n",
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
}

#[tokio::test]
async fn anonymous_clients_on_loopback_when_said() {
    let sim = simulator().await;
    let configuration = azure(&sim.base_url()).replace(
        "clients.keys = [{ name = \"test\", env = \"CLIENT_KEY\" }]",
        "clients.allowAnonymous = true",
    );
    let relay = Relay::start(&configuration).await;
    let mut session = RawSession::open(relay.authority(), "/v1/realtime", "").await;
    assert_eq!(session.event().await.json()["type"], "session.created");
}
