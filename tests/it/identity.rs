//! Keyless sign-in: each kind of credential, from the identity service to an open session.

use std::path::Path;

use serde_json::Value;
use talkline_sim::{
    Running,
    identity::{
        App, AppService, CliMode, EntraAuthority, EntraRefusal, FakeAz, Imds, Jwt, KeyVault,
        ManagedIdentity, TokenSpec, now_unix,
    },
};
use tokio::process::Command;

use crate::kit::{
    AZURE_KEY, CLIENT_KEY, CROWD, RawSession, Relay, azure, ended, simulator, talkline, turn,
};

const CLIENT_SECRET: &str = "CANARY-CLIENT-SECRET-5b1c9e7702f4d8a3361";
const IDENTITY_HEADER: &str = "CANARY-IDENTITY-HEADER-a97be0412fd6538c1";
const ASSERTION: &str = "CANARY-FEDERATED-TOKEN-e05d1f7bb4296ca83";
const SIGNATURE: &str = "CANARY-TOKEN-SIGNATURE-3f68c2ae917d05b41";
const APP: &str = "9a0c1f3e-0000-4000-8000-00000000a001";
const OBJECT: &str = "9a0c1f3e-0000-4000-8000-00000000b002";

/// Tokens whose signature must not be seen anywhere but at the upstream.
fn tokens() -> TokenSpec {
    TokenSpec::new().object_id(OBJECT).signature(SIGNATURE)
}

/// The seed's configuration with an identity in the place of the key.
fn keyless(sim: &Running, auth: &str) -> String {
    let key = "talk.realtime.providers.openai.apiKey = { env = \"AZURE_KEY\" }\n";
    let lines = auth
        .lines()
        .map(|line| format!("talk.realtime.providers.openai.auth.{line}\n"));
    azure(&sim.base_url()).replace(key, &lines.collect::<String>())
}

/// A whole turn; returns the claims of the one bearer token that the upstream saw.
async fn claims_seen(sim: &Running, relay: &Relay) -> Value {
    let report = turn(&relay.plain_call()).await.unwrap();
    assert_eq!(report.missing(), Vec::<&str>::new());
    let seen = sim.requests().pop().unwrap();
    assert_eq!(seen.header("api-key"), None, "one credential, not two");
    assert!(!format!("{seen:?}").contains(CLIENT_KEY));
    let bearer = seen
        .header("authorization")
        .unwrap()
        .strip_prefix("Bearer ")
        .unwrap()
        .to_owned();
    Jwt::decode(&bearer).unwrap().claims
}

/// Nothing secret is in the log of a relay that did its work.
async fn assert_silent(relay: Relay) {
    let log = relay.log().await;
    assert!(log.contains("session ended"), "{log}");
    assert!(!log.contains("CANARY"), "{log}");
}

#[tokio::test]
async fn managed_identity_on_app_service() {
    let sim = simulator().await;
    let user = ManagedIdentity::user_assigned("voice", APP, OBJECT);
    let endpoint = AppService::builder()
        .identity_header(IDENTITY_HEADER)
        .token(tokens())
        .user_assigned(user)
        .start()
        .await
        .unwrap();
    let variables = [
        ("IDENTITY_ENDPOINT", endpoint.identity_endpoint()),
        ("IDENTITY_HEADER", IDENTITY_HEADER.to_owned()),
    ];
    let variables: Vec<_> = variables
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    for auth in [
        "kind = \"managed-identity\"".to_owned(),
        format!("kind = \"managed-identity\"\nclientId = \"{APP}\""),
        format!("kind = \"managed-identity\"\nobjectId = \"{OBJECT}\""),
        "kind = \"auto\"".to_owned(),
    ] {
        let relay = Relay::start_env(&keyless(&sim, &auth), &["--require-ready"], &variables).await;
        let claims = claims_seen(&sim, &relay).await;
        assert_eq!(
            claims["aud"], "https://cognitiveservices.azure.com",
            "{auth}"
        );
        assert_silent(relay).await;
    }
    for request in endpoint.requests() {
        assert_eq!(request.header("x-identity-header"), Some(IDENTITY_HEADER));
    }
    assert!(!format!("{:?}", sim.requests()).contains(IDENTITY_HEADER));
}

