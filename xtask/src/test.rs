//! Everything a user would want proved: Rust tests, the real client packages, the Talk page, then failures.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use anyhow::{Context, Result, bail};

use crate::report::{self, Tally};
use crate::workspace::{RunsIn, Workspace};
use crate::{browser, failures, process, provision, sdk};

/// Features that are off by default. Lints see them; their tests run once more with them.
pub(crate) const OPTIONAL: &str = "talkline/otlp";

/// Which suites to run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Suites {
    All,
    Rust,
    Sdk,
    Browser,
}

/// What all runners together said.
#[derive(Default)]
pub(crate) struct Outcome {
    pub(crate) tally: Tally,
    /// Runners that failed in a way that no test counts: a build error, a crash.
    pub(crate) broken: Vec<String>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Passed,
    Failed(String),
}

impl Outcome {
    /// Notes a runner that could not say what it found.
    pub(crate) fn broke(&mut self, runner: &str, error: &anyhow::Error) {
        eprintln!("error: {runner}: {error:#}");
        self.broken.push(runner.to_owned());
    }

    /// Notes a suite that cannot run here, where it can be seen.
    pub(crate) fn skipped(&mut self, suite: &str, reason: &str) {
        println!("skipped: {suite}: {reason}");
        self.tally.skipped += 1;
    }

    /// In CI a skipped test is a failure: nobody is there to read the reason.
    pub(crate) fn verdict(&self, runs_in: RunsIn) -> Verdict {
        if !self.broken.is_empty() {
            return Verdict::Failed(format!("no result from: {}", self.broken.join(", ")));
        }
        if self.tally.failed > 0 {
            return Verdict::Failed(format!("{} tests failed", self.tally.failed));
        }
        if runs_in == RunsIn::Ci && self.tally.skipped > 0 {
            return Verdict::Failed(format!("{} skipped, which CI may not", self.tally.skipped));
        }
        if self.tally.passed == 0 {
            return Verdict::Failed("no test ran".to_owned());
        }
        Verdict::Passed
    }
}

/// Runs the suites; the last line printed is the sum over all runners.
///
/// # Errors
/// When a test failed, a runner broke, nothing ran, or CI skipped something.
pub(crate) fn run(workspace: &Workspace, suites: Suites) -> Result<()> {
    let outcome = outcome(workspace, suites);
    let verdict = outcome.verdict(workspace.runs_in);
    std::io::stderr().flush()?;
    println!("{}", outcome.tally);
    match verdict {
        Verdict::Passed => Ok(()),
        Verdict::Failed(reason) => bail!(reason),
    }
}

/// As [`run`], without the last line.
pub(crate) fn outcome(workspace: &Workspace, suites: Suites) -> Outcome {
    let mut outcome = Outcome::default();
    if matches!(suites, Suites::All | Suites::Rust) {
        const WORKSPACE: &[&str] = &["--workspace"];
        const WITH_OTLP: &[&str] = &["--package", "talkline", "--features", OPTIONAL];
        const OTLP: &[&str] = &["--test", "it", "--", "otlp::"];
        install();
        for words in [WORKSPACE.to_vec(), [WITH_OTLP, OTLP].concat()] {
            match rust(workspace, &words) {
                Ok(tally) => outcome.tally += tally,
                Err(error) => outcome.broke("cargo test", &error),
            }
        }
    }
    if matches!(suites, Suites::All | Suites::Sdk) {
        sdk::run(workspace, &mut outcome);
    }
    if matches!(suites, Suites::All | Suites::Browser) {
        browser::add(workspace, &mut outcome);
    }
    if suites == Suites::All {
        failures::add(workspace, &mut outcome);
    }
    outcome
}

/// Installs the programs of Debian's that tests start.
fn install() {
    // The tests that need them say so themselves where they are missing.
    for (package, program) in [
        ("nginx-light", "/usr/sbin/nginx"),
        ("haproxy", "/usr/sbin/haproxy"),
        ("redis-server", "/usr/bin/redis-server"),
    ] {
        if let Err(error) = provision::debian(package, program) {
            println!("{error}");
        }
    }
}

/// Unit, integration and documentation tests, each line passed on as it comes.
fn rust(workspace: &Workspace, words: &[&str]) -> Result<Tally> {
    let mut command = workspace.cargo();
    command
        .args(["test", "--locked", "--no-fail-fast"])
        .args(words)
        .stdout(Stdio::piped());
    let mut child = command
        .spawn()
        .with_context(|| process::cannot_start(&command))?;
    let stdout = child
        .stdout
        .take()
        .context("standard output was asked for")?;
    let mut tally = Tally::default();
    for line in BufReader::new(stdout).lines() {
        let line = line?;
        println!("{line}");
        if let Some(counts) = report::libtest_line(&line) {
            tally += counts;
        }
    }
    let status = child.wait()?;
    believe(tally, status.success())
}

/// A runner's counts, if its exit code tells the same story.
///
/// # Errors
/// When it failed without a failed test, or counted nothing at all.
pub(crate) fn believe(tally: Tally, exited_with_success: bool) -> Result<Tally> {
    if !exited_with_success && tally.failed == 0 {
        bail!("failed, though no test did ({tally})");
    }
    if tally.total() == 0 {
        bail!("ran no test");
    }
    Ok(tally)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(passed: usize, failed: usize, skipped: usize, runs_in: RunsIn) -> Verdict {
        let tally = Tally {
            passed,
            failed,
            skipped,
        };
        Outcome {
            tally,
            broken: Vec::new(),
        }
        .verdict(runs_in)
    }

    #[test]
    fn a_skip_fails_in_ci_only() {
        assert_eq!(check(1, 0, 1, RunsIn::Terminal), Verdict::Passed);
        assert!(matches!(check(1, 0, 1, RunsIn::Ci), Verdict::Failed(_)));
        assert_eq!(check(1, 0, 0, RunsIn::Ci), Verdict::Passed);
    }

    #[test]
    fn a_failed_test_a_broken_runner_or_no_test_at_all_fails() {
        assert!(matches!(
            check(9, 1, 0, RunsIn::Terminal),
            Verdict::Failed(_)
        ));
        assert!(matches!(
            check(0, 0, 2, RunsIn::Terminal),
            Verdict::Failed(_)
        ));
        let tally = Tally {
            passed: 9,
            failed: 0,
            skipped: 0,
        };
        let broken = Outcome {
            tally,
            broken: vec!["pytest".to_owned()],
        };
        assert!(matches!(
            broken.verdict(RunsIn::Terminal),
            Verdict::Failed(_)
        ));
    }

    #[test]
    fn counts_are_believed_only_with_a_fitting_exit_code() {
        let passed = Tally {
            passed: 3,
            failed: 0,
            skipped: 0,
        };
        let failed = Tally {
            passed: 3,
            failed: 1,
            skipped: 0,
        };
        assert!(believe(passed, true).is_ok());
        assert!(believe(failed, false).is_ok());
        assert!(believe(passed, false).is_err());
        assert!(believe(Tally::default(), true).is_err());
    }
}
