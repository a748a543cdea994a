//! Every failure that a session can meet, as its client and its operator see it.
//!
//! `tests/failures/stage.py` plays the scenarios and writes down what all sides said; what that has
//! to be is decided here: by rules that hold for all ([`judge`]), and by a snapshot of each
//! ([`snapshot`]).

mod judge;
mod observed;
mod snapshot;

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::provision::{self, Unavailable};
use crate::test::{Outcome, Verdict};
use crate::workspace::{BLESS, RunsIn, Workspace};
use crate::{process, sdk};
use observed::{Observed, Scenario};

/// Longest time for playing all scenarios.
const STAGE_TIME_MAX: Duration = Duration::from_secs(5 * 60);

/// `cargo xtask failures`: plays all scenarios and prints a table of them.
///
/// # Errors
/// When a scenario ended in another way than it should, or could not be played.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let mut outcome = Outcome::default();
    add(workspace, &mut outcome);
    let verdict = outcome.verdict(workspace.runs_in);
    std::io::stderr().flush()?;
    println!("{}", outcome.tally);
    match verdict {
        Verdict::Passed => Ok(()),
        Verdict::Failed(reason) => bail!(reason),
    }
}

/// Plays all scenarios and adds what was found to `outcome`: one test for each, and three for all.
pub(crate) fn add(workspace: &Workspace, outcome: &mut Outcome) {
    let trap = match trap() {
        Ok(trap) => Some(trap),
        Err(Unavailable::Missing(reason)) if workspace.runs_in == RunsIn::Terminal => {
            outcome.skipped("the trap for api.openai.com", &reason);
            None
        }
        Err(error) => return outcome.broke("the trap for api.openai.com", &error.into()),
    };
    match play(workspace, trap.as_deref()) {
        Ok(observed) => weigh(workspace, &observed, outcome),
        Err(Unavailable::Missing(reason)) if workspace.runs_in == RunsIn::Terminal => {
            outcome.skipped("failure scenarios", &reason);
        }
        Err(error) => outcome.broke("failure scenarios", &error.into()),
    }
}

