//! The core itself: inputs in, effects out.

use super::ctx::Ctx;
use super::effect::Effect;
use super::event::{DaemonEvent, Event};
use super::held_up::HeldUp;
use super::input::{Input, News};
use super::run::Run;
use super::snapshot::fact::Key;
use super::state::State;
use super::time::Mono;
use super::types::{Answer, Next, Phase, ProcessId, Refused, RunId, WhenDone};
use super::worker::Worker;
use crate::plan::{Lifecycle, WorkerId};
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
    pub(super) workers: BTreeMap<WorkerId, Worker>,
    /// What an input is handled with, and what all workers share.
    pub(super) ctx: Ctx,
    /// Whether it was told that everything is up.
    pub(super) told_up: bool,
    pub(super) when_done: WhenDone,
    pub(super) held_up: HeldUp,
}

impl Core {
    /// A core for these workers; [`WorkerId`] counts them.
    pub fn new(
        lifecycles: impl IntoIterator<Item = impl Into<Arc<Lifecycle>>>,
        when_done: WhenDone,
    ) -> Core {
        let mut core = Core {
            workers: BTreeMap::new(),
            ctx: Ctx::new(),
            told_up: false,
            when_done,
            held_up: HeldUp::default(),
        };
        let workers = (0..).map(WorkerId).zip(lifecycles);
        let ctx = &mut core.ctx;
        // All at once: inserted one by one, each node of the map would stay half empty.
        core.workers = workers
            .map(|(id, lifecycle)| (id, Worker::new(ctx, id, lifecycle.into())))
            .collect();
        core
    }

    /// Whether it exits when no instance runs or will run again.
    pub fn exits_when_done(&self) -> bool {
        self.when_done == WhenDone::Exit
    }

    /// Adds a worker with instances that wait.
    pub(super) fn add_worker(&mut self, id: WorkerId, life: Arc<Lifecycle>) {
        let worker = Worker::new(&mut self.ctx, id, life);
        self.workers.insert(id, worker);
    }

    /// Hands the context down to a worker; `None` if it is not there.
    pub(super) fn on<T>(
        &mut self,
        id: WorkerId,
        act: impl FnOnce(&mut Worker, &mut Ctx) -> T,
    ) -> Option<T> {
        self.ctx.elsewhere = self.elsewhere(id);
        let worker = self.workers.get_mut(&id)?;
        self.ctx.record.worker(id);
        Some(act(worker, &mut self.ctx))
    }

    /// The same with each worker.
    pub(super) fn on_all(&mut self, mut act: impl FnMut(&mut Worker, &mut Ctx)) {
        for id in self.ids() {
            self.on(id, &mut act);
        }
    }

    pub(super) fn ids(&self) -> Vec<WorkerId> {
        self.workers.keys().copied().collect()
    }

    /// The same with the worker of a process; commands around instances are told apart.
    fn on_process_event(&mut self, process: ProcessId, news: News) {
        if let Some(id) = self.ctx.processes.get(&process).copied() {
            self.on(id.worker, |worker, ctx| {
                worker.on_process_event(ctx, id, process, news)
            });
        } else if let Some(id) = self.ctx.hooks.get(&process).copied() {
            self.on(id, |worker, ctx| worker.helper_heard(ctx, process, news));
        } else {
            self.ctx.ignore();
        }
    }

    /// What a process tells about itself, or the kernel about it.
    fn of_process(&mut self, process: ProcessId, act: impl FnOnce(&mut Worker, &mut Ctx, RunId)) {
        match self.ctx.processes.get(&process).copied() {
            Some(id) => {
                self.on(id.worker, |worker, ctx| act(worker, ctx, id));
            }
            None => self.ctx.ignore(),
        }
    }

