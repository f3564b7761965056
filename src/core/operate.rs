//! What people ask for: start, stop, restart, scale, signal, reset. To reload is in `super::reload`.
//!
//! A request is a *job* until it is done: a worker's instances are brought to where they are wanted, and
//! whoever asked hears of each that is there. A command takes the place of the one that is under way
//! for the worker, so that one that was interrupted can be asked again; a start joins it. While a
//! rollout is under way its size stays as it is.
//!
//! A worker that was stopped stays so, whatever its restart policy and however many clients come,
//! until it is started again. Its listeners stay bound: clients wait.

use super::backoff::History;
use super::ctx::Ctx;
use super::effect::Effect;
use super::job::{Goal, Job, Resized, Waiter};
use super::run::Run;
use super::state::State;
use super::types::{
    AT_NEXT_CLIENT, Answer, Bad, Command, Next, Phase, ProcessId, Refused, RunId, Scope, Ticket,
};
use super::worker::Worker;
use crate::plan::{Activation, ListenerId};
use std::time::Duration;

impl Worker {
    pub(super) fn operate(&mut self, ctx: &mut Ctx, ticket: Ticket, command: Command) {
        if let Err(why) = self.try_to_operate(ctx, ticket, command) {
            ctx.answer(ticket, Answer::Refused(why));
        }
        self.announce(ctx, ticket);
    }

    fn try_to_operate(
        &mut self,
        ctx: &mut Ctx,
        ticket: Ticket,
        command: Command,
    ) -> Result<(), Refused> {
        if self.removed {
            return Err(Refused::NoSuchWorker);
        }
        if ctx.phase != Phase::Running {
            return Err(Refused::NotRunning);
        }
        let is_rolling = self.is_rolling();
        match command {
            Command::Scale(_) | Command::Follow | Command::Reset if is_rolling => {
                return Err(Refused::Busy);
            }
            Command::Stop => {
                let reload_waits = self.supersede(ctx);
                let bad = self.rollout.as_ref().and_then(|rollout| rollout.bad());
                if is_rolling {
                    self.cancel_rollout(ctx);
                    self.outdated = true;
                }
                if reload_waits || is_rolling {
                    ctx.replanned(self.id, bad);
                }
                self.end_watch(ctx);
            }
            Command::Start if is_rolling => {
                self.join_rollout(ctx, ticket);
                return Ok(());
            }
            Command::Start
            | Command::Restart
            | Command::Scale(_)
            | Command::Follow
            | Command::Signal(_)
            | Command::Reset
            | Command::Reload => {}
        }
        match command {
            Command::Start => self.start_worker(ctx, ticket),
            Command::Stop => {
                self.stop_worker(ctx, ticket);
                Ok(())
            }
            Command::Restart => self.restart_worker(ctx, ticket),
            Command::Scale(instances) => {
                self.scale_worker(ctx, ticket, instances)?;
                self.follows.is_overridden = true;
                ctx.stir(self.id);
                Ok(())
            }
            Command::Follow => {
                let scaling = self.lifecycle.scaling.ok_or(Refused::NoScaling)?;
                let instances = self.within(scaling, self.lifecycle.instances);
                self.scale_worker(ctx, ticket, instances)?;
                self.follows.is_overridden = false;
                ctx.stir(self.id);
                Ok(())
            }
            Command::Signal(number) => self.signal_runs(ctx, ticket, number, |_| true),
            Command::Reload => self.reload_runs(ctx, ticket, |_| true),
            Command::Reset => {
                self.reset_worker(ctx);
                self.forgive_connections();
                ctx.answer(ticket, Answer::Done);
                Ok(())
            }
        }
    }

    /// Another command or a reload is there for the worker: whoever waits for the one under way is
    /// told so. Answers whether a reload has waited, which then waits for what follows.
    pub(super) fn supersede(&mut self, ctx: &mut Ctx) -> bool {
        let told: Vec<Waiter> = self.jobs.drain(..).map(|job| job.waiter).collect();
        for waiter in &told {
            if let Waiter::Asked(ticket) = waiter {
                ctx.answer(*ticket, Answer::Refused(Refused::Superseded));
            }
        }
        told.contains(&Waiter::Reload)
    }

    /// A rollout of the worker goes back: a reload that waits for its size waits for that.
    pub(super) fn give_up_size(&mut self) {
        self.jobs.retain(|job| job.waiter != Waiter::Reload);
    }

