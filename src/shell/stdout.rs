//! Standard output, written to without ever waiting for whoever reads it.

use super::clock;
use crate::report::describe;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, send};
use nix::sys::stat::{Mode, SFlag, fstat};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// Up to so many bytes are written to a pipe whole or not at all (PIPE_BUF, pipe(7)), so that lines
/// of this length are never mixed with what others write there.
const WHOLE: usize = 4096;

/// How long the end of listend waits for the reader.
const FAREWELL: Duration = Duration::from_secs(1);

/// How to write without waiting. O_NONBLOCK on the descriptor itself would do, but it belongs to
/// the open file description, which is shared with the shell that started listend, with standard
/// error and with workers.
enum Way {
    /// Another open file description of the same pipe or terminal, with O_NONBLOCK.
    Another(OwnedFd),
    /// With MSG_DONTWAIT.
    Socket,
    /// It is asked first. For what cannot be opened again; files are always ready.
    Ask,
}

impl Way {
    fn find(out: &io::Stdout) -> Way {
        let kind = fstat(out).map_or(SFlag::S_IFREG, |stat| {
            SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits())
        });
        if kind == SFlag::S_IFSOCK {
            return Way::Socket;
        }
        // Of a file it would have a position of its own, and write over what others wrote.
        if kind != SFlag::S_IFIFO && kind != SFlag::S_IFCHR {
            return Way::Ask;
        }
        let flags = OFlag::O_WRONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        let another = open("/proc/self/fd/1", flags, Mode::empty());
        another.map_or(Way::Ask, Way::Another)
    }
}

/// Standard output and what is still to be written there.
pub(super) struct Stdout {
    out: io::Stdout,
    way: Way,
    pending: Vec<u8>,
    /// How much of `pending` has been written.
    written: usize,
    /// Whether writing failed, and nothing is written any more.
    is_gone: bool,
}

impl Stdout {
    pub(super) fn new() -> Stdout {
        let out = io::stdout();
        Stdout {
            way: Way::find(&out),
            out,
            pending: Vec::new(),
            written: 0,
            is_gone: false,
        }
    }

    /// What to watch for EPOLLOUT while not all is written.
    pub(super) fn watched(&self) -> BorrowedFd<'_> {
        match &self.way {
            Way::Another(fd) => fd.as_fd(),
            Way::Socket | Way::Ask => self.out.as_fd(),
        }
    }

    /// How many bytes are still to be written.
    pub(super) fn left(&self) -> usize {
        self.pending.len() - self.written
    }

    /// Where to put what is to be written, in whole lines.
    pub(super) fn pending(&mut self) -> &mut Vec<u8> {
        &mut self.pending
    }

    /// Writes as much as there is room for. Whether that was all.
    pub(super) fn flush(&mut self) -> bool {
        while let Some(rest) = self.pending.get(self.written..)
            && !rest.is_empty()
            && !self.is_gone
        {
            match self.write(portion(rest)) {
                Ok(count) => self.written += count,
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return false,
                Err(errno) => {
                    self.is_gone = true;
                    let why = describe(errno as i32);
                    log::warn!("what workers write is not shown any more: standard output: {why}");
                }
            }
        }
        self.written = 0;
        // A flood of long lines does not keep its memory for ever.
        if self.pending.capacity() > 16 * WHOLE {
            self.pending = Vec::new();
        }
        self.pending.clear();
        true
    }

    /// Writes the rest, and waits a little for a reader that is slow.
    pub(super) fn farewell(&mut self) {
        let end = clock::now() + FAREWELL;
        while !self.flush() {
            let left = end.since(clock::now());
            let milliseconds = u16::try_from(left.as_millis()).unwrap_or(u16::MAX);
            let mut wanted = [PollFd::new(self.watched(), PollFlags::POLLOUT)];
            match poll(&mut wanted, PollTimeout::from(milliseconds)) {
                Ok(0) => {
                    let left = self.left();
                    log::warn!("{left} bytes of what workers wrote were lost: nobody read them");
                    return;
                }
                Ok(_) | Err(Errno::EINTR) => {}
                Err(_) => return,
            }
        }
    }

    fn write(&self, bytes: &[u8]) -> nix::Result<usize> {
        match &self.way {
            Way::Another(fd) => nix::unistd::write(fd, bytes),
            Way::Socket => {
                let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
                send(self.out.as_raw_fd(), bytes, flags)
            }
            Way::Ask => {
                let mut wanted = [PollFd::new(self.out.as_fd(), PollFlags::POLLOUT)];
                if poll(&mut wanted, PollTimeout::ZERO)? == 0 {
                    return Err(Errno::EAGAIN);
                }
                // A pipe that is ready has room for this much, and may not have it for more.
                nix::unistd::write(&self.out, bytes.get(..WHOLE).unwrap_or(bytes))
            }
        }
    }
}

/// Whole lines, as many as are written at once; or one that is longer than that.
fn portion(bytes: &[u8]) -> &[u8] {
    let newline = |byte: &u8| *byte == b'\n';
    let first = bytes.get(..WHOLE).unwrap_or(bytes);
    let end = first.iter().rposition(newline);
    let end = end.or_else(|| bytes.iter().position(newline));
    end.and_then(|end| bytes.get(..=end)).unwrap_or(bytes)
}
