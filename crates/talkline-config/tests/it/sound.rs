//! Sound configurations and what they come to.

use std::time::Duration;

use talkline_config::{Resolved, Source, Transport};
use talkline_dialect::{Ask, Correlation, Upstream};

use crate::support::{Case, environment, json, lines, toml};

const AZURE: &str = "AZURE_OPENAI_ENDPOINT=https://r.openai.azure.com AZURE_OPENAI_DEPLOYMENT_NAME=voice AZURE_OPENAI_API_KEY=k-azure";
const CLIENT: &str = "TALKLINE_CLIENT_KEY=client-key-of-some-length";

/// Every way in: `alias -> provider URL (name of the header that carries the credential)`.
fn ways(resolved: &Resolved) -> String {
    let routes = &resolved.config.routes;
    let names = routes.aliases().map(|(alias, _)| Some(alias.to_owned()));
    let way = |alias: Option<String>| {
        let found = routes.resolve(alias.as_deref()).unwrap();
        let query = format!("model={}", found.alias);
        let ask = Ask::parse("/v1/realtime", Some(&query), std::iter::empty()).unwrap();
        let request = found
            .upstream
            .request(&ask, &Correlation::default())
            .unwrap();
        let target = request.target();
        let credential = target.authentication().map_or("none", |(name, _)| name);
        format!(
            "{} -> {} {}://{}{} ({credential})",
            alias.as_deref().unwrap_or("(none)"),
            found.provider,
            target.scheme().as_str(),
            target.authority(),
            target.path_and_query()
        )
    };
    std::iter::once(None)
        .chain(names)
        .map(way)
        .collect::<Vec<_>>()
        .join("\n")
}

#[track_caller]
fn check(case: Case, expected: &str) {
    let resolved = case.expect_sound();
    let warnings = lines(&resolved.warnings);
    let found = if warnings.is_empty() {
        ways(&resolved)
    } else {
        format!("{}\n{warnings}", ways(&resolved))
    };
    let expected: Vec<&str> = expected
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    assert_eq!(found, expected.join("\n"));
}

#[test]
fn the_words_that_people_wrote() {
    let seed = r#"
        talk.realtime.provider = "openai"
        talk.realtime.transport = "gateway-relay"
        talk.realtime.providers.openai.azureEndpoint = "https://r.openai.azure.com"
        talk.realtime.providers.openai.azureDeployment = "voice"
        talk.realtime.providers.openai.azureApiVersion = "2025-04-01-preview"
    "#;
    let preview = "wss://r.openai.azure.com/openai/realtime?api-version=2025-04-01-preview&deployment=voice (api-key)";
    let expected = format!("(none) -> openai {preview}\nvoice -> openai {preview}");
    check(
        toml(seed).with(CLIENT).with("AZURE_OPENAI_API_KEY=k"),
        &expected,
    );

    let tables = r#"
        [talk.realtime]
        provider = "openai"
        transport = "gateway-relay"
        [talk.realtime.providers.openai]
        azureEndpoint = "https://r.openai.azure.com"
        azureDeployment = "voice"
        azureApiVersion = "2025-04-01-preview"
    "#;
    check(
        toml(tables).with(CLIENT).with("AZURE_OPENAI_API_KEY=k"),
        &expected,
    );

    let object = r#"{ "talk": { "realtime": { "provider": "openai", "transport": "gateway-relay", "providers": { "openai": {
        "azureEndpoint": "https://r.openai.azure.com", "azureDeployment": "voice", "azureApiVersion": "2025-04-01-preview" } } } } }"#;
    check(
        json(object).with(CLIENT).with("AZURE_OPENAI_API_KEY=k"),
        &expected,
    );

    // The alias reads the same table, by Azure's rules.
    let alias = seed.replace("provider = \"openai\"", "provider = \"azure-openai\"");
    check(
        toml(&alias).with(CLIENT).with("AZURE_OPENAI_API_KEY=k"),
        &expected,
    );
    let renamed = alias.replace("providers.openai", "providers.azure-openai");
    check(
        toml(&renamed).with(CLIENT).with("AZURE_OPENAI_API_KEY=k"),
        &expected.replace("-> openai", "-> azure-openai"),
    );

    let ga = seed
        .lines()
        .filter(|line| !line.contains("azureApiVersion"))
        .collect::<Vec<_>>()
        .join("\n");
    let url = "wss://r.openai.azure.com/openai/v1/realtime?model=voice (api-key)";
    check(
        toml(&ga).with(CLIENT).with("AZURE_OPENAI_API_KEY=k"),
        &format!("(none) -> openai {url}\nvoice -> openai {url}"),
    );
}

