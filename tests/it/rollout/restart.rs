//! New generations in the place of old ones, under load: nobody is lost, and what is no good goes
//! back.

use crate::harness::load::Load;
use crate::harness::rollout::{
    APP, NEVER, PUPPET, instances, nobody_is_lost, release, run, running, serving, status, tell,
    three, with,
};
use crate::harness::varlink::Varlink;
use crate::harness::{Daemon, World, children, client, eventually, exists};
use nix::sys::signal::Signal;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::{Duration, Instant};

/// The most processes that lived at the same time, and of any one instance, by what is told of
/// starts and ends.
fn most_alive(daemon: &Daemon) -> (usize, usize) {
    let mut alive: BTreeMap<String, usize> = BTreeMap::new();
    let (mut most, mut most_of_one) = (0, 0);
    for line in daemon.lines_so_far(&["app."]) {
        let Some(at) = line.find("app.") else {
            continue;
        };
        let name = line[at..].split(':').next().unwrap_or_default().to_owned();
        let count = alive.entry(name).or_default();
        if line.contains(": starting, pid") {
            *count += 1;
        } else if line.contains(": exited with") || line.contains(": killed by") {
            *count -= 1;
        }
        most_of_one = most_of_one.max(*count);
        most = most.max(alive.values().sum());
    }
    (most, most_of_one)
}

// --- The new generation comes first -----------------------------------------------------------------

#[test]
fn a_restart_under_load_loses_nobody() {
    let world = World::new();
    let (daemon, load) = serving(&world, "rollout: { min_ready: 20ms }");
    let mut client = Varlink::connect(&world);
    for generation in 2..6 {
        let before = running(&mut client, generation - 1, 1);
        release(&world, &format!("--version v{generation}"));
        let told = tell(&world, &["restart", "app"]).expect_code(0);
        assert!(told.stdout.contains("restarted"), "{told:#?}");
        let now = status(&mut client);
        assert_eq!(now["generation"], generation);
        assert_eq!(now["state"], "running");
        assert_eq!(instances(&now).len(), 1, "{now}");
        assert!(!exists(before[0]), "the old one is gone by then");
        load.wait_for_version(&format!("v{generation}"), 50);
    }
    let summary = nobody_is_lost(load);
    assert_eq!(summary.versions.len(), 5, "{summary}");
    // One came beside the other every time.
    assert_eq!(most_alive(&daemon), (2, 2));
    daemon.stop();
}

#[test]
fn the_old_one_is_asked_to_stop_when_the_new_one_has_been_ready_for_a_while() {
    let world = World::new();
    let min_ready = Duration::from_millis(300);
    let daemon = run(&world, &with(PUPPET, "rollout: { min_ready: 300ms }"));
    let mut old = world.puppet();
    old.ask("notify READY=1");
    old.ask("drain");
    let mut client = Varlink::connect(&world);
    running(&mut client, 1, 1);
    client.ask("Restart", json!({ "worker": "app", "no_wait": true }));
    let mut new = world.puppet();
    eventually("both are there", || {
        let all = instances(&status(&mut client));
        let of = |generation, word: &str, pid| {
            let found = all.iter().find(|one| one.1 == generation);
            found.is_some_and(|one| one.2 == word && one.3 == Some(pid))
        };
        all.len() == 2 && of(1, "running", old.pid()) && of(2, "starting", new.pid())
    });
    assert_eq!(status(&mut client)["generation"], 2);
    // `listend status --json` has the same.
    let told = tell(&world, &["status", "--json"]).expect_code(0).json();
    let generations = instances(&told["workers"][0]).into_iter();
    let generations: BTreeSet<u64> = generations.map(|(_, of, _, _)| of).collect();
    assert_eq!(generations, BTreeSet::from([1, 2]));
    assert!(daemon.lines_so_far(&["stopping with"]).is_empty());
    let before = Instant::now();
    new.ask("notify READY=1");
    assert_eq!(old.listen().as_deref(), Some("term"));
    assert!(before.elapsed() >= min_ready, "{:?}", before.elapsed());
    // It may take its time, and counts until it is gone.
    let all = instances(&status(&mut client));
    assert_eq!(all.len(), 2, "{all:?}");
    old.tell("exit 0");
    eventually("the new one is left", || {
        let all = instances(&status(&mut client));
        all == [("app.0".to_owned(), 2, "running".to_owned(), Some(new.pid()))]
    });
    daemon.line(&["app: generation 2 has taken over"]);
    daemon.stop();
}

