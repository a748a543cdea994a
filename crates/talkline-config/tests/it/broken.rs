//! Broken configurations: code, key and the exact text under the caret of every problem.

use crate::support::{Case, environment, json, lines, toml};

/// Keeps the rest of the configuration sound, so that a case shows its own problems only.
const ENVIRONMENT: &str = "TALKLINE_CLIENT_KEY=client-key-of-some-length KEY=k-1";

#[track_caller]
fn check(case: Case, expected: &str) {
    let report = case.expect_broken();
    let found = lines(&report);
    let expected: Vec<&str> = expected
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    assert_eq!(found, expected.join("\n"), "\n{report}");
    assert_eq!(
        report.span_text(&report.problems()[0]).is_some(),
        report.problems()[0].span.is_some()
    );
}

/// A problem in a file that is otherwise sound.
#[track_caller]
fn check_toml(text: &str, expected: &str) {
    check(toml(text).with(ENVIRONMENT), expected);
}

/// A problem in the table of an otherwise complete Azure provider. Lines of `text` take the place
/// of the sound ones.
#[track_caller]
fn check_azure(text: &str, expected: &str) {
    let mut provider = String::from(
        "talk.realtime.provider = \"azure-openai\"\n[talk.realtime.providers.azure-openai]\n",
    );
    let sound = [
        ("azureEndpoint", "\"https://r.openai.azure.com\""),
        ("azureDeployment", "\"voice\""),
        ("apiKey", "{ env = \"KEY\" }"),
    ];
    for (key, value) in sound {
        if !text.lines().any(|line| line.trim().starts_with(key)) {
            provider.push_str(&format!("{key} = {value}\n"));
        }
    }
    provider.push_str(text);
    check(
        toml(&provider).with(ENVIRONMENT),
        &expected.replace("@", "talk.realtime.providers.azure-openai"),
    );
}

#[track_caller]
fn check_custom(text: &str, expected: &str) {
    let mut provider = String::from("[talk.realtime.providers.custom]\n");
    for (key, value) in [
        ("baseUrl", "\"https://h.example/v1\""),
        ("model", "\"m\""),
        ("apiKey", "{ env = \"KEY\" }"),
    ] {
        if !text.lines().any(|line| line.trim().starts_with(key)) {
            provider.push_str(&format!("{key} = {value}\n"));
        }
    }
    provider.push_str(text);
    check(
        toml(&provider).with(ENVIRONMENT),
        &expected.replace("@", "talk.realtime.providers.custom"),
    );
}

/// A problem outside the provider.
#[track_caller]
fn check_around(text: &str, expected: &str) {
    let azure = "AZURE_OPENAI_ENDPOINT=https://r.openai.azure.com AZURE_OPENAI_DEPLOYMENT_NAME=voice AZURE_OPENAI_API_KEY=k-1";
    let mut case = toml(text).with(azure).with("KEY=k-2");
    if !text.contains("[clients") && !text.contains("clients.") {
        case = case.with(ENVIRONMENT);
    }
    check(case, expected);
}

#[test]
fn nothing_configured() {
    check(
        Case::default().with(ENVIRONMENT),
        "config.nothing talk.realtime.provider",
    );
    check(
        Case::default(),
        "config.nothing talk.realtime.provider\nclients.none clients.keys",
    );
    check(
        environment("OPENAI_API_KEY=sk-1").with(ENVIRONMENT),
        "config.nothing talk.realtime.provider",
    );
    let report = Case::default().expect_broken().to_string();
    assert!(
        report.contains("AZURE_OPENAI_ENDPOINT") && report.contains("talkline.toml"),
        "{report}"
    );
}

#[test]
fn syntax() {
    check_toml(
        "talk.realtime.provider = openai\n",
        "file.syntax - |openai|",
    );
    check_toml(
        "[talk\n[server]\nlisten = 1 2\n",
        "file.syntax - ||\nfile.syntax - |1 2|",
    );
    check_toml("a = 1\na = 2\n", "file.syntax - |a|");
    check(
        json("{talk: {realtime: }}").with(ENVIRONMENT),
        "file.syntax - |}|",
    );
    check(json("[]").with(ENVIRONMENT), "file.syntax - |[|");
    check(json("").with(ENVIRONMENT), "file.syntax - ||");
    check(json("{a: 'b}").with(ENVIRONMENT), "file.syntax - |'|");
    check(json("{a: 1} x").with(ENVIRONMENT), "file.syntax - |*|");
}

#[test]
fn unknown_keys() {
    check_around(
        "sever.listen = \"127.0.0.1:1\"\n",
        "key.unknown sever |sever|",
    );
    check_around(
        "[server]\nlissten = \"127.0.0.1:1\"\n",
        "key.unknown server.lissten |lissten|",
    );
    check_around(
        "[server]\nallowed_origins = []\n",
        "key.unknown server.allowed_origins |allowed_origins|",
    );
    check_around(
        "[limits]\nmaxSesions = 1\nzzz = 2\n",
        "key.unknown limits.maxSesions |maxSesions|\nkey.unknown limits.zzz |zzz|",
    );
    check_around(
        "[talk.realtime]\nmode = \"realtime\"\n",
        "key.unknown talk.realtime.mode |mode|",
    );
    check_around("talk.voice = 1\n", "key.unknown talk.voice |voice|");
    check_around(
        "[server.tls]\ncert = \"c\"\nkey = \"k\"\nca = \"x\"\n",
        "key.unknown server.tls.ca |ca|",
    );
    check_azure("auth.scop = \"x\"\n", "key.unknown @.auth.scop |scop|");
    check_azure("voice = \"marin\"\n", "key.unknown @.voice |voice|");
    check_azure(
        "azure_endpoint = \"x\"\n",
        "key.unknown @.azure_endpoint |azure_endpoint|",
    );
}

