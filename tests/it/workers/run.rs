//! How workers are run: their process, their restarts, their failures.

use crate::harness::app::{PUPPET, yaml};
use crate::harness::{
    Daemon, Puppet, World, client, eventually, exists, public_probe, require_root, skip,
};
use nix::sys::signal::Signal;
use nix::unistd::{Group, User};
use std::collections::BTreeSet;
use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;

const QUICK: &str = "restart: { policy: always, backoff: 10ms..50ms, limit: none }";

fn puppet_with(world: &World, lines: &str) -> (Daemon, Puppet) {
    let daemon = world.run(&yaml(PUPPET, lines));
    (daemon, world.puppet())
}

// --- The process -------------------------------------------------------------------------------

#[test]
fn a_worker_runs_in_its_working_directory() {
    let world = World::new();
    fs::create_dir(world.path("home")).expect("create a folder");
    let (daemon, puppet) = puppet_with(&world, "working_directory: $DIR/home");
    assert_eq!(puppet.report.cwd, world.path("home").to_str().unwrap());
    daemon.stop();
}

#[test]
fn a_worker_leads_a_process_group_of_its_own() {
    let world = World::new();
    let (daemon, puppet) = puppet_with(&world, "");
    assert_eq!(puppet.report.pgid, puppet.report.pid);
    assert_eq!(puppet.report.ppid, daemon.pid());
    daemon.stop();
}

// umask(2), nice(2), proc_pid_oom_score_adj(5).
#[test]
fn a_worker_gets_its_umask_niceness_and_oom_score() {
    let world = World::new();
    let lines = "umask: 0027\nnice: 7\noom_score_adjust: 500";
    let (daemon, puppet) = puppet_with(&world, lines);
    assert_eq!(puppet.report.umask, 0o027);
    assert_eq!(puppet.report.nice, 7);
    assert_eq!(puppet.report.oom_score_adj, 500);
    daemon.stop();
}

#[test]
fn a_worker_inherits_what_its_entry_does_not_name() {
    let world = World::new();
    let daemon = world.run_with(&yaml(PUPPET, ""), |start| {
        start.through(["$PROBE", "launch", "--umask", "031", "--"]);
        start.directory("/usr").env("INHERITED", "yes");
    });
    let report = world.puppet().report;
    assert_eq!(report.umask, 0o031);
    assert_eq!(report.cwd, "/usr");
    assert_eq!(report.env.get("INHERITED").map(String::as_str), Some("yes"));
    daemon.stop();
}

// setrlimit(2).
#[test]
fn a_worker_gets_its_resource_limits() {
    let world = World::new();
    let lines = "limits: { nofile: '128:256', core: 0, fsize: 2M, stack: '1M:unlimited' }";
    let (daemon, puppet) = puppet_with(&world, lines);
    let limits = &puppet.report.limits;
    assert_eq!(limits["nofile"], [Some(128), Some(256)]);
    assert_eq!(limits["core"], [Some(0), Some(0)]);
    assert_eq!(limits["fsize"], [Some(2 << 20), Some(2 << 20)]);
    assert_eq!(limits["stack"][0], Some(1 << 20));
    daemon.stop();
}

// The daemon may raise its own limit to hold many listeners; that is no business of a worker's.
#[test]
fn the_limits_of_the_daemon_are_not_those_of_a_worker_that_names_none() {
    let world = World::new();
    let daemon = world.run_with(&yaml(PUPPET, ""), |start| {
        start.through(["sh", "-c", "ulimit -Sn 100; exec \"$0\" \"$@\""]);
    });
    assert_eq!(world.puppet().report.limits["nofile"][0], Some(100));
    daemon.stop();
}

