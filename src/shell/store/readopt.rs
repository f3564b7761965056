//! The processes of the listend before: they are found, watched and supervised as if they had been started
//! here.

use super::facts;
use crate::core::{
    ConnectionId, ExitStatus, Input, InstanceId, Lane, Mono, ProcessId, Revision, State,
};
use crate::listener::{self, FlowGroup, KnownMember};
use crate::output::Splitter;
use crate::plan::{SocketKey, WorkerId};
use crate::shell::clock;
use crate::shell::event_text;
use crate::shell::logs::Unattached;
use crate::shell::notify::{AckSocket, NotifySocket, WorkerStatus};
use crate::shell::process::{First, Process, Rest};
use crate::shell::token::Token;
use crate::shell::turn::Shell;
use crate::shell::watch::Owner;
use crate::store::{Identity, Name};
use crate::sys::{self, Then, Whom};
use crate::worker::{Numbers, Preparation, SpawnInputs};
use nix::sys::epoll::{EpollEvent, EpollFlags};
use nix::time::{ClockId, clock_gettime};
use signal_hook::consts::SIGKILL;
use std::collections::{BTreeSet, HashMap};
use std::os::fd::OwnedFd;
use std::time::Duration;

/// How exactly the times agree at which a process was started, by two clocks of the kernel.
const CLOCKS: Duration = Duration::from_secs(1);

/// What the listend before has started, and was left.
pub(super) struct Started {
    pub(super) connections: Vec<facts::ConnectionFact>,
    pub(super) stored: Vec<facts::Stored>,
    pub(super) processes: Vec<facts::ProcessFact>,
    pub(super) half_lines: HashMap<u64, facts::HalfLine>,
    /// By which listend.
    pub(super) by: u32,
}

/// The sockets that were left, by what the kernel calls them.
pub(super) type Left = HashMap<Identity, OwnedFd>;

/// What was kept, by name.
pub(super) type ByName = HashMap<Name, Vec<OwnedFd>>;

impl Shell {
    /// Goes on with the notify socket, whose address workers know.
    pub(super) fn readopt_notify_socket(&mut self, head: &facts::Head, fds: &mut ByName) {
        let kept = take(fds, Name::Notify).pop();
        let (Some(fact), Some(fd)) = (&head.notify, kept) else {
            return;
        };
        let socket = NotifySocket::restore(fact.address.clone(), fact.record_of(&fd), fd);
        let watched = socket.and_then(|socket| {
            let files = socket.files();
            self.watch.files(&self.epoll, Owner::Notify, &files);
            let watched = self.notify.continue_with(&self.epoll, socket);
            watched.map_err(|error| error.to_string())
        });
        if let Err(why) = watched {
            log::error!(
                "cannot receive notifications at {}: {why}; workers that run cannot be heard",
                fact.address
            );
        }
    }

    /// Goes on with the socket of einhorn, whose address workers know.
    pub(super) fn readopt_ack_socket(&mut self, head: &facts::Head, fds: &mut ByName) {
        let kept = take(fds, Name::Acks).pop();
        let (Some(fact), Some(fd)) = (&head.einhorn, kept) else {
            return;
        };
        let Some(record) = fact.record_of(&fd) else {
            return;
        };
        let address = &fact.address;
        let acks = AckSocket::restore(address.clone(), record, fd);
        let watched = acks.and_then(|acks| {
            let files = acks.files();
            self.watch.files(&self.epoll, Owner::Acks, &files);
            let watched = self.notify.continue_acks(&self.epoll, acks);
            watched.map_err(|error| error.to_string())
        });
        if let Err(why) = watched {
            log::error!("cannot receive what workers of einhorn tell {address}: {why}");
        }
    }

    /// Goes on with the sockets between which packets are steered.
    pub(super) fn readopt_flows(
        &mut self,
        facts: Vec<facts::FlowsFact>,
        fds: &mut ByName,
        left: &mut Left,
    ) {
        for fact in facts {
            let key = SocketKey(fact.key);
            let maps = take(fds, Name::Flows(fact.key));
            let Some(held) = self.sockets.get(key) else {
                continue;
            };
            let members = fact.members.into_iter().map(|member| {
                let fd = member.identity.map(|one| Identity::read(&one));
                let fd = fd.and_then(|one| left.remove(&one));
                let known = KnownMember {
                    lane: member.lane,
                    generation: member.generation,
                };
                (known, fd.map(|fd| listener::member_like(held, fd)))
            });
            let members: Vec<_> = members.collect();
            let numbers = (fact.present, fact.generation, fact.last);
            match FlowGroup::restore(fact.settings, maps, members, numbers) {
                Some(group) => drop(self.flows.groups.insert(key, group)),
                None => log::warn!(
                    "{}: what is known of its flows was not kept; they are known anew",
                    held.address
                ),
            }
        }
    }

