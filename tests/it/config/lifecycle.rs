//! When instances are ready, replaced, reloaded and started again: from the YAML to the plan.

use super::reading::{load, shown};
use crate::harness::TempDir;
use listend::config::{
    Every, Hook, Loaded, NotifyAccess, OnFailure, Order, Piece, Rate, Ready, Reload, Rollout,
    Success, Template, to_yaml,
};
use listend::host::Facts;
use listend::plan::{HookTimes, Plan, ReloadBy, WorkerId, resolve};
use listend::report::Sources;
use std::fs;
use std::path::Path;
use std::time::Duration;

const LISTENERS: &str = "\
silence: unused-listener
listeners:
  tcp: 127.0.0.1:80
  both: localhost:82
  udp: udp://127.0.0.1:80
  mixed: [udp://127.0.0.1:85, 127.0.0.1:85]
workers:
";

/// One worker, without its `command: x`, beside the listeners above.
fn worker(keys: &str) -> Loaded {
    load(&format!("{LISTENERS}  a: {{command: x, {keys}}}\n"))
}

#[track_caller]
fn planned(keys: &str) -> (listend::config::Worker, Plan) {
    let loaded = worker(keys);
    assert_eq!(shown(&loaded), "", "{keys}");
    // What `check --dump` prints.
    to_yaml(&loaded.config).expect("YAML of the configuration");
    let given = loaded.config.workers[0].clone();
    let (plan, report) = resolve(loaded.config, &Facts::default(), &mut Sources::default());
    assert!(report.is_ok(), "{:?}", report.errors);
    to_yaml(&plan).expect("YAML of the plan");
    (given, plan)
}

/// The only problem that there is: its code, and its message and hint in one.
#[track_caller]
fn only_problem(keys: &str) -> (String, String) {
    let loaded = worker(keys);
    let mut all = loaded.report.errors.iter().chain(&loaded.report.advice);
    let (Some(problem), None) = (all.next(), all.next()) else {
        panic!("{keys}: not one problem: {}", shown(&loaded));
    };
    assert!(problem.place.is_some_and(|place| place.line == 8), "{keys}");
    let said = [Some(&problem.message), problem.hint.as_ref()];
    let said = said.into_iter().flatten().cloned().collect::<Vec<_>>();
    (problem.kind.code(), said.join("\n"))
}

fn literal(words: &[&str]) -> Vec<Template> {
    words.iter().map(|word| Template::literal(*word)).collect()
}

const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

#[test]
fn every_mistake_is_reported_at_once() {
    let loaded = load(include_str!("../../golden/lifecycle.yaml"));
    let got = shown(&loaded);
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/lifecycle.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(path, &got).expect("write the golden file");
    }
    let want = std::fs::read_to_string(path).expect("read the golden file");
    assert_eq!(got, want);
}

#[test]
fn without_any_key_the_defaults_hold() {
    let (given, plan) = planned("listeners: tcp");
    let worker = plan.worker(WorkerId(0));
    let life = &worker.lifecycle;
    assert_eq!(life.ready, Ready::Started);
    assert_eq!(life.start_timeout, Some(seconds(90)));
    assert_eq!(life.watchdog, None);
    assert_eq!(life.rollout, Rollout::default());
    assert_eq!(life.reload, None);
    assert_eq!(life.on_failure, OnFailure::Hold);
    assert_eq!(life.hooks, HookTimes::default());
    assert_eq!((worker.notify_access, worker.fd_store), (None, 0));
    assert_eq!(given.restart.cool_down, Some(seconds(60)));
    let limit = Rate {
        count: 10,
        interval: seconds(180),
    };
    assert_eq!(given.restart.limit, Some(limit));
    assert!(given.restart.success.is_empty());
}