// Rule: "`environment` wins over them". The other way round than in systemd, where "Settings from
// these files override settings made with Environment=".
#[test]
fn variables_come_from_listend_then_the_files_then_the_yaml() {
    let world = World::new();
    world.write(
        "first.env",
        "# comment\n\nA=first\nB=first\nC=first\nQUOTED=\"two words\"\nSINGLE='$HOME'\n",
    );
    world.write("second.env", "B=second\nC=second\n");
    let lines = "environment_file: [$DIR/first.env, $DIR/second.env, -$DIR/missing.env]
environment: { C: yaml, D: '5', EMPTY: '' }";
    let daemon = world.run_with(&yaml(PUPPET, lines), |start| {
        start.env("A", "outside").env("E", "outside");
    });
    let env = world.puppet().report.env;
    let found: Vec<_> = ["A", "B", "C", "D", "E", "EMPTY", "QUOTED", "SINGLE"]
        .map(|name| env.get(name).map(String::as_str))
        .to_vec();
    let wanted = [
        "first",
        "second",
        "yaml",
        "5",
        "outside",
        "",
        "two words",
        "$HOME",
    ];
    assert_eq!(found, wanted.map(Some));
    daemon.stop();
}

#[test]
fn the_output_of_a_worker_goes_where_it_is_sent() {
    let world = World::new();
    let daemon = world.run(
        "
workers:
  inherit: { command: [$PROBE, say, inherited] }
  nowhere: { command: [$PROBE, say, dropped], output: null }
  file: { command: [$PROBE, say, kept], output: 'file:$DIR/out-{instance}.log', umask: 0 }
",
    );
    daemon.line(&["inherited on stderr"]);
    let file = world.path("out-0.log");
    let text = || fs::read_to_string(&file).unwrap_or_default();
    eventually("both streams are in the file", || {
        text() == "kept on stdout\nkept on stderr\n"
    });
    // Rule: "created with mode 0640 where it does not exist".
    let mode = fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
    daemon.signal(Signal::SIGTERM);
    let said = daemon.finish().expect_code(0);
    assert!(said.stdout.contains("inherited on stdout"), "{said:#?}");
    assert!(!said.text().contains("dropped"), "{said:#?}");
    assert!(!said.text().contains("kept on"), "{said:#?}");
}

#[test]
fn an_output_file_is_appended_to_over_restarts() {
    let world = World::new();
    world.write("out.log", "before\n");
    let restart = format!("output: file:$DIR/out.log\n{QUICK}");
    let daemon = world.run(&yaml("[$PROBE, say, line]", &restart));
    let count = || {
        let text = fs::read_to_string(world.path("out.log")).unwrap();
        (text.starts_with("before\n"), text.matches("stderr").count())
    };
    eventually("the first has spoken", || count() == (true, 1));
    let started = daemon.line(&["app.0: started, pid"]);
    let (_, pid) = started.rsplit_once(' ').expect("a pid");
    crate::harness::kill(pid.parse().expect("a pid"), Signal::SIGKILL);
    eventually("the second has spoken", || count() == (true, 2));
    daemon.stop();
}

// credentials(7): real, effective, saved and file system ids.
#[test]
fn a_worker_runs_as_its_user_with_that_users_groups() {
    if !require_root() {
        return;
    }
    let world = World::new();
    let probe = public_probe(&world);
    let command = format!("[{}, puppet, $EVENTS]", probe.display());
    let daemon = world.run(&yaml(&command, "user: nobody"));
    let report = world.puppet().report;
    let nobody = User::from_name("nobody").unwrap().expect("nobody");
    assert_eq!(report.uids, [nobody.uid.as_raw(); 4]);
    assert_eq!(report.gids, [nobody.gid.as_raw(); 4]);
    // The user's own groups, as initgroups(3) has them, and none of root's.
    assert!(report.groups.iter().all(|gid| *gid == nobody.gid.as_raw()));
    daemon.stop();
}

#[test]
fn a_worker_runs_with_the_group_and_supplementary_groups_of_its_entry() {
    if !require_root() {
        return;
    }
    let world = World::new();
    let probe = public_probe(&world);
    let command = format!("[{}, puppet, $EVENTS]", probe.display());
    let lines = "user: 12345\ngroup: daemon\nsupplementary_groups: [adm, 4242]";
    let daemon = world.run(&yaml(&command, lines));
    let report = world.puppet().report;
    let gid = |name: &str| {
        Group::from_name(name)
            .unwrap()
            .expect("a group")
            .gid
            .as_raw()
    };
    assert_eq!(report.uids, [12345; 4]);
    assert_eq!(report.gids, [gid("daemon"); 4]);
    let mut groups = report.groups.clone();
    groups.retain(|group| *group != gid("daemon"));
    assert_eq!(groups, [gid("adm"), 4242]);
    daemon.stop();
}

