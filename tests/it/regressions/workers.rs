//! What was broken once.

use crate::harness::varlink::{self, Varlink};
use crate::harness::{Start, World, client, eventually, listend_path, require_root, require_tool};
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::time::{ClockId, clock_gettime};
use serde_json::json;
use socket2::{Domain, SockAddr, Socket, Type};
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};
use std::time::Duration;

fn mkfifo(world: &World, name: &str) {
    let path = world.path(name);
    nix::unistd::mkfifo(&path, Mode::S_IRWXU).expect("mkfifo");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("chmod");
}

/// How many descriptors a process watches with epoll (proc_pid_fdinfo(5)).
fn watched(pid: i32) -> usize {
    let folder = fs::read_dir(format!("/proc/{pid}/fdinfo")).expect("list /proc");
    let texts = folder.filter_map(|entry| fs::read_to_string(entry.ok()?.path()).ok());
    texts.map(|text| text.matches("tfd:").count()).sum()
}

// epoll(7): a descriptor leaves the set when all copies of it are closed, and a child between
// fork and exec has a copy of each. One that hung there (here in open(2) of a fifo) kept the
// daemon awake for ever about processes that had long gone.
#[test]
fn a_child_that_hangs_before_exec_does_not_keep_the_daemon_busy_about_others() {
    let world = World::new();
    mkfifo(&world, "fifo");
    let daemon = world.run(
        "
workers:
  short: { command: sleep 0.1, instances: 10, restart: never }
  hung: { command: sleep 60, output: 'file:$DIR/fifo', stop_timeout: 10ms }
",
    );
    daemon.lines(&["short.", "exited with exit status 0"], 10);
    // Two descriptors for signals: those to listend, and SIGCHLD. Two for the process that has found the
    // fifo: its socket and its end.
    eventually("only signals and the child that hangs are watched", || {
        watched(daemon.pid()) == 5
    });
    daemon.stop();
}

// fifo(7): "Opening the FIFO for reading normally blocks until the other end is opened". To explain
// why it cannot be executed, the daemon opened it, and heard nothing more, not even SIGTERM.
#[test]
fn a_fifo_as_the_program_does_not_hang_the_daemon() {
    let world = World::new();
    mkfifo(&world, "program");
    let daemon = world.run("workers: { app: { command: $DIR/program } }");
    daemon.line(&["app.0", "EACCES", "not a regular file", "restarting in"]);
    daemon.stop();
}

#[test]
fn a_folder_as_the_program_is_not_blamed_on_a_security_module() {
    let world = World::new();
    let daemon = world.run("workers: { app: { command: $DIR } }");
    let line = daemon.line(&["app.0", "not a regular file"]);
    assert!(!line.contains("AppArmor"), "{line}");
    daemon.stop();
}

// The child changes its folder before execve(2), so that is where a relative path starts; the
// daemon looked for it in its own folder, and said that there is no folder without a name.
#[test]
fn a_relative_program_is_looked_for_in_the_working_directory() {
    let world = World::new();
    fs::create_dir(world.path("home")).expect("create a folder");
    world.write_script("home/bad", "#!/no/such/interpreter\n");
    world.write_script("home/good", "#!/bin/sh\nexec sleep 60\n");
    let worker = |program: &str| {
        format!("{{ command: {program}, working_directory: $DIR/home, silence: no-listeners }}")
    };
    let yaml = format!(
        "workers: {{ bad: {}, missing: {}, good: {} }}",
        worker("./bad"),
        worker("sub/missing"),
        worker("./good")
    );
    let checked = world.check(&yaml, &["--json"]).expect_code(0).json();
    let advice = checked["advice"].as_array().expect("a list");
    let workers: Vec<_> = advice.iter().map(|advice| &advice["worker"]).collect();
    assert_eq!(workers, ["bad", "missing"], "{advice:?}");
    let daemon = world.run(&yaml);
    daemon.line(&["bad.0", "interpreter `/no/such/interpreter`"]);
    let line = daemon.line(&["missing.0", "there is no "]);
    let folder = world.path("home/sub");
    assert!(line.contains(folder.to_str().unwrap()), "{line}");
    daemon.line(&["good.0", "started"]);
    daemon.stop();
}

