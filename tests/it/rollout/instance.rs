//! Commands for one instance of a worker, while the others serve.

use crate::harness::load::Load;
use crate::harness::rollout::{APP, instances, nobody_is_lost, release, run, status, tell, with};
use crate::harness::varlink::Varlink;
use crate::harness::{World, eventually};
use serde_json::{Value, json};

const THREE: &str = "instances: 3\nrollout: { min_ready: 20ms }";

/// Name, generation, state and pid of each, once all that are up are ready.
fn settled(client: &mut Varlink) -> Vec<(String, u64, String, Option<i32>)> {
    let mut all = Vec::new();
    eventually("all are where they are to be", || {
        all = instances(&status(client));
        let is_settled = |state: &str| ["running", "stopped"].contains(&state);
        all.len() == 3 && all.iter().all(|(_, _, state, _)| is_settled(state))
    });
    all
}

#[test]
fn one_instance_is_restarted_stopped_and_started_and_nobody_is_lost() {
    let world = World::new();
    release(&world, "--version one");
    let daemon = run(&world, &with(APP, THREE));
    let load = Load::start(daemon.address("web"), 4);
    load.wait_for_version("one", 50);
    let mut client = Varlink::connect(&world);
    let before = settled(&mut client);

    let told = tell(&world, &["restart", "app.1"]).expect_code(0);
    assert!(told.stdout.contains("app.1: restarted"), "{told:#?}");
    daemon.line(&["app: restarting instance 1 alone"]);
    let after = settled(&mut client);
    let changed: Vec<bool> = before.iter().zip(&after).map(|(a, b)| a.3 != b.3).collect();
    assert_eq!(changed, [false, true, false], "{before:?} {after:?}");
    assert_eq!((after[0].1, after[1].1), (1, 2));

    tell(&world, &["stop", "app.0", "app.2"]).expect_code(0);
    let states = |client: &mut Varlink| -> Vec<String> {
        settled(client).into_iter().map(|one| one.2).collect()
    };
    assert_eq!(states(&mut client), ["stopped", "running", "stopped"]);
    assert_eq!(status(&mut client)["state"], "running");
    client.ask("Start", json!({ "worker": "app.0" }));
    assert_eq!(states(&mut client), ["running", "running", "stopped"]);

    // Two of them at once are one rollout.
    release(&world, "--version two");
    tell(&world, &["restart", "app.0", "app.1"]).expect_code(0);
    load.wait_for_version("two", 50);
    assert_eq!(states(&mut client), ["running", "running", "stopped"]);
    tell(&world, &["start", "app"]).expect_code(0);
    assert_eq!(states(&mut client), ["running"; 3]);

    // One that is no good goes back, alone.
    release(&world, "--crash-after-ready 0ms");
    let told = tell(&world, &["restart", "app.2"]).expect_code(1);
    assert!(told.stderr.contains("app.2"), "{told:#?}");
    release(&world, "--version two");
    eventually("the others have gone on", || {
        let all = instances(&status(&mut client));
        all.iter().filter(|one| one.2 == "running").count() >= 2
    });
    nobody_is_lost(load);
    daemon.stop();
}

#[test]
fn what_is_not_an_instance_is_refused_and_all_is_all() {
    let world = World::new();
    release(&world, "--version one");
    let two = "
  batch: { command: [sh, -c, 'exec sleep 1h'] }
  done: { command: [sh, -c, 'exec sleep 1h'] }
";
    let yaml = with(APP, THREE) + two.trim_start_matches('\n');
    let daemon = run(&world, &yaml);
    let mut client = Varlink::connect(&world);
    settled(&mut client);
    for name in ["app.3", "app.x", "app.01", "ap.0"] {
        let told = tell(&world, &["stop", name]).expect_code(1);
        assert!(told.stderr.contains("no worker"), "{told:#?}");
    }
    let told = tell(&world, &["scale", "app.1", "4"]).expect_code(1);
    assert!(told.stderr.contains("whole worker"), "{told:#?}");
    // The only one is the worker.
    tell(&world, &["stop", "done.0"]).expect_code(0);
    let all = |client: &mut Varlink| client.ask("Status", json!({}))["workers"].take();
    let of = |all: &Value, name: &str| {
        let workers = all.as_array().expect("a list").iter();
        let mut found = workers.filter(|one| one["name"] == name);
        found.next().expect("a worker").clone()
    };
    assert_eq!(of(&all(&mut client), "done")["state"], "stopped");
    tell(&world, &["signal", "app.1", "WINCH"]).expect_code(0);
    let told = tell(&world, &["restart", "--all"]).expect_code(0);
    assert!(!told.stdout.contains("done:"), "{told:#?}");
    let now = all(&mut client);
    for (name, generation, state) in [
        ("app", 2, "running"),
        ("batch", 2, "running"),
        ("done", 1, "stopped"),
    ] {
        let worker = of(&now, name);
        assert_eq!(
            (&worker["generation"], &worker["state"]),
            (&json!(generation), &json!(state))
        );
    }
    tell(&world, &["stop", "--all"]).expect_code(0);
    let now = all(&mut client);
    let states = now
        .as_array()
        .expect("a list")
        .iter()
        .map(|one| one["state"].clone());
    assert_eq!(states.collect::<Vec<_>>(), ["stopped"; 3]);
    let told = tell(&world, &["start", "app.0"]).expect_code(1);
    assert!(
        told.stderr.contains("stopped with all its instances"),
        "{told:#?}"
    );
    tell(&world, &["start", "--all", "app"]).expect_code(64);
    daemon.stop();
}
