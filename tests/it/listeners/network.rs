//! Addresses that come later, interfaces, network namespaces, and listeners that may be missing.
//!
//! Everything happens in network namespaces of the tests' own.

use crate::harness::network::{Namespace, send};
use crate::harness::varlink::{self, Varlink};
use crate::harness::{Daemon, Start, World, client, eventually, free_port, reloading};
use serde_json::json;
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;

/// listend inside a namespace.
fn run_in(world: &World, namespace: &Namespace, yaml: &str) -> Daemon {
    world.run_with(yaml, |start: &mut Start| {
        start.through(namespace.words());
    })
}

fn net_of(pid: i32) -> u64 {
    let path = format!("/proc/{pid}/ns/net");
    std::fs::metadata(path).expect("its namespace").ino()
}

// Rule: "`network_namespace: /run/netns/blue` binds inside it, the daemon stays where it is".
#[test]
fn a_listener_is_bound_in_its_namespace_and_the_daemon_stays_outside() {
    let Some(blue) = Namespace::new() else {
        return;
    };
    let world = World::new();
    let port = free_port();
    let yaml = format!(
        "
listeners:
  inside: {{ address: '127.0.0.1:{port}', network_namespace: {} }}
  outside: 127.0.0.1:{port}
workers:
  app: {{ command: [$PROBE, serve], listeners: [inside, outside] }}
",
        blue.path().display()
    );
    // The same address twice, in two networks, is no conflict.
    let daemon = world.run(&yaml);
    daemon.line(&["app.0", "started"]);
    let outside = client::ask_tcp(format!("127.0.0.1:{port}").parse().unwrap());
    let inside = blue.send("tcp", &format!("127.0.0.1:{port}"), "?");
    let inside = inside.expect("a client inside is served");
    assert!(
        inside.contains(&format!("\"pid\":{}", outside.pid)),
        "{inside}"
    );
    let here = net_of(std::process::id() as i32);
    assert_eq!(net_of(daemon.pid()), here);
    assert_eq!(net_of(outside.pid), here, "and so does the worker");
    assert_ne!(std::fs::metadata(blue.path()).expect("it").ino(), here);
    daemon.stop();
}

/// What is said about a listener is so in its namespace, not in listend's.
#[test]
fn a_listener_is_diagnosed_in_its_namespace() {
    let Some(blue) = Namespace::new() else {
        return;
    };
    let world = World::new();
    let set = "echo 512 >/proc/sys/net/core/somaxconn; \
               echo 20000 30000 >/proc/sys/net/ipv4/ip_local_port_range";
    let mut inside = std::process::Command::new("ip");
    inside.args(["netns", "exec", blue.name(), "sh", "-c", set]);
    assert!(inside.status().expect("start ip").success());
    let yaml = |address: &str| {
        format!(
            "
listeners:
  it: {{ address: '{address}', backlog: 3000, network_namespace: {} }}
workers: {{ app: {{ command: [$PROBE, puppet, $EVENTS], listeners: [it] }} }}
",
            blue.path().display()
        )
    };
    let kinds = |json: &serde_json::Value, of: &str| -> Vec<String> {
        let all = json[of].as_array().expect("a list").iter();
        let kinds = all.map(|one| one["kind"].as_str().expect("a kind").to_owned());
        let mut kinds: Vec<String> = kinds.collect();
        kinds.sort();
        kinds
    };
    let json = world.check(&yaml("0.0.0.0:24250"), &["--json"]);
    let json = json.expect_code(0).json();
    let wanted = [
        "backlog-over-somaxconn",
        "ephemeral-port",
        "wildcard-address",
    ];
    assert_eq!(kinds(&json, "advice"), wanted, "{json:#}");
    let told = json["advice"].to_string();
    assert!(told.contains("only loopback now"), "{told}");

    let json = world.check(&yaml("198.51.100.7:24250"), &["--json"]);
    let json = json.expect_code(69).json();
    let causes = json["errors"][0]["causes"].to_string();
    assert!(causes.contains("has 127.0.0.1 (lo)"), "{causes}");

    let text = yaml("127.0.0.1:24251");
    let daemon = world.run(&text);
    let _puppet = world.puppet();
    let json = world.check(&text, &["--json"]).expect_code(0).json();
    let told = kinds(&json, "advice");
    assert!(told.contains(&"held-by-listend".to_owned()), "{json:#}");
    // As somebody else's it is named.
    let other = text.replace("127.0.0.1:24251", "0.0.0.0:24251");
    std::fs::write(world.path("other.yaml"), world.fill(&other)).expect("write");
    let words = ["check", "--json", "-c", "$DIR/other.yaml"];
    let json = world.finish(words).expect_code(69).json();
    assert_eq!(json["errors"][0]["holder"]["pid"], daemon.pid(), "{json:#}");
    daemon.stop();
}

