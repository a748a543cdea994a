//! Counts that hold however many ask at once.

use std::{
    future::Future,
    pin::pin,
    sync::Barrier,
    task::{Context, Poll, Waker},
    thread,
};

use super::*;
use crate::{ClientLimits, token::tests::start};

/// The answer of a future that is ready at once.
fn now_or_never<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => answer,
        Poll::Pending => panic!("the memory store never waits"),
    }
}

fn who<'a>(client: &'a str, session: &'a str) -> SessionRef<'a> {
    SessionRef {
        client,
        session,
        token: None,
    }
}

fn lease(
    store: &MemoryStore,
    client: &str,
    limits: &ClientLimits,
    now: Moment,
) -> Result<Lease, LimitRefusal> {
    let request = LeaseRequest {
        who: who(client, "s-1"),
        limits,
    };
    now_or_never(store.lease(request, now))
}

fn sessions_max(most: u32) -> ClientLimits {
    ClientLimits {
        sessions_max: Some(most),
        ..ClientLimits::default()
    }
}

fn token(number: u32) -> TokenId {
    TokenId::parse(&format!("{number:032x}")).unwrap()
}

/// A thousand times, a hundred clients ask for two places at the same moment.
#[test]
fn a_hundred_at_once_for_two_places() {
    const ROUNDS: usize = 1_000;
    const ASKING: usize = 100;
    let store = MemoryStore::default();
    let (limits, now) = (sessions_max(2), start());
    let barrier = Barrier::new(ASKING);
    let granted: Vec<Mutex<Vec<Lease>>> = (0..ROUNDS).map(|_| Mutex::default()).collect();
    thread::scope(|scope| {
        for _ in 0..ASKING {
            scope.spawn(|| {
                for round in &granted {
                    barrier.wait();
                    if let Ok(lease) = lease(&store, "web", &limits, now) {
                        round.lock().unwrap().push(lease);
                    }
                    assert!(store.sessions("web") <= 2);
                    // The last to come here gives the places of this round back.
                    if barrier.wait().is_leader() {
                        let leases = std::mem::take(&mut *round.lock().unwrap());
                        assert_eq!(leases.len(), 2);
                        drop(leases);
                        assert_eq!(store.sessions("web"), 0);
                    }
                }
            });
        }
    });
    assert_eq!(store.sessions("web"), 0);
}

/// A thousand times, fifty present the same token at the same moment.
#[test]
fn a_token_is_used_once() {
    const ROUNDS: u32 = 1_000;
    const ASKING: usize = 50;
    let store = MemoryStore::default();
    let now = start();
    let expires = now.wall + Duration::from_secs(60);
    let barrier = Barrier::new(ASKING);
    let won: Vec<Mutex<usize>> = (0..ROUNDS).map(|_| Mutex::default()).collect();
    thread::scope(|scope| {
        for _ in 0..ASKING {
            scope.spawn(|| {
                for (round, won) in (0..).zip(&won) {
                    barrier.wait();
                    match now_or_never(store.use_once(&token(round), expires, now)) {
                        Ok(()) => *won.lock().unwrap() += 1,
                        Err(refusal) => assert_eq!(refusal, UseRefusal::Used),
                    }
                }
            });
        }
    });
    assert!(won.iter().all(|won| *won.lock().unwrap() == 1));
}

#[test]
fn a_place_comes_back_whenever_the_lease_goes() {
    let (store, now, limits) = (MemoryStore::default(), start(), sessions_max(1));
    let first = lease(&store, "web", &limits, now).unwrap();
    assert_eq!(
        lease(&store, "web", &limits, now).unwrap_err(),
        LimitRefusal::Sessions { limit: 1 }
    );
    let other = lease(&store, "ops", &limits, now).unwrap();
    drop(first);
    // A panic unwinds through the lease like any other way out.
    let second = lease(&store, "web", &limits, now).unwrap();
    let unwound = thread::spawn(move || {
        let _second = second;
        std::panic::resume_unwind(Box::new("a session panicked"));
    });
    assert!(unwound.join().is_err());
    assert_eq!(store.sessions("web"), 0);
    // A request that is given up before it is polled took nothing.
    let request = LeaseRequest {
        who: who("web", "s"),
        limits: &limits,
    };
    drop(store.lease(request, now));
    assert_eq!(store.sessions("web"), 0);
    drop(other);
    assert_eq!(store.sessions("ops"), 0);
}

