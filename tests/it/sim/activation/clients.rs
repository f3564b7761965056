//! Clients come and go, are told of and accepted.

use crate::sim::activation::Clients;
use crate::sim::activation::world::{Client, Connection, Stage, is_fresh};
use crate::sim::life::{Life, Misery, Mood};
use crate::sim::random::source;
use listend::core::{
    ConnectionId, Event, Input, Mono, NotAccepted, ProcessEvent, Refusal, Use, Waiting, WorkerEvent,
};
use listend::plan::{Activation, ListenerId, SocketKey, WorkerId};
use std::collections::BTreeSet;

const EMFILE: i32 = 24;

impl Life<Clients> {
    /// Somebody comes, as a rule not alone.
    pub(crate) fn arrive(&mut self) {
        let socket = self.rng.below(self.own.sockets.len() as u64) as usize;
        for _ in 0..=self.rng.below(4) {
            let source = source(&mut self.rng);
            let id = self.own.next_client;
            self.own.next_client += 1;
            let queue = &mut self.own.sockets[socket].queue;
            if queue.len() < 8 {
                queue.push_back(Client { id, source });
                for user in &self.own.sockets[socket].users {
                    let past = &mut self.own.past[user.0 as usize];
                    past.used_at = self.now;
                    past.has_come = true;
                }
            }
        }
    }

    pub(crate) fn vanish(&mut self) {
        let socket = self.rng.below(self.own.sockets.len() as u64) as usize;
        let socket = &mut self.own.sockets[socket];
        if socket.vanish && !socket.queue.is_empty() {
            let who = self.rng.below(socket.queue.len() as u64) as usize;
            socket.queue.remove(who);
            self.seen.vanished += 1;
        }
    }

    /// epoll_wait(2), which tells of any of those that are ready.
    pub(crate) fn tell_of_a_client(&mut self) {
        let ready = self.ready();
        if !ready.is_empty() {
            let socket = self.rng.pick(&ready);
            self.client_waits(socket);
        }
    }

    /// The watched sockets at which somebody waits.
    pub(crate) fn ready(&self) -> Vec<(ListenerId, SocketKey)> {
        let sockets = self.own.sockets.iter();
        let waiting = sockets.filter(|socket| !socket.queue.is_empty());
        let ids = waiting.map(|socket| socket.id());
        ids.filter(|id| self.watched.contains(id)).collect()
    }

    pub(crate) fn client_waits(&mut self, (listener, socket): (ListenerId, SocketKey)) {
        self.give(Input::ClientWaits { listener, socket });
    }

    pub(crate) fn somebody_waits(&self, worker: WorkerId) -> bool {
        let mut sockets = self.own.sockets.iter();
        sockets.any(|socket| socket.users.contains(&worker) && !socket.queue.is_empty())
    }

    /// A worker accepts so many clients from each of its sockets.
    pub(crate) fn take_clients(&mut self, worker: WorkerId, at_most: u64) {
        for socket in &mut self.own.sockets {
            if socket.users.contains(&worker) {
                let take = (socket.queue.len() as u64).min(at_most) as usize;
                socket.queue.drain(..take);
            }
        }
    }

    pub(crate) fn socket(&self, id: (ListenerId, SocketKey)) -> usize {
        let found = self.own.sockets.iter().position(|socket| socket.id() == id);
        found.expect("there is such a socket")
    }

    pub(crate) fn accept(
        &mut self,
        socket: (ListenerId, SocketKey),
        id: ConnectionId,
        asked_at: Mono,
    ) {
        assert!(self.stop_at.is_none(), "accepts after a stop");
        assert!(is_fresh(self.own.last_connection, id), "{id:?} comes again");
        self.own.last_connection = Some(id);
        let socket = self.socket(socket);
        let worker = self.own.sockets[socket].users[0];
        self.own.connections.insert(
            id,
            Connection {
                worker,
                socket,
                asked_at,
                stage: Stage::Accepting,
                source: None,
                open: false,
            },
        );
    }

    pub(crate) fn close(&mut self, id: ConnectionId) {
        let stopped = self.stop_at.is_some();
        let connection = self.own.connections.get_mut(&id).expect("it was accepted");
        assert!(connection.open, "{id:?} is closed twice");
        connection.open = false;
        match connection.stage {
            // Its process has it, or it is refused, or its process is over.
            Stage::Served { started: true, .. } | Stage::Over => {}
            Stage::Held { .. } | Stage::Served { started: false, .. } => {
                assert!(stopped, "{id:?} is closed unserved: {connection:?}");
                connection.stage = match connection.stage {
                    Stage::Held { .. } => Stage::Over,
                    other => other,
                };
            }
            Stage::Accepting => panic!("{id:?} is closed before it is accepted"),
        }
    }

