//! Session policies, settings of tokens and Azure's helpers through the real binary: what holds upstream is
//! what the simulator says in `session.updated`.

use serde_json::{Value, json};

use crate::kit::{
    CLIENT_KEY, DEPLOYMENT, RawSession, Relay, azure, azure_deployment, raw, simulator,
};

const PROMPT: &str = "CANARY-PROMPT-61f0-2b9d";

fn kiosk(endpoint: &str, more: &str) -> String {
    azure(endpoint)
        + &format!(
            "policies.kiosk.instructions = \"{PROMPT}\"\npolicies.kiosk.voice = \"marin\"\n\
             policies.kiosk.maxOutputTokens = 1000\n{more}clients.access.test.policy = \"kiosk\"\n"
        )
}

async fn open(relay: &Relay, headers: &str) -> RawSession {
    let target = format!("/v1/realtime?model={DEPLOYMENT}");
    let session = RawSession::open(relay.authority(), &target, headers).await;
    assert!(
        session.head.starts_with("HTTP/1.1 101 "),
        "{}",
        session.head
    );
    session
}

fn bearer() -> String {
    format!("Authorization: Bearer {CLIENT_KEY}\r\n")
}

/// The next event of this type; those before it must not be errors.
async fn next(session: &mut RawSession, kind: &str) -> Value {
    loop {
        let event = session.event().await.json();
        if event["type"] == kind {
            return event;
        }
        assert_ne!(event["type"], "error", "{event}");
    }
}

/// The settings that hold upstream after this `session.update`.
async fn updated(session: &mut RawSession, settings: &Value) -> Value {
    let update = json!({"type": "session.update", "session": settings});
    session.send(1, update.to_string().as_bytes()).await;
    next(session, "session.updated").await["session"].take()
}

#[tokio::test]
async fn what_is_the_operators_stays_the_operators() {
    let sim = simulator().await;
    let shown = "policies.kiosk.hideInstructions = false\n";
    let relay = Relay::start(&kiosk(&sim.base_url(), shown)).await;
    let mut session = open(&relay, &bearer()).await;
    next(&mut session, "session.created").await;
    // The client has said nothing about any of these.
    let settings = updated(&mut session, &json!({"type": "realtime"})).await;
    assert_eq!(settings["instructions"], PROMPT);
    assert_eq!(settings["audio"]["output"]["voice"], "marin");
    // Its own are put right, and what is free is the client's.
    let asked = json!({
        "type": "realtime", "instructions": "Swear.", "max_output_tokens": 4000,
        "audio": {"output": {"voice": "ash", "speed": 1.25}},
    });
    let settings = updated(&mut session, &asked).await;
    assert_eq!(settings["instructions"], PROMPT);
    assert_eq!(settings["max_output_tokens"], 1000);
    let output = json!({"voice": "marin", "speed": 1.25});
    for (name, value) in output.as_object().unwrap() {
        assert_eq!(&settings["audio"]["output"][name], value);
    }
    // What cannot be put right is refused, by an event, and the session goes on.
    let server = json!({"type": "mcp", "server_label": "x", "server_url": "https://evil.test"});
    let refused = [
        (
            json!({"type": "session.instructions.append", "event_id": "e-1"}).to_string(),
            "policy_event_not_allowed",
        ),
        (
            json!({"type": "session.update", "event_id": "e-1", "session": {"tools": [server]}})
                .to_string(),
            "policy_mcp_server",
        ),
        (
            r#"{"event_id":"e-1","type":"response.cancel","type":"session.update"}"#.to_owned(),
            "policy_ambiguous_event",
        ),
    ];
    for (event, code) in &refused {
        // A binary message is no way around it.
        for opcode in [1, 2] {
            session.send(opcode, event.as_bytes()).await;
            let told = session.event().await.json();
            assert_eq!(told["type"], "error", "{told}");
            assert_eq!(told["error"]["code"], *code, "{told}");
        }
    }
    let settings = updated(&mut session, &json!({"type": "realtime"})).await;
    assert_eq!(settings["tools"], json!([]));
    assert_eq!(settings["instructions"], PROMPT);
}

