//! Signing in: identities, keys that rotate, and everything that can be wrong with them.

use talkline_config::{KeyPlace, KeyVaultReference, Resolved};
use talkline_dialect::Upstream;

use crate::support::{Case, lines, toml};

const CLIENT: &str = "TALKLINE_CLIENT_KEY=client-key-of-some-length";
const APPLICATION: &str = "AZURE_TENANT_ID=10000000-0000-4000-8000-000000000001 AZURE_CLIENT_ID=20000000-0000-4000-8000-000000000002";
const TOKEN_FILE: &str =
    "AZURE_FEDERATED_TOKEN_FILE=/var/run/secrets/azure/tokens/azure-identity-token";

/// An Azure provider named `azure-openai`; lines of `text` take the place of the sound ones.
fn azure(text: &str) -> Case {
    let mut provider = String::from("[talk.realtime.providers.azure-openai]\n");
    for (key, value) in [
        ("azureEndpoint", "\"https://r.openai.azure.com\""),
        ("azureDeployment", "\"voice\""),
    ] {
        if !text.lines().any(|line| line.trim().starts_with(key)) {
            provider.push_str(&format!("{key} = {value}\n"));
        }
    }
    provider.push_str(text);
    toml(&provider).with(CLIENT)
}

/// `kind: reason, settings, scope` of every identity, one a line, and the warnings.
fn identities(resolved: &Resolved) -> String {
    let mut out: Vec<String> = resolved
        .config
        .identities
        .iter()
        .map(|identity| {
            let kind = format!("{:?}", identity.kind);
            let kind = kind.split_whitespace().collect::<Vec<_>>().join(" ");
            format!("{kind}: {}; {}", identity.reason, identity.scope)
        })
        .collect();
    let warnings = lines(&resolved.warnings);
    out.extend((!warnings.is_empty()).then_some(warnings));
    out.join("\n")
}

#[track_caller]
fn check(case: Case, expected: &str) {
    let resolved = case.expect_sound();
    assert_eq!(identities(&resolved), expected);
    // The cell that is handed out is the one that the upstream looks into.
    for identity in &resolved.config.identities {
        let upstream = resolved
            .config
            .routes
            .providers()
            .find(|(name, _)| *name == identity.provider)
            .map(|(_, upstream)| upstream)
            .unwrap();
        let cell = upstream.token_cell().unwrap();
        assert!(cell.is_same(&identity.cell));
        assert_eq!(cell.source_name(), identity.kind.as_str());
    }
}

#[track_caller]
fn check_broken(case: Case, expected: &str) {
    let report = case.expect_broken();
    let expected: Vec<&str> = expected.lines().map(str::trim).collect();
    let expected = expected
        .join("\n")
        .replace('@', "talk.realtime.providers.azure-openai");
    assert_eq!(lines(&report), expected, "\n{report}");
}

const NAMED: &str = "auth.kind names it; https://cognitiveservices.azure.com/.default";

#[test]
fn managed_identity() {
    let kind = "auth.kind = \"managed-identity\"\n";
    check(azure(kind), &format!("ManagedIdentity(System): {NAMED}"));
    let id = "20000000-0000-4000-8000-000000000002";
    check(
        azure(kind).with(APPLICATION),
        &format!("ManagedIdentity(ClientId(\"{id}\")): {NAMED}"),
    );
    let other = "30000000-0000-4000-8000-000000000003";
    check(
        azure(&format!("{kind}auth.clientId = \"{other}\"\n")).with(APPLICATION),
        &format!("ManagedIdentity(ClientId(\"{other}\")): {NAMED}"),
    );
    check(
        azure(&format!("{kind}auth.objectId = \"{other}\"\n")).with(APPLICATION),
        &format!("ManagedIdentity(ObjectId(\"{other}\")): {NAMED}"),
    );
    let resource = "/subscriptions/1/resourcegroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/talk";
    check(
        azure(&format!("{kind}auth.resourceId = \"{resource}\"\n")),
        &format!("ManagedIdentity(ResourceId(\"{resource}\")): {NAMED}"),
    );
    check_broken(
        azure(&format!("{kind}auth.resourceId = \"{resource}\"\n"))
            .with("IDENTITY_ENDPOINT=http://localhost/"),
        &format!("auth.resource-id @.auth.resourceId |\"{resource}\"|"),
    );
    check_broken(
        azure(&format!(
            "{kind}auth.clientId = \"{id}\"\nauth.objectId = \"{other}\"\n"
        )),
        &format!("auth.two-ids @.auth.clientId |\"{id}\"|"),
    );
    check(
        azure(kind).with(TOKEN_FILE),
        &format!(
            "ManagedIdentity(System): {NAMED}\nwarning auth.federation-unused talk.realtime.providers.azure-openai.auth.kind |\"managed-identity\"|"
        ),
    );
}

