//! Who may come in, what they may do, and how browsers' tokens are made.

use std::time::Duration;

use talkline_auth::{
    ANONYMOUS, AllowedRoutes, ClientIdentity, KeyRing, KeysAt, Lookup, PresentedKey, UserAlgorithm,
};
use talkline_config::Resolved;

use crate::support::{Case, lines, toml};

const SOUND: &str = "AZURE_OPENAI_ENDPOINT=https://r.openai.azure.com AZURE_OPENAI_DEPLOYMENT_NAME=voice AZURE_OPENAI_API_KEY=k-azure WEB=web-key-of-some-length";
/// Of `password`, as the reference implementation prints it.
const HASH: &str =
    "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";
const RING: &str = "RING=0123456789abcdef0123456789abcdef OLD=fedcba9876543210fedcba9876543210";

fn case(text: &str) -> Case {
    toml(text).with(SOUND)
}

/// Problems of a configuration with one sound client key.
#[track_caller]
fn check(text: &str, expected: &str) {
    let text = match text.contains("clients.keys") {
        true => text.to_owned(),
        false => format!("clients.keys.web = {{ env = \"WEB\" }}\n{text}"),
    };
    let found = match case(&text).with(RING).resolve() {
        Ok(resolved) => lines(&resolved.warnings),
        Err(report) => lines(&report),
    };
    let found = found.replace("*****", "*");
    assert_eq!(found, expected, "{text}");
}

fn identity(resolved: &Resolved, name: &str) -> ClientIdentity {
    let keys = &resolved.config.clients.keys;
    (*keys.identity(name).unwrap_or_else(|| panic!("{name}"))).clone()
}

#[test]
fn what_clients_may_do() {
    let resolved = case(
        "server.listen = \"127.0.0.1:0\"\n\
         [clients]\nallowAnonymous = true\n\
         keys = { web = { env = \"WEB\" }, kiosk = { env = \"KIOSK\" } }\n\
         [clients.defaults]\nmaxSessions = 4\nstartsPerMinute = 30\npolicy = \"house\"\n\
         [clients.access.kiosk]\nroutes = [\"voice\"]\nmaxSessions = 1\nmaxSessionDuration = \"10m\"\n\
         framesPerSecond = 100\nbytesPerSecond = \"64KiB\"\nresponsesPerSession = 5\n\
         responsesPerDay = 50\ntokensPerSession = 5000\ntokensPerDay = 50000\npolicy = \"kiosk\"\n\
         [clients.access.anonymous]\ntokensPerDay = 1000\n\
         [policies.house]\n[policies.kiosk]\n",
    )
    .with("KIOSK=kiosk-key-of-some-length")
    .expect_sound();
    let web = identity(&resolved, "web");
    assert_eq!(web.routes, AllowedRoutes::All);
    assert_eq!(web.limits.sessions_max, Some(4));
    assert_eq!(web.limits.tokens_per_day, None);
    assert_eq!(web.policy.as_deref(), Some("house"));
    let kiosk = identity(&resolved, "kiosk");
    assert_eq!(
        kiosk.routes,
        AllowedRoutes::Only(["voice".to_owned()].into())
    );
    assert_eq!(kiosk.limits.sessions_max, Some(1));
    assert_eq!(kiosk.limits.starts_per_minute, Some(30));
    assert_eq!(
        kiosk.limits.session_duration_max,
        Some(Duration::from_secs(600))
    );
    assert_eq!(kiosk.limits.frames_per_second, Some(100));
    assert_eq!(kiosk.limits.bytes_per_second, Some(65_536));
    assert_eq!(kiosk.limits.responses_per_session, Some(5));
    assert_eq!(kiosk.limits.responses_per_day, Some(50));
    assert_eq!(kiosk.limits.tokens_per_session, Some(5_000));
    assert_eq!(kiosk.limits.tokens_per_day, Some(50_000));
    assert_eq!(kiosk.policy.as_deref(), Some("kiosk"));
    let anonymous = identity(&resolved, ANONYMOUS);
    assert_eq!(anonymous.limits.tokens_per_day, Some(1_000));
    assert_eq!(anonymous.limits.sessions_max, Some(4));
}

#[test]
fn access_that_nobody_has() {
    check(
        "clients.access.wbe.maxSessions = 1\n",
        "access.unknown-client clients.access |wbe|",
    );
    check(
        "clients.access.anonymous.maxSessions = 1\n",
        "access.unknown-client clients.access |anonymous|",
    );
    check(
        "clients.access.web.routes = [\"voice\", \"vioce\"]\n",
        "access.unknown-route clients.access.web.routes |\"vioce\"|",
    );
    check(
        "clients.defaults.routes = [\"nothing\"]\n",
        "access.unknown-route clients.defaults.routes |\"nothing\"|",
    );
    check(
        "talk.realtime.allowAnyModel = true\nclients.access.web.routes = [\"other\"]\n",
        "",
    );
    check(
        "clients.access.web.maxSessions = 0\n",
        "value.range clients.access.web.maxSessions |0|",
    );
    check(
        "clients.access.web.tokensPerDay = \"many\"\n",
        "value.type clients.access.web.tokensPerDay |\"many\"|",
    );
    check(
        "clients.access.web.maxSession = 1\n",
        "key.unknown clients.access.web.maxSession |maxSession|",
    );
}

