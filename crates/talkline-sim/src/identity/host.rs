//! Serves a fake over HTTP/1.1, on a socket and in memory, and fails as it is told.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::http::StatusCode;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use crate::record::{Recorder, SeenRequest};
use crate::server::seen;

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

/// What a fake does about a request.
#[derive(Debug)]
pub(super) enum Reaction {
    /// Answers after this time.
    Answer(Answer, Duration),
    /// Never answers.
    Hang,
}

impl From<Answer> for Reaction {
    fn from(answer: Answer) -> Self {
        Self::Answer(answer, Duration::ZERO)
    }
}

/// An HTTP answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    headers: Vec<(&'static str, String)>,
    body: Payload,
}

impl Answer {
    pub(super) fn json(status: u16, body: &Value) -> Self {
        Self::new(status, "application/json; charset=utf-8", body.to_string())
    }

    pub(super) fn html(status: u16, body: &str) -> Self {
        Self::new(status, "text/html; charset=utf-8", body.to_owned())
    }

    pub(super) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    fn new(status: u16, content_type: &str, body: String) -> Self {
        Self {
            status,
            headers: vec![("content-type", content_type.to_owned())],
            body: Payload {
                claimed_bytes: body.len() as u64,
                pending: Some(Bytes::from(body)),
            },
        }
    }

    fn stalls(mut self) -> Self {
        self.body.claimed_bytes *= 2;
        self
    }
}

impl Fault {
    /// The fault as a reaction, with `proper` for those that only delay it.
    pub(super) fn react(&self, proper: impl FnOnce() -> Answer) -> Reaction {
        let answer = match self {
            Self::BlackHole | Self::Closes | Self::Hangs => return Reaction::Hang,
            Self::Slow(delay) => return Reaction::Answer(proper(), *delay),
            Self::StallsMidBody => json_text(r#"{"token_type":"Bearer","#).stalls(),
            Self::Html(status) => Answer::html(
                *status,
                "<!DOCTYPE html>\n<html><head><title>Access denied</title></head><body><h1>Access denied</h1>\
                 <p>This request was blocked by the network's security policy.</p></body></html>\n",
            ),
            Self::Garbage => json_text("{\"access_token\": \u{fffd}\u{1}not json"),
            Self::Empty => json_text(""),
            Self::ServerError => Answer::new(500, "text/plain", "Internal Server Error".to_owned()),
            Self::Unavailable => Answer::new(503, "text/plain", "Service Unavailable".to_owned()),
            Self::Redirect(to) => {
                Answer::html(302, "<html><body>Object moved</body></html>").header("location", to)
            }
            Self::HugeBody(bytes) => json_text(&huge_array(*bytes)),
        };
        answer.into()
    }
}

fn json_text(text: &str) -> Answer {
    Answer::new(200, "application/json; charset=utf-8", text.to_owned())
}

/// A JSON array of exactly so many bytes (two at least).
fn huge_array(bytes: usize) -> String {
    let zeros = bytes.saturating_sub(3) / 2;
    let mut text = String::with_capacity(bytes + 2);
    text.push_str("[0");
    for _ in 0..zeros {
        text.push_str(",0");
    }
    text.push(']');
    text.push_str(if text.len() < bytes { " " } else { "" });
    text
}

/// A body that may claim to be longer than it is, and then never ends.
#[derive(Debug)]
struct Payload {
    pending: Option<Bytes>,
    claimed_bytes: u64,
}

impl Body for Payload {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match self.pending.take() {
            Some(bytes) => {
                self.claimed_bytes -= (bytes.len() as u64).min(self.claimed_bytes);
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            None if self.claimed_bytes == 0 => Poll::Ready(None),
            // Nobody wakes it: that is the fault.
            None => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.claimed_bytes == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.claimed_bytes)
    }
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

/// Falls back to 500 if a configured address or name is no header value.
fn finish(answer: Answer) -> Response<Payload> {
    let mut builder = Response::builder().status(answer.status);
    for (name, value) in &answer.headers {
        builder = builder.header(*name, value);
    }
    builder.body(answer.body).unwrap_or_else(|error| {
        tracing::warn!(%error, "the answer could not be formed");
        let mut response = Response::new(Payload {
            pending: None,
            claimed_bytes: 0,
        });
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        response
    })
}

/// The body as far as it comes in time and fits.
async fn read_body(body: Incoming) -> String {
    let collected = timeout(REQUEST_MAX, Limited::new(body, BODY_BYTES_MAX).collect()).await;
    match collected {
        Ok(Ok(body)) => String::from_utf8_lossy(&body.to_bytes()).into_owned(),
        Ok(Err(_)) | Err(_) => "[not received]".to_owned(),
    }
}

/// The pairs of a query or a form, decoded (WHATWG URL, `application/x-www-form-urlencoded`).
pub(super) fn pairs(text: &str) -> Vec<(String, String)> {
    let decode = |part: &str| {
        let spaced = part.replace('+', " ");
        percent_encoding::percent_decode_str(&spaced)
            .decode_utf8_lossy()
            .into_owned()
    };
    let parts = text.split('&').filter(|part| !part.is_empty());
    parts
        .map(|part| part.split_once('=').unwrap_or((part, "")))
        .map(|(name, value)| (decode(name), decode(value)))
        .collect()
}

/// The first value of that name.
pub(super) fn value<'a>(pairs: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let mut found = pairs.iter().filter(|(each, _)| each == name);
    found.next().map(|(_, value)| value.as_str())
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
