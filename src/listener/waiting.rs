//! Who waits at a socket, so that a worker that has taken nobody can be told from one that has.
//!
//! Identities, not numbers: one client may have been served while the next one came. Where the
//! kernel does not tell who waits, nothing is claimed.

use super::bound::BoundSocket;
use super::depth::{self, Memory, diag_for};
use super::diag::Diag;
use crate::config::{Endpoint, SocketKind};
use crate::sys;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, recv};
use nix::sys::stat::fstat;
use socket2::SockRef;
use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};

/// How much of a message is looked at.
const PEEKED: usize = 512;

/// Who waited at some sockets at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Waiters {
    /// The socket's inode, and who it was.
    known: BTreeSet<(u64, Waiter)>,
    /// Whether somebody waited of whom nothing is known.
    has_unknown: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Waiter {
    /// A connection's cookie (SO_COOKIE, socket(7)), or the inode of a unix client's socket.
    Client(u64),
    /// The n-th client that has gone while it was in the queue: all of these look the same.
    Gone(u64),
    /// The first message, as a hash of what can be seen of it and of what lies behind it.
    Message(u64),
    /// How much there is to read: bytes, or messages.
    Amount(u64),
}

impl Waiters {
    /// Whether nobody waited.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty() && !self.has_unknown
    }

    /// Whether everybody who waited `before` still waits. Only then: not when nobody waited, and not
    /// when it is not known who did.
    pub fn none_was_taken(&self, before: &Waiters) -> bool {
        let all_known = !before.known.is_empty() && !before.has_unknown;
        all_known && before.known.is_subset(&self.known)
    }
}

/// Who waits at these sockets. One poll(2) if nobody does; never waits itself.
pub fn waiters(sockets: &[&BoundSocket]) -> Waiters {
    let descriptors = sockets.iter().map(|socket| socket.fd.as_fd());
    let asked = descriptors.map(|fd| PollFd::new(fd, PollFlags::POLLIN));
    let mut polled: Vec<PollFd<'_>> = asked.collect();
    let mut waiters = Waiters::default();
    if poll(&mut polled, PollTimeout::ZERO).is_err() {
        waiters.has_unknown = true;
        return waiters;
    }
    let mut diag = None;
    for (socket, polled) in sockets.iter().zip(&polled) {
        let readable = |events: PollFlags| events.contains(PollFlags::POLLIN);
        if !polled.revents().is_none_or(readable) {
            continue;
        }
        match look(socket, &mut diag) {
            Ok(Some((inode, who))) => {
                waiters
                    .known
                    .extend(who.into_iter().map(|who| (inode, who)));
            }
            // Whoever it was has gone meanwhile.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Ok(None) | Err(_) => waiters.has_unknown = true,
        }
    }
    waiters
}

/// Takes the errors of messages that were sent from a UDP socket by somebody who has not read them
/// (IP_RECVERR, ip(7)): they make it ready for ever, and there is no client behind them. Answers
/// whether it is such a socket.
pub fn forget_errors(socket: &BoundSocket) -> bool {
    let Endpoint::Inet { .. } = &socket.endpoint else {
        return false;
    };
    if socket.endpoint.accepts() {
        return false;
    }
    let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
    // Each holds some of the message that was sent.
    let mut bytes = [0; 1];
    while recv(socket.fd.as_raw_fd(), &mut bytes, flags).is_ok() {}
    // Last, because each that is taken leaves its errno here.
    let _forgotten = SockRef::from(&socket.fd).take_error();
    true
}

/// Who waits at a socket that is readable; `None` where the kernel does not tell.
fn look(socket: &BoundSocket, diag: &mut Option<Diag>) -> io::Result<Option<(u64, Vec<Waiter>)>> {
    // The type differs between architectures; the conversion loses nothing.
    #[allow(clippy::unnecessary_cast)]
    let inode = fstat(&socket.fd)?.st_ino as u64;
    let who = match socket.address.kind() {
        SocketKind::Tcp | SocketKind::Mptcp => match &socket.address {
            Endpoint::Inet { address, .. } => tcp_clients(socket, *address, diag)?,
            _ => None,
        },
        SocketKind::UnixStream | SocketKind::UnixSeqPacket => unix_clients(socket, inode, diag)?,
        SocketKind::Udp => match &socket.address {
            Endpoint::Inet { address, .. } => datagram(socket, inode, *address, diag)?,
            _ => None,
        },
        SocketKind::UdpLite
        | SocketKind::UnixDatagram
        | SocketKind::VsockDatagram
        | SocketKind::Netlink => {
            let received = Memory::of(socket)?.received;
            Some(vec![message(socket, Some(received))?])
        }
        SocketKind::Fifo => Some(vec![Waiter::Amount(sys::bytes_to_read(&socket.fd)?)]),
        SocketKind::MessageQueue => Some(vec![Waiter::Amount(sys::queue_length(&socket.fd)?)]),
        SocketKind::Sctp
        | SocketKind::VsockStream
        | SocketKind::VsockSeqPacket
        | SocketKind::Special => None,
    };
    Ok(who.map(|who| (inode, who)))
}

