//! Errors up front: everything that cannot be bound is reported at once, and nothing has started.

use crate::harness::{
    Start, World, client, free_port, is_root, require_ipv6, require_tool, sysctl,
};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};

/// EX_UNAVAILABLE of sysexits.h: a listener could not be bound.
pub(super) const UNBOUND: i32 = 69;

pub(super) fn errors(json: &Value) -> &Vec<Value> {
    json["errors"].as_array().expect("a list of errors")
}

fn advice_kinds(json: &Value) -> Vec<String> {
    let advice = json["advice"].as_array().expect("a list of advice");
    let kinds = advice
        .iter()
        .map(|one| one["kind"].as_str().expect("a kind").to_owned());
    kinds.collect()
}

/// An address of TEST-NET-3 (RFC 5737), which no machine has.
const ELSEWHERE: &str = "203.0.113.7";

// Rule: "A failure is reported once and completely, before any worker starts: every listener
// that failed, each with YAML file, line and column (… with the source line and a caret)".
#[test]
fn all_bad_listeners_are_reported_with_their_places_and_nothing_starts() {
    let world = World::new();
    let holder = TcpListener::bind("127.0.0.1:0").expect("bind");
    let held = holder.local_addr().expect("an address").port();
    let _live = UnixListener::bind(world.path("live.sock")).expect("bind");
    let free = free_port();
    let yaml = format!(
        "listeners:
  good: 127.0.0.1:{free}
  held: 127.0.0.1:{held}
  path: unix:$DIR/made/good.sock
  live: unix:$DIR/live.sock
  elsewhere: {ELSEWHERE}:8080
workers:
  app: {{ command: [$PROBE, touch, $DIR/marker], listeners: [good, held, path, live, elsewhere] }}
"
    );
    let finished = world.run(&yaml).finish().expect_code(UNBOUND);
    let file = world.path("listend.yaml");
    for (line, column, listener, code) in [
        (3, 9, "held", "EADDRINUSE"),
        (5, 9, "live", ""),
        (6, 14, "elsewhere", "EADDRNOTAVAIL"),
    ] {
        let place = format!("{}:{line}:{column}: error:", file.display());
        let said = finished
            .stderr
            .lines()
            .find(|said| said.starts_with(&place));
        let said = said.unwrap_or_else(|| panic!("no {place} in {finished:#?}"));
        assert!(said.contains(listener) && said.contains(code), "{said}");
    }
    assert_eq!(
        finished.stderr.matches(": error:").count(),
        3,
        "{finished:#?}"
    );
    let carets = finished
        .stderr
        .lines()
        .filter(|line| line.trim_end().ends_with("^^^^"));
    assert_eq!(carets.count(), 3, "{finished:#?}");
    assert!(!world.path("marker").exists());
    assert!(!world.path("made/good.sock").exists());
    assert!(world.path("live.sock").exists());
    TcpListener::bind(("127.0.0.1", free)).expect("the good one is free again");
    drop(holder);
}

// Rule: the order of what is reported is that of the file, also where so many are bound that it is done side by side.
#[test]
fn of_a_thousand_listeners_those_that_fail_are_reported_in_the_order_of_the_file() {
    let world = World::new();
    let ports: Vec<u16> = (0..10).map(|_| free_port()).collect();
    let address = |index: usize| {
        let port = ports[index % ports.len()];
        format!("127.0.99.{}:{port}", 1 + index / ports.len())
    };
    let held = [2, 11, 13, 499, 500, 998];
    let holders = held.map(|index| TcpListener::bind(address(index)).expect("bind"));
    let mut yaml = "listeners:\n".to_owned();
    for index in 0..1000 {
        yaml += &format!("  l{index}: {}\n", address(index));
    }
    yaml += "workers:\n  app: { command: [$PROBE, touch, $DIR/marker], listeners: [l0] }\n";
    let finished = world.run(&yaml).finish().expect_code(UNBOUND);
    let file = format!("{}:", world.path("listend.yaml").display());
    let places = finished
        .stderr
        .lines()
        .filter_map(|line| line.strip_prefix(&file));
    let errors = places.filter(|line| line.contains(": error:"));
    let lines: Vec<usize> = errors
        .map(|line| line.split(':').next().and_then(|line| line.parse().ok()))
        .map(|line| line.expect("a line"))
        .collect();
    assert_eq!(lines, held.map(|index| index + 2), "{finished:#?}");
    assert!(!world.path("marker").exists());
    drop(holders);
    let daemon = world.run(&yaml);
    daemon.line(&["1000 listeners", "bound"]);
    for index in 0..1000 {
        std::net::TcpStream::connect(address(index)).expect("somebody listens");
    }
    daemon.stop();
}