#[test]
fn every_form_of_readiness_is_understood() {
    for (listeners, text, want) in [
        ("tcp", "started", Ready::Started),
        ("tcp", "notify", Ready::Notify),
        ("tcp", "accepting", Ready::Accepting(Every::All)),
        ("[udp, tcp]", "accepting  all", Ready::Accepting(Every::All)),
        ("tcp", "accepting first", Ready::Accepting(Every::First)),
        (
            "[mixed, udp]",
            "accepting first",
            Ready::Accepting(Every::First),
        ),
        ("tcp", "fd 4", Ready::Fd(4)),
        ("[]", "fd 3", Ready::Fd(3)),
        ("[both, udp]", "fd 6", Ready::Fd(6)),
        ("tcp, handoff: inetd", "fd 3", Ready::Fd(3)),
        ("tcp, fd_store: 2", "fd 6", Ready::Fd(6)),
        ("tcp, activation: on-demand", "notify", Ready::Notify),
        ("both", "fd 1048575", Ready::Fd(1_048_575)),
        ("tcp, handoff: einhorn", "einhorn", Ready::Einhorn),
        (
            "tcp, handoff: [systemd, einhorn]",
            "einhorn",
            Ready::Einhorn,
        ),
    ] {
        let silence = "silence: no-listeners";
        let (_, plan) = planned(&format!("listeners: {listeners}, ready: {text}, {silence}"));
        assert_eq!(plan.worker(WorkerId(0)).lifecycle.ready, want, "{text}");
    }
    // What has no effect on a process that serves at once is no error.
    planned("listeners: tcp, activation: per-connection, ready: started");
}

#[test]
fn whoever_has_something_to_tell_may_tell_it() {
    let main = Some(NotifyAccess::Main);
    for (keys, access) in [
        ("ready: notify", main),
        ("ready: accepting", None),
        ("watchdog: 100ms", main),
        ("watchdog: off", None),
        ("fd_store: 1024", main),
        ("fd_store: 0", None),
        ("notify_access: main", main),
        ("notify_access: all", Some(NotifyAccess::All)),
        ("notify_access: all, ready: notify", Some(NotifyAccess::All)),
        (
            "handoff: inetd, notify_access: all",
            Some(NotifyAccess::All),
        ),
        ("handoff: inetd, watchdog: 5s", main),
    ] {
        let (_, plan) = planned(&format!("listeners: tcp, {keys}"));
        assert_eq!(plan.worker(WorkerId(0)).notify_access, access, "{keys}");
    }
}

#[test]
fn times_orders_and_what_a_failure_means_arrive_in_the_plan() {
    let (given, plan) = planned(
        "listeners: tcp, start_timeout: infinity, watchdog: 1m, fd_store: 7, \
         rollout: {order: stop-first, parallel: 3, min_ready: 0, watch: 5s}, on_failure: refuse, \
         restart: {cool_down: 10m, success_exit_status: [0, 255, SIGKILL, USR1, SIGRTMIN+1]}",
    );
    let worker = plan.worker(WorkerId(0));
    let life = &worker.lifecycle;
    assert_eq!(life.start_timeout, None);
    assert_eq!(life.watchdog, Some(seconds(60)));
    assert_eq!(worker.fd_store, 7);
    let rollout = Rollout {
        order: Order::StopFirst,
        parallel: 3,
        min_ready: Duration::ZERO,
        watch: seconds(5),
    };
    assert_eq!(life.rollout, rollout);
    assert_eq!(life.on_failure, OnFailure::Refuse);
    assert_eq!(life.restart, given.restart);
    assert_eq!(life.restart.cool_down, Some(seconds(600)));
    let ends = [
        Success::Code(0),
        Success::Code(255),
        Success::Signal(nix::libc::SIGKILL),
        Success::Signal(nix::libc::SIGUSR1),
        Success::Signal(nix::libc::SIGRTMIN() + 1),
    ];
    assert_eq!(life.restart.success, ends);
}

