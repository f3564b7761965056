//! The limit on open files.

use crate::launch_spec::{self, Limit};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// The most open files that workers start with, if their definition says nothing of it.
const WORKERS: &str = "LISTEND_WORKER_NOFILE";

/// Raises the soft limit on open files to the hard one, and answers with both as they were: every
/// listener is a descriptor, and so is every instance.
pub(super) fn raise_open_files() -> Limit {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((1024, 4096));
    if let Err(errno) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        log::warn!("cannot raise the limit on open files from {soft} to {hard}: {errno}");
    }
    Limit {
        resource: launch_spec::Resource::Nofile,
        soft: Some(soft),
        hard: Some(hard),
    }
}

/// What workers start with, of what listend was started with: a service manager that keeps descriptors needs a
/// soft limit for listend that is not meant for them, and says what is (`LISTEND_WORKER_NOFILE`).
pub(super) fn for_workers(own: Limit) -> Limit {
    let Ok(text) = std::env::var(WORKERS) else {
        return own;
    };
    let Ok(most) = text.parse() else {
        log::warn!("{WORKERS}={text} is not a number; workers start with listend's own limit");
        return own;
    };
    Limit {
        soft: own.soft.map(|soft| soft.min(most)),
        ..own
    }
}

/// Puts the limit back to what it was, for a program that is executed next: select(2) knows no number
/// beyond 1023.
pub(super) fn restore_open_files(before: Limit) {
    if let (Some(soft), Some(hard)) = (before.soft, before.hard) {
        // The lower one can always be had.
        let _done = setrlimit(Resource::RLIMIT_NOFILE, soft, hard);
    }
}