#[tokio::test]
async fn managed_identity_from_the_metadata_service() {
    let sim = simulator().await;
    let imds = Imds::builder().token(tokens()).start().await.unwrap();
    let resolve = format!("169.254.169.254:80:{}", imds.addr());
    let configuration = keyless(&sim, "kind = \"managed-identity\"");
    let relay = Relay::start_with(&configuration, &["--resolve", &resolve]).await;
    claims_seen(&sim, &relay).await;
    assert_silent(relay).await;
    let asked = imds.requests();
    assert_eq!(asked.len(), 1, "one token for all");
    assert_eq!(asked[0].header("metadata"), Some("true"));
}

/// An authority, and the arguments and variables that lead a relay to it.
struct Entra {
    authority: EntraAuthority,
    home: tempfile::TempDir,
    resolve: String,
}

impl Entra {
    async fn start(app: App) -> Self {
        let authority = EntraAuthority::builder()
            .token(tokens())
            .app(app)
            .start()
            .await
            .unwrap();
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("ca.pem"), authority.ca().pem()).unwrap();
        let resolve = format!("login.microsoftonline.com:443:{}", authority.addr());
        Self {
            authority,
            home,
            resolve,
        }
    }

    async fn relay(&self, configuration: &str, variables: &[(&str, &str)]) -> Relay {
        let ca = self.path("ca.pem");
        let mut all = vec![("SSL_CERT_FILE", ca.as_str())];
        all.extend_from_slice(variables);
        Relay::start_env(configuration, &["--resolve", &self.resolve], &all).await
    }

    fn path(&self, name: &str) -> String {
        self.home.path().join(name).to_str().unwrap().to_owned()
    }
}

fn application() -> String {
    format!(
        "tenantId = \"{}\"\nclientId = \"{APP}\"",
        talkline_sim::identity::TENANT
    )
}

#[tokio::test]
async fn client_secret() {
    let sim = simulator().await;
    let entra = Entra::start(App::new(APP).secret(CLIENT_SECRET)).await;
    let auth = format!(
        "kind = \"client-secret\"\n{}\nclientSecret = {{ env = \"SECRET\" }}",
        application()
    );
    let relay = entra
        .relay(&keyless(&sim, &auth), &[("SECRET", CLIENT_SECRET)])
        .await;
    let claims = claims_seen(&sim, &relay).await;
    assert_eq!(claims["appid"], APP, "{claims}");
    assert_silent(relay).await;
    assert_eq!(entra.authority.token_requests().len(), 1);
    assert!(!format!("{:?}", sim.requests()).contains(CLIENT_SECRET));
}

#[tokio::test]
async fn workload_identity() {
    let sim = simulator().await;
    let (issuer, subject) = (
        "https://oidc.example/cluster",
        "system:serviceaccount:talk:talkline",
    );
    let entra = Entra::start(App::new(APP).federated(issuer, subject)).await;
    let federated = TokenSpec::new()
        .issuer(issuer)
        .claim("sub", subject)
        .signature(ASSERTION)
        .mint("api://AzureADTokenExchange", now_unix());
    std::fs::write(entra.home.path().join("token"), format!("{federated}\n")).unwrap();
    let variables = [
        ("AZURE_TENANT_ID", talkline_sim::identity::TENANT),
        ("AZURE_CLIENT_ID", APP),
        ("AZURE_FEDERATED_TOKEN_FILE", &entra.path("token")),
    ];
    for kind in ["workload-identity", "auto"] {
        let configuration = keyless(&sim, &format!("kind = \"{kind}\""));
        let relay = entra.relay(&configuration, &variables).await;
        assert_eq!(claims_seen(&sim, &relay).await["appid"], APP);
        assert_silent(relay).await;
    }
    assert!(!format!("{:?}", sim.requests()).contains(ASSERTION));
}

#[tokio::test]
async fn client_assertion_by_certificate() {
    let sim = simulator().await;
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["talkline".into()])
        .unwrap()
        .self_signed(&key)
        .unwrap();
    let entra = Entra::start(App::new(APP).certificate(certificate.der().clone())).await;
    std::fs::write(entra.home.path().join("cert.pem"), certificate.pem()).unwrap();
    std::fs::write(entra.home.path().join("key.pem"), key.serialize_pem()).unwrap();
    let auth = format!(
        "kind = \"client-assertion\"\n{}\ncertificate = \"{}\"\ncertificateKey = \"{}\"",
        application(),
        entra.path("cert.pem"),
        entra.path("key.pem")
    );
    let relay = entra.relay(&keyless(&sim, &auth), &[]).await;
    assert_eq!(claims_seen(&sim, &relay).await["appid"], APP);
    assert_silent(relay).await;
    let shown = entra.authority.token_requests().pop().unwrap();
    assert!(
        shown.assertion().is_some(),
        "a certificate proves itself by a signed assertion"
    );
}

