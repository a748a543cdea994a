//! The instruments themselves, each with its name, its help and the values of its labels.

use std::{borrow::Cow, fmt::Write as _};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::{Family, MetricConstructor},
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};
use talkline_dialect::{Diagnosis, UpstreamKind};
use talkline_session::{Modalities, Responses, Side, Stalls, Traffic, Transcription, Usage};

use super::kind_word;

/// A number with a fraction, counted up.
type Amount = Counter<f64, std::sync::atomic::AtomicU64>;

/// A type of metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Goes up only.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts observations in buckets.
    Histogram,
}

/// One family, as the reference page describes it.
#[derive(Clone, Copy, Debug)]
pub struct Described {
    /// The name in a query; a histogram's without `_bucket`, `_sum` and `_count`.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// Its labels, with their values in words.
    pub labels: &'static [(&'static str, &'static str)],
    /// What it tells.
    pub help: &'static str,
}

const UPSTREAM: (&str, &str) = ("upstream", "`azure`, `openai`, `custom`");
const FROM: (&str, &str) = ("from", "`client`, `upstream`");

/// Every family, in the order of the reference page. The tests hold it equal to what is registered.
pub(crate) const ALL: &[Described] = &[
    counter(
        "talkline_sessions_total",
        &[
            UPSTREAM,
            (
                "outcome",
                "`client_closed`, `upstream_closed`, `relay_closed`, `client_lost`, `upstream_lost`, `client_violation`, `upstream_violation`, `client_ping_timeout`, `upstream_ping_timeout`, `stopped`, `session_max`, `idle`, `slow_consumer`, `frame_timeout`, `rate_exceeded`, `overloaded`, `policy`, `unfinished`, `refused`",
            ),
        ],
        "Sessions that ended, and admitted clients that got none (refused)",
    ),
    gauge(
        "talkline_sessions_active",
        &[UPSTREAM],
        "Sessions under way",
    ),
    gauge(
        "talkline_sessions_max",
        &[],
        "Sessions that the configuration allows at one time",
    ),
    histogram(
        "talkline_session_duration_seconds",
        &[UPSTREAM],
        "Length of sessions, from both handshakes to the end",
    ),
    histogram(
        "talkline_handshake_phase_seconds",
        &[(
            "phase",
            "`credential` (waiting for a token, and earlier attempts), `dns`, `tcp`, `tls`, `upgrade`, `total`",
        )],
        "Phases of reaching the upstream, of handshakes that succeeded",
    ),
    counter(
        "talkline_refusals_total",
        &[
            ("code", "a code of the error reference"),
            (
                "blame",
                "`client`, `operator`, `azure`, `upstream`, `network`",
            ),
            ("permanence", "`permanent`, `throttled`, `transient`"),
        ],
        "Admitted clients that got no session, by diagnosis",
    ),
    counter(
        "talkline_client_refusals_total",
        &[
            ("status", "HTTP status"),
            (
                "code",
                "a word such as `invalid_api_key`, `origin_not_allowed`",
            ),
        ],
        "Requests that were refused before anything was dialled",
    ),
    counter(
        "talkline_full_total",
        &[("budget", "`sessions`, `descriptors`, `memory`")],
        "Admitted clients that were turned away with `relay_full`, by what was used up",
    ),
    counter(
        "talkline_incidents_total",
        &[("code", "a code of the error reference")],
        "Failures that the upstream reported inside sessions, by diagnosis",
    ),
    counter(
        "talkline_frames_total",
        &[FROM],
        "Frames received, added at the end of a session",
    ),
    counter(
        "talkline_messages_total",
        &[FROM],
        "Messages received, added at the end of a session",
    ),
    counter(
        "talkline_bytes_total",
        &[FROM],
        "Bytes received, added at the end of a session",
    ),
    counter(
        "talkline_stalls_total",
        &[FROM],
        "Times that one side was not read because the other did not keep up, added at the end of a session",
    ),
    counter(
        "talkline_stalled_seconds_total",
        &[FROM],
        "Time in which one side was not read because the other did not keep up, added at the end of a session",
    ),
    counter(
        "talkline_spilled_bytes_total",
        &[FROM],
        "Bytes that waited in the relay because the other side did not take them at once, added at the end of a session",
    ),
    gauge(
        "talkline_buffered_bytes",
        &[],
        "Bytes that wait in the relay at the moment, of all sessions together",
    ),
    gauge(
        "talkline_buffered_bytes_max",
        &[],
        "Bytes that may wait in the relay, of all sessions together",
    ),
    histogram(
        "talkline_ping_round_trip_seconds",
        &[("side", "`client`, `upstream`")],
        "From a ping of the relay to its pong",
    ),
    histogram(
        "talkline_added_latency_seconds",
        &[],
        "Time that the relay adds, from reading bytes to having written them; one frame of 64 is timed",
    ),
    histogram(
        "talkline_first_audio_seconds",
        &[],
        "From the start of a session to its first audio",
    ),
    histogram(
        "talkline_speech_to_audio_seconds",
        &[],
        "From the end of the user's speech to the first audio of the answer",
    ),
    histogram(
        "talkline_cancel_to_silence_seconds",
        &[],
        "From an interruption to the last audio of the answer that it cut off",
    ),
    counter(
        "talkline_responses_total",
        &[(
            "status",
            "`completed`, `cancelled`, `incomplete`, `failed`, `other`",
        )],
        "Responses that ended, added at the end of a session",
    ),
    counter(
        "talkline_tokens_total",
        &[
            UPSTREAM,
            (
                "direction",
                "`input`, `cached_input` (part of `input`), `output`",
            ),
            ("modality", "`text`, `audio`, `image`"),
        ],
        "Tokens of responses as the upstream counts them, added at the end of a session",
    ),
    counter(
        "talkline_transcription_tokens_total",
        &[("direction", "`input`, `output`")],
        "Tokens of transcribing the user's audio, added at the end of a session",
    ),
    counter(
        "talkline_transcription_seconds_total",
        &[],
        "Seconds of audio transcribed by models that bill by time, added at the end of a session",
    ),
    counter(
        "talkline_cost_total",
        &[UPSTREAM, ("currency", "`prices.currency`")],
        "Cost of responses by the configured price table, added at the end of a session",
    ),
    counter(
        "talkline_token_refreshes_total",
        &[("result", "`ok`, `failed`")],
        "Attempts to get a token from Entra ID",
    ),
    gauge(
        "talkline_tokens_usable",
        &[],
        "Configured identities that have a token which may be presented",
    ),
    gauge(
        "talkline_token_identities",
        &[],
        "Configured identities that tokens are fetched for",
    ),
    gauge(
        "talkline_secret_age_seconds",
        &[(
            "secret",
            "number of the rotating key, in the order of the configuration",
        )],
        "Time since a rotating key was first seen as it is, at most since the start",
    ),
    gauge(
        "talkline_limit_store_up",
        &[],
        "1 unless the shared limit store failed to answer when it was last asked; absent without one",
    ),
    counter(
        "talkline_limit_store_failures_total",
        &[],
        "Questions that the shared limit store did not answer; absent without one",
    ),
    counter(
        "talkline_config_reloads_total",
        &[("result", "`ok`, `failed`")],
        "Times that the configuration was read anew",
    ),
    gauge(
        "talkline_config_last_reload_successful",
        &[],
        "1 unless the last reload failed and an older configuration is in use",
    ),
    gauge(
        "talkline_config_last_reload_success_timestamp_seconds",
        &[],
        "When a reload last succeeded, in seconds since 1970; 0 before the first",
    ),
    gauge(
        "talkline_draining",
        &[],
        "1 while the process drains its sessions before it ends",
    ),
    counter(
        "talkline_log_lines_dropped_total",
        &[],
        "Log lines dropped because standard error was not read",
    ),
    gauge(
        "talkline_build_info",
        &[("version", "the version")],
        "1, labelled with the version",
    ),
    gauge("process_open_fds", &[], "Open file descriptors"),
    gauge(
        "process_max_fds",
        &[],
        "Most open file descriptors that the system allows",
    ),
    gauge("process_resident_memory_bytes", &[], "Resident memory"),
    gauge(
        "process_start_time_seconds",
        &[],
        "When the process started, in seconds since 1970",
    ),
    counter(
        "process_cpu_seconds_total",
        &[],
        "Processor time, user and system",
    ),
];

