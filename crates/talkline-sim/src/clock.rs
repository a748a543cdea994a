//! What time it is, on whichever clock is ahead.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// The wall clock, or the runtime's clock since the start where that is ahead.
///
/// The runtime's is ahead when a test advances paused time, and tokens are to age with it; the wall clock is ahead
/// after the machine slept, and they are to age with that too.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    started: Duration,
    ticking_since: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self {
            started: wall(),
            ticking_since: Instant::now(),
        }
    }

    pub(crate) fn now_unix(&self) -> u64 {
        let ticked = self.started + self.ticking_since.elapsed();
        ticked.max(wall()).as_secs()
    }
}

fn wall() -> Duration {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default()
}
