//! Inherited sockets, and the listeners they belong to.

use crate::fixture::*;
use listend::config::{Endpoint, Transport, UnixKind, UnixName};
use listend::diagnose::explain_adoption;
use listend::listener::{AdoptProblem, Inherited, Purpose, UnknownPorts, bind_all, match_up};
use listend::plan::{ListenerId, Plan};
use listend::report::Kind;
use nix::sys::stat::{Mode, fstat};
use socket2::{Domain, SockRef, Socket, Type};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener};

fn given(name: &str, fd: impl Into<OwnedFd>) -> Inherited {
    Inherited {
        fd: fd.into(),
        name: name.to_owned(),
    }
}

fn inode(fd: &OwnedFd) -> u64 {
    fstat(fd).unwrap().st_ino
}

fn tcp_listener() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

/// The indices of what was matched, sorted.
fn places(plan: &Plan, inherited: Vec<Inherited>) -> (Vec<(u32, usize)>, Vec<AdoptProblem>) {
    let (taken, problems) = match_up(plan, inherited, UnknownPorts::NeedAName);
    let listeners = plan.listeners();
    let place = |key| {
        let mut of_it = listeners.clone();
        of_it.find_map(|(id, one)| Some((id.0, one.position(key)?)))
    };
    let mut places: Vec<_> = taken.keys().filter_map(|key| place(*key)).collect();
    places.sort_unstable();
    (places, problems)
}

// Rule: nobody gets another's clients.
#[test]
fn a_chosen_port_without_a_name_is_known_only_where_nothing_else_can_be_meant() {
    let by_elimination = |plan: &Plan, listeners: usize| {
        let given = (0..listeners).map(|_| given("l.0", tcp_listener().0));
        let (taken, problems) = match_up(plan, given.collect(), UnknownPorts::ByElimination);
        (taken.len(), problems.len())
    };
    let one = plan(&[&[tcp("127.0.0.1:0")], &[udp("127.0.0.1:0")]], ACCESS);
    assert_eq!(by_elimination(&one, 1), (1, 0));
    assert_eq!(by_elimination(&one, 2), (0, 2));
    let two = plan(&[&[tcp("127.0.0.1:0")], &[tcp("127.0.0.1:0")]], ACCESS);
    assert_eq!(by_elimination(&two, 1), (0, 1));
    assert_eq!(by_elimination(&two, 2), (0, 2));
    let (_, problems) = match_up(
        &one,
        vec![given("l.0", tcp_listener().0)],
        UnknownPorts::NeedAName,
    );
    assert_eq!(problems.len(), 1);
}

#[test]
fn names_come_first_then_addresses() {
    let (first, at_first) = tcp_listener();
    let (second, at_second) = tcp_listener();
    let (third, _) = tcp_listener();
    let plan = plan(
        &[
            &[tcp("127.0.0.1:0"), tcp(&at_first)],
            &[tcp(&at_second)],
            &[udp("127.0.0.1:0")],
        ],
        ACCESS,
    );
    let inodes: Vec<u64> = [&first, &second, &third]
        .map(|one| inode(&one.try_clone().unwrap().into()))
        .to_vec();
    // In an order in which the socket for any port could take the place of the other.
    let inherited = vec![
        given("l0", first),
        given("l0", third),
        given("unknown", second),
    ];
    let (taken, problems) = match_up(&plan, inherited, UnknownPorts::NeedAName);
    assert_eq!(problems, []);
    let at = |id, index: usize| {
        let listener = plan.listener(ListenerId(id));
        inode(&taken[&listener.sockets[index].key])
    };
    assert_eq!(
        [at(0, 1), at(1, 0), at(0, 0)],
        [inodes[0], inodes[1], inodes[2]]
    );
    assert_eq!(taken.len(), 3);
}

