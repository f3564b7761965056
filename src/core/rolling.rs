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
//!
//! `turn_back` is the only way back, and `advance_rollout` its only caller, for one of two reasons: the
//! step of a new instance has failed (`advance_step`), or one that was promoted has crashed
//! (`Rollout::crashed`). What ends a run ([`super::process`]) sees both coming, and says
//! `Next::RolledBack`.

use super::backoff::History;
use super::ctx::Ctx;
use super::effect::Effect;
use super::event::{Event, RolloutEvent};
use super::rollout::{At, Course, Definition, Rollout, Step, StepStage, Target};
use super::run::Run;
use super::shards::has_shards;
use super::state::State;
use super::types::{
    Answer, Bad, Degraded, InstanceId, Next, Phase, Refused, RunId, RunRole, Ticket,
};
use super::worker::Worker;
use crate::config::Order;
use crate::plan::Lifecycle;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// What a step comes to when it is looked at.
enum Outcome {
    Wait,
    Done,
    Failed,
}

impl Worker {
    pub(super) fn definition(&self) -> Definition {
        Definition {
            revision: self.revision,
            life: Arc::clone(&self.lifecycle),
            generation: self.generation,
        }
    }

    /// Replaces all instances of a worker by ones of this definition, or of the same one again; or only the
    /// one in this place. How many that will be.
    pub(super) fn roll_out(
        &mut self,
        ctx: &mut Ctx,
        ticket: Option<Ticket>,
        to: Option<Target>,
        only: Option<u32>,
    ) -> u32 {
        self.redefine_what_is_outdated();
        // What has proven itself is gone back to, and not what was being tried. What is only watched
        // serves.
        let before = self.rollout.take();
        if let Some(before) = &before {
            ctx.drawn.hold(before.course(), Course::Over);
        }
        let before = before.filter(|before| before.watched.is_none());
        let can_go_back = match (&to, &before) {
            (Some(to), _) => to.can_go_back,
            (None, Some(before)) => before.can_go_back,
            (None, None) => false,
        };
        let from = match before {
            Some(before) => {
                let next = to.as_ref().map_or(&self.lifecycle, |to| &to.life);
                let next = Arc::clone(next);
                self.supersede_rollout(ctx, *before, &next)
            }
            None => self.definition(),
        };
        let _what_follows_is_waited_for = self.supersede(ctx);
        self.next_generation();
        self.outdated = false;
        if let Some(to) = to {
            self.expect_instances(&to.life);
            self.revision = to.revision;
            self.lifecycle = to.life;
            self.given_up = None;
        }
        let generation = self.generation;
        let is_stopped = self.stopped;
        self.forgive_connections();
        if !is_stopped {
            ctx.take_clients_again(self.id);
        }
        let positions = self.runs.placed();
        let mut todo = VecDeque::new();
        let is_meant = |(position, _): &(u32, RunId)| only.is_none_or(|only| only == *position);
        for (position, id) in (0..).zip(positions).filter(is_meant) {
            let runs = match self.runs[id].state {
                State::Waiting => false,
                State::Backoff { .. } | State::Failed { .. } | State::Stopped => {
                    self.is_eager() && !self.stopped
                }
                State::Preparing { .. }
                | State::Starting { .. }
                | State::Activating { .. }
                | State::Running { .. }
                | State::Stopping { .. }
                | State::Cleaning { .. } => true,
            };
            // A worker that was stopped stays so.
            if runs && self.stopped {
                continue;
            }
            if runs {
                todo.push_back(position);
                continue;
            }
            self.redefine(id);
            if !self.is_eager() && !self.stopped {
                self.become_state(ctx, id, State::Waiting);
            }
        }
        let of = u32::try_from(todo.len()).unwrap_or(u32::MAX);
        ctx.emit(Event::Rollout(
            self.id,
            RolloutEvent::Started {
                generation,
                instances: of,
                only,
            },
        ));
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
        self.rollout = Some(Box::new(rollout));
        ctx.stir(self.id);
        of
    }

