//! Network namespaces (network_namespaces(7)).

use nix::libc;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Moves the calling thread into a network namespace.
///
/// # Errors
///
/// Those of setns(2): EINVAL when the descriptor is no network namespace, EPERM without
/// CAP_SYS_ADMIN.
pub fn enter_network_namespace(namespace: impl AsFd) -> io::Result<()> {
    // SAFETY: a bare system call on a borrowed, open descriptor.
    let done = unsafe { libc::setns(namespace.as_fd().as_raw_fd(), libc::CLONE_NEWNET) };
    if done == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
