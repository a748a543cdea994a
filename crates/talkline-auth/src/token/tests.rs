//! The life of a token, on clocks of the tests' own.

use std::time::{Duration, Instant, SystemTime};

use super::*;

/// Where the tests' clocks begin.
#[expect(
    clippy::disallowed_methods,
    reason = "a test needs some instant to count from"
)]
pub(crate) fn start() -> Moment {
    Moment {
        monotonic: Instant::now(),
        wall: SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000),
    }
}