const ENTRA: &str = "application: Application { tenant_id: \"10000000-0000-4000-8000-000000000001\", client_id: \"20000000-0000-4000-8000-000000000002\", authority: \"https://login.microsoftonline.com\" }";

#[test]
fn applications() {
    check(
        azure("auth.kind = \"workload-identity\"\n")
            .with(APPLICATION)
            .with(TOKEN_FILE),
        &format!(
            "WorkloadIdentity {{ {ENTRA}, token_file: \"/var/run/secrets/azure/tokens/azure-identity-token\" }}: {NAMED}"
        ),
    );
    check(
        azure("auth.kind = \"client-secret\"\nauth.clientSecret = { env = \"S\" }\n")
            .with(APPLICATION)
            .with("S=application-secret AZURE_CLIENT_SECRET=another"),
        &format!("ClientSecret {{ {ENTRA}, secret: ClientSecret([redacted]) }}: {NAMED}"),
    );
    check(
        azure("auth.kind = \"client-assertion\"\nauth.certificate = \"/c.pem\"\n")
            .with(APPLICATION),
        &format!(
            "ClientAssertion {{ {ENTRA}, certificate: \"/c.pem\", certificate_key: \"/c.pem\" }}: {NAMED}"
        ),
    );
    check(
        azure("auth.kind = \"client-assertion\"\nauth.certificateKey = \"/k.pem\"\n")
            .with(APPLICATION)
            .with("AZURE_CLIENT_CERTIFICATE_PATH=/c.pem"),
        &format!(
            "ClientAssertion {{ {ENTRA}, certificate: \"/c.pem\", certificate_key: \"/k.pem\" }}: {NAMED}"
        ),
    );
    check(
        azure("auth.kind = \"client-secret\"\nauth.tenantId = \"contoso.onmicrosoft.com\"\nauth.authority = \"https://login.example/\"\n")
            .with(APPLICATION)
            .with("AZURE_CLIENT_SECRET=s AZURE_AUTHORITY_HOST=https://login.microsoftonline.us/"),
        &format!(
            "ClientSecret {{ {}, secret: ClientSecret([redacted]) }}: {NAMED}",
            ENTRA
                .replace("10000000-0000-4000-8000-000000000001", "contoso.onmicrosoft.com")
                .replace("login.microsoftonline.com", "login.example")
        ),
    );
}

#[test]
fn what_a_kind_needs() {
    for (kind, last) in [
        ("workload-identity", "tokenFile"),
        ("client-secret", "clientSecret"),
        ("client-assertion", "certificate"),
    ] {
        let text = format!("auth.kind = \"{kind}\"\n");
        let missing = |setting: &str| format!("auth.missing @.auth.{setting} |\"{kind}\"|");
        check_broken(
            azure(&text),
            &[missing("tenantId"), missing("clientId"), missing(last)].join("\n"),
        );
        check_broken(azure(&text).with(APPLICATION), &missing(last));
        // An empty variable is an unset one.
        check_broken(
            azure(&text)
                .with("AZURE_TENANT_ID=")
                .with("AZURE_CLIENT_ID=20000000-0000-4000-8000-000000000002"),
            &[missing("tenantId"), missing(last)].join("\n"),
        );
    }
    let report = azure("auth.kind = \"workload-identity\"\n")
        .expect_broken()
        .to_string();
    for variable in [
        "AZURE_TENANT_ID",
        "AZURE_CLIENT_ID",
        "AZURE_FEDERATED_TOKEN_FILE",
    ] {
        assert!(report.contains(&format!("or set {variable}")), "{report}");
    }
}

