//! Signals, as readable events with their sender.

use crate::sys::{self, Origin};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use signal_hook::consts::{SIGALRM, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
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
    /// For SIGCHLD.
    children: Option<SignalFd>,
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
        Ok(Signals {
            delivery,
            children: None,
            nohup,
        })
    }

    /// Starts to tell about children that end, if there may be any that have no pidfd:
    /// `without_pidfd` says whether there are such of our own.
    ///
    /// # Errors
    ///
    /// No descriptors are left.
    pub fn watch_children(&mut self, without_pidfd: bool) -> io::Result<()> {
        if without_pidfd || may_have_strangers() {
            let mut wanted = SigSet::empty();
            wanted.add(Signal::SIGCHLD);
            let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
            self.children = Some(SignalFd::with_flags(&wanted, flags)?);
        }
        Ok(())
    }

    /// Readable when a child has ended; `None` if that is not told.
    pub fn children(&self) -> Option<BorrowedFd<'_>> {
        self.children.as_ref().map(SignalFd::as_fd)
    }

    /// Takes the news that children have ended. There is one piece of it however many did, which names the
    /// first of them; it may have been reaped meanwhile, and the number may be another's.
    pub fn take_children(&self) -> Option<i32> {
        let news = self.children.as_ref()?.read_signal().ok()??;
        Some(news.ssi_pid.cast_signed())
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
