//! `distribute: shards`: each instance has a socket of its own, which outlives it.

use crate::harness::load::{Load, Question};
use crate::harness::reloading::{ask, reload, rewrite, run};
use crate::harness::rollout::{instances, nobody_is_lost, status};
use crate::harness::varlink::Varlink;
use crate::harness::{Puppet, World, client, eventually, free_port, kill, require_tool};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;

/// A worker `app` of a probe that serves, with these further lines.
fn app(words: &str, lines: &str) -> String {
    let lines: String = lines.lines().map(|line| format!("    {line}\n")).collect();
    format!(
        "
listeners: {{ web: '127.0.0.1:0' }}
workers:
  app:
    command: [$PROBE, serve-app, {words}]
    listeners: [web]
    nonblocking: true
    ready: notify
    restart: {{ backoff: 1ms..5ms, limit: none }}
    rollout: {{ min_ready: 0s }}
{lines}"
    )
}

const SHARDS: &str = "instances: 4\ndistribute: shards";

/// Puppets that accept nobody until they are told to serve.
fn puppets(instances: u32, lines: &str) -> String {
    let lines: String = lines.lines().map(|line| format!("    {line}\n")).collect();
    format!(
        "
listeners: {{ web: '127.0.0.1:0' }}
workers:
  app:
    command: [$PROBE, puppet, $EVENTS]
    listeners: [web]
    instances: {instances}
    distribute: shards
    ready: notify
    rollout: {{ min_ready: 0s }}
    environment: {{ N: '{{instance}}' }}
{lines}"
    )
}

/// The pids of the instances that run, by their names.
fn pids(client: &mut Varlink) -> BTreeMap<String, i32> {
    let all = instances(&status(client)).into_iter();
    let running = all.filter(|(_, _, state, _)| state == "running");
    running
        .filter_map(|(name, _, _, pid)| Some((name, pid?)))
        .collect()
}

#[track_caller]
fn so_many_run(client: &mut Varlink, count: usize) -> BTreeMap<String, i32> {
    let mut all = BTreeMap::new();
    eventually(&format!("{count} instances run"), || {
        all = pids(client);
        all.len() == count && instances(&status(client)).len() == count
    });
    all
}

/// How many wait in each shard of `web`.
fn depths(client: &mut Varlink) -> Vec<u64> {
    let mut told = client.ask("Status", json!({ "name": "web" }));
    let sockets = told["listeners"][0]["sockets"].take();
    let sockets = sockets.as_array().expect("a list").iter();
    sockets
        .map(|one| one["queue"]["depth"].as_u64().expect("a number"))
        .collect()
}

/// What is told of is done when the daemon has answered a question after that.
fn turn(client: &mut Varlink) {
    depths(client);
}

fn sorted(mut puppets: Vec<Puppet>) -> Vec<Puppet> {
    puppets.sort_by_key(|puppet| puppet.report.env["N"].clone());
    puppets
}

/// Clients that wait for an answer.
fn clients(address: SocketAddr, count: usize) -> Vec<TcpStream> {
    let connect = |_| client::tcp(address).expect("a listener");
    (0..count).map(connect).collect()
}

/// The socket that a process has inherited.
fn socket_of(pid: i32) -> String {
    let link = std::fs::read_link(format!("/proc/{pid}/fd/3")).expect("it has a listener");
    link.to_string_lossy().into_owned()
}

