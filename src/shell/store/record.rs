//! The facts of the shell, from what the shell has; and writing them.

use super::facts::{self, FOLDER, Fact, HALF_LINE, OwnSocketFact, REQUEST, STORED};
use super::{AGAIN, CLOSED, FIRST, HeldPlace, OWN, Store, boot};
use crate::config::Ready;
use crate::core::{ConnectionId, FORMAT, HookKind, Input, ProcessId, Task, Ticket};
use crate::listener::{BoundSocket, FlowGroup, Former};
use crate::plan::{ListenerId, SocketKey};
use crate::shell::clock;
use crate::shell::process::{First, Process};
use crate::shell::token::Token;
use crate::shell::turn::Shell;
use crate::store::{HANGS_UP, Identity, Keeper, Name};
use crate::sys;
use nix::poll::poll;
use nix::sys::epoll::EpollEvent;
use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd};

impl From<Task> for facts::Task {
    fn from(task: Task) -> facts::Task {
        match task {
            Task::Program => facts::Task::Program,
            Task::Hook(HookKind::BeforeStart) => facts::Task::BeforeStart,
            Task::Hook(HookKind::AfterReady) => facts::Task::AfterReady,
            Task::Hook(HookKind::AfterStop) => facts::Task::AfterStop,
            Task::Hook(HookKind::Reload) => facts::Task::Reload,
        }
    }
}

impl From<facts::Task> for Task {
    fn from(task: facts::Task) -> Task {
        match task {
            facts::Task::Program => Task::Program,
            facts::Task::BeforeStart => Task::Hook(HookKind::BeforeStart),
            facts::Task::AfterReady => Task::Hook(HookKind::AfterReady),
            facts::Task::AfterStop => Task::Hook(HookKind::AfterStop),
            facts::Task::Reload => Task::Hook(HookKind::Reload),
        }
    }
}

impl Shell {
    /// Has descriptors and facts kept, if there is a keeper. `kept` are sockets that it has already, and the
    /// numbers of the names under which it has them.
    #[must_use]
    pub fn with_keeper(
        self,
        keeper: Option<Keeper>,
        kept: impl IntoIterator<Item = (u32, SocketKey, Identity)>,
    ) -> Shell {
        self.with_store(Store::new(keeper, kept))
    }

    pub(super) fn with_store(mut self, store: Store) -> Shell {
        self.store = store;
        if self.store.is_kept() {
            self.processes.note_changes();
        }
        self
    }

    /// Has everything kept that there is, before the first worker is started: a listend that is killed after that
    /// has a successor that finds what was started.
    pub(in crate::shell) fn hand_over_first(&mut self) {
        let until = clock::now() + FIRST;
        let (wanted, sockets) = self.needed();
        self.store.tell_needed(wanted, sockets);
        self.record();
        while self.store.is_behind() && clock::now() < until {
            let _slept = poll(&mut [], AGAIN.as_millis() as u16);
            self.record();
        }
        if self.store.is_behind() {
            log::warn!(
                "the process that keeps the descriptors does not take them; if listend is killed before it does, \
                 its successor does not know what was started"
            );
        }
    }

    /// How many descriptors are to be kept when all runs that is to run; and how many of those are sockets, and the
    /// snapshot. What workers store comes to that, and what processes of connections write.
    fn needed(&self) -> (usize, usize) {
        // The snapshot.
        let sockets = 1 + self.sockets.iter().count();
        let mut workers = self.plan.workers();
        let acks = workers.any(|(_, worker)| worker.handoff.acknowledges());
        let own = 2 + usize::from(acks);
        let workers = self.plan.workers().map(|(_, worker)| {
            let has_newline = matches!(worker.lifecycle.ready, Ready::Fd(_));
            let each = 1 + usize::from(worker.output.is_read()) + usize::from(has_newline);
            each * worker.lifecycle.instances as usize
        });
        (sockets + own + workers.sum::<usize>(), sockets)
    }

