//! Sockets, paths, modes.

use crate::fixture::*;
use listend::config::{Endpoint, Transport, UnixKind, UnixName};
use listend::diagnose::{Machine, explain, note};
use listend::listener::{
    Adopted, BindStep, Disturbed, IoMode, Note, NoteKind, Obstacle, Purpose, bind_all,
    prepare_for_spawn,
};
use listend::plan::{Access, ListenerId};
use listend::report::Kind;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::stat::{Mode, umask};
use socket2::{Domain, SockAddr, SockRef, Socket, Type};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::sync::atomic::{AtomicBool, Ordering};

#[test]
fn every_kind_is_bound_close_on_exec_blocking_and_listening() {
    let folder = Folder::new();
    let name = format!("listend-test-{}", std::process::id());
    let of_kind = |kind, name: &str| unix(kind, &folder.join(name));
    let endpoints = [
        tcp("127.0.0.1:0"),
        tcp("[::1]:0"),
        flags(tcp("[::]:0"), false, true),
        udp("127.0.0.1:0"),
        udp("[::1]:0"),
        of_kind(UnixKind::Stream, "stream"),
        of_kind(UnixKind::Datagram, "datagram"),
        of_kind(UnixKind::SeqPacket, "seqpacket"),
        Endpoint::Unix {
            kind: UnixKind::Stream,
            name: UnixName::Abstract(name.clone()),
        },
    ];
    let lists: Vec<&[Endpoint]> = endpoints.iter().map(std::slice::from_ref).collect();
    let outcome = bound(&plan(&lists, ACCESS));
    assert_eq!(outcome.notes, []);
    for (socket, endpoint) in outcome.bound.iter().zip(&endpoints) {
        let raw = SockRef::from(&socket.fd);
        let fd_flags = fcntl(&socket.fd, FcntlArg::F_GETFD).unwrap();
        assert!(FdFlag::from_bits_retain(fd_flags).contains(FdFlag::FD_CLOEXEC));
        assert!(!raw.nonblocking().unwrap(), "{endpoint}");
        assert_eq!(raw.is_listener().unwrap(), endpoint.accepts(), "{endpoint}");
        assert_eq!(socket.backlog, endpoint.accepts().then_some(16));
        assert_eq!(socket.identity.is_some(), endpoint.path().is_some());
        if let Endpoint::Inet {
            transport,
            address,
            v6_only,
            ..
        } = endpoint
        {
            assert_eq!(raw.reuse_address().unwrap(), *transport == Transport::Tcp);
            assert!(!raw.reuse_port().unwrap());
            if address.is_ipv6() {
                assert_eq!(raw.only_v6().unwrap(), *v6_only);
            }
            let real = raw.local_addr().unwrap().as_socket().unwrap();
            assert_ne!(real.port(), 0);
            assert_eq!(socket.address.to_string(), real.to_string());
        } else {
            assert_eq!(&socket.address, endpoint);
        }
    }
    for four in ["127.0.0.1", "::1"] {
        let dual = port(outcome.bound.at(2)[0]);
        TcpStream::connect((four, dual)).expect("the dual-stack socket takes both families");
    }
    UnixStream::connect(folder.join("stream")).unwrap();
    let client = UnixDatagram::unbound().unwrap();
    client.send_to(b"x", folder.join("datagram")).unwrap();
    let client = Socket::new(Domain::UNIX, Type::SEQPACKET, None).unwrap();
    let there = SockAddr::unix(folder.join("seqpacket")).unwrap();
    client.connect(&there).unwrap();
    let client = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    let there = SockAddr::unix(format!("\0{name}")).unwrap();
    client.connect(&there).unwrap();
    assert_eq!(outcome.bound.remove_paths().len(), 0);
    assert!(folder.names().is_empty());
}

#[test]
fn both_halves_of_localhost_get_one_port() {
    for transport in [Transport::Tcp, Transport::Udp] {
        let four = inet(transport, "127.0.0.1:0");
        let six = flags(inet(transport, "[::1]:0"), true, true);
        for pair in [[four.clone(), six.clone()], [six, four]] {
            let outcome = bound(&plan(&[&pair], ACCESS));
            let sockets = outcome.bound.at(0);
            assert_eq!(sockets.len(), 2);
            assert_eq!(port(sockets[0]), port(sockets[1]));
        }
    }
}

