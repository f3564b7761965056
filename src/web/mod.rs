//! Answers HTTP for the daemon, in a process of its own: `listend web`, the worker of `metrics:`.
//!
//! A thread for each client, of which there are few. One that is slow, silent or broken costs its own
//! place, and loses it after a while.

pub mod http;

use crate::{metrics, sys};
use http::{Format, Request};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::Socket;
use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// The largest number of clients served at a time.
const CLIENTS_MAX: usize = 32;
/// The longest time for one client.
const CLIENT_TIME: Duration = Duration::from_secs(10);
/// The pause in accepting after there was no place, descriptor or memory, in milliseconds. Until then
/// clients wait in the accept queue.
const ACCEPT_PAUSE: u16 = 50;
/// A thread needs no more: pages are on the heap.
const STACK: usize = 512 * 1024;

/// Answers clients at these listeners, which do not block, until the connection to the daemon is
/// closed. `ask` asks the daemon for the metrics as OpenMetrics text.
///
/// # Errors
///
/// The daemon did not answer, or poll(2) failed.
pub fn serve(
    listeners: &[Socket],
    daemon: &Socket,
    ask: impl FnMut() -> io::Result<String> + Send + 'static,
) -> io::Result<()> {
    let server = Arc::new(Server {
        daemon: daemon.try_clone()?,
        pages: Mutex::new(Pages {
            ask: Box::new(ask),
            last: None,
            broken: None,
        }),
        clients: Mutex::default(),
    });
    // That it hangs up is told unasked.
    let mut waiting_for = vec![PollFd::new(daemon.as_fd(), PollFlags::empty())];
    let accepting = |listener| PollFd::new(Socket::as_fd(listener), PollFlags::POLLIN);
    waiting_for.extend(listeners.iter().map(accepting));
    loop {
        match poll(&mut waiting_for, PollTimeout::NONE) {
            Err(nix::errno::Errno::EINTR) => continue,
            other => other?,
        };
        let ready = |polled: &PollFd| polled.any().unwrap_or(true);
        if waiting_for.first().is_some_and(ready) {
            return server.pages().broken.take().map_or(Ok(()), Err);
        }
        for (listener, polled) in listeners.iter().zip(waiting_for.iter().skip(1)) {
            if ready(polled) && !server.accept(listener) {
                // Level-triggered, it would be tried again at once.
                let _woken = poll(&mut waiting_for[..1], ACCEPT_PAUSE);
                break;
            }
        }
    }
}

/// The state that the threads share.
struct Server {
    daemon: Socket,
    pages: Mutex<Pages>,
    clients: Mutex<Clients>,
}

/// The last answer of the daemon.
struct Pages {
    ask: Box<dyn FnMut() -> io::Result<String> + Send>,
    /// The time and the text of the last answer.
    last: Option<(Instant, Arc<str>)>,
    /// Why it cannot be asked any more.
    broken: Option<io::Error>,
}

/// The clients, by number, so that the first one came first.
#[derive(Default)]
struct Clients {
    next: u64,
    open: BTreeMap<u64, Client>,
}

struct Client {
    socket: Arc<Socket>,
    /// Whether the client has sent its request and waits for the answer.
    waits: bool,
}

impl Server {
    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn clients(&self) -> MutexGuard<'_, Clients> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Accepts one client. Whether others can be accepted now.
    fn accept(self: &Arc<Server>, listener: &Socket) -> bool {
        if !self.make_room() {
            return false;
        }
        let socket = match listener.accept() {
            Ok((socket, _)) => Arc::new(socket),
            Err(error) => return !is_exhausted(&error),
        };
        // Nobody has anything to hand over here.
        sys::refuse_descriptors(&*socket);
        let number = self.admit(&socket);
        let server = Arc::clone(self);
        let converse = move || {
            // One that goes away early is no error of ours.
            let _gone = server.converse(number, &socket);
            server.clients().open.remove(&number);
        };
        if let Err(error) = thread::Builder::new().stack_size(STACK).spawn(converse) {
            log::warn!("web: cannot start a thread: {error}");
            self.clients().open.remove(&number);
        }
        true
    }

