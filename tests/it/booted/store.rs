//! systemd keeps what listend must not lose: sockets, and workers that outlive it.

use super::load::{ECHO, Load, Tally};
use crate::harness::container::Container;
use crate::harness::eventually;
use crate::harness::package::{installed, property};
use std::collections::BTreeSet;

const UNIT: &str = "listend.service";
const CONFIG: &str = "/etc/listend/listend.yaml";

const SERVES: &str = "
listeners: { web: '127.0.0.1:20000' }
workers:
  app: { command: ['{listend}', hello-worker], listeners: [web], instances: 2 }
";

/// The larger number is for `make test-all`.
fn count(small: usize, large: usize) -> usize {
    match std::env::var_os("LISTEND_TEST_LONG") {
        Some(_) => large,
        None => small,
    }
}

#[track_caller]
fn systemctl(container: &Container, word: &str) {
    let done = container.output(["systemctl", word, UNIT]);
    assert!(
        done.status.success(),
        "systemctl {word}: {}",
        container.journal(UNIT)
    );
}

fn started(yaml: &str) -> Option<Container> {
    let container = installed()?;
    container.write(CONFIG, yaml);
    systemctl(&container, "restart");
    Some(container)
}

fn drop_in(container: &Container, text: &str) {
    let path = format!("/etc/systemd/system/{UNIT}.d/test.conf");
    container.write(&path, text);
    container.run(["systemctl", "daemon-reload"]);
}

/// The processes of the unit but for listend itself, and for those by which it reads and closes.
fn workers(container: &Container) -> BTreeSet<String> {
    let found = container.output(["pgrep", "-ax", "listend|probe|sleep|perl"]);
    let found = String::from_utf8_lossy(&found.stdout).into_owned();
    let others = ["listend run ", "<defunct>"];
    let is_worker = |line: &&str| !others.iter().any(|other| line.contains(other));
    let pids = found
        .lines()
        .filter(is_worker)
        .filter_map(|line| line.split(' ').next());
    pids.map(str::to_owned).collect()
}

fn kept(container: &Container) -> usize {
    let count = property(container, UNIT, "NFileDescriptorStore");
    count.parse().expect("a number")
}

#[expect(clippy::print_stdout, reason = "shown by cargo test -- --show-output")]
fn told(tally: &Tally) {
    println!("{tally:?}");
}

/// The open descriptors of listend, and its resident memory in KiB.
fn size(container: &Container) -> (usize, u64) {
    let pid = property(container, UNIT, "MainPID");
    let script = format!("ls /proc/{pid}/fd | wc -l; grep VmRSS /proc/{pid}/status");
    let said = container.run(["sh", "-c", &script]);
    let mut numbers = said.split_whitespace().flat_map(str::parse::<u64>);
    let (fds, kib) = (numbers.next(), numbers.next());
    (fds.expect("a number") as usize, kib.expect("a number"))
}

/// Ends listend, and waits until another one is there.
#[track_caller]
fn kill(container: &Container, signal: &str) {
    let before = property(container, UNIT, "MainPID");
    container.run(["systemctl", "kill", "--kill-whom=main", "-s", signal, UNIT]);
    is_started_again(container, &before);
}

#[track_caller]
fn is_active_again(container: &Container, before: &str) {
    eventually("systemd starts it again", || {
        let now = property(container, UNIT, "MainPID");
        now != *before && now != "0" && property(container, UNIT, "ActiveState") == "active"
    });
}

#[track_caller]
fn is_started_again(container: &Container, before: &str) {
    is_active_again(container, before);
    let journal = || container.journal(UNIT);
    let status = || container.output(["listend", "status"]).status.code();
    eventually("it answers", || status() == Some(0));
    assert!(!journal().contains("cannot be used"), "{}", journal());
}

