//! What has been replaced is watched for a while, because most releases that are bad live longer than
//! `min_ready`.
//!
//! While a rollout lasts, and for the time `watch` after it, a crash of an instance that the rollout
//! has started fails it: a program that ended by itself and not well, that could not be launched, or
//! that listend had to end. What is only watched counts as done: whoever asked has been answered,
//! commands for the worker are carried out, and another rollout goes back to it.
//!
//! A restart by the same definition is watched as long as it lasts only, and so is a definition whose
//! predecessor had sockets that are to be closed: there is nothing to go back to.

use super::machine::Core;
use super::rollout::Rollout;
use super::time::Mono;
use super::types::Role;
use crate::plan::{Activation, WorkerId};

impl Core {
    /// Whether a crash of an instance of the worker would fail a rollout, under way or over.
    pub fn is_watched(&self, worker: WorkerId) -> bool {
        self.rollouts.contains_key(&worker)
    }

    /// An instance has crashed. Whether that fails the rollout that has started it.
    pub(super) fn fails_rollout(&mut self, index: usize) -> bool {
        let slot = &self.slots[index];
        let worker = slot.instance.worker;
        let (edition, now) = (self.worker(index).edition, self.ctx.now);
        let Some(rollout) = self.rollouts.get_mut(&worker) else {
            return false;
        };
        let is_new = slot.role == Role::Instance
            && slot.edition == edition
            && slot.instance.generation >= rollout.generation;
        let is_over = rollout.watched.is_some_and(|until| until <= now);
        if rollout.back.is_some() || is_over || !is_new {
            return false;
        }
        rollout.crashed.get_or_insert(slot.instance);
        true
    }

    fn is_to_be_watched(&self, worker: WorkerId, rollout: &Rollout) -> bool {
        let known = &self.workers[worker];
        let accepts = matches!(known.lifecycle.activation, Activation::PerConnection(_));
        let is_another = rollout.from.edition != known.edition;
        !(known.lifecycle.rollout.watch.is_zero() || known.stopped || accepts) && is_another
    }

    /// Whether what was replaced would be watched, but for the sockets of the definition before, which
    /// are closed: nobody would take the clients that wait there meanwhile.
    pub(super) fn cannot_go_back(&self, worker: WorkerId, rollout: &Rollout) -> bool {
        self.is_to_be_watched(worker, rollout) && !rollout.can_go_back
    }

    /// Every instance was replaced. Whether they are watched from now on.
    pub(super) fn begin_to_watch(&mut self, worker: WorkerId, mut rollout: Rollout) -> bool {
        if !self.is_to_be_watched(worker, &rollout) || !rollout.can_go_back {
            return false;
        }
        let time = self.workers[worker].lifecycle.rollout.watch;
        rollout.watched = Some(self.ctx.now + time);
        self.ctx
            .timers
            .rollouts
            .insert((self.ctx.now + time, worker));
        self.rollouts.insert(worker, rollout);
        true
    }

    /// Goes on watching, or ends that.
    pub(super) fn watch_rollout(&mut self, worker: WorkerId, rollout: Rollout, until: Mono) {
        if until > self.ctx.now {
            self.ctx.timers.rollouts.insert((until, worker));
            self.rollouts.insert(worker, rollout);
        } else {
            self.forget_editions(worker);
        }
    }

    /// Ends the watch: the worker is another, or is stopped.
    pub(super) fn end_watch(&mut self, worker: WorkerId) {
        if self.is_watched(worker) && !self.is_rolling(worker) {
            self.rollouts.remove(&worker);
            self.forget_editions(worker);
        }
    }
}
