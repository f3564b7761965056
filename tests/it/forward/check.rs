//! What is wrong with a `forward` is said when the configuration is read, with its place.

use crate::harness::World;

/// The errors of a worker with these lines, at this listener.
#[track_caller]
fn errors(listener: &str, lines: &[&str]) -> String {
    let world = World::new();
    let mut yaml =
        format!("listeners:\n  web: '{listener}'\nworkers:\n  app:\n    listeners: [web]\n");
    for line in lines {
        yaml += &format!("    {line}\n");
    }
    let checked = world.check(&yaml, &["--no-bind"]);
    checked.text()
}

const HERE: &str = "127.0.0.1:0";
const COMMAND: &str = "command: [/bin/true, '{port}']";
const FORWARD: &str = "forward: 127.0.0.1:{port}";

#[test]
fn what_fits_is_taken() {
    for lines in [
        &[COMMAND, FORWARD][..],
        &["forward: 127.0.0.1:8080"],
        &["forward: unix:/run/x.sock"],
        &["forward: localhost:8080", "ready: notify"],
        &[
            "command: /bin/true",
            "forward: 'unix:{runtime_dir}/x'",
            "runtime_directory: x",
        ],
        &[
            COMMAND,
            FORWARD,
            "instances: 3",
            "rollout: { order: start-first }",
        ],
        &[
            "command: /bin/true",
            "environment: { PORT: '{port}' }",
            FORWARD,
        ],
        &[
            "command: /bin/true",
            "forward: 'unix:/run/{generation}'",
            "rollout: { order: start-first }",
        ],
        &[
            "forward: { to: '[::1]:80', connect_timeout: 1s, idle: 5m, keep_alive: 1m, proxy_protocol: v2, drain: 0s }",
        ],
    ] {
        let said = errors(HERE, lines);
        assert!(!said.contains("error"), "{lines:?}: {said}");
    }
}

// It was taken, and each start failed.
#[test]
fn a_path_that_connect_does_not_take_is_refused() {
    let line = format!("forward: unix:/{}/x.sock", "d".repeat(110));
    let said = errors(HERE, &[&line]);
    assert!(said.contains("a path of more than 107 bytes"), "{said}");
}

#[test]
fn what_contradicts_it_is_refused_with_the_reason() {
    for (lines, wanted) in [
        (
            &["forward: 0.0.0.0:80"][..],
            "not the address of one server",
        ),
        (
            &["forward: 127.0.0.1:80-81"],
            "not the address of one server",
        ),
        (&["forward: 127.0.0.1:0"], "has port 0"),
        (&["forward: 'udp://127.0.0.1:80'"], "no TCP or unix stream"),
        (&["forward: /run/x.sock"], "unix:/run/x.sock"),
        (&["forward: example.com:80"], "host names are not resolved"),
        (&["forward: '{address:web}'"], "not of the server"),
        (&["forward: { idle: 5s }"], "has no `to`"),
        (
            &["forward: { to: '127.0.0.1:1', idle: 0s }"],
            "end every connection at once",
        ),
        (
            &["forward: { to: '127.0.0.1:1', connect_timeout: 0s }"],
            "refuse every client",
        ),
        (
            &["forward: { to: '127.0.0.1:1', keep_alive: 100ms }"],
            "whole seconds",
        ),
        (
            &["forward: { to: '127.0.0.1:1', proxy_protocol: v3 }"],
            "unknown value `v3`",
        ),
        (
            &[COMMAND, "forward: 127.0.0.1:80"],
            "`{port}` does not name a listener",
        ),
        (&[COMMAND], "`{port}` does not name a listener"),
        (
            &["command: /bin/true", FORWARD],
            "nothing tells the server which port",
        ),
        (&[FORWARD], "nothing tells the server which port"),
        (
            &[COMMAND, FORWARD, "preset: nginx"],
            "`preset` beside `forward`",
        ),
        (
            &[COMMAND, FORWARD, "handoff: none"],
            "`handoff` beside `forward`",
        ),
        (
            &[COMMAND, FORWARD, "nonblocking: true"],
            "`nonblocking` beside `forward`",
        ),
        (
            &[COMMAND, FORWARD, "fd_store: 3"],
            "`fd_store` beside `forward`",
        ),
        (
            &[COMMAND, FORWARD, "ready: accepting"],
            "`ready: accepting all` beside `forward`",
        ),
        (
            &[COMMAND, FORWARD, "activation: per-connection"],
            "`activation: per-connection` beside `forward`",
        ),
        (
            &[
                "command: /bin/true",
                "forward: 127.0.0.1:80",
                "instances: 2",
            ],
            "only one of them can have",
        ),
        (
            &[
                "command: /bin/true",
                "forward: 127.0.0.1:80",
                "rollout: { order: start-first }",
            ],
            "two servers cannot have",
        ),
        (
            &["forward: 127.0.0.1:80", "argv0: x"],
            "`argv0` without a `command`",
        ),
        (&["instances: 1"], "has no `command`"),
    ] {
        let said = errors(HERE, lines);
        assert!(
            said.contains("error") && said.contains(wanted),
            "{lines:?}: {said}"
        );
        let line = said.lines().find(|line| line.contains("error"));
        let place = line.and_then(|line| line.split(':').nth(1));
        assert!(
            place.is_some_and(|line| line.parse::<u32>().is_ok()),
            "no place: {said}"
        );
    }
}

#[test]
fn what_is_no_stream_cannot_be_forwarded() {
    for (listener, why) in [
        ("udp://127.0.0.1:0", "no connections to forward"),
        ("unix-dgram:/run/x", "no connections to forward"),
        ("fifo:/run/x", "no connections to forward"),
        ("unix-seqpacket:/run/x", "messages have bounds"),
    ] {
        let said = errors(listener, &["forward: 127.0.0.1:80"]);
        assert!(
            said.contains("error") && said.contains(why),
            "{listener}: {said}"
        );
    }
}