#[test]
fn an_optional_address_that_is_missing_is_left_out_with_a_note() {
    let missing = flags(tcp("[2001:db8::1]:0"), true, true);
    let plan = plan(&[&[tcp("127.0.0.1:0"), missing]], ACCESS);
    let outcome = bound(&plan);
    assert_eq!(outcome.bound.at(0).len(), 1);
    let [
        Note {
            socket: 1,
            kind: NoteKind::FamilyMissing { instead: None, .. },
            ..
        },
    ] = &outcome.notes[..]
    else {
        panic!("{:?}", outcome.notes);
    };
    let advice = note(&outcome.notes[0], &plan);
    assert_eq!(advice.kind, Kind::FamilyMissing);
    assert!(
        advice.message.contains("it is left out"),
        "{}",
        advice.message
    );
}

#[test]
fn five_failures_are_five_errors_and_the_rest_is_bound() {
    let folder = Folder::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap();
    let server = UnixListener::bind(folder.join("live")).unwrap();
    std::fs::write(folder.join("file"), "precious").unwrap();
    let plan = plan(
        &[
            &[tcp(&taken.local_addr().unwrap().to_string())],
            &[tcp("127.0.0.1:0")],
            &[udp(&datagrams.local_addr().unwrap().to_string())],
            &[tcp("203.0.113.1:80")],
            &[stream(&folder.join("live"))],
            &[stream(&folder.join("file"))],
        ],
        ACCESS,
    );
    let outcome = keep(&plan);
    let found: Vec<_> = outcome
        .errors
        .iter()
        .map(|error| (error.listener.0, error.errno, error.obstacle))
        .collect();
    assert!(is_live(&outcome.errors[3]));
    let live = outcome.errors[3].obstacle;
    let file = Obstacle::NotASocket("a regular file");
    assert_eq!(
        found,
        [
            (0, nix::libc::EADDRINUSE, None),
            (2, nix::libc::EADDRINUSE, None),
            (3, nix::libc::EADDRNOTAVAIL, None),
            (4, nix::libc::EADDRINUSE, live),
            (5, nix::libc::EEXIST, Some(file)),
        ]
    );
    assert_eq!(outcome.bound.at(1).len(), 1);
    // Nothing of what was in the way has been touched.
    UnixStream::connect(folder.join("live")).unwrap();
    assert_eq!(std::fs::read(folder.join("file")).unwrap(), b"precious");
    drop(server);
}

#[test]
fn a_port_that_only_bind_would_accept_fails_in_listen() {
    let other = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    other.set_reuse_address(true).unwrap();
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    other.bind(&any.into()).unwrap();
    let address = other.local_addr().unwrap().as_socket().unwrap().to_string();
    let first = bound(&single(tcp(&address)));
    assert!(other.listen(1).is_err());
    drop(first);
    other.listen(1).unwrap();
    let plan = single(tcp(&address));
    let outcome = keep(&plan);
    let error = only_error(&outcome);
    assert_eq!(error.errno, nix::libc::EADDRINUSE);
    assert!(matches!(error.step, BindStep::Bind | BindStep::Listen));
}

#[test]
fn a_stale_socket_is_replaced_and_said_so() {
    let folder = Folder::new();
    for kind in [UnixKind::Stream, UnixKind::Datagram, UnixKind::SeqPacket] {
        let path = folder.join("s");
        leave_stale(&path);
        let before = std::fs::metadata(&path).unwrap().ino();
        let plan = single(unix(kind, &path));

        let tried = bind_all(&plan, Purpose::Try, Adopted::default());
        assert_eq!(tried.errors, []);
        let id = ListenerId(0);
        let would = Note {
            listener: id,
            socket: 0,
            kind: NoteKind::StaleWouldBeReplaced,
        };
        assert_eq!(tried.notes, [would]);
        assert_eq!(std::fs::metadata(&path).unwrap().ino(), before);
        assert_eq!(folder.names(), ["s"]);

        let outcome = bound(&plan);
        let replaced = Note {
            listener: id,
            socket: 0,
            kind: NoteKind::StaleReplaced,
        };
        assert_eq!(outcome.notes, [replaced]);
        assert_eq!(note(&outcome.notes[0], &plan).kind, Kind::StaleSocket);
        outcome.bound.remove_paths();
    }
}

