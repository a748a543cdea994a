//! Upstreams that refuse in ways that no service should: through sockets on loopback, and from there
//! into everything that a client or a log gets to see.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant as Clock,
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use talkline_auth::{Credential, Origin, OriginRules, Secret};
use talkline_dialect::{
    Ask, AzureApi, AzureUpstream, Correlation, Diagnosis, Upstream as Configured,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use super::*;

const KEY: &str = "CANARY-AZURE-KEY-77aa";
/// When an answer has to be understood, however it drags on: 2 s for the body, and a loaded machine.
const PATIENCE: Duration = Duration::from_secs(4);
const LIMITS: DialTimeouts = DialTimeouts {
    dns: Duration::from_secs(5),
    tcp: Duration::from_secs(5),
    tls: Duration::from_secs(5),
    upgrade: Duration::from_secs(5),
};

/// What a server does with the connection once it has read the request.
#[derive(Clone)]
enum Answer {
    /// Sends this and hangs up.
    Bytes(Vec<u8>),
    /// Sends the head of its request as the body of a 401.
    Echo,
    /// Sends this, then so many bytes of padding.
    Padded(Vec<u8>, usize),
    /// Sends this, then a byte every few milliseconds for ever.
    Drips(Vec<u8>),
    /// Hangs up.
    Nothing,
    /// Neither answers nor hangs up.
    Silence,
}

struct Server {
    endpoint: String,
    taken: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    async fn start(answer: Answer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let taken = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&taken);
        let task = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            // A client that has heard enough hangs up.
            let _ = serve(stream, answer, &count).await;
        });
        Self {
            endpoint,
            taken,
            task,
        }
    }
}

