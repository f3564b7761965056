//! The control groups of workers with limits: killed and removed here, made by the processes that enter them.
//!
//! What writes to them is a copy of this process: the kernel has one lock for all groups of the machine. Here
//! paths are looked up, and counters read. A group is known by the name of its instance and the process id that
//! it was started with, so that nothing needs to be kept: a listend that goes on where another was finds it again.

use super::definitions::Definitions;
use super::process::Process;
use crate::cgroup::{self, Known, Tree};
use crate::core::{ExitStatus, Mono, ProcessId};
use crate::plan::WorkerPlan;
use crate::sys::{self, Wait};
use nix::sys::signal::Signal;
use std::collections::HashMap;
use std::time::Duration;

/// Groups that are done with wait so long for others: there may be thousands of connections a second.
const TOGETHER: Duration = Duration::from_millis(100);

/// How long removing them may take when listend ends, in milliseconds.
const LONGEST: i32 = 10_000;

/// What is to be done with groups.
#[derive(Debug, Default)]
pub(super) struct Groups {
    /// Where they are, once that was needed.
    tree: Option<Option<Tree>>,
    /// Those whose main process and process group have ended.
    over: Vec<Known>,
    /// When they are removed.
    due: Option<Mono>,
    /// Who was killed for want of memory, and which limits it had, until that is told.
    killed: HashMap<ProcessId, String>,
}

impl Groups {
    fn tree(&mut self) -> Option<&Tree> {
        self.tree.get_or_insert_with(|| Tree::own().ok()).as_ref()
    }

    /// The group of a process, if it has one of its own.
    fn name(worker: &WorkerPlan, process: &Process) -> Option<String> {
        let limits = &worker.sandbox.as_ref()?.limits;
        if limits.is_empty() {
            return None;
        }
        let index = process.instance.index;
        Some(match process.replaced {
            // Its number need not be the one of the beginning.
            Some(_) => cgroup::name_of_process(&worker.name, index, process.pid)?,
            None => cgroup::name(&worker.name, index, process.session),
        })
    }

    /// Kills everybody in the group of a process. Its process group was killed already: this reaches who has left
    /// that.
    pub(super) fn kill(&mut self, definitions: &Definitions, process: &Process) {
        let definition = definitions.get(process.instance.worker, process.revision);
        let name = Groups::name(&definition.plan, process);
        let known = name.and_then(|name| self.tree()?.known(&name));
        let Some(known) = known else { return };
        // A kernel that cannot: the process group is all that can be reached.
        let killed = sys::do_in_a_copy(Wait::No, || known.kill().unwrap_or_default());
        if let Err(error) = killed {
            log::warn!(
                "cannot kill the control group of {}.{}: {error}",
                definition.plan.name,
                process.instance.index
            );
        }
    }

    /// Notes that nothing is left of a process and its process group.
    pub(super) fn ended(
        &mut self,
        definitions: &Definitions,
        (id, process): (ProcessId, &Process),
        status: ExitStatus,
        now: Mono,
    ) {
        let definition = definitions.get(process.instance.worker, process.revision);
        let worker = &definition.plan;
        let Some(name) = Groups::name(worker, process) else {
            return;
        };
        let Some(tree) = self.tree() else { return };
        let Some(known) = tree.known(&name) else {
            return;
        };
        let is_killed = matches!(status, ExitStatus::Signal { number, .. }
            if number == Signal::SIGKILL as i32);
        if is_killed && cgroup::oom_kills(tree, &name) > 0 {
            let limit = worker
                .sandbox
                .as_ref()
                .and_then(|one| one.limits.value("memory_max"));
            self.killed.insert(id, limit.unwrap_or_default());
        }
        self.over.push(known);
        self.due.get_or_insert(now + TOGETHER);
    }

    /// The `memory_max` of one that was killed for want of memory; asked once, when its end is told.
    pub(super) fn out_of_memory(&mut self, process: ProcessId) -> Option<String> {
        self.killed.remove(&process)
    }

    /// When [`Groups::remove`] has something to do.
    pub(super) fn deadline(&self) -> Option<Mono> {
        self.due
    }

    /// Kills what is left in groups that are done with, and removes them.
    pub(super) fn remove(&mut self, now: Mono) {
        self.killed.clear();
        if self.due.is_some_and(|due| due <= now) {
            self.remove_with(Wait::No);
        }
    }

    /// The same at the end.
    pub(super) fn remove_all(&mut self) {
        if !self.over.is_empty() {
            self.remove_with(Wait::ForIt(LONGEST));
        }
    }

    fn remove_with(&mut self, wait: Wait) {
        self.due = None;
        let over = std::mem::take(&mut self.over);
        let Some(Some(tree)) = &self.tree else { return };
        let removed = sys::do_in_a_copy(wait, || {
            for known in &over {
                // Not before Linux 5.14; then it stays until it is empty.
                known.kill().unwrap_or_default();
            }
            for known in &over {
                known.wait_until_empty();
            }
            cgroup::remove_empty(&tree.base);
        });
        if let Err(error) = removed {
            log::warn!(
                "cannot remove control groups below {}: {error}",
                tree.base.display()
            );
        }
    }
}
