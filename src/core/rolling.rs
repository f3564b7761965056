//! Putting a new generation in the place of the old one, and back if it is no good.
//!
//! A rollout goes from instance to instance. For each there is a *step*: a new process is started
//! beside the old one, with the same listeners; when it has been ready for `min_ready` it is
//! promoted, and the old one is asked to stop and drains. At most `parallel` steps are under way, so
//! that there are never more processes than that beyond what there is room for. With `stop-first`
//! the old one ends before the new one starts.
//!
//! A new instance is *on trial* until it is promoted. If it ends before, for whatever reason, or is
//! not ready in time, the rollout turns *back*: what is new and not promoted is stopped, what was
//! replaced is replaced again by the old definition, in the same steps, and the old instances that
//! are still there just go on. On the way back nothing is on trial, because there is nothing left to
//! go back to: the restart policy applies, and nothing waits for what that comes to.
//!
//! A crash of what was promoted fails the rollout as well, while it lasts and for the time `watch`
//! after it ([`super::watch`]).

use super::backoff::History;
use super::effect::Effect;
use super::event::Event;
use super::instance::Slot;
use super::job::Bad;
use super::machine::Core;
use super::rollout::{At, Definition, Rollout, Step, Target};
use super::state::State;
use super::types::{Answer, Degraded, InstanceId, Phase, Refused, Role, Ticket};
use crate::config::Order;
use crate::plan::WorkerId;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// What a step comes to when it is looked at.
enum Outcome {
    Wait,
    Done,
    Failed,
}

impl Core {
    /// Whether a rollout of the worker is under way.
    pub fn is_rolling(&self, worker: WorkerId) -> bool {
        let rollout = self.rollouts.get(&worker);
        rollout.is_some_and(|rollout| rollout.watched.is_none())
    }

    /// What went wrong with the last rollout of a worker, if it did.
    pub fn degraded(&self, worker: WorkerId) -> Option<Degraded> {
        self.workers.get(worker)?.degraded
    }

    pub(super) fn definition(&self, worker: WorkerId) -> Definition {
        let known = &self.workers[worker];
        Definition {
            edition: known.edition,
            life: Arc::clone(&known.lifecycle),
            generation: known.generation,
        }
    }

    /// Replaces all instances of a worker by ones of this definition, or of the same one again. How
    /// many that will be.
    pub(super) fn roll_out(
        &mut self,
        worker: WorkerId,
        ticket: Option<Ticket>,
        to: Option<Target>,
    ) -> u32 {
        // What has proven itself is gone back to, and not what was being tried. What is only watched
        // serves.
        let before = self.rollouts.remove(&worker);
        let before = before.filter(|before| before.watched.is_none());
        let can_go_back = match (&to, &before) {
            (Some(to), _) => to.can_go_back,
            (None, Some(before)) => before.can_go_back,
            (None, None) => false,
        };
        let from = match before {
            Some(before) => self.take_over(before),
            None => self.definition(worker),
        };
        let _what_follows_is_waited_for = self.supersede(worker);
        let known = &mut self.workers[worker];
        known.last_generation += 1;
        known.generation = known.last_generation;
        known.outdated = false;
        if let Some(to) = to {
            if known.lifecycle.instances != to.life.instances {
                known.wanted = to.life.instances;
            }
            known.edition = to.edition;
            known.lifecycle = to.life;
            known.given_up = None;
        }
        let generation = known.generation;
        let is_stopped = known.stopped;
        self.forgive_connections(worker);
        if !is_stopped {
            self.take_clients_again(worker);
        }
        let positions = self.slots_of(worker);
        let mut todo = VecDeque::new();
        for (position, index) in (0..).zip(positions) {
            let runs = match self.slots[index].state {
                State::Waiting => false,
                State::Backoff { .. } | State::Failed { .. } | State::Stopped => {
                    self.is_eager(worker) && !self.workers[worker].stopped
                }
                State::Preparing { .. }
                | State::Starting { .. }
                | State::Activating { .. }
                | State::Running { .. }
                | State::Stopping { .. }
                | State::Cleaning { .. } => true,
            };
            // A worker that was stopped stays so.
            if runs && self.workers[worker].stopped {
                continue;
            }
            if runs {
                todo.push_back(position);
                continue;
            }
            self.redefine(index);
            if !self.is_eager(worker) && !self.workers[worker].stopped {
                self.become_state(index, State::Waiting);
            }
        }
        let of = u32::try_from(todo.len()).unwrap_or(u32::MAX);
        self.ctx.emit(Event::RolloutStarted {
            worker,
            generation,
            instances: of,
        });
        let rollout = Rollout {
            tickets: ticket.into_iter().collect(),
            from,
            can_go_back,
            generation,
            back: None,
            crashed: None,
            watched: None,
            todo,
            steps: Vec::new(),
            replaced: Vec::new(),
            done: 0,
            of,
        };
        self.rollouts.insert(worker, rollout);
        self.ctx.timers.rollouts.insert((self.ctx.now, worker));
        of
    }