/// Each of the puppets in turn of its number.
fn sorted(mut puppets: Vec<crate::harness::Puppet>) -> Vec<crate::harness::Puppet> {
    puppets.sort_by_key(|puppet| puppet.report.env["N"].clone());
    puppets
}

#[test]
fn so_many_at_a_time_are_replaced_and_no_more() {
    let world = World::new();
    let lines = "instances: 4\nrollout: { parallel: 2, min_ready: 0s }";
    let daemon = run(&world, &with(PUPPET, lines));
    let mut old = sorted(world.puppets(4));
    for puppet in &mut old {
        puppet.ask("notify READY=1");
        puppet.ask("drain");
    }
    let mut client = Varlink::connect(&world);
    running(&mut client, 1, 4);
    client.ask("Restart", json!({ "worker": "app", "no_wait": true }));
    let mut kept = Vec::new();
    for pair in [0, 2] {
        let mut new = sorted(world.puppets(2));
        // The answer comes after everything that the two have led to.
        status(&mut client);
        assert!(world.no_puppet_is_waiting(), "a third at the same time");
        for (offset, puppet) in new.iter_mut().enumerate() {
            assert_eq!(puppet.report.env["N"], (pair + offset).to_string());
            puppet.ask("notify READY=1");
        }
        for puppet in &mut old[pair..pair + 2] {
            assert_eq!(puppet.listen().as_deref(), Some("term"));
        }
        status(&mut client);
        assert!(world.no_puppet_is_waiting(), "more than six");
        for puppet in &mut old[pair..pair + 2] {
            puppet.tell("exit 0");
        }
        kept.extend(new);
    }
    daemon.line(&["app: generation 2 has taken over"]);
    assert_eq!(running(&mut client, 2, 4).len(), 4);
    assert_eq!(most_alive(&daemon), (6, 2));
    daemon.stop();
}

#[test]
fn a_pool_is_replaced_under_load() {
    let world = World::new();
    let lines = "instances: 4\nrollout: { parallel: 2, min_ready: 10ms }";
    let (daemon, load) = serving(&world, lines);
    let mut client = Varlink::connect(&world);
    for generation in 2..5 {
        running(&mut client, generation - 1, 4);
        let done = client.ask("Restart", json!({ "worker": "app" }));
        assert_eq!((&done["done"], &done["of"]), (&json!(4), &json!(4)));
        running(&mut client, generation, 4);
        load.wait_for_answers(50);
    }
    nobody_is_lost(load);
    let (most, most_of_one) = most_alive(&daemon);
    assert!((5..=6).contains(&most), "{most}");
    assert_eq!(most_of_one, 2);
    daemon.stop();
}

#[test]
fn where_the_old_one_stops_first_there_are_never_two() {
    let world = World::new();
    let lines = "instances: 2\nrollout: { order: stop-first, min_ready: 10ms }";
    let (daemon, load) = serving(&world, lines);
    let mut client = Varlink::connect(&world);
    for generation in 2..5 {
        running(&mut client, generation - 1, 2);
        tell(&world, &["restart", "app"]).expect_code(0);
        running(&mut client, generation, 2);
        load.wait_for_answers(50);
    }
    nobody_is_lost(load);
    assert_eq!(most_alive(&daemon), (2, 1));
    daemon.stop();
}

// --- Back -------------------------------------------------------------------------------------------

