//! What the log promises: one line for each session with everything in it, lines that nobody can
//! forge, and a reader that does not read holds nothing up.

use std::process::Stdio;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};

use crate::kit::{
    CLIENT_KEY, DEPLOYMENT, RawSession, Relay, azure, ended, raw, simulator, talkline, turn,
};

#[tokio::test]
async fn a_session_leaves_one_line_that_says_all() {
    let simulator = simulator().await;
    let configuration =
        azure(&simulator.base_url()) + "prices.models.gpt-realtime.outputAudio = \"64\"\n";
    let relay = Relay::start(&configuration).await;
    turn(&relay.plain_call()).await.unwrap();
    let log = relay.log().await;
    let lines: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .filter(|line: &Value| line["message"] == "session ended")
        .collect();
    let [line] = &lines[..] else {
        panic!("one line: {log}");
    };
    for field in [
        "session",
        "client",
        "model",
        "dialect",
        "provider",
        "upstream",
        "deployment",
        "ended_by",
        "end",
        "close_code",
        "close_reason",
        "duration_ms",
        "dial_ms",
        "dns_ms",
        "tcp_ms",
        "tls_ms",
        "upgrade_ms",
        "first_audio_ms",
        "client_frames",
        "client_bytes",
        "upstream_frames",
        "upstream_bytes",
        "upstream_session",
        "request_id",
        "region",
        "responses_completed",
        "tokens_total",
        "input_text_tokens",
        "input_audio_tokens",
        "output_text_tokens",
        "output_audio_tokens",
        "cached_tokens",
        "cost",
        "client_stalled_ms",
    ] {
        assert!(!line[field].is_null(), "{field} is missing: {line}");
    }
    assert_eq!(line["client"], "test");
    assert_eq!(line["deployment"], DEPLOYMENT);
    let audio = line["output_audio_tokens"].as_f64().unwrap();
    assert!((line["cost"].as_f64().unwrap() - audio * 64.0 / 1e6).abs() < 1e-12);
}

