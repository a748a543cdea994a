//! Two replicas and one real Redis server.

#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use talkline_auth::{
    ClientLimits, Lease, LeaseRequest, LimitRefusal, LimitStore, Moment, Revocation, Secret,
    SessionRef, StoreError, TokenId, Usage, UseRefusal,
};
use talkline_redis::{OnOutage, RedisStore, Server, Settings};
use talkline_sim::RedisServer;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

mod tls;

/// The server, or nothing where it is not installed and this is not CI.
async fn redis() -> Option<RedisServer> {
    if RedisServer::program().is_none() && std::env::var_os("CI").is_none() {
        eprintln!("skipped: redis-server is not installed");
        return None;
    }
    Some(RedisServer::start(Some("s3cret")).await.unwrap())
}

fn settings(on_outage: OnOutage) -> Settings {
    Settings {
        on_outage,
        timeout: Duration::from_secs(5),
        ..Settings::default()
    }
}

fn store(redis: &RedisServer, settings: Settings) -> RedisStore {
    let server = Server::parse(&Secret::new(redis.url()), None).unwrap();
    RedisStore::new(server, settings)
}

/// Two replicas.
fn pair(redis: &RedisServer, on_outage: OnOutage) -> [RedisStore; 2] {
    [
        store(redis, settings(on_outage)),
        store(redis, settings(on_outage)),
    ]
}

fn now() -> Moment {
    Moment {
        monotonic: Instant::now(),
        wall: SystemTime::now(),
    }
}

fn who<'a>(client: &'a str, session: &'a str) -> SessionRef<'a> {
    SessionRef {
        client,
        session,
        token: None,
    }
}

async fn lease(
    store: &RedisStore,
    client: &str,
    session: &str,
    limits: &ClientLimits,
) -> Result<Lease, LimitRefusal> {
    let request = LeaseRequest {
        who: who(client, session),
        limits,
    };
    store.lease(request, now()).await
}