    /// Ends a rollout whose place another takes: what was on trial is stopped. Answers what the
    /// other is to go back to.
    fn take_over(&mut self, before: Rollout) -> Definition {
        self.give_up_trials(&before.steps);
        for ticket in before.tickets {
            self.ctx
                .answer(ticket, Answer::Refused(Refused::Superseded));
        }
        // Whoever waits for the reload that it was for waits for this one's end.
        before.from
    }

    /// Stops the new instances that have not been promoted. Those that have taken the slot of the
    /// old one are stopped in it.
    fn give_up_trials(&mut self, steps: &[Step]) {
        for step in steps {
            match step.at {
                At::Draining | At::MakingRoom => {}
                At::Starting | At::Settling(_) => {
                    self.slots[step.new].on_trial = false;
                    if step.old.is_some() {
                        self.dismiss(step.new);
                    } else {
                        self.stop_instance(step.new);
                    }
                }
            }
        }
    }

    /// Lets an instance that does not run be of the worker's present definition from its next start
    /// on.
    pub(super) fn redefine(&mut self, index: usize) {
        let worker = self.slots[index].instance.worker;
        if self.slots[index].role == Role::Instance {
            self.find_name(worker, self.slots[index].instance.index);
        }
        let now_is = self.definition(worker);
        let slot = &mut self.slots[index];
        slot.instance.generation = now_is.generation;
        slot.edition = now_is.edition;
        slot.life = now_is.life;
        slot.history = History::default();
    }

    /// Lets an instance that is about to start be of the worker's present definition or, while that
    /// is being tried, of the one that is gone back to. Never of one that was no good.
    pub(super) fn bring_up_to_date(&mut self, index: usize) {
        let slot = &self.slots[index];
        let worker = slot.instance.worker;
        let is_one = slot.role == Role::Instance || slot.connection.is_some();
        if !is_one || slot.edition == self.worker(index).edition {
            return;
        }
        let rollout = self.rollouts.get(&worker);
        let is_tried = |rollout: &&Rollout| rollout.back.is_none() && rollout.watched.is_none();
        let Some(rollout) = rollout.filter(is_tried) else {
            return self.redefine(index);
        };
        if rollout.from.edition == slot.edition {
            return;
        }
        let from = rollout.from.clone();
        let known = &mut self.workers[worker];
        known.last_generation += 1;
        let slot = &mut self.slots[index];
        slot.instance.generation = known.last_generation;
        slot.edition = from.edition;
        slot.life = from.life;
        slot.history = History::default();
    }

    /// Notes the rollouts whose time has come, so that they are looked at.
    pub(super) fn rollouts_are_due(&mut self) {
        while let Some((at, worker)) = self.ctx.timers.rollouts.first().copied() {
            if at > self.ctx.now {
                break;
            }
            self.ctx.timers.rollouts.pop_first();
            self.rolling.insert(worker);
        }
    }

