//! Signals through pidfds, so that a recycled process id is never hit.

use nix::libc::{self, c_int};
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::ptr;

/// pidfd_open(2) (Linux 5.3), of a child that has not been waited for or of oneself.
///
/// # Errors
///
/// ESRCH when there is no such process; no descriptors are left.
pub fn open(pid: c_int) -> io::Result<OwnedFd> {
    // SAFETY: a bare system call; a descriptor it returns is new and ours (and has FD_CLOEXEC).
    unsafe {
        let fd = libc::syscall(libc::SYS_pidfd_open, pid, 0);
        match c_int::try_from(fd) {
            Ok(fd) if fd >= 0 => Ok(OwnedFd::from_raw_fd(fd)),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// pidfd_getfd(2) (Linux 5.6): a descriptor of another process, as one of ours.
///
/// # Errors
///
/// EPERM when it may not be traced (ptrace(2)); EBADF when it has no such descriptor; ESRCH when it has ended.
pub fn take_descriptor_of(pidfd: impl AsFd, number: c_int) -> io::Result<OwnedFd> {
    // SAFETY: the pidfd is borrowed and open; a descriptor it returns is new and ours (and has FD_CLOEXEC).
    unsafe {
        let fd = libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_fd().as_raw_fd(), number, 0);
        match c_int::try_from(fd) {
            Ok(fd) if fd >= 0 => Ok(OwnedFd::from_raw_fd(fd)),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// pidfd_send_signal(2) (Linux 5.1).
///
/// # Errors
///
/// ESRCH when the process has exited and been waited for; EPERM when it may not be signalled.
pub fn send_signal(pidfd: impl AsFd, signal: c_int) -> io::Result<()> {
    // SAFETY: the descriptor is borrowed and open; a null siginfo means what kill(2) would send.
    let sent = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_fd().as_raw_fd(),
            signal,
            ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    if sent == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// kill(2) of a process group whose number is known to be its own.
///
/// # Errors
///
/// ESRCH when nobody is in it, EPERM when nobody in it may be signalled.
pub fn send_signal_to_group(group: c_int, signal: c_int) -> io::Result<()> {
    // 0 is the caller's own, 1 would be everybody.
    if group <= 1 {
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
    // SAFETY: a bare system call.
    if unsafe { libc::kill(-group, signal) } == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// kill(2) of a child that has not been waited for.
///
/// # Errors
///
/// EPERM when it may not be signalled.
pub fn send_signal_to_child(pid: c_int, signal: c_int) -> io::Result<()> {
    // SAFETY: a bare system call.
    if unsafe { libc::kill(pid, signal) } == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
