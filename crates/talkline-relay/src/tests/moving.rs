//! What goes in comes out.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use sha2::{Digest, Sha256};
use talkline_session::{Modalities, Side};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

use super::testkit::*;
use crate::bell::Bells;
use crate::pump::Pump;
use crate::scratch::SCRATCH_BYTES;
use crate::{Leg, Limits, Options, Session, UpstreamMasking, refuse, relay};

#[tokio::test(start_paused = true)]
async fn bytes_that_came_with_the_handshake_are_relayed_first() {
    let created = plain(
        TEXT,
        br#"{"type":"session.created","session":{"id":"sess_1","expires_at":1800000000}}"#,
    );
    let setup = Setup {
        client_early: Bytes::from(masked(TEXT, b"early client")),
        upstream_early: Bytes::from([&created[..], &plain(TEXT, b"cut")[..3]].concat()),
        ..Setup::default()
    };
    let mut talk = setup.start();
    talk.upstream.send(&plain(TEXT, b"cut")[3..]).await;
    talk.upstream.expect(TEXT, b"early client").await;
    assert_eq!(talk.client.frame().await.payload, created[2..]);
    talk.client.expect(TEXT, b"cut").await;
    drop((talk.client, talk.upstream));
    let summary = talk.relayed.await.unwrap();
    assert_eq!(summary.upstream_session_id.as_deref(), Some("sess_1"));
    assert_eq!(summary.upstream_expires_at, Some(1_800_000_000));
}

#[tokio::test(start_paused = true)]
async fn the_buffer_of_early_bytes_is_freed_once_they_are_relayed() {
    struct Owner(Arc<Vec<u8>>);
    impl AsRef<[u8]> for Owner {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }
    for early in [plain(TEXT, b"{}"), Vec::new()] {
        let buffer = Arc::new(early);
        let upstream_early = Bytes::from_owner(Owner(buffer.clone()));
        let mut talk = Setup {
            upstream_early,
            ..Setup::default()
        }
        .start();
        talk.upstream.send(&plain(TEXT, b"{}")).await;
        talk.client.expect(TEXT, b"{}").await;
        assert_eq!(Arc::strong_count(&buffer), 1);
    }
}

/// A stream that takes nothing and says nothing.
struct Dead;

impl AsyncRead for Dead {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Poll::Pending
    }
}

