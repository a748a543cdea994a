//! Decides nothing: keeps the live counts of all clients in Redis or Valkey, so that replicas share
//! them.
//!
//! [`RedisStore`] is a [`LimitStore`](talkline_auth::LimitStore). Every decision is one Lua script, so
//! that a check and its count are one step for all replicas, and every key has a time to live, so that
//! a replica that dies leaves nothing behind. The server's clock counts; the replicas' clocks may
//! differ. What happens while the server is away is said by [`OnOutage`]; a session that runs is never
//! cut for it.
//!
//! It does not know what is counted or when. The wire protocol is the `redis` crate's; the connection is
//! made here, because TLS has one crypto provider in Talkline, given by the caller.
#![forbid(unsafe_code)]

mod link;
mod scripts;
mod server;
mod store;

pub use server::{Server, ServerError};
pub use store::{OnOutage, RedisStore, Settings};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
