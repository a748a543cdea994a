//! Drives the life of tokens: asks the sources when [`TokenState`] says so, and lets sessions wait.
//!
//! Each identity has one driver task and one place where its state is kept. A session that needs a
//! token never asks the source itself: it waits for the driver's attempt, so that a thousand of them
//! make one request and one that goes away takes nothing with it.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use talkline_auth::{
    Bearer, Demand, FetchedToken, Jitter, Moment, Rejection, Step, TokenCell, TokenError,
    TokenRules, TokenSource, TokenState,
};
use tokio::{
    sync::{Notify, watch},
    task::{JoinError, JoinSet},
    time::{Instant, error::Elapsed, sleep_until, timeout_at},
};
use tracing::{debug, error, info, warn};

/// Now, on both clocks.
pub(crate) fn now() -> Moment {
    Moment {
        monotonic: Instant::now().into_std(),
        wall: SystemTime::now(),
    }
}

/// The identities that the relay signs in with.
#[derive(Clone)]
pub(crate) struct Tokens(Arc<[Arc<Identity>]>);

impl Tokens {
    pub(crate) fn new(sources: Vec<(TokenCell, Arc<dyn TokenSource>)>) -> Self {
        let identity = |(cell, source)| Arc::new(Identity::new(cell, source));
        Self(sources.into_iter().map(identity).collect())
    }

    /// Starts the driver of each identity on `tasks`.
    pub(crate) fn drive(&self, tasks: &mut JoinSet<()>) {
        for identity in &*self.0 {
            tasks.spawn(Arc::clone(identity).drive());
        }
    }

    /// Whether something fills this cell.
    pub(crate) fn know(&self, cell: &TokenCell) -> bool {
        self.find(cell).is_some()
    }

    /// Whether each identity has a token that may be presented.
    pub(crate) fn all_usable(&self) -> bool {
        self.0
            .iter()
            .all(|identity| identity.cell.get(now()).is_ok())
    }

    /// What the metrics show.
    pub(crate) fn counts(&self) -> TokenCounts {
        let sum = |count: fn(&Identity) -> &AtomicU64| {
            let counts = self.0.iter().map(|identity| count(identity));
            counts.map(|count| count.load(Ordering::Relaxed)).sum()
        };
        let usable = |identity: &&Arc<Identity>| identity.cell.get(now()).is_ok();
        TokenCounts {
            identities: self.0.len(),
            usable: self.0.iter().filter(usable).count(),
            refreshed: sum(|identity| &identity.refreshed),
            failed: sum(|identity| &identity.failed),
        }
    }

    /// Waits until the cell has a token that may be presented, no longer than `budget`.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing: the attempt goes on for whoever else waits for it.
    pub(crate) async fn usable(
        &self,
        cell: &TokenCell,
        budget: Duration,
    ) -> Result<Bearer, TokenError> {
        match (cell.get(now()), self.find(cell)) {
            (Ok(token), _) => Ok(token),
            (Err(_), Some(identity)) => identity.wait_for_token(budget).await,
            (Err(error), None) => Err(error),
        }
    }

    /// The upstream refused the token of this generation: waits for another, no longer than
    /// `budget`. Says whether there is one.
    ///
    /// # Cancel safety
    ///
    /// As with [`usable`](Self::usable).
    pub(crate) async fn replaced(
        &self,
        cell: &TokenCell,
        generation: u64,
        budget: Duration,
    ) -> bool {
        match self.find(cell) {
            Some(identity) => identity.replace(generation, budget).await,
            None => false,
        }
    }

    fn find(&self, cell: &TokenCell) -> Option<&Arc<Identity>> {
        self.0.iter().find(|identity| identity.cell.is_same(cell))
    }
}

/// The identities and their attempts to get tokens, all together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TokenCounts {
    pub(crate) identities: usize,
    pub(crate) usable: usize,
    pub(crate) refreshed: u64,
    pub(crate) failed: u64,
}

/// One source, the state of its tokens, and the cell that sessions read.
struct Identity {
    cell: TokenCell,
    source: Arc<dyn TokenSource>,
    /// Invariant: whoever changes it publishes the outcome in `cell` before letting go.
    state: Mutex<TokenState>,
    /// The state wants to be polled before its time.
    wake: Notify,
    /// Counts the attempts that have ended.
    ended: watch::Sender<u64>,
    /// Attempts that brought a token, and those that did not.
    refreshed: AtomicU64,
    failed: AtomicU64,
}

impl Identity {
    fn new(cell: TokenCell, source: Arc<dyn TokenSource>) -> Self {
        let state = TokenState::new(TokenRules::default(), source.name(), now());
        Self {
            cell,
            source,
            state: Mutex::new(state),
            wake: Notify::new(),
            ended: watch::Sender::new(0),
            refreshed: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        }
    }