    pub(crate) fn note_event(&mut self, event: Event) {
        let seen = &mut self.seen;
        let count = match event {
            Event::Worker(_, WorkerEvent::ConnectionRefused { why, .. }) => match why {
                Refusal::Connections { .. } => &mut seen.refused_full,
                Refusal::OfSource { .. } => &mut seen.refused_source,
            },
            Event::Worker(worker, WorkerEvent::RateLimited { .. }) => {
                match self.own.workers[worker.0 as usize].activation {
                    Activation::OnDemand { .. } => &mut seen.trigger_limited,
                    Activation::PerConnection(_) => &mut seen.accept_limited,
                    Activation::Eager => panic!("no client starts {worker:?}"),
                }
            }
            Event::Worker(worker, WorkerEvent::Unused { after, .. }) => {
                let past = &mut self.own.past[worker.0 as usize];
                let timeout = self.own.workers[worker.0 as usize].idle_timeout;
                let timeout = timeout.expect("it is stopped when nobody uses it");
                let looked_at = past.looked_at.expect("it was looked at");
                let unused = looked_at.since(past.was_used_at);
                assert!(
                    after >= timeout && unused >= after,
                    "{worker:?} was not used for {unused:?}, it is said for {after:?}"
                );
                // How often is up to the seeds; `sim::idle` has every order.
                past.is_unused = true;
                return;
            }
            Event::Worker(_, WorkerEvent::ConnectionsFull { .. }) => &mut seen.full,
            Event::Process(_, _, ProcessEvent::ConnectionTimedOut { .. }) => &mut seen.timed_out,
            _ => return,
        };
        *count += 1;
    }

    pub(crate) fn answer_accept(&mut self, id: ConnectionId) {
        let exhausted = match self.mood {
            Mood::Wild => self.rng.one_in(10),
            Mood::Useless(misery) => misery == Misery::Accepts,
            Mood::Good => false,
        };
        let connection = self.own.connections.get_mut(&id).expect("asked for");
        let queue = &mut self.own.sockets[connection.socket].queue;
        let why = match queue.pop_front() {
            Some(client) if exhausted => {
                queue.push_front(client);
                self.seen.exhausted += 1;
                NotAccepted::Exhausted { errno: EMFILE }
            }
            Some(client) => {
                let source = client.source;
                connection.source = Some(source);
                connection.open = true;
                self.seen.accepted += 1;
                let connection = id;
                return self.give(Input::Accepted { connection, source });
            }
            None => {
                self.seen.gone += 1;
                NotAccepted::Gone
            }
        };
        connection.stage = Stage::Over;
        let connection = id;
        self.give(Input::NotAccepted { connection, why });
    }

    /// Who uses a worker is seen when the shell is asked, and told later.
    pub(crate) fn look_for_use(&mut self, worker: WorkerId, at: Mono) {
        let timeout = self.own.workers[worker.0 as usize].idle_timeout;
        let timeout = timeout.expect("it is stopped when nobody uses it");
        let waits = self.somebody_waits(worker);
        let past = &mut self.own.past[worker.0 as usize];
        let early = past.looked_at.is_some_and(|last| at.since(last) < timeout);
        assert!(!early, "{worker:?} is looked at too often");
        past.looked_at = Some(at);
        past.was_used_at = past.used_at;
        let has_come = std::mem::take(&mut past.has_come);
        past.seen = Some(match (waits, has_come) {
            (true, _) => Use::Now,
            (false, true) => Use::Before,
            (false, false) => Use::None,
        });
    }

    pub(crate) fn answer_use(&mut self, worker: WorkerId) {
        let is_connected = self.mood == Mood::Wild && self.rng.one_in(4);
        let is_hidden = self.mood == Mood::Wild && self.rng.one_in(20);
        let past = &mut self.own.past[worker.0 as usize];
        let mut seen = past.seen.take().expect("looked");
        if is_connected {
            past.used_at = self.now;
            seen = Use::Now;
        }
        if is_hidden {
            seen = Use::Unknown;
        }
        self.seen.used += u64::from(seen != Use::None);
        self.give(Input::UseSeen { worker, seen });
    }

    pub(crate) fn answer_look(&mut self, worker: WorkerId) {
        let sockets = self.own.sockets.iter();
        let sockets = sockets.filter(|socket| socket.users.contains(&worker));
        let waiting: BTreeSet<u64> = sockets.flat_map(|s| &s.queue).map(|c| c.id).collect();
        let past = &mut self.own.past[worker.0 as usize];
        let before = std::mem::replace(&mut past.waited, waiting);
        let waiting = if past.waited.is_empty() {
            self.seen.looked_nobody += 1;
            Waiting::Nobody
        } else if !before.is_empty() && before.is_subset(&past.waited) {
            self.seen.looked_same += 1;
            past.idle_ends.push(self.now);
            Waiting::TheSame
        } else {
            self.seen.looked_others += 1;
            Waiting::Others
        };
        self.give(Input::Looked { worker, waiting });
    }
}
