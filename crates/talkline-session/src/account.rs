//! Counting: tokens, responses and errors, read from the upstream's control events as they pass.

use std::fmt;
use std::time::{Duration, Instant};

use serde::{Deserialize, Deserializer};
use talkline_dialect::{Incident, IncidentKind};
use talkline_frame::EventType;

use crate::close::sanitize;
use crate::incidents::{Incidents, Observer};
use crate::summary::{
    Errors, Modalities, RateLimit, ResponseUsage, Responses, Summary, Transcription, Usage,
};

/// Longest code, id or name that is kept of an event.
const WORD_BYTES_MAX: usize = 64;

/// Capacity that the collecting buffer keeps from one event to the next.
const BUFFER_BYTES_KEPT: usize = 4 << 10;

/// Most lines of a `rate_limits.updated` that are kept.
const RATE_LIMITS_MAX: usize = 8;

/// Who is told what each response cost.
type ResponseObserver = Box<dyn FnMut(&ResponseUsage) + Send>;

/// The sums of one session, and the control event that is being collected.
pub(crate) struct Ledger {
    start: Instant,
    inspect_bytes_max: usize,
    collected: Vec<u8>,
    overflowed: bool,
    responses_ended: u64,
    response_observer: Option<ResponseObserver>,
    totals: Totals,
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ledger")
            .field("collected_bytes", &self.collected.len())
            .field("totals", &self.totals)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct Totals {
    /// Made when there is something to count: a session that only listens has none.
    counted: Option<Box<Counted>>,
    incidents: Incidents,
    session_id: Option<String>,
    expires_at: Option<u64>,
    first_audio: Option<Duration>,
    uninspected: u64,
}

#[derive(Debug, Default)]
struct Counted {
    usage: Usage,
    transcription: Transcription,
    responses: Responses,
    errors: Errors,
    rate_limits: Vec<RateLimit>,
}

/// The events that are read, in GA and in preview names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ControlEvent {
    Session,
    ResponseDone,
    Error,
    RateLimits,
    TranscriptionCompleted,
    TranscriptionFailed,
}

impl ControlEvent {
    fn from_type(name: &str) -> Option<Self> {
        Some(match name {
            "session.created"
            | "session.updated"
            | "session.started"
            | "session.closed"
            | "session.usage.updated"
            | "transcription_session.created"
            | "transcription_session.updated" => Self::Session,
            "response.done" => Self::ResponseDone,
            "error" => Self::Error,
            "rate_limits.updated" => Self::RateLimits,
            "conversation.item.input_audio_transcription.completed" => Self::TranscriptionCompleted,
            "conversation.item.input_audio_transcription.failed" => Self::TranscriptionFailed,
            _ => return None,
        })
    }
}

/// Audio deltas of GA, preview and translation sessions.
fn is_audio_delta(name: &str) -> bool {
    matches!(
        name,
        "response.output_audio.delta" | "response.audio.delta" | "session.output_audio.delta"
    )
}

impl Ledger {
    pub(crate) fn new(inspect_bytes_max: usize, start: Instant) -> Self {
        Self {
            start,
            inspect_bytes_max,
            collected: Vec::new(),
            overflowed: false,
            responses_ended: 0,
            response_observer: None,
            totals: Totals::default(),
        }
    }

    pub(crate) fn observe_responses(&mut self, observer: ResponseObserver) {
        self.response_observer = Some(observer);
    }

    pub(crate) fn observe(&mut self, observer: Observer) {
        self.totals.incidents.observe(observer);
    }

    /// Sees a piece of a text message of the upstream. Keeps it only while the event may be, or is, one
    /// that is read.
    pub(crate) fn on_payload(&mut self, event_type: EventType<'_>, piece: &[u8]) {
        let wanted = match event_type {
            EventType::Searching => true,
            EventType::Found(name) => ControlEvent::from_type(name).is_some(),
            EventType::Unusable | EventType::Absent => false,
        };
        if !wanted {
            self.collected.clear();
        } else if self.overflowed || self.collected.len() + piece.len() > self.inspect_bytes_max {
            self.overflowed = true;
            self.collected = Vec::new();
        } else {
            self.collected.extend_from_slice(piece);
        }
    }

    /// Sees the end of a message of the upstream.
    pub(crate) fn on_message(&mut self, event_type: EventType<'_>, now: Instant) {
        if let Some(name) = event_type.name() {
            if self.totals.first_audio.is_none() && is_audio_delta(name) {
                self.totals.first_audio = Some(now.saturating_duration_since(self.start));
            }
            if let Some(event) = ControlEvent::from_type(name) {
                let read = match self.overflowed {
                    false => self.totals.read(event, &self.collected).ok(),
                    true => None,
                };
                self.totals.uninspected += u64::from(read.is_none());
                if event == ControlEvent::ResponseDone {
                    self.response_ended(read.flatten());
                }
            }
        }
        self.overflowed = false;
        self.collected.clear();
        if self.collected.capacity() > BUFFER_BYTES_KEPT {
            self.collected = Vec::new();
        }
    }

