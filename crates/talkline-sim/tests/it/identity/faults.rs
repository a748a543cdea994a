//! The faults that all endpoints have, on each of them.

use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use talkline_sim::identity::{
    AppService, EntraAuthority, Fault, Imds, KeyVault, LOGIN_HOST, TENANT, TestCa, TokenSpec,
    now_unix,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, DuplexStream};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::ask::{Heard, ask, post, send, tls};
use super::managed::{app_request, imds_request};
use crate::bench::DEADLINE;

/// Any of the fakes, with a request that it would answer with 200.
enum Fake {
    Entra(EntraAuthority),
    Imds(Imds),
    AppService(AppService),
    Vault(KeyVault),
}

const QUERY: &str = "api-version=2019-08-01&resource=https%3A%2F%2Fai.azure.com";

impl Fake {
    async fn all() -> [Self; 4] {
        [
            Self::Entra(EntraAuthority::start().await.unwrap()),
            Self::Imds(Imds::start().await.unwrap()),
            Self::AppService(AppService::start().await.unwrap()),
            Self::Vault(
                KeyVault::builder()
                    .secret("key", "value")
                    .start()
                    .await
                    .unwrap(),
            ),
        ]
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Entra(_) => "Entra",
            Self::Imds(_) => "IMDS",
            Self::AppService(_) => "App Service",
            Self::Vault(_) => "Key Vault",
        }
    }

    fn set(&self, fault: Fault) {
        match self {
            Self::Entra(fake) => fake.set_mode(fault),
            Self::Imds(fake) => fake.set_mode(fault),
            Self::AppService(fake) => fake.set_mode(fault),
            Self::Vault(fake) => fake.set_mode(fault),
        }
    }

    fn addr(&self) -> SocketAddr {
        match self {
            Self::Entra(fake) => fake.addr(),
            Self::Imds(fake) => fake.addr(),
            Self::AppService(fake) => fake.addr(),
            Self::Vault(fake) => fake.addr(),
        }
    }

    /// Connections and requests so far.
    fn counts(&self) -> (u64, usize) {
        match self {
            Self::Entra(fake) => (fake.connections(), fake.requests().len()),
            Self::Imds(fake) => (fake.connections(), fake.requests().len()),
            Self::AppService(fake) => (fake.connections(), fake.requests().len()),
            Self::Vault(fake) => (fake.connections(), fake.requests().len()),
        }
    }

    /// Waits for so many connections and requests.
    async fn has_seen(&self, counts: (u64, usize)) {
        let seen = async {
            while self.counts() != counts {
                tokio::task::yield_now().await;
            }
        };
        timeout(DEADLINE, seen).await.unwrap();
    }

    fn in_memory(&self) -> DuplexStream {
        match self {
            Self::Entra(fake) => fake.connect_in_memory(),
            Self::Imds(fake) => fake.connect_in_memory(),
            Self::AppService(fake) => fake.connect_in_memory(),
            Self::Vault(fake) => fake.connect_in_memory(),
        }
    }

    async fn shutdown(self) {
        match self {
            Self::Entra(fake) => fake.shutdown().await,
            Self::Imds(fake) => fake.shutdown().await,
            Self::AppService(fake) => fake.shutdown().await,
            Self::Vault(fake) => fake.shutdown().await,
        }
    }

    fn tls(&self) -> Option<(&TestCa, &str)> {
        match self {
            Self::Entra(fake) => Some((fake.ca(), LOGIN_HOST)),
            Self::Vault(fake) => Some((fake.ca(), fake.vault_host())),
            Self::Imds(_) | Self::AppService(_) => None,
        }
    }

    fn request(&self) -> String {
        match self {
            Self::Entra(_) => post(
                &format!("/{TENANT}/oauth2/v2.0/token"),
                LOGIN_HOST,
                "client_id=c&client_secret=s&grant_type=client_credentials&scope=https%3A%2F%2Fai.azure.com%2F.default",
            ),
            Self::Imds(_) => imds_request(QUERY),
            Self::AppService(fake) => app_request(QUERY, fake.identity_header()),
            Self::Vault(fake) => format!(
                "GET /secrets/key?api-version=7.6 HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\n\r\n",
                fake.vault_host(),
                TokenSpec::new().mint("https://vault.azure.net", now_unix())
            ),
        }
    }

    /// The answer over that stream; `None` if the connection ends, in TLS already or later.
    async fn ask<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S) -> Option<Heard> {
        match self.tls() {
            Some((ca, name)) => ask(tls(stream, ca, name).await.ok()?, &self.request()).await,
            None => ask(stream, &self.request()).await,
        }
    }

    async fn get(&self) -> Option<Heard> {
        let stream = TcpStream::connect(self.addr()).await.unwrap();
        timeout(DEADLINE, self.ask(stream)).await.unwrap()
    }
}

