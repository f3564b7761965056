//! What can be told about instances and listeners to whoever asks.

use super::backoff::is_failure;
use super::instance::Slot;
use super::machine::Core;
use super::state::State;
use super::time::Mono;
use super::types::{Edition, InstanceId, LastEnd, ListenerCondition, Phase, Role};
use crate::config::RestartPolicy;
use crate::plan::{ListenerId, WorkerId};

/// An instance, as it is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// Its state.
    pub state: State,
    /// Since when it is in a state of that kind.
    pub since: Mono,
    /// Whether its process has said that it reads its configuration again, and not yet that it has.
    pub reloading: bool,
    /// How often it was started again.
    pub restarts: u64,
    /// How its last process ended.
    pub last_end: Option<LastEnd>,
    /// Whether it has ended badly and is not started again, as its restart policy says and nobody has
    /// asked for.
    pub failed: bool,
    /// What it is to its worker.
    pub role: Role,
}

impl Core {
    /// What there is to tell about an instance, or a connection that is open.
    pub fn facts(&self, instance: InstanceId) -> Option<Facts> {
        let slot = &self.slots[self.find(instance)?];
        Some(Facts {
            state: slot.state,
            since: slot.since,
            reloading: slot.reloading,
            restarts: slot.starts.saturating_sub(1),
            last_end: slot.last_end,
            failed: self.is_left_failed(slot),
            role: slot.role,
        })
    }

    fn is_left_failed(&self, slot: &Slot) -> bool {
        let restart = &slot.life.restart;
        let is_left = slot.state == State::Stopped
            && restart.policy == RestartPolicy::Never
            && self.ctx.phase == Phase::Running
            && !self.is_stopped(slot.instance.worker);
        let badly = match slot.last_end {
            Some(LastEnd::Exited { status, cause, .. }) => {
                cause.is_some() || is_failure(status, restart)
            }
            Some(LastEnd::NotLaunched { .. } | LastEnd::NotPrepared { .. }) => true,
            None => false,
        };
        is_left && badly
    }

    /// How the start of an instance ended whose command after the end runs; `None` if it was
    /// cancelled before there was a program.
    pub fn ended(&self, instance: InstanceId) -> Option<LastEnd> {
        self.slots[self.find(instance)?].this_end
    }

    /// A worker's own instances, in order, without its connections; then the candidates for their
    /// places, and those on their way out.
    pub fn instances_of(&self, worker: WorkerId) -> impl Iterator<Item = InstanceId> + '_ {
        let known = self.workers.get(worker);
        let slots = known.map_or(&[][..], |known| known.slots.as_slice());
        let others = known.map_or(&[][..], |known| known.others.as_slice());
        let all = slots.iter().chain(others);
        all.map(|index| self.slots[*index].instance)
    }

    /// How a listener is.
    pub fn listener_state(&self, listener: ListenerId) -> ListenerCondition {
        if self.listeners.is_missing(listener) {
            ListenerCondition::Missing
        } else if self.listeners.is_damaged(listener) {
            ListenerCondition::Damaged
        } else {
            ListenerCondition::Listening
        }
    }

    /// Whether everything is being stopped, or has been.
    pub fn is_stopping(&self) -> bool {
        self.ctx.phase >= Phase::Stopping
    }

    /// How many of a worker's instances have failed.
    pub fn failed(&self, worker: WorkerId) -> u32 {
        self.workers.get(worker).map_or(0, |known| known.failed)
    }

    /// Whether a worker was stopped by [`super::Command::Stop`], and stays so.
    pub fn is_stopped(&self, worker: WorkerId) -> bool {
        self.workers.get(worker).is_some_and(|known| known.stopped)
    }

    /// The definition by which a worker's instances are started; `None` if there is no such worker.
    pub fn edition(&self, worker: WorkerId) -> Option<Edition> {
        let known = self.workers.get(worker)?;
        (!known.removed).then_some(known.edition)
    }

    /// The worker's generation, from 1.
    pub fn generation(&self, worker: WorkerId) -> u32 {
        self.workers.get(worker).map_or(0, |known| known.generation)
    }
}