impl AsyncWrite for Dead {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        // What a stream returns that takes no more bytes, ever.
        Poll::Ready(Ok(0))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_cannot_be_written_is_given_up() {
    let (outer, inner) = tokio::io::duplex(4096);
    let mut client = Peer {
        io: outer,
        rest: Vec::new(),
    };
    let session = Session::new(Setup::default().limits, now());
    let never = std::future::pending();
    let relayed = tokio::spawn(relay(
        Leg::new(inner),
        Leg::new(Dead),
        session,
        Options::default(),
        never,
    ));
    client.send(&masked(TEXT, b"{}")).await;
    client.expect_error("upstream_disconnected").await;
    client.expect_close(1011).await;
    drop(client);
    assert_eq!(relayed.await.unwrap().end.reason, "connection_broken");
}

#[tokio::test(start_paused = true)]
async fn early_bytes_larger_than_the_scratch_are_relayed_whole() {
    let early = plain(BINARY, &vec![3; 3 * SCRATCH_BYTES]);
    let mut talk = Setup {
        upstream_early: Bytes::from(early),
        ..Setup::default()
    }
    .start();
    assert_eq!(
        talk.client.frame().await.payload,
        vec![3; 3 * SCRATCH_BYTES]
    );
}

#[tokio::test(start_paused = true)]
async fn a_small_frame_goes_out_whole_and_a_large_one_as_it_comes() {
    let mut talk = talk();
    let small = masked(TEXT, &[b'a'; 200]);
    talk.client.send(&small[..150]).await;
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert!(nothing_to_read(&mut talk.upstream.io).await);
    talk.client.send(&small[150..]).await;
    talk.upstream.expect(TEXT, &[b'a'; 200]).await;
    let large = masked(TEXT, &[b'a'; 20_000]);
    talk.client.send(&large[..1000]).await;
    let mut seen = vec![0; 1000];
    talk.upstream.io.read_exact(&mut seen).await.unwrap();
    assert_eq!(seen, large[..1000]);
}

#[tokio::test(start_paused = true)]
async fn usage_and_counts_are_summed_while_frames_pass() {
    let done = r#"{"type":"response.done","response":{"status":"completed","usage":{"total_tokens":30,
        "input_tokens":20,"output_tokens":10,"input_token_details":{"text_tokens":5,"audio_tokens":14,
        "image_tokens":1,"cached_tokens":3,"cached_tokens_details":{"text_tokens":1,"audio_tokens":2}},
        "output_token_details":{"text_tokens":4,"audio_tokens":6}}}}"#;
    let mut talk = talk();
    for _ in 0..2 {
        talk.upstream
            .send(&plain(
                TEXT,
                br#"{"type":"response.output_audio.delta","delta":"AAAA"}"#,
            ))
            .await;
        let (head, tail) = done.as_bytes().split_at(300);
        talk.upstream.send(&plain(0x01, head)).await;
        talk.upstream.send(&plain(0x80, tail)).await;
    }
    talk.upstream
        .send(&plain(
            TEXT,
            br#"{"type":"error","error":{"code":"invalid_value"}}"#,
        ))
        .await;
    drop(talk.upstream);
    assert_eq!(talk.client.rest().await.len(), 2 * 3 + 1 + 2);
    drop(talk.client);
    let summary = talk.relayed.await.unwrap();
    assert_eq!(
        summary.usage.input,
        Modalities {
            text: 10,
            audio: 28,
            image: 2
        }
    );
    assert_eq!(
        summary.usage.cached,
        Modalities {
            text: 2,
            audio: 4,
            image: 0
        }
    );
    assert_eq!(
        summary.usage.output,
        Modalities {
            text: 8,
            audio: 12,
            image: 0
        }
    );
    assert_eq!(summary.usage.total_tokens, 60);
    assert_eq!(summary.responses.completed, 2);
    assert_eq!(
        (summary.errors.count, summary.errors.last_code.as_deref()),
        (1, Some("invalid_value"))
    );
    assert_eq!(summary.first_audio, Some(Duration::ZERO));
    assert_eq!(
        (
            summary.upstream_to_client.frames,
            summary.upstream_to_client.messages
        ),
        (7, 5)
    );
}

