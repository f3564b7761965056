//! Taking one client out of a listener's accept queue.

use super::bound::BoundSocket;
use crate::config::{Endpoint, Transport, UnixName};
use crate::connection::{Credentials, End, Ends, Protocol};
use crate::sys::{self, SharedFd};
use nix::libc;
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use socket2::{SockAddr, SockRef};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

/// An accepted connection.
#[derive(Debug)]
pub struct Accepted {
    /// The descriptor, close-on-exec.
    pub fd: SharedFd,
    /// The addresses of its two ends.
    pub ends: Ends,
}

/// Why nobody was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotAccepted {
    /// The client has gone again, or somebody else took it, or the firewall refuses it: there is
    /// nothing to serve, and nothing to worry about.
    Gone,
    /// accept(2) failed for now with this errno, mostly EMFILE or ENFILE, and the client still waits.
    /// Trying again at once would only burn time.
    Exhausted(i32),
}

/// Accepts one client of a listener. The connection is non-blocking only if `nonblocking` says so:
/// Linux does not pass O_NONBLOCK on.
///
/// This never waits, whatever O_NONBLOCK of the listener says. Every process that has the listener can clear
/// it at any moment, and another process may have accepted the client that poll(2) showed. Where no other
/// process has had it, the two system calls for that are saved.
///
/// # Errors
///
/// See [`NotAccepted`].
pub fn accept(socket: &BoundSocket, nonblocking: bool) -> Result<Accepted, NotAccepted> {
    let flags = if nonblocking { libc::SOCK_NONBLOCK } else { 0 };
    let listener = SockRef::from(&socket.fd);
    let interrupted = match socket.nonblocking.is(true) {
        true => None,
        false => Some(sys::interrupt_soon().map_err(|error| no_timer(&error))?),
    };
    let accepted = listener.accept4(libc::SOCK_CLOEXEC | flags);
    drop(interrupted);
    let (connection, peer) = accepted.map_err(|error| why_not(&error))?;
    let protocol = protocol(&socket.address);
    let credentials = match protocol {
        Protocol::Unix => credentials(&connection),
        Protocol::Tcp | Protocol::Sctp | Protocol::Vsock => None,
    };
    let ends = Ends {
        protocol,
        local: local(socket, SockRef::from(&connection)),
        remote: end(&peer),
        credentials,
    };
    let fd = OwnedFd::from(connection);
    Ok(Accepted {
        fd: match &socket.address {
            Endpoint::Inet {
                transport: Transport::Tcp,
                ..
            } => SharedFd::tcp_connection(fd),
            _ => fd.into(),
        },
        ends,
    })
}

/// A user with too many pending signals has no timer (timer_create(2)).
fn no_timer(error: &io::Error) -> NotAccepted {
    NotAccepted::Exhausted(error.raw_os_error().unwrap_or(libc::EAGAIN))
}

/// accept(2) also reports errors of the connection that it was about to return.
fn why_not(error: &io::Error) -> NotAccepted {
    match error.raw_os_error().unwrap_or(libc::EIO) {
        libc::EAGAIN
        | libc::EINTR
        | libc::ECONNABORTED
        | libc::EPERM
        | libc::ENETDOWN
        | libc::EPROTO
        | libc::ENOPROTOOPT
        | libc::EHOSTDOWN
        | libc::ENONET
        | libc::EHOSTUNREACH
        | libc::EOPNOTSUPP
        | libc::ENETUNREACH => NotAccepted::Gone,
        errno => NotAccepted::Exhausted(errno),
    }
}

fn protocol(endpoint: &Endpoint) -> Protocol {
    match endpoint {
        Endpoint::Inet { transport, .. } => match transport {
            Transport::Sctp => Protocol::Sctp,
            // Those two accept nothing.
            Transport::Udp | Transport::UdpLite => Protocol::Tcp,
            Transport::Tcp | Transport::Mptcp => Protocol::Tcp,
        },
        Endpoint::Vsock { .. } => Protocol::Vsock,
        // Only unix sockets are left of those that accept.
        Endpoint::Unix { .. }
        | Endpoint::Fifo { .. }
        | Endpoint::MessageQueue { .. }
        | Endpoint::Special { .. }
        | Endpoint::Netlink { .. } => Protocol::Unix,
    }
}

