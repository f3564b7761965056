//! `listend explain` against real sockets: ports that this process holds, free ones, unix paths,
//! and the listeners of a configuration.

use crate::harness::{Finished, World, eventually, free_port, require_ipv6, sysctl};
use serde_json::Value;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};

/// `listend explain --json` of an address, which ends with this code.
#[track_caller]
fn explained(world: &World, target: &str, code: i32) -> Value {
    world
        .finish(["explain", "--json", target])
        .expect_code(code)
        .json()
}

#[track_caller]
fn text(world: &World, target: &str, code: i32) -> String {
    let finished: Finished = world.finish(["explain", target]).expect_code(code);
    for line in finished.text().lines() {
        assert!(line.chars().count() <= 100, "{line}");
    }
    finished.text()
}

fn codes(problems: &Value) -> Vec<&str> {
    let all = problems.as_array().expect("a list").iter();
    all.map(|one| one["kind"].as_str().expect("a code"))
        .collect()
}

#[test]
fn a_port_that_is_held_names_its_holder() {
    let world = World::new();
    let holder = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = holder.local_addr().expect("an address").to_string();
    let _waiting = TcpStream::connect(&address).expect("connect");
    let json = explained(&world, &address, 1);
    let socket = &json["sockets"][0];
    assert_eq!(socket["kind"], "tcp");
    assert_eq!(socket["family"], "ipv4");
    assert_eq!(socket["bind"], "impossible");
    let held = &socket["holders"][0];
    assert_eq!(held["pid"], std::process::id());
    assert_eq!(held["state"], "listening");
    assert_eq!(held["local"], address.as_str());
    assert_eq!(held["waiting"], 1);
    assert!(held["age"].as_u64().expect("an age") < 3600);
    let since = held["since"].as_str().expect("a date");
    assert!(since.starts_with("20") && since.ends_with('Z'), "{since}");
    assert_eq!(socket["reach"]["who"], "this-machine");
    assert_eq!(codes(&json["errors"]), ["EADDRINUSE"]);
    assert_eq!(json["errors"][0]["file"], Value::Null);

    let said = text(&world, &address, 1);
    let pid = format!("(pid {}, user ", std::process::id());
    for words in [
        pid.as_str(),
        "would fail",
        "since 20",
        "1 waiting now",
        "EADDRINUSE",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
}

#[test]
fn a_wildcard_holder_is_in_the_way_of_one_address() {
    let world = World::new();
    let holder = UdpSocket::bind("0.0.0.0:0").expect("bind");
    let port = holder.local_addr().expect("an address").port();
    let json = explained(&world, &format!("udp://127.0.0.1:{port}"), 1);
    let held = &json["sockets"][0]["holders"][0];
    assert_eq!(held["local"], format!("0.0.0.0:{port}"));
    assert_eq!(json["sockets"][0]["queue"], Value::Null);
    // The ports of UDP are not those of TCP.
    let json = explained(&world, &format!("127.0.0.1:{port}"), 0);
    assert_eq!(json["sockets"][0]["holders"], Value::Array(Vec::new()));
}

#[test]
fn a_free_port_could_be_bound_and_is_free_afterwards() {
    let world = World::new();
    let port = free_port();
    let address = format!("127.0.0.1:{port}");
    let json = explained(&world, &address, 0);
    let socket = &json["sockets"][0];
    assert_eq!(socket["bind"], "possible");
    assert_eq!(socket["holders"], Value::Array(Vec::new()));
    assert_eq!(socket["port"]["number"], port);
    assert_eq!(socket["port"]["privileged"], false);
    assert_eq!(socket["queue"]["limit"], sysctl("net/core/somaxconn"));
    TcpListener::bind(&address).expect("free again");
    let said = text(&world, &address, 0);
    assert!(said.contains("held by     nobody\n"), "{said}");
}

#[test]
fn what_iana_registers_is_told_also_for_ports_that_get_no_advice() {
    let world = World::new();
    let json = world
        .finish(["explain", "--json", "udp://127.0.0.1:8080"])
        .json();
    let registered = &json["sockets"][0]["port"]["registered"][0];
    assert_eq!(registered["name"], "http-alt");
    assert_eq!(registered["transports"], serde_json::json!(["tcp", "udp"]));
    assert!(!codes(&json["advice"]).contains(&"registered-port"));
}

#[test]
fn a_wildcard_lists_what_it_covers() {
    if !require_ipv6() {
        return;
    }
    let world = World::new();
    let said = text(&world, &format!(":{}", free_port()), 0);
    for words in [
        "dual-stack",
        "127.0.0.1 (lo, network 127.0.0.0/8)",
        "::1 (lo",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    let json = explained(&world, "localhost:0", 0);
    assert_eq!(json["sockets"].as_array().expect("a list").len(), 2);
}

#[test]
fn an_address_of_another_machine_is_not_held_but_missing() {
    let world = World::new();
    let json = explained(&world, "192.0.2.99:8080", 1);
    assert_eq!(json["sockets"][0]["reach"]["who"], "nobody");
    assert_eq!(codes(&json["errors"]), ["EADDRNOTAVAIL"]);
    let hint = json["errors"][0]["hint"].as_str().expect("a hint");
    for way in ["free_bind: true", "wait_for_address: 30s", "optional: true"] {
        assert!(hint.contains(way), "{hint}");
    }
    let said = text(&world, "192.0.2.99:8080", 1);
    assert!(said.contains("held by     nobody\n"), "{said}");
}

#[test]
fn a_unix_path_is_live_stale_taken_or_free() {
    let world = World::new();
    let path = world.path("x.sock");
    let target = format!("unix:{}", path.display());
    let json = explained(&world, &target, 0);
    assert_eq!(json["sockets"][0]["path"]["found"], "nothing");
    assert_eq!(json["sockets"][0]["path"]["mode"], "0600");
    assert!(!path.exists());

    let live = UnixListener::bind(&path).expect("bind");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).expect("chmod");
    let json = explained(&world, &target, 1);
    let socket = &json["sockets"][0];
    assert_eq!(socket["path"]["found"], "a live socket");
    assert_eq!(socket["path"]["who"][0], "every user may connect to it");
    assert_eq!(socket["holders"][0]["pid"], std::process::id());
    assert_eq!(codes(&json["errors"]), ["live-socket"]);

    drop(live);
    // Until its exec, a child that another test has just forked keeps the socket open.
    eventually("the socket is stale", || {
        UnixStream::connect(&path).is_err()
    });
    let json = explained(&world, &target, 0);
    assert_eq!(json["sockets"][0]["path"]["found"], "a stale socket");
    assert_eq!(codes(&json["advice"]), ["stale-socket"]);
    assert!(path.exists(), "explain changes nothing");

    std::fs::remove_file(&path).expect("remove");
    std::fs::write(&path, "").expect("write");
    let json = explained(&world, &target, 1);
    assert_eq!(codes(&json["errors"]), ["not-a-socket"]);
    assert!(path.exists(), "explain changes nothing");
}

#[test]
fn an_abstract_name_has_a_holder_and_no_path() {
    let world = World::new();
    let name = format!("listend-explain-{}", std::process::id());
    use std::os::linux::net::SocketAddrExt;
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).expect("a name");
    let _held = UnixDatagram::bind_addr(&address).expect("bind");
    let json = explained(&world, &format!("unix-dgram:@{name}"), 1);
    let socket = &json["sockets"][0];
    assert_eq!(socket["holders"][0]["pid"], std::process::id());
    assert_eq!(socket["path"], Value::Null);
}

