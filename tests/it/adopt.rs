//! `listend give` and `listend adopt`: what somebody else has bound becomes one of listend's sockets.

use crate::harness::load::Load;
use crate::harness::reloading::{address, ask, reload, rewrite, run, state_of};
use crate::harness::varlink::{self, Varlink};
use crate::harness::{
    Daemon, Finished, Start, World, alone, children, client, eventually, free_port, kill,
    require_tool,
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::net::{TcpListener, UdpSocket};
use std::os::unix::net::UnixListener;
use std::process::{Command, id};

/// nginx as somebody runs it who knows nothing of listend.
fn nginx(world: &World, listen: &str) -> Option<Daemon> {
    let nginx = require_tool("nginx")?;
    world.write(
        "nginx.conf",
        &format!(
            "daemon off; pid $DIR/nginx.pid; error_log stderr; worker_processes 2;
events {{ worker_connections 512; }}
http {{
  access_log off;
  client_body_temp_path $DIR/body; proxy_temp_path $DIR/proxy; fastcgi_temp_path $DIR/fastcgi;
  uwsgi_temp_path $DIR/uwsgi; scgi_temp_path $DIR/scgi;
  server {{ listen {listen}; location / {{ return 200 \"old server\"; }} }}
}}
"
        ),
    );
    let mut start = Start::of(&nginx, ["-c", "$DIR/nginx.conf", "-e", "stderr"]);
    start.words_behind(["-p", "$DIR"]);
    let server = world.start(start);
    eventually("nginx runs", || world.path("nginx.pid").exists());
    Some(server)
}

const OTHER: &str = "  other: 'unix:$DIR/other'\n";

fn yaml(listener: &str) -> String {
    format!(
        "listeners:
{OTHER}  web: {listener}
workers:
  app: {{ command: [$PROBE, serve-app, --version, new], listeners: [web], nonblocking: true }}
"
    )
}

fn adopt(world: &World, pid: u32, words: &str) -> Finished {
    ask(world, &format!("adopt --pid {pid} {words}"))
}

fn names(world: &World) -> Vec<(String, String)> {
    let status = Varlink::connect(world).ask("Status", json!({}));
    let listeners = status["listeners"].as_array().expect("listeners").iter();
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    listeners
        .map(|one| (text(&one["name"]), text(&one["state"])))
        .collect()
}

fn is_given(world: &World) -> bool {
    names(world).contains(&("web (given)".to_owned(), "given".to_owned()))
}

// Rule: a server that runs alone is followed by listend without one client that notices.
#[test]
fn a_server_is_followed_without_a_gap() {
    let world = World::new();
    let port = free_port();
    let Some(server) = nginx(&world, &format!("127.0.0.1:{port}")) else {
        return;
    };
    let daemon = run(&world, &format!("listeners:\n{OTHER}"));
    daemon.line(&["bound in"]);
    let load = Load::start(address(port), 3);
    load.wait_for_version("old", 20);
    rewrite(&world, &yaml(&format!("'127.0.0.1:{port}'")));
    ask(&world, "reload").expect_code(1);
    let pid = server.pid() as u32;
    let done = adopt(&world, pid, "--as web").expect_code(0);
    assert!(done.stdout.contains("held until a reload"), "{done:#?}");
    daemon.line(&["listener web: given by uid", "listend"]);
    assert!(is_given(&world), "{:?}", names(&world));
    // The metrics have the names of the status.
    let metrics = ask(&world, "metrics").expect_code(0).stdout;
    assert!(metrics.contains(r#"{listener="web (given)"}"#), "{metrics}");
    // It outlives the daemon's program.
    ask(&world, "upgrade").expect_code(0);
    assert!(is_given(&world), "{:?}", names(&world));
    let done = ask(&world, "reload").expect_code(0);
    assert!(done.stdout.contains("held already"), "{done:#?}");
    load.wait_for_version("new", 20);
    server.signal(Signal::SIGQUIT);
    let _ended = server.status();
    load.wait_for_answers(50);
    let summary = load.stop();
    assert_eq!(summary.counts.failed(), 0, "{summary}");
    assert_eq!(state_of(&world, "listeners", "web"), "listening");
    daemon.stop();
}

// Rule: where no listend runs yet, it starts with the sockets of the server.
#[test]
fn the_first_listend_starts_with_the_sockets_of_the_server() {
    let world = World::new();
    let port = free_port();
    let Some(server) = nginx(&world, &format!("127.0.0.1:{port}")) else {
        return;
    };
    let load = Load::start(address(port), 3);
    load.wait_for_version("old", 20);
    rewrite(
        &world,
        &crate::harness::reloading::filled(&yaml(&format!("'127.0.0.1:{port}'"))),
    );
    let pid = server.pid().to_string();
    let mut start = Start::new(["adopt", "--pid", &pid, "--as", "web", "--"]);
    start.words_behind([crate::harness::listend_path().to_str().expect("UTF-8")]);
    start.words_behind([
        "run",
        "-c",
        "$DIR/listend.yaml",
        "--control",
        "$DIR/control.sock",
    ]);
    let daemon = world.start(start);
    daemon.line(&["listener web: adopted 127.0.0.1"]);
    load.wait_for_version("new", 20);
    server.signal(Signal::SIGQUIT);
    let _ended = server.status();
    load.wait_for_answers(50);
    let summary = load.stop();
    assert_eq!(summary.counts.failed(), 0, "{summary}");
    daemon.stop();
}

// Rule: nginx removes its path when it ends; listend, whose it is by then, brings it back.
#[test]
fn a_path_that_the_server_removes_stays() {
    let world = World::new();
    let path = world.path("web");
    let Some(server) = nginx(&world, "unix:$DIR/web") else {
        return;
    };
    let daemon = run(&world, &format!("listeners:\n{OTHER}"));
    daemon.line(&["bound in"]);
    adopt(&world, server.pid() as u32, "--as web").expect_code(0);
    reload(&world, &yaml("{ address: 'unix:$DIR/web', mode: '0666' }"));
    eventually("the worker runs", || {
        state_of(&world, "workers", "app") == "running"
    });
    server.signal(Signal::SIGQUIT);
    let _ended = server.status();
    let load = Load::start(path.as_path(), 1);
    load.wait_for_version("new", 20);
    let _summary = load.stop();
    daemon.stop();
    assert!(!path.exists());
}

// Rule: what was given is kept by the guard when the daemon is killed.
#[test]
fn what_was_given_survives_the_death_of_the_daemon() {
    if !alone() {
        return;
    }
    let world = World::new();
    let words = varlink::words(&world);
    let guard = world.run_with(&format!("listeners:\n{OTHER}"), |start| {
        start.words_behind(words.iter().map(String::as_str));
        start.words_behind(["--guard"]);
    });
    guard.line(&["bound in"]);
    let held = TcpListener::bind("127.0.0.1:0").expect("bind");
    let port = held.local_addr().expect("an address").port();
    adopt(
        &world,
        id(),
        &format!("--address 127.0.0.1:{port} --as web"),
    )
    .expect_code(0);
    assert!(is_given(&world));
    drop(held);
    // Somebody is in the queue of a socket that only listend has.
    let waits = client::tcp(address(port)).expect("it listens");
    let before = children(guard.pid());
    before.iter().for_each(|pid| kill(*pid, Signal::SIGKILL));
    eventually("there is another daemon", || {
        let now = children(guard.pid());
        !now.is_empty() && now.iter().all(|pid| !before.contains(pid))
    });
    assert!(is_given(&world), "{:?}", names(&world));
    reload(
        &world,
        &format!(
            "listeners: {{ web: '127.0.0.1:{port}' }}
workers:
  app: {{ $APP, listeners: [web] }}
"
        )
        .replace("$APP", "command: [$PROBE, puppet, $EVENTS]"),
    );
    let mut puppet = world.puppet();
    puppet.tell("serve");
    assert_eq!(
        client::read_report(waits).expect("served").pid,
        puppet.pid()
    );
    guard.stop();
}

// Rule: a listener that is declared and could not be bound is bound by what is given.
#[test]
fn a_listener_that_is_missing_gets_its_sockets() {
    if !alone() {
        return;
    }
    let world = World::new();
    let held = TcpListener::bind("127.0.0.1:0").expect("bind");
    let at = held.local_addr().expect("an address");
    let yaml = format!(
        "listeners:
{OTHER}  web: {{ address: '{at}', optional: true }}
workers:
  app: {{ command: [$PROBE, puppet, $EVENTS], listeners: [web, other] }}
"
    );
    let daemon = run(&world, &yaml);
    let _first = world.puppet();
    eventually("it is missing", || {
        state_of(&world, "listeners", "web") == "missing"
    });
    let wrong = TcpListener::bind("127.0.0.1:0").expect("bind");
    let other = wrong.local_addr().expect("an address");
    let refused = adopt(&world, id(), &format!("--address {other} --as web")).expect_code(1);
    assert!(
        refused.stderr.contains("listener `web` has"),
        "{refused:#?}"
    );
    adopt(&world, id(), &format!("--address {at} --as web")).expect_code(0);
    eventually("it is bound", || {
        state_of(&world, "listeners", "web") == "listening"
    });
    drop(held);
    client::tcp(at).expect("listend holds it");
    daemon.stop();
}

// Rule: a socket that somebody has bound is given by its number, or as systemd-socket-activate passes it.
#[test]
fn a_process_gives_what_it_has_bound() {
    if require_tool("python3").is_none() {
        return;
    }
    let world = World::new();
    let daemon = run(&world, &format!("listeners:\n{OTHER}"));
    daemon.line(&["bound in"]);
    let udp = free_port();
    world.write(
        "give.py",
        "import os, socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(('127.0.0.1', int(sys.argv[1])))
os.dup2(s.fileno(), 9, inheritable=True)
os.execv(sys.argv[2], ['listend', 'give', 'packets', '--fd', '9', '--control', sys.argv[3]])
",
    );
    let udp_text = udp.to_string();
    let python = require_tool("python3").expect("just found");
    let mut start = Start::of(&python, ["$DIR/give.py", &udp_text]);
    start.words_behind([crate::harness::listend_path().to_str().expect("UTF-8")]);
    start.words_behind(["$DIR/control.sock"]);
    world.start(start).finish().expect_code(0);
    let is_held = |name: &str| names(&world).iter().any(|(one, _)| one == name);
    assert!(is_held("packets (given)"), "{:?}", names(&world));
    UdpSocket::bind(address(udp)).expect_err("listend has it");
    // One that has a socket of listend has nothing to give.
    let mut start = Start::new(["take", "--control", "$DIR/control.sock", "other", "--"]);
    start.words_behind([
        crate::harness::listend_path().to_str().expect("UTF-8"),
        "give",
        "more",
    ]);
    start.words_behind(["--control", "$DIR/control.sock"]);
    let refused = world.start(start).finish().expect_code(1);
    assert!(
        refused.stderr.contains("holds the socket at"),
        "{refused:#?}"
    );
    daemon.stop();
}

// Rule: a socket at whose path something else is, or nothing, is no listener: it is not taken, and not kept.
#[test]
fn a_socket_that_no_client_finds_is_not_held() {
    if !alone() {
        return;
    }
    let world = World::new();
    let path = world.path("web");
    let held = UnixListener::bind(&path).expect("bind");
    let daemon = run(&world, &format!("listeners:\n{OTHER}"));
    daemon.line(&["bound in"]);
    let words = format!("--address unix:{} --as web", path.display());
    let refused = |what: &str| {
        let refused = adopt(&world, id(), &words).expect_code(1);
        assert!(
            refused.stderr.contains("no client would find it"),
            "{what}: {refused:#?}"
        );
    };
    std::fs::rename(&path, world.path("away")).expect("rename");
    refused("gone");
    let with_another = "listeners: { new: 'unix:$DIR/web', other: 'unix:$DIR/other' }";
    reload(&world, with_another);
    refused("another socket");
    reload(&world, &format!("listeners:\n{OTHER}"));
    eventually("its path is gone", || !path.exists());
    std::fs::write(&path, "").expect("write");
    refused("a file");
    std::fs::rename(world.path("away"), &path).expect("rename");
    adopt(&world, id(), &words).expect_code(0);
    assert!(is_given(&world));
    // It loses its path when it is held already.
    std::fs::remove_file(&path).expect("unlink");
    reload(&world, with_another);
    daemon.line(&["closed", "a listener has another socket at its path"]);
    assert!(!is_given(&world), "{:?}", names(&world));
    assert_eq!(state_of(&world, "listeners", "new"), "listening");
    drop(held);
    client::unix(&path).expect("the new one");
    daemon.stop();
}

// "it is a UDP socket on 127.0.0.1:53, and listener `web` has 127.0.0.1:53".
#[test]
fn a_socket_of_another_kind_at_the_address_of_a_listener_is_told_from_what_it_has() {
    if !alone() {
        return;
    }
    let world = World::new();
    let at = address(free_port());
    let _given = UdpSocket::bind(at).expect("bind");
    let _taken = TcpListener::bind(at).expect("bind");
    let daemon = run(
        &world,
        &format!("listeners: {{ web: {{ address: '{at}', optional: true }} }}\n"),
    );
    daemon.line(&["listener web", "retrying"]);
    let words = format!("--address udp://{at} --as web");
    let refused = adopt(&world, id(), &words).expect_code(1);
    let told = format!("a UDP socket on {at}, and listener `web` has {at} (tcp)");
    assert!(refused.stderr.contains(&told), "{refused:#?}");
    daemon.stop();
}

#[test]
fn what_cannot_be_adopted_is_refused_with_the_reason() {
    if !alone() {
        return;
    }
    let world = World::new();
    let daemon = run(&world, &format!("listeners:\n{OTHER}"));
    daemon.line(&["bound in"]);
    let refused = |pid: u32, words: &str, code, why: &str| {
        let refused = adopt(&world, pid, words).expect_code(code);
        assert!(refused.stderr.contains(why), "{words}: {}", refused.stderr);
    };
    let one = TcpListener::bind("127.0.0.1:0").expect("bind");
    let at = one.local_addr().expect("an address");
    refused(id(), "--address 127.0.0.1:1 --as web", 1, &at.to_string());
    refused(id(), &format!("--address {at}"), 64, "--as NAME");
    refused(
        id(),
        &format!("--address {at} --as a:b"),
        1,
        "cannot be a name",
    );
    refused(
        id(),
        &format!("--address {at} --as other"),
        1,
        "bound already",
    );
    refused(4_194_305, "--as web", 1, "there is no process");
    let more = TcpListener::bind("127.0.0.1:0").expect("bind");
    refused(id(), "--as web", 64, "--address ADDRESS");
    drop((one, more));
    let mut idle = Command::new("sleep")
        .arg("600")
        .spawn()
        .expect("start sleep");
    refused(idle.id(), "--as web", 1, "has no listener");
    idle.kill().expect("kill");
    idle.wait().expect("wait");
    // Each of a group has a queue of its own.
    let shared = || {
        use socket2::{Domain, Socket, Type};
        Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket")
    };
    let (one, two) = (shared(), shared());
    one.set_reuse_port(true).expect("set");
    two.set_reuse_port(true).expect("set");
    one.bind(&address(free_port()).into()).expect("bind");
    two.bind(&one.local_addr().expect("an address"))
        .expect("bind");
    one.listen(8).expect("listen");
    two.listen(8).expect("listen");
    refused(id(), "--as web", 1, "one of 2 that share the address");
    // Over the control socket, too.
    drop((one, two));
    let mut bare = Varlink::connect(&world);
    let permitted = bare.ask("GiveListener", json!({ "listener": "web" }));
    assert_eq!(permitted["message"], Value::Null);
    daemon.stop();
}
