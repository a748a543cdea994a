//! What the load generator is made of: the wire, the traffic, the connections, what `/proc` tells.
//!
//! It measures a relay from outside. One thread holds both ends of every session, so that one clock
//! times a frame from the moment it was due to the moment its last byte arrived on the other side.
#![forbid(unsafe_code)]

pub mod connection;
pub mod job;
pub mod process;
pub mod tls;
pub mod traffic;
pub mod wire;
pub mod world;
