//! A TCP proxy that makes a bad network between two peers on loopback, the same one for the same seed.
//!
//! It sees bytes, not frames, so it goes in front of anything: of a simulator with or without TLS, or between a
//! client and what it calls. Bytes are delayed, cut and slowed down, but never lost, changed or reordered: that is
//! TCP's promise, and what a peer under test may rely on. What a network can do beyond that, it can do as well: fall
//! silent, break off, or end in one direction.
//!
//! ```
//! use talkline_sim::chaos::{Chaos, Direction, Faults};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
//! # let simulator = talkline_sim::Simulator::builder().start().await?;
//! let faults = Faults { chop_bytes_max: Some(7), ..Faults::default() };
//! let network = Chaos { seed: 42, to_client: faults, ..Chaos::default() }.between(simulator.addr()).await?;
//! println!("call http://{} for a simulator whose answers come in small pieces", network.addr());
//! network.black_hole(Direction::ToClient);
//! # Ok::<(), std::io::Error>(())
//! # })?;
//! # Ok::<(), std::io::Error>(())
//! ```

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep, sleep_until};

/// Bytes that are read at a time.
const PIECE_BYTES: usize = 16 << 10;
/// Pieces that are on their way in one direction; a sender beyond that waits, as for a full window.
const PIECES_MAX: usize = 64;

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the one that connected to the one behind the proxy.
    ToServer,
    /// From the one behind the proxy to the one that connected.
    ToClient,
}

/// How a connection breaks off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Both peers see an end of stream, as when a process is killed.
    Fin,
    /// Both peers see a reset, as when a host or a middlebox has forgotten the connection.
    Reset,
}

/// What happens to the bytes of one direction. The default is a perfect network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Time that every byte is on its way.
    pub delay: Duration,
    /// Further time, from nothing to this, drawn anew for each piece. Bytes still arrive in order.
    pub jitter: Duration,
    /// Delivers in pieces of one byte to this many, each in a write of its own. `None` delivers what was read at once.
    pub chop_bytes_max: Option<usize>,
    /// Most bytes a second. `None` does not slow down.
    pub bytes_per_second: Option<u32>,
    /// Breaks the connection off when exactly so many bytes have been delivered in this direction.
    pub break_after: Option<(u64, Ending)>,
}

/// A network's faults and where its dice start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Chaos {
    /// The same seed cuts and delays the same bytes in the same way.
    pub seed: u64,
    /// Faults on the way to the server.
    pub to_server: Faults,
    /// Faults on the way to the client.
    pub to_client: Faults,
}

impl Chaos {
    /// Listens on loopback and passes each connection on to `server`.
    ///
    /// # Errors
    /// When there is no port to listen on.
    pub async fn between(self, server: SocketAddr) -> io::Result<Network> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let (control, state) = watch::channel(State {
            chaos: self,
            ..State::default()
        });
        let open = Arc::new(AtomicUsize::new(0));
        let accepting = tokio::spawn(accept(listener, server, state, Arc::clone(&open)));
        Ok(Network {
            address,
            control,
            open,
            accepting,
        })
    }
}

/// What has been done to the network since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct State {
    chaos: Chaos,
    silent_to_server: bool,
    silent_to_client: bool,
    half_closed: Option<Direction>,
    /// Counted, so that connections made later are spared.
    resets: u64,
}

impl State {
    fn is_silent(self, direction: Direction) -> bool {
        match direction {
            Direction::ToServer => self.silent_to_server,
            Direction::ToClient => self.silent_to_client,
        }
    }
}

/// A running proxy. Dropping it drops all its connections.
#[derive(Debug)]
pub struct Network {
    address: SocketAddr,
    control: watch::Sender<State>,
    open: Arc<AtomicUsize>,
    accepting: JoinHandle<()>,
}

impl Network {
    /// The address to connect to.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// Connections that are open.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    /// Other faults for connections that are made from here on.
    pub fn change(&self, chaos: Chaos) {
        self.control.send_modify(|state| state.chaos = chaos);
    }