/// Connections that no process has, less what cannot be ours: a listener that shares the port may
/// have clients too, and the kernel does not tell whose they are.
fn tcp_clients(
    socket: &BoundSocket,
    address: SocketAddr,
    diag: &mut Option<Diag>,
) -> io::Result<Option<Vec<Waiter>>> {
    let Some(diag) = diag_for(socket, diag)? else {
        return Ok(None);
    };
    let cookies = diag.tcp_not_accepted(address)?;
    let Some((queued, _)) = depth::tcp_queue(socket)? else {
        return Ok(None);
    };
    // Those in the queue that are not in the table have hung up and wait to be accepted all the same.
    let gone = u64::from(queued).checked_sub(cookies.len() as u64);
    Ok(gone.map(|gone| {
        let clients = cookies.into_iter().map(Waiter::Client);
        clients.chain((0..gone).map(Waiter::Gone)).collect()
    }))
}

fn unix_clients(
    socket: &BoundSocket,
    inode: u64,
    diag: &mut Option<Diag>,
) -> io::Result<Option<Vec<Waiter>>> {
    let Some(diag) = diag_for(socket, diag)? else {
        return Ok(None);
    };
    let mut gone = 0;
    let clients = diag.unix_not_accepted(inode)?.into_iter();
    let who = clients.map(|client| match client {
        0 => {
            gone += 1;
            Waiter::Gone(gone)
        }
        inode => Waiter::Client(inode.into()),
    });
    Ok(Some(who.collect()))
}

/// A client that hears nothing sends the same again, so what lies behind the first datagram counts
/// too. SO_MEMINFO does not tell, because UDP lets go of memory later than of datagrams.
fn datagram(
    socket: &BoundSocket,
    inode: u64,
    address: SocketAddr,
    diag: &mut Option<Diag>,
) -> io::Result<Option<Vec<Waiter>>> {
    let Some(diag) = diag_for(socket, diag)? else {
        return Ok(None);
    };
    let queued = diag.udp_queued(address, inode)?;
    match queued {
        Some(_) => Ok(Some(vec![message(socket, queued)?])),
        None => Ok(None),
    }
}

/// The first message: its sender, length and first bytes; and how much memory all messages take. On
/// a unix socket that memory is the sender's, so that there two of the same are one.
fn message(socket: &BoundSocket, memory: Option<u32>) -> io::Result<Waiter> {
    let mut bytes = [0; PEEKED];
    let message = sys::peek_message(&socket.fd, &mut bytes)?;
    let mut hasher = DefaultHasher::new();
    bytes[..message.length.min(PEEKED)].hash(&mut hasher);
    (message.length, message.sender, memory).hash(&mut hasher);
    Ok(Waiter::Message(hasher.finish()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(cookies: &[u64], has_unknown: bool) -> Waiters {
        let client = |cookie: &u64| (7, Waiter::Client(*cookie));
        Waiters {
            known: cookies.iter().map(client).collect(),
            has_unknown,
        }
    }

    #[test]
    fn only_who_is_known_and_still_there_was_not_taken() {
        let before = of(&[1, 2], false);
        assert!(of(&[1, 2], false).none_was_taken(&before));
        // Others may have come, known or not.
        assert!(of(&[1, 2, 3], true).none_was_taken(&before));
        assert!(!of(&[2, 3], false).none_was_taken(&before));
        assert!(!of(&[], true).none_was_taken(&before));
        assert!(!of(&[1], false).none_was_taken(&of(&[], false)));
        // Somebody else may have been taken, of whom nothing is known.
        assert!(!of(&[1], false).none_was_taken(&of(&[1], true)));
        assert!(of(&[], false).is_empty() && !of(&[], true).is_empty());
    }
}
