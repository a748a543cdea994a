//! What takes too long for every change: hours of traffic, more seeds, more inputs, slower interpreters.
//!
//! Everything runs even after one part has failed. A tool that this machine lacks is named and skipped; in CI
//! that is a failure.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::conformance::{self, Runner};
use crate::provision::{self, Unavailable};
use crate::test::{Outcome, Verdict};
use crate::workspace::{RunsIn, Workspace};
use crate::{bench, packages, process};

const USAGE: &str = "usage: cargo xtask nightly [--minutes N] [--fuzz-seconds N] [--only PART]…";
const SOAK_MINUTES: u64 = 45;
/// Seeds of the simulated network.
const SEEDS: &str = "200";
/// Random events for the session policies.
const POLICY_DOCUMENTS: &str = "1000000";
/// Rounds of many clients at one moment.
const CROWD_ROUNDS: usize = 1_000;
/// For each fuzz target, unless another time is asked for.
const FUZZ_SECONDS: u64 = 180;
/// Crates that Miri can interpret: they reach neither the system nor foreign code.
const PURE: &[&str] = &["talkline-frame", "talkline-session"];

type Part = (&'static str, fn(&Workspace, &mut Outcome, &Asked));

const PARTS: &[Part] = &[
    ("twin", twin),
    ("policy", policy),
    ("crowd", |workspace, outcome, _| {
        conformance::crowd(workspace, CROWD_ROUNDS, outcome);
    }),
    ("autobahn", |workspace, outcome, _| {
        conformance::autobahn(workspace, Runner::Wstest, outcome);
    }),
    ("network", |workspace, outcome, _| {
        conformance::network(workspace, outcome)
    }),
    ("fuzz", fuzz),
    ("miri", miri),
    ("packages", |workspace, outcome, _| {
        for (name, step) in [
            ("deb", packages::deb as fn(&Workspace) -> Result<()>),
            ("reproducible", packages::reproducible),
        ] {
            count(outcome, name, step(workspace));
        }
    }),
    ("instructions", instructions),
    ("soak", soak),
];

/// What was asked for.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    soak: Duration,
    fuzz_seconds: u64,
    only: Vec<String>,
}

impl Asked {
    fn parse(arguments: &[&str]) -> Result<Asked> {
        let mut minutes = SOAK_MINUTES;
        let mut fuzz_seconds = FUZZ_SECONDS;
        let mut only = Vec::new();
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            let value = arguments.next().context(USAGE)?;
            match *argument {
                "--minutes" => minutes = value.parse()?,
                "--fuzz-seconds" => fuzz_seconds = value.parse()?,
                "--only" if PARTS.iter().any(|(name, _)| name == value) => {
                    only.push((*value).to_owned());
                }
                _ => {
                    let names: Vec<&str> = PARTS.iter().map(|(name, _)| *name).collect();
                    bail!("{USAGE}; the parts are {}", names.join(", "));
                }
            }
        }
        Ok(Asked {
            soak: Duration::from_secs(minutes * 60),
            fuzz_seconds,
            only,
        })
    }
}

/// `cargo xtask nightly`: all parts, or those that are named; the last line is their sum.
///
/// # Errors
/// When a part failed, or CI skipped one.
pub(crate) fn run(workspace: &Workspace, arguments: &[&str]) -> Result<()> {
    let asked = Asked::parse(arguments)?;
    let mut outcome = Outcome::default();
    for (name, part) in PARTS {
        if asked.only.is_empty() || asked.only.iter().any(|only| only == name) {
            println!("::: {name}");
            part(workspace, &mut outcome, &asked);
        }
    }
    println!("{}", outcome.tally);
    match outcome.verdict(workspace.runs_in) {
        Verdict::Passed => Ok(()),
        Verdict::Failed(reason) => bail!(reason),
    }
}

/// Counts a part that is one test as a whole.
fn count(outcome: &mut Outcome, name: &str, result: Result<()>) {
    match result {
        Ok(()) => outcome.tally.passed += 1,
        Err(error) => {
            eprintln!("error: {name}: {error:#}");
            outcome.tally.failed += 1;
        }
    }
}

fn twin(workspace: &Workspace, outcome: &mut Outcome, _: &Asked) {
    let mut command = workspace.cargo();
    command
        .args([
            "test",
            "--locked",
            "--release",
            "--package",
            "talkline-relay",
            "--test",
            "it",
        ])
        .args(["--", "--nocapture", "twin"])
        .env("TALKLINE_TWIN_SEEDS", SEEDS);
    count(outcome, "twin", process::run(&mut command));
}

