//! What a process finds on its descriptors and in its environment in each of the four ways in which
//! it can be given something: a real fork and exec, without the daemon around it.

use crate::harness::{Puppets, Report, TempDir, eventually, exists, probe_path, state};
use listend::config::{
    Endpoint, Hook, Output, Piece, Ready, Restart, SocketRef, Template, Transport, UnixKind,
    UnixName,
};
use listend::connection::{Credentials, End, Ends, Protocol};
use listend::handoff::{Dialect, Stored, inetd};
use listend::handoff::{PidfdInode, systemd};
use listend::launch_spec::{LaunchSpec, Limit, Resource};
use listend::plan::{Activation, Lifecycle, WorkerPlan};
use listend::report::{FileId, Place};
use listend::stage::Stage;
use listend::sys::{Prepared, Tell};
use listend::worker::{
    DaemonContext, InheritedSocket, Numbers, OutputTarget, Preparation, PrepareError, Served,
    SpawnInputs, launch,
};
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::resource::{Resource as Rlimit, getrlimit, setrlimit};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::time::Duration;

const NUMBERS: Numbers = Numbers {
    instance: 0,
    generation: 1,
};

fn daemon_context() -> DaemonContext {
    DaemonContext {
        signals: listend::sys::changed_signals(),
        listend: "/usr/bin/listend".to_owned(),
        pid: 7,
        inode: PidfdInode::Leave,
        open_files: Limit {
            resource: Resource::Nofile,
            soft: Some(1024),
            hard: Some(4096),
        },
    }
}

/// The probe on the strings at `events`, with a word that says which `{fd:web}` it was told.
fn worker(events: &str, handoff: &'static Dialect, output: Output) -> WorkerPlan {
    let literal = |text: &str| Template::literal(text);
    let fd = Template {
        pieces: vec![Piece::Fd(SocketRef {
            listener: "web".to_owned(),
            index: None,
        })],
    };
    let probe = probe_path().to_str().expect("UTF-8");
    WorkerPlan {
        preset: None,
        idle_unless: None,
        name: "app".to_owned(),
        place: Place {
            file: FileId(0),
            line: 1,
            column: 1,
            length: 1,
        },
        command: vec![literal(probe), literal("puppet"), literal(events), fd],
        argv0: None,
        listeners: Vec::new(),
        handoff: handoff.into(),
        listen_pid: true,
        environment: vec![
            ("KEPT".to_owned(), literal("yes")),
            // A handoff's own word wins, and stands there once.
            ("REMOTE_ADDR".to_owned(), literal("mine")),
        ]
        .into(),
        runtime_directory: None,
        sandbox: None,
        forwards: false,
        launch: LaunchSpec {
            credentials: None,
            limits: Vec::new(),
            umask: None,
            nice: None,
            oom_score_adjust: None,
            ignore_sigpipe: true,
            working_directory: None,
        },
        output,
        notify_access: None,
        fd_store: 0,
        hooks: listend::config::Hooks::default(),
        reload_command: None,
        lifecycle: Lifecycle {
            activation: Activation::Eager,
            instances: 1,
            restart: Restart::default(),
            stop_signal: 15,
            stop_timeout: None,
            ..Lifecycle::default()
        }
        .into(),
    }
}

/// Its program, without an output.
fn program(worker: &WorkerPlan, given: SpawnInputs<'_>) -> Result<Prepared, PrepareError> {
    Preparation::new(worker, given, NUMBERS, &daemon_context())?.program(None)
}

/// Forks the worker and answers with what it saw.
fn see(
    handoff: &'static Dialect,
    given: SpawnInputs<'_>,
    output: impl FnOnce(&TempDir) -> Output,
) -> Report {
    see_prepared(handoff, output, |worker| {
        program(worker, given).expect("prepare")
    })
}

