//! The only place where time is read.

use crate::core::Mono;
use nix::time::{ClockId, clock_gettime};
use std::time::Duration;

/// CLOCK_REALTIME, since the epoch: for people and for other machines, not to reckon with.
pub fn wall() -> Duration {
    // As below: this call does not fail.
    let time = clock_gettime(ClockId::CLOCK_REALTIME);
    time.map_or(Duration::ZERO, |time| {
        Duration::new(
            u64::try_from(time.tv_sec()).unwrap_or(0),
            u32::try_from(time.tv_nsec()).unwrap_or(0),
        )
    })
}

/// CLOCK_MONOTONIC: does not jump when somebody sets the wall clock.
pub fn now() -> Mono {
    // The call cannot fail for this clock, which every Linux has (clock_gettime(2)); should it do
    // so all the same, time stands still and deadlines wait for the next event.
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC);
    time.map_or(Mono(0), |time| {
        Mono(time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64)
    })
}

/// When something was that came so many ticks of the kernel after the boot (proc_pid_stat(5)), by [`now`].
pub fn at_ticks(ticks: u64) -> Mono {
    let boot = clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from);
    let age = boot.saturating_sub(since_boot(ticks));
    let age = u64::try_from(age.as_nanos()).unwrap_or(u64::MAX);
    Mono(now().0.saturating_sub(age))
}

/// So many ticks of the kernel.
pub fn since_boot(ticks: u64) -> Duration {
    Duration::from_millis(ticks.saturating_mul(1000) / procfs::ticks_per_second().max(1))
}
