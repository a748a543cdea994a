//! The recorded clips of the bundle: what a caller may ask, and what the simulator answers.
//!
//! `assets/README.md` says how they were made.

use std::time::Duration;

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

macro_rules! clip {
    ($name:literal, $text:literal) => {
        Clip {
            name: $name,
            text: $text,
            bytes: include_bytes!(concat!("../assets/", $name, ".wav")),
        }
    };
}

/// What the bundled caller asks.
pub const QUESTION: Clip = clip!("question", "Hello, is this line working?");

/// A question that the simulator answers with [`REPLY_HELP`].
pub const ASK_HELP: Clip = clip!("ask-help", "What can you do?");

/// A request that the simulator answers with the [`count`].
pub const ASK_COUNT: Clip = clip!("ask-count", "Please count to sixty.");

/// A farewell that the simulator answers with [`REPLY_GOODBYE`].
pub const ASK_GOODBYE: Clip = clip!("ask-goodbye", "Thank you, goodbye.");

/// What the simulator answers in turn, starting over after the last, to whatever has no answer of its own.
pub const REPLIES: [Clip; 4] = [
    clip!(
        "reply-1",
        "Yes, loud and clear. This is the Talkline simulator."
    ),
    clip!(
        "reply-2",
        "I am a recording, so I only know a few sentences."
    ),
    clip!("reply-3", "Say anything you like. I am still listening."),
    clip!("reply-4", "Talk while I talk, and I will stop at once."),
];

/// What the simulator says of itself.
pub const REPLY_HELP: Clip = clip!(
    "reply-help",
    "Ask me to count to sixty, and interrupt me on the way."
);

/// The simulator's farewell.
pub const REPLY_GOODBYE: Clip = clip!("reply-goodbye", "Goodbye. It was nice talking to you.");

/// Every clip that is a sentence.
pub(crate) const ALL: [Clip; 10] = [
    QUESTION,
    ASK_HELP,
    ASK_COUNT,
    ASK_GOODBYE,
    REPLIES[0],
    REPLIES[1],
    REPLIES[2],
    REPLIES[3],
    REPLY_HELP,
    REPLY_GOODBYE,
];

const NUMBERS: &[u8] = include_bytes!("../assets/numbers.wav");
const WORDS: [&str; 24] = [
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
    "twenty",
    "thirty",
    "forty",
    "fifty",
    "sixty",
];
/// Half a second at 24 kHz, which is what each word of the recording has.
const WORD_SAMPLES: usize = 12_000;
/// The last number of the count.
const LAST: usize = 60;

/// The count from one to sixty, a number a second: a recording of one minute, and its words.
///
/// A cut, a gap or a repetition in it can be heard, and can be found in the samples: number `n` begins at second
/// `n - 1`.
///
/// # Errors
/// [`WavError`] for a damaged recording; the bundled one is sound.
pub fn count() -> Result<(String, Wav), WavError> {
    let words = Wav::parse(NUMBERS)?;
    let mut text = String::new();
    let mut samples = Vec::with_capacity(LAST * 2 * WORD_SAMPLES);
    for number in 1..=LAST {
        let [first, second] = words_of(number);
        for word in [first, second] {
            let at = word.map_or(0, |word| word * WORD_SAMPLES);
            let spoken = word.and_then(|_| words.samples().get(at..at + WORD_SAMPLES));
            samples.extend_from_slice(spoken.unwrap_or(&[0; WORD_SAMPLES]));
        }
        let written = [first, second]
            .into_iter()
            .flatten()
            .map(|word| WORDS[word]);
        text.push_str(&written.collect::<Vec<_>>().join("-"));
        text.push_str(if number < LAST { ", " } else { "." });
    }
    Ok((text, Wav::from_samples(words.rate_hz(), samples)))
}

/// How long [`count`] plays.
pub const COUNT_DURATION: Duration = Duration::from_secs(LAST as u64);

/// The places of a number's words in [`WORDS`].
fn words_of(number: usize) -> [Option<usize>; 2] {
    match (number / 10, number % 10) {
        (0 | 1, _) => [Some(number - 1), None],
        (tens, 0) => [Some(17 + tens), None],
        (tens, ones) => [Some(17 + tens), Some(ones - 1)],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_clip_is_short_audible_24_khz_speech() {
        for clip in ALL {
            let wav = clip.wav().unwrap();
            assert_eq!(wav.rate_hz(), 24_000, "{}", clip.name);
            assert!(wav.duration().as_secs_f64() < 4.0, "{}", clip.name);
            assert!(crate::wav::rms(wav.samples()) > 0.03, "{}", clip.name);
        }
    }

    #[test]
    fn the_count_is_one_minute_with_a_number_a_second() {
        let (text, wav) = count().unwrap();
        assert_eq!(wav.duration(), COUNT_DURATION);
        let numbers: Vec<&str> = text.trim_end_matches('.').split(", ").collect();
        assert_eq!(numbers.len(), 60);
        let check = |number: usize, words: &str| assert_eq!(numbers[number - 1], words);
        check(1, "one");
        check(19, "nineteen");
        check(20, "twenty");
        check(21, "twenty-one");
        check(59, "fifty-nine");
        check(60, "sixty");
        for (index, second) in wav.samples().chunks(24_000).enumerate() {
            let loud = crate::wav::rms(&second[..WORD_SAMPLES]);
            assert!(loud > 0.05, "number {} is silent: {loud}", index + 1);
        }
    }

    #[test]
    fn the_readme_has_every_clip_and_its_words() {
        let readme = include_str!("../assets/README.md");
        let script = include_str!("../assets/speak.sh");
        for Clip { name, text, .. } in ALL {
            assert!(
                readme.contains(&format!("| `{name}.wav` | {text} |")),
                "{name}"
            );
            assert!(
                script.contains(&format!("speak {name} \"{text}\"")),
                "{name}"
            );
        }
    }
}
