//! The life of a token: when it is fetched, how long it serves, what happens when none comes.
//!
//! A state machine without a clock. Its driver asks [`TokenState::poll`] what to do, does it, and
//! tells the outcome; callers that want a token ask [`TokenState::demand`]. Calling any of them too
//! often is harmless.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use super::{FetchedToken, TokenError};
use crate::Secret;

/// One point in time on both clocks.
///
/// The monotonic clock stands still while a virtual machine is suspended; the wall clock jumps when
/// somebody sets it. A token is taken for expired as soon as either says so, and nothing that bounds
/// how often the identity service is asked depends on the wall clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The monotonic clock.
    pub monotonic: Instant,
    /// The wall clock.
    pub wall: SystemTime,
}

impl Moment {
    /// The moment `duration` later. A clock that cannot count that far stays where it is.
    pub fn after(self, duration: Duration) -> Self {
        Self {
            monotonic: self
                .monotonic
                .checked_add(duration)
                .unwrap_or(self.monotonic),
            wall: self.wall.checked_add(duration).unwrap_or(self.wall),
        }
    }

    /// Whether either clock has come to `other`.
    pub fn has_reached(self, other: Self) -> bool {
        self.monotonic >= other.monotonic || self.wall >= other.wall
    }
}

/// A random fraction between 0 and 1, drawn by the caller for each outcome, so that many relays
/// with the same configuration do not ask at the same second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Jitter(f64);

impl Jitter {
    /// Makes a fraction of 16 random bits.
    pub fn from_bits(bits: u16) -> Self {
        Self(f64::from(bits) / f64::from(u16::MAX))
    }
}

/// How the life of a token is governed. [`TokenRules::default`] holds the values in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenRules {
    /// Part of a token's life after which it is renewed when the service does not say
    /// (`refresh_in`). Up to a tenth earlier by jitter. Defaults to 70.
    pub refresh_percent: u32,
    /// Earliest renewal of a token, unless it expires before that. Defaults to 30 seconds.
    pub refresh_min: Duration,
    /// Latest renewal of a token. Defaults to 12 hours.
    pub refresh_max: Duration,
    /// Least time between a success and the next attempt, whatever life the service gave the token,
    /// and between two attempts after an answer that is no token. Only a forced renewal is sooner.
    /// Defaults to 5 seconds.
    pub interval_min: Duration,
    /// Longest single attempt. Defaults to 15 seconds.
    pub attempt_max: Duration,
    /// Pause after a first failure; doubles with each further one, up to a quarter longer by
    /// jitter. Defaults to 1 second.
    pub retry_min: Duration,
    /// Longest pause between failures, and the pause after a permanent one. Defaults to 30 seconds.
    pub retry_max: Duration,
    /// How long before its expiry a token is no longer handed out, because a handshake takes time
    /// and clocks differ. A tenth of its life for tokens that live less than ten times as long.
    /// Defaults to 60 seconds.
    pub expiry_margin: Duration,
    /// How long a failure answers callers before one of them may cause another attempt. After a
    /// permanent failure `interval_min` counts instead, because asking sooner can only annoy the
    /// service. Defaults to 1 second.
    pub failure_shared: Duration,
    /// How long a caller waits for an attempt when the one before it failed. Without this bound an
    /// identity service that hangs would make every caller hang. Defaults to 500 milliseconds.
    pub outage_patience: Duration,
    /// Least time between two forced renewals. Defaults to 30 seconds.
    pub forced_interval: Duration,
    /// Longest life that is believed. Defaults to 7 days.
    pub life_max: Duration,
    /// Longest sleep of the driver, so that a jump of the wall clock is noticed. Defaults to 30
    /// seconds.
    pub clock_check: Duration,
}

impl Default for TokenRules {
    fn default() -> Self {
        Self {
            refresh_percent: 70,
            refresh_min: Duration::from_secs(30),
            refresh_max: Duration::from_secs(12 * 60 * 60),
            interval_min: Duration::from_secs(5),
            attempt_max: Duration::from_secs(15),
            retry_min: Duration::from_secs(1),
            retry_max: Duration::from_secs(30),
            expiry_margin: Duration::from_secs(60),
            failure_shared: Duration::from_secs(1),
            outage_patience: Duration::from_millis(500),
            forced_interval: Duration::from_secs(30),
            life_max: Duration::from_secs(7 * 24 * 60 * 60),
            clock_check: Duration::from_secs(30),
        }
    }
}

/// Shortest life with which a token is of any use.
const LIFE_MIN: Duration = Duration::from_secs(1);

/// A token that may be presented. Cheap to clone.
#[derive(Clone)]
pub struct Bearer(Arc<Issued>);

struct Issued {
    secret: Secret,
    generation: u64,
    /// From here on it is not handed out.
    retires: Moment,
}

