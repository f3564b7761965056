//! Under load, again and again.

use super::{BLOWS, Blow, Guarded, guarded, guarded_through};
use crate::harness::load::{Load, Summary};
use crate::harness::reloading::ask;
use crate::harness::{
    World, client, descriptors_become, eventually, kill, resident_kib, settled_descriptors,
};
use crate::pid1::namespace;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

const APP: &str = "
listeners:
  web: { address: ['127.0.0.1:0', 'unix:$DIR/web'] }
  packets: 'udp://127.0.0.1:0'
workers:
  app:
    command: [$PROBE, serve-app, --outlive, --lifetime, '3600', --version, one]
    listeners: [web]
    nonblocking: true
    instances: 2
  echo: { command: [$PROBE, heir, $EVENTS, '3600'], listeners: [packets] }
";

/// How often the daemon is killed, and how often it is upgraded.
fn rounds() -> (usize, usize) {
    match std::env::var_os("LISTEND_TEST_LONG") {
        Some(_) => (200, 1000),
        None => (10, 10),
    }
}

/// How often the service manager was told this.
fn told(manager: &UnixDatagram, what: &str) -> usize {
    let mut buffer = [0; 4096];
    let mut count = 0;
    while let Ok(length) = manager.recv(&mut buffer) {
        let text = String::from_utf8_lossy(&buffer[..length]);
        assert!(!text.contains("FDSTORE"), "{text}");
        count += usize::from(text.lines().any(|line| line == what));
    }
    count
}

#[expect(clippy::print_stdout, reason = "shown by cargo test -- --show-output")]
fn told_of(kills: usize, upgrades: usize, summary: &Summary) {
    println!("{upgrades} upgrades, {kills} kills: {summary}");
}

/// Workers, by pid: the children of the guard and of the daemon that are not the daemon itself.
fn workers(guarded: &Guarded<'_>) -> Vec<i32> {
    let mut all = guarded.processes();
    all.retain(|pid| *pid != guarded.daemon);
    all.sort_unstable();
    all
}

fn again_and_again(words: &[&'static str]) {
    let world = World::new();
    let manager = UnixDatagram::bind(world.path("manager")).expect("bind");
    manager.set_nonblocking(true).expect("fcntl");
    let mut guarded = guarded_through(&world, APP, words);
    let address = guarded.guard.address("web");
    let packets = guarded.guard.address("packets");
    let mut echo = world.puppet();
    echo.tell("serve");
    guarded.guard.line(&["every eager worker has started"]);
    let before = workers(&guarded);
    assert_eq!(before.len(), 3);
    let ends = Arc::new(AtomicBool::new(false));
    let answers = Arc::new(AtomicUsize::new(0));
    let datagrams = {
        let (ends, answers) = (Arc::clone(&ends), Arc::clone(&answers));
        std::thread::spawn(move || {
            while !ends.load(Ordering::Relaxed) {
                client::ask_udp(packets);
                answers.fetch_add(1, Ordering::Relaxed);
            }
        })
    };
    let loads = [
        Load::start(address, 2),
        Load::start(world.path("web").as_path(), 2),
    ];
    let mut ready = 0;
    eventually("the service manager is told", || {
        ready += told(&manager, "READY=1");
        ready == 1
    });
    guarded.kill();
    eventually("the service manager is told", || {
        ready += told(&manager, "READY=1");
        ready == 2
    });
    let sizes = |guarded: &Guarded<'_>| {
        let descriptors = [guarded.guard_pid, guarded.daemon].map(settled_descriptors);
        let memory = [guarded.guard_pid, guarded.daemon].map(resident_kib);
        (descriptors, memory)
    };
    let (descriptors, memory) = sizes(&guarded);
    let kept = guarded.kept().len();
    let goes_on = || {
        let so_far = answers.load(Ordering::Relaxed);
        eventually("datagrams are answered", || {
            answers.load(Ordering::Relaxed) > so_far
        });
        loads.iter().for_each(|load| load.wait_for_answers(20));
    };
    let (kills, upgrades) = rounds();
    for _ in 0..upgrades {
        goes_on();
        guarded.strike(Blow::Upgrade);
        ready += told(&manager, "READY=1");
    }
    for _ in 0..kills {
        goes_on();
        guarded.kill();
        ready += told(&manager, "READY=1");
    }
    for load in loads {
        load.wait_for_answers(20);
        let summary = load.stop();
        assert_eq!(summary.counts.failed(), 0, "{summary}");
        told_of(kills, upgrades, &summary);
    }
    ends.store(true, Ordering::Relaxed);
    datagrams.join().expect("every datagram was answered");
    assert_eq!(workers(&guarded), before, "the same processes");
    eventually("as many descriptors are kept", || {
        guarded.kept().len() == kept
    });
    assert_eq!(guarded.kept_like("listend-snapshot"), 1);
    for (pid, before) in [guarded.guard_pid, guarded.daemon]
        .into_iter()
        .zip(descriptors)
    {
        descriptors_become(pid, before);
    }
    let (descriptors_now, memory_now) = sizes(&guarded);
    assert_eq!(descriptors_now, descriptors);
    for (now, before) in memory_now.iter().zip(memory) {
        assert!(*now < before + 1024, "{memory_now:?} KiB after {memory:?}");
    }
    // One that is killed soon may not have come to it.
    ready += told(&manager, "READY=1");
    assert!(ready <= kills + upgrades + 2, "{ready} times");
    // They are supervised: one that ends is started again.
    let victim = *before.iter().find(|pid| **pid != echo.pid()).expect("one");
    kill(victim, Signal::SIGKILL);
    eventually("it is started again", || {
        let now = workers(&guarded);
        now.len() == 3 && !now.contains(&victim)
    });
    drop(echo);
    kill(guarded.guard_pid, Signal::SIGTERM);
    assert_eq!(guarded.guard.status().code(), Some(0));
    assert!(!world.path("web").exists());
}

