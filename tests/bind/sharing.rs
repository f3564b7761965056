//! Several sockets at one address, one for each instance, before and after a reload changes their number.

use crate::fixture::*;
use crate::ports::free_port;
use crate::rebinding::{Running, accepted};
use listend::config::Endpoint;
use listend::listener::BoundSocket;
use listend::plan::{ListenerId, Plan, SocketKey, SocketPlan};
use socket2::SockRef;
use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;

const L0: ListenerId = ListenerId(0);

/// One listener with so many sockets at its address.
fn sharded(endpoint: &Endpoint, shards: u32) -> Plan {
    let mut plan = single(endpoint.clone());
    listener(&mut plan, 0).sockets = (0..shards)
        .map(|shard| SocketPlan {
            key: SocketKey(shard),
            endpoint: endpoint.clone(),
            shard,
            place: place(1),
        })
        .collect();
    plan
}

fn sockets(running: &Running) -> Vec<&BoundSocket> {
    let mut all = running.bound.at(0);
    all.sort_by_key(|socket| socket.shard);
    all
}

/// Sends the next clients to this shard, and says how many of them are in the queue of each.
fn clients_of(running: &Running, address: SocketAddr, shard: u32) -> Vec<usize> {
    running.bound.steer(L0, &BTreeSet::from([shard])).unwrap();
    let clients: Vec<TcpStream> = (0..8)
        .map(|_| TcpStream::connect(address).unwrap())
        .collect();
    let waiting = sockets(running).into_iter().map(accepted).collect();
    drop(clients);
    waiting
}

#[test]
fn clients_are_sent_to_the_shards_that_a_reload_has_added() {
    let address: SocketAddr = ([127, 0, 0, 1], free_port()).into();
    let endpoint = tcp(&address.to_string());
    let mut running = Running::start(sharded(&endpoint, 2));
    assert_eq!(clients_of(&running, address, 1), [0, 8]);
    let before: Vec<i32> = sockets(&running)
        .iter()
        .map(|one| one.fd.as_raw_fd())
        .collect();

    assert!(running.reload(sharded(&endpoint, 4)).unwrap().is_empty());
    let now: Vec<i32> = sockets(&running)
        .iter()
        .map(|one| one.fd.as_raw_fd())
        .collect();
    assert_eq!((&now[..2], now.len()), (&before[..], 4));
    for shard in 0..4 {
        let mut wanted = vec![0; 4];
        wanted[shard as usize] = 8;
        assert_eq!(clients_of(&running, address, shard), wanted);
    }
}

#[test]
fn one_socket_becomes_several_and_several_become_one() {
    let address: SocketAddr = ([127, 0, 0, 1], free_port()).into();
    let endpoint = tcp(&address.to_string());
    let is_shared = |running: &Running| {
        let first = sockets(running)[0];
        SockRef::from(&first.fd).reuse_port().unwrap()
    };
    let mut running = Running::start(single(endpoint.clone()));
    assert!(!is_shared(&running));
    running.change_mind(sharded(&endpoint, 3));
    assert!(!is_shared(&running));

    assert!(running.reload(sharded(&endpoint, 3)).unwrap().is_empty());
    assert!(is_shared(&running));
    for shard in 0..3 {
        let mut wanted = vec![0; 3];
        wanted[shard as usize] = 8;
        assert_eq!(clients_of(&running, address, shard), wanted);
    }

    running.change_mind(single(endpoint.clone()));
    assert!(is_shared(&running));
    let former = running.reload(single(endpoint.clone())).unwrap();
    assert_eq!(former.len(), 2);
    drop(former);
    assert!(!is_shared(&running));
    assert_eq!(clients_of(&running, address, 0), [8]);
}
