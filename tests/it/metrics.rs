//! `/metrics` of the real binary, after sessions that ended in different ways.

use std::process::Stdio;

use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    time::timeout,
};

use crate::kit::{
    CLIENT_KEY, DEPLOYMENT, PATIENCE, RawSession, azure, raw, simulator, talkline, turn,
};

#[tokio::test]
async fn sessions_are_counted_where_operators_look() {
    let simulator = simulator().await;
    let home = tempfile::tempdir().unwrap();
    let configuration = azure(&simulator.base_url())
        + "admin.listen = \"127.0.0.1:0\"\nlimits.pingInterval = \"1s\"\n\
           prices.models.gpt-realtime.outputAudio = \"64\"\n";
    std::fs::write(home.path().join("talkline.toml"), configuration).unwrap();
    let mut child = talkline(home.path())
        .args(["run", "--log-format", "json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut line = async || {
        let line = timeout(PATIENCE, lines.next_line()).await;
        line.expect("it says where it listens").unwrap().unwrap()
    };
    let url = line()
        .await
        .strip_prefix("listening on ")
        .unwrap()
        .to_owned();
    let operators = line()
        .await
        .strip_prefix("operators on http://")
        .unwrap()
        .to_owned();
    let authority = url.rsplit('/').next().unwrap().to_owned();
    let page = async || {
        let request =
            format!("GET /metrics HTTP/1.1\r\nHost: {operators}\r\nConnection: close\r\n\r\n");
        let answer = raw(&operators, request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        answer
    };

    let call = talkline_sim::caller::Call {
        bearer: Some(talkline_sim::caller::Secret::new(CLIENT_KEY)),
        ..talkline_sim::caller::Call::new(format!("{url}/v1/realtime?model={DEPLOYMENT}"))
    };
    turn(&call).await.unwrap();
    raw(
        &authority,
        b"GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n",
    )
    .await;
    let headers = format!("api-key: {CLIENT_KEY}\r\n");
    let mut refused =
        RawSession::open(&authority, "/v1/realtime?model=key_invalid", &headers).await;
    while refused.frame().await.is_some_and(|frame| frame.opcode != 8) {}
    // A session under way, with one ping answered.
    let mut open = RawSession::open(&authority, "/v1/realtime", &headers).await;
    let ping = loop {
        let frame = open.frame().await.unwrap();
        if frame.opcode == 9 {
            break frame;
        }
    };
    open.send(10, &ping.payload).await;
    // The answer to another event says that the pong before it has been read.
    open.send(1, br#"{"type":"input_audio_buffer.clear"}"#)
        .await;
    while open.event().await.json()["type"] != "input_audio_buffer.cleared" {}

    let page = page().await;
    for line in [
        r#"talkline_sessions_active{upstream="azure"} 1"#,
        r#"talkline_sessions_total{upstream="azure",outcome="client_closed"} 1"#,
        r#"talkline_client_refusals_total{status="404",code="unknown_path"} 1"#,
        r#"talkline_speech_to_audio_seconds_count 1"#,
        r#"talkline_handshake_phase_seconds_count{phase="upgrade"} 2"#,
        r#"talkline_ping_round_trip_seconds_count{side="client"} 1"#,
        r#"talkline_config_last_reload_successful 1"#,
    ] {
        assert!(page.lines().any(|found| found == line), "{line}\n{page}");
    }
    for family in [
        "talkline_tokens_total{",
        "talkline_cost_total{",
        "talkline_first_audio_seconds_count 1",
        "process_open_fds ",
    ] {
        assert!(
            page.lines().any(|found| found.starts_with(family)),
            "{family}\n{page}"
        );
    }
    for secret in ["CANARY", "127.0.0.1"] {
        assert!(
            !page.split_once("\r\n\r\n").unwrap().1.contains(secret),
            "{page}"
        );
    }
    // The same page is not where clients are.
    let answer = raw(
        &authority,
        b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n",
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
}
