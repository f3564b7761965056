//! The real daemon below it.

use super::names;
use crate::harness::client;
use crate::harness::reloading::{ask, begin, reload, rewrite};
use crate::harness::varlink::Varlink;
use crate::harness::{
    Daemon, Puppet, Start, World, children, context_switches, eventually, exists, free_port, kill,
    listend_path, settled,
};
use nix::sys::signal::Signal;
use serde_json::json;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

const ONE: &str = "
listeners: { web: '127.0.0.1:0' }
workers: { app: { command: [$PROBE, puppet, $EVENTS], listeners: [web] } }
";

fn guarded(world: &World, yaml: &str) -> Daemon {
    world.run_with(yaml, |start| {
        start.words_behind(["--guard"]);
    })
}

/// The guard closes its copy of a socket when it comes to that.
#[test]
fn a_reload_waits_for_an_address_that_was_given_up_a_moment_ago() {
    let world = World::new();
    let port = free_port();
    let few = "listeners: { own: '127.0.0.1:0' }\n".to_owned();
    let more = few.replace(" }", &format!(", web: '127.0.0.1:{port}' }}"));
    let guard = world.run_with(&more, |start| {
        start.words_behind(["--guard", "--control", "$DIR/control.sock"]);
    });
    guard.line(&["every eager worker is ready"]);
    guard.signal(Signal::SIGSTOP);
    rewrite(&world, &few);
    let given_up = begin(&world);
    guard.line(&["closed 127.0.0.1"]);
    rewrite(&world, &more);
    let before = guard.lines_so_far(&["reload", "uid"]).len();
    let asked = begin(&world);
    let is_asked = || guard.lines_so_far(&["reload", "uid"]).len() > before;
    eventually("it is asked", is_asked);
    guard.signal(Signal::SIGCONT);
    given_up.finish().expect_code(0);
    asked.finish().expect_code(0);
    TcpStream::connect(("127.0.0.1", port)).expect("it listens");
    guard.stop();
}

// Rule: what a reload has given up can be bound by others when it is answered.
#[test]
fn a_reload_is_answered_when_the_guard_has_closed_what_it_gives_up() {
    let world = World::new();
    let port = free_port();
    let few = "listeners: { own: '127.0.0.1:0' }\n".to_owned();
    let more = few.replace(" }", &format!(", web: '127.0.0.1:{port}' }}"));
    let guard = world.run_with(&more, |start| {
        start.words_behind(["--guard", "--control", "$DIR/control.sock"]);
    });
    guard.line(&["every eager worker is ready"]);
    for _ in 0..10 {
        reload(&world, &few);
        drop(TcpListener::bind(("127.0.0.1", port)).expect("it is free"));
        reload(&world, &more);
    }
    // One that does not come to it is not waited for without an end.
    guard.signal(Signal::SIGSTOP);
    let asked = Instant::now();
    reload(&world, &few);
    assert!(asked.elapsed() > Duration::from_secs(1), "it is waited for");
    guard.signal(Signal::SIGCONT);
    eventually("it is free", || {
        TcpListener::bind(("127.0.0.1", port)).is_ok()
    });
    guard.stop();
}

#[test]
fn the_daemon_runs_below_it_and_stops_with_it() {
    let world = World::new();
    let manager = UnixDatagram::bind(world.path("notify")).expect("bind");
    manager
        .set_read_timeout(Some(crate::harness::DEADLINE))
        .expect("timeout");
    let guard = world.run_with(ONE, |start| {
        start.words_behind(["--guard"]);
        start.env("NOTIFY_SOCKET", "$DIR/notify");
    });
    let puppet = world.puppet();
    let daemon = guard.guarded(1)[0];
    assert_eq!(puppet.report.ppid, daemon);
    assert_eq!(children(guard.pid()), [daemon]);
    let words = fs::read_to_string(format!("/proc/{daemon}/cmdline")).expect("its arguments");
    assert!(
        words.contains("\0run\0") && !words.contains("--guard"),
        "{words:?}"
    );
    let hears = |wanted: &str| {
        let mut buffer = [0; 4096];
        loop {
            let length = manager.recv(&mut buffer).expect("a message");
            let said = String::from_utf8_lossy(&buffer[..length]);
            assert!(!said.contains("FDSTORE="), "{said}");
            if said.starts_with(wanted) {
                return;
            }
        }
    };
    hears("READY=1\nSTATUS=1 listener, 1 of 1 worker ready");
    guard.signal(Signal::SIGHUP);
    hears("RELOADING=1\nMONOTONIC_USEC=");
    hears("READY=1\n");
    guard.stop();
    hears("STOPPING=1\n");
    assert!(!exists(daemon) && !exists(puppet.pid()));
}

