//! Crowds: many clients at one moment, for what only one or two of them may have.
//!
//! Each client is a thread with a connection of its own; a barrier lets their requests go together.
//! While those who were let in still are, the upstream's connections are counted.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::relay::Relay;
use super::upstream::Upstream;
use crate::report::Tally;
use crate::workspace::Workspace;

/// Clients that ask for a place at one moment, and how many places there are.
const STARTS: usize = 100;
const PLACES: usize = 2;
/// Clients that present the same token at one moment.
const REPLAYS: usize = 50;
/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(20);
const CLIENT_KEY: &str = "conformance-crowd-key";
/// The client by the hash of its key, and room for a crowd from one address whose failures are
/// expected.
const CONFIGURATION: &str = "\
    clients.keys = [{ name = \"crowd\", sha256 = \"1a6e1a13996937aa39dab9ba4cf991c1a23e43fa6b07efc78dfeb798a8b93b6d\" }]\n\
    limits.maxHandshakes = 1000\n\
    limits.maxHandshakesPerSource = 1000\n\
    limits.maxFailuresPerSource = 10000\n\
    limits.maxFailures = 1000000\n\
    limits.failureWindow = \"1s\"\n";

type Rounds = fn(&Crowd, usize) -> Result<()>;

/// By name, with what the configuration says beside [`CONFIGURATION`].
const CROWDS: [(&str, &str, Rounds); 2] = [
    ("starts", "clients.access.crowd.maxSessions = 2\n", starts),
    ("replays", "", replays),
];

/// Runs both crowds, `rounds` times each.
///
/// # Errors
/// When the relay does not start.
pub(crate) fn run(workspace: &Workspace, talkline: &Path, rounds: usize) -> Result<Tally> {
    let folder = workspace.target.join("conformance/crowd");
    let mut tally = Tally::default();
    for (name, limits, crowd) in CROWDS {
        let upstream = Upstream::start()?;
        let configuration = format!("{CONFIGURATION}{limits}");
        let relay = Relay::start(
            talkline,
            &folder.join(name),
            upstream.address,
            &configuration,
        )?;
        let all = Crowd {
            relay: relay.address,
            upstream,
        };
        match crowd(&all, rounds) {
            Ok(()) => tally.passed += 1,
            Err(error) => {
                println!("FAILED {name}: {error:#} (log: {})", relay.log.display());
                tally.failed += 1;
            }
        }
    }
    Ok(tally)
}

/// A hundred starts at one moment against a limit of two.
fn starts(crowd: &Crowd, rounds: usize) -> Result<()> {
    let began = Instant::now();
    let request = upgrade(&format!("Authorization: Bearer {CLIENT_KEY}\r\n"));
    let mut full = 0;
    for number in 0..rounds {
        let round = crowd.round(STARTS, &request)?;
        let opened = round.count(101);
        ensure!(
            opened + round.count(429) == STARTS,
            "round {number}: {:?}",
            round.statuses
        );
        ensure!(
            opened <= PLACES && round.dials == opened,
            "round {number}: {opened} sessions and {} dials",
            round.dials
        );
        full += usize::from(opened == PLACES);
    }
    let peak = crowd.upstream.sockets_peak();
    println!(
        "crowd: {rounds} rounds of {STARTS} starts against a limit of {PLACES}: at most {peak} upstream \
         connections; all places taken in {full} rounds; {:.0} s",
        began.elapsed().as_secs_f64()
    );
    ensure!(peak == PLACES, "{peak} upstream connections at one time");
    // A place comes back a moment after the connection that it was for has gone.
    ensure!(full * 2 > rounds, "the places come back too seldom");
    Ok(())
}

/// Fifty presentations of one token at one moment.
fn replays(crowd: &Crowd, rounds: usize) -> Result<()> {
    let began = Instant::now();
    for number in 0..rounds {
        let token = mint(crowd.relay)?;
        let request = upgrade(&format!(
            "Sec-WebSocket-Protocol: realtime, openai-insecure-api-key.{token}\r\n"
        ));
        let round = crowd.round(REPLAYS, &request)?;
        let all = (round.count(101), round.count(401), round.dials);
        ensure!(
            all == (1, REPLAYS - 1, 1),
            "round {number}: {} dials, {:?}",
            round.dials,
            round.statuses
        );
    }
    println!(
        "crowd: {rounds} rounds of {REPLAYS} presentations of one token: exactly one session in each; {:.0} s",
        began.elapsed().as_secs_f64()
    );
    Ok(())
}

