//! What a worker inherits: descriptors, variables, signals; and the state of its listeners.

use crate::harness::report::Socket;
use crate::harness::{Report, World, client, require_ipv6, require_tool, sysctl};
use nix::sys::signal::Signal;
use std::fs;

/// The numbers of the open descriptors.
fn numbers(report: &Report) -> Vec<i32> {
    report.fds.iter().map(|fd| fd.number).collect()
}

/// The inherited sockets, from descriptor 3.
fn sockets(report: &Report) -> Vec<&Socket> {
    let given = report.fds.iter().filter(|fd| fd.number >= 3);
    given
        .map(|fd| fd.socket.as_ref().expect("a socket"))
        .collect()
}

fn env<'a>(report: &'a Report, name: &str) -> Option<&'a str> {
    report.env.get(name).map(String::as_str)
}

// Rule: "A worker has exactly 0, 1, 2 and its listeners, whatever the daemon inherited".
#[test]
fn a_worker_has_three_standard_descriptors_and_its_listeners_and_no_others() {
    let world = World::new();
    let daemon = world.run(
        "
listeners:
  web: 127.0.0.1:0
  dns: udp://127.0.0.1:0
  app: unix:$DIR/app.sock
workers:
  app: { command: [$PROBE, puppet, $EVENTS], listeners: [web, dns, app] }
",
    );
    let report = world.puppet().report;
    assert_eq!(numbers(&report), [0, 1, 2, 3, 4, 5]);
    let found: Vec<_> = sockets(&report)
        .iter()
        .map(|s| (s.family.as_str(), s.kind.as_str(), s.listening))
        .collect();
    assert_eq!(
        found,
        [
            ("inet", "stream", true),
            ("inet", "dgram", false),
            ("unix", "stream", true)
        ]
    );
    // man sd_listen_fds: "This function call will set the FD_CLOEXEC flag for all passed file
    // descriptors", so they are given without.
    assert!(report.fds.iter().all(|fd| !fd.cloexec), "{:#?}", report.fds);
    daemon.stop();
}

// man sd_listen_fds: it "checks whether the $LISTEN_PID environment variable equals the daemon PID.
// If not, it returns immediately. Otherwise, it parses the number passed in the $LISTEN_FDS
// environment variable"; with names it "also parses $LISTEN_FDNAMES if set". libsystemd since 259
// takes no socket either if $LISTEN_PIDFDID is not the inode of the process's own pidfd.
#[test]
fn the_listen_variables_give_count_names_pid_and_pidfd() {
    let world = World::new();
    let daemon = world.run(
        "
listeners:
  web: 127.0.0.1:0
  admin: 127.0.0.1:0
workers:
  app: { command: [$PROBE, puppet, $EVENTS], listeners: [web, admin] }
",
    );
    let report = world.puppet().report;
    assert_eq!(env(&report, "LISTEN_FDS"), Some("2"));
    assert_eq!(env(&report, "LISTEN_FDNAMES"), Some("web:admin"));
    let pid = report.pid.to_string();
    assert_eq!(env(&report, "LISTEN_PID"), Some(pid.as_str()));
    let inode = report.pidfd_inode.map(|inode| inode.to_string());
    assert_eq!(env(&report, "LISTEN_PIDFDID"), inode.as_deref());
    daemon.stop();
}

// A restarted instance is another process.
#[test]
fn every_instance_and_every_restart_gets_its_own_pid_in_listen_pid() {
    let world = World::new();
    let daemon = world.run(
        "
listeners: { web: 127.0.0.1:0 }
workers:
  app:
    command: [$PROBE, puppet, $EVENTS]
    listeners: [web]
    instances: 3
    restart: { policy: always, backoff: 10ms..50ms }
",
    );
    let mut puppets = world.puppets(3);
    puppets[0].tell("exit 1");
    puppets.push(world.puppet());
    let mut pids: Vec<i32> = puppets.iter().map(|puppet| puppet.report.pid).collect();
    for puppet in &puppets {
        let pid = puppet.report.pid.to_string();
        assert_eq!(env(&puppet.report, "LISTEN_PID"), Some(pid.as_str()));
        let inode = puppet.report.pidfd_inode.map(|inode| inode.to_string());
        assert_eq!(env(&puppet.report, "LISTEN_PIDFDID"), inode.as_deref());
    }
    pids.sort_unstable();
    pids.dedup();
    assert_eq!(pids.len(), 4);
    daemon.stop();
}

