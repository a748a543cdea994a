//! A TCP stream that is written to without asking first whether it can take anything.

use std::{
    io::{self, IoSlice},
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

/// A plain TCP connection whose writes go to the kernel at once.
///
/// The socket of a peer that keeps up always has room, so what the runtime notes of it need not be looked at:
/// of many sessions, that is one more piece of memory that is in no cache. Only when the kernel has no room does
/// the runtime come in, and waits.
#[derive(Debug)]
pub(crate) struct Direct(TcpStream);

impl Direct {
    pub(crate) const fn new(stream: TcpStream) -> Self {
        Self(stream)
    }

    pub(crate) fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.0.peer_addr()
    }
}

impl AsyncRead for Direct {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Direct {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        #[cfg(target_os = "linux")]
        {
            use rustix::{
                io::Errno,
                net::{SendFlags, send},
            };

            match send(&self.0, buffer, SendFlags::NOSIGNAL) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                sent => return Poll::Ready(sent.map_err(io::Error::from)),
            }
        }
        // The runtime finds no room either, and remembers who waits for it.
        Pin::new(&mut self.0).poll_write(cx, buffer)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::task::Waker;

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

    async fn pair() -> io::Result<(Direct, TcpStream)> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
        Ok((Direct::new(near?), far?.0))
    }

    /// Writes until the kernel takes no more; returns what it took.
    fn fill(stream: &mut Direct) -> io::Result<usize> {
        let mut cx = Context::from_waker(Waker::noop());
        let mut taken = 0;
        loop {
            match Pin::new(&mut *stream).poll_write(&mut cx, &[7; 64 * 1024]) {
                Poll::Ready(written) => taken += written?,
                Poll::Pending => return Ok(taken),
            }
        }
    }

    #[tokio::test]
    async fn a_full_socket_waits_and_is_written_to_again_when_its_peer_reads() {
        let (mut near, mut far) = pair().await.unwrap();
        let taken = fill(&mut near).unwrap();
        assert!(taken > 0);
        let reading = tokio::spawn(async move {
            let mut read = Vec::new();
            far.read_to_end(&mut read).await.unwrap();
            read
        });
        near.write_all(b"behind it").await.unwrap();
        near.shutdown().await.unwrap();
        let read = reading.await.unwrap();
        assert_eq!(read.len(), taken + b"behind it".len());
        assert!(read.ends_with(b"\x07behind it"));
    }

    #[tokio::test]
    async fn what_ended_a_connection_is_said_once_and_by_its_name() {
        let (mut near, far) = pair().await.unwrap();
        // Unread bytes turn a close into a reset.
        near.write_all(b"unread").await.unwrap();
        far.readable().await.unwrap();
        drop(far);
        let mut byte = [0];
        near.0.readable().await.unwrap();
        let first = near.write(b"x").await.unwrap_err();
        assert_eq!(first.kind(), io::ErrorKind::ConnectionReset);
        let second = near.write(b"x").await.unwrap_err();
        assert_eq!(second.kind(), io::ErrorKind::BrokenPipe);
        assert!(near.read(&mut byte).await.is_ok_and(|read| read == 0));
    }
}
