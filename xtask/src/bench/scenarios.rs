//! What is measured, and with whom.

use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::peers::Peer;

/// A voice client appends 40 ms of audio at a time.
const TICK_US: u64 = 40_000;
/// One frame in so many microseconds and session keeps the rate of frames the same however many sessions
/// there are: 16,667 a second.
const FLAT_US: u64 = 80;
/// Sessions that go on talking beside stalled ones.
const NEIGHBOURS: usize = 50;
/// A stalled session is to be over by then: `limits.stallTimeout` is 15 s when nothing is said.
const EVICTED_WITHIN_MS: u64 = 30_000;

/// What a scenario is about, which decides what of its results is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shows {
    /// Processor time a frame, beside the baseline.
    Cpu,
    /// How long frames are under way, beside no relay at all.
    Latency,
    /// Memory of a session that is silent.
    Memory,
    /// How long a session takes to open, beside no relay at all.
    SetUp,
    /// Memory of sessions whose clients do not read.
    Stalled,
}

/// How frames are sent.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pattern {
    Burst(u64),
    Spread(u64),
    /// So many frames under way each way; what came together is followed together.
    Saturation(usize),
    /// The same, each frame sent by itself.
    Lockstep(usize),
    Idle,
    SetUp,
    Stalled,
}

/// One line of what is measured.
#[derive(Debug)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    pub(crate) shows: Shows,
    pub(crate) peers: &'static [Peer],
    /// Whom the others are compared with.
    pub(crate) baseline: Peer,
    pub(crate) sessions: usize,
    pub(crate) pattern: Pattern,
    /// Measured in a quick run too.
    pub(crate) is_quick: bool,
}

const ALL: &[Peer] = &[
    Peer::Talkline,
    Peer::HaproxyTcp,
    Peer::HaproxyHttp,
    Peer::Nginx,
    Peer::Raw,
    Peer::Fastwebsockets,
    Peer::Tungstenite,
    Peer::Floor,
];
const FEW: &[Peer] = &[Peer::Talkline, Peer::HaproxyTcp, Peer::Raw, Peer::Floor];
/// The kernel's memory for sockets leaves the caches, too, when there are many; the others show what is its part.
const FLAT: &[Peer] = &[Peer::Talkline, Peer::HaproxyTcp, Peer::Floor];
const TLS: &[Peer] = &[Peer::TalklineTls, Peer::HaproxyTls];
const TIMED: &[Peer] = &[
    Peer::Talkline,
    Peer::HaproxyTcp,
    Peer::HaproxyHttp,
    Peer::Nginx,
    Peer::Raw,
    Peer::Direct,
];
const OURS: &[Peer] = &[Peer::Talkline];

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "burst-500",
        title: "500 sessions, all at the same moment",
        shows: Shows::Cpu,
        peers: ALL,
        baseline: Peer::HaproxyTcp,
        sessions: 500,
        pattern: Pattern::Burst(TICK_US),
        is_quick: true,
    },
    Scenario {
        name: "burst-1500",
        title: "1,500 sessions, all at the same moment",
        shows: Shows::Cpu,
        peers: FEW,
        baseline: Peer::HaproxyTcp,
        sessions: 1_500,
        pattern: Pattern::Burst(TICK_US),
        is_quick: true,
    },
    Scenario {
        name: "saturation-50",
        title: "50 sessions, as fast as it goes, 4 frames under way each way",
        shows: Shows::Cpu,
        peers: ALL,
        baseline: Peer::HaproxyTcp,
        sessions: 50,
        pattern: Pattern::Saturation(4),
        is_quick: true,
    },
    Scenario {
        name: "saturation-deep-50",
        title: "50 sessions, as fast as it goes, 16 frames under way each way",
        shows: Shows::Cpu,
        peers: FEW,
        baseline: Peer::HaproxyTcp,
        sessions: 50,
        pattern: Pattern::Saturation(16),
        is_quick: false,
    },
    Scenario {
        name: "lockstep-50",
        title: "50 sessions, each frame sent by itself",
        shows: Shows::Cpu,
        peers: FEW,
        baseline: Peer::HaproxyTcp,
        sessions: 50,
        pattern: Pattern::Lockstep(4),
        is_quick: false,
    },
    Scenario {
        name: "tls-burst-500",
        title: "500 sessions, all at the same moment, TLS to the upstream",
        shows: Shows::Cpu,
        peers: TLS,
        baseline: Peer::HaproxyTls,
        sessions: 500,
        pattern: Pattern::Burst(TICK_US),
        is_quick: true,
    },
    Scenario {
        name: "spread-300",
        title: "300 sessions, evenly spread",
        shows: Shows::Latency,
        peers: TIMED,
        baseline: Peer::HaproxyTcp,
        sessions: 300,
        pattern: Pattern::Spread(TICK_US),
        is_quick: true,
    },
    Scenario {
        name: "idle-2000",
        title: "2,000 sessions that are silent after three frames each way",
        shows: Shows::Memory,
        peers: ALL,
        baseline: Peer::HaproxyTcp,
        sessions: 2_000,
        pattern: Pattern::Idle,
        is_quick: false,
    },
    Scenario {
        name: "tls-idle-1000",
        title: "1,000 silent sessions, TLS to the upstream",
        shows: Shows::Memory,
        peers: TLS,
        baseline: Peer::HaproxyTls,
        sessions: 1_000,
        pattern: Pattern::Idle,
        is_quick: false,
    },
    Scenario {
        name: "idle-9900",
        title: "9,900 silent sessions in one process",
        shows: Shows::Memory,
        peers: OURS,
        baseline: Peer::Talkline,
        sessions: 9_900,
        pattern: Pattern::Idle,
        is_quick: false,
    },
    Scenario {
        name: "set-up",
        title: "sessions opened one after another",
        shows: Shows::SetUp,
        peers: TIMED,
        baseline: Peer::HaproxyTcp,
        sessions: 500,
        pattern: Pattern::SetUp,
        is_quick: true,
    },
    Scenario {
        name: "flat-10",
        title: "16,667 frames a second from 10 sessions",
        shows: Shows::Cpu,
        peers: FLAT,
        baseline: Peer::HaproxyTcp,
        sessions: 10,
        pattern: Pattern::Burst(10 * FLAT_US),
        is_quick: false,
    },
    Scenario {
        name: "flat-100",
        title: "16,667 frames a second from 100 sessions",
        shows: Shows::Cpu,
        peers: FLAT,
        baseline: Peer::HaproxyTcp,
        sessions: 100,
        pattern: Pattern::Burst(100 * FLAT_US),
        is_quick: false,
    },
    Scenario {
        name: "flat-1000",
        title: "16,667 frames a second from 1,000 sessions",
        shows: Shows::Cpu,
        peers: FLAT,
        baseline: Peer::HaproxyTcp,
        sessions: 1_000,
        pattern: Pattern::Burst(1_000 * FLAT_US),
        is_quick: false,
    },
    Scenario {
        name: "flat-5000",
        title: "16,667 frames a second from 5,000 sessions",
        shows: Shows::Cpu,
        peers: FLAT,
        baseline: Peer::HaproxyTcp,
        sessions: 5_000,
        pattern: Pattern::Burst(5_000 * FLAT_US),
        is_quick: false,
    },
    Scenario {
        name: "stalled-1000",
        title: "1,000 clients that do not read, each with an upstream that floods",
        shows: Shows::Stalled,
        peers: &[Peer::Talkline, Peer::HaproxyTcp, Peer::Raw],
        baseline: Peer::HaproxyTcp,
        sessions: 1_000,
        pattern: Pattern::Stalled,
        is_quick: false,
    },
];

