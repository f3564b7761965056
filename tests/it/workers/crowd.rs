//! What workers get of a daemon that has many descriptors: most of those have numbers of which no child has a copy
//! (`sys::high`).

use crate::harness::app::{self, PUPPET};
use crate::harness::reloading::{ask, reload, run};
use crate::harness::varlink;
use crate::harness::{
    Puppet, World, client, descriptors_become, eventually, is_root, public_probe, require_tool,
    settled_descriptors,
};
use crate::survival::{Blow, at_each_blow};
use nix::sys::signal::Signal;
use std::fs;

/// The first number that is left out, as `sys::high` has it.
const HIGH: i32 = 2048;

const OWN: &str = "restart: { policy: always, backoff: 1ms..2ms, limit: none }, output: tag";

/// So many listeners, whose sockets are out of the way since connections are accepted, so many instances of `crowd`,
/// and what is started after it.
fn yaml(listeners: usize, crowd: usize, others: &str) -> String {
    let many: String = (0..listeners)
        .map(|number| format!("  m{number}: 'unix:$DIR/{number}'\n"))
        .collect();
    format!(
        "
workers:
  crowd: {{ command: [/bin/sleep, '600'], instances: {crowd}, output: tag, stop_timeout: 20s }}
  each: {{ command: {PUPPET}, listeners: [each], activation: per-connection, handoff: inetd, output: inherit }}
{others}listeners:
  own: '127.0.0.1:0'
  each: '127.0.0.1:0'
{many}"
    )
}

/// The numbers of descriptors that a process has open.
fn numbers(pid: i32) -> Vec<i32> {
    let open = fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs");
    let numbers = open.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    numbers.collect()
}

fn high(pid: i32) -> usize {
    numbers(pid).into_iter().filter(|one| *one >= HIGH).count()
}

/// It has its standard streams, and one socket for each of these names behind them.
#[track_caller]
fn has_exactly(puppet: &Puppet, names: &[&str]) {
    let report = &puppet.report;
    let found: Vec<i32> = report.fds.iter().map(|fd| fd.number).collect();
    let expected: Vec<i32> = (0..).take(3 + names.len()).collect();
    assert_eq!(found, expected, "{:?}", report.fds);
    assert_eq!(report.fds[0].target, "/dev/null");
    for stream in &report.fds[1..3] {
        assert!(stream.target.starts_with("pipe:"), "{stream:?}");
    }
    for socket in &report.fds[3..] {
        let socket = socket.socket.as_ref().expect("a socket");
        assert!(socket.listening, "{socket:?}");
    }
    let named = report.env.get("LISTEN_FDNAMES").cloned();
    assert_eq!(named.unwrap_or_default(), names.join(":"));
}

/// The next process of the worker that has these listeners, after its last one has ended.
#[track_caller]
fn again(world: &World, mut puppet: Puppet, names: &[&str]) -> Puppet {
    puppet.tell("exit 0");
    puppet.wait_for_its_end();
    let next = world.puppet();
    has_exactly(&next, names);
    next
}

// A listener that a reload brings is not out of the way, those of the start are.
#[test]
fn a_worker_gets_what_it_is_promised_at_a_start_and_after_an_upgrade() {
    let world = World::new();
    let plain = format!("  plain: {{ command: {PUPPET}, {OWN} }}\n");
    let daemon = run(&world, &yaml(600, 20, &plain));
    let mut puppet = world.puppet();
    has_exactly(&puppet, &[]);
    let late = format!("{plain}  late: {{ command: {PUPPET}, listeners: [late, own], {OWN} }}\n");
    let late = format!("{}  late: '127.0.0.1:0'\n", yaml(600, 20, &late));
    reload(&world, &late).expect_code(0);
    let mut late = world.puppet();
    has_exactly(&late, &["late", "own"]);
    let mut open = 0;
    for round in 0..3 {
        assert!(high(daemon.pid()) > 600, "{:?}", numbers(daemon.pid()));
        puppet = again(&world, puppet, &[]);
        late = again(&world, late, &["late", "own"]);
        let done = ask(&world, "upgrade").expect_code(0);
        assert!(done.stdout.contains(" upgraded to "), "{}", done.stdout);
        match round {
            0 => open = settled_descriptors(daemon.pid()),
            _ => descriptors_become(daemon.pid(), open),
        }
    }
    // What it says is read.
    puppet.ask("line 1 heard");
    daemon.signal(Signal::SIGTERM);
    let stdout = daemon.finish().stdout;
    assert!(stdout.contains("heard"), "{stdout}");
}

// After a kill the next daemon has everything at low numbers first.
#[test]
fn a_worker_gets_the_same_of_the_next_daemon() {
    let heir = format!("  plain: {{ command: [$PROBE, heir, $EVENTS, '600'], {OWN} }}\n");
    at_each_blow(&yaml(600, 20, &heir), |world, guarded, blow| {
        let mut puppet = world.puppet();
        guarded.guard.line(&["every eager worker has started"]);
        for round in 1..3 {
            eventually("everything is kept", || {
                guarded.kept_like("socket:") > 600 && guarded.kept_like("pipe:") > 20
            });
            guarded.strike(blow);
            puppet = again(world, puppet, &[]);
            let count = if blow == Blow::Kill { round + 1 } else { 1 };
            let daemon = guarded.guard.guarded(count).pop().expect("a daemon");
            assert!(high(daemon) > 600, "{:?}", numbers(daemon));
        }
    });
}

