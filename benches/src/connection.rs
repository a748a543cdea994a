//! One socket of a session, at either end.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::sync::Arc;

use mio::event::Source;
use mio::net::TcpStream;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::wire::Reader;

/// A stream, encrypted or not.
pub enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ServerConnection, TcpStream>>),
}

impl Stream {
    /// The server's end of a TLS connection that has just been accepted.
    ///
    /// # Errors
    /// When rustls has no session to offer.
    pub fn tls(stream: TcpStream, configuration: &Arc<ServerConfig>) -> io::Result<Stream> {
        let session = ServerConnection::new(Arc::clone(configuration)).map_err(io::Error::other)?;
        Ok(Stream::Tls(Box::new(StreamOwned::new(session, stream))))
    }

    pub fn source(&mut self) -> &mut impl Source {
        match self {
            Stream::Plain(stream) => stream,
            Stream::Tls(tls) => &mut tls.sock,
        }
    }

    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(stream) => stream.read(buffer),
            Stream::Tls(tls) => tls.read(buffer),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(stream) => stream.write(bytes),
            Stream::Tls(tls) => tls.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Stream::Plain(_) => Ok(()),
            Stream::Tls(tls) => tls.flush(),
        }
    }

    /// Whether a short read means that the kernel has nothing more.
    #[must_use]
    pub fn short_read_is_dry(&self) -> bool {
        matches!(self, Stream::Plain(_))
    }
}

/// Which end of a session a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Client,
    Upstream,
}

impl End {
    #[must_use]
    pub fn other(self) -> End {
        match self {
            End::Client => End::Upstream,
            End::Upstream => End::Client,
        }
    }
}

/// How far a connection has come.
#[derive(Debug)]
pub enum Phase {
    /// The bytes of the HTTP head so far.
    Head(Vec<u8>),
    Open,
}

/// One end of a session.
pub struct Connection {
    pub stream: Stream,
    pub end: End,
    /// Which session it belongs to; an upstream connection learns that from its request.
    pub session: Option<usize>,
    pub phase: Phase,
    pub reader: Reader,
    /// When each frame that is on its way here was due.
    pub due: VecDeque<u64>,
    pub received: u64,
    pub sent: u64,
    /// Whether it takes what comes.
    pub reads: bool,
    /// Payload of a ping that is coming in.
    pub control: Vec<u8>,
    waiting: Vec<u8>,
    written: usize,
}

impl Connection {
    #[must_use]
    pub fn new(stream: Stream, end: End) -> Connection {
        Connection {
            stream,
            end,
            session: None,
            phase: Phase::Head(Vec::new()),
            reader: Reader::default(),
            due: VecDeque::new(),
            received: 0,
            sent: 0,
            reads: true,
            control: Vec::new(),
            waiting: Vec::new(),
            written: 0,
        }
    }

    /// Bytes that the kernel has not taken yet.
    #[must_use]
    pub fn waiting_bytes(&self) -> usize {
        self.waiting.len() - self.written
    }

    /// Sends, or keeps what the kernel does not take.
    ///
    /// # Errors
    /// When the stream is broken.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.waiting_bytes() > 0 {
            self.waiting.extend_from_slice(bytes);
            return self.resume();
        }
        let written = self.offer(bytes)?;
        self.waiting.clear();
        self.written = 0;
        self.waiting.extend_from_slice(&bytes[written..]);
        Ok(())
    }

    /// Sends what was kept.
    ///
    /// # Errors
    /// When the stream is broken.
    pub fn resume(&mut self) -> io::Result<()> {
        let kept = std::mem::take(&mut self.waiting);
        self.written += self.offer(&kept[self.written..])?;
        if self.written < kept.len() {
            self.waiting = kept;
        } else {
            self.written = 0;
        }
        Ok(())
    }

    fn offer(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut written = 0;
        while written < bytes.len() {
            match self.stream.write(&bytes[written..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(taken) => written += taken,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        match self.stream.flush() {
            Err(error) if error.kind() != ErrorKind::WouldBlock => Err(error),
            _ => Ok(written),
        }
    }
}
