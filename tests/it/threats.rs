//! What strangers and workers can do to hold up the daemon: nothing.

use crate::harness::{
    self, Daemon, World, eventually, public_probe, require_root, require_tool, servers, state,
    varlink,
};
use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};
use serde_json::json;
use socket2::SockRef;
use std::collections::BTreeSet;
use std::fs;
use std::io::{IoSlice, Read, Write};
use std::mem::forget;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
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

/// A client of a unix stream socket that has sent a descriptor. Meanwhile the daemon stands still: it
/// is to be the last that has it.
fn client(daemon: &Daemon, path: &Path) -> (UnixStream, TcpStream) {
    let (bomb, peer) = bomb();
    daemon.pause();
    let client = UnixStream::connect(path).expect("connect");
    send(&client, None, b"{\"method\"", wrapped(bomb));
    daemon.resume();
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
        daemon.pause();
        send(&stranger, Some(&notify), text.as_bytes(), wrapped(bomb));
        daemon.resume();
        peers.push(peer);
    }
    daemon.line(&["dropped a notification of", "which may not send any"]);
    answers(&world, &daemon);

    for name in ["control.sock", "metrics.sock"] {
        let (client, peer) = client(&daemon, &world.path(name));
        peers.push(peer);
        drop(client);
        answers(&world, &daemon);
    }

    // The first is served, and the second closed unread.
    let (first, peer) = client(&daemon, &world.path("pc.sock"));
    peers.push(peer);
    let serves = world.puppet();
    let (second, peer) = client(&daemon, &world.path("pc.sock"));
    peers.push(peer);
    answers(&world, &daemon);
    drop((first, second, serves));
    answers(&world, &daemon);

    // Who waits in the queue of a listener that a reload takes away.
    let (waits, peer) = client(&daemon, &world.path("queue.sock"));
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

    let (_waits, peer) = client(&daemon, &world.path("other.sock"));
    peers.push(peer);
    daemon.stop();
}

// A barrier is held until the end of a turn; what does not fit into the table is closed by recvmsg(2) itself.
#[test]
fn barriers_take_no_descriptors_from_the_messages_behind_them() {
    let Some(prlimit) = require_tool("prlimit") else {
        return;
    };
    let world = World::new();
    let control = varlink::words(&world);
    let yaml = "workers: { told: { command: [/bin/sleep, '1000'], notify_access: main, silence: no-listeners } }";
    let daemon = world.run_with(yaml, |start| {
        let prlimit = prlimit.to_str().expect("text");
        start.through([prlimit, "--nofile=1280:1280"]);
        start.words_behind(control.iter().map(String::as_str));
    });
    daemon.line(&["told.0: started"]);
    let notify = UnixAddr::new(&world.path("control.notify")).expect("an address");
    let stranger = UnixDatagram::unbound().expect("socket");
    stranger.set_nonblocking(true).expect("fcntl");
    let null = fs::File::open("/dev/null").expect("open");
    let mut peers = Vec::new();
    daemon.pause();
    for _ in 0..64 {
        let (bomb, peer) = bomb();
        let mut descriptors = [null.as_raw_fd(); 253];
        descriptors[252] = bomb.as_raw_fd();
        let control = [ControlMessage::ScmRights(&descriptors)];
        let data = [IoSlice::new(b"BARRIER=1")];
        let (raw, none) = (stranger.as_raw_fd(), MsgFlags::empty());
        match sendmsg(raw, &data, &control, none, Some(&notify)) {
            Ok(_) => peers.push(peer),
            // The queue is full, or as many are on their way as there may be.
            Err(_) => {
                forget(bomb);
                break;
            }
        }
    }
    assert!(!peers.is_empty());
    daemon.resume();
    answers(&world, &daemon);
    daemon.stop();
}

#[test]
fn children_that_end_without_end_are_reaped_a_few_at_a_time() {
    if !require_root() {
        return;
    }
    let world = World::new();
    fs::set_permissions(world.dir(), fs::Permissions::from_mode(0o755)).expect("chmod");
    let probe = public_probe(&world);
    let probe = probe.to_str().expect("text");
    // A user of its own, so that the limit is.
    let yaml = format!(
        "
workers:
  litter: {{ command: [{probe}, litter, '16'], user: 54321, group: 54321, limits: {{ nproc: 4000 }}, silence: no-listeners }}
"
    );
    let daemon = varlink::run(&world, &yaml);
    daemon.line(&["litters"]);
    for _ in 0..10 {
        answers(&world, &daemon);
    }
    daemon.stop();
}

