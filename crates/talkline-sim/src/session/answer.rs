//! Which of the recordings answers what was said.

use super::reply::Script;
use crate::clips;

/// An answer in one of the recordings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    Clip(clips::Clip),
    /// The count to sixty.
    Count,
}

impl Answer {
    /// The answer to these words, after `given` earlier answers.
    pub(crate) fn to(words: &str, given: usize) -> Self {
        let words = words.to_lowercase();
        let about = |subjects: &[&str]| subjects.iter().any(|subject| words.contains(subject));
        if about(&["count", "sixty", "long"]) {
            Self::Count
        } else if about(&["bye"]) {
            Self::Clip(clips::REPLY_GOODBYE)
        } else if about(&["can you do", "help"]) {
            Self::Clip(clips::REPLY_HELP)
        } else {
            Self::Clip(clips::REPLIES[given % clips::REPLIES.len()])
        }
    }

    /// The words and the sound. A recording that cannot be read is answered in text.
    pub(crate) fn script(self) -> Script {
        match self {
            Self::Clip(clip) => Script {
                text: clip.text.to_owned(),
                samples: clip.wav().ok().map(|wav| wav.samples().to_vec()),
            },
            Self::Count => {
                let (text, wav) = clips::count().ok().unzip();
                Script {
                    text: text.unwrap_or_default(),
                    samples: wav.map(|wav| wav.samples().to_vec()),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_have_their_own_answers_and_the_rest_is_small_talk() {
        let check = |words: &str, given: usize, expected: Answer| {
            assert_eq!(Answer::to(words, given), expected, "{words}");
        };
        check(clips::ASK_COUNT.text, 0, Answer::Count);
        check("Tell me a long story", 3, Answer::Count);
        check(clips::ASK_HELP.text, 1, Answer::Clip(clips::REPLY_HELP));
        check(
            clips::ASK_GOODBYE.text,
            2,
            Answer::Clip(clips::REPLY_GOODBYE),
        );
        check("Good BYE", 2, Answer::Clip(clips::REPLY_GOODBYE));
        for given in 0..9 {
            let next = Answer::Clip(clips::REPLIES[given % 4]);
            check(clips::QUESTION.text, given, next);
            check("(2.1 seconds of speech)", given, next);
            check("", given, next);
        }
    }

    #[test]
    fn every_answer_can_be_heard() {
        for answer in [Answer::Count, Answer::Clip(clips::REPLIES[0])] {
            let script = answer.script();
            assert!(!script.text.is_empty());
            assert!(script.samples.is_some_and(|samples| samples.len() > 24_000));
        }
    }
}
