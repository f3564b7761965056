//! When an instance counts as ready, and what becomes of one that is not or gives no sign of life.

use crate::harness::app::{PUPPET, yaml};
use crate::harness::servers::{self, apps, server, server_that_says};
use crate::harness::varlink::{self, Varlink};
use crate::harness::{
    Daemon, Puppet, World, client, eventually, public_probe, require_root, require_tool, state,
};
use nix::sys::signal::Signal;
use serde_json::json;
use std::os::unix::net::{UnixDatagram, UnixListener};

const QUICK: &str = "restart: { policy: always, backoff: 10ms..20ms, limit: none }";
const UP: &str = "every eager worker";

/// A daemon that says everything, with a control socket.
fn run(world: &World, command: &str, lines: &str) -> Daemon {
    let words = varlink::words(world);
    world.run_with(&yaml(command, lines), |start| {
        start.words_behind(words.iter().map(String::as_str));
        start.words_behind(["--log-level", "debug"]);
    })
}

fn with_puppet(world: &World, lines: &str) -> (Daemon, Puppet) {
    let daemon = run(world, PUPPET, lines);
    (daemon, world.puppet())
}

/// The state of the worker, as `listend status` has it.
#[track_caller]
fn shown(client: &mut Varlink) -> String {
    let status = client.ask("Status", json!({ "name": "app" }));
    let state = &status["workers"][0]["instances"][0]["state"];
    state.as_str().expect("a state").to_owned()
}

fn is_up(daemon: &Daemon) -> bool {
    !daemon.lines_so_far(&[UP]).is_empty()
}

/// Asks until all that was said before has been heard.
fn heard(puppet: &mut Puppet) {
    assert_eq!(puppet.ask("barrier"), "barrier");
}

// --- Telling -------------------------------------------------------------------------------------

// sd_notify(3): READY=1 "tells the service manager that service startup is finished".
#[test]
fn an_instance_is_starting_until_it_says_that_it_is_ready() {
    let world = World::new();
    let (daemon, mut puppet) = with_puppet(&world, "ready: notify");
    let mut client = Varlink::connect(&world);
    let mut starter = Varlink::connect(&world);
    starter.call_with("Start", json!({ "worker": "app" }), json!({ "more": true }));
    let first = starter.next().expect("how much there is to do");
    assert_eq!(first["parameters"]["done"], 0);
    assert_eq!(shown(&mut client), "starting");
    assert!(!is_up(&daemon));
    puppet.ask("notify STATUS=warming up|RELOADING=1");
    heard(&mut puppet);
    assert_eq!(shown(&mut client), "starting");
    puppet.ask("notify READY=1");
    heard(&mut puppet);
    assert_eq!(shown(&mut client), "running");
    daemon.line(&["app.0: ready after"]);
    daemon.line(&[UP]);
    let last = std::iter::from_fn(|| starter.next()).find(|reply| reply["continues"] != true);
    assert_eq!(last.expect("the end")["parameters"]["done"], 1);
    // That was its first start, and no reload.
    assert!(
        daemon
            .lines_so_far(&["reloaded its configuration"])
            .is_empty()
    );
    puppet.ask("notify RELOADING=1");
    puppet.ask("notify READY=1");
    daemon.line(&["app.0: has reloaded its configuration"]);
    daemon.stop();
}

// sd_notify(3): RELOADING=1, and READY=1 when that is over.
#[test]
fn a_reload_waits_for_who_says_that_it_reads_its_configuration_again() {
    let world = World::new();
    let lines = "ready: notify\nreload_command: ['true']\nstart_timeout: 4s";
    let (daemon, mut puppet) = with_puppet(&world, lines);
    puppet.ask("notify READY=1");
    daemon.line(&[UP]);
    for well in [true, false] {
        puppet.ask("notify RELOADING=1");
        heard(&mut puppet);
        let mut client = Varlink::connect(&world);
        client.call_with(
            "Reload",
            json!({ "worker": "app" }),
            json!({ "more": true }),
        );
        let first = client.next().expect("how much there is to do");
        assert_eq!(first["parameters"]["done"], 0, "{first}");
        if well {
            puppet.ask("notify READY=1");
        }
        let last = std::iter::from_fn(|| client.next()).find(|reply| reply["continues"] != true);
        let last = last.expect("the end");
        assert_eq!(last["error"].is_null(), well, "{last}");
        let why = "app.0 has sent RELOADING=1, but no READY=1";
        assert_eq!(last.to_string().contains(why), !well, "{last}");
    }
    daemon.stop();
}

