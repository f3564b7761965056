//! The commands around an instance, and what has it read its own configuration again.

use crate::harness::app::{PUPPET, yaml};
use crate::harness::reloading::ask;
use crate::harness::varlink::{self, Varlink};
use crate::harness::{
    Daemon, Puppet, Report, World, eventually, public_probe, require_root, state,
};
use nix::sys::signal::Signal;
use serde_json::json;
use std::fs;

const HOOK: &str = "[$PROBE, puppet, $EVENTS, hook]";
const QUICK: &str = "restart: { policy: always, backoff: 10ms..20ms, limit: none }";

fn run(world: &World, lines: &str) -> Daemon {
    varlink::run(world, &yaml(PUPPET, lines))
}

fn is_hook(report: &Report) -> bool {
    report.argv.last().is_some_and(|word| word == "hook")
}

/// The next puppet, which is the command around the instance.
#[track_caller]
fn hook(world: &World) -> Puppet {
    let puppet = world.puppet();
    assert!(is_hook(&puppet.report), "{:?}", puppet.report.argv);
    puppet
}

/// The next puppet, which is the instance itself.
#[track_caller]
fn program(world: &World) -> Puppet {
    let puppet = world.puppet();
    assert!(!is_hook(&puppet.report), "{:?}", puppet.report.argv);
    puppet
}

// --- What they are -------------------------------------------------------------------------------

// sd_listen_fds(3), sd_notify(3): nothing of it is the business of a command that serves nobody.
#[test]
fn a_hook_has_the_surroundings_of_its_worker_and_none_of_its_listeners() {
    if !require_root() {
        return;
    }
    let world = World::new();
    fs::create_dir(world.path("home")).expect("create a folder");
    let probe = public_probe(&world);
    let command = |last: &str| format!("[{}, puppet, $EVENTS{last}]", probe.display());
    let lines = format!(
        "before_start: {}
user: nobody
working_directory: $DIR/home
environment: {{ COLOUR: 'blue {{instance}}' }}
limits: {{ nofile: '100:200' }}
umask: 0027
nice: 3
notify_access: all
watchdog: 30s
fd_store: 4",
        command(", hook")
    );
    let daemon = varlink::run(&world, &yaml(&command(""), &lines));
    let mut before = hook(&world);
    let report = before.report.clone();
    before.tell("exit 0");
    let instance = program(&world).report;
    assert_eq!(report.uids, instance.uids);
    assert_ne!(report.uids[0], 0);
    assert_eq!(report.gids, instance.gids);
    assert_eq!(report.groups, instance.groups);
    assert_eq!(report.cwd, world.path("home").to_str().expect("UTF-8"));
    assert_eq!(report.env["COLOUR"], "blue 0");
    assert_eq!(report.limits["nofile"], [Some(100), Some(200)]);
    assert_eq!((report.umask, report.nice), (0o027, 3));
    assert_eq!(report.pgid, report.pid);
    assert_eq!(
        (&report.blocked, &report.ignored),
        (&instance.blocked, &instance.ignored)
    );
    let open: Vec<i32> = report.fds.iter().map(|fd| fd.number).collect();
    assert_eq!(open, [0, 1, 2]);
    for name in [
        "LISTEN_",
        "NOTIFY_SOCKET",
        "WATCHDOG_",
        "FDSTORE",
        "MAINPID",
    ] {
        let told: Vec<_> = report
            .env
            .keys()
            .filter(|key| key.starts_with(name))
            .collect();
        assert!(told.is_empty(), "{told:?}");
    }
    assert!(instance.env.contains_key("NOTIFY_SOCKET"));
    daemon.stop();
}

#[test]
fn what_a_hook_writes_is_in_the_log_of_its_instance() {
    let world = World::new();
    let lines = "before_start: [sh, -c, 'echo getting ready']\noutput: tag";
    let daemon = run(&world, lines);
    let _instance = program(&world);
    daemon.stop();
    let said = daemon.finish().stdout;
    let line = said.lines().find(|line| line.contains("getting ready"));
    assert!(line.is_some_and(|line| line.contains("app.0")), "{said:?}");
}

// --- Before the start ----------------------------------------------------------------------------

