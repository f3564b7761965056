//! Starting processes: instances, what serves one connection, and the commands around instances.

use super::clients::{Connection, Role};
use super::clock;
use super::definitions::{Definition, HeldSocket, named};
use super::ending;
use super::event_text;
use super::logs::{OutputTarget, Target};
use super::notify;
use super::process::{Process, SpawnRequest};
use super::reserve::Reserve;
use super::token::Token;
use super::turn::{LAUNCH_LOOK, Shell};
use crate::config::{self, Output};
use crate::core::{self, Flag, HookKind, Input, InstanceId, Needs, Revision};
use crate::core::{ProcessId, State, Task};
use crate::handoff::Stored;
use crate::handoff::notify::MAIN_PID;
use crate::listener::{self, BoundSocket, IoMode};
use crate::plan::{ListenerId, SocketKey, WorkerId, WorkerPlan};
use crate::stage::{LaunchFailure, Stage};
use crate::sys::{self, Launched, Prepared, Tell};
use crate::worker::{self, InheritedSocket, Preparation};
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// So many processes are on their way to their programs before the first of them is looked at.
const MOST_PIPES: usize = 32;

impl Shell {
    pub(super) fn spawn(&mut self, wanted: SpawnRequest) {
        if let Some(found) = self.take_found(wanted.instance) {
            return self.supervise_found(wanted, found);
        }
        let id = wanted.process;
        let connection = wanted.connection;
        let known = connection.and_then(|connection| self.clients.get(connection));
        let client = known.map(|known| known.ends.remote.clone());
        let launched = self.start_with_reserve(wanted);
        match launched {
            Ok(None) => {
                self.to_start.insert(id, wanted);
            }
            Ok(Some(launched)) => {
                let definition = self
                    .definitions
                    .get(wanted.instance.worker, wanted.revision);
                self.groups.find(&definition.plan);
                let is_silent = launched.launching.status().is_none();
                let lent = connection.filter(|_| is_silent);
                if let Some(connection) = lent {
                    self.clients.lend(connection);
                    let now = clock::now();
                    self.launching.push((id, now, now + LAUNCH_LOOK));
                }
                let plan = &self.definition(wanted.instance, wanted.revision).plan;
                let access = match wanted.task {
                    Task::Program => plan.notify_access,
                    Task::Hook(_) => None,
                };
                let uid = plan.launch.credentials.as_ref().and_then(|known| known.uid);
                let uid = uid.unwrap_or(self.uid);
                let process = Process {
                    pid: launched.pid,
                    session: launched.pid,
                    instance: wanted.instance,
                    revision: wanted.revision,
                    task: wanted.task,
                    lane: Some(wanted.lane),
                    client,
                    connection,
                    lent,
                    pidfd: launched.pidfd,
                    launching: Some(launched.launching),
                    access,
                    uid,
                    started: clock::now(),
                    told: notify::WorkerStatus::default(),
                    replaced: None,
                    rest: None,
                    killed: false,
                };
                self.processes.insert(id, process);
                self.record_start(id);
                let written = self.processes.get_mut(id);
                if let Some(launching) = written.and_then(|one| one.launching.as_mut()) {
                    launching.release();
                }
                self.feed(Input::Spawned { process: id });
                if !is_silent {
                    self.look_at_earlier(id);
                }
                if matches!(wanted.task, Task::Program) && connection.is_none() {
                    let definition = self.definition(wanted.instance, wanted.revision);
                    let index = wanted.instance.index;
                    let sockets = definition.sockets_of(index, &self.plan, &self.sockets);
                    let keys: Vec<SocketKey> = sockets.iter().map(|named| named.held.key).collect();
                    self.expect_clients(&keys);
                }
            }
            Err(failure) => {
                self.logs.forget_file(id);
                self.feed(Input::LaunchFailed {
                    process: id,
                    failure,
                });
            }
        }
    }

