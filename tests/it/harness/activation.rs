//! What tests of workers that clients start have in common.

use super::{Daemon, World, client};
use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

/// How often instances of the worker have been started, as far as the log has come.
pub fn starts(daemon: &Daemon, worker: &str) -> usize {
    let words = format!("{worker}.");
    daemon.lines_so_far(&[&words, ": started"]).len()
}

/// Waits until instances of the worker have been started so often; not more often.
#[track_caller]
pub fn has_started(daemon: &Daemon, worker: &str, count: usize) {
    daemon.lines(&[&format!("{worker}."), ": started"], count);
    assert_eq!(starts(daemon, worker), count);
}

/// Clients one after the other, of a worker that ends by itself as soon as none has come for 0 to
/// 2 ms: many come just when it ends. Every one of them is served. Returns how many workers it
/// took.
#[track_caller]
pub fn race_with_idle_exits(world: &World, address: &str, clients: u32) -> usize {
    const LONGEST: u32 = 2_000;
    let daemon = world.run(&format!(
        "
listeners: {{ web: '{address}' }}
workers:
  app:
    command: [$PROBE, idle, '{LONGEST}']
    listeners: [web]
    activation: on-demand
    trigger_limit: none
"
    ));
    daemon.line(&["web", "listening on"]);
    let path = address.strip_prefix("unix:").map(|path| world.fill(path));
    let mut random = 1_u32;
    let mut pids = BTreeSet::new();
    for number in 0..clients {
        let served = match &path {
            Some(path) => read(client::unix(Path::new(path)).expect("connect")),
            None => read(client::tcp(daemon.address("web")).expect("connect")),
        };
        let pid = served.unwrap_or_else(|error| panic!("client {number}: {error}"));
        assert!(!pid.is_empty(), "client {number} was not served");
        pids.insert(pid);
        // Numerical Recipes' generator; the high bits are the better ones.
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let pause = (random >> 8) % LONGEST;
        std::thread::sleep(Duration::from_micros(pause.into()));
    }
    let complaints = daemon.lines_so_far(&["at the earliest"]);
    assert!(complaints.is_empty(), "{complaints:#?}");
    daemon.stop();
    pids.len()
}

fn read(mut stream: impl Read) -> std::io::Result<String> {
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}
