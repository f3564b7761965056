//! `activation: on-demand`: the worker starts at the first client, and again at the next one after
//! it has ended.

use crate::harness::activation::{has_started, race_with_idle_exits, starts};
use crate::harness::app::{self, PUPPET};
use crate::harness::network;
use crate::harness::{
    Daemon, Puppet, World, children, client, context_switches, eventually, exists, free_port, kill,
    settled,
};
use nix::sys::signal::Signal;
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

const QUICK: &str = "restart: { backoff: 1ms..5ms, limit: none }\ntrigger_limit: none";

/// A worker `app` that clients of `web` start, with these further lines.
fn yaml(command: &str, lines: &str) -> String {
    app::yaml(command, &format!("activation: on-demand\n{lines}"))
}

/// A client that has said hello.
#[track_caller]
fn hello(address: SocketAddr) -> TcpStream {
    let mut stream = client::tcp(address).expect("the queue takes a client");
    stream.write_all(b"hello").expect("write");
    stream
}

/// The puppet takes one client at descriptor 3 and answers it.
#[track_caller]
fn serves(puppet: &mut Puppet, client: TcpStream) {
    assert_eq!(puppet.ask("read 3"), "hello");
    client::hear(client, "HELLO");
}

#[track_caller]
fn ends(puppet: &mut Puppet, how: &str) {
    puppet.tell(how);
    puppet.wait_for_its_end();
}

/// Nothing runs, and listend waits.
#[track_caller]
fn rests(daemon: &Daemon) {
    eventually("the worker is reaped", || children(daemon.pid()).is_empty());
    settled(daemon.pid());
    assert!(children(daemon.pid()).is_empty(), "nobody asked for it");
}

// --- The start ---------------------------------------------------------------------------------

/// The name of a message queue, gone at the end of a test that fails.
struct Queue(String);

impl Drop for Queue {
    fn drop(&mut self) {
        let _ = network::send("mqueue-unlink", &self.0, "");
    }
}

// man systemd.socket: "For each socket unit, a matching service unit must exist, describing the
// service to start on incoming traffic on the socket"; any of the sockets will do.
#[test]
fn the_first_client_of_any_kind_of_listener_starts_the_worker() {
    let world = World::new();
    let queue = Queue(format!("/listend-{}-{}", std::process::id(), free_port()));
    let inet = || format!("127.0.0.1:{}", free_port());
    let path = |name: &str| world.path(name).to_str().expect("UTF-8").to_owned();
    let kinds = [
        ("tcp", "tcp://", inet()),
        ("unix", "unix:", path("stream")),
        ("unix-seqpacket", "unix-seqpacket:", path("seqpacket")),
        ("udp", "udp://", inet()),
        ("unix-dgram", "unix-dgram:", path("dgram")),
        ("fifo", "fifo:", path("fifo")),
        ("mqueue", "mqueue:", queue.0.clone()),
    ];
    let mut yaml = "listeners:\n".to_owned();
    for (kind, scheme, address) in &kinds {
        yaml += &format!("  {kind}: '{scheme}{address}'\n");
    }
    let names = kinds.clone().map(|(kind, _, _)| kind).join(", ");
    yaml += &format!(
        "workers:
  app: {{ command: {PUPPET}, listeners: [{names}], activation: on-demand }}
"
    );
    let daemon = world.run(&yaml);
    daemon.lines(&["listening on"], kinds.len());
    for (index, (kind, _, address)) in kinds.iter().enumerate() {
        rests(&daemon);
        has_started(&daemon, "app", index);
        let answer = std::thread::scope(|scope| {
            let client = scope.spawn(|| network::send(kind, address, "hello"));
            let mut puppet = world.puppet();
            assert_eq!(puppet.report.env["LISTEN_FDS"], kinds.len().to_string());
            let number = index + 3;
            assert_eq!(puppet.ask(&format!("read {number}")), "hello", "{kind}");
            ends(&mut puppet, "exit 0");
            client.join().expect("the client")
        });
        let wanted = if ["fifo", "mqueue"].contains(kind) {
            ""
        } else {
            "HELLO"
        };
        assert_eq!(answer.as_deref(), Ok(wanted), "{kind}");
    }
    rests(&daemon);
    assert!(world.no_puppet_is_waiting());
    daemon.lines(&["app.0", "exit status 0", "next client"], kinds.len());
    daemon.stop();
}

