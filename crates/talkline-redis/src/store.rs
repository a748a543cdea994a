//! The store.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use talkline_auth::{
    ClientLimits, Exhausted, Lease, LeaseRequest, LimitFuture, LimitRefusal, LimitStore,
    MemoryBounds, MemoryStore, Moment, REVOCATION_MAX, Revocation, SessionRef, StoreError,
    StoreHealth, TokenId, Usage, UseRefusal,
};
use tokio::runtime::Handle;

use crate::{Server, link::Link, scripts::Scripts};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Largest amount that is added at once, far above any session's: what the server counts with has 63
/// bits, and Lua reads 53 of them exactly.
const SPEND_MAX: u64 = 1 << 40;

/// What happens while the server does not answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnOutage {
    /// Each replica goes on with counts of its own: clients are served, limits hold for each replica
    /// alone, and a token may be used once on each.
    Open,
    /// New sessions are refused with 503 until it answers again. Nobody gets more than their limit.
    #[default]
    Closed,
}

/// How the store works.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What every key begins with, so that several relays can share a server. It is written in braces,
    /// which makes it the hash tag: in a cluster all keys are in one slot, as the scripts need.
    pub prefix: String,
    /// Longest wait for an answer, connecting included.
    pub timeout: Duration,
    /// How long a place is kept for a session of which nothing is heard. A third of it passes between
    /// two renewals.
    pub lease_time: Duration,
    /// What happens while the server is away.
    pub on_outage: OnOutage,
    /// Bounds of the counts that each replica keeps for outages, with [`OnOutage::Open`].
    pub local: MemoryBounds,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            prefix: "talkline".into(),
            timeout: Duration::from_millis(500),
            lease_time: Duration::from_secs(30),
            on_outage: OnOutage::default(),
            local: MemoryBounds::default(),
        }
    }
}

/// Live counts that all replicas share, in Redis or Valkey.
///
/// Opens no connection until it is first asked; then it keeps one. Its methods need a tokio runtime, and
/// so does dropping a [`Lease`], for the place to be given back at once: without one it is given back
/// when its time is up.
pub struct RedisStore(Arc<Shared>);

struct Shared {
    link: Link,
    scripts: Scripts,
    settings: Settings,
    /// What this replica counts on its own, for outages. Kept up to date all the time, so that an outage
    /// does not begin at zero.
    local: Option<MemoryStore>,
    /// Whose place each session of this replica has.
    places: Mutex<HashMap<String, String>>,
}

impl RedisStore {
    /// A store at `server`.
    #[must_use]
    pub fn new(server: Server, settings: Settings) -> Self {
        let local = match settings.on_outage {
            OnOutage::Open => Some(MemoryStore::new(settings.local)),
            OnOutage::Closed => None,
        };
        Self(Arc::new(Shared {
            link: Link::new(server, settings.timeout),
            scripts: Scripts::default(),
            settings,
            local,
            places: Mutex::default(),
        }))
    }

    /// Whether the server answers.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`].
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    pub async fn ping(&self) -> Result<(), StoreError> {
        let ping = self.0.scripts.ping.prepare_invoke();
        self.0.link.run::<Vec<String>>(&ping).await.map(drop)
    }
}

impl Shared {
    fn places(&self) -> MutexGuard<'_, HashMap<String, String>> {
        // Nothing panics while it is held.
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A key. What comes from outside stands at its end, so that no two keys can be the same.
    fn key(&self, kind: &str, name: &str) -> String {
        format!("{{{}}}:{kind}:{name}", self.settings.prefix)
    }

    fn day_key(&self, client: &str, now: Moment) -> String {
        let day = since_epoch(now).as_secs() / DAY.as_secs();
        self.key(&format!("day:{day}"), client)
    }

    fn revocation_keys(&self, who: SessionRef<'_>) -> impl Iterator<Item = String> {
        let token = who
            .token
            .map(|token| self.key("revoked:token", token.as_str()));
        [
            self.key("revoked:session", who.session),
            self.key("revoked:client", who.client),
        ]
        .into_iter()
        .chain(token)
    }

