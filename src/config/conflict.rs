//! Sockets that the kernel would not let stand side by side, found without a system call.
//!
//! The rules are those of `inet_rcv_saddr_equal` and of unix(7) in Linux; SO_REUSEADDR does not
//! loosen them between two sockets that listen. Every socket is compared with the earlier ones
//! through hash maps, so that ten thousand listeners cost milliseconds.

use super::listener::DraftListener;
use super::model::{Address, Endpoint, Located, Transport, UnixKind, UnixName};
use crate::report::{Kind, Problem, Report};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

/// An address of the configuration.
#[derive(Clone, Copy)]
struct Owner<'d> {
    listener: &'d str,
    address: &'d Located<Address>,
}

/// What the sockets so far have taken of one port; each field is the first that did.
#[derive(Default)]
struct Port<'d> {
    /// 0.0.0.0.
    v4_any: Option<Owner<'d>>,
    /// Any IPv4 address, 0.0.0.0 included.
    v4: Option<Owner<'d>>,
    /// `[::]`, with or without IPv4.
    v6_any: Option<Owner<'d>>,
    /// `[::]` with IPv4.
    dual_any: Option<Owner<'d>>,
    /// Any IPv6 address, `[::]` included.
    v6: Option<Owner<'d>>,
}

#[derive(Default)]
struct Taken<'d> {
    ports: HashMap<(Transport, u16), Port<'d>>,
    exact: HashMap<(Transport, u16, IpAddr), Owner<'d>>,
    paths: HashMap<&'d Path, Owner<'d>>,
    /// The kernel hashes abstract names together with the type of the socket, so one name can
    /// stand once per type.
    abstract_names: HashMap<(UnixKind, &'d str), Owner<'d>>,
}

/// Files one problem for each address that collides with an earlier one.
pub(super) fn find(listeners: &[DraftListener], report: &mut Report) {
    let mut taken = Taken::default();
    for draft in listeners.iter().filter(|draft| !draft.duplicate) {
        for address in &draft.listener.addresses {
            let owner = Owner {
                listener: &draft.listener.name.value,
                address,
            };
            let mut found = None;
            for endpoint in &address.value.endpoints {
                // Every socket is entered; the first collision speaks for the address.
                let earlier = taken.enter(endpoint, owner);
                found = found.or(earlier.map(|earlier| (earlier, endpoint)));
            }
            if let Some((earlier, endpoint)) = found {
                report.add(collision(owner, earlier, endpoint));
            }
        }
    }
}

fn collision(owner: Owner, earlier: Owner, endpoint: &Endpoint) -> Problem {
    let (this, other) = (&owner.address.value.text, &earlier.address.value.text);
    let whose = if owner.listener == earlier.listener {
        format!("listener `{}` has", owner.listener)
    } else {
        format!(
            "listeners `{}` and `{}` have",
            earlier.listener, owner.listener
        )
    };
    let (message, hint) = if endpoint.path().is_some() || this == other {
        (
            format!("{whose} the same address `{this}`"),
            "give one of them another address, or let several workers take one listener",
        )
    } else {
        (
            format!("{whose} addresses that overlap: `{other}` and `{this}`"),
            "the kernel lets only one of them listen; use another port, or two addresses that do not include each other",
        )
    };
    Problem::new(Kind::DuplicateAddress, message)
        .at(owner.address.place)
        .with_related(earlier.address.place, "the other address")
        .with_hint(hint.to_owned())
        .of_listener(owner.listener)
        .with_address(this)
}

impl<'d> Taken<'d> {
    /// Enters a socket; the earlier one that it collides with, if any.
    fn enter(&mut self, endpoint: &'d Endpoint, owner: Owner<'d>) -> Option<Owner<'d>> {
        match endpoint {
            Endpoint::Inet { address, .. } if address.port() == 0 => None,
            Endpoint::Inet {
                transport,
                address,
                v6_only,
                ..
            } => {
                let ip = match address.ip() {
                    IpAddr::V6(ip) if !v6_only => {
                        ip.to_ipv4_mapped().map_or(IpAddr::V6(ip), IpAddr::V4)
                    }
                    ip => ip,
                };
                let port = self.ports.entry((*transport, address.port())).or_default();
                let exact = self.exact.get(&(*transport, address.port(), ip)).copied();
                let earlier = port.enter(ip, *v6_only, owner).or(exact);
                self.exact
                    .entry((*transport, address.port(), ip))
                    .or_insert(owner);
                exact.or(earlier)
            }
            Endpoint::Unix {
                name: UnixName::Path(path),
                ..
            } => first(self.paths.entry(path.as_path()), owner),
            Endpoint::Unix {
                kind,
                name: UnixName::Abstract(name),
            } => first(self.abstract_names.entry((*kind, name.as_str())), owner),
            Endpoint::Fifo { .. }
            | Endpoint::MessageQueue { .. }
            | Endpoint::Special { .. }
            | Endpoint::Netlink { .. }
            | Endpoint::Vsock { .. } => None,
        }
    }
}

