//! Sockets that are given up, and of which another process closes its copies later.

use super::bind::{Outcome, bind_missing};
use super::bind_error::{BindError, BindStep};
use super::diag::Diag;
use super::given::endpoint_of;
use super::identity::remove_if_ours;
use super::record::bound_file;
use crate::config::Endpoint;
use crate::plan::{ListenerId, Plan};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::SockRef;
use std::collections::BTreeSet;
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};

/// How long it takes at most until it is noticed that one is closed of which the kernel does not tell: a unix, VSOCK or
/// SCTP socket, or one in another network namespace. In milliseconds.
const STEP: u16 = 20;

/// Sockets that are being closed.
#[derive(Debug, Default)]
pub struct Going {
    addresses: Vec<Endpoint>,
    /// Tells of sockets that are gone, where the kernel does.
    news: Option<Diag>,
}

impl Going {
    /// To be called before it is tried to bind, so that no news is missed.
    pub fn new(addresses: Vec<Endpoint>) -> Going {
        let news = match addresses.is_empty() {
            true => None,
            false => Diag::of_closed_sockets().ok(),
        };
        Going { addresses, news }
    }

    /// The listeners that could not be bound since one of these sockets is still there.
    pub fn blocked(&self, plan: &Plan, errors: &[BindError]) -> BTreeSet<ListenerId> {
        // In another network namespace nothing can be bound any more.
        if errors
            .iter()
            .any(|error| error.step == BindStep::LeaveNamespace)
        {
            return BTreeSet::new();
        }
        let blocked = errors.iter().filter(|error| {
            let wanted = &plan.listener(error.listener).sockets[error.socket].endpoint;
            let is_in_the_way = |one: &Endpoint| one == wanted || one.overlaps(wanted);
            error.errno == nix::libc::EADDRINUSE && self.addresses.iter().any(is_in_the_way)
        });
        blocked.map(|error| error.listener).collect()
    }

    /// Waits until a socket has been closed, or for a moment.
    pub fn wait(&self) {
        let mut news: Vec<PollFd<'_>> = Vec::new();
        news.extend(
            self.news
                .as_ref()
                .map(|diag| PollFd::new(diag.socket().as_fd(), PollFlags::POLLIN)),
        );
        // Whatever it answers, the next thing is to try again.
        let _ = poll(&mut news, PollTimeout::from(STEP));
        if let Some(diag) = &self.news {
            diag.forget_news();
        }
    }
}

/// Binds once more what these listeners lack.
pub fn bind_again(plan: &Plan, listeners: BTreeSet<ListenerId>, outcome: &mut Outcome) {
    outcome
        .errors
        .retain(|error| !listeners.contains(&error.listener));
    for listener in listeners {
        let (errors, notes) = bind_missing(plan, listener, &mut outcome.bound);
        outcome.errors.extend(errors);
        outcome.notes.extend(notes);
    }
    outcome
        .errors
        .sort_by_key(|error| (error.listener, error.socket));
}

/// Has nobody find a unix socket that is given up: until its last copy is closed, a server seems to be there.
///
/// # Errors
///
/// Its path cannot be removed.
pub fn hide(socket: &OwnedFd) -> io::Result<()> {
    // Where the kernel does not tell that it has the path, connect(2) does, which is refused now.
    let _best_effort = SockRef::from(socket).shutdown(Shutdown::Both);
    let endpoint = endpoint_of(socket);
    let path = endpoint.as_ref().and_then(Endpoint::path);
    match path.and_then(|path| Some((path, bound_file(socket, path)?))) {
        Some((path, file)) => remove_if_ours(path, file),
        None => Ok(()),
    }
}