    /// Writes down at once that a process was started: a listend that is killed in this turn would leave it to
    /// itself. One of a connection ends by itself, but for the directory that was made for it.
    pub(in crate::shell) fn record_start(&mut self, id: ProcessId) {
        if !self.store.is_kept() {
            return;
        }
        let lines = self.folder_lines();
        lines.iter().for_each(|line| self.store.append(line));
        if self.logs.pipe_of(id).is_some() {
            self.store.has_new_pipe();
        }
        let started = self.processes.get(id);
        if let Some(process) = started.filter(|one| one.connection.is_none()) {
            let fact = Fact::Process(Box::new(self.process_fact(id, process)));
            let line = self.store.text(&fact);
            self.store.append(&line);
            self.processes.is_written(id);
        }
    }

    /// What has become of runtime directories.
    fn folder_lines(&mut self) -> Vec<String> {
        let changed = self.folders.take_changed().into_iter();
        let line = |(key, made)| match made {
            Some(made) => Fact::Folder(made).text(),
            None => facts::gone((FOLDER, key)),
        };
        changed.map(line).collect()
    }

    /// Reads what workers write, and passes it on.
    pub(in crate::shell) fn read_logs(&mut self) {
        let (store, epoll) = (&mut self.store, &self.epoll);
        self.logs
            .turn(epoll, &mut |id, half| store.note_half_line(id, half));
    }

    /// Reads what a process that has ended wrote last, so that it is told before the end.
    pub(in crate::shell) fn catch_up(&mut self, process: ProcessId) {
        let (store, epoll) = (&mut self.store, &self.epoll);
        self.logs.catch_up(epoll, process, &mut |id, half| {
            store.note_half_line(id, half)
        });
    }

    /// Hands the core what somebody has asked for. It is written down before anything is done about it, or
    /// answered: a listend that is killed in this turn has the next one do it.
    pub(in crate::shell) fn feed_request(&mut self, input: Input) {
        let last = self.store.requests.keys().next_back();
        let key = last.map_or(0, |last| last + 1);
        if self.store.is_kept()
            && let Some(request) = facts::Request::of(&input, key)
        {
            self.store.append(&Fact::Request(request).text());
            self.store.requests.insert(key, request);
        }
        self.feed(input);
    }

    /// Does what the listend before was asked for and has not written that it has done.
    pub(in crate::shell) fn feed_requests_left(&mut self) {
        let requests: Vec<facts::Request> = self.store.requests.values().copied().collect();
        for request in requests {
            let ticket = Ticket(self.control.new_id());
            let Some(input) = request.input(ticket) else {
                continue;
            };
            if let Input::Operate {
                worker, command, ..
            } = input
            {
                if self.core.latest(worker).is_none() {
                    continue;
                }
                let name = &self.definitions.worker(worker).name;
                log::info!("{name}: {command:?} was asked for just before listend was killed");
            } else {
                log::info!("the stop of listend was asked for just before it was killed");
            }
            self.feed(input);
        }
    }

    /// Writes down what has changed in this turn, or lately if that is connections alone: most of them are over
    /// by then, and cost nothing.
    pub(in crate::shell) fn record(&mut self) {
        let (has_changed, is_urgent) = self.processes.has_changed();
        let can_wait = self.store.can_wait()
            && !is_urgent
            && self.core.changes_can_wait()
            && !self.rollback_reasons.has_changed()
            && !self.folders.has_changed()
            && !self.notify.store.has_changed()
            && !self.logs.changed_half_lines().any(|id| {
                let process = self.processes.get(*id);
                process.is_some_and(|process| process.connection.is_none())
            });
        if can_wait {
            if !has_changed && !self.core.has_changes() {
                self.store.record_at = None;
                return;
            }
            if !self.store.is_time() {
                return;
            }
        }
        self.record_now();
    }

    /// Says what is in force: who comes after a listend that is killed now knows it, too, and what was given up is
    /// closed, so that its address is free.
    pub(in crate::shell) fn answer_what_is_done(&mut self) {
        // A keeper that takes nothing is not waited for for ever.
        let is_over = |at| clock::now() >= at + FIRST;
        let is_late = self.store.behind_since.is_some_and(is_over);
        let is_behind = self.store.is_behind() && !is_late;
        let is_closing = self.store.is_closing() | sys::is_closing();
        let is_closing = is_closing && self.control.withholds_up_to(CLOSED);
        if !is_behind && !is_closing {
            self.control.send_withheld(&self.epoll);
        }
    }

