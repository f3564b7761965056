//! Long runs: what only shows after thousands of restarts. `make test-all` runs them.
//!
//! Without LISTEND_TEST_LONG they do a hundredth of the work, so that they cannot rot.

mod harness;

use harness::{World, client, eventually};
use nix::sys::signal::Signal;
use std::fs;
use std::net::TcpStream;

/// So many rounds in a long run.
fn rounds(long: u32) -> u32 {
    if std::env::var_os("LISTEND_TEST_LONG").is_some() {
        long
    } else {
        long / 100
    }
}

fn descriptors(pid: i32) -> usize {
    let folder = fs::read_dir(format!("/proc/{pid}/fd")).expect("the daemon runs");
    folder.count()
}

fn resident_kib(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the daemon runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    number
        .and_then(|number| number.parse().ok())
        .expect("VmRSS")
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
