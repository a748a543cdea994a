//! The relay in a simulated network.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the message")]

mod costs;
mod twin;
