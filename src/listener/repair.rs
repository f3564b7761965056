//! Damage that a worker can do to a listener that it shares, and its repair.
//!
//! A shut-down TCP listener listens again on the same descriptor, and is then asked whether clients
//! get through: one that was shut down twice closes each of them (`sk_shutdown` outlives listen(2)),
//! and one that was connected cannot listen. connect(2) to AF_UNSPEC undoes both. A unix socket
//! cannot listen again (Linux keeps its shutdown for ever), and neither can one whose file is gone be
//! found again: both are bound anew, at the same path with the same rights, as is a TCP listener that
//! a worker has made of no use for good, and one whose network namespace was made again. A path that
//! was removed comes back as the same socket, as long as its file has another name ([`super::spare`]). The old socket is kept until the new one
//! stands. Who waits in its queue by then is lost to listend, because a queue cannot be moved; but
//! a worker that still has the old socket may accept them. A worker has to be started again to get
//! the new socket.

use super::backlog::as_backlog;
use super::bind::bind_again;
use super::bind_error::{BindError, BindStep, Failure};
use super::bound::{BoundSocket, KnownFlag};
use super::identity::{PathIdentity, Rights, remove_if_ours};
use super::namespace::{in_namespace_of, is_left_behind};
use super::table::SocketTable;
use super::{accept_queue, spare, symlink, unix_path};
use crate::config::{Endpoint, SocketKind, UnixName};
use crate::plan::{Access, ListenerPlan, Plan, SocketKey};
use crate::sys::{self, sockopt};
use crate::walk::Place;
use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::{fstat, lstat};
use socket2::{Domain, SockRef, Socket};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// The number of calls of listen(2) while another process shuts the socket down in between.
const REVIVALS: u32 = 3;

/// The damage of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    /// shutdown(2) was called on it: no client gets in any more.
    ShutDown,
    /// The path of the socket was unlinked or renamed: no client finds it.
    PathGone,
    /// Another file is at the path.
    PathReplaced,
    /// The owner, group or mode of the path was changed.
    RightsChanged,
    /// A symbolic link that leads to its path has been removed or replaced.
    LinkGone,
    /// Another network namespace is where the listener's was.
    NamespaceReplaced,
}

/// The way in which a listener was repaired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repair {
    /// listen(2) on the same socket: every worker that has it can go on with it.
    ListenedAgain,
    /// The file has its path, its rights or its links again: it is the same socket.
    PutBack,
    /// Repaired by another socket: running workers still have the old one.
    Rebound,
    /// The same, in the network namespace that has taken the place of the former one.
    Followed,
}

