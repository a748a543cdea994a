//! Every source against a fake of its service, on loopback.

#![expect(clippy::unwrap_used, reason = "tests")]

mod application;
mod canary;
mod child;
mod fake;
mod managed_identity;