/// Everything that a client chooses: the path, the query, each header, its close reason, its events.
#[tokio::test]
async fn a_client_cannot_write_lines_of_its_own() {
    let simulator = simulator().await;
    let home = tempfile::tempdir().unwrap();
    std::fs::write(
        home.path().join("talkline.toml"),
        azure(&simulator.base_url()),
    )
    .unwrap();
    let mut child = talkline(home.path())
        .args(["run", "--log-format", "compact", "--log-level", "debug"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = lines.next_line().await.unwrap().unwrap();
    let authority = line.rsplit('/').next().unwrap().to_owned();

    let forged = "%0a2026-01-01T00:00:00Z%20%20INFO%20talkline:%20forged%1b[2J";
    let bytes = "\u{1b}[2J\u{9b}2J\u{202e}";
    for head in [
        format!("GET /{forged} HTTP/1.1\r\nHost: x\r\n\r\n"),
        format!("GET /v1/realtime?model={forged} HTTP/1.1\r\nHost: {bytes}\r\n\r\n"),
        format!(
            "GET /v1/realtime HTTP/1.1\r\nHost: x\r\nOrigin: {bytes}\r\nUser-Agent: {bytes}\r\n\r\n"
        ),
        format!("{bytes} / HTTP/1.1\r\nHost: x\r\n\r\n"),
    ] {
        raw(&authority, head.as_bytes()).await;
    }
    let key = format!("Authorization: Bearer {CLIENT_KEY}\r\n");
    for (target, headers) in [
        (format!("/v1/realtime?model={forged}"), key.clone()),
        (
            format!("/v1/realtime?model={DEPLOYMENT}&x={forged}"),
            format!("{key}x-ms-client-request-id: a\tb{bytes}\r\nUser-Agent: {bytes}\r\n"),
        ),
        (
            format!("/v1/realtime?model={DEPLOYMENT}"),
            format!("{key}X-Forwarded-For: 1.1.1.1{bytes}\r\n"),
        ),
    ] {
        let mut session = RawSession::open(&authority, &target, &headers).await;
        if session.head.starts_with("HTTP/1.1 101") {
            let event = format!("{{\"type\":\"a\\nb{bytes}\",\"event_id\":\"{bytes}\"}}");
            session.send(1, event.as_bytes()).await;
            let reason = format!("x\n2026-01-01T00:00:00Z INFO forged{bytes}");
            let close = [&1000_u16.to_be_bytes()[..], reason.as_bytes()].concat();
            session.send(8, &close).await;
            while session.frame().await.is_some_and(|frame| frame.opcode != 8) {}
        }
    }
    let pid = child.id().unwrap().to_string();
    let killed = std::process::Command::new("kill")
        .args(["-TERM", &pid])
        .status();
    assert!(killed.unwrap().success());
    let mut log = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut log)
        .await
        .unwrap();
    child.wait().await.unwrap();

    assert!(log.lines().count() > 8, "{log}");
    for line in log.lines() {
        let stamp = line
            .get(..4)
            .is_some_and(|year| year.chars().all(|c| c.is_ascii_digit()));
        assert!(
            stamp && !line.starts_with("2026-01-01"),
            "a forged line: {line:?}"
        );
        assert!(
            !line.contains(|c: char| c.is_control() || c == '\u{202e}'),
            "{line:?}"
        );
    }
}

/// A log reader that hangs costs log lines and nothing else.
#[tokio::test]
async fn a_full_pipe_as_standard_error_holds_no_session_up() {
    let simulator = simulator().await;
    let home = tempfile::tempdir().unwrap();
    std::fs::write(
        home.path().join("talkline.toml"),
        azure(&simulator.base_url()),
    )
    .unwrap();
    let mut child = talkline(home.path())
        .args(["run", "--log-format", "json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Held open, and never read until the end.
    let unread = child.stderr.take().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = lines.next_line().await.unwrap().unwrap();
    let url = line.strip_prefix("listening on ").unwrap().to_owned();
    let authority = url.rsplit('/').next().unwrap().to_owned();

    // A pipe holds 64 KiB; each refusal logs more than 100 bytes.
    for _ in 0..1000 {
        let answer = raw(
            &authority,
            b"GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n",
        )
        .await;
        assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    }
    let call = talkline_sim::caller::Call {
        bearer: Some(talkline_sim::caller::Secret::new(CLIENT_KEY)),
        ..talkline_sim::caller::Call::new(format!("{url}/v1/realtime?model={DEPLOYMENT}"))
    };
    let report = turn(&call).await.unwrap();
    assert!(report.missing().is_empty(), "{:?}", report.missing());

    let pid = child.id().unwrap().to_string();
    let killed = std::process::Command::new("kill")
        .args(["-TERM", &pid])
        .status();
    assert!(killed.unwrap().success());
    let ended = tokio::time::timeout(crate::kit::PATIENCE, child.wait()).await;
    assert!(
        ended
            .expect("it ends though nobody reads")
            .unwrap()
            .success()
    );
    drop(unread);
}

#[tokio::test]
async fn health_is_asked_without_a_shell() {
    let simulator = simulator().await;
    let relay = Relay::start(&azure(&simulator.base_url())).await;
    let home = tempfile::tempdir().unwrap();
    let configuration = azure(&simulator.base_url()).replace("127.0.0.1:0", &relay.listener);
    std::fs::write(home.path().join("talkline.toml"), configuration).unwrap();
    let ask = |arguments: &'static [&'static str]| {
        let mut command = talkline(home.path());
        command.arg("healthcheck").args(arguments);
        ended(command)
    };
    for arguments in [&[][..], &["--ready"]] {
        let said = ask(arguments).await;
        assert_eq!(said.code(), Some(0), "{}", said.stderr);
    }
    relay.log().await;
    let said = ask(&[]).await;
    assert_eq!(said.code(), Some(1), "{}", said.stderr);
    assert!(said.stderr.contains("does not answer"), "{}", said.stderr);
}

#[tokio::test]
async fn a_service_manager_is_told() {
    let simulator = simulator().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let socket = tokio::net::UnixDatagram::bind(&path).unwrap();
    let variables = [("NOTIFY_SOCKET", path.to_str().unwrap())];
    let relay = Relay::start_env(&azure(&simulator.base_url()), &[], &variables).await;
    let mut word = [0; 64];
    let mut told = async || {
        let told = tokio::time::timeout(crate::kit::PATIENCE, socket.recv(&mut word)).await;
        let length = told.expect("it tells").unwrap();
        String::from_utf8_lossy(&word[..length]).trim().to_owned()
    };
    assert_eq!(told().await, "READY=1");
    relay.signal("-TERM");
    assert_eq!(told().await, "STOPPING=1");
}
