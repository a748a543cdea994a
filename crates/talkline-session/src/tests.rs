//! The state machine driven by hand, the ledger by events as services send them.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use talkline_frame::{EventType, MessageKind, Violation};

use crate::{
    Action, Close, Control, EndKind, EndedBy, Limits, Lost, Message, Modalities, Parting, Rate,
    Session, Side, Stop, Summary, Verdict, policy::Farewell,
};

const SECOND: Duration = Duration::from_secs(1);

fn session() -> (Session, Instant) {
    let start = Instant::now_for_tests();
    (Session::new(Limits::default(), start), start)
}

/// The only clock reading of these tests: an arbitrary origin.
trait Origin {
    fn now_for_tests() -> Self;
}

impl Origin for Instant {
    #[expect(
        clippy::disallowed_methods,
        reason = "an Instant has no other constructor"
    )]
    fn now_for_tests() -> Self {
        Instant::now()
    }
}

fn actions(session: &mut Session) -> Vec<Action> {
    std::iter::from_fn(|| session.poll_action()).collect()
}

fn close(code: u16, reason: &str) -> Close {
    Close {
        code: Some(code),
        reason: reason.into(),
    }
}

/// Shows an event of the upstream to a session, in pieces.
fn show(session: &mut Session, name: &str, json: &str, now: Instant) {
    let pieces = json.as_bytes().chunks(100);
    let count = pieces.len();
    for (i, piece) in pieces.enumerate() {
        let known = if i + 1 < count {
            EventType::Searching
        } else {
            EventType::Found(name)
        };
        session.on_text(Side::Upstream, known, piece);
    }
    let message = Message {
        kind: MessageKind::Text,
        event_type: EventType::Found(name),
    };
    session.on_data_end(Side::Upstream, Some(message), now);
}

fn summary_of(events: &[(&str, &str)]) -> Summary {
    let (mut session, start) = session();
    for (name, json) in events {
        show(&mut session, name, json, start + SECOND);
    }
    session.into_summary(start + 2 * SECOND)
}

// === accounting ===

#[test]
fn each_response_is_told_with_its_cost() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let (session, start) = session();
    let mut session = {
        let told = Arc::clone(&told);
        session.on_response(move |response| {
            let tokens = response
                .usage
                .map(|usage| (usage.input.audio, usage.output.audio, usage.total_tokens));
            told.lock().unwrap().push((response.responses, tokens));
        })
    };
    let cost = r#"{"type":"response.done","response":{"status":"completed","usage":{"total_tokens":10,
        "input_token_details":{"audio_tokens":3},"output_token_details":{"audio_tokens":2}}}}"#;
    let silent = r#"{"type":"response.done","response":{"status":"failed","usage":null}}"#;
    for (name, json) in [
        ("session.created", r#"{"type":"session.created"}"#),
        ("response.done", cost),
        ("response.done", silent),
        ("response.done", "no JSON"),
        ("response.done", cost),
    ] {
        show(&mut session, name, json, start);
    }
    let each = Some((3, 2, 10));
    let want = [(1, each), (2, None), (3, None), (4, each)];
    assert_eq!(*told.lock().unwrap(), want);
    assert_eq!(session.into_summary(start).usage.total_tokens, 20);
}

