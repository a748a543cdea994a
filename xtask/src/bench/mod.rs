//! What relaying costs, beside what it costs others.
//!
//! The generator holds both ends of every session on one processor; the relay under test has the other
//! one. Everything that is compared runs in turn, several times over, and only ratios within one turn are
//! quoted: what else the machine does at that moment falls on both.

mod instructions;
mod load;
mod peers;
mod report;
mod scenarios;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use self::load::{Found, Load};
use self::peers::{Peer, Tools};
use self::scenarios::{SCENARIOS, Scenario, Shows};
use crate::process;
use crate::sdk;
use crate::workspace::Workspace;

pub(crate) use self::instructions::run as instructions;

const USAGE: &str = "usage: cargo xtask bench [--quick] [--write] [--only SCENARIO]… [--peer PEER]… [--repetitions N] [--binary TALKLINE]\n\
     or: cargo xtask bench --instructions";
/// Where `--write` puts the table.
const PAGE: &str = "docs/operations/performance.md";
const REPETITIONS: usize = 5;
const REPETITIONS_QUICK: usize = 2;

/// How much is measured.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Asked {
    is_quick: bool,
    writes: bool,
    only: Vec<String>,
    /// Nobody else takes part; empty for everybody.
    peers: Vec<Peer>,
    repetitions: usize,
    /// Measured in the place of the one that is built from here.
    binary: Option<PathBuf>,
}

impl Asked {
    fn parse(arguments: &[&str]) -> Result<Asked> {
        let mut asked = Asked {
            is_quick: false,
            writes: false,
            only: Vec::new(),
            peers: Vec::new(),
            repetitions: 0,
            binary: None,
        };
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            match *argument {
                "--quick" => asked.is_quick = true,
                "--write" => asked.writes = true,
                "--only" => asked
                    .only
                    .push((*arguments.next().context(USAGE)?).to_owned()),
                "--peer" => asked
                    .peers
                    .push(scenarios::peer(arguments.next().context(USAGE)?)?),
                "--binary" => {
                    asked.binary = Some(fs::canonicalize(arguments.next().context(USAGE)?)?);
                }
                "--repetitions" => asked.repetitions = arguments.next().context(USAGE)?.parse()?,
                _ => bail!(USAGE),
            }
        }
        if asked.repetitions == 0 {
            asked.repetitions = match asked.is_quick {
                true => REPETITIONS_QUICK,
                false => REPETITIONS,
            };
        }
        for name in &asked.only {
            if !SCENARIOS.iter().any(|scenario| scenario.name == name) {
                let names: Vec<&str> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
                bail!("no scenario `{name}`; there are {}", names.join(", "));
            }
        }
        Ok(asked)
    }

    fn wants_peer(&self, peer: Peer) -> bool {
        self.peers.is_empty() || self.peers.contains(&peer)
    }

    fn wants(&self, scenario: &Scenario) -> bool {
        match self.only.is_empty() {
            true => !self.is_quick || scenario.is_quick,
            false => self.only.iter().any(|name| name == scenario.name),
        }
    }
}

/// What every peer did in every scenario, one entry a repetition.
type Results = BTreeMap<(usize, Peer), Vec<Found>>;

/// `cargo xtask bench`: measures, prints the table, and writes it into the documentation when asked to.
///
/// # Errors
/// When something cannot be built or started, or a frame was lost or changed on its way.
pub(crate) fn run(workspace: &Workspace, arguments: &[&str]) -> Result<()> {
    if arguments == ["--instructions"] {
        return Ok(instructions(workspace)?);
    }
    let asked = Asked::parse(arguments)?;
    let tools = Tools::find(workspace, build(workspace, asked.binary.clone())?)?;
    let folder = workspace.target.join("bench");
    fs::create_dir_all(&folder)?;
    let mut load = Load::start(&tools, &folder)?;
    for missing in &tools.missing {
        println!("skipped: {missing}");
    }
    let mut results = Results::new();
    let start = Instant::now();
    for repetition in 0..asked.repetitions {
        for (number, scenario) in SCENARIOS.iter().enumerate() {
            if !asked.wants(scenario) {
                continue;
            }
            let mut peers: Vec<Peer> = tools.present(scenario.peers);
            peers.retain(|&peer| asked.wants_peer(peer));
            // Nobody is always the first after a pause.
            let shift = repetition % peers.len().max(1);
            peers.rotate_left(shift);
            for peer in peers {
                let found = measure(&tools, &mut load, scenario, peer, &asked)
                    .with_context(|| format!("{} with {}", scenario.name, peer.name()))?;
                println!(
                    "{:>5.0} s  {:<14} {:<22} {}",
                    start.elapsed().as_secs_f64(),
                    scenario.name,
                    peer.name(),
                    report::brief(scenario, &found)
                );
                results.entry((number, peer)).or_default().push(found);
            }
        }
    }
    let table = report::markdown(&results, &tools, asked.repetitions, arguments);
    println!("\n{table}");
    if asked.writes {
        let page = workspace.root.join(PAGE);
        let text = fs::read_to_string(&page).with_context(|| PAGE.to_owned())?;
        fs::write(&page, report::inserted(&text, &table)?)?;
    }
    let broken: u64 = results
        .values()
        .flatten()
        .map(|found| found.lost + found.corrupt)
        .sum();
    if broken > 0 {
        bail!("{broken} frames or sessions were lost or changed: see the lines above");
    }
    Ok(())
}

