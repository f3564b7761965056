//! The ids that another listend has given.

use super::merge::{next, next_ids};
use super::model::{Ids, ListenerId, Plan, SocketKey, WorkerId};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// By which ids the listend before knew what a plan has, by name; and those that it has not given yet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KnownIds {
    /// The listeners, with the keys of their sockets in the order of the plan.
    pub listeners: HashMap<String, (ListenerId, Vec<SocketKey>)>,
    /// The workers.
    pub workers: HashMap<String, WorkerId>,
    /// The next of a listener, a worker, and a socket.
    pub next: (u32, u32, u32),
}

impl Plan {
    /// The key of a socket that the plan does not have, and that no other gets.
    pub fn new_socket_key(&mut self) -> SocketKey {
        self.ids = next_ids(self, &BTreeMap::new());
        SocketKey(next(&mut self.ids.socket))
    }

    /// Has at least so many sockets at each address of a listener.
    pub fn add_shards(&mut self, listener: ListenerId, shards: u32) {
        let mut ids = next_ids(self, &BTreeMap::new());
        if let Some(listener) = self.listeners.get_mut(&listener) {
            let listener = Arc::make_mut(listener);
            let known = listener.sockets.len();
            listener.add_shards(shards);
            for socket in &mut listener.sockets[known..] {
                socket.key = SocketKey(next(&mut ids.socket));
            }
        }
        self.ids = ids;
    }

    /// The ids that it has, and will give next.
    pub fn known_ids(&self) -> KnownIds {
        let listeners = self.listeners();
        let ids = next_ids(self, &BTreeMap::new());
        KnownIds {
            listeners: listeners
                .map(|(id, one)| (one.name.clone(), (id, one.keys().collect())))
                .collect(),
            workers: self
                .workers()
                .map(|(id, one)| (one.name.clone(), id))
                .collect(),
            next: (ids.listener, ids.worker, ids.socket),
        }
    }

    /// The same plan with these ids. What is not known, or has another number of sockets than was known,
    /// gets new ones.
    #[must_use]
    pub fn with_ids(self, known: &KnownIds) -> Plan {
        let (listener, worker, socket) = known.next;
        let mut ids = Ids {
            listener,
            worker,
            socket,
        };
        let sharded = self.sharded();
        let mut renumbered = HashMap::new();
        let mut listeners = BTreeMap::new();
        for (before, mut shared) in self.listeners {
            let one = Arc::make_mut(&mut shared);
            if let Some((_, keys)) = known.listeners.get(&one.name)
                && sharded.contains(&before)
            {
                // It was scaled up.
                one.add_shards_for(keys.len());
            }
            let (id, keys) = match known.listeners.get(&one.name) {
                Some((id, keys)) if keys.len() == one.sockets.len() => (*id, keys.clone()),
                other => {
                    let id = other.map(|(id, _)| *id);
                    let id = id.unwrap_or_else(|| ListenerId(next(&mut ids.listener)));
                    let keys = one.sockets.iter().map(|_| SocketKey(next(&mut ids.socket)));
                    (id, keys.collect())
                }
            };
            for (socket, key) in one.sockets.iter_mut().zip(keys) {
                socket.key = key;
            }
            renumbered.insert(before, id);
            listeners.insert(id, shared);
        }
        let mut workers = BTreeMap::new();
        for mut one in self.workers.into_values() {
            let id = known.workers.get(&one.name).copied();
            let id = id.unwrap_or_else(|| WorkerId(next(&mut ids.worker)));
            for listener in &mut Arc::make_mut(&mut one).listeners {
                *listener = renumbered.get(listener).copied().unwrap_or(*listener);
            }
            workers.insert(id, one);
        }
        Plan {
            listeners,
            workers,
            origin: self.origin,
            ids,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Endpoint;
    use crate::plan::{Access, ListenerPlan, SocketPlan};
    use crate::report::Place;

    fn listener(name: &str, ports: &[u16]) -> ListenerPlan {
        let sockets = ports.iter().map(|port| SocketPlan {
            key: SocketKey(0),
            endpoint: Endpoint::Fifo {
                path: format!("/run/{port}").into(),
            },
            shard: 0,
            place: Place::default(),
        });
        ListenerPlan::new(name.to_owned(), sockets.collect(), 1, Access::PRIVATE)
    }

    #[test]
    fn what_keeps_its_name_keeps_its_ids() {
        let before = Plan::new([listener("a", &[1]), listener("b", &[2, 3])], []);
        let known = before.known_ids();
        let after = Plan::new(
            [
                listener("new", &[4]),
                listener("b", &[2, 3]),
                listener("a", &[1, 5]),
            ],
            [],
        );
        let after = after.with_ids(&known);
        let keys = |name: &str| {
            let mut all = after.listeners();
            let (id, one) = all.find(|(_, one)| one.name == name).expect("a listener");
            (id.0, one.keys().map(|key| key.0).collect::<Vec<u32>>())
        };
        assert_eq!(keys("b"), (1, vec![1, 2]));
        assert_eq!(keys("a"), (0, vec![4, 5]));
        assert_eq!(keys("new"), (2, vec![3]));
    }
}
