//! `forward:`: servers that cannot inherit a socket, and what arrives on both sides.

mod bytes;
mod check;
mod life;
mod limits;
mod proxy;

use crate::harness::{Daemon, World, client};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

/// A worker `app` that forwards to a server of its own, with these further lines.
fn yaml(lines: &str) -> String {
    yaml_at("127.0.0.1:0", "127.0.0.1:{port}", lines)
}

/// The same from and to these addresses.
fn yaml_at(listener: &str, to: &str, lines: &str) -> String {
    let lines: String = lines.lines().map(|line| format!("    {line}\n")).collect();
    format!(
        "
listeners: {{ web: '{listener}' }}
workers:
  app:
    command: [$PROBE, backend, '{to}']
    forward: '{to}'
    listeners: [web]
    restart: {{ backoff: 1ms..20ms, limit: none }}
{lines}"
    )
}

/// A connection, and its first line.
#[track_caller]
fn say(address: SocketAddr, line: &str) -> TcpStream {
    let mut stream = client::tcp(address).expect("connect");
    writeln!(stream, "{line}").expect("write");
    stream
}

/// Everything until the end.
#[track_caller]
fn rest(mut stream: impl Read) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("the end");
    text
}

/// The answer to one line.
#[track_caller]
fn ask(address: SocketAddr, line: &str) -> String {
    rest(say(address, line)).trim().to_owned()
}

/// A daemon whose worker is ready.
#[track_caller]
fn ready(world: &World, yaml: &str) -> Daemon {
    let daemon = world.run_with(yaml, |start| {
        start.words_behind(["--control", "$DIR/control.sock", "--log-level", "debug"]);
    });
    daemon.line(&["every eager worker is ready"]);
    daemon
}
