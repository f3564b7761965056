//! `activation: per-connection`: listend accepts, and each connection has its own process.

use crate::harness::activation::has_started;
use crate::harness::app::{self, PUPPET};
use crate::harness::report::Socket;
use crate::harness::{
    Daemon, Puppet, Report, World, children, client, descriptors, eventually, kill, network,
    queued, require_ipv6, resident_kib, settled, state,
};
use nix::sys::signal::Signal;
use socket2::SockAddr;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// A worker `app` with a process for each connection at this address, and these further lines.
fn yaml(address: &str, command: &str, lines: &str) -> String {
    let lines = format!("activation: per-connection\n{lines}");
    app::yaml_at(address, command, &lines)
}

const WEB: &str = "'127.0.0.1:0'";
const INETD: &str = "handoff: inetd";

fn env<'a>(report: &'a Report, name: &str) -> Option<&'a str> {
    report.env.get(name).map(String::as_str)
}

/// Whether exactly these variables of a set have a value, and which.
#[track_caller]
fn has(report: &Report, wanted: &[(&str, &str)], absent: &[&str]) {
    for (name, value) in wanted {
        assert_eq!(env(report, name), Some(*value), "{name}: {:#?}", report.env);
    }
    for name in absent {
        assert_eq!(env(report, name), None, "{name}");
    }
}

fn numbers(report: &Report) -> Vec<i32> {
    report.fds.iter().map(|fd| fd.number).collect()
}

/// The connection at this descriptor: no listener, blocking, and there to be inherited further.
#[track_caller]
fn connection(report: &Report, number: usize) -> &Socket {
    let fd = &report.fds[number];
    assert!(!fd.nonblocking && !fd.cloexec, "{fd:?}");
    let socket = fd.socket.as_ref().expect("a socket");
    assert!(!socket.listening, "{fd:?}");
    socket
}

/// 0 and 1 are the connection, 2 is the log, and there is nothing else.
#[track_caller]
fn is_inetd(report: &Report, daemon: &Daemon) {
    assert_eq!(numbers(report), [0, 1, 2], "{:#?}", report.fds);
    connection(report, 0);
    connection(report, 1);
    assert_eq!(report.fds[0].target, report.fds[1].target);
    is_log(report, daemon, 2);
    let left = report.env.keys().filter(|name| name.starts_with("LISTEN_"));
    assert_eq!(left.count(), 0, "{:#?}", report.env);
}

#[track_caller]
fn is_log(report: &Report, daemon: &Daemon, number: usize) {
    let log = std::fs::read_link(format!("/proc/{}/fd/2", daemon.pid())).expect("its log");
    assert_eq!(report.fds[number].target, log.to_str().expect("UTF-8"));
}

/// man systemd.socket, Accept=: "only the connection socket is passed"; FileDescriptorName=: its
/// name is `connection`.
#[track_caller]
fn is_systemd(report: &Report) {
    assert_eq!(numbers(report), [0, 1, 2, 3], "{:#?}", report.fds);
    connection(report, 3);
    for fd in &report.fds[..3] {
        assert!(fd.socket.is_none(), "{fd:?}");
    }
    let pid = report.pid.to_string();
    let wanted = [
        ("LISTEN_FDS", "1"),
        ("LISTEN_FDNAMES", "connection"),
        ("LISTEN_PID", pid.as_str()),
    ];
    has(report, &wanted, &[]);
    let inode = report.pidfd_inode.map(|inode| inode.to_string());
    assert_eq!(env(report, "LISTEN_PIDFDID"), inode.as_deref());
}

// --- What a process is given -------------------------------------------------------------------