    fn join_rollout(&mut self, ctx: &mut Ctx, ticket: Ticket) {
        let Some(rollout) = self.rollout.as_mut() else {
            return;
        };
        rollout.tickets.push(ticket);
        let (done, of) = (rollout.done, rollout.of);
        ctx.answer(ticket, Answer::Progress { done, of });
    }

    /// Has a reload wait until a worker has as many instances as it says.
    pub(super) fn wait_for_size(&mut self, ctx: &mut Ctx, resized: Resized) {
        if resized.runs.is_empty() || !ctx.is_being_replanned(self.id) {
            return ctx.replanned(self.id, None);
        }
        self.begin(ctx, Waiter::Reload, resized.goal, resized.runs);
    }

    /// A listener that was closed for its failed workers could not be bound again: whoever waits for
    /// one to start is told, which it does when the listener is there.
    pub(super) fn tell_not_bound(
        &mut self,
        ctx: &mut Ctx,
        listener: ListenerId,
        again_in: Option<Duration>,
    ) {
        let mut told = Vec::new();
        if let Some(rollout) = &mut self.rollout {
            told.append(&mut rollout.tickets);
        }
        self.jobs.retain(|job| match job.waiter {
            Waiter::Asked(ticket) if job.goal == Goal::Up => {
                told.push(ticket);
                false
            }
            Waiter::Asked(_) | Waiter::Reload => true,
        });
        for ticket in told {
            ctx.answer(ticket, Answer::NotBound { listener, again_in });
        }
    }

    pub(super) fn begin(&mut self, ctx: &mut Ctx, waiter: Waiter, goal: Goal, runs: Vec<RunId>) {
        let of = u32::try_from(runs.len()).unwrap_or(u32::MAX);
        ctx.stir(self.id);
        self.changed.extend(&runs);
        self.jobs.push(Job {
            waiter,
            goal,
            pending: runs.into_iter().collect(),
            done: 0,
            of,
        });
    }

    /// Says how much there is to do, before any of it is done.
    pub(super) fn announce(&mut self, ctx: &mut Ctx, ticket: Ticket) {
        let of_it = |job: &&Job| job.waiter == Waiter::Asked(ticket);
        let job = self.jobs.iter().find(of_it);
        if let Some(of) = job.map(|job| job.of).filter(|of| *of > 0) {
            ctx.answer(ticket, Answer::Progress { done: 0, of });
        }
    }

    /// Starts what does not run. Answers which of its instances are to run now.
    fn start_all(&mut self, ctx: &mut Ctx) -> Vec<RunId> {
        self.stopped = false;
        ctx.stir(self.id);
        ctx.take_clients_again(self.id);
        let is_eager = self.is_eager();
        let mut wanted = Vec::new();
        for id in self.runs.placed() {
            if self.start_instance(ctx, id, is_eager) {
                wanted.push(id);
            }
        }
        wanted
    }

    /// Starts an instance if it does not run: at once, or with the next client. Answers whether it is to run
    /// now, and does not yet.
    pub(super) fn start_instance(&mut self, ctx: &mut Ctx, id: RunId, at_once: bool) -> bool {
        match self.runs[id].state {
            State::Running { .. } => false,
            State::Starting { ending: None, .. }
            | State::Activating { .. }
            | State::Preparing {
                cancelled: false, ..
            } => true,
            State::Waiting if !at_once => false,
            State::Waiting | State::Backoff { .. } | State::Failed { .. } | State::Stopped => {
                self.redefine(id);
                match at_once {
                    true => self.start_again(ctx, id),
                    false => self.become_state(ctx, id, State::Waiting),
                }
                at_once
            }
            // It is on its way out, and comes back when it is there.
            State::Starting { .. } | State::Stopping { .. } | State::Preparing { .. } => {
                self.comes_back(id, true);
                at_once
            }
            State::Cleaning { hook, .. } => {
                let next = match at_once {
                    true => Next::RestartIn(Duration::ZERO),
                    false => AT_NEXT_CLIENT,
                };
                self.become_state(ctx, id, State::Cleaning { hook, next });
                at_once
            }
        }
    }

    fn start_worker(&mut self, ctx: &mut Ctx, ticket: Ticket) -> Result<(), Refused> {
        if self.is_eager() && ctx.listeners.lacks(self.id) {
            return Err(Refused::WaitsForListener);
        }
        if self.given_up.is_some() && self.is_down() {
            return self.restart_worker(ctx, ticket);
        }
        let wanted = self.start_all(ctx);
        self.begin(ctx, Waiter::Asked(ticket), Goal::Up, wanted);
        Ok(())
    }

