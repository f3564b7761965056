//! How many connections a worker serves, and how fast they are taken: no limit loses a client that
//! it was not told to close, and none is for ever.

use crate::harness::app::{self, PUPPET};
use crate::harness::varlink::{self, Varlink};
use crate::harness::{
    Daemon, Puppet, World, children, client, context_switches, descriptors, eventually, first_free,
    public_probe, queued, reloading, require_root, require_tool, settled,
};
use serde_json::json;
use std::fs;
use std::io::{ErrorKind, Read};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A worker `app` with a process for each connection, and these further lines.
fn yaml(command: &str, lines: &str) -> String {
    let lines = format!("activation: per-connection\nhandoff: inetd\n{lines}");
    app::yaml(command, &lines)
}

fn connect(address: SocketAddr) -> TcpStream {
    client::tcp(address).expect("the queue takes a client")
}

/// A connection and its process.
fn open(world: &World, address: SocketAddr) -> (TcpStream, Puppet) {
    let stream = connect(address);
    (stream, world.puppet())
}

/// Waits until so many processes are left.
#[track_caller]
fn left(daemon: &Daemon, count: usize) {
    let what = format!("{count} processes are left");
    eventually(&what, || children(daemon.pid()).len() == count);
}

// --- `max_connections` -------------------------------------------------------------------------

// The default, which is systemd's MaxConnections= too.
#[test]
fn the_65th_client_waits_in_the_accept_queue() {
    const MAX: usize = 64;
    let world = World::new();
    let daemon = world.run(&yaml("[/bin/cat]", "accept_rate: none"));
    let address = daemon.address("web");
    let open: Vec<TcpStream> = (0..MAX).map(|_| connect(address)).collect();
    for stream in &open {
        client::converse(stream, "hello", "hello");
    }
    settled(daemon.pid());
    let before = descriptors(daemon.pid());
    let waiting = connect(address);
    daemon.line(&["worker app", "max_connections", "64", "accept queue"]);
    settled(daemon.pid());
    assert_eq!((queued(address), children(daemon.pid()).len()), (1, MAX));
    assert_eq!(descriptors(daemon.pid()), before);
    open[7].shutdown(Shutdown::Both).expect("shutdown");
    client::converse(&waiting, "hello", "hello");
    assert_eq!(queued(address), 0);
    daemon.stop();
}

#[test]
fn each_end_lets_one_more_in_and_the_queue_wakes_nobody() {
    let world = World::new();
    let daemon = world.run(&yaml(PUPPET, "max_connections: 2"));
    let address = daemon.address("web");
    let mut served: Vec<_> = (0..2).map(|_| open(&world, address)).collect();
    let waiting: Vec<TcpStream> = (0..3).map(|_| connect(address)).collect();
    daemon.line(&["worker app", "max_connections", "2", "accept queue"]);
    settled(daemon.pid());
    let before = context_switches(daemon.pid());
    let more: Vec<TcpStream> = (0..50).map(|_| connect(address)).collect();
    let woken = context_switches(daemon.pid()) - before;
    assert!(woken < 5, "{woken} context switches");
    drop(more);
    for stream in waiting {
        assert!(world.no_puppet_is_waiting());
        let (_, mut first) = served.remove(0);
        first.tell("exit 0");
        served.push((stream, world.puppet()));
        eventually("who has ended is reaped", || {
            children(daemon.pid()).len() == 2
        });
    }
    daemon.stop();
}

#[test]
fn with_overflow_close_a_client_too_many_is_closed_at_once() {
    let world = World::new();
    let daemon = world.run(&yaml(PUPPET, "max_connections: 2\noverflow: close"));
    let address = daemon.address("web");
    let mut served: Vec<_> = (0..2).map(|_| open(&world, address)).collect();
    for _ in 0..3 {
        client::sees_the_end(connect(address));
    }
    daemon.line(&["worker app", "max_connections", "2", "closed at once"]);
    assert!(world.no_puppet_is_waiting());
    let (_, mut first) = served.remove(0);
    first.tell("exit 0");
    first.wait_for_its_end();
    left(&daemon, 1);
    let (stream, mut puppet) = open(&world, address);
    puppet.tell("exit 0");
    client::sees_the_end(stream);
    daemon.stop();
}

