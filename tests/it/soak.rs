//! Long runs: what only shows after thousands of restarts. `make test-all` runs them.
//!
//! Without LISTEND_TEST_LONG they do a hundredth of the work, so that they cannot rot.

mod chaos;

use crate::harness::load::Load;
use crate::harness::varlink::{self, Varlink};
use crate::harness::{
    Daemon, World, activation, client, descriptors, eventually, free_port, resident_kib,
    settled_descriptors,
};
use nix::sys::signal::Signal;
use serde_json::json;
use std::net::TcpStream;

/// So many rounds in a long run.
fn rounds(long: u32) -> u32 {
    if std::env::var_os("LISTEND_TEST_LONG").is_some() {
        long
    } else {
        long / 100
    }
}

// Trap: "fd leak per spawn" (FIELD §3.1). And a client is never refused, however often.
#[test]
fn thousands_of_restarts_leave_nothing_behind_and_refuse_nobody() {
    let world = World::new();
    let daemon = world.run(
        "
listeners: { web: '127.0.0.1:0' }
workers:
  app:
    command: [$PROBE, serve]
    listeners: [web]
    restart: { policy: always, backoff: 1ms, limit: none }
",
    );
    let address = daemon.address("web");
    let ask = |refused: &mut u32| loop {
        match TcpStream::connect(address) {
            Ok(stream) => {
                stream
                    .set_read_timeout(Some(crate::harness::DEADLINE))
                    .unwrap();
                // One that the killed worker had accepted is cut; its client asks again.
                if let Ok(report) = client::read_report(stream) {
                    return report.pid;
                }
            }
            Err(_) => *refused += 1,
        }
        assert!(*refused < 100, "{refused} refused");
    };
    let mut refused = 0;
    // The first few starts may still allocate what is then used again.
    for _ in 0..5 {
        crate::harness::kill(ask(&mut refused), Signal::SIGKILL);
    }
    ask(&mut refused);
    let before = (
        settled_descriptors(daemon.pid()),
        resident_kib(daemon.pid()),
    );
    for _ in 0..rounds(5_000) {
        crate::harness::kill(ask(&mut refused), Signal::SIGKILL);
    }
    ask(&mut refused);
    assert_eq!(refused, 0);
    eventually("as many descriptors as before", || {
        descriptors(daemon.pid()) == before.0
    });
    let grown = resident_kib(daemon.pid()).saturating_sub(before.1);
    assert!(grown < 1024, "{grown} KiB more than before");
    daemon.stop();
}

// Issue: "SIGCHLD storms lose nothing".
#[test]
fn a_storm_of_exits_is_accounted_for_to_the_last() {
    let world = World::new();
    let instances = rounds(4_000);
    let daemon = world.run(&format!(
        "
workers:
  brief: {{ command: [$PROBE, exit, '0'], instances: {instances}, restart: never }}
  deaf: {{ command: [$PROBE, deaf], instances: {instances}, stop_timeout: 300ms }}
"
    ));
    daemon.lines(&["brief.", "exited with exit status 0"], instances as usize);
    daemon.lines(&["deaf.", "started"], instances as usize);
    daemon.stop();
}

// A client comes between the worker's last look at its queue and its end.
#[test]
fn no_client_is_lost_to_a_worker_that_ends_when_it_is_idle() {
    let clients = rounds(10_000);
    for address in ["127.0.0.1:0", "unix:$DIR/web.sock"] {
        let workers = activation::race_with_idle_exits(&World::new(), address, clients);
        assert!(workers > clients as usize / 50, "{workers} workers");
    }
}

#[test]
fn thousands_of_connections_leave_nothing_behind() {
    let world = World::new();
    let daemon = world.run(
        "
listeners: { web: '127.0.0.1:0' }
workers:
  app:
    command: [/bin/echo, hello]
    listeners: [web]
    activation: per-connection
    handoff: inetd
    accept_rate: none
",
    );
    let address = daemon.address("web");
    let connect = |count: u32| {
        for _ in 0..count {
            let stream = client::tcp(address).expect("connect");
            client::hear(&stream, "hello\n");
            client::sees_the_end(&stream);
        }
    };
    connect(20);
    eventually("all have ended", || {
        crate::harness::children(daemon.pid()).is_empty()
    });
    let before = (
        settled_descriptors(daemon.pid()),
        resident_kib(daemon.pid()),
    );
    connect(rounds(20_000));
    eventually("as many descriptors as before", || {
        descriptors(daemon.pid()) == before.0
    });
    let grown = resident_kib(daemon.pid()).saturating_sub(before.1);
    assert!(grown < 1024, "{grown} KiB more than before");
    daemon.stop();
}

/// A worker that is replaced again and again under load, with what it took at first.
struct Rolling {
    world: World,
    daemon: Daemon,
    load: Load,
    client: Varlink,
    before: (usize, u64),
}

