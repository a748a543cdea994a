//! A corpus of frames, legal and not, through the real binary.
//!
//! Every case is sent whole, byte by byte, and cut in two at every offset; what the relay does must not
//! depend on that. One case is one JSON object a line: `id`, `dir` (`c2s` or `s2c`), `hex` (the bytes
//! after the handshake), `eof` (whether the sender then says that nothing more comes) and `expect`:
//!
//! - `forward`: every data frame arrives, in order, and the session stays open;
//! - `forward_then_close`: so does the close frame, and nothing after it;
//! - `close:CODE,…`: the sender is closed with one of these codes, only well-formed frames from before
//!   the offence arrive, and both connections end;
//! - `eof`: the other side is hung up on without part of a frame;
//! - `pending`: nothing is decided yet, and nothing arrives.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use super::peers::{Ends, Side, Upstream};
use super::talkline::Relay;
use super::wire::{self, Frame};
use crate::report::Tally;
use crate::workspace::Workspace;

/// Sessions at a time.
const PARALLEL: usize = 48;
/// Longest wait for a frame or an end. The bounds of the product are far shorter; a loaded machine is not.
const PATIENCE: Duration = Duration::from_secs(8);
/// How long a session that must stay as it is, is looked at: longer than an upstream may go on after an
/// offence of its client's.
const QUIET: Duration = Duration::from_millis(400);
/// Pause between two pieces, so that they arrive as two.
const PIECE_PAUSE: Duration = Duration::from_micros(500);
/// Longest case that is also sent byte by byte and at every cut; longer ones are cut at their edges.
const CUT_BYTES_MAX: usize = 300;
/// Failures that are printed in full.
const SHOWN_MAX: usize = 40;

#[derive(Debug, Deserialize)]
struct Line {
    id: String,
    dir: Direction,
    hex: String,
    expect: String,
    #[serde(default)]
    eof: bool,
}

#[derive(Clone, Copy, Debug, Deserialize)]
enum Direction {
    #[serde(rename = "c2s")]
    ClientToUpstream,
    #[serde(rename = "s2c")]
    UpstreamToClient,
}

#[derive(Debug)]
struct Case {
    name: String,
    from: Side,
    bytes: Vec<u8>,
    ends: bool,
    expect: Expect,
}

#[derive(Debug, PartialEq, Eq)]
enum Expect {
    Forward,
    ForwardThenClose,
    Close(Vec<u16>),
    End,
    Pending,
}

/// How the bytes of a case are cut for sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    Whole,
    Bytes,
    At(usize),
}

/// Sends every case in every cut; a case passes when all its cuts do.
///
/// # Errors
/// When the corpus cannot be read, the relay cannot be started, or it keeps descriptors afterwards.
pub(crate) fn run(workspace: &Workspace, binary: &Path, corpus: &Path) -> Result<Tally> {
    let cases = read(corpus)?;
    let upstream = Upstream::start()?;
    let folder = workspace.target.join("conformance/frames");
    let relay = Relay::start(binary, &folder, upstream.address, "")?;
    let idle = relay.descriptors();
    let jobs: Vec<(usize, Cut)> = cases
        .iter()
        .enumerate()
        .flat_map(|(index, case)| {
            cuts(case.bytes.len())
                .into_iter()
                .map(move |cut| (index, cut))
        })
        .collect();
    println!("frames: {} cases, {} deliveries", cases.len(), jobs.len());
    let start = Instant::now();
    let failures: Mutex<BTreeMap<usize, Vec<String>>> = Mutex::default();
    let slowest = Mutex::new(Duration::ZERO);
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..PARALLEL {
            scope.spawn(|| {
                while let Some(&(index, cut)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let model = format!("m-{index}-{}", cut.number());
                    let judged = deliver(&upstream, &relay, &model, &cases[index], cut);
                    let mut slowest = slowest.lock().expect("nobody panics holding it");
                    match judged {
                        Ok(took) => *slowest = took.max(*slowest),
                        Err(error) => failures
                            .lock()
                            .expect("nobody panics holding it")
                            .entry(index)
                            .or_default()
                            .push(format!("{cut:?}: {error:#}")),
                    }
                }
            });
        }
    });
    let failures = failures.into_inner()?;
    for (index, what) in failures.iter().take(SHOWN_MAX) {
        let case = &cases[*index];
        println!("FAILED {} ({} cuts): {}", case.name, what.len(), what[0]);
    }
    println!(
        "frames: {} of {} cases as expected in {:.1} s, slowest close {} ms after the offence",
        cases.len() - failures.len(),
        cases.len(),
        start.elapsed().as_secs_f64(),
        slowest.into_inner()?.as_millis()
    );
    back_to(&relay, idle)?;
    Ok(Tally {
        passed: cases.len() - failures.len(),
        failed: failures.len(),
        skipped: 0,
    })
}

