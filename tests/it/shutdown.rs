//! How sessions and the process end.

use crate::kit::{CLIENT_KEY, RawSession, Relay, azure, azure_deployment, raw, simulator};

fn authorized() -> String {
    format!("api-key: {CLIENT_KEY}\r\n")
}

#[tokio::test]
async fn sigterm_drains() {
    let sim = simulator().await;
    let configuration = azure(&sim.base_url()) + "limits.drainGrace = \"300ms\"\n";
    let mut relay = Relay::start(&configuration).await;
    let mut session = RawSession::open(relay.authority(), "/v1/realtime", &authorized()).await;
    assert_eq!(session.event().await.json()["type"], "session.created");
    relay.signal("-TERM");
    let event = session.event().await.json();
    assert_eq!(event["error"]["code"], "relay_shutting_down", "{event}");
    assert_eq!(session.event().await.close(), (1001, "relay_shutting_down"));
    session.send(8, &1001_u16.to_be_bytes()).await;
    assert_eq!(session.frame().await, None);
    assert_eq!(relay.exit_status().await.code(), Some(0));
}

#[tokio::test]
async fn a_session_that_ends_in_the_grace_is_not_cut() {
    let sim = simulator().await;
    let mut relay = Relay::start(&azure(&sim.base_url())).await;
    let mut session = RawSession::open(relay.authority(), "/v1/realtime", &authorized()).await;
    assert_eq!(session.event().await.json()["type"], "session.created");
    relay.signal("-TERM");
    session
        .send(1, br#"{"type":"input_audio_buffer.clear"}"#)
        .await;
    assert_eq!(
        session.event().await.json()["type"],
        "input_audio_buffer.cleared"
    );
    session.send(8, &1000_u16.to_be_bytes()).await;
    assert_eq!(session.event().await.close().0, 1000);
    assert_eq!(relay.exit_status().await.code(), Some(0));
}

#[tokio::test]
async fn an_upstream_that_vanishes_is_explained() {
    let sim = simulator().await;
    let relay = Relay::start(&azure_deployment(&sim.base_url(), "closes_after_101")).await;
    let mut session = RawSession::open(relay.authority(), "/v1/realtime", &authorized()).await;
    let event = session.event().await.json();
    assert_eq!(event["type"], "error", "{event}");
    assert_eq!(session.event().await.close().0, 1011);
    session.send(8, &1011_u16.to_be_bytes()).await;
    assert_eq!(session.frame().await, None);
}

#[tokio::test]
async fn an_upstream_that_vanishes_inside_a_frame_is_not_passed_off_as_an_end() {
    let sim = simulator().await;
    let relay = Relay::start(&azure_deployment(&sim.base_url(), "closes_mid_frame")).await;
    let mut session = RawSession::open(relay.authority(), "/v1/realtime", &authorized()).await;
    // The frame's beginning is with the client already, so nothing can follow it: neither an
    // event nor a close. The client has to see a broken connection, not a clean one.
    let rest = session.until_cut().await;
    assert!(rest.iter().all(|frame| frame.opcode == 1), "{rest:?}");
    let log = relay.log().await;
    let line = log
        .lines()
        .find(|line| line.contains("session ended"))
        .expect("it is logged");
    assert!(
        line.contains("\"ended_by\":\"upstream\"") && line.contains("disconnected"),
        "{line}"
    );
}

#[tokio::test]
async fn nobody_is_let_in_while_draining() {
    let sim = simulator().await;
    let mut relay = Relay::start(&azure(&sim.base_url())).await;
    let authority = relay.authority().to_owned();
    let mut session = RawSession::open(&authority, "/v1/realtime", &authorized()).await;
    assert_eq!(session.event().await.json()["type"], "session.created");
    let answer = raw(&authority, b"GET /readyz HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    relay.signal("-TERM");
    // The listener goes at once; until the system has taken it down, a connection may still be queued.
    while tokio::net::TcpStream::connect(&relay.listener)
        .await
        .is_ok()
    {
        tokio::task::yield_now().await;
    }
    session.send(8, &1000_u16.to_be_bytes()).await;
    assert_eq!(session.event().await.close().0, 1000);
    assert_eq!(relay.exit_status().await.code(), Some(0));
}
