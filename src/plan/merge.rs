//! The running plan × the wanted plan → the plan to run from now on.
//!
//! Everything else in listend knows listeners, workers and sockets by their ids, and no id is ever used
//! twice: what keeps its name keeps its id, what is bound to the same address keeps its key, whichever
//! listener it belongs to, and what is new gets an id that nobody had before.

use super::changes::Changes;
use super::model::{Ids, ListenerId, ListenerPlan, Plan, SocketKey, SocketPlan, WorkerId};
use crate::config::{Endpoint, UnixName};
use foldhash::{HashMap, HashMapExt, HashSet, HashSetExt};
use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;

/// The result of a merge: the plan that a reload puts into effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Merge {
    /// The wanted plan in the ids of the running one.
    pub plan: Plan,
    /// The differences from the running plan.
    pub changes: Changes,
}

/// Gives a plan that was just resolved the ids of the one that runs, and says what is different.
///
/// `former` are sockets that the running plan has no more and that are held, each with the listener
/// that it belonged to, as it was, with this socket alone: what is wanted may be among them.
pub fn merge(running: &Plan, former: &BTreeMap<SocketKey, &ListenerPlan>, wanted: Plan) -> Merge {
    let mut ids = next_ids(running, former);
    let mut renumbered = HashMap::new();
    let known: HashMap<&str, ListenerId> = running
        .listeners()
        .map(|(id, one)| (&*one.name, id))
        .collect();
    let sharded = wanted.sharded();
    let mut listeners = Vec::with_capacity(wanted.listeners.len());
    for (before, mut listener) in wanted.listeners {
        if let Some(known) = known.get(&*listener.name)
            && sharded.contains(&before)
        {
            // Clients may wait in those that are not needed any more, and others will be again.
            let running = running.listener(*known);
            listener.add_shards(running.shards());
        }
        let id = known.get(&*listener.name).copied();
        let id = id.unwrap_or_else(|| ListenerId(next(&mut ids.listener)));
        renumbered.insert(before, id);
        listeners.push((id, listener));
    }
    let mut listeners: BTreeMap<_, _> = listeners.into_iter().collect();
    give_keys(running, former, &mut listeners, &mut ids);
    let known: HashMap<&str, WorkerId> = running
        .workers()
        .map(|(id, one)| (&*one.name, id))
        .collect();
    let mut workers = BTreeMap::new();
    for mut worker in wanted.workers.into_values() {
        let id = known.get(&*worker.name).copied();
        let id = id.unwrap_or_else(|| WorkerId(next(&mut ids.worker)));
        // Just resolved, and nobody else has it.
        for listener in &mut Arc::make_mut(&mut worker).listeners {
            *listener = renumbered.get(listener).copied().unwrap_or(*listener);
        }
        workers.insert(id, worker);
    }
    let plan = Plan {
        listeners,
        workers,
        origin: wanted.origin,
        ids,
    };
    let changes = Changes::between(running, former, &plan);
    Merge { plan, changes }
}

pub(super) fn next(id: &mut u32) -> u32 {
    let given = *id;
    // After 2³² of anything in the life of one daemon.
    *id = id.saturating_add(1);
    given
}

/// A plan that was just resolved has given out what it has itself.
pub(super) fn next_ids(running: &Plan, former: &BTreeMap<SocketKey, &ListenerPlan>) -> Ids {
    let after = |last: Option<u32>| last.map_or(0, |last| last.saturating_add(1));
    let listener = running.listeners.keys().next_back().map(|id| id.0);
    let worker = running.workers.keys().next_back().map(|id| id.0);
    let keys = running.listeners.values().flat_map(ListenerPlan::keys);
    let socket = keys.chain(former.keys().copied()).max().map(|key| key.0);
    Ids {
        listener: running.ids.listener.max(after(listener)),
        worker: running.ids.worker.max(after(worker)),
        socket: running.ids.socket.max(after(socket)),
    }
}

/// The identity of a socket: namespace and address. A socket of the running plan and one of the wanted
/// plan with the same identity are one socket. Whether the address is `optional` is no part of it.
type Address = (Option<PathBuf>, Endpoint);

fn address(listener: &ListenerPlan, socket: &SocketPlan) -> Address {
    let mut endpoint = socket.endpoint.clone();
    if let Endpoint::Inet { optional, .. } = &mut endpoint {
        *optional = false;
    }
    let namespace = listener.network_namespace.clone();
    (namespace.filter(|_| is_in_namespace(&endpoint)), endpoint)
}

/// Whether the address belongs to a network namespace; a path or a message queue does not.
fn is_in_namespace(endpoint: &Endpoint) -> bool {
    match endpoint {
        Endpoint::Inet { .. } | Endpoint::Netlink { .. } => true,
        Endpoint::Unix { name, .. } => matches!(name, UnixName::Abstract(_)),
        Endpoint::Fifo { .. }
        | Endpoint::MessageQueue { .. }
        | Endpoint::Special { .. }
        | Endpoint::Vsock { .. } => false,
    }
}

/// First each listener finds its own sockets again, then those of others that are left, at last those
/// that only former definitions have.
fn give_keys(
    running: &Plan,
    former: &BTreeMap<SocketKey, &ListenerPlan>,
    wanted: &mut BTreeMap<ListenerId, ListenerPlan>,
    ids: &mut Ids,
) {
    let mut settled = HashSet::new();
    for (id, after) in wanted.iter_mut() {
        let before = running.listeners.get(id);
        if let Some(before) = before.filter(|before| has_same_sockets(before, after)) {
            let keys = before.keys();
            keys.zip(&mut after.sockets)
                .for_each(|(key, socket)| socket.key = key);
            settled.insert(*id);
        }
    }
    let mut left: HashMap<Address, VecDeque<(Option<ListenerId>, SocketKey)>> = HashMap::new();
    let of_plan = running.listeners().filter(|(id, _)| !settled.contains(id));
    let of_plan = of_plan.map(|(id, listener)| (Some(id), listener));
    let of_former = former.values().map(|listener| (None, *listener));
    for (id, listener) in of_plan.chain(of_former) {
        for socket in &listener.sockets {
            let places = left.entry(address(listener, socket)).or_default();
            places.push_back((id, socket.key));
        }
    }
    let mut given: HashSet<(ListenerId, usize)> = HashSet::new();
    for only_own in [true, false] {
        for (id, after) in wanted.iter_mut().filter(|(id, _)| !settled.contains(id)) {
            for index in 0..after.sockets.len() {
                if given.contains(&(*id, index)) {
                    continue;
                }
                let Some(places) = left.get_mut(&address(after, &after.sockets[index])) else {
                    continue;
                };
                let is_meant = |of: &Option<ListenerId>| !only_own || *of == Some(*id);
                if let Some(at) = places.iter().position(|(of, _)| is_meant(of))
                    && let Some((_, key)) = places.remove(at)
                {
                    after.sockets[index].key = key;
                    given.insert((*id, index));
                }
            }
        }
    }
    for (id, after) in wanted.iter_mut().filter(|(id, _)| !settled.contains(id)) {
        for (index, socket) in after.sockets.iter_mut().enumerate() {
            if !given.contains(&(*id, index)) {
                socket.key = SocketKey(next(&mut ids.socket));
            }
        }
    }
}

fn has_same_sockets(before: &ListenerPlan, after: &ListenerPlan) -> bool {
    let same = |(one, other): (&SocketPlan, &SocketPlan)| one.endpoint == other.endpoint;
    before.network_namespace == after.network_namespace
        && before.sockets.len() == after.sockets.len()
        && before.sockets.iter().zip(&after.sockets).all(same)
}