/// An address may come in another namespace than listend's own.
#[test]
fn a_listener_waits_for_an_address_of_its_namespace() {
    let (Some(blue), Some(other)) = (Namespace::new(), Namespace::new()) else {
        return;
    };
    let world = World::new();
    blue.veth("one", "two");
    let yaml = format!(
        "
listeners:
  it: {{ address: '10.9.9.7:24242', wait_for_address: 1h, network_namespace: {} }}
workers: {{ app: {{ command: [$PROBE, puppet, $EVENTS], listeners: [it] }} }}
",
        blue.path().display()
    );
    let daemon = run_in(&world, &other, &yaml);
    daemon.line(&["listener it: waiting for 10.9.9.7:24242"]);
    blue.ip(&["address", "add", "10.9.9.7/24", "dev", "one"]);
    daemon.line(&["listener it: listening on 10.9.9.7:24242"]);
    let _puppet = world.puppet();
    daemon.stop();
}

/// What `listend status` says about a listener.
fn state_of(control: &mut Varlink, name: &str) -> String {
    let status = control.ask("Status", json!({ "name": name }));
    status["listeners"][0]["state"].to_string()
}

// ip-netns(8): one that is deleted lives on as long as somebody has a socket in it, and nobody finds it.
#[test]
fn a_listener_follows_a_namespace_that_is_made_again_under_its_name() {
    let Some(blue) = Namespace::new() else {
        return;
    };
    let world = World::new();
    let port = free_port();
    let yaml = format!(
        "
listeners:
  tcp: {{ address: '127.0.0.1:{port}', network_namespace: {path} }}
  udp: {{ address: 'udp://127.0.0.1:{port}', network_namespace: {path} }}
  abstract: {{ address: 'unix:@it', network_namespace: {path} }}
  file: {{ address: 'unix:$DIR/it', network_namespace: {path} }}
  outside: 127.0.0.1:{port}
  shards: {{ address: '127.0.0.2:{port}', network_namespace: {path} }}
workers:
  app: {{ command: [$PROBE, serve], listeners: [tcp, abstract] }}
  many: {{ command: [$PROBE, serve], listeners: [shards], instances: 2, distribute: shards }}
  stays: {{ command: [$PROBE, serve], listeners: [file, outside] }}
",
        path = blue.path().display()
    );
    let daemon = varlink::run(&world, &yaml);
    daemon.line(&["app.0", "started"]);
    let address = format!("127.0.0.1:{port}");
    blue.send("tcp", &address, "?").expect("served");
    let mut control = Varlink::connect(&world);
    // Workers have no part in it, so that it is not held against them how often it happens.
    for round in 1..=5 {
        blue.renew();
        let there = blue.path().display().to_string();
        daemon.lines(&["listener tcp", "left in a former", &there], round);
        blue.ip(&["link", "set", "lo", "up"]);
        for name in ["tcp", "udp", "abstract"] {
            daemon.lines(&[&format!("listener {name}"), "bound again"], round);
        }
        assert_eq!(state_of(&mut control, "tcp"), "\"listening\"");
        daemon.lines(&["listener shards", "bound again"], 2 * round);
        let shards = format!("127.0.0.2:{port}");
        for (scheme, address) in [("tcp", &*address), ("tcp", &shards), ("unix", "@it")] {
            // Who has answered and closed before it is asked may reset.
            eventually("its worker is there", || {
                blue.send(scheme, address, "?").is_ok()
            });
        }
    }
    assert!(daemon.lines_so_far(&["stopping all instances"]).is_empty());
    // Nothing else was touched: a path is found from every namespace.
    assert!(daemon.lines_so_far(&["stays.0", "exited"]).is_empty());
    assert!(daemon.lines_so_far(&["listener file", "again"]).is_empty());
    daemon.stop();
}