/// The variables of a TCP connection: systemd's and those of ucspi-tcp(environment).
#[track_caller]
fn is_tcp(report: &Report, client: SocketAddr, server: SocketAddr) {
    let ip = |address: SocketAddr| address.ip().to_string();
    let port = |address: SocketAddr| address.port().to_string();
    let wanted = [
        ("REMOTE_ADDR", ip(client)),
        ("REMOTE_PORT", port(client)),
        ("PROTO", "TCP".to_owned()),
        ("TCPREMOTEIP", ip(client)),
        ("TCPREMOTEPORT", port(client)),
        ("TCPLOCALIP", ip(server)),
        ("TCPLOCALPORT", port(server)),
    ];
    let wanted: Vec<_> = wanted.iter().map(|(n, v)| (*n, v.as_str())).collect();
    // Names are not looked up.
    has(report, &wanted, &["TCPREMOTEHOST", "TCPREMOTEINFO"]);
}

fn ask(address: SocketAddr) -> (SocketAddr, Report) {
    let stream = client::tcp(address).expect("connect");
    let here = stream.local_addr().expect("an address");
    (here, client::read_report(stream).expect("a report"))
}

#[test]
fn inetd_gives_the_connection_as_input_and_output() {
    let world = World::new();
    let daemon = world.run_with(&yaml(WEB, "[$PROBE, answer, '0']", INETD), |start| {
        start.through(["$PROBE", "launch", "--leak", "9", "--leak", "200", "--"]);
        start
            .env("REMOTE_HOST_OF_MINE", "kept")
            .env("TCPREMOTEHOST", "not mine");
    });
    let address = daemon.address("web");
    let (here, report) = ask(address);
    is_inetd(&report, &daemon);
    is_tcp(&report, here, address);
    has(&report, &[("REMOTE_HOST_OF_MINE", "kept")], &[]);
    assert_eq!(connection(&report, 0).name, address.to_string());
    let sigpipe = nix::sys::signal::Signal::SIGPIPE as i32;
    assert_eq!((report.blocked, report.ignored), (vec![], vec![sigpipe]));
    assert_eq!(report.pgid, report.pid);
    daemon.stop();
}

#[test]
fn systemd_gives_the_connection_as_descriptor_3() {
    let world = World::new();
    let yaml = yaml(WEB, "[$PROBE, answer, '{fds}']", "handoff: systemd");
    let daemon = world.run_with(&yaml, |start| {
        start.through(["$PROBE", "launch", "--leak", "3", "--leak", "9", "--"]);
    });
    let address = daemon.address("web");
    let (here, report) = ask(address);
    is_systemd(&report);
    is_log(&report, &daemon, 2);
    is_tcp(&report, here, address);
    assert_eq!(connection(&report, 3).name, address.to_string());
    daemon.stop();
}

#[test]
fn ipv6_clients_are_named_without_brackets() {
    if !require_ipv6() {
        return;
    }
    let world = World::new();
    for handoff in ["inetd", "systemd"] {
        let command = "[$PROBE, answer, '{fds:web}']";
        let daemon = world.run(&yaml("'[::1]:0'", command, &format!("handoff: {handoff}")));
        let address = daemon.address("web");
        let (here, report) = ask(address);
        is_tcp(&report, here, address);
        assert_eq!(env(&report, "REMOTE_ADDR"), Some("::1"));
        daemon.stop();
    }
}

// ipv6(7), IPV6_V6ONLY: an IPv4 client of a dual-stack socket has the address ::ffff:127.0.0.1.
// It is shown as what it is.
#[test]
fn an_ipv4_client_of_a_dual_stack_listener_is_an_ipv4_client() {
    if !require_ipv6() {
        return;
    }
    let world = World::new();
    let listener = "{ address: '[::]:0', ipv6_only: false }";
    let daemon = world.run(&yaml(listener, "[$PROBE, answer, '0']", INETD));
    let port = daemon.address("web").port();
    for ip in ["127.0.0.1", "::1"] {
        let address = SocketAddr::new(ip.parse().expect("an address"), port);
        let (here, report) = ask(address);
        is_tcp(&report, here, address);
    }
    daemon.stop();
}

