//! The real client packages against the real binary.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::process;
use crate::provision::{self, Unavailable};
use crate::report::{self, Tally};
use crate::test::{Outcome, believe};
use crate::workspace::{RunsIn, Workspace};

/// Longest time for all tests of one language; each test has a deadline of its own.
const RUNNER_TIME_MAX: Duration = Duration::from_secs(10 * 60);

/// Runs both languages and adds what they found to `outcome`.
pub(crate) fn run(workspace: &Workspace, outcome: &mut Outcome) {
    let talkline = match build(workspace) {
        Ok(path) => path,
        Err(error) => return outcome.broke("cargo build", &error),
    };
    let front_ends = front_ends(workspace.runs_in, outcome);
    add(
        "SDK tests in Python",
        python(workspace, &talkline, front_ends),
        workspace.runs_in,
        outcome,
    );
    add(
        "SDK tests in Node",
        node(workspace, &talkline),
        workspace.runs_in,
        outcome,
    );
}

pub(crate) fn add(
    suite: &str,
    result: Result<Tally, Unavailable>,
    runs_in: RunsIn,
    outcome: &mut Outcome,
) {
    match result {
        Ok(tally) => outcome.tally += tally,
        Err(Unavailable::Missing(what)) if runs_in == RunsIn::Terminal => {
            outcome.skipped(suite, &what);
        }
        Err(error) => outcome.broke(suite, &error.into()),
    }
}

/// Builds the binary as a user would; returns where it is.
pub(crate) fn build(workspace: &Workspace) -> Result<PathBuf> {
    let messages = process::capture(workspace.cargo().args([
        "build",
        "--locked",
        "--package",
        "talkline",
        "--message-format",
        "json-render-diagnostics",
    ]))?;
    executable(&messages, "talkline").context("cargo build made no binary named talkline")
}

/// The path of an executable in cargo's messages, one JSON object a line.
pub(crate) fn executable(messages: &str, name: &str) -> Option<PathBuf> {
    #[derive(Deserialize)]
    struct Message {
        executable: Option<PathBuf>,
        target: Option<Target>,
    }
    #[derive(Deserialize)]
    struct Target {
        name: String,
    }
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Message>(line).ok())
        .filter(|message| message.target.as_ref().is_some_and(|it| it.name == name))
        .find_map(|message| message.executable)
}

/// Whether this machine has what stands in front of the relay.
#[derive(Clone, Copy, PartialEq, Eq)]
enum FrontEnds {
    Here,
    Missing,
}

fn front_ends(runs_in: RunsIn, outcome: &mut Outcome) -> FrontEnds {
    let suite = "SDK tests behind front ends";
    for (package, program) in [
        ("nginx-light", "/usr/sbin/nginx"),
        ("haproxy", "/usr/sbin/haproxy"),
    ] {
        match provision::debian(package, program) {
            Ok(_) => {}
            Err(Unavailable::Missing(what)) if runs_in == RunsIn::Terminal => {
                outcome.skipped(suite, &what);
                return FrontEnds::Missing;
            }
            Err(error) => {
                outcome.broke(suite, &error.into());
                return FrontEnds::Missing;
            }
        }
    }
    FrontEnds::Here
}

fn python(
    workspace: &Workspace,
    talkline: &Path,
    front_ends: FrontEnds,
) -> Result<Tally, Unavailable> {
    let source = workspace.root.join("tests/sdk/python");
    let tools = provision::python(workspace, "python", &source.join("requirements.lock"))?;
    let report = report_file(workspace, "python")?;
    let mut command = Command::new(tools.join("bin/python"));
    command
        .args(["-m", "pytest", "-p", "no:cacheprovider", "--junit-xml"])
        .arg(&report)
        .arg(&source)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("TALKLINE_BIN", talkline)
        .env(
            "TALKLINE_ASSETS",
            workspace.root.join("crates/talkline-sim/assets"),
        )
        .current_dir(&source);
    if front_ends == FrontEnds::Missing {
        command.args(["--ignore", "test_front_ends.py"]);
    }
    Ok(run_and_count(&mut command, &report)?)
}

