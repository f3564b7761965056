//! What becomes of a worker in a sandbox when the daemon dies, is replaced, or a rollout fails: it goes on, and who
//! is started after it has the same sandbox.

use super::starts::can_mount;
use crate::harness::app::yaml;
use crate::harness::reloading::ask;
use crate::harness::varlink::Varlink;
use crate::harness::{World, eventually, exists, listend_path, require_root, rollout};
use crate::survival::{BLOWS, guarded, puppets};
use serde_json::json;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

const SANDBOX: &str = "preset: strict, read_write_paths: [$DIR]";

/// What a process is kept from, as /proc shows it: its rights, what is mounted for it and how, and whose network it
/// has.
#[derive(Debug, PartialEq, Eq)]
struct Confined {
    rights: Vec<String>,
    mounts: Vec<String>,
    network: String,
}

impl Confined {
    fn of(pid: i32) -> Confined {
        let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).expect("it runs");
        let shown = [
            "NoNewPrivs",
            "Seccomp",
            "Seccomp_filters",
            "CapBnd",
            "CapEff",
        ];
        let is_shown = |line: &&str| {
            let name = line.split(':').next();
            name.is_some_and(|name| shown.contains(&name))
        };
        let status = read("status");
        let mounts = read("mountinfo");
        let mounts = mounts.lines().map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            // The root of the mount, where it is, and its options.
            words[3..6].join(" ")
        });
        let network = fs::read_link(format!("/proc/{pid}/ns/net")).expect("it runs");
        Confined {
            rights: status.lines().filter(is_shown).map(str::to_owned).collect(),
            mounts: mounts.collect(),
            network: network.display().to_string(),
        }
    }
}

#[test]
fn it_outlives_the_daemon_and_the_next_has_the_same_sandbox() {
    if !can_mount() {
        return;
    }
    for blow in BLOWS {
        let world = World::new();
        let lines = format!(
            "restart: {{ policy: always, backoff: 1ms, limit: none }}\nsandbox: {{ {SANDBOX} }}"
        );
        let mut guarded = guarded(&world, &puppets(&lines));
        let mut first = world.puppet();
        first.ask("notify READY=1");
        first.ask("barrier");
        let before = Confined::of(first.pid());
        assert!(
            before.rights.contains(&"NoNewPrivs:\t1".to_owned()),
            "{before:?}"
        );
        guarded.strike(blow);
        assert!(exists(first.pid()));
        assert_eq!(Confined::of(first.pid()), before, "{blow:?}");
        // It is heard by the next.
        first.ask("notify STATUS=still here");
        first.ask("barrier");
        first.tell("exit 3");
        let mut next = world.puppet();
        assert_eq!(Confined::of(next.pid()), before, "{blow:?}");
        next.ask("notify READY=1");
        next.ask("barrier");
        guarded.stop();
    }
}

#[test]
fn a_rollback_goes_back_to_the_sandbox_of_before() {
    if !can_mount() {
        return;
    }
    let world = World::new();
    let with = |sandbox: &str| rollout::with(rollout::PUPPET, &format!("sandbox: {{ {sandbox} }}"));
    let daemon = rollout::run(&world, &with(SANDBOX));
    let mut first = world.puppet();
    first.ask("notify READY=1");
    let before = Confined::of(first.pid());
    let other = "preset: sealed, read_write_paths: [$DIR, /nothing/here]";
    world.write("listend.yaml", &with(other));
    let told = ask(&world, "reload").expect_code(1);
    assert!(
        told.stderr.contains("`read_write_paths`: /nothing/here"),
        "{}",
        told.stderr
    );
    daemon.line(&["app: rolled back"]);
    assert!(exists(first.pid()));
    first.tell("exit 3");
    let next = world.puppet();
    assert_eq!(Confined::of(next.pid()), before);
    daemon.stop();
}