    /// Writes down what has changed, and has the keeper keep what is new. All effects are carried out.
    pub(in crate::shell) fn record_now(&mut self) {
        self.store.record_at = None;
        let folders = self.folder_lines();
        if !self.store.is_kept() {
            // The keeper is gone, and what is noted would become more and more.
            if self.processes.notes_changes() {
                drop((self.core.take_changes(), self.processes.take_changed()));
                self.logs.take_half_lines();
            }
            return;
        }
        let mut store = std::mem::take(&mut self.store);
        let changes = self.core.take_changes();
        let mut lines: Vec<String> = changes.iter().map(crate::core::Change::text).collect();
        for id in self.processes.take_changed() {
            match self.processes.get(id) {
                Some(process) => {
                    let fact = self.process_fact(id, process);
                    let identity = fact.inode.map(Identity::of_pidfd);
                    lines.push(store.text(&Fact::Process(Box::new(fact))));
                    // That of a connection has no pidfd: it is found by its number. A pipe would be lost.
                    if process.pidfd.is_some() || self.logs.pipe_of(id).is_some() {
                        let name = Name::Process(id.0);
                        if process.replaced.is_some() {
                            store.keep_no_other(name, identity);
                        }
                        store.keep(name);
                    }
                }
                None => {
                    lines.push(store.gone(("process", id.0)));
                    let name = Name::Process(id.0);
                    store.identities.remove(&name);
                    store.forget(name);
                }
            }
        }
        lines.extend(folders);
        for id in self.logs.take_half_lines() {
            match self.half_line(id) {
                Some(fact) => {
                    store.half_lines.insert(id);
                    lines.push(fact.text());
                }
                None if store.half_lines.remove(&id) => {
                    lines.push(facts::gone((HALF_LINE, id.0)));
                }
                None => {}
            }
        }
        for worker in self.rollback_reasons.take_changed() {
            lines.push(match self.reason_fact(worker) {
                Some(fact) => store.text(&fact),
                None => store.gone(("reason", u64::from(worker.0))),
            });
        }
        if let Some(made) = self.flows.take_changed() {
            made.iter().for_each(|key| store.forget(Name::Flows(key.0)));
            let wanted: BTreeSet<Name> = self.names_of_flows().collect();
            let is_of_flows = |name: &&Name| matches!(name, Name::Flows(_));
            let known: Vec<Name> = store.names.iter().filter(is_of_flows).copied().collect();
            let gone = known.into_iter().filter(|name| !wanted.contains(name));
            gone.for_each(|name| store.forget(name));
            wanted.into_iter().for_each(|name| store.keep(name));
        }
        if store.is_stale.take() {
            let sockets = self.held_sockets();
            let sockets = sockets
                .filter_map(|(place, socket)| Some((Identity::of_shared(&socket.fd)?, place)));
            store.name_sockets(sockets.collect());
            store.list_files(&self.sockets);
            for name in OWN {
                let fd = self.kept_as(&store, name).pop();
                let identity = fd.and_then(Identity::of);
                let is_there = identity.is_some();
                store.keep_no_other(name, identity);
                if is_there {
                    store.keep(name);
                }
            }
            let facts = self.lasting_facts(&mut store);
            lines.extend(store.differences(&facts, |kind| kind != STORED));
        }
        if self.notify.store.take_changed() {
            lines.extend(store.differences(&self.stored_facts(), |kind| kind == STORED));
        }
        // Last: it is done as soon as all before it is written.
        let requests = std::mem::take(&mut store.requests);
        lines.extend(requests.keys().map(|key| facts::gone((REQUEST, *key))));
        store.write(&lines, |store| self.everything(store));
        if store.may_send()
            && let Some(mut keeper) = store.keeper.take()
        {
            let sent = keeper.send(|name| self.kept_as(&store, name));
            let asked = keeper.ask_whether_closed();
            let is_left = asked.is_err();
            if let Ok(Some(closed)) = asked {
                // Where it cannot be watched it is looked at when it is waited for no longer.
                let hangs_up = EpollEvent::new(HANGS_UP, Token::Keeper.pack());
                let _best_effort = self.epoll.add(closed, hangs_up);
                store.closing_until = Some(clock::now() + CLOSED);
            }
            store.sent(keeper, sent.map(|more| more || is_left));
        }
        self.store = store;
    }