#[test]
fn a_start_waits_for_the_command_before_it_and_shows_as_starting() {
    let world = World::new();
    let daemon = run(&world, &format!("before_start: {HOOK}"));
    let mut before = hook(&world);
    let mut client = Varlink::connect(&world);
    let status = client.ask("Status", json!({ "name": "app" }));
    assert_eq!(status["workers"][0]["state"], "starting");
    assert!(world.no_puppet_is_waiting());
    assert!(
        daemon
            .lines_so_far(&["every eager worker", "is ready"])
            .is_empty()
    );
    before.tell("exit 0");
    let _instance = program(&world);
    daemon.line(&["every eager worker"]);
    daemon.stop();
}

#[test]
fn a_start_whose_command_fails_has_failed_and_is_tried_again() {
    let world = World::new();
    let daemon = run(
        &world,
        &format!("before_start: {HOOK}\n{QUICK}\noutput: tag"),
    );
    hook(&world).tell("exit 3");
    daemon.line(&[
        "app.0: before_start exited with exit status 3",
        "restarting in",
    ]);
    hook(&world).tell("raise 9");
    daemon.line(&["app.0: before_start was killed by SIGKILL", "restarting in"]);
    hook(&world).tell("exit 0");
    let _instance = program(&world);
    daemon.stop();
}

#[test]
fn a_command_that_fails_too_often_is_a_crash_loop() {
    let world = World::new();
    let lines = "before_start: [sh, -c, 'echo no such table; exit 4']
restart: { backoff: 1ms..2ms, limit: 2 in 1h }
output: tag";
    let daemon = run(&world, lines);
    daemon.line(&[
        "app.0: before_start",
        "too many crashes: 3 within",
        "no such table",
    ]);
    daemon.line(&["worker app: every instance has failed"]);
    assert!(world.no_puppet_is_waiting());
    daemon.stop();
}

#[test]
fn a_command_that_cannot_be_executed_is_told_with_the_reason() {
    let world = World::new();
    let lines = "before_start: [$DIR/nothing, x]\nrestart: { backoff: 1ms, limit: 1 in 1h }";
    let daemon = run(&world, lines);
    let line = daemon.line(&["app.0: before_start", "too many crashes"]);
    let reason = format!(
        "{}: no such file or directory (ENOENT)",
        world.path("nothing").display()
    );
    assert!(line.contains(&reason), "{line}");
    daemon.stop();
}

#[test]
fn the_time_limit_ends_a_command_with_all_that_it_started() {
    let world = World::new();
    let lines = format!("before_start: {{ command: {HOOK}, timeout: 300ms }}\nrestart: never");
    let daemon = run(&world, &lines);
    let mut before = hook(&world);
    let child: i32 = before.ask("fork").parse().expect("a pid");
    daemon.line(&["app.0: before_start took longer than 300 ms and was killed"]);
    before.wait_for_its_end();
    eventually("its child is gone", || {
        matches!(state(child), None | Some('Z'))
    });
    assert!(world.no_puppet_is_waiting());
    daemon.stop();
}

#[test]
fn a_stop_during_the_command_before_the_start_starts_nothing() {
    let world = World::new();
    let daemon = run(&world, &format!("before_start: {HOOK}"));
    let mut before = hook(&world);
    daemon.stop();
    before.wait_for_its_end();
    assert!(world.no_puppet_is_waiting());
    assert!(daemon.lines_so_far(&["before_start"]).is_empty());
}

// --- When it is ready ----------------------------------------------------------------------------

#[test]
fn the_command_for_readiness_waits_for_it_and_nobody_waits_for_the_command() {
    let world = World::new();
    let daemon = run(&world, &format!("ready: notify\nafter_ready: {HOOK}"));
    let mut instance = program(&world);
    let socket = daemon.address("web");
    crate::harness::client::tcp(socket).expect("the queue takes a client");
    assert!(world.no_puppet_is_waiting());
    instance.ask("notify READY=1");
    let mut ready = hook(&world);
    daemon.line(&["every eager worker"]);
    assert_eq!(ready.report.env["MAINPID"], instance.pid().to_string());
    ready.tell("exit 5");
    daemon.line(&["WARN", "app.0: after_ready exited with exit status 5"]);
    assert_eq!(instance.ask("barrier"), "barrier");
    assert!(world.no_puppet_is_waiting());
    daemon.stop();
}

// --- After the end -------------------------------------------------------------------------------

