//! A server that records the request and answers with whatever bytes it was given.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
    time::{SystemTime, UNIX_EPOCH},
};

use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpListener,
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

/// What the fake does with every request.
#[derive(Clone)]
pub(crate) enum Reply {
    /// These bytes, then the end.
    Bytes(Vec<u8>),
    /// 200 with this many bytes of `x`.
    Flood(usize),
    /// An error with the whole request in its body, after this status.
    Echo(&'static str),
    /// Nothing, for ever.
    BlackHole,
}

impl Reply {
    pub(crate) fn status(status: &str, content_type: &str, body: &str) -> Self {
        Self::headers(status, &format!("Content-Type: {content_type}\r\n"), body)
    }

    pub(crate) fn headers(status: &str, headers: &str, body: &str) -> Self {
        let length = body.len();
        Self::Bytes(
            format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\n\r\n{body}").into(),
        )
    }

    pub(crate) fn json(status: &str, body: &str) -> Self {
        Self::status(status, "application/json", body)
    }

    /// A token as the managed identity endpoints give it.
    pub(crate) fn identity_token(token: &str, seconds: u64) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let expires_on = now.as_secs() + seconds;
        Self::json(
            "200 OK",
            &format!(
                r#"{{"access_token":"{token}","expires_on":"{expires_on}","resource":"https://cognitiveservices.azure.com","token_type":"Bearer"}}"#
            ),
        )
    }

    /// A token as Entra gives it.
    pub(crate) fn entra_token(token: &str, seconds: u64) -> Self {
        Self::json(
            "200 OK",
            &format!(
                r#"{{"token_type":"Bearer","expires_in":{seconds},"ext_expires_in":{seconds},"access_token":"{token}"}}"#
            ),
        )
    }
}

/// The fake; it stops when it is dropped.
pub(crate) struct Fake {
    pub(crate) address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
    reply: Arc<Mutex<Reply>>,
    _task: JoinSet<()>,
}

impl Fake {
    pub(crate) async fn start(reply: Reply) -> Self {
        Self::listen(reply, None).await
    }

    pub(crate) async fn start_tls(reply: Reply, identity: &TlsIdentity) -> Self {
        Self::listen(reply, Some(identity.acceptor.clone())).await
    }

    async fn listen(reply: Reply, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let reply = Arc::new(Mutex::new(reply));
        let mut task = JoinSet::new();
        let (seen, answer) = (Arc::clone(&requests), Arc::clone(&reply));
        task.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (seen, answer, tls) = (Arc::clone(&seen), Arc::clone(&answer), tls.clone());
                connections.spawn(async move {
                    match tls {
                        None => serve(stream, &seen, &answer).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                serve(stream, &seen, &answer).await;
                            }
                        }
                    }
                });
            }
        });
        Self {
            address,
            requests,
            reply,
            _task: task,
        }
    }

    pub(crate) fn set_reply(&self, reply: Reply) {
        *self.reply.lock().unwrap() = reply;
    }

    /// The requests so far, head and body as they came.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    /// The one request so far.
    pub(crate) fn only_request(&self) -> String {
        let requests = self.requests();
        assert_eq!(requests.len(), 1, "{requests:?}");
        requests[0].clone()
    }
}

async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    seen: &Mutex<Vec<String>>,
    reply: &Mutex<Reply>,
) {
    let mut bytes = Vec::new();
    while !complete(&bytes) {
        match stream.read_buf(&mut bytes).await {
            Ok(1..) => {}
            _ => return,
        }
    }
    seen.lock()
        .unwrap()
        .push(String::from_utf8_lossy(&bytes).into_owned());
    let reply = reply.lock().unwrap().clone();
    // The peer may hang up before it has read everything; that is its right.
    match reply {
        Reply::Bytes(answer) => drop(stream.write_all(&answer).await),
        Reply::Flood(length) => {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
            if stream.write_all(head.as_bytes()).await.is_ok() {
                drop(stream.write_all(&vec![b'x'; length]).await);
            }
        }
        Reply::Echo(status) => {
            let length = bytes.len();
            let head = format!(
                "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\r\n"
            );
            if stream.write_all(head.as_bytes()).await.is_ok() {
                drop(stream.write_all(&bytes).await);
            }
        }
        Reply::BlackHole => std::future::pending().await,
    }
    drop(stream.shutdown().await);
}

/// Whether a head and as much body as it announces are there.
fn complete(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let length = head
        .lines()
        .find_map(|line| {
            line.to_ascii_lowercase()
                .strip_prefix("content-length:")
                .map(|value| value.trim().parse().unwrap())
        })
        .unwrap_or(0);
    body.len() >= length
}

/// A certificate for a name, and the roots that trust it.
pub(crate) struct TlsIdentity {
    acceptor: TlsAcceptor,
    pub(crate) client: ClientConfig,
}

impl TlsIdentity {
    pub(crate) fn new(name: &str) -> Self {
        let key = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        let certificate = key.cert.der().clone();
        let mut roots = RootCertStore::empty();
        roots.add(certificate.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let server = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate],
                rustls_pki_types::PrivateKeyDer::Pkcs8(key.signing_key.serialize_der().into()),
            )
            .unwrap();
        Self {
            acceptor: TlsAcceptor::from(Arc::new(server)),
            client: client(roots),
        }
    }
}

pub(crate) fn client(roots: RootCertStore) -> ClientConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
}
