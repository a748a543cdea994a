//! `talkline talk`, with the relay, with Azure's paths directly, and when something is wrong.

use std::path::Path;

use serde_json::Value;
use talkline_sim::{clips, wav::Wav};
use tokio::process::Command;

use crate::kit::{
    AZURE_KEY, CLIENT_KEY, DEPLOYMENT, Ended, Relay, azure, azure_deployment, ended, quick,
    simulator, talkline,
};

/// `talk` with the keys that the environment of these tests holds.
fn talk(home: &Path, arguments: &[&str]) -> Command {
    let mut command = talkline(home);
    command.arg("talk").args(arguments);
    command
}

async fn talked(arguments: &[&str]) -> Ended {
    let home = tempfile::tempdir().unwrap();
    let ended = ended(talk(home.path(), arguments)).await;
    for secret in [CLIENT_KEY, AZURE_KEY] {
        assert!(!ended.stdout.contains(secret), "{}", ended.stdout);
        assert!(!ended.stderr.contains(secret), "{}", ended.stderr);
    }
    ended
}

fn json(ended: &Ended) -> Value {
    serde_json::from_str(&ended.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}{}", ended.stdout, ended.stderr))
}

/// A WAV file of the question, stereo at 44.1 kHz, as a recorder would have it.
fn stereo(wav: &Wav) -> Vec<u8> {
    let mono = wav.resampled(44_100);
    let twice: Vec<i16> = mono.samples().iter().flat_map(|&s| [s, s]).collect();
    let mut bytes = Wav::from_samples(44_100, twice).to_bytes();
    bytes[22..24].copy_from_slice(&2_u16.to_le_bytes());
    bytes[28..32].copy_from_slice(&(44_100_u32 * 4).to_le_bytes());
    bytes[32..34].copy_from_slice(&4_u16.to_le_bytes());
    bytes
}

#[tokio::test]
async fn a_turn_through_the_relay_is_shown_and_saved() {
    let sim = simulator().await;
    let relay = Relay::start(&azure(&sim.base_url())).await;
    let home = tempfile::tempdir().unwrap();
    let mut command = talk(home.path(), &["--url", &relay.url, "--save", "reply.wav"]);
    // The usual variable of a relay's client; nothing has to be named.
    command.env("TALKLINE_CLIENT_KEY", CLIENT_KEY);
    let talk = ended(command).await;
    assert_eq!(talk.code(), Some(0), "{}{}", talk.stdout, talk.stderr);
    assert_eq!(talk.stderr, "", "nobody sits at a terminal here");
    for part in [
        clips::QUESTION.text,
        clips::REPLIES[0].text,
        "saved to reply.wav",
        "speech end → first audio",
        "audio out",
        DEPLOYMENT,
    ] {
        assert!(talk.stdout.contains(part), "{part}: {}", talk.stdout);
    }
    let saved = std::fs::read(home.path().join("reply.wav")).unwrap();
    let expected = clips::REPLIES[0].wav().unwrap();
    assert_eq!(Wav::parse(&saved).unwrap(), expected);
}

#[tokio::test]
async fn recordings_of_any_rate_and_channels_are_spoken() {
    let sim = simulator().await;
    let relay = Relay::start(&azure(&sim.base_url())).await;
    let home = tempfile::tempdir().unwrap();
    let question = clips::ASK_HELP.wav().unwrap();
    std::fs::write(home.path().join("a.wav"), stereo(&question)).unwrap();
    std::fs::write(
        home.path().join("b.wav"),
        question.resampled(8_000).to_bytes(),
    )
    .unwrap();
    for file in ["a.wav", "b.wav"] {
        let arguments = ["--url", &relay.url, "--key-env", "CLIENT_KEY", "--json"];
        let mut command = talk(home.path(), &arguments);
        command.args(["--wav", file]);
        let talk = ended(command).await;
        assert_eq!(talk.code(), Some(0), "{}{}", talk.stdout, talk.stderr);
        let turn = json(&talk);
        assert_eq!(turn["ok"], true, "{turn}");
        assert_eq!(turn["input_transcript"], clips::ASK_HELP.text, "{file}");
        assert_eq!(turn["reply_transcript"], clips::REPLY_HELP.text);
        assert!(turn["latencies_ms"]["speech_end_to_first_audio"].as_f64() > Some(0.0));
        assert!(turn["usage"]["total_tokens"].as_u64() > Some(0));
    }
}