/// Waits for what is given back in the background.
async fn eventually<T>(mut attempt: impl AsyncFnMut() -> Option<T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), async {
        loop {
            if let Some(value) = attempt().await {
                return value;
            }
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("it happens in time")
}

fn token(last: u8) -> TokenId {
    TokenId::parse(&format!("{last:032x}")).unwrap()
}

const TWO: ClientLimits = ClientLimits {
    sessions_max: Some(2),
    starts_per_minute: None,
    session_duration_max: None,
    frames_per_second: None,
    bytes_per_second: None,
    responses_per_session: None,
    responses_per_day: None,
    tokens_per_session: None,
    tokens_per_day: None,
};

#[tokio::test]
async fn places_are_counted_across_replicas() {
    let Some(redis) = redis().await else { return };
    let [a, b] = pair(&redis, OnOutage::Closed);
    let first = lease(&a, "web", "s1", &TWO).await.unwrap();
    let _second = lease(&b, "web", "s2", &TWO).await.unwrap();
    for replica in [&a, &b] {
        let refusal = lease(replica, "web", "s3", &TWO).await.unwrap_err();
        assert_eq!(refusal, LimitRefusal::Sessions { limit: 2 });
    }
    let _other = lease(&b, "ops", "s4", &TWO).await.unwrap();
    drop(first);
    let _third = eventually(async || lease(&b, "web", "s5", &TWO).await.ok()).await;
}

#[tokio::test]
async fn no_more_than_the_limit_over_a_thousand_starts() {
    let Some(redis) = redis().await else { return };
    let stores = Arc::new(pair(&redis, OnOutage::Closed));
    let limits = ClientLimits {
        sessions_max: Some(10),
        ..ClientLimits::default()
    };
    for round in 0..10 {
        let mut tasks = tokio::task::JoinSet::new();
        for n in 0..100 {
            let stores = Arc::clone(&stores);
            tasks.spawn(async move {
                let session = format!("{round}-{n}");
                lease(&stores[n % 2], &format!("web{round}"), &session, &limits).await
            });
        }
        let leases: Vec<_> = tasks.join_all().await.into_iter().flatten().collect();
        assert_eq!(leases.len(), 10, "round {round}");
    }
}

#[tokio::test]
async fn starts_are_counted_across_replicas() {
    let Some(redis) = redis().await else { return };
    let [a, b] = pair(&redis, OnOutage::Open);
    let limits = ClientLimits {
        starts_per_minute: Some(3),
        ..ClientLimits::default()
    };
    for (n, replica) in [&a, &b, &a].into_iter().enumerate() {
        drop(
            lease(replica, "web", &n.to_string(), &limits)
                .await
                .unwrap(),
        );
    }
    let refusal = lease(&b, "web", "last", &limits).await.unwrap_err();
    let LimitRefusal::Starts {
        limit: 3,
        retry_after,
    } = refusal
    else {
        panic!("{refusal:?}");
    };
    assert!(retry_after <= Duration::from_secs(60) && retry_after > Duration::from_secs(30));
}

#[tokio::test]
async fn a_day_is_spent_across_replicas() {
    let Some(redis) = redis().await else { return };
    let [a, b] = pair(&redis, OnOutage::Closed);
    let limits = ClientLimits {
        tokens_per_day: Some(100),
        ..ClientLimits::default()
    };
    assert_eq!(
        a.spend("web", Usage::response(60), now()).await,
        Ok(Usage {
            responses: 1,
            tokens: 60
        })
    );
    drop(lease(&b, "web", "s1", &limits).await.unwrap());
    let day = b
        .spend("web", Usage::response(u64::MAX), now())
        .await
        .unwrap();
    assert!(day.responses == 2 && day.tokens > 1 << 39, "{day:?}");
    let refusal = lease(&a, "web", "s2", &limits).await.unwrap_err();
    assert_eq!(refusal.code(), "daily_token_budget");
    assert!(refusal.retry_after().unwrap() <= Duration::from_secs(24 * 60 * 60));
    let tomorrow = now().after(Duration::from_secs(24 * 60 * 60));
    let request = LeaseRequest {
        who: who("web", "s3"),
        limits: &limits,
    };
    drop(a.lease(request, tomorrow).await.unwrap());
}

/// Has the server forget all scripts, as after a restart.
async fn forget_scripts(redis: &RedisServer) {
    let url = redis.url();
    let (_, address) = url.rsplit_once('@').unwrap();
    let mut server = TcpStream::connect(address).await.unwrap();
    let ask = b"AUTH s3cret\r\nSCRIPT FLUSH SYNC\r\n";
    server.write_all(ask).await.unwrap();
    let mut answer = [0; 10];
    server.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"+OK\r\n+OK\r\n");
}

#[tokio::test]
async fn a_token_is_used_once_by_all() {
    let Some(redis) = redis().await else { return };
    for round in 0..50 {
        // Those who find neither a connection nor the script are overtaken by those who come after them.
        forget_scripts(&redis).await;
        let stores = Arc::new(pair(&redis, OnOutage::Open));
        let mut tasks = tokio::task::JoinSet::new();
        for n in 0..20 {
            let stores = Arc::clone(&stores);
            tasks.spawn(async move {
                let expires = SystemTime::now() + Duration::from_secs(60);
                stores[n % 2].use_once(&token(round), expires, now()).await
            });
        }
        let answers = tasks.join_all().await;
        let won = answers.iter().filter(|answer| answer.is_ok()).count();
        let lost = answers
            .iter()
            .filter(|answer| **answer == Err(UseRefusal::Used))
            .count();
        assert_eq!((won, lost), (1, 19), "round {round}");
    }
    let [store, _] = pair(&redis, OnOutage::Open);
    let past = SystemTime::now() - Duration::from_secs(1);
    let late = store.use_once(&token(200), past, now()).await;
    assert_eq!(late, Err(UseRefusal::Expired));
}

