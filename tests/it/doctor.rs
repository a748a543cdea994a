//! `doctor` against upstreams that fail in every way, as a script sees it.

use std::{net::SocketAddr, os::unix::fs::PermissionsExt as _, path::Path, sync::Arc};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use serde_json::Value;
use talkline_sim::{Builder, Profile, Refusal, Running};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use crate::kit::{
    AZURE_KEY, CLIENT_KEY, DEPLOYMENT, Trap, azure, azure_deployment, ended, quick, simulator,
    talkline,
};

/// A key with the length that Azure's have.
const LONG_KEY: &str = "CANARY0AZURE0KEY0a1b2c3d4e5f6070";
const RESOURCE: &str = "voice.openai.azure.com";

/// What the doctor said.
struct Said {
    code: Option<i32>,
    report: Value,
    home: TempDir,
}

impl Said {
    /// `check code` of each finding above a hint.
    fn findings(&self) -> Vec<String> {
        let all = self.report["findings"].as_array().unwrap().iter();
        all.filter(|finding| finding["severity"] != "info")
            .map(|finding| {
                let text = |name: &str| finding[name].as_str().unwrap().to_owned();
                format!("{} {}", text("checkId"), text("code"))
            })
            .collect()
    }

    fn finding(&self, code: &str) -> &Value {
        let mut all = self.report["findings"].as_array().unwrap().iter();
        all.find(|finding| finding["code"] == code)
            .unwrap_or_else(|| panic!("no {code}: {}", self.report))
    }

    fn check(&self, id: &str) -> &Value {
        let mut all = self.report["checks"].as_array().unwrap().iter();
        all.find(|check| check["checkId"] == id)
            .unwrap_or_else(|| panic!("no {id}: {}", self.report))
    }

    fn outcome(&self, id: &str) -> &str {
        self.check(id)["outcome"].as_str().unwrap()
    }
}

/// Runs the doctor twice, for a program and for a person. Neither may show a secret, nobody may
/// come near OpenAI, and every finding has a remedy.
async fn doctor(configuration: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Said {
    let home = tempfile::tempdir().unwrap();
    doctor_at(home, configuration, arguments, variables).await
}

async fn doctor_at(
    home: TempDir,
    configuration: &str,
    arguments: &[&str],
    variables: &[(&str, &str)],
) -> Said {
    let trap = Trap::set().await;
    std::fs::write(home.path().join("talkline.toml"), configuration).unwrap();
    let command = |format: &'static str| {
        let mut command = talkline(home.path());
        command
            .args(["doctor", "--output", format, "--resolve", &trap.resolve()])
            .args(arguments)
            .envs(variables.iter().copied());
        command
    };
    let (machine, human) = tokio::join!(ended(command("json")), ended(command("human")));
    for text in [
        &machine.stdout,
        &machine.stderr,
        &human.stdout,
        &human.stderr,
    ] {
        assert!(!text.contains("CANARY"), "a secret is shown: {text}");
    }
    assert_eq!(machine.code(), human.code(), "{}", human.stdout);
    assert_eq!(trap.caught(), 0);
    let report: Value = serde_json::from_str(&machine.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}{}", machine.stdout, machine.stderr));
    assert_eq!(report["schemaVersion"], 1);
    assert!(report["durationMs"].as_f64().unwrap() < 10_500.0 || arguments.contains(&"--turn"));
    for finding in report["findings"].as_array().unwrap() {
        let code = finding["code"].as_str().unwrap();
        assert!(
            human.stdout.contains(&format!("[{code}]")),
            "{}",
            human.stdout
        );
        for name in ["message", "fixHint", "docsUrl"] {
            assert!(
                finding[name].as_str().is_some_and(|text| !text.is_empty()),
                "{finding}"
            );
        }
    }
    Said {
        code: machine.code(),
        report,
        home,
    }
}

async fn check(configuration: &str, expected: &[&str], skipped: &[&str]) -> Said {
    let said = doctor(configuration, &[], &[]).await;
    let findings = said.findings();
    assert_eq!(findings.len(), expected.len(), "{findings:?} {expected:?}");
    for (finding, expected) in findings.iter().zip(expected) {
        assert!(finding.starts_with(expected), "{findings:?} {expected:?}");
    }
    assert_eq!(said.code, Some(i32::from(!expected.is_empty())));
    assert_eq!(said.report["ok"], expected.is_empty());
    for id in skipped {
        assert_eq!(said.outcome(id), "skipped", "{id}");
        assert!(
            said.check(id)["reason"]
                .as_str()
                .is_some_and(|reason| !reason.is_empty())
        );
    }
    said
}

