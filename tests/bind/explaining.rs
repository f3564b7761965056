//! Causes found on this machine, and advice.

use crate::fixture::*;
use listend::config::options::{OptionSetting, OptionValue, by_key};
use listend::config::{Endpoint, UnixKind, UnixName};
use listend::diagnose::{Interface, Machine, Process, Settings, Tried};
use listend::diagnose::{advise, explain, explain_for_check, held_by_listend, who_reaches};
use listend::listener::{Adopted, BindError, BindStep, Purpose, bind_all};
use listend::plan::{ListenerId, SocketKey};
use listend::report::Kind;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

/// The file name of this test program.
fn own_name() -> String {
    let program = std::env::current_exe().unwrap();
    program.file_name().unwrap().to_str().unwrap().to_owned()
}

#[test]
fn the_holder_of_a_port_is_named() {
    let holder = TcpListener::bind("0.0.0.0:0").unwrap();
    let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = holder.local_addr().unwrap().port();
    let plan = plan(
        &[
            &[tcp(&format!("127.0.0.1:{port}"))],
            &[udp(&datagrams.local_addr().unwrap().to_string())],
        ],
        ACCESS,
    );
    let outcome = keep(&plan);
    assert_eq!(outcome.errors.len(), 2);
    let machine = Machine::new();
    for (error, words) in outcome
        .errors
        .iter()
        .zip(["listening on 0.0.0.0:", "bound to"])
    {
        let problem = explain(error, &plan, &machine);
        assert_eq!(problem.kind, Kind::Errno(nix::libc::EADDRINUSE));
        assert_eq!(problem.place, Some(place(error.listener.0 + 1)));
        let found = problem.holder.expect("our own process holds it");
        assert_eq!(found.pid, std::process::id() as i32);
        assert_eq!(found.user, user());
        assert_eq!(found.command, own_name());
        assert!(problem.causes[0].contains(words), "{:?}", problem.causes);
    }
    let problem = explain(&outcome.errors[0], &plan, &machine);
    assert_eq!(
        problem.message,
        format!(
            "cannot bind listener `l0` to 127.0.0.1:{port}: address already in use (EADDRINUSE)"
        )
    );
}

#[test]
fn who_asked_to_share_a_port_is_told_who_can() {
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = tcp(&holder.local_addr().unwrap().to_string());
    for shared in [true, false] {
        let options = [("reuse_port", OptionValue::Flag(shared))];
        let plan = with_options(endpoint.clone(), &options);
        let outcome = keep(&plan);
        let problem = explain(only_error(&outcome), &plan, &Machine::new());
        let told = problem.causes.iter().any(|one| one.contains("one user"));
        assert_eq!(told, shared, "{problem:?}");
    }
}

#[test]
fn an_abstract_name_that_is_taken_names_its_holder() {
    let name = format!("listend-taken-{}", std::process::id());
    let endpoint = Endpoint::Unix {
        kind: UnixKind::Stream,
        name: UnixName::Abstract(name),
    };
    let plan = single(endpoint);
    let _first = bound(&plan);
    let outcome = keep(&plan);
    let problem = explain(only_error(&outcome), &plan, &Machine::new());
    assert_eq!(problem.kind.code(), "EADDRINUSE");
    assert_eq!(problem.holder.unwrap().pid, std::process::id() as i32);
}

#[test]
fn an_outgoing_connection_that_has_the_port_is_recognised() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(server.local_addr().unwrap()).unwrap();
    let plan = single(tcp(&client.local_addr().unwrap().to_string()));
    let outcome = keep(&plan);
    let problem = explain(only_error(&outcome), &plan, &Machine::new());
    let words = format!("an outgoing connection of {} (pid ", own_name());
    assert!(problem.causes[0].starts_with(&words), "{problem:?}");
    assert!(problem.causes[0].contains(&server.local_addr().unwrap().to_string()));
    assert!(problem.hint.unwrap().contains("ip_local_reserved_ports="));
}

#[test]
fn a_second_listener_of_the_same_configuration_is_named() {
    let folder = Folder::new();
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let path = folder.join("s");
    let address = format!("127.0.0.1:{port}");
    let plan = plan(
        &[
            &[tcp(&address)],
            &[tcp(&address)],
            &[stream(&path)],
            &[stream(&path)],
        ],
        ACCESS,
    );
    let outcome = keep(&plan);
    assert_eq!(outcome.errors.len(), 2);
    for (error, line) in outcome.errors.iter().zip([1, 3]) {
        let problem = explain(error, &plan, &Machine::new());
        assert_eq!(problem.related[0].0, place(line), "{problem:?}");
    }
    outcome.bound.remove_paths();
}

