//! What a worker does to a shared listener, and how it is put right.

use crate::fixture::*;
use listend::config::{Endpoint, UnixKind, UnixName};
use listend::listener::{
    BindError, Bound, Damage, IoMode, Obstacle, Outcome, Repair, inspect, prepare_for_spawn, repair,
};
use listend::plan::{Access, ListenerId, Plan};
use socket2::{Domain, SockAddr, SockRef, Socket, Type};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};

fn shut_down(bound: &Bound) {
    let socket = &bound.listeners[0].sockets[0];
    // For a datagram socket it answers ENOTCONN, and does it all the same.
    let _ = SockRef::from(&socket.fd).shutdown(Shutdown::Both);
}

fn damage(bound: &Bound) -> Option<Damage> {
    inspect(&bound.listeners[0].sockets[0])
}

fn put_right(plan: &Plan, bound: &mut Bound) -> Result<Option<Repair>, BindError> {
    repair(plan, bound, ListenerId(0), 0)
}

fn bind(plan: &Plan) -> Bound {
    let Outcome { bound, errors, .. } = keep(plan);
    assert_eq!(errors, []);
    bound
}

#[test]
fn nothing_is_done_to_what_is_sound() {
    let folder = Folder::new();
    for endpoint in [
        tcp("127.0.0.1:0"),
        udp("127.0.0.1:0"),
        stream(&folder.join("s")),
        unix(UnixKind::Datagram, &folder.join("d")),
        unix(UnixKind::SeqPacket, &folder.join("q")),
    ] {
        let plan = single(endpoint.clone());
        let mut bound = bind(&plan);
        assert_eq!(damage(&bound), None, "{endpoint}");
        assert_eq!(put_right(&plan, &mut bound), Ok(None), "{endpoint}");
        assert_eq!(repair(&plan, &mut bound, ListenerId(0), 7), Ok(None));
        bound.withdraw();
    }
}

#[test]
fn a_tcp_listener_listens_again_at_its_port() {
    let explicit = TcpListener::bind("127.0.0.1:0").unwrap().local_addr();
    for address in ["127.0.0.1:0", &explicit.unwrap().to_string()] {
        let plan = single(tcp(address));
        let mut bound = bind(&plan);
        let port = port(&bound.listeners[0].sockets[0]);
        shut_down(&bound);
        assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
        assert_eq!(damage(&bound), Some(Damage::ShutDown));
        assert_eq!(
            put_right(&plan, &mut bound),
            Ok(Some(Repair::ListenedAgain))
        );
        assert_eq!(damage(&bound), None);
        TcpStream::connect(("127.0.0.1", port)).unwrap();
    }
}

#[test]
fn a_port_that_somebody_took_meanwhile_is_theirs() {
    let plan = single(tcp("127.0.0.1:0"));
    let mut bound = bind(&plan);
    let port = port(&bound.listeners[0].sockets[0]);
    shut_down(&bound);
    let theirs = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let error = put_right(&plan, &mut bound).unwrap_err();
    assert_eq!(error.errno, nix::libc::EADDRINUSE);
    assert_eq!(damage(&bound), Some(Damage::ShutDown));
    drop(theirs);
    assert_eq!(
        put_right(&plan, &mut bound),
        Ok(Some(Repair::ListenedAgain))
    );
    TcpStream::connect(("127.0.0.1", port)).unwrap();
}

#[test]
fn a_unix_socket_that_was_shut_down_is_bound_again_with_the_same_rights() {
    let folder = Folder::new();
    let path = folder.join("s");
    for kind in [UnixKind::Stream, UnixKind::SeqPacket, UnixKind::Datagram] {
        let access = Access {
            mode: 0o620,
            ..ACCESS
        };
        let mut plan = plan(&[&[unix(kind, &path)]], access);
        plan.listeners[0].symlinks = vec![folder.join("link")];
        let mut bound = bind(&plan);
        // A worker that still runs has it too.
        let _worker = bound.listeners[0].sockets[0].fd.try_clone().unwrap();
        shut_down(&bound);
        assert_eq!(damage(&bound), Some(Damage::ShutDown), "{kind:?}");
        assert_eq!(put_right(&plan, &mut bound), Ok(Some(Repair::Rebound)));
        assert_eq!(damage(&bound), None);
        assert_eq!(mode(&path), 0o620);
        let socket = match kind {
            UnixKind::Stream => Type::STREAM,
            UnixKind::SeqPacket => Type::SEQPACKET,
            UnixKind::Datagram => Type::DGRAM,
        };
        let client = Socket::new(Domain::UNIX, socket, None).unwrap();
        client
            .connect(&SockAddr::unix(folder.join("link")).unwrap())
            .unwrap();
        client.send(b"x").unwrap();
        let mut names = folder.names();
        names.sort();
        assert_eq!(names, ["link", "s", "s.lock"]);
        assert!(bound.remove_paths().is_empty());
        assert!(folder.names().is_empty());
    }
}

