//! Descriptors that are kept for what has to be done, however many clients there are.
//!
//! The soft limit (RLIMIT_NOFILE) is below the hard one, so that accept4(2) fails before the last
//! ones are taken, and the client stays in its queue. It is raised for what may take them: a start that finds
//! none, a connection that comes back, what workers send. A child raises its own.

use crate::sys;
use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};
use std::os::fd::RawFd;

/// How many are kept, where there are enough: as many as one message can bring (SCM_MAX_FD), and some
/// more for a start and its child.
const MOST: rlim_t = 320;
/// No more than one in so many is kept.
const SHARE: rlim_t = 4;

/// What is kept.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Reserve {
    /// The soft limit with it, and the hard one.
    all: Option<(rlim_t, rlim_t)>,
}

impl Reserve {
    /// Keeps some from now on. Where that cannot be done, none are.
    pub(super) fn keep() -> Reserve {
        let Ok((all, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
            return Reserve::default();
        };
        let others = all - MOST.min(all / SHARE);
        let is_kept = set(others).is_some();
        if is_kept {
            sys::keep_free_from(RawFd::try_from(others).unwrap_or(RawFd::MAX));
        }
        Reserve {
            all: is_kept.then_some((all, hard)),
        }
    }

    /// The limit with which a child begins.
    pub(super) fn of_child(self) -> Option<(rlim_t, rlim_t)> {
        self.all
    }

    /// Lets them be taken until the answer is dropped.
    pub(super) fn lend(self) -> Lent {
        Lent {
            before: self.all.and_then(|(all, _)| set(all)),
        }
    }
}

/// Sets the soft limit. Answers what it was; `None` if it stays so.
fn set(soft: rlim_t) -> Option<rlim_t> {
    let (before, hard) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
    // Somebody may have lowered the hard one (prlimit(2)).
    setrlimit(Resource::RLIMIT_NOFILE, soft.min(hard), hard).ok()?;
    Some(before)
}

/// The reserve may be taken.
#[must_use = "it is kept again when this is dropped"]
pub(super) struct Lent {
    before: Option<rlim_t>,
}

impl Drop for Lent {
    fn drop(&mut self) {
        // It was allowed before, and still is.
        let _as_before = self.before.and_then(set);
    }
}
