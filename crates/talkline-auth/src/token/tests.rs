//! The life of a token, on clocks of the tests' own.

mod schedules;

use std::time::{Duration, Instant, SystemTime};

use super::*;

/// Where the tests' clocks begin.
#[expect(
    clippy::disallowed_methods,
    reason = "a test needs some instant to count from"
)]
pub(crate) fn start() -> Moment {
    Moment {
        monotonic: Instant::now(),
        wall: SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000),
    }
}

const NO_JITTER: u16 = 0;
const FULL_JITTER: u16 = u16::MAX;

/// A state and its clocks, with a word for everything that can happen to it.
struct Life {
    state: TokenState,
    now: Moment,
    start: Moment,
    jitter: Jitter,
}

impl Life {
    fn new(jitter: u16) -> Self {
        let start = start();
        Self {
            state: TokenState::new(TokenRules::default(), "test", start),
            now: start,
            start,
            jitter: Jitter::from_bits(jitter),
        }
    }

    fn with_token(secret: &str, seconds: u64) -> Self {
        let mut life = Self::new(NO_JITTER);
        life.fetch();
        life.succeed(secret, seconds, None);
        life
    }

    fn pass(&mut self, seconds: f64) {
        self.now = self.now.after(Duration::from_secs_f64(seconds));
    }

    /// Lets the time of the next attempt come, and begins it.
    fn fetch(&mut self) {
        for _ in 0..100_000 {
            match self.state.poll(self.now) {
                Step::Fetch { .. } => return,
                Step::Wait { until } => {
                    assert!(until > self.now.monotonic, "a wait that does not wait");
                    self.now = self.now.after(until - self.now.monotonic);
                }
            }
        }
        panic!("no attempt is ever made");
    }

    fn succeed(&mut self, secret: &str, seconds: u64, refresh_in: Option<u64>) {
        let fetched = FetchedToken {
            secret: Secret::new(secret),
            time_to_live: Duration::from_secs(seconds),
            refresh_in: refresh_in.map(Duration::from_secs),
        };
        self.state.succeed(fetched, self.now, self.jitter);
    }

    fn fail(&mut self, permanent: bool) {
        let error = TokenError {
            permanent,
            ..TokenError::new("test", "down", "down")
        };
        self.state.fail(error, self.now, self.jitter);
    }

    fn elapsed(&self) -> f64 {
        (self.now.monotonic - self.start.monotonic).as_secs_f64()
    }

    fn demand(&mut self) -> String {
        match self.state.demand(self.now) {
            Demand::Serve(token) => format!("serve {}", token.secret().expose()),
            Demand::Refuse(error) => format!("refuse: {}", error.detail),
            Demand::Wait { patience: None } => "wait".to_owned(),
            Demand::Wait {
                patience: Some((patience, error)),
            } => format!("wait {patience:?}: {}", error.detail),
        }
    }

    fn shown(&self) -> String {
        match self.state.token(self.now) {
            Ok(token) => format!("{} #{}", token.secret().expose(), token.generation()),
            Err(error) => error.detail.to_string(),
        }
    }
}

#[test]
fn the_first_attempt_is_made_at_once() {
    let mut life = Life::new(NO_JITTER);
    assert_eq!(life.shown(), "no token has come yet");
    let step = life.state.poll(life.now);
    let deadline = life.now.after(Duration::from_secs(15)).monotonic;
    assert_eq!(step, Step::Fetch { deadline });
    assert_eq!(life.demand(), "wait");
    assert!(matches!(life.state.poll(life.now), Step::Wait { .. }));
}

/// Seconds from a success to the next attempt.
#[track_caller]
fn check_refresh(seconds: u64, refresh_in: Option<u64>, jitter: u16, expected: f64) {
    let mut life = Life::new(jitter);
    life.fetch();
    life.succeed("t", seconds, refresh_in);
    life.fetch();
    let found = life.elapsed();
    assert!(
        (found - expected).abs() < 0.001,
        "a life of {seconds} s, refresh_in {refresh_in:?}: {found} s"
    );
}

