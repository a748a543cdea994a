//! Reaches an upstream: DNS, TCP, TLS, WebSocket upgrade, each with its own deadline.
//!
//! fastwebsockets' client handshake neither checks `Sec-WebSocket-Accept` nor keeps the body of a
//! refusal, so the handshake is made here, over hyper's HTTP/1 client. No redirect is followed, no
//! proxy variable is read, and host and port come from the sealed target alone.

use std::{future::Future, io, net::SocketAddr, pin::Pin, sync::Arc, time::Duration};

use base64::Engine as _;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Version, header};
use http_body_util::{BodyExt as _, Empty};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use talkline_auth::{Scheme, Sealed};
use talkline_dialect::{
    HandshakeFault, Phase, Refusal, TcpFault, TlsFault, UpstreamAnswer, UpstreamRequest,
};
use talkline_relay::Leg;
use talkline_tls::TlsStream;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};

use crate::direct::Direct;
use crate::handshake::{accept, lists};
use crate::sockets::SocketOptions;

/// Bytes of an answer's status line and headers.
const ANSWER_HEAD_BYTES_MAX: usize = 16 * 1024;
/// Bytes of a refusal's body that are read.
const REFUSAL_BODY_BYTES_MAX: usize = 64 * 1024;
/// Time for reading a refusal's body.
const REFUSAL_BODY_TIMEOUT: Duration = Duration::from_secs(2);
/// Head start of one address before the next is tried beside it (RFC 8305 section 5).
const NEXT_ADDRESS_DELAY: Duration = Duration::from_millis(250);
/// Addresses of one host that are tried.
const ADDRESSES_MAX: usize = 8;

/// Deadlines of the phases of reaching an upstream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DialTimeouts {
    pub(crate) dns: Duration,
    pub(crate) tcp: Duration,
    pub(crate) tls: Duration,
    pub(crate) upgrade: Duration,
}

/// An address that stands in for a name's, for tests of the real binary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolveOverride {
    /// The host name it stands in for.
    pub host: String,
    /// The port it stands in for.
    pub port: u16,
    /// Where connections go instead. Always loopback.
    address: SocketAddr,
}

impl ResolveOverride {
    /// Reads `host:port:address`, where the address is `ip:port` on loopback, as in
    /// `api.openai.com:443:127.0.0.1:9443`.
    ///
    /// # Errors
    ///
    /// A sentence that says what is wrong. An address beyond loopback is refused: an override must
    /// not be a way of sending a credential elsewhere.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parts = text.splitn(3, ':');
        let (Some(host), Some(port), Some(address)) = (parts.next(), parts.next(), parts.next())
        else {
            return Err(format!("`{text}` is not host:port:ip:port"));
        };
        let port = port
            .parse()
            .map_err(|_| format!("`{port}` is not a port"))?;
        let address: SocketAddr = address
            .parse()
            .map_err(|_| format!("`{address}` is not ip:port"))?;
        if !address.ip().is_loopback() {
            return Err(format!("`{address}` is not a loopback address"));
        }
        Ok(Self {
            host: host.to_ascii_lowercase(),
            port,
            address,
        })
    }

    /// Where connections go instead: a loopback address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// An upstream's byte stream after the handshake, with the bytes that came behind its 101.
#[derive(Debug)]
pub(crate) enum Upstream {
    Plain(Leg<Direct>),
    Tls(Leg<Box<TlsStream<Direct>>>),
}

/// What is known of a dialled upstream beside its stream.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answer {
    pub(crate) request_id: Option<String>,
    pub(crate) region: Option<String>,
    pub(crate) phases: Phases,
}

/// How long each phase of reaching an upstream took; zero where there was none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Phases {
    pub(crate) dns: Duration,
    pub(crate) tcp: Duration,
    pub(crate) tls: Duration,
    pub(crate) upgrade: Duration,
}

/// Whether the upgrade request carries the credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presenting {
    /// The target's own, and no other.
    Credential,
    /// Nothing: a probe of what an upstream says to strangers.
    Nothing,
}

/// What an exchange of the upgrade showed, whether or not it succeeded.
#[derive(Clone, Debug, Default)]
pub(crate) struct Observed {
    /// HTTP status of the answer.
    pub(crate) status: Option<u16>,
    /// The answer's `Date`.
    pub(crate) date: Option<String>,
}

