//! The one way out: azure_core's `HttpClient` over hyper, to listed destinations only.

mod connect;
mod destination;

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use azure_core::{
    Error,
    error::ErrorKind,
    http::{AsyncRawResponse, Body, HttpClient, Request, StatusCode, headers::Headers},
};
use bytes::{Bytes, BytesMut};
use http::{HeaderName, HeaderValue, header};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, timeout, timeout_at},
};
use tokio_rustls::TlsConnector;

pub(crate) use destination::{Destination, Reach, is_local};

use crate::{
    Network,
    answer::{self, Shape},
};

/// Far beyond any real answer.
const HEAD_BYTES_MAX: usize = 64 * 1024;

const IDENTITY_HEADER: HeaderName = HeaderName::from_static("x-identity-header");

/// What the SDK is told instead of the failure itself: it logs the error that it gets, and the
/// failure may quote an answer that has not been scrubbed yet.
const FAILED: &str = "the request failed in the transport";

/// The transport of one token request. It keeps what went wrong, since the SDK loses most of it.
#[derive(Debug)]
pub(crate) struct Exchange {
    network: Network,
    destination: Arc<Destination>,
    shape: Shape,
    failure: Mutex<Option<Failure>>,
    refresh_in: Mutex<Option<Duration>>,
}

/// What went wrong, as found. Texts in here have not been scrubbed of secrets.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The SDK wanted to go elsewhere.
    Egress { wanted: String },
    /// The name of the identity endpoint stands for a machine outside the private network.
    NotLocal,
    /// The name does not resolve.
    Resolve(io::Error),
    /// No address accepted a connection.
    Connect(io::Error),
    /// No connection within [`Limits::connect`](crate::Limits::connect).
    ConnectTimeout(Duration),
    /// The TLS handshake failed.
    Tls(io::Error),
    /// What came back is not HTTP/1.1, or ended too soon.
    Http(String),
    /// No complete answer within [`Limits::exchange`](crate::Limits::exchange).
    Timeout(Duration),
    /// An answer with another status than success.
    Status(Box<Answer>),
    /// A successful answer longer than [`Limits::body_bytes_max`](crate::Limits::body_bytes_max).
    TooLarge(usize),
    /// A successful answer that holds no usable token. Its body is not kept.
    NotAToken {
        content_type: Option<String>,
        length: usize,
        json: bool,
        why: &'static str,
    },
}

/// An answer, whatever its status.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: http::StatusCode,
    pub(crate) content_type: Option<String>,
    pub(crate) correlation_id: Option<String>,
    pub(crate) retry_after: Option<Duration>,
    /// `WWW-Authenticate`.
    #[cfg_attr(
        not(feature = "key-vault"),
        expect(dead_code, reason = "only vaults challenge")
    )]
    pub(crate) challenge: Option<String>,
    /// The beginning of the body, at most as long as the limit.
    pub(crate) body: Bytes,
    /// There was more of it.
    pub(crate) truncated: bool,
}

impl Exchange {
    pub(crate) fn new(network: Network, destination: Arc<Destination>, shape: Shape) -> Arc<Self> {
        Arc::new(Self {
            network,
            destination,
            shape,
            failure: Mutex::new(None),
            refresh_in: Mutex::new(None),
        })
    }

    /// What went wrong, if the transport was where it went wrong.
    pub(crate) fn take_failure(&self) -> Option<Failure> {
        locked(&self.failure).take()
    }

    /// When the service that gave the token wants to be asked again: the SDK drops it.
    pub(crate) fn refresh_in(&self) -> Option<Duration> {
        *locked(&self.refresh_in)
    }