// Rule: "`--json` on `check` gives the same as data", and its shape.
#[test]
fn check_gives_the_same_as_json_with_the_holder() {
    let world = World::new();
    let tcp = TcpListener::bind("127.0.0.1:0").expect("bind");
    let udp = UdpSocket::bind("127.0.0.1:0").expect("bind");
    let _live = UnixListener::bind(world.path("live.sock")).expect("bind");
    let _dgram = UnixDatagram::bind(world.path("dgram.sock")).expect("bind");
    let name = format!("listend-test-holder-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).expect("an address");
    let _abstract = UnixListener::bind_addr(&address).expect("bind");
    let yaml = format!(
        "listeners:
  tcp: {}
  udp: udp://{}
  live: unix:$DIR/live.sock
  dgram: unix-dgram:$DIR/dgram.sock
  abstract: unix:@{name}
workers:
  app: {{ command: [$PROBE, serve], listeners: [tcp, udp, live, dgram, abstract] }}
",
        tcp.local_addr().expect("an address"),
        udp.local_addr().expect("an address"),
    );
    let finished = world.check(&yaml, &["--json"]).expect_code(UNBOUND);
    let json = finished.json();
    let keys: Vec<_> = json.as_object().expect("an object").keys().collect();
    assert!(keys.contains(&&"errors".to_owned()) && keys.contains(&&"advice".to_owned()));
    let errors = errors(&json);
    assert_eq!(errors.len(), 5, "{json:#}");
    let user = nix::unistd::User::from_uid(nix::unistd::geteuid()).expect("a user");
    let user = user.map_or_else(|| nix::unistd::geteuid().to_string(), |user| user.name);
    let dir = world.dir().display();
    let expected = [
        ("tcp", tcp.local_addr().unwrap().to_string(), 2, 8),
        ("udp", udp.local_addr().unwrap().to_string(), 3, 8),
        ("live", format!("{dir}/live.sock"), 4, 9),
        ("dgram", format!("{dir}/dgram.sock"), 5, 10),
        ("abstract", format!("@{name}"), 6, 13),
    ];
    for (error, (listener, address, line, column)) in errors.iter().zip(expected) {
        assert_eq!(error["listener"], listener, "{json:#}");
        let kind = error["kind"].as_str().expect("a kind");
        let kinds: &[&str] = match listener {
            "live" | "dgram" => &["live-socket", "EADDRINUSE"],
            _ => &["EADDRINUSE"],
        };
        assert!(kinds.contains(&kind), "{listener}: {kind}");
        let written = error["address"].as_str().expect("an address");
        assert!(written.ends_with(&address), "{listener}: {written}");
        assert_eq!(error["file"], world.path("listend.yaml").to_str().unwrap());
        assert_eq!(
            (&error["line"], &error["column"]),
            (&line.into(), &column.into()),
            "{error:#}"
        );
        assert!(
            error["message"].is_string() && error["hint"].is_string(),
            "{error:#}"
        );
        let holder = &error["holder"];
        assert_eq!(holder["pid"], std::process::id(), "{error:#}");
        assert_eq!(holder["user"], user.as_str(), "{error:#}");
        assert!(
            holder["command"].as_str().is_some_and(|c| !c.is_empty()),
            "{error:#}"
        );
    }
}

#[test]
fn the_address_as_written_is_the_one_in_the_json() {
    let world = World::new();
    let holder = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = holder.local_addr().expect("an address").to_string();
    let yaml = format!("listeners: {{ web: '{address}' }}");
    let json = world.check(&yaml, &["--json"]).expect_code(UNBOUND).json();
    assert_eq!(errors(&json)[0]["address"], address.as_str());
}

// Rule: "EADDRNOTAVAIL: the addresses this machine has, and `free_bind` if the address comes
// later" (the latter once there is such a key).
#[test]
fn an_address_of_another_machine_is_answered_with_those_of_this_one() {
    let world = World::new();
    let yaml = format!("listeners: {{ web: '{ELSEWHERE}:8080' }}");
    let finished = world.check(&yaml, &["--json"]).expect_code(UNBOUND);
    let error = errors(&finished.json())[0].clone();
    assert_eq!(error["kind"], "EADDRNOTAVAIL");
    assert!(error.to_string().contains("127.0.0.1"), "{error:#}");
    assert!(error.get("holder").is_none(), "{error:#}");
}

// Rule: "EACCES below `net.ipv4.ip_unprivileged_port_start`: the ways to get the privilege."
#[test]
fn a_privileged_port_without_the_privilege_is_answered_with_the_ways_to_get_it() {
    let start = sysctl("net/ipv4/ip_unprivileged_port_start");
    if start < 2 {
        return crate::harness::skip("every port is open to everybody here");
    }
    if is_root() && require_tool("setpriv").is_none() {
        return;
    }
    let world = World::new();
    let file = world.write("listend.yaml", "listeners: { web: '127.0.0.1:1' }");
    let words = ["check", "--json", "-c", file.to_str().expect("UTF-8")];
    let mut command = Start::new(words);
    if is_root() {
        // Root without capabilities is nobody special (capabilities(7)); it may still read the
        // program wherever it was built.
        command.through(["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--"]);
    }
    let finished = world.start(command).finish().expect_code(UNBOUND);
    let error = errors(&finished.json())[0].clone();
    assert_eq!(error["kind"], "EACCES", "{error:#}");
    let text = error.to_string();
    let ways = [
        "ip_unprivileged_port_start",
        "CAP_NET_BIND_SERVICE",
        "cap_net_bind_service",
    ];
    assert!(ways.iter().any(|way| text.contains(way)), "{error:#}");
}

// It was "invalid argument (EINVAL)", and nothing else.
#[test]
fn an_owner_that_the_user_namespace_does_not_have_is_told() {
    let world = World::new();
    let alone = ["unshare", "--user", "--map-root-user"];
    let tried = std::process::Command::new(alone[0])
        .args(&alone[1..])
        .arg("true")
        .output();
    if !tried.is_ok_and(|tried| tried.status.success()) {
        crate::harness::skip("needs user namespaces");
        return;
    }
    let yaml = "listeners: { web: { address: 'unix:$DIR/web.sock', owner: daemon } }";
    let daemon = world.run_with(yaml, |start| {
        start.through(alone);
    });
    let said = daemon.finish().expect_code(UNBOUND).stderr;
    assert!(said.contains("cannot set owner and group"), "{said}");
    assert!(said.contains("has no id in the user namespace"), "{said}");
}

#[test]
fn a_folder_that_cannot_be_made_is_named() {
    let world = World::new();
    world.write("file", "");
    let yaml = "listeners: { app: 'unix:$DIR/file/app.sock' }";
    let error = world.check(yaml, &["--json"]).expect_code(UNBOUND).json()["errors"][0].clone();
    assert_eq!(error["kind"], "ENOTDIR", "{error:#}");
}

// Rule: "`check` exits 0 with advice, 78/69 with errors, and leaves nothing bound and no unix path
// behind."
#[test]
fn check_leaves_nothing_behind() {
    let world = World::new();
    let stale = world.path("stale.sock");
    drop(UnixListener::bind(&stale).expect("bind"));
    let before = fs::metadata(&stale).expect("the socket").ino();
    let yaml = "
listeners:
  web: 127.0.0.1:0
  new: unix:$DIR/new.sock
  deep: unix:$DIR/a/b/deep.sock
  stale: unix:$DIR/stale.sock
workers:
  app: { command: [$PROBE, touch, $DIR/marker], listeners: [web, new, deep, stale] }
";
    let finished = world.check(yaml, &["--json"]).expect_code(0);
    let json = finished.json();
    assert!(errors(&json).is_empty(), "{json:#}");
    assert!(!world.path("new.sock").exists());
    assert!(!world.path("a").exists(), "check changes nothing");
    assert!(!world.path("marker").exists());
    let after = fs::metadata(&stale).expect("check changes nothing").ino();
    assert_eq!(before, after);
    assert!(
        advice_kinds(&json).contains(&"stale-socket".to_owned()),
        "{json:#}"
    );
}

#[test]
fn check_of_a_good_file_says_so_to_people() {
    let world = World::new();
    let yaml = "
listeners: { web: '127.0.0.1:0' }
workers: { app: { command: [$PROBE, serve], listeners: [web] } }
";
    let finished = world.check(yaml, &[]).expect_code(0);
    assert!(!finished.text().contains("error"), "{finished:#?}");
}

// Rule: "`--no-bind`: static only".
#[test]
fn check_without_binding_does_not_see_who_holds_an_address() {
    let world = World::new();
    let holder = TcpListener::bind("127.0.0.1:0").expect("bind");
    let yaml = format!(
        "listeners: {{ web: '{}' }}",
        holder.local_addr().expect("an address")
    );
    world.check(&yaml, &["--no-bind"]).expect_code(0);
}

// Rule: "Advice is never an error", and each kind has a stable code.
#[test]
fn advice_tells_what_works_but_may_surprise() {
    let world = World::new();
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").expect("the range");
    let first: u32 = range
        .split_whitespace()
        .next()
        .and_then(|n| n.parse().ok())
        .expect("a port");
    let reserved = fs::read_to_string("/proc/sys/net/ipv4/ip_local_reserved_ports");
    let ephemeral = first + 1234;
    let over = sysctl("net/core/somaxconn") + 1;
    let yaml = format!(
        "listeners:
  privileged: 127.0.0.1:81
  ephemeral: 127.0.0.1:{ephemeral}
  registered: 127.0.0.1:5432
  wildcard: 0.0.0.0:{}
  backlog: {{ address: '127.0.0.1:{}', backlog: {over} }}
  elsewhere: {ELSEWHERE}:{}
  unused: 127.0.0.1:{}
workers:
  app:
    command: [$DIR/no-such-program]
    listeners: [privileged, ephemeral, registered, wildcard, backlog, elsewhere]
  idle: {{ command: [$PROBE, serve] }}
",
        free_port(),
        free_port(),
        free_port(),
        free_port()
    );
    let finished = world.check(&yaml, &["--no-bind", "--json"]).expect_code(0);
    let json = finished.json();
    let found: Vec<(String, String)> = json["advice"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|one| {
            let about = [&one["listener"], &one["worker"]];
            let about = about.iter().find_map(|name| name.as_str()).unwrap_or("");
            (
                one["kind"].as_str().expect("a kind").to_owned(),
                about.to_owned(),
            )
        })
        .collect();
    let mut wanted = vec![
        ("registered-port", "registered"),
        ("wildcard-address", "wildcard"),
        ("backlog-over-somaxconn", "backlog"),
        ("address-not-here", "elsewhere"),
        ("unused-listener", "unused"),
        ("command-not-found", "app"),
        ("no-listeners", "idle"),
    ];
    if sysctl("net/ipv4/ip_unprivileged_port_start") > 81 {
        wanted.push(("privileged-port", "privileged"));
    }
    if reserved.is_ok_and(|ports| ports.trim().is_empty()) {
        wanted.push(("ephemeral-port", "ephemeral"));
    }
    for (kind, about) in wanted {
        let one = (kind.to_owned(), about.to_owned());
        assert!(found.contains(&one), "no {one:?} in {json:#}");
    }
    let ephemeral = json["advice"]
        .as_array()
        .unwrap()
        .iter()
        .find(|one| one["kind"] == "ephemeral-port");
    if let Some(one) = ephemeral {
        assert!(
            one.to_string().contains("ip_local_reserved_ports"),
            "{one:#}"
        );
    }
}

// Rule: "each kind has a stable code and can be silenced".
#[test]
fn advice_can_be_silenced_for_one_listener_and_for_all() {
    let world = World::new();
    let listener = "listeners:
  a: { address: '0.0.0.0:0', silence: [wildcard-address, unused-listener] }
  b: { address: '0.0.0.0:0', silence: [unused-listener] }
";
    let json = world.check(listener, &["--json"]).expect_code(0).json();
    assert_eq!(advice_kinds(&json), ["wildcard-address"], "{json:#}");
    assert_eq!(json["advice"][0]["listener"], "b");
    let all = format!("{listener}silence: [wildcard-address]\n");
    let json = world.check(&all, &["--json"]).expect_code(0).json();
    assert_eq!(advice_kinds(&json), [""; 0], "{json:#}");
}

// Rule: "An address held by the listend that already runs is no error (that is how people check
// before a reload): it says so."
#[test]
fn check_beside_the_running_daemon_is_no_error() {
    let world = World::new();
    let port = free_port();
    let daemon = world.run(&format!(
        "
listeners: {{ web: '127.0.0.1:{port}', app: 'unix:$DIR/app.sock' }}
workers: {{ app: {{ command: [$PROBE, serve], listeners: [web, app] }} }}
"
    ));
    let pid = client::ask_tcp(daemon.address("web")).pid;
    let file = world.path("listend.yaml");
    let words = ["check", "--json", "-c", file.to_str().expect("UTF-8")];
    let json = world.finish(words).expect_code(0).json();
    let kinds = advice_kinds(&json);
    assert!(kinds.contains(&"held-by-listend".to_owned()), "{json:#}");
    assert_eq!(client::ask_unix(&world.path("app.sock")).pid, pid);
    // Whoever starts it again wants its changes.
    let run = [
        "run",
        "--control",
        "none",
        "-c",
        file.to_str().expect("UTF-8"),
    ];
    let again = world.finish(run).expect_code(UNBOUND);
    let hint = format!("(pid {}): `listend reload` applies changes", daemon.pid());
    assert!(again.stderr.contains(&hint), "{again:#?}");
    daemon.stop();
}

/// The same port on another address of the configuration is a change, which the daemon itself does not
/// stand in the way of; others do.
#[test]
fn check_of_a_changed_address_tells_the_daemon_from_others() {
    let world = World::new();
    let port = free_port();
    let yaml = |address: &str| {
        format!(
            "
listeners: {{ web: '{address}:{port}' }}
workers: {{ app: {{ command: [sleep, '1000'], listeners: [web] }} }}
"
        )
    };
    let daemon = world.run_with(&yaml("127.0.0.1"), |start| {
        start.words_behind(["--control", "$DIR/control.sock"]);
    });
    daemon.line(&["started, pid"]);
    let reload = ["reload", "--control", "$DIR/control.sock"];
    let file = world.write("listend.yaml", &yaml("0.0.0.0"));
    let check = ["check", "--json", "-c", file.to_str().expect("UTF-8")];
    let json = world.finish(check).expect_code(0).json();
    let advice = json["advice"].as_array().expect("a list of advice");
    let held = advice.iter().find(|one| one["kind"] == "held-by-listend");
    let held = held.expect("advice").to_string();
    let has = format!("is bound to 127.0.0.1:{port}");
    assert!(held.contains(&has) && !held.contains("already"), "{held}");

    let other = TcpListener::bind(("127.0.0.2", port)).expect("bind");
    let hint = format!("stop process {}, or choose", std::process::id());
    let json = world.finish(check).expect_code(UNBOUND).json();
    let errors = errors(&json);
    assert_eq!(errors.len(), 1, "{json:#}");
    let said = errors[0]["hint"].as_str().expect("a hint");
    assert!(said.contains(&hint), "{said}");
    let refused = world.finish(reload).expect_code(1);
    assert!(refused.stderr.contains(&hint), "{refused:#?}");
    let causes = refused.stderr.matches("cause: ").count();
    assert_eq!(causes, 1, "{refused:#?}");
    drop(other);
    world.finish(reload).expect_code(0);
    daemon.stop();
}

/// Issue: "`listend check` … show asked and effective values".
#[test]
fn check_shows_what_became_of_each_option() {
    let world = World::new();
    let yaml = "
listeners:
  web: { address: '127.0.0.1:0', keep_alive: true, receive_buffer: 64K }
  plain: '127.0.0.1:0'
workers: { app: { command: [$PROBE, serve], listeners: [web, plain] } }
";
    let text = world.check(yaml, &[]).expect_code(0).stdout;
    let row = text.lines().find(|line| line.contains("receive_buffer"));
    let words: Vec<&str> = row.expect("a row").split_whitespace().collect();
    // socket(7): "The kernel doubles this value".
    assert_eq!(
        words,
        ["web", "127.0.0.1:0", "receive_buffer", "65536", "131072"]
    );
    let json = world.check(yaml, &["--json"]).expect_code(0).json();
    let options = json["options"].as_array().expect("a list");
    assert_eq!(options.len(), 2, "{json:#}");
    assert_eq!(options[0]["listener"], "web");
    let keys: Vec<&str> = options
        .iter()
        .filter_map(|o| o["option"].as_str())
        .collect();
    assert_eq!(keys, ["receive_buffer", "keep_alive"]);
}

/// A mistake in the configuration does not hide which addresses are taken.
#[test]
fn mistakes_and_taken_addresses_are_told_in_one_run() {
    let world = World::new();
    let holder = TcpListener::bind("127.0.0.1:0").expect("bind");
    let port = holder.local_addr().expect("an address").port();
    let yaml = format!(
        "
listeners: {{ a: '127.0.0.1:{port}', b: '198.51.100.7:4481', c: '198.51.100.8:nothing' }}
workers: {{ app: {{ command: [$PROBE, serve], listeners: [a, b], user: nobdy-at-all }} }}
"
    );
    let json = world.check(&yaml, &["--json"]).expect_code(78).json();
    let mut kinds: Vec<_> = errors(&json)
        .iter()
        .map(|one| one["kind"].as_str().expect("a kind").to_owned())
        .collect();
    kinds.sort();
    let wanted = ["EADDRINUSE", "EADDRNOTAVAIL", "bad-address", "unknown-user"];
    assert_eq!(kinds, wanted, "{json:#}");
    assert_eq!(
        errors(&json)[0]["holder"]["pid"],
        std::process::id(),
        "{json:#}"
    );
    let run = ["run", "--control", "none", "-c", "$DIR/listend.yaml"];
    let run = world.finish(run).expect_code(78);
    for kind in ["EADDRINUSE", "EADDRNOTAVAIL", "nobdy-at-all"] {
        assert!(run.stderr.contains(kind), "{run:#?}");
    }
    let only = world.check(&yaml, &["--json", "--no-bind"]);
    assert_eq!(errors(&only.expect_code(78).json()).len(), 2);
}

/// What is wrong with an option is shown at its key, not at the address.
#[test]
fn a_failure_of_a_key_is_placed_at_the_key() {
    let world = World::new();
    let yaml = "
listeners:
  a:
    address: 127.0.0.1:0
    bind_to_device: no-such-device0
  b:
    address: 127.0.0.1:0
    network_namespace: $DIR/nowhere
  c:
    address: 127.0.0.1:0
    backlog: 2000000000
";
    let json = world.check(yaml, &["--json"]).expect_code(UNBOUND).json();
    let lines: Vec<_> = errors(&json)
        .iter()
        .map(|one| one["line"].clone())
        .collect();
    assert_eq!(lines, [5, 8], "{json:#}");
    let advice = json["advice"].as_array().expect("a list");
    let backlog = advice
        .iter()
        .find(|one| one["kind"] == "backlog-over-somaxconn");
    assert_eq!(backlog.expect("advice")["line"], 11, "{json:#}");
}

/// A range of ports is written once, and gets one piece of advice.
#[test]
fn a_range_of_ports_gets_one_piece_of_advice() {
    let world = World::new();
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range");
    let range = range.expect("the range");
    let low: u16 = range.split_whitespace().next().unwrap().parse().unwrap();
    let (first, last) = (low + 7000, low + 7049);
    let yaml = format!("listeners: {{ pool: '127.0.0.1:{first}-{last}' }}");
    let json = world
        .check(&yaml, &["--json", "--no-bind"])
        .expect_code(0)
        .json();
    let advice = json["advice"].as_array().expect("a list").iter();
    let ephemeral = advice.filter(|one| one["kind"] == "ephemeral-port");
    let messages: Vec<_> = ephemeral.map(|one| one["message"].to_string()).collect();
    assert_eq!(messages.len(), 1, "{messages:#?}");
    let ports = format!("ports {first}-{last} are");
    assert!(messages[0].contains(&ports), "{messages:#?}");
}

// Clients went to the other one, and nobody said so.
#[test]
fn who_shares_an_address_by_so_reuseport_is_named() {
    let world = World::new();
    let other = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let other = other.expect("a socket");
    other.set_reuse_port(true).expect("SO_REUSEPORT");
    let any = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    other.bind(&any.into()).expect("bind");
    other.listen(8).expect("listen");
    let address = other.local_addr().expect("an address");
    let address = address.as_socket().expect("of the internet").to_string();
    let with = |options: &str| {
        format!(
            "silence: ephemeral-port\n\
             listeners: {{ web: {{ address: '{address}'{options} }} }}\n\
             workers: {{ app: {{ command: [$PROBE, puppet, $EVENTS, app], listeners: [web] }} }}\n"
        )
    };
    let yaml = with(", reuse_port: true");
    for options in [&["--json"][..], &["--json", "--no-bind"]] {
        let json = world.check(&yaml, options).expect_code(0).json();
        assert_eq!(advice_kinds(&json), ["shared-address"], "{json:#}");
        let message = json["advice"][0]["message"].as_str().expect("text");
        let pid = format!("(pid {}, user ", std::process::id());
        assert!(
            message.contains(&pid) && message.contains(&address),
            "{message}"
        );
    }
    let daemon = world.run(&yaml);
    daemon.line(&["advice:", &address, "[shared-address]"]);
    let _puppet = world.puppet();
    // Whose sockets are these of the listend that runs the configuration, that one is no other.
    drop(other);
    let json = world.check(&yaml, &["--json"]).expect_code(0).json();
    assert_eq!(advice_kinds(&json), [""; 0], "{json:#}");
    daemon.stop();
}

// It named a newer kernel, which has it no more than this one.
#[test]
fn an_option_that_mptcp_does_not_have_is_told_with_what_does() {
    if !require_ipv6() {
        return;
    }
    let world = World::new();
    let yaml = "listeners:\n  web:\n    address: mptcp://[::1]:0\n    ip_tos: 16\n";
    let json = world.check(yaml, &["--json"]).json();
    let Some(error) = errors(&json).first() else {
        return crate::harness::skip("this kernel has it");
    };
    if error["message"]
        .as_str()
        .is_some_and(|text| !text.contains("IPV6_TCLASS"))
    {
        return crate::harness::skip("no MPTCP here");
    }
    assert_eq!(error["line"], 4, "{error:#}");
    let hint = error["hint"].as_str().expect("a hint");
    assert!(hint.contains("tcp://"), "{hint}");
}

// They are in each other's way, so that it was taken for the one that is bound.
#[test]
fn check_tells_tcp_from_mptcp_at_the_running_daemon() {
    let stream = socket2::Type::STREAM;
    let protocol = Some(socket2::Protocol::MPTCP);
    if socket2::Socket::new(socket2::Domain::IPV4, stream, protocol).is_err() {
        return crate::harness::skip("no MPTCP");
    }
    let port = free_port();
    let yaml = |scheme: &str| {
        format!(
            "listeners: {{ web: '{scheme}127.0.0.1:{port}' }}\n\
             workers: {{ app: {{ command: [sleep, '1000'], listeners: [web] }} }}\n"
        )
    };
    for (runs, wanted) in [("", "mptcp"), ("mptcp://", "tcp")] {
        let world = World::new();
        let daemon = world.run(&yaml(runs));
        daemon.line(&["started, pid"]);
        let file = world.path("listend.yaml");
        let check = ["check", "--json", "-c", file.to_str().expect("UTF-8")];
        let held = || {
            let json = world.finish(check).expect_code(0).json();
            let advice = json["advice"].as_array().expect("a list of advice");
            let held = advice.iter().find(|one| one["kind"] == "held-by-listend");
            held.expect("advice")["message"]
                .as_str()
                .expect("text")
                .to_owned()
        };
        assert!(held().contains("is already bound"), "{}", held());
        world.write("listend.yaml", &yaml(&format!("{wanted}://")));
        let told = held();
        let other = if wanted == "tcp" { "mptcp" } else { "tcp" };
        let is_other = told.contains(&format!("is bound to {other} 127.0.0.1:{port}"));
        assert!(is_other && !told.contains("already"), "{told}");
        daemon.stop();
    }
}

/// So many unix sockets, and a worker for the first.
fn many_paths(count: usize) -> String {
    let listeners: String = (0..count)
        .map(|one| format!("  s{one}: unix:$DIR/many/{one}.sock\n"))
        .collect();
    format!(
        "silence: unused-listener
listeners:
  pipe: fifo:$DIR/many/pipe
{listeners}workers:
  app: {{ command: [$PROBE, puppet, $EVENTS], listeners: [s0] }}
"
    )
}

// Rule: "nothing stays bound". bind(2) has made the file when open(2) finds no descriptor for a handle on it.
#[test]
fn listeners_that_are_too_many_leave_no_path_and_tell_the_limit() {
    // The last one with too few descriptors for anything beside the listeners.
    for limit in [40, 50, 70] {
        let world = World::new();
        let daemon = world.run_with(&many_paths(60), |start| {
            let shell = format!("ulimit -n {limit}; exec \"$0\" \"$@\"");
            start.through(["sh", "-c", &shell]);
        });
        let finished = daemon.finish().expect_code(UNBOUND);
        let hint = "LimitNOFILE=512 in the systemd unit";
        let told = finished.stderr.matches(hint).count();
        assert_eq!(told, finished.stderr.matches("(EMFILE)").count());
        assert!(told > 0, "{finished:#?}");
        assert!(!world.path("many").exists(), "{limit}: {finished:#?}");
    }
}

// Rule: "at most a quarter". What is reserved for starts is not what the listeners have taken already.
#[test]
fn listeners_may_take_most_of_the_descriptors() {
    let world = World::new();
    let daemon = world.run_with(&many_paths(60), |start| {
        start.through(["sh", "-c", "ulimit -n 85; exec \"$0\" \"$@\""]);
    });
    let _started = world.puppet();
    // And a reload gives some up.
    world.write("listend.yaml", &many_paths(10));
    daemon.signal(Signal::SIGHUP);
    daemon.line(&["the reload is complete"]);
    let left = fs::read_dir(world.path("many")).expect("a folder").count();
    assert!(left <= 2 * 10 + 1, "{left}");
    daemon.stop();
    assert_eq!(fs::read_dir(world.path("many")).expect("kept").count(), 0);
}
