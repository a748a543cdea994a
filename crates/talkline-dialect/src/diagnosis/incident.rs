//! What goes wrong inside a session: events of the upstream that report a failure.
//!
//! They pass through to the client untouched; this is for counters and logs. Sources: OpenAI's
//! Realtime server events, the Realtime preview-to-GA migration guide of Microsoft Learn, and
//! failures that users have published.

use super::{Diagnosis, facts::Facts, table::Row};
use crate::UpstreamKind;

/// Which event reported it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IncidentKind {
    /// `error`.
    Error,
    /// `response.done` whose status is `failed`.
    ResponseFailed,
    /// `response.done` whose status is `incomplete`.
    ResponseIncomplete,
    /// `conversation.item.input_audio_transcription.failed`.
    TranscriptionFailed,
}

impl IncidentKind {
    /// The event as a word, for logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            IncidentKind::Error => "error",
            IncidentKind::ResponseFailed => "response_failed",
            IncidentKind::ResponseIncomplete => "response_incomplete",
            IncidentKind::TranscriptionFailed => "transcription_failed",
        }
    }
}

/// A failure that the upstream reported in a session. What it did not say is empty.
#[derive(Clone, Copy, Debug)]
pub struct Incident<'a> {
    /// Which event reported it.
    pub kind: IncidentKind,
    /// The error's code, or the reason of an incomplete response.
    pub code: &'a str,
    /// The error's type.
    pub error_type: &'a str,
    /// The parameter that it is about.
    pub param: &'a str,
    /// Its message. Only looked at, never part of the diagnosis: it may quote the client.
    pub message: &'a str,
}

impl Incident<'_> {
    /// Code of the diagnosis that it leads to.
    pub fn diagnosis_code(&self) -> &'static str {
        code_of(self)
    }
}

/// How an upstream can fail a session without a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UpstreamLoss {
    /// The connection ended or broke without a close frame.
    Disconnected,
    /// A frame broke RFC 6455 or exceeded a limit.
    ProtocolViolation,
    /// Nothing came after a ping.
    PingTimeout,
    /// It took no bytes, or did not go on with a frame.
    Stalled,
}

impl UpstreamLoss {
    /// Its stable code: in the error event, the close reason and the log.
    pub const fn code(self) -> &'static str {
        match self {
            UpstreamLoss::Disconnected => "upstream_disconnected",
            UpstreamLoss::ProtocolViolation => "upstream_protocol_violation",
            UpstreamLoss::PingTimeout => "upstream_ping_timeout",
            UpstreamLoss::Stalled => "upstream_stalled",
        }
    }
}

impl Diagnosis {
    /// Explains that an upstream was lost in the middle of a session.
    pub fn upstream_lost(loss: UpstreamLoss) -> Self {
        Row::named(loss.code()).diagnose(&Facts::default())
    }

    /// Explains a failure inside a session with an upstream of this kind.
    pub fn in_session(incident: &Incident<'_>, upstream: UpstreamKind) -> Self {
        let row = Row::named(code_of(incident));
        let diagnosis = row.diagnose(&Facts::default());
        match upstream {
            UpstreamKind::Azure => diagnosis,
            UpstreamKind::OpenAi | UpstreamKind::Custom => Self {
                blame: row.twin_blame(),
                ..diagnosis
            },
        }
    }
}

fn code_of(incident: &Incident<'_>) -> &'static str {
    let code = incident.code.to_ascii_lowercase();
    let says = |pieces: &[&str]| pieces.iter().any(|piece| code.contains(piece));
    if says(&["insufficient_quota", "credit_balance", "billing_hard_limit"]) {
        return "session_quota_exhausted";
    }
    if says(&["rate_limit", "too_many_requests"]) || code == "429" {
        return "session_rate_limited";
    }
    if says(&["content_filter", "content_policy"]) {
        return "session_content_filtered";
    }
    match incident.kind {
        IncidentKind::TranscriptionFailed if says(&["deploymentnotfound", "model_not_found"]) => {
            "transcription_deployment_not_found"
        }
        IncidentKind::TranscriptionFailed => "transcription_failed",
        IncidentKind::ResponseIncomplete if says(&["max_output_tokens", "max_tokens"]) => {
            "session_output_limit"
        }
        IncidentKind::ResponseIncomplete | IncidentKind::ResponseFailed => "session_upstream_error",
        IncidentKind::Error => error(incident, &code),
    }
}

fn error(incident: &Incident<'_>, code: &str) -> &'static str {
    match code {
        "session_expired" => "session_expired",
        "invalid_api_key" | "401" | "403" | "permissiondenied" | "unauthorized" => {
            "session_unauthorized"
        }
        "response_cancel_not_active"
        | "conversation_already_has_active_response"
        | "input_audio_buffer_commit_empty"
        | "item_create_duplicate_item_id"
        | "item_truncate_invalid_item_id"
        | "item_delete_invalid_item_id"
        | "item_retrieve_invalid_item_id" => "session_out_of_turn",
        _ if speaks_another_dialect(incident, code) => "session_wrong_dialect",
        "deploymentnotfound" => "transcription_deployment_not_found",
        _ if incident.error_type.eq_ignore_ascii_case("server_error") => "session_upstream_error",
        _ if incident
            .error_type
            .eq_ignore_ascii_case("invalid_request_error")
            || ["unknown_", "missing_", "invalid_"]
                .iter()
                .any(|prefix| code.starts_with(prefix)) =>
        {
            "session_request_invalid"
        }
        _ => "session_upstream_error",
    }
}

/// Parameters that only one of the two vocabularies has (migration guide, "Session shape").
const ONE_DIALECT_ONLY: [&str; 12] = [
    "session.type",
    "session.audio",
    "session.output_modalities",
    "session.modalities",
    "session.voice",
    "session.input_audio_format",
    "session.output_audio_format",
    "session.input_audio_transcription",
    "session.turn_detection",
    "session.input_audio_noise_reduction",
    "session.max_response_output_tokens",
    "session.temperature",
];

fn speaks_another_dialect(incident: &Incident<'_>, code: &str) -> bool {
    let complains = matches!(
        code,
        "unknown_parameter" | "missing_required_parameter" | "invalid_parameter" | "invalid_value"
    );
    let is_about = |param: &str| {
        let param = param.trim_matches('\'');
        ONE_DIALECT_ONLY.iter().any(|own| {
            param
                .strip_prefix(own)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        })
    };
    let about = match incident.param {
        "" => incident.message.split('\'').nth(1).is_some_and(is_about),
        param => is_about(param),
    };
    // A value that is only out of range stands in both vocabularies.
    let renamed_event = code == "invalid_value"
        && incident.param == "type"
        && incident.message.contains("transcription_session.update");
    let wrong_session = incident
        .message
        .contains("transcription session update event");
    complains
        && (renamed_event
            || wrong_session
            || about && (code != "invalid_value" || incident.param == "session.type"))
}
