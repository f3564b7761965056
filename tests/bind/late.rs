//! Listeners that may come later, and sockets that were there before.

use crate::fixture::*;
use listend::config::options::OptionValue;
use listend::config::{Endpoint, Presence};
use listend::listener::{
    Adopted, BindStep, NoteKind, Outcome, Purpose, bind_all, bind_missing, prepare_for_spawn,
    set_mode,
};
use listend::plan::{ListenerId, Plan, SocketKey};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::libc;
use socket2::SockRef;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

const FIRST: ListenerId = ListenerId(0);

fn with_presence(mut plan: Plan, presence: Presence) -> Plan {
    listener(&mut plan, 0).settings_mut().presence = presence;
    plan
}

#[test]
fn what_is_tolerated_depends_on_the_listener_and_on_what_is_wrong() {
    let wait = Presence::WaitFor(Duration::from_secs(30));
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let in_use = tcp(&taken.local_addr().unwrap().to_string());
    let scoped = |scope: &str| match tcp("[fe80::1]:0") {
        Endpoint::Inet {
            transport, address, ..
        } => Endpoint::Inet {
            transport,
            address,
            v6_only: true,
            optional: false,
            scope: Some(scope.to_owned()),
        },
        other => other,
    };
    for (endpoint, step, errno, waits) in [
        (
            tcp("203.0.113.1:0"),
            BindStep::Bind,
            libc::EADDRNOTAVAIL,
            true,
        ),
        (
            scoped("nosuch0"),
            BindStep::SetOption("scope"),
            libc::ENODEV,
            true,
        ),
        (scoped("999999"), BindStep::Bind, libc::ENODEV, true),
        (in_use, BindStep::Bind, libc::EADDRINUSE, false),
    ] {
        for (presence, tolerated) in [
            (Presence::Required, false),
            (Presence::Optional, true),
            (wait, waits),
        ] {
            let plan = with_presence(single(endpoint.clone()), presence);
            let outcome = keep(&plan);
            let error = only_error(&outcome);
            assert_eq!(error.errno, errno, "{error:?}");
            if errno != libc::EADDRINUSE {
                assert_eq!(error.step, step);
            }
            assert_eq!(error.is_tolerated(&plan), tolerated, "{presence:?}");
        }
    }
}

#[test]
fn a_listener_that_may_be_missing_is_bound_in_whole_or_not_at_all() {
    let folder = Folder::new();
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let paths = [folder.join("a"), folder.join("b")];
    let endpoints = [stream(&paths[0]), udp(&address), stream(&paths[1])];
    let plan = plan(&[&endpoints, &[tcp("127.0.0.1:0")]], ACCESS);
    let plan = with_presence(plan, Presence::Optional);
    let Outcome {
        mut bound, errors, ..
    } = keep(&plan);
    assert_eq!(errors.len(), 1);
    assert_eq!((errors[0].listener, errors[0].socket), (FIRST, 1));
    assert!(bound.at(0).is_empty() && folder.names().is_empty());
    assert_eq!(bound.at(1).len(), 1);

    // Still taken: a retry leaves nothing either. That something stale has gone is true nevertheless.
    leave_stale(&paths[0]);
    let (errors, notes) = bind_missing(&plan, FIRST, &mut bound);
    let kinds: Vec<_> = notes.iter().map(|note| &note.kind).collect();
    assert_eq!((errors.len(), kinds), (1, vec![&NoteKind::StaleReplaced]));
    assert!(bound.at(0).is_empty() && folder.names().is_empty());

    drop(taken);
    let (errors, notes) = bind_missing(&plan, FIRST, &mut bound);
    assert_eq!((errors.len(), notes.len()), (0, 0));
    let order: Vec<_> = bound.at(0).iter().map(|s| s.key.0).collect();
    assert_eq!(order, [0, 1, 2]);
    UnixStream::connect(&paths[1]).unwrap();
    // Nothing is missing: nothing happens.
    let before: Vec<_> = fds(&bound, FIRST);
    let (errors, _) = bind_missing(&plan, FIRST, &mut bound);
    assert_eq!((errors.len(), fds(&bound, FIRST)), (0, before));
}

#[test]
fn of_a_listener_that_is_missing_only_what_was_removed_is_noted() {
    let folder = Folder::new();
    let path = folder.join("s");
    leave_stale(&path);
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let taken = udp(&taken.local_addr().unwrap().to_string());
    let free = udp("127.0.0.1:0");
    let mut plan = plan(
        &[&[udp("127.0.0.1:0")], &[stream(&path), free, taken]],
        ACCESS,
    );
    let small = with_options(
        udp("127.0.0.1:0"),
        &[("receive_buffer", OptionValue::Number(1))],
    );
    for number in [0, 1] {
        listener(&mut plan, number).settings_mut().options =
            small.listener(FIRST).settings.options.clone();
    }
    listener(&mut plan, 1).settings_mut().presence = Presence::Optional;
    let outcome = keep(&plan);
    assert!(outcome.bound.at(1).is_empty());
    let notes = outcome.notes.iter().map(|note| {
        let is_changed = matches!(note.kind, NoteKind::OptionChanged(_));
        (note.listener.0, is_changed)
    });
    assert_eq!(notes.collect::<Vec<_>>(), [(0, true), (1, false)]);
}

fn fds(bound: &listend::listener::SocketTable, listener: ListenerId) -> Vec<i32> {
    let sockets = bound.at(listener.0).into_iter();
    sockets.map(|socket| socket.fd.as_raw_fd()).collect()
}