#[test]
fn a_client_starts_only_the_worker_of_its_listener() {
    let world = World::new();
    let daemon = world.run(&format!(
        "
listeners: {{ one: '127.0.0.1:0', two: '127.0.0.1:0', three: '127.0.0.1:0' }}
workers:
  first: {{ command: {PUPPET}, listeners: [one, two], activation: on-demand }}
  second: {{ command: {PUPPET}, listeners: [three], activation: on-demand }}
"
    ));
    let client = hello(daemon.address("two"));
    let mut puppet = world.puppet();
    assert_eq!(puppet.report.env["LISTEN_FDNAMES"], "one:two");
    assert_eq!(puppet.ask("read 4"), "hello");
    client::hear(client, "HELLO");
    settled(daemon.pid());
    assert_eq!(children(daemon.pid()), [puppet.pid()]);
    let client = hello(daemon.address("three"));
    let mut other = world.puppet();
    assert_eq!(other.report.env["LISTEN_FDNAMES"], "three");
    serves(&mut other, client);
    daemon.stop();
}

// The log says which client it was for.
// `check` looks whether somebody serves at a path, and does not come as a client to find out.
#[test]
fn to_check_the_configuration_of_what_runs_starts_nobody() {
    let world = World::new();
    let yaml = "
listeners: { web: 'unix:$DIR/web.sock', packets: 'unix-seqpacket:$DIR/packets.sock' }
workers:
  app: { command: [$PROBE, puppet, $EVENTS], listeners: [web, packets], activation: on-demand }
";
    let daemon = world.run(yaml);
    daemon.line(&["2 listeners", "bound"]);
    let checked = world.check(yaml, &[]);
    assert_eq!(checked.code, Some(0), "{}", checked.text());
    let text = checked.text();
    assert_eq!(text.matches("is already bound").count(), 2, "{text}");
    rests(&daemon);
    let client = client::unix(&world.path("web.sock")).expect("connect");
    let _puppet = world.puppet();
    drop(client);
    daemon.stop();
}

#[test]
fn the_log_names_worker_and_listener() {
    let world = World::new();
    let daemon = world.run(&yaml(PUPPET, ""));
    let address = daemon.address("web");
    let _client = hello(address);
    world.puppet();
    daemon.line(&["worker app", "client at web", &address.to_string()]);
    daemon.stop();
}

// Rule: "It is never in the data path".
#[test]
fn clients_of_a_worker_that_runs_do_not_wake_listend() {
    const CLIENTS: u64 = 100;
    let world = World::new();
    let daemon = world.run(&yaml("[$PROBE, serve]", ""));
    let address = daemon.address("web");
    let pid = client::ask_tcp(address).pid;
    let before = settled(daemon.pid());
    for _ in 0..CLIENTS {
        assert_eq!(client::ask_tcp(address).pid, pid);
    }
    let woken = context_switches(daemon.pid()) - before;
    assert!(woken < CLIENTS / 10, "{woken} context switches");
    daemon.stop();
}

#[test]
fn clients_that_come_during_the_start_are_all_served() {
    let world = World::new();
    let daemon = world.run(&yaml("[$PROBE, serve]", ""));
    let address = daemon.address("web");
    let clients: Vec<_> = (0..50).map(|_| client::tcp(address).unwrap()).collect();
    for stream in clients {
        client::read_report(stream).expect("a report");
    }
    has_started(&daemon, "app", 1);
    daemon.stop();
}

