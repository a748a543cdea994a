//! Broken sessions as a caller meets them, and as they look on the wire.

use std::time::Duration;

use talkline_sim::caller::{Dialect, TurnOptions, spoken_turn};
use talkline_sim::{Misbehaviour, clips};

use crate::bench::{DEADLINE, Raw, call, fast, options, target};

/// How a call to a deployment of that name ends.
async fn outcome(name: &str) -> String {
    let simulator = fast().start().await.unwrap();
    let options = TurnOptions {
        step_max: Duration::from_secs(1),
        trailing_silence: Duration::from_millis(800),
        ..options()
    };
    let call = call(&simulator, Dialect::Ga, name);
    match spoken_turn(&call, &clips::QUESTION.wav().unwrap(), &options).await {
        Ok(report) => format!("whole: {}", report.is_whole()),
        Err(error) => error.to_string(),
    }
}

#[tokio::test]
async fn each_ends_as_it_should() {
    let check = async |misbehaviour: Misbehaviour, expected: &str| {
        assert_eq!(
            outcome(misbehaviour.name()).await,
            expected,
            "{misbehaviour:?}"
        );
    };
    let gone = "the session was closed with code 1006: the connection ended without a close frame";
    let broke = "the other side broke the WebSocket protocol: ";
    check(
        Misbehaviour::StallsBefore101,
        "timed out waiting for the answer to the upgrade",
    )
    .await;
    check(Misbehaviour::ClosesAfter101, gone).await;
    check(Misbehaviour::ClosesMidFrame, gone).await;
    let accept = "Sec-WebSocket-Accept does not answer the key";
    check(Misbehaviour::WrongAccept, &format!("{broke}{accept}")).await;
    let extension = "an extension was chosen that was not offered";
    check(
        Misbehaviour::UnrequestedExtension,
        &format!("{broke}{extension}"),
    )
    .await;
    check(
        Misbehaviour::StopsReading,
        "timed out waiting for session.updated",
    )
    .await;
    check(Misbehaviour::DropsMidReply, gone).await;
    let event = "the service reported an error: ";
    let expired = "Your session hit the maximum duration of 60 minutes. (code session_expired)";
    check(Misbehaviour::SessionExpired, &format!("{event}{expired}")).await;
    let limit = "Rate limit reached for realtime inference. Please try again later. (code inference_rate_limit_exceeded)";
    check(
        Misbehaviour::InferenceRateLimitExceeded,
        &format!("{event}{limit}"),
    )
    .await;
    check(
        Misbehaviour::ContentFilter,
        &format!("{event} (code content_filter)"),
    )
    .await;
    check(Misbehaviour::NoPong, "whole: true").await;
    check(Misbehaviour::FragmentedReplies, "whole: true").await;
    check(Misbehaviour::SessionCreatedWith101, "whole: true").await;
}

#[tokio::test]
async fn session_created_comes_in_one_read_with_the_101() {
    let simulator = fast().start().await.unwrap();
    for _ in 0..20 {
        let target = target(Dialect::Ga, "session_created_with_101");
        let answer = Raw::upgrade(&simulator, &target, &[]).await.read().await;
        assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
        assert!(answer.contains(r#"{"type":"session.created""#), "{answer}");
    }
}

#[tokio::test]
async fn half_a_frame_is_all_there_is() {
    let simulator = fast().start().await.unwrap();
    let target = target(Dialect::Ga, "closes_mid_frame");
    let all = Raw::upgrade(&simulator, &target, &[])
        .await
        .read_to_end()
        .await;
    let end = all
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .unwrap();
    let frame = &all[end + 4..];
    assert_eq!(frame[..2], [0x81, 126], "a text frame of two length bytes");
    let announced = usize::from(u16::from_be_bytes([frame[2], frame[3]]));
    assert!(
        (1..announced).contains(&(frame.len() - 4)),
        "{} of {announced}",
        frame.len() - 4
    );
}

/// A masked ping with a payload of two zero bytes, under a mask of zeros.
const PING: &[u8] = &[0x89, 0x82, 0, 0, 0, 0, 0, 0];
const PONG: &[u8] = &[0x8a, 0x02, 0, 0];
/// A masked close frame without status.
const CLOSE: &[u8] = &[0x88, 0x80, 0, 0, 0, 0];

async fn opened(name: &str) -> (talkline_sim::Running, Raw) {
    let simulator = fast().start().await.unwrap();
    let mut raw = Raw::upgrade(&simulator, &target(Dialect::Ga, name), &[]).await;
    // The last field of the session, which is the last field of the event.
    raw.read_until(r#""type":"realtime"}}"#).await;
    (simulator, raw)
}

#[tokio::test]
async fn pings_are_answered_except_by_one() {
    let (_simulator, mut raw) = opened("voice").await;
    raw.send(PING).await;
    raw.expect(PONG).await;
    let (_simulator, mut raw) = opened("no_pong").await;
    raw.send(PING).await;
    raw.send(CLOSE).await;
    assert_eq!(raw.read_to_end().await, [0x88, 0]);
}

#[tokio::test]
async fn a_close_is_answered_and_the_connection_ends() {
    let (_simulator, mut raw) = opened("voice").await;
    raw.send(&[0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe9]).await;
    assert_eq!(raw.read_to_end().await, [0x88, 2, 0x03, 0xe9]);
}

#[tokio::test]
async fn breaches_are_closed_on_with_their_code() {
    let check = async |bytes: &[u8], code: u16| {
        let (_simulator, mut raw) = opened("voice").await;
        raw.send(bytes).await;
        let answer = raw.read_to_end().await;
        assert_eq!(answer.first(), Some(&0x88), "{bytes:x?}");
        assert_eq!(answer[2..4], code.to_be_bytes(), "{bytes:x?}");
    };
    check(b"\x81\x02{}", 1002).await;
    check(b"\x83\x80\0\0\0\0", 1002).await;
    check(b"\x81\x81\0\0\0\0\xff", 1007).await;
    check(b"\x82\x81\0\0\0\0x", 1003).await;
    check(b"\x81\xff\0\0\0\0\x10\0\0\0\0\0\0\0", 1009).await;
}

#[tokio::test]
async fn a_stall_lasts_until_the_caller_leaves() {
    let simulator = fast().start().await.unwrap();
    let raw = Raw::upgrade(&simulator, &target(Dialect::Ga, "stalls_before_101"), &[]).await;
    let recorded = tokio::time::timeout(DEADLINE, async {
        while simulator.requests().is_empty() {
            tokio::task::yield_now().await;
        }
    });
    recorded.await.unwrap();
    assert_eq!(simulator.requests()[0].status, 0);
    drop(raw);
    simulator.shutdown().await;
}
