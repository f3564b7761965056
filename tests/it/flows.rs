//! Flows of UDP that stay with the generation of the worker that they were seen by (`flows: sticky`).

mod quic;

use crate::harness::client::ask_udp;
use crate::harness::network::Namespace;
use crate::harness::reloading::{ask, reload, run, state_of};
use crate::harness::varlink::Varlink;
use crate::harness::{
    DEADLINE, Daemon, Report, World, eventually, exists, require_ipv6, require_root, require_tool,
    skip,
};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::{SocketAddr, UdpSocket};

/// One client, and the process that has answered it.
pub struct Client {
    socket: UdpSocket,
    pub pid: i32,
}

impl Client {
    pub fn new(address: SocketAddr) -> Client {
        let here = if address.is_ipv4() {
            "127.0.0.1:0"
        } else {
            "[::1]:0"
        };
        let socket = UdpSocket::bind(here).expect("bind");
        socket.connect(address).expect("connect");
        socket.set_read_timeout(Some(DEADLINE)).expect("timeout");
        let mut client = Client { socket, pid: 0 };
        client.pid = client.ask();
        client
    }

    /// The process that answers now.
    #[track_caller]
    pub fn ask(&self) -> i32 {
        self.socket.send(b"?").expect("send");
        let mut record = vec![0; 1 << 16];
        let length = self.socket.recv(&mut record).expect("an answer");
        let report: Report = serde_json::from_slice(&record[..length]).expect("a report");
        report.pid as i32
    }
}

#[track_caller]
pub fn all_stay(clients: &[Client]) {
    let moved: Vec<usize> = (0..clients.len())
        .filter(|at| clients[*at].ask() != clients[*at].pid)
        .collect();
    assert!(moved.is_empty(), "went elsewhere: {moved:?}");
}

pub fn yaml(listener: &str, worker: &str) -> String {
    format!(
        "listeners:\n  it: {{ address: 'udp://127.0.0.1:0', {listener} }}\n\
         workers:\n  app:\n    command: [$PROBE, serve]\n    listeners: [it]\n    \
         rollout: {{ min_ready: 0s }}\n    {worker}\n"
    )
}

const STICKY: &str = "flows: sticky, flow_timeout: 1s";

/// Whether the kernel lets this user do it.
pub fn may_steer(world: &World) -> bool {
    if !require_root() {
        return false;
    }
    let found = world.check(&yaml(STICKY, ""), &["--json"]);
    let refused = found.text().contains("flows-not-kept");
    if refused {
        skip("the kernel refuses BPF programs here");
    }
    !refused
}

fn restart(world: &World) {
    ask(world, "restart app").expect_code(0);
}

fn flows(world: &World) -> Vec<Value> {
    let status = Varlink::connect(world).ask("Status", json!({}));
    let flows = &status["listeners"][0]["sockets"][0]["flows"];
    flows.as_array().cloned().unwrap_or_default()
}

/// Until listend knows that a process has ended, packets of its flows go to its socket.
#[track_caller]
fn one_is_left(world: &World) {
    eventually("one generation is left", || flows(world).len() == 1);
}

fn clients(daemon: &Daemon, count: usize) -> Vec<Client> {
    let address = daemon.address("it");
    // What comes before that is not known until it comes again.
    daemon.line(&["app.0: started"]);
    (0..count).map(|_| Client::new(address)).collect()
}

// It was said that they are not kept any more, and they were.
#[test]
fn flows_are_kept_in_a_namespace_that_is_made_again() {
    let world = World::new();
    if !may_steer(&world) {
        return;
    }
    let Some(blue) = Namespace::new() else {
        return;
    };
    let inside = format!("{STICKY}, network_namespace: {}", blue.path().display());
    let daemon = run(&world, &yaml(&inside, "").replace(":0'", ":24245'"));
    daemon.line(&["app.0: started"]);
    blue.renew();
    blue.ip(&["link", "set", "lo", "up"]);
    daemon.line(&["listener it", "bound again"]);
    let is_known = |one: &Value| one["present"] == true && one["count"].as_u64() > Some(0);
    eventually("its worker is there, and its flow is known", || {
        blue.send("udp", "127.0.0.1:24245", "?").is_ok() && flows(&world).iter().any(is_known)
    });
    assert!(daemon.lines_so_far(&["not kept"]).is_empty());
    assert!(daemon.lines_so_far(&["cannot keep"]).is_empty());
    daemon.stop();
}

