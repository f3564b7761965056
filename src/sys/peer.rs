//! The peer of a unix socket.

use super::sockopt;
use super::{PeerProcess, Sender};
use nix::libc::{self, c_int, c_void, gid_t, socklen_t};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

/// Linux 6.5 (asm-generic/socket.h); the same on every architecture that Rust's Linux targets have,
/// but for these two.
#[cfg(not(any(target_arch = "sparc", target_arch = "sparc64")))]
const SO_PEERPIDFD: c_int = 77;
#[cfg(any(target_arch = "sparc", target_arch = "sparc64"))]
const SO_PEERPIDFD: c_int = 0x56;

/// The process that has connected, as it was then (SO_PEERCRED, unix(7)), with its pidfd where the kernel
/// has that.
///
/// # Errors
///
/// The errors of getsockopt(2), but not for the pidfd.
pub fn peer(socket: impl AsFd) -> io::Result<PeerProcess> {
    let credentials = getsockopt(&socket, PeerCredentials)?;
    let mut process = PeerProcess {
        sender: Some(Sender {
            pid: credentials.pid(),
            uid: credentials.uid(),
        }),
        ..PeerProcess::default()
    };
    match sockopt::get_int(&socket, libc::SOL_SOCKET, SO_PEERPIDFD) {
        // SAFETY: the kernel has just made it, close-on-exec, and nobody else has its number.
        Ok(fd) => process.pidfd = Some(unsafe { OwnedFd::from_raw_fd(fd) }),
        // What the kernel says of one that is reaped has changed.
        Err(error) => {
            let errno = error.raw_os_error();
            process.is_gone = matches!(errno, Some(libc::ESRCH | libc::EINVAL | libc::ENODATA));
        }
    }
    Ok(process)
}

/// No process has more supplementary groups (NGROUPS_MAX, getgroups(2)).
const MOST_GROUPS: usize = 65_536;

/// The supplementary groups that the peer had when it connected (SO_PEERGROUPS, Linux 4.13).
///
/// # Errors
///
/// The errors of getsockopt(2); ENODATA for a socket without a peer.
pub fn peer_groups(socket: impl AsFd) -> io::Result<Vec<u32>> {
    // Enough for nearly everybody; ERANGE says how many are needed.
    let mut groups: Vec<gid_t> = vec![0; 64];
    loop {
        let mut length = size_of_val(groups.as_slice()) as socklen_t;
        // SAFETY: the descriptor is borrowed and open; the kernel writes at most `length` bytes,
        // which is what the vector has, and then says in `length` how many there are.
        let done = unsafe {
            libc::getsockopt(
                socket.as_fd().as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast::<c_void>(),
                &raw mut length,
            )
        };
        let count = length as usize / size_of::<gid_t>();
        if done == 0 {
            groups.truncate(count);
            return Ok(groups);
        }
        let error = io::Error::last_os_error();
        let is_short = error.raw_os_error() == Some(libc::ERANGE);
        if !is_short || count <= groups.len() || count > MOST_GROUPS {
            return Err(error);
        }
        groups.resize(count, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    #[test]
    fn whoever_has_connected_is_known() {
        let (one, _other) = UnixStream::pair().unwrap();
        let process = peer(&one).unwrap();
        let sender = process.sender.unwrap();
        assert_eq!(sender.pid, std::process::id() as i32);
        assert_eq!(sender.uid, nix::unistd::geteuid().as_raw());
        assert!(!process.is_gone);
        if let Some(inode) = crate::sys::own_pidfd_inode() {
            let pidfd = process.pidfd.expect("Linux 6.9 has SO_PEERPIDFD");
            assert_eq!(crate::sys::pidfd_inode(&pidfd), Some(inode));
        }
    }

    #[test]
    fn our_own_groups_are_those_of_our_other_end() {
        let (one, _other) = UnixStream::pair().unwrap();
        let mut seen = peer_groups(&one).unwrap();
        let mut ours: Vec<u32> = nix::unistd::getgroups()
            .unwrap()
            .iter()
            .map(|group| group.as_raw())
            .collect();
        seen.sort_unstable();
        ours.sort_unstable();
        assert_eq!(seen, ours);
    }
}