async fn serve(mut stream: TcpStream, answer: Answer, taken: &AtomicUsize) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let mut padding = match answer {
        Answer::Bytes(bytes) => {
            stream.write_all(&bytes).await?;
            0
        }
        Answer::Echo => {
            stream.write_all(&http(401, &head)).await?;
            0
        }
        Answer::Padded(bytes, padding) => {
            stream.write_all(&bytes).await?;
            padding
        }
        Answer::Drips(bytes) => {
            stream.write_all(&bytes).await?;
            loop {
                stream.write_all(b"x").await?;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        Answer::Nothing => 0,
        Answer::Silence => std::future::pending().await,
    };
    while padding > 0 {
        let chunk = padding.min(16 << 10);
        stream.write_all(&vec![b'['; chunk]).await?;
        taken.fetch_add(chunk, Ordering::Relaxed);
        padding -= chunk;
    }
    stream.shutdown().await
}

/// An answer without a length, which ends when the connection does.
fn http(status: u16, body: &[u8]) -> Vec<u8> {
    let mut answer = format!(
        "HTTP/1.1 {status} X\r\nconnection: close\r\napim-request-id: req-1\r\nx-ms-region: Sweden Central\r\n\r\n"
    )
    .into_bytes();
    answer.extend_from_slice(body);
    answer
}

fn azure(endpoint: &str) -> Configured {
    let origin = Origin::parse(endpoint, &OriginRules::default()).unwrap();
    Configured::Azure(AzureUpstream {
        credential: Credential::api_key(origin, Secret::new(KEY)),
        base_path: String::new(),
        api: AzureApi::Ga,
        deployment: "voice".into(),
    })
}

async fn diagnose(
    endpoint: &str,
    tls: Arc<rustls::ClientConfig>,
    limits: DialTimeouts,
) -> Diagnosis {
    let upstream = azure(endpoint);
    let ask = Ask::parse("/v1/realtime", None, std::iter::empty()).unwrap();
    let request = upstream.request(&ask, &Correlation::default()).unwrap();
    let dialer = Dialer::new(tls, limits, Vec::new());
    let refusal = dialer.dial(&request).await.expect_err("it is refused");
    let diagnosis = Diagnosis::of(&refusal, &upstream, ask.intent, request.target());
    let shown = format!(
        "{diagnosis:?} {} {}",
        diagnosis.error_event(),
        diagnosis.problem()
    );
    assert!(!shown.contains("CANARY"), "{shown}");
    assert!(shown.len() < 16 << 10, "{}", shown.len());
    diagnosis
}

/// Returns what the server could not get rid of at most.
async fn check(answer: Answer, expected: &str) -> usize {
    let server = Server::start(answer).await;
    let started = Clock::now();
    let tls = crate::tls::client_config().unwrap();
    let diagnosis = diagnose(&server.endpoint, tls, LIMITS).await;
    assert_eq!(diagnosis.code, expected, "{diagnosis:?}");
    assert!(started.elapsed() < PATIENCE, "{:?}", started.elapsed());
    server.taken.load(Ordering::Relaxed)
}

const NOT_FOUND: &[u8] = br#"{"error":{"code":"DeploymentNotFound","message":"The API deployment"#;

#[tokio::test]
async fn a_body_that_echoes_our_headers() {
    check(Answer::Echo, "azure_unauthorized").await;
    let body = format!(r#"{{"error":{{"code":"PermissionDenied","message":"api-key: {KEY}"}}}}"#);
    check(
        Answer::Bytes(http(401, body.as_bytes())),
        "azure_rbac_missing",
    )
    .await;
}

#[tokio::test]
async fn a_body_that_carries_keys() {
    let body = br#"{"error":{"code":"403","message":"Public access is disabled. api-key=CANARY-other; Authorization: Bearer CANARY.other; sk-CANARY0123456789"}}"#;
    check(Answer::Bytes(http(403, body)), "azure_private_only").await;
}

#[tokio::test]
async fn a_body_of_ten_mebibytes() {
    let length = 10 << 20;
    let head = http(404, NOT_FOUND);
    let taken = check(Answer::Padded(head, length), "azure_deployment_not_found").await;
    // What the sockets' buffers swallowed, and not what was announced.
    assert!(taken < length, "{taken} bytes were taken");
}

#[tokio::test]
async fn a_body_that_never_ends() {
    let mut answer = http(404, NOT_FOUND);
    answer.extend_from_slice(format!("api-key: {}", &KEY[..KEY.len() - 2]).as_bytes());
    check(Answer::Drips(answer), "azure_deployment_not_found").await;
}

#[tokio::test]
async fn a_body_that_stops_inside_our_key() {
    let body = format!("api-key {}", &KEY[..KEY.len() - 2]);
    check(
        Answer::Bytes(http(401, body.as_bytes())),
        "azure_unauthorized",
    )
    .await;
}

#[tokio::test]
async fn a_body_that_nests_deeply() {
    let mut body = br#"{"error":{"code":"DeploymentNotFound","details":"#.to_vec();
    body.extend(std::iter::repeat_n(b'[', 100_000));
    check(
        Answer::Bytes(http(404, &body)),
        "azure_deployment_not_found",
    )
    .await;
    let nested = [vec![b'['; 100_000], vec![b']'; 100_000]].concat();
    check(Answer::Bytes(http(500, &nested)), "azure_unavailable").await;
}

#[tokio::test]
async fn heads_that_make_no_sense() {
    let lost = "azure_connection_lost";
    check(Answer::Nothing, lost).await;
    check(Answer::Bytes(b"SSH-2.0-OpenSSH_9.9\r\n".to_vec()), lost).await;
    let head = format!("HTTP/1.1 401 X\r\nx: {}\r\n\r\n", "y".repeat(64 << 10));
    check(Answer::Bytes(head.into_bytes()), lost).await;
    let redirect = format!(
        "HTTP/1.1 302 X\r\nlocation: wss://evil.example/v1/realtime?api-key={KEY}\r\ncontent-length: 0\r\n\r\n"
    );
    check(
        Answer::Bytes(redirect.into_bytes()),
        "azure_upgrade_redirect",
    )
    .await;
    let cut = b"HTTP/1.1 404 X\r\ncontent-length: 1000\r\n\r\n{\"error\":{\"code\":\"DeploymentNotFound\"".to_vec();
    check(Answer::Bytes(cut), "azure_deployment_not_found").await;
}

#[tokio::test]
async fn a_server_that_stays_silent() {
    let server = Server::start(Answer::Silence).await;
    let limits = DialTimeouts {
        upgrade: Duration::from_millis(50),
        tls: Duration::from_millis(50),
        ..LIMITS
    };
    let tls = crate::tls::client_config().unwrap();
    let diagnosis = diagnose(&server.endpoint, Arc::clone(&tls), limits).await;
    assert_eq!(diagnosis.code, "azure_upgrade_timeout");
    let server = Server::start(Answer::Silence).await;
    let endpoint = server.endpoint.replace("http:", "https:");
    let diagnosis = diagnose(&endpoint, tls, limits).await;
    assert_eq!(diagnosis.code, "azure_tls_timeout");
}

#[tokio::test]
async fn nobody_listens() {
    // A port that was free a moment ago and belongs to nobody.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let tls = crate::tls::client_config().unwrap();
    let diagnosis = diagnose(&endpoint, tls, LIMITS).await;
    assert_eq!(diagnosis.code, "azure_tcp_refused", "{diagnosis:?}");
}

#[test]
fn errors_of_the_operating_system_are_told_apart() {
    let check = |kind: io::ErrorKind, expected: &str| {
        let refusal = tcp_refusal(&io::Error::from(kind));
        let got = match refusal {
            Refusal::Tcp(fault, _) => format!("{fault:?}"),
            Refusal::TimedOut(phase) => format!("timed out {phase:?}"),
            other => format!("{other:?}"),
        };
        assert_eq!(got, expected);
    };
    check(io::ErrorKind::ConnectionRefused, "Refused");
    check(io::ErrorKind::NetworkUnreachable, "Unreachable");
    check(io::ErrorKind::HostUnreachable, "Unreachable");
    check(io::ErrorKind::TimedOut, "timed out Tcp");
    check(io::ErrorKind::PermissionDenied, "Other");
}

// === TLS ===

/// A certificate authority, and who trusts it.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Self {
            issuer: CertifiedIssuer::self_signed(params, key).unwrap(),
        }
    }

    fn trusted(&self) -> Arc<rustls::ClientConfig> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        let config = rustls::ClientConfig::builder_with_provider(crate::tls::crypto_provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Arc::new(config)
    }

    /// Answers TLS on loopback with a certificate for `name`, changed by `change`.
    async fn listen(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Server {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, &self.issuer).unwrap();
        let chain: Vec<CertificateDer<'static>> = vec![leaf.der().clone()];
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = crate::tls::server_config_from(chain, key).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("https://{}", listener.local_addr().unwrap());
        let task = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let _ = tokio_rustls::TlsAcceptor::from(config).accept(stream).await;
        });
        Server {
            endpoint,
            taken: Arc::default(),
            task,
        }
    }
}

