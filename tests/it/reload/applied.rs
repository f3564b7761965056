//! Reloads of the configuration, of the real program with real sockets: what changes, what is left
//! alone, and that nothing has changed where a reload is refused.

use crate::harness::load::Load;
use crate::harness::reloading::{
    TWO, address, ask, begin, files, filled, limit_of, reload, rewrite, run, serves, serves_too,
    sockets,
};
use crate::harness::varlink::{self, Varlink};
use crate::harness::{
    Puppet, World, client, descriptors_become, eventually, exists, free_port, kill, require_root,
    require_tool, settled_descriptors,
};
use nix::sys::signal::Signal;
use serde_json::json;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

#[test]
fn what_has_not_changed_is_not_touched() {
    let world = World::new();
    let daemon = run(&world, TWO);
    let puppet = world.puppet();
    daemon.line(&["app.0", "started"]);
    let before = sockets(daemon.pid());
    let told = ask(&world, "reload").expect_code(0);
    assert_eq!(told.stdout, "no changes\nconfiguration: in effect\n");
    daemon.signal(Signal::SIGHUP);
    daemon.lines(&["the reload is complete"], 2);
    eventually("the client of the reload is gone", || {
        sockets(daemon.pid()) == before
    });
    assert!(exists(puppet.pid()) && world.no_puppet_is_waiting());
    daemon.stop();
}

/// How many descriptors a process waits for.
fn watched(pid: i32) -> usize {
    let folder = format!("/proc/{pid}/fdinfo");
    let all = fs::read_dir(folder).expect("descriptors").flatten();
    let texts = all.filter_map(|one| fs::read_to_string(one.path()).ok());
    let count = |text: String| text.lines().filter(|line| line.starts_with("tfd:")).count();
    texts.map(count).max().unwrap_or(0)
}

#[test]
fn of_ten_thousand_listeners_only_the_one_that_changes_costs_system_calls() {
    if !require_root() {
        return;
    }
    let Some(strace) = require_tool("strace") else {
        return;
    };
    let world = World::new();
    let yaml = |backlog: u32| {
        let many = (0..10_000).map(|number| format!("  l{number}: 'unix:@{number}$DIR'\n"));
        let many: String = many.collect();
        format!(
            "listeners:\n{many}  web: {{ address: '127.0.0.1:0', backlog: {backlog} }}\n\
             workers:\n  app:\n    $APP\n    listeners: [web]\n"
        )
    };
    let trace = world.path("trace");
    let control = varlink::words(&world);
    let daemon = world.run_with(&filled(&yaml(10)), |start| {
        start.words_behind(control.iter().map(String::as_str));
    });
    let _puppet = world.puppet();
    daemon.line(&["app.0", "started"]);
    // Not before: each call of the start would be stopped at twice.
    eventually("each listener is watched", || {
        watched(daemon.pid()) > 10_000
    });
    let mut strace = Command::new(strace)
        .args([
            "-q",
            "-e",
            "trace=bind,listen,setsockopt,fcntl,epoll_ctl,lstat",
        ])
        .arg("-o")
        .arg(&trace)
        .args(["-p", &daemon.pid().to_string()])
        .spawn()
        .expect("start strace");
    eventually("the daemon is traced", || {
        let status = format!("/proc/{}/status", daemon.pid());
        let status = fs::read_to_string(status).expect("the daemon's status");
        status
            .lines()
            .any(|line| line == format!("TracerPid:\t{}", strace.id()))
    });
    reload(&world, &yaml(20));
    daemon.line(&["backlog 10 → 20, live"]);
    daemon.line(&["the reload is complete"]);
    let since = fs::read_to_string(&trace).expect("the trace");
    let of = |name: &str| since.lines().filter(|line| line.contains(name)).count();
    assert_eq!((of("bind("), of("listen(")), (0, 1), "{since}");
    assert!(since.lines().count() < 200, "{since}");
    daemon.stop();
    strace.wait().expect("wait for strace");
}

