//! A snapshot that cannot be used, or cannot be had.

use super::{Guarded, guarded, snapshot_of};
use crate::harness::reloading::address;
use crate::harness::{World, client, eventually, exists, free_port, kill};
use nix::sys::signal::Signal;
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;

fn yaml(port: u16) -> String {
    format!(
        "listeners: {{ web: '127.0.0.1:{port}' }}
workers:
  app: {{ command: [$PROBE, heir, $EVENTS], listeners: [web] }}
"
    )
}

/// Kills the daemon, and something happens to the snapshot before the next one reads it. That serves by the
/// sockets alone, and says why.
fn starts_anew(damage: impl FnOnce(&Guarded<'_>), reason: &str) {
    let world = World::new();
    let port = free_port();
    let mut guarded = guarded(&world, &yaml(port));
    let old = world.puppet();
    guarded.guard.line(&["every eager worker has started"]);
    // Somebody waits meanwhile.
    let waits = client::tcp(address(port)).expect("connect");
    guarded.pause();
    kill(guarded.daemon, Signal::SIGKILL);
    damage(&guarded);
    guarded.resume();
    let mut new = world.puppet();
    new.tell("serve");
    let line = guarded
        .guard
        .line(&["not going on where the listend before was"]);
    assert!(line.contains(reason), "{line}");
    assert_eq!(client::read_report(waits).expect("served").pid, new.pid());
    guarded.guard.lines(&["every eager worker has started"], 2);
    eventually("there is one snapshot", || {
        guarded.kept_like("listend-snapshot") == 1 && guarded.kept_like("listend-control") <= 1
    });
    // And from here on all is as it was.
    guarded.daemon = guarded.next_daemon();
    guarded.kill();
    assert!(exists(new.pid()) && world.no_puppet_is_waiting());
    drop(old);
    guarded.stop();
}

#[test]
fn a_snapshot_that_is_cut_off_is_not_used() {
    starts_anew(
        |guarded| {
            let file = OpenOptions::new().write(true).open(snapshot_of(guarded));
            file.expect("open").set_len(4200).expect("truncate");
        },
        "which format",
    );
}

#[test]
fn a_snapshot_without_a_header_is_not_used() {
    starts_anew(
        |guarded| {
            let file = OpenOptions::new().write(true).open(snapshot_of(guarded));
            file.expect("open")
                .write_all_at(&[0; 4096], 0)
                .expect("write");
        },
        "no valid header",
    );
}

#[test]
fn a_snapshot_of_a_newer_format_is_not_used() {
    starts_anew(
        |guarded| {
            let file = OpenOptions::new().write(true).open(snapshot_of(guarded));
            let file = file.expect("open");
            for at in [0, 512] {
                file.write_all_at(b"listend-journal 7 x\n", at)
                    .expect("write");
            }
        },
        "format 7 is not known",
    );
}
