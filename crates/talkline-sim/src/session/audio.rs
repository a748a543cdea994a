//! The audio formats of the wire: PCM16 at 24 kHz, and G.711 at 8 kHz.

use crate::wav;

/// A format that a session may name for its input or output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Pcm16,
    Ulaw,
    Alaw,
}

impl Format {
    /// By its name in either dialect.
    pub(crate) fn by_name(name: &str) -> Option<Self> {
        Some(match name {
            "audio/pcm" | "pcm16" => Self::Pcm16,
            "audio/pcmu" | "g711_ulaw" => Self::Ulaw,
            "audio/pcma" | "g711_alaw" => Self::Alaw,
            _ => return None,
        })
    }

    /// Bytes of a millisecond.
    pub(crate) fn bytes_per_ms(self) -> usize {
        match self {
            Self::Pcm16 => 48,
            Self::Ulaw | Self::Alaw => 8,
        }
    }

    /// Received bytes as 24 kHz samples; `None` if they are not whole samples.
    pub(crate) fn decode(self, bytes: &[u8]) -> Option<Vec<i16>> {
        let expand = match self {
            Self::Pcm16 => return wav::samples_from_le(bytes),
            Self::Ulaw => ulaw_to_linear,
            Self::Alaw => alaw_to_linear,
        };
        Some(bytes.iter().flat_map(|&byte| [expand(byte); 3]).collect())
    }

    /// 24 kHz samples as they are sent.
    pub(crate) fn encode(self, samples: &[i16]) -> Vec<u8> {
        let compress = match self {
            Self::Pcm16 => return wav::samples_to_le(samples),
            Self::Ulaw => linear_to_ulaw,
            Self::Alaw => linear_to_alaw,
        };
        // The mean of three samples is a low-pass filter that speech survives.
        let mean = |three: &[i16]| {
            let sum: i32 = three.iter().map(|&s| i32::from(s)).sum();
            (sum / three.len() as i32) as i16
        };
        samples
            .chunks(3)
            .map(|three| compress(mean(three)))
            .collect()
    }
}

/// ITU-T G.711, table 2: mu-law.
fn ulaw_to_linear(byte: u8) -> i16 {
    let bits = !byte;
    let (segment, step) = (bits >> 4 & 7, i16::from(bits & 15));
    let magnitude = (((step << 3) + 0x84) << segment) - 0x84;
    if bits & 0x80 == 0 {
        magnitude
    } else {
        -magnitude
    }
}

fn linear_to_ulaw(sample: i16) -> u8 {
    let sign = if sample < 0 { 0x80 } else { 0 };
    let magnitude = i32::from(sample).abs().min(32_635) + 0x84;
    // The bias makes bit 7 the lowest that can lead.
    let segment = 31 - magnitude.leading_zeros() - 7;
    let step = magnitude >> (segment + 3) & 15;
    !(sign | (segment as u8) << 4 | step as u8)
}

/// ITU-T G.711, table 1: A-law.
fn alaw_to_linear(byte: u8) -> i16 {
    let bits = byte ^ 0x55;
    let (segment, step) = (bits >> 4 & 7, i16::from(bits & 15));
    let magnitude = match segment {
        0 => (step << 4) + 8,
        _ => ((step << 4) + 0x108) << (segment - 1),
    };
    if bits & 0x80 == 0 {
        -magnitude
    } else {
        magnitude
    }
}

fn linear_to_alaw(sample: i16) -> u8 {
    let sign = if sample < 0 { 0 } else { 0x80 };
    let magnitude = i32::from(sample).abs().min(32_767);
    let segment = match magnitude {
        ..256 => 0,
        _ => 31 - magnitude.leading_zeros() - 7,
    };
    let step = magnitude >> (segment.max(1) + 3) & 15;
    (sign | (segment as u8) << 4 | step as u8) ^ 0x55
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn g711_is_its_own_inverse() {
        for byte in 0..=255 {
            // Mu-law has two zeros, of which the positive is chosen.
            let ulaw = linear_to_ulaw(ulaw_to_linear(byte));
            assert_eq!(ulaw, if byte == 0x7f { 0xff } else { byte });
            assert_eq!(linear_to_alaw(alaw_to_linear(byte)), byte);
        }
    }

    #[test]
    fn g711_reference_points() {
        assert_eq!(ulaw_to_linear(0xff), 0);
        assert_eq!(ulaw_to_linear(0x80), 32_124);
        assert_eq!(ulaw_to_linear(0x00), -32_124);
        assert_eq!(alaw_to_linear(0xd5), 8);
        assert_eq!(alaw_to_linear(0xaa), 32_256);
        assert_eq!(linear_to_ulaw(i16::MIN), 0x00);
        assert_eq!(linear_to_alaw(i16::MIN), 0x2a);
    }

    #[test]
    fn pcm_passes_unchanged() {
        let samples = [0, 1, -1, i16::MAX, i16::MIN];
        let bytes = Format::Pcm16.encode(&samples);
        assert_eq!(Format::Pcm16.decode(&bytes).unwrap(), samples);
        assert_eq!(Format::Pcm16.decode(&[1]), None);
    }
}