// man systemd.socket, FileDescriptorName=: "Assigns a name to all file descriptors this socket
// unit encapsulates."
#[test]
fn the_addresses_of_one_listener_share_its_name() {
    if !require_ipv6() {
        return;
    }
    let world = World::new();
    let daemon = world.run(
        "
listeners:
  api: { address: ['127.0.0.1:0', '[::1]:0', 'unix:$DIR/api.sock'] }
  web: 127.0.0.1:0
workers:
  app: { command: [$PROBE, puppet, $EVENTS], listeners: [api, web] }
",
    );
    let report = world.puppet().report;
    assert_eq!(env(&report, "LISTEN_FDNAMES"), Some("api:api:api:web"));
    let families: Vec<_> = sockets(&report).iter().map(|s| s.family.clone()).collect();
    assert_eq!(families, ["inet", "inet6", "unix", "inet"]);
    daemon.stop();
}

// Rule: "fd 3, 4, 5 … in this order; their names in LISTEN_FDNAMES".
#[test]
fn the_workers_list_decides_which_listeners_it_gets_and_in_which_order() {
    let world = World::new();
    let daemon = world.run(
        "
listeners:
  a: unix:$DIR/a.sock
  b: unix:$DIR/b.sock
  c: unix:$DIR/c.sock
workers:
  one: { command: [$PROBE, puppet, $EVENTS, one], listeners: [c, a] }
  two: { command: [$PROBE, puppet, $EVENTS, two], listeners: [b] }
",
    );
    for puppet in world.puppets(2) {
        let report = &puppet.report;
        let names: Vec<_> = sockets(report).iter().map(|s| s.name.clone()).collect();
        let path = |name: &str| world.path(name).to_str().unwrap().to_owned();
        if report.argv[3] == "one" {
            assert_eq!(env(report, "LISTEN_FDNAMES"), Some("c:a"));
            assert_eq!(names, [path("c.sock"), path("a.sock")]);
        } else {
            assert_eq!(env(report, "LISTEN_FDNAMES"), Some("b"));
            assert_eq!(names, [path("b.sock")]);
        }
    }
    daemon.stop();
}

// Rule: "Never export LISTEN_FDS=0 (sd_listen_fds = -EINVAL): unset all".
#[test]
fn a_worker_without_listeners_gets_no_listen_variables() {
    let world = World::new();
    let daemon = world.run("workers: { job: { command: [$PROBE, puppet, $EVENTS] } }");
    let report = world.puppet().report;
    assert_eq!(numbers(&report), [0, 1, 2]);
    let left = report.env.keys().filter(|name| name.starts_with("LISTEN_"));
    assert_eq!(left.count(), 0, "{:#?}", report.env);
    daemon.stop();
}

// man systemd.service, NonBlocking=: "the O_NONBLOCK state of a socket is shared by all file
// descriptors referencing it", so it is set, or cleared, before every spawn.
#[test]
fn listeners_are_blocking_unless_the_worker_asks_for_nonblocking() {
    let world = World::new();
    let daemon = world.run(
        "
listeners:
  plain: 127.0.0.1:0
  tokio: 127.0.0.1:0
  dns: udp://127.0.0.1:0
workers:
  plain: { command: [$PROBE, puppet, $EVENTS, plain], listeners: [plain] }
  tokio: { command: [$PROBE, puppet, $EVENTS, tokio], listeners: [tokio, dns], nonblocking: true }
",
    );
    for puppet in world.puppets(2) {
        let wanted = puppet.report.argv[3] == "tokio";
        let given = puppet.report.fds.iter().filter(|fd| fd.number >= 3);
        for fd in given {
            assert_eq!(fd.nonblocking, wanted, "{:?}", puppet.report.argv);
        }
    }
    daemon.stop();
}

