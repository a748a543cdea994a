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

use crate::{
    admit::unauthorised,
    connection::{Lifecycle, Notice},
    refusal::HttpRefusal,
    server::{Shared, farewell},
};

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

/// What a session is told of by the service.
pub(crate) struct Notices {
    channel: watch::Receiver<Notice>,
    /// How often something had been revoked when the session last looked.
    revocations: u64,
}

impl Notices {
    /// Revocations from now on, and the end of the service at any time.
    pub(crate) fn from_now_on(shared: &Shared) -> Self {
        let channel = shared.notices.subscribe();
        let revocations = channel.borrow().revocations;
        Self {
            channel,
            revocations,
        }
    }

    /// What there is to do now, if anything.
    fn look(&mut self) -> Option<Cause> {
        let notice = *self.channel.borrow_and_update();
        if notice.lifecycle == Lifecycle::Ending {
            return Some(Cause::ServiceEnds);
        }
        let known = std::mem::replace(&mut self.revocations, notice.revocations);
        (known != notice.revocations).then_some(Cause::Ask)
    }

    async fn changed(&mut self) {
        // The other end lives as long as the service, which ends this task as well.
        if self.channel.changed().await.is_err() {
            std::future::pending().await
        }
    }
}

/// Completes when the session has to end: the service ends, its budget is used up, or somebody took it
/// away. Renews the lease meanwhile.
///
/// # Cancel safety
///
/// Nothing is lost but a renewal.
pub(crate) async fn watch(watched: Watched<'_>, mut notices: Notices, shared: &Shared) -> Stop {
    let Watched {
        client,
        lease,
        meter,
    } = watched;
    let mut clocks = Clocks::of(lease);
    loop {
        // What is done seldom, or by few, keeps no room in every session.
        let cause = match notices.look() {
            Some(cause) => cause,
            None if clocks.is_none() && meter.is_none() => {
                notices.changed().await;
                continue;
            }
            None => Box::pin(next(meter, clocks.as_deref_mut(), &mut notices)).await,
        };
        let name = &client.identity().name;
        let stop = match (cause, meter) {
            (Cause::ServiceEnds, _) => Some(farewell()),
            (Cause::Spent, Some(meter)) => {
                Box::pin(meter.settle(name, shared)).await.map(over_budget)
            }
            (Cause::Ask, _) => {
                let who = SessionRef {
                    client: name,
                    session: lease.session(),
                    token: client.token_id(),
                };
                Box::pin(is_revoked(who, shared)).await.then(revoked)
            }
            (Cause::Renew, _) => {
                Box::pin(renew(lease, shared)).await;
                None
            }
            (Cause::Spent | Cause::Notice, _) => None,
        };
        if let Some(stop) = stop {
            return stop;
        }
    }
}

async fn next(meter: Option<&Meter>, clocks: Option<&mut Clocks>, notices: &mut Notices) -> Cause {
    tokio::select! {
        () = spent(meter) => Cause::Spent,
        () = notices.changed() => Cause::Notice,
        cause = tick(clocks) => cause,
    }
}

/// Why a session's limits are looked at.
enum Cause {
    /// The grace of a service that shuts down is over.
    ServiceEnds,
    /// A response was paid for.
    Spent,
    /// Somebody may have been revoked.
    Ask,
    /// The place wants to be kept.
    Renew,
    /// The service says something.
    Notice,
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

/// What a store that others share is asked and told again and again. One of this process alone changes by
/// this process alone, which says so.
struct Clocks {
    poll: Interval,
    renewal: Interval,
}

impl Clocks {
    fn of(lease: &Lease) -> Option<Box<Self>> {
        let every = |period| interval_at(Instant::now() + period, period);
        let renewal = lease.renew_every()?;
        Some(Box::new(Self {
            poll: every(REVOCATION_POLL),
            renewal: every(renewal),
        }))
    }
}

async fn tick(clocks: Option<&mut Clocks>) -> Cause {
    let Some(Clocks { poll, renewal }) = clocks else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = poll.tick() => Cause::Ask,
        _ = renewal.tick() => Cause::Renew,
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
