//! Decides how a client connection becomes a session: listen, admit, dial, relay, drain and report.
//!
//! The service as a library. [`Gateway::serve`] takes a bound listener and runs until it is told to
//! stop; everything that can be configured comes in as a resolved [`talkline_config::Config`].
//!
//! What it deliberately does not do: read files other than the certificates and key files it is
//! given, read environment variables, install a process-wide crypto provider or a log subscriber.
//!
//! ```no_run
//! # async fn run(config: talkline_config::Config) -> Result<(), Box<dyn std::error::Error>> {
//! use talkline_gateway::{Gateway, Options};
//!
//! let listener = tokio::net::TcpListener::bind(config.server.listen).await?;
//! let gateway = Gateway::new(config, Options::default())?;
//! let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
//! gateway.serve(listener, async { let _ = stopped.await; }).await;
//! # drop(stop);
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

mod admit;
pub mod callee;
mod connection;
mod dial;
mod direct;
pub mod doctor;
mod endpoints;
mod handshake;
mod head;
mod jwks;
mod keys;
mod limits;
pub mod metrics;
mod outgoing;
mod overload;
mod places;
mod proxies;
mod reach;
mod refusal;
mod reload;
mod report;
mod rules;
mod server;
mod sockets;
pub mod tls;
mod tokens;
mod ui;

pub use dial::ResolveOverride;
pub use keys::KeyReader;
pub use metrics::Metrics;
pub use reload::{ReloadError, Reloader};
pub use report::SessionRecord;
pub use server::{Gateway, Options, StartError, listeners};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