#[test]
fn listeners_come_go_and_get_other_names_without_losing_a_client() {
    let world = World::new();
    let (kept, gone, new) = (free_port(), free_port(), free_port());
    let daemon = run(
        &world,
        &format!(
            "
listeners:
  web: '127.0.0.1:{kept}'
  old: '127.0.0.1:{gone}'
workers:
  app: {{ $INLINE, listeners: [web, old] }}
"
        )
        .replace(
            "$INLINE",
            "command: [$PROBE, puppet, $EVENTS], rollout: { min_ready: 0s }",
        ),
    );
    let _first = world.puppet();
    daemon.line(&["app.0", "started"]);
    // It waits in the queue of the socket that is to get another name.
    let waits = client::tcp(address(kept)).expect("connect");
    let told = reload(
        &world,
        &format!(
            "
listeners:
  http: '127.0.0.1:{kept}'
  new: '127.0.0.1:{new}'
workers:
  app:
    $APP
    listeners: [http, new]
"
        ),
    );
    assert!(
        told.stdout.contains(&format!(
            "listener `http`: 127.0.0.1:{kept} is moved here from listener `web`"
        )),
        "{}",
        told.stdout
    );
    assert!(
        told.stdout.contains("listener `old`: removed"),
        "{}",
        told.stdout
    );
    let mut second = world.puppet();
    assert_eq!(second.report.env["LISTEN_FDNAMES"], "http:new");
    second.tell("serve");
    let report = client::read_report(waits).expect("served");
    assert_eq!(report.pid, second.pid());
    serves_too(new, second.pid());
    eventually("the old address is closed", || {
        client::tcp(address(gone)).is_err()
    });
    daemon.stop();
}

#[test]
fn who_waits_at_an_address_that_goes_is_served_by_the_generation_that_drains() {
    let world = World::new();
    let (old, new) = (free_port(), free_port());
    let yaml = |port| {
        format!(
            "listeners: {{ web: '127.0.0.1:{port}' }}\nworkers:\n  app:\n    $APP\n    listeners: [web]\n"
        )
    };
    let daemon = run(&world, &yaml(old));
    let mut first = world.puppet();
    first.ask("drain");
    daemon.line(&["app.0", "started"]);
    let waits = client::tcp(address(old)).expect("connect");
    rewrite(&world, &yaml(new));
    let reloading = begin(&world);
    let mut second = world.puppet();
    assert_eq!(first.listen().as_deref(), Some("term"));
    first.tell("serve");
    assert_eq!(client::read_report(waits).expect("served").pid, first.pid());
    // It listens as long as there is somebody who serves.
    serves_too(old, first.pid());
    kill(first.pid(), Signal::SIGKILL);
    reloading.finish().expect_code(0);
    daemon.line(&[
        "app: generation 2 has taken over",
        "a crash from now on is not rolled back",
    ]);
    // Sockets are closed by a process of its own.
    eventually("it is closed", || client::tcp(address(old)).is_err());
    serves(&mut second, address(new));
    daemon.stop();
}

#[test]
fn an_address_becomes_more_special_under_load() {
    let world = World::new();
    let port = free_port();
    let yaml = |ip| {
        format!(
            "
listeners: {{ web: '{ip}:{port}' }}
workers:
  app:
    command: [$PROBE, serve-app, --version, '{ip}']
    listeners: [web]
    nonblocking: true
    rollout: {{ min_ready: 300ms }}
"
        )
    };
    let daemon = run(&world, &yaml("0.0.0.0"));
    daemon.line(&["app.0", "started"]);
    let load = Load::start(address(port), 4);
    load.wait_for_version("0.0.0.0", 200);
    reload(&world, &yaml("127.0.0.1"));
    load.wait_for_version("127.0.0.1", 200);
    let summary = load.stop();
    assert_eq!(summary.counts.failed(), 0, "{summary}");
    // On the way back the kernel gives clients to the more special one as long as it is open: who
    // comes between its last accept and its end is reset, as at any server that ends. But there is
    // no moment at which nobody listens.
    let load = Load::start(address(port), 4);
    reload(&world, &yaml("0.0.0.0"));
    load.wait_for_version("0.0.0.0", 200);
    let counts = load.stop().counts;
    assert_eq!((counts.refused, counts.timed_out, counts.wrong), (0, 0, 0));
    assert!(counts.failed() <= 4, "{counts:?}");
    daemon.stop();
}

