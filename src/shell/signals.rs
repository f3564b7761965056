//! Signals, as readable events with their sender.

use crate::sys::{self, Origin};
use nix::sys::signal::SigSet;
use signal_hook::consts::{SIGALRM, SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::backend::SignalDelivery;
use signal_hook::iterator::exfiltrator::WithRawSiginfo;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

/// A signal that arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrived {
    /// Its number.
    pub number: i32,
    /// Who sent it.
    pub origin: Origin,
}

/// Whether children may turn up that were not started here: orphans, which go to PID 1 and to a
/// subreaper, or children of whatever program executed listend.
fn may_have_strangers() -> bool {
    let is_subreaper = nix::sys::prctl::get_child_subreaper().unwrap_or(true);
    let has_children = sys::wait(sys::Whom::Anybody, sys::Then::Leave).is_ok();
    std::process::id() == 1 || is_subreaper || has_children
}

/// The signals that listend handles. Installed before anything is bound, so that one that comes
/// during start-up is acted on and not lost.
#[derive(Debug)]
pub struct Signals {
    delivery: SignalDelivery<UnixStream, WithRawSiginfo>,
    /// nohup(1): the terminal's hangup was ignored when listend was started, and stays so.
    nohup: bool,
}

impl Signals {
    /// Installs the handlers.
    ///
    /// # Errors
    ///
    /// No descriptors are left for the pipe.
    pub fn install() -> io::Result<Signals> {
        sys::reset_child_signal();
        let nohup = sys::is_ignored(SIGHUP);
        let (read, write) = UnixStream::pair()?;
        let mut numbers = vec![SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR1, SIGUSR2, SIGALRM];
        // Of its own children it hears by their pidfds.
        if may_have_strangers() {
            numbers.push(SIGCHLD);
        }
        let delivery = SignalDelivery::with_pipe(read, write, WithRawSiginfo, numbers)?;
        // Whoever started listend may have had them blocked, and a blocked SIGTERM stops nothing.
        SigSet::empty().thread_set_mask()?;
        Ok(Signals { delivery, nohup })
    }

    /// Readable when a signal has arrived.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.delivery.get_read().as_fd()
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
