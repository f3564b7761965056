//! Real servers that make their listeners nonblocking, and are replaced while they serve: O_NONBLOCK
//! belongs to the open file description that two generations share (fcntl(2)).

use crate::harness::load::Load;
use crate::harness::rollout::{NEVER, nobody_is_lost, run, running, tell};
use crate::harness::servers::{apps, server};
use crate::harness::varlink::Varlink;
use crate::harness::{World, client, eventually, exists, kill};
use nix::sys::signal::Signal;
use serde_json::json;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixListener;

/// open(2): O_NONBLOCK, as fdinfo of proc(5) has it.
fn is_nonblocking(pid: i32, fd: i32) -> bool {
    let text = fs::read_to_string(format!("/proc/{pid}/fdinfo/{fd}")).expect("it has it open");
    let line = text.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = line.map(|word| i64::from_str_radix(word.trim(), 8).expect("octal"));
    flags.expect("flags") & i64::from(nix::libc::O_NONBLOCK) != 0
}

fn get(stream: TcpStream) -> i32 {
    pid_in(&client::http(stream, "/").expect("an answer"))
}

fn pid_in(answer: &str) -> i32 {
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer:?}");
    let (_, rest) = answer.split_once("pid ").expect("a pid");
    rest.trim().parse().expect("a number")
}

/// So many answers, from whoever takes the clients; all wake up for each.
fn serves(address: SocketAddr) {
    let load = Load::start(address, 4);
    load.wait_for_answers(200);
    nobody_is_lost(load);
}

/// A server that has made its listener nonblocking goes on while others of it come and go.
fn goes_on_beside_others(world: &World, command: &str) {
    let yaml = format!(
        "
listeners: {{ web: '127.0.0.1:0' }}
workers:
  app:
    command: {command}
    listeners: [web]
    ready: accepting
    environment: {{ GATE: $DIR/gate, HOME: $DIR, PYTHONDONTWRITEBYTECODE: '1' }}
    rollout: {{ min_ready: {NEVER} }}
"
    );
    let daemon = run(world, &yaml);
    let address = daemon.address("web");
    let mut client = Varlink::connect(world);
    let old = running(&mut client, 1, 1)[0];
    assert!(is_nonblocking(old, 3), "else this test shows nothing");
    // Accepted, and in hand: the old one answers it however long it takes.
    let mut half = client::tcp(address).expect("connect");
    half.write_all(b"GET / HTTP/1.1\r\n").expect("write");
    eventually("it is accepted", || crate::harness::queued(address) == 0);
    client.ask("Restart", json!({ "worker": "app", "no_wait": true }));
    let new = running(&mut client, 2, 1)[0];
    assert!(is_nonblocking(old, 3));
    serves(address);
    let rest = b"Host: localhost\r\nConnection: close\r\n\r\n";
    half.write_all(rest).expect("write");
    let mut answer = String::new();
    half.read_to_string(&mut answer).expect("an answer");
    assert_eq!(pid_in(&answer), old);
    kill(new, Signal::SIGKILL);
    daemon.line(&["app: rolled back"]);
    eventually("it has gone", || !exists(new));
    assert!(is_nonblocking(old, 3));
    assert!(daemon.lines_so_far(&["O_NONBLOCK"]).is_empty());
    serves(address);
    assert_eq!(get(client::tcp(address).expect("connect")), old);
    daemon.stop();
}

#[test]
fn node_goes_on_while_another_generation_comes_and_goes() {
    let Some(node) = server("node") else { return };
    let world = World::new();
    let command = format!("[{}, {}/server.js, '3']", node.display(), apps());
    goes_on_beside_others(&world, &command);
}

#[test]
fn uvicorn_goes_on_while_another_generation_comes_and_goes() {
    let Some(uvicorn) = server("uvicorn") else {
        return;
    };
    let world = World::new();
    let words = "--log-level, warning, --fd, '3', 'asgi:app'";
    let command = format!("[{}, --app-dir, {}, {words}]", uvicorn.display(), apps());
    goes_on_beside_others(&world, &command);
}

