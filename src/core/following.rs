//! Instances that follow the queues: more of them while clients wait, fewer when none do.
//!
//! While a worker runs, its queues are looked at once in [`EVERY`]. What stays above `scale_up_at` for
//! [`UP_AFTER`], and does not become shorter, adds one instance, and the next only when that is ready and the
//! queue has stayed as long again. What stays at half of it or below for a longer time removes the newest.
//! That time is [`super::scaling::DOWN_AFTER`] at first. It doubles each time that an instance was missed
//! soon after it was removed ([`Follows::learn`]), and halves each time that it was not, so that a load that
//! comes and goes does not start and stop it without end.
//!
//! A short queue does not say that fewer would do. That is found out by removing one, and how often that is
//! tried is what the doubling limits.
//!
//! An instance that does not start well, or has failed, adds nothing: then no other is added. A worker that
//! accepts nobody gets as many as it may have, one after the other, and keeps them. With shards, all queues
//! together count, and an instance in whose own somebody waits is not removed: nobody else would serve it.
//!
//! [`Follows::learn`]: super::scaling::Follows::learn

use super::ctx::Ctx;
use super::effect::Effect;
use super::event::{Event, WorkerEvent};
use super::machine::Core;
use super::scaling::{EVERY, UP_AFTER};
use super::shards::has_shards;
use super::state::State;
use super::time::Mono;
use super::types::Phase;
use super::worker::Worker;
use crate::config::Scaling;
use crate::plan::{Lifecycle, WorkerId};

impl Worker {
    /// What it follows, if it does now.
    fn follows(&self, ctx: &Ctx) -> Option<Scaling> {
        let scaling = self.lifecycle.scaling?;
        let may = ctx.phase == Phase::Running
            && !self.follows.is_overridden
            && !self.stopped
            && !self.removed;
        let mut runs = self.runs.places();
        let runs = may && runs.any(|run| run.state.is_busy());
        runs.then_some(scaling)
    }

    /// Begins or ends the looks as the worker comes and goes.
    pub(super) fn follow_queues(&mut self, ctx: &mut Ctx) {
        let Some(scaling) = self.follows(ctx) else {
            return self.forget_queues(ctx);
        };
        if self.follows.look_at.is_none() {
            self.look_at_queues_at(ctx, ctx.now + EVERY);
        }
        // A rollback has left as many as there were before.
        let before = u32::try_from(self.runs.len()).unwrap_or(u32::MAX);
        let least = self.lifecycle.instances;
        let instances = before.clamp(least, scaling.max.max(least));
        if instances != before && !self.is_rolling() && self.jobs.is_empty() {
            self.wanted = instances;
            let _nobody_waits_for_it = self.resize(ctx, instances);
        }
    }

    pub(super) fn forget_queues(&mut self, ctx: &mut Ctx) {
        if let Some(at) = self.follows.look_at.take() {
            ctx.timers.queues.remove(&(at, self.id));
        }
        self.follows.above = None;
        self.follows.below_since = None;
    }

    fn look_at_queues_at(&mut self, ctx: &mut Ctx, at: Mono) {
        self.follows.look_at = Some(at);
        ctx.timers.queues.insert((at, self.id));
    }

    /// So many clients wait in each queue of the worker; `None` is not known.
    pub(super) fn queues_seen(&mut self, ctx: &mut Ctx, waiting: Option<&[u64]>) {
        let (Some(scaling), Some(queues)) = (self.follows(ctx), waiting) else {
            self.follows.above = None;
            self.follows.below_since = None;
            return;
        };
        let now = ctx.now;
        // Shards beyond the most are those of no instance that could be added.
        let counted = queues.iter().take(scaling.max as usize).copied();
        let waiting = counted.fold(0, u64::saturating_add);
        let many = u64::from(scaling.scale_up_at);
        let few = many / 2;
        // What becomes shorter by itself is not above.
        let above = self.follows.above;
        let above = above.filter(|(_, before)| waiting >= before - before / 4);
        self.follows.above = (waiting > many).then(|| above.unwrap_or((now, waiting)));
        let below = self.follows.below_since;
        self.follows.below_since = (waiting <= few).then(|| below.unwrap_or(now));
        // Whoever has asked for something gets it first.
        if self.is_rolling() || !self.jobs.is_empty() {
            return;
        }
        let before = u32::try_from(self.runs.len()).unwrap_or(u32::MAX);
        let lasting = |since: Option<Mono>, least| {
            let time = since.map(|at| now.since(at));
            time.filter(|time| *time >= least)
        };
        let above = lasting(self.follows.above.map(|(since, _)| since), UP_AFTER);
        let below = lasting(self.follows.below_since, self.follows.down_after());
        let scaled = |instances, limit, lasting| WorkerEvent::Scaled {
            before,
            instances,
            waiting,
            limit,
            lasting,
        };
        if let Some(time) = above
            && before < scaling.max
            && self.all_serve()
        {
            self.follows.learn(now);
            self.follow_to(ctx, before + 1, scaled(before + 1, many, time));
        } else if let Some(time) = below
            && before > self.lifecycle.instances
            && !self.is_only_one_for(queues)
        {
            self.follows.removed_at = Some(now);
            self.follow_to(ctx, before - 1, scaled(before - 1, few, time));
        }
    }