#[test]
fn an_unknown_key_gets_a_suggestion() {
    let hint = |text: &str| {
        let report = toml(text).expect_broken();
        let unknown = report
            .problems()
            .iter()
            .find(|problem| problem.code == "key.unknown");
        unknown.unwrap().hint.clone().unwrap()
    };
    assert_eq!(
        hint("server.allowed_hosts = []"),
        "did you mean `allowedHosts`?"
    );
    assert_eq!(hint("serverr.listen = 1"), "did you mean `server`?");
    assert_eq!(
        hint("talk.realtime.azureEndpoint = 1"),
        "this key belongs at talk.realtime.providers.<name>.azureEndpoint"
    );
    assert_eq!(hint("talk.x = 1"), "possible here are realtime");
    assert_eq!(
        hint("talk.realtime.providers.p.AZURE_API_VERSION = 1"),
        "did you mean `azureApiVersion`?"
    );
}

#[test]
fn wrong_types() {
    check_around("server = 1\n", "value.type server |1|");
    check_around(
        "[server]\nlisten = 8080\n",
        "value.type server.listen |8080|",
    );
    check_around(
        "[server]\nallowedOrigins = \"https://a.example\"\n",
        "value.type server.allowedOrigins |\"https://a.example\"|",
    );
    check_around(
        "[server]\nallowedOrigins = [1, \"https://a.example\"]\n",
        "value.type server.allowedOrigins |1|",
    );
    check_around(
        "[talk.realtime]\nallowAnyModel = \"true\"\n",
        "value.type talk.realtime.allowAnyModel |\"true\"|",
    );
    check_azure(
        "azureDeployment = 42\n",
        "value.type @.azureDeployment |42|",
    );
    check_azure(
        "azureApiVersion = 2025-04-01\n",
        "value.type @.azureApiVersion |2025-04-01|",
    );
    check_azure(
        "azureEndpoint = \"\"\n",
        "value.empty @.azureEndpoint |\"\"|",
    );
    check_azure(
        "azureDeployment = \" \"\n",
        "value.empty @.azureDeployment |\" \"|",
    );
    check_around("clients.keys = 7\n", "value.type clients.keys |*|");
    check_around(
        "clients.allowAnonymous = \"yes\"\n",
        "value.type clients.allowAnonymous |\"yes\"|",
    );
}

#[test]
fn choosing_a_provider() {
    check_toml(
        "talk.realtime.provider = \"opnai\"\n",
        "provider.unknown talk.realtime.provider |\"opnai\"|",
    );
    check_toml(
        "talk.realtime.provider = \"west\"\n[talk.realtime.providers.east]\ntype = \"azure-openai\"\n",
        "provider.unknown talk.realtime.provider |\"west\"|",
    );
    check_toml(
        "talk.realtime.provider = \"openai\"\n[talk.realtime.providers.azure-openai]\nazureDeployment = \"d\"\n",
        "provider.unknown talk.realtime.provider |\"openai\"|",
    );
    check_toml(
        "[talk.realtime.providers.a]\ntype = \"custom\"\n[talk.realtime.providers.b]\ntype = \"custom\"\n",
        "provider.ambiguous talk.realtime.provider |providers|",
    );
    check_toml(
        "[talk.realtime.providers.east]\nmodel = \"m\"\n",
        "provider.type-missing talk.realtime.providers.east.type |east|",
    );
    check_toml(
        "[talk.realtime.providers.east]\ntype = \"azure\"\n",
        "value.choice talk.realtime.providers.east.type |\"azure\"|",
    );
    check_custom(
        "[talk.realtime.providers.spare]\nmodel = \"x\"\n",
        "provider.ambiguous talk.realtime.provider |providers|",
    );
    check_toml(
        "talk.realtime.provider = \"custom\"\ntalk.realtime.model = \"a b\"\n[talk.realtime.providers.custom]\nbaseUrl = \"https://h.example\"\nauth.kind = \"none\"\nmodel = \"m\"\n[talk.realtime.providers.spare]\nmodel = \"x\"\n",
        "model.name talk.realtime.model |\"a b\"|
         provider.type-missing talk.realtime.providers.spare.type |spare|",
    );
    check_toml(
        "[talk.realtime.providers.custom]\ntype = \"openai\"\n",
        "provider.type talk.realtime.providers.custom.type |\"openai\"|",
    );
    check_toml(
        "[talk.realtime.providers.azure-openai]\ntype = \"openai\"\n",
        "provider.type talk.realtime.providers.azure-openai.type |\"openai\"|",
    );
}

