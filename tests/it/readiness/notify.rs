//! What workers tell with sd_notify(3), and what they leave for their successors.

use crate::harness::app::PUPPET;
use crate::harness::{
    Daemon, Puppet, Report, World, children, eventually, exists, public_probe, require_root,
    require_tool, skip, state,
};
use nix::sys::signal::Signal;
use nix::sys::socket::UnixAddr;
use std::fs;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::process::Command;

const QUICK: &str = "restart: { policy: always, backoff: 10ms..50ms, limit: none }";

/// A worker `app` of this command, with these further lines, and a daemon that says everything.
fn run(world: &World, command: &str, lines: &str) -> Daemon {
    super::run(world, command, &format!("{QUICK}\n{lines}"))
}

fn with_puppet(world: &World, lines: &str) -> (Daemon, Puppet) {
    let daemon = run(world, PUPPET, &format!("listeners: [web]\n{lines}"));
    (daemon, world.puppet())
}

fn env<'a>(report: &'a Report, name: &str) -> Option<&'a str> {
    report.env.get(name).map(String::as_str)
}

/// Names and targets of what a worker got from sd_listen_fds(3).
fn inherited(report: &Report) -> Vec<(String, String)> {
    let Some(names) = env(report, "LISTEN_FDNAMES") else {
        return Vec::new();
    };
    let names: Vec<&str> = names.split(':').collect();
    assert_eq!(
        env(report, "LISTEN_FDS"),
        Some(names.len().to_string().as_str())
    );
    let target = |number: i32| {
        let fd = report.fds.iter().find(|fd| fd.number == number);
        fd.expect("as many as there are names").target.clone()
    };
    (3..)
        .zip(names)
        .map(|(number, name)| (name.to_owned(), target(number)))
        .collect()
}

/// Only the names.
fn names(report: &Report) -> Vec<String> {
    inherited(report)
        .into_iter()
        .map(|(name, _)| name)
        .collect()
}

/// Sends from this process, which may tell nothing.
fn intrude(socket: &str, text: &[u8]) {
    let ours = UnixDatagram::unbound().expect("socket");
    match socket.strip_prefix('@') {
        Some(name) => {
            let address = SocketAddr::from_abstract_name(name).expect("a name");
            ours.send_to_addr(text, &address).expect("send");
        }
        None => {
            ours.send_to(text, socket).expect("send");
        }
    }
}

// --- The socket and the environment ---------------------------------------------------------------

#[test]
fn the_socket_is_beside_the_control_socket_and_goes_with_it() {
    let world = World::new();
    let path = world.path("control.notify");
    // One that a listend left that was killed.
    drop(UnixDatagram::bind(&path).expect("bind"));
    let (daemon, puppet) = with_puppet(&world, "notify_access: main\nwatchdog: 30s");
    assert_eq!(env(&puppet.report, "NOTIFY_SOCKET"), path.to_str());
    assert_eq!(env(&puppet.report, "WATCHDOG_USEC"), Some("30000000"));
    let pid = puppet.pid().to_string();
    assert_eq!(env(&puppet.report, "WATCHDOG_PID"), Some(pid.as_str()));
    assert_eq!(env(&puppet.report, "FDSTORE"), None);
    let mode = fs::metadata(&path)
        .expect("the socket")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o666);
    daemon.stop();
    assert!(!path.exists());
}

#[test]
fn without_a_control_socket_its_name_is_abstract() {
    let world = World::new();
    let yaml = format!("workers: {{ app: {{ command: {PUPPET}, notify_access: all }} }}");
    let daemon = world.run(&yaml);
    let mut puppet = world.puppet();
    let name = env(&puppet.report, "NOTIFY_SOCKET").expect("a socket");
    let start = format!("@listend/notify/{}-", daemon.pid());
    assert!(name.starts_with(&start), "{name}");
    assert!(UnixAddr::new_abstract(&name.as_bytes()[1..]).is_ok());
    assert_eq!(puppet.ask("notify READY=1"), "notify");
    assert_eq!(puppet.ask("barrier"), "barrier");
    assert!(daemon.lines_so_far(&["notification"]).is_empty());
    daemon.stop();
}

