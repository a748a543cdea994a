//! The real binary against the simulator, over loopback.
//!
//! Every test starts its own processes on ports that the system chose, waits for what they say, and
//! kills them at its end.

#![expect(
    clippy::print_stdout,
    reason = "a test says why it is skipped, outside CI"
)]
#![expect(
    unreachable_pub,
    reason = "one binary: what the modules share is public to it alone"
)]
#![expect(clippy::unwrap_used, reason = "in a test a panic is the message")]

mod admission;
mod browsers;
mod clients;
mod command_line;
mod doctor;
mod faults;
mod front_ends;
mod identity;
mod kit;
mod limits;
mod logs;
mod metrics;
#[cfg(feature = "otlp")]
mod otlp;
mod overload;
mod policies;
mod recording;
mod refusals;
mod reload;
mod restart;
mod scale_out;
mod shutdown;
mod talk;
mod tokens;
mod trap;
mod turns;
