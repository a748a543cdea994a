//! Finds speech by its loudness. A real service uses a model; for clear recordings both agree.

use serde_json::Value;

use crate::wav;

/// 20 ms at 24 kHz.
const FRAME: usize = 480;
/// Loud frames in a row that count as speech: 60 ms, longer than a click.
const ONSET_FRAMES: u64 = 3;
pub(crate) const SAMPLES_PER_MS: u64 = 24;

/// Where speech begins or ends, as a count of samples from the start of the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Edge {
    Started(u64),
    Stopped(u64),
}

/// The settings that matter here, read from `turn_detection`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct VadSettings {
    /// Root mean square above which a frame is loud, full scale being 1.
    level: f64,
    prefix_samples: u64,
    silence_frames: u64,
}

impl VadSettings {
    /// Reads `turn_detection`; `None` if it is off.
    pub(crate) fn read(turn_detection: &Value) -> Option<Self> {
        let number = |name: &str| turn_detection.get(name).and_then(Value::as_f64);
        let silence_ms = match turn_detection.get("type")?.as_str()? {
            "none" => return None,
            "semantic_vad" => match turn_detection.get("eagerness").and_then(Value::as_str) {
                Some("low") => 1000.0,
                Some("high") => 300.0,
                _ => 500.0,
            },
            _ => number("silence_duration_ms").unwrap_or(500.0),
        };
        let prefix_ms = number("prefix_padding_ms")
            .unwrap_or(300.0)
            .clamp(0.0, 10_000.0);
        Some(Self {
            // The default threshold of 0.5 becomes -40 dBFS.
            level: 0.02 * number("threshold").unwrap_or(0.5).clamp(0.05, 1.0),
            prefix_samples: prefix_ms as u64 * SAMPLES_PER_MS,
            silence_frames: (silence_ms.clamp(20.0, 60_000.0) / 20.0) as u64,
        })
    }

    /// How much audio before the present may still become part of an utterance.
    pub(crate) fn lookback(&self) -> u64 {
        self.prefix_samples + ONSET_FRAMES * FRAME as u64
    }
}

/// Counts loud and quiet frames.
#[derive(Debug)]
pub(crate) struct Vad {
    settings: VadSettings,
    /// Samples that do not fill a frame yet.
    pending: Vec<i16>,
    /// Where the first pending sample stands.
    position: u64,
    speaking: bool,
    loud_frames: u64,
    quiet_frames: u64,
}

impl Vad {
    /// Begins to listen at `position`.
    pub(crate) fn new(settings: VadSettings, position: u64) -> Self {
        Self {
            settings,
            pending: Vec::new(),
            position,
            speaking: false,
            loud_frames: 0,
            quiet_frames: 0,
        }
    }

    pub(crate) fn settings(&self) -> &VadSettings {
        &self.settings
    }

    pub(crate) fn is_speaking(&self) -> bool {
        self.speaking
    }

    /// Forgets what was heard, as after a commit or clear.
    pub(crate) fn reset(&mut self) {
        self.speaking = false;
        self.loud_frames = 0;
        self.quiet_frames = 0;
    }

    /// Hears more audio; returns the edges in it, in order.
    pub(crate) fn hear(&mut self, samples: &[i16]) -> Vec<Edge> {
        self.pending.extend_from_slice(samples);
        let pending = std::mem::take(&mut self.pending);
        let (frames, rest) = pending.as_chunks::<FRAME>();
        let edges = frames
            .iter()
            .filter_map(|frame| self.frame(frame))
            .collect();
        self.pending = rest.to_vec();
        edges
    }

    fn frame(&mut self, frame: &[i16]) -> Option<Edge> {
        self.position += FRAME as u64;
        if wav::rms(frame) > self.settings.level {
            self.loud_frames += 1;
            self.quiet_frames = 0;
        } else {
            self.quiet_frames += 1;
            self.loud_frames = 0;
        }
        if !self.speaking && self.loud_frames == ONSET_FRAMES {
            self.speaking = true;
            return Some(Edge::Started(
                self.position.saturating_sub(self.settings.lookback()),
            ));
        }
        if self.speaking && self.quiet_frames == self.settings.silence_frames {
            self.speaking = false;
            return Some(Edge::Stopped(self.position));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const MS: u64 = SAMPLES_PER_MS;

    /// Hears spans of (loudness, milliseconds) in pieces of `piece` samples.
    fn edges(turn_detection: &Value, spans: &[(i16, u64)], piece: usize) -> Vec<Edge> {
        let mut vad = Vad::new(VadSettings::read(turn_detection).unwrap(), 0);
        let samples: Vec<i16> = spans
            .iter()
            .flat_map(|&(level, ms)| {
                (0..ms * MS).map(move |i| if i % 2 == 0 { level } else { -level })
            })
            .collect();
        samples
            .chunks(piece)
            .flat_map(|chunk| vad.hear(chunk))
            .collect()
    }

    #[test]
    fn speech_is_found_whatever_the_pieces() {
        let server_vad = json!({"type": "server_vad"});
        let spans = [(0, 1000), (5000, 400), (0, 200), (5000, 400), (0, 1000)];
        let expected = [Edge::Started(700 * MS), Edge::Stopped(2500 * MS)];
        for piece in [1, 479, 480, 960, 100_000] {
            assert_eq!(
                edges(&server_vad, &spans, piece),
                expected,
                "pieces of {piece}"
            );
        }
    }

    #[test]
    fn clicks_and_silence_are_not_speech() {
        let server_vad = json!({"type": "server_vad"});
        assert_eq!(
            edges(&server_vad, &[(0, 500), (9000, 40), (0, 900)], 960),
            []
        );
        assert_eq!(edges(&server_vad, &[(100, 3000)], 960), []);
    }

    #[test]
    fn settings_move_the_edges() {
        let spans = [(0, 400), (5000, 200), (0, 1200)];
        let check = |settings: Value, start_ms: u64, stop_ms: u64| {
            let expected = [Edge::Started(start_ms * MS), Edge::Stopped(stop_ms * MS)];
            assert_eq!(edges(&settings, &spans, 960), expected, "{settings}");
        };
        check(
            json!({"type": "server_vad", "prefix_padding_ms": 100}),
            300,
            1100,
        );
        check(
            json!({"type": "server_vad", "silence_duration_ms": 200}),
            100,
            800,
        );
        check(json!({"type": "semantic_vad"}), 100, 1100);
        check(
            json!({"type": "semantic_vad", "eagerness": "high"}),
            100,
            900,
        );
        check(
            json!({"type": "semantic_vad", "eagerness": "low"}),
            100,
            1600,
        );
        assert_eq!(VadSettings::read(&Value::Null), None);
        assert_eq!(VadSettings::read(&json!({"type": "none"})), None);
    }
}
