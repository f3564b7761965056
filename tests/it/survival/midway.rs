//! In the middle of something that the daemon does.

use super::{BLOWS, Blow, asks, at_each_blow, guarded, is_ready, wait_for};
use crate::harness::reloading::{address, ask, begin, rewrite, state_of};
use crate::harness::{World, client, eventually, exists, free_port, kill, settled};
use nix::sys::signal::Signal;
use std::io::{Read, Write};
use std::net::Shutdown;

/// Workers that are ready when the test says so, with these further lines.
fn puppets(lines: &str) -> String {
    let lines: String = lines.lines().map(|line| format!("    {line}\n")).collect();
    format!(
        "listeners: {{ web: '127.0.0.1:0' }}
workers:
  app:
    command: [$PROBE, heir, $EVENTS]
    listeners: [web]
    ready: notify
    notify_access: all
    environment: {{ N: '{{instance}}', G: '{{generation}}' }}
{lines}"
    )
}

// Rule: a rollout goes on where it was.
#[test]
fn a_rollout_goes_on() {
    for (blow, order) in BLOWS
        .iter()
        .flat_map(|blow| ["start-first", "stop-first"].map(|order| (*blow, order)))
    {
        let world = World::new();
        let lines = format!("instances: 2\nrollout: {{ min_ready: 0s, order: {order} }}");
        let mut guarded = guarded(&world, &puppets(&lines));
        let mut old = world.puppets(2);
        old.iter_mut().for_each(is_ready);
        wait_for(&world, "running");
        let restart = asks(&world, "restart app");
        for round in 0..2 {
            let mut new = world.puppet();
            guarded.strike(blow);
            assert!(world.no_puppet_is_waiting(), "{blow:?} {order} {round}");
            let left = old.iter().filter(|one| exists(one.pid())).count();
            let wanted = 2 - round - usize::from(order == "stop-first");
            assert_eq!(left, wanted, "{blow:?} {order} {round}");
            is_ready(&mut new);
            guarded.strike(blow);
            // It lives on.
            std::mem::forget(new);
        }
        eventually("all are replaced", || {
            old.iter().all(|one| !exists(one.pid()))
        });
        wait_for(&world, "running");
        drop(restart);
        guarded.stop();
    }
}

// Rule: a rollout that goes back goes on going back.
#[test]
fn a_rollout_that_goes_back_goes_on() {
    let lines = "instances: 2\nrollout: { min_ready: 0s }";
    at_each_blow(&puppets(lines), |world, guarded, blow| {
        let mut old = world.puppets(2);
        old.iter_mut().for_each(is_ready);
        wait_for(world, "running");
        let new = puppets(lines).replace("environment: {", "environment: { NEW: '1',");
        rewrite(world, &new);
        let reload = begin(world);
        let mut first = world.puppet();
        is_ready(&mut first);
        let mut second = world.puppet();
        second.tell("exit 3");
        // In the place of the one that was replaced already.
        let mut again = world.puppet();
        guarded.strike(blow);
        is_ready(&mut again);
        eventually("the new one is gone", || !exists(first.pid()));
        assert!(exists(again.pid()) && world.no_puppet_is_waiting());
        let told = ask(world, "status").stdout;
        assert!(
            told.contains("degraded") || told.contains("rolled back"),
            "{told}"
        );
        drop(reload);
    });
}

// Rule: an address that moves is held until nobody needs it, and then nowhere.
#[test]
fn a_moved_address_is_held_and_given_up() {
    for blow in BLOWS {
        let world = World::new();
        let (old, new) = (free_port(), free_port());
        let yaml = |port: u16| {
            puppets("rollout: { min_ready: 0s }")
                .replace("127.0.0.1:0", &format!("127.0.0.1:{port}"))
        };
        let mut guarded = guarded(&world, &yaml(old));
        let mut first = world.puppet();
        is_ready(&mut first);
        wait_for(&world, "running");
        rewrite(&world, &yaml(new));
        let reload = begin(&world);
        let mut second = world.puppet();
        guarded.strike(blow);
        guarded.strike(blow);
        assert!(client::tcp(address(old)).is_ok() && client::tcp(address(new)).is_ok());
        is_ready(&mut second);
        eventually("the old one has ended", || !exists(first.pid()));
        eventually("nobody has the old address", || {
            client::tcp(address(old)).is_err()
        });
        guarded.strike(blow);
        assert!(client::tcp(address(new)).is_ok());
        drop(reload);
        guarded.stop();
    }
}