/// Runs one phase and notes how long it took.
async fn timed<T>(took: &mut Duration, phase: impl Future<Output = T>) -> T {
    let started = Instant::now();
    let outcome = phase.await;
    *took = started.elapsed();
    outcome
}

/// Opens sessions with upstreams.
#[derive(Clone)]
pub(crate) struct Dialer {
    tls: Arc<rustls::ClientConfig>,
    timeouts: DialTimeouts,
    overrides: Arc<[ResolveOverride]>,
    sockets: SocketOptions,
    /// All phases together.
    dial_time_max: Option<Duration>,
}

impl Dialer {
    pub(crate) fn new(
        tls: Arc<rustls::ClientConfig>,
        timeouts: DialTimeouts,
        overrides: Vec<ResolveOverride>,
    ) -> Self {
        Self {
            tls,
            timeouts,
            overrides: overrides.into(),
            sockets: SocketOptions::default(),
            dial_time_max: None,
        }
    }

    /// Bounds all phases together as well. Which of them is said to have taken too long is the one that
    /// the time ran out in.
    pub(crate) fn within(self, dial_time_max: Duration) -> Self {
        Self {
            dial_time_max: Some(dial_time_max),
            ..self
        }
    }

    /// As this one, for phases that have to be over by a deadline.
    fn by(&self, deadline: Option<Instant>) -> Self {
        let left = deadline.map_or(Duration::MAX, |deadline| {
            deadline.saturating_duration_since(Instant::now())
        });
        let DialTimeouts {
            dns,
            tcp,
            tls,
            upgrade,
        } = self.timeouts;
        Self {
            timeouts: DialTimeouts {
                dns: dns.min(left),
                tcp: tcp.min(left),
                tls: tls.min(left),
                upgrade: upgrade.min(left),
            },
            ..self.clone()
        }
    }

    /// Dials with other sockets than the kernel's own.
    pub(crate) fn with_sockets(self, sockets: SocketOptions) -> Self {
        Self { sockets, ..self }
    }

    /// Reaches the upstream that the request names.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes whatever was open.
    pub(crate) async fn dial(
        &self,
        request: &UpstreamRequest,
    ) -> Result<(Upstream, Answer), Refusal> {
        let deadline = self.dial_time_max.map(|longest| Instant::now() + longest);
        let target = request.target();
        let mut phases = Phases::default();
        let addresses = timed(&mut phases.dns, self.by(deadline).resolve(target)).await?;
        let tcp = timed(&mut phases.tcp, self.by(deadline).connect(addresses)).await?;
        let (upstream, mut answer) = match target.scheme() {
            Scheme::Plain => {
                let dialer = self.by(deadline);
                let upgrade = dialer.upgrade(tcp, request);
                let (leg, answer) = timed(&mut phases.upgrade, upgrade).await?;
                (Upstream::Plain(leg), answer)
            }
            Scheme::Tls => {
                let dialer = self.by(deadline);
                let handshake = dialer.handshake(target, tcp);
                let tls = Box::new(timed(&mut phases.tls, handshake).await?);
                let dialer = self.by(deadline);
                let upgrade = dialer.upgrade(tls, request);
                let (leg, answer) = timed(&mut phases.upgrade, upgrade).await?;
                (Upstream::Tls(leg), answer)
            }
        };
        answer.phases = phases;
        Ok((upstream, answer))
    }

    /// The addresses of the target's name.
    pub(crate) async fn resolve(&self, target: &Sealed) -> Result<Vec<SocketAddr>, Refusal> {
        self.resolve_name(target.host(), target.port()).await
    }

    /// The addresses of a name. Nothing that carries a credential is sent by name alone: see
    /// [`Self::resolve`].
    pub(crate) async fn resolve_name(
        &self,
        host: &str,
        port: u16,
    ) -> Result<Vec<SocketAddr>, Refusal> {
        if let Some(found) = self
            .overrides
            .iter()
            .find(|o| o.host == host && o.port == port)
        {
            return Ok(vec![found.address]);
        }
        let lookup = timeout(self.timeouts.dns, tokio::net::lookup_host((host, port))).await;
        let addresses: Vec<_> = lookup
            .map_err(|_| Refusal::TimedOut(Phase::Dns))?
            .map_err(|error| Refusal::Failed(Phase::Dns, error.to_string()))?
            .take(ADDRESSES_MAX)
            .collect();
        if addresses.is_empty() {
            return Err(Refusal::Failed(
                Phase::Dns,
                "the name has no address".into(),
            ));
        }
        Ok(addresses)
    }

