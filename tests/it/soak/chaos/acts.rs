//! What the adversary can do: name, weight, whether it is possible, and the act, which says what it did. An act
//! changes the model with the daemon, and says what clients it may cost.

use super::faults::{self, last};
use super::model::{APPS, FAULTS, LATE_ADDRESS, TAKEN, Way};
use super::{Soak, load, look, run};
use crate::harness::{children, eventually, exists, kill, state};
use nix::sys::signal::Signal;
use serde_json::json;
use std::fs;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

#[derive(Clone, Copy)]
pub struct Act {
    pub name: &'static str,
    pub weight: u32,
    pub can: fn(&Soak<'_>) -> bool,
    pub act: fn(&mut Soak<'_>) -> String,
}

const fn act(name: &'static str, weight: u32, act: fn(&mut Soak<'_>) -> String) -> Act {
    Act {
        name,
        weight,
        can: |_| true,
        act,
    }
}

/// Everything as in the beginning, with workers that are children of the present daemon.
pub const HOME: Act = act("home", 0, home);

pub const ACTS: &[Act] = &[
    act("reload-nothing", 1, |soak| {
        soak.reload();
        "nothing has changed".to_owned()
    }),
    act("reload-revisions", 4, reload_revisions),
    act("reload-numbers", 2, reload_numbers),
    act("reload-extra", 3, reload_extra),
    act("reload-shards", 2, reload_shards),
    Act {
        can: |soak| soak.model.can_be_sticky(),
        ..act("reload-sticky", 2, reload_sticky)
    },
    act("reload-backlog", 1, reload_backlog),
    act("bad-yaml", 2, bad_yaml),
    act("port-taken", 2, port_taken),
    act("bad-release", 3, bad_release),
    act("sighup", 1, sighup),
    act("restart", 4, restart),
    act("scale", 3, scale),
    act("stop-start", 2, stop_start),
    act("kill-worker", 4, kill_worker),
    act("kill-all-of-a-worker", 3, kill_all_of_a_worker),
    act("kill-forwarder", 2, kill_forwarder),
    act("kill-helper", 2, kill_helper),
    act("kill-daemon", 4, kill_daemon),
    act("kill-daemon-twice", 2, kill_daemon_twice),
    act("kill-daemon-and-worker", 3, kill_daemon_and_worker),
    act("kill-daemon-in-restart", 3, kill_daemon_in_restart),
    act("kill-daemon-in-reload", 3, kill_daemon_in_reload),
    act("kill-daemon-in-stop", 2, kill_daemon_in_stop),
    act("upgrade", 3, upgrade),
    act("upgrade-in-restart", 3, upgrade_in_restart),
    act("upgrade-then-kill", 2, upgrade_then_kill),
    act("freeze-worker", 3, freeze_worker),
    act("freeze-helper", 2, freeze_helper),
    act("freeze-watchdog", 1, freeze_watchdog),
    act("freeze-daemon", 2, freeze_daemon),
    act("freeze-guard", 1, freeze_guard),
    act("unlink", 4, unlink),
    act("replace", 2, replace),
    act("disk-full", 2, disk_full),
    act("rotate-logs", 1, rotate_logs),
    act("no-descriptors", 2, no_descriptors),
    act("address", 2, address),
    Act {
        can: |soak| soak.has_clock,
        ..act("clock", 2, clock)
    },
    act("flood", 2, |soak| flood(soak, false)),
    act("flood-by-a-stranger", 2, |soak| flood(soak, true)),
    act("burst", 2, burst),
    act("nobody-comes", 1, nobody_comes),
    act("sources-change", 2, sources_change),
    act("messages", 2, messages),
];

fn home(soak: &mut Soak<'_>) -> String {
    soak.model.configured = [("web", 2), ("sharded", 3)].into();
    soak.model.is_sharded = true;
    soak.model.is_sticky = soak.model.can_be_sticky();
    soak.model.has_extra = false;
    soak.load.close("extra");
    soak.reload();
    for (name, count) in soak.model.configured.clone() {
        soak.ask("Scale", &json!({ "worker": name, "instances": count }));
        soak.model.scaled.insert(name, count);
    }
    let workers = soak.model.names();
    for name in workers {
        let can_start = name != "late" || soak.model.is_late_bound;
        if name != "each" && can_start {
            soak.ask("Restart", &json!({ "worker": name }));
        }
    }
    "as in the beginning".to_owned()
}

fn reload_revisions(soak: &mut Soak<'_>) -> String {
    let changed = change_revisions(soak);
    soak.reload();
    format!("{changed:?}")
}

/// The next revision of some workers.
fn change_revisions(soak: &mut Soak<'_>) -> Vec<&'static str> {
    let names: Vec<&str> = soak.model.revisions.keys().copied().collect();
    let mut changed = Vec::new();
    for name in names {
        if soak.random.one_in(3) {
            *soak.model.revisions.entry(name).or_default() += 1;
            changed.push(name);
        }
    }
    changed
}

fn reload_numbers(soak: &mut Soak<'_>) -> String {
    let name = soak.random.pick(&["web", "sharded"]);
    let before = soak.model.configured[name];
    let count = 1 + (before + soak.random.below(3) as u32) % 4;
    soak.model.configured.insert(name, count);
    if count != before {
        soak.model.scaled.insert(name, count);
    }
    soak.reload();
    format!("{name}: {count} instances")
}

fn reload_extra(soak: &mut Soak<'_>) -> String {
    if soak.model.has_extra {
        soak.load.close("extra");
    }
    soak.model.has_extra = !soak.model.has_extra;
    soak.reload();
    format!("extra: {}", soak.model.has_extra)
}

fn reload_shards(soak: &mut Soak<'_>) -> String {
    soak.model.is_sharded = !soak.model.is_sharded;
    // Who waits in a queue that is closed is served by whom its worker was asked to drain it.
    soak.reload();
    format!("shards: {}", soak.model.is_sharded)
}

fn reload_sticky(soak: &mut Soak<'_>) -> String {
    soak.model.is_sticky = !soak.model.is_sticky;
    soak.reload();
    format!("sticky: {}", soak.model.is_sticky)
}

fn reload_backlog(soak: &mut Soak<'_>) -> String {
    soak.model.backlog = 64 + soak.random.below(1000) as u32;
    soak.reload();
    format!("backlog {}", soak.model.backlog)
}

/// The name of the error that a call replies.
fn refused(soak: &Soak<'_>, method: &str) -> String {
    let reply = look::call(&soak.control, method, &json!({})).expect(method);
    let name = reply["error"].as_str().unwrap_or_default();
    assert!(!name.is_empty(), "{method}: {reply}");
    name.rsplit('.').next().unwrap_or_default().to_owned()
}

fn bad_yaml(soak: &mut Soak<'_>) -> String {
    let good = soak.model.yaml();
    let bad = [
        "listeners: {",
        "listeners: { web: nonsense }",
        "\0",
        "workers: { web: { command: /nonexistent, listeners: [nothing] } }",
        "",
    ];
    let bad = soak.random.pick(&bad);
    let text = match bad {
        "" => good.replace("ready: notify", "ready: never"),
        bad => bad.to_owned(),
    };
    soak.world.write("listend.yaml", &text);
    let error = refused(soak, "Reload");
    soak.write();
    format!("{bad:?}: {error}")
}

fn port_taken(soak: &mut Soak<'_>) -> String {
    let taken = TcpListener::bind(("127.0.0.1", TAKEN)).expect("bind");
    let before = soak.model.clone();
    soak.model.wants_taken = true;
    // Everything or nothing.
    soak.model.has_extra = true;
    change_revisions(soak);
    soak.write();
    let error = refused(soak, "Reload");
    soak.model = before;
    soak.write();
    drop(taken);
    error
}

fn bad_release(soak: &mut Soak<'_>) -> String {
    let worker = soak
        .random
        .pick(&["web", "kinds", "sharded", "elastic", "boxed", "dog"]);
    let fault = soak.random.pick(FAULTS);
    let before = soak.model.clone();
    change_revisions(soak);
    soak.model.fault = Some((worker, fault));
    soak.write();
    let error = refused(soak, "Reload");
    soak.model = before;
    // Whatever was replaced has gone back by now, and this says it to status as well.
    soak.reload();
    soak.ask("Restart", &json!({ "worker": worker }));
    format!("{worker} {fault}: {error}")
}

fn sighup(soak: &mut Soak<'_>) -> String {
    let changed = change_revisions(soak);
    soak.write();
    soak.guard.signal(Signal::SIGHUP);
    // Waits for the rollouts that the signal began: what ends before min_ready rolls them back. The guard may pass the
    // signal on after the call, which it supersedes then.
    let none = json!({});
    let first = look::call(&soak.control, "Reload", &none).expect("Reload");
    if first["parameters"]["reason"] == "superseded by a later command or reload" {
        soak.ask("Reload", &none);
    } else {
        assert!(first["error"].is_null(), "Reload: {first}");
    }
    format!("{changed:?}")
}

fn restart(soak: &mut Soak<'_>) -> String {
    let worker = some_worker(soak);
    if soak.random.one_in(2) {
        soak.ask("Restart", &json!({ "worker": worker }));
        return worker.to_owned();
    }
    let now = json!({ "worker": worker, "no_wait": true });
    for _ in 0..3 {
        soak.ask("Restart", &now);
    }
    format!("{worker}, three times at once")
}

fn some_app(soak: &mut Soak<'_>) -> &'static str {
    soak.random.pick(APPS)
}

/// The same, or the one whose processes have clients of their own.
fn some_worker(soak: &mut Soak<'_>) -> &'static str {
    let all: Vec<&str> = APPS.iter().copied().chain(["forwarded"]).collect();
    soak.random.pick(&all)
}

fn scale(soak: &mut Soak<'_>) -> String {
    let worker = soak.random.pick(&["web", "sharded"]);
    let count = 1 + soak.random.below(5) as u32;
    soak.ask("Scale", &json!({ "worker": worker, "instances": count }));
    soak.model.scaled.insert(worker, count);
    format!("{worker}: {count}")
}

fn stop_start(soak: &mut Soak<'_>) -> String {
    let worker = some_worker(soak);
    soak.ask("Stop", &json!({ "worker": worker }));
    last(pause(soak, 300));
    soak.ask("Start", &json!({ "worker": worker }));
    worker.to_owned()
}

/// Up to so many milliseconds.
fn pause(soak: &mut Soak<'_>, most: u64) -> Duration {
    Duration::from_millis(soak.random.below(most))
}

/// Kills a process that may have ended by itself.
fn slay(pid: i32) {
    let _gone = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL);
}

fn kill_worker(soak: &mut Soak<'_>) -> String {
    let worker = some_app(soak);
    let all = soak.pids(worker);
    let Some(pid) = all.get(soak.random.below(all.len().max(1) as u64) as usize) else {
        return format!("{worker} does not run");
    };
    soak.allowed.killed(worker, 1);
    slay(*pid);
    format!("{worker}, {pid}")
}

fn kill_all_of_a_worker(soak: &mut Soak<'_>) -> String {
    let worker = some_app(soak);
    let all = soak.pids(worker);
    soak.allowed.killed(worker, all.len());
    all.iter().for_each(|pid| slay(*pid));
    format!("{worker}, {all:?}")
}

fn kill_forwarder(soak: &mut Soak<'_>) -> String {
    let forwarder = soak.pids("forwarded");
    let backends: Vec<i32> = forwarder.iter().flat_map(|pid| children(*pid)).collect();
    // It is started again with the same clients waiting: those that it had are cut. A server that dies first takes
    // clients with it for as long as the forwarder cannot know.
    let is_backend = soak.random.one_in(2);
    soak.allowed
        .killed("forwarded", if is_backend { 20 } else { 1 });
    let victims = if is_backend { backends } else { forwarder };
    victims.iter().for_each(|pid| slay(*pid));
    format!("backend: {is_backend}, {victims:?}")
}

fn kill_helper(soak: &mut Soak<'_>) -> String {
    let word = soak.random.pick(&["__write", "__watch", "web"]);
    let victims = helpers(soak, word);
    if word == "web" {
        soak.allowed.killed("listend:web", 1);
    }
    victims.iter().for_each(|pid| slay(*pid));
    format!("{word}: {victims:?}")
}

/// The processes of listend's own that have this word in their command.
fn helpers(soak: &Soak<'_>, word: &str) -> Vec<i32> {
    let parents = [soak.daemon(), soak.guard.pid()];
    let all = parents.iter().flat_map(|pid| children(*pid));
    let is_it = |pid: &i32| {
        let words = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        words.split('\0').any(|one| one == word)
    };
    all.filter(is_it).collect()
}

/// Kills the daemon, and the next one answers. A connection that it had accepted for a process that it had not
/// started yet is lost.
fn kill_it(soak: &mut Soak<'_>) {
    let daemon = soak.daemon();
    kill_this(soak, daemon);
    await_next(soak, daemon);
}

fn kill_this(soak: &mut Soak<'_>, daemon: i32) {
    soak.allowed.killed("each", 1);
    soak.allowed.killed("listend:web", 1);
    slay(daemon);
}

fn await_next(soak: &Soak<'_>, before: i32) {
    eventually("another daemon answers", || soak.daemon() != before);
}

fn kill_daemon(soak: &mut Soak<'_>) -> String {
    kill_it(soak);
    String::new()
}

fn kill_daemon_twice(soak: &mut Soak<'_>) -> String {
    kill_it(soak);
    let time = pause(soak, 100);
    last(time);
    kill_it(soak);
    format!("{time:?} later again")
}

fn kill_daemon_and_worker(soak: &mut Soak<'_>) -> String {
    let worker = some_app(soak);
    let all = soak.pids(worker);
    soak.allowed.killed(worker, all.len());
    let daemon = soak.daemon();
    let is_worker_first = soak.random.one_in(2);
    if is_worker_first {
        all.iter().for_each(|pid| slay(*pid));
        last(pause(soak, 20));
    }
    kill_this(soak, daemon);
    if !is_worker_first {
        all.iter().for_each(|pid| slay(*pid));
    }
    await_next(soak, daemon);
    format!("{worker} {all:?} first: {is_worker_first}")
}

fn kill_daemon_in_restart(soak: &mut Soak<'_>) -> String {
    let workers = [some_worker(soak), some_worker(soak)];
    for worker in workers {
        soak.ask("Restart", &json!({ "worker": worker, "no_wait": true }));
    }
    let time = pause(soak, 80);
    last(time);
    kill_it(soak);
    format!("{workers:?}, after {time:?}")
}

fn kill_daemon_in_reload(soak: &mut Soak<'_>) -> String {
    let changed = change_revisions(soak);
    if soak.model.has_extra {
        soak.load.close("extra");
    }
    soak.model.has_extra = !soak.model.has_extra;
    soak.write();
    soak.ask("Reload", &json!({ "no_wait": true }));
    let time = pause(soak, 150);
    last(time);
    kill_it(soak);
    // It may have been applied or not.
    soak.reload();
    format!(
        "{changed:?}, extra {}, after {time:?}",
        soak.model.has_extra
    )
}

fn kill_daemon_in_stop(soak: &mut Soak<'_>) -> String {
    let worker = some_worker(soak);
    soak.ask("Stop", &json!({ "worker": worker, "no_wait": true }));
    let time = pause(soak, 10);
    last(time);
    kill_it(soak);
    soak.ask("Start", &json!({ "worker": worker }));
    format!("{worker}, after {time:?}")
}

fn upgrade(soak: &mut Soak<'_>) -> String {
    upgrade_it(soak, "upgrade")
}

/// By the command, which knows the next listend when it sees it.
fn upgrade_it(soak: &mut Soak<'_>, words: &str) -> String {
    // The page asks over a connection that ends with the daemon.
    soak.allowed.killed("listend:web", 1);
    let deadline = Instant::now() + crate::harness::DEADLINE;
    loop {
        let done = crate::harness::reloading::ask(soak.world, words);
        // A new generation may still be watched when everything is at rest.
        if !done.stderr.contains("is under way") || Instant::now() > deadline {
            return done.expect_code(0).stdout.trim().to_owned();
        }
        last(Duration::from_millis(50));
    }
}

fn upgrade_in_restart(soak: &mut Soak<'_>) -> String {
    let workers = [some_worker(soak), some_worker(soak)];
    for worker in workers {
        soak.ask("Restart", &json!({ "worker": worker, "no_wait": true }));
    }
    let time = pause(soak, 50);
    last(time);
    upgrade_it(soak, "upgrade --now");
    format!("{workers:?}, after {time:?}")
}

fn upgrade_then_kill(soak: &mut Soak<'_>) -> String {
    upgrade_it(soak, "upgrade");
    let time = pause(soak, 30);
    last(time);
    kill_it(soak);
    format!("after {time:?}")
}

/// Stops a process for a while.
fn freeze(pid: i32, time: Duration) {
    kill(pid, Signal::SIGSTOP);
    last(time);
    // Somebody may have killed it meanwhile.
    let _gone = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGCONT);
}

fn freeze_worker(soak: &mut Soak<'_>) -> String {
    let worker = some_worker(soak);
    let time = pause(soak, 1500);
    let Some(pid) = soak
        .pids(worker)
        .first()
        .copied()
        .filter(|pid| exists(*pid))
    else {
        return format!("{worker} does not run");
    };
    freeze(pid, time);
    format!("{worker}, {pid} for {time:?}")
}

fn freeze_helper(soak: &mut Soak<'_>) -> String {
    let word = soak.random.pick(&["__write", "__watch", "web", "backend"]);
    let time = pause(soak, 1500);
    let victims = match word {
        "backend" => soak
            .pids("forwarded")
            .into_iter()
            .flat_map(children)
            .collect(),
        word => helpers(soak, word),
    };
    victims.iter().for_each(|pid| kill(*pid, Signal::SIGSTOP));
    last(time);
    victims.iter().for_each(|pid| kill(*pid, Signal::SIGCONT));
    format!("{word}: {victims:?} for {time:?}")
}

/// One that does not go on is killed, and has a successor.
fn freeze_watchdog(soak: &mut Soak<'_>) -> String {
    let pid = soak.pids("dog")[0];
    soak.allowed.killed("dog", 1);
    kill(pid, Signal::SIGSTOP);
    eventually("the watchdog has bitten", || {
        !exists(pid) || state(pid) == Some('Z')
    });
    format!("{pid}")
}

fn freeze_daemon(soak: &mut Soak<'_>) -> String {
    let time = pause(soak, 1500);
    freeze(soak.daemon(), time);
    format!("for {time:?}")
}

fn freeze_guard(soak: &mut Soak<'_>) -> String {
    let time = pause(soak, 800);
    kill(soak.guard.pid(), Signal::SIGSTOP);
    let daemon = soak.daemon();
    let worker = some_worker(soak);
    // What is told to the guard meanwhile waits for it.
    soak.ask("Restart", &json!({ "worker": worker, "no_wait": true }));
    last(time);
    let is_killed = soak.random.one_in(2);
    if is_killed {
        kill_this(soak, daemon);
    }
    kill(soak.guard.pid(), Signal::SIGCONT);
    if is_killed {
        await_next(soak, daemon);
    }
    format!("{worker} for {time:?}, killed {is_killed}")
}

const PATHS: &[(&str, &str)] = &[
    ("web.sock", "web"),
    ("packets.sock", "kinds"),
    ("datagrams.sock", "kinds"),
    ("boxed.sock", "boxed"),
    ("boxed.link", "boxed"),
    ("fifo", "special"),
    // Those of listend itself.
    ("control.sock", ""),
    ("control.notify", ""),
];

fn unlink(soak: &mut Soak<'_>) -> String {
    let (name, worker) = soak.random.pick(PATHS);
    let with_spare = soak.random.one_in(3);
    let path = soak.world.path(name);
    if with_spare {
        // So it cannot be put back, and is bound anew.
        let _none = fs::remove_file(soak.world.path(&format!(".{name}.listend")));
        soak.allowed.killed(worker, 4);
    }
    soak.allowed.absent(if name == "packets.sock" {
        "packets"
    } else {
        name
    });
    soak.allowed.absent(if name == "datagrams.sock" {
        "datagrams"
    } else {
        name
    });
    fs::remove_file(&path).expect("remove");
    eventually("it is back", || super::exists(&path));
    format!("{name}, with its other name: {with_spare}")
}

/// Somebody else has the path, and gives it up again.
fn replace(soak: &mut Soak<'_>) -> String {
    let (name, _) = soak.random.pick(&PATHS[..4]);
    let path = soak.world.path(name);
    for one in [name, name.trim_end_matches(".sock")] {
        soak.allowed.absent(match one {
            "packets" => "packets",
            "datagrams" => "datagrams",
            _ => name,
        });
    }
    let beside = soak.world.path("beside");
    let is_socket = soak.random.one_in(2);
    let socket = is_socket.then(|| UnixListener::bind(&beside).expect("bind"));
    if socket.is_none() {
        fs::write(&beside, "not yours").expect("write");
    }
    fs::rename(&beside, &path).expect("rename");
    let theirs = faults::identity(&path);
    last(Duration::from_millis(300));
    // What listens is not taken away, and neither is a file that is no socket.
    assert_eq!(
        faults::identity(&path),
        theirs,
        "{name} was somebody else's"
    );
    drop(socket);
    let _taken_over = fs::remove_file(&path);
    format!("{name}, by a socket: {is_socket}")
}

fn disk_full(soak: &mut Soak<'_>) -> String {
    let path = soak.world.path("disk/full");
    faults::fill(&path);
    soak.load.wait_for_answers(3);
    fs::remove_file(path).expect("remove");
    // What workers write is in the file again.
    for name in ["disk/kinds.log", "disk/boxed.log"] {
        let log = soak.world.path(name);
        let file = fs::File::options().write(true).open(&log).expect("the log");
        file.set_len(0).expect("truncate");
        let has_lines = || fs::metadata(&log).is_ok_and(|file| file.len() > 0);
        eventually("workers' lines are written", has_lines);
    }
    String::new()
}

fn rotate_logs(soak: &mut Soak<'_>) -> String {
    let (log, old) = (
        soak.world.path("disk/kinds.log"),
        soak.world.path("disk/kinds.log.1"),
    );
    if fs::rename(&log, &old).is_err() {
        return "there is none".to_owned();
    }
    soak.ask("Reopen", &json!({}));
    eventually("the log is there again", || super::exists(&log));
    fs::remove_file(old).expect("remove");
    String::new()
}

fn no_descriptors(soak: &mut Soak<'_>) -> String {
    let daemon = soak.daemon();
    let limits = faults::open_files(daemon);
    let used = fs::read_dir(format!("/proc/{daemon}/fd"))
        .expect("it runs")
        .count() as u64;
    let left = soak.random.below(4);
    let worker = some_app(soak);
    let all = soak.pids(worker);
    faults::limit_open_files(daemon, (used + left, limits.1));
    soak.allowed.killed(worker, all.len());
    all.iter().for_each(|pid| slay(*pid));
    last(Duration::from_millis(400));
    faults::limit_open_files(daemon, limits);
    format!("{left} left of {used}, {worker} killed")
}

fn address(soak: &mut Soak<'_>) -> String {
    let address = format!("{LATE_ADDRESS}/32");
    if soak.has_address {
        soak.load.close("late");
        run(&["ip", "addr", "del", &address, "dev", "lo"]);
        soak.has_address = false;
        return "it has gone".to_owned();
    }
    run(&["ip", "addr", "add", &address, "dev", "lo"]);
    soak.has_address = true;
    soak.model.is_late_bound = true;
    "it has come".to_owned()
}

fn clock(soak: &mut Soak<'_>) -> String {
    let time = soak
        .random
        .pick(&["+0", "+1h", "-1h", "+400d", "-20y", "+1s", "+18y"]);
    fs::write(soak.world.path("time"), time).expect("write");
    time.to_owned()
}

fn flood(soak: &mut Soak<'_>, is_stranger: bool) -> String {
    let script = soak.world.path("flood.py").display().to_string();
    let dir = soak.world.dir().display().to_string();
    let seed = soak.random.below(1000).to_string();
    let user = if is_stranger { "65534" } else { "0" };
    run(&["python3", &script, &dir, "0.8", &seed, user]);
    format!("from {seed}")
}

/// Many clients of the worker whose number follows the queue.
fn burst(soak: &mut Soak<'_>) -> String {
    let dir = soak.world.dir();
    let endpoint = super::ENDPOINTS.iter().find(|one| one.name == "elastic");
    let way = endpoint.map_or(Way::Tcp("127.0.0.1", 0), |one| one.way);
    std::thread::scope(|scope| {
        let ask = || (0..20).try_for_each(|_| load::ask(way, dir).map(drop));
        let clients: Vec<_> = (0..20).map(|_| scope.spawn(ask)).collect();
        for client in clients {
            let result = client.join().expect("a client that does not panic");
            result.expect("everybody is answered");
        }
    });
    format!("{} instances", soak.pids("elastic").len())
}

/// What runs for clients only ends.
fn nobody_comes(soak: &mut Soak<'_>) -> String {
    soak.load.pause_for(|| {
        eventually("nobody needs it", || soak.pids("demand").is_empty());
    });
    String::new()
}

fn sources_change(soak: &mut Soak<'_>) -> String {
    let before = soak.pids("watched");
    let text = soak.random.next().to_string();
    fs::write(soak.world.path("src/main"), text).expect("write");
    eventually("it is restarted", || {
        soak.pids("watched").iter().any(|pid| !before.contains(pid))
    });
    format!("{before:?}")
}

/// What is no socket reaches its worker.
fn messages(soak: &mut Soak<'_>) -> String {
    let word = format!("word-{}", soak.random.next());
    let fifo = soak.world.path("fifo");
    fs::write(&fifo, format!("{word}\n")).expect("write");
    let sink = soak.world.path("sink");
    eventually("it has come", || {
        fs::read_to_string(&sink).is_ok_and(|text| text.contains(&word))
    });
    let _ = fs::remove_file(&sink);
    run(&[
        "ip", "link", "add", "soak0", "type", "veth", "peer", "name", "soak1",
    ]);
    run(&["ip", "link", "del", "soak0"]);
    eventually("the kernel has said so", || {
        fs::read_to_string(&sink).is_ok_and(|text| text.contains("netlink"))
    });
    fs::remove_file(sink).expect("remove");
    word
}
