//! Looks at the accept queues of workers, of which one comes by itself.

use super::{MINUTE, Takers, UNSERVED_AFTER};
use crate::config::tells_who_waits;
use crate::core::{Input, State};
use crate::listener::{self, DepthReader};
use crate::plan::{ListenerId, SocketKey, WorkerId};
use crate::shell::clients::Role;
use crate::shell::clock;
use crate::shell::turn::Shell;

impl Shell {
    /// A worker was started with these sockets: the first client of each wakes the loop, once.
    pub(in crate::shell) fn expect_clients(&mut self, sockets: &[SocketKey]) {
        for key in sockets {
            let Some(held) = self.sockets.get(*key) else {
                continue;
            };
            if held.address.accepts() && self.watch.role(held.listener) == Role::Held {
                self.watch_clients(*key, true);
            }
        }
    }

    /// The first client since the start of a worker: is it still there in a while?
    pub(in crate::shell) fn first_client(&mut self, key: SocketKey) {
        self.watch_clients(key, false);
        self.look_at_queue(key);
        let due = clock::now() + UNSERVED_AFTER;
        self.control.queue_log.due.insert(key, due);
    }

    /// Looks at the sockets that are due, and again while the same clients wait.
    pub(in crate::shell) fn look_at_queues(&mut self) {
        if self.control.queue_log.due.is_empty() {
            return;
        }
        let now = clock::now();
        let due = self.control.queue_log.due.iter();
        let due = due.filter(|(_, at)| **at <= now);
        let due: Vec<SocketKey> = due.map(|(key, _)| *key).collect();
        for key in due {
            match self.look_at_queue(key) {
                true => self.control.queue_log.due.insert(key, now + MINUTE),
                false => self.control.queue_log.due.remove(&key),
            };
        }
    }

    fn look_at_queue(&mut self, key: SocketKey) -> bool {
        let depth = self
            .sockets
            .get(key)
            .and_then(|held| Some((held, listener::depth(held)?)));
        let Some((held, depth)) = depth else {
            return false;
        };
        // A reload may have removed it, and a process that has it still runs.
        let Some(listener) = self.plan.listeners.get(&held.listener) else {
            return false;
        };
        let (takers, name) = (self.takers_of(held.listener), &listener.name);
        let log = &mut self.control.queue_log;
        log.look(clock::now(), name, held, &depth, takers)
    }

    /// How many wait for a worker, for the number of its instances to follow.
    pub(in crate::shell) fn look_at_queues_of(&mut self, worker: WorkerId) {
        let listeners = self.definitions.worker(worker).listeners.iter();
        let listeners = listeners.filter_map(|id| self.plan.listeners.get(id));
        let sockets = listeners.flat_map(|listener| self.sockets.of(listener));
        let counted = sockets.filter(|socket| tells_who_waits(socket.address.kind()));
        let mut reader = DepthReader::new();
        let mut waiting = Some(Vec::new());
        for socket in counted {
            let depth = reader.depth(socket).and_then(|depth| depth.depth);
            waiting = waiting.zip(depth).map(|(mut queues, depth)| {
                let shard = socket.shard as usize;
                if queues.len() <= shard {
                    queues.resize(shard + 1, 0);
                }
                queues[shard] += depth;
                queues
            });
        }
        self.feed(Input::QueuesSeen { worker, waiting });
    }

    pub(in crate::shell) fn takers_of(&self, listener: ListenerId) -> Takers {
        let runs = |worker: &WorkerId| {
            let mut instances = self.core.instances_of(*worker);
            instances.any(|one| matches!(self.core.state(one), Some(State::Running { .. })))
        };
        match self.core.takers(listener).iter().any(runs) {
            true => Takers::Run,
            false if self.is_abandoned(listener) => Takers::Ended,
            false => Takers::Wait,
        }
    }
}