/// Whether O_NONBLOCK is set on a socket that a process has, whatever its number.
fn is_nonblocking(pid: i32, target: &str) -> bool {
    let folder = fs::read_dir(format!("/proc/{pid}/fd")).expect("the process runs");
    let mut all = folder.filter_map(|entry| Some(entry.ok()?.path()));
    let path = all.find(|path| fs::read_link(path).is_ok_and(|to| to == Path::new(target)));
    let number = path.expect("it has the socket");
    let number = number.file_name().expect("a number").to_string_lossy();
    let text = fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}")).expect("it is open");
    let flags = text.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = i64::from_str_radix(flags.expect("flags").trim(), 8).expect("octal");
    flags & i64::from(nix::libc::O_NONBLOCK) != 0
}

// O_NONBLOCK is what those need who have the listener now, and not what the definition says by which
// the last one ran that has ended.
#[test]
fn o_nonblock_follows_who_has_the_listener() {
    let world = World::new();
    let with = |worker: &str| {
        format!(
            "\nlisteners: {{ web: '127.0.0.1:0' }}\nworkers:\n  app:\n    {worker}\n    listeners: [web]\n"
        )
    };
    let daemon = run(
        &world,
        &with("command: [cat]\n    activation: per-connection\n    handoff: inetd"),
    );
    let web = daemon.address("web");
    // A connection is served, and its process does not have the listener.
    let mut open = client::tcp(web).expect("connect");
    open.write_all(b"hello").expect("write");
    open.read_exact(&mut [0; 5]).expect("an answer");

    reload(&world, &with("$APP"));
    let mut blocking = world.puppet();
    assert!(
        !blocking.report.fds[3].nonblocking,
        "listend accepts no more"
    );
    drop(open);

    // Both may not run at a time: the flag is one. The old one is gone before the new one starts.
    rewrite(&world, &with("$APP\n    nonblocking: true"));
    let reloading = begin(&world);
    blocking.wait_for_its_end();
    let mut nonblocking = world.puppet();
    assert!(nonblocking.report.fds[3].nonblocking);
    reloading.finish().expect_code(0);
    rewrite(&world, &with("$APP"));
    let reloading = begin(&world);
    nonblocking.wait_for_its_end();
    let mut blocking = world.puppet();
    assert!(!blocking.report.fds[3].nonblocking);
    reloading.finish().expect_code(0);
    // While it drains it goes on with a listener that blocks, and listend accepts there.
    blocking.ask("deaf");
    let target = blocking.report.fds[3].target.clone();
    rewrite(
        &world,
        &with("command: [cat]\n    activation: per-connection\n    handoff: inetd"),
    );
    let reloading = begin(&world);
    daemon.line(&["app.0", "stopping with SIGTERM"]);
    assert!(!is_nonblocking(daemon.pid(), &target));
    let mut client = client::tcp(web).expect("connect");
    client.write_all(b"hello").expect("write");
    client.read_exact(&mut [0; 5]).expect("an answer");
    assert!(!is_nonblocking(daemon.pid(), &target));
    kill(blocking.pid(), Signal::SIGKILL);
    reloading.finish().expect_code(0);
    eventually("it is as listend wants it", || {
        is_nonblocking(daemon.pid(), &target)
    });
    drop(client);
    daemon.stop();
}

// It was started beside the old one, with O_NONBLOCK as that needs it, and failed at its first accept.
#[test]
fn who_takes_over_a_listener_of_a_removed_worker_gets_it_as_it_needs_it() {
    let world = World::new();
    let with = |worker: &str| {
        format!(
            "\nlisteners: {{ web: '127.0.0.1:0' }}\nworkers:\n  {worker}\n    listeners: [web]\n"
        )
    };
    let daemon = run(&world, &with("old:\n    $APP\n    nonblocking: true"));
    let mut old = world.puppet();
    old.ask("deaf");
    let target = old.report.fds[3].target.clone();
    rewrite(&world, &with("new:\n    $APP"));
    let reloading = begin(&world);
    daemon.line(&["old.0", "stopping with SIGTERM"]);
    assert!(is_nonblocking(daemon.pid(), &target), "as it needs it");
    kill(old.pid(), Signal::SIGKILL);
    let new = world.puppet();
    assert!(!new.report.fds[3].nonblocking);
    reloading.finish().expect_code(0);
    daemon.stop();
}

