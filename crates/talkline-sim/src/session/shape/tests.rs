use super::*;

/// Updates a fresh session; the answer is `ok` or `<code>: <message>`.
fn answer(dialect: Dialect, purpose: Purpose, patch: &str) -> String {
    let mut session = initial(dialect, purpose, "sess_1", "voice", 1);
    let before = session.clone();
    let patch = serde_json::from_str(patch).unwrap();
    match update(&mut session, dialect, purpose, &patch) {
        Ok(()) => "ok".to_owned(),
        Err(fault) => {
            assert_eq!(session, before, "a refused update changes nothing");
            format!("{}: {}", fault.code, fault.message)
        }
    }
}

fn ga(patch: &str, expected: &str) {
    assert_eq!(
        answer(Dialect::Ga, Purpose::Realtime, patch),
        expected,
        "{patch}"
    );
}

fn preview(patch: &str, expected: &str) {
    assert_eq!(
        answer(Dialect::Preview, Purpose::Realtime, patch),
        expected,
        "{patch}"
    );
}

#[test]
fn ga_updates() {
    ga(r#"{"type":"realtime"}"#, "ok");
    ga(r#"{"type":"realtime","tracing":"auto"}"#, "ok");
    ga(
        "{}",
        "missing_required_parameter: Missing required parameter: 'session.type'.",
    );
    ga(
        r#"{"modalities":["audio","text"],"voice":"alloy"}"#,
        "missing_required_parameter: Missing required parameter: 'session.type'.",
    );
    ga(
        r#"{"type":"realtime","voice":"alloy"}"#,
        "unknown_parameter: Unknown parameter: 'session.voice'.",
    );
    ga(
        r#"{"type":"realtime","input_audio_format":"pcm16"}"#,
        "unknown_parameter: Unknown parameter: 'session.input_audio_format'.",
    );
    ga(
        r#"{"type":"realtime","audio":{"input":{"vad":1}}}"#,
        "unknown_parameter: Unknown parameter: 'session.audio.input.vad'.",
    );
    ga(
        r#"{"type":"session"}"#,
        "invalid_value: Invalid value: 'session'. Supported values are: 'realtime' and 'transcription'.",
    );
    ga(
        r#"{"type":"transcription"}"#,
        "invalid_parameter: Passing a transcription session update event to a realtime session is not allowed.",
    );
    ga(
        r#"{"type":"realtime","output_modalities":["audio","text"]}"#,
        "invalid_value: Invalid modalities: ['audio', 'text']. Supported combinations are: ['text'] and ['audio'].",
    );
    ga(
        r#"{"type":"realtime","instructions":7}"#,
        "invalid_type: Invalid type for 'session.instructions': expected a string, but got an integer instead.",
    );
    ga(
        r#"{"type":"realtime","audio":{"input":{"format":"pcm16"}}}"#,
        "invalid_type: Invalid type for 'session.audio.input.format': expected an object, but got a string instead.",
    );
    ga(
        r#"{"type":"realtime","audio":{"input":{"turn_detection":{"type":"none"}}}}"#,
        "invalid_value: Invalid value: 'none'. Supported values are: 'server_vad' and 'semantic_vad'.",
    );
    ga(
        r#"{"type":"realtime","audio":{"output":{"format":{"type":"audio/pcm","rate":16000}}}}"#,
        "invalid_value: Invalid value: 16000. Supported values are: 24000.",
    );
}

#[test]
fn ga_takes_the_whole_session_of_the_agents_sdks() {
    ga(
        r#"{"type":"realtime","instructions":"Be brief.","model":"gpt-realtime-2.1","output_modalities":["audio"],
        "audio":{"input":{"format":{"type":"audio/pcm","rate":24000},"noise_reduction":{"type":"near_field"},
        "transcription":{"model":"gpt-4o-mini-transcribe","language":"en","prompt":"x"},
        "turn_detection":{"type":"semantic_vad","eagerness":"auto","create_response":true,
        "interrupt_response":true}},"output":{"format":{"type":"audio/pcm","rate":24000},"voice":"ash","speed":1}},
        "tool_choice":"auto","parallel_tool_calls":true,"reasoning":{"effort":"low"},
        "tools":[{"type":"function","name":"f","description":"d","parameters":{"type":"object"}}],
        "prompt":{"id":"p","version":"1","variables":{}},"tracing":{"workflow_name":"w"},
        "truncation":{"type":"retention_ratio","retention_ratio":0.8},"max_output_tokens":"inf",
        "include":["item.input_audio_transcription.logprobs"]}"#,
        "ok",
    );
}

#[test]
fn preview_is_the_mirror() {
    preview(
        r#"{"voice":"alloy","modalities":["text","audio"],"turn_detection":null}"#,
        "ok",
    );
    preview(
        r#"{"turn_detection":{"type":"none"},"input_audio_transcription":{"model":"whisper-1"}}"#,
        "ok",
    );
    for name in ["type", "audio", "output_modalities", "tracing"] {
        preview(
            &format!(r#"{{"{name}":"realtime"}}"#),
            &format!("unknown_parameter: Unknown parameter: 'session.{name}'."),
        );
    }
    preview(
        r#"{"modalities":["audio"]}"#,
        "invalid_value: Invalid modalities: ['audio']. Supported combinations are: ['text'] and ['audio', 'text'].",
    );
    preview(
        r#"{"input_audio_format":"mp3"}"#,
        "invalid_value: Invalid value: 'mp3'. Supported values are: 'pcm16', 'g711_ulaw', and 'g711_alaw'.",
    );
}

#[test]
fn transcription_sessions() {
    let check = |patch: &str, expected: &str| {
        assert_eq!(
            answer(Dialect::Ga, Purpose::Transcription, patch),
            expected,
            "{patch}"
        );
    };
    check(
        r#"{"type":"transcription","audio":{"input":{"transcription":{"model":"whisper-1"}}}}"#,
        "ok",
    );
    check(
        r#"{"type":"transcription","instructions":""}"#,
        "unknown_parameter: Unknown parameter: 'session.instructions'.",
    );
    check(
        r#"{"type":"realtime"}"#,
        "invalid_parameter: Passing a realtime session update event to a transcription session is not allowed.",
    );
}

#[test]
fn updates_merge() {
    let mut session = initial(Dialect::Ga, Purpose::Realtime, "sess_1", "voice", 1);
    let patch = json!({"type": "realtime", "audio": {
        "input": {"turn_detection": {"type": "server_vad", "threshold": 0.7}, "format": {"type": "audio/pcm"}},
        "output": {"voice": "marin"},
    }});
    update(&mut session, Dialect::Ga, Purpose::Realtime, &patch).unwrap();
    assert_eq!(session["audio"]["output"]["voice"], "marin");
    assert_eq!(session["audio"]["output"]["speed"], 1.0);
    assert_eq!(session["audio"]["input"]["format"]["rate"], 24000);
    assert_eq!(
        session["audio"]["input"]["turn_detection"]["threshold"],
        0.7
    );
    assert_eq!(
        session["audio"]["input"]["turn_detection"]["silence_duration_ms"],
        500
    );
    let off = json!({"type": "realtime", "audio": {"input": {"turn_detection": null}}});
    update(&mut session, Dialect::Ga, Purpose::Realtime, &off).unwrap();
    assert_eq!(session["audio"]["input"]["turn_detection"], Value::Null);
    assert_eq!(session["audio"]["output"]["voice"], "marin");
}