    /// Takes over everything that the listend before has started, and tells the core what became of it. Answers
    /// which workers have lost the pipe to which they write.
    pub(super) fn readopt(&mut self, of: Started, fds: &mut ByName) -> BTreeSet<WorkerId> {
        let mut unread = BTreeSet::new();
        for fact in of.connections {
            let fd = take(fds, Name::Connection(fact.key)).pop();
            self.clients.restore(ConnectionId(fact.key), fd, fact.ends);
        }
        for fact in of.stored {
            if let Some(fd) = take(fds, Name::Stored(fact.key)).pop() {
                let place = (fact.key, (WorkerId(fact.worker), fact.index));
                let how = (fact.name, fact.polled);
                self.notify.store.restore(&self.epoll, place, how, fd);
            }
        }
        let written = of.processes.iter().map(|fact| ProcessId(fact.key));
        let written: BTreeSet<ProcessId> = written.collect();
        for fact in of.processes {
            let kept = take(fds, Name::Process(fact.key));
            let half_line = of.half_lines.get(&fact.key);
            let is_instance = fact.task == facts::Task::Program && fact.connection.is_none();
            let wrote = (fact.output.is_some() && is_instance).then_some(fact.key);
            let worker = WorkerId(fact.worker);
            self.readopt_process(fact, kept, half_line);
            let is_lost = |id: u64| {
                let id = ProcessId(id);
                self.processes.get(id).is_some() && self.logs.pipe_of(id).is_none()
            };
            unread.extend(wrote.filter(|id| is_lost(*id)).map(|_| worker));
        }
        self.end_strays();
        if of.by != std::process::id() {
            self.adopt_connections(&written);
        }
        let lost: Vec<ConnectionId> = self.core.open_connections().collect();
        for connection in lost {
            if !self.clients.has_fd(connection) {
                self.feed(Input::ConnectionLost { connection });
            }
        }
        let known: Vec<ProcessId> = self.core.processes().collect();
        for process in known {
            if self.processes.get(process).is_none() {
                let status = ExitStatus::Unknown;
                self.feed(Input::Exited { process, status });
            }
        }
        let starting = self.processes.iter().filter(|(_, process)| {
            let state = self.core.state(process.instance);
            matches!(state, Some(State::Starting { .. }))
        });
        let starting: Vec<ProcessId> = starting.map(|(id, _)| id).collect();
        for process in starting {
            self.feed(Input::ExecSucceeded { process });
        }
        // What the keeper has and nobody knows of any more.
        for name in self.store.names.clone() {
            let is_known = match name {
                Name::Process(id) => self.processes.get(ProcessId(id)).is_some(),
                Name::Stored(id) => self.notify.store.fd(id).is_some(),
                Name::Flows(key) => self.flows.groups.contains_key(&SocketKey(key)),
                _ => true,
            };
            if !is_known {
                self.store.forget(name);
            }
        }
        unread
    }

    /// Ends what was started in the turn in which the listend before was killed: the core knows nothing of it,
    /// and has it started again.
    fn end_strays(&mut self) {
        let known: BTreeSet<ProcessId> = self.core.processes().collect();
        let is_stray = |(id, process): &(ProcessId, &Process)| {
            process.connection.is_none() && !known.contains(id)
        };
        let strays = self.processes.iter().filter(is_stray);
        let strays: Vec<ProcessId> = strays.map(|(id, _)| id).collect();
        for id in strays {
            if let Some(mut process) = self.processes.remove(id) {
                let name = event_text::instance_name(&self.definitions, process.instance);
                log::info!(
                    "{name}: killing pid {}, which had just been started; it is started again",
                    process.pid
                );
                process.signal_group(SIGKILL);
            }
        }
    }

