//! The way to the collector: one request a connection, with the TLS of the rest, following no redirect.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderValue, Request, Response, header, uri::Scheme};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use opentelemetry_http::{HttpClient, HttpError};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    runtime::Handle,
    time::timeout,
};
use tokio_rustls::TlsConnector;
use tracing::{info, warn};

/// From connecting to the end of the answer.
const EXCHANGE_MAX: Duration = Duration::from_secs(5);
/// An answer tells how many spans were refused, and why.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Sends on a runtime, for threads that have none.
pub(super) struct Client {
    runtime: Handle,
    tls: Arc<ClientConfig>,
    /// For the log: each outage is said once.
    is_away: AtomicBool,
}

impl Client {
    pub(super) fn new(runtime: Handle, tls: Arc<ClientConfig>) -> Self {
        Self {
            runtime,
            tls,
            is_away: AtomicBool::new(false),
        }
    }

    fn note(&self, outcome: &Result<Response<Bytes>, HttpError>) {
        let failure = match outcome {
            Ok(answer) if answer.status().is_success() => None,
            Ok(answer) => Some(answer.status().to_string()),
            Err(error) => Some(error.to_string()),
        };
        let was_away = self.is_away.swap(failure.is_some(), Ordering::Relaxed);
        match failure {
            Some(error) if !was_away => {
                warn!(error, "the OpenTelemetry collector takes nothing");
            }
            None if was_away => info!("the OpenTelemetry collector takes what it is sent again"),
            Some(_) | None => {}
        }
    }
}

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let tls = Arc::clone(&self.tls);
        let sending = self
            .runtime
            .spawn(async move { timeout(EXCHANGE_MAX, send(request, tls)).await });
        let outcome = match sending.await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(format!("no answer within {EXCHANGE_MAX:?}").into()),
            Err(error) => Err(error.into()),
        };
        self.note(&outcome);
        outcome
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Client")
    }
}

async fn send(
    request: Request<Bytes>,
    tls: Arc<ClientConfig>,
) -> Result<Response<Bytes>, HttpError> {
    let authority = request
        .uri()
        .authority()
        .ok_or("the endpoint has no host")?;
    let host = authority.host().trim_matches(['[', ']']).to_owned();
    let is_tls = request.uri().scheme() == Some(&Scheme::HTTPS);
    let port = authority
        .port_u16()
        .unwrap_or(if is_tls { 443 } else { 80 });
    let stream = TcpStream::connect((host.as_str(), port)).await?;
    stream.set_nodelay(true)?;
    match is_tls {
        false => exchange(stream, request).await,
        true => {
            let connector = TlsConnector::from(tls);
            let stream = connector
                .connect(ServerName::try_from(host)?, stream)
                .await?;
            exchange(stream, request).await
        }
    }
}

async fn exchange<IO>(stream: IO, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut parts, body) = request.into_parts();
    let authority = parts.uri.authority().ok_or("the endpoint has no host")?;
    let host = HeaderValue::from_str(authority.as_str())?;
    parts.headers.insert(header::HOST, host);
    parts.uri = match parts.uri.path_and_query() {
        Some(path) => path.as_str().parse()?,
        None => http::Uri::from_static("/"),
    };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let exchange = async {
        let answer = sender
            .send_request(Request::from_parts(parts, Full::new(body)))
            .await?;
        let (parts, body) = answer.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await?;
        Ok(Response::from_parts(parts, body.to_bytes()))
    };
    tokio::pin!(exchange, connection);
    tokio::select! {
        biased;
        answer = &mut exchange => answer,
        ended = &mut connection => {
            ended?;
            // The connection has handed over all that it read.
            exchange.await
        }
    }
}
