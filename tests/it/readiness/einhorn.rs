//! `ready: einhorn`: what workers say at the socket of einhorn, and who says it.

use crate::harness::app::PUPPET;
use crate::harness::reloading::state_of;
use crate::harness::varlink::Varlink;
use crate::harness::{
    Daemon, Puppet, World, children, descriptors, eventually, first_free, public_probe,
    require_root, require_tool,
};
use serde_json::json;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// As Python's client says it.
const JSON: &str = r#"{"command": "worker:ack", "pid": 1}"#;
const EINHORN: &str = "handoff: einhorn\nready: einhorn";

/// A worker `app` of this command, with these further lines, and a daemon that says everything.
fn run(world: &World, command: &str, lines: &str) -> Daemon {
    super::run(world, command, &format!("listeners: [web]\n{lines}"))
}

fn with_puppet(world: &World, lines: &str) -> (Daemon, Puppet) {
    let daemon = run(world, PUPPET, lines);
    (daemon, world.puppet())
}

fn is_up(daemon: &Daemon) {
    daemon.line(&["every eager worker is ready"]);
}

fn path(puppet: &Puppet) -> PathBuf {
    puppet.report.env["EINHORN_SOCK_PATH"].clone().into()
}

/// Says it from this process, which is no worker's.
fn intrude(socket: &PathBuf, line: &str) {
    let mut stream = UnixStream::connect(socket).expect("connect");
    // It may be closed by now.
    let _ = stream.write_all(format!("{line}\n").as_bytes());
}

// --- What is said ---------------------------------------------------------------------------------

#[test]
fn what_the_clients_of_each_language_say_makes_it_ready() {
    for line in [
        JSON,
        "---%0Acommand: worker:ack%0Apid: 1%0A",
        "command: worker:ack%0Apid: 1%0A",
        "---%0Acommand:%20worker:ack%0Apid:%201",
    ] {
        let world = World::new();
        let (daemon, mut puppet) = with_puppet(&world, EINHORN);
        assert_eq!(state_of(&world, "workers", "app"), "starting", "{line}");
        assert_eq!(puppet.ask(&format!("ack {line}")), "ack");
        is_up(&daemon);
        daemon.line(&["app.0: sent worker:ack"]);
        daemon.stop();
    }
}

