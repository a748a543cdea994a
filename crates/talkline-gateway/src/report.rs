//! What is logged: one line for each session's end, one for each refusal.
//!
//! Neither a payload nor a key, a token, a query string or a client's address is a field here.

use std::{sync::Arc, time::Duration};

use talkline_auth::{Client, ClientIdentity};
use talkline_config::{BilledTokens, Prices, Refusals, RouteMatch};
use talkline_dialect::{
    Ask, ClientDialect, Diagnosis, Incident, Intent, Upstream, UpstreamKind, UpstreamLoss,
};
use talkline_session::{EndKind, EndedBy, Parting, Summary, Usage};
use tracing::{debug, info, warn};

use crate::{
    dial::Phases,
    metrics::{self, Metrics},
};

/// A session that is over, or that an admitted client did not get: what is known of it, without a payload,
/// a secret or an address of a client. For exporters ([`Metrics::observe_sessions`]).
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct SessionRecord<'a> {
    /// The relay's id of it.
    pub session: &'a str,
    /// The client's name in the configuration, or its user's.
    pub client: &'a str,
    /// The model that the client asked for; empty when it named none.
    pub model: &'a str,
    /// The provider's name in the configuration; empty when no route was found.
    pub provider: &'a str,
    /// `azure`, `openai` or `custom`.
    pub kind: &'static str,
    /// Origin of the upstream; empty when no route was found.
    pub upstream: &'a str,
    /// The deployment, or the upstream's name of the model; empty when no route was found.
    pub deployment: &'a str,
    /// The upstream's id of the session.
    pub upstream_session: Option<&'a str>,
    /// The upstream's id of the handshake.
    pub request_id: Option<&'a str>,
    /// The region that answered.
    pub region: Option<&'a str>,
    /// How it ended, as `talkline_sessions_total` has it.
    pub outcome: &'static str,
    /// What went wrong: the code of a refusal, or an outcome that is not an ordinary end.
    pub error: Option<&'static str>,
    /// The close code that was received or chosen.
    pub close_code: Option<u16>,
    /// Time from the start of DNS to the upstream's answer.
    pub dialled: Duration,
    /// From both handshakes to the end; zero for a refusal.
    pub duration: Duration,
    /// From the start of the session to its first audio.
    pub first_audio: Option<Duration>,
    /// Tokens of all responses; `None` for a refusal.
    pub usage: Option<&'a Usage>,
}

/// Longest word of an upstream's event in a log line, in characters.
const WORD_CHARS_MAX: usize = 64;

/// What is known of a session before its first frame.
#[derive(Debug)]
pub(crate) struct SessionLabels {
    /// The relay's id of the session, also sent upstream and to the client.
    pub(crate) session: Box<str>,
    client: Arc<ClientIdentity>,
    alias: Box<str>,
    dialect: &'static str,
    intent: &'static str,
    route: Option<Route>,
    /// The upstream's id of the handshake.
    pub(crate) request_id: Option<Box<str>>,
    /// The region that answered.
    pub(crate) region: Option<Box<str>>,
    /// How its upstream is left.
    pub(crate) parting: Option<&'static Parting>,
    /// How long it took to reach the upstream.
    pub(crate) times: DialTimes,
}

/// Time from the start of DNS to the upstream's answer, and parts of it when that was 101. In microseconds,
/// because a session keeps them until its end and a [`Duration`] takes four times as much.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct DialTimes {
    total: u32,
    dns: u32,
    tcp: u32,
    tls: u32,
    upgrade: u32,
}

impl DialTimes {
    pub(crate) fn new(total: Duration, phases: &Phases) -> Self {
        // More than an hour is as good as an hour; every phase has a deadline.
        let micros = |time: Duration| u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
        Self {
            total: micros(total),
            dns: micros(phases.dns),
            tcp: micros(phases.tcp),
            tls: micros(phases.tls),
            upgrade: micros(phases.upgrade),
        }
    }

    fn total(self) -> Duration {
        Duration::from_micros(self.total.into())
    }
}

/// Where a session leads.
#[derive(Debug)]
struct Route {
    provider: Box<str>,
    upstream: Arc<Upstream>,
    /// What was asked for, of an upstream that has no deployment of its own.
    model: Option<Box<str>>,
}

/// What a transcription cost is told when it is finished, which may be after its speaker has left; no event
/// asks for it.
static TRANSCRIPTION_PARTING: Parting = Parting {
    ask: None,
    last_event: "session.closed",
    quiet_max: Duration::from_secs(1),
    wait_max: Duration::from_secs(5),
};

impl SessionLabels {
    pub(crate) fn new(client: &Client, ask: &Ask) -> Self {
        Self {
            session: new_session_id().into(),
            client: Arc::clone(client.identity()),
            alias: ask.alias.as_deref().unwrap_or_default().into(),
            dialect: match ask.dialect {
                ClientDialect::Ga => "ga",
                ClientDialect::Beta => "beta",
            },
            intent: match ask.intent {
                Intent::Conversation => "conversation",
                Intent::Transcription => "transcription",
            },
            route: None,
            request_id: None,
            region: None,
            parting: match ask.intent {
                Intent::Conversation => None,
                Intent::Transcription => Some(&TRANSCRIPTION_PARTING),
            },
            times: DialTimes::default(),
        }
    }