/// The command that starts another in a network of its own.
///
/// # Errors
/// When this machine does not permit that, or lacks a tool for it.
fn trap() -> Result<Vec<&'static str>, Unavailable> {
    let ways: [&[&str]; 2] = [
        &["unshare", "--net", "--mount"],
        &["unshare", "--user", "--map-root-user", "--net", "--mount"],
    ];
    for way in ways {
        let tried = Command::new(way[0])
            .args(&way[1..])
            .args(["ip", "link", "set", "lo", "up"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        if tried.is_ok_and(|status| status.success()) {
            return Ok(way.to_vec());
        }
    }
    Err(Unavailable::Missing(
        "no network namespace can be made: run as root, with `unshare` (util-linux) and `ip` (iproute2)"
            .to_owned(),
    ))
}

/// Has the scenarios played by the real binary and the real clients.
fn play(workspace: &Workspace, trap: Option<&[&str]>) -> Result<Observed, Unavailable> {
    let source = workspace.root.join("tests/failures");
    let python = provision::python(
        workspace,
        "python",
        &workspace.root.join("tests/sdk/python/requirements.lock"),
    )?;
    let node = provision::node(workspace, &workspace.root.join("tests/sdk/node"))?;
    let driver = provision::node(workspace, &source.join("browser"))?;
    let chromium = provision::chromium()?;
    let talkline = sdk::build(workspace)?;
    let upstreams = build_upstreams(workspace)?;
    let folder = workspace.target.join("failures");
    let observed = folder.join("observed.json");
    let _ = fs::remove_file(&observed);

    let mut words: Vec<&str> = trap.unwrap_or_default().to_vec();
    let interpreter = python.join("bin/python");
    words.push(interpreter.to_str().context("a path that is not UTF-8")?);
    let mut command = Command::new(words[0]);
    command
        .args(&words[1..])
        .arg(source.join("stage.py"))
        .arg(made(&folder)?)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("TALKLINE_BIN", talkline)
        .env(
            "TALKLINE_ASSETS",
            workspace.root.join("crates/talkline-sim/assets"),
        )
        .env("TALKLINE_UPSTREAMS", upstreams)
        .env("TALKLINE_CHROMIUM", chromium)
        .env(
            "TALKLINE_NODE_CLIENT",
            beside_packages(&source.join("client-openai.mjs"), &node)?,
        )
        .env(
            "TALKLINE_BROWSER_CLIENT",
            beside_packages(&source.join("browser/client-browser.mjs"), &driver)?,
        );
    if trap.is_some() {
        command.env("TALKLINE_TRAP", "1");
    }
    println!("running {}", process::words(&command));
    let status = process::status_within(&mut command, STAGE_TIME_MAX)?;
    if !status.success() {
        return Err(anyhow::anyhow!("the stage failed ({status})").into());
    }
    Ok(read(&observed)?)
}

/// The example of the simulator whose certificates must not be accepted.
fn build_upstreams(workspace: &Workspace) -> Result<PathBuf> {
    let messages = process::capture(workspace.cargo().args([
        "build",
        "--locked",
        "--package",
        "talkline-sim",
        "--example",
        "bad_tls",
        "--message-format",
        "json-render-diagnostics",
    ]))?;
    sdk::executable(&messages, "bad_tls").context("cargo build made no example named bad_tls")
}

fn made(folder: &Path) -> Result<&Path> {
    fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    Ok(folder)
}

/// A copy of a module where Node finds the packages that it imports: Node looks for them upwards
/// from the module's real path, and `node_modules` has no place in the source tree.
fn beside_packages(module: &Path, packages: &Path) -> Result<PathBuf> {
    let folder = packages.join("failures");
    let copy = made(&folder)?.join(module.file_name().context("a module is a file")?);
    fs::copy(module, &copy)?;
    Ok(copy)
}

fn read(file: &Path) -> Result<Observed> {
    let text = fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
    serde_json::from_str(&text).context("the stage wrote something else than expected")
}

/// Compares what was seen with what must be, prints the table, and counts.
fn weigh(workspace: &Workspace, observed: &Observed, outcome: &mut Outcome) {
    let snapshots = workspace.root.join("tests/failures/snapshots");
    let mode = match std::env::var_os(BLESS) {
        Some(_) => snapshot::Mode::Rewrite,
        None => snapshot::Mode::Compare,
    };
    let mut faults = Vec::new();
    let mut count = |name: &str, problems: Vec<String>| {
        if problems.is_empty() {
            outcome.tally.passed += 1;
        } else {
            outcome.tally.failed += 1;
            faults.extend(problems.iter().map(|problem| format!("{name}: {problem}")));
        }
    };
    for scenario in &observed.scenarios {
        let mut problems = judge::scenario(scenario, observed.has_doctor);
        let file = snapshots.join(format!("{}.txt", scenario.name));
        if let Err(difference) = snapshot::check(&file, &snapshot::text(scenario), mode) {
            problems.push(format!("{difference:#}"));
        }
        count(&scenario.name, problems);
    }
    let names = observed.scenarios.iter().map(|it| it.name.as_str());
    let mut whole = judge::whole(observed);
    match snapshot::stale(&snapshots, names, mode) {
        Ok(stale) => whole.extend(stale),
        Err(error) => whole.push(format!("{error:#}")),
    }
    count("the scenarios", whole);
    count("secrets", observed.leaks.clone());
    if let Some(trap) = &observed.trap {
        count("the trap for api.openai.com", judge::trap(trap));
    }
    print_table(observed);
    for fault in &faults {
        println!("FAILED {fault}");
    }
    if !faults.is_empty() {
        println!("To accept what was seen: {BLESS}=1 cargo xtask failures");
    }
}

fn print_table(observed: &Observed) {
    println!(
        "{:<30} {:<30} {:>5}  {:<36} {:>7}",
        "scenario", "client code", "close", "doctor finding", "seconds"
    );
    for scenario in &observed.scenarios {
        println!("{}", row(scenario, observed.has_doctor));
    }
    match &observed.trap {
        Some(trap) => println!(
            "api.openai.com: {} connections, {} DNS queries; beyond loopback: {} connections (of {} scenarios, 3 clients)",
            trap.during.connections_to_openai(),
            trap.during.queries_for_openai(),
            trap.during.connections(),
            observed.scenarios.len()
        ),
        None => println!("api.openai.com: not watched"),
    }
}

fn row(scenario: &Scenario, has_doctor: bool) -> String {
    let told = scenario.clients.get("python");
    let code = told.and_then(|told| told.code()).unwrap_or("-");
    let close = told
        .and_then(|told| told.closed.as_ref())
        .map_or_else(|| "-".to_owned(), |closed| closed.code.to_string());
    let finding = match &scenario.doctor {
        Some(doctor) => doctor.finding().unwrap_or("nothing"),
        None if has_doctor => "-",
        None => "no doctor",
    };
    format!(
        "{:<30} {code:<30} {close:>5}  {finding:<36} {:>7.1}",
        scenario.name, scenario.seconds
    )
}