#[tokio::test]
async fn azure_is_called_directly_on_both_paths() {
    let sim = simulator().await;
    let base = sim.base_url();
    for (url, dialect) in [
        (format!("{base}/openai/v1"), "ga"),
        (
            format!("{base}/openai/realtime?api-version=2025-04-01-preview"),
            "preview",
        ),
    ] {
        let talk = talked(&[
            "--url",
            &url,
            "--model",
            DEPLOYMENT,
            "--key-env",
            "AZURE_KEY",
            "--text",
            "Hello?",
            "--json",
        ])
        .await;
        assert_eq!(talk.code(), Some(0), "{}{}", talk.stdout, talk.stderr);
        let turn = json(&talk);
        assert_eq!(turn["dialect"], dialect);
        assert_eq!(turn["input_transcript"], "Hello?");
        assert_eq!(turn["reply_transcript"], clips::REPLIES[0].text);
    }
    let seen = sim.requests();
    assert!(
        seen.iter()
            .all(|it| it.header("api-key") == Some(AZURE_KEY))
    );
    assert!(seen.iter().all(|it| it.header("authorization").is_none()));
}

#[tokio::test]
async fn the_dialect_of_the_session_is_spoken_whatever_the_path() {
    let sim = simulator().await;
    let preview = azure(&sim.base_url())
        + "talk.realtime.providers.openai.azureApiVersion = \"2025-04-01-preview\"\n";
    let relay = Relay::start(&preview).await;
    let talk = talked(&["--url", &relay.url, "--key-env", "CLIENT_KEY", "--json"]).await;
    assert_eq!(talk.code(), Some(0), "{}{}", talk.stdout, talk.stderr);
    let turn = json(&talk);
    assert_eq!(turn["dialect"], "preview");
    assert_eq!(turn["input_transcript"], clips::QUESTION.text);
}

#[tokio::test]
async fn an_untranscribed_question_is_no_failed_turn() {
    let sim = quick()
        .transcription_models(["my-transcriber"])
        .start()
        .await
        .unwrap();
    let relay = Relay::start(&azure(&sim.base_url())).await;
    let call = ["--url", &relay.url, "--key-env", "CLIENT_KEY"];
    let talk = talked(&call).await;
    assert_eq!(talk.code(), Some(0), "{}{}", talk.stdout, talk.stderr);
    let heard = "(not transcribed [transcription_deployment_not_found]: ";
    assert!(talk.stdout.contains(heard), "{}", talk.stdout);
    let named = talked(&[&call[..], &["--transcription-model", "my-transcriber"]].concat()).await;
    assert!(
        named.stdout.contains(clips::QUESTION.text),
        "{}",
        named.stdout
    );
    let none = talked(&[&call[..], &["--transcription-model", "none"]].concat()).await;
    assert_eq!(none.code(), Some(0), "{}{}", none.stdout, none.stderr);
    assert!(none.stdout.contains("(not transcribed)"), "{}", none.stdout);
}

