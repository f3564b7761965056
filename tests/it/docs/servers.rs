//! The examples that need a server run where it is installed.

use crate::harness::load::{Answer, Load, Question, Target};
use crate::harness::rollout::nobody_is_lost;
use crate::harness::servers::{fastcgi, server_that_says};
use crate::harness::{Start, World, require_root, require_tool, skip};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;

/// Runs an example that needs a server, and asks it.
#[track_caller]
fn example_serves(name: &str, target: Target, question: Question) {
    let world = World::new();
    let mut start = Start::new(["run", name]);
    start.directory(env!("CARGO_MANIFEST_DIR"));
    let daemon = world.start(start);
    daemon.line(&["every eager worker is ready"]);
    let load = Load::asking(target, 1, question);
    load.wait_for_answers(3);
    nobody_is_lost(load);
    daemon.stop();
}

#[test]
fn the_example_of_nginx_serves() {
    if !require_root() || server_that_says("nginx", "-v").is_none() {
        return;
    }
    let address: SocketAddr = "127.0.0.1:8088".parse().expect("an address");
    if TcpListener::bind(address).is_err() {
        return skip(&format!("{address} is in use"));
    }
    example_serves("examples/nginx.yaml", address.into(), Question::http());
}

#[test]
fn the_example_of_a_server_that_cannot_inherit_serves() {
    if require_tool("python3").is_none() {
        return;
    }
    let address: SocketAddr = "127.0.0.1:8080".parse().expect("an address");
    if TcpListener::bind(address).is_err() {
        return skip(&format!("{address} is in use"));
    }
    example_serves("examples/forward.yaml", address.into(), Question::http());
}

#[test]
fn the_example_of_php_fpm_serves() {
    if !require_root() || server_that_says("php-fpm8.2", "-v").is_none() {
        return;
    }
    let path = Path::new("/run/listend-example-php.sock");
    if path.exists() {
        return skip(&format!("{} is in use", path.display()));
    }
    let question = Question {
        send: fastcgi("/ping"),
        answer: Answer::Bytes(b"pong".to_vec()),
        ..Question::http()
    };
    example_serves("examples/php-fpm.yaml", path.into(), question);
}
