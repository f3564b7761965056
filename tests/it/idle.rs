//! `idle_timeout`: what nobody uses is stopped from outside, and the next client starts it again.
//!
//! Where nothing is to happen, it is waited until it has happened several times to another worker of the
//! same daemon.

use crate::harness::activation::{has_started, starts};
use crate::harness::load::Load;
use crate::harness::reloading::{ask, reload, run};
use crate::harness::varlink::Varlink;
use crate::harness::{DEADLINE, Daemon, World, client, context_switches, network, settled};
use crate::survival::{BLOWS, guarded};
use serde_json::{Value, json};
use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::time::Instant;

const UNUSED: &str = "no client was connected or waited for";

/// So often the other worker is started and stopped.
const OFTEN: usize = 2;

/// A worker that is stopped in a second or two, whatever becomes of the others.
const CLOCK: &str = "
  clock: { command: [$PROBE, serve-app], listeners: [tick], activation: on-demand, idle_timeout: 1s }";

fn stops(daemon: &Daemon, worker: &str) -> usize {
    daemon.lines_so_far(&[&format!("{worker}: {UNUSED}")]).len()
}

#[track_caller]
fn is_stopped(daemon: &Daemon, worker: &str, count: usize) {
    daemon.lines(&[&format!("{worker}: {UNUSED}")], count);
}

/// HTTP/1.0, as the probe serves it.
fn request(mut stream: impl Read + Write) -> String {
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("write");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("read");
    assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");
    answer
}

/// Several times as long as `idle_timeout`: meanwhile this is done again and again.
#[track_caller]
fn for_a_while(daemon: &Daemon, mut meanwhile: impl FnMut()) {
    for _ in 0..OFTEN {
        let before = stops(daemon, "clock");
        // Until then it is the old process that may serve the next client.
        daemon.lines(&["clock.0: exited with"], before);
        request(client::tcp(daemon.address("tick")).expect("connect"));
        let deadline = Instant::now() + DEADLINE;
        while stops(daemon, "clock") == before {
            assert!(
                Instant::now() < deadline,
                "the clock goes on: {:#?}",
                daemon.lines_so_far(&[])
            );
            meanwhile();
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }
}

fn worker<'a>(status: &'a Value, name: &str) -> &'a Value {
    let workers = status["workers"].as_array().expect("a list");
    let found = workers.iter().find(|one| one["name"] == name);
    found.expect("it is there")
}

#[test]
fn each_kind_of_listener_is_seen_to_be_unused() {
    let world = World::new();
    let path = |name: &str| world.path(name).to_str().expect("UTF-8").to_owned();
    let inet = || format!("127.0.0.1:{}", crate::harness::free_port());
    let kinds = [
        ("tcp", "tcp://", inet()),
        ("mptcp", "mptcp://", inet()),
        ("unix", "unix:", path("stream")),
        ("unix-seqpacket", "unix-seqpacket:", path("seqpacket")),
        ("udp", "udp://", inet()),
        ("unix-dgram", "unix-dgram:", path("dgram")),
    ];
    let has_mptcp = Path::new("/proc/sys/net/mptcp/enabled").exists();
    let kinds = kinds
        .iter()
        .filter(|(kind, ..)| *kind != "mptcp" || has_mptcp);
    let (mut listeners, mut workers) = (String::new(), String::new());
    for (kind, scheme, address) in kinds.clone() {
        listeners += &format!("  {kind}: '{scheme}{address}'\n");
        workers += &format!(
            "  of-{kind}: {{ command: [$PROBE, puppet, $EVENTS], listeners: [{kind}], \
             activation: on-demand, idle_timeout: 1s }}\n"
        );
    }
    let daemon = world.run(&format!("listeners:\n{listeners}workers:\n{workers}"));
    daemon.lines(&["listening on"], kinds.clone().count());
    for round in 1..=OFTEN {
        // They run until they are stopped.
        let mut puppets = Vec::new();
        for (kind, _, address) in kinds.clone() {
            std::thread::scope(|scope| {
                let client = scope.spawn(|| network::send(kind, address, "hello"));
                let mut puppet = world.puppet();
                assert_eq!(puppet.ask("read 3"), "hello", "{kind}");
                client.join().expect("the client").expect("served");
                puppets.push(puppet);
            });
        }
        for (kind, ..) in kinds.clone() {
            is_stopped(&daemon, &format!("of-{kind}"), round);
        }
        for puppet in &mut puppets {
            puppet.wait_for_its_end();
        }
    }
    daemon.stop();
}

