//! Who waits at a socket, told from who waited before.

use crate::fixture::*;
use listend::config::options::OptionValue;
use listend::config::{Endpoint, Transport, UnixKind};
use listend::listener::{BoundSocket, Waiters, accept, waiters};
use nix::mqueue::{MQ_OFlag, mq_open, mq_send, mq_unlink};
use nix::sys::stat::Mode;
use socket2::{Domain, SockAddr, Socket, Type};
use std::fs::OpenOptions;
use std::io::Write;
use std::net::{TcpStream, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixStream};

fn now(socket: &BoundSocket) -> Waiters {
    waiters(&[socket])
}

fn take(socket: &BoundSocket) -> listend::listener::Accepted {
    accept(socket, false).unwrap()
}

/// Clients come by `connect`, and are accepted one by one.
#[track_caller]
fn check_clients<T>(socket: &BoundSocket, connect: impl Fn() -> T) {
    let nobody = now(socket);
    assert!(nobody.is_empty());
    assert!(
        !now(socket).none_was_taken(&nobody),
        "nobody was there to be taken"
    );

    let _one = connect();
    let one = now(socket);
    assert!(!one.is_empty());
    assert!(now(socket).none_was_taken(&one), "it still waits");
    assert!(!one.none_was_taken(&nobody));

    let _two = connect();
    let both = now(socket);
    assert!(both.none_was_taken(&one), "one more has come");

    let accepted = take(socket);
    assert!(!now(socket).none_was_taken(&one), "the first was taken");
    assert!(!now(socket).none_was_taken(&both));
    let second = now(socket);
    assert!(!second.is_empty(), "the second still waits");

    // As many as before, and others.
    let _three = connect();
    assert!(!now(socket).none_was_taken(&both));
    assert!(now(socket).none_was_taken(&second));

    // Accepted and closed leaves nobody behind either.
    drop(accepted);
    drop((take(socket), take(socket)));
    assert!(now(socket).is_empty());
}

#[test]
fn tcp_clients_are_known_one_by_one() {
    for address in ["127.0.0.1:0", "0.0.0.0:0"] {
        let outcome = bound(&single(tcp(address)));
        let socket = first(&outcome);
        check_clients(socket, || {
            TcpStream::connect(("127.0.0.1", port(socket))).unwrap()
        });
    }
}

#[test]
fn ipv6_and_dual_stack_clients_are_known_one_by_one() {
    let outcome = keep(&single(flags(tcp("[::]:0"), false, false)));
    if !outcome.errors.is_empty() || TcpStream::connect(("::1", port(first(&outcome)))).is_err() {
        return skip("no IPv6");
    }
    let socket = first(&outcome);
    drop(take(socket));
    check_clients(socket, || {
        TcpStream::connect(("127.0.0.1", port(socket))).unwrap()
    });
    check_clients(socket, || {
        TcpStream::connect(("::1", port(socket))).unwrap()
    });
    let outcome = bound(&single(tcp("[::1]:0")));
    let socket = first(&outcome);
    check_clients(socket, || {
        TcpStream::connect(("::1", port(socket))).unwrap()
    });
}

#[test]
fn mptcp_clients_are_never_taken_for_others() {
    let outcome = keep(&single(inet(Transport::Mptcp, "127.0.0.1:0")));
    if !outcome.errors.is_empty() {
        return skip("no MPTCP");
    }
    let socket = first(&outcome);
    let _client = TcpStream::connect(("127.0.0.1", port(socket))).unwrap();
    let one = now(socket);
    assert!(!one.is_empty());
    drop(take(socket));
    assert!(!now(socket).none_was_taken(&one));
}

// Both have the port, and the kernel does not tell whose client is whose.
#[test]
fn of_listeners_that_share_a_port_nothing_is_claimed() {
    let shared = [("reuse_port", OptionValue::Flag(true))];
    let outcome = bound(&with_options(tcp("127.0.0.1:0"), &shared));
    let one = first(&outcome);
    let outcome = bound(&with_options(one.address.clone(), &shared));
    let other = first(&outcome);
    let mut clients = Vec::new();
    while now(one).is_empty() || now(other).is_empty() {
        clients.push(TcpStream::connect(("127.0.0.1", port(one))).unwrap());
        let before = now(one);
        assert!(!now(one).none_was_taken(&before));
    }
    let before = now(one);
    assert!(!now(one).none_was_taken(&before));
    drop(take(one));
    assert!(!now(one).none_was_taken(&before));
}