    /// What is asked of: for metrics.
    pub(crate) fn kind(&self) -> UpstreamKind {
        let route = self.route.as_ref();
        route.map_or(UpstreamKind::Custom, |route| route.upstream.kind())
    }

    fn provider(&self) -> &str {
        self.route.as_ref().map_or("", |route| &route.provider)
    }

    /// Made when it is asked for: a session keeps what is not to be had elsewhere.
    fn upstream(&self) -> String {
        let route = self.route.as_ref();
        route.map_or_else(String::new, |route| route.upstream.origin())
    }

    /// The deployment, or the model where the upstream knows that only.
    fn deployment(&self) -> &str {
        let Some(route) = &self.route else { return "" };
        match (route.upstream.deployment(), &route.model) {
            (Some(deployment), _) => deployment,
            (None, Some(model)) => model,
            (None, None) => "",
        }
    }

    fn record<'a>(&'a self, upstream: &'a str, outcome: &'static str) -> SessionRecord<'a> {
        SessionRecord {
            session: &self.session,
            client: &self.client.name,
            model: &self.alias,
            provider: self.provider(),
            kind: metrics::kind_word(self.kind()),
            upstream,
            deployment: self.deployment(),
            upstream_session: None,
            request_id: self.request_id.as_deref(),
            region: self.region.as_deref(),
            outcome,
            error: None,
            close_code: None,
            dialled: self.times.total(),
            duration: Duration::ZERO,
            first_audio: None,
            usage: None,
        }
    }

    pub(crate) fn routed(&mut self, route: &RouteMatch<'_>) {
        let is_named = route.upstream.deployment().is_some();
        self.route = Some(Route {
            provider: route.provider.into(),
            upstream: Arc::clone(route.upstream),
            model: (!is_named).then(|| route.alias.into()),
        });
    }
}

/// Writes the line of a session that is over, and counts it.
pub(crate) fn session_ended(
    metrics: &Metrics,
    prices: &Prices,
    labels: &SessionLabels,
    summary: &Summary,
) {
    let kind = labels.kind();
    metrics.session_ended(kind, summary);
    metrics.session_cost(kind, prices, labels.deployment(), summary);
    if let Some(after) = summary.first_audio {
        metrics.first_audio(after);
    }
    let outcome = metrics::outcome(summary);
    let upstream = labels.upstream();
    metrics.tell(&SessionRecord {
        upstream_session: summary.upstream_session_id.as_deref(),
        error: metrics::is_failure(summary.end.kind).then_some(outcome),
        close_code: summary.end.code,
        duration: summary.duration,
        first_audio: summary.first_audio,
        usage: Some(&summary.usage),
        ..labels.record(&upstream, outcome)
    });
    let Summary {
        end,
        client_to_upstream,
        upstream_to_client,
        usage,
        responses,
        errors,
        ..
    } = summary;
    let lost = upstream_loss(summary).map(Diagnosis::upstream_lost);
    info!(
        session = labels.session,
        client = labels.client.name,
        model = labels.alias,
        dialect = labels.dialect,
        intent = labels.intent,
        provider = labels.provider(),
        upstream,
        deployment = labels.deployment(),
        upstream_session = summary.upstream_session_id.as_deref(),
        request_id = labels.request_id.as_deref(),
        region = labels.region.as_deref(),
        ended_by = end.by.as_str(),
        end = end.kind.as_str(),
        code = lost.as_ref().map(|lost| lost.code),
        next_step = lost.as_ref().map(|lost| lost.next_step.as_str()),
        close_code = end.code,
        close_reason = end.reason,
        duration_ms = millis(summary.duration),
        dial_ms = labels.times.total / 1000,
        dns_ms = labels.times.dns / 1000,
        tcp_ms = labels.times.tcp / 1000,
        tls_ms = labels.times.tls / 1000,
        upgrade_ms = labels.times.upgrade / 1000,
        first_audio_ms = summary.first_audio.map(millis),
        client_frames = client_to_upstream.frames,
        client_bytes = client_to_upstream.bytes,
        upstream_frames = upstream_to_client.frames,
        upstream_bytes = upstream_to_client.bytes,
        responses_completed = responses.completed,
        responses_failed = responses.failed,
        responses_incomplete = responses.incomplete,
        error_events = errors.count,
        last_error = errors.last_code.as_deref(),
        transcriptions_failed = summary.transcription.failed,
        incidents = incident_counts(summary),
        tokens_total = usage.total_tokens,
        input_text_tokens = usage.input.text,
        input_audio_tokens = usage.input.audio,
        input_image_tokens = usage.input.image,
        cached_tokens = usage.cached_tokens,
        output_text_tokens = usage.output.text,
        output_audio_tokens = usage.output.audio,
        client_stalled_ms = millis(summary.client_stalls.time),
        upstream_stalled_ms = millis(summary.upstream_stalls.time),
        cost = cost(prices, labels, summary),
        "session ended"
    );
}