    /// Tries the addresses in order, each a little after the one before, until one answers.
    pub(crate) async fn connect(&self, addresses: Vec<SocketAddr>) -> Result<Direct, Refusal> {
        let deadline = Instant::now() + self.timeouts.tcp;
        let sockets = self.sockets;
        let mut waiting = addresses.into_iter();
        // Dropping the set aborts the attempts that lost.
        let mut attempts = JoinSet::new();
        let mut last_error = None;
        // Started here and not by the timer below, which is late by up to its millisecond.
        let mut start_next = |attempts: &mut JoinSet<_>| {
            if let Some(address) = waiting.next() {
                attempts.spawn(sockets.connect(address));
            }
            (Instant::now() + NEXT_ADDRESS_DELAY, waiting.len() > 0)
        };
        let (mut next_start, mut has_next) = start_next(&mut attempts);
        loop {
            tokio::select! {
                biased;
                Some(ended) = attempts.join_next() => match ended {
                    Ok(Ok(stream)) => return Ok(Direct::new(stream)),
                    Ok(Err(error)) => {
                        last_error = Some(error);
                        (next_start, has_next) = start_next(&mut attempts);
                    }
                    Err(aborted) => last_error = Some(io::Error::other(aborted)),
                },
                () = sleep_until(next_start), if has_next => {
                    (next_start, has_next) = start_next(&mut attempts);
                }
                () = sleep_until(deadline) => return Err(Refusal::TimedOut(Phase::Tcp)),
            }
            if attempts.is_empty() && !has_next {
                return Err(last_error.map_or_else(
                    || Refusal::Failed(Phase::Tcp, "no address left".into()),
                    |error| tcp_refusal(&error),
                ));
            }
        }
    }

    /// The TLS handshake under the target's name.
    pub(crate) async fn handshake(
        &self,
        target: &Sealed,
        tcp: Direct,
    ) -> Result<TlsStream<Direct>, Refusal> {
        self.handshake_name(target.host(), tcp).await
    }

    /// The TLS handshake under a name.
    pub(crate) async fn handshake_name(
        &self,
        host: &str,
        tcp: Direct,
    ) -> Result<TlsStream<Direct>, Refusal> {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|error| Refusal::Failed(Phase::Tls, error.to_string()))?;
        let handshake = TlsStream::connect(Arc::clone(&self.tls), name, tcp);
        timeout(self.timeouts.tls, handshake)
            .await
            .map_err(|_| Refusal::TimedOut(Phase::Tls))?
            .map_err(|error| Refusal::Tls(tls_fault(&error), error.to_string()))
    }

    async fn upgrade<IO>(
        &self,
        io: IO,
        request: &UpstreamRequest,
    ) -> Result<(Leg<IO>, Answer), Refusal>
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        self.exchange(
            io,
            request,
            Presenting::Credential,
            &mut Observed::default(),
        )
        .await
    }

    /// Sends the upgrade request and reads the answer, noting what it showed on the way.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the connection.
    pub(crate) async fn exchange<IO>(
        &self,
        io: IO,
        request: &UpstreamRequest,
        presenting: Presenting,
        observed: &mut Observed,
    ) -> Result<(Leg<IO>, Answer), Refusal>
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let deadline = Instant::now() + self.timeouts.upgrade;
        let failed = |error: hyper::Error| Refusal::Failed(Phase::Upgrade, with_sources(&error));
        let key = new_key();
        let (mut sender, connection) = http1::Builder::new()
            .max_header_size(ANSWER_HEAD_BYTES_MAX)
            .handshake(TokioIo::new(io))
            .await
            .map_err(failed)?;
        let mut driver = Driver::new(connection.with_upgrades());

        let response = driver.until(
            deadline,
            sender.send_request(upgrade_request(request, presenting, &key)?),
        );
        let response = response
            .await
            .ok_or(Refusal::TimedOut(Phase::Upgrade))?
            .map_err(failed)?;
        observed.status = Some(response.status().as_u16());
        observed.date = text(response.headers(), "date");
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            let (parts, body) = response.into_parts();
            let mut read = BytesMut::new();
            // A body that does not end in time is judged by what came of it.
            driver
                .until(
                    Instant::now() + REFUSAL_BODY_TIMEOUT,
                    read_refusal(body, &mut read),
                )
                .await;
            let headers = parts
                .headers
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_bytes()));
            let answer = UpstreamAnswer::new(parts.status.as_u16(), headers, read.into());
            return Err(Refusal::Answered(answer));
        }
        check_switch(&response, &key).map_err(Refusal::BadHandshake)?;
        let answer = Answer {
            request_id: text(response.headers(), "apim-request-id")
                .or_else(|| text(response.headers(), "x-request-id")),
            region: text(response.headers(), "x-ms-region"),
            phases: Phases::default(),
        };
        let upgraded = driver.until(deadline, hyper::upgrade::on(response));
        let upgraded = upgraded
            .await
            .ok_or(Refusal::TimedOut(Phase::Upgrade))?
            .map_err(failed)?;
        let parts = upgraded
            .downcast::<TokioIo<IO>>()
            .map_err(|_| Refusal::Failed(Phase::Upgrade, "the stream changed its type".into()))?;
        // hyper's buffer is usually empty but pins 8 KiB for the session's life: copy what it holds.
        let early = Bytes::copy_from_slice(&parts.read_buf);
        Ok((
            Leg {
                io: parts.io.into_inner(),
                early,
            },
            answer,
        ))
    }
}

