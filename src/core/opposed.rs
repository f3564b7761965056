//! Who has to end before a worker can start, because it needs O_NONBLOCK of a listener the other way.
//!
//! The flag belongs to the socket ([`super::nonblocking`]), so who needs it set and who needs it clear
//! cannot have the socket at once. A configuration in which two workers differ is refused; but a reload
//! can leave what runs by a definition before beside what it starts. What is on its way out keeps the
//! flag that it needs until it has ended, and the other starts then. That is asked of instances: what is
//! started for a connection gets that, and listend takes clients with either.

use super::ctx::{Ctx, Elsewhere, Holders};
use super::machine::Core;
use super::run::Run;
use super::types::{Phase, Revision};
use super::worker::Worker;
use crate::plan::WorkerId;
use std::collections::BTreeSet;

impl Worker {
    /// Whether it has to wait for a listener of its own: for its socket, or for the end of those who
    /// need it otherwise.
    pub(super) fn waits_for_a_listener(&self, ctx: &Ctx) -> bool {
        ctx.listeners.lacks_or_has_closed(self.id) || self.waits_for_an_end(&ctx.elsewhere)
    }

    /// Whether this needs the flag of its sockets otherwise than what the worker is to run.
    fn opposes(&self, run: &Run) -> bool {
        run.state.process().is_some() && run.life.nonblocking != self.lifecycle.nonblocking
    }

    fn leavers_oppose(&self) -> bool {
        self.runs.leaving().any(|run| self.opposes(run))
    }

    fn others_oppose(&self, elsewhere: &Elsewhere) -> Holders {
        elsewhere.opposed_to(self.lifecycle.nonblocking)
    }

    /// Whether anything that runs has to be gone before what the worker is to run can start: all of
    /// it, whatever `order` and `parallel` of a rollout say.
    pub(super) fn is_opposed(&self, ctx: &Ctx) -> bool {
        let own = || self.runs.holders().any(|run| self.opposes(run));
        self.others_oppose(&ctx.elsewhere).any || own()
    }

    /// Whether some of it ends in any case, so that a rollout can leave the old instances alone until
    /// then.
    pub(super) fn is_opposed_by_leavers(&self, ctx: &Ctx) -> bool {
        let others = self.others_oppose(&ctx.elsewhere);
        others.leaving || self.leavers_oppose()
    }

    /// The same for a worker that just starts, and waits for the rollouts of others, too.
    pub(super) fn waits_for_an_end(&self, elsewhere: &Elsewhere) -> bool {
        let others = self.others_oppose(elsewhere);
        others.any || self.leavers_oppose()
    }

    /// Notes what it runs by this definition and will not go on to run.
    fn note_going(&self, revision: Revision, holders: &mut Elsewhere) {
        let goes_as_a_whole = self.removed || self.revision != revision;
        let note = |holders: &mut Elsewhere, run: &Run, leaving: bool| {
            if run.revision != revision || run.state.process().is_none() {
                return;
            }
            let holders = match run.life.nonblocking {
                true => &mut holders.set,
                false => &mut holders.clear,
            };
            holders.any = true;
            holders.leaving |= leaving;
        };
        for run in self.runs.leaving() {
            note(holders, run, true);
        }
        for run in self.runs.instances().filter(|_| goes_as_a_whole) {
            note(holders, run, false);
        }
    }
}

impl Core {
    /// How the processes of other workers, by definitions that are no more, need the sockets of this.
    pub(super) fn elsewhere(&self, worker: WorkerId) -> Elsewhere {
        let mut holders = Elsewhere::default();
        let rivals = self.ctx.listeners.rivals.get(&worker);
        for (other, revision) in rivals.into_iter().flatten() {
            if let Some(other) = self.workers.get(other) {
                other.note_going(*revision, &mut holders);
            }
        }
        holders
    }

    /// Starts what has waited for the end of others. To be called after every input.
    pub(super) fn start_what_was_opposed(&mut self) {
        while let Some((worker, revision)) = self.ctx.let_go.pop_first() {
            let listeners = &self.ctx.listeners;
            let former = listeners.former.iter();
            let of_it = former.filter(|(_, other, of)| (*other, *of) == (worker, revision));
            let waiting = of_it.flat_map(|(listener, ..)| listeners.takers(*listener));
            let waiting: BTreeSet<WorkerId> = waiting.copied().chain([worker]).collect();
            if self.ctx.phase == Phase::Running {
                for id in waiting {
                    self.on(id, Worker::start_waiting);
                }
            }
        }
    }
}
