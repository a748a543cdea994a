//! What browsers ask over HTTP, and who may ask.

use serde_json::{Value, json};
use talkline_sim::{Profile, Refusal, caller::Secret};

use crate::kit::{
    AUTHORITY, AZURE_KEY, CLIENT_KEY, Counter, DEPLOYMENT, RawSession, Relay, Trap, azure, quick,
    raw, simulator, tls_server, turn,
};

const PAGE: &str = "https://app.test";

fn with_page(configuration: String) -> String {
    configuration + "server.allowedOrigins = [\"https://app.test\"]\n"
}

fn bearer() -> String {
    format!("Authorization: Bearer {CLIENT_KEY}\r\n")
}

/// An answer over HTTP.
struct Answer {
    status: String,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    /// `401 client_key_unknown`
    fn refusal(&self) -> String {
        let code = self.json()["error"]["code"].clone();
        format!("{} {}", self.status, code.as_str().unwrap_or_default())
    }
}

async fn ask(relay: &Relay, method: &str, path: &str, headers: &str, body: &str) -> Answer {
    let length = match method {
        "POST" => format!("Content-Length: {}\r\n", body.len()),
        _ => String::new(),
    };
    let authority = relay.authority();
    let request =
        format!("{method} {path} HTTP/1.1\r\nHost: {authority}\r\n{headers}{length}\r\n{body}");
    let answer = raw(authority, request.as_bytes()).await;
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer");
    assert!(head.to_lowercase().contains("connection: close"), "{head}");
    Answer {
        status: head.split(' ').nth(1).unwrap_or_default().to_owned(),
        head: head.to_owned(),
        body: body.to_owned(),
    }
}

async fn post(relay: &Relay, path: &str, headers: &str, body: &Value) -> Answer {
    let headers = format!("Content-Type: application/json\r\n{headers}");
    ask(relay, "POST", path, &headers, &body.to_string()).await
}

#[tokio::test]
async fn a_page_gets_the_relay_with_azure_whatever_it_asks_for() {
    let sim = simulator().await;
    let relay = Relay::start(&with_page(azure(&sim.base_url()))).await;
    let config = ask(&relay, "GET", "/talk/config", "", "").await.json();
    assert_eq!(config["transport"], "gateway-relay");
    assert_eq!(config["reason"], "azure_through_relay");
    assert_eq!(config["transports"], json!(["gateway-relay"]));
    assert_eq!(config["authentication"], "client_key");
    assert_eq!(config.get("models"), None);
    let config = ask(&relay, "GET", "/talk/config", &bearer(), "")
        .await
        .json();
    assert_eq!(config["models"], json!([DEPLOYMENT]));

    for asked in [
        json!({}),
        json!({"transport": "webrtc"}),
        json!({"model": DEPLOYMENT}),
    ] {
        let origin = format!("{}Origin: {PAGE}\r\n", bearer());
        let answer = post(&relay, "/talk/session", &origin, &asked).await;
        assert_eq!(answer.status, "200", "{}", answer.body);
        assert_eq!(answer.header("access-control-allow-origin"), Some(PAGE));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        let told = answer.json();
        assert_eq!(told["transport"], "gateway-relay");
        assert_eq!(
            told["audio"]["input"],
            json!({"type": "audio/pcm", "rate": 24000, "channels": 1})
        );
        assert!(!answer.body.contains(AZURE_KEY) && !answer.body.contains(CLIENT_KEY));
        let url = told["url"].as_str().unwrap();
        let target = url
            .strip_prefix(&relay.url)
            .unwrap_or_else(|| panic!("{url}"));
        let protocols = told["protocols"].as_array().unwrap();
        let offer: Vec<_> = protocols.iter().map(|it| it.as_str().unwrap()).collect();
        let upgrade = format!(
            "Sec-WebSocket-Protocol: {}\r\nOrigin: {PAGE}\r\n",
            offer.join(", ")
        );
        let mut session = RawSession::open(relay.authority(), target, &upgrade).await;
        assert!(
            session.head.starts_with("HTTP/1.1 101 "),
            "{}",
            session.head
        );
        assert_eq!(session.event().await.json()["type"], "session.created");
    }
    let refused = post(
        &relay,
        "/talk/session",
        &bearer(),
        &json!({"transport": "managed-room"}),
    )
    .await;
    assert_eq!(refused.refusal(), "400 transport_unsupported");
    assert!(refused.body.contains("gateway-relay"));
    // Nobody asked Azure for a secret: sessions are all that it saw.
    assert!(sim.requests().iter().all(|request| request.method == "GET"));
}

