//! The running plan × the wanted plan → the plan to run from now on.
//!
//! Everything else in listend knows listeners and workers by number, so a reload must not give the
//! number of one to another while anybody still means the former. What keeps its name keeps its
//! number; what is new gets a number that nobody has; what is gone leaves its place empty.

use super::changes::Changes;
use super::model::{ListenerId, Plan, WorkerId};
use std::collections::{BTreeSet, HashMap};

/// The numbers of removed listeners and workers that nobody means any more: nothing of them runs, is
/// bound or waits. Numbers that were not removed before are ignored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Free {
    /// Of listeners.
    pub listeners: BTreeSet<ListenerId>,
    /// Of workers.
    pub workers: BTreeSet<WorkerId>,
}

/// What a reload comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Merge {
    /// The wanted plan in the numbers of the running one.
    pub plan: Plan,
    /// What is different in it.
    pub changes: Changes,
}

/// Gives a plan that was just resolved the numbers of the one that runs, and says what is different.
///
/// A listener or worker with a name that runs keeps its number. Others take those that are free,
/// from the lowest, and then those behind the last.
pub fn merge(running: &Plan, wanted: Plan, free: &Free) -> Merge {
    let listeners = numbers(
        running.live_listeners().map(|(id, one)| (id.0, &*one.name)),
        running.removed_listeners.intersection(&free.listeners),
        running.listeners.len(),
        wanted.listeners.iter().map(|one| &*one.name),
    );
    let workers = numbers(
        running.live_workers().map(|(id, one)| (id.0, &*one.name)),
        running.removed_workers.intersection(&free.workers),
        running.workers.len(),
        wanted.workers.iter().map(|one| &*one.name),
    );
    let renumbered = |id: ListenerId| {
        let number = listeners.get(id.0 as usize).copied();
        ListenerId(number.unwrap_or(id.0))
    };
    let metrics = wanted.metrics.map(renumbered);
    let mut wanted_workers = wanted.workers;
    for worker in &mut wanted_workers {
        for id in &mut worker.listeners {
            *id = renumbered(*id);
        }
    }
    let (listeners, removed_listeners) = placed(&running.listeners, &listeners, wanted.listeners);
    let (mut workers, removed_workers) = placed(&running.workers, &workers, wanted_workers);
    let removed_listeners: BTreeSet<_> = removed_listeners.into_iter().map(ListenerId).collect();
    let removed_workers: BTreeSet<_> = removed_workers.into_iter().map(WorkerId).collect();
    let taken = running.removed_listeners.difference(&removed_listeners);
    let taken: BTreeSet<ListenerId> = taken.copied().collect();
    if !taken.is_empty() {
        // A worker that is no more must not seem to have the listener that took the number.
        for id in &removed_workers {
            let worker = &mut workers[id.0 as usize];
            worker.listeners.retain(|id| !taken.contains(id));
        }
    }
    let plan = Plan {
        listeners,
        workers,
        metrics,
        removed_listeners,
        removed_workers,
    };
    let changes = Changes::between(running, &plan);
    Merge { plan, changes }
}

/// The number of each wanted name.
fn numbers<'n, I: Copy + Into<u32> + 'n>(
    running: impl Iterator<Item = (u32, &'n str)>,
    free: impl Iterator<Item = &'n I>,
    count: usize,
    wanted: impl Iterator<Item = &'n str>,
) -> Vec<u32> {
    let mut known: HashMap<&str, u32> = running.map(|(number, name)| (name, number)).collect();
    // A plan comes from YAML text that fits into memory; it has fewer than 2³² of anything.
    let behind = u32::try_from(count).unwrap_or(u32::MAX)..;
    let mut unused = free.map(|id| (*id).into()).chain(behind);
    let mut number = |name| known.remove(name).or_else(|| unused.next());
    // There is always another number behind the last.
    wanted
        .map(|name| number(name).unwrap_or(u32::MAX))
        .collect()
}

/// Everything in its place, and the places in which something was that is wanted no more.
fn placed<T: Clone>(running: &[T], numbers: &[u32], wanted: Vec<T>) -> (Vec<T>, Vec<u32>) {
    let end = numbers.iter().map(|number| *number as usize + 1).max();
    let mut places: Vec<Option<T>> = Vec::new();
    places.resize_with(running.len().max(end.unwrap_or(0)), || None);
    for (number, one) in numbers.iter().zip(wanted) {
        places[*number as usize] = Some(one);
    }
    let mut removed = Vec::new();
    let whole = (0..).zip(places).filter_map(|(number, place)| {
        place.or_else(|| {
            removed.push(number);
            // Numbers behind the running ones are given out without gaps.
            running.get(number as usize).cloned()
        })
    });
    (whole.collect(), removed)
}

impl From<ListenerId> for u32 {
    fn from(id: ListenerId) -> u32 {
        id.0
    }
}

impl From<WorkerId> for u32 {
    fn from(id: WorkerId) -> u32 {
        id.0
    }
}