#[tokio::test]
async fn failures_name_cause_next_step_and_exit_code() {
    let sim = simulator().await;
    let direct = format!("{}/openai/v1/realtime", sim.base_url());
    let check = async |arguments: &[&str], exit: i32, code: &str| {
        let arguments = [arguments, &["--text", "Hello?", "--json"]].concat();
        let talk = talked(&arguments).await;
        assert_eq!(talk.code(), Some(exit), "{arguments:?}: {}", talk.stderr);
        let said = json(&talk);
        assert_eq!(said["ok"], false, "{said}");
        assert_eq!(said["error"]["code"], code, "{said}");
        assert!(said["error"]["next_step"].as_str() > Some(""), "{said}");
        assert!(talk.stderr.starts_with("error: "), "{}", talk.stderr);
        assert!(talk.stderr.contains("\nhint: "), "{}", talk.stderr);
    };
    let azure_key = ["--key-env", "AZURE_KEY"];
    let at = |deployment: &str| format!("{direct}?model={deployment}");
    for (url, key, exit, code) in [
        (at("voice"), "CLIENT_KEY", 77, "azure_key_invalid"),
        (
            at("deployment_not_found"),
            "AZURE_KEY",
            1,
            "azure_deployment_not_found",
        ),
        (
            at("rate_limit_calls"),
            "AZURE_KEY",
            69,
            "azure_rate_limited",
        ),
        (at("wrong_accept"), "AZURE_KEY", 1, "protocol"),
        (at("closes_after_101"), "AZURE_KEY", 69, "session_closed"),
        (at("drops_mid_reply"), "AZURE_KEY", 69, "session_closed"),
        (
            at("inference_rate_limit_exceeded"),
            "AZURE_KEY",
            1,
            "session_rate_limited",
        ),
        (
            at("content_filter"),
            "AZURE_KEY",
            1,
            "session_content_filtered",
        ),
    ] {
        check(&["--url", &url, "--key-env", key], exit, code).await;
    }
    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = format!("ws://{}", unused.local_addr().unwrap());
    drop(unused);
    check(&["--url", &nobody], 69, "upstream_tcp_refused").await;
    let secure = direct.replace("http:", "wss:") + "?model=voice";
    let secure = ["--url", &secure];
    check(&[&secure[..], &azure_key].concat(), 69, "azure_tls_not_tls").await;

    // The same by way of the relay, whose own words are shown.
    for (deployment, exit, code) in [
        ("key_invalid", 77, "azure_key_invalid"),
        ("deployment_not_found", 1, "azure_deployment_not_found"),
    ] {
        let relay = Relay::start(&azure_deployment(&sim.base_url(), deployment)).await;
        let call = ["--url", &relay.url, "--key-env", "CLIENT_KEY"];
        check(&call, exit, code).await;
        let wrong = ["--url", &relay.url, "--key-env", "AZURE_KEY"];
        check(&wrong, 77, "client_key_unknown").await;
    }
}

#[tokio::test]
async fn what_cannot_be_tried_is_said_before_anything_is_sent() {
    let sim = simulator().await;
    let home = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| std::fs::write(home.path().join(name), bytes).unwrap();
    let mut alaw = clips::QUESTION.wav().unwrap().to_bytes();
    alaw[20] = 6;
    write("alaw.wav", &alaw);
    write("text.wav", b"Hello");
    write(
        "empty.wav",
        &Wav::from_samples(24_000, Vec::new()).to_bytes(),
    );
    let local = format!("{}/openai/v1?model=voice", sim.base_url());
    let check = async |arguments: &[&str], expected: &str| {
        let mut command = talk(home.path(), arguments);
        command
            .env("OPENAI_API_KEY", "sk-CANARY")
            .env("AZURE_OPENAI_API_KEY", "CANARY");
        let talk = ended(command).await;
        assert_eq!(talk.code(), Some(2), "{arguments:?}: {}", talk.stderr);
        assert!(
            talk.stderr.contains(expected),
            "{expected}: {}",
            talk.stderr
        );
        assert!(!talk.stderr.contains("CANARY"), "{}", talk.stderr);
        assert_eq!(talk.stdout, "");
    };
    let wav = |file| ["--url", &local, "--key-env", "AZURE_KEY", "--wav", file];
    check(&wav("absent.wav"), "absent.wav cannot be spoken").await;
    check(&wav("alaw.wav"), "format tag 6").await;
    check(&wav("text.wav"), "not a RIFF/WAVE file").await;
    check(&wav("empty.wav"), "no sound in it").await;
    check(&["--url", "localhost"], "not a URL").await;
    check(&["--url", "ws://relay.example"], "--allow-insecure").await;
    check(
        &["--url", &local, "--key-env", "UNSET"],
        "UNSET holds no key",
    )
    .await;
    let azure = "https://r.openai.azure.com";
    check(&["--url", azure], "no deployment is named").await;
    let strange = [
        "--url",
        azure,
        "--model",
        "m",
        "--key-env",
        "OPENAI_API_KEY",
    ];
    check(&strange, "is not for this host").await;
    let openai = "https://api.openai.com";
    let strange = [
        "--url",
        openai,
        "--model",
        "m",
        "--key-env",
        "AZURE_OPENAI_API_KEY",
    ];
    check(&strange, "is not for this host").await;
    check(&["--wav", "a.wav", "--text", "b"], "cannot be used with").await;
    assert_eq!(sim.requests(), []);
}