impl Bearer {
    /// The token itself.
    pub fn secret(&self) -> &Secret {
        &self.0.secret
    }

    /// Counts the different tokens that one [`TokenState`] has had, from 1. A service that hands
    /// out the same token again does not start a new generation.
    pub fn generation(&self) -> u64 {
        self.0.generation
    }

    /// Whether it may still be presented.
    pub fn is_usable(&self, now: Moment) -> bool {
        !now.has_reached(self.0.retires)
    }
}

impl fmt::Debug for Bearer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bearer(generation {})", self.0.generation)
    }
}

/// What the driver has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Ask the source for a token and report the outcome, at the latest at this time.
    Fetch {
        /// When to give the attempt up.
        deadline: Instant,
    },
    /// Nothing before this time, unless somebody demands or rejects a token before.
    Wait {
        /// When to poll again.
        until: Instant,
    },
}

/// What a caller that needs a token has to do.
#[derive(Clone, Debug)]
pub enum Demand {
    /// Present this one.
    Serve(Bearer),
    /// Give up: the service failed a moment ago, or may not be asked yet.
    Refuse(TokenError),
    /// Wake the driver and wait for the end of the attempt.
    Wait {
        /// When the attempt before this one failed: how long to wait at most, and the error to give
        /// up with.
        patience: Option<(Duration, TokenError)>,
    },
}

/// What a caller whose token was refused upstream has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// Try again with the token that replaced it meanwhile.
    Replaced,
    /// Wake the driver, wait for the end of the attempt, and try again if the generation changed.
    Wait,
    /// Give up: a renewal was forced a short while ago.
    TooSoon,
}

/// The life of the tokens of one source.
pub struct TokenState {
    rules: TokenRules,
    source_name: &'static str,
    /// The newest token, kept past its expiry so that its generation is known.
    token: Option<Bearer>,
    generation: u64,
    /// The failure of the last attempt; `None` after a success.
    failure: Option<TokenError>,
    failures: u32,
    in_flight: bool,
    /// When an attempt is wanted.
    due: Moment,
    /// When an attempt is allowed.
    earliest: Instant,
    forced_at: Option<Instant>,
    /// A forced renewal is wanted and no attempt has ended since.
    forced: bool,
}

impl TokenState {
    /// A life that begins with an attempt at once. `source_name` appears in its errors.
    pub fn new(rules: TokenRules, source_name: &'static str, now: Moment) -> Self {
        Self {
            rules,
            source_name,
            token: None,
            generation: 0,
            failure: None,
            failures: 0,
            in_flight: false,
            due: now,
            earliest: now.monotonic,
            forced_at: None,
            forced: false,
        }
    }

    /// What the driver has to do now. [`Step::Fetch`] is returned once for each attempt.
    pub fn poll(&mut self, now: Moment) -> Step {
        if !self.in_flight && self.is_due(now) && now.monotonic >= self.earliest {
            self.in_flight = true;
            let deadline = now.after(self.rules.attempt_max).monotonic;
            return Step::Fetch { deadline };
        }
        let check = now.after(self.rules.clock_check).monotonic;
        let attempt = match (self.in_flight, self.is_due(now)) {
            (true, _) => check,
            (false, true) => self.earliest,
            (false, false) => self.due.monotonic.max(self.earliest),
        };
        // A token that retires is taken back when it does, not at the next renewal.
        let retires = self
            .usable(now)
            .map_or(check, |token| token.0.retires.monotonic);
        Step::Wait {
            until: check.min(attempt).min(retires),
        }
    }

    /// The attempt ended with a token.
    ///
    /// A token whose life is under a second is a failure, so that a service with a wrong clock is
    /// reported and not asked in a loop.
    pub fn succeed(&mut self, fetched: FetchedToken, now: Moment, jitter: Jitter) {
        let life = fetched.time_to_live.min(self.rules.life_max);
        if life < LIFE_MIN {
            let error = self.error(
                "token_born_expired",
                "the token had expired when it came; is the clock right?",
            );
            return self.fail_for(error, now, jitter, self.rules.interval_min);
        }
        let margin = self.rules.expiry_margin.min(life / 10);
        let serves = life.saturating_sub(margin);
        let refresh = fetched
            .refresh_in
            .filter(|refresh| *refresh < serves)
            .unwrap_or((life / 100).saturating_mul(self.rules.refresh_percent))
            .max(self.rules.refresh_min)
            .min(self.rules.refresh_max)
            .mul_f64(1.0 - jitter.0 / 10.0)
            .min(serves);
        let same = self
            .token
            .as_ref()
            .is_some_and(|token| token.secret().expose() == fetched.secret.expose());
        if !same {
            self.generation += 1;
        }
        self.token = Some(Bearer(Arc::new(Issued {
            secret: fetched.secret,
            generation: self.generation,
            retires: now.after(serves),
        })));
        self.failure = None;
        self.failures = 0;
        self.end_attempt(now, refresh, self.rules.interval_min);
    }