// initgroups(3) with the group that counts, as systemd has it: the primary group of the user is not
// among them, unless the user is named as a member of it.
#[test]
fn with_another_group_the_users_primary_group_is_given_up() {
    if !require_root() {
        return;
    }
    let world = World::new();
    let probe = public_probe(&world);
    let command = format!("[{}, puppet, $EVENTS]", probe.display());
    let daemon = world.run(&yaml(&command, "user: nobody\ngroup: daemon"));
    let report = world.puppet().report;
    let daemons = Group::from_name("daemon").unwrap().expect("daemon").gid;
    assert_eq!(report.gids, [daemons.as_raw(); 4]);
    assert_eq!(report.groups, [daemons.as_raw()]);
    daemon.stop();
}

// execve(2): "EAGAIN … the caller … changed its user ID … and … is still above its RLIMIT_NPROC".
#[test]
fn a_launch_over_the_limit_on_processes_names_it() {
    if !require_root() {
        return;
    }
    let world = World::new();
    let probe = public_probe(&world);
    let yaml = format!(
        "
listeners: {{ web: '127.0.0.1:0' }}
workers:
  many: {{ command: [{0}, puppet, $EVENTS], user: 54322, instances: 3 }}
  few:
    command: [{0}, puppet, $EVENTS]
    user: 54322
    limits: {{ nproc: 2 }}
    listeners: [web]
    activation: on-demand
",
        probe.display()
    );
    let daemon = world.run(&yaml);
    let _many = world.puppets(3);
    let _client = client::tcp(daemon.address("web")).expect("connect");
    let line = daemon.line(&["few", "executing the program"]);
    for words in ["EAGAIN", "RLIMIT_NPROC", "limit of 2", "nproc"] {
        assert!(line.contains(words), "{words}: {line}");
    }
    daemon.stop();
}

// Privileges are dropped in the worker; the listener was bound before.
#[test]
fn an_unprivileged_worker_serves_a_privileged_port_and_a_private_path() {
    if !require_root() {
        return;
    }
    let world = World::new();
    let probe = public_probe(&world);
    let Some(port) =
        (600..1000).find(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok())
    else {
        return skip("no privileged port is free");
    };
    let daemon = world.run(&format!(
        "
listeners: {{ low: '127.0.0.1:{port}', sock: 'unix:$DIR/root.sock' }}
workers:
  app: {{ command: [{}, serve], listeners: [low, sock], user: nobody }}
",
        probe.display()
    ));
    assert_ne!(client::ask_tcp(daemon.address("low")).uids[1], 0);
    assert_ne!(client::ask_unix(&world.path("root.sock")).uids[1], 0);
    daemon.stop();
}

// --- Instances and restarts --------------------------------------------------------------------

#[test]
fn every_instance_is_a_process_on_the_same_listener() {
    let world = World::new();
    let daemon = world.run(&yaml("[$PROBE, serve]", "instances: 3"));
    let address = daemon.address("web");
    let mut pids = BTreeSet::new();
    // Which of them is faster is the kernel's choice; held connections make it take turns.
    eventually("all three have served", || {
        pids.insert(client::ask_tcp(address).pid);
        pids.len() == 3
    });
    assert_eq!(crate::harness::children(daemon.pid()).len(), 3);
    for instance in ["app.0", "app.1", "app.2"] {
        daemon.line(&[instance, "pid", "started"]);
    }
    daemon.stop();
}