pub(crate) fn tcp_refusal(error: &io::Error) -> Refusal {
    let fault = match error.kind() {
        // The operating system gave up before the deadline.
        io::ErrorKind::TimedOut => return Refusal::TimedOut(Phase::Tcp),
        io::ErrorKind::ConnectionRefused => TcpFault::Refused,
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => TcpFault::Unreachable,
        _ => TcpFault::Other,
    };
    Refusal::Tcp(fault, error.to_string())
}

pub(crate) fn tls_fault(error: &io::Error) -> TlsFault {
    use rustls::CertificateError as Certificate;

    let cause = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match cause {
        Some(rustls::Error::InvalidCertificate(certificate)) => match certificate {
            Certificate::Expired | Certificate::ExpiredContext { .. } => TlsFault::Expired,
            Certificate::NotValidYet | Certificate::NotValidYetContext { .. } => {
                TlsFault::NotYetValid
            }
            Certificate::NotValidForName | Certificate::NotValidForNameContext { .. } => {
                TlsFault::WrongName
            }
            // A bad signature is an unknown authority that bears a known one's name.
            Certificate::UnknownIssuer | Certificate::BadSignature => TlsFault::UnknownCa,
            _ => TlsFault::Certificate,
        },
        Some(rustls::Error::InvalidMessage(_)) => TlsFault::NotTls,
        _ => TlsFault::Other,
    }
}

fn upgrade_request(
    request: &UpstreamRequest,
    presenting: Presenting,
    key: &str,
) -> Result<Request<Empty<Bytes>>, Refusal> {
    let target = request.target();
    let mut builder = Request::get(target.path_and_query())
        .version(Version::HTTP_11)
        .header(header::HOST, target.authority())
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_VERSION, "13")
        .header(header::SEC_WEBSOCKET_KEY, key);
    let authentication = match presenting {
        Presenting::Credential => target.authentication(),
        Presenting::Nothing => None,
    };
    if let Some((name, secret)) = authentication {
        let mut value = HeaderValue::from_str(secret.expose()).map_err(|_| {
            Refusal::Failed(
                Phase::Upgrade,
                "the configured credential has characters that no header may have".into(),
            )
        })?;
        value.set_sensitive(true);
        builder = builder.header(name, value);
    }
    for (name, value) in request.headers() {
        builder = builder.header(*name, value);
    }
    builder
        .body(Empty::new())
        .map_err(|error| Refusal::Failed(Phase::Upgrade, error.to_string()))
}

/// hyper's connection, which has to be polled for anything to happen on it.
pub(crate) struct Driver<C> {
    connection: Pin<Box<C>>,
    ended: bool,
}

impl<C: Future> Driver<C> {
    pub(crate) fn new(connection: C) -> Self {
        Self {
            connection: Box::pin(connection),
            ended: false,
        }
    }

