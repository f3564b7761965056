//! Standard error, for as long as somebody reads it.
//!
//! A pipe that nobody empties, or a terminal that is stopped, would stop the daemon in the middle of
//! a line, and with it every worker's restart. What does not fit is kept, a little of it; what is too
//! much is dropped and counted, as is what cannot be written at all: a full disk.
//!
//! What the loop says in one turn is written at once ([`hold`]): to wake the reader for each of a thousand lines
//! takes longer than to write them.

use crate::report::describe;
use crate::shell::outflow::{Flushed, Outflow};
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollEvent};
use std::io::{self, Write};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::{panic, process};

/// With so many bytes unwritten, no record is taken any more: some thousands of lines, as come with that many
/// instances.
const FULL: usize = 256 << 10;

/// No more bytes are held back: what is written to a pipe at once (PIPE_BUF, pipe(7)).
const HELD: usize = 4096;

struct Stderr {
    out: Outflow,
    /// How many records are not written yet.
    kept: u64,
    /// Whether records are held back until [`flush`].
    holds: bool,
    /// How many records were lost since this was last told.
    dropped: u64,
    /// Why, if it was not for want of a reader.
    error: Option<Errno>,
    is_watched: bool,
}

/// The logger can be asked for from everywhere.
static STDERR: OnceLock<Mutex<Stderr>> = OnceLock::new();

fn lock() -> MutexGuard<'static, Stderr> {
    let stderr = STDERR.get_or_init(|| {
        Mutex::new(Stderr {
            out: Outflow::new(io::stderr()),
            kept: 0,
            holds: false,
            dropped: 0,
            error: None,
            is_watched: false,
        })
    });
    // It is whole at any time: records are only added and taken.
    stderr.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Stderr {
    fn take(&mut self, record: &[u8]) {
        if self.out.left() > FULL {
            self.dropped += 1;
            return;
        }
        self.tell_dropped();
        self.out.pending().extend_from_slice(record);
        self.kept += 1;
        if !self.holds || self.out.left() >= HELD {
            self.write();
        }
    }

    /// Writes as much as there is room for.
    fn write(&mut self) {
        match self.out.flush() {
            Flushed::All => self.kept = 0,
            Flushed::Stuck => {}
            Flushed::Failed(errno) => {
                self.dropped += std::mem::take(&mut self.kept);
                self.error = Some(errno);
            }
        }
    }

    /// Has it written how many records were lost. If that is lost as well, they are told of again.
    fn tell_dropped(&mut self) {
        let dropped = std::mem::take(&mut self.dropped);
        let why = self.error.take();
        if dropped > 0 {
            let why = why.map_or_else(|| "no reader".to_owned(), |errno| describe(errno as i32));
            let words = format!("listend: {dropped} log lines were lost here: {why}\n");
            self.out.pending().extend_from_slice(words.as_bytes());
            self.kept += dropped;
        }
    }
}

/// Holds records back from now on, until [`flush`] or until there are many. For the loop, which calls that before
/// it waits, and before anybody else hears of what they tell.
pub(in crate::shell) fn hold() {
    lock().holds = true;
    // A panic ends the process at once (`panic = "abort"`).
    let (before, own) = (panic::take_hook(), process::id());
    panic::set_hook(Box::new(move |info| {
        // It may have come up in here, or in a copy of the process, which has the lines and no standard error.
        if process::id() == own
            && let Some(Ok(mut stderr)) = STDERR.get().map(Mutex::try_lock)
        {
            stderr.write();
        }
        before(info);
    }));
}

/// Writes what is kept, as much as there is room for.
pub(in crate::shell) fn flush() {
    let mut stderr = lock();
    if stderr.kept > 0 {
        stderr.write();
    }
}

/// Writes what is kept, and has an epoll set tell when there is room for what is left of it.
pub(in crate::shell) fn flush_and_watch(epoll: &Epoll, room: EpollEvent) {
    let mut stderr = lock();
    if stderr.kept > 0 {
        stderr.write();
    }
    let is_stuck = stderr.out.left() > 0;
    if is_stuck == stderr.is_watched {
        return;
    }
    let told = match is_stuck {
        true => epoll.add(stderr.out.watched(), room),
        false => epoll.delete(stderr.out.watched()),
    };
    // Where it cannot be watched, it is tried again with each record.
    stderr.is_watched = is_stuck && told.is_ok();
}

/// Writes what is kept, and waits a little for a reader that is slow.
pub(super) fn farewell() {
    let mut stderr = lock();
    stderr.tell_dropped();
    // What nobody reads even now is lost with the process.
    let _lost = stderr.out.farewell();
}

/// Where the logger writes its records, each whole.
pub(super) struct StderrWriter;

impl Write for StderrWriter {
    fn write(&mut self, record: &[u8]) -> io::Result<usize> {
        lock().take(record);
        Ok(record.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
