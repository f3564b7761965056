//! What keeps an address from being bound: servers, connections, and the kernel itself.

use super::errors::{UNBOUND, errors};
use crate::harness::network::Namespace;
use crate::harness::{World, require_ipv6, skip};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::process::Command;

// A connection keeps a port for as long as it is open: nobody is told to wait for that.
#[test]
fn a_connection_in_the_way_is_named_with_its_process() {
    let world = World::new();
    let server = TcpListener::bind("127.0.0.1:0").expect("bind");
    let connection = TcpStream::connect(server.local_addr().expect("an address"));
    let connection = connection.expect("connect");
    let port = connection.local_addr().expect("an address").port();
    let yaml = format!("listeners: {{ web: '127.0.0.1:{port}' }}");
    let json = world.check(&yaml, &["--json"]).expect_code(UNBOUND).json();
    let hint = json["errors"][0]["hint"].as_str().expect("a hint");
    let process = format!("stop process {}", std::process::id());
    assert!(hint.starts_with(&process), "{hint}");
    assert!(!hint.contains("minute"), "{hint}");
}

// Conflicts with somebody else's wildcard socket: the address that is held is another one.
#[test]
fn a_wildcard_socket_of_another_process_is_found_as_the_holder() {
    let world = World::new();
    let holder = TcpListener::bind("0.0.0.0:0").expect("bind");
    let port = holder.local_addr().expect("an address").port();
    let yaml = format!("listeners: {{ web: '127.0.0.1:{port}' }}");
    let json = world.check(&yaml, &["--json"]).expect_code(UNBOUND).json();
    assert_eq!(
        errors(&json)[0]["holder"]["pid"],
        std::process::id(),
        "{json:#}"
    );
}

#[test]
fn the_holder_of_an_ipv6_address_is_found() {
    if !require_ipv6() {
        return;
    }
    let world = World::new();
    let holder = TcpListener::bind("[::1]:0").expect("bind");
    let udp = UdpSocket::bind("[::1]:0").expect("bind");
    let yaml = format!(
        "listeners: {{ web: '{}', dns: 'udp://{}' }}",
        holder.local_addr().expect("an address"),
        udp.local_addr().expect("an address")
    );
    let json = world.check(&yaml, &["--json"]).expect_code(UNBOUND).json();
    for error in errors(&json) {
        assert_eq!(error["kind"], "EADDRINUSE");
        assert_eq!(error["holder"]["pid"], std::process::id(), "{json:#}");
    }
    assert_eq!(errors(&json).len(), 2);
}

// A server without SO_REUSEADDR that has ended while a client stays: the connection is in FIN_WAIT_2, and no process has
// it. It was told to be one "of a process of user root (it is in another container or namespace)".
#[test]
fn a_connection_that_nobody_has_any_more_is_of_nobody() {
    let world = World::new();
    let (server, port) = without_reuse_address();
    let client = TcpStream::connect(("127.0.0.1", port)).expect("connect");
    let (accepted, _) = server.accept().expect("accept");
    drop((accepted, server));
    let yaml = format!("listeners: {{ web: '127.0.0.1:{port}' }}");
    let json = world.check(&yaml, &["--json"]).expect_code(UNBOUND).json();
    let error = &json["errors"][0];
    let peer = client.local_addr().expect("an address");
    let cause = format!(
        "a connection to {peer} that its process has closed keeps the port until the peer closes it \
         too, or a minute or two at most"
    );
    assert_eq!(error["causes"][0], cause, "{error}");
    let hint = error["hint"].as_str().expect("a hint");
    assert!(hint.starts_with("try again in a minute"), "{hint}");
    let address = format!("127.0.0.1:{port}");
    let explained = world.finish(["explain", "--json", &address]).json();
    let holder = &explained["sockets"][0]["holders"][0];
    assert_eq!(holder["state"], "closing", "{explained}");
    drop(client);
}

// No process has a socket of the kernel, and nobody finds one that could be stopped.
#[test]
fn a_socket_of_the_kernel_may_be_the_kernels() {
    let world = World::new();
    let Some(inside) = Namespace::new() else {
        return;
    };
    let link = "link add vx0 type vxlan id 1 dstport 4789 local 127.0.0.1 dev lo";
    let made = Command::new("ip")
        .args(["-n", inside.name()])
        .args(link.split(' '))
        .output();
    if !made.is_ok_and(|made| made.status.success()) {
        skip("the kernel has no VXLAN");
        return;
    }
    inside.ip(&["link", "set", "vx0", "up"]);
    let yaml = format!(
        "listeners: {{ dns: {{ address: 'udp://127.0.0.1:4789', network_namespace: {} }} }}",
        inside.path().display()
    );
    let said = world.check(&yaml, &[]).expect_code(UNBOUND).stderr;
    assert!(said.contains("or the kernel itself"), "{said}");
}

/// A server whose connections keep the address from being bound: std sets SO_REUSEADDR.
fn without_reuse_address() -> (TcpListener, u16) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let socket = socket.expect("a socket");
    let any: std::net::SocketAddr = ([127, 0, 0, 1], 0).into();
    socket.bind(&any.into()).expect("bind");
    socket.listen(1).expect("listen");
    let server = TcpListener::from(socket);
    let port = server.local_addr().expect("an address").port();
    (server, port)
}