#[test]
fn only_those_who_may_tell_make_it_ready() {
    let world = World::new();
    let (daemon, mut puppet) = with_puppet(
        &world,
        "ready: notify\nnotify_access: main\nkill_mode: group",
    );
    let socket = puppet.report.env["NOTIFY_SOCKET"].clone();
    let ours = UnixDatagram::unbound().expect("socket");
    ours.send_to(b"READY=1", &socket).expect("send");
    let ours = std::process::id();
    daemon.line(&[&format!("dropped a notification of pid {ours}")]);
    let child = puppet.ask("child READY=1");
    heard(&mut puppet);
    daemon.line(&[&format!("dropped a notification of pid {child}")]);
    assert_eq!(shown(&mut Varlink::connect(&world)), "starting");
    assert!(!is_up(&daemon));
    daemon.stop();
    let world = World::new();
    let (daemon, mut puppet) = with_puppet(
        &world,
        "ready: notify\nnotify_access: all\nkill_mode: group",
    );
    puppet.ask("child READY=1");
    daemon.line(&[UP]);
    daemon.stop();
}

// What was said is taken before the process is reaped, so that it was ready once.
#[test]
fn one_that_says_it_and_ends_at_once_was_ready() {
    let world = World::new();
    let (daemon, mut puppet) = with_puppet(&world, "ready: notify\nrestart: never");
    daemon.pause();
    puppet.ask("notify READY=1");
    puppet.tell("exit 0");
    puppet.wait_for_its_end();
    daemon.resume();
    daemon.line(&["app.0: ready after"]);
    daemon.line(&["app.0: exited with exit status 0"]);
    assert!(daemon.lines_so_far(&["dropped"]).is_empty());
    daemon.stop();
}

/// A worker that is ready once whatever it runs has said so.
fn becomes_ready(command: &str, lines: &str) {
    let world = World::new();
    becomes_ready_in(&world, command, lines);
}

fn becomes_ready_in(world: &World, command: &str, lines: &str) {
    let daemon = run(world, command, &format!("ready: notify\n{lines}"));
    daemon.line(&["app.0: ready after"]);
    daemon.line(&[UP]);
    daemon.signal(Signal::SIGTERM);
    daemon.signal(Signal::SIGTERM);
    daemon.status();
}

fn python_module(module: &str) -> Option<&'static str> {
    let found = ["python3", "/usr/bin/python3"].into_iter().find(|python| {
        let import = std::process::Command::new(python)
            .args(["-c", &format!("import {module}")])
            .output();
        import.is_ok_and(|output| output.status.success())
    });
    if found.is_none() {
        crate::harness::skip(&format!("python3 has no module {module}"));
    }
    found
}

#[test]
fn python_s_modules_make_it_ready() {
    for (module, line) in [
        (
            "sdnotify",
            "import sdnotify; sdnotify.SystemdNotifier().notify('READY=1')",
        ),
        (
            "systemd.daemon",
            "from systemd import daemon; daemon.notify('READY=1')",
        ),
    ] {
        let Some(python) = python_module(module) else {
            continue;
        };
        let world = World::new();
        let script = world.write(
            "worker.py",
            &format!("import signal\n{line}\nsignal.pause()\n"),
        );
        becomes_ready_in(&world, &format!("[{python}, {}]", script.display()), "");
    }
}

#[test]
fn systemd_notify_makes_it_ready() {
    if require_tool("systemd-notify").is_none() {
        return;
    }
    becomes_ready(
        "[sh, -c, 'systemd-notify --ready; exec sleep 60']",
        "notify_access: all",
    );
}

#[test]
fn the_crate_makes_it_ready() {
    let world = World::new();
    let (daemon, mut puppet) = with_puppet(&world, "ready: notify\nfd_store: 1");
    assert_eq!(puppet.ask("crate well"), "crate");
    daemon.line(&[UP]);
    daemon.stop();
}

// gunicorn tells by itself, in its arbiter, once it has its listener (gunicorn/systemd.py).
#[test]
fn gunicorn_makes_itself_ready() {
    let Some(gunicorn) = server("gunicorn") else {
        return;
    };
    let apps = apps();
    becomes_ready(
        &format!("[{}, --chdir, {apps}, 'wsgi:app']", gunicorn.display()),
        "notify_access: main\nenvironment: { PYTHONDONTWRITEBYTECODE: '1' }",
    );
}

