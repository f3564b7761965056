//! Network namespaces, link-local addresses, and multicast.

use crate::fixture::*;
use listend::config::{Endpoint, Multicast, Transport};
use listend::connection::Protocol;
use listend::listener::{
    Adopted, BindStep, BoundSocket, Purpose, accept, bind_all, bind_missing, depth, waiters,
};
use listend::plan::{ListenerId, Plan, SocketKey};
use nix::libc;
use nix::unistd::read;
use socket2::{Domain, SockAddr, SockRef, Socket, Type};
use std::net::{IpAddr, SocketAddr, SocketAddrV6, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

/// A network namespace with loopback and a veth pair, `va` having fe80::a and 192.0.2.1.
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// `None`, and a word about it, where namespaces cannot be made.
    pub fn new() -> Option<Namespace> {
        let name = unique("ns");
        let made = Command::new("ip").args(["netns", "add", &name]).output();
        if !made.is_ok_and(|made| made.status.success()) {
            skip("needs root and ip(8) to make network namespaces");
            return None;
        }
        let namespace = Namespace { name };
        for words in [
            "link set lo up",
            "link add name va type veth peer name vb",
            "link set va up",
            "link set vb up",
            "addr add fe80::a/64 dev va nodad",
            "addr add 192.0.2.1/24 dev va",
        ] {
            let mut ip = Command::new("ip");
            ip.args(["-n", &namespace.name]).args(words.split(' '));
            assert!(ip.status().unwrap().success(), "{words}");
        }
        Some(namespace)
    }

    fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.name)
    }

    /// In a thread of its own, which alone enters.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let file = std::fs::File::open(self.path()).unwrap();
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                listend::sys::enter_network_namespace(&file).unwrap();
                work()
            });
            thread.join().unwrap()
        })
    }

    pub fn plan(&self, endpoints: &[Endpoint]) -> Plan {
        let mut plan = plan(&[endpoints], ACCESS);
        listener(&mut plan, 0).settings_mut().network_namespace = Some(self.path());
        plan
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let mut ip = Command::new("ip");
        let _ = ip.args(["netns", "delete", &self.name]).status();
    }
}

pub fn current() -> PathBuf {
    std::fs::read_link("/proc/thread-self/ns/net").unwrap()
}

#[test]
fn sockets_are_bound_inside_and_we_stay_outside() {
    let Some(namespace) = Namespace::new() else {
        return;
    };
    let here = current();
    let name = unique("abstract");
    let outside = bound(&plan(
        &[&[tcp("127.0.0.1:0")], &[abstract_name(&name)]],
        ACCESS,
    ));
    let address = first(&outside).address.to_string();
    // The very same addresses, and one that only the namespace has.
    let endpoints = [tcp(&address), abstract_name(&name), udp("192.0.2.1:0")];
    let mut plan = namespace.plan(&endpoints);
    let mut other = single(tcp("127.0.0.1:0")).listener(ListenerId(0)).clone();
    other.sockets[0].key = SocketKey(3);
    plan.listeners.insert(ListenerId(1), Arc::new(other));
    for purpose in [Purpose::Try, Purpose::Keep] {
        let outcome = bind_all(&plan, purpose, Adopted::default());
        assert_eq!(outcome.errors, []);
        assert_eq!(current(), here);
        if purpose == Purpose::Try {
            continue;
        }
        let sockets = outcome.bound.at(0);
        assert_eq!(sockets.len(), 3);
        namespace.inside(|| TcpStream::connect(&address)).unwrap();
        SockRef::from(&sockets[0].fd).accept().unwrap();
        namespace.inside(|| {
            let there = SockAddr::unix(format!("\0{name}")).unwrap();
            let client = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
            client.connect(&there).unwrap();
        });
        SockRef::from(&sockets[1].fd).accept().unwrap();
        // The listener behind it is ours again.
        TcpStream::connect(outcome.bound.at(1)[0].address.to_string()).unwrap();
    }
    let mut held = bound(&plan).bound;
    let udp = held.at(0)[2].key;
    drop(held.take(udp).unwrap());
    let (errors, _) = bind_missing(&plan, ListenerId(0), &mut held);
    assert_eq!((errors.len(), held.at(0).len()), (0, 3));
    assert_eq!(current(), here);
}

