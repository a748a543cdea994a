//! UTF-8 checked piece by piece (RFC 3629).

/// A validator that remembers the few bits an unfinished character needs.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Utf8 {
    /// Continuation bytes still owed by the character that was begun.
    owed: u8,
    /// Bounds of the next continuation byte; narrower than 80..=BF right after some lead bytes.
    low: u8,
    high: u8,
}

/// The bytes are not UTF-8, whatever follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotUtf8;

impl Utf8 {
    pub(crate) const fn new() -> Self {
        Self {
            owed: 0,
            low: 0,
            high: 0,
        }
    }

    /// Checks the next piece of text.
    pub(crate) fn feed(&mut self, piece: &[u8]) -> Result<(), NotUtf8> {
        let mut rest = piece;
        while self.owed > 0 {
            let Some((&byte, tail)) = rest.split_first() else {
                return Ok(());
            };
            self.feed_byte(byte)?;
            rest = tail;
        }
        match simdutf8::compat::from_utf8(rest) {
            Ok(_) => Ok(()),
            Err(error) if error.error_len().is_some() => Err(NotUtf8),
            Err(error) => rest[error.valid_up_to()..]
                .iter()
                .try_for_each(|&byte| self.feed_byte(byte)),
        }
    }

    /// Whether the text may end here.
    pub(crate) const fn is_complete(self) -> bool {
        self.owed == 0
    }

    /// Table 3-7 of the Unicode standard, one byte at a time.
    fn feed_byte(&mut self, byte: u8) -> Result<(), NotUtf8> {
        if self.owed > 0 {
            if !(self.low..=self.high).contains(&byte) {
                return Err(NotUtf8);
            }
            (self.owed, self.low, self.high) = (self.owed - 1, 0x80, 0xBF);
            return Ok(());
        }
        (self.owed, self.low, self.high) = match byte {
            0x00..=0x7F => (0, 0, 0),
            0xC2..=0xDF => (1, 0x80, 0xBF),
            0xE0 => (2, 0xA0, 0xBF),
            0xED => (2, 0x80, 0x9F),
            0xE1..=0xEF => (2, 0x80, 0xBF),
            0xF0 => (3, 0x90, 0xBF),
            0xF1..=0xF3 => (3, 0x80, 0xBF),
            0xF4 => (3, 0x80, 0x8F),
            _ => return Err(NotUtf8),
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(pieces: &[&[u8]]) -> bool {
        let mut utf8 = Utf8::default();
        pieces.iter().all(|piece| utf8.feed(piece).is_ok()) && utf8.is_complete()
    }

    fn check(text: &[u8]) {
        let want = std::str::from_utf8(text).is_ok();
        assert_eq!(verdict(&[text]), want, "{text:x?} whole");
        for at in 0..=text.len() {
            let (a, b) = text.split_at(at);
            assert_eq!(verdict(&[a, b]), want, "{text:x?} split at {at}");
        }
        let bytes: Vec<&[u8]> = text.chunks(1).collect();
        assert_eq!(verdict(&bytes), want, "{text:x?} byte by byte");
    }

    /// Miri, which is slow, sees one in so many.
    const STRIDE: usize = if cfg!(miri) { 13 } else { 1 };

    #[test]
    fn every_one_and_two_byte_string_matches_std() {
        for first in (0..=255u8).step_by(STRIDE) {
            check(&[first]);
            for second in (0..=255u8).step_by(STRIDE) {
                check(&[first, second]);
                check(&[first, second, 0x80]);
                check(&[first, second, 0xBF, 0x80]);
            }
        }
    }

    #[test]
    fn long_text_with_characters_at_every_offset() {
        for pad in (0..70).step_by(STRIDE) {
            let mut text = "a".repeat(pad);
            text.push_str("é€😀");
            text.push_str(&"b".repeat(70 - pad));
            check(text.as_bytes());
        }
    }
}
