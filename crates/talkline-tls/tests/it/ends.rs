//! How a connection ends, and what a reader and a writer are told.

use std::io::ErrorKind;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use rustls::version::{TLS12, TLS13};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

use crate::far::{ByHand, configs, in_memory, noise};

#[tokio::test]
async fn a_close_notify_is_a_clean_end() {
    for version in [&TLS13, &TLS12] {
        let (mut client, mut far) = ByHand::connected(configs(version)).await;
        far.server.send_close_notify();
        far.say(b"");
        far.wire.with(|wire| wire.to_read.extend(b"ignored"));
        let mut read = Vec::new();
        client.read_to_end(&mut read).await.unwrap();
        assert!(read.is_empty());
        // Nothing is read behind it.
        let reads = far.wire.with(|wire| wire.reads);
        assert_eq!(client.read(&mut [0; 8]).await.unwrap(), 0);
        assert_eq!(far.wire.with(|wire| wire.reads), reads);
    }
}

#[tokio::test]
async fn an_end_without_one_is_unexpected_and_comes_after_the_data() {
    for version in [&TLS13, &TLS12] {
        let (mut client, mut far) = ByHand::connected(configs(version)).await;
        far.say(b"last words");
        far.wire.with(|wire| wire.eof = true);
        let mut read = Vec::new();
        let error = client.read_to_end(&mut read).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
        assert_eq!(read, b"last words");
        let again = client.read(&mut [0; 8]).await.unwrap_err();
        assert_eq!(again.kind(), ErrorKind::UnexpectedEof);
    }
}

#[tokio::test]
async fn it_says_what_tokio_rustls_says() {
    let (near, far) = tokio::io::duplex(64 << 10);
    let configs = configs(&TLS13);
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(configs.client.clone()));
    let acceptor = tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(configs.server));
    let name = crate::far::name(crate::far::NAME);
    let (theirs, server) = tokio::join!(connector.connect(name, near), acceptor.accept(far));
    let (mut theirs, server) = (theirs.unwrap(), server.unwrap());
    drop(server);
    let theirs = theirs.read(&mut [0; 8]).await.unwrap_err();

    let (mut ours, server) = in_memory(&TLS13, 64 << 10).await;
    drop(server);
    let ours = ours.read(&mut [0; 8]).await.unwrap_err();
    assert_eq!(ours.kind(), theirs.kind());
    assert_eq!(ours.to_string(), theirs.to_string());
}

#[tokio::test]
async fn half_a_record_is_no_data() {
    let (mut client, mut far) = ByHand::connected(configs(&TLS13)).await;
    far.say(&noise(10_000, 1));
    far.wire.with(|wire| {
        wire.to_read.truncate(wire.to_read.len() - 1);
        wire.eof = true;
    });
    let mut read = Vec::new();
    let error = client.read_to_end(&mut read).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
    assert!(read.is_empty());
}

#[tokio::test]
async fn a_spoilt_record_is_an_error_behind_the_good_ones() {
    for version in [&TLS13, &TLS12] {
        let (mut client, mut far) = ByHand::connected(configs(version)).await;
        far.say(b"good");
        far.say(b"spoilt");
        far.wire.with(|wire| {
            let last = wire.to_read.back_mut().unwrap();
            *last ^= 1;
            wire.written.clear();
        });
        let mut read = Vec::new();
        let error = client.read_to_end(&mut read).await.unwrap_err();
        assert_eq!(read, b"good");
        assert_eq!(error.kind(), ErrorKind::InvalidData);
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
        assert_eq!(inner, Some(&rustls::Error::DecryptError));
        // The peer is told, and nothing else is written.
        let written = far.wire.with(|wire| wire.written.clone());
        assert!(!written.is_empty());
        let refused = client.write(b"more").await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidData);
        let again = client.read(&mut [0; 8]).await.unwrap_err();
        assert_eq!(again.kind(), ErrorKind::InvalidData);
        let _ = client.shutdown().await;
        assert_eq!(far.wire.with(|wire| wire.written.clone()), written);
        assert!(far.wire.with(|wire| wire.is_shut_down));
        assert_eq!(client.buffered_bytes(), 0);
    }
}

#[tokio::test]
async fn a_peers_alert_is_an_error() {
    let (mut client, mut far) = ByHand::connected(configs(&TLS13)).await;
    // What the server cannot decrypt it answers with an alert.
    let garbage = [&[23, 3, 3, 0, 32][..], &[7; 32]].concat();
    far.server.read_tls(&mut &garbage[..]).unwrap();
    far.server.process_new_packets().unwrap_err();
    far.send();
    let error = client.read(&mut [0; 8]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidData);
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    assert_eq!(
        inner,
        Some(&rustls::Error::AlertReceived(
            rustls::AlertDescription::BadRecordMac
        ))
    );
}