/// An address comes later than the namespace.
#[test]
fn an_address_of_a_namespace_that_is_made_again_is_waited_for() {
    let Some(blue) = Namespace::new() else {
        return;
    };
    let world = World::new();
    blue.ip(&["address", "add", "10.9.9.7/32", "dev", "lo"]);
    let yaml = format!(
        "
listeners:
  bound: {{ address: '10.9.9.7:24242', network_namespace: {path} }}
  late: {{ address: '10.9.9.8:24242', network_namespace: {path}, wait_for_address: 1h }}
workers: {{ app: {{ command: [$PROBE, serve], listeners: [bound] }} }}
",
        path = blue.path().display()
    );
    let daemon = varlink::run(&world, &yaml);
    daemon.line(&["app.0", "started"]);
    daemon.line(&["listener late: waiting for 10.9.9.8:24242"]);
    let mut control = Varlink::connect(&world);
    // Where there is no address at all, any can be bound (__inet_dev_addr_type in net/ipv4).
    daemon.pause();
    blue.renew();
    blue.ip(&["link", "set", "lo", "up"]);
    daemon.resume();
    daemon.line(&["listener bound", "left in a former", "cannot be repaired"]);
    assert_eq!(state_of(&mut control, "bound"), "\"damaged\"");
    for address in ["10.9.9.7/32", "10.9.9.8/32"] {
        blue.ip(&["address", "add", address, "dev", "lo"]);
    }
    daemon.line(&["listener late: listening on 10.9.9.8:24242"]);
    daemon.line(&["listener bound", "bound again"]);
    assert_eq!(state_of(&mut control, "bound"), "\"listening\"");
    eventually("its worker is there", || {
        blue.send("tcp", "10.9.9.7:24242", "?").is_ok()
    });
    daemon.stop();
}

/// Of a link that leads elsewhere nothing is told; a reload looks.
#[test]
fn a_reload_finds_that_the_path_leads_to_another_namespace() {
    let (Some(blue), Some(green)) = (Namespace::new(), Namespace::new()) else {
        return;
    };
    let world = World::new();
    let link = world.path("ns");
    std::os::unix::fs::symlink(blue.path(), &link).expect("a link");
    let daemon = varlink::run(
        &world,
        "
listeners: { it: { address: '127.0.0.1:24243', network_namespace: $DIR/ns } }
workers: { app: { command: [$PROBE, serve], listeners: [it] } }
",
    );
    daemon.line(&["app.0", "started"]);
    blue.send("tcp", "127.0.0.1:24243", "?").expect("served");
    let line = "listener `it`: 127.0.0.1:24243 would be bound again: another network namespace";
    let mut turns = [&green, &blue].into_iter().cycle().take(21);
    // Whatever is mounted meanwhile, such as a namespace of another test, has it look as well.
    let is_told = |namespace: &&Namespace| {
        std::fs::remove_file(&link).expect("remove");
        std::os::unix::fs::symlink(namespace.path(), &link).expect("a link");
        let would = reloading::ask(&world, "reload --dry-run").expect_code(0);
        let told = reloading::ask(&world, "reload").expect_code(0).stdout;
        would.stdout.contains(line) && told.contains(&line.replace("would be", "is"))
    };
    let there = turns.find(is_told).expect("nothing else looks each time");
    daemon.line(&["listener it", "bound again"]);
    eventually("its worker is there", || {
        there.send("tcp", "127.0.0.1:24243", "?").is_ok()
    });
    daemon.stop();
}

#[test]
fn a_namespace_that_is_not_there_is_an_error() {
    let world = World::new();
    let yaml = "listeners: { it: { address: '127.0.0.1:0', network_namespace: $DIR/nowhere } }";
    let finished = world.check(yaml, &[]);
    assert_ne!(finished.code, Some(0));
    assert!(finished.text().contains("nowhere"), "{finished:#?}");
}

