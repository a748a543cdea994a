//! Every source against a fake of its service, on loopback.

#![expect(clippy::unwrap_used, reason = "tests")]

mod application;
mod canary;
mod certificate;
mod child;
mod fake;
mod managed_identity;
mod readme;
mod selection;
#[cfg(unix)]
mod tool;
#[cfg(feature = "key-vault")]
mod vault;