// Rule: "the port never closes, and the kernel keeps queueing clients".
#[test]
fn a_client_that_comes_while_no_worker_runs_waits_and_is_served_by_the_next() {
    let world = World::new();
    let (daemon, mut first) = puppet_with(&world, QUICK);
    let address = daemon.address("web");
    let early = client::tcp(address).expect("the queue takes a client");
    crate::harness::kill(first.pid(), Signal::SIGKILL);
    first.wait_for_its_end();
    let late = client::tcp(address).expect("no worker runs, and the port is open");
    let mut second = world.puppet();
    second.tell("serve");
    for stream in [early, late] {
        assert_eq!(client::read_report(stream).unwrap().pid, second.pid());
    }
    daemon.line(&["app.0", "SIGKILL", "restarting in"]);
    daemon.stop();
}

#[test]
fn policy_always_starts_again_after_any_exit() {
    let world = World::new();
    let (daemon, mut puppet) = puppet_with(&world, QUICK);
    for end in ["exit 0", "exit 3", "raise 15", "raise 9", "raise 6"] {
        puppet.tell(end);
        puppet.wait_for_its_end();
        puppet = world.puppet();
    }
    daemon.line(&["app.0", "exit status 3", "restarting in"]);
    daemon.line(&["app.0", "SIGABRT"]);
    daemon.stop();
}

// man systemd.service, Restart=: "If set to on-failure, the service will be restarted when the
// process exits with a non-zero exit code"; a clean exit is "exit code of 0" or "one of the signals
// SIGHUP, SIGINT, SIGTERM, or SIGPIPE".
#[test]
fn policy_on_failure_starts_again_after_failures_only() {
    let world = World::new();
    for clean in ["exit 0", "raise 1", "raise 2", "raise 13", "raise 15"] {
        let lines = "restart: { policy: on-failure, backoff: 10ms..50ms }";
        let (daemon, mut puppet) = puppet_with(&world, lines);
        for failure in ["exit 3", "raise 9"] {
            puppet.tell(failure);
            puppet.wait_for_its_end();
            puppet = world.puppet();
        }
        puppet.tell(clean);
        puppet.wait_for_its_end();
        // Three instances have ended by now, and the last end is followed by nothing.
        let ends = || {
            let lines = daemon.lines_so_far(&["app.0"]);
            let is_end = |line: &&String| line.contains("exit status") || line.contains("SIG");
            lines.iter().filter(is_end).cloned().collect::<Vec<_>>()
        };
        eventually("the end is in the log", || ends().len() >= 3);
        assert!(
            !ends()[2].contains("restarting in"),
            "{clean}: {:#?}",
            ends()
        );
        assert!(world.no_puppet_is_waiting(), "{clean}");
        client::tcp(daemon.address("web")).expect("the listener stays bound");
        daemon.stop();
    }
}

#[test]
fn policy_never_leaves_an_exited_worker_alone_and_its_listener_bound() {
    let world = World::new();
    let (daemon, mut puppet) = puppet_with(&world, "restart: { policy: never }");
    puppet.tell("exit 3");
    puppet.wait_for_its_end();
    let line = daemon.line(&["app.0", "exit status 3"]);
    assert!(!line.contains("restarting in"), "{line}");
    client::tcp(daemon.address("web")).expect("the listener stays bound");
    assert!(world.no_puppet_is_waiting());
    daemon.stop();
}

/// The delays of the lines "restarting in 100 ms".
fn delays(lines: &[String]) -> Vec<f64> {
    let delay = |line: &String| -> Option<f64> {
        let (_, rest) = line.split_once("restarting in ")?;
        let mut words = rest.split_whitespace();
        let first = words.next()?;
        let digits = first.trim_end_matches(|c: char| !c.is_ascii_digit());
        let unit = match first.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.') {
            "" => words.next()?,
            unit => unit,
        };
        let number: f64 = digits.parse().ok()?;
        let unit = unit.trim_matches(|c: char| !c.is_ascii_alphabetic());
        Some(if unit == "ms" {
            number
        } else {
            number * 1000.0
        })
    };
    lines.iter().filter_map(delay).collect()
}