type Labels = &'static [(&'static str, &'static str)];

const fn described(
    name: &'static str,
    kind: Kind,
    labels: Labels,
    help: &'static str,
) -> Described {
    Described {
        name,
        kind,
        labels,
        help,
    }
}

const fn counter(name: &'static str, labels: Labels, help: &'static str) -> Described {
    described(name, Kind::Counter, labels, help)
}

const fn gauge(name: &'static str, labels: Labels, help: &'static str) -> Described {
    described(name, Kind::Gauge, labels, help)
}

const fn histogram(name: &'static str, labels: Labels, help: &'static str) -> Described {
    described(name, Kind::Histogram, labels, help)
}

/// What the table says about a family.
pub(super) fn help(name: &str) -> &'static str {
    let found = ALL.iter().find(|described| described.name == name);
    found.map_or("", |described| described.help)
}

/// The page `docs/reference/metrics.md`.
#[must_use]
pub fn reference() -> String {
    let mut page = String::from(PREFACE);
    for described in ALL {
        let kind = match described.kind {
            Kind::Counter => "Counter",
            Kind::Gauge => "Gauge",
            Kind::Histogram => "Histogram",
        };
        let _ = write!(
            page,
            "\n### {}\n\n{}. {kind}.\n",
            described.name, described.help
        );
        if !described.labels.is_empty() {
            page.push('\n');
        }
        for (label, values) in described.labels {
            let _ = writeln!(page, "- `{label}`: {values}");
        }
    }
    page
}