#[tokio::test]
async fn the_prompt_is_hidden() {
    let sim = simulator().await;
    let relay = Relay::start(&kiosk(&sim.base_url(), "")).await;
    let mut session = open(&relay, &bearer()).await;
    let created = next(&mut session, "session.created").await;
    let settings = updated(&mut session, &json!({"type": "realtime"})).await;
    for shown in [&created["session"], &settings] {
        assert!(!shown.to_string().contains(PROMPT), "{shown}");
    }
    assert_eq!(settings["audio"]["output"]["voice"], "marin");
    drop(session);
    assert!(!relay.log().await.contains(PROMPT));
}

#[tokio::test]
async fn a_tokens_settings_are_fixed() {
    let sim = simulator().await;
    let relay = Relay::start(&azure(&sim.base_url())).await;
    let body = json!({"session": {
        "type": "realtime", "model": DEPLOYMENT, "instructions": PROMPT,
        "audio": {"output": {"voice": "marin"}},
    }})
    .to_string();
    let request = format!(
        "POST /v1/realtime/client_secrets HTTP/1.1\r\nHost: localhost\r\n{}Content-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        bearer(),
        body.len()
    );
    let answer = raw(relay.authority(), request.as_bytes()).await;
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    let made: Value = serde_json::from_str(body).unwrap();
    let token = made["value"].as_str().unwrap();
    let offer = format!("Sec-WebSocket-Protocol: realtime, openai-insecure-api-key.{token}\r\n");
    let mut session = open(&relay, &offer).await;
    let asked = json!({
        "type": "realtime", "instructions": "Swear.", "audio": {"output": {"voice": "ash"}},
        "max_output_tokens": 77,
    });
    let settings = updated(&mut session, &asked).await;
    assert_eq!(settings["audio"]["output"]["voice"], "marin");
    assert_eq!(settings["max_output_tokens"], 77, "it was left open");
    assert_ne!(settings["instructions"], "Swear.");
    assert!(!settings.to_string().contains(PROMPT), "{settings}");
}

#[tokio::test]
async fn azures_helpers_mend_what_sdks_send() {
    let sim = simulator().await;
    let endpoint = sim.base_url();
    let asked = json!({
        "type": "realtime", "model": "gpt-realtime-2025", "tracing": "auto",
        "audio": {"input": {"transcription": {"model": "gpt-4o-mini-transcribe"}}},
    });
    let provider = "talk.realtime.providers.openai";
    let helpers = format!(
        "{provider}.azureTranscriptionDeployments.gpt-4o-mini-transcribe = \"my-transcribe\"\n\
         {provider}.azureDropTracing = true\n{provider}.azureMapSessionModel = true\n\
         {provider}.aliases = [\"gpt-realtime-2025\"]\n"
    );
    let relay = Relay::start(&(azure_deployment(&endpoint, DEPLOYMENT) + &helpers)).await;
    let mut session = open(&relay, &bearer()).await;
    let settings = updated(&mut session, &asked).await;
    assert_eq!(settings["model"], DEPLOYMENT);
    assert_eq!(settings["tracing"], Value::Null);
    assert_eq!(
        settings["audio"]["input"]["transcription"]["model"],
        "my-transcribe"
    );
    // They are off unless they are written.
    let relay = Relay::start(&azure(&endpoint)).await;
    let mut session = open(&relay, &bearer()).await;
    let mut asked = asked;
    asked.as_object_mut().unwrap().remove("model");
    let settings = updated(&mut session, &asked).await;
    assert_eq!(settings["tracing"], "auto");
    assert_eq!(
        settings["audio"]["input"]["transcription"]["model"],
        "gpt-4o-mini-transcribe"
    );
}
