//! Tables of what the guard does beside judging a client's events; those are in `tests/policy`.

use std::collections::BTreeMap;
use std::sync::Arc;

use talkline_dialect::{ClientDialect, Intent};
use talkline_frame::MessageKind::Text;

use super::*;
use crate::Side;

fn setup(dialect: ClientDialect, intent: Intent) -> Setup {
    Setup {
        dialect,
        intent,
        helpers: Arc::default(),
    }
}

fn ga() -> Setup {
    setup(ClientDialect::Ga, Intent::Conversation)
}

fn guard(rules: Rules) -> Guard {
    Guard::new(Arc::new(Policy::pinned(rules)), ga()).unwrap()
}

fn pinned() -> Rules {
    Rules {
        instructions: Some("Be kind.".into()),
        voice: Choice::Fixed("marin".into()),
        max_output_tokens: TokensMax::AtMost(500),
        tools: Tools::Fixed(Json::objects(r#"[{"type":"function","name":"clock"}]"#).unwrap()),
        ..Rules::default()
    }
}

/// Shows a whole message of the upstream's, as a relay does.
fn upstream(guard: &mut Guard, message: &str) -> Decision {
    if guard.begin(Side::Upstream, Text) == Watch::Pass {
        return Decision::Forward;
    }
    let head = &message.as_bytes()[..message.len().min(HEAD_BYTES_MAX)];
    let complete = head.len() == message.len();
    match guard.look(Side::Upstream, head, complete) {
        Look::Hold => guard.decide(Side::Upstream, Text, message.as_bytes()),
        Look::Stream => Decision::Forward,
        Look::More => panic!("no verdict on {message}"),
    }
}

fn client(guard: &mut Guard, message: &str) -> Decision {
    assert_eq!(guard.begin(Side::Client, Text), Watch::Look);
    guard.decide(Side::Client, Text, message.as_bytes())
}

fn rewritten(decision: &Decision) -> &str {
    match decision {
        Decision::Rewrite(bytes) => std::str::from_utf8(bytes).unwrap(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_session_without_rules_has_no_guard() {
    assert!(Guard::new(Arc::default(), ga()).is_none());
    let helpers = Helpers {
        drop_tracing: true,
        ..Helpers::default()
    };
    let setup = Setup {
        helpers: Arc::new(helpers),
        ..ga()
    };
    assert!(Guard::new(Arc::default(), setup).is_some());
}

#[test]
fn the_opening_has_the_shape_of_the_dialect() {
    let check = |rules: Rules, setup: Setup, want: Option<&str>| {
        let mut guard = Guard::new(Arc::new(Policy::pinned(rules)), setup).unwrap();
        assert_eq!(guard.opening().as_deref(), want);
        assert_eq!(guard.opening(), None, "it is asked for once");
    };
    check(
        pinned(),
        ga(),
        Some(
            r#"{"type":"session.update","event_id":"talkline_policy","session":{"instructions":"Be kind.","audio":{"output":{"voice":"marin"}},"tools":[{"type":"function","name":"clock"}],"max_output_tokens":500,"type":"realtime"}}"#,
        ),
    );
    check(
        pinned(),
        setup(ClientDialect::Beta, Intent::Conversation),
        Some(
            r#"{"type":"session.update","event_id":"talkline_policy","session":{"instructions":"Be kind.","voice":"marin","tools":[{"type":"function","name":"clock"}],"max_response_output_tokens":500}}"#,
        ),
    );
    let transcribed = || Rules {
        transcription_model: Choice::OneOf(vec!["one".into(), "two".into()]),
        ..pinned()
    };
    check(
        transcribed(),
        setup(ClientDialect::Ga, Intent::Transcription),
        Some(
            r#"{"type":"session.update","event_id":"talkline_policy","session":{"audio":{"input":{"transcription":{"model":"one"}}},"type":"transcription"}}"#,
        ),
    );
    check(
        transcribed(),
        setup(ClientDialect::Beta, Intent::Transcription),
        Some(
            r#"{"type":"transcription_session.update","event_id":"talkline_policy","session":{"input_audio_transcription":{"model":"one"}}}"#,
        ),
    );
    // A model for transcriptions switches none on.
    let only = Rules {
        transcription_model: Choice::Fixed("one".into()),
        tracing: Tracing::Off,
        ..Rules::default()
    };
    check(only, ga(), None);
}

#[test]
fn the_answer_to_the_opening_is_swallowed_once() {
    let mut guard = guard(pinned());
    guard.opening().unwrap();
    let created = r#"{"type":"session.created","session":{"instructions":"You are a bot."}}"#;
    assert_eq!(upstream(&mut guard, created), Decision::Forward);
    // The client's own update is on its way before the answer comes.
    client(&mut guard, r#"{"type":"session.update","session":{}}"#);
    let updated = r#"{"type":"session.updated","session":{"instructions":"Be kind."}}"#;
    assert_eq!(upstream(&mut guard, updated), Decision::Drop);
    assert_eq!(upstream(&mut guard, updated), Decision::Forward);
    assert_eq!(guard.begin(Side::Upstream, Text), Watch::Pass);
}

#[test]
fn a_refused_opening_ends_the_session() {
    let check = |message: &str, ends: bool| {
        let mut guard = guard(pinned());
        guard.opening().unwrap();
        match upstream(&mut guard, message) {
            Decision::Close(farewell) => {
                assert!(ends, "{message}");
                assert_eq!(farewell.close.code, Some(1008));
                assert_eq!(farewell.close.reason, "policy_not_applied");
                assert!(farewell.event.contains(r#""code":"policy_not_applied""#));
                assert!(!farewell.event.contains("secret"), "{}", farewell.event);
            }
            other => assert!(!ends && other == Decision::Forward, "{message}: {other:?}"),
        }
    };
    check(
        r#"{"type":"error","error":{"event_id":"talkline_policy","message":"secret"}}"#,
        true,
    );
    check(r#"{"type":"error","error":{"event_id":null}}"#, true);
    check(r#"{"type":"error","error":{}}"#, true);
    check(r#"{"type":"error"}"#, true);
    check(r#"{"type":"error","error":{"event_id":"mine"}}"#, false);
    // It runs a response on settings that it has not taken.
    check(r#"{"type":"response.created","response":{}}"#, true);
    check(r#"{"type":"rate_limits.updated","rate_limits":[]}"#, false);
    check(
        r#"{"type":"response.output_audio.delta","delta":"AAAA"}"#,
        false,
    );
}

#[test]
fn a_refusal_of_the_opening_is_quoted_by_its_code_alone() {
    let check = |code: &str, want: &str| {
        let mut guard = guard(pinned());
        guard.opening().unwrap();
        let error =
            format!(r#"{{"type":"error","error":{{"code":"{code}","message":"no: Be kind."}}}}"#);
        let Decision::Close(farewell) = upstream(&mut guard, &error) else {
            panic!("{error}");
        };
        assert!(farewell.event.contains(want), "{}", farewell.event);
        assert!(!farewell.event.contains("Be kind"), "{}", farewell.event);
    };
    check("insufficient_quota", "operator: insufficient_quota\"");
    check("Be kind.", "operator\"");
}

#[test]
fn an_error_behind_the_answer_is_the_clients() {
    let mut guard = guard(pinned());
    guard.opening().unwrap();
    upstream(&mut guard, r#"{"type":"session.updated"}"#);
    let error = r#"{"type":"error","error":{"event_id":null}}"#;
    assert_eq!(upstream(&mut guard, error), Decision::Forward);
}

#[test]
fn what_is_hidden_is_blank_in_both_shapes() {
    let check = |hide: Hide, message: &str, want: &str| {
        let mut guard = guard(Rules {
            hide,
            ..Rules::default()
        });
        match upstream(&mut guard, message) {
            Decision::Forward => assert_eq!(message, want),
            decision => assert_eq!(rewritten(&decision), want),
        }
    };
    let all = Hide {
        instructions: true,
        tools: true,
    };
    check(
        all,
        r#"{"type":"session.created","session":{"id":"s", "instructions":"secret","n":1.50e0,"tools":[{"name":"x"}],"prompt":{"id":"p"}}}"#,
        r#"{"type":"session.created","session":{"id":"s","instructions":"","n":1.50e0,"tools":[],"prompt":null}}"#,
    );
    check(
        all,
        r#"{"session":{"audio":{"input":{"transcription":{"prompt":"secret","model":"m"}}}},"type":"session.updated"}"#,
        r#"{"session":{"audio":{"input":{"transcription":{"prompt":"","model":"m"}}}},"type":"session.updated"}"#,
    );
    check(
        all,
        r#"{"type":"transcription_session.updated","session":{"input_audio_transcription":{"prompt":"secret"}}}"#,
        r#"{"type":"transcription_session.updated","session":{"input_audio_transcription":{"prompt":""}}}"#,
    );
    check(
        all,
        r#"{"\u0074ype":"session.created","session":{"instructions":"secret"}}"#,
        r#"{"\u0074ype":"session.created","session":{"instructions":""}}"#,
    );
    check(
        all,
        r#"{"type":"response.done","response":{"id":"r","instructions":"secret","output":[]}}"#,
        r#"{"type":"response.done","response":{"id":"r","instructions":"","output":[]}}"#,
    );
    check(
        Hide {
            instructions: true,
            tools: false,
        },
        r#"{"type":"session.created","session":{"tools":[{"name":"x"}]}}"#,
        r#"{"type":"session.created","session":{"tools":[{"name":"x"}]}}"#,
    );
    // Other events are not even held, and nothing is where there is nothing to hide.
    check(
        all,
        r#"{"type":"conversation.item.added","item":{"instructions":"x"}}"#,
        r#"{"type":"conversation.item.added","item":{"instructions":"x"}}"#,
    );
}

#[test]
fn an_event_that_cannot_be_read_is_withheld() {
    let hide = Hide {
        instructions: true,
        tools: false,
    };
    for message in [
        "\u{FEFF}{\"type\":\"session.created\",\"session\":{\"instructions\":\"secret\"}}",
        r#"{"type":"session.created","session":{"instructions":"","instructions":"secret"}}"#,
        r#"{"type":"session.created","session":{"instructions":"secret"}} x"#,
    ] {
        let mut guard = guard(Rules {
            hide,
            ..Rules::default()
        });
        let Decision::Answer(event) = upstream(&mut guard, message) else {
            panic!("{message}");
        };
        assert!(event.contains("policy_event_withheld") && !event.contains("secret"));
        let Decision::Answer(event) = guard.oversize(Side::Upstream) else {
            panic!("{message}");
        };
        assert!(event.contains("policy_event_withheld"));
    }
}

#[test]
fn audio_of_the_upstream_is_passed_after_a_glance() {
    let mut guard = guard(pinned());
    guard.opening().unwrap();
    let long = "A".repeat(10_000);
    for start in [
        r#"{"type":"response.output_audio.delta","event_id":"e","delta":""#,
        r#"{"event_id":"e", "output_index": 0, "type": "response.audio.delta","delta":""#,
    ] {
        let message = format!("{start}{long}\"}}");
        let head = &message.as_bytes()[..HEAD_BYTES_MAX];
        assert_eq!(guard.begin(Side::Upstream, Text), Watch::Look);
        assert_eq!(guard.look(Side::Upstream, &head[..5], false), Look::More);
        assert_eq!(guard.look(Side::Upstream, head, false), Look::Stream);
    }
}

#[test]
fn helpers_translate_without_a_policy() {
    let helpers = Helpers {
        transcription_deployments: BTreeMap::from([("whisper-1".into(), "my-whisper".into())]),
        drop_tracing: true,
        model_deployments: BTreeMap::from([("voice".into(), "gpt-realtime-prod".into())]),
    };
    let check = |message: &str, want: &str| {
        let setup = Setup {
            helpers: Arc::new(helpers.clone()),
            ..ga()
        };
        let mut guard = Guard::new(Arc::default(), setup).unwrap();
        assert_eq!(guard.opening(), None);
        match client(&mut guard, message) {
            Decision::Forward => assert_eq!(message, want),
            decision => assert_eq!(rewritten(&decision), want),
        }
    };
    check(
        r#"{"type":"session.update","session":{"model":"voice","tracing":"auto","audio":{"input":{"transcription":{"model":"whisper-1","language":"en"}}}}}"#,
        r#"{"type":"session.update","session":{"model":"gpt-realtime-prod","audio":{"input":{"transcription":{"model":"my-whisper","language":"en"}}}}}"#,
    );
    check(
        r#"{"session":{"input_audio_transcription":{"model":"whisper-1"}},"type":"session.update"}"#,
        r#"{"session":{"input_audio_transcription":{"model":"my-whisper"}},"type":"session.update"}"#,
    );
    // What they do not know, they leave alone, and nothing is refused.
    for message in [
        r#"{"type":"session.update","session":{"model":"other","tools":[{"type":"mcp","server_url":"https://x"}]}}"#,
        r#"{"type":"session.update","session":{"tracing":1,"tracing":2}}"#,
        "not json",
        r#"{"type":"anything.else","item":5}"#,
    ] {
        check(message, message);
    }
}

#[test]
fn helpers_hold_settings_alone() {
    let helpers = Helpers {
        drop_tracing: true,
        ..Helpers::default()
    };
    let setup = Setup {
        helpers: Arc::new(helpers),
        ..ga()
    };
    let mut guard = Guard::new(Arc::default(), setup).unwrap();
    let long = "A".repeat(HEAD_BYTES_MAX);
    let mut check = |head: &str, want: Look| {
        let head = &head.as_bytes()[..head.len().min(HEAD_BYTES_MAX)];
        assert_eq!(guard.begin(Side::Client, Text), Watch::Look);
        assert_eq!(guard.look(Side::Client, head, false), want);
        assert_eq!(guard.stream(Side::Client, b"anything"), Ok(()));
        assert_eq!(guard.stream_end(Side::Client), Ok(()));
    };
    check(r#"{"type":"session.update","#, Look::Hold);
    check(r#"{"session":{"#, Look::Hold);
    check(
        &format!(r#"{{"type":"conversation.item.create","image":"{long}"#),
        Look::Stream,
    );
    check(&format!(r#"{{"event_id":"{long}"#), Look::Hold);
    check("not json", Look::Stream);
}

#[test]
fn a_token_is_laid_over_the_policy() {
    let check = |policy: Policy, session: &str, want_opening: &str, want: &[(&str, &str)]| {
        let policy = policy.overlay(session).unwrap();
        let mut guard = Guard::new(Arc::new(policy), ga()).unwrap();
        assert_eq!(
            guard.opening().unwrap_or_default(),
            want_opening,
            "{session}"
        );
        for (message, want) in want {
            match client(&mut guard, message) {
                Decision::Forward => assert_eq!(message, want),
                Decision::Answer(event) => assert!(event.contains(want), "{message}: {event}"),
                decision => assert_eq!(rewritten(&decision), *want),
            }
        }
    };
    // Over nothing: what the token says is fixed, the rest is the client's, any event goes.
    check(
        Policy::transparent(),
        r#"{"type":"realtime","model":"voice","instructions":"From the token.","max_output_tokens":100,
            "audio":{"output":{"voice":"cedar","speed":1.10},"input":{"transcription":{"model":"w","language":"en"}}},
            "tools":[{"type":"mcp","server_url":"https://mcp.example.com"}]}"#,
        r#"{"type":"session.update","event_id":"talkline_policy","session":{"instructions":"From the token.","audio":{"output":{"voice":"cedar","speed":1.10},"input":{"transcription":{"model":"w","language":"en"}}},"tools":[{"type":"mcp","server_url":"https://mcp.example.com"}],"max_output_tokens":100,"type":"realtime"}}"#,
        &[
            (
                r#"{"type":"session.update","session":{"instructions":"Mine.","model":"other","audio":{"output":{"voice":"ash","speed":2}},"max_output_tokens":"inf"}}"#,
                r#"{"type":"session.update","session":{"instructions":"From the token.","model":"voice","audio":{"output":{"voice":"cedar","speed":2}},"max_output_tokens":100}}"#,
            ),
            (r#"{"type":"any.event"}"#, r#"{"type":"any.event"}"#),
        ],
    );
    // Over rules: the operator's value wins, a list is narrowed to one.
    check(
        Policy::pinned(Rules {
            instructions: Some("The operator's.".into()),
            voice: Choice::OneOf(vec!["marin".into(), "cedar".into()]),
            max_output_tokens: TokensMax::AtMost(50),
            ..Rules::default()
        }),
        r#"{"type":"realtime","instructions":"The token's.","audio":{"output":{"voice":"cedar"}},"max_output_tokens":100}"#,
        r#"{"type":"session.update","event_id":"talkline_policy","session":{"instructions":"The operator's.","audio":{"output":{"voice":"cedar"}},"max_output_tokens":50,"type":"realtime"}}"#,
        &[
            (
                r#"{"type":"session.update","session":{"audio":{"output":{"voice":"marin"}}}}"#,
                r#"{"type":"session.update","session":{"audio":{"output":{"voice":"cedar"}}}}"#,
            ),
            (r#"{"type":"any.event"}"#, "policy_event_not_allowed"),
        ],
    );
    // A preview shape is understood; an empty token changes nothing that matters.
    check(
        Policy::transparent(),
        r#"{"voice":"ash","input_audio_format":"g711_ulaw","turn_detection":null}"#,
        r#"{"type":"session.update","event_id":"talkline_policy","session":{"audio":{"output":{"voice":"ash"},"input":{"format":{"type":"audio/pcmu"},"turn_detection":null}},"type":"realtime"}}"#,
        &[],
    );
    check(Policy::transparent(), r#"{"type":"realtime"}"#, "", &[]);
}

#[test]
fn a_token_speaks_preview_to_a_preview_upstream() {
    let token = r#"{"output_modalities":["audio"],"audio":{"input":{"format":{"rate":24000,"type":"audio/pcm"},"turn_detection":{"type":"semantic_vad"}}},"truncation":"auto","tracing":"auto"}"#;
    let policy = Policy::transparent().overlay(token).unwrap();
    let setup = setup(ClientDialect::Beta, Intent::Conversation);
    let mut guard = Guard::new(Arc::new(policy), setup).unwrap();
    assert_eq!(
        guard.opening().unwrap(),
        r#"{"type":"session.update","event_id":"talkline_policy","session":{"modalities":["audio","text"],"input_audio_format":"pcm16","turn_detection":{"type":"semantic_vad"}}}"#
    );
}

#[test]
fn what_a_token_seals_is_hidden() {
    let shown =
        r#"{"type":"session.updated","session":{"instructions":"x","tools":[{"name":"y"}]}}"#;
    let check = |policy: Policy, session: &str, instructions: &str, tools: &str| {
        let policy = policy.overlay(session).unwrap();
        let mut guard = Guard::new(Arc::new(policy), ga()).unwrap();
        guard.opening();
        // The answer to the guard's own event is kept back.
        upstream(&mut guard, r#"{"type":"session.updated"}"#);
        let want = shown
            .replace(r#""x""#, instructions)
            .replace(r#"[{"name":"y"}]"#, tools);
        match upstream(&mut guard, shown) {
            Decision::Forward => assert_eq!(shown, want),
            decision => assert_eq!(rewritten(&decision), want),
        }
    };
    let open = Policy::transparent;
    let y = r#"[{"name":"y"}]"#;
    check(open(), r#"{"instructions":"x"}"#, r#""""#, y);
    check(open(), r#"{"prompt":{"id":"p"}}"#, r#""""#, y);
    check(open(), r#"{"tools":[{"name":"y"}]}"#, r#""x""#, "[]");
    check(open(), r#"{"voice":"cedar"}"#, r#""x""#, y);
    // An operator who shows the policy's instructions shows no more by a token that has others.
    let shows = Policy::pinned(Rules {
        instructions: Some("x".into()),
        ..Rules::default()
    });
    check(shows, r#"{"instructions":"z"}"#, r#""x""#, y);
}

#[test]
fn a_token_that_the_policy_refuses_is_not_made() {
    let check = |rules: Rules, session: &str, code: &str, param: Option<&str>| {
        let error = Policy::pinned(rules).overlay(session).unwrap_err();
        assert_eq!(
            (error.code, error.param.as_deref()),
            (code, param),
            "{session}"
        );
    };
    let rules = Rules::default;
    check(rules(), "[]", "policy_malformed_event", Some("session"));
    check(rules(), "{", "policy_malformed_event", None);
    check(
        rules(),
        r#"{"voice":"a","voice":"b"}"#,
        "policy_ambiguous_event",
        None,
    );
    check(
        rules(),
        r#"{"tools":[{"type":"mcp","server_label":"x","server_url":"https://x"}]}"#,
        "policy_mcp_server",
        Some("session.tools[0]"),
    );
    check(
        Rules {
            on_violation: OnViolation::Refuse,
            ..pinned()
        },
        r#"{"instructions":"Mine."}"#,
        "policy_pinned",
        Some("session.instructions"),
    );
    check(
        rules(),
        r#"{"instructions":5}"#,
        "policy_malformed_event",
        Some("session.instructions"),
    );
}

#[test]
fn a_guard_of_a_tokens_session_maps_what_its_route_maps() {
    let policy = Policy::transparent()
        .overlay(r#"{"audio":{"input":{"transcription":{"model":"whisper-1"}}},"tracing":"auto"}"#)
        .unwrap();
    let helpers = Helpers {
        transcription_deployments: BTreeMap::from([("whisper-1".into(), "w".into())]),
        drop_tracing: true,
        ..Helpers::default()
    };
    let setup = Setup {
        helpers: Arc::new(helpers),
        ..ga()
    };
    let mut guard = Guard::new(Arc::new(policy), setup).unwrap();
    assert_eq!(
        guard.opening().unwrap(),
        r#"{"type":"session.update","event_id":"talkline_policy","session":{"audio":{"input":{"transcription":{"model":"w"}}},"type":"realtime"}}"#
    );
}