/// Undoes connect(2) of a datagram socket: connected, it hears its one peer only. Answers whether it
/// was.
///
/// # Errors
///
/// The errors of connect(2) and bind(2): another process may have taken the port meanwhile.
pub(super) fn disconnect(socket: &BoundSocket) -> io::Result<bool> {
    let has_peers = match &socket.address {
        Endpoint::Inet { .. } | Endpoint::Unix { .. } => !socket.address.accepts(),
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

/// Looks for damage of a socket, and whether it still is in the network namespace of its listener.
pub fn inspect_of(listener: &ListenerPlan, socket: &BoundSocket) -> Option<Damage> {
    if is_left_behind(listener, socket) {
        return Some(Damage::NamespaceReplaced);
    }
    inspect(socket)
}

/// Looks for damage. A few system calls, and none that waits.
pub fn inspect(socket: &BoundSocket) -> Option<Damage> {
    if is_shut_down(socket) {
        return Some(Damage::ShutDown);
    }
    if let Endpoint::MessageQueue { .. } = socket.address {
        let is_unlinked = socket.created && fstat(&socket.fd).is_ok_and(|file| file.st_nlink == 0);
        return is_unlinked.then_some(Damage::PathGone);
    }
    let (path, identity) = (socket.address.path()?, socket.identity?);
    match lstat(path) {
        Ok(now) if PathIdentity::of(&now) == identity => {
            let artifacts = &socket.artifacts;
            if artifacts
                .rights
                .is_some_and(|rights| rights != Rights::of(&now))
            {
                return Some(Damage::RightsChanged);
            }
            let are_there = symlink::all_lead_to(path, &artifacts.symlinks);
            (!are_there).then_some(Damage::LinkGone)
        }
        Ok(_) => Some(Damage::PathReplaced),
        Err(Errno::ENOENT | Errno::ENOTDIR) => Some(Damage::PathGone),
        // It cannot be seen, and so nothing is known.
        Err(_) => None,
    }
}

/// Whether shutdown(2) keeps clients out.
///
/// Of an internet listener it takes the state of listening, or leaves a mark that outlives listen(2).
/// A unix socket stays in that state, and shows it only to poll(2); so does a datagram socket.
fn is_shut_down(socket: &BoundSocket) -> bool {
    match &socket.address {
        Endpoint::Inet { .. } | Endpoint::Vsock { .. } if socket.address.accepts() => {
            does_not_listen(socket) || closes_clients(socket)
        }
        Endpoint::Inet { .. } | Endpoint::Unix { .. } => hangs_up(socket),
        _ => false,
    }
}

fn does_not_listen(socket: &BoundSocket) -> bool {
    matches!(SockRef::from(&socket.fd).is_listener(), Ok(false))
}

/// Whether a TCP listener listens, and the kernel closes each client before anybody can accept it:
/// shutdown(2) of a socket that does not listen answers ENOTCONN, and sets `sk_shutdown` nevertheless
/// (inet_shutdown in net/ipv4/af_inet.c), which every connection inherits.
///
/// `false` where the kernel does not tell, as of a listener in another network namespace.
fn closes_clients(socket: &BoundSocket) -> bool {
    let Endpoint::Inet { address, .. } = &socket.address else {
        return false;
    };
    if socket.address.kind() != SocketKind::Tcp {
        return false;
    }
    let ask = || {
        let mut diag = None;
        let cookie = sockopt::get_u64(&socket.fd, libc::SOL_SOCKET, libc::SO_COOKIE)?;
        match accept_queue::diag_for(socket, &mut diag)? {
            Some(diag) => diag.tcp_shutdown(*address, cookie),
            None => Ok(None),
        }
    };
    matches!(ask(), Ok(Some(how)) if how != 0)
}

fn hangs_up(socket: &BoundSocket) -> bool {
    let ended = PollFlags::from_bits_retain(libc::POLLRDHUP) | PollFlags::POLLHUP;
    let mut asked = [PollFd::new(socket.fd.as_fd(), ended)];
    let answered = poll(&mut asked, PollTimeout::ZERO).is_ok();
    // POLLRDHUP has no name in `PollFlags`, and so its answer comes as none at all.
    let ended = |events: PollFlags| events.contains(PollFlags::POLLHUP);
    answered && asked[0].revents().is_none_or(ended)
}

/// Repeats listen(2) on the socket, at the address that it had, after undoing what keeps it from
/// listening. Answers whether there was something to undo.
///
/// # Errors
///
/// The errors of bind(2) and listen(2): another process may have taken the port meanwhile.
pub(super) fn listen_again(socket: &BoundSocket, backlog: u32) -> io::Result<bool> {
    let raw = SockRef::from(&socket.fd);
    let was_shut_down = match socket.address {
        // It cannot be undone, and listen(2) does no harm.
        Endpoint::Unix { .. } => hangs_up(socket),
        _ => does_not_listen(socket),
    };
    if was_shut_down {
        reset(socket)?;
    }
    raw.listen(as_backlog(backlog))?;
    Ok(was_shut_down)
}

/// Makes a socket listen again, also one that seems to listen, and proves that clients get through.
fn revive(socket: &BoundSocket, backlog: u32) -> Result<(), Failure> {
    let mut done = Ok(false);
    // A process that shuts it down between our two calls leaves the same mark again.
    for _ in 0..REVIVALS {
        if closes_clients(socket) {
            let reset = reset(socket);
            reset.map_err(|error| Failure::new(BindStep::Bind, error))?;
        }
        done = listen_again(socket, backlog);
        if done.is_err() || !is_shut_down(socket) {
            break;
        }
        done = Err(Errno::ESHUTDOWN.into());
    }
    done.map_err(|error| Failure::new(BindStep::Listen, error))?;
    if let Endpoint::Inet { address, .. } = &socket.address {
        let now = SockRef::from(&socket.fd)
            .local_addr()
            .map_err(|error| Failure::new(BindStep::ReadBack, error))?;
        let now = now.as_socket();
        // A kernel that had taken the port away would have chosen another one.
        if now.is_none_or(|now| now.port() != address.port()) {
            return Err(Failure::new(BindStep::ReadBack, Errno::EADDRINUSE));
        }
        if now.is_none_or(|now| now.ip() != address.ip()) {
            return Err(Failure::new(BindStep::ReadBack, Errno::EADDRNOTAVAIL));
        }
    }
    Ok(())
}

/// Makes of an internet socket what it was between bind(2) and listen(2). A connection is reset: what
/// it had not sent is gone, so that nothing ever waits for it (SO_LINGER).
fn reset(socket: &BoundSocket) -> io::Result<()> {
    let Endpoint::Inet { address, .. } = &socket.address else {
        return Ok(());
    };
    // A protocol that has no such thing refuses, and then listen(2) tells what it can.
    let _listen_tells = sys::disconnect(&socket.fd);
    if !socket.port_chosen {
        return Ok(());
    }
    // shutdown(2) took the port away, because the kernel had chosen it; without this, listen(2)
    // would take another. If it did not, bind(2) answers EINVAL.
    match SockRef::from(&socket.fd).bind(&(*address).into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINVAL) => Err(error),
        _ => Ok(()),
    }
}

/// Puts one socket of the plan right, if something is wrong with it. `None` where nothing is wrong, and
/// where nothing can be done: a UDP socket stays shut down (it receives nevertheless, but poll(2) is
/// never silent again), and a unix socket that was adopted is left to the process that bound it.
///
/// # Errors
///
/// The errors of binding. A process that has taken port or path meanwhile keeps it; the damaged socket stays
/// in `bound`, and it may be tried again. An abstract name is free only when no worker has the old
/// socket any more: until then it is EADDRINUSE.
pub fn repair(
    plan: &Plan,
    bound: &mut SocketTable,
    key: SocketKey,
) -> Result<Option<Repair>, BindError> {
    let Some(socket) = bound.sockets.get_mut(&key) else {
        return Ok(None);
    };
    let listener = socket.listener;
    let entry = plan.listeners.get(&listener);
    let Some((entry, index)) = entry.and_then(|entry| Some((entry, entry.position(key)?))) else {
        // The plan has it no more.
        return Ok(None);
    };
    let Some(damage) = inspect_of(entry, socket) else {
        return Ok(None);
    };
    match &socket.address {
        // The address is free there. The old socket stays as it is until then: its clients may be there yet.
        _ if damage == Damage::NamespaceReplaced => {}
        Endpoint::Inet { .. } | Endpoint::Vsock { .. } if socket.address.accepts() => {
            let done = in_namespace_of(entry, || revive(socket, entry.settings.backlog));
            match done.map_err(|failure| failure.of(listener, index)) {
                Ok(()) => {
                    bound.listens_again(key);
                    return Ok(Some(Repair::ListenedAgain));
                }
                // Another process has the port, and would keep it from a new socket as well.
                Err(error) if error.errno == libc::EADDRINUSE => return Err(error),
                // There are things that a socket keeps for ever (TCP_ULP, IPV6_ADDRFORM).
                Err(_) => {}
            }
            // Both are bound to it for a moment, which the kernel permits as long as neither listens.
            let _bind_tells = SockRef::from(&socket.fd).set_reuse_address(true);
            // Closed when it is replaced: a connection would wait there for what it has not sent.
            let _bind_tells = sys::disconnect(&socket.fd);
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
            socket.fd = OwnedFd::from(unbound).into();
            socket.nonblocking = KnownFlag::clear();
        }
        // A queue that was unlinked cannot be named again.
        Endpoint::MessageQueue { .. } => {}
        _ => {
            let (Some(path), Some(identity)) = (socket.address.path(), socket.identity) else {
                return Ok(None);
            };
            if damage == Damage::ShutDown {
                // Ours, and of no use. What cannot be removed will be in the way of bind(2),
                // which says so.
                let _bind_tells = remove_if_ours(path, identity);
                let _does_without = socket.remove_spare();
            } else if put_back(socket, damage, (path, identity), entry.settings.access) {
                let links = &socket.artifacts.symlinks;
                symlink::make(
                    path,
                    links,
                    &entry.settings.access,
                    &mut bound.created_folders,
                )
                .map_err(|failure| failure.of(listener, index))?;
                return Ok(Some(Repair::PutBack));
            }
        }
    }
    let endpoint = socket.address.clone();
    let slot = socket.slot.get();
    **socket = bind_again(plan, listener, index, &endpoint)?;
    socket.slot.set(slot);
    if damage == Damage::NamespaceReplaced {
        bound.listens_elsewhere(key, |one| !is_left_behind(entry, one));
        return Ok(Some(Repair::Followed));
    }
    bound.listens_again(key);
    Ok(Some(Repair::Rebound))
}

/// Gives the file of a unix socket or FIFO its path and its rights again. Answers whether they are as
/// they were.
fn put_back(
    socket: &BoundSocket,
    damage: Damage,
    (path, identity): (&Path, PathIdentity),
    access: Access,
) -> bool {
    match damage {
        Damage::PathGone | Damage::PathReplaced => {
            let Endpoint::Unix { kind, .. } = &socket.address else {
                return false;
            };
            if socket.artifacts.spare.is_none() || !spare::put_back(*kind, path, identity) {
                return false;
            }
        }
        Damage::ShutDown | Damage::RightsChanged | Damage::LinkGone | Damage::NamespaceReplaced => {
        }
    }
    let Some(rights) = socket.artifacts.rights else {
        return true;
    };
    let found = Place::of(path).map(|place| spare::handle_on(&place, identity));
    let Ok(Ok((handle, found))) = found else {
        return false;
    };
    if Rights::of(&found) == rights {
        return true;
    }
    let access = Access {
        owner: Some(rights.uid),
        group: Some(rights.gid),
        mode: rights.mode,
        ..access
    };
    unix_path::give_rights(path, &access, &handle, &found).is_ok()
}
