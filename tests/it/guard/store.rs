//! What is kept, and for whom.

use super::{bound, guarded, guarded_with, kept, names, replaced, sorted_names};
use crate::harness::client::{self, converse};
use crate::harness::{Puppet, World, children, descriptors, eventually, kill, settled_descriptors};
use nix::sys::signal::Signal;
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, sendmsg, socket,
};
use std::io::{IoSlice, Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// Sends a message as somebody else than the daemon.
fn send_to(puppet: &Puppet, text: &str, fds: &[RawFd]) {
    let name = &puppet.report.env["NOTIFY_SOCKET"];
    let address = UnixAddr::new(name.as_str()).expect("a path");
    let (family, kind) = (AddressFamily::Unix, SockType::Datagram);
    let sender = socket(family, kind, SockFlag::SOCK_CLOEXEC, None).expect("a socket");
    let rights = [ControlMessage::ScmRights(fds)];
    let data = [IoSlice::new(text.as_bytes())];
    let flags = MsgFlags::empty();
    sendmsg(sender.as_raw_fd(), &data, &rights, flags, Some(&address)).expect("send");
}

#[test]
fn sockets_and_who_waits_in_their_queues_survive_kill_9() {
    let world = World::new();
    let (_guard, mut puppet) = guarded(&world);
    assert_eq!(names(&puppet), [""; 0]);
    let path = world.path("stream");
    let (tcp, _) = bound(&mut puppet, "tcp", "web");
    let (udp, _) = bound(&mut puppet, "udp", "log");
    puppet.ask(&format!("bind unix:{} local", path.display()));
    puppet.ask("barrier");
    for round in 0..3 {
        // Before, while there is nobody, and after.
        let mut web = client::tcp(tcp).expect("connect");
        web.write_all(b"web before").expect("write");
        let mut local = client::unix(&path).expect("connect");
        local.write_all(b"local before").expect("write");
        let log = UdpSocket::bind("127.0.0.1:0").expect("bind");
        log.set_read_timeout(Some(Duration::from_secs(10)))
            .expect("timeout");
        log.send_to(b"log before", udp).expect("send");
        let next = replaced(&world, puppet);
        assert_ne!(next.pid(), 0, "round {round}");
        puppet = next;
        assert_eq!(sorted_names(&puppet), ["local", "log", "web"]);
        let number = |name: &str| {
            let found = kept(&puppet, name);
            assert!(!found[0].cloexec);
            (found[0].number, found[0].socket.clone().expect("a socket"))
        };
        let (web_fd, socket) = number("web");
        assert!(
            socket.listening && socket.name == tcp.to_string(),
            "{socket:?}"
        );
        let (log_fd, socket) = number("log");
        assert!(
            socket.kind == "dgram" && socket.name == udp.to_string(),
            "{socket:?}"
        );
        let (local_fd, socket) = number("local");
        assert!(
            socket.listening && socket.name == path.to_str().unwrap(),
            "{socket:?}"
        );
        for (fd, wanted) in [
            (web_fd, "web before"),
            (local_fd, "local before"),
            (log_fd, "log before"),
        ] {
            assert_eq!(puppet.ask(&format!("read {fd}")), wanted);
        }
        let mut answer = [0; 10];
        web.read_exact(&mut answer).expect("read");
        assert_eq!(&answer, b"WEB BEFORE");
        let mut answer = [0; 12];
        local.read_exact(&mut answer).expect("read");
        assert_eq!(&answer, b"LOCAL BEFORE");
        assert_eq!(log.recv(&mut answer).expect("receive"), 10);
        assert_eq!(&answer[..10], b"LOG BEFORE");
    }
}

#[test]
fn nobody_is_refused_while_it_is_killed_again_and_again() {
    let world = World::new();
    let (_guard, mut puppet) = guarded(&world);
    let (address, mut number) = bound(&mut puppet, "tcp", "web");
    let clients = std::thread::spawn(move || {
        // Each waits for its answer, so that one that is refused or lost would show.
        for number in 0..200 {
            let stream = client::tcp(address).unwrap_or_else(|error| panic!("{number}: {error}"));
            converse(stream, "hello", "HELLO");
        }
    });
    for _ in 0..50 {
        for _ in 0..4 {
            assert_eq!(puppet.ask(&format!("read {number}")), "hello");
        }
        puppet.ask("notify READY=1");
        puppet = replaced(&world, puppet);
        number = kept(&puppet, "web")[0].number;
    }
    clients.join().expect("every client was served");
}

#[test]
fn many_come_with_one_message_and_are_removed_by_their_name() {
    let world = World::new();
    let (guard, mut puppet) = guarded(&world);
    let before = settled_descriptors(guard.pid());
    assert_eq!(puppet.ask("keep 253 many"), "keep");
    assert_eq!(puppet.ask("keep 2 few"), "keep");
    assert_eq!(
        puppet.ask("notify FDSTORE=1"),
        "notify",
        "without any, that is nothing"
    );
    puppet.ask("barrier");
    assert_eq!(descriptors(guard.pid()), before + 255);
    let mut puppet = replaced(&world, puppet);
    assert_eq!(names(&puppet).len(), 255);
    assert_eq!(kept(&puppet, "many").len(), 253);
    assert_eq!(kept(&puppet, "few").len(), 2);
    assert!(kept(&puppet, "few")[0].target.starts_with("/memfd:few"));
    assert!(kept(&puppet, "many")[252].target.starts_with("/memfd:many"));
    // Nothing else is open but the streams and what the puppet itself may have got.
    let open = puppet.report.fds.iter().filter(|fd| fd.number > 2 + 255);
    assert_eq!(open.count(), 0, "{:#?}", puppet.report.fds);
    puppet.ask("notify FDSTOREREMOVE=1|FDNAME=many");
    puppet.ask("notify FDSTOREREMOVE=1|FDNAME=nothing");
    puppet.ask("notify FDSTOREREMOVE=1");
    puppet.ask("barrier");
    eventually("they are closed", || descriptors(guard.pid()) == before + 2);
    let puppet = replaced(&world, puppet);
    assert_eq!(sorted_names(&puppet), ["few", "few"]);
}

#[test]
fn what_comes_twice_is_kept_once_and_what_has_no_name_is_called_stored() {
    let world = World::new();
    let (guard, mut puppet) = guarded(&world);
    puppet.ask("store-socket FDSTORE=1");
    puppet.ask("store-socket FDSTORE=1|FDNAME=a:b");
    puppet.ask("keep 1 first");
    puppet.ask("barrier");
    let mut puppet = replaced(&world, puppet);
    // The second name is none, and does not spoil the list.
    assert_eq!(sorted_names(&puppet), ["first", "stored", "stored"]);
    let before = settled_descriptors(guard.pid());
    // The same open file again, by the same name and by another.
    let number = kept(&puppet, "first")[0].number;
    assert_eq!(puppet.ask(&format!("again {number} first")), "again");
    puppet.ask("barrier");
    assert_eq!(descriptors(guard.pid()), before);
    assert_eq!(puppet.ask(&format!("again {number} second")), "again");
    puppet.ask("barrier");
    let puppet = replaced(&world, puppet);
    assert_eq!(
        sorted_names(&puppet),
        ["first", "second", "stored", "stored"]
    );
}

#[test]
fn only_the_daemon_itself_is_listened_to() {
    let world = World::new();
    let (guard, mut puppet) = guarded(&world);
    puppet.ask("keep 1 own");
    puppet.ask("barrier");
    let (mut ours, theirs) = UnixStream::pair().expect("socketpair");
    ours.set_read_timeout(Some(Duration::from_secs(10)))
        .expect("timeout");
    send_to(&puppet, "FDSTORE=1\nFDNAME=foreign", &[theirs.as_raw_fd()]);
    drop(theirs);
    // It is closed, not kept.
    assert_eq!(ours.read(&mut [0]).expect("the end"), 0);
    guard.line(&["counts for nothing", &std::process::id().to_string()]);
    send_to(&puppet, "FDSTOREREMOVE=1\nFDNAME=own", &[]);
    // Nor is a child of it.
    puppet.ask("child FDSTOREREMOVE=1|FDNAME=own");
    puppet.ask("barrier");
    // That child has a copy of the strings, so that their end does not come.
    kill(puppet.pid(), Signal::SIGKILL);
    let puppet = world.puppet();
    assert_eq!(names(&puppet), ["own"]);
    let said = guard.lines_so_far(&["counts for nothing"]);
    assert_eq!(said.len(), 1, "once in a while: {said:#?}");
}

#[test]
fn what_the_guard_has_inherited_is_the_daemon_s_from_the_start() {
    let world = World::new();
    let (guard, puppet) = guarded_with(&world, |start| {
        start.env("LISTEN_FDNAMES", "one:two");
        start.through([
            "$PROBE", "launch", "--leak", "13", "--leak", "14", "--leak", "9", "--give", "13,14",
            "--",
        ]);
    });
    assert_eq!(names(&puppet), ["one", "two"]);
    let above = puppet.report.fds.iter().filter(|fd| fd.number > 4);
    assert_eq!(above.count(), 0, "what was leaked is not passed on");
    let mut puppet = replaced(&world, puppet);
    assert_eq!(sorted_names(&puppet), ["one", "two"]);
    puppet.ask("notify FDSTOREREMOVE=1|FDNAME=one");
    puppet.ask("keep 1 three");
    puppet.ask("barrier");
    let puppet = replaced(&world, puppet);
    assert_eq!(sorted_names(&puppet), ["three", "two"]);
    drop(guard);
}

// sd_listen_fds(3) counts from 3: with gaps and numbers that go round, each still has its own name.
#[test]
fn names_and_descriptors_go_together_whatever_was_removed_before() {
    let world = World::new();
    let (_guard, mut puppet) = guarded(&world);
    let mut wanted: Vec<String> = Vec::new();
    for round in 0..6 {
        for letter in ["a", "b", "c", "d"] {
            let name = format!("{letter}{round}");
            puppet.ask(&format!("store {name}"));
            wanted.push(name);
        }
        let gone = wanted.remove(round % wanted.len());
        puppet.ask(&format!("notify FDSTOREREMOVE=1|FDNAME={gone}"));
        puppet.ask("barrier");
        puppet = replaced(&world, puppet);
        puppet.ask("notify READY=1");
        let mut expected = wanted.clone();
        expected.sort();
        assert_eq!(sorted_names(&puppet), expected);
        for name in &wanted {
            let found = kept(&puppet, name);
            assert_eq!(found.len(), 1);
            let file = format!("/memfd:{name} (deleted)");
            assert_eq!(found[0].target, file);
        }
    }
}

// More than the soft limit of the daemon, which is raised by nobody here.
#[test]
fn there_may_be_more_than_the_daemon_may_open() {
    let world = World::new();
    let (_guard, mut puppet) = guarded_with(&world, |start| {
        start.through(["sh", "-c", "ulimit -Sn 64; exec \"$0\" \"$@\""]);
    });
    for name in ["a", "b", "c"] {
        puppet.ask(&format!("keep 15 {name}"));
    }
    puppet.ask("barrier");
    let puppet = replaced(&world, puppet);
    assert_eq!(names(&puppet).len(), 45);
    assert_eq!(puppet.report.limits["nofile"][0], Some(64));
}

// A worker's descriptors are the daemon's to keep, and the worker decides what their last close(2) does.
#[test]
fn a_close_that_waits_does_not_hold_it_up() {
    let world = World::new();
    let (guard, mut puppet) = guarded(&world);
    // Nobody reads from it.
    let silent = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = silent.local_addr().expect("an address");
    let before = settled_descriptors(guard.pid());
    for _ in 0..3 {
        assert_eq!(puppet.ask(&format!("store-bomb {address}")), "store-bomb");
    }
    puppet.ask("store own");
    puppet.ask("notify FDSTOREREMOVE=1|FDNAME=bomb");
    assert_eq!(puppet.ask("barrier"), "barrier");
    eventually("they are out of its table", || {
        descriptors(guard.pid()) == before + 1
    });
    let puppet = replaced(&world, puppet);
    assert_eq!(names(&puppet), ["own"]);
    eventually("nothing is left that waits", || {
        children(guard.pid()) == [puppet.pid()]
    });
    guard.stop();
}

// Or it could not start the daemon.
#[test]
fn a_store_that_is_full_leaves_room_for_a_start() {
    let world = World::new();
    let (guard, mut puppet) = guarded_with(&world, |start| {
        start.through(["sh", "-c", "ulimit -n 80; exec \"$0\" \"$@\""]);
    });
    assert_eq!(puppet.report.env["FDSTORE"], "48");
    for name in ["a", "b", "c", "d"] {
        puppet.ask(&format!("keep 15 {name}"));
    }
    puppet.ask("barrier");
    guard.line(&["no room for d: 48 descriptors are kept"]);
    let mut puppet = replaced(&world, puppet);
    assert_eq!(names(&puppet).len(), 48);
    assert_eq!(kept(&puppet, "d").len(), 3);
    puppet.ask("notify FDSTOREREMOVE=1|FDNAME=a");
    puppet.ask("keep 15 e");
    puppet.ask("barrier");
    let puppet = replaced(&world, puppet);
    assert_eq!(kept(&puppet, "e").len(), 15);
}