#[test]
fn a_worker_that_has_nothing_to_tell_gets_no_socket() {
    let world = World::new();
    let (daemon, puppet) = with_puppet(&world, "");
    assert_eq!(env(&puppet.report, "NOTIFY_SOCKET"), None);
    assert_eq!(env(&puppet.report, "WATCHDOG_USEC"), None);
    assert!(!world.path("control.notify").exists());
    daemon.stop();
}

#[test]
fn a_folder_that_a_worker_cannot_enter_is_no_place_for_it() {
    if !require_root() {
        return;
    }
    let world = World::new();
    let probe = public_probe(&world);
    fs::create_dir(world.path("run")).expect("create a folder");
    fs::set_permissions(world.path("run"), fs::Permissions::from_mode(0o700)).expect("chmod");
    let command = format!("[{}, puppet, $EVENTS]", probe.display());
    let yaml =
        format!("workers: {{ app: {{ command: {command}, user: nobody, notify_access: main }} }}");
    let daemon = world.run_with(&yaml, |start| {
        start.words_behind(["--control", "$DIR/run/control.sock", "--log-level", "debug"]);
    });
    let mut puppet = world.puppet();
    let name = env(&puppet.report, "NOTIFY_SOCKET").expect("a socket");
    assert!(name.starts_with("@listend/notify/"), "{name}");
    assert_eq!(puppet.ask("notify STATUS=here"), "notify");
    daemon.line(&["app.0: sent", "\"here\""]);
    daemon.stop();
}

#[test]
fn another_user_can_write_to_the_path() {
    if !require_root() {
        return;
    }
    let world = World::new();
    let probe = public_probe(&world);
    let command = format!("[{}, puppet, $EVENTS]", probe.display());
    let daemon = run(&world, &command, "user: nobody\nnotify_access: main");
    let mut puppet = world.puppet();
    let path = world.path("control.notify");
    assert_eq!(env(&puppet.report, "NOTIFY_SOCKET"), path.to_str());
    assert_eq!(puppet.ask("notify READY=1"), "notify");
    daemon.line(&["app.0: sent [Ready]"]);
    daemon.stop();
}

// --- Who says what ----------------------------------------------------------------------------------

#[test]
fn what_is_said_in_one_message_is_taken_in_its_order() {
    let world = World::new();
    let (daemon, mut puppet) = with_puppet(&world, "notify_access: main");
    puppet.ask("notify READY=1|RELOADING=1|STATUS=a\u{1b}b|X_MINE=1");
    daemon.line(&["app.0: sent [Reloading, Ready] with status \"a^[b\""]);
    // It may be gone before it can answer: it has asked to be ended.
    puppet.tell("notify EXTEND_TIMEOUT_USEC=2|WATCHDOG=trigger|STOPPING=1");
    daemon.line(&["app.0: sent [Stopping, ExtendTimeout(2µs), Trigger]"]);
    assert!(daemon.lines_so_far(&["ignored"]).is_empty());
    daemon.stop();
}

#[test]
fn what_cannot_be_understood_is_said_once_and_the_rest_counts() {
    let world = World::new();
    let (daemon, mut puppet) = with_puppet(&world, "notify_access: main");
    for _ in 0..3 {
        puppet.ask("notify WATCHDOG_USEC=soon|READY=1");
    }
    puppet.ask("notify READY=1|BARRIER=1");
    puppet.ask("barrier");
    daemon.lines(&["app.0: sent [Ready]"], 3);
    let wrong = daemon.lines(&["app.0: ignored `WATCHDOG_USEC=soon`"], 3);
    let warned = wrong.iter().filter(|line| line.contains("WARN")).count();
    assert_eq!(warned, 1, "{wrong:#?}");
    daemon.line(&["app.0: sent [] with"]);
    daemon.line(&["app.0: ignored `BARRIER=1`"]);
    daemon.stop();
}