#[test]
fn missing_azure_items_are_each_their_own_problem() {
    let p = "talk.realtime.providers.azure-openai";
    check(
        environment("AZURE_OPENAI_ENDPOINT=https://r.openai.azure.com").with(ENVIRONMENT),
        &format!("azure.deployment-missing {p}.azureDeployment\nazure.key-missing {p}.apiKey"),
    );
    check(
        environment("AZURE_OPENAI_DEPLOYMENT=voice").with(ENVIRONMENT),
        &format!("azure.endpoint-missing {p}.azureEndpoint\nazure.key-missing {p}.apiKey"),
    );
    check_toml(
        "talk.realtime.provider = \"azure-openai\"\n",
        &format!(
            "azure.endpoint-missing {p}.azureEndpoint\nazure.deployment-missing {p}.azureDeployment\nazure.key-missing {p}.apiKey"
        ),
    );
    check_toml(
        "[talk.realtime.providers.openai]\nazureDeployment = \"d\"\n",
        "azure.endpoint-missing talk.realtime.providers.openai.azureEndpoint |openai|
         azure.key-missing talk.realtime.providers.openai.apiKey |openai|",
    );
    check_azure(
        "azureEndpont = \"https://r.openai.azure.com\"\nazureEndpoint_ = 1",
        "key.unknown @.azureEndpont |azureEndpont|\nkey.unknown @.azureEndpoint_ |azureEndpoint_|",
    );
}