// socket(7), SO_BINDTODEVICE.
#[test]
fn a_listener_takes_only_what_comes_in_on_its_device() {
    let (Some(here), Some(there)) = (Namespace::new(), Namespace::new()) else {
        return;
    };
    here.veth("one", "other");
    here.ip(&["link", "set", "other", "netns", there.name()]);
    here.ip(&["addr", "add", "10.9.8.1/24", "dev", "one"]);
    there.ip(&["addr", "add", "10.9.8.2/24", "dev", "other"]);
    there.ip(&["link", "set", "other", "up"]);
    let world = World::new();
    let daemon = run_in(
        &world,
        &here,
        "
listeners:
  it: { address: '0.0.0.0:8080', bind_to_device: one }
  any: 0.0.0.0:8081
workers: { app: { command: [$PROBE, serve], listeners: [it, any] } }
",
    );
    daemon.line(&["app.0", "started"]);
    here.send("tcp", "127.0.0.1:8081", "?").expect("any device");
    here.send("tcp", "127.0.0.1:8080", "?")
        .expect_err("not its device");
    there.send("tcp", "10.9.8.1:8080", "?").expect("its device");
    daemon.stop();
}

// Rule: "`wait_for_address: 30s`, which lets the other listeners and workers start and binds this
// one when the address appears (rtnetlink address events, not polling)".
#[test]
fn a_listener_waits_for_its_address_and_only_its_worker_waits_with_it() {
    let Some(namespace) = Namespace::new() else {
        return;
    };
    let world = World::new();
    let daemon = run_in(
        &world,
        &namespace,
        "
listeners:
  now: 127.0.0.1:8080
  late: { address: '10.9.8.7:8080', wait_for_address: 30s }
workers:
  prompt: { command: [$PROBE, puppet, $EVENTS], listeners: [now] }
  patient: { command: [$PROBE, puppet, $EVENTS], listeners: [late, now] }
",
    );
    daemon.line(&["late", "waiting for", "10.9.8.7"]);
    let mut prompt = world.puppet();
    assert_eq!(prompt.report.env["LISTEN_FDNAMES"], "now");
    prompt.tell("serve");
    namespace
        .send("tcp", "127.0.0.1:8080", "?")
        .expect("served");
    assert!(world.no_puppet_is_waiting(), "the other worker waits");
    // Another address is not the one.
    namespace.ip(&["addr", "add", "10.9.8.6/32", "dev", "lo"]);
    namespace
        .send("tcp", "127.0.0.1:8080", "?")
        .expect("served");
    assert!(daemon.lines_so_far(&["late", "listening on"]).is_empty());
    namespace.ip(&["addr", "add", "10.9.8.7/32", "dev", "lo"]);
    daemon.line(&["late", "listening on", "10.9.8.7:8080"]);
    let mut patient = world.puppet();
    assert_eq!(patient.report.env["LISTEN_FDNAMES"], "late:now");
    patient.tell("serve");
    namespace.send("tcp", "10.9.8.7:8080", "?").expect("served");
    daemon.stop();
}

// Event-driven: while it waits, the daemon sleeps.
#[test]
fn waiting_for_an_address_costs_nothing() {
    let Some(namespace) = Namespace::new() else {
        return;
    };
    let world = World::new();
    let daemon = run_in(
        &world,
        &namespace,
        "
listeners: { late: { address: '10.9.8.7:8080', wait_for_address: 1h } }
workers: { app: { command: [$PROBE, puppet, $EVENTS], listeners: [late] } }
",
    );
    daemon.line(&["late", "waiting for"]);
    // `ip netns exec` becomes listend, so the pid is its own.
    eventually("it sleeps", || {
        crate::harness::state(daemon.pid()) == Some('S')
    });
    let before = crate::harness::context_switches(daemon.pid());
    // No event shows that nothing happens.
    std::thread::sleep(std::time::Duration::from_millis(300));
    let after = crate::harness::context_switches(daemon.pid());
    assert!(after - before <= 1, "{before} {after}");
    daemon.stop();
}

