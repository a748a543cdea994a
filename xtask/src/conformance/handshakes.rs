//! Hostile upgrade requests, and what each has to be answered with.
//!
//! A line of the corpus: `{"id", "raw_b64", "expect": [status…], "note"}`, where status 0 is a
//! connection closed without an answer. Beside the status, whatever the case:
//! a refusal is small, typed, and closes the connection; a 101 accepts no extension; the upstream
//! is dialled for a 101 and for nothing else, with the relay's own headers.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use base64::Engine as _;
use serde::Deserialize;

use super::relay::{Relay, UPSTREAM_KEY};
use super::upstream::{Upstream, header};
use crate::report::Tally;
use crate::sdk;
use crate::workspace::Workspace;

/// Longest wait for an answer to a whole request. The relay waits 5 s for one that is not whole.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(8);
/// Bytes of an answer that are read.
const ANSWER_BYTES_MAX: usize = 16 * 1024;
/// Bytes that the body of a refusal may have.
const REFUSAL_BYTES_MAX: usize = 512;
/// The corpus is written for a relay that is reached as `relay.test`, by pages of that origin.
const CONFIGURATION: &str = "server.allowedHosts = [\"relay.test\"]\n\
                             server.allowedOrigins = [\"https://relay.test\"]\n";
/// Headers that the relay writes upstream.
const UPSTREAM_HEADERS: &[&str] = &[
    "host",
    "connection",
    "upgrade",
    "sec-websocket-version",
    "sec-websocket-key",
    "api-key",
    "user-agent",
    "x-ms-client-request-id",
];

#[derive(Deserialize)]
struct Case {
    id: String,
    raw_b64: String,
    expect: Vec<u16>,
}

/// Sends every request of the corpus, one connection each.
///
/// # Errors
/// When the corpus cannot be read or the relay does not start.
pub(crate) fn run(workspace: &Workspace, corpus: &Path) -> Result<Tally> {
    let cases = read(corpus)?;
    let talkline = sdk::build(workspace)?;
    let upstream = Upstream::start()?;
    let folder = workspace.target.join("conformance/handshakes");
    let relay = Relay::start(&talkline, &folder, upstream.address, CONFIGURATION)?;
    let mut tally = Tally::default();
    for case in &cases {
        let faults = judge(case, relay.address, &upstream)?;
        if faults.is_empty() {
            tally.passed += 1;
        } else {
            tally.failed += 1;
            println!("FAILED {}: {}", case.id, faults.join("; "));
        }
    }
    println!(
        "handshakes: {} of {} as expected (log: {})",
        tally.passed,
        cases.len(),
        relay.log.display()
    );
    Ok(tally)
}

fn read(corpus: &Path) -> Result<Vec<Case>> {
    let text =
        fs::read_to_string(corpus).with_context(|| format!("reading {}", corpus.display()))?;
    let cases: Vec<Case> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .enumerate()
        .map(|(at, line)| {
            serde_json::from_str(line).with_context(|| format!("line {} of the corpus", at + 1))
        })
        .collect::<Result<_>>()?;
    if cases.is_empty() {
        bail!("{} holds no case", corpus.display());
    }
    Ok(cases)
}

fn judge(case: &Case, relay: SocketAddr, upstream: &Upstream) -> Result<Vec<String>> {
    let request = base64::engine::general_purpose::STANDARD
        .decode(&case.raw_b64)
        .with_context(|| format!("case {}", case.id))?;
    let answer = ask(relay, &request)?;
    let dialled = upstream.take_heads();
    let mut faults = Vec::new();
    if !case.expect.contains(&answer.status) {
        faults.push(format!("{} where {:?} is due", answer.status, case.expect));
    }
    match answer.status {
        0 => {}
        101 => faults.extend(opened(&answer)),
        _ => faults.extend(refused(&answer)),
    }
    faults.extend(upstream_saw(answer.status, &dialled));
    Ok(faults)
}

/// What came back.
struct Answer {
    /// 0 when the connection was closed without an answer.
    status: u16,
    head: String,
    body: Vec<u8>,
    /// Whether the relay hung up.
    closed: bool,
}

