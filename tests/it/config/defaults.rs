//! `defaults:` and merge keys.

use super::reading::{kinds, load, shown};

#[test]
fn a_merge_key_adds_what_a_mapping_does_not_have() {
    let loaded = load(
        "listeners: {web: '127.0.0.1:80'}\nworkers:\n  a: &a\n    command: [x]\n    listeners: [web]\n    \
         nice: 3\n    umask: 0077\n  b:\n    <<: *a\n    nice: 5\n  c:\n    <<: [{nice: 7}, *a]\n",
    );
    assert_eq!(shown(&loaded), "");
    let nice: Vec<_> = loaded
        .config
        .workers
        .iter()
        .map(|worker| worker.launch.nice)
        .collect();
    assert_eq!(nice, [Some(3), Some(5), Some(7)]);
    assert!(
        loaded
            .config
            .workers
            .iter()
            .all(|worker| worker.launch.umask == Some(0o077))
    );
}

#[test]
fn defaults_are_for_workers_without_the_key() {
    let loaded = load(
        "defaults:\n  nice: 3\n  stop_timeout: 9s\n  environment: {A: x, B: x}\n  restart: {policy: \
         on-failure, cool_down: 5m}\nlisteners: {web: '127.0.0.1:80'}\nworkers:\n  a: {command: [x], \
         listeners: [web]}\n  b: {command: [x], listeners: [web], nice: 4, environment: {B: y}, restart: \
         {policy: never}}\n  c: {command: [x], listeners: [web], preset: gunicorn, restart: always}\n",
    );
    assert_eq!(shown(&loaded), "");
    let [a, b, c] = loaded.config.workers.as_slice() else {
        panic!("{:?}", loaded.config.workers);
    };
    assert_eq!(
        [a, b, c].map(|worker| worker.launch.nice),
        [Some(3), Some(4), Some(3)]
    );
    let of = |worker: &listend::config::Worker| -> Vec<String> {
        worker
            .environment
            .iter()
            .map(|(name, value)| format!("{name}={}", value.value))
            .collect()
    };
    assert_eq!(of(a), ["A=x", "B=x"]);
    assert_eq!(of(b), ["B=y", "A=x"]);
    let minutes =
        |worker: &listend::config::Worker| worker.restart.cool_down.map(|time| time.as_secs() / 60);
    assert_eq!([a, b].map(minutes), [Some(5), Some(5)]);
    assert_ne!(minutes(c), Some(5));
    // What the preset of a worker says is nearer to it.
    let seconds = |worker: &listend::config::Worker| worker.stop_timeout.map(|time| time.as_secs());
    assert_eq!([a, c].map(seconds), [Some(9), Some(35)]);
}

#[test]
fn a_mistake_in_defaults_is_reported_once() {
    let loaded = load(
        "defaults: {nice: 77, comand: x, listeners: [web]}\nlisteners: {web: '127.0.0.1:80'}\nworkers:\n  a: \
         {command: [x], listeners: [web]}\n  b: {command: [x], listeners: [web]}\n",
    );
    assert_eq!(
        kinds(&loaded),
        ["bad-value", "unknown-key", "unknown-key"],
        "{}",
        shown(&loaded)
    );
}