#[test]
fn a_path_that_is_gone_is_made_again_and_the_old_queue_stays_with_the_worker() {
    let folder = Folder::new();
    let path = folder.join("a/b/s");
    let plan = single(stream(&path));
    let mut bound = bind(&plan);
    let worker = bound.listeners[0].sockets[0].fd.try_clone().unwrap();
    let early = UnixStream::connect(&path).unwrap();
    // Not only the socket: its folders too.
    std::fs::remove_dir_all(folder.join("a")).unwrap();
    assert_eq!(damage(&bound), Some(Damage::PathGone));
    assert_eq!(put_right(&plan, &mut bound), Ok(Some(Repair::Rebound)));
    assert_eq!(damage(&bound), None);
    UnixStream::connect(&path).unwrap();
    SockRef::from(&worker.as_fd()).accept().unwrap();
    drop(early);
    bound.remove_paths();
    assert!(!path.exists());
}

#[test]
fn whoever_serves_the_path_meanwhile_keeps_it() {
    let folder = Folder::new();
    let path = folder.join("s");
    let plan = single(stream(&path));
    let mut bound = bind(&plan);
    std::fs::remove_file(&path).unwrap();
    let theirs = UnixListener::bind(&path).unwrap();
    assert_eq!(damage(&bound), Some(Damage::PathReplaced));
    let error = put_right(&plan, &mut bound).unwrap_err();
    assert_eq!(error.obstacle, Some(Obstacle::LiveServer));
    assert_eq!(damage(&bound), Some(Damage::PathReplaced));
    UnixStream::connect(&path).unwrap();
    // It is still ours to lock, and to take when they are gone.
    assert!(folder.join("s.lock").exists());
    drop(theirs);
    assert_eq!(put_right(&plan, &mut bound), Ok(Some(Repair::Rebound)));
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "precious").unwrap();
    let error = put_right(&plan, &mut bound).unwrap_err();
    assert!(matches!(error.obstacle, Some(Obstacle::NotASocket(_))));
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    bound.withdraw();
    assert_eq!(folder.names(), ["s"]);
}

#[test]
fn an_abstract_name_is_free_only_when_no_worker_has_it() {
    let name = format!("listend-repair-{}", std::process::id());
    let plan = single(Endpoint::Unix {
        kind: UnixKind::Stream,
        name: UnixName::Abstract(name.clone()),
    });
    let mut bound = bind(&plan);
    let worker = bound.listeners[0].sockets[0].fd.try_clone().unwrap();
    shut_down(&bound);
    assert_eq!(damage(&bound), Some(Damage::ShutDown));
    let error = put_right(&plan, &mut bound).unwrap_err();
    assert_eq!(error.errno, nix::libc::EADDRINUSE);
    assert_eq!(damage(&bound), Some(Damage::ShutDown));
    drop(worker);
    assert_eq!(put_right(&plan, &mut bound), Ok(Some(Repair::Rebound)));
    assert_eq!(damage(&bound), None);
    let client = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    client
        .connect(&SockAddr::unix(format!("\0{name}")).unwrap())
        .unwrap();
}

#[test]
fn a_udp_socket_that_was_shut_down_is_seen_and_still_receives() {
    let plan = single(udp("127.0.0.1:0"));
    let mut bound = bind(&plan);
    let port = port(&bound.listeners[0].sockets[0]);
    shut_down(&bound);
    assert_eq!(damage(&bound), Some(Damage::ShutDown));
    assert_eq!(put_right(&plan, &mut bound), Ok(None));
    let client = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    client.send_to(b"x", ("127.0.0.1", port)).unwrap();
    let raw = SockRef::from(&bound.listeners[0].sockets[0].fd);
    let mut buffer = [std::mem::MaybeUninit::uninit(); 8];
    assert_eq!(raw.recv(&mut buffer).unwrap(), 1);
}

#[test]
fn preparing_for_a_spawn_says_what_was_changed() {
    let folder = Folder::new();
    let plan = single(stream(&folder.join("s")));
    let bound = bind(&plan);
    let socket = &bound.listeners[0].sockets[0];
    let calm = prepare_for_spawn(socket, 16, IoMode::Blocking).unwrap();
    assert!(!calm.nonblocking && !calm.shut_down);
    SockRef::from(&socket.fd).set_nonblocking(true).unwrap();
    let flipped = prepare_for_spawn(socket, 16, IoMode::Blocking).unwrap();
    assert!(flipped.nonblocking && !flipped.shut_down);
    shut_down(&bound);
    let shut = prepare_for_spawn(socket, 16, IoMode::Blocking).unwrap();
    // A unix socket cannot listen again, and says so each time.
    assert!(!shut.nonblocking && shut.shut_down);
    assert_eq!(damage(&bound), Some(Damage::ShutDown));
    bound.withdraw();
}
