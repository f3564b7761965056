//! A manager made up of a real socket, and made-up time.

use super::*;
use socket2::{Domain, SockAddr, Socket, Type};
use std::ffi::OsStr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::atomic::{AtomicU32, Ordering};

const SECOND: u64 = 1_000_000_000;

/// A service manager with a name in the abstract namespace, which needs no folder.
struct Peer {
    socket: UnixDatagram,
    name: String,
}

impl Peer {
    fn new() -> Peer {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("listend-manager-{}-{number}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("a name");
        let socket = UnixDatagram::bind_addr(&address).expect("bind");
        socket.set_nonblocking(true).expect("O_NONBLOCK");
        let name = format!("@{name}");
        Peer { socket, name }
    }

    fn manager(&self, watchdog: Option<Duration>) -> Manager {
        let line = ManagerAddress::to(OsStr::new(&self.name)).expect("an address");
        Manager::new(Some(line), watchdog, Mono(0))
    }

    /// The messages that have come.
    fn heard(&self) -> Vec<String> {
        let mut buffer = [0; 4096];
        std::iter::from_fn(|| {
            let length = self.socket.recv(&mut buffer).ok()?;
            Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
        })
        .collect()
    }
}

#[test]
fn messages_are_those_of_sd_notify() {
    let peer = Peer::new();
    let mut manager = peer.manager(None);
    manager.ready("all there", Mono(0));
    manager.reloading(Mono(7 * SECOND + 123_456_789));
    manager.set_moving(true, Mono(7 * SECOND));
    manager.set_moving(true, Mono(7 * SECOND));
    manager.reloaded("all there again", Mono(8 * SECOND));
    manager.set_moving(false, Mono(8 * SECOND));
    manager.stopping("stopping", Mono(9 * SECOND));
    let wanted = [
        "READY=1\nSTATUS=all there\n",
        "RELOADING=1\nMONOTONIC_USEC=7123456\n",
        "EXTEND_TIMEOUT_USEC=30000000\n",
        "READY=1\nSTATUS=all there again\n",
        "STOPPING=1\nSTATUS=stopping\n",
    ];
    assert_eq!(peer.heard(), wanted);
    assert_eq!(manager.deadline(), None);
}

#[test]
fn more_time_is_asked_for_while_something_moves_and_no_longer() {
    let peer = Peer::new();
    let mut manager = peer.manager(None);
    manager.set_moving(true, Mono(0));
    for seconds in [9, 10, 15, 20, 29, 30] {
        manager.turn(Mono(seconds * SECOND));
    }
    assert_eq!(peer.heard(), ["EXTEND_TIMEOUT_USEC=30000000\n"; 4]);
    assert_eq!(manager.deadline(), Some(Mono(40 * SECOND)));
    manager.set_moving(false, Mono(31 * SECOND));
    assert_eq!(manager.deadline(), None);
    manager.turn(Mono(60 * SECOND));
    assert_eq!(peer.heard(), [""; 0]);
}

#[test]
fn a_path_is_an_address_too() {
    let folder = std::env::temp_dir().join(format!("listend-manager-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let path = folder.join("notify");
    let socket = UnixDatagram::bind(&path).expect("bind");
    let line = ManagerAddress::to(path.as_os_str()).expect("an address");
    let mut manager = Manager::new(Some(line), None, Mono(0));
    manager.ready("here", Mono(0));
    let mut buffer = [0; 64];
    let length = socket.recv(&mut buffer).expect("receive");
    assert_eq!(&buffer[..length], b"READY=1\nSTATUS=here\n");
    std::fs::remove_dir_all(folder).expect("remove");
}

#[test]
fn the_host_of_a_virtual_machine_is_called_anew_for_each_message() {
    use std::io::Read;
    // vsock(7): this machine itself, where the kernel has the loopback transport.
    const LOCAL: u32 = 1;
    let Ok(listener) = Socket::new(Domain::VSOCK, Type::SEQPACKET, None) else {
        return;
    };
    let port = 0x4000_0000 + std::process::id();
    let can = listener.bind(&SockAddr::vsock(LOCAL, port));
    if can.and_then(|()| listener.listen(8)).is_err() {
        return;
    }
    let name = format!("vsock:{LOCAL}:{port}");
    let line = ManagerAddress::to(OsStr::new(&name)).expect("an address");
    let mut manager = Manager::new(Some(line), None, Mono(0));
    manager.ready("here", Mono(0));
    manager.reloading(Mono(0));
    for wanted in ["READY=1\nSTATUS=here\n", "RELOADING=1\nMONOTONIC_USEC=0\n"] {
        let (mut connection, _) = listener.accept().expect("accept");
        let mut text = String::new();
        connection.read_to_string(&mut text).expect("read");
        assert_eq!(text, wanted);
    }
}

#[test]
fn what_is_no_address_is_said_to_be_none() {
    for name in [
        "",
        "/",
        "@",
        "notify",
        "@a\0b",
        "vsock:2",
        "vsock:2:x",
        "vsocket:2:3",
    ] {
        assert!(ManagerAddress::to(OsStr::new(name)).is_err(), "{name:?}");
    }
    let long = format!("/{}", "x".repeat(108));
    assert!(ManagerAddress::to(OsStr::new(&long)).is_err());
    for name in [
        "vsock:2:3",
        "vsock-stream:2:3",
        "vsock-dgram:2:3",
        "vsock-seqpacket:2:3",
    ] {
        assert!(ManagerAddress::to(OsStr::new(name)).is_ok(), "{name}");
    }
}

#[test]
fn a_status_is_told_when_it_is_another_and_once_a_second_at_most() {
    let peer = Peer::new();
    let mut manager = peer.manager(None);
    manager.status("one", Mono(SECOND));
    manager.status("one", Mono(SECOND));
    assert_eq!(peer.heard(), ["STATUS=one\n"]);
    // Only the last of those that come too early is told.
    manager.status("two", Mono(SECOND + 1));
    manager.status("three", Mono(SECOND + 2));
    assert_eq!(peer.heard(), [""; 0]);
    assert_eq!(manager.deadline(), Some(Mono(2 * SECOND)));
    manager.turn(Mono(2 * SECOND - 1));
    assert_eq!(peer.heard(), [""; 0]);
    manager.turn(Mono(2 * SECOND));
    assert_eq!(peer.heard(), ["STATUS=three\n"]);
    // One that has changed back is none.
    manager.status("four", Mono(2 * SECOND + 1));
    manager.status("three", Mono(2 * SECOND + 2));
    assert_eq!(manager.deadline(), None);
    manager.turn(Mono(9 * SECOND));
    assert_eq!(peer.heard(), [""; 0]);
}

#[test]
fn nobody_makes_a_text_before_it_may_be_told() {
    let peer = Peer::new();
    let mut manager = peer.manager(None);
    assert!(!manager.wants_status(Mono(0)));
    manager.something_changed();
    assert!(manager.wants_status(Mono(0)));
    manager.status("one", Mono(0));
    assert!(!manager.wants_status(Mono(SECOND)));
    assert_eq!(manager.deadline(), None);
    manager.something_changed();
    assert!(!manager.wants_status(Mono(SECOND - 1)));
    assert_eq!(manager.deadline(), Some(Mono(SECOND)));
    assert!(manager.wants_status(Mono(SECOND)));
    // That nothing has come of it is no news.
    manager.status("one", Mono(SECOND));
    assert_eq!(manager.deadline(), None);
    assert_eq!(peer.heard(), ["STATUS=one\n"]);
}

#[test]
fn a_status_is_one_line_that_fits() {
    assert_eq!(one_line("a\nREADY=1\0b"), "a READY=1 b");
    let long = one_line(&"ä".repeat(STATUS_MAX));
    assert!(
        long.len() <= STATUS_MAX && long.len() > STATUS_MAX - 4,
        "{}",
        long.len()
    );
    assert!(long.ends_with("ä…"));
    assert_eq!(one_line(&"a".repeat(STATUS_MAX)), "a".repeat(STATUS_MAX));
}

#[test]
fn a_watchdog_is_fed_in_half_of_its_time() {
    let peer = Peer::new();
    let mut manager = peer.manager(Some(Duration::from_secs(4)));
    assert_eq!(manager.deadline(), Some(Mono(2 * SECOND)));
    manager.turn(Mono(SECOND));
    assert_eq!(peer.heard(), [""; 0]);
    manager.turn(Mono(2 * SECOND + 5));
    assert_eq!(peer.heard(), ["WATCHDOG=1\n"]);
    assert_eq!(manager.deadline(), Some(Mono(4 * SECOND + 5)));
    manager.alive(Mono(3 * SECOND));
    assert_eq!(peer.heard(), ["WATCHDOG=1\n"]);
    assert_eq!(manager.deadline(), Some(Mono(5 * SECOND)));
}

#[test]
fn a_watchdog_of_somebody_else_is_none_of_ours() {
    let limit = Some(Duration::from_secs(1));
    assert_eq!(watchdog_interval(Some("1000000"), None, 5), limit);
    assert_eq!(watchdog_interval(Some("1000000"), Some("5"), 5), limit);
    for (usec, pid) in [
        (None, None),
        (None, Some("5")),
        (Some("1000000"), Some("6")),
        (Some("1000000"), Some("x")),
        (Some("0"), None),
        (Some("18446744073709551615"), None),
        (Some("-1"), None),
        (Some(""), None),
    ] {
        assert_eq!(watchdog_interval(usec, pid, 5), None, "{usec:?} {pid:?}");
    }
}

#[test]
fn without_a_manager_nothing_comes_due() {
    let mut manager = Manager::new(None, Some(Duration::from_secs(1)), Mono(0));
    assert!(!manager.is_there());
    manager.ready("here", Mono(0));
    manager.something_changed();
    manager.status("there", Mono(0));
    manager.alive(Mono(0));
    manager.turn(Mono(9 * SECOND));
    assert!(!manager.wants_status(Mono(9 * SECOND)));
    assert_eq!(manager.deadline(), None);
    assert!(manager.waiting.is_empty());
}

#[test]
fn a_manager_that_does_not_read_holds_nobody_up_and_gets_everything_later() {
    let peer = Peer::new();
    let mut manager = peer.manager(Some(Duration::from_secs(3600)));
    // net.unix.max_dgram_qlen is the number that fits.
    let fill = |number: u64| format!("RELOADING=1\nMONOTONIC_USEC={number}\n");
    let mut sent = 0;
    while manager.again_at.is_none() {
        sent += 1;
        assert!(sent < 100_000, "there is no end to what is taken");
        manager.reloading(Mono(sent * 1000));
    }
    for number in 0..3 {
        manager.alive(Mono(0));
        manager.status(&format!("status {number}"), Mono(number * SECOND));
    }
    manager.ready("here", Mono(9 * SECOND));
    let due = manager.deadline().expect("it is tried again");
    assert_eq!(due, Mono(9 * SECOND) + AGAIN);
    let mut heard = Vec::new();
    let mut at = due;
    while manager.again_at.is_some() {
        heard.extend(peer.heard());
        manager.turn(at);
        at = at + AGAIN;
    }
    heard.extend(peer.heard());
    let fills = (1..=sent).map(fill);
    // Of what a later one makes worthless there is only the last.
    let rest = [
        "WATCHDOG=1\n",
        "STATUS=status 2\n",
        "READY=1\nSTATUS=here\n",
    ];
    let wanted: Vec<String> = fills.chain(rest.map(str::to_owned)).collect();
    assert_eq!(heard, wanted);
}

#[test]
fn a_manager_that_has_gone_costs_nothing_but_one_complaint() {
    let peer = Peer::new();
    let mut manager = peer.manager(None);
    drop(peer);
    manager.ready("here", Mono(0));
    assert!(manager.has_complained);
    manager.reloading(Mono(0));
    assert!(manager.waiting.is_empty());
    assert_eq!(manager.deadline(), None);
}

#[test]
fn a_summary_has_numbers_and_what_is_wrong_in_front() {
    let mut summary = Summary {
        listeners: 3,
        workers: 2,
        ready: 2,
        instances: 5,
        degraded: Vec::new(),
    };
    assert_eq!(
        summary.to_string(),
        "3 listeners, 2 of 2 workers ready, 5 instances"
    );
    summary.degraded = vec!["app"];
    summary.ready = 1;
    assert_eq!(
        summary.to_string(),
        "degraded: app; 3 listeners, 1 of 2 workers ready, 5 instances"
    );
    summary = Summary {
        listeners: 1,
        workers: 1,
        ready: 0,
        instances: 1,
        degraded: vec!["a", "b", "c", "d", "e", "f", "g"],
    };
    assert_eq!(
        summary.to_string(),
        "degraded: a, b, c, d, e and 2 more; 1 listener, 0 of 1 worker ready, 1 instance"
    );
}