#[test]
fn anything_that_says_azure_is_azure_or_an_error() {
    let key = "OPENAI_API_KEY=sk-platform";
    let seed = "talk.realtime.provider = \"openai\"\n[talk.realtime.providers.openai]\n";
    let p = "talk.realtime.providers.openai";
    for misspelt in [
        "azureEndpont",
        "azureendpoint",
        "AzureEndpoint",
        "azure_endpoint",
        "AZURE_ENDPOINT",
        "azureFoo",
        "azure",
    ] {
        let text = format!("{seed}{misspelt} = \"https://r.openai.azure.com\"\n");
        let report = toml(&text).with(ENVIRONMENT).with(key).expect_broken();
        let found = lines(&report);
        assert!(
            found.contains(&format!("key.unknown {p}.{misspelt} |{misspelt}|")),
            "{misspelt}: {found}"
        );
    }
    check(
        toml(&format!("{seed}azureDeployment = \"d\"\n"))
            .with(ENVIRONMENT)
            .with(key),
        &format!(
            "azure.endpoint-missing {p}.azureEndpoint |openai|\nazure.key-missing {p}.apiKey |openai|\nwarning variable.openai-key-unused - (variable OPENAI_API_KEY)"
        ),
    );
    check(
        toml(seed)
            .with(ENVIRONMENT)
            .with(key)
            .with("AZURE_OPENAI_ENDPONT=https://r.openai.azure.com"),
        &format!(
            "azure.endpoint-missing {p}.azureEndpoint |openai|
         azure.deployment-missing {p}.azureDeployment |openai|
         azure.key-missing {p}.apiKey |openai|
         warning variable.near-miss - (variable AZURE_OPENAI_ENDPONT)
         warning variable.openai-key-unused - (variable OPENAI_API_KEY)"
        ),
    );
    check(
        toml(seed)
            .with(ENVIRONMENT)
            .with(key)
            .variable("AZURE_OPENAI_ENDPOINT", ""),
        &format!(
            "azure.endpoint-missing {p}.azureEndpoint |openai|
         azure.deployment-missing {p}.azureDeployment |openai|
         azure.key-missing {p}.apiKey |openai|
         warning variable.empty {p}.azureEndpoint (variable AZURE_OPENAI_ENDPOINT)
         warning variable.openai-key-unused - (variable OPENAI_API_KEY)"
        ),
    );
    check(
        toml(&format!(
            "{seed}type = \"openai\"\nazureDeployment = \"d\"\n"
        ))
        .with(ENVIRONMENT)
        .with(key),
        &format!("azure.contradiction {p}.azureDeployment |azureDeployment|"),
    );
    check_custom(
        "azureEndpoint = \"https://r.openai.azure.com\"\n",
        "azure.contradiction @.azureEndpoint |azureEndpoint|",
    );
    check(
        json(r#"{talk: {realtime: {provider: "openai", providers: {openai: {azureEndpont: "https://r.openai.azure.com", voice: "marin"}}}}}"#)
            .with(ENVIRONMENT)
            .with(key),
        "azure.deployment-missing talk.realtime.providers.openai.azureDeployment |openai|
         azure.key-missing talk.realtime.providers.openai.apiKey |openai|
         key.unknown talk.realtime.providers.openai.azureEndpont |azureEndpont|
         warning variable.openai-key-unused - (variable OPENAI_API_KEY)",
    );
    check(
        json(r#"{talk: {realtime: {azureEndpoint: "x", provider: "openai"}}}"#)
            .with(ENVIRONMENT)
            .with(key),
        "key.unknown talk.realtime.azureEndpoint |azureEndpoint|
         model.missing talk.realtime.providers.openai.model",
    );
    check(
        json(r#"{talk: {realtime: {provider: "openai", model: "m", providers: {openai: {}, google: {voice: "x", azureKey: 1}}}}}"#)
            .with(ENVIRONMENT)
            .with(key),
        "provider.type-missing talk.realtime.providers.google.type |google|
         key.unknown talk.realtime.providers.google.azureKey |azureKey|",
    );
}

#[test]
fn keys_never_cross_between_azure_and_openai() {
    let azure = "azureEndpoint = \"https://r.openai.azure.com\"\nazureDeployment = \"d\"\n";
    let report = toml(&format!("[talk.realtime.providers.openai]\n{azure}"))
        .with(ENVIRONMENT)
        .with("OPENAI_API_KEY=sk-platform")
        .expect_broken();
    let missing = report
        .problems()
        .iter()
        .find(|problem| problem.code == "azure.key-missing")
        .unwrap();
    assert!(
        missing
            .hint
            .as_deref()
            .unwrap()
            .contains("OPENAI_API_KEY is set but never used here")
    );

    check(
        toml("[talk.realtime.providers.openai]\nmodel = \"m\"\n")
            .with(ENVIRONMENT)
            .with("AZURE_OPENAI_API_KEY=k-azure"),
        "openai.key-missing talk.realtime.providers.openai.apiKey |openai|",
    );
    // A second Azure resource does not get the first one's key.
    check(
        toml(&format!(
            "talk.realtime.provider = \"east\"\n[talk.realtime.providers.east]\ntype = \"azure-openai\"\n{azure}\
             [talk.realtime.providers.west]\ntype = \"azure-openai\"\n{}",
            azure.replace("r.openai", "w.openai").replace("\"d\"", "\"e\"")
        ))
        .with(ENVIRONMENT)
        .with("AZURE_OPENAI_API_KEY=k-azure"),
        "azure.key-missing talk.realtime.providers.west.apiKey |west|",
    );
    // A key from a variable does not go to a base URL from a file.
    check(
        toml(
            "[talk.realtime.providers.custom]\nbaseUrl = \"https://h.example/v1\"\nmodel = \"m\"\n",
        )
        .with(ENVIRONMENT)
        .with("OPENAI_API_KEY=sk-platform"),
        "custom.key-missing talk.realtime.providers.custom.apiKey |custom|",
    );
}

#[test]
fn azure_values() {
    check_azure(
        "azureEndpoint = \"r.openai.azure.com\"\n",
        "endpoint.no-scheme @.azureEndpoint |\"r.openai.azure.com\"|",
    );
    check_azure(
        "azureEndpoint = \"https://api.openai.com/v1\"\n",
        "endpoint.openai-host @.azureEndpoint |\"https://api.openai.com/v1\"|",
    );
    check_azure(
        "azureEndpoint = \"http://r.openai.azure.com\"\n",
        "endpoint.insecure @.azureEndpoint |\"http://r.openai.azure.com\"|",
    );
    check_azure(
        "azureEndpoint = \"https://<resource>.openai.azure.com\"\n",
        "endpoint.placeholder @.azureEndpoint |\"https://<resource>.openai.azure.com\"|",
    );
    check_azure(
        "azureEndpoint = \"https://gw.azure-api.net/voice\"\n",
        "endpoint.not-azure @.azureEndpoint |\"https://gw.azure-api.net/voice\"|",
    );
    check_azure(
        "azureDeployment = \"<gpt-realtime-deployment>\"\n",
        "value.placeholder @.azureDeployment |\"<gpt-realtime-deployment>\"|",
    );
    check_azure(
        "azureDeployment = \"my voice\"\n",
        "azure.deployment-name @.azureDeployment |\"my voice\"|",
    );
    check_azure(
        "azureDeployment = \"a/b?c\"\n",
        "azure.deployment-name @.azureDeployment |\"a/b?c\"|",
    );
    check_azure(
        "azureApiVersion = \"v1\"\n",
        "azure.api-version-ga @.azureApiVersion |\"v1\"|",
    );
    check_azure(
        "azureApiVersion = \"2025-13-01\"\n",
        "azure.api-version @.azureApiVersion |\"2025-13-01\"|",
    );
    check_azure(
        "azureApiVersion = \"2025-4-1-preview\"\n",
        "azure.api-version @.azureApiVersion |\"2025-4-1-preview\"|",
    );
    check_azure(
        "azureApiVersion = \"nope\"\n",
        "azure.api-version @.azureApiVersion |\"nope\"|",
    );
    check_azure(
        "azureEndpoint = \"https://r.openai.azure.com/openai/v1/realtime?model=other\"\n",
        "azure.deployment-disagrees @.azureDeployment |\"voice\"|",
    );
    check_azure(
        "azureEndpoint = \"https://r.openai.azure.com/openai/realtime?api-version=2024-10-01-preview&deployment=voice\"\nazureApiVersion = \"2025-04-01-preview\"\n",
        "azure.api-version-disagrees @.azureApiVersion |\"2025-04-01-preview\"|",
    );
    check_azure(
        "baseUrl = \"https://r.openai.azure.com\"\n",
        "key.not-for-provider @.baseUrl |baseUrl|",
    );
    check_azure(
        "allowInsecureUpstream = true\n",
        "key.not-for-provider @.allowInsecureUpstream |allowInsecureUpstream|",
    );
    check_azure(
        "model = \"gpt-realtime\"\n",
        "key.not-for-provider @.model |model|",
    );
    check_azure(
        "allowedHosts = [\"https://gw.example\"]\n",
        "allowed-hosts.form @.allowedHosts |\"https://gw.example\"|",
    );
    check_azure(
        "allowedHosts = [\"*.example\"]\n",
        "allowed-hosts.form @.allowedHosts |\"*.example\"|",
    );
    check_azure(
        "allowedHosts = [\"api.openai.com\"]\n",
        "allowed-hosts.openai @.allowedHosts |\"api.openai.com\"|",
    );
    check_azure("aliases = [\"a b\"]\n", "model.name @.aliases |\"a b\"|");
    check_azure("auth.kind = \"none\"\n", "auth.none @.auth.kind |\"none\"|");
    check_azure(
        "auth.kind = \"managed_identity\"\n",
        "value.choice @.auth.kind |\"managed_identity\"|",
    );
}

#[test]
fn a_pasted_url_names_the_missing_deployment() {
    let case = environment(
        "AZURE_OPENAI_ENDPOINT=https://r.openai.azure.com/openai/v1/realtime?model=voice AZURE_OPENAI_API_KEY=k-1",
    );
    let report = case.with(ENVIRONMENT).expect_broken();
    assert_eq!(
        lines(&report),
        "azure.deployment-missing talk.realtime.providers.azure-openai.azureDeployment"
    );
    assert!(
        report
            .to_string()
            .contains("write azureDeployment = \"voice\""),
        "{report}"
    );
}

#[test]
fn openai_and_custom_values() {
    let openai = |rest: &str| {
        toml(&format!(
            "[talk.realtime.providers.openai]\nmodel = \"m\"\napiKey = {{ env = \"KEY\" }}\n{rest}"
        ))
        .with(ENVIRONMENT)
    };
    let p = "talk.realtime.providers.openai";
    check(
        openai("baseUrl = \"https://proxy.example/v1\"\n"),
        &format!("endpoint.not-openai {p}.baseUrl |\"https://proxy.example/v1\"|"),
    );
    check(
        openai("baseUrl = \"https://r.openai.azure.com\"\n"),
        &format!("endpoint.azure-host {p}.baseUrl |\"https://r.openai.azure.com\"|"),
    );
    check(
        openai("allowedHosts = [\"x.example\"]\n"),
        &format!("key.not-for-provider {p}.allowedHosts |allowedHosts|"),
    );
    check(
        openai("auth.kind = \"none\"\n"),
        &format!("auth.none {p}.auth.kind |\"none\"|"),
    );
    check_toml(
        "[talk.realtime.providers.openai]\napiKey = { env = \"KEY\" }\n",
        &format!("model.missing {p}.model |openai|"),
    );

    check_custom(
        "baseUrl = \"https://r.openai.azure.com/openai/v1\"\n",
        "endpoint.azure-host @.baseUrl |\"https://r.openai.azure.com/openai/v1\"|",
    );
    check_custom(
        "baseUrl = \"https://api.openai.com/v1\"\n",
        "endpoint.openai-host @.baseUrl |\"https://api.openai.com/v1\"|",
    );
    check_custom(
        "baseUrl = \"ws://h.example/v1\"\n",
        "endpoint.insecure @.baseUrl |\"ws://h.example/v1\"|",
    );
    check_custom(
        "baseUrl = \"https://169.254.169.254/v1\"\n",
        "endpoint.address-forbidden @.baseUrl |\"https://169.254.169.254/v1\"|",
    );
    check_custom(
        "baseUrl = \"https://10.0.0.1/v1\"\n",
        "endpoint.address-private @.baseUrl |\"https://10.0.0.1/v1\"|",
    );
    check_custom(
        "auth.kind = \"none\"\n",
        "auth.conflict @.auth.kind |\"none\"|",
    );
    check_custom(
        "auth.kind = \"bearer\"\n",
        "value.choice @.auth.kind |\"bearer\"|",
    );
    check_custom("model = \"a b\"\n", "model.name @.model |\"a b\"|");
    check_toml(
        "[talk.realtime.providers.custom]\nmodel = \"m\"\n",
        "custom.base-url-missing talk.realtime.providers.custom.baseUrl |custom|
         custom.key-missing talk.realtime.providers.custom.apiKey |custom|",
    );
}

#[test]
fn transports_that_azure_has_not() {
    for transport in ["webrtc", "provider-websocket", "managed-room"] {
        check_around(
            &format!("talk.realtime.transport = \"{transport}\"\n"),
            &format!("transport.not-with-azure talk.realtime.transport |\"{transport}\"|"),
        );
    }
    check_around(
        "talk.realtime.transport = \"gateway_relay\"\n",
        "value.choice talk.realtime.transport |\"gateway_relay\"|",
    );
}

#[test]
fn routes() {
    check_around(
        "[talk.realtime.routes]\nfast = \"azure-openia\"\n",
        "route.unknown-provider talk.realtime.routes.fast |\"azure-openia\"|",
    );
    check_around(
        "[talk.realtime.routes]\n\"a b\" = \"azure-openai\"\n",
        "model.name talk.realtime.routes.\"a b\" |\"a b\"|",
    );
    check_around(
        "[talk.realtime.routes]\nfast = 1\n",
        "value.type talk.realtime.routes.fast |1|",
    );
    let custom = |id: &str| {
        format!(
            "[talk.realtime.providers.{id}]\ntype = \"custom\"\nbaseUrl = \"https://h.example\"\nmodel = \"same\"\nauth.kind = \"none\"\n"
        )
    };
    check_toml(
        &format!(
            "talk.realtime.provider = \"a\"\n{}{}{}",
            custom("a").replace("same", "own"),
            custom("b"),
            custom("c")
        ),
        "route.ambiguous talk.realtime.routes",
    );
}

#[test]
fn secrets() {
    check_azure(
        "apiKey = \"0123456789abcdef0123456789abcdef\"\n",
        "secret.literal @.apiKey |\"********************************\"|",
    );
    check_azure(
        "apiKey = \"short\"\n",
        "secret.literal @.apiKey |\"*****\"|",
    );
    check_azure(
        "apiKey = \"${KEY}\"\n",
        "secret.interpolation @.apiKey |\"******\"|",
    );
    check_azure(
        "apiKey = \"<key>\"\n",
        "secret.placeholder @.apiKey |\"*****\"|",
    );
    check_azure(
        "apiKey = \"@Microsoft.KeyVault(SecretUri=https://v.vault.azure.net/secrets/n)\"\n",
        "secret.key-vault-literal @.apiKey |\"******************************************************************\"|",
    );
    check_azure("apiKey = 123456\n", "secret.type @.apiKey |******|");
    check_azure("apiKey = {}\n", "secret.no-source @.apiKey |{}|");
    check_azure(
        "apiKey = { env = \"KEY\", file = \"k\" }\n",
        "secret.two-sources @.apiKey |{ env = \"KEY\", file = \"k\" }|",
    );
    check_azure(
        "apiKey = { evn = \"KEY\" }\n",
        "secret.unknown-key @.apiKey.evn |evn|",
    );
    check_azure("apiKey = { env = 1 }\n", "secret.type @.apiKey |*|");
    check_azure(
        "apiKey = { env = \"MISSING\" }\n",
        "secret.variable-missing @.apiKey |{ env = \"MISSING\" }|",
    );
    check_azure(
        "apiKey = { env = \"not a name\" }\n",
        "secret.variable-name @.apiKey |\"**********\"|",
    );
    check_azure(
        "apiKey = { file = \"/run/secrets/none\" }\n",
        "secret.file-unreadable @.apiKey |{ file = \"/run/secrets/none\" }|",
    );
    check_around(
        "clients.keys = [\"abc\"]\n",
        "secret.literal clients.keys.key-1 |\"***\"|",
    );
    check_around(
        "clients.keys = \"abc\"\n",
        "secret.literal clients.keys.default |\"***\"|",
    );
}

#[test]
fn secret_values() {
    let check_value = |text: &str, code: &str| {
        let head = "[talk.realtime.providers.azure-openai]\nazureEndpoint = \"https://r.openai.azure.com\"\nazureDeployment = \"d\"\n";
        let case = toml(&format!("{head}apiKey = {{ file = \"k\" }}\n"))
            .with(ENVIRONMENT)
            .secret_file("k", text);
        match case.resolve() {
            Ok(_) => assert_eq!(code, "", "{text:?}"),
            Err(report) => {
                let place = "talk.realtime.providers.azure-openai.apiKey |{ file = \"k\" }|";
                assert_eq!(lines(&report), format!("{code} {place}"), "{text:?}");
            }
        }
        let case = toml(&format!("{head}apiKey = {{ env = \"SECRET\" }}\n"))
            .with(ENVIRONMENT)
            .variable("SECRET", text);
        let code = if text.ends_with('\n') && code.is_empty() {
            "secret.whitespace"
        } else {
            code
        };
        assert_eq!(
            case.resolve()
                .err()
                .map_or("", |report| report.problems()[0].code),
            code,
            "{text:?}"
        );
    };
    check_value("abc", "");
    check_value("abc\n", "");
    check_value("abc\r\n", "");
    check_value("abc\n\n", "secret.whitespace");
    check_value("", "secret.empty");
    check_value(" abc", "secret.whitespace");
    check_value("abc ", "secret.whitespace");
    check_value("a b", "secret.whitespace");
    check_value("a\tb", "secret.whitespace");
    check_value("abc\ndef\n", "secret.whitespace");
    check_value("Bearer abc", "secret.whitespace");
    check_value("\u{feff}abc", "secret.bom");
    check_value("\"abc\"", "secret.quoted");
    check_value("'abc", "secret.quoted");
    check_value("<your-key>", "secret.placeholder");
    check_value(
        "@Microsoft.KeyVault(VaultName=v;SecretName=n)",
        "secret.key-vault-literal",
    );
    check_value("k\u{e9}y", "secret.characters");
    check_value("a\0b", "secret.whitespace");
    check_value(&"k".repeat(4097), "secret.too-long");
    check_value(&"k".repeat(4096), "");
}

#[test]
fn openclaw_references() {
    let with = |reference: &str| {
        json(&format!(
            r#"{{secrets: {{providers: {{vault: {{source: "file", path: "/s.json", mode: "json"}}}}}},
               talk: {{realtime: {{provider: "openai", providers: {{openai: {{azureEndpoint: "https://r.openai.azure.com", azureDeployment: "d", apiKey: {reference}}}}}}}}}}}"#
        ))
        .with(ENVIRONMENT)
        .secret_file("/s.json", r#"{"azure": {"key": "k-1", "number": 1}}"#)
    };
    let p = "talk.realtime.providers.openai.apiKey";
    with(r#"{source: "env", provider: "default", id: "KEY"}"#).expect_sound();
    with(r#"{source: "file", provider: "vault", id: "/azure/key"}"#).expect_sound();
    with(r#""${KEY}""#).expect_sound();
    check(
        with(r#"{source: "exec", provider: "x", id: "y"}"#),
        &format!(r#"secret.source-unsupported {p} |{{source: "exec", provider: "x", id: "*"}}|"#),
    );
    check(
        with(r#"{source: "store", id: "y"}"#),
        &format!(r#"secret.source-unsupported {p} |{{source: "store", id: "*"}}|"#),
    );
    check(
        with(r#"{source: "magic", id: "y"}"#),
        &format!(r#"secret.source-unsupported {p} |{{source: "magic", id: "*"}}|"#),
    );
    check(
        with(r#"{source: "env"}"#),
        &format!(r#"secret.no-source {p} |{{source: "env"}}|"#),
    );
    check(
        with(r#"{source: "file", provider: "other", id: "/a"}"#),
        &format!(
            r#"secret.unknown-provider {p} |{{source: "file", provider: "other", id: "/a"}}|"#
        ),
    );
    check(
        with(r#"{source: "file", provider: "vault", id: "/azure/number"}"#),
        &format!(
            r#"secret.pointer {p} |{{source: "file", provider: "vault", id: "/azure/number"}}|"#
        ),
    );
}

#[test]
fn server() {
    check_around(
        "server.listen = \"8080\"\n",
        "listen.form server.listen |\"8080\"|",
    );
    check_around(
        "server.listen = \":8080\"\n",
        "listen.form server.listen |\":8080\"|",
    );
    check_around(
        "server.listen = \"localhost\"\n",
        "listen.form server.listen |\"localhost\"|",
    );
    check_around(
        "server.listen = \"127.0.0.1:99999\"\n",
        "listen.form server.listen |\"127.0.0.1:99999\"|",
    );
    check_around(
        "server.tls.cert = \"c.pem\"\n",
        "tls.incomplete server.tls.key |cert|",
    );
    check_around(
        "server.tls.key = \"k.pem\"\n",
        "tls.incomplete server.tls.cert |key|",
    );
    check_around(
        "server.tls.cert = \"c\"\nserver.tls.key = \"-----BEGIN PRIVATE KEY-----\"\n",
        "tls.inline server.tls.key |\"***************************\"|",
    );
    check_around(
        "server.allowedOrigins = [\"*\"]\n",
        "origin.form server.allowedOrigins |\"*\"|",
    );
    check_around(
        "server.allowedOrigins = [\"https://a.example/path\"]\n",
        "origin.form server.allowedOrigins |\"https://a.example/path\"|",
    );
    check_around(
        "server.allowedOrigins = [\"a.example\"]\n",
        "origin.form server.allowedOrigins |\"a.example\"|",
    );
    check_around(
        "server.allowedHosts = [\"https://a.example\"]\n",
        "host.form server.allowedHosts |\"https://a.example\"|",
    );
    check_around(
        "server.trustedProxies = [\"10.0.0.1/33\"]\n",
        "proxy.form server.trustedProxies |\"10.0.0.1/33\"|",
    );
    check_around(
        "server.trustedProxies = [\"0.0.0.0/0\"]\n",
        "proxy.everybody server.trustedProxies |\"0.0.0.0/0\"|",
    );
    check_around(
        "admin.listen = \"here\"\n",
        "listen.form admin.listen |\"here\"|",
    );
    check_around(
        "allowPlaintextSecrets = true\nadmin = { listen = \"127.0.0.1:1\", key = \"short\" }\n",
        "warning secret.plaintext admin.key |\"*****\"|\nadmin-key.short admin.key |\"*****\"|",
    );
    let azure = environment(
        "AZURE_OPENAI_ENDPOINT=https://r.openai.azure.com AZURE_OPENAI_DEPLOYMENT=d AZURE_OPENAI_API_KEY=k",
    );
    check(
        azure
            .clone()
            .with(ENVIRONMENT)
            .flag("--listen", "server.listen", "here"),
        "listen.form server.listen (flag --listen)",
    );
    check(
        azure.clone().with(ENVIRONMENT).with("TALKLINE_LISTEN=here"),
        "listen.form server.listen (variable TALKLINE_LISTEN)",
    );
    check(
        azure.with(ENVIRONMENT).flag("--port", "server.port", "1"),
        "key.unknown server.port (flag --port)",
    );
}

#[test]
fn clients() {
    check_around(
        "clients.allowAnonymous = false\n",
        "clients.none clients.keys",
    );
    check_around("clients.keys = []\n", "clients.none clients.keys |keys|");
    check_around(
        "clients.allowAnonymous = true\nserver.listen = \"0.0.0.0:8080\"\n",
        "clients.anonymous-beyond-loopback clients.allowAnonymous |true|\nwarning listen.plain-text server.listen |\"0.0.0.0:8080\"|",
    );
    check_around(
        "clients.allowAnonymous = true\nserver.listen = \"[::]:8080\"\n",
        "clients.anonymous-beyond-loopback clients.allowAnonymous |true|\nwarning listen.plain-text server.listen |\"[::]:8080\"|",
    );
    check_around(
        "server.listen = \"0.0.0.0:8080\"\n[clients]\n",
        "warning listen.plain-text server.listen |\"0.0.0.0:8080\"|\nclients.none clients.keys",
    );
    let long = "A=aaaaaaaaaaaaaaaaaaaaa B=aaaaaaaaaaaaaaaaaaaaa C=k-1";
    let azure = "AZURE_OPENAI_ENDPOINT=https://r.openai.azure.com AZURE_OPENAI_DEPLOYMENT=d AZURE_OPENAI_API_KEY=k-1";
    let keys = |text: &str| toml(text).with(azure).with(long);
    check(
        keys("clients.keys = [{ env = \"A\" }, { env = \"B\" }]\n"),
        "client-key.duplicate clients.keys.key-2 |{ env = \"B\" }|",
    );
    check(
        keys("clients.keys = { web = { env = \"C\" } }\n"),
        "client-key.is-upstream-key clients.keys.web |{ env = \"C\" }|",
    );
    check(
        keys("clients.keys = [{ env = \"A\", name = \"a b\" }]\n"),
        "client-key.name clients.keys |{ env = \"A\", name = \"a b\" }|",
    );
    check(
        keys("clients.keys = [{ env = \"A\", name = \"x\" }, { env = \"D\", name = \"x\" }]\n")
            .with("D=ddddddddddddddddddd"),
        "client-key.duplicate-name clients.keys.x |{ env = \"D\", name = \"x\" }|",
    );
    let both = Case::default().expect_broken().to_string();
    assert!(
        both.contains("TALKLINE_CLIENT_KEY") && both.contains("allowAnonymous"),
        "{both}"
    );
}

#[test]
fn limits() {
    check_around(
        "limits.pingInterval = 20\n",
        "value.type limits.pingInterval |20|",
    );
    check_around(
        "limits.pingInterval = \"20\"\n",
        "value.type limits.pingInterval |\"20\"|",
    );
    check_around(
        "limits.pingInterval = \"20 s\"\n",
        "value.type limits.pingInterval |\"20 s\"|",
    );
    check_around(
        "limits.pingInterval = \"0s\"\n",
        "value.range limits.pingInterval |\"0s\"|",
    );
    check_around(
        "limits.dnsTimeout = \"9999999999999999h\"\n",
        "value.type limits.dnsTimeout |\"9999999999999999h\"|",
    );
    check_around(
        "limits.maxMessageSize = \"24MB\"\n",
        "value.type limits.maxMessageSize |\"24MB\"|",
    );
    check_around(
        "limits.maxMessageSize = \"1GiB\"\n",
        "value.type limits.maxMessageSize |\"1GiB\"|",
    );
    check_around(
        "limits.maxMessageSize = 10\n",
        "value.range limits.maxMessageSize |10|",
    );
    check_around(
        "limits.maxSessions = 0\n",
        "value.range limits.maxSessions |0|",
    );
    check_around(
        "limits.maxSessions = -1\n",
        "value.type limits.maxSessions |-1|",
    );
    check_around(
        "limits.maxSessions = 99999999999999999999\n",
        "value.type limits.maxSessions |99999999999999999999|",
    );
    check_around(
        "limits.maxFrameSize = \"25MiB\"\n",
        "limits.order limits.maxFrameSize |\"25MiB\"|",
    );
}

#[test]
fn variables() {
    check(
        environment("AZURE_OPENAI_ENDPOINT=https://r.openai.azure.com AZURE_OPENAI_DEPLOYMENT_NAME=a AZURE_OPENAI_DEPLOYMENT=b AZURE_OPENAI_API_KEY=k")
            .with(ENVIRONMENT),
        "variable.conflict talk.realtime.providers.azure-openai.azureDeployment (variable AZURE_OPENAI_DEPLOYMENT)",
    );
    check(
        environment("AZURE_OPENAI_ENDPOINT=https://r.openai.azure.com AZURE_OPENAI_DEPLOYMENT=b AZURE_OPENAI_API_VERSION=v1 AZURE_OPENAI_API_KEY=\"k\"")
            .with(ENVIRONMENT),
        "azure.api-version-ga talk.realtime.providers.azure-openai.azureApiVersion (variable AZURE_OPENAI_API_VERSION)
         secret.quoted talk.realtime.providers.azure-openai.apiKey (variable AZURE_OPENAI_API_KEY)",
    );
}

#[test]
fn hints_speak_the_language_of_the_file() {
    let hint = |case: Case| {
        let report = case.with(ENVIRONMENT).expect_broken();
        report.problems()[0].hint.clone().unwrap()
    };
    let in_toml = hint(toml(
        "talk.realtime.providers.azure-openai.apiKey = \"x\"\n",
    ));
    let in_json = hint(json(
        "{talk: {realtime: {providers: {\"azure-openai\": {apiKey: \"x\"}}}}}",
    ));
    assert!(in_toml.starts_with("write azureEndpoint = \""), "{in_toml}");
    assert!(in_json.starts_with("write azureEndpoint: \""), "{in_json}");
}

#[test]
fn json_duplicates_are_refused() {
    check(
        json(r#"{server: {listen: "127.0.0.1:1", listen: "127.0.0.1:2"}, talk: {realtime: {provider: "openai", model: "m"}}}"#)
            .with(ENVIRONMENT)
            .with("OPENAI_API_KEY=sk-1"),
        "key.duplicate server.listen |listen|",
    );
}

#[test]
fn a_key_of_openai_is_not_sent_to_azure() {
    let azure =
        "AZURE_OPENAI_ENDPOINT=https://r.openai.azure.com AZURE_OPENAI_DEPLOYMENT_NAME=voice";
    check(
        toml("")
            .with(azure)
            .with(ENVIRONMENT)
            .with("AZURE_OPENAI_API_KEY=sk-0123456789abcdef"),
        "azure.key-of-openai talk.realtime.providers.azure-openai.apiKey (variable AZURE_OPENAI_API_KEY)",
    );
}
