//! What becomes of a worker whose instances have all failed, of its listeners and their clients.

use crate::harness::app::{PUPPET, yaml};
use crate::harness::reloading::ask;
use crate::harness::{Daemon, World, client, eventually, require_root, require_tool};
use nix::sys::signal::Signal;
use std::io::ErrorKind::ConnectionRefused;
use std::io::Write;
use std::os::unix::fs::MetadataExt;

const FAILS: &str = "restart: { backoff: 1ms..2ms, limit: 1 in 1h }";

/// Two crashes of a puppet, which are one too many.
#[track_caller]
fn fail(world: &World, daemon: &Daemon) {
    world.puppet().tell("exit 1");
    world.puppet().tell("exit 1");
    daemon.line(&["app.0: failed"]);
}

#[test]
fn where_clients_are_to_be_refused_the_listeners_close_until_it_is_started_again() {
    let world = World::new();
    let port = crate::harness::free_port();
    let text = format!(
        "
listeners: {{ web: '127.0.0.1:{port}', local: 'unix:$DIR/local' }}
workers:
  app:
    command: {PUPPET}
    listeners: [web, local]
    on_failure: refuse
    {FAILS}
"
    );
    let daemon = crate::harness::varlink::run(&world, &text);
    let address = daemon.address("web");
    let are_refused = || {
        let tcp = client::tcp(address).is_err_and(|error| error.kind() == ConnectionRefused);
        (tcp, client::unix(&world.path("local")).is_err())
    };
    for words in ["reset app", "start app", "restart app"] {
        fail(&world, &daemon);
        eventually("clients are refused", || are_refused() == (true, true));
        ask(&world, words).expect_code(0);
        let puppet = world.puppet();
        assert_eq!(are_refused(), (false, false), "after {words}");
        let sockets = puppet.report.fds.iter().filter_map(|fd| fd.socket.as_ref());
        assert_eq!(sockets.filter(|socket| socket.listening).count(), 2);
        // What has failed before does not count any more.
        ask(&world, "stop app").expect_code(0);
        ask(&world, "reset app").expect_code(0);
        ask(&world, "start app --no-wait").expect_code(0);
    }
    daemon.stop();
}

#[test]
fn a_reload_that_mends_the_worker_opens_its_listener() {
    let world = World::new();
    let port = crate::harness::free_port();
    let text = |lines: &str| {
        yaml(PUPPET, &format!("on_failure: refuse\n{FAILS}\n{lines}"))
            .replace("127.0.0.1:0", &format!("127.0.0.1:{port}"))
    };
    let daemon = crate::harness::varlink::run(&world, &text(""));
    fail(&world, &daemon);
    daemon.line(&["listener web: closed, so that clients are refused"]);
    world.write("listend.yaml", &text("environment: { MENDED: yes }"));
    daemon.signal(nix::sys::signal::Signal::SIGHUP);
    let puppet = world.puppet();
    assert_eq!(
        puppet.report.env.get("LISTEN_FDS").map(String::as_str),
        Some("1")
    );
    client::tcp(daemon.address("web")).expect("it is bound again");
    daemon.stop();
}

#[test]
fn a_listener_that_a_healthy_worker_shares_stays_open() {
    let world = World::new();
    let daemon = world.run(&format!(
        "
listeners: {{ web: '127.0.0.1:0' }}
workers:
  well: {{ command: [$PROBE, serve], listeners: [web] }}
  app: {{ command: {PUPPET}, listeners: [web], on_failure: refuse, {FAILS} }}
"
    ));
    let address = daemon.address("web");
    fail(&world, &daemon);
    daemon.line(&["worker app: every instance has failed"]);
    for _ in 0..5 {
        client::ask_tcp(address);
    }
    assert!(daemon.lines_so_far(&["closed, so that clients"]).is_empty());
    daemon.stop();
}

#[test]
fn what_has_cooled_down_is_tried_again_and_its_listener_opens() {
    let world = World::new();
    let lines = "on_failure: refuse
restart: { backoff: 1ms..2ms, limit: 1 in 1h, cool_down: 500ms }";
    let port = crate::harness::free_port();
    let text = yaml(PUPPET, lines).replace("127.0.0.1:0", &format!("127.0.0.1:{port}"));
    let daemon = world.run(&text);
    let address = daemon.address("web");
    fail(&world, &daemon);
    // It said "not restarting" before that.
    daemon.line(&["app.0: exited", "; too many crashes: 2 within 60 min"]);
    daemon.line(&["app.0: failed", "it is restarted in 500 ms"]);
    assert!(daemon.lines_so_far(&["not restart"]).is_empty());
    daemon.line(&["listener web: closed, so that clients are refused"]);
    let _again = world.puppet();
    client::tcp(address).expect("it is bound again");
    daemon.stop();
}