// Rule: instance N has shard N, all have one address, and no two have one socket.
#[test]
fn each_instance_has_a_socket_of_its_own_at_the_same_address() {
    let world = World::new();
    let daemon = run(&world, &puppets(3, ""));
    let puppets = sorted(world.puppets(3));
    let all = puppets.iter().map(|puppet| socket_of(puppet.report.pid));
    let all: BTreeSet<String> = all.collect();
    assert_eq!(all.len(), 3, "{all:?}");
    for puppet in &puppets {
        assert_eq!(puppet.report.env["LISTEN_FDS"], "1");
    }
    let line = daemon.line(&["listener web: listening on"]);
    assert!(line.ends_with("(3 shards)"), "{line}");
    let mut client = Varlink::connect(&world);
    let told = client.ask("Status", json!({ "name": "web" }));
    let sockets = told["listeners"][0]["sockets"].as_array().expect("a list");
    let of = |key: &str| -> Vec<Value> { sockets.iter().map(|one| one[key].clone()).collect() };
    assert_eq!(of("shard"), [json!(0), json!(1), json!(2)]);
    let address = json!(daemon.address("web").to_string());
    assert_eq!(of("address"), [address.clone(), address.clone(), address]);
    let table = ask(&world, "status").expect_code(0).stdout;
    assert!(table.contains(" #2 "), "{table}");
    drop(puppets);
    daemon.stop();
}

// Rule: who waits in the queue of an instance that dies is served by its successor, and nobody is sent
// there meanwhile.
#[test]
fn a_shard_outlives_its_instance_and_gets_nobody_meanwhile() {
    let world = World::new();
    let lines = "restart: { backoff: 1h..1h }";
    let daemon = run(&world, &puppets(2, lines));
    let address = daemon.address("web");
    let mut puppets = sorted(world.puppets(2));
    for puppet in &mut puppets {
        puppet.ask("notify READY=1");
    }
    let mut client = Varlink::connect(&world);
    so_many_run(&mut client, 2);
    let waiting = clients(address, 40);
    let before = depths(&mut client);
    assert_eq!(before.iter().sum::<u64>(), 40);
    assert!(before.iter().all(|depth| *depth > 5), "{before:?}");
    kill(puppets[0].report.pid, Signal::SIGKILL);
    daemon.line(&["app.0", "killed by SIGKILL"]);
    turn(&mut client);
    let more = clients(address, 40);
    let now = depths(&mut client);
    assert_eq!(
        now,
        [before[0], before[1] + 40],
        "all go where somebody serves"
    );
    // The other one goes as well: all shards get clients, which wait.
    kill(puppets[1].report.pid, Signal::SIGKILL);
    daemon.line(&["app.1", "killed by SIGKILL"]);
    turn(&mut client);
    let late = clients(address, 40);
    let now = depths(&mut client);
    assert_eq!(now.iter().sum::<u64>(), 120);
    assert!(now[0] > before[0] + 5, "{now:?}");
    drop(puppets);
    client.ask("Start", json!({ "worker": "app", "no_wait": true }));
    let mut successors = sorted(world.puppets(2));
    for puppet in &mut successors {
        puppet.ask("notify READY=1");
        puppet.tell("serve");
    }
    for one in waiting.into_iter().chain(more).chain(late) {
        let report = client::read_report(one).expect("an answer");
        assert!(
            successors
                .iter()
                .any(|puppet| puppet.report.pid == report.pid)
        );
    }
    daemon.stop();
}

fn kills() -> usize {
    match std::env::var_os("LISTEND_TEST_LONG") {
        Some(_) => 1000,
        None => 40,
    }
}

// Rule: a kill costs at most the client that the killed process had accepted.
#[expect(clippy::print_stdout, reason = "shown by cargo test -- --show-output")]
#[test]
fn kills_of_instances_lose_nobody_who_waits() {
    let world = World::new();
    let daemon = run(&world, &app("--version, '{instance}'", SHARDS));
    let mut client = Varlink::connect(&world);
    so_many_run(&mut client, 4);
    let load = Load::start(daemon.address("web"), 8);
    load.wait_for_answers(100);
    for round in 0..kills() {
        let name = format!("app.{}", round % 4);
        let mut victim = 0;
        eventually("the instance runs", || {
            let pid = pids(&mut client).get(&name).copied();
            victim = pid.unwrap_or(0);
            victim != 0
        });
        kill(victim, Signal::SIGKILL);
        load.wait_for_answers(5);
        eventually("another one runs", || {
            pids(&mut client)
                .get(&name)
                .is_some_and(|pid| *pid != victim)
        });
    }
    load.wait_for_answers(100);
    let summary = load.stop();
    let counts = &summary.counts;
    assert_eq!(
        counts.refused + counts.timed_out + counts.wrong + counts.others,
        0,
        "{summary}"
    );
    // It accepts one at a time.
    assert!(counts.reset + counts.short <= kills(), "{summary}");
    // Each was killed as often as the others, and had as many clients otherwise.
    assert_eq!(summary.versions.len(), 4, "{summary}");
    println!("{summary}");
    daemon.stop();
}