#[tokio::test]
async fn a_revocation_reaches_every_replica() {
    let Some(redis) = redis().await else { return };
    let [a, b] = pair(&redis, OnOutage::Closed);
    let hour = Duration::from_secs(3600);
    let mine = token(7);
    let holder = SessionRef {
        token: Some(&mine),
        ..who("web", "s1")
    };
    let none = ClientLimits::default();
    for target in [
        Revocation::Token(mine.clone()),
        Revocation::Session("s2".into()),
        Revocation::Client("ops".into()),
    ] {
        a.revoke(target, hour, now()).await.unwrap();
    }
    assert_eq!(b.revoked(holder, now()).await, Ok(true));
    assert_eq!(b.revoked(who("web", "s1"), now()).await, Ok(false));
    assert_eq!(b.revoked(who("web", "s2"), now()).await, Ok(true));
    assert_eq!(
        lease(&b, "ops", "s9", &none).await.unwrap_err(),
        LimitRefusal::Revoked
    );
    let expires = SystemTime::now() + Duration::from_secs(60);
    assert_eq!(
        b.use_once(&mine, expires, now()).await,
        Err(UseRefusal::Revoked)
    );
    // A shorter one does not shorten it.
    a.revoke(
        Revocation::Client("ops".into()),
        Duration::from_millis(1),
        now(),
    )
    .await
    .unwrap();
    assert_eq!(b.revoked(who("ops", "s1"), now()).await, Ok(true));
}

#[tokio::test]
async fn a_replica_that_dies_leaves_nothing_behind() {
    let Some(redis) = redis().await else { return };
    let short = Settings {
        lease_time: Duration::from_millis(300),
        ..settings(OnOutage::Closed)
    };
    let [dead, alive] = [store(&redis, short.clone()), store(&redis, short)];
    let kept = lease(&alive, "web", "s1", &TWO).await.unwrap();
    std::mem::forget(lease(&dead, "web", "s2", &TWO).await.unwrap());
    assert!(lease(&alive, "web", "s3", &TWO).await.is_err());
    // Who renews keeps its place; who does not loses it.
    let _third = eventually(async || {
        alive.renew(&kept, now()).await.unwrap();
        lease(&alive, "web", "s3", &TWO).await.ok()
    })
    .await;
    alive.renew(&kept, now()).await.unwrap();
    assert!(lease(&alive, "web", "s4", &TWO).await.is_err());
}

#[tokio::test]
async fn fail_closed_refuses_and_recovers() {
    let Some(mut redis) = redis().await else {
        return;
    };
    let [a, b] = pair(&redis, OnOutage::Closed);
    let held = lease(&a, "web", "s1", &TWO).await.unwrap();
    redis.kill().await.unwrap();
    let unavailable =
        |refusal: LimitRefusal| matches!(refusal, LimitRefusal::Store(StoreError::Unavailable(_)));
    assert!(unavailable(lease(&a, "web", "s2", &TWO).await.unwrap_err()));
    let expires = SystemTime::now() + Duration::from_secs(60);
    assert!(matches!(
        a.use_once(&token(1), expires, now()).await,
        Err(UseRefusal::Store(_))
    ));
    assert!(
        a.renew(&held, now()).await.is_err(),
        "which the session survives"
    );
    assert!(a.revoked(who("web", "s1"), now()).await.is_err());
    redis.start_again().await.unwrap();
    // The server has forgotten everything; the next renewal brings the session back.
    eventually(async || a.renew(&held, now()).await.ok()).await;
    let _second = eventually(async || lease(&b, "web", "s2", &TWO).await.ok()).await;
    assert_eq!(
        lease(&b, "web", "s3", &TWO).await.unwrap_err(),
        LimitRefusal::Sessions { limit: 2 }
    );
}

