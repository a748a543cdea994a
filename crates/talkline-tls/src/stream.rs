//! The socket's side.

use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::{ClientConfig, CommonState};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::engine::{End, Engine, Sealed, failed};
use crate::scratch::{
    RECORD_PLAIN_BYTES_MAX, RECORD_WIRE_BYTES_MAX, RECORDS_BYTES, with_gather, with_records,
};

/// Plaintext that is encrypted at a time: as many whole records as fit the thread's buffer.
const WRITE_BYTES_MAX: usize = (RECORDS_BYTES / RECORD_WIRE_BYTES_MAX) * RECORD_PLAIN_BYTES_MAX;

/// Reads without plaintext (tickets, key updates, pieces of a record) before others get their turn.
const FRUITLESS_READS_MAX: usize = 8;

/// The client's end of a TLS connection over `S`.
///
/// A read makes one read of `S`, decrypts all records that came, and returns. Plaintext beyond the
/// reader's buffer (less than one record if that has room for one, else less than two) waits in the stream.
/// A write encrypts up to 48 KiB and gives it to `S`; what `S` does not take waits in the stream, and
/// nothing more is taken before it is gone.
///
/// Session tickets go to the configuration's store, key updates are followed; the answer to one goes out
/// with the next write, as RFC 8446 section 4.6.3 has it. A read never writes, but for the alert that
/// tells the peer of its error.
///
/// # Errors
///
/// Reading gives
///
/// - nothing (`Ok` with no bytes) after the peer's `close_notify`;
/// - [`UnexpectedEof`](io::ErrorKind::UnexpectedEof) when `S` ends without one, after all that came
///   before it: what was read may be truncated;
/// - [`InvalidData`](io::ErrorKind::InvalidData) with a [`rustls::Error`] inside when the peer breaks the
///   protocol or sends a fatal alert;
/// - the errors of `S`.
///
/// Writing gives `InvalidData` likewise, [`BrokenPipe`](io::ErrorKind::BrokenPipe) after a shutdown or
/// after `S` failed in the middle of a record, [`WriteZero`](io::ErrorKind::WriteZero) when `S` takes
/// nothing, and the errors of `S`.
///
/// # Cancel safety
///
/// All state is in the stream: a read or write future of tokio can be dropped at any time, and
/// what it did is not lost. Bytes that a write has accepted need a flush to get out. Dropping the stream
/// sends nothing.
pub struct TlsStream<S> {
    io: S,
    engine: Engine,
    /// A `close_notify` was made; nothing may follow.
    is_shut_down: bool,
    /// Ciphertext was lost: whatever followed could not be decrypted.
    is_broken: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream<S> {
    /// Makes the handshake, for a server of this name.
    ///
    /// There is no deadline: put one around it.
    ///
    /// # Errors
    ///
    /// [`InvalidData`](io::ErrorKind::InvalidData) with a [`rustls::Error`] inside when it fails (a
    /// certificate that does not hold, an alert, bytes that are not TLS), after an attempt at telling the
    /// peer; [`UnexpectedEof`](io::ErrorKind::UnexpectedEof) when `io` ends in the middle;
    /// [`Other`](io::ErrorKind::Other) with a [`rustls::Error`] inside when the configuration permits no
    /// handshake; and the errors of `io`.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops `io`.
    pub async fn connect(
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
        io: S,
    ) -> io::Result<Self> {
        let mut stream = Self {
            io,
            engine: Engine::new(config, name).map_err(io::Error::other)?,
            is_shut_down: false,
            is_broken: false,
        };
        std::future::poll_fn(|cx| stream.poll_handshake(cx)).await?;
        Ok(stream)
    }

    fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let sent = self.poll_send(cx);
            if let Some(error) = self.engine.end.as_ref().and_then(End::error) {
                return Poll::Ready(Err(error));
            }
            if !self.engine.connection().is_handshaking() || matches!(sent, Poll::Ready(Err(_))) {
                return sent;
            }
            ready!(self.poll_receive(cx, &mut ReadBuf::new(&mut [])))?;
        }
    }

    /// Reads once, and decrypts what came into `out`.
    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { io, engine, .. } = self;
        let start = engine.incomplete_bytes();
        // Not much more than the reader has room for, so that little has to wait.
        let room = out.remaining().clamp(RECORD_WIRE_BYTES_MAX, RECORDS_BYTES);
        with_records(start + RECORD_WIRE_BYTES_MAX, |records| {
            let end = (start + room).min(records.len());
            let mut read = ReadBuf::new(&mut records[start..end]);
            ready!(Pin::new(io).poll_read(cx, &mut read))?;
            match read.filled().len() {
                0 => engine.receive_eof(),
                read => engine.receive(&mut records[..start + read], out),
            }
            Poll::Ready(Ok(()))
        })
    }

    /// Gives `S` what waits for it.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { io, engine, .. } = self;
        while !engine.outgoing.is_empty() {
            match ready!(Pin::new(&mut *io).poll_write(cx, engine.outgoing.rest())) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(written) => engine.outgoing.advance(written),
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Sends all that was accepted, and what rustls has to say.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.engine.collect();
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.io).poll_flush(cx)
    }

    /// Whether anything may be written.
    fn check_writable(&self) -> io::Result<()> {
        if self.is_shut_down || self.is_broken {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        match &self.engine.end {
            Some(End::Failed(error)) => Err(failed(error.clone())),
            _ => Ok(()),
        }
    }

    /// Encrypts with `seal` into the thread's buffer and gives it to `S`; the rest waits.
    fn poll_sealed(
        &mut self,
        cx: &mut Context<'_>,
        mut seal: impl FnMut(&mut Engine, &mut [u8]) -> Result<Sealed, rustls::Error>,
    ) -> io::Result<()> {
        let mut size = 0;
        loop {
            let needed = with_records(size, |records| {
                let written = match seal(&mut self.engine, records).map_err(failed)? {
                    Sealed::Written(written) => written,
                    Sealed::NeedsRoom(size) if size > records.len() => return Ok(Some(size)),
                    Sealed::NeedsRoom(_) => return Err(io::Error::other("no room for a record")),
                };
                self.pass(cx, &records[..written])?;
                Ok(None)
            })?;
            match needed {
                Some(needed) => size = needed,
                None => return Ok(()),
            }
        }
    }

    /// Gives `S` ciphertext, behind what waits.
    fn pass(&mut self, cx: &mut Context<'_>, mut cipher: &[u8]) -> io::Result<()> {
        let Self { io, engine, .. } = self;
        while engine.outgoing.is_empty() && !cipher.is_empty() {
            let error = match Pin::new(&mut *io).poll_write(cx, cipher) {
                Poll::Ready(Ok(0)) => io::ErrorKind::WriteZero.into(),
                Poll::Ready(Ok(written)) => {
                    cipher = &cipher[written.min(cipher.len())..];
                    continue;
                }
                Poll::Ready(Err(error)) => error,
                Poll::Pending => break,
            };
            self.is_broken = true;
            return Err(error);
        }
        engine.outgoing.push(cipher);
        Ok(())
    }
}

