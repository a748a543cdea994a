//! The real binary against the simulator, over loopback.
//!
//! Every test starts its own processes on ports that the system chose, waits for what they say, and
//! kills them at its end.

#![expect(
    unreachable_pub,
    reason = "one binary: what the modules share is public to it alone"
)]
#![expect(clippy::unwrap_used, reason = "in a test a panic is the message")]

mod admission;
mod command_line;
mod doctor;
mod front_ends;
mod identity;
mod kit;
mod logs;
mod metrics;
mod recording;
mod refusals;
mod shutdown;
mod trap;
mod turns;
