//! `distribute: shards`: which workers can have it, and the sockets that follow.

use super::reading;
use listend::config::Loaded;
use listend::host::Facts;
use listend::plan::{self, Plan, resolve};
use listend::report::{Sources, Style, render};
use std::collections::BTreeMap;

fn load(listeners: &str, workers: &str) -> Loaded {
    reading::load(&format!("listeners: {listeners}\nworkers:\n{workers}"))
}

/// One worker `a` with these keys, at these listeners.
fn one(listeners: &str, keys: &str) -> Loaded {
    load(listeners, &format!("  a: {{command: x, {keys}}}\n"))
}

fn plan(loaded: Loaded) -> Plan {
    let (plan, report) = resolve(loaded.config, &Facts::default(), &mut Sources::default());
    assert!(report.is_ok(), "{:?}", report.errors);
    plan
}

// Rule: what shards cannot be had for is an error that says why.
#[test]
fn what_cannot_have_shards_is_refused() {
    let keys = "listeners: [l], instances: 2, distribute: shards";
    let two = "  a: {command: x, listeners: [l], instances: 2, distribute: shards}\n  \
               b: {command: x, listeners: [l]}\n";
    for (loaded, wanted) in [
        (
            one("{l: unix:/run/a}", keys),
            "`/run/a` of listener `l` is unix",
        ),
        (
            one("{l: udp://127.0.0.1:80}", keys),
            "`127.0.0.1:80` of listener `l` is udp",
        ),
        (
            one(
                "{l: 127.0.0.1:80}",
                &format!("{keys}, activation: on-demand"),
            ),
            "worker `a` is on-demand: a client in the shard of an instance that has exited",
        ),
        (
            one(
                "{l: 127.0.0.1:80}",
                "listeners: [l], distribute: shards, activation: per-connection, handoff: inetd",
            ),
            "worker `a` is per-connection: listend accepts",
        ),
        (
            one("{l: {address: 127.0.0.1:80, reuse_port: true}}", keys),
            "listener `l` has `reuse_port`",
        ),
        (
            load("{l: 127.0.0.1:80}", two),
            "is taken by worker `b` as well",
        ),
        (
            one("{l: 127.0.0.1:80}", &keys.replace('2', "{max: 2000}")),
            "takes at most 1024 instances, and worker `a` has 2000",
        ),
        (
            one("{l: 127.0.0.1:80}", "listeners: [l], distribute: sharts"),
            "did you mean `shards`?",
        ),
    ] {
        let shown = render(&loaded.report, &loaded.sources, Style::Plain);
        assert!(!loaded.report.is_ok(), "{wanted}: {shown}");
        let line = shown.replace('\n', " ");
        assert!(line.contains(wanted), "{wanted}: {shown}");
    }
}

#[test]
fn one_instance_with_shards_is_advice() {
    let loaded = one("{l: 127.0.0.1:80}", "listeners: [l], distribute: shards");
    let codes: Vec<String> = loaded
        .report
        .advice
        .iter()
        .map(|one| one.kind.code())
        .collect();
    assert_eq!(codes, ["one-shard"]);
    assert!(loaded.report.is_ok());
    for more in ["2", "{max: 2}"] {
        let more = format!("listeners: [l], distribute: shards, instances: {more}");
        assert!(one("{l: 127.0.0.1:80}", &more).report.advice.is_empty());
    }
}

/// The address, shard and key of each socket of the listener `l`.
fn sockets(plan: &Plan) -> Vec<(String, u32, u32)> {
    let listener = plan.listeners().next().expect("one").1;
    let sockets = listener.sockets.iter();
    let sockets = sockets.map(|one| (one.endpoint.to_string(), one.shard, one.key.0));
    sockets.collect()
}

fn sharded(instances: u32) -> Plan {
    let keys = format!("listeners: [l], instances: {instances}, distribute: shards");
    plan(one("{l: ['127.0.0.1:80', '127.0.0.1:81']}", &keys))
}

// Rule: the sockets of a shard stand together, so that more of them come last, and none is given up.
#[test]
fn another_number_of_instances_keeps_all_sockets() {
    let two = sharded(2);
    let first = ("127.0.0.1:80".to_owned(), 0, 0);
    let of = |address: &str, shard, key| (address.to_owned(), shard, key);
    let all = [
        first,
        of("127.0.0.1:81", 0, 1),
        of("127.0.0.1:80", 1, 2),
        of("127.0.0.1:81", 1, 3),
    ];
    assert_eq!(sockets(&two), all);
    let merged = plan::merge(&two, &BTreeMap::new(), sharded(3));
    let three = sockets(&merged.plan);
    assert_eq!(three[..4], all);
    assert_eq!(
        three[4..],
        [of("127.0.0.1:80", 2, 4), of("127.0.0.1:81", 2, 5)]
    );
    let worker = merged.plan.workers().next().expect("one").0;
    assert!(!merged.changes.replaces(worker), "{:?}", merged.changes);
    let fewer = plan::merge(&merged.plan, &BTreeMap::new(), sharded(1));
    assert_eq!(sockets(&fewer.plan), three);
    assert!(!fewer.changes.replaces(worker));
    // Another listend has the same after it has read the configuration again.
    let again = sharded(1).with_ids(&merged.plan.known_ids());
    assert_eq!(sockets(&again), three);
}

// Rule: from one socket to shards the socket stays, and is the first shard; and so back.
#[test]
fn the_shared_socket_is_the_first_shard() {
    let shared = plan(one(
        "{l: ['127.0.0.1:80', '127.0.0.1:81']}",
        "listeners: [l], instances: 2",
    ));
    let there = plan::merge(&shared, &BTreeMap::new(), sharded(2));
    let keys: Vec<u32> = sockets(&there.plan)
        .into_iter()
        .map(|(_, _, key)| key)
        .collect();
    assert_eq!(keys, [0, 1, 2, 3]);
    let worker = there.plan.workers().next().expect("one").0;
    assert!(there.changes.replaces(worker));
    let back = plan::merge(&there.plan, &BTreeMap::new(), shared.clone());
    assert_eq!(sockets(&back.plan), sockets(&shared));
    assert!(back.changes.replaces(worker));
}
