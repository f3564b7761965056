//! Where what workers write goes: `output`.

use crate::harness::{
    Daemon, World, client, container, descriptors, eventually, exists, require_root, resident_kib,
    settled, skip,
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{OpenOptionsExt, chown, symlink};
use std::path::Path;

const JOURNAL: &str = "/run/systemd/journal/stdout";

fn mkfifo(world: &World, name: &str) {
    let mode = nix::sys::stat::Mode::S_IRWXU;
    nix::unistd::mkfifo(&world.path(name), mode).expect("mkfifo");
}

/// Starts listend with its standard output in `$DIR/out`, a FIFO that nobody reads yet.
fn run_into_fifo(world: &World, yaml: &str) -> (Daemon, BufReader<File>) {
    mkfifo(world, "out");
    let flags = nix::libc::O_NONBLOCK;
    let mut options = File::options();
    // Opening a FIFO waits for the other end (fifo(7)).
    let reader = options
        .read(true)
        .custom_flags(flags)
        .open(world.path("out"));
    let reader = reader.expect("open the FIFO");
    let daemon = world.run_with(yaml, |start| {
        start.through(["sh", "-c", "exec \"$0\" \"$@\" >$DIR/out"]);
    });
    daemon.line(&["bound in"]);
    nix::fcntl::fcntl(&reader, nix::fcntl::F_SETFL(nix::fcntl::OFlag::empty())).expect("fcntl");
    (daemon, BufReader::new(reader))
}

/// The lines of standard output with this in front, without it.
fn said<'a>(stdout: &'a str, tag: &str) -> Vec<&'a str> {
    stdout
        .lines()
        .filter_map(|line| line.strip_prefix(tag))
        .collect()
}

// Rule: "each line prefixed with `app.1`". Lines are those of their writers, not those of reads.
#[test]
fn lines_of_instances_are_tagged_and_not_mixed() {
    let world = World::new();
    let daemon = world.run(
        "
workers:
  app: { command: [$PROBE, puppet, $EVENTS], instances: 2, output: tag }
",
    );
    let mut puppets = world.puppets(2);
    puppets.sort_by_key(|puppet| puppet.pid());
    for puppet in &mut puppets {
        assert_eq!(puppet.ask("write 1 half a line,"), "12");
    }
    for puppet in &mut puppets {
        let text = format!("line 2  and the rest of {}", puppet.pid());
        assert!(!puppet.ask(&text).starts_with("error"));
        // Both are the same pipe, so what was written first comes first.
        puppet.ask("line 1 first");
        puppet.ask("line 2 second");
        puppet.ask("line 1 \u{1b}[31mthird");
    }
    daemon.signal(Signal::SIGTERM);
    let finished = daemon.finish().expect_code(0);
    assert!(!finished.stderr.contains("half"), "{finished:#?}");
    let mut rests = Vec::new();
    for tag in ["app.0 | ", "app.1 | "] {
        let lines = said(&finished.stdout, tag);
        rests.push(lines[0].to_owned());
        assert_eq!(lines[1..], ["first", "second", "\u{1b}[31mthird"]);
    }
    rests.sort();
    let mut wanted: Vec<String> = puppets
        .iter()
        .map(|puppet| format!("half a line, and the rest of {}", puppet.pid()))
        .collect();
    wanted.sort();
    assert_eq!(rests, wanted);
    assert_eq!(finished.stdout.lines().count(), 8, "{finished:#?}");
}

// Rule: "Lines longer than 16 KiB are cut into pieces marked as continued; a last line without
// newline is shown at the end".
#[test]
fn a_long_line_comes_in_marked_pieces() {
    let world = World::new();
    let daemon = world.run(
        "
workers:
  app:
    command: [sh, -c, 'head -c 40000 /dev/zero | tr \"\\0\" x; echo; printf end']
    output: tag
    restart: never
",
    );
    daemon.line(&["app.0", "exited with exit status 0"]);
    daemon.stop();
    let stdout = daemon.finish().stdout;
    let wanted = format!(
        "app.0 | {}\napp.0 + {}\napp.0 + {}\napp.0 | end\n",
        "x".repeat(16384),
        "x".repeat(16384),
        "x".repeat(40000 - 2 * 16384)
    );
    assert!(stdout == wanted, "{} bytes", stdout.len());
}