// Rule: "Listeners are put back in order before every spawn, because they are shared with
// whatever ran before: O_NONBLOCK as this worker needs it …, listen(backlog) again".
#[test]
fn listeners_are_put_back_in_order_before_every_spawn() {
    let world = World::new();
    let daemon = world.run(
        "
listeners:
  blocking: { address: '127.0.0.1:0', backlog: 64 }
  nonblocking: { address: '127.0.0.1:0' }
workers:
  blocking:
    command: [$PROBE, puppet, $EVENTS, blocking]
    listeners: [blocking]
    restart: { backoff: 10ms..50ms }
  nonblocking:
    command: [$PROBE, puppet, $EVENTS, nonblocking]
    listeners: [nonblocking]
    nonblocking: true
    restart: { backoff: 10ms..50ms }
",
    );
    for round in 0..2 {
        for mut puppet in world.puppets(2) {
            let nonblocking = puppet.report.argv[3] == "nonblocking";
            let backlog = if nonblocking {
                sysctl("net/core/somaxconn")
            } else {
                64
            };
            let given = &puppet.report.fds[3];
            assert_eq!(given.nonblocking, nonblocking, "round {round}");
            let socket = given.socket.as_ref().expect("a socket");
            assert_eq!(socket.backlog, Some(backlog), "round {round}");
            puppet.ask("disturb");
            puppet.tell("exit 0");
        }
    }
    daemon.stop();
}

// The same without strings, and with clients: the queue of one that a worker left is long again,
// and the next worker answers whoever came meanwhile.
#[test]
fn a_worker_that_leaves_its_listener_in_disorder_is_followed_by_one_that_serves() {
    let world = World::new();
    let daemon = world.run(
        "
listeners: { web: { address: '127.0.0.1:0', backlog: 16 } }
workers:
  app:
    command: [$PROBE, flip]
    listeners: [web]
    restart: { backoff: 10ms..50ms, limit: none }
",
    );
    let address = daemon.address("web");
    let mut pids = Vec::new();
    for _ in 0..4 {
        let report = client::ask_tcp(address);
        assert!(!report.fds[3].nonblocking);
        assert_eq!(sockets(&report)[0].backlog, Some(16));
        pids.push(report.pid);
    }
    pids.dedup();
    assert_eq!(pids.len(), 4, "every client got a worker of its own");
    daemon.stop();
}

// Rule: "Scrub every dialect's variables from the environment first and export only the one
// asked for".
#[test]
fn the_variables_of_every_other_dialect_are_scrubbed() {
    const SCRUBBED: &[&str] = &[
        "LISTEN_FDS_FIRST_FD",
        "UPSTART_FDS",
        "UPSTART_EVENTS",
        "NGINX",
        "SERVER_STARTER_PORT",
        "SERVER_STARTER_GENERATION",
        "EINHORN_FD_COUNT",
        "EINHORN_FD_0",
        "EINHORN_FDS",
        "EINHORN_MASTER_PID",
        "EINHORN_SOCK_PATH",
        "EINHORN_CHILD_INDEX",
        "FPM_SOCKETS",
        "FPM_SOCKETS_1",
        "PUMA_INHERIT_0",
        "PUMA_INHERIT_17",
        "UNICORN_FD",
        "GUNICORN_FD",
        "GUNICORN_PID",
        "WERKZEUG_SERVER_FD",
        "WERKZEUG_RUN_MAIN",
        "MOJO_REUSE",
        "NOTIFY_SOCKET",
        "WATCHDOG_USEC",
        "WATCHDOG_PID",
        "MAINPID",
        "NODE_CHANNEL_FD",
        "NODE_UNIQUE_ID",
        "TABLEFLIP_HAS_PARENT_7DIU3",
        "ENDLESS_CONTINUE",
        "ENDLESS_SOCKET_ORDER",
        "MAINPIDFDID",
        "MANAGERPID",
        "MANAGERPIDFDID",
        "INVOCATION_ID",
        "SYSTEMD_EXEC_PID",
        "SYSTEMD_ACTIVATION_UNIT",
        "SYSTEMD_ACTIVATION_SCOPE",
        "RUNTIME_DIRECTORY",
        "STATE_DIRECTORY",
        "CACHE_DIRECTORY",
        "LOGS_DIRECTORY",
        "CONFIGURATION_DIRECTORY",
        "CREDENTIALS_DIRECTORY",
        "MEMORY_PRESSURE_WATCH",
        "MEMORY_PRESSURE_WRITE",
        "PIDFILE",
        "SERVICE_RESULT",
        "EXIT_CODE",
        "EXIT_STATUS",
        "MONITOR_SERVICE_RESULT",
        "MONITOR_EXIT_CODE",
        "MONITOR_EXIT_STATUS",
        "MONITOR_INVOCATION_ID",
        "MONITOR_UNIT",
        "TRIGGER_UNIT",
        "TRIGGER_PATH",
        "TRIGGER_TIMER_REALTIME_USEC",
        "TRIGGER_TIMER_MONOTONIC_USEC",
        "FDSTORE",
        "SO_COOKIE",
        "REMOTE_ADDR",
        "REMOTE_PORT",
        "TCPLOCALIP",
        "TCPLOCALPORT",
        "TCPLOCALHOST",
        "TCPREMOTEIP",
        "TCPREMOTEPORT",
        "TCPREMOTEHOST",
        "TCPREMOTEINFO",
        "PROTO",
    ];
    let world = World::new();
    let yaml = "
listeners: { web: '127.0.0.1:0' }
workers: { app: { command: [$PROBE, puppet, $EVENTS], listeners: [web] } }
";
    let daemon = world.run_with(yaml, |start| {
        for name in SCRUBBED {
            start.env(name, "3");
        }
        // For somebody else, and wrong for the worker.
        start.env("LISTEN_FDS", "7").env("LISTEN_PID", "1");
        start
            .env("LISTEN_FDNAMES", "x:y")
            .env("LISTEN_PIDFDID", "1");
        start.env("NGINX_HOME", "/n").env("TCP_TIMEOUT", "5");
        start.env("PROTOCOL", "http").env("MY_LISTEN_FDS", "kept");
        // Of listend's own unit, and true of its workers as well.
        for name in ["LANG", "XDG_RUNTIME_DIR", "LOG_NAMESPACE", "TERM"] {
            start.env(name, "3");
        }
    });
    let report = world.puppet().report;
    for name in SCRUBBED {
        assert_eq!(env(&report, name), None, "{name}");
    }
    assert_eq!(env(&report, "LISTEN_FDS"), Some("1"));
    assert_eq!(env(&report, "LISTEN_FDNAMES"), Some("web"));
    let inode = report.pidfd_inode.map(|inode| inode.to_string());
    assert_eq!(env(&report, "LISTEN_PIDFDID"), inode.as_deref());
    // What only looks like one of them is the worker's own affair.
    assert_eq!(env(&report, "NGINX_HOME"), Some("/n"));
    assert_eq!(env(&report, "TCP_TIMEOUT"), Some("5"));
    assert_eq!(env(&report, "PROTOCOL"), Some("http"));
    assert_eq!(env(&report, "MY_LISTEN_FDS"), Some("kept"));
    for name in ["LANG", "XDG_RUNTIME_DIR", "LOG_NAMESPACE", "TERM"] {
        assert_eq!(env(&report, name), Some("3"), "{name}");
    }
    daemon.stop();
}

