//! A copy of this process that does something which may take its time.

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

/// Has a copy of this process do this. It has none of the descriptors from 3 on, so that it keeps no
/// listener open.
///
/// # Errors
///
/// fork(2) failed; nothing was done.
pub fn do_in_a_copy(wait: Wait, act: impl FnOnce()) -> io::Result<()> {
    // SAFETY: there is one thread, so that the copy is whole. It ends by _exit(2), which runs nothing
    // that belongs to the original. The child is not reaped by anybody else meanwhile.
    unsafe {
        match libc::fork() {
            -1 => return Err(io::Error::last_os_error()),
            0 => {
                // Of an orphan's parent only the pid is needed; if the second fork fails, this one
                // does it, and is waited for.
                if wait == Wait::No && libc::fork() > 0 {
                    libc::_exit(0);
                }
                libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0);
                act();
                libc::_exit(0);
            }
            child => {
                while libc::waitpid(child, ptr::null_mut(), 0) == -1
                    && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
                {
                }
            }
        }
    }
    Ok(())
}