#[test]
fn strangers_and_what_is_too_long_are_dropped() {
    let world = World::new();
    let (daemon, mut puppet) = with_puppet(&world, "notify_access: all");
    let socket = env(&puppet.report, "NOTIFY_SOCKET")
        .expect("a socket")
        .to_owned();
    intrude(&socket, b"READY=1");
    daemon.line(&["WARN", "dropped a notification of pid", "may not send any"]);
    intrude(&socket, &[b'x'; 5000]);
    daemon.line(&["WARN", "dropped a notification of pid", "longer than 4096"]);
    puppet.ask(&format!("notify STATUS={}", "y".repeat(5000)));
    puppet.ask("barrier");
    assert!(daemon.lines_so_far(&["sent ["]).is_empty());
    daemon.stop();
}

#[test]
fn a_barrier_comes_back_after_everything_before_it() {
    let world = World::new();
    let (daemon, mut puppet) = with_puppet(&world, "notify_access: main");
    let before = crate::harness::settled_descriptors(daemon.pid());
    for number in 0..20 {
        puppet.ask(&format!("notify STATUS=number {number}"));
    }
    assert_eq!(puppet.ask("barrier"), "barrier");
    daemon.lines(&["sent [] with status \"number"], 20);
    assert_eq!(crate::harness::settled_descriptors(daemon.pid()), before);
    daemon.stop();
}

#[test]
fn a_child_may_tell_only_where_all_may() {
    let world = World::new();
    let (daemon, mut puppet) = with_puppet(&world, "notify_access: main\nkill_mode: group");
    let pid = puppet.ask("child READY=1");
    daemon.line(&[&format!("dropped a notification of pid {pid}")]);
    daemon.stop();
    let world = World::new();
    let (daemon, mut puppet) = with_puppet(&world, "notify_access: all\nkill_mode: group");
    puppet.ask("child READY=1");
    daemon.line(&["app.0: sent [Ready]"]);
    daemon.stop();
}

// It is a child of listend then, which says nothing about whose it is: its session does.
#[test]
fn a_process_whose_parent_has_ended_is_known_by_its_session() {
    let world = World::new();
    let (daemon, mut puppet) = with_puppet(&world, "notify_access: all\nkill_mode: group");
    puppet.ask("child orphan READY=1");
    daemon.line(&["app.0: sent [Ready]"]);
    daemon.stop();
}

// The message is read together with the news of the end, and before the process is reaped.
#[test]
fn the_last_words_of_a_process_count() {
    let world = World::new();
    let (daemon, mut puppet) = with_puppet(&world, "notify_access: main");
    daemon.pause();
    puppet.ask("notify STATUS=farewell|EXIT_STATUS=3");
    puppet.tell("exit 3");
    puppet.wait_for_its_end();
    daemon.resume();
    daemon.line(&["app.0: sent [] with status \"farewell\""]);
    world.puppet();
    assert!(daemon.lines_so_far(&["dropped"]).is_empty());
    daemon.stop();
}

// With as much room as systemd sets (net.unix.max_dgram_qlen), more than is read at a time.
#[test]
fn the_last_of_many_words_of_a_process_count() {
    if !require_root() || require_tool("unshare").is_none() {
        return;
    }
    let world = World::new();
    let yaml = format!("workers: {{ app: {{ command: {PUPPET}, notify_access: main }} }}");
    let script = "echo 512 > /proc/sys/net/unix/max_dgram_qlen && exec \"$@\"";
    let daemon = world.run_with(&yaml, |start| {
        start.words_behind(["--control", "$DIR/control.sock", "--log-level", "debug"]);
        start.through(["unshare", "--net", "sh", "-c", script, "sh"]);
    });
    let mut puppet = world.puppet();
    daemon.pause();
    for _ in 0..200 {
        puppet.ask("notify STATUS=still here");
    }
    puppet.ask("notify STATUS=farewell");
    puppet.tell("exit 3");
    puppet.wait_for_its_end();
    daemon.resume();
    daemon.line(&["app.0: sent [] with status \"farewell\""]);
    assert!(daemon.lines_so_far(&["dropped"]).is_empty());
    daemon.stop();
}