// Rule: "backoff: 100ms..30s": the first delay, doubled with each crash, up to the longest; and "from
// the second on up to a quarter is taken off".
#[test]
fn the_delay_before_a_restart_doubles_up_to_its_limit() {
    let world = World::new();
    let lines = "restart: { policy: always, backoff: 20ms..160ms, limit: none }";
    let daemon = world.run(&yaml("[$PROBE, exit, 1]", lines));
    let delays = delays(&daemon.lines(&["app.0", "restarting in"], 6));
    // Whole milliseconds are told.
    let wanted = [
        (20.0, 20.0),
        (30.0, 40.0),
        (60.0, 80.0),
        (120.0, 160.0),
        (120.0, 160.0),
    ];
    for (delay, (least, most)) in delays.iter().zip(wanted) {
        assert!((least..=most).contains(delay), "{delays:?}");
    }
    daemon.stop();
}

// Rule: "a crash-loop limit after which the worker is `failed` while its listeners stay bound".
#[test]
fn a_worker_that_crashes_too_often_fails_while_its_listener_takes_clients() {
    let world = World::new();
    let lines = "restart: { policy: always, backoff: 1ms..2ms, limit: 3 in 60s }";
    let daemon = world.run(&yaml("[$PROBE, exit, 1]", lines));
    let address = daemon.address("web");
    daemon.line(&["app.0", "failed"]);
    // "more than this many crashes in the interval fail the instance".
    assert_eq!(daemon.lines_so_far(&["app.0: started"]).len(), 4);
    assert_eq!(daemon.lines_so_far(&["restarting in"]).len(), 3);
    client::tcp(address).expect("the queue takes a client");
    assert!(crate::harness::children(daemon.pid()).is_empty());
    daemon.stop();
}

// As a server does that puts itself into the background.
#[test]
fn what_is_wrong_with_a_worker_that_goes_into_the_background_is_said() {
    let world = World::new();
    let lines = "restart: { policy: always, backoff: 1ms..2ms, limit: 1 in 60s }";
    let daemon = world.run(&yaml("[$PROBE, exit, 0]", lines));
    daemon.line(&[
        "ERROR",
        "app.0: exited with exit status 0",
        "too many crashes",
        "have it stay in the foreground",
    ]);
    daemon.stop();
}

// Rule: "Killing workers -9 in a loop under load on an inherited listener: 0 refused connections".
#[test]
fn killing_the_worker_again_and_again_refuses_no_client() {
    const REQUESTS: u32 = 300;
    const EVERY: u32 = 5;
    let world = World::new();
    let lines = "restart: { policy: always, backoff: 1ms..5ms, limit: none }";
    let daemon = world.run(&yaml("[$PROBE, serve]", lines));
    let address = daemon.address("web");
    let (mut refused, mut cut, mut pids) = (0, 0, BTreeSet::new());
    for request in 0..REQUESTS {
        // What the killed worker had in hand may be cut; its client asks again.
        let report = loop {
            match TcpStream::connect(address) {
                Ok(stream) => {
                    stream
                        .set_read_timeout(Some(crate::harness::DEADLINE))
                        .unwrap();
                    match client::read_report(stream) {
                        Ok(report) => break report,
                        Err(_) => cut += 1,
                    }
                }
                Err(_) => refused += 1,
            }
            assert!(refused + cut < REQUESTS, "{refused} refused, {cut} cut");
        };
        pids.insert(report.pid);
        if request % EVERY == 0 {
            crate::harness::kill(report.pid, Signal::SIGKILL);
        }
    }
    assert_eq!(refused, 0);
    // Each kill can cut what that worker had accepted: here one client at most.
    assert!(cut <= REQUESTS / EVERY, "{cut} cut");
    assert!(
        pids.len() as u32 > REQUESTS / EVERY / 2,
        "{} workers",
        pids.len()
    );
    daemon.stop();
}

// --- Failures to start -------------------------------------------------------------------------

