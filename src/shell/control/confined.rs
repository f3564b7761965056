//! Whether a client of the control socket is in the sandbox of a worker.
//!
//! A sandbox hides the file of the socket that was there when the worker was started. Another that takes its
//! place, after it was removed or after a start of listend that the worker has outlived, is not hidden from it.

use crate::shell::process::Processes;
use nix::unistd::getppid;
use procfs::process::Process;
use std::fs;

/// So many parents are gone through: nobody has as many, and a loop would not end.
const MOST_PARENTS: usize = 64;

/// Whether this process is a worker's in a mount namespace of its own. One that is gone may have been.
pub(super) fn is_confined(pid: i32, processes: &Processes) -> bool {
    // Of one outside of this PID namespace there is no number, and no worker is there.
    pid != 0 && is_elsewhere(pid) && comes_from_here(pid, processes)
}

fn is_elsewhere(pid: i32) -> bool {
    let own = fs::read_link("/proc/self/ns/mnt");
    match (own, fs::read_link(format!("/proc/{pid}/ns/mnt"))) {
        (Ok(own), Ok(its)) => own != its,
        _ => true,
    }
}

/// Whether a process descends from a worker, as far as its parents tell. What a worker has left behind has
/// come to listend, or to the guard above it.
fn comes_from_here(pid: i32, processes: &Processes) -> bool {
    let own = std::process::id() as i32;
    let above = getppid().as_raw();
    let mut at = pid;
    for _ in 0..MOST_PARENTS {
        let stat = Process::new(at).and_then(|process| process.stat());
        let Ok(stat) = stat else {
            return true;
        };
        let is_known =
            processes.by_pid(at).is_some() || processes.by_session(stat.session).is_some();
        if is_known || stat.ppid == own || (stat.ppid == above && above > 1) {
            return true;
        }
        if stat.ppid <= 1 {
            return false;
        }
        at = stat.ppid;
    }
    true
}