#[test]
fn workers_and_sockets_survive_a_listend_that_is_upgraded_or_killed() {
    let yaml = SERVES.replace(
        "web: '127.0.0.1:20000' }",
        "web: { address: ['127.0.0.1:20000', 'unix:/run/web'] }, packets: 'udp://127.0.0.1:20000' }",
    );
    let Some(container) = started(&(yaml + ECHO.trim_start_matches('\n'))) else {
        return;
    };
    let load = Load::of_every_kind(&container, "/run/web");
    let before = workers(&container);
    assert_eq!(before.len(), 3);
    // All of it has to be there before it can survive.
    eventually("descriptors are kept", || kept(&container) >= 5);
    let many = kept(&container);
    kill(&container, "KILL");
    let at_first = size(&container);
    for number in 0..count(4, 1000) {
        let done = container.output(["listend", "upgrade"]);
        let journal = || container.journal(UNIT);
        assert!(done.status.success(), "{number}: {done:?}\n{}", journal());
    }
    let missed = "Watchdog timeout";
    assert!(!container.journal(UNIT).contains(missed), "{missed}");
    assert_eq!(workers(&container), before, "after upgrades");
    load.goes_on(&container);
    for number in 0..count(4, 200) {
        kill(&container, if number % 2 == 0 { "KILL" } else { "ABRT" });
        assert_eq!(workers(&container), before, "after {number}");
    }
    load.goes_on(&container);
    eventually("nothing is kept twice", || kept(&container) == many);
    eventually("nobody watches any more", || {
        container.output(["pgrep", "-f", "stop-post"]).stdout == b""
    });
    eventually("as many descriptors are open", || {
        size(&container).0 == at_first.0
    });
    let (_, kib) = size(&container);
    assert!(kib < at_first.1 + 1024, "{kib} KiB after {at_first:?}");
    let tally = load.stop(&container);
    assert_eq!((tally.refused, tally.broken), (0, 0), "{tally:?}");
    told(&tally);
    // It is the parent of none of them, and ends them all the same.
    systemctl(&container, "stop");
    assert_eq!(workers(&container), BTreeSet::new());
    assert_eq!(property(&container, UNIT, "Result"), "success");
}

// systemd closes what is more than it may keep, and says so in its journal alone.
#[test]
fn a_store_that_is_too_small_costs_no_socket_and_no_client() {
    let Some(container) = installed() else {
        return;
    };
    let yaml = SERVES.replace("web: '127", "beside: '127.0.0.1:20001', web: '127");
    container.write(CONFIG, &yaml.replace("[web]", "[web, beside]"));
    // With room for the sockets; and for the snapshot alone, so that the workers alone have those. The sandbox of the
    // unit forbids to take them there.
    let may_take = "SystemCallFilter=\n";
    for (room, more) in [(3, ""), (1, may_take), (1, "")] {
        drop_in(
            &container,
            &format!("[Service]\nFileDescriptorStoreMax={room}\n{more}"),
        );
        systemctl(&container, "stop");
        systemctl(&container, "start");
        eventually("it is full", || kept(&container) == room);
        let journal = container.journal(UNIT);
        let warned = format!("only {room} descriptors are kept");
        assert!(journal.contains(&warned), "{journal}");
        assert!(!journal.contains("Cannot store more fds"), "{journal}");
        let load = Load::start(&container);
        let before = workers(&container);
        assert_eq!(before.len(), 2);
        let is_lost = room == 1 && more.is_empty();
        for _ in 0..2 {
            let main = property(&container, UNIT, "MainPID");
            container.run(["kill", "-KILL", &main]);
            match is_lost {
                // Which is not well.
                true => is_active_again(&container, &main),
                false => is_started_again(&container, &main),
            }
            assert_eq!(workers(&container), before, "room for {room} {more}");
            container.run(["curl", "-sS", "--fail", "http://127.0.0.1:20001/"]);
        }
        let tally = load.stop(&container);
        assert_eq!((tally.refused, tally.broken), (0, 0), "{tally:?}");
        container.run(["rm", "/run/load.stop", "/run/load"]);
        let journal = container.journal(UNIT);
        let said = "listener web: its socket was not kept, and cannot be taken";
        assert_eq!(journal.contains(said), is_lost, "{journal}");
        if is_lost {
            container.run(["listend", "stop", "app"]);
            eventually("it is bound again, and the worker started", || {
                let started = container.output(["listend", "start", "app"]);
                started.status.success()
            });
            container.run(["curl", "-sS", "--fail", "http://127.0.0.1:20000/"]);
        }
    }
}

#[test]
fn workers_survive_a_listend_that_hangs() {
    let Some(container) = installed() else {
        return;
    };
    drop_in(&container, "[Service]\nWatchdogSec=2s\n");
    container.write(CONFIG, SERVES);
    systemctl(&container, "restart");
    let load = Load::start(&container);
    let before = workers(&container);
    let main = property(&container, UNIT, "MainPID");
    container.run(["kill", "-STOP", &main]);
    is_started_again(&container, &main);
    let journal = container.journal(UNIT);
    assert!(journal.contains("atchdog timeout"), "{journal}");
    assert_eq!(workers(&container), before);
    let tally = load.stop(&container);
    assert_eq!((tally.refused, tally.broken), (0, 0), "{tally:?}");
}

