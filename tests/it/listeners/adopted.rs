//! listend that is socket-activated itself.

use crate::harness::{Daemon, Start, World, alone, client, require_tool};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::stat::fstat;
use std::fs;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// Starts listend with these descriptors from 3 on. Every child inherits them meanwhile, so the test
/// has to be alone.
fn give(world: &World, fds: &[BorrowedFd], start: Start) -> Daemon {
    give_by(world, fds, start, &[])
}

fn give_by(world: &World, fds: &[BorrowedFd], mut start: Start, leak: &[&str]) -> Daemon {
    let set = |flags| {
        for fd in fds {
            fcntl(fd, FcntlArg::F_SETFD(flags)).expect("F_SETFD");
        }
    };
    let list: Vec<String> = fds.iter().map(|fd| fd.as_raw_fd().to_string()).collect();
    let list = list.join(",");
    let words = ["$PROBE", "launch", "--give", &list];
    start.through(words.into_iter().chain(leak.iter().copied()).chain(["--"]));
    set(FdFlag::empty());
    let daemon = world.start(start);
    set(FdFlag::FD_CLOEXEC);
    daemon
}

fn listening(fd: &impl AsFd) -> String {
    format!("socket:[{}]", fstat(fd.as_fd()).expect("fstat").st_ino)
}

/// What the descriptors of a process are.
fn targets(pid: i32) -> Vec<String> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).expect("list descriptors");
    let links = entries.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    links
        .map(|link| link.to_string_lossy().into_owned())
        .collect()
}

fn exec(listeners: &[&str]) -> Start {
    let mut start = Start::new(["exec"]);
    for listener in listeners {
        start.words_behind(["-l", listener]);
    }
    start.words_behind(["--", "$PROBE", "serve"]);
    start
}

fn tcp() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("an address");
    (listener, address)
}

// Rule: "inherited sockets are matched to listeners by name first, then by address and type;
// matched ones are not bound again; an inherited socket that no listener wants is reported and
// closed".
#[test]
fn sockets_are_adopted_by_name_and_by_address_and_the_rest_is_closed() {
    if !alone() {
        return;
    }
    let world = World::new();
    let ((web, at_web), (admin, at_admin)) = (tcp(), tcp());
    let spare = UdpSocket::bind("127.0.0.1:0").expect("bind");
    // It waits in the queue until somebody serves it.
    let early = client::tcp(at_web).expect("connect");
    let mut start = exec(&[
        "web=127.0.0.1:0",
        &format!("admin={at_admin}"),
        "own=127.0.0.1:0",
    ]);
    start.env("LISTEN_FDNAMES", "web:listend.socket:spare");
    let daemon = give(&world, &[web.as_fd(), admin.as_fd(), spare.as_fd()], start);
    let line = daemon.line(&["listener web: adopted"]);
    let wanted = format!("adopted {at_web} (inherited as `web`)");
    assert!(line.contains(&wanted), "{line}");
    daemon.line(&[
        "listener admin: adopted",
        &at_admin.to_string(),
        "`listend.socket`",
    ]);
    let line = daemon.line(&["[adoption-unwanted]"]);
    assert!(
        line.contains("`spare`") && line.contains("a UDP socket on"),
        "{line}"
    );
    assert_eq!(daemon.address("web"), at_web);
    let report = client::read_report(early).expect("a report");
    assert_eq!(report.env["LISTEN_FDNAMES"], "web:admin:own");
    assert_eq!(client::ask_tcp(at_admin).pid, report.pid);
    client::ask_tcp(daemon.address("own"));
    let open = targets(daemon.pid());
    assert!(open.contains(&listening(&web)) && open.contains(&listening(&admin)));
    assert!(!open.contains(&listening(&spare)));
    assert!(daemon.lines_so_far(&["own: adopted"]).is_empty());
    daemon.stop();
}

// Rule: "a socket of the right name but the wrong address or type is an error".
#[test]
fn the_right_name_with_the_wrong_socket_stops_the_start() {
    if !alone() {
        return;
    }
    let world = World::new();
    let (web, at_web) = tcp();
    let udp = UdpSocket::bind("127.0.0.1:0").expect("bind");
    let (_, elsewhere) = tcp();
    for (fd, wanted) in [
        (web.as_fd(), elsewhere.to_string()),
        (web.as_fd(), format!("udp://{at_web}")),
        (udp.as_fd(), "127.0.0.1:0".to_owned()),
    ] {
        let mut start = exec(&[&format!("web={wanted}")]);
        start.env("LISTEN_FDNAMES", "web");
        let finished = give(&world, &[fd], start).finish().expect_code(69);
        let said = finished.text();
        assert!(said.contains("[adoption-mismatch]"), "{said}");
        assert!(!said.contains("[EADDRINUSE]"), "{said}");
        assert!(said.contains("listener `web`"), "{said}");
    }
}

// It was said that another listend runs the configuration, with the process that said it as that.
#[test]
fn who_has_the_address_by_a_socket_that_it_does_not_adopt_is_no_other_listend() {
    if !alone() {
        return;
    }
    let world = World::new();
    let (web, at_web) = tcp();
    let yaml = format!("listeners: {{ web: '{at_web}' }}\n");
    let file = world.write("listend.yaml", &yaml);
    let mut start = Start::new(["run", "--control", "none", "-c"]);
    start.words_behind([file.to_str().expect("UTF-8")]);
    start.env("LISTEN_PID", "1");
    let finished = give(&world, &[web.as_fd()], start).finish().expect_code(69);
    let said = finished.text();
    assert!(said.contains("(EADDRINUSE)"), "{said}");
    assert!(
        said.contains("was started with a socket at the address"),
        "{said}"
    );
    assert!(!said.contains("already runs"), "{said}");
}

