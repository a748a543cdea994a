//! What the simulator "understands": it knows the bundled clips by their sound, and describes anything else by its
//! length.
//!
//! A recording's print is the loudness of eight bands of speech, every 10 ms, in decibels. Comparing prints by their
//! correlation makes the answer independent of gain, equaliser and noise well below the speech; sliding one along the
//! other, of where the recording begins. A browser's microphone changes all of these, and cuts the beginning off.

use std::f64::consts::PI;
use std::sync::OnceLock;

use crate::clips::{self, Clip};
use crate::wav;

const RATE_HZ: f64 = 24_000.0;
/// 10 ms at 24 kHz.
const FRAME: usize = 240;
/// Below this a frame is silence: -40 dBFS.
const QUIET: f64 = 0.01;
/// The middles of the bands, which end where a telephone's do.
const BANDS_HZ: [f64; 8] = [250.0, 400.0, 600.0, 850.0, 1200.0, 1700.0, 2400.0, 3200.0];
const BAND_Q: f64 = 2.5;
/// What is this much softer than the loudest moment is not looked at.
const RANGE_DB: f64 = 28.0;
/// Correlation from which two prints are of the same recording. The tests' worst copy of a clip has 0.97, their best
/// confusion of two 0.60.
const SAME: f64 = 0.8;
/// Share of a clip's energy that must have been heard, and share of what was heard that must be the clip's.
const COVERED: f64 = 0.65;
const OWN: f64 = 0.85;
/// Frames from one place to the next at which prints are first compared; speech is alike for longer than that.
const STRIDE: usize = 3;
/// Longer recordings, in frames, are none of the clips.
const FRAMES_MAX: usize = 1_000;

/// The words of a recording, as its transcript says them.
pub(crate) fn transcript(samples: &[i16]) -> String {
    let spoken = spoken_frames(samples);
    if spoken == 0 {
        return String::new();
    }
    match recognise(samples) {
        Some(clip) => clip.text.to_owned(),
        None => format!("({:.1} seconds of speech)", spoken as f64 / 100.0),
    }
}

/// The clip that a recording is a recording of.
fn recognise(samples: &[i16]) -> Option<&'static Clip> {
    if samples.len() > FRAMES_MAX * FRAME {
        return None;
    }
    let heard = Print::of(samples);
    let likeness = |(clip, print): &'static (Clip, Print)| (likeness(print, &heard), clip);
    let (best, clip) = known()
        .iter()
        .map(likeness)
        .max_by(|(one, _), (other, _)| one.total_cmp(other))?;
    (best > SAME).then_some(clip)
}

fn known() -> &'static [(Clip, Print)] {
    static KNOWN: OnceLock<Vec<(Clip, Print)>> = OnceLock::new();
    KNOWN.get_or_init(|| {
        let parsed = clips::ALL
            .into_iter()
            .filter_map(|clip| Some((clip, clip.wav().ok()?)));
        parsed
            .map(|(clip, wav)| (clip, Print::of(wav.samples())))
            .collect()
    })
}

/// Frames from the first that is not silence to the last.
fn spoken_frames(samples: &[i16]) -> usize {
    let loud = |&s: &i16| f64::from(s).abs() > QUIET * f64::from(i16::MAX);
    let Some(first) = samples.iter().position(loud) else {
        return 0;
    };
    // Frames start at the first loud sample, so that silence before it does not shift them.
    let mut levels = samples[first..].chunks(FRAME).map(wav::rms);
    let frames = levels.len();
    let quiet_tail = levels.by_ref().rev().take_while(|&level| level <= QUIET);
    frames - quiet_tail.count()
}

/// The sound of a recording: see the module.
struct Print {
    /// Of each frame and band, in decibels below the loudest, no less than [`RANGE_DB`].
    levels: Vec<[f64; BANDS_HZ.len()]>,
    /// Sum of the energies up to the start of each frame, and up to the end; the whole being 1.
    energy_before: Vec<f64>,
}

