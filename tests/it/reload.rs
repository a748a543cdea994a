//! A configuration that changes while the relay runs.

use std::{os::fd::AsFd as _, path::Path, sync::Arc, time::Duration};

use rustls_pki_types::ServerName;
use talkline_sim::Running;
use tokio::{
    net::{TcpStream, UnixDatagram},
    task::JoinSet,
    time::timeout,
};

use crate::kit::{
    AZURE_KEY, CLIENT_KEY, DEPLOYMENT, PATIENCE, RawSession, Relay, run_arguments, simulator,
    talkline,
};

fn authorized() -> String {
    format!("api-key: {CLIENT_KEY}\r\n")
}

/// The usual configuration; sessions that a test leaves open do not keep the relay.
fn azure(endpoint: &str) -> String {
    crate::kit::azure(endpoint) + "limits.drainGrace = \"100ms\"\n"
}

/// A relay, and the socket on which it says that it is ready, as it would to systemd.
pub struct Managed {
    pub relay: Relay,
    notices: UnixDatagram,
}

impl Managed {
    pub async fn start(configuration: &str) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), configuration).await
    }

    /// In a home that has files of its own.
    pub async fn start_in(home: tempfile::TempDir, configuration: &str) -> Self {
        let socket = home.path().join("notify");
        let notices = UnixDatagram::bind(&socket).unwrap();
        write(home.path(), configuration);
        let mut command = talkline(home.path());
        command.args(run_arguments()).env("NOTIFY_SOCKET", &socket);
        let relay = Relay::spawn(home, command).await;
        let managed = Self { relay, notices };
        assert_eq!(managed.notice().await, "READY=1\n");
        managed
    }

    pub async fn notice(&self) -> String {
        let mut buffer = [0; 512];
        let read = timeout(PATIENCE, self.notices.recv(&mut buffer)).await;
        let length = read.expect("the relay says something").unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    fn write(&self, configuration: &str) {
        write(self.relay.home.path(), configuration);
    }

    /// Waits until a reload has begun and is over.
    async fn reloaded(&self) {
        let begun = self.notice().await;
        assert!(begun.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{begun}");
        assert_eq!(self.notice().await, "READY=1\n");
    }

    async fn reload(&self, configuration: &str) {
        self.write(configuration);
        self.relay.signal("-HUP");
        self.reloaded().await;
    }

    async fn open(&self) -> RawSession {
        open(self.relay.authority(), &authorized()).await
    }
}

fn write(home: &Path, configuration: &str) {
    std::fs::write(home.join("talkline.toml"), configuration).unwrap();
}

pub async fn open(authority: &str, headers: &str) -> RawSession {
    let mut session = RawSession::open(authority, "/v1/realtime", headers).await;
    assert!(
        session.head.starts_with("HTTP/1.1 101 "),
        "{}",
        session.head
    );
    assert_eq!(session.event().await.json()["type"], "session.created");
    session
}

/// Asks something that is answered at once.
pub async fn is_alive(session: &mut RawSession) {
    session
        .send(1, br#"{"type":"input_audio_buffer.clear"}"#)
        .await;
    let answer = session.event().await.json();
    assert_eq!(answer["type"], "input_audio_buffer.cleared", "{answer}");
}

#[tokio::test]
async fn newcomers_get_the_new_configuration_and_sessions_keep_theirs() {
    let (old, new) = (simulator().await, simulator().await);
    let relay = Managed::start(&azure(&old.base_url())).await;
    let mut early = relay.open().await;
    let other_key = "another-client-key-0123456789";
    let changed = azure(&new.base_url()) + "limits.maxSessions = 2\n";
    let changed = changed.replace("env = \"CLIENT_KEY\"", "file = \"client.key\"");
    std::fs::write(relay.relay.home.path().join("client.key"), other_key).unwrap();
    relay.reload(&changed).await;

    let authority = relay.relay.authority();
    let authorized_anew = format!("api-key: {other_key}\r\n");
    let mut late = open(authority, &authorized_anew).await;
    assert_eq!((old.requests().len(), new.requests().len()), (1, 1));
    is_alive(&mut early).await;
    is_alive(&mut late).await;
    let unknown = RawSession::open(authority, "/v1/realtime", &authorized()).await;
    assert!(
        unknown.head.starts_with("HTTP/1.1 401 "),
        "{}",
        unknown.head
    );
    // The two that there are count, whichever configuration let them in.
    let third = RawSession::open(authority, "/v1/realtime", &authorized_anew).await;
    assert!(third.head.starts_with("HTTP/1.1 503 "), "{}", third.head);
    let log = relay.relay.log().await;
    assert!(log.contains("the configuration was reloaded"), "{log}");
    assert!(!log.contains(other_key), "{log}");
}

#[tokio::test]
async fn files_are_watched_when_the_configuration_says_so() {
    let (old, new) = (simulator().await, simulator().await);
    let watching = "reload.watch = \"1s\"\n";
    let relay = Managed::start(&(azure(&old.base_url()) + watching)).await;
    relay.write(&(azure(&new.base_url()) + watching));
    relay.reloaded().await;
    let _session = relay.open().await;
    assert_eq!((old.requests().len(), new.requests().len()), (0, 1));
    // A broken file is read once, and again when it is mended.
    relay.write("talk = 1\n");
    relay.reloaded().await;
    relay.write(&(azure(&old.base_url()) + watching));
    relay.reloaded().await;
    let _session = relay.open().await;
    assert_eq!((old.requests().len(), new.requests().len()), (1, 1));
}

#[tokio::test]
async fn certificates_are_replaced() {
    let sim = simulator().await;
    let files = tempfile::tempdir().unwrap();
    let certify = || {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(files.path().join("cert.pem"), made.cert.pem()).unwrap();
        std::fs::write(
            files.path().join("key.pem"),
            made.signing_key.serialize_pem(),
        )
        .unwrap();
        made.cert.der().to_vec()
    };
    let first = certify();
    let configuration = format!(
        "{}server.tls.cert = \"{2}/cert.pem\"\nserver.tls.key = \"{2}/key.pem\"\n{1}",
        azure(&sim.base_url()),
        "",
        files.path().display()
    );
    let relay = Managed::start(&configuration).await;
    assert_eq!(presented(&relay.relay).await, first);
    let second = certify();
    assert_ne!(first, second);
    assert_eq!(presented(&relay.relay).await, first);
    relay.reload(&configuration).await;
    assert_eq!(presented(&relay.relay).await, second);
    // Half of a pair is no pair.
    std::fs::write(files.path().join("key.pem"), "no key").unwrap();
    relay.reload(&configuration).await;
    assert_eq!(presented(&relay.relay).await, second);
    let log = relay.relay.log().await;
    assert!(log.contains("no private key in PEM form"), "{log}");
}

/// The certificate that the relay shows to whoever connects.
async fn presented(relay: &Relay) -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = Arc::new(Trusting(Arc::clone(&provider)));
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    let stream = TcpStream::connect(&relay.listener).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let stream = tokio_rustls::TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
        .unwrap();
    let (_, connection) = stream.get_ref();
    connection.peer_certificates().unwrap()[0].to_vec()
}

/// Trusts everybody: these tests look at what is shown, not at who showed it.
#[derive(Debug)]
struct Trusting(Arc<rustls::crypto::CryptoProvider>);

impl rustls::client::danger::ServerCertVerifier for Trusting {
    fn verify_server_cert(
        &self,
        _: &rustls_pki_types::CertificateDer<'_>,
        _: &[rustls_pki_types::CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: rustls_pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &rustls_pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &rustls_pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Ways to break a configuration, each with what the log must say of it.
fn broken(sim: &Running) -> Vec<(&'static str, String, Vec<&'static str>)> {
    let good = azure(&sim.base_url());
    let and = |line: &str| format!("{good}{line}\n");
    vec![
        ("not TOML", and("limits = ["), vec!["talkline.toml:"]),
        ("empty", String::new(), vec!["hint"]),
        (
            "an unknown key",
            and("limits.maxSesions = 5"),
            vec!["key.unknown", "talkline.toml:10", "limits.maxSesions"],
        ),
        (
            "a value out of range",
            and("limits.maxSessions = 0"),
            vec!["value.range", "talkline.toml:10"],
        ),
        (
            "a value of another type",
            and("limits.pingInterval = 10"),
            vec!["value.type", "limits.pingInterval"],
        ),
        (
            "a misspelt azure key",
            good.replace("azureEndpoint", "azureEndpont"),
            vec!["azureEndpont", "talkline.toml:5"],
        ),
        (
            "a variable that is not set",
            good.replace("AZURE_KEY", "NO_SUCH_KEY"),
            vec!["NO_SUCH_KEY", "talkline.toml:7"],
        ),
        (
            "a secret file that is not there",
            good.replace("env = \"CLIENT_KEY\"", "file = \"absent.key\""),
            vec!["absent.key", "talkline.toml:2"],
        ),
        (
            "a certificate that is not there",
            and("server.tls.cert = \"absent.pem\"\nserver.tls.key = \"absent.pem\""),
            vec!["absent.pem"],
        ),
        (
            "a transport that Azure has not",
            good.replace("gateway-relay", "webrtc"),
            vec!["transport.not-with-azure", "talkline.toml:4"],
        ),
    ]
}

#[tokio::test]
async fn a_broken_configuration_is_not_taken_over_and_the_log_says_where() {
    let sim = simulator().await;
    let good = azure(&sim.base_url()) + "admin.listen = \"127.0.0.1:0\"\n";
    let relay = Managed::start(&good).await;
    let shows = async |samples: &[&str]| {
        let page = relay.relay.operators_get("/metrics").await;
        for sample in samples {
            assert!(page.lines().any(|line| line == *sample), "{sample}\n{page}");
        }
        page
    };
    let page = shows(&["talkline_config_last_reload_successful 1"]).await;
    assert!(!page.contains("talkline_secret_age_seconds{"), "{page}");
    let mut early = relay.open().await;
    let broken = broken(&sim);
    assert_eq!(broken.len(), 10);
    for (at, (_, configuration, _)) in broken.iter().enumerate() {
        relay.reload(configuration).await;
        let failed = format!(
            "talkline_config_reloads_total{{result=\"failed\"}} {}",
            at + 1
        );
        shows(&[&failed, "talkline_config_last_reload_successful 0"]).await;
        is_alive(&mut early).await;
        let mut late = relay.open().await;
        is_alive(&mut late).await;
    }
    // The file is gone altogether.
    std::fs::remove_file(relay.relay.home.path().join("talkline.toml")).unwrap();
    relay.relay.signal("-HUP");
    relay.reloaded().await;
    let mut late = relay.open().await;
    is_alive(&mut late).await;
    // Mended, and with a key that rotates.
    std::fs::write(relay.relay.home.path().join("azure.key"), AZURE_KEY).unwrap();
    let key = relay.relay.home.path().join("azure.key");
    let owner_only = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(key, owner_only).unwrap();
    relay
        .reload(&good.replace("env = \"AZURE_KEY\"", "file = \"azure.key\""))
        .await;
    let page = shows(&[
        "talkline_config_reloads_total{result=\"failed\"} 11",
        "talkline_config_reloads_total{result=\"ok\"} 1",
        "talkline_config_last_reload_successful 1",
    ])
    .await;
    assert!(
        page.contains("talkline_secret_age_seconds{secret=\"1\"}"),
        "{page}"
    );
    let mut late = relay.open().await;
    is_alive(&mut late).await;

    let log = relay.relay.log().await;
    let errors: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("\"ERROR\""))
        .collect();
    let mut attempts = errors.split(|line| line.contains("was not reloaded"));
    for (name, _, needles) in &broken {
        let said = attempts.next().unwrap().join("\n");
        assert!(!said.is_empty(), "{name}: nothing was said");
        for needle in needles {
            assert!(said.contains(needle), "{name}: {needle} is not in {said}");
        }
    }
    assert!(!log.contains("CANARY"), "{log}");
}

#[tokio::test]
async fn two_hundred_reloads_under_load_drop_nobody() {
    let sim = simulator().await;
    let configuration = azure(&sim.base_url()) + "limits.framesPerSecond = 0\n";
    let relay = Managed::start(&configuration).await;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let mut load = JoinSet::new();
    for _ in 0..20 {
        let mut session = relay.open().await;
        let stopped = stopped.clone();
        load.spawn(async move {
            let mut asked = 0_u32;
            while !*stopped.borrow() {
                is_alive(&mut session).await;
                asked += 1;
            }
            asked
        });
    }
    let authority = relay.relay.authority().to_owned();
    load.spawn(async move {
        let mut started = 0;
        while !*stopped.borrow() {
            let mut session = open(&authority, &authorized()).await;
            session.send(8, &1000_u16.to_be_bytes()).await;
            assert_eq!(session.event().await.close().0, 1000);
            started += 1;
        }
        started
    });
    for round in 0..200 {
        let changed = format!("{configuration}limits.maxSessions = {}\n", 100 + round);
        relay.reload(&changed).await;
    }
    stop.send_replace(true);
    let counts = timeout(PATIENCE, load.join_all()).await.unwrap();
    assert!(counts.iter().all(|&count| count > 0), "{counts:?}");
    let log = relay.relay.log().await;
    assert_eq!(log.matches("the configuration was reloaded").count(), 200);
}

#[tokio::test]
async fn what_only_a_start_takes_over_stays_and_that_is_said() {
    let sim = simulator().await;
    let configuration = azure(&sim.base_url());
    let relay = Managed::start(&configuration).await;
    let moved = configuration.replace("127.0.0.1:0", "127.0.0.1:1")
        + "server.threads = 3\nadmin.listen = \"127.0.0.1:2\"\n\
           limitStore = { kind = \"redis\", url = \"redis://:CANARY-REDIS-KEY-5b1d@127.0.0.1:3\" }\n\
           allowPlaintextSecrets = true\n";
    relay.reload(&moved).await;
    let _session = relay.open().await;
    // Back to what runs: nothing to say.
    relay.reload(&configuration).await;
    let log = relay.relay.log().await;
    let said: Vec<_> = log
        .lines()
        .filter(|line| line.contains("taken over at the next start"))
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .map(|line| line["key"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(
        said,
        [
            "server.listen",
            "server.threads",
            "admin.listen",
            "limitStore"
        ],
        "{log}"
    );
    assert_eq!(
        log.matches("the configuration was reloaded").count(),
        2,
        "{log}"
    );
    assert!(!log.contains("CANARY"), "{log}");
}

#[tokio::test]
async fn the_key_of_operators_is_replaced() {
    let sim = simulator().await;
    let keys = [
        "CANARY-ADMIN-KEY-a1c9-55e02b7d41f83c690",
        "CANARY-ADMIN-KEY-b2da-66f13c8e52094d7a1",
    ];
    let configuration = azure(&sim.base_url())
        + "admin.listen = \"127.0.0.1:0\"\nadmin.key = { file = \"admin.key\" }\n";
    let home = tempfile::tempdir().unwrap();
    let write_key = |home: &Path, key: &str| {
        let path = home.join("admin.key");
        std::fs::write(&path, key).unwrap();
        let owner_only = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(path, owner_only).unwrap();
    };
    write_key(home.path(), keys[0]);
    let relay = Managed::start_in(home, &configuration).await;
    let operators = relay.relay.operators.clone().unwrap();
    let revoke = async |key: &str| {
        let body = r#"{"client":"nobody"}"#;
        let request = format!(
            "POST /admin/revoke HTTP/1.1\r\nHost: {operators}\r\nAuthorization: Bearer {key}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let answer = crate::kit::raw(&operators, request.as_bytes()).await;
        answer[9..12].to_owned()
    };
    assert_eq!(revoke(keys[0]).await, "200");
    write_key(relay.relay.home.path(), keys[1]);
    relay.relay.signal("-HUP");
    relay.reloaded().await;
    assert_eq!(revoke(keys[0]).await, "401");
    assert_eq!(revoke(keys[1]).await, "200");
}

#[tokio::test]
async fn stopping_is_said_too() {
    let sim = simulator().await;
    let mut relay = Managed::start(&azure(&sim.base_url())).await;
    relay.relay.signal("-TERM");
    assert_eq!(relay.notice().await, "STOPPING=1\n");
    assert_eq!(relay.relay.exit_status().await.code(), Some(0));
}

/// Long enough for a connection that is refused to be refused.
pub const MOMENT: Duration = Duration::from_millis(50);

/// A relay on a socket that somebody else holds, as a service manager would.
pub async fn inheriting(listener: &std::net::TcpListener, configuration: &str) -> Relay {
    let home = tempfile::tempdir().unwrap();
    write(home.path(), configuration);
    let socket = listener.as_fd().try_clone_to_owned().unwrap();
    let script = "exec 3<&0 0</dev/null; export LISTEN_PID=$$ LISTEN_FDS=1";
    let mut command = crate::kit::talkline_after(home.path(), script);
    command
        .args(run_arguments())
        .stdin(std::process::Stdio::from(socket));
    Relay::spawn(home, command).await
}

/// The path that a client of these tests asks for.
pub fn path() -> String {
    format!("/v1/realtime?model={DEPLOYMENT}")
}
