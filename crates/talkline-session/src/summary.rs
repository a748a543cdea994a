//! What is left of a session when it is over: the values of its canonical log line.

use std::time::Duration;

use crate::stalls::Stalls;

/// One session, summed up.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Summary {
    /// How it ended.
    pub end: End,
    /// What the client sent.
    pub client_to_upstream: Traffic,
    /// What the upstream sent.
    pub upstream_to_client: Traffic,
    /// Tokens of all responses.
    pub usage: Usage,
    /// Cost of transcribing the client's audio, billed apart from the responses.
    pub transcription: Transcription,
    /// Responses by status.
    pub responses: Responses,
    /// Error events of the upstream.
    pub errors: Errors,
    /// What went wrong in the session, by diagnosis: `error` events, failed or incomplete responses,
    /// failed transcriptions.
    pub incidents: Vec<IncidentCount>,
    /// The last `rate_limits.updated`.
    pub rate_limits: Vec<RateLimit>,
    /// The session id that the upstream gave in `session.created`.
    pub upstream_session_id: Option<String>,
    /// When the upstream will end the session, in seconds since the Unix epoch.
    pub upstream_expires_at: Option<u64>,
    /// From the start to the first audio delta.
    pub first_audio: Option<Duration>,
    /// From the start to the end.
    pub duration: Duration,
    /// Control events that were too long, or no JSON, and are missing from the sums.
    pub uninspected: u64,
    /// The close code that the client was sent, if one was.
    pub client_close_code: Option<u16>,
    /// How often and how long the client was not read, because the upstream did not keep up.
    pub client_stalls: Stalls,
    /// How often and how long the upstream was not read, because the client did not keep up.
    pub upstream_stalls: Stalls,
}

/// How a session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// Who began it.
    pub by: EndedBy,
    /// The close code that was received, or chosen by the relay; `None` when there was no code, as when
    /// a connection broke.
    pub code: Option<u16>,
    /// Why, in at most 123 bytes without control characters. Words of a peer: not for metrics.
    pub reason: String,
    /// What kind of end it was.
    pub kind: EndKind,
}

impl Default for End {
    fn default() -> Self {
        Self {
            by: EndedBy::Relay,
            code: None,
            reason: String::new(),
            kind: EndKind::Unfinished,
        }
    }
}

/// Who began the end of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EndedBy {
    /// The client.
    Client,
    /// The upstream.
    Upstream,
    /// The relay.
    Relay,
}

impl EndedBy {
    /// A stable word for logs and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Upstream => "upstream",
            Self::Relay => "relay",
        }
    }
}

/// The kinds of end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EndKind {
    /// A close frame came.
    Closed,
    /// A connection ended or broke without a close frame.
    Disconnected,
    /// A peer broke a rule of the protocol or exceeded a limit.
    Violation,
    /// Nothing came from a peer after a ping.
    PingTimeout,
    /// The caller stopped the session.
    Stopped,
    /// The session reached its longest time.
    SessionMax,
    /// The client said nothing for longer than it may.
    Idle,
    /// A peer took none of the bytes that waited for it.
    SlowConsumer,
    /// A peer did not go on with a frame that it had begun.
    FrameTimeout,
    /// The client sent more frames than it may.
    RateExceeded,
    /// The relay had no memory for a message that had to be held.
    Overloaded,
    /// The session policy did not let it go on.
    Policy,
    /// The session was summed up before it ended.
    Unfinished,
}

impl EndKind {
    /// A stable word for logs and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Disconnected => "disconnected",
            Self::Violation => "violation",
            Self::PingTimeout => "ping_timeout",
            Self::Stopped => "stopped",
            Self::SessionMax => "session_max",
            Self::Idle => "idle",
            Self::SlowConsumer => "slow_consumer",
            Self::FrameTimeout => "frame_timeout",
            Self::RateExceeded => "rate_exceeded",
            Self::Overloaded => "overloaded",
            Self::Policy => "policy",
            Self::Unfinished => "unfinished",
        }
    }
}

/// What one side sent, frames of the relay itself not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes read from the side, headers included.
    pub bytes: u64,
    /// Complete frames, control frames included.
    pub frames: u64,
    /// Complete messages.
    pub messages: u64,
}

/// Tokens, as the upstream counts them in `response.done`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens read, by modality, cached ones included.
    pub input: Modalities,
    /// Of those, tokens that came from the cache.
    pub cached: Modalities,
    /// Tokens written, by modality.
    pub output: Modalities,
    /// All tokens read.
    pub input_tokens: u64,
    /// All tokens read from the cache.
    pub cached_tokens: u64,
    /// All tokens written.
    pub output_tokens: u64,
    /// All tokens.
    pub total_tokens: u64,
}

/// What one response cost, from its `response.done`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseUsage {
    /// How many responses the session has had, this one included.
    pub responses: u64,
    /// Its tokens by modality. `None` when the upstream gave none, or when the event was no JSON or
    /// longer than [`Limits::inspect_bytes_max`](crate::Limits::inspect_bytes_max).
    pub usage: Option<Usage>,
}

/// Tokens by modality.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Modalities {
    /// Text tokens.
    pub text: u64,
    /// Audio tokens.
    pub audio: u64,
    /// Image tokens.
    pub image: u64,
}

/// What `conversation.item.input_audio_transcription.*` reported. Models bill by token or by time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Transcription {
    /// Finished transcriptions.
    pub completed: u64,
    /// Failed transcriptions.
    pub failed: u64,
    /// Text tokens read.
    pub input_text: u64,
    /// Audio tokens read.
    pub input_audio: u64,
    /// All tokens read.
    pub input_tokens: u64,
    /// Tokens written.
    pub output_tokens: u64,
    /// All tokens.
    pub total_tokens: u64,
    /// Seconds of audio, from models that bill by time.
    pub seconds: f64,
}

/// Responses by the status of their `response.done`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Responses {
    /// Finished.
    pub completed: u64,
    /// Cancelled, by the client or by speech.
    pub cancelled: u64,
    /// Cut short by a limit or a filter.
    pub incomplete: u64,
    /// Failed.
    pub failed: u64,
    /// Any other status.
    pub other: u64,
}

/// The upstream's `error` events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Errors {
    /// How many came.
    pub count: u64,
    /// Code of the last one that had a code, sanitized and at most 64 bytes.
    pub last_code: Option<String>,
}

/// How often a session met one kind of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IncidentCount {
    /// Code of the diagnosis: one of a few that the table of `talkline-dialect` has.
    pub code: &'static str,
    /// How often.
    pub count: u64,
}

/// One line of `rate_limits.updated`.
#[derive(Clone, Debug, PartialEq)]
pub struct RateLimit {
    /// What is limited: `requests`, `tokens`.
    pub name: String,
    /// How much is allowed.
    pub limit: u64,
    /// How much is left.
    pub remaining: u64,
    /// Seconds until it is whole again.
    pub reset_seconds: f64,
}
