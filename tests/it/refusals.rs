//! What a client is told when the upstream gives no session.

use serde_json::Value;

use crate::kit::{
    AZURE_KEY, CLIENT_KEY, RawSession, Relay, Trap, azure, azure_deployment, simulator,
};

fn authorized() -> String {
    format!("Authorization: Bearer {CLIENT_KEY}\r\nSec-WebSocket-Protocol: realtime\r\n")
}

/// Opens a session and returns the error event, the close code and the reason.
async fn refusal(relay: &Relay, target: &str) -> (Value, u16, String) {
    let mut session = RawSession::open(relay.authority(), target, &authorized()).await;
    assert!(
        session.head.starts_with("HTTP/1.1 101 "),
        "{}",
        session.head
    );
    assert!(
        session
            .head
            .to_lowercase()
            .contains("sec-websocket-protocol: realtime\r\n")
    );
    let event = session.event().await.json();
    let close = session.event().await;
    let (code, reason) = close.close();
    assert!(reason.len() <= 123);
    let reason = reason.to_owned();
    session.send(8, &code.to_be_bytes()).await;
    assert_eq!(
        session.frame().await,
        None,
        "the relay hangs up after the close"
    );
    assert_eq!(event["type"], "error");
    (event["error"].clone(), code, reason)
}

async fn check(deployment: &str, code: &str, close_code: u16, said: &str) {
    let sim = simulator().await;
    let relay = Relay::start(&azure_deployment(&sim.base_url(), deployment)).await;
    let (error, closed_with, reason) = refusal(&relay, "/v1/realtime").await;
    let shown = error.to_string();
    assert_eq!(
        (error["code"].as_str(), closed_with, reason.as_str()),
        (Some(code), close_code, code),
        "{shown}"
    );
    let message = error["message"].as_str().unwrap();
    assert!(
        message.contains(said) && message.contains("Next step: "),
        "{message}"
    );
    assert!(message.contains("request id "), "{message}");
    assert_eq!(
        sim.requests().len(),
        1,
        "one request, no retry, no redirect followed"
    );
    let log = relay.log().await;
    assert!(
        !shown.contains(AZURE_KEY) && !log.contains("CANARY"),
        "{shown} {log}"
    );
    let line = log
        .lines()
        .find(|line| line.contains("session refused"))
        .expect("it is logged");
    let line: Value = serde_json::from_str(line).unwrap();
    assert_eq!(line["code"], code);
    assert!(
        line["next_step"]
            .as_str()
            .is_some_and(|text| !text.is_empty())
    );
}

#[tokio::test]
async fn azure_401_keeps_what_azure_said() {
    check(
        "key_invalid",
        "azure_key_invalid",
        1008,
        "invalid subscription key",
    )
    .await;
}

#[tokio::test]
async fn azure_403_keeps_what_azure_said() {
    check(
        "firewall",
        "azure_firewall",
        1008,
        "Virtual Network/Firewall rules",
    )
    .await;
}

#[tokio::test]
async fn a_missing_deployment_is_named() {
    check(
        "deployment_not_found",
        "azure_deployment_not_found",
        1008,
        "`deployment_not_found`",
    )
    .await;
}

#[tokio::test]
async fn throttling_tells_sdks_to_come_back() {
    check(
        "rate_limit_calls",
        "azure_rate_limited",
        1013,
        "exceeded call rate limit",
    )
    .await;
}

#[tokio::test]
async fn a_redirect_is_not_followed_and_its_key_not_shown() {
    check(
        "redirect_302",
        "azure_upgrade_redirect",
        1008,
        "/v1/realtime",
    )
    .await;
}

#[tokio::test]
async fn an_upstream_that_nobody_runs() {
    // A port that was free a moment ago and belongs to nobody.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let relay = Relay::start(&azure(&endpoint)).await;
    let (error, code, _) = refusal(&relay, "/v1/realtime").await;
    assert_eq!(
        (error["code"].as_str(), code),
        (Some("azure_tcp_refused"), 1011)
    );
}

#[tokio::test]
async fn an_upstream_that_hangs_up_or_lies() {
    for (misbehaviour, expected) in [
        ("wrong_accept", "azure_bad_handshake"),
        ("unrequested_extension", "azure_bad_handshake"),
    ] {
        let sim = simulator().await;
        let relay = Relay::start(&azure_deployment(&sim.base_url(), misbehaviour)).await;
        let (error, ..) = refusal(&relay, "/v1/realtime").await;
        assert_eq!(error["code"], expected, "{misbehaviour}");
    }
}