// man systemd.exec, $REMOTE_ADDR: "For AF_UNIX socket connections … contains either the remote
// socket's file system path starting with a slash ("/"), its address in the abstract namespace
// starting with an at symbol ("@"), or is unset in case of an unnamed socket."
#[test]
fn unix_clients_have_a_path_an_abstract_name_or_none() {
    for (handoff, fd) in [("inetd", "0"), ("systemd", "3")] {
        let world = World::new();
        let lines = format!("handoff: {handoff}");
        let command = format!("[$PROBE, answer, '{fd}']");
        let daemon = world.run(&yaml("'unix:$DIR/web.sock'", &command, &lines));
        daemon.line(&["web", "listening on"]);
        let path = world.path("web.sock");
        let bound = world.path("client.sock");
        let name = format!("listend-client-{}", std::process::id());
        let abstract_name = SockAddr::unix(format!("\0{name}")).expect("an address");
        let connect = |address| client::unix_from(&address, &path).expect("connect");
        let clients: [(UnixStream, Option<String>); 3] = [
            (
                connect(SockAddr::unix(&bound).expect("an address")),
                Some(bound.to_str().expect("UTF-8").to_owned()),
            ),
            (connect(abstract_name), Some(format!("@{name}"))),
            (client::unix(&path).expect("connect"), None),
        ];
        for (stream, wanted) in clients {
            let report = client::read_report(stream).expect("a report");
            assert_eq!(env(&report, "REMOTE_ADDR"), wanted.as_deref());
            has(
                &report,
                &[],
                &["REMOTE_PORT", "TCPREMOTEIP", "TCPREMOTEPORT"],
            );
            if handoff == "inetd" {
                is_inetd(&report, &daemon);
            } else {
                is_systemd(&report);
            }
            assert_eq!(connection(&report, fd.parse().unwrap()).family, "unix");
        }
        daemon.stop();
    }
}

#[test]
fn seqpacket_connections_are_connections_too() {
    let world = World::new();
    let address = "'unix-seqpacket:$DIR/web.sock'";
    let daemon = world.run(&yaml(address, "[$PROBE, answer, '0']", INETD));
    daemon.line(&["web", "listening on"]);
    let report = client::ask_seqpacket(&world.path("web.sock"));
    is_inetd(&report, &daemon);
    assert_eq!(connection(&report, 0).kind, "seqpacket");
    daemon.stop();
}

#[test]
fn a_program_that_asks_for_it_gets_a_nonblocking_connection() {
    let world = World::new();
    let lines = "handoff: systemd\nnonblocking: true";
    let daemon = world.run(&yaml(WEB, "[$PROBE, puppet, $EVENTS]", lines));
    let _client = client::tcp(daemon.address("web")).expect("connect");
    assert!(world.puppet().report.fds[3].nonblocking);
    daemon.stop();
}

// Trap: "STDIN/STDOUT as socket: stray prints go to the client; keep fd 2 in the log" (FIELD §3.1).
#[test]
fn standard_output_goes_to_the_client_and_standard_error_to_the_log() {
    let world = World::new();
    let script = "read word; echo out $word; echo err $word >&2";
    let daemon = world.run(&yaml(WEB, &format!("[/bin/sh, -c, '{script}']"), INETD));
    let mut stream = client::tcp(daemon.address("web")).expect("connect");
    stream.write_all(b"hello\n").expect("write");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("read");
    assert_eq!(answer, "out hello\n");
    daemon.line(&["err hello"]);
    daemon.stop();
}

// --- Many --------------------------------------------------------------------------------------

#[test]
fn two_hundred_clients_at_a_time_have_each_their_own_process() {
    const CLIENTS: usize = 200;
    let world = World::new();
    let lines = format!("{INETD}\nmax_connections: none\naccept_rate: none");
    let daemon = world.run(&yaml(WEB, "[/bin/cat]", &lines));
    let address = daemon.address("web");
    let connect = |number| {
        let mut stream = client::tcp(address).expect("connect");
        writeln!(stream, "client {number}").expect("write");
        stream
    };
    let streams: Vec<TcpStream> = (0..CLIENTS).map(connect).collect();
    for (number, stream) in streams.iter().enumerate() {
        client::hear(stream, &format!("client {number}\n"));
    }
    assert_eq!(children(daemon.pid()).len(), CLIENTS);
    for stream in &streams {
        // cat sees the end of its input, and the client the end of cat.
        stream.shutdown(Shutdown::Write).expect("shutdown");
        client::sees_the_end(stream);
    }
    eventually("all are reaped", || children(daemon.pid()).is_empty());
    daemon.stop();
}

