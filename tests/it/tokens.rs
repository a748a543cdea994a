//! Tokens from the shell, and what a relay with the same ring makes of them.

use std::{
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use serde_json::Value;
use talkline_sim::caller::{Call, Secret};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::Command,
    time::timeout,
};

use crate::kit::{
    Counter, DEPLOYMENT, Ended, PATIENCE, RawSession, Relay, azure, ended, raw, simulator, talkline,
};

const RING: &str = "CANARY-RING-KEY-5f2e-8d1b7c60a93e4f125";

fn configuration(endpoint: &str) -> String {
    azure(endpoint)
        + "server.allowedOrigins = [\"https://app.test\"]\n\
           tokens.keys = [{ name = \"2026-11\", env = \"RING\" }]\n\
           clients.access.test.maxSessions = 3\n"
}

fn home(endpoint: &str) -> TempDir {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("talkline.toml"), configuration(endpoint)).unwrap();
    home
}

async fn token(home: &Path, arguments: &[&str]) -> Ended {
    let mut command = talkline(home);
    command.arg("token").args(arguments);
    command.env("RING", RING).env("ADMIN", ADMIN_KEY);
    ended(command).await
}

async fn create(home: &Path, arguments: &[&str]) -> String {
    let arguments = [&["create", "--client", "test"], arguments].concat();
    let created = token(home, &arguments).await;
    assert_eq!(created.code(), Some(0), "{}", created.stderr);
    created.stdout.trim().to_owned()
}

fn upgrade(token: &str, model: &str, headers: &str) -> Vec<u8> {
    format!(
        "GET /v1/realtime?model={model} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\
         Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Protocol: realtime, openai-insecure-api-key.{token}\r\n{headers}\r\n"
    )
    .into_bytes()
}

#[tokio::test]
async fn what_is_created_can_be_inspected() {
    let home = home("https://r.openai.azure.com");
    let settings = "{ \"instructions\": \"CANARY-PROMPT\",\n \"voice\": \"marin\" }\n";
    std::fs::write(home.path().join("session.json"), settings).unwrap();
    let made = create(
        home.path(),
        &[
            "--model",
            DEPLOYMENT,
            "--origin",
            "HTTPS://App.test:443/",
            "--session",
            "session.json",
            "--lifetime",
            "30",
            "--max-session",
            "300",
            "--max-tokens",
            "5000",
        ],
    )
    .await;
    assert!(made.starts_with("ek_ey"));
    assert!(
        made.bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    );

    let inspected = token(home.path(), &["inspect", &made]).await;
    assert_eq!(inspected.code(), Some(0), "{}", inspected.stderr);
    let lines = [
        "signature  correct\n",
        "key        2026-11\n",
        "client     test\n",
        "model      gpt-realtime\n",
        "origin     https://app.test\n",
        "bounds     5 minutes, 5000 tokens\n",
        "session    {\"instructions\":\"CANARY-PROMPT\",\"voice\":\"marin\"}\n",
    ];
    for line in lines {
        assert!(
            inspected.stdout.contains(line),
            "{line}{}",
            inspected.stdout
        );
    }

    // Elsewhere, without the ring, the prompt stays sealed.
    let elsewhere = tempfile::tempdir().unwrap();
    let stranger = token(elsewhere.path(), &["inspect", &made, "--output", "json"]).await;
    assert_eq!(stranger.code(), Some(0), "{}", stranger.stderr);
    let found: Value = serde_json::from_str(&stranger.stdout).unwrap();
    assert_eq!(found["client"], "test");
    assert_eq!(found["sealed_settings"], true);
    assert_eq!(found["session"], Value::Null);
    assert_eq!(found["signature_checked"], false);

    let (body, signature) = made.rsplit_once('.').unwrap();
    let altered = format!("{body}.A{}", &signature[1..]);
    let other = format!("{body}.B{}", &signature[1..]);
    let altered = if altered == made { other } else { altered };
    let refused = token(home.path(), &["inspect", &altered]).await;
    assert_eq!(refused.code(), Some(1), "{}", refused.stdout);
    assert!(refused.stdout.contains("has been altered") && !refused.stdout.contains("CANARY"));
    assert_eq!(
        token(home.path(), &["inspect", "ek_nothing"]).await.code(),
        Some(1)
    );
}

