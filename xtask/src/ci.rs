//! Everything that must hold before a change lands.
//!
//! All steps run even after one has failed, so that a run reports everything
//! there is to repair; `--fail-fast` stops at the first. The steps are in the
//! order of what they cost, and share one target directory.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::conformance::Runner;
use crate::report::Tally;
use crate::test::{Outcome, Suites, Verdict};
use crate::workspace::Workspace;
use crate::{book, canary, conformance, deploy, packages, process, provision, test, tidy};

/// What a failed step means for the ones after it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnFailure {
    GoOn,
    Stop,
}

type Step = (&'static str, fn(&Workspace, &mut Tally) -> Result<()>);

const STEPS: &[Step] = &[
    ("fmt", fmt),
    ("tidy", |workspace, _| tidy::run(workspace)),
    ("deny", deny),
    ("clippy", clippy),
    ("rustdoc", rustdoc),
    ("each crate alone", each_crate_alone),
    ("test", tests),
    ("conformance", conformance),
    ("canary", |workspace, _| canary::run(workspace)),
    ("deploy", |workspace, _| deploy::run(workspace)),
    ("book", |workspace, _| book::run(workspace)),
    ("sbom", |workspace, _| packages::sbom(workspace)),
    ("image", |workspace, _| packages::image(workspace)),
];

/// Runs the steps, then prints a table of them and the count of the tests.
///
/// # Errors
/// When a step failed; the message names them all.
pub(crate) fn run(workspace: &Workspace, on_failure: OnFailure) -> Result<()> {
    let mut tally = Tally::default();
    let mut done: Vec<(&str, Duration, bool)> = Vec::new();
    for (name, step) in STEPS {
        println!("::: {name}");
        let start = Instant::now();
        let outcome = step(workspace, &mut tally);
        let took = start.elapsed();
        if let Err(error) = &outcome {
            eprintln!("error: {error:#}");
        }
        done.push((name, took, outcome.is_ok()));
        println!(
            "::: {name}: {} in {:.1} s",
            word(outcome.is_ok()),
            took.as_secs_f64()
        );
        if outcome.is_err() && on_failure == OnFailure::Stop {
            break;
        }
    }
    println!();
    for (name, took, passed) in &done {
        println!(
            "{:<18} {:>8.1} s  {}",
            name,
            took.as_secs_f64(),
            word(*passed)
        );
    }
    println!("{tally}");
    verdict(&done)
}

fn verdict(done: &[(&str, Duration, bool)]) -> Result<()> {
    let failed: Vec<&str> = done
        .iter()
        .filter(|(_, _, passed)| !passed)
        .map(|(name, _, _)| *name)
        .collect();
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    Ok(())
}

fn word(passed: bool) -> &'static str {
    if passed { "ok" } else { "FAILED" }
}

fn fmt(workspace: &Workspace, _: &mut Tally) -> Result<()> {
    process::run(workspace.cargo().args(["fmt", "--all", "--check"]))
}

fn deny(workspace: &Workspace, _: &mut Tally) -> Result<()> {
    let tool = provision::cargo_deny(workspace)?;
    process::run(
        std::process::Command::new(tool)
            .args(["--locked", "check", "--hide-inclusion-graph"])
            .args(["bans", "licenses", "sources"])
            .current_dir(&workspace.root),
    )
}

/// The Autobahn cases through the relay, and networks that lose packets or fall apart.
fn conformance(workspace: &Workspace, tally: &mut Tally) -> Result<()> {
    let mut outcome = Outcome::default();
    conformance::autobahn(workspace, Runner::Kosoku, &mut outcome);
    conformance::network(workspace, &mut outcome);
    *tally += outcome.tally;
    match outcome.verdict(workspace.runs_in) {
        Verdict::Passed => Ok(()),
        Verdict::Failed(reason) => bail!(reason),
    }
}

fn clippy(workspace: &Workspace, _: &mut Tally) -> Result<()> {
    process::run(workspace.cargo().args([
        "clippy",
        "--locked",
        "--workspace",
        "--all-targets",
        "--features",
        test::OPTIONAL,
        "--keep-going",
        "--",
        "-D",
        "warnings",
    ]))
}

fn rustdoc(workspace: &Workspace, _: &mut Tally) -> Result<()> {
    process::run(
        workspace
            .cargo()
            .args(["doc", "--locked", "--workspace", "--no-deps"])
            .args(["--features", test::OPTIONAL])
            .env("RUSTDOCFLAGS", "-D warnings"),
    )
}

/// A crate that compiles beside its neighbours may lean on a feature that only
/// they switch on; alone it cannot. The fuzz targets are a workspace of their own.
/// Checks only: nothing is linked.
fn each_crate_alone(workspace: &Workspace, _: &mut Tally) -> Result<()> {
    let mut broken = Vec::new();
    for member in workspace.metadata.members() {
        let mut command = workspace.cargo();
        command.args(["check", "--locked", "--quiet", "--package", &member.name]);
        if let Err(error) = process::run(&mut command) {
            eprintln!("error: {error:#}");
            broken.push(member.name.as_str());
        }
    }
    let mut fuzz = workspace.cargo();
    fuzz.args(["check", "--locked", "--quiet", "--manifest-path"])
        .arg(workspace.root.join("fuzz/Cargo.toml"))
        .arg("--target-dir")
        .arg(workspace.target.join("fuzz"));
    if let Err(error) = process::run(&mut fuzz) {
        eprintln!("error: {error:#}");
        broken.push("talkline-fuzz");
    }
    if !broken.is_empty() {
        bail!("do not compile alone: {}", broken.join(", "));
    }
    Ok(())
}

fn tests(workspace: &Workspace, tally: &mut Tally) -> Result<()> {
    let outcome = test::outcome(workspace, Suites::All);
    *tally = outcome.tally;
    match outcome.verdict(workspace.runs_in) {
        Verdict::Passed => Ok(()),
        Verdict::Failed(reason) => bail!(reason),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failed_step_is_named() {
        let second = Duration::from_secs(1);
        let done = [
            ("fmt", second, false),
            ("tidy", second, true),
            ("test", second, false),
        ];
        assert_eq!(verdict(&done).unwrap_err().to_string(), "failed: fmt, test");
        assert!(verdict(&done[1..2]).is_ok());
    }
}
