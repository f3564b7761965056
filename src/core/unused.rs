//! Workers that nobody uses: stopped after `idle_timeout`, and started again by the next client.
//!
//! What is known of clients is what the kernel shows, and it is asked once in each `idle_timeout`
//! ([`Effect::LookForUse`]), whether clients are connected or not. Each look tells who is connected or waits
//! at that moment, and whether anybody has come since the look before. So a worker that two looks in a row
//! found unused, with nobody in between, was unused for all of that time; it is stopped between one and two
//! `idle_timeout`s after its last client.
//!
//! Nothing has to be done about clients that come meanwhile. Those that the ending instances accept are
//! served by them; the others wait in the queue, and start the worker again when nothing is left of it.

use super::ctx::Ctx;
use super::effect::Effect;
use super::event::{Event, WorkerEvent};
use super::idle::Look;
use super::machine::Core;
use super::state::State;
use super::time::Mono;
use super::types::{Phase, Use};
use super::worker::Worker;
use crate::plan::{Activation, WorkerId};
use std::time::Duration;

impl Worker {
    /// The time after which it is stopped, if it runs and can be stopped for want of clients.
    fn idle_timeout(&self, ctx: &Ctx) -> Option<Duration> {
        let timeout = self.lifecycle.idle_timeout?;
        let on_demand = matches!(self.lifecycle.activation, Activation::OnDemand { .. });
        let may = ctx.phase == Phase::Running && on_demand && !self.stopped && !self.removed;
        let is_up = |state: &State| match state {
            State::Preparing { .. }
            | State::Starting { .. }
            | State::Activating { .. }
            | State::Running { .. } => true,
            State::Waiting
            | State::Stopping { .. }
            | State::Cleaning { .. }
            | State::Backoff { .. }
            | State::Failed { .. }
            | State::Stopped => false,
        };
        let runs = may && self.runs.places().any(|run| is_up(&run.state));
        runs.then_some(timeout)
    }

    /// Whether it can be stopped as it is: nothing of it starts, is replaced or says that it is busy.
    fn may_be_idle(&self) -> bool {
        let is_starting = |state: &State| {
            matches!(
                state,
                State::Preparing { .. } | State::Starting { .. } | State::Activating { .. }
            )
        };
        let is_in_use = self
            .runs
            .places()
            .any(|run| is_starting(&run.state) || run.busy);
        !is_in_use && !self.is_rolling()
    }

    /// Begins or ends the looks as the worker comes and goes.
    pub(super) fn follow_use(&mut self, ctx: &mut Ctx) {
        match self.idle_timeout(ctx) {
            Some(_) if self.idle.look_at.is_some() => {}
            Some(timeout) => self.look_for_use_at(ctx, ctx.now + timeout),
            None if self.idle.look_at.is_none() => {}
            None => self.forget_use(ctx),
        }
    }

    /// What was seen means nothing any more.
    pub(super) fn forget_use(&mut self, ctx: &mut Ctx) {
        if let Some(at) = self.idle.look_at.take() {
            ctx.timers.uses.remove(&(at, self.id));
        }
        self.idle.unused_since = None;
        if let Some(look) = &mut self.idle.look {
            look.is_void = true;
        }
    }

    pub(super) fn look_for_use_at(&mut self, ctx: &mut Ctx, at: Mono) {
        if let Some(before) = self.idle.look_at.replace(at) {
            ctx.timers.uses.remove(&(before, self.id));
        }
        ctx.timers.uses.insert((at, self.id));
    }

    /// It is time to look.
    fn look_for_use(&mut self, ctx: &mut Ctx) {
        let Some(timeout) = self.idle_timeout(ctx) else {
            return self.forget_use(ctx);
        };
        // One that has not answered belongs to what has ended since.
        if !self.may_be_idle() || self.idle.look.is_some() {
            self.idle.unused_since = None;
            return self.look_for_use_at(ctx, ctx.now + timeout);
        }
        self.idle.look = Some(Look {
            since: ctx.now,
            is_void: false,
        });
        let worker = self.id;
        ctx.outbox.push(Effect::LookForUse { worker });
    }

    /// What a look has shown.
    fn use_seen(&mut self, ctx: &mut Ctx, seen: Use) {
        let Some(look) = self.idle.look.take() else {
            return ctx.ignore();
        };
        let Some(timeout) = self.idle_timeout(ctx).filter(|_| !look.is_void) else {
            return;
        };
        let unused_since = match seen {
            Use::None if self.may_be_idle() => self.idle.unused_since.unwrap_or(look.since),
            // Whoever has come is gone.
            Use::Before if self.may_be_idle() => look.since,
            Use::None | Use::Before | Use::Now | Use::Unknown => {
                self.idle.unused_since = None;
                return self.look_for_use_at(ctx, ctx.now + timeout);
            }
        };
        self.idle.unused_since = Some(unused_since);
        let enough = unused_since + timeout;
        if seen == Use::None && look.since >= enough {
            self.stop_unused(ctx, look.since.since(unused_since));
        } else {
            // At least one `idle_timeout` after the look, since that has found nobody before.
            self.look_for_use_at(ctx, enough.max(ctx.now));
        }
    }

    /// Stops what runs, to be started again by the next client.
    fn stop_unused(&mut self, ctx: &mut Ctx, after: Duration) {
        self.forget_use(ctx);
        self.idle.stopped_at = Some(ctx.now);
        let placed = self.runs.placed();
        let runs = |state: &State| matches!(state, State::Running { .. });
        let instances = self.runs.places().filter(|run| runs(&run.state)).count();
        let instances = u32::try_from(instances).unwrap_or(u32::MAX);
        ctx.emit(Event::Worker(
            self.id,
            WorkerEvent::Unused { after, instances },
        ));
        for id in placed {
            match self.runs[id].state {
                State::Running { .. } => {
                    self.comes_back(id, true);
                    self.stop_instance(ctx, id);
                }
                State::Backoff { .. } => self.become_state(ctx, id, State::Waiting),
                State::Waiting
                | State::Preparing { .. }
                | State::Starting { .. }
                | State::Activating { .. }
                | State::Stopping { .. }
                | State::Cleaning { .. }
                | State::Failed { .. }
                | State::Stopped => {}
            }
        }
    }

    /// Another core has looked, and what has come since then is not known: the first look is now.
    pub(super) fn resume_use(&mut self, ctx: &mut Ctx) {
        if self.idle_timeout(ctx).is_some() {
            self.look_for_use_at(ctx, ctx.now);
        }
    }
}

impl Core {
    /// Looks at what is due.
    pub(super) fn run_use_timers(&mut self) {
        let now = self.ctx.now;
        while let Some((at, id)) = self.ctx.timers.uses.first().copied()
            && at <= now
        {
            self.ctx.timers.uses.remove(&(at, id));
            self.on(id, Worker::look_for_use);
        }
    }

    /// Who uses a worker.
    pub(super) fn use_seen(&mut self, worker: WorkerId, seen: Use) {
        let known = self.on(worker, |worker, ctx| {
            ctx.stir(worker.id);
            worker.use_seen(ctx, seen);
        });
        if known.is_none() {
            self.ctx.ignore();
        }
    }

    /// Since when a worker is stopped because nobody uses it.
    pub fn unused_since(&self, worker: WorkerId) -> Option<Mono> {
        self.workers.get(&worker)?.idle.stopped_at
    }
}