// --- The end, and the next client --------------------------------------------------------------

// Trap: "re-arm bugs" (FIELD §1.4, rustysd).
#[test]
fn the_next_client_starts_it_again_after_every_kind_of_end() {
    let ways = [
        "exit 0", "exit 3", "raise 9", "raise 11", "raise 6", "raise 15", "exit 0",
    ];
    let world = World::new();
    let daemon = world.run(&yaml(PUPPET, QUICK));
    let address = daemon.address("web");
    for (number, way) in ways.iter().enumerate() {
        rests(&daemon);
        has_started(&daemon, "app", number);
        let client = hello(address);
        let mut puppet = world.puppet();
        serves(&mut puppet, client);
        ends(&mut puppet, way);
    }
    rests(&daemon);
    assert!(world.no_puppet_is_waiting());
    daemon.lines(&["app.0", "the next client starts it again"], ways.len());
    daemon.stop();
}

#[test]
fn somebody_else_may_end_the_worker() {
    let world = World::new();
    let daemon = world.run(&yaml(PUPPET, QUICK));
    let address = daemon.address("web");
    for signal in [Signal::SIGKILL, Signal::SIGTERM, Signal::SIGKILL] {
        let client = hello(address);
        let mut puppet = world.puppet();
        kill(puppet.pid(), signal);
        puppet.wait_for_its_end();
        // The client still waits: it is the next one.
        let mut next = world.puppet();
        serves(&mut next, client);
        kill(next.pid(), Signal::SIGKILL);
        next.wait_for_its_end();
        rests(&daemon);
    }
    daemon.stop();
}

// After a crash the delay comes first, also for a client that waits already.
#[test]
fn a_client_that_waits_when_the_worker_crashes_is_served_after_the_delay() {
    let world = World::new();
    let lines = "restart: { backoff: 200ms..200ms, limit: none }";
    let daemon = world.run(&yaml(PUPPET, lines));
    let client = hello(daemon.address("web"));
    let mut puppet = world.puppet();
    let crashed = Instant::now();
    ends(&mut puppet, "exit 3");
    daemon.line(&["app.0", "exit status 3", "in 200 ms at the earliest"]);
    serves(&mut world.puppet(), client);
    assert!(crashed.elapsed() >= Duration::from_millis(200));
    daemon.stop();
}

#[test]
fn a_program_that_comes_later_serves_the_client_that_was_there_first() {
    let world = World::new();
    let daemon = world.run(&yaml("[$DIR/late, puppet, $EVENTS]", QUICK));
    let client = hello(daemon.address("web"));
    daemon.lines(&["app.0", "executing the program"], 2);
    std::os::unix::fs::symlink(crate::harness::probe_path(), world.path("late")).expect("symlink");
    let mut puppet = world.puppet();
    serves(&mut puppet, client);
    ends(&mut puppet, "exit 0");
    rests(&daemon);
    let client = hello(daemon.address("web"));
    serves(&mut world.puppet(), client);
    daemon.stop();
}

// Trap: "Client gone before activation (systemd#7172, wob PR#107): worker starts, accept gives
// EAGAIN, exits → crash loop; must not count as a failure if exit was clean" (FIELD §3.2).
#[test]
fn a_client_that_is_gone_before_it_was_accepted_is_no_failure() {
    let world = World::new();
    let daemon = world.run(&format!(
        "
listeners: {{ web: '127.0.0.1:0', app: 'unix:$DIR/app.sock' }}
workers:
  app:
    command: {PUPPET}
    listeners: [web, app]
    activation: on-demand
    restart: {{ backoff: 60s..60s, limit: 1 in 60s }}
"
    ));
    let address = daemon.address("web");
    for round in 1..=3 {
        daemon.pause();
        client::reset(client::tcp(address).expect("connect"));
        drop(client::unix(&world.path("app.sock")).expect("connect"));
        daemon.resume();
        let mut puppet = world.puppet();
        // What accept(2) and read(2) say of such a client is the kernel's affair.
        puppet.ask("read 3");
        puppet.ask("read 4");
        ends(&mut puppet, "exit 0");
        daemon.lines(&["exit status 0", "the next client starts it again"], round);
    }
    rests(&daemon);
    let client = hello(address);
    serves(&mut world.puppet(), client);
    let complaints = daemon.lines_so_far(&["at the earliest"]);
    assert!(complaints.is_empty(), "{complaints:#?}");
    daemon.stop();
}