#[test]
fn developer_tools() {
    for (kind, shown) in [("azure-cli", "AzureCli"), ("azd", "AzureDeveloperCli")] {
        let text = format!("auth.kind = \"{kind}\"\n");
        check(
            azure(&text).dev(),
            &format!("{shown} {{ tenant_id: None }}: {NAMED}"),
        );
        check(
            azure(&text).dev().with(APPLICATION),
            &format!(
                "{shown} {{ tenant_id: Some(\"10000000-0000-4000-8000-000000000001\") }}: {NAMED}"
            ),
        );
        check_broken(
            azure(&text),
            &format!("auth.developer-tool @.auth.kind |\"{kind}\"|"),
        );
    }
}

#[test]
fn auto_chooses_by_the_environment() {
    #[track_caller]
    fn check_auto(variables: &str, expected: &str) {
        let plain = azure("auth.kind = \"auto\"\n")
            .with(APPLICATION)
            .with(variables);
        for case in [plain.clone(), plain.dev()] {
            let identity = case.expect_sound().config.identities.remove(0);
            assert_eq!(
                format!("{}: {}", identity.kind.as_str(), identity.reason),
                expected
            );
        }
    }
    check_auto(
        TOKEN_FILE,
        "workload-identity: AZURE_FEDERATED_TOKEN_FILE is set",
    );
    check_auto(
        &format!("{TOKEN_FILE} AZURE_CLIENT_SECRET=s IDENTITY_ENDPOINT=http://localhost/"),
        "workload-identity: AZURE_FEDERATED_TOKEN_FILE is set; also set and not used: AZURE_CLIENT_SECRET, IDENTITY_ENDPOINT",
    );
    check_auto(
        "AZURE_CLIENT_SECRET=s",
        "client-secret: AZURE_CLIENT_SECRET is set",
    );
    check_auto(
        "AZURE_CLIENT_CERTIFICATE_PATH=/c.pem",
        "client-assertion: AZURE_CLIENT_CERTIFICATE_PATH is set",
    );
    check_auto(
        "IDENTITY_ENDPOINT=http://localhost/",
        "managed-identity: IDENTITY_ENDPOINT is set",
    );
    let scope = "https://cognitiveservices.azure.com/.default";
    check(
        azure("auth.kind = \"auto\"\n"),
        &format!(
            "ManagedIdentity(System): no variable names an identity: taken for a virtual machine or an AKS node; {scope}"
        ),
    );
    check(
        azure("auth.kind = \"auto\"\n").dev(),
        &format!(
            "AzureCli {{ tenant_id: None }}: no variable names an identity, and --dev is given; {scope}"
        ),
    );
    // What it chose is incomplete: a problem, not another choice.
    check_broken(
        azure("auth.kind = \"auto\"\n").with(TOKEN_FILE).dev(),
        "auth.missing @.auth.tenantId |\"auto\"|\nauth.missing @.auth.clientId |\"auto\"|",
    );
}

