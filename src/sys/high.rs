//! Descriptors that are out of the way of children.
//!
//! clone(2) copies every descriptor, and exec closes each copy again. Where there are thousands, that takes longer
//! than the rest of a launch. So what no child needs, and there may be thousands of, gets a high number, and a child
//! takes a copy of the low numbers only.

use super::raw::BARE;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc::{self, c_uint};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, Ordering};

/// So many low numbers are no burden to a child that copies them.
const FEW: RawFd = 1024;

/// The first high number. What a child may need is mostly below.
pub(super) const HIGH: RawFd = 2048;

/// To copy so many takes longer than to wait until a child has left them out: two switches of processes, on a machine
/// that has other work.
const MANY: RawFd = 500;

/// The highest number that was given out here.
static HIGHEST: AtomicI32 = AtomicI32::new(0);

/// The first number that is not given out here.
static END: AtomicI32 = AtomicI32::new(RawFd::MAX);

/// From this number on there are descriptors that are kept for something else.
pub fn keep_free_from(number: RawFd) {
    END.store(number, Ordering::Relaxed);
}

/// Gives a descriptor a high number if many low ones are taken. To be called before it is watched: epoll(7) knows
/// it by its number. Where that cannot be done, it stays what it is, and launches take longer.
pub fn out_of_the_way(fd: OwnedFd) -> OwnedFd {
    let number = fd.as_raw_fd();
    if number >= HIGH {
        HIGHEST.fetch_max(number, Ordering::Relaxed);
    }
    match (FEW..HIGH).contains(&number) {
        true => copy_out_of_the_way(&fd).unwrap_or(fd),
        false => fd,
    }
}

/// A copy with a high number, if as many are allowed (RLIMIT_NOFILE) and the kernel can leave them out.
pub fn copy_out_of_the_way(fd: impl AsFd) -> Option<OwnedFd> {
    let end = END.load(Ordering::Relaxed);
    if end <= HIGH || !can_be_left_out() {
        return None;
    }
    let number = fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(HIGH)).ok()?;
    // SAFETY: the kernel has just made it.
    let copy = unsafe { OwnedFd::from_raw_fd(number) };
    if number >= end {
        return None;
    }
    HIGHEST.fetch_max(number, Ordering::Relaxed);
    Some(copy)
}

/// From which number on a child leaves descriptors out; `None` if there are too few.
pub(super) fn begins_at() -> Option<RawFd> {
    let are_many = HIGHEST.load(Ordering::Relaxed) >= HIGH + MANY;
    (are_many && can_be_left_out()).then_some(HIGH)
}

/// Whether a child can start with its parent's descriptors and take a copy of only some of them:
/// close_range(2) with CLOSE_RANGE_UNSHARE (Linux 5.9). The range here is none, which the kernel says if it knows the
/// call; nothing is unshared, as a process that closes for this one ([`super::close_apart`]) has to have its table.
fn can_be_left_out() -> bool {
    static CAN: OnceLock<bool> = OnceLock::new();
    *CAN.get_or_init(|| {
        let (first, last, flags): (c_uint, c_uint, c_uint) = (1, 0, libc::CLOSE_RANGE_UNSHARE);
        // SAFETY: a bare system call that does nothing.
        let answer = unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) };
        BARE && answer == -1 && Errno::last() == Errno::EINVAL
    })
}