    /// Everything, for an upgrade or a new base of the journal.
    pub(in crate::shell) fn everything(&self, store: &mut Store) -> Vec<String> {
        let (lasting, stored) = (self.lasting_facts(store), self.stored_facts());
        let lasting = lasting.iter().chain(&stored);
        let mut lines: Vec<String> = lasting.map(|fact| store.text(fact)).collect();
        lines.extend(self.core.freeze().changes().map(|change| change.text()));
        let processes = self.processes.iter();
        lines.extend(processes.map(|(id, process)| {
            let fact = self.process_fact(id, process);
            store.text(&Fact::Process(Box::new(fact)))
        }));
        let halves: Vec<_> = self.logs.half_lines().collect();
        store.half_lines = halves.iter().copied().collect();
        let halves = halves.into_iter().filter_map(|id| self.half_line(id));
        lines.extend(halves.map(|fact| fact.text()));
        let folders = self.folders.all().cloned();
        lines.extend(folders.map(|made| Fact::Folder(made).text()));
        lines.extend(self.reason_facts().map(|fact| store.text(&fact)));
        // Of these nobody but the next listend in this process can have the descriptors.
        lines.extend(self.clients.connections().map(|(id, ends)| {
            let fact = facts::ConnectionFact {
                key: id.0,
                ends: ends.clone(),
            };
            store.text(&Fact::Connection(fact))
        }));
        lines.extend(store.unknown.iter().cloned());
        lines
    }

    fn half_line(&self, process: ProcessId) -> Option<Fact> {
        let splitter = self.logs.splitter_of(process)?;
        facts::HalfLine::of(process, splitter).map(Fact::HalfLine)
    }

    /// What does not change with every process.
    fn lasting_facts(&self, store: &mut Store) -> Vec<Fact> {
        let in_force = store.configuration(&self.plan.origin);
        let mut used = BTreeSet::from([in_force]);
        let mut facts = Vec::new();
        let known = self.plan.known_ids();
        let listeners = known.listeners.into_iter();
        let listeners = listeners
            .map(|(name, (id, keys))| (name, (id.0, keys.into_iter().map(|key| key.0).collect())));
        facts.push(Fact::Ids(facts::Ids {
            listeners: listeners.collect(),
            workers: known
                .workers
                .into_iter()
                .map(|(name, id)| (name, id.0))
                .collect(),
            next: known.next,
        }));
        for (worker, revision, definition) in self.definitions.all() {
            let configuration = store.configuration(&definition.origin);
            used.insert(configuration);
            facts.push(Fact::Definition(facts::DefinitionFact {
                key: u64::from(worker.0) << 32 | u64::from(revision.0),
                worker: worker.0,
                revision: revision.0,
                name: definition.plan.name.clone(),
                configuration,
                sockets: definition.former_sockets(),
            }));
        }
        for socket in self.sockets.iter() {
            let Some(identity) = Identity::of_shared(&socket.fd) else {
                continue;
            };
            let former = self.sockets.former_of(socket.key);
            let former = former.map(|former: &Former| facts::Former {
                configuration: store.configuration(&former.origin),
                listener: former.listener.name.clone(),
                index: former.index as u32,
            });
            used.extend(former.as_ref().map(|former| former.configuration));
            facts.push(Fact::Socket(facts::Socket {
                key: socket.key.0,
                identity: identity.to_string(),
                listener: socket.listener.0,
                former,
                record: socket.record(),
            }));
        }
        facts.extend(self.flow_facts());
        let unheld = store.unheld.iter().filter(|fact| {
            let is_held = self.sockets.get(SocketKey(fact.key)).is_some();
            !is_held && self.manager.knows_unheld(ListenerId(fact.listener))
        });
        facts.extend(unheld.cloned().map(Fact::Socket));
        store.configurations.retain(|key, _| used.contains(key));
        // The number of one that is gone may be given to another.
        store.unknown_fields.retain(|(kind, key), _| {
            *kind != "configuration"
                || store
                    .configurations
                    .keys()
                    .any(|known| u64::from(*known) == *key)
        });
        let configurations = store.configurations.iter();
        facts.extend(configurations.map(|(key, origin)| {
            Fact::Configuration(facts::Configuration {
                key: *key,
                origin: (**origin).clone(),
            })
        }));
        let limit = &self.daemon_context.open_files;
        facts.insert(
            0,
            Fact::Snapshot(Box::new(facts::Head {
                format: FORMAT,
                written_by: env!("CARGO_PKG_VERSION").to_owned(),
                boot: boot(),
                pid: std::process::id(),
                since: self.control.since().0,
                configuration: in_force,
                notify: self
                    .notify
                    .place()
                    .map(|(address, record)| OwnSocketFact::new(address, record, self.notify.fd())),
                einhorn: self.notify.ack_place().map(|(address, record)| {
                    OwnSocketFact::new(address, record, self.notify.ack_fd())
                }),
                control: self.control.place().map(|(path, record)| {
                    let path = path.to_string_lossy();
                    OwnSocketFact::new(path, Some(record), self.control.fd())
                }),
                open_files: (limit.soft, limit.hard),
                folders: self.sockets.created_folders.clone(),
            })),
        );
        facts
    }