/// A release that is no good.
struct Bad<'a> {
    /// What is in the file `release`.
    words: &'static str,
    /// Further lines of the worker, for the good releases as well.
    lines: &'a str,
    /// What the caller is told, besides its last words.
    reason: &'static str,
}

/// What is no good goes back; then something good comes, and all is well again.
fn goes_back(bad: &Bad<'_>) {
    let world = World::new();
    release(&world, "--version one --alive 50ms");
    let daemon = run(&world, &with(APP, bad.lines));
    let load = Load::start(daemon.address("web"), 4);
    load.wait_for_version("one", 50);
    let mut client = Varlink::connect(&world);
    let old = running(&mut client, 1, 1);
    release(&world, bad.words);
    let told = tell(&world, &["restart", "app"]).expect_code(1);
    let last_words = "broken-release";
    for word in ["app.0 of generation 2 failed", bad.reason, last_words] {
        assert!(told.stderr.contains(word), "{word}: {told:#?}");
    }
    let now = status(&mut client);
    assert_eq!(now["state"], "degraded");
    assert_eq!(now["generation"], 1);
    let kept = ("app.0".to_owned(), 1, "running".to_owned(), Some(old[0]));
    eventually("the old one alone is there", || {
        instances(&status(&mut client)) == [kept.clone()]
    });
    daemon.line(&["app: rolled back"]);
    load.wait_for_version("one", 50);
    release(&world, "--version two --alive 50ms");
    tell(&world, &["restart", "app"]).expect_code(0);
    assert_eq!(status(&mut client)["state"], "running");
    load.wait_for_version("two", 50);
    nobody_is_lost(load);
    daemon.stop();
}

#[test]
fn one_that_exits_at_once_goes_back() {
    goes_back(&Bad {
        words: "--say broken-release --crash-at-start",
        lines: "rollout: { min_ready: 1s }",
        reason: "exited with exit status 1",
    });
}

#[test]
fn one_that_never_gets_ready_goes_back() {
    goes_back(&Bad {
        words: "--say broken-release --hang-at-start",
        lines: "start_timeout: 1s\nrollout: { min_ready: 10ms }",
        reason: "not ready within 1 s",
    });
}

#[test]
fn one_that_crashes_soon_after_it_was_ready_goes_back() {
    goes_back(&Bad {
        words: "--say broken-release --version bad --crash-after-ready 30ms",
        lines: "rollout: { min_ready: 2s }",
        reason: "exited with exit status 1",
    });
}

#[test]
fn one_that_gives_no_sign_of_life_goes_back() {
    goes_back(&Bad {
        words: "--say broken-release --hang-after-ready",
        lines: "watchdog: 500ms\nrollout: { min_ready: 5s }",
        reason: "no keep-alive for 500 ms",
    });
}

#[test]
fn one_that_cannot_be_executed_goes_back() {
    let world = World::new();
    std::os::unix::fs::symlink(crate::harness::probe_path(), world.path("program"))
        .expect("symlink");
    let command = "[$DIR/program, serve-app, --alive, 50ms]";
    let yaml = APP.replace(
        "[sh, -c, 'exec $PROBE serve-app $(cat $DIR/release)']",
        command,
    );
    let daemon = run(&world, &with(&yaml, "rollout: { min_ready: 10ms }"));
    let load = Load::start(daemon.address("web"), 4);
    load.wait_for_version("1", 50);
    let mut client = Varlink::connect(&world);
    let old = running(&mut client, 1, 1);
    fs::remove_file(world.path("program")).expect("remove the link");
    let told = tell(&world, &["restart", "app"]).expect_code(1);
    for word in ["app.0 of generation 2 failed", "no such file or directory"] {
        assert!(told.stderr.contains(word), "{word}: {told:#?}");
    }
    assert_eq!(status(&mut client)["state"], "degraded");
    assert_eq!(running(&mut client, 1, 1), old);
    std::os::unix::fs::symlink(crate::harness::probe_path(), world.path("program"))
        .expect("symlink");
    tell(&world, &["restart", "app"]).expect_code(0);
    assert_eq!(status(&mut client)["state"], "running");
    nobody_is_lost(load);
    daemon.stop();
}

