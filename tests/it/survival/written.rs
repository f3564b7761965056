//! What is written down, and when: the daemon is killed in the middle of a turn.

use super::{BLOWS, Blow, Guarded, asks, guarded, is_ready, puppets, snapshot_of, wait_for};
use crate::harness::reloading::{ask, state_of};
use crate::harness::{
    Puppet, World, children, client, eventually, exists, kill, require_root, require_tool, settled,
    state,
};
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Whether a daemon can be killed at a system call.
fn can_trace() -> bool {
    require_root() && require_tool("strace").is_some()
}

impl Guarded<'_> {
    /// The pid of the only worker, which listend has started itself.
    fn worker(&self) -> i32 {
        let told = self.guard.line(&["app.0: started, pid "]);
        let (_, pid) = told.rsplit_once(' ').expect("a pid");
        pid.trim().parse().expect("a pid")
    }

    /// From now on the daemon is killed when it makes this system call.
    fn doom(&self, call: &str) -> Child {
        self.doom_at(call, 1)
    }

    /// When it makes it for the so manieth time.
    fn doom_at(&self, call: &str, time: usize) -> Child {
        settled(self.daemon);
        let strace = Command::new("strace")
            .args(["-q", "-o", "/dev/null"])
            .args(["-e", &format!("trace={call}")])
            .args(["-e", &format!("inject={call}:signal=SIGKILL:when={time}")])
            .args(["-p", &self.daemon.to_string()])
            .stderr(Stdio::null())
            .spawn()
            .expect("start strace");
        eventually("the daemon is traced", || {
            let status = fs::read_to_string(format!("/proc/{}/status", self.daemon));
            let tracer = format!("TracerPid:\t{}", strace.id());
            status.expect("it runs").lines().any(|line| line == tracer)
        });
        strace
    }

    /// It is dead, and the next goes on.
    #[track_caller]
    fn is_followed(&mut self, mut strace: Child) {
        strace.wait().expect("wait for strace");
        self.daemon = self.next_daemon();
        self.goes_on();
    }
}

// Rule: what somebody has asked for is written down before any of it is done.
#[test]
fn what_is_asked_for_in_the_turn_of_a_kill_is_done() {
    if !can_trace() {
        return;
    }
    let world = World::new();
    let mut guarded = guarded(&world, &puppets("stop_timeout: 1h"));
    let mut puppet = world.puppet();
    is_ready(&mut puppet);
    wait_for(&world, "running");

    let strace = guarded.doom("clone,clone3");
    let scale = asks(&world, "scale app 2");
    guarded.is_followed(strace);
    let mut second = world.puppet();
    second.ask("notify READY=1");
    wait_for(&world, "running");
    drop(scale);

    let strace = guarded.doom("pidfd_send_signal");
    let stop = asks(&world, "stop app");
    guarded.is_followed(strace);
    for puppet in [&mut puppet, &mut second] {
        puppet.wait_for_its_end();
    }
    wait_for(&world, "stopped");
    assert!(world.no_puppet_is_waiting());
    drop(stop);

    let start = asks(&world, "start app");
    for mut puppet in world.puppets(2) {
        is_ready(&mut puppet);
        puppet.ask("drain");
        // It lives on.
        std::mem::forget(puppet);
    }
    drop(start);
    wait_for(&world, "running");
    // What was done is not done again.
    guarded.strike(Blow::Kill);
    assert_eq!(state_of(&world, "workers", "app"), "running");

    let strace = guarded.doom("pidfd_send_signal");
    // The daemon alone: of a stop the guard knows what to do.
    kill(guarded.daemon, Signal::SIGTERM);
    guarded.is_followed(strace);
    wait_for(&world, "stopping");
    kill(guarded.daemon, Signal::SIGTERM);
    assert_eq!(guarded.guard.status().code(), Some(0));
}

