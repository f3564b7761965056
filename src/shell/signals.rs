//! Signals, as readable events with their sender.

use super::clock;
use crate::core::Mono;
use crate::sys::{self, Origin};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use signal_hook::consts::{SIGALRM, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::backend::SignalDelivery;
use signal_hook::iterator::exfiltrator::WithRawSiginfo;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// A signal without effect is told of once in this time: a flood of them would take the room in the log from what
/// matters.
const TOLD_EVERY: Duration = Duration::from_secs(1);

/// A signal that arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrived {
    /// Its number.
    pub number: i32,
    /// Who sent it.
    pub origin: Origin,
}

/// The signals that listend handles. Installed before anything is bound, so that one that comes
/// during start-up is acted on and not lost.
#[derive(Debug)]
pub struct Signals {
    delivery: SignalDelivery<UnixStream, WithRawSiginfo>,
    /// For SIGCHLD.
    children: SignalFd,
    /// nohup(1): the terminal's hangup was ignored when listend was started, and stays so.
    nohup: bool,
    /// When each signal without effect was told of last.
    told: BTreeMap<i32, Mono>,
}

impl Signals {
    /// Installs the handlers.
    ///
    /// # Errors
    ///
    /// No descriptors are left.
    pub fn install() -> io::Result<Signals> {
        sys::reset_child_signal();
        sys::ignore_file_size_signal();
        // Without one, accepting says so.
        let _accepting_tells = sys::prepare_to_interrupt();
        let nohup = sys::is_ignored(SIGHUP);
        let (read, write) = UnixStream::pair()?;
        let numbers = [SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR1, SIGUSR2, SIGALRM];
        let delivery = SignalDelivery::with_pipe(read, write, WithRawSiginfo, numbers)?;
        // Whoever started listend may have had them blocked, and a blocked SIGTERM stops nothing.
        // SIGCHLD is read from a descriptor (signalfd(2)), without a handler: there may be thousands
        // a second.
        let mut blocked = SigSet::empty();
        blocked.add(Signal::SIGCHLD);
        blocked.thread_set_mask()?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        Ok(Signals {
            delivery,
            children: SignalFd::with_flags(&blocked, flags)?,
            nohup,
            told: BTreeMap::new(),
        })
    }

    /// Readable when a child has ended, of our own or an orphan that has come to a subreaper.
    pub fn children(&self) -> BorrowedFd<'_> {
        self.children.as_fd()
    }

    /// Takes the news that children have ended. There is one piece of it however many did, which names the
    /// first of them; it may have been reaped meanwhile, and the number may be another's.
    pub fn take_children(&self) -> Option<i32> {
        let news = self.children.read_signal().ok()??;
        Some(news.ssi_pid.cast_signed())
    }

    /// Readable when a signal has arrived.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.delivery.get_read().as_fd()
    }

    /// Whether a signal without effect is to be told of now.
    pub(super) fn is_to_be_told(&mut self, number: i32) -> bool {
        let now = clock::now();
        let is_due = self
            .told
            .get(&number)
            .is_none_or(|last| *last + TOLD_EVERY <= now);
        if is_due {
            self.told.insert(number, now);
        }
        is_due
    }

    /// All that have arrived.
    pub fn take(&mut self) -> Vec<Arrived> {
        let nohup = self.nohup;
        self.delivery
            .pending()
            .map(|info| Arrived {
                number: info.si_signo,
                origin: sys::origin(&info),
            })
            .filter(|arrived| {
                let hangup = arrived.number == SIGHUP && arrived.origin == Origin::Kernel;
                !(hangup && nohup)
            })
            .collect()
    }
}
