//! The commands around instances that run.

use super::time::Mono;
use super::types::{HookKind, InstanceId, ProcessId, RunId};
use crate::stage::LaunchFailure;
use std::collections::BTreeMap;
use std::time::Duration;

/// The commands that run.
#[derive(Debug, Clone, Default)]
pub(super) struct Helpers {
    pub(super) running: BTreeMap<ProcessId, Helper>,
}

/// One of them.
#[derive(Debug, Clone, Copy)]
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
