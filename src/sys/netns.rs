//! Network namespaces (network_namespaces(7)).

use nix::libc;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

/// Moves the calling thread into a network namespace.
///
/// # Errors
///
/// The errors of setns(2): EINVAL when the descriptor is no network namespace, EPERM without
/// CAP_SYS_ADMIN.
pub fn enter_network_namespace(namespace: impl AsFd) -> io::Result<()> {
    // SAFETY: a bare system call on a borrowed, open descriptor.
    let done = unsafe { libc::setns(namespace.as_fd().as_raw_fd(), libc::CLONE_NEWNET) };
    if done == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// The network namespace of a socket (SIOCGSKNS, linux/sockios.h).
///
/// # Errors
///
/// EPERM without CAP_NET_ADMIN there; ENOTTY before Linux 4.10.
pub fn open_network_namespace_of(socket: impl AsFd) -> io::Result<OwnedFd> {
    // SAFETY: SIOCGSKNS takes no argument, and answers with a new descriptor (close-on-exec).
    unsafe {
        // The type differs between C libraries.
        let open = libc::SIOCGSKNS as libc::Ioctl;
        match libc::ioctl(socket.as_fd().as_raw_fd(), open) {
            -1 => Err(io::Error::last_os_error()),
            fd => Ok(OwnedFd::from_raw_fd(fd)),
        }
    }
}

/// SO_NETNS_COOKIE, since Linux 5.14 (asm-generic/socket.h).
#[cfg(not(any(target_arch = "sparc", target_arch = "sparc64")))]
const SO_NETNS_COOKIE: libc::c_int = 71;
#[cfg(any(target_arch = "sparc", target_arch = "sparc64"))]
const SO_NETNS_COOKIE: libc::c_int = 0x50;

/// A number for the network namespace of a socket, which no other of this boot has. `None` before Linux 5.14.
pub fn network_namespace_of(socket: impl AsFd) -> Option<u64> {
    super::sockopt::get_u64(socket, libc::SOL_SOCKET, SO_NETNS_COOKIE).ok()
}
