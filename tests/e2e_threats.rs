//! What strangers and workers can do to hold up the daemon: nothing.

mod harness;

use harness::{Daemon, World, eventually, public_probe, varlink};
use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};
use serde_json::json;
use socket2::SockRef;
use std::fs;
use std::io::{IoSlice, Write};
use std::mem::forget;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::time::Duration;
use varlink::Varlink;

/// A connection whose last close(2) waits for an hour, and its other end, which never reads.
fn bomb() -> (OwnedFd, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("an address");
    let mut ours = TcpStream::connect(address).expect("connect");
    let (theirs, _) = listener.accept().expect("accept");
    ours.set_nonblocking(true).expect("fcntl");
    while ours.write(&[b'x'; 65_536]).is_ok() {}
    let linger = Some(Duration::from_secs(3600));
    SockRef::from(&ours).set_linger(linger).expect("SO_LINGER");
    (ours.into(), theirs)
}

/// Sends some bytes with a descriptor, if the kernel lets it; gives up the descriptor.
fn send(socket: &impl AsRawFd, to: Option<&UnixAddr>, bytes: &[u8], descriptor: OwnedFd) {
    let descriptors = [descriptor.as_raw_fd()];
    let control = [ControlMessage::ScmRights(&descriptors)];
    let data = [IoSlice::new(bytes)];
    let none = MsgFlags::empty();
    match sendmsg(socket.as_raw_fd(), &data, &control, none, to) {
        Ok(_) => {}
        // Refused before it arrives (SO_PASSRIGHTS), or the connection was closed already. It would
        // be this process that waits.
        Err(Errno::EPERM | Errno::EPIPE | Errno::ECONNRESET) => forget(descriptor),
        Err(errno) => panic!("sendmsg: {errno}"),
    }
}

/// Wraps a descriptor, so that nobody but whoever closes what it is in can reach it.
fn wrapped(descriptor: OwnedFd) -> OwnedFd {
    let (outer, inner) = UnixStream::pair().expect("socketpair");
    send(&inner, None, b"x", descriptor);
    outer.into()
}

fn answers(world: &World, daemon: &Daemon) {
    let mut control = Varlink::connect(world);
    control.ask("Status", json!({}));
    assert!(daemon.is_running());
}

/// A client of a unix stream socket that has sent a descriptor.
fn client(path: &Path) -> (UnixStream, TcpStream) {
    let (bomb, peer) = bomb();
    let client = UnixStream::connect(path).expect("connect");
    send(&client, None, b"{\"method\"", wrapped(bomb));
    (client, peer)
}

#[test]
fn what_is_sent_to_any_socket_of_the_daemon_is_closed_elsewhere() {
    let world = World::new();
    let daemon = varlink::run(
        &world,
        "
listeners:
  pc: unix:$DIR/pc.sock
  queue: unix:$DIR/queue.sock
metrics: unix:$DIR/metrics.sock
workers:
  pc: { command: [$PROBE, puppet, $EVENTS], listeners: [pc], activation: per-connection, handoff: inetd, max_connections_per_source: 1 }
  queue: { command: [/bin/sleep, '1000'], listeners: [queue] }
  told: { command: [/bin/sleep, '1000'], notify_access: main, silence: no-listeners }
",
    );
    daemon.line(&["told.0: started"]);
    let mut peers = Vec::new();

    let notify = UnixAddr::new(&world.path("control.notify")).expect("an address");
    let stranger = UnixDatagram::unbound().expect("socket");
    for text in ["X=1", "FDSTORE=1\nFDNAME=x", "BARRIER=1"] {
        let (bomb, peer) = bomb();
        send(&stranger, Some(&notify), text.as_bytes(), wrapped(bomb));
        peers.push(peer);
    }
    daemon.line(&["dropped a notification of", "which may tell nothing"]);
    answers(&world, &daemon);

    for name in ["control.sock", "metrics.sock"] {
        let (client, peer) = client(&world.path(name));
        peers.push(peer);
        drop(client);
        answers(&world, &daemon);
    }

    // The first is served, and the second closed unread.
    let (first, peer) = client(&world.path("pc.sock"));
    peers.push(peer);
    let serves = world.puppet();
    let (second, peer) = client(&world.path("pc.sock"));
    peers.push(peer);
    answers(&world, &daemon);
    drop((first, second, serves));
    answers(&world, &daemon);

    // Who waits in the queue of a listener that a reload takes away.
    let (waits, peer) = client(&world.path("queue.sock"));
    peers.push(peer);
    world.write(
        "listend.yaml",
        "
listeners: { other: unix:$DIR/other.sock }
workers:
  other: { command: [/bin/sleep, '1000'], listeners: [other] }
",
    );
    Varlink::connect(&world).ask("Reload", json!({}));
    eventually("the queue is closed", || {
        UnixStream::connect(world.path("queue.sock")).is_err()
    });
    answers(&world, &daemon);
    drop(waits);

    let (_waits, peer) = client(&world.path("other.sock"));
    peers.push(peer);
    daemon.stop();
}

#[test]
fn what_a_worker_has_stored_is_closed_elsewhere() {
    let world = World::new();
    fs::set_permissions(world.dir(), fs::Permissions::from_mode(0o755)).expect("chmod");
    let probe = public_probe(&world);
    let probe = probe.to_str().expect("text");
    let yaml = |most: u32| {
        format!(
            "
listeners: {{ web: '127.0.0.1:0' }}
workers:
  app: {{ command: [{probe}, puppet, $EVENTS], listeners: [web], fd_store: {most} }}
"
        )
    };
    let daemon = varlink::run(&world, &yaml(3));
    let mut puppet = world.puppet();
    let never_reads = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = never_reads.local_addr().expect("an address");
    let mut peers = Vec::new();
    puppet.ask("store first");
    for _ in 0..3 {
        // For the last there is no room.
        puppet.ask(&format!("store-bomb {address}"));
        peers.push(never_reads.accept().expect("accept"));
    }
    daemon.line(&["app.0: closed 1 of the descriptors that it wanted to leave"]);
    answers(&world, &daemon);

    // By name, while the worker has none of them any more.
    puppet.tell("exit 1");
    let mut puppet = world.puppet();
    assert_eq!(puppet.report.env["LISTEN_FDNAMES"], "web:first:bomb:bomb");
    puppet.ask("close 5");
    puppet.ask("close 6");
    puppet.ask("notify FDSTOREREMOVE=1|FDNAME=bomb");
    puppet.ask("barrier");
    answers(&world, &daemon);

    // By a reload that leaves less room.
    for name in ["second", "third"] {
        puppet.ask(&format!("store {name}"));
    }
    puppet.ask("barrier");
    world.write("listend.yaml", &yaml(2));
    let mut control = Varlink::connect(&world);
    control.call_with("Reload", json!({}), json!({ "more": true }));
    let puppet = world.puppet();
    assert_eq!(puppet.report.env["LISTEN_FDNAMES"], "web:first:second");
    daemon.line(&["app: closed 1 of the descriptors that its instances had left"]);
    drop(puppet);
    let _puppet = world.puppet();
    answers(&world, &daemon);
    daemon.stop();
}
