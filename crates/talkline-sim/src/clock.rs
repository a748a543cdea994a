//! What time it is, on whichever clock is ahead.

use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A moment on both clocks, one for the whole process so that all of its fakes agree.
static MOMENT: LazyLock<(Duration, Instant)> = LazyLock::new(|| (wall(), Instant::now()));

/// Seconds since 1970 by the wall clock, or by the runtime's clock where that is ahead.
///
/// The runtime's is ahead where a test has advanced paused time, and tokens are to age with it; the wall clock is
/// ahead after the machine slept, and they are to age with that too.
#[must_use]
pub fn now_unix() -> u64 {
    let (wall_then, then) = *MOMENT;
    let now = tokio::time::Instant::now().into_std();
    let ticked = wall_then + now.saturating_duration_since(then);
    ticked.max(wall()).as_secs()
}

fn wall() -> Duration {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default()
}