#[tokio::test]
async fn an_unknown_model_is_refused_with_what_exists() {
    let sim = simulator().await;
    let relay = Relay::start(&azure(&sim.base_url())).await;
    let (error, code, reason) = refusal(&relay, "/v1/realtime?model=gpt-4o").await;
    assert_eq!(
        (error["code"].as_str(), code, reason.as_str()),
        (Some("unknown_model"), 1008, "unknown_model")
    );
    let message = error["message"].as_str().unwrap();
    assert!(
        message.contains("`gpt-4o`") && message.contains("gpt-realtime"),
        "{message}"
    );
    assert_eq!(sim.requests().len(), 0, "nothing was dialled");
}

#[tokio::test]
async fn azure_failures_never_lead_to_openai() {
    let trap = Trap::set().await;
    for deployment in [
        "key_invalid",
        "deployment_not_found",
        "redirect_302",
        "closes_after_101",
        "wrong_accept",
    ] {
        let sim = simulator().await;
        let configuration = azure_deployment(&sim.base_url(), deployment);
        let variables = [("OPENAI_API_KEY", "sk-CANARY-openai")];
        let relay =
            Relay::start_env(&configuration, &["--resolve", &trap.resolve()], &variables).await;
        let mut session = RawSession::open(relay.authority(), "/v1/realtime", &authorized()).await;
        while session.frame().await.is_some_and(|frame| frame.opcode != 8) {}
        assert_eq!(sim.requests().len(), 1, "{deployment}");
        assert!(
            !format!("{:?}", sim.requests()).contains("sk-CANARY"),
            "{deployment}"
        );
    }
    assert_eq!(trap.caught(), 0);
}

/// Opens a session with a deployment that fails in the way it is named, asks for `responses`, and
/// returns what the client saw and the log's lines.
async fn impaired(deployment: &str, responses: usize) -> (Vec<Value>, Vec<Value>) {
    let sim = simulator().await;
    let relay = Relay::start(&azure_deployment(&sim.base_url(), deployment)).await;
    let mut session = RawSession::open(relay.authority(), "/v1/realtime", &authorized()).await;
    let mut seen = Vec::new();
    let mut asked = 0;
    loop {
        let frame = session.event().await;
        if frame.opcode == 8 {
            break;
        }
        let event = frame.json();
        let kind = event["type"].as_str().unwrap_or_default().to_owned();
        seen.push(event);
        if kind == "session.created" || kind == "response.done" {
            if asked == responses && responses > 0 {
                session.send(8, &1000u16.to_be_bytes()).await;
            } else if responses > 0 {
                session.send(1, br#"{"type":"response.create"}"#).await;
                asked += 1;
            }
        }
    }
    let log = relay.log().await;
    assert!(!log.contains("CANARY"), "{log}");
    let lines = log
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok());
    (seen, lines.collect())
}

#[tokio::test]
async fn failures_in_a_session_pass_through_and_are_named_in_the_log() {
    for (deployment, responses, code, pointer, said) in [
        (
            "session_expired",
            0,
            "session_expired",
            "/error/code",
            "session_expired",
        ),
        (
            "inference_rate_limit_exceeded",
            3,
            "session_rate_limited",
            "/response/status_details/error/code",
            "inference_rate_limit_exceeded",
        ),
        (
            "content_filter",
            1,
            "session_content_filtered",
            "/response/status_details/reason",
            "content_filter",
        ),
    ] {
        let (seen, log) = impaired(deployment, responses).await;
        let passed = seen
            .iter()
            .filter(|event| event.pointer(pointer).is_some_and(|value| value == said))
            .count();
        assert_eq!(passed, responses.max(1), "{seen:?}");
        let named = |message: &str| -> Vec<&Value> {
            log.iter()
                .filter(|line| line["message"] == message)
                .collect()
        };
        let impaired = named("session impaired");
        assert_eq!(impaired.len(), 1, "one line for each code: {log:?}");
        assert_eq!(
            (&impaired[0]["code"], &impaired[0]["level"]),
            (&code.into(), &"WARN".into())
        );
        assert!(impaired[0]["next_step"].is_string());
        let ended = named("session ended");
        assert_eq!(
            ended[0]["incidents"],
            format!("{code}={passed}"),
            "{ended:?}"
        );
    }
}

