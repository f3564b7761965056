//! What waits in the queues of real sockets, and what was dropped, to the last one.

use crate::fixture::*;
use listend::config::options::OptionValue;
use listend::config::{Endpoint, Transport, UnixKind};
use listend::listener::{BoundSocket, Depth, DepthReader, Outcome, Unit, accept, depth, depths};
use listend::plan::Plan;
use nix::libc;
use nix::mqueue::{MQ_OFlag, mq_open, mq_send, mq_unlink};
use nix::sys::socket::MsgFlags;
use nix::sys::stat::Mode;
use socket2::{Domain, SockAddr, SockRef, Socket, Type};
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::net::{TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

/// The backlog of the listeners here; the kernel holds one more.
const BACKLOG: u32 = 4;
const HELD: u64 = BACKLOG as u64 + 1;

#[track_caller]
fn now(socket: &BoundSocket) -> Depth {
    let one = depth(socket).expect("a queue");
    assert_eq!(depths([socket].into_iter()), [Some(one)], "both ways");
    one
}

fn short(mut plan: Plan) -> Outcome {
    listener(&mut plan, 0).settings_mut().backlog = BACKLOG;
    keep(&plan)
}

fn take(socket: &BoundSocket) {
    accept(socket, false).unwrap();
}

fn connections(depth: u64, drops: Option<u64>) -> Depth {
    Depth {
        unit: Unit::Connections,
        depth: Some(depth),
        limit: Some(BACKLOG.into()),
        drops,
    }
}

/// Clients come by `connect` until no more are held, and are accepted.
#[track_caller]
fn check_clients<T>(socket: &BoundSocket, drops: Option<u64>, connect: impl Fn() -> T) {
    let mut clients = Vec::new();
    for count in 0..HELD {
        comes_to(socket, connections(count, drops));
        assert!(!now(socket).is_full());
        clients.push(connect());
    }
    comes_to(socket, connections(HELD, drops));
    assert!(now(socket).is_full());
    // Whoever hangs up is in the queue until it is accepted.
    drop(clients);
    assert_eq!(now(socket), connections(HELD, drops));
    for left in (0..HELD).rev() {
        take(socket);
        assert_eq!(now(socket), connections(left, drops));
    }
}

/// One that is turned away: its first packet is dropped, and it does not stay to send another.
fn turned_away(address: &str, port: u16) {
    let address: std::net::IpAddr = address.parse().unwrap();
    let address = SockAddr::from(std::net::SocketAddr::new(address, port));
    let client = Socket::new(address.domain(), Type::STREAM, None).unwrap();
    client.set_nonblocking(true).unwrap();
    let error = client.connect(&address).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EINPROGRESS));
}

/// The kernel may take a moment to look at a packet.
#[track_caller]
fn comes_to(socket: &BoundSocket, wanted: Depth) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while depth(socket) != Some(wanted) && Instant::now() < deadline {
        std::thread::yield_now();
    }
    assert_eq!(now(socket), wanted);
}

#[test]
fn tcp_clients_are_counted_and_so_is_who_was_turned_away() {
    let outcome = short(single(tcp("127.0.0.1:0")));
    let socket = first(&outcome);
    let other = short(single(tcp("127.0.0.1:0")));
    let other = first(&other);
    let connect = || TcpStream::connect(("127.0.0.1", port(socket))).unwrap();
    check_clients(socket, Some(0), connect);

    let _queue: Vec<TcpStream> = (0..HELD).map(|_| connect()).collect();
    for _ in 0..7 {
        turned_away("127.0.0.1", port(socket));
    }
    comes_to(socket, connections(HELD, Some(7)));
    // Those of this socket, and of no other.
    assert_eq!(now(other), connections(0, Some(0)));
    take(socket);
    assert_eq!(now(socket), connections(HELD - 1, Some(7)));
}

#[test]
fn ipv6_clients_are_counted() {
    let outcome = short(single(tcp("[::1]:0")));
    if !outcome.errors.is_empty() {
        return skip("no IPv6");
    }
    let socket = first(&outcome);
    let connect = || TcpStream::connect(("::1", port(socket))).unwrap();
    check_clients(socket, Some(0), connect);
    let _queue: Vec<TcpStream> = (0..HELD).map(|_| connect()).collect();
    turned_away("::1", port(socket));
    comes_to(socket, connections(HELD, Some(1)));
}