#[test]
fn an_address_that_is_not_here_shows_those_that_are() {
    let plan = single(tcp("203.0.113.1:8080"));
    let outcome = keep(&plan);
    let problem = explain(only_error(&outcome), &plan, &Machine::new());
    assert_eq!(problem.kind.code(), "EADDRNOTAVAIL");
    assert!(problem.causes[0].contains("127.0.0.1 (lo)"), "{problem:?}");
    let advice = advise(&plan, &Machine::new(), Tried::No).advice;
    assert_eq!(advice[0].kind, Kind::AddressNotHere);
    assert_eq!(advise(&plan, &Machine::new(), Tried::Yes).advice, []);
}

#[test]
fn a_folder_that_cannot_be_is_explained() {
    let folder = Folder::new();
    std::fs::write(folder.join("file"), "").unwrap();
    let plan = single(stream(&folder.join("file/x/s")));
    let outcome = keep(&plan);
    let problem = explain(only_error(&outcome), &plan, &Machine::new());
    assert_eq!(problem.kind.code(), "ENOTDIR");
    assert!(
        problem.causes[0].contains("file is not a directory"),
        "{problem:?}"
    );
    if nix::unistd::geteuid().is_root() {
        return;
    }
    std::fs::set_permissions(&folder.path, std::fs::Permissions::from_mode(0o500)).unwrap();
    let plan = single(stream(&folder.join("s")));
    let outcome = keep(&plan);
    let problem = explain(only_error(&outcome), &plan, &Machine::new());
    assert_eq!(problem.kind.code(), "EACCES");
    assert!(problem.causes[0].contains("mode 0500"), "{problem:?}");
    std::fs::set_permissions(&folder.path, std::fs::Permissions::from_mode(0o700)).unwrap();
}

/// A copy of the shell under the name `listend`, which holds a socket and runs a script `run`.
#[test]
fn a_listend_of_the_same_configuration_is_no_error_for_check() {
    let folder = Folder::new();
    let config = folder.join("listend.yaml");
    std::fs::write(&config, "").unwrap();
    std::fs::write(folder.join("run"), "echo ready; read line").unwrap();
    std::fs::copy("/bin/sh", folder.join("listend")).unwrap();
    let path = folder.join("s");
    let plan = plan(&[&[tcp("127.0.0.1:0")], &[stream(&path)]], ACCESS);
    let mut outcome = bound(&plan);
    let real = outcome.bound.at(0)[0].address.clone();
    let mut take = |key| outcome.bound.take(SocketKey(key)).unwrap().fd;
    let (inherited, unix) = (take(0), take(1));
    let mut child = Command::new(folder.join("listend"))
        .args(["run", "--config", "listend.yaml"])
        .current_dir(&folder.path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::from(unix.into_owned()))
        .spawn()
        .unwrap();
    let mut ready = [0; 6];
    child.stdout.take().unwrap().read_exact(&mut ready).unwrap();
    let pid = child.id() as i32;
    assert!(held_by_listend(pid, &config));
    assert!(!held_by_listend(pid, &folder.join("run")));

    let again = single(stream(&path));
    let outcome = bind_all(&again, Purpose::Try, Adopted::default());
    let error = only_error(&outcome);
    let machine = Machine::new();
    let advice = explain_for_check(error, &again, &machine, &config);
    assert_eq!(advice.kind, Kind::HeldByListend, "{advice:?}");
    assert_eq!(advice.holder.as_ref().unwrap().command, "listend");
    let other = explain_for_check(error, &again, &machine, &folder.join("run"));
    assert_eq!(other.kind, Kind::LiveSocket);

    // The port is ours, not that listend's.
    let again = single(real);
    let outcome = bind_all(&again, Purpose::Try, Adopted::default());
    let problem = explain_for_check(only_error(&outcome), &again, &Machine::new(), &config);
    assert_eq!(problem.kind.code(), "EADDRINUSE");
    drop(inherited);
    child.stdin.take().unwrap().write_all(b"\n").unwrap();
    child.wait().unwrap();
}

