//! Each kind of worker goes on, and so does what belongs to listend itself.

use super::{BLOWS, Blow, Guarded, at_each_blow, guarded, is_ready, puppets, wait_for};
use crate::harness::load::Load;
use crate::harness::reloading::{ask, state_of};
use crate::harness::varlink::Varlink;
use crate::harness::{World, client, eventually, exists, kill};
use crate::sandbox::can_mount;
use nix::sys::signal::Signal;
use serde_json::json;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

/// The processes of the daemon, or of the one before, whose command line has this word.
fn with_word(guarded: &Guarded<'_>, word: &str) -> Vec<i32> {
    let mut all = guarded.processes();
    all.retain(|pid| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0)
            .any(|one| one == word.as_bytes())
    });
    all
}

// Rule: a worker in a sandbox goes on in it, and so does its successor.
#[test]
fn a_worker_in_a_sandbox_goes_on() {
    if !can_mount() {
        return;
    }
    let yaml = "
listeners: { web: '127.0.0.1:0' }
workers:
  app:
    command: [$PROBE, heir, $EVENTS]
    listeners: [web]
    ready: notify
    restart: { backoff: 1ms }
    fd_store: 2
    sandbox: { preset: strict, read_write_paths: [$DIR] }
";
    at_each_blow(yaml, |world, guarded, blow| {
        let address = guarded.guard.address("web");
        let mut puppet = world.puppet();
        // It is set up: what it says is heard by the one who comes, too.
        guarded.strike(blow);
        is_ready(&mut puppet);
        wait_for(world, "running");
        puppet.ask("store kept");
        puppet.ask("barrier");
        guarded.strike(blow);
        assert!(exists(puppet.pid()), "{blow:?}");
        puppet.tell("serve");
        assert_eq!(client::ask_tcp(address).pid, puppet.pid(), "{blow:?}");
        kill(puppet.pid(), Signal::SIGKILL);
        let next = world.puppet();
        assert_eq!(next.report.status["NoNewPrivs"], "1", "{blow:?}");
        assert_eq!(next.report.status["Seccomp"], "2", "{blow:?}");
        let fds = next.report.fds.iter();
        let stored = fds.filter(|fd| fd.target.starts_with("/memfd:kept"));
        assert_eq!(stored.count(), 1, "{blow:?}");
        drop(next);
    });
}

// Rule: a sandbox that is being set up when the daemon dies leaves no process that nobody knows.
#[test]
fn sandboxes_that_are_being_set_up_are_known_or_gone() {
    if !can_mount() {
        return;
    }
    let world = World::new();
    let yaml = "
listeners: { web: '127.0.0.1:0' }
workers:
  app:
    command: [$PROBE, serve-app, --outlive, --version, one]
    listeners: [web]
    instances: 8
    restart: { backoff: 1ms..5ms, limit: none }
    sandbox: strict
";
    let mut guarded = guarded(&world, yaml);
    guarded.guard.line(&["every eager worker has started"]);
    for round in 0..4 {
        for pid in with_word(&guarded, "serve-app") {
            // It may be one that has ended.
            let _gone = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL);
        }
        let seen = 2 * round;
        eventually("some are being started", || {
            guarded.processes().len() > seen + 1
        });
        guarded.kill();
    }
    eventually("there are as many as there are to be", || {
        with_word(&guarded, "serve-app").len() == 8 && guarded.processes().len() == 9
    });
    guarded.stop();
}

// Rule: a change of a watched file is noticed, also one of the time in which nobody watched.
#[test]
fn watched_files_are_watched_on() {
    for blow in BLOWS {
        let world = World::new();
        fs::create_dir_all(world.path("src")).expect("it is ours");
        world.write("src/version", "0\n");
        let yaml = "
listeners: { web: '127.0.0.1:0' }
workers:
  app:
    command: [sh, -c, 'exec $PROBE serve-app --outlive --version v$(cat $DIR/src/version)']
    listeners: [web]
    nonblocking: true
    ready: notify
    watch: src
    rollout: { min_ready: 0s }
";
        let mut guarded = guarded(&world, yaml);
        guarded.guard.line(&["it is restarted when a file changes"]);
        let load = Load::start(guarded.guard.address("web"), 2);
        load.wait_for_version("v0", 20);
        guarded.strike(blow);
        // At once: the process that watches may be missing.
        world.write("src/version", "1\n");
        load.wait_for_version("v1", 20);
        if blow == Blow::Kill {
            guarded.kill_and_meanwhile(|| drop(world.write("src/version", "2\n")));
            load.wait_for_version("v2", 20);
        }
        eventually("one process watches", || {
            with_word(&guarded, "__watch").len() == 1
        });
        let summary = load.stop();
        assert_eq!(summary.counts.failed(), 0, "{blow:?}: {summary}");
        guarded.stop();
    }
}