#[test]
fn keys_as_hashes() {
    let kiosk = "a".repeat(64);
    let resolved = case(&format!(
        "clients.keys = [\n  {{ name = \"web\", env = \"WEB\" }},\n  {{ name = \"kiosk\", sha256 = \"{kiosk}\" }},\n  {{ name = \"slow\", argon2id = \"{HASH}\" }},\n]\n"
    ))
    .expect_sound();
    assert_eq!(resolved.config.clients.keys.len(), 3);
    let shown = resolved
        .settings
        .iter()
        .find(|setting| setting.key == "clients.keys.kiosk");
    assert_eq!(shown.unwrap().value, "{ sha256 = \"…\" }");
    let presented = PresentedKey::find([("api-key", b"password".as_slice())].into_iter(), None);
    let found = resolved
        .config
        .clients
        .keys
        .look_up(presented.unwrap().as_ref());
    let Ok(Lookup::Slow(slow)) = found else {
        panic!("{found:?}");
    };
    assert_eq!(slow.run().unwrap().name(), "slow");

    let hash = |kind: &str, text: &str| format!("clients.keys.web = {{ {kind} = \"{text}\" }}\n");
    let refused = |text: String| {
        let report = case(&text).expect_broken();
        let codes: Vec<_> = report
            .problems()
            .iter()
            .map(|problem| problem.code)
            .collect();
        assert_eq!(codes, ["client-key.hash"], "{report}");
        assert!(!report.to_string().contains("c29tZXNhbHQ"), "{report}");
    };
    refused(hash("sha256", &kiosk[1..]));
    refused(hash("sha256", &"g".repeat(64)));
    refused(hash("argon2id", "password"));
    refused(hash("argon2id", &HASH.replace("argon2id", "argon2d")));
    // Four gigabytes for every guess.
    refused(hash("argon2id", &HASH.replace("m=65536", "m=4194304")));
    refused("clients.keys.web = { sha256 = 7 }\n".to_owned());
    refused(format!(
        "clients.keys.web = {{ sha256 = \"{kiosk}\", env = \"WEB\" }}\n"
    ));
    check(
        "clients.keys.anonymous = { env = \"WEB\" }\n",
        "client-key.name clients.keys |{ env = \"WEB\" }|",
    );
}

#[test]
fn issuers() {
    let resolved = case(
        "[clients.oidc.entra]\nissuer = \"https://login.microsoftonline.com/t/v2.0\"\n\
         audiences = [\"api://talk\"]\n\
         [clients.oidc.own]\nissuer = \"https://id.example.com\"\naudiences = [\"a\", \"b\"]\n\
         algorithms = [\"ES256\", \"EdDSA\"]\njwksUri = \"http://127.0.0.1:9/keys\"\n\
         nameClaim = \"email\"\nrequiredScopes = [\"talk\"]\nrequiredRoles = [\"r\"]\n\
         [clients.access.entra]\nmaxSessions = 2\n",
    )
    .expect_sound();
    let issuers = resolved.config.clients.keys.issuers();
    let [entra, own] = issuers else {
        panic!("{issuers:?}");
    };
    assert_eq!(entra.algorithms, [UserAlgorithm::Rs256]);
    assert_eq!(entra.name_claim, "sub");
    assert_eq!(
        entra.keys_at(),
        KeysAt::Discovery(
            "https://login.microsoftonline.com/t/v2.0/.well-known/openid-configuration".into()
        )
    );
    assert_eq!(own.algorithms, [UserAlgorithm::Es256, UserAlgorithm::EdDsa]);
    assert_eq!(own.keys_at(), KeysAt::Uri("http://127.0.0.1:9/keys".into()));
    assert_eq!((own.name_claim.as_str(), own.audiences.len()), ("email", 2));
    assert_eq!(own.required_roles, ["r"]);
    assert_eq!(
        identity(&resolved, "entra:u-1").limits.sessions_max,
        Some(2)
    );
    assert_eq!(identity(&resolved, "own:u-1").limits.sessions_max, None);
}

