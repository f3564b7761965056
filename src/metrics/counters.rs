//! Counters of events since the start, by worker.

use crate::config::Restart;
use crate::core::{
    DaemonEvent, Event, ExitStatus, ProcessEvent, Refusal, RolloutEvent, WorkerEvent, is_failure,
};
use crate::plan::WorkerId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::LazyLock;

/// The counters of all workers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters {
    workers: BTreeMap<WorkerId, WorkerCounters>,
    /// The number of successful reloads.
    pub reloads: u64,
}

/// The counters of one worker's instances and connections.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WorkerCounters {
    /// Processes that reached the program.
    pub starts: u64,
    /// Processes that ended.
    pub exits: Exits,
    /// Clients that started the worker.
    pub activations: u64,
    /// The number of times that the number of instances followed the queues.
    pub scalings: u64,
    /// The number of times that the worker was stopped because nobody used it.
    pub idle_stops: u64,
    /// The number of log lines about a limit of starts or accepts that was reached; at most one a
    /// minute ([`WorkerEvent::RateLimited`]).
    pub rate_limited: u64,
    /// Connections closed because of `max_connections`.
    pub refused_all: u64,
    /// Connections closed because of `max_connections_per_source`.
    pub refused_source: u64,
    /// The number of times that accept(2) found no descriptors or memory.
    pub accept_pauses: u64,
    /// Processes that had to be killed, because they did not stop in time.
    pub stop_timeouts: u64,
    /// Processes that were ended because they were not ready in time.
    pub start_timeouts: u64,
    /// Processes that were ended because they gave no sign of life.
    pub watchdog_timeouts: u64,
    /// Generations that have taken over.
    pub rollouts: u64,
    /// Generations that were given up.
    pub rollbacks: u64,
}

/// The ends of processes by kind. The codes and signals themselves are in the log: as labels they would
/// be hundreds of series.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Exits {
    /// Exits with status 0.
    pub code_ok: u64,
    /// Exits with another status.
    pub code_error: u64,
    /// Ends by a signal that counts as a clean end.
    pub signal_ok: u64,
    /// Ends by another signal.
    pub signal_error: u64,
    /// Launches that did not reach the program.
    pub launch: u64,
}

impl Counters {
    /// Removes the counters of a worker.
    pub fn forget(&mut self, worker: WorkerId) {
        self.workers.remove(&worker);
    }

    /// Goes on with what another process has counted.
    pub fn restore(&mut self, worker: WorkerId, counters: WorkerCounters) {
        self.workers.insert(worker, counters);
    }

    /// The counters of all workers that have any.
    pub fn workers(&self) -> impl Iterator<Item = (WorkerId, WorkerCounters)> {
        self.workers.iter().map(|(id, one)| (*id, *one))
    }

    /// The counters of a worker.
    pub fn worker(&self, id: WorkerId) -> WorkerCounters {
        let known = self.workers.get(&id);
        known.copied().unwrap_or_default()
    }

    /// Counts what happened.
    pub fn observe(&mut self, event: &Event) {
        match *event {
            Event::Daemon(DaemonEvent::Replanned) => self.reloads = self.reloads.saturating_add(1),
            Event::Worker(worker, event) => self.observe_worker(worker, event),
            Event::Rollout(worker, event) => self.add(worker, |count| match event {
                RolloutEvent::Started { .. } => None,
                RolloutEvent::Done { .. } => Some(&mut count.rollouts),
                RolloutEvent::RolledBack { .. } => Some(&mut count.rollbacks),
            }),
            Event::Process(instance, _, ref event) => self.observe_process(instance.worker, event),
            // Either told by another event as well, or nothing that is counted.
            Event::Daemon(_) | Event::Listener(..) | Event::Socket { .. } | Event::Instance(..) => {
            }
        }
    }

    fn observe_worker(&mut self, worker: WorkerId, event: WorkerEvent) {
        self.add(worker, |count| match event {
            WorkerEvent::Activated { .. } => Some(&mut count.activations),
            WorkerEvent::Scaled { .. } => Some(&mut count.scalings),
            WorkerEvent::Unused { .. } => Some(&mut count.idle_stops),
            WorkerEvent::RateLimited { .. } => Some(&mut count.rate_limited),
            WorkerEvent::ConnectionRefused { why, .. } => Some(match why {
                Refusal::Connections { .. } => &mut count.refused_all,
                Refusal::OfSource { .. } => &mut count.refused_source,
            }),
            WorkerEvent::AcceptPaused { .. } => Some(&mut count.accept_pauses),
            WorkerEvent::Failed
            | WorkerEvent::ConnectionsFull { .. }
            | WorkerEvent::SourceFull { .. }
            | WorkerEvent::ConnectionsFailing { .. } => None,
        });
    }

    fn observe_process(&mut self, worker: WorkerId, event: &ProcessEvent) {
        self.add(worker, |count| match event {
            ProcessEvent::Started => Some(&mut count.starts),
            ProcessEvent::LaunchFailed { .. } => Some(&mut count.exits.launch),
            ProcessEvent::Exited { status, .. } => Some(exit(&mut count.exits, *status)),
            ProcessEvent::StopTimedOut { .. } => Some(&mut count.stop_timeouts),
            ProcessEvent::StartTimedOut { .. } => Some(&mut count.start_timeouts),
            ProcessEvent::WatchdogTimedOut { .. } => Some(&mut count.watchdog_timeouts),
            ProcessEvent::Starting
            | ProcessEvent::Ready { .. }
            | ProcessEvent::ReadinessHidden
            | ProcessEvent::SaysStopping { .. }
            | ProcessEvent::MainExited { .. }
            | ProcessEvent::Reloaded { .. }
            | ProcessEvent::HookFailed { .. }
            | ProcessEvent::Stopping { .. }
            | ProcessEvent::ConnectionTimedOut { .. } => None,
        });
    }

    fn add(
        &mut self,
        worker: WorkerId,
        which: impl FnOnce(&mut WorkerCounters) -> Option<&mut u64>,
    ) {
        if let Some(count) = which(self.workers.entry(worker).or_default()) {
            *count = count.saturating_add(1);
        }
    }
}

/// Made once: its values are read from the table of keys.
static DEFAULT: LazyLock<Restart> = LazyLock::new(Restart::default);

/// The counter of an end; what is an error is what the restart policy `on-failure` takes for one.
fn exit(exits: &mut Exits, status: ExitStatus) -> &mut u64 {
    match (status, is_failure(status, &DEFAULT)) {
        (ExitStatus::Code(_) | ExitStatus::Unknown, false) => &mut exits.code_ok,
        (ExitStatus::Code(_) | ExitStatus::Unknown, true) => &mut exits.code_error,
        (ExitStatus::Signal { .. }, false) => &mut exits.signal_ok,
        (ExitStatus::Signal { .. }, true) => &mut exits.signal_error,
    }
}
