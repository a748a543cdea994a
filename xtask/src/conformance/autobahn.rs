//! The cases of the Autobahn test suite, through the relay in both directions.
//!
//! As a client it drives the relay, behind which an echo stands; as a server it stands behind the relay,
//! and an echo is the client. Both must find what they would find without a relay between. Run by
//! kosoku, which has the same cases and takes seconds, or by the original `wstest`.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use super::echo;
use super::talkline::Relay;
use crate::process;
use crate::provision::{self, Unavailable};
use crate::report::Tally;
use crate::test::Outcome;
use crate::workspace::{RunsIn, Workspace};

/// Longest time for all cases of one direction.
const SUITE_TIME_MAX: Duration = Duration::from_secs(10 * 60);
/// Longest wait for a fuzzing server to listen.
const START_TIME_MAX: Duration = Duration::from_secs(20);
/// How the relay is called in the reports.
const AGENT: &str = "talkline";
/// Cases that may end other than expected as long as they are harmless (RFC 6455 leaves them open).
const NON_STRICT_MAX: usize = 1;
/// Cases 9.3 and 9.4 cut 4 MiB in pieces of down to 64 bytes.
const LIMITS: &str = "limits.maxFragments = 131072\n";

/// Whose implementation of the suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Runner {
    Kosoku,
    Wstest,
}

/// Which role the suite plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Client,
    Server,
}

/// Runs both directions and adds what was found.
pub(crate) fn add(workspace: &Workspace, binary: &Path, runner: Runner, outcome: &mut Outcome) {
    let tool = match Tool::provision(workspace, runner) {
        Ok(tool) => tool,
        Err(Unavailable::Missing(what)) if workspace.runs_in == RunsIn::Terminal => {
            return outcome.skipped(&format!("Autobahn by {runner:?}"), &what);
        }
        Err(error) => return outcome.broke("Autobahn", &error.into()),
    };
    for role in [Role::Client, Role::Server] {
        match run(workspace, binary, &tool, role) {
            Ok(tally) => outcome.tally += tally,
            Err(error) => outcome.broke(&format!("Autobahn by {runner:?} as {role:?}"), &error),
        }
    }
}

fn run(workspace: &Workspace, binary: &Path, tool: &Tool, role: Role) -> Result<Tally> {
    let name = format!("{:?}-{role:?}", tool.runner).to_lowercase();
    let folder = workspace.target.join("conformance").join(&name);
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    let reports = folder.join("reports");
    let start = Instant::now();
    match role {
        Role::Client => {
            let relay = Relay::start(binary, &folder, echo::upstream()?, LIMITS)?;
            let url = format!("ws://{}/v1/realtime?model=echo", relay.address);
            let mut command = tool.fuzzing_client(&url, &reports)?;
            let log = fs::File::create(folder.join("suite.log"))?;
            command.stdout(log.try_clone()?).stderr(log);
            // A failed case is a failed exit; the reports say which one.
            process::status_within(&mut command, SUITE_TIME_MAX)?;
        }
        Role::Server => {
            let mut server = tool.fuzzing_server(&folder, &reports)?;
            let adapter = echo::case_by_model(server.address, AGENT)?;
            let relay = Relay::start(binary, &folder, adapter, LIMITS)?;
            let count = echo::ask(server.address, "/getCaseCount")?;
            let count: usize = String::from_utf8(count)?.trim().parse()?;
            for case in 1..=count {
                // Many a case breaks the stream; the reports tell whether it was right to.
                let _ = echo::client(&relay, &format!("case-{case}"));
            }
            echo::ask(server.address, &format!("/updateReports?agent={AGENT}"))?;
            server.finish(&reports.join("index.json"))?;
        }
    }
    let index = reports.join("index.json");
    let text = fs::read_to_string(&index).with_context(|| index.display().to_string())?;
    let verdict = verdict(&text)?;
    println!(
        "{name}: {} in {:.1} s",
        verdict.summary,
        start.elapsed().as_secs_f64()
    );
    for problem in &verdict.problems {
        println!("FAILED {name} {problem}");
    }
    Ok(verdict.tally)
}