    async fn drive(self: Arc<Self>) {
        // At most one attempt; a task of its own, so that a panic in a source is a failed attempt.
        let mut flight = JoinSet::new();
        let mut served = false;
        loop {
            let (step, token) = self.poll();
            if let (true, Err(reason)) = (served, &token) {
                let source = self.source.name();
                error!(source, detail = %reason.detail, "the token has expired; no session can start");
            }
            served = token.is_ok();
            let until = match step {
                Step::Wait { until } => Instant::from_std(until),
                Step::Fetch { deadline } => {
                    let source = Arc::clone(&self.source);
                    let deadline = Instant::from_std(deadline);
                    debug!(source = source.name(), "asking for a token");
                    flight.spawn(async move { timeout_at(deadline, source.fetch()).await });
                    continue;
                }
            };
            tokio::select! {
                biased;
                Some(outcome) = flight.join_next() => self.settle(outcome),
                () = self.wake.notified() => {}
                () = sleep_until(until) => {}
            }
        }
    }

    /// Asks the state what to do, and takes a token back that has expired.
    fn poll(&self) -> (Step, Result<Bearer, TokenError>) {
        let now = now();
        let mut state = self.state();
        let token = state.token(now);
        if token.is_err() {
            self.cell.publish(token.clone());
        }
        (state.poll(now), token)
    }

    fn settle(&self, outcome: Result<Attempt, JoinError>) {
        let now = now();
        let jitter = jitter();
        let source = self.source.name();
        let mut state = self.state();
        let failures_before = state.failures();
        match outcome {
            Ok(Ok(Ok(token))) => state.succeed(token, now, jitter),
            Ok(Ok(Err(error))) => state.fail(error, now, jitter),
            Ok(Err(Elapsed { .. })) => state.time_out(now, jitter),
            Err(panic) => {
                error!(source, "a token source panicked");
                let detail = if panic.is_panic() {
                    "the source panicked"
                } else {
                    "the attempt was cut off"
                };
                let error = TokenError::new(source, "token_source_failed", detail);
                state.fail(error, now, jitter);
            }
        }
        let attempts = match state.failure() {
            None => &self.refreshed,
            Some(_) => &self.failed,
        };
        attempts.fetch_add(1, Ordering::Relaxed);
        let token = state.token(now);
        match (state.failure(), &token) {
            (None, Ok(token)) => {
                let generation = token.generation();
                info!(source, generation, failures_before, "token renewed");
            }
            (Some(failure), _) => {
                let failures = state.failures();
                let permanent = failure.permanent;
                let serving = token.is_ok();
                let (code, detail) = (failure.code, &failure.detail);
                let hint = failure.hint.as_deref();
                // The first at once, the thousandth not again.
                if failures.is_power_of_two() {
                    warn!(source, code, %detail, hint, permanent, failures, serving, "no token");
                } else {
                    debug!(source, code, %detail, hint, permanent, failures, serving, "no token");
                }
            }
            (None, Err(_)) => {}
        }
        self.cell.publish(token);
        drop(state);
        self.ended.send_modify(|ended| *ended += 1);
    }

    async fn wait_for_token(&self, budget: Duration) -> Result<Bearer, TokenError> {
        let give_up = Instant::now() + budget;
        // Before the state is asked, so that the end of an attempt in between is not missed.
        let mut ended = self.ended.subscribe();
        let demand = self.state().demand(now());
        let (give_up, fallback) = match demand {
            Demand::Serve(token) => return Ok(token),
            Demand::Refuse(error) => return Err(error),
            Demand::Wait { patience: None } => (give_up, None),
            Demand::Wait {
                patience: Some((patience, error)),
            } => (give_up.min(Instant::now() + patience), Some(error)),
        };
        self.wake.notify_one();
        match (timeout_at(give_up, ended.changed()).await, fallback) {
            (Err(Elapsed { .. }), Some(error)) => Err(error),
            _ => self.state().token(now()),
        }
    }

    async fn replace(&self, generation: u64, budget: Duration) -> bool {
        let mut ended = self.ended.subscribe();
        let rejection = self.state().reject(generation, now());
        match rejection {
            Rejection::Replaced => return true,
            Rejection::TooSoon => return false,
            Rejection::Wait => {}
        }
        let source = self.source.name();
        debug!(
            source,
            generation, "an upstream refused the token; renewing it"
        );
        self.wake.notify_one();
        // Whether it ended or the budget did: what counts is what is there then.
        let _ = timeout_at(Instant::now() + budget, ended.changed()).await;
        self.cell
            .get(now())
            .is_ok_and(|token| token.generation() > generation)
    }

    fn state(&self) -> MutexGuard<'_, TokenState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type Attempt = Result<Result<FetchedToken, TokenError>, Elapsed>;

pub(crate) fn jitter() -> Jitter {
    let mut bits = [0; 2];
    getrandom::fill(&mut bits).expect("the operating system has randomness");
    Jitter::from_bits(u16::from_ne_bytes(bits))
}

#[cfg(test)]
pub(crate) mod tests;
