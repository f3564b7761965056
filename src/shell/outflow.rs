//! A standard stream, written to without ever waiting for whoever reads it.

use super::clock;
use crate::sys;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, send};
use nix::sys::stat::{Mode, SFlag, fstat};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// Up to so many bytes are written to a pipe whole or not at all (PIPE_BUF, pipe(7)), so that lines
/// of this length are never mixed with what others write there.
const WHOLE: usize = 4096;

/// How long the end of listend waits for the reader.
const FAREWELL: Duration = Duration::from_secs(1);

/// How to write without waiting. O_NONBLOCK on the descriptor itself would do, but it belongs to
/// the open file description, which is shared with the shell that started listend, with the other
/// streams and with workers.
enum WriteMode {
    /// Another open file description of the same pipe or terminal, with O_NONBLOCK.
    Another(OwnedFd),
    /// With MSG_DONTWAIT.
    Socket,
    /// With RWF_NOWAIT, or asked first. For what cannot be opened again: a pipe of another user, as
    /// in a container that runs as one.
    Ask,
    /// A regular file takes everything, or fails.
    File,
}

impl WriteMode {
    fn find(out: BorrowedFd<'_>) -> WriteMode {
        let kind = fstat(out).map_or(SFlag::S_IFREG, |stat| {
            SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits())
        });
        match kind {
            SFlag::S_IFSOCK => WriteMode::Socket,
            SFlag::S_IFIFO | SFlag::S_IFCHR => {
                let path = format!("/proc/self/fd/{}", out.as_raw_fd());
                let flags =
                    OFlag::O_WRONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
                let another = open(path.as_str(), flags, Mode::empty());
                another.map_or(WriteMode::Ask, WriteMode::Another)
            }
            // Opened again, it would have a position of its own, and write over what others wrote.
            _ => WriteMode::File,
        }
    }
}

/// What became of what was to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flushed {
    /// All is written.
    All,
    /// There is no room for the rest.
    Stuck,
    /// Writing failed, and the rest is dropped.
    Failed(Errno),
}

/// A stream and what is still to be written there.
pub(super) struct Outflow {
    out: Box<dyn AsFd + Send>,
    way: WriteMode,
    pending: Vec<u8>,
    /// How much of `pending` has been written.
    written: usize,
}

impl Outflow {
    pub(super) fn new(out: impl AsFd + Send + 'static) -> Outflow {
        Outflow {
            way: WriteMode::find(out.as_fd()),
            out: Box::new(out),
            pending: Vec::new(),
            written: 0,
        }
    }

    /// What to watch for EPOLLOUT while not all is written.
    pub(super) fn watched(&self) -> BorrowedFd<'_> {
        match &self.way {
            WriteMode::Another(fd) => fd.as_fd(),
            WriteMode::Socket | WriteMode::Ask | WriteMode::File => (*self.out).as_fd(),
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

    /// Writes as much as there is room for.
    pub(super) fn flush(&mut self) -> Flushed {
        let mut flushed = Flushed::All;
        while let Some(rest) = self.pending.get(self.written..)
            && !rest.is_empty()
        {
            match self.write(portion(rest)) {
                Ok(count) => self.written += count,
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => {
                    self.forget_written();
                    return Flushed::Stuck;
                }
                Err(errno) => {
                    flushed = Flushed::Failed(errno);
                    break;
                }
            }
        }
        self.written = 0;
        // A flood of long lines does not keep its memory for ever.
        if self.pending.capacity() > 16 * WHOLE {
            self.pending = Vec::new();
        }
        self.pending.clear();
        flushed
    }

    /// Frees what has been written once it is more than the rest: a reader that never catches up would have all of
    /// it kept.
    fn forget_written(&mut self) {
        if self.written > self.left() {
            self.pending.drain(..self.written);
            self.written = 0;
        }
    }

    /// Writes the rest, and waits a little for a reader that is slow. What is left then is lost.
    pub(super) fn farewell(&mut self) -> Flushed {
        let end = clock::now() + FAREWELL;
        loop {
            let flushed = self.flush();
            let left = end.since(clock::now());
            if flushed != Flushed::Stuck || left.is_zero() {
                return flushed;
            }
            let milliseconds = u16::try_from(left.as_millis()).unwrap_or(u16::MAX);
            let mut wanted = [PollFd::new(self.watched(), PollFlags::POLLOUT)];
            match poll(
                &mut wanted,
                PollTimeout::from(milliseconds.saturating_add(1)),
            ) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Flushed::Failed(errno),
            }
        }
    }

    fn write(&self, bytes: &[u8]) -> nix::Result<usize> {
        let out = (*self.out).as_fd();
        match &self.way {
            WriteMode::Another(fd) => nix::unistd::write(fd, bytes),
            WriteMode::File => nix::unistd::write(out, bytes),
            WriteMode::Socket => {
                let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
                send(out.as_raw_fd(), bytes, flags)
            }
            WriteMode::Ask => match sys::write_without_waiting(out, bytes) {
                // Pipes know the flag since Linux 6.4, terminals never.
                Err(Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EINVAL) => ask_and_write(out, bytes),
                written => written,
            },
        }
    }
}

/// A pipe that is ready has room for so much, if nobody else is quicker.
fn ask_and_write(out: BorrowedFd<'_>, bytes: &[u8]) -> nix::Result<usize> {
    let mut wanted = [PollFd::new(out, PollFlags::POLLOUT)];
    if poll(&mut wanted, PollTimeout::ZERO)? == 0 {
        return Err(Errno::EAGAIN);
    }
    nix::unistd::write(out, bytes.get(..WHOLE).unwrap_or(bytes))
}

/// Whole lines, as many as are written at once; or one that is longer than that.
fn portion(bytes: &[u8]) -> &[u8] {
    let newline = |byte: &u8| *byte == b'\n';
    let first = bytes.get(..WHOLE).unwrap_or(bytes);
    let end = first.iter().rposition(newline);
    let end = end.or_else(|| bytes.iter().position(newline));
    end.and_then(|end| bytes.get(..=end)).unwrap_or(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn a_reader_that_never_catches_up_has_nothing_kept_but_the_rest() {
        const LINE: &[u8] = &[b'x'; 99];
        let (mut reader, writer) = std::io::pipe().unwrap();
        let mut out = Outflow::new(writer);
        let (mut given, mut taken) = (Vec::new(), Vec::new());
        let mut some = [0; 4000];
        for _ in 0..1000 {
            while out.left() < 16 << 10 {
                let line = [LINE, b"\n"].concat();
                out.pending().extend_from_slice(&line);
                given.extend_from_slice(&line);
            }
            assert!(out.pending().len() <= 2 * (17 << 10));
            if out.flush() == Flushed::Stuck {
                let count = reader.read(&mut some).unwrap();
                taken.extend_from_slice(&some[..count]);
            }
        }
        assert!(taken.len() > 1 << 20);
        assert!(given.starts_with(&taken));
    }
}