// --- The newline ------------------------------------------------------------------------------------

#[test]
fn a_newline_on_the_descriptor_says_ready() {
    let world = World::new();
    let (daemon, mut puppet) = with_puppet(&world, "ready: fd 7");
    let open: Vec<i32> = puppet.report.fds.iter().map(|fd| fd.number).collect();
    assert_eq!(open, [0, 1, 2, 3, 7]);
    let fd = puppet.report.fds.last().expect("the pipe");
    assert!(fd.target.starts_with("pipe:") && !fd.nonblocking, "{fd:?}");
    assert_eq!(env(&puppet.report, "LISTEN_FDS"), Some("1"));
    assert_eq!(env(&puppet.report, "NOTIFY_SOCKET"), None);
    puppet.ask("write 7 not yet");
    puppet.ask("line 7 now");
    daemon.line(&["app.0: sent [Ready] with a newline"]);
    daemon.stop();
}

#[test]
fn a_descriptor_that_is_closed_without_a_newline_is_said_once() {
    let world = World::new();
    let (daemon, mut puppet) = with_puppet(&world, "ready: fd 7");
    let before = crate::harness::settled_descriptors(daemon.pid());
    puppet.ask("close 7");
    daemon.line(&["WARN", "app.0: closed the descriptor of `ready: fd`"]);
    assert_eq!(
        crate::harness::settled_descriptors(daemon.pid()),
        before - 1
    );
    assert!(daemon.lines_so_far(&["sent ["]).is_empty());
    daemon.stop();
}

// --- What is left for the successor -----------------------------------------------------------------

#[test]
fn what_is_stored_comes_back_after_a_crash_to_the_same_instance_alone() {
    let world = World::new();
    let daemon = run(
        &world,
        PUPPET,
        "listeners: [web]\ninstances: 2\nfd_store: 2\nenvironment: { N: '{instance}' }",
    );
    let mut puppets = world.puppets(2);
    puppets.sort_by_key(|puppet| puppet.report.env["N"].clone());
    let (mut second, mut first) = (puppets.remove(1), puppets.remove(0));
    assert_eq!(env(&first.report, "FDSTORE"), Some("2"));
    for name in ["db", "cache", "third"] {
        assert_eq!(first.ask(&format!("store {name}")), "store");
    }
    first.ask("barrier");
    daemon.line(&["app.0: closed 1 of the descriptors", "`fd_store`"]);
    first.tell("raise 9");
    let mut first = world.puppet();
    assert_eq!(env(&first.report, "N"), Some("0"));
    assert_eq!(names(&first.report), ["web", "db", "cache"]);
    let targets: Vec<String> = inherited(&first.report)
        .into_iter()
        .map(|(_, target)| target)
        .collect();
    assert_eq!(
        targets[1..],
        ["/memfd:db (deleted)", "/memfd:cache (deleted)"]
    );
    assert!(first.report.fds.iter().all(|fd| !fd.cloexec));
    second.tell("exit 1");
    let second = world.puppet();
    assert_eq!(names(&second.report), ["web"]);
    // Given up by name; and what it was given stays stored until then.
    first.ask("notify FDSTOREREMOVE=1|FDNAME=db");
    first.tell("exit 1");
    assert_eq!(names(&world.puppet().report), ["web", "cache"]);
    daemon.stop();
}

#[test]
fn a_worker_without_listeners_gets_what_is_stored_and_otherwise_nothing() {
    let world = World::new();
    let daemon = run(&world, PUPPET, "fd_store: 4");
    let mut puppet = world.puppet();
    assert_eq!(env(&puppet.report, "LISTEN_FDS"), None);
    puppet.ask("store db");
    puppet.tell("exit 1");
    assert_eq!(names(&world.puppet().report), ["db"]);
    daemon.stop();
}

