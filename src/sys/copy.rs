//! A copy of this process that does something which may take its time, and has nothing to say.

use super::fork::fork;
use nix::libc;
use std::io;
use std::ptr;

/// Whether the copy is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Until it has done it.
    ForIt,
    /// Not at all: it becomes an orphan, whom init(1) reaps.
    No,
}

/// Has a copy of this process do this; see [`fork`] for what it has.
///
/// # Errors
///
/// Those of [`fork`]; nothing was done.
pub fn do_in_a_copy(wait: Wait, act: impl FnOnce()) -> io::Result<()> {
    let copy = fork(|| {
        // SAFETY: the copy has one thread, and its parent here ends by _exit(2). Where there is no
        // second copy the first does it, and is waited for.
        if wait == Wait::ForIt || unsafe { libc::fork() } <= 0 {
            act();
        }
        Vec::new()
    })?;
    // SAFETY: it is our child, and nobody else has waited for it.
    while unsafe { libc::waitpid(copy.pid, ptr::null_mut(), 0) } == -1
        && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
    {}
    Ok(())
}
