//! What the generator is asked to do, and what it answers: one JSON object a line each.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// One measurement.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Job {
    /// Where the sessions are opened: a relay, or the generator's own upstream for the time without one.
    pub relay: SocketAddr,
    /// The relay's process; its children count too.
    pub pid: Option<u32>,
    pub sessions: usize,
    /// Sessions that are being opened at a time.
    #[serde(default = "one")]
    pub opening: usize,
    pub pattern: Pattern,
    /// Before anything is counted.
    #[serde(default)]
    pub warm_up_ms: u64,
    #[serde(default)]
    pub measure_ms: u64,
}

fn one() -> usize {
    1
}

/// When frames are due.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Pattern {
    /// All sessions at the same moment.
    Burst { tick_us: u64 },
    /// Evenly over the tick, as independent speakers.
    Spread { tick_us: u64 },
    /// The next frame as soon as one has arrived; so many are under way in each direction. Frames that came in one
    /// read are followed in one write when `together`, which leaves the generator more to spare than the relay has;
    /// one write each makes the generator itself the slower of the two.
    Saturation { window: usize, together: bool },
    /// A few frames each way, then silence.
    Idle { frames: usize },
    /// No frame at all: sessions are opened one after another, and closed.
    SetUp,
    /// Clients stop reading; their upstreams send as fast as they can. `neighbours`, the first of the sessions, go on
    /// talking. Relays that end stalled sessions have `evicted_within_ms` to do it; zero does not wait.
    Stalled {
        neighbours: usize,
        tick_us: u64,
        evicted_within_ms: u64,
    },
}

/// What was found.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Found {
    pub sessions: usize,
    /// Frames that arrived while it was counted, both ways.
    pub frames: u64,
    /// Bytes of payload that did.
    pub bytes: u64,
    pub seconds: f64,
    /// The relay's processor time.
    pub cpu_ns: u64,
    /// The generator's own, in the same time.
    pub generator_ns: u64,
    pub user_ticks: u64,
    pub system_ticks: u64,
    /// From the moment a frame was due to its last byte's arrival.
    pub latency: Quantiles,
    /// From the start of a connection to its 101.
    pub set_up: Quantiles,
    /// To open all sessions.
    pub set_up_seconds: f64,
    pub resident_before_kib: u64,
    pub resident_open_kib: u64,
    pub resident_busy_kib: u64,
    pub resident_after_kib: u64,
    pub socket_kib: u64,
    /// Latency of the neighbours before the others stalled.
    pub quiet: Quantiles,
    /// Stalled sessions that the relay ended, and how long after the beginning it had ended the last one.
    pub evicted: u64,
    pub evicted_seconds: f64,
    /// Sessions that ended while they should not.
    pub lost: u64,
    /// Frames that were not what was sent, or not in order.
    pub corrupt: u64,
}

/// In microseconds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Quantiles {
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub p999: f64,
    pub count: u64,
}

impl Quantiles {
    #[must_use]
    pub fn of(histogram: &hdrhistogram::Histogram<u64>) -> Quantiles {
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1000.0;
        Quantiles {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            count: histogram.len(),
        }
    }
}