/// `(scenario, findings, checks that cannot run then)`.
const SCENARIOS: &[(&str, &[&str], &[&str])] = &[
    (
        "gpt-realtime",
        &[],
        &["upstream.tls", "upstream.alternatives", "turn"],
    ),
    (
        "key_invalid",
        &["upstream.upgrade azure_key_invalid"],
        &["upstream.session"],
    ),
    (
        "no_auth",
        &["upstream.upgrade azure_"],
        &["upstream.session"],
    ),
    (
        "key_auth_disabled",
        &["upstream.upgrade azure_key_auth_disabled"],
        &["upstream.session"],
    ),
    (
        "firewall",
        &["upstream.upgrade azure_firewall"],
        &["upstream.session", "upstream.alternatives"],
    ),
    (
        "public_access_disabled",
        &["upstream.upgrade azure_private_only"],
        &["upstream.session"],
    ),
    (
        "deployment_not_found",
        &["upstream.upgrade azure_deployment_not_found"],
        &["upstream.session", "upstream.update"],
    ),
    (
        "resource_not_found",
        &["upstream.upgrade azure_path_not_found"],
        &["upstream.session"],
    ),
    (
        "model_not_realtime",
        &["upstream.upgrade azure_model_not_realtime"],
        &["upstream.session"],
    ),
    (
        "api_version_bad",
        &["upstream.upgrade azure_api_version"],
        &["upstream.session"],
    ),
    (
        "rate_limit_calls",
        &["upstream.upgrade azure_rate_limited"],
        &["upstream.session", "upstream.alternatives"],
    ),
    (
        "redirect_302",
        &["upstream.upgrade azure_upgrade_redirect"],
        &["upstream.session"],
    ),
    (
        "unavailable",
        &["upstream.upgrade azure_unavailable"],
        &["upstream.session", "upstream.alternatives"],
    ),
    (
        "wrong_accept",
        &["upstream.upgrade azure_bad_handshake"],
        &["upstream.session"],
    ),
    (
        "unrequested_extension",
        &["upstream.upgrade azure_bad_handshake"],
        &["upstream.session"],
    ),
    (
        "closes_after_101",
        &["upstream.session session_ended"],
        &["upstream.update", "upstream.close"],
    ),
    (
        "closes_mid_frame",
        &["upstream.session session_ended"],
        &["upstream.update", "upstream.close"],
    ),
    ("session_created_with_101", &[], &[]),
    ("fragmented_replies", &[], &[]),
];

#[tokio::test]
async fn every_refusal_is_named() {
    for (scenario, expected, skipped) in SCENARIOS {
        let sim = simulator().await;
        check(
            &azure_deployment(&sim.base_url(), scenario),
            expected,
            skipped,
        )
        .await;
    }
}

#[tokio::test]
async fn silence_is_bounded() {
    let sim = simulator().await;
    let stalls = azure_deployment(&sim.base_url(), "stalls_before_101");
    let deaf = azure_deployment(&sim.base_url(), "stops_reading");
    let (stalls, _) = tokio::join!(
        check(
            &stalls,
            &["upstream.upgrade azure_upgrade_timeout"],
            &["upstream.session"]
        ),
        check(&deaf, &["upstream.update session_silent"], &[]),
    );
    let took = stalls.check("upstream.upgrade")["durationMs"]
        .as_f64()
        .unwrap();
    assert!((4_000.0..9_000.0).contains(&took), "{took}");
}

#[tokio::test]
async fn the_first_probe_carries_no_credential() {
    let sim = simulator().await;
    let said = check(&azure(&sim.base_url()), &[], &[]).await;
    assert_eq!(
        said.check("upstream.unauthenticated")["evidence"]["status"],
        401
    );
    assert_eq!(
        said.check("upstream.session")["evidence"]["model"],
        DEPLOYMENT
    );
    // One request of each kind from each of the two runs.
    let requests = sim.requests();
    assert_eq!(requests.len(), 4);
    let (with, without): (Vec<_>, Vec<_>) = requests
        .iter()
        .partition(|request| request.header("api-key") == Some(AZURE_KEY));
    assert_eq!((with.len(), without.len()), (2, 2));
    for request in without {
        assert!(!format!("{request:?}").contains("CANARY"), "{request:?}");
        assert_eq!(request.status, 401);
    }
    assert!(!format!("{requests:?}").contains(CLIENT_KEY));
}