// Rule: "JSON lines on request".
#[test]
fn json_lines_are_objects() {
    let world = World::new();
    let daemon = world.run(
        "
workers:
  app: { command: [printf, 'a \"b\"\\tc\\n\\377\\n'], output: tag-json, restart: never }
",
    );
    daemon.line(&["app.0", "exited with exit status 0"]);
    daemon.stop();
    let stdout = daemon.finish().stdout;
    let parse = |line: &str| serde_json::from_str::<Value>(line).expect(line);
    let mut objects: Vec<Value> = stdout.lines().map(parse).collect();
    for object in &mut objects {
        // RFC 3339 in UTC, with milliseconds.
        let time = object["time"].take();
        let time = time.as_str().expect("a time");
        assert!(
            time.len() == 24 && time.starts_with("20") && time.ends_with('Z'),
            "{time}"
        );
    }
    let object = |message: &str| json!({"time": null, "worker": "app", "instance": "app.0", "message": message});
    assert_eq!(objects, [object("a \"b\"\tc"), object("\u{fffd}")]);
}

// Rule: "when an instance with output: tag crashes or fails, the log line of the failure adds its
// last line(s)".
#[test]
fn a_crash_is_told_with_the_last_words() {
    let world = World::new();
    let daemon = world.run(
        "
workers:
  app:
    command: [sh, -c, 'echo 1; echo 2; echo; echo 3; printf \"no\\033newline\" >&2; exit 3']
    output: tag
    restart: { backoff: 10ms..20ms, limit: 2 in 60s }
  file: { command: [sh, -c, 'echo kept; exit 4'], output: 'file:$DIR/log', restart: { backoff: 1m } }
  quiet: { command: [sh, -c, 'echo hidden; exit 5'], restart: { backoff: 1m } }
  well: { command: [sh, -c, 'echo fine'], output: tag, restart: never }
",
    );
    let words = "last output: \"2\", \"3\", \"no^[newline\"";
    daemon.line(&["app.0", "exit status 3", "restarting in", words]);
    daemon.line(&["app.0", "exit status 3", "too many crashes", words]);
    daemon.line(&["file.0", "exit status 4", "last output: \"kept\""]);
    assert!(
        !daemon
            .line(&["quiet.0", "exit status 5"])
            .contains("last output")
    );
    assert!(
        !daemon
            .line(&["well.0", "exit status 0"])
            .contains("last output")
    );
    daemon.stop();
}

// Rule: "The end of the pipe may come long after the process (grandchildren hold it)".
#[test]
fn what_a_grandchild_writes_later_is_read_as_well() {
    let world = World::new();
    mkfifo(&world, "go");
    let daemon = world.run(
        "
workers:
  app:
    command:
      - sh
      - -c
      - |
        setsid --fork sh -c 'echo $$ >$DIR/new; mv $DIR/new $DIR/pid; read x <$DIR/go; echo late $x'
        until [ -e $DIR/pid ]; do :; done
        echo early
    output: tag
    restart: never
",
    );
    daemon.line(&["app.0", "exited with exit status 0"]);
    let pid = fs::read_to_string(world.path("pid")).expect("a pid");
    let with_pipe = crate::harness::settled_descriptors(daemon.pid());
    let mut go = File::options()
        .write(true)
        .open(world.path("go"))
        .expect("open the FIFO");
    writeln!(go, "words").expect("write to the FIFO");
    eventually("the grandchild is gone", || {
        !exists(pid.trim().parse().expect("a pid"))
    });
    eventually("its pipe is closed", || {
        descriptors(daemon.pid()) == with_pipe - 1
    });
    daemon.stop();
    assert_eq!(
        daemon.finish().stdout,
        "app.0 | early\napp.0 | late words\n"
    );
}