    fn stop_worker(&mut self, ctx: &mut Ctx, ticket: Ticket) {
        self.stopped = true;
        // Clients wait for who was stopped, as for everybody.
        ctx.take_clients_again(self.id);
        let mut live = Vec::new();
        for id in self.runs.ids() {
            self.comes_back(id, false);
            let is_busy = self.runs[id].state.is_busy();
            self.stop_instance(ctx, id);
            if is_busy {
                live.push(id);
            }
        }
        self.retire_unused(ctx);
        self.begin(ctx, Waiter::Asked(ticket), Goal::Down, live);
    }

    /// Whether an instance that is being stopped is started again.
    pub(super) fn comes_back(&mut self, id: RunId, again: bool) {
        if let Some(instance) = self.runs.instance_mut(id) {
            instance.again = again;
        }
    }

    fn restart_worker(&mut self, ctx: &mut Ctx, ticket: Ticket) -> Result<(), Refused> {
        if self.is_eager() && ctx.listeners.lacks(self.id) {
            return Err(Refused::WaitsForListener);
        }
        let to = self.given_up.clone();
        if to.is_none() && self.is_eager() && self.is_down() && !self.is_rolling() {
            // There is nothing to go back to.
            if self.supersede(ctx) {
                ctx.replanned(self.id, None);
            }
            return self.start_worker(ctx, ticket);
        }
        self.stopped = false;
        ctx.stir(self.id);
        let of = self.roll_out(ctx, Some(ticket), to, None);
        if of > 0 {
            ctx.answer(ticket, Answer::Progress { done: 0, of });
        }
        Ok(())
    }

    fn scale_worker(
        &mut self,
        ctx: &mut Ctx,
        ticket: Ticket,
        instances: u32,
    ) -> Result<(), Refused> {
        if let Activation::PerConnection(_) = self.lifecycle.activation {
            return Err(Refused::NoInstances);
        }
        if self.lifecycle.keeps_flows && instances > 1 {
            return Err(Refused::OneInstance);
        }
        if self.supersede(ctx) {
            ctx.replanned(self.id, None);
        }
        self.wanted = instances;
        let mut resized = self.resize(ctx, instances);
        if resized.runs.is_empty() {
            resized = self.on_their_way();
        }
        self.begin(ctx, Waiter::Asked(ticket), resized.goal, resized.runs);
        Ok(())
    }

    /// What a command before has begun.
    fn on_their_way(&self) -> Resized {
        let starts = |run: &&Run| match run.state {
            State::Preparing { cancelled, .. } => !cancelled,
            State::Starting { ending, .. } => ending.is_none(),
            State::Activating { .. } => true,
            State::Waiting
            | State::Running { .. }
            | State::Stopping { .. }
            | State::Cleaning { .. }
            | State::Backoff { .. }
            | State::Failed { .. }
            | State::Stopped => false,
        };
        let starting = self.runs.places().filter(starts);
        let starting: Vec<RunId> = starting.map(|run| run.id).collect();
        match starting.is_empty() {
            false => Resized {
                goal: Goal::Up,
                runs: starting,
            },
            true => Resized {
                goal: Goal::Down,
                runs: self.runs.others().map(|run| run.id).collect(),
            },
        }
    }

    /// Has a worker run so many instances.
    pub(super) fn resize(&mut self, ctx: &mut Ctx, instances: u32) -> Resized {
        let before = self.runs.len();
        let after = instances as usize;
        if after > before && !self.stopped {
            ctx.take_clients_again(self.id);
        }
        // A pool that clients start grows at once only if it runs.
        let starts = ctx.phase == Phase::Running
            && !self.stopped
            && (self.is_eager() && !self.waits_for_a_listener(ctx)
                || self.instances_with_process() > 0);
        let state = if self.stopped {
            State::Stopped
        } else {
            State::Waiting
        };
        let mut wanted = Vec::new();
        for number in before..after {
            let id = self.add_instance(ctx, number as u32, state.clone());
            if starts {
                self.spawn(ctx, id);
                wanted.push(id);
            }
        }
        if after < before {
            self.redefine_what_is_outdated();
            for id in self.runs.cut(after) {
                if self.runs[id].state.is_busy() {
                    wanted.push(id);
                }
                self.retire(ctx, id);
            }
        }
        let goal = if after < before { Goal::Down } else { Goal::Up };
        Resized { goal, runs: wanted }
    }

