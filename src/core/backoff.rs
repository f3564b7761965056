//! How long to wait before the next start, and when to give up.

use super::signals;
use super::time::Mono;
use super::types::ExitStatus;
use crate::config::{Rate, Restart, Success};
use std::collections::VecDeque;
use std::time::Duration;

/// An instance that ran its program this long is taken to be well: its next crash is the first
/// again. Where `backoff_max` is shorter, that is long enough: whoever restarts at most every
/// second does not want to wait ten until the delay shrinks.
pub const STABLE_AFTER: Duration = Duration::from_secs(10);

/// What an instance's past says about its next start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct History {
    /// Crashes since the instance last ran long enough; the exponent of the next delay.
    pub(super) consecutive: u32,
    /// The crashes that still count towards the limit, oldest first.
    pub(super) recent: VecDeque<Mono>,
}

impl History {
    /// The instance ran its program for this long.
    pub(super) fn ran(&mut self, uptime: Duration, restart: &Restart) {
        if uptime >= STABLE_AFTER.min(restart.backoff_max) {
            self.consecutive = 0;
        }
    }

    /// Counts a crash. `Err` holds the number of crashes in the interval if that is too many,
    /// `Ok` the delay before the next start.
    pub(super) fn crashed(
        &mut self,
        now: Mono,
        restart: &Restart,
        salt: u64,
    ) -> Result<Duration, u32> {
        if let Some(limit) = restart.limit {
            let crashes = self.count(now, limit);
            if crashes > limit.count {
                self.consecutive = self.consecutive.saturating_add(1);
                return Err(crashes);
            }
        }
        Ok(self.delayed(now, restart, salt))
    }

    /// Counts a failure to which no limit applies: only the delay grows.
    pub(super) fn delayed(&mut self, now: Mono, restart: &Restart, salt: u64) -> Duration {
        let delay = delay(restart, self.consecutive, now.0 ^ salt);
        self.consecutive = self.consecutive.saturating_add(1);
        delay
    }

    /// The instance has done its work: its next crash is the first again.
    pub(super) fn went_well(&mut self) {
        self.consecutive = 0;
    }

    /// Whether the last thing that happened was no crash.
    pub(super) fn is_well(&self) -> bool {
        self.consecutive == 0
    }

    /// Adds a crash to the sliding window, drops what has left it, and says how many are in it.
    /// Never holds more than one over the limit, because the caller stops there.
    fn count(&mut self, now: Mono, limit: Rate) -> u32 {
        self.recent.push_back(now);
        while let Some(oldest) = self.recent.front()
            && now.since(*oldest) > limit.interval
        {
            self.recent.pop_front();
        }
        u32::try_from(self.recent.len()).unwrap_or(u32::MAX)
    }
}

/// `backoff_min` doubled for each crash before this one, at most `backoff_max` (but never less
/// than `backoff_min`, should the two be the wrong way round). From the second on up to a quarter
/// is taken off, so that what crashed together for a common cause does not come back together.
fn delay(restart: &Restart, crashes_before: u32, seed: u64) -> Duration {
    let factor = 1_u32.checked_shl(crashes_before).unwrap_or(u32::MAX);
    let whole = restart
        .backoff_min
        .saturating_mul(factor)
        .min(restart.backoff_max)
        .max(restart.backoff_min);
    let off = (whole / 4).mul_f64(fraction(seed));
    whole.saturating_sub(off).max(restart.backoff_min)
}

/// Something from 0 to 1 that looks random (the finalizer of splitmix64): the core may not ask for
/// anything that is.
fn fraction(seed: u64) -> f64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    f64::from((z >> 32) as u32) / f64::from(u32::MAX)
}

/// Whether the program ended by itself, which counts towards the limit and lets the delay grow.
/// Exit status 0 does so too: it is asked about only where it leads to a restart, and a program
/// that returns at once would otherwise be started in a loop for ever.
pub(super) fn ended_by_itself(status: ExitStatus) -> bool {
    match status {
        ExitStatus::Code(_) => true,
        ExitStatus::Signal { number, .. } => !signals::is_sent(number),
        ExitStatus::Unknown => true,
    }
}

/// Whether the restart policy `on-failure` takes this for a failure.
pub fn is_failure(status: ExitStatus, restart: &Restart) -> bool {
    let fine = match status {
        ExitStatus::Code(code) => code == 0 || restart.success.contains(&Success::Code(code)),
        ExitStatus::Signal { number, .. } => {
            signals::is_clean(number) || restart.success.contains(&Success::Signal(number))
        }
        ExitStatus::Unknown => false,
    };
    !fine
}
