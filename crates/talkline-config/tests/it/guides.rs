//! What the guides tell people to write is a sound configuration.

use std::path::Path;

use crate::support::toml;

const GUIDES: [&str; 2] = ["entra.md", "keys.md"];

/// Every TOML block, each with the lines of a sound provider that it leaves out.
#[test]
fn every_block_resolves() {
    let mut blocks = 0;
    for guide in GUIDES {
        for block in toml_blocks(&text_of(guide)) {
            blocks += 1;
            let mut text = String::new();
            for (key, value) in [
                ("azureEndpoint", "https://my-talk.openai.azure.com"),
                ("azureDeployment", "voice"),
            ] {
                if !block.contains(key) {
                    text.push_str(&format!(
                        "talk.realtime.providers.azure-openai.{key} = \"{value}\"\n"
                    ));
                }
            }
            text.push_str(&block);
            if !block.contains("auth.kind") && !block.contains("apiKey") {
                text.push_str(
                    "talk.realtime.providers.azure-openai.auth.kind = \"managed-identity\"\n",
                );
            }
            let resolved = toml(&text)
                .dev()
                .with("TALKLINE_CLIENT_KEY=client-key-of-some-length CREDENTIALS_DIRECTORY=/run/credentials/talkline.service")
                .with("AZURE_TENANT_ID=10000000-0000-4000-8000-000000000001 AZURE_CLIENT_ID=20000000-0000-4000-8000-000000000002")
                .with("AZURE_FEDERATED_TOKEN_FILE=/var/run/token AZURE_AUTHORITY_HOST=https://login.microsoftonline.com/")
                .secret_file("/run/secrets/azure-key-1", "key-1\n")
                .secret_file("/run/secrets/azure-key-2", "key-2\n")
                .secret_file("/run/credentials/talkline.service/azure-key-1", "key-1")
                .expect_sound();
            let config = &resolved.config;
            assert_eq!(
                config.identities.len() + config.watched_keys.len(),
                1,
                "{guide}: {block}"
            );
        }
    }
    assert!(blocks >= 9, "{blocks} blocks");
}

/// The table of `auto` names the kinds in the order in which they are chosen.
#[test]
fn the_table_of_auto_is_the_codes() {
    let guide = text_of("entra.md");
    let rows: Vec<&str> = guide
        .lines()
        .filter(|line| line.starts_with("| `") && line.matches('|').count() == 3)
        .collect();
    let variables = [
        "AZURE_FEDERATED_TOKEN_FILE",
        "AZURE_CLIENT_CERTIFICATE_PATH",
        "AZURE_CLIENT_SECRET",
        "IDENTITY_ENDPOINT",
    ];
    for (index, variable) in variables.iter().enumerate() {
        let row = rows
            .iter()
            .find(|row| row.contains(&format!("`{variable}`")))
            .unwrap();
        let provider = "talk.realtime.providers.azure-openai";
        let mut case = toml(&format!(
            "{provider}.azureEndpoint = \"https://r.openai.azure.com\"\n{provider}.azureDeployment = \"voice\"\n{provider}.auth.kind = \"auto\"\n"
        ))
        .with("TALKLINE_CLIENT_KEY=client-key-of-some-length")
        .with("AZURE_TENANT_ID=10000000-0000-4000-8000-000000000001 AZURE_CLIENT_ID=20000000-0000-4000-8000-000000000002");
        // Every variable that stands further down loses.
        for set in &variables[index..] {
            case = case.with(&format!("{set}=http://localhost/"));
        }
        let identity = case.expect_sound().config.identities.remove(0);
        assert!(
            row.ends_with(&format!("| `{}` |", identity.kind.as_str())),
            "{row}"
        );
    }
}

fn toml_blocks(text: &str) -> Vec<String> {
    let blocks = text.split("```toml\n").skip(1);
    blocks
        .map(|rest| rest.split("```").next().unwrap().to_owned())
        .collect()
}

#[expect(
    clippy::disallowed_methods,
    reason = "a test reads files of the repository"
)]
fn text_of(guide: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../docs/guide")
        .join(guide);
    std::fs::read_to_string(path).unwrap()
}