#[test]
fn what_hangs_up_is_given_up_unless_it_is_not_to_be() {
    let world = World::new();
    let (daemon, mut puppet) = with_puppet(&world, "fd_store: 4");
    puppet.ask("store-socket FDSTORE=1");
    puppet.ask("store-socket FDSTORE=1|FDNAME=kept|FDPOLL=0");
    puppet.ask("store-socket FDSTORE=1|FDNAME=a:b|FDPOLL=0");
    puppet.ask("barrier");
    // Its ends of the sockets go with it.
    puppet.tell("exit 1");
    let mut puppet = world.puppet();
    puppet.tell("exit 1");
    let last = world.puppet();
    assert_eq!(names(&last.report), ["web", "kept", "stored"]);
    daemon.line(&["app.0: ignored `FDNAME=a:b`"]);
    daemon.stop();
}

/// Of a worker with a control socket, in a world of its own.
fn ask(world: &World, method: &str) {
    let mut client = crate::harness::varlink::Varlink::connect(world);
    client.ask(method, serde_json::json!({ "worker": "app" }));
}

// The successor has them while its predecessor still uses them.
#[test]
fn what_is_stored_is_given_to_the_next_generation_and_gone_after_a_stop_for_good() {
    let world = World::new();
    let (daemon, mut first) = with_puppet(&world, "fd_store: 4\nrollout: { min_ready: 0s }");
    first.ask("store db");
    first.ask("barrier");
    first.ask("drain");
    ask_without_waiting(&world, "Restart");
    let mut second = world.puppet();
    assert_eq!(names(&second.report), ["web", "db"]);
    assert_eq!(first.listen().as_deref(), Some("term"));
    // It drains, and may still leave something and take it back.
    first.ask("store late");
    first.ask("barrier");
    first.tell("exit 0");
    daemon.line(&["app: generation 2 has taken over"]);
    second.tell("exit 1");
    let third = world.puppet();
    assert_eq!(names(&third.report), ["web", "db", "late"]);
    daemon.lines(&["app.0: started"], 3);
    let before = crate::harness::settled_descriptors(daemon.pid());
    ask(&world, "Stop");
    assert!(crate::harness::settled_descriptors(daemon.pid()) <= before - 2);
    ask(&world, "Start");
    assert_eq!(names(&world.puppet().report), ["web"]);
    daemon.stop();
}

#[test]
fn what_was_stored_last_is_closed_when_the_predecessor_has_ended_and_there_is_less_room() {
    let world = World::new();
    let (daemon, mut first) =
        with_puppet(&world, "fd_store: 4\nrollout: { min_ready: 0s, watch: 0s }");
    for name in ["db", "cache", "late"] {
        first.ask(&format!("store {name}"));
    }
    first.ask("barrier");
    let yaml = fs::read_to_string(world.path("listend.yaml")).expect("it is there");
    let less = yaml.replace("fd_store: 4", "fd_store: 2");
    crate::harness::reloading::reload(&world, &less);
    daemon.line(&[
        "app: closed 1 of the descriptors",
        "room for 2 (`fd_store`)",
    ]);
    world.puppet().tell("exit 1");
    assert_eq!(names(&world.puppet().report), ["web", "db", "cache"]);
    daemon.stop();
}

fn ask_without_waiting(world: &World, method: &str) {
    let mut client = crate::harness::varlink::Varlink::connect(world);
    client.ask(
        method,
        serde_json::json!({ "worker": "app", "no_wait": true }),
    );
}

