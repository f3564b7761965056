//! How listend ends: its signals, its workers' last moments, what it leaves behind.

use crate::harness::{World, client, eventually, exists, state};
use nix::sys::signal::Signal;
use std::net::TcpStream;
use std::time::{Duration, Instant};

const YAML: &str = "
listeners: { web: '127.0.0.1:0', app: 'unix:$DIR/app.sock', dgram: 'unix-dgram:$DIR/dgram.sock' }
workers:
  app: { command: [$PROBE, puppet, $EVENTS], listeners: [web, app, dgram], stop_timeout: 30s }
";

// Rule: "SIGTERM/SIGINT stop workers gracefully, then exit 0".
#[test]
fn sigterm_and_sigint_stop_the_workers_with_their_stop_signal_and_exit_with_0() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let world = World::new();
        let daemon = world.run(YAML);
        let mut puppet = world.puppet();
        assert_eq!(puppet.ask("drain"), "drain");
        daemon.signal(signal);
        // The stop signal is SIGTERM, whatever listend itself got.
        assert_eq!(puppet.listen().as_deref(), Some("term"));
        puppet.tell("exit 0");
        let finished = daemon.finish().expect_code(0);
        assert!(finished.stderr.contains("stopping"), "{finished:#?}");
        assert!(
            finished.stderr.contains("all workers stopped"),
            "{finished:#?}"
        );
    }
}

#[test]
fn a_worker_is_stopped_with_the_signal_of_its_entry() {
    let world = World::new();
    let yaml = YAML.replace("stop_timeout", "stop_signal: SIGUSR1, stop_timeout");
    let daemon = world.run(&yaml);
    let mut puppet = world.puppet();
    puppet.ask("deaf");
    daemon.signal(Signal::SIGTERM);
    // SIGUSR1 kills whoever has no handler for it (signal(7)).
    puppet.wait_for_its_end();
    daemon.status();
    daemon.line(&["app.0", "SIGUSR1"]);
}

// Rule: "Shutdown closes listeners only after the workers have gone, and removes the unix paths it
// made."
#[test]
fn listeners_take_clients_until_the_last_worker_has_gone_and_leave_no_path_behind() {
    let world = World::new();
    let daemon = world.run(YAML);
    let mut puppet = world.puppet();
    puppet.ask("drain");
    let address = daemon.address("web");
    daemon.signal(Signal::SIGTERM);
    assert_eq!(puppet.listen().as_deref(), Some("term"));
    client::tcp(address).expect("the port is open while a worker drains");
    client::unix(&world.path("app.sock")).expect("the path is there while a worker drains");
    puppet.tell("exit 0");
    assert_eq!(daemon.status().code(), Some(0));
    TcpStream::connect(address).expect_err("the port is closed");
    assert!(!world.path("app.sock").exists());
    assert!(!world.path("dgram.sock").exists());
}

// Only what it made itself: another process may have put its own socket there meanwhile.
#[test]
fn a_path_that_another_process_has_taken_over_is_left_alone() {
    let world = World::new();
    let daemon = world.run(YAML);
    world.puppet();
    let path = world.path("app.sock");
    let new = world.path("new.sock");
    let _theirs = std::os::unix::net::UnixListener::bind(&new).expect("bind");
    std::fs::rename(&new, &path).expect("rename");
    daemon.stop();
    client::unix(&path).expect("the other's socket is still there");
}

// Rule: "`stop_signal` then SIGKILL of the whole process group after `stop_timeout`".
#[test]
fn a_deaf_worker_is_killed_with_its_whole_process_group_after_the_timeout() {
    let world = World::new();
    let daemon = world.run(&YAML.replace("30s", "300ms"));
    let mut puppet = world.puppet();
    puppet.ask("deaf");
    let child: i32 = puppet.ask("fork").parse().expect("a pid");
    assert!(exists(child));
    let start = Instant::now();
    daemon.signal(Signal::SIGTERM);
    puppet.wait_for_its_end();
    assert!(start.elapsed() >= Duration::from_millis(300));
    assert_eq!(daemon.status().code(), Some(0));
    // It belongs to PID 1 now, which reaps it in its own time.
    eventually("the worker's child is gone", || {
        matches!(state(child), None | Some('Z'))
    });
    daemon.line(&["app.0", "SIGKILL"]);
}