// It had the socket alone, which was another one then, and was never heard again.
#[test]
fn a_socket_to_tell_at_that_was_bound_again_is_reached_or_it_is_said_who_cannot() {
    if !can_mount() {
        return;
    }
    for (sandbox, is_cut_off) in [
        ("protect_system: strict", false),
        ("private_tmp: true", true),
    ] {
        let world = World::new();
        let lines = format!(
            "handoff: [systemd, einhorn]\nsandbox: {{ {sandbox}, read_write_paths: [$EVENTS] }}"
        );
        let daemon = world.run_with(&rollout::with(rollout::PUPPET, &lines), |start| {
            start.words_behind(["--control", "$DIR/own/control.sock"]);
        });
        let mut puppet = world.puppet();
        puppet.ask("notify READY=1");
        daemon.line(&["app.0", "ready after"]);
        daemon.pause();
        fs::remove_dir_all(world.path("own")).expect("remove the folder");
        daemon.resume();
        for socket in ["notify socket", "einhorn socket"] {
            let line = daemon.line(&[socket, "removed", "restored"]);
            let says_so = line.contains("cannot reach it until it is restarted: `app`");
            assert_eq!(says_so, is_cut_off, "{line}");
        }
        if !is_cut_off {
            let acknowledged = puppet.ask(r#"ack {"command": "worker:ack", "pid": 1}"#);
            assert_eq!(acknowledged, "ack");
            puppet.ask("notify STATUS=heard again");
            eventually("it is told", || {
                let mut client = Varlink::to(&world.path("own/control.sock"));
                let all = client.ask("Status", json!({})).to_string();
                all.contains("heard again")
            });
        }
        daemon.stop();
    }
}

// Of a process of root a daemon of a user cannot read the mount namespace, and a shell that has started both is no keeper
// of the descriptors, to whom workers fall.
#[test]
fn root_is_heard_by_the_daemon_of_a_user_that_the_same_shell_has_started() {
    if !require_root() {
        return;
    }
    let world = World::new();
    fs::create_dir(world.path("run")).expect("create a folder");
    for (place, mode) in [(world.dir().to_owned(), 0o755), (world.path("run"), 0o777)] {
        fs::set_permissions(place, fs::Permissions::from_mode(mode)).expect("chmod");
    }
    let lines = "sandbox: { protect_clock: true }";
    let daemon = world.run_with(&yaml("[sleep, '60']", lines), |start| {
        start.words_behind(["--control", "$DIR/run/control.sock"]);
        start.through([
            "setpriv",
            "--reuid=60001",
            "--regid=60001",
            "--clear-groups",
        ]);
    });
    let control = world.path("run/control.sock");
    eventually("the control socket is there", || control.exists());
    let done = Command::new(listend_path())
        .args(["restart", "app", "--control"])
        .arg(&control)
        .output()
        .expect("execute listend");
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{said}");
    daemon.stop();
}

// Its file is another one then, which no mount covers.
#[test]
fn a_control_socket_that_was_made_anew_takes_no_orders_from_a_sandbox() {
    if !can_mount() {
        return;
    }
    let world = World::new();
    // With and without the parents by which it is known as the worker's.
    let yaml = "
listeners: { web: '127.0.0.1:0' }
workers:
  app:
    command:
      - sh
      - -c
      - >-
        while sleep 0.1; do
        \"$0\" status --control $DIR/own/control.sock 2>&1;
        echo \"own $?\";
        (setsid sh -c 'sleep 0.1; \"$0\" status --control $DIR/own/control.sock 2>&1; echo \"left $?\"' \"$0\" &);
        done
      - '{listend}'
    listeners: [web]
    output: 'file:$DIR/out'
    sandbox: { protect_system: strict }
";
    let daemon = world.run_with(yaml, |start| {
        start.words_behind(["--control", "$DIR/own/control.sock"]);
    });
    let said = || fs::read_to_string(world.path("out")).unwrap_or_default();
    eventually("it has asked", || said().contains("own "));
    daemon.pause();
    fs::remove_dir_all(world.path("own")).expect("remove the folder");
    daemon.resume();
    daemon.line(&["control socket", "removed", "restored"]);
    let before = said().len();
    for asked in ["own ", "left "] {
        eventually("it has asked again", || {
            said()[before..].matches(asked).count() > 3
        });
    }
    let said = said();
    assert!(said[before..].contains("does not permit"), "{said}");
    assert!(
        !said.contains("own 0") && !said.contains("left 0"),
        "{said}"
    );
    let from_outside = Varlink::to(&world.path("own/control.sock")).ask("Status", json!({}));
    assert!(from_outside.to_string().contains("app"), "{from_outside}");
    daemon.stop();
}
