//! Pings, their answers, and their absence.

use std::time::Duration;

use talkline_session::{EndKind, EndedBy};
use tokio::io::AsyncReadExt;

use super::testkit::*;
use crate::Limits;

const SECOND: Duration = Duration::from_secs(1);

fn pinging() -> Talk {
    Setup {
        limits: Limits::default(),
        ..Setup::default()
    }
    .start()
}

#[tokio::test(start_paused = true)]
async fn pings_are_answered_on_their_leg_and_go_no_further() {
    let mut talk = talk();
    talk.client.send(&masked(PING, b"from client")).await;
    talk.client.expect(PONG, b"from client").await;
    talk.upstream.send(&plain(PING, b"from upstream")).await;
    talk.upstream.expect(PONG, b"from upstream").await;
    talk.client.send(&masked(PONG, b"unsolicited")).await;
    talk.upstream.send(&plain(PONG, b"unsolicited")).await;
    talk.client.send(&masked(TEXT, b"to upstream")).await;
    talk.upstream.expect(TEXT, b"to upstream").await;
    talk.upstream.send(&plain(TEXT, b"to client")).await;
    talk.client.expect(TEXT, b"to client").await;
}

#[tokio::test(start_paused = true)]
async fn our_frames_to_the_upstream_are_masked() {
    let mut talk = talk();
    talk.upstream.send(&plain(PING, b"x")).await;
    let first = talk.upstream.frame().await.key;
    talk.upstream.send(&plain(PING, b"x")).await;
    let second = talk.upstream.frame().await.key;
    assert!(first.is_some() && second.is_some() && first != second);
}

#[tokio::test(start_paused = true)]
async fn pongs_go_between_fragments_and_wait_inside_a_frame() {
    let mut talk = talk();
    let first = plain(0x01, &[b'a'; 2000]);
    talk.upstream.send(&first[..1000]).await;
    tokio::time::sleep(SECOND).await;
    talk.client.send(&masked(PING, b"old")).await;
    tokio::time::sleep(SECOND).await;
    talk.client.send(&masked(PING, b"new")).await;
    tokio::time::sleep(SECOND).await;
    talk.upstream
        .send(&[&first[1000..], &plain(0x80, b"end")].concat())
        .await;
    talk.client.expect(0x01, &[b'a'; 2000]).await;
    talk.client.expect(PONG, b"old").await;
    talk.client.expect(PONG, b"new").await;
    talk.client.expect(0x80, b"end").await;
}