// Rule: a worker that is being stopped is stopped.
#[test]
fn a_stop_goes_on() {
    at_each_blow(&puppets("stop_timeout: 1h"), |world, guarded, blow| {
        let mut puppet = world.puppet();
        is_ready(&mut puppet);
        puppet.ask("drain");
        let stop = asks(world, "stop app");
        assert_eq!(puppet.listen().as_deref(), Some("term"));
        guarded.strike(blow);
        wait_for(world, "stopping");
        assert!(exists(puppet.pid()));
        puppet.tell("exit 0");
        wait_for(world, "stopped");
        assert!(world.no_puppet_is_waiting());
        guarded.strike(blow);
        assert_eq!(state_of(world, "workers", "app"), "stopped");
        drop(stop);
    });
}

// Rule: a listend that was asked to stop goes on with that after a kill, or has stopped.
#[test]
fn the_stop_of_the_daemon_goes_on() {
    let world = World::new();
    let mut guarded = guarded(&world, &puppets("stop_timeout: 1h"));
    let mut puppet = world.puppet();
    is_ready(&mut puppet);
    wait_for(&world, "running");
    puppet.ask("drain");
    // The daemon alone: of a stop the guard knows what to do.
    kill(guarded.daemon, Signal::SIGTERM);
    assert_eq!(puppet.listen().as_deref(), Some("term"));
    settled(guarded.daemon);
    guarded.kill();
    assert!(exists(puppet.pid()));
    puppet.tell("exit 0");
    assert_eq!(guarded.guard.status().code(), Some(0));
}

// Rule: a stop of the guard ends what the daemon has left.
#[test]
fn the_stop_of_the_guard_ends_what_a_killed_daemon_has_left() {
    let world = World::new();
    let guarded = guarded(&world, &puppets("stop_timeout: 1h"));
    let mut puppet = world.puppet();
    is_ready(&mut puppet);
    wait_for(&world, "running");
    puppet.ask("drain");
    guarded.guard.signal(Signal::SIGTERM);
    assert_eq!(puppet.listen().as_deref(), Some("term"));
    kill(guarded.daemon, Signal::SIGKILL);
    // Asked once more, by the guard.
    assert_eq!(puppet.listen().as_deref(), Some("term"));
    puppet.tell("exit 0");
    let _code = guarded.guard.status();
    assert!(!exists(puppet.pid()));
}

// SIGCONT follows SIGTERM, and the guard may have reaped the process in between.
#[test]
fn it_is_no_failure_that_the_guard_reaps_what_it_has_left() {
    let world = World::new();
    let yaml = "workers: { app: { command: [/bin/sleep, '1000'], instances: 60 } }";
    let mut guarded = guarded(&world, yaml);
    wait_for(&world, "running");
    settled(guarded.daemon);
    guarded.kill();
    guarded.stop();
    assert_eq!(guarded.guard.lines_so_far(&["cannot send"]), [""; 0]);
}

// Rule: commands beside an instance go on, and count.
#[test]
fn commands_beside_an_instance_go_on() {
    let hook = "{ command: [$PROBE, heir, $EVENTS], timeout: 1h }";
    let lines = format!(
        "before_start: {hook}\nafter_ready: {hook}\nafter_stop: {hook}\nreload_command: {hook}"
    );
    at_each_blow(&puppets(&lines), |world, guarded, blow| {
        let mut before = world.puppet();
        guarded.strike(blow);
        assert!(world.no_puppet_is_waiting(), "{blow:?}");
        before.tell("exit 0");
        let mut app = world.puppet();
        guarded.strike(blow);
        is_ready(&mut app);
        let mut after = world.puppet();
        guarded.strike(blow);
        after.tell("exit 7");
        guarded
            .guard
            .line(&["app.0: after_ready exited with exit status 7"]);
        wait_for(world, "running");
        rewrite(world, &puppets(&format!("{lines}\n# changed")));
        let stop = asks(world, "stop app");
        let mut last = world.puppet();
        assert!(!exists(app.pid()));
        guarded.strike(blow);
        assert!(exists(last.pid()));
        last.tell("exit 9");
        guarded
            .guard
            .line(&["app.0: after_stop exited with exit status 9"]);
        wait_for(world, "stopped");
        drop(stop);
    });
}