#[tokio::test]
async fn developer_tools_only_with_dev() {
    let sim = simulator().await;
    let tools = tempfile::tempdir().unwrap();
    let scope = "https://cognitiveservices.azure.com/.default";
    let az = FakeAz::write_for(tools.path(), scope, tokens(), &CliMode::Works).unwrap();
    let path = az.path().into_string().unwrap();
    for kind in ["azure-cli", "azd"] {
        let configuration = keyless(&sim, &format!("kind = \"{kind}\""));
        let relay = Relay::start_env(&configuration, &["--dev"], &[("PATH", &path)]).await;
        assert_eq!(claims_seen(&sim, &relay).await["oid"], OBJECT, "{kind}");
        assert_silent(relay).await;

        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("talkline.toml"), &configuration).unwrap();
        let mut without = talkline(home.path());
        without.args(["run"]).env("PATH", &path);
        let without = ended(without).await;
        assert_eq!(without.code(), Some(78), "{}", without.stderr);
        assert!(without.stderr.contains("--dev"), "{}", without.stderr);
    }
}

#[tokio::test]
async fn a_key_from_key_vault() {
    let sim = simulator().await;
    let identity = AppService::builder()
        .identity_header(IDENTITY_HEADER)
        .token(tokens())
        .start()
        .await
        .unwrap();
    let vault = KeyVault::builder()
        .secret("azure-key", AZURE_KEY)
        .start()
        .await
        .unwrap();
    let home = tempfile::tempdir().unwrap();
    let ca = home.path().join("ca.pem");
    std::fs::write(&ca, vault.ca().pem()).unwrap();
    let resolve = format!("{}:443:{}", vault.vault_host(), vault.addr());
    let configuration = azure(&sim.base_url()).replace(
        "{ env = \"AZURE_KEY\" }",
        &format!("{{ keyvault = \"{}\" }}", vault.secret_url("azure-key")),
    );
    let variables = [
        ("SSL_CERT_FILE", ca.to_str().unwrap()),
        ("IDENTITY_ENDPOINT", &identity.identity_endpoint()),
        ("IDENTITY_HEADER", IDENTITY_HEADER),
    ];
    let relay = Relay::start_env(&configuration, &["--resolve", &resolve], &variables).await;
    assert!(turn(&relay.plain_call()).await.unwrap().is_whole());
    assert_eq!(
        sim.requests().pop().unwrap().header("api-key"),
        Some(AZURE_KEY)
    );
    assert_silent(relay).await;
}

#[tokio::test]
async fn a_refusal_of_the_identity_service_is_explained() {
    let sim = simulator().await;
    let entra = Entra::start(App::new(APP).secret(CLIENT_SECRET)).await;
    entra.authority.set_mode(EntraRefusal::WrongSecret);
    let auth = format!(
        "kind = \"client-secret\"\n{}\nclientSecret = {{ env = \"SECRET\" }}",
        application()
    );
    let relay = entra
        .relay(&keyless(&sim, &auth), &[("SECRET", CLIENT_SECRET)])
        .await;
    let headers = format!("api-key: {CLIENT_KEY}\r\n");
    let mut session = RawSession::open(relay.authority(), "/v1/realtime", &headers).await;
    let event = session.event().await.json();
    assert_eq!(event["error"]["code"], "entra_secret_wrong", "{event}");
    assert_eq!(
        sim.requests().len(),
        0,
        "nothing is dialled without a token"
    );
    let ready = crate::kit::raw(
        relay.authority(),
        b"GET /readyz HTTP/1.1\r\nHost: a\r\n\r\n",
    )
    .await;
    assert!(ready.starts_with("HTTP/1.1 503 "), "{ready}");
    let log = relay.log().await;
    assert!(
        log.contains("AADSTS7000215") && log.contains("entra_secret_wrong"),
        "{log}"
    );
    assert!(!log.contains("CANARY"), "{log}");
}

// === rotation ===

const OLD_KEY: &str = AZURE_KEY;
const NEW_KEY: &str = "CANARY-AZURE-KEY-TWO-5d20b6f9e84a1c37f02";
const TALKING: usize = 50;
const STARTING: usize = 200;

