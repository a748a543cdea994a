//! The two peers of one relayed session, in the hands of one thread.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::talkline::{PATIENCE, Relay};
use super::wire;

/// An upstream that answers every request with 101 and hands the stream to whoever asked for its model.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    waiting: Arc<Mutex<Waiting>>,
}

/// Who waits for the session of which model.
type Waiting = HashMap<String, mpsc::Sender<TcpStream>>;

impl Upstream {
    /// Listens on a port of the system's choice until the process ends.
    ///
    /// # Errors
    /// When there is no port.
    pub(crate) fn start() -> Result<Upstream> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let waiting = Arc::new(Mutex::new(Waiting::new()));
        let shared = Arc::clone(&waiting);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&shared);
                // One that fails its handshake is missed by the session that waits for it.
                thread::spawn(move || answer(stream, &shared));
            }
        });
        Ok(Upstream { address, waiting })
    }

    /// Opens a session through the relay, with both of its ends here.
    ///
    /// # Errors
    /// When the relay refuses, or does not dial in time.
    pub(crate) fn session(&self, relay: &Relay, model: &str) -> Result<Ends> {
        let (sender, receiver) = mpsc::channel();
        lock(&self.waiting).insert(model.to_owned(), sender);
        let opened = relay.open(model);
        let upstream = receiver.recv_timeout(PATIENCE);
        lock(&self.waiting).remove(model);
        let (client, early) = opened?;
        Ends::new(client, early, upstream.context("the relay did not dial")?)
    }
}

fn lock(waiting: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

fn answer(mut stream: TcpStream, waiting: &Mutex<Waiting>) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let (head, _) = wire::read_head(&mut stream).ok()?;
    let target = head.split(' ').nth(1)?;
    let model = target.split_once("model=")?.1.split('&').next()?;
    let sender = lock(waiting).remove(model)?;
    let accept = wire::accept(wire::header(&head, "sec-websocket-key")?);
    write!(
        stream,
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    )
    .ok()?;
    sender.send(stream).ok()
}

/// One of the two peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Upstream,
}

impl Side {
    pub(crate) fn other(self) -> Side {
        match self {
            Side::Client => Side::Upstream,
            Side::Upstream => Side::Client,
        }
    }
}

/// What one peer has got so far.
#[derive(Debug, Default)]
pub(crate) struct Got {
    pub(crate) bytes: Vec<u8>,
    /// When the first close frame was whole.
    pub(crate) closed_at: Option<Instant>,
    /// When the stream ended or broke.
    pub(crate) ended_at: Option<Instant>,
}

impl Got {
    /// Whole frames, and how many bytes of another follow.
    pub(crate) fn frames(&self) -> (Vec<wire::Frame>, usize) {
        wire::frames(&self.bytes)
    }

    pub(crate) fn close_code(&self) -> Option<u16> {
        self.frames().0.iter().find_map(wire::Frame::close_code)
    }
}

/// Both ends of a session. Dropping it closes both.
pub(crate) struct Ends {
    client: TcpStream,
    upstream: TcpStream,
    arrivals: mpsc::Receiver<(Side, Vec<u8>)>,
    pub(crate) got_client: Got,
    pub(crate) got_upstream: Got,
}

impl Ends {
    fn new(client: TcpStream, early: Vec<u8>, upstream: TcpStream) -> Result<Ends> {
        let (sender, arrivals) = mpsc::channel();
        for (side, stream) in [(Side::Client, &client), (Side::Upstream, &upstream)] {
            stream.set_read_timeout(None)?;
            let (mut stream, sender) = (stream.try_clone()?, sender.clone());
            thread::spawn(move || {
                let mut buffer = vec![0; 64 * 1024];
                loop {
                    // A broken stream has ended as well; an empty arrival says so.
                    let read = stream.read(&mut buffer).unwrap_or(0);
                    if sender.send((side, buffer[..read].to_vec())).is_err() || read == 0 {
                        return;
                    }
                }
            });
        }
        Ok(Ends {
            client,
            upstream,
            arrivals,
            got_client: Got {
                bytes: early,
                ..Got::default()
            },
            got_upstream: Got::default(),
        })
    }

    pub(crate) fn got(&self, side: Side) -> &Got {
        match side {
            Side::Client => &self.got_client,
            Side::Upstream => &self.got_upstream,
        }
    }

    /// Sends from one side; a peer that has hung up already is no error of the sender's.
    pub(crate) fn send(&mut self, side: Side, bytes: &[u8]) -> bool {
        self.stream(side).write_all(bytes).is_ok()
    }

    /// Says that nothing more comes from this side.
    pub(crate) fn finish(&mut self, side: Side) {
        let _ = self.stream(side).shutdown(Shutdown::Write);
    }

    fn stream(&mut self, side: Side) -> &mut TcpStream {
        match side {
            Side::Client => &mut self.client,
            Side::Upstream => &mut self.upstream,
        }
    }

    /// Takes what comes until `done` says so or the time is up; returns what `done` said last.
    pub(crate) fn until(&mut self, limit: Duration, done: impl Fn(&Ends) -> bool) -> bool {
        let deadline = Instant::now() + limit;
        loop {
            if done(self) {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok((side, bytes)) = self.arrivals.recv_timeout(left) else {
                return false;
            };
            let got = match side {
                Side::Client => &mut self.got_client,
                Side::Upstream => &mut self.got_upstream,
            };
            if bytes.is_empty() {
                got.ended_at = Some(Instant::now());
                continue;
            }
            got.bytes.extend_from_slice(&bytes);
            if got.closed_at.is_none() && got.close_code().is_some() {
                got.closed_at = Some(Instant::now());
            }
        }
    }
}

impl Drop for Ends {
    fn drop(&mut self) {
        // Ends the reading threads, which hold the sockets too.
        let _ = self.client.shutdown(Shutdown::Both);
        let _ = self.upstream.shutdown(Shutdown::Both);
    }
}