    /// Takes the rollouts further that anything has happened to.
    pub(super) fn advance_rollouts(&mut self) {
        if self.rollouts.is_empty() {
            self.ctx.timers.rollouts.clear();
            self.rolling.clear();
            return;
        }
        self.rollouts_are_due();
        for at in 0..self.changed.len() {
            let worker = self.slots[self.changed[at]].instance.worker;
            self.rolling.insert(worker);
        }
        while let Some(worker) = self.rolling.pop_first() {
            if let Some(rollout) = self.rollouts.remove(&worker) {
                self.advance_rollout(worker, rollout);
            }
        }
    }

    /// Goes on until nothing more can be done at this moment.
    fn advance_rollout(&mut self, worker: WorkerId, mut rollout: Rollout) {
        if let Some(instance) = rollout.crashed.take() {
            self.turn_back(worker, &mut rollout, instance);
        }
        if let Some(until) = rollout.watched {
            return self.watch_rollout(worker, rollout, until);
        }
        loop {
            let mut goes_on = false;
            for at in (0..rollout.steps.len()).rev() {
                let mut step = rollout.steps[at];
                let outcome = self.advance_step(&mut step, rollout.back.is_some());
                rollout.steps[at] = step;
                match outcome {
                    Outcome::Wait => {}
                    Outcome::Done => {
                        rollout.steps.swap_remove(at);
                        self.count_step(&mut rollout, step.position);
                        goes_on = true;
                    }
                    Outcome::Failed => {
                        let instance = self.slots[step.new].instance;
                        self.turn_back(worker, &mut rollout, instance);
                        goes_on = true;
                        break;
                    }
                }
            }
            let parallel = match self.workers[worker].lifecycle.rollout.parallel {
                _ if self.is_opposed(worker) => u32::MAX,
                parallel => parallel,
            };
            if !rollout.todo.is_empty() {
                self.take_clients_again(worker);
            }
            // A server without its sockets can only fail: what is there goes on until they are.
            let waits = self.lacks_or_has_closed(worker) || self.is_opposed_by_leavers(worker);
            if !rollout.todo.is_empty() && self.lacks_a_listener(worker) {
                // As for a worker that is new: nobody knows how long that takes.
                self.replanned(worker, None);
            }
            while !waits
                && rollout.steps.len() < parallel.max(1) as usize
                && let Some(position) = rollout.todo.pop_front()
            {
                let step = self.begin_step(worker, position, rollout.back.is_some());
                rollout.steps.extend(step);
                goes_on = true;
            }
            if rollout.steps.is_empty() && rollout.todo.is_empty() {
                return self.finish_rollout(worker, rollout);
            }
            if !goes_on {
                break;
            }
        }
        let settle = rollout.steps.iter().filter_map(|step| match step.at {
            At::Settling(until) => Some(until),
            At::MakingRoom | At::Starting | At::Draining => None,
        });
        // What is over and has not led on waits for something else.
        if let Some(at) = settle.filter(|at| *at > self.ctx.now).min() {
            self.ctx.timers.rollouts.insert((at, worker));
        }
        self.rollouts.insert(worker, rollout);
    }

    fn count_step(&mut self, rollout: &mut Rollout, position: u32) {
        if rollout.back.is_some() {
            return;
        }
        rollout.replaced.push(position);
        rollout.done += 1;
        for ticket in rollout.tickets.clone() {
            let (done, of) = (rollout.done, rollout.of);
            self.ctx.answer(ticket, Answer::Progress { done, of });
        }
    }

