//! Two replicas and one real Redis server.

use std::{path::Path, time::Duration};

use talkline_sim::{RedisServer, Running};
use tokio::{task::JoinSet, time::timeout};

use crate::kit::{
    CLIENT_KEY, CROWD, DEPLOYMENT, PATIENCE, RawSession, Relay, azure, ended, simulator, talkline,
};

const RING: &str = "CANARY-RING-KEY-9a31-4c7de0852b6f91a3d";
const REDIS_PASSWORD: &str = "CANARY-REDIS-KEY-20c4-77be19d3f5a80641";

struct Fleet {
    _sim: Running,
    redis: RedisServer,
    a: Relay,
    b: Relay,
}

impl Fleet {
    /// Nothing where Redis is not installed and this is not CI.
    async fn start(on_outage: &str) -> Option<Self> {
        if RedisServer::program().is_none() && std::env::var_os("CI").is_none() {
            println!("skipped: redis-server is not installed");
            return None;
        }
        let redis = RedisServer::start(Some(REDIS_PASSWORD)).await.unwrap();
        let sim = simulator().await;
        let configuration = configuration(&sim, on_outage);
        let url = redis.url();
        let variables = [("TALKLINE_REDIS_URL", url.as_str()), ("RING", RING)];
        let a = Relay::start_env(&configuration, &[], &variables).await;
        let b = Relay::start_env(&configuration, &[], &variables).await;
        Some(Self {
            _sim: sim,
            redis,
            a,
            b,
        })
    }

    async fn token(&self) -> String {
        let mut create = talkline(self.a.home.path() as &Path);
        create.args(["token", "create", "--client", "test"]);
        create
            .env("RING", RING)
            .env("TALKLINE_REDIS_URL", self.redis.url());
        let created = ended(create).await;
        assert_eq!(created.code(), Some(0), "{}", created.stderr);
        created.stdout.trim().to_owned()
    }

    async fn stop(self) {
        for relay in [self.a, self.b] {
            let log = relay.log().await;
            assert!(!log.contains("panicked"), "{log}");
            assert!(!log.contains(REDIS_PASSWORD), "{log}");
        }
    }
}

fn configuration(sim: &Running, on_outage: &str) -> String {
    azure(&sim.base_url())
        + CROWD
        + &format!(
            "tokens.keys = [{{ name = \"2026-11\", env = \"RING\" }}]\n\
             clients.access.test.maxSessions = 10\n\
             limits.drainGrace = \"0s\"\n\
             admin.listen = \"127.0.0.1:0\"\n\
             limitStore = {{ kind = \"redis\", onOutage = \"{on_outage}\", leaseTime = \"3s\", timeout = \"5s\" }}\n"
        )
}

async fn open(authority: &str) -> RawSession {
    let target = format!("/v1/realtime?model={DEPLOYMENT}");
    RawSession::open(authority, &target, &format!("api-key: {CLIENT_KEY}\r\n")).await
}

async fn open_with_token(authority: &str, token: &str) -> RawSession {
    let target = format!("/v1/realtime?model={DEPLOYMENT}");
    let protocols =
        format!("Sec-WebSocket-Protocol: realtime, openai-insecure-api-key.{token}\r\n");
    RawSession::open(authority, &target, &protocols).await
}

fn status(session: &RawSession) -> &str {
    session.head.split(' ').nth(1).unwrap_or_default()
}

/// Opens a session as soon as there is one to be had.
async fn eventually_open(authority: &str) -> RawSession {
    timeout(PATIENCE, async {
        loop {
            let session = open(authority).await;
            if status(&session) == "101" {
                return session;
            }
        }
    })
    .await
    .expect("a session in time")
}

#[tokio::test]
async fn a_limit_holds_across_replicas_over_a_thousand_starts() {
    let Some(fleet) = Fleet::start("failClosed").await else {
        return;
    };
    for round in 0..10 {
        let mut starts = JoinSet::new();
        for n in 0..100 {
            let relay = if n % 2 == 0 { &fleet.a } else { &fleet.b };
            let authority = relay.authority().to_owned();
            starts.spawn(async move { open(&authority).await });
        }
        let opened = starts.join_all().await;
        let (talking, refused): (Vec<_>, Vec<_>) = opened
            .into_iter()
            .partition(|session| status(session) == "101");
        assert!(talking.len() <= 10, "round {round}: {}", talking.len());
        // Those of the round before give their places back when the relay has seen them go.
        assert!(round > 0 || !talking.is_empty());
        for session in &refused {
            assert_eq!(status(session), "429", "round {round}: {}", session.head);
        }
        // A place that an earlier round gave back may have come a moment late; now all are.
        let mut held = talking;
        while held.len() < 10 {
            held.push(eventually_open(fleet.b.authority()).await);
        }
        for relay in [&fleet.a, &fleet.b] {
            assert_eq!(
                status(&open(relay.authority()).await),
                "429",
                "round {round}"
            );
        }
    }
    fleet.stop().await;
}

#[tokio::test]
async fn a_token_used_at_one_replica_is_refused_at_the_other() {
    let Some(fleet) = Fleet::start("failClosed").await else {
        return;
    };
    let token = fleet.token().await;
    let first = open_with_token(fleet.a.authority(), &token).await;
    assert_eq!(status(&first), "101", "{}", first.head);
    for relay in [&fleet.b, &fleet.a] {
        let again = open_with_token(relay.authority(), &token).await;
        assert_eq!(status(&again), "401", "{}", again.head);
    }
    let fresh = fleet.token().await;
    let second = open_with_token(fleet.b.authority(), &fresh).await;
    assert_eq!(
        status(&second),
        "101",
        "a ring is all that replicas have to share"
    );
    fleet.stop().await;
}

/// Redis goes and comes back: a talking session is not cut.
async fn outage(on_outage: &str, expected: &str) {
    let Some(mut fleet) = Fleet::start(on_outage).await else {
        return;
    };
    let mut talking = open(fleet.a.authority()).await;
    assert_eq!(status(&talking), "101");
    talking.event().await;
    fleet.redis.kill().await.unwrap();
    let during = open(fleet.b.authority()).await;
    assert_eq!(status(&during), expected, "{}", during.head);
    let page = fleet.b.operators_get("/metrics").await;
    assert!(page.contains("\ntalkline_limit_store_up 0"), "{page}");
    assert!(
        !page.contains("\ntalkline_limit_store_failures_total 0"),
        "{page}"
    );
    fleet.redis.start_again().await.unwrap();
    let _after = eventually_open(fleet.b.authority()).await;
    // With `failOpen` that may still have been the replica's own count.
    timeout(PATIENCE, async {
        loop {
            let page = fleet.b.operators_get("/metrics").await;
            if page.contains("\ntalkline_limit_store_up 1") {
                return;
            }
        }
    })
    .await
    .expect("the store answers again");
    // Longer than a lease: renewals and questions failed meanwhile, and the session is still there.
    tokio::time::sleep(Duration::from_secs(4)).await;
    let update = br#"{"type":"session.update","session":{"type":"realtime"}}"#;
    talking.send(1, update).await;
    loop {
        let event = talking.event().await.json();
        if event["type"] == "session.updated" {
            break;
        }
    }
    fleet.stop().await;
}

#[tokio::test]
async fn redis_killed_and_back_with_fail_closed() {
    outage("failClosed", "503").await;
}

#[tokio::test]
async fn redis_killed_and_back_with_fail_open() {
    outage("failOpen", "101").await;
}