/// The same of a worker that is changed before, and prepared in any way.
fn see_prepared(
    handoff: &'static Dialect,
    output: impl FnOnce(&TempDir) -> Output,
    prepare: impl FnOnce(&mut WorkerPlan) -> Prepared,
) -> Report {
    let dir = TempDir::new();
    let events = dir.path().join("events.sock");
    let puppets = Puppets::listen(&events);
    let mut worker = worker(events.to_str().expect("UTF-8"), handoff, output(&dir));
    let prepared = prepare(&mut worker);
    let launched = launch(prepared, Tell::ByPipe).expect("launch");
    let pid = launched.pid;
    let puppet = puppets.next(|| !exists(pid));
    let report = puppet.report.clone();
    assert_eq!(report.pid, pid);
    listend::sys::discard(launched);
    report
}

fn targets(report: &Report) -> BTreeMap<i32, String> {
    let fds = report.fds.iter();
    fds.map(|fd| (fd.number, fd.target.clone())).collect()
}

/// Where a descriptor of this process points.
fn target(fd: &impl AsRawFd) -> String {
    let link = fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).expect("readlink");
    link.to_string_lossy().into_owned()
}

fn own(fd: i32) -> String {
    target(&fd)
}

fn inherit(_: &TempDir) -> Output {
    Output::Inherit
}

fn listen_variables(report: &Report) -> Vec<(&str, &str)> {
    let all = report.env.iter();
    let listen = all.filter(|(name, _)| name.starts_with("LISTEN_"));
    listen
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect()
}

struct Connection {
    listener: TcpListener,
    _client: TcpStream,
    accepted: TcpStream,
    ends: Ends,
    address: Endpoint,
}

fn connection() -> Connection {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let local = listener.local_addr().expect("getsockname");
    let client = TcpStream::connect(local).expect("connect");
    let (accepted, remote) = listener.accept().expect("accept");
    Connection {
        listener,
        _client: client,
        accepted,
        ends: Ends {
            protocol: Protocol::Tcp,
            local: End::Inet(local),
            remote: End::Inet(remote),
            credentials: None,
        },
        address: Endpoint::Inet {
            transport: Transport::Tcp,
            address: local,
            v6_only: true,
            optional: false,
            scope: None,
        },
    }
}

impl Connection {
    fn socket(&self) -> InheritedSocket<'_> {
        InheritedSocket {
            listener: "web",
            fd: self.listener.as_raw_fd(),
            address: &self.address,
        }
    }

    fn served(&self) -> Option<Served<'_>> {
        Some(Served {
            fd: self.accepted.as_raw_fd(),
            ends: &self.ends,
        })
    }

    /// Checks what is told of it.
    fn check_variables(&self, report: &Report) {
        let (End::Inet(local), End::Inet(remote)) = (&self.ends.local, &self.ends.remote) else {
            panic!("TCP")
        };
        let (local_port, remote_port) = (local.port().to_string(), remote.port().to_string());
        for (name, expected) in [
            ("REMOTE_ADDR", "127.0.0.1"),
            ("REMOTE_PORT", remote_port.as_str()),
            ("PROTO", "TCP"),
            ("TCPLOCALIP", "127.0.0.1"),
            ("TCPLOCALPORT", local_port.as_str()),
            ("TCPREMOTEIP", "127.0.0.1"),
            ("TCPREMOTEPORT", remote_port.as_str()),
            ("KEPT", "yes"),
        ] {
            assert_eq!(
                report.env.get(name).map(String::as_str),
                Some(expected),
                "{name}"
            );
        }
        for name in ["TCPLOCALHOST", "TCPREMOTEHOST", "TCPREMOTEINFO"] {
            assert_eq!(report.env.get(name), None, "{name}");
        }
    }
}

