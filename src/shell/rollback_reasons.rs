//! Why instances have failed, in the words of the log, for whoever asks later or waits for them.

mod note;

use crate::core::InstanceId;
use crate::plan::WorkerId;
use std::collections::HashMap;

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
    reloads: HashMap<WorkerId, (InstanceId, String)>,
}

#[derive(Debug)]
struct RollbackReason {
    instance: InstanceId,
    words: String,
    /// It has ended by itself.
    by_itself: bool,
    /// It looks as if it could not run beside the one that it was to replace.
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
        (rollback_reason.instance == instance).then_some(rollback_reason.words.as_str())
    }

    /// Why an instance did not read its configuration again.
    pub(super) fn of_reload(&self, instance: InstanceId) -> Option<&str> {
        let (of, words) = self.reloads.get(&instance.worker)?;
        (*of == instance).then_some(words.as_str())
    }

    /// Why the processes of connections fail.
    pub(super) fn of_connections(&self, worker: WorkerId) -> Option<&str> {
        self.connections.get(&worker).map(String::as_str)
    }

    pub(super) fn forget_reload(&mut self, worker: WorkerId) {
        self.reloads.remove(&worker);
    }

    /// The worker is another one.
    pub(super) fn forget(&mut self, worker: WorkerId) {
        self.rollouts.remove(&worker);
        self.connections.remove(&worker);
        self.ends.retain(|instance, _| instance.worker != worker);
        self.reloads.remove(&worker);
    }
}
