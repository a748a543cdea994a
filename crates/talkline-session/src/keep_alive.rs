//! Pings of one leg, and how long their answers may take.

use std::time::{Duration, Instant};

/// The keep-alive clock of one leg.
#[derive(Debug)]
pub(crate) struct KeepAlive {
    /// In milliseconds, which take less room than a [`Duration`]. Zero for no pings.
    interval_ms: u32,
    timeout_ms: u32,
    next_ping: Instant,
    /// When the last byte came.
    heard: Instant,
    /// When the first ping was sent that no byte has followed.
    unanswered_since: Option<Instant>,
    /// The relay does not read from the leg, so its silence means nothing.
    paused: bool,
}

/// What the clock asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Alarm {
    Ping,
    Dead,
}

impl KeepAlive {
    pub(crate) fn new(interval: Option<Duration>, timeout: Duration, now: Instant) -> Self {
        // More than 49 days are as good as 49.
        let milliseconds = |time: Duration| u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
        Self {
            // A shorter one than a millisecond would be a busy loop, and is read as that.
            interval_ms: interval.map_or(0, |interval| milliseconds(interval).max(1)),
            timeout_ms: milliseconds(timeout),
            next_ping: now + interval.unwrap_or_default(),
            heard: now,
            unanswered_since: None,
            paused: false,
        }
    }

    /// Pings earlier than the interval says, by up to a fifth of it: sessions that began together do not
    /// ping together. `luck` is any number, best a random one.
    pub(crate) fn jitter(&mut self, luck: u32) {
        let fifth = u64::from(self.interval_ms / 5);
        let earlier = fifth * u64::from(luck) / u64::from(u32::MAX);
        // A fifth of a u32 is one.
        self.interval_ms -= earlier as u32;
        self.next_ping -= Duration::from_millis(earlier);
    }

    /// The peer showed that it lives.
    pub(crate) fn alive(&mut self, now: Instant) {
        self.heard = now;
        self.unanswered_since = None;
    }

    /// A ping went out. It counts from here: inside a long frame it may have had to wait.
    pub(crate) fn pinged(&mut self, now: Instant) {
        self.unanswered_since.get_or_insert(now);
    }

    /// When the last byte came.
    pub(crate) const fn heard(&self) -> Instant {
        self.heard
    }

    pub(crate) const fn is_paused(&self) -> bool {
        self.paused
    }

    pub(crate) fn pause(&mut self) {
        self.paused = true;
    }

    pub(crate) fn resume(&mut self, now: Instant) {
        if std::mem::take(&mut self.paused) {
            self.heard = now;
            self.unanswered_since = self.unanswered_since.map(|_| now);
        }
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.interval()?;
        Some(
            self.dead_at()
                .map_or(self.next_ping, |dead_at| dead_at.min(self.next_ping)),
        )
    }

    /// The alarm that is due; call again until there is none.
    pub(crate) fn due(&mut self, now: Instant) -> Option<Alarm> {
        let interval = self.interval()?;
        if self.dead_at().is_some_and(|dead_at| dead_at <= now) {
            return Some(Alarm::Dead);
        }
        if self.next_ping > now {
            return None;
        }
        // Counted from now: after a suspend of the machine one ping is due, not all that were missed.
        self.next_ping = now + interval;
        Some(Alarm::Ping)
    }

    fn interval(&self) -> Option<Duration> {
        let milliseconds = u64::from(self.interval_ms);
        (milliseconds > 0).then(|| Duration::from_millis(milliseconds))
    }

    fn dead_at(&self) -> Option<Instant> {
        if self.paused {
            return None;
        }
        let since = self.unanswered_since?;
        let grace_ms = match self.timeout_ms.saturating_sub(self.interval_ms) {
            0 => self.timeout_ms,
            left => left,
        };
        let grace = Duration::from_millis(grace_ms.into());
        let timeout = Duration::from_millis(self.timeout_ms.into());
        Some((since + grace).max(self.heard + timeout))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn clock() -> (KeepAlive, Instant) {
        #[expect(
            clippy::disallowed_methods,
            reason = "an Instant has no other constructor"
        )]
        let start = Instant::now();
        (KeepAlive::new(Some(15 * SECOND), 20 * SECOND, start), start)
    }

    #[test]
    fn silence_counts_from_the_last_byte_and_a_ping_has_its_time() {
        let (mut clock, start) = clock();
        assert_eq!(clock.due(start + 14 * SECOND), None);
        assert_eq!(clock.due(start + 15 * SECOND), Some(Alarm::Ping));
        assert_eq!(clock.due(start + 15 * SECOND), None);
        clock.pinged(start + 15 * SECOND);
        assert_eq!(clock.deadline(), Some(start + 20 * SECOND));
        assert_eq!(clock.due(start + 20 * SECOND), Some(Alarm::Dead));
        clock.alive(start + 20 * SECOND);
        assert_eq!(clock.due(start + 20 * SECOND), None);
        assert_eq!(clock.due(start + 30 * SECOND), Some(Alarm::Ping));
        // Inside a long frame the ping had to wait.
        clock.pinged(start + 42 * SECOND);
        assert_eq!(clock.due(start + 46 * SECOND), Some(Alarm::Ping));
        clock.pinged(start + 46 * SECOND);
        assert_eq!(clock.due(start + 47 * SECOND), Some(Alarm::Dead));
    }

    #[test]
    fn a_short_timeout_counts_from_the_ping() {
        let (_, start) = clock();
        let mut clock = KeepAlive::new(Some(15 * SECOND), 10 * SECOND, start);
        assert_eq!(clock.due(start + 15 * SECOND), Some(Alarm::Ping));
        clock.pinged(start + 15 * SECOND);
        assert_eq!(clock.deadline(), Some(start + 25 * SECOND));
    }

    #[test]
    fn a_pause_starts_the_count_again() {
        let (mut clock, start) = clock();
        clock.pinged(start);
        clock.pause();
        assert_eq!(clock.deadline(), Some(start + 15 * SECOND));
        clock.resume(start + 100 * SECOND);
        clock.resume(start + 110 * SECOND);
        assert_eq!(clock.due(start + 119 * SECOND), Some(Alarm::Ping));
        assert_eq!(clock.due(start + 120 * SECOND), Some(Alarm::Dead));
    }

    #[test]
    fn luck_makes_pings_earlier_by_up_to_a_fifth() {
        for (luck, want) in [(0, 15), (u32::MAX, 12)] {
            let (mut clock, start) = clock();
            clock.jitter(luck);
            assert_eq!(clock.deadline(), Some(start + want * SECOND), "{luck}");
            assert_eq!(clock.due(start + want * SECOND), Some(Alarm::Ping));
            assert_eq!(clock.deadline(), Some(start + 2 * want * SECOND), "{luck}");
        }
    }
}
