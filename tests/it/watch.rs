//! `watch:` and `listend exec --watch`: a worker is restarted when files change, and clients wait or are served.

use crate::harness::load::Load;
use crate::harness::rollout::{nobody_is_lost, status, tell};
use crate::harness::varlink::Varlink;
use crate::harness::{DEADLINE, Daemon, Start, World, children, eventually, kill};
use nix::sys::signal::Signal;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;

/// A server that is built before it runs: `src/build` is the compiler, `src/version` the program.
const BUILD: &str = "sh $DIR/src/build && exec $PROBE serve-app --version $(cat $DIR/src/version)";

/// Sources of which the build works.
fn project(world: &World) {
    fs::create_dir_all(world.path("src/out")).expect("it is ours");
    world.write("src/.gitignore", "out/\n*.log\n");
    world.write("src/build", "exit 0\n");
    world.write("src/version", "one\n");
}

fn changes(daemon: &Daemon) -> usize {
    daemon.lines_so_far(&["changed; restarting it"]).len()
}

#[test]
fn a_command_is_built_and_replaced_when_its_sources_change() {
    let world = World::new();
    project(&world);
    let command = world.fill(BUILD);
    let words = [
        "exec",
        "--nonblocking",
        "--watch",
        "$DIR/src",
        "-l",
        "web=127.0.0.1:0",
    ];
    let words = words.into_iter().chain(["--", "sh", "-c", &command]);
    let daemon = world.start(Start::new(words));
    let load = Load::start(daemon.address("web"), 4);
    load.wait_for_version("one", 20);
    daemon.line(&["it is restarted when one of 2 files changes"]);

    world.write("src/version", "two\n");
    load.wait_for_version("two", 20);
    daemon.line(&["has taken over"]);

    // A build that fails leaves what runs, and says so.
    world.write("src/build", "echo no such function >&2; exit 1\n");
    daemon.line(&["sh: rolled back"]);
    load.wait_for_version("two", 20);
    let before = changes(&daemon);

    // What git ignores is no change.
    world.write("src/out/object", "x");
    world.write("src/x.log", "x");
    world.write("src/version", "three\n");
    world.write("src/build", "exit 0\n");
    load.wait_for_version("three", 20);
    // The two were written one after the other, and may have been two changes.
    assert!(
        (1..=2).contains(&(changes(&daemon) - before)),
        "{}",
        daemon.stderr()
    );
    nobody_is_lost(load);
    daemon.stop();
}

#[test]
fn clients_wait_until_the_first_build_that_works() {
    let world = World::new();
    project(&world);
    world.write("src/build", "exit 1\n");
    let command = world.fill(BUILD);
    let words = [
        "exec",
        "--nonblocking",
        "--watch",
        "$DIR/src",
        "-l",
        "web=127.0.0.1:0",
    ];
    let words = words.into_iter().chain(["--", "sh", "-c", &command]);
    let daemon = world.start(Start::new(words));
    let mut waiting = TcpStream::connect(daemon.address("web")).expect("it is open");
    waiting.set_read_timeout(Some(DEADLINE)).expect("a socket");
    waiting
        .write_all(b"GET / HTTP/1.0\r\n\r\n")
        .expect("it takes it");
    daemon.line(&["sh.0: exited with exit status 1"]);
    daemon.line(&["it is restarted when one of 2 files changes"]);
    world.write("src/build", "exit 0\n");
    let mut answer = String::new();
    waiting.read_to_string(&mut answer).expect("an answer");
    assert!(answer.contains("one"), "{answer}");
    daemon.stop();
}

#[test]
fn a_worker_of_a_configuration_is_watched_and_the_watcher_may_do_nothing_else() {
    let world = World::new();
    project(&world);
    let yaml = "
listeners: { web: '127.0.0.1:0' }
workers:
  app:
    command: [sh, -c, 'sh $DIR/src/build && exec $PROBE serve-app --version $(cat $DIR/src/version)']
    listeners: [web]
    nonblocking: true
    ready: notify
    watch: src
    rollout: { min_ready: 20ms }
  other: { command: [sleep, 1h] }
";
    let daemon = crate::harness::rollout::run(&world, yaml);
    let mut client = Varlink::connect(&world);
    daemon.line(&["it is restarted when one of 2 files changes"]);
    // It is listend's own, and not shown.
    let printed = tell(&world, &["status"]).expect_code(0).stdout;
    assert!(!printed.contains("watch"), "{printed}");
    let of_it = || {
        let all = children(daemon.pid()).into_iter();
        let mut found = all.filter(|pid| {
            let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.contains("__watch")
        });
        found.next()
    };
    // One that is killed is started again, and looks again.
    let first = of_it().expect("a process");
    kill(first, Signal::SIGKILL);
    daemon.lines(&["it is restarted when one of 2 files changes"], 2);
    world.write("src/version", "two\n");
    daemon.line(&["app: generation 2 has taken over"]);
    assert_eq!(status(&mut client)["generation"], 2);

    // Without the key it ends.
    let without = yaml.replace("    watch: src\n", "");
    world.write("listend.yaml", &without);
    tell(&world, &["reload"]).expect_code(0);
    eventually("nothing watches", || of_it().is_none());
    world.write("src/version", "three\n");
    world.write("listend.yaml", yaml);
    tell(&world, &["reload"]).expect_code(0);
    daemon.lines(&["it is restarted when one of 2 files changes"], 3);
    // It was written while nothing watched.
    daemon.line(&["app: generation 3 has taken over"]);
    world.write("src/version", "four\n");
    daemon.line(&["app: generation 4 has taken over"]);
    daemon.stop();
}

#[test]
fn what_cannot_be_watched_is_said() {
    let world = World::new();
    let yaml = "
workers:
  app: { command: [sleep, 1h], watch: [nothing] }
";
    let daemon = crate::harness::rollout::run(&world, yaml);
    daemon.line(&["cannot watch files", "nothing: "]);
    daemon.stop();
    world.write("bad.yaml", "workers: { app: { command: x, watch: '' } }");
    let finished = world
        .finish(["check", "--no-bind", "-c", "$DIR/bad.yaml"])
        .expect_code(78);
    assert!(
        finished.stderr.contains("`watch`: it is no path"),
        "{finished:?}"
    );
}
