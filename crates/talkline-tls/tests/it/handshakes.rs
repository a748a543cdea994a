//! Handshakes that succeed, are resumed, fail, and are given up.

use std::io::{self, ErrorKind};
use std::sync::Arc;

use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, HandshakeKind, ServerConfig};
use talkline_tls::TlsStream;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

use crate::far::{NAME, Shared, configs, name};

/// Handshakes of ours and of tokio-rustls with the same server; their errors.
async fn both_fail(client: ClientConfig, server: ServerConfig, asked: &str) -> [io::Error; 2] {
    let (client, server) = (Arc::new(client), Arc::new(server));
    let acceptor = tokio_rustls::TlsAcceptor::from(server);
    let (near, far) = duplex(32 << 10);
    let ours = TlsStream::connect(Arc::clone(&client), name(asked), near);
    let (ours, told) = tokio::join!(ours, acceptor.accept(far));
    let told_ours = told.err().map(|error| error.to_string());

    let (near, far) = duplex(32 << 10);
    let theirs = tokio_rustls::TlsConnector::from(client).connect(name(asked), near);
    let (theirs, told) = tokio::join!(theirs, acceptor.accept(far));
    assert_eq!(told_ours, told.err().map(|error| error.to_string()));
    [ours.unwrap_err(), theirs.unwrap_err()]
}

fn alike([ours, theirs]: [io::Error; 2], expected: &str) {
    assert_eq!(ours.kind(), theirs.kind());
    assert_eq!(ours.to_string(), theirs.to_string());
    let inner = |error: &io::Error| {
        let inner = error.get_ref()?.downcast_ref::<rustls::Error>()?;
        Some(inner.clone())
    };
    assert_eq!(inner(&ours), inner(&theirs));
    assert!(inner(&ours).is_some());
    assert!(ours.to_string().contains(expected), "{ours}");
}

#[tokio::test]
async fn failures_are_those_of_tokio_rustls() {
    for version in [&TLS13, &TLS12] {
        let made = configs(version);
        alike(
            both_fail(made.client, made.server, "other.test").await,
            "not valid for name",
        );
        // Of the same name as the one that is trusted.
        let stranger = configs(version);
        alike(
            both_fail(configs(version).client, stranger.server, NAME).await,
            "BadSignature",
        );
    }
    // The server refuses, and its alert is what is told.
    let (tls13, tls12) = (configs(&TLS13), configs(&TLS12));
    alike(both_fail(tls13.client, tls12.server, NAME).await, "alert");
    let (mut alpn, server) = (configs(&TLS13).client, configs(&TLS13));
    alpn.alpn_protocols = vec![b"nothing".to_vec()];
    let mut server = server.server;
    server.alpn_protocols = vec![b"else".to_vec()];
    alike(both_fail(alpn, server, NAME).await, "alert");
}

#[tokio::test]
async fn a_peer_that_speaks_no_tls() {
    let wire = Shared::default();
    wire.with(|wire| wire.to_read.extend(b"HTTP/1.1 400 Bad Request\r\n\r\n"));
    let client = Arc::new(configs(&TLS13).client);
    let error = TlsStream::connect(client, name(NAME), wire.clone())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidData);
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    assert!(matches!(inner, Some(rustls::Error::InvalidMessage(_))));
}

#[tokio::test]
async fn a_peer_that_goes_away() {
    let wire = Shared::default();
    wire.with(|wire| wire.eof = true);
    let client = Arc::new(configs(&TLS13).client);
    let error = TlsStream::connect(client, name(NAME), wire)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn a_second_handshake_is_resumed() {
    for version in [&TLS13, &TLS12] {
        let made = configs(version);
        let (client, server) = (Arc::new(made.client), Arc::new(made.server));
        let mut kinds = Vec::new();
        for _ in 0..2 {
            let (near, far) = duplex(32 << 10);
            let acceptor = tokio_rustls::TlsAcceptor::from(Arc::clone(&server));
            let connecting = TlsStream::connect(Arc::clone(&client), name(NAME), near);
            let (connected, accepted) = tokio::join!(connecting, acceptor.accept(far));
            let (mut client, mut server) = (connected.unwrap(), accepted.unwrap());
            kinds.push(client.connection().handshake_kind().unwrap());
            assert_eq!(
                client.connection().protocol_version(),
                Some(version.version)
            );
            // The tickets come before the first byte.
            server.write_all(b"x").await.unwrap();
            server.flush().await.unwrap();
            client.read_u8().await.unwrap();
            assert_eq!(client.buffered_bytes(), 0);
        }
        assert_eq!(kinds, [HandshakeKind::Full, HandshakeKind::Resumed]);
    }
}

#[tokio::test]
async fn a_handshake_that_is_given_up_closes_the_stream() {
    let (near, mut far) = duplex(32 << 10);
    let client = Arc::new(configs(&TLS13).client);
    let mut connecting = Box::pin(TlsStream::connect(client, name(NAME), near));
    assert!(futures_poll(connecting.as_mut()).is_pending());
    drop(connecting);
    let mut sent = Vec::new();
    far.read_to_end(&mut sent).await.unwrap();
    assert_eq!(sent[0], 22, "the ClientHello went out");
}

fn futures_poll<F: Future>(future: std::pin::Pin<&mut F>) -> std::task::Poll<F::Output> {
    future.poll(&mut std::task::Context::from_waker(std::task::Waker::noop()))
}