// Trap: "fd leak per spawn" (FIELD §3.1).
#[test]
fn connections_that_are_over_leave_nothing_behind() {
    const CLIENTS: u32 = 1000;
    let world = World::new();
    let lines = format!("{INETD}\naccept_rate: none");
    let daemon = world.run(&yaml(WEB, "[/bin/echo, hello]", &lines));
    let address = daemon.address("web");
    let connect = |count| {
        let streams = (0..count).map(|_| client::tcp(address).expect("connect"));
        for stream in streams.collect::<Vec<_>>() {
            client::hear(&stream, "hello\n");
            client::sees_the_end(stream);
        }
        eventually("all are reaped", || children(daemon.pid()).is_empty());
        settled(daemon.pid());
    };
    // As many at a time as later, for what is allocated once.
    connect(100);
    let before = (descriptors(daemon.pid()), resident_kib(daemon.pid()));
    for _ in 0..CLIENTS / 100 {
        connect(100);
    }
    assert_eq!(descriptors(daemon.pid()), before.0);
    let grown = resident_kib(daemon.pid()).saturating_sub(before.1);
    assert!(grown < 1024, "{grown} KiB more than before");
    daemon.stop();
}

// The client's own end of the connection is its process's affair; listend holds nothing of it.
#[test]
fn listend_keeps_no_descriptor_of_a_connection_that_its_process_has() {
    let world = World::new();
    let daemon = world.run(&yaml(WEB, PUPPET, INETD));
    let stream = client::tcp(daemon.address("web")).expect("connect");
    let mut puppet = world.puppet();
    assert_eq!(numbers(&puppet.report), [0, 1, 2]);
    settled(daemon.pid());
    // End of file at the client although listend lives: nobody else has the connection.
    puppet.tell("raise 9");
    client::sees_the_end(stream);
    daemon.stop();
}

// --- The end of a process ----------------------------------------------------------------------

#[test]
fn how_a_process_ends_is_no_matter_for_the_next_client() {
    let world = World::new();
    let lines = format!("{INETD}\nrestart: {{ backoff: 60s..60s, limit: 1 in 60s }}");
    let daemon = world.run(&yaml(WEB, PUPPET, &lines));
    let address = daemon.address("web");
    for end in ["exit 0", "exit 1", "raise 9", "raise 11", "exit 1"] {
        let stream = client::tcp(address).expect("connect");
        let mut puppet = world.puppet();
        puppet.tell(end);
        client::sees_the_end(stream);
    }
    eventually("all are reaped", || children(daemon.pid()).is_empty());
    daemon.stop();
}

// A child that is stopped is told of as one that has ended is (SIGCHLD).
#[test]
fn a_process_that_is_stopped_has_not_ended() {
    let world = World::new();
    let lines = format!("{INETD}\nmax_connections: 1");
    let daemon = world.run(&yaml(WEB, PUPPET, &lines));
    let address = daemon.address("web");
    let first = client::tcp(address).expect("connect");
    let mut puppet = world.puppet();
    let pid = puppet.report.pid;
    let second = client::tcp(address).expect("connect");
    for (signal, wanted) in [(Signal::SIGSTOP, 'T'), (Signal::SIGCONT, 'S')] {
        kill(pid, signal);
        eventually("it has the signal", || state(pid) == Some(wanted));
        settled(daemon.pid());
        assert_eq!(children(daemon.pid()), [pid], "{signal}");
    }
    puppet.tell("exit 0");
    client::sees_the_end(first);
    let mut next = world.puppet();
    next.tell("exit 0");
    client::sees_the_end(second);
    eventually("all are reaped", || children(daemon.pid()).is_empty());
    daemon.stop();
}