#[test]
fn an_adopted_socket_is_not_bound_again_and_its_clients_are_kept() {
    let folder = Folder::new();
    let path = folder.join("s");
    let (web, address) = tcp_listener();
    let unix_socket = UnixListener::bind(&path).unwrap();
    let _waits = TcpStream::connect(&address).unwrap();
    // A socket that is bound and not yet listened on is as good.
    let quiet = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    quiet.bind(&any.into()).unwrap();
    let at_quiet = quiet.local_addr().unwrap().as_socket().unwrap();
    let plan = plan(
        &[
            &[tcp("127.0.0.1:0")],
            &[stream(&path)],
            &[tcp(&at_quiet.to_string())],
        ],
        ACCESS,
    );
    let before = inode(&web.try_clone().unwrap().into());
    let inherited = vec![
        given("l0", web),
        given("l1", unix_socket),
        given("other", quiet),
    ];
    let (taken, problems) = match_up(&plan, inherited, UnknownPorts::NeedAName);
    assert_eq!(problems, []);
    let outcome = bind_all(&plan, Purpose::Keep, taken);
    assert_eq!(outcome.errors, []);
    let [web, unix_socket, quiet] = outcome.bound.iter().collect::<Vec<_>>()[..] else {
        panic!("{outcome:?}");
    };
    assert_eq!(inode(&web.fd), before);
    assert_eq!(web.address.to_string(), address);
    assert_eq!(web.backlog, Some(16));
    SockRef::from(&web.fd).accept().unwrap();
    assert!(SockRef::from(&quiet.fd).is_listener().unwrap());
    // The path is whoever bound it's.
    assert_eq!(unix_socket.identity, None);
    assert!(outcome.bound.remove_paths().is_empty());
    assert_eq!(folder.names(), ["s"]);
}

#[test]
fn the_right_name_with_the_wrong_socket_is_an_error() {
    let folder = Folder::new();
    let path = folder.join("s");
    let port = tcp_listener().1;
    let v6 = |only: bool| {
        let socket = Socket::new(Domain::IPV6, Type::STREAM, None).unwrap();
        socket.set_only_v6(only).unwrap();
        let any: SocketAddr = "[::]:0".parse().unwrap();
        socket.bind(&any.into()).unwrap();
        socket
    };
    let (server, address) = tcp_listener();
    let client = TcpStream::connect(address).unwrap();
    let cases: Vec<(Endpoint, OwnedFd, &str)> = vec![
        (tcp(&port), tcp_listener().0.into(), "a TCP socket on 127."),
        (
            tcp("127.0.0.1:0"),
            UdpSocket::bind("127.0.0.1:0").unwrap().into(),
            "a UDP socket on 127.0.0.1:",
        ),
        (
            inet(Transport::Mptcp, "127.0.0.1:0"),
            tcp_listener().0.into(),
            "a TCP socket",
        ),
        (
            flags(tcp("[::]:0"), false, false),
            v6(true).into(),
            "IPv6 only",
        ),
        (
            flags(tcp("[::]:0"), true, false),
            v6(false).into(),
            "IPv6 and IPv4",
        ),
        (tcp("127.0.0.1:0"), client.into(), "connected"),
        (
            stream(&path),
            UnixListener::bind(folder.join("other")).unwrap().into(),
            "a unix stream socket on",
        ),
        (
            stream(&path),
            UnixDatagram::bind(folder.join("s")).unwrap().into(),
            "a unix datagram socket on",
        ),
        (
            tcp("127.0.0.1:0"),
            std::fs::File::open("/dev/null").unwrap().into(),
            "a device",
        ),
        (
            Endpoint::Fifo { path: path.clone() },
            nix::unistd::pipe().unwrap().0,
            "a pipe or FIFO",
        ),
    ];
    for (endpoint, fd, words) in cases {
        let plan = single(endpoint);
        let (taken, problems) = match_up(&plan, vec![given("l0", fd)], UnknownPorts::NeedAName);
        assert!(taken.is_empty(), "{words}");
        let [AdoptProblem::Mismatch { listener, found }] = &problems[..] else {
            panic!("{words}: {problems:?}");
        };
        assert_eq!(*listener, ListenerId(0));
        assert!(found.contains(words), "{found}: {words}");
        let problem = explain_adoption(&problems[0], &plan);
        assert_eq!(problem.kind, Kind::AdoptionMismatch);
        assert!(problem.is_error() && problem.message.contains(found.as_str()));
        assert_eq!(problem.listener.as_deref(), Some("l0"));
    }
    drop(server);
}

