//! Each kind of listener: bound, inherited, and used by a client of its kind.

use crate::harness::network::{self, Namespace};
use crate::harness::report::{Fd, Setting, Socket};
use crate::harness::{Daemon, Puppet, World, free_port, require_ipv6, require_root, skip};
use nix::sys::stat::Mode;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::PathBuf;

const FIRST: i32 = 3;

/// A puppet that has one listener, with these lines behind the listener's name.
fn one(world: &World, listener: &str) -> (Daemon, Puppet) {
    let yaml = format!(
        "
listeners: {{ it: {listener} }}
workers: {{ app: {{ command: [$PROBE, puppet, $EVENTS], listeners: [it] }} }}
"
    );
    let daemon = world.run(&yaml);
    let puppet = world.puppet();
    (daemon, puppet)
}

fn descriptor(puppet: &Puppet) -> &Fd {
    let fd = &puppet.report.fds[FIRST as usize];
    assert_eq!(fd.number, FIRST);
    assert!(!fd.cloexec, "{fd:?}");
    fd
}

fn socket(puppet: &Puppet) -> &Socket {
    descriptor(puppet).socket.as_ref().expect("a socket")
}

/// A client says something, the worker hears it, and the client gets the worker's answer.
#[track_caller]
fn converse(puppet: &mut Puppet, send: impl FnOnce() -> Result<String, String> + Send) {
    let answer = std::thread::scope(|scope| {
        let client = scope.spawn(send);
        assert_eq!(puppet.ask("read 3"), "hello");
        client.join().expect("the client")
    });
    assert_eq!(answer.as_deref(), Ok("HELLO"));
}

/// An inet listener of a kind, with its answer.
#[track_caller]
fn inet(scheme: &str, address: &str, family: &str, kind: &str, protocol: i32) {
    let world = World::new();
    let (daemon, mut puppet) = one(&world, &format!("'{scheme}://{address}'"));
    let bound = socket(&puppet).clone();
    assert_eq!((bound.family.as_str(), bound.kind.as_str()), (family, kind));
    assert_eq!(
        (bound.protocol, bound.listening),
        (protocol, kind == "stream")
    );
    converse(&mut puppet, || network::send(scheme, &bound.name, "hello"));
    daemon.stop();
}

// --- inet --------------------------------------------------------------------------------------

#[test]
fn tcp_and_udp_of_both_families() {
    inet("tcp", "127.0.0.1:0", "inet", "stream", 6);
    inet("udp", "127.0.0.1:0", "inet", "dgram", 17);
    if require_ipv6() {
        inet("tcp", "[::1]:0", "inet6", "stream", 6);
        inet("udp", "[::1]:0", "inet6", "dgram", 17);
    }
}

#[test]
fn one_socket_of_both_families() {
    if !require_ipv6() {
        return;
    }
    let world = World::new();
    let port = free_port();
    let (daemon, mut puppet) = one(&world, &format!("':{port}'"));
    assert_eq!(socket(&puppet).v6_only, Some(false));
    for address in [format!("127.0.0.1:{port}"), format!("[::1]:{port}")] {
        converse(&mut puppet, || network::send("tcp", &address, "hello"));
    }
    daemon.stop();
}

/// Whether this kernel makes a socket of this protocol.
fn kernel_has(kind: socket2::Type, protocol: i32) -> bool {
    socket2::Socket::new(socket2::Domain::IPV4, kind, Some(protocol.into())).is_ok()
}

// mptcp(7). A client without it is served as well.
#[test]
fn mptcp() {
    const IPPROTO_MPTCP: i32 = 262;
    if !kernel_has(socket2::Type::STREAM, IPPROTO_MPTCP) {
        return skip("no MPTCP in this kernel");
    }
    inet("mptcp", "127.0.0.1:0", "inet", "stream", IPPROTO_MPTCP);
    let world = World::new();
    let (daemon, mut puppet) = one(&world, "'mptcp://127.0.0.1:0'");
    let name = socket(&puppet).name.clone();
    converse(&mut puppet, || network::send("tcp", &name, "hello"));
    daemon.stop();
}