#[test]
fn one_that_cannot_be_prepared_goes_back() {
    let look = "grep -q version $DIR/release || (echo broken-release >&2; exit 3)";
    goes_back(&Bad {
        words: "--crash-at-start",
        lines: &format!("rollout: {{ min_ready: 10ms }}\nbefore_start: [sh, -c, '{look}']"),
        reason: "before_start exited with exit status 3",
    });
}

#[test]
fn what_was_replaced_before_goes_back_as_well() {
    let world = World::new();
    let daemon = run(&world, &three("one"));
    let load = Load::start(daemon.address("web"), 4);
    load.wait_for_version("one", 50);
    let mut client = Varlink::connect(&world);
    let old: BTreeSet<i32> = running(&mut client, 1, 3).into_iter().collect();
    world.write("listend.yaml", &three("two"));
    let told = tell(&world, &["reload"]).expect_code(1);
    assert!(
        told.stderr.contains("app.1 of generation 2 failed"),
        "{told:#?}"
    );
    // What was changed comes first, and what failed is not counted as done.
    let lines: Vec<&str> = told.stdout.lines().collect();
    assert!(
        lines[0].starts_with("worker `app`: rolls (environment "),
        "{told:#?}"
    );
    let [step] = lines[1..] else {
        panic!("{told:#?}");
    };
    assert!(
        step.starts_with("configuration: 0 of 1: at most "),
        "{told:#?}"
    );
    let now = status(&mut client);
    assert_eq!(now["state"], "degraded");
    let all = instances(&now);
    assert_eq!(all.len(), 3, "{all:?}");
    let pids: BTreeSet<i32> = all.iter().filter_map(|one| one.3).collect();
    assert_eq!(
        pids.intersection(&old).count(),
        2,
        "{all:?}, before {old:?}"
    );
    assert!(all.iter().all(|one| one.2 == "running"), "{all:?}");
    // Nothing of the new definition is left, and what comes from now on is of the old one.
    let environment = |pid: &i32| fs::read(format!("/proc/{pid}/environ")).expect("it runs");
    for pid in &pids {
        let text = environment(pid);
        let text = String::from_utf8_lossy(&text);
        assert!(text.contains("APP_VERSION=one"), "{text:?}");
    }
    // The same file again is another attempt.
    tell(&world, &["reload"]).expect_code(1);
    assert_eq!(status(&mut client)["state"], "degraded");
    world.write("listend.yaml", &three("one"));
    tell(&world, &["reload"]).expect_code(0);
    assert_eq!(status(&mut client)["state"], "running");
    world.write("listend.yaml", &three("three"));
    tell(&world, &["reload"]).expect_code(0);
    assert_eq!(status(&mut client)["state"], "running");
    load.wait_for_version("three", 50);
    nobody_is_lost(load);
    daemon.stop();
}

#[test]
fn what_came_at_the_same_time_as_a_bad_one_goes_back_as_well() {
    let world = World::new();
    let at_once = |version| three(version).replace("{ min_ready", "{ parallel: 3, min_ready");
    let daemon = run(&world, &at_once("one"));
    let load = Load::start(daemon.address("web"), 4);
    load.wait_for_version("one", 50);
    let mut client = Varlink::connect(&world);
    let old = running(&mut client, 1, 3);
    // The others of it are not relied on by the time the bad one has ended.
    let yaml = at_once("two").replace("min_ready: 20ms", &format!("min_ready: {NEVER}"));
    world.write("listend.yaml", &yaml);
    tell(&world, &["reload"]).expect_code(1);
    eventually("the old ones alone are there", || {
        let all = instances(&status(&mut client));
        all.iter()
            .map(|one| one.3)
            .eq(old.iter().copied().map(Some))
    });
    assert_eq!(status(&mut client)["state"], "degraded");
    nobody_is_lost(load);
    daemon.stop();
}