#[test]
fn what_is_stored_stays_with_its_worker_when_a_reload_numbers_them_anew() {
    let world = World::new();
    let app = format!("  app: {{ command: {PUPPET}, fd_store: 4, environment: {{ N: app }} }}\n");
    let zoo = format!("  zoo: {{ command: {PUPPET}, fd_store: 4, environment: {{ N: zoo }} }}\n");
    let add = format!("  add: {{ command: {PUPPET}, fd_store: 4, environment: {{ N: add }} }}\n");
    let daemon = world.run(&format!("workers:\n{app}{zoo}"));
    let mut puppets = world.puppets(2);
    puppets.sort_by_key(|puppet| puppet.report.env["N"].clone());
    for (puppet, name) in puppets.iter_mut().zip(["of-app", "of-zoo"]) {
        puppet.ask(&format!("store {name}"));
        puppet.ask("barrier");
    }
    world.write("listend.yaml", &format!("workers:\n{add}{zoo}"));
    daemon.signal(Signal::SIGHUP);
    let added = world.puppet();
    assert_eq!(names(&added.report), [""; 0]);
    puppets[0].wait_for_its_end();
    daemon.line(&["the reload is complete"]);
    puppets[1].tell("exit 1");
    let next = world.puppet();
    assert_eq!(env(&next.report, "N"), Some("zoo"));
    assert_eq!(names(&next.report), ["of-zoo"]);
    // One of that name that comes later is another.
    world.write("listend.yaml", &format!("workers:\n{app}{zoo}"));
    daemon.signal(Signal::SIGHUP);
    let again = world.puppet();
    assert_eq!(env(&again.report, "N"), Some("app"));
    assert_eq!(names(&again.report), [""; 0]);
    daemon.stop();
}

// --- Another main process ---------------------------------------------------------------------------

fn an_heir_takes_over(how: &str) {
    let world = World::new();
    let (daemon, mut old) = with_puppet(&world, "notify_access: main\nstop_timeout: 500ms");
    let pid: i32 = old.ask(&format!("heir {how}")).parse().expect("a pid");
    let mut heir = world.puppet();
    assert_eq!(heir.pid(), pid);
    // Read together with its end, as after a fork whose parent has nothing else to do.
    daemon.pause();
    old.ask(&format!("notify MAINPID={pid}"));
    old.tell("exit 0");
    old.wait_for_its_end();
    daemon.resume();
    daemon.line(&[&format!("app.0: pid {pid} is the main process now")]);
    eventually("the old one is reaped", || !exists(old.pid()));
    assert!(exists(pid), "its session was not killed with it");
    assert_eq!(heir.ask("notify READY=1"), "notify");
    daemon.line(&["app.0: sent [Ready]"]);
    assert!(world.no_puppet_is_waiting(), "the instance goes on");
    heir.tell("exit 7");
    daemon.line(&["app.0", "7"]);
    let mut next = world.puppet();
    eventually("the heir is reaped", || !exists(pid));
    // The same again; this one is asked to stop, and the one before it is killed in the end.
    let pid: i32 = next.ask(&format!("heir {how}")).parse().expect("a pid");
    let _heir = world.puppet();
    next.ask(&format!("notify MAINPID={pid}"));
    next.ask("barrier");
    daemon.stop();
    // Whoever is left to PID 1 is reaped there.
    let is_over = |pid| matches!(state(pid), None | Some('Z'));
    eventually("both are gone", || is_over(pid) && is_over(next.pid()));
}

#[test]
fn another_process_of_the_session_can_become_the_main_one() {
    an_heir_takes_over("attached");
}

#[test]
fn a_process_that_has_left_the_session_can_become_the_main_one() {
    an_heir_takes_over("detached");
}

// It is a child of listend's, as one that has left its session is.
#[test]
fn no_process_that_listend_has_for_itself_can_become_the_main_one() {
    let world = World::new();
    let daemon = run(
        &world,
        PUPPET,
        "listeners: [web]\nnotify_access: main\noutput: 'file:$DIR/out'",
    );
    let mut puppet = world.puppet();
    let writes = |pid: &i32| {
        let words = fs::read_to_string(format!("/proc/{pid}/cmdline"));
        words.is_ok_and(|words| words.contains("__write"))
    };
    let mut writer = None;
    eventually("the writer runs", || {
        writer = children(daemon.pid()).into_iter().find(writes);
        writer.is_some()
    });
    let writer = writer.expect("it was found");
    puppet.ask(&format!("notify MAINPID={writer}"));
    puppet.ask("barrier");
    daemon.line(&[&format!("ignored `MAINPID={writer}: ")]);
    daemon.stop();
}