// --- The time that it has ------------------------------------------------------------------------

#[test]
fn one_that_is_not_ready_in_time_is_ended_as_a_crash_with_its_last_words() {
    let world = World::new();
    let lines = "ready: notify
start_timeout: 300ms
stop_timeout: 200ms
output: tag
restart: { backoff: 1ms..2ms, limit: 1 in 1h }";
    let command = "[sh, -c, 'trap : TERM; echo no database; while :; do sleep 0.1; done']";
    let daemon = run(&world, command, lines);
    let line = daemon
        .lines(&["ERROR", "app.0: not ready within"], 2)
        .remove(0);
    assert!(line.contains("no database"), "{line}");
    let why = ": it has not sent READY=1 (`ready: notify`); stopping it";
    assert!(line.contains(why), "{line}");
    daemon.line(&["app.0", "killed by SIGKILL", "restarting in"]);
    daemon.line(&["app.0", "too many crashes: 2 within"]);
    daemon.line(&["worker app: every instance has failed"]);
    daemon.stop();
}

#[test]
fn more_time_is_given_to_start_and_to_stop() {
    let world = World::new();
    let lines = "ready: notify\nstart_timeout: 1s\nstop_timeout: 500ms";
    let (daemon, mut puppet) = with_puppet(&world, lines);
    puppet.ask("notify EXTEND_TIMEOUT_USEC=3600000000");
    heard(&mut puppet);
    let mut client = Varlink::connect(&world);
    assert_eq!(shown(&mut client), "starting");
    eventually("more than start_timeout is over", || {
        let status = client.ask("Status", json!({ "name": "app" }));
        let one = &status["workers"][0]["instances"][0];
        let since = one["since"].as_str().expect("a time");
        assert_eq!(one["state"], "starting", "{one}");
        seconds_since(since) >= 2
    });
    puppet.ask("notify READY=1");
    daemon.line(&[UP]);
    puppet.ask("drain");
    daemon.signal(Signal::SIGTERM);
    assert_eq!(puppet.listen().as_deref(), Some("term"));
    puppet.ask("notify STOPPING=1|EXTEND_TIMEOUT_USEC=3600000000");
    heard(&mut puppet);
    let began = std::time::Instant::now();
    eventually("more than stop_timeout is over", || {
        began.elapsed() > std::time::Duration::from_millis(700)
    });
    heard(&mut puppet);
    puppet.tell("exit 0");
    assert_eq!(daemon.status().code(), Some(0));
    assert!(daemon.lines_so_far(&["still there after"]).is_empty());
    assert!(daemon.lines_so_far(&["killed by"]).is_empty());
    assert!(daemon.lines_so_far(&["not ready within"]).is_empty());
}

/// How long ago that was, by the clock that it is of.
fn seconds_since(time: &str) -> u64 {
    let date = std::process::Command::new("date")
        .args(["-d", time, "+%s"])
        .output();
    let text = String::from_utf8(date.expect("date").stdout).expect("UTF-8");
    let then: u64 = text.trim().parse().expect("a number");
    let now = std::time::UNIX_EPOCH.elapsed().expect("after 1970");
    now.as_secs().saturating_sub(then)
}

// --- The newline ---------------------------------------------------------------------------------

#[test]
fn a_newline_makes_it_ready_and_its_end_alone_does_not() {
    let world = World::new();
    let (daemon, mut puppet) = with_puppet(&world, "ready: fd 7");
    puppet.ask("write 7 not yet");
    assert_eq!(shown(&mut Varlink::connect(&world)), "starting");
    puppet.ask("line 7 now");
    daemon.line(&["app.0: ready after"]);
    daemon.line(&[UP]);
    daemon.stop();
    let world = World::new();
    let lines = "ready: fd 7\nstart_timeout: 500ms\nrestart: never";
    let (daemon, mut puppet) = with_puppet(&world, lines);
    puppet.ask("close 7");
    daemon.line(&["app.0: closed the descriptor of `ready: fd` without a newline"]);
    daemon.line(&["app.0: not ready within"]);
    puppet.wait_for_its_end();
    assert!(daemon.lines_so_far(&["ready after"]).is_empty());
    daemon.stop();
}

