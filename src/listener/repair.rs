//! What a worker can do to a listener that it shares, and putting it right.
//!
//! A shut-down TCP listener listens again on the same descriptor. A unix socket cannot (Linux
//! keeps its shutdown for ever), and neither can one whose path is gone be found again: both are
//! bound anew, at the same path with the same rights. The old socket is kept until the new one
//! stands. Who waits in its queue by then is lost to listend, because a queue cannot be moved; but
//! a worker that still has the old socket may accept them. A worker has to be started again to get
//! the new socket.

use super::bind::{BindError, BindStep, Failure, bind_again};
use super::bound::{Bound, BoundSocket, PathIdentity, as_backlog, remove_if_ours};
use crate::config::{Endpoint, UnixName};
use crate::plan::{ListenerId, Plan};
use crate::sys;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::lstat;
use socket2::{Domain, SockRef, Socket};
use std::io;
use std::os::fd::AsFd;

/// What is wrong with a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    /// shutdown(2) was called on it: no client gets in any more.
    ShutDown,
    /// Its path has been unlinked or renamed: no client finds it.
    PathGone,
    /// Something else is at its path.
    PathReplaced,
}

/// How it was put right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repair {
    /// listen(2) on the same socket: every worker that has it can go on with it.
    ListenedAgain,
    /// By another socket: workers that run still have the old one.
    Rebound,
}

/// Undoes connect(2) of a datagram socket: connected, it hears its one peer only. Answers whether it
/// was.
///
/// # Errors
///
/// Those of connect(2) and bind(2): another process may have taken the port meanwhile.
pub(super) fn disconnect(socket: &BoundSocket) -> io::Result<bool> {
    let has_peers = match &socket.endpoint {
        Endpoint::Inet { .. } | Endpoint::Unix { .. } => !socket.endpoint.accepts(),
        Endpoint::Vsock { .. }
        | Endpoint::Fifo { .. }
        | Endpoint::MessageQueue { .. }
        | Endpoint::Special { .. }
        | Endpoint::Netlink { .. } => false,
    };
    let raw = SockRef::from(&socket.fd);
    if !has_peers || raw.peer_addr().is_err() {
        return Ok(false);
    }
    sys::disconnect(&socket.fd)?;
    if let Endpoint::Inet { address, .. } = socket.address {
        // A port that the kernel had chosen is gone with the peer (__udp_disconnect in net/ipv4).
        let local = raw.local_addr()?.as_socket();
        if local.is_none_or(|local| local.port() != address.port()) {
            raw.bind(&address.into())?;
        }
    }
    Ok(true)
}

/// Looks for damage. Three system calls at most, and none that waits.
pub fn inspect(socket: &BoundSocket) -> Option<Damage> {
    if is_shut_down(socket) {
        return Some(Damage::ShutDown);
    }
    let (path, identity) = (socket.address.path()?, socket.identity?);
    match lstat(path) {
        Ok(now) if PathIdentity::of(&now) == identity => None,
        Ok(_) => Some(Damage::PathReplaced),
        Err(Errno::ENOENT | Errno::ENOTDIR) => Some(Damage::PathGone),
        // It cannot be seen, and so nothing is known.
        Err(_) => None,
    }
}

/// Whether shutdown(2) keeps clients out.
///
/// Of an internet listener it takes the state of listening. A unix socket stays in that state, and
/// shows it only to poll(2); so does a datagram socket.
pub(super) fn is_shut_down(socket: &BoundSocket) -> bool {
    match &socket.endpoint {
        Endpoint::Inet { .. } | Endpoint::Vsock { .. } if socket.endpoint.accepts() => {
            matches!(SockRef::from(&socket.fd).is_listener(), Ok(false))
        }
        Endpoint::Inet { .. } | Endpoint::Unix { .. } => hangs_up(socket),
        _ => false,
    }
}

fn hangs_up(socket: &BoundSocket) -> bool {
    let ended = PollFlags::from_bits_retain(nix::libc::POLLRDHUP) | PollFlags::POLLHUP;
    let mut asked = [PollFd::new(socket.fd.as_fd(), ended)];
    let answered = poll(&mut asked, PollTimeout::ZERO).is_ok();
    // POLLRDHUP has no name in `PollFlags`, and so its answer comes as none at all.
    let ended = |events: PollFlags| events.contains(PollFlags::POLLHUP);
    answered && asked[0].revents().is_none_or(ended)
}

