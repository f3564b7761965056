//! How the daemon is started again, what becomes of what it leaves, and who is told.

use super::{bound, guarded, guarded_with, is_served, kept, names, replaced};
use crate::harness::client;
use crate::harness::{
    DEADLINE, Start, World, children, eventually, exists, guard_path, is_root, kill, require_tool,
    skip, state,
};
use nix::cmsg_space;
use nix::sys::signal::Signal;
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, UnixCredentials, recvmsg, setsockopt, sockopt,
};
use std::fs;
use std::io::IoSliceMut;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::time::Instant;

#[test]
fn a_crash_loop_keeps_the_sockets_and_a_hangup_tries_at_once() {
    let world = World::new();
    let (guard, mut puppet) = guarded(&world);
    let (address, _) = bound(&mut puppet, "tcp", "web");
    puppet.ask("notify READY=1");
    let waiting = client::tcp(address).expect("connect");
    for _ in 0..8 {
        puppet.tell("exit 3");
        puppet.wait_for_its_end();
        puppet = world.puppet();
    }
    puppet.tell("exit 3");
    puppet.wait_for_its_end();
    let line = guard.line(&["failed 9 times in a row"]);
    assert!(
        line.contains("exit status 3") && line.contains("1 descriptor "),
        "{line}"
    );
    assert!(line.contains("in 60 s"), "{line}");
    let others: Vec<_> = (0..10)
        .map(|_| client::tcp(address).expect("connect"))
        .collect();
    assert!(world.no_puppet_is_waiting());
    guard.signal(Signal::SIGHUP);
    let mut puppet = world.puppet();
    let number = kept(&puppet, "web")[0].number;
    for client in [waiting].into_iter().chain(others) {
        is_served(&mut puppet, number, client);
    }
    puppet.tell("exit 0");
    assert_eq!(guard.status().code(), Some(0));
}

#[test]
fn a_start_that_cannot_succeed_is_not_repeated_until_there_is_something_to_keep() {
    let world = World::new();
    for code in [1, 64, 69, 77, 78] {
        let start = Start::of(guard_path(), ["$PROBE", "exit", &code.to_string()]);
        let started = Instant::now();
        assert_eq!(world.start(start).status().code(), Some(code));
        assert!(started.elapsed() < DEADLINE);
    }
    for service in ["notify READY=1", "store something"] {
        let (guard, mut puppet) = guarded(&world);
        puppet.ask(service);
        puppet.tell("exit 78");
        let mut puppet = world.puppet();
        puppet.tell("exit 69");
        guard.lines(&["starting it again"], 2);
        let mut puppet = world.puppet();
        puppet.tell("exit 0");
        assert_eq!(guard.status().code(), Some(0));
    }
}

#[test]
fn a_program_that_cannot_be_executed_is_tried_again() {
    let world = World::new();
    let script = world.write_script("standin", "#!/bin/sh\nexec $PROBE puppet $EVENTS\n");
    let guard = world.start(Start::of(guard_path(), ["$DIR/standin"]));
    let mut puppet = world.puppet();
    puppet.ask("store something");
    puppet.ask("barrier");
    let mode =
        |mode| fs::set_permissions(&script, fs::Permissions::from_mode(mode)).expect("chmod");
    mode(0o644);
    kill(puppet.pid(), Signal::SIGKILL);
    let line = guard.line(&["cannot be started"]);
    assert!(
        line.contains("ermission denied") && line.contains("1 descriptor "),
        "{line}"
    );
    mode(0o755);
    assert_eq!(names(&world.puppet()), ["something"]);
}

#[test]
fn what_the_daemon_says_goes_on_to_the_manager_from_the_guard() {
    let world = World::new();
    let manager = UnixDatagram::bind(world.path("notify")).expect("bind");
    manager.set_read_timeout(Some(DEADLINE)).expect("timeout");
    setsockopt(&manager, sockopt::PassCred, &true).expect("SO_PASSCRED");
    let hears = || {
        let mut buffer = [0; 4096];
        let mut data = [IoSliceMut::new(&mut buffer)];
        let mut control = cmsg_space!(UnixCredentials);
        let flags = MsgFlags::empty();
        let message = recvmsg::<()>(manager.as_raw_fd(), &mut data, Some(&mut control), flags);
        let message = message.expect("a message");
        let sender = message.cmsgs().expect("room").find_map(|one| match one {
            ControlMessageOwned::ScmCredentials(sender) => Some(sender.pid()),
            _ => None,
        });
        let length = message.bytes;
        (
            String::from_utf8_lossy(&buffer[..length]).into_owned(),
            sender,
        )
    };
    let (guard, mut puppet) = guarded_with(&world, |start| {
        start.env("NOTIFY_SOCKET", "$DIR/notify");
        start.env("WATCHDOG_USEC", "60000000");
    });
    let from_guard = |text: &str| (text.to_owned(), Some(guard.pid()));
    let env = &puppet.report.env;
    assert_ne!(env["NOTIFY_SOCKET"], world.path("notify").to_str().unwrap());
    assert_eq!(env["WATCHDOG_USEC"], "60000000");
    assert_eq!(env.get("WATCHDOG_PID"), None);
    for (said, wanted) in [
        ("READY=1|STATUS=well", "READY=1\nSTATUS=well"),
        (
            "RELOADING=1|MONOTONIC_USEC=5",
            "RELOADING=1\nMONOTONIC_USEC=5",
        ),
        ("MAINPID=7|STATUS=other", "STATUS=other"),
        ("WATCHDOG=1|", "WATCHDOG=1\n"),
        ("STOPPING=1", "STOPPING=1"),
    ] {
        puppet.ask(&format!("notify {said}"));
        assert_eq!(hears(), from_guard(wanted));
    }
    // What is the guard's own is not passed on, so that the next is what is said of a crash.
    puppet.ask("store something");
    let puppet = replaced(&world, puppet);
    let (status, _) = hears();
    assert!(
        status.starts_with("STATUS=") && status.contains("SIGKILL"),
        "{status}"
    );
    assert_eq!(hears(), from_guard("WATCHDOG=1\n"));
    assert_eq!(names(&puppet), ["something"]);
}