// Rule: "whatever the daemon inherited".
#[test]
fn descriptors_that_leaked_into_the_daemon_do_not_reach_a_worker() {
    let world = World::new();
    let yaml = "
listeners: { web: '127.0.0.1:0' }
workers: { app: { command: [$PROBE, puppet, $EVENTS], listeners: [web] } }
";
    let daemon = world.run_with(yaml, |start| {
        start.through([
            "$PROBE", "launch", "--leak", "3", "--leak", "9", "--leak", "200", "--",
        ]);
    });
    let report = world.puppet().report;
    assert_eq!(numbers(&report), [0, 1, 2, 3]);
    assert!(sockets(&report)[0].listening);
    daemon.stop();
}

// Rule: "default signal dispositions, an empty signal mask"; but for SIGPIPE, which systemd.exec(5)
// ignores in a service (IgnoreSIGPIPE=), whatever it was in listend.
#[test]
fn a_worker_starts_with_no_signal_blocked_or_caught_and_only_sigpipe_ignored() {
    let sigpipe = Signal::SIGPIPE as i32;
    signals_of_a_worker(&[], "", &[sigpipe]);
    signals_of_a_worker(&[], "ignore_sigpipe: true", &[sigpipe]);
    signals_of_a_worker(&[], "ignore_sigpipe: false", &[]);
}

// Linux before 5.5, and sandboxes that answer as such a kernel does, or refuse.
#[test]
fn so_does_it_where_a_child_cannot_be_made_without_handlers() {
    let Some(_strace) = require_tool("strace") else {
        return;
    };
    for errno in ["ENOSYS", "EINVAL", "EPERM"] {
        let refuse = format!("inject=clone3:error={errno}");
        let without = ["strace", "-D", "-q", "-o", "$DIR/trace", "-e", &refuse];
        signals_of_a_worker(&without, "ignore_sigpipe: false", &[]);
        signals_of_a_worker(&without, "", &[Signal::SIGPIPE as i32]);
    }
}

