//! Descriptors that are kept for what has to be done, however many clients there are.
//!
//! The soft limit (RLIMIT_NOFILE) is below the hard one, so that accept4(2) fails before the last
//! ones are taken, and the client stays in its queue. It is raised for what may take them: a start that finds
//! none, a connection that comes back, what workers send. A child raises its own.

use crate::sys;
use nix::sys::epoll::{Epoll, EpollCreateFlags};
use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};
use std::os::fd::{AsRawFd, RawFd};

/// How many are kept, where there are enough: as many as one message can bring (SCM_MAX_FD), and some
/// more for a start and its child.
const MOST: rlim_t = 320;
/// No more than one in so many is kept, and no more than half of those that the listeners have left.
const SHARE: rlim_t = 4;

/// With fewer the loop cannot begin, or no worker can be started.
const FEWEST: usize = 16;

/// Whether the listeners have left descriptors for the loop and for a worker.
pub fn is_room_left() -> bool {
    let taken = (0..FEWEST).map(|_| Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC));
    taken.collect::<Result<Vec<_>, _>>().is_ok()
}

/// How many were taken when this one was made: it has the lowest number that was free. Those that are out of the
/// way ([`sys::out_of_the_way`]) have higher ones.
pub(super) fn taken(newest: &Epoll) -> usize {
    usize::try_from(newest.0.as_raw_fd()).unwrap_or(0)
}

/// What is kept.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Reserve {
    /// The soft limit with it, and the hard one.
    all: Option<(rlim_t, rlim_t)>,
    /// The first number in it.
    first: Option<RawFd>,
}

impl Reserve {
    /// Keeps some from now on, of those that are not `taken` already. Where that cannot be done, none are.
    pub(super) fn keep(taken: usize) -> Reserve {
        let Ok((all, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
            return Reserve::default();
        };
        let free = all.saturating_sub(taken as rlim_t);
        let others = all - MOST.min(all / SHARE).min(free / 2);
        let first = RawFd::try_from(others).unwrap_or(RawFd::MAX);
        let is_kept = set(others).is_some();
        if is_kept {
            sys::keep_free_from(first);
        }
        Reserve {
            all: is_kept.then_some((all, hard)),
            first: is_kept.then_some(first),
        }
    }

    /// From this number on descriptors belong to it: those below were taken when one got such a number.
    pub(super) fn first(self) -> RawFd {
        self.first.unwrap_or(RawFd::MAX)
    }

    /// The limit with which a child begins.
    pub(super) fn of_child(self) -> Option<(rlim_t, rlim_t)> {
        self.all
    }

    /// Lets them be taken until the answer is dropped.
    pub(super) fn lend(self) -> Lent {
        Lent {
            change: self.all.and_then(|(all, _)| set(all)),
        }
    }
}

/// A change of the soft limit.
#[derive(Debug, Clone, Copy)]
struct Change {
    before: rlim_t,
    after: rlim_t,
}

/// Sets the soft limit. `None` if it stays as it is.
fn set(soft: rlim_t) -> Option<Change> {
    let (before, hard) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
    // Somebody may have lowered the hard one (prlimit(2)).
    let after = soft.min(hard);
    setrlimit(Resource::RLIMIT_NOFILE, after, hard).ok()?;
    Some(Change { before, after })
}

/// The reserve may be taken.
#[must_use = "it is kept again when this is dropped"]
pub(super) struct Lent {
    change: Option<Change>,
}

impl Drop for Lent {
    fn drop(&mut self) {
        let Some(Change { before, after }) = self.change else {
            return;
        };
        // Unless somebody else has set another meanwhile (prlimit(2)).
        let is_as_lent = |(now, hard): (rlim_t, rlim_t)| (now == after).then_some(hard);
        let now = getrlimit(Resource::RLIMIT_NOFILE).ok();
        if let Some(hard) = now.and_then(is_as_lent) {
            // It was allowed before, and still is.
            let _as_before = setrlimit(Resource::RLIMIT_NOFILE, before.min(hard), hard);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_somebody_else_sets_meanwhile_stays() {
        let (all, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        let reserve = Reserve::keep(0);
        let kept = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        assert!(kept.0 < all);
        let lent = reserve.lend();
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE), Ok((all, hard)));
        drop(lent);
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE), Ok(kept));
        let lent = reserve.lend();
        setrlimit(Resource::RLIMIT_NOFILE, all - 1, hard).unwrap();
        drop(lent);
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE), Ok((all - 1, hard)));
        // What listeners have taken is not kept for something else.
        let left = [0, 200, 300, 390, 400, 500].map(|taken| {
            setrlimit(Resource::RLIMIT_NOFILE, 400, hard).unwrap();
            let _reserve = Reserve::keep(taken);
            getrlimit(Resource::RLIMIT_NOFILE).unwrap().0
        });
        assert_eq!(left, [300, 300, 350, 395, 400, 400]);
        setrlimit(Resource::RLIMIT_NOFILE, all, hard).unwrap();
    }
}