// Rule: what has not changed since an instance was started restarts nobody.
#[test]
fn unchanged_files_restart_nobody() {
    for blow in BLOWS {
        let world = World::new();
        fs::create_dir_all(world.path("src")).expect("it is ours");
        world.write("src/version", "0\n");
        let yaml = "
workers:
  app: { command: [$PROBE, heir, $EVENTS], watch: src }
";
        let mut guarded = guarded(&world, yaml);
        let puppet = world.puppet();
        for count in 1..=2 {
            guarded
                .guard
                .lines(&["it is restarted when a file changes"], count);
            guarded.strike(blow);
        }
        guarded
            .guard
            .lines(&["it is restarted when a file changes"], 3);
        // What it has asked for comes before this answer.
        let _answered = Varlink::connect(&world).ask("Status", json!({}));
        assert!(guarded.guard.lines_so_far(&["restarting it"]).is_empty());
        assert!(exists(puppet.pid()) && world.no_puppet_is_waiting());
        drop(puppet);
        guarded.stop();
    }
}

/// A line, and its echo.
fn converse(stream: &mut BufReader<TcpStream>, line: &str) {
    writeln!(stream.get_mut(), "{line}").expect("write");
    let mut answer = String::new();
    stream.read_line(&mut answer).expect("read");
    assert_eq!(answer.trim_end(), line);
}

// Rule: listend's own processes between clients and servers go on, with their connections.
#[test]
fn forwarded_connections_go_on() {
    let yaml = "
listeners: { web: '127.0.0.1:0' }
workers:
  app:
    command: [$PROBE, backend, '127.0.0.1:{port}']
    forward: '127.0.0.1:{port}'
    listeners: [web]
";
    at_each_blow(yaml, |world, guarded, blow| {
        guarded.guard.line(&["every eager worker is ready"]);
        let address: SocketAddr = guarded.guard.address("web");
        let connect = || {
            let mut stream = BufReader::new(client::tcp(address).expect("connect"));
            writeln!(stream.get_mut(), "echo").expect("write");
            stream
        };
        let mut before = connect();
        converse(&mut before, "one");
        for round in 0..2 {
            guarded.strike(blow);
            converse(&mut before, &format!("{round}"));
            let mut after = connect();
            converse(&mut after, "two");
        }
        drop(before);
        assert_eq!(state_of(world, "workers", "app"), "running", "{blow:?}");
    });
}

// Rule: the page is served by whoever goes on, and at once however often listend is replaced: what asks it ends
// with it, which is no crash.
#[test]
fn the_page_is_served_afterwards() {
    let yaml = "
workers: { app: { command: [$PROBE, heir, $EVENTS], watch: $DIR/listend.yaml } }
web: '127.0.0.1:0'
";
    at_each_blow(yaml, |world, guarded, blow| {
        let address = guarded.guard.address("listend:web");
        let puppet = world.puppet();
        let page = || {
            let mut stream = client::tcp(address).expect("connect");
            let asked = stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
            let mut answer = String::new();
            // One that is cut is asked again.
            asked
                .and_then(|()| stream.read_to_string(&mut answer))
                .map(|_| answer)
        };
        for _ in 0..4 {
            eventually("it is served", || {
                page().is_ok_and(|answer| answer.contains("listend_worker_instances"))
            });
            guarded.strike(blow);
        }
        eventually("it is served", || {
            page().is_ok_and(|answer| answer.contains("listend_worker_instances"))
        });
        for word in ["web", "__watch"] {
            let what = format!("there is one process `{word}`");
            eventually(&what, || with_word(guarded, word).len() == 1);
        }
        for later in ["restarting in", "at the earliest"] {
            let said = guarded.guard.lines_so_far(&["listend:", later]);
            assert!(said.is_empty(), "{said:#?}");
        }
        drop(puppet);
    });
}

