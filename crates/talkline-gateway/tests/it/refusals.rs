//! How a client is told that it gets no session.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::Value;
use talkline_config::{DeveloperTools, Format, Inputs, Refusals, SourceFile};
use talkline_gateway::{Gateway, Options};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::timeout,
};

const PATIENCE: Duration = Duration::from_secs(20);
const AZURE_KEY: &str = "CANARY-AZURE-KEY-77aa";
const CLIENT_KEY: &str = "CANARY-CLIENT-KEY-31d0";

/// Answers every connection with the same bytes once a request has come.
async fn upstream(answer: String, tasks: &mut JoinSet<()>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    tasks.spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    endpoint
}

/// Starts the service and returns its authority.
async fn relay(endpoint: &str, more: &str, refusals: Refusals, tasks: &mut JoinSet<()>) -> String {
    let file = SourceFile {
        name: "talkline.toml".into(),
        format: Format::Toml,
        text: format!(
            "server.listen = \"127.0.0.1:0\"\n\
             clients.keys = [{{ name = \"test\", env = \"CLIENT\" }}]\n\
             talk.realtime.provider = \"openai\"\n\
             talk.realtime.providers.openai.azureEndpoint = \"{endpoint}\"\n\
             talk.realtime.providers.openai.azureDeployment = \"voice\"\n\
             talk.realtime.providers.openai.apiKey = {{ env = \"AZURE\" }}\n{more}"
        ),
    };
    let variables = BTreeMap::from([
        ("CLIENT".to_owned(), CLIENT_KEY.to_owned()),
        ("AZURE".to_owned(), AZURE_KEY.to_owned()),
    ]);
    let resolved = talkline_config::resolve(&Inputs {
        files: &[file],
        variables: &variables,
        flags: &[],
        developer_tools: DeveloperTools::default(),
        is_exposed: &|_| false,
        read_secret_file: &|_| Err("no files here".into()),
    })
    .unwrap();
    let mut config = resolved.config;
    config.server.refusals = refusals;
    let gateway = Gateway::new(config, Options::default()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let authority = listener.local_addr().unwrap().to_string();
    tasks.spawn(gateway.serve(listener, std::future::pending()));
    authority
}

/// Asks for a session and returns everything that comes.
async fn ask(authority: &str, target: &str, key: &str) -> String {
    let mut stream = TcpStream::connect(authority).await.unwrap();
    let request = format!(
        "GET {target} HTTP/1.1\r\nHost: {authority}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Authorization: Bearer {key}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut answer))
        .await
        .expect("the relay hangs up")
        .unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

struct Problem {
    head: String,
    body: Value,
}

impl Problem {
    fn read(answer: &str) -> Self {
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        Self {
            head: head.to_ascii_lowercase(),
            body: serde_json::from_str(body).unwrap_or_else(|_| panic!("{answer}")),
        }
    }

    #[track_caller]
    fn expect(&self, status: u16, code: &str, retry_after: Option<u64>) {
        let Self { head, body } = self;
        assert!(head.starts_with(&format!("http/1.1 {status} ")), "{head}");
        assert!(
            head.contains("content-type: application/problem+json"),
            "{head}"
        );
        assert_eq!(body["status"], status);
        assert_eq!(body["code"], code, "{body}");
        assert_eq!(body["type"], format!("docs/reference/errors.md#{code}"));
        for field in ["title", "detail", "next_step"] {
            assert!(
                body[field].as_str().is_some_and(|text| !text.is_empty()),
                "{body}"
            );
        }
        let found = head
            .lines()
            .find_map(|line| line.strip_prefix("retry-after: "))
            .map(|value| value.parse().unwrap());
        assert_eq!(found, retry_after, "{head}");
        assert!(!format!("{head}{body}").to_uppercase().contains("CANARY"));
    }
}

fn http(status: u16, headers: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {}\r\napim-request-id: req-9\r\n{headers}\r\n{body}",
        body.len()
    )
}

async fn check(answer: String, status: u16, code: &str, retry_after: Option<u64>) -> Value {
    let mut tasks = JoinSet::new();
    let endpoint = upstream(answer, &mut tasks).await;
    let relay = relay(&endpoint, "", Refusals::Http, &mut tasks).await;
    let problem = Problem::read(&ask(&relay, "/v1/realtime", CLIENT_KEY).await);
    problem.expect(status, code, retry_after);
    problem.body
}

#[tokio::test]
async fn permanent_refusals_are_424_and_never_401() {
    let body =
        format!(r#"{{"error":{{"code":"401","message":"invalid subscription key {AZURE_KEY}"}}}}"#);
    let problem = check(http(401, "", &body), 424, "azure_key_invalid", None).await;
    assert_eq!(problem["upstream"]["status"], 401);
    assert_eq!(problem["upstream"]["request_id"], "req-9");
    let location = format!("location: wss://x/v1/realtime?api-key={AZURE_KEY}\r\n");
    check(
        http(302, &location, ""),
        424,
        "azure_upgrade_redirect",
        None,
    )
    .await;
}

#[tokio::test]
async fn throttling_is_429_with_the_upstreams_wait() {
    let answer = http(429, "retry-after: 38\r\n", "");
    check(answer, 429, "azure_rate_limited", Some(38)).await;
}

#[tokio::test]
async fn what_may_pass_is_503() {
    check(
        http(502, "", "no healthy upstream"),
        503,
        "azure_unavailable",
        Some(1),
    )
    .await;
}

#[tokio::test]
async fn the_relays_own_401_stays_the_clients() {
    let mut tasks = JoinSet::new();
    let relay = relay("http://127.0.0.1:9", "", Refusals::Http, &mut tasks).await;
    let answer = ask(&relay, "/v1/realtime", "wrong").await;
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    let answer = ask(&relay, "/v1/realtime?model=other", CLIENT_KEY).await;
    let problem = Problem::read(&answer);
    problem.expect(424, "unknown_model", None);
    assert_eq!(problem.body["blame"], "client");
}

#[tokio::test]
async fn in_band_is_the_default() {
    let mut tasks = JoinSet::new();
    let endpoint = upstream(http(401, "", ""), &mut tasks).await;
    let relay = relay(&endpoint, "", Refusals::default(), &mut tasks).await;
    let mut stream = TcpStream::connect(&relay).await.unwrap();
    let request = format!(
        "GET /v1/realtime HTTP/1.1\r\nHost: {relay}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Authorization: Bearer {CLIENT_KEY}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut seen = Vec::new();
    // The payload of the close frame: 1008 and the code.
    while !seen.ends_with(b"\x03\xf0azure_unauthorized") {
        let read = timeout(PATIENCE, stream.read_buf(&mut seen))
            .await
            .unwrap()
            .unwrap();
        assert!(read > 0, "{}", String::from_utf8_lossy(&seen));
    }
    assert!(seen.starts_with(b"HTTP/1.1 101 "));
}

/// What the second client of a relay with one place is told.
async fn told_when_full(refusals: Refusals) -> String {
    let mut tasks = JoinSet::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let one = "limits.maxSessions = 1\n";
    let relay = relay(&endpoint, one, refusals, &mut tasks).await;
    let mut first = TcpStream::connect(&relay).await.unwrap();
    let request = format!(
        "GET /v1/realtime HTTP/1.1\r\nHost: {relay}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Authorization: Bearer {CLIENT_KEY}\r\n\r\n"
    );
    first.write_all(request.as_bytes()).await.unwrap();
    // The only place is taken once the upstream is dialled.
    let _dialled = timeout(PATIENCE, listener.accept()).await.unwrap().unwrap();
    ask(&relay, "/v1/realtime", CLIENT_KEY).await
}

#[tokio::test]
async fn a_full_relay_says_so() {
    let answer = told_when_full(Refusals::InBand).await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(
        answer.contains("\"relay_full\"") && answer.contains("limits.maxSessions"),
        "{answer}"
    );
    let answer = told_when_full(Refusals::Http).await;
    Problem::read(&answer).expect(503, "relay_full", Some(1));
}

/// Codes of refusals are part of what clients are promised: each stands in the reference page, and each of
/// the page is one of them.
#[test]
fn every_code_is_documented() {
    let page = include_str!("../../../../docs/reference/refusals.md");
    let documented: BTreeSet<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split(" | ").nth(1))
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .collect();
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut used = BTreeSet::from(["relay_full".to_owned()]);
    let words = |text: &str, code: &mut BTreeSet<String>| {
        let is_code = |word: &&str| {
            word.contains('_') && word.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'_'))
        };
        code.extend(
            text.split('"')
                .skip(1)
                .step_by(2)
                .filter(is_code)
                .map(str::to_owned),
        );
    };
    for file in sources(&crates.join("talkline-gateway/src")) {
        let text = std::fs::read_to_string(file).unwrap();
        let text = text.split("#[cfg(test)]").next().unwrap();
        // Its own file says `Self`.
        let text = text.replace(
            "Self::new(\n            StatusCode",
            "HttpRefusal::new(StatusCode",
        );
        for made in text.split("HttpRefusal::new(").skip(1) {
            let arguments: String = made.split(',').take(2).collect();
            words(&arguments, &mut used);
        }
    }
    for file in sources(&crates.join("talkline-auth/src"))
        .into_iter()
        .chain([crates.join("talkline-dialect/src/ask.rs")])
    {
        let text = std::fs::read_to_string(file).unwrap();
        for codes in text
            .split("fn code(")
            .skip(1)
            .filter(|rest| rest.contains("-> &'static str"))
        {
            let body = codes.split("\n    }\n").next().unwrap();
            words(body, &mut used);
        }
        for constant in text.split("CODE: &str =").skip(1) {
            words(constant.split(';').next().unwrap(), &mut used);
        }
    }
    let used: BTreeSet<&str> = used.iter().map(String::as_str).collect();
    assert!(used.len() > 60, "{used:?}");
    assert_eq!(documented, used);
}

/// The Rust files of a folder, without those of tests.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() && name != "tests" {
            found.extend(sources(&path));
        } else if name.ends_with(".rs") && name != "tests.rs" {
            found.push(path);
        }
    }
    found
}
