//! The upgrade request, and a strict reading of its answer (RFC 6455, section 4.1).

use std::io;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::BytesMut;
use hyper::Uri;
use hyper::header::{HeaderName, HeaderValue};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, lookup_host};
use tokio_rustls::TlsConnector;

use super::{CONNECTING, Call, CallError, Dialect, RESOLVING, SECURING};
use crate::ids;
use crate::ws;

/// Longest head of an answer.
const HEAD_BYTES_MAX: usize = 32 << 10;
/// Most headers of an answer.
const HEADERS_MAX: usize = 100;
/// Longest body of a refusal that is kept.
const BODY_BYTES_MAX: usize = 16 << 10;

/// A byte stream in both directions.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// An upgraded connection, and the frames that came with the 101.
pub(super) struct Upgraded {
    pub(super) stream: Box<dyn Stream>,
    pub(super) first_bytes: BytesMut,
}

/// Connects and upgrades. Unbounded in time: the caller has the deadline.
pub(super) async fn upgrade(call: &Call) -> Result<Upgraded, CallError> {
    let target = Target::parse(&call.url)?;
    let key = STANDARD.encode(ids::random::<16>());
    let request = request(call, &target, &key)?;
    let mut stream = connect(call, &target).await?;
    let broken = |doing| move |source| CallError::Connection { doing, source };
    let sent = async {
        stream.write_all(request.as_bytes()).await?;
        stream.flush().await
    };
    sent.await.map_err(broken("sending the upgrade request"))?;
    let mut buffer = BytesMut::new();
    let head = loop {
        let head = read_head(&mut stream, &mut buffer).await?;
        // RFC 9110, section 15.2: interim answers come before the real one.
        if !(100..200).contains(&head.status) || head.status == 101 {
            break head;
        }
    };
    if head.status != 101 {
        return Err(refused(head, &mut stream, buffer).await);
    }
    check_switch(&head, call, &key)?;
    Ok(Upgraded {
        stream,
        first_bytes: buffer,
    })
}

/// A WebSocket URL in parts.
struct Target {
    secure: bool,
    host: String,
    port: u16,
    /// Host and port as in the URL.
    authority: String,
    path_and_query: String,
}

impl Target {
    fn parse(url: &str) -> Result<Self, CallError> {
        let unusable =
            |what: &str| CallError::Unusable(format!("{what}: {}", super::redacted(url)));
        let uri: Uri = url.parse().map_err(|_| unusable("not a URL"))?;
        let secure = match uri.scheme_str() {
            Some("ws") => false,
            Some("wss") => true,
            _ => return Err(unusable("not a ws:// or wss:// URL")),
        };
        let authority = uri.authority().ok_or_else(|| unusable("no host"))?;
        if authority.as_str().contains('@') {
            // The message leaves the URL out, since it holds a password.
            return Err(CallError::Unusable(
                "user and password in the URL".to_owned(),
            ));
        }
        let host = authority
            .host()
            .trim_start_matches('[')
            .trim_end_matches(']');
        Ok(Self {
            secure,
            host: host.to_owned(),
            port: authority
                .port_u16()
                .unwrap_or(if secure { 443 } else { 80 }),
            authority: authority.as_str().to_owned(),
            path_and_query: uri
                .path_and_query()
                .map_or("/", |pq| pq.as_str())
                .to_owned(),
        })
    }
}

fn request(call: &Call, target: &Target, key: &str) -> Result<String, CallError> {
    let mut lines = vec![
        format!("GET {} HTTP/1.1", target.path_and_query),
        format!("Host: {}", target.authority),
        "Connection: Upgrade".to_owned(),
        "Upgrade: websocket".to_owned(),
        "Sec-WebSocket-Version: 13".to_owned(),
        format!("Sec-WebSocket-Key: {key}"),
    ];
    if !call.subprotocols.is_empty() {
        let offered: Vec<&str> = call.subprotocols.iter().map(|each| each.expose()).collect();
        lines.push(header("Sec-WebSocket-Protocol", &offered.join(", "))?);
    }
    if let Some(bearer) = &call.bearer {
        lines.push(header(
            "Authorization",
            &format!("Bearer {}", bearer.expose()),
        )?);
    }
    if call.dialect == Dialect::Preview {
        lines.push("OpenAI-Beta: realtime=v1".to_owned());
    }
    for (name, value) in &call.headers {
        lines.push(header(name, value.expose())?);
    }
    Ok(lines.join("\r\n") + "\r\n\r\n")
}

/// A header line, if neither part could end it early. The value is not repeated: it may be a credential.
fn header(name: &str, value: &str) -> Result<String, CallError> {
    let proper = HeaderName::from_bytes(name.as_bytes()).is_ok()
        && HeaderValue::from_str(value).is_ok_and(|value| value.to_str().is_ok());
    if !proper {
        return Err(CallError::Unusable(format!(
            "the header {name:?} cannot be sent"
        )));
    }
    Ok(format!("{name}: {value}"))
}

async fn connect(call: &Call, target: &Target) -> Result<Box<dyn Stream>, CallError> {
    let broken = |doing| move |source| CallError::Connection { doing, source };
    let addresses: Vec<_> = lookup_host((target.host.as_str(), target.port))
        .await
        .map_err(broken(RESOLVING))?
        .collect();
    let tcp = TcpStream::connect(addresses.as_slice())
        .await
        .map_err(broken(CONNECTING))?;
    tcp.set_nodelay(true).map_err(broken(CONNECTING))?;
    if !target.secure {
        return Ok(Box::new(tcp));
    }
    let config = call
        .tls
        .as_ref()
        .ok_or_else(|| CallError::Unusable("a wss:// URL needs a TLS configuration".to_owned()))?;
    let name = ServerName::try_from(target.host.clone())
        .map_err(|_| CallError::Unusable("the host is no name for TLS".to_owned()))?;
    let tls = TlsConnector::from(Arc::clone(config))
        .connect(name, tcp)
        .await
        .map_err(broken(SECURING))?;
    Ok(Box::new(tls))
}

