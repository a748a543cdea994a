//! One runtime a thread, each with a listener of its own on the same port.
//!
//! A session then stays on the thread that accepted it: its wake-ups cross no thread, and the buffers
//! that sessions share are the thread's own. Nothing is shared but what [`Shared`](super::Shared) counts.

use std::{future::Future, io, net::SocketAddr, sync::Arc, thread};

use tokio::{
    net::{TcpListener, TcpSocket},
    runtime::{self, Runtime},
    sync::{oneshot, watch},
    task::JoinSet,
    time::{Instant, timeout_at},
};
use tracing::{debug, info, warn};

use super::{AcceptFailures, FAREWELL, Gateway, admin, report};
use crate::connection::Lifecycle;

/// Connections that wait in the kernel for a thread to accept them.
const BACKLOG: u32 = 1024;

/// Listeners on one address, one for each thread that is to accept there (`SO_REUSEPORT`: the kernel
/// deals connections out among them). Where port 0 lets the system choose, all get the port that the first
/// one got.
///
/// # Errors
///
/// Those of the system, such as an address that is taken.
pub fn listeners(address: SocketAddr, threads: usize) -> io::Result<Vec<std::net::TcpListener>> {
    let mut listeners: Vec<std::net::TcpListener> = Vec::new();
    for _ in 0..threads.max(1) {
        let address = match listeners.first() {
            Some(first) => first.local_addr()?,
            None => address,
        };
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        socket.set_reuseaddr(true)?;
        // A single listener does not share its port with whoever else asks for it.
        socket.set_reuseport(threads > 1)?;
        socket.bind(address)?;
        listeners.push(socket.listen(BACKLOG)?.into_std()?);
    }
    Ok(listeners)
}

impl Gateway {
    /// As [`Gateway::serve`], with a thread and a runtime of its own for each of the `listeners`; see
    /// [`listeners`]. What keeps credentials fresh stays on the runtime of the caller.
    ///
    /// # Errors
    ///
    /// A thread or its runtime could not be started; then nothing is served.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends every session without a close frame.
    pub async fn serve_on_threads(
        mut self,
        listeners: Vec<std::net::TcpListener>,
        shutdown: impl Future<Output = ()>,
    ) -> io::Result<()> {
        self.live.now().start_background();
        let notices = self.live.carried.notices.clone();
        // Dropped with this future, which cuts off what is left.
        let (cut, is_cut) = watch::channel(());
        let mut operators = JoinSet::new();
        if let Some((listener, admin)) = self.admin.take() {
            let live = Arc::clone(&self.live);
            operators.spawn(admin::serve(listener, admin, live));
        }
        let mut watching = JoinSet::new();
        watching.spawn(self.live.carried.watch_pressure());
        let gateway = Arc::new(self);
        // Before the first of them accepts: what the process holds open does not change afterwards.
        let runtimes = listeners.iter().map(|_| runtime());
        let runtimes: Vec<_> = runtimes.collect::<io::Result<_>>()?;
        let mut threads = Vec::new();
        for (number, (listener, runtime)) in listeners.into_iter().zip(runtimes).enumerate() {
            let accepting = Accepting {
                gateway: Arc::clone(&gateway),
                is_cut: is_cut.clone(),
            };
            threads.push(start(number, runtime, listener, accepting)?);
        }
        shutdown.await;
        let grace = gateway.live.now().drain_grace;
        let sessions = gateway.live.carried.sessions.taken();
        if sessions > 0 {
            info!(sessions, ?grace, "draining");
        }
        gateway.live.now().shared.metrics.draining();
        notices.send_modify(|notice| notice.lifecycle = Lifecycle::Draining);
        let grace_over = Instant::now() + grace;
        if !all_ended(&mut threads, grace_over).await {
            notices.send_modify(|notice| notice.lifecycle = Lifecycle::Ending);
            if !all_ended(&mut threads, Instant::now() + FAREWELL).await {
                let sessions = gateway.live.carried.sessions.taken();
                warn!(sessions, "sessions were cut off at the end of the grace");
            }
        }
        drop(cut);
        for ended in threads {
            // An error is a thread that panicked, of which the panic hook told.
            let _ = ended.await;
        }
        operators.shutdown().await;
        gateway.live.stop();
        watching.shutdown().await;
        Ok(())
    }
}

/// What one thread needs to accept connections and to know when to stop.
struct Accepting {
    gateway: Arc<Gateway>,
    is_cut: watch::Receiver<()>,
}

/// Starts a thread that accepts on a listener. What is returned completes when its last session is over.
fn start(
    number: usize,
    runtime: Runtime,
    listener: std::net::TcpListener,
    accepting: Accepting,
) -> io::Result<oneshot::Receiver<()>> {
    let (ended, has_ended) = oneshot::channel();
    thread::Builder::new()
        .name(format!("relay-{number}"))
        .spawn(move || {
            runtime.block_on(accept(listener, accepting));
            // Sessions leave nothing on the pool for blocking calls but look-ups of names.
            runtime.shutdown_background();
            let _ = ended.send(());
        })?;
    Ok(has_ended)
}

/// Sockets that are told of at a time. The kernel looks at each when it tells of it, and the session's turn looks at
/// the same memory again: with many at a time it has left the processor's caches in between. Thirty-two cost a tenth
/// less than tokio's 1,024 when 1,500 sessions speak at once, and nothing when few do.
const EVENTS_PER_TURN: usize = 32;

fn runtime() -> io::Result<Runtime> {
    runtime::Builder::new_current_thread()
        .enable_all()
        .max_io_events_per_tick(EVENTS_PER_TURN)
        .build()
}

async fn accept(listener: std::net::TcpListener, accepting: Accepting) {
    let Accepting {
        gateway,
        mut is_cut,
    } = accepting;
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return warn!(%error, "a thread cannot listen"),
    };
    let mut connections = JoinSet::new();
    let mut failures = AcceptFailures::default();
    let mut state = gateway.live.carried.notices.subscribe();
    loop {
        tokio::select! {
            biased;
            _ = state.wait_for(|state| state.lifecycle != Lifecycle::Serving) => break,
            Some(ended) = connections.join_next(), if !connections.is_empty() => report(ended),
            () = failures.pause() => {}
            accepted = listener.accept(), if !failures.pausing() => match accepted {
                Ok((stream, peer)) => {
                    failures.over();
                    debug!(%peer, "connection accepted");
                    gateway.start(&mut connections, stream, peer);
                }
                Err(error) => failures.another(&error),
            },
        }
    }
    drop(listener);
    loop {
        tokio::select! {
            ended = connections.join_next() => match ended {
                Some(ended) => report(ended),
                None => return,
            },
            _ = is_cut.changed() => return connections.shutdown().await,
        }
    }
}

async fn all_ended(threads: &mut Vec<oneshot::Receiver<()>>, deadline: Instant) -> bool {
    while let Some(ended) = threads.last_mut() {
        if timeout_at(deadline, ended).await.is_err() {
            return false;
        }
        threads.pop();
    }
    true
}
