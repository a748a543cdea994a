//! The simulator and the caller over real sockets.

mod bench;
mod misbehaviours;
mod refusals;
mod running;
mod turns;