#[test]
fn nobody_else_s_process_can_become_the_main_one() {
    let world = World::new();
    let daemon = run(
        &world,
        PUPPET,
        "listeners: [web]\ninstances: 2\nnotify_access: main",
    );
    let mut puppets = world.puppets(2);
    let other = puppets[1].pid();
    let strangers = [1, daemon.pid(), std::process::id() as i32, other];
    for pid in strangers {
        puppets[0].ask(&format!("notify MAINPID={pid}"));
    }
    puppets[0].ask("barrier");
    for pid in strangers {
        daemon.line(&[&format!("ignored `MAINPID={pid}: ")]);
    }
    assert!(daemon.lines_so_far(&["is the main process"]).is_empty());
    daemon.stop();
}

// --- Real senders -----------------------------------------------------------------------------------

#[test]
fn the_crate_is_heard_and_what_it_leaves_comes_back() {
    let world = World::new();
    let (daemon, mut puppet) = with_puppet(&world, "fd_store: 1");
    assert_eq!(puppet.ask("crate from rust"), "crate");
    daemon.line(&["app.0: sent [Ready] with status \"from rust\""]);
    puppet.tell("exit 1");
    let next = world.puppet();
    assert_eq!(names(&next.report), ["web", "by-crate"]);
    daemon.stop();
}

/// A Python that has this module; the system's own has what Debian packages.
fn python_with(module: &str) -> Option<&'static str> {
    let found = ["python3", "/usr/bin/python3"].into_iter().find(|python| {
        let import = Command::new(python)
            .args(["-c", &format!("import {module}")])
            .output();
        import.is_ok_and(|output| output.status.success())
    });
    if found.is_none() {
        skip(&format!("python3 has no module {module}"));
    }
    found
}

fn hears_of_python(module: &str, lines: &str) {
    let Some(python) = python_with(module) else {
        return;
    };
    let world = World::new();
    let script = world.write("worker.py", lines);
    let command = format!("[{python}, {}]", script.display());
    let daemon = run(&world, &command, "notify_access: main");
    daemon.line(&["app.0: sent [Ready] with status \"from python\""]);
    daemon.stop();
}

#[test]
fn python_s_sdnotify_is_heard() {
    hears_of_python(
        "sdnotify",
        "import sdnotify, signal\n\
         sdnotify.SystemdNotifier(debug=True).notify('READY=1\\nSTATUS=from python')\n\
         signal.pause()\n",
    );
}

// libsystemd's own.
#[test]
fn python_s_systemd_is_heard() {
    hears_of_python(
        "systemd.daemon",
        "import signal\nfrom systemd import daemon\n\
         assert daemon.notify('READY=1\\nSTATUS=from python')\nsignal.pause()\n",
    );
}

fn systemd_notify(lines: &str, script: &str) -> Option<(World, Daemon)> {
    require_tool("systemd-notify")?;
    let world = World::new();
    assert!(Path::new("/bin/sh").exists());
    let script = world.write_script("worker", &format!("#!/bin/sh\n{script}\nexec sleep 60\n"));
    let daemon = run(&world, &format!("['{}']", script.display()), lines);
    Some((world, daemon))
}

// It exits at once, and is reaped by its shell; it waits for a barrier before that.
#[test]
fn systemd_notify_is_heard_where_all_may_tell() {
    let script = "systemd-notify --ready --status='from a script'";
    let Some((_world, daemon)) = systemd_notify("notify_access: all", script) else {
        return;
    };
    daemon.line(&["app.0: sent [Ready] with status \"from a script\""]);
    daemon.signal(Signal::SIGTERM);
    daemon.signal(Signal::SIGTERM);
    daemon.status();
}

// As root it speaks in the name of another process (SCM_CREDENTIALS, unix(7)).
#[test]
fn systemd_notify_is_heard_in_the_name_of_the_main_process() {
    if !require_root() {
        return;
    }
    let script = "systemd-notify --pid=$$ --ready --status='from a script'";
    let Some((_world, daemon)) = systemd_notify("notify_access: main", script) else {
        return;
    };
    daemon.line(&["app.0: sent [Ready] with status \"from a script\""]);
    daemon.signal(Signal::SIGTERM);
    daemon.signal(Signal::SIGTERM);
    daemon.status();
}
