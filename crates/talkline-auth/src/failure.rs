//! How often somebody may fail to show who it is.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::Source;

/// The numbers of a [`FailureLimiter`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailureRules {
    /// Failures of one source in one window; after that many it is refused unheard until the window
    /// is over. Defaults to 10.
    pub source_failures_max: u32,
    /// Failures of all sources in one window. Beyond it each source has one failure instead of
    /// `source_failures_max`, so that guessing from many addresses at once gets slower while
    /// clients that never failed notice nothing. Defaults to 1,000.
    pub failures_max: u32,
    /// The window, counted from a source's first failure. Defaults to 60 seconds.
    pub window: Duration,
    /// Sources that are remembered. With more, the one whose window ends first is forgotten.
    /// Defaults to 65,536, which take about 5 MB.
    pub sources_max: usize,
}

impl Default for FailureRules {
    fn default() -> Self {
        Self {
            source_failures_max: 10,
            failures_max: 1_000,
            window: Duration::from_secs(60),
            sources_max: 65_536,
        }
    }
}

/// The source failed too often.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many failed attempts from this address; try again later")]
pub struct TooManyFailures {
    /// When the next attempt is heard.
    pub retry_after: Duration,
}

impl TooManyFailures {
    /// HTTP status of the refusal.
    pub const STATUS: u16 = 429;
    /// Stable code of the refusal.
    pub const CODE: &str = "too_many_failures";
}

/// Permission to look at a source's credential, asked for before any of its bytes is looked at.
///
/// Dropping it says that the attempt did not fail. It can be reported once, which is why it is no
/// `Clone`.
#[derive(Debug)]
#[must_use = "a failure that is not reported is not counted"]
pub struct Attempt(Source);

/// Counts failed attempts by source and refuses sources that failed too often.
///
/// An attempt that is refused here is not looked at and counts as nothing, so that a window ends for
/// those too who go on trying.
pub struct FailureLimiter {
    rules: FailureRules,
    table: Mutex<FailureTable>,
}

#[derive(Default)]
struct FailureTable {
    sources: HashMap<Source, Window>,
    /// Sources by the beginning of their window. Invariant: one entry for each of `sources`; one
    /// length for all windows makes the front the next to end.
    order: VecDeque<Source>,
    all: Option<Window>,
}

#[derive(Clone, Copy)]
struct Window {
    began: Instant,
    failures: u32,
}

impl FailureLimiter {
    /// A limiter that has seen nothing.
    pub fn new(rules: FailureRules) -> Self {
        Self {
            rules,
            table: Mutex::default(),
        }
    }

    /// Asks whether a source may try.
    ///
    /// # Errors
    ///
    /// [`TooManyFailures`], with the time until its window is over.
    pub fn attempt(&self, source: Source, now: Instant) -> Result<Attempt, TooManyFailures> {
        let mut table = self.lock();
        table.forget_ended(self.rules.window, now);
        let most = match table.all {
            Some(all) if all.failures >= self.rules.failures_max => 1,
            _ => self.rules.source_failures_max,
        };
        match table.sources.get(&source) {
            Some(window) if window.failures >= most => Err(TooManyFailures {
                retry_after: (window.began + self.rules.window).saturating_duration_since(now),
            }),
            _ => Ok(Attempt(source)),
        }
    }

    /// Counts an attempt that failed.
    pub fn failed(&self, Attempt(source): Attempt, now: Instant) {
        let mut table = self.lock();
        table.forget_ended(self.rules.window, now);
        let fresh = Window {
            began: now,
            failures: 0,
        };
        let all = table.all.get_or_insert(fresh);
        all.failures = all.failures.saturating_add(1);
        if let Some(window) = table.sources.get_mut(&source) {
            window.failures = window.failures.saturating_add(1);
            return;
        }
        while table.sources.len() >= self.rules.sources_max.max(1) {
            table.forget_front();
        }
        let first = Window {
            failures: 1,
            ..fresh
        };
        table.sources.insert(source, first);
        table.order.push_back(source);
    }

