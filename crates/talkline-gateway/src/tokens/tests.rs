//! Drivers and waiting sessions in paused time.

use std::sync::atomic::{AtomicU32, Ordering};

use talkline_auth::{Secret, TokenFuture};
use tokio::{task::yield_now, time::sleep};

use super::*;

const HOUR: Duration = Duration::from_secs(3600);
const BUDGET: Duration = Duration::from_secs(10);

/// What the fake identity service does.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Service {
    /// Hands out `token-<number of the request>` for an hour.
    Works,
    /// Hands out the same token each time.
    Repeats,
    /// Answers with an error after this time.
    Fails {
        after: Duration,
        detail: &'static str,
        permanent: bool,
    },
    /// Takes the request and never answers.
    Hangs,
    /// Has a bug.
    Panics,
}

#[derive(Debug)]
pub(crate) struct FakeSource {
    service: Mutex<Service>,
    latency: Duration,
    requests: AtomicU32,
}

impl FakeSource {
    pub(crate) fn new(service: Service) -> Arc<Self> {
        Self::slow(service, Duration::from_millis(50))
    }

    fn slow(service: Service, latency: Duration) -> Arc<Self> {
        Arc::new(Self {
            service: Mutex::new(service),
            latency,
            requests: AtomicU32::new(0),
        })
    }

    pub(crate) fn becomes(&self, service: Service) {
        *self.service.lock().unwrap() = service;
    }

    pub(crate) fn requests(&self) -> u32 {
        self.requests.load(Ordering::SeqCst)
    }
}

impl TokenSource for FakeSource {
    fn name(&self) -> &'static str {
        "fake"
    }

    fn fetch(&self) -> TokenFuture<'_> {
        Box::pin(async {
            let number = self.requests.fetch_add(1, Ordering::SeqCst) + 1;
            let service = *self.service.lock().unwrap();
            let token = |secret: String| FetchedToken {
                secret: Secret::new(secret),
                time_to_live: HOUR,
                refresh_in: None,
            };
            match service {
                Service::Works => {
                    sleep(self.latency).await;
                    Ok(token(format!("token-{number}")))
                }
                Service::Repeats => Ok(token("token-1".to_owned())),
                Service::Fails {
                    after,
                    detail,
                    permanent,
                } => {
                    sleep(after).await;
                    Err(TokenError {
                        permanent,
                        ..TokenError::new("fake", "down", detail)
                    })
                }
                Service::Hangs => std::future::pending().await,
                Service::Panics => panic!("a bug in a source"),
            }
        })
    }
}

/// Running drivers, stopped when dropped.
pub(crate) struct Running {
    pub(crate) tokens: Tokens,
    pub(crate) cell: TokenCell,
    _tasks: JoinSet<()>,
}

pub(crate) fn run(source: &Arc<FakeSource>) -> Running {
    let cell = TokenCell::new("fake");
    let source = Arc::clone(source) as Arc<dyn TokenSource>;
    let tokens = Tokens::new(vec![(cell.clone(), source)]);
    let mut tasks = JoinSet::new();
    tokens.drive(&mut tasks);
    Running {
        tokens,
        cell,
        _tasks: tasks,
    }
}

impl Running {
    /// A session's wait: the token, or the reason, and how long it took.
    async fn start_session(&self) -> (Result<String, String>, Duration) {
        let started = Instant::now();
        let found = self.tokens.usable(&self.cell, BUDGET).await;
        let found = found
            .map(|token| token.secret().expose().to_owned())
            .map_err(|error| error.detail.to_string());
        (found, started.elapsed())
    }
}

/// Starts a session a second through an outage of two hours that begins ten minutes after a token
/// of one hour came.
async fn check_outage(outage: Service, recovers_within: Duration) {
    let source = FakeSource::new(Service::Works);
    let running = run(&source);
    let (first, _) = running.start_session().await;
    assert_eq!(first, Ok("token-1".to_owned()));
    let issued = Instant::now();
    sleep(HOUR / 6).await;

    source.becomes(outage);
    let begun = Instant::now();
    let mut refused = 0;
    while begun.elapsed() < 2 * HOUR {
        let age = issued.elapsed();
        let (found, took) = running.start_session().await;
        if age < HOUR - Duration::from_secs(60) {
            assert_eq!(found, Ok("token-1".to_owned()), "{outage:?} at {age:?}");
            assert_eq!(took, Duration::ZERO, "{outage:?} at {age:?}");
        } else {
            assert!(found.is_err(), "{outage:?} at {age:?}: {found:?}");
            assert!(took < Duration::from_secs(1), "{outage:?}: {took:?}");
            assert!(!running.tokens.all_usable(), "{outage:?} at {age:?}");
            refused += 1;
        }
        sleep(Duration::from_secs(1)).await;
    }
    assert!(refused > 2000, "{outage:?}: {refused}");
    // An attempt a second while sessions come, and no more than that.
    assert!(
        source.requests() < 8000,
        "{outage:?}: {}",
        source.requests()
    );

    source.becomes(Service::Works);
    let back = Instant::now();
    while running.start_session().await.0.is_err() {
        sleep(Duration::from_millis(100)).await;
    }
    let took = back.elapsed();
    assert!(
        took <= recovers_within,
        "{outage:?}: recovered after {took:?}"
    );
    assert!(running.tokens.all_usable());
}