// setresuid(2): "If one of the arguments equals -1, the corresponding value is not changed", and so
// in setresgid(2) and chown(2): a worker that was to be user 4294967295 ran as root.
#[test]
fn the_id_that_means_no_change_is_no_user_and_no_group() {
    let world = World::new();
    let yaml = "
listeners: { web: { address: 'unix:$DIR/s', owner: 4294967295, group: 4294967295 } }
workers:
  app:
    command: sleep 60
    listeners: [web]
    user: 4294967295
    group: 4294967295
    supplementary_groups: [4294967295, '+5']
";
    let checked = world.check(yaml, &["--json"]).expect_code(78).json();
    let errors = checked["errors"].as_array().expect("a list");
    let kinds: Vec<_> = errors.iter().map(|e| e["kind"].as_str().unwrap()).collect();
    let (user, group) = ("unknown-user", "unknown-group");
    assert_eq!(kinds, [user, group, user, group, group, group]);
}

// environ(7) may hold a name twice, and getenv(3) finds the first: the file's, not the handoff's.
#[test]
fn an_environment_file_cannot_set_the_variables_of_the_handoff() {
    let world = World::new();
    world.write(
        "env",
        "A=1\nexport LISTEN_FDS=7\nLISTEN_PID='1'\nLISTEN_FD=9\n",
    );
    let yaml = "
listeners: { web: '127.0.0.1:0' }
workers: { app: { command: sleep 60, listeners: [web], environment_file: $DIR/env } }
";
    let checked = world.check(yaml, &["--json"]).expect_code(78).json();
    let errors = checked["errors"].as_array().expect("a list");
    let lines: Vec<_> = errors.iter().map(|error| &error["line"]).collect();
    assert_eq!(lines, [2, 3], "{errors:?}");
}

// The child has copies of all descriptors of the daemon, which may be more than RLIMIT_NOFILE of
// the worker allows: open(2) and pidfd_open(2) then answered EMFILE, the worker was not started,
// or did not get LISTEN_PIDFDID (here: 64 of a daemon that has 80 listeners).
#[test]
fn a_worker_may_have_a_lower_limit_on_descriptors_than_the_daemon_has_open() {
    let world = World::new();
    let more: String = (0..80)
        .map(|number| format!("  l{number}: '127.0.0.1:0'\n"))
        .collect();
    let yaml = |lines: &str| {
        format!(
            "listeners:\n{more}workers:\n  app:\n    command: [$PROBE, puppet, $EVENTS]\n    \
             listeners: [l0]\n{lines}"
        )
    };
    let daemon = world.run(&yaml(""));
    let usual = world.puppet().report;
    daemon.stop();
    let daemon = world.run(&yaml(
        "    oom_score_adjust: 5\n    limits: { nofile: 64 }\n",
    ));
    let report = world.puppet().report;
    assert_eq!(report.oom_score_adj, 5);
    assert_eq!(report.limits["nofile"], [Some(64), Some(64)]);
    let name = "LISTEN_PIDFDID";
    assert_eq!(report.env.contains_key(name), usual.env.contains_key(name));
    daemon.stop();
}

#[test]
fn an_unreadable_file_is_not_followed_by_what_may_be_in_it() {
    let world = World::new();
    fs::create_dir(world.path("conf.d")).expect("create a folder");
    std::os::unix::fs::symlink("/no/such/file", world.path("conf.d/a.yaml")).expect("symlink");
    let yaml = "workers: { app: { command: sleep 60, listeners: [web] } }";
    let checked = world.check(yaml, &["--json"]).expect_code(78).json();
    let errors = checked["errors"].as_array().expect("a list");
    let kinds: Vec<_> = errors.iter().map(|error| &error["kind"]).collect();
    assert_eq!(kinds, ["unreadable"], "{errors:?}");
    let hint = errors[0]["hint"].as_str().expect("a hint");
    assert!(!hint.contains("-c"), "{hint}");
}

// proc_pid_comm(5): a process gives itself any name of 15 bytes, and as its first argument any
// longer one that begins with them. Line ends in it were printed as they are.
#[test]
fn the_name_of_a_holder_cannot_add_lines_to_a_message() {
    let world = World::new();
    let script = "import sys, time, socket; \
        s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen(); \
        open('/proc/self/comm', 'w').write('x\\n  hint: y'); \
        print(s.getsockname()[1], flush=True); time.sleep(60)";
    let Some(python) = require_tool("python3") else {
        return;
    };
    let mut holder = Command::new(python)
        .args(["-c", script])
        .stdout(Stdio::piped())
        .spawn()
        .expect("start python");
    let mut port = String::new();
    BufReader::new(holder.stdout.take().expect("a pipe"))
        .read_line(&mut port)
        .expect("read the port");
    let yaml = format!("listeners: {{ web: '127.0.0.1:{}' }}", port.trim());
    let checked = world.check(&yaml, &[]).expect_code(69);
    holder.kill().expect("kill");
    holder.wait().expect("wait");
    assert!(
        checked.stderr.contains("held by x?  hint: y"),
        "{checked:?}"
    );
}

