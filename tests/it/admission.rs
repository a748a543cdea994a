//! Who is let in, seen from outside.

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    time::{Instant, timeout},
};

use crate::kit::{CLIENT_KEY, PATIENCE, RawSession, Relay, azure, raw, simulator};

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
    let two_keys = format!("{key}Authorization: Bearer another\r\n");
    let offered_too =
        format!("{key}Sec-WebSocket-Protocol: realtime, openai-insecure-api-key.another\r\n");
    let twice = format!("{key}{key}");
    let cookie = format!("Cookie: api-key={CLIENT_KEY}\r\n");
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
        ("/v1/realtime", &two_keys, "400", "client_key_conflict"),
        ("/v1/realtime", &offered_too, "400", "client_key_conflict"),
        ("/v1/realtime", &twice, "400", "client_key_conflict"),
        ("/v1/realtime", &cookie, "401", "client_key_missing"),
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

async fn connect(authority: &str, from: [u8; 4]) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((from, 0).into()).unwrap();
    socket.connect(authority.parse().unwrap()).await.unwrap()
}

/// What a connection says to a request for its health, to the end; nothing when it was hung up on.
async fn health(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let asked = stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n");
    if asked.await.is_ok() {
        let read = stream.read_to_end(&mut answer);
        let _ = timeout(PATIENCE, read).await.expect("an end");
    }
    String::from_utf8_lossy(&answer).into_owned()
}

/// Who says nothing holds a place among strangers, of which there are few in all and for each source.
#[tokio::test]
async fn strangers_are_few_at_a_time() {
    let bounds = "limits.maxHandshakesPerSource = 3\nlimits.maxHandshakes = 5\n\
                  limits.clientHandshakeTimeout = \"30s\"\nserver.threads = 1\n";
    let relay = Relay::start(&(azure("http://127.0.0.1:1") + bounds)).await;
    let authority = relay.listener.as_str();
    let (one, other, third) = ([127, 0, 0, 2], [127, 0, 0, 3], [127, 0, 0, 4]);
    // One thread accepts connections in the order in which they were made, some time after it.
    let eventually = async |heard: bool, from: [u8; 4], what: &str| {
        let until = Instant::now() + PATIENCE;
        loop {
            let answer = health(&mut connect(authority, from).await).await;
            if answer.starts_with("HTTP/1.1 200 ") == heard {
                return;
            }
            assert!(Instant::now() < until, "{what}: {answer:?}");
        }
    };
    let mut silent = Vec::new();
    for from in [one, one, one] {
        silent.push(connect(authority, from).await);
    }
    eventually(false, one, "a fourth of one source is heard").await;
    for from in [other, other] {
        silent.push(connect(authority, from).await);
    }
    eventually(false, third, "a sixth of all is heard").await;
    // Those who have a place are heard, and give it back.
    for mut stream in silent {
        let answer = health(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer:?}");
    }
    for from in [one, third] {
        eventually(true, from, "the places do not come back").await;
    }
}

/// The clients of a front end are told apart by what it says, and nobody else's word counts.
#[tokio::test]
async fn strangers_behind_a_front_end_are_few_each() {
    const NO_BODY: &str = "Content-Length: 0\r\n";
    let bounds = "limits.maxHandshakesPerSource = 2\nserver.trustedProxies = [\"127.0.0.9/32\"]\n";
    let relay = Relay::start(&(azure("http://127.0.0.1:1") + bounds)).await;
    let authority = relay.listener.as_str();
    let ask = async |from: [u8; 4], client: &str, more: &str| {
        let mut stream = connect(authority, from).await;
        let request = format!(
            "POST /talk/session HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: {client}\r\n\
             Authorization: Bearer {CLIENT_KEY}\r\nContent-Type: application/json\r\n{more}\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        stream
    };
    let status = async |mut stream: TcpStream| {
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer);
        let _ = timeout(PATIENCE, read).await.expect("an end");
        String::from_utf8_lossy(&answer)
            .get(9..12)
            .map(str::to_owned)
    };
    let (proxy, stranger) = ([127, 0, 0, 9], [127, 0, 0, 2]);
    // A request whose body does not come has its place; that it is asked for says so.
    let mut held = Vec::new();
    for _ in 0..2 {
        let body = "Content-Length: 2\r\nExpect: 100-continue\r\n";
        let mut stream = ask(proxy, "203.0.113.7", body).await;
        let mut asked = [0; 25];
        let read = timeout(PATIENCE, stream.read_exact(&mut asked)).await;
        read.expect("it is asked for its body").unwrap();
        assert_eq!(&asked, b"HTTP/1.1 100 Continue\r\n\r\n");
        held.push(stream);
    }
    let third = status(ask(proxy, "203.0.113.7", NO_BODY).await).await;
    assert_eq!(third.as_deref(), Some("429"));
    let another = status(ask(proxy, "203.0.113.8", NO_BODY).await).await;
    assert_eq!(another.as_deref(), Some("200"));
    let liar = status(ask(stranger, "203.0.113.7", NO_BODY).await).await;
    assert_eq!(liar.as_deref(), Some("200"), "by its own address");
    for mut stream in held {
        stream.write_all(b"{}").await.unwrap();
        assert_eq!(status(stream).await.as_deref(), Some("200"));
    }
}