// --- What the kernel shows -----------------------------------------------------------------------

/// Starts a server whose application waits at a gate while it is loaded: it is not ready there.
fn is_ready_behind_the_gate(command: &[&str], lines: &str) {
    let world = World::new();
    let gate = UnixListener::bind(world.path("start")).expect("bind the gate");
    let command = format!("['{}']", command.join("', '"));
    let lines = format!(
        "ready: accepting\nstart_timeout: 60s\nenvironment: {{ START: $DIR/start, PYTHONPATH: {}, \
         PYTHONDONTWRITEBYTECODE: '1' }}\n{lines}",
        apps()
    );
    let daemon = run(&world, &command, &lines);
    let (at_the_gate, _) = gate.accept().expect("accept");
    let mut client = Varlink::connect(&world);
    assert_eq!(shown(&mut client), "starting");
    assert!(!is_up(&daemon));
    drop(at_the_gate);
    std::thread::spawn(move || gate.incoming().for_each(drop));
    daemon.line(&["app.0: ready after"]);
    let address = daemon.address("web");
    let answer = client::http(client::tcp(address).expect("connect"), "/").expect("an answer");
    assert!(
        answer.contains(" 200 ") && answer.contains("pid "),
        "{answer:?}"
    );
    assert!(daemon.lines_so_far(&["cannot see"]).is_empty());
    daemon.signal(Signal::SIGTERM);
    daemon.signal(Signal::SIGTERM);
    daemon.status();
}

#[test]
fn gunicorn_is_seen() {
    let Some(gunicorn) = server("gunicorn") else {
        return;
    };
    let gunicorn = gunicorn.to_str().expect("UTF-8").to_owned();
    for class in ["sync", "gthread"] {
        let apps = apps();
        let command = [
            &gunicorn,
            "--chdir",
            &apps,
            "--workers",
            "2",
            "-k",
            class,
            "wsgi:app",
        ];
        is_ready_behind_the_gate(&command, "");
    }
}

#[test]
fn uvicorn_is_seen() {
    let Some(uvicorn) = server("uvicorn") else {
        return;
    };
    let uvicorn = uvicorn.to_str().expect("UTF-8");
    let apps = apps();
    let command = [uvicorn, "--app-dir", &apps, "--fd", "{fd:web}", "asgi:app"];
    is_ready_behind_the_gate(&command, "");
}

#[test]
fn node_is_seen() {
    let Some(node) = server("node") else {
        return;
    };
    let script = format!("{}/server.js", apps());
    is_ready_behind_the_gate(&[node.to_str().expect("UTF-8"), &script, "{fd:web}"], "");
}

#[test]
fn python_is_seen() {
    let Some(python) = server("python3") else {
        return;
    };
    let script = format!("{}/listener.py", apps());
    for way in ["accept", "socketserver", "asyncio"] {
        is_ready_behind_the_gate(&[python.to_str().expect("UTF-8"), &script, way], "");
    }
}

/// Starts a server with this file, which has nothing to load.
fn is_ready(command: &str, file: &str, more: &str) {
    let world = World::new();
    world.write("server.conf", file);
    let daemon = run(&world, command, &format!("ready: accepting\n{more}"));
    daemon.line(&["app.0: ready after"]);
    let stream = client::tcp(daemon.address("web")).expect("connect");
    client::http(stream, "/").expect("an answer");
    assert!(daemon.lines_so_far(&["cannot see"]).is_empty());
    daemon.signal(Signal::SIGTERM);
    daemon.signal(Signal::SIGTERM);
    daemon.status();
}

#[test]
fn haproxy_is_seen() {
    let Some(haproxy) = server_that_says("haproxy", "-v") else {
        return;
    };
    let file = "defaults\n  mode http\n  timeout client 5s\n  timeout server 5s\n  \
                timeout connect 5s\nfrontend web\n  bind fd@3\n  http-request return status 200\n";
    let command = format!("[{}, -db, -f, $DIR/server.conf]", haproxy.display());
    is_ready(&command, file, "");
}

#[test]
fn lighttpd_is_seen() {
    let Some(lighttpd) = server_that_says("lighttpd", "-v") else {
        return;
    };
    let file = "server.document-root = \"$DIR\"\nserver.port = 1\n\
                server.systemd-socket-activation = \"enable\"\n";
    let command = format!("[{}, -D, -f, $DIR/server.conf]", lighttpd.display());
    is_ready(&command, file, "");
}