#[test]
fn a_worker_cannot_store_what_is_kept_free_for_starts() {
    let Some(prlimit) = require_tool("prlimit") else {
        return;
    };
    let world = World::new();
    let control = varlink::words(&world);
    let yaml = "
workers:
  app: { command: [$PROBE, puppet, $EVENTS], fd_store: 1024, silence: no-listeners }
  other: { command: [/bin/sleep, '1000'], silence: no-listeners }
";
    let daemon = world.run_with(yaml, |start| {
        let prlimit = prlimit.to_str().expect("text");
        start.through([prlimit, "--nofile=80:80"]);
        start.words_behind(control.iter().map(String::as_str));
    });
    let mut puppet = world.puppet();
    for number in 0..80 {
        puppet.ask(&format!("store s{number}"));
    }
    daemon.line(&["app.0: closed 1 of the descriptors", "needs for starts"]);
    Varlink::connect(&world).ask("Restart", json!({ "worker": "other" }));
    answers(&world, &daemon);
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
listeners: {{ web: '127.0.0.1:0', od: '127.0.0.1:0' }}
workers:
  many: {{ command: [/bin/sleep, '1000'], listeners: [od], activation: on-demand, instances: 8 }}
  app: {{ command: [{probe}, puppet, $EVENTS], listeners: [web], fd_store: {most}, rollout: {{ min_ready: 0s, watch: 0s }} }}
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
        // For the last there is no room. The worker gives up its own before the daemon takes it.
        daemon.pause();
        puppet.ask(&format!("store-bomb {address}"));
        daemon.resume();
        peers.push(never_reads.accept().expect("accept"));
    }
    daemon.line(&["app.0: closed 1 of the descriptors that it wanted to store"]);
    answers(&world, &daemon);

    // By name, while the worker has none of them any more.
    puppet.tell("exit 1");
    let mut puppet = world.puppet();
    assert_eq!(puppet.report.env["LISTEN_FDNAMES"], "web:first:bomb:bomb");
    puppet.ask("close 5");
    puppet.ask("close 6");
    // No start in the same turn has a copy, whose exec would be the last that closes it.
    daemon.pause();
    puppet.ask("notify FDSTOREREMOVE=1|FDNAME=bomb");
    let _client = TcpStream::connect(daemon.address("od")).expect("connect");
    daemon.resume();
    puppet.ask("barrier");
    answers(&world, &daemon);
    let is_sleep = |pid: &i32| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm"));
        name.is_ok_and(|name| name == "sleep\n")
    };
    eventually("all of them run", || {
        harness::children(daemon.pid())
            .iter()
            .filter(|pid| is_sleep(pid))
            .count()
            == 8
    });

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
    daemon.line(&["app: closed 1 of the descriptors that its instances had stored"]);
    drop(puppet);
    let _puppet = world.puppet();
    answers(&world, &daemon);
    daemon.stop();
}

