//! Client secret and workload identity against a fake Entra over TLS.

use std::{fs, net::Ipv4Addr, path::PathBuf, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use talkline_auth::{Secret, TokenError, TokenSource};
use talkline_entra::{
    Application, Authority, ClientSecret, Environment, Limits, Network, Scope, SetupError,
    WorkloadIdentity,
};

use crate::{
    child::describe,
    fake::{self, Fake, Reply, TlsIdentity},
};

pub(crate) const HOST: &str = "login.microsoftonline.com";

pub(crate) fn network(tls: &TlsIdentity, fake: &Fake) -> Network {
    Network::new(&tls.client)
        .with_override(HOST, 443, fake.address)
        .unwrap()
}

pub(crate) fn client_secret(secret: &str, network: Network, scope: Scope) -> ClientSecret {
    let application = Application {
        tenant_id: "contoso.example".into(),
        client_id: "client-1".into(),
        authority: Authority::public(),
    };
    ClientSecret::new(application, Secret::new(secret), scope, network).unwrap()
}

fn scope() -> Scope {
    Scope::for_host("voice.openai.azure.us")
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

pub(crate) fn workload_identity(file: &std::path::Path, network: Network) -> WorkloadIdentity {
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
    let source = client_secret("s~1/x", network(&tls, &fake), scope());
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
    let source = client_secret("s", network(&tls, &fake), scope());
    assert_eq!(source.fetch().await.unwrap().secret.expose(), "t-1");
    fake.set_reply(Reply::entra_token("t-2", 3599));
    assert_eq!(source.fetch().await.unwrap().secret.expose(), "t-2");
    assert_eq!(fake.requests().len(), 2);
}

async fn refusal(reply: Reply) -> TokenError {
    let tls = TlsIdentity::new(HOST);
    let fake = Fake::start_tls(reply, &tls).await;
    let source = client_secret("secret-value", network(&tls, &fake), scope());
    let error = source.fetch().await.unwrap_err();
    assert_eq!(fake.requests().len(), 1);
    error
}

#[tokio::test]
async fn entra_is_quoted_with_a_next_step() {
    async fn check(aadsts: u32, status: &str, permanent: bool, code: &str, hint: &str) {
        let body = format!(
            r#"{{"error":"invalid_client","error_description":"AADSTS{aadsts}: Said \"so\".\r\nTrace ID: t","error_codes":[{aadsts}],"correlation_id":"c-1"}}"#
        );
        let error = refusal(Reply::json(status, &body)).await;
        assert_eq!(
            &*error.detail,
            format!(
                "{HOST} answered {status}: AADSTS{aadsts}: Said \"so\". Trace ID: t (correlation id c-1)"
            )
        );
        assert_eq!(error.code, code);
        assert_eq!(error.http_status.unwrap().to_string(), status[..3]);
        let said = error.hint.as_deref().unwrap_or("none");
        assert!(said.contains(hint), "{said:?} does not say {hint}");
        assert_eq!(error.permanent, permanent, "{error}");
    }
    let unauthorized = "401 Unauthorized";
    let bad = "400 Bad Request";
    let secret = "entra_secret_wrong";
    check(
        7_000_215,
        unauthorized,
        true,
        secret,
        "the client secret is wrong",
    )
    .await;
    let reset = "az ad app credential reset --id client-1 --append";
    check(7_000_215, unauthorized, true, secret, reset).await;
    let expired = "entra_secret_expired";
    check(
        7_000_222,
        unauthorized,
        true,
        expired,
        "the client secret has expired",
    )
    .await;
    check(7_000_222, unauthorized, true, expired, reset).await;
    let app = "entra_app_not_found";
    check(
        700_016,
        bad,
        true,
        app,
        "the application is not in this tenant",
    )
    .await;
    check(700_016, bad, true, app, "az ad app show --id client-1").await;
    for tenant in [90_002, 900_023] {
        check(
            tenant,
            bad,
            true,
            "entra_tenant_not_found",
            "no such tenant",
        )
        .await;
    }
    for federation in [70_021, 700_211, 700_212, 700_213] {
        let code = "entra_federation_mismatch";
        let hint = "az ad app federated-credential list --id client-1";
        check(federation, unauthorized, true, code, hint).await;
    }
    let assertion = "entra_assertion_expired";
    check(
        700_024,
        unauthorized,
        false,
        assertion,
        "the token file is out of date",
    )
    .await;
    for scope in [70_011, 500_011, 1_002_012] {
        check(scope, bad, true, "entra_scope", "the scope is not known").await;
    }
    check(
        53_003,
        bad,
        true,
        "entra_conditional_access",
        "conditional access policy",
    )
    .await;
    check(50_105, bad, true, "entra_assignment", "is not; assign it").await;
    let consent = "az ad app permission admin-consent --id client-1";
    check(65_001, bad, true, "entra_consent", consent).await;
    for busy in [50_196, 90_006, 90_033, 90_055] {
        check(busy, bad, false, "entra_throttled", "Entra is busy").await;
    }
    let unknown = 1_234_567;
    check(unknown, bad, true, "entra_refused", "none").await;
    let throttled = "429 Too Many Requests";
    check(
        unknown,
        throttled,
        false,
        "entra_throttled",
        "Entra is busy",
    )
    .await;
    let down = "503 Service Unavailable";
    check(unknown, down, false, "entra_unavailable", "none").await;
}

#[tokio::test]
async fn how_long_to_wait_is_passed_on() {
    async fn check(header: &str, at_least: Option<u64>, at_most: Option<u64>) {
        let header = format!("Retry-After: {header}\r\n");
        let error = refusal(Reply::headers("429 Slow", &header, "")).await;
        let seconds = error.retry_after.map(|wait| wait.as_secs());
        assert!(
            at_least <= seconds && seconds <= at_most,
            "{header}: {seconds:?}"
        );
        assert_eq!(error.code, "entra_throttled");
    }
    check("7", Some(7), Some(7)).await;
    check("86400", Some(86_400), Some(86_400)).await;
    check("Fri, 01 Jan 2100 00:00:00 GMT", Some(1), Some(u64::MAX)).await;
    check("Fri, 01 Jan 2010 00:00:00 GMT", None, None).await;
    check("-1", None, None).await;
    check("soon", None, None).await;
}

#[tokio::test]
async fn entra_says_when_to_come_again() {
    let tls = TlsIdentity::new(HOST);
    let body =
        r#"{"token_type":"Bearer","expires_in":86399,"refresh_in":43199,"access_token":"t"}"#;
    let fake = Fake::start_tls(Reply::json("200 OK", body), &tls).await;
    let source = client_secret("s", network(&tls, &fake), scope());
    let token = source.fetch().await.unwrap();
    assert_eq!(token.refresh_in, Some(Duration::from_secs(43_199)));
    fake.set_reply(Reply::entra_token("t", 3599));
    assert_eq!(source.fetch().await.unwrap().refresh_in, None);
}

#[tokio::test]
async fn what_is_not_entra_is_said_to_be_so() {
    async fn check(reply: Reply, permanent: bool, expected: &str) {
        let error = refusal(reply).await;
        let text = describe(&error);
        assert!(text.starts_with(expected), "{text} is not {expected}");
        assert_eq!(error.permanent, permanent, "{error}");
    }
    let html = |status| Reply::status(status, "text/html", "<html>Blocked</html>");
    check(
        html("403 Forbidden"),
        true,
        "entra_not_json 403: login.microsoftonline.com answered 403 Forbidden with text/html, not JSON: <html>Blocked</html>; hint: this does not come from Azure",
    )
    .await;
    check(
        html("502 Bad Gateway"),
        false,
        "entra_not_json 502: login.microsoftonline.com answered 502 Bad Gateway with text/html",
    )
    .await;
    check(
        html("200 OK"),
        false,
        "entra_not_json: login.microsoftonline.com answered with 20 bytes of text/html that are no token: it is not a JSON object; hint: this does not",
    )
    .await;
    check(
        Reply::json("200 OK", r#"{"access_token":"t","expires_in":9223372036854775807}"#),
        false,
        "entra_malformed: login.microsoftonline.com answered with 53 bytes of application/json that are no token: its expires_in",
    )
    .await;
    check(
        Reply::headers("302 Found", "Location: https://evil.example/\r\n", ""),
        true,
        "entra_not_json 302: login.microsoftonline.com answered 302 Found, and redirects are not followed",
    )
    .await;
}

#[tokio::test]
async fn an_unknown_certificate_is_refused() {
    fn check(error: &TokenError) {
        assert!(error.permanent, "{error}");
        assert_eq!(error.code, "identity_tls");
        let start = "no TLS connection to login.microsoftonline.com: invalid peer certificate";
        assert!(error.detail.starts_with(start), "{error}");
        assert!(error.hint.as_deref().unwrap().contains("SSL_CERT_FILE"));
    }
    let tls = TlsIdentity::new(HOST);
    let fake = Fake::start_tls(Reply::entra_token("t", 3599), &tls).await;
    let untrusting = Network::new(&fake::client(rustls::RootCertStore::empty()))
        .with_override(HOST, 443, fake.address)
        .unwrap();
    check(
        &client_secret("s", untrusting, scope())
            .fetch()
            .await
            .unwrap_err(),
    );

    // The right authority for the wrong name.
    let tls = TlsIdentity::new("login.example");
    let fake = Fake::start_tls(Reply::entra_token("t", 3599), &tls).await;
    let source = client_secret("s", network(&tls, &fake), scope());
    check(&source.fetch().await.unwrap_err());
    assert_eq!(fake.requests(), [""; 0]);
}

#[tokio::test]
async fn a_closed_way_out_is_reported() {
    // A port that is taken, so that no other test gets it, and on which nobody listens.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let network = Network::new(&fake::client(rustls::RootCertStore::empty()))
        .with_override(HOST, 443, socket.local_addr().unwrap())
        .unwrap();
    let error = client_secret("s", network, scope())
        .fetch()
        .await
        .unwrap_err();
    assert_eq!(
        describe(&error),
        "entra_unreachable: no connection to login.microsoftonline.com: Connection refused (os error 111); \
         hint: is the way out to https://login.microsoftonline.com open, in the firewall and in the network policy?"
    );
    assert!(!error.permanent);
}

#[tokio::test]
async fn a_fetch_as_a_whole_is_bounded() {
    let tls = TlsIdentity::new(HOST);
    let fake = Fake::start_tls(Reply::BlackHole, &tls).await;
    let limits = Limits {
        fetch: Duration::from_millis(100),
        ..Limits::default()
    };
    let source = client_secret("s", network(&tls, &fake).with_limits(limits), scope());
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
        assert_eq!(error.code, "entra_proof_file");
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
        assert_eq!(error.code, "entra_federation_mismatch");
        let hint = error.hint.as_deref().unwrap();
        assert!(hint.ends_with(expected), "{hint}");
    };
    let payload = URL_SAFE_NO_PAD.encode(
        r#"{"iss":"https://oidc.example/","sub":"system:serviceaccount:ns:sa","aud":["api://AzureADTokenExchange"],"exp":1}"#,
    );
    check(
        &format!("eyJhbGciOiJSUzI1NiJ9.{payload}.c2lnbmF0dXJl"),
        r#"client-1: issuer "https://oidc.example/", subject "system:serviceaccount:ns:sa", audience ["api://AzureADTokenExchange"]"#,
    )
    .await;
    check("not-a-jwt", "federated-credential list --id client-1").await;
    check("a.!.c", "federated-credential list --id client-1").await;
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
