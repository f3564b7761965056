//! Through which addresses of this machine a socket can be reached, and so by whom.

use super::address_text::address_text;
use super::machine::{Interface, Machine};
use super::path_facts;
use crate::config::options::OptionValue;
use crate::config::{Coverage, Endpoint, UnixName};
use crate::plan::ListenerPlan;
use nix::libc::{NETLINK_USERSOCK, VMADDR_CID_ANY, VMADDR_CID_HOST, VMADDR_CID_LOCAL};
use serde::Serialize;
use std::net::{IpAddr, SocketAddr};

/// Addresses beyond these are counted, not listed.
const SHOWN: usize = 6;
/// The number of addresses shown for one listener.
const SOCKETS_SHOWN: usize = 3;

/// The clients that can reach a socket, by addresses alone. Firewalls are not looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Audience {
    /// No client: no interface has the address.
    Nobody,
    /// Processes of this machine.
    ThisMachine,
    /// Machines on the same link.
    Link,
    /// Machines in the private networks of this machine.
    PrivateNetworks,
    /// Every machine that reaches a public address.
    Everybody,
}

impl Audience {
    /// `this machine only`.
    pub fn words(self) -> &'static str {
        match self {
            Audience::Nobody => "no client: no interface has the address",
            Audience::ThisMachine => "this machine only",
            Audience::Link => "clients on the same link",
            Audience::PrivateNetworks => "clients in the private networks",
            Audience::Everybody => "any client with a route to it",
        }
    }
}

/// The clients that can reach a listener, in one line for all its sockets. `None` where it is not known: of a
/// special file that cannot be looked at.
pub fn who_reaches(listener: &ListenerPlan, machine: &Machine) -> Option<String> {
    let interfaces = machine.of(listener).interfaces();
    let mut who: Vec<String> = Vec::new();
    let mut widest = None;
    // Of each family: whether it has an address, and whether loopback is one.
    let (mut four, mut six) = ((false, false), (false, false));
    for socket in listener.addresses() {
        match &socket.endpoint {
            Endpoint::Inet {
                address, v6_only, ..
            } => {
                let reach = reach(*address, *v6_only, interfaces);
                widest = widest.max(Some(reach.who));
                let ip = address.ip();
                if !ip.is_multicast() {
                    let dual = ip.is_ipv6() && ip.is_unspecified() && !v6_only;
                    let loopback = ip.is_unspecified() || ip.to_canonical().is_loopback();
                    if ip.to_canonical().is_ipv4() || dual {
                        four = (true, four.1 || loopback);
                    }
                    if ip.to_canonical().is_ipv6() {
                        six = (true, six.1 || loopback);
                    }
                }
            }
            Endpoint::Unix {
                name: UnixName::Abstract(_),
                ..
            } => who.push("every user here: it has no permissions".to_owned()),
            Endpoint::Vsock { cid, .. } => who.push(vsock(*cid).to_owned()),
            Endpoint::Netlink { protocol, .. } => who.push(netlink(*protocol).to_owned()),
            endpoint => {
                who.extend(path_facts::by_access(
                    endpoint,
                    &listener.settings.access,
                    machine,
                ));
            }
        }
    }
    if let Some(widest) = widest {
        let device = listener.settings.options.iter().find_map(|option| {
            match (option.spec.key, &option.value) {
                ("bind_to_device", OptionValue::Text(name)) => Some(name),
                _ => None,
            }
        });
        let shut_out: Vec<&str> = [(four, "127.0.0.1"), (six, "::1")]
            .into_iter()
            .filter(|((any, loopback), _)| *any && !loopback)
            .map(|(_, loopback)| loopback)
            .collect();
        let mut words = widest.words().to_owned();
        if let Some(device) = device {
            words = format!("{words}, and only through {device}");
        } else if widest > Audience::ThisMachine && !shut_out.is_empty() {
            words = format!("{words}, but not through {}", shut_out.join(" or "));
        }
        who.insert(0, words);
    }
    who.dedup();
    if who.is_empty() {
        return None;
    }
    let sockets = listener.addresses().iter().take(SOCKETS_SHOWN);
    let mut addresses: Vec<String> = sockets
        .map(|socket| address_text(&socket.endpoint))
        .collect();
    let more = listener.addresses().len() - addresses.len();
    if more > 0 {
        addresses.push(format!("{more} more"));
    }
    Some(format!("{}: {}", addresses.join(", "), who.join("; ")))
}

/// Whose connections a context id takes (vsock(7)); there are no permissions.
fn vsock(cid: u32) -> &'static str {
    match cid {
        VMADDR_CID_LOCAL => Audience::ThisMachine.words(),
        VMADDR_CID_HOST => "the virtual machines of this host",
        VMADDR_CID_ANY => "the virtual machines of this host, or the host of this virtual machine",
        _ => "the host of this virtual machine",
    }
}

/// Who may send to a netlink socket: anybody only where the protocol is for users (netlink(7)).
fn netlink(protocol: i32) -> &'static str {
    match protocol {
        NETLINK_USERSOCK => "every user here: it has no permissions",
        _ => "the kernel, and processes with CAP_NET_ADMIN",
    }
}