#[test]
fn single_values_and_words_for_nothing_are_taken() {
    let (given, plan) = planned(
        "listeners: tcp, start_timeout: 1h, watchdog: off, rollout: {parallel: 10000}, \
         on_failure: hold, restart: {cool_down: never, success_exit_status: 15}",
    );
    let life = &plan.worker(WorkerId(0)).lifecycle;
    assert_eq!(life.start_timeout, Some(seconds(3600)));
    assert_eq!(life.rollout.parallel, 10_000);
    assert_eq!(life.rollout.order, Order::StartFirst);
    assert_eq!(given.restart.cool_down, None);
    // A number is an exit status here, and not SIGTERM.
    assert_eq!(given.restart.success, [Success::Code(15)]);
    let (given, _) = planned("listeners: tcp, restart: {success_exit_status: []}");
    assert!(given.restart.success.is_empty());
}

#[test]
fn commands_around_an_instance_have_words_and_a_time() {
    let (given, plan) = planned(
        "listeners: [tcp], before_start: \"x 'a b' {instance}\", \
         after_ready: [y, '{address:tcp}', '{port:tcp}'], \
         after_stop: {command: z, timeout: 5m}",
    );
    let before = given.hooks.before_start.expect("a command");
    assert_eq!(before.timeout, seconds(30));
    assert_eq!(before.command[..2], literal(&["x", "a b"]));
    assert_eq!(before.command[2].pieces, [Piece::Instance]);
    let after = given.hooks.after_ready.expect("a command");
    let address = &after.command[1].pieces[0];
    assert_eq!(address.listener(), Some("tcp"));
    let stop = Hook {
        command: literal(&["z"]),
        timeout: seconds(300),
    };
    assert_eq!(given.hooks.after_stop, Some(stop.clone()));
    let worker = plan.worker(WorkerId(0));
    assert_eq!(worker.hooks.after_stop, Some(stop));
    let times = HookTimes {
        before_start: Some(seconds(30)),
        after_ready: Some(seconds(30)),
        after_stop: Some(seconds(300)),
    };
    assert_eq!(worker.lifecycle.hooks, times);
}

#[test]
fn a_worker_is_reloaded_by_a_signal_or_a_command() {
    let (given, plan) = planned("listeners: tcp, reload_signal: HUP");
    let hangup = nix::libc::SIGHUP;
    assert_eq!(given.reload, Some(Reload::Signal(hangup)));
    let worker = plan.worker(WorkerId(0));
    assert_eq!(worker.lifecycle.reload, Some(ReloadBy::Signal(hangup)));
    assert_eq!(worker.reload_command, None);
    for (text, time) in [
        ("[x, reload]", 30),
        ("x reload", 30),
        ("{command: x reload, timeout: 1m}", 60),
    ] {
        let (given, plan) = planned(&format!("listeners: tcp, reload_command: {text}"));
        let hook = Hook {
            command: literal(&["x", "reload"]),
            timeout: seconds(time),
        };
        assert_eq!(given.reload, Some(Reload::Command(hook.clone())));
        let worker = plan.worker(WorkerId(0));
        let by = ReloadBy::Command(hook.timeout);
        assert_eq!(worker.lifecycle.reload, Some(by));
        assert_eq!(worker.reload_command, Some(hook));
    }
}