// It waited without a word for as long as somebody else had the address.
#[test]
fn a_start_whose_address_was_taken_says_by_whom_and_can_be_asked_again() {
    let world = World::new();
    let port = crate::harness::free_port();
    let text = yaml(PUPPET, &format!("on_failure: refuse\n{FAILS}"))
        .replace("127.0.0.1:0", &format!("127.0.0.1:{port}"));
    let daemon = crate::harness::varlink::run(&world, &text);
    fail(&world, &daemon);
    daemon.line(&["listener web: closed, so that clients are refused"]);
    let mut taken = None;
    eventually("the port is free", || {
        taken = std::net::TcpListener::bind(("127.0.0.1", port)).ok();
        taken.is_some()
    });
    for words in ["start app", "restart app"] {
        let told = ask(&world, words).expect_code(1);
        let who = format!("pid {}", std::process::id());
        for part in ["EADDRINUSE", &who, "it is retried in"] {
            assert!(told.stderr.contains(part), "{words}: {}", told.stderr);
        }
    }
    drop(taken);
    ask(&world, "start app").expect_code(0);
    let _up = world.puppet();
    daemon.stop();
}

#[test]
fn one_that_clients_start_is_tried_by_the_next_after_it_has_cooled_down() {
    let world = World::new();
    let lines = "activation: on-demand
restart: { backoff: 1ms..2ms, limit: 1 in 1h, cool_down: 300ms }";
    let daemon = world.run(&yaml(PUPPET, lines));
    let mut client = client::tcp(daemon.address("web")).expect("the queue takes a client");
    client.write_all(b"still here").expect("write");
    fail(&world, &daemon);
    assert_eq!(world.puppet().ask("read 3"), "still here");
    daemon.stop();
}

#[test]
fn an_end_that_is_said_to_be_a_success_is_no_failure() {
    let world = World::new();
    let lines =
        "restart: { policy: on-failure, backoff: 1ms..2ms, success_exit_status: [75, SIGUSR1] }";
    let daemon = world.run(&yaml(PUPPET, &format!("instances: 2\n{lines}")));
    for (mut puppet, end) in world.puppets(2).into_iter().zip(["exit 75", "raise 10"]) {
        puppet.tell(end);
    }
    daemon.line(&[
        "exited with exit status 75",
        "not restarting, as its restart policy says",
    ]);
    daemon.line(&[
        "killed by SIGUSR1",
        "not restarting, as its restart policy says",
    ]);
    assert!(world.no_puppet_is_waiting());
    daemon.stop();
}

// It stayed behind half made where there was no descriptor to open it with: as root's, so that the worker
// could not start with it ever after.
#[test]
fn a_start_without_descriptors_leaves_no_runtime_directory_half_made() {
    if !require_root() {
        return;
    }
    let Some(prlimit) = require_tool("prlimit") else {
        return;
    };
    let prlimit = prlimit.to_str().expect("UTF-8");
    let name = format!("listend-test-{}-room", std::process::id());
    let folder = std::path::Path::new("/run").join(&name);
    let lines = format!("user: nobody\nruntime_directory: {name}");
    let mut tried = 0;
    for limit in 6..40 {
        let world = World::new();
        let daemon = world.run_with(&yaml("[/bin/sleep, '600']", &lines), |start| {
            start.through([prlimit, &format!("--nofile={limit}")]);
        });
        let is_told = |words| !daemon.lines_so_far(&[words]).is_empty();
        let is_tried = || is_told("app.0: failed while") || is_told("app.0: started");
        eventually("it is tried, or the limit too low for listend", || {
            is_tried() || !daemon.is_running()
        });
        if is_tried() {
            tried += 1;
            daemon.signal(Signal::SIGTERM);
        }
        daemon.finish();
        // There may be no descriptor to remove it with, either.
        if let Ok(left) = std::fs::metadata(&folder) {
            assert_ne!((limit, left.uid()), (limit, 0));
            assert_eq!((limit, left.mode() & 0o777), (limit, 0o755));
            std::fs::remove_dir(&folder).expect("it is empty");
        }
    }
    assert!(tried > 0);
}