#[test]
fn where_the_old_one_stops_first_it_is_started_again() {
    let world = World::new();
    let stops = |version| three(version).replace("{ min_ready", "{ order: stop-first, min_ready");
    let daemon = run(&world, &stops("one"));
    let load = Load::start(daemon.address("web"), 4);
    load.wait_for_version("one", 50);
    let mut client = Varlink::connect(&world);
    let old: BTreeSet<i32> = running(&mut client, 1, 3).into_iter().collect();
    world.write("listend.yaml", &stops("two"));
    let told = tell(&world, &["reload"]).expect_code(1);
    assert!(
        told.stderr.contains("app.1 of generation 2 failed"),
        "{told:#?}"
    );
    let now = instances(&status(&mut client));
    let pids: BTreeSet<i32> = now.iter().filter_map(|one| one.3).collect();
    assert_eq!(pids.len(), 3, "{now:?}");
    assert_eq!(pids.intersection(&old).count(), 1, "{now:?}");
    // Whoever comes from now on is answered by the old definition.
    let after = Load::start(daemon.address("web"), 4);
    after.wait_for_answers(100);
    let summary = nobody_is_lost(after);
    assert_eq!(summary.versions.len(), 1, "{summary}");
    assert_eq!(summary.versions["one"], summary.counts.answered);
    nobody_is_lost(load);
    assert_eq!(most_alive(&daemon), (3, 1));
    daemon.stop();
}

fn running_pids(client: &mut Varlink) -> Vec<i32> {
    let all = instances(&status(client)).into_iter();
    all.filter_map(|(_, _, _, pid)| pid).collect()
}

// --- What else is wanted meanwhile ------------------------------------------------------------------

/// A rollout that goes on until the new puppet says that it is ready.
fn halfway(
    world: &World,
) -> (
    Daemon,
    Varlink,
    crate::harness::Puppet,
    crate::harness::Puppet,
) {
    let daemon = run(world, &with(PUPPET, "rollout: { min_ready: 0s }"));
    let mut old = world.puppet();
    old.ask("notify READY=1");
    let mut client = Varlink::connect(world);
    running(&mut client, 1, 1);
    client.ask("Restart", json!({ "worker": "app", "no_wait": true }));
    let new = world.puppet();
    (daemon, client, old, new)
}

#[test]
fn another_size_meanwhile_is_refused_and_a_start_waits() {
    let world = World::new();
    let (daemon, mut client, mut old, mut new) = halfway(&world);
    for words in [&["reset", "app"][..], &["scale", "app", "2"]] {
        let told = tell(&world, words).expect_code(1);
        assert!(told.stderr.contains("in progress"), "{told:#?}");
    }
    let mut other = Varlink::connect(&world);
    other.call_with(
        "io.listend.Manager.Start",
        json!({ "worker": "app" }),
        json!({ "more": true }),
    );
    let first = other.next().expect("how far it is");
    assert_eq!(first["parameters"]["of"], 1, "{first}");
    new.ask("notify READY=1");
    let last = std::iter::from_fn(|| other.next()).find(|reply| reply["continues"] != true);
    let last = last.expect("how it ended");
    assert_eq!(last["parameters"]["message"], "app: started");
    old.wait_for_its_end();
    assert_eq!(running(&mut client, 2, 1), [new.pid()]);
    daemon.line(&["app: generation 2 has taken over"]);
    daemon.stop();
}

