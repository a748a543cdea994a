//! Random events by the million, each judged by the guard and by the oracle of `tests/policy`:
//!
//! ```console
//! cargo run --release -p talkline-session --example policy_differential -- 1000000
//! ```
//!
//! A second number is the seed to begin at. The last line says what became of the documents; a difference
//! ends the run with its seed.
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

use differ::Agreement;

fn main() -> ExitCode {
    let numbers: Vec<u64> = std::env::args()
        .skip(1)
        .filter_map(|n| n.parse().ok())
        .collect();
    let count = numbers.first().copied().unwrap_or(100_000);
    let first = numbers.get(1).copied().unwrap_or(0);
    let (mut passed, mut blocked, mut breached) = (0u64, 0u64, 0u64);
    for seed in first..first.saturating_add(count) {
        match generate::case(seed).agree() {
            Ok(Agreement::Passed) => passed += 1,
            Ok(Agreement::Blocked) => blocked += 1,
            Ok(Agreement::Breached) => breached += 1,
            Err(difference) => {
                println!("seed {seed}: {difference}");
                return ExitCode::FAILURE;
            }
        }
    }
    println!(
        "{count} documents: {passed} went on, {blocked} blocked, {breached} closed as audio in an odd shape; \
         0 differences"
    );
    ExitCode::SUCCESS
}