    fn response_ended(&mut self, usage: Option<Usage>) {
        self.responses_ended += 1;
        let usage = ResponseUsage {
            responses: self.responses_ended,
            usage,
        };
        if let Some(observer) = &mut self.response_observer {
            observer(&usage);
        }
    }

    pub(crate) fn into_summary(self, now: Instant) -> Summary {
        let totals = self.totals;
        let counted = totals.counted.map(|boxed| *boxed).unwrap_or_default();
        Summary {
            usage: counted.usage,
            transcription: counted.transcription,
            responses: counted.responses,
            errors: counted.errors,
            incidents: totals.incidents.into_counts(),
            rate_limits: counted.rate_limits,
            upstream_session_id: totals.session_id,
            upstream_expires_at: totals.expires_at,
            first_audio: totals.first_audio,
            duration: now.saturating_duration_since(self.start),
            uninspected: totals.uninspected,
            ..Summary::default()
        }
    }
}

impl Totals {
    /// Adds an event to the sums; returns what it cost when it ends a response that says so.
    fn read(
        &mut self,
        event: ControlEvent,
        json: &[u8],
    ) -> Result<Option<Usage>, serde_json::Error> {
        match event {
            ControlEvent::Session => {
                let session = serde_json::from_slice::<SessionEvent>(json)?
                    .session
                    .unwrap_or_default();
                self.session_id = self.session_id.take().or(session.id.as_deref().map(word));
                self.expires_at = session.expires_at.or(self.expires_at);
            }
            ControlEvent::ResponseDone => {
                let response = serde_json::from_slice::<ResponseEvent>(json)?.response;
                self.count_response(response.status.as_deref());
                let details = response.status_details.unwrap_or_default();
                let kind = match response.status.as_deref() {
                    Some("failed") => Some(IncidentKind::ResponseFailed),
                    Some("incomplete") => Some(IncidentKind::ResponseIncomplete),
                    _ => None,
                };
                if let Some(kind) = kind {
                    let mut error = details.error.unwrap_or_default();
                    error.code = error.code.or(details.reason);
                    self.incidents.count(&error.incident(kind));
                }
                let usage = response.usage.map(Usage::from);
                self.counted().usage.add(usage.unwrap_or_default());
                return Ok(usage);
            }
            ControlEvent::Error => {
                let error = serde_json::from_slice::<ErrorEvent>(json)?
                    .error
                    .unwrap_or_default();
                self.incidents.count(&error.incident(IncidentKind::Error));
                let code = error.code.or(error.kind);
                let errors = &mut self.counted().errors;
                errors.count += 1;
                errors.last_code = code.as_deref().map(word).or(errors.last_code.take());
            }
            ControlEvent::RateLimits => {
                let lines = serde_json::from_slice::<RateLimitsEvent>(json)?.rate_limits;
                self.counted().rate_limits = lines
                    .into_iter()
                    .take(RATE_LIMITS_MAX)
                    .map(Into::into)
                    .collect();
            }
            ControlEvent::TranscriptionCompleted => {
                let usage = serde_json::from_slice::<TranscriptionEvent>(json)?.usage;
                self.counted().transcription.add(usage.unwrap_or_default());
            }
            ControlEvent::TranscriptionFailed => {
                self.counted().transcription.failed += 1;
                let error = serde_json::from_slice::<ErrorEvent>(json)?
                    .error
                    .unwrap_or_default();
                self.incidents
                    .count(&error.incident(IncidentKind::TranscriptionFailed));
            }
        }
        Ok(None)
    }

    fn counted(&mut self) -> &mut Counted {
        self.counted.get_or_insert_default()
    }

    fn count_response(&mut self, status: Option<&str>) {
        let responses = &mut self.counted().responses;
        let counter = match status {
            Some("completed") => &mut responses.completed,
            Some("cancelled") => &mut responses.cancelled,
            Some("incomplete") => &mut responses.incomplete,
            Some("failed") => &mut responses.failed,
            _ => &mut responses.other,
        };
        *counter += 1;
    }
}

impl From<WireUsage> for Usage {
    fn from(wire: WireUsage) -> Self {
        let input = wire.input_token_details.unwrap_or_default();
        Self {
            input: Modalities {
                text: input.text_tokens.unwrap_or_default(),
                audio: input.audio_tokens.unwrap_or_default(),
                image: input.image_tokens.unwrap_or_default(),
            },
            cached: input.cached_tokens_details.unwrap_or_default().into(),
            output: wire.output_token_details.unwrap_or_default().into(),
            input_tokens: wire.input_tokens.unwrap_or_default(),
            cached_tokens: input.cached_tokens.unwrap_or_default(),
            output_tokens: wire.output_tokens.unwrap_or_default(),
            total_tokens: wire.total_tokens.unwrap_or_default(),
        }
    }
}

