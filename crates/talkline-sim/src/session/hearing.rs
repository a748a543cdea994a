//! What the simulator "understands": it knows the bundled clips by the shape of their loudness, and describes
//! anything else by its length.

use std::sync::OnceLock;

use crate::clips::{self, Clip};
use crate::wav;

/// 10 ms at 24 kHz.
const FRAME: usize = 240;
/// Below this a frame is silence: -40 dBFS.
const QUIET: f64 = 0.01;
/// Correlation of two envelopes from which they are the same recording. Other speech of equal length stays well
/// below; resampling and G.711 stay above.
const SAME: f64 = 0.95;
/// Frames by which start and length may differ.
const SLACK: usize = 5;

/// The words of a recording, as its transcript says them.
pub(crate) fn transcript(samples: &[i16]) -> String {
    let heard = envelope(samples);
    if heard.is_empty() {
        return String::new();
    }
    let known = known().iter().find(|(_, envelope)| alike(envelope, &heard));
    match known {
        Some((clip, _)) => clip.text.to_owned(),
        None => format!("({:.1} seconds of speech)", heard.len() as f64 / 100.0),
    }
}

fn known() -> &'static [(Clip, Vec<f64>)] {
    static KNOWN: OnceLock<Vec<(Clip, Vec<f64>)>> = OnceLock::new();
    KNOWN.get_or_init(|| {
        let all = [clips::QUESTION].into_iter().chain(clips::REPLIES);
        let parsed = all.filter_map(|clip| Some((clip, clip.wav().ok()?)));
        parsed
            .map(|(clip, wav)| (clip, envelope(wav.samples())))
            .collect()
    })
}

/// Loudness every 10 ms, from the first frame that is not silence to the last.
fn envelope(samples: &[i16]) -> Vec<f64> {
    let Some(first) = samples
        .iter()
        .position(|&s| f64::from(s).abs() > QUIET * f64::from(i16::MAX))
    else {
        return Vec::new();
    };
    // Frames start at the first loud sample, so that silence before it does not shift them.
    let mut levels: Vec<f64> = samples[first..].chunks(FRAME).map(wav::rms).collect();
    let loud = levels.iter().rposition(|&level| level > QUIET);
    levels.truncate(loud.map_or(0, |last| last + 1));
    levels
}

fn alike(one: &[f64], other: &[f64]) -> bool {
    one.len().abs_diff(other.len()) <= SLACK
        && (0..=SLACK).any(|shift| {
            correlation(&one[shift.min(one.len())..], other) > SAME
                || correlation(one, &other[shift.min(other.len())..]) > SAME
        })
}

/// Pearson's correlation over the common length; 0 where it is not defined.
fn correlation(one: &[f64], other: &[f64]) -> f64 {
    let count = one.len().min(other.len());
    let mean = |values: &[f64]| values[..count].iter().sum::<f64>() / count as f64;
    let (mean_one, mean_other) = (mean(one), mean(other));
    let (mut product, mut square_one, mut square_other) = (0.0, 0.0, 0.0);
    for (a, b) in one.iter().zip(other) {
        product += (a - mean_one) * (b - mean_other);
        square_one += (a - mean_one).powi(2);
        square_other += (b - mean_other).powi(2);
    }
    let scale = (square_one * square_other).sqrt();
    if scale > 0.0 { product / scale } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::audio::Format;

    fn question() -> Vec<i16> {
        clips::QUESTION.wav().unwrap().samples().to_vec()
    }

    fn padded(before: usize, after: usize) -> Vec<i16> {
        [vec![0; before], question(), vec![0; after]].concat()
    }

    #[test]
    fn the_question_is_known_in_any_silence() {
        for (before, after) in [(0, 0), (7200, 12_000), (101, 13), (24_000, 0)] {
            assert_eq!(transcript(&padded(before, after)), clips::QUESTION.text);
        }
    }

    #[test]
    fn the_question_is_known_over_the_telephone() {
        for format in [Format::Ulaw, Format::Alaw] {
            let received = format.decode(&format.encode(&padded(500, 500))).unwrap();
            assert_eq!(transcript(&received), clips::QUESTION.text, "{format:?}");
        }
    }

    #[test]
    fn each_clip_is_only_itself() {
        for clip in clips::REPLIES {
            assert_eq!(transcript(clip.wav().unwrap().samples()), clip.text);
        }
    }

    #[test]
    fn anything_else_is_described() {
        let backwards: Vec<i16> = question().into_iter().rev().collect();
        assert_eq!(transcript(&backwards), "(1.8 seconds of speech)");
        assert_eq!(transcript(&question()[..24_000]), "(1.0 seconds of speech)");
        assert_eq!(transcript(&[0; 24_000]), "");
        assert_eq!(transcript(&[]), "");
    }
}