#[tokio::test]
async fn a_key_of_another_resource() {
    let sim = simulator().await;
    let said = doctor(
        &azure(&sim.base_url()),
        &[],
        &[("AZURE_KEY", "CANARY-wrong-key")],
    )
    .await;
    assert_eq!(
        (said.code, said.findings()),
        (
            Some(1),
            vec!["upstream.upgrade azure_key_invalid".to_owned()]
        )
    );
    let finding = said.finding("azure_key_invalid");
    assert_eq!(finding["path"], "talk.realtime.providers.openai.apiKey");
    assert!(
        finding["evidence"]["requestId"]
            .as_str()
            .is_some_and(|id| !id.is_empty())
    );
    assert_eq!(finding["evidence"]["region"], "East US 2");
}

#[tokio::test]
async fn an_openai_key_in_the_environment_is_never_used() {
    for scenario in ["key_invalid", "redirect_302", DEPLOYMENT] {
        let sim = simulator().await;
        let configuration = azure_deployment(&sim.base_url(), scenario);
        let variables = [("OPENAI_API_KEY", "sk-CANARY-openai")];
        let said = doctor(&configuration, &[], &variables).await;
        said.finding("variable.openai-key-unused");
        assert!(!format!("{:?}", sim.requests()).contains("sk-CANARY"));
    }
}

#[tokio::test]
async fn nobody_listens() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let later = [
        "upstream.unauthenticated",
        "upstream.upgrade",
        "upstream.session",
        "clock",
    ];
    let said = check(&azure(&endpoint), &["upstream.tcp azure_tcp"], &later).await;
    assert_eq!(
        said.check("upstream.upgrade")["reason"],
        "needs upstream.tls, which did not run"
    );
    // What needs no network is checked all the same.
    assert_eq!(said.outcome("upstream.credential"), "passed");
    assert_eq!(said.outcome("listener.port"), "passed");
}

#[tokio::test]
async fn a_name_that_nobody_has() {
    let configuration = azure("https://voice.invalid")
        + "talk.realtime.providers.openai.allowedHosts = [\"voice.invalid\"]\n";
    let later = ["upstream.tcp", "upstream.tls", "upstream.upgrade"];
    check(&configuration, &["upstream.dns azure_dns"], &later).await;
}

#[tokio::test]
async fn a_broken_configuration_ends_the_run() {
    let said = doctor(
        &(azure("https://voice.openai.azure.com") + "sever.listen = \"x\"\n"),
        &[],
        &[],
    )
    .await;
    assert_eq!(said.code, Some(1));
    assert_eq!(said.report["checksRun"], serde_json::json!(["config"]));
    assert!(
        said.finding("key.unknown")["fixHint"]
            .as_str()
            .unwrap()
            .contains("server")
    );
    assert_eq!(
        said.check("upstream.dns")["reason"],
        "needs config, which failed"
    );
}

#[tokio::test]
async fn selection_and_exit_codes() {
    let sim = simulator().await;
    let configuration = azure_deployment(&sim.base_url(), "deployment_not_found");
    let said = doctor(&configuration, &["--only", "upstream.dns,secrets"], &[]).await;
    assert_eq!(said.code, Some(0));
    assert_eq!(
        said.report["checksRun"],
        serde_json::json!(["config", "secrets", "upstream.dns"])
    );
    let said = doctor(&configuration, &["--skip", "upstream.tcp"], &[]).await;
    assert_eq!(said.code, Some(0));
    assert_eq!(
        said.check("upstream.tls")["reason"],
        "needs upstream.tcp, which was left out"
    );
    assert_eq!(sim.requests().len(), 0);

    let home = tempfile::tempdir().unwrap();
    for arguments in [
        ["--only", "nonsense"],
        ["--config", "absent.toml"],
        ["--severity-min", "x"],
    ] {
        let mut command = talkline(home.path());
        command.arg("doctor").args(arguments);
        let ended = ended(command).await;
        assert_eq!(ended.code(), Some(2), "{arguments:?}: {}", ended.stderr);
        assert!(ended.stdout.is_empty());
    }
}

