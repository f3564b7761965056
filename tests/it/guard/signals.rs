//! Signals go to the daemon, with their meaning.

use super::{guarded, guarded_with, is_served, kept, names, replaced, sorted_names};
use crate::harness::{
    Start, World, client, eventually, exists, guard_path, kill, require_tool, state,
};
use nix::sys::signal::Signal;
use std::fs;
use std::path::Path;
use std::process::Command;

#[test]
fn each_signal_goes_to_the_daemon_and_its_exit_code_comes_back() {
    let world = World::new();
    let (guard, mut puppet) = guarded(&world);
    // What would end it before it has handlers is blocked until then.
    for signal in [Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGUSR2] {
        assert!(puppet.report.blocked.contains(&(signal as i32)));
    }
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGCHLD] {
        assert!(!puppet.report.blocked.contains(&(signal as i32)));
    }
    guard.signal(Signal::SIGHUP);
    puppet.tell("signals");
    // It was pending; which of the two lines comes first is not said.
    let mut both = [puppet.listen().unwrap(), puppet.listen().unwrap()];
    both.sort();
    assert_eq!(both, ["signal 01", "signals"]);
    for signal in [
        Signal::SIGHUP,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
        Signal::SIGALRM,
        Signal::SIGWINCH,
        Signal::SIGINT,
        Signal::SIGQUIT,
        Signal::SIGTERM,
    ] {
        guard.signal(signal);
        let wanted = format!("signal {:02}", signal as i32);
        assert_eq!(puppet.listen().expect("it lives"), wanted);
    }
    // Nothing else has come, and the daemon decides when it ends.
    puppet.ask("barrier");
    puppet.tell("exit 5");
    assert_eq!(guard.status().code(), Some(5));
    assert!(world.no_puppet_is_waiting());
}

#[test]
fn a_daemon_that_a_stop_kills_is_not_started_again() {
    let world = World::new();
    let (guard, puppet) = guarded(&world);
    guard.signal(Signal::SIGTERM);
    // As when it stops in order: it is what was asked for.
    assert_eq!(guard.status().code(), Some(0));
    drop(puppet);
    assert!(world.no_puppet_is_waiting());
}

#[test]
fn the_end_of_the_terminal_is_a_stop_and_no_reload() {
    if require_tool("script").is_none() {
        return;
    }
    let world = World::new();
    world.write_script(
        "standin",
        "#!/bin/sh
trap 'echo term > $DIR/heard; exit 0' TERM
trap 'echo hup > $DIR/heard; exit 0' HUP
echo $PPID > $DIR/guard
while :; do sleep 0.05; done
",
    );
    // script(1) is the terminal, and the guard leads the session on it.
    let command = format!("exec {} $DIR/standin", guard_path().display());
    let words = ["-qefc", &command, "/dev/null"];
    let terminal = world.start(Start::of(Path::new("script"), words));
    let read = |name: &str| fs::read_to_string(world.path(name)).unwrap_or_default();
    eventually("it runs", || read("guard").ends_with('\n'));
    let guard = read("guard").trim().parse().expect("a pid");
    terminal.signal(Signal::SIGKILL);
    eventually("the daemon has heard of it", || read("heard") == "term\n");
    eventually("the guard has ended", || !exists(guard));
}

#[test]
fn a_storm_of_signals_does_not_hurt_it() {
    let world = World::new();
    let (guard, mut puppet) = guarded(&world);
    // The puppet has blocked the first five, as the guard starts it. 34 and above are real-time
    // signals, each of which waits in a queue.
    let storm = format!(
        "while :; do for s in 1 10 12 14 28 17 13 29 27 26 30 35 40 64; do \
         kill -$s {} 2>&- || exit; done; done",
        guard.pid()
    );
    let mut storm = Command::new("sh").args(["-c", &storm]).spawn().expect("sh");
    for round in 1..=20 {
        puppet.ask(&format!("store kept{round}"));
        puppet.ask("notify READY=1");
        puppet.ask("barrier");
        puppet = replaced(&world, puppet);
        assert_eq!(names(&puppet).len(), round);
    }
    assert_eq!(storm.try_wait().expect("wait"), None);
    storm.kill().expect("kill");
    storm.wait().expect("wait");
    guard.stop();
}

#[test]
fn while_the_guard_is_stopped_the_daemon_goes_on_and_nothing_is_lost() {
    let world = World::new();
    let (guard, mut puppet) = guarded(&world);
    guard.pause();
    let answer = puppet.ask("bind tcp:127.0.0.1:0 web");
    let address = answer.split(' ').next().and_then(|word| word.parse().ok());
    puppet.ask("store other");
    let client = client::tcp(address.expect("an address")).expect("connect");
    kill(puppet.pid(), Signal::SIGKILL);
    eventually("nobody reaps it", || state(puppet.pid()) == Some('Z'));
    assert!(world.no_puppet_is_waiting());
    guard.resume();
    let mut puppet = world.puppet();
    assert_eq!(sorted_names(&puppet), ["other", "web"]);
    let number = kept(&puppet, "web")[0].number;
    is_served(&mut puppet, number, client);
}

#[test]
fn ignored_hangups_of_the_terminal_stay_ignored() {
    let world = World::new();
    let (guard, mut puppet) = guarded_with(&world, |start| {
        start.through(["nohup"]);
    });
    puppet.ask("signals");
    // A process's is passed on all the same.
    guard.signal(Signal::SIGHUP);
    assert_eq!(puppet.listen().expect("it lives"), "signal 01");
    puppet.tell("exit 0");
    assert_eq!(guard.status().code(), Some(0));
}
