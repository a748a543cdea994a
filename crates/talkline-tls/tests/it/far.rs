//! The far end: certificates, tokio-rustls servers, and a rustls server that is driven by hand.

use std::collections::VecDeque;
use std::io::{self, Read as _, Write as _};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use rustls::{
    ClientConfig, RootCertStore, ServerConfig, ServerConnection, SupportedProtocolVersion,
};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName};
use talkline_tls::TlsStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, duplex};

pub(crate) const NAME: &str = "azure.test";

pub(crate) fn name(name: &str) -> ServerName<'static> {
    ServerName::try_from(name.to_owned()).unwrap()
}

/// Both configurations of a far end, for one protocol version.
pub(crate) struct Configs {
    pub(crate) server: ServerConfig,
    pub(crate) client: ClientConfig,
}

pub(crate) fn configs(version: &'static SupportedProtocolVersion) -> Configs {
    let made = rcgen::generate_simple_self_signed([NAME.to_owned()]).unwrap();
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let server = ServerConfig::builder_with_protocol_versions(&[version])
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key.into())
        .unwrap();
    let client = client_config(version, made.cert.der().clone());
    Configs { server, client }
}

pub(crate) fn client_config(
    version: &'static SupportedProtocolVersion,
    trusted: CertificateDer<'static>,
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(trusted).unwrap();
    ClientConfig::builder_with_protocol_versions(&[version])
        .with_root_certificates(roots)
        .with_no_client_auth()
}

pub(crate) type Server<S> = tokio_rustls::server::TlsStream<S>;

/// A connection between the two over `near` and `far`.
pub(crate) async fn connected<N, F>(configs: Configs, near: N, far: F) -> (TlsStream<N>, Server<F>)
where
    N: AsyncRead + AsyncWrite + Unpin,
    F: AsyncRead + AsyncWrite + Unpin,
{
    let accepted = tokio_rustls::TlsAcceptor::from(Arc::new(configs.server)).accept(far);
    let connected = TlsStream::connect(Arc::new(configs.client), name(NAME), near);
    let (accepted, connected) = tokio::join!(accepted, connected);
    (connected.unwrap(), accepted.unwrap())
}

/// Without the tickets that a server sends before it is done: on a narrow way they would have to be read
/// meanwhile.
pub(crate) fn narrow(mut configs: Configs) -> Configs {
    configs.server.send_tls13_tickets = 0;
    configs
}

/// A connection in memory that holds `bytes` on the way.
pub(crate) async fn in_memory(
    version: &'static SupportedProtocolVersion,
    bytes: usize,
) -> (
    TlsStream<tokio::io::DuplexStream>,
    Server<tokio::io::DuplexStream>,
) {
    let (near, far) = duplex(bytes);
    connected(narrow(configs(version)), near, far).await
}

/// Moves one byte at a time, and is not ready every other time.
pub(crate) struct Bytewise<S> {
    inner: S,
    reads: bool,
    writes: bool,
}

impl<S> Bytewise<S> {
    pub(crate) fn new(inner: S) -> Self {
        Self {
            inner,
            reads: false,
            writes: false,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Bytewise<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.reads = !self.reads;
        if self.reads {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let mut one = buffer.take(1);
        let polled = Pin::new(&mut self.inner).poll_read(cx, &mut one);
        let filled = one.filled().len();
        buffer.advance(filled);
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Bytewise<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.writes = !self.writes;
        if self.writes {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Pin::new(&mut self.inner).poll_write(cx, &bytes[..bytes.len().min(1)])
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// A byte stream whose other end the test holds: what it may read, what it wrote, and how often.
#[derive(Debug, Default)]
pub(crate) struct Wire {
    pub(crate) to_read: VecDeque<u8>,
    pub(crate) written: Vec<u8>,
    pub(crate) reads: usize,
    pub(crate) writes: usize,
    pub(crate) eof: bool,
    pub(crate) is_shut_down: bool,
    /// Bytes that are taken before writes wait.
    pub(crate) takes: Option<usize>,
    /// Bytes that a read gives, at most.
    pub(crate) step: Option<usize>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Shared(pub(crate) Arc<Mutex<Wire>>);

impl Shared {
    pub(crate) fn with<R>(&self, look: impl FnOnce(&mut Wire) -> R) -> R {
        look(&mut self.0.lock().unwrap())
    }
}

impl AsyncRead for Shared {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.with(|wire| {
            if wire.to_read.is_empty() && !wire.eof {
                return Poll::Pending;
            }
            wire.reads += 1;
            let (first, _) = wire.to_read.as_slices();
            let step = wire.step.unwrap_or(usize::MAX);
            let taken = first.len().min(buffer.remaining()).min(step);
            buffer.put_slice(&first[..taken]);
            wire.to_read.drain(..taken);
            Poll::Ready(Ok(()))
        })
    }
}

impl AsyncWrite for Shared {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.with(|wire| {
            let taken = wire.takes.unwrap_or(usize::MAX).min(bytes.len());
            if taken == 0 {
                return Poll::Pending;
            }
            wire.takes = wire.takes.map(|takes| takes - taken);
            wire.writes += 1;
            wire.written.extend_from_slice(&bytes[..taken]);
            Poll::Ready(Ok(taken))
        })
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|wire| wire.is_shut_down = true);
        Poll::Ready(Ok(()))
    }
}

/// A rustls server on the other end of a [`Shared`], moved by hand.
pub(crate) struct ByHand {
    pub(crate) server: ServerConnection,
    pub(crate) wire: Shared,
}

impl ByHand {
    /// A connection after its handshake.
    pub(crate) async fn connected(configs: Configs) -> (TlsStream<Shared>, Self) {
        let wire = Shared::default();
        let server = ServerConnection::new(Arc::new(configs.server)).unwrap();
        let mut far = Self {
            server,
            wire: wire.clone(),
        };
        let connecting = TlsStream::connect(Arc::new(configs.client), name(NAME), wire);
        tokio::pin!(connecting);
        let stream = std::future::poll_fn(|cx| {
            loop {
                if let Poll::Ready(stream) = connecting.as_mut().poll(cx) {
                    return Poll::Ready(stream.unwrap());
                }
                far.exchange();
            }
        })
        .await;
        far.exchange();
        (stream, far)
    }

    /// Gives the server what the client wrote, and the client what the server has to say.
    pub(crate) fn exchange(&mut self) {
        self.receive();
        self.send();
    }

    /// Gives the client what the server has to say.
    pub(crate) fn send(&mut self) {
        let mut sent = Vec::new();
        while self.server.wants_write() {
            self.server.write_tls(&mut sent).unwrap();
        }
        self.wire.with(|wire| {
            wire.to_read.extend(sent);
            wire.to_read.make_contiguous();
        });
    }

    /// Gives the server what the client wrote; returns the plaintext.
    pub(crate) fn receive(&mut self) -> Vec<u8> {
        let written = self.wire.with(|wire| std::mem::take(&mut wire.written));
        let mut rest = &written[..];
        let mut plain = Vec::new();
        while !rest.is_empty() {
            self.server.read_tls(&mut rest).unwrap();
            self.server.process_new_packets().unwrap();
            match self.server.reader().read_to_end(&mut plain) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => drop(read.unwrap()),
            }
        }
        plain
    }

    /// Lets the server say something, in one record each 16 KiB.
    pub(crate) fn say(&mut self, bytes: &[u8]) {
        self.server.set_buffer_limit(None);
        self.server.writer().write_all(bytes).unwrap();
        self.send();
    }
}

/// Bytes that differ everywhere.
pub(crate) fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    (0..length)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 56) as u8
        })
        .collect()
}