struct Crowd {
    relay: SocketAddr,
    upstream: Upstream,
}

/// What became of the requests of one moment.
struct Round {
    statuses: Vec<u16>,
    /// Requests that the upstream saw.
    dials: usize,
}

impl Round {
    fn count(&self, status: u16) -> usize {
        self.statuses.iter().filter(|it| **it == status).count()
    }
}

impl Crowd {
    /// Sends a request from `asking` connections at one moment, and ends the sessions that it opened.
    fn round(&self, asking: usize, request: &str) -> Result<Round> {
        self.upstream.wait_until_idle(PATIENCE)?;
        let barrier = Barrier::new(asking);
        let answers: Vec<Result<(u16, TcpStream)>> = thread::scope(|scope| {
            let clients: Vec<_> = (0..asking)
                .map(|_| {
                    scope.spawn(|| {
                        let stream = connect(self.relay);
                        barrier.wait();
                        ask(stream?, request)
                    })
                })
                .collect();
            clients
                .into_iter()
                .map(|client| client.join().unwrap_or_else(|_| bail!("a client panicked")))
                .collect()
        });
        let answers: Vec<(u16, TcpStream)> = answers.into_iter().collect::<Result<_>>()?;
        let round = Round {
            statuses: answers.iter().map(|(status, _)| *status).collect(),
            dials: self.upstream.take_heads().len(),
        };
        for (_, stream) in answers.into_iter().filter(|(status, _)| *status == 101) {
            close(stream)?;
        }
        Ok(round)
    }
}

fn connect(relay: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect(relay).context("connecting to the relay")?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn upgrade(headers: &str) -> String {
    format!(
        "GET /v1/realtime?model=m HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
    )
}

/// Sends a request; returns the status, and the connection behind the head.
fn ask(mut stream: TcpStream, request: &str) -> Result<(u16, TcpStream)> {
    stream.write_all(request.as_bytes())?;
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream
            .read_exact(&mut byte)
            .context("waiting for an answer")?;
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head);
    let status = head.split(' ').nth(1).unwrap_or_default();
    Ok((status.parse().context("a status")?, stream))
}

/// Sends a close frame and waits until the relay hangs up.
fn close(mut stream: TcpStream) -> Result<()> {
    stream.write_all(&[0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8])?;
    let mut rest = Vec::new();
    stream
        .read_to_end(&mut rest)
        .context("waiting for the relay to hang up")?;
    Ok(())
}

/// Asks the relay for a token.
fn mint(relay: SocketAddr) -> Result<String> {
    let request = format!(
        "POST /v1/realtime/client_secrets HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\
         Authorization: Bearer {CLIENT_KEY}\r\n\r\n"
    );
    let (status, mut stream) = ask(connect(relay)?, &request)?;
    let mut body = String::new();
    stream.read_to_string(&mut body)?;
    let answer: Value = serde_json::from_str(&body).context("a token in JSON")?;
    match answer["value"].as_str() {
        Some(token) if status == 200 => Ok(token.to_owned()),
        _ => bail!("no token: {status} {body}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What lets everybody in, or one too many, is noticed.
    #[test]
    fn a_crowd_is_counted() {
        let upstream = Upstream::start().unwrap();
        // An upstream lets everybody in, and answers upgrades as a relay does.
        let crowd = Crowd {
            relay: upstream.address,
            upstream,
        };
        let round = crowd.round(5, &upgrade("")).unwrap();
        assert_eq!((round.count(101), round.dials), (5, 5));
        assert_eq!(crowd.upstream.sockets_peak(), 5);
        let refused = starts(&crowd, 1).unwrap_err().to_string();
        assert!(refused.contains("100 sessions"), "{refused}");
    }
}