fn fails(after_ms: u64, detail: &'static str, permanent: bool) -> Service {
    Service::Fails {
        after: Duration::from_millis(after_ms),
        detail,
        permanent,
    }
}

#[tokio::test(start_paused = true)]
async fn no_session_fails_in_an_outage_while_the_token_is_valid() {
    let soon = Duration::from_secs(6);
    check_outage(fails(0, "connection refused", false), soon).await;
    check_outage(fails(2_000, "connecting took too long", false), soon).await;
    check_outage(fails(20, "HTTP 404", true), soon).await;
    check_outage(fails(20, "HTTP 410", false), soon).await;
    check_outage(fails(20, "HTTP 429", false), soon).await;
    check_outage(fails(20, "HTTP 500", false), soon).await;
    check_outage(fails(20, "an HTML page", true), soon).await;
    // What hangs when the service comes back goes on hanging until its attempt is given up; the
    // same for a source that obeys `Retry-After: 86400`.
    let after_a_hang = Duration::from_secs(17);
    check_outage(Service::Hangs, after_a_hang).await;
    check_outage(fails(86_400_000, "HTTP 429", false), after_a_hang).await;
    check_outage(Service::Panics, soon).await;
}

/// The first session of a relay whose identity service never worked.
async fn check_cold(service: Service, expected: &str, within: Duration) {
    let running = run(&FakeSource::new(service));
    let (found, took) = running.start_session().await;
    assert_eq!(found, Err(expected.to_owned()));
    assert!(took <= within, "{service:?}: {took:?}");
    let (found, took) = running.start_session().await;
    assert_eq!(found, Err(expected.to_owned()));
    assert!(took <= within, "{service:?}: {took:?}");
    assert!(!running.tokens.all_usable());
}

#[tokio::test(start_paused = true)]
async fn the_first_failure_is_told_at_once() {
    let at_once = Duration::from_millis(100);
    check_cold(fails(0, "refused", false), "refused", at_once).await;
    check_cold(fails(20, "HTTP 400", true), "HTTP 400", at_once).await;
    check_cold(Service::Panics, "the source panicked", at_once).await;
}

