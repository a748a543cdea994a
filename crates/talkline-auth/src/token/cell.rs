//! The place where sessions find the token that is in use.

use std::{
    fmt,
    sync::{Arc, PoisonError, RwLock},
};

use super::{Bearer, Moment, TokenError};

/// A handle to the token in use, shared by everything that signs in as one identity.
///
/// Cloning it gives another handle to the same token. It is read for every session and written by
/// one driver, which owns the [`TokenState`](super::TokenState); no lock is held for longer than it
/// takes to count a reference.
#[derive(Clone)]
pub struct TokenCell(Arc<Inner>);

struct Inner {
    source_name: &'static str,
    current: RwLock<Result<Bearer, TokenError>>,
}

impl TokenCell {
    /// A cell without a token. `source_name` is the [`TokenSource::name`] of what will fill it.
    ///
    /// [`TokenSource::name`]: super::TokenSource::name
    pub fn new(source_name: &'static str) -> Self {
        let none = TokenError::new(source_name, "token_pending", "no token has come yet");
        Self(Arc::new(Inner {
            source_name,
            current: RwLock::new(Err(none)),
        }))
    }

    /// The token that may be presented now.
    ///
    /// # Errors
    ///
    /// Why there is none. A token that has expired since it was published is taken back, so that
    /// [`current`](Self::current) does not give it either.
    pub fn get(&self, now: Moment) -> Result<Bearer, TokenError> {
        let current = self.current()?;
        if current.is_usable(now) {
            return Ok(current);
        }
        let expired = TokenError::new(
            self.0.source_name,
            "token_expired",
            "the token has expired and no other has come",
        );
        let mut published = self
            .0
            .current
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        // The driver may have published another one between the two locks.
        if published.as_ref().is_ok_and(|token| !token.is_usable(now)) {
            *published = Err(expired);
        }
        published.clone()
    }

    /// The token that was published last, by a driver that takes it back when it expires.
    ///
    /// # Errors
    ///
    /// Why there is none.
    pub fn current(&self) -> Result<Bearer, TokenError> {
        self.0
            .current
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Replaces what callers find. For the driver.
    pub fn publish(&self, token: Result<Bearer, TokenError>) {
        *self
            .0
            .current
            .write()
            .unwrap_or_else(PoisonError::into_inner) = token;
    }

    /// Name of the source that fills the cell.
    pub fn source_name(&self) -> &'static str {
        self.0.source_name
    }

    /// Whether both are handles to the same token.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl fmt::Debug for TokenCell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.current() {
            Ok(token) => write!(f, "TokenCell({}, {token:?})", self.0.source_name),
            Err(_) => write!(f, "TokenCell({}, no token)", self.0.source_name),
        }
    }
}