#[tokio::test]
async fn what_is_wrong_on_this_machine() {
    let sim = simulator().await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("key"), AZURE_KEY).unwrap();
    let set_mode = |home: &Path, mode| {
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(home.join("key"), permissions).unwrap();
    };
    set_mode(home.path(), 0o644);
    let configuration = azure(&sim.base_url())
        .replace("127.0.0.1:0", &taken.local_addr().unwrap().to_string())
        .replace("{ env = \"AZURE_KEY\" }", "{ file = \"key\" }")
        + "limits.maxSessions = 1000000\n";
    let local = ["secrets", "listener.port", "process.files"];
    let arguments = ["--only", &local.join(",")];
    let said = doctor_at(home, &configuration, &arguments, &[]).await;
    assert_eq!(said.code, Some(1));
    for (check, code) in local
        .iter()
        .zip(["secret_file_mode", "listener_in_use", "files_limit"])
    {
        assert_eq!(said.finding(code)["checkId"], *check);
    }
    // Nothing above a warning, so a caller that asks for errors is content.
    let arguments = ["--only", &local.join(","), "--severity-min", "error"];
    let said = doctor_at(said.home, &configuration, &arguments, &[]).await;
    assert_eq!(
        (said.code, &said.report["ok"]),
        (Some(0), &Value::Bool(true))
    );
    set_mode(said.home.path(), 0o600);
    let said = doctor_at(said.home, &configuration, &["--only", "secrets"], &[]).await;
    assert_eq!(said.code, Some(0));
}

#[tokio::test]
async fn one_spoken_turn() {
    let sim = simulator().await;
    let said = doctor(&azure(&sim.base_url()), &["--turn", "--only", "turn"], &[]).await;
    assert_eq!(said.code, Some(0), "{}", said.report);
    let evidence = &said.check("turn")["evidence"];
    assert!(
        evidence["firstAudioMs"]
            .as_f64()
            .is_some_and(|time| time > 0.0),
        "{evidence}"
    );
    assert!(
        evidence["replyAudioMs"]
            .as_f64()
            .is_some_and(|time| time > 1_000.0),
        "{evidence}"
    );
    let refused = azure_deployment(&sim.base_url(), "key_invalid");
    let said = doctor(&refused, &["--turn", "--only", "turn"], &[]).await;
    assert_eq!(
        said.check("turn")["reason"],
        "needs upstream.upgrade, which failed"
    );
    let silent = azure_deployment(&sim.base_url(), "content_filter");
    let said = doctor(&silent, &["--turn", "--only", "turn"], &[]).await;
    assert_eq!(said.outcome("turn"), "found", "{}", said.report);
}

/// Answers every request with what `answer` makes of its head.
async fn raw_upstream(answer: fn(&str) -> String) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n")
                    && stream.read_buf(&mut head).await.is_ok_and(|read| read > 0)
                {}
                let answer = answer(&String::from_utf8_lossy(&head));
                let _ = stream.write_all(answer.as_bytes()).await;
            });
        }
    });
    address
}

