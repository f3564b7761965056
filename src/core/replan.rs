//! What a reload changes: workers and listeners that come, go, and are defined in another way.
//!
//! By the time the core hears of it everything new is bound and nothing can go wrong any more but
//! the workers themselves. A worker whose definition has changed is rolled ([`super::rollout`]); one
//! of which only the terms have changed under which it lives goes on under the new ones. One that
//! is gone is stopped, and forgotten when its last process is.

use super::ctx::Ctx;
use super::effect::Effect;
use super::event::{DaemonEvent, Event};
use super::input::{Configuration, WorkerUpdate};
use super::job::{Replanning, Resized};
use super::machine::Core;
use super::rollout::Target;
use super::state::State;
use super::types::{Answer, Bad, Phase, Refused, RunId};
use super::worker::Worker;
use crate::plan::{Lifecycle, WorkerId};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// From a reload that meets an address which is free in a moment to the next try, which reads the configuration again:
/// whoever has a copy of its socket closes it meanwhile as a rule.
const REREAD_PAUSE: Duration = Duration::from_millis(50);

impl Core {
    /// A reload waits for an address.
    pub(super) fn reload_blocked(&mut self) {
        self.ctx.timers.reread = Some(self.ctx.now + REREAD_PAUSE);
        if self.ctx.phase >= Phase::Stopping {
            self.read_again();
        }
    }

    /// Goes on with a reload that waits: its time has come, or nothing is reloaded any more, which it is told then.
    pub(super) fn read_again(&mut self) {
        if self.ctx.timers.reread.take().is_some() {
            self.ctx.outbox.push(Effect::ReadAgain);
        }
    }
}

impl Worker {
    /// What a reload has changed about it.
    fn change(&mut self, ctx: &mut Ctx, change: WorkerUpdate, can_go_back: bool) {
        match change {
            // It is on its way out, and nothing brings it back.
            _ if self.removed => ctx.replanned(self.id, None),
            // It is there.
            WorkerUpdate::Added { .. } => {}
            WorkerUpdate::Removed => self.remove(ctx),
            WorkerUpdate::Settings { life } if self.given_up.is_none() => {
                let resized = self.settings_changed(ctx, &life);
                if let Some(resized) = resized {
                    self.wait_for_size(ctx, resized);
                } else if !self.is_rolling() && !ctx.is_being_added(self.id) {
                    ctx.replanned(self.id, None);
                }
            }
            // Of other settings, if what they are for was rolled back and is tried again.
            WorkerUpdate::Settings { life } | WorkerUpdate::Definition { life } => {
                self.latest = self.latest.next();
                self.follow_latest(ctx, life, can_go_back);
            }
        }
    }

    /// Rolls, or starts as, what the configuration says.
    fn follow_latest(&mut self, ctx: &mut Ctx, life: Arc<Lifecycle>, can_go_back: bool) {
        let kind = |life: &Lifecycle| std::mem::discriminant(&life.activation);
        let is_other_kind = kind(&self.lifecycle) != kind(&life);
        let to = Target {
            revision: self.latest,
            life,
            can_go_back,
        };
        if is_other_kind {
            self.replace_whole(ctx, to);
        } else if ctx.phase == Phase::Running {
            if let Some(replanning) = &mut ctx.replanning {
                replanning.added.remove(&self.id);
            }
            self.roll_out(ctx, None, Some(to), None);
        } else {
            self.define_before_start(ctx, to);
        }
    }

    /// Nothing runs yet: it starts as what it is now.
    fn define_before_start(&mut self, ctx: &mut Ctx, to: Target) {
        self.revision = to.revision;
        self.wanted = to.life.instances;
        self.lifecycle = to.life;
        for id in self.runs.placed() {
            self.redefine(id);
        }
        let _nothing_runs = self.resize(ctx, self.wanted);
        self.forget_revisions(ctx);
        ctx.replanned(self.id, None);
    }

    fn start_added(&mut self, ctx: &mut Ctx) {
        ctx.stir(self.id);
        let starts = ctx.phase == Phase::Running
            && self.is_eager()
            && !self.stopped
            && !ctx.listeners.lacks_or_has_closed(self.id);
        if !starts {
            return ctx.replanned(self.id, None);
        }
        if let Some(replanning) = &mut ctx.replanning {
            replanning.added.insert(self.id);
        }
        self.start_waiting(ctx);
        if self.runs.len() == 0 {
            ctx.replanned(self.id, None);
        }
    }