// A child that escaped from a worker has the listener for as long as it likes, and does with the flag
// what it likes. A test that fails takes its folder away, and the child goes with it.
#[test]
fn listend_does_not_wait_for_a_client_that_somebody_else_has_taken() {
    let Some(python) = require_tool("python3") else {
        return;
    };
    let world = World::new();
    let script = "
import os, socket, threading
listener = socket.socket(fileno=3)
escaped, here = os.pipe()
if os.fork():
    os.close(here)
    os.read(escaped, 1)
    os._exit(0)
os.setsid()
os.close(here)
def block():
    while os.path.exists(os.environ['PIDS']):
        for _ in range(1000): os.set_blocking(3, True)
    os._exit(0)
open(os.environ['PIDS'], 'w').write(str(os.getpid()))
threading.Thread(target=block, daemon=True).start()
while True:
    try: client, _ = listener.accept()
    except BlockingIOError: continue
    client.sendall(b'child')
    client.close()
";
    world.write("grab.py", script);
    let with = |worker: &str| {
        format!(
            "
listeners: {{ web: '127.0.0.1:0' }}
workers:
  app:
    listeners: [web]
    {worker}
"
        )
    };
    let old = format!(
        "command: [{}, $DIR/grab.py]\n    environment: {{ PIDS: $DIR/pid }}\n    restart: never",
        python.display()
    );
    let daemon = run(&world, &with(&old));
    let web = daemon.address("web");
    let mut child = 0;
    eventually("the child is there", || {
        let text = fs::read_to_string(world.path("pid")).unwrap_or_default();
        child = text.parse().unwrap_or_default();
        child != 0
    });
    let new = "command: [/bin/echo, -n, echo]\n    activation: per-connection
    handoff: inetd\n    accept_rate: none";
    rewrite(&world, &with(new));
    ask(&world, "reload").expect_code(0);
    for _ in 0..150 {
        let clients: Vec<_> = (0..4).map(|_| client::tcp(web).expect("connect")).collect();
        for mut client in clients {
            let mut answer = String::new();
            client.read_to_string(&mut answer).expect("an answer");
            assert!(["child", "echo"].contains(&answer.as_str()), "{answer:?}");
        }
    }
    ask(&world, "status").expect_code(0);
    kill(child, Signal::SIGKILL);
    daemon.stop();
}

/// What the processes of all connections have in common is laid out once: for each definition anew.
#[test]
fn connections_after_a_reload_are_served_as_the_new_definition_has_it() {
    let world = World::new();
    let with = |folder: &str, value: &str| {
        format!(
            "
listeners: {{ web: '127.0.0.1:0' }}
workers:
  app:
    command: [/bin/sh, -c, 'echo $VALUE $TCPREMOTEPORT $PWD']
    environment: {{ VALUE: {value} }}
    working_directory: {folder}
    listeners: [web]
    activation: per-connection
    handoff: inetd
"
        )
    };
    let daemon = run(&world, &with("/", "one"));
    let web = daemon.address("web");
    for (folder, value) in [("/", "one"), ("/usr", "two"), ("/usr", "three")] {
        rewrite(&world, &with(folder, value));
        ask(&world, "reload").expect_code(0);
        for _ in 0..3 {
            let mut client = client::tcp(web).expect("connect");
            let port = client.local_addr().expect("its address").port();
            let mut answer = String::new();
            client.read_to_string(&mut answer).expect("an answer");
            assert_eq!(answer, format!("{value} {port} {folder}\n"));
        }
    }
    daemon.stop();
}