// It was open until the last connection had ended, and then reset all who had waited in its queue in vain.
#[test]
fn a_listener_that_a_reload_removes_is_closed_at_once() {
    let world = World::new();
    let yaml = |listeners: &str, names: &str| {
        format!(
            "listeners: {{ kept: '127.0.0.1:0'{listeners} }}\nworkers:\n  app:\n    command: [/bin/cat]\n    \
             activation: per-connection\n    handoff: inetd\n    max_connections: 1\n    listeners: [{names}]\n"
        )
    };
    let daemon = reloading::run(&world, &yaml(", gone: '127.0.0.2:0'", "kept, gone"));
    let address = daemon.address("gone");
    let served = connect(address);
    client::converse(&served, "hello", "hello");
    let mut waits = connect(address);
    daemon.line(&["worker app", "max_connections", "accept queue"]);
    reloading::reload(&world, &yaml("", "kept"));
    eventually("it is closed", || client::tcp(address).is_err());
    let reset = waits.read(&mut [0]).expect_err("reset");
    assert_eq!(reset.kind(), ErrorKind::ConnectionReset);
    client::converse(&served, "again", "again");
    drop(served);
    client::converse(&connect(daemon.address("kept")), "next", "next");
    daemon.stop();
}

// --- `max_connections_per_source` --------------------------------------------------------------

#[test]
fn a_source_with_too_many_connections_is_closed_and_others_are_served() {
    let world = World::new();
    let daemon = world.run(&yaml(PUPPET, "max_connections_per_source: 2"));
    let address = daemon.address("web");
    let from = |last| {
        let source = IpAddr::V4(Ipv4Addr::new(127, 0, 0, last));
        client::tcp_from(source, address).expect("connect")
    };
    let mut ones: Vec<_> = (0..2).map(|_| (from(1), world.puppet())).collect();
    client::sees_the_end(from(1));
    let _others: Vec<_> = (0..2).map(|_| (from(2), world.puppet())).collect();
    client::sees_the_end(from(2));
    let (_, mut first) = ones.remove(0);
    first.tell("exit 0");
    first.wait_for_its_end();
    left(&daemon, 3);
    client::sees_the_end(from(2));
    let _again = (from(1), world.puppet());
    assert!(world.no_puppet_is_waiting());
    daemon.stop();
}

// systemd counts the clients of a unix socket by user, and so is it here.
#[test]
fn the_source_of_a_unix_client_is_its_user() {
    if !require_root() {
        return;
    }
    let world = World::new();
    let probe = public_probe(&world);
    let daemon = world.run(&format!(
        "
listeners: {{ web: {{ address: 'unix:$DIR/web.sock', mode: 0666 }} }}
workers:
  app:
    command: {PUPPET}
    listeners: [web]
    activation: per-connection
    handoff: inetd
    max_connections_per_source: 1
"
    ));
    daemon.line(&["web", "listening on"]);
    let path = world.path("web.sock");
    let _root = (client::unix(&path).expect("connect"), world.puppet());
    client::sees_the_end(client::unix(&path).expect("connect"));
    let other = Command::new(probe)
        .args(["send", "unix", path.to_str().expect("UTF-8"), "hello", "10"])
        .uid(54321)
        .stdout(Stdio::piped())
        .spawn()
        .expect("start the probe");
    let mut puppet = world.puppet();
    assert_eq!(puppet.ask("read 0"), "hello");
    let output = other.wait_with_output().expect("wait");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "HELLO");
    daemon.stop();
}

// A count that is not given back closes every later client of this machine.
#[test]
fn the_counts_survive_every_way_a_connection_can_end() {
    let world = World::new();
    let lines = "max_connections: 1
max_connections_per_source: 1
connection_timeout: 500ms
stop_timeout: 50ms
accept_rate: none
restart: { backoff: 1ms..5ms, limit: none }";
    let daemon = world.run(&yaml("[$DIR/app, puppet, $EVENTS]", lines));
    let app = world.path("app");
    let install =
        || std::os::unix::fs::symlink(crate::harness::probe_path(), &app).expect("symlink");
    install();
    let address = daemon.address("web");
    for end in [
        "exit 0", "exit 1", "raise 9", "timeout", "missing", "gone", "exit 0",
    ] {
        if end == "missing" {
            fs::remove_file(&app).expect("remove");
        }
        let stream = connect(address);
        match end {
            "missing" => {
                daemon.lines(&["app.", "executing the program"], 2);
                install();
                world.puppet().tell("exit 0");
            }
            "timeout" => drop(world.puppet().ask("deaf")),
            "gone" => {
                let mut puppet = world.puppet();
                client::reset(stream.try_clone().expect("dup"));
                puppet.tell("exit 0");
                puppet.wait_for_its_end();
            }
            _ => world.puppet().tell(end),
        }
        if end != "gone" {
            client::sees_the_end(stream);
        }
        left(&daemon, 0);
    }
    assert!(world.no_puppet_is_waiting());
    assert!(daemon.lines_so_far(&["closed the connection"]).is_empty());
    daemon.stop();
}