    /// Delivers nothing more in this direction, without telling anybody. What is sent is kept for [`Network::heal`].
    pub fn black_hole(&self, direction: Direction) {
        self.control.send_modify(|state| match direction {
            Direction::ToServer => state.silent_to_server = true,
            Direction::ToClient => state.silent_to_client = true,
        });
    }

    /// Delivers again, in both directions, what was sent in the meantime first.
    pub fn heal(&self) {
        self.control.send_modify(|state| {
            state.silent_to_server = false;
            state.silent_to_client = false;
        });
    }

    /// Ends this direction of every connection with an end of stream; the other one stays open.
    pub fn half_close(&self, direction: Direction) {
        self.control
            .send_modify(|state| state.half_closed = Some(direction));
    }

    /// Resets every connection that is open, towards both peers.
    pub fn reset(&self) {
        self.control.send_modify(|state| state.resets += 1);
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(
    listener: TcpListener,
    server: SocketAddr,
    state: watch::Receiver<State>,
    open: Arc<AtomicUsize>,
) {
    let mut connections = JoinSet::new();
    let mut number = 0;
    loop {
        tokio::select! {
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => {
                let Ok((client, _)) = accepted else {
                    // Running out of descriptors passes; asking again at once would spin.
                    sleep(Duration::from_millis(50)).await;
                    continue;
                };
                number += 1;
                open.fetch_add(1, Ordering::SeqCst);
                let counted = Counted(Arc::clone(&open));
                let chaos = state.borrow().chaos;
                let (seed, state) = (chaos.seed ^ number, state.clone());
                connections.spawn(async move {
                    let _counted = counted;
                    // A server that does not listen is one more way for a network to fail.
                    let _ = connection(client, server, Chaos { seed, ..chaos }, state).await;
                });
            }
        }
    }
}

/// One open connection.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn connection(
    client: TcpStream,
    server: SocketAddr,
    chaos: Chaos,
    mut state: watch::Receiver<State>,
) -> io::Result<()> {
    let server = TcpStream::connect(server).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let resets = state.borrow_and_update().resets;
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let dice = |direction| Dice::new(chaos.seed, direction);
    let mut up = Way::new(Direction::ToServer, chaos.to_server, state.clone(), dice(1));
    let mut down = Way::new(Direction::ToClient, chaos.to_client, state.clone(), dice(2));
    // The halves outlive the pumps, so that a reset finds both sockets whole.
    let (mut from_client, mut to_client) = (from_client, to_client);
    let (mut from_server, mut to_server) = (from_server, to_server);
    let ending = {
        let pumps = async {
            tokio::try_join!(
                up.pump(&mut from_client, &mut to_server),
                down.pump(&mut from_server, &mut to_client)
            )
        };
        let broken = async {
            let _ = state.wait_for(|state| state.resets > resets).await;
        };
        tokio::select! {
            ending = pumps => ending.err(),
            () = broken => Some(Ending::Reset),
        }
    };
    match ending {
        Some(Ending::Reset) => {
            for (read, write) in [(from_client, to_client), (from_server, to_server)] {
                if let Ok(stream) = read.reunite(write) {
                    stream.set_zero_linger()?;
                }
            }
        }
        Some(Ending::Fin) => {
            // Before the sockets are dropped: one with unread bytes would be reset by that.
            let _ = to_client.shutdown().await;
            let _ = to_server.shutdown().await;
        }
        None => {}
    }
    Ok(())
}

/// One direction of one connection.
struct Way {
    direction: Direction,
    faults: Faults,
    state: watch::Receiver<State>,
    dice: Dice,
    delivered: u64,
}

impl Way {
    fn new(
        direction: Direction,
        faults: Faults,
        state: watch::Receiver<State>,
        dice: Dice,
    ) -> Self {
        Self {
            direction,
            faults,
            state,
            dice,
            delivered: 0,
        }
    }

