use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::client::CLIENT_EVENTS;
use super::*;
use crate::clips::{QUESTION, REPLIES};
use crate::simulator::{Pace, Reply as ReplyChoice};
use crate::wav;

/// A session that replies at once, and what it has said.
struct Bench {
    session: Session,
    now: Instant,
}

impl Bench {
    fn new(dialect: Dialect, purpose: Purpose, rules: Rules) -> Self {
        let now = Instant::now();
        let terms = Terms {
            dialect,
            purpose,
            model: "voice".to_owned(),
            misbehaviour: None,
        };
        let session = Session::new(&terms, Arc::new(rules), now, 1_000);
        Self { session, now }
    }

    fn ga() -> Self {
        let mut bench = Self::new(Dialect::Ga, Purpose::Realtime, fast());
        assert_eq!(kinds(&bench.events()), ["session.created"]);
        bench
    }

    fn preview() -> Self {
        let mut bench = Self::new(Dialect::Preview, Purpose::Realtime, fast());
        assert_eq!(
            kinds(&bench.events()),
            ["session.created", "conversation.created"]
        );
        bench
    }

    fn send(&mut self, event: Value) -> Vec<Value> {
        self.send_text(&event.to_string())
    }

    fn send_text(&mut self, text: &str) -> Vec<Value> {
        self.session.handle_text(text, self.now);
        self.events()
    }

    fn pass(&mut self, time: Duration) -> Vec<Value> {
        self.now += time;
        self.session.handle_timeout(self.now);
        self.events()
    }

    /// Speaks samples in 40 ms pieces.
    fn speak(&mut self, samples: &[i16]) -> Vec<Value> {
        let pieces = samples.chunks(960).map(append);
        pieces.flat_map(|piece| self.send(piece)).collect()
    }

    fn events(&mut self) -> Vec<Value> {
        let outputs = std::iter::from_fn(|| self.session.poll_output());
        let events = outputs.map(|output| match output {
            Output::Event(text) => serde_json::from_str(&text).unwrap(),
            Output::Drop => json!({"type": "drop"}),
            Output::Close { code, reason } => {
                json!({"type": "close", "code": code, "reason": reason})
            }
        });
        events.collect()
    }

    /// Sends an event and expects one `error`, given as `<code>: <message>`.
    fn refuses(&mut self, event: Value, expected: &str) {
        let answer = self.send(event.clone());
        assert_eq!(kinds(&answer), ["error"], "{event}");
        let error = &answer[0]["error"];
        let found = format!(
            "{}: {}",
            error["code"].as_str().unwrap(),
            error["message"].as_str().unwrap()
        );
        assert_eq!(found, expected, "{event}");
    }
}

fn fast() -> Rules {
    Rules {
        pace: Pace::Fast {
            delta_every: Duration::ZERO,
        },
        ..Rules::default()
    }
}

fn append(samples: &[i16]) -> Value {
    json!({"type": "input_audio_buffer.append", "audio": STANDARD.encode(wav::samples_to_le(samples))})
}

fn question() -> Vec<i16> {
    let silence = vec![0; 24_000];
    [QUESTION.wav().unwrap().samples(), &silence].concat()
}

/// The types, repeats in a row once.
fn kinds(events: &[Value]) -> Vec<&str> {
    let mut kinds: Vec<&str> = events
        .iter()
        .filter_map(|event| event["type"].as_str())
        .collect();
    kinds.dedup();
    kinds
}

fn find<'a>(events: &'a [Value], kind: &str) -> &'a Value {
    let mut found = events.iter().filter(|event| event["type"] == kind);
    found
        .next()
        .unwrap_or_else(|| panic!("no {kind} in {:?}", kinds(events)))
}

fn joined(events: &[Value], kind: &str) -> String {
    let deltas = events.iter().filter(|event| event["type"] == kind);
    deltas.filter_map(|event| event["delta"].as_str()).collect()
}

fn audio(events: &[Value], kind: &str) -> Vec<u8> {
    let deltas = events.iter().filter(|event| event["type"] == kind);
    deltas
        .flat_map(|event| STANDARD.decode(event["delta"].as_str().unwrap()).unwrap())
        .collect()
}