#[test]
fn tokens_are_renewed_in_time() {
    const HOUR: u64 = 3600;
    check_refresh(HOUR, None, NO_JITTER, 2520.0);
    check_refresh(HOUR, None, FULL_JITTER, 2268.0);
    check_refresh(HOUR, Some(1800), NO_JITTER, 1800.0);
    check_refresh(HOUR, Some(1800), FULL_JITTER, 1620.0);
    // Managed identity: a day, renewed at half of it.
    check_refresh(24 * HOUR, Some(12 * HOUR), NO_JITTER, 43200.0);
    check_refresh(24 * HOUR, None, NO_JITTER, 43200.0);
    // A service that asks for a renewal after the end of the token, or all the time.
    check_refresh(HOUR, Some(7200), NO_JITTER, 2520.0);
    check_refresh(HOUR, Some(0), NO_JITTER, 30.0);
    // Short lives: never sooner than 5 s, never later than the token serves if that allows it.
    check_refresh(60, None, NO_JITTER, 42.0);
    check_refresh(30, None, NO_JITTER, 27.0);
    check_refresh(5, None, NO_JITTER, 5.0);
    check_refresh(1, None, NO_JITTER, 5.0);
    check_refresh(0, None, NO_JITTER, 5.0);
    // Lives that no clock can count.
    check_refresh(u64::MAX, None, NO_JITTER, 43200.0);
    check_refresh(u64::MAX, Some(u64::MAX - 1), FULL_JITTER, 38880.0);
}

#[test]
fn a_token_serves_until_shortly_before_its_expiry() {
    let check = |seconds: u64, serves: f64| {
        let mut life = Life::with_token("t", seconds);
        life.pass(serves - 0.001);
        assert_eq!(life.shown(), "t #1", "a life of {seconds} s");
        life.pass(0.002);
        assert_eq!(
            life.shown(),
            "the token has expired and its renewal has not ended yet",
            "a life of {seconds} s"
        );
    };
    check(3600, 3540.0);
    check(600, 540.0);
    check(60, 54.0);
    check(5, 4.5);
}

#[test]
fn a_token_that_came_expired_is_a_failure() {
    let life = Life::with_token("t", 0);
    assert_eq!(
        life.shown(),
        "the token had expired when it came; is the clock right?"
    );
    assert_eq!(life.state.failures(), 1);
}

#[test]
fn either_clock_ends_a_token() {
    let hour = Duration::from_secs(3600);
    let mut suspended = Life::with_token("t", 3600);
    suspended.now.wall += hour;
    assert!(suspended.state.token(suspended.now).is_err());
    assert!(matches!(
        suspended.state.poll(suspended.now),
        Step::Wait { .. }
    ));
    // The monotonic clock bounds how often is asked; the wall clock says that it is needed.
    suspended.now.monotonic += Duration::from_secs(5);
    assert!(matches!(
        suspended.state.poll(suspended.now),
        Step::Fetch { .. }
    ));

    let mut set_back = Life::with_token("t", 3600);
    set_back.now.monotonic += hour;
    set_back.now.wall -= hour;
    assert!(set_back.state.token(set_back.now).is_err());
    assert!(matches!(
        set_back.state.poll(set_back.now),
        Step::Fetch { .. }
    ));

    let mut ten_years_on = Life::with_token("t", 3600);
    ten_years_on.pass(10.0);
    ten_years_on.now.wall += hour * 24 * 3650;
    ten_years_on.fetch();
    ten_years_on.succeed("u", 3600, None);
    ten_years_on.pass(3000.0);
    assert_eq!(ten_years_on.shown(), "u #2");
}

/// Seconds between failures, until they stop growing.
#[track_caller]
fn check_pauses(permanent: bool, jitter: u16, expected: &[f64]) {
    let mut life = Life::new(jitter);
    life.fetch();
    for (failures, pause) in expected.iter().enumerate() {
        life.fail(permanent);
        let before = life.elapsed();
        life.fetch();
        let found = life.elapsed() - before;
        assert!(
            (found - pause).abs() < 0.001,
            "pause {failures}: {found} s for {pause} s"
        );
    }
}

