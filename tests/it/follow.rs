//! `instances: {min, max, scale_up_at}`: the number follows the accept queue.

use crate::harness::load::Load;
use crate::harness::reloading::{ask, reload, run};
use crate::harness::varlink::Varlink;
use crate::harness::{World, children};
use crate::survival::{BLOWS, guarded};
use serde_json::{Value, json};

fn yaml(instances: &str) -> String {
    yaml_of(instances, "shared")
}

fn yaml_of(instances: &str, distribute: &str) -> String {
    format!(
        "
listeners: {{ web: {{ address: '127.0.0.1:0', backlog: 128 }} }}
workers:
  app:
    command: [$PROBE, serve-app, --outlive, --answer-delay, 50ms]
    listeners: [web]
    instances: {instances}
    distribute: {distribute}
    nonblocking: true
    ready: notify
"
    )
}

fn app(world: &World) -> Value {
    Varlink::connect(world).ask("Status", json!({}))["workers"][0].clone()
}

#[test]
fn clients_that_wait_add_instances_up_to_the_most() {
    for distribute in ["shared", "shards"] {
        let yaml = |instances: &str| yaml_of(instances, distribute);
        let world = World::new();
        let daemon = run(&world, &yaml("{ min: 1, max: 3, scale_up_at: 2 }"));
        daemon.line(&["app.0", "ready"]);
        assert_eq!(children(daemon.pid()).len(), 1);
        let load = Load::start(daemon.address("web"), 30);
        let words = "clients wait, more than 2 for ";
        daemon.line(&["worker app:", words, ": 1 → 2 instances"]);
        daemon.line(&["worker app:", words, ": 2 → 3 instances"]);
        daemon.line(&["app.2", "ready"]);
        let counts = load.stop().counts;
        assert_eq!(counts.failed(), 0, "{distribute}: {counts:?}");
        let wanted = json!({ "min": 1, "max": 3, "scale_up_at": 2, "overridden": false });
        assert_eq!(app(&world)["scaling"], wanted);
        let shown = ask(&world, "status").expect_code(0).stdout;
        assert!(shown.contains("instances: 3 of 1 to 3"), "{shown}");
        let page = ask(&world, "metrics").expect_code(0).stdout;
        let wanted = "listend_worker_scalings_total{worker=\"app\"} 2";
        assert!(page.contains(wanted), "{page}");
        // A smaller range takes effect at once, and loses nobody.
        let load = Load::start(daemon.address("web"), 2);
        load.wait_for_answers(20);
        let told = reload(&world, &yaml("{ min: 1, max: 2, scale_up_at: 2 }")).stdout;
        assert!(told.contains("applies without a rollout"), "{told}");
        assert_eq!(app(&world)["scaling"]["max"], 2);
        daemon.line(&["app.2", "exit status 0"]);
        load.wait_for_answers(20);
        let counts = load.stop().counts;
        assert_eq!(counts.failed(), 0, "{distribute}: {counts:?}");
        daemon.stop();
    }
}

#[test]
fn the_number_outlives_the_daemon_and_follows_on() {
    for (blow, distribute) in BLOWS.into_iter().zip(["shards", "shared"]) {
        let world = World::new();
        let yaml = yaml_of("{ min: 1, max: 3, scale_up_at: 2 }", distribute);
        let mut guarded = guarded(&world, &yaml);
        guarded.guard.line(&["app.0", "ready"]);
        let load = Load::start(guarded.guard.address("web"), 30);
        guarded.guard.line(&[": 1 → 2 instances"]);
        guarded.guard.line(&["app.1", "ready"]);
        guarded.strike(blow);
        // What is added by then is the second addition, and none is the first again.
        guarded.guard.line(&[": 2 → 3 instances"]);
        guarded.guard.line(&["app.2", "ready"]);
        guarded.strike(blow);
        assert_eq!(app(&world)["instances"].as_array().map(Vec::len), Some(3));
        let first = guarded.guard.lines_so_far(&[": 1 → 2 instances"]);
        assert_eq!(first.len(), 1, "{first:?}");
        load.wait_for_answers(30);
        let counts = load.stop().counts;
        assert_eq!(counts.failed(), 0, "{blow:?}: {counts:?}");
        guarded.guard.stop();
    }
}

#[test]
fn scale_overrides_it_until_it_is_told_otherwise() {
    for blow in BLOWS {
        let world = World::new();
        let mut guarded = guarded(&world, &yaml("{ min: 1, max: 3, scale_up_at: 2 }"));
        guarded.guard.line(&["app.0", "ready"]);
        ask(&world, "scale app 2").expect_code(0);
        guarded.strike(blow);
        let status = app(&world);
        assert_eq!(status["scaling"]["overridden"], true, "{blow:?}");
        assert_eq!(status["instances"].as_array().map(Vec::len), Some(2));
        let shown = ask(&world, "status").expect_code(0).stdout;
        assert!(shown.contains("set by hand"), "{shown}");
        let told = ask(&world, "scale app auto").expect_code(0).stdout;
        assert!(told.contains("follows the queues"), "{told}");
        assert_eq!(app(&world)["scaling"]["overridden"], false, "{blow:?}");
        guarded.strike(blow);
        assert_eq!(app(&world)["scaling"]["overridden"], false, "{blow:?}");
        guarded.guard.stop();
    }
}

#[test]
fn what_follows_nothing_says_so() {
    let world = World::new();
    let daemon = run(&world, &yaml("2"));
    daemon.lines(&["app.", "ready"], 2);
    let refused = ask(&world, "scale app auto").expect_code(1).stderr;
    assert!(refused.contains("does not follow the queues"), "{refused}");
    assert_eq!(app(&world).get("scaling"), None);
    daemon.stop();
}