const PREFACE: &str = "\
# Metrics

Made from the code: change `crates/talkline-gateway/src/metrics/families.rs`, then run
`TALKLINE_BLESS=1 cargo test -p talkline-gateway`.

`GET /metrics` on the admin listener answers in the Prometheus text format, or in OpenMetrics where the
reader asks for it. A family appears when it has something to tell. No label has a value that a client or
an upstream chose.

## Families
";

// === Labels ===

macro_rules! labels {
    ($($name:ident { $($field:ident: $type:ty),+ })+) => {$(
        #[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
        struct $name { $($field: $type),+ }
    )+};
}

labels! {
    UpstreamLabel { upstream: &'static str }
    SessionLabel { upstream: &'static str, outcome: &'static str }
    PhaseLabel { phase: &'static str }
    RefusalLabel { code: &'static str, blame: &'static str, permanence: &'static str }
    ClientRefusalLabel { status: u16, code: &'static str }
    BudgetLabel { budget: &'static str }
    CodeLabel { code: &'static str }
    FromLabel { from: &'static str }
    SideLabel { side: &'static str }
    StatusLabel { status: &'static str }
    TokenLabel { upstream: &'static str, direction: &'static str, modality: &'static str }
    DirectionLabel { direction: &'static str }
    CostLabel { upstream: &'static str, currency: Cow<'static, str> }
    ResultLabel { result: &'static str }
    VersionLabel { version: &'static str }
}

// === Instruments ===

/// Makes the histograms of a family, all with the same buckets.
#[derive(Clone, Copy)]
struct Buckets(fn() -> Histogram);

impl MetricConstructor<Histogram> for Buckets {
    fn new_metric(&self) -> Histogram {
        self.0()
    }
}

/// 1 ms to 16 s: what a person waits for.
fn waits() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 15))
}

/// 1 µs to 33 ms: what the relay itself takes.
fn moments() -> Histogram {
    Histogram::new(exponential_buckets(0.000_001, 2.0, 16))
}

/// 1 s to 1 h: Realtime sessions end after 60 minutes.
fn lengths() -> Histogram {
    Histogram::new([
        1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0, 3600.0,
    ])
}

pub(crate) struct Families {
    sessions: Family<SessionLabel, Counter>,
    sessions_active: Family<UpstreamLabel, Gauge>,
    session_duration: Family<UpstreamLabel, Histogram, Buckets>,
    handshake: Family<PhaseLabel, Histogram, Buckets>,
    refusals: Family<RefusalLabel, Counter>,
    client_refusals: Family<ClientRefusalLabel, Counter>,
    full: Family<BudgetLabel, Counter>,
    incidents: Family<CodeLabel, Counter>,
    frames: Family<FromLabel, Counter>,
    messages: Family<FromLabel, Counter>,
    bytes: Family<FromLabel, Counter>,
    stalls: Family<FromLabel, Counter>,
    stalled: Family<FromLabel, Amount>,
    spilled: Family<FromLabel, Counter>,
    pings: Family<SideLabel, Histogram, Buckets>,
    pub(super) added_latency: Histogram,
    pub(super) first_audio: Histogram,
    pub(super) speech_to_audio: Histogram,
    pub(super) cancel_to_silence: Histogram,
    responses: Family<StatusLabel, Counter>,
    tokens: Family<TokenLabel, Counter>,
    transcription_tokens: Family<DirectionLabel, Counter>,
    transcription_seconds: Amount,
    cost: Family<CostLabel, Amount>,
    config_reloads: Family<ResultLabel, Counter>,
    pub(super) config_reload_ok: Gauge,
    pub(super) config_reload_time: Gauge,
}

impl Families {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let mut put = Register(registry);
        let waits_by = || Buckets(waits);
        let families = Self {
            sessions: put.family("talkline_sessions_total"),
            sessions_active: put.family("talkline_sessions_active"),
            session_duration: put.buckets("talkline_session_duration_seconds", Buckets(lengths)),
            handshake: put.buckets("talkline_handshake_phase_seconds", waits_by()),
            refusals: put.family("talkline_refusals_total"),
            client_refusals: put.family("talkline_client_refusals_total"),
            full: put.family("talkline_full_total"),
            incidents: put.family("talkline_incidents_total"),
            frames: put.family("talkline_frames_total"),
            messages: put.family("talkline_messages_total"),
            bytes: put.family("talkline_bytes_total"),
            stalls: put.family("talkline_stalls_total"),
            stalled: put.family("talkline_stalled_seconds_total"),
            spilled: put.family("talkline_spilled_bytes_total"),
            pings: put.buckets("talkline_ping_round_trip_seconds", waits_by()),
            added_latency: put.metric("talkline_added_latency_seconds", moments()),
            first_audio: put.metric("talkline_first_audio_seconds", waits()),
            speech_to_audio: put.metric("talkline_speech_to_audio_seconds", waits()),
            cancel_to_silence: put.metric("talkline_cancel_to_silence_seconds", waits()),
            responses: put.family("talkline_responses_total"),
            tokens: put.family("talkline_tokens_total"),
            transcription_tokens: put.family("talkline_transcription_tokens_total"),
            transcription_seconds: put
                .metric("talkline_transcription_seconds_total", Amount::default()),
            cost: put.family("talkline_cost_total"),
            config_reloads: put.family("talkline_config_reloads_total"),
            config_reload_ok: put
                .metric("talkline_config_last_reload_successful", Gauge::default()),
            config_reload_time: put.metric(
                "talkline_config_last_reload_success_timestamp_seconds",
                Gauge::default(),
            ),
        };
        put.metric(
            "talkline_build_info",
            Family::<VersionLabel, Gauge>::default(),
        )
        .get_or_create(&VersionLabel {
            version: env!("CARGO_PKG_VERSION"),
        })
        .set(1);
        families
    }

    pub(super) fn session(&self, kind: UpstreamKind, outcome: &'static str) -> Counter {
        let upstream = kind_word(kind);
        let label = SessionLabel { upstream, outcome };
        self.sessions.get_or_create_owned(&label)
    }

    pub(super) fn sessions_active(&self, kind: UpstreamKind) -> Gauge {
        let upstream = kind_word(kind);
        let label = UpstreamLabel { upstream };
        self.sessions_active.get_or_create_owned(&label)
    }

    pub(super) fn session_duration(&self, kind: UpstreamKind) -> Histogram {
        let upstream = kind_word(kind);
        let label = UpstreamLabel { upstream };
        self.session_duration.get_or_create_owned(&label)
    }

    pub(super) fn handshake(&self, phase: &'static str) -> Histogram {
        self.handshake.get_or_create_owned(&PhaseLabel { phase })
    }

    pub(super) fn refusal(&self, diagnosis: &Diagnosis) -> Counter {
        let label = RefusalLabel {
            code: diagnosis.code,
            blame: diagnosis.blame.as_str(),
            permanence: diagnosis.permanence.as_str(),
        };
        self.refusals.get_or_create_owned(&label)
    }

    pub(super) fn client_refusal(&self, status: u16, code: &'static str) -> Counter {
        let label = ClientRefusalLabel { status, code };
        self.client_refusals.get_or_create_owned(&label)
    }

    pub(super) fn full(&self, budget: &'static str) -> Counter {
        self.full.get_or_create_owned(&BudgetLabel { budget })
    }

    pub(super) fn incident(&self, code: &'static str) -> Counter {
        self.incidents.get_or_create_owned(&CodeLabel { code })
    }

    pub(super) fn add_traffic(&self, side: Side, traffic: &Traffic) {
        let from = from(side);
        self.frames.get_or_create(&from).inc_by(traffic.frames);
        self.messages.get_or_create(&from).inc_by(traffic.messages);
        self.bytes.get_or_create(&from).inc_by(traffic.bytes);
    }

    pub(super) fn add_stalls(&self, side: Side, stalls: &Stalls) {
        let from = from(side);
        self.stalls.get_or_create(&from).inc_by(stalls.count);
        self.stalled
            .get_or_create(&from)
            .inc_by(stalls.time.as_secs_f64());
        self.spilled
            .get_or_create(&from)
            .inc_by(stalls.spilled_bytes);
    }

    pub(super) fn ping(&self, side: Side) -> Histogram {
        let side = from(side).from;
        self.pings.get_or_create_owned(&SideLabel { side })
    }

    pub(super) fn add_responses(&self, responses: &Responses) {
        for (status, count) in [
            ("completed", responses.completed),
            ("cancelled", responses.cancelled),
            ("incomplete", responses.incomplete),
            ("failed", responses.failed),
            ("other", responses.other),
        ] {
            if count > 0 {
                let label = StatusLabel { status };
                self.responses.get_or_create(&label).inc_by(count);
            }
        }
    }

    pub(super) fn add_usage(&self, kind: UpstreamKind, usage: &Usage) {
        let upstream = kind_word(kind);
        for (direction, tokens) in [
            ("input", &usage.input),
            ("cached_input", &usage.cached),
            ("output", &usage.output),
        ] {
            for (modality, count) in by_modality(tokens) {
                if count > 0 {
                    let label = TokenLabel {
                        upstream,
                        direction,
                        modality,
                    };
                    self.tokens.get_or_create(&label).inc_by(count);
                }
            }
        }
    }

    pub(super) fn add_transcription(&self, transcription: &Transcription) {
        for (direction, count) in [
            ("input", transcription.input_tokens),
            ("output", transcription.output_tokens),
        ] {
            if count > 0 {
                let label = DirectionLabel { direction };
                self.transcription_tokens
                    .get_or_create(&label)
                    .inc_by(count);
            }
        }
        self.transcription_seconds.inc_by(transcription.seconds);
    }

    pub(super) fn cost(&self, kind: UpstreamKind, currency: &str) -> Amount {
        let label = CostLabel {
            upstream: kind_word(kind),
            currency: currency.to_owned().into(),
        };
        self.cost.get_or_create_owned(&label)
    }

    pub(super) fn config_reload(&self, taken_over: bool) -> Counter {
        let result = if taken_over { "ok" } else { "failed" };
        self.config_reloads
            .get_or_create_owned(&ResultLabel { result })
    }
}

fn by_modality(tokens: &Modalities) -> [(&'static str, u64); 3] {
    [
        ("text", tokens.text),
        ("audio", tokens.audio),
        ("image", tokens.image),
    ]
}

fn from(side: Side) -> FromLabel {
    let from = match side {
        Side::Client => "client",
        Side::Upstream => "upstream",
    };
    FromLabel { from }
}

/// Registers families under the help of the table.
struct Register<'r>(&'r mut Registry);

impl Register<'_> {
    fn metric<M: prometheus_client::registry::Metric + Clone>(
        &mut self,
        name: &str,
        metric: M,
    ) -> M {
        // The encoder puts `_total` behind a counter's name itself.
        let plain = name.strip_suffix("_total").unwrap_or(name);
        // The encoder puts a full stop behind the help.
        self.0.register(plain, help(name), metric.clone());
        metric
    }

    fn family<S, M>(&mut self, name: &str) -> Family<S, M>
    where
        S: Clone + std::hash::Hash + Eq,
        M: Default,
        Family<S, M>: prometheus_client::registry::Metric,
    {
        self.metric(name, Family::default())
    }

    fn buckets<S>(&mut self, name: &str, buckets: Buckets) -> Family<S, Histogram, Buckets>
    where
        S: Clone + std::hash::Hash + Eq,
        Family<S, Histogram, Buckets>: prometheus_client::registry::Metric,
    {
        self.metric(name, Family::new_with_constructor(buckets))
    }
}
