//! What clients use, and what they have left: sessions at a time, starts, budgets, one-time tokens,
//! revocations.

mod budget;
mod memory;

use std::{fmt, future::Future, pin::Pin, time::Duration};

pub use budget::{Exhausted, SessionBudget, Usage};
pub use memory::{MemoryBounds, MemoryStore};

use crate::{ClientLimits, Moment, grant::TokenId};

/// What the methods of [`LimitStore`] return: a boxed future, so that stores of different kinds can
/// stand behind one pointer.
pub type LimitFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Where the live counts of all clients are kept: in this process ([`MemoryStore`]), or where every
/// replica sees them.
///
/// A store fails closed: what it cannot count is refused.
pub trait LimitStore: Send + Sync + fmt::Debug {
    /// A short name for logs: `memory`, …
    fn name(&self) -> &'static str;

    /// Whether the store answers, for metrics. `None` for one that cannot fail to.
    fn health(&self) -> Option<StoreHealth> {
        None
    }

    /// Takes one of a client's places, to be held until its session is over.
    ///
    /// Refuses by the first of these that is reached: a revocation, the day's budget, sessions at
    /// one time, starts per minute. Only an accepted request counts as a start. Check and count are
    /// one step: however many ask at once, no more than the limit get in.
    ///
    /// # Errors
    ///
    /// [`LimitRefusal`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives back what was taken.
    fn lease<'a>(
        &'a self,
        request: LeaseRequest<'a>,
        now: Moment,
    ) -> LimitFuture<'a, Result<Lease, LimitRefusal>>;

    /// Says that a session still runs. To be called every [`Lease::renew_every`].
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the store does not answer. The session may go on; the store forgets its
    /// place when it hears nothing for long.
    ///
    /// # Cancel safety
    ///
    /// The renewal may or may not have happened.
    fn renew<'a>(
        &'a self,
        lease: &'a Lease,
        now: Moment,
    ) -> LimitFuture<'a, Result<(), StoreError>>;

    /// Adds what one response used to the client's day, and returns the day so far. The day is that
    /// of `now`, by UTC.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; the caller goes on with what it knows about the session alone.
    ///
    /// # Cancel safety
    ///
    /// The usage may or may not have been added.
    fn spend<'a>(
        &'a self,
        client: &'a str,
        usage: Usage,
        now: Moment,
    ) -> LimitFuture<'a, Result<Usage, StoreError>>;

    /// Uses a one-time token up. Of any number of callers with the same token, exactly one gets
    /// `Ok`.
    ///
    /// The store remembers the token until it expires. When it has no room to remember one more it
    /// refuses, because a token that is not remembered could be used again.
    ///
    /// # Errors
    ///
    /// [`UseRefusal`].
    ///
    /// # Cancel safety
    ///
    /// The token may or may not have been used up.
    fn use_once<'a>(
        &'a self,
        token: &'a TokenId,
        expires_at: std::time::SystemTime,
        now: Moment,
    ) -> LimitFuture<'a, Result<(), UseRefusal>>;

    /// Revokes a token, a session or a client for `time`, at most [`REVOCATION_MAX`].
    ///
    /// # Errors
    ///
    /// [`StoreError`] when it could not be written down, which includes a full table: the operator
    /// is told rather than an older revocation forgotten.
    ///
    /// # Cancel safety
    ///
    /// The revocation may or may not have happened.
    fn revoke<'a>(
        &'a self,
        target: Revocation,
        time: Duration,
        now: Moment,
    ) -> LimitFuture<'a, Result<(), StoreError>>;

    /// Whether a running session's token, the session itself or its client has been revoked. Asked
    /// about once a second by every session.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the store does not answer. The caller asks again.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    fn revoked<'a>(
        &'a self,
        session: SessionRef<'a>,
        now: Moment,
    ) -> LimitFuture<'a, Result<bool, StoreError>>;
}

/// Longest time that a revocation is kept: the longest session that can be configured.
pub const REVOCATION_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// A session in terms of what can be revoked.
#[derive(Clone, Copy, Debug)]
pub struct SessionRef<'a> {
    /// The client's name.
    pub client: &'a str,
    /// The session's id, as in logs.
    pub session: &'a str,
    /// The `ek_` token that it was opened with.
    pub token: Option<&'a TokenId>,
}

/// A request for a place.
#[derive(Clone, Copy, Debug)]
pub struct LeaseRequest<'a> {
    /// Whose place it is, and who may be revoked.
    pub who: SessionRef<'a>,
    /// What the client may use.
    pub limits: &'a ClientLimits,
}