// === The runners ===

struct Tool {
    runner: Runner,
    folder: PathBuf,
}

impl Tool {
    fn provision(workspace: &Workspace, runner: Runner) -> Result<Tool, Unavailable> {
        let folder = match runner {
            Runner::Kosoku => provision::python(
                workspace,
                "kosoku",
                &workspace.root.join("xtask/requirements-kosoku.lock"),
            )?,
            Runner::Wstest => provision::python2(
                workspace,
                "wstest",
                &workspace.root.join("xtask/requirements-wstest.lock"),
            )?,
        };
        Ok(Tool { runner, folder })
    }

    /// A command that drives the server at `url` and leaves its reports.
    fn fuzzing_client(&self, url: &str, reports: &Path) -> Result<Command> {
        if self.runner == Runner::Kosoku {
            let mut command = Command::new(self.folder.join("bin/kosoku"));
            command
                .args(["-m", "fuzzingclient", "-o"])
                .arg(reports)
                .arg(url);
            return Ok(command);
        }
        let specification = serde_json::json!({
            "outdir": reports,
            "servers": [{"agent": AGENT, "url": url}],
            "cases": ["*"],
            "exclude-cases": [],
        });
        self.wstest("fuzzingclient", &specification, reports)
    }

    fn wstest(&self, mode: &str, spec: &serde_json::Value, reports: &Path) -> Result<Command> {
        fs::create_dir_all(reports)?;
        let file = reports.with_extension("json");
        fs::write(&file, spec.to_string())?;
        let mut command = Command::new(self.folder.join("bin/wstest"));
        command.args(["-m", mode, "-s"]).arg(file);
        Ok(command)
    }

    fn fuzzing_server(&self, folder: &Path, reports: &Path) -> Result<FuzzingServer> {
        if self.runner == Runner::Kosoku {
            let mut child = Command::new(self.folder.join("bin/kosoku"))
                .args(["-m", "fuzzingserver", "127.0.0.1:0", "-o"])
                .arg(reports)
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()?;
            let stderr = child
                .stderr
                .take()
                .context("standard error was asked for")?;
            let mut stderr = BufReader::new(stderr);
            let mut line = String::new();
            stderr.read_line(&mut line)?;
            // It writes no report when nobody reads what it has to say before.
            let mut log = fs::File::create(folder.join("suite.log"))?;
            thread::spawn(move || std::io::copy(&mut stderr, &mut log));
            let address = line.trim().rsplit("ws://").next().unwrap_or_default();
            let address = address.parse().with_context(|| line.clone())?;
            return Ok(FuzzingServer { child, address });
        }
        // It cannot be asked for a port of the system's choice; one that was just free is the next best.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let specification = serde_json::json!({
            "url": format!("ws://{address}"),
            "outdir": reports,
            "cases": ["*"],
            "exclude-cases": [],
        });
        let log = fs::File::create(folder.join("suite.log"))?;
        let child = self
            .wstest("fuzzingserver", &specification, reports)?
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let server = FuzzingServer { child, address };
        let deadline = Instant::now() + START_TIME_MAX;
        while TcpStream::connect(address).is_err() {
            if Instant::now() > deadline {
                bail!("wstest does not listen");
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(server)
    }
}

/// Killed when dropped: the original suite serves for ever.
struct FuzzingServer {
    child: Child,
    address: SocketAddr,
}

