//! One process ends and another begins, and nobody is refused in between.

use std::time::{Duration, Instant};

use talkline_sim::Pace;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
    time::{interval, timeout},
};

use crate::{
    kit::{CLIENT_KEY, CROWD, PATIENCE, RawSession, Relay, azure, quick, simulator},
    reload::{MOMENT, inheriting, is_alive, open, path},
};

fn authorized() -> String {
    format!("api-key: {CLIENT_KEY}\r\n")
}

/// How a session ended that was open when the relay was told to end.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// By the client's own close, answered.
    Natural,
    /// By the relay's event and its close.
    Told,
}

/// Opens sessions, tells the relay to end, lets half of them end by themselves within the grace.
async fn drain(sessions: usize, grace: Duration) {
    raise_descriptor_limit();
    let sim = simulator().await;
    let configuration = azure(&sim.base_url())
        + CROWD
        + &format!(
            "limits.drainGrace = \"{}ms\"\nlimits.maxSessions = {}\n",
            grace.as_millis(),
            sessions + 1
        );
    let mut relay = Relay::start(&configuration).await;
    let authority = relay.authority().to_owned();
    let mut opening = JoinSet::new();
    let mut open_sessions = Vec::new();
    for _ in 0..sessions {
        // Fewer at a time than may be admitted at a time.
        if opening.len() == 64 {
            open_sessions.push(opening.join_next().await.unwrap().unwrap());
        }
        let authority = authority.clone();
        opening.spawn(async move { open(&authority, &authorized()).await });
    }
    open_sessions.extend(opening.join_all().await);

    let begun = Instant::now();
    relay.signal("-TERM");
    let mut ending = JoinSet::new();
    for (index, mut session) in open_sessions.into_iter().enumerate() {
        let natural = index % 2 == 0;
        // Spread over the first four fifths of the grace.
        let after = grace * 4 / 5 * index as u32 / sessions as u32;
        ending.spawn(async move {
            if natural {
                tokio::time::sleep(after).await;
                is_alive(&mut session).await;
                session.send(8, &1000_u16.to_be_bytes()).await;
                assert_eq!(session.event().await.close().0, 1000);
                return End::Natural;
            }
            let event = session.event().await.json();
            assert_eq!(event["error"]["code"], "relay_shutting_down", "{event}");
            assert_eq!(session.event().await.close(), (1001, "relay_shutting_down"));
            session.send(8, &1001_u16.to_be_bytes()).await;
            End::Told
        });
    }
    let status = relay.exit_status();
    let (status, ends) = tokio::join!(status, ending.join_all());
    let took = begun.elapsed();
    assert_eq!(status.code(), Some(0));
    let natural = ends.iter().filter(|end| **end == End::Natural).count();
    assert_eq!((natural, ends.len()), (sessions.div_ceil(2), sessions));
    assert!(
        took >= grace && took <= grace + Duration::from_secs(1),
        "{took:?}"
    );
}

/// A test process has sockets on both sides of the relay.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};

    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
}

#[tokio::test]
async fn a_thousand_sessions_drain() {
    drain(1_000, Duration::from_secs(10)).await;
}

#[tokio::test]
async fn a_hundred_sessions_drain() {
    drain(100, Duration::from_millis(1_500)).await;
}