// `accepting` wants all of the listeners, `accepting first` only the one in front.
#[test]
fn all_listeners_count_or_the_first() {
    let both = |ready: &str| {
        let world = World::new();
        let yaml = format!(
            "
listeners: {{ web: '127.0.0.1:0', admin: 'unix:$DIR/admin' }}
workers:
  app:
    command: {PUPPET}
    listeners: [web, admin]
    ready: {ready}
"
        );
        let words = varlink::words(&world);
        let daemon = world.run_with(&yaml, |start| {
            start.words_behind(words.iter().map(String::as_str));
        });
        let puppet = world.puppet();
        (world, daemon, puppet)
    };
    let (_world, daemon, mut puppet) = both("accepting first");
    puppet.tell("read 3");
    daemon.line(&["app.0: ready after"]);
    drop(client::tcp(daemon.address("web")));
    daemon.stop();
    let (world, daemon, mut puppet) = both("accepting");
    puppet.tell("read 3");
    // It serves the first, and is still seen to serve only that.
    let mut control = Varlink::connect(&world);
    assert_eq!(shown(&mut control), "starting");
    drop(client::tcp(daemon.address("web")));
    puppet.listen();
    puppet.tell("serve");
    daemon.line(&["app.0: ready after"]);
    daemon.stop();
}

// A process that dropped its rights may not be looked into (ptrace(2)), nor may io_uring be.
#[test]
fn one_that_cannot_be_looked_into_counts_as_ready_after_three_looks() {
    let Some(setpriv) = require_tool("setpriv") else {
        return;
    };
    if !require_root() {
        return;
    }
    let world = World::new();
    let probe = public_probe(&world);
    let command = format!("[{}, puppet, $EVENTS]", probe.display());
    let words = varlink::words(&world);
    let yaml = yaml(&command, "user: nobody\nready: accepting");
    let daemon = world.run_with(&yaml, |start| {
        start.words_behind(words.iter().map(String::as_str));
        start.words_behind(["--log-level", "debug"]);
        let setpriv = setpriv.to_str().expect("UTF-8");
        start.through([
            setpriv,
            "--bounding-set",
            "-sys_ptrace",
            "--inh-caps",
            "-sys_ptrace",
            "--",
        ]);
    });
    let _puppet = world.puppet();
    daemon.line(&[
        "INFO",
        "app.0: cannot detect whether it accepts clients",
        "counts as ready",
    ]);
    daemon.line(&[UP]);
    assert_eq!(
        daemon
            .lines_so_far(&["DEBUG", "app.0: cannot read /proc/"])
            .len(),
        3
    );
    assert_eq!(daemon.lines_so_far(&["counts as ready"]).len(), 1);
    daemon.stop();
}

// Looks read what each thread waits in; the time between two grows with the time that it takes. And who
// reads it is not the daemon: whatever lies in another process may not answer.
#[test]
fn it_is_looked_at_by_another_and_less_often_the_longer_it_takes() {
    let Some(strace) = require_tool("strace") else {
        return;
    };
    let world = World::new();
    let lines = "ready: accepting\nstart_timeout: 3s\nrestart: never";
    let daemon = world.run_with(&yaml(PUPPET, lines), |start| {
        let strace = strace.to_str().expect("UTF-8");
        let traced = ["-D", "-f", "-qq", "-e", "trace=%file", "-o", "$DIR/trace"];
        start.through([&[strace][..], &traced, &["--"]].concat());
    });
    let puppet = world.puppet();
    daemon.line(&["app.0: not ready within 3 s", "it does not accept clients"]);
    let trace = std::fs::read_to_string(world.path("trace")).expect("the trace");
    let file = format!("\"/proc/{0}/task/{0}/syscall\"", puppet.pid());
    let looks = trace.lines().filter(|line| line.contains(&file)).count();
    // 10 ms, and then half as long as it has taken: 300 of them if the time did not grow.
    assert!((2..=30).contains(&looks), "{looks} looks: {trace}");
    let own = format!("{} ", daemon.pid());
    let of_puppet = format!("\"/proc/{}/", puppet.pid());
    let own = trace.lines().filter(|line| line.starts_with(&own));
    let found: Vec<&str> = own.filter(|line| line.contains(&of_puppet)).collect();
    assert!(found.is_empty(), "{found:#?}");
    daemon.stop();
}