async fn talking(relay: &Relay) -> Vec<RawSession> {
    let headers = format!("api-key: {CLIENT_KEY}\r\n");
    let mut sessions = Vec::new();
    for _ in 0..TALKING {
        let mut session = RawSession::open(relay.authority(), "/v1/realtime", &headers).await;
        assert_eq!(session.event().await.json()["type"], "session.created");
        sessions.push(session);
    }
    sessions
}

async fn assert_still_talking(sessions: Vec<RawSession>) {
    for mut session in sessions {
        session
            .send(1, br#"{"type":"input_audio_buffer.clear"}"#)
            .await;
        assert_eq!(
            session.event().await.json()["type"],
            "input_audio_buffer.cleared"
        );
    }
}

/// Whether one start gets a session.
async fn starts(authority: &str) -> bool {
    let headers = format!("api-key: {CLIENT_KEY}\r\n");
    let mut session = RawSession::open(authority, "/v1/realtime", &headers).await;
    session.event().await.json()["type"] == "session.created"
}

fn replace(path: &Path, text: &str) {
    let beside = path.with_extension("new");
    std::fs::write(&beside, text).unwrap();
    std::fs::rename(beside, path).unwrap();
}

#[tokio::test]
async fn a_key_is_rotated_in_its_file() {
    let sim = simulator().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key");
    replace(&file, OLD_KEY);
    let reference = format!("{{ file = \"{}\" }}", file.display());
    let configuration = azure(&sim.base_url()).replace("{ env = \"AZURE_KEY\" }", &reference);
    let relay = Relay::start(&configuration).await;
    let sessions = talking(&relay).await;

    sim.set_api_keys([NEW_KEY]);
    assert!(
        !starts(relay.authority()).await,
        "the old key is refused, and no other is known"
    );
    replace(&file, &format!("{NEW_KEY}\n"));
    let changed = std::time::Instant::now();
    let mut last_failure = None;
    for _ in 0..STARTING {
        if !starts(relay.authority()).await {
            last_failure = Some(changed.elapsed());
        }
    }
    let late = last_failure.is_some_and(|after| after > std::time::Duration::from_secs(6));
    assert!(
        !late,
        "a start failed {last_failure:?} after the file had changed"
    );
    assert!(starts(relay.authority()).await);
    assert_still_talking(sessions).await;
}

#[tokio::test]
async fn no_start_is_lost_with_a_second_key() {
    let sim = simulator().await;
    let configuration = azure(&sim.base_url())
        + CROWD
        + "talk.realtime.providers.openai.apiKeySecondary = { env = \"SECOND\" }\n";
    let relay = Relay::start_env(&configuration, &[], &[("SECOND", NEW_KEY)]).await;
    let sessions = talking(&relay).await;
    sim.set_api_keys([NEW_KEY]);
    let authority = relay.authority().to_owned();
    let starting: Vec<_> = (0..STARTING)
        .map(|_| {
            let authority = authority.clone();
            tokio::spawn(async move { starts(&authority).await })
        })
        .collect();
    for start in starting {
        assert!(start.await.unwrap(), "a start was lost");
    }
    assert_still_talking(sessions).await;
    assert_silent_rotation(relay).await;
}

async fn assert_silent_rotation(relay: Relay) {
    let log = relay.log().await;
    assert!(!log.contains("CANARY"), "{log}");
}

// === the metadata service at its own address ===

/// Set in the child that runs inside the namespace.
const INSIDE: &str = "TALKLINE_INSIDE_NAMESPACE";

/// The address of the metadata service is fixed, so the real binary meets it only where
/// 169.254.169.254 can be given to a fake: in a network namespace of the test's own.
#[tokio::test]
async fn the_metadata_service_at_its_own_address() {
    if std::env::var_os(INSIDE).is_some() {
        return inside_the_namespace().await;
    }
    let unshared = |script: &str| {
        let mut command = Command::new("unshare");
        command.args(["--net", "--map-root-user", "sh", "-c", script]);
        command
    };
    let permitted = unshared("ip link set lo up").output().await;
    if !permitted.is_ok_and(|output| output.status.success()) {
        assert!(
            std::env::var_os("CI").is_none(),
            "CI has to permit network namespaces (unshare, ip)"
        );
        eprintln!("skipped: network namespaces are not permitted here");
        return;
    }
    let itself = std::env::current_exe().unwrap();
    let script = format!(
        "ip link set lo up && ip addr add 169.254.169.254/32 dev lo && exec '{}' --exact --nocapture identity::the_metadata_service_at_its_own_address",
        itself.display()
    );
    let output = unshared(&script).env(INSIDE, "1").output().await.unwrap();
    let shown = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        output.status.success() && shown.contains("1 passed"),
        "{shown}"
    );
}

