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
    let fixed = now();
    let alone = measure(|| cell.get(black_box(fixed)));
    println!("get:                           {alone:6.1} ns");
    let with_clocks = measure(|| cell.get(now()));
    println!("get and both clocks:           {with_clocks:6.1} ns");
    let contended = thread::scope(|scope| {
        let other = scope.spawn(|| measure(|| cell.get(black_box(fixed))));
        let here = measure(|| cell.get(black_box(fixed)));
        other.join().map_or(here, |there| here.max(there))
    });
    println!("get, two threads at once:      {contended:6.1} ns");
}

/// Nanoseconds of one read.
fn measure<T>(read: impl Fn() -> T) -> f64 {
    let started = Instant::now();
    for _ in 0..READS {
        let _ = black_box(read());
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