#[test]
fn a_live_server_of_any_type_is_left_alone() {
    let folder = Folder::new();
    let path = folder.join("datagram");
    let _server = UnixDatagram::bind(&path).unwrap();
    // A queue that is full answers EAGAIN, and its server lives.
    let full = folder.join("full");
    let server = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    server.bind(&SockAddr::unix(&full).unwrap()).unwrap();
    server.listen(0).unwrap();
    let _client = UnixStream::connect(&full).unwrap();
    for (kind, path) in [
        (UnixKind::Datagram, &path),
        (UnixKind::Stream, &path),
        (UnixKind::Stream, &full),
        (UnixKind::SeqPacket, &full),
    ] {
        for purpose in [Purpose::Keep, Purpose::Try] {
            let plan = single(unix(kind, path));
            let outcome = bind_all(&plan, purpose, Adopted::default());
            let error = only_error(&outcome);
            assert!(is_live(error));
            assert!(path.exists());
            let problem = explain(error, &plan, &Machine::new());
            assert_eq!(problem.kind, Kind::LiveSocket);
            let holder = problem.holder.expect("our own process has it");
            assert_eq!(holder.pid, std::process::id() as i32);
            assert_eq!(holder.user, user());
        }
    }
}

#[test]
fn what_is_no_socket_is_never_removed() {
    let folder = Folder::new();
    leave_stale(&folder.join("stale"));
    std::fs::write(folder.join("file"), "").unwrap();
    std::fs::create_dir(folder.join("folder")).unwrap();
    symlink("stale", folder.join("link")).unwrap();
    symlink("nowhere", folder.join("dangling")).unwrap();
    nix::unistd::mkfifo(&folder.join("fifo"), Mode::S_IRWXU).unwrap();
    for (name, words) in [
        ("file", "a regular file"),
        ("folder", "a folder"),
        ("link", "a symbolic link"),
        ("dangling", "a symbolic link"),
        ("fifo", "a fifo"),
    ] {
        let path = folder.join(name);
        let before = std::fs::symlink_metadata(&path).unwrap().ino();
        for purpose in [Purpose::Keep, Purpose::Try] {
            let plan = single(stream(&path));
            let outcome = bind_all(&plan, purpose, Adopted::default());
            let error = only_error(&outcome);
            assert_eq!(error.obstacle, Some(Obstacle::NotASocket(words)));
            let problem = explain(error, &plan, &Machine::new());
            assert_eq!(problem.kind, Kind::NotASocket);
            assert!(problem.message.contains(words), "{}", problem.message);
        }
        assert_eq!(std::fs::symlink_metadata(&path).unwrap().ino(), before);
    }
    let stale = std::fs::symlink_metadata(folder.join("stale")).unwrap();
    assert!(stale.file_type().is_socket());
}

#[test]
fn modes_are_exact_whatever_the_umask_and_the_umask_is_put_back() {
    let folder = Folder::new();
    let us = nix::unistd::geteuid().as_raw();
    for mask in [0, 0o022, 0o077] {
        let before = umask(Mode::from_bits_truncate(mask));
        for (owner, wanted) in [
            (None, 0o600),
            (None, 0o666),
            (Some(us), 0o660),
            (Some(us), 0o777),
        ] {
            let access = Access {
                owner,
                mode: wanted,
                directory_mode: 0o2771,
                ..ACCESS
            };
            let path = folder.join("a/b/s");
            let outcome = bound(&plan(&[&[stream(&path)]], access));
            assert_eq!(mode(&path), wanted);
            assert_eq!(mode(&folder.join("a/b")), 0o2771);
            assert_eq!(mode(&folder.join("a")), 0o2771);
            let made = [folder.join("a"), folder.join("a/b")];
            assert_eq!(outcome.bound.created_folders, made);
            assert_eq!(umask(Mode::from_bits_truncate(mask)).bits(), mask);
            outcome.bound.remove_paths();
            std::fs::remove_dir_all(folder.join("a")).unwrap();
        }
        umask(before);
    }
}

