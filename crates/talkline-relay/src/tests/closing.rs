//! Every way a session ends.

use std::time::Duration;

use talkline_session::{EndKind, EndedBy};

use super::testkit::*;
use crate::{Limits, Stop};

const MS: Duration = Duration::from_millis(1);

#[tokio::test(start_paused = true)]
async fn client_closes_and_upstream_answers() {
    let mut talk = talk();
    talk.client.send(&masked(TEXT, b"last words")).await;
    talk.client
        .send(&masked(CLOSE, &close_payload(1000, "bye")))
        .await;
    talk.client.send(&masked(TEXT, b"after")).await;
    talk.upstream.expect(TEXT, b"last words").await;
    talk.upstream
        .expect(CLOSE, &close_payload(1000, "bye"))
        .await;
    talk.upstream.send(&plain(TEXT, b"one more thing")).await;
    talk.upstream
        .send(&plain(CLOSE, &close_payload(1000, "ok")))
        .await;
    talk.client.expect(TEXT, b"one more thing").await;
    talk.client.expect(CLOSE, &close_payload(1000, "ok")).await;
    talk.client.expect_end().await;
    talk.upstream.expect_end().await;
    drop((talk.client, talk.upstream));
    let summary = talk.relayed.await.unwrap();
    assert_eq!(summary.end.by, EndedBy::Client);
    assert_eq!(summary.end.kind, EndKind::Closed);
    assert_eq!(
        (summary.end.code, summary.end.reason.as_str()),
        (Some(1000), "bye")
    );
    assert_eq!(summary.client_close_code, Some(1000));
    assert_eq!(
        summary.duration,
        Duration::ZERO,
        "nobody waited for a deadline"
    );
}