#[tokio::test]
async fn what_cannot_be_created() {
    let home = home("https://r.openai.azure.com");
    std::fs::write(
        home.path().join("long.json"),
        format!("{{\"a\":\"{}\"}}", "x".repeat(5000)),
    )
    .unwrap();
    let check = async |arguments: &[&str], expected: &str| {
        let arguments = [&["create"], arguments].concat();
        let refused = token(home.path(), &arguments).await;
        assert_eq!(refused.code(), Some(2), "{arguments:?} {}", refused.stdout);
        assert!(refused.stderr.contains(expected), "{}", refused.stderr);
        assert!(refused.stdout.is_empty());
    };
    check(&["--client", "nobody"], "no client is called `nobody`").await;
    check(
        &["--client", "test", "--model", "other"],
        "no route for model `other`",
    )
    .await;
    check(
        &["--client", "test", "--origin", "app.test"],
        "not a web origin",
    )
    .await;
    check(
        &["--client", "test", "--lifetime", "61"],
        "at most 60 seconds",
    )
    .await;
    check(&["--client", "test", "--lifetime", "0"], "1 to 600 seconds").await;
    check(
        &["--client", "test", "--session", "long.json"],
        "at most 4096",
    )
    .await;
    check(
        &["--client", "test", "--session", "absent.json"],
        "cannot be read",
    )
    .await;

    std::fs::write(
        home.path().join("talkline.toml"),
        azure("https://r.openai.azure.com"),
    )
    .unwrap();
    let without_ring = token(home.path(), &["create", "--client", "test"]).await;
    assert_eq!(without_ring.code(), Some(78), "{}", without_ring.stderr);
    assert!(
        without_ring.stderr.contains("TALKLINE_TOKEN_KEY"),
        "{}",
        without_ring.stderr
    );
}

#[tokio::test]
async fn a_token_opens_one_session() {
    let sim = simulator().await;
    let configuration = configuration(&sim.base_url());
    let relay = Relay::start_env(&configuration, &[], &[("RING", RING)]).await;
    let home = relay.home.path();
    let made = create(
        home,
        &["--model", DEPLOYMENT, "--origin", "https://app.test"],
    )
    .await;

    let refused = [
        (
            DEPLOYMENT,
            "Origin: https://evil.test\r\n",
            "403",
            "origin_not_allowed",
        ),
        (DEPLOYMENT, "", "403", "client_token_origin"),
        (
            "other",
            "Origin: https://app.test\r\n",
            "403",
            "client_token_model",
        ),
    ];
    for (model, headers, status, code) in refused {
        let answer = raw(relay.authority(), &upgrade(&made, model, headers)).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{answer}"
        );
        assert!(answer.contains(&format!("\"code\":\"{code}\"")), "{answer}");
    }
    assert_eq!(sim.requests().len(), 0);

    let bare = create(home, &["--model", DEPLOYMENT]).await;
    let call = Call {
        bearer: Some(Secret::new(&bare)),
        ..relay.call(&format!("/v1/realtime?model={DEPLOYMENT}"))
    };
    crate::kit::turn(&call)
        .await
        .expect("the token opens a session");
    let again = raw(relay.authority(), &upgrade(&bare, DEPLOYMENT, "")).await;
    assert!(
        again.starts_with("HTTP/1.1 401 ") && again.contains("client_token_used"),
        "{again}"
    );
    let log = relay.log().await;
    assert!(
        !log.contains(&made) && !log.contains(&bare) && !log.contains(RING),
        "{log}"
    );
}

