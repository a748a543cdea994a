//! Sessions as an OpenTelemetry collector hears of them.

use talkline_sim::Collector;
use tokio::time::timeout;

use crate::kit::{CLIENT_KEY, DEPLOYMENT, PATIENCE, RawSession, Relay, azure, simulator, turn};

const KEY: &str = "CANARY-OTLP-KEY-4e81-c07f5bd3926a1e44";

/// Short enough for a test, and not so short that it is always under way.
const OFTEN: [(&str, &str); 2] = [
    ("OTEL_BSP_SCHEDULE_DELAY", "200"),
    ("OTEL_METRIC_EXPORT_INTERVAL", "200"),
];

async fn relay(endpoint: &str) -> Relay {
    let simulator = simulator().await;
    let configuration = azure(&simulator.base_url());
    let headers = format!("authorization=Bearer%20{KEY}");
    let mut variables = OFTEN.to_vec();
    variables.push(("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint));
    variables.push(("OTEL_EXPORTER_OTLP_HEADERS", &headers));
    let relay = Relay::start_env(&configuration, &[], &variables).await;
    turn(&relay.plain_call()).await.unwrap();
    let key = format!("api-key: {CLIENT_KEY}\r\n");
    let target = "/v1/realtime?model=key_invalid";
    let mut refused = RawSession::open(relay.authority(), target, &key).await;
    while refused.frame().await.is_some_and(|frame| frame.opcode != 8) {}
    relay
}

#[tokio::test]
async fn a_session_is_a_span_and_counts_its_tokens() {
    let collector = Collector::start().await.unwrap();
    let relay = relay(&collector.endpoint()).await;
    let log = relay.log().await;

    assert_eq!(collector.malformed(), 0);
    let keys = collector.header("authorization");
    assert!(!keys.is_empty() && keys.iter().all(|key| key == &format!("Bearer {KEY}")));
    let spans = collector.spans();
    let [ended, refused] = &spans[..] else {
        panic!("two spans: {spans:#?}");
    };
    assert_eq!(ended.name, format!("realtime_session {DEPLOYMENT}"));
    assert_eq!((ended.kind, ended.status), (3, 0));
    assert!(ended.nanoseconds > 0);
    assert_eq!(ended.resource["service.name"], "talkline");
    for (name, value) in [
        ("gen_ai.operation.name", "realtime_session"),
        ("gen_ai.provider.name", "azure.ai.openai"),
        ("gen_ai.request.model", DEPLOYMENT),
        ("server.address", "127.0.0.1"),
        ("talkline.client", "test"),
        ("talkline.outcome", "client_closed"),
        ("talkline.close_code", "1000"),
    ] {
        assert_eq!(ended.attributes[name], value, "{name}");
    }
    for name in [
        "gen_ai.conversation.id",
        "talkline.session.id",
        "azure.service.request.id",
        "cloud.region",
        "server.port",
        "talkline.first_audio_ms",
    ] {
        assert!(ended.attributes.contains_key(name), "{name}: {ended:#?}");
    }
    assert_eq!((refused.kind, refused.status), (3, 2));
    assert_eq!(refused.attributes["talkline.outcome"], "refused");
    assert!(
        refused.attributes.contains_key("error.type"),
        "{refused:#?}"
    );

    let points = collector.points();
    for direction in ["input", "output"] {
        let name = format!("gen_ai.client.inference.usage.{direction}_tokens");
        let of_name: Vec<_> = points.iter().filter(|point| point.name == name).collect();
        assert!(of_name.iter().all(|point| point.unit == "{token}"));
        let total: u64 = of_name.iter().map(|point| point.value).sum();
        let on_span = &ended.attributes[&format!("gen_ai.usage.{direction}_tokens")];
        assert_eq!(total.to_string(), *on_span, "{points:#?}");
        let audio = of_name
            .iter()
            .find(|point| point.attributes["gen_ai.token.modality"] == "audio")
            .unwrap();
        assert_eq!(audio.attributes["gen_ai.provider.name"], "azure.ai.openai");
        let on_span = &ended.attributes[&format!("gen_ai.usage.audio.{direction}_tokens")];
        assert_eq!(audio.value.to_string(), *on_span);
    }
    let durations = points
        .iter()
        .filter(|point| point.name == "gen_ai.client.operation.duration");
    assert_eq!(durations.map(|point| point.value).sum::<u64>(), 2);
    assert!(!log.contains("CANARY-OTLP"), "{log}");
}

#[tokio::test]
async fn spans_come_while_the_relay_runs() {
    let collector = Collector::start().await.unwrap();
    let _relay = relay(&collector.endpoint()).await;
    let came = timeout(PATIENCE, async {
        let mut requests = 1;
        while collector.spans().len() < 2 || collector.points().is_empty() {
            collector.requests(requests).await;
            requests += 1;
        }
    });
    came.await.unwrap();
}

#[tokio::test]
async fn a_collector_that_is_away_costs_a_line() {
    // Bound and let go: nothing listens there.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let mut relay = relay(&endpoint).await;
    relay.signal("-TERM");
    assert_eq!(relay.exit_status().await.code(), Some(0));
    let log = relay.log_of_the_dead().await;
    let said = log
        .matches("the OpenTelemetry collector takes nothing")
        .count();
    // Each of the two senders says it once.
    assert!((1..=2).contains(&said), "{log}");
    assert!(!log.contains("CANARY-OTLP"), "{log}");
}

#[tokio::test]
async fn nothing_is_sent_unless_a_collector_is_named() {
    let collector = Collector::start().await.unwrap();
    let simulator = simulator().await;
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint()),
        ("OTEL_SDK_DISABLED", "true".to_owned()),
    ];
    let variables = variables
        .each_ref()
        .map(|(name, value)| (*name, value.as_str()));
    let relay = Relay::start_env(&azure(&simulator.base_url()), &[], &variables).await;
    turn(&relay.plain_call()).await.unwrap();
    relay.log().await;
    assert!(collector.spans().is_empty() && collector.points().is_empty());
}