#[tokio::test]
async fn an_upstream_that_echoes_the_key() {
    let upstream = raw_upstream(|head| {
        let message = format!("you sent {head}");
        let body = serde_json::json!({"error": {"code": head, "message": message}}).to_string();
        format!(
            "HTTP/1.1 401 Unauthorized\r\nx-ms-region: {AZURE_KEY}\r\napim-request-id: {AZURE_KEY}\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        )
    });
    // `doctor` itself looks for canaries in everything that was printed.
    let said = doctor(&azure(&format!("http://{}", upstream.await)), &[], &[]).await;
    assert_eq!(said.code, Some(1));
    assert!(said.report.to_string().contains("[redacted]"));
}

#[tokio::test]
async fn a_firewall_shows_without_a_credential() {
    let upstream = raw_upstream(|_| {
        let body = r#"{"error":{"code":"403","message":"Access denied due to Virtual Network/Firewall rules."}}"#;
        format!(
            "HTTP/1.1 403 Forbidden\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        )
    });
    let expected = [
        "upstream.unauthenticated azure_firewall",
        "upstream.upgrade azure_firewall",
    ];
    let configuration = azure(&format!("http://{}", upstream.await));
    let said = check(
        &configuration,
        &expected,
        &["upstream.alternatives", "clock"],
    )
    .await;
    assert_eq!(said.report["findings"][0]["severity"], "warning");
    assert_eq!(said.report["findings"][1]["severity"], "error");
}

#[tokio::test]
async fn hints_about_cloud_and_region() {
    let government = azure("https://voice.openai.azure.us");
    let said = doctor(&government, &["--only", "upstream.cloud"], &[]).await;
    assert_eq!(
        said.findings(),
        ["config azure.government", "upstream.cloud cloud_government"]
    );

    let sim = quick().region("Norway East").start().await.unwrap();
    let said = doctor(&azure(&sim.base_url()), &[], &[]).await;
    assert_eq!(said.code, Some(0), "a hint is no finding by default");
    assert!(
        said.finding("region_unlisted")["message"]
            .as_str()
            .unwrap()
            .contains("2026-06-03")
    );
    let arguments = ["--severity-min", "info"];
    let said = doctor(&azure(&sim.base_url()), &arguments, &[]).await;
    assert_eq!(
        (said.code, &said.report["ok"]),
        (Some(1), &Value::Bool(false))
    );
}

#[tokio::test]
async fn a_clock_that_is_wrong() {
    let upstream = raw_upstream(|_| {
        "HTTP/1.1 401 Unauthorized\r\nDate: Tue, 03 Mar 2020 10:00:00 GMT\r\nContent-Length: 0\r\n\
         Connection: close\r\n\r\n"
            .to_owned()
    });
    let said = doctor(&azure(&format!("http://{}", upstream.await)), &[], &[]).await;
    assert!(
        said.finding("clock_skew")["message"]
            .as_str()
            .unwrap()
            .contains("ahead of")
    );
}

#[tokio::test]
async fn the_other_path_that_would_work() {
    let sim = quick().profile(Profile::Ga).start().await.unwrap();
    let preview = azure(&sim.base_url())
        + "talk.realtime.providers.openai.azureApiVersion = \"2025-04-01-preview\"\n";
    let said = doctor(&preview, &[], &[]).await;
    assert_eq!(said.code, Some(1));
    let finding = said.finding("alternative_works");
    assert_eq!(
        finding["path"],
        "talk.realtime.providers.openai.azureApiVersion"
    );
    assert!(
        finding["fixHint"]
            .as_str()
            .unwrap()
            .starts_with("remove azureApiVersion")
    );
}

/// A certificate authority, and a server's certificate by it.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Self { issuer }
    }

    fn write(&self, home: &Path) -> String {
        let path = home.join("ca.pem");
        std::fs::write(&path, self.issuer.pem()).unwrap();
        path.display().to_string()
    }

    fn server(
        &self,
        names: &[&str],
        adjust: fn(&mut CertificateParams),
    ) -> Arc<rustls::ServerConfig> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        let now = time::OffsetDateTime::now_utc();
        params.not_before = now - time::Duration::days(60);
        params.not_after = now + time::Duration::days(60);
        adjust(&mut params);
        let key = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, &self.issuer).unwrap();
        let key = rustls_pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        talkline_gateway::tls::server_config_from(vec![leaf.der().clone()], key).unwrap()
    }
}

async fn secure(builder: Builder, tls: Arc<rustls::ServerConfig>) -> Running {
    builder.api_key(LONG_KEY).tls(tls).start().await.unwrap()
}

/// Runs the doctor with names of Azure leading to simulators.
async fn doctor_over_tls(trusted: &Authority, hosts: &[(&str, &Running)]) -> Said {
    let home = tempfile::tempdir().unwrap();
    let roots = trusted.write(home.path());
    let resolve: Vec<String> = hosts
        .iter()
        .map(|(host, sim)| format!("{host}:443:{}", sim.addr()))
        .collect();
    let arguments: Vec<&str> = resolve
        .iter()
        .flat_map(|each| ["--resolve", each.as_str()])
        .collect();
    let variables = [("AZURE_KEY", LONG_KEY), ("SSL_CERT_FILE", roots.as_str())];
    doctor_at(
        home,
        &azure(&format!("https://{RESOURCE}")),
        &arguments,
        &variables,
    )
    .await
}

