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
use super::ctx::Ctx;
use super::effect::Effect;
use super::event::{Event, InstanceEvent, WorkerEvent};
use super::run::Instance;
use super::state::State;
use super::types::{AT_NEXT_CLIENT, ExitStatus, Next, RunId, Waiting};
use super::worker::Worker;
use crate::config::RestartPolicy;
use crate::plan::{Activation, ListenerId, SocketKey};
use std::time::Duration;

impl Worker {
    /// Whether clients start this instance.
    pub(super) fn is_on_demand(&self, id: RunId) -> bool {
        matches!(self.runs[id].life.activation, Activation::OnDemand { .. })
    }

    /// Starts everything of a worker that does not run.
    pub(super) fn activate(&mut self, ctx: &mut Ctx, at: (ListenerId, SocketKey)) {
        if let Activation::OnDemand { limit } = self.lifecycle.activation {
            self.gate.recent.count(ctx.now, limit);
        }
        self.begin_with_least(ctx);
        for id in self.runs.placed() {
            if self.runs[id].state == State::Waiting {
                self.spawn(ctx, id);
            }
        }
        // The client waits for the process, and nobody for the words.
        let (listener, socket) = at;
        ctx.emit(Event::Worker(
            self.id,
            WorkerEvent::Activated { listener, socket },
        ));
    }

    /// What becomes of an instance whose process has ended by itself.
    pub(super) fn after_exit_on_demand(
        &mut self,
        ctx: &mut Ctx,
        id: RunId,
        status: ExitStatus,
        uptime: Duration,
    ) -> Next {
        let Some(Instance { run, history, .. }) = self.runs.instance_mut(id) else {
            return Next::Stopping;
        };
        let restart = &run.life.restart;
        history.ran(uptime, restart);
        if !backoff::is_failure(status, restart) {
            if self.instances_with_process() == 1 && uptime < STABLE_AFTER {
                self.look_for_clients(ctx, id);
            }
            return AT_NEXT_CLIENT;
        }
        let delay = restart.backoff_min;
        if backoff::ended_by_itself(status) {
            self.after_crash_on_demand(ctx, id)
        } else {
            self.at_next_client_or_at_once(id, delay)
        }
    }

    /// A crash, or a launch that failed.
    pub(super) fn after_crash_on_demand(&mut self, ctx: &mut Ctx, id: RunId) -> Next {
        match self.after_crash(ctx, id) {
            Next::RestartIn(delay) => self.at_next_client_or_at_once(id, delay),
            failed => failed,
        }
    }

    /// While others of the pool run, the restart policy decides, and the delay only; else there has
    /// to be a client.
    pub(super) fn at_next_client_or_at_once(&self, id: RunId, delay: Duration) -> Next {
        let others_run = self.instances_with_process() > 1;
        match self.runs[id].life.restart.policy {
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
    pub(super) fn rested(&mut self, ctx: &mut Ctx, id: RunId) {
        let others_run = self.instances_with_process() > 0;
        if others_run && self.runs[id].life.restart.policy != RestartPolicy::Never {
            self.spawn(ctx, id);
        } else {
            self.become_state(ctx, id, State::Waiting);
        }
    }

    fn look_for_clients(&mut self, ctx: &mut Ctx, id: RunId) {
        let worker = self.id;
        self.gate.looking = Some(id);
        ctx.outbox.push(Effect::LookForClients { worker });
    }

    /// Who waits, now that the last instance has ended cleanly.
    pub(super) fn looked(&mut self, ctx: &mut Ctx, waiting: Waiting) {
        let Some(id) = self.gate.looking.take() else {
            return ctx.ignore();
        };
        ctx.stir(self.id);
        // It may have left by now.
        let Some(instance) = self.runs.instance_mut(id) else {
            return;
        };
        match waiting {
            Waiting::Nobody | Waiting::Others => instance.history.went_well(),
            Waiting::TheSame => self.nobody_was_taken(ctx, id),
        }
    }

    /// The whole pool has ended and taken nobody: that is a crash of all of it.
    fn nobody_was_taken(&mut self, ctx: &mut Ctx, id: RunId) {
        if self.runs[id].state != State::Waiting {
            return;
        }
        let next = self.after_crash_on_demand(ctx, id);
        let instance = self.runs[id].instance;
        ctx.emit(Event::Instance(
            instance,
            InstanceEvent::NobodyTaken { next },
        ));
        for one in self.runs.placed() {
            if self.runs[one].state == State::Waiting {
                self.follow(ctx, one, next);
            }
        }
    }
}