#[test]
fn the_socket_is_beside_the_control_socket_and_goes_with_it() {
    let world = World::new();
    let at = world.path("control.einhorn");
    // One that a listend left that was killed.
    drop(std::os::unix::net::UnixListener::bind(&at).expect("bind"));
    let (daemon, mut puppet) = with_puppet(&world, "handoff: [systemd, einhorn]");
    // Nobody waits for it, and its libraries want it all the same.
    daemon.line(&["every eager worker has started"]);
    assert_eq!(path(&puppet), at);
    let mode = fs::metadata(&at).expect("the socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o666);
    puppet.ask(&format!("ack {JSON}"));
    puppet.ask(r#"ack {"command": "worker:ping", "pid": 1, "request_id": 7}"#);
    daemon.line(&["app.0: sent worker:ack"]);
    assert!(daemon.lines_so_far(&["einhorn socket:"]).is_empty());
    // A path that somebody removes is restored.
    fs::remove_file(&at).expect("remove");
    daemon.line(&["einhorn socket:", "restored"]);
    assert_eq!(puppet.ask(&format!("ack {JSON}")), "ack");
    daemon.lines(&["app.0: sent worker:ack"], 2);
    daemon.stop();
    assert!(!at.exists());
}

#[test]
fn a_worker_of_another_handoff_gets_no_socket() {
    let world = World::new();
    let (daemon, puppet) = with_puppet(&world, "");
    assert!(!puppet.report.env.contains_key("EINHORN_SOCK_PATH"));
    assert!(!world.path("control.einhorn").exists());
    daemon.stop();
}

#[test]
fn an_acknowledgement_is_no_notification_and_no_notification_is_one() {
    let world = World::new();
    let (daemon, mut puppet) = with_puppet(&world, "handoff: einhorn\nready: notify");
    puppet.ask(&format!("ack {JSON}"));
    daemon.line(&["app.0: sent worker:ack"]);
    assert_eq!(state_of(&world, "workers", "app"), "starting");
    puppet.ask("notify READY=1");
    is_up(&daemon);
    daemon.stop();
    let world = World::new();
    let (daemon, mut puppet) = with_puppet(&world, &format!("{EINHORN}\nnotify_access: main"));
    puppet.ask("notify READY=1");
    daemon.line(&["app.0: sent [Ready]"]);
    assert_eq!(state_of(&world, "workers", "app"), "starting");
    puppet.ask(&format!("ack {JSON}"));
    is_up(&daemon);
    daemon.stop();
}

#[test]
fn what_is_no_acknowledgement_is_said_once_and_what_follows_counts() {
    let world = World::new();
    let (daemon, mut puppet) = with_puppet(&world, EINHORN);
    puppet.ask("ack state");
    daemon.line(&["WARN", "app.0", "its line has no `command`"]);
    puppet.ask(r#"ack {"command": "upgrade"}"#);
    let other = daemon.line(&["app.0", "`upgrade` is a command of einhorn"]);
    assert!(!other.contains("WARN"), "{other}");
    puppet.ask(&format!("ack {}", "x".repeat(5000)));
    daemon.line(&["app.0", "its line is too long"]);
    // As many as may wait, and some more.
    for _ in 0..70 {
        puppet.ask("ack");
    }
    daemon.lines(&["app.0", "too many have connected"], 6);
    assert_eq!(state_of(&world, "workers", "app"), "starting");
    puppet.ask(&format!("ack {JSON}"));
    is_up(&daemon);
    daemon.stop();
}

#[test]
fn one_that_says_it_and_ends_at_once_was_ready() {
    let world = World::new();
    let lines = format!("{EINHORN}\nrestart: never");
    let (daemon, mut puppet) = with_puppet(&world, &lines);
    daemon.pause();
    puppet.ask(&format!("ack {JSON}"));
    puppet.tell("exit 3");
    eventually("it has ended", || {
        crate::harness::state(puppet.pid()) == Some('Z')
    });
    daemon.resume();
    daemon.line(&["app.0", "ready after"]);
    daemon.stop();
}

// --- Who says it ----------------------------------------------------------------------------------

#[test]
fn nobody_else_says_it_for_a_worker() {
    let world = World::new();
    let (daemon, mut puppet) = with_puppet(&world, EINHORN);
    let line = format!(r#"{{"command": "worker:ack", "pid": {}}}"#, puppet.pid());
    for _ in 0..3 {
        intrude(&path(&puppet), &line);
    }
    let refused = daemon.lines(&["einhorn socket: closed the connection of pid"], 3);
    let warned = refused.iter().filter(|line| line.contains("WARN")).count();
    assert_eq!(warned, 1, "{refused:#?}");
    assert_eq!(state_of(&world, "workers", "app"), "starting");
    puppet.ask(&format!("ack {JSON}"));
    is_up(&daemon);
    daemon.stop();
}

#[test]
fn another_user_s_word_does_not_count_and_a_worker_s_of_another_user_does() {
    if !require_root() {
        return;
    }
    let world = World::new();
    let probe = public_probe(&world);
    let command = format!("[{}, puppet, $EVENTS]", probe.display());
    let daemon = run(&world, &command, &format!("{EINHORN}\nuser: nobody"));
    let mut puppet = world.puppet();
    let line = format!(
        "{{\"command\": \"worker:ack\", \"pid\": {}}}\n",
        puppet.pid()
    );
    // The worker's own user, and somebody who is neither that nor root.
    for uid in [65534, 4242] {
        let mut intruder = Command::new(&probe);
        intruder
            .args(["send", "unix"])
            .arg(path(&puppet))
            .args([&line, "5"])
            .stderr(Stdio::null())
            .uid(uid);
        // It may be cut off while it writes.
        let _either_way = intruder.status().expect("start the probe");
        daemon.line(&["closed the connection of pid", &format!("of uid {uid}")]);
    }
    assert_eq!(state_of(&world, "workers", "app"), "starting");
    puppet.ask(&format!("ack {JSON}"));
    is_up(&daemon);
    daemon.stop();
}

#[test]
fn a_child_says_it_for_its_worker_and_not_for_another() {
    let world = World::new();
    let yaml = format!(
        "
workers:
  app: {{ command: {PUPPET}, handoff: einhorn, ready: einhorn, kill_mode: group }}
  other: {{ command: {PUPPET}, handoff: einhorn, ready: einhorn }}
"
    );
    let daemon = world.run_with(&yaml, |start| {
        start.words_behind(["--control", "$DIR/control.sock", "--log-level", "debug"]);
    });
    let mut puppets = world.puppets(2);
    puppets.sort_by_key(|puppet| puppet.report.env["LISTEND_INSTANCE"].clone());
    let [app, other] = &mut puppets[..] else {
        panic!("two puppets");
    };
    app.ask(&format!("child ack {JSON}"));
    daemon.line(&["app.0", "ready after"]);
    assert_eq!(state_of(&world, "workers", "other"), "starting");
    other.ask(&format!("ack {JSON}"));
    is_up(&daemon);
    daemon.stop();
}

// --- What it costs --------------------------------------------------------------------------------

#[test]
fn it_is_heard_where_no_descriptors_are_left() {
    let Some(prlimit) = require_tool("prlimit") else {
        return;
    };
    let world = World::new();
    let (daemon, mut puppet) = with_puppet(&world, EINHORN);
    let pid = daemon.pid().to_string();
    let used = descriptors(daemon.pid());
    let status = Command::new(prlimit)
        .args(["--pid", &pid, &format!("--nofile={used}:")])
        .status();
    assert!(status.expect("start prlimit").success());
    puppet.ask(&format!("ack {JSON}"));
    is_up(&daemon);
    assert!(children(daemon.pid()).contains(&puppet.pid()));
    daemon.stop();
}

// Not even in reserve, which the hard limit bounds. Nobody has to tell it that there is room again.
#[test]
fn who_comes_when_nothing_is_in_reserve_is_heard_later() {
    let Some(prlimit) = require_tool("prlimit") else {
        return;
    };
    let world = World::new();
    let (daemon, mut puppet) = with_puppet(&world, EINHORN);
    let mut takes_one = Varlink::connect(&world);
    takes_one.ask("Status", json!({}));
    let limit = first_free(daemon.pid());
    let status = Command::new(prlimit)
        .args(["--pid", &daemon.pid().to_string()])
        .arg(format!("--nofile={limit}:{limit}"))
        .status();
    assert!(status.expect("start prlimit").success());
    puppet.ask(&format!("ack {JSON}"));
    daemon.line(&["cannot accept a worker for now"]);
    drop(takes_one);
    is_up(&daemon);
    daemon.stop();
}
