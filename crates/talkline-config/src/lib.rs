//! Decides what a configuration means: files, variables and flags (as data) to typed settings, or every problem at once.
#![forbid(unsafe_code)]

mod config;
pub mod endpoint;
mod input;
mod keys;
mod problem;
mod read;
mod reader;
mod render;
mod resolve;
mod routes;
mod secret;
mod shown;
mod structure;
mod tree;

pub use config::{Clients, Config, Limits, Server, TlsFiles, Transport};
pub use input::{FlagValue, Format, Inputs, Setting, Source, SourceFile};
pub use problem::{Problem, Report, Severity, Style};
pub use resolve::resolve;
pub use routes::{RouteMatch, Routes, UnknownModel};

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