/// An answer's head.
struct Head {
    status: u16,
    headers: Vec<(String, String)>,
}

impl Head {
    /// All values of a header, given in lower case.
    fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        let found = self.headers.iter().filter(move |(each, _)| each == name);
        found.map(|(_, value)| value.as_str())
    }

    fn has_token(&self, name: &str, token: &str) -> bool {
        let mut tokens = self.all(name).flat_map(|value| value.split(','));
        tokens.any(|each| each.trim().eq_ignore_ascii_case(token))
    }
}

/// Reads a head and leaves what follows it in the buffer.
async fn read_head(stream: &mut Box<dyn Stream>, buffer: &mut BytesMut) -> Result<Head, CallError> {
    loop {
        let mut storage = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut response = httparse::Response::new(&mut storage);
        let parsed = response
            .parse(buffer)
            .map_err(|error| CallError::Protocol(format!("the answer is not HTTP: {error}")))?;
        if let httparse::Status::Complete(length) = parsed {
            let headers = response.headers.iter().map(|each| {
                let value = String::from_utf8_lossy(each.value).into_owned();
                (each.name.to_ascii_lowercase(), value)
            });
            let head = Head {
                status: response.code.unwrap_or_default(),
                headers: headers.collect(),
            };
            let _ = buffer.split_to(length);
            return Ok(head);
        }
        if buffer.len() > HEAD_BYTES_MAX {
            return Err(CallError::Protocol(
                "the answer's head is too long".to_owned(),
            ));
        }
        if read(stream, buffer).await? == 0 {
            return Err(CallError::Closed {
                code: 1006,
                reason: "the connection ended before the upgrade was answered".to_owned(),
            });
        }
    }
}

async fn read(stream: &mut Box<dyn Stream>, buffer: &mut BytesMut) -> Result<usize, CallError> {
    stream
        .read_buf(buffer)
        .await
        .map_err(|source: io::Error| CallError::Connection {
            doing: "reading the answer to the upgrade",
            source,
        })
}

/// RFC 6455, section 4.1, "If the response …": every condition on a 101.
fn check_switch(head: &Head, call: &Call, key: &str) -> Result<(), CallError> {
    let breach = |what: &str| Err(CallError::Protocol(what.to_owned()));
    if !head.has_token("upgrade", "websocket") || !head.has_token("connection", "upgrade") {
        return breach("the 101 does not upgrade to websocket");
    }
    if head
        .all("sec-websocket-accept")
        .ne([ws::accept_for(key).as_str()])
    {
        return breach("Sec-WebSocket-Accept does not answer the key");
    }
    if head.all("sec-websocket-extensions").next().is_some() {
        return breach("an extension was chosen that was not offered");
    }
    let chosen: Vec<&str> = head.all("sec-websocket-protocol").collect();
    let offered = |chosen: &str| call.subprotocols.iter().any(|each| each.expose() == chosen);
    match chosen.as_slice() {
        [] if call.subprotocols.is_empty() => Ok(()),
        [] => breach("no subprotocol was chosen"),
        [one] if offered(one) => Ok(()),
        _ => breach("a subprotocol was chosen that was not offered"),
    }
}

/// Reads the body of a refusal, as far as it comes; the refusal counts, however its body ends.
async fn refused(head: Head, stream: &mut Box<dyn Stream>, mut buffer: BytesMut) -> CallError {
    let length = head
        .all("content-length")
        .next()
        .and_then(|text| text.parse::<usize>().ok());
    let chunked = head.has_token("transfer-encoding", "chunked");
    let enough = |buffer: &BytesMut| match length {
        Some(length) if !chunked => buffer.len() >= length.min(BODY_BYTES_MAX),
        _ if chunked => buffer.ends_with(b"0\r\n\r\n") || buffer.len() >= BODY_BYTES_MAX,
        _ => buffer.len() >= BODY_BYTES_MAX,
    };
    while !enough(&buffer) && matches!(read(stream, &mut buffer).await, Ok(1..)) {}
    let mut body = if chunked {
        dechunked(&buffer)
    } else {
        buffer.to_vec()
    };
    body.truncate(
        length
            .filter(|_| !chunked)
            .unwrap_or(usize::MAX)
            .min(BODY_BYTES_MAX),
    );
    let kept = head
        .headers
        .into_iter()
        .filter(|(name, _)| name != "location");
    CallError::Refused {
        status: head.status,
        headers: kept.collect(),
        body: String::from_utf8_lossy(&body).into_owned(),
    }
}

/// The chunks of a body (RFC 9112, section 7.1), as many as are whole.
fn dechunked(mut rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Ok(httparse::Status::Complete((start, size))) = httparse::parse_chunk_size(rest) {
        let end = usize::try_from(size)
            .ok()
            .and_then(|size| start.checked_add(size));
        let Some(chunk) = end
            .filter(|_| size > 0)
            .and_then(|end| rest.get(start..end))
        else {
            break;
        };
        body.extend_from_slice(chunk);
        rest = rest.get(start + chunk.len() + 2..).unwrap_or_default();
    }
    body
}
