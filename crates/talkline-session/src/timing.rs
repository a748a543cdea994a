//! Times that an operator watches: how long pings take, how soon the model answers, how soon it falls
//! silent when it is interrupted.
//!
//! Each is told when it is known, and that is seldom beside the frames that pass, so that nothing is kept for it and
//! nothing is done per frame beyond a look at a type that is known anyway.

use std::fmt;
use std::time::{Duration, Instant};

use talkline_frame::EventType;

use crate::Side;

/// One measured time of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timing {
    /// From a ping that went out to the pong of that side.
    PingRoundTrip(Side, Duration),
    /// From the end of the user's speech, or of a committed turn, to the first audio of the answer, as
    /// both pass the relay.
    SpeechToAudio(Duration),
    /// From an interruption (speech that starts over the answer, or the client's `response.cancel`) to
    /// the last audio of the answer that it cut off; zero when no more audio came.
    CancelToSilence(Duration),
    /// From the moment when a session's bytes were read to the moment when they had been handed to the
    /// other side's socket: the time that the relay itself adds. A sample.
    Relayed(Duration),
}

/// Measures one session.
pub(crate) struct Stopwatch {
    observer: Box<dyn FnMut(Timing) + Send>,
    client_pinged: Option<Instant>,
    upstream_pinged: Option<Instant>,
    speech_ended: Option<Instant>,
    /// When the answer that is under way last sent audio.
    last_audio: Option<Instant>,
    cancelled: Option<Instant>,
}

/// A message whose moment counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cue {
    SpeechStarted,
    SpeechStopped,
    Committed,
    Audio,
    /// The client cuts the answer short.
    Cancelled,
    ResponseDone,
}

impl Cue {
    /// What a message of this type is; `None` for nearly all that a client sends.
    pub(crate) fn of(from: Side, event_type: EventType<'_>) -> Option<Self> {
        Some(match (from, event_type.name()?) {
            (Side::Upstream, "input_audio_buffer.speech_started") => Self::SpeechStarted,
            (Side::Upstream, "input_audio_buffer.speech_stopped") => Self::SpeechStopped,
            (Side::Upstream, "input_audio_buffer.committed") => Self::Committed,
            (Side::Upstream, "response.output_audio.delta" | "response.audio.delta") => Self::Audio,
            (Side::Upstream, "response.done") => Self::ResponseDone,
            (Side::Client, "response.cancel" | "output_audio_buffer.clear") => Self::Cancelled,
            _ => return None,
        })
    }
}

impl Stopwatch {
    pub(crate) fn new(observer: impl FnMut(Timing) + Send + 'static) -> Self {
        Self {
            observer: Box::new(observer),
            client_pinged: None,
            upstream_pinged: None,
            speech_ended: None,
            last_audio: None,
            cancelled: None,
        }
    }

    pub(crate) fn on_ping_sent(&mut self, to: Side, now: Instant) {
        self.pinged(to).get_or_insert(now);
    }

    pub(crate) fn on_pong(&mut self, from: Side, now: Instant) {
        if let Some(sent) = self.pinged(from).take() {
            self.tell(Timing::PingRoundTrip(
                from,
                now.saturating_duration_since(sent),
            ));
        }
    }

    pub(crate) fn on_relayed(&mut self, took: Duration) {
        self.tell(Timing::Relayed(took));
    }

    pub(crate) fn on_cue(&mut self, cue: Cue, now: Instant) {
        match cue {
            Cue::SpeechStarted => {
                self.speech_ended = None;
                self.cancel(now);
            }
            Cue::Cancelled => self.cancel(now),
            Cue::SpeechStopped => self.speech_ended = Some(now),
            Cue::Committed => {
                self.speech_ended.get_or_insert(now);
            }
            Cue::Audio => {
                self.last_audio = Some(now);
                if let Some(ended) = self.speech_ended.take() {
                    self.tell(Timing::SpeechToAudio(now.saturating_duration_since(ended)));
                }
            }
            Cue::ResponseDone => {
                let last_audio = self.last_audio.take();
                if let (Some(cancelled), Some(last)) = (self.cancelled.take(), last_audio) {
                    let silent_after = last.saturating_duration_since(cancelled);
                    self.tell(Timing::CancelToSilence(silent_after));
                }
            }
        }
    }

