//! Refusals as a caller meets them.

use talkline_sim::caller::{CallError, Dialect, spoken_turn};
use talkline_sim::{Refusal, clips};

use crate::bench::{Raw, call, fast, options, target};

#[tokio::test]
async fn every_deployment_named_like_a_refusal_gives_it() {
    let simulator = fast().region("Sweden Central").start().await.unwrap();
    let question = clips::QUESTION.wav().unwrap();
    for refusal in Refusal::all() {
        for dialect in [Dialect::Ga, Dialect::Preview] {
            let call = call(&simulator, dialect, refusal.name());
            let error = spoken_turn(&call, &question, &options()).await.unwrap_err();
            let CallError::Refused {
                status,
                headers,
                body,
            } = error
            else {
                panic!("{}: {error:?}", refusal.name());
            };
            assert_eq!(status, refusal.status(), "{}", refusal.name());
            assert_eq!(
                body,
                refusal.body().unwrap_or_default(),
                "{}",
                refusal.name()
            );
            let header = |name: &str| {
                headers
                    .iter()
                    .find(|(each, _)| each == name)
                    .map(|(_, value)| value.as_str())
            };
            assert_eq!(
                header("apim-request-id").map(str::len),
                Some(36),
                "{}",
                refusal.name()
            );
            assert!(matches!(
                header("x-ms-region"),
                Some("Sweden Central" | "France Central")
            ));
            assert_eq!(header("location"), None, "it may hold a key");
        }
    }
}

#[tokio::test]
async fn a_redirect_repeats_the_key_to_the_same_host() {
    let simulator = fast().start().await.unwrap();
    let target = target(Dialect::Preview, "redirect_302");
    let answer = Raw::upgrade(&simulator, &target, &[]).await.read().await;
    assert!(answer.starts_with("HTTP/1.1 302 "), "{answer}");
    let location = format!(
        "\r\nlocation: ws://{}/v1/realtime?api-version=2025-04-01-preview&deployment=redirect_302\
         &api-key=talkline%2Dsim%2Dkey\r\n",
        simulator.addr()
    );
    assert!(answer.contains(&location), "{answer}");
}

#[tokio::test]
async fn a_101_has_the_headers_of_azure() {
    let simulator = fast().start().await.unwrap();
    let check = async |lines: &[&str], protocol: Option<&str>| {
        let target = target(Dialect::Ga, "voice");
        let answer = Raw::upgrade(&simulator, &target, lines)
            .await
            .read_until("\r\n\r\n")
            .await;
        let (head, _) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        assert!(
            head.contains("\r\nsec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
            "{head}"
        );
        assert!(head.contains("\r\napim-request-id: "), "{head}");
        assert!(head.contains("\r\nx-ms-region: East US 2"), "{head}");
        assert!(!head.contains("sec-websocket-extensions"), "{head}");
        let chosen = head
            .lines()
            .find_map(|line| line.strip_prefix("sec-websocket-protocol: "));
        assert_eq!(chosen, protocol);
    };
    check(&[], None).await;
    check(&["Sec-WebSocket-Protocol: realtime"], Some("realtime")).await;
    check(
        &["Sec-WebSocket-Protocol: other,realtime"],
        Some("realtime"),
    )
    .await;
    check(&["Sec-WebSocket-Protocol: other"], None).await;
    check(&["Sec-WebSocket-Extensions: permessage-deflate"], None).await;
}

#[tokio::test]
async fn a_scenario_for_everyone() {
    let simulator = fast().always(Refusal::unavailable()).start().await.unwrap();
    let question = clips::QUESTION.wav().unwrap();
    let error = spoken_turn(
        &call(&simulator, Dialect::Ga, "voice"),
        &question,
        &options(),
    )
    .await;
    assert!(
        matches!(error, Err(CallError::Refused { status: 503, .. })),
        "{error:?}"
    );
}
