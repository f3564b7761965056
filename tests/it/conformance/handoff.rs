//! The same assertions about `listend exec` and about systemd's own systemd-socket-activate.
//!
//! What holds for both is the protocol; `UNDER_TEST=listend` or `UNDER_TEST=systemd` selects one.
//! The peer starts its program at the first connection and by executing it in place; listend
//! starts it at once and as a child. Both are right, so neither is asserted.

use crate::harness::{Daemon, Report, Start, World, client, free_port, require_ipv6, require_tool};
use std::net::SocketAddr;

/// Who binds and hands over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Launcher {
    Listend,
    Systemd,
}

/// The type of all sockets of a case: the peer takes one for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Type {
    Stream,
    Datagram,
    SeqPacket,
}

/// Name and address of a listener; `/path`, `@name` or `HOST:PORT`.
type Listener<'a> = (&'a str, &'a str);

impl Launcher {
    /// Starts the probe with these listeners and, unless `named` is false, with their names; waits
    /// until all are bound.
    fn start(self, world: &World, kind: Type, listeners: &[Listener], named: bool) -> Daemon {
        let mut words: Vec<String> = Vec::new();
        let program = match self {
            Launcher::Listend => {
                words.push("exec".to_owned());
                for (name, address) in listeners {
                    let scheme = match (address.starts_with(['/', '@']), kind) {
                        (false, Type::Datagram) => "udp://",
                        (false, _) => "",
                        (true, Type::Stream) => "unix:",
                        (true, Type::Datagram) => "unix-dgram:",
                        (true, Type::SeqPacket) => "unix-seqpacket:",
                    };
                    let prefix = if named {
                        format!("{name}=")
                    } else {
                        String::new()
                    };
                    words.extend(["-l".to_owned(), format!("{prefix}{scheme}{address}")]);
                }
                words.push("--".to_owned());
                crate::harness::listend_path().to_owned()
            }
            Launcher::Systemd => {
                match kind {
                    Type::Stream => {}
                    Type::Datagram => words.push("--datagram".to_owned()),
                    Type::SeqPacket => words.push("--seqpacket".to_owned()),
                }
                for (name, address) in listeners {
                    words.extend(["-l".to_owned(), (*address).to_owned()]);
                    if named {
                        words.push(format!("--fdname={name}"));
                    }
                }
                crate::harness::tool("systemd-socket-activate").expect("looked for before")
            }
        };
        words.extend(["$PROBE".to_owned(), "serve".to_owned()]);
        let start = Start::of(&program, words.iter().map(String::as_str));
        let daemon = world.start(start);
        daemon.lines(&["istening on"], listeners.len());
        daemon
    }
}