    /// Takes in what happened at `now`.
    pub fn handle(&mut self, now: Mono, input: Input) {
        self.ctx.now = now;
        if let Some(first) = self.first_due() {
            self.held_up.look(first, now);
        }
        if self.ctx.record.is_on && !self.ctx.record.is_urgent {
            self.ctx.record.is_urgent = !self.is_of_connections(&input);
        }
        match input {
            Input::Start => self.start(),
            Input::Resumed => self.resume(),
            Input::ConnectionLost { connection } => self.connection_lost(connection),
            Input::ConnectionFound {
                worker,
                index,
                source,
            } => self.connection_found(worker, index, source),
            Input::Spawned { process } => self.on_process_event(process, News::Spawned),
            Input::ExecSucceeded { process } => self.on_process_event(process, News::ExecSucceeded),
            Input::LaunchFailed { process, failure } => {
                self.on_process_event(process, News::LaunchFailed(failure));
            }
            Input::MainExited { process, status } => {
                self.on_process_event(process, News::MainExited(status));
            }
            Input::Exited { process, status } => {
                self.on_process_event(process, News::Exited(status))
            }
            Input::Notified { process, notice } => {
                self.of_process(process, |worker, ctx, id| {
                    worker.notified(ctx, id, process, notice);
                });
            }
            Input::Evidence { process, evidence } => {
                self.of_process(process, |worker, ctx, id| {
                    worker.evidence(ctx, id, process, evidence);
                });
            }
            Input::Stop => self.stop(),
            Input::ListenerMissing { listener, why } => self.listener_missing(listener, why),
            Input::ListenerBound { listener } => self.listener_bound(listener),
            Input::AddressesChanged => self.addresses_changed(),
            Input::ReloadBlocked => self.reload_blocked(),
            Input::ListenerDamaged {
                listener,
                socket,
                what,
                of_rights,
            } => self.listener_damaged((listener, socket), what, of_rights),
            Input::ListenerRepaired {
                listener,
                socket,
                by,
            } => self.listener_repaired((listener, socket), by),
            Input::SocketHeld { listener, socket } => self.on_socket_held((listener, socket)),
            Input::RepairFailed { listener, socket } => self.repair_failed(listener, socket),
            Input::ClientWaits { listener, socket } => self.client_waits(listener, socket),
            Input::Accepted { connection, source } => self.accepted(connection, source),
            Input::NotAccepted { connection, why } => self.not_accepted(connection, why),
            Input::Looked { worker, waiting } => self.looked(worker, waiting),
            Input::ShardLooked { process, clients } => {
                self.of_process(process, |worker, ctx, id| {
                    worker.shard_looked_at(ctx, id, clients);
                });
            }
            Input::QueuesSeen { worker, waiting } => self.queues_seen(worker, waiting.as_deref()),
            Input::UseSeen { worker, seen } => self.use_seen(worker, seen),
            Input::FlowsQuiet { worker, lane } => {
                let known = self.on(worker, |worker, ctx| worker.flows_are_quiet(ctx, lane));
                if known.is_none() {
                    self.ctx.ignore();
                }
            }
            Input::Operate {
                ticket,
                worker,
                index,
                command,
            } => {
                let known = self.on(worker, |worker, ctx| match index {
                    None => worker.operate(ctx, ticket, command),
                    Some(index) => worker.operate_on(ctx, ticket, index, command),
                });
                if known.is_none() {
                    let refused = Answer::Refused(Refused::NoSuchWorker);
                    self.ctx.answer(ticket, refused);
                }
            }
            Input::Configure(configuration) => self.configure(*configuration),
            Input::Tick => self.tick(),
        }
        self.settle();
    }

    /// What follows from every input.
    fn settle(&mut self) {
        self.refuse_clients();
        self.bind_vacant();
        self.start_what_was_opposed();
        // There may be thousands of connections a second, from each of which several inputs come.
        if !self.is_plain_service() {
            self.advance_plans();
        }
        self.open_gates();
        self.tell_when_up();
        self.exit_if_all_stopped();
        self.sweep();
    }

    /// Whether there is nothing under way that an input could bring on.
    fn is_plain_service(&self) -> bool {
        let mut stirred = self.ctx.stirred.iter();
        let serves = |id: WorkerId| self.workers.get(&id).is_none_or(Worker::only_serves);
        self.ctx.replanning.is_none() && stirred.all(serves)
    }