// Each close(2) of such a file waits for its server, also that of a copy that a child has on its way to
// exec, and no signal ends that.
#[test]
fn a_file_whose_server_does_not_answer_holds_up_neither_the_loop_nor_a_start() {
    let Some((words, command)) = servers::silent("flush") else {
        return;
    };
    let world = World::new();
    let control = varlink::words(&world);
    let yaml = format!(
        "
listeners: {{ pc: '127.0.0.1:0' }}
workers:
  app: {{ command: {command}], fd_store: 2, notify_access: main, silence: no-listeners, restart: never, stop_timeout: 2s }}
  pc: {{ command: [/bin/echo, hi], listeners: [pc], activation: per-connection, handoff: inetd }}
  other: {{ command: [/bin/sleep, '1000'], silence: no-listeners }}
"
    );
    let daemon = world.run_with(&yaml, |start| {
        start.through(words);
        start.words_behind(control.iter().map(String::as_str));
    });
    daemon.line(&["app.0: closed 2 of the descriptors", "may not answer"]);
    // No more of a message are looked at than there could be room for.
    daemon.line(&["app.0: closed 1 of the descriptors", "there is room for 2"]);
    answers(&world, &daemon);
    // With another hundred there are as many that wait as there may be.
    daemon.line(&["received at the notify socket blocks"]);
    answers(&world, &daemon);
    let mut hi = String::new();
    let mut client = TcpStream::connect(daemon.address("pc")).expect("connect");
    client.read_to_string(&mut hi).expect("an answer");
    assert_eq!(hi, "hi\n");
    Varlink::connect(&world).ask("Restart", json!({ "worker": "other" }));
    answers(&world, &daemon);
    eventually("who sends no descriptors is heard", || {
        let told = Varlink::connect(&world).ask("Status", json!({}));
        told.to_string().contains("beats")
    });
    let lost = harness::children(daemon.pid());
    let lost = lost.into_iter().filter(|pid| state(*pid) == Some('D'));
    assert!(lost.count() >= 64);
    daemon.stop();
}

// --- The table of system calls ------------------------------------------------------------------------

/// The calls that have a row in the table.
fn in_the_table() -> BTreeSet<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/threat-model.md");
    let text = fs::read_to_string(path).expect("the document");
    let (_, table) = text
        .split_once("## Every system call of the loop")
        .expect("the table");
    let (table, _) = table.split_once("## What remains").expect("its end");
    let first_cells = table
        .lines()
        .filter_map(|line| line.strip_prefix('|')?.split('|').next());
    let names = first_cells.flat_map(|cell| cell.split('`').skip(1).step_by(2));
    names.map(str::to_owned).collect()
}

/// The lines of the trace since the loop has begun to wait.
fn calls_of_the_loop(trace: &Path) -> Vec<String> {
    let text = fs::read_to_string(trace).expect("the trace");
    let lines = text
        .lines()
        .skip_while(|line| !line.starts_with("epoll_wait("));
    lines.map(str::to_owned).collect()
}