#[tokio::test]
async fn certificates() {
    let ours = Authority::new("Example CA");
    let stranger = Authority::new("Zscaler Intermediate Root CA");
    let expired: fn(&mut CertificateParams) = |params| {
        params.not_after = time::OffsetDateTime::now_utc() - time::Duration::days(1);
    };
    let ending: fn(&mut CertificateParams) = |params| {
        params.not_after = time::OffsetDateTime::now_utc() + time::Duration::hours(84);
    };
    let sound: fn(&mut CertificateParams) = |_| {};
    // (server, finding, piece of its message)
    let cases = [
        (
            ours.server(&[RESOURCE], expired),
            "azure_tls",
            "has expired",
        ),
        (
            ours.server(&["other.example"], sound),
            "azure_tls",
            "for other.example",
        ),
        (
            stranger.server(&[RESOURCE], sound),
            "azure_tls",
            "That is Zscaler",
        ),
        (
            ours.server(&[RESOURCE], ending),
            "certificate_expires",
            "in 3 days",
        ),
    ];
    for (server, code, piece) in cases {
        let sim = secure(quick(), server).await;
        let said = doctor_over_tls(&ours, &[(RESOURCE, &sim)]).await;
        assert_eq!(said.code, Some(1), "{}", said.report);
        let finding = said.report["findings"]
            .as_array()
            .unwrap()
            .iter()
            .find(|finding| {
                finding["checkId"] == "upstream.tls"
                    && finding["code"].as_str().unwrap().starts_with(code)
            });
        let message = finding.unwrap_or_else(|| panic!("{code}: {}", said.report))["message"]
            .as_str()
            .unwrap();
        assert!(message.contains(piece), "{message}");
        if code == "azure_tls" {
            assert_eq!(
                sim.requests().len(),
                0,
                "no request went over the connection"
            );
        }
    }
}

#[tokio::test]
async fn a_sound_line_over_tls() {
    let ours = Authority::new("Example CA");
    let sim = secure(quick(), ours.server(&[RESOURCE], |_| {})).await;
    let said = doctor_over_tls(&ours, &[(RESOURCE, &sim)]).await;
    assert_eq!(
        (said.code, said.findings()),
        (Some(0), Vec::new()),
        "{}",
        said.report
    );
    let tls = &said.check("upstream.tls")["evidence"];
    assert_eq!(tls["issuer"], "CN=Example CA");
    assert_eq!(tls["names"], serde_json::json!([RESOURCE]));
    assert_eq!(tls["protocol"], "TLSv1_3");
    assert_eq!(said.check("upstream.session")["outcome"], "passed");
}

#[tokio::test]
async fn a_certificate_that_names_the_key() {
    let ours = Authority::new(LONG_KEY);
    let sim = secure(quick(), ours.server(&[RESOURCE], |_| {})).await;
    let said = doctor_over_tls(&ours, &[(RESOURCE, &sim)]).await;
    let tls = &said.check("upstream.tls")["evidence"];
    assert_eq!(tls["issuer"], "CN=[redacted]");
}

#[tokio::test]
async fn the_other_host_that_would_work() {
    let ours = Authority::new("Example CA");
    let names = [
        "voice.openai.azure.com",
        "voice.cognitiveservices.azure.com",
        "voice.services.ai.azure.com",
    ];
    let server = ours.server(&names, |_| {});
    let refusing = secure(
        quick().always(Refusal::resource_not_found()),
        Arc::clone(&server),
    )
    .await;
    let serving = secure(quick(), server).await;
    let hosts = [
        (names[0], &refusing),
        (names[1], &refusing),
        (names[2], &serving),
    ];
    let said = doctor_over_tls(&ours, &hosts).await;
    assert_eq!(said.code, Some(1));
    let finding = said.finding("alternative_works");
    assert_eq!(
        finding["path"],
        "talk.realtime.providers.openai.azureEndpoint"
    );
    assert_eq!(
        finding["fixHint"],
        "set azureEndpoint = \"https://voice.services.ai.azure.com\""
    );
    // The key went to the resource's own names and to nobody else, each alternative once a run.
    assert_eq!(serving.requests().len(), 2);
    assert_eq!(refusing.requests().len(), 2 * 4);
}
