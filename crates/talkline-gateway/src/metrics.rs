//! What the relay counts, for Prometheus.
//!
//! Everything is recorded when something has happened (a session ended, a ping was answered, a
//! handshake failed), never per frame: frames and bytes are counted by the session anyway and added
//! up at its end. Labels have closed sets of values that stand in this program or, for the currency,
//! in the configuration: no name that a client or an upstream chose is a label.

mod collect;
mod families;
mod page;

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwapOption;
use prometheus_client::{collector::Collector, encoding::DescriptorEncoder, registry::Registry};
use talkline_auth::{KeyCell, StoreHealth};
use talkline_config::Prices;
use talkline_dialect::{Diagnosis, UpstreamKind};
use talkline_relay::Budget;
use talkline_session::{EndKind, EndedBy, Side, Summary, Timing};

use crate::{dial::Phases, metrics::families::Families, report::SessionRecord, tokens::Tokens};

pub use families::{Described, Kind, reference};
pub use page::Format;
pub(crate) use page::respond;

/// Tells how many log lines were dropped.
type DroppedLines = Box<dyn Fn() -> u64 + Send + Sync>;

/// Tells whether the limit store answers, if it is one that may not.
type LimitStoreHealth = Box<dyn Fn() -> Option<StoreHealth> + Send + Sync>;

/// Is told of each session at its end.
type SessionObserver = Box<dyn Fn(&SessionRecord<'_>) + Send + Sync>;

/// The instruments of one process. Clones share them.
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

struct Inner {
    registry: Registry,
    families: Families,
    readings: Arc<Readings>,
    observer: OnceLock<SessionObserver>,
}

/// What is read when somebody asks, rather than recorded when it happens.
#[derive(Default)]
pub(crate) struct Readings {
    pub(crate) credentials: ArcSwapOption<(Tokens, collect::KeyAges)>,
    pub(crate) dropped_lines: OnceLock<DroppedLines>,
    pub(crate) draining: AtomicBool,
    pub(crate) sessions_max: AtomicU64,
    /// Memory for bytes that wait, and how much of it there may be.
    pub(crate) buffers: ArcSwapOption<(Arc<Budget>, usize)>,
    pub(crate) limit_store: OnceLock<LimitStoreHealth>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Instruments that have counted nothing.
    #[must_use]
    pub fn new() -> Self {
        let mut registry = Registry::default();
        let families = Families::register(&mut registry);
        let readings = Arc::new(Readings::default());
        registry.register_collector(Box::new(Shown(Arc::clone(&readings))));
        let metrics = Self(Arc::new(Inner {
            registry,
            families,
            readings,
            observer: OnceLock::new(),
        }));
        metrics.0.families.config_reload_ok.set(1);
        metrics
    }

    /// The page that Prometheus reads, and its content type.
    #[must_use]
    pub fn page(&self, format: Format) -> (String, &'static str) {
        page::page(&self.0.registry, format)
    }

    /// Tells where the number of log lines is found that were dropped because nobody read them. The
    /// first one told counts.
    pub fn watch_dropped_lines(&self, count: impl Fn() -> u64 + Send + Sync + 'static) {
        let _ = self.0.readings.dropped_lines.set(Box::new(count));
    }

    /// Has every session told at its end, and every refusal. What is called must not wait: the session's
    /// task calls it. The first one told counts.
    pub fn observe_sessions(&self, observer: impl Fn(&SessionRecord<'_>) + Send + Sync + 'static) {
        let _ = self.0.observer.set(Box::new(observer));
    }

    pub(crate) fn tell(&self, session: &SessionRecord<'_>) {
        if let Some(observer) = self.0.observer.get() {
            observer(session);
        }
    }

    /// The configuration was read anew, and taken over or not.
    pub fn config_reloaded(&self, taken_over: bool) {
        let families = &self.0.families;
        families.config_reload(taken_over).inc();
        families.config_reload_ok.set(i64::from(taken_over));
        if taken_over {
            families
                .config_reload_time
                .set(unix_seconds(SystemTime::now()));
        }
    }

    /// Those of the configuration in use; the last ones told count.
    pub(crate) fn watch_credentials(&self, tokens: Tokens, keys: Vec<KeyCell>) {
        let shown = (tokens, collect::KeyAges::new(keys));
        self.0.readings.credentials.store(Some(Arc::new(shown)));
    }

    pub(crate) fn sessions_max(&self, sessions: usize) {
        let max = &self.0.readings.sessions_max;
        max.store(sessions as u64, Ordering::Relaxed);
    }

    pub(crate) fn watch_buffers(&self, budget: Arc<Budget>, bytes_max: usize) {
        self.0
            .readings
            .buffers
            .store(Some(Arc::new((budget, bytes_max))));
    }

    /// The store of the first configuration stays the store.
    pub(crate) fn watch_limit_store(
        &self,
        health: impl Fn() -> Option<StoreHealth> + Send + Sync + 'static,
    ) {
        let _ = self.0.readings.limit_store.set(Box::new(health));
    }

    /// Somebody was turned away because this is used up.
    pub(crate) fn full(&self, budget: &'static str) {
        self.0.families.full(budget).inc();
    }

    pub(crate) fn draining(&self) {
        self.0.readings.draining.store(true, Ordering::Relaxed);
    }

    /// Counts a session as active until the guard is dropped.
    pub(crate) fn session_opened(&self, kind: UpstreamKind) -> ActiveSession {
        let gauge = self.0.families.sessions_active(kind);
        gauge.inc();
        ActiveSession(gauge)
    }

    pub(crate) fn session_ended(&self, kind: UpstreamKind, summary: &Summary) {
        let families = &self.0.families;
        families.session(kind, outcome(summary)).inc();
        families
            .session_duration(kind)
            .observe(summary.duration.as_secs_f64());
        families.add_traffic(Side::Client, &summary.client_to_upstream);
        families.add_traffic(Side::Upstream, &summary.upstream_to_client);
        families.add_stalls(Side::Client, &summary.client_stalls);
        families.add_stalls(Side::Upstream, &summary.upstream_stalls);
        families.add_responses(&summary.responses);
        families.add_usage(kind, &summary.usage);
        families.add_transcription(&summary.transcription);
        for incident in &summary.incidents {
            families.incident(incident.code).inc_by(incident.count);
        }
    }

    /// Adds what a session cost, where the configuration prices its model.
    pub(crate) fn session_cost(
        &self,
        kind: UpstreamKind,
        prices: &Prices,
        model: &str,
        summary: &Summary,
    ) {
        if let Some(price) = prices.models.get(model) {
            let cost = price.of(&crate::report::billable(summary));
            self.0.families.cost(kind, &prices.currency).inc_by(cost);
        }
    }

    pub(crate) fn session_refused(&self, kind: UpstreamKind, diagnosis: &Diagnosis) {
        let families = &self.0.families;
        families.session(kind, "refused").inc();
        families.refusal(diagnosis).inc();
    }

    pub(crate) fn client_refused(&self, status: u16, code: &'static str) {
        self.0.families.client_refusal(status, code).inc();
    }

    pub(crate) fn dialled(&self, total: Duration, phases: &Phases) {
        let families = &self.0.families;
        let reached = phases.dns + phases.tcp + phases.tls + phases.upgrade;
        let waited = total.saturating_sub(reached);
        for (phase, took) in [
            ("credential", waited),
            ("dns", phases.dns),
            ("tcp", phases.tcp),
            ("tls", phases.tls),
            ("upgrade", phases.upgrade),
            ("total", total),
        ] {
            families.handshake(phase).observe(took.as_secs_f64());
        }
    }

    pub(crate) fn first_audio(&self, after: Duration) {
        self.0.families.first_audio.observe(after.as_secs_f64());
    }

    /// Who is told of the times of a session. Its instruments are looked up once.
    pub(crate) fn timings(&self) -> impl FnMut(Timing) + Send + 'static {
        let metrics = self.clone();
        move |timing| {
            let families = &metrics.0.families;
            match timing {
                Timing::PingRoundTrip(side, took) => {
                    families.ping(side).observe(took.as_secs_f64());
                }
                Timing::SpeechToAudio(took) => {
                    families.speech_to_audio.observe(took.as_secs_f64());
                }
                Timing::CancelToSilence(took) => {
                    families.cancel_to_silence.observe(took.as_secs_f64());
                }
                Timing::Relayed(took) => families.added_latency.observe(took.as_secs_f64()),
            }
        }
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}

/// A session that counts as active.
pub(crate) struct ActiveSession(prometheus_client::metrics::gauge::Gauge);

impl Drop for ActiveSession {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// The readings, as the registry asks for them.
struct Shown(Arc<Readings>);

impl std::fmt::Debug for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Shown")
    }
}

impl Collector for Shown {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        collect::encode(&self.0, encoder)
    }
}

