//! Limits while they are live: a client's place, its budget, and the end of both.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use talkline_auth::{
    Client, ClientLimits, Exhausted, Lease, LeaseRequest, LimitRefusal, Moment, SessionBudget,
    SessionRef, StoreError, Usage,
};
use talkline_session::{ErrorEvent, Limits as SessionLimits, Rate, ResponseUsage, Stop};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, Interval, interval_at, timeout},
};
use tracing::{debug, warn};

use crate::{admit::unauthorised, refusal::HttpRefusal, server::Shared};

/// How often a store that others share is asked whether a session has been revoked.
const REVOCATION_POLL: Duration = Duration::from_secs(1);
/// Longest wait for a store's answer.
const STORE_TIME_MAX: Duration = Duration::from_secs(2);

/// The time as limits want it.
pub(crate) fn now() -> Moment {
    Moment {
        monotonic: std::time::Instant::now(),
        wall: SystemTime::now(),
    }
}

/// The limits of one session: the relay's, or the client's where those are stricter.
pub(crate) fn session(relay: &Arc<SessionLimits>, client: &ClientLimits) -> Arc<SessionLimits> {
    let frames = client.frames_per_second;
    let own = ClientLimits {
        session_duration_max: client.session_duration_max,
        frames_per_second: frames,
        bytes_per_second: client.bytes_per_second,
        ..ClientLimits::default()
    };
    if own == ClientLimits::default() {
        return Arc::clone(relay);
    }
    let stricter = |relay: Option<u64>, client: Option<u64>| relay.into_iter().chain(client).min();
    let rate = relay.client_rate;
    let frames = stricter(rate.frames_max.map(u64::from), frames);
    Arc::new(SessionLimits {
        session_max: relay
            .session_max
            .into_iter()
            .chain(client.session_duration_max)
            .min(),
        client_rate: Rate {
            frames_max: frames.map(|frames| u32::try_from(frames).unwrap_or(u32::MAX)),
            bytes_max: stricter(rate.bytes_max, client.bytes_per_second),
        },
        ..(**relay).clone()
    })
}

/// Takes one of the client's places. It is given back when the lease is dropped.
///
/// # Errors
///
/// 429 or 403 by the client's limits, 503 when they cannot be counted.
///
/// # Cancel safety
///
/// Dropping the future gives back what was taken.
pub(crate) async fn lease(
    client: &Client,
    session: &str,
    shared: &Shared,
) -> Result<Lease, HttpRefusal> {
    let identity = client.identity();
    let request = LeaseRequest {
        who: SessionRef {
            client: &identity.name,
            session,
            token: client.token_id(),
        },
        limits: &identity.limits,
    };
    let leased = timeout(STORE_TIME_MAX, shared.store.lease(request, now())).await;
    leased
        .unwrap_or_else(|_| {
            let silent = StoreError::Unavailable("it does not answer".into());
            Err(LimitRefusal::Store(silent))
        })
        .map_err(|refusal| {
            let answer = unauthorised(refusal.status(), refusal.code(), refusal.to_string());
            match refusal.retry_after() {
                Some(wait) => answer.with_retry_after(wait),
                None => answer,
            }
        })
}

/// What one session uses. Clones count together.
#[derive(Clone)]
pub(crate) struct Meter(Arc<Metered>);

struct Metered {
    limits: ClientLimits,
    counts: Mutex<Counts>,
    changed: Notify,
}

struct Counts {
    budget: SessionBudget,
    /// Used, but not yet told to the store.
    pending: Usage,
    exhausted: Option<Exhausted>,
}

impl Meter {
    /// `None` for a client without any budget: nobody would ask.
    pub(crate) fn new(limits: &ClientLimits) -> Option<Self> {
        let budgets = [
            limits.responses_per_session,
            limits.tokens_per_session,
            limits.responses_per_day,
            limits.tokens_per_day,
        ];
        budgets.iter().any(Option::is_some).then(|| {
            Self(Arc::new(Metered {
                limits: *limits,
                counts: Mutex::new(Counts {
                    budget: SessionBudget::new(limits),
                    pending: Usage::default(),
                    exhausted: None,
                }),
                changed: Notify::new(),
            }))
        })
    }

    /// Counts what a response cost. It is called while the response's last event passes, so it only
    /// adds; [`watch`] does the rest.
    pub(crate) fn observer(&self) -> impl FnMut(&ResponseUsage) + Send + 'static {
        let meter = self.clone();
        move |response| {
            let tokens = response.usage.map_or(0, |usage| usage.total_tokens);
            let used = Usage::response(tokens);
            {
                let mut counts = meter.counts();
                counts.pending = counts.pending.plus(used);
                let exhausted = counts.budget.spend(used);
                counts.exhausted = counts.exhausted.or(exhausted);
            }
            meter.0.changed.notify_one();
        }
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        // Nothing panics while it is held.
        self.0.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_daily_budget(&self) -> bool {
        self.0.limits.responses_per_day.is_some() || self.0.limits.tokens_per_day.is_some()
    }