// "that is a UDP socket on 127.0.0.1:53, and the listener needs 127.0.0.1:53".
#[test]
fn a_socket_of_another_kind_at_the_same_address_is_told_from_what_is_needed() {
    let folder = Folder::new();
    let path = folder.join("sock");
    let (udp, unix_datagram) = (
        UdpSocket::bind("127.0.0.1:0").unwrap(),
        UnixDatagram::bind(&path).unwrap(),
    );
    let address = udp.local_addr().unwrap().to_string();
    let seqpacket = unix(UnixKind::SeqPacket, &path);
    let shown = path.display();
    let wildcard = UdpSocket::bind("[::]:0").unwrap();
    let every = wildcard.local_addr().unwrap().to_string();
    let both = Endpoint::Inet {
        transport: Transport::Tcp,
        address: every.parse().unwrap(),
        v6_only: false,
        optional: false,
        scope: None,
    };
    let cases: [(Endpoint, OwnedFd, String); 4] = [
        (
            both,
            wildcard.into(),
            format!("{every} (tcp, IPv6 and IPv4)"),
        ),
        (
            tcp(&address),
            udp.try_clone().unwrap().into(),
            format!("{address} (tcp)"),
        ),
        (
            stream(&path),
            unix_datagram.try_clone().unwrap().into(),
            format!("{shown} (unix)"),
        ),
        (
            seqpacket,
            unix_datagram.into(),
            format!("{shown} (unix-seqpacket)"),
        ),
    ];
    for (endpoint, fd, wanted) in cases {
        let plan = single(endpoint);
        let (_, problems) = match_up(&plan, vec![given("l0", fd)], UnknownPorts::NeedAName);
        let message = explain_adoption(&problems[0], &plan).message;
        let wanted = format!("and the listener needs {wanted}");
        assert!(message.ends_with(&wanted), "{message}");
    }
}

#[test]
fn one_too_many_of_a_name_is_an_error_and_a_stranger_is_closed() {
    let (first, address) = tcp_listener();
    let again = first.try_clone().unwrap();
    let plan = single(tcp(&address));
    let (at, problems) = places(&plan, vec![given("l0", first), given("l0", again)]);
    assert_eq!(at, [(0, 0)]);
    assert!(matches!(problems[..], [AdoptProblem::Surplus { .. }]));
    // It was said that it is on an address, and that the listener needs the same.
    let problem = explain_adoption(&problems[0], &plan);
    assert_eq!(problem.kind, Kind::AdoptionMismatch);
    let told = "has been given one for this address already";
    assert!(problem.message.ends_with(told), "{}", problem.message);

    let (stranger, at_stranger) = tcp_listener();
    let plan = single(tcp("127.0.0.1:0"));
    let (at, problems) = places(&plan, vec![given("connection", stranger)]);
    // Port 0 may be any, so without the name it cannot be told.
    assert_eq!(at, []);
    let problem = explain_adoption(&problems[0], &plan);
    assert_eq!(problem.kind, Kind::AdoptionUnwanted);
    assert!(!problem.is_error());
    assert!(problem.message.contains("`connection`"), "{problem:?}");
    assert!(problem.message.contains(&at_stranger), "{problem:?}");
    assert!(TcpStream::connect(at_stranger).is_err(), "closed");
}