impl<S> TlsStream<S> {
    /// The stream underneath.
    pub fn get_ref(&self) -> &S {
        &self.io
    }

    /// What the handshake agreed on, and the peer's certificates.
    pub fn connection(&self) -> &CommonState {
        self.engine.connection()
    }

    /// Bytes of memory that the stream's own buffers take now, beside rustls' state: 0 while nothing
    /// waits.
    pub fn buffered_bytes(&self) -> usize {
        self.engine.buffered_bytes()
    }
}

impl<S: fmt::Debug> fmt::Debug for TlsStream<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsStream")
            .field("io", &self.io)
            .field("version", &self.connection().protocol_version())
            .field("end", &self.engine.end)
            .finish_non_exhaustive()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for TlsStream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let plain = &mut this.engine.plain;
        if !plain.is_empty() {
            let taken = plain.rest().len().min(buffer.remaining());
            buffer.put_slice(&plain.rest()[..taken]);
            plain.advance(taken);
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        for _ in 0..FRUITLESS_READS_MAX {
            if let Some(end) = &this.engine.end {
                return Poll::Ready(end.error().map_or(Ok(()), Err));
            }
            ready!(this.poll_receive(cx, buffer))?;
            if matches!(this.engine.end, Some(End::Failed(_))) {
                // The alert: one attempt, whatever comes of it.
                let _ = this.poll_drain(cx);
            }
            if buffer.filled().len() > before {
                return Poll::Ready(Ok(()));
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for TlsStream<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.check_writable()?;
        ready!(this.poll_drain(cx))?;
        let bytes = &bytes[..bytes.len().min(WRITE_BYTES_MAX)];
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        this.poll_sealed(cx, |engine, cipher| engine.seal(bytes, cipher))?;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut filled = pieces.iter().filter(|piece| !piece.is_empty());
        let first: &[u8] = filled.next().map_or(&[], |piece| piece);
        if first.len() >= RECORD_PLAIN_BYTES_MAX || filled.next().is_none() {
            return self.poll_write(cx, first);
        }
        self.check_writable()?;
        ready!(self.poll_drain(cx))?;
        // One record of all of them, or of as much as it holds.
        with_gather(|gather| {
            let mut length = 0;
            for piece in pieces {
                let taken = piece.len().min(RECORD_PLAIN_BYTES_MAX - length);
                gather[length..length + taken].copy_from_slice(&piece[..taken]);
                length += taken;
            }
            self.poll_write(cx, &gather[..length])
        })
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_send(cx)
    }

    /// Sends a `close_notify` behind all that was accepted, and shuts `S` down for writing. Reading goes
    /// on until the peer closes.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !std::mem::replace(&mut this.is_shut_down, true)
            && !this.is_broken
            && !matches!(this.engine.end, Some(End::Failed(_) | End::TooLong))
        {
            this.poll_sealed(cx, Engine::seal_close_notify)?;
        }
        ready!(this.poll_send(cx))?;
        match ready!(Pin::new(&mut this.io).poll_shutdown(cx)) {
            // The peer was faster.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Poll::Ready(Ok(())),
            shut_down => Poll::Ready(shut_down),
        }
    }
}
