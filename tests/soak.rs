//! Long runs: what only shows after thousands of restarts. `make test-all` runs them.
//!
//! Without LISTEND_TEST_LONG they do a hundredth of the work, so that they cannot rot.

mod harness;

use harness::{World, activation, client, descriptors, eventually, resident_kib};
use nix::sys::signal::Signal;
use std::net::TcpStream;

/// So many rounds in a long run.
fn rounds(long: u32) -> u32 {
    if std::env::var_os("LISTEND_TEST_LONG").is_some() {
        long
    } else {
        long / 100
    }
}

// Trap: "fd leak per spawn" (FIELD §3.1). And a client is never refused, however often.
#[test]
fn thousands_of_restarts_leave_nothing_behind_and_refuse_nobody() {
    let world = World::new();
    let daemon = world.run(
        "
listeners: { web: '127.0.0.1:0' }
workers:
  app:
    command: [$PROBE, serve]
    listeners: [web]
    restart: { policy: always, backoff: 1ms, limit: none }
",
    );
    let address = daemon.address("web");
    let ask = |refused: &mut u32| loop {
        match TcpStream::connect(address) {
            Ok(stream) => {
                stream.set_read_timeout(Some(harness::DEADLINE)).unwrap();
                // One that the killed worker had accepted is cut; its client asks again.
                if let Ok(report) = client::read_report(stream) {
                    return report.pid;
                }
            }
            Err(_) => *refused += 1,
        }
        assert!(*refused < 100, "{refused} refused");
    };
    let mut refused = 0;
    // The first few starts may still allocate what is then used again.
    for _ in 0..5 {
        harness::kill(ask(&mut refused), Signal::SIGKILL);
    }
    ask(&mut refused);
    let before = (descriptors(daemon.pid()), resident_kib(daemon.pid()));
    for _ in 0..rounds(5_000) {
        harness::kill(ask(&mut refused), Signal::SIGKILL);
    }
    ask(&mut refused);
    assert_eq!(refused, 0);
    eventually("as many descriptors as before", || {
        descriptors(daemon.pid()) == before.0
    });
    let grown = resident_kib(daemon.pid()).saturating_sub(before.1);
    assert!(grown < 1024, "{grown} KiB more than before");
    daemon.stop();
}

// Issue: "SIGCHLD storms lose nothing".
#[test]
fn a_storm_of_exits_is_accounted_for_to_the_last() {
    let world = World::new();
    let instances = rounds(4_000);
    let daemon = world.run(&format!(
        "
workers:
  brief: {{ command: [$PROBE, exit, '0'], instances: {instances}, restart: never }}
  deaf: {{ command: [$PROBE, deaf], instances: {instances}, stop_timeout: 300ms }}
"
    ));
    daemon.lines(&["brief.", "exited with exit status 0"], instances as usize);
    daemon.lines(&["deaf.", "started"], instances as usize);
    daemon.stop();
}

// A client comes between the worker's last look at its queue and its end.
#[test]
fn no_client_is_lost_to_a_worker_that_ends_when_it_is_idle() {
    let clients = rounds(10_000);
    for address in ["127.0.0.1:0", "unix:$DIR/web.sock"] {
        let workers = activation::race_with_idle_exits(&World::new(), address, clients);
        assert!(workers > clients as usize / 50, "{workers} workers");
    }
}

#[test]
fn thousands_of_connections_leave_nothing_behind() {
    let world = World::new();
    let daemon = world.run(
        "
listeners: { web: '127.0.0.1:0' }
workers:
  app:
    command: [/bin/echo, hello]
    listeners: [web]
    activation: per-connection
    handoff: inetd
    accept_rate: none
",
    );
    let address = daemon.address("web");
    let connect = |count: u32| {
        for _ in 0..count {
            let stream = client::tcp(address).expect("connect");
            client::hear(&stream, "hello\n");
            client::sees_the_end(&stream);
        }
    };
    connect(20);
    eventually("all have ended", || {
        harness::children(daemon.pid()).is_empty()
    });
    let before = (descriptors(daemon.pid()), resident_kib(daemon.pid()));
    connect(rounds(20_000));
    eventually("as many descriptors as before", || {
        descriptors(daemon.pid()) == before.0
    });
    let grown = resident_kib(daemon.pid()).saturating_sub(before.1);
    assert!(grown < 1024, "{grown} KiB more than before");
    daemon.stop();
}
