//! Reads one request head under a deadline and a size cap, and refuses what is not strict HTTP/1.1.
//!
//! hyper parses the head again afterwards and serves it. It is more lenient than a credential-holding
//! relay may be: it takes lone line feeds as line ends, and its header deadline restarts with the
//! connection. Reading the head first makes both the deadline and the caps exact, and one request a
//! connection leaves a desynchronised peer nothing to smuggle into.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf, Bytes, BytesMut};
use http::StatusCode;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use crate::refusal::HttpRefusal;

/// Bounds on a request head.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HeadLimits {
    /// Request line and header lines together, in bytes.
    pub(crate) head_bytes_max: usize,
    /// Header lines.
    pub(crate) headers_max: usize,
    /// Request target, in bytes.
    pub(crate) target_bytes_max: usize,
}

/// Why there is no request head to serve.
#[derive(Debug)]
pub(crate) enum HeadError {
    /// The peer went away or reading failed; there is nobody to answer.
    Gone,
    /// The bytes are not a request that is served; the peer is told why.
    Refused(HttpRefusal),
}

/// Reads up to the end of a request head and checks it.
///
/// Returns every byte that was read: the head, and whatever came in the same segments behind it.
///
/// # Cancel safety
///
/// Not cancel safe: bytes read so far are lost. Dropped only together with the connection.
pub(crate) async fn read_head<IO>(io: &mut IO, limits: HeadLimits) -> Result<Bytes, HeadError>
where
    IO: AsyncRead + Unpin,
{
    let mut buffer = BytesMut::with_capacity(2048);
    let mut searched = 0;
    loop {
        let read = io
            .read_buf(&mut buffer)
            .await
            .map_err(|_| HeadError::Gone)?;
        if read == 0 {
            return Err(HeadError::Gone);
        }
        // A TLS hello or a binary protocol shows in its first byte; waiting for a blank line that
        // never comes would only hold the connection open.
        if !buffer[0].is_ascii_alphabetic() {
            return Err(malformed("the bytes are not an HTTP request"));
        }
        if let Some(end) = find_end(&buffer, searched) {
            check_head(&buffer[..end], buffer.len() > end, limits).map_err(HeadError::Refused)?;
            return Ok(buffer.freeze());
        }
        check_unfinished(&buffer, limits).map_err(HeadError::Refused)?;
        searched = buffer.len().saturating_sub(3);
    }
}

fn malformed(message: &'static str) -> HeadError {
    HeadError::Refused(HttpRefusal::new(
        StatusCode::BAD_REQUEST,
        "malformed_request",
        message,
    ))
}

/// Index after the blank line, looking from `from` on.
fn find_end(buffer: &[u8], from: usize) -> Option<usize> {
    let start = from.min(buffer.len());
    buffer[start..]
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .map(|at| start + at + 4)
}

fn check_unfinished(buffer: &[u8], limits: HeadLimits) -> Result<(), HttpRefusal> {
    let line_end = buffer
        .iter()
        .position(|byte| *byte == b'\n')
        .unwrap_or(buffer.len());
    // The method and the version stand beside the target in the first line.
    if line_end > limits.target_bytes_max + 64 {
        return Err(target_too_long(limits));
    }
    if buffer
        .windows(2)
        .any(|two| two[1] == b'\n' && two[0] != b'\r')
    {
        return Err(bare_line_feed());
    }
    if buffer.len() > limits.head_bytes_max {
        return Err(head_too_large(limits));
    }
    Ok(())
}

