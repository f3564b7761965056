//! `listend sandbox-exec`: what a launch executes before a worker's program, to set up its sandbox.

use super::exit::Exit;
use crate::confine::{self, Order};
use crate::stage::{LaunchFailure, Stage};
use crate::sys;
use crate::worker;
use std::ffi::OsString;
use std::os::fd::{OwnedFd, RawFd};

/// Whether these are the arguments of it. It is looked for before all else: every start of a worker with a
/// sandbox waits for it.
pub(super) fn is_meant(arguments: &[OsString]) -> bool {
    arguments
        .get(1)
        .is_some_and(|word| word == worker::SANDBOX_EXEC)
}

/// Returns only on failure, which it has told.
pub(super) fn sandbox_exec(arguments: &[OsString]) -> Exit {
    let number = |index: usize| -> Option<RawFd> { arguments.get(index)?.to_str()?.parse().ok() };
    let (Some(order), Some(status)) = (number(2), number(3)) else {
        super::output::complain("`listend sandbox-exec` is called by listend itself");
        return Exit::Usage;
    };
    let (Ok(order), Ok(status)) = (sys::take_descriptor(order), sys::take_descriptor(status))
    else {
        super::output::complain("`listend sandbox-exec` is called by listend itself");
        return Exit::Usage;
    };
    // Nobody reads it if listend has ended; then this ends as well.
    let _told = sys::tell_failure(&status, &failure(order));
    Exit::Internal
}

fn failure(order: OwnedFd) -> LaunchFailure {
    let order = match Order::read(order) {
        Ok(order) => order,
        Err(error) => {
            let errno = error.raw_os_error().unwrap_or(nix::libc::EIO);
            return LaunchFailure::new(Stage::Prepare, errno, error.to_string());
        }
    };
    let mut failure = confine::carry_out(&order);
    if failure.reason.as_ref().is_none_or(String::is_empty) {
        let folder = order.working_directory.as_deref();
        let program = confine::program_of(&order);
        let credentials = order.credentials.as_ref();
        let mut why = worker::explain_inside(&failure, credentials, program, folder);
        let path = match failure.stage {
            Stage::Exec => Some(program),
            Stage::WorkingDirectory => folder,
            _ => None,
        };
        if let Some(hidden) = path.and_then(|path| confine::hides(&order, path)) {
            why.push_str("; ");
            why.push_str(&hidden);
        }
        failure.reason = Some(why);
    }
    failure
}
