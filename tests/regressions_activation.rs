//! What was broken once in workers that clients start.

mod harness;

use harness::{World, children, client, context_switches, eventually, state};
use nix::sys::stat::Mode;
use std::time::{Duration, Instant};

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
