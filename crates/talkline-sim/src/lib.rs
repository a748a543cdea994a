//! Decides how a conformant Azure Realtime endpoint, and those that its credentials come from, behave and misbehave,
//! on loopback: for the demo, for tests and for the CI of users.
//!
//! [`Simulator`] is the endpoint; [`caller`] holds one spoken turn with it, or with anything that speaks the same
//! protocol. Neither knows Talkline: the WebSocket framing here is a second, independent implementation, so that a
//! fault of the relay's cannot hide behind the same fault in its tests.
//!
//! [`chaos`] is a bad network to put in front of anything that listens on loopback.
//!
//! [`Collector`] receives OpenTelemetry's OTLP.
//!
//! [`identity`] has the fakes of Entra, managed identity, Key Vault and the Azure command lines.
//!
//! It never leaves the machine, calls no service, verifies no signature of a token that it is sent as a credential,
//! and understands no speech: it knows its own clips and describes everything else by its length.
#![forbid(unsafe_code)]
#![doc = include_str!("../README.md")]

pub mod caller;
pub mod chaos;
pub mod clips;
pub mod identity;
pub mod wav;

mod auth;
mod client_secrets;
mod clock;
mod collector;
mod handshake;
mod ids;
mod misbehaviour;
mod record;
mod redis_server;
mod refusal;
mod server;
mod session;
mod simulator;
mod ws;

pub use auth::{BearerRule, unsigned_token};
pub use collector::{Attributes, CollectedPoint, CollectedSpan, Collector};
pub use misbehaviour::{Misbehaviour, Scenario};
pub use record::SeenRequest;
pub use redis_server::RedisServer;
pub use refusal::Refusal;
pub use simulator::{Builder, DEFAULT_API_KEY, Pace, Profile, Reply, Running, Simulator};