#[tokio::test]
async fn faults_with_an_answer() {
    let trap = "https://trap.example/token?from=here";
    for fake in Fake::all().await {
        let name = fake.name();
        for (fault, status, content_type) in [
            (Fault::Html(502), 502, "text/html; charset=utf-8"),
            (Fault::Html(200), 200, "text/html; charset=utf-8"),
            (Fault::Garbage, 200, "application/json; charset=utf-8"),
            (Fault::Empty, 200, "application/json; charset=utf-8"),
            (Fault::ServerError, 500, "text/plain"),
            (Fault::Unavailable, 503, "text/plain"),
            (
                Fault::Redirect(trap.to_owned()),
                302,
                "text/html; charset=utf-8",
            ),
            (
                Fault::HugeBody(10 << 20),
                200,
                "application/json; charset=utf-8",
            ),
            (
                Fault::Slow(Duration::from_millis(1)),
                200,
                "application/json; charset=utf-8",
            ),
        ] {
            fake.set(fault.clone());
            let heard = fake.get().await.unwrap();
            assert_eq!(heard.status, status, "{name} {fault:?}");
            assert_eq!(
                heard.header("content-type"),
                Some(content_type),
                "{name} {fault:?}"
            );
            let is_json = serde_json::from_str::<serde_json::Value>(&heard.body).is_ok();
            let expected = matches!(fault, Fault::HugeBody(_) | Fault::Slow(_));
            assert_eq!(is_json, expected, "{name} {fault:?}");
            match fault {
                Fault::HugeBody(bytes) => assert_eq!(heard.body.len(), bytes, "{name}"),
                Fault::Redirect(to) => {
                    assert_eq!(heard.header("location"), Some(to.as_str()), "{name}")
                }
                Fault::Html(_) => assert!(heard.body.contains("security policy"), "{name}"),
                _ => {}
            }
        }
        assert_eq!(fake.counts(), (9, 9), "{name}");
        fake.set(Fault::Redirect("\r\nno header value".to_owned()));
        assert_eq!(fake.get().await.unwrap().status, 500, "{name}");
    }
}

#[tokio::test]
async fn faults_without_an_answer_over_sockets() {
    for fake in Fake::all().await {
        let name = fake.name();
        fake.set(Fault::Closes);
        assert!(fake.get().await.is_none(), "{name}");
        assert_eq!(fake.counts(), (1, 0), "{name}");
        for (fault, counts) in [
            (Fault::BlackHole, (2, 0)),
            (Fault::Hangs, (3, 1)),
            (Fault::StallsMidBody, (4, 2)),
        ] {
            fake.set(fault.clone());
            let stream = TcpStream::connect(fake.addr()).await.unwrap();
            let mut asked = pin!(fake.ask(stream));
            tokio::select! {
                heard = &mut asked => panic!("{name} {fault:?}: {heard:?}"),
                () = fake.has_seen(counts) => {}
            }
            // Long enough for what comes to come, on loopback; the next test has the same without a clock.
            let silence = timeout(Duration::from_millis(40), asked).await;
            assert!(silence.is_err(), "{name} {fault:?}");
            assert_eq!(fake.counts(), counts, "{name} {fault:?}");
        }
        let address = fake.addr();
        fake.shutdown().await;
        let error = TcpStream::connect(address).await.unwrap_err();
        assert_eq!(
            error.kind(),
            std::io::ErrorKind::ConnectionRefused,
            "{name}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn silence_lasts_for_hours_in_memory() {
    const HOURS: Duration = Duration::from_secs(2 * 3600);
    for fake in Fake::all().await {
        let name = fake.name();
        for fault in [Fault::BlackHole, Fault::Hangs, Fault::StallsMidBody] {
            fake.set(fault.clone());
            let waited = timeout(HOURS, fake.ask(fake.in_memory())).await;
            assert!(waited.is_err(), "{name} {fault:?}: {waited:?}");
        }
        fake.set(Fault::Slow(Duration::from_secs(30)));
        let started = Instant::now();
        assert_eq!(
            fake.ask(fake.in_memory()).await.unwrap().status,
            200,
            "{name}"
        );
        assert_eq!(started.elapsed().as_secs(), 30, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stalled_body_has_begun() {
    let imds = Imds::builder()
        .mode(Fault::StallsMidBody)
        .start()
        .await
        .unwrap();
    let mut stream = imds.connect_in_memory();
    send(&mut stream, &imds_request(QUERY)).await;
    let mut seen = Vec::new();
    let ended = timeout(DEADLINE, stream.read_to_end(&mut seen)).await;
    assert!(ended.is_err());
    let text = String::from_utf8(seen).unwrap();
    assert!(
        text.starts_with("HTTP/1.1 200 OK\r\n") && text.contains("content-length: 46"),
        "{text}"
    );
    assert!(text.ends_with(r#"{"token_type":"Bearer","#), "{text}");
}