#[test]
fn scopes_and_authorities_follow_the_cloud() {
    #[track_caller]
    fn check_cloud(endpoint: &str, scope: &str, authority: &str) {
        let text = format!("azureEndpoint = \"{endpoint}\"\nauth.kind = \"client-secret\"\n");
        let case = azure(&text).with(APPLICATION).with("AZURE_CLIENT_SECRET=s");
        let identity = case.expect_sound().config.identities.remove(0);
        assert_eq!(identity.scope, scope);
        let kind = format!("{:?}", identity.kind);
        assert!(kind.contains(&format!("\"{authority}\"")), "{kind}");
    }
    for host in ["openai", "cognitiveservices", "services.ai"] {
        for (top_level, login) in [
            ("com", "https://login.microsoftonline.com"),
            ("us", "https://login.microsoftonline.us"),
            ("cn", "https://login.partner.microsoftonline.cn"),
        ] {
            if (host, top_level) == ("services.ai", "cn") {
                continue;
            }
            check_cloud(
                &format!("https://r.{host}.azure.{top_level}"),
                &format!("https://cognitiveservices.azure.{top_level}/.default"),
                login,
            );
        }
    }
    check_cloud(
        "http://127.0.0.1:9000",
        "https://cognitiveservices.azure.com/.default",
        "https://login.microsoftonline.com",
    );
    let kind = "auth.kind = \"managed-identity\"\n";
    check(
        azure(&format!(
            "{kind}auth.scope = \"https://ai.azure.com/.default\"\n"
        )),
        "ManagedIdentity(System): auth.kind names it; https://ai.azure.com/.default",
    );
    for scope in [
        "https://ai.azure.com",
        "ai.azure.com/.default",
        "/.default",
        "https://a/.default https://b/.default",
    ] {
        check_broken_code(
            azure(&format!("{kind}auth.scope = \"{scope}\"\n")),
            "auth.scope",
        );
    }
    for authority in [
        "http://login.microsoftonline.com",
        "https://login.microsoftonline.com/tenant",
        "login.microsoftonline.com",
        "https://u@login.microsoftonline.com",
    ] {
        let text = format!("auth.kind = \"client-secret\"\nauth.authority = \"{authority}\"\n");
        let case = azure(&text).with(APPLICATION).with("AZURE_CLIENT_SECRET=s");
        check_broken_code(case, "auth.authority");
    }
}

#[track_caller]
fn check_broken_code(case: Case, expected: &str) {
    let report = case.expect_broken();
    let codes: Vec<_> = report
        .problems()
        .iter()
        .map(|problem| problem.code)
        .collect();
    assert_eq!(codes, [expected], "{report}");
}

#[test]
fn malformed_ids() {
    let text = |setting: &str| format!("auth.kind = \"client-secret\"\nauth.{setting}\n");
    for setting in [
        "clientId = \"talk\"",
        "clientId = \"20000000000040008000000000000002\"",
        "tenantId = \"common\"",
        "tenantId = \"a/b.c\"",
    ] {
        let case = azure(&text(setting))
            .with(APPLICATION)
            .with("AZURE_CLIENT_SECRET=s");
        check_broken_code(case, "auth.id");
    }
    check_broken(
        azure("auth.kind = \"client-secret\"\n")
            .with(APPLICATION)
            .with("AZURE_CLIENT_ID=my~secret AZURE_CLIENT_SECRET=s"),
        "auth.id @.auth.clientId (variable AZURE_CLIENT_ID)",
    );
    check_broken_code(
        azure("auth.kind = \"managed-identity\"\nauth.resourceId = \"talk\"\n"),
        "auth.id",
    );
}

#[test]
fn a_key_and_an_identity() {
    let kind = "auth.kind = \"managed-identity\"\n";
    check_broken(
        azure(&format!("{kind}apiKey = {{ env = \"K\" }}\n")).with("K=k"),
        "auth.conflict @.auth.kind |\"managed-identity\"|",
    );
    check_broken(
        azure(&format!("{kind}apiKeySecondary = {{ env = \"K\" }}\n")).with("K=k"),
        "auth.conflict @.auth.kind |\"managed-identity\"|",
    );
    let report = azure(&format!("{kind}apiKey = {{ env = \"K\" }}\n")).expect_broken();
    let message = &report.problems()[0].message;
    assert!(
        message.contains("managed-identity") && message.contains("apiKey"),
        "{message}"
    );
    check(
        azure(kind).with("AZURE_OPENAI_API_KEY=k"),
        &format!(
            "ManagedIdentity(System): {NAMED}\nwarning auth.key-variable-ignored - (variable AZURE_OPENAI_API_KEY)"
        ),
    );
    // Without a key and without a kind, nothing is guessed.
    check_broken_code(azure("").with(APPLICATION), "azure.key-missing");
}