    /// Where many are started in one turn, those that have reached their programs meanwhile are told, so that not
    /// every one has a pipe at a time: the next child has a copy of each.
    fn look_at_earlier(&mut self, started: ProcessId) {
        self.last_started.push_back(started);
        if self.last_started.len() > MOST_PIPES
            && let Some(earlier) = self.last_started.pop_front()
        {
            self.exec_status(earlier);
        }
    }

    /// A process of a connection mostly takes no descriptor here, and is tried without the reserve first: to
    /// lend that takes four system calls.
    fn start_with_reserve(
        &mut self,
        wanted: SpawnRequest,
    ) -> Result<Option<Launched>, LaunchFailure> {
        let output = &self
            .definition(wanted.instance, wanted.revision)
            .plan
            .output;
        if wanted.connection.is_some() && matches!(output, Output::Inherit | Output::Null) {
            match self.try_to_start(wanted) {
                Err(failure) if failure.errno == nix::libc::EMFILE => {}
                tried => return tried,
            }
        }
        let _reserve = self.reserve.lend();
        self.try_to_start(wanted)
    }

    fn try_to_start(&mut self, wanted: SpawnRequest) -> Result<Option<Launched>, LaunchFailure> {
        match wanted.task {
            Task::Program => self.try_to_spawn(wanted),
            Task::Hook(kind) => self.try_to_run(wanted, kind),
        }
    }

    /// Starts what has waited for its output file.
    pub(super) fn start_what_can_be(&mut self) {
        for process in self.logs.startable(&self.epoll) {
            if let Some(wanted) = self.to_start.remove(&process) {
                self.spawn(wanted);
            }
        }
    }

    pub(super) fn definition(&self, instance: InstanceId, revision: Revision) -> &Definition {
        self.definitions.get(instance.worker, revision)
    }

    /// Puts a worker's listeners in order: whoever ran last may have changed O_NONBLOCK and the
    /// backlog or shut them down, which belong to the shared open file description and not to the
    /// descriptor. `culprit` is the instance that has just ended; before a start there is none.
    ///
    /// Answers whether all of them are in order; what is not needs to be repaired.
    pub(super) fn put_in_order(
        &self,
        instance: InstanceId,
        revision: Revision,
        culprit: Option<InstanceId>,
    ) -> bool {
        let mut all_well = true;
        let definition = self.definition(instance, revision);
        let worker = &definition.plan;
        let starting = match culprit {
            None => Some(Needs::from_nonblocking(worker.lifecycle.nonblocking)),
            Some(_) => None,
        };
        for named in definition.sockets_of(instance.index, &self.plan, &self.sockets) {
            let (name, socket) = (named.listener, named.held);
            if let Some(plan) = named.plan {
                for changed in listener::put_options_back(plan, socket) {
                    let who = culprit.map_or_else(
                        || "an unknown process".to_owned(),
                        |culprit| event_text::instance_name(&self.definitions, culprit),
                    );
                    log::warn!(
                        "listener {name}: {who} changed `{}` of {} to {}; {}",
                        changed.key,
                        socket.address,
                        changed.found,
                        if changed.is_put_back {
                            "restored"
                        } else {
                            "it cannot be set again while it listens"
                        }
                    );
                }
            }
            let mode = self.mode(socket, starting);
            match listener::prepare_for_spawn(socket, named.backlog, mode) {
                Ok(disturbed) => {
                    if disturbed.shut_down {
                        self.sockets.listens_again(socket.key);
                        self.store.touch();
                        self.steer_again(instance.worker);
                    }
                    let Some(culprit) = culprit else { continue };
                    let who = event_text::instance_name(&self.definitions, culprit);
                    if disturbed.nonblocking {
                        // Servers do that to their listeners, and need not undo it.
                        log::debug!(
                            "listener {name}: {who} changed O_NONBLOCK of {}; restored for its \
                             workers",
                            socket.address
                        );
                    }
                    for words in event_text::disturbance(disturbed) {
                        log::warn!(
                            "listener {name}: {who} {words} {}; restored",
                            socket.address
                        );
                    }
                }
                Err(error) => {
                    all_well = false;
                    log::warn!(
                        "listener {name}: cannot repair {} for {}: {error}",
                        socket.address,
                        worker.name
                    );
                }
            }
        }
        all_well
    }

