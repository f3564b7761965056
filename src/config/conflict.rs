//! Sockets that the kernel would not let stand side by side, found without a system call.
//!
//! The rules are those of `super::overlap` and of unix(7) in Linux; SO_REUSEADDR does not
//! loosen them between two sockets that listen. Every socket is compared with the earlier ones
//! through hash maps, so that ten thousand listeners cost milliseconds.

use super::draft::DraftListener;
use super::model::{Address, Endpoint, Listener, Transport, UnixKind, UnixName};
use super::options::OptionValue;
use super::overlap::Coverage;
use super::values::Located;
use crate::report::{Kind, Problem, Report};
use foldhash::{HashMap, HashMapExt};
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::path::Path;

/// An address of the configuration.
#[derive(Clone, Copy)]
struct Owner<'d> {
    listener: &'d Listener,
    address: &'d Located<Address>,
    sharing: Sharing<'d>,
}

/// The settings that let two inet sockets share one address.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Sharing<'d> {
    /// SO_REUSEPORT, if both have it.
    reuse_port: bool,
    /// SO_REUSEADDR, which sockets with multicast groups get, if both have it.
    reuse_address: bool,
    /// The interface that it is tied to, if the other is tied to another.
    device: Option<&'d str>,
}

impl<'d> Sharing<'d> {
    fn of(listener: &'d Listener) -> Sharing<'d> {
        let value = |key: &str| {
            let mut options = listener.options.iter().map(|option| &option.value);
            options
                .find(|option| option.spec.key == key)
                .map(|option| &option.value)
        };
        Sharing {
            reuse_port: value("reuse_port") == Some(&OptionValue::Flag(true)),
            reuse_address: !listener.multicast.is_empty(),
            device: match value("bind_to_device") {
                Some(OptionValue::Text(device)) => Some(device),
                _ => None,
            },
        }
    }

    fn with(self, other: Sharing) -> bool {
        (self.reuse_port && other.reuse_port)
            || (self.reuse_address && other.reuse_address)
            || matches!((self.device, other.device), (Some(this), Some(other)) if this != other)
    }
}

/// The first socket of each [`Sharing`] that took something; nearly always there is only one.
#[derive(Default)]
struct Slot<'d> {
    first: Option<Owner<'d>>,
    others: Option<Box<Others<'d>>>,
}

/// The sockets that share an address with the first one, by what they may share it with; there may
/// be one for each interface.
#[derive(Default)]
struct Others<'d> {
    count: usize,
    /// The groups by `reuse_port` and `reuse_address`.
    groups: HashMap<(bool, bool), Group<'d>>,
}

/// Each with its place in the order.
#[derive(Default)]
struct Group<'d> {
    first: Option<(usize, Owner<'d>)>,
    without_device: Option<(usize, Owner<'d>)>,
    by_device: HashMap<&'d str, (usize, Owner<'d>)>,
}

impl<'d> Slot<'d> {
    /// The first that does not share with this one.
    fn against(&self, owner: Owner<'d>) -> Option<Owner<'d>> {
        let first = self.first?;
        if !owner.sharing.with(first.sharing) {
            return Some(first);
        }
        let groups = self.others.iter().flat_map(|others| &others.groups);
        let own = owner.sharing;
        let of_groups = groups.flat_map(|((reuse_port, reuse_address), group)| {
            if (own.reuse_port && *reuse_port) || (own.reuse_address && *reuse_address) {
                return [None, None];
            }
            match own.device {
                None => [group.first, None],
                Some(device) => [group.without_device, group.by_device.get(device).copied()],
            }
        });
        let first = of_groups.flatten().min_by_key(|(place, _)| *place);
        first.map(|(_, other)| other)
    }

    fn add(&mut self, owner: Owner<'d>) {
        let own = owner.sharing;
        match self.first {
            None => self.first = Some(owner),
            Some(first) if first.sharing == own => {}
            Some(_) => {
                let others = self.others.get_or_insert_default();
                others.count += 1;
                let entry = (others.count, owner);
                let group = (own.reuse_port, own.reuse_address);
                let group = others.groups.entry(group).or_default();
                group.first.get_or_insert(entry);
                match own.device {
                    None => _ = group.without_device.get_or_insert(entry),
                    Some(device) => _ = group.by_device.entry(device).or_insert(entry),
                }
            }
        }
    }
}

/// The addresses of one inet port that earlier sockets have taken.
#[derive(Default)]
struct Port<'d> {
    /// The wildcard 0.0.0.0.
    v4_any: Slot<'d>,
    /// Any IPv4 address, 0.0.0.0 included.
    v4: Slot<'d>,
    /// `[::]`, with or without IPv4.
    v6_any: Slot<'d>,
    /// The wildcard `[::]` of a socket that accepts IPv4 as well.
    dual_any: Slot<'d>,
    /// Any IPv6 address, `[::]` included.
    v6: Slot<'d>,
}