#[test]
fn a_mistake_in_the_configuration_ends_both_with_its_code() {
    let world = World::new();
    let finished = guarded(&world, "listeners: { web: nonsense }").finish();
    assert!(finished.stderr.contains("nonsense"), "{finished:#?}");
    finished.expect_code(78);
    world
        .finish(["run", "--guard", "--nonsense"])
        .expect_code(64);
}

#[test]
fn a_daemon_that_is_killed_is_started_again() {
    let world = World::new();
    let guard = guarded(&world, ONE);
    let puppet = world.puppet();
    guard.line(&["every eager worker has started"]);
    let first = guard.guarded(1)[0];
    kill(first, Signal::SIGKILL);
    let second = guard.guarded(2)[1];
    assert_ne!(first, second);
    drop(puppet);
    let _puppet = world.puppet();
    guard.stop();
}

/// One whose control and notify sockets are in a folder of their own, and its worker.
fn with_own_folder(world: &World) -> (Daemon, Puppet) {
    let yaml = "
listeners: { web: '127.0.0.1:0' }
workers: { app: { command: [$PROBE, heir, $EVENTS], listeners: [web], ready: notify } }
";
    let guard = world.run_with(yaml, |start| {
        start.words_behind(["--guard", "--control", "$DIR/own/control.sock"]);
    });
    let mut puppet = world.puppet();
    puppet.ask("notify READY=1");
    (guard, puppet)
}

/// Whether the status at the control socket of that folder has these words.
fn is_told(world: &World, words: &str) -> bool {
    let told = Varlink::to(&world.path("own/control.sock")).ask("Status", json!({}));
    told.to_string().contains(words)
}

// Rule: a socket of listend's own that is made again replaces the one that is kept.
#[test]
fn a_control_socket_that_was_made_again_is_the_one_that_outlives_the_daemon() {
    let world = World::new();
    let (guard, mut puppet) = with_own_folder(&world);
    let places = ["control.sock", "control.notify"].map(|name| world.path("own").join(name));
    let are_there_once = || {
        let all = fs::read_to_string("/proc/net/unix").expect("the table");
        places.iter().all(|path| {
            let path = path.to_str().expect("UTF-8");
            all.lines().filter(|line| line.ends_with(path)).count() == 1
        })
    };
    for round in 1..=3 {
        let daemon = guard.guarded(round)[round - 1];
        let told = format!("round {round}");
        puppet.ask(&format!("notify STATUS={told}"));
        eventually("it is told", || is_told(&world, &told));
        kill(daemon, Signal::SIGSTOP);
        fs::remove_dir_all(world.path("own")).expect("remove the folder");
        kill(daemon, Signal::SIGCONT);
        guard.lines(&["control socket", "removed", "restored"], round);
        guard.lines(&["notify socket", "removed", "restored"], round);
        eventually("the old ones are closed", are_there_once);
        kill(daemon, Signal::SIGKILL);
        guard.guarded(round + 1);
        guard.lines(&["going on where listend"], round);
        eventually("those that were kept go on", are_there_once);
    }
    drop(puppet);
    guard.stop();
}

// What cleans up /run does not look whether the daemon lives.
#[test]
fn a_daemon_goes_on_whose_own_sockets_were_removed_while_it_was_dead() {
    let world = World::new();
    let (guard, mut puppet) = with_own_folder(&world);
    guard.line(&["app.0", "ready after"]);
    let daemon = guard.guarded(1)[0];
    kill(daemon, Signal::SIGSTOP);
    fs::remove_dir_all(world.path("own")).expect("remove the folder");
    kill(daemon, Signal::SIGKILL);
    guard.guarded(2);
    guard.line(&["going on where listend"]);
    guard.line(&["control socket", "removed; restored"]);
    guard.line(&["notify socket", "removed; restored"]);
    puppet.ask("notify STATUS=heard");
    eventually("it is told", || is_told(&world, "heard"));
    drop(puppet);
    guard.stop();
}