#[test]
fn every_system_call_of_a_busy_loop_has_a_row_in_the_threat_model() {
    let Some(_strace) = require_tool("strace") else {
        return;
    };
    let world = World::new();
    fs::set_permissions(world.dir(), fs::Permissions::from_mode(0o755)).expect("chmod");
    let yaml = |second: &str| {
        format!(
            "
listeners:
  web: '127.0.0.1:0'
  pc: '127.0.0.1:0'
  upc: unix:$DIR/upc.sock
  od: '127.0.0.1:0'
  path: unix:$DIR/path.sock
  udp: 'udp://127.0.0.1:0'
  fifo: fifo:$DIR/fifo
  {second}: unix:$DIR/{second}.sock
metrics: unix:$DIR/metrics.sock
workers:
  app: {{ command: [$PROBE, puppet, $EVENTS], listeners: [web, path, udp, fifo], fd_store: 2, notify_access: all, watchdog: 1h, restart: {{ limit: none, backoff: 10ms..20ms }} }}
  pc: {{ command: [/bin/echo, hi], listeners: [pc, upc], activation: per-connection, handoff: inetd }}
  od: {{ command: [/bin/sleep, '1000'], listeners: [od], activation: on-demand }}
  looked: {{ command: [$PROBE, serve], listeners: [{second}], ready: accepting, output: tag }}
  chatty: {{ command: [/bin/sh, -c, 'echo hi; exit 1'], output: tag, silence: no-listeners, restart: {{ limit: none, backoff: 10ms..20ms }} }}
  filed: {{ command: [/bin/sh, -c, 'echo hi; exit 1'], output: file:$DIR/log, silence: no-listeners, restart: {{ limit: none, backoff: 10ms..20ms }} }}
"
        )
    };
    let words = varlink::words(&world);
    let daemon = world.run_with(&yaml("one"), |start| {
        start.words_behind(words.iter().map(String::as_str));
        start.through(["strace", "-D", "-q", "-o", "$DIR/trace"]);
    });
    let mut puppet = world.puppet();
    daemon.line(&["looked.0", "ready"]);
    puppet.ask("store one");
    puppet.ask("notify RELOADING=1");
    puppet.ask("notify READY=1|STATUS=well");
    puppet.ask("barrier");

    // A stranger is looked up once, and one of another user not at all.
    let notify = world.path("control.notify");
    let stranger = UnixDatagram::unbound().expect("socket");
    for _ in 0..20 {
        stranger.send_to(b"READY=1", &notify).expect("send");
    }
    daemon.line(&["dropped a notification of pid"]);
    answers(&world, &daemon);

    for name in ["pc", "od"] {
        drop(TcpStream::connect(daemon.address(name)).expect("connect"));
    }
    drop(UnixStream::connect(world.path("upc.sock")).expect("connect"));
    daemon.line(&["od.0: started"]);
    let mut scraper = UnixStream::connect(world.path("metrics.sock")).expect("connect");
    scraper
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .expect("send");
    let mut page = String::new();
    scraper.read_to_string(&mut page).expect("a page");
    assert!(page.contains("listend_listener_up"), "{page}");

    let mut control = Varlink::connect(&world);
    control.ask("Check", json!({}));
    control.ask("Reopen", json!({}));
    fs::remove_file(world.path("path.sock")).expect("unlink");
    eventually("the path is there again", || {
        world.path("path.sock").exists()
    });
    world.write("listend.yaml", &yaml("two"));
    control.ask("Reload", json!({}));
    daemon.line(&["two.sock is bound"]);
    answers(&world, &daemon);
    daemon.stop();

    let trace = world.path("trace");
    eventually("the trace is whole", || {
        fs::read_to_string(&trace).is_ok_and(|text| text.contains("+++ exited"))
    });
    let calls = calls_of_the_loop(&trace);
    let names = calls.iter().filter_map(|line| line.split_once('('));
    let names = names.map(|(name, _)| name.to_owned());
    let is_name = |name: &String| {
        name.chars()
            .all(|one| one.is_ascii_alphanumeric() || one == '_')
    };
    let made: BTreeSet<String> = names.filter(is_name).collect();
    assert!(made.contains("accept4") && made.len() > 30, "{made:?}");
    let table = in_the_table();
    let unknown: Vec<&String> = made.difference(&table).collect();
    assert!(unknown.is_empty(), "without a row: {unknown:?}");

    let own = format!("\"/proc/{}\"", std::process::id());
    let looks = calls.iter().filter(|line| line.contains(&own)).count();
    assert!(looks <= 1, "a stranger was looked up {looks} times");
}

// Each message cost up to 64 reads of /proc, and a flood kept a healthy worker's WATCHDOG=1 out.
#[test]
fn a_stranger_s_messages_are_dropped_for_their_user_alone() {
    let Some(_strace) = require_tool("strace") else {
        return;
    };
    if !require_root() {
        return;
    }
    let world = World::new();
    fs::set_permissions(world.dir(), fs::Permissions::from_mode(0o755)).expect("chmod");
    let words = varlink::words(&world);
    let daemon = world.run_with(
        "
workers:
  app: { command: [/bin/sleep, '1000'], user: nobody, notify_access: all, silence: no-listeners }
",
        |start| {
            start.words_behind(words.iter().map(String::as_str));
            start.through(["strace", "-D", "-q", "-o", "$DIR/trace"]);
        },
    );
    daemon.line(&["app.0: started"]);
    let probe = public_probe(&world);
    let stranger = Command::new(probe)
        .args(["send", "unix-dgram"])
        .arg(world.path("control.notify"))
        .args(["READY=1", "10"])
        .uid(12_345)
        .spawn();
    let mut stranger = stranger.expect("start the stranger");
    let pid = stranger.id();
    daemon.line(&["dropped a notification of pid", "of uid 12345"]);
    // It waits for an answer that does not come.
    stranger.kill().expect("kill the stranger");
    stranger.wait().expect("wait for the stranger");
    daemon.stop();
    let trace = world.path("trace");
    eventually("the trace is whole", || {
        fs::read_to_string(&trace).is_ok_and(|text| text.contains("+++ exited"))
    });
    let looked = format!("/proc/{pid}");
    let calls = calls_of_the_loop(&trace);
    let looks: Vec<&String> = calls.iter().filter(|line| line.contains(&looked)).collect();
    assert!(looks.is_empty(), "{looks:?}");
}
