//! Binding a socket beside one that goes away, though the kernel would not let both stand.
//!
//! `0.0.0.0:80` and `127.0.0.1:80` cannot both be bound, so that a change from one to the other
//! seems to need a moment with neither. But the kernel lets sockets of one user overlap if all have
//! SO_REUSEPORT, and looks at that flag of live sockets at the moment of bind(2) and listen(2)
//! (`inet_csk_bind_conflict`, `udp_lib_lport_inuse`). So it is set on the old socket for that moment
//! and cleared on both afterwards. The more specific address gets the connections; what waits in the
//! old queue stays there.
//!
//! For TCP the kernel remembers, as long as the port is in use, that it was shared: another process
//! of the same user that asks for SO_REUSEPORT could still bind the same address. A socket of the
//! other family at the same port, bound without the flag, makes it forget.

use super::bound::BoundSocket;
use super::diag::Diag;
use crate::config::options::{OptionSetting, OptionValue, by_key};
use crate::config::{Endpoint, Transport};
use crate::plan::ListenerPlan;
use crate::sys::sockopt;
use nix::libc;
use nix::sys::stat::fstat;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

const REUSE_PORT: &str = "reuse_port";

/// An address that belongs to the loopback and that hardly anybody listens on.
const OTHER_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 255, 255, 254));
/// The discard prefix (RFC 6666), which no machine has.
const OTHER_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 1));

/// Whether the kernel would not let both stand side by side, were it not for SO_REUSEPORT. Of two
/// sockets in one network namespace.
pub(super) fn overlap(one: &Endpoint, other: &Endpoint) -> bool {
    let (Some(one), Some(other)) = (place_of(one), place_of(other)) else {
        return false;
    };
    if (one.space, one.port) != (other.space, other.port) || one.port == 0 {
        return false;
    }
    one.covers(&other) || other.covers(&one)
}

#[derive(Debug, Clone, Copy)]
struct Place {
    space: Transport,
    ip: IpAddr,
    port: u16,
    v6_only: bool,
}

fn place_of(endpoint: &Endpoint) -> Option<Place> {
    match endpoint {
        Endpoint::Inet {
            transport,
            address,
            v6_only,
            ..
        } => Some(Place {
            // A multipath socket is a TCP socket to the kernel's table.
            space: match transport {
                Transport::Mptcp => Transport::Tcp,
                other => *other,
            },
            ip: address.ip().to_canonical(),
            port: address.port(),
            v6_only: *v6_only,
        }),
        Endpoint::Unix { .. }
        | Endpoint::Fifo { .. }
        | Endpoint::MessageQueue { .. }
        | Endpoint::Special { .. }
        | Endpoint::Netlink { .. }
        | Endpoint::Vsock { .. } => None,
    }
}

impl Place {
    fn covers(&self, other: &Place) -> bool {
        let same_family = self.ip.is_ipv4() == other.ip.is_ipv4();
        let is_dual = self.ip.is_ipv6() && !self.v6_only;
        self.ip == other.ip || (self.ip.is_unspecified() && (same_family || is_dual))
    }
}

/// Whether a socket that is none of these has the address, or one that overlaps with it, in the
/// network namespace that the process is in: it would go on having it when these have gone.
///
/// # Errors
///
/// Those of sock_diag(7): then it is not known.
pub(super) fn is_taken_by_others(wanted: &Endpoint, ours: &[&BoundSocket]) -> io::Result<bool> {
    let Some(wanted) = place_of(wanted) else {
        return Ok(false);
    };
    let protocol = match wanted.space {
        Transport::Tcp | Transport::Mptcp => libc::IPPROTO_TCP,
        Transport::Sctp => libc::IPPROTO_SCTP,
        Transport::Udp | Transport::UdpLite => return Err(io::ErrorKind::Unsupported.into()),
    };
    let mut inodes = Vec::with_capacity(ours.len());
    for socket in ours {
        // The type differs between architectures; the conversion loses nothing.
        #[allow(clippy::unnecessary_cast)]
        inodes.push(fstat(&socket.fd)?.st_ino as u64);
    }
    let there = Diag::new()?.inet_bound(protocol, wanted.port)?;
    Ok(there.into_iter().any(|one| {
        let place = Place {
            ip: one.ip.to_canonical(),
            v6_only: one.v6_only,
            ..wanted
        };
        let overlaps = place.covers(&wanted) || wanted.covers(&place);
        overlaps && !inodes.contains(&one.inode)
    }))
}