    /// What O_NONBLOCK of a socket is to be, now or for who is about to be started with it.
    fn mode(&self, socket: &BoundSocket, starting: Option<Needs>) -> IoMode {
        let (accepted_here, takers) = match self.sockets.is_former(socket.key) {
            true => (false, &[][..]),
            false => (
                matches!(self.watch.role(socket.listener), Role::Accepted { .. }),
                self.core.takers(socket.listener),
            ),
        };
        let by_the_plan = takers.iter().filter_map(|taker| {
            let is_there = self
                .processes
                .has_any(*taker, self.definitions.latest(*taker));
            is_there.then(|| self.definitions.worker(*taker).lifecycle.nonblocking)
        });
        let by_others = self.definitions.former_with(socket.key);
        let by_others = by_others.filter_map(|(worker, revision, plan)| {
            let is_there = self.processes.has_any(worker, revision);
            is_there.then_some(plan.lifecycle.nonblocking)
        });
        let running = by_the_plan.chain(by_others).map(Needs::from_nonblocking);
        match core::flag(accepted_here, starting, running) {
            Flag::Set => IoMode::NonBlocking,
            Flag::Clear => IoMode::Blocking,
            Flag::Leave => IoMode::AsItIs,
        }
    }

    /// Whether clients of a listener wait although its workers run: by a definition before, which does
    /// not have it.
    pub(super) fn is_unserved(&self, listener: ListenerId) -> bool {
        let Some(plan) = self.plan.listeners.get(&listener) else {
            return false;
        };
        let mut sockets = self.sockets.of(plan).peekable();
        let takers = self.core.takers(listener);
        let by_the_plan = |taker: &WorkerId| {
            let latest = self.definitions.latest(*taker);
            self.processes.has_any(*taker, latest)
        };
        let by_others = |socket: &BoundSocket| {
            let mut former = self.definitions.former_with(socket.key);
            former.any(|(worker, revision, _)| self.processes.has_any(worker, revision))
        };
        sockets.peek().is_some()
            && self.watch.role(listener) == Role::Held
            && !takers.iter().any(by_the_plan)
            && !sockets.any(by_others)
    }

    /// Whether nobody is going to take the clients of a listener: the workers that have it have ended,
    /// or failed, and nobody has stopped them.
    pub(super) fn is_abandoned(&self, listener: ListenerId) -> bool {
        let takers = self.core.takers(listener);
        let has_ended = |worker: &WorkerId| {
            let mut instances = self.core.instances_of(*worker);
            !self.core.is_stopped(*worker)
                && instances.all(|instance| {
                    let state = self.core.state(instance);
                    matches!(state, Some(State::Stopped | State::Failed { .. }))
                })
        };
        !takers.is_empty() && takers.iter().all(has_ended) && self.is_unserved(listener)
    }

    /// Puts O_NONBLOCK of a socket right of which listend is about to accept a client.
    pub(super) fn prepare_to_accept(&self, key: SocketKey) {
        let Some(held) = self.sockets.get(key) else {
            return;
        };
        let mode = self.mode(held, None);
        if let Err(error) = listener::set_mode(held, mode) {
            log::warn!("cannot set O_NONBLOCK on {}: {error}", held.address);
        }
    }