/// Waits until no descriptor of any session is left.
pub(crate) fn back_to(relay: &Relay, idle: Option<usize>) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while relay.descriptors() > idle {
        if Instant::now() > deadline {
            bail!(
                "descriptors left open: {idle:?} became {:?}",
                relay.descriptors()
            );
        }
        thread::sleep(QUIET);
    }
    Ok(())
}

fn read(corpus: &Path) -> Result<Vec<Case>> {
    let text = fs::read_to_string(corpus).with_context(|| corpus.display().to_string())?;
    text.lines()
        .enumerate()
        .map(|(number, line)| {
            case(line).with_context(|| format!("{}:{}", corpus.display(), number + 1))
        })
        .collect()
}

fn case(line: &str) -> Result<Case> {
    let line: Line = serde_json::from_str(line)?;
    let (from, direction) = match line.dir {
        Direction::ClientToUpstream => (Side::Client, "c2s"),
        Direction::UpstreamToClient => (Side::Upstream, "s2c"),
    };
    let expect = match line.expect.as_str() {
        "forward" => Expect::Forward,
        "forward_then_close" => Expect::ForwardThenClose,
        "eof" => Expect::End,
        "pending" => Expect::Pending,
        other => {
            let codes = other.strip_prefix("close:").context("unknown `expect`")?;
            let codes: Result<Vec<u16>, _> = codes.split(',').map(str::parse).collect();
            Expect::Close(codes?)
        }
    };
    Ok(Case {
        name: format!("{direction} {}", line.id),
        from,
        bytes: unhex(&line.hex)?,
        ends: line.eof,
        expect,
    })
}

fn unhex(hex: &str) -> Result<Vec<u8>> {
    let digits = hex.as_bytes();
    if !digits.len().is_multiple_of(2) {
        bail!("an odd number of digits");
    }
    digits
        .chunks(2)
        .map(|pair| Ok(u8::from_str_radix(std::str::from_utf8(pair)?, 16)?))
        .collect()
}

fn cuts(length: usize) -> Vec<Cut> {
    let mut cuts = vec![Cut::Whole];
    if length <= CUT_BYTES_MAX {
        cuts.push(Cut::Bytes);
        cuts.extend((1..length).map(Cut::At));
    } else {
        cuts.extend((1..16).chain([length / 2, length - 1]).map(Cut::At));
    }
    cuts
}

impl Cut {
    fn number(self) -> usize {
        match self {
            Cut::Whole => 0,
            Cut::Bytes => usize::MAX,
            Cut::At(offset) => offset,
        }
    }

    fn pieces(self, bytes: &[u8]) -> Vec<&[u8]> {
        match self {
            Cut::Whole => vec![bytes],
            Cut::Bytes => bytes.chunks(1).collect(),
            Cut::At(offset) => {
                let (first, second) = bytes.split_at(offset);
                vec![first, second]
            }
        }
    }
}

/// Plays one case; returns how long a close took, or zero.
fn deliver(
    upstream: &Upstream,
    relay: &Relay,
    model: &str,
    case: &Case,
    cut: Cut,
) -> Result<Duration> {
    let mut ends = upstream.session(relay, model)?;
    for (index, piece) in cut.pieces(&case.bytes).into_iter().enumerate() {
        if index > 0 {
            thread::sleep(PIECE_PAUSE);
        }
        // A relay that has seen enough hangs up.
        if !ends.send(case.from, piece) {
            break;
        }
    }
    if case.ends {
        ends.finish(case.from);
    }
    judge(case, &mut ends)
}

/// What the sender sent, as far as a strict receiver takes it; the rest is what the relay must not pass.
fn sound(case: &Case) -> Vec<Frame> {
    let expects_mask = case.from == Side::Client;
    let (frames, _) = wire::frames(&case.bytes);
    frames
        .into_iter()
        .take_while(|frame| frame.is_well_formed(expects_mask))
        .collect()
}