// Rule: a rolling restart and a rollback lose nobody, and shards keep their numbers.
#[test]
fn rollouts_and_rollbacks_lose_nobody() {
    let world = World::new();
    let yaml = |version: &str, lines: &str| {
        app(
            &format!("--version, {version}"),
            &format!("{SHARDS}\n{lines}"),
        )
    };
    let daemon = run(&world, &yaml("one", ""));
    let mut client = Varlink::connect(&world);
    let inodes = |client: &mut Varlink| -> BTreeMap<String, String> {
        let all = pids(client).into_iter();
        all.map(|(name, pid)| (name, socket_of(pid))).collect()
    };
    so_many_run(&mut client, 4);
    let before = inodes(&mut client);
    let all: BTreeSet<&String> = before.values().collect();
    assert_eq!(all.len(), 4, "{before:?}");
    let load = Load::start(daemon.address("web"), 6);
    load.wait_for_version("one", 50);
    ask(&world, "restart app").expect_code(0);
    load.wait_for_answers(50);
    reload(&world, &yaml("two", ""));
    load.wait_for_version("two", 50);
    so_many_run(&mut client, 4);
    assert_eq!(inodes(&mut client), before);
    // The last of the new ones fails: three have been replaced by then.
    let fails = "before_start: [sh, -c, 'test {instance} != 3']";
    rewrite(&world, &yaml("three", fails));
    let told = ask(&world, "reload");
    assert_ne!(told.code, Some(0), "{told:#?}");
    load.wait_for_version("two", 50);
    so_many_run(&mut client, 4);
    assert_eq!(inodes(&mut client), before);
    // One that makes room first leaves its shard to nobody for a moment.
    reload(
        &world,
        &yaml("four", "stop_timeout: 5s").replace("min_ready: 0s", "order: stop-first"),
    );
    load.wait_for_version("four", 50);
    let summary = nobody_is_lost(load);
    assert_eq!(summary.versions.len(), 4, "{summary}");
    daemon.stop();
}

// Rule: another number of instances resets no client, be it by a command or by a reload.
#[test]
fn another_number_of_instances_loses_nobody() {
    let world = World::new();
    let daemon = run(&world, &app("--version, one", SHARDS));
    let mut client = Varlink::connect(&world);
    so_many_run(&mut client, 4);
    let load = Load::start(daemon.address("web"), 6);
    for count in [2, 6, 1, 4] {
        load.wait_for_answers(30);
        ask(&world, &format!("scale app {count}")).expect_code(0);
        so_many_run(&mut client, count);
    }
    let sockets = |client: &mut Varlink| depths(client).len();
    assert_eq!(sockets(&mut client), 6, "none was closed");
    for count in [8, 3] {
        load.wait_for_answers(30);
        let lines = SHARDS.replace('4', &count.to_string());
        reload(&world, &app("--version, one", &lines));
        so_many_run(&mut client, count);
        assert_eq!(sockets(&mut client), 8);
    }
    assert_eq!(status(&mut client)["generation"], 1, "nothing rolls");
    nobody_is_lost(load);
    daemon.stop();
}

