//! Handshakes with an upstream that minds what it is shown, in paused time.

use std::{
    collections::BTreeSet,
    fs,
    sync::{Arc, Mutex},
};

use talkline_auth::{Azure, Credential, KeyCell, KeyFiles, Origin, OriginRules, Secret};
use talkline_dialect::{
    AzureApi, AzureUpstream, ClientDialect, Intent, OpenAiUpstream, Permanence, UpstreamAnswer,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use super::*;
use crate::{
    dial::DialTimeouts,
    handshake, tls,
    tokens::tests::{FakeSource, Running, Service, run},
};

const KEY_INVALID: &str = r#"{"error":{"code":"401","message":"Access denied due to invalid subscription key or wrong API endpoint."}}"#;
const NO_ROLE: &str = r#"{"error":{"code":"PermissionDenied","message":"The principal lacks the required data action"}}"#;
const OPENAI_INVALID: &str =
    r#"{"error":{"code":"invalid_api_key","message":"Incorrect API key provided"}}"#;

/// An upstream that answers 101 to the credentials it knows.
struct FakeUpstream {
    accepted: Mutex<BTreeSet<String>>,
    refusal: &'static str,
    /// Credentials in the order in which they were presented.
    seen: Mutex<Vec<String>>,
}

impl FakeUpstream {
    fn new(accepted: &[&str], refusal: &'static str) -> Arc<Self> {
        let fake = Self {
            accepted: Mutex::default(),
            refusal,
            seen: Mutex::default(),
        };
        fake.accept(accepted);
        Arc::new(fake)
    }

    fn accept(&self, credentials: &[&str]) {
        *self.accepted.lock().unwrap() = credentials.iter().map(|&c| c.to_owned()).collect();
    }

    fn take_seen(&self) -> String {
        std::mem::take(&mut *self.seen.lock().unwrap()).join(" ")
    }
}

impl Dial for Arc<FakeUpstream> {
    /// The credential that was accepted.
    type Opened = String;

    async fn dial(&self, request: &UpstreamRequest) -> Result<String, Refusal> {
        sleep(Duration::from_millis(20)).await;
        let (_, value) = request.target().authentication().unwrap();
        let presented = value.expose().trim_start_matches("Bearer ").to_owned();
        self.seen.lock().unwrap().push(presented.clone());
        if self.accepted.lock().unwrap().contains(&presented) {
            return Ok(presented);
        }
        let body = self.refusal.as_bytes().to_vec();
        let answer = UpstreamAnswer::new(401, std::iter::empty(), body);
        Err(Refusal::Answered(answer))
    }
}

fn ask() -> Ask {
    Ask {
        alias: None,
        intent: Intent::Conversation,
        dialect: ClientDialect::Ga,
        offers_realtime: false,
    }
}

fn azure(credential: impl FnOnce(Origin<Azure>) -> Credential<Azure>) -> Upstream {
    let origin = Origin::parse("https://r.openai.azure.com", &OriginRules::default()).unwrap();
    Upstream::Azure(AzureUpstream {
        credential: credential(origin),
        base_path: String::new(),
        api: AzureApi::Ga,
        deployment: "voice".into(),
    })
}

type FakeReach = Reach<Arc<FakeUpstream>>;

/// Opens a session; the credential that was accepted, or the code of the diagnosis.
async fn open(reach: &FakeReach, upstream: &Upstream) -> String {
    let opened = reach.open(upstream, &ask(), &Correlation::default()).await;
    opened.unwrap_or_else(|diagnosis| diagnosis.code.to_owned())
}

struct EntraRig {
    reach: FakeReach,
    upstream: Upstream,
    _running: Running,
}

fn entra(source: &Arc<FakeSource>, dialer: &Arc<FakeUpstream>) -> EntraRig {
    let running = run(source);
    EntraRig {
        reach: Reach {
            dialer: Arc::clone(dialer),
            tokens: running.tokens.clone(),
            keys: Keys::new(Vec::new(), Vec::new()),
            token_wait_max: Duration::from_secs(10),
        },
        upstream: azure(|origin| Credential::entra(origin, running.cell.clone())),
        _running: running,
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_waits_for_the_first_token() {
    let source = FakeSource::new(Service::Works);
    let upstream = FakeUpstream::new(&["token-1"], KEY_INVALID);
    let rig = entra(&source, &upstream);
    assert_eq!(open(&rig.reach, &rig.upstream).await, "token-1");
    assert_eq!(upstream.take_seen(), "token-1");
}

#[tokio::test(start_paused = true)]
async fn without_a_token_nothing_is_dialled() {
    let source = FakeSource::new(Service::Fails {
        after: Duration::ZERO,
        detail: "tenant 7f3a is unknown",
        permanent: true,
    });
    let upstream = FakeUpstream::new(&[], KEY_INVALID);
    let rig = entra(&source, &upstream);
    let refused = rig
        .reach
        .open(&rig.upstream, &ask(), &Correlation::default())
        .await
        .unwrap_err();
    assert_eq!(refused.code, "azure_identity_unavailable");
    assert_eq!(refused.permanence, Permanence::Permanent);
    let told = refused.error_event();
    assert!(!told.contains("7f3a"), "{told}");
    assert_eq!(upstream.take_seen(), "");

    source.becomes(Service::Hangs);
    let rig = entra(&source, &upstream);
    let started = Instant::now();
    assert_eq!(
        open(&rig.reach, &rig.upstream).await,
        "azure_identity_unavailable"
    );
    assert_eq!(started.elapsed(), Duration::from_secs(10));
}

#[tokio::test(start_paused = true)]
async fn a_refused_token_is_renewed_once_for_all() {
    let source = FakeSource::new(Service::Works);
    let upstream = FakeUpstream::new(&["token-1"], KEY_INVALID);
    let rig = Arc::new(entra(&source, &upstream));
    assert_eq!(open(&rig.reach, &rig.upstream).await, "token-1");
    upstream.accept(&["token-2"]);
    let mut sessions = JoinSet::new();
    for _ in 0..200 {
        let rig = Arc::clone(&rig);
        sessions.spawn(async move { open(&rig.reach, &rig.upstream).await });
    }
    assert_eq!(sessions.join_all().await, vec!["token-2"; 200]);
    assert_eq!(source.requests(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_never_accepted_costs_two_handshakes() {
    let source = FakeSource::new(Service::Works);
    let upstream = FakeUpstream::new(&[], KEY_INVALID);
    let rig = entra(&source, &upstream);
    assert_eq!(open(&rig.reach, &rig.upstream).await, "azure_key_invalid");
    assert_eq!(upstream.take_seen(), "token-1 token-2");
    // The renewal was tried a moment ago.
    assert_eq!(open(&rig.reach, &rig.upstream).await, "azure_key_invalid");
    assert_eq!(upstream.take_seen(), "token-2");
    assert_eq!(source.requests(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_missing_role_is_no_reason_to_renew() {
    let source = FakeSource::new(Service::Works);
    let upstream = FakeUpstream::new(&[], NO_ROLE);
    let rig = entra(&source, &upstream);
    assert_eq!(open(&rig.reach, &rig.upstream).await, "azure_rbac_missing");
    assert_eq!(upstream.take_seen(), "token-1");
    assert_eq!(source.requests(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_repeats_the_refused_token_ends_it() {
    let source = FakeSource::new(Service::Repeats);
    let upstream = FakeUpstream::new(&[], KEY_INVALID);
    let rig = entra(&source, &upstream);
    assert_eq!(open(&rig.reach, &rig.upstream).await, "azure_key_invalid");
    assert_eq!(upstream.take_seen(), "token-1");
    assert_eq!(source.requests(), 2);
}

/// Answers one upgrade: 101 to `token-2`, else 401. Returns the authorization that was presented.
async fn answer_upgrade(mut stream: TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    let field = |name: &str| {
        let line = head.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap().trim().to_owned()
    };
    let presented = field("authorization:");
    let reply = if presented == "Bearer token-2" {
        let accept = handshake::accept(&field("sec-websocket-key:"));
        format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
        )
    } else {
        "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n".to_owned()
    };
    stream.write_all(reply.as_bytes()).await.unwrap();
    presented
}

#[tokio::test]
async fn a_renewed_token_goes_over_the_wire() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let source = FakeSource::new(Service::Works);
    let running = run(&source);
    let second = Duration::from_secs(1);
    let timeouts = DialTimeouts {
        dns: second,
        tcp: second,
        tls: second,
        upgrade: 5 * second,
    };
    let reach = Reach {
        dialer: Dialer::new(tls::client_config().unwrap(), timeouts, Vec::new()),
        tokens: running.tokens.clone(),
        keys: Keys::new(Vec::new(), Vec::new()),
        token_wait_max: 5 * second,
    };
    let origin = Origin::parse(&url, &OriginRules::default()).unwrap();
    let target = Upstream::Azure(AzureUpstream {
        credential: Credential::entra(origin, running.cell.clone()),
        base_path: String::new(),
        api: AzureApi::Ga,
        deployment: "voice".into(),
    });
    let upstream = tokio::spawn(async move {
        let mut seen = Vec::new();
        for _ in 0..2 {
            let (stream, _) = listener.accept().await.unwrap();
            seen.push(answer_upgrade(stream).await);
        }
        seen
    });
    let (ask, correlation) = (ask(), Correlation::default());
    let opened = timeout(10 * second, reach.open(&target, &ask, &correlation)).await;
    assert!(opened.unwrap().is_ok());
    assert_eq!(
        upstream.await.unwrap(),
        ["Bearer token-1", "Bearer token-2"]
    );
}

fn keyed(dialer: &Arc<FakeUpstream>, keys: Keys) -> FakeReach {
    Reach {
        dialer: Arc::clone(dialer),
        tokens: Tokens::new(Vec::new()),
        keys,
        token_wait_max: Duration::from_secs(10),
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_key_gives_way_to_the_other_and_that_is_remembered() {
    let cell = KeyCell::new(Secret::new("key-1"), Some(Secret::new("key-2")));
    let target = azure(|origin| Credential::rotating_key(origin, cell.clone()));
    let upstream = FakeUpstream::new(&["key-2"], KEY_INVALID);
    let reach = keyed(&upstream, Keys::new(Vec::new(), Vec::new()));
    assert_eq!(open(&reach, &target).await, "key-2");
    assert_eq!(upstream.take_seen(), "key-1 key-2");
    assert_eq!(open(&reach, &target).await, "key-2");
    assert_eq!(upstream.take_seen(), "key-2");
    // Neither is accepted: two handshakes, and the upstream's own answer.
    upstream.accept(&[]);
    assert_eq!(open(&reach, &target).await, "azure_key_invalid");
    assert_eq!(upstream.take_seen(), "key-2 key-1");
}

#[tokio::test(start_paused = true)]
async fn a_static_key_is_tried_once() {
    let target = azure(|origin| Credential::api_key(origin, Secret::new("key-1")));
    let upstream = FakeUpstream::new(&[], KEY_INVALID);
    let reach = keyed(&upstream, Keys::new(Vec::new(), Vec::new()));
    assert_eq!(open(&reach, &target).await, "azure_key_invalid");
    assert_eq!(upstream.take_seen(), "key-1");
}

#[tokio::test(start_paused = true)]
async fn keys_of_other_providers_rotate_as_well() {
    let cell = KeyCell::new(Secret::new("sk-1"), Some(Secret::new("sk-2")));
    let origin = Origin::parse("https://api.openai.com", &OriginRules::default()).unwrap();
    let target = Upstream::OpenAi(OpenAiUpstream {
        credential: Credential::rotating_key(origin, cell),
        model: None,
    });
    let upstream = FakeUpstream::new(&["sk-2"], OPENAI_INVALID);
    let reach = keyed(&upstream, Keys::new(Vec::new(), Vec::new()));
    assert_eq!(open(&reach, &target).await, "sk-2");
}

/// The first key is regenerated at the upstream, then its file is changed; sessions start all the
/// time. With a second key none is lost; without, none that starts 6 s after the change.
async fn check_rotation(secondary: Option<&str>) -> usize {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("key");
    fs::write(&path, "key-1\n").unwrap();
    let cell = KeyCell::new(Secret::new("key-1"), secondary.map(Secret::new));
    let files = KeyFiles {
        primary: Some(path.clone()),
        secondary: None,
    };
    let keys = Keys::new(vec![(cell.clone(), files)], Vec::new());
    let mut watchers = JoinSet::new();
    keys.drive(&mut watchers);
    let accepted = |first| {
        [Some(first), secondary]
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
    };
    let upstream = FakeUpstream::new(&accepted("key-1"), KEY_INVALID);
    let reach = Arc::new(keyed(&upstream, keys));
    let target = azure(|origin| Credential::rotating_key(origin, cell.clone()));

    let mut sessions = JoinSet::new();
    for tenth in 0..300 {
        if tenth == 50 {
            upstream.accept(&accepted("key-1b"));
        }
        if tenth == 100 {
            fs::write(&path, "key-1b\n").unwrap();
        }
        let (reach, target) = (Arc::clone(&reach), target.clone());
        sessions.spawn(async move { (tenth, open(&reach, &target).await) });
        sleep(Duration::from_millis(100)).await;
    }
    let outcomes = sessions.join_all().await;
    let lost = |&(_, outcome): &&(i32, String)| outcome == "azure_key_invalid";
    let last_lost = outcomes.iter().filter(lost).map(|(tenth, _)| *tenth).max();
    assert!(last_lost < Some(160), "{last_lost:?}");
    outcomes.iter().filter(lost).count()
}

#[tokio::test(start_paused = true)]
async fn no_session_is_lost_in_a_rotation_with_two_keys() {
    assert_eq!(check_rotation(Some("key-2")).await, 0);
    // While the only key is regenerated and its file is not, there is nothing to present.
    assert_eq!(check_rotation(None).await, 50);
}