    /// Passes everything on; fails with how the connection is to break off.
    async fn pump(
        &mut self,
        from: &mut OwnedReadHalf,
        to: &mut OwnedWriteHalf,
    ) -> Result<(), Ending> {
        let (queue, mut due) = mpsc::channel(PIECES_MAX);
        let (delay, jitter) = (self.faults.delay, self.faults.jitter);
        let mut dice = self.dice.split();
        let read = async move {
            let mut last = Instant::now();
            loop {
                let mut piece = vec![0; PIECE_BYTES];
                let read = from.read(&mut piece).await.unwrap_or(0);
                piece.truncate(read);
                // A later piece never overtakes an earlier one.
                last = last.max(Instant::now() + delay + jitter.mul_f64(dice.fraction()));
                if queue.send((last, Bytes::from(piece))).await.is_err() || read == 0 {
                    return;
                }
            }
        };
        let mut state = self.state.clone();
        let direction = self.direction;
        let half_closed = async move {
            let closed = |state: &State| state.half_closed == Some(direction);
            if state.wait_for(closed).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        let write = async {
            while let Some((at, piece)) = due.recv().await {
                sleep_until(at).await;
                if piece.is_empty() {
                    break;
                }
                if !self.deliver(to, piece).await? {
                    break;
                }
            }
            Ok(())
        };
        let read = async {
            read.await;
            // What was read last is still on its way.
            std::future::pending::<()>().await;
        };
        tokio::select! {
            done = write => done?,
            () = read => {}
            () = half_closed => {}
        }
        let _ = to.shutdown().await;
        Ok(())
    }

    /// Whether the receiver still takes anything.
    async fn deliver(&mut self, to: &mut OwnedWriteHalf, mut piece: Bytes) -> Result<bool, Ending> {
        while !piece.is_empty() {
            let silent = self.direction;
            if self
                .state
                .wait_for(|state| !state.is_silent(silent))
                .await
                .is_err()
            {
                return Ok(false);
            }
            let mut length = match self.faults.chop_bytes_max {
                Some(most) => piece.len().min(1 + self.dice.below(most.max(1))),
                None => piece.len(),
            };
            if let Some((after, _)) = self.faults.break_after {
                let left = usize::try_from(after - self.delivered).unwrap_or(usize::MAX);
                length = length.min(left);
            }
            if to.write_all(&piece.split_to(length)).await.is_err() {
                return Ok(false);
            }
            self.delivered += length as u64;
            if let Some((after, ending)) = self.faults.break_after
                && self.delivered == after
            {
                return Err(ending);
            }
            if let Some(rate) = self.faults.bytes_per_second {
                sleep(Duration::from_secs_f64(
                    length as f64 / f64::from(rate.max(1)),
                ))
                .await;
            } else if self.faults.chop_bytes_max.is_some() {
                // Gives the receiver a chance to see this piece alone.
                tokio::task::yield_now().await;
            }
        }
        Ok(true)
    }
}

/// SplitMix64: small, and the same on every machine and in every version.
#[derive(Clone, Debug)]
struct Dice(u64);

impl Dice {
    fn new(seed: u64, direction: u64) -> Self {
        let mut dice = Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ direction);
        dice.roll();
        dice
    }

    fn split(&mut self) -> Self {
        Self(self.roll())
    }

    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, most: usize) -> usize {
        // The remainder is below a usize, so the narrowing is exact.
        (self.roll() % most as u64) as usize
    }

    fn fraction(&mut self) -> f64 {
        (self.roll() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_throws_the_same_dice_again() {
        let throws = |seed, direction| {
            let mut dice = Dice::new(seed, direction);
            [
                dice.below(100),
                dice.below(100),
                dice.below(100),
                dice.below(100),
            ]
        };
        assert_eq!(throws(7, 1), throws(7, 1));
        assert_ne!(throws(7, 1), throws(7, 2));
        assert_ne!(throws(7, 1), throws(8, 1));
        let mut dice = Dice::new(1, 1);
        assert!((0..1000).all(|_| (0.0..1.0).contains(&dice.fraction())));
    }
}