// Rule: an instance that is to go first accepts who waits in its shard.
#[test]
fn an_instance_that_goes_is_stopped_when_its_queue_is_empty() {
    let world = World::new();
    let daemon = run(&world, &puppets(2, ""));
    let address = daemon.address("web");
    let mut puppets = sorted(world.puppets(2));
    for puppet in &mut puppets {
        puppet.ask("notify READY=1");
    }
    puppets[1].ask("drain");
    let mut client = Varlink::connect(&world);
    so_many_run(&mut client, 2);
    let waiting = clients(address, 40);
    let before = depths(&mut client);
    client.ask(
        "Scale",
        json!({ "worker": "app", "instances": 1, "no_wait": true }),
    );
    daemon.line(&[
        "app.1",
        "serves the clients in its shard before it is stopped",
    ]);
    turn(&mut client);
    let more = clients(address, 10);
    assert_eq!(depths(&mut client), [before[0] + 10, before[1]]);
    assert!(daemon.lines_so_far(&["app.1", "stopping with"]).is_empty());
    puppets[1].tell("serve");
    daemon.line(&["app.1", "stopping with"]);
    assert_eq!(depths(&mut client), [before[0] + 10, 0]);
    puppets[0].tell("serve");
    let mut by: BTreeMap<i32, u64> = BTreeMap::new();
    for one in waiting.into_iter().chain(more) {
        let report = client::read_report(one).expect("an answer");
        *by.entry(report.pid).or_default() += 1;
    }
    assert_eq!(by[&puppets[1].report.pid], before[1]);
    kill(puppets[1].report.pid, Signal::SIGKILL);
    drop(puppets);
    daemon.stop();
}

// Rule: one that crashes on its way out is started again to accept who waits in its shard.
#[test]
fn an_instance_that_crashes_while_it_drains_is_started_again_for_that() {
    let world = World::new();
    let daemon = run(&world, &puppets(2, "restart: { backoff: 10ms..10ms }"));
    let mut before = sorted(world.puppets(2));
    for puppet in &mut before {
        puppet.ask("notify READY=1");
    }
    let mut client = Varlink::connect(&world);
    so_many_run(&mut client, 2);
    let waiting = clients(daemon.address("web"), 40);
    let in_queue = depths(&mut client);
    let fewer = json!({ "worker": "app", "instances": 1, "no_wait": true });
    client.ask("Scale", fewer);
    daemon.line(&["app.1", "serves the clients in its shard"]);
    kill(before[1].report.pid, Signal::SIGKILL);
    let mut next = world.puppets(1).remove(0);
    assert_eq!(next.report.env["N"], "1");
    next.ask("notify READY=1");
    next.tell("serve");
    daemon.line(&["app.1", "stopping with"]);
    assert_eq!(depths(&mut client), [in_queue[0], 0]);
    before[0].tell("serve");
    let by_next = waiting.into_iter().filter(|one| {
        let report = client::read_report(one).expect("an answer");
        report.pid == next.report.pid
    });
    assert_eq!(by_next.count() as u64, in_queue[1]);
    so_many_run(&mut client, 1);
    daemon.stop();
}

// Rule: who waits in a shard for the successor of an instance is accepted, also if the sockets come to be shared
// before there is one.
#[test]
fn who_waits_for_a_successor_is_served_when_the_sockets_come_to_be_shared() {
    let world = World::new();
    let yaml = puppets(2, "stop_timeout: 60s");
    let yaml = yaml.replace("min_ready: 0s", "min_ready: 0s, order: stop-first");
    let daemon = run(&world, &yaml);
    let mut before = sorted(world.puppets(2));
    for puppet in &mut before {
        puppet.ask("notify READY=1");
    }
    before[1].ask("drain");
    let mut client = Varlink::connect(&world);
    so_many_run(&mut client, 2);
    let waiting = clients(daemon.address("web"), 40);
    assert!(depths(&mut client)[1] > 0);
    ask(&world, "restart app.1 --no-wait").expect_code(0);
    daemon.line(&["app.1", "stopping with"]);
    rewrite(
        &world,
        &yaml.replace("distribute: shards", "distribute: shared"),
    );
    ask(&world, "reload --no-wait").expect_code(0);
    daemon.line(&["app.0", "stopping with"]);
    before[1].tell("exit 0");
    // Both by what is shared, and before that the second once more by what it was.
    let started: Vec<String> = (0..3)
        .map(|_| {
            let mut puppet = world.puppets(1).remove(0);
            puppet.ask("notify READY=1");
            puppet.tell("serve");
            puppet.report.env["N"].clone()
        })
        .collect();
    assert_eq!(started, ["0", "1", "1"]);
    for one in waiting {
        client::read_report(one).expect("an answer");
    }
    eventually("one socket is held", || depths(&mut client).len() == 1);
    daemon.stop();
}

