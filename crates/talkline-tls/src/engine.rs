//! rustls' state machine, apart from the socket.

use std::io;
use std::sync::Arc;

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, InsufficientSizeError,
    UnbufferedStatus, WriteTraffic,
};
use rustls::{ClientConfig, CommonState};
use rustls_pki_types::ServerName;
use tokio::io::ReadBuf;

use crate::carry::Carry;

/// Bytes that may wait for the rest of a handshake message; the longest one that rustls takes.
const INCOMPLETE_BYTES_MAX: usize = 0xffff;

/// Why no more plaintext comes.
#[derive(Clone, Debug)]
pub(crate) enum End {
    /// The peer's `close_notify`.
    Closed,
    /// The byte stream ended in the handshake.
    HandshakeEof,
    /// The byte stream ended without a `close_notify`: what was read may be truncated.
    Eof,
    /// A handshake message of more bytes than are kept.
    TooLong,
    /// rustls gave up.
    Failed(rustls::Error),
}

impl End {
    /// What a reader is told: `None` for a clean end.
    pub(crate) fn error(&self) -> Option<io::Error> {
        let eof = |text| io::Error::new(io::ErrorKind::UnexpectedEof, text);
        match self {
            Self::Closed => None,
            Self::HandshakeEof => Some(eof("tls handshake eof")),
            Self::Eof => Some(eof(
                "peer closed connection without sending TLS close_notify: \
                https://docs.rs/rustls/latest/rustls/manual/_03_howto/index.html#unexpected-eof",
            )),
            Self::TooLong => Some(io::Error::new(
                io::ErrorKind::InvalidData,
                "TLS handshake message too long",
            )),
            Self::Failed(error) => Some(failed(error.clone())),
        }
    }
}

