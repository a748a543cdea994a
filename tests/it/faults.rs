//! Networks and upstreams that fail, in front of and behind the real binary.
//!
//! After every test the relay has as many descriptors as before its first session, and has told the end of each.

use std::path::Path;
use std::time::Duration;

use talkline_sim::chaos::{Chaos, Direction, Ending, Faults, Network};
use talkline_sim::{Running, caller::Call};
use tokio::time::{Instant, sleep, timeout};

use crate::kit::{
    AUTHORITY, CLIENT_KEY, PATIENCE, RawSession, Relay, azure, quick, simulator, tls_server, turn,
};

/// How often the relay's descriptors are counted while waiting for them.
const GLANCE: Duration = Duration::from_millis(20);

fn authorized() -> String {
    format!("api-key: {CLIENT_KEY}\r\n")
}

/// A relay whose upstream is behind a bad network.
struct Bench {
    relay: Relay,
    network: Network,
    _sim: Running,
    idle: usize,
}

/// The descriptors of a relay that is up: what its threads hold is there once one of them answers.
async fn settled(relay: &Relay) -> usize {
    drop(RawSession::open(relay.authority(), "/healthz", "").await);
    let mut seen = relay.descriptors();
    let mut looks = 0;
    while looks < 10 {
        sleep(GLANCE).await;
        let now = relay.descriptors();
        looks = if now == seen { looks + 1 } else { 0 };
        seen = now;
    }
    seen
}

impl Bench {
    async fn plain(chaos: Chaos, more: &str) -> Self {
        let sim = simulator().await;
        let network = chaos.between(sim.addr()).await.unwrap();
        let configuration = azure(&format!("http://{}", network.addr())) + more;
        Self::start(sim, network, &configuration, &[]).await
    }

    async fn tls(chaos: Chaos, folder: &Path) -> Self {
        let sim = quick()
            .tls(tls_server("localhost", folder))
            .start()
            .await
            .unwrap();
        let network = chaos.between(sim.addr()).await.unwrap();
        let configuration = azure(&format!("https://localhost:{}", network.addr().port()));
        let authority = folder.join(AUTHORITY);
        let variables = [("SSL_CERT_FILE", authority.to_str().unwrap())];
        Self::start(sim, network, &configuration, &variables).await
    }

    async fn start(
        sim: Running,
        network: Network,
        configuration: &str,
        variables: &[(&str, &str)],
    ) -> Self {
        let relay = Relay::start_env(configuration, &[], variables).await;
        // The first session makes the relay open what it keeps: roots, a resolver.
        let idle = settled(&relay).await;
        Self {
            relay,
            network,
            _sim: sim,
            idle,
        }
    }

    async fn session(&self) -> RawSession {
        RawSession::open(self.relay.authority(), "/v1/realtime", &authorized()).await
    }

    /// Waits until nothing of any session is left, then ends the relay; it has told of `sessions` ends.
    async fn back_to_the_start(self, sessions: usize) -> String {
        let deadline = Instant::now() + PATIENCE;
        while self.relay.descriptors() > self.idle || self.network.connections() > 0 {
            assert!(
                Instant::now() < deadline,
                "{} descriptors became {}, {} connections upstream",
                self.idle,
                self.relay.descriptors(),
                self.network.connections()
            );
            sleep(GLANCE).await;
        }
        let log = self.relay.log().await;
        let told =
            log.matches("\"session ended\"").count() + log.matches("\"session refused\"").count();
        assert_eq!(told, sessions, "{log}");
        assert!(!log.contains("panic"), "{log}");
        log
    }
}

/// How a session ended for its client.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// With an error event and this close code.
    Told(u16),
    /// In the middle of a frame of the upstream's, after which nothing can be said.
    Cut,
}

/// Reads to the end; every frame before it is whole, and the last two say what happened.
async fn end(mut session: RawSession) -> End {
    let Some(frames) = session.rest().await else {
        return End::Cut;
    };
    let mut frames = frames.into_iter().filter(|frame| frame.opcode != 9).rev();
    let close = frames.next().expect("a close frame");
    let event = frames.next().expect("an event before it").json();
    assert_eq!(event["type"], "error", "{event}");
    assert!(frames.all(|frame| frame.opcode == 1 && frame.json()["type"] != "error"));
    End::Told(close.close().0)
}

fn breaks_after(bytes: u64, ending: Ending) -> Chaos {
    Chaos {
        to_client: Faults {
            break_after: Some((bytes, ending)),
            ..Faults::default()
        },
        ..Chaos::default()
    }
}

/// The least length of a simulator's 101; its greeting follows.
const HEAD_BYTES_MIN: u64 = 150;

/// The least length of what a server says to make a TLS connection.
const TLS_BYTES_MIN: u64 = 600;

/// Length of the greeting's frame.
async fn greeting_bytes(bench: &Bench) -> u64 {
    let mut session = bench.session().await;
    let greeting = session.event().await;
    session.send(8, &1000_u16.to_be_bytes()).await;
    assert!(session.rest().await.is_some());
    4 + greeting.payload.len() as u64
}

