//! Failures inside a session.

use super::*;
use crate::{UpstreamKind, diagnosis::IncidentKind::*};

fn incident<'a>(
    kind: IncidentKind,
    code: &'a str,
    param: &'a str,
    message: &'a str,
) -> Incident<'a> {
    Incident {
        kind,
        code,
        error_type: "invalid_request_error",
        param,
        message,
    }
}

#[track_caller]
fn check(kind: IncidentKind, code: &str, param: &str, message: &str, expected: &str) {
    let incident = incident(kind, code, param, message);
    assert_eq!(incident.diagnosis_code(), expected, "{incident:?}");
    assert_eq!(
        Diagnosis::in_session(&incident, UpstreamKind::Azure).code,
        expected
    );
}

#[test]
fn incidents_have_codes() {
    check(Error, "session_expired", "", "", "session_expired");
    check(
        ResponseFailed,
        "inference_rate_limit_exceeded",
        "",
        "",
        "session_rate_limited",
    );
    check(Error, "rate_limit_exceeded", "", "", "session_rate_limited");
    check(Error, "429", "", "", "session_rate_limited");
    check(
        Error,
        "insufficient_quota",
        "",
        "",
        "session_quota_exhausted",
    );
    check(
        ResponseFailed,
        "insufficient_quota",
        "",
        "",
        "session_quota_exhausted",
    );
    check(
        Error,
        "credit_balance_exhausted",
        "",
        "",
        "session_quota_exhausted",
    );
    check(
        TranscriptionFailed,
        "DeploymentNotFound",
        "",
        "",
        "transcription_deployment_not_found",
    );
    check(
        TranscriptionFailed,
        "audio_unintelligible",
        "",
        "",
        "transcription_failed",
    );
    check(
        ResponseIncomplete,
        "content_filter",
        "",
        "",
        "session_content_filtered",
    );
    check(
        ResponseFailed,
        "content_filter",
        "",
        "",
        "session_content_filtered",
    );
    check(
        ResponseIncomplete,
        "max_output_tokens",
        "",
        "",
        "session_output_limit",
    );
    check(
        ResponseFailed,
        "server_error",
        "",
        "",
        "session_upstream_error",
    );
    check(
        Error,
        "response_cancel_not_active",
        "",
        "",
        "session_out_of_turn",
    );
    check(
        Error,
        "conversation_already_has_active_response",
        "",
        "",
        "session_out_of_turn",
    );
    check(Error, "invalid_api_key", "", "", "session_unauthorized");
    check(
        Error,
        "unknown_parameter",
        "session.instruction",
        "",
        "session_request_invalid",
    );
    check(Error, "", "", "", "session_request_invalid");
}

#[test]
fn the_wrong_dialect_is_told_from_other_mistakes() {
    let code = "session_wrong_dialect";
    check(Error, "unknown_parameter", "session.type", "", code);
    check(Error, "unknown_parameter", "session.audio.input", "", code);
    check(
        Error,
        "unknown_parameter",
        "session.output_modalities",
        "",
        code,
    );
    check(
        Error,
        "unknown_parameter",
        "session.modalities[0]",
        "",
        code,
    );
    check(Error, "unknown_parameter", "session.voice", "", code);
    check(
        Error,
        "unknown_parameter",
        "",
        "Unknown parameter: 'session.turn_detection'.",
        code,
    );
    check(
        Error,
        "missing_required_parameter",
        "session.type",
        "",
        code,
    );
    check(Error, "invalid_value", "session.type", "", code);
    check(
        Error,
        "invalid_parameter",
        "",
        "Passing a transcription session update event to a realtime session is not allowed.",
        code,
    );
    check(
        Error,
        "invalid_value",
        "type",
        "Invalid value: 'x'. Supported values are: 'session.update', 'transcription_session.update'",
        code,
    );
    check(
        Error,
        "unknown_parameter",
        "session.voices",
        "",
        "session_request_invalid",
    );
    check(
        Error,
        "unknown_parameter",
        "session.typewriter",
        "",
        "session_request_invalid",
    );
    check(
        Error,
        "invalid_value",
        "session.audio.output.voice",
        "",
        "session_request_invalid",
    );
}

#[test]
fn azure_is_not_blamed_for_others() {
    let failed = incident(ResponseFailed, "server_error", "", "");
    let blame = |kind| Diagnosis::in_session(&failed, kind).blame;
    assert_eq!(blame(UpstreamKind::Azure), Blame::Azure);
    assert_eq!(blame(UpstreamKind::OpenAi), Blame::Upstream);
}