// The client that came while the worker was ending is another one than it was started for.
#[test]
fn a_clean_exit_that_leaves_new_clients_behind_is_no_failure() {
    let world = World::new();
    let lines = "restart: { backoff: 60s..60s, limit: 1 in 60s }\ntrigger_limit: none";
    let daemon = world.run(&yaml(PUPPET, lines));
    let address = daemon.address("web");
    let mut client = hello(address);
    for _ in 0..10 {
        let mut puppet = world.puppet();
        let next = hello(address);
        serves(&mut puppet, client);
        ends(&mut puppet, "exit 0");
        client = next;
    }
    serves(&mut world.puppet(), client);
    daemon.stop();
}

// Each of its listeners is looked after, also the one whose client came while it ran.
#[test]
fn a_client_that_the_worker_left_at_another_listener_starts_it_again() {
    let world = World::new();
    let daemon = world.run(&format!(
        "
listeners: {{ one: '127.0.0.1:0', two: '127.0.0.1:0' }}
workers:
  app:
    command: {PUPPET}
    listeners: [one, two]
    activation: on-demand
    restart: {{ backoff: 1ms..5ms, limit: none }}
"
    ));
    for end in ["exit 0", "exit 1"] {
        let first = hello(daemon.address("one"));
        let mut puppet = world.puppet();
        let second = hello(daemon.address("two"));
        serves(&mut puppet, first);
        ends(&mut puppet, end);
        let mut puppet = world.puppet();
        assert_eq!(puppet.ask("read 4"), "hello");
        client::hear(second, "HELLO");
        ends(&mut puppet, end);
        rests(&daemon);
    }
    daemon.stop();
}

// What inetd's `wait` services and idle exits live from: the race at the end is the supervisor's.
#[test]
fn no_client_is_lost_to_a_worker_that_ends_when_it_is_idle() {
    const CLIENTS: u32 = 300;
    let workers = race_with_idle_exits(&World::new(), "127.0.0.1:0", CLIENTS);
    assert!(workers > CLIENTS as usize / 50, "{workers} workers");
}

#[test]
fn no_client_of_a_unix_socket_is_lost_either() {
    const CLIENTS: u32 = 100;
    let workers = race_with_idle_exits(&World::new(), "unix:$DIR/web.sock", CLIENTS);
    assert!(workers > CLIENTS as usize / 50, "{workers} workers");
}

// --- Pools -------------------------------------------------------------------------------------

/// The numbers that `{instance}` was for these puppets.
fn instances(puppets: &[Puppet]) -> Vec<String> {
    let mut numbers: Vec<String> = puppets.iter().map(|p| p.report.argv[3].clone()).collect();
    numbers.sort();
    numbers
}

#[test]
fn a_pool_starts_whole_at_the_first_client_and_again_when_all_have_ended() {
    let world = World::new();
    let lines = format!("instances: 4\n{QUICK}");
    let daemon = world.run(&yaml("[$PROBE, puppet, $EVENTS, '{instance}']", &lines));
    let address = daemon.address("web");
    rests(&daemon);
    for round in 1..=2 {
        let client = hello(address);
        let mut puppets = world.puppets(4);
        assert_eq!(instances(&puppets), ["0", "1", "2", "3"]);
        serves(&mut puppets[2], client);
        // A clean exit is not followed by another start while others run.
        let (last, others) = puppets.split_last_mut().expect("four");
        for puppet in others {
            ends(puppet, "exit 0");
        }
        let client = hello(address);
        eventually("three are reaped", || children(daemon.pid()).len() == 1);
        settled(daemon.pid());
        assert_eq!(children(daemon.pid()), [last.pid()]);
        serves(last, client);
        ends(last, "exit 0");
        rests(&daemon);
        has_started(&daemon, "app", 4 * round);
    }
    assert!(world.no_puppet_is_waiting());
    daemon.stop();
}