#[test]
fn a_namespace_that_cannot_be_entered_is_an_error_of_each_of_its_sockets() {
    let folder = Folder::new();
    std::fs::write(folder.join("file"), "").unwrap();
    let here = current();
    let is_root = nix::unistd::geteuid().is_root();
    for (path, errno) in [
        (folder.join("missing"), libc::ENOENT),
        (folder.join("file"), libc::EINVAL),
        (PathBuf::from("/proc/self/ns/uts"), libc::EINVAL),
        (
            PathBuf::from("/proc/thread-self/ns/net"),
            if is_root { 0 } else { libc::EPERM },
        ),
    ] {
        let mut plan = plan(
            &[
                &[tcp("127.0.0.1:0"), udp("127.0.0.1:0")],
                &[tcp("127.0.0.1:0")],
            ],
            ACCESS,
        );
        listener(&mut plan, 0).settings_mut().network_namespace = Some(path.clone());
        let outcome = keep(&plan);
        assert_eq!(current(), here);
        assert_eq!(outcome.bound.at(1).len(), 1);
        if errno == 0 {
            assert_eq!(outcome.errors, []);
            continue;
        }
        let found: Vec<_> = outcome.errors.iter().map(|error| error.socket).collect();
        assert_eq!(found, [0, 1]);
        for error in &outcome.errors {
            assert_eq!(error.step, BindStep::EnterNamespace);
            assert!([errno, libc::EACCES].contains(&error.errno), "{error:?}");
            assert_eq!(error.path.as_ref(), Some(&path));
            assert!(!error.is_tolerated(&plan));
        }
    }
}

#[test]
fn a_link_local_address_is_bound_on_its_interface() {
    let Some(namespace) = Namespace::new() else {
        return;
    };
    for transport in [Transport::Tcp, Transport::Udp] {
        let endpoint = Endpoint::Inet {
            transport,
            address: "[fe80::a]:0".parse().unwrap(),
            v6_only: true,
            optional: false,
            scope: Some("va".to_owned()),
        };
        let outcome = bound(&namespace.plan(std::slice::from_ref(&endpoint)));
        let socket = first(&outcome);
        let real = SockRef::from(&socket.fd).local_addr().unwrap();
        let Some(SocketAddr::V6(real)) = real.as_socket() else {
            panic!("{real:?}");
        };
        assert_ne!(real.scope_id(), 0);
        let wanted = format!("[fe80::a%va]:{}", real.port());
        assert_eq!(socket.address.to_string(), wanted);
        if transport == Transport::Tcp {
            let there = SocketAddrV6::new(*real.ip(), real.port(), 0, real.scope_id());
            namespace.inside(|| TcpStream::connect(there)).unwrap();
        }
        // The interface is looked up where the socket is bound.
        let outside = keep(&single(endpoint));
        let error = only_error(&outside);
        assert_eq!(error.step, BindStep::SetOption("scope"));
        assert_eq!(error.errno, libc::ENODEV);
    }
}

fn with_groups(endpoint: Endpoint, groups: &[(&str, Option<&str>)]) -> Plan {
    let mut plan = single(endpoint);
    listener(&mut plan, 0).settings_mut().multicast = groups
        .iter()
        .map(|(group, interface)| Multicast {
            group: group.parse().unwrap(),
            interface: interface.map(str::to_owned),
        })
        .collect();
    plan
}

/// Sends from a socket of the namespace of the moment, over an interface.
fn send(group: &str, port: u16, interface: &str, words: &[u8]) {
    let group: IpAddr = group.parse().unwrap();
    let there = SocketAddr::new(group, port);
    let client = Socket::new(Domain::for_address(there), Type::DGRAM, None).unwrap();
    let index = nix::net::if_::if_nametoindex(interface).unwrap();
    match group {
        IpAddr::V4(_) => {
            let own = if interface == "lo" {
                "127.0.0.1"
            } else {
                "192.0.2.1"
            };
            client.set_multicast_if_v4(&own.parse().unwrap()).unwrap();
        }
        IpAddr::V6(_) => client.set_multicast_if_v6(index).unwrap(),
    }
    client.send_to(words, &there.into()).unwrap();
}