#[test]
fn every_kind_of_name_is_compared() {
    let folder = Folder::new();
    let name = format!("listend-adopt-{}", std::process::id());
    let fifo = folder.join("fifo");
    nix::unistd::mkfifo(&fifo, Mode::S_IRWXU).unwrap();
    let mut open = std::fs::OpenOptions::new();
    let open_fifo = open.read(true).write(true).open(&fifo).unwrap();
    let own = bound(&plan(
        &[
            &[unix(UnixKind::SeqPacket, &folder.join("q"))],
            &[unix(UnixKind::Datagram, &folder.join("d"))],
            &[Endpoint::Unix {
                kind: UnixKind::Stream,
                name: UnixName::Abstract(name.clone()),
            }],
            &[udp("127.0.0.1:0")],
        ],
        ACCESS,
    ));
    let mut endpoints = Vec::new();
    let mut inherited = Vec::new();
    let sockets: Vec<_> = own.bound.iter().collect();
    for socket in sockets.into_iter().rev() {
        endpoints.push(vec![socket.address.clone()]);
        inherited.push(given("x", socket.fd.try_clone().unwrap()));
    }
    endpoints.push(vec![Endpoint::Fifo { path: fifo }]);
    inherited.push(given("x", open_fifo));
    endpoints.push(vec![Endpoint::Special {
        path: "/dev/null".into(),
        writable: false,
    }]);
    inherited.push(given("x", std::fs::File::open("/dev/null").unwrap()));
    let lists: Vec<&[Endpoint]> = endpoints.iter().map(Vec::as_slice).collect();
    inherited.reverse();
    let (at, problems) = places(&plan(&lists, ACCESS), inherited);
    assert_eq!(problems, []);
    let all: Vec<_> = (0..endpoints.len() as u32).map(|id| (id, 0)).collect();
    assert_eq!(at, all);
    own.bound.withdraw();
}

// getpeername(2) of a netlink socket always answers.
#[test]
fn a_netlink_socket_is_taken() {
    let endpoint = Endpoint::Netlink {
        family: "kobject-uevent".to_owned(),
        protocol: 15,
        group: 1,
        mask: 0,
    };
    let outcome = keep(&single(endpoint.clone()));
    if !outcome.errors.is_empty() {
        return skip("no netlink");
    }
    let fd = first(&outcome).fd.try_clone().unwrap();
    let (at, problems) = places(&single(endpoint), vec![given("l0", fd)]);
    assert_eq!((at, problems), (vec![(0, 0)], vec![]));
}

// What ListenStream=PORT makes, and `[::]:PORT` is not.
#[test]
fn a_dual_stack_socket_that_is_not_wanted_is_told_from_what_is() {
    let outcome = keep(&single(flags(tcp("[::]:0"), false, false)));
    if !outcome.errors.is_empty() {
        return skip("no IPv6");
    }
    let port = port(first(&outcome));
    let given = |name| given(name, first(&outcome).fd.try_clone().unwrap());
    let plan = single(flags(tcp(&format!("[::]:{port}")), true, false));
    let (at, problems) = places(&plan, vec![given("l0")]);
    assert_eq!(at, []);
    let problem = explain_adoption(&problems[0], &plan);
    for words in ["(IPv6 and IPv4)", &format!("needs [::]:{port} (IPv6 only)")] {
        assert!(problem.message.contains(words), "{}", problem.message);
    }
    let hint = problem.hint.unwrap_or_default();
    assert!(
        hint.contains(&format!("`:{port}` is one socket for IPv6 and IPv4")),
        "{hint}"
    );
    assert!(hint.contains("BindIPv6Only=ipv6-only"), "{hint}");
    // What a .socket unit without FileDescriptorName= gives has the unit's name.
    let nameless = given("listend.socket");
    let (at, problems) = places(&plan, vec![nameless]);
    assert_eq!(at, []);
    let hint = explain_adoption(&problems[0], &plan)
        .hint
        .unwrap_or_default();
    for words in ["`ipv6_only: false`", "BindIPv6Only=ipv6-only"] {
        assert!(hint.contains(words), "{hint}");
    }
    let plan = single(flags(tcp(&format!("[::]:{port}")), false, false));
    assert_eq!(places(&plan, vec![given("l0")]).0, [(0, 0)]);
    let nameless = given("listend.socket");
    assert_eq!(places(&plan, vec![nameless]).0, [(0, 0)]);
}