// Reading /proc/PID/mem waits for whatever the memory lies on, and no signal ends that.
#[test]
fn a_worker_whose_memory_does_not_answer_holds_up_nobody() {
    let Some((words, command)) = servers::silent("poll") else {
        return;
    };
    let world = World::new();
    let control = varlink::words(&world);
    let lines = "ready: accepting\nstart_timeout: 60s\nstop_timeout: 1s\nrestart: never";
    let hello = crate::harness::listend_path().display();
    let others = format!(
        "  quick: {{ command: [{hello}, hello-worker], listeners: [other], ready: accepting }}"
    );
    let both = "web: '127.0.0.1:0', other: '127.0.0.1:0'";
    let yaml = yaml(&format!("{command}]"), lines).replace("web: '127.0.0.1:0'", both);
    let yaml = format!("{yaml}\n{others}\n");
    let daemon = world.run_with(&yaml, |start| {
        start.through(words);
        start.words_behind(control.iter().map(String::as_str));
    });
    // The worker's word that the page is gone is not waited for: a look that comes before that is said
    // holds up the worker as well.
    let mut client = Varlink::connect(&world);
    daemon.line(&["quick.0: ready after"]);
    let line = daemon.line(&["app.0: cannot detect whether it accepts clients", "5 s"]);
    assert!(line.contains("file system that does not answer"), "{line}");
    assert_eq!(shown(&mut client), "starting");
    // One that hangs is enough: the next looks are not made, and it is ready as one that cannot be seen.
    daemon.line(&["app.0", "counts as ready"]);
    assert_eq!(shown(&mut client), "running");
    let lost = || {
        crate::harness::children(daemon.pid())
            .into_iter()
            .filter(|pid| state(*pid) == Some('D'))
    };
    assert_eq!(lost().count(), 1);
    daemon.stop();
}

// --- Signs of life -------------------------------------------------------------------------------

// sd_watchdog_enabled(3); systemd.service(5): WatchdogSec= begins when start-up is completed.
#[test]
fn silence_after_it_was_ready_is_a_crash_and_before_it_is_not() {
    let world = World::new();
    let lines = format!("ready: notify\nwatchdog: 400ms\n{QUICK}");
    let (daemon, mut puppet) = with_puppet(&world, &lines);
    assert_eq!(puppet.report.env["WATCHDOG_PID"], puppet.pid().to_string());
    assert_eq!(puppet.report.env["WATCHDOG_USEC"], "400000");
    let began = std::time::Instant::now();
    eventually("more than the interval is over", || {
        began.elapsed() > std::time::Duration::from_millis(600)
    });
    assert!(daemon.lines_so_far(&["no keep-alive"]).is_empty());
    puppet.ask("notify READY=1");
    daemon.line(&[
        "ERROR",
        "app.0: no keep-alive for 400 ms",
        "sending SIGABRT",
    ]);
    daemon.line(&["app.0", "killed by SIGABRT", "restarting in"]);
    let mut next = world.puppet();
    // A sign in each interval keeps it alive, for more than three of them.
    next.ask("notify READY=1");
    let began = std::time::Instant::now();
    eventually("several intervals are over", || {
        next.ask("notify WATCHDOG=1");
        heard(&mut next);
        began.elapsed() > std::time::Duration::from_millis(1300)
    });
    assert_eq!(daemon.lines_so_far(&["no keep-alive for"]).len(), 1);
    daemon.stop();
}

// A stop of listend is none of its workers: what they have sent meanwhile waits in the socket, and a full one
// makes its senders wait (unix(7)).
#[test]
fn signs_of_life_that_listend_was_held_up_to_read_count() {
    let world = World::new();
    let lines = format!("instances: 2\nready: notify\nwatchdog: 1s\n{QUICK}");
    let (daemon, mut first) = with_puppet(&world, &lines);
    let mut other = world.puppet();
    first.ask("notify READY=1");
    other.ask("notify READY=1");
    heard(&mut first);
    heard(&mut other);
    daemon.pause();
    let began = std::time::Instant::now();
    let most = 100;
    (0..most).for_each(|_| first.tell("notify WATCHDOG=1"));
    other.tell("notify WATCHDOG=1");
    eventually("more than the interval is over", || {
        began.elapsed() > std::time::Duration::from_millis(1500)
    });
    daemon.resume();
    for _ in 0..most {
        assert_eq!(first.listen().as_deref(), Some("notify"));
    }
    assert_eq!(other.listen().as_deref(), Some("notify"));
    heard(&mut first);
    heard(&mut other);
    assert!(daemon.lines_so_far(&["no keep-alive for"]).is_empty());
    // One that sends none afterwards is ended all the same.
    daemon.line(&["ERROR", "no keep-alive for 1 s"]);
    daemon.stop();
}