    async fn token_body(&self, request: &Request) -> Result<Bytes, Failure> {
        if !self.destination.is(request.url()) {
            return Err(Failure::Egress {
                wanted: destination::describe(request.url()),
            });
        }
        let answer = send(&self.network, &self.destination, self.head(request)?).await?;
        if !answer.status.is_success() {
            return Err(Failure::Status(Box::new(answer)));
        }
        if answer.truncated {
            return Err(Failure::TooLarge(self.network.limits.body_bytes_max));
        }
        // The SDK would quote what it cannot parse, and adds a life time to the clock unchecked.
        match answer::check_token(self.shape, &answer.body) {
            Ok(refresh_in) => {
                *locked(&self.refresh_in) = refresh_in;
                Ok(answer.body)
            }
            Err(why) => Err(Failure::NotAToken {
                content_type: answer.content_type,
                length: answer.body.len(),
                json: why != answer::NOT_JSON,
                why,
            }),
        }
    }

    /// The request as it goes out: the SDK's headers, except those that belong to the transport.
    fn head(&self, request: &Request) -> Result<http::Request<Full<Bytes>>, Failure> {
        let body = match request.body() {
            Body::Bytes(bytes) => bytes.clone(),
            Body::SeekableStream(_) => {
                return Err(Failure::Http("a streamed request body".into()));
            }
        };
        let mut out = http::Request::builder()
            .method(request.method().as_str())
            .uri(request.path_and_query())
            .header(header::HOST, self.destination.authority())
            .header(header::CONNECTION, "close")
            .body(Full::new(body))
            .map_err(|error| Failure::Http(error.to_string()))?;
        for (name, value) in request.headers().iter() {
            let name = HeaderName::from_bytes(name.as_str().as_bytes())
                .map_err(|error| Failure::Http(error.to_string()))?;
            if [
                header::HOST,
                header::CONNECTION,
                header::CONTENT_LENGTH,
                header::TRANSFER_ENCODING,
            ]
            .contains(&name)
            {
                continue;
            }
            // The SDK sends this secret to IMDS too when the variable is set.
            if name == IDENTITY_HEADER && !self.destination.takes_identity_header {
                continue;
            }
            let mut value = HeaderValue::from_str(value.as_str())
                .map_err(|_| Failure::Http(format!("the value of {name} is not a header value")))?;
            value.set_sensitive(name == IDENTITY_HEADER);
            out.headers_mut().insert(name, value);
        }
        Ok(out)
    }
}

#[async_trait::async_trait]
impl HttpClient for Exchange {
    /// Answers with a token or with an error of a kind that the SDK does not retry: its own
    /// schedule takes 80 to 100 seconds and obeys any `Retry-After`.
    async fn execute_request(&self, request: &Request) -> azure_core::Result<AsyncRawResponse> {
        match self.token_body(request).await {
            Ok(body) => Ok(AsyncRawResponse::from_bytes(
                StatusCode::Ok,
                Headers::new(),
                body,
            )),
            Err(failure) => {
                *locked(&self.failure) = Some(failure);
                Err(Error::with_message(ErrorKind::Other, FAILED))
            }
        }
    }
}

/// A poisoned lock still holds a whole value: values are only ever replaced.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One request on a connection of its own, within the limits of `network`; redirects are answers.
///
/// # Cancel safety
///
/// Dropping the future closes the connection.
pub(crate) async fn send(
    network: &Network,
    destination: &Destination,
    request: http::Request<Full<Bytes>>,
) -> Result<Answer, Failure> {
    let limit = network.limits.exchange;
    let (head, body) = timeout(limit, send_unbounded(network, destination, request))
        .await
        .map_err(|_| Failure::Timeout(limit))??;
    let text = |name: &str| {
        let value = head.headers.get(name)?.to_str().ok()?;
        Some(value.to_owned())
    };
    Ok(Answer {
        status: head.status,
        content_type: text("content-type"),
        correlation_id: text("x-ms-request-id").or_else(|| text("x-ms-correlation-request-id")),
        retry_after: text("retry-after").as_deref().and_then(retry_after),
        challenge: text("www-authenticate"),
        body: body.bytes,
        truncated: body.truncated,
    })
}

/// Seconds or a date (RFC 9110, section 10.2.3).
fn retry_after(value: &str) -> Option<Duration> {
    if let Ok(seconds) = value.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = azure_core::time::parse_rfc7231(value.trim()).ok()?;
    Duration::try_from(date - azure_core::time::OffsetDateTime::now_utc()).ok()
}

