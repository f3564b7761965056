//! TCP, UDP and their kin.

use super::backlog::as_backlog;
use super::bind_error::{BindStep, Failure};
use super::option::{Act, Options};
use super::read_back::Effective;
use crate::config::options::Phase;
use crate::config::{Endpoint, Multicast, Transport};
use crate::plan::ListenerPlan;
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, SockAddr, SockRef, Socket, Type};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;

/// The parts of an [`Endpoint::Inet`] that make the socket.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    pub(super) transport: Transport,
    pub(super) address: SocketAddr,
    pub(super) v6_only: bool,
}

/// socket, options, bind and, for what accepts, listen: as few system calls as it takes.
///
/// listen(2) belongs to it because bind(2) proves little: with SO_REUSEADDR two sockets may be
/// bound to one port, and the second listen(2) fails with EADDRINUSE (socket(7)).
///
/// `endpoint` is the same as `wanted`; options go by it.
pub(super) fn bind(
    endpoint: &Endpoint,
    wanted: Wanted,
    listener: &ListenerPlan,
) -> Result<(Socket, Vec<Effective>), Failure> {
    let Wanted {
        transport,
        address,
        v6_only,
    } = wanted;
    let socket = new_socket(wanted)?;
    let reuses = match transport {
        // Connections in TIME_WAIT must not keep a restarted listend from binding.
        Transport::Tcp | Transport::Mptcp | Transport::Sctp => true,
        // Two processes would bind, the later would take all; only multicast is for everybody.
        Transport::Udp | Transport::UdpLite => !listener.settings.multicast.is_empty(),
    };
    if reuses {
        socket
            .set_reuse_address(true)
            .map_err(|error| Failure::new(BindStep::SetOption("SO_REUSEADDR"), error))?;
    }
    let effective = bind_and_listen(&socket, &address.into(), endpoint, listener)?;
    if !endpoint.accepts() {
        join(
            SockRef::from(&socket),
            address,
            v6_only,
            &listener.settings.multicast,
        )?;
    }
    Ok((socket, effective))
}

/// A socket of that kind and family.
pub(super) fn new_socket(wanted: Wanted) -> Result<Socket, Failure> {
    let Wanted {
        transport,
        address,
        v6_only,
    } = wanted;
    let (kind, protocol) = match transport {
        Transport::Tcp => (Type::STREAM, Protocol::TCP),
        Transport::Mptcp => (Type::STREAM, Protocol::MPTCP),
        Transport::Sctp => (Type::STREAM, Protocol::SCTP),
        Transport::Udp => (Type::DGRAM, Protocol::UDP),
        Transport::UdpLite => (Type::DGRAM, Protocol::UDPLITE),
    };
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))
        .map_err(|error| Failure::new(BindStep::Socket, error))?;
    if address.is_ipv6() {
        // Always said: the default is a setting of the machine (net.ipv6.bindv6only).
        socket
            .set_only_v6(v6_only)
            .map_err(|error| Failure::new(BindStep::SetOption("IPV6_V6ONLY"), error))?;
    }
    Ok(socket)
}

/// Options, bind and, for what accepts, listen.
pub(super) fn bind_and_listen(
    socket: &Socket,
    address: &SockAddr,
    endpoint: &Endpoint,
    listener: &ListenerPlan,
) -> Result<Vec<Effective>, Failure> {
    let options = Options::new(&listener.settings.options, endpoint);
    let mut effective = Vec::new();
    options.apply(socket.as_fd(), Phase::BeforeBind, Act::Set, &mut effective)?;
    socket
        .bind(address)
        .map_err(|error| Failure::new(BindStep::Bind, error))?;
    options.apply(
        socket.as_fd(),
        Phase::BeforeListen,
        Act::Set,
        &mut effective,
    )?;
    if endpoint.accepts() {
        socket
            .listen(as_backlog(listener.settings.backlog))
            .map_err(|error| Failure::new(BindStep::Listen, error))?;
    }
    Ok(effective)
}