#[tokio::test]
async fn the_page_is_served_by_operators_who_want_it() {
    let sim = simulator().await;
    let without = Relay::start(&azure(&sim.base_url())).await;
    for path in ["/", "/talk", "/talk/", "/talk/page/app.js"] {
        let answer = ask(&without, "GET", path, "", "").await;
        assert_eq!(answer.refusal(), "404 unknown_path", "{path}");
    }
    let with = Relay::start(&(azure(&sim.base_url()) + "ui.enabled = true\n")).await;
    let page = ask(&with, "GET", "/talk/", "", "").await;
    assert_eq!(page.status, "200");
    assert!(page.body.contains("<title>Talk · Talkline</title>"));
    let policy = page.header("content-security-policy").unwrap();
    let mut directives = policy.split("; ");
    assert_eq!(directives.next(), Some("default-src 'none'"));
    for directive in directives {
        let (_, sources) = directive.split_once(' ').unwrap();
        assert!(["'self'", "'none'"].contains(&sources), "{directive}");
    }
}

#[tokio::test]
async fn a_page_is_told_what_the_operator_pays() {
    let sim = simulator().await;
    let priced = format!(
        "prices.currency = \"EUR\"\n\
         [prices.models.{DEPLOYMENT}]\n\
         inputText = \"4\"\ninputAudio = \"32.00\"\ncachedInputAudio = \"0.40\"\n\
         outputText = \"16\"\noutputAudio = \"64.5\"\n"
    );
    let priced = Relay::start(&(with_page(azure(&sim.base_url())) + &priced)).await;
    let told = post(&priced, "/talk/session", &bearer(), &json!({})).await;
    assert_eq!(
        told.json()["prices"],
        json!({
            "currency": "EUR",
            "input": {"text": 4.0, "audio": 32.0, "image": 0.0},
            "cached": {"text": 4.0, "audio": 0.4, "image": 0.0},
            "output": {"text": 16.0, "audio": 64.5},
        })
    );
    let unpriced = Relay::start(&with_page(azure(&sim.base_url()))).await;
    let told = post(&unpriced, "/talk/session", &bearer(), &json!({})).await;
    assert_eq!(told.json()["prices"], Value::Null);
}

#[tokio::test]
async fn a_token_holds_what_it_was_made_for() {
    let sim = simulator().await;
    let relay = Relay::start(&with_page(azure(&sim.base_url()))).await;
    // The longest that OpenAI's endpoint takes.
    let asked = json!({
        "expires_after": {"anchor": "created_at", "seconds": 7200},
        "session": {"type": "realtime", "model": DEPLOYMENT, "instructions": "CANARY-PROMPT", "audio": {"output": {"voice": "marin"}}},
    });
    for path in [
        "/v1/realtime/client_secrets",
        "/openai/v1/realtime/client_secrets",
    ] {
        let made = post(&relay, path, &bearer(), &asked).await;
        assert_eq!(made.status, "200", "{}", made.body);
        let made = made.json();
        let value = made["value"].as_str().unwrap();
        assert!(
            value.starts_with("ek_") && !value.contains("CANARY"),
            "{value}"
        );
        assert_eq!(made["session"]["model"], DEPLOYMENT);
        assert_eq!(made["session"]["type"], "realtime");
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap()
            .as_secs();
        let left = made["expires_at"].as_u64().unwrap() - now;
        assert!((50..=60).contains(&left), "{left}");

        let mut call = relay.plain_call();
        call.bearer = Some(Secret::new(value));
        assert!(turn(&call).await.unwrap().is_whole());
        let again = turn(&call).await.unwrap_err().to_string();
        assert!(again.contains("401"), "{again}");
    }
    // One dial for each token, none for its second use.
    assert_eq!(sim.requests().len(), 2);
}