impl FuzzingServer {
    /// Waits for its report.
    fn finish(&mut self, index: &Path) -> Result<()> {
        let deadline = Instant::now() + START_TIME_MAX;
        while !index.exists() {
            if Instant::now() > deadline {
                bail!("the suite left no report");
            }
            thread::sleep(Duration::from_millis(50));
        }
        // The index is written in one go, but not at once.
        while serde_json::from_str::<serde_json::Value>(&fs::read_to_string(index)?).is_err() {
            if Instant::now() > deadline {
                bail!("the suite left half a report");
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

impl Drop for FuzzingServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

// === The verdict ===

#[derive(Debug)]
struct Verdict {
    summary: String,
    problems: Vec<String>,
    tally: Tally,
}

#[derive(Debug, Deserialize)]
struct Entry {
    behavior: String,
    #[serde(rename = "behaviorClose")]
    behavior_close: String,
}

/// Judges the index of a report: agent, case, behaviours.
///
/// # Errors
/// When it is not such an index, or has no case at all.
fn verdict(index: &str) -> Result<Verdict> {
    let agents: BTreeMap<String, BTreeMap<String, Entry>> =
        serde_json::from_str(index).context("no index of a report")?;
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let mut problems = Vec::new();
    let mut non_strict = Vec::new();
    let mut total = 0;
    for (case, entry) in agents.values().flatten() {
        total += 1;
        *counts.entry(&entry.behavior).or_default() += 1;
        let is_compression = case.starts_with("12.") || case.starts_with("13.");
        let fits = match entry.behavior.as_str() {
            // Never negotiated: a frame with a reserved bit could not be relayed unread.
            "UNIMPLEMENTED" => is_compression,
            "OK" | "INFORMATIONAL" => !is_compression,
            "NON-STRICT" => {
                non_strict.push(case.as_str());
                true
            }
            _ => false,
        };
        let closes = matches!(entry.behavior_close.as_str(), "OK" | "INFORMATIONAL")
            || (is_compression && entry.behavior_close == "UNIMPLEMENTED");
        if !fits || !closes {
            problems.push(format!(
                "{case}: {}, close {}",
                entry.behavior, entry.behavior_close
            ));
        }
    }
    if total == 0 {
        bail!("the report has no case");
    }
    if non_strict.len() > NON_STRICT_MAX {
        problems.push(format!("NON-STRICT: {}", non_strict.join(", ")));
    }
    let counts: Vec<String> = counts
        .iter()
        .map(|(behavior, count)| format!("{count} {behavior}"))
        .collect();
    Ok(Verdict {
        summary: format!("{total} cases: {}", counts.join(", ")),
        tally: Tally {
            passed: total - problems.len().min(total),
            failed: problems.len(),
            skipped: 0,
        },
        problems,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(cases: &[(&str, &str, &str)]) -> Vec<String> {
        let cases: BTreeMap<&str, serde_json::Value> = cases
            .iter()
            .map(|(case, behavior, close)| {
                let entry = serde_json::json!({"behavior": behavior, "behaviorClose": close, "duration": 1});
                (*case, entry)
            })
            .collect();
        let index = serde_json::json!({ "talkline": cases }).to_string();
        verdict(&index).unwrap().problems
    }

    #[test]
    fn what_an_index_says() {
        assert!(check(&[("1.1.1", "OK", "OK"), ("6.4.4", "NON-STRICT", "OK")]).is_empty());
        assert!(check(&[("7.1.6", "INFORMATIONAL", "INFORMATIONAL")]).is_empty());
        assert!(check(&[("12.1.1", "UNIMPLEMENTED", "OK")]).is_empty());
        assert_eq!(
            check(&[("1.1.1", "FAILED", "OK"), ("1.1.2", "OK", "WRONG CODE")]),
            ["1.1.1: FAILED, close OK", "1.1.2: OK, close WRONG CODE"]
        );
        assert_eq!(check(&[("12.1.1", "OK", "OK")]).len(), 1);
        assert_eq!(check(&[("1.1.1", "UNIMPLEMENTED", "OK")]).len(), 1);
        assert_eq!(
            check(&[("6.4.3", "NON-STRICT", "OK"), ("6.4.4", "NON-STRICT", "OK")]),
            ["NON-STRICT: 6.4.3, 6.4.4"]
        );
        assert!(verdict("{}").is_err() && verdict("[]").is_err());
    }
}