#[tokio::test(start_paused = true)]
async fn while_the_client_is_slow_the_upstream_is_not_read() {
    for side in [Side::Client, Side::Upstream] {
        let (mut sender, source) = tokio::io::duplex(1 << 20);
        let (mut receiver, sink) = tokio::io::duplex(1000);
        let session = Session::new(Setup::default().limits, now());
        let (first, second) = match side {
            Side::Client => (Leg::new(source), Leg::new(sink)),
            Side::Upstream => (Leg::new(sink), Leg::new(source)),
        };
        let mut pump = Pump::new(first, second, session, Options::default());
        let mut bells = Bells::default();
        let frame = match side {
            Side::Client => masked(BINARY, &[9; 9000]),
            Side::Upstream => plain(BINARY, &[9; 9000]),
        };
        let mut expected = Vec::new();
        for _ in 0..100 {
            sender.write_all(&frame).await.unwrap();
            expected.extend_from_slice(&frame);
        }
        let mut seen = Vec::new();
        while seen.len() < expected.len() {
            let mut read = pin!(receiver.read_buf(&mut seen));
            poll_fn(|cx| {
                let rings = bells.answer(cx);
                assert!(pump.poll(cx, &bells, rings).is_pending());
                let (peak, waiting) = pump.spill_bytes(side.peer());
                assert!(
                    peak <= 2 * SCRATCH_BYTES && waiting <= SCRATCH_BYTES,
                    "{peak} {waiting}"
                );
                read.as_mut().poll(cx)
            })
            .await
            .unwrap();
        }
        assert_eq!(Sha256::digest(seen), Sha256::digest(expected));
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_session_is_small() {
    let (_client_outer, client) = tokio::io::duplex(64);
    let (_upstream_outer, upstream) = tokio::io::duplex(64);
    let session = Session::new(Limits::default(), now());
    let future = relay(
        Leg::new(client),
        Leg::new(upstream),
        session,
        Options::default(),
        std::future::pending(),
    );
    assert!(size_of_val(&future) <= 1664, "{}", size_of_val(&future));
}

/// Counts flushes and holds back what was not flushed, as a TLS stream does.
struct Corked {
    inner: DuplexStream,
    pending: Vec<u8>,
    flushes: Arc<Mutex<usize>>,
}

impl AsyncRead for Corked {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl AsyncWrite for Corked {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        self.pending.extend_from_slice(buf);
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        let pending = std::mem::take(&mut self.pending);
        *self.flushes.lock().unwrap() += 1;
        let write = pin!(self.inner.write_all(&pending)).poll(cx);
        assert!(write.is_ready());
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[tokio::test(start_paused = true)]
async fn a_direction_that_runs_dry_is_flushed_once() {
    let (mut client, client_inner) = tokio::io::duplex(1 << 20);
    let (upstream_outer, upstream_inner) = tokio::io::duplex(1 << 20);
    let mut upstream = Peer {
        io: upstream_outer,
        rest: Vec::new(),
    };
    let flushes = Arc::new(Mutex::new(0));
    let corked = Corked {
        inner: upstream_inner,
        pending: Vec::new(),
        flushes: flushes.clone(),
    };
    let session = Session::new(Setup::default().limits, now());
    tokio::spawn(relay(
        Leg::new(client_inner),
        Leg::new(corked),
        session,
        Options::default(),
        std::future::pending(),
    ));
    client
        .write_all(&[masked(TEXT, b"one"), masked(TEXT, b"two")].concat())
        .await
        .unwrap();
    upstream.expect(TEXT, b"one").await;
    upstream.expect(TEXT, b"two").await;
    assert_eq!(*flushes.lock().unwrap(), 1);
    client.write_all(&masked(PING, b"")).await.unwrap();
    client.write_all(&masked(TEXT, b"three")).await.unwrap();
    upstream.expect(TEXT, b"three").await;
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_an_event_and_a_close() {
    let (outer, inner) = tokio::io::duplex(4096);
    let mut client = Peer {
        io: outer,
        rest: Vec::new(),
    };
    let early = Bytes::from(masked(TEXT, b"session.update"));
    let refused = tokio::spawn(async move {
        let events = [r#"{"type":"error"}"#.to_owned()];
        refuse(
            Leg { io: inner, early },
            &events,
            1008,
            "azure_deployment_not_found",
            Duration::from_secs(2),
        )
        .await;
    });
    client.send(&masked(TEXT, b"more")).await;
    client.expect(TEXT, br#"{"type":"error"}"#).await;
    client
        .expect(CLOSE, &close_payload(1008, "azure_deployment_not_found"))
        .await;
    client.send(&masked(CLOSE, &close_payload(1008, ""))).await;
    client.expect_end().await;
    // What is still on its way is read, or it would reset the connection.
    client.send(&masked(TEXT, b"late")).await;
    drop(client);
    refused.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_over_at_its_deadline() {
    let start = now();
    let (outer, inner) = tokio::io::duplex(4);
    refuse(
        Leg::new(inner),
        &["a long event".to_owned()],
        1013,
        "later",
        Duration::from_secs(2),
    )
    .await;
    check_elapsed(start, Duration::from_secs(2), Duration::from_millis(2010));
    drop(outer);
}

async fn nothing_to_read(io: &mut DuplexStream) -> bool {
    let mut byte = [0];
    tokio::time::timeout(Duration::from_millis(1), io.read(&mut byte))
        .await
        .is_err()
}

// === any split ===

#[derive(Clone, Debug)]
struct Sent {
    first: u8,
    key: [u8; 4],
    payload: Vec<u8>,
}

/// Whole messages, some of them in fragments, with pings between.
fn any_messages() -> impl Strategy<Value = Vec<Sent>> {
    let size = prop_oneof![4 => 0..300usize, 2 => 300..5000usize, 1 => 60_000..70_000usize];
    let piece = (size, any::<[u8; 4]>(), proptest::bool::weighted(0.3));
    let message = (proptest::collection::vec(piece, 1..4), any::<bool>());
    proptest::collection::vec(message, 0..6)
        .prop_map(|messages| messages.into_iter().flat_map(frames_of).collect())
}

fn frames_of((pieces, text): (Vec<(usize, [u8; 4], bool)>, bool)) -> Vec<Sent> {
    let last = pieces.len() - 1;
    let mut frames = Vec::new();
    for (i, (size, key, ping)) in pieces.into_iter().enumerate() {
        let opcode = if i > 0 {
            0
        } else if text {
            1
        } else {
            2
        };
        let first = opcode | if i == last { 0x80 } else { 0 };
        let payload = (0..size)
            .map(|at| b'a' + ((at * 7 + size) % 26) as u8)
            .collect();
        frames.push(Sent {
            first,
            key,
            payload,
        });
        if ping {
            frames.push(Sent {
                first: PING,
                key,
                payload: b"p".to_vec(),
            });
        }
    }
    frames
}

fn encode_all(frames: &[Sent], from: Side) -> Vec<u8> {
    let key = |frame: &Sent| (from == Side::Client).then_some(frame.key);
    frames
        .iter()
        .flat_map(|frame| encode(frame.first, key(frame), &frame.payload))
        .collect()
}

/// Sends the bytes in pieces while the other end reads; returns what came out before the close frame
/// that ends the session, and the pongs that came back.
fn pass(
    frames: &[Sent],
    from: Side,
    cuts: &[usize],
    masking: UpstreamMasking,
    pipe_bytes: usize,
) -> (Vec<u8>, usize) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let talk = Setup {
            masking,
            pipe_bytes,
            ..Setup::default()
        }
        .start();
        let (sender, receiver) = match from {
            Side::Client => (talk.client, talk.upstream),
            Side::Upstream => (talk.upstream, talk.client),
        };
        let bytes = encode_all(frames, from);
        let (mut answers, mut outgoing) = tokio::io::split(sender.io);
        let mut receiver = receiver;
        let mut cuts = cuts
            .iter()
            .map(|cut| cut % (bytes.len() + 1))
            .collect::<Vec<_>>();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let end = match from {
            Side::Client => masked(CLOSE, &close_payload(1000, "")),
            Side::Upstream => plain(CLOSE, &close_payload(1000, "")),
        };
        let send = async {
            for piece in cuts.windows(2) {
                outgoing
                    .write_all(&bytes[piece[0]..piece[1]])
                    .await
                    .unwrap();
                tokio::task::yield_now().await;
            }
            outgoing.write_all(&end).await.unwrap();
        };
        let receive = async {
            let mut out = Vec::new();
            receiver.io.read_to_end(&mut out).await.unwrap();
            out
        };
        let answer = async {
            let mut out = Vec::new();
            answers.read_to_end(&mut out).await.unwrap();
            decode(&mut out)
                .iter()
                .filter(|frame| frame.first == PONG)
                .count()
        };
        let ((), out, pongs) = tokio::join!(send, receive, answer);
        let summary = talk.relayed.await.unwrap();
        let traffic = match from {
            Side::Client => summary.client_to_upstream,
            Side::Upstream => summary.upstream_to_client,
        };
        assert_eq!(traffic.bytes as usize, bytes.len() + end.len());
        assert_eq!(traffic.frames as usize, frames.len() + 1);
        let messages = frames
            .iter()
            .filter(|frame| frame.first & 0x88 == 0x80)
            .count();
        assert_eq!(traffic.messages as usize, messages);
        (out, pongs)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_split_of_any_frames_comes_out_the_same(
        frames in any_messages(),
        cuts in proptest::collection::vec(any::<usize>(), 0..10),
        from_client in any::<bool>(),
        pipe_bytes in prop_oneof![Just(1usize << 20), 64..4096usize],
    ) {
        let from = if from_client { Side::Client } else { Side::Upstream };
        let data: Vec<Sent> = frames.iter().filter(|frame| frame.first != PING).cloned().collect();
        let pings = frames.len() - data.len();
        let want = encode_all(&data, from);
        let (mut out, pongs) = pass(&frames, from, &cuts, UpstreamMasking::Verbatim, pipe_bytes);
        prop_assert_eq!(&out[..want.len()], &want[..]);
        let end = decode(&mut out.split_off(want.len()));
        prop_assert_eq!(end.len(), 1);
        prop_assert_eq!(end[0].first, CLOSE);
        prop_assert!(pongs <= pings && (pings == 0 || pongs > 0));
    }

    #[test]
    fn fresh_masks_change_nothing_but_the_mask(
        frames in any_messages(),
        cuts in proptest::collection::vec(any::<usize>(), 0..10),
        pipe_bytes in prop_oneof![Just(1usize << 20), 64..4096usize],
    ) {
        let data: Vec<Sent> = frames.iter().filter(|frame| frame.first != PING).cloned().collect();
        let (mut out, _) = pass(&frames, Side::Client, &cuts, UpstreamMasking::Fresh, pipe_bytes);
        let mut seen = decode(&mut out);
        prop_assert_eq!(out.len(), 0);
        prop_assert_eq!(seen.pop().map(|frame| frame.first), Some(CLOSE));
        prop_assert_eq!(seen.len(), data.len());
        for (seen, sent) in seen.iter().zip(&data) {
            prop_assert_eq!(seen.first, sent.first);
            prop_assert!(seen.payload == sent.payload);
            prop_assert_ne!(seen.key, Some(sent.key));
        }
    }
}

// === loopback ===

/// Frames with sizes from empty to 70 kB, a few fragmented messages, and one message of 24 MiB.
fn mixed_frames(from: Side, seed: u64) -> Vec<Vec<u8>> {
    let mut state = seed;
    let mut random = move |below: u64| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let mut frames = Vec::new();
    let mut fragments_left = 0u32;
    let filler: Vec<u8> = (0..6 << 20).map(|i| b' ' + (i * 31 % 90) as u8).collect();
    for count in 0..10_000 {
        let key: [u8; 4] = (random(u64::from(u32::MAX)) as u32).to_be_bytes();
        let key = (from == Side::Client).then_some(key);
        let size = match random(100) {
            0 => 0,
            1..80 => random(3000),
            80..99 => random(14_000),
            _ => random(70_000),
        };
        let (mut first, mut size) = match fragments_left {
            0 if random(50) == 0 => (1, size),
            0 => (0x80 | (1 + random(2) as u8), size),
            1 => (0x80, size),
            _ => (0x00, size),
        };
        fragments_left = match first {
            1 => 1 + random(4) as u32,
            _ => fragments_left.saturating_sub(1),
        };
        // 24 MiB in four frames, once.
        if (5000..5004).contains(&count) {
            fragments_left = 5003 - count;
            (first, size) = (
                if count == 5000 {
                    2
                } else {
                    u8::from(count == 5003) << 7
                },
                6 << 20,
            );
        }
        if count == 4999 && fragments_left > 0 {
            (first, fragments_left) = (
                if first & 0x0F == 0 {
                    0x80
                } else {
                    0x80 | first
                },
                0,
            );
        }
        frames.push(encode(first, key, &filler[..size as usize]));
    }
    if fragments_left > 0 {
        frames.push(encode(0x80, (from == Side::Client).then_some(KEY), b""));
    }
    frames
}

async fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (near, far) = tokio::join!(
        TcpStream::connect(listener.local_addr().unwrap()),
        listener.accept()
    );
    (near.unwrap(), far.unwrap().0)
}

/// Writes the frames with pings strewn in; returns the digest of the frames alone, and the stream, which
/// must stay open until the other end has read everything.
async fn send_mixed<W: AsyncWrite + Unpin>(
    mut io: W,
    frames: Vec<Vec<u8>>,
    from: Side,
) -> (Vec<u8>, W) {
    let mut digest = Sha256::new();
    let (ping, close) = match from {
        Side::Client => (
            masked(PING, b"ping"),
            masked(CLOSE, &close_payload(1000, "done")),
        ),
        Side::Upstream => (
            plain(PING, b"ping"),
            plain(CLOSE, &close_payload(1000, "done")),
        ),
    };
    for (i, frame) in frames.iter().enumerate() {
        digest.update(frame);
        io.write_all(frame).await.unwrap();
        if i % 37 == 0 {
            io.write_all(&ping).await.unwrap();
        }
    }
    io.write_all(&close).await.unwrap();
    (digest.finalize().to_vec(), io)
}

/// Reads to the close frame; returns the digest of the data frames as they were on the wire, and how
/// many pongs came.
async fn receive_mixed(mut io: impl AsyncRead + Unpin) -> (Vec<u8>, usize) {
    let (mut digest, mut pongs) = (Sha256::new(), 0);
    let mut bytes = Vec::with_capacity(8 << 20);
    loop {
        let read = io.read_buf(&mut bytes).await.unwrap();
        for frame in decode(&mut bytes) {
            match frame.first {
                PONG => pongs += 1,
                PING => {}
                CLOSE => return (digest.finalize().to_vec(), pongs),
                _ => digest.update(encode(frame.first, frame.key, &frame.payload)),
            }
        }
        assert_ne!(read, 0, "ended without a close frame");
    }
}

#[tokio::test]
async fn ten_thousand_frames_a_direction_over_loopback_are_the_same() {
    let (client, relay_client) = tcp_pair().await;
    let (relay_upstream, upstream) = tcp_pair().await;
    let session = Session::new(Setup::default().limits, now());
    let relayed = tokio::spawn(relay(
        Leg::new(relay_client),
        Leg::new(relay_upstream),
        session,
        Options::default(),
        std::future::pending(),
    ));
    let (client_in, client_out) = client.into_split();
    let (upstream_in, upstream_out) = upstream.into_split();
    let up = mixed_frames(Side::Client, 1);
    let down = mixed_frames(Side::Upstream, 2);
    assert!(up.len() >= 10_000 && down.len() >= 10_000);
    let ((client_sent, up_seen), (upstream_sent, down_seen)) =
        tokio::time::timeout(Duration::from_secs(120), async {
            let client_sends = tokio::spawn(send_mixed(client_out, up, Side::Client));
            let upstream_sends = tokio::spawn(send_mixed(upstream_out, down, Side::Upstream));
            let upstream_receives = tokio::spawn(receive_mixed(upstream_in));
            let client_receives = tokio::spawn(receive_mixed(client_in));
            (
                (
                    client_sends.await.unwrap(),
                    upstream_receives.await.unwrap(),
                ),
                (
                    upstream_sends.await.unwrap(),
                    client_receives.await.unwrap(),
                ),
            )
        })
        .await
        .expect("done within two minutes");
    let summary = relayed.await.unwrap();
    assert_eq!(
        summary.end.kind,
        talkline_session::EndKind::Closed,
        "{:?}",
        summary.end
    );
    assert_eq!(client_sent.0, up_seen.0);
    assert_eq!(upstream_sent.0, down_seen.0);
    assert!(up_seen.1 > 0 && down_seen.1 > 0, "pings were answered");
    assert!(summary.client_to_upstream.messages > 9000);
}