    /// Polls the connection beside `wanted`. `None` when the deadline comes first.
    ///
    /// A connection that ends tells whoever waits for something on it, so `wanted` ends as well.
    pub(crate) async fn until<F: Future>(
        &mut self,
        deadline: Instant,
        wanted: F,
    ) -> Option<F::Output> {
        tokio::pin!(wanted);
        loop {
            tokio::select! {
                biased;
                output = &mut wanted => return Some(output),
                _ = &mut self.connection, if !self.ended => self.ended = true,
                () = sleep_until(deadline) => return None,
            }
        }
    }
}

async fn read_refusal(mut body: Incoming, read: &mut BytesMut) {
    while let Some(Ok(frame)) = body.frame().await {
        let Some(data) = frame.data_ref() else {
            continue;
        };
        let room = REFUSAL_BODY_BYTES_MAX - read.len();
        read.extend_from_slice(&data[..data.len().min(room)]);
        if read.len() == REFUSAL_BODY_BYTES_MAX {
            break;
        }
    }
}

/// RFC 6455 section 4.1, "the client MUST validate the server's response".
fn check_switch<B>(response: &Response<B>, key: &str) -> Result<(), HandshakeFault> {
    let headers = response.headers();
    let switches = lists(headers, &header::UPGRADE, "websocket")
        && lists(headers, &header::CONNECTION, "upgrade");
    if !switches {
        return Err(HandshakeFault::NotAnUpgrade);
    }
    let mut accepts = headers.get_all(header::SEC_WEBSOCKET_ACCEPT).iter();
    let expected = accept(key);
    match (accepts.next(), accepts.next()) {
        (Some(accept), None) if accept.as_bytes() == expected.as_bytes() => {}
        _ => return Err(HandshakeFault::WrongAccept),
    }
    if headers.contains_key(header::SEC_WEBSOCKET_EXTENSIONS) {
        return Err(HandshakeFault::UnrequestedExtension);
    }
    if headers.contains_key(header::SEC_WEBSOCKET_PROTOCOL) {
        return Err(HandshakeFault::UnrequestedSubprotocol);
    }
    Ok(())
}

fn new_key() -> String {
    let mut nonce = [0; 16];
    getrandom::fill(&mut nonce).expect("the operating system has randomness");
    base64::engine::general_purpose::STANDARD.encode(nonce)
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    let value = headers.get(name)?.to_str().ok()?;
    Some(value.chars().take(80).collect())
}

/// An error with its causes: hyper's own text is only "client error".
fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod hostile;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overrides_stay_on_loopback() {
        let parsed = ResolveOverride::parse("API.openai.com:443:127.0.0.1:9443").unwrap();
        assert_eq!((parsed.host.as_str(), parsed.port), ("api.openai.com", 443));
        assert_eq!(parsed.address, "127.0.0.1:9443".parse().unwrap());
        assert!(ResolveOverride::parse("a:1:[::1]:2").is_ok());
        for bad in [
            "a",
            "a:1",
            "a:b:127.0.0.1:1",
            "a:1:127.0.0.1",
            "a:1:10.0.0.1:1",
            "a:1:8.8.8.8:443",
        ] {
            assert!(ResolveOverride::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_switch_is_checked() {
        // The example of RFC 6455 section 1.3.
        let key = "dGhlIHNhbXBsZSBub25jZQ==";
        let good = [
            ("upgrade", "WebSocket"),
            ("connection", "keep-alive, Upgrade"),
            ("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
        ];
        let check = |change: (&str, &str), expected| {
            let mut response = Response::builder().status(101);
            for (name, value) in good {
                if name != change.0 {
                    response = response.header(name, value);
                }
            }
            if !change.1.is_empty() {
                response = response.header(change.0, change.1);
            }
            assert_eq!(
                check_switch(&response.body(()).unwrap(), key),
                expected,
                "{change:?}"
            );
        };
        check(("x", ""), Ok(()));
        check(("upgrade", ""), Err(HandshakeFault::NotAnUpgrade));
        check(("connection", "close"), Err(HandshakeFault::NotAnUpgrade));
        check(
            ("sec-websocket-accept", ""),
            Err(HandshakeFault::WrongAccept),
        );
        check(
            ("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOp="),
            Err(HandshakeFault::WrongAccept),
        );
        check(
            ("sec-websocket-extensions", "permessage-deflate"),
            Err(HandshakeFault::UnrequestedExtension),
        );
        check(
            ("sec-websocket-protocol", "realtime"),
            Err(HandshakeFault::UnrequestedSubprotocol),
        );
    }
}
