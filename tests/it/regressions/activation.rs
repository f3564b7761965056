//! What was broken once in workers that clients start.

use crate::harness::activation::has_started;
use crate::harness::app::PUPPET;
use crate::harness::{
    World, children, client, context_switches, eventually, network, settled, state,
};
use nix::sys::stat::Mode;
use socket2::SockAddr;
use std::net::UdpSocket;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// A worker `app` that clients of `web` start.
fn on_demand(address: &str, lines: &str) -> String {
    format!(
        "
listeners: {{ web: '{address}' }}
workers:
  app:
    command: {PUPPET}
    listeners: [web]
    activation: on-demand
    {lines}
"
    )
}

// unix(7) has no way back from shutdown(2): after SHUT_RD every connect(2) is refused. That shows as
// EPOLLRDHUP only, which nobody had asked for: the worker was started for the same client until it
// had failed, and no other client ever came in.
#[test]
fn a_unix_listener_that_was_shut_down_for_reading_is_bound_again() {
    for activation in ["eager", "on-demand"] {
        let world = World::new();
        let yaml = on_demand("unix:$DIR/web.sock", "");
        let daemon = world.run(&yaml.replace("on-demand", activation));
        daemon.line(&["web", "listening on"]);
        let path = world.path("web.sock");
        let first = UnixStream::connect(&path).expect("connect");
        let mut puppet = world.puppet();
        assert_eq!(puppet.ask("half 3"), "half");
        daemon.line(&["web.sock was shut down by app.0"]);
        // Whoever has the old socket is started again.
        puppet.wait_for_its_end();
        drop(first);
        let address = path.to_str().expect("UTF-8").to_owned();
        eventually("clients get in", || UnixStream::connect(&path).is_ok());
        let client = std::thread::spawn(move || network::send("unix", &address, "hello"));
        let mut puppet = world.puppet();
        // The one that only looked came first.
        while puppet.ask("read 3") != "hello" {}
        assert_eq!(client.join().expect("the client").as_deref(), Ok("HELLO"));
        daemon.stop();
    }
}

// connect(2) of a datagram socket lets only that peer in, and belongs to the socket and not to the
// descriptor. A worker of inetd's `wait` kind that did so and ended locked everybody else out.
#[test]
fn a_worker_that_connects_its_udp_socket_does_not_lock_out_other_clients() {
    let world = World::new();
    for address in ["udp://127.0.0.1:0", "udp://0.0.0.0:0"] {
        let daemon = world.run(&on_demand(address, ""));
        let address = format!("127.0.0.1:{}", daemon.address("web").port());
        let first = UdpSocket::bind("127.0.0.1:0").expect("bind");
        first.send_to(b"hello", &address).expect("send");
        let mut puppet = world.puppet();
        assert_eq!(puppet.ask("read 3"), "hello");
        let client = first.local_addr().expect("an address");
        assert_eq!(puppet.ask(&format!("connect 3 {client}")), "connect");
        puppet.tell("exit 0");
        puppet.wait_for_its_end();
        daemon.line(&["app.0 connected", &address[9..], "restored"]);
        let second = UdpSocket::bind("127.0.0.1:0").expect("bind");
        second.send_to(b"hello", &address).expect("send");
        let mut puppet = world.puppet();
        assert_eq!(puppet.ask("read 3"), "hello");
        daemon.stop();
    }
}

// An error that a worker leaves in the error queue (ip(7), IP_RECVERR) makes a socket ready for
// ever. It was taken for a client, and the worker was started for nobody, again and again.
#[test]
fn an_error_that_nobody_has_read_is_no_client() {
    let world = World::new();
    let daemon = world.run(&on_demand("udp://127.0.0.1:0", "trigger_limit: none"));
    let client = UdpSocket::bind("127.0.0.1:0").expect("bind");
    let send = || {
        client
            .send_to(b"hello", daemon.address("web"))
            .expect("send")
    };
    send();
    for round in 1..=2 {
        let mut puppet = world.puppet();
        assert_eq!(puppet.ask("read 3"), "hello");
        assert_eq!(puppet.ask("complain 3"), "complain");
        puppet.tell("exit 0");
        puppet.wait_for_its_end();
        eventually("it is reaped", || children(daemon.pid()).is_empty());
        settled(daemon.pid());
        has_started(&daemon, "app", round);
        // A client is one as before.
        send();
    }
    has_started(&daemon, "app", 3);
    drop(world.puppet());
    daemon.stop();
}

// A process of a connection that hangs before exec (here in open(2) of a fifo) was looked at every
// 20 ms for ever, where the pause was meant to grow.
#[test]
fn a_child_that_hangs_before_exec_is_looked_at_less_and_less() {
    let world = World::new();
    nix::unistd::mkfifo(&world.path("fifo"), Mode::S_IRWXU).expect("mkfifo");
    let daemon = world.run(
        "
listeners: { web: '127.0.0.1:0' }
workers:
  app:
    command: sleep 60
    listeners: [web]
    activation: per-connection
    output: 'file:$DIR/fifo'
    stop_timeout: 10ms
",
    );
    let client = client::tcp(daemon.address("web")).expect("connect");
    eventually("its process is there", || {
        !children(daemon.pid()).is_empty()
    });
    // Each look is one: 10, 20, 40 … ms, and not one every 20 ms.
    let (began, before) = (Instant::now(), context_switches(daemon.pid()));
    let mut looks = 0;
    eventually("it sleeps for half a second", || {
        looks = context_switches(daemon.pid()) - before;
        began.elapsed() >= Duration::from_secs(2)
    });
    assert!(looks < 30, "{looks} looks");
    assert_eq!(state(daemon.pid()), Some('S'));
    drop(client);
    daemon.stop();
}

// A unix client chooses its own path, and a line end in it made a line of the log that looked like
// listend's own.
#[test]
fn the_path_of_a_client_cannot_forge_a_line_of_the_log() {
    let world = World::new();
    let yaml = on_demand("unix:$DIR/web.sock", "").replace("on-demand", "per-connection");
    let daemon = world.run_with(&yaml, |start| {
        start.words_behind(["--log-level", "debug"]);
    });
    daemon.line(&["web", "listening on"]);
    let path = world.path("line\nforged \u{1b}[31m");
    let source = SockAddr::unix(&path).expect("a path");
    let client = client::unix_from(&source, &world.path("web.sock")).expect("connect");
    let mut puppet = world.puppet();
    let line = daemon.line(&["app.0: serving"]);
    assert!(
        line.contains("forged") && !line.contains('\u{1b}'),
        "{line}"
    );
    puppet.tell("exit 0");
    puppet.wait_for_its_end();
    drop(client);
    daemon.stop();
}