/// Our end. Most listeners have one address, which then is that of every connection; the others are
/// asked for with getsockname(2).
fn local(listener: &BoundSocket, connection: SockRef<'_>) -> End {
    let asked = || connection.local_addr().ok().map(|address| end(&address));
    match &listener.address {
        Endpoint::Inet {
            address, transport, ..
        } => {
            let address = canonical(*address);
            let is_any = address.ip().is_unspecified();
            let is_known =
                !is_any && *transport != Transport::Sctp && !may_be_transparent(listener);
            let asked = if is_known { None } else { asked() };
            asked.unwrap_or(End::Inet(address))
        }
        Endpoint::Unix { name, .. } => match name {
            UnixName::Path(path) => End::Path(path.clone()),
            UnixName::Abstract(name) => End::Abstract(name.clone().into_bytes()),
        },
        Endpoint::Vsock { cid, port, .. } => {
            let (cid, port) = (*cid, *port);
            let asked = if cid == libc::VMADDR_CID_ANY {
                asked()
            } else {
                None
            };
            asked.unwrap_or(End::Vsock { cid, port })
        }
        Endpoint::Fifo { .. }
        | Endpoint::MessageQueue { .. }
        | Endpoint::Special { .. }
        | Endpoint::Netlink { .. } => End::Unnamed,
    }
}

/// Whether the listener accepts connections to addresses that it is not bound to (IP_TRANSPARENT,
/// ip(7)). For an adopted socket that may have been set before.
fn may_be_transparent(listener: &BoundSocket) -> bool {
    let is_transparent = |key: &str| key == "transparent";
    listener.is_adopted
        || listener
            .effective
            .iter()
            .any(|option| is_transparent(option.key))
}

fn end(address: &SockAddr) -> End {
    if let Some(inet) = address.as_socket() {
        return End::Inet(canonical(inet));
    }
    if let Some(path) = address.as_pathname() {
        return End::Path(path.to_owned());
    }
    if let Some(name) = address.as_abstract_namespace() {
        return End::Abstract(name.to_owned());
    }
    match address.as_vsock_address() {
        Some((cid, port)) => End::Vsock { cid, port },
        None => End::Unnamed,
    }
}

/// IPv4 over a dual-stack socket is IPv4 to everybody who is told.
fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        four @ IpAddr::V4(_) => SocketAddr::new(four, address.port()),
        IpAddr::V6(_) => address,
    }
}

/// The kernel knows them of every connected unix socket; where it does not tell, nobody does.
fn credentials(connection: &socket2::Socket) -> Option<Credentials> {
    let peer = getsockopt(connection, PeerCredentials).ok()?;
    Some(Credentials {
        pid: peer.pid(),
        uid: peer.uid(),
        gid: peer.gid(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_a_connection_are_told_from_those_of_the_machine() {
        let why = |errno| why_not(&io::Error::from_raw_os_error(errno));
        for errno in [libc::EAGAIN, libc::ECONNABORTED, libc::EPERM, libc::EPROTO] {
            assert_eq!(why(errno), NotAccepted::Gone);
        }
        for errno in [
            libc::EMFILE,
            libc::ENFILE,
            libc::ENOMEM,
            libc::ENOBUFS,
            libc::EBADF,
        ] {
            assert_eq!(why(errno), NotAccepted::Exhausted(errno));
        }
    }

    #[test]
    fn mapped_addresses_become_ipv4_and_others_keep_their_scope() {
        let mapped = canonical("[::ffff:192.0.2.1]:80".parse().unwrap());
        assert_eq!(mapped, "192.0.2.1:80".parse().unwrap());
        let scoped: SocketAddr = "[fe80::1%3]:80".parse().unwrap();
        assert_eq!(canonical(scoped), scoped);
    }
}