#[test]
fn what_can_be_changed_live_is_and_no_process_notices() {
    let world = World::new();
    let yaml = |backlog, mode, group| {
        format!(
            "
listeners:
  web: {{ address: '127.0.0.1:0', backlog: {backlog} }}
  local: {{ address: 'unix:$DIR/local.sock', mode: '{mode}', group: {group} }}
workers:
  app:
    $APP
    listeners: [web, local]
"
        )
    };
    let daemon = run(&world, &yaml(5, "0600", "root"));
    if !crate::harness::require_root() {
        return;
    }
    let mut puppet = world.puppet();
    daemon.line(&["app.0", "started"]);
    let before = sockets(daemon.pid());
    reload(&world, &yaml(9, "0660", "daemon"));
    let file = fs::metadata(world.path("local.sock")).expect("it is there");
    assert_eq!((file.mode() & 0o7777, file.gid()), (0o660, 1));
    assert!(exists(puppet.pid()) && world.no_puppet_is_waiting());
    eventually("the same sockets", || sockets(daemon.pid()) == before);
    // The next process has what counts now, and not what counted when the listener was bound.
    puppet.tell("exit 1");
    let next = world.puppet();
    let web = next.report.fds.iter().find(|fd| fd.number == 3);
    let web = web.and_then(|fd| fd.socket.clone()).expect("a socket");
    assert_eq!(web.backlog, Some(9));
    daemon.stop();
}

#[test]
fn the_end_of_an_old_generation_leaves_the_new_backlog_alone() {
    let world = World::new();
    let yaml = |backlog, version| {
        format!(
            "
listeners: {{ web: {{ address: '127.0.0.1:0', backlog: {backlog} }} }}
workers:
  app:
    $APP
    environment: {{ VERSION: '{version}' }}
    listeners: [web]
"
        )
    };
    let daemon = run(&world, &yaml(5, 1));
    let address = daemon.address("web");
    let _first = world.puppet();
    daemon.line(&["app.0", "started"]);
    reload(&world, &yaml(9, 2));
    let _second = world.puppet();
    if let Some(limit) = limit_of(address.port()) {
        assert_eq!(limit, "9");
    }
    daemon.stop();
}

#[test]
fn terms_that_only_listend_goes_by_change_without_a_process_noticing() {
    let world = World::new();
    let yaml = |terms: &str| {
        format!(
            "listeners: {{ web: '127.0.0.1:0' }}\nworkers:\n  app:\n    command: [$PROBE, puppet, $EVENTS]\n    listeners: [web]\n{terms}"
        )
    };
    let daemon = run(&world, &yaml("    stop_timeout: 3s\n"));
    let puppet = world.puppet();
    daemon.line(&["app.0", "started"]);
    let told = reload(
        &world,
        &yaml(
            "    stop_timeout: 4s\n    restart: { limit: none }\n    rollout: { order: stop-first }\n",
        ),
    );
    assert!(told.stdout.contains("without a rollout"), "{}", told.stdout);
    assert!(exists(puppet.pid()) && world.no_puppet_is_waiting());
    // More of them, and fewer, are no roll either.
    reload(&world, &yaml("    instances: 3\n"));
    let more = world.puppets(2);
    reload(&world, &yaml("    instances: 1\n"));
    eventually("they have ended", || {
        more.iter().all(|one| !exists(one.pid()))
    });
    assert!(exists(puppet.pid()) && world.no_puppet_is_waiting());
    daemon.stop();
}

#[test]
fn only_the_worker_that_changes_of_two_at_one_listener_is_replaced() {
    let world = World::new();
    world.write("env", "COLOUR=red\n");
    let yaml = "
listeners: { web: '127.0.0.1:0' }
workers:
  calm:
    $APP
    listeners: [web]
  other:
    $APP
    listeners: [web]
    environment_file: $DIR/env
";
    let daemon = run(&world, yaml);
    let (one, two) = (world.puppet(), world.puppet());
    daemon.lines(&["started"], 2);
    let is_other = |puppet: &Puppet| puppet.report.env.contains_key("COLOUR");
    let (calm, other) = if is_other(&two) {
        (one, two)
    } else {
        (two, one)
    };
    world.write("env", "COLOUR=green\n");
    let told = reload(&world, yaml);
    assert!(
        told.stdout
            .contains("worker `other`: rolls (environment COLOUR changed)"),
        "{}",
        told.stdout
    );
    let next = world.puppet();
    assert_eq!(next.report.env["COLOUR"], "green");
    eventually("the old one has ended", || !exists(other.pid()));
    assert!(exists(calm.pid()) && world.no_puppet_is_waiting());
    daemon.stop();
}