// Rule: without descriptors for more, the shards that there are go on, it is said why, and there are more later.
#[test]
fn without_descriptors_the_shards_that_there_are_serve() {
    let Some(prlimit) = require_tool("prlimit") else {
        return;
    };
    let world = World::new();
    let daemon = run(&world, &app("--version, one", SHARDS));
    let mut client = Varlink::connect(&world);
    so_many_run(&mut client, 4);
    let load = Load::start(daemon.address("web"), 6);
    load.wait_for_answers(30);
    let limit = |number: &str| {
        let (pid, number) = (daemon.pid().to_string(), format!("--nofile={number}:"));
        let done = Command::new(&prlimit)
            .args(["--pid", &pid, &number])
            .status();
        assert!(done.expect("prlimit").success());
    };
    // What is open stays so.
    limit("4");
    client.ask(
        "Scale",
        json!({ "worker": "app", "instances": 6, "no_wait": true }),
    );
    daemon.line(&["cannot bind 6 shards", "share the 4 that there are"]);
    daemon.line(&[
        "cannot bind listener `web`",
        "limit on open files is reached",
    ]);
    load.wait_for_answers(60);
    limit("1024");
    so_many_run(&mut client, 6);
    assert_eq!(depths(&mut client).len(), 4);
    // The next that start have their own.
    ask(&world, "restart app").expect_code(0);
    assert_eq!(depths(&mut client).len(), 6);
    nobody_is_lost(load);
    daemon.stop();
}

// Rule: from one shared socket to shards and back, nobody is refused or reset.
#[test]
fn a_reload_to_shards_and_back_loses_nobody() {
    let shared = SHARDS.replace("shards", "shared");
    for order in ["start-first", "stop-first"] {
        let yaml = |lines: &str| {
            let yaml = app("--version, one", lines);
            yaml.replace("min_ready: 0s", &format!("min_ready: 0s, order: {order}"))
        };
        let world = World::new();
        let daemon = run(&world, &yaml(&shared));
        let mut client = Varlink::connect(&world);
        so_many_run(&mut client, 4);
        let load = Load::start(daemon.address("web"), 6);
        for (round, lines) in [SHARDS, &shared, SHARDS, &shared].into_iter().enumerate() {
            load.wait_for_answers(30);
            let told = reload(&world, &yaml(lines));
            assert!(told.stdout.contains("distribute"), "{told:#?}");
            so_many_run(&mut client, 4);
            let wanted = if round % 2 == 0 { 4 } else { 1 };
            eventually("so many sockets are held", || {
                depths(&mut client).len() == wanted
            });
        }
        nobody_is_lost(load);
        daemon.stop();
    }
}

