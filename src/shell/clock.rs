//! The only place where time is read.

use crate::core::Mono;
use nix::time::{ClockId, clock_gettime};

/// CLOCK_MONOTONIC: does not jump when somebody sets the wall clock.
pub fn now() -> Mono {
    // The call cannot fail for this clock, which every Linux has (clock_gettime(2)); should it do
    // so all the same, time stands still and deadlines wait for the next event.
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC);
    time.map_or(Mono(0), |time| {
        Mono(time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64)
    })
}

/// CLOCK_REALTIME in whole seconds since 1970: for people, never for a deadline.
pub fn wall() -> u64 {
    // As above; 1970 then.
    let time = clock_gettime(ClockId::CLOCK_REALTIME);
    time.map_or(0, |time| u64::try_from(time.tv_sec()).unwrap_or(0))
}
