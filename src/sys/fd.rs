//! Descriptors that the process did not open itself, and what a descriptor is.

use nix::libc::{self, c_uint};
use std::io;
use std::os::fd::{AsRawFd, RawFd};

/// Sets FD_CLOEXEC on every descriptor from `first` on: whatever listend was started with shall
/// not reach a worker.
///
/// # Errors
///
/// close_range(2) with CLOSE_RANGE_CLOEXEC needs Linux 5.11; older kernels answer EINVAL or ENOSYS.
pub fn close_on_exec_from(first: RawFd) -> io::Result<()> {
    // SAFETY: a bare system call that changes flags only.
    let done = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            first as c_uint,
            c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    if done == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Whether pidfds of this kernel have inodes of their own (pidfs, Linux 6.9), which is what
/// LISTEN_PIDFDID compares. Before that, all pidfds shared one inode.
pub fn has_pidfs() -> bool {
    const PIDFS_MAGIC: i64 = 0x5049_4446;
    let Ok(pidfd) = super::pidfd::open(std::process::id() as i32) else {
        return false;
    };
    // SAFETY: fstatfs fills the zeroed buffer it is given; the descriptor is open.
    unsafe {
        let mut stat: libc::statfs = std::mem::zeroed();
        // The type of the member differs between architectures.
        #[allow(clippy::unnecessary_cast)]
        let magic = |stat: &libc::statfs| stat.f_type as i64;
        libc::fstatfs(pidfd.as_raw_fd(), &mut stat) == 0 && magic(&stat) == PIDFS_MAGIC
    }
}
