//! Limits of clients while sessions run: guesses, places, budgets, and every way out.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::Value;
use talkline_sim::{Misbehaviour, Refusal};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    task::JoinSet,
    time::timeout,
};

use crate::kit::{
    CLIENT_KEY, CROWD, Counter, DEPLOYMENT, PATIENCE, RawSession, Relay, azure, quick, simulator,
};

fn upgrade(authority: &str, key: &str) -> Vec<u8> {
    format!(
        "GET /v1/realtime?model={DEPLOYMENT} HTTP/1.1\r\nHost: {authority}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nAuthorization: Bearer {key}\r\n\r\n"
    )
    .into_bytes()
}

/// Asks for a session from an address on loopback; returns the status and the connection.
async fn start(authority: &str, from: [u8; 4], key: &str) -> (u16, TcpStream) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((from, 0).into()).unwrap();
    let mut stream = socket.connect(authority.parse().unwrap()).await.unwrap();
    stream.write_all(&upgrade(authority, key)).await.unwrap();
    let mut answer = Vec::new();
    while !answer.windows(4).any(|four| four == b"\r\n\r\n") {
        let read = timeout(PATIENCE, stream.read_buf(&mut answer)).await;
        if read.expect("an answer").unwrap_or(0) == 0 {
            break;
        }
    }
    let text = String::from_utf8_lossy(&answer);
    let status = text.get(9..12).and_then(|status| status.parse().ok());
    (status.unwrap_or(0), stream)
}

#[tokio::test]
async fn ten_thousand_guesses() {
    const GUESSES: usize = 10_000;
    const AT_ONCE: usize = 16;
    let sim = simulator().await;
    let relay = Relay::start(&azure(&sim.base_url())).await;
    let authority = relay.listener.clone();
    let next = Arc::new(AtomicUsize::new(0));
    let mut guessers = JoinSet::new();
    for _ in 0..AT_ONCE {
        let (authority, next) = (authority.clone(), Arc::clone(&next));
        guessers.spawn(async move {
            let mut counts = [0_usize; 3];
            loop {
                let guess = next.fetch_add(1, Ordering::Relaxed);
                if guess >= GUESSES {
                    return counts;
                }
                let key = format!("CANARY-CLIENT-KEY-{guess:04x}");
                match start(&authority, [127, 0, 0, 2], &key).await.0 {
                    401 => counts[0] += 1,
                    429 => counts[1] += 1,
                    _ => counts[2] += 1,
                }
            }
        });
    }
    // Somebody else is let in meanwhile.
    let mut let_in = 0;
    while next.load(Ordering::Relaxed) < GUESSES {
        let (status, session) = start(&authority, [127, 0, 0, 1], CLIENT_KEY).await;
        assert_eq!(status, 101);
        drop(session);
        let_in += 1;
    }
    let mut sums = [0; 3];
    while let Some(counts) = guessers.join_next().await {
        for (sum, count) in sums.iter_mut().zip(counts.unwrap()) {
            *sum += count;
        }
    }
    let [heard, unheard, others] = sums;
    // What is being looked at when the limit is reached is looked at to its end.
    assert!((10..10 + AT_ONCE).contains(&heard), "{heard}");
    assert_eq!((heard + unheard, others), (GUESSES, 0));
    assert!(let_in > 0);
    // The right key does not help a source that is not heard; its own limit is no other's.
    assert_eq!(start(&authority, [127, 0, 0, 2], CLIENT_KEY).await.0, 429);
    assert_eq!(start(&authority, [127, 0, 0, 3], CLIENT_KEY).await.0, 101);
    assert!(sim.requests().iter().all(|request| request.status == 101));
}

/// `cargo xtask conformance --crowd 1000` has a thousand rounds of this.
#[tokio::test]
async fn a_hundred_starts_at_once_against_a_limit_of_two() {
    const ROUNDS: usize = 30;
    let sim = simulator().await;
    let upstream = Counter::before(sim.addr()).await;
    let configuration = azure(&upstream.url) + "clients.access.test.maxSessions = 2\n" + CROWD;
    let relay = Relay::start(&configuration).await;
    let authority = relay.listener.clone();
    let mut full = 0;
    for round in 0..ROUNDS {
        upstream.idle().await;
        let dialled = upstream.dials();
        let mut starts = JoinSet::new();
        for _ in 0..100 {
            let authority = authority.clone();
            starts.spawn(async move { start(&authority, [127, 0, 0, 1], CLIENT_KEY).await });
        }
        let mut held = Vec::new();
        while let Some(started) = starts.join_next().await {
            match started.unwrap() {
                (101, stream) => held.push(stream),
                (429, _) => {}
                (status, _) => panic!("{status}"),
            }
        }
        let dialled = upstream.dials() - dialled;
        assert!(held.len() <= 2, "{} sessions in round {round}", held.len());
        assert_eq!(dialled, held.len(), "whoever is refused is not dialled for");
        full += usize::from(held.len() == 2);
        for stream in held {
            leave(stream).await;
        }
    }
    // A place comes back a moment after the connection that it was for has gone.
    assert!(full * 2 > ROUNDS, "{full} of {ROUNDS}");
}

