//! What a reload changes: workers and listeners that come, go, and are defined in another way.
//!
//! By the time the core hears of it everything new is bound and nothing can go wrong any more but
//! the workers themselves. A worker whose definition has changed is rolled ([`super::rollout`]); one
//! of which only the terms have changed under which it lives goes on under the new ones. One that
//! is gone is stopped, and forgotten when its last process is.

use super::effect::Effect;
use super::event::Event;
use super::input::{Replan, WorkerChange};
use super::job::{Bad, Replanning, Resized};
use super::machine::Core;
use super::rollout::Target;
use super::state::State;
use super::time::Mono;
use super::types::{Answer, Missing, Phase, Refused, Role};
use crate::plan::{Lifecycle, ListenerId, WorkerId};
use std::collections::BTreeSet;
use std::sync::Arc;

impl Core {
    /// Takes over what a reload has changed, at `now`.
    pub fn replan(&mut self, now: Mono, replan: Replan) {
        self.replan_without(now, replan, &[]);
    }

    /// The same, where these listeners could not be bound, and the plan can do without.
    pub fn replan_without(&mut self, now: Mono, replan: Replan, missing: &[(ListenerId, Missing)]) {
        self.ctx.now = now;
        if self.ctx.phase >= Phase::Stopping {
            if let Some(ticket) = replan.ticket {
                self.ctx
                    .answer(ticket, Answer::Refused(Refused::NotRunning));
            }
            return;
        }
        let (mut pending, mut added) = (BTreeSet::new(), BTreeSet::new());
        if let Some(before) = self.replanning.take() {
            if let Some(ticket) = before.ticket {
                self.ctx
                    .answer(ticket, Answer::Refused(Refused::Superseded));
            }
            (pending, added) = (before.pending, before.added);
        }
        let changed: BTreeSet<WorkerId> =
            replan.workers.iter().map(|(worker, _)| *worker).collect();
        pending.extend(&changed);
        added.retain(|worker| !changed.contains(worker));
        let of = u32::try_from(pending.len()).unwrap_or(u32::MAX);
        self.replanning = Some(Replanning {
            ticket: replan.ticket,
            of,
            pending,
            added,
            bad: None,
            done: 0,
        });
        if let Some(ticket) = replan.ticket
            && of > 0
        {
            self.ctx.answer(ticket, Answer::Progress { done: 0, of });
        }
        self.forget_sockets(&replan.touched);
        let mut redefined = Vec::new();
        for (listener, life) in replan.listeners {
            self.redefine_listener(listener, life);
            redefined.push(listener);
        }
        self.unpark(&redefined);
        for (listener, why) in missing {
            self.listener_missing(*listener, *why);
        }
        self.listeners.former = replan.former;
        self.clear_degraded(&changed);
        // Who comes may have to wait for who goes, so that is decided first.
        let mut workers = replan.workers;
        workers.sort_by_key(|(_, change)| match change {
            WorkerChange::Removed => 0,
            WorkerChange::Settings { .. } | WorkerChange::Definition { .. } => 1,
            WorkerChange::Added { .. } => 2,
        });
        for (worker, change) in workers {
            self.change_worker(worker, change);
        }
        self.start_what_waits();
        self.ctx.emit(Event::Replanned);
        self.settle();
    }

    /// Starts what has waited for a listener that it does not take any more, or that is there now.
    fn start_what_waits(&mut self) {
        self.bind_what_is_taken();
        self.rolling.extend(self.rollouts.keys());
        self.touch_all();
        if self.ctx.phase != Phase::Running {
            return;
        }
        for worker in self.workers.ids() {
            self.start_waiting(worker);
        }
    }

    /// Starts what waits of a worker, unless it has to go on waiting.
    pub(super) fn start_waiting(&mut self, worker: WorkerId) {
        self.touched.push(worker);
        self.rolling.insert(worker);
        if !self.is_eager(worker) || self.waits_for_a_listener(worker) {
            return;
        }
        for index in self.slots_of(worker) {
            if self.slots[index].state == State::Waiting {
                self.spawn(index);
            }
        }
    }

    /// What runs is what the configuration says now: nothing is degraded any more.
    fn clear_degraded(&mut self, changed: &BTreeSet<WorkerId>) {
        for (worker, known) in &mut self.workers.0 {
            if !changed.contains(&worker) && !self.rollouts.contains_key(&worker) {
                known.degraded = None;
            }
        }
    }

    fn is_other_kind(&self, worker: WorkerId, life: &Lifecycle) -> bool {
        let kind = |life: &Lifecycle| std::mem::discriminant(&life.activation);
        let known = self.workers.get(worker);
        known.is_some_and(|known| kind(&known.lifecycle) != kind(life))
    }

