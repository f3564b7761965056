//! What one side sends is what the other gets: bytes, ends and resets.

use super::{ask, ready, rest, say, yaml, yaml_at};
use crate::harness::{DEADLINE, Daemon, World, client, eventually, kill, require_ipv6};
use nix::sys::signal::Signal;
use socket2::SockRef;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::thread;
use std::time::Duration;

/// The pattern of `probe backend`.
fn pattern(at: u64) -> u8 {
    (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}

/// Sends and receives so many bytes at once, and compares each.
fn both_ways(stream: TcpStream, count: u64) {
    let mut sender = stream.try_clone().expect("clone");
    let sends = thread::spawn(move || {
        writeln!(sender, "duplex {count}").expect("write");
        let mut buffer = vec![0; 256 * 1024];
        let mut at = 0;
        while at < count {
            let room = (count - at).min(buffer.len() as u64) as usize;
            for (offset, byte) in (at..).zip(&mut buffer[..room]) {
                *byte = pattern(offset);
            }
            sender.write_all(&buffer[..room]).expect("write");
            at += room as u64;
        }
        sender.shutdown(Shutdown::Write).expect("shutdown");
    });
    let mut reader = stream;
    let mut buffer = vec![0; 256 * 1024];
    let mut at = 0;
    while at < count {
        let room = (count - at).min(buffer.len() as u64) as usize;
        let got = reader.read(&mut buffer[..room]).expect("read");
        assert!(got > 0, "the end after {at} bytes");
        for byte in &buffer[..got] {
            assert_eq!(*byte, pattern(at), "byte {at}");
            at += 1;
        }
    }
    // What the server sends does not wait for what it receives, and may end long before that.
    sends.join().expect("the sender");
    let mut sum = [0; 8];
    reader.read_exact(&mut sum).expect("the sum");
    assert_eq!(u64::from_le_bytes(sum), count, "what the server got");
    assert_eq!(reader.read(&mut sum).expect("the end"), 0);
}

#[test]
fn a_gibibyte_passes_in_both_directions_at_once() {
    let world = World::new();
    let daemon = ready(&world, &yaml(""));
    both_ways(
        client::tcp(daemon.address("web")).expect("connect"),
        1 << 29,
    );
    daemon.stop();
}

#[test]
fn a_half_closed_connection_still_gets_its_answer() {
    let world = World::new();
    let daemon = ready(&world, &yaml(""));
    let mut stream = say(daemon.address("web"), "count");
    stream.write_all(&[b'x'; 100_000]).expect("write");
    stream.shutdown(Shutdown::Write).expect("shutdown");
    assert_eq!(rest(stream), "100000\n");
    daemon.stop();
}

#[test]
fn a_server_that_ends_first_still_hears_the_client() {
    let world = World::new();
    let daemon = ready(&world, &yaml(""));
    let heard = world.path("heard");
    let mut stream = say(daemon.address("web"), &format!("end {}", heard.display()));
    assert_eq!(stream.read(&mut [0; 8]).expect("the end"), 0);
    stream.write_all(b"to the last").expect("write");
    drop(stream);
    eventually("it has heard", || heard.exists());
    assert_eq!(fs::read_to_string(&heard).expect("text"), "to the last");
    daemon.stop();
}

#[test]
fn a_reset_of_the_server_is_one_for_the_client_after_what_it_said() {
    let world = World::new();
    let daemon = ready(&world, &yaml(""));
    let mut stream = say(daemon.address("web"), "reset");
    let mut said = Vec::new();
    let end = stream.read_to_end(&mut said).expect_err("a reset");
    assert_eq!(end.kind(), ErrorKind::ConnectionReset);
    assert!(!ask(daemon.address("web"), "pid").is_empty(), "it goes on");
    daemon.stop();
}

#[test]
fn a_reset_of_the_client_is_one_for_the_server() {
    let world = World::new();
    let daemon = ready(&world, &yaml(""));
    let saw = world.path("saw");
    let line = format!("silent {}", saw.display());
    // Reset, and ended in order.
    for (resets, wanted) in [(true, "ConnectionReset"), (false, "end")] {
        let _ = fs::remove_file(&saw);
        let mut stream = say(daemon.address("web"), &line);
        client::hear(&mut stream, "listening\n");
        if resets {
            client::reset(stream);
        } else {
            drop(stream);
        }
        eventually("the server saw it", || saw.exists());
        assert_eq!(fs::read_to_string(&saw).expect("text"), wanted);
    }
    daemon.stop();
}

/// Clients and servers of every kind of address.
#[test]
fn every_kind_of_address_can_be_on_either_side() {
    let world = World::new();
    let path = |name: &str| format!("unix:{}", world.path(name).display());
    let mut sides = vec![
        ("127.0.0.1:0".to_owned(), path("one.server")),
        (path("two"), "127.0.0.1:{port}".to_owned()),
        (path("three"), path("three.server")),
        ("127.0.0.1:0".to_owned(), "localhost:{port}".to_owned()),
    ];
    if require_ipv6() {
        sides.push(("[::1]:0".to_owned(), "127.0.0.1:{port}".to_owned()));
        sides.push(("127.0.0.1:0".to_owned(), "[::1]:{port}".to_owned()));
    }
    for (index, (listener, to)) in sides.iter().enumerate() {
        // The server has one address, the forwarder tries both.
        let yaml = yaml_at(listener, to, "")
            .replace("backend, 'localhost:{port}'", "backend, '127.0.0.1:{port}'");
        let daemon = ready(&world, &yaml);
        let text = match listener.strip_prefix("unix:") {
            Some(path) => {
                let mut stream = client::unix(path.as_ref()).expect("connect");
                stream.write_all(b"count\n12345").expect("write");
                stream.shutdown(Shutdown::Write).expect("shutdown");
                rest(stream)
            }
            None => {
                let mut stream = say(daemon.address("web"), "count");
                stream.write_all(b"12345").expect("write");
                stream.shutdown(Shutdown::Write).expect("shutdown");
                rest(stream)
            }
        };
        assert_eq!(text, "5\n", "{index}: {listener} to {to}");
        daemon.stop();
    }
}

/// What comes is forwarded to a server that is this process's own.
fn to_a_server_of_the_test(world: &World) -> (Daemon, TcpListener) {
    let server = TcpListener::bind("127.0.0.1:0").expect("bind");
    let to = server.local_addr().expect("an address");
    let daemon = ready(
        world,
        &format!(
            "
listeners: {{ web: '127.0.0.1:0' }}
workers: {{ app: {{ listeners: [web], forward: '{to}' }} }}
"
        ),
    );
    (daemon, server)
}

/// A server that listens and never accepts: the queue of the kernel is all there is.
#[test]
fn a_server_that_takes_nothing_stops_the_client_by_back_pressure() {
    let world = World::new();
    let (daemon, server) = to_a_server_of_the_test(&world);
    let mut stream = client::tcp(daemon.address("web")).expect("connect");
    stream.set_nonblocking(true).expect("non-blocking");
    let (mut peer, _) = server.accept().expect("it is connected");
    let (mut sent, mut before) = (0, 1);
    // Until two looks have found no room.
    eventually("no more is taken", || {
        let start = sent;
        while let Ok(count) = stream.write(&[b'x'; 64 * 1024]) {
            sent += count;
        }
        let quiet = sent == start && before == 0;
        before = sent - start;
        quiet
    });
    assert!(sent < 64 << 20, "{sent} bytes are somewhere");
    // All of it comes when the server takes it.
    stream.set_nonblocking(false).expect("blocking");
    stream.shutdown(Shutdown::Write).expect("shutdown");
    peer.set_read_timeout(Some(DEADLINE)).expect("a timeout");
    let mut got = Vec::new();
    peer.read_to_end(&mut got).expect("the end");
    assert_eq!(got.len(), sent);
    drop((stream, peer));
    daemon.stop();
}

// It sends back what it gets, and takes nothing while that is not taken.
#[test]
fn a_client_that_is_gone_frees_a_server_that_waits_to_be_rid_of_its_answer() {
    let world = World::new();
    let (daemon, server) = to_a_server_of_the_test(&world);
    let echo = thread::spawn(move || {
        let (mut peer, _) = server.accept().expect("it is connected");
        peer.set_write_timeout(Some(DEADLINE)).expect("a timeout");
        peer.set_read_timeout(Some(DEADLINE)).expect("a timeout");
        let mut buffer = vec![0; 64 * 1024];
        loop {
            match peer.read(&mut buffer) {
                Ok(0) => return "the end".to_owned(),
                Ok(count) => {
                    if let Err(error) = peer.write_all(&buffer[..count]) {
                        return format!("{:?}", error.kind());
                    }
                }
                Err(error) => return format!("{:?}", error.kind()),
            }
        }
    });
    let mut stream = client::tcp(daemon.address("web")).expect("connect");
    stream.set_nonblocking(true).expect("non-blocking");
    let mut is_full = false;
    eventually("no more is taken", || {
        let before = is_full;
        is_full = true;
        while stream.write(&[b'x'; 64 * 1024]).is_ok() {
            is_full = false;
        }
        before && is_full
    });
    client::reset(stream);
    assert_eq!(echo.join().expect("no panic"), "ConnectionReset");
    daemon.stop();
}

#[test]
fn two_thousand_connections_at_a_time() {
    const CLIENTS: usize = 2_000;
    let world = World::new();
    let daemon = ready(&world, &yaml("stop_timeout: 60s"));
    let address = daemon.address("web");
    let mut streams: Vec<TcpStream> = (0..CLIENTS).map(|_| say(address, "echo")).collect();
    for round in 0..2 {
        for (index, stream) in streams.iter_mut().enumerate() {
            writeln!(stream, "{round} {index}").expect("write");
        }
        for (index, stream) in streams.iter_mut().enumerate() {
            client::hear(stream, &format!("{round} {index}\n"));
        }
    }
    for stream in streams {
        stream.shutdown(Shutdown::Write).expect("shutdown");
        assert_eq!(rest(stream), "");
    }
    daemon.stop();
}

#[test]
fn descriptors_of_clients_are_not_taken() {
    let world = World::new();
    let server = UnixListener::bind(world.path("server")).expect("bind");
    let daemon = ready(
        &world,
        "
listeners: { web: 'unix:$DIR/web' }
workers: { app: { listeners: [web], forward: 'unix:$DIR/server' } }
",
    );
    let stream = client::unix(&world.path("web")).expect("connect");
    let message = [std::io::IoSlice::new(b"with one")];
    let fds = [0];
    let rights = [nix::sys::socket::ControlMessage::ScmRights(&fds)];
    let flags = nix::sys::socket::MsgFlags::empty();
    let (mut peer, _) = server.accept().expect("it is connected");
    // From Linux 6.16 on the sender is told; before that, the bytes arrive alone.
    let sent = nix::sys::socket::sendmsg::<()>(
        std::os::fd::AsRawFd::as_raw_fd(&stream),
        &message,
        &rights,
        flags,
        None,
    );
    match sent {
        Ok(_) => client::hear(&mut peer, "with one"),
        Err(errno) => assert_eq!(errno, nix::errno::Errno::EPERM),
    }
    (&stream).write_all(b"without").expect("write");
    client::hear(&mut peer, "without");
    drop((stream, peer));
    daemon.stop();
}

/// What a connection sets survives; what it costs when it is idle is two sockets.
#[test]
fn an_idle_connection_costs_two_descriptors() {
    let world = World::new();
    let daemon = ready(&world, &yaml(""));
    let address = daemon.address("web");
    let forwarder = crate::harness::children(daemon.pid())[0];
    let exchange = |stream: &mut TcpStream| {
        stream.write_all(b"hello\n").expect("write");
        client::hear(stream, "hello\n");
    };
    let mut first = say(address, "echo");
    exchange(&mut first);
    let before = crate::harness::settled_descriptors(forwarder);
    let mut streams: Vec<TcpStream> = (0..100).map(|_| say(address, "echo")).collect();
    streams.iter_mut().for_each(exchange);
    // And a pipe or two more in the pool.
    let after = crate::harness::settled_descriptors(forwarder) - before;
    assert!((200..210).contains(&after), "{after} descriptors");
    drop(streams);
    daemon.stop();
}

/// The keep-alive and the options of TCP are set on both sides.
#[test]
fn keep_alive_is_set() {
    let world = World::new();
    let server = TcpListener::bind("127.0.0.1:0").expect("bind");
    let to: SocketAddr = server.local_addr().expect("an address");
    let daemon = ready(
        &world,
        &format!(
            "
listeners: {{ web: '127.0.0.1:0' }}
workers: {{ app: {{ listeners: [web], forward: {{ to: '{to}', keep_alive: 77s }} }} }}
"
        ),
    );
    let stream = client::tcp(daemon.address("web")).expect("connect");
    let (peer, _) = server.accept().expect("it is connected");
    let forwarder = crate::harness::children(daemon.pid())[0];
    let pidfd = listend::sys::open_pidfd(forwarder).expect("a pidfd");
    let of = |address: SocketAddr| {
        (0..64).find_map(|number| {
            let fd = listend::sys::take_descriptor_of(&pidfd, number).ok()?;
            let socket = socket2::Socket::from(fd);
            (socket.peer_addr().ok()?.as_socket()? == address).then_some(socket)
        })
    };
    for address in [stream.local_addr().expect("an address"), to] {
        let socket = of(address).expect("its socket");
        let socket = SockRef::from(&socket);
        assert!(socket.keepalive().expect("SO_KEEPALIVE"));
        let time = socket.tcp_keepalive_time().expect("TCP_KEEPIDLE");
        assert_eq!(time, Duration::from_secs(77));
        let retries = socket.tcp_keepalive_retries().expect("TCP_KEEPCNT");
        assert_eq!(retries, 3);
        assert!(socket.tcp_nodelay().expect("TCP_NODELAY"));
    }
    drop((stream, peer));
    daemon.stop();
}

#[test]
fn a_killed_forwarder_ends_its_server_and_its_connections_and_loses_nobody_in_the_queue() {
    let world = World::new();
    let daemon = ready(&world, &yaml(""));
    let address = daemon.address("web");
    let forwarder = crate::harness::children(daemon.pid())[0];
    let server: i32 = ask(address, "pid").parse().expect("a pid");
    let mut open = say(address, "echo");
    open.write_all(b"a\n").expect("write");
    client::hear(&mut open, "a\n");
    kill(forwarder, Signal::SIGSTOP);
    let waits = say(address, "pid");
    kill(forwarder, Signal::SIGKILL);
    client::sees_the_end(open);
    let next: i32 = rest(waits).trim().parse().expect("a pid");
    assert_ne!(next, server);
    eventually("the old server has gone", || {
        !crate::harness::exists(server)
    });
    daemon.stop();
}
