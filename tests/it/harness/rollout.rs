//! What tests of rollouts have in common: a worker `app`, asked for how it is and what it does.

use super::load::{Load, Summary};
use super::varlink::Varlink;
use super::{Daemon, Finished, World, eventually};
use serde_json::{Value, json};

/// Long enough for nothing to happen by itself during a test.
pub const NEVER: &str = "1h";

/// A worker of which the file `release` says how good it is, one word a line.
pub const APP: &str = "
listeners: { web: '127.0.0.1:0' }
workers:
  app:
    command: [sh, -c, 'exec $PROBE serve-app $(cat $DIR/release)']
    listeners: [web]
    nonblocking: true
    ready: notify
    output: tag
    restart: { backoff: 10ms..50ms, limit: none }
";

/// A puppet of which it is told when it is ready.
pub const PUPPET: &str = "
listeners: { web: '127.0.0.1:0' }
workers:
  app:
    command: [$PROBE, puppet, $EVENTS]
    listeners: [web]
    ready: notify
    environment: { N: '{instance}' }
";

/// A daemon that says everything.
pub fn run(world: &World, yaml: &str) -> Daemon {
    world.run_with(yaml, |start| {
        start.words_behind(["--control", "$DIR/control.sock", "--log-level", "debug"]);
    })
}

/// With these further lines of the worker.
pub fn with(yaml: &str, lines: &str) -> String {
    let lines: String = lines.lines().map(|line| format!("    {line}\n")).collect();
    format!("{yaml}{lines}")
}

/// A daemon with [`APP`] of the version `one`, and clients that it serves.
pub fn serving(world: &World, lines: &str) -> (Daemon, Load) {
    release(world, "--version one");
    let daemon = run(world, &with(APP, lines));
    let load = Load::start(daemon.address("web"), 4);
    load.wait_for_version("one", 50);
    (daemon, load)
}

/// From now on `app` is started with these words.
pub fn release(world: &World, words: &str) {
    world.write("release", words);
}

/// Three instances; of the version `two` the second is no good.
pub fn three(version: &str) -> String {
    format!(
        "
listeners: {{ web: '127.0.0.1:0' }}
workers:
  app:
    command: [sh, -c, 'test {{instance}}$APP_VERSION != 1two || exit 4; exec $PROBE serve-app']
    listeners: [web]
    nonblocking: true
    ready: notify
    instances: 3
    environment: {{ APP_VERSION: {version} }}
    rollout: {{ min_ready: 20ms }}
"
    )
}

/// `listend VERB WORD …`, until it has ended.
pub fn tell(world: &World, words: &[&str]) -> Finished {
    let words = words.iter().copied();
    world.finish(words.chain(["--control", "$DIR/control.sock"]))
}

/// How the worker `app` is.
pub fn status(client: &mut Varlink) -> Value {
    client.ask("Status", json!({ "name": "app" }))["workers"][0].take()
}

/// Name, generation, state and pid of each instance.
pub fn instances(status: &Value) -> Vec<(String, u64, String, Option<i32>)> {
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let all = status["instances"].as_array().expect("a list").iter();
    let mut all: Vec<_> = all
        .map(|one| {
            let pid = one["pid"].as_i64();
            (
                text(&one["name"]),
                one["generation"].as_u64().expect("a number"),
                text(&one["state"]),
                pid.map(|pid| i32::try_from(pid).expect("a pid")),
            )
        })
        .collect();
    all.sort();
    all
}

/// Waits until the worker's instances of this generation run; their pids.
#[track_caller]
pub fn running(client: &mut Varlink, generation: u64, count: usize) -> Vec<i32> {
    let mut pids = Vec::new();
    eventually("the new instances run", || {
        let all = instances(&status(client)).into_iter();
        let ours = all.filter(|(_, of, state, _)| *of == generation && state == "running");
        pids = ours.filter_map(|(_, _, _, pid)| pid).collect();
        pids.len() == count
    });
    pids
}

/// Ends a load, of which everybody was answered; what it has seen.
#[track_caller]
pub fn nobody_is_lost(load: Load) -> Summary {
    let summary = load.stop();
    assert_eq!(summary.counts.failed(), 0, "{summary}");
    summary
}