#[test]
fn settings_without_their_kind() {
    check_broken(
        azure(
            "apiKey = { env = \"K\" }\nauth.clientId = \"20000000-0000-4000-8000-000000000002\"\n",
        )
        .with("K=k"),
        "auth.unused @.auth.clientId |clientId|",
    );
    check_broken(
        azure("auth.kind = \"managed-identity\"\nauth.clientSecret = { env = \"S\" }\n")
            .with("S=s"),
        "auth.unused @.auth.clientSecret |clientSecret|",
    );
    check_broken(
        azure("auth.kind = \"azd\"\nauth.authority = \"https://login.example\"\n").dev(),
        "auth.unused @.auth.authority |authority|",
    );
}

#[test]
fn entra_is_for_the_resources_own_host() {
    check_broken(
        azure(
            "azureEndpoint = \"https://eastus2.api.cognitive.microsoft.com\"\nauth.kind = \"auto\"\n",
        ),
        "auth.regional-endpoint @.azureEndpoint |\"https://eastus2.api.cognitive.microsoft.com\"|",
    );
    azure("azureEndpoint = \"https://eastus2.api.cognitive.microsoft.com\"\napiKey = { env = \"K\" }\n")
        .with("K=k")
        .expect_sound();
    for kind in ["managed-identity", "auto", "azd"] {
        let openai = format!(
            "[talk.realtime.providers.openai]\ntype = \"openai\"\nmodel = \"m\"\nauth.kind = \"{kind}\"\n"
        );
        check_broken(
            toml(&openai).with(CLIENT).with("OPENAI_API_KEY=sk-1").dev(),
            &format!("auth.azure-only talk.realtime.providers.openai.auth.kind |\"{kind}\"|"),
        );
        let custom = format!(
            "[talk.realtime.providers.custom]\nbaseUrl = \"https://h.example/v1\"\nmodel = \"m\"\napiKey = {{ env = \"K\" }}\nauth.kind = \"{kind}\"\n"
        );
        check_broken(
            toml(&custom).with(CLIENT).with("K=k").dev(),
            &format!("auth.azure-only talk.realtime.providers.custom.auth.kind |\"{kind}\"|"),
        );
    }
}

/// `provider: primary / secondary` of every watched key, and whether its cell is the upstream's.
#[track_caller]
fn check_keys(case: Case, expected: &str) {
    let resolved = case.expect_sound();
    let place = |place: &KeyPlace| match place {
        KeyPlace::File(path) => path.clone(),
        KeyPlace::KeyVault(reference) => reference.to_string(),
        KeyPlace::Fixed => "fixed".to_owned(),
    };
    let found: Vec<String> = resolved
        .config
        .watched_keys
        .iter()
        .map(|key| {
            let upstream = resolved
                .config
                .routes
                .providers()
                .find(|(name, _)| *name == key.provider);
            assert!(upstream.unwrap().1.key_cell().unwrap().is_same(&key.cell));
            let secondary = key.secondary.as_ref().map_or("none".to_owned(), place);
            format!(
                "{}: {} / {secondary} ({})",
                key.provider,
                place(&key.primary),
                key.cell.live().secret().expose()
            )
        })
        .collect();
    assert_eq!(found.join("\n"), expected);
}