// Each had a pidfd, of which every child had a copy.
#[test]
fn further_instances_take_no_further_descriptors() {
    let open = |instances: usize| {
        let world = World::new();
        let lines = format!("instances: {instances}");
        let daemon = run(&world, &app::yaml("[/bin/sleep, '600']", &lines));
        daemon.line(&["every eager worker has started"]);
        let open = settled_descriptors(daemon.pid());
        ask(&world, "upgrade").expect_code(0);
        assert!(settled_descriptors(daemon.pid()) <= open);
        daemon.stop();
        open
    };
    assert_eq!(open(100), open(1));
}

// The next listend took those for gone for which it had no descriptor, and started them once more.
#[test]
fn an_upgrade_finds_more_processes_than_there_may_be_descriptors() {
    let Some(prlimit) = require_tool("prlimit") else {
        return;
    };
    let world = World::new();
    let control = world.path("control.sock");
    let yaml = app::yaml("[/bin/sleep, '600']", "instances: 150");
    let daemon = world.run_with(&yaml, |start| {
        start.through([prlimit.to_str().expect("UTF-8"), "--nofile=140"]);
        start.words_behind(["--control", control.to_str().expect("UTF-8")]);
    });
    let started = || daemon.lines_so_far(&["started, pid"]).len();
    eventually("all have started, some of them in a second attempt", || {
        started() == 150
    });
    ask(&world, "upgrade").expect_code(0);
    daemon.line(&["going on where", "processes known: 150"]);
    ask(&world, "status").expect_code(0);
    assert_eq!(started(), 150);
    daemon.stop();
}

// A second program on the way, another user, one that serves a connection, and one that cannot be executed.
#[test]
fn other_ways_to_start_are_the_same_in_a_crowd() {
    let world = World::new();
    let probe = public_probe(&world);
    let broken = world.write_script("broken", "#!/no/such/interpreter\n");
    let user = if is_root() { "user: nobody, " } else { "" };
    let others = format!(
        "  confined: {{ command: {PUPPET}, sandbox: {{ no_new_privileges: true }}, {OWN} }}
  other: {{ command: [{}, puppet, $EVENTS], {user}listeners: [own], {OWN} }}
  broken: {{ command: [{}], restart: never }}
",
        probe.display(),
        broken.display()
    );
    let daemon = varlink::run(&world, &yaml(600, 20, &others));
    daemon.line(&["broken.0: failed while"]);
    assert!(high(daemon.pid()) > 600, "{:?}", numbers(daemon.pid()));
    let mut open = 0;
    for round in 0..3 {
        let mut puppets = world.puppets(2);
        puppets.sort_by_key(|puppet| puppet.report.fds.len());
        has_exactly(&puppets[0], &[]);
        has_exactly(&puppets[1], &["own"]);
        let client = client::tcp(daemon.address("each")).expect("connect");
        let mut served = world.puppet();
        let found: Vec<i32> = served.report.fds.iter().map(|fd| fd.number).collect();
        assert_eq!(found, [0, 1, 2]);
        served.tell("exit 0");
        served.wait_for_its_end();
        drop(client);
        match round {
            0 => open = settled_descriptors(daemon.pid()),
            _ => descriptors_become(daemon.pid(), open),
        }
        for mut puppet in puppets {
            puppet.tell("exit 0");
            puppet.wait_for_its_end();
        }
    }
    let _others = world.puppets(2);
    daemon.signal(Signal::SIGTERM);
    daemon.finish();
}

// Some have high numbers, the others any; those that are kept for something else are left alone.
#[test]
fn near_the_limit_a_worker_gets_the_same() {
    let Some(prlimit) = require_tool("prlimit") else {
        return;
    };
    let prlimit = prlimit.to_str().expect("UTF-8");
    let own = format!("  plain: {{ command: {PUPPET}, listeners: [own], {OWN} }}\n");
    // 320 of 2500 are kept, and a quarter of 900.
    for (limit, kept_from) in [(2500, 2180), (900, 675)] {
        let world = World::new();
        let daemon = world.run_with(&yaml(600, 20, &own), |start| {
            start.through([prlimit, &format!("--nofile={limit}")]);
        });
        let puppet = world.puppet();
        has_exactly(&puppet, &["own"]);
        daemon.line(&["every eager worker has started"]);
        let _puppet = again(&world, puppet, &["own"]);
        let numbers = numbers(daemon.pid());
        assert!(numbers.len() > 600, "{numbers:?}");
        assert!(numbers.iter().all(|one| *one < kept_from), "{numbers:?}");
        let high = numbers.iter().filter(|one| **one >= HIGH).count();
        assert_eq!(high, if limit > 2048 { 132 } else { 0 }, "{numbers:?}");
        daemon.stop();
    }
}
