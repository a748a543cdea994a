//! Protocol suites against the real binary.
//!
//! A corpus is a file of JSON lines, named on the command line: it need not be part of the repository.
//! Each suite starts the product as a user would, with scripted peers, and judges what comes out of it
//! on the wire.

mod autobahn;
mod crowd;
mod echo;
mod frames;
mod handshakes;
mod network;
mod peers;
mod relay;
mod talkline;
mod upstream;
mod wire;

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::provision::Unavailable;
use crate::report::Tally;
use crate::sdk;
use crate::test::{Outcome, Verdict};
use crate::workspace::{RunsIn, Workspace};

pub(crate) use autobahn::Runner;

const SUITES: &str =
    "--frames FILE, --handshakes FILE, --autobahn, --wstest, --network, --crowd ROUNDS";

/// One suite, as it was asked for on the command line.
#[derive(Debug, PartialEq, Eq)]
enum Suite {
    Frames(PathBuf),
    Handshakes(PathBuf),
    Autobahn(Runner),
    Network,
    Crowd(usize),
}

impl Suite {
    fn parse(arguments: &[&str]) -> Result<Vec<Suite>> {
        let mut suites = Vec::new();
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            let mut file = || match arguments.next() {
                Some(file) => Ok(PathBuf::from(file)),
                None => bail!("{argument} takes a file"),
            };
            suites.push(match *argument {
                "--frames" => Suite::Frames(file()?),
                "--handshakes" => Suite::Handshakes(file()?),
                "--autobahn" => Suite::Autobahn(Runner::Kosoku),
                "--wstest" => Suite::Autobahn(Runner::Wstest),
                "--network" => Suite::Network,
                "--crowd" => match arguments.next().map(|rounds| rounds.parse()) {
                    Some(Ok(rounds)) => Suite::Crowd(rounds),
                    _ => bail!("{argument} takes a number of rounds"),
                },
                other => bail!("`{other}` is no suite: {SUITES}"),
            });
        }
        if suites.is_empty() {
            bail!("name a suite: {SUITES}");
        }
        Ok(suites)
    }
}

/// `cargo xtask conformance`: runs the suites that are named; the last line is their sum.
///
/// # Errors
/// When a case ended in another way than its corpus expects, or a suite could not run.
pub(crate) fn run(workspace: &Workspace, arguments: &[&str]) -> Result<()> {
    let mut outcome = Outcome::default();
    for suite in Suite::parse(arguments)? {
        match suite {
            Suite::Frames(corpus) => {
                let found = sdk::build(workspace)
                    .and_then(|binary| frames::run(workspace, &binary, &corpus));
                add(&mut outcome, "frames", found);
            }
            Suite::Handshakes(corpus) => {
                add(
                    &mut outcome,
                    "handshakes",
                    handshakes::run(workspace, &corpus),
                );
            }
            Suite::Autobahn(runner) => autobahn(workspace, runner, &mut outcome),
            Suite::Network => network(workspace, &mut outcome),
            Suite::Crowd(rounds) => crowd(workspace, rounds, &mut outcome),
        }
    }
    println!("{}", outcome.tally);
    match outcome.verdict(workspace.runs_in) {
        Verdict::Passed => Ok(()),
        Verdict::Failed(reason) => bail!(reason),
    }
}

/// The Autobahn cases in both directions.
pub(crate) fn autobahn(workspace: &Workspace, runner: Runner, outcome: &mut Outcome) {
    match sdk::build(workspace) {
        Ok(binary) => autobahn::add(workspace, &binary, runner, outcome),
        Err(error) => outcome.broke("cargo build", &error),
    }
}

/// Many clients at one moment, for what only one or two of them may have.
pub(crate) fn crowd(workspace: &Workspace, rounds: usize, outcome: &mut Outcome) {
    let found = sdk::build(workspace).and_then(|binary| crowd::run(workspace, &binary, rounds));
    add(outcome, "crowd", found);
}

/// Lost packets and partitions, where this machine lets one make them.
pub(crate) fn network(workspace: &Workspace, outcome: &mut Outcome) {
    let binary = match sdk::build(workspace) {
        Ok(binary) => binary,
        Err(error) => return outcome.broke("cargo build", &error),
    };
    match network::run(workspace, &binary) {
        Ok(tally) => outcome.tally += tally,
        Err(Unavailable::Missing(what)) if workspace.runs_in == RunsIn::Terminal => {
            outcome.skipped("partitions and loss", &what);
        }
        Err(error) => outcome.broke("partitions and loss", &error.into()),
    }
}

/// What [`network()`] starts in its namespace.
///
/// # Errors
/// When a case failed.
pub(crate) fn network_inner(binary: &str, folder: &str) -> Result<()> {
    network::inner(Path::new(binary), Path::new(folder))
}

pub(crate) use network::INNER as NETWORK_INNER;

fn add(outcome: &mut Outcome, suite: &str, result: Result<Tally>) {
    match result {
        Ok(tally) => outcome.tally += tally,
        Err(error) => outcome.broke(suite, &error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suites_are_named_with_their_files() {
        let suites = Suite::parse(&["--handshakes", "h.jsonl", "--autobahn", "--crowd", "9"]);
        let handshakes = Suite::Handshakes(PathBuf::from("h.jsonl"));
        let expected = [handshakes, Suite::Autobahn(Runner::Kosoku), Suite::Crowd(9)];
        assert_eq!(suites.unwrap(), expected);
        for wrong in [
            &[][..],
            &["--handshakes"],
            &["h.jsonl"],
            &["--frames"],
            &["--crowd", "x"],
        ] {
            assert!(Suite::parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
