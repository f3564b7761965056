//! The same assertions about workers that clients start, for listend and for systemd: by
//! systemd-socket-activate, and by `.socket` units in a booted container.
//!
//! `UNDER_TEST=listend` or `UNDER_TEST=systemd` selects one. Known differences, which are not
//! asserted: systemd-socket-activate sets no `REMOTE_*`, and starts its program in its own place
//! where that is not for one connection; systemd has nothing of UCSPI.

use crate::harness::container::{self, Container};
use crate::harness::{
    Daemon, Report, Start, World, children, client, eventually, free_port, probe_path,
    require_ipv6, require_tool,
};
use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Launcher {
    Listend,
    Systemd,
}

/// How a program is given what it serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// The listener, at the first client.
    Listener,
    /// One connection, at descriptor 3.
    Connection,
    /// One connection, as standard input and output.
    Inetd,
}

/// Who is under test.
fn launchers() -> Vec<Launcher> {
    let chosen = std::env::var("UNDER_TEST").unwrap_or_default();
    match chosen.as_str() {
        "" => vec![Launcher::Systemd, Launcher::Listend],
        "listend" => vec![Launcher::Listend],
        "systemd" => vec![Launcher::Systemd],
        other => panic!("UNDER_TEST={other} is neither listend nor systemd"),
    }
}

/// Runs a case with everybody under test.
fn with_each(case: impl Fn(Launcher, &World)) {
    for launcher in launchers() {
        if launcher == Launcher::Listend || require_tool("systemd-socket-activate").is_some() {
            case(launcher, &World::new());
        }
    }
}

impl Way {
    /// What a worker has besides its command and its listeners.
    fn lines(self) -> &'static str {
        match self {
            Way::Listener => "activation: on-demand",
            Way::Connection => "activation: per-connection",
            Way::Inetd => "activation: per-connection, handoff: inetd",
        }
    }

    /// What the probe is told to do.
    fn words(self) -> &'static [&'static str] {
        match self {
            Way::Listener => &["serve"],
            Way::Connection => &["answer", "3"],
            Way::Inetd => &["answer", "0"],
        }
    }
}

