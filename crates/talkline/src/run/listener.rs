//! The socket that connections come from: handed over by whoever started the process, or bound here.

use std::{io, net::SocketAddr};

use listenfd::ListenFd;
use tokio::net::TcpListener;
use tracing::info;

use crate::exit::Exit;

/// A listening socket that was handed over (sd_listen_fds(3)), if one was.
///
/// It stays open in the hands of the service manager while one process ends and the next begins, so no connection is
/// refused in between. To be called before there are threads: it takes the variables out of the environment.
pub(super) fn inherited() -> Result<Option<std::net::TcpListener>, Exit> {
    let unusable = |error: io::Error| {
        Exit::Unavailable(format!(
            "the socket that was handed over cannot be used: {error}"
        ))
    };
    let listener = ListenFd::from_env()
        .take_tcp_listener(0)
        .map_err(unusable)?;
    if let Some(listener) = &listener {
        listener.set_nonblocking(true).map_err(unusable)?;
    }
    Ok(listener)
}

/// The inherited socket, or one that is bound to `listen`. Needs the runtime.
pub(super) async fn open(
    inherited: Option<std::net::TcpListener>,
    listen: SocketAddr,
) -> Result<TcpListener, Exit> {
    let Some(listener) = inherited else {
        return TcpListener::bind(listen)
            .await
            .map_err(|error| Exit::Unavailable(format!("cannot listen on {listen}: {error}")));
    };
    info!(configured = %listen, "listening on the socket that was handed over");
    TcpListener::from_std(listener).map_err(|error| {
        Exit::Unavailable(format!(
            "the socket that was handed over cannot be used: {error}"
        ))
    })
}
