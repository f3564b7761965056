//! listend as PID 1 of a container.

use crate::harness::{
    World, children, eventually, exists, is_root, kill, require_tool, skip, state,
};
use nix::sys::signal::Signal;
use std::process::{Command, Stdio};

/// The words that make the next program PID 1 of its own namespace, if that is allowed here.
pub fn namespace() -> Option<Vec<&'static str>> {
    require_tool("unshare")?;
    let mut words = vec!["unshare", "--pid", "--fork", "--mount-proc"];
    if !is_root() {
        words.extend(["--user", "--map-root-user"]);
    }
    let tried = Command::new(words[0])
        .args(&words[1..])
        .arg("true")
        .stderr(Stdio::null())
        .status();
    if !tried.is_ok_and(|status| status.success()) {
        skip("no PID namespace to be had");
        return None;
    }
    Some(words)
}

// Rule: "As PID 1 it reaps orphans."
#[test]
fn as_pid_1_it_reaps_orphans_and_stops_at_sigterm() {
    let Some(words) = namespace() else {
        return;
    };
    let world = World::new();
    let yaml = "
listeners: { web: '127.0.0.1:0' }
workers: { app: { command: [$PROBE, puppet, $EVENTS], listeners: [web] } }
";
    let unshare = world.run_with(yaml, |start| {
        start.through(words);
    });
    let mut puppet = world.puppet();
    assert_eq!(puppet.report.ppid, 1, "listend is PID 1");
    let init = children(unshare.pid())[0];
    // The pids that the puppet tells are those of its namespace; there are few in it.
    let zombies = || {
        let all = children(init);
        all.into_iter()
            .filter(|pid| state(*pid) == Some('Z'))
            .count()
    };
    for _ in 0..20 {
        let orphan: i32 = puppet.ask("orphan").parse().expect("a pid");
        assert!(orphan > 1);
    }
    // Alive or not, an orphan is a child of PID 1; they exit soon.
    eventually("only the worker is left", || children(init).len() == 1);
    assert_eq!(zombies(), 0);
    assert!(exists(init));
    // From outside, so as `docker stop` would. kill(2): PID 1 gets only what it has a handler for.
    kill(init, Signal::SIGTERM);
    assert_eq!(unshare.status().code(), Some(0));
}

// An orphan may have the pid that a worker had before: its exit must not be taken for a worker's.
#[test]
fn as_pid_1_it_does_not_take_an_orphan_for_a_worker() {
    let Some(words) = namespace() else {
        return;
    };
    let world = World::new();
    let yaml = "
workers:
  app:
    command: [$PROBE, puppet, $EVENTS]
    restart: { backoff: 1ms..2ms, limit: none }
";
    let unshare = world.run_with(yaml, |start| {
        start.through(words);
    });
    let mut puppet = world.puppet();
    for _ in 0..5 {
        puppet.ask("orphan");
        puppet.tell("raise 9");
        puppet = world.puppet();
    }
    let init = children(unshare.pid())[0];
    eventually("only the worker is left", || children(init).len() == 1);
    assert!(world.no_puppet_is_waiting());
    assert_eq!(unshare.lines(&["app.0", "started"], 6).len(), 6);
    kill(init, Signal::SIGTERM);
    assert_eq!(unshare.status().code(), Some(0));
}