#[test]
fn usage_is_summed_by_modality() {
    let first = r#"{"type":"response.done","event_id":"e","response":{"id":"r","status":"completed","output":[],
        "usage":{"total_tokens":253,"input_tokens":132,"output_tokens":121,"input_token_details":{"text_tokens":119,
        "audio_tokens":13,"image_tokens":0,"cached_tokens":64,"cached_tokens_details":{"text_tokens":64,
        "audio_tokens":0,"image_tokens":0}},"output_token_details":{"text_tokens":30,"audio_tokens":91}}}}"#;
    // As the preview API has it: no image tokens, no details of the cached ones.
    let second = r#"{"type":"response.done","response":{"status":"cancelled","usage":{"total_tokens":10,
        "input_tokens":7,"output_tokens":3,"input_token_details":{"cached_tokens":2,"text_tokens":4,
        "audio_tokens":3},"output_token_details":{"text_tokens":1,"audio_tokens":2}}}}"#;
    let failed = r#"{"type":"response.done","response":{"status":"failed","usage":null}}"#;
    let summary = summary_of(&[
        ("response.done", first),
        ("response.done", second),
        ("response.done", failed),
    ]);
    let usage = summary.usage;
    assert_eq!(
        usage.input,
        Modalities {
            text: 123,
            audio: 16,
            image: 0
        }
    );
    assert_eq!(
        usage.cached,
        Modalities {
            text: 64,
            audio: 0,
            image: 0
        }
    );
    assert_eq!(
        usage.output,
        Modalities {
            text: 31,
            audio: 93,
            image: 0
        }
    );
    assert_eq!(
        (
            usage.input_tokens,
            usage.cached_tokens,
            usage.output_tokens,
            usage.total_tokens
        ),
        (139, 66, 124, 263)
    );
    let responses = summary.responses;
    assert_eq!(
        (
            responses.completed,
            responses.cancelled,
            responses.failed,
            responses.other
        ),
        (1, 1, 1, 0)
    );
    assert_eq!(summary.uninspected, 0);
}

#[test]
fn transcription_is_summed_by_token_and_by_time() {
    let name = "conversation.item.input_audio_transcription.completed";
    let tokens = r#"{"transcript":"hi","usage":{"type":"tokens","total_tokens":22,"input_tokens":13,
        "input_token_details":{"text_tokens":0,"audio_tokens":13},"output_tokens":9}}"#;
    let seconds = r#"{"transcript":"hi","usage":{"type":"duration","seconds":2.5}}"#;
    let failed = (
        "conversation.item.input_audio_transcription.failed",
        r#"{"error":{"code":"DeploymentNotFound"}}"#,
    );
    let summary = summary_of(&[(name, tokens), (name, seconds), (name, "{}"), failed]);
    let transcription = summary.transcription;
    assert_eq!((transcription.completed, transcription.failed), (3, 1));
    assert_eq!(
        (
            transcription.input_audio,
            transcription.output_tokens,
            transcription.total_tokens
        ),
        (13, 9, 22)
    );
    assert!((transcription.seconds - 2.5).abs() < 1e-9);
}