// Rule: "A worker that floods its log slows itself, never the daemon".
#[test]
fn a_flood_keeps_nobody_else_waiting() {
    let world = World::new();
    let (daemon, reader) = run_into_fifo(
        &world,
        "
listeners: { web: '127.0.0.1:0' }
workers:
  flood: { command: [yes, to everything], output: tag, stop_timeout: 10s }
  deluge: { command: [yes], output: tag-json, stop_timeout: 10s }
  quiet: { command: [$PROBE, puppet, $EVENTS], output: tag }
  web: { command: [$PROBE, serve], listeners: [web] }
",
    );
    let mut puppet = world.puppet();
    let mut lines = reader.split(b'\n').map(|line| line.expect("read the FIFO"));
    assert!(lines.any(|line| line == b"flood.0 | to everything"));
    puppet.ask("line 1 hello");
    assert!(lines.any(|line| line == b"quiet.0 | hello"));
    client::ask_tcp(daemon.address("web"));
    let is_json = |line: &Vec<u8>| serde_json::from_slice::<Value>(line).is_ok();
    assert!(lines.any(|line| is_json(&line)));
    assert!(resident_kib(daemon.pid()) < 64 * 1024);
    daemon.signal(Signal::SIGTERM);
    // Somebody reads what is left, until the end.
    lines.for_each(drop);
    assert_eq!(daemon.finish().code, Some(0));
}

#[test]
fn a_reader_that_does_not_read_stops_the_writer_and_nobody_else() {
    const COUNT: usize = 100_000;
    let world = World::new();
    let (daemon, reader) = run_into_fifo(
        &world,
        &"
listeners: { web: '127.0.0.1:0' }
workers:
  app: { command: [sh, -c, 'seq 1 COUNT; exec $PROBE puppet $EVENTS'], output: tag }
  file: { command: [$PROBE, say, written], output: 'file:$DIR/log' }
  web: { command: [$PROBE, serve], listeners: [web] }
"
        .replace("COUNT", &COUNT.to_string()),
    );
    client::ask_tcp(daemon.address("web"));
    let log = world.path("log");
    eventually("the file is written", || {
        fs::read_to_string(&log).is_ok_and(|text| text.lines().count() == 2)
    });
    // It waits for the reader, and does not ask again and again.
    settled(daemon.pid());
    assert!(world.no_puppet_is_waiting(), "the writer waits");
    client::ask_tcp(daemon.address("web"));
    let mut lines = reader.lines().map(|line| line.expect("read the FIFO"));
    for number in 1..=COUNT {
        assert_eq!(lines.next(), Some(format!("app.0 | {number}")));
    }
    let mut puppet = world.puppet();
    puppet.ask("line 2 last");
    assert_eq!(lines.next().as_deref(), Some("app.0 | last"));
    daemon.stop();
}

// Whoever started listend may go away, as `listend run | head` does.
#[test]
fn a_reader_that_goes_away_stops_nobody() {
    let world = World::new();
    let (daemon, reader) = run_into_fifo(
        &world,
        "
workers:
  app: { command: [$PROBE, puppet, $EVENTS], output: tag }
",
    );
    let mut puppet = world.puppet();
    drop(reader);
    puppet.ask("line 1 to nobody");
    daemon.line(&["no longer shown", "EPIPE"]);
    puppet.ask("line 1 last");
    puppet.tell("exit 3");
    daemon.line(&["exit status 3", "last output: \"to nobody\", \"last\""]);
    world.puppet();
    daemon.stop();
}