/// The grammar of RFC 9112 sections 2 to 5, without its leniencies.
fn check_head(head: &[u8], more_follows: bool, limits: HeadLimits) -> Result<(), HttpRefusal> {
    let bad = |message| HttpRefusal::new(StatusCode::BAD_REQUEST, "malformed_request", message);
    if head.len() > limits.head_bytes_max {
        let line_end = head.iter().position(|byte| *byte == b'\n').unwrap_or(0);
        let long_target = line_end > limits.target_bytes_max + 64;
        return Err(if long_target {
            target_too_long(limits)
        } else {
            head_too_large(limits)
        });
    }
    let mut previous = 0;
    for &byte in head {
        match byte {
            b'\n' if previous != b'\r' => return Err(bare_line_feed()),
            b'\n' | b'\r' | b'\t' => {}
            0..=31 | 127 => return Err(bad("the request head has control characters")),
            _ => {}
        }
        if previous == b'\r' && byte != b'\n' {
            return Err(bad("the request head has a lone carriage return"));
        }
        previous = byte;
    }
    let text = &head[..head.len() - 4];
    let mut lines = text
        .split(|byte| *byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let request_line = lines.next().unwrap_or_default();
    let method = check_request_line(request_line, limits)?;
    let mut fields = Fields::default();
    for line in lines {
        fields.check_line(line)?;
    }
    if fields.count > limits.headers_max {
        return Err(HttpRefusal::new(
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "too_many_headers",
            format!(
                "the request has more than {} header lines",
                limits.headers_max
            ),
        ));
    }
    if fields.hosts != 1 {
        return Err(bad("exactly one Host header is needed"));
    }
    if fields.transfer_encodings > 0 && fields.content_lengths > 0 {
        return Err(bad(
            "Content-Length and Transfer-Encoding exclude each other",
        ));
    }
    if fields.content_lengths > 1 || fields.transfer_encodings > 1 {
        return Err(bad("the body's length is given twice"));
    }
    let has_body = fields.content_lengths + fields.transfer_encodings > 0;
    if matches!(method, b"GET" | b"HEAD") && (has_body || more_follows) {
        return Err(bad(
            "a GET request ends with its head; nothing may follow before the answer",
        ));
    }
    Ok(())
}

fn check_request_line(line: &[u8], limits: HeadLimits) -> Result<&[u8], HttpRefusal> {
    let bad = |message| HttpRefusal::new(StatusCode::BAD_REQUEST, "malformed_request", message);
    let mut parts = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(bad("the request line is not `METHOD target HTTP/1.1`"));
    };
    if method.is_empty() || !method.iter().all(|byte| is_token(*byte)) {
        return Err(bad("the method is not a token"));
    }
    if target.len() > limits.target_bytes_max {
        return Err(target_too_long(limits));
    }
    if version != b"HTTP/1.1" {
        return Err(if version.starts_with(b"HTTP/") {
            HttpRefusal::new(
                StatusCode::HTTP_VERSION_NOT_SUPPORTED,
                "http_version",
                "only HTTP/1.1 is spoken here",
            )
        } else {
            bad("the request line does not end in a version")
        });
    }
    // Origin form only (RFC 9112 section 3.2.1): the target never names an authority here.
    let legal =
        |byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b'#' | b'"' | b'<' | b'>' | b'\\');
    if !target.starts_with(b"/") || !target.iter().all(legal) {
        return Err(bad("the request target is not a path"));
    }
    Ok(method)
}

#[derive(Default)]
struct Fields {
    count: usize,
    hosts: usize,
    content_lengths: usize,
    transfer_encodings: usize,
}

impl Fields {
    fn check_line(&mut self, line: &[u8]) -> Result<(), HttpRefusal> {
        let bad = |message| HttpRefusal::new(StatusCode::BAD_REQUEST, "malformed_request", message);
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            return Err(bad("a header line has no colon"));
        };
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        if name.is_empty() || !name.iter().all(|byte| is_token(*byte)) {
            return Err(bad("a header name is not a token"));
        }
        self.count += 1;
        if name.eq_ignore_ascii_case(b"host") {
            self.hosts += 1;
            if value.trim_ascii().is_empty() {
                return Err(bad("the Host header is empty"));
            }
        } else if name.eq_ignore_ascii_case(b"content-length") {
            self.content_lengths += 1;
            if !value.trim_ascii().iter().all(u8::is_ascii_digit) {
                return Err(bad("Content-Length is not a number"));
            }
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            self.transfer_encodings += 1;
        } else if name.eq_ignore_ascii_case(b"origin") {
            // Browsers never pad it. hyper trims the padding away, so it has to be seen here.
            let value = value.strip_prefix(b" ").unwrap_or(value);
            if value.iter().any(u8::is_ascii_whitespace) {
                return Err(HttpRefusal::origin_not_allowed());
            }
        }
        Ok(())
    }
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn bare_line_feed() -> HttpRefusal {
    HttpRefusal::new(
        StatusCode::BAD_REQUEST,
        "malformed_request",
        "lines of a request head end in CR LF",
    )
}

fn target_too_long(limits: HeadLimits) -> HttpRefusal {
    HttpRefusal::new(
        StatusCode::URI_TOO_LONG,
        "uri_too_long",
        format!(
            "the request target is longer than {} bytes",
            limits.target_bytes_max
        ),
    )
}

fn head_too_large(limits: HeadLimits) -> HttpRefusal {
    HttpRefusal::new(
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        "head_too_large",
        format!(
            "the request head is larger than {} bytes",
            limits.head_bytes_max
        ),
    )
}

/// A stream with some bytes put back in front of it.
#[derive(Debug)]
pub(crate) struct Rewound<IO> {
    front: Bytes,
    io: IO,
}