// Rule: a worker is started only when a successor would know of it.
#[test]
fn nothing_is_started_before_the_keeper_has_the_snapshot_and_the_sockets() {
    let world = World::new();
    let keeper = UnixDatagram::bind(world.path("keeper")).expect("bind");
    keeper.set_nonblocking(true).expect("fcntl");
    // It has no room.
    let other = UnixDatagram::unbound().expect("socket");
    other.set_nonblocking(true).expect("fcntl");
    while other.send_to(b"X=1", world.path("keeper")).is_ok() {}
    let yaml = "listeners: { web: '127.0.0.1:0' }
workers: { app: { command: [$PROBE, puppet, $EVENTS], listeners: [web] } }
";
    let daemon = world.run_with(yaml, |start| {
        start.env("NOTIFY_SOCKET", "$DIR/keeper");
        start.env("FDSTORE", "100");
    });
    daemon.line(&["bound in"]);
    let mut heard = String::new();
    let mut looks = 0;
    eventually("a worker is started", || {
        let is_started = !children(daemon.pid()).is_empty();
        looks += 1;
        // For a while, so that a worker would be there that does not wait.
        if is_started || looks > 20 {
            let mut buffer = [0; 4096];
            while let Ok(length) = keeper.recv(&mut buffer) {
                heard.push_str(&String::from_utf8_lossy(&buffer[..length]));
                heard.push('\n');
            }
        }
        is_started
    });
    for name in ["listend-snapshot", "l.0"] {
        let wanted = format!("FDSTORE=1\nFDNAME={name}\n");
        assert!(heard.contains(&wanted), "{name} is not kept: {heard}");
    }
    daemon.stop();
}

// Rule: what is started and not written down does not reach its program.
#[test]
fn a_worker_that_nothing_is_written_of_is_not_started() {
    if !can_trace() {
        return;
    }
    let world = World::new();
    let yaml = "listeners: { web: '127.0.0.1:0' }
workers:
  app:
    command: [$PROBE, heir, $EVENTS]
    listeners: [web]
    activation: on-demand
";
    let mut guarded = guarded(&world, yaml);
    let address = guarded.guard.address("web");
    // The first that it writes is that there is a process.
    let strace = guarded.doom("pwrite64");
    let _client = client::tcp(address).expect("connect");
    guarded.is_followed(strace);
    let puppet = world.puppet();
    eventually("nobody is left of the one before", || {
        children(guarded.guard_pid) == [guarded.daemon]
    });
    // Whoever closes something for it comes and goes.
    eventually("there is one worker", || {
        children(guarded.daemon) == [puppet.pid()]
    });
    assert!(world.no_puppet_is_waiting());
    guarded.stop();
}

// Rule: an answer means that it is written down.
#[test]
fn a_reload_that_somebody_was_told_of_is_in_force_after_a_kill() {
    if !can_trace() {
        return;
    }
    let world = World::new();
    let mut guarded = guarded(&world, &puppets("stop_timeout: 1h"));
    let mut puppet = world.puppet();
    is_ready(&mut puppet);
    wait_for(&world, "running");
    world.write("listend.yaml", &puppets("stop_timeout: 2h"));
    let strace = guarded.doom("pwrite64");
    let reload = asks(&world, "reload");
    let told = reload.status().code() == Some(0);
    guarded.is_followed(strace);
    let changed = asks(&world, "reload").finish().text();
    // Whoever is told nothing asks again.
    assert_eq!(changed.contains("stop_timeout"), !told, "{changed}");
    assert!(exists(puppet.pid()));
    guarded.stop();
}

// Only the deadline follows from one, and that begins anew.
#[test]
fn keep_alives_are_not_written_down() {
    let world = World::new();
    let guarded = guarded(&world, &puppets("watchdog: 1h"));
    let mut puppet = world.puppet();
    puppet.ask("notify READY=1|STATUS=well");
    wait_for(&world, "running");
    let read = || {
        settled(guarded.daemon);
        fs::read(snapshot_of(&guarded)).expect("the snapshot")
    };
    let before = read();
    for _ in 0..20 {
        puppet.ask("notify WATCHDOG=1");
        puppet.ask("notify WATCHDOG=1|STATUS=well");
    }
    assert!(read() == before);
    puppet.ask("notify WATCHDOG=1|STATUS=ill");
    assert!(ask(&world, "status app").stdout.contains("ill"));
    eventually("it is written", || {
        fs::read(snapshot_of(&guarded)).expect("the snapshot") != before
    });
    assert!(exists(puppet.pid()));
    guarded.stop();
}

/// The pid of the process that writes files.
fn writer_of(guarded: &Guarded<'_>) -> i32 {
    let mut found = None;
    eventually("there is a writer", || {
        let is_it = |pid: &i32| {
            let words = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            words.contains("__write")
        };
        found = children(guarded.daemon).into_iter().find(is_it);
        found.is_some()
    });
    found.expect("found")
}

