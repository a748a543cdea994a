//! The gateway as its users see it: a listener, options, and answers over TCP.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the message")]

mod panics;
mod readiness;
mod refusals;
