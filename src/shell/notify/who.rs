//! Whose process somebody is who is not the main process of an instance.
//!
//! A worker leads a session of its own, so that whoever is in it is the worker's. Who has left it is
//! found by the parents. Of a process that is reaped nothing can be found out any more.

use crate::core::ProcessId;
use crate::shell::process::Processes;
use procfs::process::{ProcState, Process};

/// So many parents are gone through: nobody has as many, and a loop would not end.
const MOST_PARENTS: usize = 64;

/// What /proc says about a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FoundProcess {
    /// Its parent.
    pub parent: i32,
    /// Its session.
    pub session: i32,
    /// Whether it has ended and is not reaped.
    pub is_dead: bool,
}

pub(super) fn find(pid: i32) -> Option<FoundProcess> {
    let stat = Process::new(pid).ok()?.stat().ok()?;
    Some(FoundProcess {
        parent: stat.ppid,
        session: stat.session,
        is_dead: matches!(stat.state().ok()?, ProcState::Zombie | ProcState::Dead),
    })
}

/// The user that a process runs as.
pub(super) fn user(pid: i32) -> Option<u32> {
    let status = Process::new(pid).ok()?.status().ok()?;
    Some(status.ruid)
}

/// Of which instance a process is.
pub(super) fn family(pid: i32, processes: &Processes) -> Option<ProcessId> {
    let own = std::process::id() as i32;
    let mut at = pid;
    for _ in 0..MOST_PARENTS {
        if let Some(known) = processes.by_pid(at) {
            return Some(known);
        }
        let found = find(at)?;
        if let Some(known) = processes.by_session(found.session) {
            return Some(known);
        }
        if found.parent <= 1 || found.parent == own {
            return None;
        }
        at = found.parent;
    }
    None
}
