//! Why instances have failed, in the words of the log, for whoever asks later or waits for them.

mod note;

use crate::core::InstanceId;
use crate::plan::WorkerId;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, HashMap};

/// Why instances have failed.
#[derive(Debug, Default)]
pub(super) struct RollbackReasons {
    /// Why the last rollout of a worker went back, until one goes well.
    rollouts: HashMap<WorkerId, RollbackReason>,
    /// Why instances are not there, until they run their programs again.
    ends: HashMap<InstanceId, String>,
    /// Why the processes of connections failed last.
    connections: HashMap<WorkerId, String>,
    /// Why a `reload_command` failed, until the next request for its worker.
    reloads: HashMap<InstanceId, String>,
    /// The workers whose [`Lasting`] reasons have changed since that was asked.
    changed: BTreeSet<WorkerId>,
}

/// The reasons for the state of a worker: they are told as long as it is in that.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Lasting {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rollback: Option<RollbackReason>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    connections: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct RollbackReason {
    index: u32,
    generation: u32,
    words: String,
    /// The instance ended by itself.
    by_itself: bool,
    /// It seems that the new instance cannot run beside the one that it was to replace.
    is_exclusive: bool,
}

impl RollbackReasons {
    /// Why an instance is not there.
    pub(super) fn end_of(&self, instance: InstanceId) -> Option<&str> {
        self.ends.get(&instance).map(String::as_str)
    }

    /// Why a rollout went back, if it was for this instance.
    pub(super) fn of(&self, instance: InstanceId) -> Option<&str> {
        let rollback_reason = self.rollouts.get(&instance.worker)?;
        rollback_reason
            .is_of(instance)
            .then_some(rollback_reason.words.as_str())
    }

    /// Why an instance did not read its configuration again.
    pub(super) fn of_reload(&self, instance: InstanceId) -> Option<&str> {
        self.reloads.get(&instance).map(String::as_str)
    }

    /// Why the processes of connections fail.
    pub(super) fn of_connections(&self, worker: WorkerId) -> Option<&str> {
        self.connections.get(&worker).map(String::as_str)
    }

    pub(super) fn forget_reload(&mut self, worker: WorkerId) {
        self.reloads.retain(|instance, _| instance.worker != worker);
    }

    /// The worker is another one.
    pub(super) fn forget(&mut self, worker: WorkerId) {
        let was_known = self.rollouts.remove(&worker).is_some();
        if self.connections.remove(&worker).is_some() || was_known {
            self.changed.insert(worker);
        }
        self.ends.retain(|instance, _| instance.worker != worker);
        self.forget_reload(worker);
    }

    fn rolled_back(&mut self, instance: InstanceId, reason: RollbackReason) {
        self.rollouts.insert(instance.worker, reason);
        self.changed.insert(instance.worker);
    }

    fn connections_fail(&mut self, worker: WorkerId, why: String) {
        if self.of_connections(worker) != Some(&*why) {
            self.connections.insert(worker, why);
            self.changed.insert(worker);
        }
    }

    /// The workers whose lasting reasons have changed since this was asked last.
    pub(super) fn has_changed(&self) -> bool {
        !self.changed.is_empty()
    }

    pub(super) fn take_changed(&mut self) -> BTreeSet<WorkerId> {
        std::mem::take(&mut self.changed)
    }

    /// Every worker that has lasting reasons.
    pub(super) fn workers(&self) -> BTreeSet<WorkerId> {
        let all = self.rollouts.keys().chain(self.connections.keys());
        all.copied().collect()
    }

    /// Why a worker is in its state.
    pub(super) fn lasting(&self, worker: WorkerId) -> Lasting {
        Lasting {
            rollback: self.rollouts.get(&worker).cloned(),
            connections: self.connections.get(&worker).cloned(),
        }
    }

    /// Why instances are not there.
    pub(super) fn ends(&self) -> impl Iterator<Item = (InstanceId, &str)> {
        self.ends.iter().map(|(id, words)| (*id, words.as_str()))
    }

    /// Goes on with what another listend has known of a worker.
    pub(super) fn restore(&mut self, worker: WorkerId, lasting: Lasting) {
        let (rollback, why) = (lasting.rollback, lasting.connections);
        self.rollouts.extend(rollback.map(|one| (worker, one)));
        self.connections.extend(why.map(|why| (worker, why)));
    }

    /// Goes on with what another listend has known of an instance.
    pub(super) fn restore_end(&mut self, instance: InstanceId, words: String) {
        self.ends.insert(instance, words);
    }
}

impl RollbackReason {
    fn is_of(&self, instance: InstanceId) -> bool {
        (self.index, self.generation) == (instance.index, instance.generation)
    }
}

impl Lasting {
    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        *self == Lasting::default()
    }
}
