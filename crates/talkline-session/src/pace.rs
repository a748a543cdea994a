//! Speed: how much may come in a second, how long a peer may take to take or to go on.

use std::time::{Duration, Instant};

use crate::limits::{BURST_SECONDS, PROGRESS_BYTES, Rate};

/// Bytes that are worth a read of their own, once a client has used up its rate.
const READ_BYTES_MIN: u64 = 16 << 10;

/// A token bucket that holds [`BURST_SECONDS`] of its rate, filled when it starts.
#[derive(Debug)]
struct Bucket {
    per_second: u64,
    /// What is left, in millionths, so that a slow rate loses nothing to rounding.
    left: u64,
    filled: Instant,
}

const MILLION: u64 = 1_000_000;

impl Bucket {
    fn new(per_second: u64, now: Instant) -> Self {
        Self {
            per_second,
            left: Self::capacity(per_second),
            filled: now,
        }
    }

    const fn capacity(per_second: u64) -> u64 {
        per_second.saturating_mul(BURST_SECONDS as u64 * MILLION)
    }

    fn fill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.filled);
        let micros = u64::try_from(passed.as_micros()).unwrap_or(u64::MAX);
        let gained = micros.saturating_mul(self.per_second);
        self.left = self
            .left
            .saturating_add(gained)
            .min(Self::capacity(self.per_second));
        self.filled = now;
    }

    /// Takes what there is of `amount`; `false` when it was not enough.
    fn take(&mut self, amount: u64, now: Instant) -> bool {
        let amount = amount.saturating_mul(MILLION);
        if self.left < amount {
            self.fill(now);
        }
        let enough = self.left >= amount;
        self.left = self.left.saturating_sub(amount);
        enough
    }

    fn left(&self) -> u64 {
        self.left / MILLION
    }

    /// When the bucket will hold this much.
    fn due(&self, amount: u64) -> Instant {
        let missing = amount.saturating_mul(MILLION).saturating_sub(self.left);
        self.filled + Duration::from_micros(missing.div_ceil(self.per_second.max(1)))
    }
}

/// What a side may still send.
#[derive(Debug)]
pub(crate) struct Allowance {
    frames: Option<Bucket>,
    bytes: Option<Bucket>,
    /// When bytes will be read again.
    waits_until: Option<Instant>,
}

impl Allowance {
    pub(crate) fn new(rate: Rate, now: Instant) -> Self {
        let frames = rate.frames_max.map(u64::from);
        Self {
            frames: frames.map(|frames| Bucket::new(frames, now)),
            bytes: rate.bytes_max.map(|bytes| Bucket::new(bytes, now)),
            waits_until: None,
        }
    }

    /// Counts a frame; `false` when it is one too many.
    pub(crate) fn frame(&mut self, now: Instant) -> bool {
        let frames = self.frames.as_mut();
        frames.is_none_or(|frames| frames.take(1, now))
    }

    /// Counts bytes that were read.
    pub(crate) fn bytes(&mut self, bytes: u64, now: Instant) {
        if let Some(bucket) = &mut self.bytes {
            bucket.take(bytes, now);
        }
    }

    /// How many bytes may be read.
    pub(crate) fn readable(&mut self, now: Instant) -> usize {
        let Some(bucket) = &mut self.bytes else {
            return usize::MAX;
        };
        let worth = READ_BYTES_MIN.min(bucket.per_second);
        if bucket.left() < worth {
            bucket.fill(now);
        }
        if bucket.left() < worth {
            self.waits_until = Some(bucket.due(worth));
            return 0;
        }
        self.waits_until = None;
        usize::try_from(bucket.left()).unwrap_or(usize::MAX)
    }

    /// Forgets a wait that is over, so that it is no deadline any more.
    pub(crate) fn on_timeout(&mut self, now: Instant) {
        self.waits_until = self.waits_until.filter(|until| *until > now);
    }

    pub(crate) const fn waits_until(&self) -> Option<Instant> {
        self.waits_until
    }
}

/// How long a leg may take none of the bytes that wait for it.
#[derive(Debug, Default)]
pub(crate) struct Stall {
    since: Option<Instant>,
}

impl Stall {
    /// Bytes wait; `true` when none did before.
    pub(crate) fn blocked(&mut self, now: Instant) -> bool {
        let begins = self.since.is_none();
        self.since.get_or_insert(now);
        begins
    }