#[test]
fn each_of_two_sockets_that_share_a_port_has_its_own_queue() {
    let shared = [("reuse_port", OptionValue::Flag(true))];
    let one = short(with_options(tcp("127.0.0.1:0"), &shared));
    let one = first(&one);
    let other = short(with_options(one.address.clone(), &shared));
    let other = first(&other);
    let mut clients = Vec::new();
    while now(one).depth < Some(2) || now(other).depth < Some(1) {
        if now(one).is_full() || now(other).is_full() {
            clients.clear();
            while now(one).depth > Some(0) {
                take(one);
            }
            while now(other).depth > Some(0) {
                take(other);
            }
        }
        clients.push(TcpStream::connect(("127.0.0.1", port(one))).unwrap());
    }
    let sum = now(one).depth.zip(now(other).depth).map(|(a, b)| a + b);
    assert_eq!(sum, Some(clients.len() as u64));
    let before = now(other);
    take(one);
    assert_eq!(now(other), before);
}

#[test]
fn mptcp_clients_are_counted() {
    let outcome = short(single(inet(Transport::Mptcp, "127.0.0.1:0")));
    if !outcome.errors.is_empty() {
        return skip("no MPTCP");
    }
    let socket = first(&outcome);
    let connect = || TcpStream::connect(("127.0.0.1", port(socket))).unwrap();
    check_clients(socket, None, connect);
    let _queue: Vec<TcpStream> = (0..HELD).map(|_| connect()).collect();
    for _ in 0..7 {
        turned_away("127.0.0.1", port(socket));
    }
    comes_to(socket, connections(HELD, None));
}

fn unix_client(of_type: Type, path: &std::path::Path) -> io::Result<Socket> {
    let client = Socket::new(Domain::UNIX, of_type, None)?;
    client.set_nonblocking(true)?;
    client.connect(&SockAddr::unix(path)?)?;
    Ok(client)
}

#[test]
fn unix_clients_are_counted() {
    let folder = Folder::new();
    for (kind, of_type) in [
        (UnixKind::Stream, Type::STREAM),
        (UnixKind::SeqPacket, Type::SEQPACKET),
    ] {
        let path = folder.join(&unique("queue"));
        let outcome = short(single(unix(kind, &path)));
        let socket = first(&outcome);
        check_clients(socket, None, || unix_client(of_type, &path).unwrap());

        let connect = || unix_client(of_type, &path);
        let _queue: Vec<Socket> = (0..HELD).map(|_| connect().unwrap()).collect();
        let refused = connect().unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
        assert_eq!(now(socket), connections(HELD, None));
    }
}

#[test]
fn sockets_of_all_kinds_are_read_in_one_round() {
    let folder = Folder::new();
    let paths: Vec<_> = (0..50).map(|n| folder.join(&format!("{n}.sock"))).collect();
    let mut endpoints: Vec<Endpoint> = paths.iter().map(|path| stream(path)).collect();
    endpoints.insert(3, tcp("127.0.0.1:0"));
    endpoints.insert(9, udp("127.0.0.1:0"));
    endpoints.push(Endpoint::Special {
        path: "/dev/zero".into(),
        writable: false,
    });
    let outcome = bound(&plan(&[&endpoints], ACCESS));
    let sockets = outcome.bound.at(0);
    let clients = |n: usize| n % 4;
    let mut kept = Vec::new();
    for (n, path) in paths.iter().enumerate() {
        kept.extend((0..clients(n)).map(|_| unix_client(Type::STREAM, path).unwrap()));
    }
    kept.push(
        TcpStream::connect(("127.0.0.1", port(sockets[3])))
            .unwrap()
            .into(),
    );
    let mut found = depths(sockets.iter().copied());
    assert_eq!(found.len(), sockets.len());
    assert_eq!(found.pop(), Some(None), "a device has no queue");
    let mut found: Vec<_> = found
        .into_iter()
        .map(|one| one.and_then(|one| one.depth))
        .collect();
    assert_eq!((found.remove(9), found.remove(3)), (Some(0), Some(1)));
    let expected: Vec<_> = (0..50).map(|n| Some(clients(n) as u64)).collect();
    assert_eq!(found, expected);
}