// Rule: connections that are served go on and count.
#[test]
fn connections_go_on_and_count() {
    let yaml = "
listeners: { web: '127.0.0.1:0' }
workers:
  app:
    command: [/bin/cat]
    listeners: [web]
    activation: per-connection
    handoff: inetd
    max_connections: 20
";
    at_each_blow(yaml, |world, guarded, blow| {
        let address = guarded.guard.address("web");
        let mut all = Vec::new();
        for number in 0..20 {
            let stream = client::tcp(address).expect("connect");
            client::converse(&stream, &format!("{number:3}"), &format!("{number:3}"));
            all.push(stream);
        }
        let mut next = client::tcp(address).expect("connect");
        next.write_all(b"abc").expect("write");
        guarded.strike(blow);
        for (number, stream) in all.iter().enumerate() {
            client::converse(stream, &format!("{number:3}"), &format!("{number:3}"));
        }
        let told = ask(world, "status app").stdout;
        assert!(told.contains("20 open"), "{blow:?}: {told}");
        let first = all.remove(0);
        first.shutdown(Shutdown::Write).expect("shutdown");
        let mut answer = [0; 3];
        next.read_exact(&mut answer).expect("its turn");
        assert_eq!(&answer, b"abc");
        drop((all, first, next));
        eventually("all are over", || {
            ask(world, "status app")
                .stdout
                .contains("0 open, 21 accepted")
        });
    });
}

// Rule: who is being served by a start on demand is served.
#[test]
fn a_start_on_demand_goes_on() {
    let lines = "activation: on-demand\nbefore_start: [$PROBE, heir, $EVENTS]";
    at_each_blow(&puppets(lines), |world, guarded, blow| {
        let address = guarded.guard.address("web");
        guarded.guard.line(&["every eager worker"]);
        guarded.strike(blow);
        assert_eq!(state_of(world, "workers", "app"), "waiting");
        let waits = std::thread::spawn(move || client::ask_tcp(address).pid);
        let mut hook = world.puppet();
        guarded.strike(blow);
        hook.tell("exit 0");
        let mut app = world.puppet();
        guarded.strike(blow);
        is_ready(&mut app);
        app.tell("serve");
        assert_eq!(waits.join().expect("it is answered"), app.pid());
    });
}

// Rule: what workers write is neither lost nor told twice.
#[test]
fn lines_go_on() {
    for output in ["tag", "file:$DIR/log"] {
        let world = World::new();
        let mut guarded = guarded(&world, &puppets(&format!("output: {output}")));
        let mut puppet = world.puppet();
        is_ready(&mut puppet);
        wait_for(&world, "running");
        let mut said = 0;
        for blow in [Blow::Kill, Blow::Upgrade, Blow::Kill] {
            guarded.strike(blow);
            for _ in 0..20 {
                puppet.ask(&format!("line 1 line-{said}."));
                said += 1;
            }
            let last = format!("line-{}.", said - 1);
            // The daemon has all that it is sent by now: what it knows last, it has written.
            eventually("the last is there", || {
                ask(&world, "logs app").stdout.contains(&last)
            });
            guarded.kill_and_meanwhile(|| {
                puppet.ask(&format!("line 1 line-{said}."));
            });
            said += 1;
            let last = format!("line-{}.", said - 1);
            eventually("what was written meanwhile is there", || {
                ask(&world, "logs app").stdout.contains(&last)
            });
        }
        guarded.stop();
        let log = match output {
            "tag" => guarded.guard.finish().stdout,
            _ => std::fs::read_to_string(world.path("log")).expect("read"),
        };
        for number in 0..said {
            let count = log.matches(&format!("line-{number}.")).count();
            assert_eq!(count, 1, "{output} line-{number}: {log}");
        }
    }
}

