//! What people ask for: start, stop, restart, scale, signal, reset. To reload is in `super::reload`.
//!
//! A request is a *job* until it is done: a worker's slots are brought to where they are wanted, and
//! whoever asked hears of each that is there. A command takes the place of the one that is under way
//! for the worker, so that one that was interrupted can be asked again; a start joins it. While a
//! rollout is under way its size stays as it is.
//!
//! A worker that was stopped stays so, whatever its restart policy and however many clients come,
//! until it is started again. Its listeners stay bound: clients wait.

use super::backoff::History;
use super::effect::Effect;
use super::instance::Slot;
use super::job::{Bad, Goal, Job, Resized, Waiter};
use super::machine::Core;
use super::state::State;
use super::types::{
    AT_NEXT_CLIENT, Answer, Command, InstanceId, Next, Phase, ProcessId, Refused, Role, Scope,
    Ticket,
};
use crate::plan::{Activation, ListenerId, WorkerId};
use std::sync::Arc;
use std::time::Duration;

impl Core {
    pub(super) fn operate(&mut self, ticket: Ticket, worker: WorkerId, command: Command) {
        if let Err(why) = self.try_to_operate(ticket, worker, command) {
            self.ctx.answer(ticket, Answer::Refused(why));
        }
        self.announce(ticket);
    }

    fn try_to_operate(
        &mut self,
        ticket: Ticket,
        worker: WorkerId,
        command: Command,
    ) -> Result<(), Refused> {
        let known = self.workers.get(worker);
        if known.is_none_or(|known| known.removed) {
            return Err(Refused::NoSuchWorker);
        }
        if self.ctx.phase != Phase::Running {
            return Err(Refused::NotRunning);
        }
        let is_rolling = self.is_rolling(worker);
        match command {
            Command::Scale(_) | Command::Reset if is_rolling => return Err(Refused::Busy),
            Command::Stop => {
                let reload_waits = self.supersede(worker);
                if is_rolling {
                    self.cancel_rollout(worker);
                    self.workers[worker].outdated = true;
                }
                if reload_waits || is_rolling {
                    self.replanned(worker, None);
                }
                self.end_watch(worker);
            }
            Command::Start if is_rolling => {
                self.join_rollout(worker, ticket);
                return Ok(());
            }
            Command::Start
            | Command::Restart
            | Command::Scale(_)
            | Command::Signal(_)
            | Command::Reset
            | Command::Reload => {}
        }
        match command {
            Command::Start => self.start_worker(ticket, worker),
            Command::Stop => {
                self.stop_worker(ticket, worker);
                Ok(())
            }
            Command::Restart => self.restart_worker(ticket, worker),
            Command::Scale(instances) => self.scale_worker(ticket, worker, instances),
            Command::Signal(number) => self.signal_worker(ticket, worker, number),
            Command::Reload => self.reload_worker(ticket, worker),
            Command::Reset => {
                self.reset_worker(worker);
                self.forgive_connections(worker);
                self.ctx.answer(ticket, Answer::Done);
                Ok(())
            }
        }
    }

    /// Another command or a reload is there for the worker: whoever waits for the one under way is
    /// told so. Answers whether a reload has waited, which then waits for what follows.
    pub(super) fn supersede(&mut self, worker: WorkerId) -> bool {
        let mut told = Vec::new();
        self.jobs.retain(|job| {
            let goes_on = job.worker != worker;
            if !goes_on {
                told.push(job.waiter);
            }
            goes_on
        });
        for waiter in &told {
            if let Waiter::Asked(ticket) = waiter {
                self.ctx
                    .answer(*ticket, Answer::Refused(Refused::Superseded));
            }
        }
        told.contains(&Waiter::Reload)
    }

    /// A rollout of the worker goes back: a reload that waits for its size waits for that.
    pub(super) fn size_is_given_up(&mut self, worker: WorkerId) {
        let goes_on = |job: &Job| job.worker != worker || job.waiter != Waiter::Reload;
        self.jobs.retain(goes_on);
    }

    fn join_rollout(&mut self, worker: WorkerId, ticket: Ticket) {
        let Some(rollout) = self.rollouts.get_mut(&worker) else {
            return;
        };
        rollout.tickets.push(ticket);
        let (done, of) = (rollout.done, rollout.of);
        if of > 0 {
            self.ctx.answer(ticket, Answer::Progress { done, of });
        }
    }

