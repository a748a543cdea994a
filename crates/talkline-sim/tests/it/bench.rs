//! What the tests share: a simulator that replies at once, calls to it, and a raw connection.

use std::sync::Arc;
use std::time::Duration;

use rustls::{ClientConfig, RootCertStore, ServerConfig};
use talkline_sim::caller::{Call, Dialect, Secret, Speed, TurnOptions};
use talkline_sim::{Builder, DEFAULT_API_KEY, Pace, Running, Simulator};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longest wait of a test for anything.
pub(crate) const DEADLINE: Duration = Duration::from_secs(10);

pub(crate) fn fast() -> Builder {
    Simulator::builder().pace(Pace::Fast {
        delta_every: Duration::ZERO,
    })
}

pub(crate) fn options() -> TurnOptions {
    TurnOptions {
        speed: Speed::Fast,
        ..TurnOptions::default()
    }
}

/// The path and query of a deployment.
pub(crate) fn target(dialect: Dialect, deployment: &str) -> String {
    match dialect {
        Dialect::Ga => format!("/openai/v1/realtime?model={deployment}"),
        Dialect::Preview => {
            format!("/openai/realtime?api-version=2025-04-01-preview&deployment={deployment}")
        }
    }
}

/// A call with the simulator's key.
pub(crate) fn call(simulator: &Running, dialect: Dialect, deployment: &str) -> Call {
    let base = simulator.base_url().replacen("http", "ws", 1);
    let mut call = Call::new(base + &target(dialect, deployment));
    call.dialect = dialect;
    call.headers
        .push(("api-key".to_owned(), Secret::new(DEFAULT_API_KEY)));
    call
}

/// A certificate for the loopback address, and a client that trusts it.
pub(crate) fn tls() -> (Arc<ServerConfig>, Arc<ClientConfig>) {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let key = made.signing_key.serialize_der().try_into().unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (Arc::new(server), Arc::new(client))
}

/// A connection to write bytes on.
pub(crate) struct Raw(TcpStream);

impl Raw {
    pub(crate) async fn connect(simulator: &Running) -> Self {
        Self(TcpStream::connect(simulator.addr()).await.unwrap())
    }

    /// Sends an upgrade request with the simulator's key and these further lines.
    pub(crate) async fn upgrade(simulator: &Running, target: &str, lines: &[&str]) -> Self {
        let mut raw = Self::connect(simulator).await;
        let mut request = format!(
            "GET {target} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             api-key: {DEFAULT_API_KEY}\r\n",
            simulator.addr()
        );
        for line in lines {
            request.push_str(line);
            request.push_str("\r\n");
        }
        request.push_str("\r\n");
        raw.send(request.as_bytes()).await;
        raw
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        timeout(DEADLINE, self.0.write_all(bytes))
            .await
            .unwrap()
            .unwrap();
    }

    /// One read, as text.
    pub(crate) async fn read(&mut self) -> String {
        let mut buffer = vec![0; 64 << 10];
        let length = timeout(DEADLINE, self.0.read(&mut buffer))
            .await
            .unwrap()
            .unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    /// Exactly as many bytes as there are in `expected`, which must be those.
    pub(crate) async fn expect(&mut self, expected: &[u8]) {
        let mut buffer = vec![0; expected.len()];
        timeout(DEADLINE, self.0.read_exact(&mut buffer))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(buffer, expected);
    }

    /// Reads until it has `needle`, and returns all of it.
    pub(crate) async fn read_until(&mut self, needle: &str) -> String {
        let mut all = String::new();
        while !all.contains(needle) {
            let more = self.read().await;
            assert!(
                !more.is_empty(),
                "the connection ended before {needle:?}: {all:?}"
            );
            all.push_str(&more);
        }
        all
    }

    /// Reads to the end of the connection.
    pub(crate) async fn read_to_end(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        timeout(DEADLINE, self.0.read_to_end(&mut all))
            .await
            .unwrap()
            .unwrap();
        all
    }
}