    fn change_worker(&mut self, worker: WorkerId, change: WorkerChange) {
        match change {
            WorkerChange::Added { edition, life } => {
                self.add_worker(worker, edition, Arc::new(life));
                self.start_added(worker);
            }
            WorkerChange::Removed => self.remove_worker(worker),
            WorkerChange::Settings { life } => {
                let resized = self.settings_changed(worker, &Arc::new(life));
                if let Some(resized) = resized {
                    self.wait_for_size(worker, resized);
                } else if !self.is_rolling(worker) && !self.is_being_added(worker) {
                    self.replanned(worker, None);
                }
            }
            WorkerChange::Definition {
                edition,
                life,
                can_go_back,
            } => {
                let is_other_kind = self.is_other_kind(worker, &life);
                let to = Target {
                    edition,
                    life: Arc::new(life),
                    can_go_back,
                };
                if is_other_kind {
                    self.replace_whole(worker, to);
                } else if self.ctx.phase == Phase::Running {
                    if let Some(replanning) = &mut self.replanning {
                        replanning.added.remove(&worker);
                    }
                    self.roll_out(worker, None, Some(to));
                } else {
                    self.define_before_start(worker, to);
                }
            }
        }
    }

    /// Nothing runs yet: it starts as what it is now.
    fn define_before_start(&mut self, worker: WorkerId, to: Target) {
        let known = &mut self.workers[worker];
        known.edition = to.edition;
        known.wanted = to.life.instances;
        known.lifecycle = to.life;
        let wanted = known.wanted;
        for index in self.slots_of(worker) {
            self.redefine(index);
        }
        let _nothing_runs = self.resize(worker, wanted);
        self.forget_editions(worker);
        self.replanned(worker, None);
    }

    fn start_added(&mut self, worker: WorkerId) {
        self.touched.push(worker);
        let starts = self.ctx.phase == Phase::Running
            && self.is_eager(worker)
            && !self.workers[worker].stopped
            && !self.lacks_or_has_closed(worker);
        if !starts {
            return self.replanned(worker, None);
        }
        if let Some(replanning) = &mut self.replanning {
            replanning.added.insert(worker);
        }
        self.start_waiting(worker);
        if self.slots_of(worker).is_empty() {
            self.replanned(worker, None);
        }
    }

    /// Answers what is on its way if the number of instances is another.
    fn settings_changed(&mut self, worker: WorkerId, life: &Arc<Lifecycle>) -> Option<Resized> {
        let known = &mut self.workers[worker];
        let before = std::mem::replace(&mut known.lifecycle, Arc::clone(life));
        let edition = known.edition;
        for index in known.slots.iter().chain(&known.others) {
            let slot = &mut self.slots[*index];
            if slot.edition == edition {
                slot.life = Arc::clone(life);
            }
        }
        self.touched.push(worker);
        if let Some(rollout) = self.rollouts.get_mut(&worker) {
            rollout.settings_changed(edition, life);
        }
        for index in self.slots_of(worker) {
            self.new_watchdog(index);
        }
        self.new_time_outs(worker);
        if before.instances == life.instances {
            return None;
        }
        self.workers[worker].wanted = life.instances;
        // A rollout that is under way ends with the number that is right by then, and a worker that
        // is being added is there when all of it is.
        if self.is_rolling(worker) {
            return None;
        }
        let _what_follows_is_waited_for = self.supersede(worker);
        let resized = self.resize(worker, life.instances);
        (!self.is_being_added(worker)).then_some(resized)
    }

    /// Another kind of activation: nothing of the old set fits the new one, which starts beside it.
    fn replace_whole(&mut self, worker: WorkerId, to: Target) {
        let _what_follows_is_waited_for = self.supersede(worker);
        self.cancel_rollout(worker);
        self.dismiss_all(worker);
        self.forgive_connections(worker);
        let known = &mut self.workers[worker];
        known.last_generation += 1;
        known.generation = known.last_generation;
        known.edition = to.edition;
        if known.lifecycle.instances != to.life.instances {
            known.wanted = to.life.instances;
        }
        let instances = known.wanted;
        known.lifecycle = to.life;
        known.degraded = None;
        known.given_up = None;
        let state = match known.stopped {
            true => State::Stopped,
            false => State::Waiting,
        };
        for number in 0..instances {
            self.add_instance(worker, number, state);
        }
        self.start_added(worker);
        self.forget_editions(worker);
    }

    fn remove_worker(&mut self, worker: WorkerId) {
        let _what_follows_is_waited_for = self.supersede(worker);
        self.cancel_rollout(worker);
        let known = &mut self.workers[worker];
        known.removed = true;
        known.gate.parked.clear();
        self.dismiss_all(worker);
        self.is_it_gone(worker);
    }

