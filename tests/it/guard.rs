//! `listend run --guard`: the parent that keeps descriptors for the daemon.

mod daemon;
mod life;
mod signals;
mod store;

use crate::harness::report::Fd;
use crate::harness::{Daemon, Puppet, Start, World, client, guard_path};
use nix::sys::signal::Signal;
use std::net::{SocketAddr, TcpStream};

/// A puppet that takes the part of the daemon, below a guard; `adjust` starts it in another way.
fn guarded_with(world: &World, adjust: impl FnOnce(&mut Start)) -> (Daemon, Puppet) {
    let mut start = Start::of(guard_path(), ["$PROBE", "puppet", "$EVENTS"]);
    adjust(&mut start);
    let guard = world.start(start);
    let puppet = world.puppet();
    assert_eq!(
        puppet.report.sid,
        puppet.pid(),
        "it has a session of its own"
    );
    (guard, puppet)
}

fn guarded(world: &World) -> (Daemon, Puppet) {
    guarded_with(world, |_| {})
}

/// Kills it; the next.
#[track_caller]
fn replaced(world: &World, mut puppet: Puppet) -> Puppet {
    puppet.tell(&format!("raise {}", Signal::SIGKILL as i32));
    puppet.wait_for_its_end();
    world.puppet()
}

/// What a daemon was given under a name, as sd_listen_fds_with_names(3) has it.
#[track_caller]
fn kept<'a>(puppet: &'a Puppet, name: &str) -> Vec<&'a Fd> {
    let report = &puppet.report;
    let all = names(puppet).into_iter().zip(3..);
    let numbers = all.filter(|(found, _)| found == name);
    let fd = |number| {
        let found = report.fds.iter().find(|fd| fd.number == number);
        found.unwrap_or_else(|| panic!("{number} is not open: {:#?}", report.fds))
    };
    numbers.map(|(_, number)| fd(number)).collect()
}

/// All names, after a look at what the protocol has besides.
#[track_caller]
fn names(puppet: &Puppet) -> Vec<String> {
    let variable = |name: &str| puppet.report.env.get(name).cloned();
    let Some(count) = variable("LISTEN_FDS") else {
        assert_eq!(variable("LISTEN_PID"), None);
        assert_eq!(variable("LISTEN_FDNAMES"), None);
        return Vec::new();
    };
    assert_eq!(variable("LISTEN_PID"), Some(puppet.pid().to_string()));
    let names: Vec<String> = variable("LISTEN_FDNAMES")
        .expect("names")
        .split(':')
        .map(str::to_owned)
        .collect();
    assert_eq!(count, names.len().to_string());
    names
}

/// The same, sorted.
#[track_caller]
fn sorted_names(puppet: &Puppet) -> Vec<String> {
    let mut names = names(puppet);
    names.sort();
    names
}

/// Has it bind a socket of this machine and leave it under a name; its address, and the number by which
/// the puppet has it.
#[track_caller]
fn bound(puppet: &mut Puppet, scheme: &str, name: &str) -> (SocketAddr, i32) {
    let answer = puppet.ask(&format!("bind {scheme}:127.0.0.1:0 {name}"));
    let parts = answer.split_once(' ').expect("an address and a number");
    let (address, number) = (parts.0.parse(), parts.1.parse());
    puppet.ask("barrier");
    (address.expect("an address"), number.expect("a number"))
}

/// A client that is served by the puppet, by this descriptor.
#[track_caller]
fn is_served(puppet: &mut Puppet, number: i32, client: TcpStream) {
    let served = std::thread::spawn(move || client::converse(client, "hello", "HELLO"));
    assert_eq!(puppet.ask(&format!("read {number}")), "hello");
    served.join().expect("it is served");
}
