//! What listend writes, and for whom.

use crate::harness::varlink::{self, Varlink};
use crate::harness::{
    DEADLINE, Daemon, Finished, World, container, eventually, is_root, require_tool, skip,
};
use nix::sys::signal::Signal;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use serde_json::json;
use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::io::{IoSliceMut, Read};
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

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
    life_with(world, prefix, variables, &[])
}

fn life_with(
    world: &World,
    prefix: &[&str],
    variables: &[(&str, &str)],
    words: &[&str],
) -> Finished {
    let daemon = world.run_with(YAML, |start| {
        start.through(prefix.iter().copied());
        for (name, value) in variables {
            start.env(name, value);
        }
        start.words_behind(words.iter().copied());
    });
    let mut puppet = world.puppet();
    puppet.tell("exit 3");
    let _second = world.puppet();
    daemon.stop();
    daemon.finish()
}

/// Behind these words standard error is the stream to the journal.
const STREAM: &[&str] = &["$PROBE", "launch", "--journal", "--"];
/// Behind these, it leads nowhere.
const NOWHERE: &[&str] = &["sh", "-c", "exec \"$@\" 2>/dev/null", "sh"];

/// In this mount namespace, /run and /dev/log are the test's own: `$DIR/run` and `$DIR/log`.
const ALONE: &str = "
set -e
mkdir -p $DIR/run/systemd/journal $DIR/dev
mount -t tmpfs tmpfs $DIR/dev
for node in null zero full random urandom tty; do
    : > $DIR/dev/$node
    mount --bind /dev/$node $DIR/dev/$node
done
ln -s /proc/self/fd $DIR/dev/fd
ln -s $DIR/log $DIR/dev/log
mount --rbind $DIR/dev /dev
mount --rbind $DIR/run /run
exec \"$@\"
";

/// The words that put the next program there, if that is allowed here.
fn alone() -> Option<Vec<&'static str>> {
    require_tool("unshare")?;
    let mut words = vec!["unshare", "--mount"];
    if !is_root() {
        words.extend(["--user", "--map-root-user"]);
    }
    let mut tried = Command::new(words[0]);
    tried
        .args(&words[1..])
        .args(["mount", "--bind", "/dev", "/dev"]);
    let status = tried.stderr(Stdio::null()).status();
    if !status.is_ok_and(|status| status.success()) {
        skip("no mount namespace to be had");
        return None;
    }
    words.extend(["sh", "-c", ALONE, "sh"]);
    Some(words)
}

/// One entry of the journal.
type Entry = BTreeMap<String, String>;

/// A journal or a syslog daemon, until it is dropped.
struct Listening<T> {
    got: Receiver<T>,
    path: std::path::PathBuf,
}

impl<T: Send + std::fmt::Debug + 'static> Listening<T> {
    fn at(path: &Path, read: fn(&UnixDatagram) -> Option<T>) -> Listening<T> {
        fs::create_dir_all(path.parent().expect("a folder")).expect("create a folder");
        let socket = UnixDatagram::bind(path).expect("bind");
        let (send, got) = channel();
        std::thread::spawn(move || {
            while let Some(message) = read(&socket) {
                if send.send(message).is_err() {
                    return;
                }
            }
        });
        let path = path.to_owned();
        Listening { got, path }
    }

    /// Waits for one like this.
    #[track_caller]
    fn until(&self, is_wanted: impl Fn(&T) -> bool) -> T {
        let mut others = Vec::new();
        loop {
            match self.got.recv_timeout(DEADLINE) {
                Ok(message) if is_wanted(&message) => return message,
                Ok(message) => others.push(message),
                Err(error) => panic!("{error}; only {others:#?}"),
            }
        }
    }
}

impl<T> Drop for Listening<T> {
    fn drop(&mut self) {
        // Ends its thread, and with it the socket.
        let waker = UnixDatagram::unbound().expect("a socket");
        let _gone = waker.send_to(b"end", &self.path);
        let _gone = fs::remove_file(&self.path);
    }
}

fn journal(world: &World) -> Listening<Entry> {
    Listening::at(&world.path("run/systemd/journal/socket"), |socket| {
        loop {
            match receive(socket).as_slice() {
                b"end" => return None,
                // The end of an entry without fields: nothing, for the journal.
                b"\n" => {}
                bytes => return Some(fields(bytes)),
            }
        }
    })
}

