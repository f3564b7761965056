//! Generations that keep the flows that they have.

use crate::fixture::*;
use listend::bpf::flows::{MOST, slot};
use listend::config::{FlowKey, Flows};
use listend::listener::{FlowGroup, SocketTable, try_flows};
use listend::plan::{ListenerPlan, Plan, SocketKey};
use nix::time::{ClockId, clock_gettime};
use std::collections::BTreeSet;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::time::Duration;

const KEY: SocketKey = SocketKey(0);

/// A UDP listener whose flows are kept apart, and what the shell does for it.
struct Rig {
    plan: Plan,
    bound: SocketTable,
    group: FlowGroup,
}

fn now() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap();
    Duration::from(now).as_nanos() as u64
}

impl Rig {
    /// `None` where the kernel does not let this process.
    fn new() -> Option<Rig> {
        let settings = Flows {
            key: FlowKey::Tuple,
            timeout: Duration::from_secs(60),
            max: 1024,
        };
        if let Err(error) = try_flows(&settings) {
            skip(&format!("no flows: {error}"));
            return None;
        }
        let plan = single(udp("127.0.0.1:0"));
        let bound = bound(&plan).bound;
        let held = bound.get(KEY).unwrap();
        let group = FlowGroup::new(of(&plan), held, &settings, now()).unwrap();
        Some(Rig { plan, bound, group })
    }

    fn give(&mut self, lane: u64) -> Option<u64> {
        let held = self.bound.get(KEY).unwrap();
        self.group.give(lane, of(&self.plan), held, now()).unwrap()
    }

    fn promote(&mut self, lane: u64) {
        let (socket, before) = self.group.promote(lane, now()).unwrap().unwrap();
        let old = self.bound.exchange(socket).unwrap();
        self.group.demoted(lane, (old, before));
    }

    /// Whose socket has got what this client sends.
    fn goes_to(&self, client: &UdpSocket) -> Vec<u64> {
        let held = self.bound.get(KEY).unwrap();
        let socket = |fd: &dyn AsFd| UdpSocket::from(fd.as_fd().try_clone_to_owned().unwrap());
        let address: SocketAddr = socket(&held.fd).local_addr().unwrap();
        client.send_to(b"hello", address).unwrap();
        let lanes: Vec<u64> = self.group.members().map(|(lane, _)| lane).collect();
        let got = |lane: &u64| {
            let own = self.group.own_socket(*lane).unwrap_or(held);
            let own = socket(&own.fd);
            own.set_nonblocking(true).unwrap();
            own.recv(&mut [0; 8]).is_ok()
        };
        lanes.into_iter().filter(got).collect()
    }

    fn generations(&self) -> Vec<u32> {
        self.group
            .members()
            .map(|(_, one)| one.generation)
            .collect()
    }
}

fn of(plan: &Plan) -> &ListenerPlan {
    plan.listeners.values().next().unwrap()
}

fn client() -> UdpSocket {
    UdpSocket::bind("127.0.0.1:0").unwrap()
}

#[test]
fn the_first_has_the_socket_of_the_table_and_the_next_ones_of_their_own() {
    let Some(mut rig) = Rig::new() else { return };
    assert_eq!((rig.give(7), rig.group.present().0), (None, Some(7)));
    assert!(rig.group.own_socket(7).is_none());
    assert_eq!(rig.goes_to(&client()), [7]);
    rig.give(8);
    assert!(rig.group.own_socket(8).is_some());
    let generations = rig.generations();
    // Who has one gets no other.
    rig.give(8);
    rig.give(7);
    assert_eq!(rig.generations(), generations);
    // Nor is it given what is new before it is promoted.
    let old = client();
    assert_eq!(rig.goes_to(&old), [7]);
    rig.promote(8);
    assert_eq!(rig.goes_to(&client()), [8]);
    assert_eq!(rig.goes_to(&old), [7]);
}

// Every worker has the socket, and may put another program there, or none.
#[test]
fn the_program_is_put_there_again_for_each_generation() {
    let Some(mut rig) = Rig::new() else { return };
    rig.give(1);
    let old = client();
    assert_eq!(rig.goes_to(&old), [1]);
    let held = rig.bound.get(KEY).unwrap();
    listend::sys::bpf::detach_reuseport_program(&held.fd).unwrap();
    rig.give(2);
    rig.promote(2);
    for _ in 0..8 {
        assert_eq!(rig.goes_to(&client()), [2]);
        assert_eq!(rig.goes_to(&old), [1]);
    }
}

#[test]
fn flows_of_a_generation_that_is_about_to_end_are_new() {
    let Some(mut rig) = Rig::new() else { return };
    rig.give(1);
    let old = client();
    assert_eq!(rig.goes_to(&old), [1]);
    rig.give(2);
    rig.promote(2);
    assert_eq!(rig.goes_to(&old), [1]);
    assert!(rig.group.quiet_at(1).unwrap() > now());
    // Its socket is open, as it is in its process.
    rig.group.close(1);
    assert_eq!(rig.group.quiet_at(1), Some(0));
    assert_eq!(rig.goes_to(&old), [2]);
    // That of the present one is nothing to be closed.
    rig.group.close(2);
    assert_eq!(rig.goes_to(&old), [2]);
}

#[test]
fn of_too_many_generations_the_oldest_loses_its_flows() {
    let Some(mut rig) = Rig::new() else { return };
    let most = u64::from(MOST);
    let clients: Vec<UdpSocket> = (0..3).map(|_| client()).collect();
    for lane in 1..=most {
        assert_eq!(rig.give(lane), None);
        if lane > 1 {
            rig.promote(lane);
        }
        if let Some(one) = clients.get(lane as usize - 1) {
            assert_eq!(rig.goes_to(one), [lane]);
        }
    }
    assert_eq!(rig.give(most + 1), Some(1));
    assert_eq!(rig.goes_to(&clients[0]), [most], "it is new");
    assert_eq!(rig.goes_to(&clients[1]), [2]);
    // One that ends makes room for another.
    rig.group.end(3);
    assert_eq!(rig.goes_to(&clients[2]), [most]);
    assert_eq!(rig.give(most + 2), None);
    let slots: BTreeSet<u32> = rig.generations().into_iter().map(slot).collect();
    assert_eq!(slots.len(), MOST as usize, "each has a place of its own");
    assert_eq!(rig.goes_to(&clients[1]), [2]);
}