#[tokio::test]
async fn certificates_that_are_not_acceptable() {
    let authority = Authority::new();
    let check = async |name: &str, change: fn(&mut CertificateParams), tls, expected: &str| {
        let server = authority.listen(name, change).await;
        let diagnosis = diagnose(&server.endpoint, tls, LIMITS).await;
        assert_eq!(diagnosis.code, expected, "{diagnosis:?}");
    };
    let trusted = authority.trusted();
    let expired = |params: &mut CertificateParams| {
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
    };
    let future = |params: &mut CertificateParams| params.not_before = date_time_ymd(2090, 1, 1);
    check(
        "127.0.0.1",
        expired,
        Arc::clone(&trusted),
        "azure_tls_expired",
    )
    .await;
    check(
        "127.0.0.1",
        future,
        Arc::clone(&trusted),
        "azure_tls_not_yet_valid",
    )
    .await;
    check(
        "r.openai.azure.com",
        |_| {},
        Arc::clone(&trusted),
        "azure_tls_wrong_name",
    )
    .await;
    let strangers = Authority::new().trusted();
    check("127.0.0.1", |_| {}, strangers, "azure_tls_unknown_ca").await;
    let platform = crate::tls::client_config().unwrap();
    check("127.0.0.1", |_| {}, platform, "azure_tls_unknown_ca").await;
}

#[tokio::test]
async fn a_server_that_speaks_no_tls() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("https://{}", listener.local_addr().unwrap());
    let task = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _ = stream.read_u8().await;
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        let _ = stream.shutdown().await;
        let _ = stream.read_to_end(&mut Vec::new()).await;
    });
    let tls = crate::tls::client_config().unwrap();
    let diagnosis = diagnose(&endpoint, tls, LIMITS).await;
    assert_eq!(diagnosis.code, "azure_tls_not_tls", "{diagnosis:?}");
    task.abort();
}