// Rule: what nobody can take yet stays in the pipe, and half a line is written down.
#[test]
fn lines_that_the_writer_of_files_has_not_taken_are_not_lost() {
    let world = World::new();
    // One that is opened again may still have the writer of before.
    for name in ["go", "half", "rest"] {
        mkfifo(&world.path(name), Mode::S_IRWXU).expect("mkfifo");
    }
    let goes = |name| fs::write(world.path(name), "\n").expect("a reader");
    let yaml = "workers:
  app:
    command: [/bin/sh, '$DIR/talk']
    output: file:$DIR/log
";
    world.write_script(
        "talk",
        "#!/bin/sh\nread go < $DIR/go\ni=0\nwhile [ $i -lt 5000 ]; do\n  \
         echo \"line $i of many that are long enough not to have an end where a read has\"\n  \
         i=$((i+1))\ndone\nread go < $DIR/half\nprintf 'it goes '\nread go < $DIR/rest\necho on\n\
         exec sleep 1000\n",
    );
    let mut guarded = guarded(&world, yaml);
    guarded.guard.line(&["app.0: started"]);
    let writer = writer_of(&guarded);
    settled(writer);
    kill(writer, Signal::SIGSTOP);
    goes("go");
    let worker = guarded.worker();
    eventually("its pipe is full", || {
        let call = fs::read_to_string(format!("/proc/{worker}/wchan")).unwrap_or_default();
        call.contains("pipe_write")
    });
    guarded.strike(Blow::Kill);
    let next = writer_of(&guarded);
    settled(next);
    // It has no parent any more, and the kernel may have had it go on.
    let _gone = nix::sys::signal::kill(Pid::from_raw(writer), Signal::SIGCONT);
    let log = || fs::read_to_string(world.path("log")).unwrap_or_default();
    eventually("the last line is there", || log().contains("line 4999 "));
    eventually("all are written", || log().lines().count() >= 5000);
    let text = log();
    let mut lines: Vec<&str> = text.lines().collect();
    let number = |line: &&str| line.split(' ').nth(1).map(str::parse::<usize>);
    lines.sort_by_key(|line| number(line).map(Result::ok));
    for (at, line) in lines.iter().enumerate() {
        let wanted =
            format!("line {at} of many that are long enough not to have an end where a read has");
        assert_eq!(*line, wanted);
    }
    assert_eq!(lines.len(), 5000);
    goes("half");
    for blow in BLOWS {
        eventually("it waits", || {
            let call = fs::read_to_string(format!("/proc/{worker}/wchan")).unwrap_or_default();
            call.contains("wait_for_partner") || call.contains("fifo_open")
        });
        guarded.strike(blow);
    }
    goes("rest");
    eventually("the line is whole", || log().ends_with("it goes on\n"));
    guarded.stop();
}

// Rule: a line is passed on once, or lost, and never together with what does not follow it.
#[test]
fn no_line_is_passed_on_twice_wherever_listend_is_killed() {
    if !can_trace() {
        return;
    }
    // Before a turn that reads, while what it reads is written down, and when it is handed over.
    let moments = [
        ("read", 1),
        ("read", 2),
        ("pwrite64", 1),
        ("pwrite64", 2),
        ("pwrite64", 3),
        ("sendto", 1),
    ];
    for output in ["file:$DIR/log", "tag"] {
        for (call, time) in moments {
            if call == "sendto" && output == "tag" {
                continue;
            }
            let world = World::new();
            let mut guarded = guarded(&world, &puppets(&format!("output: {output}")));
            let mut puppet = world.puppet();
            is_ready(&mut puppet);
            wait_for(&world, "running");
            // All that is written, and the last line of it.
            let (mut all, mut number) = (String::new(), 0);
            let mut write = |words: &str, ends: bool| {
                number += 1;
                let words = format!("{words}-{number}-");
                let verb = if ends { "line" } else { "write" };
                puppet.ask(&format!("{verb} 1 {words}"));
                all.push_str(&words);
                all.push_str(if ends { "\n" } else { "" });
                words
            };
            write("half", false);
            let strace = guarded.doom_at(call, time);
            write("whole", true);
            write("half", false);
            eventually("it is killed", || {
                let is_dead = state(guarded.daemon).is_none_or(|state| state == 'Z');
                if !is_dead {
                    write("more", true);
                    write("half", false);
                }
                is_dead
            });
            guarded.is_followed(strace);
            write("rest", true);
            let last = write("last", true);
            let logged = || ask(&world, "logs app").stdout;
            eventually("the last line is read", || logged().contains(&last));
            guarded.stop();
            let log = match output {
                "tag" => guarded.guard.finish().stdout,
                _ => fs::read_to_string(world.path("log")).expect("read"),
            };
            // Behind the tag, if there is one.
            let lines = log.lines().filter_map(|line| line.rsplit(' ').next());
            let mut found = String::new();
            for line in lines.filter(|line| line.contains('-')) {
                let is_whole = all.lines().any(|one| one.contains(line));
                assert!(
                    is_whole,
                    "{call} {time} {output}: {line} of\n{all}in\n{log}"
                );
                found.push_str(line);
            }
            for number in 1..=number {
                let count = found.matches(&format!("-{number}-")).count();
                assert!(count <= 1, "{call} {time} {output}: {number} in\n{log}");
            }
        }
    }
}