/// A client's place, given back when dropped, so that every way out of a session gives it back.
#[must_use = "the place is given back when the lease is dropped"]
pub struct Lease {
    session: String,
    renew_every: Option<Duration>,
    give_back: Option<Box<dyn FnOnce() + Send + Sync>>,
}

impl Lease {
    /// A place for `session`. `give_back` is called once, when the lease is dropped; it must not
    /// block.
    pub fn new(
        session: impl Into<String>,
        renew_every: Option<Duration>,
        give_back: impl FnOnce() + Send + Sync + 'static,
    ) -> Self {
        Self {
            session: session.into(),
            renew_every,
            give_back: Some(Box::new(give_back)),
        }
    }

    /// The session that it is for.
    pub fn session(&self) -> &str {
        &self.session
    }

    /// How often [`LimitStore::renew`] is to be called. `None`: never; the store cannot outlive the
    /// process that holds the lease.
    pub fn renew_every(&self) -> Option<Duration> {
        self.renew_every
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(give_back) = self.give_back.take() {
            give_back();
        }
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lease({})", self.session)
    }
}

/// Why a client gets no session. Its own limits are meant: the relay as a whole may have room.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LimitRefusal {
    /// The token, the session id or the client has been revoked.
    #[error("access has been revoked")]
    Revoked,
    /// The day's budget is used up.
    #[error("{exhausted}")]
    Budget {
        /// Which budget it is.
        exhausted: Exhausted,
        /// Until the next day begins, by UTC.
        retry_after: Duration,
    },
    /// The client has as many sessions open as it may have.
    #[error("this client already has its {limit} sessions open")]
    Sessions {
        /// The client's limit.
        limit: u32,
    },
    /// The client has begun as many sessions in the last minute as it may.
    #[error("this client may begin {limit} sessions a minute")]
    Starts {
        /// The client's limit.
        limit: u32,
        /// When there is room for one more.
        retry_after: Duration,
    },
    /// It cannot be counted.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl LimitRefusal {
    /// HTTP status of the refusal.
    pub fn status(&self) -> u16 {
        match self {
            Self::Revoked => 403,
            Self::Budget { .. } | Self::Sessions { .. } | Self::Starts { .. } => 429,
            Self::Store(_) => 503,
        }
    }

    /// Stable code of the refusal.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Revoked => "access_revoked",
            Self::Budget { exhausted, .. } => exhausted.code(),
            Self::Sessions { .. } => "client_sessions_max",
            Self::Starts { .. } => "client_starts_per_minute",
            Self::Store(_) => "limit_store_unavailable",
        }
    }

    /// When trying again can help, as far as that is known.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Budget { retry_after, .. } | Self::Starts { retry_after, .. } => {
                Some(*retry_after)
            }
            Self::Sessions { .. } | Self::Store(_) => Some(Duration::from_secs(1)),
            Self::Revoked => None,
        }
    }
}

/// Why a one-time token cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UseRefusal {
    /// It has been used.
    #[error("the token has been used already; each token opens one session")]
    Used,
    /// It has been revoked.
    #[error("the token has been revoked")]
    Revoked,
    /// It expired before it could be used up.
    #[error("the token has expired")]
    Expired,
    /// Whether it has been used cannot be known or written down.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl UseRefusal {
    /// HTTP status of the refusal.
    pub fn status(&self) -> u16 {
        match self {
            Self::Used | Self::Revoked | Self::Expired => 401,
            Self::Store(_) => 503,
        }
    }

    /// Stable code of the refusal.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Used => "client_token_used",
            Self::Revoked => "client_token_revoked",
            Self::Expired => "client_token_expired",
            Self::Store(_) => "limit_store_unavailable",
        }
    }
}

/// How a store that others run does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreHealth {
    /// Whether it answered when it was last asked. True before the first question.
    pub is_up: bool,
    /// Questions that it did not answer.
    pub failures: u64,
}

/// A store that cannot do what it is asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// One of its tables is full of what must not be forgotten.
    #[error("the table of {0} is full")]
    Full(&'static str),
    /// It does not answer, or answers with an error; the text holds no secret.
    #[error("the limit store is not available: {0}")]
    Unavailable(String),
}

/// What is revoked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Revocation {
    /// One `ek_` token: it opens no session, and the session that it opened ends.
    Token(TokenId),
    /// One session, by the id in logs.
    Session(String),
    /// A client: its sessions end, its tokens open none, and it gets no new ones. To shut a client
    /// out for good, its key leaves the configuration.
    Client(String),
}