#[test]
fn whoever_is_connected_keeps_it_running() {
    let world = World::new();
    let daemon = world.run(&format!(
        "
listeners:
  tick: '127.0.0.1:0'
  tcp: '127.0.0.1:0'
  any: '0.0.0.0:0'
  path: 'unix:$DIR/path'
  name: 'unix:@listend-idle-{}'
  packets: 'unix-seqpacket:$DIR/packets'
workers:{CLOCK}
  of-tcp: {{ command: [$PROBE, puppet, $EVENTS], listeners: [tcp], activation: on-demand, idle_timeout: 1s }}
  of-any: {{ command: [$PROBE, puppet, $EVENTS], listeners: [any], activation: on-demand, idle_timeout: 1s }}
  of-path: {{ command: [$PROBE, puppet, $EVENTS], listeners: [path], activation: on-demand, idle_timeout: 1s }}
  of-name: {{ command: [$PROBE, puppet, $EVENTS], listeners: [name], activation: on-demand, idle_timeout: 1s }}
  of-packets: {{ command: [$PROBE, puppet, $EVENTS], listeners: [packets], activation: on-demand, idle_timeout: 1s }}
",
        std::process::id()
    ));
    let name = format!("listend-idle-{}", std::process::id());
    daemon.line(&["packets", "listening on"]);
    let mut any = daemon.address("any");
    any.set_ip([127, 0, 0, 1].into());
    // Each is accepted, and held by worker and client.
    let tcp = client::tcp(daemon.address("tcp")).expect("connect");
    let mut puppets = vec![world.puppet()];
    let wild = client::tcp(any).expect("connect");
    puppets.push(world.puppet());
    let path = client::unix(&world.path("path")).expect("connect");
    puppets.push(world.puppet());
    let abstract_one = client::abstract_unix(&name).expect("connect");
    puppets.push(world.puppet());
    let packets = client::unix_packets(&world.path("packets")).expect("connect");
    puppets.push(world.puppet());
    for puppet in &mut puppets {
        assert_eq!(puppet.ask("hold 3"), "hold");
    }
    let workers = ["of-tcp", "of-any", "of-path", "of-name", "of-packets"];
    for_a_while(&daemon, || {});
    for worker in workers {
        assert_eq!(stops(&daemon, worker), 0, "{worker}");
    }
    // They hang up; the workers do not notice, and the connections of TCP are as they were for them.
    drop((path, abstract_one, packets));
    for worker in &workers[2..] {
        is_stopped(&daemon, worker, 1);
    }
    assert_eq!((stops(&daemon, "of-tcp"), stops(&daemon, "of-any")), (0, 0));
    client::reset(tcp);
    client::reset(wild);
    for worker in &workers[..2] {
        is_stopped(&daemon, worker, 1);
    }
    daemon.stop();
}

#[test]
fn whoever_comes_and_goes_between_two_looks_counts() {
    let world = World::new();
    let daemon = world.run(&format!(
        "
listeners: {{ tick: '127.0.0.1:0', web: '127.0.0.1:0' }}
workers:{CLOCK}
  app: {{ command: [$PROBE, serve-app], listeners: [web], activation: on-demand, idle_timeout: 1s }}
"
    ));
    let address = daemon.address("web");
    for_a_while(&daemon, || {
        request(client::tcp(address).expect("connect"));
    });
    assert_eq!((stops(&daemon, "app"), starts(&daemon, "app")), (0, 1));
    is_stopped(&daemon, "app", 1);
    daemon.stop();
}

// Rule: who connects while it stops waits, and starts it again.
#[test]
fn ten_thousand_clients_at_the_moment_of_the_stop_are_all_served() {
    const ROUNDS: usize = 5;
    const CLIENTS: usize = 2000;
    let world = World::new();
    let daemon = world.run(
        "
listeners: { web: { address: ['127.0.0.1:0', 'unix:$DIR/web'], backlog: 4096 } }
workers:
  app:
    command: [$PROBE, serve-app]
    listeners: [web]
    activation: on-demand
    instances: 2
    idle_timeout: 1s
    trigger_limit: none
",
    );
    let addresses = daemon.addresses("web", 1);
    let path = world.path("web");
    for round in 1..=ROUNDS {
        // Those before may all have been served by what was ending, as this one would be.
        for index in 0..2 {
            let exits = format!("app.{index}: exited with");
            daemon.lines(&[&exits], stops(&daemon, "app"));
        }
        request(client::tcp(addresses[0]).expect("connect"));
        is_stopped(&daemon, "app", round);
        let loads = [
            Load::start(addresses[0], 100),
            Load::start(path.as_path(), 100),
        ];
        for load in loads {
            load.wait_for_answers(CLIENTS / 2);
            let counts = load.stop().counts;
            assert_eq!(counts.failed(), 0, "{counts:?}");
        }
    }
    daemon.stop();
}

