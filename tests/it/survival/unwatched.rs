//! What workers do while there is no daemon.

use super::{Blow, guarded, puppets};
use crate::harness::reloading::{ask, state_of};
use crate::harness::{World, eventually, exists, free_port, kill, listend_path, settled};
use nix::sys::signal::Signal;
use std::fs;
use std::os::unix::fs::PermissionsExt;

// Rule: the exit status of a worker that ends while nobody looks is the one that its policy sees.
#[test]
fn the_exit_status_of_a_worker_counts() {
    let world = World::new();
    let lines = "restart: { policy: on-failure, backoff: 1ms..2ms, limit: none }";
    let mut guarded = guarded(&world, &puppets(lines));
    let mut puppet = world.puppet();
    puppet.ask("notify READY=1");
    guarded.guard.line(&["every eager worker is ready"]);
    guarded.kill_and_meanwhile(|| {
        puppet.tell("exit 3");
        puppet.wait_for_its_end();
    });
    guarded.guard.line(&["app.0", "exit status 3"]);
    let mut next = world.puppet();
    next.ask("notify READY=1");
    guarded.kill_and_meanwhile(|| kill(next.pid(), Signal::SIGSEGV));
    guarded.guard.line(&["app.0", "SIGSEGV"]);
    let mut last = world.puppet();
    last.ask("notify READY=1|STATUS=all is well");
    guarded.kill_and_meanwhile(|| {
        last.tell("exit 0");
        last.wait_for_its_end();
    });
    guarded.guard.line(&["app.0", "exit status 0"]);
    eventually("it is done", || {
        state_of(&world, "workers", "app") == "stopped"
    });
    assert!(world.no_puppet_is_waiting());
    guarded.stop();
}

// Rule: a worker that ends after a kill, under a daemon that is not its parent, is told as ever.
#[test]
fn the_exit_status_of_an_adopted_worker_counts() {
    let world = World::new();
    let lines = "restart: { backoff: 1ms..2ms, limit: none }";
    let mut guarded = guarded(&world, &puppets(lines));
    let mut puppet = world.puppet();
    puppet.ask("notify READY=1");
    guarded.guard.line(&["every eager worker is ready"]);
    guarded.kill();
    puppet.tell("exit 5");
    guarded.guard.line(&["app.0", "exit status 5"]);
    let mut next = world.puppet();
    next.ask("notify READY=1");
    guarded.stop();
}

// Rule: what is said while nobody hears waits and counts.
#[test]
fn what_workers_tell_meanwhile_counts() {
    let world = World::new();
    let mut guarded = guarded(&world, &puppets("fd_store: 4"));
    let mut puppet = world.puppet();
    // Whatever was in its first turn is written down.
    eventually("it is starting", || {
        state_of(&world, "workers", "app") == "starting"
    });
    guarded.kill_and_meanwhile(|| {
        puppet.ask("notify READY=1|STATUS=heard");
        puppet.ask("store left");
    });
    eventually("it is ready", || {
        state_of(&world, "workers", "app") == "running"
    });
    assert!(ask(&world, "status app").stdout.contains("heard"));
    eventually("its descriptor is kept", || {
        guarded.kept_like("/memfd:left") == 1
    });
    guarded.strike(Blow::Kill);
    assert_eq!(guarded.kept_like("/memfd:left"), 1);
    // What one has said that has ended since counts as well.
    guarded.kill_and_meanwhile(|| {
        puppet.ask("notify STATUS=last words");
        puppet.tell("exit 3");
        puppet.wait_for_its_end();
    });
    guarded.guard.line(&["app.0", "exit status 3"]);
    guarded.stop();
}

// Rule: a listener that a worker has stored as well stays the listener, although nobody else has it.
#[test]
fn a_listener_that_its_worker_has_stored_stays_one() {
    let world = World::new();
    let yaml = format!(
        "listeners: {{ web: '127.0.0.1:{}' }}\n{}",
        free_port(),
        puppets("listeners: [web]\nfd_store: 4\nrestart: { backoff: 1ms }")
    );
    let mut guarded = guarded(&world, &yaml);
    let mut puppet = world.puppet();
    puppet.ask("again 3 mine");
    puppet.ask("notify READY=1");
    puppet.ask("barrier");
    settled(guarded.daemon);
    guarded.kill_and_meanwhile(|| {
        kill(puppet.pid(), Signal::SIGKILL);
        puppet.wait_for_its_end();
    });
    let mut next = world.puppet();
    assert_eq!(next.report.env["LISTEN_FDNAMES"], "web:mine");
    next.ask("notify READY=1");
    assert_eq!(state_of(&world, "listeners", "web"), "listening");
    guarded.stop();
}

