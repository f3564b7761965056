//! Fingerprints of listeners, by which a process tells those that a plan of another process has, too.

use super::model::{ListenerPlan, Plan, SocketPlan};
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

/// A number that changes when anything about a listener does. Places are not part of it: a listener that
/// only moved within its file has not changed. Comparable only between processes of the same program.
pub fn of_listener(plan: &ListenerPlan) -> u64 {
    let mut hasher = DefaultHasher::new();
    plan.hash(&mut hasher);
    hasher.finish()
}

impl Hash for ListenerPlan {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        // Taken apart, so that nobody forgets what is added.
        let ListenerPlan {
            name,
            sockets,
            backlog,
            access,
            options,
            multicast,
            network_namespace,
            symlinks,
            remove_on_stop,
            grant,
            presence,
            flows,
            places: _,
        } = self;
        (name, sockets, backlog, access, options, multicast).hash(hasher);
        (network_namespace, symlinks, remove_on_stop).hash(hasher);
        (grant, presence, flows).hash(hasher);
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

/// The listeners of a running plan, as the process that resolves another one knows them: where in the
/// plan the one with a fingerprint stands.
#[derive(Debug, Default)]
pub struct Known(HashMap<u64, u32>);

impl Known {
    /// What to tell that process.
    pub fn told(running: &Plan) -> Vec<u8> {
        let listeners = running.listeners.values();
        listeners
            .flat_map(|one| of_listener(one).to_ne_bytes())
            .collect()
    }

    /// From what it was told.
    pub fn heard(told: &[u8]) -> Known {
        let (numbers, _) = told.as_chunks();
        let numbers = numbers.iter().map(|bytes| u64::from_ne_bytes(*bytes));
        Known(numbers.zip(0..).collect())
    }

    /// Where it stands.
    pub(super) fn position(&self, listener: &ListenerPlan) -> Option<u32> {
        self.0.get(&of_listener(listener)).copied()
    }
}
