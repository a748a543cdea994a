//! An upstream that completes every upgrade, keeps what it was sent, and hangs up when it is told to close.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use base64::Engine as _;
use sha1::{Digest, Sha1};

/// Longest head that is read.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Longest silence of a client before its connection is given up.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// First byte of a close frame that is not a fragment.
const CLOSE: u8 = 0x88;

/// A listener on loopback whose threads end with the process.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
    sockets: Arc<Sockets>,
}

/// Connections at one time.
#[derive(Default)]
struct Sockets {
    counts: Mutex<Counts>,
    fewer: Condvar,
}

#[derive(Default)]
struct Counts {
    open: usize,
    /// The most that were open at one time.
    peak: usize,
}

/// One of the connections, until it is dropped.
struct Open(Arc<Sockets>);

impl Sockets {
    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    fn another(sockets: &Arc<Sockets>) -> Open {
        let mut counts = sockets.lock();
        counts.open += 1;
        counts.peak = counts.peak.max(counts.open);
        Open(Arc::clone(sockets))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.lock().open -= 1;
        self.0.fewer.notify_all();
    }
}

impl Upstream {
    /// Starts to listen on a port that the system chooses.
    ///
    /// # Errors
    /// When there is no port.
    pub(crate) fn start() -> Result<Upstream> {
        let listener = TcpListener::bind("127.0.0.1:0").context("listening on loopback")?;
        let address = listener.local_addr()?;
        let heads = Arc::new(Mutex::new(Vec::new()));
        let sockets = Arc::<Sockets>::default();
        let (kept, counted) = (Arc::clone(&heads), Arc::clone(&sockets));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (kept, open) = (Arc::clone(&kept), Open::another(&counted));
                thread::spawn(move || {
                    answer(stream, &kept);
                    drop(open);
                });
            }
        });
        Ok(Upstream {
            address,
            heads,
            sockets,
        })
    }

    /// The most connections that were open at one time.
    pub(crate) fn sockets_peak(&self) -> usize {
        self.sockets.lock().peak
    }

    /// Waits until no connection is open.
    ///
    /// # Errors
    /// When some still are after `patience`.
    pub(crate) fn wait_until_idle(&self, patience: Duration) -> Result<()> {
        let counts = self.sockets.lock();
        let (counts, _) = self
            .sockets
            .fewer
            .wait_timeout_while(counts, patience, |counts| counts.open > 0)
            .unwrap_or_else(PoisonError::into_inner);
        if counts.open > 0 {
            bail!("{} upstream connections stay open", counts.open);
        }
        Ok(())
    }

    /// The request heads that have come since the last call.
    pub(crate) fn take_heads(&self) -> Vec<String> {
        std::mem::take(&mut self.heads.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Any failure is the peer's hanging up: there is nobody left to tell.
fn answer(mut stream: TcpStream, heads: &Mutex<Vec<String>>) -> Option<()> {
    stream.set_read_timeout(Some(SILENCE_MAX)).ok()?;
    let mut head = Vec::new();
    let mut buffer = [0; 4096];
    while !head.windows(4).any(|four| four == b"\r\n\r\n") {
        let read = stream.read(&mut buffer).ok()?;
        head.extend_from_slice(&buffer[..read]);
        if read == 0 || head.len() > HEAD_BYTES_MAX {
            return None;
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let key = header(&head, "sec-websocket-key").map(str::to_owned);
    heads
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(head);
    let switch = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {}\r\n\r\n",
        accept(&key?)
    );
    stream.write_all(switch.as_bytes()).ok()?;
    loop {
        let read = stream.read(&mut buffer).ok()?;
        if read == 0 || buffer[0] == CLOSE {
            return Some(());
        }
    }
}

/// `Sec-WebSocket-Accept` (RFC 6455, section 4.2.2).
fn accept(key: &str) -> String {
    let mut hash = Sha1::new();
    hash.update(key.as_bytes());
    hash.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    base64::engine::general_purpose::STANDARD.encode(hash.finalize())
}

/// The value of the first header of that name, in any case.
pub(crate) fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().skip(1).find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_rfc() {
        assert_eq!(
            accept("dGhlIHNhbXBsZSBub25jZQ=="),
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
    }

    #[test]
    fn headers_are_found_in_any_case() {
        let head = "GET / HTTP/1.1\r\nHOST: a\r\nX: y: z\r\n\r\n";
        assert_eq!(header(head, "host"), Some("a"));
        assert_eq!(header(head, "x"), Some("y: z"));
        assert_eq!(header(head, "z"), None);
    }
}
