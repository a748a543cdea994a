//! Starting, recording, shutting down.

use serde_json::Value;
use talkline_sim::caller::{Dialect, Secret, spoken_turn};
use talkline_sim::{BearerRule, DEFAULT_API_KEY, Simulator, clips, unsigned_token};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::bench::{DEADLINE, Raw, call, fast, options, target};

#[tokio::test]
async fn only_loopback_is_listened_on() {
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"] {
        let error = Simulator::builder()
            .listen(address.parse().unwrap())
            .start()
            .await
            .unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput, "{address}");
    }
    let simulator = fast().start().await.unwrap();
    assert_eq!(
        simulator.base_url(),
        format!("http://127.0.0.1:{}", simulator.addr().port())
    );
}

#[tokio::test]
async fn requests_are_recorded_before_they_are_answered() {
    let directory = std::env::temp_dir().join(format!("talkline-sim-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let path = directory.join("requests.jsonl");
    let simulator = fast().record_to(&path).start().await.unwrap();
    let mut raw = Raw::connect(&simulator).await;
    raw.send(
        b"POST /x?y=1 HTTP/1.1\r\nHost: h\r\nX-Two: a\r\nX-Two: b\r\nContent-Length: 2\r\n\r\nhi",
    )
    .await;
    raw.read_until("Resource not found").await;
    let written = std::fs::read_to_string(&path).unwrap();
    let line: Value = serde_json::from_str(written.trim_end()).unwrap();
    let expected = serde_json::json!({
        "method": "POST", "path": "/x", "query": "y=1", "status": 404, "body": "hi",
        "headers": [["host", "h"], ["x-two", "a"], ["x-two", "b"], ["content-length", "2"]],
    });
    assert_eq!(line, expected);
    let question = clips::QUESTION.wav().unwrap();
    spoken_turn(
        &call(&simulator, Dialect::Ga, "voice"),
        &question,
        &options(),
    )
    .await
    .unwrap();
    let seen = simulator.requests();
    assert_eq!(seen[1].status, 101);
    assert_eq!(seen[1].header("api-key"), Some(DEFAULT_API_KEY));
    assert_eq!(seen[1].query, "model=voice");
    assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 2);
    std::fs::remove_dir_all(&directory).unwrap();
}

#[tokio::test]
async fn a_plain_request_gets_the_404_of_azure() {
    let simulator = fast().start().await.unwrap();
    let mut raw = Raw::connect(&simulator).await;
    raw.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    let answer = raw.read_until("\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
    assert!(
        answer.ends_with(r#"{"error":{"code":"404","message":"Resource not found"}}"#),
        "{answer}"
    );
}

#[tokio::test]
async fn shutting_down_and_dropping_end_every_session() {
    for dropped in [false, true] {
        let simulator = fast().start().await.unwrap();
        let address = simulator.addr();
        let mut raw = Raw::upgrade(&simulator, &target(Dialect::Ga, "stops_reading"), &[]).await;
        raw.read_until("session.created").await;
        if dropped {
            drop(simulator);
        } else {
            simulator.shutdown().await;
        }
        raw.read_to_end().await;
        // The listener is gone with the rest; an abort takes effect at the next turn of the runtime.
        let refused = timeout(DEADLINE, async {
            while TcpStream::connect(address).await.is_ok() {
                tokio::task::yield_now().await;
            }
        });
        refused.await.unwrap();
    }
}

#[tokio::test]
async fn keys_change_while_sessions_stay_open() {
    let simulator = fast().start().await.unwrap();
    let question = clips::QUESTION.wav().unwrap();
    let mut open = Raw::upgrade(&simulator, &target(Dialect::Ga, "voice"), &[]).await;
    open.read_until("session.created").await;
    for (keys, expected) in [
        (&[DEFAULT_API_KEY, "key-2"][..], [101, 101]),
        (&["key-2"], [401, 101]),
        (&["key-3"], [401, 401]),
    ] {
        simulator.set_api_keys(keys.iter().copied());
        for (key, expected) in [DEFAULT_API_KEY, "key-2"].into_iter().zip(expected) {
            let mut call = call(&simulator, Dialect::Ga, "voice");
            call.headers = vec![("api-key".to_owned(), Secret::new(key))];
            let turn = spoken_turn(&call, &question, &options()).await;
            assert_eq!(turn.is_ok(), expected == 101, "{keys:?} {key}: {turn:?}");
            assert_eq!(
                simulator.requests().last().unwrap().status,
                expected,
                "{keys:?} {key}"
            );
        }
    }
    // A ping, masked with zeros; its pong has the same payload.
    open.send(b"\x89\x85\0\0\0\0still").await;
    open.read_until("still").await;
}

#[tokio::test]
async fn the_rule_for_tokens_changes_while_it_runs() {
    let simulator = fast().start().await.unwrap();
    let question = clips::QUESTION.wav().unwrap();
    let claims = serde_json::json!({"aud": "https://ai.azure.com", "exp": 4_102_444_800_u64});
    let mut call = call(&simulator, Dialect::Ga, "voice");
    call.headers.clear();
    call.bearer = Some(Secret::new(unsigned_token(&claims)));
    spoken_turn(&call, &question, &options()).await.unwrap();
    simulator.set_bearer(BearerRule {
        audiences: vec!["https://cognitiveservices.azure.com".to_owned()],
        ..BearerRule::default()
    });
    spoken_turn(&call, &question, &options()).await.unwrap_err();
    assert_eq!(simulator.requests()[1].status, 401);
}