#[test]
fn there_is_no_moment_with_more_rights_than_asked() {
    let folder = Folder::new();
    let path = folder.join("s");
    let us = nix::unistd::geteuid().as_raw();
    let before = umask(Mode::empty());
    for owner in [None, Some(us)] {
        let access = Access {
            owner,
            mode: 0o640,
            ..ACCESS
        };
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let observer = scope.spawn(|| {
                let mut seen = 0;
                while !done.load(Ordering::Relaxed) {
                    if let Ok(file) = std::fs::symlink_metadata(&path) {
                        seen |= file.mode() & 0o7777;
                    }
                }
                seen
            });
            for _ in 0..300 {
                let outcome = bound(&plan(&[&[stream(&path)]], access));
                assert_eq!(mode(&path), 0o640);
                outcome.bound.remove_paths();
            }
            done.store(true, Ordering::Relaxed);
            assert_eq!(observer.join().unwrap() & !0o640, 0);
        });
    }
    umask(before);
}

#[test]
fn trying_leaves_nothing_behind() {
    let folder = Folder::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let plan = plan(
        &[
            &[stream(&folder.join("new/deep/s"))],
            &[unix(UnixKind::Datagram, &folder.join("d"))],
            &[tcp(&free.to_string())],
            &[tcp(&taken.local_addr().unwrap().to_string())],
        ],
        ACCESS,
    );
    let outcome = bind_all(&plan, Purpose::Try, Adopted::default());
    assert_eq!(only_error(&outcome).listener, ListenerId(3));
    assert!(outcome.bound.iter().next().is_none());
    assert!(folder.names().is_empty());
    TcpListener::bind(free).unwrap();
}

#[test]
fn a_path_that_somebody_else_took_over_stays() {
    let folder = Folder::new();
    let path = folder.join("s");
    let outcome = bound(&plan(
        &[&[stream(&path)], &[stream(&folder.join("t"))]],
        ACCESS,
    ));
    std::fs::remove_file(&path).unwrap();
    let theirs = UnixListener::bind(&path).unwrap();
    assert!(outcome.bound.remove_paths().is_empty());
    assert_eq!(folder.names(), ["s"]);
    UnixStream::connect(&path).unwrap();
    drop(theirs);
}

#[test]
fn a_listener_is_put_back_in_order_before_a_spawn() {
    let outcome = bound(&single(tcp("127.0.0.1:0")));
    let socket = first(&outcome);
    let raw = SockRef::from(&socket.fd);
    for (mode, nonblocking) in [(IoMode::NonBlocking, true), (IoMode::Blocking, false)] {
        // What a worker may have done to it: shutdown(2) ends listening for everybody.
        raw.shutdown(std::net::Shutdown::Both).unwrap();
        let disturbed = prepare_for_spawn(socket, 64, mode).unwrap();
        // It starts blocking.
        assert!(disturbed.shut_down && disturbed.nonblocking);
        let again = prepare_for_spawn(socket, 64, mode).unwrap();
        assert_eq!(again, Disturbed::default());
        assert_eq!(raw.nonblocking().unwrap(), nonblocking);
        TcpStream::connect(("127.0.0.1", port(socket))).unwrap();
    }
    // connect(2) has a datagram socket hear one peer alone.
    let outcome = bound(&single(udp("127.0.0.1:0")));
    let socket = first(&outcome);
    let [peer, other] = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
    let raw = SockRef::from(&socket.fd);
    raw.connect(&peer.local_addr().unwrap().into()).unwrap();
    for connected in [true, false] {
        let disturbed = prepare_for_spawn(socket, 64, IoMode::NonBlocking).unwrap();
        assert_eq!(disturbed.connected, connected);
        let address = ("127.0.0.1", port(socket));
        assert_eq!(other.send_to(b"heard", address).unwrap(), 5);
        let mut buffer = [const { std::mem::MaybeUninit::uninit() }; 8];
        assert_eq!(raw.recv(&mut buffer).unwrap(), 5);
    }
}
