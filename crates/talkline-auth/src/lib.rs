//! Decides who may open a session and which credential its upstream gets.
//!
//! Two halves that never meet: [`admission`] looks at what a *client* presented and says who it is;
//! [`Credential`] holds what the *relay* presents upstream, bound by type and by value to the one
//! [`Origin`] it was configured for. What changes over time, tokens and rotating keys, stands in a
//! [`TokenCell`] or a [`KeyCell`]; [`TokenState`] holds the rules. Nothing in this crate opens a
//! socket or reads a clock, a file or the environment.
//!
//! ```
//! use talkline_auth::{Azure, Credential, Origin, OriginRules, Secret};
//!
//! let origin = Origin::<Azure>::parse("https://voice.openai.azure.com", &OriginRules::default())?;
//! let credential = Credential::api_key(origin, Secret::new("0123456789abcdef"));
//! let sealed = credential.seal("/openai/v1/realtime?model=voice")?;
//! assert_eq!(sealed.host(), "voice.openai.azure.com");
//! assert_eq!(sealed.authentication().map(|(name, _)| name), Some("api-key"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

pub mod admission;
mod argon;
mod client;
mod clients;
mod credential;
mod failure;
pub mod grant;
mod key;
mod limit;
mod oidc;
mod origin;
mod secret;
mod source;
mod token;

pub use admission::{Admission, PresentedKey};
pub use argon::{Argon2Hash, Argon2HashError};
pub use client::{ANONYMOUS, AllowedRoutes, Client, ClientIdentity, ClientLimits, Means};
pub use clients::{ClientKey, ClientKeys, KeyForm, Lookup, SlowCheck};
pub use credential::{Credential, Presented, SealError, Sealed};
pub use failure::{Attempt, FailureLimiter, FailureRules, TooManyFailures};
pub use grant::{
    Grant, GrantLimits, KeyRing, MintError, Minted, RingKey, RingKeyError, TokenId, TokenRefusal,
};
pub use key::{KeyCell, KeyError, KeyFiles, KeySlot, LiveKey, parse_key};
pub use limit::{
    Exhausted, Lease, LeaseRequest, LimitFuture, LimitRefusal, LimitStore, MemoryBounds,
    MemoryStore, REVOCATION_MAX, Revocation, SessionBudget, SessionRef, StoreError, StoreHealth,
    Usage, UseRefusal,
};
pub use oidc::{
    KeySet, KeySetError, KeysAt, OidcIssuer, USER_TOKEN_BYTES_MAX, UserAlgorithm,
    UserAlgorithmError, UserCheck, UserRefusal,
};
pub use origin::{
    AZURE_SUFFIXES, Azure, Custom, OPENAI_HOSTS, OpenAi, Origin, OriginError, OriginRules,
    Provider, Scheme,
};
pub use secret::Secret;
pub use source::{Source, SourcePermit, SourcePermits};
pub use token::{
    Bearer, Demand, FetchedToken, Jitter, Moment, Rejection, Step, TokenCell, TokenError,
    TokenFuture, TokenRules, TokenSource, TokenState,
};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
