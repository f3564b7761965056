//! What is under way because somebody has asked for it.

use super::types::{Bad, ProcessId, RunId, Ticket};
use crate::plan::WorkerId;
use std::collections::BTreeSet;

/// A command under way.
#[derive(Debug, Clone)]
pub(super) struct Job {
    pub(super) waiter: Waiter,
    pub(super) goal: Goal,
    /// The runs that are not where they are wanted yet.
    pub(super) pending: BTreeSet<RunId>,
    pub(super) done: u32,
    pub(super) of: u32,
}

/// A client that waits for a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waiter {
    Asked(Ticket),
    /// The reload that is under way.
    Reload,
}

/// Where runs are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Goal {
    /// Running their program.
    Up,
    /// Without a process.
    Down,
}

/// What was done to give a worker another number of instances: the runs that are on their way.
#[derive(Debug, Clone)]
#[must_use = "somebody may wait for it"]
pub(super) struct Resized {
    pub(super) goal: Goal,
    pub(super) runs: Vec<RunId>,
}

/// A request under way.
#[derive(Debug, Clone)]
pub(super) struct Reloading {
    pub(super) ticket: Ticket,
    pub(super) pending: BTreeSet<Pending>,
    pub(super) bad: Vec<Bad>,
    pub(super) of: u32,
}

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Pending {
    /// The end of a command.
    Command(ProcessId),
    /// What this instance says.
    Run(RunId),
}

/// A reload that is not over.
#[derive(Debug, Clone)]
pub(super) struct Replanning {
    pub(super) ticket: Option<Ticket>,
    pub(super) pending: BTreeSet<WorkerId>,
    /// The new workers among them, which are done when their instances are ready.
    pub(super) added: BTreeSet<WorkerId>,
    /// The workers for which everything has happened that was wanted.
    pub(super) well: BTreeSet<WorkerId>,
    /// Of each worker that it did not change as it should, in the order in which that was found.
    pub(super) bad: Vec<Bad>,
    pub(super) done: u32,
    pub(super) of: u32,
}
