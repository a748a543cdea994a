//! No secret in anything that a source prints, logs or returns, whatever the service answers.

use std::{
    fmt::{Debug, Display},
    io,
    sync::{Arc, Mutex},
};

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use talkline_auth::TokenSource as _;
use talkline_entra::Scope;
use tracing_subscriber::{filter::LevelFilter, fmt::MakeWriter};

use crate::{
    application::{HOST, client_secret, network, workload_identity},
    certificate::{Pair, client_assertion, field},
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
    let _guard = log.listen();
    for reply in replies(CLIENT_SECRET) {
        let tls = TlsIdentity::new(HOST);
        let fake = Fake::start_tls(reply, &tls).await;
        let scope = Scope::for_host("voice.openai.azure.com");
        let source = client_secret(CLIENT_SECRET, network(&tls, &fake), scope);
        let result = source.fetch().await;
        assert!(fake.only_request().contains("canary%7Eclient.secret"));
        assert_absent(
            &format!("{source:?} {}", shown(&result)),
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

#[tokio::test]
async fn an_assertion_and_its_key_stay_secret() {
    let log = Log::default();
    let _guard = log.listen();
    let pair = Pair::rsa();
    let key = pair.key.serialize_pem();
    let key: Vec<_> = key.lines().filter(|line| !line.starts_with('-')).collect();
    let mut shown_so_far = String::new();
    let mut secrets = vec![TOKEN.to_owned()];
    for reply in [
        Reply::entra_token(TOKEN, 3600),
        Reply::Echo("400 Bad Request"),
        Reply::Echo("200 OK"),
        Reply::Echo("302 Found"),
    ] {
        let tls = TlsIdentity::new(HOST);
        let fake = Fake::start_tls(reply, &tls).await;
        let source = client_assertion(&pair.pem(), network(&tls, &fake)).unwrap();
        let result = source.fetch().await;
        shown_so_far.push_str(&format!("{source:?} {}", shown(&result)));
        secrets.push(field(&fake.only_request(), "client_assertion").to_owned());
    }
    let secrets: Vec<_> = secrets.iter().map(String::as_str).collect();
    for everything in [shown_so_far, log.text()] {
        assert_absent(&everything, &secrets);
        assert_absent(&everything, &key);
        // Nor its signature alone.
        for secret in &secrets {
            assert_absent(&everything, &[secret.rsplit('.').next().unwrap()]);
        }
    }
}

/// Whatever its form: this one does not look like a JSON web token.
#[tokio::test]
async fn a_federated_token_stays_secret() {
    const ASSERTION: &str = "canary-federated-6f7e8d9c0b1a2f3e4d5c6b7";

    let log = Log::default();
    let _guard = log.listen();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    std::fs::write(&file, ASSERTION).unwrap();
    let mut replies = replies(ASSERTION);
    replies.push(Reply::Echo("400 Bad Request"));
    for reply in replies {
        let tls = TlsIdentity::new(HOST);
        let fake = Fake::start_tls(reply, &tls).await;
        let source = workload_identity(&file, network(&tls, &fake));
        let result = source.fetch().await;
        assert!(fake.only_request().contains(ASSERTION));
        assert_absent(
            &format!("{source:?} {}", shown(&result)),
            &[ASSERTION, TOKEN],
        );
    }
    assert_absent(&log.text(), &[ASSERTION, TOKEN]);
}

#[cfg(unix)]
#[tokio::test]
async fn what_a_tool_prints_stays_secret() {
    let log = Log::default();
    let _guard = log.listen();
    let valid = crate::tool::prints_token(TOKEN);
    for script in [
        valid.clone(),
        format!("{valid}; exit 1"),
        format!("{valid} >&2; exit 1"),
        format!("echo 'Please run az login: {TOKEN}' >&2; exit 1"),
        format!("echo {TOKEN}"),
        format!("{valid}; {valid}"),
    ] {
        let program = crate::tool::Program::new("az", &script);
        let source = crate::tool::az(&program);
        let result = source.fetch().await;
        assert_absent(&format!("{source:?} {}", shown(&result)), &[TOKEN]);
    }
    assert!(!log.text().contains(TOKEN));
}

#[cfg(feature = "key-vault")]
#[tokio::test]
async fn a_vault_keeps_its_secrets() {
    use crate::vault::{VAULT, network, vault};

    const VALUE: &str = "canary-vault-value-5e4d3c2b1a0f9e8d7c6b5";
    const PLAIN: &str = "canary.vault-token.1a2b3c4d5e6f7a8b9c0d1";

    let log = Log::default();
    let _guard = log.listen();
    let challenge = format!(
        "WWW-Authenticate: Bearer authorization=\"https://x/{PLAIN}\", resource=\"https://vault.azure.net\"\r\n"
    );
    let value = format!(r#"{{"value":"{VALUE}","id":"https://x/{VALUE}"}}"#);
    for reply in [
        Reply::json("200 OK", &value),
        Reply::json("200 OK", &value[..value.len() - 1]),
        Reply::json("200 OK", &format!(r#"{{"valve":"{VALUE}"}}"#)),
        Reply::headers("401 Unauthorized", &challenge, ""),
        Reply::Echo("401 Unauthorized"),
        Reply::Echo("403 Forbidden"),
        Reply::Echo("302 Found"),
        Reply::Echo("200 OK"),
        Reply::json(
            "403 Forbidden",
            &format!(
                r#"{{"error":{{"code":"{PLAIN}","message":"{PLAIN}","innererror":{{"code":"{PLAIN}"}}}}}}"#
            ),
        ),
    ] {
        let tls = TlsIdentity::new(VAULT);
        let fake = Fake::start_tls(reply, &tls).await;
        let vault = vault(PLAIN, network(&tls, &fake));
        let result = vault.read().await;
        assert!(fake.only_request().contains(PLAIN));
        assert_absent(&format!("{vault:?} {}", shown(&result)), &[VALUE, PLAIN]);
    }
    let everything = log.text();
    assert!(everything.contains("secret read"), "{everything}");
    assert_absent(&everything, &[VALUE, PLAIN]);
}

/// Everything that can be shown of a result.
fn shown<T: Debug, E: Debug + Display>(result: &Result<T, E>) -> String {
    match result {
        Ok(value) => format!("{value:?}"),
        Err(error) => format!("{error:?} {error:#?} {error}"),
    }
}

/// A log in memory.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// This runtime has one thread, and so has the log.
    fn listen(&self) -> tracing::subscriber::DefaultGuard {
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(LevelFilter::TRACE)
            .with_ansi(false)
            .with_writer(self.clone())
            .finish();
        tracing::subscriber::set_default(subscriber)
    }

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