#[test]
fn each_flow_stays_with_its_generation_and_new_ones_go_to_the_new_one() {
    for address in ["udp://127.0.0.1:0", "udp://[::1]:0"] {
        let world = World::new();
        if !may_steer(&world) || address.contains('[') && !require_ipv6() {
            return;
        }
        let yaml = yaml("flows: sticky, flow_timeout: 60s", "stop_timeout: 300s");
        let daemon = run(&world, &yaml.replace("udp://127.0.0.1:0", address));
        let mut all = clients(&daemon, 200);
        for _ in 0..3 {
            restart(&world);
            all_stay(&all);
            let new = clients(&daemon, 20);
            let known: BTreeSet<i32> = all.iter().map(|client| client.pid).collect();
            assert!(new.iter().all(|client| !known.contains(&client.pid)));
            all.extend(new);
        }
        all_stay(&all);
        let shown = flows(&world);
        let count = |of: &Value| (of["generation"].as_u64(), of["count"].as_u64());
        let mut counts: Vec<_> = shown.iter().map(count).collect();
        assert_eq!(counts[0], (Some(4), Some(20)), "the present one is first");
        assert_eq!(shown[0]["present"], true);
        counts.sort_unstable();
        let counts: Vec<u64> = counts.into_iter().filter_map(|(_, count)| count).collect();
        assert_eq!(counts, [200, 20, 20, 20]);
        let text = ask(&world, "status").expect_code(0).stdout;
        assert!(
            text.contains("200 flows with app.0, generation 1"),
            "{text}"
        );
        daemon.stop();
    }
}

#[test]
fn an_old_generation_ends_when_its_flows_are_quiet() {
    let world = World::new();
    if !may_steer(&world) {
        return;
    }
    let daemon = run(&world, &yaml(STICKY, "stop_timeout: infinity"));
    let old = clients(&daemon, 3);
    restart(&world);
    daemon.line(&["app.0", "goes on with the flows that it has"]);
    // Seen for longer than its timeout, because one flow goes on.
    for _ in 0..6 {
        all_stay(&old[..1]);
        std::thread::sleep(std::time::Duration::from_millis(500));
    }
    assert!(exists(old[0].pid));
    eventually("it has ended", || !exists(old[0].pid));
    // What comes back is a new flow, from the moment at which it was asked to stop.
    assert_ne!(old[0].ask(), old[0].pid);
    one_is_left(&world);
    daemon.stop();
}

#[test]
fn an_old_generation_is_asked_to_stop_after_its_time_and_its_flows_go_on_elsewhere() {
    let world = World::new();
    if !may_steer(&world) {
        return;
    }
    let daemon = run(
        &world,
        &yaml("flows: sticky, flow_timeout: 1h", "stop_timeout: 1s"),
    );
    let old = clients(&daemon, 20);
    restart(&world);
    one_is_left(&world);
    assert!(!exists(old[0].pid));
    let new = clients(&daemon, 1);
    for client in &old {
        assert_eq!(client.ask(), new[0].pid);
    }
    daemon.stop();
}

#[test]
fn a_crash_gives_the_flows_and_the_queue_to_the_successor() {
    let world = World::new();
    if !may_steer(&world) {
        return;
    }
    let daemon = run(
        &world,
        &yaml("flows: sticky", "restart: { backoff: 100ms }"),
    );
    let old = clients(&daemon, 20);
    crate::harness::kill(old[0].pid, nix::sys::signal::Signal::SIGKILL);
    let now: BTreeSet<i32> = old.iter().map(Client::ask).collect();
    assert_eq!(now.len(), 1);
    assert!(!now.contains(&old[0].pid));
    daemon.stop();
}