    /// What instances have left for their successors.
    fn stored_facts(&self) -> Vec<Fact> {
        let stored = self.notify.store.all();
        let facts = stored.map(|(key, (worker, index), name, polled)| {
            Fact::Stored(facts::Stored {
                key,
                worker: worker.0,
                index,
                name: name.to_owned(),
                polled,
            })
        });
        facts.collect()
    }

    fn process_fact(&self, id: ProcessId, process: &Process) -> facts::ProcessFact {
        let told = &process.told;
        let identity =
            |fd: Option<BorrowedFd<'_>>| fd.and_then(Identity::of).map(|one| one.to_string());
        facts::ProcessFact {
            key: id.0,
            worker: process.instance.worker.0,
            index: process.instance.index,
            generation: process.instance.generation,
            revision: process.revision.0,
            task: process.task.into(),
            pid: process.pid,
            session: process.session,
            inode: process.pidfd.as_ref().and_then(crate::sys::pidfd_inode),
            started: process.started.0,
            uid: process.uid,
            lane: process.lane.map(|lane| lane.0),
            client: process.client.clone(),
            connection: process.connection.map(|connection| connection.0),
            told: facts::ToldFact {
                status: told.status.clone(),
                errno: told.errno,
                bus_error: told.bus_error.clone(),
                exit_status: told.exit_status,
            },
            first_reaped: process.replaced.map(|first| first == First::Reaped),
            rest: process.rest.as_ref().map(|rest| facts::RestFact {
                status: rest.status.into(),
                groups: rest.groups.clone(),
            }),
            killed: process.killed,
            output: identity(self.logs.pipe_of(id)),
            newline: identity(self.notify.newline_of(id)),
        }
    }

