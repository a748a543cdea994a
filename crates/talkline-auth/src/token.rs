//! Where bearer tokens come from, how long each is used, and who may read them.

mod cell;
mod life;

use std::{fmt, future::Future, pin::Pin, sync::Arc, time::Duration};

pub use cell::TokenCell;
pub use life::{Bearer, Demand, Jitter, Moment, Rejection, Step, TokenRules, TokenState};

use crate::Secret;

/// What [`TokenSource::fetch`] returns: a boxed future, so that sources of different kinds can
/// stand behind one pointer.
pub type TokenFuture<'a> =
    Pin<Box<dyn Future<Output = Result<FetchedToken, TokenError>> + Send + 'a>>;

/// Something that can be asked for a fresh bearer token.
///
/// A source holds no cache and sets no timer: how long a token is used, and when the next one is
/// asked for, is decided by the caller.
pub trait TokenSource: Send + Sync + fmt::Debug {
    /// A short name for logs: `managed-identity`, `workload-identity`, …
    fn name(&self) -> &'static str;

    /// Asks the identity service for a token.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future abandons the request; nothing is kept and the next call starts afresh.
    fn fetch(&self) -> TokenFuture<'_>;
}

/// A token as the identity service handed it out.
#[derive(Clone, Debug)]
pub struct FetchedToken {
    /// The bearer token.
    pub secret: Secret,
    /// How long it is valid, counted from the answer.
    pub time_to_live: Duration,
    /// When the service asks for the token to be renewed (`refresh_in` of managed identity and of
    /// Entra), counted from the answer. `None` leaves it to [`TokenRules`].
    pub refresh_in: Option<Duration>,
}

/// Why no token was obtained. Cheap to clone, so that every waiter gets the same answer.
///
/// `Display` says what happened; the next step, [`hint`](Self::hint), is printed apart from it.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{source_name} gave no token: {detail}")]
pub struct TokenError {
    /// The [`TokenSource::name`] of the source.
    pub source_name: &'static str,
    /// What kind of failure it is, in a word that stays the same: `identity_unavailable`,
    /// `entra_secret_expired`, `cli_logged_out`, …
    pub code: &'static str,
    /// What the identity service or the transport said, without any secret.
    pub detail: Arc<str>,
    /// What an operator can do about it, without any secret.
    pub hint: Option<Arc<str>>,
    /// The status that the identity service answered with, when it answered.
    pub http_status: Option<u16>,
    /// How long the identity service asks to be left alone, as it said it: without a limit.
    pub retry_after: Option<Duration>,
    /// Whether asking again is useless until somebody changes the configuration.
    pub permanent: bool,
}

impl TokenError {
    /// A failure that can pass by itself, without hint and without an answer from a service.
    pub fn new(source_name: &'static str, code: &'static str, detail: impl Into<Arc<str>>) -> Self {
        Self {
            source_name,
            code,
            detail: detail.into(),
            hint: None,
            http_status: None,
            retry_after: None,
            permanent: false,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
