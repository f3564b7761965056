//! One turn of the loop, and how each effect of the core is carried out.
//!
//! The order within a turn matters: how an exec went is told before the exit that may have
//! followed it, and exits before the tick, so that the core sees causes before their consequences.

use super::clients::{self, Clients};
use super::clock;
use super::control::pending_upgrade::Upgrade;
use super::control::{Control, Reloads};
use super::definitions::{Definitions, listener_lives};
use super::event_text::{self, OutOfMemory};
use super::flows::Flows;
use super::folders::Folders;
use super::groups::Groups;
use super::logging;
use super::logs::Logs;
use super::looks::Looks;
use super::manager::Manager;
use super::memory_events::MemoryEvents;
use super::metrics::Metrics;
use super::notify::Notify;
use super::process::{Process, Processes, SpawnRequest};
use super::reserve::{self, Reserve};
use super::rollback_reasons::RollbackReasons;
use super::shards::Steering;
use super::signals::{Arrived, Signals};
use super::store::{Found, Store};
use super::strays::{self, Stray};
use super::token::Token;
use super::watch::Watch;
use crate::config::signal_name;
use crate::core::{
    Command, Core, DaemonEvent, Effect, Event, Input, Mono, ProcessId, RolloutEvent, Scope, Ticket,
    WhenDone,
};
use crate::listener::{BindError, SocketTable};
use crate::plan::{Plan, WorkerId};
use crate::sys::{self, Origin};
use crate::worker::{self, DaemonContext};
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::unistd::geteuid;
use signal_hook::consts::{SIGALRM, SIGHUP, SIGINT, SIGKILL, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// How many events one turn takes from the kernel; the rest stays for the next.
const EVENTS_PER_TURN: usize = 256;

/// How long a turn takes what workers can send, or have end, without end: messages, and the ends of processes. The
/// rest stays for the next.
pub(super) const SLICE: Duration = Duration::from_millis(5);

/// When a process that tells nobody whether it has reached its program is looked at for the first
/// time, if nothing else happens before.
pub(super) const LAUNCH_LOOK: Duration = Duration::from_millis(10);

/// How often it is looked whether a process group goes on of which nobody is our child.
const REST_LOOK: Duration = Duration::from_millis(250);

/// Everything the running daemon has.
pub struct Shell {
    pub(super) plan: Rc<Plan>,
    /// Every socket that is held.
    pub(super) sockets: SocketTable,
    pub(super) watch: Watch,
    pub(super) clients: Clients,
    /// The processes on their way to exec that tell nobody when they are there, since when, and when
    /// they are looked at next.
    pub(super) launching: Vec<(ProcessId, Mono, Mono)>,
    /// The last processes that were started and tell that by a pipe.
    pub(super) last_started: VecDeque<ProcessId>,
    pub(super) daemon_context: DaemonContext,
    pub(super) core: Core,
    pub(super) metrics: Metrics,
    pub(super) control: Control,
    pub(super) epoll: Epoll,
    signals: Signals,
    pub(super) processes: Processes,
    /// What workers write.
    pub(super) logs: Logs,
    /// What is to be looked at where it may not answer.
    pub(super) looks: Looks,
    /// Every definition of a worker from which something may still be started.
    pub(super) definitions: Definitions,
    /// What is to be started when its output file is open.
    pub(super) to_start: HashMap<ProcessId, SpawnRequest>,
    /// Where clients are sent of workers that have a socket for each instance.
    pub(super) steering: Steering,
    /// The sockets between which packets are steered.
    pub(super) flows: Flows,
    /// The runtime directories of workers.
    pub(super) folders: Folders,
    /// The control groups of workers.
    pub(super) groups: Groups,
    /// The reload that is being read, and who waits for one.
    pub(super) reloads: Reloads,
    /// Why instances have failed, in words.
    pub(super) rollback_reasons: RollbackReasons,
    /// What workers tell, and leave for their successors.
    pub(super) notify: Notify,
    /// Who has to be told how it goes.
    pub(super) manager: Manager,
    /// Whether the kernel kills for want of memory.
    memory: MemoryEvents,
    /// Descriptors for what has to be done.
    pub(super) reserve: Reserve,
    /// When to look after what closes descriptors ([`sys::close_apart`]).
    closing: Option<Mono>,
    /// Effects are being carried out.
    is_performing: bool,
    /// Not all children that have ended were reaped yet.
    pub(super) more_have_ended: bool,
    /// What outlives this process.
    pub(super) store: Store,
    /// What the core is about to ask for is there.
    pub(super) found: Option<Found>,
    /// Another binary that is to go on here.
    pub(super) upgrade: Option<Upgrade>,
    /// Processes of the listend before that go when all others are ready.
    pub(super) strays: Vec<Stray>,
    /// The user of listend, and of whatever is started as no other.
    pub(super) uid: u32,
    exit: Option<u8>,
}

impl Shell {
    /// Takes over the plan and the bound listeners. Nothing runs yet.
    ///
    /// # Errors
    ///
    /// epoll_create1(2) or epoll_ctl(2) failed: no descriptors or no memory left.
    pub fn new(
        plan: Plan,
        sockets: SocketTable,
        given: (Signals, DaemonContext),
        when_done: WhenDone,
    ) -> io::Result<Shell> {
        let lifecycles = plan
            .workers
            .values()
            .map(|worker| Arc::clone(&worker.lifecycle));
        let core = Core::new(lifecycles, when_done)
            .with_listeners(listener_lives(&plan).into_values().collect());
        let definitions = Definitions::new(&plan, &core);
        Shell::with_core(plan, sockets, given, core, definitions)
    }

    /// With a core that may have been running before.
    pub(super) fn with_core(
        plan: Plan,
        mut sockets: SocketTable,
        (signals, daemon_context): (Signals, DaemonContext),
        core: Core,
        definitions: Definitions,
    ) -> io::Result<Shell> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(
            signals.fd(),
            EpollEvent::new(EpollFlags::EPOLLIN, Token::Signals.pack()),
        )?;
        epoll.add(
            signals.children(),
            EpollEvent::new(EpollFlags::EPOLLIN, Token::Children.pack()),
        )?;
        let reserve = Reserve::keep(reserve::taken(&epoll).max(sockets.iter().count()));
        if clients::accepts(&plan) {
            clients::make_room(&mut sockets);
        }
        let clients = Clients::new(clients::named(&plan))?;
        let watch = Watch::new(clients::roles(&plan));
        let logs = Logs::new(&plan);
        let metrics = Metrics::new();
        Ok(Shell {
            plan: Rc::new(plan),
            sockets,
            watch,
            clients,
            launching: Vec::new(),
            last_started: VecDeque::new(),
            daemon_context,
            core,
            metrics,
            control: Control::default(),
            epoll,
            signals,
            processes: Processes::default(),
            logs,
            looks: Looks::default(),
            definitions,
            to_start: HashMap::new(),
            steering: Steering::default(),
            flows: Flows::default(),
            folders: Folders::default(),
            groups: Groups::default(),
            reloads: Reloads::default(),
            rollback_reasons: RollbackReasons::default(),
            notify: Notify::default(),
            manager: Manager::default(),
            memory: MemoryEvents::new(),
            reserve,
            closing: None,
            is_performing: false,
            more_have_ended: false,
            store: Store::default(),
            found: None,
            upgrade: None,
            strays: Vec::new(),
            uid: geteuid().as_raw(),
            exit: None,
        })
    }

    /// Starts the workers and runs until the core says with which code to exit.
    ///
    /// # Errors
    ///
    /// epoll_wait(2) failed, which it does only for a programming error.
    ///
    /// `missing` are the listeners that the start could do without.
    pub fn run(mut self, missing: &[BindError]) -> io::Result<u8> {
        logging::hold();
        self.begin_watching(missing);
        self.follow_flows();
        self.tell_manager();
        self.hand_over_first();
        self.feed(Input::Start);
        self.run_loop()
    }

    /// Goes on where another listend was.
    ///
    /// # Errors
    ///
    /// As for [`Shell::run`].
    ///
    /// The instances in `to_replace` are replaced.
    pub(super) fn run_on(
        mut self,
        missing: &[BindError],
        to_replace: &BTreeMap<WorkerId, &'static str>,
    ) -> io::Result<u8> {
        logging::hold();
        self.begin_watching(missing);
        self.follow_flows();
        // One that goes on from a snapshot has handed everything over, and what it was asked for is not done.
        if self.store.is_fresh() {
            self.hand_over_first();
        }
        let now = clock::now();
        self.groups
            .look_for_left(&self.definitions, &self.processes, now);
        self.feed(Input::Resumed);
        self.feed_requests_left();
        for (worker, why) in to_replace {
            let name = &self.definitions.worker(*worker).name;
            log::info!("replacing the processes of {name}: {why}");
            let ticket = Ticket(self.control.new_id());
            self.feed(Input::Operate {
                ticket,
                worker: *worker,
                index: None,
                command: Command::Restart,
            });
        }
        // To set the action of SIGCHLD, as a start does, discards the one of a child that has ended just before.
        self.reap_children();
        self.tell_manager();
        self.run_loop()
    }

    fn run_loop(mut self) -> io::Result<u8> {
        // Made once: to clear all of it takes longer than most turns take with it.
        let mut events = vec![EpollEvent::empty(); EVENTS_PER_TURN];
        loop {
            self.folders.tidy(&self.core, &self.plan);
            self.groups.remove(clock::now(), self.reserve);
            self.forget_stores_of_stopped();
            self.rest_from_files();
            self.record();
            self.tell_manager();
            if !self.strays.is_empty() && (self.core.is_up() || self.core.is_stopping()) {
                strays::release(std::mem::take(&mut self.strays));
            }
            if let Some(code) = self.exit {
                self.control.send_withheld(&self.epoll);
                self.logs.finish(&self.epoll);
                self.feed_followers_last();
                return Ok(code);
            }
            self.notify.end_barriers();
            self.upgrade_turn();
            self.answer_what_is_done();
            self.closing = sys::close_apart(clock::now().0).map(Mono);
            self.turn(&mut events)?;
        }
    }

    fn turn(&mut self, events: &mut [EpollEvent]) -> io::Result<()> {
        let room = EpollEvent::new(EpollFlags::EPOLLOUT, Token::Log.pack());
        logging::flush_and_watch(&self.epoll, room);
        let count = match self.epoll.wait(events, self.timeout()) {
            Ok(count) => count,
            Err(Errno::EINTR) => 0,
            Err(errno) => return Err(errno.into()),
        };
        let events = events.get(..count).unwrap_or_default();
        let tokens = || events.iter().map(|event| Token::unpack(event.data()));
        for token in tokens() {
            if let Token::Status(process) = token {
                self.exec_status(process);
            }
        }
        for token in tokens() {
            if let Token::Notify(part) = token {
                self.notify_event(part);
            }
        }
        self.acks_turn();
        if tokens().any(|token| matches!(token, Token::Notify(_))) {
            // What was read from the sockets is nowhere else, and the rest of a turn can take milliseconds.
            self.record();
        }
        // Level-triggered: what this turn does not take is there again in the next.
        if tokens().any(|token| token == Token::Signals) {
            for arrived in self.signals.take() {
                self.signal(arrived);
            }
        }
        let told_of_children = tokens().any(|token| token == Token::Children);
        if told_of_children && let Some(pid) = self.signals.take_children() {
            self.reap_named(pid);
        }
        if told_of_children || self.more_have_ended {
            self.reap_children();
        }
        for token in tokens() {
            if let Token::Exit(process) = token {
                self.exited(process);
            }
        }
        // After the exits: of a worker that damaged a listener and ended, the end is told first.
        for event in events {
            match Token::unpack(event.data()) {
                Token::Socket(key) => self.socket_event(key, event.events()),
                Token::Paths => self.paths_changed(),
                Token::Addresses => self.addresses_changed(),
                Token::Mounts => self.look_at_namespaces(),
                Token::Control(part) => self.control_event(part, event.events()),
                Token::Signals
                | Token::Children
                | Token::Status(_)
                | Token::Exit(_)
                | Token::Notify(_)
                | Token::Log
                | Token::Keeper
                | Token::Writer(_)
                | Token::Output => {}
            }
        }
        self.watch.more(&self.epoll, &self.sockets);
        self.repair_own_again();
        self.queries_turn();
        self.control_turn();
        self.look_at_launching();
        for process in self.store.reaped_by_now() {
            self.exited(process);
        }
        for process in self.processes.with_rest_elsewhere() {
            self.check_rest_ended(process);
        }
        self.look_at_queues();
        self.look_at_flows();
        if self.core.deadline().is_some_and(|at| at <= clock::now()) {
            self.feed(Input::Tick);
        }
        for token in tokens() {
            if let Token::Writer(user) = token {
                self.logs.writer_event(&self.epoll, user);
            }
        }
        self.logs.look(&self.epoll, clock::now());
        self.start_what_can_be();
        self.tell_reopened();
        // Last: what is written about may wait, and may be very much.
        if tokens().any(|token| token == Token::Output) {
            self.read_logs();
        }
        self.feed_followers();
        Ok(())
    }

    /// Looks which processes have reached their programs, of those that tell nobody. A look costs
    /// next to nothing and comes with every turn; one that takes its time is looked at again after
    /// a time that grows with it.
    fn look_at_launching(&mut self) {
        if self.launching.is_empty() {
            return;
        }
        let now = clock::now();
        let mut all = std::mem::take(&mut self.launching);
        all.retain_mut(|(process, since, at)| {
            self.exec_status(*process);
            if *at <= now {
                *at = now + now.since(*since).max(LAUNCH_LOOK);
            }
            let is_launching = |process: &Process| process.launching.is_some();
            self.processes.get(*process).is_some_and(is_launching)
        });
        // Others may have been launched meanwhile.
        all.append(&mut self.launching);
        self.launching = all;
    }

    /// The time until the core's deadline, rounded up: a turn that comes too early would only be repeated.
    fn timeout(&self) -> EpollTimeout {
        let goes_on = self.control.has_work() || self.control.owes_lines();
        if goes_on || self.watch.is_to_go_on() || self.more_have_ended {
            return EpollTimeout::ZERO;
        }
        let looked_at = self.launching.iter().map(|(_, _, at)| *at);
        let others = self.control.deadline().into_iter();
        let others = others.chain(self.control.queue_log.deadline());
        let others = others.chain(self.flows.deadline());
        let others = others.chain(self.notify.deadline());
        let others = others.chain(self.watch.deadline());
        let others = others.chain(self.manager.deadline()).chain(self.closing);
        let others = others.chain(self.groups.deadline());
        let others = others
            .chain(self.logs.deadline())
            .chain(self.store.deadline())
            .chain(self.upgrade_deadline());
        let deadlines = looked_at.chain(self.core.deadline()).chain(others);
        let rests = self.processes.with_rest_elsewhere();
        let rests = (!rests.is_empty()).then(|| clock::now() + REST_LOOK);
        let Some(deadline) = deadlines.chain(rests).min() else {
            return EpollTimeout::NONE;
        };
        let left = deadline.0.saturating_sub(clock::now().0);
        let milliseconds = left.div_ceil(1_000_000).min(i32::MAX as u64) as i32;
        EpollTimeout::try_from(milliseconds).unwrap_or(EpollTimeout::ZERO)
    }

    /// Hands the core what has happened, and does what it wants done about that.
    pub(super) fn feed(&mut self, input: Input) {
        self.feed_all([input]);
    }

    /// The same with what has happened at once. What comes of an effect is handed in meanwhile, and done by
    /// the loop that is under way.
    pub(super) fn feed_all(&mut self, inputs: impl IntoIterator<Item = Input>) {
        for input in inputs {
            self.core.handle(clock::now(), input);
        }
        if !std::mem::replace(&mut self.is_performing, true) {
            while let Some(effect) = self.core.next_effect() {
                self.perform(effect);
            }
            self.is_performing = false;
        }
    }

    fn signal(&mut self, arrived: Arrived) {
        // Handled only because they would end listend, and leave its workers to themselves.
        if let SIGALRM | SIGUSR1 = arrived.number {
            if self.signals.is_to_be_told(arrived.number) {
                let arrival = event_text::arrival(arrived);
                log::info!("received {arrival}, which has no effect");
            }
            return;
        }
        log::info!("received {}", event_text::arrival(arrived));
        match (arrived.number, arrived.origin) {
            // The kernel sends SIGHUP when the terminal that listend runs on goes away.
            (SIGTERM | SIGINT | SIGQUIT, _) | (SIGHUP, Origin::Kernel) => {
                self.feed_request(Input::Stop);
            }
            (SIGHUP, Origin::Process { .. }) => self.reload_by_signal(),
            (SIGUSR2, _) => self.request_upgrade(None, None, false),
            _ => {}
        }
    }

    pub(super) fn exec_status(&mut self, id: ProcessId) {
        let is_launching = |process: &Process| process.launching.is_some();
        if !self.processes.get(id).is_some_and(is_launching) {
            return;
        }
        let Some(process) = self.processes.get_mut(id) else {
            return;
        };
        let Some(launching) = &mut process.launching else {
            return;
        };
        let Ok((outcome, status)) = launching.outcome() else {
            return;
        };
        // By hand, because closing it is not enough: a child that is still on its way to exec, and
        // may hang there, has a copy of every descriptor, which keeps the event coming (epoll(7)).
        let _not_watched = status.map(|status| self.epoll.delete(&status));
        let reserve = self.reserve;
        // A connection that was lost on the way back is as good as served.
        let is_lost = |connection| {
            let _reserve = reserve.lend();
            !self.clients.take_back(connection)
        };
        let outcome = outcome.filter(|_| !process.lent.is_some_and(is_lost));
        let input = match outcome {
            None => {
                process.launching = None;
                Input::ExecSucceeded { process: id }
            }
            Some(mut failure) => {
                let worker = self.definitions.worker(process.instance.worker);
                // What sets up a sandbox says why itself.
                if failure.reason.is_none() {
                    let why = worker::explain(&failure, worker, launching.prepared());
                    failure.reason = Some(why);
                }
                Input::LaunchFailed {
                    process: id,
                    failure,
                }
            }
        };
        self.feed(input);
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Spawn {
                process,
                instance,
                revision,
                task,
                connection,
                lane,
            } => {
                let wanted = SpawnRequest {
                    process,
                    instance,
                    revision,
                    task,
                    connection,
                    lane,
                };
                self.spawn(wanted);
            }
            Effect::Signal {
                process,
                signal,
                scope,
            } => self.send(process, signal, scope),
            Effect::LookForEvidence { process } => self.look_for_evidence(process),
            Effect::Unbind { listener } => self.unbind(listener),
            Effect::Retire { worker, needed } => self.retire(worker, needed),
            Effect::Bind { listener } => self.bind(listener),
            Effect::Repair { listener, socket } => self.repair(listener, socket),
            Effect::Watch { socket, .. } => self.watch_clients(socket, true),
            Effect::Unwatch { socket, .. } => self.watch_clients(socket, false),
            Effect::Accept {
                socket, connection, ..
            } => self.accept(socket, connection),
            Effect::Close { connection } => self.clients.close(connection),
            Effect::LookForClients { worker } => self.look_for_clients(worker),
            Effect::HoldShards { worker, shards } => self.hold_shards(worker, shards),
            Effect::ReadAgain => self.read_again(),
            Effect::Steer { worker, shards } => self.steer(worker, shards),
            Effect::LookAtShard { process } => self.look_at_shard(process),
            Effect::LookAtQueues { worker } => self.look_at_queues_of(worker),
            Effect::LookForUse { worker } => self.look_for_use(worker),
            Effect::TakeFlows { worker, lane } => self.take_flows(worker, lane),
            Effect::WatchFlows { worker, lane } => self.watch_flows(worker, lane),
            Effect::EndFlows { worker, lane } => self.end_flows(worker, lane),
            Effect::WatchAddresses { wanted } => self.watch_addresses(wanted),
            Effect::Answer { ticket, answer } => self.answered(ticket, answer),
            Effect::CloseListeners => self.close_listeners(),
            Effect::Exit { code } => {
                self.folders.remove_all();
                self.groups.remove_all(self.reserve);
                self.exit = Some(code);
            }
            Effect::Emit(event) => self.emit(&event),
        }
    }

    fn emit(&mut self, event: &Event) {
        self.metrics.counters.observe(event);
        self.manager_hears(event);
        if matches!(event, Event::Daemon(DaemonEvent::Up { .. })) {
            // To start an instance takes more than to have it.
            sys::return_free_memory();
        }
        // There may be thousands of connections a second, and nobody who reads of each.
        if event_text::is_detail(event, &self.definitions) && !log::log_enabled!(log::Level::Debug)
        {
            return;
        }
        let out_of_memory = match event {
            Event::Process(_, process, event) if event_text::is_unexplained_kill(event) => {
                let has_killed = self.memory.has_killed();
                match self.groups.out_of_memory(*process) {
                    Some(limit) => OutOfMemory::OfItsOwn(limit),
                    None if has_killed => OutOfMemory::Probably,
                    None => OutOfMemory::No,
                }
            }
            _ => OutOfMemory::No,
        };
        let context = event_text::Context {
            plan: &self.plan,
            definitions: &self.definitions,
            processes: &self.processes,
            sockets: &self.sockets,
            clients: &self.clients,
            logs: &self.logs,
            out_of_memory,
            has_control: self.control.path().is_some(),
            exits: self.core.exits_when_done(),
        };
        let (level, mut words) = event_text::event_text(event, &context);
        if let Event::Rollout(_, RolloutEvent::RolledBack { instance, .. }) = event {
            words.push_str(&self.after_rollback(*instance));
        }
        if log::log_enabled!(level) {
            let about = self.outline(event);
            log::log!(
                level,
                event = about.kind,
                listener = about.listener,
                worker = about.worker,
                instance = about.instance,
                generation = about.generation,
                pid = about.pid;
                "{words}"
            );
        }
        self.note_rollback_reason(event, &words);
        if !event_text::is_detail(event, &self.definitions) {
            self.tell_watchers(event, words);
        }
    }

    fn send(&mut self, id: ProcessId, signal: i32, scope: Scope) {
        let Some(process) = self.processes.get_mut(id) else {
            return;
        };
        match scope {
            Scope::Group => {
                process.signal_group(signal);
                if signal == SIGKILL {
                    self.groups.kill(&self.definitions, process, self.reserve);
                }
                if signal == SIGKILL
                    && let Some(status) = process.poll_ended()
                {
                    self.process_ended(id, status);
                }
            }
            Scope::Process => {
                // One that is not listend's child may have been reaped meanwhile; its pidfd tells that it has ended.
                if let Err(error) = process.signal(signal)
                    && error.raw_os_error() != Some(Errno::ESRCH as i32)
                {
                    log::warn!(
                        "cannot send {} to pid {}: {error}",
                        signal_name(signal),
                        process.pid
                    );
                }
            }
        }
    }

    /// listend ends. A keeper has the sockets until it knows whether another listend comes.
    fn close_listeners(&mut self) {
        self.record_now();
        if self.store.leaves_files() {
            return;
        }
        let _lent = self.reserve.lend();
        let sockets = std::mem::take(&mut self.sockets);
        for (path, error) in sockets.remove_paths() {
            log::warn!("cannot remove {}: {error}", path.display());
        }
    }
}
