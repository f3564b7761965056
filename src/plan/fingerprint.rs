//! Fingerprints of listeners and workers, by which two plans are compared.

use super::model::{ListenerPlan, Plan, WorkerPlan};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

/// A number for each listener and worker that changes when anything about it does. Comparable only
/// between processes of the same program.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprints {
    /// The fingerprints of the listeners, by name.
    pub listeners: BTreeMap<String, u64>,
    /// The fingerprints of the workers, by name.
    pub workers: BTreeMap<String, u64>,
}

impl Fingerprints {
    /// The fingerprints of a whole plan. Takes its time: where there is none, use [`of_listener`] and
    /// [`of_worker`].
    pub fn of(plan: &Plan) -> Fingerprints {
        let listeners = plan.listeners.values();
        let workers = plan.workers.values();
        Fingerprints {
            listeners: listeners
                .map(|one| (one.name.clone(), of_listener(one)))
                .collect(),
            workers: workers
                .map(|one| (one.name.clone(), of_worker(one, plan)))
                .collect(),
        }
    }
}

/// The fingerprint of a listener. Places are not part of it: a listener that only moved within its
/// file has not changed.
pub fn of_listener(plan: &ListenerPlan) -> u64 {
    // Everything in it has a form in JSON, so that there is none without.
    hash(&serde_json::to_vec(plan).unwrap_or_default())
}

/// The fingerprint of a worker. Its listeners count by name: their numbers change with those before
/// them.
pub fn of_worker(plan: &WorkerPlan, whole: &Plan) -> u64 {
    let names = plan.listeners.iter().map(|id| &whole.listener(*id).name);
    let names: Vec<&String> = names.collect();
    let without = WorkerPlan {
        listeners: Vec::new(),
        ..plan.clone()
    };
    hash(&serde_json::to_vec(&(names, without)).unwrap_or_default())
}

fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}
