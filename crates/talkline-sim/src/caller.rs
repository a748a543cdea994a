//! A caller that holds one spoken turn: dials, speaks a recording, collects the reply, reports.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::wav::{self, Wav};

mod turn;
mod upgrade;

pub use turn::{hold_turn, spoken_turn};

/// What [`CallError::Connection`] was doing: looking the host's name up.
pub const RESOLVING: &str = "resolving the host";
/// What [`CallError::Connection`] was doing: opening the TCP connection.
pub const CONNECTING: &str = "connecting";
/// What [`CallError::Connection`] was doing: the TLS handshake.
pub const SECURING: &str = "shaking hands over TLS";

/// What [`CallError::Timeout`] was waiting for: the answer to the upgrade, connecting included.
pub const UPGRADING: &str = "the answer to the upgrade";

/// Below this, a reply counts as silence: -40 dBFS.
const AUDIBLE_RMS: f64 = 0.01;

/// The event vocabulary spoken on the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dialect {
    /// GA: nested session, `response.output_audio.delta`.
    #[default]
    Ga,
    /// Preview: flat session, `response.audio.delta`; `OpenAI-Beta: realtime=v1` is sent.
    Preview,
}

/// A credential, shown by no `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes the text as it is.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[secret]")
    }
}

/// Where to call, and how to be let in.
#[derive(Clone)]
pub struct Call {
    /// A `ws://` or `wss://` URL with the model or deployment in its query.
    pub url: String,
    /// Sent as `Authorization: Bearer`.
    pub bearer: Option<Secret>,
    /// Further request headers, such as `api-key`. They may hold credentials.
    pub headers: Vec<(String, Secret)>,
    /// Offered as `Sec-WebSocket-Protocol`. They may hold credentials. If any are offered, the answer must choose
    /// one of them.
    pub subprotocols: Vec<Secret>,
    /// What `wss://` needs to trust; it is an error for a `wss://` URL to have none.
    pub tls: Option<Arc<rustls::ClientConfig>>,
    /// The vocabulary to speak.
    pub dialect: Dialect,
}

impl Call {
    /// A call without credentials, in the GA dialect.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            bearer: None,
            headers: Vec::new(),
            subprotocols: Vec::new(),
            tls: None,
            dialect: Dialect::Ga,
        }
    }
}

impl std::fmt::Debug for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Call")
            .field("url", &redacted(&self.url))
            .field("bearer", &self.bearer)
            .field("headers", &self.headers)
            .field("subprotocols", &self.subprotocols)
            .field("tls", &self.tls.is_some())
            .field("dialect", &self.dialect)
            .finish()
    }
}

/// The vocabulary that a `session` object is written in, if that can be told.
fn dialect_of(session: &Value) -> Option<Dialect> {
    let has = |name: &str| session.get(name).is_some();
    if has("audio") || has("output_modalities") {
        Some(Dialect::Ga)
    } else if has("modalities") || has("input_audio_format") {
        Some(Dialect::Preview)
    } else {
        None
    }
}

/// A URL without its query, which may hold a key.
fn redacted(url: &str) -> String {
    match url.split_once('?') {
        Some((before, _)) => format!("{before}?[query]"),
        None => url.to_owned(),
    }
}

/// How fast the recording is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Speed {
    /// 40 ms of audio every 40 ms.
    #[default]
    RealTime,
    /// As fast as the line takes it.
    Fast,
}

/// What the caller says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// A recording at 24 kHz. The service's turn detection, which is on by default, must notice its end.
    Spoken(Wav),
    /// A text message, after which a reply is asked for.
    Written(String),
}