// With a connection on 0 and 1, the log is 2 alone.
#[test]
fn of_a_connection_by_inetd_standard_error_is_tagged() {
    let world = World::new();
    let daemon = world.run(
        "
listeners: { web: '127.0.0.1:0' }
workers:
  app:
    command: [sh, -c, 'read x; echo \"note $x\" >&2; echo \"answer $x\"']
    listeners: [web]
    activation: per-connection
    handoff: inetd
    output: tag
",
    );
    let address = daemon.address("web");
    settled(daemon.pid());
    let before = crate::harness::settled_descriptors(daemon.pid());
    for number in 0..3 {
        let stream = client::tcp(address).expect("connect");
        client::converse(
            stream,
            &format!("{number}\n"),
            &format!("answer {number}\n"),
        );
    }
    // The epoll set of all pipes stays.
    eventually("their pipes are closed", || {
        descriptors(daemon.pid()) == before + 1
    });
    daemon.stop();
    let stdout = daemon.finish().stdout;
    let mut notes: Vec<&str> = stdout
        .lines()
        .filter_map(|line| line.split(" | ").nth(1))
        .collect();
    notes.sort_unstable();
    assert_eq!(notes, ["note 0", "note 1", "note 2"], "{stdout}");
}

// Rule: "`file:/path` (reopened …)": all who write to it go on in the new one.
#[test]
fn a_renamed_file_is_opened_again_when_a_worker_starts() {
    let world = World::new();
    let daemon = world.run(
        "
workers:
  app:
    command: [$PROBE, puppet, $EVENTS]
    instances: 2
    output: file:$DIR/log
    restart: { backoff: 10ms..20ms }
",
    );
    let mut puppets = world.puppets(2);
    let read = |name: &str| fs::read_to_string(world.path(name)).unwrap_or_default();
    puppets[0].ask("line 1 one");
    eventually("it is written", || read("log") == "one\n");
    fs::rename(world.path("log"), world.path("log.1")).expect("rename");
    puppets[0].ask("line 1 two");
    eventually("the old one is written", || read("log.1") == "one\ntwo\n");
    puppets.remove(1).tell("exit 1");
    let mut third = world.puppet();
    puppets[0].ask("line 1 three");
    eventually("the new one is written", || read("log") == "three\n");
    third.ask("line 1 four");
    eventually("by both", || read("log") == "three\nfour\n");
    assert_eq!(read("log.1"), "one\ntwo\n");
    daemon.stop();
}

#[test]
fn a_file_that_cannot_be_opened_is_told_and_tried_again() {
    let world = World::new();
    let daemon = world.run(
        "
workers:
  app:
    command: [$PROBE, say, text]
    output: file:$DIR/folder/log
    restart: { backoff: 10ms..20ms, limit: none }
",
    );
    let path = world.path("folder/log");
    let name = path.to_str().expect("UTF-8");
    daemon.line(&[
        "app.0: failed while setting up standard input and output",
        name,
        "ENOENT",
    ]);
    fs::create_dir(world.path("folder")).expect("create a folder");
    daemon.line(&["app.0: started"]);
    eventually("both lines are there", || {
        fs::read_to_string(&path).is_ok_and(|text| text == "text on stdout\ntext on stderr\n")
    });
    daemon.stop();
}

// A worker whose user owns the folder of its log decides what is there when it starts again.
#[test]
fn a_log_in_a_folder_of_the_worker_is_not_written_through_a_link() {
    const NOBODY: u32 = 65_534;
    if !require_root() {
        return;
    }
    let world = World::new();
    fs::create_dir(world.path("logs")).expect("create a folder");
    chown(world.path("logs"), Some(NOBODY), Some(NOBODY)).expect("chown");
    world.write("secret", "root's\n");
    let daemon = world.run(
        "
workers:
  app:
    command: [/bin/sh, -c, 'echo text; exit 1']
    user: nobody
    output: file:$DIR/logs/app.log
    restart: { backoff: 20ms..20ms, limit: none }
",
    );
    let log = world.path("logs/app.log");
    let is_written = || fs::read_to_string(&log).is_ok_and(|log| log.starts_with("text\n"));
    eventually("it is written", is_written);
    for target in ["secret", "/dev/zero"] {
        symlink(world.path(target), world.path("link")).expect("link");
        fs::rename(world.path("link"), &log).expect("rename");
        daemon.line(&[
            "app.0: failed while setting up standard input and output",
            "logs/app.log is a symbolic link that",
            "can change, and is not followed",
        ]);
        fs::remove_file(&log).expect("remove");
        eventually("it is written again", is_written);
    }
    assert_eq!(fs::read(world.path("secret")).expect("read"), b"root's\n");
    daemon.stop();
}

