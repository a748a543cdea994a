//! Lost packets and partitions, made by the kernel in a network namespace of their own.
//!
//! The suite starts itself again in a namespace that has nothing but loopback, and makes rules of nft there: what is lost
//! is lost beneath TCP, as on a real network, and nothing else on the machine notices.

use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::frames::back_to;
use super::peers::{Ends, Side, Upstream};
use super::talkline::Relay;
use super::wire;
use crate::process;
use crate::provision::{self, Unavailable};
use crate::report::Tally;
use crate::workspace::Workspace;

/// Word by which this program is started within the namespace.
pub(crate) const INNER: &str = "network-inner";

const IP: &str = "/sbin/ip";
const NFT: &str = "/usr/sbin/nft";

/// Longest time until a peer behind a partition is given up, and what a loaded machine adds.
const DEAD_MAX: Duration = Duration::from_secs(20);
const SLACK: Duration = Duration::from_secs(2);
/// Longest wait for what survives.
const PATIENCE: Duration = Duration::from_secs(90);
/// Frames each way while packets are lost, one every 20 ms.
const LOSSY_FRAMES: usize = 500;
const FRAME_PAUSE: Duration = Duration::from_millis(20);

/// Runs the suite in a namespace.
///
/// # Errors
/// When this is not root, a tool is missing and cannot be installed, or a test failed.
pub(crate) fn run(workspace: &Workspace, binary: &Path) -> Result<Tally, Unavailable> {
    if !provision::is_root()? {
        return Err(Unavailable::Missing(
            "network namespaces: need root".to_owned(),
        ));
    }
    let unshare = provision::debian("util-linux", "/usr/bin/unshare")?;
    provision::debian("iproute2", IP)?;
    provision::debian("nftables", NFT)?;
    let program = std::env::current_exe().context("this program")?;
    let mut command = Command::new(unshare);
    command
        .arg("--net")
        .arg(program)
        .arg(INNER)
        .arg(binary)
        .arg(workspace.target.join("conformance/network"));
    process::run(&mut command)?;
    Ok(Tally {
        passed: CASES.len(),
        failed: 0,
        skipped: 0,
    })
}

/// Which packets of a connection are dropped.
#[derive(Clone, Copy, Debug)]
enum Cut {
    /// Between the client and the relay, or the relay and the upstream.
    Both(Side),
    /// Only those to the relay from that side.
    From(Side),
    /// Five of a hundred, everywhere.
    Some,
}

const CASES: &[Cut] = &[
    Cut::Some,
    Cut::Both(Side::Upstream),
    Cut::Both(Side::Client),
    Cut::From(Side::Upstream),
    Cut::From(Side::Client),
];

/// The suite itself, within the namespace.
///
/// # Errors
/// When a case failed.
pub(crate) fn inner(binary: &Path, folder: &Path) -> Result<()> {
    process::run(Command::new(IP).args(["link", "set", "lo", "up"]))?;
    let mut failed = 0;
    for (number, cut) in CASES.iter().enumerate() {
        let start = Instant::now();
        match case(binary, folder, &format!("network-{number}"), *cut) {
            Ok(what) => println!("network: {cut:?}: {what}"),
            Err(error) => {
                failed += 1;
                println!(
                    "FAILED network: {cut:?} after {:.1} s: {error:#}",
                    start.elapsed().as_secs_f64()
                );
            }
        }
        rules("flush ruleset")?;
    }
    if failed > 0 {
        bail!("{failed} of {} cases failed", CASES.len());
    }
    Ok(())
}