    /// Has a reload wait until a worker has as many instances as it says.
    pub(super) fn wait_for_size(&mut self, worker: WorkerId, resized: Resized) {
        if resized.slots.is_empty() || !self.is_being_replanned(worker) {
            return self.replanned(worker, None);
        }
        self.begin(Waiter::Reload, worker, resized.goal, resized.slots);
    }

    /// A listener that was closed for its failed workers could not be bound again: whoever waits for
    /// one to start is told, which it does when the listener is there.
    pub(super) fn tell_not_bound(&mut self, listener: ListenerId, again_in: Option<Duration>) {
        let mut told = Vec::new();
        for worker in self.users_of(listener) {
            if let Some(rollout) = self.rollouts.get_mut(&worker) {
                told.append(&mut rollout.tickets);
            }
            self.jobs.retain(|job| match job.waiter {
                Waiter::Asked(ticket) if job.worker == worker && job.goal == Goal::Up => {
                    told.push(ticket);
                    false
                }
                Waiter::Asked(_) | Waiter::Reload => true,
            });
        }
        for ticket in told {
            self.ctx
                .answer(ticket, Answer::NotBound { listener, again_in });
        }
    }

    fn begin(&mut self, waiter: Waiter, worker: WorkerId, goal: Goal, slots: Vec<usize>) {
        let of = u32::try_from(slots.len()).unwrap_or(u32::MAX);
        self.changed.extend(&slots);
        self.jobs.push(Job {
            waiter,
            worker,
            goal,
            pending: slots.into_iter().collect(),
            done: 0,
            of,
        });
    }

    /// Says how much there is to do, before any of it is done.
    fn announce(&mut self, ticket: Ticket) {
        let of_it = |job: &&Job| job.waiter == Waiter::Asked(ticket);
        let job = self.jobs.iter().find(of_it);
        if let Some(of) = job.map(|job| job.of).filter(|of| *of > 0) {
            self.ctx.answer(ticket, Answer::Progress { done: 0, of });
        }
    }

    /// Starts what does not run. Answers which of its slots are to run now.
    fn rouse(&mut self, worker: WorkerId) -> Vec<usize> {
        self.workers[worker].stopped = false;
        self.touched.push(worker);
        self.take_clients_again(worker);
        let is_eager = self.is_eager(worker);
        let mut wanted = Vec::new();
        for index in self.slots_of(worker) {
            match self.slots[index].state {
                State::Running { .. } => {}
                State::Starting { ending: None, .. }
                | State::Activating { .. }
                | State::Preparing {
                    cancelled: false, ..
                } => wanted.push(index),
                State::Waiting if !is_eager => {}
                State::Waiting | State::Backoff { .. } | State::Failed { .. } | State::Stopped => {
                    self.redefine(index);
                    if is_eager {
                        self.start_again(index);
                        wanted.push(index);
                    } else {
                        self.become_state(index, State::Waiting);
                    }
                }
                // It is on its way out, and comes back when it is there.
                State::Starting { .. } | State::Stopping { .. } | State::Preparing { .. } => {
                    self.slots[index].again = true;
                    if is_eager {
                        wanted.push(index);
                    }
                }
                State::Cleaning { hook, .. } => {
                    let next = match is_eager {
                        true => Next::RestartIn(Duration::ZERO),
                        false => AT_NEXT_CLIENT,
                    };
                    self.become_state(index, State::Cleaning { hook, next });
                    if is_eager {
                        wanted.push(index);
                    }
                }
            }
        }
        wanted
    }

    fn start_worker(&mut self, ticket: Ticket, worker: WorkerId) -> Result<(), Refused> {
        if self.is_eager(worker) && self.lacks_a_listener(worker) {
            return Err(Refused::WaitsForListener);
        }
        if self.workers[worker].given_up.is_some() && self.is_down(worker) {
            return self.restart_worker(ticket, worker);
        }
        let wanted = self.rouse(worker);
        self.begin(Waiter::Asked(ticket), worker, Goal::Up, wanted);
        Ok(())
    }

    /// Whether no instance of a worker has a process.
    fn is_down(&self, worker: WorkerId) -> bool {
        let slots = &self.workers[worker].slots;
        let mut slots = slots.iter().map(|index| &self.slots[*index]);
        slots.all(|slot| !slot.state.is_busy())
    }

