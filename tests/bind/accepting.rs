//! Accepting, and what is known of the two ends.

use crate::fixture::*;
use listend::config::{Transport, UnixKind};
use listend::connection::{Credentials, End, Protocol, Source};
use listend::listener::{
    Accepted, BoundSocket, IoMode, NotAccepted, accept, prepare_for_spawn, set_mode,
};
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::unistd::{getegid, geteuid};
use socket2::{Domain, SockAddr, SockRef, Socket, Type};
use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;

/// Accepts the client that waits.
fn take(socket: &BoundSocket) -> Accepted {
    accept(socket, false).unwrap()
}

fn connect(address: &str, socket: &BoundSocket) -> TcpStream {
    TcpStream::connect(format!("{address}:{}", port(socket))).unwrap()
}

fn inet_end(address: SocketAddr) -> End {
    End::Inet(address)
}

#[test]
fn both_ends_of_a_tcp_connection_are_as_the_client_has_them() {
    // A listener with one address, and one that has to be asked.
    for address in ["127.0.0.1:0", "0.0.0.0:0"] {
        let outcome = bound(&single(tcp(address)));
        let socket = first(&outcome);
        let client = connect("127.0.0.1", socket);
        let ends = take(socket).ends;
        assert_eq!(ends.protocol, Protocol::Tcp);
        assert_eq!(
            ends.local,
            inet_end(client.peer_addr().unwrap()),
            "{address}"
        );
        assert_eq!(
            ends.remote,
            inet_end(client.local_addr().unwrap()),
            "{address}"
        );
        assert_eq!(ends.credentials, None);
        assert_eq!(ends.source(), Source::Ip("127.0.0.1".parse().unwrap()));
    }
}

#[test]
fn ipv4_over_a_dual_stack_socket_is_ipv4_at_both_ends() {
    let outcome = keep(&single(flags(tcp("[::]:0"), false, false)));
    if !outcome.errors.is_empty() {
        return skip("no IPv6");
    }
    let socket = first(&outcome);
    let client = connect("127.0.0.1", socket);
    let ends = take(socket).ends;
    assert_eq!(ends.local, inet_end(client.peer_addr().unwrap()));
    assert_eq!(ends.remote, inet_end(client.local_addr().unwrap()));
    if let Ok(client) = TcpStream::connect(("::1", port(socket))) {
        let ends = take(socket).ends;
        assert_eq!(ends.local, inet_end(client.peer_addr().unwrap()));
        assert_eq!(ends.remote, inet_end(client.local_addr().unwrap()));
    }
}

#[test]
fn mptcp_is_tcp() {
    let outcome = keep(&single(inet(Transport::Mptcp, "127.0.0.1:0")));
    if !outcome.errors.is_empty() {
        return skip("no MPTCP");
    }
    let socket = first(&outcome);
    let client = connect("127.0.0.1", socket);
    let ends = take(socket).ends;
    assert_eq!(ends.protocol, Protocol::Tcp);
    assert_eq!(ends.remote, inet_end(client.local_addr().unwrap()));
}

#[test]
fn a_unix_client_is_known_by_its_name_and_by_who_it_is() {
    let folder = Folder::new();
    for kind in [UnixKind::Stream, UnixKind::SeqPacket] {
        let path = folder.join("app.sock");
        let outcome = bound(&single(unix(kind, &path)));
        let socket = first(&outcome);
        let of_type = match kind {
            UnixKind::SeqPacket => Type::SEQPACKET,
            _ => Type::STREAM,
        };
        let me = Credentials {
            pid: std::process::id() as i32,
            uid: geteuid().as_raw(),
            gid: getegid().as_raw(),
        };
        let own_path = folder.join("client.sock");
        let odd = format!("\0{}\0odd", unique("client"));
        for (name, expected) in [
            (None, End::Unnamed),
            (
                Some(own_path.to_str().unwrap()),
                End::Path(own_path.clone()),
            ),
            (
                Some(odd.as_str()),
                End::Abstract(odd.as_bytes()[1..].to_vec()),
            ),
        ] {
            let client = Socket::new(Domain::UNIX, of_type, None).unwrap();
            if let Some(name) = name {
                client.bind(&SockAddr::unix(name).unwrap()).unwrap();
            }
            client.connect(&SockAddr::unix(&path).unwrap()).unwrap();
            let ends = take(socket).ends;
            assert_eq!(ends.protocol, Protocol::Unix);
            assert_eq!(ends.local, End::Path(path.clone()));
            assert_eq!(ends.remote, expected);
            assert_eq!(ends.credentials, Some(me));
            assert_eq!(ends.source(), Source::User(me.uid));
        }
        std::fs::remove_file(own_path).unwrap();
        outcome.bound.withdraw();
    }
}