#[track_caller]
fn signals_of_a_worker(through: &[&str], line: &str, ignored: &[i32]) {
    let world = World::new();
    let yaml = &format!(
        "
listeners: {{ web: '127.0.0.1:0' }}
workers:
  app:
    command: [$PROBE, puppet, $EVENTS]
    listeners: [web]
    {line}
"
    );
    let number = |signal: Signal| (signal as i32).to_string();
    let (usr1, usr2) = (number(Signal::SIGUSR1), number(Signal::SIGUSR2));
    let (hup, pipe, chld) = (
        number(Signal::SIGHUP),
        number(Signal::SIGPIPE),
        number(Signal::SIGCHLD),
    );
    let term = number(Signal::SIGTERM);
    let daemon = world.run_with(yaml, |start| {
        let launch = [
            "$PROBE", "launch", "--block", &usr1, "--block", &term, "--block", &chld, "--ignore",
            &usr2, "--ignore", &hup, "--ignore", &pipe, "--ignore", &chld, "--",
        ];
        start.through(through.iter().copied().chain(launch));
    });
    let report = world.puppet().report;
    assert_eq!(report.blocked, [0; 0]);
    // Signals 32 and 33 too, which posix_spawn(3) of glibc ignores in whatever it starts.
    assert_eq!(report.ignored, ignored);
    assert_eq!(report.caught, [0; 0]);
    // The daemon itself is not to be deaf either: it was started with SIGTERM and SIGCHLD blocked.
    daemon.stop();
}

// Rule: "`command`, `environment` values and `working_directory` may hold `{fd:web}`,
// `{address:web}`, `{port:web}`, `{instance}`, `{generation}`; `{{` is a brace."
#[test]
fn placeholders_are_filled_in_in_command_environment_and_working_directory() {
    if !require_ipv6() {
        return;
    }
    let world = World::new();
    fs::create_dir(world.path("in0")).expect("create a folder");
    fs::create_dir(world.path("in1")).expect("create a folder");
    let daemon = world.run(
        "
listeners:
  sock: unix:$DIR/app.sock
  web: { address: ['127.0.0.1:0', '127.0.0.1:0'] }
  v6: { address: '[::1]:0' }
workers:
  app:
    command:
      - $PROBE
      - puppet
      - $EVENTS
      - --fd={fd:web}
      - '{fd:web:1}'
      - http://{address:web}/
      - '{port:web}'
      - '{address:sock}'
      - '{instance}.{generation}'
      - '{{literal}}'
      - '{host:web}/{host:v6}:{port:v6}'
      - '{supervisor_pid}'
      - --fds={fds}
      - '{fds:web|;}'
    environment:
      BIND: fd://{fd:sock}
      UNICORN_FD: '{fds:web}'
      PORT: '{port:web:1}'
      NAME: app-{instance}
    working_directory: $DIR/in{instance}
    listeners: [sock, web, v6]
    instances: 2
",
    );
    for puppet in world.puppets(2) {
        let report = &puppet.report;
        let sockets = sockets(report);
        let port = |index: usize| sockets[index].name.rsplit(':').next().unwrap().to_owned();
        let instance = if report.cwd.ends_with("in1") {
            "1"
        } else {
            "0"
        };
        let cwd = world.path(&format!("in{instance}"));
        assert_eq!(report.cwd, cwd.to_str().unwrap());
        assert_eq!(
            report.argv[3..],
            [
                "--fd=4".to_owned(),
                "5".to_owned(),
                format!("http://{}/", sockets[1].name),
                port(1),
                world.path("app.sock").to_str().unwrap().to_owned(),
                format!("{instance}.1"),
                "{literal}".to_owned(),
                format!("127.0.0.1/::1:{}", port(3)),
                daemon.pid().to_string(),
                "--fds=3,4,5,6".to_owned(),
                "4;5".to_owned(),
            ]
        );
        assert_eq!(env(report, "BIND"), Some("fd://3"));
        assert_eq!(env(report, "UNICORN_FD"), Some("4,5"));
        assert_eq!(env(report, "PORT"), Some(port(2).as_str()));
        assert_eq!(
            env(report, "NAME"),
            Some(format!("app-{instance}").as_str())
        );
    }
    daemon.stop();
}

