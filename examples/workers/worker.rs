//! A worker in Rust: takes its listeners by name, reports readiness, drains at SIGTERM.

use listenfd::ListenFd;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use signal_hook::consts::SIGTERM;
use signal_hook::low_level::pipe;
use socket2::Socket;
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixStream};
use std::time::Duration;
use std::{env, process, thread};

fn main() -> io::Result<()> {
    // SIGTERM becomes a byte in a socket, so that it cannot come between a check and poll(2).
    let (stop, signalled) = UnixStream::pair()?;
    pipe::register(SIGTERM, signalled)?;
    let listeners = inherited()?;
    let mut polled = vec![PollFd::new(stop.as_fd(), PollFlags::POLLIN)];
    for (listener, _) in &listeners {
        // All instances wake up for a client, and all but one find that it has been taken. A
        // blocking accept(2) would then hang, also at SIGTERM.
        listener.set_nonblocking(true)?;
        polled.push(PollFd::new(listener.as_fd(), PollFlags::POLLIN));
    }
    notify("READY=1")?;
    // The scope waits for its threads; who is in the queue is for other instances.
    thread::scope(|clients| {
        loop {
            if poll(&mut polled, PollTimeout::NONE).is_err() {
                continue; // EINTR
            }
            let mut ready = polled.iter().map(|one| one.any().unwrap_or(true));
            if ready.next() == Some(true) {
                return Ok(());
            }
            for ((listener, name), _) in listeners.iter().zip(ready).filter(|(_, ready)| *ready) {
                // An error: it was taken by another instance, or has gone.
                if let Ok((client, _)) = listener.accept() {
                    clients.spawn(move || answer(&client, name));
                }
            }
        }
    })
}

/// The listeners with their names. A name may come twice: `localhost:8080` is two sockets.
fn inherited() -> io::Result<Vec<(Socket, String)>> {
    let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
    // It checks LISTEN_PID, and removes the variables.
    let mut inherited = ListenFd::from_env();
    let take = |(index, name): (usize, &str)| {
        let socket = match inherited.take_tcp_listener(index) {
            Ok(Some(tcp)) => OwnedFd::from(tcp),
            _ => match inherited.take_unix_listener(index)? {
                Some(unix) => unix.into(),
                None => return Err(io::Error::other("start it from listend")),
            },
        };
        Ok((socket.into(), name.to_owned()))
    };
    names.split(':').enumerate().map(take).collect()
}

/// What sd_notify(3) does.
fn notify(state: &str) -> io::Result<()> {
    let Ok(path) = env::var("NOTIFY_SOCKET") else {
        return Ok(());
    };
    let to = match path.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(&path)?,
    };
    let _sent = UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &to)?;
    Ok(())
}

/// Reads the head of a request, and answers. An error is one of the client's, which has gone.
fn answer(client: &Socket, name: &str) -> io::Result<()> {
    // A silent client must not hold up the drain.
    client.set_read_timeout(Some(Duration::from_secs(10)))?;
    for line in BufReader::new(client).lines() {
        if line?.is_empty() {
            let body = format!("{name}: hello from pid {}\n", process::id());
            let size = body.len();
            let head = format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {size}");
            let mut writer = client;
            return write!(writer, "{head}\r\n\r\n{body}");
        }
    }
    Ok(())
}