    /// Ends a rollout whose place another takes, to these terms: what was on trial is stopped. Answers
    /// what the other is to go back to.
    fn supersede_rollout(
        &mut self,
        ctx: &mut Ctx,
        before: Rollout,
        next: &Lifecycle,
    ) -> Definition {
        self.give_up_trials(ctx, &before.steps, next);
        for ticket in before.tickets {
            ctx.answer(ticket, Answer::Refused(Refused::Superseded));
        }
        // Whoever waits for the reload that it was for waits for this one's end.
        before.from
    }

    /// Stops the new instances that have not been promoted. Those that have taken the run of the
    /// old one are stopped in it. What follows is of these terms.
    fn give_up_trials(&mut self, ctx: &mut Ctx, steps: &[Step], next: &Lifecycle) {
        for step in steps {
            ctx.drawn.hold(step.at.stage(), StepStage::GivenUp);
            match step.at {
                // What still serves its shard was told nothing.
                At::MakingRoom => self.drain_no_more(ctx, step.new),
                At::Draining => {}
                At::Starting | At::Settling(_) if step.old.is_some() => self.retire(ctx, step.new),
                At::Starting | At::Settling(_) => {
                    // Who waits where what follows will not accept is served until its own step.
                    if has_shards(next) || !self.is_alone_at_shard(ctx, step.new) {
                        self.stop_instance(ctx, step.new);
                    }
                }
            }
        }
    }

    /// Whether an instance has ended, or is about to, and no other start of it is to come.
    pub(super) fn goes_down(&self, id: RunId) -> bool {
        let run = &self.runs[id];
        let again = self.runs.instance(id).is_some_and(|one| one.again);
        let is_wanted = again || run.fault.is_some() || run.by_itself || run.is_to_drain();
        match run.state {
            State::Stopped => true,
            State::Preparing { cancelled, .. } => cancelled && !is_wanted,
            State::Starting { ending, .. } => ending.is_some() && !is_wanted,
            State::Stopping { .. } => !is_wanted,
            State::Cleaning { next, .. } => {
                !matches!(next, Next::RestartIn(_) | Next::AtNextClient { .. })
            }
            // What has failed did so by itself.
            State::Failed { .. }
            | State::Waiting
            | State::Activating { .. }
            | State::Running { .. }
            | State::Backoff { .. } => false,
        }
    }

    /// Whether an instance is to end before its successor starts.
    pub(super) fn makes_room(&self, id: RunId) -> bool {
        let steps = self.rollout.iter().flat_map(|rollout| &rollout.steps);
        let mut steps = steps.filter(|step| step.at == At::MakingRoom);
        steps.any(|step| step.new == id)
    }

    /// Lets an instance that does not run be of the worker's present definition from its next start
    /// on.
    pub(super) fn redefine(&mut self, id: RunId) {
        if self.runs.is_placed(id) {
            self.find_name(self.runs[id].instance.index);
        }
        let now_is = self.definition();
        self.define(id, now_is);
    }

    fn define(&mut self, id: RunId, by: Definition) {
        let run = &mut self.runs[id];
        run.instance.generation = by.generation;
        run.revision = by.revision;
        run.life = by.life;
        run.drain = None;
        if let Some(instance) = self.runs.instance_mut(id) {
            instance.history = History::default();
        }
    }

    /// Lets an instance that is about to start be of the worker's present definition or, while that
    /// is being tried, of the one that is gone back to. Never of one that was no good.
    pub(super) fn bring_up_to_date(&mut self, id: RunId) {
        let revision = self.runs[id].revision;
        let is_one = self.runs.is_placed(id) || self.runs.is_connection(id);
        // What drains has the shard of what it is.
        if !is_one || revision == self.revision || self.runs[id].is_to_drain() {
            return;
        }
        let is_tried = |rollout: &&Rollout| rollout.back.is_none() && rollout.watched.is_none();
        let Some(rollout) = self.rollout.as_deref().filter(is_tried) else {
            return self.redefine(id);
        };
        if rollout.from.revision == revision {
            return;
        }
        let from = rollout.from.clone();
        self.last_generation += 1;
        let generation = self.last_generation;
        self.define(id, Definition { generation, ..from });
    }