/// Folders that everybody may look into.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// Runs a worker that cannot start beside one that can; the line about it has all of the words.
fn fails_to_start(world: &World, entry: &str, words: &[&[&str]]) {
    let yaml = format!(
        "
listeners: {{ web: '127.0.0.1:0' }}
workers:
  bad:
    {entry}
    listeners: [web]
    restart: {{ policy: never }}
  good: {{ command: [$PROBE, puppet, $EVENTS] }}
"
    );
    let daemon = world.run_with(&yaml, |start| {
        start.env("PATH", PATH);
    });
    let good = world.puppet();
    let any = |line: &str, words: &[&str]| words.iter().any(|word| line.contains(word));
    eventually(&format!("a line with {words:?}"), || {
        let lines = daemon.lines_so_far(&["bad"]);
        lines.iter().any(|line| {
            let line = line.to_lowercase();
            words.iter().all(|alternatives| any(&line, alternatives))
        })
    });
    assert!(exists(good.pid()));
    client::tcp(daemon.address("web")).expect("the listener stays bound");
    daemon.stop();
}

// Rule: "Exec failures name the stage and the reason (missing interpreter, not executable for that
// user, chdir failed …), and never block or kill the daemon."
#[test]
fn a_missing_program_is_named() {
    let world = World::new();
    let entry = "command: [$DIR/no-such-program]";
    let reason: &[&str] = &["no such file", "does not exist", "enoent", "not found"];
    fails_to_start(
        &world,
        entry,
        &[&["executing the program"], reason, &["no-such-program"]],
    );
}

#[test]
fn where_a_relative_program_is_missing_is_said() {
    let world = World::new();
    let folder = world.path("").display().to_string().to_lowercase();
    let folder = format!("in {}", folder.trim_end_matches('/'));
    for entry in [
        "command: [./no-such-program]\n    working_directory: $DIR",
        "command: [no/such-program]\n    working_directory: $DIR",
    ] {
        fails_to_start(&world, entry, &[&["executing the program"], &[&folder]]);
    }
}

#[test]
fn a_missing_program_without_a_path_is_looked_for_in_path() {
    let world = World::new();
    let entry = "command: [listend-no-such-program]";
    let reason: &[&str] = &[
        "no such file",
        "does not exist",
        "enoent",
        "not found",
        "not in path",
    ];
    fails_to_start(&world, entry, &[reason, &["listend-no-such-program"]]);
}

#[test]
fn a_program_that_is_not_executable_is_named() {
    let world = World::new();
    world.write("plain", "#!/bin/sh\n");
    let entry = "command: [$DIR/plain]";
    let reason: &[&str] = &["permission denied", "not executable", "eacces"];
    fails_to_start(&world, entry, &[&["executing the program"], reason]);
}

// execve(2): "ENOENT The file pathname or a script or ELF interpreter does not exist."
#[test]
fn a_missing_interpreter_is_told_from_a_missing_program() {
    let world = World::new();
    world.write_script("script", "#!/no/such/interpreter -x\n");
    fails_to_start(
        &world,
        "command: [$DIR/script]",
        &[&["executing the program"], &["/no/such/interpreter"]],
    );
}

#[test]
fn a_carriage_return_behind_the_interpreter_is_shown() {
    let world = World::new();
    world.write_script("script", "#!/bin/sh\r\necho hello\r\n");
    let reason: &[&str] = &["carriage return", "crlf", "\\r", "windows", "dos"];
    fails_to_start(&world, "command: [$DIR/script]", &[reason]);
}

// execve(2): "ENOEXEC An executable is not in a recognized format".
#[test]
fn a_program_in_no_known_format_is_named() {
    let world = World::new();
    world.write_script("garbage", "echo no interpreter line\n");
    let reason: &[&str] = &["enoexec", "format", "#!", "shebang", "interpreter"];
    fails_to_start(
        &world,
        "command: [$DIR/garbage]",
        &[&["executing the program"], reason],
    );
}

#[test]
fn a_missing_working_directory_is_named() {
    let world = World::new();
    let entry = "command: [$PROBE, serve]\n    working_directory: $DIR/no-such-folder";
    let reason: &[&str] = &["no such file", "does not exist", "enoent"];
    fails_to_start(
        &world,
        entry,
        &[&["working directory"], reason, &["no-such-folder"]],
    );
}