fn node(workspace: &Workspace, talkline: &Path) -> Result<Tally, Unavailable> {
    let source = workspace.root.join("tests/sdk/node");
    let tools = provision::node(workspace, &source)?;
    // Node finds packages by walking up from the real path of the importing
    // file, and `node_modules` has no place in the source tree.
    let copy = tools.join("tests");
    copy_tests(&source, &copy)?;
    let assets = workspace.root.join("crates/talkline-sim/assets");
    Ok(node_tests(workspace, "node", &copy, |command| {
        command
            .args(["--test-concurrency", "2"])
            .env("TALKLINE_BIN", talkline)
            .env("TALKLINE_ASSETS", assets)
    })?)
}

/// Runs the `*.test.mjs` of a folder; `with` adds what they need.
pub(crate) fn node_tests(
    workspace: &Workspace,
    name: &str,
    folder: &Path,
    with: impl FnOnce(&mut Command) -> &mut Command,
) -> Result<Tally> {
    let report = report_file(workspace, name)?;
    let mut command = Command::new("node");
    command.arg("--test");
    with(&mut command)
        .args([
            "--test-reporter",
            "spec",
            "--test-reporter-destination",
            "stdout",
        ])
        .args(["--test-reporter", "junit", "--test-reporter-destination"])
        .arg(&report)
        .args(test_files(folder)?)
        .current_dir(folder);
    run_and_count(&mut command, &report)
}

fn run_and_count(command: &mut Command, report: &Path) -> Result<Tally> {
    println!("running {}", process::words(command));
    let status = process::status_within(command, RUNNER_TIME_MAX)?;
    let xml = fs::read_to_string(report)
        .with_context(|| format!("left no report ({status}) in {}", report.display()))?;
    believe(report::junit(&xml)?, status.success())
}

/// Where a runner writes its report; the one of an earlier run is removed.
fn report_file(workspace: &Workspace, name: &str) -> Result<PathBuf> {
    let folder = workspace.target.join("sdk");
    fs::create_dir_all(&folder)?;
    let file = folder.join(format!("{name}.xml"));
    if file.exists() {
        fs::remove_file(&file)?;
    }
    Ok(file)
}

pub(crate) fn copy_tests(source: &Path, copy: &Path) -> Result<()> {
    if copy.exists() {
        fs::remove_dir_all(copy)?;
    }
    fs::create_dir_all(copy)?;
    for entry in fs::read_dir(source)? {
        let entry = entry?;
        if entry
            .path()
            .extension()
            .is_some_and(|extension| extension == "mjs")
        {
            fs::copy(entry.path(), copy.join(entry.file_name()))?;
        }
    }
    Ok(())
}

fn test_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.to_string_lossy().ends_with(".test.mjs") {
            files.push(path);
        }
    }
    if files.is_empty() {
        bail!("no *.test.mjs in {}", folder.display());
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_binary_is_found_in_cargos_messages() {
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"serde"},"executable":null}
not json
{"reason":"compiler-artifact","target":{"name":"talkline"},"executable":null}
{"reason":"compiler-artifact","target":{"name":"talkline"},"executable":"target/debug/talkline"}
{"reason":"build-finished","success":true}"#;
        assert_eq!(
            executable(messages, "talkline"),
            Some(PathBuf::from("target/debug/talkline"))
        );
        assert_eq!(executable("", "talkline"), None);
    }

    #[test]
    fn a_missing_tool_is_a_skip_for_a_person_and_a_failure_in_ci() {
        let missing = || Err(Unavailable::Missing("node not found".to_owned()));
        let mut at_home = Outcome::default();
        add("suite", missing(), RunsIn::Terminal, &mut at_home);
        assert_eq!((at_home.tally.skipped, at_home.broken.len()), (1, 0));
        let mut in_ci = Outcome::default();
        add("suite", missing(), RunsIn::Ci, &mut in_ci);
        assert_eq!(in_ci.broken, ["suite"]);
    }

    #[test]
    fn a_failed_installation_is_a_failure_everywhere() {
        let mut outcome = Outcome::default();
        let failed = Err(Unavailable::Failed(anyhow::anyhow!("no such package")));
        add("suite", failed, RunsIn::Terminal, &mut outcome);
        assert_eq!(outcome.broken, ["suite"]);
    }
}