#[test]
fn udplite() {
    const IPPROTO_UDPLITE: i32 = 136;
    if !kernel_has(socket2::Type::DGRAM, IPPROTO_UDPLITE) {
        return skip("no UDP-Lite in this kernel");
    }
    inet("udplite", "127.0.0.1:0", "inet", "dgram", IPPROTO_UDPLITE);
}

// Rule: "a clear `the kernel lacks X; load module Y` where it does not".
#[test]
fn sctp_or_the_module_that_is_missing() {
    const IPPROTO_SCTP: i32 = 132;
    let world = World::new();
    if kernel_has(socket2::Type::STREAM, IPPROTO_SCTP) {
        let (daemon, puppet) = one(&world, "'sctp://127.0.0.1:0'");
        assert_eq!(socket(&puppet).protocol, IPPROTO_SCTP);
        daemon.stop();
        return;
    }
    let finished = world.check("listeners: { it: 'sctp://127.0.0.1:5000' }", &[]);
    let text = finished.expect_code(69).text();
    assert!(
        text.contains("SCTP")
            && (text.contains("modprobe sctp") || text.contains("CONFIG_IP_SCTP")),
        "{text}"
    );
}

// Rule: "Port ranges `127.0.0.1:9000-9003` (one listener, four sockets)".
#[test]
fn a_range_of_ports_is_one_listener_with_many_sockets() {
    let world = World::new();
    let first = (0..200)
        .map(|_| free_port())
        .find(|port| (1..4).all(|n| std::net::TcpListener::bind(("127.0.0.1", port + n)).is_ok()))
        .expect("four free ports");
    let last = first + 3;
    let (daemon, mut puppet) = one(&world, &format!("'127.0.0.1:{first}-{last}'"));
    assert_eq!(puppet.report.env["LISTEN_FDS"], "4");
    assert_eq!(puppet.report.env["LISTEN_FDNAMES"], "it:it:it:it");
    for (number, port) in (first..=last).enumerate() {
        let fd = puppet.report.fds[3 + number].clone();
        let name = format!("127.0.0.1:{port}");
        assert_eq!(fd.socket.expect("a socket").name, name);
        let answer = std::thread::scope(|scope| {
            let client = scope.spawn(|| network::send("tcp", &name, "hello"));
            assert_eq!(puppet.ask(&format!("read {}", fd.number)), "hello");
            client.join().expect("the client")
        });
        assert_eq!(answer.as_deref(), Ok("HELLO"));
    }
    daemon.stop();
}

// Rule: "link-local with scope (`[fe80::1%eth0]:80`)".
#[test]
fn a_link_local_address_is_of_its_interface() {
    let Some(namespace) = Namespace::new() else {
        return;
    };
    namespace.veth("one", "other");
    namespace.ip(&["addr", "add", "fe80::1/64", "dev", "one", "nodad"]);
    namespace.ip(&["addr", "add", "fe80::2/64", "dev", "other", "nodad"]);
    let world = World::new();
    let yaml = "
listeners:
  it: '[fe80::1%one]:8080'
  same: 'udp://[fe80::2%other]:8080'
workers: { app: { command: [$PROBE, puppet, $EVENTS], listeners: [it, same] } }
";
    let daemon = world.run_with(yaml, |start| {
        start.through(namespace.words());
    });
    let mut puppet = world.puppet();
    let bound = &socket(&puppet).name;
    assert!(bound.starts_with("[fe80::1%"), "{bound}");
    daemon.line(&["it", "listening on", "fe80::1%one"]);
    converse(&mut puppet, || {
        namespace.send("tcp", "[fe80::1%one]:8080", "hello")
    });
    daemon.stop();
}

#[test]
fn an_interface_that_is_not_there_is_named() {
    let world = World::new();
    let finished = world.check("listeners: { it: '[fe80::1%nowhere0]:8080' }", &[]);
    let text = finished.expect_code(69).text();
    assert!(text.contains("nowhere0"), "{text}");
}

// --- unix --------------------------------------------------------------------------------------

