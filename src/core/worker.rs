//! A worker: what it is, and all that is its.

use super::connections::Connections;
use super::gate::Gate;
use super::rollout::Target;
use super::state::State;
use super::types::{Degraded, Edition};
use crate::plan::{Lifecycle, WorkerId};
use std::collections::BTreeMap;
use std::ops::{Index, IndexMut};
use std::sync::Arc;

/// All workers by their numbers.
#[derive(Debug, Clone, Default)]
pub(super) struct Workers(pub(super) BTreeMap<WorkerId, Worker>);

impl Workers {
    pub(super) fn get(&self, id: WorkerId) -> Option<&Worker> {
        self.0.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: WorkerId) -> Option<&mut Worker> {
        self.0.get_mut(&id)
    }

    pub(super) fn ids(&self) -> Vec<WorkerId> {
        self.0.keys().copied().collect()
    }
}

impl Index<WorkerId> for Workers {
    type Output = Worker;

    fn index(&self, id: WorkerId) -> &Worker {
        &self.0[&id]
    }
}

impl IndexMut<WorkerId> for Workers {
    fn index_mut(&mut self, id: WorkerId) -> &mut Worker {
        // A worker is there as long as anything names it, as an element of a vector would be.
        #[expect(clippy::expect_used, reason = "as indexing does")]
        self.0.get_mut(&id).expect("a worker that is there")
    }
}

#[derive(Debug, Clone)]
pub(super) struct Worker {
    /// How an instance that is started now lives.
    pub(super) lifecycle: Arc<Lifecycle>,
    /// By which definition it is started.
    pub(super) edition: Edition,
    /// Its instances, as indices into [`Core::slots`].
    pub(super) slots: Vec<usize>,
    /// The candidates for their places, and those on their way out.
    pub(super) others: Vec<usize>,
    /// Somebody has stopped it.
    pub(super) stopped: bool,
    /// It is no longer there, but for what is on its way out.
    pub(super) removed: bool,
    /// That nothing is left of it was told.
    pub(super) gone: bool,
    /// Definitions before the present one may still be needed, and are to be retired.
    pub(super) outdated: bool,
    /// How many instances there are to be when no rollout is under way.
    pub(super) wanted: u32,
    /// The generation that serves.
    pub(super) generation: u32,
    /// The latest there was.
    pub(super) last_generation: u32,
    /// What went wrong with the last rollout.
    pub(super) degraded: Option<Degraded>,
    /// What the configuration in force says, if a rollout to it went back.
    pub(super) given_up: Option<Target>,
    /// How many of its instances have failed.
    pub(super) failed: u32,
    /// How many of its instances and connections are in which states.
    pub(super) counts: Counts,
    /// What is between it and its clients; without meaning for an eager one.
    pub(super) gate: Gate,
    /// The connections that listend accepts for it.
    pub(super) connections: Connections,
}

/// How many instances and connections of a worker are in some states; kept by
/// [`Core::become_state`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Counts {
    /// In [`State::Waiting`].
    pub(super) waiting: u32,
    /// In [`State::Preparing`] and [`State::Starting`].
    pub(super) starting: u32,
    /// In [`State::Starting`], [`State::Activating`], [`State::Running`], [`State::Stopping`], and
    /// in the two in which a command runs before or after.
    pub(super) with_process: u32,
    /// In [`State::Backoff`].
    pub(super) resting: u32,
}

impl Counts {
    /// Counts one more in this state, or one less.
    pub(super) fn change(&mut self, state: State, by: i32) {
        let add = |count: &mut u32| *count = count.saturating_add_signed(by);
        match state {
            State::Waiting => add(&mut self.waiting),
            State::Preparing { .. } | State::Starting { .. } => {
                add(&mut self.starting);
                add(&mut self.with_process);
            }
            State::Activating { .. }
            | State::Running { .. }
            | State::Stopping { .. }
            | State::Cleaning { .. } => add(&mut self.with_process),
            State::Backoff { .. } => add(&mut self.resting),
            State::Failed { .. } | State::Stopped => {}
        }
    }
}