/// How a session ended, in one of a few words.
pub(crate) fn outcome(summary: &Summary) -> &'static str {
    use EndedBy::{Client, Relay, Upstream};
    match (summary.end.kind, summary.end.by) {
        (EndKind::Closed, Client) => "client_closed",
        (EndKind::Closed, Upstream) => "upstream_closed",
        (EndKind::Closed, Relay) => "relay_closed",
        (EndKind::Disconnected, Upstream) => "upstream_lost",
        (EndKind::Disconnected, Client | Relay) => "client_lost",
        (EndKind::Violation, Upstream) => "upstream_violation",
        (EndKind::Violation, Client | Relay) => "client_violation",
        (EndKind::PingTimeout, Upstream) => "upstream_ping_timeout",
        (EndKind::PingTimeout, Client | Relay) => "client_ping_timeout",
        (EndKind::Stopped, _) => "stopped",
        (EndKind::SessionMax, _) => "session_max",
        (EndKind::Unfinished, _) => "unfinished",
        (EndKind::Idle, _) => "idle",
        (EndKind::SlowConsumer, _) => "slow_consumer",
        (EndKind::FrameTimeout, _) => "frame_timeout",
        (EndKind::RateExceeded, _) => "rate_exceeded",
        (EndKind::Overloaded, _) => "overloaded",
        (EndKind::Policy, _) => "policy",
    }
}

/// Whether an end is one that somebody should look into.
pub(crate) fn is_failure(kind: EndKind) -> bool {
    match kind {
        EndKind::Closed | EndKind::Stopped | EndKind::SessionMax | EndKind::Idle => false,
        EndKind::Disconnected
        | EndKind::Violation
        | EndKind::PingTimeout
        | EndKind::Unfinished
        | EndKind::SlowConsumer
        | EndKind::FrameTimeout
        | EndKind::RateExceeded
        | EndKind::Overloaded
        | EndKind::Policy => true,
    }
}

pub(crate) fn kind_word(kind: UpstreamKind) -> &'static str {
    match kind {
        UpstreamKind::Azure => "azure",
        UpstreamKind::OpenAi => "openai",
        UpstreamKind::Custom => "custom",
    }
}

fn unix_seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
    })
}

#[cfg(test)]
mod tests;