fn ga_session(fields: Value) -> Value {
    json!({"type": "session.update", "session": with(&json!({"type": "realtime"}), fields)})
}

fn transcribing(model: &str) -> Value {
    ga_session(json!({"audio": {"input": {"transcription": {"model": model}}}}))
}

const MANUAL: &str = r#"{"type":"session.update","session":{"type":"realtime","audio":{"input":{"turn_detection":null}}}}"#;

#[test]
fn a_ga_turn_is_whole_and_in_order() {
    let mut bench = Bench::ga();
    let updated = bench.send(transcribing("gpt-4o-mini-transcribe"));
    assert_eq!(kinds(&updated), ["session.updated"]);
    let events = bench.speak(&question());
    let text_and_audio: Vec<&str> = kinds(&events)
        .into_iter()
        .filter(|kind| {
            !matches!(
                *kind,
                "response.output_audio.delta" | "response.output_audio_transcript.delta"
            )
        })
        .collect();
    assert_eq!(
        text_and_audio,
        [
            "input_audio_buffer.speech_started",
            "input_audio_buffer.speech_stopped",
            "input_audio_buffer.committed",
            "conversation.item.added",
            "conversation.item.done",
            "conversation.item.input_audio_transcription.delta",
            "conversation.item.input_audio_transcription.completed",
            "response.created",
            "response.output_item.added",
            "conversation.item.added",
            "response.content_part.added",
            "response.output_audio.done",
            "response.output_audio_transcript.done",
            "response.content_part.done",
            "conversation.item.done",
            "response.output_item.done",
            "response.done",
            "rate_limits.updated",
        ]
    );
    let heard = find(
        &events,
        "conversation.item.input_audio_transcription.completed",
    );
    assert_eq!(heard["transcript"], QUESTION.text);
    assert_eq!(heard["usage"]["type"], "tokens");
    assert_eq!(
        heard["item_id"],
        find(&events, "input_audio_buffer.committed")["item_id"]
    );
    let retrieve = json!({"type": "conversation.item.retrieve", "item_id": heard["item_id"]});
    let retrieved = bench.send(retrieve);
    assert_eq!(
        retrieved[0]["item"]["content"][0]["transcript"],
        QUESTION.text
    );
    let part = |kind: &str| &find(&events, kind)["part"]["type"];
    assert_eq!(part("response.content_part.added"), "audio");
    assert_eq!(part("response.content_part.done"), "audio");
    let item = &find(&events, "response.output_item.done")["item"];
    assert_eq!(item["content"][0]["type"], "output_audio");
    assert_eq!(
        joined(&events, "conversation.item.input_audio_transcription.delta"),
        QUESTION.text
    );
    assert_eq!(
        joined(&events, "response.output_audio_transcript.delta"),
        REPLIES[0].text
    );
    let clip = REPLIES[0].wav().unwrap();
    assert_eq!(
        audio(&events, "response.output_audio.delta"),
        wav::samples_to_le(clip.samples())
    );
    let done = &find(&events, "response.done")["response"];
    assert_eq!(done["status"], "completed");
    assert_eq!(
        done["output"][0]["content"][0]["transcript"],
        REPLIES[0].text
    );
    let spoken_ms = clip.duration().as_millis() as u64;
    assert_eq!(
        done["usage"]["output_token_details"]["audio_tokens"],
        spoken_ms.div_ceil(50)
    );
    assert_eq!(
        done["usage"]["output_token_details"]["text_tokens"],
        REPLIES[0].text.len().div_ceil(4)
    );
}

#[test]
fn deltas_are_200_ms_and_end_with_what_is_left() {
    let mut bench = Bench::ga();
    let events = bench.speak(&question());
    let lengths: Vec<usize> = events
        .iter()
        .filter(|event| event["type"] == "response.output_audio.delta")
        .map(|event| {
            STANDARD
                .decode(event["delta"].as_str().unwrap())
                .unwrap()
                .len()
        })
        .collect();
    let (last, rest) = lengths.split_last().unwrap();
    assert!(
        rest.iter().all(|&length| length == 9_600) && *last <= 9_600,
        "{lengths:?}"
    );
}