#[test]
fn failures_are_repeated_with_growing_pauses() {
    check_pauses(false, NO_JITTER, &[1.0, 2.0, 4.0, 8.0, 16.0, 24.0, 24.0]);
    check_pauses(
        false,
        FULL_JITTER,
        &[1.25, 2.5, 5.0, 10.0, 20.0, 30.0, 30.0],
    );
    check_pauses(true, NO_JITTER, &[30.0, 30.0]);
    check_pauses(true, FULL_JITTER, &[30.0, 30.0]);
    let mut life = Life::new(FULL_JITTER);
    for _ in 0..10_000 {
        life.fetch();
        life.fail(false);
    }
}

#[test]
fn a_failure_answers_callers_for_a_second() {
    let mut life = Life::new(NO_JITTER);
    life.fetch();
    life.fail(false);
    life.pass(0.9);
    assert_eq!(life.demand(), "refuse: down");
    life.pass(0.1);
    assert_eq!(life.demand(), "wait 500ms: down");
    // Later failures have longer pauses, which a caller cuts short.
    for _ in 0..6 {
        life.fetch();
        life.fail(false);
    }
    life.pass(1.0);
    assert_eq!(life.demand(), "wait 500ms: down");
    assert!(matches!(life.state.poll(life.now), Step::Fetch { .. }));
    assert_eq!(life.demand(), "wait 500ms: down");
    life.succeed("t", 3600, None);
    assert_eq!(life.demand(), "serve t");
}

#[test]
fn a_permanent_failure_answers_callers_for_five_seconds() {
    let mut life = Life::new(NO_JITTER);
    life.fetch();
    life.fail(true);
    life.pass(4.9);
    assert_eq!(life.demand(), "refuse: down");
    life.pass(0.1);
    assert_eq!(life.demand(), "wait 500ms: down");
    assert!(matches!(life.state.poll(life.now), Step::Fetch { .. }));
}

#[test]
fn an_outage_does_not_end_a_token() {
    let mut life = Life::with_token("t", 3600);
    let mut failures = 0;
    loop {
        life.fetch();
        if life.elapsed() >= 3540.0 {
            break;
        }
        life.fail(failures % 2 == 0);
        failures += 1;
        assert_eq!(life.demand(), "serve t");
    }
    assert!(failures > 30);
    life.succeed("u", 3600, None);
    assert_eq!(life.demand(), "serve u");
    assert_eq!(life.shown(), "u #2");
}

#[test]
fn a_demand_does_not_hurry_a_renewal() {
    let mut life = Life::with_token("t", 3600);
    for _ in 0..1000 {
        assert_eq!(life.demand(), "serve t");
    }
    life.fetch();
    assert!((life.elapsed() - 2520.0).abs() < 0.001);
}

#[test]
fn the_same_token_again_is_a_success_that_waits() {
    let mut life = Life::with_token("t", 3600);
    life.fetch();
    life.succeed("t", 1080, None);
    assert_eq!(life.shown(), "t #1");
    let before = life.elapsed();
    life.fetch();
    assert!((life.elapsed() - before - 756.0).abs() < 0.001);
}

#[test]
fn a_refused_token_is_renewed_once() {
    let mut life = Life::with_token("t", 3600);
    life.pass(1.0);
    assert_eq!(life.state.reject(1, life.now), Rejection::Wait);
    // Before the driver has woken, while it asks, and from others with the same token.
    assert_eq!(life.state.reject(1, life.now), Rejection::Wait);
    assert!(matches!(life.state.poll(life.now), Step::Fetch { .. }));
    assert_eq!(life.state.reject(1, life.now), Rejection::Wait);
    assert_eq!(life.demand(), "serve t");
    life.succeed("u", 3600, None);
    assert_eq!(life.state.reject(1, life.now), Rejection::Replaced);
    // The renewal did not leave another one behind.
    assert!(matches!(life.state.poll(life.now), Step::Wait { .. }));
    life.pass(29.0);
    assert_eq!(life.state.reject(2, life.now), Rejection::TooSoon);
    assert!(matches!(life.state.poll(life.now), Step::Wait { .. }));
    life.pass(1.0);
    assert_eq!(life.state.reject(2, life.now), Rejection::Wait);
    assert!(matches!(life.state.poll(life.now), Step::Fetch { .. }));
}