    /// Whether clients wait where none but the newest instance accepts.
    fn is_only_one_for(&self, queues: &[u64]) -> bool {
        let newest = self.runs.len().checked_sub(1);
        let its = newest.and_then(|newest| queues.get(newest));
        has_shards(&self.lifecycle) && its.is_some_and(|waiting| *waiting > 0)
    }

    /// Whether every instance is ready: one more is of use only then.
    fn all_serve(&self) -> bool {
        let mut places = self.runs.places();
        places.all(|run| matches!(run.state, State::Running { .. }))
    }

    fn follow_to(&mut self, ctx: &mut Ctx, instances: u32, why: WorkerEvent) {
        self.follows.above = None;
        self.follows.below_since = None;
        self.wanted = instances;
        ctx.emit(Event::Worker(self.id, why));
        let _nobody_waits_for_it = self.resize(ctx, instances);
        ctx.stir(self.id);
    }

    /// Nothing runs, and clients are to start it: as few as there may be.
    pub(super) fn begin_with_least(&mut self, ctx: &mut Ctx) {
        let least = self.lifecycle.instances;
        if self.lifecycle.scaling.is_some()
            && !self.follows.is_overridden
            && self.runs.len() > least as usize
        {
            self.wanted = least;
            let _nothing_runs = self.resize(ctx, least);
        }
    }

    /// How many instances there are to be by other terms, where those are others; whether they are. What somebody has
    /// said about the number is over then.
    pub(super) fn expect_instances(&mut self, life: &Lifecycle) -> bool {
        let terms = |life: &Lifecycle| (life.instances, life.scaling);
        if terms(&self.lifecycle) == terms(life) {
            return false;
        }
        self.follows.is_overridden = false;
        self.wanted = match life.scaling {
            Some(scaling) => self.within(scaling, life.instances),
            None => life.instances,
        };
        true
    }

    /// As many as there are to be, within the range.
    pub(super) fn within(&self, scaling: Scaling, least: u32) -> u32 {
        self.wanted.clamp(least, scaling.max.max(least))
    }
}

impl Core {
    pub(super) fn run_queue_timers(&mut self) {
        let now = self.ctx.now;
        while let Some((at, id)) = self.ctx.timers.queues.first().copied()
            && at <= now
        {
            self.ctx.timers.queues.remove(&(at, id));
            self.on(id, |worker, ctx| {
                worker.follows.look_at = None;
                ctx.stir(worker.id);
                if worker.follows(ctx).is_some() {
                    worker.look_at_queues_at(ctx, now + EVERY);
                    ctx.outbox.push(Effect::LookAtQueues { worker: worker.id });
                }
            });
        }
    }

    /// How many wait for a worker.
    pub(super) fn queues_seen(&mut self, worker: WorkerId, waiting: Option<&[u64]>) {
        let known = self.on(worker, |worker, ctx| {
            ctx.stir(worker.id);
            worker.queues_seen(ctx, waiting);
        });
        if known.is_none() {
            self.ctx.ignore();
        }
    }

    /// Whether somebody has said how many instances there are to be, of a worker that otherwise follows its
    /// queues; `None` of any other.
    pub fn is_overridden(&self, worker: WorkerId) -> Option<bool> {
        let worker = self.workers.get(&worker)?;
        worker.lifecycle.scaling?;
        Some(worker.follows.is_overridden)
    }
}
