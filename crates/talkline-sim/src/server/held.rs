//! A stream whose output can be held back, so that a 101 leaves in one segment with what follows it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The switch of a [`Held`] stream, shared with who decides.
#[derive(Debug, Clone, Default)]
pub(crate) struct Hold(Arc<AtomicBool>);

impl Hold {
    pub(crate) fn set(&self, held: bool) {
        self.0.store(held, Ordering::Release);
    }

    fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Keeps what is written while its switch is on.
///
/// It is only switched on for the head of a 101, after which the stream is taken apart, so what it keeps is bounded
/// by that head.
#[derive(Debug)]
pub(crate) struct Held<S> {
    stream: S,
    hold: Hold,
    kept: Vec<u8>,
}

impl<S> Held<S> {
    pub(crate) fn new(stream: S, hold: Hold) -> Self {
        Self {
            stream,
            hold,
            kept: Vec::new(),
        }
    }

    /// The stream, and the bytes that have yet to be written to it.
    pub(crate) fn into_parts(self) -> (S, Vec<u8>) {
        (self.stream, self.kept)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Held<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Held<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.hold.is_set() {
            self.kept.extend_from_slice(buf);
            return Poll::Ready(Ok(buf.len()));
        }
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn keeps_what_is_written_while_held() {
        let (near, mut far) = tokio::io::duplex(64);
        let hold = Hold::default();
        let mut held = Held::new(near, hold.clone());
        held.write_all(b"before").await.unwrap();
        hold.set(true);
        held.write_all(b"while").await.unwrap();
        held.flush().await.unwrap();
        let (near, kept) = held.into_parts();
        drop(near);
        assert_eq!(kept, b"while");
        let mut arrived = Vec::new();
        far.read_to_end(&mut arrived).await.unwrap();
        assert_eq!(arrived, b"before");
    }
}