// The group outlives its leader: what a worker left behind goes with it.
#[test]
fn what_an_obedient_worker_leaves_in_its_process_group_is_killed_too() {
    let world = World::new();
    let daemon = world.run(&YAML.replace("30s", "300ms"));
    let mut puppet = world.puppet();
    let child: i32 = puppet.ask("fork").parse().expect("a pid");
    daemon.stop();
    eventually("the worker's child is gone", || {
        matches!(state(child), None | Some('Z'))
    });
}

// A zombie stays in its process group until its parent reaps it, and a parent outside of the group
// may never do that: nothing of the worker runs any more.
#[test]
fn a_zombie_that_is_another_process_s_to_reap_does_not_keep_an_instance_stopping() {
    for deaf in [true, false] {
        let world = World::new();
        let daemon = world.run(&YAML.replace("30s", "300ms"));
        let mut puppet = world.puppet();
        let parent: i32 = puppet.ask("neglect").parse().expect("a pid");
        let mut _next = None;
        if deaf {
            puppet.ask("deaf");
        } else {
            // The next instance comes once nothing of the last one is left.
            puppet.tell("raise 9");
            _next = Some(world.puppet());
        }
        daemon.signal(Signal::SIGTERM);
        assert_eq!(daemon.status().code(), Some(0));
        assert!(exists(parent), "it does not belong to the worker's group");
        let parent = nix::unistd::Pid::from_raw(parent);
        nix::sys::signal::kill(parent, Signal::SIGKILL).expect("kill");
    }
}

// Rule: "A worker finishes what it has accepted", also where its children serve.
#[test]
fn what_is_left_of_a_process_group_finishes_what_it_does() {
    let world = World::new();
    let daemon = world.run(YAML);
    let mut puppet = world.puppet();
    puppet.ask("heir");
    let mut heir = world.puppet();
    let address = daemon.address("web");
    daemon.signal(Signal::SIGTERM);
    puppet.wait_for_its_end();
    daemon.line(&["app.0", "other processes of its group continue", "SIGKILL"]);
    client::tcp(address).expect("the port is open as long as anything of the worker runs");
    heir.tell("exit 3");
    // How the main process ended is how the instance did.
    daemon.line(&["app.0", "killed by SIGTERM", "stopped as requested"]);
    assert_eq!(daemon.status().code(), Some(0));
}

#[test]
fn with_kill_mode_group_the_children_of_a_worker_are_asked_to_stop_as_well() {
    let world = World::new();
    let daemon = world.run(&YAML.replace("stop_timeout", "kill_mode: group, stop_timeout"));
    let mut puppet = world.puppet();
    puppet.ask("heir");
    let mut heir = world.puppet();
    puppet.ask("drain");
    heir.ask("drain");
    daemon.signal(Signal::SIGTERM);
    assert_eq!(puppet.listen().as_deref(), Some("term"));
    assert_eq!(heir.listen().as_deref(), Some("term"));
    for end in [&mut heir, &mut puppet] {
        // Once: the next that is heard is the end.
        end.tell("exit 0");
        assert_eq!(end.listen(), None);
    }
    assert_eq!(daemon.status().code(), Some(0));
}

// As systemd has it. And two generations of one instance never run at a time.
#[test]
fn what_a_crash_leaves_behind_is_asked_to_stop_and_the_restart_waits_for_it() {
    let world = World::new();
    let daemon = world.run(YAML);
    let mut puppet = world.puppet();
    puppet.ask("heir");
    let mut heir = world.puppet();
    heir.ask("drain");
    crate::harness::kill(puppet.pid(), Signal::SIGKILL);
    assert_eq!(heir.listen().as_deref(), Some("term"));
    daemon.line(&["app.0", "other processes of its group continue"]);
    assert!(daemon.lines_so_far(&["app.0", "restarting in"]).is_empty());
    heir.tell("exit 0");
    daemon.line(&["app.0", "restarting in"]);
    let again = world.puppet();
    assert_ne!(again.pid(), puppet.pid());
    daemon.stop();
}

