//! The core itself: inputs in, effects out.

use super::connections::Connections;
use super::effect::{Effect, Scope};
use super::event::Event;
use super::gate::Gate;
use super::hooks::Helpers;
use super::input::{ConnectionId, Edition, Input, InstanceId, ProcessId, Task};
use super::instance::{Launch, Role, Slot, State};
use super::listeners::Listeners;
use super::operate::Job;
use super::process::News;
use super::reload::Reloading;
use super::replan::Replanning;
use super::rollout::{Degraded, Rollout, Target};
use super::signals::{SIGCONT, SIGKILL};
use super::time::Mono;

use crate::config::KillMode;
use crate::plan::{Activation, Lifecycle, WorkerId};

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// The exit status of a listend that was asked to stop.
const EXIT_STOPPED: u8 = 0;

/// Decides what happens to every instance of every worker.
///
/// Each input costs O(log n) in the number of instances, but for the first two of
/// [`Input::Stop`] and [`Input::Start`], which concern all of them.
#[derive(Debug, Clone)]
pub struct Core {
    pub(super) workers: Vec<Worker>,
    /// The time of the last input.
    pub(super) now: Mono,
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
    /// When which rollout is to be looked at again.
    pub(super) rollouts_due: BTreeSet<(Mono, WorkerId)>,
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
    pub(super) next_connection: ConnectionId,
    /// When which gate is to be looked at again.
    pub(super) gates_due: BTreeSet<(Mono, WorkerId)>,
    /// The workers whose gates may have opened.
    pub(super) touched: Vec<WorkerId>,
    /// The index into `slots` for every process there is. A tree and not a hash table, whose
    /// seed would be taken from the operating system.
    pub(super) processes: BTreeMap<ProcessId, usize>,
    /// The deadlines of all states, as (when, index into `slots`).
    pub(super) deadlines: BTreeSet<(Mono, usize)>,
    /// The listeners that are not as they should be.
    pub(super) listeners: Listeners,
    pub(super) next_process: ProcessId,
    pub(super) phase: Phase,
    pub(super) when_done: WhenDone,
    /// The exit status that the instances add up to: that of the first that did not end well.
    pub(super) verdict: u8,
    pub(super) effects: VecDeque<Effect>,
    pub(super) ignored: u64,
}

/// What listend does when no instance runs or will run again, without having been asked to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenDone {
    /// It keeps holding the listeners: clients wait for whoever repairs the worker.
    Hold,
    /// It ends with the exit status of its workers, as a shell would.
    Exit,
}

/// How far listend is, in the order in which it gets there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// Listeners are not bound yet.
    Idle,
    /// Workers run.
    Running,
    /// Workers were asked to stop.
    Stopping,
    /// Workers were killed.
    Hurried,
    /// [`Effect::Exit`] was given; nothing follows.
    Exited,
}

#[derive(Debug, Clone)]
pub(super) struct Worker {
    /// How an instance that is started now lives.
    pub(super) lifecycle: Arc<Lifecycle>,
    /// By which definition it is started.
    pub(super) edition: Edition,
    /// Its instances, as indices into [`Core::slots`].
    pub(super) slots: Vec<usize>,
    /// The candidates for their places, and those on their way out.
    pub(super) others: Vec<usize>,
    /// Somebody has stopped it.
    pub(super) stopped: bool,
    /// It is no longer there, but for what is on its way out.
    pub(super) removed: bool,
    /// That nothing is left of it was told.
    pub(super) gone: bool,
    /// Definitions before the present one may still be needed, and are to be retired.
    pub(super) outdated: bool,
    /// How many instances there are to be when no rollout is under way.
    pub(super) wanted: u32,
    /// The generation that serves.
    pub(super) generation: u32,
    /// The latest there was.
    pub(super) last_generation: u32,
    /// What went wrong with the last rollout.
    pub(super) degraded: Option<Degraded>,
    /// What the configuration in force says, if a rollout to it went back.
    pub(super) given_up: Option<Target>,
    /// How many of its instances have failed.
    pub(super) failed: u32,
    /// How many of its instances and connections are in which states.
    pub(super) counts: Counts,
    /// What is between it and its clients; without meaning for an eager one.
    pub(super) gate: Gate,
    /// The connections that listend accepts for it.
    pub(super) connections: Connections,
}