impl From<WireModalities> for Modalities {
    fn from(wire: WireModalities) -> Self {
        Self {
            text: wire.text_tokens.unwrap_or_default(),
            audio: wire.audio_tokens.unwrap_or_default(),
            image: wire.image_tokens.unwrap_or_default(),
        }
    }
}

impl Usage {
    fn add(&mut self, other: Self) {
        self.input.add(other.input);
        self.cached.add(other.cached);
        self.output.add(other.output);
        add(&mut self.input_tokens, Some(other.input_tokens));
        add(&mut self.cached_tokens, Some(other.cached_tokens));
        add(&mut self.output_tokens, Some(other.output_tokens));
        add(&mut self.total_tokens, Some(other.total_tokens));
    }
}

impl Modalities {
    fn add(&mut self, other: Self) {
        add(&mut self.text, Some(other.text));
        add(&mut self.audio, Some(other.audio));
        add(&mut self.image, Some(other.image));
    }
}

impl Transcription {
    fn add(&mut self, wire: WireUsage) {
        let input = wire.input_token_details.unwrap_or_default();
        self.completed += 1;
        add(&mut self.input_text, input.text_tokens);
        add(&mut self.input_audio, input.audio_tokens);
        add(&mut self.input_tokens, wire.input_tokens);
        add(&mut self.output_tokens, wire.output_tokens);
        add(&mut self.total_tokens, wire.total_tokens);
        let seconds = wire
            .seconds
            .filter(|seconds| seconds.is_finite() && *seconds > 0.0);
        self.seconds += seconds.unwrap_or_default();
    }
}

/// Adds a count of the upstream, which may be missing and must not overflow ours.
fn add(sum: &mut u64, count: Option<u64>) {
    *sum = sum.saturating_add(count.unwrap_or_default());
}

fn word(text: &str) -> String {
    sanitize(text, WORD_BYTES_MAX)
}

// What is read of each event. Everything else in it is skipped, and everything here may be missing.

#[derive(Deserialize)]
struct SessionEvent {
    session: Option<WireSession>,
}

#[derive(Default, Deserialize)]
struct WireSession {
    id: Option<String>,
    expires_at: Option<u64>,
}

#[derive(Deserialize)]
struct ResponseEvent {
    response: WireResponse,
}

#[derive(Deserialize)]
struct WireResponse {
    status: Option<String>,
    status_details: Option<WireDetails>,
    usage: Option<WireUsage>,
}

#[derive(Default, Deserialize)]
struct WireDetails {
    #[serde(default, deserialize_with = "lenient")]
    reason: Option<String>,
    error: Option<WireError>,
}

#[derive(Default, Deserialize)]
struct WireUsage {
    total_tokens: Option<u64>,
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    input_token_details: Option<WireInput>,
    output_token_details: Option<WireModalities>,
    seconds: Option<f64>,
}

#[derive(Default, Deserialize)]
struct WireInput {
    cached_tokens: Option<u64>,
    text_tokens: Option<u64>,
    audio_tokens: Option<u64>,
    image_tokens: Option<u64>,
    cached_tokens_details: Option<WireModalities>,
}

#[derive(Default, Deserialize)]
struct WireModalities {
    text_tokens: Option<u64>,
    audio_tokens: Option<u64>,
    image_tokens: Option<u64>,
}

#[derive(Deserialize)]
struct ErrorEvent {
    error: Option<WireError>,
}

#[derive(Default, Deserialize)]
struct WireError {
    #[serde(default, deserialize_with = "lenient")]
    code: Option<String>,
    #[serde(default, rename = "type", deserialize_with = "lenient")]
    kind: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    param: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    message: Option<String>,
}

impl WireError {
    fn incident(&self, kind: IncidentKind) -> Incident<'_> {
        Incident {
            kind,
            code: self.code.as_deref().unwrap_or_default(),
            error_type: self.kind.as_deref().unwrap_or_default(),
            param: self.param.as_deref().unwrap_or_default(),
            message: self.message.as_deref().unwrap_or_default(),
        }
    }
}

/// A string or a number: Azure's codes are now the one, now the other. Anything else is absent.
fn lenient<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(match serde_json::Value::deserialize(deserializer)? {
        serde_json::Value::String(text) => Some(text),
        serde_json::Value::Number(number) => Some(number.to_string()),
        _ => None,
    })
}

#[derive(Deserialize)]
struct RateLimitsEvent {
    rate_limits: Vec<WireRateLimit>,
}

#[derive(Deserialize)]
struct WireRateLimit {
    name: Option<String>,
    limit: Option<u64>,
    remaining: Option<u64>,
    reset_seconds: Option<f64>,
}

impl From<WireRateLimit> for RateLimit {
    fn from(wire: WireRateLimit) -> Self {
        Self {
            name: wire.name.as_deref().map(word).unwrap_or_default(),
            limit: wire.limit.unwrap_or_default(),
            remaining: wire.remaining.unwrap_or_default(),
            reset_seconds: wire.reset_seconds.unwrap_or_default(),
        }
    }
}

#[derive(Deserialize)]
struct TranscriptionEvent {
    usage: Option<WireUsage>,
}
