//! `listend run --take-over`: what a listend that was killed has left behind, without any keeper.

use crate::harness::left::kill_daemon;
use crate::harness::load::Load;
use crate::harness::reloading::{address, ask, rewrite, run, state_of};
use crate::harness::{
    Daemon, Finished, Start, World, children, client, eventually, exists, free_port, kill,
    listend_path, public_probe, require_root, require_tool,
};
use nix::sys::signal::Signal;
use std::fs;
use std::io::Write;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::time::{Duration, SystemTime};

fn again_with(world: &World, words: &[&str]) -> Daemon {
    let mut start = Start::new(["run", "-c", "$DIR/listend.yaml"]);
    start.words_behind(words.iter().copied());
    if !start.has_word("--control") {
        start.words_behind(["--control", "$DIR/control.sock"]);
    }
    world.start(start)
}

fn take_over(world: &World) -> Daemon {
    again_with(world, &["--take-over"])
}

fn app(port: u16, more: &str) -> String {
    format!(
        "
listeners: {{ web: {{ address: ['127.0.0.1:{port}', 'unix:$DIR/web'] }} }}
workers:
  app:
    command: [$PROBE, serve-app, --outlive, --version, one]
    listeners: [web]
    nonblocking: true
    instances: 2
    output: inherit
    rollout: {{ min_ready: 0s }}
    restart: {{ backoff: 1ms, limit: none }}{more}
"
    )
}

fn names_them(said: &Finished, workers: &[i32], port: u16) {
    for words in [
        "orphaned-workers".to_owned(),
        format!("127.0.0.1:{port}"),
        format!("app.0 (pid {}", workers[0]),
        format!("app.1 (pid {}", workers[1]),
        "--take-over".to_owned(),
    ] {
        let text = said.text();
        assert!(text.contains(&words), "{words}: {text}");
    }
}

// Rule: the next start says whose the processes are that have its addresses, and takes nothing.
#[test]
fn the_next_start_names_the_workers_that_were_left_behind() {
    let world = World::new();
    let port = free_port();
    let daemon = run(&world, &app(port, ""));
    daemon.lines(&["app.", "started"], 2);
    let mut left = kill_daemon(&daemon);
    left.0.sort_unstable();
    let checked = world.finish(["check", "-c", "$DIR/listend.yaml"]);
    names_them(&checked.expect_code(69), &left.0, port);
    let refused = again_with(&world, &[]).finish().expect_code(69);
    names_them(&refused, &left.0, port);
    assert!(left.0.iter().all(|pid| exists(*pid)));
    client::tcp(address(port)).expect("they go on");
}

// Rule: the sockets, their queues and the workers stay, and are supervised again; no client notices.
#[test]
fn a_take_over_under_load_loses_nobody() {
    let world = World::new();
    let port = free_port();
    let daemon = run(&world, &app(port, ""));
    daemon.lines(&["app.", "started"], 2);
    let by_port = Load::start(address(port), 2);
    let by_path = Load::start(world.path("web").as_path(), 2);
    by_port.wait_for_answers(20);
    let mut left = kill_daemon(&daemon);
    by_port.wait_for_answers(20);
    let daemon = take_over(&world);
    eventually("it is up", || {
        state_of(&world, "workers", "app") == "running"
    });
    by_port.wait_for_answers(20);
    by_path.wait_for_answers(20);
    assert!(left.0.iter().all(|pid| exists(*pid)), "{}", daemon.stderr());
    for load in [by_port, by_path] {
        load.wait_for_answers(20);
        let summary = load.stop();
        assert_eq!(summary.counts.failed(), 0, "{summary}");
    }
    kill(left.0[0], Signal::SIGKILL);
    daemon.line(&["app.", "started, pid"]);
    daemon.stop();
    left.0.retain(|pid| exists(*pid));
    assert_eq!(left.0, Vec::<i32>::new(), "they are stopped with listend");
    assert!(!world.path("web").exists(), "what listend made, it removes");
}

// Rule: what waits in the queues is served, datagrams too; what a worker notifies is heard.
#[test]
fn queues_and_notifications_go_on() {
    for control in ["$DIR/control.sock", "none"] {
        let world = World::new();
        let (port, packets) = (free_port(), free_port());
        let yaml = format!(
            "
listeners:
  web: '127.0.0.1:{port}'
  local: 'unix:$DIR/local'
  packets: 'udp://127.0.0.1:{packets}'
workers:
  app:
    command: [$PROBE, heir, $EVENTS]
    listeners: [web, local, packets]
    output: inherit
    ready: notify
    watchdog: 60s
"
        );
        world.write("listend.yaml", &yaml);
        let daemon = again_with(&world, &["--control", control]);
        let mut puppet = world.puppet();
        puppet.ask("notify READY=1");
        daemon.line(&["app.0", "ready"]);
        let left = kill_daemon(&daemon);
        let mut tcp = client::tcp(address(port)).expect("connect");
        tcp.write_all(b"tcp").expect("write");
        let mut unix = UnixStream::connect(world.path("local")).expect("connect");
        unix.write_all(b"unix").expect("write");
        let udp = UdpSocket::bind("127.0.0.1:0").expect("bind");
        udp.send_to(b"udp", address(packets)).expect("send");
        let daemon = again_with(&world, &["--take-over", "--control", control]);
        daemon.line(&["taking over", "3 sockets; processes: 1"]);
        for (fd, text) in [(3, "tcp"), (4, "unix"), (5, "udp")] {
            assert!(puppet.ask(&format!("read {fd}")).contains(text), "{fd}");
        }
        // By then somebody listens again.
        daemon.line(&["every eager worker is ready"]);
        puppet.tell("notify WATCHDOG=trigger");
        daemon.line(&["app.0", "sending SIGABRT"]);
        let mut next = world.puppet();
        next.ask("notify READY=1");
        let sockets = next.report.fds.iter().filter(|fd| fd.number >= 3);
        assert_eq!(sockets.count(), 3, "the sockets");
        daemon.stop();
        drop(left);
    }
}