#[test]
fn the_environment_alone() {
    let url = "azure-openai wss://r.openai.azure.com/openai/v1/realtime?model=voice (api-key)";
    let expected = format!("(none) -> {url}\nvoice -> {url}");
    check(environment(AZURE).with(CLIENT), &expected);
    for name in [
        "AZURE_OPENAI_REALTIME_DEPLOYMENT",
        "AZURE_OPENAI_DEPLOYMENT",
    ] {
        check(
            environment(&AZURE.replace("AZURE_OPENAI_DEPLOYMENT_NAME", name)).with(CLIENT),
            &expected,
        );
    }
    let preview = expected.replace(
        "/openai/v1/realtime?model=voice",
        "/openai/realtime?api-version=2025-04-01-preview&deployment=voice",
    );
    check(
        environment(AZURE)
            .with(CLIENT)
            .with("AZURE_OPENAI_API_VERSION=2025-04-01-preview"),
        &preview,
    );
    check(
        environment(AZURE).with(CLIENT).with("OPENAI_API_KEY=sk-1"),
        &format!("{expected}\nwarning variable.openai-key-unused - (variable OPENAI_API_KEY)"),
    );
    // Everything in one pasted URL, key and name in agreement.
    let pasted = AZURE.replace("azure.com", "azure.com/openai/v1/realtime?model=voice");
    check(environment(&pasted).with(CLIENT), &expected);
}

#[test]
fn openai_and_custom() {
    let url = "wss://api.openai.com/v1/realtime?model=gpt-realtime (authorization)";
    check(
        toml("talk.realtime.provider = \"openai\"\ntalk.realtime.model = \"gpt-realtime\"\n")
            .with(CLIENT)
            .with("OPENAI_API_KEY=sk-1"),
        &format!("(none) -> openai {url}\ngpt-realtime -> openai {url}"),
    );
    check(
        toml("talk.realtime.provider = \"openai\"\n[talk.realtime.providers.openai]\nmodel = \"m\"\nbaseUrl = \"https://eu.api.openai.com/v1\"\n")
            .with(CLIENT)
            .with("OPENAI_API_KEY=sk-1"),
        "(none) -> openai wss://eu.api.openai.com/v1/realtime?model=m (authorization)
         m -> openai wss://eu.api.openai.com/v1/realtime?model=m (authorization)",
    );
    check(
        toml("[talk.realtime.providers.custom]\nbaseUrl = \"ws://127.0.0.1:9000/v1\"\nmodel = \"m\"\nauth.kind = \"none\"\n").with(CLIENT),
        "(none) -> custom ws://127.0.0.1:9000/v1/realtime?model=m (none)
         m -> custom ws://127.0.0.1:9000/v1/realtime?model=m (none)",
    );
    check(
        toml("talk.realtime.provider = \"custom\"\ntalk.realtime.model = \"m\"\n")
            .with(CLIENT)
            .with("OPENAI_BASE_URL=https://h.example/v1 OPENAI_API_KEY=sk-1"),
        "(none) -> custom wss://h.example/v1/realtime?model=m (authorization)
         m -> custom wss://h.example/v1/realtime?model=m (authorization)",
    );
    check(
        toml("[talk.realtime.providers.lab]\ntype = \"custom\"\nbaseUrl = \"http://h.example\"\nallowInsecureUpstream = true\nmodel = \"m\"\nauth.kind = \"none\"\n")
            .with(CLIENT),
        "(none) -> lab ws://h.example/realtime?model=m (none)
         m -> lab ws://h.example/realtime?model=m (none)",
    );
    check(
        toml("[talk.realtime.providers.apim]\ntype = \"azure-openai\"\nallowedHosts = [\"gw.azure-api.net\"]\nazureEndpoint = \"https://gw.azure-api.net/voice\"\nazureDeployment = \"d\"\n")
            .with(CLIENT)
            .with("AZURE_OPENAI_API_KEY=k"),
        "(none) -> apim wss://gw.azure-api.net/voice/openai/v1/realtime?model=d (api-key)
         d -> apim wss://gw.azure-api.net/voice/openai/v1/realtime?model=d (api-key)",
    );
    // An OpenAI provider stays one although variables speak of Azure, once its table says so.
    check(
        toml("[talk.realtime.providers.openai]\ntype = \"openai\"\nmodel = \"m\"\n")
            .with(CLIENT)
            .with(AZURE)
            .with("OPENAI_API_KEY=sk-1"),
        "(none) -> openai wss://api.openai.com/v1/realtime?model=m (authorization)
         m -> openai wss://api.openai.com/v1/realtime?model=m (authorization)
         warning variable.ignored - (variable AZURE_OPENAI_DEPLOYMENT_NAME)",
    );
}