impl<'d> Port<'d> {
    /// Collisions that involve a wildcard; those of equal addresses are found by hash.
    fn enter(&mut self, ip: IpAddr, v6_only: bool, owner: Owner<'d>) -> Option<Owner<'d>> {
        let any_v4 = ip == Ipv4Addr::UNSPECIFIED;
        let any_v6 = ip == Ipv6Addr::UNSPECIFIED;
        let earlier = match ip {
            IpAddr::V4(_) if any_v4 => self.v4.or(self.dual_any),
            IpAddr::V4(_) => self.v4_any.or(self.dual_any),
            IpAddr::V6(_) if any_v6 && !v6_only => self.v6.or(self.v4),
            IpAddr::V6(_) if any_v6 => self.v6,
            IpAddr::V6(_) => self.v6_any,
        };
        if ip.is_ipv4() {
            self.v4.get_or_insert(owner);
        } else {
            self.v6.get_or_insert(owner);
        }
        if any_v4 {
            self.v4_any.get_or_insert(owner);
        }
        if any_v6 {
            self.v6_any.get_or_insert(owner);
        }
        if any_v6 && !v6_only {
            self.dual_any.get_or_insert(owner);
        }
        earlier
    }
}

fn first<'d, K>(
    entry: std::collections::hash_map::Entry<'_, K, Owner<'d>>,
    owner: Owner<'d>,
) -> Option<Owner<'d>> {
    use std::collections::hash_map::Entry;
    match entry {
        Entry::Occupied(earlier) => Some(*earlier.get()),
        Entry::Vacant(free) => {
            free.insert(owner);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::from_arguments;
    use crate::report::Kind;

    fn collide(first: &str, second: &str) -> bool {
        let loaded = from_arguments(
            &[format!("a={first}"), format!("b={second}")],
            &["x".to_owned()],
        );
        let errors = loaded.report.errors;
        assert!(
            errors.iter().all(|e| e.kind == Kind::DuplicateAddress),
            "{errors:?}"
        );
        assert!(errors.iter().all(|e| e.related.len() == 1));
        errors.len() == 1
    }

    #[test]
    fn what_the_kernel_would_refuse_collides_in_both_orders() {
        for (first, second, want) in [
            ("127.0.0.1:80", "127.0.0.1:80", true),
            ("127.0.0.1:80", "127.0.0.2:80", false),
            ("127.0.0.1:80", "127.0.0.1:81", false),
            ("127.0.0.1:80", "udp://127.0.0.1:80", false),
            ("127.0.0.1:0", "127.0.0.1:0", false),
            ("0.0.0.0:80", "127.0.0.1:80", true),
            ("0.0.0.0:80", "[::]:80", false),
            ("0.0.0.0:80", "[::1]:80", false),
            ("[::]:80", "[::1]:80", true),
            ("[::]:80", "[::]:80", true),
            ("[::]:80", ":80", true),
            (":80", ":80", true),
            (":80", "127.0.0.1:80", true),
            (":80", "0.0.0.0:80", true),
            (":80", "[::1]:80", true),
            ("localhost:80", "[::1]:80", true),
            ("localhost:80", "127.0.0.1:80", true),
            ("udp://:53", "udp://127.0.0.1:53", true),
            ("unix:/run/a", "unix:/run//./a", true),
            ("unix:/run/a", "unix-dgram:/run/a", true),
            ("unix:/run/a", "unix:/run/b", false),
            ("unix:@a", "unix:@a", true),
            ("unix:@a", "unix-dgram:@a", false),
            ("unix:@/run/a", "unix:/run/a", false),
        ] {
            assert_eq!(collide(first, second), want, "{first} {second}");
            assert_eq!(collide(second, first), want, "{second} {first}");
        }
    }
}
