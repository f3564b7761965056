//! The files of `output: file:`, and the process that writes them.

use crate::harness::{
    Daemon, World, children, eventually, exists, public_probe, require_root, require_tool, servers,
    state, varlink,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use varlink::Varlink;

/// Those that write files for a daemon.
fn writers(daemon: &Daemon) -> Vec<i32> {
    let mut found = children(daemon.pid());
    found.retain(|pid| {
        let command = fs::read_to_string(format!("/proc/{pid}/cmdline"));
        command.is_ok_and(|command| command.ends_with("__write\0"))
    });
    found
}

fn read(world: &World, name: &str) -> String {
    fs::read_to_string(world.path(name)).unwrap_or_default()
}

// write(2) takes the file's lock, and so may another write(2) from memory that does not answer.
#[test]
fn a_log_that_somebody_has_locked_holds_up_neither_the_loop_nor_the_logs_of_others() {
    const NOBODY: u32 = 65_534;
    let Some((words, command)) = servers::silent("lock") else {
        return;
    };
    let world = World::new();
    fs::set_permissions(world.dir(), Permissions::from_mode(0o755)).expect("chmod");
    fs::create_dir(world.path("logs")).expect("create a folder");
    chown(world.path("logs"), Some(NOBODY), Some(NOBODY)).expect("chown");
    let probe = public_probe(&world);
    let probe = probe.display();
    let control = varlink::words(&world);
    let yaml = format!(
        "
workers:
  locked: {{ command: [{probe}, puppet, $EVENTS], output: file:$DIR/log, stop_timeout: 2s }}
  holder: {{ command: {command}, $DIR/log], restart: never, stop_timeout: 2s }}
  again: {{ command: [{probe}, puppet, $EVENTS], output: file:$DIR/log, activation: on-demand, listeners: [od] }}
  other: {{ command: [{probe}, puppet, $EVENTS], user: nobody, output: file:$DIR/logs/log }}
listeners: {{ od: '127.0.0.1:0' }}
"
    );
    let daemon = world.run_with(&yaml, |start| {
        start.through(words);
        start.words_behind(control.iter().map(String::as_str));
    });
    let mut puppets = world.puppets(2);
    for puppet in &mut puppets {
        puppet.ask("line 1 before");
    }
    eventually("both are written", || {
        read(&world, "log") == "before\n" && read(&world, "logs/log") == "before\n"
    });
    daemon.line(&["the file is locked"]);
    for puppet in &mut puppets {
        puppet.ask("line 1 meanwhile");
    }
    eventually("the other is written", || {
        read(&world, "logs/log") == "before\nmeanwhile\n"
    });
    let mut control = Varlink::connect(&world);
    control.ask("Status", json!({}));
    daemon.line(&["cannot write to", "log: no answer for 5 s", "is lost"]);

    // More than fits into a pipe: nobody has to wait for what is dropped.
    let line = format!("line 1 {}", "x".repeat(2000));
    for _ in 0..100 {
        puppets.iter_mut().for_each(|puppet| _ = puppet.ask(&line));
    }
    eventually("the other is written again", || {
        read(&world, "logs/log").len() == "before\nmeanwhile\n".len() + 100 * 2001
    });
    let (_, failed) = control.error("Reopen", json!({}));
    assert!(failed.to_string().contains("log: no answer"), "{failed}");
    let _client = std::net::TcpStream::connect(daemon.address("od")).expect("connect");
    daemon.line(&[
        "again.0: failed while setting up standard input",
        "no answer",
    ]);

    // It goes on when the file does, and what was dropped is told.
    Varlink::connect(&world).ask("Stop", json!({ "worker": "holder" }));
    daemon.line(&["log answers again; ", "bytes of workers were lost"]);
    puppets
        .iter_mut()
        .for_each(|puppet| _ = puppet.ask("line 1 after"));
    eventually("all is written", || {
        let (log, other) = (read(&world, "log"), read(&world, "logs/log"));
        log.ends_with("\nafter\n") && log.contains("meanwhile\n") && other.ends_with("\nafter\n")
    });
    daemon.stop();
}