#[tokio::test]
async fn a_token_mints_nothing() {
    let sim = simulator().await;
    let relay = Relay::start(&with_page(azure(&sim.base_url()))).await;
    let made = post(&relay, "/talk/session", &bearer(), &json!({})).await;
    let token = made.json()["client_secret"]["value"].clone();
    let token = token.as_str().unwrap();
    let header = format!("Authorization: Bearer {token}\r\n");
    for path in ["/talk/session", "/v1/realtime/client_secrets"] {
        let refused = post(&relay, path, &header, &json!({})).await;
        assert_eq!(refused.refusal(), "403 token_cannot_mint");
    }
    // It is still good for what it was made for.
    let mut call = relay.plain_call();
    call.bearer = Some(Secret::new(token));
    assert!(turn(&call).await.unwrap().is_whole());
}

#[tokio::test]
async fn requests_are_read_strictly() {
    let sim = simulator().await;
    let relay = Relay::start(&with_page(azure(&sim.base_url()))).await;
    let key = bearer();
    let json_type = format!("Content-Type: application/json\r\n{key}");
    let long = format!(
        "{{\"session\":{{\"instructions\":\"{}\"}}}}",
        "x".repeat(20_000)
    );
    let cases = [
        ("POST", "/talk/session", "", "", "401 client_key_missing"),
        (
            "POST",
            "/talk/session",
            "Authorization: Bearer no\r\n",
            "",
            "401 client_key_unknown",
        ),
        ("POST", "/talk/session", &key, "{}", "415 content_type"),
        ("POST", "/talk/session", &json_type, "{", "400 invalid_body"),
        (
            "POST",
            "/talk/session",
            &json_type,
            "{\"host\":\"evil.test\"}",
            "400 invalid_body",
        ),
        (
            "POST",
            "/talk/session",
            &json_type,
            "{\"model\":\"a\",\"model\":\"b\"}",
            "400 invalid_body",
        ),
        (
            "POST",
            "/talk/session",
            &json_type,
            &long,
            "413 body_too_large",
        ),
        (
            "POST",
            "/talk/session",
            &json_type,
            "{\"model\":\"other\"}",
            "400 unknown_model",
        ),
        (
            "POST",
            "/talk/session",
            &json_type,
            "{\"transport\":\"smoke\"}",
            "400 unknown_transport",
        ),
        (
            "POST",
            "/v1/realtime/client_secrets",
            &json_type,
            "{\"session\":{\"type\":\"chat\"}}",
            "400 invalid_value",
        ),
        (
            "POST",
            "/v1/realtime/client_secrets",
            &json_type,
            "{\"expires_after\":{\"seconds\":0}}",
            "400 invalid_value",
        ),
        (
            "POST",
            "/v1/realtime/client_secrets",
            &json_type,
            "{\"expires_after\":{\"seconds\":7201}}",
            "400 invalid_value",
        ),
        ("GET", "/talk/session", &key, "", "405 method_not_allowed"),
        (
            "GET",
            "/v1/realtime/client_secrets",
            &key,
            "",
            "405 method_not_allowed",
        ),
        ("POST", "/talk/config", &key, "", "405 method_not_allowed"),
    ];
    for (method, path, headers, body, expected) in cases {
        let answer = ask(&relay, method, path, headers, body).await;
        assert_eq!(answer.refusal(), expected, "{method} {path} {body:.60}");
        assert!(answer.body.len() <= 512, "{}", answer.body);
    }
    assert_eq!(sim.requests().len(), 0);
}

