//! The limit on open files.

use crate::launch_spec::{self, Limit};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

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