#[test]
fn starts_in_any_minute() {
    let limits = ClientLimits {
        starts_per_minute: Some(3),
        ..ClientLimits::default()
    };
    let (store, start) = (MemoryStore::default(), start());
    let check = |millis: u64, expected: Result<(), f64>| {
        let now = start.after(Duration::from_millis(millis));
        let found = lease(&store, "web", &limits, now).map(drop);
        let found = found.map_err(|refusal| match refusal {
            LimitRefusal::Starts { retry_after, .. } => retry_after.as_secs_f64(),
            other => panic!("{other:?}"),
        });
        assert_eq!(found, expected, "{millis}");
    };
    check(0, Ok(()));
    check(500, Ok(()));
    check(30_000, Ok(()));
    check(30_000, Err(31.0));
    check(59_000, Err(2.0));
    // Never sooner than a minute after, and at most a second later.
    check(60_500, Err(0.5));
    check(61_000, Ok(()));
    check(61_000, Ok(()));
    check(61_000, Err(30.0));
    check(91_000, Ok(()));
    check(91_999, Err(30.001));
    // After a long silence everything is forgotten.
    check(10_000_000, Ok(()));
    check(10_000_000, Ok(()));
    check(10_000_000, Ok(()));
    check(10_000_000, Err(61.0));
}

#[test]
fn a_refused_start_is_no_start() {
    let limits = ClientLimits {
        starts_per_minute: Some(2),
        sessions_max: Some(1),
        ..ClientLimits::default()
    };
    let (store, now) = (MemoryStore::default(), start());
    let first = lease(&store, "web", &limits, now).unwrap();
    for _ in 0..10 {
        let refused = lease(&store, "web", &limits, now).unwrap_err();
        assert_eq!(refused, LimitRefusal::Sessions { limit: 1 });
    }
    drop(first);
    drop(lease(&store, "web", &limits, now).unwrap());
    let refused = lease(&store, "web", &limits, now).unwrap_err();
    assert_eq!(refused.code(), "client_starts_per_minute");
}

#[test]
fn days_are_of_utc() {
    let limits = ClientLimits {
        tokens_per_day: Some(1_000),
        ..ClientLimits::default()
    };
    let (store, start) = (MemoryStore::default(), start());
    let spend = |tokens: u64, now: Moment| {
        now_or_never(store.spend("web", Usage::response(tokens), now)).unwrap()
    };
    assert_eq!(spend(600, start).tokens, 600);
    assert!(lease(&store, "web", &limits, start).is_ok());
    let day = spend(600, start);
    assert_eq!((day.tokens, day.responses), (1_200, 2));
    assert_eq!(
        Exhausted::day(&limits, day),
        Some(Exhausted::DayTokens(1_000))
    );
    // The tests' clock starts at 08:00 UTC.
    let refused = lease(&store, "web", &limits, start).unwrap_err();
    assert_eq!(refused.code(), "daily_token_budget");
    assert_eq!(refused.retry_after(), Some(Duration::from_secs(16 * 3600)));
    assert!(lease(&store, "ops", &limits, start).is_ok());
    let evening = start.after(Duration::from_secs(16 * 3600 - 1));
    assert!(lease(&store, "web", &limits, evening).is_err());
    let midnight = start.after(Duration::from_secs(16 * 3600));
    assert!(lease(&store, "web", &limits, midnight).is_ok());
    assert_eq!(store.used_today("web", midnight), Usage::default());
    assert_eq!(spend(1, midnight).tokens, 1);
}