    fn stop_worker(&mut self, ticket: Ticket, worker: WorkerId) {
        self.workers[worker].stopped = true;
        let mut all = self.slots_of(worker);
        all.extend(&self.workers[worker].others);
        let connections = self
            .slots
            .iter()
            .enumerate()
            .filter(|(_, slot)| slot.connection.is_some() && slot.instance.worker == worker);
        all.extend(connections.map(|(index, _)| index));
        let mut live = Vec::new();
        for index in all {
            self.slots[index].again = false;
            let is_busy = self.slots[index].state.is_busy();
            self.stop_instance(index);
            if is_busy {
                live.push(index);
            }
        }
        self.retire_unused(worker);
        self.begin(Waiter::Asked(ticket), worker, Goal::Down, live);
    }

    fn restart_worker(&mut self, ticket: Ticket, worker: WorkerId) -> Result<(), Refused> {
        if self.is_eager(worker) && self.lacks_a_listener(worker) {
            return Err(Refused::WaitsForListener);
        }
        let to = self.workers[worker].given_up.clone();
        if to.is_none() && self.is_eager(worker) && self.is_down(worker) && !self.is_rolling(worker)
        {
            // There is nothing to go back to.
            if self.supersede(worker) {
                self.replanned(worker, None);
            }
            return self.start_worker(ticket, worker);
        }
        let known = &mut self.workers[worker];
        known.stopped = false;
        self.touched.push(worker);
        let of = self.roll_out(worker, Some(ticket), to);
        if of > 0 {
            self.ctx.answer(ticket, Answer::Progress { done: 0, of });
        }
        Ok(())
    }

    fn scale_worker(
        &mut self,
        ticket: Ticket,
        worker: WorkerId,
        instances: u32,
    ) -> Result<(), Refused> {
        let known = &self.workers[worker];
        if let Activation::PerConnection(_) = known.lifecycle.activation {
            return Err(Refused::NoInstances);
        }
        if self.supersede(worker) {
            self.replanned(worker, None);
        }
        self.workers[worker].wanted = instances;
        let mut resized = self.resize(worker, instances);
        if resized.slots.is_empty() {
            resized = self.on_their_way(worker);
        }
        self.begin(Waiter::Asked(ticket), worker, resized.goal, resized.slots);
        Ok(())
    }

