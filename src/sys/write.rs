//! pwritev2(2), for its flags.

use nix::errno::Errno;
use nix::libc;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Writes what there is room for (RWF_NOWAIT), whatever O_NONBLOCK says.
///
/// # Errors
///
/// EAGAIN where there is no room; EOPNOTSUPP where the file does not know the flag, as pipes before
/// Linux 6.4 and terminals; others as write(2).
pub fn write_without_waiting(fd: BorrowedFd<'_>, bytes: &[u8]) -> nix::Result<usize> {
    let part = libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    // SAFETY: the descriptor is borrowed and open; the kernel reads the bytes behind the one vector,
    // which live until the call returns. An offset of -1 is the file's own position.
    let written =
        unsafe { libc::pwritev2(fd.as_raw_fd(), &raw const part, 1, -1, libc::RWF_NOWAIT) };
    // What is not negative fits.
    Errno::result(written).map(|count| count as usize)
}