/// Sends a close frame and waits until the relay hangs up.
async fn leave(mut stream: TcpStream) {
    let close = stream.write_all(&[0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8]);
    close.await.expect("the relay listens");
    let mut rest = Vec::new();
    let ended = timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
    let _ = ended.expect("the relay hangs up");
}

/// How a client ends a session, or never has one.
#[derive(Clone, Copy, Debug)]
enum Exit {
    /// Sends these bytes, then waits for the relay to hang up.
    Sends(&'static [u8]),
    /// Sends these bytes and hangs up.
    Leaves(&'static [u8]),
    /// Resets the connection.
    Resets,
    /// Hangs up right behind its request.
    LeavesEarly,
}

const CLIENT_EXITS: &[Exit] = &[
    Exit::Sends(&[0x88, 0x80, 0, 0, 0, 0]),
    Exit::Sends(&[0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8]),
    Exit::Sends(&[0x88, 0x82, 0, 0, 0, 0, 0x0f, 0xa0]),
    // Close frames that are none: one byte, a reserved code, bad UTF-8.
    Exit::Sends(&[0x88, 0x81, 0, 0, 0, 0, 0x03]),
    Exit::Sends(&[0x88, 0x82, 0, 0, 0, 0, 0x03, 0xed]),
    Exit::Sends(&[0x88, 0x83, 0, 0, 0, 0, 0x03, 0xe8, 0xff]),
    // Unmasked, a reserved bit, reserved opcodes, a fragmented ping, a continuation of nothing.
    Exit::Sends(&[0x81, 0x01, b'x']),
    Exit::Sends(&[0xc1, 0x81, 0, 0, 0, 0, b'x']),
    Exit::Sends(&[0x83, 0x80, 0, 0, 0, 0]),
    Exit::Sends(&[0x8b, 0x80, 0, 0, 0, 0]),
    Exit::Sends(&[0x09, 0x80, 0, 0, 0, 0]),
    Exit::Sends(&[0x80, 0x80, 0, 0, 0, 0]),
    // Bad UTF-8 in a text, and a frame larger than any may be.
    Exit::Sends(&[0x81, 0x81, 0, 0, 0, 0, 0xff]),
    Exit::Sends(&[0x82, 0xff, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]),
    Exit::Leaves(&[]),
    Exit::Leaves(&[0x81]),
    Exit::Leaves(&[0x81, 0x85, 0, 0, 0, 0, b'x']),
    Exit::Leaves(&[0x01, 0x81, 0, 0, 0, 0, b'x']),
    Exit::Resets,
    Exit::LeavesEarly,
];

/// Clients that have one place each, with the limit or policy by which the relay ends their sessions.
const ENDED_BY_THE_RELAY: &[(&str, &str)] = &[
    ("brief", "maxSessionDuration = \"1s\""),
    ("talker", "responsesPerSession = 1"),
    ("spender", "tokensPerSession = 1"),
    ("odd", "policy = \"kiosk\""),
];

/// An append that the relay passes on as it comes, until it turns out to be something else.
fn breach() -> Vec<u8> {
    let audio = "A".repeat(400);
    let text = format!(
        "{{\"type\":\"input_audio_buffer.append\",\"audio\":\"{audio}\",\"type\":\"session.update\"}}"
    );
    let mut frame = vec![0x81, 0xfe];
    frame.extend(u16::try_from(text.len()).unwrap().to_be_bytes());
    frame.extend([0; 4]);
    frame.extend(text.as_bytes());
    frame
}

const RESPONSE_CREATE: &[u8] = b"\x81\x9a\0\0\0\0{\"type\":\"response.create\"}";

/// The key of a client of [`ENDED_BY_THE_RELAY`].
fn key_of(client: &str) -> String {
    format!("CANARY-CLIENT-KEY-{client}-5d20e1")
}

/// Clients with one place each get it back, however their sessions end.
struct OnePlace {
    relay: Relay,
    exits: Vec<String>,
}

impl OnePlace {
    async fn open(&self, key: &str, model: &str) -> (u16, TcpStream) {
        let authority = &self.relay.listener;
        let request = String::from_utf8(upgrade(authority, key)).unwrap();
        let target = |model: &str| format!("/v1/realtime?model={model}");
        let request = request.replace(&target(DEPLOYMENT), &target(model));
        let mut stream = TcpStream::connect(authority).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let Ok(Ok(byte)) = timeout(PATIENCE, stream.read_u8()).await else {
                break;
            };
            head.push(byte);
        }
        let text = String::from_utf8_lossy(&head);
        let status = text.get(9..12).and_then(|status| status.parse().ok());
        (status.unwrap_or(0), stream)
    }

    /// Opens a session as soon as there is a place.
    async fn take(&self, key: &str, model: &str, when: &str) -> (u16, TcpStream) {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.open(key, model).await {
                (429, _) => assert!(Instant::now() < until, "no place {when}"),
                opened => return opened,
            }
        }
    }