// Rule: what workers have stored is given to the next.
#[test]
fn stored_descriptors_go_on() {
    at_each_blow(
        &puppets("fd_store: 4\nrestart: { backoff: 1ms }"),
        |world, guarded, blow| {
            let mut puppet = world.puppet();
            is_ready(&mut puppet);
            for name in ["a", "b", "c", "d"] {
                puppet.ask(&format!("store {name}"));
            }
            puppet.ask("barrier");
            guarded.strike(blow);
            guarded.strike(blow);
            puppet.ask("notify FDSTOREREMOVE=1|FDNAME=a");
            puppet.ask("barrier");
            eventually("the guard has given it up", || {
                guarded.kept_like("/memfd:a ") == 0
            });
            puppet.tell("exit 3");
            let next = world.puppet();
            let fds = next.report.fds.iter();
            let stored = fds.filter(|fd| fd.target.starts_with("/memfd:")).count();
            assert_eq!(stored, 3, "{blow:?}: {:#?}", next.report.fds);
            for name in ["b", "c", "d"] {
                assert_eq!(guarded.kept_like(&format!("/memfd:{name} ")), 1);
            }
            drop(next);
        },
    );
}

// Rule: what waits, and what was asked for, stays so.
#[test]
fn what_was_asked_for_stays() {
    let world = World::new();
    let yaml = "
listeners: { late: '127.0.0.1:0' }
workers:
  slow: { command: [/bin/false], restart: { backoff: 1h, limit: none } }
  bad: { command: [/bin/false], restart: { backoff: 1ms, limit: 2 in 1h } }
  late: { command: [$PROBE, heir, $EVENTS], listeners: [late] }
  some: { command: [/bin/sleep, '600'], instances: 2 }
";
    let mut guarded = guarded(&world, yaml);
    let late = world.puppet();
    ask(&world, "stop late").expect_code(0);
    assert!(!exists(late.pid()));
    ask(&world, "scale some 4").expect_code(0);
    eventually("they have failed", || {
        state_of(&world, "workers", "slow") == "backoff"
            && state_of(&world, "workers", "bad") == "failed"
    });
    for blow in [BLOWS, BLOWS].concat() {
        guarded.strike(blow);
        for (name, wanted) in [
            ("slow", "backoff"),
            ("bad", "failed"),
            ("late", "stopped"),
            ("some", "running"),
        ] {
            assert_eq!(state_of(&world, "workers", name), wanted, "{name} {blow:?}");
        }
        let told = ask(&world, "status some").stdout;
        assert!(told.contains("some.3"), "{told}");
    }
    guarded.stop();
}

// Rule: a worker that has not said yet that it is up says so to the next listend, at the same socket.
#[test]
fn an_acknowledgement_reaches_the_next() {
    const ACK: &str = r#"ack {"command": "worker:ack", "pid": 1}"#;
    let yaml = |n: u32| {
        puppets("rollout: { min_ready: 0s }")
            .replace("ready: notify", "handoff: einhorn\n    ready: einhorn")
            .replace("N: '{instance}'", &format!("N: '{n}'"))
    };
    for blow in BLOWS {
        let world = World::new();
        let mut guarded = guarded(&world, &yaml(0));
        let mut old = world.puppet();
        guarded.strike(blow);
        assert!(world.no_puppet_is_waiting(), "{blow:?}");
        old.ask(ACK);
        wait_for(&world, "running");
        let restart = asks(&world, "restart app");
        let mut new = world.puppet();
        guarded.strike(blow);
        assert!(
            exists(old.pid()) && world.no_puppet_is_waiting(),
            "{blow:?}"
        );
        new.ask(ACK);
        eventually("the old one is replaced", || !exists(old.pid()));
        wait_for(&world, "running");
        assert!(world.path("control.einhorn").exists());
        drop(restart);
        guarded.stop();
        assert!(!world.path("control.einhorn").exists());
    }
    // And what is said while there is none waits.
    let world = World::new();
    let mut guarded = guarded(&world, &yaml(0));
    let mut puppet = world.puppet();
    guarded.kill_and_meanwhile(|| drop(puppet.ask(ACK)));
    wait_for(&world, "running");
    assert!(world.no_puppet_is_waiting());
    guarded.stop();
}
