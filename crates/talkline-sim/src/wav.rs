//! PCM16 WAV files, read strictly: what is not understood is refused, never guessed.
//!
//! Only the plain `fmt `/`data` layout of the Multimedia Programming Interface and Data Specifications 1.0
//! (IBM and Microsoft, 1991) is read, mono, 16 bits. Other chunks are skipped.

/// Recorded speech: mono, 16 bits a sample.
#[derive(Clone, PartialEq, Eq)]
pub struct Wav {
    rate_hz: u32,
    samples: Vec<i16>,
}

/// Why bytes are not a WAV file that this crate reads.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WavError {
    /// The bytes do not begin with `RIFF` … `WAVE`: another format, or not audio at all.
    #[error("not a RIFF/WAVE file")]
    NotWave,
    /// A chunk says it is longer than the file: the file was cut short.
    #[error("the `{chunk}` chunk ends beyond the end of the file")]
    Truncated {
        /// The chunk's four-letter name, with odd bytes shown as `?`.
        chunk: String,
    },
    /// There is no `fmt ` chunk before the data, or no `data` chunk.
    #[error("the `{0}` chunk is missing")]
    MissingChunk(&'static str),
    /// A compressed or floating-point encoding. Convert to signed 16-bit PCM.
    #[error("the encoding has format tag {0}, only PCM (1) is read")]
    NotPcm(u16),
    /// Not 16 bits a sample.
    #[error("{0} bits a sample, only 16 are read")]
    BitsPerSample(u16),
    /// Not mono.
    #[error("{0} channels, only mono is read")]
    Channels(u16),
    /// A rate of zero, or a block size that contradicts mono 16 bits.
    #[error("the `fmt ` chunk contradicts itself")]
    Inconsistent,
    /// The data is not a whole number of samples.
    #[error("the data has an odd number of bytes")]
    HalfSample,
}

impl Wav {
    /// Makes a recording from samples at `rate_hz`.
    #[must_use]
    pub fn from_samples(rate_hz: u32, samples: Vec<i16>) -> Self {
        Self { rate_hz, samples }
    }

    /// Reads a WAV file.
    ///
    /// # Errors
    /// [`WavError`] says what the file has that is not read.
    pub fn parse(bytes: &[u8]) -> Result<Self, WavError> {
        if bytes.get(..4) != Some(b"RIFF") || bytes.get(8..12) != Some(b"WAVE") {
            return Err(WavError::NotWave);
        }
        let mut rest = &bytes[12..];
        let mut rate_hz = None;
        while let Some((head, after)) = rest.split_at_checked(8) {
            let (name, size) = (&head[..4], u32_le(&head[4..8]) as usize);
            let Some((body, next)) = after.split_at_checked(size) else {
                return Err(WavError::Truncated {
                    chunk: printable(name),
                });
            };
            match name {
                b"fmt " => rate_hz = Some(parse_format(body)?),
                b"data" => {
                    let rate_hz = rate_hz.ok_or(WavError::MissingChunk("fmt "))?;
                    let samples = samples_from_le(body).ok_or(WavError::HalfSample)?;
                    return Ok(Self { rate_hz, samples });
                }
                _ => {}
            }
            // Chunks start at even offsets; the pad byte of the last one may be missing.
            rest = next.get(size % 2..).unwrap_or_default();
        }
        Err(WavError::MissingChunk("data"))
    }

    /// Writes the recording as a WAV file.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        // The format counts in 32 bits; a recording that long is beyond what this crate handles, and its
        // header then says "as long as can be said", as streaming writers do.
        let data = u32::try_from(self.samples.len().saturating_mul(2)).unwrap_or(u32::MAX - 36);
        let mut out = Vec::with_capacity(44 + self.samples.len() * 2);
        out.extend_from_slice(b"RIFF");
        out.extend_from_slice(&(36 + data).to_le_bytes());
        out.extend_from_slice(b"WAVEfmt ");
        out.extend_from_slice(&16u32.to_le_bytes());
        out.extend_from_slice(&1u16.to_le_bytes());
        out.extend_from_slice(&1u16.to_le_bytes());
        out.extend_from_slice(&self.rate_hz.to_le_bytes());
        out.extend_from_slice(&self.rate_hz.saturating_mul(2).to_le_bytes());
        out.extend_from_slice(&2u16.to_le_bytes());
        out.extend_from_slice(&16u16.to_le_bytes());
        out.extend_from_slice(b"data");
        out.extend_from_slice(&data.to_le_bytes());
        out.extend_from_slice(&samples_to_le(&self.samples));
        out
    }

    /// Samples a second.
    #[must_use]
    pub fn rate_hz(&self) -> u32 {
        self.rate_hz
    }

    /// The samples, in order.
    #[must_use]
    pub fn samples(&self) -> &[i16] {
        &self.samples
    }

    /// How long the recording plays.
    #[must_use]
    pub fn duration(&self) -> std::time::Duration {
        let micros = self.samples.len() as u64 * 1_000_000 / u64::from(self.rate_hz.max(1));
        std::time::Duration::from_micros(micros)
    }
}

impl std::fmt::Debug for Wav {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wav")
            .field("rate_hz", &self.rate_hz)
            .field("samples", &self.samples.len())
            .finish()
    }
}

