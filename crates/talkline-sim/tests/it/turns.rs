//! Whole spoken turns, caller to simulator and back.

use talkline_sim::caller::{Call, CallError, Dialect, Secret, TurnReport, spoken_turn};
use talkline_sim::wav::Wav;
use talkline_sim::{DEFAULT_API_KEY, Profile, Reply, clips, unsigned_token};

use crate::bench::{call, fast, options, tls};

async fn speak(call: &Call) -> Result<TurnReport, CallError> {
    spoken_turn(call, &clips::QUESTION.wav().unwrap(), &options()).await
}

/// The turn is whole, and the reply is the first clip, byte for byte.
fn check_first_reply(report: &TurnReport) {
    assert_eq!(report.missing(), Vec::<&str>::new());
    assert!(report.is_whole());
    assert_eq!(report.input_transcript, clips::QUESTION.text);
    assert_eq!(report.reply_transcript, clips::REPLIES[0].text);
    assert_eq!(report.reply(), clips::REPLIES[0].wav().unwrap());
    assert!(
        report.session_id.starts_with("sess_"),
        "{}",
        report.session_id
    );
}

#[tokio::test]
async fn in_both_dialects_over_tcp_and_tls() {
    let (server, client) = tls();
    for dialect in [Dialect::Ga, Dialect::Preview] {
        let plain = fast().start().await.unwrap();
        let report = speak(&call(&plain, dialect, "voice")).await.unwrap();
        check_first_reply(&report);
        assert_eq!(report.model, "voice");
        let secure = fast().tls(server.clone()).start().await.unwrap();
        assert!(secure.base_url().starts_with("https://127.0.0.1:"));
        let mut call = call(&secure, dialect, "voice");
        call.tls = Some(client.clone());
        check_first_reply(&speak(&call).await.unwrap());
    }
}

#[tokio::test]
async fn with_openai() {
    let simulator = fast()
        .profile(Profile::OpenAi)
        .api_key("sk-1")
        .start()
        .await
        .unwrap();
    for dialect in [Dialect::Ga, Dialect::Preview] {
        let mut call = Call::new(format!(
            "ws://{}/v1/realtime?model=gpt-realtime",
            simulator.addr()
        ));
        call.bearer = Some(Secret::new("sk-1"));
        call.dialect = dialect;
        check_first_reply(&speak(&call).await.unwrap());
    }
}

#[tokio::test]
async fn with_a_token() {
    let simulator = fast().start().await.unwrap();
    let claims = |audience: &str| serde_json::json!({"aud": audience, "exp": 4_102_444_800_u64});
    let call = |audience: &str| {
        let mut call = call(&simulator, Dialect::Ga, "voice");
        call.headers.clear();
        call.bearer = Some(Secret::new(unsigned_token(&claims(audience))));
        call
    };
    let report = speak(&call("https://cognitiveservices.azure.com"))
        .await
        .unwrap();
    check_first_reply(&report);
    let refused = speak(&call("https://management.azure.com"))
        .await
        .unwrap_err();
    assert!(
        matches!(refused, CallError::Refused { status: 401, .. }),
        "{refused:?}"
    );
}

#[tokio::test]
async fn with_the_realtime_subprotocol() {
    let simulator = fast().start().await.unwrap();
    let mut call = call(&simulator, Dialect::Ga, "voice");
    call.subprotocols.push(Secret::new("realtime"));
    check_first_reply(&speak(&call).await.unwrap());
}

#[tokio::test]
async fn with_a_parrot() {
    let simulator = fast().reply(Reply::Parrot).start().await.unwrap();
    let report = speak(&call(&simulator, Dialect::Ga, "voice"))
        .await
        .unwrap();
    assert!(report.is_whole());
    assert_eq!(report.reply_transcript, clips::QUESTION.text);
    let question = clips::QUESTION.wav().unwrap();
    let loud: Vec<i16> = question
        .samples()
        .iter()
        .copied()
        .skip_while(|&s| s == 0)
        .collect();
    let said = &report.reply_samples;
    let start = said.iter().position(|&s| s != 0).unwrap();
    assert_eq!(said[start..start + loud.len()], loud);
}

#[tokio::test]
async fn through_fragments_and_pings() {
    let simulator = fast().start().await.unwrap();
    for name in ["fragmented_replies", "session_created_with_101", "no_pong"] {
        check_first_reply(&speak(&call(&simulator, Dialect::Ga, name)).await.unwrap());
    }
}

#[tokio::test]
async fn several_at_once_and_each_its_own() {
    let simulator = fast().start().await.unwrap();
    let call = call(&simulator, Dialect::Ga, "voice");
    let (a, b, c) = tokio::join!(speak(&call), speak(&call), speak(&call));
    for report in [a, b, c] {
        check_first_reply(&report.unwrap());
    }
}

#[tokio::test]
async fn a_failed_transcription_is_an_error() {
    let simulator = fast()
        .transcription_models(["my-whisper"])
        .start()
        .await
        .unwrap();
    let error = speak(&call(&simulator, Dialect::Ga, "voice"))
        .await
        .unwrap_err();
    let CallError::Event { code, .. } = error else {
        panic!("{error:?}");
    };
    assert_eq!(code, "DeploymentNotFound");
}

#[tokio::test]
async fn a_report_says_what_is_missing() {
    let simulator = fast().start().await.unwrap();
    let untranscribed = talkline_sim::caller::TurnOptions {
        transcription_model: None,
        ..options()
    };
    let question = clips::QUESTION.wav().unwrap();
    let call = call(&simulator, Dialect::Ga, "voice");
    let report = spoken_turn(&call, &question, &untranscribed).await.unwrap();
    assert_eq!(report.missing(), ["transcript of the question"]);
}

#[tokio::test]
async fn what_cannot_be_called() {
    let simulator = fast().start().await.unwrap();
    let question = clips::QUESTION.wav().unwrap();
    let check = async |call: &Call, question: &Wav, expected: &str| {
        let error = spoken_turn(call, question, &options()).await.unwrap_err();
        assert_eq!(error.to_string(), format!("unusable call: {expected}"));
        assert!(!format!("{error:?}").contains("hunter2"));
    };
    let with_url = |url: &str| Call::new(url);
    check(
        &with_url("http://h/?k=hunter2"),
        &question,
        "not a ws:// or wss:// URL: http://h/?[query]",
    )
    .await;
    check(
        &with_url("ws://u:hunter2@h/"),
        &question,
        "user and password in the URL",
    )
    .await;
    check(&with_url("ws://"), &question, "not a URL: ws://").await;
    let secure = format!("wss://{}/", simulator.addr());
    check(
        &with_url(&secure),
        &question,
        "a wss:// URL needs a TLS configuration",
    )
    .await;
    let slow = Wav::from_samples(8_000, vec![0; 8_000]);
    let good = call(&simulator, Dialect::Ga, "voice");
    check(&good, &slow, "the recording is at 8000 Hz, not 24000").await;
    let mut split = good.clone();
    split
        .headers
        .push(("x-a".to_owned(), Secret::new("1\r\nx-b: hunter2")));
    check(&split, &question, "the header \"x-a\" cannot be sent").await;
    assert!(!format!("{good:?}").contains(DEFAULT_API_KEY));
}