#[test]
fn one_that_says_that_it_is_not_well_is_ended() {
    let world = World::new();
    let (daemon, mut puppet) = with_puppet(&world, &format!("watchdog: 1h\n{QUICK}"));
    puppet.tell("notify WATCHDOG=trigger");
    daemon.line(&["app.0: reports a failure", "sending SIGABRT"]);
    puppet.wait_for_its_end();
    // It was said to have sent no keep-alive.
    daemon.line(&["app.0: killed by SIGABRT", "reported a failure"]);
    let mut next = world.puppet();
    // Another interval counts from then on, whether it was told before or with READY=1.
    next.ask("notify WATCHDOG_USEC=200000");
    daemon.line(&["app.0: no keep-alive for 200 ms"]);
    next.wait_for_its_end();
    daemon.stop();
}

#[test]
fn another_interval_may_be_told_before_it_is_ready() {
    let world = World::new();
    let (daemon, mut puppet) = with_puppet(&world, "ready: notify\nwatchdog: 1h\nrestart: never");
    puppet.ask("notify WATCHDOG_USEC=200000");
    puppet.ask("notify READY=1");
    daemon.line(&["app.0: no keep-alive for 200 ms"]);
    puppet.wait_for_its_end();
    daemon.stop();
}

// It is what the worker has asked for, and no business of a setting that changes beside it.
#[test]
fn the_interval_that_it_has_chosen_outlives_a_reload() {
    let world = World::new();
    let (daemon, mut puppet) = with_puppet(&world, "watchdog: 300ms\nrestart: never");
    puppet.ask("notify WATCHDOG_USEC=3600000000");
    heard(&mut puppet);
    world.write(
        "listend.yaml",
        &yaml(PUPPET, "watchdog: 300ms\nrestart: on-failure"),
    );
    daemon.signal(Signal::SIGHUP);
    daemon.line(&["the reload is complete"]);
    let began = std::time::Instant::now();
    eventually("the configured interval is over", || {
        began.elapsed() > std::time::Duration::from_millis(500)
    });
    heard(&mut puppet);
    assert!(daemon.lines_so_far(&["no keep-alive"]).is_empty());
    daemon.stop();
}

// One that ignores SIGABRT is killed.
#[test]
fn one_that_does_not_end_at_sigabrt_is_killed() {
    let world = World::new();
    let lines = "watchdog: 200ms\nstop_timeout: 200ms\nrestart: never";
    let command = "[sh, -c, 'trap \"\" ABRT; while :; do sleep 0.05; done']";
    let daemon = run(&world, command, lines);
    daemon.line(&["app.0: no keep-alive"]);
    daemon.line(&["app.0", "SIGKILL"]);
    daemon.line(&["app.0", "killed by SIGKILL"]);
    daemon.stop();
}

// --- Who waits for it ----------------------------------------------------------------------------

#[test]
fn a_rollout_waits_until_the_new_one_is_ready_and_goes_back_if_it_is_not() {
    let world = World::new();
    let lines = "ready: notify\nstart_timeout: 1s\nrollout: { min_ready: 0s }";
    let (daemon, mut old) = with_puppet(&world, lines);
    old.ask("notify READY=1");
    daemon.line(&[UP]);
    let mut client = Varlink::connect(&world);
    client.ask("Restart", json!({ "worker": "app", "no_wait": true }));
    let mut new = world.puppet();
    heard(&mut old);
    new.ask("notify READY=1");
    old.wait_for_its_end();
    daemon.line(&["app: generation 2 has taken over"]);
    client.call_with("Restart", json!({ "worker": "app" }), json!({}));
    let mut late = world.puppet();
    late.wait_for_its_end();
    let reply = client.next().expect("a reply");
    assert!(!reply["error"].is_null(), "{reply}");
    daemon.line(&["app.0: not ready within"]);
    daemon.line(&["app: rolled back"]);
    heard(&mut new);
    daemon.stop();
}