    /// Answers what is on its way if the number of instances is another.
    fn settings_changed(&mut self, ctx: &mut Ctx, life: &Arc<Lifecycle>) -> Option<Resized> {
        let before = std::mem::replace(&mut self.lifecycle, Arc::clone(life));
        let revision = self.revision;
        self.runs.settings_changed(revision, life);
        ctx.stir(self.id);
        if let Some(rollout) = &mut self.rollout {
            rollout.settings_changed(revision, life);
        }
        for id in self.runs.placed() {
            self.new_watchdog(ctx, id);
        }
        self.new_time_outs(ctx);
        if before.idle_timeout != life.idle_timeout {
            // From now on.
            self.forget_use(ctx);
        }
        self.lifecycle = before;
        let is_same = !self.expect_instances(life);
        self.lifecycle = Arc::clone(life);
        if is_same {
            return None;
        }
        // A rollout that is under way ends with the number that is right by then, and a worker that
        // is being added is there when all of it is.
        if self.is_rolling() {
            return None;
        }
        let _what_follows_is_waited_for = self.supersede(ctx);
        let resized = self.resize(ctx, self.wanted);
        (!ctx.is_being_added(self.id)).then_some(resized)
    }

    /// Another kind of activation: nothing of the old set fits the new one, which starts beside it.
    fn replace_whole(&mut self, ctx: &mut Ctx, to: Target) {
        let _what_follows_is_waited_for = self.supersede(ctx);
        self.cancel_rollout(ctx);
        self.retire_instances(ctx);
        self.keep_what_is_served(ctx);
        self.forgive_connections();
        self.next_generation();
        self.revision = to.revision;
        self.expect_instances(&to.life);
        self.lifecycle = to.life;
        self.degraded = None;
        self.given_up = None;
        let state = match self.stopped {
            true => State::Stopped,
            false => State::Waiting,
        };
        for number in 0..self.wanted {
            self.add_instance(ctx, number, state.clone());
        }
        self.start_added(ctx);
        self.forget_revisions(ctx);
    }

    fn remove(&mut self, ctx: &mut Ctx) {
        let _what_follows_is_waited_for = self.supersede(ctx);
        self.cancel_rollout(ctx);
        self.removed = true;
        self.given_up = None;
        self.gate.parked.clear();
        self.retire_instances(ctx);
        let connections: Vec<RunId> = self.runs.connections().map(|one| one.run.id).collect();
        for id in connections {
            self.stop_instance(ctx, id);
        }
        self.tell_if_gone(ctx);
    }

    /// Stops every process that is an instance; none is one any more.
    fn retire_instances(&mut self, ctx: &mut Ctx) {
        let mut all: Vec<RunId> = self.runs.others().map(|run| run.id).collect();
        all.extend(self.runs.cut(0));
        for id in all {
            self.retire(ctx, id);
        }
    }

    /// Leaves the connections to the processes that have them, and ends those that wait for one: nothing more is
    /// launched by the definition that would serve them.
    fn keep_what_is_served(&mut self, ctx: &mut Ctx) {
        let waiting = self.runs.connections().map(|one| &one.run);
        let waiting = waiting.filter(|run| run.state.process().is_none());
        let waiting: Vec<RunId> = waiting.map(|run| run.id).collect();
        for id in waiting {
            self.stop_instance(ctx, id);
        }
    }

    /// Stops what is to be no instance any more, and has no place.
    pub(super) fn retire(&mut self, ctx: &mut Ctx, id: RunId) {
        let drains = self.drain(ctx, id);
        self.runs.send_off(id);
        if self.runs[id].state == State::Stopped {
            self.leave(ctx, id);
        } else if !drains {
            self.stop_instance(ctx, id);
        }
    }

    /// Tells when nothing is left of a worker that was removed.
    pub(super) fn tell_if_gone(&mut self, ctx: &mut Ctx) {
        if !self.removed || self.gone {
            return;
        }
        let connections = self.connections.live + self.connections.under_way;
        if self.runs.has_no_instance() && connections == 0 && self.helpers.is_empty() {
            self.gone = true;
            ctx.stir(self.id);
            ctx.timers.forget(self.id);
            ctx.outbox.push(Effect::Retire {
                worker: self.id,
                needed: None,
            });
            ctx.replanned(self.id, None);
        }
    }

    /// Looks whether it has started, if a reload has added it and something has changed.
    pub(super) fn look_at_what_was_added(&mut self, ctx: &mut Ctx) {
        if self.changed.is_empty() || !ctx.is_being_added(self.id) {
            return;
        }
        let mut bad = None;
        for run in self.runs.places() {
            match run.state {
                State::Running { .. } => {}
                State::Preparing { .. }
                | State::Starting { .. }
                | State::Activating { .. }
                | State::Stopping { .. }
                | State::Cleaning { .. } => return,
                // It starts when others have ended.
                State::Waiting if self.waits_for_an_end(&ctx.elsewhere) => return,
                State::Waiting | State::Backoff { .. } | State::Failed { .. } | State::Stopped => {
                    bad = Some(Bad::NotUp(run.instance));
                }
            }
        }
        ctx.replanned(self.id, bad);
    }
}