impl Rolling {
    fn start(yaml: &str) -> Rolling {
        let world = World::new();
        world.write("release", "--version one");
        let daemon = varlink::run(&world, yaml);
        let load = Load::start(daemon.address("web"), 4);
        load.wait_for_answers(100);
        let client = Varlink::connect(&world);
        Rolling {
            world,
            daemon,
            load,
            client,
            before: (0, 0),
        }
    }

    /// What is allocated once has been by now.
    fn settle(&mut self) {
        self.before = self.takes();
    }

    /// Descriptors and memory.
    fn takes(&self) -> (usize, u64) {
        (
            settled_descriptors(self.daemon.pid()),
            resident_kib(self.daemon.pid()),
        )
    }

    /// Nobody was lost, and nothing is left behind.
    #[expect(clippy::print_stdout, reason = "shown by cargo test -- --show-output")]
    fn end(self, what: &str, rounds: u32) {
        eventually("as many descriptors as before", || {
            descriptors(self.daemon.pid()) == self.before.0
        });
        let grown = self.takes().1.saturating_sub(self.before.1);
        let summary = self.load.stop();
        println!("{rounds} {what}: {summary}; {grown} KiB more");
        assert_eq!(summary.counts.failed(), 0, "{summary}");
        assert!(grown < 2048, "{grown} KiB more than before");
        self.daemon.stop();
    }
}

const ROLLING: &str = "
listeners: { web: '127.0.0.1:0' }
workers:
  app:
    command: [sh, -c, 'exec $PROBE serve-app $(cat $DIR/release)']
    listeners: [web]
    nonblocking: true
    ready: notify
    output: tag
    rollout: { min_ready: 10ms }
";

#[test]
fn a_thousand_rolling_restarts_lose_nobody() {
    let mut rolling = Rolling::start(ROLLING);
    let count = rounds(1_000).max(20);
    for round in 0..count {
        if round == 10 {
            rolling.settle();
        }
        rolling.client.ask("Restart", json!({ "worker": "app" }));
    }
    let status = rolling.client.ask("Status", json!({ "name": "app" }));
    assert_eq!(status["workers"][0]["generation"], count + 1);
    rolling.end("rolling restarts", count);
}

/// One of two configurations: another environment, and another listener beside.
fn either(is_one: bool, ports: [u16; 2]) -> String {
    let (version, port) = match is_one {
        true => ("one", ports[0]),
        false => ("two", ports[1]),
    };
    let listeners = format!("web: '127.0.0.1:0', beside: '127.0.0.1:{port}'");
    let yaml = ROLLING.replace("web: '127.0.0.1:0'", &listeners);
    let yaml = yaml.replace("[web]", "[web, beside]");
    format!("{yaml}    environment: {{ APP_VERSION: {version} }}\n")
}

#[test]
fn a_thousand_reloads_lose_nobody() {
    let ports = [free_port(), free_port()];
    let mut rolling = Rolling::start(&either(true, ports));
    rolling.world.write("release", "");
    let count = rounds(1_000).max(20);
    for round in 0..count {
        if round == 10 {
            rolling.settle();
        }
        let yaml = either(round % 2 == 1, ports);
        rolling.world.write("listend.yaml", &yaml);
        rolling.client.ask("Reload", json!({}));
        let version = if round % 2 == 1 { "one" } else { "two" };
        rolling.load.wait_for_version(version, 1);
    }
    rolling.end("reloads", count);
}

#[test]
fn hundreds_of_bad_releases_lose_nobody() {
    let bad = [
        "--version bad --say broken --crash-at-start",
        "--version bad --say broken --hang-at-start",
        "--version bad --say broken --crash-after-ready 5ms",
    ];
    let yaml = ROLLING.replace("min_ready: 10ms", "min_ready: 1s");
    let yaml = format!("{yaml}    start_timeout: 1s\n");
    let mut rolling = Rolling::start(&yaml);
    let pid = |client: &mut Varlink| {
        let mut status = client.ask("Status", json!({ "name": "app" }));
        status["workers"][0]["instances"][0]["pid"].take()
    };
    let old = pid(&mut rolling.client);
    let count = rounds(200).max(6);
    for round in 0..count {
        if round == 3 {
            rolling.settle();
        }
        rolling
            .world
            .write("release", bad[round as usize % bad.len()]);
        let (error, about) = rolling.client.error("Restart", json!({ "worker": "app" }));
        let reason = about["reason"].as_str().unwrap_or_default();
        assert_eq!(error, "Failed", "{about}");
        assert!(reason.contains("broken"), "{about}");
        assert_eq!(pid(&mut rolling.client), old);
    }
    rolling.end("bad releases", count);
}
