//! The simulator and the caller over real sockets.
#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

mod bench;
mod chaos;
mod identity;
mod misbehaviours;
mod refusals;
mod running;
mod turns;