    /// Begins to replace one instance; `None` if it is not there any more.
    fn begin_step(&mut self, worker: WorkerId, position: u32, back: bool) -> Option<Step> {
        let known = &self.workers[worker];
        let old = known.slots.get(position as usize).copied()?;
        let is_opposed = self.is_opposed(worker);
        let order = match known.lifecycle.rollout.order {
            _ if is_opposed => Order::StopFirst,
            order => order,
        };
        let step = |new, old, at| {
            Some(Step {
                position,
                new,
                old,
                at,
            })
        };
        let slot = &self.slots[old];
        // It has ended meanwhile, and come back as what it is to be.
        let is_back = back && slot.instance.generation == known.generation;
        if slot.state.is_busy() && is_back && slot.edition == known.edition {
            return None;
        }
        if !self.slots[old].state.is_busy() && is_opposed {
            // Or it came back by itself, as what it was, and would never make room.
            self.slots[old].again = false;
            self.stop_instance(old);
            return step(old, None, At::MakingRoom);
        }
        if !self.slots[old].state.is_busy() {
            self.redefine(old);
            self.slots[old].on_trial = !back;
            self.spawn(old);
            return step(old, None, At::Starting);
        }
        // What has ended serves nobody any more, and what comes beside it may fail as well: then
        // nothing would start in its place.
        let has_ended = back && matches!(self.slots[old].state, State::Cleaning { .. });
        match order {
            Order::StartFirst if !has_ended => {
                let new = self.add_candidate(worker, position);
                self.slots[new].on_trial = !back;
                self.spawn(new);
                step(new, Some(old), At::Starting)
            }
            Order::StartFirst | Order::StopFirst => {
                self.slots[old].again = false;
                self.stop_instance(old);
                step(old, None, At::MakingRoom)
            }
        }
    }

    fn has_to_wait(&self, worker: WorkerId) -> bool {
        self.lacks_or_has_closed(worker) || self.is_opposed(worker)
    }

    fn add_candidate(&mut self, worker: WorkerId, position: u32) -> usize {
        let definition = self.definition(worker);
        let instance = InstanceId {
            worker,
            index: position,
            generation: definition.generation,
        };
        let slot = Slot::new(instance, definition.edition, definition.life, self.ctx.now);
        let index = self.take_slot(slot);
        self.become_role(index, Role::Candidate);
        self.workers[worker].others.push(index);
        index
    }

    fn advance_step(&mut self, step: &mut Step, back: bool) -> Outcome {
        loop {
            let state = self.slots[step.new].state;
            match step.at {
                At::MakingRoom if state.is_busy() => return Outcome::Wait,
                At::MakingRoom if self.has_to_wait(self.slots[step.new].instance.worker) => {
                    return Outcome::Wait;
                }
                At::MakingRoom => {
                    self.redefine(step.new);
                    self.slots[step.new].on_trial = !back;
                    self.spawn(step.new);
                    step.at = At::Starting;
                }
                At::Starting => match state {
                    State::Running { .. } => {
                        let min_ready = match back {
                            true => Duration::ZERO,
                            false => self.slots[step.new].life.rollout.min_ready,
                        };
                        step.at = At::Settling(self.slots[step.new].since + min_ready);
                    }
                    // It has served whoever was there, and waits for the next.
                    State::Waiting if self.is_on_demand(step.new) => {
                        step.at = At::Settling(self.ctx.now)
                    }
                    // It is started again to get a listener, as soon as that is bound.
                    State::Backoff { .. } if self.slots[step.new].on_trial => {
                        return Outcome::Wait;
                    }
                    State::Waiting if self.tries_without_a_listener(step.new) => {
                        return Outcome::Wait;
                    }
                    state if state.is_busy() => return Outcome::Wait,
                    _ => return self.no_good(step, back),
                },
                At::Settling(until) => match state {
                    State::Running { .. } if until > self.ctx.now => return Outcome::Wait,
                    State::Waiting if self.tries_without_a_listener(step.new) => {
                        step.at = At::Starting;
                    }
                    State::Waiting if !self.is_on_demand(step.new) => {
                        return self.no_good(step, back);
                    }
                    State::Running { .. } | State::Waiting => {
                        self.promote(step);
                        step.at = At::Draining;
                    }
                    // It is being ended, and what it comes to is known when it has.
                    State::Stopping { .. } | State::Cleaning { .. } => return Outcome::Wait,
                    state if state.is_busy() => step.at = At::Starting,
                    State::Backoff { .. } => step.at = At::Starting,
                    _ => return self.no_good(step, back),
                },
                At::Draining => {
                    let drains = step.old.is_some_and(|old| {
                        let slot = &self.slots[old];
                        let same = slot.instance.index == step.position
                            && slot.role == Role::Leaving
                            && slot.instance.worker == self.slots[step.new].instance.worker;
                        same && slot.state.is_busy()
                    });
                    return if drains { Outcome::Wait } else { Outcome::Done };
                }
            }
        }
    }

