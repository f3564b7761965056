//! What is between the sockets of a worker and its instances.

use super::time::Mono;
use super::types::RunId;
use super::window::Window;
use crate::plan::{ListenerId, SocketKey};
use std::collections::BTreeSet;
use std::time::Duration;

/// How often one worker's limits are told about.
pub(super) const TOLD_EVERY: Duration = Duration::from_secs(60);

/// What is between a worker and its clients.
#[derive(Debug, Clone, Default)]
pub(super) struct Gate {
    /// The sockets at which somebody waits and that are not watched.
    pub(super) parked: BTreeSet<(ListenerId, SocketKey)>,
    /// Shut until then, whatever else holds.
    pub(super) resume_at: Option<Mono>,
    /// The activations, or the connections, that count towards the rate limit.
    pub(super) recent: Window,
    /// The instance that ended, while the queue is being looked at.
    pub(super) looking: Option<RunId>,
    pub(super) told_rate: Told,
    pub(super) told_full: Told,
    pub(super) told_source: Told,
    pub(super) told_exhausted: Told,
    pub(super) told_failing: Told,
}

/// When something was told last.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Told(Option<Mono>);

impl Told {
    /// Whether it is time to tell it again.
    pub(super) fn again(&mut self, now: Mono) -> bool {
        let due = self.0.is_none_or(|last| now.since(last) >= TOLD_EVERY);
        if due {
            self.0 = Some(now);
        }
        due
    }
}