/// A name may hold the end of a line, which /proc/net/unix shows as it is.
#[test]
fn a_name_of_one_socket_says_nothing_of_another() {
    use std::os::linux::net::SocketAddrExt;
    let world = World::new();
    let path = world.path("app.sock");
    let name = format!(
        "x\nffff: 00000002 00000000 00000000 0001 01 1 {}",
        path.display()
    );
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).expect("a name");
    let _forger = UnixListener::bind_addr(&address).expect("bind");
    let target = format!("unix:{}", path.display());
    let json = explained(&world, &target, 0);
    assert_eq!(
        json["sockets"][0]["holders"],
        serde_json::json!([]),
        "{json}"
    );
}

#[test]
fn a_listener_is_explained_by_name() {
    let world = World::new();
    let port = free_port();
    let yaml = format!(
        "listeners:\n  web: [\"127.0.0.1:{port}\", \"unix:$DIR/web.sock\"]\n\
         workers:\n  app: {{command: [/bin/true], listeners: web}}\n"
    );
    let file = world.write("listend.yaml", &yaml);
    let file = file.to_str().expect("UTF-8");
    let finished = world.finish(["explain", "web", "--json", "-c", file]);
    let json = finished.expect_code(0).json();
    assert_eq!(json["listener"]["name"], "web");
    assert_eq!(json["listener"]["line"], 2);
    assert_eq!(json["listener"]["workers"], serde_json::json!(["app"]));
    assert_eq!(json["sockets"].as_array().expect("a list").len(), 2);
    // An address of it is explained with its settings, alone.
    let address = format!("127.0.0.1:{port}");
    let finished = world.finish(["explain", &address, "--json", "-c", file]);
    let json = finished.expect_code(0).json();
    assert_eq!(json["listener"]["name"], "web");
    assert_eq!(json["sockets"].as_array().expect("a list").len(), 1);
    let said = world.finish(["explain", "web", "-c", file]).text();
    assert!(
        said.contains(&format!("web: [\"127.0.0.1:{port}\"")),
        "{said}"
    );
}