#[test]
fn a_reload_adds_and_removes_it_on_a_socket_that_is_served() {
    let world = World::new();
    if !may_steer(&world) {
        return;
    }
    let shared = yaml("", "stop_timeout: 300s");
    let sticky = yaml("flows: sticky, flow_timeout: 60s", "stop_timeout: 300s");
    let daemon = run(&world, &shared);
    let before = clients(&daemon, 5);
    let told = reload(&world, &sticky).stdout;
    assert!(told.contains("flows shared → sticky"), "{told}");
    all_stay(&before);
    restart(&world);
    all_stay(&before);
    let after = clients(&daemon, 5);
    reload(&world, &sticky.replace("60s", "70s"));
    all_stay(&before);
    all_stay(&after);
    reload(&world, &shared);
    eventually("it is shared again", || flows(&world).is_empty());
    assert!(!exists(before[0].pid));
    for client in before.iter().chain(&after) {
        assert_eq!(client.ask(), after[0].pid);
    }
    // Nobody else may have the address.
    let address = daemon.address("it");
    let second = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None);
    let second = second.expect("a socket");
    second.set_reuse_port(true).expect("SO_REUSEPORT");
    second.bind(&address.into()).expect_err("it is taken");
    daemon.stop();
}

/// One is started with a socket of its own and is to share one when it has taken over, and the other way round.
#[test]
fn a_reload_adds_and_removes_it_while_an_instance_is_being_replaced() {
    let world = World::new();
    if !may_steer(&world) {
        return;
    }
    let sticky = "flows: sticky, flow_timeout: 60s";
    for (before, after) in [(sticky, ""), ("", sticky)] {
        let rolls = |listener| {
            yaml(listener, "stop_timeout: 300s").replace("min_ready: 0s", "min_ready: 2s")
        };
        let daemon = run(&world, &rolls(before));
        let old = clients(&daemon, 5);
        let now = json!({ "worker": "app", "no_wait": true });
        Varlink::connect(&world).ask("Restart", now);
        daemon.line(&["app.0: started"]);
        reload(&world, &rolls(after));
        daemon.line(&["generation 2 has taken over"]);
        eventually("the old one has ended", || !exists(old[0].pid));
        let new = Client::new(daemon.address("it"));
        assert_ne!(new.pid, old[0].pid);
        // Who has the socket is known.
        let shown = flows(&world);
        let known: Vec<_> = shown.iter().map(|one| one["generation"].as_u64()).collect();
        assert_eq!(known, vec![Some(2); usize::from(!after.is_empty())]);
        restart(&world);
        match after.is_empty() {
            true => eventually("it has ended", || !exists(new.pid)),
            false => all_stay(std::slice::from_ref(&new)),
        }
        daemon.stop();
    }
}

/// Detaches the program from the group if it is of the first generation, and answers with its pid.
const DETACHES: &str = "
import json, os, socket, sys
it = socket.socket(fileno=3)
if sys.argv[1] == '1':
    SO_DETACH_REUSEPORT_BPF = 68
    it.setsockopt(socket.SOL_SOCKET, SO_DETACH_REUSEPORT_BPF, 0)
while True:
    data, client = it.recvfrom(2048)
    it.sendto(b'%d' % os.getpid(), client)
";

/// The generations share the address, and others only if that is asked for.
#[test]
fn a_reload_that_changes_reuse_port_leaves_each_generation_its_socket() {
    let world = World::new();
    if !may_steer(&world) {
        return;
    }
    let with = |listener: &str| yaml(listener, "stop_timeout: 300s");
    const STICKY: &str = "flows: sticky, flow_timeout: 60s";
    let daemon = run(&world, &with(&format!("{STICKY}, reuse_port: true")));
    let old = clients(&daemon, 5);
    reload(&world, &with(STICKY));
    restart(&world);
    all_stay(&old);
    assert_ne!(Client::new(daemon.address("it")).pid, old[0].pid);
    reload(&world, &with("reuse_port: true"));
    eventually("it is shared again", || flows(&world).is_empty());
    let second = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None);
    let second = second.expect("a socket");
    second.set_reuse_port(true).expect("SO_REUSEPORT");
    second.bind(&daemon.address("it").into()).expect("as asked");
    daemon.stop();
}