/// What the responses of a session are billed for.
pub(crate) fn billable(summary: &Summary) -> BilledTokens {
    let usage = &summary.usage;
    BilledTokens {
        input_text: usage.input.text,
        cached_input_text: usage.cached.text,
        input_audio: usage.input.audio,
        cached_input_audio: usage.cached.audio,
        input_image: usage.input.image,
        cached_input_image: usage.cached.image,
        output_text: usage.output.text,
        output_audio: usage.output.audio,
    }
}

fn cost(prices: &Prices, labels: &SessionLabels, summary: &Summary) -> Option<f64> {
    let price = prices.models.get(labels.deployment())?;
    Some(price.of(&billable(summary)))
}

/// Whether the session ended because its upstream was lost, and how.
fn upstream_loss(summary: &Summary) -> Option<UpstreamLoss> {
    match (summary.end.by, summary.end.kind) {
        (EndedBy::Upstream, EndKind::Disconnected) => Some(UpstreamLoss::Disconnected),
        (EndedBy::Upstream, EndKind::Violation) => Some(UpstreamLoss::ProtocolViolation),
        (EndedBy::Upstream, EndKind::PingTimeout) => Some(UpstreamLoss::PingTimeout),
        _ => None,
    }
}

/// `session_expired=1 session_rate_limited=3`, in the order in which they came first.
fn incident_counts(summary: &Summary) -> Option<String> {
    let counts: Vec<_> = summary
        .incidents
        .iter()
        .map(|incident| format!("{}={}", incident.code, incident.count))
        .collect();
    (!counts.is_empty()).then(|| counts.join(" "))
}

/// Logs the failures that the upstream reports in a session, when each is met for the first time.
///
/// The upstream's message may quote the client, so it is for DEBUG only.
pub(crate) fn incident(labels: &SessionLabels, incident: &Incident<'_>) {
    let session = &labels.session;
    let diagnosis = Diagnosis::in_session(incident, labels.kind());
    let message = incident.message;
    debug!(session, message, "the upstream reported a failure");
    if diagnosis.code == "session_out_of_turn" {
        // A race between client and model, which every conversation with interruptions has.
        return;
    }
    warn!(
        session,
        deployment = labels.deployment(),
        code = diagnosis.code,
        blame = diagnosis.blame.as_str(),
        permanence = diagnosis.permanence.as_str(),
        event = incident.kind.as_str(),
        upstream_code = word(incident.code),
        upstream_param = word(incident.param),
        summary = diagnosis.summary,
        next_step = diagnosis.next_step,
        "session impaired"
    );
}

/// A word of the upstream's, fit for a log line.
fn word(text: &str) -> Option<String> {
    let printable = |c: &char| c.is_ascii_graphic() || *c == ' ';
    let word: String = text
        .chars()
        .filter(printable)
        .take(WORD_CHARS_MAX)
        .collect();
    (!word.is_empty()).then_some(word)
}

pub(crate) fn session_refused(
    metrics: &Metrics,
    labels: &SessionLabels,
    delivery: Refusals,
    diagnosis: &Diagnosis,
) {
    metrics.session_refused(labels.kind(), diagnosis);
    let upstream = labels.upstream();
    metrics.tell(&SessionRecord {
        error: Some(diagnosis.code),
        ..labels.record(&upstream, "refused")
    });
    let answer = diagnosis.answer.as_ref();
    let (close_code, status) = match delivery {
        Refusals::InBand => (Some(diagnosis.permanence.close_code()), None),
        Refusals::Http => (None, Some(diagnosis.permanence.http_status())),
    };
    warn!(
        session = labels.session,
        client = labels.client.name,
        model = labels.alias,
        dialect = labels.dialect,
        intent = labels.intent,
        provider = labels.provider(),
        upstream,
        deployment = labels.deployment(),
        code = diagnosis.code,
        blame = diagnosis.blame.as_str(),
        permanence = diagnosis.permanence.as_str(),
        close_code,
        status,
        upstream_status = answer.map(|answer| answer.status),
        upstream_code = answer.and_then(|answer| answer.code.as_deref()),
        upstream_message = answer.and_then(|answer| answer.message.as_deref()),
        request_id = labels.request_id.as_deref(),
        region = labels.region.as_deref(),
        dial_ms = labels.times.total / 1000,
        summary = diagnosis.summary,
        next_step = diagnosis.next_step,
        "session refused"
    );
}

pub(crate) fn client_refused(metrics: &Metrics, status: u16, code: &'static str) {
    metrics.client_refused(status, code);
    info!(status, code, "client refused");
}

pub(crate) fn broker_refused(client: &str, diagnosis: &Diagnosis) {
    warn!(
        client,
        code = diagnosis.code,
        summary = diagnosis.summary,
        next_step = diagnosis.next_step,
        "client secret refused"
    );
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// 128 random bits: not guessable, and unique without any coordination.
pub(crate) fn new_session_id() -> String {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the operating system has randomness");
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("talk_{hex}")
}