    pub(crate) fn progressed(&mut self, now: Instant) {
        if let Some(since) = &mut self.since {
            *since = now;
        }
    }

    pub(crate) const fn unblocked(&mut self) {
        self.since = None;
    }

    pub(crate) fn deadline(&self, timeout: Option<Duration>) -> Option<Instant> {
        Some(self.since? + timeout?)
    }
}

/// How long a leg may take to go on with a frame.
#[derive(Debug, Default)]
pub(crate) struct Trickle {
    since: Option<Mark>,
}

#[derive(Clone, Copy, Debug)]
struct Mark {
    at: Instant,
    /// Bytes read from the leg by then.
    bytes: u64,
}

impl Trickle {
    /// A frame is incomplete; `bytes` were read from the leg so far. `true` when none was before.
    pub(crate) fn pending(&mut self, bytes: u64, now: Instant) -> bool {
        let begins = self.since.is_none();
        match &mut self.since {
            Some(mark) if bytes.saturating_sub(mark.bytes) < PROGRESS_BYTES => {}
            since => *since = Some(Mark { at: now, bytes }),
        }
        begins
    }

    pub(crate) const fn whole(&mut self) {
        self.since = None;
    }

    /// The relay did not read from the leg, which was none of the leg's fault.
    pub(crate) fn excuse(&mut self, now: Instant) {
        if let Some(mark) = &mut self.since {
            mark.at = now;
        }
    }

    pub(crate) fn deadline(&self, timeout: Option<Duration>) -> Option<Instant> {
        Some(self.since?.at + timeout?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[expect(
        clippy::disallowed_methods,
        reason = "an Instant has no other constructor"
    )]
    fn start() -> Instant {
        Instant::now()
    }

    #[test]
    fn frames_come_at_their_rate_after_a_burst() {
        let start = start();
        let rate = Rate {
            frames_max: Some(50),
            bytes_max: None,
        };
        let mut allowance = Allowance::new(rate, start);
        for frame in 0..200 {
            assert!(allowance.frame(start), "{frame}");
        }
        assert!(!allowance.frame(start));
        for frame in 0..50 {
            assert!(allowance.frame(start + SECOND), "{frame}");
        }
        assert!(!allowance.frame(start + SECOND));
        // A long silence is worth no more than the burst.
        let later = start + 3600 * SECOND;
        assert_eq!((0..500).filter(|_| allowance.frame(later)).count(), 200);
    }

    #[test]
    fn bytes_wait_until_a_read_is_worth_it() {
        let start = start();
        let rate = Rate {
            frames_max: None,
            bytes_max: Some(100_000),
        };
        let mut allowance = Allowance::new(rate, start);
        assert_eq!(allowance.readable(start), 400_000);
        allowance.bytes(400_000, start);
        assert_eq!(allowance.readable(start), 0);
        let due = allowance.waits_until().unwrap();
        assert_eq!(due - start, Duration::from_micros(163_840));
        assert_eq!(allowance.readable(due), 16_384);
        assert_eq!(allowance.waits_until(), None);
    }

    #[test]
    fn a_rate_below_one_read_still_moves() {
        let start = start();
        let rate = Rate {
            frames_max: None,
            bytes_max: Some(1),
        };
        let mut allowance = Allowance::new(rate, start);
        allowance.bytes(4, start);
        assert_eq!(allowance.readable(start), 0);
        let due = allowance.waits_until().unwrap();
        assert_eq!((due - start, allowance.readable(due)), (SECOND, 1));
    }

    #[test]
    fn a_frame_has_to_go_on() {
        let start = start();
        let timeout = Some(30 * SECOND);
        let mut trickle = Trickle::default();
        assert_eq!(trickle.deadline(timeout), None);
        trickle.pending(100, start);
        trickle.pending(101, start + SECOND);
        assert_eq!(trickle.deadline(timeout), Some(start + 30 * SECOND));
        trickle.pending(100 + PROGRESS_BYTES, start + 2 * SECOND);
        assert_eq!(trickle.deadline(timeout), Some(start + 32 * SECOND));
        trickle.excuse(start + 10 * SECOND);
        assert_eq!(trickle.deadline(timeout), Some(start + 40 * SECOND));
        trickle.whole();
        assert_eq!(trickle.deadline(timeout), None);
    }
}
