//! What was found at one scrape.

use super::counters::WorkerCounters;
use crate::core::{ConnectionCounts, State};
use std::sync::Arc;
use std::time::Duration;

/// Everything that one scrape shows. Filled row by row: see [`super::Rendering`].
#[derive(Debug, Default)]
pub struct Page {
    /// listend itself.
    pub daemon: DaemonRow,
    /// In the order of the plan.
    pub listeners: Vec<ListenerRow>,
    /// In the order of the plan.
    pub sockets: Vec<SocketRow>,
    /// In the order of the plan.
    pub workers: Vec<WorkerRow>,
}

/// The daemon. What /proc does not tell is left out.
#[derive(Debug, Default)]
pub struct DaemonRow {
    /// When it started, since the epoch.
    pub started: Duration,
    /// How many descriptors it has open.
    pub open_fds: Option<u64>,
    /// How many it may have (RLIMIT_NOFILE).
    pub max_fds: Option<u64>,
    /// Resident memory in bytes.
    pub resident: Option<u64>,
    /// Virtual memory in bytes.
    pub virtual_memory: Option<u64>,
    /// User and system time in seconds.
    pub cpu: Option<f64>,
    /// How often the configuration was read again and taken.
    pub reloads: u64,
    /// What workers have said about themselves.
    pub notices: Notices,
}

/// How many messages of workers there were (sd_notify(3)), by what became of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Notices {
    /// Understood.
    pub taken: u64,
    /// Understood in part.
    pub malformed: u64,
    /// Dropped: of somebody who may tell nothing.
    pub foreign: u64,
    /// Dropped: too long, or without room for its descriptors.
    pub truncated: u64,
}

/// A listener.
#[derive(Debug)]
pub struct ListenerRow {
    /// Its name.
    pub name: Arc<str>,
    /// Whether every socket of it is bound and takes clients.
    pub is_up: bool,
}

/// One socket of a listener. What the kernel does not tell of its kind is `None`.
#[derive(Debug)]
pub struct SocketRow {
    /// The listener's name.
    pub listener: Arc<str>,
    /// Which of its sockets, from 0: two may have the same address (SO_REUSEPORT).
    pub socket: u32,
    /// What it is bound to.
    pub address: String,
    /// How many connections or messages wait.
    pub depth: Option<u64>,
    /// How many may.
    pub limit: Option<u64>,
    /// How many bytes wait, where the kernel counts those.
    pub bytes: Option<u64>,
    /// How many may.
    pub bytes_limit: Option<u64>,
    /// How many packets of clients the kernel has dropped.
    pub drops: Option<u64>,
}

/// A worker.
#[derive(Debug)]
pub struct WorkerRow {
    /// Its name.
    pub name: String,
    /// Its instances and, of one that gets single connections, the processes of those.
    pub states: States,
    /// The longest time until one that crashed is started again; zero if none is to be.
    pub backoff: Duration,
    /// What has happened to it.
    pub counters: WorkerCounters,
    /// Of one whose connections are accepted here.
    pub connections: Option<ConnectionCounts>,
    /// Whether its last rollout went back.
    pub is_degraded: bool,
}

/// How many are in which [`State`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct States {
    /// [`State::Waiting`].
    pub waiting: u64,
    /// [`State::Starting`].
    pub starting: u64,
    /// [`State::Running`].
    pub running: u64,
    /// [`State::Stopping`].
    pub stopping: u64,
    /// [`State::Backoff`].
    pub backoff: u64,
    /// [`State::Failed`].
    pub failed: u64,
    /// [`State::Stopped`].
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