/// Joins the multicast groups of the socket's family, or of both if it takes both. A group that was
/// joined already, as by who handed the socket down, is fine.
pub(super) fn join(
    socket: SockRef<'_>,
    address: SocketAddr,
    v6_only: bool,
    groups: &[Multicast],
) -> Result<(), Failure> {
    for Multicast { group, interface } in groups {
        let fits = match group {
            IpAddr::V4(_) => address.is_ipv4() || !v6_only,
            IpAddr::V6(_) => address.is_ipv6(),
        };
        if !fits {
            continue;
        }
        let call = match group {
            IpAddr::V4(_) => "IP_ADD_MEMBERSHIP",
            IpAddr::V6(_) => "IPV6_ADD_MEMBERSHIP",
        };
        // 0 is for the kernel to choose, by its routes.
        let index = match interface {
            Some(name) => interface_index(name, call)?,
            None => 0,
        };
        let joined = match group {
            IpAddr::V4(group) => {
                socket.join_multicast_v4_n(group, &InterfaceIndexOrAddress::Index(index))
            }
            IpAddr::V6(group) => socket.join_multicast_v6(group, index),
        };
        match joined {
            Err(error) if error.raw_os_error() != Some(nix::libc::EADDRINUSE) => {
                return Err(Failure::new(BindStep::SetOption(call), error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// The address with the index of the interface that is named behind `%`.
pub(super) fn with_scope(address: SocketAddr, scope: Option<&str>) -> Result<SocketAddr, Failure> {
    match (address, scope) {
        (SocketAddr::V6(mut address), Some(scope)) => {
            address.set_scope_id(interface_index(scope, "scope")?);
            Ok(address.into())
        }
        _ => Ok(address),
    }
}

/// A name, or a number as in `fe80::1%2`. Looked up in the network namespace of the moment.
pub(super) fn interface_index(interface: &str, what: &'static str) -> Result<u32, Failure> {
    if let Ok(index) = interface.parse() {
        return Ok(index);
    }
    if_nametoindex(interface).map_err(|errno| {
        let errno = match errno {
            // What the kernel says of a name that is too long to be one.
            Errno::EINVAL | Errno::ENAMETOOLONG => Errno::ENODEV,
            other => other,
        };
        Failure::new(BindStep::SetOption(what), errno)
    })
}

/// The replacement of an optional IPv6 socket on a machine without IPv6: 0.0.0.0 for the dual-stack
/// socket of `:PORT`, nothing for the second half of `localhost`.
pub(super) fn without_ipv6(
    transport: Transport,
    address: SocketAddr,
    v6_only: bool,
) -> Option<Wanted> {
    if v6_only || !address.is_ipv6() || !address.ip().is_unspecified() {
        return None;
    }
    Some(Wanted {
        transport,
        address: SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port())),
        v6_only: true,
    })
}

impl Wanted {
    /// The address as an endpoint without a scope.
    pub(super) fn endpoint(self) -> Endpoint {
        Endpoint::Inet {
            transport: self.transport,
            address: self.address,
            v6_only: self.v6_only,
            optional: true,
            scope: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_dual_stack_wildcard_falls_back_to_ipv4() {
        let falls_back = |address: &str, v6_only| {
            let instead = without_ipv6(Transport::Tcp, address.parse().unwrap(), v6_only);
            instead.map(|instead| instead.endpoint().to_string())
        };
        assert_eq!(falls_back("[::]:80", false).unwrap(), "0.0.0.0:80");
        assert_eq!(falls_back("[::]:80", true), None);
        assert_eq!(falls_back("[::1]:80", true), None);
    }

    #[test]
    fn a_scope_is_a_name_or_a_number() {
        let address: SocketAddr = "[fe80::1]:80".parse().unwrap();
        let by_name = with_scope(address, Some("lo")).unwrap();
        assert_eq!(by_name, with_scope(address, Some("1")).unwrap());
        for unknown in ["no-such-interface", "nosuch0"] {
            let failure = with_scope(address, Some(unknown)).unwrap_err();
            assert_eq!(failure.errno, nix::libc::ENODEV);
            assert_eq!(failure.step, BindStep::SetOption("scope"));
        }
    }
}