/// The peer of this name, as it is printed; capitals do not matter.
///
/// # Errors
/// When no scenario has it.
pub(crate) fn peer(name: &str) -> Result<Peer> {
    let mut peers: Vec<Peer> = SCENARIOS.iter().flat_map(|it| it.peers).copied().collect();
    peers.sort_unstable();
    peers.dedup();
    let found = peers
        .iter()
        .find(|peer| peer.name().eq_ignore_ascii_case(name));
    found.copied().with_context(|| {
        let names: Vec<&str> = peers.iter().map(|peer| peer.name()).collect();
        format!("no peer `{name}`; there are {}", names.join("; "))
    })
}

/// Orders for voice traffic that is not compared with anybody's.
pub(crate) fn spread(
    relay: SocketAddr,
    pid: Option<u32>,
    sessions: usize,
    measure_ms: u64,
) -> Value {
    json!({
        "relay": relay,
        "pid": pid,
        "sessions": sessions,
        "opening": 16,
        "pattern": {"spread": {"tick_us": TICK_US}},
        "warm_up_ms": 0,
        "measure_ms": measure_ms,
    })
}

/// Orders for the few sessions that a relay serves before its memory is looked at: what it makes once, at its
/// first session, is not what a session costs.
pub(crate) fn first_steps(relay: SocketAddr, pid: Option<u32>) -> Value {
    json!({
        "relay": relay,
        "pid": pid,
        "sessions": 50,
        "opening": 50,
        "pattern": {"idle": {"frames": 3}},
        "warm_up_ms": 0,
        "measure_ms": 500,
    })
}

impl Scenario {
    /// The generator's orders.
    pub(crate) fn job(
        &self,
        peer: Peer,
        relay: SocketAddr,
        pid: Option<u32>,
        is_quick: bool,
    ) -> Value {
        let pattern = match self.pattern {
            Pattern::Burst(tick_us) => json!({"burst": {"tick_us": tick_us}}),
            Pattern::Spread(tick_us) => json!({"spread": {"tick_us": tick_us}}),
            Pattern::Saturation(window) => {
                json!({"saturation": {"window": window, "together": true}})
            }
            Pattern::Lockstep(window) => {
                json!({"saturation": {"window": window, "together": false}})
            }
            Pattern::Idle => json!({"idle": {"frames": 3}}),
            Pattern::SetUp => json!("set-up"),
            Pattern::Stalled => json!({"stalled": {
                "neighbours": NEIGHBOURS,
                "tick_us": TICK_US,
                // The others are not told to end any.
                "evicted_within_ms": if peer.is_ours() { EVICTED_WITHIN_MS } else { 0 },
            }}),
        };
        let neighbours = match self.pattern {
            Pattern::Stalled => NEIGHBOURS,
            _ => 0,
        };
        let (warm_up_ms, measure_ms) = match (self.shows, is_quick) {
            (Shows::Cpu | Shows::Latency, false) => (1_500, 6_000),
            (Shows::Cpu | Shows::Latency, true) => (500, 2_000),
            (Shows::Memory | Shows::SetUp, _) => (0, 1_000),
            (Shows::Stalled, _) => (3_000, 4_000),
        };
        json!({
            "relay": relay,
            "pid": pid,
            "sessions": self.sessions + neighbours,
            "opening": if self.shows == Shows::SetUp { 1 } else { 64 },
            "pattern": pattern,
            "warm_up_ms": warm_up_ms,
            "measure_ms": measure_ms,
        })
    }
}
