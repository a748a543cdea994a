//! A response while it is being given: what is still to be said, what has been, and its events.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::audio::Format;
use super::usage::Tokens;
use crate::ids;

/// Audio of one delta.
const DELTA_MS: usize = 200;

/// What a response will say.
#[derive(Debug, Clone)]
pub(crate) struct Script {
    pub(crate) text: String,
    /// 24 kHz samples; `None` for a response in text.
    pub(crate) samples: Option<Vec<i16>>,
}

/// A response in progress.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) id: String,
    pub(crate) item_id: String,
    /// Whether the item joins the conversation (`conversation` is not `none`).
    pub(crate) in_conversation: bool,
    pub(crate) metadata: Value,
    pub(crate) modalities: Value,
    pub(crate) input_tokens: Tokens,
    pub(crate) cached_tokens: Tokens,
    format: Format,
    steps: Vec<Step>,
    /// How many steps have been given.
    pub(crate) given: usize,
    speaks: bool,
    due: Instant,
    every: Duration,
}

/// One delta of each kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) text: String,
    pub(crate) audio: Vec<u8>,
}

/// When the steps of a reply are given.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timing {
    pub(crate) first: Instant,
    pub(crate) every: Duration,
}

impl Reply {
    pub(crate) fn new(script: &Script, format: Format, timing: Timing) -> Self {
        Self {
            id: ids::id("resp"),
            item_id: ids::id("item"),
            in_conversation: true,
            metadata: Value::Null,
            modalities: Value::Null,
            input_tokens: Tokens::default(),
            cached_tokens: Tokens::default(),
            format,
            steps: steps(script, format),
            given: 0,
            speaks: script.samples.is_some(),
            due: timing.first,
            every: timing.every,
        }
    }

    /// Whether the reply is in audio.
    pub(crate) fn speaks(&self) -> bool {
        self.speaks
    }

    /// When the next step is due; `None` when all have been given.
    pub(crate) fn next_due(&self) -> Instant {
        self.due
    }

    /// The next step, if it is due by `now`.
    pub(crate) fn step(&mut self, now: Instant) -> Option<&Step> {
        let step = self.steps.get(self.given).filter(|_| self.due <= now)?;
        self.given += 1;
        self.due += self.every;
        Some(step)
    }

    pub(crate) fn is_over(&self) -> bool {
        self.given == self.steps.len()
    }

    pub(crate) fn is_half_given(&self) -> bool {
        self.given * 2 >= self.steps.len()
    }

    /// The words given so far.
    pub(crate) fn text(&self) -> String {
        self.steps[..self.given]
            .iter()
            .map(|step| step.text.as_str())
            .collect()
    }

    /// Milliseconds of audio given so far.
    pub(crate) fn audio_ms(&self) -> u64 {
        let bytes: usize = self.steps[..self.given]
            .iter()
            .map(|step| step.audio.len())
            .sum();
        (bytes / self.format.bytes_per_ms()) as u64
    }

    /// The content part with what has been given so far, as `response.content_part` events name it. They say
    /// `audio` and `text` in both dialects: OpenAI's clients refuse the names that GA gave to parts of items.
    pub(crate) fn part(&self) -> Value {
        if self.speaks {
            json!({"type": "audio", "transcript": self.text()})
        } else {
            json!({"type": "text", "text": self.text()})
        }
    }
}

/// Cuts audio in deltas and spreads the words over them; a text comes word by word.
fn steps(script: &Script, format: Format) -> Vec<Step> {
    let words: Vec<&str> = script.text.split_inclusive(' ').collect();
    let Some(samples) = &script.samples else {
        let step = |word: &&str| Step {
            text: (*word).to_owned(),
            audio: Vec::new(),
        };
        return words.iter().map(step).collect();
    };
    let audio = format.encode(samples);
    let pieces: Vec<&[u8]> = audio.chunks(DELTA_MS * format.bytes_per_ms()).collect();
    let upto = |index: usize| index * words.len() / pieces.len();
    let each = pieces.iter().enumerate().map(|(index, piece)| Step {
        text: words[upto(index)..upto(index + 1)].concat(),
        audio: piece.to_vec(),
    });
    each.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_add_up_to_the_script() {
        let clip = crate::clips::REPLIES[0];
        let samples = clip.wav().unwrap().samples().to_vec();
        for format in [Format::Pcm16, Format::Ulaw] {
            let script = Script {
                text: clip.text.to_owned(),
                samples: Some(samples.clone()),
            };
            let steps = steps(&script, format);
            let audio: Vec<u8> = steps.iter().flat_map(|step| step.audio.clone()).collect();
            let text: String = steps.iter().map(|step| step.text.as_str()).collect();
            assert_eq!(audio, format.encode(&samples));
            assert_eq!(text, clip.text);
        }
    }
}