#[tokio::test(start_paused = true)]
async fn a_session_waits_no_longer_than_its_budget() {
    let running = run(&FakeSource::new(Service::Hangs));
    let (found, took) = running.start_session().await;
    assert_eq!(found, Err("no token has come yet".to_owned()));
    assert_eq!(took, BUDGET);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_hangs_is_given_up() {
    let source = FakeSource::new(Service::Hangs);
    let running = run(&source);
    sleep(Duration::from_millis(15_500)).await;
    let (found, took) = running.start_session().await;
    assert_eq!(found, Err("no answer within 15 seconds".to_owned()));
    assert_eq!(took, Duration::ZERO);
    source.becomes(Service::Works);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(running.start_session().await.0, Ok("token-2".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_thousand_sessions_share_one_attempt() {
    for (service, expected) in [
        (Service::Works, Ok("token-1".to_owned())),
        (fails(50, "HTTP 500", false), Err("HTTP 500".to_owned())),
    ] {
        let source = FakeSource::new(service);
        let running = Arc::new(run(&source));
        let mut sessions = JoinSet::new();
        for _ in 0..1000 {
            let running = Arc::clone(&running);
            sessions.spawn(async move { running.start_session().await });
        }
        while let Some(session) = sessions.join_next().await {
            let (found, took) = session.unwrap();
            assert_eq!(found, expected);
            assert!(took <= Duration::from_millis(51), "{took:?}");
        }
        assert_eq!(source.requests(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_that_goes_away_takes_nothing_with_it() {
    let source = FakeSource::slow(Service::Works, Duration::from_secs(2));
    let running = Arc::new(run(&source));
    let waiting = {
        let running = Arc::clone(&running);
        tokio::spawn(async move { running.start_session().await })
    };
    sleep(Duration::from_secs(1)).await;
    waiting.abort();
    assert!(waiting.await.unwrap_err().is_cancelled());
    let (found, took) = running.start_session().await;
    assert_eq!(found, Ok("token-1".to_owned()));
    assert_eq!(took, Duration::from_secs(1));
    assert_eq!(source.requests(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_slow_renewal_holds_nobody_up() {
    let source = FakeSource::slow(Service::Works, Duration::from_secs(14));
    let running = run(&source);
    assert!(running.tokens.usable(&running.cell, HOUR).await.is_ok());
    while source.requests() < 2 {
        sleep(Duration::from_secs(1)).await;
    }
    for _ in 0..10 {
        let (found, took) = running.start_session().await;
        assert_eq!((found, took), (Ok("token-1".to_owned()), Duration::ZERO));
        sleep(Duration::from_secs(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_day_takes_few_requests() {
    let source = FakeSource::new(Service::Works);
    let running = run(&source);
    sleep(24 * HOUR).await;
    assert!(running.tokens.all_usable());
    // At 70 % of an hour, up to a tenth earlier.
    let requests = source.requests();
    assert!((34..=39).contains(&requests), "{requests}");
}

#[tokio::test(start_paused = true)]
async fn sessions_with_the_same_refused_token_share_its_renewal() {
    let source = FakeSource::new(Service::Works);
    let running = Arc::new(run(&source));
    running.start_session().await.0.unwrap();
    let mut sessions = JoinSet::new();
    for _ in 0..200 {
        let running = Arc::clone(&running);
        sessions.spawn(async move { running.tokens.replaced(&running.cell, 1, BUDGET).await });
    }
    let replaced = sessions.join_all().await;
    assert_eq!(replaced, vec![true; 200]);
    assert_eq!(source.requests(), 2);
    assert_eq!(running.start_session().await.0, Ok("token-2".to_owned()));
    // The renewed one is refused as well: not again before half a minute is over.
    assert!(!running.tokens.replaced(&running.cell, 2, BUDGET).await);
    assert_eq!(source.requests(), 2);
    sleep(Duration::from_secs(30)).await;
    assert!(running.tokens.replaced(&running.cell, 2, BUDGET).await);
    assert_eq!(source.requests(), 3);
}

#[tokio::test(start_paused = true)]
async fn the_same_token_again_replaces_nothing() {
    let source = FakeSource::new(Service::Repeats);
    let running = run(&source);
    running.start_session().await.0.unwrap();
    assert!(!running.tokens.replaced(&running.cell, 1, BUDGET).await);
    assert_eq!(source.requests(), 2);
    assert!(running.tokens.all_usable());
}

#[tokio::test(start_paused = true)]
async fn a_renewal_that_fails_leaves_the_token_in_use() {
    let source = FakeSource::new(Service::Works);
    let running = run(&source);
    running.start_session().await.0.unwrap();
    source.becomes(fails(0, "HTTP 500", false));
    assert!(!running.tokens.replaced(&running.cell, 1, BUDGET).await);
    assert_eq!(running.start_session().await.0, Ok("token-1".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn an_expired_token_is_taken_back_without_anybody_asking() {
    let source = FakeSource::new(Service::Works);
    let running = run(&source);
    running.start_session().await.0.unwrap();
    source.becomes(fails(0, "HTTP 500", false));
    sleep(HOUR - Duration::from_secs(61)).await;
    assert!(running.cell.current().is_ok());
    sleep(Duration::from_secs(2)).await;
    let reason = running.cell.current().unwrap_err();
    assert_eq!(&*reason.detail, "HTTP 500");
}

#[tokio::test(start_paused = true)]
async fn a_cell_that_nothing_fills_is_told_at_once() {
    let running = run(&FakeSource::new(Service::Works));
    let orphan = TokenCell::new("orphan");
    assert!(!running.tokens.know(&orphan));
    assert!(running.tokens.usable(&orphan, BUDGET).await.is_err());
    assert!(!running.tokens.replaced(&orphan, 1, BUDGET).await);
}

#[tokio::test(start_paused = true)]
async fn dropping_the_tasks_ends_the_attempts() {
    let source = FakeSource::new(Service::Hangs);
    let running = run(&source);
    while source.requests() == 0 {
        yield_now().await;
    }
    drop(running);
    yield_now().await;
    yield_now().await;
    assert_eq!(Arc::strong_count(&source), 1);
}