#[test]
fn issuers_that_are_none() {
    let issuer = |rest: &str| {
        format!(
            "[clients.oidc.own]\nissuer = \"https://id.example.com\"\naudiences = [\"a\"]\n{rest}"
        )
    };
    check(
        "[clients.oidc.own]\naudiences = [\"a\"]\n",
        "oidc.incomplete clients.oidc.own.issuer |own|",
    );
    check(
        "[clients.oidc.own]\nissuer = \"https://id.example.com\"\n",
        "oidc.incomplete clients.oidc.own.audiences |own|",
    );
    for algorithm in ["HS256", "none", "rs256"] {
        check(
            &issuer(&format!("algorithms = [\"{algorithm}\"]\n")),
            &format!("oidc.algorithm clients.oidc.own.algorithms |\"{algorithm}\"|"),
        );
    }
    for url in [
        "http://id.example.com/keys",
        "http://localhost/keys",
        "ftp://x",
        "id.example.com",
    ] {
        let found = case(&issuer(&format!("jwksUri = \"{url}\"\n"))).expect_broken();
        let found = lines(&found);
        assert!(
            found.starts_with("oidc.url clients.oidc.own.jwksUri"),
            "{url} {found}"
        );
    }
    check(
        &issuer("").replace("own", "web"),
        "oidc.name clients.oidc |web|",
    );
    check(
        &issuer("").replace("own", "anonymous"),
        "oidc.name clients.oidc |anonymous|",
    );
}

fn ring(resolved: &Resolved) -> Vec<&str> {
    resolved
        .config
        .tokens
        .keys
        .iter()
        .map(|key| key.id())
        .collect()
}

#[test]
fn rings() {
    let web = "clients.keys.web = { env = \"WEB\" }\n";
    let tokens = |text: &str| case(&format!("{web}{text}")).with(RING).expect_sound();
    let several = "tokens.keys = [{ name = \"2026-11\", env = \"RING\" }, { name = \"2026-10\", env = \"OLD\" }]\n";
    let rotated = tokens(several);
    assert_eq!(ring(&rotated), ["2026-11", "2026-10"]);
    let made = KeyRing::new(rotated.config.tokens.keys.clone(), "talkline").unwrap();
    assert_eq!(made.signing_key(), "2026-11");
    assert_eq!(
        ring(&tokens("tokens.keys = { env = \"RING\" }\n")),
        ["default"]
    );
    assert_eq!(
        ring(&tokens("tokens.keys = [{ env = \"RING\" }]\n")),
        ["default"]
    );
    assert_eq!(
        ring(&tokens(
            "tokens.keys = { n = { env = \"RING\" }, a = { env = \"OLD\" } }\n"
        )),
        ["n", "a"]
    );
    let none = tokens("");
    assert_eq!(ring(&none), [""; 0]);
    assert_eq!(none.config.tokens.audience, "talkline");
    assert_eq!(none.config.tokens.lifetime, Duration::from_secs(60));
    let variable = "TALKLINE_TOKEN_KEY=abcdefabcdefabcdefabcdefabcdefab";
    assert_eq!(ring(&case(web).with(variable).expect_sound()), ["default"]);
    let both = case(&format!("{web}{several}"))
        .with(RING)
        .with(variable)
        .expect_sound();
    assert_eq!(ring(&both), ["2026-11", "2026-10"]);
    assert!(
        !format!("{:?} {:?}", both.config, both.settings).contains("0123456789abcdef0123456789")
    );
}

#[test]
fn rings_that_are_none() {
    check(
        "tokens.keys = [{ env = \"RING\" }, { name = \"b\", env = \"OLD\" }]\n",
        "token-key.name tokens.keys |{ env = \"RING\" }|",
    );
    check(
        "tokens.keys = { env = \"WEB\" }\n",
        "token-key.short tokens.keys.default |{ env = \"WEB\" }|",
    );
    check(
        "tokens.keys = { \"a b\" = { env = \"RING\" } }\n",
        "token-key.name tokens.keys.\"a b\" |{ env = \"RING\" }|",
    );
    check(
        "tokens.keys = { a = { env = \"RING\" }, b = { env = \"RING\" } }\n",
        "token-key.duplicate tokens.keys.b |{ env = \"RING\" }|",
    );
    check(
        "tokens.lifetime = \"11m\"\n",
        "value.range tokens.lifetime |\"11m\"|",
    );
    check(
        "tokens.keys = { env = \"NOT_SET\" }\n",
        "secret.variable-missing tokens.keys.default |{ env = \"NOT_SET\" }|",
    );
}

#[test]
fn failures_and_operators() {
    let web = "clients.keys.web = { env = \"WEB\" }\n";
    let resolved = case(&format!(
        "{web}limits.maxFailuresPerSource = 3\nlimits.maxFailures = 50\nlimits.failureWindow = \"5m\"\n\
         admin.listen = \"127.0.0.1:8081\"\n"
    ))
    .with("TALKLINE_ADMIN_KEY=admin-key-of-some-length")
    .expect_sound();
    let failures = resolved.config.limits.failures;
    assert_eq!(
        (failures.source_failures_max, failures.failures_max),
        (3, 50)
    );
    assert_eq!(failures.window, Duration::from_secs(300));
    let admin = resolved.config.admin.unwrap();
    assert_eq!(admin.key.unwrap().expose(), "admin-key-of-some-length");
}
