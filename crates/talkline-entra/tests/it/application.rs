//! Client secret and workload identity against a fake Entra over TLS.

use std::{fs, path::PathBuf, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use talkline_auth::{Secret, TokenError, TokenSource};
use talkline_entra::{
    Application, Authority, ClientSecret, Environment, Limits, Network, Scope, SetupError,
    WorkloadIdentity,
};

use crate::fake::{self, Fake, Reply, TlsIdentity};

const HOST: &str = "login.microsoftonline.com";

pub(crate) fn network(tls: &TlsIdentity, fake: &Fake) -> Network {
    Network::new(&tls.client)
        .with_override(HOST, 443, fake.address)
        .unwrap()
}

pub(crate) fn client_secret(secret: &str, network: Network) -> ClientSecret {
    let application = Application {
        tenant_id: "contoso.example".into(),
        client_id: "client-1".into(),
        authority: Authority::public(),
    };
    let scope = Scope::for_host("voice.openai.azure.us");
    ClientSecret::new(application, Secret::new(secret), scope, network).unwrap()
}

/// A directory that goes away.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path =
            std::env::temp_dir().join(format!("talkline-entra-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

fn workload_identity(file: &std::path::Path, network: Network) -> WorkloadIdentity {
    let file = file.to_str().unwrap().to_owned();
    let environment = Environment::read(|name| {
        Some(match name {
            "AZURE_TENANT_ID" => "contoso.example".into(),
            "AZURE_CLIENT_ID" => "client-1".into(),
            "AZURE_FEDERATED_TOKEN_FILE" => file.clone(),
            "AZURE_AUTHORITY_HOST" => "https://login.microsoftonline.com/".into(),
            _ => return None,
        })
    });
    let scope = Scope::for_host("voice.openai.azure.com");
    WorkloadIdentity::from_environment(&environment, scope, network).unwrap()
}

#[tokio::test]
async fn a_client_secret_gives_a_token() {
    let tls = TlsIdentity::new(HOST);
    let fake = Fake::start_tls(Reply::entra_token("t-1", 3599), &tls).await;
    let source = client_secret("s~1/x", network(&tls, &fake));
    let token = source.fetch().await.unwrap();
    assert_eq!(token.secret.expose(), "t-1");
    let seconds = token.time_to_live.as_secs();
    assert!((3500..=3599).contains(&seconds), "{seconds}");
    let request = fake.only_request();
    assert!(request.starts_with("POST /contoso.example/oauth2/v2.0/token HTTP/1.1\r\n"));
    assert!(
        request.contains("host: login.microsoftonline.com\r\n"),
        "{request}"
    );
    assert!(
        request.ends_with(
            "\r\n\r\nclient_id=client-1&client_secret=s%7E1%2Fx&grant_type=client_credentials\
             &scope=https%3A%2F%2Fcognitiveservices.azure.us%2F.default"
        ),
        "{request}"
    );
}

/// The SDK would return the first token again.
#[tokio::test]
async fn every_fetch_asks() {
    let tls = TlsIdentity::new(HOST);
    let fake = Fake::start_tls(Reply::entra_token("t-1", 3599), &tls).await;
    let source = client_secret("s", network(&tls, &fake));
    assert_eq!(source.fetch().await.unwrap().secret.expose(), "t-1");
    fake.set_reply(Reply::entra_token("t-2", 3599));
    assert_eq!(source.fetch().await.unwrap().secret.expose(), "t-2");
    assert_eq!(fake.requests().len(), 2);
}

async fn refusal(reply: Reply) -> TokenError {
    let tls = TlsIdentity::new(HOST);
    let fake = Fake::start_tls(reply, &tls).await;
    let source = client_secret("secret-value", network(&tls, &fake));
    let error = source.fetch().await.unwrap_err();
    assert_eq!(fake.requests().len(), 1);
    error
}

#[tokio::test]
async fn entra_is_quoted_with_a_next_step() {
    async fn check(code: u32, status: &str, permanent: bool, hint: &str) {
        let body = format!(
            r#"{{"error":"invalid_client","error_description":"AADSTS{code}: Said \"so\".\r\nTrace ID: t","error_codes":[{code}],"correlation_id":"c-1"}}"#
        );
        let error = refusal(Reply::json(status, &body)).await;
        let start = format!(
            "{HOST} answered {status}: AADSTS{code}: Said \"so\". Trace ID: t (correlation id c-1)"
        );
        assert!(error.detail.starts_with(&start), "{error}");
        assert!(error.detail.contains(hint), "{error} does not say {hint}");
        assert_eq!(error.permanent, permanent, "{error}");
    }
    let unauthorized = "401 Unauthorized";
    let bad = "400 Bad Request";
    check(
        7_000_215,
        unauthorized,
        true,
        "hint: the client secret is wrong",
    )
    .await;
    check(
        7_000_222,
        unauthorized,
        true,
        "hint: the client secret has expired",
    )
    .await;
    check(
        700_016,
        bad,
        true,
        "hint: the application is not in this tenant",
    )
    .await;
    check(90_002, bad, true, "hint: no such tenant").await;
    check(700_213, unauthorized, true, "hint: no federated credential").await;
    check(
        700_024,
        unauthorized,
        false,
        "hint: the token file is out of date",
    )
    .await;
    check(500_011, bad, true, "hint: the scope is not known").await;
    check(53_003, bad, true, "hint: the tenant forbids it").await;
    check(90_055, bad, false, "hint: Entra is busy").await;
    check(1_234_567, bad, true, "").await;
    check(1_234_567, "429 Too Many Requests", false, "").await;
    check(1_234_567, "503 Service Unavailable", false, "").await;
}

#[tokio::test]
async fn what_is_not_entra_is_said_to_be_so() {
    async fn check(reply: Reply, permanent: bool, detail: &str) {
        let error = refusal(reply).await;
        assert!(error.detail.starts_with(detail), "{error} is not {detail}");
        assert_eq!(error.permanent, permanent, "{error}");
    }
    let html = |status| Reply::status(status, "text/html", "<html>Blocked</html>");
    check(
        html("403 Forbidden"),
        true,
        "login.microsoftonline.com answered 403 Forbidden with text/html, not JSON: <html>Blocked</html>; hint: this does not come from Entra",
    )
    .await;
    check(
        html("502 Bad Gateway"),
        false,
        "login.microsoftonline.com answered 502 Bad Gateway with text/html",
    )
    .await;
    check(
        html("200 OK"),
        false,
        "login.microsoftonline.com answered with 20 bytes of text/html that are no token",
    )
    .await;
    check(
        Reply::json("200 OK", r#"{"access_token":"t","expires_in":9223372036854775807}"#),
        false,
        "login.microsoftonline.com answered with 53 bytes of application/json that are no token: its expires_in",
    )
    .await;
    check(
        Reply::headers("302 Found", "Location: https://evil.example/\r\n", ""),
        true,
        "login.microsoftonline.com answered 302 Found, and redirects are not followed",
    )
    .await;
}

#[tokio::test]
async fn an_unknown_certificate_is_refused() {
    let tls = TlsIdentity::new(HOST);
    let fake = Fake::start_tls(Reply::entra_token("t", 3599), &tls).await;
    let untrusting = Network::new(&fake::client(rustls::RootCertStore::empty()))
        .with_override(HOST, 443, fake.address)
        .unwrap();
    let error = client_secret("s", untrusting).fetch().await.unwrap_err();
    assert!(error.permanent, "{error}");
    let start = "no TLS connection to login.microsoftonline.com: invalid peer certificate";
    assert!(error.detail.starts_with(start), "{error}");

    // The right authority for the wrong name.
    let tls = TlsIdentity::new("login.example");
    let fake = Fake::start_tls(Reply::entra_token("t", 3599), &tls).await;
    let error = client_secret("s", network(&tls, &fake))
        .fetch()
        .await
        .unwrap_err();
    assert!(error.permanent, "{error}");
    assert!(error.detail.starts_with(start), "{error}");
    assert_eq!(fake.requests(), [""; 0]);
}

#[tokio::test]
async fn a_fetch_as_a_whole_is_bounded() {
    let tls = TlsIdentity::new(HOST);
    let fake = Fake::start_tls(Reply::BlackHole, &tls).await;
    let limits = Limits {
        fetch: Duration::from_millis(100),
        ..Limits::default()
    };
    let source = client_secret("s", network(&tls, &fake).with_limits(limits));
    let error = source.fetch().await.unwrap_err();
    assert!(!error.permanent);
    let start = "no answer from login.microsoftonline.com within 100ms";
    assert!(error.detail.starts_with(start), "{error}");
}

#[tokio::test]
async fn a_federated_token_is_read_at_every_fetch() {
    let tls = TlsIdentity::new(HOST);
    let fake = Fake::start_tls(Reply::entra_token("t-1", 3599), &tls).await;
    let directory = Directory::new("rotation");
    let file = directory.0.join("token");
    let source = workload_identity(&file, network(&tls, &fake));
    assert_eq!(source.name(), "workload-identity");
    for assertion in ["assertion-1", "assertion-2"] {
        fs::write(&file, format!("{assertion}\n")).unwrap();
        source.fetch().await.unwrap();
        let requests = fake.requests();
        let sent = requests.last().unwrap();
        assert!(
            sent.contains(&format!("client_assertion={assertion}&")),
            "{sent}"
        );
    }
}

#[tokio::test]
async fn a_federated_token_file_without_a_token_is_not_used() {
    let tls = TlsIdentity::new(HOST);
    let fake = Fake::start_tls(Reply::entra_token("t-1", 3599), &tls).await;
    let directory = Directory::new("broken");
    let file = directory.0.join("token");
    let source = workload_identity(&file, network(&tls, &fake));
    let check = async |content: Option<&[u8]>, permanent, detail: &str| {
        match content {
            Some(content) => fs::write(&file, content).unwrap(),
            None => assert!(!file.exists()),
        }
        let error = source.fetch().await.unwrap_err();
        assert!(error.detail.contains(detail), "{error}");
        assert_eq!(error.permanent, permanent, "{error}");
    };
    check(None, true, "cannot be opened: No such file").await;
    check(Some(b""), false, "holds no token").await;
    check(Some(b" \n"), false, "holds no token").await;
    check(Some(b"two words"), false, "holds no token").await;
    check(Some(b"\xff\xfe"), false, "holds no token").await;
    check(
        Some(&vec![b'x'; 70_000]),
        true,
        "is longer than 65536 bytes",
    )
    .await;
    assert_eq!(fake.requests(), [""; 0]);
}

/// What to compare with the federated credential is shown; the token itself is not.
#[tokio::test]
async fn a_federated_token_that_fits_nothing_is_described() {
    let tls = TlsIdentity::new(HOST);
    let body = r#"{"error":"invalid_client","error_description":"AADSTS700213: No match."}"#;
    let fake = Fake::start_tls(Reply::json("401 Unauthorized", body), &tls).await;
    let directory = Directory::new("claims");
    let file = directory.0.join("token");
    let source = workload_identity(&file, network(&tls, &fake));
    let check = async |token: &str, expected: &str| {
        fs::write(&file, token).unwrap();
        let error = source.fetch().await.unwrap_err();
        assert!(error.detail.ends_with(expected), "{error}");
    };
    let payload = URL_SAFE_NO_PAD.encode(
        r#"{"iss":"https://oidc.example/","sub":"system:serviceaccount:ns:sa","aud":["api://AzureADTokenExchange"],"exp":1}"#,
    );
    check(
        &format!("eyJhbGciOiJSUzI1NiJ9.{payload}.c2lnbmF0dXJl"),
        r#"audience: issuer "https://oidc.example/", subject "system:serviceaccount:ns:sa", audience ["api://AzureADTokenExchange"]"#,
    )
    .await;
    check(
        "not-a-jwt",
        "matches this token's issuer, subject and audience",
    )
    .await;
    check("a.!.c", "matches this token's issuer, subject and audience").await;
}

#[test]
fn what_a_workload_needs_is_named() {
    fn check(missing: &'static str) {
        let environment =
            Environment::read(|name| Some("x".to_owned()).filter(|_| name != missing));
        let network = Network::new(&fake::client(rustls::RootCertStore::empty()));
        let scope = Scope::for_host("voice.openai.azure.com");
        let error = WorkloadIdentity::from_environment(&environment, scope, network).unwrap_err();
        assert_eq!(error, SetupError::Missing(missing));
    }
    check("AZURE_TENANT_ID");
    check("AZURE_CLIENT_ID");
    check("AZURE_FEDERATED_TOKEN_FILE");
}
