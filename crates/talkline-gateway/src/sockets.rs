//! What the kernel is told about a connection: its buffers, and when it is dead.
//!
//! Linux lets the buffers of a slow reader's connection grow to megabytes, which no account of a process's
//! memory shows. And a peer that has vanished is noticed by default after a quarter of an hour at best,
//! when something was on its way to it, and never when nothing was.

use std::{io, net::SocketAddr, time::Duration};

use talkline_config::{Limits, SocketBuffers};
use tokio::net::{TcpSocket, TcpStream};

/// What is left to the kernel between the moment when the relay would give a peer up and its own.
const KERNEL_HEAD_START: Duration = Duration::from_secs(5);

/// What sockets of one side get.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SocketOptions {
    buffers: SocketBuffers,
    /// From bytes that nobody acknowledges to a dead connection (RFC 5482).
    #[cfg_attr(not(target_os = "linux"), expect(dead_code, reason = "Linux only"))]
    dead_after: Duration,
}

impl Default for SocketOptions {
    fn default() -> Self {
        Self {
            buffers: SocketBuffers::default(),
            dead_after: Duration::from_secs(20),
        }
    }
}

impl SocketOptions {
    pub(crate) fn client(limits: &Limits) -> Self {
        Self::new(limits, limits.client_buffers)
    }

    pub(crate) fn upstream(limits: &Limits) -> Self {
        Self::new(limits, limits.upstream_buffers)
    }

    fn new(limits: &Limits, buffers: SocketBuffers) -> Self {
        let dead_after = limits
            .pong_timeout
            .max(limits.stall_timeout + KERNEL_HEAD_START);
        Self {
            buffers,
            dead_after,
        }
    }

    /// Prepares a connection that was accepted.
    pub(crate) fn prepare(self, stream: &TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        #[cfg(target_os = "linux")]
        {
            use rustix::net::sockopt;

            if self.buffers.send_bytes > 0 {
                sockopt::set_socket_send_buffer_size(stream, self.buffers.send_bytes as usize)?;
            }
            if self.buffers.receive_bytes > 0 {
                sockopt::set_socket_recv_buffer_size(stream, self.buffers.receive_bytes as usize)?;
            }
            self.watch(stream)?;
        }
        Ok(())
    }

    /// Connects. The receive buffer is set before, for the window is negotiated with the handshake.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the socket.
    pub(crate) async fn connect(self, address: SocketAddr) -> io::Result<TcpStream> {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        if self.buffers.send_bytes > 0 {
            socket.set_send_buffer_size(self.buffers.send_bytes)?;
        }
        if self.buffers.receive_bytes > 0 {
            socket.set_recv_buffer_size(self.buffers.receive_bytes)?;
        }
        let stream = socket.connect(address).await?;
        stream.set_nodelay(true)?;
        #[cfg(target_os = "linux")]
        self.watch(&stream)?;
        Ok(stream)
    }

    /// Has the kernel notice a peer that is gone, also while the relay says nothing: in handshakes, and
    /// when pings are off.
    #[cfg(target_os = "linux")]
    fn watch(self, stream: &TcpStream) -> io::Result<()> {
        use rustix::net::sockopt;

        let interval = (self.dead_after / 4).max(Duration::from_secs(1));
        sockopt::set_socket_keepalive(stream, true)?;
        sockopt::set_tcp_keepidle(stream, interval)?;
        sockopt::set_tcp_keepintvl(stream, interval)?;
        sockopt::set_tcp_keepcnt(stream, 3)?;
        let milliseconds = u32::try_from(self.dead_after.as_millis()).unwrap_or(u32::MAX);
        sockopt::set_tcp_user_timeout(stream, milliseconds)?;
        Ok(())
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use rustix::net::sockopt;
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn both_ends_are_told() {
        let options = SocketOptions {
            buffers: SocketBuffers {
                send_bytes: 48 << 10,
                receive_bytes: 40 << 10,
            },
            dead_after: Duration::from_secs(20),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (dialled, accepted) = tokio::join!(options.connect(address), listener.accept());
        let (dialled, (accepted, _)) = (dialled.unwrap(), accepted.unwrap());
        options.prepare(&accepted).unwrap();
        for stream in [&dialled, &accepted] {
            // The kernel doubles what it is asked for, socket(7).
            assert_eq!(
                sockopt::socket_send_buffer_size(stream).unwrap(),
                2 * (48 << 10)
            );
            assert_eq!(
                sockopt::socket_recv_buffer_size(stream).unwrap(),
                2 * (40 << 10)
            );
            assert_eq!(sockopt::tcp_user_timeout(stream).unwrap(), 20_000);
            assert!(sockopt::socket_keepalive(stream).unwrap());
            assert!(stream.nodelay().unwrap());
        }
    }
}
