//! Live counts in this process.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use super::{
    Exhausted, Lease, LeaseRequest, LimitFuture, LimitRefusal, LimitStore, REVOCATION_MAX,
    Revocation, SessionRef, StoreError, Usage, UseRefusal,
};
use crate::{Moment, grant::TokenId};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const MINUTE_SECONDS: u64 = 60;
/// Least time between two searches of a full table of clients for what can be forgotten.
const SWEEP_PAUSE: Duration = Duration::from_secs(1);

/// How much a [`MemoryStore`] remembers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryBounds {
    /// Clients with a session, a start in the last minute or usage today. Named keys are few; users
    /// who sign in with OIDC count one by one. Defaults to 100,000.
    pub clients_max: usize,
    /// Used tokens that have not expired. Defaults to 100,000: more than 1,600 a second with the
    /// default lifetime of 60 seconds.
    pub tokens_max: usize,
    /// Revocations. Defaults to 10,000.
    pub revocations_max: usize,
}

impl Default for MemoryBounds {
    fn default() -> Self {
        Self {
            clients_max: 100_000,
            tokens_max: 100_000,
            revocations_max: 10_000,
        }
    }
}

/// The [`LimitStore`] of a relay that runs alone. Cheap to clone; clones count together.
///
/// Every answer is ready at once. Nothing outlives the process.
#[derive(Clone)]
pub struct MemoryStore(Arc<Shared>);

struct Shared {
    bounds: MemoryBounds,
    tables: Mutex<Tables>,
}

#[derive(Default)]
struct Tables {
    clients: HashMap<String, Account>,
    swept: Option<Instant>,
    used: HashSet<TokenId>,
    /// Invariant: one entry for each of `used`.
    used_by_expiry: BTreeSet<(SystemTime, TokenId)>,
    revoked: HashMap<Revocation, Instant>,
}

/// One client's counts.
#[derive(Default)]
struct Account {
    sessions: u32,
    starts: Starts,
    day: u64,
    used: Usage,
}

impl MemoryStore {
    /// An empty store.
    pub fn new(bounds: MemoryBounds) -> Self {
        Self(Arc::new(Shared {
            bounds,
            tables: Mutex::default(),
        }))
    }

    /// How many sessions a client has.
    pub fn sessions(&self, client: &str) -> u32 {
        let tables = self.0.lock();
        tables.clients.get(client).map_or(0, |it| it.sessions)
    }

    /// What a client has used today.
    pub fn used_today(&self, client: &str, now: Moment) -> Usage {
        let tables = self.0.lock();
        let account = tables.clients.get(client);
        account.map_or(Usage::default(), |it| it.used_on(day_of(now)))
    }

    fn take(&self, request: LeaseRequest<'_>, now: Moment) -> Result<Lease, LimitRefusal> {
        let LeaseRequest { who, limits } = request;
        let mut tables = self.0.lock();
        if tables.is_revoked(who, now.monotonic) {
            return Err(LimitRefusal::Revoked);
        }
        let account = tables.account(who.client, &self.0.bounds, now)?;
        if let Some(exhausted) = Exhausted::day(limits, account.used_on(day_of(now))) {
            return Err(LimitRefusal::Budget {
                exhausted,
                retry_after: until_next_day(now),
            });
        }
        if let Some(limit) = limits.sessions_max.filter(|most| account.sessions >= *most) {
            return Err(LimitRefusal::Sessions { limit });
        }
        account
            .starts
            .begin(limits.starts_per_minute, now)
            .map_err(|retry_after| LimitRefusal::Starts {
                limit: limits.starts_per_minute.unwrap_or_default(),
                retry_after,
            })?;
        account.sessions = account.sessions.saturating_add(1);
        drop(tables);
        let (shared, client) = (Arc::clone(&self.0), who.client.to_owned());
        Ok(Lease::new(who.session, None, move || {
            if let Some(account) = shared.lock().clients.get_mut(&client) {
                account.sessions = account.sessions.saturating_sub(1);
            }
        }))
    }

    fn add(&self, client: &str, usage: Usage, now: Moment) -> Result<Usage, StoreError> {
        let mut tables = self.0.lock();
        let account = tables.account(client, &self.0.bounds, now)?;
        let day = day_of(now);
        account.used = account.used_on(day).plus(usage);
        account.day = day;
        Ok(account.used)
    }