#[test]
fn a_refusal_during_a_renewal_waits_for_that() {
    let mut life = Life::with_token("t", 3600);
    life.fetch();
    assert_eq!(life.state.reject(1, life.now), Rejection::Wait);
    life.succeed("u", 3600, None);
    assert_eq!(life.state.reject(1, life.now), Rejection::Replaced);
    assert!(matches!(life.state.poll(life.now), Step::Wait { .. }));
}

#[test]
fn a_refusal_does_not_cut_the_pause_after_a_failure_short() {
    let mut life = Life::with_token("t", 3600);
    life.fetch();
    life.fail(false);
    assert_eq!(life.state.reject(1, life.now), Rejection::Wait);
    let until = life.now.after(Duration::from_secs(1)).monotonic;
    assert_eq!(life.state.poll(life.now), Step::Wait { until });
}

#[test]
fn the_driver_is_woken_when_a_token_retires() {
    let mut life = Life::with_token("t", 3600);
    let retires = life.start.after(Duration::from_secs(3540)).monotonic;
    while life.elapsed() < 3539.0 {
        match life.state.poll(life.now) {
            Step::Fetch { .. } => life.fail(false),
            Step::Wait { until } => {
                assert!(until <= retires, "sleeps past the end of the token");
                let left = until - life.now.monotonic;
                life.now = life.now.after(left.min(Duration::from_secs(1)));
            }
        }
    }
}

#[test]
fn an_attempt_without_an_answer_is_a_failure() {
    let mut life = Life::new(NO_JITTER);
    life.fetch();
    life.pass(15.0);
    life.state.time_out(life.now, life.jitter);
    assert_eq!(life.shown(), "no answer within 15 seconds");
    assert_eq!(life.state.failures(), 1);
}

#[test]
fn rules_that_make_no_sense_do_no_harm() {
    let rules = TokenRules {
        refresh_percent: u32::MAX,
        refresh_min: Duration::from_secs(60),
        refresh_max: Duration::from_secs(30),
        retry_min: Duration::MAX,
        life_max: Duration::MAX,
        ..TokenRules::default()
    };
    let mut life = Life::new(FULL_JITTER);
    life.state = TokenState::new(rules, "test", life.now);
    for round in 0..20 {
        life.fetch();
        if round % 2 == 0 {
            life.succeed("t", u64::MAX, None);
        } else {
            life.fail(false);
        }
    }
    assert_eq!(life.elapsed().round(), 10.0 * 27.0 + 9.0 * 30.0);
}

#[test]
fn a_cell_takes_an_expired_token_back() {
    let mut life = Life::with_token("t", 3600);
    let cell = TokenCell::new("test");
    assert!(cell.current().is_err());
    cell.publish(life.state.token(life.now));
    let other = cell.clone();
    assert!(cell.is_same(&other) && !cell.is_same(&TokenCell::new("test")));
    assert_eq!(other.get(life.now).unwrap().generation(), 1);
    life.pass(3541.0);
    assert!(cell.current().is_ok());
    assert_eq!(
        cell.get(life.now).unwrap_err().to_string(),
        "test gave no token: the token has expired and no other has come"
    );
    assert!(other.current().is_err());
}

#[test]
fn nothing_shows_the_token() {
    let life = Life::with_token("CANARY", 3600);
    let cell = TokenCell::new("test");
    cell.publish(life.state.token(life.now));
    let shown = format!("{cell:?} {:?} {:?}", life.state, life.state.token(life.now));
    assert!(!shown.contains("CANARY"), "{shown}");
}
