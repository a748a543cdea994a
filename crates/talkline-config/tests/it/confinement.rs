//! No secret comes out, wherever it was put in.

use talkline_config::Style;

use crate::support::{Case, json, toml};

const CANARIES: [&str; 4] = [
    "CANARY0123456789abcdef0123456789abcdef00",
    "sk-proj-CANARY-abc.def",
    "CANARY-short",
    "9999CANARY",
];

#[track_caller]
fn check(case: &Case, canary: &str) {
    let shown = match case.resolve() {
        Ok(resolved) => format!("{resolved:?}{}", resolved.warnings.render(Style::Colour)),
        Err(report) => {
            format!(
                "{report:?}{}{}",
                report.render(Style::Plain),
                report.render(Style::Colour)
            )
        }
    };
    assert!(!shown.contains(canary), "{shown}");
    assert!(!shown.contains("CANARY"), "a part of it: {shown}");
}

#[test]
fn where_a_key_belongs() {
    for canary in CANARIES {
        for (key, quote) in [
            ("apiKey", "\""),
            ("apikey", "'"),
            ("apiKeyy", "\""),
            ("api_key", "'"),
            ("token", "\""),
        ] {
            for plaintext in ["", "allowPlaintextSecrets = true\n"] {
                let text = format!(
                    "{plaintext}[talk.realtime.providers.openai]\nazureEndpoint = \"https://r.openai.azure.com\"\nazureDeployment = \"d\"\n{key} = {quote}{canary}{quote}\n"
                );
                check(&toml(&text), canary);
            }
        }
        for reference in [
            "{ env = \"@\" }",
            "{ evn = \"@\" }",
            "{ env = \"K\", file = \"f\", x = \"@\" }",
            "{ credential = \"@ \" }",
            "{ keyvault = \"@\" }",
            "{ keyvault = \"@Microsoft.KeyVault(SecretUri=@)\" }",
            "[\"@\"]",
            "{ a = { b = \"@\" } }",
        ] {
            let reference = reference.replace('@', canary);
            let text = format!(
                "[talk.realtime.providers.openai]\napiKey = {reference}\n[clients]\nkeys = {reference}\n"
            );
            check(&toml(&text), canary);
        }
        check(
            &toml(&format!("clients.keys = [\n  \"{canary}\",\n]\n")),
            canary,
        );
        check(
            &toml(&format!("clients.keys = {{ web = \"{canary}\" }}\n")),
            canary,
        );
        check(
            &json(&format!(
                "{{gateway: {{auth: {{token: '{canary}'}}}}, talk: {{realtime: {{provider: 'openai', providers: {{openai: {{apiKey: '{canary}', azureFoo: 1}}}}}}}}}}"
            )),
            canary,
        );
        check(
            &json(&format!(
                "{{\"talk\":{{\"realtime\":{{\"providers\":{{\"openai\":{{\"apiKey\":\"{canary}\",\"azureFoo\":\"{canary}\"}}}}}}}}}}"
            )),
            canary,
        );
    }
}

#[test]
fn values_behind_references() {
    for canary in CANARIES {
        for value in [
            canary.to_owned(),
            format!("{canary}\n"),
            format!("{canary} x"),
            format!("\"{canary}\""),
            format!("<{canary}>"),
            format!("@Microsoft.KeyVault({canary})"),
        ] {
            let provider = "[talk.realtime.providers.azure-openai]\nazureEndpoint = \"https://r.openai.azure.com\"\nazureDeployment = \"d\"\n";
            let by_file =
                toml(&format!("{provider}apiKey = {{ file = \"f\" }}\n")).secret_file("f", &value);
            check(
                &by_file
                    .clone()
                    .with("TALKLINE_CLIENT_KEY=c-012345678901234567"),
                canary,
            );
            check(&by_file.variable("TALKLINE_CLIENT_KEY", &value), canary);
            check(
                &toml(provider).variable("AZURE_OPENAI_API_KEY", &value),
                canary,
            );
            check(&toml(provider).variable("OPENAI_API_KEY", &value), canary);
            let flag = toml(provider).flag(
                "--key",
                "talk.realtime.providers.azure-openai.apiKey",
                &value,
            );
            check(&flag, canary);
            check(
                &Case::default().variable(
                    "AZURE_OPENAI_ENDPOINT",
                    &format!("https://{value}@r.openai.azure.com"),
                ),
                canary,
            );
            check(
                &Case::default().variable(
                    "AZURE_OPENAI_ENDPOINT",
                    &format!("https://r.openai.azure.com/?api-key={value}"),
                ),
                canary,
            );
        }
    }
}