    /// Puts the worker's listeners in order, lays the process out and launches it; `None` if its output
    /// file has to be opened first.
    fn try_to_spawn(&mut self, wanted: SpawnRequest) -> Result<Option<Launched>, LaunchFailure> {
        let SpawnRequest {
            process,
            instance,
            revision,
            connection,
            lane,
            ..
        } = wanted;
        if connection.is_none() {
            self.give_sockets(instance, revision, lane);
        }
        let plan = &self.definition(instance, revision).plan;
        let (access, ready) = (plan.notify_access, plan.lifecycle.ready);
        let acknowledges = plan.handoff.acknowledges();
        let ways = self.ways_to_tell(access, acknowledges, ready)?;
        let known = connection.and_then(|connection| self.clients.get(connection));
        let served = known.and_then(Connection::served);
        if served.is_none() {
            // Damage announces itself as well, and is repaired then.
            let _logged = self.put_in_order(instance, revision, None);
        }
        let definition = self.definitions.get(instance.worker, revision);
        let worker = &*definition.plan;
        // A connection may come at any of thousands of listeners, and needs none of them.
        let sockets = match served {
            Some(_) => {
                let listeners = self.clients.named_by(instance.worker).iter();
                let listeners = listeners.filter_map(|id| self.plan.listeners.get(id));
                listeners
                    .flat_map(|one| named(one, &self.sockets))
                    .collect()
            }
            None => {
                let sockets = definition.sockets_of(instance.index, &self.plan, &self.sockets);
                self.flows.put_own(sockets, Some(lane))
            }
        };
        let sockets = to_inherit(sockets);
        self.folders.make_for(instance.worker, worker)?;
        let mut stored = self.notify.store.of(instance);
        stored.truncate(worker.fd_store as usize);
        let control = worker.is_built_in();
        let restarts = worker.restarts().map(str::to_owned);
        let control = control
            .then(|| self.control.connect(&self.epoll, restarts))
            .transpose();
        let control = control.map_err(not_connected)?;
        stored.extend(control.as_ref().map(|end| Stored {
            name: "control",
            fd: end.as_raw_fd(),
        }));
        let given = worker::SpawnInputs {
            sockets: &sockets,
            connection: served,
            stored: &stored,
            notify: ways.socket.as_deref(),
            acknowledge_at: ways.acknowledge_at.as_deref(),
            control: self.control.path(),
            ready: ways.their_end(),
        };
        let (numbers, around) = (wanted.numbers(), &self.daemon_context);
        let as_others = definition.pattern.prepare(worker, &given, numbers, around);
        let (prepared, _target) = match as_others {
            Some(prepared) => (prepared, None),
            None => {
                let preparation = Preparation::new(worker, given, numbers, around);
                let preparation = preparation.map_err(not_prepared)?;
                let file = preparation.output_file().map_err(not_prepared)?;
                let name = || event_text::instance_name(&self.definitions, instance);
                let logs = &mut self.logs;
                let target = logs.open(&self.epoll, worker, name, process, instance, file)?;
                let Target::Ready(target) = target else {
                    return Ok(None);
                };
                let output = target.as_ref().map(OutputTarget::as_given);
                let prepared = preparation.program(output).map_err(not_prepared)?;
                (prepared, target)
            }
        };
        let tell = match connection {
            Some(connection) => self.clients.tell(connection),
            None => self.store.tell(),
        };
        // The child has its own copy of the target, and only that keeps it open.
        let launched = launch(&self.epoll, process, (prepared, self.reserve), tell)?;
        self.notify.listen_for_newline(&self.epoll, process, ways);
        Ok(Some(launched))
    }

