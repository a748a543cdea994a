//! Why an event goes no further, and how its sender is told.

use serde::Serialize;

use super::guard::Farewell;
use super::json::Fault;
use crate::Close;

/// Longest `event_id` that is quoted in an answer (OpenAI API reference: at most 512 characters).
const EVENT_ID_BYTES_MAX: usize = 512;

/// Longest type or name that is quoted.
const NAME_BYTES_MAX: usize = 64;

/// Close code of a session that the policy ends: no SDK takes 1008 for a reason to connect again.
const POLICY_VIOLATION: u16 = 1008;

/// Why an event goes no further.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) code: &'static str,
    pub(super) param: Option<String>,
    pub(super) message: String,
}

impl Refusal {
    pub(super) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            param: None,
            message: message.into(),
        }
    }

    pub(super) fn at(mut self, param: impl Into<String>) -> Self {
        self.param = Some(param.into());
        self
    }

    pub(super) fn malformed(param: &str) -> Self {
        let message = format!("`{param}` does not have the form that it has in the Realtime API");
        Self::new("policy_malformed_event", message).at(param)
    }

    pub(super) fn pinned(param: &str) -> Self {
        let message =
            format!("`{param}` is set by the operator of this relay and cannot be changed");
        Self::new("policy_pinned", message).at(param)
    }

    pub(super) fn event(name: &str) -> Self {
        let message =
            match name.len() <= NAME_BYTES_MAX && name.bytes().all(|b| b.is_ascii_graphic()) {
                true => format!("events of type `{name}` are not allowed in this session"),
                false => "events of this type are not allowed in this session".to_owned(),
            };
        Self::new("policy_event_not_allowed", message).at("type")
    }

    /// The answer to the client.
    pub(super) fn to_event(&self, number: u64, event_id: Option<&str>) -> String {
        error_event(number, "invalid_request_error", self, event_id)
    }
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Malformed => {
                Self::new("policy_malformed_event", "the message is not a JSON event")
            }
            Fault::Ambiguous => Self::new(
                "policy_ambiguous_event",
                "the event can be read in more than one way: a key stands twice in one object, a key holds \
                 NUL, or a number is out of range",
            ),
            Fault::Excessive => Self::new(
                "policy_event_too_large",
                "the event is nested too deeply or has too many values to be checked",
            ),
        }
    }
}

/// An event of the client's that cannot be held.
pub(super) fn too_large() -> Refusal {
    Refusal::new(
        "policy_event_too_large",
        "the event is larger than what this relay checks; only audio may be larger",
    )
}

/// An event of the upstream's that cannot be shown.
pub(super) fn withheld() -> Refusal {
    Refusal::new(
        "policy_event_withheld",
        "an event of the upstream could not be checked and was not passed on",
    )
}

/// The end of a session whose policy is not in force. `code` is the upstream's word for why.
pub(super) fn not_applied(number: u64, code: Option<&str>) -> Farewell {
    let mut message =
        "the upstream did not take the session settings of this relay's operator".to_owned();
    // Its sentence may quote the settings; a code is a word.
    let is_word = |code: &&str| {
        code.len() <= NAME_BYTES_MAX && code.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    };
    if let Some(code) = code.filter(is_word) {
        message.push_str(": ");
        message.push_str(code);
    }
    farewell(
        number,
        "server_error",
        &Refusal::new("policy_not_applied", message),
    )
}

/// The end of a session in which an audio append turned out to be something else.
pub(super) fn breach(number: u64) -> Farewell {
    let refusal = Refusal::new(
        "policy_breach",
        "an audio append turned out to be more than `type`, `audio` and `event_id`",
    );
    farewell(number, "invalid_request_error", &refusal)
}

fn farewell(number: u64, kind: &'static str, refusal: &Refusal) -> Farewell {
    Farewell {
        event: error_event(number, kind, refusal, None),
        close: Close::new(POLICY_VIOLATION, refusal.code),
    }
}

fn error_event(number: u64, kind: &str, refusal: &Refusal, event_id: Option<&str>) -> String {
    let event = Event {
        kind: "error",
        event_id: format!("event_talkline_policy_{number}"),
        error: Error {
            kind,
            code: refusal.code,
            message: &refusal.message,
            param: refusal.param.as_deref(),
            event_id: event_id.filter(|id| id.len() <= EVENT_ID_BYTES_MAX),
        },
    };
    serde_json::to_string(&event).expect("strings always serialize")
}

#[derive(Serialize)]
struct Event<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    event_id: String,
    error: Error<'a>,
}

#[derive(Serialize)]
struct Error<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    code: &'a str,
    message: &'a str,
    param: Option<&'a str>,
    event_id: Option<&'a str>,
}