#[test]
fn a_connection_by_systemd_is_descriptor_three_and_nothing_else() {
    let connection = connection();
    let sockets = [connection.socket(), connection.socket()];
    let given = SpawnInputs {
        sockets: &sockets,
        connection: connection.served(),
        ..SpawnInputs::default()
    };
    let report = see(&systemd::DIALECT, given, inherit);
    let expected = [
        (0, "/dev/null".to_owned()),
        (1, own(1)),
        (2, own(2)),
        (3, target(&connection.accepted)),
    ];
    assert_eq!(targets(&report), BTreeMap::from(expected));
    assert!(report.fds.iter().all(|fd| !fd.cloexec), "{:#?}", report.fds);
    let pid = report.pid.to_string();
    assert_eq!(
        listen_variables(&report),
        [
            ("LISTEN_FDNAMES", "connection"),
            ("LISTEN_FDS", "1"),
            ("LISTEN_PID", pid.as_str())
        ]
    );
    assert_eq!(report.argv[3], "3");
    connection.check_variables(&report);
}

#[test]
fn a_connection_by_inetd_is_standard_input_and_output_and_not_standard_error() {
    let connection = connection();
    let sockets = [connection.socket()];
    let given = SpawnInputs {
        sockets: &sockets,
        connection: connection.served(),
        ..SpawnInputs::default()
    };
    let report = see(&inetd::DIALECT, given, inherit);
    let accepted = target(&connection.accepted);
    let expected = [(0, accepted.clone()), (1, accepted), (2, own(2))];
    assert_eq!(targets(&report), BTreeMap::from(expected));
    assert!(report.fds.iter().all(|fd| !fd.cloexec), "{:#?}", report.fds);
    assert_eq!(listen_variables(&report), []);
    assert_eq!(report.argv[3], "0");
    connection.check_variables(&report);
}

#[test]
fn a_socket_by_inetd_is_standard_input_alone() {
    let connection = connection();
    let sockets = [connection.socket()];
    let given = SpawnInputs {
        sockets: &sockets,
        connection: None,
        ..SpawnInputs::default()
    };
    let report = see(&inetd::DIALECT, given, inherit);
    let expected = [(0, target(&connection.listener)), (1, own(1)), (2, own(2))];
    assert_eq!(targets(&report), BTreeMap::from(expected));
    assert_eq!(listen_variables(&report), []);
    assert_eq!(report.argv[3], "0");
    assert_eq!(
        report.env["REMOTE_ADDR"], "mine",
        "nobody else has a word on it"
    );
    assert_eq!(report.env.get("PROTO"), None);
}

#[test]
fn sockets_by_systemd_begin_at_three() {
    let (one, two) = (connection(), connection());
    let other = InheritedSocket {
        listener: "admin",
        ..two.socket()
    };
    let sockets = [other, one.socket()];
    let given = SpawnInputs {
        sockets: &sockets,
        connection: None,
        ..SpawnInputs::default()
    };
    let report = see(&systemd::DIALECT, given, inherit);
    let expected = [
        (0, "/dev/null".to_owned()),
        (1, own(1)),
        (2, own(2)),
        (3, target(&two.listener)),
        (4, target(&one.listener)),
    ];
    assert_eq!(targets(&report), BTreeMap::from(expected));
    let pid = report.pid.to_string();
    assert_eq!(
        listen_variables(&report),
        [
            ("LISTEN_FDNAMES", "admin:web"),
            ("LISTEN_FDS", "2"),
            ("LISTEN_PID", pid.as_str())
        ]
    );
    assert_eq!(report.argv[3], "4");
}

// The connection covers 1, and 2 stays in the file: nothing of the log reaches a client.
#[test]
fn an_output_file_keeps_standard_error_of_a_connection() {
    let connection = connection();
    let dir = TempDir::new();
    let log = dir.path().join("log");
    let listend::walk::Output::File(file) =
        listend::walk::open_to_append(&log, None).expect("open")
    else {
        panic!("a file is a file");
    };
    let given = SpawnInputs {
        sockets: &[],
        connection: connection.served(),
        ..SpawnInputs::default()
    };
    let target_file = OutputTarget {
        fd: file.as_raw_fd(),
        handle_on: Some(&log),
        journal_stream: None,
    };
    let output = |_: &TempDir| Output::File(Template::literal(log.to_str().expect("UTF-8")));
    let report = see_prepared(&inetd::DIALECT, output, |worker| {
        let around = daemon_context();
        let preparation = Preparation::new(worker, given, NUMBERS, &around).expect("prepare");
        preparation.program(Some(target_file)).expect("prepare")
    });
    let path = log.display().to_string();
    let accepted = target(&connection.accepted);
    let expected = [(0, accepted.clone()), (1, accepted), (2, path)];
    assert_eq!(targets(&report), BTreeMap::from(expected));
}