fn judge(case: &Case, ends: &mut Ends) -> Result<Duration> {
    let start = Instant::now();
    let to = case.from.other();
    let sent = sound(case);
    let sent_data: Vec<&Frame> = sent.iter().filter(|frame| frame.is_data()).collect();
    match &case.expect {
        Expect::Forward => {
            let pinged = sent.iter().rev().find(|frame| frame.opcode == wire::PING);
            let ended = ends.until(PATIENCE, |ends| {
                let data = data(ends, to).len() >= sent_data.len();
                let ponged = pinged.is_none_or(|ping| has_pong(ends, case.from, ping));
                (data && ponged) || ends.got(to).ended_at.is_some()
            });
            if !ended {
                bail!("neither arrived nor ended: {}", shown(ends, to));
            }
            exactly(&data(ends, to), &sent_data)?;
            stays_open(ends)?;
            well_formed(ends, to)?;
        }
        Expect::ForwardThenClose => {
            let closes = |frame: &Frame| frame.opcode == wire::CLOSE;
            let before = sent
                .iter()
                .position(closes)
                .context("the case has a close")?;
            let before: Vec<&Frame> = sent[..before]
                .iter()
                .filter(|frame| frame.is_data())
                .collect();
            let code = sent.iter().find_map(Frame::close_code);
            ends.until(PATIENCE, |ends| {
                ends.got(to).close_code().is_some() || ends.got(to).ended_at.is_some()
            });
            exactly(&data(ends, to), &before)?;
            let passed_on = ends.got(to).close_code();
            if passed_on != code && (code, passed_on) != (Some(1005), Some(1000)) {
                bail!("close {code:?} became {passed_on:?}");
            }
            let answer = wire::encode(true, wire::CLOSE, &code_bytes(code), key(to));
            ends.send(to, &answer);
            both_end(ends)?;
            if ends.got(case.from).close_code().is_none() {
                bail!("the one that closed got no close frame");
            }
            well_formed(ends, to)?;
        }
        Expect::Close(codes) => {
            both_end(ends)?;
            well_formed(ends, to)?;
            let allowed: &[u16] = if case.from == Side::Client {
                codes
            } else {
                &[1011]
            };
            let code = ends.got_client.close_code();
            if code.is_none_or(|code| !allowed.contains(&code)) {
                bail!("the client got close {code:?}, not one of {allowed:?}");
            }
            let upstream = ends.got_upstream.close_code();
            if case.from == Side::Client && upstream.is_none() {
                bail!("the upstream got no close frame");
            }
            if case.from == Side::Upstream && !upstream.is_some_and(|code| codes.contains(&code)) {
                bail!("the upstream got close {upstream:?}, not one of {codes:?}");
            }
            prefix(&without_our_event(data(ends, to), case.from)?, &sent_data)?;
            let closed = ends.got_client.closed_at.unwrap_or(start);
            return Ok(closed.saturating_duration_since(start));
        }
        Expect::End => {
            both_end(ends)?;
            well_formed(ends, to)?;
            prefix(&without_our_event(data(ends, to), case.from)?, &sent_data)?;
        }
        Expect::Pending => {
            stays_open(ends)?;
            if !data(ends, to).is_empty() {
                bail!("something arrived: {}", shown(ends, to));
            }
        }
    }
    Ok(Duration::ZERO)
}

fn data(ends: &Ends, side: Side) -> Vec<Frame> {
    let (frames, _) = ends.got(side).frames();
    frames.into_iter().filter(Frame::is_data).collect()
}

fn has_pong(ends: &Ends, side: Side, ping: &Frame) -> bool {
    let (frames, _) = ends.got(side).frames();
    frames
        .iter()
        .any(|frame| frame.opcode == wire::PONG && frame.payload == ping.payload)
}

/// A client of a failed upstream is told so in an event; its presence is checked and it is taken out.
fn without_our_event(mut data: Vec<Frame>, offender: Side) -> Result<Vec<Frame>> {
    if offender == Side::Client {
        return Ok(data);
    }
    let Some(at) = data.iter().position(is_error_event) else {
        // Between the fragments of a message there is no place for an event.
        if data.last().is_some_and(|frame| !frame.fin) {
            return Ok(data);
        }
        bail!("the client got no error event");
    };
    if at + 1 != data.len() {
        bail!("data follows the error event");
    }
    data.pop();
    Ok(data)
}

fn is_error_event(frame: &Frame) -> bool {
    let json: Result<serde_json::Value, _> = serde_json::from_slice(&frame.payload);
    frame.opcode == wire::TEXT && json.is_ok_and(|event| event["type"] == "error")
}

fn same(one: &Frame, other: &Frame) -> bool {
    (one.fin, one.opcode, &one.payload) == (other.fin, other.opcode, &other.payload)
}

fn exactly(got: &[Frame], sent: &[&Frame]) -> Result<()> {
    if got.len() != sent.len() {
        bail!("{} data frames arrived of {}", got.len(), sent.len());
    }
    prefix(got, sent)
}