// Rule: who has asked the page when listend dies is told so.
#[test]
fn who_asks_the_page_meanwhile_is_told_to_come_again() {
    let world = World::new();
    let yaml = "
workers: { app: { command: [$PROBE, heir, $EVENTS] } }
metrics: '127.0.0.1:0'
";
    let mut guarded = guarded(&world, yaml);
    let address = guarded.guard.address("listend:metrics");
    let puppet = world.puppet();
    let ask = || {
        let mut stream = client::tcp(address).expect("connect");
        let question = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";
        stream.write_all(question).expect("write");
        stream
    };
    let answer = |mut stream: TcpStream| {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).map(|_| answer)
    };
    eventually("it is told so", || {
        assert!(answer(ask()).is_ok(), "the page is there");
        kill(guarded.daemon, Signal::SIGSTOP);
        let stream = ask();
        guarded.kill();
        // It is served by the next process if this one had not accepted it.
        answer(stream).is_ok_and(|answer| answer.starts_with("HTTP/1.1 503 "))
    });
    drop(puppet);
    guarded.stop();
}

// Rule: an instance that is to go accepts who waits in its shard, whoever sees to it.
#[test]
fn a_shard_is_served_to_its_end() {
    let yaml = "
listeners: { web: '127.0.0.1:0' }
workers:
  app:
    command: [$PROBE, heir, $EVENTS]
    listeners: [web]
    instances: 2
    distribute: shards
    ready: notify
    environment: { N: '{instance}' }
";
    at_each_blow(yaml, |world, guarded, blow| {
        let address = guarded.guard.address("web");
        let mut puppets = world.puppets(2);
        puppets.sort_by_key(|puppet| puppet.report.env["N"].clone());
        for puppet in &mut puppets {
            is_ready(puppet);
        }
        puppets[1].ask("drain");
        wait_for(world, "running");
        let waiting: Vec<_> = (0..40)
            .map(|_| client::tcp(address).expect("connect"))
            .collect();
        let scale = json!({ "worker": "app", "instances": 1, "no_wait": true });
        Varlink::connect(world).ask("Scale", scale);
        guarded.guard.line(&[
            "app.1",
            "serves the clients in its shard before it is stopped",
        ]);
        guarded.strike(blow);
        guarded.strike(blow);
        let stopped = guarded.guard.lines_so_far(&["app.1", "stopping with"]);
        assert!(stopped.is_empty(), "{blow:?}: {stopped:?}");
        for puppet in &mut puppets {
            puppet.tell("serve");
        }
        let mut by_both = [0, 0];
        for one in waiting {
            let report = client::read_report(one).expect("an answer");
            by_both[usize::from(report.pid == puppets[1].pid())] += 1;
        }
        assert!(by_both[1] > 0, "{blow:?}: {by_both:?}");
        guarded.guard.line(&["app.1", "stopping with"]);
        kill(puppets[1].pid(), Signal::SIGKILL);
        drop(puppets);
    });
}

// Rule: a reload whose configuration is being read at a kill did not happen, and leaves no process.
#[test]
fn a_reload_that_is_being_checked_did_not_happen() {
    let world = World::new();
    let mut guarded = guarded(&world, &puppets(""));
    let mut puppet = world.puppet();
    is_ready(&mut puppet);
    // What reads it waits for it.
    let file = world.path("listend.yaml");
    let text = fs::read_to_string(&file).expect("the configuration");
    fs::remove_file(&file).expect("remove");
    nix::unistd::mkfifo(&file, nix::sys::stat::Mode::S_IRWXU).expect("mkfifo");
    let reload = crate::harness::reloading::begin(&world);
    eventually("it is read", || !with_word(&guarded, "check").is_empty());
    guarded.kill();
    reload.finish().expect_code(69);
    eventually("nobody reads it any more", || {
        with_word(&guarded, "check").is_empty()
    });
    assert!(exists(puppet.pid()));
    fs::remove_file(&file).expect("remove");
    fs::write(&file, text).expect("write");
    ask(&world, "reload").expect_code(0);
    drop(puppet);
    guarded.stop();
}