impl Core {
    /// Puts what a reload has changed into effect.
    pub(super) fn configure(&mut self, mut new: Configuration) {
        if self.ctx.phase >= Phase::Stopping {
            if let Some(ticket) = new.ticket {
                self.ctx
                    .answer(ticket, Answer::Refused(Refused::NotRunning));
            }
            return;
        }
        self.try_again_what_went_back(&mut new.workers);
        let (mut pending, mut added) = (BTreeSet::new(), BTreeSet::new());
        if let Some(before) = self.ctx.replanning.take() {
            if let Some(ticket) = before.ticket {
                self.ctx
                    .answer(ticket, Answer::Refused(Refused::Superseded));
            }
            (pending, added) = (before.pending, before.added);
        }
        let changed: BTreeSet<WorkerId> = new.workers.iter().map(|(worker, _)| *worker).collect();
        pending.extend(&changed);
        added.retain(|worker| !changed.contains(worker));
        let of = u32::try_from(pending.len()).unwrap_or(u32::MAX);
        self.ctx.replanning = Some(Replanning {
            ticket: new.ticket,
            of,
            pending,
            added,
            well: BTreeSet::new(),
            bad: Vec::new(),
            done: 0,
        });
        if let Some(ticket) = new.ticket
            && of > 0
        {
            self.ctx.answer(ticket, Answer::Progress { done: 0, of });
        }
        self.forget_sockets(&new.touched);
        let mut redefined = Vec::new();
        for (listener, life) in new.listeners {
            self.redefine_listener(listener, life);
            redefined.push(listener);
        }
        self.unpark(&redefined);
        for (listener, why) in new.missing {
            self.listener_missing(listener, why);
        }
        self.ctx.listeners.set_former(new.former);
        self.clear_degraded(&changed);
        // Who comes may have to wait for who goes, so that is decided first.
        let mut workers = new.workers;
        workers.sort_by_key(|(_, change)| match change {
            WorkerUpdate::Removed => 0,
            WorkerUpdate::Settings { .. } | WorkerUpdate::Definition { .. } => 1,
            WorkerUpdate::Added { .. } => 2,
        });
        for (id, change) in workers {
            let can_go_back = !new.final_for.contains(&id);
            if let WorkerUpdate::Added { life } = change {
                self.add_worker(id, life);
                self.on(id, Worker::start_added);
            } else if self
                .on(id, |worker, ctx| worker.change(ctx, change, can_go_back))
                .is_none()
            {
                self.ctx.replanned(id, None);
            }
        }
        self.start_what_waits();
        // What is to happen to their clients may be another by now, and so may be who shares a listener.
        let failed = self.workers.values().filter(|known| known.has_failed());
        self.ctx.failing.extend(failed.map(|known| known.id));
        self.ctx.emit(Event::Daemon(DaemonEvent::Replanned));
    }

    /// A reload that says nothing new about a worker still wants what was rolled back.
    fn try_again_what_went_back(&self, workers: &mut Vec<(WorkerId, WorkerUpdate)>) {
        for worker in self.workers.values() {
            let is_changed = workers.iter().any(|(id, _)| *id == worker.id);
            if let Some(given_up) = worker.given_up.as_ref().filter(|_| !is_changed) {
                let life = Arc::clone(&given_up.life);
                workers.push((worker.id, WorkerUpdate::Settings { life }));
            }
        }
    }

    /// Starts what has waited for a listener that it does not take any more, or that is there now.
    pub(super) fn start_what_waits(&mut self) {
        self.bind_taken();
        self.stir_all();
        if self.ctx.phase != Phase::Running {
            return;
        }
        self.on_all(Worker::start_waiting);
    }

    /// What runs is what the configuration says now: nothing is degraded any more.
    fn clear_degraded(&mut self, changed: &BTreeSet<WorkerId>) {
        for (worker, known) in &mut self.workers {
            if !changed.contains(worker) && known.rollout.is_none() {
                known.degraded = None;
                self.ctx.record.worker(*worker);
            }
        }
    }

    /// Ends a reload that is over.
    pub(super) fn end_replanning(&mut self) {
        let over = |replanning: &Replanning| replanning.pending.is_empty();
        if !self.ctx.replanning.as_ref().is_some_and(over) {
            return;
        }
        let Some(replanning) = self.ctx.replanning.take() else {
            return;
        };
        self.ctx.emit(Event::Daemon(DaemonEvent::ReplanDone {
            bad: replanning.bad.iter().map(|bad| bad.instance()).collect(),
        }));
        if let Some(ticket) = replanning.ticket {
            self.ctx.answer(ticket, Answer::of(replanning.bad));
        }
    }

    /// listend stops: whoever waits is told.
    pub(super) fn forget_replanning(&mut self) {
        if let Some(Replanning {
            ticket: Some(ticket),
            ..
        }) = self.ctx.replanning.take()
        {
            self.ctx
                .answer(ticket, Answer::Refused(Refused::Superseded));
        }
    }
}
