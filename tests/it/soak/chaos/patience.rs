//! How long is too long on a machine that others use as well.

use std::fs;
use std::time::{Duration, Instant};

/// Waiting takes so many times as long at most.
const STRETCH: u32 = 5;

/// A moment, since which time passes while this machine has a processor for all who want one.
#[derive(Debug, Clone, Copy)]
pub struct Since {
    begun: Instant,
    stalled: Duration,
}

impl Since {
    pub fn now() -> Since {
        Since {
            begun: Instant::now(),
            stalled: stalled(),
        }
    }

    /// The time on the clock.
    pub fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    /// The time without that in which somebody waited for a processor.
    pub fn quiet(&self) -> Duration {
        let elapsed = self.elapsed();
        let stalled = stalled().saturating_sub(self.stalled);
        elapsed.saturating_sub(stalled).max(elapsed / STRETCH)
    }

    /// Whether so much quiet time has passed.
    pub fn is_over(&self, limit: Duration) -> bool {
        self.elapsed() >= limit && self.quiet() >= limit
    }

    /// A limit on the clock behind which [`Since::is_over`] says so for certain.
    pub fn at_most(limit: Duration) -> Duration {
        limit * STRETCH
    }
}

/// How long somebody has waited for a processor since the boot (Documentation/accounting/psi.rst); nothing where the
/// kernel does not say that.
fn stalled() -> Duration {
    let text = fs::read_to_string("/proc/pressure/cpu").unwrap_or_default();
    let total = text.lines().find_map(|line| {
        let rest = line.strip_prefix("some ")?;
        let total = rest
            .split(' ')
            .find_map(|word| word.strip_prefix("total="))?;
        total.parse().ok()
    });
    Duration::from_micros(total.unwrap_or(0))
}
