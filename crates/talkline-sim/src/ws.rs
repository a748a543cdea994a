//! WebSocket framing (RFC 6455) for both roles, strict: parses bytes, forms frames, opens no socket.

use bytes::{Buf, BytesMut};

/// Longest message taken, after reassembly: 15 MiB of audio is 20 MiB of base64, and some JSON around it.
const MESSAGE_BYTES_MAX: usize = 24 << 20;
/// RFC 6455, section 5.5.
const CONTROL_BYTES_MAX: usize = 125;

/// Which end of the connection this is. Clients mask, servers do not (RFC 6455, section 5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Client,
    Server,
}

/// A whole message or control frame from the peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Incoming {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    /// Status code and reason, if the frame had them.
    Close(Option<(u16, String)>),
}

/// A breach of the protocol by the peer, and the close code it calls for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{reason} (close code {code})")]
pub(crate) struct Violation {
    pub(crate) code: u16,
    pub(crate) reason: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Opcode {
    Continuation = 0,
    Text = 1,
    Binary = 2,
    Close = 8,
    Ping = 9,
    Pong = 10,
}

impl Opcode {
    fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            0 => Self::Continuation,
            1 => Self::Text,
            2 => Self::Binary,
            8 => Self::Close,
            9 => Self::Ping,
            10 => Self::Pong,
            _ => return None,
        })
    }

    fn is_control(self) -> bool {
        self as u8 >= 8
    }
}

/// Turns received bytes into messages.
#[derive(Debug)]
pub(crate) struct Parser {
    role: Role,
    /// Bytes received and not yet parsed; the caller reads from its socket into it.
    pub(crate) buffer: BytesMut,
    /// The message whose last fragment has not come.
    partial: Option<(Opcode, Vec<u8>)>,
}

impl Parser {
    pub(crate) fn new(role: Role) -> Self {
        Self {
            role,
            buffer: BytesMut::new(),
            partial: None,
        }
    }

    /// The next message or control frame, or `None` until more bytes are in the buffer.
    pub(crate) fn next(&mut self) -> Result<Option<Incoming>, Violation> {
        while let Some((fin, opcode, payload)) = self.next_frame()? {
            if opcode.is_control() {
                return control(opcode, payload).map(Some);
            }
            if let Some(message) = self.join(fin, opcode, payload)? {
                return Ok(Some(message));
            }
        }
        Ok(None)
    }

    fn next_frame(&mut self) -> Result<Option<(bool, Opcode, Vec<u8>)>, Violation> {
        let Some(head) = Head::parse(&self.buffer, self.role)? else {
            return Ok(None);
        };
        let held = self.partial.as_ref().map_or(0, |(_, held)| held.len());
        if head.payload_bytes > MESSAGE_BYTES_MAX - held {
            return Err(too_big());
        }
        if self.buffer.len() < head.bytes + head.payload_bytes {
            return Ok(None);
        }
        self.buffer.advance(head.bytes);
        let mut payload = self.buffer.split_to(head.payload_bytes).to_vec();
        if let Some(mask) = head.mask {
            apply_mask(&mut payload, mask);
        }
        Ok(Some((head.fin, head.opcode, payload)))
    }

    /// Adds a data frame to the message it belongs to, and returns that when it is whole.
    fn join(
        &mut self,
        fin: bool,
        opcode: Opcode,
        payload: Vec<u8>,
    ) -> Result<Option<Incoming>, Violation> {
        let (kind, message) = match (self.partial.take(), opcode) {
            (None, Opcode::Continuation) => return Err(breach("continuation of nothing")),
            (Some((kind, mut held)), Opcode::Continuation) => {
                held.extend_from_slice(&payload);
                (kind, held)
            }
            (Some(_), _) => return Err(breach("message within a fragmented message")),
            (None, kind) => (kind, payload),
        };
        if !fin {
            self.partial = Some((kind, message));
            return Ok(None);
        }
        if kind == Opcode::Binary {
            return Ok(Some(Incoming::Binary(message)));
        }
        let text = String::from_utf8(message).map_err(|_| not_utf8())?;
        Ok(Some(Incoming::Text(text)))
    }
}

/// A frame's header.
struct Head {
    fin: bool,
    opcode: Opcode,
    mask: Option<[u8; 4]>,
    /// Length of the header itself.
    bytes: usize,
    payload_bytes: usize,
}