#[test]
fn unix_sockets_of_every_type() {
    for (scheme, kind) in [
        ("unix", "stream"),
        ("unix-dgram", "dgram"),
        ("unix-seqpacket", "seqpacket"),
    ] {
        let world = World::new();
        for address in [
            "$DIR/it.sock".to_owned(),
            format!("@listend-{}-{kind}", std::process::id()),
        ] {
            let (daemon, mut puppet) = one(&world, &format!("'{scheme}:{address}'"));
            let bound = socket(&puppet).clone();
            assert_eq!((bound.family.as_str(), bound.kind.as_str()), ("unix", kind));
            let address = world.fill(&address);
            assert_eq!(bound.name, address);
            converse(&mut puppet, || network::send(scheme, &address, "hello"));
            daemon.stop();
        }
    }
}

// unix(7): sun_path has 108 bytes. Rule: "paths longer than 107 bytes (bound through a directory
// fd)".
#[test]
fn a_unix_path_may_be_longer_than_an_address() {
    let world = World::new();
    let folder = format!("{}/{}", "f".repeat(100), "g".repeat(100));
    let path = world.path(&folder).join("it.sock");
    let listener = "{ address: 'unix:PATH', mode: 0660 }".replace("PATH", path.to_str().unwrap());
    let (daemon, mut puppet) = one(&world, &listener);
    let metadata = fs::symlink_metadata(&path).expect("the socket");
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o777, 0o660);
    let address = path.to_str().unwrap().to_owned();
    converse(&mut puppet, || network::send("unix", &address, "hello"));
    daemon.line(&["it", "listening on", &address]);
    daemon.stop();
    assert!(!path.exists(), "removed at the end");
}

// --- What is no socket, and what is none of a network -----------------------------------------

#[test]
fn a_fifo() {
    let world = World::new();
    let listener = "{ address: 'fifo:$DIR/deep/it', mode: 0620, pipe_size: 128K }";
    let (daemon, mut puppet) = one(&world, listener);
    let path = world.path("deep/it");
    let metadata = fs::metadata(&path).expect("the FIFO");
    assert!(metadata.file_type().is_fifo());
    assert_eq!(metadata.permissions().mode() & 0o777, 0o620);
    let size = descriptor(&puppet).options.get("pipe_size");
    assert_eq!(size, Some(&Setting::Number(128 * 1024)));
    // Twice: fifo(7), without another writer the first one's end would be the end for all.
    for text in ["hello", "again"] {
        network::send("fifo", path.to_str().unwrap(), text).expect("write");
        assert_eq!(puppet.ask("read 3"), text);
    }
    daemon.stop();
    assert!(!path.exists(), "removed at the end");
}

#[test]
fn a_fifo_that_is_there_is_used_and_what_is_none_is_kept() {
    let world = World::new();
    nix::unistd::mkfifo(&world.path("it"), Mode::S_IRUSR | Mode::S_IWUSR).expect("mkfifo");
    let (daemon, mut puppet) = one(&world, "'fifo:$DIR/it'");
    network::send("fifo", world.path("it").to_str().unwrap(), "hello").expect("write");
    assert_eq!(puppet.ask("read 3"), "hello");
    daemon.stop();
    fs::write(world.path("file"), "precious").expect("write");
    let said = world
        .check("listeners: { it: 'fifo:$DIR/file' }", &[])
        .expect_code(69)
        .text();
    assert!(said.contains("choose another path, or remove it"), "{said}");
    assert_eq!(fs::read_to_string(world.path("file")).unwrap(), "precious");
}

/// The name of a message queue, gone at the end of a test that fails.
struct Queue(String);

impl Queue {
    fn new() -> Queue {
        Queue(format!("/listend-{}-{}", std::process::id(), free_port()))
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        let _ = network::send("mqueue-unlink", &self.0, "");
    }
}

// mq_overview(7).
#[test]
fn a_message_queue() {
    let world = World::new();
    let queue = Queue::new();
    let listener = "{ address: 'mqueue:NAME', mode: 0600, message_queue_max_messages: 7, \
                    message_queue_message_size: 4K }";
    let (daemon, mut puppet) = one(&world, &listener.replace("NAME", &queue.0));
    let options = &descriptor(&puppet).options;
    let number = |key: &str| options.get(key).cloned();
    assert_eq!(
        number("message_queue_max_messages"),
        Some(Setting::Number(7))
    );
    assert_eq!(
        number("message_queue_message_size"),
        Some(Setting::Number(4096))
    );
    for text in ["hello", "again"] {
        network::send("mqueue", &queue.0, text).expect("send");
        assert_eq!(puppet.ask("read 3"), text);
    }
    // "cannot be modified" (mq_getattr(3)).
    let other = listener.replace("NAME", &queue.0).replace(": 7", ": 8");
    let yaml = format!("listeners: {{ it: {other} }}");
    let told = world.check(&yaml, &[]).expect_code(69).text();
    assert!(told.contains("choose another name"), "{told}");
    daemon.stop();
    let left = network::send("mqueue", &queue.0, "nobody");
    assert!(left.is_err(), "removed at the end");
}