/// A relay with a listener for operators, and the addresses of both listeners.
async fn with_operators(home: &Path) -> (tokio::process::Child, String, String) {
    let mut command: Command = talkline(home);
    let mut relay = command
        .arg("run")
        .env("RING", RING)
        .env("ADMIN", ADMIN_KEY)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(relay.stdout.take().unwrap()).lines();
    let mut said = async |prefix: &str| {
        let line = timeout(PATIENCE, lines.next_line()).await.unwrap();
        let line = line.unwrap().unwrap();
        line.strip_prefix(prefix)
            .unwrap_or_else(|| panic!("{line}"))
            .to_owned()
    };
    let clients = said("listening on ws://").await;
    let operators = said("operators on http://").await;
    (relay, clients, operators)
}

const ADMIN_KEY: &str = "CANARY-ADMIN-KEY-40c6-9e17f3b2d85a6c01";

#[tokio::test]
async fn access_is_taken_away() {
    let sim = simulator().await;
    let upstream = Counter::before(sim.addr()).await;
    let home = tempfile::tempdir().unwrap();
    let configuration = configuration(&upstream.url)
        + "talk.realtime.providers.long.type = \"azure-openai\"\n\
           talk.realtime.providers.long.azureDeployment = \"long_reply\"\n\
           talk.realtime.providers.long.apiKey = { env = \"AZURE_KEY\" }\n"
        + &format!(
            "talk.realtime.providers.long.azureEndpoint = \"{}\"\n",
            upstream.url
        )
        + "admin.listen = \"127.0.0.1:0\"\nadmin.key = { env = \"ADMIN\" }\n";
    std::fs::write(home.path().join("talkline.toml"), configuration).unwrap();
    let (_relay, clients, operators) = with_operators(home.path()).await;
    let revoke = async |key: &str, arguments: &[&str]| {
        let mut command = talkline(home.path());
        command
            .args(["token", "revoke", "--admin", &operators])
            .args(arguments);
        command.env("RING", RING).env("ADMIN", key);
        ended(command).await
    };

    let used = create(home.path(), &[]).await;
    let spare = create(home.path(), &[]).await;
    let header = format!("Sec-WebSocket-Protocol: realtime, openai-insecure-api-key.{used}\r\n");
    let mut session = RawSession::open(&clients, "/v1/realtime?model=long_reply", &header).await;
    assert!(
        session.head.starts_with("HTTP/1.1 101 "),
        "{}",
        session.head
    );
    session.send(1, br#"{"type":"response.create"}"#).await;
    while session.event().await.json()["type"] != "response.output_audio.delta" {}

    let refused = revoke("wrong-admin-key-of-some-length", &["--client", "test"]).await;
    assert_eq!(refused.code(), Some(77), "{}", refused.stderr);
    assert!(
        refused.stderr.contains("answered 401"),
        "{}",
        refused.stderr
    );

    // The token that opened the session: it ends in the middle of a sentence.
    let revoked = revoke(ADMIN_KEY, &["--token", &used]).await;
    let since = Instant::now();
    assert_eq!(revoked.code(), Some(0), "{}", revoked.stderr);
    assert!(
        revoked.stdout.starts_with("revoked token "),
        "{}",
        revoked.stdout
    );
    let mut last = session.event().await;
    let close = loop {
        let frame = session.event().await;
        if frame.opcode == 8 {
            break frame;
        }
        last = frame;
    };
    assert_eq!(last.json()["error"]["code"], "access_revoked");
    assert_eq!(close.close(), (1008, "access_revoked"));
    upstream.idle().await;
    let took = since.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?}");

    // One that was not used yet: it opens none.
    let inspected = token(home.path(), &["inspect", &spare, "--output", "json"]).await;
    let id: Value = serde_json::from_str(&inspected.stdout).unwrap();
    let revoked = revoke(
        ADMIN_KEY,
        &["--token", id["id"].as_str().unwrap(), "--time", "60"],
    )
    .await;
    assert_eq!(revoked.code(), Some(0), "{}", revoked.stderr);
    let answer = raw(&clients, &upgrade(&spare, DEPLOYMENT, "")).await;
    assert!(answer.contains("revoked"), "{answer}");

    let bad = revoke(ADMIN_KEY, &["--token", "ek_nothing"]).await;
    assert_eq!(bad.code(), Some(2), "{}", bad.stderr);
    assert_eq!(revoke(ADMIN_KEY, &[]).await.code(), Some(2));
}
