//! What a daemon that was killed has left: its workers, which fall to the guard (PR_SET_CHILD_SUBREAPER)
//! and serve on. The next daemon looks after them. Where there will be none, they are ended here.

use crate::sys;
use nix::libc::{SIGKILL, SIGTERM};
use std::fs;

/// The children of the guard beside the daemon.
#[derive(Debug, Default)]
pub(super) struct Orphans {
    /// Children of whatever program executed the guard: none of its business.
    strangers: Vec<i32>,
    /// Not reaped yet, so that each number is its own.
    left: Vec<i32>,
}

impl Orphans {
    pub(super) fn new() -> Orphans {
        Orphans {
            // There are none of the daemon's before it is started.
            strangers: children(),
            left: Vec::new(),
        }
    }

    /// A daemon has ended without stopping its workers.
    pub(super) fn look(&mut self) {
        self.left = children();
        // Nor one that closes descriptors for the guard, which is not told here that it has ended.
        self.left
            .retain(|pid| !self.strangers.contains(pid) && !sys::is_closer(*pid));
    }

    pub(super) fn count(&self) -> usize {
        self.left.len()
    }

    /// A process has ended, and is about to be reaped.
    pub(super) fn ended(&mut self, pid: i32, is_sweep: bool) {
        if is_sweep && self.left.contains(&pid) {
            // What it leaves in its group has nobody any more.
            let _nobody = sys::send_signal_to_group(pid, SIGKILL);
        }
        self.left.retain(|one| *one != pid);
        self.strangers.retain(|one| *one != pid);
    }

    pub(super) fn ask_to_end(&self) {
        self.signal(SIGTERM);
    }

    pub(super) fn kill(&self) {
        self.signal(SIGKILL);
    }

    fn signal(&self, signal: i32) {
        for pid in &self.left {
            // A worker leads a group; what it has left behind does not.
            if sys::send_signal_to_group(*pid, signal).is_err() {
                let _ended = sys::send_signal_to_child(*pid, signal);
            }
        }
    }
}

/// All children, also those that have ended. None where the kernel does not list them
/// (CONFIG_PROC_CHILDREN, proc_pid_task(5)).
fn children() -> Vec<i32> {
    let text = fs::read_to_string("/proc/thread-self/children").unwrap_or_default();
    let numbers = text.split_ascii_whitespace();
    numbers.filter_map(|number| number.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::OwnedFd;
    use std::time::Duration;

    #[test]
    fn what_closes_descriptors_is_not_waited_for() {
        sys::close_apart(0);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let _theirs = listener.accept().unwrap();
        ours.set_nonblocking(true).unwrap();
        while ours.write(&[b'x'; 65_536]).is_ok() {}
        let linger = Some(Duration::from_secs(3600));
        socket2::SockRef::from(&ours).set_linger(linger).unwrap();
        let mut orphans = Orphans::default();
        drop(sys::SharedFd::from(OwnedFd::from(ours)));
        // It waits until it is killed, which is not done as long as no time passes.
        sys::close_apart(0);
        assert_eq!(children().len(), 1);
        orphans.look();
        assert_eq!(orphans.count(), 0);
        while !sys::close_apart_within(200) {}
    }
}
