//! Many listeners, and many instances.

use super::{BLOWS, guarded};
use crate::harness::{World, client, eventually, free_port, kill, settled_descriptors};
use nix::sys::signal::Signal;

fn counts() -> (usize, usize) {
    match std::env::var_os("LISTEND_TEST_LONG") {
        Some(_) => (10_000, 1000),
        None => (2000, 200),
    }
}

// Rule: their number is no limit, and none is lost.
#[test]
fn thousands_of_sockets_and_hundreds_of_workers_go_on() {
    let world = World::new();
    let (sockets, instances) = counts();
    let listeners: String = (0..sockets)
        .map(|number| format!("  l{number}: 'unix:$DIR/{number}'\n"))
        .collect();
    let names: Vec<String> = (0..sockets).map(|number| format!("l{number}")).collect();
    let port = free_port();
    let yaml = format!(
        "listeners:
{listeners}  web: '127.0.0.1:{port}'
workers:
  app: {{ command: [/bin/sleep, '600'], instances: {instances}, stop_timeout: 20s }}
  web: {{ command: [$PROBE, heir, $EVENTS, '600'], listeners: [web, {}] }}
",
        names.join(", ")
    );
    let mut guarded = guarded(&world, &yaml);
    guarded.guard.line(&["every eager worker has started"]);
    let mut web = world.puppet();
    web.tell("serve");
    eventually("everything is kept", || {
        guarded.kept_like("socket:") > sockets
    });
    let before = settled_descriptors(guarded.guard_pid);
    for blow in [BLOWS, BLOWS].concat() {
        guarded.strike(blow);
        assert_eq!(
            client::ask_tcp(([127, 0, 0, 1], port).into()).pid,
            web.pid()
        );
        let last = world.path(&(sockets - 1).to_string());
        assert_eq!(client::ask_unix(&last).pid, web.pid());
        assert_eq!(guarded.processes().len(), instances + 2, "{blow:?}");
        assert_eq!(settled_descriptors(guarded.guard_pid), before, "{blow:?}");
    }
    kill(guarded.guard_pid, Signal::SIGTERM);
    eventually("all have ended", || !guarded.guard.is_running());
}
