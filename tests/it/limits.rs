//! Limits of clients while sessions run: guesses, places, budgets, and every way out.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::Value;
use talkline_sim::{Misbehaviour, Refusal};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::{TcpListener, TcpSocket, TcpStream},
    task::JoinSet,
    time::timeout,
};

use crate::kit::{
    CLIENT_KEY, CROWD, DEPLOYMENT, PATIENCE, RawSession, Relay, azure, quick, simulator,
};

/// A way to the simulator that counts who takes it.
struct Counter {
    url: String,
    dials: Arc<AtomicUsize>,
}

impl Counter {
    async fn before(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let dials = Arc::<AtomicUsize>::default();
        let counted = Arc::clone(&dials);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(async move {
                    if let Ok(mut far) = TcpStream::connect(upstream).await {
                        let _ = copy_bidirectional(&mut stream, &mut far).await;
                    }
                });
            }
        });
        Self { url, dials }
    }
}

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
    assert_eq!(sums, [10, GUESSES - 10, 0], "401, 429, anything else");
    assert!(let_in > 0);
    // The right key does not help a source that is not heard; its own limit is no other's.
    assert_eq!(start(&authority, [127, 0, 0, 2], CLIENT_KEY).await.0, 429);
    assert_eq!(start(&authority, [127, 0, 0, 3], CLIENT_KEY).await.0, 101);
    assert!(sim.requests().iter().all(|request| request.status == 101));
}

#[tokio::test]
async fn a_hundred_starts_at_once_against_a_limit_of_two() {
    let sim = simulator().await;
    let upstream = Counter::before(sim.addr()).await;
    let configuration = azure(&upstream.url) + "clients.access.test.maxSessions = 2\n" + CROWD;
    let relay = Relay::start(&configuration).await;
    let authority = relay.listener.clone();
    let deadline = Instant::now() + Duration::from_secs(15);
    let (mut rounds, mut full) = (0, 0);
    while rounds == 0 || Instant::now() < deadline {
        let dialled = upstream.dials.load(Ordering::SeqCst);
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
        let dialled = upstream.dials.load(Ordering::SeqCst) - dialled;
        assert!(held.len() <= 2, "{} sessions in round {rounds}", held.len());
        assert_eq!(dialled, held.len(), "whoever is refused is not dialled for");
        rounds += 1;
        full += usize::from(held.len() == 2);
        for mut stream in held {
            // A close frame, and then all that comes until the relay hangs up.
            let closed = stream
                .write_all(&[0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8])
                .await;
            closed.expect("the relay listens");
            let mut rest = Vec::new();
            let _ = timeout(PATIENCE, stream.read_to_end(&mut rest))
                .await
                .expect("it hangs up");
        }
    }
    println!("{rounds} rounds of 100, in {full} of them both places were taken");
    assert!(full * 2 > rounds, "{full} of {rounds}");
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

/// A client with one place gets it back, however its session ended.
struct OnePlace {
    relay: Relay,
    exits: usize,
}

impl OnePlace {
    fn target(model: &str) -> String {
        format!("/v1/realtime?model={model}")
    }

    async fn open(&self, model: &str) -> (u16, TcpStream) {
        let authority = &self.relay.listener;
        let request = String::from_utf8(upgrade(authority, CLIENT_KEY)).unwrap();
        let request = request.replace(&Self::target(DEPLOYMENT), &Self::target(model));
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
        (
            text.get(9..12)
                .and_then(|status| status.parse().ok())
                .unwrap_or(0),
            stream,
        )
    }

    /// Waits until the place is free again, and takes it once.
    async fn expect_back(&mut self, after: &str) {
        let until = Instant::now() + PATIENCE;
        loop {
            let (status, mut stream) = self.open(DEPLOYMENT).await;
            if status == 101 {
                stream.write_all(&[0x88, 0x80, 0, 0, 0, 0]).await.unwrap();
                let mut rest = Vec::new();
                let _ = timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
                break;
            }
            assert_eq!(status, 429, "{after}");
            assert!(
                Instant::now() < until,
                "the place does not come back after {after}"
            );
        }
        self.exits += 1;
    }

    async fn client_leaves(&mut self, exit: Exit) {
        let until = Instant::now() + PATIENCE;
        if let Exit::LeavesEarly = exit {
            let authority = &self.relay.listener;
            let mut stream = TcpStream::connect(authority).await.unwrap();
            stream
                .write_all(&upgrade(authority, CLIENT_KEY))
                .await
                .unwrap();
            drop(stream);
            return self.expect_back("leaving early").await;
        }
        let mut stream = loop {
            match self.open(DEPLOYMENT).await {
                (101, stream) => break stream,
                (status, _) => assert_eq!(status, 429, "{exit:?}"),
            }
            assert!(Instant::now() < until, "no place before {exit:?}");
        };
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
        self.expect_back(&format!("{exit:?}")).await;
    }

    /// The upstream ends it, or the client gives up on it.
    async fn upstream_fails(&mut self, name: &str) {
        let until = Instant::now() + PATIENCE;
        loop {
            let opened = timeout(Duration::from_secs(2), self.open(name)).await;
            match opened {
                Ok((429, _)) => assert!(Instant::now() < until, "no place before {name}"),
                Ok((_, mut stream)) => {
                    let mut rest = Vec::new();
                    let read = stream.read_to_end(&mut rest);
                    // Some upstreams keep their session: then the client is who ends it.
                    let _ = timeout(Duration::from_millis(300), read).await;
                    break;
                }
                // It stalls before its 101; the client has left.
                Err(_) => break,
            }
        }
        self.expect_back(name).await;
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
    let refusals = Refusal::all();
    let names: Vec<&str> = Misbehaviour::ALL
        .iter()
        .map(|it| it.name())
        .chain(refusals.iter().take(12).map(Refusal::name))
        .collect();
    let mut configuration = azure(&sim.base_url())
        + "clients.access.test.maxSessions = 1\nlimits.upgradeTimeout = \"1s\"\n";
    for name in &names {
        let provider = format!("talk.realtime.providers.{name}");
        configuration += &format!(
            "{provider}.type = \"azure-openai\"\n{provider}.azureEndpoint = \"{}\"\n\
             {provider}.azureDeployment = \"{name}\"\n{provider}.apiKey = {{ env = \"AZURE_KEY\" }}\n",
            sim.base_url()
        );
    }
    let relay = Relay::start(&configuration).await;
    let mut place = OnePlace { relay, exits: 0 };
    for exit in CLIENT_EXITS {
        place.client_leaves(*exit).await;
    }
    for name in names {
        place.upstream_fails(name).await;
    }
    place.upstream_fails("no-such-model").await;
    assert!(place.exits >= 30, "{}", place.exits);
}

#[tokio::test]
async fn a_session_over_budget_is_told_and_ended() {
    let sim = simulator().await;
    let configuration = azure(&sim.base_url()) + "clients.access.test.responsesPerSession = 1\n";
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
    let (code, reason) = (
        session.event().await,
        done.expect("a response before the end").elapsed(),
    );
    assert_eq!(code.close(), (1008, "session_response_budget"));
    assert!(reason < Duration::from_secs(2), "{reason:?}");
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
