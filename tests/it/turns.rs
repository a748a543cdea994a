//! Whole spoken turns through the real binary.

use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use talkline_sim::{Profile, SeenRequest, caller::Call, caller::Dialect, clips};

use crate::kit::{
    AUTHORITY, AZURE_KEY, CLIENT_KEY, DEPLOYMENT, Relay, azure, quick, simulator, tls_server, turn,
};

/// The simulator saw the server's credential, once, and nothing of the client's.
fn assert_only_ours(seen: &SeenRequest, credential: (&str, &str)) {
    let shown = format!("{seen:?}");
    assert!(
        !shown.contains(CLIENT_KEY),
        "the client's key went upstream: {shown}"
    );
    let credentials: Vec<_> = seen
        .headers
        .iter()
        .filter(|(name, _)| {
            [
                "api-key",
                "authorization",
                "cookie",
                "ocp-apim-subscription-key",
            ]
            .contains(&name.to_ascii_lowercase().as_str())
        })
        .map(|(name, value)| (name.to_ascii_lowercase(), value.as_str()))
        .collect();
    assert_eq!(credentials, [(credential.0.to_owned(), credential.1)]);
    for name in [
        "sec-websocket-protocol",
        "sec-websocket-extensions",
        "origin",
        "openai-beta",
    ] {
        assert_eq!(seen.header(name), None, "{name}");
    }
}

#[tokio::test]
async fn azure_ga_by_each_client_path() {
    let sim = simulator().await;
    let relay = Relay::start(&azure(&sim.base_url())).await;
    for path in [
        "/realtime?model=",
        "/v1/realtime?model=",
        "/openai/v1/realtime?model=",
        "/openai/realtime?api-version=2025-04-01-preview&deployment=",
    ] {
        let report = turn(&relay.call(&format!("{path}{DEPLOYMENT}")))
            .await
            .unwrap();
        assert_eq!(report.missing(), Vec::<&str>::new(), "{path}");
        assert_eq!(report.input_transcript, clips::QUESTION.text);
        let reply = clips::REPLIES
            .iter()
            .find(|clip| clip.text == report.reply_transcript);
        let reply = reply.expect("a bundled sentence").wav().unwrap();
        assert_eq!(
            report.reply_samples,
            reply.samples(),
            "the audio came through bit for bit"
        );
    }
    let seen = sim.requests();
    assert_eq!(seen.len(), 4);
    for request in &seen {
        assert_eq!(
            (request.path.as_str(), request.query.as_str()),
            ("/openai/v1/realtime", "model=gpt-realtime")
        );
        assert_only_ours(request, ("api-key", AZURE_KEY));
    }
    let log = relay.log().await;
    assert_eq!(log.matches("\"session ended\"").count(), 4, "{log}");
    assert!(!log.contains("CANARY"), "{log}");
    let line: serde_json::Value = log
        .lines()
        .find(|line| line.contains("session ended"))
        .map(serde_json::from_str)
        .unwrap()
        .unwrap();
    assert_eq!(line["client"], "test");
    assert_eq!(line["deployment"], DEPLOYMENT);
    assert_eq!(line["ended_by"], "client");
    assert_eq!(line["close_code"], 1000);
    assert!(line["output_audio_tokens"].as_u64().unwrap() > 0, "{line}");
    assert!(
        line["request_id"].is_string() && line["region"].is_string(),
        "{line}"
    );
}

#[tokio::test]
async fn azure_preview() {
    let sim = simulator().await;
    let configuration = azure(&sim.base_url())
        + "talk.realtime.providers.openai.azureApiVersion = \"2025-04-01-preview\"\n";
    let relay = Relay::start(&configuration).await;
    let call = Call {
        dialect: Dialect::Preview,
        ..relay.plain_call()
    };
    let report = turn(&call).await.unwrap();
    assert!(report.is_whole(), "{:?}", report.missing());
    let seen = sim.requests();
    assert_eq!(seen[0].path, "/openai/realtime");
    assert_eq!(
        seen[0].query,
        "api-version=2025-04-01-preview&deployment=gpt-realtime"
    );
    assert_eq!(seen[0].header("api-key"), Some(AZURE_KEY));
}

