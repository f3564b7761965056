//! Fingerprints of listeners, by which a process tells those that a plan of another process has, too.

use super::model::{ListenerPlan, Plan, SocketPlan};
use foldhash::HashMap;
use foldhash::quality::FixedState;
use std::hash::{BuildHasher, Hash, Hasher};

/// A number that changes when anything about a listener does. Places are not part of it: a listener that
/// only moved within its file has not changed. Comparable only between processes of the same program.
fn of_listener(plan: &ListenerPlan) -> u64 {
    FixedState::default().hash_one(plan)
}

/// The same of the places of a listener.
fn of_places(plan: &ListenerPlan) -> u64 {
    let sockets = plan.sockets.iter().map(|socket| socket.place);
    let mut hasher = FixedState::default().build_hasher();
    sockets.for_each(|place| place.hash(&mut hasher));
    plan.places.hash(&mut hasher);
    hasher.finish()
}

impl Hash for ListenerPlan {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        // Taken apart, so that nobody forgets what is added.
        let ListenerPlan {
            name,
            sockets,
            settings,
            places: _,
        } = self;
        (name, sockets, settings).hash(hasher);
    }
}

impl Hash for SocketPlan {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        let SocketPlan {
            key: _,
            endpoint,
            shard,
            place: _,
        } = self;
        (endpoint, shard).hash(hasher);
    }
}

/// The listeners of a running plan, as the process that resolves another one knows them: by the fingerprint
/// of each where in the plan it stands, and the fingerprint of its places.
#[derive(Debug, Default)]
pub struct Known(HashMap<u64, (u32, u64)>);

/// A listener that the running plan has, too.
#[derive(Debug, Clone, Copy)]
pub(super) struct Position {
    /// Where in the plan it stands.
    pub(super) at: u32,
    /// Whether it stands elsewhere in the files now.
    pub(super) has_moved: bool,
}

impl Known {
    /// What to tell that process.
    pub fn told(running: &Plan) -> Vec<u8> {
        let listeners = running.listeners.values();
        let numbers = listeners.flat_map(|one| [of_listener(one), of_places(one)]);
        numbers.flat_map(u64::to_ne_bytes).collect()
    }

    /// From what it was told.
    pub fn heard(told: &[u8]) -> Known {
        let (numbers, _) = told.as_chunks();
        let numbers = numbers.iter().map(|bytes| u64::from_ne_bytes(*bytes));
        let numbers: Vec<u64> = numbers.collect();
        let (pairs, _) = numbers.as_chunks();
        let known = pairs.iter().zip(0..);
        Known(
            known
                .map(|([listener, places], at)| (*listener, (at, *places)))
                .collect(),
        )
    }

    /// Where it stands.
    pub(super) fn position(&self, listener: &ListenerPlan) -> Option<Position> {
        let (at, places) = self.0.get(&of_listener(listener)).copied()?;
        Some(Position {
            at,
            has_moved: places != of_places(listener),
        })
    }
}
