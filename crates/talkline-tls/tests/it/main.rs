//! The stream against tokio-rustls and rustls servers.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on is a failed one"
)]

mod costs;
mod ends;
mod far;
mod handshakes;
mod traffic;