#[test]
fn a_watchdog_that_is_another_s_is_not_the_daemon_s() {
    let world = World::new();
    let (_guard, puppet) = guarded_with(&world, |start| {
        start.env("NOTIFY_SOCKET", "$DIR/nobody");
        start.env("WATCHDOG_USEC", "60000000");
        start.env("WATCHDOG_PID", "1");
        start.env("FDSTORE", "3");
        start.env("MAINPID", "1");
        start.env("LANG", "C");
    });
    let env = &puppet.report.env;
    for name in ["WATCHDOG_USEC", "WATCHDOG_PID", "MAINPID"] {
        assert_eq!(env.get(name), None);
    }
    assert_eq!(env["LANG"], "C");
    let most: u64 = env["FDSTORE"].parse().expect("a number");
    assert!(most > 253, "{most}");
}

#[test]
fn a_sign_of_life_is_given_while_the_daemon_is_missing() {
    let world = World::new();
    let manager = UnixDatagram::bind(world.path("notify")).expect("bind");
    manager.set_read_timeout(Some(DEADLINE)).expect("timeout");
    let script = world.write_script("standin", "#!/bin/sh\nexec $PROBE puppet $EVENTS\n");
    let mut start = Start::of(guard_path(), ["$DIR/standin"]);
    start.env("NOTIFY_SOCKET", "$DIR/notify");
    start.env("WATCHDOG_USEC", "100000");
    let _guard = world.start(start);
    let mut puppet = world.puppet();
    puppet.ask("notify READY=1");
    fs::remove_file(script).expect("remove");
    kill(puppet.pid(), Signal::SIGKILL);
    let mut signs = 0;
    let mut buffer = [0; 4096];
    while signs < 20 {
        let length = manager.recv(&mut buffer).expect("a message");
        signs += i32::from(&buffer[..length] == b"WATCHDOG=1\n");
    }
}

#[test]
fn what_a_killed_daemon_leaves_is_reaped() {
    let world = World::new();
    let (guard, mut puppet) = guarded(&world);
    // Processes that lose their parent, of a daemon that is no subreaper.
    for _ in 0..10 {
        puppet.ask("orphan");
    }
    let pid = puppet.pid();
    eventually("only the daemon is left", || children(guard.pid()) == [pid]);
    let heir: i32 = puppet.ask("heir detached").parse().expect("a pid");
    let mut worker = world.puppet();
    assert_eq!(worker.pid(), heir);
    let mut puppet = replaced(&world, puppet);
    assert_eq!(children(guard.pid()).len(), 2, "the worker serves on");
    worker.tell("exit 0");
    let pid = puppet.pid();
    eventually("the worker is reaped", || children(guard.pid()) == [pid]);
    puppet.tell("exit 0");
    assert_eq!(guard.status().code(), Some(0));
}

/// A guard whose daemon was killed, cannot be started again, and has left a worker.
fn orphaned(world: &World, deaf: bool) -> (crate::harness::Daemon, crate::harness::Puppet) {
    let script = world.write_script("standin", "#!/bin/sh\nexec $PROBE puppet $EVENTS\n");
    let guard = world.start(Start::of(guard_path(), ["$DIR/standin"]));
    let mut puppet = world.puppet();
    puppet.ask("heir detached");
    let mut worker = world.puppet();
    if deaf {
        worker.ask("deaf");
    }
    puppet.ask("notify READY=1");
    fs::remove_file(script).expect("remove");
    kill(puppet.pid(), Signal::SIGKILL);
    let line = guard.line(&["killed by SIGKILL"]);
    assert!(line.contains("and 1 process;"), "{line}");
    guard.line(&["cannot be started"]);
    assert!(exists(worker.pid()), "it serves on");
    (guard, worker)
}

#[test]
fn a_stop_without_a_daemon_ends_the_workers_that_it_has_left() {
    let world = World::new();
    let (guard, mut worker) = orphaned(&world, false);
    guard.signal(Signal::SIGTERM);
    assert_eq!(guard.status().code(), Some(0));
    worker.wait_for_its_end();
    assert!(!exists(worker.pid()));
}