#[test]
fn a_stop_meanwhile_ends_both() {
    let world = World::new();
    let (daemon, mut client, mut old, mut new) = halfway(&world);
    tell(&world, &["stop", "app"]).expect_code(0);
    old.wait_for_its_end();
    new.wait_for_its_end();
    let now = status(&mut client);
    assert_eq!(now["state"], "stopped", "{now}");
    assert!(instances(&now).iter().all(|one| one.3.is_none()), "{now}");
    assert!(world.no_puppet_is_waiting());
    client.ask("Start", json!({ "worker": "app", "no_wait": true }));
    let mut next = world.puppet();
    next.ask("notify READY=1");
    eventually("it runs again", || {
        status(&mut client)["state"] == "running"
    });
    daemon.stop();
}

#[test]
fn whoever_waits_for_a_rollout_is_told_that_it_was_stopped() {
    let world = World::new();
    let daemon = run(&world, &with(PUPPET, "rollout: { min_ready: 0s }"));
    let mut old = world.puppet();
    old.ask("notify READY=1");
    let mut client = Varlink::connect(&world);
    running(&mut client, 1, 1);
    let mut waits = Varlink::connect(&world);
    let restart = json!({ "worker": "app" });
    waits.call_with("Restart", restart, json!({ "more": true }));
    assert_eq!(waits.next().expect("a step")["continues"], true);
    let _new = world.puppet();
    client.ask("Stop", json!({ "worker": "app" }));
    let reply = waits.next().expect("an answer");
    assert_eq!(reply["error"], "io.listend.Manager.Refused", "{reply}");
    daemon.stop();
}

#[test]
fn listend_stops_in_the_middle_of_a_rollout() {
    let world = World::new();
    let (daemon, _client, mut old, mut new) = halfway(&world);
    daemon.stop();
    old.wait_for_its_end();
    new.wait_for_its_end();
    assert!(world.no_puppet_is_waiting());
}

#[test]
fn listend_stops_while_the_old_one_drains() {
    let world = World::new();
    let (daemon, _client, mut old, mut new) = halfway(&world);
    old.ask("drain");
    new.ask("notify READY=1");
    assert_eq!(old.listen().as_deref(), Some("term"));
    daemon.signal(Signal::SIGTERM);
    new.wait_for_its_end();
    old.tell("exit 0");
    assert_eq!(daemon.status().code(), Some(0));
}

#[test]
fn listend_stops_under_load_in_the_middle_of_a_rollout() {
    let world = World::new();
    let (daemon, load) = serving(&world, &format!("rollout: {{ min_ready: {NEVER} }}"));
    let mut client = Varlink::connect(&world);
    release(&world, "--version two");
    client.ask("Restart", json!({ "worker": "app", "no_wait": true }));
    load.wait_for_version("two", 20);
    daemon.stop();
    eventually("all have gone", || load.counts().refused > 0);
    let summary = load.stop();
    let counts = &summary.counts;
    // What was in the queue when the listener was closed is reset; nothing that was begun is cut.
    assert_eq!(
        (counts.short, counts.wrong, counts.timed_out),
        (0, 0, 0),
        "{summary}"
    );
}

// --- Workers that clients start ---------------------------------------------------------------------

#[test]
fn a_worker_that_clients_start_is_replaced_while_it_runs_and_waits_while_it_does_not() {
    let world = World::new();
    let lines = "activation: on-demand\nrollout: { min_ready: 10ms }";
    release(&world, "--version one");
    let daemon = run(&world, &with(APP, lines));
    let address = daemon.address("web");
    let mut client = Varlink::connect(&world);
    eventually("it waits", || status(&mut client)["state"] == "waiting");
    // Nothing runs that could be replaced: the next client starts what is there then.
    tell(&world, &["restart", "app"]).expect_code(0);
    // A process that closes what listend gave up is there for a moment.
    eventually("nothing runs", || children(daemon.pid()).is_empty());
    assert_eq!(status(&mut client)["state"], "waiting");
    let load = Load::start(address, 4);
    load.wait_for_version("one", 50);
    release(&world, "--version two");
    let old = running_pids(&mut client);
    tell(&world, &["restart", "app"]).expect_code(0);
    load.wait_for_version("two", 50);
    assert!(!exists(old[0]));
    release(&world, "--say broken-release --crash-at-start");
    let told = tell(&world, &["restart", "app"]).expect_code(1);
    assert!(told.stderr.contains("broken-release"), "{told:#?}");
    assert_eq!(status(&mut client)["state"], "degraded");
    load.wait_for_version("two", 50);
    release(&world, "--version three");
    tell(&world, &["restart", "app"]).expect_code(0);
    assert_eq!(status(&mut client)["state"], "running");
    load.wait_for_version("three", 50);
    nobody_is_lost(load);
    daemon.stop();
}