#[test]
fn listend_stops_with_connections_that_do_as_they_are_asked() {
    let world = World::new();
    let daemon = world.run(&yaml(WEB, "[/bin/cat]", INETD));
    let mut stream = client::tcp(daemon.address("web")).expect("connect");
    client::converse(&mut stream, "hello", "hello");
    daemon.stop();
    client::sees_the_end(stream);
}

#[test]
fn listend_stops_and_lets_a_connection_finish() {
    let world = World::new();
    let daemon = world.run(&yaml(WEB, PUPPET, INETD));
    let address = daemon.address("web");
    let mut stream = client::tcp(address).expect("connect");
    stream.write_all(b"hello").expect("write");
    let mut puppet = world.puppet();
    puppet.ask("drain");
    daemon.signal(Signal::SIGTERM);
    assert_eq!(puppet.listen().as_deref(), Some("term"));
    // Nobody is accepted any more.
    let late = client::tcp(address);
    assert_eq!(puppet.ask("read 0"), "hello");
    puppet.tell("exit 0");
    client::hear(stream, "HELLO");
    assert_eq!(daemon.status().code(), Some(0));
    assert!(world.no_puppet_is_waiting());
    drop(late);
}

#[test]
fn a_connection_that_does_not_stop_is_killed() {
    let world = World::new();
    let lines = format!("{INETD}\nstop_timeout: 200ms");
    let daemon = world.run(&yaml(WEB, PUPPET, &lines));
    let streams = [0, 1].map(|_| client::tcp(daemon.address("web")).expect("connect"));
    let mut puppets = world.puppets(2);
    for puppet in &mut puppets {
        puppet.ask("deaf");
    }
    daemon.stop();
    daemon.lines(&["app.", "still there after 200 ms", "SIGKILL"], 2);
    streams.into_iter().for_each(client::sees_the_end);
}

#[test]
fn a_connection_that_takes_too_long_is_stopped() {
    let world = World::new();
    let lines = format!("{INETD}\nconnection_timeout: 200ms\nstop_timeout: 100ms");
    let daemon = world.run(&yaml(WEB, PUPPET, &lines));
    let came = Instant::now();
    let streams = [0, 1].map(|_| client::tcp(daemon.address("web")).expect("connect"));
    let mut puppets = world.puppets(2);
    puppets[0].ask("deaf");
    streams.into_iter().for_each(client::sees_the_end);
    assert!(came.elapsed() >= Duration::from_millis(200));
    daemon.lines(&["app.", "connection_timeout", "200 ms"], 2);
    daemon.line(&["app.", "still there after 100 ms"]);
    eventually("both are reaped", || children(daemon.pid()).is_empty());
    daemon.stop();
}

// --- Programs that cannot be started -----------------------------------------------------------

// What was accepted cannot be put back, so it is kept, and nobody else is accepted meanwhile.
#[test]
fn a_connection_whose_program_is_missing_is_kept_until_it_is_there() {
    let world = World::new();
    let lines = format!("{INETD}\nrestart: {{ backoff: 10ms..20ms, limit: none }}");
    let daemon = world.run(&yaml(WEB, "[$DIR/late, puppet, $EVENTS]", &lines));
    let address = daemon.address("web");
    let mut first = client::tcp(address).expect("connect");
    first.write_all(b"first").expect("write");
    daemon.lines(&["app.", "executing the program", "connection is held"], 3);
    let connect = |number| {
        let mut stream = client::tcp(address).expect("connect");
        write!(stream, "other {number}").expect("write");
        stream
    };
    let others: Vec<TcpStream> = (0..5).map(connect).collect();
    daemon.lines(&["app.", "executing the program"], 10);
    assert_eq!(queued(address), 5);
    std::os::unix::fs::symlink(crate::harness::probe_path(), world.path("late")).expect("symlink");
    let mut served = Vec::new();
    for mut puppet in world.puppets(6) {
        served.push(puppet.ask("read 0"));
    }
    served.sort();
    assert_eq!(served[0], "first");
    assert!(served[1..].iter().all(|word| word.starts_with("other")));
    client::hear(first, "FIRST");
    for (number, stream) in others.into_iter().enumerate() {
        client::hear(stream, &format!("OTHER {number}"));
    }
    daemon.stop();
}

