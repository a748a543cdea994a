//! Talkline behind nginx and HAProxy, with the files of `deploy/frontends`: a spoken turn over TLS,
//! pings, a drain.

use std::{net::TcpListener, path::Path, process::Stdio, sync::Arc, time::Duration};

use rcgen::{CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use talkline_sim::caller::{Call, Secret};
use tokio::{
    net::TcpStream,
    process::{Child, Command},
    time::{Instant, sleep},
};

use crate::kit::{CLIENT_KEY, DEPLOYMENT, PATIENCE, RawSession, Relay, azure, simulator, turn};

/// A running front end. Its second port takes plain text: frames can be looked at there.
struct FrontEnd {
    tls: u16,
    plain: u16,
    trust: Arc<rustls::ClientConfig>,
    _child: Child,
    _folder: tempfile::TempDir,
}

/// How to start one of them.
struct Recipe {
    program: &'static str,
    package: &'static str,
    file: &'static str,
    /// The line that listens, and what stands there in the test.
    listens: (&'static str, fn(tls: u16, plain: u16) -> String),
    /// Paths of certificate and key, or of both in one file.
    certificate: &'static [&'static str],
    /// What goes around the file.
    around: fn(text: &str, folder: &Path) -> String,
    arguments: &'static [&'static str],
}

const NGINX: Recipe = Recipe {
    program: "/usr/sbin/nginx",
    package: "nginx-light",
    file: "nginx.conf",
    listens: ("listen 443 ssl;", |tls, plain| {
        format!("listen 127.0.0.1:{tls} ssl; listen 127.0.0.1:{plain};")
    }),
    certificate: &[
        "/etc/ssl/talk.example.com.crt",
        "/etc/ssl/talk.example.com.key",
    ],
    around: |text, folder| {
        let folder = folder.display();
        let temp: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {folder}/{kind};\n"))
            .concat();
        format!(
            "daemon off;\nmaster_process off;\npid {folder}/pid;\nerror_log {folder}/error.log;\n\
             events {{}}\nhttp {{\naccess_log off;\n{temp}{text}\n}}\n"
        )
    },
    arguments: &["-c"],
};

const HAPROXY: Recipe = Recipe {
    program: "/usr/sbin/haproxy",
    package: "haproxy",
    file: "haproxy.cfg",
    listens: ("bind :443 ssl", |tls, plain| {
        format!("bind 127.0.0.1:{plain}\n    bind 127.0.0.1:{tls} ssl")
    }),
    certificate: &["/etc/haproxy/talk.example.com.pem"],
    around: |text, _| text.to_owned(),
    arguments: &["-db", "-f"],
};

impl Recipe {
    /// Whether the program is here. Where a person runs the tests it may be missing; CI installs it.
    fn is_here(&self) -> bool {
        let here = Path::new(self.program).exists();
        assert!(
            here || std::env::var_os("CI").is_none(),
            "{} is missing: install {}",
            self.program,
            self.package
        );
        if !here {
            println!(
                "skipped: {} is missing: install {}",
                self.program, self.package
            );
        }
        here
    }

    async fn start(&self, relay: &Relay) -> FrontEnd {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key, trust) = certificate();
        let mut text = std::fs::read_to_string(
            Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("../../deploy/frontends")
                .join(self.file),
        )
        .unwrap();
        let mut contents = vec![certificate, key];
        if self.certificate.len() == 1 {
            contents = vec![contents.concat()];
        }
        for (at, (path, content)) in self.certificate.iter().zip(contents).enumerate() {
            let own = folder.path().join(format!("{at}.pem"));
            std::fs::write(&own, content).unwrap();
            assert!(text.contains(path), "{path}");
            text = text.replace(path, own.to_str().unwrap());
        }
        let (tls, plain) = (free_port(), free_port());
        let (line, instead) = self.listens;
        assert!(text.contains(line) && text.contains("127.0.0.1:8080"));
        let text = text
            .replace(line, &instead(tls, plain))
            .replace("127.0.0.1:8080", &relay.listener);
        let path = folder.path().join(self.file);
        std::fs::write(&path, (self.around)(&text, folder.path())).unwrap();
        let child = Command::new(self.program)
            .args(self.arguments)
            .arg(&path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(("127.0.0.1", plain)).await.is_err() {
            assert!(
                Instant::now() < deadline,
                "{} does not listen",
                self.program
            );
            sleep(Duration::from_millis(20)).await;
        }
        FrontEnd {
            tls,
            plain,
            trust,
            _child: child,
            _folder: folder,
        }
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// A certificate for localhost and its key, and what trusts it.
fn certificate() -> (String, String, Arc<rustls::ClientConfig>) {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    authority
        .distinguished_name
        .push(DnType::CommonName, "Talkline test CA");
    let issuer = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(["localhost".to_owned()])
        .unwrap()
        .signed_by(&key, &issuer)
        .unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(issuer.der().clone()).unwrap();
    let provider = talkline_gateway::tls::crypto_provider();
    let trust = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (leaf.pem(), key.serialize_pem(), Arc::new(trust))
}

async fn check(recipe: Recipe) {
    if !recipe.is_here() {
        return;
    }
    let simulator = simulator().await;
    let configuration = azure(&simulator.base_url()).replace("relay.test", "localhost")
        + "limits.pingInterval = \"1s\"\nlimits.drainGrace = \"1s\"\n";
    let mut relay = Relay::start(&configuration).await;
    let front = recipe.start(&relay).await;

    let call = Call {
        bearer: Some(Secret::new(CLIENT_KEY)),
        tls: Some(Arc::clone(&front.trust)),
        ..Call::new(format!(
            "wss://localhost:{}/v1/realtime?model={DEPLOYMENT}",
            front.tls
        ))
    };
    let report = turn(&call).await.unwrap();
    assert!(report.missing().is_empty(), "{:?}", report.missing());

    let headers = format!("api-key: {CLIENT_KEY}\r\n");
    let authority = format!("localhost:{}", front.plain);
    let mut session = RawSession::open(&authority, "/v1/realtime", &headers).await;
    assert_eq!(session.event().await.json()["type"], "session.created");
    let ping = session.frame().await.unwrap();
    assert_eq!(ping.opcode, 9, "{ping:?}");
    session.send(10, &ping.payload).await;

    relay.signal("-TERM");
    let event = session.event().await.json();
    assert_eq!(event["error"]["code"], "relay_shutting_down", "{event}");
    assert_eq!(session.event().await.close(), (1001, "relay_shutting_down"));
    session.send(8, &1001_u16.to_be_bytes()).await;
    assert_eq!(relay.exit_status().await.code(), Some(0));
}

#[tokio::test]
async fn nginx_carries_sessions_pings_and_the_drain() {
    check(NGINX).await;
}

#[tokio::test]
async fn haproxy_carries_sessions_pings_and_the_drain() {
    check(HAPROXY).await;
}
