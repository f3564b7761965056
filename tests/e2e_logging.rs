//! What listend writes, and for whom.

mod harness;

use harness::{Finished, World};

const YAML: &str = "
listeners: { web: '127.0.0.1:0' }
workers:
  app:
    command: [$PROBE, puppet, $EVENTS]
    listeners: [web]
    restart: { backoff: 10ms..50ms, limit: none }
";

/// A life with a crash in it.
fn life(world: &World, prefix: &[&str], variables: &[(&str, &str)]) -> Finished {
    let daemon = world.run_with(YAML, |start| {
        start.through(prefix.iter().copied());
        for (name, value) in variables {
            start.env(name, value);
        }
    });
    let mut puppet = world.puppet();
    puppet.tell("exit 3");
    let _second = world.puppet();
    daemon.stop();
    daemon.finish()
}

/// The priority of a line under journald, sd-daemon(3): "<N>", N being a syslog level.
fn priority(line: &str) -> Option<u8> {
    let (number, _) = line.strip_prefix('<')?.split_once('>')?;
    number.parse().ok().filter(|level| *level <= 7)
}

// man systemd.exec: "If the standard output or standard error output of the executed processes are
// connected to the journal …, $JOURNAL_STREAM contains the device and inode numbers of the
// connection file descriptor, formatted in decimal, separated by a colon".
#[test]
fn under_journald_every_line_starts_with_its_priority() {
    let world = World::new();
    let finished = life(&world, &["$PROBE", "launch", "--journal", "--"], &[]);
    for line in finished.stderr.lines() {
        assert!(priority(line).is_some(), "{line}");
    }
    let about = |word: &str| finished.stderr.lines().find(|line| line.contains(word));
    // sd-daemon(3): SD_WARNING is 4, SD_NOTICE 5, SD_INFO 6.
    assert!(
        about("started").and_then(priority) >= Some(5),
        "{finished:#?}"
    );
    assert!(
        about("exit status 3").and_then(priority) <= Some(5),
        "{finished:#?}"
    );
}

// man systemd.exec: "This permits invoked processes to safely detect whether their standard output or standard
// error output are connected to the journal."
#[test]
fn a_journal_stream_that_is_another_file_means_nothing() {
    let world = World::new();
    let finished = life(&world, &[], &[("JOURNAL_STREAM", "1:2")]);
    for line in finished.stderr.lines() {
        assert!(priority(line).is_none(), "{line}");
    }
}

// Rule: "Each line says what happens next ("restarting in 800 ms")."
#[test]
fn the_life_of_a_worker_can_be_read_in_the_log() {
    let world = World::new();
    let finished = life(&world, &[], &[]);
    let story: [&[&str]; 6] = [
        &["listener", "web", "listening on 127.0.0.1:"],
        &["app.0", "started", "pid"],
        &["app.0", "exit status 3", "restarting in 10"],
        &["app.0", "started", "pid"],
        &["stopping"],
        &["all workers stopped"],
    ];
    let mut lines = finished.stderr.lines();
    for words in story {
        let found = lines.any(|line| words.iter().all(|word| line.contains(word)));
        assert!(found, "no {words:?}, or not in its turn: {finished:#?}");
    }
    assert!(!finished.stderr.contains('\x1b'), "no colours in a pipe");
    assert!(finished.stdout.is_empty(), "{finished:#?}");
}

#[test]
fn rust_log_and_log_level_choose_how_much_is_written() {
    let world = World::new();
    let quiet = life(&world, &[], &[("RUST_LOG", "error")]);
    assert!(!quiet.stderr.contains("started"), "{quiet:#?}");
    let loud = life(&world, &[], &[("RUST_LOG", "debug")]);
    assert!(loud.stderr.lines().count() > quiet.stderr.lines().count());

    let daemon = world.run_with(YAML, |start| {
        start.words_behind(["--log-level", "error"]);
    });
    world.puppet();
    daemon.stop();
    assert!(!daemon.finish().stderr.contains("started"));
}

// However short a life is, its beginning can be matched with what the process itself wrote.
#[test]
fn every_start_is_logged_with_its_pid_even_of_a_process_that_has_ended_since() {
    const COUNT: usize = 50;
    let world = World::new();
    let daemon = world.run(&format!(
        "
workers:
  short: {{ command: [$PROBE, exit, 0], instances: {COUNT}, restart: {{ policy: never }} }}
"
    ));
    for line in daemon.lines(&["short.", "started"], COUNT) {
        assert!(line.contains("pid "), "{line}");
    }
    daemon.stop();
}
