//! Standard error, for as long as somebody reads it.
//!
//! A pipe that nobody empties, or a terminal that is stopped, would stop the daemon in the middle of
//! a line, and with it every worker's restart. What does not fit is kept, a little of it; what is too
//! much is dropped and counted, as is what cannot be written at all: a full disk.

use crate::report::describe;
use crate::shell::outflow::{Flushed, Outflow};
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollEvent};
use std::io::{self, Write};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// With so many bytes unwritten, no record is taken any more.
const FULL: usize = 64 << 10;

struct Stderr {
    out: Outflow,
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
        let dropped = self.tell_dropped();
        self.out.pending().extend_from_slice(record);
        if let Flushed::Failed(errno) = self.out.flush() {
            self.dropped = dropped + 1;
            self.error = Some(errno);
        }
    }

    /// Has it written how many records were lost, and answers with that.
    fn tell_dropped(&mut self) -> u64 {
        let dropped = std::mem::take(&mut self.dropped);
        let why = match self.error.take() {
            Some(errno) => describe(errno as i32),
            None => "no reader".to_owned(),
        };
        if dropped > 0 {
            let words = format!("listend: {dropped} log lines were lost here: {why}\n");
            self.out.pending().extend_from_slice(words.as_bytes());
        }
        dropped
    }
}

/// Writes what is kept, as much as there is room for.
pub(in crate::shell) fn flush() {
    // What cannot be written is lost; the next record will find out why, and tell.
    let _lost = lock().out.flush();
}

/// Has an epoll set tell when there is room for what is kept, as long as anything is.
pub(in crate::shell) fn watch(epoll: &Epoll, room: EpollEvent) {
    let mut stderr = lock();
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

/// Where the logger writes its records, each at once.
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