#[tokio::test]
async fn azure_openai_alias() {
    let sim = simulator().await;
    let configuration =
        azure(&sim.base_url()).replace("provider = \"openai\"", "provider = \"azure-openai\"");
    let relay = Relay::start(&configuration).await;
    assert!(turn(&relay.plain_call()).await.unwrap().is_whole());
    assert_eq!(sim.requests()[0].path, "/openai/v1/realtime");
}

#[tokio::test]
async fn a_browser_presents_its_key_as_a_subprotocol() {
    let sim = simulator().await;
    let relay = Relay::start(&azure(&sim.base_url())).await;
    let mut call = relay.plain_call();
    let key = call.bearer.take().unwrap();
    call.subprotocols = vec![
        talkline_sim::caller::Secret::new("realtime"),
        talkline_sim::caller::Secret::new(format!("openai-insecure-api-key.{}", key.expose())),
    ];
    assert!(turn(&call).await.unwrap().is_whole());
    assert_only_ours(&sim.requests()[0], ("api-key", AZURE_KEY));
}

#[tokio::test]
async fn custom_endpoints_keep_working() {
    let sim = quick().profile(Profile::OpenAi).start().await.unwrap();
    let relay = Relay::start(&format!(
        "server.listen = \"127.0.0.1:0\"\n\
         clients.keys.test.env = \"CLIENT_KEY\"\n\
         [talk.realtime]\nprovider = \"custom\"\nallowAnyModel = true\n\
         [talk.realtime.providers.custom]\nbaseUrl = \"{}/v1\"\napiKey = {{ env = \"AZURE_KEY\" }}\n",
        sim.base_url()
    ))
    .await;
    assert!(turn(&relay.plain_call()).await.unwrap().is_whole());
    let seen = sim.requests();
    assert_eq!(
        (seen[0].path.as_str(), seen[0].query.as_str()),
        ("/v1/realtime", "model=gpt-realtime")
    );
    assert_only_ours(&seen[0], ("authorization", &format!("Bearer {AZURE_KEY}")));
}

#[tokio::test]
async fn tls_for_clients_and_towards_the_upstream() {
    // The upstream's certificate is trusted through SSL_CERT_FILE alone.
    let home = tempfile::tempdir().unwrap();
    let tls = tls_server("localhost", home.path());
    let sim = quick().tls(tls).start().await.unwrap();
    let trusted = home.path().join(AUTHORITY);

    let endpoint = format!("https://localhost:{}", sim.addr().port());
    let relay = Relay::start_env(
        &azure(&endpoint),
        &["--tls-dev"],
        &[("SSL_CERT_FILE", trusted.to_str().unwrap())],
    )
    .await;
    assert!(relay.url.starts_with("wss://"), "{}", relay.url);
    let dev_ca = relay
        .home
        .path()
        .join(".local/share/talkline/dev-tls/ca.pem");
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(&dev_ca).unwrap())
        .unwrap();
    let client =
        rustls::ClientConfig::builder_with_provider(talkline_gateway::tls::crypto_provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
    let mut call = relay.plain_call();
    call.url = call.url.replace("127.0.0.1", "localhost");
    call.tls = Some(std::sync::Arc::new(client));
    let report = turn(&call).await.unwrap();
    assert!(report.is_whole(), "{:?}", report.missing());
    assert_only_ours(&sim.requests()[0], ("api-key", AZURE_KEY));
    let log = relay.log().await;
    assert!(
        log.contains("export NODE_EXTRA_CA_CERTS=") && log.contains("export SSL_CERT_FILE="),
        "{log}"
    );
}
