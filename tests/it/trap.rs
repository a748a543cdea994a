//! A broken Azure configuration never becomes a connection to OpenAI.

use tokio::time::timeout;

use crate::kit::{CLIENT_KEY, PATIENCE, RawSession, Relay, Trap, ended, talkline};

/// Each is Azure by intent and broken in one way; `key` is what the message has to name.
const BROKEN: &[(&str, &str, &str)] = &[
    (
        "endpoint missing",
        "azureDeployment = \"voice\"\napiKey = { env = \"AZURE_KEY\" }",
        "azureEndpoint",
    ),
    (
        "misspelt endpoint",
        "azureEndpont = \"https://r.openai.azure.com\"\nazureDeployment = \"voice\"\napiKey = { env = \"AZURE_KEY\" }",
        "azureEndpont",
    ),
    (
        "misspelt deployment",
        "azureEndpoint = \"https://r.openai.azure.com\"\nazureDeploymnt = \"voice\"\napiKey = { env = \"AZURE_KEY\" }",
        "azureDeploymnt",
    ),
    (
        "deployment missing",
        "azureEndpoint = \"https://r.openai.azure.com\"\napiKey = { env = \"AZURE_KEY\" }",
        "azureDeployment",
    ),
    (
        "deployment only",
        "azureDeployment = \"voice\"",
        "azureEndpoint",
    ),
    (
        "version only",
        "azureApiVersion = \"2025-04-01-preview\"\napiKey = { env = \"AZURE_KEY\" }",
        "azureEndpoint",
    ),
    (
        "key missing",
        "azureEndpoint = \"https://r.openai.azure.com\"\nazureDeployment = \"voice\"",
        "apiKey",
    ),
    (
        "snake case",
        "azure_endpoint = \"https://r.openai.azure.com\"\nazure_deployment = \"voice\"\napiKey = { env = \"AZURE_KEY\" }",
        "azure_endpoint",
    ),
    (
        "lower case",
        "azureendpoint = \"https://r.openai.azure.com\"\nazureDeployment = \"voice\"\napiKey = { env = \"AZURE_KEY\" }",
        "azureendpoint",
    ),
    (
        "unknown azure key",
        "azureRegion = \"swedencentral\"\napiKey = { env = \"AZURE_KEY\" }",
        "azureRegion",
    ),
    (
        "OpenAI's host as Azure endpoint",
        "azureEndpoint = \"https://api.openai.com\"\nazureDeployment = \"voice\"\napiKey = { env = \"AZURE_KEY\" }",
        "azureEndpoint",
    ),
    (
        "not a URL",
        "azureEndpoint = \"htp:/bad\"\nazureDeployment = \"voice\"\napiKey = { env = \"AZURE_KEY\" }",
        "azureEndpoint",
    ),
    (
        "deployment of the wrong type",
        "azureEndpoint = \"https://r.openai.azure.com\"\nazureDeployment = 42\napiKey = { env = \"AZURE_KEY\" }",
        "azureDeployment",
    ),
    (
        "key variable unset",
        "azureEndpoint = \"https://r.openai.azure.com\"\nazureDeployment = \"voice\"\napiKey = { env = \"NOT_SET\" }",
        "apiKey",
    ),
    (
        "browser transport",
        "azureEndpoint = \"https://r.openai.azure.com\"\nazureDeployment = \"voice\"\napiKey = { env = \"AZURE_KEY\" }\n[talk.realtime]\ntransport = \"webrtc\"",
        "transport",
    ),
];

fn configuration(provider: &str, provider_table: &str) -> String {
    // Where the case brings a `[talk.realtime]` table of its own, its keys join ours.
    let (table, realtime) = provider_table
        .split_once("\n[talk.realtime]\n")
        .unwrap_or((provider_table, ""));
    format!(
        "[server]\nlisten = \"127.0.0.1:0\"\n\
         [clients]\nkeys = [{{ name = \"test\", env = \"CLIENT_KEY\" }}]\n\
         [talk.realtime]\nprovider = \"{provider}\"\n{realtime}\n\
         [talk.realtime.providers.openai]\n{table}\n"
    )
}