/// A machine as it is on most laptops, without a privilege.
fn machine() -> Machine {
    let settings = Settings {
        local_ports: Some((32768, 60999)),
        reserved_ports: "50000-50010".to_owned(),
        unprivileged_start: 1024,
        somaxconn: Some(4096),
    };
    let interface = |name: &str, address: &str| Interface {
        name: name.to_owned(),
        address: address.parse().unwrap(),
        prefix: 24,
    };
    let interfaces = vec![
        interface("lo", "127.0.0.1"),
        interface("eth0", "192.0.2.7"),
        interface("eth0", "2001:db8::7"),
    ];
    let process = Process {
        uid: 65534,
        may_bind_low_ports: false,
    };
    Machine::with(settings, interfaces, process)
}

#[test]
fn a_privileged_port_says_how_to_get_the_privilege() {
    let plan = single(tcp("127.0.0.1:80"));
    let mut error = BindError {
        listener: ListenerId(0),
        socket: 0,
        step: BindStep::Bind,
        errno: nix::libc::EACCES,
        obstacle: None,
        path: None,
    };
    let problem = explain(&error, &plan, &machine());
    let hint = problem.hint.unwrap();
    for way in [
        "root",
        "AmbientCapabilities=",
        "setcap",
        "ip_unprivileged_port_start=80",
    ] {
        assert!(hint.contains(way), "{hint}");
    }
    for (errno, words) in [
        (nix::libc::EMFILE, "LimitNOFILE="),
        (nix::libc::ENFILE, "fs.file-max"),
        (nix::libc::EPROTONOSUPPORT, "RestrictAddressFamilies="),
    ] {
        error.errno = errno;
        let hint = explain(&error, &plan, &machine()).hint.unwrap();
        assert!(hint.contains(words), "{hint}");
    }
}

#[test]
fn advice_says_what_may_surprise() {
    let mut plan = plan(
        &[
            &[tcp("127.0.0.1:5432")],
            &[tcp("127.0.0.1:5432")],
            &[
                tcp("127.0.0.1:40000"),
                flags(tcp("[::1]:40000"), true, true),
            ],
            &[udp("127.0.0.1:50005")],
            &[tcp("0.0.0.0:8080")],
            &[flags(tcp("[::]:8080"), false, true)],
            &[tcp("127.0.0.1:80")],
            &[tcp("127.0.0.1:0")],
        ],
        ACCESS,
    );
    listener(&mut plan, 1).name = "postgres-proxy".to_owned();
    listener(&mut plan, 7).settings_mut().backlog = 10_000;
    let codes = |tried| -> Vec<(String, String)> {
        let advice = advise(&plan, &machine(), tried).advice;
        let code = |problem: listend::report::Problem| {
            assert!(problem.hint.is_some() && problem.place.is_some());
            (problem.listener.unwrap(), problem.kind.code())
        };
        advice.into_iter().map(code).collect()
    };
    let expected = [
        ("l0", "registered-port"),
        ("l2", "ephemeral-port"),
        ("l4", "wildcard-address"),
        ("l5", "wildcard-address"),
        ("l6", "privileged-port"),
        ("l7", "backlog-over-somaxconn"),
    ]
    .map(|(name, code)| (name.to_owned(), code.to_owned()));
    assert_eq!(codes(Tried::No), expected);
    let without: Vec<_> = expected
        .iter()
        .filter(|(name, _)| name != "l6")
        .cloned()
        .collect();
    assert_eq!(codes(Tried::Yes), without);
    let advice = advise(&plan, &machine(), Tried::No).advice;
    let hint = advice[1].hint.as_ref().unwrap();
    assert!(
        hint.contains("ip_local_reserved_ports=40000,50000-50010 "),
        "{hint}"
    );
    // Which is not the range of the textbooks.
    let causes = &advice[1].causes;
    assert!(causes[0].contains("49152-65535"), "{causes:?}");
    assert!(advice[2].message.contains("192.0.2.7 (eth0)"));
    assert!(!advice[2].message.contains("2001:db8::7"));
    assert!(advice[3].message.contains("2001:db8::7 (eth0)"));
}

