//! The peer of a unix socket.

use nix::libc::{self, c_void, gid_t, socklen_t};
use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// No process has more supplementary groups (NGROUPS_MAX, getgroups(2)).
const MOST_GROUPS: usize = 65_536;

/// The supplementary groups that the peer had when it connected (SO_PEERGROUPS, Linux 4.13).
///
/// # Errors
///
/// Those of getsockopt(2); ENODATA for a socket without a peer.
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