const TWO: &str = r#"
    talk.realtime.provider = "east"
    [talk.realtime.providers.east]
    type = "azure-openai"
    azureEndpoint = "https://e.openai.azure.com"
    azureDeployment = "voice"
    aliases = ["gpt-realtime"]
    apiKey = { env = "EAST" }
    [talk.realtime.providers.lab]
    type = "custom"
    baseUrl = "http://127.0.0.1:1/v1"
    model = "lab-model"
    auth.kind = "none"
"#;

#[test]
fn names_without_routes() {
    let east = "east wss://e.openai.azure.com/openai/v1/realtime?model=voice (api-key)";
    let lab = "lab ws://127.0.0.1:1/v1/realtime?model=lab-model (none)";
    let case = toml(TWO).with(CLIENT).with("EAST=k");
    check(
        case.clone(),
        &format!("(none) -> {east}\ngpt-realtime -> {east}\nlab-model -> {lab}\nvoice -> {east}"),
    );

    let resolved = case.expect_sound();
    let unknown = resolved
        .config
        .routes
        .resolve(Some("gpt-4o\u{1b}[2J"))
        .unwrap_err();
    assert_eq!(unknown.available, ["gpt-realtime", "lab-model", "voice"]);
    assert_eq!(
        unknown.to_string(),
        "no route for model `gpt-4o\\u{1b}[2J`; configured are: gpt-realtime, lab-model, voice"
    );
}

#[test]
fn names_with_routes_and_with_any() {
    let routed = format!("{TWO}\n[talk.realtime.routes]\nfast = \"east\"\n\"gpt-4.1\" = \"lab\"\n");
    let resolved = toml(&routed).with(CLIENT).with("EAST=k").expect_sound();
    let names: Vec<_> = resolved.config.routes.aliases().collect();
    assert_eq!(names, [("fast", "east"), ("gpt-4.1", "lab")]);
    assert!(
        resolved.config.routes.resolve(Some("voice")).is_err(),
        "routes take the place of names"
    );

    let any = toml(TWO)
        .file("more.toml", "talk.realtime.allowAnyModel = true\n")
        .with(CLIENT)
        .with("EAST=k")
        .expect_sound();
    let found = any.config.routes.resolve(Some("whatever")).unwrap();
    assert_eq!((found.provider, found.alias), ("east", "whatever"));
    assert!(matches!(**found.upstream, Upstream::Azure(_)));
}

#[test]
fn flags_before_variables_before_files_before_defaults() {
    let listen = |case: &Case| {
        let resolved = case.expect_sound();
        let setting = resolved
            .settings
            .iter()
            .find(|setting| setting.key == "server.listen")
            .unwrap();
        (
            resolved.config.server.listen.to_string(),
            setting.source.clone(),
        )
    };
    let file = |name: &str| Source::File {
        name: name.into(),
        line: 2,
    };
    let mut case = environment(AZURE).with(CLIENT);
    assert_eq!(listen(&case), ("127.0.0.1:8080".into(), Source::Default));
    case = case.file("a.toml", "[server]\nlisten = \"127.0.0.1:1\"\n");
    assert_eq!(listen(&case), ("127.0.0.1:1".into(), file("a.toml")));
    case = case.file("b.toml", "[server]\nlisten = \"localhost:2\"\n");
    assert_eq!(listen(&case), ("127.0.0.1:2".into(), file("b.toml")));
    case = case.with("TALKLINE_LISTEN=127.0.0.1:3");
    assert_eq!(
        listen(&case),
        (
            "127.0.0.1:3".into(),
            Source::Variable("TALKLINE_LISTEN".into())
        )
    );
    case = case.flag("--listen", "server.listen", "[::1]:4");
    assert_eq!(
        listen(&case),
        ("[::1]:4".into(), Source::Flag("--listen".into()))
    );
}

