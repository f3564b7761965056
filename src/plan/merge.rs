//! The running plan × the wanted plan → the plan to run from now on.
//!
//! Everything else in listend knows listeners, workers and sockets by their ids, and no id is ever used
//! twice: what keeps its name keeps its id, what is bound to the same address keeps its key, whichever
//! listener it belongs to, and what is new gets an id that nobody had before.

use super::changes::Changes;
use super::model::{
    Address, Ids, ListenerId, ListenerPlan, Plan, SocketKey, SocketPlan, WorkerId, address,
};
use foldhash::{HashMap, HashMapExt, HashSet, HashSetExt};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
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
    let sharded = wanted.sharded();
    let known = known_listeners(running, &wanted);
    let mut renumbered = Vec::with_capacity(wanted.listeners.len());
    let mut listeners = Vec::with_capacity(wanted.listeners.len());
    for ((before, mut listener), known) in wanted.listeners.into_iter().zip(known) {
        if let Some(known) = known
            && sharded.contains(&before)
        {
            // Clients may wait in those that are not needed any more, and others will be again.
            let shards = running.listener(known).shards();
            if shards > listener.shards() {
                Arc::make_mut(&mut listener).add_shards(shards);
            }
        }
        let id = known.unwrap_or_else(|| ListenerId(next(&mut ids.listener)));
        renumbered.push((before, id));
        listeners.push((id, listener));
    }
    let mut listeners: BTreeMap<_, _> = listeners.into_iter().collect();
    let other = others(&running.listeners, &listeners);
    give_keys(running, former, &mut listeners, &other, &mut ids);
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
            let at = renumbered.binary_search_by_key(listener, |(before, _)| *before);
            *listener = at.map_or(*listener, |at| renumbered[at].1);
        }
        workers.insert(id, worker);
    }
    let plan = Plan {
        listeners,
        workers,
        origin: wanted.origin,
        ids,
    };
    let changes = Changes::between(running, former, &plan, &other);
    Merge { plan, changes }
}

/// For each listener of the wanted plan the id that it has in the running one: of the same object, or of the
/// same name.
fn known_listeners(running: &Plan, wanted: &Plan) -> Vec<Option<ListenerId>> {
    let objects = running.listeners.iter();
    let mut objects: HashMap<*const ListenerPlan, ListenerId> =
        objects.map(|(id, one)| (Arc::as_ptr(one), *id)).collect();
    let wanted = wanted.listeners.values();
    let same = wanted.clone().map(|one| objects.remove(&Arc::as_ptr(one)));
    let same: Vec<Option<ListenerId>> = same.collect();
    let names = objects.into_values();
    let names: HashMap<&str, ListenerId> = names
        .map(|id| (running.listener(id).name.as_str(), id))
        .collect();
    let known = same.into_iter().zip(wanted);
    known
        .map(|(same, one)| same.or_else(|| names.get(&*one.name).copied()))
        .collect()
}

/// The listeners of either plan that are not one object in both.
fn others(
    running: &BTreeMap<ListenerId, Arc<ListenerPlan>>,
    merged: &BTreeMap<ListenerId, Arc<ListenerPlan>>,
) -> BTreeSet<ListenerId> {
    let mut other = BTreeSet::new();
    let mut before = running.iter().peekable();
    for (id, after) in merged {
        while let Some((gone, _)) = before.next_if(|(before, _)| *before < id) {
            other.insert(*gone);
        }
        let before = before.next_if(|(before, _)| *before == id);
        if !before.is_some_and(|(_, before)| Arc::ptr_eq(before, after)) {
            other.insert(*id);
        }
    }
    other.extend(before.map(|(gone, _)| *gone));
    other
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
    let keys = running.listeners.values().flat_map(|one| one.keys());
    let socket = keys.chain(former.keys().copied()).max().map(|key| key.0);
    Ids {
        listener: running.ids.listener.max(after(listener)),
        worker: running.ids.worker.max(after(worker)),
        socket: running.ids.socket.max(after(socket)),
    }
}

/// First each listener finds its own sockets again, then those of others that are left, at last those
/// that only former definitions have. `other` are those that have not got them yet, or are gone.
fn give_keys(
    running: &Plan,
    former: &BTreeMap<SocketKey, &ListenerPlan>,
    wanted: &mut BTreeMap<ListenerId, Arc<ListenerPlan>>,
    other: &BTreeSet<ListenerId>,
    ids: &mut Ids,
) {
    let mut unsettled = BTreeMap::new();
    let mut left: HashMap<Address, VecDeque<(Option<ListenerId>, SocketKey)>> = HashMap::new();
    let mut leave = |id: Option<ListenerId>, listener: &ListenerPlan| {
        for socket in &listener.sockets {
            let places = left.entry(address(listener, socket)).or_default();
            places.push_back((id, socket.key));
        }
    };
    let gone = other.iter().filter(|id| !wanted.contains_key(id));
    for (id, gone) in gone.filter_map(|id| Some((*id, running.find_listener(*id)?))) {
        leave(Some(id), gone);
    }
    for (id, after) in wanted.iter_mut().filter(|(id, _)| other.contains(id)) {
        let after = Arc::make_mut(after);
        match running.find_listener(*id) {
            Some(before) if has_same_sockets(before, after) => {
                let keys = before.keys();
                keys.zip(&mut after.sockets)
                    .for_each(|(key, socket)| socket.key = key);
                continue;
            }
            Some(before) => leave(Some(*id), before),
            None => {}
        }
        unsettled.insert(*id, after);
    }
    former.values().for_each(|listener| leave(None, listener));
    let mut given: HashSet<(ListenerId, usize)> = HashSet::new();
    for only_own in [true, false] {
        for (id, after) in &mut unsettled {
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
    for (id, after) in unsettled {
        for (index, socket) in after.sockets.iter_mut().enumerate() {
            if !given.contains(&(id, index)) {
                socket.key = SocketKey(next(&mut ids.socket));
            }
        }
    }
}

fn has_same_sockets(before: &ListenerPlan, after: &ListenerPlan) -> bool {
    let same = |(one, other): (&SocketPlan, &SocketPlan)| one.endpoint == other.endpoint;
    before.settings.network_namespace == after.settings.network_namespace
        && before.sockets.len() == after.sockets.len()
        && before.sockets.iter().zip(&after.sockets).all(same)
}
