//! What others do to the guard, to the snapshot, and to what the daemon may write.

use super::{BLOWS, guarded, guarded_through, puppets, snapshot_of};
use crate::harness::load::Load;
use crate::harness::reloading::{ask, state_of};
use crate::harness::{World, children, eventually, kill, require_tool, state};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::signal::Signal;
use std::fs::File;
use std::process::Command;

const APP: &str = "
listeners: { web: '127.0.0.1:0' }
workers:
  app:
    command: [$PROBE, serve-app, --outlive, --version, one]
    listeners: [web]
    nonblocking: true
    instances: 2
";

// Rule: a snapshot that somebody could seal could not be written any more.
#[test]
fn nobody_can_seal_the_snapshot() {
    let world = World::new();
    let mut guarded = guarded(&world, &puppets(""));
    let mut puppet = world.puppet();
    puppet.ask("notify READY=1");
    let file = File::options()
        .read(true)
        .write(true)
        .open(snapshot_of(&guarded));
    let file = file.expect("open");
    for seal in [
        SealFlag::F_SEAL_WRITE,
        SealFlag::F_SEAL_GROW,
        SealFlag::F_SEAL_SHRINK,
    ] {
        let sealed = fcntl(&file, FcntlArg::F_ADD_SEALS(seal));
        assert_eq!(sealed, Err(Errno::EPERM), "{seal:?}");
    }
    for blow in BLOWS {
        guarded.strike(blow);
    }
    assert_eq!(state_of(&world, "workers", "app"), "running");
    guarded.stop();
}

// Rule: where no file may grow, listend says that nothing is kept, and serves.
#[test]
fn a_limit_on_the_size_of_files_ends_nothing() {
    if require_tool("prlimit").is_none() {
        return;
    }
    let world = World::new();
    let yaml = APP.replace("instances: 2", "instances: 20");
    let guarded = guarded_through(&world, &yaml, &["prlimit", "--fsize=6000", "--"]);
    let guard = guarded.guard;
    guard.line(&["cannot write the snapshot", "too large"]);
    guard.line(&["every eager worker has started"]);
    let load = Load::start(guard.address("web"), 2);
    load.wait_for_answers(20);
    assert_eq!(load.stop().counts.failed(), 0);
    // The worker that writes too much is its own affair.
    let limits = std::fs::read_to_string(format!("/proc/{}/status", children(guarded.daemon)[0]));
    let limits = limits.expect("it runs");
    let ignored = limits.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = u64::from_str_radix(ignored.expect("a set").trim(), 16).expect("a set");
    assert_eq!(ignored & 1 << (Signal::SIGXFSZ as i32 - 1), 0);
    guard.stop();
}

// Rule: "the guard, by kill -9: daemon and workers keep running; nothing is stored or restarted any more".
#[test]
fn without_its_guard_the_daemon_goes_on_and_can_be_upgraded() {
    let world = World::new();
    let guarded = guarded(&world, APP);
    let (guard, daemon) = (guarded.guard, guarded.daemon);
    let load = Load::start(guard.address("web"), 2);
    guard.line(&["every eager worker has started"]);
    let workers = children(daemon);
    assert_eq!(workers.len(), 2);
    load.wait_for_answers(20);
    kill(guarded.guard_pid, Signal::SIGKILL);
    guard.status();
    load.wait_for_answers(20);
    kill(workers[0], Signal::SIGKILL);
    eventually("it is started again", || {
        let now = children(daemon);
        now.len() == 2 && !now.contains(&workers[0])
    });
    let workers = children(daemon);
    let done = ask(&world, "upgrade").expect_code(0);
    assert!(done.stdout.contains(" upgraded to "), "{}", done.stdout);
    load.wait_for_answers(20);
    eventually("there is no other process", || children(daemon) == workers);
    let summary = load.stop();
    // Of the worker that was killed.
    let lost = summary.counts.failed() - summary.counts.reset - summary.counts.short;
    assert_eq!(lost, 0, "{summary}");
    kill(daemon, Signal::SIGTERM);
    eventually("the daemon has stopped", || {
        state(daemon).is_none_or(|state| state == 'Z')
    });
    assert!(
        workers
            .iter()
            .all(|pid| state(*pid).is_none_or(|state| state == 'Z'))
    );
}

// Rule: a guard that is stopped, or flooded with signals, takes nobody's client away.
#[test]
fn a_guard_that_is_stopped_or_flooded_loses_nobody() {
    let world = World::new();
    let mut guarded = guarded(&world, APP);
    guarded.guard.line(&["every eager worker has started"]);
    let load = Load::start(guarded.guard.address("web"), 2);
    guarded.kill_and_meanwhile(|| load.wait_for_answers(20));
    // None that asks the daemon for something: SIGCHLD, and those that it ignores or counts.
    let storm = format!(
        "while :; do for s in 17 13 27 28 29 14; do kill -$s {} 2>&- || exit; done; done",
        guarded.guard_pid
    );
    let mut storm = Command::new("sh").args(["-c", &storm]).spawn().expect("sh");
    for _ in 0..5 {
        load.wait_for_answers(20);
        guarded.kill();
    }
    let goes_on = storm.try_wait().expect("wait").is_none();
    storm.kill().expect("kill");
    storm.wait().expect("wait");
    assert!(goes_on);
    let summary = load.stop();
    assert_eq!(summary.counts.failed(), 0, "{summary}");
    guarded.stop();
}
