//! Whether clients use the sockets of a worker, as the kernel shows it.
//!
//! A queue is read from the held descriptor, and so is whether anybody has come since the last look
//! ([`sys::arrived`]). Who is connected stands in the tables of sock_diag(7): of TCP by address and port, of unix
//! sockets by the file or name of the listener, which each connection that was accepted bears. The tables of a
//! busy machine are long, so that part is for a process of its own.
//!
//! A TCP connection counts as long as one of its ends may still send something: until the server has sent
//! its last byte, and after that while a process has it. A unix connection counts as long as anybody has the
//! client's end.

use super::accept_queue::diag_for;
use super::bound::BoundSocket;
use super::diag::Diag;
use crate::config::{Endpoint, SocketKind};
use crate::sys::{self, Arrival};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::fstat;
use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;

/// What the sockets themselves show.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// A client or a datagram waits in the queue.
    pub waits: bool,
    /// A client has connected since the last look.
    pub has_come: bool,
}

/// What to look for in the tables.
#[derive(Debug, Default)]
pub struct Connections {
    /// The addresses of TCP listeners, and whether connections at other addresses of the same port count
    /// as well: those that an MPTCP connection has beside its first.
    tcp: Vec<(SocketAddr, bool)>,
    /// The inodes of unix listeners.
    unix: BTreeSet<u32>,
}

/// What waits at these sockets, and whether anything has come. From now on it is noticed what comes.
///
/// # Errors
///
/// The kernel does not tell what comes.
pub fn traffic(sockets: &[&BoundSocket]) -> io::Result<Traffic> {
    let mut traffic = Traffic::default();
    for socket in sockets {
        traffic.has_come |= sys::arrived(&socket.fd) == Arrival::Some;
        sys::watch_arrivals(&socket.fd)?;
    }
    // Only now: who comes in between is noticed.
    let descriptors = sockets.iter().map(|socket| socket.fd.as_fd());
    let asked = descriptors.map(|fd| PollFd::new(fd, PollFlags::POLLIN));
    let mut polled: Vec<PollFd<'_>> = asked.collect();
    poll(&mut polled, PollTimeout::ZERO)?;
    let readable = |events: PollFlags| events.contains(PollFlags::POLLIN);
    let mut events = polled.iter().map(|polled| polled.revents());
    traffic.waits = events.any(|events| events.is_none_or(readable));
    Ok(traffic)
}

impl Connections {
    /// Reads the connections of the clients of these sockets.
    ///
    /// # Errors
    ///
    /// No table that can be read has them.
    pub fn of(sockets: &[&BoundSocket]) -> io::Result<Connections> {
        let mut wanted = Connections::default();
        let mut diag = None;
        for socket in sockets.iter().filter(|socket| socket.address.accepts()) {
            if diag_for(socket, &mut diag)?.is_none() {
                return Err(io::Error::other("it is in another network namespace"));
            }
            match (&socket.address, socket.address.kind()) {
                (Endpoint::Inet { address, .. }, SocketKind::Tcp) => {
                    wanted.tcp.push((*address, false));
                }
                (Endpoint::Inet { address, .. }, SocketKind::Mptcp) => {
                    wanted.tcp.push((*address, true));
                }
                (Endpoint::Unix { .. }, _) => {
                    // The type differs between architectures; the conversion loses nothing.
                    #[allow(clippy::unnecessary_cast)]
                    let inode = fstat(&socket.fd)?.st_ino as u64;
                    let inode = u32::try_from(inode).map_err(|_| io::ErrorKind::InvalidData)?;
                    wanted.unix.insert(inode);
                }
                (_, kind) => {
                    let why = format!("the connections of {} are in no table", kind.word());
                    return Err(io::Error::other(why));
                }
            }
        }
        Ok(wanted)
    }

    /// Whether there can be any.
    pub fn is_empty(&self) -> bool {
        self.tcp.is_empty() && self.unix.is_empty()
    }

    /// Whether there are any. Reads whole tables of the kernel's.
    ///
    /// # Errors
    ///
    /// The kernel did not tell.
    pub fn exist(&self) -> io::Result<bool> {
        for (address, any_address) in &self.tcp {
            if Diag::new()?.tcp_is_connected(*address, *any_address)? {
                return Ok(true);
            }
        }
        if self.unix.is_empty() {
            return Ok(false);
        }
        Diag::new()?.unix_is_connected(&self.unix)
    }
}