/// The addresses of one vsock port that earlier sockets have taken.
#[derive(Default)]
struct VsockPort<'d> {
    first: Option<Owner<'d>>,
    any: Option<Owner<'d>>,
    exact: HashMap<u32, Owner<'d>>,
}

/// A network namespace; `None` is listend's own.
type Namespace<'d> = Option<&'d Path>;

#[derive(Default)]
struct Occupied<'d> {
    ports: HashMap<(Namespace<'d>, Transport, u16), Port<'d>>,
    exact: HashMap<(Namespace<'d>, Transport, u16, IpAddr), Slot<'d>>,
    /// The kernel hashes abstract names together with the type of the socket, so one name can
    /// stand once per type.
    abstract_names: HashMap<(Namespace<'d>, UnixKind, &'d str), Owner<'d>>,
    /// Paths belong to no network namespace, and neither do the two below.
    paths: HashMap<&'d Path, Owner<'d>>,
    queues: HashMap<&'d str, Owner<'d>>,
    /// Stream and seqpacket share their ports; `true` is datagrams.
    vsock: HashMap<(bool, u32), VsockPort<'d>>,
}

/// Files one problem for each address that collides with an earlier one.
pub(super) fn find<'d>(
    listeners: impl Iterator<Item = &'d DraftListener> + Clone,
    report: &mut Report,
) {
    let mut taken = Occupied {
        // Most listeners have one address, and none or few have none here.
        exact: HashMap::with_capacity(listeners.clone().count()),
        ..Occupied::default()
    };
    for draft in listeners.clone().filter(|draft| !draft.duplicate) {
        let listener = &draft.listener;
        let sharing = Sharing::of(listener);
        for address in &listener.addresses {
            let owner = Owner {
                listener,
                address,
                sharing,
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
    links(listeners, &taken, report);
}

/// A symbolic link must not stand where another listener puts something.
fn links<'d>(
    listeners: impl Iterator<Item = &'d DraftListener>,
    taken: &Occupied,
    report: &mut Report,
) {
    let mut seen = HashMap::new();
    for draft in listeners.filter(|draft| !draft.duplicate) {
        let listener = &draft.listener;
        for link in &listener.symlinks {
            let path = link.value.as_path();
            let earlier = match (taken.paths.get(path), seen.entry(path)) {
                (Some(owner), _) if owner.listener.name.value == listener.name.value => continue,
                (Some(owner), _) => (owner.listener, owner.address.place),
                (None, Entry::Occupied(earlier)) => *earlier.get(),
                (None, Entry::Vacant(free)) => {
                    free.insert((listener, link.place));
                    continue;
                }
            };
            let (this, other) = (&listener.name.value, &earlier.0.name.value);
            let message = format!(
                "listeners `{other}` and `{this}` both use `{}`",
                path.display()
            );
            let problem = Problem::new(Kind::DuplicateAddress, message)
                .at(link.place)
                .with_related(earlier.1, "the other one")
                .with_hint("give the link another path");
            report.add(problem.of_listener(this));
        }
    }
}

fn collision(owner: Owner, earlier: Owner, endpoint: &Endpoint) -> Problem {
    let (this, other) = (&owner.address.value.text, &earlier.address.value.text);
    let (own_name, other_name) = (&owner.listener.name.value, &earlier.listener.name.value);
    let whose = if own_name == other_name {
        format!("listener `{own_name}` has")
    } else {
        format!("listeners `{other_name}` and `{own_name}` have")
    };
    let (message, hint) = if endpoint.path().is_some() || this == other {
        (
            format!("{whose} the same address `{this}`"),
            "give one of them another address, or let several workers use one listener",
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
        .with_hint(hint)
        .of_listener(own_name)
        .with_address(this)
}

impl<'d> Occupied<'d> {
    /// Enters a socket; the earlier one that it collides with, if any.
    fn enter(&mut self, endpoint: &'d Endpoint, owner: Owner<'d>) -> Option<Owner<'d>> {
        let namespace = owner.listener.network_namespace.as_ref();
        let namespace = namespace.map(|path| path.value.as_path());
        if let Some(path) = endpoint.path() {
            return first(self.paths.entry(path), owner);
        }
        match endpoint {
            Endpoint::Inet { .. } => self.enter_inet(namespace, endpoint, owner),
            Endpoint::Unix {
                kind,
                name: UnixName::Abstract(name),
            } => first(
                self.abstract_names.entry((namespace, *kind, name.as_str())),
                owner,
            ),
            Endpoint::MessageQueue { name } => first(self.queues.entry(name.as_str()), owner),
            Endpoint::Vsock { port, .. } if *port == u32::MAX => None,
            Endpoint::Vsock { kind, cid, port } => {
                let port = (*kind == UnixKind::Datagram, *port);
                self.vsock.entry(port).or_default().enter(*cid, owner)
            }
            // A special file can be opened and a netlink group joined any number of times.
            Endpoint::Special { .. }
            | Endpoint::Netlink { .. }
            | Endpoint::Fifo { .. }
            | Endpoint::Unix { .. } => None,
        }
    }

    fn enter_inet(
        &mut self,
        namespace: Namespace<'d>,
        endpoint: &'d Endpoint,
        mut owner: Owner<'d>,
    ) -> Option<Owner<'d>> {
        let Endpoint::Inet { scope, .. } = endpoint else {
            return None;
        };
        let ((ports, number), coverage) = endpoint.coverage()?;
        if number == 0 {
            return None;
        }
        // A link-local address ties its socket to the interface.
        owner.sharing.device = owner.sharing.device.or(scope.as_deref());
        let port = self.ports.entry((namespace, ports, number)).or_default();
        let exact = (namespace, ports, number, coverage.ip());
        let exact = self.exact.entry(exact).or_default();
        let earlier = exact.against(owner);
        let earlier = earlier.or_else(|| port.against(coverage, owner));
        exact.add(owner);
        port.add(coverage, owner);
        earlier
    }
}

impl<'d> Port<'d> {
    /// The collision that involves a wildcard, if any; those of equal addresses are found by hash.
    fn against(&self, coverage: Coverage, owner: Owner<'d>) -> Option<Owner<'d>> {
        let has_wildcard = self.v4_any.first.or(self.v6_any.first).is_some();
        if !has_wildcard && !coverage.ip().is_unspecified() {
            return None;
        }
        let v4 = (Coverage::V4, &self.v4_any, &self.v4);
        let v6 = (Coverage::V6, &self.v6_any, &self.v6);
        let ((wildcard, wildcards, all), (other, _, others)) = match coverage.ip() {
            IpAddr::V4(_) => (v4, v6),
            IpAddr::V6(_) => (v6, v4),
        };
        let slots = [
            (coverage.covers(wildcard.ip()), all),
            (wildcard.covers(coverage.ip()), wildcards),
            (Coverage::DUAL.covers(coverage.ip()), &self.dual_any),
            (coverage.covers(other.ip()), others),
        ];
        let mut slots = slots.into_iter().filter(|(overlaps, _)| *overlaps);
        slots.find_map(|(_, slot)| slot.against(owner))
    }

    fn add(&mut self, coverage: Coverage, owner: Owner<'d>) {
        match coverage.ip() {
            IpAddr::V4(_) => self.v4.add(owner),
            IpAddr::V6(_) => self.v6.add(owner),
        }
        match coverage {
            Coverage::V4 => self.v4_any.add(owner),
            Coverage::V6 => self.v6_any.add(owner),
            Coverage::DUAL => {
                self.v6_any.add(owner);
                self.dual_any.add(owner);
            }
            _ => {}
        }
    }
}

impl<'d> VsockPort<'d> {
    /// Any CID collides with every CID.
    fn enter(&mut self, cid: u32, owner: Owner<'d>) -> Option<Owner<'d>> {
        let is_any = cid == u32::MAX;
        let exact = first(self.exact.entry(cid), owner);
        let earlier = exact.or(if is_any { self.first } else { self.any });
        self.first.get_or_insert(owner);
        if is_any {
            self.any.get_or_insert(owner);
        }
        earlier
    }
}

fn first<'d, K>(entry: Entry<'_, K, Owner<'d>>, owner: Owner<'d>) -> Option<Owner<'d>> {
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
            ("fifo:/run/a", "fifo:/run/a", true),
            ("fifo:/run/a", "unix:/run/a", true),
            ("mqueue:/a", "mqueue:/a", true),
            ("mqueue:/a", "mqueue:/b", false),
            ("vsock::1", "vsock:2:1", true),
            ("vsock:2:1", "vsock:2:1", true),
            ("vsock:2:1", "vsock:3:1", false),
            ("vsock:2:1", "vsock-seqpacket:2:1", true),
            ("vsock:2:1", "vsock-dgram:2:1", false),
            ("vsock::4294967295", "vsock::4294967295", false),
            ("special:/dev/null", "special:/dev/null", false),
            ("netlink:route 1", "netlink:route 1", false),
            ("127.0.0.1:80", "mptcp://:80", true),
            ("127.0.0.1:80", "sctp://127.0.0.1:80", false),
            ("udp://:80", "udplite://:80", false),
            ("127.0.0.1:80-90", "127.0.0.1:85", true),
            ("127.0.0.1:80-90", "127.0.0.1:91-95", false),
            ("[fe80::1%a]:80", "[fe80::1%b]:80", false),
            ("[fe80::1%a]:80", "[fe80::1%a]:80", true),
            ("[fe80::1%a]:80", "[::]:80", true),
        ] {
            assert_eq!(collide(first, second), want, "{first} {second}");
            assert_eq!(collide(second, first), want, "{second} {first}");
        }
    }

    /// The number of these listeners, each in the long form, that collide with an earlier one.
    fn collisions(listeners: &[&str]) -> usize {
        let mut text = "silence: unused-listener\nlisteners:\n".to_owned();
        for (index, keys) in listeners.iter().enumerate() {
            text += &format!("  l{index}: {{{keys}}}\n");
        }
        let loaded = crate::config::read(vec![crate::config::SourceFile {
            name: "f".to_owned(),
            bytes: text.into_bytes(),
            folder: "/".into(),
        }]);
        let errors = loaded.report.errors;
        let only = errors.iter().all(|e| e.kind == Kind::DuplicateAddress);
        assert!(only, "{errors:?}");
        errors.len()
    }

    #[test]
    fn options_and_namespaces_part_what_would_collide() {
        for (listeners, want) in [
            (
                ["address: ':80', reuse_port: true", "address: 127.0.0.1:80"],
                1,
            ),
            (
                [
                    "address: ':80', reuse_port: true",
                    "address: 127.0.0.1:80, reuse_port: true",
                ],
                0,
            ),
            (
                [
                    "address: ':80', bind_to_device: a",
                    "address: ':80', bind_to_device: b",
                ],
                0,
            ),
            (["address: ':80', bind_to_device: a", "address: ':80'"], 1),
            (
                [
                    "address: ':80', network_namespace: /run/netns/a",
                    "address: ':80'",
                ],
                0,
            ),
            (
                [
                    "address: 'unix:@a', network_namespace: /run/netns/a",
                    "address: 'unix:@a'",
                ],
                0,
            ),
            (
                [
                    "address: 'unix:/a', network_namespace: /run/netns/a",
                    "address: 'unix:/a'",
                ],
                1,
            ),
            (
                [
                    "address: 'udp://:80', multicast: 239.1.2.3",
                    "address: 'udp://:80', multicast: 239.1.2.4",
                ],
                0,
            ),
            (
                ["address: 'unix:/a', symlinks: /b", "address: 'unix:/b'"],
                1,
            ),
            (
                [
                    "address: 'unix:/a', symlinks: /c",
                    "address: 'unix:/b', symlinks: /c",
                ],
                1,
            ),
        ] {
            assert_eq!(collisions(&listeners), want, "{listeners:?}");
            let [first, second] = listeners;
            assert_eq!(collisions(&[second, first]), want, "{listeners:?}");
        }
        // The first of three does not hide the second from the third.
        let three = [
            "address: 127.0.0.1:80, reuse_port: true",
            "address: 127.0.0.2:80",
            "address: 0.0.0.0:80, reuse_port: true",
        ];
        assert_eq!(collisions(&three), 1);
        let same = "address: [':80', ':80'], reuse_port: true";
        assert_eq!(collisions(&[same]), 0);
    }
}