#[test]
fn an_abstract_listener_has_its_name() {
    let name = unique("accepting");
    let outcome = bound(&single(abstract_name(&name)));
    let address = SockAddr::unix(format!("\0{name}")).unwrap();
    let client = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    client.connect(&address).unwrap();
    let ends = take(first(&outcome)).ends;
    assert_eq!(ends.local, End::Abstract(name.into_bytes()));
}

#[test]
fn a_connection_is_close_on_exec_and_blocks_unless_asked() {
    let outcome = bound(&single(tcp("127.0.0.1:0")));
    let socket = first(&outcome);
    for nonblocking in [false, true] {
        let _client = connect("127.0.0.1", socket);
        let fd = accept(socket, nonblocking).unwrap().fd;
        let flags = fcntl(&fd, FcntlArg::F_GETFD).unwrap();
        assert!(FdFlag::from_bits_retain(flags).contains(FdFlag::FD_CLOEXEC));
        let status = OFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFL).unwrap());
        assert_eq!(status.contains(OFlag::O_NONBLOCK), nonblocking);
    }
}

#[test]
fn where_nobody_waits_nobody_is_accepted_and_nothing_blocks() {
    let folder = Folder::new();
    let stream = stream(&folder.join("app.sock"));
    let outcome = bound(&plan(&[&[tcp("127.0.0.1:0"), stream]], ACCESS));
    for socket in outcome.bound.at(0) {
        assert_eq!(accept(socket, false).unwrap_err(), NotAccepted::Gone);
    }
}

#[test]
fn a_socket_that_has_no_connections_says_so_at_once() {
    let outcome = bound(&single(udp("127.0.0.1:0")));
    let socket = first(&outcome);
    // EOPNOTSUPP: nothing to serve.
    assert_eq!(accept(socket, false).unwrap_err(), NotAccepted::Gone);
}

#[test]
fn closing_what_was_accepted_ends_the_connection() {
    let folder = Folder::new();
    let path = folder.join("app.sock");
    let outcome = bound(&single(stream(&path)));
    let mut client = UnixStream::connect(&path).unwrap();
    drop(take(first(&outcome)));
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
}

// Whatever whoever shares the listener does with O_NONBLOCK, and whenever.
#[test]
fn accepting_does_not_wait_for_a_client_that_has_gone() {
    let folder = Folder::new();
    let outcome = bound(&plan(
        &[&[tcp("127.0.0.1:0"), stream(&folder.join("app.sock"))]],
        ACCESS,
    ));
    for socket in outcome.bound.at(0) {
        let flags = OFlag::from_bits_retain(fcntl(&socket.fd, FcntlArg::F_GETFL).unwrap());
        assert!(!flags.contains(OFlag::O_NONBLOCK));
        let (done, is_done) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                for _ in 0..20 {
                    done.send(accept(socket, false).err()).unwrap();
                }
            });
            for _ in 0..20 {
                // Hardly a moment; for ever is what it was.
                let answer = is_done.recv_timeout(std::time::Duration::from_secs(10));
                if answer.is_err() {
                    // So that the test can end.
                    SockRef::from(&socket.fd)
                        .shutdown(std::net::Shutdown::Both)
                        .unwrap();
                }
                assert_eq!(answer, Ok(Some(NotAccepted::Gone)), "{}", socket.address);
            }
        });
    }
    // Who is there is accepted all the same.
    let [tcp, _] = outcome.bound.at(0)[..] else {
        panic!("two sockets")
    };
    let _client = connect("127.0.0.1", tcp);
    take(tcp);
}

// Where the flag is known nothing guards the call, so that it is known only as long as nobody else has the listener.
#[test]
fn a_flag_that_others_may_change_is_not_relied_on() {
    let outcome = bound(&single(tcp("127.0.0.1:0")));
    let socket = first(&outcome);
    assert!(set_mode(socket, IoMode::NonBlocking).unwrap());
    assert!(!set_mode(socket, IoMode::NonBlocking).unwrap());
    assert_eq!(accept(socket, false).unwrap_err(), NotAccepted::Gone);

    prepare_for_spawn(socket, 8, IoMode::AsItIs).unwrap();
    fcntl(&socket.fd, FcntlArg::F_SETFL(OFlag::empty())).unwrap();
    std::thread::scope(|scope| {
        let accepts = scope.spawn(|| accept(socket, false));
        let until = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while !accepts.is_finished() && std::time::Instant::now() < until {
            std::thread::yield_now();
        }
        if !accepts.is_finished() {
            // So that the test can end.
            SockRef::from(&socket.fd)
                .shutdown(std::net::Shutdown::Both)
                .unwrap();
            panic!("it waits");
        }
        assert_eq!(accepts.join().unwrap().unwrap_err(), NotAccepted::Gone);
    });
    assert!(
        set_mode(socket, IoMode::NonBlocking).unwrap(),
        "asked of the kernel"
    );
}
