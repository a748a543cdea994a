//! The framing that the generator needs: whole unfragmented frames, and a reader that keeps no payload.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest as _, Sha1};

/// Longest frame header: two bytes, a length of eight, a key of four.
const HEADER_BYTES_MAX: usize = 14;

/// A text frame's header.
#[must_use]
pub fn text_header(payload_bytes: usize, key: Option<[u8; 4]>) -> Vec<u8> {
    let mask_bit = if key.is_some() { 0x80 } else { 0 };
    let mut out = vec![0x81];
    match u16::try_from(payload_bytes) {
        Ok(short @ ..126) => out.push(mask_bit | short as u8),
        Ok(medium) => {
            out.push(mask_bit | 126);
            out.extend_from_slice(&medium.to_be_bytes());
        }
        Err(_) => {
            out.push(mask_bit | 127);
            out.extend_from_slice(&(payload_bytes as u64).to_be_bytes());
        }
    }
    out.extend(key.into_iter().flatten());
    out
}

/// `Sec-WebSocket-Accept` for a key (RFC 6455, section 4.2.2).
#[must_use]
pub fn accept(key: &str) -> String {
    let mut digest = Sha1::new();
    digest.update(key.as_bytes());
    digest.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    STANDARD.encode(digest.finalize())
}

/// What a frame's header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub opcode: u8,
    pub key: [u8; 4],
    pub payload_bytes: usize,
}

/// A piece of a stream, in order.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Payload from `offset` on; `ends` with the frame's last byte.
    Payload {
        header: Header,
        offset: usize,
        bytes: &'a [u8],
        ends: bool,
    },
    /// Nothing whole is left.
    Nothing,
}

/// Splits a stream into frames without keeping payload.
#[derive(Debug, Default)]
pub struct Reader {
    partial: Vec<u8>,
    current: Option<(Header, usize)>,
}

impl Reader {
    /// Takes the next piece off the front of `bytes`.
    pub fn next<'a>(&mut self, bytes: &mut &'a [u8]) -> Piece<'a> {
        if self.current.is_none() {
            let Some(header) = self.header(bytes) else {
                return Piece::Nothing;
            };
            self.current = Some((header, 0));
        }
        let Some((header, offset)) = self.current else {
            return Piece::Nothing;
        };
        let taken = bytes.len().min(header.payload_bytes - offset);
        if taken == 0 && header.payload_bytes > offset {
            return Piece::Nothing;
        }
        let (piece, rest) = bytes.split_at(taken);
        *bytes = rest;
        let ends = offset + taken == header.payload_bytes;
        self.current = (!ends).then_some((header, offset + taken));
        Piece::Payload {
            header,
            offset,
            bytes: piece,
            ends,
        }
    }

    fn header(&mut self, bytes: &mut &[u8]) -> Option<Header> {
        if self.partial.is_empty()
            && let Some((header, used)) = parse(bytes)
        {
            *bytes = &bytes[used..];
            return Some(header);
        }
        let held = self.partial.len();
        let more = bytes.len().min(HEADER_BYTES_MAX - held);
        self.partial.extend_from_slice(&bytes[..more]);
        let Some((header, used)) = parse(&self.partial) else {
            *bytes = &bytes[more..];
            return None;
        };
        *bytes = &bytes[used - held..];
        self.partial.clear();
        Some(header)
    }
}

fn parse(bytes: &[u8]) -> Option<(Header, usize)> {
    let (&first, &second) = (bytes.first()?, bytes.get(1)?);
    let (payload_bytes, mut used) = match second & 0x7f {
        126 => (
            usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?)),
            4,
        ),
        127 => (
            usize::try_from(u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?)).ok()?,
            10,
        ),
        short => (usize::from(short), 2),
    };
    let mut key = [0; 4];
    if second & 0x80 != 0 {
        key = bytes.get(used..used + 4)?.try_into().ok()?;
        used += 4;
    }
    let header = Header {
        opcode: first & 0x0f,
        key,
        payload_bytes,
    };
    Some((header, used))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(bytes: &[u8], cut: usize) -> Vec<(u8, usize)> {
        let mut reader = Reader::default();
        let mut found = Vec::new();
        for piece in bytes.chunks(cut) {
            let mut rest = piece;
            while let Piece::Payload { header, ends, .. } = reader.next(&mut rest) {
                if ends {
                    found.push((header.opcode, header.payload_bytes));
                }
            }
            assert!(rest.is_empty());
        }
        found
    }

    #[test]
    fn frames_do_not_depend_on_how_they_are_cut() {
        let mut bytes = Vec::new();
        for length in [0, 5, 300, 70_000] {
            bytes.extend(text_header(length, Some([1, 2, 3, 4])));
            bytes.resize(bytes.len() + length, b'x');
        }
        bytes.extend_from_slice(&[0x89, 0]);
        let whole = frames(&bytes, bytes.len());
        assert_eq!(whole, [(1, 0), (1, 5), (1, 300), (1, 70_000), (9, 0)]);
        for cut in [1, 2, 3, 7, 13, 4096] {
            assert_eq!(frames(&bytes, cut), whole, "{cut}");
        }
    }
}