#[tokio::test]
async fn writing_ends_first_and_reading_goes_on() {
    let (mut client, mut server) = in_memory(&TLS13, 1 << 10).await;
    client.write_all(b"question").await.unwrap();
    client.shutdown().await.unwrap();
    client.shutdown().await.unwrap();
    let refused = client.write(b"more").await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::BrokenPipe);
    let mut read = Vec::new();
    server.read_to_end(&mut read).await.unwrap();
    assert_eq!(read, b"question");
    let answer = noise(100_000, 3);
    let answering = async {
        server.write_all(&answer).await.unwrap();
        server.shutdown().await.unwrap();
    };
    let mut read = Vec::new();
    let (_, reading) = tokio::join!(answering, client.read_to_end(&mut read));
    reading.unwrap();
    assert_eq!(read, answer);
}

#[tokio::test]
async fn reading_ends_first_and_writing_goes_on() {
    let (mut client, mut server) = in_memory(&TLS13, 1 << 10).await;
    server.shutdown().await.unwrap();
    assert_eq!(client.read(&mut [0; 8]).await.unwrap(), 0);
    let writing = async {
        client.write_all(&noise(100_000, 4)).await.unwrap();
        client.shutdown().await.unwrap();
    };
    let mut read = Vec::new();
    let (_, reading) = tokio::join!(writing, server.read_to_end(&mut read));
    reading.unwrap();
    assert_eq!(read, noise(100_000, 4));
}

#[tokio::test]
async fn a_socket_that_takes_no_more_holds_the_writer_back() {
    let (mut client, mut far) = ByHand::connected(configs(&TLS13)).await;
    far.wire.with(|wire| wire.takes = Some(1000));
    let bytes = noise(200_000, 5);
    let mut cx = Context::from_waker(Waker::noop());
    let mut client = Pin::new(&mut client);
    let Poll::Ready(Ok(accepted)) = client.as_mut().poll_write(&mut cx, &bytes) else {
        panic!("the first write is taken");
    };
    assert_eq!(accepted, 48 << 10);
    for _ in 0..10 {
        assert!(client.as_mut().poll_write(&mut cx, &bytes).is_pending());
        assert!(client.as_mut().poll_flush(&mut cx).is_pending());
    }
    let waiting = client.buffered_bytes();
    assert!(waiting > 40_000 && waiting <= 64 << 10, "{waiting}");
    far.wire.with(|wire| wire.takes = None);
    client.flush().await.unwrap();
    assert_eq!(client.buffered_bytes(), 0);
    assert_eq!(far.receive(), bytes[..accepted]);
}

#[tokio::test]
async fn a_reader_with_little_room_gets_everything() {
    let (mut client, mut far) = ByHand::connected(configs(&TLS13)).await;
    let bytes = noise(100_000, 6);
    far.say(&bytes);
    let mut read = Vec::new();
    let mut waiting = 0;
    while read.len() < bytes.len() {
        let mut room = [0; 100];
        let length = client.read(&mut room).await.unwrap();
        read.extend_from_slice(&room[..length]);
        waiting = waiting.max(client.buffered_bytes());
    }
    assert_eq!(read, bytes);
    assert!(waiting <= 64 << 10, "{waiting}");
    assert_eq!(client.buffered_bytes(), 0);
}

#[tokio::test]
async fn a_reader_without_room_reads_nothing() {
    let (mut client, mut far) = ByHand::connected(configs(&TLS13)).await;
    far.say(b"data");
    let reads = far.wire.with(|wire| wire.reads);
    let mut cx = Context::from_waker(Waker::noop());
    let polled =
        tokio::io::AsyncRead::poll_read(pin!(&mut client), &mut cx, &mut ReadBuf::new(&mut []));
    assert!(matches!(polled, Poll::Ready(Ok(()))));
    assert_eq!(far.wire.with(|wire| wire.reads), reads);
}

#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test]
async fn a_reader_that_gets_nothing_lets_others_run() {
    let (mut client, mut far) = ByHand::connected(configs(&TLS13)).await;
    far.say(&noise(1_000, 7));
    far.wire.with(|wire| {
        wire.step = Some(1);
        wire.reads = 0;
    });
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    let mut cx = Context::from_waker(&waker);
    let mut room = [0; 2_000];
    let mut polls = 0;
    let read = loop {
        let mut buffer = ReadBuf::new(&mut room);
        polls += 1;
        match tokio::io::AsyncRead::poll_read(pin!(&mut client), &mut cx, &mut buffer) {
            Poll::Ready(read) => {
                read.unwrap();
                break buffer.filled().to_vec();
            }
            // The bytes are there: it has to ask for its next turn itself.
            Poll::Pending => assert_eq!(woken.0.load(Ordering::Relaxed), polls),
        }
        assert!(far.wire.with(|wire| wire.reads) <= 8 * polls);
    };
    assert_eq!(read, noise(1_000, 7));
    assert!(polls > 100, "{polls}");
}
