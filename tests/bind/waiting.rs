//! Who waits at a socket, told from who waited before.

use crate::fixture::*;
use listend::config::options::OptionValue;
use listend::config::{Endpoint, Transport, UnixKind};
use listend::listener::{BoundSocket, Waiters, accept, prepare_to_accept, waiters};
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
    prepare_to_accept(socket).unwrap();
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
fn of_listeners_that_share_a_port_nothing_is_claimed_once_both_have_clients() {
    let shared = [("reuse_port", OptionValue::Flag(true))];
    let outcome = bound(&with_options(tcp("127.0.0.1:0"), &shared));
    let one = first(&outcome);
    let outcome = bound(&with_options(one.address.clone(), &shared));
    let other = first(&outcome);
    let mut clients = Vec::new();
    while now(one).is_empty() || now(other).is_empty() {
        clients.push(TcpStream::connect(("127.0.0.1", port(one))).unwrap());
    }
    let before = now(one);
    assert!(!now(one).none_was_taken(&before));
    drop(take(one));
    assert!(!now(one).none_was_taken(&before));
}

#[test]
fn a_client_that_hung_up_still_waits_until_it_is_taken() {
    let folder = Folder::new();
    let path = folder.join("app.sock");
    let outcome = bound(&plan(&[&[tcp("127.0.0.1:0"), stream(&path)]], ACCESS));
    let [tcp, unix] = outcome.bound.listeners[0].sockets.as_slice() else {
        panic!("two sockets")
    };
    let client = Socket::from(TcpStream::connect(("127.0.0.1", port(tcp))).unwrap());
    // A reset: the connection is in no table any more, only in the queue.
    client.set_linger(Some(std::time::Duration::ZERO)).unwrap();
    drop(client);
    drop(UnixStream::connect(&path).unwrap());
    for socket in [tcp, unix] {
        let gone = now(socket);
        assert!(now(socket).none_was_taken(&gone), "{}", socket.address);
        drop(take(socket));
        assert!(!now(socket).none_was_taken(&gone), "{}", socket.address);
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
    let sockets: Vec<&BoundSocket> = outcome.bound.listeners[0].sockets.iter().collect();
    let _one = TcpStream::connect(("127.0.0.1", port(sockets[0]))).unwrap();
    let _two = UnixStream::connect(&path).unwrap();
    let before = waiters(&sockets);
    assert!(waiters(&sockets).none_was_taken(&before));
    drop(take(sockets[1]));
    assert!(!waiters(&sockets).none_was_taken(&before));
}

/// Messages come by `send`, and are read by `read`.
#[track_caller]
fn check_messages(socket: &BoundSocket, send: impl Fn(&str), read: impl Fn()) {
    let nothing = now(socket);
    assert!(nothing.is_empty());
    send("one");
    let one = now(socket);
    assert!(now(socket).none_was_taken(&one));
    assert!(!one.none_was_taken(&nothing));
    read();
    assert!(!now(socket).none_was_taken(&one));
    send("another");
    assert!(!now(socket).none_was_taken(&one));
    read();
    assert!(now(socket).is_empty());
}

#[test]
fn datagrams_are_told_from_each_other() {
    let outcome = bound(&single(udp("127.0.0.1:0")));
    let socket = first(&outcome);
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    let send = |text: &str| {
        let sent = client.send_to(text.as_bytes(), ("127.0.0.1", port(socket)));
        sent.unwrap();
    };
    let read = || {
        nix::unistd::read(&socket.fd, &mut [0; 64]).unwrap();
    };
    check_messages(socket, send, read);
    // A client that hears nothing says the same again.
    for _ in 0..3 {
        send("hello?");
    }
    let three = now(socket);
    assert!(now(socket).none_was_taken(&three));
    read();
    assert!(
        !now(socket).none_was_taken(&three),
        "the second is not the first"
    );
    read();
    read();
    // An empty one is one too.
    send("");
    assert!(now(socket).none_was_taken(&now(socket)));

    let folder = Folder::new();
    let path = folder.join("log.sock");
    let outcome = bound(&single(unix(UnixKind::Datagram, &path)));
    let socket = first(&outcome);
    let client = UnixDatagram::unbound().unwrap();
    let send = |text: &str| {
        client.send_to(text.as_bytes(), &path).unwrap();
    };
    let read = || {
        nix::unistd::read(&socket.fd, &mut [0; 64]).unwrap();
    };
    check_messages(socket, send, read);
}

#[test]
fn what_lies_in_a_fifo_is_known_by_how_much_it_is() {
    let folder = Folder::new();
    let path = folder.join("fifo");
    let outcome = bound(&single(Endpoint::Fifo { path: path.clone() }));
    let socket = first(&outcome);
    let writer = OpenOptions::new().write(true).open(&path).unwrap();
    check_messages(
        socket,
        |text| (&writer).write_all(text.as_bytes()).unwrap(),
        || {
            nix::unistd::read(&socket.fd, &mut [0; 64]).unwrap();
        },
    );
}

#[test]
fn messages_in_a_queue_are_known_by_how_many_they_are() {
    let name = format!("/{}", unique("waiting"));
    let outcome = keep(&single(Endpoint::MessageQueue { name: name.clone() }));
    if !outcome.errors.is_empty() {
        return skip("no message queues");
    }
    let socket = first(&outcome);
    let queue = mq_open(name.as_str(), MQ_OFlag::O_WRONLY, Mode::empty(), None).unwrap();
    let nothing = now(socket);
    assert!(nothing.is_empty());
    mq_send(&queue, b"one", 0).unwrap();
    let one = now(socket);
    assert!(now(socket).none_was_taken(&one));
    mq_send(&queue, b"two", 0).unwrap();
    assert!(
        !now(socket).none_was_taken(&one),
        "nothing is known of which they are"
    );
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