#[tokio::test]
async fn an_upstream_that_breaks_off_at_any_byte_is_told() {
    let bench = Bench::plain(Chaos::default(), "").await;
    let said = HEAD_BYTES_MIN + greeting_bytes(&bench).await;
    let (mut cut, mut sessions) = (0, 1);
    for ending in [Ending::Fin, Ending::Reset] {
        // Before the 101, within it, and within the greeting.
        for bytes in (0..said).step_by(61) {
            sessions += 1;
            bench.network.change(breaks_after(bytes, ending));
            match end(bench.session().await).await {
                End::Told(code) => assert_eq!(code, 1011, "{ending:?} after {bytes}"),
                End::Cut => cut += 1,
            }
        }
    }
    // Once more than a frame's first bytes are with the client, nothing can be said any more.
    assert!(cut < sessions, "every session was cut inside a frame");
    bench.back_to_the_start(sessions).await;
}

#[tokio::test]
async fn an_upstream_that_breaks_off_within_a_tls_record_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let bench = Bench::tls(Chaos::default(), folder.path()).await;
    let said = HEAD_BYTES_MIN + greeting_bytes(&bench).await;
    let mut sessions = 1;
    for ending in [Ending::Fin, Ending::Reset] {
        // Within the handshake's records, within that of the 101, within that of the greeting.
        for bytes in (0..said + TLS_BYTES_MIN).step_by(173) {
            sessions += 1;
            bench.network.change(breaks_after(bytes, ending));
            match end(bench.session().await).await {
                // An end in the middle of a TLS handshake is taken for a server that has no TLS to offer.
                End::Told(1008) => assert!(bytes < said, "{ending:?} after {bytes}"),
                End::Told(code) => assert_eq!(code, 1011, "{ending:?} after {bytes}"),
                End::Cut => assert!(bytes > TLS_BYTES_MIN, "{ending:?} after {bytes}"),
            }
        }
    }
    bench.back_to_the_start(sessions).await;
}

#[tokio::test]
async fn an_upstream_that_is_reset_between_frames_is_told() {
    let bench = Bench::plain(Chaos::default(), "").await;
    let mut session = bench.session().await;
    assert_eq!(session.event().await.json()["type"], "session.created");
    bench.network.reset();
    assert_eq!(end(session).await, End::Told(1011));
    bench.back_to_the_start(1).await;
}

#[tokio::test]
async fn an_upstream_that_ends_one_direction_does_not_hold_the_client() {
    let bench = Bench::plain(Chaos::default(), "").await;
    let mut session = bench.session().await;
    assert_eq!(session.event().await.json()["type"], "session.created");
    bench.network.half_close(Direction::ToClient);
    let start = Instant::now();
    assert_eq!(end(session).await, End::Told(1011));
    assert!(
        start.elapsed() < Duration::from_secs(10),
        "{:?}",
        start.elapsed()
    );
    bench.back_to_the_start(1).await;
}

#[tokio::test]
async fn a_silent_network_in_either_direction_is_noticed() {
    let more = "limits.pingInterval = \"1s\"\nlimits.pongTimeout = \"1s\"\n";
    for direction in [Direction::ToServer, Direction::ToClient] {
        let bench = Bench::plain(Chaos::default(), more).await;
        let mut session = bench.session().await;
        assert_eq!(session.event().await.json()["type"], "session.created");
        bench.network.black_hole(direction);
        let start = Instant::now();
        assert_eq!(end(session).await, End::Told(1011), "{direction:?}");
        assert!(
            start.elapsed() < Duration::from_secs(8),
            "{:?}",
            start.elapsed()
        );
        // What the network kept is delivered to nobody, and its connections end.
        bench.network.heal();
        bench.back_to_the_start(1).await;
    }
}

#[tokio::test]
async fn turns_are_whole_over_a_bad_network_on_both_sides() {
    let bad = Faults {
        delay: Duration::from_millis(1),
        jitter: Duration::from_millis(4),
        chop_bytes_max: Some(500),
        ..Faults::default()
    };
    for seed in 0..3 {
        let chaos = Chaos {
            seed,
            to_server: bad,
            to_client: bad,
        };
        let bench = Bench::plain(chaos, "").await;
        let near = chaos
            .between(bench.relay.listener.parse().unwrap())
            .await
            .unwrap();
        let call = bench.relay.plain_call();
        let call = Call {
            url: call
                .url
                .replace(bench.relay.authority(), &near.addr().to_string()),
            ..call
        };
        let report = timeout(PATIENCE * 2, turn(&call)).await.unwrap().unwrap();
        assert!(report.is_whole(), "seed {seed}: {:?}", report.missing());
        drop(near);
        bench.back_to_the_start(1).await;
    }
}

#[tokio::test]
async fn a_client_that_is_reset_frees_its_upstream_at_once() {
    let bench = Bench::plain(Chaos::default(), "").await;
    let near = Chaos::default()
        .between(bench.relay.listener.parse().unwrap())
        .await
        .unwrap();
    let authority = near.addr().to_string();
    let mut session = RawSession::open(&authority, "/v1/realtime", &authorized()).await;
    assert_eq!(session.event().await.json()["type"], "session.created");
    let start = Instant::now();
    near.reset();
    while bench.network.connections() > 0 {
        assert!(start.elapsed() < PATIENCE, "the upstream is still open");
        sleep(GLANCE).await;
    }
    bench.back_to_the_start(1).await;
}
