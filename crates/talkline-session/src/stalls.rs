//! How often and how long one side is not read, because the other one does not keep up.

use std::time::{Duration, Instant};

/// What one side had to wait for the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stalls {
    /// How often the relay stopped reading from the side.
    pub count: u64,
    /// How long it did not read, all stalls together.
    pub time: Duration,
    /// Bytes from the side that the other one did not take at once and that waited in the relay.
    pub spilled_bytes: u64,
}

/// Counts the stalls of one side.
#[derive(Debug, Default)]
pub(crate) struct StallClock {
    sum: Stalls,
    state: State,
}

/// The time of a pause is taken at the next look at the clock, which the caller makes in the same
/// breath.
#[derive(Debug, Default)]
enum State {
    #[default]
    Reads,
    Paused,
    Since(Instant),
}

impl StallClock {
    pub(crate) fn spilled(&mut self, bytes: u64) {
        self.sum.spilled_bytes += bytes;
    }

    pub(crate) fn pause(&mut self) {
        if matches!(self.state, State::Reads) {
            self.sum.count += 1;
            self.state = State::Paused;
        }
    }

    pub(crate) fn look(&mut self, now: Instant) {
        if matches!(self.state, State::Paused) {
            self.state = State::Since(now);
        }
    }

    pub(crate) fn resume(&mut self, now: Instant) {
        if let State::Since(since) = std::mem::take(&mut self.state) {
            self.sum.time += now.saturating_duration_since(since);
        }
    }

    pub(crate) fn into_sum(mut self, now: Instant) -> Stalls {
        self.resume(now);
        self.sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stall_lasts_from_the_pause_to_the_resume_or_the_end() {
        #[expect(
            clippy::disallowed_methods,
            reason = "an Instant has no other constructor"
        )]
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut clock = StallClock::default();
        clock.pause();
        clock.pause();
        clock.look(at(10));
        clock.look(at(20));
        clock.resume(at(40));
        clock.resume(at(90));
        clock.spilled(7);
        clock.pause();
        clock.look(at(100));
        let sum = clock.into_sum(at(105));
        assert_eq!(
            sum,
            Stalls {
                count: 2,
                time: Duration::from_millis(35),
                spilled_bytes: 7
            }
        );
    }
}
