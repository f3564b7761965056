//! Releases behind a symbolic link: where a rollback goes back to while the link still leads to the bad one.

use crate::harness::load::Load;
use crate::harness::rollout::{nobody_is_lost, run, running, tell};
use crate::harness::varlink::Varlink;
use crate::harness::{World, eventually, exists, kill};
use nix::sys::signal::Signal;
use std::fs;
use std::os::unix::fs::symlink;

const APP: &str = "
listeners: { web: '127.0.0.1:0' }
workers:
  app:
    command: [$DIR/current/start]
    working_directory: $DIR/current
    resolve: at-reload
    listeners: [web]
    nonblocking: true
    ready: notify
    restart: { backoff: 10ms..50ms, limit: none }
    rollout: { min_ready: 10ms }
";

/// A folder with a program that is started from there.
fn release(world: &World, number: &str, script: &str) {
    fs::create_dir_all(world.path("releases").join(number)).expect("create a folder");
    world.write_script(
        &format!("releases/{number}/start"),
        &format!("#!/bin/sh\n{script}\n"),
    );
}

/// In one step, as `ln -sfn` does not.
fn deploy(world: &World, number: &str) {
    symlink(format!("releases/{number}"), world.path("next")).expect("symlink");
    fs::rename(world.path("next"), world.path("current")).expect("rename");
}

/// Has an instance crash; its successor serves.
#[track_caller]
fn crash(client: &mut Varlink, generation: u64) {
    let old = running(client, generation, 1)[0];
    kill(old, Signal::SIGKILL);
    eventually("it is gone", || !exists(old));
    let _successor = running(client, generation, 1);
}

#[test]
fn a_crash_after_a_rollback_starts_the_release_before() {
    let world = World::new();
    let serves = "exec $PROBE serve-app --version $(basename $(pwd))";
    release(&world, "41", serves);
    release(&world, "42", "echo no such table >&2; exit 1");
    release(&world, "43", serves);
    deploy(&world, "41");
    let daemon = run(&world, APP);
    let address = daemon.address("web");
    let mut client = Varlink::connect(&world);
    let _first = running(&mut client, 1, 1);

    deploy(&world, "42");
    let dry = tell(&world, &["reload", "--dry-run"]);
    assert!(dry.stdout.contains("would roll"), "{dry:#?}");
    tell(&world, &["reload"]).expect_code(1);
    // The link leads to the bad release still.
    crash(&mut client, 1);
    let load = Load::start(address, 2);
    load.wait_for_version("41", 20);

    // An upgrade does not look at the link either.
    tell(&world, &["upgrade"]).expect_code(0);
    nobody_is_lost(load);
    let mut client = Varlink::connect(&world);
    crash(&mut client, 1);
    let load = Load::start(address, 2);
    load.wait_for_version("41", 20);

    deploy(&world, "43");
    tell(&world, &["reload"]).expect_code(0);
    load.wait_for_version("43", 20);
    // A restart starts what was deployed last, and not what the link leads to.
    deploy(&world, "42");
    tell(&world, &["restart", "app"]).expect_code(0);
    deploy(&world, "43");
    let none = tell(&world, &["reload", "--dry-run"]).expect_code(0);
    assert!(!none.stdout.contains("would roll"), "{none:#?}");
    let summary = nobody_is_lost(load);
    assert_eq!(summary.versions.len(), 2, "{summary}");
    daemon.stop();
}