// --- Rates and shortages -----------------------------------------------------------------------

/// The times that the probe has left in a file.
fn stamps(world: &World) -> Vec<Duration> {
    let text = fs::read_to_string(world.path("stamps")).expect("the times");
    let numbers = text.lines().map(|line| line.parse().expect("a number"));
    let mut times: Vec<Duration> = numbers.map(Duration::from_nanos).collect();
    times.sort();
    times
}

#[test]
fn a_flood_is_taken_at_the_accept_rate_and_nobody_is_lost() {
    const CLIENTS: usize = 12;
    const COUNT: usize = 3;
    const WINDOW: Duration = Duration::from_millis(400);
    let world = World::new();
    let lines = "accept_rate: 3 in 400ms";
    let daemon = world.run(&yaml("[$PROBE, stamp, $DIR/stamps]", lines));
    let address = daemon.address("web");
    let before = settled(daemon.pid());
    let came = Instant::now();
    let streams: Vec<TcpStream> = (0..CLIENTS).map(|_| connect(address)).collect();
    for (number, stream) in streams.into_iter().enumerate() {
        client::sees_the_end(stream);
        let windows = u32::try_from(number / COUNT).expect("few");
        assert!(
            came.elapsed() >= windows * WINDOW,
            "client {number} too early"
        );
    }
    let times = stamps(&world);
    assert_eq!(times.len(), CLIENTS);
    for group in times.windows(COUNT + 1) {
        // Less than the window, as a process may have been long on its way to its program.
        let apart = group[COUNT] - group[0];
        assert!(apart >= WINDOW / 2, "{COUNT} and one more within {apart:?}");
    }
    daemon.line(&["worker app", "accept_rate, 3 in 400 ms, reached;"]);
    let busy = context_switches(daemon.pid()) - before;
    assert!(busy < 400, "{busy} context switches");
    daemon.stop();
}

// A datagram is no connection: the process that takes the socket is started for it.
#[test]
fn the_trigger_limit_slows_down_what_datagrams_start() {
    const WINDOW: Duration = Duration::from_millis(400);
    let world = World::new();
    let daemon = world.run(&format!(
        "
listeners: {{ it: 'udp://127.0.0.1:0' }}
workers:
  app:
    command: {PUPPET}
    listeners: [it]
    activation: per-connection
    handoff: inetd
    trigger_limit: 2 in 400ms
"
    ));
    let address = daemon.address("it");
    let sender = std::net::UdpSocket::bind("127.0.0.1:0").expect("bind");
    let mut came = Vec::new();
    for number in 0..3_usize {
        came.push(Instant::now());
        sender.send_to(b"hello", address).expect("send");
        let mut puppet = world.puppet();
        if let Some(first) = number.checked_sub(2) {
            let since = came[first].elapsed();
            assert!(since >= WINDOW, "datagram {number} after {since:?}");
        }
        assert_eq!(puppet.ask("read 0"), "hello");
        puppet.tell("exit 0");
        puppet.wait_for_its_end();
        left(&daemon, 0);
    }
    daemon.stop();
}

#[test]
fn a_rate_of_none_is_no_rate() {
    const CLIENTS: usize = 200;
    let world = World::new();
    let lines = "accept_rate: none\nmax_connections: none";
    let daemon = world.run(&yaml("[/bin/cat]", lines));
    let address = daemon.address("web");
    let streams: Vec<TcpStream> = (0..CLIENTS).map(|_| connect(address)).collect();
    for stream in &streams {
        client::converse(stream, "hello", "hello");
    }
    assert!(daemon.lines_so_far(&["reached"]).is_empty());
    daemon.stop();
}