/// Whoever takes it first after a reload has no place of an old instance to take in a rollout.
#[test]
fn a_reload_gives_the_listener_to_another_worker() {
    let world = World::new();
    if !may_steer(&world) {
        return;
    }
    let app = yaml("flows: sticky, flow_timeout: 60s", "stop_timeout: 300s");
    let other = app.replace("  app:", "  other:");
    let daemon = run(&world, &app);
    let old = clients(&daemon, 5);
    reload(&world, &other);
    let address = daemon.address("it");
    let new = Client::new(address);
    assert_ne!(new.pid, old[0].pid);
    eventually("the old one has ended", || !exists(old[0].pid));
    assert!(old.iter().all(|client| client.ask() == new.pid));
    assert_eq!(flows(&world).len(), 1);
    // Of several that are there for a moment one is left.
    let several = yaml("", "instances: 3").replace("  app:", "  other:");
    let several = several.replace("listeners: [it]", "listeners: []");
    for parallel in [1, 3] {
        reload(&world, &several);
        let rollout = format!("min_ready: 0s, parallel: {parallel}");
        reload(&world, &other.replace("min_ready: 0s", &rollout));
        let now = Client::new(address);
        eventually("one has it", || flows(&world).len() == 1);
        assert_eq!(now.ask(), now.pid);
    }
    // One that runs on gives it away, and one that runs already gets it.
    let both = |of_app: &str, of_other: &str| {
        let app = app.replace("listeners: [it]", of_app);
        let other = other.split("workers:\n").nth(1).unwrap_or_default();
        app + &other.replace("listeners: [it]", of_other)
    };
    let it = "listeners: [it]";
    for (of_app, of_other) in [("", it), (it, ""), ("", it)] {
        reload(&world, &both(of_app, of_other));
        let now = Client::new(address);
        eventually("one has it", || flows(&world).len() == 1);
        assert_eq!(now.ask(), now.pid);
        assert_eq!(Client::new(address).pid, now.pid);
    }
    // Nothing of it is left where nobody takes it.
    let none = both("", "").replace("listeners:\n  it: {", "listeners:\n  b: {");
    reload(
        &world,
        &none.replace(", flows: sticky, flow_timeout: 60s", ""),
    );
    let maps = || {
        let fds = std::fs::read_dir(format!("/proc/{}/fd", daemon.pid())).expect("fds");
        let targets = fds.filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok());
        targets
            .filter(|one| one.to_string_lossy().contains("bpf"))
            .count()
    };
    eventually("no map is left", || maps() == 0);
    daemon.stop();
}

/// What is rolled back has the listener of its definition before, which is another worker's by then.
#[test]
fn a_rollback_leaves_the_flows_to_the_worker_that_has_got_the_listener() {
    let world = World::new();
    if !may_steer(&world) {
        return;
    }
    let app = yaml(STICKY, "stop_timeout: 300s");
    let other = app.split("workers:\n").nth(1).unwrap_or_default();
    let other = other.replace("  app:", "  other:");
    let before = app.clone() + &other.replace("listeners: [it]", "");
    let daemon = run(&world, &before);
    let old = clients(&daemon, 1);
    let bad = app.replace("listeners: [it]", "").replace(
        "command: [$PROBE, serve]",
        "command: [sh, -c, 'sleep 0.3; exit 3']",
    );
    let bad = bad.replace("min_ready: 0s", "min_ready: 0s, watch: 20s");
    reload(&world, &(bad + &other));
    daemon.line(&["app: rolled back"]);
    eventually("app runs as before", || {
        state_of(&world, "workers", "app") == "degraded"
    });
    eventually("both have sockets of their own", || {
        flows(&world).len() == 2
    });
    let flows = flows(&world);
    assert_eq!(flows[0]["present"], true, "{flows:?}");
    assert_eq!(flows[0]["instance"], "other.0", "{flows:?}");
    let new = Client::new(daemon.address("it"));
    assert_ne!(new.pid, old[0].pid);
    daemon.stop();
}

