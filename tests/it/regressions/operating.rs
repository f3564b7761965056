//! What was broken once in asking and operating a running daemon.

use crate::harness::varlink::{self, Varlink};
use crate::harness::{World, eventually};
use serde_json::json;
use std::fs::{self, File};
use std::io::Write;

/// A worker that writes this many lines of so many bytes when somebody writes to `$DIR/go`.
fn writer(world: &World, lines: u32, length: u32) -> String {
    let mode = nix::sys::stat::Mode::S_IRWXU;
    nix::unistd::mkfifo(&world.path("go"), mode).expect("mkfifo");
    format!(
        "
workers:
  app:
    command:
      - sh
      - -c
      - 'read go <$DIR/go; i=0; while [ $i -lt {lines} ]; do i=$((i+1)); printf \"%0{length}d\\n\" $i;
        done >$DIR/text; cat $DIR/text; exec sleep infinity'
    output: tag
"
    )
}

/// Whoever opens a FIFO waits for its other end (fifo(7)).
fn go(world: &World) {
    let mut fifo = File::options().write(true).open(world.path("go"));
    let fifo = fifo.as_mut().expect("open the FIFO");
    fifo.write_all(b"go\n").expect("write");
}

// Only so many lines were told in a turn of the loop, and nothing woke it for the rest: who followed
// heard the end of a burst when something else happened, perhaps hours later.
#[test]
fn a_follower_hears_the_whole_of_a_burst() {
    let world = World::new();
    let yaml = writer(&world, 900, 4);
    let daemon = varlink::run(&world, &yaml);
    let mut client = Varlink::connect(&world);
    let parameters = json!({ "worker": "app", "lines": 0, "follow": true });
    client.call_with("Logs", parameters, json!({ "more": true }));
    // The call has been taken when a later one is answered.
    Varlink::connect(&world).ask("Status", json!({}));
    go(&world);
    for number in 1..=900 {
        let reply = client.next().expect("a reply");
        let wanted = format!("{number:04}");
        assert_eq!(reply["parameters"]["line"]["text"], wanted.as_str());
    }
    daemon.stop();
}

// Lines were lost between two portions for a follower that is slow, and nobody said so.
#[test]
fn a_follower_that_does_not_read_costs_one_line_and_is_told_what_it_missed() {
    let world = World::new();
    let yaml = writer(&world, 3000, 1000);
    let daemon = varlink::run(&world, &yaml);
    let mut client = Varlink::connect(&world);
    let parameters = json!({ "worker": "app", "lines": 0, "follow": true });
    client.call_with("Logs", parameters, json!({ "more": true }));
    let mut other = Varlink::connect(&world);
    other.ask("Status", json!({}));
    go(&world);
    let end = format!("{:01000}", 3000);
    eventually("all is written", || {
        let last = other.more("Logs", json!({ "lines": 1 }));
        last[0]["parameters"]["line"]["text"] == end.as_str()
    });
    let mut gaps = 0;
    let mut before = 0;
    while before < 3000 {
        let reply = client.next().expect("it is not closed");
        let line = &reply["parameters"]["line"];
        let text = line["text"].as_str().expect("a line");
        if line["worker"].is_null() {
            assert!(text.contains("lost"), "{text}");
            gaps += 1;
            continue;
        }
        let number: u32 = text.parse().expect("a number");
        let follows = number == before + 1;
        assert!(follows || gaps > 0, "{number} after {before}");
        before = number;
    }
    assert_eq!(gaps, 1);
    daemon.stop();
}

// The whole answer was put into the buffer of a client at once, and a client with more than 4 MiB in
// its buffer is closed: many long lines could not be read at all.
#[test]
fn many_long_lines_are_told_to_a_client_that_reads_slowly() {
    let world = World::new();
    // A control character takes six bytes in JSON.
    let text = format!("{}\n", "\u{1}".repeat(15_000)).repeat(16);
    fs::write(world.path("text"), text).expect("write");
    let worker = |number: u32| {
        format!(
            "  w{number}: {{ command: [sh, -c, 'cat $DIR/text; exec sleep infinity'], output: tag }}\n"
        )
    };
    let workers: String = (0..8).map(worker).collect();
    let daemon = varlink::run(&world, &format!("workers:\n{workers}"));
    let mut other = Varlink::connect(&world);
    for number in 0..8 {
        eventually("all is written", || {
            let parameters = json!({ "worker": format!("w{number}") });
            other.more("Logs", parameters).len() == 16
        });
    }
    let mut client = Varlink::connect(&world);
    client.call_with("Logs", json!({ "lines": 200 }), json!({ "more": true }));
    // It begins to read when the daemon has told what it can.
    other.ask("Status", json!({}));
    let mut count = 1;
    while client.next().expect("it is not closed")["continues"] == true {
        count += 1;
    }
    assert_eq!(count, 8 * 16);
    daemon.stop();
}

// The daemon ended as soon as its last worker had: who followed heard only the first of the last
// lines, which are those that tell why.
#[test]
fn a_follower_hears_what_is_written_at_the_very_end() {
    let world = World::new();
    let script = "#!/bin/sh
sleep infinity >/dev/null 2>&1 &
trap 'kill $!; i=0; while [ $i -lt 500 ]; do i=$((i+1)); echo $i; done' TERM
echo ready
wait
";
    world.write_script("worker", script);
    let yaml = "
workers:
  app: { command: [$DIR/worker], output: tag, stop_timeout: 60s }
";
    let daemon = varlink::run(&world, yaml);
    let mut client = Varlink::connect(&world);
    client.call_with("Logs", json!({ "follow": true }), json!({ "more": true }));
    let mut next = || client.next().expect("a reply")["parameters"]["line"]["text"].take();
    assert_eq!(next(), "ready");
    daemon.signal(nix::sys::signal::Signal::SIGTERM);
    for number in 1..=500 {
        assert_eq!(next(), number.to_string());
    }
    daemon.finish().expect_code(0);
}

// A message had the whole of a value in it, twice with the address, and the line ends and escape sequences of one.
#[test]
fn a_message_quotes_a_value_on_one_line_and_not_the_whole_of_it() {
    let world = World::new();
    let of = |length| format!("a\\n\\e[31m{}", "x".repeat(length));
    // A key of YAML has at most 1024 characters.
    let (value, key) = (of(1 << 20), of(900));
    let yaml = format!(
        "listeners:\n  web: \"{value}\"\nworkers:\n  \"{key}\": {{command: [x]}}\n  app:\n    command: [x]\n    \
         listeners: [\"{value}\"]\n    user: \"{value}\"\n    stop_timeout: \"{value}\"\n    \"{key}\": 1\n    \
         working_directory: \"{value}\"\n    environment_file: \"/{value}\"\n"
    );
    let found = world.check(&yaml, &[]).expect_code(78);
    let text = found.stderr;
    assert!(text.len() < 10_000, "{} bytes", text.len());
    assert!(!text.contains('\u{1b}'), "{text:?}");
    let messages = text.lines().filter(|line| line.contains("error: "));
    let mut count = 0;
    for line in messages {
        assert!(line.ends_with(']') && line.contains('…'), "{line}");
        count += 1;
    }
    assert_eq!(count, 8, "{text}");
    let json = world.check(&yaml, &["--json"]).expect_code(78).stdout;
    assert!(json.len() < 10_000, "{} bytes", json.len());
}
