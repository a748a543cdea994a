use super::*;
use crate::clips::{ALL, QUESTION};
use crate::session::audio::Format;

fn samples(clip: Clip) -> Vec<i16> {
    clip.wav().unwrap().samples().to_vec()
}

fn question() -> Vec<i16> {
    samples(QUESTION)
}

fn padded(before: usize, clip: &[i16], after: usize) -> Vec<i16> {
    [&vec![0; before], clip, &vec![0; after]].concat()
}

fn each(samples: &[i16], change: impl FnMut(f64) -> f64) -> Vec<i16> {
    let changed = samples.iter().map(|&s| f64::from(s)).map(change);
    changed
        .map(|s| s.clamp(-32_768.0, 32_767.0) as i16)
        .collect()
}

fn louder(samples: &[i16], gain: f64) -> Vec<i16> {
    each(samples, |s| s * gain)
}

/// Adds white noise this many decibels below the mean loudness of the samples.
fn noisy(samples: &[i16], below_db: f64) -> Vec<i16> {
    let level = wav::rms(samples) * 32_767.0 * 10f64.powf(-below_db / 20.0);
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut uniform = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as f64 / u64::MAX as f64 * 2.0 - 1.0
    };
    // Uniform noise of amplitude 1 has the root mean square 1/√3.
    each(samples, |s| s + uniform() * level * 3f64.sqrt())
}

/// Read at another speed, between the samples: `ratio` of 0.5 gives twice as many.
fn resampled(samples: &[i16], ratio: f64) -> Vec<i16> {
    let count = (samples.len() as f64 / ratio) as usize;
    let at = |index: usize| f64::from(samples.get(index).copied().unwrap_or_default());
    let sample = |index: usize| {
        let place = index as f64 * ratio;
        let (before, part) = (place as usize, place.fract());
        (at(before) * (1.0 - part) + at(before + 1) * part) as i16
    };
    (0..count).map(sample).collect()
}

/// Without what is below about 200 Hz, as after the filter before an echo canceller.
fn thin(samples: &[i16]) -> Vec<i16> {
    let (mut before, mut out) = (0.0, 0.0);
    each(samples, |s| {
        out = 0.95 * (out + s - before);
        before = s;
        out
    })
}

#[test]
fn each_clip_is_known_however_it_comes() {
    for clip in ALL {
        let spoken = samples(clip);
        let check = |how: &str, heard: &[i16]| {
            assert_eq!(transcript(heard), clip.text, "{}, {how}", clip.name);
        };
        check("as it is", &spoken);
        for (before, after) in [(7200, 12_000), (101, 13), (24_000, 0), (7333, 12_111)] {
            check("in silence", &padded(before, &spoken, after));
        }
        let line = padded(7333, &spoken, 12_111);
        for gain in [0.2, 0.5, 1.4] {
            check(&format!("gain {gain}"), &louder(&line, gain));
        }
        for below_db in [30.0, 20.0, 15.0] {
            check(
                &format!("noise {below_db} dB below"),
                &noisy(&line, below_db),
            );
        }
        let at_48_khz = resampled(&line, 0.5);
        check("by way of 48 kHz", &resampled(&at_48_khz[1..], 2.0));
        let at_44_khz = resampled(&line, 24.0 / 44.1);
        check("by way of 44.1 kHz", &resampled(&at_44_khz, 44.1 / 24.0));
        for drift in [0.998, 1.002] {
            check(
                &format!("a clock that drifts by {drift}"),
                &resampled(&line, drift),
            );
        }
        check("without its bass", &thin(&line));
        check("without its start", &line[7333 + spoken.len() / 8..]);
        check("without its end", &line[..7333 + spoken.len() * 7 / 8]);
        for format in [Format::Ulaw, Format::Alaw] {
            let received = format.decode(&format.encode(&line)).unwrap();
            check(&format!("by telephone, {format:?}"), &received);
        }
        let all = noisy(&louder(&thin(&resampled(&line, 1.001)), 0.4), 20.0);
        check("all of it", &all);
    }
}

#[test]
fn clips_are_far_from_each_other() {
    for (clip, print) in known() {
        for other in ALL.into_iter().filter(|other| other != clip) {
            let likeness = likeness(print, &Print::of(&samples(other)));
            assert!(
                likeness < SAME - 0.1,
                "{} and {}: {likeness}",
                clip.name,
                other.name
            );
        }
    }
}

#[test]
fn anything_else_is_described() {
    let check = |heard: &[i16], expected: &str| assert_eq!(transcript(heard), expected);
    let backwards: Vec<i16> = question().into_iter().rev().collect();
    check(&backwards, "(1.8 seconds of speech)");
    check(&question()[..24_000], "(1.0 seconds of speech)");
    let twice = padded(0, &[question(), question()].concat(), 0);
    check(&twice, "(3.9 seconds of speech)");
    let tone: Vec<i16> = (0..24_000)
        .map(|i| (8_000.0 * (f64::from(i) * 0.1).sin()) as i16)
        .collect();
    check(&tone, "(1.0 seconds of speech)");
    check(&noisy(&tone, -10.0), "(1.0 seconds of speech)");
    let (_, minute) = clips::count().unwrap();
    check(minute.samples(), "(59.4 seconds of speech)");
    check(&minute.samples()[..72_000], "(2.3 seconds of speech)");
    check(&[0; 24_000], "");
    check(&[], "");
}

#[test]
fn pieces_of_every_length_are_heard() {
    let spoken = question();
    for length in [1, FRAME - 1, FRAME, FRAME + 1, 2 * FRAME + 1] {
        transcript(&spoken[10_000..10_000 + length]);
    }
}