#[test]
fn only_what_is_missing_is_bound_and_in_its_place() {
    let pair = [
        tcp("127.0.0.1:0"),
        flags(tcp("[::1]:0"), true, true),
        udp("127.0.0.1:0"),
    ];
    let plan = plan(&[&pair], ACCESS);
    for gone in 0..3 {
        let Outcome { mut bound, .. } = bound(&plan);
        let same = port(bound.at(0)[0]);
        drop(bound.take(SocketKey(gone)));
        let (errors, _) = bind_missing(&plan, FIRST, &mut bound);
        assert_eq!(errors, []);
        let sockets = bound.at(0);
        let order: Vec<_> = sockets.iter().map(|one| one.key.0).collect();
        assert_eq!(order, [0, 1, 2]);
        assert_eq!((port(sockets[0]), port(sockets[1])), (same, same));
    }
}

fn adopt(plan: &Plan, fds: Vec<OwnedFd>) -> Outcome {
    let fds = fds.into_iter().enumerate();
    let adopted: Adopted = fds
        .map(|(index, fd)| (SocketKey(index as u32), fd))
        .collect();
    bind_all(plan, Purpose::Keep, adopted)
}

#[test]
fn an_adopted_socket_goes_on_with_our_options_and_backlog() {
    let theirs = TcpListener::bind("127.0.0.1:0").unwrap();
    theirs.set_nonblocking(true).unwrap();
    fcntl(&theirs, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
    let address = theirs.local_addr().unwrap();
    let waiting = TcpStream::connect(address).unwrap();
    let options = [
        ("free_bind", OptionValue::Flag(true)),
        ("no_delay", OptionValue::Flag(true)),
    ];
    let plan = with_options(tcp(&address.to_string()), &options);
    let outcome = adopt(&plan, vec![theirs.into()]);
    assert_eq!(outcome.errors, []);
    let socket = first(&outcome);
    assert_eq!((socket.key, port(socket)), (SocketKey(0), address.port()));
    assert_eq!(socket.backlog, Some(16));
    let flags = fcntl(&socket.fd, FcntlArg::F_GETFD).unwrap();
    assert!(FdFlag::from_bits_retain(flags).contains(FdFlag::FD_CLOEXEC));
    let raw = SockRef::from(&socket.fd);
    // Nothing is known of O_NONBLOCK.
    let mode = listend::listener::IoMode::Blocking;
    assert!(set_mode(socket, mode).unwrap());
    assert!(!raw.nonblocking().unwrap() && raw.tcp_nodelay().unwrap());
    raw.accept().expect("the client that waited is still there");
    drop(waiting);
    // It was bound without, and that cannot be changed any more.
    let kinds = outcome.notes.iter().map(|note| &note.kind);
    let [NoteKind::OptionChanged(changed)] = kinds.collect::<Vec<_>>()[..] else {
        panic!("{:?}", outcome.notes);
    };
    assert_eq!(changed.key, "free_bind");
    let values = (changed.asked.as_str(), changed.effective.as_str());
    assert_eq!(values, ("true", "false"));
    prepare_for_spawn(socket, 16, mode).unwrap();
}

#[test]
fn an_adopted_path_stays_when_we_go() {
    let folder = Folder::new();
    let path = folder.join("s");
    let theirs = UnixListener::bind(&path).unwrap();
    let outcome = adopt(&single(stream(&path)), vec![theirs.into()]);
    assert_eq!((outcome.errors.len(), outcome.notes.len()), (0, 0));
    let socket = first(&outcome);
    assert!(socket.identity.is_none() && !socket.created);
    UnixStream::connect(&path).unwrap();
    assert!(outcome.bound.remove_paths().is_empty());
    assert!(path.exists());
}

#[test]
fn the_other_half_of_localhost_gets_the_port_of_the_adopted_one() {
    let pair = [tcp("127.0.0.1:0"), flags(tcp("[::1]:0"), true, true)];
    let theirs = TcpListener::bind("127.0.0.1:0").unwrap();
    let wanted = theirs.local_addr().unwrap().port();
    let outcome = adopt(&plan(&[&pair], ACCESS), vec![theirs.into()]);
    assert_eq!(outcome.errors, []);
    let sockets = outcome.bound.at(0);
    let ports: Vec<_> = sockets.into_iter().map(port).collect();
    assert_eq!(ports, [wanted, wanted]);
}

#[test]
fn an_adopted_socket_waits_for_the_rest_of_its_listener() {
    let theirs = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = theirs.local_addr().unwrap();
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let other = udp(&taken.local_addr().unwrap().to_string());
    let plan = plan(&[&[tcp(&address.to_string()), other]], ACCESS);
    let plan = with_presence(plan, Presence::Optional);
    let Outcome {
        mut bound, errors, ..
    } = adopt(&plan, vec![theirs.into()]);
    assert_eq!((errors.len(), bound.at(0).len()), (1, 0));
    let (errors, _) = bind_missing(&plan, FIRST, &mut bound);
    assert_eq!((errors.len(), bound.at(0).len()), (1, 0));
    TcpStream::connect(address).expect("its clients wait meanwhile");
    drop(taken);
    let (errors, _) = bind_missing(&plan, FIRST, &mut bound);
    assert_eq!((errors.len(), bound.at(0).len()), (0, 2));
    assert!(bound.at(0)[0].is_adopted && !bound.at(0)[1].is_adopted);
}