#[tokio::test(start_paused = true)]
async fn upstream_closes_and_client_answers() {
    for code in [
        1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 4999,
    ] {
        let mut talk = talk();
        talk.upstream
            .send(&plain(CLOSE, &close_payload(code, "x")))
            .await;
        talk.upstream.send(&plain(TEXT, b"after")).await;
        talk.client.expect(CLOSE, &close_payload(code, "x")).await;
        talk.client
            .send(&masked(CLOSE, &close_payload(code, "")))
            .await;
        talk.upstream.expect(CLOSE, &close_payload(code, "")).await;
        talk.client.expect_end().await;
        drop((talk.client, talk.upstream));
        let summary = talk.relayed.await.unwrap();
        assert_eq!(
            (summary.end.by, summary.end.code),
            (EndedBy::Upstream, Some(code))
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_close_without_code_stays_without_code() {
    let mut talk = talk();
    talk.client.send(&masked(CLOSE, b"")).await;
    talk.upstream.expect(CLOSE, b"").await;
    talk.upstream.send(&plain(CLOSE, b"")).await;
    talk.client.expect(CLOSE, b"").await;
    drop((talk.client, talk.upstream));
    assert_eq!(talk.relayed.await.unwrap().end.code, None);
}

#[tokio::test(start_paused = true)]
async fn a_close_that_is_not_answered_is_answered_by_the_relay() {
    let start = now();
    let mut talk = talk();
    talk.client
        .send(&masked(CLOSE, &close_payload(4000, "bye")))
        .await;
    talk.client.expect(CLOSE, &close_payload(4000, "")).await;
    check_elapsed(start, 5000 * MS, 5010 * MS);
    talk.client.expect_end().await;
    talk.relayed.await.unwrap();
    check_elapsed(start, 6000 * MS, 6010 * MS);
}

#[tokio::test(start_paused = true)]
async fn both_close_at_once() {
    let mut talk = talk();
    talk.client
        .send(&masked(CLOSE, &close_payload(1000, "c")))
        .await;
    talk.upstream
        .send(&plain(CLOSE, &close_payload(1001, "u")))
        .await;
    talk.client.expect_close(1001).await;
    talk.upstream.expect_close(1000).await;
    drop((talk.client, talk.upstream));
    talk.relayed.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_client_that_vanishes_has_its_upstream_closed() {
    for partial in [
        &b""[..],
        &masked(TEXT, b"partial frame")[..12],
        &masked(PING, b"x")[..3],
    ] {
        let start = now();
        let mut talk = talk();
        talk.client.send(&masked(TEXT, b"hello")).await;
        talk.client.send(partial).await;
        drop(talk.client);
        talk.upstream.expect(TEXT, b"hello").await;
        talk.upstream.expect_close(1001).await;
        talk.upstream.expect_end().await;
        let summary = talk.relayed.await.unwrap();
        check_elapsed(start, Duration::ZERO, 200 * MS);
        assert_eq!(
            (summary.end.by, summary.end.kind),
            (EndedBy::Client, EndKind::Disconnected)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_vanishes_is_reported_to_the_client() {
    for partial in [
        &b""[..],
        &b"\x81"[..],
        b"\x81\x7e\x01\x2c",
        &plain(TEXT, &[b'a'; 250])[..200],
    ] {
        let start = now();
        let mut talk = talk();
        talk.upstream.send(&plain(TEXT, b"hello")).await;
        talk.upstream.send(partial).await;
        drop(talk.upstream);
        talk.client.expect(TEXT, b"hello").await;
        talk.client.expect_error("upstream_disconnected").await;
        talk.client.expect_close(1011).await;
        talk.client.expect_end().await;
        drop(talk.client);
        let summary = talk.relayed.await.unwrap();
        check_elapsed(start, Duration::ZERO, Duration::ZERO);
        assert_eq!(
            (summary.end.by, summary.end.kind),
            (EndedBy::Upstream, EndKind::Disconnected)
        );
        assert_eq!(summary.client_close_code, Some(1011));
    }
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_vanishes_inside_a_message_leaves_it_unfinished() {
    let mut talk = talk();
    talk.upstream.send(&plain(0x01, b"first")).await;
    drop(talk.upstream);
    talk.client.expect(0x01, b"first").await;
    // No event fits between the frames of a message, a close frame does.
    talk.client.expect_close(1011).await;
    talk.client.expect_end().await;
}

#[tokio::test(start_paused = true)]
async fn nothing_follows_a_frame_that_broke_off() {
    let mut talk = talk();
    let start = now();
    let frame = plain(TEXT, &[b'a'; 5000]);
    talk.upstream.send(&frame[..3000]).await;
    drop(talk.upstream);
    let mut seen = Vec::new();
    tokio::io::AsyncReadExt::read_to_end(&mut talk.client.io, &mut seen)
        .await
        .unwrap();
    assert_eq!(seen, frame[..3000]);
    check_elapsed(start, Duration::ZERO, Duration::ZERO);
    drop(talk.client);
    talk.relayed.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_client_violation_ends_both_legs() {
    let cases: [(&[u8], u16); 6] = [
        (&plain(TEXT, b"unmasked"), 1002),
        (&masked(0x83, b""), 1002),
        (&masked(TEXT, b"ok\xff"), 1007),
        (b"\x82\xff\0\0\0\0\x40\0\0\0\0\0\0\0", 1009),
        (&masked(0x80, b"orphan"), 1002),
        (&masked(CLOSE, b"\x03"), 1002),
    ];
    for (bad, code) in cases {
        let start = now();
        let mut talk = talk();
        let bytes = [&masked(TEXT, b"good")[..], bad, &masked(TEXT, b"after")].concat();
        talk.client.send(&bytes).await;
        talk.upstream.expect(TEXT, b"good").await;
        talk.upstream.expect_close(1001).await;
        // The upstream may finish what it owes.
        talk.upstream.send(&plain(TEXT, b"answer to good")).await;
        talk.client.expect(TEXT, b"answer to good").await;
        talk.client.expect_close(code).await;
        check_elapsed(start, Duration::ZERO, 500 * MS);
        talk.client.expect_end().await;
        talk.upstream.expect_end().await;
        let summary = talk.relayed.await.unwrap();
        check_elapsed(start, Duration::ZERO, 2000 * MS);
        assert_eq!(
            (summary.end.by, summary.end.kind),
            (EndedBy::Client, EndKind::Violation)
        );
        assert_eq!(
            (summary.end.code, summary.client_close_code),
            (Some(code), Some(code))
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_answers_its_close_does_not_delay_the_verdict() {
    let start = now();
    let mut talk = talk();
    talk.client.send(&plain(TEXT, b"unmasked")).await;
    talk.upstream.expect_close(1001).await;
    talk.upstream
        .send(&plain(CLOSE, &close_payload(1001, "")))
        .await;
    talk.client.expect_close(1002).await;
    check_elapsed(start, Duration::ZERO, Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_violation_behind_the_hold_cuts_the_upstream_off() {
    let mut talk = talk();
    let bad = masked(TEXT, &[&[b'a'; 1000][..], b"\xff", &[b'a'; 1000]].concat());
    talk.client.send(&bad[..900]).await;
    tokio::task::yield_now().await;
    talk.client.send(&bad[900..]).await;
    talk.client.expect_close(1007).await;
    let mut seen = Vec::new();
    tokio::io::AsyncReadExt::read_to_end(&mut talk.upstream.io, &mut seen)
        .await
        .unwrap();
    assert_eq!(seen, bad[..900], "nothing but the beginning of the frame");
}

#[tokio::test(start_paused = true)]
async fn an_upstream_violation_is_kept_from_the_client() {
    let cases: [(&[u8], u16); 4] = [
        (&masked(TEXT, b"masked"), 1002),
        (&plain(0xC1, b"rsv"), 1002),
        (&plain(TEXT, b"ok\xed\xa0\x80"), 1007),
        (b"\x82\x7f\0\0\0\0\x40\0\0\0", 1009),
    ];
    for (bad, code) in cases {
        let start = now();
        let mut talk = talk();
        talk.upstream
            .send(&[&plain(TEXT, b"good")[..], bad, &plain(TEXT, b"after")].concat())
            .await;
        talk.client.expect(TEXT, b"good").await;
        talk.client
            .expect_error("upstream_protocol_violation")
            .await;
        talk.client.expect_close(1011).await;
        talk.upstream.expect_close(code).await;
        talk.client.expect_end().await;
        talk.upstream.expect_end().await;
        let summary = talk.relayed.await.unwrap();
        check_elapsed(start, Duration::ZERO, 2000 * MS);
        assert_eq!(
            (summary.end.by, summary.end.code),
            (EndedBy::Upstream, Some(code))
        );
        assert_eq!(summary.client_close_code, Some(1011));
    }
}

#[tokio::test(start_paused = true)]
async fn a_stop_says_why_and_closes_both() {
    let start = now();
    let mut talk = talk();
    talk.stop.take().unwrap().send(drain_stop()).unwrap();
    talk.client.expect(TEXT, br#"{"type":"error"}"#).await;
    talk.client
        .expect(CLOSE, &close_payload(1012, "restart"))
        .await;
    talk.upstream.expect_close(1001).await;
    talk.client
        .send(&masked(CLOSE, &close_payload(1012, "")))
        .await;
    talk.client.expect_end().await;
    drop((talk.client, talk.upstream));
    let summary = talk.relayed.await.unwrap();
    check_elapsed(start, Duration::ZERO, Duration::ZERO);
    assert_eq!(
        (summary.end.by, summary.end.kind),
        (EndedBy::Relay, EndKind::Stopped)
    );
    assert_eq!(
        (summary.end.code, summary.end.reason.as_str()),
        (Some(1012), "restart")
    );
}

#[tokio::test(start_paused = true)]
async fn a_stop_waits_for_the_end_of_the_frame() {
    let mut talk = talk();
    let frame = plain(TEXT, &[b'a'; 5000]);
    talk.upstream.send(&frame[..3000]).await;
    tokio::time::sleep(MS).await;
    talk.stop.take().unwrap().send(drain_stop()).unwrap();
    tokio::time::sleep(MS).await;
    talk.upstream.send(&frame[3000..]).await;
    talk.upstream.send(&plain(TEXT, b"not any more")).await;
    talk.client.expect(TEXT, &[b'a'; 5000]).await;
    talk.client.expect(TEXT, br#"{"type":"error"}"#).await;
    talk.client.expect_close(1012).await;
    talk.client.expect_end().await;
}

#[tokio::test(start_paused = true)]
async fn a_stop_inside_a_frame_that_stalls_is_hard_after_the_linger() {
    let start = now();
    let mut talk = talk();
    let frame = plain(TEXT, &[b'a'; 5000]);
    talk.upstream.send(&frame[..3000]).await;
    tokio::time::sleep(MS).await;
    talk.stop.take().unwrap().send(drain_stop()).unwrap();
    let mut seen = Vec::new();
    tokio::io::AsyncReadExt::read_to_end(&mut talk.client.io, &mut seen)
        .await
        .unwrap();
    assert_eq!(seen, frame[..3000]);
    talk.relayed.await.unwrap();
    check_elapsed(start, 1000 * MS, 1010 * MS);
}

#[tokio::test(start_paused = true)]
async fn the_longest_session_is_bounded() {
    let limits = Limits {
        session_max: Some(Duration::from_secs(60)),
        ping_interval: None,
        ..Limits::default()
    };
    let mut talk = Setup {
        limits,
        ..Setup::default()
    }
    .start();
    let start = now();
    talk.client.expect_error("session_expired").await;
    talk.client.expect_close(1001).await;
    check_elapsed(start, 60_000 * MS, 60_010 * MS);
    assert_eq!(talk.relayed.await.unwrap().end.kind, EndKind::SessionMax);
}

#[tokio::test(start_paused = true)]
async fn what_an_upstream_said_before_it_hung_up_is_not_lost_to_a_write_error() {
    let mut talk = talk();
    // The client's frame cannot be written any more, while the upstream's last words wait to be read.
    talk.upstream.send(&plain(TEXT, b"sorry")).await;
    talk.upstream
        .send(&plain(CLOSE, &close_payload(1008, "policy")))
        .await;
    drop(talk.upstream);
    talk.client.send(&masked(TEXT, b"more audio")).await;
    talk.client.expect(TEXT, b"sorry").await;
    talk.client
        .expect(CLOSE, &close_payload(1008, "policy"))
        .await;
    drop(talk.client);
    let summary = talk.relayed.await.unwrap();
    assert_eq!(
        (summary.end.by, summary.end.code),
        (EndedBy::Upstream, Some(1008))
    );
}

fn drain_stop() -> Stop {
    Stop {
        code: 1012,
        reason: "restart".into(),
        event: Some(r#"{"type":"error"}"#.into()),
    }
}