impl Print {
    fn of(samples: &[i16]) -> Self {
        let mut energies = vec![[0.0; BANDS_HZ.len()]; samples.len().div_ceil(FRAME)];
        for (band, &middle_hz) in BANDS_HZ.iter().enumerate() {
            let mut filter = BandPass::new(middle_hz);
            for (frame, samples) in samples.chunks(FRAME).enumerate() {
                let energy = samples.iter().map(|&s| filter.pass(f64::from(s)).powi(2));
                energies[frame][band] = energy.sum();
            }
        }
        // Windows of two frames make it matter less where frames begin.
        for frame in (1..energies.len()).rev() {
            let before = energies[frame - 1];
            for (energy, before) in energies[frame].iter_mut().zip(before) {
                *energy += before;
            }
        }
        let loudest = energies.iter().flatten().copied().fold(1.0, f64::max);
        let decibels = |energy: f64| (10.0 * (energy / loudest).max(1e-9).log10()).max(-RANGE_DB);
        let mut energy_before = vec![0.0];
        for frame in &energies {
            let so_far = energy_before.last().copied().unwrap_or_default();
            energy_before.push(so_far + frame.iter().sum::<f64>());
        }
        let whole = energy_before.last().copied().unwrap_or_default().max(1.0);
        energy_before.iter_mut().for_each(|energy| *energy /= whole);
        Self {
            levels: energies.iter().map(|bands| bands.map(decibels)).collect(),
            energy_before,
        }
    }

    fn frames(&self) -> usize {
        self.levels.len()
    }

    /// Share of the energy that lies in `count` frames from `start` on.
    fn share(&self, start: usize, count: usize) -> f64 {
        self.energy_before[start + count] - self.energy_before[start]
    }
}

/// How alike two prints are where they are most alike: a correlation, 0 if they nowhere share enough to tell.
fn likeness(clip: &Print, heard: &Print) -> f64 {
    // Frame 0 of what was heard stands at frame `place - heard.frames()` of the clip.
    let last = heard.frames() + clip.frames();
    let at = |place: usize| {
        let clip_from = place.saturating_sub(heard.frames());
        let heard_from = heard.frames().saturating_sub(place);
        overlap_likeness(clip, clip_from, heard, heard_from)
    };
    let (roughly, place) = (0..last)
        .step_by(STRIDE)
        .map(|place| (at(place), place))
        .max_by(|(one, _), (other, _)| one.total_cmp(other))
        .unwrap_or_default();
    let near = place.saturating_sub(STRIDE - 1)..last.min(place + STRIDE);
    near.map(at).fold(roughly, f64::max)
}

fn overlap_likeness(clip: &Print, clip_from: usize, heard: &Print, heard_from: usize) -> f64 {
    let count = (clip.frames() - clip_from).min(heard.frames() - heard_from);
    if clip.share(clip_from, count) < COVERED || heard.share(heard_from, count) < OWN {
        return 0.0;
    }
    let one = &clip.levels[clip_from..clip_from + count];
    let other = &heard.levels[heard_from..heard_from + count];
    let (mut product, mut square_one, mut square_other) = (0.0, 0.0, 0.0);
    for band in 0..BANDS_HZ.len() {
        let mean = |levels: &[[f64; BANDS_HZ.len()]]| {
            levels.iter().map(|bands| bands[band]).sum::<f64>() / count as f64
        };
        let (mean_one, mean_other) = (mean(one), mean(other));
        for (a, b) in one.iter().zip(other) {
            let (a, b) = (a[band] - mean_one, b[band] - mean_other);
            product += a * b;
            square_one += a * a;
            square_other += b * b;
        }
    }
    let scale = (square_one * square_other).sqrt();
    if scale > 0.0 { product / scale } else { 0.0 }
}

/// A band-pass filter of second order (R. Bristow-Johnson, "Cookbook formulae for audio EQ biquad filter
/// coefficients": BPF with constant peak gain).
struct BandPass {
    b0: f64,
    a1: f64,
    a2: f64,
    /// The last two inputs and outputs.
    x: [f64; 2],
    y: [f64; 2],
}

impl BandPass {
    fn new(middle_hz: f64) -> Self {
        let omega = 2.0 * PI * middle_hz / RATE_HZ;
        let alpha = omega.sin() / (2.0 * BAND_Q);
        Self {
            b0: alpha / (1.0 + alpha),
            a1: -2.0 * omega.cos() / (1.0 + alpha),
            a2: (1.0 - alpha) / (1.0 + alpha),
            x: [0.0; 2],
            y: [0.0; 2],
        }
    }

    fn pass(&mut self, sample: f64) -> f64 {
        // b1 is 0 and b2 is -b0.
        let out = self.b0 * (sample - self.x[1]) - self.a1 * self.y[0] - self.a2 * self.y[1];
        self.x = [sample, self.x[0]];
        self.y = [out, self.y[0]];
        out
    }
}

#[cfg(test)]
mod tests;