#[test]
fn a_worker_that_clients_start_gets_another_name_while_it_runs() {
    let world = World::new();
    let yaml = |name: &str| {
        format!(
            "listeners: {{ web: 'unix:$DIR/web.sock' }}\nworkers:\n  {name}:\n    $APP\n    listeners: [web]\n    activation: on-demand\n"
        )
    };
    let daemon = run(&world, &yaml("first"));
    daemon.line(&["listening on"]);
    let path = world.path("web.sock");
    let waiting = client::unix(&path).expect("connect");
    let puppet = world.puppet();
    daemon.line(&["first.0", "started"]);
    // The socket is not watched now: somebody runs who takes clients.
    reload(&world, &yaml("second"));
    eventually("the former has ended", || !exists(puppet.pid()));
    let mut next = world.puppet();
    next.tell("serve");
    let report = client::read_report(waiting).expect("served");
    assert_eq!(report.pid, next.pid());
    daemon.stop();
}

#[test]
fn a_worker_is_activated_in_another_way() {
    let world = World::new();
    let yaml = |activation: &str| {
        let rollout = match activation {
            "per-connection" => "",
            _ => "    rollout: { min_ready: 0s }\n",
        };
        format!(
            "listeners: {{ web: 'unix:$DIR/web.sock' }}\nworkers:\n  app:\n    command: [$PROBE, puppet, $EVENTS]\n    listeners: [web]\n    activation: {activation}\n{rollout}"
        )
    };
    let daemon = run(&world, &yaml("eager"));
    let path = world.path("web.sock");
    let eager = world.puppet();
    daemon.line(&["app.0", "started"]);
    reload(&world, &yaml("on-demand"));
    eventually("it has ended", || !exists(eager.pid()));
    assert!(world.no_puppet_is_waiting());
    let waits = client::unix(&path).expect("connect");
    let mut lazy = world.puppet();
    lazy.tell("serve");
    assert_eq!(client::read_report(waits).expect("served").pid, lazy.pid());
    reload(&world, &yaml("per-connection"));
    eventually("it has ended", || !exists(lazy.pid()));
    let _served = client::unix(&path).expect("connect");
    let mut each = world.puppet();
    reload(&world, &yaml("eager"));
    // It was stopped, and its client lost.
    let mut eager = world.puppet();
    eager.tell("serve");
    assert_eq!(client::ask_unix(&path).pid, eager.pid());
    let status = ask(&world, "status").expect_code(0).stdout;
    assert!(status.contains("connections: 1 open"), "{status}");
    ask(&world, "upgrade").expect_code(0);
    assert!(exists(each.pid()));
    each.tell("exit 0");
    eventually("it has ended", || !exists(each.pid()));
    daemon.stop();
}