#[test]
fn a_value_that_is_wrong_is_told_what_was_meant() {
    for (key, value, said) in [
        ("ready", "notfy", "did you mean `notify`?"),
        ("ready", "exec", "did you mean `started`?"),
        ("ready", "sd_notify", "did you mean `notify`?"),
        ("ready", "listening", "did you mean `accepting`?"),
        (
            "ready",
            "accepting-first",
            "did you mean `accepting first`?",
        ),
        ("ready", "ack", "did you mean `einhorn`?"),
        ("ready", "einhorn", "write `handoff: einhorn`"),
        ("ready", "accepting one", "known here: `all`, `first`"),
        ("ready", "accepting all first", "unknown value `all first`"),
        ("ready", "fd7", "did you mean `fd 7`?"),
        ("ready", "fd 1", "standard input, output and error"),
        ("ready", "fd -1", "from 3 to 1048575"),
        ("ready", "fd 04", "write `4` without"),
        ("ready", "fd 3 4", "unknown value `fd 3 4`"),
        ("ready", "qqqqqqqqqq", "known here: `accepting`"),
        ("ready", "''", "unknown value ``"),
        (
            "ready",
            "fd 3",
            "descriptor 3 is for its socket\nwrite `fd 4`",
        ),
        ("start_timeout", "none", "write `infinity`"),
        ("start_timeout", "90", "write `90s` for seconds"),
        ("watchdog", "0", "write `off`"),
        ("watchdog", "infinity", "write `off`"),
        ("watchdog", "99ms", "at least `100ms`"),
        ("notify_access", "exec", "did you mean `main`?"),
        ("notify_access", "al", "did you mean `all`?"),
        ("fd_store", "-1", "from 0 to 1024"),
        ("rollout", "stop-first", "write `{order: stop-first}`"),
        (
            "rollout",
            "{order: stop_first}",
            "did you mean `stop-first`?",
        ),
        (
            "rollout",
            "{order: start-frist}",
            "did you mean `start-first`?",
        ),
        ("rollout", "{parallel: 10001}", "from 1 to 10000"),
        (
            "user",
            "'www:web'",
            "write `user: www`, and the group as `group: web`",
        ),
        ("group", "'www:web'", "write a name or a number"),
        ("environment", "A=b", "write each as `NAME: VALUE`"),
        ("instances", "2-8", "write `{ min: 2, max: 8 }`"),
        ("instances", "-1", "from 1 to 10000"),
        ("output", "'append:/var/log/x'", "write `file:/var/log/x`"),
        ("limits", "{LimitNOFILE: 9}", "did you mean `nofile`?"),
        ("limits", "{MemoryMax: 1G}", "inside `sandbox:`"),
        ("forward", "9000", "write `127.0.0.1:9000`"),
        ("rollout", "{min_raedy: 1s}", "did you mean `min_ready`?"),
        ("on_failure", "hodl", "did you mean `hold`?"),
        ("on_failure", "unlisten", "did you mean `refuse`?"),
        ("reload_signal", "SIGSTOP", "like `SIGHUP`"),
        ("reload_signal", "SIGTERM", "the default of `stop_signal`"),
        ("restart", "{cool_down: 5}", "write `5s` for seconds"),
        ("restart", "{cool_down: none}", "write `never`"),
        ("restart", "{cooldown: 5s}", "did you mean `cool_down`?"),
        ("restart", "{success_exit_status: -1}", "from 0 to 255"),
        ("restart", "{success_exit_status: [1, 01]}", "write `1`"),
        ("restart", "{success_exit_status: [1, 1]}", "occurs twice"),
        (
            "restart",
            "{success_exit_status: SIGTRM}",
            "did you mean `SIGTERM`?",
        ),
        ("cool_down", "5m", "write it inside `restart:`"),
        ("success_exit_status", "3", "write it inside `restart:`"),
        ("min_ready", "3s", "write it inside `rollout:`"),
        (
            "before_start",
            "{command: x, timeout: off}",
            "a start could hang",
        ),
        (
            "after_stop",
            "{command: x, timeout: inf}",
            "the next start could",
        ),
        (
            "reload_command",
            "{command: x, timeout: never}",
            "a reload could",
        ),
        (
            "after_ready",
            "{command: x, timeout: none}",
            "the end of listend",
        ),
        ("after_ready", "{command: x, timeout: 0}", "at once"),
        (
            "after_ready",
            "{command: x, timout: 1s}",
            "did you mean `timeout`?",
        ),
        (
            "after_ready",
            "{timeout: 1s}",
            "`after_ready` has no `command`",
        ),
        (
            "after_ready",
            "'  '",
            "the command of `after_ready` is empty",
        ),
        ("after_ready", "{command: }", "write a value after it"),
        ("after_ready", "[x, '{fd:tcp}']", "write `{address:tcp}`"),
        (
            "after_ready",
            "[x, '{address:both}']",
            "does not use listener",
        ),
        (
            "after_ready",
            "[x, '{address:tpc}']",
            "there is no listener `tpc`",
        ),
        ("after_ready", "[x, '{port:tcp:1}']", "has no socket 1"),
        (
            "reload_command",
            "[kill, -HUP, $MAINPID]",
            "`reload_signal: SIGHUP`",
        ),
    ] {
        let (_, text) = only_problem(&format!("listeners: tcp, {key}: {value}"));
        assert!(text.contains(said), "{key}: {value}: {text}");
    }
}