impl<IO> Rewound<IO> {
    pub(crate) fn new(front: Bytes, io: IO) -> Self {
        Self { front, io }
    }

    /// The stream, and the bytes in front of it that nobody has read.
    pub(crate) fn into_parts(self) -> (Bytes, IO) {
        (self.front, self.io)
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Rewound<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.front.is_empty() {
            return Pin::new(&mut self.io).poll_read(cx, buffer);
        }
        let count = self.front.len().min(buffer.remaining());
        buffer.put_slice(&self.front[..count]);
        self.front.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Rewound<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buffer)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: HeadLimits = HeadLimits {
        head_bytes_max: 1024,
        headers_max: 6,
        target_bytes_max: 128,
    };

    async fn check(request: &str, expected: &str) {
        // In one piece and byte by byte: where the segments end must not matter.
        for piece in [request.len().max(1), 1] {
            let (mut near, mut far) = tokio::io::duplex(4096);
            let bytes = request.as_bytes().to_vec();
            let writer = async move {
                for chunk in bytes.chunks(piece) {
                    if tokio::io::AsyncWriteExt::write_all(&mut near, chunk)
                        .await
                        .is_err()
                    {
                        break;
                    }
                }
            };
            let (_, read) = tokio::join!(writer, read_head(&mut far, LIMITS));
            let got = match read {
                Ok(bytes) => format!("{} bytes", bytes.len()),
                Err(HeadError::Gone) => "gone".to_owned(),
                Err(HeadError::Refused(refusal)) => refusal.status().as_u16().to_string(),
            };
            assert_eq!(got, expected, "{request:?} in pieces of {piece}");
        }
    }

    #[tokio::test]
    async fn heads() {
        let ok = "GET /v1/realtime?model=m HTTP/1.1\r\nHost: a\r\nX: \ty\r\n\r\n";
        check(ok, &format!("{} bytes", ok.len())).await;
        check("", "gone").await;
        check("GET / HTTP/1.1\r\nHost: a\r\n", "gone").await;
        check("\u{16}\u{3}\u{1}", "400").await;
        check("GET / HTTP/1.1\nHost: a\r\n\r\n", "400").await;
        check("GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n", "400").await;
        check("GET / HTTP/1.1\r\nHost: a\rX: y\r\n\r\n", "400").await;
        check("GET / HTTP/1.1\r\nHost: a\0\r\n\r\n", "400").await;
        check("GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n", "400").await;
        check("GET / HTTP/1.1\r\nHost : a\r\n\r\n", "400").await;
        check("GET / HTTP/1.1\r\nHost a\r\n\r\n", "400").await;
        check("GET / HTTP/1.1\r\n: a\r\n\r\n", "400").await;
        check("GET / HTTP/1.1\r\n\r\n", "400").await;
        check("GET / HTTP/1.1\r\nHost: \r\n\r\n", "400").await;
        check("GET / HTTP/1.1\r\nHost: a\r\nhost: b\r\n\r\n", "400").await;
        check("GET / HTTP/1.0\r\nHost: a\r\n\r\n", "505").await;
        check("GET /  HTTP/1.1\r\nHost: a\r\n\r\n", "400").await;
        check("GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n", "400").await;
        check("GET /#x HTTP/1.1\r\nHost: a\r\n\r\n", "400").await;
        check("GE(T / HTTP/1.1\r\nHost: a\r\n\r\n", "400").await;
        check(
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
            "400",
        )
        .await;
        check(
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
            "400",
        )
        .await;
        check(
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "400",
        )
        .await;
        check(
            &format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(128)),
            "414",
        )
        .await;
        check(
            &format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(2000)),
            "414",
        )
        .await;
        check(
            &format!(
                "GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n",
                "a".repeat(1024)
            ),
            "431",
        )
        .await;
        check(
            &format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(6)),
            "431",
        )
        .await;
        check(
            "GET / HTTP/1.1\r\nHost: a\r\nOrigin: https://a\t\r\n\r\n",
            "403",
        )
        .await;
    }

    #[tokio::test]
    async fn bytes_behind_the_head_are_refused() {
        let request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n\x81\x80";
        let mut reader = &request[..];
        assert!(matches!(
            read_head(&mut reader, LIMITS).await,
            Err(HeadError::Refused(_))
        ));
    }

    #[tokio::test]
    async fn rewound_bytes_come_first() {
        let mut stream = Rewound::new(
            Bytes::from_static(b"ab"),
            tokio::io::join(&b"cd"[..], tokio::io::sink()),
        );
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "abcd");
    }
}
