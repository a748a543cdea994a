//! What a frame costs: reads, writes, allocations; and what an idle stream holds.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use rustls::version::{TLS12, TLS13};
use tokio::io::{AsyncRead as _, AsyncReadExt as _, AsyncWrite as _, AsyncWriteExt as _, ReadBuf};

use crate::far::{ByHand, NAME, configs, name, noise};
use talkline_tls::TlsStream;

const FRAME_BYTES: usize = 12 << 10;
const ROUNDS: usize = 200;

/// rustls 0.23 hands out each decrypted and each encrypted record in a vector of its own.
const RUSTLS_ALLOCATIONS_PER_RECORD: u64 = 1;

#[tokio::test]
async fn a_frame_costs_one_read_one_write_and_what_rustls_allocates() {
    for version in [&TLS13, &TLS12] {
        let (mut client, mut far) = ByHand::connected(configs(version)).await;
        let frame = noise(FRAME_BYTES, 7);
        let mut cx = Context::from_waker(Waker::noop());
        let mut buffer = vec![0; 64 << 10];
        let mut client = Pin::new(&mut client);
        // The tickets, and what the thread and rustls make once.
        far.say(&frame);
        let mut first = ReadBuf::new(&mut buffer);
        assert!(client.as_mut().poll_read(&mut cx, &mut first).is_ready());
        let _ = client.as_mut().poll_write(&mut cx, &frame);
        far.receive();

        let mut reading = 0;
        let mut writing = 0;
        for _ in 0..ROUNDS {
            far.say(&frame);
            far.wire.with(|wire| {
                (wire.reads, wire.writes) = (0, 0);
                wire.written.reserve(64 << 10);
            });
            let counted = allocation_counter::measure(|| {
                let mut read = ReadBuf::new(&mut buffer);
                let polled = client.as_mut().poll_read(&mut cx, &mut read);
                assert!(matches!(polled, Poll::Ready(Ok(()))));
                assert_eq!(read.filled(), frame);
            });
            reading += counted.count_total;
            assert_eq!(far.wire.with(|wire| wire.reads), 1);
            let counted = allocation_counter::measure(|| {
                let polled = client.as_mut().poll_write(&mut cx, &frame);
                assert!(matches!(polled, Poll::Ready(Ok(FRAME_BYTES))));
                assert!(client.as_mut().poll_flush(&mut cx).is_ready());
            });
            writing += counted.count_total;
            assert_eq!(far.wire.with(|wire| wire.writes), 1);
            assert_eq!(far.receive(), frame);
            assert_eq!(client.buffered_bytes(), 0, "an idle stream owns no buffer");
        }
        let expected = ROUNDS as u64 * RUSTLS_ALLOCATIONS_PER_RECORD;
        assert_eq!((reading, writing), (expected, expected), "{version:?}");
    }
}

#[tokio::test]
async fn all_records_of_a_read_are_delivered() {
    let (mut client, mut far) = ByHand::connected(configs(&TLS13)).await;
    far.say(b"");
    let mut cx = Context::from_waker(Waker::noop());
    let mut client = Pin::new(&mut client);
    let mut buffer = vec![0; 64 << 10];
    // The tickets.
    let mut none = ReadBuf::new(&mut buffer);
    assert!(client.as_mut().poll_read(&mut cx, &mut none).is_pending());
    let mut said = Vec::new();
    for i in 0..20 {
        let bytes = noise(2_000, i);
        far.say(&bytes);
        said.extend(bytes);
    }
    far.wire.with(|wire| wire.reads = 0);
    let mut read = ReadBuf::new(&mut buffer);
    assert!(client.as_mut().poll_read(&mut cx, &mut read).is_ready());
    assert_eq!(read.filled(), said);
    assert_eq!(far.wire.with(|wire| wire.reads), 1);
}

#[tokio::test]
async fn small_pieces_leave_in_one_record() {
    let (mut client, mut far) = ByHand::connected(configs(&TLS13)).await;
    let mut cx = Context::from_waker(Waker::noop());
    far.wire.with(|wire| wire.writes = 0);
    let pieces = [&b"header"[..], b"", b"payload"].map(std::io::IoSlice::new);
    let polled = Pin::new(&mut client).poll_write_vectored(&mut cx, &pieces);
    assert!(matches!(polled, Poll::Ready(Ok(13))));
    far.wire.with(|wire| {
        assert_eq!(wire.writes, 1);
        // Header, content, its type, and the tag.
        assert_eq!(wire.written.len(), 5 + 13 + 1 + 16);
    });
    assert_eq!(far.receive(), b"headerpayload");
}

/// Bytes of heap that dropping frees.
fn freed(held: impl Sized) -> i64 {
    -allocation_counter::measure(|| drop(held)).bytes_current
}

#[tokio::test]
async fn an_idle_stream_is_small_after_use() {
    const EXCHANGED: usize = 100_000;

    for version in [&TLS13, &TLS12] {
        let (near, far) = tokio::net::UnixStream::pair().unwrap();
        let made = configs(version);
        let client = Arc::new(made.client);
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(made.server));
        let connecting = TlsStream::connect(Arc::clone(&client), name(NAME), near);
        let (ours, server) = tokio::join!(connecting, acceptor.accept(far));
        let (mut ours, mut server) = (ours.unwrap(), server.unwrap());
        let (near, far) = tokio::net::UnixStream::pair().unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::clone(&client));
        let connecting = connector.connect(name(NAME), near);
        let (theirs, their_server) = tokio::join!(connecting, acceptor.accept(far));
        let (mut theirs, mut their_server) = (theirs.unwrap(), their_server.unwrap());

        let bytes = noise(EXCHANGED, 9);
        let mut read = vec![0; EXCHANGED];
        let mut read_back = vec![0; EXCHANGED];
        let (sent, _) = tokio::join!(server.write_all(&bytes), ours.read_exact(&mut read));
        sent.unwrap();
        assert_eq!(read, bytes);
        let (sent, _) = tokio::join!(
            async {
                ours.write_all(&bytes).await?;
                ours.flush().await
            },
            server.read_exact(&mut read_back)
        );
        sent.unwrap();
        let (sent, _) = tokio::join!(their_server.write_all(&bytes), theirs.read_exact(&mut read));
        sent.unwrap();
        let (sent, _) = tokio::join!(
            async {
                theirs.write_all(&bytes).await?;
                theirs.flush().await
            },
            their_server.read_exact(&mut read_back)
        );
        sent.unwrap();

        let ours = freed(Box::new(ours));
        let theirs = freed(Box::new(theirs));
        println!("{version:?}: {ours} bytes idle, tokio-rustls {theirs}");
        assert!(ours <= 6 << 10, "{version:?}: {ours}");
        assert!(ours < theirs, "{version:?}: {ours} and {theirs}");
    }
}
