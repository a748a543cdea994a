//! The service in this process, against upstreams made of a few bytes.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the message")]

mod refusals;