    /// Brings on what is under way with each worker that something has happened to.
    fn advance_plans(&mut self) {
        loop {
            self.on_stirred(|core, id| {
                core.on(id, Worker::advance_rollout);
            });
            // A rollout that turns back, once, keeps what others have waited for.
            if self.ctx.let_go.is_empty() {
                break;
            }
            self.start_what_was_opposed();
        }
        self.refuse_clients();
        self.on_stirred(|core, id| {
            core.on(id, Worker::look_at_what_was_added);
        });
        self.on_stirred(|core, id| {
            core.on(id, Worker::advance_jobs);
        });
        self.on_stirred(|core, id| {
            core.on(id, Worker::steer);
        });
        self.end_replanning();
        self.on_stirred(|core, id| {
            core.on(id, |worker, ctx| {
                worker.follow_use(ctx);
                worker.follow_queues(ctx);
            });
        });
    }

    /// Does something about each worker that something has happened to so far.
    pub(super) fn on_stirred(&mut self, act: impl Fn(&mut Core, WorkerId)) {
        let pass = self.ctx.stirred.begin_pass();
        for id in &pass {
            act(self, *id);
        }
        self.ctx.stirred.end_pass(pass);
    }

    /// The next thing to do, oldest first. Answers may be handed in before the rest is taken.
    pub fn next_effect(&mut self) -> Option<Effect> {
        self.ctx.outbox.pop()
    }

    /// When to hand in [`Input::Tick`] unless something else happens before.
    pub fn deadline(&self) -> Option<Mono> {
        self.first_due().map(|at| self.held_up.put_off(at))
    }

    fn first_due(&self) -> Option<Mono> {
        let timers = self.ctx.listeners.due.first().map(|(at, _)| *at);
        timers.into_iter().chain(self.ctx.timers.deadline()).min()
    }

    pub(super) fn start(&mut self) {
        if self.ctx.phase != Phase::Idle {
            return;
        }
        self.ctx.phase = Phase::Running;
        self.on_all(Worker::start);
    }

    pub(super) fn stir_all(&mut self) {
        for id in self.workers.keys() {
            self.ctx.stir(*id);
        }
    }

    fn stop(&mut self) {
        match self.ctx.phase {
            Phase::Idle | Phase::Running => {
                self.ctx.phase = Phase::Stopping;
                self.take_back_spawns();
                self.forget_listeners();
                self.on_all(Worker::cancel_rollout);
                self.forget_replanning();
                self.read_again();
                self.ctx.timers.gates.clear();
                self.on_all(|worker, ctx| {
                    worker.forget_use(ctx);
                    worker.forget_queues(ctx);
                });
                self.ctx.emit(Event::Daemon(DaemonEvent::StopRequested {
                    live: self.ctx.processes.len(),
                }));
                self.on_all(Worker::stop_all);
            }
            Phase::Stopping => {
                self.ctx.phase = Phase::Hurried;
                self.ctx.emit(Event::Daemon(DaemonEvent::StopHurried {
                    live: self.ctx.processes.len(),
                }));
                self.on_all(Worker::kill_all);
            }
            Phase::Hurried | Phase::Exited => {}
        }
    }

    /// Forgets the spawns and accepts that nobody has taken yet: nothing starts after a request to
    /// stop.
    fn take_back_spawns(&mut self) {
        let (spawns, accepts) = self.ctx.outbox.take_back();
        for connection in accepts {
            if let Some(id) = self.ctx.accepting.remove(&connection) {
                self.on(id, |worker, _| worker.connections.under_way -= 1);
            }
        }
        for process in spawns {
            if let Some(id) = self.ctx.hooks.get(&process).copied() {
                self.on(id, |worker, ctx| worker.forget_helper(ctx, process));
            }
            if let Some(id) = self.ctx.processes.get(&process).copied() {
                self.on(id.worker, |worker, ctx| {
                    worker.wind_up(ctx, id, Next::Stopping);
                });
            }
        }
    }