/// Every refusal that the simulator knows, and what the client is told of it.
const REFUSALS: [(&str, &str, u16); 23] = [
    ("key_invalid", "azure_key_invalid", 1008),
    ("key_invalid_apim_shape", "azure_key_invalid", 1008),
    ("no_auth", "azure_unauthorized", 1008),
    (
        "token_bad_audience_or_expired",
        "azure_token_audience",
        1008,
    ),
    ("rbac_old", "azure_rbac_missing", 1008),
    ("rbac_data_action", "azure_rbac_missing", 1008),
    ("tenant_mismatch_400", "azure_tenant_mismatch", 1008),
    ("key_auth_disabled", "azure_key_auth_disabled", 1008),
    ("firewall", "azure_firewall", 1008),
    ("public_access_disabled", "azure_private_only", 1008),
    ("resource_blocked", "azure_resource_suspended", 1008),
    ("deployment_not_found", "azure_deployment_not_found", 1008),
    ("resource_not_found", "azure_path_not_found", 1008),
    ("model_not_realtime", "azure_model_not_realtime", 1008),
    ("api_version_bad", "azure_api_version", 1008),
    ("api_version_on_ga", "azure_unauthorized", 1008),
    ("rate_limit_calls", "azure_rate_limited", 1013),
    ("redirect_302", "azure_upgrade_redirect", 1008),
    (
        "translate_on_realtime_path",
        "azure_model_not_realtime",
        1008,
    ),
    ("subprotocol_auth", "azure_unauthorized", 1008),
    ("internal_error", "azure_unavailable", 1011),
    ("no_healthy_upstream", "azure_unavailable", 1011),
    ("unavailable", "azure_unavailable", 1011),
];

#[tokio::test]
async fn every_refusal_that_azure_is_known_for_is_named() {
    let known: Vec<_> = talkline_sim::Refusal::all()
        .iter()
        .map(talkline_sim::Refusal::name)
        .collect();
    assert_eq!(known, REFUSALS.map(|(name, ..)| name));
    let sim = simulator().await;
    // One relay for all: each refusal is the deployment of a provider.
    let mut configuration = azure(&sim.base_url());
    for (name, ..) in REFUSALS {
        let provider = format!("talk.realtime.providers.{name}");
        configuration.push_str(&format!(
            "{provider}.type = \"azure-openai\"\n\
             {provider}.azureEndpoint = \"{}\"\n\
             {provider}.azureDeployment = \"{name}\"\n\
             {provider}.apiKey = {{ env = \"AZURE_KEY\" }}\n",
            sim.base_url()
        ));
    }
    let relay = Relay::start(&configuration).await;
    for (name, code, close_code) in REFUSALS {
        let (error, closed_with, reason) =
            refusal(&relay, &format!("/v1/realtime?model={name}")).await;
        assert_eq!(
            (error["code"].as_str(), closed_with, reason.as_str()),
            (Some(code), close_code, code),
            "{name}: {error}"
        );
    }
    assert_eq!(sim.requests().len(), REFUSALS.len(), "one request each");
    let log = relay.log().await;
    assert!(!log.contains("CANARY"), "{log}");
}

#[tokio::test]
async fn a_problem_document_in_place_of_the_session_when_asked_for() {
    let cases = [
        ("key_invalid", "424", "azure_key_invalid"),
        ("rate_limit_calls", "429", "azure_rate_limited"),
        ("internal_error", "503", "azure_unavailable"),
    ];
    for (deployment, status, code) in cases {
        let sim = simulator().await;
        let configuration =
            azure_deployment(&sim.base_url(), deployment) + "server.refusals = \"http\"\n";
        let relay = Relay::start(&configuration).await;
        let session = RawSession::open(relay.authority(), "/v1/realtime", &authorized()).await;
        let head = session.head.to_lowercase();
        assert!(head.starts_with(&format!("http/1.1 {status} ")), "{head}");
        assert!(
            head.contains("content-type: application/problem+json\r\n"),
            "{head}"
        );
        assert!(status != "429" || head.contains("retry-after: "), "{head}");
        let log = relay.log().await;
        assert!(log.contains(code) && !log.contains("CANARY"), "{log}");
    }
}