    /// What a command before has begun.
    fn on_their_way(&self, worker: WorkerId) -> Resized {
        let known = &self.workers[worker];
        let starts = |index: &usize| match self.slots[*index].state {
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
        let starting: Vec<usize> = known.slots.iter().copied().filter(starts).collect();
        match starting.is_empty() {
            false => Resized {
                goal: Goal::Up,
                slots: starting,
            },
            true => Resized {
                goal: Goal::Down,
                slots: known.others.clone(),
            },
        }
    }

    /// Has a worker run so many instances.
    pub(super) fn resize(&mut self, worker: WorkerId, instances: u32) -> Resized {
        let known = &self.workers[worker];
        let before = known.slots.len();
        let after = instances as usize;
        if after > before && !known.stopped {
            self.take_clients_again(worker);
        }
        let known = &self.workers[worker];
        // A pool that clients start grows at once only if it runs.
        let starts = self.ctx.phase == Phase::Running
            && !known.stopped
            && (self.is_eager(worker) && !self.waits_for_a_listener(worker)
                || known.counts.with_process > 0);
        let state = if known.stopped {
            State::Stopped
        } else {
            State::Waiting
        };
        let mut wanted = Vec::new();
        for number in before..after {
            let index = self.add_instance(worker, number as u32, state);
            if starts {
                self.spawn(index);
                wanted.push(index);
            }
        }
        if after < before {
            let known = &mut self.workers[worker];
            let leaving = known.slots.split_off(after);
            known.others.extend(&leaving);
            for index in leaving {
                if self.slots[index].state.is_busy() {
                    wanted.push(index);
                }
                self.dismiss(index);
            }
        }
        let goal = if after < before { Goal::Down } else { Goal::Up };
        Resized {
            goal,
            slots: wanted,
        }
    }

    /// Has the worker be of another generation if one of this number and its present generation is
    /// still there: on its way out, or in.
    pub(super) fn find_name(&mut self, worker: WorkerId, number: u32) {
        let known = &mut self.workers[worker];
        let has_it = |index: &usize| {
            let one = self.slots[*index].instance;
            (one.index, one.generation) == (number, known.generation)
        };
        if known.others.iter().any(has_it) {
            known.last_generation += 1;
            known.generation = known.last_generation;
        }
    }

    /// A slot for one more instance.
    pub(super) fn add_instance(&mut self, worker: WorkerId, number: u32, state: State) -> usize {
        self.find_name(worker, number);
        let known = &self.workers[worker];
        let instance = InstanceId {
            worker,
            index: number,
            generation: known.generation,
        };
        let life = Arc::clone(&known.lifecycle);
        let slot = Slot::new(instance, known.edition, life, self.ctx.now);
        let index = self.take_slot(slot);
        self.become_role(index, Role::Instance);
        self.workers[worker].slots.push(index);
        self.become_state(index, state);
        index
    }

    fn signal_worker(
        &mut self,
        ticket: Ticket,
        worker: WorkerId,
        signal: i32,
    ) -> Result<(), Refused> {
        let of_it = self
            .slots
            .iter()
            .filter(|slot| slot.instance.worker == worker);
        let running: Vec<(ProcessId, Scope)> = of_it
            .filter_map(|slot| match slot.state {
                State::Activating { process, .. }
                | State::Running { process, .. }
                | State::Stopping { process, .. } => Some((
                    process,
                    match slot.main_ended {
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
            self.ctx.outbox.push(Effect::Signal {
                process,
                signal,
                scope,
            });
        }
        self.ctx.answer(ticket, Answer::Done);
        Ok(())
    }

    fn reset_worker(&mut self, worker: WorkerId) {
        self.take_clients_again(worker);
        let waits = self.waits_for_a_listener(worker);
        for index in self.slots_of(worker) {
            self.slots[index].history = History::default();
            if let State::Failed { .. } = self.slots[index].state {
                if self.is_eager(worker) && !waits {
                    self.start_again(index);
                } else {
                    self.become_state(index, State::Waiting);
                }
            }
        }
    }

    /// Looks at the slots that have changed, and goes on with the jobs that they belong to.
    pub(super) fn advance_jobs(&mut self) {
        let changed = std::mem::take(&mut self.changed);
        if self.jobs.is_empty() {
            return;
        }
        let mut jobs = std::mem::take(&mut self.jobs);
        jobs.retain_mut(|job| self.advance(job, &changed));
        self.jobs = jobs;
    }

    /// Whether the job goes on.
    fn advance(&mut self, job: &mut Job, changed: &[usize]) -> bool {
        for index in changed {
            if !job.pending.contains(index) {
                continue;
            }
            match self.has_arrived(*index, job.goal) {
                None => {}
                Some(true) => {
                    job.pending.remove(index);
                    job.done += 1;
                    let (done, of) = (job.done, job.of);
                    if let Waiter::Asked(ticket) = job.waiter {
                        self.ctx.answer(ticket, Answer::Progress { done, of });
                    }
                }
                Some(false) => {
                    let instance = self.slots[*index].instance;
                    match job.waiter {
                        Waiter::Asked(ticket) => {
                            self.ctx.answer(ticket, Answer::Failed { instance })
                        }
                        Waiter::Reload => self.replanned(job.worker, Some(Bad::NotUp(instance))),
                    }
                    return false;
                }
            }
        }
        if !job.pending.is_empty() {
            return true;
        }
        match job.waiter {
            Waiter::Asked(ticket) => self.ctx.answer(ticket, Answer::Done),
            Waiter::Reload => self.replanned(job.worker, None),
        }
        false
    }

    /// Whether a slot is where it is wanted; `None` while it is on its way.
    fn has_arrived(&self, index: usize, goal: Goal) -> Option<bool> {
        let slot = &self.slots[index];
        match (goal, slot.state) {
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
            (Goal::Up, State::Backoff { until }) if until <= self.ctx.now => None,
            // What clients start is where it should be when it waits for them; what waits for a
            // listener that is being bound again is on its way.
            (Goal::Up, State::Waiting) if self.is_on_demand(index) => Some(true),
            (Goal::Up, State::Waiting) => None,
            (Goal::Up, State::Backoff { .. } | State::Failed { .. } | State::Stopped) => {
                Some(false)
            }
        }
    }
}
