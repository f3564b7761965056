//! Descriptors that the process did not open itself, and what a descriptor is.

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc::{self, c_uint};
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

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

/// Undoes connect(2), by an address of the family AF_UNSPEC: a datagram socket has no peer then. A TCP
/// connection is reset, and shutdown(2) forgotten (tcp_disconnect in net/ipv4/tcp.c); so is what waits
/// in a listener's queue.
///
/// # Errors
///
/// The errors of connect(2).
pub fn disconnect(socket: impl AsFd) -> io::Result<()> {
    // SAFETY: the descriptor is borrowed and open; the kernel reads a sockaddr, which is there, and
    // all zero but for its family.
    let done = unsafe {
        let mut nobody: libc::sockaddr = std::mem::zeroed();
        nobody.sa_family = libc::AF_UNSPEC as libc::sa_family_t;
        let length = size_of::<libc::sockaddr>() as libc::socklen_t;
        libc::connect(socket.as_fd().as_raw_fd(), &raw const nobody, length)
    };
    if done == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Whether pidfds of this kernel have inodes of their own (pidfs, Linux 6.9), which is what
/// LISTEN_PIDFDID compares. Before that, all pidfds shared one inode.
pub fn has_pidfs() -> bool {
    let pidfd = super::pidfd::open(std::process::id() as i32);
    pidfd.is_ok_and(|pidfd| is_on_pidfs(&pidfd))
}

fn is_on_pidfs(pidfd: &OwnedFd) -> bool {
    const PIDFS_MAGIC: i64 = 0x5049_4446;
    // SAFETY: fstatfs fills the zeroed buffer it is given; the descriptor is open.
    unsafe {
        let mut stat: libc::statfs = std::mem::zeroed();
        // The type of the member differs between architectures.
        #[allow(clippy::unnecessary_cast)]
        let magic = |stat: &libc::statfs| stat.f_type as i64;
        libc::fstatfs(pidfd.as_raw_fd(), &mut stat) == 0 && magic(&stat) == PIDFS_MAGIC
    }
}

/// The inode of a pidfd, which stands for that process and no other as long as the machine runs;
/// `None` where pidfds have no inodes of their own, or these are shorter than that takes.
pub fn pidfd_inode(pidfd: &OwnedFd) -> Option<u64> {
    // An inode number has the width of a word in the kernel.
    if size_of::<usize>() < 8 || !is_on_pidfs(pidfd) {
        return None;
    }
    let stat = nix::sys::stat::fstat(pidfd).ok()?;
    #[allow(clippy::unnecessary_cast)]
    Some(stat.st_ino as u64)
}

/// The inode of this process's own pidfd, which is what LISTEN_PIDFDID names; `None` where pidfds
/// have no inodes of their own.
pub fn own_pidfd_inode() -> Option<u64> {
    if !has_pidfs() {
        return None;
    }
    let pidfd = super::pidfd::open(std::process::id() as i32).ok()?;
    let stat = nix::sys::stat::fstat(&pidfd).ok()?;
    // The type differs between architectures; the conversion loses nothing.
    #[allow(clippy::unnecessary_cast)]
    Some(stat.st_ino as u64)
}

/// Puts descriptors at these numbers, for the program that this process is about to execute: FD_CLOEXEC is
/// clear. They stay open under their former numbers, too, with FD_CLOEXEC.
///
/// # Errors
///
/// The errors of fcntl(2) and dup2(2): no numbers are left. Some may be in place then.
pub fn place_descriptors(descriptors: &[(OwnedFd, RawFd)]) -> io::Result<()> {
    let last = descriptors.iter().map(|(_, target)| *target).max();
    let free = last.unwrap_or(0) + 1;
    let mut aside = Vec::new();
    for (descriptor, target) in descriptors {
        // Where none of the targets is.
        let number = fcntl(descriptor, FcntlArg::F_DUPFD_CLOEXEC(free))?;
        aside.push((number, *target));
    }
    for (number, target) in aside {
        // SAFETY: dup2 changes the table of descriptors only. What was open at `target` is closed; callers
        // have nothing else open that they use again, since the next thing they do is execve(2).
        if unsafe { libc::dup2(number, target) } == -1 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Makes the kernel's table of descriptors long enough for this number, by having a copy of `descriptor` at it, or at the
/// next free one, for a moment. To be called while there is one thread.
///
/// # Errors
///
/// The errors of fcntl(2): EINVAL, EMFILE where the limit is below (RLIMIT_NOFILE).
pub fn grow_descriptor_table(descriptor: impl AsFd, number: RawFd) -> io::Result<()> {
    let number = fcntl(descriptor, FcntlArg::F_DUPFD_CLOEXEC(number))?;
    // SAFETY: the kernel has just made it.
    drop(unsafe { OwnedFd::from_raw_fd(number) });
    Ok(())
}

/// Takes over a descriptor that this process was started with, and sets FD_CLOEXEC on it. To be
/// called once for each.
///
/// # Errors
///
/// EBADF when it is not open.
pub fn take_descriptor(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: fcntl changes a flag only. When it succeeds, the descriptor is open; the process that started
    // listend has given it away, and nothing in here has a number that it was not given.
    unsafe {
        if libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) == -1 {
            return Err(io::Error::last_os_error());
        }
        Ok(OwnedFd::from_raw_fd(number))
    }
}
