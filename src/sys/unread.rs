//! The messages that a receiver has not taken yet.

use nix::errno::Errno;
use nix::libc;
use std::os::fd::{AsRawFd, BorrowedFd};

/// The memory of the messages that were sent on a unix datagram socket and not received yet; 0 when all
/// were received (SIOCOUTQ, unix(7)).
///
/// # Errors
///
/// The descriptor is no socket.
pub fn bytes_not_received(socket: BorrowedFd<'_>) -> nix::Result<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: TIOCOUTQ, which is SIOCOUTQ for sockets, writes one int to where the pointer leads.
    let answer = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    Errno::result(answer)?;
    Ok(usize::try_from(bytes).unwrap_or(0))
}