#[tokio::test]
async fn only_listed_pages_may_read_the_answers() {
    let sim = simulator().await;
    let relay = Relay::start(&with_page(azure(&sim.base_url()))).await;
    let preflight = |origin: &str| {
        format!(
            "Origin: {origin}\r\nAccess-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: authorization,content-type,x-stainless-os\r\n"
        )
    };
    for path in ["/talk/session", "/v1/realtime/client_secrets"] {
        let allowed = ask(&relay, "OPTIONS", path, &preflight(PAGE), "").await;
        assert_eq!(allowed.status, "204");
        assert_eq!(allowed.header("access-control-allow-origin"), Some(PAGE));
        assert_eq!(allowed.header("access-control-allow-credentials"), None);
        for origin in ["https://evil.test", "null", "http://app.test"] {
            let refused = ask(&relay, "OPTIONS", path, &preflight(origin), "").await;
            assert_eq!(refused.refusal(), "403 origin_not_allowed");
            assert_eq!(refused.header("access-control-allow-origin"), None);
            let headers = format!("{}Origin: {origin}\r\nCookie: session=1\r\n", bearer());
            let refused = post(&relay, path, &headers, &json!({})).await;
            assert_eq!(refused.refusal(), "403 origin_not_allowed");
        }
    }
    // A page may read why it was refused.
    let headers = format!("Authorization: Bearer no\r\nOrigin: {PAGE}\r\n");
    let refused = post(&relay, "/talk/session", &headers, &json!({})).await;
    assert_eq!(refused.refusal(), "401 client_key_unknown");
    assert_eq!(refused.header("access-control-allow-origin"), Some(PAGE));
    let cookie = "Cookie: authorization=Bearer; session=1\r\n";
    let refused = post(&relay, "/talk/session", cookie, &json!({})).await;
    assert_eq!(refused.refusal(), "401 client_key_missing");
    assert_eq!(sim.requests().len(), 0);
}

#[tokio::test]
async fn hostile_pages_reach_nothing_upstream() {
    let sim = simulator().await;
    let upstream = Counter::before(sim.addr()).await;
    let open = azure(&upstream.url).replace(
        "clients.keys = [{ name = \"test\", env = \"CLIENT_KEY\" }]",
        "clients.allowAnonymous = true",
    );
    let relay = Relay::start(&open).await;
    let upgrade = |host: &str, headers: &str| {
        format!(
            "GET /v1/realtime HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
        )
    };
    let own = relay.authority().to_owned();
    let cases = [
        (own.as_str(), "Origin: https://evil.test\r\n", "403 "),
        (&own, "Origin: null\r\n", "403 "),
        (&own, "Origin: http://localhost.evil.test\r\n", "403 "),
        (
            &own,
            "Origin: https://evil.test\r\nCookie: key=1\r\n",
            "403 ",
        ),
        (
            &own,
            "Origin: https://evil.test\r\nX-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Host: evil.test\r\n",
            "403 ",
        ),
        // The page's name has been rebound to this address.
        ("evil.test", "Origin: http://evil.test\r\n", "403 "),
        ("evil.test", "", "403 "),
    ];
    for (host, headers, expected) in cases {
        let answer = raw(&own, upgrade(host, headers).as_bytes()).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {expected}")),
            "{host} {headers} {answer}"
        );
    }
    assert_eq!(upstream.dials(), 0);
}

/// A relay in front of what stands in for api.openai.com, over TLS.
async fn openai(
    transport: &str,
    sim: talkline_sim::Builder,
) -> (talkline_sim::Running, Relay, tempfile::TempDir) {
    let home = tempfile::tempdir().unwrap();
    let tls = tls_server("api.openai.com", home.path());
    let sim = sim.profile(Profile::OpenAi).tls(tls).start().await.unwrap();
    let roots = home.path().join(AUTHORITY);
    let resolve = format!("api.openai.com:443:127.0.0.1:{}", sim.addr().port());
    let relay = Relay::start_env(
        &format!(
            "server.listen = \"127.0.0.1:0\"\n\
             clients.keys = [{{ name = \"test\", env = \"CLIENT_KEY\" }}]\n\
             clients.access.test.startsPerMinute = 3\n\
             [talk.realtime]\nprovider = \"openai\"\ntransport = \"{transport}\"\nmodel = \"gpt-realtime\"\n\
             [talk.realtime.providers.openai]\napiKey = {{ env = \"AZURE_KEY\" }}\n"
        ),
        &["--resolve", &resolve],
        &[("SSL_CERT_FILE", roots.to_str().unwrap())],
    )
    .await;
    (sim, relay, home)
}