    /// Goes on until nothing more can be done at this moment.
    pub(super) fn advance_rollout(&mut self, ctx: &mut Ctx) {
        let Some(mut rollout) = self.rollout.take() else {
            return;
        };
        ctx.timers.rollout(self.id, None);
        if let Some(instance) = rollout.crashed.take() {
            self.turn_back(ctx, &mut rollout, instance);
        }
        if let Some(until) = rollout.watched {
            return self.watch_rollout(ctx, rollout, until);
        }
        loop {
            let mut goes_on = false;
            // Those that run come last: none takes a place when another turns out to be no good.
            let runs = |step: &Step| matches!(self.runs[step.new].state, State::Running { .. });
            rollout.steps.sort_by_key(|step| !runs(step));
            for at in (0..rollout.steps.len()).rev() {
                let mut step = rollout.steps[at];
                let outcome = self.advance_step(ctx, &mut step, rollout.back.is_some());
                rollout.steps[at] = step;
                let stage = step.at.stage();
                match outcome {
                    Outcome::Wait => {}
                    Outcome::Done => {
                        ctx.drawn.hold(stage, StepStage::Done);
                        rollout.steps.swap_remove(at);
                        self.count_step(ctx, &mut rollout, step.position);
                        goes_on = true;
                    }
                    Outcome::Failed => {
                        ctx.drawn.hold(stage, StepStage::Failed);
                        let instance = self.runs[step.new].instance;
                        self.turn_back(ctx, &mut rollout, instance);
                        goes_on = true;
                        break;
                    }
                }
            }
            let parallel = match self.lifecycle.rollout.parallel {
                _ if self.is_opposed(ctx) => u32::MAX,
                parallel => parallel,
            };
            if !rollout.todo.is_empty() {
                ctx.take_clients_again(self.id);
            }
            // A server without its sockets can only fail: what is there goes on until they are.
            let waits =
                ctx.listeners.lacks_or_has_closed(self.id) || self.is_opposed_by_leavers(ctx);
            if !rollout.todo.is_empty() && ctx.listeners.lacks(self.id) {
                // As for a worker that is new: nobody knows how long that takes.
                ctx.replanned(self.id, rollout.bad());
            }
            while !waits
                && rollout.steps.len() < parallel.max(1) as usize
                && let Some(position) = rollout.todo.pop_front()
            {
                let step = self.begin_step(ctx, position, rollout.back.is_some());
                rollout.steps.extend(step);
                goes_on = true;
            }
            if rollout.steps.is_empty() && rollout.todo.is_empty() {
                return self.finish_rollout(ctx, rollout);
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
        let at = settle.filter(|at| *at > ctx.now).min();
        ctx.timers.rollout(self.id, at);
        self.rollout = Some(rollout);
    }

    fn count_step(&mut self, ctx: &mut Ctx, rollout: &mut Rollout, position: u32) {
        if rollout.back.is_some() {
            return;
        }
        rollout.replaced.push(position);
        rollout.done += 1;
        for ticket in rollout.tickets.clone() {
            let (done, of) = (rollout.done, rollout.of);
            ctx.answer(ticket, Answer::Progress { done, of });
        }
    }

    /// Begins to replace one instance; `None` if it is not there any more.
    fn begin_step(&mut self, ctx: &mut Ctx, position: u32, back: bool) -> Option<Step> {
        let old = self.runs.at(position)?;
        let is_opposed = self.is_opposed(ctx);
        let order = match self.lifecycle.rollout.order {
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
        let run = &self.runs[old];
        // It has ended meanwhile, and come back as what it is to be.
        let is_back = back && run.instance.generation == self.generation;
        if run.state.is_busy() && is_back && run.revision == self.revision {
            return None;
        }
        if self.drain_once_more(ctx, old) {
            return step(old, None, At::MakingRoom);
        }
        if !self.runs[old].state.is_busy() && is_opposed {
            // Or it came back by itself, as what it was, and would never make room.
            self.comes_back(old, false);
            self.stop_instance(ctx, old);
            return step(old, None, At::MakingRoom);
        }
        if !self.runs[old].state.is_busy() {
            self.redefine(old);
            self.spawn(ctx, old);
            return step(old, None, At::Starting);
        }
        // What has ended serves nobody any more, and what comes beside it may fail as well: then
        // nothing would start in its place.
        let has_ended = back && matches!(self.runs[old].state, State::Cleaning { .. });
        match order {
            Order::StartFirst if !has_ended => {
                let new = self.add_candidate(ctx, position);
                self.spawn(ctx, new);
                step(new, Some(old), At::Starting)
            }
            Order::StartFirst | Order::StopFirst => {
                self.comes_back(old, false);
                // Who waits where what follows will not accept is served before.
                if has_shards(&self.lifecycle) || !self.drain(ctx, old) {
                    self.stop_instance(ctx, old);
                }
                step(old, None, At::MakingRoom)
            }
        }
    }

    fn has_to_wait(&self, ctx: &Ctx) -> bool {
        ctx.listeners.lacks_or_has_closed(self.id) || self.is_opposed(ctx)
    }

    fn advance_step(&mut self, ctx: &mut Ctx, step: &mut Step, back: bool) -> Outcome {
        loop {
            let state = &self.runs[step.new].state;
            match step.at {
                At::MakingRoom if state.is_busy() || self.runs[step.new].is_to_drain() => {
                    return Outcome::Wait;
                }
                At::MakingRoom if self.has_to_wait(ctx) => {
                    return Outcome::Wait;
                }
                At::MakingRoom => {
                    self.redefine(step.new);
                    self.spawn(ctx, step.new);
                    step.reach(&mut ctx.drawn, At::Starting);
                }
                At::Starting => match state {
                    State::Running { .. } => {
                        let min_ready = match back {
                            true => Duration::ZERO,
                            false => self.runs[step.new].life.rollout.min_ready,
                        };
                        step.reach(
                            &mut ctx.drawn,
                            At::Settling(self.runs[step.new].since + min_ready),
                        );
                    }
                    // It is started again to get a listener, as soon as that is bound.
                    State::Backoff { .. } if !back => return Outcome::Wait,
                    State::Waiting if !back && self.waits_for_a_listener(ctx) => {
                        return Outcome::Wait;
                    }
                    // It has served whoever was there, and waits for the next.
                    State::Waiting if self.is_on_demand(step.new) => {
                        step.reach(&mut ctx.drawn, At::Settling(ctx.now))
                    }
                    state if state.is_busy() => return Outcome::Wait,
                    _ => return self.no_good(ctx, step, back),
                },
                At::Settling(until) => match state {
                    State::Running { .. } if until > ctx.now => return Outcome::Wait,
                    State::Waiting if !back && self.waits_for_a_listener(ctx) => {
                        step.reach(&mut ctx.drawn, At::Starting);
                    }
                    State::Waiting if !self.is_on_demand(step.new) => {
                        return self.no_good(ctx, step, back);
                    }
                    State::Running { .. } | State::Waiting => {
                        self.promote(ctx, step);
                        step.reach(&mut ctx.drawn, At::Draining);
                    }
                    // It is being ended, and what it comes to is known when it has.
                    State::Stopping { .. } | State::Cleaning { .. } => return Outcome::Wait,
                    state if state.is_busy() => step.reach(&mut ctx.drawn, At::Starting),
                    State::Backoff { .. } => step.reach(&mut ctx.drawn, At::Starting),
                    _ => return self.no_good(ctx, step, back),
                },
                At::Draining => {
                    let drains = step.old.filter(|old| self.runs.is_leaving(*old));
                    let drains = drains.is_some_and(|old| {
                        let state = &self.runs[old].state;
                        // What keeps its flows may do so for long, and nothing waits for it.
                        state.is_busy() && !matches!(state, State::Running { .. })
                    });
                    return if drains { Outcome::Wait } else { Outcome::Done };
                }
            }
        }
    }

    /// A new instance has ended. On the way back there is nothing better to be had than what still
    /// runs, and where nothing does its restart policy decides.
    fn no_good(&mut self, ctx: &mut Ctx, step: &Step, back: bool) -> Outcome {
        if !back {
            return Outcome::Failed;
        }
        if step.old.is_some() {
            self.retire(ctx, step.new);
        }
        Outcome::Done
    }

    /// The new instance takes the place of the old one, which is asked to stop.
    fn promote(&mut self, ctx: &mut Ctx, step: &Step) {
        if step.old.is_some()
            && let Some(old) = self.runs.promote(step.new)
        {
            self.take_flows(ctx, step.new);
            if self.may_keep_flows(ctx, old, step.new) {
                self.keep_flows(ctx, old);
            } else {
                self.retire(ctx, old);
            }
        }
    }

    /// The rollout goes back: a new instance was no good.
    fn turn_back(&mut self, ctx: &mut Ctx, rollout: &mut Rollout, instance: InstanceId) {
        ctx.drawn.hold(rollout.course(), Course::Back);
        let steps = std::mem::take(&mut rollout.steps);
        let next = Arc::clone(&rollout.from.life);
        self.give_up_trials(ctx, &steps, &next);
        rollout.watched = None;
        let is_busy = |worker: &Worker, position: u32| {
            let id = worker.runs.at(position);
            id.is_some_and(|id| worker.runs[id].state.is_busy())
        };
        let same = rollout.from.revision == self.revision;
        let draining = |step: &&Step| step.at == At::Draining;
        // What was to make room, and has not been asked to, goes on.
        let goes_on = |step: &Step| {
            let state = &self.runs[step.new].state;
            step.at == At::MakingRoom && state.process().is_some() && state.ending().is_none()
        };
        let is_down = |worker: &Worker, position: u32| {
            let id = worker.runs.at(position);
            id.is_some_and(|id| worker.goes_down(id))
        };
        // Of those that have another beside them, what was asked to end before goes on no more than what makes room.
        let in_place = |step: &&Step| {
            let goes_down = step.old.is_none() || is_down(self, step.position);
            goes_down && step.at != At::Draining
        };
        let again = steps.iter().filter(in_place);
        let again = again.filter(|step| !goes_on(step));
        let again = again.map(|step| step.position);
        let promoted = steps.iter().filter(draining).map(|step| step.position);
        let replaced = std::mem::take(&mut rollout.replaced).into_iter();
        // What has been replaced by the same definition, and runs, is as good as it can be.
        let replaced = promoted.chain(replaced);
        let replaced = replaced.filter(|position| !(same && is_busy(self, *position)));
        // What did not run when the rollout began was to be started by it.
        let begun = std::mem::take(&mut rollout.todo).into_iter();
        let down = begun.filter(|position| !is_busy(self, *position) || is_down(self, *position));
        // One that was promoted, and has crashed.
        let place = self.runs.at(instance.index);
        let crashed = place.filter(|id| self.runs[*id].instance == instance);
        let crashed = crashed.map(|_| instance.index);
        let mut todo: Vec<u32> = again.chain(replaced).chain(down).collect();
        todo.extend(crashed.filter(|position| !todo.contains(position)));
        self.find_others(&rollout.from, &mut todo);
        // Those that nothing runs for come first.
        todo.sort_by_key(|position| is_busy(self, *position));
        let from = &rollout.from;
        if !same {
            self.given_up = Some(Target {
                revision: self.revision,
                life: Arc::clone(&self.lifecycle),
                can_go_back: rollout.can_go_back,
            });
            ctx.replanned_in_vain(self.id, Bad::WentBack(instance));
        }
        self.revision = from.revision;
        self.lifecycle = Arc::clone(&from.life);
        self.generation = from.generation;
        self.wanted = u32::try_from(self.runs.len()).unwrap_or(u32::MAX);
        if !todo.is_empty() {
            // The old number is that of processes which may still be draining.
            self.next_generation();
        }
        self.give_up_size();
        // What does not run is to be started by the old definition, too.
        let old = rollout.from.revision;
        for (position, id) in (0..).zip(self.runs.placed()) {
            let run = &self.runs[id];
            let is_busy = run.state.is_busy();
            if matches!(run.state, State::Preparing { .. }) && run.revision != old {
                self.stop_instance(ctx, id);
            }
            // Who waits in its shard is served before its step, which makes it another.
            let is_due = !is_busy && todo.contains(&position);
            let is_drained_first = is_due && self.drain_once_more(ctx, id);
            if !is_busy && !is_drained_first {
                self.redefine(id);
            }
        }
        let degraded = Degraded {
            instance,
            since: ctx.now,
        };
        self.degraded = Some(degraded);
        rollout.back = Some(degraded);
        ctx.emit(Event::Rollout(
            self.id,
            RolloutEvent::RolledBack {
                instance,
                again: u32::try_from(todo.len()).unwrap_or(u32::MAX),
            },
        ));
        rollout.todo = todo.into();
        // What runs by it goes on.
        ctx.let_go.insert((self.id, rollout.from.revision));
    }

    /// Adds those that were started by the new definition without a step, such as what had waited
    /// for a listener.
    fn find_others(&self, from: &Definition, todo: &mut Vec<u32>) {
        for (position, run) in (0..).zip(self.runs.places()) {
            let is_other = run.state.is_busy() && run.revision != from.revision;
            if is_other && !todo.contains(&position) {
                todo.push(position);
            }
        }
    }

    fn finish_rollout(&mut self, ctx: &mut Ctx, mut rollout: Box<Rollout>) {
        let course = rollout.course();
        let instances = self.wanted;
        let generation = self.generation;
        let mut resized = None;
        if rollout.back.is_none() {
            // What was given up is not what one of the instances was restarted by.
            if self.given_up.is_none() {
                self.degraded = None;
            }
            let is_final = self.cannot_go_back(&rollout);
            ctx.emit(Event::Rollout(
                self.id,
                RolloutEvent::Done {
                    generation,
                    is_final,
                },
            ));
            resized = Some(self.resize(ctx, instances));
        } else {
            ctx.failing.insert(self.id);
        }
        let bad = rollout.bad();
        for ticket in std::mem::take(&mut rollout.tickets) {
            ctx.answer(ticket, Answer::of(bad.into_iter().collect()));
        }
        if bad.is_some() || !self.begin_to_watch(ctx, rollout) {
            ctx.drawn.hold(course, Course::Over);
            self.forget_revisions(ctx);
        }
        match resized {
            Some(resized) => self.wait_for_size(ctx, resized),
            None => ctx.replanned(self.id, bad),
        }
    }

    /// Only the present definition of the worker is needed from now on, but for what still runs by
    /// another.
    pub(super) fn forget_revisions(&mut self, ctx: &mut Ctx) {
        self.outdated = true;
        self.retire_unused(ctx);
    }

    /// What does not run and would start by a definition before, whose sockets are closed, is of the present one.
    pub(super) fn redefine_what_is_outdated(&mut self) {
        if self.outdated || self.rollout.is_some() {
            return;
        }
        for id in self.runs.placed() {
            let run = &self.runs[id];
            if !run.state.is_busy() && run.revision != self.revision {
                self.redefine(id);
            }
        }
    }

    /// Tells that only the present definition is needed any more as soon as that is so. What runs by
    /// another may still have a command to run after its end.
    pub(super) fn retire_unused(&mut self, ctx: &mut Ctx) {
        if !self.outdated || self.removed || ctx.phase > Phase::Running {
            return;
        }
        let revision = self.revision;
        let is_other = |run: &Run| run.revision != revision;
        // What is to drain may be between two starts.
        let is_busy = |run: &&Run| run.state.is_busy() || run.is_to_drain();
        let mut busy = self.runs.all().filter(is_busy);
        let mut connections = self.runs.connections();
        if busy.any(is_other) || connections.any(|one| is_other(&one.run)) {
            return;
        }
        self.outdated = false;
        ctx.outbox.push(Effect::Retire {
            worker: self.id,
            needed: Some(revision),
        });
    }

    /// Ends a rollout: the worker is stopped as a whole.
    pub(super) fn cancel_rollout(&mut self, ctx: &mut Ctx) {
        let Some(rollout) = self.rollout.take() else {
            return;
        };
        ctx.drawn.hold(rollout.course(), Course::Over);
        ctx.timers.rollout(self.id, None);
        for step in &rollout.steps {
            if step.old.is_some() && self.role(step.new) == RunRole::Candidate {
                self.runs.send_off(step.new);
                if self.runs[step.new].state == State::Stopped {
                    self.leave(ctx, step.new);
                }
            }
        }
        for ticket in rollout.tickets {
            ctx.answer(ticket, Answer::Refused(Refused::Superseded));
        }
    }
}
