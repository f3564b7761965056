//! POSIX message queues (mq_overview(7)).

use nix::libc::{self, c_int, c_long};
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::ptr;

/// The limits of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueLimits {
    /// The largest number of messages (mq_maxmsg).
    pub messages: i64,
    /// The largest length of a message (mq_msgsize).
    pub message_size: i64,
}

/// Whether messages are only received, or the queue is created first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueueOpen {
    /// The queue must exist.
    Existing,
    /// The queue must not exist. It is created without any rights; `None` are the limits of the
    /// system's choice (fs.mqueue.msg_default and msgsize_default).
    New(Option<QueueLimits>),
}

/// Opens a queue for receiving, non-blocking and with FD_CLOEXEC.
///
/// # Errors
///
/// The errors of mq_open(3); ENOSYS when the kernel has no message queues.
pub fn open_queue(name: &CStr, how: QueueOpen) -> io::Result<OwnedFd> {
    let flags = libc::O_RDONLY | libc::O_NONBLOCK | libc::O_CLOEXEC;
    // SAFETY: `name` ends with a NUL; mode and attributes are what mq_open(3) takes with O_CREAT,
    // and the attributes live to the end of the call. What it returns is a new descriptor of ours
    // (on Linux an mqd_t is one).
    unsafe {
        let fd: c_int = match how {
            QueueOpen::Existing => libc::mq_open(name.as_ptr(), flags),
            QueueOpen::New(limits) => {
                let attributes = limits.map(attributes);
                libc::mq_open(
                    name.as_ptr(),
                    flags | libc::O_CREAT | libc::O_EXCL,
                    0 as libc::mode_t,
                    attributes.as_ref().map_or(ptr::null(), ptr::from_ref),
                )
            }
        };
        if fd == -1 {
            return Err(io::Error::last_os_error());
        }
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

fn attributes(limits: QueueLimits) -> libc::mq_attr {
    // SAFETY: it has integers only, for which zero is a value.
    let mut attributes: libc::mq_attr = unsafe { std::mem::zeroed() };
    // More than a long holds is more than any queue holds; the kernel answers EINVAL.
    attributes.mq_maxmsg = c_long::try_from(limits.messages).unwrap_or(c_long::MAX);
    attributes.mq_msgsize = c_long::try_from(limits.message_size).unwrap_or(c_long::MAX);
    attributes
}

/// The limits of this queue.
///
/// # Errors
///
/// EBADF: it is none (mq_getattr(3)).
pub fn queue_limits(queue: impl AsFd) -> io::Result<QueueLimits> {
    let attributes = read_attributes(queue)?;
    // The types differ between architectures; the conversions lose nothing.
    #[allow(clippy::unnecessary_cast)]
    Ok(QueueLimits {
        messages: attributes.mq_maxmsg as i64,
        message_size: attributes.mq_msgsize as i64,
    })
}

/// The number of messages in this queue.
///
/// # Errors
///
/// As [`queue_limits`].
pub fn queue_length(queue: impl AsFd) -> io::Result<u64> {
    let attributes = read_attributes(queue)?;
    // It is never negative.
    Ok(u64::try_from(attributes.mq_curmsgs).unwrap_or(0))
}

fn read_attributes(queue: impl AsFd) -> io::Result<libc::mq_attr> {
    // SAFETY: as in `attributes`; mq_getattr fills in what it is given.
    unsafe {
        let mut attributes: libc::mq_attr = std::mem::zeroed();
        if libc::mq_getattr(queue.as_fd().as_raw_fd(), &raw mut attributes) == -1 {
            return Err(io::Error::last_os_error());
        }
        Ok(attributes)
    }
}

/// Removes the name of a queue; processes that have it open keep it.
///
/// # Errors
///
/// The errors of mq_unlink(3).
pub fn unlink_queue(name: &CStr) -> io::Result<()> {
    // SAFETY: `name` ends with a NUL.
    if unsafe { libc::mq_unlink(name.as_ptr()) } == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