#[test]
fn a_program_that_its_user_may_not_execute_is_named() {
    if !require_root() {
        return;
    }
    let world = World::new();
    let script = world.write_script("script", "#!/bin/sh\nexec sleep 60\n");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o700)).unwrap();
    let entry = "command: [$DIR/script]\n    user: nobody";
    let reason: &[&str] = &["permission denied", "not executable", "eacces", "may not"];
    fails_to_start(&world, entry, &[reason, &["nobody", "65534"]]);
}

/// Runs listend as somebody without privileges; `$PUBLIC` is a probe that everybody may execute.
/// `None` where the test is skipped.
fn run_unprivileged(world: &World, yaml: &str, path: &str) -> Option<Daemon> {
    let yaml = yaml.replace("$PUBLIC", public_probe(world).to_str().expect("UTF-8"));
    let path = world.fill(path);
    if !crate::harness::is_root() {
        return Some(world.run_with(&yaml, |start| {
            start.env("PATH", &path);
        }));
    }
    let setpriv = crate::harness::require_tool("setpriv")?;
    let listend = world.path("listend");
    let copied = std::process::Command::new("cp")
        .arg(crate::harness::listend_path())
        .arg(&listend)
        .status();
    assert!(copied.expect("start cp").success());
    let script = "exec $DIR/listend \"$@\"";
    let words = [
        setpriv.to_str().expect("UTF-8"),
        "--reuid=54321",
        "--regid=54321",
        "--clear-groups",
        "/bin/sh",
        "-c",
        script,
    ];
    Some(world.run_with(&yaml, |start| {
        start.through(words).env("PATH", &path);
    }))
}

// setresuid(2): "EPERM The calling process is not privileged".
#[test]
fn another_user_without_the_privilege_is_named() {
    let world = World::new();
    let yaml = "
listeners: { web: '127.0.0.1:0' }
workers:
  bad:
    command: [$PUBLIC, serve]
    user: 12345
    listeners: [web]
    restart: { policy: never }
  good: { command: [$PUBLIC, puppet, $EVENTS] }
";
    let Some(daemon) = run_unprivileged(&world, yaml, PATH) else {
        return;
    };
    let good = world.puppet();
    let line = daemon.line(&["bad", "setting the"]);
    assert!(
        line.contains("not permitted") || line.contains("EPERM"),
        "{line}"
    );
    assert!(exists(good.pid()));
    daemon.stop();
}

// exec(3): "If permission is denied for a file …, these functions will continue searching the rest
// of the search path."
#[test]
fn a_folder_of_path_that_may_not_be_entered_does_not_hide_the_rest() {
    let world = World::new();
    for folder in ["closed", "open"] {
        fs::create_dir(world.path(folder)).expect("create a folder");
    }
    fs::set_permissions(world.path("closed"), fs::Permissions::from_mode(0o000)).expect("chmod");
    let probe = public_probe(&world);
    std::os::unix::fs::symlink(probe, world.path("open/listend-test-tool")).expect("symlink");
    let yaml = "workers: { app: { command: [listend-test-tool, puppet, $EVENTS] } }";
    let path = format!("$DIR/closed:$DIR/open:{PATH}");
    let Some(daemon) = run_unprivileged(&world, yaml, &path) else {
        return;
    };
    world.puppet();
    daemon.stop();
}

// A program that cannot be executed is a crash like any other: it is tried again, and given up.
#[test]
fn a_worker_that_cannot_start_is_tried_again_and_serves_once_it_can() {
    let world = World::new();
    let daemon = world.run(&yaml("[$DIR/late, puppet, $EVENTS]", QUICK));
    daemon.lines(&["app.0", "restarting in"], 2);
    std::os::unix::fs::symlink(crate::harness::probe_path(), world.path("late")).expect("symlink");
    let puppet = world.puppet();
    assert_eq!(puppet.report.ppid, daemon.pid());
    daemon.stop();
}