// Rule: an upgrade, or kill -9, of the daemon is nothing that a client or a worker could notice.
#[test]
fn upgrades_and_kill_9_of_the_daemon_are_noticed_by_nobody() {
    again_and_again(&[]);
}

#[test]
fn nor_are_they_where_the_guard_is_pid_1() {
    let Some(words) = namespace() else {
        return;
    };
    again_and_again(&words);
}

// Rule: a process that is killed while it starts workers leaves none that nobody knows.
#[test]
fn no_worker_is_lost_in_the_turn_in_which_it_was_started() {
    let world = World::new();
    let yaml = "
listeners: { web: '127.0.0.1:0' }
workers:
  app:
    command: [$PROBE, serve-app, --outlive, --version, one]
    listeners: [web]
    instances: 20
    restart: { backoff: 1ms..5ms, limit: none }
";
    let mut guarded = guarded(&world, yaml);
    guarded.guard.line(&["every eager worker has started"]);
    for round in 0..5 {
        for pid in workers(&guarded) {
            // It may be one that has ended, or is being ended.
            let _gone = nix::sys::signal::kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        // They are being started at this moment, more of them in each round.
        let seen = 4 * round;
        eventually("some are", || workers(&guarded).len() > seen);
        guarded.kill();
    }
    eventually("there are as many as there are to be", || {
        workers(&guarded).len() == 20
    });
    guarded.stop();
}

// Rule: after a death of the daemon each instance has the shard that it had, and so have its successors.
#[test]
fn shards_outlive_the_daemon() {
    let world = World::new();
    let yaml = "
listeners: { web: '127.0.0.1:0' }
workers:
  app:
    command: [$PROBE, serve-app, --outlive, --version, one]
    listeners: [web]
    nonblocking: true
    instances: 3
    distribute: shards
    restart: { backoff: 1ms..5ms, limit: none }
";
    let mut guarded = guarded(&world, yaml);
    guarded.guard.line(&["every eager worker has started"]);
    let load = Load::start(guarded.guard.address("web"), 4);
    load.wait_for_answers(20);
    ask(&world, "scale app 5").expect_code(0);
    for round in 0..3 {
        load.wait_for_answers(20);
        guarded.kill();
        load.wait_for_answers(20);
        guarded.strike(BLOWS[round % 2]);
    }
    assert_eq!(workers(&guarded).len(), 5);
    ask(&world, "scale app 2").expect_code(0);
    ask(&world, "restart app").expect_code(0);
    load.wait_for_answers(50);
    let summary = load.stop();
    assert_eq!(summary.counts.failed(), 0, "{summary}");
    assert_eq!(workers(&guarded).len(), 2);
    guarded.stop();
}