#[tokio::test]
async fn openai_gives_browsers_a_secret_of_its_own_with_webrtc() {
    let (sim, relay, _home) = openai("webrtc", quick()).await;
    let told = post(
        &relay,
        "/talk/session",
        &bearer(),
        &json!({"session": {"instructions": "Be brief."}}),
    )
    .await;
    assert_eq!(told.status, "200", "{}", told.body);
    assert!(!told.body.contains(AZURE_KEY));
    let told = told.json();
    assert_eq!(told["transport"], "webrtc");
    assert_eq!(told["url"], "https://api.openai.com/v1/realtime/calls");
    let secret = told["client_secret"]["value"].as_str().unwrap();
    assert!(
        secret.starts_with("ek_") && !secret.contains('.'),
        "{secret}"
    );
    let made = post(
        &relay,
        "/v1/realtime/client_secrets",
        &bearer(),
        &json!({"session": {"type": "realtime", "model": "gpt-realtime"}, "expires_after": {"anchor": "created_at", "seconds": 300}}),
    )
    .await;
    assert_eq!(made.status, "200", "{}", made.body);
    // What cannot be bound is not made.
    let bound = json!({"talkline": {"session_seconds": 60}});
    let refused = post(&relay, "/v1/realtime/client_secrets", &bearer(), &bound).await;
    assert_eq!(refused.refusal(), "400 invalid_value");
    let seen = sim.requests();
    assert_eq!(seen.len(), 2);
    for request in &seen {
        assert_eq!(
            (request.method.as_str(), request.path.as_str()),
            ("POST", "/v1/realtime/client_secrets")
        );
        assert_eq!(
            request.header("authorization"),
            Some(format!("Bearer {AZURE_KEY}").as_str())
        );
        assert_eq!(request.header("host"), Some("api.openai.com"));
        assert!(!format!("{request:?}").contains(CLIENT_KEY));
    }
    let sent: Value = serde_json::from_str(seen[0].body.as_deref().unwrap()).unwrap();
    assert_eq!(
        sent,
        json!({"session": {"type": "realtime", "model": "gpt-realtime", "instructions": "Be brief."}})
    );
    let sent: Value = serde_json::from_str(seen[1].body.as_deref().unwrap()).unwrap();
    assert_eq!(sent["expires_after"]["seconds"], 300);
    // Each is a start of the client's.
    assert_eq!(
        post(&relay, "/talk/session", &bearer(), &json!({}))
            .await
            .status,
        "200"
    );
    let refused = post(&relay, "/talk/session", &bearer(), &json!({})).await;
    assert_eq!(refused.refusal(), "429 client_starts_per_minute");
    assert!(refused.header("retry-after").is_some());
    // Who asks for the relay gets it, and a token of the relay's.
    let relayed = post(
        &relay,
        "/talk/session",
        &bearer(),
        &json!({"transport": "gateway-relay"}),
    )
    .await
    .json();
    assert!(
        relayed["client_secret"]["value"]
            .as_str()
            .unwrap()
            .contains('.')
    );
}

#[tokio::test]
async fn a_refusal_of_openais_is_explained_and_no_redirect_is_followed() {
    let trap = Trap::set().await;
    for refusal in Refusal::all() {
        let status = refusal.status();
        if !matches!(status, 301..=308 | 401 | 429 | 500) {
            continue;
        }
        let (sim, relay, _home) = openai("webrtc", quick().always(refusal.clone())).await;
        let answer = post(&relay, "/talk/session", &bearer(), &json!({})).await;
        assert!(
            matches!(answer.status.as_str(), "424" | "429" | "503"),
            "{} {}",
            refusal.name(),
            answer.head
        );
        assert!(
            !answer.body.contains(AZURE_KEY) && !answer.body.contains("api-key="),
            "{}",
            answer.body
        );
        assert_eq!(sim.requests().len(), 1, "{}", refusal.name());
    }
    assert_eq!(trap.caught(), 0);
}

#[tokio::test]
async fn azure_keys_never_go_into_openais_flow() {
    let sim = simulator().await;
    let trap = Trap::set().await;
    let relay = Relay::start_with(&azure(&sim.base_url()), &["--resolve", &trap.resolve()]).await;
    for path in [
        "/talk/session",
        "/v1/realtime/client_secrets",
        "/openai/v1/realtime/client_secrets",
    ] {
        let answer = post(
            &relay,
            path,
            &bearer(),
            &json!({"session": {"type": "realtime"}}),
        )
        .await;
        assert_eq!(answer.status, "200", "{}", answer.body);
    }
    let asked = json!({"transport": "webrtc"});
    assert_eq!(
        post(&relay, "/talk/session", &bearer(), &asked)
            .await
            .status,
        "200"
    );
    assert_eq!((trap.caught(), sim.requests().len()), (0, 0));
}
