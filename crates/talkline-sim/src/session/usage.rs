//! Token counts of a simulated response.
//!
//! They are made up, but by a rule, so that a test can predict them: one token for every started 100 ms of audio
//! heard, one for every started 50 ms spoken, one for every four started characters of text. A response's input is
//! the whole conversation with the instructions; what an earlier response has read counts as cached.

use serde_json::{Value, json};

/// Tokens by modality.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tokens {
    pub(crate) text: u64,
    pub(crate) audio: u64,
}

impl Tokens {
    pub(crate) fn of_text(text: &str) -> Self {
        Self {
            text: (text.chars().count() as u64).div_ceil(4),
            audio: 0,
        }
    }

    pub(crate) fn of_heard_ms(ms: u64) -> Self {
        Self {
            text: 0,
            audio: ms.div_ceil(100),
        }
    }

    pub(crate) fn of_spoken_ms(ms: u64) -> Self {
        Self {
            text: 0,
            audio: ms.div_ceil(50),
        }
    }

    pub(crate) fn total(self) -> u64 {
        self.text + self.audio
    }
}

impl std::ops::Add for Tokens {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            text: self.text + other.text,
            audio: self.audio + other.audio,
        }
    }
}

impl std::iter::Sum for Tokens {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), std::ops::Add::add)
    }
}

/// `response.usage`.
pub(crate) fn response(input: Tokens, cached: Tokens, output: Tokens) -> Value {
    json!({
        "total_tokens": input.total() + output.total(),
        "input_tokens": input.total(),
        "output_tokens": output.total(),
        "input_token_details": {
            "text_tokens": input.text,
            "audio_tokens": input.audio,
            "image_tokens": 0,
            "cached_tokens": cached.total(),
            "cached_tokens_details": {
                "text_tokens": cached.text,
                "audio_tokens": cached.audio,
                "image_tokens": 0,
            },
        },
        "output_token_details": {"text_tokens": output.text, "audio_tokens": output.audio},
    })
}

/// `usage` of a transcription: whisper bills by duration, the others by tokens.
pub(crate) fn transcription(model: &str, heard_ms: u64, transcript: &str) -> Value {
    if model.contains("whisper") {
        return json!({"type": "duration", "seconds": heard_ms.div_ceil(1000)});
    }
    let input = Tokens::of_heard_ms(heard_ms);
    let output = Tokens::of_text(transcript);
    json!({
        "type": "tokens",
        "total_tokens": input.total() + output.total(),
        "input_tokens": input.total(),
        "input_token_details": {"text_tokens": input.text, "audio_tokens": input.audio},
        "output_tokens": output.total(),
    })
}