// Rule: model.rs, Presence::WaitFor: "After this time it is an error, but it is still waited for."
#[test]
fn an_address_that_does_not_come_in_time_is_an_error_and_still_waited_for() {
    let Some(namespace) = Namespace::new() else {
        return;
    };
    let world = World::new();
    let daemon = run_in(
        &world,
        &namespace,
        "
listeners: { late: { address: '[fd00:9::7]:8080', wait_for_address: 100ms } }
workers: { app: { command: [$PROBE, puppet, $EVENTS], listeners: [late] } }
",
    );
    daemon.line(&["ERROR", "late", "fd00:9::7"]);
    assert!(daemon.is_running());
    namespace.ip(&["addr", "add", "fd00:9::7/64", "dev", "lo", "nodad"]);
    daemon.line(&["late", "listening on", "[fd00:9::7]:8080"]);
    world.puppet();
    daemon.stop();
}

#[test]
fn an_address_that_is_not_there_is_an_error_for_everybody_else() {
    let Some(namespace) = Namespace::new() else {
        return;
    };
    let world = World::new();
    let daemon = run_in(
        &world,
        &namespace,
        "
listeners: { it: '10.9.8.7:8080' }
workers: { app: { command: [$PROBE, puppet, $EVENTS], listeners: [it] } }
",
    );
    let text = daemon.finish().expect_code(69).text();
    assert!(
        text.contains("free_bind") || text.contains("wait_for_address"),
        "{text}"
    );
}

// ip(7), IP_FREEBIND.
#[test]
fn free_bind_binds_an_address_before_it_is_there() {
    let Some(namespace) = Namespace::new() else {
        return;
    };
    let world = World::new();
    let daemon = run_in(
        &world,
        &namespace,
        "
listeners:
  it: { address: '10.9.8.7:8080', free_bind: true }
  six: { address: '[fd00:9::7]:8080', free_bind: true }
workers: { app: { command: [$PROBE, serve], listeners: [it, six] } }
",
    );
    daemon.line(&["it", "listening on", "10.9.8.7:8080"]);
    daemon.line(&["six", "listening on", "[fd00:9::7]:8080"]);
    namespace.ip(&["addr", "add", "10.9.8.7/32", "dev", "lo"]);
    namespace.ip(&["addr", "add", "fd00:9::7/64", "dev", "lo", "nodad"]);
    namespace.send("tcp", "10.9.8.7:8080", "?").expect("served");
    namespace
        .send("tcp", "[fd00:9::7]:8080", "?")
        .expect("served");
    daemon.stop();
}

// Rule: "`optional: true` for a listener whose absence must not stop the start (reported, retried
// with backoff)".
#[test]
fn an_optional_listener_comes_when_it_can() {
    let world = World::new();
    let holder = TcpListener::bind("127.0.0.1:0").expect("bind");
    let busy = holder.local_addr().expect("an address");
    let port = free_port();
    let daemon = world.run(&format!(
        "
listeners:
  web: 127.0.0.1:{port}
  opt: {{ address: '{busy}', optional: true }}
workers:
  app: {{ command: [$PROBE, puppet, $EVENTS], listeners: [web] }}
  more: {{ command: [$PROBE, puppet, $EVENTS], listeners: [opt] }}
"
    ));
    daemon.line(&["opt", "cannot be bound", "retrying"]);
    let mut app = world.puppet();
    assert_eq!(app.report.env["LISTEN_FDNAMES"], "web");
    app.tell("serve");
    send("tcp", &format!("127.0.0.1:{port}"), "?").expect("served");
    assert!(
        daemon
            .lines_so_far(&["listener opt: listening on"])
            .is_empty()
    );
    drop(holder);
    daemon.line(&["opt", "listening on", &busy.to_string()]);
    let mut more = world.puppet();
    assert_eq!(more.report.env["LISTEN_FDNAMES"], "opt");
    more.tell("serve");
    send("tcp", &busy.to_string(), "?").expect("served");
    daemon.stop();
}

#[test]
fn check_tells_of_an_optional_listener_that_is_missing_and_succeeds() {
    let world = World::new();
    let holder = TcpListener::bind("127.0.0.1:0").expect("bind");
    let busy = holder.local_addr().expect("an address");
    let yaml = format!("listeners: {{ opt: {{ address: '{busy}', optional: true }} }}");
    let finished = world.check(&yaml, &[]).expect_code(0);
    assert!(finished.text().contains(&busy.to_string()), "{finished:#?}");
}
