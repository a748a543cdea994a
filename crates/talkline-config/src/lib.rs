//! Decides what a configuration means: files, variables and flags (as data) to typed settings, or every problem at once.
//!
//! [`resolve`] reads everything into one tree in which each key and value knows its place, lays
//! flags over variables over files over defaults, and decides on that tree. Nothing in this crate
//! opens a file or a socket or looks at the clock or the environment; secret files are read through
//! a function that the caller brings.
//!
//! What keeps a secret in: a configuration holds references, [`Problem`]s quote values only where
//! they cannot be keys, and a [`Report`] keeps a copy of the files in which everything that may be
//! a secret is blotted out.
#![forbid(unsafe_code)]

mod config;
pub mod endpoint;
mod identity;
mod input;
mod keys;
mod policies;
mod prices;
mod problem;
mod read;
mod reader;
mod render;
mod resolve;
mod routes;
mod schema;
mod secret;
mod shown;
mod structure;
mod tree;

pub use config::{
    Admin, Clients, Config, LimitStoreConfig, Limits, RedisConfig, Refusals, Reload, Server,
    SocketBuffers, TlsFiles, Tokens, Transport, Ui,
};
pub use identity::{
    Application, ClientSecret, HostIdentity, Identity, IdentityKind, KeyPlace, KeyVaultReference,
    KeyVaultReferenceError, VaultIdentity, WatchedKey,
};
pub use input::{DeveloperTools, FlagValue, Format, Inputs, Setting, Source, SourceFile};
pub use policies::{Policies, UnknownPolicy};
pub use prices::{BilledTokens, ModelPrices, Prices};
pub use problem::{Problem, Report, Severity, Style};
pub use resolve::{resolve, web_origin};
pub use routes::{RouteMatch, Routes, UnknownModel};
pub use schema::{reference, schema};

/// What [`resolve`] makes of its inputs.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// The configuration to run.
    pub config: Config,
    /// What is probably not as meant. Never an error.
    pub warnings: Report,
    /// Every effective value with its source, sorted by key.
    pub settings: Vec<Setting>,
}

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