// It is ended by TimeoutStopSec=, and cannot stop anybody.
#[test]
fn a_stop_ends_the_workers_of_a_listend_that_hangs() {
    let Some(container) = installed() else {
        return;
    };
    drop_in(&container, "[Service]\nTimeoutStopSec=1s\nWatchdogSec=0\n");
    let yaml = SERVES.replace("web: '127", "local: 'unix:/run/app.sock', web: '127");
    container.write(CONFIG, &yaml.replace("[web]", "[web, local]"));
    systemctl(&container, "restart");
    let (main, before) = (property(&container, UNIT, "MainPID"), workers(&container));
    assert_eq!(before.len(), 2);
    container.run(["kill", "-STOP", &main]);
    container.run(["systemctl", "restart", UNIT]);
    // The same sockets, but other workers.
    let after = workers(&container);
    assert_eq!(after.len(), 2);
    assert!(after.is_disjoint(&before), "{after:?} {before:?}");
    container.run(["curl", "-sS", "--fail", "http://127.0.0.1:20000/"]);
    let main = property(&container, UNIT, "MainPID");
    container.run(["kill", "-STOP", &main]);
    container.run(["systemctl", "stop", UNIT]);
    assert_eq!(workers(&container), BTreeSet::new());
    assert!(!container.path("/run/app.sock").exists());
}

#[test]
fn nobody_is_left_when_the_next_listend_cannot_start() {
    let Some(container) = started(SERVES) else {
        return;
    };
    assert_eq!(workers(&container).len(), 2);
    drop_in(
        &container,
        "[Service]\nExecStart=\nExecStart=/usr/bin/listend run --no-such-option\n",
    );
    let words = ["systemctl", "kill", "--kill-whom=main", "-s", "KILL", UNIT];
    container.run(words);
    eventually("it has failed for good", || {
        property(&container, UNIT, "ActiveState") == "failed"
    });
    assert_eq!(property(&container, UNIT, "ExecMainStatus"), "64");
    assert_eq!(container.output(["pgrep", "listend"]).stdout, b"");
}

// systemd runs no command for either.
#[test]
fn nobody_is_left_when_no_listend_is_started_any_more() {
    let Some(container) = installed() else {
        return;
    };
    let yaml = SERVES.replace("web: '127", "local: 'unix:/run/app.sock', web: '127");
    container.write(CONFIG, &yaml.replace("[web]", "[web, local]"));
    for (setting, state) in [("RestartSec=1h", "activating"), ("Restart=no", "failed")] {
        drop_in(&container, &format!("[Service]\n{setting}\n"));
        systemctl(&container, "restart");
        eventually("descriptors are kept", || kept(&container) >= 5);
        let before = workers(&container);
        assert_eq!(before.len(), 2);
        let words = ["systemctl", "kill", "--kill-whom=main", "-s", "KILL", UNIT];
        container.run(words);
        eventually("it is dead", || {
            property(&container, UNIT, "ActiveState") == state
                && property(&container, UNIT, "SubState") != "stop-post"
        });
        if state == "activating" {
            eventually("it is looked at", || {
                container.output(["pgrep", "-f", "stop-post"]).stdout != b""
            });
            assert_eq!(workers(&container), before, "the next goes on with them");
            systemctl(&container, "stop");
        }
        eventually("nobody is left", || {
            workers(&container).is_empty() && !container.path("/run/app.sock").exists()
        });
        eventually("nobody watches any more", || {
            container.output(["pgrep", "-f", "stop-post"]).stdout == b""
        });
    }
}