    /// Only an answer that is being spoken can be interrupted.
    fn cancel(&mut self, now: Instant) {
        if self.last_audio.is_some() {
            self.cancelled.get_or_insert(now);
        }
    }

    fn pinged(&mut self, side: Side) -> &mut Option<Instant> {
        match side {
            Side::Client => &mut self.client_pinged,
            Side::Upstream => &mut self.upstream_pinged,
        }
    }

    fn tell(&mut self, timing: Timing) {
        (self.observer)(timing);
    }
}

impl fmt::Debug for Stopwatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Stopwatch")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Plays `(millisecond, side, event)` and returns what was measured.
    fn check(events: &[(u64, Side, &str)], expected: &[Timing]) {
        #[expect(
            clippy::disallowed_methods,
            reason = "an Instant has no other constructor"
        )]
        let start = Instant::now();
        let (sender, receiver) = mpsc::channel();
        let mut watch = Stopwatch::new(move |timing| sender.send(timing).unwrap());
        for (at, side, event) in events {
            let now = start + Duration::from_millis(*at);
            match *event {
                "ping" => watch.on_ping_sent(*side, now),
                "pong" => watch.on_pong(*side, now),
                name => {
                    let cue = Cue::of(*side, EventType::Found(name));
                    watch.on_cue(cue.expect(name), now);
                }
            }
        }
        drop(watch);
        assert_eq!(receiver.iter().collect::<Vec<_>>(), expected);
    }

    const AUDIO: &str = "response.output_audio.delta";
    const STARTED: &str = "input_audio_buffer.speech_started";
    const STOPPED: &str = "input_audio_buffer.speech_stopped";
    const COMMITTED: &str = "input_audio_buffer.committed";

    fn millis(number: u64) -> Duration {
        Duration::from_millis(number)
    }

    #[test]
    fn a_pong_is_measured_from_its_ping_and_an_unasked_one_not_at_all() {
        let trip = Timing::PingRoundTrip(Side::Client, millis(40));
        check(
            &[
                (0, Side::Client, "pong"),
                (10, Side::Client, "ping"),
                (20, Side::Upstream, "pong"),
                (50, Side::Client, "pong"),
                (60, Side::Client, "pong"),
            ],
            &[trip],
        );
    }

    #[test]
    fn an_answer_is_measured_from_the_end_of_speech_to_its_first_audio() {
        use Side::Upstream as U;
        let turn = [
            (0, U, STARTED),
            (900, U, STOPPED),
            (905, U, COMMITTED),
            (1300, U, AUDIO),
            (1400, U, AUDIO),
            (1500, U, "response.done"),
        ];
        check(&turn, &[Timing::SpeechToAudio(millis(400))]);
        // Push to talk has no speech events; the turn is committed.
        let manual = [(0, U, COMMITTED), (70, U, "response.audio.delta")];
        check(&manual, &[Timing::SpeechToAudio(millis(70))]);
        // More speech before the answer starts the count anew.
        let resumed = [(0, U, STOPPED), (50, U, STARTED), (90, U, AUDIO)];
        check(&resumed, &[]);
    }

    #[test]
    fn silence_is_measured_from_the_interruption_to_the_last_audio() {
        use Side::{Client as C, Upstream as U};
        let late = [
            (0, U, AUDIO),
            (10, C, "response.cancel"),
            (35, U, AUDIO),
            (50, U, "response.done"),
        ];
        check(&late, &[Timing::CancelToSilence(millis(25))]);
        let at_once = [(0, U, AUDIO), (10, U, STARTED), (50, U, "response.done")];
        check(&at_once, &[Timing::CancelToSilence(millis(0))]);
        // Nobody spoke: nothing was interrupted.
        let idle = [
            (0, U, STARTED),
            (5, C, "response.cancel"),
            (9, U, "response.done"),
        ];
        check(&idle, &[]);
    }
}