#[test]
fn asyncio_goes_on_while_another_generation_comes_and_goes() {
    let Some(python) = server("python3") else {
        return;
    };
    let world = World::new();
    let command = format!("[{}, {}/listener.py, asyncio]", python.display(), apps());
    goes_on_beside_others(&world, &command);
}

#[test]
fn node_is_replaced_under_load_with_a_request_in_hand() {
    let Some(node) = server("node") else { return };
    let world = World::new();
    let gate = UnixListener::bind(world.path("gate")).expect("bind the gate");
    let yaml = format!(
        "
listeners: {{ web: '127.0.0.1:0' }}
workers:
  app:
    command: [{}, {}/server.js, '3']
    listeners: [web]
    ready: accepting
    environment: {{ GATE: $DIR/gate }}
    rollout: {{ min_ready: 50ms }}
",
        node.display(),
        apps()
    );
    let daemon = run(&world, &yaml);
    let address = daemon.address("web");
    let mut client = Varlink::connect(&world);
    let old = running(&mut client, 1, 1)[0];
    let slow = std::thread::spawn(move || {
        client::http(client::tcp(address).expect("connect"), "/wait").expect("an answer")
    });
    let in_hand = gate.accept().expect("the request is in hand").0;
    let load = Load::start(address, 4);
    load.wait_for_answers(50);
    client.ask("Restart", json!({ "worker": "app", "no_wait": true }));
    // It is asked to stop, and has the slow one to finish.
    daemon.line(&["app.0: stopping with", &format!("pid {old}")]);
    load.wait_for_answers(50);
    drop(in_hand);
    assert_eq!(pid_in(&slow.join().expect("the client")), old);
    daemon.line(&["app: generation 2 has taken over"]);
    for generation in 3..6 {
        tell(&world, &["restart", "app"]).expect_code(0);
        running(&mut client, generation, 1);
    }
    nobody_is_lost(load);
    daemon.stop();
}

/// The sample worker drains: over many replacements no client is reset, and a request that was
/// accepted before the stop is answered after it.
#[test]
fn the_sample_worker_drains() {
    let world = World::new();
    let yaml = "
listeners: { web: '127.0.0.1:0' }
workers:
  app:
    command: ['{listend}', hello-worker]
    listeners: [web]
    instances: 2
    ready: accepting
    rollout: { min_ready: 0, parallel: 2 }
";
    let daemon = run(&world, yaml);
    let address = daemon.address("web");
    let mut client = Varlink::connect(&world);
    let old = running(&mut client, 1, 2);
    let mut half = client::tcp(address).expect("connect");
    half.write_all(b"GET /half HTTP/1.1\r\n").expect("write");
    eventually("it is accepted", || crate::harness::queued(address) == 0);
    let load = Load::start(address, 4);
    load.wait_for_answers(100);
    client.ask("Restart", json!({ "worker": "app", "no_wait": true }));
    daemon.line(&["app.0: stopping with", &format!("pid {}", old[0])]);
    daemon.line(&["app.1: stopping with", &format!("pid {}", old[1])]);
    half.write_all(b"\r\n").expect("write");
    let mut answer = String::new();
    half.read_to_string(&mut answer).expect("an answer");
    assert!(answer.contains("you asked for /half"), "{answer:?}");
    let pid: i32 = answer
        .split_once("pid ")
        .expect("a pid")
        .1
        .split(',')
        .next()
        .unwrap_or_default()
        .parse()
        .expect("a number");
    assert!(old.contains(&pid), "{pid} is none of {old:?}");
    daemon.line(&["app: generation 2 has taken over"]);
    for generation in 3..13 {
        tell(&world, &["restart", "app"]).expect_code(0);
        running(&mut client, generation, 2);
    }
    nobody_is_lost(load);
    daemon.stop();
}
