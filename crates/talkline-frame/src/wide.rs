//! Loops over many bytes, in the widest registers that the machine has.
//!
//! The compiler may count on 16 bytes at once on x86-64, and most machines can do 32. Each loop here is compiled
//! for several generations of them, and the first call finds out which one this is.

use fearless_simd::{Level, Simd as _, dispatch};

/// Writes `masked` to `plain`, unmasked, and says whether that is ASCII.
///
/// Byte `i` goes with `key[i % 4]` (RFC 6455 section 5.3). Both slices have the same length.
pub(crate) fn unmask_into(plain: &mut [u8], masked: &[u8], key: [u8; 4]) -> bool {
    #[inline(always)]
    fn each(plain: &mut [u8], masked: &[u8], key: [u8; 4]) -> bool {
        let (words_in, tail_in) = masked.as_chunks::<4>();
        let (words_out, tail_out) = plain.as_chunks_mut::<4>();
        let key_word = u32::from_ne_bytes(key);
        let mut all = 0;
        for (out, input) in words_out.iter_mut().zip(words_in) {
            let plain = u32::from_ne_bytes(*input) ^ key_word;
            all |= plain;
            *out = plain.to_ne_bytes();
        }
        let mut rest = 0;
        for ((out, input), key) in tail_out.iter_mut().zip(tail_in).zip(key) {
            *out = input ^ key;
            rest |= *out;
        }
        all.to_ne_bytes().is_ascii() && rest.is_ascii()
    }
    dispatch!(Level::new(), simd => simd.vectorize(|| each(plain, masked, key)))
}

/// Whether all bytes are ASCII.
pub(crate) fn is_ascii(bytes: &[u8]) -> bool {
    #[inline(always)]
    fn each(bytes: &[u8]) -> bool {
        bytes.iter().fold(0, |all, byte| all | byte).is_ascii()
    }
    dispatch!(Level::new(), simd => simd.vectorize(|| each(bytes)))
}

/// Masks `bytes` in place, or unmasks them: byte `i` with `key[i % 4]` (RFC 6455 section 5.3).
///
/// With the XOR of two keys, what was masked with the one is then masked with the other.
pub fn apply_mask(bytes: &mut [u8], key: [u8; 4]) {
    #[inline(always)]
    fn each(bytes: &mut [u8], key: [u8; 4]) {
        let (words, tail) = bytes.as_chunks_mut::<4>();
        let key_word = u32::from_ne_bytes(key);
        for word in words {
            *word = (u32::from_ne_bytes(*word) ^ key_word).to_ne_bytes();
        }
        for (byte, key) in tail.iter_mut().zip(key) {
            *byte ^= key;
        }
    }
    dispatch!(Level::new(), simd => simd.vectorize(|| each(bytes, key)));
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 4] = [0x12, 0xF0, 0x00, 0x9A];
    /// Around every width of a register, and several of the widest. Miri, which is slow, sees fewer.
    const LONGEST: usize = if cfg!(miri) { 70 } else { 300 };

    fn text(bytes: usize) -> Vec<u8> {
        (0..bytes).map(|at| (at * 7 % 128) as u8).collect()
    }

    fn masked(plain: &[u8], key: [u8; 4]) -> Vec<u8> {
        plain
            .iter()
            .zip(key.iter().cycle())
            .map(|(byte, key)| byte ^ key)
            .collect()
    }

    #[test]
    fn masking_is_what_the_standard_says_at_every_length() {
        for bytes in 0..LONGEST {
            let plain = text(bytes);
            let mut found = plain.clone();
            apply_mask(&mut found, KEY);
            assert_eq!(found, masked(&plain, KEY), "{bytes} bytes");
            apply_mask(&mut found, KEY);
            assert_eq!(found, plain, "{bytes} bytes, and back");
        }
    }

    #[test]
    fn unmasking_leaves_the_input_and_finds_ascii_at_every_length() {
        for bytes in 0..LONGEST {
            let plain = text(bytes);
            let mut found = vec![0xFF; bytes];
            assert!(unmask_into(&mut found, &masked(&plain, KEY), KEY));
            assert_eq!(found, plain, "{bytes} bytes");
        }
    }

    #[test]
    fn one_byte_that_is_not_ascii_is_found_at_every_place() {
        for bytes in (1..LONGEST).step_by(if cfg!(miri) { 23 } else { 1 }) {
            assert!(is_ascii(&text(bytes)));
            for at in 0..bytes {
                let mut plain = text(bytes);
                plain[at] |= 0x80;
                assert!(!is_ascii(&plain), "byte {at} of {bytes}");
                let mut found = vec![0; bytes];
                let is_ascii = unmask_into(&mut found, &masked(&plain, KEY), KEY);
                assert!(!is_ascii, "byte {at} of {bytes}, masked");
            }
        }
        assert!(is_ascii(&[]));
    }
}
