//! TCP and UDP sockets.

use super::bind::{BindStep, Failure};
use super::bound::as_backlog;
use crate::config::{Endpoint, Transport};
use socket2::{Domain, Protocol, Socket, Type};
use std::net::{Ipv4Addr, SocketAddr};

/// socket, options, bind and, for TCP, listen: as few system calls as it takes.
///
/// listen(2) belongs to it because bind(2) proves little: with SO_REUSEADDR two sockets may be
/// bound to one port, and the second listen(2) fails with EADDRINUSE (socket(7)).
pub(super) fn bind(
    transport: Transport,
    address: SocketAddr,
    v6_only: bool,
    backlog: u32,
) -> Result<Socket, Failure> {
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
    match transport {
        Transport::Tcp | Transport::Mptcp | Transport::Sctp => {
            // Connections in TIME_WAIT must not keep a restarted listend from binding.
            socket
                .set_reuse_address(true)
                .map_err(|error| Failure::new(BindStep::SetOption("SO_REUSEADDR"), error))?;
            socket
                .bind(&address.into())
                .map_err(|error| Failure::new(BindStep::Bind, error))?;
            socket
                .listen(as_backlog(backlog))
                .map_err(|error| Failure::new(BindStep::Listen, error))?;
        }
        // Never SO_REUSEADDR on UDP: two processes would bind, the later would take all.
        Transport::Udp | Transport::UdpLite => socket
            .bind(&address.into())
            .map_err(|error| Failure::new(BindStep::Bind, error))?,
    }
    Ok(socket)
}

/// What stands in for an optional IPv6 socket on a machine without IPv6: 0.0.0.0 for the
/// dual-stack socket of `:PORT`, nothing for the second half of `localhost`.
pub(super) fn without_ipv6(
    transport: Transport,
    address: SocketAddr,
    v6_only: bool,
) -> Option<Endpoint> {
    if v6_only || !address.is_ipv6() || !address.ip().is_unspecified() {
        return None;
    }
    Some(Endpoint::Inet {
        transport,
        address: SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port())),
        v6_only: true,
        optional: true,
        scope: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_dual_stack_wildcard_falls_back_to_ipv4() {
        let wildcard: SocketAddr = "[::]:80".parse().unwrap();
        let instead = without_ipv6(Transport::Tcp, wildcard, false).unwrap();
        assert_eq!(instead.to_string(), "0.0.0.0:80");
        assert_eq!(without_ipv6(Transport::Tcp, wildcard, true), None);
        let loopback: SocketAddr = "[::1]:80".parse().unwrap();
        assert_eq!(without_ipv6(Transport::Tcp, loopback, true), None);
    }
}
