//! A panic ends the connection that it happens in, and nothing else.

use std::{
    sync::Arc,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use rustls_pki_types::{PrivateKeyDer, ServerName};
use talkline_gateway::{Gateway, Options, tls::crypto_provider};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::oneshot,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::readiness::config;

const PATIENCE: Duration = Duration::from_secs(20);

/// Has a certificate for everybody, and panics for some.
#[derive(Debug)]
struct Touchy {
    key: Arc<CertifiedKey>,
    panics: AtomicUsize,
}

impl ResolvesServerCert for Touchy {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        if hello.server_name() == Some("panic.localhost") {
            self.panics.fetch_add(1, Ordering::SeqCst);
            panic!("this test wants a panic");
        }
        Some(Arc::clone(&self.key))
    }
}

/// TLS of both sides, for the names `localhost` and `panic.localhost`.
fn tls() -> (Arc<Touchy>, Arc<ServerConfig>, TlsConnector) {
    let names = ["localhost", "panic.localhost"].map(str::to_owned);
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    let provider = crypto_provider();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let key = provider.key_provider.load_private_key(key).unwrap();
    let touchy = Arc::new(Touchy {
        key: Arc::new(CertifiedKey::new(vec![made.cert.der().clone()], key)),
        panics: AtomicUsize::new(0),
    });
    let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::clone(&touchy) as Arc<dyn ResolvesServerCert>);
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (
        touchy,
        Arc::new(server),
        TlsConnector::from(Arc::new(client)),
    )
}

#[tokio::test]
async fn a_panic_ends_one_connection() {
    let (touchy, server, connector) = tls();
    let mut config = config();
    // A place that a panic did not give back would be missed at once.
    config.limits.handshakes_max = 2;
    let options = Options {
        tls: Some(server),
        ..Options::default()
    };
    let gateway = Gateway::new(config, options).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn(gateway.serve(listener, async {
        let _ = stopped.await;
    }));
    let connect = async |name: &'static str| {
        let stream = TcpStream::connect(address).await?;
        connector
            .connect(ServerName::try_from(name).unwrap(), stream)
            .await
    };

    let mut bystander = connect("localhost").await.unwrap();
    for _ in 0..5 {
        let cut = timeout(PATIENCE, connect("panic.localhost")).await.unwrap();
        assert!(cut.is_err());
        // The place is free again once the panic has been unwound.
        let next = async {
            loop {
                if let Ok(stream) = connect("localhost").await {
                    break ask(stream).await;
                }
            }
        };
        let answer = timeout(PATIENCE, next).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
    assert!(touchy.panics.load(Ordering::SeqCst) >= 5);
    bystander
        .write_all(b"GET /readyz HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    let mut answer = [0; 12];
    bystander.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    drop(stop);
    timeout(PATIENCE, serving).await.unwrap().unwrap();
}

async fn ask(mut stream: TlsStream<TcpStream>) -> String {
    stream
        .write_all(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    // Whether the relay says goodbye at the level of TLS is not what is asked here.
    let _ = stream.read_to_string(&mut answer).await;
    answer
}