#[test]
fn settings_show_every_value_with_its_source() {
    let text = r#"
        talk.realtime.provider = "azure-openai"
        [talk.realtime.providers.azure-openai]
        azureEndpoint = "wss://R.openai.azure.com/openai/v1"
        azureDeployment = "d"
        apiKey = { file = "/run/secrets/k" }
        [clients.keys]
        web = { env = "WEB" }
        [limits]
        pingInterval = "12000ms"
        maxMessageSize = 33554432
    "#;
    let resolved = toml(text)
        .secret_file("/run/secrets/k", "k-azure\n")
        .with("WEB=web-key-of-some-length AZURE_OPENAI_DEPLOYMENT=voice")
        .expect_sound();
    let shown = |key: &str| {
        let setting = resolved
            .settings
            .iter()
            .find(|setting| setting.key.ends_with(key))
            .unwrap();
        format!("{} # {}", setting.value, setting.source)
    };
    assert_eq!(
        shown("azureEndpoint"),
        "\"https://r.openai.azure.com\" # talkline.toml:4"
    );
    assert_eq!(
        shown("azureDeployment"),
        "\"voice\" # variable AZURE_OPENAI_DEPLOYMENT"
    );
    assert!(
        shown("apiKey").starts_with("{ file = \"/run/secrets/k\" } (fingerprint "),
        "{}",
        shown("apiKey")
    );
    assert!(shown("clients.keys.web").starts_with("{ env = \"WEB\" } (fingerprint "));
    assert_eq!(shown("pingInterval"), "\"12s\" # talkline.toml:10");
    assert_eq!(shown("maxMessageSize"), "\"32MiB\" # talkline.toml:11");
    assert_eq!(shown("pongTimeout"), "\"20s\" # default");
    assert_eq!(shown("transport"), "\"gateway-relay\" # default");
    let mut keys: Vec<_> = resolved
        .settings
        .iter()
        .map(|setting| &setting.key)
        .collect();
    let sorted = keys.clone();
    keys.sort();
    keys.dedup();
    assert_eq!(keys, sorted);
}

#[test]
fn the_defaults() {
    let resolved = environment(AZURE).with(CLIENT).expect_sound();
    let config = &resolved.config;
    assert_eq!(config.transport, Transport::GatewayRelay);
    assert_eq!(config.server.tls, None);
    assert!(!config.clients.allow_anonymous);
    assert_eq!(config.limits.message_bytes_max, 24 << 20);
    assert_eq!(config.limits.ping_interval, Duration::from_secs(15));
    assert_eq!(
        config.limits.session_duration_max,
        Duration::from_secs(65 * 60)
    );
}

#[test]
fn an_openclaw_file_is_read_for_its_talk_part() {
    let text = r#"{
        // OpenClaw's own sections are none of our business.
        gateway: { mode: "local", port: 18790, auth: { mode: "token", token: "testtoken" } },
        plugins: { entries: { x: { server: 1 } } },
        talk: { speechLocale: "en", realtime: {
            provider: "openai", transport: "gateway-relay", mode: "realtime", brain: "agent-consult",
            model: "gpt-realtime", speakerVoice: "marin", instructions: "be brief", vadThreshold: .5,
            silenceDurationMs: +500, prefixPaddingMs: 0x12c, reasoningEffort: "low", consultRouting: "provider-direct",
            providers: {
                openai: { azureEndpoint: "https://r.openai.azure.com", azureDeployment: "voice", model: "gpt-realtime-2.1",
                          speakerVoice: "marin", temperature: 0.8, somethingNew: [1,], apiKey: { source: "env", provider: "default", id: "KEY" } },
                google: { voice: "x", apiKey: "literal" },
            },
        } },
        clients: { keys: [ { env: "WEB" } ] },
        sever: { listen: "x" },
    }"#;
    let url = "openai wss://r.openai.azure.com/openai/v1/realtime?model=voice (api-key)";
    check(
        json(text).with("KEY=k WEB=web-key-of-some-length"),
        &format!(
            "(none) -> {url}\ngpt-realtime -> {url}\nvoice -> {url}
             warning key.ignored talk.realtime.providers.openai.somethingNew |somethingNew|
             warning key.ignored sever |sever|"
        ),
    );
}

#[test]
fn warnings_do_not_stop() {
    let url = "azure-openai wss://r.openai.azure.com/openai/v1/realtime?model=voice (api-key)";
    let ways = format!("(none) -> {url}\nvoice -> {url}");
    check(
        toml("allowPlaintextSecrets = true\nclients.keys = [\"short\"]\n").with(AZURE),
        &format!(
            "{ways}\nwarning secret.plaintext clients.keys.key-1 |\"*****\"|\nwarning client-key.short clients.keys.key-1 |\"*****\"|"
        ),
    );
    check(
        toml("[talk.realtime.providers.azure-openai]\napiKey = { env = \"OTHER\" }\n")
            .with(AZURE)
            .with(CLIENT)
            .with("OTHER=o"),
        &format!(
            "{ways}\nwarning variable.overrides-file talk.realtime.providers.azure-openai.apiKey (variable AZURE_OPENAI_API_KEY)"
        ),
    );
    let preview = AZURE.replace(
        "azure.com",
        "azure.com/openai/realtime?api-version=2025-04-01-preview&deployment=voice",
    );
    check(
        environment(&preview).with(CLIENT),
        &format!(
            "{ways}\nwarning azure.api-version-in-endpoint talk.realtime.providers.azure-openai.azureEndpoint (variable AZURE_OPENAI_ENDPOINT)"
        ),
    );
}