// One dump serves a round; what was made after it is found all the same.
#[test]
fn a_socket_that_was_made_during_a_round_is_read() {
    let folder = Folder::new();
    let (one, two) = (folder.join("one"), folder.join("two"));
    let early = short(single(stream(&one)));
    let mut reader = DepthReader::new();
    let found = reader.depth(first(&early));
    assert_eq!(found, Some(connections(0, None)));
    let late = short(single(stream(&two)));
    let _client = unix_client(Type::STREAM, &two).unwrap();
    let found = reader.depth(first(&late));
    assert_eq!(found, Some(connections(1, None)));
}

// A datagram is charged with the memory it takes, of which the first one is the measure.
#[test]
fn datagrams_are_measured_and_those_without_room_are_counted() {
    let small = [("receive_buffer", OptionValue::Number(16 * 1024))];
    let outcome = bound(&with_options(udp("127.0.0.1:0"), &small));
    let socket = first(&outcome);
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    let send = || {
        client
            .send_to(&[7; 700], ("127.0.0.1", port(socket)))
            .unwrap()
    };
    let buffer = SockRef::from(&socket.fd).recv_buffer_size().unwrap() as u64;
    let expected = |depth, drops| Depth {
        unit: Unit::Bytes,
        depth: Some(depth),
        limit: Some(buffer),
        drops: Some(drops),
    };
    assert_eq!(now(socket), expected(0, 0));
    send();
    nix::sys::socket::recv(socket.fd.as_raw_fd(), &mut [0; 8], MsgFlags::MSG_PEEK).unwrap();
    let each = now(socket).depth.unwrap();
    assert!(each >= 700, "{each}");
    let fit = buffer / each;
    for count in 2..=fit {
        send();
        comes_to(socket, expected(count * each, 0));
    }
    for lost in 1..=5 {
        send();
        comes_to(socket, expected(fit * each, lost));
    }
    for _ in 0..fit {
        nix::unistd::read(&socket.fd, &mut [0; 1024]).unwrap();
    }
    assert_eq!(now(socket), expected(0, 5));
}

#[test]
fn of_unix_datagrams_it_is_known_whether_there_are_any() {
    let folder = Folder::new();
    let path = folder.join("log.sock");
    let outcome = bound(&single(unix(UnixKind::Datagram, &path)));
    let socket = first(&outcome);
    let client = UnixDatagram::unbound().unwrap();
    let expected = |depth| Depth {
        unit: Unit::Messages,
        depth,
        limit: None,
        drops: None,
    };
    assert_eq!(now(socket), expected(Some(0)));
    client.send_to(b"one", &path).unwrap();
    assert_eq!(now(socket), expected(None));
    nix::unistd::read(&socket.fd, &mut [0; 64]).unwrap();
    assert_eq!(now(socket), expected(Some(0)));
}

#[test]
fn what_lies_in_a_fifo_is_counted_in_bytes() {
    let folder = Folder::new();
    let path = folder.join("fifo");
    let outcome = bound(&single(Endpoint::Fifo { path: path.clone() }));
    let socket = first(&outcome);
    let mut writer = OpenOptions::new().write(true).open(&path).unwrap();
    let empty = now(socket);
    assert_eq!((empty.unit, empty.depth), (Unit::Bytes, Some(0)));
    assert_eq!(empty.drops, None);
    writer.write_all(b"four").unwrap();
    assert_eq!(
        now(socket),
        Depth {
            depth: Some(4),
            ..empty
        }
    );
    let room = empty.limit.unwrap() as usize - 4;
    writer.write_all(&vec![7; room]).unwrap();
    assert_eq!(
        now(socket),
        Depth {
            depth: empty.limit,
            ..empty
        }
    );
    assert!(now(socket).is_full());
}

#[test]
fn messages_in_a_queue_are_counted() {
    let name = format!("/{}", unique("depth"));
    let limits = [("message_queue_max_messages", OptionValue::Number(3))];
    let plan = with_options(Endpoint::MessageQueue { name: name.clone() }, &limits);
    let outcome = keep(&plan);
    if !outcome.errors.is_empty() {
        return skip("no message queues");
    }
    let socket = first(&outcome);
    let queue = mq_open(name.as_str(), MQ_OFlag::O_WRONLY, Mode::empty(), None).unwrap();
    for count in 0..=3 {
        let expected = Depth {
            unit: Unit::Messages,
            depth: Some(count),
            limit: Some(3),
            drops: None,
        };
        assert_eq!(now(socket), expected);
        assert_eq!(now(socket).is_full(), count == 3);
        if count < 3 {
            mq_send(&queue, b"one", 0).unwrap();
        }
    }
    mq_unlink(name.as_str()).unwrap();
}
