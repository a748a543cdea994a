//! The frames of a conversation, and whether those that arrive are they.
//!
//! A client sends 40 ms of PCM16 at 24 kHz as base64 in one `input_audio_buffer.append`, 2,624 bytes; the
//! upstream answers in deltas of 12,000 bytes. Each frame carries its number, so that one that is lost,
//! doubled or out of order is seen.

use crate::wire::{Header, text_header};

pub const APPEND_BYTES: usize = 2_624;
pub const DELTA_BYTES: usize = 12_000;

/// Frames of which every byte is compared; of the others the head is.
const FULL_EVERY: u64 = 16;
/// Bytes of a frame's payload that are always compared: the number stands within them.
const HEAD_BYTES: usize = 96;
const NUMBER: &str = "e0000000000";

/// One direction's frame, without its number.
#[derive(Debug)]
pub struct Template {
    payload: Vec<u8>,
    number_at: usize,
    is_masked: bool,
}

impl Template {
    #[must_use]
    pub fn append() -> Template {
        let head = format!(r#"{{"type":"input_audio_buffer.append","event_id":"{NUMBER}","audio":""#);
        Template::new(&head, APPEND_BYTES, true)
    }

    #[must_use]
    pub fn delta() -> Template {
        let head = format!(
            r#"{{"type":"response.output_audio.delta","event_id":"{NUMBER}","response_id":"resp_A","item_id":"item_A","output_index":0,"content_index":0,"delta":""#
        );
        Template::new(&head, DELTA_BYTES, false)
    }

    fn new(head: &str, payload_bytes: usize, is_masked: bool) -> Template {
        let number_at = head.find(NUMBER).expect("the head has a number");
        let mut payload = head.as_bytes().to_vec();
        let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        while payload.len() < payload_bytes - 2 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            payload.push(alphabet[(state >> 58) as usize]);
        }
        payload.extend_from_slice(b"\"}");
        Template {
            payload,
            number_at,
            is_masked,
        }
    }

    #[must_use]
    pub fn payload_bytes(&self) -> usize {
        self.payload.len()
    }

    /// Writes the frame with this number to the end of `out`.
    pub fn write(&self, number: u64, out: &mut Vec<u8>) {
        let spread = number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
        let key = [spread[0], spread[1], spread[2], spread[3]];
        out.extend(text_header(self.payload.len(), self.is_masked.then_some(key)));
        let start = out.len();
        out.extend_from_slice(&self.payload);
        out[start + self.number_at..start + self.number_at + NUMBER.len()]
            .copy_from_slice(&digits(number));
        if self.is_masked {
            unmask(&mut out[start..], key);
        }
    }

    /// Whether a piece of the payload of frame `number` is as it was sent.
    #[must_use]
    pub fn matches(&self, number: u64, header: Header, offset: usize, bytes: &[u8]) -> bool {
        if header.payload_bytes != self.payload.len() || header.opcode != 1 {
            return false;
        }
        let checked = match number.is_multiple_of(FULL_EVERY) {
            true => self.payload.len(),
            false => HEAD_BYTES,
        };
        let end = (offset + bytes.len()).min(checked);
        if offset >= end {
            return true;
        }
        let mut plain = bytes[..end - offset].to_vec();
        let mut key = header.key;
        key.rotate_left(offset % 4);
        if key != [0; 4] {
            unmask(&mut plain, key);
        }
        let number = digits(number);
        let expected = |at: usize| {
            let digit = at.checked_sub(self.number_at).and_then(|at| number.get(at));
            *digit.unwrap_or(&self.payload[at])
        };
        let numbered = self.number_at + NUMBER.len();
        let (near, far) = plain.split_at(numbered.saturating_sub(offset).min(plain.len()));
        near.iter().enumerate().all(|(at, &byte)| byte == expected(offset + at))
            && far == &self.payload[offset + near.len()..end]
    }
}

fn digits(number: u64) -> [u8; NUMBER.len()] {
    let mut out = *b"e0000000000";
    let mut rest = number;
    for place in out[1..].iter_mut().rev() {
        *place = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    out
}

fn unmask(bytes: &mut [u8], key: [u8; 4]) {
    let wide = u64::from_ne_bytes([
        key[0], key[1], key[2], key[3], key[0], key[1], key[2], key[3],
    ]);
    let (chunks, rest) = bytes.as_chunks_mut::<8>();
    for chunk in chunks {
        *chunk = (u64::from_ne_bytes(*chunk) ^ wide).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(key) {
        *byte ^= key;
    }
    // A rest longer than a key.
    for (byte, key) in rest.iter_mut().skip(4).zip(key) {
        *byte ^= key;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Piece, Reader};

    fn arrives(template: &Template, number: u64, wire: &[u8], cut: usize) -> bool {
        let mut reader = Reader::default();
        wire.chunks(cut).all(|chunk| {
            let mut rest = chunk;
            let mut matches = true;
            while let Piece::Payload { header, offset, bytes, .. } = reader.next(&mut rest) {
                matches &= template.matches(number, header, offset, bytes);
            }
            matches
        })
    }

    #[test]
    fn a_frame_is_recognised_however_it_is_cut_and_no_other_is() {
        for template in [Template::append(), Template::delta()] {
            for number in [0, 7, 16, 9_999_999] {
                let mut wire = Vec::new();
                template.write(number, &mut wire);
                for cut in [1, 3, 100, 4096, 20_000] {
                    assert!(arrives(&template, number, &wire, cut), "{number} {cut}");
                    assert!(!arrives(&template, number + 1, &wire, cut));
                }
            }
        }
    }

    #[test]
    fn one_wrong_byte_is_seen_in_every_sixteenth_frame() {
        let template = Template::append();
        let mut wire = Vec::new();
        template.write(32, &mut wire);
        let last = wire.len() - 1;
        wire[last] ^= 1;
        assert!(!arrives(&template, 32, &wire, 4096));
    }
}
