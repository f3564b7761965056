//! Processes of a listend before that cannot be supervised: they go when what replaces them is ready.

use crate::sys;
use std::os::fd::OwnedFd;

/// One of them.
#[derive(Debug)]
pub(super) struct Stray {
    /// The instance that the process was: `app.0`.
    pub(super) name: String,
    pub(super) pid: i32,
    pub(super) pidfd: OwnedFd,
}

/// Asks all of them to stop.
pub(super) fn release(strays: Vec<Stray>) {
    for Stray { name, pid, pidfd } in strays {
        match sys::send_signal(&pidfd, nix::libc::SIGTERM) {
            Ok(()) => log::info!("{name} (pid {pid}) of the listend before was asked to stop"),
            Err(error) => log::info!("{name} (pid {pid}) of the listend before: SIGTERM: {error}"),
        }
    }
}