    /// Waits until the place is free again, and takes it once.
    async fn expect_back(&mut self, key: &str, exit: String) {
        let (status, stream) = self.take(key, DEPLOYMENT, &format!("after {exit}")).await;
        assert_eq!(status, 101, "{exit}");
        leave(stream).await;
        self.exits.push(exit);
    }

    async fn client_leaves(&mut self, exit: Exit) {
        let name = format!("{exit:?}");
        if let Exit::LeavesEarly = exit {
            let authority = &self.relay.listener;
            let mut stream = TcpStream::connect(authority).await.unwrap();
            let request = upgrade(authority, CLIENT_KEY);
            stream.write_all(&request).await.unwrap();
            drop(stream);
            return self.expect_back(CLIENT_KEY, name).await;
        }
        let (status, mut stream) = self.take(CLIENT_KEY, DEPLOYMENT, "before it").await;
        assert_eq!(status, 101, "{name}");
        match exit {
            Exit::Sends(bytes) => {
                stream.write_all(bytes).await.unwrap();
                let mut rest = Vec::new();
                let ended = timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
                assert!(ended.is_ok(), "the relay does not hang up after {exit:?}");
            }
            Exit::Leaves(bytes) => stream.write_all(bytes).await.unwrap(),
            Exit::Resets => socket_resets(&stream),
            Exit::LeavesEarly => {}
        }
        drop(stream);
        self.expect_back(CLIENT_KEY, name).await;
    }

    /// The upstream ends it, or the client gives up on it.
    async fn upstream_fails(&mut self, name: &str) {
        let open = self.take(CLIENT_KEY, name, "before it");
        // One that stalls before its 101 is left.
        if let Ok((_, mut stream)) = timeout(Duration::from_secs(2), open).await {
            let mut rest = Vec::new();
            let read = stream.read_to_end(&mut rest);
            // Some upstreams keep their session: then the client is who ends it.
            let _ = timeout(Duration::from_millis(300), read).await;
        }
        self.expect_back(CLIENT_KEY, name.to_owned()).await;
    }

    /// The relay ends it, by a limit or a policy of the client's.
    async fn relay_ends(&mut self, client: &str, sent: &[u8]) {
        let key = key_of(client);
        let (status, mut stream) = self.take(&key, DEPLOYMENT, "before it").await;
        assert_eq!(status, 101, "{client}");
        stream.write_all(sent).await.unwrap();
        let mut rest = Vec::new();
        let ended = timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
        assert!(ended.is_ok(), "the relay does not end {client}");
        self.expect_back(&key, client.to_owned()).await;
    }
}

/// Dropping the stream then sends RST in place of FIN.
#[expect(deprecated, reason = "the linger of zero does not block")]
fn socket_resets(stream: &TcpStream) {
    stream.set_linger(Some(Duration::ZERO)).unwrap();
}

