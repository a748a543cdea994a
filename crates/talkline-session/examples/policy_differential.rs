//! Random events by the million, each judged by the guard and by the oracle of `tests/policy`:
//!
//! ```console
//! cargo run --release -p talkline-session --example policy_differential -- 1000000
//! ```
//!
//! A second number is the seed to begin at. The last line says how many documents were tried, how many
//! of them went on and how many were blocked; a difference ends the run with its seed.
#![expect(clippy::print_stdout, reason = "it is a command-line program")]

#[path = "../tests/policy/differ.rs"]
mod differ;
#[path = "../tests/policy/drive.rs"]
mod drive;
#[path = "../tests/policy/generate.rs"]
mod generate;
#[path = "../tests/policy/oracle.rs"]
mod oracle;

use std::process::ExitCode;

use generate::Random;

fn main() -> ExitCode {
    let numbers: Vec<u64> = std::env::args()
        .skip(1)
        .filter_map(|n| n.parse().ok())
        .collect();
    let count = numbers.first().copied().unwrap_or(100_000);
    let first = numbers.get(1).copied().unwrap_or(0);
    let (mut passed, mut blocked) = (0u64, 0u64);
    for seed in first..first.saturating_add(count) {
        let mut random = Random(seed);
        let rules = generate::rules(&mut random);
        let helpers = generate::helpers(&mut random);
        let message = generate::message(&mut random);
        let cuts = generate::cuts(&mut random, message.len());
        if let Some(difference) = differ::difference(&rules, &helpers, &message, &cuts) {
            println!("seed {seed}: {}", String::from_utf8_lossy(&message));
            println!("{rules:?}\n{helpers:?}\n{difference}");
            return ExitCode::FAILURE;
        }
        match oracle::outcome(&rules, &helpers, &message) {
            oracle::Outcome::Pass(_) => passed += 1,
            oracle::Outcome::Blocked => blocked += 1,
        }
    }
    println!("{count} documents, {passed} went on, {blocked} blocked, 0 differences");
    ExitCode::SUCCESS
}