#[test]
fn the_command_after_the_end_runs_after_a_crash_and_before_the_next_start() {
    let world = World::new();
    let daemon = run(&world, &format!("after_stop: {HOOK}\n{QUICK}"));
    let mut instance = program(&world);
    instance.tell("raise 9");
    let mut after = hook(&world);
    assert!(world.no_puppet_is_waiting());
    assert!(!after.report.env.contains_key("MAINPID"));
    after.tell("exit 9");
    daemon.line(&["app.0: after_stop exited with exit status 9"]);
    let _next = program(&world);
    daemon.signal(Signal::SIGTERM);
    hook(&world).tell("exit 0");
    assert_eq!(daemon.status().code(), Some(0));
}

// What registers a worker must not go on beside and behind what takes that back.
#[test]
fn the_command_when_it_is_ready_ends_before_the_one_after_the_end_is_started() {
    let world = World::new();
    let lines =
        format!("after_ready: {{ command: {HOOK}, timeout: 1h }}\nafter_stop: {HOOK}\n{QUICK}");
    let daemon = run(&world, &lines);
    let (mut instance, mut ready) = both(&world);
    ready.ask("deaf");
    instance.tell("exit 3");
    ready.wait_for_its_end();
    let mut after = hook(&world);
    assert!(!crate::harness::exists(ready.pid()), "it is reaped by then");
    after.tell("exit 0");
    // So it is when listend stops, which it does not hold up.
    let (_instance, mut ready) = both(&world);
    ready.ask("deaf");
    daemon.signal(Signal::SIGTERM);
    ready.wait_for_its_end();
    hook(&world).tell("exit 0");
    assert_eq!(daemon.status().code(), Some(0));
}

/// An instance, and the command that runs beside it.
#[track_caller]
fn both(world: &World) -> (Puppet, Puppet) {
    let mut both = world.puppets(2);
    both.sort_by_key(|puppet| is_hook(&puppet.report));
    let hook = both.pop().expect("a hook");
    (both.pop().expect("an instance"), hook)
}

#[test]
fn the_command_after_the_end_is_told_how_it_was_and_runs_also_without_a_program() {
    let world = World::new();
    let lines = format!("before_start: {HOOK}\nafter_stop: {HOOK}\n{QUICK}");
    let daemon = run(&world, &lines);
    let told = |puppet: &Puppet| {
        ["SERVICE_RESULT", "EXIT_CODE", "EXIT_STATUS"]
            .map(|name| puppet.report.env.get(name).cloned())
    };
    let words = |words: [&str; 3]| words.map(|word| Some(word.to_owned()));
    hook(&world).tell("exit 4");
    let mut after = hook(&world);
    assert_eq!(told(&after), [Some("exit-code".to_owned()), None, None]);
    after.tell("exit 0");
    for (end, expected) in [
        ("exit 3", ["exit-code", "exited", "3"]),
        ("raise 9", ["signal", "killed", "KILL"]),
        ("exit 0", ["success", "exited", "0"]),
    ] {
        hook(&world).tell("exit 0");
        program(&world).tell(end);
        let mut after = hook(&world);
        assert_eq!(told(&after), words(expected));
        after.tell("exit 0");
    }
    // Before there is a program.
    let mut before = hook(&world);
    daemon.signal(Signal::SIGTERM);
    before.wait_for_its_end();
    let mut after = hook(&world);
    assert_eq!(told(&after), [Some("success".to_owned()), None, None]);
    after.tell("exit 0");
    assert_eq!(daemon.status().code(), Some(0));
}

#[test]
fn a_stop_waits_for_the_command_after_the_end() {
    let world = World::new();
    let daemon = run(&world, &format!("after_stop: {HOOK}"));
    let _instance = program(&world);
    let mut client = Varlink::connect(&world);
    client.ask("Stop", json!({ "worker": "app", "no_wait": true }));
    let mut after = hook(&world);
    let status = client.ask("Status", json!({ "name": "app" }));
    assert_eq!(status["workers"][0]["instances"][0]["state"], "stopping");
    after.tell("exit 0");
    eventually("it is stopped", || {
        let status = client.ask("Status", json!({ "name": "app" }));
        status["workers"][0]["state"] == "stopped"
    });
    daemon.stop();
}