// ipv6(7): a link-local address needs a scope id. The advice was to write one, which the next
// `check` refused.
#[test]
fn the_hint_about_a_link_local_address_can_be_followed() {
    if !crate::harness::require_ipv6() {
        return;
    }
    let world = World::new();
    let yaml = "listeners: { web: '[fe80::1]:0' }";
    let checked = world.check(yaml, &["--json"]).expect_code(78).json();
    let error = &checked["errors"][0];
    assert_eq!(error["kind"], "bad-address", "{error}");
    let hint = error["hint"].as_str().expect("a hint");
    assert!(hint.contains("[fe80::1%"), "{hint}");
    // The form of the hint is understood; that no interface here has the address is another matter.
    let yaml = "listeners: { web: '[fe80::1%lo]:0' }";
    let checked = world.check(yaml, &["--json"]).expect_code(69).json();
    assert_eq!(checked["errors"][0]["kind"], "EADDRNOTAVAIL", "{checked}");
}

// unlink(2), EPERM: in a sticky folder such as /tmp write permission is not what is missing.
#[test]
fn a_stale_socket_of_another_user_in_a_sticky_folder_is_explained_by_its_owner() {
    if !require_root() || require_tool("setpriv").is_none() {
        return;
    }
    let world = World::new();
    let folder = world.path("sticky");
    fs::create_dir(&folder).expect("create a folder");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o1777)).expect("chmod");
    drop(UnixListener::bind(folder.join("s")).expect("bind"));
    fs::set_permissions(folder.join("s"), fs::Permissions::from_mode(0o777)).expect("chmod");
    let file = world.write("listend.yaml", "listeners: { web: 'unix:$DIR/sticky/s' }");
    let public = world.path("listend");
    let copied = Command::new("cp").arg(listend_path()).arg(&public).status();
    assert!(copied.expect("start cp").success());
    let mut start = Start::of(&public, ["check", "--json", file.to_str().expect("UTF-8")]);
    start.through([
        "setpriv",
        "--reuid=54321",
        "--regid=54321",
        "--clear-groups",
    ]);
    let checked = world.start(start).finish().expect_code(69).json();
    let error = &checked["errors"][0];
    assert_eq!(error["kind"], "EPERM", "{error}");
    let hint = error["hint"].as_str().expect("a hint");
    assert!(hint.contains("as its owner"), "{hint}");
}

// DESIGN §5: "or listener `api` of this file, line N", "two names of one unix inode".
#[test]
fn check_names_the_listener_that_has_the_same_path_by_a_link() {
    let world = World::new();
    fs::create_dir(world.path("run")).expect("create a folder");
    std::os::unix::fs::symlink(world.path("run"), world.path("link")).expect("symlink");
    let yaml = "listeners: { one: 'unix:$DIR/run/s', two: 'unix:$DIR/link/s' }";
    let checked = world.check(yaml, &["--json"]).expect_code(69).json();
    let error = &checked["errors"][0];
    assert_eq!(error["listener"], "two", "{error}");
    let related = error["related"][0]["message"].as_str().unwrap_or_default();
    assert!(related.contains("listener `one` has"), "{error}");
    assert!(error.get("causes").is_none(), "{error}");
}

// FIELD: "a live socket is never stolen". Between bind(2) and listen(2) a server answers nobody.
#[test]
fn a_unix_socket_that_does_not_listen_yet_is_not_taken_for_stale() {
    let world = World::new();
    let path = world.path("app.sock");
    let bound = Socket::new(Domain::UNIX, Type::STREAM, None).expect("socket");
    bound.bind(&SockAddr::unix(&path).unwrap()).expect("bind");
    let json = world
        .check("listeners: { app: 'unix:$DIR/app.sock' }", &["--json"])
        .expect_code(69)
        .json();
    assert_eq!(json["errors"][0]["kind"], "live-socket", "{json:#}");
    drop(bound);
    world
        .check("listeners: { app: 'unix:$DIR/app.sock' }", &[])
        .expect_code(0);
}