#[test]
fn one_of_a_pool_that_crashes_is_restarted_while_the_others_run() {
    let world = World::new();
    let lines = format!("instances: 3\n{QUICK}");
    let daemon = world.run(&yaml("[$PROBE, puppet, $EVENTS, '{instance}']", &lines));
    let client = hello(daemon.address("web"));
    let mut puppets = world.puppets(3);
    serves(&mut puppets[0], client);
    for end in ["exit 3", "raise 9"] {
        let mut crashed = puppets.remove(0);
        ends(&mut crashed, end);
        // Without a client.
        let next = world.puppet();
        assert_eq!(next.report.argv[3], crashed.report.argv[3]);
        puppets.push(next);
    }
    assert_eq!(instances(&puppets), ["0", "1", "2"]);
    assert!(puppets.iter().all(|puppet| exists(puppet.pid())));
    daemon.stop();
}

// --- Workers that do nothing, and limits -------------------------------------------------------

/// The first time nobody knows who waited before.
const MOST_STARTS: usize = 5;

/// How often it was started before it failed for the so manieth time.
fn starts_until(daemon: &Daemon, failure: usize) -> usize {
    let lines = daemon.lines_so_far(&["app.0: "]);
    let is_failure = |line: &String| line.contains("failed") && line.contains("clients wait");
    let runs = lines.split(is_failure).take(failure).flatten();
    runs.filter(|line| line.contains(": started")).count()
}

/// A program that ends at once is started so often and no more, and after the cool-down again, for
/// the client that still waits. Returns how often until it failed first.
fn ends_at_once(program: &str) -> usize {
    let world = World::new();
    std::os::unix::fs::symlink(program, world.path("app")).expect("symlink");
    let lines = "restart: { backoff: 10ms..50ms, limit: 3 in 60s, cool_down: 700ms }";
    let daemon = world.run(&yaml("[$DIR/app, puppet, $EVENTS]", lines));
    let client = hello(daemon.address("web"));
    daemon.line(&["app.0", "too many crashes: 4 within"]);
    daemon.line(&["app.0: failed", "clients wait", "after 700 ms"]);
    let before = context_switches(daemon.pid());
    daemon.lines(&["app.0: failed", "clients wait"], 2);
    let busy = context_switches(daemon.pid()) - before;
    // The cool-down may be over by now, and the next starts have begun: what counts is what stands before the failure.
    let (first, second) = (starts_until(&daemon, 1), starts_until(&daemon, 2));
    assert!(
        second - first <= MOST_STARTS,
        "{first} starts, {second} in all"
    );
    // Some for each start and one for each delay.
    let most = 40 * starts(&daemon, "app") as u64;
    assert!(busy < most, "{busy} context switches");
    std::os::unix::fs::symlink(crate::harness::probe_path(), world.path("new")).expect("symlink");
    std::fs::rename(world.path("new"), world.path("app")).expect("rename");
    serves(&mut world.puppet(), client);
    daemon.stop();
    first
}

// A program that returns 0 at once and takes nobody is one that fails, or every client would be a
// loop.
#[test]
fn a_worker_that_exits_cleanly_without_taking_anybody_fails_and_is_tried_again() {
    let starts = ends_at_once("/bin/true");
    assert!((4..=MOST_STARTS).contains(&starts), "{starts} starts");
}