    /// Closes the client that has been silent for longest, but none that is being answered.
    fn make_room(&self) -> bool {
        let mut clients = self.clients();
        if clients.open.len() < CLIENTS_MAX {
            return true;
        }
        let mut silent = clients.open.iter().filter(|(_, client)| !client.waits);
        let silent = silent.next().map(|(number, _)| *number);
        let silent = silent.and_then(|number| clients.open.remove(&number));
        if let Some(client) = &silent {
            let _gone = client.socket.shutdown(Shutdown::Both);
        }
        silent.is_some()
    }

    fn admit(&self, socket: &Arc<Socket>) -> u64 {
        let mut clients = self.clients();
        let number = clients.next;
        clients.next += 1;
        let client = Client {
            socket: Arc::clone(socket),
            waits: false,
        };
        clients.open.insert(number, client);
        number
    }

    fn waits(&self, number: u64, waits: bool) {
        if let Some(client) = self.clients().open.get_mut(&number) {
            client.waits = waits;
        }
    }

    /// Reads a request and answers it.
    fn converse(&self, number: u64, socket: &Socket) -> io::Result<()> {
        let until = Instant::now() + CLIENT_TIME;
        let request = read_request(socket, until)?;
        self.waits(number, true);
        match request {
            Request::Refused(why) => send(socket, &why.answer(), until)?,
            Request::Metrics { format, head_only } => {
                let page = self.page()?;
                let body = match format {
                    Format::OpenMetrics => page,
                    Format::Plain => metrics::plain(&page).into(),
                };
                send(socket, &http::found(format, body.len()), until)?;
                if !head_only {
                    send(socket, body.as_bytes(), until)?;
                }
            }
        }
        // It is to see the end before the connection is closed: closing with something unread would
        // reset it, and could destroy the answer on its way (RFC 9112, 9.6).
        socket.shutdown(Shutdown::Write)?;
        self.waits(number, false);
        while receive(socket, &mut [0; 4096], until)? > 0 {}
        Ok(())
    }

    /// The metrics as they are now. All who wait at the same time share an answer of the daemon.
    fn page(&self) -> io::Result<Arc<str>> {
        let wanted = Instant::now();
        let mut pages = self.pages();
        if let Some((asked, page)) = &pages.last
            && *asked >= wanted
        {
            return Ok(Arc::clone(page));
        }
        let asked = Instant::now();
        let page: Arc<str> = match (pages.ask)() {
            Ok(page) => page.into(),
            Err(error) => {
                // Another worker gets another connection.
                pages.broken.get_or_insert(error);
                self.daemon.shutdown(Shutdown::Both)?;
                return Err(ErrorKind::BrokenPipe.into());
            }
        };
        pages.last = Some((asked, Arc::clone(&page)));
        Ok(page)
    }
}

/// accept(2): descriptors or memory are missing. All other errors belong to one client.
fn is_exhausted(error: &io::Error) -> bool {
    use nix::libc::{EMFILE, ENFILE, ENOBUFS, ENOMEM};
    let exhausted = [EMFILE, ENFILE, ENOBUFS, ENOMEM];
    let is_it = |errno| exhausted.contains(&errno);
    error.raw_os_error().is_some_and(is_it)
}

/// The time that is left.
fn left(until: Instant) -> io::Result<Option<Duration>> {
    match until.saturating_duration_since(Instant::now()) {
        Duration::ZERO => Err(ErrorKind::TimedOut.into()),
        left => Ok(Some(left)),
    }
}

fn receive(mut socket: &Socket, buffer: &mut [u8], until: Instant) -> io::Result<usize> {
    socket.set_read_timeout(left(until)?)?;
    socket.read(buffer)
}

fn read_request(socket: &Socket, until: Instant) -> io::Result<Request> {
    let mut request = Vec::new();
    let mut buffer = [0; http::HEAD_MAX];
    loop {
        if let Some(request) = http::parse(&request) {
            return Ok(request);
        }
        let room = buffer.len().min(http::HEAD_MAX + 1 - request.len());
        let count = receive(socket, &mut buffer[..room], until)?;
        if count == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        request.extend_from_slice(&buffer[..count]);
    }
}

fn send(mut socket: &Socket, mut bytes: &[u8], until: Instant) -> io::Result<()> {
    while !bytes.is_empty() {
        socket.set_write_timeout(left(until)?)?;
        match socket.write(bytes)? {
            0 => return Err(ErrorKind::WriteZero.into()),
            count => bytes = &bytes[count..],
        }
    }
    Ok(())
}
