//! No secret in anything that a source prints, logs or returns, whatever the service answers.

use std::{
    io,
    sync::{Arc, Mutex},
};

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use talkline_auth::TokenSource as _;
use tracing_subscriber::{filter::LevelFilter, fmt::MakeWriter};

use crate::{
    application::{client_secret, network},
    child::{self, Child},
    fake::{Fake, Reply, TlsIdentity},
};

const IDENTITY_HEADER: &str = "canary-identity-header-0b1c2d3e4f5a6b7c8";
const CLIENT_SECRET: &str = "canary~client.secret_9f8e7d6c5b4a3928171";
const TOKEN: &str = "eyJhbGciOiJub25lIn0.Y2FuYXJ5LXRva2VuLTEy.c2lnbmF0dXJl";

/// Raw, base64 in its three phases, URL-encoded, hexadecimal.
fn assert_absent(everything: &str, secrets: &[&str]) {
    assert!(!everything.is_empty());
    for secret in secrets {
        let phase = |skip: usize| {
            let encoded = STANDARD_NO_PAD.encode(format!("{}{secret}", "a".repeat(skip)));
            // The first and the last group depend on the neighbours.
            encoded[4..encoded.len() - 4].to_owned()
        };
        let hex: String = secret.bytes().map(|b| format!("{b:02x}")).collect();
        let forms = [
            (*secret).to_owned(),
            secret.replace('~', "%7E"),
            hex,
            phase(0),
            phase(1),
            phase(2),
        ];
        for form in forms {
            assert!(!everything.contains(&form), "{form} in {everything}");
        }
    }
}

/// Replies that hold the secrets themselves, as a debugging proxy's would.
fn replies(secret: &str) -> Vec<Reply> {
    let echo = format!("you sent {secret} and got {TOKEN}");
    let form = secret.replace('~', "%7E");
    vec![
        Reply::identity_token(TOKEN, 3600),
        Reply::entra_token(TOKEN, 3600),
        Reply::status("400 Bad Request", "text/plain", &echo),
        Reply::status("500 Oops", "text/plain", &format!("a={form}&b")),
        Reply::status("403 Forbidden", secret, &STANDARD_NO_PAD.encode(secret)),
        Reply::json(
            "400 Bad Request",
            &format!(r#"{{"error":"{secret}","message":"{echo}","correlation_id":"{secret}"}}"#),
        ),
        Reply::json("500 Oops", &format!(r#"{{"access_token":"{TOKEN}"}}"#)),
        Reply::json(
            "200 OK",
            &format!(
                r#"{{"access_token":"{TOKEN}","expires_on":"{TOKEN}","expires_in":"{TOKEN}","resource":"r","token_type":"t"}}"#
            ),
        ),
        Reply::headers(
            "302 Found",
            &format!("Location: http://x/{secret}\r\n"),
            &echo,
        ),
        Reply::headers("429 Slow", &format!("x-ms-request-id: {secret}\r\n"), ""),
        Reply::Bytes(echo.into_bytes()),
    ]
}

#[tokio::test]
async fn a_managed_identity_keeps_its_secrets() {
    for reply in replies(IDENTITY_HEADER) {
        let fake = Fake::start(reply).await;
        let outcome = child::run(Child {
            variables: vec![
                ("IDENTITY_ENDPOINT", format!("http://{}/", fake.address)),
                ("IDENTITY_HEADER", IDENTITY_HEADER.into()),
            ],
            ..Child::default()
        })
        .await;
        assert!(fake.only_request().contains(IDENTITY_HEADER));
        assert!(outcome.everything.contains("TRACE") || outcome.everything.contains("DEBUG"));
        assert_absent(&outcome.everything, &[IDENTITY_HEADER, TOKEN]);
    }
}

#[tokio::test]
async fn a_client_secret_stays_secret() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(LevelFilter::TRACE)
        .with_ansi(false)
        .with_writer(log.clone())
        .finish();
    // This runtime has one thread, and so has the log.
    let _guard = tracing::subscriber::set_default(subscriber);
    for reply in replies(CLIENT_SECRET) {
        let tls = TlsIdentity::new("login.microsoftonline.com");
        let fake = Fake::start_tls(reply, &tls).await;
        let source = client_secret(CLIENT_SECRET, network(&tls, &fake));
        let result = source.fetch().await;
        let shown = match &result {
            Ok(_) => String::new(),
            Err(error) => error.to_string(),
        };
        assert!(fake.only_request().contains("canary%7Eclient.secret"));
        assert_absent(
            &format!("{source:?} {result:?} {shown}"),
            &[CLIENT_SECRET, TOKEN],
        );
    }
    let everything = log.text();
    assert!(
        everything.contains("sending request"),
        "the SDK's log is there"
    );
    assert_absent(&everything, &[CLIENT_SECRET, TOKEN]);
}

/// A log in memory.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}
