//! Protocol suites against the real binary.
//!
//! Each suite starts the product as a user would, with scripted peers on both sides, and judges what
//! comes out of it on the wire.

mod autobahn;
mod echo;
mod frames;
mod peers;
mod talkline;
mod wire;

use std::path::Path;

use anyhow::{Result, bail};

use crate::report::Tally;
use crate::sdk;
use crate::test::Outcome;
use crate::workspace::Workspace;

pub(crate) use autobahn::Runner;

const USAGE: &str = "\
usage: cargo xtask conformance [--frames FILE] [--autobahn] [--wstest]

  --frames FILE   a corpus of frames, one JSON object a line (see docs/operations/conformance.md)
  --autobahn      the Autobahn cases through the relay, both ways, by kosoku
  --wstest        the same by the original suite, which needs CPython 2.7";

/// Runs the suites that the arguments name; the last line is their sum.
///
/// # Errors
/// When an argument is unknown, a suite cannot run, or a case failed.
pub(crate) fn run(workspace: &Workspace, arguments: &[&str]) -> Result<()> {
    let binary = sdk::build(workspace)?;
    let mut outcome = Outcome::default();
    let mut rest = arguments;
    if rest.is_empty() {
        bail!(USAGE);
    }
    while let [argument, after @ ..] = rest {
        rest = match (*argument, after) {
            ("--frames", [file, after @ ..]) => {
                add(
                    &mut outcome,
                    "frames",
                    frames::run(workspace, &binary, Path::new(file)),
                );
                after
            }
            ("--autobahn", _) => {
                autobahn::add(workspace, &binary, Runner::Kosoku, &mut outcome);
                after
            }
            ("--wstest", _) => {
                autobahn::add(workspace, &binary, Runner::Wstest, &mut outcome);
                after
            }
            _ => bail!(USAGE),
        };
    }
    println!("{}", outcome.tally);
    match outcome.verdict(workspace.runs_in) {
        crate::test::Verdict::Passed => Ok(()),
        crate::test::Verdict::Failed(reason) => bail!(reason),
    }
}

fn add(outcome: &mut Outcome, suite: &str, result: Result<Tally>) {
    match result {
        Ok(tally) => outcome.tally += tally,
        Err(error) => outcome.broke(suite, &error),
    }
}
