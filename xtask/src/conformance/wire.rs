//! WebSocket bytes as the suites here need them: any frame can be read, and any can be formed.
//!
//! Nothing is judged while reading, for much of what passes here is meant to be wrong. It is the third
//! framing in this repository, beside the product's and the simulator's, so that none of them is the
//! judge of itself.

use std::io::{self, Read};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest as _, Sha1};

pub(crate) const CONTINUATION: u8 = 0;
pub(crate) const TEXT: u8 = 1;
pub(crate) const BINARY: u8 = 2;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;

/// RFC 6455, section 5.5.
const CONTROL_BYTES_MAX: usize = 125;

/// Longest HTTP head that is read here.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// A frame as it came, its payload unmasked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) fin: bool,
    pub(crate) reserved: u8,
    pub(crate) opcode: u8,
    pub(crate) masked: bool,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    pub(crate) fn is_data(&self) -> bool {
        matches!(self.opcode, CONTINUATION | TEXT | BINARY)
    }

    /// The code of a close frame; 1005 stands for one without (RFC 6455, section 7.1.5).
    pub(crate) fn close_code(&self) -> Option<u16> {
        if self.opcode != CLOSE {
            return None;
        }
        match self.payload[..] {
            [high, low, ..] => Some(u16::from_be_bytes([high, low])),
            _ => Some(1005),
        }
    }

    /// Whether a strict receiver takes the header.
    pub(crate) fn is_well_formed(&self, expects_mask: bool) -> bool {
        let is_control = matches!(self.opcode, CLOSE | PING | PONG);
        self.reserved == 0
            && (self.is_data() || is_control)
            && self.masked == expects_mask
            && (!is_control || (self.fin && self.payload.len() <= CONTROL_BYTES_MAX))
    }
}

/// The first frame in `bytes` and its length on the wire; `None` while it is not whole.
pub(crate) fn frame(bytes: &[u8]) -> Option<(Frame, usize)> {
    let (&first, &second) = (bytes.first()?, bytes.get(1)?);
    let (length, mut at) = match second & 0x7f {
        126 => (u64::from(u16::from_be_bytes(array(bytes, 2)?)), 4),
        127 => (u64::from_be_bytes(array(bytes, 2)?), 10),
        short => (u64::from(short), 2),
    };
    let masked = second & 0x80 != 0;
    let mut key = [0; 4];
    if masked {
        key = array(bytes, at)?;
        at += 4;
    }
    let end = at.checked_add(usize::try_from(length).ok()?)?;
    let mut payload = bytes.get(at..end)?.to_vec();
    mask(&mut payload, key);
    let frame = Frame {
        fin: first & 0x80 != 0,
        reserved: first >> 4 & 7,
        opcode: first & 0x0f,
        masked,
        payload,
    };
    Some((frame, end))
}

/// All whole frames, and how many bytes of another follow.
pub(crate) fn frames(mut bytes: &[u8]) -> (Vec<Frame>, usize) {
    let mut found = Vec::new();
    while let Some((frame, length)) = frame(bytes) {
        found.push(frame);
        bytes = &bytes[length..];
    }
    (found, bytes.len())
}

/// A final frame on the wire; with a key it is a client's.
pub(crate) fn encode(fin: bool, opcode: u8, payload: &[u8], key: Option<[u8; 4]>) -> Vec<u8> {
    let mask_bit = if key.is_some() { 0x80 } else { 0 };
    let mut out = vec![u8::from(fin) << 7 | opcode];
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
    let key_bytes = key.unwrap_or_default();
    if key.is_some() {
        out.extend_from_slice(&key_bytes);
    }
    let start = out.len();
    out.extend_from_slice(payload);
    mask(&mut out[start..], key_bytes);
    out
}

fn mask(payload: &mut [u8], key: [u8; 4]) {
    for (byte, key) in payload.iter_mut().zip(key.iter().cycle()) {
        *byte ^= key;
    }
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

/// `Sec-WebSocket-Accept` for a key (RFC 6455, section 4.2.2).
pub(crate) fn accept(key: &str) -> String {
    let mut digest = Sha1::new();
    digest.update(key.as_bytes());
    digest.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    STANDARD.encode(digest.finalize())
}

/// An HTTP head up to and with its blank line, and the bytes that came with it.
///
/// # Errors
/// When the stream ends or fails before, or the head does not end.
pub(crate) fn read_head(stream: &mut impl Read) -> io::Result<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let rest = bytes.split_off(end + 4);
            return Ok((String::from_utf8_lossy(&bytes).into_owned(), rest));
        }
        if bytes.len() > HEAD_BYTES_MAX {
            return Err(io::Error::other("an HTTP head without an end"));
        }
        let read = stream.read(&mut buffer)?;
        if read == 0 {
            let kept = String::from_utf8_lossy(&bytes).into_owned();
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, kept));
        }
        bytes.extend_from_slice(&buffer[..read]);
    }
}

/// The value of a header, whatever the case of its name.
pub(crate) fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().skip(1).find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_read_again() {
        for length in [0, 1, 125, 126, 65_535, 65_536] {
            let payload = vec![b'a'; length];
            for key in [None, Some([1, 2, 3, 4])] {
                let bytes = encode(true, TEXT, &payload, key);
                let (frame, used) = frame(&bytes).unwrap();
                assert_eq!((used, frame.masked), (bytes.len(), key.is_some()));
                assert_eq!(frame.payload, payload);
                assert!(
                    frame.is_well_formed(key.is_some()) && !frame.is_well_formed(key.is_none())
                );
                assert!(super::frame(&bytes[..bytes.len() - 1]).is_none());
            }
        }
    }

    #[test]
    fn a_frame_cut_short_or_without_end_is_no_frame() {
        assert_eq!(frames(b"\x81\x01a\x81"), (vec![text("a")], 1));
        assert_eq!(frames(b"\x81\x7f\xff\xff\xff\xff\xff\xff\xff\xff").1, 10);
    }

    #[test]
    fn the_key_of_the_rfc_gives_the_answer_of_the_rfc() {
        assert_eq!(
            accept("dGhlIHNhbXBsZSBub25jZQ=="),
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
    }

    fn text(payload: &str) -> Frame {
        Frame {
            fin: true,
            reserved: 0,
            opcode: TEXT,
            masked: false,
            payload: payload.into(),
        }
    }
}