/// How many instances and connections of a worker are in some states; kept by
/// [`Core::become_state`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Counts {
    /// In [`State::Waiting`].
    pub(super) waiting: u32,
    /// In [`State::Preparing`] and [`State::Starting`].
    pub(super) starting: u32,
    /// In [`State::Starting`], [`State::Activating`], [`State::Running`], [`State::Stopping`], and
    /// in the two in which a command runs before or after.
    pub(super) with_process: u32,
    /// In [`State::Backoff`].
    pub(super) resting: u32,
}

impl Counts {
    /// Counts one more in this state, or one less.
    pub(super) fn change(&mut self, state: State, by: i32) {
        let add = |count: &mut u32| *count = count.saturating_add_signed(by);
        match state {
            State::Waiting => add(&mut self.waiting),
            State::Preparing { .. } | State::Starting { .. } => {
                add(&mut self.starting);
                add(&mut self.with_process);
            }
            State::Activating { .. }
            | State::Running { .. }
            | State::Stopping { .. }
            | State::Cleaning { .. } => add(&mut self.with_process),
            State::Backoff { .. } => add(&mut self.resting),
            State::Failed { .. } | State::Stopped => {}
        }
    }
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
            workers: Vec::new(),
            slots: Vec::new(),
            helpers: Helpers::default(),
            awaited: BTreeSet::new(),
            let_go: BTreeSet::new(),
            told_up: false,
            rollouts: BTreeMap::new(),
            rollouts_due: BTreeSet::new(),
            rolling: BTreeSet::new(),
            replanning: None,
            now: Mono(0),
            jobs: Vec::new(),
            reloads: Vec::new(),
            changed: Vec::new(),
            vacant: Vec::new(),
            accepting: BTreeMap::new(),
            next_connection: ConnectionId(0),
            gates_due: BTreeSet::new(),
            touched: Vec::new(),
            processes: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            listeners: Listeners::default(),
            next_process: ProcessId(0),
            phase: Phase::Idle,
            when_done,
            verdict: 0,
            effects: VecDeque::new(),
            ignored: 0,
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
        self.gates_due.retain(|(_, worker)| *worker != id);
        match self.workers.get_mut(id.0 as usize) {
            Some(place) => *place = fresh,
            None => self.workers.push(fresh),
        }
        for number in 0..instances {
            self.add_instance(id, number, State::Waiting);
        }
    }

    /// Takes in what happened at `now`.
    pub fn handle(&mut self, now: Mono, input: Input) {
        self.now = now;
        match input {
            Input::Start => self.start(now),
            Input::Spawned { process } => self.hear(now, process, News::Spawned),
            Input::ExecSucceeded { process } => self.hear(now, process, News::ExecSucceeded),
            Input::LaunchFailed { process, failure } => {
                self.hear(now, process, News::LaunchFailed(failure));
            }
            Input::MainExited { process, status } => {
                self.hear(now, process, News::MainExited(status));
            }
            Input::Exited { process, status } => self.hear(now, process, News::Exited(status)),
            Input::Notified { process, notice } => self.notified(now, process, notice),
            Input::Evidence { process, evidence } => self.evidence(now, process, evidence),
            Input::Stop => self.stop(now),
            Input::ListenerMissing { listener, why } => self.listener_missing(now, listener, why),
            Input::ListenerBound { listener } => self.listener_bound(now, listener),
            Input::AddressesChanged => self.addresses_changed(),
            Input::ListenerDamaged { listener, socket } => {
                self.listener_damaged(now, listener, socket);
            }
            Input::ListenerRepaired {
                listener,
                socket,
                by,
            } => self.listener_repaired(now, (listener, socket), by),
            Input::SocketHeld { listener, socket } => self.socket_is_held(now, (listener, socket)),
            Input::RepairFailed { listener, socket } => self.repair_failed(now, listener, socket),
            Input::ClientWaits { listener, socket } => self.client_waits(now, listener, socket),
            Input::Accepted { connection, source } => self.accepted(now, connection, source),
            Input::NotAccepted { connection, why } => self.not_accepted(now, connection, why),
            Input::Looked { worker, waiting } => self.looked(now, worker, waiting),
            Input::Operate {
                ticket,
                worker,
                command,
            } => self.operate(now, ticket, worker, command),
            Input::Tick => self.tick(now),
        }
        self.settle(now);
    }

    /// What follows from every input.
    pub(super) fn settle(&mut self, now: Mono) {
        self.bind_what_is_vacant();
        loop {
            self.start_what_was_opposed(now);
            self.advance_rollouts(now);
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
        self.effects.pop_front()
    }

    /// When to hand in [`Input::Tick`] unless something else happens before.
    pub fn deadline(&self) -> Option<Mono> {
        let instances = self.deadlines.first().map(|(at, _)| *at);
        let gates = self.gates_due.first().map(|(at, _)| *at);
        let rollouts = self.rollouts_due.first().map(|(at, _)| *at);
        let all = instances.into_iter().chain(gates).chain(rollouts);
        let all = all.chain(self.helpers.deadline());
        all.chain(self.errand_due()).min()
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
        let worker = self.workers.get(instance.worker.0 as usize)?;
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
        self.ignored
    }

    fn start(&mut self, now: Mono) {
        if self.phase != Phase::Idle {
            return;
        }
        self.phase = Phase::Running;
        for index in 0..self.slots.len() {
            self.slots[index].since = now;
            let worker = self.slots[index].instance.worker;
            if self.is_eager(worker) && !self.waits_for_a_listener(worker) {
                self.awaited.insert(index);
                self.spawn(now, index);
            }
        }
        self.touch_all();
    }

    pub(super) fn is_eager(&self, worker: WorkerId) -> bool {
        let lifecycle = self
            .workers
            .get(worker.0 as usize)
            .map(|known| &known.lifecycle);
        lifecycle.is_some_and(|lifecycle| lifecycle.activation == Activation::Eager)
    }

    pub(super) fn touch_all(&mut self) {
        let workers = (0..).map(WorkerId).take(self.workers.len());
        self.touched.extend(workers);
    }

    /// The indices of a worker's instances.
    pub(super) fn slots_of(&self, worker: WorkerId) -> Vec<usize> {
        let worker = self.workers.get(worker.0 as usize);
        worker.map_or(Vec::new(), |worker| worker.slots.clone())
    }

    pub(super) fn allot_process(&mut self) -> ProcessId {
        let process = self.next_process;
        // Not exhaustible: at a million a second this takes half a million years.
        self.next_process = ProcessId(process.0.saturating_add(1));
        process
    }

    /// Starts an instance, or first the command before it.
    pub(super) fn spawn(&mut self, now: Mono, index: usize) {
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
            self.prepare(now, index, timeout);
        } else {
            self.launch(now, index);
        }
    }

    pub(super) fn launch(&mut self, now: Mono, index: usize) {
        let process = self.allot_process();
        let slot = &self.slots[index];
        self.effects.push_back(Effect::Spawn {
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
                since: now,
                launch: Launch::Forking,
                ending: None,
            },
        );
    }

    /// Does what is due. Each turn of the loop takes a deadline away and none gives a new one, so
    /// that it ends and the deadline is later than `now` afterwards.
    fn tick(&mut self, now: Mono) {
        self.run_errands(now);
        self.resume_gates(now);
        self.helpers_timed_out(now);
        while let Some((at, index)) = self.deadlines.first().copied() {
            if at > now {
                break;
            }
            match self.slots[index].state {
                State::Backoff { .. } if self.is_on_demand(index) => self.rested(now, index),
                State::Backoff { .. } => self.start_again(now, index),
                State::Starting { process, .. } | State::Stopping { process, .. } => {
                    self.stop_timed_out(now, index, process);
                }
                State::Activating { process, .. } => self.not_ready_yet(now, index, process),
                State::Running { process, until, .. } => match until {
                    _ if self.slots[index]
                        .rereads_until()
                        .is_some_and(|until| until <= now) =>
                    {
                        self.rereads_too_long(index);
                    }
                    Some(until) if until <= now => self.connection_timed_out(now, index, process),
                    Some(_) | None => self.is_silent(now, index, process),
                },
                State::Failed { .. } => self.cooled_down(now, index),
                // Without a deadline, so that none leads here.
                State::Waiting
                | State::Preparing { .. }
                | State::Cleaning { .. }
                | State::Stopped => {
                    self.deadlines.pop_first();
                }
            }
        }
        self.rollouts_are_due(now);
    }

    fn exit_if_all_stopped(&mut self) {
        let code = match (self.phase, self.when_done) {
            (Phase::Stopping | Phase::Hurried, _) => EXIT_STOPPED,
            (Phase::Running, WhenDone::Exit) if self.is_done() => self.verdict,
            (Phase::Idle | Phase::Running | Phase::Exited, _) => return,
        };
        if !self.processes.is_empty() || !self.accepting.is_empty() || !self.helpers.is_empty() {
            return;
        }
        self.phase = Phase::Exited;
        self.effects.push_back(Effect::CloseListeners);
        self.emit(Event::AllStopped);
        self.effects.push_back(Effect::Exit { code });
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
        self.processes.is_empty()
            && self.helpers.is_empty()
            && self.workers.iter().all(eager)
            && self.slots.iter().all(over)
    }

    /// The only place where a state changes to one with another process or deadline, so that
    /// the indices cannot disagree with the states.
    pub(super) fn become_state(&mut self, index: usize, state: State) {
        let slot = &mut self.slots[index];
        let worker = &mut self.workers[slot.instance.worker.0 as usize];
        let old = std::mem::replace(&mut slot.state, state);
        if slot.role == Role::Instance {
            worker.failed -= u32::from(matches!(old, State::Failed { .. }));
            worker.failed += u32::from(matches!(state, State::Failed { .. }));
        }
        if std::mem::discriminant(&old) != std::mem::discriminant(&state) {
            slot.since = self.now;
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
                self.processes.remove(&process);
            }
            let is_over = state.process().is_none();
            if is_over && (slot.role == Role::Leaving || slot.edition != worker.edition) {
                self.let_go.insert((slot.instance.worker, slot.edition));
            }
            if let Some(process) = state.process() {
                self.processes.insert(process, index);
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
                self.deadlines.remove(&(before, index));
            }
            if let Some(at) = at {
                self.deadlines.insert((at, index));
            }
        }
    }

    /// Makes a slot something else to its worker.
    pub(super) fn become_role(&mut self, index: usize, role: Role) {
        let slot = &mut self.slots[index];
        let worker = &mut self.workers[slot.instance.worker.0 as usize];
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
        &self.workers[self.slots[index].instance.worker.0 as usize]
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
            self.effects.push_back(Effect::Signal {
                process,
                signal,
                scope,
            });
        }
    }

    pub(super) fn kill(&mut self, process: ProcessId) {
        self.effects.push_back(Effect::Signal {
            process,
            signal: SIGKILL,
            scope: Scope::Group,
        });
    }

    pub(super) fn emit(&mut self, event: Event) {
        self.effects.push_back(Effect::Emit(event));
    }
}