    /// Whether an instance on trial has ended because its listener was taken away to be bound anew.
    fn tries_without_a_listener(&self, index: usize) -> bool {
        let slot = &self.slots[index];
        slot.on_trial && self.waits_for_a_listener(slot.instance.worker)
    }

    /// A new instance has ended. On the way back there is nothing better to be had than what still
    /// runs, and where nothing does its restart policy decides.
    fn no_good(&mut self, step: &Step, back: bool) -> Outcome {
        if !back {
            return Outcome::Failed;
        }
        if step.old.is_some() {
            self.dismiss(step.new);
        }
        Outcome::Done
    }

    /// The new instance takes the place of the old one, which is asked to stop.
    fn promote(&mut self, step: &Step) {
        self.slots[step.new].on_trial = false;
        let Some(old) = step.old else { return };
        let worker = self.slots[step.new].instance.worker;
        let known = &mut self.workers[worker];
        known.others.retain(|other| *other != step.new);
        known.others.push(old);
        known.slots[step.position as usize] = step.new;
        self.become_role(step.new, Role::Instance);
        self.dismiss(old);
    }

    /// The rollout goes back: a new instance was no good.
    fn turn_back(&mut self, worker: WorkerId, rollout: &mut Rollout, instance: InstanceId) {
        let steps = std::mem::take(&mut rollout.steps);
        self.give_up_trials(&steps);
        rollout.watched = None;
        let is_busy = |core: &Core, position: u32| {
            let slots = &core.workers[worker].slots;
            let index = slots.get(position as usize);
            index.is_some_and(|index| core.slots[*index].state.is_busy())
        };
        let same = rollout.from.edition == self.workers[worker].edition;
        let draining = |step: &&Step| step.at == At::Draining;
        let in_place = |step: &&Step| step.old.is_none() && step.at != At::Draining;
        let again = steps.iter().filter(in_place).map(|step| step.position);
        let promoted = steps.iter().filter(draining).map(|step| step.position);
        let replaced = std::mem::take(&mut rollout.replaced).into_iter();
        // What has been replaced by the same definition, and runs, is as good as it can be.
        let replaced = promoted.chain(replaced);
        let replaced = replaced.filter(|position| !(same && is_busy(self, *position)));
        // What did not run when the rollout began was to be started by it.
        let begun = std::mem::take(&mut rollout.todo).into_iter();
        let down = begun.filter(|position| !is_busy(self, *position));
        // One that was promoted, and has crashed.
        let slots = &self.workers[worker].slots;
        let place = slots.get(instance.index as usize).copied();
        let crashed = place.filter(|index| self.slots[*index].instance == instance);
        let crashed = crashed.map(|_| instance.index);
        let mut todo: Vec<u32> = again.chain(replaced).chain(down).collect();
        todo.extend(crashed.filter(|position| !todo.contains(position)));
        self.find_others(worker, &rollout.from, &mut todo);
        // Those that nothing runs for come first.
        todo.sort_by_key(|position| is_busy(self, *position));
        let from = &rollout.from;
        let known = &mut self.workers[worker];
        if !same {
            known.given_up = Some(Target {
                edition: known.edition,
                life: Arc::clone(&known.lifecycle),
                can_go_back: rollout.can_go_back,
            });
        }
        known.edition = from.edition;
        known.lifecycle = Arc::clone(&from.life);
        known.generation = from.generation;
        known.wanted = u32::try_from(known.slots.len()).unwrap_or(u32::MAX);
        if !todo.is_empty() {
            // The old number is that of processes which may still be draining.
            known.last_generation += 1;
            known.generation = known.last_generation;
        }
        self.size_is_given_up(worker);
        // What does not run is to be started by the old definition, too.
        let old = rollout.from.edition;
        for index in self.slots_of(worker) {
            let slot = &self.slots[index];
            match slot.state {
                State::Preparing { .. } if slot.edition != old => self.stop_instance(index),
                state if state.is_busy() => {}
                _ => self.redefine(index),
            }
        }
        let degraded = Degraded {
            instance,
            since: self.ctx.now,
        };
        self.workers[worker].degraded = Some(degraded);
        rollout.back = Some(degraded);
        self.ctx.emit(Event::RolledBack {
            worker,
            instance,
            again: u32::try_from(todo.len()).unwrap_or(u32::MAX),
        });
        rollout.todo = todo.into();
        self.ctx.timers.rollouts.insert((self.ctx.now, worker));
        // What runs by it goes on.
        self.lets_go(instance, rollout.from.edition);
    }