fn prefix(got: &[Frame], sent: &[&Frame]) -> Result<()> {
    if got.len() > sent.len() || !got.iter().zip(sent).all(|(one, other)| same(one, other)) {
        bail!("what arrived is not what was sent: {got:?}");
    }
    let text = text_so_far(got);
    if let Err(error) = std::str::from_utf8(&text)
        && error.error_len().is_some()
    {
        bail!("text that is not UTF-8 was passed on");
    }
    Ok(())
}

/// The payload of the last message, if it is text; earlier ones were complete.
fn text_so_far(frames: &[Frame]) -> Vec<u8> {
    let start = frames
        .iter()
        .rposition(|frame| frame.opcode != wire::CONTINUATION);
    match start {
        Some(start) if frames[start].opcode == wire::TEXT => frames[start..]
            .iter()
            .flat_map(|frame| frame.payload.clone())
            .collect(),
        _ => Vec::new(),
    }
}

/// Whether all that a side got are whole and legal frames.
fn well_formed(ends: &Ends, side: Side) -> Result<()> {
    let (frames, rest) = ends.got(side).frames();
    let expects_mask = side == Side::Upstream;
    if let Some(bad) = frames
        .iter()
        .find(|frame| !frame.is_well_formed(expects_mask))
    {
        bail!("{side:?} got a malformed frame: {bad:?}");
    }
    if rest > 0 && ends.got(side).ended_at.is_some() {
        bail!("{side:?} got {rest} bytes of a frame that has no end");
    }
    Ok(())
}

/// Waits for both connections to end.
fn both_end(ends: &mut Ends) -> Result<()> {
    let ended =
        |ends: &Ends| ends.got_client.ended_at.is_some() && ends.got_upstream.ended_at.is_some();
    // Each peer answers a close frame, as RFC 6455, section 5.5.1, wants it.
    for side in [Side::Client, Side::Upstream] {
        ends.until(PATIENCE, |ends| {
            ended(ends) || ends.got(side).close_code().is_some()
        });
        let code = ends.got(side).close_code();
        let answer = wire::encode(true, wire::CLOSE, &code_bytes(code), key(side));
        ends.send(side, &answer);
    }
    if !ends.until(PATIENCE, ended) {
        bail!(
            "left open: client {:?}, upstream {:?}",
            ends.got_client.ended_at.is_none(),
            ends.got_upstream.ended_at.is_none()
        );
    }
    Ok(())
}

fn stays_open(ends: &mut Ends) -> Result<()> {
    let ended =
        |ends: &Ends| ends.got_client.ended_at.is_some() || ends.got_upstream.ended_at.is_some();
    if ends.until(QUIET, ended) {
        bail!("the session ended: {}", shown(ends, Side::Client));
    }
    Ok(())
}

fn code_bytes(code: Option<u16>) -> Vec<u8> {
    match code {
        None | Some(1005) => Vec::new(),
        Some(code) => code.to_be_bytes().to_vec(),
    }
}

fn key(side: Side) -> Option<[u8; 4]> {
    (side == Side::Client).then_some([0x11, 0x22, 0x33, 0x44])
}

fn shown(ends: &Ends, side: Side) -> String {
    let (frames, rest) = ends.got(side).frames();
    format!("{side:?} has {frames:?} and {rest} bytes more")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_corpus() {
        let line =
            r#"{"id":"a/b","dir":"s2c","hex":"8101ff","expect":"close:1002,1007","rfc":"5.1"}"#;
        let case = case(line).unwrap();
        assert_eq!((case.name.as_str(), case.from), ("s2c a/b", Side::Upstream));
        assert_eq!(case.bytes, [0x81, 1, 0xff]);
        assert_eq!(case.expect, Expect::Close(vec![1002, 1007]));
        for broken in [
            r#"{"id":"a","dir":"up","hex":"","expect":"forward"}"#,
            r#"{"id":"a","dir":"c2s","hex":"0","expect":"forward"}"#,
            r#"{"id":"a","dir":"c2s","hex":"0g","expect":"forward"}"#,
            r#"{"id":"a","dir":"c2s","hex":"","expect":"maybe"}"#,
        ] {
            assert!(super::case(broken).is_err(), "{broken}");
        }
    }

    #[test]
    fn short_cases_are_cut_everywhere() {
        assert_eq!(cuts(3), [Cut::Whole, Cut::Bytes, Cut::At(1), Cut::At(2)]);
        assert_eq!(Cut::At(1).pieces(b"abc"), [&b"a"[..], b"bc"]);
        assert!(cuts(1000).contains(&Cut::At(999)) && !cuts(1000).contains(&Cut::Bytes));
    }
}