#[test]
fn keys_that_rotate() {
    check_keys(azure("apiKey = { env = \"K\" }\n").with("K=k-1"), "");
    check_keys(azure("").with("AZURE_OPENAI_API_KEY=k-1"), "");
    check_keys(
        azure("apiKey = { file = \"/run/key\" }\n").secret_file("/run/key", "k-1\n"),
        "azure-openai: /run/key / none (k-1)",
    );
    check_keys(
        azure("apiKey = { credential = \"azure-key\" }\n")
            .with("CREDENTIALS_DIRECTORY=/run/credentials/talkline.service")
            .secret_file("/run/credentials/talkline.service/azure-key", "k-1"),
        "azure-openai: /run/credentials/talkline.service/azure-key / none (k-1)",
    );
    check_keys(
        azure("apiKey = { env = \"K\" }\napiKeySecondary = { env = \"K2\" }\n")
            .with("K=k-1 K2=k-2"),
        "azure-openai: fixed / fixed (k-1)",
    );
    check_keys(
        azure("apiKey = { keyvault = \"https://talk.vault.azure.net/secrets/key-1\" }\napiKeySecondary = { file = \"/two\" }\n")
            .secret_file("/two", "k-2"),
        "azure-openai: https://talk.vault.azure.net/secrets/key-1 / /two ()",
    );
    check_keys(
        toml("[talk.realtime.providers.openai]\nmodel = \"m\"\napiKey = { file = \"/key\" }\n")
            .with(CLIENT)
            .secret_file("/key", "sk-1"),
        "openai: /key / none (sk-1)",
    );
    check_broken(
        toml(
            "[talk.realtime.providers.openai]\nmodel = \"m\"\napiKeySecondary = { env = \"K\" }\n",
        )
        .with(CLIENT)
        .with("OPENAI_API_KEY=sk-1 K=sk-2"),
        "key.not-for-provider talk.realtime.providers.openai.apiKeySecondary |apiKeySecondary|",
    );
    check_broken(
        azure("apiKeySecondary = { env = \"K\" }\n").with("K=k"),
        "azure.key-missing @.apiKey |azure-openai|",
    );
}

#[test]
fn neither_key_is_a_clients() {
    let text = "apiKey = { env = \"K\" }\napiKeySecondary = { env = \"K2\" }\n";
    check_broken(
        azure(text).with("K=k-1 K2=client-key-of-some-length"),
        "client-key.is-upstream-key clients.keys.default (variable TALKLINE_CLIENT_KEY)",
    );
    check_broken(
        azure("auth.kind = \"client-secret\"\n")
            .with(APPLICATION)
            .with("AZURE_CLIENT_SECRET=client-key-of-some-length"),
        "client-key.is-upstream-key clients.keys.default (variable TALKLINE_CLIENT_KEY)",
    );
    let resolved = azure(text).with("K=k-1 K2=k-1").expect_sound();
    assert_eq!(
        lines(&resolved.warnings),
        "warning azure.keys-equal talk.realtime.providers.azure-openai.apiKeySecondary |{ env = \"K2\" }|"
    );
}