#[tokio::test]
async fn fail_open_goes_on_with_what_it_knows() {
    let Some(mut redis) = redis().await else {
        return;
    };
    let [a, b] = pair(&redis, OnOutage::Open);
    let limits = ClientLimits {
        responses_per_day: Some(5),
        ..TWO
    };
    let held = lease(&a, "web", "s1", &limits).await.unwrap();
    let expires = SystemTime::now() + Duration::from_secs(60);
    a.use_once(&token(1), expires, now()).await.unwrap();
    a.spend("web", Usage::response(1), now()).await.unwrap();
    redis.kill().await.unwrap();
    // What happened before is not forgotten by the replica where it happened.
    assert_eq!(
        a.use_once(&token(1), expires, now()).await,
        Err(UseRefusal::Used)
    );
    a.use_once(&token(2), expires, now()).await.unwrap();
    assert_eq!(
        a.spend("web", Usage::response(1), now())
            .await
            .unwrap()
            .responses,
        2
    );
    let second = lease(&a, "web", "s2", &limits).await.unwrap();
    assert_eq!(
        lease(&a, "web", "s3", &limits).await.unwrap_err(),
        LimitRefusal::Sessions { limit: 2 }
    );
    // The other replica knows nothing of them: limits hold for each alone.
    let other = lease(&b, "web", "s4", &limits).await.unwrap();
    assert_eq!(
        a.revoked(who("web", "s1"), now()).await.ok(),
        None,
        "asked again later"
    );
    let told = a
        .revoke(
            Revocation::Session("s1".into()),
            Duration::from_secs(60),
            now(),
        )
        .await;
    assert!(
        told.is_err(),
        "the operator is told that the others have not heard"
    );
    assert_eq!(
        a.revoked(who("web", "s1"), now()).await,
        Ok(true),
        "but it holds here"
    );
    redis.start_again().await.unwrap();
    for (store, lease) in [(&a, &held), (&a, &second), (&b, &other)] {
        eventually(async || store.renew(lease, now()).await.ok()).await;
    }
    // Three, one more than the limit: nobody was cut, and nobody new comes in.
    assert!(lease(&b, "web", "s5", &limits).await.is_err());
}

#[tokio::test]
async fn a_server_that_hangs_costs_no_more_than_the_timeout() {
    let Some(redis) = redis().await else { return };
    let quick = Settings {
        timeout: Duration::from_millis(200),
        ..settings(OnOutage::Closed)
    };
    let store = store(&redis, quick);
    eventually(async || store.ping().await.ok()).await;
    redis.freeze().unwrap();
    let began = Instant::now();
    assert!(lease(&store, "web", "s1", &TWO).await.is_err());
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
    redis.thaw().unwrap();
    let _lease = eventually(async || lease(&store, "web", "s2", &TWO).await.ok()).await;
}

#[tokio::test]
async fn a_dropped_request_gives_its_place_back() {
    let Some(redis) = redis().await else { return };
    let [a, b] = pair(&redis, OnOutage::Closed);
    // The server learns the script from the first.
    drop(lease(&a, "other", "first", &TWO).await.unwrap());
    for n in 0..20 {
        let session = n.to_string();
        let mut taking = Box::pin(lease(&a, "web", &session, &TWO));
        let turn = std::future::poll_fn(|cx| std::task::Poll::Ready(taking.as_mut().poll(cx)));
        assert!(turn.await.is_pending());
        // Every other one is dropped when its answer is there: what is sent behind it has been answered.
        if n % 2 == 0 {
            a.ping().await.unwrap();
        }
        drop(taking);
    }
    let _first = eventually(async || lease(&b, "web", "x", &TWO).await.ok()).await;
    let _second = eventually(async || lease(&b, "web", "y", &TWO).await.ok()).await;
}

#[tokio::test]
async fn a_wrong_password_is_said_and_not_shown() {
    let Some(redis) = redis().await else { return };
    let url = redis.url().replace("s3cret", "CANARY-wrong");
    let server = Server::parse(&Secret::new(url), None).unwrap();
    let store = RedisStore::new(server, settings(OnOutage::Closed));
    let StoreError::Unavailable(text) = store.ping().await.unwrap_err() else {
        panic!("another error");
    };
    assert!(text.contains("authentication"), "{text}");
    assert!(!format!("{text} {store:?}").contains("CANARY"));
}

#[tokio::test]
async fn relays_with_other_prefixes_do_not_meet() {
    let Some(redis) = redis().await else { return };
    let other = Settings {
        prefix: "other".into(),
        ..settings(OnOutage::Closed)
    };
    let [one, two] = [
        store(&redis, settings(OnOutage::Closed)),
        store(&redis, other),
    ];
    let expires = SystemTime::now() + Duration::from_secs(60);
    one.use_once(&token(1), expires, now()).await.unwrap();
    two.use_once(&token(1), expires, now()).await.unwrap();
}