    /// Stops every process of a worker, none of which is an instance any more.
    fn dismiss_all(&mut self, worker: WorkerId) {
        let known = &mut self.workers[worker];
        let instances = std::mem::take(&mut known.slots);
        let mut all = known.others.clone();
        known.others.extend(&instances);
        all.extend(instances);
        let connections = self
            .slots
            .iter()
            .enumerate()
            .filter(|(_, slot)| slot.connection.is_some() && slot.instance.worker == worker);
        let connections: Vec<usize> = connections.map(|(index, _)| index).collect();
        for index in all {
            self.dismiss(index);
        }
        for index in connections {
            self.stop_instance(index);
        }
    }

    /// Stops what is to be no instance any more.
    pub(super) fn dismiss(&mut self, index: usize) {
        self.slots[index].again = false;
        self.become_role(index, Role::Leaving);
        if self.slots[index].state == State::Stopped {
            self.leave(index);
        } else {
            self.stop_instance(index);
        }
    }

    /// Tells when nothing is left of a worker that was removed.
    pub(super) fn is_it_gone(&mut self, worker: WorkerId) {
        let known = &self.workers[worker];
        if !known.removed || known.gone {
            return;
        }
        let connections = known.connections.live + known.connections.under_way;
        let is_empty = known.others.is_empty() && known.slots.is_empty() && connections == 0;
        if is_empty && !self.helpers.is_for(worker) {
            self.workers[worker].gone = true;
            self.ctx.outbox.push(Effect::Gone { worker });
            self.replanned(worker, None);
        }
    }

    /// What a reload wanted of a worker has happened, or will not.
    pub(super) fn replanned(&mut self, worker: WorkerId, bad: Option<Bad>) {
        let Some(replanning) = &mut self.replanning else {
            return;
        };
        if !replanning.pending.remove(&worker) {
            return;
        }
        replanning.added.remove(&worker);
        replanning.bad = replanning.bad.or(bad);
        if bad.is_some() {
            // Whoever waits is told at the end.
            return;
        }
        replanning.done += 1;
        let (done, of) = (replanning.done, replanning.of);
        if let Some(ticket) = replanning.ticket {
            self.ctx.answer(ticket, Answer::Progress { done, of });
        }
    }

    /// Looks whether the workers that a reload has added have started.
    pub(super) fn look_at_what_was_added(&mut self) {
        if self.replanning.is_none() {
            return;
        }
        for at in 0..self.changed.len() {
            self.look_at_added(self.changed[at]);
        }
    }

    /// Ends a reload that is over.
    pub(super) fn end_replanning(&mut self) {
        let over = |replanning: &Replanning| replanning.pending.is_empty();
        if !self.replanning.as_ref().is_some_and(over) {
            return;
        }
        let Some(replanning) = self.replanning.take() else {
            return;
        };
        self.ctx.emit(Event::ReplanDone {
            bad: replanning.bad.map(|bad| match bad {
                Bad::WentBack(instance) | Bad::NotUp(instance) => instance,
            }),
        });
        if let Some(ticket) = replanning.ticket {
            self.ctx.answer(
                ticket,
                match replanning.bad {
                    None => Answer::Done,
                    Some(Bad::WentBack(instance)) => Answer::RolledBack { instance },
                    Some(Bad::NotUp(instance)) => Answer::Failed { instance },
                },
            );
        }
    }

    /// Whether a reload waits for a worker.
    pub(super) fn is_being_replanned(&self, worker: WorkerId) -> bool {
        let waits = |replanning: &Replanning| replanning.pending.contains(&worker);
        self.replanning.as_ref().is_some_and(waits)
    }

    /// Whether a reload waits for the instances of a worker that it has added.
    fn is_being_added(&self, worker: WorkerId) -> bool {
        let is_added = |replanning: &Replanning| replanning.added.contains(&worker);
        self.replanning.as_ref().is_some_and(is_added)
    }

    fn look_at_added(&mut self, index: usize) {
        let worker = self.slots[index].instance.worker;
        if !self.is_being_added(worker) {
            return;
        }
        let mut bad = None;
        for index in self.slots_of(worker) {
            match self.slots[index].state {
                State::Running { .. } => {}
                State::Preparing { .. }
                | State::Starting { .. }
                | State::Activating { .. }
                | State::Stopping { .. }
                | State::Cleaning { .. } => return,
                // It starts when others have ended.
                State::Waiting if self.waits_for_an_end(worker) => return,
                State::Waiting | State::Backoff { .. } | State::Failed { .. } | State::Stopped => {
                    bad = Some(Bad::NotUp(self.slots[index].instance));
                }
            }
        }
        self.replanned(worker, bad);
    }

    /// listend stops: whoever waits is told.
    pub(super) fn forget_replanning(&mut self) {
        if let Some(Replanning {
            ticket: Some(ticket),
            ..
        }) = self.replanning.take()
        {
            self.ctx
                .answer(ticket, Answer::Refused(Refused::Superseded));
        }
    }
}
