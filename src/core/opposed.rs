//! Who has to end before a worker can start, because it needs O_NONBLOCK of a listener the other way.
//!
//! The flag belongs to the socket ([`super::nonblocking`]), so who needs it set and who needs it clear
//! cannot have the socket at once. A configuration in which two workers differ is refused; but a reload
//! can leave what runs by a definition before beside what it starts. What is on its way out keeps the
//! flag that it needs until it has ended, and the other starts then.

use super::instance::Slot;
use super::machine::Core;
use super::types::{Edition, InstanceId, Phase, Role};
use crate::plan::{Activation, WorkerId};
use std::collections::BTreeSet;

impl Core {
    /// The processes that need the flag of a listener of the worker otherwise than it does.
    fn opponents(&self, worker: WorkerId) -> impl Iterator<Item = &Slot> {
        let known = &self.workers[worker];
        let wanted = known.lifecycle.nonblocking;
        // What it starts gets a connection, and listend takes clients with either.
        let shares = !matches!(known.lifecycle.activation, Activation::PerConnection(_));
        let own = known.slots.iter().chain(&known.others);
        let former = self.listeners.former.iter();
        let former = former.filter(move |(listener, other, _)| {
            *other != worker && self.takers(*listener).contains(&worker)
        });
        let others: BTreeSet<usize> = former
            .flat_map(|(_, other, edition)| self.going(*other, *edition))
            .collect();
        let all = own.copied().chain(others);
        all.map(|index| &self.slots[index]).filter(move |slot| {
            shares
                && slot.connection.is_none()
                && slot.state.process().is_some()
                && slot.life.nonblocking != wanted
        })
    }

    /// What a worker runs by this definition and will not go on to run.
    fn going(&self, worker: WorkerId, edition: Edition) -> impl Iterator<Item = usize> {
        let known = self.workers.get(worker);
        let all = known.into_iter().flat_map(move |known| {
            let goes = move |slot: &Slot| {
                known.removed || known.edition != edition || slot.role == Role::Leaving
            };
            let all = known.slots.iter().chain(&known.others).copied();
            all.filter(move |index| goes(&self.slots[*index]))
        });
        all.filter(move |index| self.slots[*index].edition == edition)
    }

    /// Whether anything that runs has to be gone before what the worker is to run can start: all of
    /// it, whatever `order` and `parallel` of a rollout say.
    pub(super) fn is_opposed(&self, worker: WorkerId) -> bool {
        self.opponents(worker).next().is_some()
    }

    /// Whether some of it ends in any case, so that a rollout can leave the old instances alone until
    /// then.
    pub(super) fn is_opposed_by_leavers(&self, worker: WorkerId) -> bool {
        self.opponents(worker)
            .any(|slot| slot.role == Role::Leaving)
    }

    /// The same for a worker that just starts, and waits for the rollouts of others, too.
    pub(super) fn waits_for_an_end(&self, worker: WorkerId) -> bool {
        let mut opponents = self.opponents(worker);
        opponents.any(|slot| slot.instance.worker != worker || slot.role == Role::Leaving)
    }

    /// Notes that a process has ended, or goes on after all, that somebody may have waited for.
    pub(super) fn lets_go(&mut self, instance: InstanceId, edition: Edition) {
        self.let_go.insert((instance.worker, edition));
    }

    /// Starts what has waited for the end of others. To be called after every input.
    pub(super) fn start_what_was_opposed(&mut self) {
        while let Some((worker, edition)) = self.let_go.pop_first() {
            let former = self.listeners.former.iter();
            let of_it = former.filter(|(_, other, of)| (*other, *of) == (worker, edition));
            let waiting = of_it.flat_map(|(listener, ..)| self.takers(*listener));
            let waiting: BTreeSet<WorkerId> = waiting.copied().chain([worker]).collect();
            if self.ctx.phase == Phase::Running {
                waiting
                    .into_iter()
                    .for_each(|worker| self.start_waiting(worker));
            }
        }
    }
}