    fn use_up(
        &self,
        token: &TokenId,
        expires_at: SystemTime,
        now: Moment,
    ) -> Result<(), UseRefusal> {
        if expires_at <= now.wall {
            return Err(UseRefusal::Expired);
        }
        let mut tables = self.0.lock();
        let revoked = tables
            .revoked
            .get(&Revocation::Token(token.clone()))
            .is_some_and(|until| now.monotonic < *until);
        if revoked {
            return Err(UseRefusal::Revoked);
        }
        if tables.used.contains(token) {
            return Err(UseRefusal::Used);
        }
        tables.forget_expired(now.wall);
        if tables.used.len() >= self.0.bounds.tokens_max {
            return Err(StoreError::Full("used tokens").into());
        }
        tables.used.insert(token.clone());
        tables.used_by_expiry.insert((expires_at, token.clone()));
        Ok(())
    }

    fn write_down(
        &self,
        target: Revocation,
        time: Duration,
        now: Instant,
    ) -> Result<(), StoreError> {
        let until = now + time.min(REVOCATION_MAX);
        let mut tables = self.0.lock();
        if let Some(written) = tables.revoked.get_mut(&target) {
            *written = (*written).max(until);
            return Ok(());
        }
        if tables.revoked.len() >= self.0.bounds.revocations_max {
            tables.revoked.retain(|_, until| now < *until);
        }
        if tables.revoked.len() >= self.0.bounds.revocations_max {
            return Err(StoreError::Full("revocations"));
        }
        tables.revoked.insert(target, until);
        Ok(())
    }
}

impl LimitStore for MemoryStore {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn lease<'a>(
        &'a self,
        request: LeaseRequest<'a>,
        now: Moment,
    ) -> LimitFuture<'a, Result<Lease, LimitRefusal>> {
        ready(move || self.take(request, now))
    }

    fn renew<'a>(&'a self, _: &'a Lease, _: Moment) -> LimitFuture<'a, Result<(), StoreError>> {
        ready(|| Ok(()))
    }

    fn spend<'a>(
        &'a self,
        client: &'a str,
        usage: Usage,
        now: Moment,
    ) -> LimitFuture<'a, Result<Usage, StoreError>> {
        ready(move || self.add(client, usage, now))
    }

    fn use_once<'a>(
        &'a self,
        token: &'a TokenId,
        expires_at: SystemTime,
        now: Moment,
    ) -> LimitFuture<'a, Result<(), UseRefusal>> {
        ready(move || self.use_up(token, expires_at, now))
    }

    fn revoke<'a>(
        &'a self,
        target: Revocation,
        time: Duration,
        now: Moment,
    ) -> LimitFuture<'a, Result<(), StoreError>> {
        ready(move || self.write_down(target, time, now.monotonic))
    }

    fn revoked<'a>(
        &'a self,
        session: SessionRef<'a>,
        now: Moment,
    ) -> LimitFuture<'a, Result<bool, StoreError>> {
        ready(move || Ok(self.0.lock().is_revoked(session, now.monotonic)))
    }
}