async fn inside_the_namespace() {
    let sim = simulator().await;
    let imds = Imds::builder()
        .listen("169.254.169.254:80".parse().unwrap())
        .token(tokens())
        .start()
        .await
        .unwrap();
    let relay = Relay::start(&keyless(&sim, "kind = \"managed-identity\"")).await;
    assert_eq!(
        claims_seen(&sim, &relay).await["aud"],
        "https://cognitiveservices.azure.com"
    );
    assert_eq!(imds.requests().len(), 1);
    assert_silent(relay).await;
}

// === doctor ===

#[tokio::test]
async fn doctor_tells_who_signs_in_and_never_the_token() {
    let sim = simulator().await;
    let endpoint = AppService::builder()
        .identity_header(IDENTITY_HEADER)
        .token(tokens())
        .start()
        .await
        .unwrap();
    let home = tempfile::tempdir().unwrap();
    let configuration = keyless(&sim, "kind = \"managed-identity\"");
    std::fs::write(home.path().join("talkline.toml"), configuration).unwrap();
    let diagnosed = |header: &'static str| {
        let mut doctor = talkline(home.path());
        doctor
            .args(["doctor", "--output", "json", "--only", "upstream.upgrade"])
            .env("IDENTITY_ENDPOINT", endpoint.identity_endpoint())
            .env("IDENTITY_HEADER", header);
        ended(doctor)
    };
    let well = diagnosed(IDENTITY_HEADER).await;
    assert_eq!(well.code(), Some(0), "{}{}", well.stdout, well.stderr);
    let report: Value = serde_json::from_str(&well.stdout).unwrap();
    assert!(report["checks"].to_string().contains(OBJECT), "{report}");
    assert!(!well.stdout.contains("CANARY"), "{report}");

    let ill = diagnosed("CANARY-WRONG-HEADER-6a0d9c2e71f5b83d4402").await;
    assert_eq!(ill.code(), Some(1), "{}{}", ill.stdout, ill.stderr);
    let report: Value = serde_json::from_str(&ill.stdout).unwrap();
    let finding = &report["findings"][0];
    assert_eq!(finding["checkId"], "upstream.credential", "{report}");
    assert!(
        finding["fixHint"]
            .as_str()
            .is_some_and(|hint| !hint.is_empty()),
        "{report}"
    );
    assert!(!ill.stdout.contains("CANARY"), "{report}");
}

#[tokio::test]
async fn doctor_finds_the_other_scope_and_the_other_key() {
    let sim = simulator().await;
    sim.set_bearer(talkline_sim::BearerRule {
        audiences: vec!["https://ai.azure.com".into()],
        ..talkline_sim::BearerRule::default()
    });
    let endpoint = AppService::builder().token(tokens()).start().await.unwrap();
    let home = tempfile::tempdir().unwrap();
    let diagnosed = |configuration: String| {
        std::fs::write(home.path().join("talkline.toml"), configuration).unwrap();
        let mut doctor = talkline(home.path());
        doctor
            .args(["doctor", "--output", "json", "--severity-min", "info"])
            .env("IDENTITY_ENDPOINT", endpoint.identity_endpoint())
            .env("IDENTITY_HEADER", endpoint.identity_header())
            .env("SECOND", NEW_KEY);
        ended(doctor)
    };
    let scope = diagnosed(keyless(&sim, "kind = \"managed-identity\"")).await;
    assert!(
        scope
            .stdout
            .contains("auth.scope = \\\"https://ai.azure.com/.default\\\""),
        "{}",
        scope.stdout
    );

    sim.set_api_keys([NEW_KEY]);
    let two = azure(&sim.base_url())
        + "talk.realtime.providers.openai.apiKeySecondary = { env = \"SECOND\" }\n";
    let key = diagnosed(two).await;
    assert!(
        key.stdout.contains("the other of the two keys"),
        "{}",
        key.stdout
    );
    assert!(!format!("{}{}", scope.stdout, key.stdout).contains("CANARY"));
}
