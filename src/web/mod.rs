//! Answers HTTP for the daemon, in a process of its own: `listend web`, the worker of `web:` and
//! `metrics:`.
//!
//! A thread for each client, of which there are few, and one that looks at the daemon for all who watch
//! (`live`). A client that is slow, silent or broken costs its own place, and loses it after a while.

pub mod http;
mod live;
mod page;
mod state;
mod trouble;
mod usage;

use crate::control::{Status, Worker};
use crate::{metrics, sys};
use http::{Format, Refused, Request, Site, Watch};
pub use live::Lines;
use live::Live;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::Deserialize;
use serde_json::value::RawValue;
use socket2::Socket;
use state::{News, SHOWN};
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// The largest number of clients served at a time.
const CLIENTS_MAX: usize = 64;
/// The longest time for one client; one that watches has it for each message.
const CLIENT_TIME: Duration = Duration::from_secs(10);
/// What TCP has sent and was not acknowledged in this time has nobody at the other end.
const GONE_TIME: Duration = Duration::from_secs(30);
/// The pause in accepting after there was no place, descriptor or memory, in milliseconds. Until then
/// clients wait in the accept queue.
const ACCEPT_PAUSE: u16 = 50;
/// So many rollouts are shown in detail at a time.
const ROLLING_MAX: usize = 8;
/// With the daemon gone, clients have so long to take what they get instead of an answer: the next process comes after
/// this one.
const FAREWELL_TIME: Duration = Duration::from_secs(2);
/// A thread needs no more: pages are on the heap.
const STACK: usize = 512 * 1024;

/// Who asks the daemon. An error ends it all; what the daemon refuses is none.
pub trait Ask: Send {
    /// The metrics, as OpenMetrics text.
    ///
    /// # Errors
    ///
    /// The daemon did not answer.
    fn metrics(&mut self) -> io::Result<String>;

    /// The status, or that of the worker with this name if there is one.
    ///
    /// # Errors
    ///
    /// See [`Ask::metrics`].
    fn status(&mut self, name: Option<&str>) -> io::Result<Option<Box<RawValue>>>;

    /// The last events; `None` from a daemon that does not keep them.
    ///
    /// # Errors
    ///
    /// See [`Ask::metrics`].
    fn events(&mut self) -> io::Result<Option<Vec<Box<RawValue>>>>;

    /// So many of the last lines of a worker.
    ///
    /// # Errors
    ///
    /// See [`Ask::metrics`].
    fn lines(&mut self, worker: &str, count: usize) -> io::Result<Lines>;
}

/// What is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Serve {
    /// The page, what it shows, and the metrics.
    Everything,
    /// The metrics.
    Metrics,
}

/// Answers clients at these listeners, which do not block, until the connection to the daemon is
/// closed, or there is something to read at `stop`: then those that are there, and no others.
///
/// # Errors
///
/// The daemon did not answer, or poll(2) failed.
pub fn serve(
    listeners: &[Socket],
    daemon: &Socket,
    stop: &impl AsFd,
    what: Serve,
    ask: impl Ask + 'static,
) -> io::Result<()> {
    // gethostname(2) is this file (proc_sys_kernel(5)).
    let machine = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let server = Arc::new(Server {
        daemon: daemon.try_clone()?,
        what,
        machine: machine.trim().to_owned(),
        pages: Mutex::new(Pages {
            ask: Box::new(ask),
            last: None,
            broken: None,
        }),
        live: Live::new(),
        clients: Mutex::default(),
        answered: Condvar::new(),
        is_leaving: AtomicBool::new(false),
    });
    if what == Serve::Everything {
        let server = Arc::clone(&server);
        let look = move || server.look_for_all();
        thread::Builder::new().stack_size(STACK).spawn(look)?;
    }
    // That it hangs up is told unasked.
    let mut waiting_for = vec![
        PollFd::new(daemon.as_fd(), PollFlags::empty()),
        PollFd::new(stop.as_fd(), PollFlags::POLLIN),
    ];
    let accepting = |listener| PollFd::new(Socket::as_fd(listener), PollFlags::POLLIN);
    waiting_for.extend(listeners.iter().map(accepting));
    loop {
        match poll(&mut waiting_for, PollTimeout::NONE) {
            Err(nix::errno::Errno::EINTR) => continue,
            other => other?,
        };
        let ready = |polled: &PollFd| polled.any().unwrap_or(true);
        if waiting_for.first().is_some_and(ready) {
            server.leave(FAREWELL_TIME);
            return server.pages().broken.take().map_or(Ok(()), Err);
        }
        if waiting_for.get(1).is_some_and(ready) {
            server.leave(CLIENT_TIME);
            return Ok(());
        }
        for (listener, polled) in listeners.iter().zip(waiting_for.iter().skip(2)) {
            if ready(polled) && !server.accept(listener) {
                // Level-triggered, it would be tried again at once.
                let _woken = poll(&mut waiting_for[..2], ACCEPT_PAUSE);
                break;
            }
        }
    }
}