/// The same listener with SO_REUSEPORT; `None` if it has that anyway.
pub(super) fn shared(plan: &ListenerPlan) -> Option<ListenerPlan> {
    let spec = by_key(REUSE_PORT)?;
    if asks_for_it(plan) {
        return None;
    }
    let mut plan = plan.clone();
    plan.options.retain(|option| option.spec.key != REUSE_PORT);
    plan.options.push(OptionSetting {
        spec,
        value: OptionValue::Flag(true),
    });
    Some(plan)
}

pub(super) fn asks_for_it(plan: &ListenerPlan) -> bool {
    let mut options = plan.options.iter();
    options.any(|one| one.spec.key == REUSE_PORT && one.value == OptionValue::Flag(true))
}

/// Sets or clears SO_REUSEPORT on a live socket.
///
/// # Errors
///
/// Those of setsockopt(2).
pub(super) fn set(socket: &BoundSocket, on: bool) -> io::Result<()> {
    let value = libc::c_int::from(on);
    sockopt::set_int(&socket.fd, libc::SOL_SOCKET, libc::SO_REUSEPORT, value)
}

/// Clears it on a socket that was bound with the plan of [`shared`], and forgets that it was set.
pub(super) fn end(socket: &mut BoundSocket, plan: &ListenerPlan) -> io::Result<()> {
    set(socket, false)?;
    let asked = plan.options.iter().any(|one| one.spec.key == REUSE_PORT);
    socket.effective.retain(|one| one.key != REUSE_PORT);
    if asked && let Some(spec) = by_key(REUSE_PORT) {
        let is_off = super::read_back::Effective::of_number(spec, 0, Some(0));
        socket.effective.push(is_off);
    }
    Ok(())
}

/// Has the kernel forget that a TCP port was shared. Where another listener has the port on all
/// addresses of the other family, it cannot, and only the same user could make use of it. In the
/// network namespace of the socket.
pub(super) fn forget(socket: &BoundSocket) {
    let Endpoint::Inet { address, .. } = &socket.address else {
        return;
    };
    if !socket.endpoint.accepts() {
        return;
    }
    let ip = if address.is_ipv4() {
        OTHER_V6
    } else {
        OTHER_V4
    };
    let _best_effort = bind_and_close(SocketAddr::new(ip, address.port()));
}

fn bind_and_close(address: SocketAddr) -> io::Result<()> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
        socket.set_freebind_v6(true)?;
    } else {
        socket.set_freebind_v4(true)?;
    }
    socket.bind(&address.into())
}

/// Frees the port of a listener without closing it, which would not free it while a worker has it.
/// Who waits in its queue is lost. [`super::repair::listen_again`] takes it back.
///
/// # Errors
///
/// Those of shutdown(2).
pub(super) fn stop_listening(socket: &BoundSocket) -> io::Result<()> {
    SockRef::from(&socket.fd).shutdown(std::net::Shutdown::Both)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(address: &str, v6_only: bool) -> Endpoint {
        Endpoint::Inet {
            transport: Transport::Tcp,
            address: address.parse().unwrap(),
            v6_only,
            optional: false,
            scope: None,
        }
    }

    #[test]
    fn only_addresses_that_include_one_another_overlap() {
        for (one, other, wanted) in [
            (tcp("0.0.0.0:80", true), tcp("127.0.0.1:80", true), true),
            (tcp("[::]:80", true), tcp("[::1]:80", true), true),
            (tcp("[::]:80", true), tcp("127.0.0.1:80", true), false),
            (tcp("[::]:80", false), tcp("127.0.0.1:80", true), true),
            (tcp("[::]:80", false), tcp("[::]:80", true), true),
            (tcp("127.0.0.1:80", true), tcp("127.0.0.2:80", true), false),
            (tcp("0.0.0.0:80", true), tcp("127.0.0.1:81", true), false),
        ] {
            assert_eq!(overlap(&one, &other), wanted, "{one} {other}");
            assert_eq!(overlap(&other, &one), wanted, "{other} {one}");
        }
    }
}