#[test]
fn a_special_file_is_read_only_unless_it_says_writable() {
    let world = World::new();
    let (daemon, mut puppet) = one(&world, "'special:/dev/zero'");
    assert_eq!(descriptor(&puppet).target, "/dev/zero");
    assert_eq!(puppet.ask("read 3").trim(), "");
    // write(2): "fd is not a valid file descriptor or is not open for writing."
    assert!(puppet.ask("write 3 hello").contains("os error 9"));
    daemon.stop();
    let (daemon, mut puppet) = one(&world, "{ address: 'special:/dev/zero', writable: true }");
    assert_eq!(puppet.ask("write 3 hello"), "5");
    daemon.stop();
    let plain = PathBuf::from("/etc/hostname");
    if plain.is_file() {
        let yaml = "listeners: { it: 'special:/etc/hostname' }";
        world.check(yaml, &[]).expect_code(69);
    }
}

// netlink(7).
#[test]
fn netlink() {
    let world = World::new();
    let (daemon, mut puppet) = one(&world, "'netlink:route 0'");
    assert_eq!(socket(&puppet).family, "netlink");
    assert_eq!(socket(&puppet).protocol, 0);
    assert_eq!(socket(&puppet).name, "netlink:0");
    assert_eq!(puppet.ask("links 3"), "16", "RTM_NEWLINK");
    daemon.stop();
    let (daemon, puppet) = one(&world, "'netlink:kobject-uevent 1'");
    assert_eq!(socket(&puppet).protocol, 15);
    assert_eq!(socket(&puppet).name, "netlink:1");
    daemon.stop();
    // What systemd writes in decimal is a mask.
    let refused = world.check("listeners: { it: 'netlink:route 1361' }", &[]);
    let said = refused.expect_code(69).text();
    assert!(said.contains("in hexadecimal: 0x551"), "{said}");
    let masked = world.check("listeners: { it: 'netlink:route 0x551' }", &[]);
    masked.expect_code(0);
}

// netlink(7), NETLINK_KOBJECT_UEVENT: a new interface is a message to group 1.
#[test]
fn what_happens_in_the_kernel_comes_over_netlink() {
    let Some(namespace) = Namespace::new() else {
        return;
    };
    let world = World::new();
    let yaml = "
listeners: { it: 'netlink:route 1' }
workers: { app: { command: [$PROBE, puppet, $EVENTS], listeners: [it] } }
";
    let daemon = world.run_with(yaml, |start| {
        start.through(namespace.words());
    });
    let mut puppet = world.puppet();
    // Group 1 is RTMGRP_LINK.
    namespace.veth("new0", "new1");
    let told = puppet.ask("read 3");
    assert!(told.contains("new0") || told.contains("new1"), "{told:?}");
    daemon.stop();
}

// vsock(7): CID 1 is this machine itself, where the kernel has the loopback transport.
#[test]
fn vsock() {
    let socket_of = |kind| socket2::Socket::new(socket2::Domain::VSOCK, kind, None);
    let Ok(free) = socket_of(socket2::Type::STREAM) else {
        let world = World::new();
        let finished = world.check("listeners: { it: 'vsock::5000' }", &[]);
        let text = finished.expect_code(69).text();
        assert!(text.contains("vsock"), "{text}");
        return;
    };
    let world = World::new();
    let port = u32::from(free_port()) + 100_000;
    let loopback = free.bind(&socket2::SockAddr::vsock(1, port)).is_ok();
    drop(free);
    for scheme in ["vsock", "vsock-seqpacket"] {
        if loopback {
            let (daemon, mut puppet) = one(&world, &format!("'{scheme}:1:{port}'"));
            assert_eq!(socket(&puppet).name, format!("vsock:1:{port}"));
            let address = format!("1:{port}");
            converse(&mut puppet, || network::send(scheme, &address, "hello"));
            daemon.stop();
        } else {
            let yaml = format!("listeners: {{ it: '{scheme}:1:{port}' }}");
            let text = world.check(&yaml, &[]).expect_code(69).text();
            assert!(text.contains("vsock_loopback"), "{text}");
        }
    }
    // Of any CID: no client can come here, but the socket is what it should be.
    let (daemon, puppet) = one(&world, &format!("'vsock::{port}'"));
    let bound = socket(&puppet);
    assert_eq!((bound.family.as_str(), bound.listening), ("vsock", true));
    assert_eq!(bound.name, format!("vsock:{}:{port}", u32::MAX));
    daemon.stop();
}

