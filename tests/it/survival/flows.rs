//! Flows that stay with their generation stay there when the daemon is killed or replaced.

use super::{BLOWS, guarded};
use crate::flows::{Client, all_stay, may_steer, yaml};
use crate::harness::reloading::ask;
use crate::harness::varlink::Varlink;
use crate::harness::{World, eventually, exists};
use serde_json::json;
use std::time::Duration;

#[test]
fn no_flow_is_broken_by_a_death_of_the_daemon() {
    for blow in BLOWS {
        let world = World::new();
        if !may_steer(&world) {
            return;
        }
        let yaml = yaml("flows: sticky, flow_timeout: 60s", "stop_timeout: 300s");
        let yaml = yaml.replace("serve", "endure");
        let mut guarded = guarded(&world, &yaml);
        let address = guarded.guard.address("it");
        guarded.guard.line(&["app.0: started"]);
        let mut all: Vec<Client> = (0..50).map(|_| Client::new(address)).collect();
        for _ in 0..2 {
            ask(&world, "restart app").expect_code(0);
            all.extend((0..10).map(|_| Client::new(address)));
            guarded.strike(blow);
            all_stay(&all);
            let new = Client::new(address);
            assert_eq!(new.pid, all[all.len() - 1].pid, "{blow:?}");
        }
        // The next one still knows for whom it waits.
        ask(&world, "stop app").expect_code(0);
        eventually("all generations have ended", || {
            all.iter().all(|client| !exists(client.pid))
        });
        guarded.stop();
    }
}

/// Killed at any moment of a rollout, also while the new one takes over.
#[test]
fn no_flow_and_no_socket_is_lost_with_a_daemon_that_is_killed_during_a_rollout() {
    let world = World::new();
    if !may_steer(&world) {
        return;
    }
    let yaml = yaml("flows: sticky, flow_timeout: 60s", "stop_timeout: 300s");
    let mut guarded = guarded(&world, &yaml.replace("serve", "endure"));
    let address = guarded.guard.address("it");
    guarded.guard.line(&["app.0: started"]);
    let mut all: Vec<Client> = (0..5).map(|_| Client::new(address)).collect();
    for round in 0..20 {
        let now = json!({ "worker": "app", "no_wait": true });
        Varlink::connect(&world).ask("Restart", now);
        // The moment is another in each round.
        std::thread::sleep(Duration::from_millis(round * 4));
        guarded.kill();
        all_stay(&all);
        all.push(Client::new(address));
    }
    guarded.stop();
}
