//! Whether a client of the control socket is in the sandbox of a worker.
//!
//! A sandbox hides the file of the socket that was there when the worker was started. Another that takes its
//! place, after it was removed or after a start of listend that the worker has outlived, is not hidden from it.

use crate::shell::process::Processes;
use procfs::process::Process;
use std::fs;

/// So many parents are gone through: nobody has as many, and a loop would not end.
const MOST_PARENTS: usize = 64;

/// Where those come from who may be in a sandbox.
#[derive(Clone, Copy)]
pub(super) struct Origin<'a> {
    /// The processes of workers.
    pub(super) processes: &'a Processes,
    /// Who started listend and keeps its descriptors, if anybody does: a guard, or the service manager.
    pub(super) keeper: Option<i32>,
}

impl Origin<'_> {
    /// Whether this process is a worker's in a mount namespace of its own. One that is gone may have been.
    pub(super) fn is_of(self, pid: i32) -> bool {
        // Of one outside of this PID namespace there is no number, and no worker is there.
        pid != 0 && is_elsewhere(pid) && self.has_come_from_here(pid)
    }

    /// Whether a process descends from a worker, as far as its parents tell. What a worker has left behind has
    /// come to listend, or to its keeper. Whoever else started listend has other children, too: a shell.
    fn has_come_from_here(self, pid: i32) -> bool {
        let own = std::process::id() as i32;
        let keeper = self.keeper.filter(|keeper| *keeper > 1);
        let mut at = pid;
        for _ in 0..MOST_PARENTS {
            let stat = Process::new(at).and_then(|process| process.stat());
            let Ok(stat) = stat else {
                return true;
            };
            let is_known = self.processes.by_pid(at).is_some()
                || self.processes.by_session(stat.session).is_some();
            if is_known || stat.ppid == own || Some(stat.ppid) == keeper {
                return true;
            }
            if stat.ppid <= 1 {
                return false;
            }
            at = stat.ppid;
        }
        true
    }
}

fn is_elsewhere(pid: i32) -> bool {
    let own = fs::read_link("/proc/self/ns/mnt");
    match (own, fs::read_link(format!("/proc/{pid}/ns/mnt"))) {
        (Ok(own), Ok(its)) => own != its,
        _ => true,
    }
}
