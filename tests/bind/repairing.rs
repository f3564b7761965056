//! What a worker does to a shared listener, and how it is put right.

use crate::fixture::*;
use listend::config::{Endpoint, Transport, UnixKind, UnixName};
use listend::listener::{
    BindError, Damage, IoMode, Obstacle, Outcome, Repair, SocketTable, inspect, prepare_for_spawn,
    repair,
};
use listend::plan::{Access, Plan, SocketKey};
use listend::sys::sockopt;
use nix::libc;
use socket2::{Domain, SockAddr, SockRef, Socket, Type};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

/// linux/in6.h.
const IPV6_ADDRFORM: i32 = 1;

fn shut_down(bound: &SocketTable) {
    let socket = bound.at(0)[0];
    // For a datagram socket it answers ENOTCONN, and does it all the same.
    let _ = SockRef::from(&socket.fd).shutdown(Shutdown::Both);
}

fn damage(bound: &SocketTable) -> Option<Damage> {
    inspect(bound.at(0)[0])
}

fn put_right(plan: &Plan, bound: &mut SocketTable) -> Result<Option<Repair>, BindError> {
    repair(plan, bound, SocketKey(0))
}

fn bind(plan: &Plan) -> SocketTable {
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
        assert_eq!(repair(&plan, &mut bound, SocketKey(7)), Ok(None));
        bound.withdraw();
    }
}

