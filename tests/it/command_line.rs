//! The commands beside `run`, as scripts see them.

use crate::kit::{AZURE_KEY, Relay, azure, ended, simulator, talkline};

#[tokio::test]
async fn demo_holds_one_spoken_turn() {
    let home = tempfile::tempdir().unwrap();
    let mut demo = talkline(home.path());
    demo.args(["demo", "--once", "--save", "reply.wav"]);
    let demo = ended(demo).await;
    assert_eq!(demo.code(), Some(0), "{}{}", demo.stdout, demo.stderr);
    for part in ["you ", "reply ", "speech end → first audio", "tokens"] {
        assert!(demo.stdout.contains(part), "{}", demo.stdout);
    }
    let reply = std::fs::read(home.path().join("reply.wav")).unwrap();
    let reply = talkline_sim::wav::Wav::parse(&reply).unwrap();
    assert!(reply.duration().as_secs_f64() > 1.0);
}

#[tokio::test]
async fn demo_over_tls() {
    let home = tempfile::tempdir().unwrap();
    let mut demo = talkline(home.path());
    demo.args(["demo", "--once", "--tls-dev", "--parrot"]);
    let demo = ended(demo).await;
    assert_eq!(demo.code(), Some(0), "{}{}", demo.stdout, demo.stderr);
    assert!(demo.stdout.contains("wss://localhost:"), "{}", demo.stdout);
}

#[tokio::test]
async fn config_show_names_sources_and_hides_secrets() {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(
        home.path().join("talkline.toml"),
        azure("https://r.openai.azure.com/openai/v1/"),
    )
    .unwrap();
    let mut show = talkline(home.path());
    show.args(["config", "show", "--origin", "--listen", "127.0.0.1:9999"]);
    let show = ended(show).await;
    assert_eq!(show.code(), Some(0), "{}", show.stderr);
    let line = |key: &str| {
        show.stdout
            .lines()
            .find(|line| line.starts_with(key))
            .unwrap_or_else(|| panic!("{key}: {}", show.stdout))
    };
    assert!(
        line("server.listen").contains("127.0.0.1:9999")
            && line("server.listen").contains("--listen")
    );
    assert!(line("talk.realtime.providers.openai.azureDeployment").contains("talkline.toml:6"));
    assert!(!show.stdout.contains(AZURE_KEY), "{}", show.stdout);
}

#[tokio::test]
async fn check_tells_valid_from_invalid() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("talkline.toml");
    let check = |arguments: &'static [&'static str]| {
        let mut command = talkline(home.path());
        command.arg("check").args(arguments);
        ended(command)
    };
    std::fs::write(&file, azure("https://r.openai.azure.com")).unwrap();
    let valid = check(&[]).await;
    assert_eq!(valid.code(), Some(0), "{}", valid.stderr);
    assert!(
        valid.stdout.contains("wss://r.openai.azure.com"),
        "{}",
        valid.stdout
    );

    std::fs::write(
        &file,
        azure("https://r.openai.azure.com") + "sever.listen = \"x\"\n",
    )
    .unwrap();
    let invalid = check(&["--output", "json"]).await;
    assert_eq!(invalid.code(), Some(78));
    let findings: serde_json::Value = serde_json::from_str(&invalid.stdout).unwrap();
    assert_eq!(findings["ok"], false);
    assert!(
        findings["findings"][0]["fixHint"]
            .as_str()
            .unwrap()
            .contains("server"),
        "{findings}"
    );

    assert_eq!(check(&["--config", "absent.toml"]).await.code(), Some(2));
    assert_eq!(check(&["--no-such-flag"]).await.code(), Some(2));
}

#[tokio::test]
async fn require_ready_tells_a_refused_key_from_an_absent_service() {
    let sim = simulator().await;
    let home = tempfile::tempdir().unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    for (endpoint, key, code) in [
        (sim.base_url(), "wrong-key-123", 77),
        (nobody, AZURE_KEY, 69),
    ] {
        std::fs::write(home.path().join("talkline.toml"), azure(&endpoint)).unwrap();
        let mut run = talkline(home.path());
        run.args(["run", "--require-ready"]).env("AZURE_KEY", key);
        let ran = ended(run).await;
        assert_eq!(ran.code(), Some(code), "{}", ran.stderr);
        assert!(ran.stderr.contains("hint: "), "{}", ran.stderr);
    }
    let relay = Relay::start_with(&azure(&sim.base_url()), &["--require-ready"]).await;
    assert!(relay.url.starts_with("ws://127.0.0.1:"));
}

#[tokio::test]
async fn small_commands() {
    let home = tempfile::tempdir().unwrap();
    let out = |arguments: &'static [&'static str]| {
        let mut command = talkline(home.path());
        command.args(arguments);
        ended(command)
    };
    assert!(out(&["version"]).await.stdout.starts_with("talkline 0."));
    let version: serde_json::Value =
        serde_json::from_str(&out(&["version", "--json"]).await.stdout).unwrap();
    assert_eq!(version["name"], "talkline");
    assert!(
        out(&["completions", "bash"])
            .await
            .stdout
            .contains("complete")
    );
    let schema: serde_json::Value =
        serde_json::from_str(&out(&["config", "schema"]).await.stdout).unwrap();
    assert!(schema["properties"]["talk"].is_object(), "{schema}");
    assert_eq!(out(&[]).await.code(), Some(2));
}