/// The addresses a socket covers, and who can reach them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reach {
    /// The widest of all the addresses.
    pub who: Audience,
    /// All of them, loopback included.
    pub through: Vec<Way>,
}

/// An address that a socket can be reached through.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Way {
    /// The interface, such as `eth0`.
    pub interface: String,
    /// The address of the interface.
    pub address: IpAddr,
    /// The network that address is in.
    pub network: String,
}

/// The reach of a socket that is bound to this address.
pub(super) fn reach(address: SocketAddr, v6_only: bool, interfaces: &[Interface]) -> Reach {
    let ip = address.ip().to_canonical();
    let coverage = Coverage::of(ip, v6_only);
    let covers = |interface: &&Interface| coverage.covers(interface.address);
    let through: Vec<Way> = interfaces
        .iter()
        .filter(covers)
        .map(|interface| Way {
            interface: interface.name.clone(),
            address: interface.address,
            network: interface.network(),
        })
        .collect();
    let widest = through.iter().map(|way| audience(way.address)).max();
    // All of 127.0.0.0/8 is here, although only one address of it is listed; a group is no
    // interface's address.
    let who = match widest {
        Some(who) => who,
        None if ip.is_loopback() || ip.is_multicast() => audience(ip),
        None => Audience::Nobody,
    };
    Reach { who, through }
}

/// The clients that can reach an address of an interface.
pub(super) fn audience(ip: IpAddr) -> Audience {
    match ip {
        _ if ip.is_loopback() => Audience::ThisMachine,
        IpAddr::V4(four) if four.is_link_local() => Audience::Link,
        // RFC 1918, and what providers share between customers (RFC 6598).
        IpAddr::V4(four) if four.is_private() || is_shared(four.octets()) => {
            Audience::PrivateNetworks
        }
        // fe80::/10 and fc00::/7.
        IpAddr::V6(six) if six.is_unicast_link_local() => Audience::Link,
        IpAddr::V6(six) if six.is_unique_local() => Audience::PrivateNetworks,
        _ if ip.is_multicast() => Audience::Link,
        _ => Audience::Everybody,
    }
}

fn is_shared(octets: [u8; 4]) -> bool {
    octets[0] == 100 && octets[1] & 0xc0 == 64
}

impl Reach {
    /// `192.0.2.7 (eth0), 2001:db8::7 (eth0) or one of 3 more`, without loopback; `None` if there
    /// is nothing else.
    pub(super) fn outside(&self) -> Option<String> {
        let ways: Vec<String> = self
            .through
            .iter()
            .filter(|way| !way.address.is_loopback())
            .map(|way| format!("{} ({})", way.address, way.interface))
            .collect();
        match ways.len() {
            0 => None,
            n if n > SHOWN => Some(format!(
                "{} or one of {} more",
                ways[..SHOWN].join(", "),
                n - SHOWN
            )),
            _ => Some(ways.join(", ")),
        }
    }

    /// The reach of a wildcard, in words.
    pub(super) fn in_words(&self) -> String {
        match self.outside() {
            None => "only loopback now, and any interface added later".to_owned(),
            Some(ways) => format!("any client that reaches {ways} can connect"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(name: &str, address: &str, prefix: u8) -> Interface {
        Interface {
            name: name.to_owned(),
            address: address.parse().unwrap(),
            prefix,
        }
    }

    #[test]
    fn who_can_reach_an_address_follows_from_the_interfaces() {
        let interfaces = [
            interface("lo", "127.0.0.1", 8),
            interface("lo", "::1", 128),
            interface("eth0", "192.168.1.7", 24),
            interface("eth0", "fe80::7", 64),
        ];
        let who = |address: &str, v6_only| {
            let reach = reach(address.parse().unwrap(), v6_only, &interfaces);
            (reach.who, reach.through.len())
        };
        assert_eq!(who("127.0.0.1:1", true), (Audience::ThisMachine, 1));
        assert_eq!(who("127.9.9.9:1", true), (Audience::ThisMachine, 0));
        assert_eq!(who("192.168.1.7:1", true), (Audience::PrivateNetworks, 1));
        assert_eq!(who("0.0.0.0:1", true), (Audience::PrivateNetworks, 2));
        assert_eq!(who("[::]:1", true), (Audience::Link, 2));
        assert_eq!(who("[::]:1", false), (Audience::PrivateNetworks, 4));
        assert_eq!(who("10.0.0.1:1", true), (Audience::Nobody, 0));
        let public = [interface("eth0", "8.8.8.8", 32)];
        let address: SocketAddr = "0.0.0.0:1".parse().unwrap();
        assert_eq!(reach(address, true, &public).who, Audience::Everybody);
        let reach = reach("192.168.1.7:1".parse().unwrap(), true, &interfaces);
        assert_eq!(reach.through[0].network, "192.168.1.0/24");
        assert_eq!(reach.outside().as_deref(), Some("192.168.1.7 (eth0)"));
    }
}
