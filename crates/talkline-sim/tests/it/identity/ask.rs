//! A small HTTP client: one request, the whole answer, nothing interpreted.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use serde_json::Value;
use talkline_sim::identity::{Jwt, TestCa};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::bench::DEADLINE;

/// An answer, taken apart.
#[derive(Debug)]
pub(super) struct Heard {
    pub(super) status: u16,
    pub(super) head: String,
    pub(super) body: String,
}

impl Heard {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self
            .head
            .lines()
            .skip(1)
            .filter_map(|line| line.split_once(": "));
        lines
            .find(|(each, _)| each.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// The claims of the token in the body.
    pub(super) fn claims(&self) -> Value {
        assert_eq!(self.status, 200, "{self:?}");
        Jwt::decode(self.json()["access_token"].as_str().unwrap())
            .unwrap()
            .claims
    }
}

/// Sends a request with `Connection: close` added and hears the answer to its end; `None` if the connection ended
/// without one.
pub(super) async fn ask<S>(mut stream: S, request: &str) -> Option<Heard>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    send(&mut stream, request).await;
    let mut all = Vec::new();
    // TLS without a close_notify is an error, and no answer.
    let _ = stream.read_to_end(&mut all).await;
    let text = String::from_utf8(all).unwrap();
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Some(Heard {
        status,
        head: head.to_owned(),
        body: body.to_owned(),
    })
}

pub(super) async fn send<S: AsyncWrite + Unpin>(stream: &mut S, request: &str) {
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    let whole = format!("{head}\r\nConnection: close\r\n\r\n{body}");
    // A fake that closes at once may do so before this is written.
    let _ = stream.write_all(whole.as_bytes()).await;
    let _ = stream.flush().await;
}

pub(super) async fn plain(address: SocketAddr, request: &str) -> Heard {
    let asked = async { ask(TcpStream::connect(address).await.unwrap(), request).await };
    timeout(DEADLINE, asked).await.unwrap().unwrap()
}

pub(super) async fn secure(address: SocketAddr, ca: &TestCa, name: &str, request: &str) -> Heard {
    let asked = async {
        let stream = TcpStream::connect(address).await.unwrap();
        ask(tls(stream, ca, name).await.unwrap(), request).await
    };
    timeout(DEADLINE, asked).await.unwrap().unwrap()
}

/// TLS on a stream, to a server of that name, trusting that authority alone.
pub(super) async fn tls<S>(
    stream: S,
    ca: &TestCa,
    name: &str,
) -> std::io::Result<tokio_rustls::client::TlsStream<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut roots = RootCertStore::empty();
    roots.add(ca.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
}

/// A form as the body of a POST.
pub(super) fn post(path: &str, host: &str, form: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/x-www-form-urlencoded\r\n\
         Content-Length: {}\r\n\r\n{form}",
        form.len()
    )
}