#[test]
fn a_second_stop_kills_the_workers_that_are_left() {
    let world = World::new();
    let (guard, mut worker) = orphaned(&world, true);
    guard.signal(Signal::SIGTERM);
    guard.line(&["stopping 1 process that"]);
    assert!(
        guard.is_running() && exists(worker.pid()),
        "it may take its time"
    );
    guard.signal(Signal::SIGINT);
    assert_eq!(guard.status().code(), Some(0));
    worker.wait_for_its_end();
}

#[test]
fn after_a_crash_an_orderly_end_of_the_next_daemon_leaves_nothing() {
    let world = World::new();
    let (guard, mut puppet) = guarded(&world);
    puppet.ask("heir detached");
    let mut worker = world.puppet();
    let mut puppet = replaced(&world, puppet);
    // This one knows nothing of it.
    puppet.tell("exit 0");
    assert_eq!(guard.status().code(), Some(0));
    worker.wait_for_its_end();
}

#[test]
fn what_a_daemon_leaves_in_an_orderly_end_is_left_alone() {
    let world = World::new();
    let (guard, mut puppet) = guarded(&world);
    puppet.ask("heir detached");
    let mut helper = world.puppet();
    puppet.tell("exit 0");
    assert_eq!(guard.status().code(), Some(0));
    // As without a guard: whatever has left its service on purpose.
    assert_eq!(helper.ask("deaf"), "deaf");
    helper.tell("exit 0");
    helper.wait_for_its_end();
}

#[test]
fn children_of_before_are_none_of_its_business() {
    let world = World::new();
    let script = world.write_script("standin", "#!/bin/sh\nexec $PROBE puppet $EVENTS\n");
    let mut start = Start::of(guard_path(), ["$DIR/standin"]);
    start.through(["sh", "-c", "sleep 60 & echo $! >&2; exec \"$0\" \"$@\""]);
    let guard = world.start(start);
    let mut puppet = world.puppet();
    let sleeper: i32 = guard.line(&[""]).parse().expect("a pid");
    puppet.ask("notify READY=1");
    fs::remove_file(script).expect("remove");
    kill(puppet.pid(), Signal::SIGKILL);
    guard.line(&["cannot be started"]);
    guard.signal(Signal::SIGTERM);
    assert_eq!(guard.status().code(), Some(0));
    assert!(matches!(state(sleeper), Some('S')));
    kill(sleeper, Signal::SIGKILL);
}

#[test]
fn the_daemon_goes_on_when_the_guard_is_killed() {
    let world = World::new();
    // Not tied to its parent.
    let guard = world.start(Start::of(guard_path(), ["$PROBE", "heir", "$EVENTS"]));
    let mut puppet = world.puppet();
    let (address, number) = bound(&mut puppet, "tcp", "web");
    guard.signal(Signal::SIGKILL);
    guard.status();
    let refused = puppet.ask("notify READY=1");
    assert!(refused.starts_with("error:"), "{refused}");
    is_served(&mut puppet, number, client::tcp(address).expect("connect"));
    puppet.tell("exit 0");
    puppet.wait_for_its_end();
}

/// The words that make the next program PID 1 of its own namespace, if that is allowed here.
fn namespace() -> Option<Vec<&'static str>> {
    require_tool("unshare")?;
    let mut words = vec!["unshare", "--pid", "--fork", "--mount-proc"];
    if !is_root() {
        words.extend(["--user", "--map-root-user"]);
    }
    let tried = std::process::Command::new(words[0])
        .args(&words[1..])
        .arg("true")
        .stderr(std::process::Stdio::null())
        .status();
    if !tried.is_ok_and(|status| status.success()) {
        skip("no PID namespace to be had");
        return None;
    }
    Some(words)
}

#[test]
fn as_pid_1_it_reaps_passes_signals_on_and_starts_the_daemon_again() {
    let Some(words) = namespace() else {
        return;
    };
    let world = World::new();
    let (unshare, mut puppet) = guarded_with(&world, |start| {
        start.through(words);
    });
    assert_eq!(puppet.report.ppid, 1, "the guard is PID 1");
    let init = children(unshare.pid())[0];
    for _ in 0..10 {
        puppet.ask("orphan");
    }
    eventually("only the daemon is left", || children(init).len() == 1);
    puppet.ask("heir detached");
    let worker = world.puppet();
    bound(&mut puppet, "tcp", "web");
    let mut puppet = replaced(&world, puppet);
    assert_eq!(names(&puppet), ["web"]);
    assert_eq!(children(init).len(), 2, "the worker lives");
    drop(worker);
    eventually("the worker is reaped", || children(init).len() == 1);
    puppet.ask("signals");
    // From outside, as a container's runtime does it: PID 1 gets only what it has taken.
    kill(init, Signal::SIGTERM);
    assert_eq!(puppet.listen().expect("it lives"), "signal 15");
    puppet.tell("exit 7");
    assert_eq!(unshare.status().code(), Some(7));
}