#[test]
fn without_output_and_without_its_socket_everything_is_dev_null() {
    let given = SpawnInputs {
        sockets: &[],
        connection: None,
        ..SpawnInputs::default()
    };
    let report = see(&inetd::DIALECT, given, |_| Output::Null);
    let null = || "/dev/null".to_owned();
    assert_eq!(
        targets(&report),
        BTreeMap::from([(0, null()), (1, null()), (2, null())])
    );
}

// No client can keep its process from being launched by the name it has.
#[test]
fn a_client_with_an_odd_name_is_served_like_any_other() {
    let address = Endpoint::Unix {
        kind: UnixKind::Stream,
        name: UnixName::Abstract("app".to_owned()),
    };
    let file = File::open("/dev/zero").expect("open");
    let ends = Ends {
        protocol: Protocol::Unix,
        local: End::Abstract(b"app".to_vec()),
        remote: End::Abstract(b"a\0=\n\xff".to_vec()),
        credentials: Some(Credentials {
            pid: 1,
            uid: 2,
            gid: 3,
        }),
    };
    let sockets = [InheritedSocket {
        listener: "web",
        fd: file.as_raw_fd(),
        address: &address,
    }];
    let given = SpawnInputs {
        sockets: &sockets,
        connection: Some(Served {
            fd: file.as_raw_fd(),
            ends: &ends,
        }),
        ..SpawnInputs::default()
    };
    let report = see(&systemd::DIALECT, given, inherit);
    // The probe's report is text: what is no UTF-8 is shown as one sign.
    assert_eq!(report.env["REMOTE_ADDR"], "@a@=\n\u{fffd}");
    assert_eq!(report.env["UNIXREMOTEPATH"], "@a@=\n\u{fffd}");
    assert_eq!(report.env["UNIXLOCALPATH"], "@app");
    assert_eq!(report.env["UNIXREMOTEEUID"], "2");
    assert_eq!(report.env["UNIXREMOTEEGID"], "3");
    assert_eq!(report.env["UNIXREMOTEPID"], "1");
    assert_eq!(report.env.get("REMOTE_PORT"), None);
}