// accept(2): "EMFILE The per-process limit on the number of open file descriptors has been
// reached." Level-triggered, the same client would come again at once.
#[test]
fn without_descriptors_it_pauses_and_goes_on() {
    const CLIENTS: usize = 12;
    let Some(prlimit) = require_tool("prlimit") else {
        return;
    };
    let world = World::new();
    let lines = "accept_rate: none\nmax_connections: none\nrestart: { backoff: 10ms..100ms }";
    let daemon = world.run(&yaml(PUPPET, lines));
    let address = daemon.address("web");
    settled(daemon.pid());
    // A connection that is served takes none in the daemon; one that is accepted takes one.
    limit(&prlimit, &daemon, first_free(daemon.pid()));
    let streams: Vec<TcpStream> = (0..CLIENTS).map(|_| connect(address)).collect();
    daemon.line(&["oo many open files", "retrying in 100 ms"]);
    let before = context_switches(daemon.pid());
    std::thread::sleep(Duration::from_secs(1));
    let busy = context_switches(daemon.pid()) - before;
    assert!(busy < 100, "{busy} context switches");
    assert!(world.no_puppet_is_waiting(), "there was room for one");
    // They were not forgotten, and nobody has to tell it that there is room again.
    limit(&prlimit, &daemon, 1024);
    for number in 0..CLIENTS {
        let mut puppet = world.puppet();
        assert_ne!(puppet.pid(), 0, "client {number}");
        puppet.tell("exit 0");
    }
    streams.into_iter().for_each(client::sees_the_end);
    let told = daemon.lines_so_far(&["oo many open files"]).len();
    assert_eq!(told, 1, "it is told once a minute");
    left(&daemon, 0);
    daemon.stop();
}

// With the last number taken a child could not even open /dev/null, the connections of several such
// children came back together, and all but one of them were lost.
#[test]
fn no_client_is_lost_for_want_of_descriptors() {
    const CLIENTS: usize = 12;
    const EACH: usize = 4;
    let Some(prlimit) = require_tool("prlimit") else {
        return;
    };
    let world = World::new();
    let lines = "accept_rate: none\nmax_connections: none\nrestart: { backoff: 10ms..50ms }";
    let daemon = world.run(&yaml("[/bin/echo, hi]", lines));
    let address = daemon.address("web");
    settled(daemon.pid());
    limit(&prlimit, &daemon, first_free(daemon.pid()) + 1);
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            std::thread::spawn(move || {
                for _ in 0..EACH {
                    let mut text = String::new();
                    let read = connect(address).read_to_string(&mut text);
                    assert_eq!((text.as_str(), read.ok()), ("hi\n", Some(3)));
                }
            })
        })
        .collect();
    for client in clients {
        client.join().expect("every client is served");
    }
    assert_eq!(daemon.lines_so_far(&["lost the connection"]), [""; 0]);
    daemon.stop();
}

// It is when somebody asks what is wrong.
#[test]
fn who_asks_is_answered_when_there_are_no_descriptors_left() {
    let Some(prlimit) = require_tool("prlimit") else {
        return;
    };
    let world = World::new();
    let daemon = varlink::run(&world, &yaml("[/bin/cat]", "max_connections: none"));
    let address = daemon.address("web");
    settled(daemon.pid());
    limit(&prlimit, &daemon, first_free(daemon.pid()));
    let stream = connect(address);
    daemon.line(&["oo many open files", "retrying in 100 ms"]);
    let clients: Vec<Varlink> = (0..3)
        .map(|_| {
            let mut client = Varlink::connect(&world);
            client.ask("Status", json!({}));
            client
        })
        .collect();
    drop(clients);
    Varlink::connect(&world).ask("Status", json!({}));
    let said = daemon.lines_so_far(&["control socket: cannot accept"]);
    assert_eq!(said, [""; 0]);
    drop(stream);
    daemon.stop();
}

// Some of them, while there are few. Nobody has to tell it that there is room again.
#[test]
fn who_finds_no_descriptor_left_at_the_control_socket_is_answered_later() {
    /// More than are accepted from what is kept in reserve.
    const CLIENTS: usize = 6;
    let Some(prlimit) = require_tool("prlimit") else {
        return;
    };
    let world = World::new();
    let daemon = varlink::run(&world, &yaml("[/bin/cat]", "max_connections: none"));
    settled(daemon.pid());
    limit(&prlimit, &daemon, first_free(daemon.pid()));
    let mut clients: Vec<Varlink> = (0..CLIENTS).map(|_| Varlink::connect(&world)).collect();
    daemon.line(&["control socket: cannot accept a client"]);
    limit(&prlimit, &daemon, 1024);
    for client in &mut clients {
        client.ask("Status", json!({}));
    }
    daemon.stop();
}

/// Changes how many descriptors the daemon may have, from outside.
fn limit(prlimit: &Path, daemon: &Daemon, count: i32) {
    let status = Command::new(prlimit)
        .args(["--pid", &daemon.pid().to_string()])
        .arg(format!("--nofile={count}:"))
        .status();
    assert!(status.expect("start prlimit").success());
}
