//! Workers that run when there are clients, and not otherwise.
//!
//! A client starts all instances at once. Whatever ends an instance, no client is forgotten: when
//! the last one has ended its sockets are watched again, and a client that waits by then is told of
//! at once. A crash has this delayed, and too many of them delay it for a while longer; they never
//! end it. While other instances of the pool run, one that crashed is restarted as an eager one
//! would be, and one that ended well stays down with nobody the poorer.
//!
//! A clean end needs a second look. A worker that gave up for want of work, and one whose client
//! hung up, have done nothing wrong; one that returns without ever accepting would be started for
//! the same client for ever. The two are told apart by who waits: if everybody who waited when it
//! ended the last time still does, it took nobody, and that counts as a crash. Only connections that
//! the kernel identifies are counted; where it tells of none, as of messages, the trigger limit is
//! what bounds the starts.

use super::backoff::{self, STABLE_AFTER};
use super::effect::Effect;
use super::event::Event;
use super::machine::Core;
use super::state::State;
use super::types::{AT_NEXT_CLIENT, ExitStatus, Next, Waiting};
use crate::config::RestartPolicy;
use crate::plan::{Activation, ListenerId, WorkerId};
use std::time::Duration;

impl Core {
    /// Whether clients start this instance.
    pub(super) fn is_on_demand(&self, index: usize) -> bool {
        matches!(
            self.slots[index].life.activation,
            Activation::OnDemand { .. }
        )
    }

    /// Starts everything of a worker that does not run.
    pub(super) fn activate(&mut self, worker: WorkerId, at: (ListenerId, u32)) {
        let known = &mut self.workers[worker];
        if let Activation::OnDemand { limit } = known.lifecycle.activation {
            known.gate.recent.count(self.ctx.now, limit);
        }
        let (listener, socket) = at;
        self.ctx.emit(Event::Activated {
            worker,
            listener,
            socket,
        });
        for index in self.slots_of(worker) {
            if self.slots[index].state == State::Waiting {
                self.spawn(index);
            }
        }
    }

    /// What becomes of an instance whose process has ended by itself.
    pub(super) fn after_exit_on_demand(
        &mut self,
        index: usize,
        status: ExitStatus,
        uptime: Duration,
    ) -> Next {
        let slot = &mut self.slots[index];
        let worker = &self.workers[slot.instance.worker];
        let restart = &slot.life.restart;
        slot.history.ran(uptime, restart);
        if !backoff::is_failure(status, restart) {
            if worker.counts.with_process == 1 && uptime < STABLE_AFTER {
                self.look_for_clients(index);
            }
            return AT_NEXT_CLIENT;
        }
        let delay = restart.backoff_min;
        if backoff::is_crash(status) {
            self.after_crash_on_demand(index)
        } else {
            self.at_next_client_or_at_once(index, delay)
        }
    }

    /// A crash, or a launch that failed.
    pub(super) fn after_crash_on_demand(&mut self, index: usize) -> Next {
        match self.after_crash(index) {
            Next::RestartIn(delay) => self.at_next_client_or_at_once(index, delay),
            failed => failed,
        }
    }

    /// While others of the pool run, the restart policy decides, and the delay only; else there has
    /// to be a client.
    pub(super) fn at_next_client_or_at_once(&self, index: usize, delay: Duration) -> Next {
        let worker = self.worker(index);
        let others_run = worker.counts.with_process > 1;
        match self.slots[index].life.restart.policy {
            RestartPolicy::Always | RestartPolicy::OnFailure if others_run => {
                Next::RestartIn(delay)
            }
            RestartPolicy::Always | RestartPolicy::OnFailure | RestartPolicy::Never => {
                Next::AtNextClient { not_before: delay }
            }
        }
    }

    /// After its delay or its cool-down an instance joins the others if they run, and else waits
    /// for a client with them.
    pub(super) fn rested(&mut self, index: usize) {
        let worker = self.worker(index);
        let others_run = worker.counts.with_process > 0;
        if others_run && self.slots[index].life.restart.policy != RestartPolicy::Never {
            self.spawn(index);
        } else {
            self.become_state(index, State::Waiting);
        }
    }

    fn look_for_clients(&mut self, index: usize) {
        let worker = self.slots[index].instance.worker;
        self.workers[worker].gate.looking = Some(index);
        self.ctx.outbox.push(Effect::LookForClients { worker });
    }

    /// Who waits, now that the last instance has ended cleanly.
    pub(super) fn looked(&mut self, worker: WorkerId, waiting: Waiting) {
        let known = self.workers.get_mut(worker);
        let Some(index) = known.and_then(|known| known.gate.looking.take()) else {
            self.ctx.ignore();
            return;
        };
        self.touched.push(worker);
        // Its place may be another's by now.
        if self.slots[index].instance.worker != worker {
            return;
        }
        match waiting {
            Waiting::Nobody | Waiting::Others => self.slots[index].history.went_well(),
            Waiting::TheSame => self.nobody_was_taken(index),
        }
    }

    /// The whole pool has ended and taken nobody: that is a crash of all of it.
    fn nobody_was_taken(&mut self, index: usize) {
        if self.slots[index].state != State::Waiting {
            return;
        }
        let next = self.after_crash_on_demand(index);
        let instance = self.slots[index].instance;
        self.ctx.emit(Event::NobodyTaken { instance, next });
        for one in self.slots_of(instance.worker) {
            if self.slots[one].state == State::Waiting {
                self.follow(one, next);
            }
        }
    }
}