// logrotate(8): rename, then `listend signal --reopen`.
#[test]
fn a_burst_is_written_whole_and_in_order_while_files_are_rotated() {
    const COUNT: usize = 200_000;
    let world = World::new();
    let daemon = varlink::run(
        &world,
        &format!(
            "
workers:
  app: {{ command: [sh, -c, 'seq 1 {COUNT}; exec $PROBE puppet $EVENTS'], output: file:$DIR/log }}
"
        ),
    );
    let mut control = Varlink::connect(&world);
    let mut rotated = String::new();
    for number in 1..=3 {
        eventually("some lines are there", || !read(&world, "log").is_empty());
        let name = format!("log.{number}");
        fs::rename(world.path("log"), world.path(&name)).expect("rename");
        control.ask("Reopen", json!({}));
        // Nothing more is written there.
        rotated.push_str(&read(&world, &name));
        if rotated.ends_with(&format!("\n{COUNT}\n")) {
            break;
        }
    }
    let _puppet = world.puppet();
    let wanted: String = (1..=COUNT).map(|number| format!("{number}\n")).collect();
    eventually("all of it is there", || {
        format!("{rotated}{}", read(&world, "log")) == wanted
    });
    daemon.stop();
}

#[test]
fn what_is_written_before_the_end_of_listend_is_in_the_file_and_nobody_is_left() {
    let world = World::new();
    let daemon = world.run(
        "
workers:
  app:
    command: [sh, -c, 'trap \"seq 1 20000; exit\" TERM; echo up; while :; do sleep 0.01; done']
    output: file:$DIR/log
    kill_mode: process
",
    );
    eventually("it runs", || read(&world, "log") == "up\n");
    let writers = writers(&daemon);
    assert_eq!(writers.len(), 1);
    daemon.stop();
    let log = read(&world, "log");
    assert!(log.ends_with("\n19999\n20000\n"), "{} bytes", log.len());
    assert_eq!(log.lines().count(), 20_001);
    assert!(!exists(writers[0]));
}

#[test]
fn the_end_of_listend_does_not_wait_for_a_file_for_ever() {
    let world = World::new();
    let daemon = world.run(
        "
workers:
  app: { command: [$PROBE, puppet, $EVENTS], output: file:$DIR/log }
",
    );
    let mut puppet = world.puppet();
    let writer = writers(&daemon)[0];
    kill(Pid::from_raw(writer), Signal::SIGSTOP).expect("kill");
    eventually("it stands still", || state(writer) == Some('T'));
    puppet.ask("line 1 lost");
    daemon.stop();
    // Its end may be known before all that it has logged is read.
    daemon.line(&["5 bytes of workers", "were lost"]);
    eventually("the writer was killed", || !exists(writer));
}

#[test]
fn a_writer_that_ends_is_started_again() {
    let world = World::new();
    let daemon = world.run(
        "
workers:
  app: { command: [$PROBE, puppet, $EVENTS], instances: 2, output: 'file:$DIR/log.{instance}' }
",
    );
    let mut puppets = world.puppets(2);
    puppets
        .iter_mut()
        .for_each(|puppet| _ = puppet.ask("line 1 one"));
    let are = |text: &str| {
        ["log.0", "log.1"]
            .iter()
            .all(|name| read(&world, name) == text)
    };
    eventually("both are written", || are("one\n"));
    let writer = writers(&daemon)[0];
    kill(Pid::from_raw(writer), Signal::SIGKILL).expect("kill");
    daemon.line(&[
        "the process that writes the files",
        "was killed by SIGKILL",
        "restarting",
    ]);
    puppets
        .iter_mut()
        .for_each(|puppet| _ = puppet.ask("line 1 two"));
    eventually("both are written again", || are("one\ntwo\n"));
    assert_ne!(writers(&daemon), [writer]);
    daemon.stop();
}