#[test]
fn a_tcp_listener_listens_again_at_its_port() {
    let explicit = TcpListener::bind("127.0.0.1:0").unwrap().local_addr();
    for address in ["127.0.0.1:0", &explicit.unwrap().to_string()] {
        let plan = single(tcp(address));
        let mut bound = bind(&plan);
        let port = port(bound.at(0)[0]);
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

/// Whether a client is accepted and heard.
fn serves(bound: &SocketTable) -> bool {
    let socket = bound.at(0)[0];
    let raw = SockRef::from(&socket.fd);
    raw.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let Ok(mut client) = TcpStream::connect(("127.0.0.1", port(socket))) else {
        return false;
    };
    if client.write_all(b"x").is_err() {
        return false;
    }
    let Ok((mut accepted, _)) = raw.accept() else {
        return false;
    };
    matches!(accepted.read(&mut [0]), Ok(1))
}

// inet_shutdown in net/ipv4: the second one answers ENOTCONN, and its mark outlives listen(2): each
// client is closed before anybody can accept it.
#[test]
fn a_listener_that_was_shut_down_twice_serves_again() {
    for transport in [Transport::Tcp, Transport::Mptcp] {
        let explicit = TcpListener::bind("127.0.0.1:0").unwrap().local_addr();
        for address in ["127.0.0.1:0", &explicit.unwrap().to_string()] {
            let plan = single(inet(transport, address));
            let Outcome {
                mut bound, errors, ..
            } = keep(&plan);
            if transport == Transport::Mptcp && !errors.is_empty() {
                skip("no MPTCP");
                continue;
            }
            shut_down(&bound);
            shut_down(&bound);
            assert_eq!(
                put_right(&plan, &mut bound),
                Ok(Some(Repair::ListenedAgain))
            );
            assert_eq!(damage(&bound), None);
            assert!(serves(&bound), "{transport:?} {address}");
            // Before a start the same is done without being asked.
            shut_down(&bound);
            shut_down(&bound);
            let socket = bound.at(0)[0];
            let done = prepare_for_spawn(socket, 16, IoMode::Blocking).unwrap();
            assert!(done.shut_down && serves(&bound), "{transport:?} {address}");
        }
    }
}

#[test]
fn a_listener_that_listens_and_closes_every_client_is_damaged() {
    let plan = single(tcp("127.0.0.1:0"));
    let mut bound = bind(&plan);
    let port = port(bound.at(0)[0]);
    shut_down(&bound);
    let raw = SockRef::from(&bound.at(0)[0].fd);
    // As a worker might do that means well.
    let address = format!("127.0.0.1:{port}").parse::<SocketAddr>().unwrap();
    raw.bind(&address.into()).unwrap();
    let _ = raw.shutdown(Shutdown::Both);
    raw.listen(8).unwrap();
    assert_eq!(damage(&bound), Some(Damage::ShutDown));
    assert_eq!(
        put_right(&plan, &mut bound),
        Ok(Some(Repair::ListenedAgain))
    );
    assert!(serves(&bound));
}

/// Makes a connection with unsent bytes of a listener; closing it would wait for an hour.
fn turn_into_a_connection(bound: &SocketTable, peer: &TcpListener) -> TcpStream {
    shut_down(bound);
    let raw = SockRef::from(&bound.at(0)[0].fd);
    raw.connect(&peer.local_addr().unwrap().into()).unwrap();
    let (theirs, _) = peer.accept().unwrap();
    raw.set_nonblocking(true).unwrap();
    while raw.send(&[0; 65536]).is_ok() {}
    raw.set_linger(Some(Duration::from_secs(3600))).unwrap();
    theirs
}

#[test]
fn a_listener_that_a_worker_has_made_a_connection_listens_again() {
    let peer = TcpListener::bind("127.0.0.1:0").unwrap();
    let plan = single(tcp("127.0.0.1:0"));
    let mut bound = bind(&plan);
    let _theirs = turn_into_a_connection(&bound, &peer);
    assert_eq!(damage(&bound), Some(Damage::ShutDown));
    assert_eq!(
        put_right(&plan, &mut bound),
        Ok(Some(Repair::ListenedAgain))
    );
    SockRef::from(&bound.at(0)[0].fd)
        .set_nonblocking(false)
        .unwrap();
    assert!(serves(&bound));
    let _theirs = turn_into_a_connection(&bound, &peer);
    let socket = bound.at(0)[0];
    let done = prepare_for_spawn(socket, 16, IoMode::Blocking).unwrap();
    assert!(done.shut_down && serves(&bound));
}

// Some marks a socket keeps whatever is done to it: here it belongs to IPv4 for ever (IPV6_ADDRFORM of
// ipv6(7)); with TLS attached (TCP_ULP) listen(2) is EINVAL.
#[test]
fn a_listener_that_can_never_be_what_it_was_is_replaced_and_closing_it_does_not_wait() {
    let peer = TcpListener::bind("127.0.0.1:0").unwrap();
    let plan = single(flags(inet(Transport::Tcp, "[::]:0"), false, false));
    let mut bound = bind(&plan);
    let socket = bound.at(0)[0];
    let port = port(socket);
    shut_down(&bound);
    let mapped = format!("[::ffff:127.0.0.1]:{}", peer.local_addr().unwrap().port());
    let raw = SockRef::from(&socket.fd);
    raw.connect(&mapped.parse::<SocketAddr>().unwrap().into())
        .unwrap();
    let (_theirs, _) = peer.accept().unwrap();
    let (level, v4) = (libc::IPPROTO_IPV6, libc::AF_INET);
    sockopt::set_int(&socket.fd, level, IPV6_ADDRFORM, v4).unwrap();
    raw.set_nonblocking(true).unwrap();
    while raw.send(&[0; 65536]).is_ok() {}
    raw.set_linger(Some(Duration::from_secs(3600))).unwrap();
    // Nobody else has it: to close it as it is would wait for an hour.
    assert_eq!(put_right(&plan, &mut bound), Ok(Some(Repair::Rebound)));
    let socket = bound.at(0)[0];
    assert_eq!(crate::fixture::port(socket), port);
    let address = SockRef::from(&socket.fd).local_addr().unwrap();
    assert!(address.as_socket().unwrap().is_ipv6());
    assert_eq!(damage(&bound), None);
    assert!(serves(&bound));
}

#[test]
fn a_port_that_somebody_took_meanwhile_is_theirs() {
    let plan = single(tcp("127.0.0.1:0"));
    let mut bound = bind(&plan);
    let port = port(bound.at(0)[0]);
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
        listener(&mut plan, 0).settings_mut().symlinks = vec![folder.join("link")];
        let mut bound = bind(&plan);
        // A worker that still runs has it too.
        let _worker = bound.at(0)[0].fd.try_clone().unwrap();
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
        assert_eq!(names, [".s.listend", "link", "s"]);
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
    let worker = bound.at(0)[0].fd.try_clone().unwrap();
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
fn a_path_that_is_gone_comes_back_as_the_same_socket_with_its_queue() {
    let folder = Folder::new();
    let path = folder.join("s");
    for kind in [UnixKind::Stream, UnixKind::SeqPacket, UnixKind::Datagram] {
        let access = Access {
            mode: 0o620,
            ..ACCESS
        };
        let mut plan = plan(&[&[unix(kind, &path)]], access);
        listener(&mut plan, 0).settings_mut().symlinks = vec![folder.join("link")];
        let mut bound = bind(&plan);
        let identity = bound.at(0)[0].identity;
        let early = (kind == UnixKind::Stream).then(|| UnixStream::connect(&path).unwrap());
        for _ in 0..3 {
            std::fs::remove_file(&path).unwrap();
            assert_eq!(damage(&bound), Some(Damage::PathGone), "{kind:?}");
            assert_eq!(put_right(&plan, &mut bound), Ok(Some(Repair::PutBack)));
            assert_eq!(damage(&bound), None);
        }
        let socket = bound.at(0)[0];
        assert_eq!(socket.identity, identity);
        assert_eq!(mode(&path), 0o620);
        if early.is_some() {
            SockRef::from(&socket.fd).accept().unwrap();
        }
        // Renamed away, it is the same file at another name, which is not ours to remove.
        std::fs::rename(&path, folder.join("elsewhere")).unwrap();
        assert_eq!(put_right(&plan, &mut bound), Ok(Some(Repair::PutBack)));
        std::fs::remove_file(folder.join("elsewhere")).unwrap();
        assert!(bound.remove_paths().is_empty());
        assert_eq!(folder.names(), [""; 0]);
    }
}

#[test]
fn without_its_second_name_a_path_is_bound_anew_and_the_name_is_made_before_the_next_start() {
    let folder = Folder::new();
    let path = folder.join("s");
    let spare = folder.join(".s.listend");
    let plan = single(stream(&path));
    let mut bound = bind(&plan);
    std::fs::remove_file(&spare).unwrap();
    // As by `rm -r`, which is not to be held up.
    assert_eq!(damage(&bound), None);
    let socket = bound.at(0)[0];
    prepare_for_spawn(socket, 16, IoMode::Blocking).unwrap();
    assert_eq!(inode(&spare), inode(&path));
    std::fs::remove_file(&spare).unwrap();
    std::fs::remove_file(&path).unwrap();
    assert_eq!(put_right(&plan, &mut bound), Ok(Some(Repair::Rebound)));
    assert_eq!(inode(&spare), inode(&path));
    // What somebody else has put there is neither taken nor removed.
    std::fs::remove_file(&spare).unwrap();
    std::fs::write(&spare, "precious").unwrap();
    std::fs::remove_file(&path).unwrap();
    assert_eq!(put_right(&plan, &mut bound), Ok(Some(Repair::Rebound)));
    bound.remove_paths();
    assert_eq!(folder.names(), [".s.listend"]);
    let bound = bind(&plan);
    assert_eq!(bound.at(0)[0].artifacts.spare, None);
    bound.withdraw();
    assert_eq!(std::fs::read(&spare).unwrap(), b"precious");
}

fn inode(path: &std::path::Path) -> u64 {
    std::os::unix::fs::MetadataExt::ino(&std::fs::symlink_metadata(path).unwrap())
}

#[test]
fn what_a_dead_listend_has_left_beside_the_path_is_replaced() {
    let folder = Folder::new();
    let path = folder.join("s");
    let plan = single(stream(&path));
    // Closed, and nothing is removed.
    drop(bind(&plan));
    assert_eq!(folder.names().len(), 2);
    let bound = bind(&plan);
    assert_eq!(inode(&folder.join(".s.listend")), inode(&path));
    // One that lives keeps what it has.
    let other = folder.join("other");
    std::fs::rename(folder.join(".s.listend"), &other).unwrap();
    std::fs::hard_link(&other, folder.join(".s.listend")).unwrap();
    assert!(is_live(&keep(&plan).errors[0]));
    assert_eq!(inode(&folder.join(".s.listend")), inode(&path));
    std::fs::remove_file(other).unwrap();
    bound.withdraw();
    assert_eq!(folder.names(), [""; 0]);
}

#[test]
fn rights_and_links_are_given_back() {
    let folder = Folder::new();
    let path = folder.join("s");
    let fifo = folder.join("f");
    for endpoint in [stream(&path), Endpoint::Fifo { path: fifo }] {
        let access = Access {
            mode: 0o620,
            ..ACCESS
        };
        let file = endpoint.path().unwrap().to_owned();
        let mut plan = plan(&[&[endpoint]], access);
        listener(&mut plan, 0).settings_mut().symlinks = vec![folder.join("deep/link")];
        let mut bound = bind(&plan);
        let before = mode(&file);
        let wider = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        std::fs::set_permissions(&file, wider).unwrap();
        assert_eq!(damage(&bound), Some(Damage::RightsChanged));
        assert_eq!(put_right(&plan, &mut bound), Ok(Some(Repair::PutBack)));
        // A FIFO has its mark again as well.
        assert_eq!(mode(&file), before);
        assert_eq!(before & 0o777, 0o620);
        std::fs::remove_dir_all(folder.join("deep")).unwrap();
        assert_eq!(damage(&bound), Some(Damage::LinkGone));
        assert_eq!(put_right(&plan, &mut bound), Ok(Some(Repair::PutBack)));
        assert_eq!(std::fs::read_link(folder.join("deep/link")).unwrap(), file);
        // What somebody else has put in its place is theirs.
        std::fs::remove_file(folder.join("deep/link")).unwrap();
        std::fs::write(folder.join("deep/link"), "precious").unwrap();
        assert!(put_right(&plan, &mut bound).is_err());
        assert_eq!(
            std::fs::read(folder.join("deep/link")).unwrap(),
            b"precious"
        );
        bound.withdraw();
        std::fs::remove_dir_all(folder.join("deep")).unwrap();
    }
}

#[test]
fn a_message_queue_that_was_unlinked_is_made_again() {
    let name = format!("/listend-repair-{}", std::process::id());
    let plan = single(Endpoint::MessageQueue { name: name.clone() });
    let Outcome {
        mut bound, errors, ..
    } = keep(&plan);
    if !errors.is_empty() {
        return skip("no message queues");
    }
    let file = std::path::Path::new("/dev/mqueue").join(&name[1..]);
    if !file.exists() {
        bound.withdraw();
        return skip("/dev/mqueue is not mounted");
    }
    std::fs::remove_file(&file).unwrap();
    assert_eq!(damage(&bound), Some(Damage::PathGone));
    assert_eq!(put_right(&plan, &mut bound), Ok(Some(Repair::Rebound)));
    assert!(file.exists());
    assert_eq!(damage(&bound), None);
    bound.withdraw();
    assert!(!file.exists());
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
    assert!(is_live(&error));
    assert_eq!(damage(&bound), Some(Damage::PathReplaced));
    UnixStream::connect(&path).unwrap();
    // It is still ours to take when they are gone.
    drop(theirs);
    assert_eq!(put_right(&plan, &mut bound), Ok(Some(Repair::PutBack)));
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
    let worker = bound.at(0)[0].fd.try_clone().unwrap();
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
    let port = port(bound.at(0)[0]);
    shut_down(&bound);
    assert_eq!(damage(&bound), Some(Damage::ShutDown));
    assert_eq!(put_right(&plan, &mut bound), Ok(None));
    let client = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    client.send_to(b"x", ("127.0.0.1", port)).unwrap();
    let raw = SockRef::from(&bound.at(0)[0].fd);
    let mut buffer = [std::mem::MaybeUninit::uninit(); 8];
    assert_eq!(raw.recv(&mut buffer).unwrap(), 1);
}

#[test]
fn preparing_for_a_spawn_says_what_was_changed() {
    let folder = Folder::new();
    let plan = single(stream(&folder.join("s")));
    let bound = bind(&plan);
    let socket = bound.at(0)[0];
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