#[test]
fn what_a_worker_has_detached_is_attached_again_for_the_next_generation() {
    let world = World::new();
    if !may_steer(&world) || require_tool("python3").is_none() {
        return;
    }
    let script = world.write("detaches.py", DETACHES);
    let command = format!("[python3, {}, '{{generation}}']", script.display());
    let text = yaml("flows: sticky, flow_timeout: 60s", "stop_timeout: 300s");
    let daemon = run(&world, &text.replace("[$PROBE, serve]", &command));
    let address = daemon.address("it");
    let pid = |client: &UdpSocket| {
        client.send(b"?").expect("send");
        let mut text = [0; 16];
        let length = client.recv(&mut text).expect("an answer");
        String::from_utf8_lossy(&text[..length]).into_owned()
    };
    let clients = |count| -> Vec<(UdpSocket, String)> {
        let one = |_| {
            let client = UdpSocket::bind("127.0.0.1:0").expect("bind");
            client.connect(address).expect("connect");
            client.set_read_timeout(Some(DEADLINE)).expect("timeout");
            let first = pid(&client);
            (client, first)
        };
        (0..count).map(one).collect()
    };
    // They are not seen: they are of a group that nobody steers.
    let unseen = clients(1);
    restart(&world);
    let second = clients(50);
    assert!(second.iter().all(|(_, first)| *first != unseen[0].1));
    restart(&world);
    for (client, first) in &second {
        assert_eq!(pid(client), *first);
    }
    daemon.stop();
}

#[test]
fn without_the_privilege_the_socket_is_shared_as_ever_and_check_says_why() {
    let world = World::new();
    if !require_root() || require_tool("setpriv").is_none() {
        return;
    }
    let without = [
        "setpriv",
        "--bounding-set=-bpf,-sys_admin",
        "--inh-caps=-bpf,-sys_admin",
    ];
    let yaml = yaml("flows: sticky", "stop_timeout: 300s");
    let path = world.write("check.yaml", &world.fill(&yaml));
    let words = ["check", path.to_str().expect("UTF-8")];
    let mut start = crate::harness::Start::new(words);
    start.through(without);
    let checked = world.start(start).finish().expect_code(0);
    let text = format!("{}{}", checked.stdout, checked.stderr);
    for words in ["flows-not-kept", "lacks CAP_BPF", "share the socket"] {
        assert!(text.contains(words), "{words}: {text}");
    }
    let daemon = world.run_with(&yaml, |start| {
        start.words_behind(["--control", "$DIR/control.sock"]);
        start.through(without);
    });
    daemon.line(&["cannot keep flows with their generation", "CAP_BPF"]);
    let address = daemon.address("it");
    let old = ask_udp(address).pid;
    restart(&world);
    // At once, not after its stop_timeout.
    eventually("the old one has ended", || !exists(old));
    assert_ne!(ask_udp(address).pid, old);
    assert_eq!(flows(&world), [] as [Value; 0]);
    daemon.stop();
}

#[test]
fn what_cannot_be_is_refused_with_the_reason() {
    let world = World::new();
    for (text, expected) in [
        (
            yaml(STICKY, "instances: 2"),
            "the 2 instances of worker `app` read from one socket",
        ),
        (
            yaml(STICKY, "").replace("min_ready: 0s", "order: stop-first"),
            "has ended, and its flows with it",
        ),
        (
            yaml("flow_timeout: 5s", ""),
            "`flow_timeout` means something for `flows: sticky`",
        ),
        (
            yaml("flows: sticky, connection_id_length: 8", ""),
            "means something for `flow_key: quic`",
        ),
        (yaml("flows: sticky, flow_timeout: 10ms", ""), "at least 1s"),
        (
            yaml("flows: sticky, multicast: 239.1.2.3", ""),
            "goes to every socket that has joined it",
        ),
        (
            yaml(STICKY, "").replace("udp://", ""),
            "`flows` is for udp and udplite",
        ),
        (
            format!(
                "{}  two: {{ command: [$PROBE, serve], listeners: [it] }}\n",
                yaml(STICKY, "")
            ),
            "a flow stays with one worker, and two take it",
        ),
    ] {
        let found = world.check(&text, &[]);
        assert!(
            found.text().contains(expected),
            "{expected}:\n{}",
            found.text()
        );
    }
}
