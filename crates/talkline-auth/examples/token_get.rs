//! Measures how long a session takes to read the token in use.
//!
//! `cargo run --release -p talkline-auth --example token_get`
#![allow(clippy::print_stdout, reason = "the measurement is the output")]
#![allow(
    clippy::disallowed_methods,
    reason = "a measurement needs clocks, which the crate itself does not read"
)]

use std::{
    hint::black_box,
    thread,
    time::{Duration, Instant, SystemTime},
};

use talkline_auth::{FetchedToken, Jitter, Moment, Secret, TokenCell, TokenRules, TokenState};

const READS: u32 = 5_000_000;

fn main() {
    let cell = filled();
    println!("one thread:  {:6.1} ns", measure(&cell));
    let busy = thread::scope(|scope| {
        let other = scope.spawn(|| measure(&cell));
        let here = measure(&cell);
        other.join().map_or(here, |there| here.max(there))
    });
    println!("two threads: {busy:6.1} ns");
}

/// Nanoseconds of one read, that of the two clocks included.
fn measure(cell: &TokenCell) -> f64 {
    let started = Instant::now();
    for _ in 0..READS {
        let _ = black_box(cell.get(black_box(now())));
    }
    started.elapsed().as_secs_f64() * 1e9 / f64::from(READS)
}

fn filled() -> TokenCell {
    let now = now();
    let mut state = TokenState::new(TokenRules::default(), "example", now);
    let token = FetchedToken {
        // About as long as a managed identity's token.
        secret: Secret::new("e".repeat(1800)),
        time_to_live: Duration::from_secs(24 * 60 * 60),
        refresh_in: None,
    };
    state.succeed(token, now, Jitter::from_bits(0));
    let cell = TokenCell::new("example");
    cell.publish(state.token(now));
    cell
}

fn now() -> Moment {
    Moment {
        monotonic: Instant::now(),
        wall: SystemTime::now(),
    }
}