#[test]
fn a_client_that_is_connected_costs_one_look_in_the_time() {
    const CLIENTS: u64 = 300;
    let world = World::new();
    let daemon = world.run(
        "
listeners: { web: '127.0.0.1:0' }
workers:
  app: { command: [$PROBE, serve-app], listeners: [web], activation: on-demand, idle_timeout: 1m }
",
    );
    let address = daemon.address("web");
    request(client::tcp(address).expect("connect"));
    let before = settled(daemon.pid());
    for _ in 0..CLIENTS {
        request(client::tcp(address).expect("connect"));
    }
    let woken = context_switches(daemon.pid()) - before;
    assert!(woken < CLIENTS / 10, "{woken} context switches");
    daemon.stop();
}

#[test]
fn a_worker_or_a_file_says_that_it_is_busy() {
    let world = World::new();
    let busy = world.write("busy", "");
    let daemon = world.run(&format!(
        "
listeners: {{ tick: '127.0.0.1:0', one: '127.0.0.1:0', two: '127.0.0.1:0' }}
workers:{CLOCK}
  says:
    command: [$PROBE, puppet, $EVENTS]
    listeners: [one]
    activation: on-demand
    idle_timeout: 1s
    notify_access: main
  file:
    command: [$PROBE, serve-app]
    listeners: [two]
    activation: on-demand
    idle_timeout: 1s
    idle_unless: {{ path: {} }}
",
        busy.display()
    ));
    let client = client::tcp(daemon.address("one")).expect("connect");
    let mut puppet = world.puppet();
    assert_eq!(puppet.ask("notify X_LISTEND_BUSY=1"), "notify");
    {
        let mut client = client;
        client.write_all(b"hello").expect("write");
        assert_eq!(puppet.ask("read 3"), "hello");
    }
    request(client::tcp(daemon.address("two")).expect("connect"));
    for_a_while(&daemon, || {});
    assert_eq!((stops(&daemon, "says"), stops(&daemon, "file")), (0, 0));
    assert_eq!(puppet.ask("notify X_LISTEND_BUSY=0"), "notify");
    fs::remove_file(busy).expect("remove");
    is_stopped(&daemon, "says", 1);
    is_stopped(&daemon, "file", 1);
    puppet.wait_for_its_end();
    daemon.stop();
}

#[test]
fn status_says_since_when_nobody_used_it() {
    let world = World::new();
    let yaml = |timeout: &str| {
        format!(
            "
listeners: {{ web: '127.0.0.1:0' }}
workers:
  app: {{ command: [$PROBE, serve-app], listeners: [web], activation: on-demand, idle_timeout: {timeout} }}
"
        )
    };
    let daemon = run(&world, &yaml("1h"));
    request(client::tcp(daemon.address("web")).expect("connect"));
    has_started(&daemon, "app", 1);
    // It takes effect without a restart.
    let told = reload(&world, &yaml("1s")).stdout;
    assert!(told.contains("idle_timeout 1h → 1s"), "{told}");
    is_stopped(&daemon, "app", 1);
    daemon.line(&["app.0", "exit status 0"]);
    let status = Varlink::connect(&world).ask("Status", json!({}));
    let app = worker(&status, "app");
    assert_eq!(app["state"], "waiting");
    let since = app["unused_since"].as_str().expect("a time");
    assert!(since.ends_with('Z'), "{since}");
    let shown = ask(&world, "status").expect_code(0).stdout;
    assert!(shown.contains("stopped without clients"), "{shown}");
    request(client::tcp(daemon.address("web")).expect("connect"));
    let status = Varlink::connect(&world).ask("Status", json!({}));
    assert_eq!(worker(&status, "app").get("unused_since"), None);
    let page = ask(&world, "metrics").expect_code(0).stdout;
    let wanted = "listend_worker_idle_stops_total{worker=\"app\"} 1";
    assert!(page.contains(wanted), "{page}");
    daemon.stop();
}

#[test]
fn another_daemon_goes_on_with_the_looks() {
    for blow in BLOWS {
        let world = World::new();
        let mut guarded = guarded(
            &world,
            "
listeners: { web: '127.0.0.1:0' }
workers:
  app: { command: [$PROBE, serve-app, --outlive], listeners: [web], activation: on-demand, idle_timeout: 2s }
",
        );
        let address = guarded.guard.address("web");
        for count in 1..=2 {
            request(client::tcp(address).expect("connect"));
            guarded.strike(blow);
            is_stopped(&guarded.guard, "app", count);
            guarded.guard.lines(&["app.0", "exit status 0"], count);
            guarded.strike(blow);
            let status = Varlink::connect(&world).ask("Status", json!({}));
            let app = worker(&status, "app");
            assert_eq!(app["state"], "waiting", "{blow:?}");
            assert!(app["unused_since"].is_string(), "{blow:?}: {app}");
        }
        guarded.guard.stop();
    }
}