    async fn take(
        self: &Arc<Self>,
        request: LeaseRequest<'_>,
        now: Moment,
    ) -> Result<Lease, LimitRefusal> {
        let LeaseRequest { who, limits } = request;
        let mut script = self.scripts.lease.prepare_invoke();
        script
            .key(self.key("sessions", who.client))
            .key(self.key("starts", who.client))
            .key(self.day_key(who.client, now));
        for key in self.revocation_keys(who) {
            script.key(key);
        }
        script
            .arg(who.session)
            .arg(millis(self.settings.lease_time))
            .arg(limit(limits.sessions_max.map(u64::from)))
            .arg(limit(limits.starts_per_minute.map(u64::from)))
            .arg(limit(limits.responses_per_day))
            .arg(limit(limits.tokens_per_day));
        // Made before the server is asked: dropping this future on the way gives the place back.
        let place = Place::new(self, who, Handle::current());
        let answer: Result<(String, u64, u64), _> = self.link.run(&script).await;
        let refusal = match answer {
            Ok((word, first, second)) => match word.as_str() {
                "ok" => {
                    let counted = ClientLimits {
                        starts_per_minute: limits.starts_per_minute.map(|_| u32::MAX),
                        ..ClientLimits::default()
                    };
                    let local = self.local_lease(
                        LeaseRequest {
                            who,
                            limits: &counted,
                        },
                        now,
                    );
                    return Ok(place.into_lease(local.await.and_then(Result::ok)));
                }
                "revoked" => LimitRefusal::Revoked,
                "sessions" => LimitRefusal::Sessions {
                    limit: limits.sessions_max.unwrap_or_default(),
                },
                "starts" => LimitRefusal::Starts {
                    limit: limits.starts_per_minute.unwrap_or_default(),
                    retry_after: Duration::from_millis(first),
                },
                "day" => day_refusal(limits, first, second, now),
                _ => StoreError::Unavailable("an answer of another kind".into()).into(),
            },
            Err(error) => match self.local_lease(request, now).await {
                Some(local) => return local.map(|local| place.into_lease(Some(local))),
                // Should the server have heard it all the same, the place is given back.
                None => return Err(error.into()),
            },
        };
        place.was_not_given();
        Err(refusal)
    }

    async fn local_lease(
        &self,
        request: LeaseRequest<'_>,
        now: Moment,
    ) -> Option<Result<Lease, LimitRefusal>> {
        match &self.local {
            Some(local) => Some(local.lease(request, now).await),
            None => None,
        }
    }

    async fn add(&self, client: &str, usage: Usage, now: Moment) -> Result<Usage, StoreError> {
        let local = match &self.local {
            Some(local) => Some(local.spend(client, usage, now).await),
            None => None,
        };
        let mut script = self.scripts.spend.prepare_invoke();
        script
            .key(self.day_key(client, now))
            .arg(usage.responses.min(SPEND_MAX))
            .arg(usage.tokens.min(SPEND_MAX));
        match (self.link.run::<(u64, u64)>(&script).await, local) {
            (Ok((responses, tokens)), _) => Ok(Usage { responses, tokens }),
            (Err(_), Some(local)) => local,
            (Err(error), None) => Err(error),
        }
    }