#[test]
fn what_the_listend_of_this_configuration_holds_is_fine() {
    let world = World::new();
    let yaml = format!(
        "listeners:\n  web: 127.0.0.1:{}\nworkers:\n  app: {{command: [sleep, '1000'], listeners: web}}\n",
        free_port()
    );
    let daemon = world.run(&yaml);
    daemon.line(&["started, pid"]);
    let file = world.path("listend.yaml");
    let file = file.to_str().expect("UTF-8");
    let finished = world.finish(["explain", "web", "--json", "-c", file]);
    let json = finished.expect_code(0).json();
    assert_eq!(json["sockets"][0]["bind"], "held-by-listend");
    assert_eq!(json["sockets"][0]["holders"][0]["pid"], daemon.pid());
    assert!(codes(&json["advice"]).contains(&"held-by-listend"));
    daemon.stop();
}

#[test]
fn mistakes_have_their_exit_codes() {
    let world = World::new();
    let file = world.write("listend.yaml", "listeners: {web: '127.0.0.1:1'}\n");
    let file = file.to_str().expect("UTF-8");
    for (words, code, hint) in [
        (vec!["explain"], 64, "Usage"),
        (vec!["explain", "/run/x"], 78, "write `unix:/run/x`"),
        (vec!["explain", "nohost:80"], 78, "bad-address"),
        (
            vec!["explain", "wbe", "-c", file],
            78,
            "did you mean `web`?",
        ),
        (
            vec!["explain", "web", "-c", "/nonexistent"],
            78,
            "unreadable",
        ),
        (vec!["explain", "80", "-c", file], 78, "write `:80` for"),
        // Whether there is a configuration at the usual place or not.
        (vec!["explain", "80"], 78, "write `:80` for"),
    ] {
        let finished = world.finish(words).expect_code(code);
        assert!(finished.text().contains(hint), "{}", finished.text());
    }
}

const WITH_PRESET: &str = "
listeners: { web: '127.0.0.1:0', spare: '127.0.0.1:0' }
workers:
  app:
    preset: unicorn
    command: [$PROBE, 'two words']
    listeners: [web, spare]
    stop_signal: SIGTERM
    environment: { TOKEN: hidden }
";

#[test]
fn every_setting_of_a_worker_is_shown_with_its_source() {
    let world = World::new();
    let path = world.write("listend.yaml", WITH_PRESET);
    let path = path.to_str().expect("UTF-8");
    let json = world
        .finish(["explain", "app", "--json", "-c", path])
        .expect_code(0)
        .json();
    assert_eq!(json["worker"]["name"], "app");
    assert_eq!(json["worker"]["preset"], "unicorn");
    assert_eq!(json["sockets"], serde_json::json!([]));
    let settings = json["worker"]["settings"].as_array().expect("a list");
    assert_eq!(settings.len(), listend::config::keys::WORKER.len());
    let of = |key: &str| {
        let mut all = settings.iter();
        all.find(|one| one["key"] == key).expect("a key")
    };
    for (key, value, source) in [
        ("preset", "unicorn", "written"),
        ("listeners", "[web, spare]", "written"),
        ("stop_signal", "SIGTERM", "written"),
        ("environment", "TOKEN", "written"),
        ("ready", "accepting", "preset"),
        ("reload_signal", "SIGHUP", "preset"),
        ("stop_timeout", "30s", "default"),
        ("restart", "always", "default"),
    ] {
        assert_eq!(of(key)["value"], value, "{key}");
        assert_eq!(of(key)["source"], source, "{key}");
    }
    assert_eq!(of("stop_signal")["file"], path);
    assert_eq!(of("stop_signal")["line"], 8);

    let said = world.finish(["explain", "app", "-c", path]).expect_code(0);
    let said = said.text();
    assert!(!said.contains("hidden"), "{said}");
    let line = |start: &str| {
        let mut lines = said.lines();
        let found = lines.find(|line| line.trim_start().starts_with(start));
        found.unwrap_or_else(|| panic!("no {start} in {said}"))
    };
    assert!(line("reload_signal").ends_with("SIGHUP (preset unicorn)"));
    assert!(line("stop_timeout").ends_with("30s (default)"));
    assert!(line("stop_signal").contains("SIGTERM (") && line("stop_signal").ends_with(":8:18)"));
}

#[test]
fn a_name_that_a_listener_and_a_worker_have_is_explained_as_both() {
    let world = World::new();
    let yaml = "
listeners: { web: '127.0.0.1:0' }
workers:
  web: { preset: puma, command: [/nonexistent/puma], listeners: [web] }
";
    let path = world.write("listend.yaml", yaml);
    let path = path.to_str().expect("UTF-8");
    let json = world
        .finish(["explain", "web", "--json", "-c", path])
        .expect_code(0)
        .json();
    assert_eq!(json["listener"]["name"], "web");
    assert_eq!(json["worker"]["name"], "web");
    assert_eq!(json["sockets"].as_array().map(Vec::len), Some(1));
    assert!(codes(&json["advice"]).contains(&"server-configuration"));
    let said = world
        .finish(["explain", "web", "-c", path])
        .expect_code(0)
        .text();
    for words in [
        "listener web",
        "worker web",
        "puma closes the listeners",
        "[server-configuration]",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
}
