//! The recorded clips of the bundle: one question for a caller, three replies for the simulator.
//!
//! `assets/README.md` says how they were made.

use crate::wav::{Wav, WavError};

/// A recording and what is said in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clip {
    /// A short name, as in the file's name.
    pub name: &'static str,
    /// The words, as a transcript would have them.
    pub text: &'static str,
    /// The WAV file: 24 kHz, mono, PCM16.
    pub bytes: &'static [u8],
}

impl Clip {
    /// Decodes the recording.
    ///
    /// # Errors
    /// [`WavError`] for a clip that is not PCM16 mono; the bundled ones are.
    pub fn wav(&self) -> Result<Wav, WavError> {
        Wav::parse(self.bytes)
    }
}

/// What the bundled caller asks.
pub const QUESTION: Clip = Clip {
    name: "question",
    text: "Hello, is this line working?",
    bytes: include_bytes!("../assets/question.wav"),
};

/// What the simulator answers, in turn, starting over after the last.
pub const REPLIES: [Clip; 3] = [
    Clip {
        name: "reply-1",
        text: "Yes, loud and clear. This is the Talkline simulator.",
        bytes: include_bytes!("../assets/reply-1.wav"),
    },
    Clip {
        name: "reply-2",
        text: "I am a recording, so I only know a few sentences.",
        bytes: include_bytes!("../assets/reply-2.wav"),
    },
    Clip {
        name: "reply-3",
        text: "Say anything you like. I am still listening.",
        bytes: include_bytes!("../assets/reply-3.wav"),
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_clip_is_short_audible_24_khz_speech() {
        for clip in [QUESTION].into_iter().chain(REPLIES) {
            let wav = clip.wav().unwrap();
            assert_eq!(wav.rate_hz(), 24_000, "{}", clip.name);
            assert!(wav.duration().as_secs_f64() < 4.0, "{}", clip.name);
            assert!(crate::wav::rms(wav.samples()) > 0.03, "{}", clip.name);
        }
    }
}