// --- Folders and links -------------------------------------------------------------------------

// Rule: "`directory_mode`, `directory_owner`, `symlinks`, `remove_on_stop`".
#[test]
fn folders_links_and_what_is_left_at_the_end() {
    if !require_root() {
        return;
    }
    let world = World::new();
    let yaml = "
listeners:
  gone:
    address: unix:$DIR/a/gone.sock
    directory_owner: 1234
    directory_group: 4321
    directory_mode: 0750
    symlinks: [$DIR/gone-link]
  kept: { address: 'unix:$DIR/kept.sock', remove_on_stop: false, symlinks: [$DIR/kept-link] }
workers: { app: { command: [$PROBE, puppet, $EVENTS], listeners: [gone, kept] } }
";
    let daemon = world.run(yaml);
    world.puppet();
    let folder = fs::metadata(world.path("a")).expect("the folder");
    assert_eq!(
        (folder.uid(), folder.gid(), folder.mode() & 0o777),
        (1234, 4321, 0o750)
    );
    for name in ["gone", "kept"] {
        let link = fs::read_link(world.path(&format!("{name}-link"))).expect("a link");
        assert!(link.ends_with(format!("{name}.sock")), "{link:?}");
    }
    daemon.stop();
    let left = |name: &str| fs::symlink_metadata(world.path(name)).is_ok();
    assert!(!left("a/gone.sock") && !left("gone-link"));
    assert!(left("kept.sock") && left("kept-link"));
    // What it left is nobody's, and taken over.
    let again = world.run(yaml);
    world.puppet();
    again.stop();
}

#[test]
fn what_is_where_a_link_should_be_is_told() {
    let world = World::new();
    fs::write(world.path("file"), "precious").expect("write");
    std::os::unix::fs::symlink("file", world.path("elsewhere")).expect("a link");
    for (link, cause) in [("file", "not a link"), ("elsewhere", "it leads to file")] {
        let yaml = format!(
            "listeners: {{ it: {{ address: 'unix:$DIR/sock', symlinks: [$DIR/{link}] }} }}"
        );
        let said = world.check(&yaml, &[]).expect_code(69).text();
        assert!(said.contains(cause), "{said}");
        assert!(said.contains("remove it, or choose another path"), "{said}");
    }
    assert_eq!(fs::read_to_string(world.path("file")).unwrap(), "precious");
}

// Rule: "No SO_REUSEADDR on UDP unless multicast (it lets a second process steal datagrams)".
#[test]
fn a_udp_port_is_shared_only_for_multicast() {
    let world = World::new();
    let (daemon, puppet) = one(&world, "'udp://127.0.0.1:0'");
    assert!(!socket(&puppet).reuse_address);
    daemon.stop();
    let port = free_port();
    let listener = format!("{{ address: 'udp://0.0.0.0:{port}', multicast: ['239.255.77.7%lo'] }}");
    let (daemon, mut puppet) = one(&world, &listener);
    assert!(socket(&puppet).reuse_address);
    let group = format!("239.255.77.7:{port}");
    let sender = std::net::UdpSocket::bind("127.0.0.1:0").expect("bind");
    let socket = socket2::SockRef::from(&sender);
    let on = "127.0.0.1".parse().expect("an address");
    socket.set_multicast_if_v4(&on).expect("IP_MULTICAST_IF");
    sender.send_to(b"hello", &group).expect("send");
    assert_eq!(puppet.ask("read 3"), "hello");
    daemon.stop();
}