/// Repeats listen(2) on the socket, at the port that it had.
///
/// # Errors
///
/// Those of bind(2) and listen(2): another process may have taken the port meanwhile.
pub(super) fn listen_again(socket: &BoundSocket, backlog: u32) -> io::Result<()> {
    let raw = SockRef::from(&socket.fd);
    if let Endpoint::Inet { address: asked, .. } = socket.endpoint
        && let Endpoint::Inet { address, .. } = socket.address
        && asked.port() == 0
        && !raw.is_listener()?
    {
        // shutdown(2) took the port away, because the kernel had chosen it; without this,
        // listen(2) would take another. If it did not, bind(2) answers EINVAL.
        match raw.bind(&address.into()) {
            Err(error) if error.raw_os_error() != Some(nix::libc::EINVAL) => return Err(error),
            _ => {}
        }
    }
    raw.listen(as_backlog(backlog))
}

/// Puts one socket right, if something is wrong with it; `index` counts
/// [`crate::plan::ListenerPlan::sockets`]. `None` where nothing is wrong, and where nothing can be
/// done: a UDP socket stays shut down (it receives nevertheless, but poll(2) is never silent
/// again), and a unix socket that was adopted is for whoever bound it.
///
/// # Errors
///
/// What binding says. Whoever has taken port or path meanwhile keeps it; the damaged socket stays
/// in `bound`, and it may be tried again. An abstract name is free only when no worker has the old
/// socket any more: until then it is EADDRINUSE.
pub fn repair(
    plan: &Plan,
    bound: &mut Bound,
    listener: ListenerId,
    index: usize,
) -> Result<Option<Repair>, BindError> {
    let held = bound.listeners.get_mut(listener.0 as usize);
    let held = held.and_then(|held| held.sockets.iter_mut().find(|one| one.planned == index));
    let Some(socket) = held else {
        return Ok(None);
    };
    let Some(damage) = inspect(socket) else {
        return Ok(None);
    };
    match &socket.endpoint {
        Endpoint::Inet { .. } | Endpoint::Vsock { .. } if socket.endpoint.accepts() => {
            let backlog = plan.listener(listener).backlog;
            revive(socket, backlog).map_err(|failure| failure.of(listener, index))?;
            return Ok(Some(Repair::ListenedAgain));
        }
        Endpoint::Unix {
            name: UnixName::Abstract(_),
            ..
        } => {
            // The name is free only when the old socket is closed. An unbound one in its place is
            // seen to be as damaged, so that a failure can be tried again.
            let unbound = SockRef::from(&socket.fd)
                .r#type()
                .and_then(|kind| Socket::new(Domain::UNIX, kind, None))
                .map_err(|error| Failure::new(BindStep::Socket, error).of(listener, index))?;
            socket.fd = unbound.into();
        }
        _ => {
            let (Some(path), Some(identity)) = (socket.address.path(), socket.identity) else {
                return Ok(None);
            };
            if damage == Damage::ShutDown {
                // Ours, and of no use. What cannot be removed will be in the way of bind(2),
                // which says so.
                let _bind_tells = remove_if_ours(path, identity);
            }
        }
    }
    let lock = socket.traces.lock.clone();
    let endpoint = socket.address.clone();
    *socket = bind_again(plan, listener, index, &endpoint, lock)?;
    Ok(Some(Repair::Rebound))
}

fn revive(socket: &BoundSocket, backlog: u32) -> Result<(), Failure> {
    listen_again(socket, backlog).map_err(|error| Failure::new(BindStep::Listen, error))?;
    // A kernel that had taken the port away would have chosen another one.
    if let Endpoint::Inet { address, .. } = &socket.address {
        let now = SockRef::from(&socket.fd)
            .local_addr()
            .map_err(|error| Failure::new(BindStep::ReadBack, error))?;
        if now
            .as_socket()
            .is_none_or(|now| now.port() != address.port())
        {
            return Err(Failure::new(BindStep::ReadBack, Errno::EADDRINUSE));
        }
    }
    Ok(())
}
