//! The sample worker, `listend hello-worker`: a small HTTP server that binds nothing.
//!
//! It shows all that a worker has to do: take its listeners (with the crate `listenfd`), accept
//! without ever blocking, and drain at SIGTERM: accept no more, finish what was accepted, exit.
//! One thread per client and one request per connection: an example, not a web server.

use listenfd::ListenFd;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use signal_hook::consts::{SIGINT, SIGTERM};
use socket2::Socket;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// How long a client may stay silent, so that a dead one cannot hold up the drain.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the close waits for what a client still sends: the answer is on its way by then.
const LINGER: Duration = Duration::from_secs(2);

/// The longest request head, and how much of what follows it is read before the close, in bytes.
const MAX_REQUEST: u64 = 64 * 1024;

/// Clients served at the same time. More wait in the accept queue, where another instance may
/// take them, and the limit of open files is never reached.
const MAX_CLIENTS: usize = 256;

/// Serves every inherited stream listener until SIGTERM or SIGINT, then drains.
///
/// # Errors
///
/// No listener was inherited, or one cannot be used any more.
pub fn run() -> io::Result<()> {
    // A signal becomes a byte in a socket, which poll(2) waits for together with the clients.
    let (stop, signalled) = UnixStream::pair()?;
    signal_hook::low_level::pipe::register(SIGTERM, signalled.try_clone()?)?;
    signal_hook::low_level::pipe::register(SIGINT, signalled)?;

    let listeners = inherited_listeners();
    if listeners.is_empty() {
        return Err(io::Error::new(
            io::ErrorKind::NotFound,
            "no stream listener was inherited; start it from listend, for example with \
             `listend exec -l web=127.0.0.1:8080 -- listend hello-worker`",
        ));
    }
    let clients = Arc::new(Clients::default());
    let ended = accept_until_stopped(&stop, &listeners, &clients);
    // Closed before the wait: from here on the clients that connect are for other instances.
    drop(listeners);
    clients.wait_until_at_most(0);
    ended
}

/// The stream listeners of LISTEN_FDS. Datagram sockets are left alone.
fn inherited_listeners() -> Vec<Socket> {
    let mut inherited = ListenFd::from_env();
    let mut listeners = Vec::new();
    for index in 0..inherited.len() {
        // take_* check family and type, and leave the descriptor where it is on a mismatch.
        if let Ok(Some(listener)) = inherited.take_tcp_listener(index) {
            listeners.push(Socket::from(OwnedFd::from(listener)));
        } else if let Ok(Some(listener)) = inherited.take_unix_listener(index) {
            listeners.push(Socket::from(OwnedFd::from(listener)));
        }
    }
    listeners
}

/// Gives each client a thread, until `stop` is readable.
fn accept_until_stopped(
    stop: &UnixStream,
    listeners: &[Socket],
    clients: &Arc<Clients>,
) -> io::Result<()> {
    let mut waiting_for = vec![PollFd::new(stop.as_fd(), PollFlags::POLLIN)];
    let accepting = |listener| PollFd::new(Socket::as_fd(listener), PollFlags::POLLIN);
    waiting_for.extend(listeners.iter().map(accepting));
    loop {
        clients.wait_until_at_most(MAX_CLIENTS - 1);
        match poll(&mut waiting_for, PollTimeout::NONE) {
            Err(nix::errno::Errno::EINTR) => continue,
            other => other?,
        };
        let ready = |polled: &PollFd| polled.any().unwrap_or(true);
        if waiting_for.first().is_some_and(ready) {
            return Ok(());
        }
        for (listener, polled) in listeners.iter().zip(waiting_for.iter().skip(1)) {
            if ready(polled) {
                accept(listener, clients)?;
            }
        }
    }
}

/// Accepts one client, if it is still there: another instance may have taken it.
fn accept(listener: &Socket, clients: &Arc<Clients>) -> io::Result<()> {
    // The flag is shared with everybody who holds this listener, so it is set every time.
    listener.set_nonblocking(true)?;
    let client = match listener.accept() {
        Ok((client, _)) => client,
        Err(error) if is_temporary(&error) => return Ok(()),
        Err(error) => return Err(error),
    };
    // Counted before the thread runs: a drain that begins now waits for this client.
    let counted = Counted::new(clients);
    let started = thread::Builder::new().spawn(move || {
        let _counted = counted;
        // A client that goes away early is no error of the server.
        let _ = answer(&client);
    });
    if let Err(error) = started {
        log::warn!("hello-worker: cannot start a thread for a client: {error}");
    }
    Ok(())
}

/// accept(2): errors that belong to one client, or pass.
fn is_temporary(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock
            | io::ErrorKind::Interrupted
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
    ) || error.raw_os_error() == Some(nix::libc::EPROTO)
}

/// Reads one request head and answers it.
fn answer(client: &Socket) -> io::Result<()> {
    // accept(2) on Linux: the new socket inherits no flags. Timeouts need a blocking one.
    client.set_read_timeout(Some(CLIENT_TIMEOUT))?;
    client.set_write_timeout(Some(CLIENT_TIMEOUT))?;
    let mut lines = BufReader::new(client.take(MAX_REQUEST)).lines();
    let Some(request) = lines.next().transpose()? else {
        return Ok(());
    };
    for line in lines {
        if line?.is_empty() {
            break;
        }
    }
    let path = request.split(' ').nth(1).unwrap_or("/");
    let body = format!(
        "hello from pid {}, which inherited this listener and bound nothing\nyou asked for {path}\n",
        std::process::id()
    );
    let response = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    );
    let mut writer = client;
    writer.write_all(response.as_bytes())?;
    // A close with unread data resets the connection, and the answer may be lost with it.
    client.shutdown(Shutdown::Write)?;
    client.set_read_timeout(Some(LINGER))?;
    io::copy(&mut client.take(MAX_REQUEST), &mut io::sink())?;
    Ok(())
}

/// How many clients are being served.
#[derive(Default)]
struct Clients {
    count: Mutex<usize>,
    changed: Condvar,
}

impl Clients {
    fn add(&self, difference: isize) {
        let mut count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        *count = count.saturating_add_signed(difference);
        self.changed.notify_all();
    }

    fn wait_until_at_most(&self, limit: usize) {
        let mut count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        while *count > limit {
            count = self
                .changed
                .wait(count)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// One client in the count, for as long as this lives.
struct Counted(Arc<Clients>);

impl Counted {
    fn new(clients: &Arc<Clients>) -> Self {
        clients.add(1);
        Counted(Arc::clone(clients))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.add(-1);
    }
}