// Rule: what is known of a socket's file is believed of that socket, and not of the one before it.
#[test]
fn a_daemon_goes_on_with_own_sockets_that_the_guard_has_not_got_yet() {
    let world = World::new();
    let (guard, mut puppet) = with_own_folder(&world);
    guard.line(&["app.0", "ready after"]);
    let daemon = guard.guarded(1)[0];
    let environment = fs::read(format!("/proc/{daemon}/environ")).expect("the environment");
    let mut variables = environment.split(|byte| *byte == 0);
    let to = variables.find_map(|one| str::from_utf8(one).ok()?.strip_prefix("NOTIFY_SOCKET="));
    let to = to.expect("the socket of the guard");
    guard.signal(Signal::SIGSTOP);
    // Nothing more gets to it.
    loop {
        let socket = UnixDatagram::unbound().expect("socket");
        socket.set_nonblocking(true).expect("set the flag");
        if socket.send_to(b"X=1", to).is_err() {
            break;
        }
    }
    kill(daemon, Signal::SIGSTOP);
    fs::remove_dir_all(world.path("own")).expect("remove the folder");
    kill(daemon, Signal::SIGCONT);
    guard.line(&["notify socket", "removed; restored"]);
    // Answered only after everything is written.
    assert!(is_told(&world, "app.0"));
    kill(daemon, Signal::SIGKILL);
    guard.signal(Signal::SIGCONT);
    guard.guarded(2);
    guard.line(&["going on where listend"]);
    guard.line(&["control socket", "replaced; restored"]);
    guard.line(&["notify socket", "replaced; restored"]);
    puppet.ask("notify STATUS=heard");
    eventually("it is told", || is_told(&world, "heard"));
    drop(puppet);
    guard.stop();
}

#[test]
fn what_a_worker_has_stored_outlives_the_daemon() {
    let world = World::new();
    let yaml = "
listeners: { web: '127.0.0.1:0' }
workers:
  app:
    command: [$PROBE, heir, $EVENTS]
    listeners: [web]
    ready: notify
    fd_store: 4
    restart: { policy: always, backoff: 1ms, limit: none }
";
    let guard = world.run_with(yaml, |start| {
        start.words_behind(["--guard", "--control", "$DIR/control.sock"]);
    });
    let mut puppet = world.puppet();
    puppet.ask("notify READY=1");
    puppet.ask("store left");
    puppet.ask("barrier");
    // Asked after the turn in which it was stored.
    ask(&world, "status").expect_code(0);
    let daemon = guard.guarded(1)[0];
    kill(daemon, Signal::SIGKILL);
    guard.guarded(2);
    puppet.tell("exit 3");
    let next = world.puppet();
    let stored = next.report.fds.iter().filter(|fd| fd.number == 4).count();
    assert_eq!(stored, 1, "the descriptor that was stored");
    drop(next);
    guard.stop();
}

#[test]
fn after_an_upgrade_the_new_program_is_started_and_this_one_while_there_is_none() {
    let world = World::new();
    let link = world.path("listend");
    symlink(listend_path(), &link).expect("a link");
    let file = world.write("listend.yaml", ONE);
    let file = file.to_str().expect("UTF-8");
    let mut start = Start::of(&link, ["run", "-c", file, "--guard"]);
    start.words_behind(["--control", "none"]);
    let guard = world.start(start);
    let _worker = world.puppet();
    guard.line(&["every eager worker has started"]);
    // The package is being replaced.
    fs::remove_file(&link).expect("remove");
    let daemon = guard.guarded(1)[0];
    kill(daemon, Signal::SIGKILL);
    let _worker = world.puppet();
    let daemon = guard.guarded(2)[1];
    let program = fs::read_link(format!("/proc/{daemon}/exe")).expect("its program");
    assert_eq!(program, fs::canonicalize(listend_path()).expect("a path"));
    guard.line(&["going on where listend"]);
    // There is a new one.
    world.write_script("listend", "#!/bin/sh\nexec $PROBE puppet $EVENTS \"$@\"\n");
    kill(daemon, Signal::SIGKILL);
    let mut new = world.puppet();
    assert_eq!(
        new.report.argv[3..],
        ["run", "-c", file, "--control", "none"]
    );
    assert_eq!(new.pid(), guard.guarded(3)[2]);
    let _nothing_yet = names(&new);
    new.tell("exit 0");
    assert_eq!(guard.status().code(), Some(0));
}

/// In KiB, what no other process shares.
fn private_kib(pid: i32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("the process runs");
    let lines = text.lines().filter(|line| line.starts_with("Private_"));
    let numbers = lines.filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    numbers.sum()
}

#[test]
fn it_sleeps_while_nothing_happens_and_takes_little_memory() {
    let world = World::new();
    let guard = guarded(&world, ONE);
    let mut worker = world.puppet();
    guard.line(&["every eager worker has started"]);
    settled(guard.pid());
    let before = context_switches(guard.pid());
    // What the daemon does with its workers is nothing to it.
    let address = guard.address("web");
    for _ in 0..100 {
        drop(client::tcp(address).expect("connect"));
        worker.ask("option 3 1 2 1");
    }
    std::thread::sleep(std::time::Duration::from_secs(2));
    let after = context_switches(guard.pid());
    assert_eq!(after, before);
    let private = private_kib(guard.pid());
    // A debug build has more tables that the loader writes to.
    let most = if cfg!(debug_assertions) { 2560 } else { 1024 };
    assert!(private <= most, "{private} KiB");
    eventually("it sleeps", || {
        crate::harness::state(guard.pid()) == Some('S')
    });
    guard.stop();
}