    /// Tells the store what was used since it was last told, and whether that was the last of
    /// anything.
    async fn settle(&self, client: &str, shared: &Shared) -> Option<Exhausted> {
        let (pending, exhausted) = {
            let mut counts = self.counts();
            (std::mem::take(&mut counts.pending), counts.exhausted)
        };
        if !self.has_daily_budget() || pending == Usage::default() {
            return exhausted;
        }
        let spent = timeout(STORE_TIME_MAX, shared.store.spend(client, pending, now())).await;
        match spent {
            Ok(Ok(day)) => exhausted.or_else(|| Exhausted::day(&self.0.limits, day)),
            Ok(Err(error)) => {
                warn!(%error, "usage could not be written down");
                exhausted
            }
            Err(_) => {
                warn!("usage could not be written down: the limit store does not answer");
                exhausted
            }
        }
    }

    /// Tells the store what the session used at its very end.
    ///
    /// # Cancel safety
    ///
    /// The store may or may not know.
    pub(crate) async fn close(&self, client: &str, shared: &Shared) {
        self.settle(client, shared).await;
    }
}

impl fmt::Debug for Meter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Meter")
            .field("used", &self.counts().budget.used())
            .finish()
    }
}

/// A session whose limits are watched.
pub(crate) struct Watched<'a> {
    pub(crate) client: &'a Client,
    pub(crate) lease: &'a Lease,
    pub(crate) meter: Option<&'a Meter>,
}

/// Completes when the session has to end: its budget is used up, or somebody took it away. Renews
/// the lease meanwhile.
///
/// # Cancel safety
///
/// Nothing is lost but a renewal.
pub(crate) async fn watch(
    watched: Watched<'_>,
    mut revocations: watch::Receiver<u64>,
    shared: &Shared,
) -> Stop {
    let Watched {
        client,
        lease,
        meter,
    } = watched;
    let name = &client.identity().name;
    let who = SessionRef {
        client: name,
        session: lease.session(),
        token: client.token_id(),
    };
    // A store of this process alone changes by this process alone, which says so.
    let mut poll = Every::new(lease.renew_every().map(|_| REVOCATION_POLL));
    let mut renewal = Every::new(lease.renew_every());
    loop {
        let cause = tokio::select! {
            () = spent(meter) => Cause::Spent,
            // The other end lives as long as the service.
            changed = revocations.changed() => match changed {
                Ok(()) => Cause::Ask,
                Err(_) => Cause::Nothing,
            },
            () = poll.tick() => Cause::Ask,
            () = renewal.tick() => Cause::Renew,
        };
        // What is done seldom keeps no room in every session.
        let stop = match (cause, meter) {
            (Cause::Spent, Some(meter)) => {
                Box::pin(meter.settle(name, shared)).await.map(over_budget)
            }
            (Cause::Ask, _) => Box::pin(is_revoked(who, shared)).await.then(revoked),
            (Cause::Renew, _) => {
                Box::pin(renew(lease, shared)).await;
                None
            }
            (Cause::Spent | Cause::Nothing, _) => None,
        };
        if let Some(stop) = stop {
            return stop;
        }
    }
}

/// Why a session's limits are looked at.
enum Cause {
    /// A response was paid for.
    Spent,
    /// Somebody may have been revoked.
    Ask,
    /// The place wants to be kept.
    Renew,
    Nothing,
}

async fn spent(meter: Option<&Meter>) {
    match meter {
        Some(meter) => meter.0.changed.notified().await,
        None => std::future::pending().await,
    }
}

async fn is_revoked(who: SessionRef<'_>, shared: &Shared) -> bool {
    match timeout(STORE_TIME_MAX, shared.store.revoked(who, now())).await {
        Ok(Ok(revoked)) => return revoked,
        Ok(Err(error)) => debug!(%error, "the limit store does not say what is revoked"),
        Err(_) => debug!("the limit store does not answer"),
    }
    false
}

async fn renew(lease: &Lease, shared: &Shared) {
    let renewed = timeout(STORE_TIME_MAX, shared.store.renew(lease, now())).await;
    if !matches!(renewed, Ok(Ok(()))) {
        // The store itself says once that it is away.
        debug!("a session's place could not be renewed");
    }
}

/// A clock that ticks, or none: a timer costs memory that most sessions have no use for.
struct Every(Option<Interval>);

impl Every {
    fn new(period: Option<Duration>) -> Self {
        Self(period.map(|period| interval_at(Instant::now() + period, period)))
    }

    async fn tick(&mut self) {
        match &mut self.0 {
            Some(interval) => {
                interval.tick().await;
            }
            None => std::future::pending().await,
        }
    }
}

fn over_budget(exhausted: Exhausted) -> Stop {
    let message =
        format!("{exhausted}. Next step: ask the operator for more, or wait for the next day.");
    stop(
        "event_budget_exhausted",
        "rate_limit_error",
        exhausted.code(),
        &message,
    )
}

fn revoked() -> Stop {
    stop(
        "event_access_revoked",
        "authentication_error",
        "access_revoked",
        "Access to this session has been revoked. Next step: ask the operator.",
    )
}

fn stop(event_id: &str, kind: &str, code: &str, message: &str) -> Stop {
    Stop {
        code: 1008,
        reason: code.to_owned(),
        event: Some(
            ErrorEvent {
                event_id,
                kind,
                code,
                message,
                param: None,
            }
            .to_json(),
        ),
    }
}
