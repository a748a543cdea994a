//! Serves a fake over HTTP/1.1, on a socket and in memory, and fails as it is told.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use crate::record::{Recorder, SeenRequest};
use crate::server::seen;

use super::answer::{Payload, Reaction, finish};
use super::fault::Fault;

/// Connections at a time; further ones are dropped.
const CONNECTIONS_MAX: usize = 1024;
/// Longest wait for a TLS handshake, a request's head and its body.
const REQUEST_MAX: Duration = Duration::from_secs(10);
/// Longest body that is read.
const BODY_BYTES_MAX: usize = 64 << 10;
/// Bytes in flight each way on a connection in memory.
const MEMORY_BYTES: usize = 64 << 10;

/// A fake's own rules.
pub(super) trait Service: Send + Sync + 'static {
    /// What becomes of a connection before anything is read: a [`Fault::BlackHole`], a [`Fault::Closes`] or service.
    fn greet(&self) -> Option<Fault>;

    /// What becomes of a request. Its status is not yet set.
    fn react(&self, request: &SeenRequest) -> Reaction;
}

/// A fake that serves.
#[derive(Debug)]
pub(super) struct Host {
    address: SocketAddr,
    recorder: Arc<Recorder>,
    connections: Arc<AtomicU64>,
    memory: mpsc::Sender<DuplexStream>,
    stop: watch::Sender<()>,
    server: JoinHandle<()>,
}

impl Host {
    pub(super) async fn start(
        listen: SocketAddr,
        tls: Option<Arc<rustls::ServerConfig>>,
        service: Arc<impl Service>,
    ) -> io::Result<Self> {
        if !is_near(listen.ip()) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "a fake only listens on loopback or link-local addresses, not on {}",
                    listen.ip()
                ),
            ));
        }
        let listener = TcpListener::bind(listen).await?;
        let address = listener.local_addr()?;
        let (memory, streams) = mpsc::channel(CONNECTIONS_MAX);
        let (stop, stopped) = watch::channel(());
        let shared = Shared {
            service,
            recorder: Arc::new(Recorder::open(None)?),
            connections: Arc::default(),
            acceptor: tls.map(TlsAcceptor::from),
        };
        Ok(Self {
            address,
            recorder: Arc::clone(&shared.recorder),
            connections: Arc::clone(&shared.connections),
            memory,
            stop,
            server: tokio::spawn(serve(listener, streams, Arc::new(shared), stopped)),
        })
    }

    pub(super) fn addr(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn requests(&self) -> Vec<SeenRequest> {
        self.recorder.seen()
    }

    pub(super) fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    pub(super) fn connect_in_memory(&self) -> DuplexStream {
        let (near, far) = tokio::io::duplex(MEMORY_BYTES);
        // With no room, the far end is dropped, which is what a full backlog looks like.
        let _ = self.memory.try_send(far);
        near
    }

    pub(super) async fn shutdown(mut self) {
        let _ = self.stop.send(());
        let _ = (&mut self.server).await;
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// Loopback, or link-local as the real metadata service's address is.
fn is_near(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_loopback() || address.is_link_local(),
        IpAddr::V6(address) => address.is_loopback(),
    }
}

struct Shared<S> {
    service: Arc<S>,
    recorder: Arc<Recorder>,
    connections: Arc<AtomicU64>,
    acceptor: Option<TlsAcceptor>,
}

async fn serve<S: Service>(
    listener: TcpListener,
    mut streams: mpsc::Receiver<DuplexStream>,
    shared: Arc<Shared<S>>,
    mut stopped: watch::Receiver<()>,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            _ = stopped.changed() => break,
            Some(_) = connections.join_next() => {}
            Some(stream) = streams.recv() => {
                connections.spawn(connection(stream, Arc::clone(&shared)));
            }
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) if connections.len() < CONNECTIONS_MAX => {
                    connections.spawn(connection(stream, Arc::clone(&shared)));
                }
                Ok(_) => tracing::debug!("too many connections, one dropped"),
                // Running out of descriptors passes; asking again at once would spin.
                Err(error) => {
                    tracing::debug!(%error, "accept failed");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
        }
    }
    connections.shutdown().await;
}

async fn connection<S: Service, T>(stream: T, shared: Arc<Shared<S>>)
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    shared.connections.fetch_add(1, Ordering::Relaxed);
    match shared.service.greet() {
        None => {}
        Some(Fault::Closes) => return,
        Some(_) => {
            std::future::pending::<()>().await;
            drop(stream);
            return;
        }
    }
    let Some(acceptor) = &shared.acceptor else {
        return requests(stream, &shared).await;
    };
    match timeout(REQUEST_MAX, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => requests(stream, &shared).await,
        Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
        Err(_) => tracing::debug!("TLS handshake timed out"),
    }
}

async fn requests<S: Service, T>(stream: T, shared: &Shared<S>)
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_MAX)
        .serve_connection(
            TokioIo::new(stream),
            service_fn(|request| answer(request, shared)),
        )
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "HTTP connection ended");
    }
}

async fn answer<S: Service>(
    request: Request<Incoming>,
    shared: &Shared<S>,
) -> Result<Response<Payload>, std::convert::Infallible> {
    let (head, body) = request.into_parts();
    let body = match head.method {
        Method::GET | Method::HEAD => None,
        _ => Some(read_body(body).await),
    };
    let mut request = seen(&head, body, 0);
    let reaction = shared.service.react(&request);
    if let Reaction::Answer(answer, _) = &reaction {
        request.status = answer.status;
    }
    shared.recorder.record(request);
    let (answer, delay) = match reaction {
        Reaction::Answer(answer, delay) => (answer, delay),
        Reaction::Hang => std::future::pending().await,
    };
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
    Ok(finish(answer))
}

/// The body as far as it comes in time and fits.
async fn read_body(body: Incoming) -> String {
    let collected = timeout(REQUEST_MAX, Limited::new(body, BODY_BYTES_MAX).collect()).await;
    match collected {
        Ok(Ok(body)) => String::from_utf8_lossy(&body.to_bytes()).into_owned(),
        Ok(Err(_)) | Err(_) => "[not received]".to_owned(),
    }
}

/// Gives a fake the methods that all have.
macro_rules! serving {
    ($fake:ident) => {
        impl $fake {
            /// The address it listens on.
            #[must_use]
            pub fn addr(&self) -> std::net::SocketAddr {
                self.host.addr()
            }

            /// The requests so far, oldest first; the last 4096 of them. Each is here before it is answered, and
            /// has status 0 if it is never answered.
            #[must_use]
            pub fn requests(&self) -> Vec<crate::SeenRequest> {
                self.host.requests()
            }

            /// Connections taken so far, those without a request included.
            #[must_use]
            pub fn connections(&self) -> u64 {
                self.host.connections()
            }

            /// A connection that needs no socket, served like any other (TLS included, where the fake speaks it):
            /// for tests on paused time.
            #[must_use]
            pub fn connect_in_memory(&self) -> tokio::io::DuplexStream {
                self.host.connect_in_memory()
            }

            /// Stops listening and drops all connections, and returns when that is done. From then on the port
            /// refuses connections.
            ///
            /// # Cancel safety
            /// Dropping the future still ends everything, without waiting for it.
            pub async fn shutdown(self) {
                self.host.shutdown().await;
            }
        }
    };
}
pub(super) use serving;