#[test]
fn keys_of_instances_are_refused_where_each_connection_has_its_process() {
    for key in [
        "ready: notify",
        "ready: fd 3",
        "ready: accepting",
        "start_timeout: 90s",
        "watchdog: off",
        "notify_access: main",
        "fd_store: 0",
        "rollout: {}",
        "on_failure: hold",
        "before_start: x",
        "after_ready: x",
        "after_stop: x",
        "reload_signal: SIGHUP",
        "reload_command: x",
    ] {
        for listener in ["tcp", "udp"] {
            let keys = format!("listeners: {listener}, activation: per-connection, {key}");
            let (kind, text) = only_problem(&keys);
            assert_eq!(kind, "bad-value");
            let (name, _) = key.split_once(':').expect("a key");
            let start = format!("`{name}` is for `activation: eager` or `activation: on-demand`");
            assert!(text.starts_with(&start), "{text}");
            assert!(
                text.contains("; the worker is per-connection, so "),
                "{text}"
            );
            assert!(!text.contains("listend accepts no connections"), "{text}");
        }
        if !key.starts_with("ready: fd") {
            planned(&format!("listeners: tcp, activation: on-demand, {key}"));
        }
    }
}

#[test]
fn variables_that_listend_sets_are_not_set_by_others() {
    for (keys, name) in [
        ("ready: notify", "NOTIFY_SOCKET"),
        ("notify_access: all", "NOTIFY_SOCKET"),
        ("fd_store: 1", "NOTIFY_SOCKET"),
        ("watchdog: 1s", "NOTIFY_SOCKET"),
        ("watchdog: 1s", "WATCHDOG_USEC"),
        ("watchdog: 1s", "WATCHDOG_PID"),
    ] {
        let keys = format!("listeners: tcp, {keys}, environment: {{{name}: x}}");
        let (kind, text) = only_problem(&keys);
        assert_eq!(kind, "bad-value");
        assert!(
            text.contains(&format!("`{name}` is set by listend")),
            "{text}"
        );
    }
    // Nobody else sets them for a worker that tells nothing.
    planned("listeners: tcp, ready: accepting, environment: {NOTIFY_SOCKET: x}");
    planned("listeners: tcp, ready: notify, environment: {WATCHDOG_USEC: 5}");
}

/// What could not be read says nothing about what stands beside it.
#[test]
fn a_mistake_brings_no_other_with_it() {
    for (keys, said) in [
        ("listeners: tcp, activation: lazi, ready: notify", "`lazi`"),
        ("listeners: tcp, handoff: stdio, ready: fd 3", "`stdio`"),
        ("listeners: [tpc, udp], ready: accepting", "`tpc`"),
        ("listeners: [tpc], ready: fd 3", "`tpc`"),
        ("listeners: tcp, fd_store: many, handoff: inetd", "`many`"),
        (
            "listeners: tcp, stop_signal: TREM, reload_signal: TERM",
            "`TREM`",
        ),
        (
            "listeners: tcp, stop_signal: INT, reload_signal: HPU",
            "`HPU`",
        ),
        (
            "listeners: tcp, before_start: {command: [[x]]}",
            "`before_start`",
        ),
    ] {
        let (_, text) = only_problem(keys);
        assert!(text.contains(said), "{keys}: {text}");
    }
}