/// Sends the bytes; reads a refusal to its end and a 101 to the end of its head.
fn ask(relay: SocketAddr, request: &[u8]) -> Result<Answer> {
    let mut stream = TcpStream::connect(relay).context("connecting to the relay")?;
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(ANSWER_TIME_MAX))?;
    // A relay that has read enough hangs up while the rest is being written.
    let _ = stream.write_all(request);
    let deadline = Instant::now() + ANSWER_TIME_MAX;
    let mut bytes = Vec::new();
    let mut closed = false;
    let mut buffer = [0; 4096];
    while bytes.len() < ANSWER_BYTES_MAX {
        if bytes.starts_with(b"HTTP/1.1 101 ") && head_end(&bytes).is_some() {
            break;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut buffer) {
            Ok(0) => {
                closed = true;
                break;
            }
            Ok(read) => bytes.extend_from_slice(&buffer[..read]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                break;
            }
            Err(_) => {
                closed = true;
                break;
            }
        }
    }
    let _ = stream.shutdown(Shutdown::Both);
    Ok(parse(&bytes, closed))
}

fn head_end(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|four| four == b"\r\n\r\n")
}

fn parse(bytes: &[u8], closed: bool) -> Answer {
    let end = head_end(bytes).map_or(bytes.len(), |at| at + 4);
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let status = head
        .strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest.get(..3))
        .and_then(|status| status.parse().ok())
        .unwrap_or(0);
    Answer {
        status,
        head,
        body: bytes[end..].to_vec(),
        closed,
    }
}

fn opened(answer: &Answer) -> Vec<String> {
    let mut faults = Vec::new();
    if header(&answer.head, "sec-websocket-extensions").is_some() {
        faults.push("an extension was accepted".to_owned());
    }
    if answer.head.contains(UPSTREAM_KEY) {
        faults.push("the answer has the upstream's key".to_owned());
    }
    faults
}

fn refused(answer: &Answer) -> Vec<String> {
    let mut faults = Vec::new();
    let mut must = |holds: bool, otherwise: &str| {
        if !holds {
            faults.push(otherwise.to_owned());
        }
    };
    let is = |name, value: &str| {
        header(&answer.head, name).is_some_and(|found| found.eq_ignore_ascii_case(value))
    };
    must(answer.closed, "the connection stays open");
    must(is("connection", "close"), "no Connection: close");
    must(
        header(&answer.head, "content-type").is_some(),
        "no Content-Type",
    );
    must(header(&answer.head, "server").is_none(), "a Server header");
    must(answer.body.len() <= REFUSAL_BYTES_MAX, "a long body");
    must(
        answer.status != 426 || is("sec-websocket-version", "13"),
        "426 without the version that is spoken",
    );
    faults
}

/// Upstream requests are made from scratch: nothing that the client wrote is in them.
fn upstream_saw(status: u16, dialled: &[String]) -> Vec<String> {
    let mut faults = Vec::new();
    let due = usize::from(status == 101);
    if dialled.len() != due {
        faults.push(format!("{} upstream dials", dialled.len()));
    }
    for head in dialled {
        for line in head.lines().skip(1).filter(|line| !line.is_empty()) {
            let name = line.split(':').next().unwrap_or_default();
            let known = UPSTREAM_HEADERS
                .iter()
                .any(|known| known.eq_ignore_ascii_case(name));
            if !known {
                faults.push(format!("the upstream was sent `{name}`"));
            }
        }
        if header(head, "api-key") != Some(UPSTREAM_KEY) {
            faults.push("the upstream was sent another key".to_owned());
        }
        if !head.starts_with("GET /openai/v1/realtime?model=m HTTP/1.1\r\n") {
            faults.push("the upstream was asked for something else".to_owned());
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(text: &str) -> Answer {
        parse(text.as_bytes(), true)
    }

    #[test]
    fn a_refusal_is_small_typed_and_final() {
        let good = "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n{}";
        assert!(refused(&answer(good)).is_empty());
        assert_eq!(answer(good).status, 400);
        let kept = good.replace("close", "keep-alive");
        assert_eq!(refused(&answer(&kept)), ["no Connection: close"]);
        let old = good.replace("400", "426");
        assert_eq!(
            refused(&answer(&old)),
            ["426 without the version that is spoken"]
        );
        assert_eq!(answer("").status, 0);
    }

    #[test]
    fn the_upstream_sees_the_relays_own_request_or_none() {
        let own = format!(
            "GET /openai/v1/realtime?model=m HTTP/1.1\r\nHost: a\r\napi-key: {UPSTREAM_KEY}\r\n\r\n"
        );
        assert!(upstream_saw(101, std::slice::from_ref(&own)).is_empty());
        assert!(upstream_saw(403, &[]).is_empty());
        assert_eq!(
            upstream_saw(403, std::slice::from_ref(&own)),
            ["1 upstream dials"]
        );
        let leaked = own.replace("Host: a", "Metadata: true");
        assert_eq!(
            upstream_saw(101, &[leaked]),
            ["the upstream was sent `Metadata`"]
        );
    }
}