    /// The attempt ended without a token. The one before it serves on.
    pub fn fail(&mut self, error: TokenError, now: Moment, jitter: Jitter) {
        let shared = if error.permanent {
            self.rules.interval_min
        } else {
            self.rules.failure_shared
        };
        self.fail_for(error, now, jitter, shared);
    }

    /// The attempt was given up at its deadline.
    pub fn time_out(&mut self, now: Moment, jitter: Jitter) {
        let detail = format!(
            "no answer within {} seconds",
            self.rules.attempt_max.as_secs()
        );
        let error = self.error("token_timeout", &detail);
        self.fail(error, now, jitter);
    }

    fn fail_for(&mut self, error: TokenError, now: Moment, jitter: Jitter, pause_min: Duration) {
        let TokenRules {
            retry_min,
            retry_max,
            ..
        } = self.rules;
        let doublings = self.failures.min(16);
        let pause = if error.permanent {
            retry_max
        } else {
            // Jitter comes on top: the cap leaves room for it.
            retry_min
                .saturating_mul(2_u32.pow(doublings))
                .min(retry_max.mul_f64(0.8))
        };
        let pause = pause.mul_f64(1.0 + jitter.0 / 4.0).min(retry_max);
        self.failures = self.failures.saturating_add(1);
        self.failure = Some(error);
        self.end_attempt(now, pause, pause_min);
    }

    fn end_attempt(&mut self, now: Moment, due_in: Duration, pause_min: Duration) {
        self.in_flight = false;
        self.forced = false;
        self.due = now.after(due_in);
        self.earliest = now.after(pause_min).monotonic;
    }

    /// A caller needs a token.
    pub fn demand(&mut self, now: Moment) -> Demand {
        if let Some(token) = self.usable(now) {
            return Demand::Serve(token);
        }
        if !self.in_flight {
            if let Some(failure) = &self.failure
                && now.monotonic < self.earliest
            {
                return Demand::Refuse(failure.clone());
            }
            if !self.is_due(now) {
                self.due = now;
            }
        }
        let patience = self
            .failure
            .clone()
            .map(|failure| (self.rules.outage_patience, failure));
        Demand::Wait { patience }
    }

    /// An upstream refused the token of this generation although it has not expired.
    ///
    /// Everybody whose token of the same generation was refused shares one renewal. The token stays
    /// in use until it is replaced: the refusal may have been the upstream's mistake.
    pub fn reject(&mut self, generation: u64, now: Moment) -> Rejection {
        if self.generation > generation && self.usable(now).is_some() {
            return Rejection::Replaced;
        }
        if self.forced {
            return Rejection::Wait;
        }
        let recently = self.forced_at.is_some_and(|forced_at| {
            now.monotonic.saturating_duration_since(forced_at) < self.rules.forced_interval
        });
        if recently {
            return Rejection::TooSoon;
        }
        self.forced_at = Some(now.monotonic);
        self.forced = true;
        if !self.in_flight {
            self.due = now;
            if self.failure.is_none() {
                self.earliest = now.monotonic;
            }
        }
        Rejection::Wait
    }

    /// The token that may be presented, or why there is none.
    ///
    /// # Errors
    ///
    /// The failure of the last attempt, or a sentence that says that none has ended yet.
    pub fn token(&self, now: Moment) -> Result<Bearer, TokenError> {
        self.usable(now)
            .ok_or_else(|| self.failure.clone().unwrap_or_else(|| self.none_yet()))
    }

    /// Why the last attempt failed; `None` after a success.
    pub fn failure(&self) -> Option<&TokenError> {
        self.failure.as_ref()
    }

    /// How many attempts have failed in a row.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    fn usable(&self, now: Moment) -> Option<Bearer> {
        self.token.clone().filter(|token| token.is_usable(now))
    }

    fn is_due(&self, now: Moment) -> bool {
        now.has_reached(self.due)
    }

    fn none_yet(&self) -> TokenError {
        match self.token {
            None => self.error("token_pending", "no token has come yet"),
            Some(_) => self.error(
                "token_expired",
                "the token has expired and its renewal has not ended yet",
            ),
        }
    }

    fn error(&self, code: &'static str, detail: &str) -> TokenError {
        TokenError::new(self.source_name, code, detail)
    }
}

impl fmt::Debug for TokenState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenState")
            .field("source", &self.source_name)
            .field("generation", &self.generation)
            .field("in_flight", &self.in_flight)
            .field("failures", &self.failures)
            .finish_non_exhaustive()
    }
}
