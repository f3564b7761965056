//! The clients that wait at a socket, so that a worker that has accepted none can be told from one that
//! has.
//!
//! Only what the kernel identifies counts: a connection in an accept queue. Messages have no
//! identity: two may be the same, byte by byte, and as many as before may be others. Nor has a
//! client that has hung up. Of those nothing is claimed.

use super::accept_queue::{self, diag_for};
use super::bound::BoundSocket;
use super::diag::Diag;
use super::overlap;
use crate::config::{Endpoint, SocketKind};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, recv};
use nix::sys::stat::fstat;
use socket2::SockRef;
use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};

/// The clients that waited at some sockets at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Waiters {
    /// The listener's inode, and the connection: its cookie (SO_COOKIE, socket(7)), or the inode of
    /// a unix client's socket.
    known: BTreeSet<(u64, u64)>,
    /// Whether a client waited that cannot be identified.
    has_unknown: bool,
}

/// The clients that wait at one listener.
struct Queue {
    /// The clients that the kernel identifies.
    clients: Vec<u64>,
    /// Whether there are others.
    and_others: bool,
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

/// The clients that wait at these sockets. One poll(2) if there are none; never blocks.
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
            Ok(Some((inode, queue))) => {
                let clients = queue.clients.into_iter();
                waiters.known.extend(clients.map(|client| (inode, client)));
                waiters.has_unknown |= queue.and_others;
            }
            // The client has gone meanwhile.
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
    let Endpoint::Inet { .. } = &socket.address else {
        return false;
    };
    if socket.address.accepts() {
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

/// The clients that wait at a readable socket; `None` where the kernel does not tell.
fn look(socket: &BoundSocket, diag: &mut Option<Diag>) -> io::Result<Option<(u64, Queue)>> {
    // The type differs between architectures; the conversion loses nothing.
    #[allow(clippy::unnecessary_cast)]
    let inode = fstat(&socket.fd)?.st_ino as u64;
    let queue = match socket.address.kind() {
        SocketKind::Tcp | SocketKind::Mptcp => match &socket.address {
            Endpoint::Inet { address, .. } => tcp_clients(socket, *address, diag)?,
            _ => None,
        },
        SocketKind::UnixStream | SocketKind::UnixSeqPacket => unix_clients(socket, inode, diag)?,
        SocketKind::Udp
        | SocketKind::UdpLite
        | SocketKind::UnixDatagram
        | SocketKind::VsockDatagram
        | SocketKind::Netlink
        | SocketKind::Fifo
        | SocketKind::MessageQueue
        | SocketKind::Sctp
        | SocketKind::VsockStream
        | SocketKind::VsockSeqPacket
        | SocketKind::Special => None,
    };
    Ok(queue.map(|queue| (inode, queue)))
}

/// Connections that no process has. Where another listener shares the port, some may be its own, and
/// the kernel does not tell whose they are.
fn tcp_clients(
    socket: &BoundSocket,
    address: SocketAddr,
    diag: &mut Option<Diag>,
) -> io::Result<Option<Queue>> {
    let Some(diag) = diag_for(socket, diag)? else {
        return Ok(None);
    };
    if overlap::is_taken_by_others(&socket.address, &[socket])? {
        return Ok(None);
    }
    let clients = diag.tcp_not_accepted(address)?;
    let Some((queued, _)) = accept_queue::tcp_queue(socket)? else {
        return Ok(None);
    };
    // Those in the queue that are not in the table have hung up and wait to be accepted all the same.
    let and_others = u64::from(queued) != clients.len() as u64;
    Ok(Some(Queue {
        clients,
        and_others,
    }))
}

fn unix_clients(
    socket: &BoundSocket,
    inode: u64,
    diag: &mut Option<Diag>,
) -> io::Result<Option<Queue>> {
    let Some(diag) = diag_for(socket, diag)? else {
        return Ok(None);
    };
    // 0 is one that has hung up.
    let queued = diag.unix_not_accepted(inode)?;
    let known = queued.iter().filter(|client| **client != 0);
    Ok(Some(Queue {
        clients: known.map(|client| u64::from(*client)).collect(),
        and_others: queued.contains(&0),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(cookies: &[u64], has_unknown: bool) -> Waiters {
        let client = |cookie: &u64| (7, *cookie);
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