#[test]
fn sockets_that_are_for_another_process_are_not_taken() {
    if !alone() {
        return;
    }
    let world = World::new();
    let (web, at_web) = tcp();
    for name in ["LISTEN_PID", "LISTEN_PIDFDID"] {
        let mut start = exec(&["web=127.0.0.1:0"]);
        start.env("LISTEN_FDNAMES", "web").env(name, "1");
        let daemon = give(&world, &[web.as_fd()], start);
        let own = daemon.address("web");
        let adopted = own == at_web;
        let report = client::ask_tcp(own);
        // Before Linux 6.9 there is nothing that LISTEN_PIDFDID could be compared with.
        let comparable = name == "LISTEN_PID" || report.pidfd_inode.is_some();
        assert_eq!(adopted, !comparable, "{name}");
        if comparable {
            daemon.line(&["LISTEN_FDS is not for this process"]);
        }
        // Nor do they reach the worker.
        assert_eq!(report.fds.len(), 4);
        assert_eq!(report.env["LISTEN_PID"], report.pid.to_string());
        daemon.stop();
    }
}

#[test]
fn names_that_do_not_fit_the_descriptors_are_ignored() {
    if !alone() {
        return;
    }
    let world = World::new();
    let (web, at_web) = tcp();
    let mut start = exec(&[&format!("web={at_web}")]);
    start.env("LISTEN_FDNAMES", "other:web");
    let daemon = give(&world, &[web.as_fd()], start);
    let line = daemon.line(&["listener web: adopted"]);
    assert!(line.contains("inherited as `unknown`"), "{line}");
    client::ask_tcp(at_web);
    daemon.stop();
}

#[test]
fn a_promise_that_is_not_kept_stops_the_start() {
    if !alone() {
        return;
    }
    let world = World::new();
    let (web, _) = tcp();
    for (name, value, words) in [
        ("LISTEN_FDS", "3", "descriptor 4"),
        ("LISTEN_FDS", "many", "LISTEN_FDS is `many`"),
        ("LISTEN_FDS_FIRST_FD", "1", "LISTEN_FDS_FIRST_FD is `1`"),
    ] {
        let mut start = exec(&["web=127.0.0.1:0"]);
        start.env(name, value);
        let finished = give(&world, &[web.as_fd()], start).finish().expect_code(69);
        assert!(finished.stderr.contains(words), "{}", finished.stderr);
    }
}

#[test]
fn other_descriptors_do_not_reach_the_worker() {
    if !alone() {
        return;
    }
    let world = World::new();
    let (web, at_web) = tcp();
    let daemon = give_by(
        &world,
        &[web.as_fd()],
        exec(&[&format!("web={at_web}")]),
        &["--leak", "9"],
    );
    let report = client::ask_tcp(at_web);
    let numbers: Vec<i32> = report.fds.iter().map(|fd| fd.number).collect();
    assert_eq!(numbers, [0, 1, 2, 3]);
    daemon.stop();
}

#[test]
fn a_listend_adopts_from_another() {
    let world = World::new();
    let mut words = vec![
        "exec",
        "-l",
        "web=127.0.0.1:0",
        "-l",
        "app=unix:$DIR/s",
        "--",
    ];
    words.extend([
        "$LISTEND",
        "exec",
        "-l",
        "app=unix:$DIR/s",
        "-l",
        "web=127.0.0.1:0",
    ]);
    words.extend(["--", "$PROBE", "serve"]);
    let daemon = world.start(Start::new(words));
    daemon.line(&["listener web: adopted", "inherited as `web`"]);
    daemon.line(&["listener app: adopted", "inherited as `app`"]);
    let report = client::ask_tcp(daemon.address("web"));
    assert_ne!(report.ppid, daemon.pid());
    assert_eq!(client::ask_unix(&world.path("s")).pid, report.pid);
    // The path is the outer one's: it is there until that has stopped.
    daemon.stop();
    assert!(!world.path("s").exists());
}

#[test]
fn systemd_activates_listend() {
    let Some(activate) = require_tool("systemd-socket-activate") else {
        return;
    };
    let world = World::new();
    let (probe, at) = tcp();
    drop(probe);
    let at = at.to_string();
    let listener = format!("web={at}");
    for name in ["web", "unit.socket"] {
        let name = format!("--fdname={name}");
        let mut words = vec!["-l", &at, &name, "$LISTEND", "exec", "-l", &listener];
        words.extend(["--", "$PROBE", "serve"]);
        let daemon = world.start(Start::of(&activate, words));
        daemon.line(&["istening on"]);
        // It starts listend when somebody connects, and that client is served.
        let report = client::ask_tcp(at.parse().expect("an address"));
        assert_eq!(report.ppid, daemon.pid());
        daemon.line(&["listener web: adopted"]);
        daemon.stop();
    }
}

// Whoever bound an adopted unix socket has to repair it. Reporting that it listened again, once a
// second for ever, was no help to anybody.
#[test]
fn an_adopted_unix_socket_that_was_shut_down_is_not_called_repaired() {
    if !alone() {
        return;
    }
    let world = World::new();
    let path = world.path("s");
    let app = std::os::unix::net::UnixListener::bind(&path).expect("bind");
    let listener = format!("app=unix:{}", path.display());
    let mut start = Start::new(["exec", "-l", &listener]);
    start.words_behind(["--", "$PROBE", "puppet", "$EVENTS"]);
    let daemon = give(&world, &[app.as_fd()], start);
    let mut puppet = world.puppet();
    puppet.ask("shutdown");
    daemon.line(&["listener app", "cannot be repaired", "retrying in 1 s"]);
    daemon.line(&["listener app", "cannot be repaired", "retrying in 2 s"]);
    assert!(daemon.lines_so_far(&["listening again"]).is_empty());
    daemon.stop();
}