fn notified<'a>(stored: &'a [Stored<'a>]) -> SpawnInputs<'a> {
    SpawnInputs {
        stored,
        notify: Some("/run/listend/control.notify"),
        ..SpawnInputs::default()
    }
}

#[test]
fn what_is_stored_follows_the_sockets_and_has_a_name() {
    let connection = connection();
    let (one, two) = (File::open("/dev/zero"), File::open("/dev/full"));
    let (one, two) = (one.expect("open"), two.expect("open"));
    let stored = [("one", &one), ("two", &two)].map(|(name, file)| Stored {
        name,
        fd: file.as_raw_fd(),
    });
    let sockets = [connection.socket()];
    let given = SpawnInputs {
        sockets: &sockets,
        ..notified(&stored)
    };
    let report = see(&systemd::DIALECT, given, inherit);
    let expected = [
        (0, "/dev/null".to_owned()),
        (1, own(1)),
        (2, own(2)),
        (3, target(&connection.listener)),
        (4, "/dev/zero".to_owned()),
        (5, "/dev/full".to_owned()),
    ];
    assert_eq!(targets(&report), BTreeMap::from(expected));
    assert_eq!(report.env["LISTEN_FDS"], "3");
    assert_eq!(report.env["LISTEN_FDNAMES"], "web:one:two");
    assert_eq!(report.argv[3], "3", "the listener's number stays");
    // Without listeners they begin where those would; a connection is nobody's successor.
    let report = see(&systemd::DIALECT, notified(&stored), inherit);
    assert_eq!(report.env["LISTEN_FDNAMES"], "one:two");
    let given = SpawnInputs {
        connection: connection.served(),
        ..notified(&stored)
    };
    let report = see(&systemd::DIALECT, given, inherit);
    assert_eq!(report.env["LISTEN_FDNAMES"], "connection");
}

// The daemon closes its copy of the connection meanwhile: a program that had begun to linger, and ended, would
// have that close(2) wait.
#[test]
fn what_serves_a_connection_executes_nothing_before_it_is_let_go() {
    let dir = TempDir::new();
    let events = dir.path().join("events.sock");
    let puppets = Puppets::listen(&events);
    let connection = connection();
    let worker = worker(
        events.to_str().expect("UTF-8"),
        &inetd::DIALECT,
        Output::Inherit,
    );
    let given = SpawnInputs {
        connection: connection.served(),
        ..SpawnInputs::default()
    };
    let prepared = program(&worker, given).expect("prepare");
    let (_ours, theirs) = listend::sys::passing_pair().expect("socketpair");
    let tell = Tell::ByMemory {
        back: theirs.as_fd(),
        number: 1,
        connection: connection.accepted.as_raw_fd(),
        parent: std::process::id().cast_signed(),
    };
    let mut launched = launch(prepared, tell).expect("launch");
    let (pid, by_memory) = (launched.pid, launched.launching.status().is_none());
    if by_memory {
        // Nothing else on its way makes it sleep.
        eventually("it waits", || state(pid) == Some('S'));
        let not_yet = launched.launching.outcome().expect_err("it has executed");
        assert_eq!(not_yet.kind(), std::io::ErrorKind::WouldBlock);
    }
    launched.launching.release();
    let puppet = puppets.next(|| !exists(pid));
    assert_eq!(puppet.report.pid, pid);
    listend::sys::discard(launched);
}

// A child that leaves descriptors out has a word that the kernel clears when it ends, which says no more than the pipe did.
#[test]
fn a_failure_is_told_once() {
    let (_, hard) = getrlimit(Rlimit::RLIMIT_NOFILE).expect("getrlimit");
    setrlimit(Rlimit::RLIMIT_NOFILE, hard, hard).expect("setrlimit");
    let mut worker = worker("", &systemd::DIALECT, Output::Inherit);
    worker.command[0] = Template::literal("/nonexistent/program");
    for leaves_out in [false, true] {
        let far = leaves_out.then(|| {
            let zero = File::open("/dev/zero").expect("open");
            let number = fcntl(&zero, FcntlArg::F_DUPFD_CLOEXEC(3000)).expect("dup");
            listend::sys::out_of_the_way(listend::sys::take_descriptor(number).expect("open"))
        });
        let prepared = program(&worker, SpawnInputs::default()).expect("prepare");
        let mut launched = launch(prepared, Tell::ByPipe).expect("launch");
        let pid = launched.pid;
        eventually("it has ended", || state(pid) == Some('Z'));
        let (failure, _) = launched.launching.outcome().expect("a failure");
        assert_eq!(failure.expect("a failure").stage, Stage::Exec);
        let again = launched.launching.outcome().expect_err("told again");
        assert_eq!(again.kind(), std::io::ErrorKind::WouldBlock);
        listend::sys::discard(launched);
        drop(far);
    }
}

#[test]
fn only_who_may_tell_is_told_where_to() {
    let report = see(&systemd::DIALECT, SpawnInputs::default(), inherit);
    let told = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "FDSTORE"];
    for name in told.iter().chain(&["LISTEN_FDS", "LISTEN_FDNAMES"]) {
        assert_eq!(report.env.get(*name), None, "{name}");
    }
    let report = see_prepared(&systemd::DIALECT, inherit, |worker| {
        Arc::make_mut(&mut worker.lifecycle).watchdog = Some(Duration::from_millis(2500));
        worker.fd_store = 3;
        program(worker, notified(&[])).expect("prepare")
    });
    let pid = report.pid.to_string();
    let values = told.map(|name| report.env[name].as_str());
    assert_eq!(
        values,
        ["/run/listend/control.notify", "2500000", &pid, "3"]
    );
}