#[test]
fn servers_and_clients() {
    let text = r#"
        [server]
        listen = "0.0.0.0:8443"
        tls = { cert = "c.pem", key = "k.pem" }
        allowedOrigins = ["HTTPS://Talk.example.com:443/", "http://localhost:5173", "chrome-extension://abcdef"]
        allowedHosts = ["Talk.example.com"]
        trustedProxies = ["10.1.2.3/24", "::1"]
        [admin]
        listen = "localhost:8081"
        [clients]
        keys = [{ env = "A" }, { file = "b", name = "kiosk" }]
    "#;
    let resolved = toml(text)
        .with(AZURE)
        .with("A=aaaaaaaaaaaaaaaaaaaaa")
        .secret_file("b", "bbbbbbbbbbbbbbbbbbbbbb\n")
        .expect_sound();
    let server = &resolved.config.server;
    assert_eq!(server.listen.to_string(), "0.0.0.0:8443");
    assert_eq!(server.tls.as_ref().unwrap().key, "k.pem");
    assert_eq!(
        server.allowed_origins,
        [
            "https://talk.example.com",
            "http://localhost:5173",
            "chrome-extension://abcdef"
        ]
    );
    assert_eq!(server.allowed_hosts, ["talk.example.com"]);
    let networks: Vec<_> = server
        .trusted_proxies
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(networks, ["10.1.2.0/24", "::1/128"]);
    let admin = resolved.config.admin.as_ref().unwrap();
    assert_eq!(admin.listen.to_string(), "127.0.0.1:8081");
    assert!(admin.key.is_none());
    assert_eq!(resolved.config.clients.keys.len(), 2);

    let anonymous = toml("clients.allowAnonymous = true\n")
        .with(AZURE)
        .expect_sound();
    assert!(anonymous.config.clients.allow_anonymous && anonymous.config.clients.keys.is_empty());
    let one = toml("clients.keys = { env = \"A\" }\n")
        .with(AZURE)
        .with("A=aaaaaaaaaaaaaaaaaaaaa")
        .with(CLIENT)
        .expect_sound();
    assert_eq!(
        one.config.clients.keys.len(),
        1,
        "the variable takes the place of the key named default"
    );
}

#[test]
fn what_deserves_a_word_before_the_first_session() {
    let warned = |case: crate::support::Case| crate::support::lines(&case.expect_sound().warnings);
    let azure = |text: &str| toml(text).with(CLIENT).with("K=0123456789abcdef0123");
    let table = |endpoint: &str, rest: &str| {
        format!(
            "[talk.realtime.providers.azure-openai]\nazureEndpoint = \"{endpoint}\"\nazureDeployment = \"d\"\n{rest}"
        )
    };
    let key = "apiKey = { env = \"K\" }\n";
    assert_eq!(
        warned(azure(&table("https://r.openai.azure.us", key))),
        "warning azure.government talk.realtime.providers.azure-openai.azureEndpoint |\"https://r.openai.azure.us\"|"
    );
    let retired = format!("{key}azureApiVersion = \"2024-10-01-preview\"\n");
    assert_eq!(
        warned(azure(&table("https://r.openai.azure.com", &retired))),
        "warning azure.api-version-retired talk.realtime.providers.azure-openai.azureApiVersion |\"2024-10-01-preview\"|"
    );
    let listening = format!(
        "server.listen = \"0.0.0.0:8080\"\n{}",
        table("https://r.openai.azure.com", key)
    );
    assert_eq!(
        warned(azure(&listening)),
        "warning listen.plain-text server.listen |\"0.0.0.0:8080\"|"
    );
    let file = azure(&table(
        "https://r.openai.azure.com",
        "apiKey = { file = \"/k\" }\n",
    ));
    let file = file.secret_file("/k", "0123456789abcdef0123").exposed("/k");
    assert_eq!(
        warned(file),
        "warning secret.file-exposed talk.realtime.providers.azure-openai.apiKey |{ file = \"/k\" }|"
    );
}