/// How far a turn has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Progress<'a> {
    /// The upgrade was answered with 101.
    Upgraded,
    /// `session.created` came.
    SessionCreated,
    /// The question is being said, which takes this long.
    Asking(Duration),
    /// The service noticed the end of the speech, or was asked for the reply.
    Asked,
    /// The service says what it heard.
    Heard(&'a str),
    /// The first piece of the reply's audio came.
    FirstAudio,
    /// More words of the reply came.
    Reply(&'a str),
}

/// How the turn is held.
#[derive(Debug, Clone)]
pub struct TurnOptions {
    /// How fast to speak. Defaults to real time.
    pub speed: Speed,
    /// The model asked to transcribe the question; on Azure, a deployment's name. `None` asks for none, and then
    /// the report's input transcript stays empty. Defaults to `gpt-4o-mini-transcribe`.
    pub transcription_model: Option<String>,
    /// Whether the turn goes on when the question is not transcribed, as on Azure without a deployment for it.
    /// [`TurnReport::transcription_failure`] then says why. Defaults to no.
    pub transcription_may_fail: bool,
    /// Whether the vocabulary that `session.created` is written in is spoken, whatever [`Call::dialect`] says.
    /// Defaults to no.
    pub follow_dialect: bool,
    /// Instructions for the session. Defaults to none.
    pub instructions: Option<String>,
    /// Silence appended after the recording so that the service notices its end. Defaults to 2 seconds.
    pub trailing_silence: Duration,
    /// Longest wait for each step: the upgrade, each awaited event. Defaults to 15 seconds.
    pub step_max: Duration,
    /// Longest time for the whole turn. Defaults to 60 seconds.
    pub turn_max: Duration,
}

impl Default for TurnOptions {
    fn default() -> Self {
        Self {
            speed: Speed::RealTime,
            transcription_model: Some("gpt-4o-mini-transcribe".to_owned()),
            transcription_may_fail: false,
            follow_dialect: false,
            instructions: None,
            trailing_silence: Duration::from_secs(2),
            step_max: Duration::from_secs(15),
            turn_max: Duration::from_secs(60),
        }
    }
}

/// How long things took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Latencies {
    /// From the start of the connection to the 101.
    pub upgraded: Duration,
    /// From the start of the connection to `session.created`.
    pub session_created: Duration,
    /// From the last piece of the recording, its silence not counted, or from the written question, to the first
    /// piece of the reply's audio.
    pub speech_end_to_first_audio: Duration,
    /// From the start of the connection to the end of the turn.
    pub total: Duration,
}

/// What a turn brought.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct TurnReport {
    /// The session's id, as `session.created` gave it.
    pub session_id: String,
    /// The model, as `session.created` gave it.
    pub model: String,
    /// The vocabulary that was spoken.
    pub dialect: Dialect,
    /// What the service understood, or what was written.
    pub input_transcript: String,
    /// Why the question was not transcribed: the `error` of the event that said so.
    pub transcription_failure: Option<Value>,
    /// What the service says it answered.
    pub reply_transcript: String,
    /// The answer's audio: 24 kHz mono.
    pub reply_samples: Vec<i16>,
    /// `response.usage` of `response.done`, or null if it had none.
    pub usage: Value,
    /// How long things took.
    pub latencies: Latencies,
}

impl TurnReport {
    /// Whether this was a whole spoken turn.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.missing().is_empty()
    }

    /// What a whole spoken turn has and this one lacks, in words.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        let total_tokens = self.usage.get("total_tokens").and_then(Value::as_u64);
        let parts = [
            (
                !self.input_transcript.trim().is_empty(),
                "transcript of the question",
            ),
            (
                !self.reply_transcript.trim().is_empty(),
                "transcript of the reply",
            ),
            (wav::rms(&self.reply_samples) > AUDIBLE_RMS, "audible reply"),
            (total_tokens.is_some_and(|total| total > 0), "usage"),
        ];
        let lacking = parts.into_iter().filter(|(present, _)| !present);
        lacking.map(|(_, name)| name).collect()
    }

    /// The reply as a recording.
    #[must_use]
    pub fn reply(&self) -> Wav {
        Wav::from_samples(24_000, self.reply_samples.clone())
    }
}

/// Why there was no turn.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The URL, a header or the recording is not usable. The caller's own fault.
    #[error("unusable call: {0}")]
    Unusable(String),
    /// No TCP connection, or it broke: wrong address, nobody listening, network.
    #[error("{doing}")]
    Connection {
        /// What was being done.
        doing: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// The upgrade was refused with an HTTP status.
    #[error("the upgrade was refused with HTTP {status}")]
    Refused {
        /// The status.
        status: u16,
        /// The headers in the order received; `location` is left out, since it may hold a key.
        headers: Vec<(String, String)>,
        /// The body, cut at 16 KiB; bytes beyond UTF-8 are replaced.
        body: String,
    },
    /// A 101 or a frame that breaks RFC 6455: something between here and the service is not a WebSocket.
    #[error("the other side broke the WebSocket protocol: {0}")]
    Protocol(String),
    /// An `error` event, or a reply that failed.
    #[error("the service reported an error: {message} (code {code})")]
    Event {
        /// `error.code`, or empty.
        code: String,
        /// `error.message`, or empty.
        message: String,
        /// The event as it came.
        event: Value,
    },
    /// The service closed the session before the turn was over.
    #[error("the session was closed with code {code}: {reason}")]
    Closed {
        /// The close code; 1005 for a close frame without, 1006 for a connection that ended without a close frame.
        code: u16,
        /// The reason, or empty.
        reason: String,
    },
    /// Nothing came in time.
    #[error("timed out waiting for {waiting_for}")]
    Timeout {
        /// What did not come.
        waiting_for: &'static str,
    },
}
