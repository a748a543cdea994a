//! PCM16 WAV files, read strictly: what is not understood is refused, never guessed.
//!
//! The `fmt `/`data` layout of the Multimedia Programming Interface and Data Specifications 1.0 (IBM and Microsoft,
//! 1991) is read, 16 bits. [`Wav::parse`] wants mono; [`Wav::parse_mixing`] takes what recorders and converters write.
//! Other chunks are skipped.

/// Most channels that are mixed.
pub const CHANNELS_MAX: usize = 8;

/// Format tags of the `fmt ` chunk.
const PCM: u16 = 1;
const EXTENSIBLE: u16 = 0xfffe;
/// The length of a chunk whose writer did not know it.
const UNKNOWN_LENGTH: usize = u32::MAX as usize;
/// Reach of the resampling filter to each side, in periods of the lower rate.
const TAPS: f64 = 16.0;

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
    /// More channels than are read: one, or [`CHANNELS_MAX`] for [`Wav::parse_mixing`].
    #[error("{0} channels are more than are read")]
    Channels(u16),
    /// A rate or a number of channels of zero, or a block size that contradicts the channels' 16 bits.
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
        let (format, samples) = read(bytes)?;
        if format.extensible {
            return Err(WavError::NotPcm(EXTENSIBLE));
        }
        if format.channels != 1 {
            return Err(WavError::Channels(format.channels));
        }
        let rate_hz = format.rate_hz;
        Ok(Self { rate_hz, samples })
    }

    /// Reads a WAV file of up to [`CHANNELS_MAX`] channels, which are mixed to one.
    ///
    /// The extensible header is read as well, and a `data` chunk of unknown length (all bits set), which programs
    /// write that cannot seek back.
    ///
    /// # Errors
    /// [`WavError`] says what the file has that is not read.
    pub fn parse_mixing(bytes: &[u8]) -> Result<Self, WavError> {
        let (format, samples) = read(bytes)?;
        let channels = usize::from(format.channels);
        if channels > CHANNELS_MAX {
            return Err(WavError::Channels(format.channels));
        }
        let mean = |frame: &[i16]| {
            let sum: i32 = frame.iter().map(|&s| i32::from(s)).sum();
            (sum / frame.len() as i32) as i16
        };
        Ok(Self {
            rate_hz: format.rate_hz,
            samples: samples.chunks_exact(channels).map(mean).collect(),
        })
    }

    /// The same sound at another rate.
    ///
    /// A windowed sinc of [`TAPS`] samples to each side: what the lower rate cannot hold is filtered out first.
    #[must_use]
    pub fn resampled(&self, rate_hz: u32) -> Self {
        if rate_hz == self.rate_hz || rate_hz == 0 {
            return self.clone();
        }
        let step = f64::from(self.rate_hz) / f64::from(rate_hz);
        // In input samples: a lower output rate needs a lower cut-off, and thus a wider window.
        let stretch = step.max(1.0);
        let reach = TAPS * stretch;
        let at = |index: usize| {
            let middle = index as f64 * step;
            let first = (middle - reach).ceil().max(0.0) as usize;
            let last = ((middle + reach) as usize + 1).min(self.samples.len());
            let around = self.samples.get(first..last).unwrap_or_default();
            let (mut sum, mut weights) = (0.0, 0.0);
            for (offset, &sample) in around.iter().enumerate() {
                let distance = ((first + offset) as f64 - middle) / stretch;
                let weight = windowed_sinc(distance);
                sum += f64::from(sample) * weight;
                weights += weight;
            }
            let scale = if weights.abs() > 0.1 { weights } else { 1.0 };
            (sum / scale).round().clamp(-32_768.0, 32_767.0) as i16
        };
        let count = (self.samples.len() as f64 / step).round() as usize;
        Self {
            rate_hz,
            samples: (0..count).map(at).collect(),
        }
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

/// What a `fmt ` chunk says of 16-bit PCM.
#[derive(Debug, Clone, Copy)]
struct Layout {
    rate_hz: u32,
    channels: u16,
    extensible: bool,
}

/// The chunks that matter; samples of all channels, interleaved.
fn read(bytes: &[u8]) -> Result<(Layout, Vec<i16>), WavError> {
    if bytes.get(..4) != Some(b"RIFF") || bytes.get(8..12) != Some(b"WAVE") {
        return Err(WavError::NotWave);
    }
    let mut rest = &bytes[12..];
    let mut layout = None;
    while let Some((head, after)) = rest.split_at_checked(8) {
        let (name, size) = (&head[..4], u32_le(&head[4..8]) as usize);
        let size = match name {
            b"data" if size == UNKNOWN_LENGTH => after.len(),
            _ => size,
        };
        let Some((body, next)) = after.split_at_checked(size) else {
            return Err(WavError::Truncated {
                chunk: printable(name),
            });
        };
        match name {
            b"fmt " => layout = Some(parse_format(body)?),
            b"data" => {
                let layout = layout.ok_or(WavError::MissingChunk("fmt "))?;
                let samples = samples_from_le(body).ok_or(WavError::HalfSample)?;
                return Ok((layout, samples));
            }
            _ => {}
        }
        // Chunks start at even offsets; the pad byte of the last one may be missing.
        rest = next.get(size % 2..).unwrap_or_default();
    }
    Err(WavError::MissingChunk("data"))
}

/// Reads a `fmt ` chunk that says 16-bit PCM.
fn parse_format(body: &[u8]) -> Result<Layout, WavError> {
    let u16_at = |at: usize| match body.get(at..at + 2) {
        Some(&[low, high]) => Ok(u16::from_le_bytes([low, high])),
        _ => Err(WavError::Truncated {
            chunk: "fmt ".to_owned(),
        }),
    };
    let (tag, channels, bits) = (u16_at(0)?, u16_at(2)?, u16_at(14)?);
    let rate_hz = u32_le(&body[4..8]);
    let extensible = tag == EXTENSIBLE;
    // WAVEFORMATEXTENSIBLE: the real tag begins the sub-format, after size, valid bits and channel mask.
    let tag = if extensible { u16_at(24)? } else { tag };
    if tag != PCM {
        return Err(WavError::NotPcm(tag));
    }
    if bits != 16 {
        return Err(WavError::BitsPerSample(bits));
    }
    if rate_hz == 0 || channels == 0 || u32::from(u16_at(12)?) != 2 * u32::from(channels) {
        return Err(WavError::Inconsistent);
    }
    Ok(Layout {
        rate_hz,
        channels,
        extensible,
    })
}

/// sinc(x), with a Hann window that ends at [`TAPS`].
fn windowed_sinc(x: f64) -> f64 {
    use std::f64::consts::PI;

    if x.abs() < 1e-9 {
        return 1.0;
    }
    if x.abs() >= TAPS {
        return 0.0;
    }
    let window = 0.5 + 0.5 * (PI * x / TAPS).cos();
    (PI * x).sin() / (PI * x) * window
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

    fn mixed(bytes: &[u8]) -> Result<Vec<i16>, WavError> {
        Wav::parse_mixing(bytes).map(|wav| wav.samples)
    }

    #[test]
    fn channels_are_mixed_and_headers_of_converters_are_read() {
        let stereo = [10, 0, 20, 0, 0xff, 0xff, 0xfd, 0xff];
        let whole = file(1, 2, 44_100, 4, 16, &stereo);
        assert_eq!(mixed(&whole), Ok(vec![15, -2]));
        assert_eq!(mixed(&file(1, 1, 8_000, 2, 16, &[7, 0])), Ok(vec![7]));
        assert_eq!(
            mixed(&file(1, 9, 8_000, 18, 16, &[])),
            Err(WavError::Channels(9))
        );
        assert_eq!(
            mixed(&file(1, 0, 8_000, 0, 16, &[])),
            Err(WavError::Inconsistent)
        );
        let mut unknown_length = whole.clone();
        unknown_length[40..44].fill(0xff);
        assert_eq!(mixed(&unknown_length), Ok(vec![15, -2]));

        let mut extensible = b"RIFF\0\0\0\0WAVEfmt \x28\0\0\0".to_vec();
        extensible.extend_from_slice(&whole[20..36]);
        extensible[20..22].copy_from_slice(&EXTENSIBLE.to_le_bytes());
        extensible.extend_from_slice(&[22, 0, 16, 0, 3, 0, 0, 0]);
        extensible.extend_from_slice(b"\x01\0\0\0\0\0\x10\0\x80\0\0\xaa\0\x38\x9b\x71");
        extensible.extend_from_slice(&whole[36..]);
        assert_eq!(mixed(&extensible), Ok(vec![15, -2]));
        check(&extensible, Err(WavError::NotPcm(EXTENSIBLE)));
        for end in 0..extensible.len() {
            assert!(mixed(&extensible[..end]).is_err());
        }
        extensible[44] = 3;
        assert_eq!(mixed(&extensible), Err(WavError::NotPcm(3)));
    }

    /// A tone of half of full scale, and its loudness after a change of rate.
    fn tone(rate_hz: u32, tone_hz: f64, to_hz: u32) -> f64 {
        let sample = |index: u32| {
            let phase =
                f64::from(index) * tone_hz / f64::from(rate_hz) * 2.0 * std::f64::consts::PI;
            (phase.sin() * 16_384.0) as i16
        };
        let wav = Wav::from_samples(rate_hz, (0..rate_hz).map(sample).collect());
        let resampled = wav.resampled(to_hz);
        assert_eq!(resampled.rate_hz(), to_hz);
        assert_eq!(resampled.samples().len(), to_hz as usize);
        rms(resampled.samples())
    }

    #[test]
    fn resampling_keeps_speech_and_drops_what_would_fold() {
        let whole = 0.5 / 2f64.sqrt();
        for rate_hz in [8_000, 11_025, 16_000, 22_050, 32_000, 44_100, 48_000] {
            for tone_hz in [200.0, 1_000.0, 3_000.0] {
                let level = tone(rate_hz, tone_hz, 24_000);
                assert!(
                    (level / whole - 1.0).abs() < 0.02,
                    "{rate_hz}, {tone_hz}: {level}"
                );
            }
        }
        for (rate_hz, tone_hz) in [(48_000, 15_000.0), (44_100, 16_000.0)] {
            let level = tone(rate_hz, tone_hz, 24_000);
            assert!(level < 0.01 * whole, "{rate_hz}, {tone_hz}: {level}");
        }
        assert_eq!(tone(24_000, 440.0, 24_000), tone(24_000, 440.0, 24_000));
        let empty = Wav::from_samples(8_000, Vec::new()).resampled(24_000);
        assert!(empty.samples().is_empty());
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