#[tokio::test]
async fn every_exit_gives_the_place_back() {
    let sim = quick().start().await.unwrap();
    let upstream = Counter::before(sim.addr()).await;
    let refusals = Refusal::all();
    let names: Vec<&str> = Misbehaviour::ALL
        .iter()
        .map(|it| it.name())
        .chain(refusals.iter().take(12).map(Refusal::name))
        .collect();
    let keys: Vec<String> = ENDED_BY_THE_RELAY
        .iter()
        .map(|(client, _)| {
            format!(
                "{{ name = \"{client}\", env = \"{}\" }}",
                client.to_uppercase()
            )
        })
        .collect();
    let only = "clients.keys = [";
    let mut configuration = azure(&upstream.url)
        .replace(only, &format!("{only}{}, ", keys.join(", ")))
        + "clients.defaults.maxSessions = 1\nlimits.upgradeTimeout = \"1s\"\n\
           admin.listen = \"127.0.0.1:0\"\npolicies.kiosk.instructions = \"Be kind.\"\n";
    for (client, limit) in ENDED_BY_THE_RELAY {
        configuration += &format!("clients.access.{client}.{limit}\n");
    }
    for name in &names {
        let provider = format!("talk.realtime.providers.{name}");
        configuration += &format!(
            "{provider}.type = \"azure-openai\"\n{provider}.azureEndpoint = \"{}\"\n\
             {provider}.azureDeployment = \"{name}\"\n{provider}.apiKey = {{ env = \"AZURE_KEY\" }}\n",
            upstream.url
        );
    }
    let variables: Vec<(String, String)> = ENDED_BY_THE_RELAY
        .iter()
        .map(|(client, _)| (client.to_uppercase(), key_of(client)))
        .collect();
    let variables: Vec<(&str, &str)> = variables
        .iter()
        .map(|(name, key)| (name.as_str(), key.as_str()))
        .collect();
    let relay = Relay::start_env(&configuration, &[], &variables).await;
    let mut place = OnePlace {
        relay,
        exits: Vec::new(),
    };
    for exit in CLIENT_EXITS {
        place.client_leaves(*exit).await;
    }
    for name in names {
        place.upstream_fails(name).await;
    }
    place.upstream_fails("no-such-model").await;
    place.relay_ends("brief", b"").await;
    place.relay_ends("talker", RESPONSE_CREATE).await;
    place.relay_ends("spender", RESPONSE_CREATE).await;
    place.relay_ends("odd", &breach()).await;

    let kinds = place.exits.len();
    place.exits.sort_unstable();
    place.exits.dedup();
    assert_eq!(place.exits.len(), kinds, "one kind was tried twice");
    assert_eq!(kinds, 51);
    upstream.idle().await;
    // The last session's task ends a moment after its sockets.
    let until = Instant::now() + PATIENCE;
    while place.relay.active().await > 0 {
        assert!(Instant::now() < until, "sessions are still counted");
    }
}

#[tokio::test]
async fn a_session_over_budget_is_told_and_ended() {
    let sim = simulator().await;
    let upstream = Counter::before(sim.addr()).await;
    let configuration = azure(&upstream.url) + "clients.access.test.responsesPerSession = 1\n";
    let relay = Relay::start(&configuration).await;
    let header = format!("Authorization: Bearer {CLIENT_KEY}\r\n");
    let target = format!("/v1/realtime?model={DEPLOYMENT}");
    let mut session = RawSession::open(relay.authority(), &target, &header).await;
    session.send(1, b"{\"type\":\"response.create\"}").await;
    let mut done = None;
    let told = loop {
        let event = session.event().await.json();
        match event["type"].as_str() {
            Some("response.done") => done = Some(Instant::now()),
            Some("error") => break event,
            _ => {}
        }
    };
    assert_eq!(
        told["error"]["code"],
        Value::from("session_response_budget")
    );
    let close = session.event().await;
    assert_eq!(close.close(), (1008, "session_response_budget"));
    upstream.idle().await;
    let took = done.expect("a response before the end").elapsed();
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert!(relay.log().await.contains("session_response_budget"));
}

#[tokio::test]
async fn a_days_budget_holds_for_the_next_session() {
    let sim = simulator().await;
    let configuration = azure(&sim.base_url()) + "clients.access.test.tokensPerDay = 1\n";
    let relay = Relay::start(&configuration).await;
    let header = format!("Authorization: Bearer {CLIENT_KEY}\r\n");
    let target = format!("/v1/realtime?model={DEPLOYMENT}");
    let mut session = RawSession::open(relay.authority(), &target, &header).await;
    session.send(1, b"{\"type\":\"response.create\"}").await;
    loop {
        let frame = session.event().await;
        if frame.opcode == 8 {
            assert_eq!(frame.close(), (1008, "daily_token_budget"));
            break;
        }
    }
    let (status, _) = start(&relay.listener, [127, 0, 0, 1], CLIENT_KEY).await;
    assert_eq!(status, 429);
    assert_eq!(sim.requests().len(), 1);
}