#[test]
fn a_worker_that_exits_with_an_error_fails_and_is_tried_again() {
    assert_eq!(ends_at_once("/bin/false"), 4);
}

// Whether a message was read nobody can tell: what bounds the loop is the trigger limit.
#[test]
fn a_datagram_that_nobody_takes_is_no_endless_loop() {
    let world = World::new();
    let daemon = world.run(
        "
listeners: { it: 'udp://127.0.0.1:0' }
workers:
  app:
    command: [/bin/true]
    listeners: [it]
    activation: on-demand
    trigger_limit: 4 in 60s
",
    );
    let sender = std::net::UdpSocket::bind("127.0.0.1:0").expect("bind");
    let sent = sender.send_to(b"hello", daemon.address("it"));
    sent.expect("send");
    daemon.line(&["worker app", "trigger_limit, 4 in 60 s, reached;"]);
    settled(daemon.pid());
    assert_eq!(starts(&daemon, "app"), 4);
    daemon.stop();
}

// inetd's `wait` manner: one message a run. Those that wait look like the one that was served, byte
// by byte, and are as many.
#[test]
fn whoever_serves_one_message_a_run_does_not_fail() {
    let world = World::new();
    let queue = Queue(format!("/listend-{}-{}", std::process::id(), free_port()));
    let path = |name: &str| world.path(name).to_str().expect("UTF-8").to_owned();
    let kinds = [
        ("udp", "udp://", format!("127.0.0.1:{}", free_port())),
        ("unix-dgram", "unix-dgram:", path("dgram")),
        ("mqueue", "mqueue:", queue.0.clone()),
    ];
    for (kind, scheme, address) in kinds {
        let daemon = world.run(&format!(
            "
listeners: {{ it: '{scheme}{address}' }}
workers:
  app:
    command: {PUPPET}
    listeners: [it]
    activation: on-demand
    restart: {{ backoff: 60s..60s, limit: 1 in 60s }}
    trigger_limit: none
"
        ));
        daemon.line(&["listening on"]);
        let sender = std::net::UdpSocket::bind("127.0.0.1:0").expect("bind");
        let unix = std::os::unix::net::UnixDatagram::unbound().expect("a socket");
        let send = || match kind {
            // From one port, as a client with a heartbeat does.
            "udp" => assert_eq!(sender.send_to(b"beat", &address).expect("send"), 4),
            "unix-dgram" => assert_eq!(unix.send_to(b"beat", &address).expect("send"), 4),
            _ => assert_eq!(network::send(kind, &address, "beat").as_deref(), Ok("")),
        };
        send();
        for _ in 0..6 {
            let mut puppet = world.puppet();
            assert_eq!(puppet.ask("read 3"), "beat", "{kind}");
            send();
            ends(&mut puppet, "exit 0");
        }
        let mut puppet = world.puppet();
        assert_eq!(puppet.ask("read 3"), "beat", "{kind}");
        let complaints = daemon.lines_so_far(&["without accepting"]);
        assert!(complaints.is_empty(), "{kind}: {complaints:#?}");
        daemon.stop();
    }
}

// systemd's TriggerLimitIntervalSec= fails the unit for good; here it only slows down.
#[test]
fn the_trigger_limit_slows_starts_down_and_refuses_nobody() {
    // On a busy machine three starts and ends may take a second.
    const WINDOW: Duration = Duration::from_secs(2);
    const COUNT: usize = 2;
    let world = World::new();
    let lines = "restart: { limit: none }\ntrigger_limit: 2 in 2s";
    let daemon = world.run(&yaml(PUPPET, lines));
    let address = daemon.address("web");
    let before = settled(daemon.pid());
    let mut came = Vec::new();
    for number in 0..5_usize {
        // The start lies between these two times.
        came.push(Instant::now());
        let client = hello(address);
        let mut puppet = world.puppet();
        let served = Instant::now();
        if let Some(first) = number.checked_sub(COUNT) {
            let since = served - came[first];
            assert!(since >= WINDOW, "client {number} after {since:?}");
        }
        serves(&mut puppet, client);
        ends(&mut puppet, "exit 0");
        eventually("it is reaped", || children(daemon.pid()).is_empty());
    }
    daemon.line(&["worker app", "trigger_limit, 2 in 2 s, reached;"]);
    let busy = context_switches(daemon.pid()) - before;
    assert!(busy < 200, "{busy} context switches");
    daemon.stop();
}