// systemd.service(5), COMMAND LINES: "$FOO as a separate word … split at whitespace", "${FOO} as part
// of a word, or as a word of its own".
#[test]
fn variables_in_commands_are_what_systemd_makes_of_them() {
    let world = World::new();
    world.write("variables", "OPTS=\"-a 'b c' {instance} \\$HOME\"\nNONE=\n");
    let daemon = world.run(
        "
listeners: { web: '127.0.0.1:0' }
workers:
  app:
    command: [$PROBE, puppet, $EVENTS, $OPTS, '${OPTS}', $NONE, '${NONE}', 'x${PORT}y', x$PORT,
              '$$PORT', '${LISTEN_FDS}', $UNKNOWN, 'u${UNKNOWN}', '{instance}']
    expand_environment: true
    environment_file: variables
    environment: { PORT: 'p{instance}' }
    listeners: [web]
    after_ready: [$PROBE, puppet, $EVENTS, 'main ${MAINPID}', $OPTS]
",
    );
    // Either may be the first to come.
    let mut puppets = world.puppets(2);
    puppets.sort_by_key(|puppet| {
        puppet
            .report
            .argv
            .iter()
            .any(|word| word.starts_with("main "))
    });
    // The hook ends by that, and the worker goes on: neither keeps listend from stopping.
    let hook = puppets.pop().expect("two").report;
    let app = &puppets[0].report;
    let options = "-a 'b c' {instance} $HOME";
    assert_eq!(
        app.argv[3..],
        [
            "-a",
            "b c",
            "{instance}",
            "$HOME",
            options,
            "",
            "xp0y",
            "x$PORT",
            "$PORT",
            "1",
            "u",
            "0"
        ]
    );
    let main = format!("main {}", app.pid);
    assert_eq!(hook.argv[3..], [&main, "-a", "b c", "{instance}", "$HOME"]);
    daemon.stop();
}

#[test]
fn without_expand_environment_a_dollar_is_a_letter() {
    let world = World::new();
    let yaml = "workers: { app: { command: [$PROBE, puppet, $EVENTS, $HOME, x$HOME, $$] } }";
    let daemon = world.run(yaml);
    let report = world.puppet().report;
    assert_eq!(report.argv[3..], ["$HOME", "x$HOME", "$$"]);
    daemon.stop();
}

// tcpd(8): "the tcpd program … runs the appropriate server", which it takes from argv[0].
#[test]
fn argv0_is_what_the_program_is_told_that_it_is_called() {
    let world = World::new();
    let daemon = world.run(
        "
workers: { app: { command: [$PROBE, puppet, $EVENTS], argv0: 'in.app-{instance}' } }
",
    );
    let report = world.puppet().report;
    assert_eq!(report.argv[0], "in.app-0");
    assert_eq!(report.argv[1], "puppet");
    daemon.stop();
}

#[test]
fn a_command_in_one_string_is_split_as_a_shell_would_and_run_by_none() {
    let world = World::new();
    let daemon = world
        .run("workers: { app: { command: \"$PROBE puppet $EVENTS 'two words' a\\\\ b ~ * ;\" } }");
    let report = world.puppet().report;
    assert_eq!(report.argv[3..], ["two words", "a b", "~", "*", ";"]);
    daemon.stop();
}

// More descriptors than any table of fixed size would have room for.
#[test]
fn three_hundred_listeners_reach_one_worker_in_order() {
    const COUNT: usize = 300;
    let world = World::new();
    let mut yaml = "listeners:\n".to_owned();
    for number in 0..COUNT {
        yaml += &format!("  listener-{number}: unix:$DIR/{number}.sock\n");
    }
    let names: Vec<_> = (0..COUNT).rev().map(|n| format!("listener-{n}")).collect();
    yaml += &format!(
        "workers: {{ app: {{ command: [$PROBE, puppet, $EVENTS], listeners: [{}] }} }}",
        names.join(", ")
    );
    let daemon = world.run(&yaml);
    let mut puppet = world.puppet();
    let report = &puppet.report;
    assert_eq!(numbers(report), (0..3 + COUNT as i32).collect::<Vec<_>>());
    assert_eq!(
        env(report, "LISTEN_FDNAMES"),
        Some(names.join(":").as_str())
    );
    for (index, socket) in sockets(report).iter().enumerate() {
        let path = world.path(&format!("{}.sock", COUNT - 1 - index));
        assert_eq!(socket.name, path.to_str().unwrap());
    }
    puppet.tell("serve");
    assert_eq!(client::ask_unix(&world.path("0.sock")).pid, puppet.pid());
    assert_eq!(client::ask_unix(&world.path("299.sock")).pid, puppet.pid());
    daemon.stop();
}