#[tokio::test(start_paused = true)]
async fn every_ping_of_a_client_that_reads_is_answered() {
    let mut talk = talk();
    let pings: Vec<u8> = (0..10u8).flat_map(|i| masked(PING, &[i])).collect();
    talk.client.send(&pings).await;
    for i in 0..10 {
        talk.client.expect(PONG, &[i]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_ping_flood_of_a_client_that_does_not_read_is_answered_in_part() {
    let mut talk = Setup {
        pipe_bytes: 512,
        ..Setup::default()
    }
    .start();
    for i in 0..50_000u32 {
        talk.client.send(&masked(PING, &i.to_be_bytes())).await;
    }
    drop(talk.upstream);
    let frames = talk.client.rest().await;
    let pongs: Vec<_> = frames.iter().filter(|frame| frame.first == PONG).collect();
    // What fits the pipe and one round of the spill, and the latest ones.
    assert!((1..200).contains(&pongs.len()), "{} pongs", pongs.len());
    assert_eq!(pongs.last().unwrap().payload, 49_999u32.to_be_bytes());
}

#[tokio::test(start_paused = true)]
async fn both_legs_are_pinged_and_stay_up_while_they_answer() {
    let mut talk = pinging();
    let start = now();
    for round in 1..=10 {
        talk.client.expect(PING, b"").await;
        talk.upstream.expect(PING, b"").await;
        check_elapsed(
            start,
            round * 15 * SECOND,
            round * 15 * SECOND + Duration::from_millis(100),
        );
        talk.client.send(&masked(PONG, b"")).await;
        talk.upstream.send(&plain(PONG, b"")).await;
    }
    assert!(!talk.relayed.is_finished());
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_answers_no_ping_is_dead_after_20_seconds() {
    let mut talk = pinging();
    let start = now();
    talk.client.expect(PING, b"").await;
    talk.client.send(&masked(PONG, b"")).await;
    talk.client.expect_error("upstream_ping_timeout").await;
    talk.client.expect_close(1011).await;
    check_elapsed(start, 20 * SECOND, 20 * SECOND + Duration::from_millis(100));
    drop(talk.client);
    let summary = talk.relayed.await.unwrap();
    assert_eq!(
        (summary.end.by, summary.end.kind),
        (EndedBy::Upstream, EndKind::PingTimeout)
    );
}

#[tokio::test(start_paused = true)]
async fn a_client_that_answers_no_ping_is_dead_after_20_seconds() {
    let mut talk = pinging();
    let start = now();
    talk.upstream.expect(PING, b"").await;
    talk.upstream.send(&plain(PONG, b"")).await;
    talk.upstream.expect_close(1001).await;
    check_elapsed(start, 20 * SECOND, 20 * SECOND + Duration::from_millis(100));
    let summary = talk.relayed.await.unwrap();
    assert_eq!(
        (summary.end.by, summary.end.kind),
        (EndedBy::Client, EndKind::PingTimeout)
    );
}

#[tokio::test(start_paused = true)]
async fn any_byte_is_a_sign_of_life() {
    let mut talk = pinging();
    for _ in 0..20 {
        tokio::time::sleep(10 * SECOND).await;
        talk.client.send(&masked(TEXT, b"{}")).await;
        talk.upstream.send(&plain(TEXT, b"{}")).await;
    }
    assert!(!talk.relayed.is_finished());
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_is_not_read_is_not_blamed_for_its_silence() {
    let limits = Limits {
        ping_interval: Some(15 * SECOND),
        stall_timeout: None,
        ..Limits::default()
    };
    let mut talk = Setup {
        limits,
        pipe_bytes: 1024,
        ..Setup::default()
    }
    .start();
    let mut upstream = talk.upstream;
    let flood = tokio::spawn(async move {
        upstream.send(&plain(BINARY, &vec![7; 100_000])).await;
        upstream
    });
    // The client speaks but does not read for two minutes.
    for _ in 0..24 {
        tokio::time::sleep(5 * SECOND).await;
        talk.client.send(&masked(TEXT, b"{}")).await;
        if talk.relayed.is_finished() {
            panic!("{:?}", talk.relayed.await.unwrap().end);
        }
    }
    assert_eq!(talk.client.frame().await.payload.len(), 100_000);
    drop(flood.await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_reads_slowly_and_says_nothing_is_alive() {
    let mut talk = Setup {
        limits: Limits::default(),
        pipe_bytes: 1024,
        ..Setup::default()
    }
    .start();
    let mut upstream = talk.upstream;
    let flood = tokio::spawn(async move {
        for _ in 0..200 {
            upstream.send(&plain(BINARY, &[7; 1000])).await;
        }
        upstream
    });
    // Two minutes for an eighth of it, the pings far behind.
    let mut seen = vec![0; 200];
    for _ in 0..120 {
        tokio::time::sleep(SECOND).await;
        talk.client.io.read_exact(&mut seen).await.unwrap();
    }
    assert!(!talk.relayed.is_finished());
    flood.abort();
}

#[tokio::test(start_paused = true)]
async fn a_ping_that_waits_inside_a_frame_does_not_count_against_its_receiver() {
    let mut talk = pinging();
    let upload = masked(BINARY, &vec![1; 60_000]);
    for (i, piece) in upload.chunks(1000).enumerate() {
        talk.client.send(piece).await;
        tokio::time::sleep(SECOND).await;
        assert!(!talk.relayed.is_finished(), "after {i} seconds");
    }
    assert_eq!(talk.upstream.frame().await.payload.len(), 60_000);
    talk.upstream.expect(PING, b"").await;
}
