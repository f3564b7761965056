//! Instances that were replaced, and serve the flows that they have (`flows: sticky`).
//!
//! Their sockets are their own, and no new flow comes there. Such a run has no place any more, and is
//! *leaving* while its state is still [`State::Running`]: it has not been asked to stop. It is when no flow of
//! it was seen for their time, which the shell tells, or when its `stop_timeout` is over, and then has that time
//! once more to do so. Nothing waits for it: neither the rollout nor the next one.

use super::ctx::Ctx;
use super::effect::Effect;
use super::event::{Event, InstanceEvent};
use super::machine::Core;
use super::run::Run;
use super::state::State;
use super::types::{InstanceId, Lane, Phase, RunId};
use super::worker::Worker;
use crate::plan::{ListenerId, WorkerId};

impl Worker {
    /// What was promoted gets the new flows, if it has sockets of its own; whatever its terms are now: a reload
    /// may have changed them since it was started.
    pub(super) fn take_flows(&self, ctx: &mut Ctx, id: RunId) {
        ctx.outbox.push(Effect::TakeFlows {
            worker: self.id,
            lane: id.lane(),
        });
    }

    /// Whether what was replaced goes on with the flows that it has: both have sockets of their own.
    pub(super) fn may_keep_flows(&self, ctx: &Ctx, old: RunId, new: RunId) -> bool {
        let keeps = |id: RunId| self.runs[id].life.keeps_flows;
        let (keeps, is_running) = (
            keeps(old) && keeps(new),
            matches!(self.runs[old].state, State::Running { .. }),
        );
        keeps && is_running && ctx.phase == Phase::Running
    }

    /// It has no place any more, and goes on until its flows are quiet.
    pub(super) fn keep_flows(&mut self, ctx: &mut Ctx, id: RunId) {
        self.runs.send_off(id);
        let timeout = self.runs[id].life.stop_timeout;
        if let State::Running { process, since, .. } = self.runs[id].state {
            let until = timeout.map(|timeout| ctx.now + timeout);
            let state = State::Running {
                process,
                since,
                until,
            };
            self.become_state(ctx, id, state);
        }
        let instance = self.runs[id].instance;
        ctx.emit(Event::Instance(
            instance,
            InstanceEvent::KeepsFlows { timeout },
        ));
        self.watch_flows(ctx, id);
    }

    /// Whether it was replaced, and goes on until its flows are quiet.
    pub(super) fn keeps_its_flows(&self, ctx: &Ctx, id: RunId) -> bool {
        let run = &self.runs[id];
        let keeps = self.runs.is_leaving(id) && run.life.keeps_flows;
        let is_running = matches!(run.state, State::Running { .. });
        keeps && is_running && ctx.phase == Phase::Running && !self.removed
    }

    pub(super) fn watch_flows(&self, ctx: &mut Ctx, id: RunId) {
        ctx.outbox.push(Effect::WatchFlows {
            worker: self.id,
            lane: id.lane(),
        });
    }

    /// It has no flows any more.
    pub(super) fn flows_are_quiet(&mut self, ctx: &mut Ctx, lane: Lane) {
        let is_quiet =
            |run: &&Run| run.id.lane() == lane && matches!(run.state, State::Running { .. });
        let quiet = self.runs.leaving().find(is_quiet).map(|run| run.id);
        match quiet {
            Some(id) => self.stop_instance(ctx, id),
            None => ctx.ignore(),
        }
    }

    /// Nothing runs any more that has these sockets.
    pub(super) fn end_flows(&self, ctx: &mut Ctx, id: RunId) {
        ctx.outbox.push(Effect::EndFlows {
            worker: self.id,
            lane: id.lane(),
        });
    }
}

/// Who has the new flows at a socket of a listener.
impl Core {
    /// Whether they go to a worker when it promotes an instance, which may have a socket of its own there. What is
    /// rolled back has the listeners of its definition before, which others may have got.
    pub fn takes_flows(&self, listener: ListenerId, worker: WorkerId, has_socket: bool) -> bool {
        let takers = self.takers(listener);
        takers.contains(&worker) || (has_socket && takers.is_empty())
    }

    /// Whether they go to an instance as soon as it has a socket there, since no rollout tells when it takes over: it
    /// has its place, and those that have them, `present`, are another worker's, which had the listener before a
    /// reload.
    pub fn takes_flows_at_once(
        &self,
        listener: ListenerId,
        instance: InstanceId,
        present: Lane,
    ) -> bool {
        let worker = instance.worker;
        let has_place = self.instances_of(worker).next() == Some(instance);
        let is_others = !self.is_lane_of(worker, present);
        has_place && is_others && self.takes_flows(listener, worker, true)
    }

    /// To whom they go when nobody has them: what has its place with the worker that takes the listener, and runs.
    pub fn heir_of_flows(&self, listener: ListenerId) -> Option<Lane> {
        let takers = self.takers(listener).iter();
        let workers = takers.filter_map(|taker| self.workers.get(taker));
        let mut placed = workers.filter_map(|worker| worker.runs.places().next());
        let runs = |run: &&Run| run.state.process().is_some() && !run.state.is_asked_for();
        placed.find(runs).map(|run| run.id.lane())
    }

    /// Whether these sockets are those of an instance of the worker.
    pub(super) fn is_lane_of(&self, worker: WorkerId, lane: Lane) -> bool {
        let known = self.workers.get(&worker);
        known.is_some_and(|worker| worker.runs.all().any(|run| run.id.lane() == lane))
    }
}