#[test]
fn what_is_revoked_stays_so() {
    let (store, now, limits) = (MemoryStore::default(), start(), ClientLimits::default());
    let hour = Duration::from_secs(3600);
    let is_revoked = |client: &str, session: &str, id: Option<&TokenId>, now: Moment| {
        let session = SessionRef {
            token: id,
            ..who(client, session)
        };
        now_or_never(store.revoked(session, now)).unwrap()
    };
    let revoke = |target: Revocation| now_or_never(store.revoke(target, hour, now)).unwrap();
    let (one, two) = (token(1), token(2));
    assert!(!is_revoked("web", "s-1", Some(&one), now));
    revoke(Revocation::Token(one.clone()));
    assert!(is_revoked("web", "s-1", Some(&one), now));
    assert!(!is_revoked("web", "s-1", Some(&two), now) && !is_revoked("web", "s-1", None, now));
    revoke(Revocation::Session("s-2".into()));
    assert!(is_revoked("web", "s-2", None, now) && !is_revoked("web", "s-1", None, now));
    revoke(Revocation::Client("ops".into()));
    assert!(is_revoked("ops", "s-9", None, now));
    assert_eq!(
        lease(&store, "ops", &limits, now).unwrap_err(),
        LimitRefusal::Revoked
    );
    assert!(lease(&store, "web", &limits, now).is_ok());
    // Names do not cross kinds.
    revoke(Revocation::Session("web".into()));
    assert!(!is_revoked("web", "s-1", None, now));
    let expires = now.wall + hour;
    let refused = now_or_never(store.use_once(&one, expires, now)).unwrap_err();
    assert_eq!(refused, UseRefusal::Revoked);
    let over = now.after(hour);
    assert!(!is_revoked("ops", "s-9", None, over) && lease(&store, "ops", &limits, over).is_ok());
    // Nothing is kept longer than the longest session.
    now_or_never(store.revoke(Revocation::Client("x".into()), Duration::MAX, now)).unwrap();
    assert!(is_revoked(
        "x",
        "s",
        None,
        now.after(REVOCATION_MAX - Duration::from_secs(1))
    ));
    assert!(!is_revoked("x", "s", None, now.after(REVOCATION_MAX)));
}

#[test]
fn every_table_is_bounded_and_fails_closed() {
    let bounds = MemoryBounds {
        clients_max: 3,
        tokens_max: 3,
        revocations_max: 3,
    };
    let (store, now, limits) = (MemoryStore::new(bounds), start(), sessions_max(5));
    let minute = Duration::from_secs(60);

    let use_once = |number: u32, life: Duration, now: Moment| {
        now_or_never(store.use_once(&token(number), now.wall + life, now))
    };
    (0..3).for_each(|number| use_once(number, minute, now).unwrap());
    assert_eq!(
        use_once(3, minute, now),
        Err(StoreError::Full("used tokens").into())
    );
    assert_eq!(use_once(0, minute, now), Err(UseRefusal::Used));
    assert_eq!(use_once(3, minute, now.after(minute)), Ok(()));
    assert_eq!(use_once(9, Duration::ZERO, now), Err(UseRefusal::Expired));

    let revoke = |name: &str, now: Moment| {
        now_or_never(store.revoke(Revocation::Client(name.into()), minute, now))
    };
    for name in ["a", "b", "c", "a"] {
        revoke(name, now).unwrap();
    }
    assert_eq!(revoke("d", now), Err(StoreError::Full("revocations")));
    revoke("d", now.after(minute)).unwrap();

    let held: Vec<Lease> = ["k", "l", "m"]
        .iter()
        .map(|client| lease(&store, client, &limits, now).unwrap())
        .collect();
    let refused = lease(&store, "n", &limits, now).unwrap_err();
    assert_eq!(
        (refused.status(), refused.code()),
        (503, "limit_store_unavailable")
    );
    drop(held);
    // Whoever used something today is remembered; the others make room.
    now_or_never(store.spend("k", Usage::response(1), now)).unwrap();
    let later = now.after(Duration::from_secs(2));
    let _n = lease(&store, "n", &limits, later).unwrap();
    assert_eq!(store.used_today("k", later), Usage::response(1));
}