// --- The end of listend ------------------------------------------------------------------------

#[test]
fn listend_stops_while_its_worker_waits_for_a_client() {
    let world = World::new();
    let daemon = world.run(&format!(
        "
listeners: {{ app: 'unix:$DIR/app.sock' }}
workers:
  app: {{ command: {PUPPET}, listeners: [app], activation: on-demand }}
"
    ));
    daemon.line(&["app", "listening on"]);
    daemon.stop();
    assert!(!world.path("app.sock").exists());
    assert!(world.no_puppet_is_waiting());
}

#[test]
fn listend_stops_when_a_client_comes_at_the_same_moment() {
    let world = World::new();
    let daemon = world.run(&yaml(PUPPET, ""));
    let address = daemon.address("web");
    daemon.pause();
    let client = hello(address);
    daemon.signal(Signal::SIGTERM);
    daemon.resume();
    assert_eq!(daemon.status().code(), Some(0));
    client::sees_the_end(client);
}

#[test]
fn listend_stops_while_its_worker_starts() {
    let world = World::new();
    let daemon = world.run(&yaml(PUPPET, ""));
    let client = hello(daemon.address("web"));
    eventually("there is a process", || !children(daemon.pid()).is_empty());
    daemon.stop();
    client::sees_the_end(client);
}

#[test]
fn listend_stops_during_the_delay_after_a_crash() {
    let world = World::new();
    let lines = "restart: { backoff: 60s..60s }";
    let daemon = world.run(&yaml("[$DIR/missing]", lines));
    let client = hello(daemon.address("web"));
    daemon.line(&["app.0", "in 60 s at the earliest"]);
    daemon.stop();
    client::sees_the_end(client);
}

#[test]
fn listend_stops_while_its_worker_serves() {
    let world = World::new();
    let daemon = world.run(&yaml(PUPPET, ""));
    let client = hello(daemon.address("web"));
    let mut puppet = world.puppet();
    puppet.ask("drain");
    daemon.signal(Signal::SIGTERM);
    assert_eq!(puppet.listen().as_deref(), Some("term"));
    // The worker may finish what it has.
    serves(&mut puppet, client);
    puppet.tell("exit 0");
    assert_eq!(daemon.status().code(), Some(0));
}

// --- Listeners that come and go ----------------------------------------------------------------

#[test]
fn an_optional_listener_starts_the_worker_once_it_is_there() {
    let world = World::new();
    let holder = TcpListener::bind("127.0.0.1:0").expect("bind");
    let busy = holder.local_addr().expect("an address");
    let daemon = world.run(&format!(
        "
listeners:
  web: 127.0.0.1:{}
  opt: {{ address: '{busy}', optional: true }}
workers:
  app: {{ command: {PUPPET}, listeners: [opt, web], activation: on-demand }}
",
        free_port()
    ));
    daemon.line(&["opt", "cannot be bound", "retrying"]);
    let client = hello(daemon.address("web"));
    let mut puppet = world.puppet();
    assert_eq!(puppet.report.env["LISTEN_FDNAMES"], "web");
    serves(&mut puppet, client);
    ends(&mut puppet, "exit 0");
    rests(&daemon);
    drop(holder);
    daemon.line(&["listener opt: listening on", &busy.to_string()]);
    rests(&daemon);
    let client = hello(busy);
    let mut puppet = world.puppet();
    assert_eq!(puppet.report.env["LISTEN_FDNAMES"], "opt:web");
    serves(&mut puppet, client);
    daemon.stop();
}