    /// Sends a signal to those that are meant.
    pub(super) fn signal_runs(
        &mut self,
        ctx: &mut Ctx,
        ticket: Ticket,
        signal: i32,
        is_meant: impl Fn(&Run) -> bool,
    ) -> Result<(), Refused> {
        let running: Vec<(ProcessId, Scope)> = self
            .runs
            .all()
            .filter(|run| is_meant(run))
            .filter_map(|run| match run.state {
                State::Activating { process, .. }
                | State::Running { process, .. }
                | State::Stopping { process, .. } => Some((
                    process,
                    match run.main_ended {
                        None => Scope::Process,
                        Some(_) => Scope::Group,
                    },
                )),
                State::Waiting
                | State::Preparing { .. }
                | State::Starting { .. }
                | State::Cleaning { .. }
                | State::Backoff { .. }
                | State::Failed { .. }
                | State::Stopped => None,
            })
            .collect();
        if running.is_empty() {
            return Err(Refused::NoProcess);
        }
        for (process, scope) in running {
            ctx.outbox.push(Effect::Signal {
                process,
                signal,
                scope,
            });
        }
        ctx.answer(ticket, Answer::Done);
        Ok(())
    }

    fn reset_worker(&mut self, ctx: &mut Ctx) {
        ctx.take_clients_again(self.id);
        for id in self.runs.placed() {
            self.reset_instance(ctx, id);
        }
    }

    /// Forgets the crashes of an instance, and has it start again if it has failed.
    pub(super) fn reset_instance(&mut self, ctx: &mut Ctx, id: RunId) {
        if let Some(instance) = self.runs.instance_mut(id) {
            instance.history = History::default();
        }
        if let State::Failed { .. } = self.runs[id].state {
            if self.is_eager() {
                self.start_again(ctx, id);
            } else {
                self.become_state(ctx, id, State::Waiting);
            }
        }
    }

    /// Looks at what has changed, and goes on with the jobs that they belong to.
    pub(super) fn advance_jobs(&mut self, ctx: &mut Ctx) {
        if self.jobs.is_empty() {
            return;
        }
        let changed = std::mem::take(&mut self.changed);
        let mut jobs = std::mem::take(&mut self.jobs);
        jobs.retain_mut(|job| self.advance(ctx, job, &changed));
        self.jobs = jobs;
    }

    /// Whether the job goes on.
    fn advance(&mut self, ctx: &mut Ctx, job: &mut Job, changed: &[RunId]) -> bool {
        for id in changed {
            if !job.pending.contains(id) {
                continue;
            }
            match self.has_arrived(ctx, *id, job.goal) {
                None => {}
                Some(true) => {
                    job.pending.remove(id);
                    job.done += 1;
                    let (done, of) = (job.done, job.of);
                    if let Waiter::Asked(ticket) = job.waiter {
                        ctx.answer(ticket, Answer::Progress { done, of });
                    }
                }
                Some(false) => {
                    let bad = Bad::NotUp(self.runs[*id].instance);
                    match job.waiter {
                        Waiter::Asked(ticket) => ctx.answer(ticket, Answer::of(vec![bad])),
                        Waiter::Reload => ctx.replanned(self.id, Some(bad)),
                    }
                    return false;
                }
            }
        }
        if !job.pending.is_empty() {
            return true;
        }
        match job.waiter {
            Waiter::Asked(ticket) => ctx.answer(ticket, Answer::Done),
            Waiter::Reload => ctx.replanned(self.id, None),
        }
        false
    }

    /// Whether a run is where it is wanted; `None` while it is on its way.
    fn has_arrived(&self, ctx: &Ctx, id: RunId, goal: Goal) -> Option<bool> {
        let run = &self.runs[id];
        match (goal, &run.state) {
            (Goal::Down, state) => (!state.is_busy()).then_some(true),
            (Goal::Up, State::Running { .. }) => Some(true),
            (
                Goal::Up,
                State::Preparing { .. }
                | State::Starting { .. }
                | State::Activating { .. }
                | State::Stopping { .. }
                | State::Cleaning { .. },
            ) => None,
            // At once, because it was asked to come back.
            (Goal::Up, State::Backoff { until }) if *until <= ctx.now => None,
            // What clients start is where it should be when it waits for them; what waits for a
            // listener that is being bound again is on its way.
            (Goal::Up, State::Waiting) if self.is_on_demand(id) => Some(true),
            (Goal::Up, State::Waiting) => None,
            (Goal::Up, State::Backoff { .. } | State::Failed { .. } | State::Stopped) => {
                Some(false)
            }
        }
    }
}