    /// The descriptors that are kept under a name.
    pub(super) fn kept_as<'a>(&'a self, store: &'a Store, name: Name) -> Vec<BorrowedFd<'a>> {
        match name {
            Name::Snapshot => store.journal.iter().map(|journal| journal.fd()).collect(),
            Name::Notify => self.notify.fd().into_iter().collect(),
            Name::Acks => self.notify.ack_fd().into_iter().collect(),
            Name::Control => self.control.fd().into_iter().collect(),
            Name::Sockets(name) => {
                let members = store.sockets.members.get(&name).into_iter().flatten();
                let places = members.filter_map(|identity| store.sockets.places.get(identity));
                let held = places.filter_map(|place| self.held_socket(*place));
                held.map(|socket| socket.fd.as_fd()).collect()
            }
            Name::Process(id) => {
                let id = ProcessId(id);
                let process = self.processes.get(id);
                let pidfd = process
                    .and_then(|process| process.pidfd.as_ref())
                    .map(AsFd::as_fd);
                let pipes = self
                    .logs
                    .pipe_of(id)
                    .into_iter()
                    .chain(self.notify.newline_of(id));
                pidfd.into_iter().chain(pipes).collect()
            }
            Name::Connection(id) => self.clients.fd(ConnectionId(id)).into_iter().collect(),
            Name::Stored(id) => self.notify.store.fd(id).into_iter().collect(),
            Name::Flows(key) => {
                let group = self.flows.groups.get(&SocketKey(key));
                group.map(FlowGroup::maps).into_iter().flatten().collect()
            }
        }
    }

    fn names_of_flows(&self) -> impl Iterator<Item = Name> {
        self.flows.groups.keys().map(|key| Name::Flows(key.0))
    }

    /// The sockets of the table, and those apart from it.
    fn held_sockets(&self) -> impl Iterator<Item = (HeldPlace, &BoundSocket)> {
        let is_alone = |key| self.flows.groups.contains_key(&key);
        let of_table = self.sockets.iter().map(move |socket| {
            let place = HeldPlace {
                key: socket.key,
                lane: None,
                is_alone: is_alone(socket.key),
            };
            (place, socket)
        });
        let apart = self.flows.groups.iter().flat_map(|(key, group)| {
            group.members().filter_map(|(lane, member)| {
                let place = HeldPlace {
                    key: *key,
                    lane: Some(lane),
                    is_alone: true,
                };
                Some((place, member.socket.as_ref()?))
            })
        });
        of_table.chain(apart)
    }

    fn held_socket(&self, place: HeldPlace) -> Option<&BoundSocket> {
        match place.lane {
            None => self.sockets.get(place.key),
            Some(lane) => self.flows.groups.get(&place.key)?.own_socket(lane),
        }
    }

    fn flow_facts(&self) -> impl Iterator<Item = Fact> {
        let identity = |socket: &BoundSocket| Some(Identity::of_shared(&socket.fd)?.to_string());
        self.flows.groups.iter().map(move |(key, group)| {
            let (present, generation, last) = group.present();
            let members = group.members().map(|(lane, member)| facts::FlowMember {
                lane,
                generation: member.generation,
                identity: member.socket.as_ref().and_then(identity),
            });
            Fact::Flows(facts::FlowsFact {
                key: key.0,
                present,
                generation,
                last,
                settings: *group.settings(),
                members: members.collect(),
            })
        })
    }

    /// Everything that is to be kept, by name.
    pub(in crate::shell) fn all_kept<'a>(
        &'a self,
        store: &'a Store,
    ) -> Vec<(Name, BorrowedFd<'a>)> {
        let names = [Name::Snapshot].into_iter().chain(OWN);
        let names = names.chain(self.processes.iter().map(|(id, _)| Name::Process(id.0)));
        let connections = self
            .clients
            .connections()
            .map(|(id, _)| Name::Connection(id.0));
        let stored = self.notify.store.all().map(|(id, ..)| Name::Stored(id));
        let names = names.chain(connections).chain(stored);
        let names = names.chain(self.names_of_flows());
        let named = names.flat_map(|name| {
            let fds = self.kept_as(store, name).into_iter();
            fds.map(move |fd| (name, fd))
        });
        let sockets = self.held_sockets().map(|(_, socket)| {
            // Only a keeper knows them by other names.
            let is_named = !store.sockets.named.is_empty();
            let identity = is_named.then(|| Identity::of_shared(&socket.fd)).flatten();
            let known = identity.and_then(|one| store.sockets.named.get(&one));
            let name = Name::Sockets(known.copied().unwrap_or(0));
            (name, socket.fd.as_fd())
        });
        named.chain(sockets).collect()
    }
}
