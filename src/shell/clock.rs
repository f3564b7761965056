//! The only place where time is read.

use crate::core::Mono;
use nix::time::{ClockId, clock_gettime};
use std::time::Duration;

/// CLOCK_MONOTONIC: does not jump when somebody sets the wall clock.
pub fn now() -> Mono {
    // The call cannot fail for this clock, which every Linux has (clock_gettime(2)); should it do
    // so all the same, time stands still and deadlines wait for the next event.
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC);
    time.map_or(Mono(0), |time| {
        Mono(time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64)
    })
}

/// CLOCK_REALTIME: the time of day, since 1970. Only to be shown.
pub fn wall() -> Duration {
    // As above. Before 1970 there was no listend.
    let time = clock_gettime(ClockId::CLOCK_REALTIME);
    time.map_or(Duration::ZERO, |time| {
        let seconds = u64::try_from(time.tv_sec()).unwrap_or_default();
        Duration::new(seconds, u32::try_from(time.tv_nsec()).unwrap_or_default())
    })
}