/// What listens, by everything but the numbers of processes and descriptors.
fn sockets(container: &Container) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for family in ["--tcp", "--udp", "--unix"] {
        let words = ["ss", "--no-header", "--all", "--numeric", "--extended"];
        let text = container.run(words.into_iter().chain([family]));
        let ours = text
            .lines()
            .filter(|line| line.contains("2000") || line.contains("/run/app/"));
        for line in ours.filter(|line| line.contains("LISTEN") || line.contains("UNCONN")) {
            let fields = line.split_whitespace();
            let fields = fields.filter(|field| {
                field.contains("2000") || field.contains("/run/app/") || field.starts_with("ino:")
            });
            found.insert(fields.collect::<Vec<_>>().join(" "));
        }
    }
    let files = [
        "/run/app/stream",
        "/run/app/datagram",
        "/run/app/packet",
        "/run/app/fifo",
        "/run/app/link",
        "/dev/mqueue/app",
    ];
    for file in files {
        let output = container.output(["stat", "--format=%n %i %a", file]);
        found.insert(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    found
}

const EVERY_KIND: &str = "
listeners:
  web: '127.0.0.1:20000'
  datagrams: 'udp://127.0.0.1:20001'
  stream: { address: 'unix:/run/app/stream', symlinks: [/run/app/link] }
  datagram: 'unix-dgram:/run/app/datagram'
  packet: 'unix-seqpacket:/run/app/packet'
  fifo: 'fifo:/run/app/fifo'
  queue: 'mqueue:/app'
workers:
  app: { command: ['{listend}', hello-worker], listeners: [web, stream], instances: 2 }
  other: { command: [sleep, '1000'], listeners: [datagrams, datagram, packet, fifo, queue] }
";

#[test]
fn a_restart_keeps_every_kind_of_socket_and_a_stop_leaves_none() {
    let Some(container) = started(EVERY_KIND) else {
        return;
    };
    let (before, old) = (sockets(&container), workers(&container));
    assert_eq!(before.len(), 5 + 6, "{before:#?}");
    eventually("descriptors are kept", || kept(&container) >= 12);
    let many = kept(&container);
    let load = Load::start(&container);
    // A message that nobody has read, and that is still there afterwards.
    let send = "import socket; s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); \
                s.sendto(b'kept', '/run/app/datagram')";
    container.run(["python3", "-c", send]);
    for _ in 0..count(2, 20) {
        systemctl(&container, "restart");
        assert_eq!(sockets(&container), before);
        assert!(workers(&container).is_disjoint(&old));
        eventually("nothing is kept twice", || kept(&container) == many);
    }
    load.goes_on(&container);
    let tally = load.stop(&container);
    assert_eq!((tally.refused, tally.broken), (0, 0), "{tally:?}");
    let journal = container.journal(UNIT);
    assert!(!journal.contains("inherited socket"), "{journal}");
    let queued = container.run(["ss", "--no-header", "--all", "--unix"]);
    let mut waiting = queued
        .lines()
        .filter(|line| line.contains("/run/app/datagram"));
    let fields: Vec<&str> = waiting
        .next()
        .expect("it is there")
        .split_whitespace()
        .collect();
    assert_ne!(fields[2], "0", "{queued}");

    // Killed, it knows as well what to remove.
    kill(&container, "KILL");
    assert_eq!(sockets(&container), before);
    systemctl(&container, "stop");
    assert_eq!(sockets(&container).len(), 1, "{:#?}", sockets(&container));
    assert_eq!(workers(&container), BTreeSet::new());
    assert_eq!(property(&container, UNIT, "Result"), "success");
}

// What the file says now is what is there after a restart.
#[test]
fn a_restart_gives_up_what_the_configuration_has_no_more() {
    let yaml = "
listeners: { web: '127.0.0.1:20000', going: '0.0.0.0:20001', local: 'unix:/run/app/a', mode: 'unix:/run/app/m' }
workers:
  app: { command: ['{listend}', hello-worker], listeners: [web, going, local, mode], instances: 2 }
";
    let Some(container) = started(yaml) else {
        return;
    };
    let load = Load::start(&container);
    eventually("descriptors are kept", || kept(&container) >= 8);
    let many = kept(&container);
    // It cannot be bound while 0.0.0.0:20001 is.
    let after = "
listeners: { web: '127.0.0.1:20000', going: '127.0.0.1:20001', mode: { address: 'unix:/run/app/m', mode: 0600 } }
workers:
  app: { command: ['{listend}', hello-worker], listeners: [web, going, mode], instances: 2 }
";
    container.write(CONFIG, after);
    systemctl(&container, "restart");
    assert!(!container.path("/run/app/a").exists());
    let mode = container.run(["stat", "--format=%a", "/run/app/m"]);
    assert_eq!(mode.trim(), "600");
    container.run(["curl", "-sS", "--fail", "http://127.0.0.1:20001/"]);
    eventually("one less is kept", || kept(&container) == many - 1);
    let tally = load.stop(&container);
    assert_eq!((tally.refused, tally.broken), (0, 0), "{tally:?}");
}

#[test]
fn many_listeners_are_kept_and_a_reload_gives_up_those_that_go() {
    // More than the soft limit of open files that a unit has by default.
    let many = count(1200, 3000);
    let yaml = |ports: usize| {
        let mut text = SERVES.replace("listeners: [web]", "listeners: [web, many]");
        let addresses: Vec<String> = (0..ports)
            .map(|port| format!("127.0.1.{}:{}", 1 + port / 1000, 20_000 + port % 1000))
            .collect();
        let more = format!("listeners: {{ many: {addresses:?},");
        text = text.replace("listeners: {", &more);
        text
    };
    let Some(container) = started(&yaml(many)) else {
        return;
    };
    let before = workers(&container);
    eventually("all are kept", || kept(&container) > many);
    let kept_before = kept(&container);
    kill(&container, "KILL");
    assert_eq!(workers(&container), before);
    eventually("nothing is kept twice", || kept(&container) == kept_before);
    container.write(CONFIG, &yaml(many - 10));
    systemctl(&container, "reload");
    eventually("those that are gone are not kept", || {
        kept(&container) == kept_before - 10
    });
    let last = format!("http://127.0.1.1:{}/", 20_000 + (many - 11) % 1000);
    container.run(["curl", "-sS", "--fail", &last]);
}