/// Nothing happens before the future is polled, and then all of it at once.
fn ready<'a, T>(answer: impl FnOnce() -> T + Send + 'a) -> LimitFuture<'a, T> {
    Box::pin(async move { answer() })
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Tables> {
        // Nothing panics while it is held.
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tables {
    /// A client's account, which is opened where there is none.
    fn account(
        &mut self,
        client: &str,
        bounds: &MemoryBounds,
        now: Moment,
    ) -> Result<&mut Account, StoreError> {
        if !self.clients.contains_key(client) {
            if self.clients.len() >= bounds.clients_max {
                self.sweep(now);
            }
            if self.clients.len() >= bounds.clients_max {
                return Err(StoreError::Full("clients"));
            }
        }
        Ok(self.clients.entry(client.to_owned()).or_default())
    }

    /// Forgets clients about whom there is nothing to remember.
    fn sweep(&mut self, now: Moment) {
        let recently =
            |swept: Instant| now.monotonic.saturating_duration_since(swept) < SWEEP_PAUSE;
        if self.swept.is_some_and(recently) {
            return;
        }
        self.swept = Some(now.monotonic);
        let day = day_of(now);
        self.clients.retain(|_, account| {
            account.sessions > 0
                || account.used_on(day) != Usage::default()
                || !account.starts.is_quiet(now)
        });
    }

    fn forget_expired(&mut self, now: SystemTime) {
        while let Some((expires_at, token)) = self.used_by_expiry.pop_first() {
            if expires_at > now {
                self.used_by_expiry.insert((expires_at, token));
                return;
            }
            self.used.remove(&token);
        }
    }

    fn is_revoked(&self, who: SessionRef<'_>, now: Instant) -> bool {
        if self.revoked.is_empty() {
            return false;
        }
        let token = who.token.map(|token| Revocation::Token(token.clone()));
        let session = Revocation::Session(who.session.to_owned());
        let client = Revocation::Client(who.client.to_owned());
        [Some(session), Some(client), token]
            .into_iter()
            .flatten()
            .any(|target| self.revoked.get(&target).is_some_and(|until| now < *until))
    }
}

impl Account {
    fn used_on(&self, day: u64) -> Usage {
        match self.day == day {
            true => self.used,
            false => Usage::default(),
        }
    }
}

/// Starts of the last minute, second by second: exact to a second, in the strict direction.
struct Starts {
    /// The monotonic time of second 0; `None` before the first start.
    began: Option<Instant>,
    /// The second of the latest start, counted from `began`.
    latest: u64,
    /// Starts of the second that is its index modulo 61. 61, because the second that is just now
    /// passing and the one that it began in both count.
    seconds: Option<Box<[u32; 61]>>,
}

impl Default for Starts {
    fn default() -> Self {
        Self {
            began: None,
            latest: 0,
            seconds: None,
        }
    }
}

impl Starts {
    /// Counts one start, or says when there is room for it. Without a limit nothing is counted.
    fn begin(&mut self, limit: Option<u32>, now: Moment) -> Result<(), Duration> {
        let Some(limit) = limit else { return Ok(()) };
        let began = *self.began.get_or_insert(now.monotonic);
        let second = now.monotonic.saturating_duration_since(began).as_secs();
        let latest = self.latest;
        let seconds = self.seconds.get_or_insert_with(|| Box::new([0; 61]));
        for passed in latest + 1..=second.min(latest + 61) {
            seconds[index(passed)] = 0;
        }
        self.latest = latest.max(second);
        let count: u32 = seconds.iter().fold(0, |sum, n| sum.saturating_add(*n));
        if count < limit {
            seconds[index(self.latest)] += 1;
            return Ok(());
        }
        // Room comes when the oldest start in the window leaves it.
        let oldest = (0..=MINUTE_SECONDS)
            .rev()
            .filter_map(|back| self.latest.checked_sub(back))
            .find(|second| seconds[index(*second)] > 0);
        let leaves = oldest.unwrap_or(self.latest) + MINUTE_SECONDS + 1;
        Err((began + Duration::from_secs(leaves)).saturating_duration_since(now.monotonic))
    }

    /// Whether no start is in the window any more.
    fn is_quiet(&self, now: Moment) -> bool {
        self.began.is_none_or(|began| {
            now.monotonic.saturating_duration_since(began).as_secs() > self.latest + MINUTE_SECONDS
        })
    }
}

fn index(second: u64) -> usize {
    usize::try_from(second % 61).expect("a number below 61 fits")
}

/// Days since 1970, by UTC.
fn day_of(now: Moment) -> u64 {
    since_epoch(now).as_secs() / DAY.as_secs()
}

fn until_next_day(now: Moment) -> Duration {
    let next = Duration::from_secs((day_of(now) + 1) * DAY.as_secs());
    next.saturating_sub(since_epoch(now))
}

fn since_epoch(now: Moment) -> Duration {
    now.wall.duration_since(UNIX_EPOCH).unwrap_or_default()
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new(MemoryBounds::default())
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tables = self.0.lock();
        f.debug_struct("MemoryStore")
            .field("clients", &tables.clients.len())
            .field("used_tokens", &tables.used.len())
            .field("revocations", &tables.revoked.len())
            .finish()
    }
}

#[cfg(test)]
mod tests;