    /// Launches a command around an instance; `None` as for that.
    fn try_to_run(
        &mut self,
        wanted: SpawnRequest,
        kind: HookKind,
    ) -> Result<Option<Launched>, LaunchFailure> {
        let SpawnRequest {
            process,
            instance,
            revision,
            ..
        } = wanted;
        let definition = self.definitions.get(instance.worker, revision);
        let worker = &*definition.plan;
        let Some(hook) = command_of(worker, kind) else {
            // The core knows of it, so that the plan has it.
            let reason = format!("there is no {}", event_text::hook_word(kind));
            let errno = nix::libc::ENOENT;
            return Err(LaunchFailure::new(Stage::Prepare, errno, reason));
        };
        self.folders.make_for(instance.worker, worker)?;
        let sockets = definition.sockets_of(instance.index, &self.plan, &self.sockets);
        let sockets = to_inherit(sockets);
        let given = worker::SpawnInputs {
            sockets: &sockets,
            control: self.control.path(),
            ..worker::SpawnInputs::default()
        };
        let around = &self.daemon_context;
        let preparation = Preparation::new(worker, given, wanted.numbers(), around);
        let preparation = preparation.map_err(not_prepared)?;
        let file = preparation.output_file().map_err(not_prepared)?;
        let name = || event_text::instance_name(&self.definitions, instance);
        let logs = &mut self.logs;
        let target = logs.open(&self.epoll, worker, name, process, instance, file)?;
        let Target::Ready(target) = target else {
            return Ok(None);
        };
        let output = target.as_ref().map(OutputTarget::as_given);
        let main = self.core.state(instance).and_then(|state| state.process());
        let main = main
            .and_then(|main| self.processes.get(main))
            .map(|main| main.pid);
        let told = match kind {
            HookKind::AfterStop => {
                let ended = self.core.ended(instance);
                ending::variables(ended.as_ref(), &worker.lifecycle.restart)
            }
            HookKind::BeforeStart | HookKind::AfterReady | HookKind::Reload => main
                .map(|main| (MAIN_PID, main.to_string()))
                .into_iter()
                .collect(),
        };
        let prepared = preparation.hook(hook, told, output);
        let prepared = prepared.map_err(not_prepared)?;
        let prepared = (prepared, self.reserve);
        launch(&self.epoll, process, prepared, self.store.tell()).map(Some)
    }
}

fn command_of(worker: &WorkerPlan, kind: HookKind) -> Option<&config::Hook> {
    match kind {
        HookKind::BeforeStart => worker.hooks.before_start.as_ref(),
        HookKind::AfterReady => worker.hooks.after_ready.as_ref(),
        HookKind::AfterStop => worker.hooks.after_stop.as_ref(),
        HookKind::Reload => worker.reload_command.as_ref(),
    }
}

fn to_inherit(sockets: Vec<HeldSocket<'_>>) -> Vec<InheritedSocket<'_>> {
    let sockets = sockets.into_iter();
    let inherited = sockets.map(|socket| InheritedSocket {
        listener: socket.listener,
        fd: socket.held.fd.as_raw_fd(),
        address: &socket.held.address,
    });
    inherited.collect()
}

fn launch(
    epoll: &Epoll,
    id: ProcessId,
    (mut prepared, reserve): (Prepared, Reserve),
    tell: Tell<'_>,
) -> Result<Launched, LaunchFailure> {
    prepared.open_files = reserve.of_child();
    let fail = |error: &io::Error| {
        let errno = error.raw_os_error().unwrap_or(nix::libc::EIO);
        LaunchFailure::new(Stage::Fork, errno, worker::explain_fork(error))
    };
    let launched = worker::launch(prepared, tell).map_err(|error| fail(&error))?;
    let watch = |fd: Option<BorrowedFd<'_>>, token: Token| match fd {
        Some(fd) => epoll.add(fd, EpollEvent::new(EpollFlags::EPOLLIN, token.pack())),
        None => Ok(()),
    };
    let pidfd = launched.pidfd.as_ref().map(OwnedFd::as_fd);
    let watched = watch(launched.launching.status(), Token::Status(id));
    let watched = watched.and_then(|()| watch(pidfd, Token::Exit(id)));
    if let Err(errno) = watched {
        // A child that cannot be watched would never be noticed again.
        let _not_watched = launched
            .launching
            .status()
            .map(|status| epoll.delete(status));
        sys::discard(launched);
        return Err(fail(&errno.into()));
    }
    Ok(launched)
}

fn not_connected(error: io::Error) -> LaunchFailure {
    let errno = error.raw_os_error().unwrap_or(nix::libc::EIO);
    let reason = format!("cannot create a control connection: {error}");
    LaunchFailure::new(Stage::Fork, errno, reason)
}

fn not_prepared(error: worker::PrepareError) -> LaunchFailure {
    LaunchFailure::new(error.stage(), error.errno(), error.to_string())
}