// Rule: listend does not end before it has read what lies in the pipes.
#[test]
fn a_stop_right_after_a_resume_loses_no_lines() {
    if !can_trace() {
        return;
    }
    let world = World::new();
    let guarded = guarded(&world, &puppets("output: file:$DIR/log"));
    let mut puppet = world.puppet();
    is_ready(&mut puppet);
    wait_for(&world, "running");
    let mut strace = guarded.doom("pidfd_send_signal");
    guarded.pause();
    kill(guarded.daemon, Signal::SIGTERM);
    strace.wait().expect("wait for strace");
    puppet.ask("line 1 last-words.");
    guarded.resume();
    assert_eq!(guarded.guard.status().code(), Some(0));
    let log = fs::read_to_string(world.path("log")).expect("the log");
    assert!(log.ends_with("last-words.\n"), "{log}");
}

// Rule: a client notices nothing, and is served by a process that is supervised.
#[test]
fn a_process_of_a_connection_that_nothing_is_written_of_is_taken_over() {
    if !can_trace() {
        return;
    }
    let world = World::new();
    let yaml = "listeners: { web: '127.0.0.1:0' }
workers:
  app:
    command: [$PROBE, heir, $EVENTS]
    listeners: [web]
    activation: per-connection
    handoff: inetd
    max_connections: 3
";
    let mut guarded = guarded(&world, yaml);
    let address = guarded.guard.address("web");
    let _known = client::tcp(address).expect("connect");
    let mut known = world.puppet();
    // It is left behind, with all the marks of its parent.
    let heir: i32 = known.ask("heir").parse().expect("a pid");
    let _left = world.puppet();
    eventually("the first is written down", || {
        let journal = fs::read(snapshot_of(&guarded)).expect("the snapshot");
        String::from_utf8_lossy(&journal).contains("\"kind\":\"process\"")
    });

    let strace = guarded.doom("pwrite64");
    let lost = client::tcp(address).expect("connect");
    let mut unknown = world.puppet();
    guarded.is_followed(strace);
    let instance = |puppet: &Puppet| puppet.report.env["LISTEND_INSTANCE"].clone();
    assert_eq!([instance(&known), instance(&unknown)], ["app.0", "app.1"]);
    let told = ask(&world, "status app").stdout;
    assert!(told.contains("2 open"), "{told}");
    let served = std::thread::spawn(move || client::converse(lost, "hello", "HELLO"));
    assert_eq!(unknown.ask("read 0"), "hello");
    served.join().expect("it is served");
    let _third = client::tcp(address).expect("connect");
    let third = world.puppet();
    assert_eq!(instance(&third), "app.2", "no number is given out twice");
    let _fourth = client::tcp(address).expect("connect");
    guarded.guard.line(&["max_connections, 3, reached"]);
    assert!(exists(known.pid()) && exists(heir) && world.no_puppet_is_waiting());

    let strace = guarded.doom("pwrite64");
    known.tell("exit 0");
    guarded.is_followed(strace);
    assert!(exists(heir), "it belongs to one that was known");
    kill(heir, Signal::SIGKILL);
    drop(third);
    guarded.stop();
    unknown.wait_for_its_end();
}

// Rule: a runtime directory that the listend before has made goes with its worker all the same.
#[test]
fn a_runtime_directory_outlives_the_daemon_and_not_its_worker() {
    if !require_root() {
        return;
    }
    for blow in BLOWS {
        let world = World::new();
        let name = format!("listend-test-{}-{blow:?}", std::process::id());
        let folder = Path::new("/run").join(&name);
        let lines = format!("runtime_directory: {name}\nsilence: no-listeners");
        let mut guarded = guarded(&world, &puppets(&lines));
        let mut first = world.puppet();
        first.ask("notify READY=1");
        guarded.guard.line(&["every eager worker is ready"]);
        guarded.strike(blow);
        assert!(folder.is_dir(), "{blow:?}");
        ask(&world, "stop app").expect_code(0);
        eventually("it is gone with its worker", || !folder.exists());
        ask(&world, "start app --no-wait").expect_code(0);
        let mut second = world.puppet();
        second.ask("notify READY=1");
        wait_for(&world, "running");
        // The one that was removed is forgotten, and this one is known.
        guarded.strike(blow);
        guarded.stop();
        assert!(!folder.exists(), "{blow:?}");
    }
}