/// The guard of the session policies against a full parse.
fn policy(workspace: &Workspace, outcome: &mut Outcome, _: &Asked) {
    let mut command = workspace.cargo();
    command
        .args(["run", "--locked", "--release", "--package"])
        .args(["talkline-session", "--example", "policy_differential"])
        .args(["--", POLICY_DOCUMENTS]);
    count(outcome, "policy", process::run(&mut command));
}

fn soak(workspace: &Workspace, outcome: &mut Outcome, asked: &Asked) {
    count(outcome, "soak", bench::soak(workspace, asked.soak));
}

fn instructions(workspace: &Workspace, outcome: &mut Outcome, _: &Asked) {
    match bench::instructions(workspace) {
        Err(Unavailable::Missing(what)) if workspace.runs_in == RunsIn::Terminal => {
            outcome.skipped("instructions", &what);
        }
        result => count(outcome, "instructions", result.map_err(Into::into)),
    }
}

fn fuzz(workspace: &Workspace, outcome: &mut Outcome, asked: &Asked) {
    let lock = workspace.root.join("xtask/requirements-cargo-fuzz.lock");
    let tool = match provision::python(workspace, "cargo-fuzz", &lock) {
        Ok(folder) => folder.join("bin/cargo-fuzz"),
        Err(Unavailable::Missing(what)) if workspace.runs_in == RunsIn::Terminal => {
            return outcome.skipped("fuzz targets", &what);
        }
        Err(error) => return outcome.broke("fuzz targets", &error.into()),
    };
    let targets = match fuzz_targets(workspace) {
        Ok(targets) => targets,
        Err(error) => return outcome.broke("fuzz targets", &error),
    };
    for target in targets {
        let mut command = Command::new(&tool);
        command
            .args(["run", &target, "--target-dir"])
            .arg(workspace.target.join("fuzz"))
            .args([
                "--",
                &format!("-max_total_time={}", asked.fuzz_seconds),
                "-print_final_stats=1",
            ])
            .current_dir(&workspace.root)
            // The sanitizer's flags are unstable; this lets the pinned compiler take them.
            .env("RUSTC_BOOTSTRAP", "1");
        count(
            outcome,
            &format!("fuzz {target}"),
            process::run(&mut command),
        );
    }
}

/// The names of the files in the folder of the targets.
fn fuzz_targets(workspace: &Workspace) -> Result<Vec<String>> {
    let mut targets: Vec<String> = fs::read_dir(workspace.root.join("fuzz/fuzz_targets"))?
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            name.strip_suffix(".rs").map(str::to_owned)
        })
        .collect();
    targets.sort();
    if targets.is_empty() {
        bail!("no fuzz target");
    }
    Ok(targets)
}

fn miri(workspace: &Workspace, outcome: &mut Outcome, _: &Asked) {
    match provision::miri() {
        Ok(()) => {}
        Err(Unavailable::Missing(what)) => return outcome.skipped("Miri", &what),
        Err(error) => return outcome.broke("Miri", &error.into()),
    }
    for package in PURE {
        let mut command = Command::new("cargo");
        command
            .args([
                "+nightly",
                "miri",
                "test",
                "--locked",
                "--package",
                package,
                "--lib",
            ])
            .current_dir(&workspace.root)
            .env_remove("RUSTUP_TOOLCHAIN")
            .env_remove("CARGO")
            .env("CARGO_TARGET_DIR", workspace.target.join("miri"))
            // Where it keeps the standard library that it can interpret.
            .env("XDG_CACHE_HOME", workspace.target.join("miri"))
            // Hundreds of cases are minutes each when interpreted.
            .env("PROPTEST_CASES", "4")
            .env("MIRIFLAGS", "-Zmiri-disable-isolation");
        count(
            outcome,
            &format!("Miri {package}"),
            process::run(&mut command),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for() {
        let asked = Asked::parse(&["--minutes", "2", "--only", "soak"]).unwrap();
        assert_eq!(asked.soak, Duration::from_secs(120));
        assert_eq!(asked.only, ["soak"]);
        let asked = Asked::parse(&["--fuzz-seconds", "5"]).unwrap();
        assert_eq!(asked.fuzz_seconds, 5);
        let all = Asked::parse(&[]).unwrap();
        assert_eq!(all.soak, Duration::from_secs(45 * 60));
        for wrong in [
            &["--minutes"][..],
            &["--minutes", "x"],
            &["--only", "no"],
            &["soak", "1"],
        ] {
            assert!(Asked::parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