// Rule: the process that a worker has named as its main one is watched by the next listend.
#[test]
fn another_main_process_is_watched() {
    let world = World::new();
    let lines = "restart: { backoff: 1ms..2ms, limit: none }";
    let mut guarded = guarded(&world, &puppets(lines));
    let mut first = world.puppet();
    let heir: i32 = first.ask("heir").parse().expect("a pid");
    let mut main = world.puppet();
    assert_eq!(main.pid(), heir);
    first.ask(&format!("notify MAINPID={heir}|READY=1"));
    guarded.guard.line(&["every eager worker is ready"]);
    first.tell("exit 0");
    first.wait_for_its_end();
    // What it does in the turn in which it is killed is not written down.
    settled(guarded.daemon);
    guarded.kill();
    assert!(exists(heir) && world.no_puppet_is_waiting());
    assert_eq!(state_of(&world, "workers", "app"), "running");
    guarded.kill_and_meanwhile(|| {
        main.tell("exit 6");
        main.wait_for_its_end();
    });
    guarded.guard.line(&["app.0", "exit status 6"]);
    let _next = world.puppet();
    guarded.stop();
}

// Rule: what is left of a process group is waited for, whoever its parent is.
#[test]
fn the_rest_of_a_process_group_is_waited_for() {
    let world = World::new();
    let lines = "restart: { backoff: 1ms..2ms, limit: none }\nstop_timeout: 1h";
    let mut guarded = guarded(&world, &puppets(lines));
    let mut puppet = world.puppet();
    puppet.ask("notify READY=1");
    guarded.guard.line(&["every eager worker is ready"]);
    let rest: i32 = puppet.ask("fork").parse().expect("a pid");
    puppet.tell("exit 4");
    eventually("its main process is reaped", || !exists(puppet.pid()));
    guarded.kill();
    assert!(exists(rest) && world.no_puppet_is_waiting());
    kill(rest, Signal::SIGKILL);
    guarded.guard.line(&["app.0", "exit status 4"]);
    let mut next = world.puppet();
    next.ask("notify READY=1");
    // The main process ends under a daemon that is not its parent.
    let rest: i32 = next.ask("fork").parse().expect("a pid");
    guarded.kill();
    next.tell("exit 5");
    eventually("its main process is reaped", || !exists(next.pid()));
    assert!(exists(rest));
    kill(rest, Signal::SIGKILL);
    guarded.guard.line(&["app.0", "exit status 5"]);
    let _last = world.puppet();
    guarded.stop();
}

#[test]
fn what_ends_while_another_program_is_executed_is_kept_no_more() {
    let world = World::new();
    let yaml = "
listeners: { web: '127.0.0.1:0' }
workers:
  app: { command: [/bin/sleep, '1000'], listeners: [web], restart: { policy: never } }
  other: { command: [/bin/sleep, '1001'], listeners: [web] }
";
    let guarded = guarded(&world, yaml);
    guarded.guard.line(&["every eager worker has started"]);
    let line = guarded.guard.line(&["app.0: started, pid"]);
    let pid = line.rsplit(' ').next().expect("a pid");
    settled(guarded.guard_pid);
    let kept = guarded.kept_like("pidfd");
    let script = format!(
        "#!/bin/sh
case \"$*\" in
*--preflight*) ;;
*) kill -9 {pid}
    until read -r _ _ state _ </proc/{pid}/stat && [ \"$state\" = Z ]; do :; done;;
esac
exec {} \"$@\"\n",
        listend_path().display()
    );
    let path = world.write("other", &script);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("chmod");
    ask(&world, &format!("upgrade {}", path.display())).expect_code(0);
    guarded.guard.line(&["app.0: killed by SIGKILL"]);
    eventually("it is kept no more", || {
        guarded.kept_like("pidfd") == kept - 1
    });
    guarded.stop();
}
