//! waitid(2) with every signal number.
//!
//! nix's own cannot represent death by a realtime signal: it answers EINVAL, and the status is lost.

use nix::libc::{self, c_int};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// The processes to wait for.
#[derive(Debug, Clone, Copy)]
pub enum Whom<'fd> {
    /// Any child.
    Anybody,
    /// The process behind this pidfd (Linux 5.4).
    Process(BorrowedFd<'fd>),
    /// The child with this process id, which nobody has waited for yet, so that it is no other's.
    Pid(i32),
}

/// Whether the zombie stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// The zombie stays, and keeps its number (WNOWAIT).
    Leave,
    /// The zombie is reaped.
    Reap,
}

/// A child that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// The process id.
    pub pid: i32,
    /// The way in which the process ended.
    pub how: How,
}

/// The way in which a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// Ended by exit(3), with this status.
    Exited(i32),
    /// Ended by this signal.
    Killed(i32),
    /// Ended by this signal, with a core dump.
    Dumped(i32),
}

/// Whether any child that lives, or has ended and was not waited for, is in this process group.
pub fn has_children_in(group: i32) -> bool {
    // SAFETY: waitid fills the zeroed siginfo it is given. WNOWAIT leaves everything as it is.
    let found = unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        libc::waitid(libc::P_PGID, group as libc::id_t, &mut info, flags)
    };
    // Nothing but ECHILD says that there is none.
    found == 0
}

/// A child that has ended, if there is one; never blocks.
///
/// # Errors
///
/// ECHILD: there is no such child.
pub fn wait(whom: Whom<'_>, then: Then) -> io::Result<Option<Ended>> {
    let (kind, id) = match whom {
        Whom::Anybody => (libc::P_ALL, 0),
        Whom::Pid(pid) => (libc::P_PID, pid as libc::id_t),
        Whom::Process(pidfd) => (libc::P_PIDFD, pidfd.as_raw_fd() as libc::id_t),
    };
    let mut flags: c_int = libc::WEXITED | libc::WNOHANG;
    if then == Then::Leave {
        flags |= libc::WNOWAIT;
    }
    // SAFETY: waitid fills the zeroed siginfo it is given. With WNOHANG and nobody ended, si_pid
    // stays 0; otherwise the kernel filled in the SIGCHLD members that are read here (waitid(2)).
    unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        while libc::waitid(kind, id, &mut info, flags) == -1 {
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
        if info.si_pid() == 0 {
            return Ok(None);
        }
        let how = match info.si_code {
            libc::CLD_EXITED => How::Exited(info.si_status()),
            libc::CLD_DUMPED => How::Dumped(info.si_status()),
            _ => How::Killed(info.si_status()),
        };
        Ok(Some(Ended {
            pid: info.si_pid(),
            how,
        }))
    }
}