    /// How many sources are remembered.
    pub fn sources(&self) -> usize {
        self.lock().sources.len()
    }

    fn lock(&self) -> MutexGuard<'_, FailureTable> {
        // Nothing panics while it is held.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FailureTable {
    fn forget_ended(&mut self, window: Duration, now: Instant) {
        let ended = |began: Instant| now.saturating_duration_since(began) >= window;
        while let Some(front) = self.order.front() {
            match self.sources.get(front) {
                Some(first) if !ended(first.began) => break,
                _ => self.forget_front(),
            }
        }
        self.all = self.all.filter(|all| !ended(all.began));
    }

    fn forget_front(&mut self) {
        if let Some(front) = self.order.pop_front() {
            self.sources.remove(&front);
        }
    }
}

impl fmt::Debug for FailureLimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FailureLimiter")
            .field("rules", &self.rules)
            .field("sources", &self.sources())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    fn source(number: u32) -> Source {
        Source::of(IpAddr::V4(Ipv4Addr::from(number)))
    }

    fn start() -> Instant {
        // The least that std offers; the limiter only ever adds to it.
        crate::token::tests::start().monotonic
    }

    fn fail(limiter: &FailureLimiter, who: u32, now: Instant) -> bool {
        match limiter.attempt(source(who), now) {
            Ok(attempt) => {
                limiter.failed(attempt, now);
                true
            }
            Err(_) => false,
        }
    }

    #[test]
    fn ten_thousand_guesses_are_ten() {
        let (limiter, now) = (FailureLimiter::new(FailureRules::default()), start());
        let heard = (0..10_000).filter(|_| fail(&limiter, 1, now)).count();
        assert_eq!(heard, 10);
        assert!(limiter.attempt(source(2), now).is_ok());
        assert_eq!(limiter.sources(), 1);
    }

    #[test]
    fn a_window_ends_by_itself_even_for_those_who_go_on() {
        let (limiter, now) = (FailureLimiter::new(FailureRules::default()), start());
        (0..10).for_each(|_| assert!(fail(&limiter, 1, now)));
        for second in 0..60 {
            let now = now + Duration::from_secs(second);
            let refused = limiter.attempt(source(1), now).unwrap_err();
            assert_eq!(refused.retry_after, Duration::from_secs(60 - second));
        }
        let over = now + Duration::from_secs(60);
        assert!(fail(&limiter, 1, over));
        assert_eq!(limiter.sources(), 1);
    }

    #[test]
    fn success_costs_nothing() {
        let (limiter, now) = (FailureLimiter::new(FailureRules::default()), start());
        (0..100).for_each(|_| drop(limiter.attempt(source(1), now).unwrap()));
        assert_eq!(limiter.sources(), 0);
    }

    #[test]
    fn guessing_from_many_addresses_slows_down_the_guessers_alone() {
        let rules = FailureRules {
            failures_max: 100,
            ..FailureRules::default()
        };
        let (limiter, now) = (FailureLimiter::new(rules), start());
        let heard = (0..1_000)
            .filter(|attempt| fail(&limiter, attempt % 50, now))
            .count();
        // Two rounds of 50 reach the bound of all; from then on one failure is one too many.
        assert_eq!(heard, 100);
        assert!(limiter.attempt(source(99), now).is_ok());
        assert!(fail(&limiter, 0, now + rules.window));
    }

    #[test]
    fn the_table_is_bounded() {
        let rules = FailureRules {
            sources_max: 8,
            ..FailureRules::default()
        };
        let (limiter, now) = (FailureLimiter::new(rules), start());
        for who in 0..1_000 {
            fail(&limiter, who, now);
            assert!(limiter.sources() <= 8);
        }
        let table = limiter.lock();
        assert_eq!(table.order.len(), table.sources.len());
    }
}