async fn send_unbounded(
    network: &Network,
    destination: &Destination,
    request: http::Request<Full<Bytes>>,
) -> Result<(http::response::Parts, Read), Failure> {
    let limit = network.limits.body_bytes_max;
    let tcp = connect(network, destination).await?;
    if !destination.tls {
        return exchange(tcp, request, limit).await;
    }
    let name = ServerName::try_from(destination.host.clone())
        .map_err(|error| Failure::Tls(io::Error::other(error)))?;
    let tls = TlsConnector::from(Arc::clone(&network.tls))
        .connect(name, tcp)
        .await
        .map_err(Failure::Tls)?;
    exchange(tls, request, limit).await
}

async fn connect(
    network: &Network,
    destination: &Destination,
) -> Result<tokio::net::TcpStream, Failure> {
    let limit = network.limits.connect;
    let deadline = Instant::now() + limit;
    let late = |_| Failure::ConnectTimeout(limit);
    let key = (destination.host.clone(), destination.port);
    let addresses = match network.overrides.get(&key) {
        Some(address) => vec![*address],
        None => timeout_at(deadline, connect::resolve(&key.0, key.1))
            .await
            .map_err(late)?
            .map_err(Failure::Resolve)?,
    };
    if destination.reach == Reach::Local && !addresses.iter().all(|a| is_local(a.ip())) {
        return Err(Failure::NotLocal);
    }
    connect::first(&addresses, deadline, tokio::net::TcpStream::connect)
        .await
        .map_err(late)?
        .map_err(Failure::Connect)
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: http::Request<Full<Bytes>>,
    limit: usize,
) -> Result<(http::response::Parts, Read), Failure> {
    let broken = |error: hyper::Error| Failure::Http(with_sources(&error));
    let (mut sender, connection) = http1::Builder::new()
        .max_header_size(HEAD_BYTES_MAX)
        .max_headers(64)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    let exchange = async {
        let (head, body) = sender
            .send_request(request)
            .await
            .map_err(broken)?
            .into_parts();
        Ok((head, read(body, limit).await.map_err(broken)?))
    };
    // Both ends of the connection are polled here, so that dropping the future closes it.
    tokio::pin!(exchange, connection);
    tokio::select! {
        done = &mut exchange => done,
        _ = &mut connection => exchange.await,
    }
}

/// A body, or the beginning of one.
struct Read {
    bytes: Bytes,
    truncated: bool,
}

async fn read(mut body: Incoming, limit: usize) -> Result<Read, hyper::Error> {
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else {
            continue;
        };
        let room = limit - bytes.len();
        bytes.extend_from_slice(&data[..data.len().min(room)]);
        if data.len() > room {
            return Ok(Read {
                bytes: bytes.freeze(),
                truncated: true,
            });
        }
    }
    Ok(Read {
        bytes: bytes.freeze(),
        truncated: false,
    })
}

/// An error and its causes on one line.
pub(crate) fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Many wrappers repeat the text of what they wrap.
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    async fn connect(host: &str, port: u16, reach: Reach) -> String {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let destination = Destination {
            host: host.into(),
            port,
            tls: false,
            reach,
            takes_identity_header: false,
        };
        match super::connect(&Network::new(&tls), &destination).await {
            Ok(_) => "connected".into(),
            Err(failure) => format!("{failure:?}"),
        }
    }

    #[tokio::test]
    async fn a_connection_stays_where_it_belongs() {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .unwrap();
        let port = listener.local_addr().unwrap().port();
        let check = async |host: &str, reach, expected: &str| {
            assert_eq!(connect(host, port, reach).await, expected, "{host}");
        };
        check("127.0.0.1", Reach::Local, "connected").await;
        check("127.0.0.1", Reach::Anywhere, "connected").await;
        // Documentation addresses (RFC 5737, RFC 3849): nobody is there to be asked.
        check("192.0.2.1", Reach::Local, "NotLocal").await;
        check("2001:db8::1", Reach::Local, "NotLocal").await;
    }
}
