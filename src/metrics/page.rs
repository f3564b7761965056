//! The values of one scrape.

use super::counters::WorkerCounters;
use crate::core::{ConnectionCounts, State};
use std::sync::Arc;
use std::time::Duration;

/// The values of one scrape, added row by row: see [`super::Rendering`].
#[derive(Debug, Default)]
pub struct Page {
    /// The row of listend itself.
    pub daemon: DaemonRow,
    /// The listeners in the order of the plan.
    pub listeners: Vec<ListenerRow>,
    /// The sockets in the order of the plan.
    pub sockets: Vec<SocketRow>,
    /// The workers in the order of the plan.
    pub workers: Vec<WorkerRow>,
}

/// The daemon. What /proc does not tell is left out.
#[derive(Debug, Default)]
pub struct DaemonRow {
    /// The start of listend, since the epoch.
    pub started: Duration,
    /// The number of open descriptors.
    pub open_fds: Option<u64>,
    /// The limit of open descriptors (RLIMIT_NOFILE).
    pub max_fds: Option<u64>,
    /// Resident memory in bytes.
    pub resident: Option<u64>,
    /// Virtual memory in bytes.
    pub virtual_memory: Option<u64>,
    /// User and system time in seconds.
    pub cpu: Option<f64>,
    /// The number of successful reloads.
    pub reloads: u64,
    /// The notifications of workers.
    pub notices: Notices,
}

/// The number of notifications (sd_notify(3)), by result.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Notices {
    /// Notifications that were understood.
    pub taken: u64,
    /// Understood in part.
    pub malformed: u64,
    /// Dropped: of somebody who may tell nothing.
    pub foreign: u64,
    /// Dropped: too long, or without room for its descriptors.
    pub truncated: u64,
}

/// The values of a listener.
#[derive(Debug)]
pub struct ListenerRow {
    /// The name in the configuration.
    pub name: Arc<str>,
    /// Whether every socket of it is bound and takes clients.
    pub is_up: bool,
}

/// The values of a socket. Those that the kernel does not have for its kind are `None`.
#[derive(Debug)]
pub struct SocketRow {
    /// The listener's name.
    pub listener: Arc<str>,
    /// The index of the socket in the listener, from 0: two may have the same address (SO_REUSEPORT).
    pub socket: u32,
    /// The address that the socket is bound to.
    pub address: String,
    /// The number of connections or messages that wait.
    pub depth: Option<u64>,
    /// The largest number of connections or messages that may wait.
    pub limit: Option<u64>,
    /// The number of bytes that wait, where the kernel counts bytes.
    pub bytes: Option<u64>,
    /// The largest number of bytes that may wait.
    pub bytes_limit: Option<u64>,
    /// The number of packets of clients that the kernel has dropped.
    pub drops: Option<u64>,
}

/// The values of a worker.
#[derive(Debug)]
pub struct WorkerRow {
    /// The name in the configuration.
    pub name: String,
    /// The number of instances, or of processes of connections, by state.
    pub states: States,
    /// The longest time until one that crashed is started again; zero if none is to be.
    pub backoff: Duration,
    /// The counters of the worker.
    pub counters: WorkerCounters,
    /// The connections of a per-connection worker.
    pub connections: Option<ConnectionCounts>,
    /// Whether the last rollout of the worker was rolled back.
    pub is_degraded: bool,
}

/// The number of instances by [`State`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct States {
    /// The number in [`State::Waiting`].
    pub waiting: u64,
    /// The number in [`State::Starting`].
    pub starting: u64,
    /// The number in [`State::Running`].
    pub running: u64,
    /// The number in [`State::Stopping`].
    pub stopping: u64,
    /// The number in [`State::Backoff`].
    pub backoff: u64,
    /// The number in [`State::Failed`].
    pub failed: u64,
    /// The number in [`State::Stopped`].
    pub stopped: u64,
}

impl States {
    /// Counts one more.
    pub fn add(&mut self, state: &State) {
        let count = match state {
            State::Waiting => &mut self.waiting,
            State::Preparing { .. } | State::Starting { .. } | State::Activating { .. } => {
                &mut self.starting
            }
            State::Running { .. } => &mut self.running,
            State::Stopping { .. } | State::Cleaning { .. } => &mut self.stopping,
            State::Backoff { .. } => &mut self.backoff,
            State::Failed { .. } => &mut self.failed,
            State::Stopped => &mut self.stopped,
        };
        *count = count.saturating_add(1);
    }
}