#[test]
fn preview_speaks_its_own_names() {
    let mut bench = Bench::preview();
    let update = json!({"type": "session.update", "session": {"input_audio_transcription": {"model": "whisper-1"}}});
    assert_eq!(kinds(&bench.send(update)), ["session.updated"]);
    let events = bench.speak(&question());
    let kinds = kinds(&events);
    for name in [
        "conversation.item.created",
        "response.audio.delta",
        "response.audio.done",
        "response.audio_transcript.delta",
        "response.audio_transcript.done",
    ] {
        assert!(kinds.contains(&name), "{name} in {kinds:?}");
    }
    assert!(
        !kinds.iter().any(
            |kind| kind.contains("output_audio") || kind.starts_with("conversation.item.added")
        )
    );
    assert!(!kinds.contains(&"conversation.item.done"));
    assert_eq!(
        find(&events, "response.content_part.added")["part"]["type"],
        "audio"
    );
    let heard = find(
        &events,
        "conversation.item.input_audio_transcription.completed",
    );
    assert_eq!(heard["usage"], json!({"type": "duration", "seconds": 3}));
    assert_eq!(
        joined(&events, "response.audio_transcript.delta"),
        REPLIES[0].text
    );
}

#[test]
fn every_event_begins_with_its_type_and_has_an_id() {
    let mut bench = Bench::ga();
    bench
        .session
        .handle_text(r#"{"type":"input_audio_buffer.clear"}"#, bench.now);
    let Some(Output::Event(text)) = bench.session.poll_output() else {
        panic!("no event");
    };
    assert!(
        text.starts_with(r#"{"type":"input_audio_buffer.cleared","event_id":"event_"#),
        "{text}"
    );
}

#[test]
fn refusals_in_session() {
    let mut bench = Bench::ga();
    bench.send_text(MANUAL);
    let event = |kind: &str| json!({"type": kind});
    bench.refuses(
        event("nonsense"),
        "invalid_value: Invalid value: 'nonsense'. Supported values are: 'session.update', 'session.close', \
         'transcription_session.update', 'input_audio_buffer.append', 'input_audio_buffer.commit', \
         'input_audio_buffer.clear', 'conversation.item.create', 'conversation.item.retrieve', \
         'conversation.item.truncate', 'conversation.item.delete', 'response.create', and 'response.cancel'.",
    );
    assert_eq!(
        bench.send(event("output_audio_buffer.clear"))[0]["error"]["code"],
        "invalid_value"
    );
    bench.refuses(
        json!({}),
        "missing_required_parameter: Missing required parameter: 'type'.",
    );
    bench.refuses(
        json!([]),
        "invalid_type: Invalid type for 'event': expected an object, but got an array instead.",
    );
    bench.refuses(
        event("session.update"),
        "missing_required_parameter: Missing required parameter: 'session'.",
    );
    bench.refuses(
        event("input_audio_buffer.append"),
        "missing_required_parameter: Missing required parameter: 'audio'.",
    );
    let audio = |audio: &str| json!({"type": "input_audio_buffer.append", "audio": audio});
    let expected = "invalid_value: Invalid 'audio'. Expected base64-encoded audio bytes (mono PCM16 at 24kHz) but got ";
    bench.refuses(audio("*"), &format!("{expected}an invalid value."));
    bench.refuses(audio(""), &format!("{expected}empty bytes."));
    bench.refuses(audio("AAAA"), &format!("{expected}an odd number of bytes."));
    let empty = "input_audio_buffer_commit_empty: Error committing input audio buffer: buffer too small. Expected at \
                 least 100ms of audio, but buffer only has ";
    bench.refuses(
        event("input_audio_buffer.commit"),
        &format!("{empty}0.00ms of audio."),
    );
    bench.speak(&[0; 1200]);
    bench.refuses(
        event("input_audio_buffer.commit"),
        &format!("{empty}50.00ms of audio."),
    );
    bench.refuses(
        event("response.cancel"),
        "response_cancel_not_active: Cancellation failed: no active response found",
    );
    bench.refuses(
        json!({"type": "response.create", "response": {"modalities": ["text"]}}),
        "unknown_parameter: Unknown parameter: 'response.modalities'.",
    );
    bench.refuses(
        json!({"type": "conversation.item.truncate", "item_id": "x", "content_index": 0, "audio_end_ms": 1}),
        "item_truncate_invalid_item_id: Item with item_id not found: x",
    );
    bench.refuses(
        json!({"type": "conversation.item.delete", "item_id": "x"}),
        "item_delete_invalid_item_id: Error deleting item: the item with id 'x' does not exist.",
    );
    bench.refuses(
        json!({"type": "conversation.item.retrieve", "item_id": "x"}),
        "item_retrieve_invalid_item_id: Error retrieving item: the item with id 'x' does not exist.",
    );
    bench.refuses(
        event("transcription_session.update"),
        "invalid_parameter: Passing a transcription session update event to a realtime session is not allowed.",
    );
    assert_eq!(bench.send_text("{")[0]["error"]["code"], "invalid_json");
}

#[test]
fn an_error_names_the_event_it_answers() {
    let mut bench = Bench::ga();
    let named = bench.send(json!({"type": "nonsense", "event_id": "mine"}));
    assert_eq!(named[0]["error"]["event_id"], "mine");
    let unnamed = bench.send(json!({"type": "nonsense"}));
    assert_eq!(unnamed[0]["error"]["event_id"], Value::Null);
    assert_eq!(unnamed[0]["error"]["type"], "invalid_request_error");
}

#[test]
fn items_are_created_found_truncated_and_deleted() {
    let mut bench = Bench::ga();
    let create = |id: &str, after: Value| {
        let content = json!([{"type": "input_text", "text": "Hello"}]);
        let item = json!({"id": id, "type": "message", "role": "user", "content": content});
        json!({"type": "conversation.item.create", "item": item, "previous_item_id": after})
    };
    let added = bench.send(create("a", Value::Null));
    assert_eq!(
        kinds(&added),
        ["conversation.item.added", "conversation.item.done"]
    );
    assert_eq!(added[0]["previous_item_id"], Value::Null);
    assert_eq!(
        bench.send(create("b", Value::Null))[0]["previous_item_id"],
        "a"
    );
    assert_eq!(
        bench.send(create("c", json!("a")))[0]["previous_item_id"],
        "a"
    );
    assert_eq!(
        bench.send(create("d", json!("root")))[0]["previous_item_id"],
        Value::Null
    );
    bench.refuses(
        create("a", Value::Null),
        "item_create_duplicate_item_id: Error adding item: an item with id 'a' already exists.",
    );
    assert_eq!(
        bench.send(create("e", json!("z")))[0]["error"]["code"],
        "item_create_invalid_previous_item_id"
    );
    let got = bench.send(json!({"type": "conversation.item.retrieve", "item_id": "c"}));
    assert_eq!(got[0]["item"]["content"][0]["text"], "Hello");
    let gone = bench.send(json!({"type": "conversation.item.delete", "item_id": "c"}));
    assert_eq!(kinds(&gone), ["conversation.item.deleted"]);
    let events = bench.speak(&question());
    let reply = &find(&events, "response.output_item.added")["item"]["id"];
    let truncate = |ms: u64| json!({"type": "conversation.item.truncate", "item_id": reply, "content_index": 0, "audio_end_ms": ms});
    bench.refuses(
        truncate(9_999),
        "invalid_value: Audio content of 3915ms is already shorter than 9999ms",
    );
    assert_eq!(
        kinds(&bench.send(truncate(500))),
        ["conversation.item.truncated"]
    );
}

#[test]
fn parts_that_a_role_cannot_have() {
    let check = |bench: &mut Bench, role: &str, kind: &str, accepted: bool| {
        let content = json!([{"type": kind, "text": "x", "audio": "AAA="}]);
        let item = json!({"type": "message", "role": role, "content": content});
        let answer = bench.send(json!({"type": "conversation.item.create", "item": item}));
        assert_eq!(
            answer[0]["type"] != "error",
            accepted,
            "{role} {kind}: {answer:?}"
        );
    };
    let ga = &mut Bench::ga();
    check(ga, "user", "input_text", true);
    check(ga, "user", "input_audio", true);
    check(ga, "user", "output_text", false);
    check(ga, "system", "input_text", true);
    check(ga, "system", "input_audio", false);
    check(ga, "assistant", "output_text", true);
    check(ga, "assistant", "text", false);
    check(ga, "tool", "input_text", false);
    let preview = &mut Bench::preview();
    check(preview, "assistant", "text", true);
    check(preview, "assistant", "output_text", false);
}

#[test]
fn turns_by_hand() {
    let mut bench = Bench::ga();
    bench.send_text(MANUAL);
    assert_eq!(bench.speak(&question()), Vec::<Value>::new());
    let committed = bench.send(json!({"type": "input_audio_buffer.commit"}));
    assert_eq!(
        kinds(&committed),
        [
            "input_audio_buffer.committed",
            "conversation.item.added",
            "conversation.item.done"
        ]
    );
    let events = bench.send(json!({"type": "response.create"}));
    assert_eq!(
        find(&events, "response.done")["response"]["status"],
        "completed"
    );
    assert_eq!(
        kinds(&bench.send(json!({"type": "input_audio_buffer.clear"}))),
        ["input_audio_buffer.cleared"]
    );
}

#[test]
fn detection_that_creates_no_response() {
    let mut bench = Bench::ga();
    let detection = json!({"type": "server_vad", "create_response": false});
    bench.send(ga_session(
        json!({"audio": {"input": {"turn_detection": detection}}}),
    ));
    let events = bench.speak(&question());
    assert!(kinds(&events).contains(&"input_audio_buffer.committed"));
    assert!(!kinds(&events).contains(&"response.created"));
}

#[test]
fn answers_in_text() {
    let mut bench = Bench::ga();
    let content = json!([{"type": "input_text", "text": "Hello"}]);
    let item = json!({"type": "message", "role": "user", "content": content});
    bench.send(json!({"type": "conversation.item.create", "item": item}));
    let options = json!({"output_modalities": ["text"], "metadata": {"k": "v"}});
    let events = bench.send(json!({"type": "response.create", "response": options}));
    assert_eq!(
        joined(&events, "response.output_text.delta"),
        REPLIES[0].text
    );
    assert!(!kinds(&events).iter().any(|kind| kind.contains("audio")));
    let done = &find(&events, "response.done")["response"];
    assert_eq!(
        done["output"][0]["content"][0],
        json!({"type": "output_text", "text": REPLIES[0].text})
    );
    assert_eq!(done["metadata"], json!({"k": "v"}));
    assert_eq!(done["usage"]["input_tokens"], 2);
    assert_eq!(done["usage"]["output_token_details"]["audio_tokens"], 0);
}

#[test]
fn what_was_read_before_counts_as_cached() {
    let mut bench = Bench::ga();
    let first = bench.speak(&question());
    let second = bench.speak(&question());
    let usage = |events: &[Value]| find(events, "response.done")["response"]["usage"].clone();
    assert_eq!(usage(&first)["input_token_details"]["cached_tokens"], 0);
    let read = &usage(&first)["input_tokens"];
    assert_eq!(
        &usage(&second)["input_token_details"]["cached_tokens"],
        read
    );
    assert!(usage(&second)["input_tokens"].as_u64() > read.as_u64());
}

#[test]
fn a_transcription_model_that_does_not_exist_fails_late() {
    let mut bench = Bench::ga();
    assert_eq!(
        kinds(&bench.send(transcribing("no-such-deployment"))),
        ["session.updated"]
    );
    let events = bench.speak(&question());
    let failed = find(
        &events,
        "conversation.item.input_audio_transcription.failed",
    );
    assert_eq!(failed["error"]["code"], "DeploymentNotFound");
    assert_eq!(
        find(&events, "response.done")["response"]["status"],
        "completed"
    );
}

#[test]
fn parrots_repeat_what_they_heard() {
    let rules = Rules {
        reply: ReplyChoice::Parrot,
        ..fast()
    };
    let mut bench = Bench::new(Dialect::Ga, Purpose::Realtime, rules);
    let events = bench.speak(&question());
    let said = wav::samples_from_le(&audio(&events, "response.output_audio.delta")).unwrap();
    let spoken = QUESTION.wav().unwrap();
    let loud = |samples: &[i16]| -> Vec<i16> {
        let start = samples.iter().position(|&s| s != 0).unwrap();
        let end = samples.iter().rposition(|&s| s != 0).unwrap();
        samples[start..=end].to_vec()
    };
    assert_eq!(loud(&said), loud(spoken.samples()));
    assert_eq!(
        joined(&events, "response.output_audio_transcript.delta"),
        QUESTION.text
    );
}

#[test]
fn replies_are_paced_and_can_be_cancelled() {
    let mut bench = Bench::new(Dialect::Ga, Purpose::Realtime, Rules::default());
    bench.events();
    let started = bench.send(json!({"type": "response.create"}));
    assert_eq!(kinds(&started).last(), Some(&"response.content_part.added"));
    assert_eq!(
        bench.session.poll_timeout(),
        bench.now + Duration::from_millis(300)
    );
    let spoken = |events: &[Value]| audio(events, "response.output_audio.delta").len();
    assert_eq!(spoken(&bench.pass(Duration::from_millis(299))), 0);
    assert_eq!(spoken(&bench.pass(Duration::from_millis(1))), 9_600);
    assert_eq!(spoken(&bench.pass(Duration::from_millis(159))), 0);
    assert_eq!(spoken(&bench.pass(Duration::from_millis(321))), 3 * 9_600);
    bench.refuses(
        json!({"type": "response.cancel", "response_id": "resp_other"}),
        "response_cancel_not_active: Cancellation failed: no active response found",
    );
    let active = started[0]["response"]["id"].as_str().unwrap();
    bench.refuses(
        json!({"type": "response.create"}),
        &format!(
            "conversation_already_has_active_response: Conversation already has an active response in progress: \
             {active}. Wait until the response is finished before creating a new one."
        ),
    );
    let cancelled = bench.send(json!({"type": "response.cancel"}));
    let done = &find(&cancelled, "response.done")["response"];
    assert_eq!(done["status"], "cancelled");
    assert_eq!(
        done["status_details"],
        json!({"type": "cancelled", "reason": "client_cancelled"})
    );
    assert_eq!(done["output"][0]["status"], "incomplete");
    assert_eq!(done["usage"]["output_token_details"]["audio_tokens"], 16);
    assert_eq!(bench.pass(Duration::from_secs(10)), Vec::<Value>::new());
}

#[test]
fn speaking_interrupts_the_reply_unless_told_not_to() {
    let interrupted = |interrupts: bool| {
        let mut bench = Bench::new(Dialect::Ga, Purpose::Realtime, Rules::default());
        let detection = json!({"type": "server_vad", "interrupt_response": interrupts});
        bench.send(ga_session(
            json!({"audio": {"input": {"turn_detection": detection}}}),
        ));
        bench.send(json!({"type": "response.create"}));
        bench.pass(Duration::from_millis(700));
        let events = bench.speak(&question()[..24_000]);
        let mut done = events
            .into_iter()
            .filter(|event| event["type"] == "response.done");
        done.next()
            .map(|event| event["response"]["status_details"]["reason"].clone())
    };
    assert_eq!(interrupted(true), Some(json!("turn_detected")));
    assert_eq!(interrupted(false), None);
}

#[test]
fn telephone_audio_both_ways() {
    let mut bench = Bench::ga();
    let pcmu = json!({"type": "audio/pcmu"});
    let input = json!({"format": pcmu, "transcription": {"model": "whisper-1"}});
    bench.send(ga_session(
        json!({"audio": {"input": input, "output": {"format": pcmu}}}),
    ));
    let encoded = audio::Format::Ulaw.encode(&question());
    let pieces = encoded
        .chunks(160)
        .map(|piece| json!({"type": "input_audio_buffer.append", "audio": STANDARD.encode(piece)}));
    let events: Vec<Value> = pieces.flat_map(|piece| bench.send(piece)).collect();
    let heard = find(
        &events,
        "conversation.item.input_audio_transcription.completed",
    );
    assert_eq!(heard["transcript"], QUESTION.text);
    let clip = REPLIES[0].wav().unwrap();
    assert_eq!(
        audio(&events, "response.output_audio.delta"),
        audio::Format::Ulaw.encode(clip.samples())
    );
}

#[test]
fn transcription_sessions_only_listen() {
    let mut bench = Bench::new(Dialect::Ga, Purpose::Transcription, fast());
    let created = bench.events();
    assert_eq!(created[0]["session"]["type"], "transcription");
    let input = json!({"transcription": {"model": "gpt-4o-transcribe"}});
    bench.send(json!({"type": "session.update", "session": {"type": "transcription", "audio": {"input": input}}}));
    let events = bench.speak(&question());
    let heard = find(
        &events,
        "conversation.item.input_audio_transcription.completed",
    );
    assert_eq!(heard["transcript"], QUESTION.text);
    assert!(!kinds(&events).contains(&"response.created"));
    assert_eq!(
        bench.send(json!({"type": "response.create"}))[0]["error"]["code"],
        "invalid_parameter"
    );
}

#[test]
fn silence_is_forgotten() {
    let mut bench = Bench::ga();
    for _ in 0..60 {
        bench.speak(&[0; 24_000]);
    }
    assert!(
        bench.session.buffer.len() < 48_000,
        "{}",
        bench.session.buffer.len()
    );
    let events = bench.speak(&question());
    let started = find(&events, "input_audio_buffer.speech_started");
    assert!(
        (59_600..60_100).contains(&started["audio_start_ms"].as_u64().unwrap()),
        "{started}"
    );
}

#[test]
fn a_buffer_that_nobody_commits_is_bounded() {
    let mut bench = Bench::ga();
    bench.send_text(MANUAL);
    let minute = append(&vec![0; 24_000 * 60]);
    for _ in 0..10 {
        assert_eq!(bench.send(minute.clone()), Vec::<Value>::new());
    }
    assert_eq!(
        bench.send(minute)[0]["error"]["code"],
        "input_audio_buffer_full"
    );
}

#[test]
fn sessions_end() {
    let life = Duration::from_secs(60 * 60);
    let mut bench = Bench::new(Dialect::Ga, Purpose::Realtime, Rules::default());
    assert_eq!(bench.events()[0]["session"]["expires_at"], 1_000 + 3_600);
    assert_eq!(bench.session.poll_timeout(), bench.now + life);
    assert_eq!(
        bench.pass(life - Duration::from_secs(1)),
        Vec::<Value>::new()
    );
    let events = bench.pass(Duration::from_secs(1));
    assert_eq!(events[0]["error"]["code"], "session_expired");
    let reason = "Your session hit the maximum duration of 60 minutes.";
    assert_eq!(
        events[1],
        json!({"type": "close", "code": 1001, "reason": reason})
    );
    let closed = Bench::ga().send(json!({"type": "session.close"}));
    assert_eq!(
        closed,
        [json!({"type": "close", "code": 1000, "reason": ""})]
    );
}

#[test]
fn no_text_panics() {
    let mut bench = Bench::ga();
    for text in [
        "",
        "null",
        "1",
        "\"x\"",
        "[[",
        r#"{"type":1}"#,
        r#"{"type":"session.update","session":1}"#,
    ] {
        assert_eq!(kinds(&bench.send_text(text)), ["error"], "{text}");
    }
    for kind in CLIENT_EVENTS
        .iter()
        .filter(|kind| **kind != "session.close")
    {
        for filler in [
            json!(null),
            json!(1),
            json!("x"),
            json!([]),
            json!({}),
            json!({"type": "message"}),
        ] {
            let names = [
                "session",
                "audio",
                "item",
                "item_id",
                "response",
                "event_id",
                "audio_end_ms",
            ];
            let event = names.iter().fold(json!({"type": kind}), |event, name| {
                with(&event, json!({*name: filler}))
            });
            bench.send(event);
        }
    }
}
