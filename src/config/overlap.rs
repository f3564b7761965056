//! The overlap of inet addresses that two sockets cannot both have.
//!
//! The rules are those of `inet_rcv_saddr_equal` in Linux. Whether options let two sockets share what
//! they both take is not asked here.

use super::model::{Endpoint, Transport};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The addresses that a socket takes of its port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Coverage {
    /// An IPv4-mapped address is the IPv4 address.
    ip: IpAddr,
    /// Whether `[::]` leaves IPv4 out.
    v6_only: bool,
}

impl Coverage {
    /// Every IPv4 address, `0.0.0.0`.
    pub const V4: Coverage = Coverage {
        ip: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        v6_only: true,
    };
    /// The wildcard `[::]` without IPv4.
    pub const V6: Coverage = Coverage {
        ip: IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        v6_only: true,
    };
    /// The wildcard `[::]` with IPv4.
    pub const DUAL: Coverage = Coverage {
        ip: IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        v6_only: false,
    };

    /// The coverage of a socket that is bound to the address.
    pub fn of(ip: IpAddr, v6_only: bool) -> Coverage {
        let ip = ip.to_canonical();
        let v6_only = v6_only || ip.is_ipv4();
        Coverage { ip, v6_only }
    }

    /// The address that it was made of.
    pub fn ip(self) -> IpAddr {
        self.ip
    }

    /// Whether all that comes to this address, or to any if it is unspecified, comes to the socket.
    pub fn covers(self, ip: IpAddr) -> bool {
        let same_family = self.ip.is_ipv4() == ip.is_ipv4();
        let is_dual = self.ip.is_ipv6() && !self.v6_only;
        self.ip == ip || (self.ip.is_unspecified() && (same_family || is_dual))
    }

    /// Whether there is an address that both take.
    pub fn overlaps(self, other: Coverage) -> bool {
        self.covers(other.ip) || other.covers(self.ip)
    }
}

impl Transport {
    /// The transport whose port numbers it shares: to the kernel an MPTCP socket is a TCP socket.
    pub fn ports(self) -> Transport {
        match self {
            Transport::Tcp | Transport::Mptcp => Transport::Tcp,
            Transport::Udp => Transport::Udp,
            Transport::UdpLite => Transport::UdpLite,
            Transport::Sctp => Transport::Sctp,
        }
    }
}

impl Endpoint {
    /// The port with its transport, and what is taken of it; `None` for what is not of the internet.
    pub fn coverage(&self) -> Option<((Transport, u16), Coverage)> {
        match self {
            Endpoint::Inet {
                transport,
                address,
                v6_only,
                ..
            } => {
                let port = (transport.ports(), address.port());
                Some((port, Coverage::of(address.ip(), *v6_only)))
            }
            Endpoint::Unix { .. }
            | Endpoint::Fifo { .. }
            | Endpoint::MessageQueue { .. }
            | Endpoint::Special { .. }
            | Endpoint::Netlink { .. }
            | Endpoint::Vsock { .. } => None,
        }
    }

    /// Whether two sockets of the internet in one network namespace would take the same address. Port
    /// 0 is another port each time.
    pub fn overlaps(&self, other: &Endpoint) -> bool {
        match (self.coverage(), other.coverage()) {
            (Some((port, one)), Some((same, other))) => {
                port == same && port.1 != 0 && one.overlaps(other)
            }
            _ => false,
        }
    }
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
            (tcp("[::]:80", true), tcp("0.0.0.0:80", true), false),
            (
                tcp("[::ffff:127.0.0.1]:80", false),
                tcp("0.0.0.0:80", true),
                true,
            ),
            (tcp("127.0.0.1:80", true), tcp("127.0.0.2:80", true), false),
            (tcp("0.0.0.0:80", true), tcp("127.0.0.1:81", true), false),
            (tcp("127.0.0.1:0", true), tcp("127.0.0.1:0", true), false),
        ] {
            assert_eq!(one.overlaps(&other), wanted, "{one} {other}");
            assert_eq!(other.overlaps(&one), wanted, "{other} {one}");
        }
    }
}
