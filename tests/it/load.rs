//! The load itself: that it sees what happens to clients, and leaves nothing behind.

use crate::harness::load::Load;
use crate::harness::{World, client, free_port, kill};
use nix::sys::signal::Signal;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::Duration;

const APP: &str = "
listeners: { web: { address: ['127.0.0.1:0', 'unix:$DIR/web'] } }
workers:
  app:
    command: [$PROBE, serve-app, --version, one]
    listeners: [web]
    nonblocking: true
    restart: { backoff: 1ms, limit: none }
";

/// How many connections of this port are in TIME_WAIT (proc_net_tcp(5), state 06).
fn in_time_wait(port: u16) -> usize {
    let table = fs::read_to_string("/proc/net/tcp").expect("the table");
    let suffix = format!(":{port:04X}");
    let is_one = |line: &&str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let ends = [words[1], words[2]];
        words[3] == "06" && ends.iter().any(|end| end.ends_with(&suffix))
    };
    table.lines().skip(1).filter(is_one).count()
}

#[test]
fn every_client_is_answered_and_no_port_is_left_in_time_wait() {
    let world = World::new();
    let daemon = world.run(APP);
    let address = daemon.address("web");
    let load = Load::start(address, 4);
    load.wait_for_answers(2_000);
    let worst = load.checkpoint();
    let summary = load.stop();
    assert_eq!(summary.counts.failed(), 0, "{summary}");
    assert_eq!(summary.versions.len(), 1, "{summary}");
    assert_eq!(summary.versions["one"], summary.counts.answered);
    assert!(summary.quantile(0.0) <= summary.quantile(0.5), "{summary}");
    assert!(summary.quantile(0.5) <= summary.quantile(1.0), "{summary}");
    assert!(worst > Duration::ZERO && worst.as_micros() <= summary.quantile(1.0).as_micros());
    // One reset may be late; thousands of connections may not stay.
    let left = in_time_wait(address.port());
    assert!(left < 100, "{left} in TIME_WAIT");
    daemon.stop();
}

#[test]
fn a_path_is_as_good_as_a_port() {
    let world = World::new();
    let daemon = world.run(APP);
    daemon.line(&["app.0", "started"]);
    let load = Load::start(world.path("web").as_path(), 4);
    load.wait_for_version("one", 100);
    let summary = load.stop();
    assert_eq!(summary.counts.failed(), 0, "{summary}");
    daemon.stop();
}

#[test]
fn an_app_that_is_asked_to_stop_loses_nobody() {
    let world = World::new();
    let daemon = world.run(APP);
    let load = Load::start(daemon.address("web"), 4);
    for _ in 0..5 {
        load.wait_for_answers(50);
        let pid = crate::harness::children(daemon.pid())[0];
        kill(pid, Signal::SIGTERM);
        crate::harness::eventually("it has ended", || !crate::harness::exists(pid));
    }
    load.wait_for_answers(50);
    let summary = load.stop();
    assert_eq!(summary.counts.failed(), 0, "{summary}");
    daemon.stop();
}

#[test]
fn it_sees_that_nobody_listens() {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let load = Load::start(address, 1);
    crate::harness::eventually("it is refused", || load.counts().refused > 3);
    let summary = load.stop();
    assert_eq!(summary.counts.failed(), summary.counts.refused, "{summary}");
    let load = Load::start(std::path::Path::new("/nonexistent/socket"), 1);
    crate::harness::eventually("it is refused", || load.counts().refused > 3);
}

/// What a load counts of a server that answers with this.
fn counts_of(answer: &'static str, resets: bool) -> crate::harness::load::Counts {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let load = Load::start(listener.local_addr().expect("an address"), 1);
    let (mut client, _) = listener.accept().expect("accept");
    if !resets {
        let mut request = [0; 512];
        let _ = client.read(&mut request).expect("a request");
    }
    client.write_all(answer.as_bytes()).expect("write");
    if resets {
        crate::harness::client::reset(client);
    } else {
        drop(client);
    }
    crate::harness::eventually("it is counted", || {
        let counts = load.counts();
        counts.failed() + counts.answered > 0
    });
    load.counts()
}

#[test]
fn it_tells_the_ways_to_fail_apart() {
    assert_eq!(
        counts_of("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none", false).answered,
        1
    );
    for short in [
        "",
        "HTTP/1.1 200",
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\non",
    ] {
        assert_eq!(counts_of(short, false).short, 1, "{short:?}");
    }
    for wrong in [
        "HTTP/1.1 503 No\r\nContent-Length: 3\r\n\r\none",
        "HTTP/1.1 200 OK\r\n\r\none",
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nmore",
        "SSH-2.0\r\n\r\n",
    ] {
        assert_eq!(counts_of(wrong, false).wrong, 1, "{wrong:?}");
    }
    assert_eq!(counts_of("", true).reset, 1);
}

/// A server's end of a connection that says in how many pieces it was asked.
#[derive(Default)]
struct Pieces(usize);

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += 1;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Pieces {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Ok(0)
    }
}

// A server that reads once, answers and closes resets the connection if more of the request comes then (tcp(7)).
#[test]
fn a_request_is_one_piece() {
    let mut server = Pieces::default();
    client::http(&mut server, "/path").expect("an answer");
    assert_eq!(server.0, 1);
}