#[test]
fn two_mistakes_are_shown_with_both_places() {
    for keys in [
        "listeners: tcp, reload_signal: HUP, reload_command: x",
        "listeners: tcp, reload_signal: HUP, stop_signal: HUP",
        "listeners: tcp, handoff: inetd, fd_store: 3",
        "listeners: [udp, tcp], ready: accepting first",
        "listeners: [udp], ready: accepting",
        "listeners: tcp, handoff: nginx, ready: einhorn",
    ] {
        let loaded = worker(keys);
        let [problem] = loaded.report.errors.as_slice() else {
            panic!("{keys}: {}", shown(&loaded));
        };
        assert_eq!(problem.related.len(), 1, "{keys}");
        assert_ne!(problem.place, Some(problem.related[0].0), "{keys}");
    }
}

// systemd.unit(5): a drop-in wins over the unit, and the unit of an important directory over others.
#[test]
fn a_unit_that_cuts_a_stop_timeout_short_is_told() {
    let (_, plan) = planned("listeners: [tcp], stop_timeout: 20s");
    let root = TempDir::new();
    let write = |path: &str, text: &str| {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("make a directory");
        fs::write(path, text).expect("write a unit");
    };
    let advice = || {
        let config = Path::new("/srv/app.yaml");
        let problems = listend::diagnose::unit_limits(&plan, config, root.path());
        let messages = problems.into_iter().map(|problem| problem.message);
        messages.collect::<Vec<_>>()
    };
    let start = "[Service]\nExecStart=/usr/bin/listend run -c /srv/app.yaml\n";
    write(
        "usr/lib/systemd/system/app.service",
        &format!("{start}Type=exec\nTimeoutStopSec=10\n"),
    );
    write(
        "usr/lib/systemd/system/other.service",
        "[Service]\nExecStart=/bin/true\n",
    );
    let [only] = &advice()[..] else {
        panic!("{:?}", advice());
    };
    assert!(
        only.starts_with("app.service kills listend 10 s after"),
        "{only}"
    );
    let drop_in = "etc/systemd/system/app.service.d/stop.conf";
    write(drop_in, "[Service]\nTimeoutStopSec=1min\n");
    assert_eq!(advice(), [""; 0]);
    write(drop_in, "[Service]\nType=notify\n");
    assert_eq!(advice(), [""; 0]);
    write(drop_in, "[Service]\nNotifyAccess=none\n");
    assert_eq!(advice().len(), 1);
}

#[test]
fn a_unit_that_gives_no_control_groups_to_a_worker_with_limits_is_told() {
    let (_, plan) = planned("listeners: [tcp], sandbox: {tasks_max: 9, memory_max: 10%}");
    let root = TempDir::new();
    let unit = root.path().join("etc/systemd/system/app.service");
    fs::create_dir_all(unit.parent().expect("a parent")).expect("make a directory");
    let messages = |plan: &Plan, delegate: &str| {
        let start = "[Service]\nType=notify\nExecStart=/usr/bin/listend run -c /srv/app.yaml\n";
        fs::write(&unit, format!("{start}{delegate}\n")).expect("write a unit");
        let problems =
            listend::diagnose::unit_limits(plan, Path::new("/srv/app.yaml"), root.path());
        let messages = problems.into_iter().map(|problem| problem.message);
        messages.collect::<Vec<_>>()
    };
    for delegate in ["", "Delegate=no"] {
        let found = messages(&plan, delegate);
        let [only] = &found[..] else {
            panic!("{found:?}");
        };
        assert!(only.contains("`memory_max: 10%, tasks_max: 9`"), "{only}");
        assert!(
            only.ends_with("app.service gives listend no control groups"),
            "{only}"
        );
    }
    for delegate in ["Delegate=yes", "Delegate=cpu memory"] {
        assert_eq!(messages(&plan, delegate), [""; 0], "{delegate}");
    }
    let sandbox = "listeners: [tcp], sandbox: {tasks_max: 9, best_effort: true}";
    assert_eq!(messages(&planned(sandbox).1, ""), [""; 0]);
}