fn received(socket: &BoundSocket) -> usize {
    read(&socket.fd, &mut [0; 16]).unwrap()
}

#[test]
fn a_multicast_group_is_joined_and_heard_and_is_for_everybody() {
    let group = [("239.255.77.1", Some("lo"))];
    let outcome = bound(&with_groups(udp("0.0.0.0:0"), &group));
    let socket = first(&outcome);
    assert!(SockRef::from(&socket.fd).reuse_address().unwrap());
    let second = bound(&with_groups(socket.address.clone(), &group));
    send(group[0].0, port(socket), "lo", b"four");
    assert_eq!((received(socket), received(first(&second))), (4, 4));
}

#[test]
fn a_socket_joins_the_groups_of_its_families() {
    let Some(namespace) = Namespace::new() else {
        return;
    };
    let groups = [("239.255.77.1", Some("va")), ("ff12::7701", Some("va"))];
    let dual = flags(udp("[::]:0"), false, false);
    for (endpoint, four, six) in [
        (udp("0.0.0.0:0"), true, false),
        (udp("[::]:0"), false, true),
        (dual, true, true),
    ] {
        let mut plan = with_groups(endpoint, &groups);
        listener(&mut plan, 0).settings_mut().network_namespace = Some(namespace.path());
        let outcome = bound(&plan);
        let socket = first(&outcome);
        for (joins, (group, _), words) in
            [(four, groups[0], &b"four"[..]), (six, groups[1], b"six6!")]
        {
            if joins {
                namespace.inside(|| send(group, port(socket), "va", words));
                assert_eq!(received(socket), words.len(), "{group}");
            }
        }
    }
}

#[test]
fn a_group_that_cannot_be_joined_is_an_error() {
    for (endpoint, group, call) in [
        (udp("0.0.0.0:0"), "239.255.77.1", "IP_ADD_MEMBERSHIP"),
        (udp("[::]:0"), "ff12::7701", "IPV6_ADD_MEMBERSHIP"),
    ] {
        let outcome = keep(&with_groups(endpoint, &[(group, Some("nosuch0"))]));
        let error = only_error(&outcome);
        assert_eq!(error.step, BindStep::SetOption(call));
        assert_eq!(error.errno, libc::ENODEV);
    }
}

// The tables of this namespace know nothing of another's clients, and may show strangers.
#[test]
fn who_waits_in_another_namespace_is_not_known() {
    let Some(namespace) = Namespace::new() else {
        return;
    };
    let outcome = bound(&namespace.plan(&[tcp("127.0.0.1:0")]));
    let socket = first(&outcome);
    let address = ("127.0.0.1", port(socket));
    let _client = namespace.inside(|| TcpStream::connect(address).unwrap());
    let before = waiters(&[socket]);
    assert!(!before.is_empty());
    assert!(!waiters(&[socket]).none_was_taken(&before));
    assert_eq!(accept(socket, false).unwrap().ends.protocol, Protocol::Tcp);
}

// What is read from the descriptor is known wherever the socket is.
#[test]
fn what_waits_in_another_namespace_is_known_but_for_unix_clients() {
    let Some(namespace) = Namespace::new() else {
        return;
    };
    let folder = Folder::new();
    let path = folder.join("app.sock");
    let outcome = bound(&namespace.plan(&[tcp("127.0.0.1:0"), stream(&path)]));
    let [tcp, unix] = outcome.bound.at(0)[..] else {
        panic!("two sockets")
    };
    let found = |socket| depth(socket).map(|one| (one.depth, one.limit, one.drops));
    assert_eq!(found(tcp), Some((Some(0), Some(16), Some(0))));
    assert_eq!(found(unix), Some((Some(0), Some(16), None)));
    let address = ("127.0.0.1", port(tcp));
    let _tcp = namespace.inside(|| TcpStream::connect(address).unwrap());
    let _unix = UnixStream::connect(&path).unwrap();
    assert_eq!(found(tcp), Some((Some(1), Some(16), Some(0))));
    assert_eq!(found(unix), Some((None, Some(16), None)));
}