    fn readopt_process(
        &mut self,
        fact: facts::ProcessFact,
        mut kept: Vec<OwnedFd>,
        half_line: Option<&facts::HalfLine>,
    ) {
        let id = ProcessId(fact.key);
        let found = match find(&fact, &mut kept, self.store.is_kept()) {
            Some(found) => found,
            None if fact.rest.is_some() => None,
            None => return,
        };
        let found = found.map(sys::out_of_the_way);
        if let Some(pidfd) = &found {
            let event = EpollEvent::new(EpollFlags::EPOLLIN, Token::Exit(id).pack());
            if let Err(errno) = self.epoll.add(pidfd, event) {
                log::error!("cannot watch process {}: {}", fact.pid, errno.desc());
            }
        }
        let instance = InstanceId {
            worker: WorkerId(fact.worker),
            index: fact.index,
            generation: fact.generation,
        };
        let mut pipe_with = |identity: &Option<String>| {
            let identity = Identity::read(identity.as_deref()?);
            let at = kept
                .iter()
                .position(|fd| Identity::of(fd) == Some(identity.clone()))?;
            Some(sys::out_of_the_way(kept.swap_remove(at)))
        };
        let (output, newline) = (pipe_with(&fact.output), pipe_with(&fact.newline));
        let facts::ToldFact {
            status,
            errno,
            bus_error,
            exit_status,
        } = fact.told;
        let definition = self
            .definitions
            .get(instance.worker, Revision(fact.revision));
        let access = definition.plan.notify_access;
        let process = Process {
            pid: fact.pid,
            session: fact.session,
            instance,
            revision: Revision(fact.revision),
            task: fact.task.into(),
            pidfd: found,
            lane: fact.lane.map(Lane),
            client: fact.client,
            connection: fact.connection.map(ConnectionId),
            lent: None,
            launching: None,
            access: match fact.task {
                facts::Task::Program => access,
                _ => None,
            },
            uid: fact.uid,
            started: Mono(fact.started),
            told: WorkerStatus {
                status,
                errno,
                bus_error,
                exit_status,
            },
            replaced: fact.first_reaped.map(|reaped| match reaped {
                true => First::Reaped,
                false => First::Unreaped,
            }),
            rest: fact.rest.map(|rest| Rest {
                status: rest.status.into(),
                groups: rest.groups,
            }),
            killed: fact.killed,
        };
        self.processes.restore(id, process);
        if let Some(pipe) = output {
            let splitter = half_line.map(facts::HalfLine::splitter);
            self.readopt_output(id, pipe, splitter.unwrap_or_default());
        }
        if let Some(pipe) = newline {
            self.notify.continue_newline(&self.epoll, id, pipe);
        }
    }
}

impl Shell {
    fn readopt_output(&mut self, id: ProcessId, pipe: OwnedFd, splitter: Splitter) {
        let Some(process) = self.processes.get(id) else {
            return;
        };
        let (instance, revision) = (process.instance, process.revision);
        let worker = &self.definitions.get(instance.worker, revision).plan;
        let numbers = Numbers {
            instance: instance.index,
            generation: instance.generation,
        };
        let given = SpawnInputs::default();
        let around = &self.daemon_context;
        let preparation = Preparation::new(worker, given, numbers, around);
        let file = preparation.and_then(|preparation| preparation.output_file());
        let name = event_text::instance_name(&self.definitions, instance);
        let of = (&*name, id);
        let file = file.ok().flatten();
        let source = Unattached {
            pipe,
            instance,
            splitter,
        };
        if let Err(errno) = self.logs.restore(&self.epoll, worker, of, source, file) {
            log::error!("cannot read what {name} writes: {}", errno.desc());
        }
    }
}

fn take(fds: &mut ByName, name: Name) -> Vec<OwnedFd> {
    fds.remove(&name).unwrap_or_default()
}

/// The process that a fact is about, if it is still there or its end can still be learned: its pidfd, which
/// a child that listend is told about by SIGCHLD does not need, unless a keeper is to have it.
#[expect(clippy::option_option, reason = "it is there; by what it is watched")]
fn find(
    fact: &facts::ProcessFact,
    kept: &mut Vec<OwnedFd>,
    has_keeper: bool,
) -> Option<Option<OwnedFd>> {
    let is_it = |fd: &OwnedFd| match fact.inode {
        Some(inode) => sys::pidfd_inode(fd) == Some(inode),
        None => false,
    };
    if let Some(at) = kept.iter().position(is_it) {
        return Some(Some(kept.swap_remove(at)));
    }
    // Nobody else reaps our children, so that the number is still its own.
    let is_child = sys::wait(Whom::Pid(fact.pid), Then::Leave).is_ok();
    let had_none = fact.inode.is_none() && (fact.connection.is_some() || !has_keeper);
    if is_child && had_none {
        return Some(None);
    }
    let pidfd = sys::open_pidfd(fact.pid).ok()?;
    let is_same = match fact.inode {
        Some(inode) => sys::pidfd_inode(&pidfd) == Some(inode),
        None => is_child || was_started_at(fact.pid, Mono(fact.started)),
    };
    is_same.then_some(Some(pidfd))
}

/// Whether a process was started at this time, as far as the kernel says.
fn was_started_at(pid: i32, at: Mono) -> bool {
    let stat = procfs::process::Process::new(pid).and_then(|process| process.stat());
    let Ok(stat) = stat else { return false };
    let started = clock::since_boot(stat.starttime);
    // The kernel counts the time in which the machine slept, and what it was then is not known.
    let boot = clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from);
    let slept = boot.saturating_sub(Duration::from_nanos(clock::now().0));
    let at = Duration::from_nanos(at.0);
    started + CLOCKS >= at && started <= at + slept + CLOCKS
}