impl Head {
    /// Checks the first two bytes as soon as they are there, so that a bad frame is refused before its payload.
    fn parse(buffer: &[u8], role: Role) -> Result<Option<Self>, Violation> {
        let &[first, second, ref rest @ ..] = buffer else {
            return Ok(None);
        };
        if first & 0x70 != 0 {
            return Err(breach("reserved bits are set"));
        }
        let opcode = Opcode::from_bits(first & 0x0f).ok_or_else(|| breach("reserved opcode"))?;
        let (fin, masked) = (first & 0x80 != 0, second & 0x80 != 0);
        match (role, masked) {
            (Role::Server, false) => return Err(breach("client frame without mask")),
            (Role::Client, true) => return Err(breach("server frame with mask")),
            _ => {}
        }
        let short = usize::from(second & 0x7f);
        if opcode.is_control() && (!fin || short > CONTROL_BYTES_MAX) {
            return Err(breach("control frame fragmented or too long"));
        }
        let (length_bytes, minimum) = match short {
            126 => (2, 126),
            127 => (8, 0x1_0000),
            _ => (0, 0),
        };
        let mask_bytes = if masked { 4 } else { 0 };
        let Some((length, rest)) = rest.split_at_checked(length_bytes) else {
            return Ok(None);
        };
        let payload = match length_bytes {
            0 => short as u64,
            _ => length
                .iter()
                .fold(0, |sum, &byte| sum << 8 | u64::from(byte)),
        };
        if payload < minimum {
            return Err(breach("length not in its shortest form"));
        }
        let payload_bytes = usize::try_from(payload).map_err(|_| too_big())?;
        let Some(mask) = rest.get(..mask_bytes) else {
            return Ok(None);
        };
        Ok(Some(Self {
            fin,
            opcode,
            mask: mask.try_into().ok(),
            bytes: 2 + length_bytes + mask_bytes,
            payload_bytes,
        }))
    }
}

fn control(opcode: Opcode, payload: Vec<u8>) -> Result<Incoming, Violation> {
    Ok(match opcode {
        Opcode::Ping => Incoming::Ping(payload),
        Opcode::Pong => Incoming::Pong(payload),
        _ => Incoming::Close(close_status(&payload)?),
    })
}

/// RFC 6455, sections 5.5.1 and 7.4: no status, or a permitted one with a reason in UTF-8.
fn close_status(payload: &[u8]) -> Result<Option<(u16, String)>, Violation> {
    let (high, low, reason) = match payload {
        [] => return Ok(None),
        [_] => return Err(breach("close frame of one byte")),
        [high, low, reason @ ..] => (*high, *low, reason),
    };
    let code = u16::from_be_bytes([high, low]);
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(breach("close code not permitted"));
    }
    let reason = std::str::from_utf8(reason).map_err(|_| not_utf8())?;
    Ok(Some((code, reason.to_owned())))
}

fn breach(reason: &'static str) -> Violation {
    Violation { code: 1002, reason }
}

fn not_utf8() -> Violation {
    Violation {
        code: 1007,
        reason: "text is not UTF-8",
    }
}

fn too_big() -> Violation {
    Violation {
        code: 1009,
        reason: "message too long",
    }
}

fn apply_mask(payload: &mut [u8], mask: [u8; 4]) {
    for (byte, key) in payload.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
}

/// One frame as it goes on the wire. A client's frame is masked with fresh random bytes.
pub(crate) fn frame(role: Role, fin: bool, opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(payload.len() + 14);
    out.push(u8::from(fin) << 7 | opcode as u8);
    let mask_bit = match role {
        Role::Client => 0x80,
        Role::Server => 0,
    };
    match payload.len() {
        // The guards make both narrowings exact.
        short @ ..126 => out.push(mask_bit | short as u8),
        medium @ ..0x1_0000 => {
            out.push(mask_bit | 126);
            out.extend_from_slice(&(medium as u16).to_be_bytes());
        }
        long => {
            out.push(mask_bit | 127);
            out.extend_from_slice(&(long as u64).to_be_bytes());
        }
    }
    if role == Role::Server {
        out.extend_from_slice(payload);
        return out;
    }
    let mask = crate::ids::random::<4>();
    out.extend_from_slice(&mask);
    let start = out.len();
    out.extend_from_slice(payload);
    apply_mask(&mut out[start..], mask);
    out
}

/// A close frame; a reason that does not fit is cut at a character's end.
pub(crate) fn close_frame(role: Role, code: u16, reason: &str) -> Vec<u8> {
    let mut payload = code.to_be_bytes().to_vec();
    let end = reason.floor_char_boundary(CONTROL_BYTES_MAX - 2);
    payload.extend_from_slice(&reason.as_bytes()[..end]);
    frame(role, true, Opcode::Close, &payload)
}

/// A text message, in one frame.
pub(crate) fn text_frame(role: Role, text: &str) -> Vec<u8> {
    frame(role, true, Opcode::Text, text.as_bytes())
}

/// A text message in fragments, with a ping between the first two (RFC 6455, section 5.4 permits that).
pub(crate) fn fragmented_text(role: Role, text: &str, fragment_bytes: usize) -> Vec<u8> {
    let mut out = Vec::new();
    let mut chunks = text
        .as_bytes()
        .chunks(fragment_bytes)
        .enumerate()
        .peekable();
    while let Some((index, chunk)) = chunks.next() {
        let opcode = if index == 0 {
            Opcode::Text
        } else {
            Opcode::Continuation
        };
        out.extend(frame(role, chunks.peek().is_none(), opcode, chunk));
        if index == 0 {
            out.extend(frame(role, true, Opcode::Ping, b"between fragments"));
        }
    }
    out
}

/// `Sec-WebSocket-Accept` for a key (RFC 6455, section 4.2.2).
pub(crate) fn accept_for(key: &str) -> String {
    use aws_lc_rs::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY};
    use base64::Engine;
    let mut digest = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
    digest.update(key.as_bytes());
    digest.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    base64::engine::general_purpose::STANDARD.encode(digest.finish())
}

#[cfg(test)]
mod tests;