// Somebody waits for files to be opened again, and nobody writes to one any more when that is done.
#[test]
fn whoever_has_files_opened_again_is_answered_when_the_last_that_wrote_there_has_ended() {
    let world = World::new();
    let daemon = varlink::run(
        &world,
        "
workers:
  app: { command: [$PROBE, puppet, $EVENTS], output: file:$DIR/log, restart: never }
  kept: { command: [$PROBE, puppet, $EVENTS], output: file:$DIR/kept }
",
    );
    let puppets = world.puppets(2);
    for (ends, times) in [(Signal::SIGCONT, 1), (Signal::SIGKILL, 2)] {
        let writer = writers(&daemon)[0];
        kill(Pid::from_raw(writer), Signal::SIGSTOP).expect("kill");
        eventually("it stands still", || state(writer) == Some('T'));
        let mut control = Varlink::connect(&world);
        control.call_with("Reopen", json!({}), json!({}));
        daemon.lines(&["reopen the log files"], times);
        Varlink::connect(&world).ask("Stop", json!({ "worker": "app" }));
        kill(Pid::from_raw(writer), ends).expect("kill");
        let answer = control.next().expect("an answer");
        assert!(answer["error"].is_null(), "{answer}");
        Varlink::connect(&world).ask("Start", json!({ "worker": "app" }));
        std::mem::forget(world.puppet());
    }
    drop(puppets);
    daemon.stop();
}

// As the loop has told it since there were files.
#[test]
fn a_full_file_system_is_told_and_so_is_its_end() {
    if !require_root() {
        return;
    }
    let world = World::new();
    let mount = world.path("full");
    fs::create_dir(&mount).expect("create a folder");
    let mount = mount.to_str().expect("UTF-8").to_owned();
    let script = format!("mount -t tmpfs -o size=64k none {mount} && exec \"$@\"");
    let daemon = world.run_with(
        "
workers:
  app: { command: [$PROBE, puppet, $EVENTS], output: file:$DIR/full/log }
  free: { command: [/bin/sh, -c, 'while ! [ -e $DIR/go ]; do sleep 0.01; done; : >$DIR/full/log'], restart: never }
",
        |start| {
            start.through(["unshare", "--mount", "--propagation=private", "--", "sh", "-c", &script, "sh"]);
        },
    );
    let mut puppet = world.puppet();
    let line = format!("line 1 {}", "x".repeat(5000));
    for _ in 0..20 {
        puppet.ask(&line);
    }
    daemon.line(&["cannot write to", "full/log", "ENOSPC", "is lost"]);
    world.write("go", "");
    daemon.line(&["free.0: exited with exit status 0"]);
    puppet.ask("line 1 last");
    daemon.line(&["full/log is writable again", "bytes of workers were lost"]);
    daemon.stop();
}

// It named the folder that would be next, which is not the one that denies anything.
#[test]
fn a_folder_that_may_not_be_entered_is_named_as_what_is_in_the_way() {
    let Some(setpriv) = require_tool("setpriv") else {
        return;
    };
    let world = World::new();
    let closed = world.path("closed");
    fs::create_dir_all(closed.join("in")).expect("folders");
    let log = closed.join("in/log").display().to_string();
    let yaml = format!(
        "
workers:
  app: {{ command: [$PROBE, exit, 0], output: 'file:{log}', restart: {{ backoff: 1m }} }}
"
    );
    fs::set_permissions(&closed, Permissions::from_mode(0o600)).expect("chmod");
    let daemon = world.run_with(&yaml, |start| {
        // Root enters every folder, but for this right.
        if nix::unistd::geteuid().is_root() {
            let without = "--bounding-set=-dac_override,-dac_read_search";
            start.through([setpriv.to_str().expect("UTF-8"), without]);
        }
    });
    let refused = format!("cannot open {log}: permission denied (EACCES): user ");
    let denied = format!(" may not enter {} (mode 0600", closed.display());
    daemon.line(&[&refused, &denied]);
    fs::set_permissions(&closed, Permissions::from_mode(0o700)).expect("chmod");
    daemon.stop();
}
