//! What is written down, and when: the daemon is killed in the middle of a turn.

use super::{Blow, Guarded, guarded, snapshot_of};
use crate::harness::reloading::{ask, state_of};
use crate::harness::{
    Daemon, Start, World, eventually, exists, kill, require_root, require_tool, settled,
};
use nix::sys::signal::Signal;
use std::fs;
use std::process::{Child, Command, Stdio};

fn puppets(lines: &str) -> String {
    let lines: String = lines.lines().map(|line| format!("    {line}\n")).collect();
    format!(
        "workers:
  app:
    command: [$PROBE, heir, $EVENTS]
    ready: notify
    notify_access: all
{lines}"
    )
}

fn asks(world: &World, words: &str) -> Daemon {
    let words = words.split(' ').chain(["--control", "$DIR/control.sock"]);
    world.start(Start::new(words))
}

fn wait_for(world: &World, wanted: &str) {
    eventually(&format!("app is {wanted}"), || {
        state_of(world, "workers", "app") == wanted
    });
}

/// Whether a daemon can be killed at a system call.
fn can_trace() -> bool {
    require_root() && require_tool("strace").is_some()
}

impl Guarded<'_> {
    /// From now on the daemon is killed when it makes this system call.
    fn doom(&self, call: &str) -> Child {
        settled(self.daemon);
        let strace = Command::new("strace")
            .args(["-q", "-o", "/dev/null"])
            .args(["-e", &format!("trace={call}")])
            .args(["-e", &format!("inject={call}:signal=SIGKILL")])
            .args(["-p", &self.daemon.to_string()])
            .stderr(Stdio::null())
            .spawn()
            .expect("start strace");
        eventually("the daemon is traced", || {
            let status = fs::read_to_string(format!("/proc/{}/status", self.daemon));
            let tracer = format!("TracerPid:\t{}", strace.id());
            status.expect("it runs").lines().any(|line| line == tracer)
        });
        strace
    }

    /// It is dead, and the next goes on.
    #[track_caller]
    fn is_followed(&mut self, mut strace: Child) {
        strace.wait().expect("wait for strace");
        self.daemon = self.next_daemon();
        self.goes_on();
    }
}

// Rule: what somebody has asked for is written down before any of it is done.
#[test]
fn what_is_asked_for_in_the_turn_of_a_kill_is_done() {
    if !can_trace() {
        return;
    }
    let world = World::new();
    let mut guarded = guarded(&world, &puppets("stop_timeout: 1h"));
    let mut puppet = world.puppet();
    puppet.ask("notify READY=1");
    wait_for(&world, "running");

    let strace = guarded.doom("clone");
    let scale = asks(&world, "scale app 2");
    guarded.is_followed(strace);
    let mut second = world.puppet();
    second.ask("notify READY=1");
    wait_for(&world, "running");
    drop(scale);

    let strace = guarded.doom("pidfd_send_signal");
    let stop = asks(&world, "stop app");
    guarded.is_followed(strace);
    for puppet in [&mut puppet, &mut second] {
        puppet.wait_for_its_end();
    }
    wait_for(&world, "stopped");
    assert!(world.no_puppet_is_waiting());
    drop(stop);

    let start = asks(&world, "start app");
    for mut puppet in world.puppets(2) {
        puppet.ask("notify READY=1");
        puppet.ask("drain");
        // It lives on.
        std::mem::forget(puppet);
    }
    drop(start);
    wait_for(&world, "running");
    // What was done is not done again.
    guarded.strike(Blow::Kill);
    assert_eq!(state_of(&world, "workers", "app"), "running");

    let strace = guarded.doom("pidfd_send_signal");
    // The daemon alone: of a stop the guard knows what to do.
    kill(guarded.daemon, Signal::SIGTERM);
    guarded.is_followed(strace);
    wait_for(&world, "stopping");
    kill(guarded.daemon, Signal::SIGTERM);
    assert_eq!(guarded.guard.status().code(), Some(0));
}

// Only the deadline follows from one, and that begins anew.
#[test]
fn keep_alives_are_not_written_down() {
    let world = World::new();
    let guarded = guarded(&world, &puppets("watchdog: 1h"));
    let mut puppet = world.puppet();
    puppet.ask("notify READY=1|STATUS=well");
    wait_for(&world, "running");
    let read = || {
        settled(guarded.daemon);
        fs::read(snapshot_of(&guarded)).expect("the snapshot")
    };
    let before = read();
    for _ in 0..20 {
        puppet.ask("notify WATCHDOG=1");
        puppet.ask("notify WATCHDOG=1|STATUS=well");
    }
    assert!(read() == before);
    puppet.ask("notify WATCHDOG=1|STATUS=ill");
    assert!(ask(&world, "status app").stdout.contains("ill"));
    assert!(read() != before && exists(puppet.pid()));
    guarded.stop();
}