    /// Does what is due. Each turn of a loop takes a deadline away and none gives a new one, so
    /// that it ends and the deadline is later than `now` afterwards.
    fn tick(&mut self) {
        let now = self.ctx.now;
        if self.deadline().is_none_or(|at| at > now) {
            return;
        }
        self.run_listener_timers();
        self.run_use_timers();
        self.run_queue_timers();
        if self.ctx.timers.reread.is_some_and(|at| at <= now) {
            self.read_again();
        }
        while let Some(id) = pop_due(&mut self.ctx.timers.gates, now) {
            self.on(id, Worker::resume_gate);
        }
        while let Some(process) = pop_due(&mut self.ctx.timers.hooks, now) {
            if let Some(id) = self.ctx.hooks.get(&process).copied() {
                self.on(id, |worker, ctx| worker.helper_timed_out(ctx, process));
            }
        }
        while let Some((at, id)) = self.ctx.timers.runs.first().copied()
            && at <= now
        {
            let is_due = self.on(id.worker, |worker, ctx| worker.on_deadline(ctx, id));
            if is_due != Some(true) {
                self.ctx.timers.runs.remove(&(at, id));
            }
        }
        while let Some(id) = pop_due(&mut self.ctx.timers.rollouts, now) {
            self.ctx.stir(id);
        }
    }

    /// Tells once that every instance that was to run from the start on is ready, or has failed
    /// once.
    fn tell_when_up(&mut self) {
        if self.told_up || self.ctx.phase != Phase::Running || !self.ctx.awaited.is_empty() {
            return;
        }
        self.told_up = true;
        let places = self
            .workers
            .values()
            .flat_map(|worker| worker.runs.places());
        let has_failed =
            |run: &&Run| matches!(run.state, State::Backoff { .. } | State::Failed { .. });
        let failed = places.filter(has_failed).count();
        self.ctx.emit(Event::Daemon(DaemonEvent::Up { failed }));
    }

    fn exit_if_all_stopped(&mut self) {
        if self.ctx.is_busy() {
            return;
        }
        let code = match (self.ctx.phase, self.when_done) {
            (Phase::Stopping | Phase::Hurried, _) => EXIT_STOPPED,
            (Phase::Running, WhenDone::Exit) if self.is_done() => self.ctx.verdict,
            (Phase::Idle | Phase::Running | Phase::Exited, _) => return,
        };
        self.ctx.phase = Phase::Exited;
        self.ctx.outbox.push(Effect::CloseListeners);
        self.ctx.emit(Event::Daemon(DaemonEvent::AllStopped));
        self.ctx.outbox.push(Effect::Exit { code });
    }

    /// Whether no instance will run again, given that none runs.
    fn is_done(&self) -> bool {
        let is_over = |run: &Run| {
            matches!(
                run.state,
                State::Stopped | State::Failed { until: None, .. }
            )
        };
        let is_done = |worker: &Worker| worker.is_eager() && worker.runs.all().all(is_over);
        self.workers.values().all(is_done)
    }

    /// Takes out what is over.
    fn sweep(&mut self) {
        self.on_stirred(Core::sweep_worker);
        self.ctx.stirred.clear();
    }

    fn sweep_worker(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.get_mut(&id) else {
            return;
        };
        self.ctx.record.worker(id);
        worker.runs.sweep();
        if worker.jobs.is_empty() {
            worker.changed.clear();
        }
        if worker.gone {
            let hooks = worker.helpers.take_lent().into_iter().map(Key::Hook);
            let runs = worker.runs.take_lent().into_iter();
            let runs = runs.map(|run| Key::Run(run.number));
            let gone = runs
                .chain(hooks)
                .chain([Key::Worker(id), Key::Connections(id)]);
            if self.ctx.record.is_on {
                self.ctx.record.gone.extend(gone);
            }
            self.workers.remove(&id);
        }
    }

    /// How many inputs named a process that is not there, or said what cannot be true of it.
    pub fn ignored_inputs(&self) -> u64 {
        self.ctx.ignored
    }

    /// Whether every instance that was to run from the start on is ready, or has failed once.
    pub fn is_up(&self) -> bool {
        self.told_up
    }
}

/// The next that is due by now.
fn pop_due<T: Ord>(timers: &mut BTreeSet<(Mono, T)>, now: Mono) -> Option<T> {
    let (at, _) = timers.first()?;
    if *at > now {
        return None;
    }
    timers.pop_first().map(|(_, what)| what)
}