#[test]
fn an_identity_opens_the_vault() {
    let text = "apiKey = { keyvault = \"https://talk.vault.azure.net/secrets/key-1\" }\n";
    let opened_by = |case: Case| {
        let identity = case.expect_sound().config.vault_identity.unwrap();
        format!("{}: {}", identity.kind.as_str(), identity.reason)
    };
    assert_eq!(
        opened_by(azure(text)),
        "managed-identity: no variable names an identity: taken for a virtual machine or an AKS node"
    );
    assert_eq!(
        opened_by(azure(text).with(APPLICATION).with(TOKEN_FILE)),
        "workload-identity: AZURE_FEDERATED_TOKEN_FILE is set"
    );
    assert_eq!(
        opened_by(azure(text).dev()),
        "azure-cli: no variable names an identity, and --dev is given"
    );
    check_broken(
        azure(text).with(TOKEN_FILE),
        "auth.missing @.apiKey |{ keyvault = \"https://talk.vault.azure.net/secrets/key-1\" }|
         auth.missing @.apiKey |{ keyvault = \"https://talk.vault.azure.net/secrets/key-1\" }|",
    );
    let none = azure("apiKey = { env = \"K\" }\n")
        .with("K=k")
        .expect_sound();
    assert!(none.config.vault_identity.is_none());
    let shown = azure(text).expect_sound().settings;
    let shown = shown
        .iter()
        .find(|setting| setting.key.ends_with("apiKey"))
        .unwrap();
    assert_eq!(
        shown.value,
        "{ keyvault = \"https://talk.vault.azure.net/secrets/key-1\" } (read when the relay starts)"
    );
}

#[test]
fn references_that_lead_nowhere() {
    check_broken(
        azure("apiKey = { credential = \"azure-key\" }\n"),
        "secret.no-credentials @.apiKey |{ credential = \"azure-key\" }|",
    );
    check_broken(
        azure("apiKey = { credential = \"azure-key\" }\n").with("CREDENTIALS_DIRECTORY=/c"),
        "secret.file-unreadable @.apiKey |{ credential = \"azure-key\" }|",
    );
    for name in ["../key", "a/b", ".key", "", "a b"] {
        let case = azure(&format!("apiKey = {{ credential = \"{name}\" }}\n"))
            .with("CREDENTIALS_DIRECTORY=/c");
        let report = case.expect_broken();
        let code = if name.is_empty() {
            "secret.type"
        } else {
            "secret.credential-name"
        };
        assert_eq!(report.problems()[0].code, code, "{report}");
    }
    check_broken(
        azure("apiKey = { env = \"K\", keyvault = \"https://talk.vault.azure.net/secrets/n\" }\n"),
        "secret.two-sources @.apiKey |{ env = \"K\", keyvault = \"https://talk.vault.azure.net/secrets/n\" }|",
    );
    check_broken(
        azure("apiKey = { keyvault = \"http://talk.vault.azure.net/secrets/n\" }\n"),
        "secret.key-vault-reference @.apiKey |\"*************************************\"|",
    );
    check_broken(
        azure("auth.kind = \"client-secret\"\nauth.clientSecret = { keyvault = \"https://talk.vault.azure.net/secrets/n\" }\n")
            .with(APPLICATION),
        "secret.key-vault-here @.auth.clientSecret |{ keyvault = \"https://talk.vault.azure.net/secrets/n\" }|",
    );
    check_broken(
        azure("apiKey = { env = \"K\" }\n[clients]\nkeys = { keyvault = \"https://talk.vault.azure.net/secrets/n\" }\n").with("K=k"),
        "secret.key-vault-here clients.keys.default |{ keyvault = \"https://talk.vault.azure.net/secrets/n\" }|",
    );
}

/// App Service leaves its reference in the variable when it cannot resolve it.
#[test]
fn a_reference_that_app_service_left() {
    let left = "@Microsoft.KeyVault(SecretUri=https://talk.vault.azure.net/secrets/n/0123456789abcdef0123456789abcdef)";
    let report = azure("")
        .variable("AZURE_OPENAI_API_KEY", left)
        .expect_broken();
    let problem = &report.problems()[0];
    assert_eq!(problem.code, "secret.key-vault-literal");
    assert!(problem.message.contains("App Service"), "{report}");
    let hint = problem.hint.as_deref().unwrap();
    assert!(hint.contains("Key Vault Secrets User"), "{report}");
    assert!(
        hint.contains("{ keyvault = \"https://talk.vault.azure.net/secrets/n\" }"),
        "{report}"
    );
    // The same text as a reference is one.
    check_keys(
        azure(&format!("apiKey = {{ keyvault = \"{left}\" }}\n")),
        "azure-openai: https://talk.vault.azure.net/secrets/n/0123456789abcdef0123456789abcdef / none ()",
    );
}

#[test]
fn key_vault_references() {
    fn check(text: &str, expected: &str) {
        let found = match KeyVaultReference::parse(text) {
            Ok(reference) => format!("{reference} {}", reference.scope()),
            Err(_) => "refused".to_owned(),
        };
        assert_eq!(found, expected, "{text}");
    }
    let public = "https://talk.vault.azure.net/secrets/n https://vault.azure.net/.default";
    check("https://talk.vault.azure.net/secrets/n", public);
    check("HTTPS://Talk.Vault.Azure.net/secrets/n/", public);
    check(
        "@Microsoft.KeyVault(SecretUri=https://talk.vault.azure.net/secrets/n/)",
        public,
    );
    check("@Microsoft.KeyVault(VaultName=talk;SecretName=n)", public);
    check(
        "@Microsoft.KeyVault(VaultName=talk;SecretName=n;SecretVersion=)",
        public,
    );
    check(
        "https://talk.vault.usgovcloudapi.net/secrets/n",
        "https://talk.vault.usgovcloudapi.net/secrets/n https://vault.usgovcloudapi.net/.default",
    );
    check(
        "https://talk.vault.azure.cn/secrets/n",
        "https://talk.vault.azure.cn/secrets/n https://vault.azure.cn/.default",
    );
    let version = "0123456789abcdef0123456789abcdef";
    check(
        &format!("https://talk.vault.azure.net/secrets/n/{version}"),
        &format!(
            "https://talk.vault.azure.net/secrets/n/{version} https://vault.azure.net/.default"
        ),
    );
    for text in [
        "",
        "talk",
        "http://talk.vault.azure.net/secrets/n",
        "https://vault.azure.net/secrets/n",
        "https://talk.vault.azure.net",
        "https://talk.vault.azure.net/keys/n",
        "https://talk.vault.azure.net/secrets/",
        "https://talk.vault.azure.net/secrets/../n",
        "https://talk.vault.azure.net/secrets/n?x=1",
        "https://talk.vault.azure.net/secrets/n#x",
        "https://talk.vault.azure.net/secrets/n/1",
        "https://talk.vault.azure.net/secrets/n/1/2",
        "https://talk.vault.azure.net:8443/secrets/n",
        "https://u@talk.vault.azure.net/secrets/n",
        "https://talk.vault.azure.net.evil.example/secrets/n",
        "https://a.b.vault.azure.net/secrets/n",
        "https://evilvault.azure.net/secrets/n",
        "@Microsoft.KeyVault(SecretUri=https://evil.example/secrets/n)",
        "@Microsoft.KeyVault(VaultName=talk.evil.example/;SecretName=n)",
        "@Microsoft.KeyVault(VaultName=talk)",
        "@Microsoft.KeyVault(VaultName=talk;SecretName=n",
    ] {
        check(text, "refused");
    }
}

#[test]
fn a_provider_with_a_key_beside_one_with_an_identity() {
    let resolved = toml(
        "talk.realtime.provider = \"one\"\n\
         [talk.realtime.providers.one]\ntype = \"azure-openai\"\nazureEndpoint = \"https://one.openai.azure.com\"\nazureDeployment = \"a\"\nauth.kind = \"managed-identity\"\n\
         [talk.realtime.providers.two]\ntype = \"azure-openai\"\nazureEndpoint = \"https://two.openai.azure.com\"\nazureDeployment = \"b\"\napiKey = { env = \"K\" }\n",
    )
    .with(CLIENT)
    .with("K=k")
    .expect_sound();
    let kinds: Vec<_> = resolved
        .config
        .routes
        .providers()
        .map(|(name, upstream)| match &**upstream {
            Upstream::Azure(azure) => format!("{name} {}", azure.credential.kind()),
            other => format!("{name} {}", other.provider()),
        })
        .collect();
    assert_eq!(kinds, ["one managed-identity", "two api-key"]);
}