#[test]
fn nothing_has_changed_where_anything_is_bad() {
    let world = World::new();
    let port = free_port();
    let good = format!(
        "
listeners:
  web: {{ address: '127.0.0.1:{port}', backlog: 7 }}
  local: {{ address: 'unix:$DIR/local.sock', mode: '0600' }}
workers:
  app:
    $APP
    listeners: [web, local]
"
    );
    let daemon = run(&world, &good);
    let mut puppet = world.puppet();
    daemon.line(&["app.0", "started"]);
    let (before, names) = (sockets(daemon.pid()), files(&world));
    let open = settled_descriptors(daemon.pid());
    let taken: Vec<TcpListener> = (0..3)
        .map(|_| TcpListener::bind("127.0.0.1:0").expect("bind"))
        .collect();
    let taken = |index: usize| taken[index].local_addr().expect("an address").port();
    let others = format!(
        "
listeners:
  web: {{ address: '127.0.0.1:{port}', backlog: 8 }}
  local: {{ address: 'unix:$DIR/local.sock', mode: '0666' }}
  path: 'unix:$DIR/new/folder/path.sock'
  bad1: '127.0.0.1:{}'
  fine: '127.0.0.1:{}'
  bad2: '127.0.0.1:{}'
  bad3: '127.0.0.1:{}'
workers:
  app:
    $APP
    listeners: [web]
",
        taken(0),
        free_port(),
        taken(1),
        taken(2)
    );
    let cases = [
        ("listeners: [", vec!["listend.yaml:", "nothing has changed"]),
        (
            "listeners: { web: '127.0.0.1:0' }\nworkers:\n  app:\n    $APP\n    listeners: [web]\n    user: nobody-has-this-name\n",
            vec!["listend.yaml:7:", "nobody-has-this-name"],
        ),
        (
            &*good
                .replace("backlog: 7", "backlog: 8, bind_to_device: nosuchdev0")
                .replace("0600", "0640"),
            vec!["nosuchdev0", "listend.yaml:3:"],
        ),
        (
            &*others,
            vec!["bad1", "bad2", "bad3", "listend.yaml:6:", "hint"],
        ),
    ];
    for (number, (yaml, words)) in cases.into_iter().enumerate() {
        rewrite(&world, yaml);
        let told = ask(&world, "reload").expect_code(1);
        for word in words {
            assert!(told.stderr.contains(word), "{word}: {}", told.stderr);
        }
        let (error, parameters) = Varlink::connect(&world).error("Reload", json!({}));
        assert_eq!(error, "NotReloaded");
        let errors = parameters["errors"].as_array().expect("a list").len();
        assert_eq!(errors, if yaml == others { 3 } else { 1 }, "{parameters}");
        if let Some(limit) = limit_of(port) {
            assert_eq!(limit, "7");
        }
        assert!(!parameters["rendered"].as_str().expect("text").is_empty());
        daemon.signal(Signal::SIGHUP);
        daemon.lines(&["nothing has changed"], 3 * (number + 1));
        eventually("all is as before", || {
            sockets(daemon.pid()) == before && files(&world) == names
        });
        let file = fs::metadata(world.path("local.sock")).expect("it is there");
        assert_eq!(file.mode() & 0o7777, 0o600);
    }
    // So is a file that somebody has just begun to write.
    rewrite(&world, "");
    let told = ask(&world, "reload").expect_code(1);
    assert!(
        told.stderr.contains("neither a listener nor a worker"),
        "{}",
        told.stderr
    );
    descriptors_become(daemon.pid(), open);
    assert!(exists(puppet.pid()) && world.no_puppet_is_waiting());
    serves(&mut puppet, address(port));
    reload(&world, &good.replace("0600", "0666"));
    let file = fs::metadata(world.path("local.sock")).expect("it is there");
    assert_eq!(file.mode() & 0o7777, 0o666);
    daemon.stop();
}

#[test]
fn a_dry_run_tells_and_does_nothing() {
    let world = World::new();
    let daemon = run(&world, TWO);
    let puppet = world.puppet();
    daemon.line(&["app.0", "started"]);
    let before = sockets(daemon.pid());
    rewrite(&world, &TWO.replace("0660", "0600"));
    let told = ask(&world, "reload --dry-run").expect_code(0);
    assert_eq!(
        told.stdout,
        "listener `two`: mode 0660 → 0600, live\nconfiguration: 1 change\n"
    );
    rewrite(&world, "listeners: [");
    let told = ask(&world, "reload --dry-run").expect_code(1);
    assert!(told.stderr.contains("listend.yaml:"), "{}", told.stderr);
    // What a reload refuses, a dry run does not promise.
    rewrite(&world, "# nothing\n");
    let would = ask(&world, "reload --dry-run").expect_code(1);
    let refused = ask(&world, "reload").expect_code(1);
    for told in [would, refused] {
        assert!(told.stderr.contains("names neither"), "{}", told.stderr);
    }
    assert!(exists(puppet.pid()));
    // What a reload would bind is tried.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = taken.local_addr().expect("an address").to_string();
    let more = format!("listeners:\n  taken: '{address}'");
    rewrite(&world, &TWO.replacen("listeners:", &more, 1));
    let told = ask(&world, "reload --dry-run").expect_code(1);
    let cause = format!("pid {}", std::process::id());
    assert!(told.stderr.contains("EADDRINUSE"), "{}", told.stderr);
    assert!(told.stderr.contains(&cause), "{}", told.stderr);
    eventually("all is as before", || sockets(daemon.pid()) == before);
    let mode = fs::metadata(world.path("two.sock"))
        .expect("it is there")
        .mode();
    assert_eq!(mode & 0o7777, 0o660);
    assert!(exists(puppet.pid()));
    daemon.stop();
}
