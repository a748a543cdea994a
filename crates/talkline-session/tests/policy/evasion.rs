//! The table of evasions: each message with the guard's verdict on it, which has to be the oracle's as well,
//! however the message is cut.

use talkline_frame::MessageKind;
use talkline_session::policy::{
    Choice, Decision, Helpers, Json, OnViolation, Rules, TokensMax, Tools, Tracing,
};

use crate::differ::{agree, guard};
use crate::drive::{Verdict, send};

/// Instructions, voice, tools and all fixed, the rest by default.
fn pinned(on_violation: OnViolation) -> Rules {
    Rules {
        on_violation,
        instructions: Some("Be kind.".into()),
        voice: Choice::Fixed("marin".into()),
        tools: Tools::Fixed(Json::objects(r#"[{"type":"function","name":"clock"}]"#).unwrap()),
        model: Choice::Fixed("voice".into()),
        transcription_model: Choice::OneOf(vec!["whisper-1".into(), "other".into()]),
        max_output_tokens: TokensMax::AtMost(500),
        tracing: Tracing::Off,
        ..Rules::default()
    }
}

/// Tools are the client's, but for servers.
fn free_tools() -> Rules {
    Rules {
        tools: Tools::Free,
        ..pinned(OnViolation::Rewrite)
    }
}

#[track_caller]
fn check_under(rules: &Rules, message: impl AsRef<[u8]>, want: &str) {
    let message = message.as_ref();
    let helpers = Helpers::default();
    let all: Vec<usize> = (0..message.len()).collect();
    let verdict = |cuts: &[usize]| {
        send(
            &mut guard(rules, &helpers),
            MessageKind::Text,
            message,
            cuts,
        )
    };
    let text = match verdict(&[]) {
        Verdict::Streamed => "streams".to_owned(),
        Verdict::Decided(Decision::Forward) => "passes".to_owned(),
        Verdict::Decided(Decision::Rewrite(bytes)) => String::from_utf8(bytes).unwrap(),
        Verdict::Decided(Decision::Answer(event)) => refusal(&event),
        Verdict::Breach(event) => format!("closes: {}", refusal(&event)),
        other => panic!("{other:?}"),
    };
    let shown = String::from_utf8_lossy(message);
    assert_eq!(text, want, "{shown}");
    for cuts in [
        &all[..],
        &[0],
        &[1, 2, 3],
        &[255],
        &[256],
        &[257],
        &[message.len()],
    ] {
        assert_eq!(verdict(&[]), verdict(cuts), "cut at {cuts:?}: {shown}");
        let agreement = agree(rules, &helpers, message, cuts);
        assert!(agreement.is_ok(), "{shown}: {agreement:?}");
    }
}

/// Code and parameter of an error event.
fn refusal(event: &str) -> String {
    let event: serde_json::Value = serde_json::from_str(event).unwrap();
    assert_eq!(event["type"], "error");
    let code = event["error"]["code"].as_str().unwrap();
    match event["error"]["param"].as_str() {
        Some(param) => format!("{code} {param}"),
        None => code.to_owned(),
    }
}

#[track_caller]
fn check(message: impl AsRef<[u8]>, want: &str) {
    check_under(&pinned(OnViolation::Rewrite), message, want);
}

#[track_caller]
fn check_refusing(message: impl AsRef<[u8]>, want: &str) {
    check_under(&pinned(OnViolation::Refuse), message, want);
}

const FIXED: &str = r#"{"type":"session.update","session":{"instructions":"Be kind."}}"#;

#[test]
fn a_key_that_stands_twice_is_refused_at_every_level() {
    for message in [
        r#"{"type":"input_audio_buffer.commit","type":"session.update"}"#,
        r#"{"type":"session.update","session":{},"session":{"instructions":"x"}}"#,
        r#"{"type":"session.update","session":{"instructions":"Be kind.","instructions":"x"}}"#,
        r#"{"type":"session.update","session":{"audio":{"output":{"voice":"marin","voice":"ash"}}}}"#,
        r#"{"type":"session.update","session":{"audio":{},"audio":{"output":{"voice":"ash"}}}}"#,
        r#"{"type":"session.update","session":{"tools":[{"type":"function","type":"mcp"}]}}"#,
        r#"{"type":"session.update","session":{"x":{"y":[{"z":1,"z":1}]}}}"#,
        r#"{"type":"response.create","response":{},"\u0072esponse":{"instructions":"x"}}"#,
        r#"{"type":"session.update","session":{"instructions":"Be kind.","\u0069nstructions":"x"}}"#,
        r#"{"type":"input_audio_buffer.append","audio":"AAAA","type":"session.update"}"#,
        r#"{"type":"conversation.item.create","item":{"role":"user","role":"system"}}"#,
    ] {
        check(message, "policy_ambiguous_event");
    }
}

#[test]
fn a_key_that_is_spelt_in_other_case_is_refused() {
    check(
        r#"{"type":"input_audio_buffer.commit","Type":"session.update"}"#,
        "policy_ambiguous_event",
    );
    check(r#"{"TYPE":"session.update"}"#, "policy_ambiguous_event");
    check(
        r#"{"type":"session.update","Session":{"instructions":"x"}}"#,
        "policy_ambiguous_event",
    );
    check(
        r#"{"type":"session.update","session":{"Instructions":"x"}}"#,
        "policy_ambiguous_event session",
    );
    check(
        r#"{"type":"session.update","session":{"audio":{"output":{"vOice":"x"}}}}"#,
        "policy_ambiguous_event session.audio.output",
    );
    check(
        r#"{"type":"session.update","session":{"\u0049nstructions":"x"}}"#,
        "policy_ambiguous_event session",
    );
    check_under(
        &free_tools(),
        r#"{"type":"session.update","session":{"tools":[{"type":"function","Server_URL":"x"}]}}"#,
        "policy_ambiguous_event session.tools[0]",
    );
    check_under(
        &free_tools(),
        r#"{"type":"session.update","session":{"x":{"Tools":[{"type":"mcp","server_url":"x"}]}}}"#,
        "policy_mcp_server session.x.Tools[0]",
    );
    // Elsewhere keys are the client's business: a JSON Schema may well have both.
    check(
        r#"{"type":"session.update","session":{"x":{"a":1,"A":2}}}"#,
        "passes",
    );
}

#[test]
fn escapes_hide_neither_types_nor_keys() {
    check(
        r#"{"type":"\u0073ession.update","session":{"instructions":"x"}}"#,
        r#"{"type":"\u0073ession.update","session":{"instructions":"Be kind."}}"#,
    );
    check(
        r#"{"\u0074\u0079\u0070\u0065":"session.update","session":{"instructions":"x"}}"#,
        r#"{"\u0074\u0079\u0070\u0065":"session.update","session":{"instructions":"Be kind."}}"#,
    );
    check(
        r#"{"type":"session.update","s\u0065ssion":{"instructio\u006es":"x"}}"#,
        r#"{"type":"session.update","s\u0065ssion":{"instructio\u006es":"Be kind."}}"#,
    );
    check(
        r#"{"type":"session.update","session":{"instructions":"\u0042e\u0020kind."}}"#,
        "passes",
    );
    check(
        r#"{"type":"session.update\u0000"}"#,
        "policy_event_not_allowed type",
    );
    check(
        r#"{"type\u0000":"session.update"}"#,
        "policy_ambiguous_event",
    );
    check(
        r#"{"type":"session.update","session":{"instructions\u0000":"x"}}"#,
        "policy_ambiguous_event",
    );
    check(
        r#"{"type":"SESSION.UPDATE"}"#,
        "policy_event_not_allowed type",
    );
    check(
        r#"{"type":" session.update"}"#,
        "policy_event_not_allowed type",
    );
    check(
        r#"{"type":"session.updat\u0435"}"#,
        "policy_event_not_allowed type",
    );
    check(
        r#"{"type":"\/session.update"}"#,
        "policy_event_not_allowed type",
    );
    check(
        r#"{"type":"conversation.item.create","item":{"role":"\u0073ystem"}}"#,
        "policy_item_not_allowed item.role",
    );
    check_under(
        &free_tools(),
        r#"{"type":"session.update","session":{"tools":[{"type":"m\u0063p","server_url":"x"}]}}"#,
        "policy_mcp_server session.tools[0]",
    );
    check_under(
        &free_tools(),
        r#"{"type":"session.update","session":{"tools":[{"server\u005furl":"https:\/\/x"}]}}"#,
        "policy_mcp_server session.tools[0]",
    );
}

#[test]
fn order_and_white_space_change_nothing() {
    check(
        r#"{"session":{"instructions":"x"},"type":"session.update"}"#,
        r#"{"session":{"instructions":"Be kind."},"type":"session.update"}"#,
    );
    check(
        r#"{"session":{"instructions":"x"},"event_id":"e","type":"session.update"}"#,
        r#"{"session":{"instructions":"Be kind."},"event_id":"e","type":"session.update"}"#,
    );
    check(
        " \r\n\t{ \"type\" :\t\"session.update\" , \"session\" : { \"instructions\" : \"x\" } } \n",
        FIXED,
    );
    let padded = format!("{}{}", " ".repeat(1000), FIXED.replace("Be kind.", "x"));
    check(padded, FIXED);
    let behind = format!(
        r#"{{"event_id":"{}","type":"session.update","session":{{"instructions":"x"}}}}"#,
        "e".repeat(500)
    );
    check(behind.clone(), &behind.replace("\"x\"", "\"Be kind.\""));
    let buried = format!(
        r#"{{"x":[{}0],"type":"session.update","session":{{"instructions":"x"}}}}"#,
        "0,".repeat(3000)
    );
    check(buried.clone(), &buried.replace("\"x\"}", "\"Be kind.\"}"));
    // Other white space is none (RFC 8259 section 2).
    check(
        "\u{A0}{\"type\":\"session.update\"}",
        "policy_malformed_event",
    );
    check(
        "{\u{B}\"type\":\"session.update\"}",
        "policy_malformed_event",
    );
}

#[test]
fn what_is_no_json_goes_nowhere() {
    for message in [
        "",
        " ",
        "\u{FEFF}{\"type\":\"session.update\"}",
        "{\"type\":\"session.update\"}x",
        "{\"type\":\"session.update\"}\0",
        "{\"type\":\"session.update\"}{\"type\":\"session.update\"}",
        "{\"type\":\"session.update\"",
        "{\"type\":\"session.update\",}",
        "{'type':'session.update'}",
        "{type:\"session.update\"}",
        "{\"type\":\"session.update\"/**/}",
        "//\n{\"type\":\"session.update\"}",
        "{\"type\":\"session.update\",\"session\":{\"instructions\":\"\\ud800\"}}",
        "{\"type\":\"session.update\",\"session\":{\"instructions\":\"\\udc00\\ud800\"}}",
        "{\"type\":\"session.update\",\"session\":{\"instructions\":\"\\ud800\\u0041\"}}",
        "{\"type\":\"session.update\",\"session\":{\"instructions\":\"\0\"}}",
        "{\"type\":\"session.update\",\"session\":{\"instructions\":\"a\nb\"}}",
        "{\"type\":\"session.update\",\"session\":{\"instructions\":\"\\x41\"}}",
        "{\"type\":\"session.update\",\"session\":{\"speed\":01}}",
        "{\"type\":\"session.update\",\"session\":{\"speed\":NaN}}",
        "{\"type\":\"session.update\",\"session\":{\"speed\":+1}}",
        "{\"type\":\"session.update\",\"session\":{\"speed\":.5}}",
        "{\"type\":\"session.update\",\"session\":{\"speed\":0x1}}",
    ] {
        check(message, "policy_malformed_event");
    }
    check(
        b"{\"type\":\"session.update\",\"session\":{\"instructions\":\"\xff\"}}",
        "policy_malformed_event",
    );
    check(b"\xff\xfe{\x00}\x00", "policy_malformed_event");
    for message in [
        "[]",
        "null",
        "5",
        "\"session.update\"",
        "[{\"type\":\"session.update\"}]",
    ] {
        check(message, "policy_malformed_event");
    }
    for message in [
        "{}",
        r#"{"type":null}"#,
        r#"{"type":5}"#,
        r#"{"type":["session.update"]}"#,
    ] {
        check(message, "policy_malformed_event type");
    }
    for message in [
        r#"{"type":"session.update","session":[{"instructions":"x"}]}"#,
        r#"{"type":"session.update","session":"{\"instructions\":\"x\"}"}"#,
    ] {
        check(message, "policy_malformed_event session");
    }
    check(
        r#"{"type":"session.update","session":{"audio":[{"output":{"voice":"ash"}}]}}"#,
        "policy_malformed_event session.audio",
    );
    check(
        r#"{"type":"session.update","session":{"audio":{"output":"ash"}}}"#,
        "policy_malformed_event session.audio.output",
    );
    check(
        r#"{"type":"conversation.item.create","item":[{"role":"system"}]}"#,
        "policy_malformed_event item",
    );
}

#[test]
fn numbers_keep_their_text_or_are_refused() {
    let numbers = r#""a":12345678901234567890123,"b":1.10,"c":-0.0,"d":1E+2,"e":0.1000000000000000055511151231257827"#;
    check(
        format!(r#"{{"type":"session.update","session":{{{numbers},"instructions":"x"}}}}"#),
        &format!(
            r#"{{"type":"session.update","session":{{{numbers},"instructions":"Be kind."}}}}"#
        ),
    );
    for number in ["1e999", "-1e301", "1e300"] {
        check(
            format!(r#"{{"type":"session.update","session":{{"speed":{number}}}}}"#),
            "policy_ambiguous_event",
        );
    }
    let long = "9".repeat(400);
    check(
        format!(r#"{{"type":"session.update","session":{{"speed":{long}}}}}"#),
        "policy_ambiguous_event",
    );
    for tokens in [
        "501",
        "\"inf\"",
        "null",
        "5e1",
        "50.0",
        "-1",
        "99999999999999999999",
        "\"50\"",
        "[50]",
    ] {
        for key in ["max_output_tokens", "max_response_output_tokens"] {
            check(
                format!(r#"{{"type":"session.update","session":{{"{key}":{tokens}}}}}"#),
                &format!(r#"{{"type":"session.update","session":{{"{key}":500}}}}"#),
            );
        }
    }
    for tokens in ["500", "1", "0"] {
        check(
            format!(r#"{{"type":"session.update","session":{{"max_output_tokens":{tokens}}}}}"#),
            "passes",
        );
    }
}

#[test]
fn depth_and_number_of_values_are_bounded() {
    let nested = |levels: usize| {
        let (open, close) = ("[".repeat(levels), "]".repeat(levels));
        format!(r#"{{"type":"session.update","session":{{"x":{open}{close}}}}}"#)
    };
    check(nested(60), "passes");
    check(nested(63), "passes");
    check(nested(64), "policy_event_too_large");
    check(nested(100_000), "policy_event_too_large");
    let wide = |values: usize| {
        let values = vec!["0"; values].join(",");
        format!(r#"{{"type":"session.update","session":{{"x":[{values}]}}}}"#)
    };
    check(wide(16_000), "passes");
    check(wide(17_000), "policy_event_too_large");
}

#[test]
fn both_dialects_shapes_are_pinned() {
    for (session, want) in [
        (r#"{"voice":"ash"}"#, r#"{"voice":"marin"}"#),
        (r#"{"voice":{"id":"voice_1"}}"#, r#"{"voice":"marin"}"#),
        (
            r#"{"audio":{"output":{"voice":"ash","speed":1.1}}}"#,
            r#"{"audio":{"output":{"voice":"marin","speed":1.1}}}"#,
        ),
        (r#"{"model":"gpt-5"}"#, r#"{"model":"voice"}"#),
        (r#"{"instructions":null}"#, r#"{"instructions":"Be kind."}"#),
        (r#"{"prompt":{"id":"pmpt_1"}}"#, "{}"),
        (r#"{"tracing":"auto","x":1}"#, r#"{"x":1}"#),
        (r#"{"x":1,"tracing":{"workflow_name":"w"}}"#, r#"{"x":1}"#),
        (
            r#"{"tools":[]}"#,
            r#"{"tools":[{"type":"function","name":"clock"}]}"#,
        ),
        (
            r#"{"tools":null}"#,
            r#"{"tools":[{"type":"function","name":"clock"}]}"#,
        ),
        (
            r#"{"tools":[{"type":"mcp","server_label":"x","server_url":"https://evil.example"}]}"#,
            r#"{"tools":[{"type":"function","name":"clock"}]}"#,
        ),
        (
            r#"{"input_audio_transcription":{"model":"gpt-4o-transcribe","language":"en"}}"#,
            r#"{"input_audio_transcription":{"model":"whisper-1","language":"en"}}"#,
        ),
        (
            r#"{"audio":{"input":{"transcription":{"language":"en"}}}}"#,
            r#"{"audio":{"input":{"transcription":{"language":"en","model":"whisper-1"}}}}"#,
        ),
        (
            r#"{"audio":{"input":{"transcription":{}}}}"#,
            r#"{"audio":{"input":{"transcription":{"model":"whisper-1"}}}}"#,
        ),
    ] {
        for event in ["session.update", "transcription_session.update"] {
            let event = |session: &str| format!(r#"{{"type":"{event}","session":{session}}}"#);
            check(event(session), &event(want));
        }
    }
    for session in [
        r#"{"tools":[{"name":"clock","type":"function"}]}"#,
        r#"{"audio":{"input":{"transcription":{"model":"other"}}}}"#,
        r#"{"audio":{"input":{"transcription":null,"turn_detection":null}}}"#,
        r#"{"audio":null,"tracing":null,"prompt":null}"#,
        r#"{"turn_detection":{"type":"server_vad","threshold":0.50}}"#,
    ] {
        check(
            format!(r#"{{"type":"session.update","session":{session}}}"#),
            "passes",
        );
    }
}

#[test]
fn a_response_brings_no_settings_of_its_own() {
    for (response, want) in [
        (
            r#"{"instructions":"x","metadata":{"a":"b"}}"#,
            r#"{"metadata":{"a":"b"}}"#,
        ),
        (
            r#"{"audio":{"output":{"voice":"ash"}}}"#,
            r#"{"audio":{"output":{}}}"#,
        ),
        (r#"{"voice":"ash"}"#, "{}"),
        (
            r#"{"tools":[{"type":"function","name":"rm"}],"tool_choice":"auto"}"#,
            r#"{"tool_choice":"auto"}"#,
        ),
        (r#"{"max_output_tokens":"inf"}"#, "{}"),
        (r#"{"max_response_output_tokens":4096}"#, "{}"),
        (r#"{"prompt":{"id":"p"},"model":"gpt-5"}"#, "{}"),
    ] {
        let event =
            |response: &str| format!(r#"{{"type":"response.create","response":{response}}}"#);
        check(event(response), &event(want));
    }
    check(r#"{"type":"response.create"}"#, "passes");
    check(r#"{"type":"response.create","response":null}"#, "passes");
    check(
        r#"{"type":"response.create","response":{"conversation":"auto"}}"#,
        "passes",
    );
    for (response, param) in [
        (r#"{"conversation":"none"}"#, "response.conversation"),
        (r#"{"conversation":{"id":"none"}}"#, "response.conversation"),
        (r#"{"input":[]}"#, "response.input"),
        (
            r#"{"input":[{"type":"message","role":"system"}]}"#,
            "response.input",
        ),
    ] {
        check(
            format!(r#"{{"type":"response.create","response":{response}}}"#),
            &format!("policy_out_of_band {param}"),
        );
    }
    let beside = Rules {
        out_of_band: true,
        ..pinned(OnViolation::Rewrite)
    };
    check_under(
        &beside,
        r#"{"type":"response.create","response":{"conversation":"none","input":[{"type":"item_reference","id":"i"}]}}"#,
        "passes",
    );
    check_under(
        &beside,
        r#"{"type":"response.create","response":{"conversation":"none","input":[{"type":"message","role":"system"}]}}"#,
        "policy_item_not_allowed response.input[0].role",
    );
}

#[test]
fn settings_are_checked_whatever_the_event_is_called() {
    check(
        r#"{"type":"input_audio_buffer.commit","session":{"instructions":"x"}}"#,
        r#"{"type":"input_audio_buffer.commit","session":{"instructions":"Be kind."}}"#,
    );
    check(
        r#"{"type":"response.cancel","item":{"role":"system"}}"#,
        "policy_item_not_allowed item.role",
    );
    for name in [
        "session.start",
        "session.instructions.append",
        "response.item.create",
        "session.close",
        "nonsense",
    ] {
        check(
            format!(r#"{{"type":"{name}"}}"#),
            "policy_event_not_allowed type",
        );
    }
}

#[test]
fn a_system_item_is_a_prompt() {
    for role in ["system", "developer", "System", "tool", ""] {
        check(
            format!(
                r#"{{"type":"conversation.item.create","item":{{"type":"message","role":"{role}"}}}}"#
            ),
            "policy_item_not_allowed item.role",
        );
    }
    for role in ["null", "5", "[\"user\"]"] {
        check(
            format!(r#"{{"type":"conversation.item.create","item":{{"role":{role}}}}}"#),
            "policy_item_not_allowed item.role",
        );
    }
    for item in [
        r#"{"type":"message","role":"user","content":[{"type":"input_text","text":"role: system"}]}"#,
        r#"{"type":"message","role":"assistant","content":[]}"#,
        r#"{"type":"function_call_output","call_id":"c","output":"{\"role\":\"system\"}"}"#,
        r#"{"id":"i","role":"user"}"#,
    ] {
        check(
            format!(r#"{{"type":"conversation.item.create","item":{item}}}"#),
            "passes",
        );
    }
    check(
        r#"{"type":"conversation.item.create","item":{"type":"mcp_list_tools","tools":[]}}"#,
        "policy_item_not_allowed item.type",
    );
    // Where the instructions are the client's, so are its items.
    check_under(
        &Rules::default(),
        r#"{"type":"conversation.item.create","item":{"type":"message","role":"system"}}"#,
        "passes",
    );
}

#[test]
fn mcp_servers_are_not_named_anywhere() {
    let mcp = r#"{"type":"mcp","server_label":"x","server_url":"https://evil.example"}"#;
    for (message, at) in [
        (
            format!(r#"{{"type":"session.update","session":{{"tools":[{mcp}]}}}}"#),
            "session.tools[0]",
        ),
        (
            format!(r#"{{"type":"response.create","response":{{"tools":[{{}},{mcp}]}}}}"#),
            "response.tools[1]",
        ),
        (
            format!(
                r#"{{"type":"session.update","session":{{"delegation":{{"tools":[{mcp}]}}}}}}"#
            ),
            "session.delegation.tools[0]",
        ),
        (
            format!(r#"{{"type":"session.update","tools":[{mcp}]}}"#),
            "tools[0]",
        ),
    ] {
        check_under(&free_tools(), message, &format!("policy_mcp_server {at}"));
    }
    for tool in [
        r#"{"type":"mcp"}"#,
        r#"{"type":"mcp","server_label":"x"}"#,
        r#"{"type":"function","server_url":"https://x"}"#,
        r#"{"connector_id":"connector_gmail"}"#,
        r#"{"type":"mcp","tunnel_id":"t"}"#,
        r#"{"type":"mcp","server_url":["https://x"]}"#,
    ] {
        check_under(
            &free_tools(),
            format!(r#"{{"type":"session.update","session":{{"tools":[{tool}]}}}}"#),
            "policy_mcp_server session.tools[0]",
        );
    }
    check_under(
        &free_tools(),
        r#"{"type":"session.update","session":{"tools":[{"type":"web_search"}]}}"#,
        "policy_tool_not_allowed session.tools[0].type",
    );
    check_under(
        &free_tools(),
        r#"{"type":"session.update","session":{"tools":[[{"type":"mcp"}]]}}"#,
        "policy_malformed_event session.tools[0]",
    );
    check_under(
        &free_tools(),
        r#"{"type":"session.update","session":{"tools":{"type":"mcp"}}}"#,
        "policy_malformed_event session.tools",
    );
    // A function may well have a parameter of that name.
    check_under(
        &free_tools(),
        r#"{"type":"session.update","session":{"tools":[{"type":"function","name":"add","parameters":{"properties":{"server_url":{"type":"string"},"tools":{"type":"array"}}}}]}}"#,
        "passes",
    );
    let allowed = Rules {
        mcp_servers: talkline_session::policy::McpServers::Only(vec![
            "https://mcp.example.com".into(),
        ]),
        ..free_tools()
    };
    check_under(
        &allowed,
        r#"{"type":"session.update","session":{"tools":[{"type":"mcp","server_url":"https://mcp.example.com"}]}}"#,
        "passes",
    );
    for other in [
        "https://mcp.example.com/",
        "https://mcp.example.com.evil.example",
        "HTTPS://mcp.example.com",
    ] {
        check_under(
            &allowed,
            format!(
                r#"{{"type":"session.update","session":{{"tools":[{{"type":"mcp","server_url":"{other}"}}]}}}}"#
            ),
            "policy_mcp_server session.tools[0]",
        );
    }
    check_under(
        &allowed,
        r#"{"type":"session.update","session":{"tools":[{"type":"mcp","server_url":"https://mcp.example.com","connector_id":"c"}]}}"#,
        "policy_mcp_server session.tools[0]",
    );
}

#[test]
fn tools_by_name_leave_the_others_out() {
    let named = |on_violation| Rules {
        tools: Tools::Named(vec!["clock".into()]),
        ..pinned(on_violation)
    };
    let message = r#"{"type":"session.update","session":{"tools":[{"type":"function","name":"rm"},{"type":"function","name":"clock","description":"Tells the time."},{"name":"x"}]}}"#;
    check_under(
        &named(OnViolation::Rewrite),
        message,
        r#"{"type":"session.update","session":{"tools":[{"type":"function","name":"clock","description":"Tells the time."}]}}"#,
    );
    check_under(
        &named(OnViolation::Refuse),
        message,
        "policy_pinned session.tools[0]",
    );
    check_under(
        &named(OnViolation::Rewrite),
        r#"{"type":"session.update","session":{"tools":[{"type":"mcp","name":"clock","server_url":"https://x"}]}}"#,
        "policy_mcp_server session.tools[0]",
    );
}

#[test]
fn refusing_says_what_is_pinned() {
    for (session, param) in [
        (r#"{"instructions":"x"}"#, "session.instructions"),
        (r#"{"voice":"ash"}"#, "session.voice"),
        (
            r#"{"audio":{"output":{"voice":"ash"}}}"#,
            "session.audio.output.voice",
        ),
        (r#"{"tools":[]}"#, "session.tools"),
        (r#"{"model":"gpt-5"}"#, "session.model"),
        (
            r#"{"audio":{"input":{"transcription":{"model":"x"}}}}"#,
            "session.audio.input.transcription.model",
        ),
        (r#"{"max_output_tokens":501}"#, "session.max_output_tokens"),
        (r#"{"tracing":"auto"}"#, "session.tracing"),
        (r#"{"prompt":{"id":"p"}}"#, "session.prompt"),
    ] {
        check_refusing(
            format!(r#"{{"type":"session.update","session":{session}}}"#),
            &format!("policy_pinned {param}"),
        );
    }
    check_refusing(FIXED, "passes");
    let mut guard = guard(&pinned(OnViolation::Refuse), &Helpers::default());
    let message = br#"{"event_id":"mine","type":"session.update","session":{"voice":"ash"}}"#;
    let Verdict::Decided(Decision::Answer(event)) =
        send(&mut guard, MessageKind::Text, message, &[])
    else {
        panic!("it is refused");
    };
    assert_eq!(
        event,
        r#"{"type":"error","event_id":"event_talkline_policy_1","error":{"type":"invalid_request_error","code":"policy_pinned","message":"`session.voice` is set by the operator of this relay and cannot be changed","param":"session.voice","event_id":"mine"}}"#
    );
}

/// Audio of this many base64 characters.
fn audio(length: usize) -> String {
    "QUJD+/09".chars().cycle().take(length).collect()
}

#[test]
fn audio_streams_in_the_shapes_that_clients_send() {
    for length in [0, 4, 100, 208, 209, 256, 1280, 20_000] {
        let audio = audio(length);
        let foundation = audio.replace('/', "\\/");
        let dotnet = audio.replace('+', "\\u002B").replace('/', "\\u002f");
        for message in [
            format!(r#"{{"type":"input_audio_buffer.append","audio":"{audio}"}}"#),
            format!(r#"{{"type": "input_audio_buffer.append", "audio": "{audio}"}}"#),
            format!(
                r#"{{"event_id":"event_1","type":"input_audio_buffer.append","audio":"{audio}"}}"#
            ),
            format!(
                r#"{{"type":"input_audio_buffer.append","event_id":"event_1","audio":"{audio}"}}"#
            ),
            format!(
                r#"{{"type":"input_audio_buffer.append","audio":"{audio}","event_id":"\n\u0041"}}"#
            ),
            format!(r#"{{"audio":"{audio}","type":"input_audio_buffer.append"}}"#),
            format!(
                r#"{{"audio": "{audio}", "type": "input_audio_buffer.append", "event_id": "e"}}"#
            ),
            format!(
                "\n{{\n  \"type\" : \"input_audio_buffer.append\",\n  \"audio\" : \"{audio}\"\n}}\n"
            ),
            format!(r#"{{"type":"input_audio_buffer.append","audio":"{foundation}"}}"#),
            format!(r#"{{"type":"input_audio_buffer.append","audio":"{dotnet}"}}"#),
        ] {
            check(message, "streams");
        }
    }
}

#[test]
fn short_audio_in_other_shapes_is_parsed() {
    check(
        r#"{"type":"input_audio_buffer.append","audio":"AAAA","extra":1}"#,
        "passes",
    );
    check(
        r#"{"\u0074ype":"input_audio_buffer.append","audio":"AAAA"}"#,
        "passes",
    );
    check(
        r#"{"type":"input_audio_buffer.append","audio":"AA\nAA"}"#,
        "passes",
    );
    check(
        r#"{"type":"input_audio_buffer.append","audio":5}"#,
        "passes",
    );
    check(r#"{"type":"input_audio_buffer.append"}"#, "passes");
    check(
        r#"{"audio":"AAAA","type":"session.update","session":{"voice":"x"}}"#,
        r#"{"audio":"AAAA","type":"session.update","session":{"voice":"marin"}}"#,
    );
    check(r#"{"audio":"AAAA"}"#, "policy_malformed_event type");
    check(
        r#"{"audio":"AAAA","type":"other.append"}"#,
        "policy_event_not_allowed type",
    );
    // Odd from the start, however long: it is held.
    let audio = audio(5000);
    check(
        format!(r#"{{"extra":1,"type":"input_audio_buffer.append","audio":"{audio}"}}"#),
        "passes",
    );
}

#[test]
fn long_audio_that_turns_out_otherwise_never_ends() {
    let audio = audio(1000);
    for message in [
        format!(
            r#"{{"type":"input_audio_buffer.append","audio":"{audio}","type":"session.update"}}"#
        ),
        format!(
            r#"{{"type":"input_audio_buffer.append","audio":"{audio}","session":{{"instructions":"x"}}}}"#
        ),
        format!(r#"{{"type":"input_audio_buffer.append","audio":"{audio}","audio":"x"}}"#),
        format!(
            r#"{{"type":"input_audio_buffer.append","audio":"{audio}","\u0074ype":"session.update"}}"#
        ),
        format!(
            r#"{{"audio":"{audio}","type":"session.update","session":{{"instructions":"x"}}}}"#
        ),
        format!(r#"{{"audio":"{audio}","type":"input_audio_buffer.\u0061ppend"}}"#),
        format!(r#"{{"audio":"{audio}"}}"#),
        format!(r#"{{"type":"input_audio_buffer.append","audio":"{audio}"#),
        format!(r#"{{"type":"input_audio_buffer.append","audio":"{audio}""#),
        format!(r#"{{"type":"input_audio_buffer.append","audio":"{audio}"}}x"#),
        format!(
            r#"{{"type":"input_audio_buffer.append","audio":"{audio}"}}{{"type":"session.update"}}"#
        ),
        format!(
            r#"{{"type":"input_audio_buffer.append","audio":"{audio}\"","type":"session.update"}}"#
        ),
        format!(
            r#"{{"type":"input_audio_buffer.append","audio":"{audio}\\","type":"session.update"}}"#
        ),
        format!(r#"{{"type":"input_audio_buffer.append","audio":"{audio}\u0022,\"type\":1"}}"#),
        format!("{{\"type\":\"input_audio_buffer.append\",\"audio\":\"{audio}\0\"}}"),
        format!("{{\"type\":\"input_audio_buffer.append\",\"audio\":\"{audio}\",}}"),
        format!(r#"{{"type":"input_audio_buffer.append","audio":"{audio}","event_id":5}}"#),
        format!(r#"{{"type":"input_audio_buffer.append","audio":"{audio}","event_id":"\ud800"}}"#),
        format!(r#"{{"type":"input_audio_buffer.append","audio":"{audio}","event_id":"é"}}"#),
    ] {
        check(message, "closes: policy_breach");
    }
}

#[test]
fn audio_is_no_way_around_the_list_of_events() {
    let silent = Rules {
        events: talkline_session::policy::Events::Only(vec!["response.create".into()]),
        ..Rules::default()
    };
    let audio = audio(1000);
    check_under(
        &silent,
        format!(r#"{{"type":"input_audio_buffer.append","audio":"{audio}"}}"#),
        "policy_event_not_allowed type",
    );
    check_under(
        &silent,
        r#"{"type":"input_audio_buffer.append","audio":""}"#,
        "policy_event_not_allowed type",
    );
    // Another append than the one that is allowed.
    check(
        format!(r#"{{"type":"session.input_audio.append","audio":"{audio}"}}"#),
        "policy_event_not_allowed type",
    );
    check(
        format!(r#"{{"audio":"{audio}","type":"session.input_audio.append"}}"#),
        "closes: policy_breach",
    );
}

#[test]
fn binary_messages_are_read_like_text() {
    let rules = pinned(OnViolation::Rewrite);
    let check = |message: &[u8], want: &Verdict| {
        let mut guard = guard(&rules, &Helpers::default());
        assert_eq!(send(&mut guard, MessageKind::Binary, message, &[3]), *want);
    };
    let update = br#"{"type":"session.update","session":{"instructions":"x"}}"#;
    check(update, &Verdict::Decided(Decision::Rewrite(FIXED.into())));
    let append = format!(
        r#"{{"type":"input_audio_buffer.append","audio":"{}"}}"#,
        audio(1000)
    );
    check(append.as_bytes(), &Verdict::Decided(Decision::Forward));
    let mut binary = guard(&rules, &Helpers::default());
    let verdict = send(&mut binary, MessageKind::Binary, b"\x00\x01\x02", &[]);
    assert!(
        matches!(verdict, Verdict::Decided(Decision::Answer(_))),
        "{verdict:?}"
    );
}
