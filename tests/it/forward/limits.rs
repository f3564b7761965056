//! Idle connections, and descriptors that are not there.

use super::{ask, ready, rest, say, yaml};
use crate::harness::{World, children, client, context_switches, eventually};
use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

#[test]
fn a_connection_that_is_silent_in_both_directions_is_closed() {
    let world = World::new();
    let daemon = ready(
        &world,
        &yaml("").replace(
            "forward: '127.0.0.1:{port}'",
            "forward: { to: '127.0.0.1:{port}', idle: 400ms }",
        ),
    );
    let address = daemon.address("web");
    let mut silent = say(address, "echo");
    let mut busy = say(address, "echo");
    let since = Instant::now();
    let mut spoken = 0;
    // What goes in one direction alone counts, too.
    silent.write_all(b"a").expect("write");
    client::hear(&mut silent, "a");
    while since.elapsed() < Duration::from_millis(1_200) {
        busy.write_all(b"x").expect("write");
        client::hear(&mut busy, "x");
        spoken += 1;
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(spoken > 0);
    client::sees_the_end(silent);
    busy.write_all(b"x").expect("write");
    client::hear(&mut busy, "x");
    daemon.stop();
}

#[test]
fn without_descriptors_clients_wait_and_nothing_spins() {
    const CLIENTS: usize = 60;
    let world = World::new();
    // Some thirty are left for connections, which have two each.
    let daemon = ready(&world, &yaml("limits: { nofile: 40 }"));
    let address = daemon.address("web");
    let forwarder = children(daemon.pid())[0];
    let mut streams: Vec<TcpStream> = (0..CLIENTS).map(|_| say(address, "pid-later")).collect();
    daemon.line(&["cannot accept further clients", "EMFILE"]);
    let before = context_switches(forwarder);
    std::thread::sleep(Duration::from_secs(1));
    let woken = context_switches(forwarder) - before;
    assert!(
        woken < 50,
        "{woken} context switches in a second of nothing"
    );
    // Each that ends makes room for another.
    while let Some(mut stream) = (!streams.is_empty()).then(|| streams.remove(0)) {
        stream.write_all(b"x").expect("write");
        stream
            .shutdown(std::net::Shutdown::Write)
            .expect("shutdown");
        assert_eq!(rest(stream), "pid-later\nx");
    }
    assert!(!ask(address, "pid").is_empty());
    daemon.stop();
}

#[test]
fn a_forwarder_at_rest_does_nothing() {
    let world = World::new();
    let daemon = ready(&world, &yaml(""));
    let forwarder = children(daemon.pid())[0];
    let mut open = say(daemon.address("web"), "echo");
    open.write_all(b"a").expect("write");
    client::hear(&mut open, "a");
    let mut before = context_switches(forwarder);
    eventually("it rests", || {
        let now = context_switches(forwarder);
        std::mem::replace(&mut before, now) == now
    });
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(context_switches(forwarder), before);
    daemon.stop();
}