#[test]
fn session_errors_and_limits_are_noted() {
    let summary = summary_of(&[
        (
            "session.created",
            r#"{"session":{"id":"sess_a","object":"realtime.session","expires_at":1764000000}}"#,
        ),
        (
            "session.updated",
            r#"{"session":{"id":"sess_b","expires_at":1764000001}}"#,
        ),
        ("response.audio.delta", r#"{"delta":"AAAA"}"#),
        (
            "error",
            r#"{"event_id":null,"error":{"type":"invalid_request_error","code":"unknown_parameter"}}"#,
        ),
        ("error", r#"{"error":{"type":"server_error","code":null}}"#),
        (
            "rate_limits.updated",
            r#"{"rate_limits":[{"name":"tokens","limit":100,"remaining":90,"reset_seconds":1.5}]}"#,
        ),
    ]);
    assert_eq!(summary.upstream_session_id.as_deref(), Some("sess_a"));
    assert_eq!(summary.upstream_expires_at, Some(1_764_000_001));
    assert_eq!(summary.first_audio, Some(SECOND));
    assert_eq!(
        (summary.errors.count, summary.errors.last_code.as_deref()),
        (2, Some("server_error"))
    );
    assert_eq!(
        (
            summary.rate_limits[0].name.as_str(),
            summary.rate_limits[0].remaining
        ),
        ("tokens", 90)
    );
    assert_eq!(summary.duration, 2 * SECOND);
}

#[test]
fn events_that_cannot_be_read_are_counted() {
    let long = format!(r#"{{"pad":"{}","response":{{}}}}"#, "x".repeat(256 << 10));
    let summary = summary_of(&[
        ("response.done", long.as_str()),
        ("response.done", "no json"),
        (
            "response.done",
            r#"{"response":{"usage":{"total_tokens":-1}}}"#,
        ),
        ("response.done", r#"{"response":{"status":"completed"}}"#),
        ("response.output_audio.delta", "not looked at"),
    ]);
    assert_eq!(summary.uninspected, 3);
    assert_eq!(summary.responses.completed, 1);
}

#[test]
fn hostile_values_neither_overflow_nor_reach_the_log() {
    let huge = format!(
        r#"{{"response":{{"usage":{{"total_tokens":{}}}}}}}"#,
        u64::MAX
    );
    let code = format!(r#"{{"error":{{"code":"a\nb{}"}}}}"#, "x".repeat(1000));
    let summary = summary_of(&[
        ("response.done", &huge),
        ("response.done", &huge),
        ("error", &code),
    ]);
    assert_eq!(summary.usage.total_tokens, u64::MAX);
    let code = summary.errors.last_code.unwrap();
    assert!(code.starts_with("a bx") && code.len() == 64, "{code}");
}

#[test]
fn incidents_are_counted_by_diagnosis_and_told_once() {
    let (session, now) = session();
    let told = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&told);
    let mut session = session.on_incident(move |incident| {
        let line = format!(
            "{} {} {}",
            incident.diagnosis_code(),
            incident.code,
            incident.param
        );
        log.lock().unwrap().push(line);
    });
    let failed = r#"{"response":{"status":"failed","status_details":{"type":"failed","error":{"type":"x","code":"inference_rate_limit_exceeded"}}}}"#;
    let filtered =
        r#"{"response":{"status":"incomplete","status_details":{"reason":"content_filter"}}}"#;
    let transcription = "conversation.item.input_audio_transcription.failed";
    for (name, json) in [
        ("response.done", failed),
        (
            "response.done",
            r#"{"response":{"status":"cancelled","status_details":{"reason":"turn_detected"}}}"#,
        ),
        (
            "response.done",
            r#"{"response":{"status":"completed","status_details":null}}"#,
        ),
        ("response.done", failed),
        ("response.done", filtered),
        (
            transcription,
            r#"{"error":{"code":"DeploymentNotFound","message":"x"}}"#,
        ),
        (transcription, r#"{"item_id":"i"}"#),
        (
            "error",
            r#"{"error":{"type":"invalid_request_error","code":"unknown_parameter","param":"session.type","message":"Unknown parameter: 'session.type'."}}"#,
        ),
        (
            "error",
            r#"{"error":{"code":429,"param":null,"message":["?"]}}"#,
        ),
        ("error", r#"{"error":{"code":"session_expired"}}"#),
        ("error", r#"{"error":null}"#),
    ] {
        show(&mut session, name, json, now);
    }
    let summary = session.into_summary(now);
    let counts: Vec<_> = summary
        .incidents
        .iter()
        .map(|incident| format!("{}={}", incident.code, incident.count))
        .collect();
    assert_eq!(
        counts,
        [
            "session_rate_limited=3",
            "session_content_filtered=1",
            "transcription_deployment_not_found=1",
            "transcription_failed=1",
            "session_wrong_dialect=1",
            "session_expired=1",
            "session_upstream_error=1",
        ]
    );
    assert_eq!(
        *told.lock().unwrap(),
        [
            "session_rate_limited inference_rate_limit_exceeded ",
            "session_content_filtered content_filter ",
            "transcription_deployment_not_found DeploymentNotFound ",
            "transcription_failed  ",
            "session_wrong_dialect unknown_parameter session.type",
            "session_expired session_expired ",
            "session_upstream_error  ",
        ]
    );
    assert_eq!((summary.errors.count, summary.transcription.failed), (4, 2));
    assert_eq!(summary.uninspected, 0);
}

// === verdicts and ends ===

#[test]
fn frames_are_forwarded_until_their_receiver_is_told() {
    let (mut session, now) = session();
    assert_eq!(session.on_data_header(Side::Client, now), Verdict::Forward);
    session.on_control(Side::Client, Control::Close(close(1000, "")), now);
    assert_eq!(session.on_data_header(Side::Client, now), Verdict::Discard);
    assert_eq!(
        session.on_data_header(Side::Upstream, now),
        Verdict::Forward
    );
    session.on_control(Side::Upstream, Control::Close(close(1000, "")), now);
    assert_eq!(
        session.on_data_header(Side::Upstream, now),
        Verdict::Discard
    );
}

#[test]
fn the_first_cause_is_the_one_that_is_kept() {
    let (mut session, now) = session();
    session.on_violation(Side::Client, Violation::Unmasked, now);
    session.on_lost(Side::Upstream, Lost::Broken, now);
    session.on_stop(
        Stop {
            code: 1001,
            reason: "drain".into(),
            event: None,
        },
        now,
    );
    let end = session.into_summary(now).end;
    assert_eq!(
        (end.by, end.kind, end.code),
        (EndedBy::Client, EndKind::Violation, Some(1002))
    );
    assert_eq!(end.reason, "client_frame_unmasked");
}

#[test]
fn a_client_violation_waits_for_the_upstream_no_longer_than_the_grace() {
    let (mut session, now) = session();
    session.on_violation(Side::Client, Violation::TextUtf8, now);
    assert_eq!(
        actions(&mut session),
        [Action::Close(
            Side::Upstream,
            close(1001, "client protocol violation")
        )]
    );
    let deadline = session.poll_timeout().unwrap();
    assert_eq!(deadline, now + Duration::from_millis(250));
    session.on_timeout(deadline);
    assert_eq!(
        actions(&mut session),
        [
            Action::Close(Side::Client, close(1007, "text_not_utf8")),
            Action::Shutdown(Side::Client),
            Action::Shutdown(Side::Upstream),
        ]
    );
    session.on_timeout(session.poll_timeout().unwrap());
    assert_eq!(actions(&mut session), [Action::End]);
    assert_eq!(session.poll_timeout(), None);
}

/// What is owed to an upstream that broke a rule: nothing that it sends, everything sent to it.
#[test]
fn an_upstream_violation_leaves_the_client_the_grace_to_answer() {
    let (mut session, now) = session();
    session.on_violation(Side::Upstream, Violation::ReservedBits, now);
    assert_eq!(actions(&mut session), []);
    assert_eq!(session.on_data_header(Side::Client, now), Verdict::Forward);
    assert_eq!(
        session.on_data_header(Side::Upstream, now),
        Verdict::Discard
    );
    let deadline = session.poll_timeout().unwrap();
    assert_eq!(deadline, now + Duration::from_millis(250));
    session.on_timeout(deadline);
    let told = actions(&mut session);
    assert!(tells(&told, "upstream_protocol_violation"), "{told:?}");
    let closes = [(Side::Upstream, Some(1002)), (Side::Client, Some(1011))];
    assert_eq!(codes(&told), closes);
    session.on_timeout(session.poll_timeout().unwrap());
    assert_eq!(actions(&mut session), [Action::End]);
}

#[test]
fn a_client_that_leaves_within_the_grace_ends_it() {
    type Leave<'a> = &'a dyn Fn(&mut Session, Instant);
    let ways: [(Leave<'_>, Option<u16>); 3] = [
        (
            &|session, now| session.on_control(Side::Client, Control::Close(close(1000, "")), now),
            Some(1000),
        ),
        (
            &|session, now| session.on_violation(Side::Client, Violation::Unmasked, now),
            Some(1011),
        ),
        (
            &|session, now| session.on_lost(Side::Client, Lost::EndOfStream, now),
            Some(1011),
        ),
    ];
    for (leave, code) in ways {
        let (mut session, now) = session();
        session.on_violation(Side::Upstream, Violation::TextUtf8, now);
        leave(&mut session, now);
        let mut closes = codes(&actions(&mut session));
        closes.sort_unstable_by_key(|(side, _)| *side == Side::Upstream);
        let expected = [(Side::Client, code), (Side::Upstream, Some(1007))];
        assert_eq!(closes, expected);
        let end = session.into_summary(now).end;
        assert_eq!((end.by, end.code), (EndedBy::Upstream, Some(1007)));
    }
}

#[test]
fn a_flood_of_pings_leaves_the_latest_pongs() {
    let (mut session, now) = session();
    for i in 0..1000u32 {
        session.on_control(Side::Client, Control::Ping(&i.to_be_bytes()), now);
    }
    let latest: Vec<_> = (984..1000u32)
        .map(|i| Action::Pong(Side::Client, i.to_be_bytes().to_vec()))
        .collect();
    assert_eq!(actions(&mut session), latest);
}

#[test]
fn without_pings_there_is_no_timer() {
    let (_, now) = session();
    let session = Session::new(
        Limits {
            ping_interval: None,
            ..Limits::default()
        },
        now,
    );
    assert_eq!(session.poll_timeout(), None);
}

// === speed, silence, parting ===

static PARTING: Parting = Parting {
    ask: Some(r#"{"type":"session.close"}"#),
    last_event: "session.closed",
    quiet_max: SECOND,
    wait_max: Duration::from_secs(5),
};

fn farewell() -> Farewell {
    Farewell {
        event: r#"{"type":"error"}"#.into(),
        close: close(1008, "policy_violation"),
    }
}

/// Lets time pass until the session does something; returns when, and how it ends.
fn until_it_acts(session: &mut Session, start: Instant) -> (Duration, Vec<Action>) {
    loop {
        let deadline = session.poll_timeout().expect("something will happen");
        session.on_timeout(deadline);
        let acts: Vec<_> = actions(session)
            .into_iter()
            .filter(|action| !matches!(action, Action::Ping(_)))
            .collect();
        if !acts.is_empty() {
            return (deadline - start, acts);
        }
    }
}

fn codes(actions: &[Action]) -> Vec<(Side, Option<u16>)> {
    let code = |action: &Action| match action {
        Action::Close(side, close) => Some((*side, close.code)),
        _ => None,
    };
    actions.iter().filter_map(code).collect()
}

fn tells(actions: &[Action], code: &str) -> bool {
    actions.iter().any(|action| {
        matches!(action, Action::Event(Side::Client, event) if event.contains(&format!(r#""code":"{code}""#)))
    })
}

/// What ends a session that goes quiet after `happens`: after how long, with which close codes, which
/// event and which kind of end.
fn check_end(
    limits: Limits,
    happens: impl Fn(&mut Session, Instant),
    after: Duration,
    closes: [(Side, u16); 2],
    event: &str,
    kind: EndKind,
) {
    let start = Instant::now_for_tests();
    let mut session = Session::new(limits, start);
    happens(&mut session, start);
    let (elapsed, actions) = until_it_acts(&mut session, start);
    assert_eq!(elapsed, after, "{event}");
    assert_eq!(
        codes(&actions),
        closes.map(|(side, code)| (side, Some(code))),
        "{event}"
    );
    assert!(tells(&actions, event), "{event}: {actions:?}");
    assert_eq!(session.into_summary(start).end.kind, kind, "{event}");
}

#[test]
fn who_is_slow_or_silent_is_told_and_closed() {
    use Side::{Client, Upstream};

    let unpinged = Limits {
        ping_interval: None,
        ..Limits::default()
    };
    check_end(
        unpinged.clone(),
        |session, now| session.on_write_blocked(Client, now),
        15 * SECOND,
        [(Client, 1013), (Upstream, 1001)],
        "slow_consumer",
        EndKind::SlowConsumer,
    );
    check_end(
        unpinged.clone(),
        |session, now| session.on_write_blocked(Upstream, now),
        15 * SECOND,
        [(Upstream, 1001), (Client, 1011)],
        "upstream_stalled",
        EndKind::SlowConsumer,
    );
    check_end(
        unpinged.clone(),
        |session, now| {
            session.on_bytes(Client, 3, now);
            session.on_partial_frame(Client, now);
            session.on_bytes(Client, 1, now + 29 * SECOND);
            session.on_partial_frame(Client, now + 29 * SECOND);
        },
        30 * SECOND,
        [(Client, 1008), (Upstream, 1001)],
        "frame_timeout",
        EndKind::FrameTimeout,
    );
    check_end(
        unpinged.clone(),
        |session, now| session.on_partial_frame(Upstream, now),
        30 * SECOND,
        [(Upstream, 1008), (Client, 1011)],
        "upstream_stalled",
        EndKind::FrameTimeout,
    );
    let idle = Limits {
        idle_max: Some(60 * SECOND),
        ..unpinged
    };
    check_end(
        idle,
        |session, now| {
            let _ = session.on_data_header(Client, now + 10 * SECOND);
            let _ = session.on_data_header(Upstream, now + 20 * SECOND);
        },
        70 * SECOND,
        [(Client, 1001), (Upstream, 1001)],
        "session_idle",
        EndKind::Idle,
    );
}

#[test]
fn a_reader_that_takes_something_is_no_stalled_one() {
    let (mut session, start) = session();
    session.on_write_blocked(Side::Client, start);
    session.on_write_progress(Side::Client, start + 14 * SECOND);
    session.on_timeout(start + 28 * SECOND);
    assert!(codes(&actions(&mut session)).is_empty());
    session.on_write_unblocked(Side::Client);
    session.on_timeout(start + 29 * SECOND);
    assert!(codes(&actions(&mut session)).is_empty());
}

#[test]
fn one_frame_too_many_ends_the_session() {
    let start = Instant::now_for_tests();
    let client_rate = Rate {
        frames_max: Some(2),
        bytes_max: None,
    };
    let limits = Limits {
        client_rate,
        ..Limits::default()
    };
    let mut session = Session::new(limits, start);
    for _ in 0..4 {
        session.on_control(Side::Client, Control::Ping(b""), start);
        let _ = session.on_data_header(Side::Upstream, start);
        assert_eq!(
            session.on_data_header(Side::Client, start),
            Verdict::Forward
        );
    }
    let _ = actions(&mut session);
    // Eight frames are the burst of two a second; half a second is worth the ninth.
    let later = start + SECOND / 2;
    assert_eq!(
        session.on_data_header(Side::Client, later),
        Verdict::Forward
    );
    assert_eq!(
        session.on_data_header(Side::Client, later),
        Verdict::Discard
    );
    let actions = actions(&mut session);
    assert!(tells(&actions, "frame_rate_exceeded"), "{actions:?}");
    let closes = [(Side::Client, Some(1008)), (Side::Upstream, Some(1001))];
    assert_eq!(codes(&actions), closes);
}

#[test]
fn an_upstream_that_counts_is_heard_out() {
    let gone = |session: &mut Session, now| session.on_lost(Side::Client, Lost::EndOfStream, now);
    let closed = |session: &mut Session, now| {
        session.on_control(Side::Client, Control::Close(close(1000, "")), now);
    };
    type Leave<'a> = &'a dyn Fn(&mut Session, Instant);
    let ways: [(&str, Leave<'_>); 2] = [("gone", &gone), ("closed", &closed)];
    for (way, leave) in ways {
        let start = Instant::now_for_tests();
        let mut session = Session::new(Limits::default(), start).parting(Some(&PARTING));
        leave(&mut session, start);
        let asked = actions(&mut session);
        let ask = Action::Event(Side::Upstream, r#"{"type":"session.close"}"#.into());
        assert!(asked.contains(&ask), "{way}: {asked:?}");
        assert!(
            !codes(&asked)
                .iter()
                .any(|(side, _)| *side == Side::Upstream)
        );
        // It goes on to speak; nobody gets it, but its usage counts.
        assert_eq!(
            session.on_data_header(Side::Upstream, start),
            Verdict::Discard
        );
        let done = r#"{"type":"response.done","response":{"usage":{"total_tokens":7}}}"#;
        show(&mut session, "response.done", done, start);
        session.on_bytes(Side::Upstream, 100, start + SECOND / 2);
        session.on_timeout(start + SECOND);
        assert_eq!(actions(&mut session), [], "{way}");
        show(
            &mut session,
            "session.closed",
            r#"{"type":"session.closed"}"#,
            start,
        );
        assert_eq!(
            codes(&actions(&mut session)),
            [(Side::Upstream, Some(1001))],
            "{way}"
        );
        assert_eq!(session.into_summary(start).usage.total_tokens, 7);
    }
}

#[test]
fn an_upstream_is_heard_out_for_a_bounded_time() {
    let start = Instant::now_for_tests();
    let mut silent = Session::new(Limits::default(), start).parting(Some(&PARTING));
    silent.on_lost(Side::Client, Lost::Broken, start);
    let _ = actions(&mut silent);
    assert_eq!(until_it_acts(&mut silent, start).0, SECOND);
    let mut endless = Session::new(Limits::default(), start).parting(Some(&PARTING));
    endless.on_lost(Side::Client, Lost::Broken, start);
    let _ = actions(&mut endless);
    for tenth in 1..100 {
        let now = start + tenth * SECOND / 10;
        endless.on_bytes(Side::Upstream, 1, now);
        endless.on_timeout(now);
        if !codes(&actions(&mut endless)).is_empty() {
            assert_eq!(now, start + 5 * SECOND);
            return;
        }
    }
    panic!("heard out for ever");
}

#[test]
fn what_is_forbidden_ends_the_session_in_the_words_of_the_policy() {
    let (mut session, now) = session();
    session.on_answer("answer".into());
    session.on_forbidden(farewell(), now);
    session.on_answer("too late".into());
    let actions = actions(&mut session);
    assert_eq!(actions[0], Action::Event(Side::Client, "answer".into()));
    assert_eq!(actions[1], Action::Event(Side::Client, farewell().event));
    let closes = [(Side::Client, Some(1008)), (Side::Upstream, Some(1001))];
    assert_eq!(codes(&actions), closes);
    assert_eq!(actions.len(), 6);
}

#[derive(Clone, Debug)]
enum Happening {
    Bytes(Side),
    Partial(Side),
    Blocked(Side),
    Paused(Side),
    Resumed(Side),
    Answer,
    Forbidden,
    LastEvent,
    Data(Side),
    Ping(Side),
    Close(Side),
    Violation(Side),
    Lost(Side, bool),
    Stop,
    Timeout,
    Wait(u16),
}

fn any_happening() -> impl Strategy<Value = Happening> {
    let side = || prop_oneof![Just(Side::Client), Just(Side::Upstream)];
    prop_oneof![
        side().prop_map(Happening::Bytes),
        side().prop_map(Happening::Partial),
        side().prop_map(Happening::Blocked),
        side().prop_map(Happening::Paused),
        side().prop_map(Happening::Resumed),
        Just(Happening::Answer),
        Just(Happening::Forbidden),
        Just(Happening::LastEvent),
        side().prop_map(Happening::Data),
        side().prop_map(Happening::Ping),
        side().prop_map(Happening::Close),
        side().prop_map(Happening::Violation),
        (side(), any::<bool>()).prop_map(|(side, broken)| Happening::Lost(side, broken)),
        Just(Happening::Stop),
        Just(Happening::Timeout),
        any::<u16>().prop_map(Happening::Wait),
    ]
}

/// Miri is slow.
const HAPPENINGS_MAX: usize = if cfg!(miri) { 8 } else { 40 };

proptest! {
    /// Whatever happens in whatever order: at most one close frame a side, never with a code that must
    /// not be on the wire; nothing is said behind it; once the end has begun it comes within the limits.
    #[test]
    fn any_order_of_happenings_ends_well(
        happenings in proptest::collection::vec(any_happening(), 0..HAPPENINGS_MAX),
        parts in any::<bool>(),
        limited in any::<bool>(),
    ) {
        let start = Instant::now_for_tests();
        let limits = Limits {
            client_rate: Rate { frames_max: limited.then_some(1), bytes_max: limited.then_some(10) },
            idle_max: limited.then_some(40 * SECOND),
            ..Limits::default()
        };
        let mut session = Session::new(limits, start).parting(parts.then_some(&PARTING));
        let mut now = start;
        let mut closed = [false, false];
        let mut broken = [false, false];
        let mut over = false;
        for happening in happenings {
            match happening {
                Happening::Bytes(side) => session.on_bytes(side, 10, now),
                Happening::Partial(side) => session.on_partial_frame(side, now),
                Happening::Blocked(side) => session.on_write_blocked(side, now),
                Happening::Paused(side) => session.on_read_paused(side),
                Happening::Resumed(side) => session.on_read_resumed(side, now),
                Happening::Answer => session.on_answer("{}".into()),
                Happening::Forbidden => session.on_forbidden(farewell(), now),
                Happening::LastEvent => {
                    let message = Message { kind: MessageKind::Text, event_type: EventType::Found("session.closed") };
                    session.on_data_end(Side::Upstream, Some(message), now);
                }
                Happening::Data(side) => { let _ = session.on_data_header(side, now); }
                Happening::Ping(side) => session.on_control(side, Control::Ping(b""), now),
                Happening::Close(side) => session.on_control(side, Control::Close(close(4000, "x")), now),
                Happening::Violation(side) => session.on_violation(side, Violation::CloseCode, now),
                Happening::Lost(side, true) => {
                    session.on_lost(side, Lost::Broken, now);
                    broken[usize::from(side == Side::Upstream)] = true;
                }
                Happening::Lost(side, false) => session.on_lost(side, Lost::EndOfStream, now),
                Happening::Stop => session.on_stop(Stop { code: 1006, reason: "r".repeat(200), event: None }, now),
                Happening::Timeout => session.on_timeout(now),
                Happening::Wait(milliseconds) => now += Duration::from_millis(milliseconds.into()),
            }
            for action in actions(&mut session) {
                prop_assert!(!over, "{action:?} after the end");
                match action {
                    Action::Close(side, close) => {
                        let closed = &mut closed[usize::from(side == Side::Upstream)];
                        prop_assert!(!std::mem::replace(closed, true), "closed twice");
                        prop_assert!(close.code.is_none_or(talkline_frame::is_close_code_legal));
                        prop_assert!(close.reason.len() <= 123);
                        prop_assert!(!broken[usize::from(side == Side::Upstream)], "closed a broken leg");
                    }
                    Action::Ping(side) | Action::Pong(side, _) | Action::Event(side, _) => {
                        prop_assert!(!closed[usize::from(side == Side::Upstream)], "spoke after closing");
                    }
                    Action::Shutdown(_) => {}
                    Action::End => over = true,
                }
            }
        }
        session.on_stop(Stop { code: 1001, reason: String::new(), event: None }, now);
        let latest = now + 7 * SECOND;
        while let Some(deadline) = session.poll_timeout() {
            prop_assert!(deadline <= latest, "ends by {:?}", deadline - now);
            session.on_timeout(deadline);
        }
        prop_assert!(session.is_ended());
    }
}