// Rule: "a second one hurries".
#[test]
fn a_second_sigterm_does_not_wait_for_the_timeout() {
    for second in [Signal::SIGTERM, Signal::SIGINT] {
        let world = World::new();
        let daemon = world.run(&YAML.replace("30s", "infinity"));
        let mut puppet = world.puppet();
        puppet.ask("drain");
        daemon.signal(Signal::SIGTERM);
        assert_eq!(puppet.listen().as_deref(), Some("term"));
        daemon.signal(second);
        puppet.wait_for_its_end();
        assert_eq!(daemon.status().code(), Some(0));
    }
}

#[test]
fn a_worker_that_waits_for_its_restart_is_not_started_while_listend_stops() {
    let world = World::new();
    let daemon = world.run(
        "
listeners: { web: '127.0.0.1:0' }
workers:
  app:
    command: [$PROBE, exit, 1]
    listeners: [web]
    restart: { backoff: 1h..2h, limit: none }
",
    );
    daemon.line(&["app.0", "restarting in"]);
    daemon.stop();
    assert_eq!(daemon.lines_so_far(&["app.0", "started"]).len(), 1);
}

// A terminal that closes, or an administrator used to "HUP reloads", must not end the daemon.
#[test]
fn other_signals_do_not_end_the_daemon() {
    let world = World::new();
    let daemon = world.run(YAML);
    let mut puppet = world.puppet();
    let signals = [
        Signal::SIGHUP,
        Signal::SIGPIPE,
        Signal::SIGCHLD,
        Signal::SIGCONT,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
        Signal::SIGALRM,
    ];
    for signal in signals {
        daemon.signal(signal);
    }
    puppet.tell("serve");
    assert_eq!(client::ask_tcp(daemon.address("web")).pid, puppet.pid());
    assert!(daemon.is_running());
    daemon.stop();
}

// There were two lines for each: a flood took the room in the log from what matters.
#[test]
fn a_signal_without_effect_is_told_of_once_a_second() {
    let world = World::new();
    let daemon = world.run(YAML);
    let _puppet = world.puppet();
    daemon.line(&["app.0", "started"]);
    let since = Instant::now();
    let signals = [Signal::SIGALRM, Signal::SIGUSR1];
    for signal in signals.iter().cycle().take(2000) {
        daemon.signal(*signal);
    }
    daemon.stop();
    let seconds = since.elapsed().as_secs() as usize;
    for signal in signals {
        let lines = daemon.lines_so_far(&[signal.as_str()]);
        assert!((1..=1 + seconds).contains(&lines.len()), "{lines:?}");
        let words = ["received SIG", " from pid ", "which has no effect"];
        assert!(
            words.iter().all(|word| lines[0].contains(word)),
            "{lines:?}"
        );
    }
}

// Rule: "SIGCHLD storms lose nothing". signal(7): standard signals do not queue.
#[test]
fn two_hundred_exits_at_once_are_all_accounted_for() {
    const COUNT: usize = 200;
    let world = World::new();
    let daemon = world.run(&format!(
        "
workers:
  storm:
    command: [$PROBE, exit, 0]
    instances: {COUNT}
    restart: {{ policy: never }}
"
    ));
    let ends = daemon.lines(&["storm.", "exit status 0"], COUNT);
    for instance in 0..COUNT {
        let name = format!("storm.{instance}");
        let is_it = |word: &str| word.trim_matches(['`', ':', ',']) == name;
        let count = ends
            .iter()
            .filter(|line| line.split_whitespace().any(is_it));
        assert_eq!(count.count(), 1, "{name}");
    }
    // No zombie is left, and no child.
    eventually("all are reaped", || {
        crate::harness::children(daemon.pid()).is_empty()
    });
    daemon.stop();
}

// All at once is harder than one after the other.
#[test]
fn a_hundred_workers_killed_at_once_are_all_started_again() {
    const COUNT: usize = 100;
    let world = World::new();
    let daemon = world.run(&format!(
        "
workers:
  app:
    command: [$PROBE, puppet, $EVENTS]
    instances: {COUNT}
    restart: {{ backoff: 1ms..2ms, limit: none }}
"
    ));
    let first = world.puppets(COUNT);
    for puppet in &first {
        crate::harness::kill(puppet.pid(), Signal::SIGKILL);
    }
    let second = world.puppets(COUNT);
    assert_eq!(crate::harness::children(daemon.pid()).len(), COUNT);
    drop((first, second));
    daemon.stop();
}
