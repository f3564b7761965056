//! A copy of this process that does something which may take its time, and has nothing to say.

use super::fork::fork;
use nix::libc;
use std::io;
use std::os::fd::AsRawFd;
use std::ptr;

/// Whether the copy is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Wait until the copy has done it, at most so many milliseconds: then it is killed.
    ForIt(i32),
    /// Do not wait: the copy becomes an orphan, which init(1) reaps.
    No,
}

/// Has a copy of this process do this; see [`fork`] for what it has.
///
/// # Errors
///
/// The errors of [`fork`], and nothing was done; or it took too long.
pub fn do_in_a_copy(wait: Wait, act: impl FnOnce()) -> io::Result<()> {
    let copy = fork(|| {
        // SAFETY: the copy has one thread, and its parent here ends by _exit(2). Where there is no
        // second copy the first does it, and is waited for.
        if wait != Wait::No || unsafe { libc::fork() } <= 0 {
            act();
        }
        Vec::new()
    })?;
    if let Wait::ForIt(milliseconds) = wait {
        let mut end = libc::pollfd {
            fd: copy.pidfd.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: it is our child and not reaped, and poll(2) has one pollfd. A signal lets it begin
        // again: not many come.
        unsafe {
            let mut answer = -1;
            while answer == -1 {
                answer = libc::poll(&raw mut end, 1, milliseconds);
                if answer == -1 && io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
                    break;
                }
            }
            if answer != 1 {
                libc::kill(copy.pid, libc::SIGKILL);
                // Nothing may end what it waits for: it is left to init(1).
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
    }
    // SAFETY: it is our child, and nobody else has waited for it.
    while unsafe { libc::waitpid(copy.pid, ptr::null_mut(), 0) } == -1
        && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
    {}
    Ok(())
}