// One that has hung up looks like any other that has: the next run may have another one to take.
#[test]
fn of_clients_that_hung_up_nothing_is_claimed() {
    let folder = Folder::new();
    let path = folder.join("app.sock");
    let outcome = bound(&plan(&[&[tcp("127.0.0.1:0"), stream(&path)]], ACCESS));
    let [tcp, unix] = outcome.bound.at(0)[..] else {
        panic!("two sockets")
    };
    let connect = || Socket::from(TcpStream::connect(("127.0.0.1", port(tcp))).unwrap());
    let hang_up = || {
        // A reset: the connection is in no table any more, only in the queue.
        let client = connect();
        client.set_linger(Some(std::time::Duration::ZERO)).unwrap();
        drop(client);
        drop(UnixStream::connect(&path).unwrap());
    };
    let stay = || (connect(), UnixStream::connect(&path).unwrap());
    let both = [tcp, unix];
    let first_one = stay();
    let whole = both.map(now);
    hang_up();
    let mixed = both.map(now);
    for ((socket, whole), mixed) in both.iter().zip(&whole).zip(&mixed) {
        // Queues are emptied from the front: who came first was not taken.
        assert!(now(socket).none_was_taken(whole), "{}", socket.address);
        assert!(!now(socket).none_was_taken(mixed), "{}", socket.address);
        drop(take(socket));
        let gone = now(socket);
        assert!(!gone.is_empty() && !now(socket).none_was_taken(&gone));
        drop(take(socket));
    }
    drop(first_one);
    hang_up();
    let gone = both.map(now);
    for (socket, gone) in both.iter().zip(&gone) {
        drop(take(socket));
        assert!(!now(socket).none_was_taken(gone), "{}", socket.address);
    }
}

#[test]
fn unix_clients_are_known_one_by_one() {
    let folder = Folder::new();
    for (kind, of_type) in [
        (UnixKind::Stream, Type::STREAM),
        (UnixKind::SeqPacket, Type::SEQPACKET),
    ] {
        let path = folder.join(&unique("queue"));
        let outcome = bound(&single(unix(kind, &path)));
        check_clients(first(&outcome), || {
            let client = Socket::new(Domain::UNIX, of_type, None).unwrap();
            client.connect(&SockAddr::unix(&path).unwrap()).unwrap();
            client
        });
    }
}

#[test]
fn whoever_waits_at_one_of_two_sockets_can_be_taken() {
    let folder = Folder::new();
    let path = folder.join("app.sock");
    let outcome = bound(&plan(&[&[tcp("127.0.0.1:0"), stream(&path)]], ACCESS));
    let sockets: Vec<&BoundSocket> = outcome.bound.at(0);
    let _one = TcpStream::connect(("127.0.0.1", port(sockets[0]))).unwrap();
    let _two = UnixStream::connect(&path).unwrap();
    let before = waiters(&sockets);
    assert!(waiters(&sockets).none_was_taken(&before));
    drop(take(sockets[1]));
    assert!(!waiters(&sockets).none_was_taken(&before));
}

/// Messages have no identity: whoever has read one and ends while others wait has done nothing wrong.
#[track_caller]
fn check_messages(socket: &BoundSocket, send: impl Fn(&str)) {
    assert!(now(socket).is_empty());
    send("one");
    send("one");
    let before = now(socket);
    assert!(!before.is_empty());
    assert!(!now(socket).none_was_taken(&before));
    nix::unistd::read(&socket.fd, &mut [0; 3]).unwrap();
    send("two");
    assert!(!now(socket).none_was_taken(&before));
}

#[test]
fn of_datagrams_nothing_is_claimed() {
    let outcome = bound(&single(udp("127.0.0.1:0")));
    let socket = first(&outcome);
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    check_messages(socket, |text| {
        let sent = client.send_to(text.as_bytes(), ("127.0.0.1", port(socket)));
        sent.unwrap();
    });

    let folder = Folder::new();
    let path = folder.join("log.sock");
    let outcome = bound(&single(unix(UnixKind::Datagram, &path)));
    let client = UnixDatagram::unbound().unwrap();
    check_messages(first(&outcome), |text| {
        client.send_to(text.as_bytes(), &path).unwrap();
    });
}

#[test]
fn of_what_lies_in_a_fifo_or_a_message_queue_nothing_is_claimed() {
    let folder = Folder::new();
    let path = folder.join("fifo");
    let outcome = bound(&single(Endpoint::Fifo { path: path.clone() }));
    let writer = OpenOptions::new().write(true).open(&path).unwrap();
    check_messages(first(&outcome), |text| {
        (&writer).write_all(text.as_bytes()).unwrap();
    });

    let name = format!("/{}", unique("waiting"));
    let outcome = keep(&single(Endpoint::MessageQueue { name: name.clone() }));
    if !outcome.errors.is_empty() {
        return skip("no message queues");
    }
    let socket = first(&outcome);
    let queue = mq_open(name.as_str(), MQ_OFlag::O_WRONLY, Mode::empty(), None).unwrap();
    mq_send(&queue, b"one", 0).unwrap();
    let one = now(socket);
    assert!(!one.is_empty() && !now(socket).none_was_taken(&one));
    mq_unlink(name.as_str()).unwrap();
}

#[test]
fn of_what_the_kernel_does_not_tell_nothing_is_claimed() {
    let path = std::path::PathBuf::from("/dev/zero");
    let outcome = keep(&single(Endpoint::Special {
        path,
        writable: false,
    }));
    assert_eq!(outcome.errors, []);
    let socket = first(&outcome);
    let before = now(socket);
    assert!(!before.is_empty());
    assert!(!now(socket).none_was_taken(&before));
}