#[test]
fn settings_of_an_identity() {
    let sound = "[talk.realtime.providers.azure-openai]\nazureEndpoint = \"https://r.openai.azure.com\"\nazureDeployment = \"d\"\n";
    let ids = "auth.tenantId = \"contoso.onmicrosoft.com\"\nauth.clientId = \"00000000-0000-4000-8000-000000000001\"\n";
    for canary in CANARIES {
        for kind in ["client-secret", "managed-identity", "auto", "api-key"] {
            // A client secret in each place where somebody may put it.
            for key in [
                "clientId",
                "objectId",
                "resourceId",
                "tenantId",
                "clientSecret",
                "scope",
                "authority",
                "secret",
            ] {
                let text = format!("{sound}auth.kind = \"{kind}\"\nauth.{key} = \"{canary}\"\n");
                check(&toml(&text).with("AZURE_OPENAI_API_KEY=k"), canary);
            }
        }
        for name in [
            "AZURE_CLIENT_SECRET",
            "AZURE_CLIENT_ID",
            "AZURE_TENANT_ID",
            "AZURE_AUTHORITY_HOST",
        ] {
            let text = format!("{sound}auth.kind = \"client-secret\"\n");
            check(&toml(&text).variable(name, canary), canary);
        }
        // And where it belongs.
        let text = format!("{sound}{ids}auth.kind = \"client-secret\"\n");
        let case = toml(&text)
            .with("TALKLINE_CLIENT_KEY=c-012345678901234567")
            .variable("AZURE_CLIENT_SECRET", canary);
        case.expect_sound();
        check(&case, canary);
    }
}

#[test]
fn two_keys_and_credentials() {
    let sound = "[talk.realtime.providers.azure-openai]\nazureEndpoint = \"https://r.openai.azure.com\"\nazureDeployment = \"d\"\n";
    for canary in CANARIES {
        let text = format!(
            "{sound}apiKey = {{ file = \"one\" }}\napiKeySecondary = {{ credential = \"two\" }}\n"
        );
        let case = toml(&text)
            .with("TALKLINE_CLIENT_KEY=c-012345678901234567 CREDENTIALS_DIRECTORY=/run/c")
            .secret_file("one", canary)
            .secret_file("/run/c/two", &format!("{canary}2\n"));
        if !canary.starts_with("sk-") && !canary.starts_with("ek_") {
            case.expect_sound();
        }
        check(&case, canary);
        let text = format!("{sound}apiKey = {{ env = \"K\" }}\napiKeySecondary = \"{canary}\"\n");
        check(&toml(&text).with("K=k"), canary);
    }
}

#[test]
fn urls_with_keys() {
    for canary in CANARIES {
        for url in [
            "https://r.openai.azure.com/?api-key=@",
            "https://u:@@r.openai.azure.com/x",
            "https://@:x@r.openai.azure.com",
            "https://r.openai.azure.com/#@",
        ] {
            for key in ["azureEndpoint", "baseUrl", "azureEndpont"] {
                let text = format!(
                    "[talk.realtime.providers.openai]\n{key} = \"{}\"\n",
                    url.replacen('@', canary, 1)
                );
                check(&toml(&text), canary);
            }
        }
    }
}

#[test]
fn a_key_in_a_field_that_takes_none() {
    // Short words cannot be told from names; what looks like a key is never shown anywhere.
    for canary in &CANARIES[..2] {
        for key in [
            "azureEndpoint",
            "azureDeployment",
            "azureApiVersion",
            "type",
            "model",
            "baseUrl",
        ] {
            check(
                &toml(&format!(
                    "[talk.realtime.providers.openai]\n{key} = \"{canary}\"\n"
                )),
                canary,
            );
            check(
                &toml(&format!(
                    "[talk.realtime.providers.azure-openai]\n{key} = [\"{canary}\"]\n"
                )),
                canary,
            );
        }
        for text in [
            "talk.realtime.provider = \"@\"",
            "talk.realtime.transport = \"@\"",
            "talk.realtime.routes.x = \"@\"",
            "talk.realtime.routes.\"@\" = \"x\"",
            "server.listen = \"@\"",
            "server.allowedOrigins = [\"@\"]",
            "server.allowedHosts = [\"@!\"]",
            "limits.pingInterval = \"@\"",
            "\"@\" = 1",
            "# @\nserver = 1 # @",
        ] {
            check(
                &toml(&text.replace('@', canary)).with("OPENAI_API_KEY=sk-1"),
                canary,
            );
        }
    }
}

#[test]
fn files_that_cannot_be_parsed() {
    for canary in CANARIES {
        for text in [
            "apiKey = @\n",
            "apiKey = \"@\n",
            "apiKey = \"@\" x\n",
            "apiKey \"@\"\n",
            "azureDeployment = \"d\" apiKey = \"@\"\n",
            "listen = { env = \"x\", key = \"@\"\n",
            "clients.keys = [\n  \"@\"\n  \"b\",\n]\n",
            "# note: \"@\"\n= 1\n",
            "apiKey = '''\n@\n''' x\n",
            "a = 1\na = \"@\"\n",
        ] {
            check(&toml(&text.replace('@', canary)), canary);
        }
        for text in [
            "{talk: {realtime: {providers: {openai: {apiKey: '@' 'x'}}}}}",
            "{apiKey: @}",
            "{\n  apiKey: '@'\n  x: 1\n}",
            "{\"model\": \"m\", \"apiKey\": \"@\",, }",
            "{clients: {keys: [\n'@'\n'@'\n]}}",
        ] {
            check(&json(&text.replace('@', canary)), canary);
        }
    }
}
