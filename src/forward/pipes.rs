//! The pipes that bytes pass through. A connection has one only while it holds bytes, so that an idle one
//! costs two sockets and no more.

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::pipe2;
use std::os::fd::OwnedFd;

/// The size of the first pipes. What comes later has the kernel's default, 64 KiB, or less where the user
/// has many (fs.pipe-user-pages-soft, pipe(7)).
const LARGE: i32 = 256 * 1024;
/// The number of pipes that may be large, and of those kept for later.
const LARGE_PIPES: usize = 32;

/// A pipe that holds nothing, or what one connection is passing on.
#[derive(Debug)]
pub(super) struct Pipe {
    pub read: OwnedFd,
    pub write: OwnedFd,
    /// The most bytes that it can hold.
    pub size: usize,
}

/// Pipes that hold nothing.
#[derive(Debug, Default)]
pub(super) struct Pipes {
    free: Vec<Pipe>,
    /// The number of pipes in use and here.
    count: usize,
}

impl Pipes {
    /// An empty pipe; `None` where there are no descriptors or no memory for one.
    pub fn take(&mut self) -> Option<Pipe> {
        if let Some(pipe) = self.free.pop() {
            return Some(pipe);
        }
        let (read, write) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).ok()?;
        let wanted = if self.count < LARGE_PIPES {
            FcntlArg::F_SETPIPE_SZ(LARGE)
        } else {
            FcntlArg::F_GETPIPE_SZ
        };
        let size = fcntl(&write, wanted);
        // EPERM: beyond the limit of the user.
        let size = size
            .or_else(|_| fcntl(&write, FcntlArg::F_GETPIPE_SZ))
            .ok()?;
        self.count += 1;
        Some(Pipe {
            read,
            write,
            size: usize::try_from(size).ok()?,
        })
    }

    /// Takes back an empty pipe.
    pub fn give(&mut self, pipe: Pipe) {
        if self.free.len() < LARGE_PIPES {
            self.free.push(pipe);
        } else {
            self.discard(pipe);
        }
    }

    /// Closes a pipe, with what it holds.
    pub fn discard(&mut self, pipe: Pipe) {
        drop(pipe);
        self.count = self.count.saturating_sub(1);
    }
}