    /// Adds those that were started by the new definition without a step, such as what had waited
    /// for a listener.
    fn find_others(&self, worker: WorkerId, from: &Definition, todo: &mut Vec<u32>) {
        let slots = &self.workers[worker].slots;
        for (position, index) in (0..).zip(slots) {
            let slot = &self.slots[*index];
            let is_other = slot.state.is_busy() && slot.edition != from.edition;
            if is_other && !todo.contains(&position) {
                todo.push(position);
            }
        }
    }

    fn finish_rollout(&mut self, worker: WorkerId, mut rollout: Rollout) {
        let known = &mut self.workers[worker];
        let instances = known.wanted;
        let generation = known.generation;
        let mut resized = None;
        if rollout.back.is_none() {
            known.degraded = None;
            known.given_up = None;
            let is_final = self.cannot_go_back(worker, &rollout);
            self.ctx.emit(Event::RolloutDone {
                worker,
                generation,
                is_final,
            });
            resized = Some(self.resize(worker, instances));
        } else {
            self.refuse_clients(worker);
        }
        for ticket in std::mem::take(&mut rollout.tickets) {
            self.ctx.answer(
                ticket,
                match rollout.back {
                    None => Answer::Done,
                    Some(Degraded { instance, .. }) => Answer::RolledBack { instance },
                },
            );
        }
        let bad = rollout.back.map(|bad| Bad::WentBack(bad.instance));
        if bad.is_some() || !self.begin_to_watch(worker, rollout) {
            self.forget_editions(worker);
        }
        match resized {
            Some(resized) => self.wait_for_size(worker, resized),
            None => self.replanned(worker, bad),
        }
    }

    /// Only the present definition of the worker is needed from now on, but for what still runs by
    /// another.
    pub(super) fn forget_editions(&mut self, worker: WorkerId) {
        self.workers[worker].outdated = true;
        self.retire_unused(worker);
    }

    /// Tells that only the present definition is needed any more as soon as that is so. What runs by
    /// another may still have a command to run after its end.
    pub(super) fn retire_unused(&mut self, worker: WorkerId) {
        let known = &self.workers[worker];
        if !known.outdated || known.removed || self.ctx.phase > Phase::Running {
            return;
        }
        let edition = known.edition;
        let needs = |slot: &Slot| {
            let is_there = slot.state.is_busy() || slot.connection.is_some();
            is_there && slot.instance.worker == worker && slot.edition != edition
        };
        if self.slots.iter().any(needs) {
            return;
        }
        self.workers[worker].outdated = false;
        self.ctx.outbox.push(Effect::Retire { worker, edition });
    }

    /// Ends a rollout: the worker is stopped as a whole.
    pub(super) fn cancel_rollout(&mut self, worker: WorkerId) {
        let Some(rollout) = self.rollouts.remove(&worker) else {
            return;
        };
        for step in &rollout.steps {
            self.slots[step.new].on_trial = false;
            if step.old.is_some() && self.slots[step.new].role == Role::Candidate {
                self.become_role(step.new, Role::Leaving);
                if self.slots[step.new].state == State::Stopped {
                    self.leave(step.new);
                }
            }
        }
        for ticket in rollout.tickets {
            self.ctx
                .answer(ticket, Answer::Refused(Refused::Superseded));
        }
    }

    /// listend stops.
    pub(super) fn forget_rollouts(&mut self) {
        let workers: Vec<WorkerId> = self.rollouts.keys().copied().collect();
        for worker in workers {
            self.cancel_rollout(worker);
        }
        self.ctx.timers.rollouts.clear();
    }
}