#[test]
fn a_pipe_for_the_newline_goes_where_it_is_wanted_and_nothing_else_does() {
    let connection = connection();
    let zero = File::open("/dev/zero").expect("open");
    let (_ours, theirs) = std::io::pipe().expect("pipe");
    let sockets = [connection.socket()];
    let stored = [Stored {
        name: "zero",
        fd: zero.as_raw_fd(),
    }; 3];
    let given = SpawnInputs {
        sockets: &sockets,
        ready: Some(theirs.as_raw_fd()),
        ..notified(&stored)
    };
    for (number, kept) in [(4, 0), (6, 2), (17, 3)] {
        let report = see_prepared(&systemd::DIALECT, inherit, |worker| {
            Arc::make_mut(&mut worker.lifecycle).ready = Ready::Fd(number);
            program(worker, given).expect("prepare")
        });
        let listed: Vec<i32> = report.fds.iter().map(|fd| fd.number).collect();
        let expected: Vec<i32> = (0..4 + kept).chain([number]).collect();
        assert_eq!(listed, expected, "what would be in its way stays behind");
        assert_eq!(targets(&report)[&number], target(&theirs));
        assert_eq!(report.env["LISTEN_FDS"], (1 + kept).to_string());
    }
    let mut worker = worker("/nowhere", &systemd::DIALECT, Output::Null);
    Arc::make_mut(&mut worker.lifecycle).ready = Ready::Fd(3);
    let refused = program(&worker, given);
    assert_eq!(refused.err(), Some(PrepareError::Occupied(3)));
}

#[test]
fn a_hook_has_the_worker_s_surroundings_and_none_of_its_descriptors() {
    let connection = connection();
    let sockets = [connection.socket()];
    let zero = File::open("/dev/zero").expect("open");
    let stored = [Stored {
        name: "zero",
        fd: zero.as_raw_fd(),
    }];
    let given = SpawnInputs {
        sockets: &sockets,
        ready: Some(zero.as_raw_fd()),
        ..notified(&stored)
    };
    for main in [Some(4711), None] {
        let report = see_prepared(&systemd::DIALECT, inherit, |worker| {
            worker.launch.umask = Some(0o027);
            Arc::make_mut(&mut worker.lifecycle).watchdog = Some(Duration::from_secs(1));
            Arc::make_mut(&mut worker.lifecycle).ready = Ready::Fd(9);
            let mut command = worker.command.clone();
            command.truncate(3);
            command.push(Template {
                pieces: vec![Piece::Port(SocketRef {
                    listener: "web".to_owned(),
                    index: None,
                })],
            });
            worker.command = vec![Template::literal("/nowhere")];
            let hook = Hook {
                command,
                timeout: Duration::from_secs(1),
            };
            let told = main.map(|main: i32| ("MAINPID", main.to_string()));
            let told = told.into_iter().collect();
            let around = daemon_context();
            let preparation = Preparation::new(worker, given, NUMBERS, &around).expect("prepare");
            preparation.hook(&hook, told, None).expect("prepare")
        });
        let open: Vec<i32> = report.fds.iter().map(|fd| fd.number).collect();
        assert_eq!(open, [0, 1, 2]);
        assert_eq!(report.umask, 0o027);
        assert_eq!(report.env["KEPT"], "yes");
        assert_eq!(
            report.env.get("MAINPID").cloned(),
            main.map(|pid| pid.to_string())
        );
        for name in [
            "NOTIFY_SOCKET",
            "WATCHDOG_USEC",
            "WATCHDOG_PID",
            "LISTEN_FDS",
        ] {
            assert_eq!(report.env.get(name), None, "{name}");
        }
        let port = connection
            .listener
            .local_addr()
            .expect("getsockname")
            .port();
        assert_eq!(report.argv[3], port.to_string());
    }
}