// FIELD: "shutdown() by a worker kills the listener for everybody". The next start repaired it, but
// after the last crash there is none.
#[test]
fn a_listener_that_a_failed_worker_has_shut_down_takes_clients_again() {
    let world = World::new();
    let port = crate::harness::free_port();
    let daemon = world.run(&format!(
        "
listeners: {{ web: '127.0.0.1:{port}' }}
workers: {{ app: {{ command: [$PROBE, puppet, $EVENTS], listeners: [web], restart: never }} }}
"
    ));
    let mut puppet = world.puppet();
    // While it runs as well: the daemon sees the hangup and listens again.
    puppet.ask("shutdown");
    daemon.line(&["listener web", "shut down", "listening again"]);
    client::tcp(daemon.address("web")).expect("it is up again");
    drop(puppet);
    daemon.line(&["app.0", "exited"]);
    client::tcp(daemon.address("web")).expect("clients wait in the queue");
    daemon.stop();
}

// signal(7): a stopped process acts on SIGTERM only when it continues.
#[test]
fn a_worker_that_is_stopped_with_sigstop_still_ends_gracefully() {
    let world = World::new();
    let daemon = world
        .run("workers: { app: { command: [$PROBE, puppet, $EVENTS], stop_timeout: infinity } }");
    let mut puppet = world.puppet();
    puppet.ask("drain");
    crate::harness::kill(puppet.pid(), Signal::SIGSTOP);
    daemon.signal(Signal::SIGTERM);
    assert_eq!(puppet.listen().as_deref(), Some("term"));
    drop(puppet);
    daemon.status();
}

// pipe(7): a write to a full pipe blocks. The daemon stood still in the middle of a log line.
#[test]
fn a_log_that_nobody_reads_does_not_stop_the_daemon() {
    let world = World::new();
    let runs = world.path("runs");
    let yaml = world.write(
        "listend.yaml",
        &world.fill(
            "
workers:
  app:
    command: [sh, -c, 'echo >> $DIR/runs']
    restart: { backoff: 1ms, limit: none }
",
        ),
    );
    let mut child = Command::new(listend_path())
        .arg("run")
        .arg(&yaml)
        .arg("--control")
        .arg(world.path("control"))
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start listend");
    // Stays open and is not read. Its 64 KiB are full after some 300 runs of two lines each.
    let _unread = child.stderr.take().expect("piped");
    let waited = std::panic::catch_unwind(|| {
        // In steps: on a busy machine all of them may take longer than a deadline.
        for some in (50..=600).step_by(50) {
            eventually("it goes on for six hundred runs", || {
                fs::metadata(&runs).is_ok_and(|file| file.len() > some)
            });
        }
    });
    // Also if it does not: nothing outlives a test.
    crate::harness::kill(child.id() as i32, Signal::SIGTERM);
    assert!(child.wait().expect("wait").success());
    assert!(waited.is_ok(), "it stood still");
}

// --- Configurations that are only meant to be large -----------------------------------------------

/// What a configuration of this text comes to, and the processor time that it takes to read it.
fn reading(text: String) -> (listend::config::Loaded, Duration) {
    let file = listend::config::SourceFile {
        name: "f".to_owned(),
        bytes: text.into_bytes(),
        folder: "/".into(),
    };
    let used = || Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("a clock"));
    let before = used();
    let loaded = listend::config::read(vec![file]);
    (loaded, used() - before)
}

/// Four times as much takes four times as long, and not sixteen times.
#[track_caller]
fn grows_with_its_length(what: &str, text: impl Fn(usize) -> String) {
    let (small, _) = reading(text(3000));
    drop(small);
    let (_, small) = reading(text(3000));
    let (_, large) = reading(text(12_000));
    assert!(large < small * 10, "{what}: {small:?}, {large:?}");
}

fn list(count: usize, one: impl Fn(usize) -> String) -> String {
    (0..count).map(one).collect::<Vec<String>>().join(", ")
}

