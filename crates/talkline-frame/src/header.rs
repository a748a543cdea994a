//! A frame header, read strictly and as early as its bytes allow (RFC 6455 section 5.2).

use crate::{Direction, Violation};

/// Longest header there is: two bytes, a 64-bit length and a masking key.
pub(crate) const HEADER_BYTES_MAX: usize = 14;

/// Longest payload of a ping, pong or close (RFC 6455 section 5.5).
pub(crate) const CONTROL_BYTES_MAX: u64 = 125;

/// What a frame is for (RFC 6455 section 11.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OpCode {
    /// Carries on the message that an earlier frame began.
    Continuation,
    /// Begins a text message.
    Text,
    /// Begins a binary message.
    Binary,
    /// Ends the connection.
    Close,
    /// Asks for a pong.
    Ping,
    /// Answers a ping, or merely says "here".
    Pong,
}

impl OpCode {
    fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            0x0 => Self::Continuation,
            0x1 => Self::Text,
            0x2 => Self::Binary,
            0x8 => Self::Close,
            0x9 => Self::Ping,
            0xA => Self::Pong,
            _ => return None,
        })
    }

    /// Whether the frame is a ping, pong or close, which may stand between the frames of a message.
    #[must_use]
    pub const fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}

/// A frame header that passed every check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Header {
    /// What the frame is for.
    pub opcode: OpCode,
    /// Whether this is the last frame of its message.
    pub fin: bool,
    /// The masking key, on frames from the client.
    pub mask: Option<[u8; 4]>,
    /// Bytes of payload that follow.
    pub payload_bytes: u64,
    /// Bytes of the header itself, 2 to 14.
    pub header_bytes: u8,
}

/// Whether a close code may stand in a close frame: the codes that RFC 6455 section 7.4 and the IANA
/// registry define for the wire (1000-1003, 1007-1014), and 3000-4999 for libraries and applications.
#[must_use]
pub const fn is_close_code_legal(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// The bytes of a header, gathered one at a time.
///
/// Headers come split at any byte, so each rule is checked on the byte that decides it: the verdict
/// and the byte it falls on are the same for every split.
#[derive(Clone, Debug)]
pub(crate) struct HeaderReader {
    bytes: [u8; HEADER_BYTES_MAX],
    filled: u8,
    /// Bytes the header will have; 2 until the second byte is known.
    wanted: u8,
}

impl HeaderReader {
    pub(crate) const fn new() -> Self {
        Self {
            bytes: [0; HEADER_BYTES_MAX],
            filled: 0,
            wanted: 2,
        }
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.filled == 0
    }

    /// Reads a header that stands whole at the front of `bytes`, with the rules of [`Self::push`] in the same
    /// order.
    pub(crate) fn read(
        bytes: [u8; HEADER_BYTES_MAX],
        direction: Direction,
        in_message: bool,
    ) -> Result<Header, Violation> {
        let [first, second, ..] = bytes;
        check_first_byte(first, in_message)?;
        check_second_byte(first, second, direction)?;
        let wanted = header_bytes(second);
        let filled = wanted;
        let reader = Self {
            bytes,
            filled,
            wanted,
        };
        reader.check_length()?;
        Ok(reader.header())
    }

    /// Takes one byte; returns the header when it was the last one.
    pub(crate) fn push(
        &mut self,
        byte: u8,
        direction: Direction,
        in_message: bool,
    ) -> Result<Option<Header>, Violation> {
        self.bytes[usize::from(self.filled)] = byte;
        self.filled += 1;
        match self.filled {
            1 => check_first_byte(byte, in_message)?,
            2 => {
                check_second_byte(self.bytes[0], byte, direction)?;
                self.wanted = header_bytes(byte);
            }
            filled if filled == 2 + length_bytes(self.bytes[1]) => self.check_length()?,
            _ => {}
        }
        if self.filled < self.wanted {
            return Ok(None);
        }
        let header = self.header();
        *self = Self::new();
        Ok(Some(header))
    }

    fn check_length(&self) -> Result<(), Violation> {
        let (length, least) = match length_bytes(self.bytes[1]) {
            2 => (self.payload_bytes(), 126),
            8 => (self.payload_bytes(), 1 << 16),
            _ => return Ok(()),
        };
        if length >> 63 != 0 {
            return Err(Violation::LengthTopBit);
        }
        if length < least {
            return Err(Violation::LengthNotMinimal);
        }
        Ok(())
    }

    fn payload_bytes(&self) -> u64 {
        let end = 2 + usize::from(length_bytes(self.bytes[1]));
        match self.bytes[1] & 0x7F {
            126 | 127 => self.bytes[2..end]
                .iter()
                .fold(0, |sum, &byte| sum << 8 | u64::from(byte)),
            short => u64::from(short),
        }
    }

    fn header(&self) -> Header {
        let masked = self.bytes[1] & 0x80 != 0;
        let key_at = usize::from(self.wanted) - 4 * usize::from(masked);
        let key = [0, 1, 2, 3].map(|i| self.bytes[(key_at + i) % HEADER_BYTES_MAX]);
        Header {
            opcode: OpCode::from_bits(self.bytes[0] & 0x0F).unwrap_or(OpCode::Continuation),
            fin: self.bytes[0] & 0x80 != 0,
            mask: masked.then_some(key),
            payload_bytes: self.payload_bytes(),
            header_bytes: self.wanted,
        }
    }
}

/// Bytes of the whole header that the second byte announces.
const fn header_bytes(second: u8) -> u8 {
    2 + length_bytes(second) + 4 * (second >> 7)
}

/// Bytes of extended payload length that the second header byte announces.
const fn length_bytes(second: u8) -> u8 {
    match second & 0x7F {
        126 => 2,
        127 => 8,
        _ => 0,
    }
}

fn check_first_byte(first: u8, in_message: bool) -> Result<(), Violation> {
    if first & 0x70 != 0 {
        return Err(Violation::ReservedBits);
    }
    let opcode = OpCode::from_bits(first & 0x0F).ok_or(Violation::ReservedOpcode)?;
    let fin = first & 0x80 != 0;
    match opcode {
        OpCode::Continuation if !in_message => Err(Violation::ContinuationOrphan),
        OpCode::Text | OpCode::Binary if in_message => Err(Violation::MessageInterleaved),
        OpCode::Close | OpCode::Ping | OpCode::Pong if !fin => Err(Violation::ControlFragmented),
        _ => Ok(()),
    }
}

fn check_second_byte(first: u8, second: u8, direction: Direction) -> Result<(), Violation> {
    match (direction, second & 0x80 != 0) {
        (Direction::ClientToUpstream, false) => return Err(Violation::Unmasked),
        (Direction::UpstreamToClient, true) => return Err(Violation::Masked),
        _ => {}
    }
    let control = first & 0x08 != 0;
    if control && u64::from(second & 0x7F) > CONTROL_BYTES_MAX {
        return Err(Violation::ControlTooLong);
    }
    Ok(())
}
