//! A child of std's that depends on its parent, and an end like that of a child.

use nix::libc;
use nix::sys::signal::SigSet;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Has the child get this signal when its parent ends, however that ends. It starts with no signal blocked, as
/// every worker does, and ignores SIGPIPE if it is to; std leaves it the mask of its parent, and SIGPIPE at its
/// default.
pub fn end_with_parent(command: &mut Command, signal: i32, ignore_sigpipe: bool) {
    let parent = std::process::id() as libc::pid_t;
    let prepare = move || {
        // SAFETY: bare system calls, which are async-signal-safe; SIG_IGN installs no handler; the set is
        // initialised before it is used.
        unsafe {
            if libc::prctl(libc::PR_SET_PDEATHSIG, signal) == -1 {
                return Err(io::Error::last_os_error());
            }
            // It may have ended before.
            if libc::getppid() != parent {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
            let mut none: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&mut none);
            libc::pthread_sigmask(libc::SIG_SETMASK, &none, std::ptr::null_mut());
            if ignore_sigpipe {
                libc::signal(libc::SIGPIPE, libc::SIG_IGN);
            }
        }
        Ok(())
    };
    // SAFETY: the closure runs between fork and exec; it allocates nothing and takes no lock.
    unsafe {
        command.pre_exec(prepare);
    }
}

/// Has this process end by SIGKILL when its parent does, and at once if `parent` is its parent no more. No
/// signal is blocked from then on: std leaves a child the mask of its parent.
///
/// # Errors
///
/// prctl(2) or pthread_sigmask(3) failed.
pub fn depend_on(parent: i32) -> io::Result<()> {
    SigSet::empty().thread_set_mask()?;
    // SAFETY: bare system calls.
    unsafe {
        if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) == -1 {
            return Err(io::Error::last_os_error());
        }
        if libc::getppid() != parent {
            libc::_exit(1);
        }
    }
    Ok(())
}

/// Ends this process by a signal, as a child of it was ended, and without a core file of its own. Returns
/// only where the signal ends nobody.
pub fn end_by_signal(signal: i32) {
    // SAFETY: bare system calls; SIG_DFL installs no handler; the set is initialised before it is used.
    unsafe {
        libc::prctl(libc::PR_SET_DUMPABLE, 0);
        libc::signal(signal, libc::SIG_DFL);
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, signal);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &set, std::ptr::null_mut());
        libc::raise(signal);
    }
}
