//! Looks at the content of a descriptor without reading it.

use nix::libc::{self, c_int};
use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// The number of bytes in a FIFO (FIONREAD, ioctl(2)).
///
/// # Errors
///
/// The errors of ioctl(2); ENOTTY where there is no such number.
pub fn bytes_to_read(fd: impl AsFd) -> io::Result<u64> {
    let mut count: c_int = 0;
    // SAFETY: FIONREAD stores an int where it is told to.
    let done = unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), libc::FIONREAD, &raw mut count) };
    if done == -1 {
        return Err(io::Error::last_os_error());
    }
    // It is never negative.
    Ok(u64::try_from(count).unwrap_or(0))
}
