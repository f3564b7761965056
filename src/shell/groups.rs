//! The control groups of workers with limits: killed and removed here, made by the processes that enter them.
//!
//! What writes to them is a copy of this process: the kernel has one lock for all groups of the machine. Here
//! paths are looked up, and counters read. A group is known by the name of its instance and the process id that
//! it was started with, so that nothing needs to be kept: a listend that goes on where another was finds it again.

use super::clock;
use super::definitions::Definitions;
use super::process::{Process, Processes};
use super::reserve::Reserve;
use crate::cgroup::{self, Known, Obstacle, Tree};
use crate::core::{ExitStatus, Mono, ProcessId};
use crate::plan::WorkerPlan;
use crate::sys::{self, Wait};
use crate::worker;
use nix::sys::signal::Signal;
use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

/// Groups that are done with wait so long for others: there may be thousands of connections a second.
const TOGETHER: Duration = Duration::from_millis(100);

/// When it is tried again, if there was no descriptor or process to be had.
const AGAIN: Duration = Duration::from_secs(1);

/// How long removing them may take when listend ends, in milliseconds.
const LONGEST: i32 = 10_000;

/// What is to be done with groups.
#[derive(Debug, Default)]
pub(super) struct Groups {
    /// Where they are, once that was needed.
    tree: Option<Option<Tree>>,
    /// Those whose main process and process group have ended.
    over: Vec<Known>,
    /// Those of a listend before are to be looked for.
    left: Option<LeftGroups>,
    /// They could not be removed, and that was told.
    is_told: bool,
    /// When they are removed.
    due: Option<Mono>,
    /// Who was killed for want of memory, and which limits it had, until that is told.
    killed: HashMap<ProcessId, String>,
}

/// Which groups a listend before has left: it may have been done with some and not have removed them.
#[derive(Debug)]
struct LeftGroups {
    /// The workers that have groups.
    workers: BTreeSet<String>,
    /// The groups of the processes that there are.
    used: BTreeSet<String>,
    /// The instances that are not what they were started as, so that their group is called after another process.
    spared: Vec<(String, u32)>,
}

impl LeftGroups {
    fn has(&self, name: &str) -> bool {
        let is_of = |(worker, index): &(String, u32)| cgroup::is_of(name.as_ref(), worker, *index);
        let mut workers = self.workers.iter();
        workers.any(|worker| cgroup::is_of_worker(name, worker))
            && !self.used.contains(name)
            && !self.spared.iter().any(is_of)
    }
}

impl Groups {
    fn tree(&mut self) -> Option<&Tree> {
        if self.tree.is_none() {
            self.tree = match Tree::own() {
                Ok(tree) => Some(Some(tree)),
                Err(Obstacle::NoTree(_)) => Some(None),
                // It cannot be known without a descriptor.
                Err(_) => None,
            };
        }
        self.tree.as_ref()?.as_ref()
    }

    /// Finds out where they are while there are descriptors, if this worker has some.
    pub(super) fn find(&mut self, worker: &WorkerPlan) {
        if Groups::are_wanted(worker) {
            let _none_is_no_failure = self.tree();
        }
    }

    fn are_wanted(worker: &WorkerPlan) -> bool {
        let limits = worker.sandbox.as_ref().map(|one| &one.limits);
        limits.is_some_and(|limits| !limits.is_empty())
    }

    /// The group of a process, if it has one of its own.
    fn name(worker: &WorkerPlan, process: &Process) -> Option<String> {
        if !Groups::are_wanted(worker) {
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
    pub(super) fn kill(&mut self, definitions: &Definitions, process: &Process, reserve: Reserve) {
        let definition = definitions.get(process.instance.worker, process.revision);
        if !Groups::are_wanted(&definition.plan) {
            return;
        }
        let _reserve = reserve.lend();
        let name = Groups::name(&definition.plan, process);
        let known = name.and_then(|name| self.tree()?.known(&name));
        let Some(known) = known else { return };
        // A kernel that cannot: the process group is all that can be reached.
        let killed = sys::do_in_a_copy(Wait::No, || known.kill().unwrap_or_default());
        if let Err(error) = killed {
            log::warn!(
                "cannot kill the control group of {}.{}: {}",
                definition.plan.name,
                process.instance.index,
                worker::explain_fork(&error)
            );
        }
    }

    /// Notes that nothing is left of a process and its process group.
    pub(super) fn ended(
        &mut self,
        definitions: &Definitions,
        (id, process): (ProcessId, &Process),
        status: ExitStatus,
        reserve: Reserve,
    ) {
        let definition = definitions.get(process.instance.worker, process.revision);
        let worker = &definition.plan;
        if !Groups::are_wanted(worker) {
            return;
        }
        let _reserve = reserve.lend();
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
        self.due.get_or_insert(clock::now() + TOGETHER);
    }

    /// The `memory_max` of one that was killed for want of memory; asked once, when its end is told.
    pub(super) fn out_of_memory(&mut self, process: ProcessId) -> Option<String> {
        self.killed.remove(&process)
    }

    /// When [`Groups::remove`] has something to do.
    pub(super) fn deadline(&self) -> Option<Mono> {
        self.due
    }

    /// Has the groups looked for that another listend has left, before this one goes on with its processes.
    pub(super) fn look_for_left(
        &mut self,
        definitions: &Definitions,
        processes: &Processes,
        now: Mono,
    ) {
        let plans = definitions.all().map(|(.., one)| &one.plan);
        let wanted = plans.filter(|plan| Groups::are_wanted(plan));
        let mut left = LeftGroups {
            workers: wanted.map(|plan| plan.name.clone()).collect(),
            used: BTreeSet::new(),
            spared: Vec::new(),
        };
        if left.workers.is_empty() || self.tree().is_none() {
            return;
        }
        for (_, process) in processes.iter() {
            let definition = definitions.get(process.instance.worker, process.revision);
            let worker = &definition.plan.name;
            match process.replaced {
                Some(_) => left.spared.push((worker.clone(), process.instance.index)),
                None => left.used.extend(Groups::name(&definition.plan, process)),
            }
        }
        self.left = Some(left);
        self.due.get_or_insert(now + TOGETHER);
    }

    /// Kills what is left in groups that are done with, and removes them.
    pub(super) fn remove(&mut self, now: Mono, reserve: Reserve) {
        self.killed.clear();
        if self.due.is_some_and(|due| due <= now) {
            self.due = None;
            if !self.remove_with(Wait::No, reserve) {
                self.due = Some(now + AGAIN);
            }
        }
    }

    /// The same at the end.
    pub(super) fn remove_all(&mut self, reserve: Reserve) {
        if !self.over.is_empty() || self.left.is_some() {
            let _or_they_stay = self.remove_with(Wait::ForIt(LONGEST), reserve);
        }
    }

    /// Whether that was begun; what was not is still to be done.
    fn remove_with(&mut self, wait: Wait, reserve: Reserve) -> bool {
        let Some(Some(tree)) = &self.tree else {
            return true;
        };
        let _reserve = reserve.lend();
        let removed = sys::do_in_a_copy(wait, || {
            let left = self.left.as_ref();
            let left = left.map(|left| tree.left(|name| left.has(name)));
            let over: Vec<Known> = self
                .over
                .iter()
                .cloned()
                .chain(left.into_iter().flatten())
                .collect();
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
            if !std::mem::replace(&mut self.is_told, true) {
                log::warn!(
                    "cannot remove control groups below {}: {}; it is tried again each second",
                    tree.base.display(),
                    worker::explain_fork(&error)
                );
            }
            return false;
        }
        self.over.clear();
        self.left = None;
        self.is_told = false;
        true
    }
}
