//! The socket that connections come from: handed over by whoever started the process, or bound here.

use std::{
    io,
    net::{SocketAddr, TcpListener},
};

use listenfd::ListenFd;
use tracing::info;

use crate::exit::Exit;

/// A listening socket that was handed over (sd_listen_fds(3)), if one was.
///
/// It stays open in the hands of the service manager while one process ends and the next begins, so no connection is
/// refused in between. To be called before there are threads: it takes the variables out of the environment.
pub(super) fn inherited() -> Result<Option<TcpListener>, Exit> {
    let listener = ListenFd::from_env()
        .take_tcp_listener(0)
        .map_err(unusable)?;
    if let Some(listener) = &listener {
        listener.set_nonblocking(true).map_err(unusable)?;
    }
    Ok(listener)
}

/// The inherited socket for every thread, or one for each that is bound to `listen`.
pub(super) fn open(
    inherited: Option<TcpListener>,
    listen: SocketAddr,
    threads: usize,
) -> Result<Vec<TcpListener>, Exit> {
    let Some(listener) = inherited else {
        return talkline_gateway::listeners(listen, threads)
            .map_err(|error| Exit::Unavailable(format!("cannot listen on {listen}: {error}")));
    };
    info!(configured = %listen, "listening on the socket that was handed over");
    let mut listeners = vec![listener];
    while listeners.len() < threads {
        // The same queue of connections, of which each thread takes what it is quick enough for.
        listeners.push(listeners[0].try_clone().map_err(unusable)?);
    }
    Ok(listeners)
}

fn unusable(error: io::Error) -> Exit {
    Exit::Unavailable(format!(
        "the socket that was handed over cannot be used: {error}"
    ))
}
