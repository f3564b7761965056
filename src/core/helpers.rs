//! The commands around instances that run.

use super::snapshot::record::Lent;
use super::time::Mono;
use super::types::{HookKind, InstanceId, ProcessId, RunId};
use crate::stage::LaunchFailure;
use std::collections::BTreeMap;
use std::time::Duration;

/// The commands that run.
#[derive(Debug, Clone, Default)]
pub(super) struct Helpers {
    running: BTreeMap<ProcessId, Helper>,
    /// Those that may have changed.
    lent: Lent<ProcessId>,
}

/// One of them.
#[derive(Debug, Clone)]
pub(super) struct Helper {
    /// The instance that it is for; gone by now if that did not wait for it.
    pub(super) run: RunId,
    pub(super) instance: InstanceId,
    pub(super) kind: HookKind,
    pub(super) timeout: Duration,
    /// When its time is over.
    pub(super) until: Mono,
    /// Whether there is a process.
    pub(super) exists: bool,
    pub(super) failed: Option<LaunchFailure>,
    /// SIGKILL was sent, or will be as soon as there is a process to send it to.
    pub(super) killed: bool,
    pub(super) timed_out: bool,
}

impl Helper {
    pub(super) fn is_beside(&self, run: RunId, instance: InstanceId) -> bool {
        let is_its = self.run == run && self.instance == instance;
        is_its && matches!(self.kind, HookKind::AfterReady | HookKind::Reload)
    }
}

impl Helpers {
    pub(super) fn get(&self, process: ProcessId) -> Option<&Helper> {
        self.running.get(&process)
    }

    pub(super) fn get_mut(&mut self, process: ProcessId) -> Option<&mut Helper> {
        self.lent.note(process);
        self.running.get_mut(&process)
    }

    pub(super) fn insert(&mut self, process: ProcessId, helper: Helper) {
        self.lent.note(process);
        self.running.insert(process, helper);
    }

    pub(super) fn remove(&mut self, process: ProcessId) -> Option<Helper> {
        self.lent.over(process);
        self.running.remove(&process)
    }

    /// All of them, by their processes.
    pub(super) fn running(&self) -> impl Iterator<Item = (ProcessId, &Helper)> {
        self.running
            .iter()
            .map(|(process, helper)| (*process, helper))
    }

    /// Notes which of them may have changed, from now on.
    pub(super) fn record(&mut self) {
        self.lent.record(self.running.keys().copied());
    }

    /// It was told that this is gone.
    pub(super) fn told_gone(&mut self, process: ProcessId) {
        self.lent.forget(process);
    }

    pub(super) fn take_lent(&mut self) -> Vec<ProcessId> {
        self.lent.take()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    /// One that runs beside an instance: when it was ready, or to have it read its configuration.
    pub(super) fn beside(&self, run: RunId, instance: InstanceId) -> Option<ProcessId> {
        let mut all = self.running.iter();
        let found = all.find(|(_, helper)| helper.is_beside(run, instance));
        found.map(|(process, _)| *process)
    }

    /// The same, one that was not killed.
    pub(super) fn lives_beside(&self, run: RunId, instance: InstanceId) -> Option<ProcessId> {
        let mut all = self.running.iter();
        let found = all.find(|(_, one)| !one.killed && one.is_beside(run, instance));
        found.map(|(process, _)| *process)
    }
}
