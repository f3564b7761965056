//! How a worker follows its queues.

use super::time::Mono;
use std::time::Duration;

/// The time between two looks at the queues.
pub const EVERY: Duration = Duration::from_secs(1);
/// How long clients have to wait before an instance is added.
pub const UP_AFTER: Duration = Duration::from_secs(3);
/// How long the queues have to be short before one is removed, at first.
pub const DOWN_AFTER: Duration = Duration::from_secs(60);
/// And at most.
pub const DOWN_AFTER_MAX: Duration = Duration::from_secs(30 * 60);

/// An instance was missed if it is added again so soon after it was removed.
pub const MISSED_WITHIN: Duration = Duration::from_secs(10 * 60);

/// How a worker follows its queues.
#[derive(Debug, Clone, Default)]
pub(super) struct Follows {
    /// Somebody has said how many instances there are to be.
    pub(super) is_overridden: bool,
    /// When the queues are looked at next.
    pub(super) look_at: Option<Mono>,
    /// Since when more wait than `scale_up_at`, and how many did then.
    pub(super) above: Option<(Mono, u64)>,
    /// Since when at most half of that wait.
    pub(super) below_since: Option<Mono>,
    /// When an instance was removed last.
    pub(super) removed_at: Option<Mono>,
    /// How often one was missed after that, less how often none was.
    pub(super) missed: u32,
}

impl Follows {
    /// How long the queues have to be short.
    pub(super) fn down_after(&self) -> Duration {
        let factor = 1_u32.checked_shl(self.missed).unwrap_or(u32::MAX);
        DOWN_AFTER.saturating_mul(factor).min(DOWN_AFTER_MAX)
    }

    /// An instance is added: was it missed since one was removed?
    pub(super) fn learn(&mut self, now: Mono) {
        let Some(at) = self.removed_at.take() else {
            return;
        };
        if now.since(at) >= MISSED_WITHIN {
            // One that was not does not make up for all that were.
            self.missed = self.missed.saturating_sub(1);
        } else if self.down_after() < DOWN_AFTER_MAX {
            self.missed += 1;
        }
    }
}