#[test]
fn listend_stops_while_a_connection_waits_for_its_program() {
    let world = World::new();
    let lines = format!("{INETD}\nrestart: {{ backoff: 60s..60s }}");
    let daemon = world.run(&yaml(WEB, "[$DIR/missing]", &lines));
    let stream = client::tcp(daemon.address("web")).expect("connect");
    daemon.line(&["app.", "executing the program"]);
    daemon.stop();
    client::sees_the_end(stream);
}

// --- `wait`: sockets without connections -------------------------------------------------------

/// A puppet that was started for a datagram has the socket itself at this descriptor, and the
/// datagram is still in it.
#[track_caller]
fn waits_at(puppet: &mut Puppet, number: usize, text: &str) {
    let report = &puppet.report;
    assert_eq!(report.argv[3], number.to_string(), "the placeholder");
    assert_eq!(numbers(report).len(), number.max(2) + 1);
    let fd = &report.fds[number];
    let socket = fd.socket.as_ref().expect("a socket");
    assert_eq!((socket.kind.as_str(), fd.nonblocking), ("dgram", false));
    assert_eq!(puppet.ask(&format!("read {number}")), text);
}

// man systemd.socket, Accept=: "ignored for datagram sockets and FIFOs where a single service unit
// unconditionally handles all incoming traffic"; `wait` in inetd.conf(5).
#[test]
fn a_datagram_socket_is_given_whole_to_one_process_at_a_time() {
    for (handoff, number) in [("inetd", 0), ("systemd", 3)] {
        let world = World::new();
        let lines = format!("handoff: {handoff}\nrestart: {{ backoff: 1ms, limit: none }}");
        let command = "[$PROBE, puppet, $EVENTS, '{fd:web}']";
        let daemon = world.run(&yaml("'udp://127.0.0.1:0'", command, &lines));
        let address = daemon.address("web").to_string();
        for (round, end) in ["exit 0", "exit 1", "raise 9", "exit 0"].iter().enumerate() {
            settled(daemon.pid());
            has_started(&daemon, "app", round);
            let answer = std::thread::scope(|scope| {
                let client = scope.spawn(|| network::send("udp", &address, "hello"));
                let mut puppet = world.puppet();
                waits_at(&mut puppet, number, "hello");
                // Another one comes while it runs: it is this process's as well.
                let sender = std::net::UdpSocket::bind("127.0.0.1:0").expect("bind");
                sender.send_to(b"more", &address).expect("send");
                assert_eq!(puppet.ask(&format!("read {number}")), "more");
                puppet.tell(end);
                puppet.wait_for_its_end();
                client.join().expect("the client")
            });
            assert_eq!(answer.as_deref(), Ok("HELLO"));
            eventually("it is reaped", || children(daemon.pid()).is_empty());
        }
        daemon.stop();
        assert!(world.no_puppet_is_waiting());
    }
}

#[test]
fn a_fifo_has_no_connections_either() {
    let world = World::new();
    let daemon = world.run(&yaml("'fifo:$DIR/web'", PUPPET, INETD));
    daemon.line(&["web", "listening on"]);
    let path = world.path("web");
    for text in ["hello", "again"] {
        network::send("fifo", path.to_str().expect("UTF-8"), text).expect("write");
        let mut puppet = world.puppet();
        assert_eq!(numbers(&puppet.report), [0, 1, 2]);
        assert_eq!(puppet.ask("read 0"), text);
        puppet.tell("exit 0");
        puppet.wait_for_its_end();
    }
    daemon.stop();
}