impl Launcher {
    /// Starts whoever binds this address, `HOST:PORT` or `/path`, and starts the probe when a
    /// client comes.
    fn start(self, world: &World, way: Way, address: &str) -> Daemon {
        let daemon = match self {
            Launcher::Listend => {
                let scheme = if address.starts_with('/') {
                    "unix:"
                } else {
                    ""
                };
                world.run(&format!(
                    "
listeners: {{ it: '{scheme}{address}' }}
workers:
  app: {{ command: [$PROBE, {}], listeners: [it], {} }}
",
                    way.words().join(", "),
                    way.lines()
                ))
            }
            Launcher::Systemd => {
                let program =
                    crate::harness::tool("systemd-socket-activate").expect("looked for before");
                let mut words = vec!["-l", address];
                words.extend(match way {
                    Way::Listener => ["--fdname=it"].as_slice(),
                    Way::Connection => &["--accept", "--fdname=connection"],
                    Way::Inetd => &["--accept", "--inetd"],
                });
                words.push("$PROBE");
                words.extend(way.words());
                world.start(Start::of(&program, words))
            }
        };
        daemon.line(&["istening on"]);
        daemon
    }
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// What holds for whoever is given one connection.
#[track_caller]
fn check_connection(report: &Report, way: Way, who: &str) {
    let open: Vec<i32> = report.fds.iter().map(|fd| fd.number).collect();
    let given: &[usize] = match way {
        // man sd_listen_fds: "The first file descriptor may be found at file descriptor number 3".
        Way::Connection => {
            assert_eq!(open, [0, 1, 2, 3], "{who}");
            assert_eq!(report.env["LISTEN_FDS"], "1", "{who}");
            // man systemd.socket, FileDescriptorName=: for Accept=yes the name is "connection".
            assert_eq!(report.env["LISTEN_FDNAMES"], "connection", "{who}");
            assert_eq!(report.env["LISTEN_PID"], report.pid.to_string(), "{who}");
            if let Some(inode) = report.env.get("LISTEN_PIDFDID") {
                let inode = inode.parse().expect("a number");
                assert_eq!(Some(inode), report.pidfd_inode, "{who}");
            }
            &[3]
        }
        // man systemd-socket-activate, --inetd: "the socket file descriptor will be used as the
        // standard input and output of the launched process".
        Way::Inetd => {
            assert_eq!(open, [0, 1, 2], "{who}");
            assert_eq!(report.fds[0].target, report.fds[1].target, "{who}");
            assert_ne!(report.fds[0].target, report.fds[2].target, "{who}");
            &[0, 1]
        }
        Way::Listener => panic!("no connection"),
    };
    for number in given {
        let fd = &report.fds[*number];
        let socket = fd.socket.as_ref().expect("a socket");
        assert!(!socket.listening, "{who}: {fd:?}");
        // man systemd.socket, Accept=: "mostly useful to allow daemons designed for usage with
        // inetd(8) to work unmodified", and those read until the end.
        assert!(!fd.nonblocking && !fd.cloexec, "{who}: {fd:?}");
    }
}

// --- systemd-socket-activate -------------------------------------------------------------------

// man systemd-socket-activate, --accept: "Launch an instance of the service program for each
// connection and pass the connection socket."
#[test]
fn each_connection_has_its_own_process_and_socket() {
    for way in [Way::Connection, Way::Inetd] {
        with_each(|launcher, world| {
            let address = format!("127.0.0.1:{}", free_port());
            let _daemon = launcher.start(world, way, &address);
            let mut pids = BTreeSet::new();
            for _ in 0..5 {
                let report = client::ask_tcp(address.parse().expect("an address"));
                check_connection(&report, way, &format!("{launcher:?}"));
                let fd = if way == Way::Inetd { 0 } else { 3 };
                let socket = report.fds[fd].socket.as_ref().expect("a socket");
                assert_eq!(socket.name, address, "{launcher:?}");
                pids.insert(report.pid);
            }
            assert_eq!(pids.len(), 5, "{launcher:?}");
        });
    }
}

#[test]
fn unix_and_ipv6_connections_are_given_the_same_way() {
    let v6 = require_ipv6();
    for way in [Way::Connection, Way::Inetd] {
        with_each(|launcher, world| {
            let path = world.path("it.sock");
            let daemon = launcher.start(world, way, path.to_str().expect("UTF-8"));
            check_connection(&client::ask_unix(&path), way, &format!("{launcher:?}"));
            drop(daemon);
            if v6 {
                let address = format!("[::1]:{}", free_port());
                let _daemon = launcher.start(world, way, &address);
                let report = client::ask_tcp(address.parse().expect("an address"));
                check_connection(&report, way, &format!("{launcher:?}"));
            }
        });
    }
}

// man systemd-socket-activate, --inetd: "as standard input and standard output, instead of the
// new-style protocol for passing file descriptors using $LISTEN_FDS".
#[test]
fn inetd_knows_no_listen_variables() {
    with_each(|launcher, world| {
        let port = free_port();
        let _daemon = launcher.start(world, Way::Inetd, &format!("127.0.0.1:{port}"));
        let report = client::ask_tcp(local(port));
        let left = report.env.keys().filter(|name| name.starts_with("LISTEN_"));
        assert_eq!(left.count(), 0, "{launcher:?}: {:#?}", report.env);
    });
}

// man systemd.socket: "Socket units may be used to implement on-demand starting of services"; and
// systemd-socket-activate starts its program at the first client.
#[test]
fn the_program_of_a_listener_starts_at_the_first_client() {
    with_each(|launcher, world| {
        let port = free_port();
        let daemon = launcher.start(world, Way::Listener, &format!("127.0.0.1:{port}"));
        crate::harness::settled(daemon.pid());
        let program = fs::read_link(format!("/proc/{}/exe", daemon.pid())).expect("it runs");
        assert_ne!(program, probe_path(), "{launcher:?}");
        assert_eq!(children(daemon.pid()), [0; 0], "{launcher:?}");
        let clients: Vec<_> = (0..10).map(|_| client::tcp(local(port)).unwrap()).collect();
        let mut pids = BTreeSet::new();
        for stream in clients {
            let report = client::read_report(stream).expect("a report");
            assert_eq!(report.env["LISTEN_FDNAMES"], "it", "{launcher:?}");
            assert_eq!(report.env["LISTEN_PID"], report.pid.to_string());
            let fd = &report.fds[3];
            assert!(fd.socket.as_ref().expect("a socket").listening);
            assert!(!fd.nonblocking && !fd.cloexec, "{launcher:?}: {fd:?}");
            pids.insert(report.pid);
        }
        assert_eq!(pids.len(), 1, "{launcher:?}");
    });
}

// --- A booted systemd --------------------------------------------------------------------------

/// One listener of the container.
struct Case {
    name: &'static str,
    /// As a unit has it, and as a client connects.
    address: &'static str,
    /// More lines of the unit.
    unit: &'static str,
    /// The listener in YAML.
    yaml: &'static str,
    clients: &'static [Client],
}

/// A client, and what its process is to be told of it.
struct Client {
    scheme: &'static str,
    address: &'static str,
    /// The unix address that it has.
    from: Option<&'static str>,
    remote: Option<&'static str>,
}

const fn tcp(address: &'static str, remote: &'static str) -> Client {
    Client {
        scheme: "tcp",
        address,
        from: None,
        remote: Some(remote),
    }
}

const fn unix(from: Option<&'static str>) -> Client {
    Client {
        scheme: "unix",
        address: "/run/t/it.sock",
        from,
        remote: from,
    }
}

const CASES: &[Case] = &[
    Case {
        name: "v4",
        address: "127.0.0.1:20001",
        unit: "",
        yaml: "'127.0.0.1:20001'",
        clients: &[tcp("127.0.0.1:20001", "127.0.0.1")],
    },
    Case {
        name: "v6",
        address: "[::1]:20002",
        unit: "",
        yaml: "'[::1]:20002'",
        clients: &[tcp("[::1]:20002", "::1")],
    },
    Case {
        name: "dual",
        address: "[::]:20003",
        unit: "BindIPv6Only=both",
        yaml: "{ address: '[::]:20003', ipv6_only: false }",
        clients: &[
            tcp("127.0.0.1:20003", "127.0.0.1"),
            tcp("[::1]:20003", "::1"),
        ],
    },
    Case {
        name: "unix",
        address: "/run/t/it.sock",
        unit: "",
        yaml: "'unix:/run/t/it.sock'",
        clients: &[
            unix(Some("/run/t/client.sock")),
            unix(Some("@listend-client")),
            unix(None),
        ],
    },
];

fn boot() -> Option<Container> {
    let container = container::boot_with_listend()?;
    fs::create_dir_all(container.path("/run/t")).expect("create a folder");
    Some(container)
}

/// Starts the units of all cases, or listend with a worker for each; stops them with what is
/// returned.
fn start_all(container: &Container, launcher: Launcher, way: Way, program: &[&str]) -> Vec<String> {
    let mut units = Vec::new();
    let words = program.join(" ");
    match launcher {
        Launcher::Systemd => {
            for case in CASES {
                let accept = if way == Way::Listener { "no" } else { "yes" };
                let at = if way == Way::Listener { "" } else { "@" };
                let input = if way == Way::Inetd {
                    "StandardInput=socket\nStandardError=journal\n"
                } else {
                    ""
                };
                let Case {
                    name,
                    address,
                    unit,
                    ..
                } = case;
                let folder = "/run/systemd/system";
                container.write(
                    &format!("{folder}/{name}.socket"),
                    &format!("[Socket]\nListenStream={address}\nAccept={accept}\n{unit}\n"),
                );
                container.write(
                    &format!("{folder}/{name}{at}.service"),
                    &format!("[Service]\nExecStart=/opt/probe {words}\n{input}"),
                );
                units.push(format!("{name}.socket"));
            }
        }
        Launcher::Listend => {
            let mut yaml = "listeners:\n".to_owned();
            for case in CASES {
                yaml += &format!("  {}: {}\n", case.name, case.yaml);
            }
            yaml += "workers:\n";
            for Case { name, .. } in CASES {
                yaml += &format!(
                    "  app-{name}: {{ command: /opt/probe {words}, listeners: [{name}], {} }}\n",
                    way.lines()
                );
            }
            container.write("/run/t/listend.yaml", &yaml);
            container.write(
                "/run/systemd/system/listend.service",
                "[Service]\nExecStart=/opt/listend run -c /run/t/listend.yaml\n",
            );
            units.push("listend.service".to_owned());
        }
    }
    container.run(["systemctl", "daemon-reload"]);
    let words = ["systemctl", "start"].into_iter();
    container.run(words.chain(units.iter().map(String::as_str)));
    units
}

fn stop_all(container: &Container, units: &[String]) {
    let words = ["systemctl", "stop"].into_iter();
    container.run(words.chain(units.iter().map(String::as_str)));
    let _ = fs::remove_file(container.path("/run/t/it.sock"));
    let _ = fs::remove_file(container.path("/run/t/client.sock"));
}

/// What a client inside hears: its own port, and all that is said to it.
#[track_caller]
fn hear(container: &Container, client: &Client) -> (String, String) {
    let mut heard = String::new();
    // A listener of listend's is there a little after its unit has started.
    eventually("somebody answers", || {
        let words = ["/opt/probe", "hear", client.scheme, client.address];
        let output = container.output(words.into_iter().chain(client.from));
        if let Some(path) = client.from.filter(|from| from.starts_with('/')) {
            let _ = fs::remove_file(container.path(path));
        }
        heard = String::from_utf8_lossy(&output.stdout).into_owned();
        output.status.success()
    });
    let (port, text) = heard.split_once('\n').expect("two lines");
    (port.to_owned(), text.to_owned())
}

// man systemd.exec, $REMOTE_ADDR, $REMOTE_PORT: "If this is a unit started via per-connection
// socket activation (i.e. via a socket unit with Accept=yes), these environment variables contain
// information about the remote peer of the socket connection."
#[test]
fn accept_yes_tells_each_process_who_its_client_is() {
    let Some(container) = boot() else { return };
    for launcher in launchers() {
        for way in [Way::Connection, Way::Inetd] {
            let units = start_all(&container, launcher, way, way.words());
            for (case, client) in CASES
                .iter()
                .flat_map(|c| c.clients.iter().map(move |k| (c, k)))
            {
                let who = format!(
                    "{launcher:?}, {way:?}, {} from {:?}",
                    case.name, client.from
                );
                let (port, text) = hear(&container, client);
                let report: Report = serde_json::from_str(&text).expect("a report");
                check_connection(&report, way, &who);
                let env = |name: &str| report.env.get(name).map(String::as_str);
                assert_eq!(env("REMOTE_ADDR"), client.remote, "{who}");
                let port = Some(port.as_str()).filter(|port| !port.is_empty());
                assert_eq!(env("REMOTE_PORT"), port, "{who}");
            }
            stop_all(&container, &units);
        }
    }
}

// man systemd.socket, Accept=no: "all listening sockets themselves are passed to the started
// service unit, and only one service unit is spawned for all connections"; once it has ended, the
// next client starts it again.
#[test]
fn accept_no_starts_the_service_at_the_first_client_and_again_after_its_end() {
    let Some(container) = boot() else { return };
    let runs = || container.output(["pgrep", "-x", "probe"]).status.success();
    for launcher in launchers() {
        let units = start_all(&container, launcher, Way::Listener, &["idle", "0"]);
        assert!(!runs(), "{launcher:?}: nobody has come");
        for case in CASES {
            let mut pids = BTreeSet::new();
            for client in [&case.clients[0]; 3] {
                let (_, pid) = hear(&container, client);
                assert!(!pid.is_empty(), "{launcher:?}, {}", case.name);
                pids.insert(pid);
                eventually("it has ended", || !runs());
            }
            assert_eq!(pids.len(), 3, "{launcher:?}, {}", case.name);
        }
        stop_all(&container, &units);
    }
}
