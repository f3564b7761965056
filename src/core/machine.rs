//! The core itself: inputs in, effects out.

use super::connections::Connections;
use super::ctx::Ctx;
use super::effect::Effect;
use super::event::Event;
use super::gate::Gate;
use super::helpers::Helpers;
use super::input::{Input, News};
use super::instance::Slot;
use super::job::{Job, Reloading, Replanning};
use super::listeners::Listeners;
use super::rollout::Rollout;
use super::signals::SIGCONT;
use super::state::{Launch, State};
use super::time::Mono;
use super::types::{
    ConnectionId, Edition, InstanceId, Phase, ProcessId, Role, Scope, Task, WhenDone,
};
use super::worker::{Counts, Worker, Workers};
use crate::config::KillMode;
use crate::plan::{Activation, Lifecycle, WorkerId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The exit status of a listend that was asked to stop.
const EXIT_STOPPED: u8 = 0;

/// Decides what happens to every instance of every worker.
///
/// Each input costs O(log n) in the number of instances, but for the first two of
/// [`Input::Stop`] and [`Input::Start`], which concern all of them.
#[derive(Debug, Clone)]
pub struct Core {
    pub(super) workers: Workers,
    /// What an input is handled with, and what all workers share.
    pub(super) ctx: Ctx,
    /// Every instance and every connection.
    pub(super) slots: Vec<Slot>,
    /// The slots of connections that are over, and of instances that are no longer wanted.
    pub(super) vacant: Vec<usize>,
    /// The commands around instances that run.
    pub(super) helpers: Helpers,
    /// The instances that have to be ready before listend says that it is.
    pub(super) awaited: BTreeSet<usize>,
    /// Whose processes have ended that others may have waited for.
    pub(super) let_go: BTreeSet<(WorkerId, Edition)>,
    /// Whether that was told.
    pub(super) told_up: bool,
    /// The rollouts under way, by worker.
    pub(super) rollouts: BTreeMap<WorkerId, Rollout>,
    /// Those of them that something has happened to.
    pub(super) rolling: BTreeSet<WorkerId>,
    /// The reload under way.
    pub(super) replanning: Option<Replanning>,
    /// The commands under way.
    pub(super) jobs: Vec<Job>,
    /// The instances that read their configuration again.
    pub(super) reloads: Vec<Reloading>,
    /// The slots that have changed since the jobs were looked at, while there are any.
    pub(super) changed: Vec<usize>,
    /// The connections that are being accepted, and for whom.
    pub(super) accepting: BTreeMap<ConnectionId, WorkerId>,
    /// The workers whose gates may have opened.
    pub(super) touched: Vec<WorkerId>,
    /// The listeners that are not as they should be.
    pub(super) listeners: Listeners,
    pub(super) when_done: WhenDone,
    /// The exit status that the instances add up to: that of the first that did not end well.
    pub(super) verdict: u8,
}

impl Core {
    /// A core for these workers; [`WorkerId`] counts them.
    pub fn new(lifecycles: Vec<Lifecycle>, when_done: WhenDone) -> Core {
        let mut core = Core::empty(when_done);
        for (worker, lifecycle) in (0..).map(WorkerId).zip(lifecycles) {
            core.add_worker(worker, Edition(1), Arc::new(lifecycle));
        }
        core
    }

    /// A core without workers.
    fn empty(when_done: WhenDone) -> Core {
        Core {
            workers: Workers::default(),
            ctx: Ctx::new(),
            slots: Vec::new(),
            helpers: Helpers::default(),
            awaited: BTreeSet::new(),
            let_go: BTreeSet::new(),
            told_up: false,
            rollouts: BTreeMap::new(),
            rolling: BTreeSet::new(),
            replanning: None,
            jobs: Vec::new(),
            reloads: Vec::new(),
            changed: Vec::new(),
            vacant: Vec::new(),
            accepting: BTreeMap::new(),
            touched: Vec::new(),
            listeners: Listeners::default(),
            when_done,
            verdict: 0,
        }
    }

    /// Adds a worker with instances that wait, in the next place or in that of one that is gone.
    pub(super) fn add_worker(&mut self, id: WorkerId, edition: Edition, life: Arc<Lifecycle>) {
        let instances = life.instances;
        let fresh = Worker {
            lifecycle: life,
            edition,
            slots: Vec::new(),
            others: Vec::new(),
            stopped: false,
            removed: false,
            gone: false,
            outdated: false,
            wanted: instances,
            generation: 1,
            last_generation: 1,
            degraded: None,
            given_up: None,
            failed: 0,
            counts: Counts::default(),
            gate: Gate::default(),
            connections: Connections::default(),
        };
        // Those of whoever had its number before.
        self.ctx.timers.gates.retain(|(_, worker)| *worker != id);
        self.workers.0.insert(id, fresh);
        for number in 0..instances {
            self.add_instance(id, number, State::Waiting);
        }
    }

    /// Takes in what happened at `now`.
    pub fn handle(&mut self, now: Mono, input: Input) {
        self.ctx.now = now;
        match input {
            Input::Start => self.start(),
            Input::Spawned { process } => self.hear(process, News::Spawned),
            Input::ExecSucceeded { process } => self.hear(process, News::ExecSucceeded),
            Input::LaunchFailed { process, failure } => {
                self.hear(process, News::LaunchFailed(failure));
            }
            Input::MainExited { process, status } => {
                self.hear(process, News::MainExited(status));
            }
            Input::Exited { process, status } => self.hear(process, News::Exited(status)),
            Input::Notified { process, notice } => self.notified(process, notice),
            Input::Evidence { process, evidence } => self.evidence(process, evidence),
            Input::Stop => self.stop(),
            Input::ListenerMissing { listener, why } => self.listener_missing(listener, why),
            Input::ListenerBound { listener } => self.listener_bound(listener),
            Input::AddressesChanged => self.addresses_changed(),
            Input::ListenerDamaged { listener, socket } => {
                self.listener_damaged(listener, socket);
            }
            Input::ListenerRepaired {
                listener,
                socket,
                by,
            } => self.listener_repaired((listener, socket), by),
            Input::SocketHeld { listener, socket } => self.socket_is_held((listener, socket)),
            Input::RepairFailed { listener, socket } => self.repair_failed(listener, socket),
            Input::ClientWaits { listener, socket } => self.client_waits(listener, socket),
            Input::Accepted { connection, source } => self.accepted(connection, source),
            Input::NotAccepted { connection, why } => self.not_accepted(connection, why),
            Input::Looked { worker, waiting } => self.looked(worker, waiting),
            Input::Operate {
                ticket,
                worker,
                command,
            } => self.operate(ticket, worker, command),
            Input::Tick => self.tick(),
        }
        self.settle();
    }

    /// What follows from every input.
    pub(super) fn settle(&mut self) {
        self.bind_what_is_vacant();
        loop {
            self.start_what_was_opposed();
            self.advance_rollouts();
            // A rollout that turns back, once, keeps what others have waited for.
            if self.let_go.is_empty() {
                break;
            }
        }
        self.look_at_what_was_added();
        self.advance_jobs();
        self.end_replanning();
        self.open_gates();
        self.tell_when_up();
        self.exit_if_all_stopped();
    }

    /// The next thing to do, oldest first. Answers may be handed in before the rest is taken.
    pub fn next_effect(&mut self) -> Option<Effect> {
        self.ctx.outbox.pop()
    }

    /// When to hand in [`Input::Tick`] unless something else happens before.
    pub fn deadline(&self) -> Option<Mono> {
        let errands = self.errand_due();
        errands.into_iter().chain(self.ctx.timers.deadline()).min()
    }

    /// Every instance and its state, worker by worker; then every connection.
    pub fn instances(&self) -> impl Iterator<Item = (InstanceId, State)> + '_ {
        let taken = self.slots.iter().filter(|slot| slot.is_taken());
        taken.map(|slot| (slot.instance, slot.state))
    }

    /// Puts a slot into a vacant place, or a new one.
    pub(super) fn take_slot(&mut self, slot: Slot) -> usize {
        match self.vacant.pop() {
            Some(index) => {
                self.slots[index] = slot;
                index
            }
            None => {
                self.slots.push(slot);
                self.slots.len() - 1
            }
        }
    }

    /// The place of an instance or of a connection.
    pub(super) fn find(&self, instance: InstanceId) -> Option<usize> {
        let worker = self.workers.get(instance.worker)?;
        let is_it = |index: &usize| self.slots[*index].instance == instance;
        let in_place = worker.slots.get(instance.index as usize).copied();
        let known = in_place.filter(is_it);
        let known = known.or_else(|| worker.others.iter().copied().find(is_it));
        known.or_else(|| {
            let is_it = |slot: &Slot| slot.instance == instance && slot.connection.is_some();
            let accepts = matches!(worker.lifecycle.activation, Activation::PerConnection(_));
            let of_it = accepts.then(|| self.slots.iter().position(is_it));
            of_it.flatten()
        })
    }

    /// The state of an instance, if there is such an instance.
    pub fn state(&self, instance: InstanceId) -> Option<State> {
        self.find(instance).map(|index| self.slots[index].state)
    }

    /// How many inputs named a process that is not there, or said what cannot be true of it.
    pub fn ignored_inputs(&self) -> u64 {
        self.ctx.ignored
    }

    fn start(&mut self) {
        if self.ctx.phase != Phase::Idle {
            return;
        }
        self.ctx.phase = Phase::Running;
        for index in 0..self.slots.len() {
            self.slots[index].since = self.ctx.now;
            let worker = self.slots[index].instance.worker;
            if self.is_eager(worker) && !self.waits_for_a_listener(worker) {
                self.awaited.insert(index);
                self.spawn(index);
            }
        }
        self.touch_all();
    }

    pub(super) fn is_eager(&self, worker: WorkerId) -> bool {
        let lifecycle = self.workers.get(worker).map(|known| &known.lifecycle);
        lifecycle.is_some_and(|lifecycle| lifecycle.activation == Activation::Eager)
    }

    pub(super) fn touch_all(&mut self) {
        self.touched.extend(self.workers.ids());
    }

    /// The indices of a worker's instances.
    pub(super) fn slots_of(&self, worker: WorkerId) -> Vec<usize> {
        let worker = self.workers.get(worker);
        worker.map_or(Vec::new(), |worker| worker.slots.clone())
    }

    /// Starts an instance, or first the command before it.
    pub(super) fn spawn(&mut self, index: usize) {
        self.bring_up_to_date(index);
        let slot = &mut self.slots[index];
        slot.starts = slot.starts.saturating_add(1);
        slot.fault = None;
        slot.by_itself = false;
        slot.main_ended = None;
        slot.overdue = false;
        slot.to_clean = false;
        slot.this_end = None;
        slot.reloading = false;
        slot.rereading = None;
        slot.watchdog = None;
        slot.told_interval = None;
        slot.hidden = 0;
        if let (Some(timeout), None) = (slot.life.hooks.before_start, slot.connection) {
            self.prepare(index, timeout);
        } else {
            self.launch(index);
        }
    }

    pub(super) fn launch(&mut self, index: usize) {
        let process = self.ctx.ids.process();
        let slot = &self.slots[index];
        self.ctx.outbox.push(Effect::Spawn {
            process,
            instance: slot.instance,
            edition: slot.edition,
            task: Task::Program,
            connection: slot.connection.map(|held| held.id),
        });
        self.become_state(
            index,
            State::Starting {
                process,
                since: self.ctx.now,
                launch: Launch::Forking,
                ending: None,
            },
        );
    }

    /// Does what is due. Each turn of the loop takes a deadline away and none gives a new one, so
    /// that it ends and the deadline is later than `now` afterwards.
    fn tick(&mut self) {
        self.run_errands();
        self.resume_gates();
        self.helpers_timed_out();
        while let Some((at, index)) = self.ctx.timers.runs.first().copied() {
            if at > self.ctx.now {
                break;
            }
            match self.slots[index].state {
                State::Backoff { .. } if self.is_on_demand(index) => self.rested(index),
                State::Backoff { .. } => self.start_again(index),
                State::Starting { process, .. } | State::Stopping { process, .. } => {
                    self.stop_timed_out(index, process);
                }
                State::Activating { process, .. } => self.not_ready_yet(index, process),
                State::Running { process, until, .. } => match until {
                    _ if self.slots[index]
                        .rereads_until()
                        .is_some_and(|until| until <= self.ctx.now) =>
                    {
                        self.rereads_too_long(index);
                    }
                    Some(until) if until <= self.ctx.now => {
                        self.connection_timed_out(index, process)
                    }
                    Some(_) | None => self.is_silent(index, process),
                },
                State::Failed { .. } => self.cooled_down(index),
                // Without a deadline, so that none leads here.
                State::Waiting
                | State::Preparing { .. }
                | State::Cleaning { .. }
                | State::Stopped => {
                    self.ctx.timers.runs.pop_first();
                }
            }
        }
        self.rollouts_are_due();
    }

    fn exit_if_all_stopped(&mut self) {
        let code = match (self.ctx.phase, self.when_done) {
            (Phase::Stopping | Phase::Hurried, _) => EXIT_STOPPED,
            (Phase::Running, WhenDone::Exit) if self.is_done() => self.verdict,
            (Phase::Idle | Phase::Running | Phase::Exited, _) => return,
        };
        if !self.ctx.processes.is_empty() || !self.accepting.is_empty() || !self.helpers.is_empty()
        {
            return;
        }
        self.ctx.phase = Phase::Exited;
        self.ctx.outbox.push(Effect::CloseListeners);
        self.ctx.emit(Event::AllStopped);
        self.ctx.outbox.push(Effect::Exit { code });
    }

    /// Whether no instance runs or will run again.
    fn is_done(&self) -> bool {
        let over = |slot: &Slot| {
            matches!(
                slot.state,
                State::Stopped | State::Failed { until: None, .. }
            )
        };
        let eager = |worker: &Worker| worker.lifecycle.activation == Activation::Eager;
        self.ctx.processes.is_empty()
            && self.helpers.is_empty()
            && self.workers.0.values().all(eager)
            && self.slots.iter().all(over)
    }

    /// The only place where a state changes to one with another process or deadline, so that
    /// the indices cannot disagree with the states.
    pub(super) fn become_state(&mut self, index: usize, state: State) {
        let slot = &mut self.slots[index];
        let worker = &mut self.workers[slot.instance.worker];
        let old = std::mem::replace(&mut slot.state, state);
        if slot.role == Role::Instance {
            worker.failed -= u32::from(matches!(old, State::Failed { .. }));
            worker.failed += u32::from(matches!(state, State::Failed { .. }));
        }
        if std::mem::discriminant(&old) != std::mem::discriminant(&state) {
            slot.since = self.ctx.now;
        }
        if let State::Running { .. }
        | State::Backoff { .. }
        | State::Failed { .. }
        | State::Stopped = state
        {
            self.awaited.remove(&index);
        }
        if !self.jobs.is_empty() || !self.rollouts.is_empty() || self.replanning.is_some() {
            self.changed.push(index);
        }
        worker.counts.change(old, -1);
        worker.counts.change(state, 1);
        if worker.lifecycle.activation != Activation::Eager {
            self.touched.push(slot.instance.worker);
        }
        if old.process() != state.process() {
            if let Some(process) = old.process() {
                self.ctx.processes.remove(&process);
            }
            let is_over = state.process().is_none();
            if is_over && (slot.role == Role::Leaving || slot.edition != worker.edition) {
                self.let_go.insert((slot.instance.worker, slot.edition));
            }
            if let Some(process) = state.process() {
                self.ctx.processes.insert(process, index);
            }
        }
        self.reschedule(index);
        if !matches!(state, State::Running { .. }) {
            self.has_reread(index, false);
        }
    }

    /// Notes the deadline of a slot, where anything that it follows from has changed.
    pub(super) fn reschedule(&mut self, index: usize) {
        let slot = &mut self.slots[index];
        let at = slot.deadline();
        let before = std::mem::replace(&mut slot.due, at);
        if before != at {
            if let Some(before) = before {
                self.ctx.timers.runs.remove(&(before, index));
            }
            if let Some(at) = at {
                self.ctx.timers.runs.insert((at, index));
            }
        }
    }

    /// Makes a slot something else to its worker.
    pub(super) fn become_role(&mut self, index: usize, role: Role) {
        let slot = &mut self.slots[index];
        let worker = &mut self.workers[slot.instance.worker];
        let old = std::mem::replace(&mut slot.role, role);
        let has_failed = u32::from(matches!(slot.state, State::Failed { .. }));
        match (old, role) {
            (Role::Instance, Role::Candidate | Role::Leaving) => worker.failed -= has_failed,
            (Role::Candidate | Role::Leaving, Role::Instance) => worker.failed += has_failed,
            (Role::Instance, Role::Instance)
            | (Role::Candidate | Role::Leaving, Role::Candidate | Role::Leaving) => {}
        }
    }

    pub(super) fn worker(&self, index: usize) -> &Worker {
        &self.workers[self.slots[index].instance.worker]
    }

    pub(super) fn ask_to_stop(&mut self, index: usize, process: ProcessId) {
        let life = &self.slots[index].life;
        let stop = life.stop_signal;
        let scope = match (life.kill_mode, self.slots[index].main_ended) {
            (KillMode::Process, None) => Scope::Process,
            (KillMode::Group, _) | (_, Some(_)) => Scope::Group,
        };
        // A process that is stopped (SIGSTOP, a debugger) acts on no signal until it continues.
        for signal in [stop, SIGCONT] {
            self.ctx.outbox.push(Effect::Signal {
                process,
                signal,
                scope,
            });
        }
    }
}