#[test]
fn connections_outlive_a_restart_and_the_next_are_of_the_new_generation() {
    let world = World::new();
    let daemon = run(
        &world,
        "
listeners: { web: '127.0.0.1:0' }
workers:
  app:
    command: [sh, -c, 'echo {generation}; exec cat']
    listeners: [web]
    activation: per-connection
    handoff: inetd
",
    );
    let address = daemon.address("web");
    let first = client::tcp(address).expect("connect");
    client::hear(&first, "1\n");
    tell(&world, &["restart", "app"]).expect_code(0);
    client::converse(&first, "still here\n", "still here\n");
    let second = client::tcp(address).expect("connect");
    client::hear(&second, "2\n");
    client::converse(&first, "and now\n", "and now\n");
    daemon.stop();
}

// --- Again and again --------------------------------------------------------------------------------

/// The delays that are told before each further start, in milliseconds.
fn delays(daemon: &Daemon) -> Vec<f64> {
    let lines = daemon.lines_so_far(&["app.0", "restarting in "]);
    let words = lines.iter().map(|line| {
        let (_, rest) = line.split_once("restarting in ").expect("a delay");
        let mut words = rest.split([' ', ';']);
        let number: f64 = words
            .next()
            .and_then(|word| word.parse().ok())
            .expect("a number");
        match words.next() {
            Some("ms") => number,
            Some("s") => number * 1_000.0,
            other => panic!("{other:?} of {rest}"),
        }
    });
    words.collect()
}

#[test]
fn one_that_is_ready_and_dies_for_ever_is_started_less_and_less_often() {
    let world = World::new();
    release(&world, "--crash-after-ready 0ms");
    let yaml = APP.replace("backoff: 10ms..50ms", "backoff: 10ms..1h");
    let daemon = run(&world, &yaml);
    eventually("it is started only once in a second", || {
        delays(&daemon)
            .last()
            .is_some_and(|delay| *delay >= 1_000.0)
    });
    // Each delay is twice the one before, less a quarter at most: 1,000 ms is the eighth.
    let all = delays(&daemon);
    assert!(all.len() <= 9, "{all:?}");
    let least = |number: usize| 10.0 * f64::from(1_u32 << number) * 0.74;
    assert!(
        all.iter()
            .enumerate()
            .all(|(number, delay)| *delay >= least(number)),
        "{all:?}"
    );
    let ready = daemon.lines_so_far(&["app.0: ready"]).len();
    assert_eq!(ready, all.len(), "it was ready every time");
    daemon.stop();
}

#[test]
fn one_that_is_ready_and_dies_is_given_up_at_the_limit() {
    let world = World::new();
    release(&world, "--crash-after-ready 0ms");
    let yaml = APP.replace("limit: none", "limit: 5 in 1h");
    let daemon = run(&world, &yaml);
    daemon.line(&["app.0: failed"]);
    assert_eq!(daemon.lines_so_far(&["app.0: ready"]).len(), 6);
    assert_eq!(daemon.lines_so_far(&["app.0: started"]).len(), 6);
    // A restart is a new attempt, and has nothing that it could go back to.
    release(&world, "--version good");
    tell(&world, &["restart", "app"]).expect_code(0);
    let load = Load::start(daemon.address("web"), 2);
    load.wait_for_version("good", 20);
    nobody_is_lost(load);
    daemon.stop();
}