// Rule: a worker that has lost something, or was started by another configuration, is replaced.
#[test]
fn who_has_lost_the_reader_of_its_output_is_replaced() {
    let world = World::new();
    let port = free_port();
    let daemon = run(&world, &app(port, "").replace("inherit", "tag"));
    daemon.lines(&["app.", "started"], 2);
    let load = Load::start(address(port), 2);
    load.wait_for_answers(20);
    let left = kill_daemon(&daemon);
    let daemon = take_over(&world);
    daemon.line(&["replacing the processes of app", "writes"]);
    let replaced = || left.0.iter().all(|pid| !exists(*pid));
    eventually("they are replaced", replaced);
    load.wait_for_answers(20);
    let summary = load.stop();
    assert_eq!(summary.counts.failed(), 0, "{summary}");
    daemon.stop();
}

// Rule: what the configuration has no place for is told, and stopped when all others are ready.
#[test]
fn what_cannot_be_supervised_is_asked_to_stop() {
    let world = World::new();
    let port = free_port();
    let daemon = run(&world, &app(port, ""));
    daemon.lines(&["app.", "started"], 2);
    let left = kill_daemon(&daemon);
    rewrite(
        &world,
        &app(port, "").replace("instances: 2", "instances: 1"),
    );
    // The times of files and of processes are told by the tick.
    let mut options = fs::File::options();
    let file = options.append(true).open(world.path("listend.yaml"));
    let file = file.expect("open");
    let later = SystemTime::now() + Duration::from_secs(1);
    file.set_modified(later).expect("set the time");
    let daemon = take_over(&world);
    daemon.line(&["app.1", "cannot be supervised", "has 1"]);
    daemon.line(&["app.1", "asked to stop"]);
    daemon.line(&[
        "replacing the processes of app",
        "configuration was changed",
    ]);
    let gone = || left.0.iter().all(|pid| !exists(*pid));
    eventually("they are replaced", gone);
    client::tcp(address(port)).expect("it serves");
    daemon.stop();
}

// Rule: nothing is taken from anybody else, and from no listend that runs.
#[test]
fn nothing_is_taken_from_others() {
    let world = World::new();
    let stranger = TcpListener::bind("127.0.0.1:0").expect("bind");
    let port = stranger.local_addr().expect("an address").port();
    world.write("listend.yaml", &app(port, ""));
    let refused = take_over(&world).finish().expect_code(69);
    assert!(refused.stderr.contains("EADDRINUSE"), "{}", refused.stderr);
    assert!(
        !refused.stderr.contains("left behind hold"),
        "{}",
        refused.stderr
    );
    drop(stranger);
    let daemon = run(&world, &app(port, ""));
    daemon.lines(&["app.", "started"], 2);
    let workers = children(daemon.pid());
    let refused = take_over(&world).finish().expect_code(69);
    let words = "takes nothing from a listend that runs";
    assert!(refused.stderr.contains(words), "{}", refused.stderr);
    let other = again_with(&world, &["--take-over", "--control", "none"]);
    let refused = other.finish().expect_code(69);
    assert!(refused.stderr.contains("EADDRINUSE"), "{}", refused.stderr);
    eventually("there is no other process", || {
        children(daemon.pid()) == workers
    });
    assert!(ask(&world, "status").code == Some(0));
    daemon.stop();
    let nothing = take_over(&world);
    nothing.line(&["no listend has left anything"]);
    nothing.lines(&["app.", "started"], 2);
    nothing.stop();
}

// Rule: of another user nothing is taken; that user can take it.
#[test]
fn only_the_user_who_has_bound_a_socket_takes_it() {
    if !require_root() {
        return;
    }
    let Some(setpriv) = require_tool("setpriv") else {
        return;
    };
    let world = World::new();
    fs::set_permissions(world.dir(), fs::Permissions::from_mode(0o777)).expect("chmod");
    let probe = public_probe(&world);
    let port = free_port();
    let yaml = app(port, "").replace("$PROBE", probe.to_str().expect("UTF-8"));
    world.write("listend.yaml", &yaml);
    let listend = world.path("listend");
    fs::copy(listend_path(), &listend).expect("copy");
    let as_nobody = |words: &[&str]| {
        let mut start = Start::of(&listend, ["run", "-c", "$DIR/listend.yaml"]);
        start.words_behind(["--control", "$DIR/control.sock"]);
        start.words_behind(words.iter().copied());
        let setpriv = setpriv.to_str().expect("UTF-8");
        start.through([
            setpriv,
            "--reuid",
            "65534",
            "--regid",
            "65534",
            "--clear-groups",
            "--",
        ]);
        world.start(start)
    };
    let daemon = as_nobody(&[]);
    daemon.lines(&["app.", "started"], 2);
    let left = kill_daemon(&daemon);
    let refused = take_over(&world).finish().expect_code(69);
    let words = "the socket belongs to user nobody";
    assert!(refused.stderr.contains(words), "{}", refused.stderr);
    let daemon = as_nobody(&["--take-over"]);
    let scope = fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope");
    if scope.is_err() || scope.is_ok_and(|scope| scope.trim() == "0") {
        eventually("it is up", || {
            state_of(&world, "workers", "app") == "running"
        });
        assert!(left.0.iter().all(|pid| exists(*pid)), "{}", daemon.stderr());
        daemon.stop();
    } else {
        let refused = daemon.finish().expect_code(69);
        assert!(
            refused.stderr.contains("ptrace_scope"),
            "{}",
            refused.stderr
        );
    }
}