/// Returns the sample rate of a `fmt ` chunk that says mono, 16 bits, PCM.
fn parse_format(body: &[u8]) -> Result<u32, WavError> {
    if body.len() < 16 {
        return Err(WavError::Truncated {
            chunk: "fmt ".to_owned(),
        });
    }
    let u16_at = |at: usize| u16::from_le_bytes([body[at], body[at + 1]]);
    let (tag, channels, bits) = (u16_at(0), u16_at(2), u16_at(14));
    let rate_hz = u32_le(&body[4..8]);
    if tag != 1 {
        return Err(WavError::NotPcm(tag));
    }
    if channels != 1 {
        return Err(WavError::Channels(channels));
    }
    if bits != 16 {
        return Err(WavError::BitsPerSample(bits));
    }
    if rate_hz == 0 || u16_at(12) != 2 {
        return Err(WavError::Inconsistent);
    }
    Ok(rate_hz)
}

/// Little-endian PCM16 to samples; `None` when a byte is left over.
pub(crate) fn samples_from_le(bytes: &[u8]) -> Option<Vec<i16>> {
    let (pairs, rest) = bytes.as_chunks::<2>();
    rest.is_empty()
        .then(|| pairs.iter().map(|pair| i16::from_le_bytes(*pair)).collect())
}

/// Samples to little-endian PCM16.
pub(crate) fn samples_to_le(samples: &[i16]) -> Vec<u8> {
    samples.iter().flat_map(|s| s.to_le_bytes()).collect()
}

/// Root mean square of samples, full scale being 1.
pub(crate) fn rms(samples: &[i16]) -> f64 {
    if samples.is_empty() {
        return 0.0;
    }
    let sum: f64 = samples.iter().map(|&s| f64::from(s).powi(2)).sum();
    (sum / samples.len() as f64).sqrt() / f64::from(i16::MAX)
}

fn u32_le(bytes: &[u8]) -> u32 {
    bytes
        .iter()
        .rev()
        .fold(0, |value, &byte| value << 8 | u32::from(byte))
}

fn printable(name: &[u8]) -> String {
    name.iter()
        .map(|&b| {
            if b.is_ascii_graphic() || b == b' ' {
                b as char
            } else {
                '?'
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A WAV file from the fields of its `fmt ` chunk and its data.
    fn file(tag: u16, channels: u16, rate: u32, block: u16, bits: u16, data: &[u8]) -> Vec<u8> {
        let mut out = b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0".to_vec();
        out.extend_from_slice(&tag.to_le_bytes());
        out.extend_from_slice(&channels.to_le_bytes());
        out.extend_from_slice(&rate.to_le_bytes());
        out.extend_from_slice(&(rate * u32::from(block)).to_le_bytes());
        out.extend_from_slice(&block.to_le_bytes());
        out.extend_from_slice(&bits.to_le_bytes());
        out.extend_from_slice(b"data");
        out.extend_from_slice(&(data.len() as u32).to_le_bytes());
        out.extend_from_slice(data);
        out
    }

    fn check(bytes: &[u8], expected: Result<&[i16], WavError>) {
        assert_eq!(
            Wav::parse(bytes).map(|wav| wav.samples),
            expected.map(<[i16]>::to_vec)
        );
    }

    #[test]
    fn reads_what_it_understands_and_refuses_the_rest() {
        check(
            &file(1, 1, 24_000, 2, 16, &[1, 0, 0xff, 0xff]),
            Ok(&[1, -1]),
        );
        check(&file(1, 1, 24_000, 2, 16, &[]), Ok(&[]));
        check(&file(3, 1, 24_000, 2, 16, &[]), Err(WavError::NotPcm(3)));
        check(&file(1, 2, 24_000, 4, 16, &[]), Err(WavError::Channels(2)));
        check(
            &file(1, 1, 24_000, 1, 8, &[]),
            Err(WavError::BitsPerSample(8)),
        );
        check(&file(1, 1, 24_000, 4, 16, &[]), Err(WavError::Inconsistent));
        check(&file(1, 1, 0, 2, 16, &[]), Err(WavError::Inconsistent));
        check(&file(1, 1, 24_000, 2, 16, &[1]), Err(WavError::HalfSample));
        check(b"", Err(WavError::NotWave));
        check(b"RIFF\0\0\0\0AVI ", Err(WavError::NotWave));
        check(b"RIFF\0\0\0\0WAVE", Err(WavError::MissingChunk("data")));
        check(
            b"RIFF\0\0\0\0WAVEdata\0\0\0\0",
            Err(WavError::MissingChunk("fmt ")),
        );
        let whole = file(1, 1, 24_000, 2, 16, &[1, 0, 2, 0]);
        let cut = WavError::Truncated {
            chunk: "data".to_owned(),
        };
        check(&whole[..whole.len() - 1], Err(cut));
    }

    #[test]
    fn skips_other_chunks_and_their_padding() {
        let plain = file(1, 1, 8_000, 2, 16, &[5, 0]);
        let mut with_list = plain[..12].to_vec();
        with_list.extend_from_slice(b"LIST\x03\0\0\0abc\0");
        with_list.extend_from_slice(&plain[12..]);
        check(&with_list, Ok(&[5]));
    }

    #[test]
    fn what_is_written_reads_back() {
        let wav = Wav::from_samples(24_000, vec![0, 1, -1, i16::MAX, i16::MIN]);
        assert_eq!(Wav::parse(&wav.to_bytes()), Ok(wav));
    }

    #[test]
    fn no_prefix_of_a_file_panics() {
        let whole = file(1, 1, 24_000, 2, 16, &[1, 0, 2, 0]);
        for end in 0..whole.len() {
            assert!(Wav::parse(&whole[..end]).is_err());
        }
    }
}
