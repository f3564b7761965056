//! Standard output, as far as listend writes to it for its workers.

use super::logging;
use super::outflow::{Flushed, Outflow};
use crate::report::describe;
use nix::errno::Errno;
use std::os::fd::BorrowedFd;

/// Standard output and what is still to be written there.
pub(super) struct Stdout {
    out: Outflow,
    /// Whether writing failed, and nothing is written any more.
    is_gone: bool,
}

impl Stdout {
    pub(super) fn new() -> Stdout {
        Stdout {
            out: Outflow::new(std::io::stdout()),
            is_gone: false,
        }
    }

    /// What to watch for EPOLLOUT while not all is written.
    pub(super) fn watched(&self) -> BorrowedFd<'_> {
        self.out.watched()
    }

    /// How many bytes are still to be written.
    pub(super) fn left(&self) -> usize {
        self.out.left()
    }

    /// Where to put what is to be written, in whole lines.
    pub(super) fn pending(&mut self) -> &mut Vec<u8> {
        self.out.pending()
    }

    /// Writes as much as there is room for. Whether that was all.
    pub(super) fn flush(&mut self) -> bool {
        if self.is_gone {
            self.out.pending().clear();
            return true;
        }
        if self.left() > 0 {
            // Both may lead to the same place.
            logging::flush();
        }
        match self.out.flush() {
            Flushed::All => true,
            Flushed::Stuck => false,
            Flushed::Failed(errno) => {
                self.has_gone(errno);
                true
            }
        }
    }

    /// Writes the rest, and waits a little for a reader that is slow.
    pub(super) fn farewell(&mut self) {
        if self.is_gone {
            return;
        }
        logging::flush();
        match self.out.farewell() {
            Flushed::All => {}
            Flushed::Stuck => {
                let left = self.left();
                log::warn!("{left} bytes of what workers wrote were lost: no reader");
            }
            Flushed::Failed(errno) => self.has_gone(errno),
        }
    }

    fn has_gone(&mut self, errno: Errno) {
        self.is_gone = true;
        let why = describe(errno as i32);
        log::warn!("output of workers is no longer shown: standard output: {why}");
    }
}