/// The state that the threads share.
struct Server {
    daemon: Socket,
    what: Serve,
    /// The name of this machine.
    machine: String,
    pages: Mutex<Pages>,
    live: Live,
    clients: Mutex<Clients>,
    /// A client has its answer, or has gone.
    answered: Condvar,
    /// Whether nobody is to wait for anything more.
    is_leaving: AtomicBool,
}

/// The last answer of the daemon.
struct Pages {
    ask: Box<dyn Ask>,
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
    /// Whether it has the whole answer.
    is_answered: bool,
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
            server.answered.notify_all();
        };
        if let Err(error) = thread::Builder::new().stack_size(STACK).spawn(converse) {
            log::warn!("web: cannot start a thread: {error}");
            self.clients().open.remove(&number);
        }
        true
    }

    /// Waits until all clients have their answers, but not for longer.
    fn leave(&self, limit: Duration) {
        self.is_leaving.store(true, Ordering::Relaxed);
        let some = |clients: &mut Clients| clients.open.values().any(|one| !one.is_answered);
        let _waited = self
            .answered
            .wait_timeout_while(self.clients(), limit, some);
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
            is_answered: false,
        };
        clients.open.insert(number, client);
        number
    }

    /// Changes what is known of a client.
    fn note(&self, number: u64, change: impl FnOnce(&mut Client)) {
        if let Some(client) = self.clients().open.get_mut(&number) {
            change(client);
        }
    }

    /// Reads a request and answers it.
    fn converse(&self, number: u64, socket: &Socket) -> io::Result<()> {
        let until = Instant::now() + CLIENT_TIME;
        let is_unix = socket.local_addr().is_ok_and(|address| address.is_unix());
        let site = Site {
            has_page: self.what == Serve::Everything,
            called: (!is_unix).then_some(self.machine.as_str()),
        };
        let request = read_request(socket, site, until)?;
        self.note(number, |client| client.waits = true);
        match request {
            Request::Refused(why) => send(socket, &why.answer(), until)?,
            Request::Metrics { format, head_only } => {
                let Ok(page) = self.page() else {
                    return send(socket, &Refused::NoDaemon.answer(), until);
                };
                let body = match format {
                    Format::OpenMetrics => page,
                    Format::Plain => metrics::plain(&page).into(),
                };
                let head = http::found(format, body.len());
                answer(socket, &head, body.as_bytes(), head_only, until)?;
            }
            Request::Page { head_only } => {
                let body = page::HTML.as_bytes();
                answer(socket, &http::found_page(), body, head_only, until)?;
            }
            Request::Status { head_only } => {
                let Ok(Some(status)) = self.ask(|ask| ask.status(None)) else {
                    return send(socket, &Refused::NoDaemon.answer(), until);
                };
                let body = status.get().as_bytes();
                let head = http::found_status(body.len());
                answer(socket, &head, body, head_only, until)?;
            }
            Request::Events(watch) => self.tell(socket, watch, until)?,
        }
        // It is to see the end before the connection is closed: closing with something unread would
        // reset it, and could destroy the answer on its way (RFC 9112, 9.6).
        socket.shutdown(Shutdown::Write)?;
        self.note(number, |client| {
            (client.waits, client.is_answered) = (false, true)
        });
        self.answered.notify_all();
        let until = Instant::now() + CLIENT_TIME;
        while receive(socket, &mut [0; 4096], until)? > 0 {}
        Ok(())
    }

    /// Tells a client what there is and what changes, until it goes.
    fn tell(&self, socket: &Socket, watch: Watch, until: Instant) -> io::Result<()> {
        if watch.head_only {
            return send(socket, &http::found_events(), until);
        }
        let Some(mut watcher) = self.live.enter(watch.since.as_deref(), watch.lines) else {
            return send(socket, &Refused::TooManyWatch.answer(), until);
        };
        // Other kinds of sockets notice it themselves.
        let _no_tcp = socket.set_tcp_user_timeout(Some(GONE_TIME));
        send(socket, &http::found_events(), until)?;
        while !has_gone(socket) && !self.is_leaving.load(Ordering::Relaxed) {
            if let Some(message) = watcher.next() {
                send(socket, message.as_bytes(), Instant::now() + CLIENT_TIME)?;
            }
        }
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
        let page: Arc<str> = self.asked(&mut pages, |ask| ask.metrics())?.into();
        pages.last = Some((asked, Arc::clone(&page)));
        Ok(page)
    }

    /// Asks the daemon; others wait meanwhile.
    fn ask<T>(&self, ask: impl FnOnce(&mut dyn Ask) -> io::Result<T>) -> io::Result<T> {
        self.asked(&mut self.pages(), ask)
    }

    fn asked<T>(
        &self,
        pages: &mut Pages,
        ask: impl FnOnce(&mut dyn Ask) -> io::Result<T>,
    ) -> io::Result<T> {
        ask(&mut *pages.ask).inspect_err(|error| {
            let again = io::Error::new(error.kind(), error.to_string());
            pages.broken.get_or_insert(again);
            // Another worker gets another connection.
            let _gone = self.daemon.shutdown(Shutdown::Both);
        })
    }

    /// The details of workers whose instances are of several generations, by their place.
    fn rolling(&self, status: &Status) -> io::Result<BTreeMap<usize, Box<RawValue>>> {
        #[derive(Deserialize)]
        struct One {
            workers: Vec<Box<RawValue>>,
        }
        let is_rolling = |worker: &Worker| {
            let mut instances = worker.instances.iter();
            instances.any(|instance| instance.generation != worker.generation)
        };
        let workers = status.workers.iter().enumerate();
        let rolling = workers.filter(|(_, worker)| is_rolling(worker));
        let mut details = BTreeMap::new();
        for (at, worker) in rolling.take(ROLLING_MAX) {
            let one = self.ask(|ask| ask.status(Some(&worker.name)))?;
            let one = one.map(|one| serde_json::from_str::<One>(one.get()));
            let row = one
                .transpose()?
                .and_then(|one| one.workers.into_iter().next());
            details.extend(row.map(|row| (at, row)));
        }
        Ok(details)
    }

    /// Looks at the daemon for all who watch.
    fn look_for_all(&self) {
        let mut meter = usage::Meter::default();
        let error = self.live.look_for_all(|wanted| {
            let status = self
                .ask(|ask| ask.status(None))?
                .ok_or(ErrorKind::NotFound)?;
            let mut parsed: Status = serde_json::from_str(status.get())?;
            let rolling = self.rolling(&parsed)?;
            let events = self.ask(|ask| ask.events())?;
            let lines = wanted
                .iter()
                .map(|worker| self.ask(|ask| ask.lines(worker, SHOWN)));
            let lines = lines.collect::<io::Result<_>>()?;
            let usage = meter.read(&mut parsed);
            let news = News {
                status,
                rolling,
                events,
                usage,
            };
            Ok((news, lines))
        });
        self.pages().broken.get_or_insert(error);
        let _gone = self.daemon.shutdown(Shutdown::Both);
    }
}

/// Whether the client has closed its end, or is not there any more. What it sends is not wanted.
fn has_gone(mut socket: &Socket) -> bool {
    let mut polled = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
    let ready = poll(&mut polled, PollTimeout::ZERO).is_ok_and(|count| count > 0);
    ready && !socket.read(&mut [0; 4096]).is_ok_and(|count| count > 0)
}

fn answer(
    socket: &Socket,
    head: &[u8],
    body: &[u8],
    head_only: bool,
    until: Instant,
) -> io::Result<()> {
    send(socket, head, until)?;
    match head_only {
        true => Ok(()),
        false => send(socket, body, until),
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

fn read_request(socket: &Socket, site: Site, until: Instant) -> io::Result<Request> {
    let mut request = Vec::new();
    let mut buffer = [0; http::HEAD_MAX];
    loop {
        if let Some(request) = http::parse(&request, site) {
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