/// Sessions of a soak; they come and go round after round.
const SOAK_SESSIONS: usize = 200;
/// Time of one round's traffic.
const SOAK_ROUND_MS: u64 = 30_000;
/// Growth of a relay's memory, from the end of the second round on, that is not called a leak: a tenth and a bit.
const SOAK_GROWTH: f64 = 1.10;
const SOAK_SLACK_KIB: f64 = 1024.0;

/// Talks through one relay for a long time, in sessions that come and go.
///
/// # Errors
/// When a frame or a session is lost or changed, or the relay keeps memory of sessions that have ended.
pub(crate) fn soak(workspace: &Workspace, time: Duration) -> Result<()> {
    let tools = Tools::find(workspace, build(workspace, None)?)?;
    let folder = workspace.target.join("bench");
    fs::create_dir_all(&folder)?;
    let mut load = Load::start(&tools, &folder)?;
    let relay = Peer::Talkline.start(&tools, &load)?;
    let start = Instant::now();
    let mut after = Vec::new();
    while start.elapsed() < time || after.len() < 3 {
        let found = load.job(&scenarios::spread(
            relay.address,
            relay.pid(),
            SOAK_SESSIONS,
            SOAK_ROUND_MS,
        ))?;
        println!(
            "{:>6.0} s  {} frames, {} KiB after the round, p99 {:.0} us",
            start.elapsed().as_secs_f64(),
            found.frames,
            found.resident_after_kib,
            found.latency.p99
        );
        if found.lost + found.corrupt > 0 {
            bail!(
                "{} sessions lost, {} frames changed",
                found.lost,
                found.corrupt
            );
        }
        after.push(found.resident_after_kib);
    }
    // The first round makes the relay what it is; what later ones add is kept for nobody.
    let (first, last) = (after[1] as f64, after[after.len() - 1] as f64);
    if last > first * SOAK_GROWTH + SOAK_SLACK_KIB {
        bail!(
            "memory grew from {first} to {last} KiB in {} rounds",
            after.len()
        );
    }
    Ok(())
}

fn measure(
    tools: &Tools,
    load: &mut Load,
    scenario: &Scenario,
    peer: Peer,
    asked: &Asked,
) -> Result<Found> {
    let mut relay = peer.start(tools, load)?;
    if scenario.shows == Shows::Memory {
        load.job(&scenarios::first_steps(relay.address, relay.pid()))?;
    }
    let mut found = load.job(&scenario.job(peer, relay.address, relay.pid(), asked.is_quick))?;
    if let Some((nanoseconds, bytes)) = relay.floor()? {
        let frames = bytes as f64 / found.wire_bytes_per_frame();
        found.floor_ns = Some(nanoseconds as f64 / frames);
    }
    Ok(found)
}

/// The product and the peers, as they are released.
fn build(workspace: &Workspace, instead: Option<PathBuf>) -> Result<peers::Binaries> {
    let talkline = match instead {
        Some(binary) => binary,
        None => product(workspace)?,
    };
    let messages = process::capture(
        workspace
            .cargo()
            .args(["build", "--locked", "--release", "--manifest-path"])
            .arg(workspace.root.join("benches/Cargo.toml"))
            .arg("--target-dir")
            .arg(&workspace.target)
            .args(["--message-format", "json-render-diagnostics"]),
    )?;
    let binary =
        |name| sdk::executable(&messages, name).with_context(|| format!("no binary named {name}"));
    Ok(peers::Binaries {
        talkline,
        load: binary("load")?,
        floor: binary("floor")?,
        raw: binary("raw")?,
        fastwebsockets: binary("fastwebsockets")?,
        tungstenite: binary("tungstenite")?,
    })
}

fn product(workspace: &Workspace) -> Result<PathBuf> {
    let messages = process::capture(workspace.cargo().args([
        "build",
        "--locked",
        "--release",
        "--package",
        "talkline",
        "--message-format",
        "json-render-diagnostics",
    ]))?;
    sdk::executable(&messages, "talkline").context("no binary named talkline")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for() {
        let asked = Asked::parse(&["--quick"]).unwrap();
        assert_eq!(
            (asked.is_quick, asked.repetitions),
            (true, REPETITIONS_QUICK)
        );
        let asked =
            Asked::parse(&["--only", "burst-500", "--repetitions", "7", "--write"]).unwrap();
        assert_eq!(
            (asked.only.len(), asked.repetitions, asked.writes),
            (1, 7, true)
        );
        assert!(asked.wants_peer(Peer::Nginx));
        let asked = Asked::parse(&["--peer", "talkline", "--peer", "haproxy tcp"]).unwrap();
        assert_eq!(asked.peers, [Peer::Talkline, Peer::HaproxyTcp]);
        assert!(!asked.wants_peer(Peer::Nginx));
        let asked = Asked::parse(&["--only", "burst-500"]).unwrap();
        let wanted = SCENARIOS
            .iter()
            .filter(|scenario| asked.wants(scenario))
            .count();
        assert_eq!(wanted, 1);
        for wrong in [
            &["--only"][..],
            &["--only", "none"],
            &["--peer", "nobody"],
            &["--repetitions", "x"],
            &["-q"],
        ] {
            assert!(Asked::parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