/// systemd.io/JOURNAL_NATIVE_PROTOCOL: a datagram, or a memfd in one that is empty.
fn receive(socket: &UnixDatagram) -> Vec<u8> {
    let mut buffer = vec![0; 256 << 10];
    let mut space = nix::cmsg_space!(i32);
    let mut parts = [IoSliceMut::new(&mut buffer)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut space), flags);
    let message = message.expect("recvmsg");
    for control in message.cmsgs().expect("room for one") {
        if let ControlMessageOwned::ScmRights(fds) = control {
            let text = fs::read(format!("/proc/self/fd/{}", fds[0])).expect("read the memfd");
            nix::unistd::close(fds[0]).expect("close");
            return text;
        }
    }
    let length = message.bytes;
    buffer.truncate(length);
    buffer
}

fn fields(mut bytes: &[u8]) -> Entry {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
    let mut fields = Entry::new();
    while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
        let (line, rest) = (&bytes[..end], &bytes[end + 1..]);
        if let Some(equals) = line.iter().position(|byte| *byte == b'=') {
            fields.insert(text(&line[..equals]), text(&line[equals + 1..]));
            bytes = rest;
        } else {
            let (length, rest) = rest.split_first_chunk().expect("a length");
            let length = u64::from_le_bytes(*length) as usize;
            fields.insert(text(line), text(&rest[..length]));
            assert_eq!(rest[length], b'\n');
            bytes = &rest[length + 1..];
        }
    }
    assert!(bytes.is_empty(), "the end of {fields:?}");
    fields
}