#[test]
fn a_large_configuration_takes_time_in_proportion() {
    grows_with_its_length("multicast", |count| {
        let groups = list(count, |n| format!("239.0.{}.{}", n >> 8, n & 255));
        format!("listeners: {{ a: {{ address: 'udp://:9', multicast: [{groups}] }} }}")
    });
    grows_with_its_length("symlinks", |count| {
        let links = list(count, |n| format!("/run/l{n}"));
        format!("listeners: {{ a: {{ address: 'unix:/run/a', symlinks: [{links}] }} }}")
    });
    grows_with_its_length("interfaces", |count| {
        let one = |n| format!("a{n}: {{ address: ':9', bind_to_device: d{n} }}");
        format!("listeners: {{ {} }}", list(count, one))
    });
    grows_with_its_length("placeholders", |count| {
        let listeners = list(count, |n| format!("a{n}: '127.0.0.1:{}'", n + 1024));
        let names = list(count, |n| format!("a{n}"));
        let words = list(count, |n| format!("'{{port:a{n}}}'"));
        format!(
            "listeners: {{ {listeners} }}\n\
             workers: {{ w: {{ command: [/bin/true, {words}], listeners: [{names}] }} }}"
        )
    });
}

#[test]
fn a_long_name_is_not_compared_with_others() {
    let long = "a".repeat(3000);
    let listeners = list(200, |n| format!("{long}{n}: '127.0.0.1:{}'", n + 1024));
    let workers = list(200, |n| {
        format!("w{n}: {{ command: x, listeners: [{long}b{n}] }}")
    });
    let (_, took) = reading(format!(
        "listeners: {{ {listeners} }}\nworkers: {{ {workers} }}"
    ));
    // Each comparison takes the square of the length: ten million steps, and there are 40,000.
    assert!(took < Duration::from_secs(20), "{took:?}");
}

#[test]
fn of_many_mistakes_so_many_are_told_and_the_rest_is_counted() {
    let text = "listeners:\n".to_owned() + &"  a: 127.0.0.1:1\n".repeat(20_001);
    let (loaded, _) = reading(text);
    let report = loaded.report;
    assert_eq!(report.errors.len(), listend::report::ERRORS_PER_KIND);
    assert_eq!(report.error_count(), 20_000);
    assert!(!report.is_ok());
    let text = listend::report::render(&report, &loaded.sources, listend::report::Style::Plain);
    assert!(
        text.contains("and 19500 more errors [duplicate-key]"),
        "{text}"
    );
    // Long words are another way to the same end.
    let word = "x".repeat(10_000);
    let (loaded, _) = reading(format!(
        "listeners: {{ {} }}",
        list(1000, |n| format!("a{n}: {word}"))
    ));
    let length: usize = loaded
        .report
        .errors
        .iter()
        .map(|one| one.message.len())
        .sum();
    assert!(length < 1 << 20, "{length}");
    assert_eq!(loaded.report.error_count(), 1000);
}

// A reload's mistakes are told to whoever asked, to the log, and kept in between.
#[test]
fn a_reload_with_a_mistake_in_each_line_costs_the_daemon_little() {
    let world = World::new();
    let daemon = varlink::run(
        &world,
        "workers: { app: { command: [/bin/sleep, '1000'] } }\n",
    );
    let mut client = Varlink::connect(&world);
    client.ask("Status", json!({}));
    let before = peak_kib(daemon.pid());
    let text = "listeners:\n".to_owned() + &"  a: 127.0.0.1:1\n".repeat(50_000);
    world.write("listend.yaml", &text);
    let (error, about) = client.error("Reload", json!({}));
    assert_eq!(error, "NotReloaded");
    let rendered = about["rendered"].as_str().expect("a text");
    assert!(rendered.contains("49499 more errors"), "{}", rendered.len());
    let more = peak_kib(daemon.pid()) - before;
    assert!(more < 20_000, "{more} KiB");
    daemon.stop();
}

/// The most memory that a process has had (proc_pid_status(5)).
fn peak_kib(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number.expect("a line").parse().expect("a number")
}

#[test]
fn a_configuration_without_end_is_refused() {
    let world = World::new();
    let finished = world.finish(["check", "-c", "/dev/zero"]).expect_code(78);
    assert!(finished.stderr.contains("EFBIG"), "{}", finished.stderr);
    let yaml = "workers: { app: { command: [/bin/true], environment_file: /dev/zero } }\n";
    let finished = world.check(yaml, &["--no-bind"]).expect_code(78);
    assert!(!finished.stderr.is_empty());
}