#[test]
fn who_reaches_a_listener_is_one_line() {
    let path = std::env::temp_dir().join("who-reaches.sock");
    let name = UnixName::Abstract("name".to_owned());
    let kind = UnixKind::Datagram;
    let vsock = |cid| Endpoint::Vsock {
        kind: UnixKind::Stream,
        cid,
        port: 80,
    };
    let netlink = |family: &str, protocol| Endpoint::Netlink {
        family: family.to_owned(),
        protocol,
        group: 1,
        mask: 0,
    };
    let special = |path: &str| Endpoint::Special {
        path: path.into(),
        writable: false,
    };
    let mut plan = plan(
        &[
            &[tcp("127.0.0.1:80"), tcp("[::1]:80")],
            &[tcp("192.0.2.7:80")],
            &[tcp("192.0.2.7:80"), tcp("127.0.0.1:80")],
            &[udp("[2001:db8::7]:53"), tcp("192.0.2.7:53")],
            &[tcp("0.0.0.0:80")],
            &[tcp("192.168.3.4:80")],
            &[stream(&path)],
            &[Endpoint::Unix { kind, name }],
            &[udp("239.1.2.3:80")],
            &[tcp("0.0.0.0:81")],
            &[
                tcp("127.0.0.1:1"),
                tcp("127.0.0.1:2"),
                tcp("127.0.0.1:3"),
                tcp("127.0.0.1:4"),
            ],
            &[vsock(1)],
            &[vsock(2)],
            &[vsock(u32::MAX)],
            &[vsock(7)],
            &[netlink("kobject-uevent", nix::libc::NETLINK_KOBJECT_UEVENT)],
            &[netlink("usersock", nix::libc::NETLINK_USERSOCK)],
            &[special("/dev/null")],
            &[special("/nonexistent")],
        ],
        ACCESS,
    );
    listener(&mut plan, 9)
        .settings_mut()
        .options
        .push(OptionSetting {
            spec: by_key("bind_to_device").unwrap(),
            value: OptionValue::Text("eth0".to_owned()),
        });
    let all = "any client with a route to it";
    let expected = [
        "127.0.0.1:80, [::1]:80: this machine only".to_owned(),
        // What a newcomer does not expect: this machine's own clients are refused at 127.0.0.1.
        format!("192.0.2.7:80: {all}, but not through 127.0.0.1"),
        format!("192.0.2.7:80, 127.0.0.1:80: {all}"),
        format!("udp [2001:db8::7]:53, 192.0.2.7:53: {all}, but not through 127.0.0.1 or ::1"),
        format!("0.0.0.0:80: {all}"),
        "192.168.3.4:80: no client: no interface has the address".to_owned(),
        format!(
            "{}: only root and user nobody may connect to it",
            path.display()
        ),
        "@name: every user here: it has no permissions".to_owned(),
        "udp 239.1.2.3:80: clients on the same link".to_owned(),
        format!("0.0.0.0:81: {all}, and only through eth0"),
        "127.0.0.1:1, 127.0.0.1:2, 127.0.0.1:3, 1 more: this machine only".to_owned(),
        "vsock:1:80: this machine only".to_owned(),
        "vsock:2:80: the virtual machines of this host".to_owned(),
        "vsock::80: the virtual machines of this host, or the host of this virtual machine"
            .to_owned(),
        "vsock:7:80: the host of this virtual machine".to_owned(),
        "netlink kobject-uevent 1: the kernel, and processes with CAP_NET_ADMIN".to_owned(),
        "netlink usersock 1: every user here: it has no permissions".to_owned(),
        "/dev/null: every user may read it".to_owned(),
    ];
    // Nothing is known of a file that is not there.
    let expected = expected.into_iter().map(Some).chain([None]);
    let machine = machine();
    for (listener, expected) in plan.listeners.values().zip(expected) {
        assert_eq!(who_reaches(listener, &machine), expected);
    }
}

#[test]
fn a_public_address_that_is_not_here_may_be_that_of_nat() {
    let hint = |address: &str| {
        let plan = single(tcp(address));
        let error = BindError {
            listener: ListenerId(0),
            socket: 0,
            step: BindStep::Bind,
            errno: nix::libc::EADDRNOTAVAIL,
            obstacle: None,
            path: None,
        };
        explain(&error, &plan, &machine()).hint.unwrap()
    };
    assert!(hint("8.8.8.8:80").contains("bind its private one, or 0.0.0.0"));
    for address in ["10.1.1.1:80", "[2001:db8::9]:80"] {
        assert!(!hint(address).contains("NAT"), "{address}");
    }
}