#[tokio::test]
async fn broken_azure_configurations_end_in_78_and_dial_nobody() {
    let trap = Trap::set().await;
    let home = tempfile::tempdir().unwrap();
    for provider in ["openai", "azure-openai"] {
        for (name, table, key) in BROKEN {
            std::fs::write(
                home.path().join("talkline.toml"),
                configuration(provider, table),
            )
            .unwrap();
            let mut check = talkline(home.path());
            check.arg("check").env("OPENAI_API_KEY", "sk-CANARY-openai");
            let checked = ended(check).await;
            let case = format!("{provider}: {name}\n{}{}", checked.stdout, checked.stderr);
            assert_eq!(checked.code(), Some(78), "{case}");
            assert!(checked.stderr.contains(key), "names {key}: {case}");
            assert!(!checked.stderr.contains("CANARY"), "{case}");

            let mut run = talkline(home.path());
            run.args(["run", "--resolve", &trap.resolve()])
                .env("OPENAI_API_KEY", "sk-CANARY-openai");
            let ran = ended(run).await;
            assert_eq!(ran.code(), Some(78), "{case}");
            assert!(!ran.stdout.contains("listening"), "{case}");
        }
    }
    assert_eq!(trap.caught(), 0);
}

#[tokio::test]
async fn broken_azure_environments_end_in_78_and_dial_nobody() {
    let trap = Trap::set().await;
    let home = tempfile::tempdir().unwrap();
    let environments: &[(&[(&str, &str)], &str)] = &[
        (
            &[
                ("AZURE_OPENAI_DEPLOYMENT_NAME", "voice"),
                ("AZURE_OPENAI_API_KEY", "k-12345678"),
            ],
            "azureEndpoint",
        ),
        (
            &[
                ("AZURE_OPENAI_ENDPOINT", "https://r.openai.azure.com"),
                ("AZURE_OPENAI_API_KEY", "k-12345678"),
            ],
            "azureDeployment",
        ),
        (
            &[
                ("AZURE_OPENAI_ENDPOINT", "https://r.openai.azure.com"),
                ("AZURE_OPENAI_DEPLOYMENT_NAME", "voice"),
            ],
            "apiKey",
        ),
        (
            &[
                ("AZURE_OPENAI_ENDPOINT", "https://api.openai.com"),
                ("AZURE_OPENAI_DEPLOYMENT_NAME", "voice"),
                ("AZURE_OPENAI_API_KEY", "k-12345678"),
            ],
            "AZURE_OPENAI_ENDPOINT",
        ),
    ];
    for (variables, key) in environments {
        let mut run = talkline(home.path());
        run.args([
            "run",
            "--listen",
            "127.0.0.1:0",
            "--resolve",
            &trap.resolve(),
        ])
        .env("OPENAI_API_KEY", "sk-CANARY-openai")
        .env("TALKLINE_CLIENT_KEY", "client-key-1")
        .envs(variables.iter().copied());
        let ran = ended(run).await;
        assert_eq!(ran.code(), Some(78), "{variables:?} {}", ran.stderr);
        assert!(ran.stderr.contains(key), "names {key}: {}", ran.stderr);
        assert!(!ran.stderr.contains("CANARY"), "{}", ran.stderr);
    }
    assert_eq!(trap.caught(), 0);
}

#[tokio::test]
async fn the_trap_does_catch() {
    // The counterpart: with OpenAI configured, the override leads to the trap. Without this test a
    // trap that nobody could fall into would look like success.
    let trap = Trap::set().await;
    let relay = Relay::start_env(
        "server.listen = \"127.0.0.1:0\"\n\
         clients.keys = [{ name = \"test\", env = \"CLIENT_KEY\" }]\n\
         [talk.realtime]\nprovider = \"openai\"\nallowAnyModel = true\n\
         [talk.realtime.providers.openai]\napiKey = { env = \"OPENAI_API_KEY\" }\n",
        &["--resolve", &trap.resolve()],
        &[("OPENAI_API_KEY", "sk-CANARY-openai")],
    )
    .await;
    // The trap says nothing, so the TLS handshake hangs; one caught connection is all that is asked.
    let headers = format!("Authorization: Bearer {CLIENT_KEY}\r\n");
    let opening = tokio::spawn({
        let authority = relay.authority().to_owned();
        async move { RawSession::open(&authority, "/v1/realtime?model=gpt-realtime", &headers).await }
    });
    timeout(PATIENCE, async {
        while trap.caught() == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the relay dials api.openai.com, which leads to the trap");
    opening.abort();
}