fn syslog(world: &World) -> Listening<String> {
    Listening::at(&world.path("log"), |socket| {
        let line = String::from_utf8(receive(socket)).expect("UTF-8");
        (line != "end").then_some(line)
    })
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
fn on_the_stream_to_the_journal_every_line_starts_with_its_priority() {
    // Once by choice, and once as nobody is at the journal's socket.
    for choice in ["stderr", "auto"] {
        let world = World::new();
        let Some(alone) = alone() else { return };
        let prefix = [&alone[..], STREAM].concat();
        let finished = life_with(&world, &prefix, &[], &["--log-to", choice]);
        every_line_has_its_priority(&finished);
    }
}

fn every_line_has_its_priority(finished: &Finished) {
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

#[test]
fn the_journal_gets_entries_that_say_what_they_are_about() {
    let Some(alone) = alone() else { return };
    let world = World::new();
    let journal = journal(&world);
    let daemon = world.run_with(YAML, |start| {
        start.through([&alone[..], STREAM].concat());
    });
    let mut puppet = world.puppet();
    let pid = puppet.report.pid.to_string();
    let is_about =
        |entry: &Entry, event: &str| entry.get("LISTEND_EVENT").map(String::as_str) == Some(event);
    let started = journal.until(|entry| is_about(entry, "instance-started"));
    assert_eq!(started["LISTEND_PID"], pid);
    puppet.tell("exit 3");
    let exited = journal.until(|entry| is_about(entry, "instance-exited"));
    let wanted = [
        ("PRIORITY", "4"),
        ("SYSLOG_IDENTIFIER", "listend"),
        ("LISTEND_WORKER", "app"),
        ("LISTEND_INSTANCE", "app.0"),
        ("LISTEND_GENERATION", "1"),
    ];
    for (name, value) in wanted {
        assert_eq!(
            exited.get(name).map(String::as_str),
            Some(value),
            "{exited:#?}"
        );
    }
    assert!(exited["MESSAGE"].contains("exit status 3"), "{exited:#?}");
    assert!(!exited.contains_key("LISTEND_LISTENER"), "{exited:#?}");
    let _second = world.puppet();
    daemon.stop();
    let stopped = journal.until(|entry| is_about(entry, "all-stopped"));
    assert_eq!(stopped["PRIORITY"], "6");
    let finished = daemon.finish();
    assert!(finished.stderr.is_empty(), "{finished:#?}");
}

#[test]
fn why_a_start_failed_is_one_entry_for_each_problem_however_long() {
    let Some(alone) = alone() else { return };
    let world = World::new();
    let journal = journal(&world);
    let taken = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = taken.local_addr().expect("an address");
    let start = |yaml: &str| {
        let daemon = world.run_with(yaml, |start| {
            start.through([&alone[..], STREAM].concat());
            // What stops a start is told at any level.
            start.words_behind(["--log-level", "off"]);
        });
        daemon.finish()
    };
    let finished = start(&format!("listeners: {{ web: '{address}' }}"));
    assert_eq!((finished.code, &*finished.stderr), (Some(69), ""));
    let failed = journal.until(|entry| entry.contains_key("LISTEND_PROBLEM"));
    assert_eq!(failed["LISTEND_PROBLEM"], "EADDRINUSE");
    assert_eq!(failed["LISTEND_LISTENER"], "web");
    assert_eq!(
        (&*failed["PRIORITY"], failed["MESSAGE_ID"].len()),
        ("3", 32)
    );
    let lines: Vec<&str> = failed["MESSAGE"].lines().collect();
    assert!(lines[0].contains("error: "), "{lines:#?}");
    assert!(
        lines.iter().any(|line| line.contains("cause: ")),
        "{lines:#?}"
    );

    // More than any datagram holds: it is shown by its two ends.
    let long = "x".repeat(300_000);
    let finished = start(&format!(
        "listeners: {{ web: {{ address: '{address}', {long}: 1 }} }}"
    ));
    assert_eq!((finished.code, &*finished.stderr), (Some(78), ""));
    let failed = journal.until(|entry| entry.contains_key("LISTEND_PROBLEM"));
    assert!(
        failed["MESSAGE"].contains("xxx…xxx"),
        "{} bytes",
        failed["MESSAGE"].len()
    );
}

// unix(7): a datagram blocks, or is EAGAIN, while the receiver's queue is full.
#[test]
fn a_journal_that_hangs_holds_up_nothing() {
    let Some(alone) = alone() else { return };
    let world = World::new();
    let path = world.path("run/systemd/journal/socket");
    fs::create_dir_all(path.parent().expect("a folder")).expect("create a folder");
    let _hangs = UnixDatagram::bind(path).expect("bind");
    // net.unix.max_dgram_qlen is 10, or 512 where systemd runs; there are two entries for each.
    let yaml = "
workers:
  short:
    command: [$PROBE, exit, 3]
    instances: 300
    restart: { policy: never }
";
    let daemon = world.run_with(yaml, |start| {
        start.through([&alone[..], STREAM].concat());
    });
    // They have gone where there is room.
    let line = daemon.line(&["short.", "exit status 3"]);
    assert!(priority(&line) <= Some(4), "{line}");
    daemon.stop();
    assert_eq!(daemon.finish().code, Some(0));
}

#[test]
fn syslog_gets_what_nobody_would_read_and_may_restart() {
    let Some(alone) = alone() else { return };
    let world = World::new();
    let first = syslog(&world);
    // No journal: not even its folder.
    let daemon = world.run_with(YAML, |start| {
        start.through([&alone[..], NOWHERE].concat());
    });
    let mut puppet = world.puppet();
    let started = first.until(|line| line.contains("app.0: started"));
    // RFC 3164: facility 3 (daemon), severity 6; "Mmm dd hh:mm:ss".
    let rest = started.strip_prefix("<30>").expect("a priority");
    let (stamp, rest) = rest.split_at(16);
    assert!(
        stamp.ends_with(' ') && stamp.as_bytes()[9] == b':',
        "{started}"
    );
    assert!(
        rest.starts_with(&format!("listend[{}]: ", daemon.pid())),
        "{started}"
    );
    drop(first);
    // Nobody takes this one.
    puppet.tell("exit 3");
    let mut puppet = world.puppet();
    let second = syslog(&world);
    puppet.tell("exit 4");
    let lost = second.until(|line| line.contains("lost"));
    assert!(lost.starts_with("<28>"), "{lost}");
    let exited = second.until(|line| line.contains("exit status 4"));
    assert!(exited.starts_with("<28>"), "{exited}");
    let _third = world.puppet();
    daemon.stop();
    assert_eq!(daemon.finish().code, Some(0));
    second.until(|line| line.contains("all workers stopped"));
}

#[test]
fn syslog_gets_why_a_start_failed_where_standard_error_is_closed() {
    let Some(alone) = alone() else { return };
    let world = World::new();
    let syslog = syslog(&world);
    let daemon = world.run_with("listeners: { web: nonsense }", |start| {
        let closed = ["sh", "-c", "exec \"$@\" 2>&-", "sh"];
        start.through([&alone[..], &closed].concat());
    });
    daemon.finish().expect_code(78);
    // A line of its own for each of the explanation.
    let problem = syslog.until(|line| line.contains("error: "));
    assert!(
        problem.starts_with("<27>") && !problem.contains('\n'),
        "{problem}"
    );
    syslog.until(|line| line.contains("hint: "));
    syslog.until(|line| line.contains("nothing was started"));
}

#[test]
fn who_gets_the_log_can_be_chosen_and_has_to_be_there() {
    let Some(alone) = alone() else { return };
    for (choice, path) in [
        ("journal", "/run/systemd/journal/socket"),
        ("syslog", "/dev/log"),
    ] {
        let world = World::new();
        let refused = world.run_with(YAML, |start| {
            start.through(alone.iter().copied());
            start.words_behind(["--log-to", choice]);
        });
        let refused = refused.finish().expect_code(69);
        for words in [path, "ENOENT", "choose auto"] {
            assert!(refused.stderr.contains(words), "{refused:#?}");
        }
    }
    let world = World::new();
    let (journal, syslog) = (journal(&world), syslog(&world));
    let told = life_with(&world, &alone, &[], &["--log-to", "syslog"]);
    assert!(told.stderr.is_empty(), "{told:#?}");
    syslog.until(|line| line.contains("all workers stopped"));
    let told = life_with(&world, &alone, &[], &["--log-to", "journal"]);
    assert!(told.stderr.is_empty(), "{told:#?}");
    journal.until(|entry| entry["MESSAGE"].contains("all workers stopped"));
    // With a journal, who sends errors to /dev/null means it; who merely asks does so anyway.
    life(&world, &[&alone[..], NOWHERE].concat(), &[]);
    assert!(syslog.got.try_recv().is_err());
}

// journalctl(1), of a real journal: fields can be matched, and `-u` finds the entries of a process
// that has ended at once.
#[test]
fn journalctl_finds_entries_by_worker_and_by_unit() {
    let Some(container) = container::boot_with_listend() else {
        return;
    };
    container.write(
        "/etc/good.yaml",
        "workers: { app: { command: [/opt/probe, exit, 3], restart: { limit: 1 in 1h } } }",
    );
    container.write("/etc/bad.yaml", "listeners: { web: '203.0.113.1:80' }");
    for name in ["good", "bad"] {
        let (unit, file) = (format!("--unit={name}"), format!("/etc/{name}.yaml"));
        let words = ["systemd-run", &unit, "/opt/listend", "run", "-c", &file];
        container.output(words);
    }
    let entries = |words: &[&str]| -> Vec<serde_json::Value> {
        container.run(["journalctl", "--sync"]);
        let words = [&["journalctl", "-o", "json"], words].concat();
        let output = container.output(words).stdout;
        let lines = String::from_utf8(output).expect("UTF-8");
        let lines = lines.lines();
        lines
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect()
    };
    let failed = ["LISTEND_WORKER=app", "LISTEND_EVENT=worker-failed"];
    eventually("the worker has failed", || entries(&failed).len() == 1);
    let exits = entries(&["LISTEND_WORKER=app", "LISTEND_EVENT=instance-exited"]);
    for exit in exits.iter().chain(&entries(&failed)) {
        assert_eq!(exit["_SYSTEMD_UNIT"], "good.service", "{exit:#}");
        assert_eq!(exit["SYSLOG_IDENTIFIER"], "listend");
        assert_eq!(exit["_TRANSPORT"], "journal");
    }
    eventually("it has not started", || {
        entries(&["-u", "bad", "LISTEND_PROBLEM=EADDRNOTAVAIL"]).len() == 1
    });
    let told = entries(&["-u", "bad", "-p", "err", "-t", "listend"]);
    let message = told[0]["MESSAGE"].as_str().unwrap_or_default();
    assert!(
        message.contains("203.0.113.1") && message.contains('\n'),
        "{told:#?}"
    );
    assert_eq!(told[0]["LISTEND_LISTENER"], "web");
    assert!(
        told.len() == 2,
        "the problem, and that nothing was started: {told:#?}"
    );
}

// --- A standard error that nobody reads ----------------------------------------------------------

const QUIET: &str = "workers:\n  app: { command: [/bin/sleep, '1000'] }\n";

/// A configuration with so many mistakes that what is said of them is longer than a pipe has room
/// for at once (PIPE_BUF, pipe(7)).
fn full_of_mistakes() -> String {
    let workers = (0..100).map(|number| format!("  w{number}: {{ comand: x }}\n"));
    QUIET.to_owned() + &workers.collect::<String>()
}

/// Starts listend behind these words, and has it refuse a reload so many times.
fn refuses(world: &World, words: &[&str], times: usize) -> (Daemon, Varlink) {
    let control = varlink::words(world);
    let daemon = world.run_with(QUIET, |start| {
        start.through(words.iter().copied());
        start.words_behind(control.iter().map(String::as_str));
    });
    let mut client = Varlink::connect(world);
    world.write("listend.yaml", &full_of_mistakes());
    for _ in 0..times {
        let (error, _) = client.error("Reload", json!({}));
        assert_eq!(error, "NotReloaded");
    }
    (daemon, client)
}

/// Behind these words, standard error is a pipe, a socket or a terminal that nobody reads.
const PIPE: &str = "r, w = os.pipe(); os.dup2(w, 2)";
const SOCKET: &str = "r, w = socket.socketpair(); os.dup2(w.fileno(), 2); r.set_inheritable(True)";
const TERMINAL: &str = "r, w = pty.openpty(); os.dup2(w, 2); os.set_inheritable(r, True)";
/// The pipe is another user's, and cannot be opened again.
const FOREIGN: &str =
    "r, w = os.pipe(); os.fchmod(w, 0); os.dup2(w, 2); os.setgroups([]); os.setuid(65534)";

// listend(8): "Nothing of this ever holds up the daemon".
#[test]
fn standard_error_that_nobody_reads_holds_up_nothing() {
    require_tool("python3").expect("python3");
    for stream in [PIPE, SOCKET, TERMINAL, FOREIGN] {
        if stream == FOREIGN && !is_root() {
            skip("only root can become another user");
            continue;
        }
        let world = World::new();
        fs::set_permissions(world.dir(), Permissions::from_mode(0o777)).expect("chmod");
        let python = format!(
            "import os, pty, socket, sys\n{stream}\n\
             os.execv(sys.argv[1], sys.argv[1:])"
        );
        let (daemon, mut client) = refuses(&world, &["python3", "-c", &python], 20);
        assert_eq!(client.ask("Status", json!({}))["workers"][0]["name"], "app");
        daemon.stop();
    }
}

/// Starts listend with this FIFO as standard error, which is open for reading here.
fn into_fifo(world: &World, times: usize) -> (Daemon, Varlink, File) {
    let path = world.path("errors");
    let mode = nix::sys::stat::Mode::S_IRWXU;
    nix::unistd::mkfifo(&path, mode).expect("mkfifo");
    let mut options = File::options();
    // Opening a FIFO waits for the other end (fifo(7)).
    let options = options.read(true).custom_flags(nix::libc::O_NONBLOCK);
    let reader = options.open(&path).expect("open the FIFO");
    nix::fcntl::fcntl(&reader, nix::fcntl::F_SETFL(nix::fcntl::OFlag::empty())).expect("fcntl");
    let words = ["sh", "-c", "exec \"$0\" \"$@\" 2>$DIR/errors"];
    let (daemon, client) = refuses(world, &words, times);
    (daemon, client, reader)
}

fn all_of(mut reader: File) -> String {
    let mut text = String::new();
    reader.read_to_string(&mut text).expect("read");
    text
}

#[test]
fn a_reader_that_is_slow_misses_nothing() {
    let world = World::new();
    // A pipe has room for 64 KiB (pipe(7)); a record is about 30 KiB, with two mistakes a worker.
    let (daemon, _client, reader) = into_fifo(&world, 3);
    daemon.signal(Signal::SIGTERM);
    let text = all_of(reader);
    assert_eq!(daemon.status().code(), Some(0));
    for number in 0..100 {
        let found = text.matches(&format!("w{number}: {{")).count();
        assert_eq!(found, 6, "w{number}");
    }
    assert!(!text.contains("lost"), "{text}");
}

#[test]
fn what_nobody_reads_is_counted() {
    let world = World::new();
    let (daemon, _client, reader) = into_fifo(&world, 45);
    let reading = std::thread::spawn(move || all_of(reader));
    daemon.stop();
    let text = reading.join().expect("the reader");
    let told = "log lines were lost here: no reader";
    assert!(text.contains(told), "{text}");
}

#[test]
fn what_a_turn_has_to_say_is_written_at_once() {
    const INSTANCES: usize = 30;
    let Some(_strace) = require_tool("strace") else {
        return;
    };
    let world = World::new();
    let yaml =
        format!("workers: {{ app: {{ command: [/bin/sleep, '600'], instances: {INSTANCES} }} }}");
    let daemon = world.run(&yaml);
    daemon.lines(&["started, pid"], INSTANCES);
    let trace = world.path("trace");
    let mut strace = Command::new("strace")
        .args(["-q", "-e", "trace=write", "-s", "10000", "-o"])
        .arg(&trace)
        .args(["-p", &daemon.pid().to_string()])
        .stderr(Stdio::null())
        .spawn()
        .expect("start strace");
    let tracer = format!("TracerPid:\t{}", strace.id());
    eventually("the daemon is traced", || {
        let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid()));
        status.expect("it runs").lines().any(|line| line == tracer)
    });
    daemon.stop();
    strace.wait().expect("wait for strace");
    let trace = fs::read_to_string(&trace).expect("the trace");
    let told = |line: &str| line.matches("stopping with SIGTERM").count();
    let writes: Vec<usize> = trace.lines().map(told).filter(|told| *told > 0).collect();
    assert_eq!(writes, [INSTANCES], "{trace}");
}