/// Runs a case with everybody under test.
fn with_each(case: impl Fn(Launcher, &World)) {
    let chosen = std::env::var("UNDER_TEST").unwrap_or_default();
    assert!(
        ["", "listend", "systemd"].contains(&chosen.as_str()),
        "UNDER_TEST={chosen} is neither listend nor systemd"
    );
    if chosen != "listend" && require_tool("systemd-socket-activate").is_some() {
        case(Launcher::Systemd, &World::new());
    }
    if chosen != "systemd" {
        case(Launcher::Listend, &World::new());
    }
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// What holds for every handoff of `names.len()` sockets.
fn check_protocol(report: &Report, names: &[&str], launcher: Launcher) {
    // man sd_listen_fds: "The first file descriptor may be found at file descriptor number 3 (i.e.
    // SD_LISTEN_FDS_START), the remaining descriptors follow at 4, 5, 6, …, if any." And no others.
    let open: Vec<i32> = report.fds.iter().map(|fd| fd.number).collect();
    let wanted: Vec<i32> = (0..3 + names.len() as i32).collect();
    assert_eq!(open, wanted, "{launcher:?}");
    // man sd_listen_fds: "it parses the number passed in the $LISTEN_FDS environment variable".
    assert_eq!(
        report.env["LISTEN_FDS"],
        names.len().to_string(),
        "{launcher:?}"
    );
    // man sd_listen_fds: it "checks whether the $LISTEN_PID environment variable equals the daemon
    // PID. If not, it returns immediately."
    assert_eq!(
        report.env["LISTEN_PID"],
        report.pid.to_string(),
        "{launcher:?}"
    );
    // man sd_listen_fds: sd_listen_fds_with_names() "also parses $LISTEN_FDNAMES if set".
    assert_eq!(
        report.env["LISTEN_FDNAMES"],
        names.join(":"),
        "{launcher:?}"
    );
    // libsystemd since 259: where $LISTEN_PIDFDID is set it must be the inode of the worker's own
    // pidfd, or no socket is taken.
    if let Some(inode) = report.env.get("LISTEN_PIDFDID") {
        assert_eq!(
            Some(inode.parse().expect("a number")),
            report.pidfd_inode,
            "{launcher:?}"
        );
    } else {
        assert!(launcher == Launcher::Systemd || report.pidfd_inode.is_none());
    }
    for fd in &report.fds[3..] {
        // man systemd.service, NonBlocking=: "If true, all file descriptors >= 3 … will have the
        // O_NONBLOCK flag set"; nobody asked for it here.
        assert!(!fd.nonblocking, "{launcher:?}: {fd:?}");
        // man sd_listen_fds: "This function call will set the FD_CLOEXEC flag for all passed file
        // descriptors", so it is given without.
        assert!(!fd.cloexec, "{launcher:?}: {fd:?}");
    }
}

fn names_of_sockets(report: &Report) -> Vec<&str> {
    let sockets = report.fds[3..].iter().map(|fd| fd.socket.as_ref());
    sockets
        .map(|socket| socket.expect("a socket").name.as_str())
        .collect()
}

// man systemd-socket-activate: "sockets will be passed through file descriptors 3 and higher …
// Other sockets specified with --listen= will use consecutive descriptors."
#[test]
fn tcp_listeners_come_in_order_and_with_their_names() {
    with_each(|launcher, world| {
        let (one, two) = (free_port(), free_port());
        let (first, second) = (format!("127.0.0.1:{one}"), format!("127.0.0.1:{two}"));
        let listeners = [("web", first.as_str()), ("admin", second.as_str())];
        let _daemon = launcher.start(world, Type::Stream, &listeners, true);
        for port in [two, one] {
            let report = client::ask_tcp(local(port));
            check_protocol(&report, &["web", "admin"], launcher);
            assert_eq!(names_of_sockets(&report), [&first, &second], "{launcher:?}");
            for fd in &report.fds[3..] {
                let socket = fd.socket.as_ref().expect("a socket");
                assert!(
                    socket.listening && socket.reuse_address,
                    "{launcher:?}: {fd:?}"
                );
            }
        }
    });
}

// man systemd.socket, FileDescriptorName=: "Assigns a name to all file descriptors this socket
// unit encapsulates."
#[test]
fn two_listeners_may_have_one_name() {
    with_each(|launcher, world| {
        let (one, two) = (free_port(), free_port());
        let (first, second) = (format!("127.0.0.1:{one}"), format!("127.0.0.1:{two}"));
        let listeners = [("web", first.as_str()), ("web", second.as_str())];
        if launcher == Launcher::Listend {
            // Listeners of one name are one listener with several addresses there.
            let yaml = format!(
                "
listeners: {{ web: {{ address: ['{first}', '{second}'] }} }}
workers: {{ app: {{ command: [$PROBE, serve], listeners: [web] }} }}
"
            );
            let daemon = world.run(&yaml);
            daemon.addresses("web", 2);
            check_protocol(&client::ask_tcp(local(two)), &["web", "web"], launcher);
            return;
        }
        let _daemon = launcher.start(world, Type::Stream, &listeners, true);
        check_protocol(&client::ask_tcp(local(two)), &["web", "web"], launcher);
    });
}

// man systemd.socket, BindIPv6Only=: "If ipv6-only, they will be accessible via IPv6 only."
// For an address that is not the wildcard the peer has it so as well.
#[test]
fn an_ipv6_listener_is_v6only() {
    if !require_ipv6() {
        return;
    }
    with_each(|launcher, world| {
        let port = free_port();
        let address = format!("[::1]:{port}");
        let listeners = [("web", address.as_str())];
        let _daemon = launcher.start(world, Type::Stream, &listeners, true);
        let report = client::ask_tcp(address.parse().expect("an address"));
        check_protocol(&report, &["web"], launcher);
        let socket = report.fds[3].socket.as_ref().expect("a socket");
        assert_eq!(socket.family, "inet6");
        assert_eq!(socket.v6_only, Some(true), "{launcher:?}");
    });
}

// man systemd.socket, ListenStream=: "If the address starts with a slash, it is read as file system
// socket in the AF_UNIX socket family. If the address starts with an at symbol ("@"), it is read as
// abstract namespace socket".
#[test]
fn unix_listeners_come_by_path_and_by_abstract_name() {
    with_each(|launcher, world| {
        let path = world.path("app.sock");
        let path = path.to_str().expect("UTF-8");
        let name = format!("listend-conformance-{}-{launcher:?}", std::process::id());
        let at = format!("@{name}");
        let listeners = [("path", path), ("abstract", at.as_str())];
        let _daemon = launcher.start(world, Type::Stream, &listeners, true);
        let stream = client::abstract_unix(&name).expect("connect");
        let report = client::read_report(stream).expect("a report");
        check_protocol(&report, &["path", "abstract"], launcher);
        assert_eq!(names_of_sockets(&report), [path, &at], "{launcher:?}");
        let again = client::ask_unix(&world.path("app.sock"));
        assert_eq!(again.pid, report.pid);
    });
}

// man systemd-socket-activate, --datagram: "Listen on a datagram socket (SOCK_DGRAM), instead of a
// stream socket (SOCK_STREAM)."
#[test]
fn datagram_sockets_are_handed_over_with_the_first_datagram_still_in_them() {
    with_each(|launcher, world| {
        let port = free_port();
        let address = format!("127.0.0.1:{port}");
        let path = world.path("dgram.sock");
        let listeners = [
            ("dns", address.as_str()),
            ("log", path.to_str().expect("UTF-8")),
        ];
        let _daemon = launcher.start(world, Type::Datagram, &listeners, true);
        let report = client::ask_udp(local(port));
        check_protocol(&report, &["dns", "log"], launcher);
        let kinds: Vec<_> = report.fds[3..]
            .iter()
            .map(|fd| fd.socket.as_ref().expect("a socket"))
            .map(|socket| (socket.kind.as_str(), socket.listening))
            .collect();
        assert_eq!(kinds, [("dgram", false); 2], "{launcher:?}");
        let again = client::ask_unix_datagram(&path, &world.path("here.sock"));
        assert_eq!(again.pid, report.pid, "{launcher:?}");
    });
}

// man systemd-socket-activate, --seqpacket: "Listen on a sequential packet socket
// (SOCK_SEQPACKET), instead of a stream socket (SOCK_STREAM)."
#[test]
fn seqpacket_sockets_are_handed_over() {
    with_each(|launcher, world| {
        let path = world.path("seq.sock");
        let listeners = [("seq", path.to_str().expect("UTF-8"))];
        let _daemon = launcher.start(world, Type::SeqPacket, &listeners, true);
        let report = client::ask_seqpacket(&path);
        check_protocol(&report, &["seq"], launcher);
        let socket = report.fds[3].socket.as_ref().expect("a socket");
        assert_eq!(
            (socket.kind.as_str(), socket.listening),
            ("seqpacket", true)
        );
    });
}

// libsystemd answers -EINVAL where names and descriptors are not as many, and takes none where
// there are no names.
#[test]
fn names_are_as_many_as_descriptors_or_none_at_all() {
    with_each(|launcher, world| {
        let (one, two) = (free_port(), free_port());
        let (first, second) = (format!("127.0.0.1:{one}"), format!("127.0.0.1:{two}"));
        let listeners = [("", first.as_str()), ("", second.as_str())];
        let _daemon = launcher.start(world, Type::Stream, &listeners, false);
        let report = client::ask_tcp(local(one));
        match report.env.get("LISTEN_FDNAMES") {
            Some(names) => assert_eq!(names.split(':').count(), 2, "{launcher:?}: {names}"),
            None => assert_eq!(launcher, Launcher::Systemd),
        }
        assert_eq!(report.env["LISTEN_FDS"], "2", "{launcher:?}");
    });
}

// The point of it all.
#[test]
fn clients_that_come_first_wait_and_are_all_served() {
    with_each(|launcher, world| {
        let port = free_port();
        let address = format!("127.0.0.1:{port}");
        let listeners = [("web", address.as_str())];
        let _daemon = launcher.start(world, Type::Stream, &listeners, true);
        let clients: Vec<_> = (0..50)
            .map(|_| client::tcp(local(port)).expect("connect"))
            .collect();
        for stream in clients {
            let report = client::read_report(stream).expect("a report");
            check_protocol(&report, &["web"], launcher);
        }
    });
}