pub(crate) fn failed(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// What came of an attempt at encrypting.
pub(crate) enum Sealed {
    /// So many bytes of ciphertext are in the buffer.
    Written(usize),
    /// The buffer must have so many bytes.
    NeedsRoom(usize),
}

/// A connection, the bytes that it could not use or give away yet, and how it ended.
pub(crate) struct Engine {
    connection: UnbufferedClientConnection,
    /// Ciphertext that rustls wants more of: the front of a record, or of a handshake message. Holds
    /// nothing that could be decrypted.
    incomplete: Vec<u8>,
    /// Plaintext that the reader's buffer had no room for.
    pub(crate) plain: Carry,
    /// Ciphertext that the socket has not taken.
    pub(crate) outgoing: Carry,
    pub(crate) end: Option<End>,
}

impl Engine {
    /// With the first flight in [`Self::outgoing`].
    pub(crate) fn new(
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
    ) -> Result<Self, rustls::Error> {
        let mut engine = Self {
            connection: UnbufferedClientConnection::new(config, name)?,
            incomplete: Vec::new(),
            plain: Carry::default(),
            outgoing: Carry::default(),
            end: None,
        };
        engine.collect();
        Ok(engine)
    }

    pub(crate) fn connection(&self) -> &CommonState {
        &self.connection
    }

    /// Bytes of memory that are owned beside rustls' state.
    pub(crate) fn buffered_bytes(&self) -> usize {
        self.incomplete.capacity() + self.plain.capacity() + self.outgoing.capacity()
    }

    /// Bytes that must stand in front of what is read next.
    pub(crate) fn incomplete_bytes(&self) -> usize {
        self.incomplete.len()
    }

    /// Takes `bytes`, whose first [`Self::incomplete_bytes`] are left free for what waits. Plaintext goes
    /// to `out`, and to [`Self::plain`] from where that is full.
    pub(crate) fn receive(&mut self, bytes: &mut [u8], out: &mut ReadBuf<'_>) {
        bytes[..self.incomplete.len()].copy_from_slice(&self.incomplete);
        let used = self.drive(bytes, out, |_| ());
        let rest = &bytes[used..];
        self.incomplete.clear();
        if rest.is_empty() || self.end.is_some() {
            self.incomplete = Vec::new();
        } else if rest.len() > INCOMPLETE_BYTES_MAX {
            self.incomplete = Vec::new();
            self.end = Some(End::TooLong);
        } else {
            self.incomplete.extend_from_slice(rest);
        }
    }

    /// The byte stream has ended.
    pub(crate) fn receive_eof(&mut self) {
        self.end.get_or_insert(if self.connection.is_handshaking() {
            End::HandshakeEof
        } else {
            End::Eof
        });
    }

    /// Encrypts all of `plain` into `cipher`. What goes before it is then in [`Self::outgoing`].
    ///
    /// # Errors
    ///
    /// The keys may not be used any more, or rustls gave up before.
    pub(crate) fn seal(
        &mut self,
        plain: &[u8],
        cipher: &mut [u8],
    ) -> Result<Sealed, rustls::Error> {
        self.write(|traffic| traffic.encrypt(plain, cipher))
    }

    /// Encrypts the `close_notify` into `cipher`.
    ///
    /// # Errors
    ///
    /// As [`Self::seal`].
    pub(crate) fn seal_close_notify(&mut self, cipher: &mut [u8]) -> Result<Sealed, rustls::Error> {
        self.write(|traffic| traffic.queue_close_notify(cipher))
    }

    /// Moves what rustls has to say for itself to [`Self::outgoing`].
    pub(crate) fn collect(&mut self) {
        if self.connection.wants_write() {
            self.step(|_| ());
        }
    }

    fn write(
        &mut self,
        mut encrypt: impl FnMut(
            &mut WriteTraffic<'_, ClientConnectionData>,
        ) -> Result<usize, EncryptError>,
    ) -> Result<Sealed, rustls::Error> {
        let mut outcome = None;
        self.step(|traffic| outcome = Some(encrypt(traffic)));
        match outcome {
            Some(Ok(written)) => Ok(Sealed::Written(written)),
            Some(Err(EncryptError::InsufficientSize(InsufficientSizeError { required_size }))) => {
                Ok(Sealed::NeedsRoom(required_size))
            }
            Some(Err(EncryptError::EncryptExhausted)) => Err(rustls::Error::EncryptError),
            None => Err(match &self.end {
                Some(End::Failed(error)) => error.clone(),
                _ => rustls::Error::HandshakeNotComplete,
            }),
        }
    }

    /// Goes to the state in which data can be written. No plaintext comes of it, for `incomplete` holds
    /// nothing whole; rustls only wants to see the bytes again.
    fn step(&mut self, write: impl FnMut(&mut WriteTraffic<'_, ClientConnectionData>)) {
        let mut incomplete = std::mem::take(&mut self.incomplete);
        let used = self.drive(&mut incomplete, &mut ReadBuf::new(&mut []), write);
        incomplete.drain(..used);
        if !incomplete.is_empty() {
            self.incomplete = incomplete;
        }
    }

    /// Lets rustls work through `bytes` until it wants more, and then `write`. Returns how many bytes at
    /// the front it is done with.
    fn drive(
        &mut self,
        bytes: &mut [u8],
        out: &mut ReadBuf<'_>,
        mut write: impl FnMut(&mut WriteTraffic<'_, ClientConnectionData>),
    ) -> usize {
        if matches!(self.end, Some(End::Failed(_) | End::TooLong)) {
            return bytes.len();
        }
        let mut used = 0;
        loop {
            let UnbufferedStatus { mut discard, state } =
                self.connection.process_tls_records(&mut bytes[used..]);
            let mut is_over = false;
            let mut failure = None;
            match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        match record {
                            Ok(record) => {
                                discard += record.discard;
                                let taken = record.payload.len().min(out.remaining());
                                let (fits, rest) = record.payload.split_at(taken);
                                out.put_slice(fits);
                                self.plain.push(rest);
                            }
                            Err(error) => {
                                failure = Some(error);
                                break;
                            }
                        }
                    }
                }
                Ok(ConnectionState::EncodeTlsData(data)) => {
                    failure = encode(data, &mut self.outgoing).err();
                }
                // What was encoded is in `outgoing` and goes before everything else.
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::PeerClosed) => self.end = Some(End::Closed),
                Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                    write(&mut traffic);
                    is_over = true;
                }
                Ok(ConnectionState::BlockedHandshake | ConnectionState::Closed) => is_over = true,
                Ok(other) => {
                    failure = Some(rustls::Error::General(format!("unexpected {other:?}")));
                }
                Err(error) => failure = Some(error),
            }
            used = (used + discard).min(bytes.len());
            if let Some(error) = failure {
                self.collect_alert(&mut bytes[used..]);
                self.end = Some(End::Failed(error));
                return bytes.len();
            }
            if is_over {
                return used;
            }
        }
    }

    /// The alert that rustls made for an error. It hands out what it has to say before it looks at bytes,
    /// and must not be asked again when there is nothing left: it would look at the bad ones once more.
    fn collect_alert(&mut self, bytes: &mut [u8]) {
        while self.connection.wants_write() {
            let status = self.connection.process_tls_records(bytes);
            let Ok(ConnectionState::EncodeTlsData(data)) = status.state else {
                return;
            };
            if encode(data, &mut self.outgoing).is_err() {
                return;
            }
        }
    }
}

fn encode(
    mut data: EncodeTlsData<'_, ClientConnectionData>,
    outgoing: &mut Carry,
) -> Result<(), rustls::Error> {
    let broken = |error: EncodeError| rustls::Error::General(error.to_string());
    match data.encode(&mut []) {
        Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) => data
            .encode(outgoing.extend(required_size))
            .map(|_| ())
            .map_err(broken),
        outcome => outcome.map(|_| ()).map_err(broken),
    }
}
