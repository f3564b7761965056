//! Time as the core sees it: a number it is given.

use std::ops::Add;
use std::time::Duration;

/// Nanoseconds of CLOCK_MONOTONIC.
///
/// A number and not [`std::time::Instant`], so that it can be made up in tests and written down
/// when the daemon replaces itself: the clock goes on counting across execve(2).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mono(pub u64);

impl Mono {
    /// The time from `earlier` to this; zero if `earlier` is not earlier.
    pub fn since(self, earlier: Mono) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// Saturates at the end of time (584 years after boot), so that no configured duration can
/// overflow.
impl Add<Duration> for Mono {
    type Output = Mono;

    fn add(self, duration: Duration) -> Mono {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Mono(self.0.saturating_add(nanos))
    }
}