#[test]
fn without_a_journal_a_worker_writes_where_listend_does() {
    if Path::new(JOURNAL).exists() {
        return skip("this machine has a journal");
    }
    let world = World::new();
    let yaml = "
workers:
  app: { command: [$PROBE, say, words], output: journal }
";
    let daemon = world.run(yaml);
    daemon.line(&["WARN", "app.0", JOURNAL, "ENOENT"]);
    daemon.line(&["words on stderr"]);
    daemon.stop();
    let check = world.check(yaml, &["--json"]).expect_code(0).json();
    let codes = check["advice"].as_array().expect("advice");
    let codes = codes
        .iter()
        .map(|advice| advice["kind"].as_str().expect("a kind"));
    assert!(
        codes.into_iter().any(|code| code == "no-journal"),
        "{check:#}"
    );
}

// sd_journal_stream_fd(3) and systemd.exec(5), by a real journal.
#[test]
fn the_journal_gets_lines_with_their_priority_and_the_instance_as_their_identifier() {
    let Some(container) = container::boot_with_listend() else {
        return;
    };
    container.write(
        "/etc/listend.yaml",
        "
workers:
  app:
    command: [sh, -c, 'echo plain; echo \"<3>bad\" >&2; exec /opt/probe report /run/report-{instance}']
    instances: 2
    output: journal
",
    );
    container.run([
        "systemd-run",
        "--unit=under-test",
        "/opt/listend",
        "run",
        "-c",
        "/etc/listend.yaml",
    ]);
    eventually("both have reported", || {
        ["/run/report-0", "/run/report-1"]
            .iter()
            .all(|path| container.read(path).is_some())
    });
    container.run(["journalctl", "--sync"]);
    for index in 0..2 {
        let report = container
            .read(&format!("/run/report-{index}"))
            .expect("a report");
        let report: crate::harness::Report = serde_json::from_str(&report).expect("JSON");
        let name = format!("app.{index}");
        let entries = container.run(["journalctl", "-o", "json", "-t", &name]);
        let entries = entries
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"));
        let fields = |entry: &Value| {
            ["MESSAGE", "PRIORITY", "_PID", "_TRANSPORT", "_SYSTEMD_UNIT"]
                .map(|name| entry[name].as_str().unwrap_or_default().to_owned())
        };
        let entries: Vec<_> = entries.map(|entry| fields(&entry)).collect();
        let pid = report.pid.to_string();
        let entry = |text: &str, priority: &str| {
            [text, priority, &pid, "stdout", "under-test.service"].map(str::to_owned)
        };
        assert_eq!(entries, [entry("plain", "6"), entry("bad", "3")]);
        let streams = [1, 2].map(|fd| &report.fds[fd].target);
        let inode = streams[0]
            .trim_start_matches("socket:[")
            .trim_end_matches(']');
        assert_eq!(streams[0], streams[1]);
        let variable = report.env.get("JOURNAL_STREAM").expect("JOURNAL_STREAM");
        assert_eq!(variable.rsplit(':').next(), Some(inode));
    }
    let own = container.run([
        "journalctl",
        "-o",
        "cat",
        "-u",
        "under-test",
        "-t",
        "listend",
    ]);
    assert!(
        own.contains("app.0: started") && !own.contains("plain"),
        "{own}"
    );
}