    async fn use_up(
        &self,
        token: &TokenId,
        expires_at: SystemTime,
        now: Moment,
    ) -> Result<(), UseRefusal> {
        let left = expires_at
            .duration_since(now.wall)
            .ok()
            .filter(|left| !left.is_zero())
            .ok_or(UseRefusal::Expired)?;
        let mut script = self.scripts.use_once.prepare_invoke();
        script
            .key(self.key("used", token.as_str()))
            .key(self.key("revoked:token", token.as_str()))
            // A replica whose clock is behind would take the token for valid a little longer.
            .arg(millis(left + talkline_auth::grant::CLOCK_SKEW * 2));
        // Used here before, perhaps during an outage of which the server knows nothing. Of those who ask at
        // the same time, the one that is first here is the only one to ask the server: another that came
        // first there would be told that it had won, and be refused here.
        if let Some(local) = &self.local {
            local.use_once(token, expires_at, now).await?;
        }
        match self.link.run::<String>(&script).await {
            Ok(word) if word == "revoked" => Err(UseRefusal::Revoked),
            Ok(word) if word == "used" => Err(UseRefusal::Used),
            Ok(_) => Ok(()),
            Err(_) if self.local.is_some() => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    async fn write_down(
        &self,
        target: Revocation,
        time: Duration,
        now: Moment,
    ) -> Result<(), StoreError> {
        let key = match &target {
            Revocation::Token(token) => self.key("revoked:token", token.as_str()),
            Revocation::Session(session) => self.key("revoked:session", session),
            Revocation::Client(client) => self.key("revoked:client", client),
        };
        // Here at once, whether the others hear of it or not.
        if let Some(local) = &self.local {
            local.revoke(target, time, now).await?;
        }
        let mut script = self.scripts.revoke.prepare_invoke();
        script.key(key).arg(millis(time.min(REVOCATION_MAX)).max(1));
        self.link.run::<u64>(&script).await.map(drop)
    }

    async fn is_revoked(&self, who: SessionRef<'_>, now: Moment) -> Result<bool, StoreError> {
        if let Some(local) = &self.local
            && local.revoked(who, now).await?
        {
            return Ok(true);
        }
        let mut script = self.scripts.revoked.prepare_invoke();
        for key in self.revocation_keys(who) {
            script.key(key);
        }
        Ok(self.link.run::<u64>(&script).await? > 0)
    }

    async fn keep(&self, session: &str) -> Result<(), StoreError> {
        let Some(client) = self.places().get(session).cloned() else {
            return Ok(());
        };
        let mut script = self.scripts.renew.prepare_invoke();
        script
            .key(self.key("sessions", &client))
            .arg(session)
            .arg(millis(self.settings.lease_time));
        self.link.run::<u64>(&script).await.map(drop)
    }
}

/// A place that may have been taken. Given back when dropped.
struct Place {
    shared: Arc<Shared>,
    client: String,
    session: String,
    runtime: Handle,
    is_taken: bool,
}

impl Place {
    fn new(shared: &Arc<Shared>, who: SessionRef<'_>, runtime: Handle) -> Self {
        Self {
            shared: Arc::clone(shared),
            client: who.client.to_owned(),
            session: who.session.to_owned(),
            runtime,
            is_taken: true,
        }
    }

    /// The server said no: there is nothing to give back.
    fn was_not_given(mut self) {
        self.is_taken = false;
    }

    fn into_lease(self, local: Option<Lease>) -> Lease {
        let session = self.session.clone();
        let renew_every = self.shared.settings.lease_time / 3;
        let places = (session.clone(), self.client.clone());
        self.shared.places().insert(places.0, places.1);
        Lease::new(session, Some(renew_every), move || drop((self, local)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.is_taken {
            return;
        }
        self.shared.places().remove(&self.session);
        let shared = Arc::clone(&self.shared);
        let key = shared.key("sessions", &self.client);
        let session = std::mem::take(&mut self.session);
        self.runtime.spawn(async move {
            let mut script = shared.scripts.give_back.prepare_invoke();
            script.key(key).arg(session);
            // When the server does not answer, the place is free when its time is up.
            let _ = shared.link.run::<u64>(&script).await;
        });
    }
}

impl LimitStore for RedisStore {
    fn name(&self) -> &'static str {
        "redis"
    }

    fn health(&self) -> Option<StoreHealth> {
        Some(self.0.link.health())
    }

    fn lease<'a>(
        &'a self,
        request: LeaseRequest<'a>,
        now: Moment,
    ) -> LimitFuture<'a, Result<Lease, LimitRefusal>> {
        Box::pin(self.0.take(request, now))
    }

    fn renew<'a>(&'a self, lease: &'a Lease, _: Moment) -> LimitFuture<'a, Result<(), StoreError>> {
        Box::pin(self.0.keep(lease.session()))
    }

    fn spend<'a>(
        &'a self,
        client: &'a str,
        usage: Usage,
        now: Moment,
    ) -> LimitFuture<'a, Result<Usage, StoreError>> {
        Box::pin(self.0.add(client, usage, now))
    }

    fn use_once<'a>(
        &'a self,
        token: &'a TokenId,
        expires_at: SystemTime,
        now: Moment,
    ) -> LimitFuture<'a, Result<(), UseRefusal>> {
        Box::pin(self.0.use_up(token, expires_at, now))
    }

    fn revoke<'a>(
        &'a self,
        target: Revocation,
        time: Duration,
        now: Moment,
    ) -> LimitFuture<'a, Result<(), StoreError>> {
        Box::pin(self.0.write_down(target, time, now))
    }

    fn revoked<'a>(
        &'a self,
        session: SessionRef<'a>,
        now: Moment,
    ) -> LimitFuture<'a, Result<bool, StoreError>> {
        Box::pin(self.0.is_revoked(session, now))
    }
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore")
            .field("server", self.0.link.server())
            .field("settings", &self.0.settings)
            .field("sessions", &self.0.places().len())
            .finish()
    }
}

fn day_refusal(limits: &ClientLimits, responses: u64, tokens: u64, now: Moment) -> LimitRefusal {
    let seconds = since_epoch(now).as_secs() % DAY.as_secs();
    // The script compared with the same limits, so that one of them is reached.
    let exhausted = Exhausted::day(limits, Usage { responses, tokens }).unwrap_or(
        Exhausted::DayTokens(limits.tokens_per_day.unwrap_or_default()),
    );
    LimitRefusal::Budget {
        exhausted,
        retry_after: DAY - Duration::from_secs(seconds),
    }
}

/// A limit as the scripts read it; what Lua cannot count exactly is no limit anybody reaches.
fn limit(limit: Option<u64>) -> i64 {
    const EXACT: i64 = 1 << 53;
    limit.map_or(-1, |limit| i64::try_from(limit).unwrap_or(EXACT).min(EXACT))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn since_epoch(now: Moment) -> Duration {
    now.wall.duration_since(UNIX_EPOCH).unwrap_or_default()
}
