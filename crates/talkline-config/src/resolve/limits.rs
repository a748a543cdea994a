//! `limits.*`.

use std::time::Duration;

use talkline_auth::FailureRules;

use crate::{Limits, Problem, reader::Reader};

pub(super) fn read(reader: &mut Reader<'_>) -> Limits {
    let limits = Limits {
        sessions_max: count(reader, "maxSessions"),
        handshakes_max: count(reader, "maxHandshakes"),
        handshakes_per_source_max: count(reader, "maxHandshakesPerSource"),
        failures: FailureRules {
            source_failures_max: failures(reader, "maxFailuresPerSource"),
            failures_max: failures(reader, "maxFailures"),
            window: duration(reader, "failureWindow"),
            ..FailureRules::default()
        },
        request_header_bytes_max: count(reader, "maxRequestHeaderSize"),
        client_handshake_timeout: duration(reader, "clientHandshakeTimeout"),
        dns_timeout: duration(reader, "dnsTimeout"),
        connect_timeout: duration(reader, "connectTimeout"),
        tls_timeout: duration(reader, "tlsTimeout"),
        upgrade_timeout: duration(reader, "upgradeTimeout"),
        message_bytes_max: reader.amount(&["limits", "maxMessageSize"]),
        frame_bytes_max: reader.amount(&["limits", "maxFrameSize"]),
        fragments_max: count(reader, "maxFragments"),
        inspected_event_bytes_max: count(reader, "maxInspectedEventSize"),
        ping_interval: duration(reader, "pingInterval"),
        pong_timeout: duration(reader, "pongTimeout"),
        session_duration_max: duration(reader, "maxSessionDuration"),
        close_timeout: duration(reader, "closeTimeout"),
        drain_grace: duration(reader, "drainGrace"),
    };
    check_order(reader, &limits);
    limits
}

fn check_order(reader: &mut Reader<'_>, limits: &Limits) {
    if limits.frame_bytes_max > limits.message_bytes_max {
        let message = "a frame may be larger than the message that it is part of";
        refuse(
            reader,
            "maxFrameSize",
            message,
            "write at most limits.maxMessageSize",
        );
    }
    if limits.inspected_event_bytes_max as u64 > limits.message_bytes_max {
        let message = "an inspected event may be larger than any message";
        refuse(
            reader,
            "maxInspectedEventSize",
            message,
            "write at most limits.maxMessageSize",
        );
    }
}

/// Speaks up only about values that are sound by themselves: others have their own problem.
fn refuse(reader: &mut Reader<'_>, key: &str, message: &str, hint: &str) {
    let path = ["limits", key];
    let other = ["maxFrameSize", "maxMessageSize", "maxInspectedEventSize"];
    if other.iter().any(|key| reader.has_problem(&["limits", key])) {
        return;
    }
    let Some(found) = reader.found(&path) else {
        return;
    };
    let problem = reader.at_value(Problem::error("limits.order", message).hint(hint), &found);
    reader.problem(problem);
}

fn duration(reader: &mut Reader<'_>, key: &str) -> Duration {
    reader.duration(&["limits", key])
}

fn count(reader: &mut Reader<'_>, key: &str) -> usize {
    usize::try_from(reader.amount(&["limits", key])).unwrap_or(usize::MAX)
}

fn failures(reader: &mut Reader<'_>, key: &str) -> u32 {
    u32::try_from(reader.amount(&["limits", key])).unwrap_or(u32::MAX)
}