#[test]
fn a_second_sigterm_ends_the_commands_too() {
    let world = World::new();
    let lines = format!("after_stop: {{ command: {HOOK}, timeout: 1h }}");
    let daemon = run(&world, &lines);
    let _instance = program(&world);
    daemon.signal(Signal::SIGTERM);
    let mut after = hook(&world);
    after.ask("deaf");
    daemon.signal(Signal::SIGTERM);
    after.wait_for_its_end();
    daemon.status();
}

#[test]
fn a_rollout_waits_for_the_command_before_and_runs_the_one_after() {
    let world = World::new();
    let lines = format!("before_start: {HOOK}\nafter_stop: {HOOK}\nrollout: {{ min_ready: 0s }}");
    let daemon = run(&world, &lines);
    hook(&world).tell("exit 0");
    let mut old = program(&world);
    let mut client = Varlink::connect(&world);
    client.ask("Restart", json!({ "worker": "app", "no_wait": true }));
    let mut before = hook(&world);
    assert_eq!(state(old.pid()), Some('S'), "it serves meanwhile");
    before.tell("exit 0");
    let new = program(&world);
    old.wait_for_its_end();
    hook(&world).tell("exit 0");
    daemon.line(&["app: generation 2 has taken over"]);
    assert!(crate::harness::exists(new.pid()));
    daemon.signal(Signal::SIGTERM);
    hook(&world).tell("exit 0");
    assert_eq!(daemon.status().code(), Some(0));
}

// --- To read its own configuration again ----------------------------------------------------------

#[test]
fn a_worker_is_reloaded_by_its_signal() {
    let world = World::new();
    let command =
        "[sh, -c, 'exec >&2; trap \"echo heard\" USR2; echo set; while :; do sleep 0.05; done']";
    let daemon = varlink::run(&world, &yaml(command, "reload_signal: SIGUSR2"));
    daemon.line(&["set"]);
    ask(&world, "reload app").expect_code(0);
    daemon.line(&["heard"]);
    assert_eq!(daemon.lines_so_far(&["app.0", "started"]).len(), 1);
    daemon.signal(Signal::SIGTERM);
    daemon.signal(Signal::SIGTERM);
    daemon.status();
}

#[test]
fn the_command_that_reloads_is_waited_for_and_knows_the_main_process() {
    let world = World::new();
    let daemon = run(&world, &format!("reload_command: {HOOK}"));
    let instance = program(&world);
    daemon.line(&["app.0: started"]);
    let mut client = Varlink::connect(&world);
    client.call_with("Reload", json!({ "worker": "app" }), json!({}));
    let mut reload = hook(&world);
    assert_eq!(reload.report.env["MAINPID"], instance.pid().to_string());
    reload.tell("exit 0");
    let reply = client.next().expect("a reply");
    assert!(reply["error"].is_null(), "{reply}");
    client.call_with("Reload", json!({ "worker": "app" }), json!({}));
    hook(&world).tell("exit 6");
    let reply = client.next().expect("a reply");
    let reason = reply["parameters"]["reason"].as_str().expect("a reason");
    let why = "app.0: reload_command exited with exit status 6";
    assert!(reason.contains(why), "{reply}");
    daemon.line(&[why]);
    assert!(crate::harness::exists(instance.pid()));
    daemon.stop();
}

// Only the first was named.
#[test]
fn every_instance_whose_reload_command_fails_is_named() {
    let world = World::new();
    let daemon = run(&world, "instances: 2\nreload_command: [sh, -c, 'exit 6']");
    let _instances = world.puppets(2);
    daemon.lines(&["app.", "started"], 2);
    let told = ask(&world, "reload app").expect_code(1);
    for name in ["app.0", "app.1"] {
        let why = format!("{name}: reload_command exited with exit status 6");
        assert!(told.stderr.contains(&why), "{told:?}");
    }
    daemon.stop();
}

#[test]
fn who_cannot_be_reloaded_is_named_with_the_reason() {
    let world = World::new();
    let daemon = run(&world, "");
    let _instance = program(&world);
    daemon.line(&["app.0: started"]);
    let finished = ask(&world, "reload app").expect_code(1);
    assert!(finished.stderr.contains("reload_signal"), "{finished:#?}");
    let finished = ask(&world, "reload ap");
    assert_ne!(finished.code, Some(0));
    assert!(finished.stderr.contains("app"), "{finished:#?}");
    daemon.stop();
}