#[tokio::test]
async fn a_response_is_finished_within_the_grace() {
    let sim = quick()
        .pace(Pace::Fast {
            delta_every: Duration::from_millis(50),
        })
        .start()
        .await
        .unwrap();
    let mut relay = Relay::start(&azure(&sim.base_url())).await;
    let mut session = open(relay.authority(), &authorized()).await;
    session.send(1, br#"{"type":"response.create"}"#).await;
    assert_eq!(session.event().await.json()["type"], "response.created");
    relay.signal("-TERM");
    loop {
        let event = session.event().await.json();
        if event["type"] == "response.done" {
            assert_eq!(event["response"]["status"], "completed");
            break;
        }
    }
    session.send(8, &1000_u16.to_be_bytes()).await;
    while session.event().await.opcode != 8 {}
    assert_eq!(relay.exit_status().await.code(), Some(0));
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let sim = simulator().await;
    let mut relay = Relay::start(&azure(&sim.base_url())).await;
    let _session = open(relay.authority(), &authorized()).await;
    relay.signal("-TERM");
    while TcpStream::connect(&relay.listener).await.is_ok() {
        tokio::task::yield_now().await;
    }
    let begun = Instant::now();
    relay.signal("-TERM");
    assert_eq!(relay.exit_status().await.code(), Some(1));
    assert!(begun.elapsed() < Duration::from_secs(1));
}

#[tokio::test]
async fn the_listener_closes_within_50_ms() {
    let sim = simulator().await;
    let mut fastest = Duration::MAX;
    // A machine that is busy with other tests delays both processes; the relay is not to blame.
    for _ in 0..5 {
        let relay = Relay::start(&azure(&sim.base_url())).await;
        let _session = open(relay.authority(), &authorized()).await;
        let begun = Instant::now();
        relay.signal("-TERM");
        let signalled = Instant::now();
        while TcpStream::connect(&relay.listener).await.is_ok() {
            tokio::task::yield_now().await;
        }
        fastest = fastest.min(signalled.elapsed()).min(begun.elapsed());
        if fastest <= MOMENT {
            return;
        }
    }
    panic!("the listener was open for {fastest:?}");
}

/// Those who send clients here look at either listener; the one for operators answers to the end.
#[tokio::test]
async fn operators_see_the_drain() {
    let sim = simulator().await;
    let configuration =
        azure(&sim.base_url()) + "admin.listen = \"127.0.0.1:0\"\nlimits.drainGrace = \"20s\"\n";
    let mut relay = Relay::start(&configuration).await;
    let ready = relay.operators_get("/readyz").await;
    assert!(ready.starts_with("HTTP/1.1 200 "), "{ready}");
    let mut session = open(relay.authority(), &authorized()).await;
    relay.signal("-TERM");
    while TcpStream::connect(&relay.listener).await.is_ok() {
        tokio::task::yield_now().await;
    }
    let ready = relay.operators_get("/readyz").await;
    assert!(ready.starts_with("HTTP/1.1 503 "), "{ready}");
    assert!(ready.ends_with("draining\n"), "{ready}");
    let healthy = relay.operators_get("/healthz").await;
    assert!(healthy.starts_with("HTTP/1.1 200 "), "{healthy}");
    let page = relay.operators_get("/metrics").await;
    assert!(page.contains("\ntalkline_draining 1.0\n"), "{page}");
    is_alive(&mut session).await;
    session.send(8, &1000_u16.to_be_bytes()).await;
    assert_eq!(session.event().await.close().0, 1000);
    assert_eq!(relay.exit_status().await.code(), Some(0));
}

/// Starts sessions at a rate through two handovers of the socket.
#[tokio::test]
async fn a_rolling_restart_refuses_nobody() {
    let sim = simulator().await;
    let configuration = azure(&sim.base_url()) + "limits.drainGrace = \"300ms\"\n";
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    socket.set_nonblocking(true).unwrap();
    let authority = socket.local_addr().unwrap().to_string();
    let mut relay = inheriting(&socket, &configuration).await;
    assert_eq!(relay.listener, authority);

    let (stop, stopped) = tokio::sync::watch::channel(false);
    let (count, mut counted) = tokio::sync::watch::channel(0);
    let starting = tokio::spawn(async move {
        let mut starts = JoinSet::new();
        let mut pace = interval(Duration::from_millis(20));
        while !*stopped.borrow() {
            pace.tick().await;
            count.send_modify(|count| *count += 1);
            let authority = authority.clone();
            starts.spawn(async move {
                let mut session = RawSession::open(&authority, &path(), &authorized()).await;
                let head = session.head.clone();
                let created = session.event().await.json();
                session.send(8, &1000_u16.to_be_bytes()).await;
                (head, created["type"] == "session.created")
            });
        }
        starts.join_all().await
    });
    for handover in 1..=5 {
        timeout(PATIENCE, counted.wait_for(|&count| count >= handover * 25))
            .await
            .unwrap()
            .unwrap();
        // The next begins before the last ends, as a service manager would have it.
        let next = inheriting(&socket, &configuration).await;
        let mut last = std::mem::replace(&mut relay, next);
        last.signal("-TERM");
        assert_eq!(last.exit_status().await.code(), Some(0));
    }
    // And once with nobody there for a moment: who comes waits in the queue of the socket.
    relay.signal("-TERM");
    assert_eq!(relay.exit_status().await.code(), Some(0));
    let _relay = inheriting(&socket, &configuration).await;
    stop.send_replace(true);
    let started = timeout(PATIENCE, starting).await.unwrap().unwrap();
    let refused: Vec<_> = started
        .iter()
        .filter(|(head, created)| !head.starts_with("HTTP/1.1 101 ") || !created)
        .collect();
    assert_eq!(refused, Vec::<&(String, bool)>::new());
    assert!(started.len() >= 125, "{} starts", started.len());
}

/// Whoever was accepted before the end is answered: a probe that the relay is not ready, a client by a session.
#[tokio::test]
async fn who_was_accepted_before_the_end_is_served() {
    let sim = simulator().await;
    let configuration = azure(&sim.base_url()) + "limits.drainGrace = \"2s\"\n";
    let mut relay = Relay::start(&configuration).await;
    let mut probe = TcpStream::connect(&relay.listener).await.unwrap();
    let mut client = TcpStream::connect(&relay.listener).await.unwrap();
    // Connections are accepted in the order in which they come, so these two were.
    let mut session = open(relay.authority(), &authorized()).await;
    relay.signal("-TERM");
    while TcpStream::connect(&relay.listener).await.is_ok() {
        tokio::task::yield_now().await;
    }
    probe
        .write_all(b"GET /readyz HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    probe.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.ends_with("draining\n"), "{answer}");
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{}\r\n",
        path(),
        relay.authority(),
        authorized()
    );
    client.write_all(request.as_bytes()).await.unwrap();
    let mut status = [0; 12];
    client.read_exact(&mut status).await.unwrap();
    assert_eq!(&status, b"HTTP/1.1 101");
    drop(client);
    is_alive(&mut session).await;
    session.send(8, &1000_u16.to_be_bytes()).await;
    assert_eq!(session.event().await.close().0, 1000);
    assert_eq!(relay.exit_status().await.code(), Some(0));
}
