//! What is done once, before the loop.

use super::server;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use socket2::SockAddr;
use std::io;

/// Puts a free port where the addresses have 0; the port.
pub(super) fn choose_port(to: &mut [SockAddr]) -> io::Result<Option<u16>> {
    let mut chosen = None;
    for address in to {
        let Some(mut inet) = address.as_socket().filter(|inet| inet.port() == 0) else {
            continue;
        };
        let port = match chosen {
            Some(port) => port,
            None => server::free_port(inet)?,
        };
        chosen = Some(port);
        inet.set_port(port);
        *address = inet.into();
    }
    Ok(chosen)
}

/// Blocks every signal that can wait to be read, but for those of the terminal's job control; they are the
/// mask of the descriptor that they are read from.
pub(super) fn block_signals() -> io::Result<SigSet> {
    let mut mask = SigSet::all();
    for signal in [
        Signal::SIGABRT,
        Signal::SIGBUS,
        Signal::SIGFPE,
        Signal::SIGILL,
        Signal::SIGSEGV,
        Signal::SIGSYS,
        Signal::SIGTRAP,
        Signal::SIGPIPE,
        Signal::SIGTSTP,
        Signal::SIGTTIN,
        Signal::SIGTTOU,
        Signal::SIGCONT,
    ] {
        mask.remove(signal);
    }
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&mask), None)?;
    Ok(mask)
}

/// As many connections as the hard limit allows. The server has the soft limit that was configured.
pub(super) fn raise_open_files() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _as_before = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}