// The shards of a worker that had been scaled before it got some could not be bound beside the address that it gave up,
// which is held until the rollout is over; its instances shared one.
#[test]
fn shards_beyond_the_configuration_are_bound_beside_an_address_that_goes_away() {
    let port = free_port();
    let at = |address: &str, lines: &str| {
        let yaml = app("--version, one", lines);
        yaml.replace("127.0.0.1:0", &format!("{address}:{port}"))
    };
    let world = World::new();
    let daemon = run(&world, &at("0.0.0.0", "instances: 1"));
    let mut client = Varlink::connect(&world);
    so_many_run(&mut client, 1);
    ask(&world, "scale app 3").expect_code(0);
    reload(&world, &at("127.0.0.1", "instances: 1\ndistribute: shards"));
    so_many_run(&mut client, 3);
    assert_eq!(depths(&mut client).len(), 3, "{}", daemon.stderr());
    daemon.line(&["the reload is complete"]);
    let load = Load::start(daemon.address("web"), 3);
    load.wait_for_answers(30);
    nobody_is_lost(load);
    daemon.stop();
}

// Rule: short connections are spread evenly.
#[test]
fn clients_are_spread_evenly() {
    let world = World::new();
    let daemon = run(&world, &app("--version, pid", SHARDS));
    let mut client = Varlink::connect(&world);
    so_many_run(&mut client, 4);
    let load = Load::asking(daemon.address("web"), 8, Question::http());
    load.wait_for_answers(6000);
    let summary = nobody_is_lost(load);
    assert_fair(&summary.versions);
    daemon.stop();
}

#[track_caller]
fn assert_fair(shares: &BTreeMap<String, usize>) {
    assert_eq!(shares.len(), 4, "{shares:?}");
    let (least, most) = (shares.values().min(), shares.values().max());
    let (least, most) = (*least.expect("four"), *most.expect("four"));
    assert!(most * 10 <= least * 12, "{shares:?}");
}

// Rule: a worker that shuts its shard down takes nothing from the others, and gets it back.
#[test]
fn a_shard_that_was_shut_down_is_told_from_the_others_afterwards() {
    let world = World::new();
    let lines = "restart: { backoff: 1h..1h }";
    let daemon = run(&world, &puppets(3, lines));
    let address = daemon.address("web");
    let mut puppets = sorted(world.puppets(3));
    for puppet in &mut puppets {
        puppet.ask("notify READY=1");
    }
    let mut client = Varlink::connect(&world);
    so_many_run(&mut client, 3);
    for at in [0, 1] {
        puppets[at].ask("shutdown");
        daemon.lines(&["listening again"], at + 1);
    }
    for (at, puppet) in puppets.iter().enumerate() {
        kill(puppet.report.pid, Signal::SIGKILL);
        daemon.line(&[&format!("app.{at}"), "killed by SIGKILL"]);
        turn(&mut client);
        let before = depths(&mut client);
        let _waiting = clients(address, 30);
        let now = depths(&mut client);
        let got: Vec<u64> = now
            .iter()
            .zip(&before)
            .map(|(now, before)| now - before)
            .collect();
        if at < 2 {
            assert!(got[..=at].iter().all(|got| *got == 0), "{got:?}");
        }
        assert_eq!(got.iter().sum::<u64>(), 30);
    }
    daemon.stop();
}

// Rule: an upgrade keeps each shard for its instance.
#[test]
fn an_upgrade_keeps_the_shards() {
    let world = World::new();
    let daemon = run(&world, &app("--version, pid", SHARDS));
    let mut client = Varlink::connect(&world);
    so_many_run(&mut client, 4);
    let load = Load::start(daemon.address("web"), 6);
    load.wait_for_answers(30);
    ask(&world, "scale app 6").expect_code(0);
    for _ in 0..3 {
        load.wait_for_answers(30);
        ask(&world, "upgrade").expect_code(0);
    }
    let mut client = Varlink::connect(&world);
    let before = so_many_run(&mut client, 6);
    assert_eq!(depths(&mut client).len(), 6);
    ask(&world, "scale app 4").expect_code(0);
    ask(&world, "restart app").expect_code(0);
    load.wait_for_answers(30);
    let after = so_many_run(&mut client, 4);
    assert!(
        after
            .values()
            .all(|pid| !before.values().any(|old| old == pid))
    );
    nobody_is_lost(load);
    daemon.stop();
}