#[test]
fn a_listener_that_the_worker_shut_down_is_watched_again() {
    let world = World::new();
    let daemon = world.run(&yaml(PUPPET, QUICK));
    let address = daemon.address("web");
    let client = hello(address);
    let mut puppet = world.puppet();
    serves(&mut puppet, client);
    puppet.ask("shutdown");
    ends(&mut puppet, "exit 0");
    daemon.line(&["listener web", "shut down"]);
    rests(&daemon);
    let client = hello(address);
    serves(&mut world.puppet(), client);
    daemon.stop();
}

// unix(7): a socket that was shut down stays so, and another one takes its path.
#[test]
fn a_unix_socket_that_took_the_place_of_another_is_watched() {
    let world = World::new();
    let daemon = world.run(&format!(
        "
listeners: {{ app: 'unix:$DIR/app.sock' }}
workers:
  app:
    command: {PUPPET}
    listeners: [app]
    activation: on-demand
    restart: {{ backoff: 1ms..5ms, limit: none }}
"
    ));
    let path = world.path("app.sock");
    daemon.line(&["app", "listening on"]);
    let serve = || {
        let mut client = client::unix(&path).expect("connect");
        client.write_all(b"hello").expect("write");
        let mut puppet = world.puppet();
        assert_eq!(puppet.ask("read 3"), "hello");
        client::hear(client, "HELLO");
        puppet
    };
    let mut puppet = serve();
    // It may be stopped before it could answer: it has a socket that nobody can reach.
    puppet.tell("shutdown");
    daemon.line(&["listener app", "bound again"]);
    puppet.wait_for_its_end();
    rests(&daemon);
    // The same socket gets its path back, and whoever has it goes on.
    let mut puppet = serve();
    puppet.tell(&world.fill("unlink $DIR/app.sock"));
    daemon.line(&["listener app", "same socket"]);
    ends(&mut puppet, "exit 0");
    rests(&daemon);
    let mut client = client::unix(&path).expect("connect");
    client.write_all(b"hello").expect("write");
    assert_eq!(world.puppet().ask("read 3"), "hello");
    client::hear(client, "HELLO");
    daemon.stop();
}

// --- `handoff: inetd` --------------------------------------------------------------------------

// The classic `wait` service: inetd(8) hands the listening socket itself over. Only 1 and 2 are
// different: what a worker says by mistake goes to the log and not to a listener.
#[test]
fn with_inetd_the_only_listener_is_descriptor_0() {
    for activation in ["on-demand", "eager"] {
        let world = World::new();
        let daemon = world.run(&format!(
            "
listeners: {{ web: '127.0.0.1:0' }}
workers:
  app:
    command: [$PROBE, serve, '{{fd:web}}']
    listeners: [web]
    handoff: inetd
    activation: {activation}
"
        ));
        let report = client::ask_tcp(daemon.address("web"));
        assert_eq!(report.argv[2], "0");
        let numbers: Vec<i32> = report.fds.iter().map(|fd| fd.number).collect();
        assert_eq!(numbers, [0, 1, 2], "{activation}");
        let socket = report.fds[0].socket.as_ref().expect("a socket");
        assert!(socket.listening && !report.fds[0].nonblocking);
        assert!(report.fds.iter().all(|fd| !fd.cloexec));
        let log = std::fs::read_link(format!("/proc/{}/fd/2", daemon.pid())).expect("its log");
        assert_eq!(report.fds[2].target, log.to_str().expect("UTF-8"));
        assert!(report.fds[1].socket.is_none());
        let left = report.env.keys().filter(|name| name.starts_with("LISTEN_"));
        assert_eq!(left.count(), 0, "{:#?}", report.env);
        daemon.stop();
    }
}
