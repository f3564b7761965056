//! Counters of events since the start, by worker.

use crate::config::Restart;
use crate::core::{Event, ExitStatus, Refusal, is_failure};
use crate::plan::WorkerId;
use std::collections::BTreeMap;

/// The counters of all workers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters {
    workers: BTreeMap<WorkerId, WorkerCounters>,
    /// The number of successful reloads.
    pub reloads: u64,
}

/// The counters of one worker's instances and connections.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WorkerCounters {
    /// Processes that reached the program.
    pub starts: u64,
    /// Processes that ended.
    pub exits: Exits,
    /// Clients that started the worker.
    pub activations: u64,
    /// The number of log lines about a limit of starts or accepts that was reached; at most one a
    /// minute ([`Event::RateLimited`]).
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
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Exits {
    /// With status 0.
    pub code_ok: u64,
    /// With another status.
    pub code_error: u64,
    /// By a signal that counts as a clean end.
    pub signal_ok: u64,
    /// By another signal.
    pub signal_error: u64,
    /// Without having reached the program.
    pub launch: u64,
}

impl Counters {
    /// Removes the counters of a worker.
    pub fn forget(&mut self, worker: WorkerId) {
        self.workers.remove(&worker);
    }

    /// The counters of a worker.
    pub fn worker(&self, id: WorkerId) -> WorkerCounters {
        let known = self.workers.get(&id);
        known.copied().unwrap_or_default()
    }

    /// Counts what happened.
    pub fn observe(&mut self, event: &Event) {
        match event {
            Event::InstanceStarted { instance, .. } => {
                self.add(instance.worker, |count| &mut count.starts);
            }
            Event::LaunchFailed { instance, .. } => {
                self.add(instance.worker, |count| &mut count.exits.launch);
            }
            Event::InstanceExited {
                instance, status, ..
            } => self.add(instance.worker, |count| exit(&mut count.exits, *status)),
            Event::StopTimedOut { instance, .. } => {
                self.add(instance.worker, |count| &mut count.stop_timeouts);
            }
            Event::Activated { worker, .. } => self.add(*worker, |count| &mut count.activations),
            Event::RateLimited { worker, .. } => {
                self.add(*worker, |count| &mut count.rate_limited);
            }
            Event::ConnectionRefused { worker, why, .. } => {
                self.add(*worker, |count| match why {
                    Refusal::Connections { .. } => &mut count.refused_all,
                    Refusal::OfSource { .. } => &mut count.refused_source,
                });
            }
            Event::AcceptPaused { worker, .. } => {
                self.add(*worker, |count| &mut count.accept_pauses);
            }
            Event::StartTimedOut { instance, .. } => {
                self.add(instance.worker, |count| &mut count.start_timeouts);
            }
            Event::WatchdogTimedOut { instance, .. } => {
                self.add(instance.worker, |count| &mut count.watchdog_timeouts);
            }
            Event::RolloutDone { worker, .. } => self.add(*worker, |count| &mut count.rollouts),
            Event::RolledBack { worker, .. } => self.add(*worker, |count| &mut count.rollbacks),
            Event::Replanned => self.reloads = self.reloads.saturating_add(1),
            // Either told by another event as well, or nothing that is counted.
            Event::InstanceStarting { .. }
            | Event::InstanceFailed { .. }
            | Event::WorkerFailed { .. }
            | Event::StopRequested { .. }
            | Event::StopHurried { .. }
            | Event::Stopping { .. }
            | Event::ListenerAwaited { .. }
            | Event::ListenerOverdue { .. }
            | Event::ListenerMissing { .. }
            | Event::ListenerBound { .. }
            | Event::ListenerDamaged { .. }
            | Event::ListenerRepaired { .. }
            | Event::ListenerRefuses { .. }
            | Event::ListenerVacated { .. }
            | Event::RepairFutile { .. }
            | Event::InstanceRefreshed { .. }
            | Event::RepairFailed { .. }
            | Event::NobodyTaken { .. }
            | Event::ConnectionsFull { .. }
            | Event::SourceFull { .. }
            | Event::ConnectionTimedOut { .. }
            | Event::ConnectionsFailing { .. }
            | Event::InstanceReady { .. }
            | Event::ReadinessHidden { .. }
            | Event::SaysStopping { .. }
            | Event::MainExited { .. }
            | Event::InstanceReloaded { .. }
            | Event::HookFailed { .. }
            | Event::Up { .. }
            | Event::RolloutStarted { .. }
            | Event::ReplanDone { .. }
            | Event::AllStopped => {}
        }
    }

    fn add(&mut self, worker: WorkerId, which: impl FnOnce(&mut WorkerCounters) -> &mut u64) {
        let count = which(self.workers.entry(worker).or_default());
        *count = count.saturating_add(1);
    }
}

/// The counter of an end; what is an error is what the restart policy `on-failure` takes for one.
fn exit(exits: &mut Exits, status: ExitStatus) -> &mut u64 {
    match (status, is_failure(status, &Restart::default())) {
        (ExitStatus::Code(_), false) => &mut exits.code_ok,
        (ExitStatus::Code(_), true) => &mut exits.code_error,
        (ExitStatus::Signal { .. }, false) => &mut exits.signal_ok,
        (ExitStatus::Signal { .. }, true) => &mut exits.signal_error,
    }
}
