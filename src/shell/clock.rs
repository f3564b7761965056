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