fn case(binary: &Path, folder: &Path, model: &str, cut: Cut) -> Result<String> {
    let upstream = Upstream::start()?;
    let relay = Relay::start(binary, folder, upstream.address, "")?;
    let idle = relay.descriptors();
    let mut ends = upstream.session(&relay, model)?;
    converse(&mut ends, 0, 5)?;
    let port = |side| match side {
        Side::Client => relay.address.port(),
        Side::Upstream => upstream.address.port(),
    };
    let rule = match cut {
        Cut::Some => "numgen random mod 100 < 5 drop".to_owned(),
        Cut::Both(side) => format!(
            "tcp dport {0} drop; add rule inet faults input tcp sport {0} drop",
            port(side)
        ),
        // The relay is the server of its client, and the client of its upstream.
        Cut::From(Side::Client) => format!("tcp dport {} drop", port(Side::Client)),
        Cut::From(Side::Upstream) => format!("tcp sport {} drop", port(Side::Upstream)),
    };
    rules(&format!(
        "add table inet faults; \
         add chain inet faults input {{ type filter hook input priority 0 ; }}; \
         add rule inet faults input {rule}"
    ))?;
    let start = Instant::now();
    let told = match cut {
        Cut::Some => {
            converse(&mut ends, 5, LOSSY_FRAMES)?;
            format!(
                "{LOSSY_FRAMES} frames each way, whole and in order, in {:.1} s",
                start.elapsed().as_secs_f64()
            )
        }
        // The side that is not cut off learns of it.
        Cut::Both(side) | Cut::From(side) => {
            let other = side.other();
            let over = |ends: &Ends| {
                ends.got(other).closed_at.is_some() || ends.got(other).ended_at.is_some()
            };
            answering_pings(&mut ends, other, PATIENCE, over)?;
            let took = start.elapsed();
            if took > DEAD_MAX + SLACK {
                bail!("noticed after {:.1} s", took.as_secs_f64());
            }
            format!("noticed after {:.1} s", took.as_secs_f64())
        }
    };
    rules("flush ruleset")?;
    drop(ends);
    back_to(&relay, idle)?;
    Ok(told)
}

/// Waits for `done` as a live peer would: pings of the relay's are answered.
fn answering_pings(
    ends: &mut Ends,
    side: Side,
    limit: Duration,
    done: impl Fn(&Ends) -> bool,
) -> Result<()> {
    let pings = |ends: &Ends| {
        let (frames, _) = ends.got(side).frames();
        frames
            .iter()
            .filter(|frame| frame.opcode == wire::PING)
            .count()
    };
    let mut answered = pings(ends);
    let deadline = Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if !ends.until(left, |ends| done(ends) || pings(ends) > answered) {
            bail!("nothing happened in {} s", limit.as_secs());
        }
        if done(ends) {
            return Ok(());
        }
        let (frames, _) = ends.got(side).frames();
        for ping in frames
            .iter()
            .filter(|frame| frame.opcode == wire::PING)
            .skip(answered)
        {
            ends.send(
                side,
                &wire::encode(true, wire::PONG, &ping.payload, key(side)),
            );
        }
        answered = pings(ends);
    }
}

/// Sends so many numbered frames each way and waits until all have come, each as it was sent.
fn converse(ends: &mut Ends, from: usize, count: usize) -> Result<()> {
    let text = |side: Side, number: usize| {
        format!("{{\"{side:?}\":{number},\"{}\":0}}", "x".repeat(2_000))
    };
    for number in from..from + count {
        for side in [Side::Client, Side::Upstream] {
            let frame = wire::encode(true, wire::TEXT, text(side, number).as_bytes(), key(side));
            if !ends.send(side, &frame) {
                bail!("{side:?} was cut off at frame {number}");
            }
        }
        thread::sleep(FRAME_PAUSE);
    }
    for side in [Side::Client, Side::Upstream] {
        let data = |ends: &Ends| {
            let (frames, _) = ends.got(side.other()).frames();
            frames
                .into_iter()
                .filter(wire::Frame::is_data)
                .collect::<Vec<_>>()
        };
        let all = |ends: &Ends| data(ends).len() >= from + count;
        if !ends.until(PATIENCE, all) {
            bail!(
                "{} of {} frames of {side:?} arrived",
                data(ends).len(),
                from + count
            );
        }
        for (number, frame) in data(ends).iter().enumerate() {
            if frame.payload != text(side, number).as_bytes() {
                bail!("frame {number} of {side:?} is not what was sent");
            }
        }
    }
    Ok(())
}

fn key(side: Side) -> Option<[u8; 4]> {
    (side == Side::Client).then_some([9, 8, 7, 6])
}

fn rules(text: &str) -> Result<()> {
    process::run(Command::new(NFT).arg(text))
}
