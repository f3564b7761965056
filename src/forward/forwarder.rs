//! The loop: signals, the server, clients, and the connections.

use super::connect::{Connecting, connect, is_connected, is_exhausted, new_socket};
use super::flow::Side;
use super::link::{Link, Means, Turn, reset};
use super::options::{Ended, Forwarding};
use super::pipes::Pipes;
use super::proxy;
use super::server::Server;
use super::setup::{block_signals, choose_port, raise_open_files};
use super::timers::Timers;
use crate::sys;
use nix::errno::Errno;
use nix::libc;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use socket2::{Domain, SockAddr, Socket, TcpKeepalive};
use std::collections::VecDeque;
use std::io;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

/// The size of the buffer for what is copied.
const BUFFER: usize = 64 * 1024;
/// The number of events that one wait returns.
const EVENTS: usize = 256;
/// The number of clients that are accepted before others have their turn.
const ACCEPT_MAX: usize = 64;
/// The first and the longest pause before the server is tried again.
const RETRY: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(100));
/// The longest time that one attempt to reach a starting server may take.
const PROBE_TIME: Duration = Duration::from_secs(1);
/// The pause in accepting where the machine lacks something, unless a connection ends before.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);
/// The time between two lines about that in the log.
const COMPLAINT: Duration = Duration::from_secs(60);
/// The number of unanswered questions of TCP after which the other end counts as gone.
const KEEP_ALIVE_RETRIES: u32 = 3;

/// The tokens of epoll: from here on twice the index of a slot, plus that of the side.
const SIGNALS: u64 = 0;
const PROBE: u64 = 1;
const LISTENERS: u64 = 2;
const SLOTS: u64 = 1 << 32;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Timer {
    /// The server is tried again, while it starts.
    Probe,
    /// Accepting is tried again.
    Accept,
    /// Connections have had their time.
    Drain,
    /// The service manager is told that the loop runs.
    Watchdog,
    /// A connection: the server is tried again, or the time is over, or it may be idle.
    Slot(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The server has been started and does not answer yet.
    Starting,
    /// Clients are accepted.
    Serving,
    /// No client is accepted any more; connections may end by themselves.
    Draining,
    /// The server was asked to stop.
    Stopping,
    /// The server has ended by itself, and what it has sent is delivered.
    Orphaned(ExitStatus),
}

/// A client whose server is not reached yet. Nothing that it has sent was taken.
#[derive(Debug)]
struct Waiting {
    client: Socket,
    /// The connection under way.
    server: Option<Socket>,
    /// What the server is told first.
    header: Vec<u8>,
    /// The index of the address that is tried.
    address: usize,
    until: Instant,
    pause: Duration,
}

#[derive(Debug)]
enum Slot {
    Waiting(Waiting),
    Linked(Link),
}

/// Whether epoll knows the server's socket.
struct IsWatched(bool);

/// Forwards until it is asked to stop, or the server ends. `tell` tells the service manager (sd_notify(3)).
///
/// # Errors
///
/// The server could not be started, or the loop could not be set up.
pub fn serve(forwarding: Forwarding, tell: &mut dyn FnMut(&str)) -> io::Result<Ended> {
    Forwarder::new(forwarding, tell)?.run()
}

struct Forwarder<'t> {
    to: Forwarding,
    tell: &'t mut dyn FnMut(&str),
    epoll: Epoll,
    signals: SignalFd,
    server: Option<Server>,
    phase: Phase,
    /// An attempt to reach the starting server.
    probe: Option<Socket>,
    /// The index of the address that it is made to.
    probe_address: usize,
    probe_pause: Duration,
    /// The connections, by number. The second list is of numbers that become free at the end of the turn, so
    /// that no event is taken for another's.
    slots: Vec<Option<Slot>>,
    free: Vec<usize>,
    freed: Vec<usize>,
    /// Connections with more work than fits into one turn.
    busy: VecDeque<usize>,
    timers: Timers<Timer>,
    means: Means,
    /// A socket for the next client's server: without one nobody is accepted.
    spare: Option<Socket>,
    is_accepting: bool,
    is_paused: bool,
    complained: Option<Instant>,
}

impl<'t> Forwarder<'t> {
    pub fn new(mut to: Forwarding, tell: &'t mut dyn FnMut(&str)) -> io::Result<Forwarder<'t>> {
        // Before the server is there, so that its end is not missed.
        let mask = block_signals()?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let signals = SignalFd::with_flags(&mask, flags)?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(&signals, EpollEvent::new(EpollFlags::EPOLLIN, SIGNALS))?;
        let port = choose_port(&mut to.to)?;
        let server = match &to.program {
            None => None,
            Some(program) => Some(Server::start(program, port)?),
        };
        raise_open_files();
        Ok(Forwarder {
            phase: match server {
                Some(_) => Phase::Starting,
                None => Phase::Serving,
            },
            to,
            tell,
            epoll,
            signals,
            server,
            probe: None,
            probe_address: 0,
            probe_pause: RETRY.0,
            slots: Vec::new(),
            free: Vec::new(),
            freed: Vec::new(),
            busy: VecDeque::new(),
            timers: Timers::new(),
            means: Means {
                pipes: Pipes::default(),
                buffer: vec![0; BUFFER].into(),
            },
            spare: None,
            is_accepting: false,
            is_paused: false,
            complained: None,
        })
    }

    fn run(mut self) -> io::Result<Ended> {
        let now = Instant::now();
        if let Some(interval) = self.to.watchdog {
            self.timers.set(Timer::Watchdog, now + interval / 2);
        }
        match self.phase {
            Phase::Starting => self.probe(now),
            _ => (self.tell)("READY=1"),
        }
        let mut events = vec![EpollEvent::empty(); EVENTS];
        loop {
            self.watch_listeners()?;
            if let Some(ended) = self.is_over() {
                return Ok(ended);
            }
            let count = match self.epoll.wait(&mut events, self.timeout()) {
                Err(Errno::EINTR) => 0,
                other => other?,
            };
            let now = Instant::now();
            // What a turn leaves to do is done after what has come up meanwhile.
            let busy = self.busy.len();
            for event in &events[..count] {
                self.on_event(event.data(), event.events(), now);
            }
            for _ in 0..busy {
                if let Some(slot) = self.busy.pop_front() {
                    self.turn(slot, now);
                }
            }
            while let Some(timer) = self.timers.due(now) {
                self.on_timer(timer, now);
            }
            self.free.append(&mut self.freed);
        }
    }

    fn timeout(&self) -> EpollTimeout {
        if !self.busy.is_empty() {
            return EpollTimeout::ZERO;
        }
        let Some(at) = self.timers.next() else {
            return EpollTimeout::NONE;
        };
        // Rounded up: a wait that ends early would only be repeated.
        let left = at.saturating_duration_since(Instant::now()) + Duration::from_micros(999);
        EpollTimeout::try_from(left).unwrap_or(EpollTimeout::MAX)
    }

    fn on_event(&mut self, token: u64, flags: EpollFlags, now: Instant) {
        match token {
            SIGNALS => self.on_signals(now),
            PROBE => self.probe_answered(now),
            SLOTS.. => {
                // Both were made from an index.
                let number = (token - SLOTS) as usize;
                self.on_socket(number / 2, Side::BOTH[number % 2], flags, now);
            }
            _ => self.accept((token - LISTENERS) as usize, now),
        }
    }

    fn on_timer(&mut self, timer: Timer, now: Instant) {
        match timer {
            Timer::Probe => {
                if self.phase == Phase::Starting {
                    self.probe(now);
                }
            }
            Timer::Accept => self.is_paused = false,
            Timer::Drain => match self.phase {
                Phase::Draining => self.stop_server(now),
                _ => self.end_all(),
            },
            Timer::Watchdog => {
                (self.tell)("WATCHDOG=1");
                if let Some(interval) = self.to.watchdog {
                    self.timers.set(Timer::Watchdog, now + interval / 2);
                }
            }
            Timer::Slot(slot) => self.on_slot_timer(slot, now),
        }
    }

    // The server.

    fn on_signals(&mut self, now: Instant) {
        while let Ok(Some(info)) = self.signals.read_signal() {
            // A number of a signal, 64 at most.
            let signal = info.ssi_signo as i32;
            let asks = signal == libc::SIGTERM || signal == self.to.stop_signal;
            match (signal, &self.server) {
                (libc::SIGCHLD, _) => {}
                _ if asks => self.stop(now),
                (libc::SIGINT, None) => self.stop(now),
                (_, Some(server)) => server.signal(signal),
                (_, None) => {}
            }
        }
        // SIGCHLD may stand for several, and for what the stop has to know.
        self.look_at_server(now);
    }

    fn look_at_server(&mut self, now: Instant) {
        let Some(status) = self.server.as_mut().and_then(Server::ended) else {
            return;
        };
        self.server = None;
        match self.phase {
            Phase::Draining | Phase::Stopping => self.phase = Phase::Stopping,
            _ => {
                let when = match self.phase {
                    Phase::Starting => " before it answered",
                    _ => "",
                };
                log::error!("the server has ended{when}: {status}");
                self.phase = Phase::Orphaned(status);
            }
        }
        self.probe = None;
        self.timers.set(Timer::Drain, now + self.to.drain);
        self.end_where(|slot| matches!(slot, Slot::Waiting(_)));
    }

    /// Asked to stop: for the first time, or again.
    fn stop(&mut self, now: Instant) {
        match self.phase {
            Phase::Starting | Phase::Serving => {
                (self.tell)("STOPPING=1");
                let open = self.open();
                log::info!("stopping; {open} connections are open");
                self.phase = Phase::Draining;
                self.probe = None;
                if self.server.is_some() {
                    self.timers.set(Timer::Drain, now + self.to.drain);
                }
            }
            Phase::Draining => self.stop_server(now),
            Phase::Stopping | Phase::Orphaned(_) => {
                if let Some(server) = &self.server {
                    server.stop();
                }
            }
        }
    }

    fn stop_server(&mut self, now: Instant) {
        self.phase = Phase::Stopping;
        match &self.server {
            Some(server) => {
                self.timers.cancel(Timer::Drain);
                server.stop();
            }
            None => self.timers.set(Timer::Drain, now),
        }
    }

    /// Whether nothing is left to be done.
    fn is_over(&mut self) -> Option<Ended> {
        let is_idle = self.open() == 0;
        match self.phase {
            Phase::Draining if is_idle => {
                self.stop_server(Instant::now());
                self.server.is_none().then_some(Ended::Stopped)
            }
            Phase::Stopping if is_idle && self.server.is_none() => Some(Ended::Stopped),
            Phase::Orphaned(status) if is_idle => Some(Ended::Server(status)),
            _ => None,
        }
    }

    /// Tries to reach the server that starts, at each of its addresses.
    fn probe(&mut self, now: Instant) {
        self.probe_address = 0;
        self.probe_next(now);
    }

    fn probe_next(&mut self, now: Instant) {
        self.probe = None;
        while let Some(address) = self.to.to.get(self.probe_address) {
            if let Ok(socket) = new_socket(address) {
                match connect(&socket, address) {
                    Connecting::Done => return self.server_answers(),
                    Connecting::UnderWay => {
                        let event = EpollEvent::new(EpollFlags::EPOLLOUT, PROBE);
                        if self.epoll.add(&socket, event).is_ok() {
                            self.timers.set(Timer::Probe, now + PROBE_TIME);
                            self.probe = Some(socket);
                            return;
                        }
                    }
                    Connecting::Failed => {}
                }
            }
            self.probe_address += 1;
        }
        self.timers.set(Timer::Probe, now + self.probe_pause);
        self.probe_pause = (self.probe_pause * 2).min(RETRY.1);
    }

    fn probe_answered(&mut self, now: Instant) {
        let address = self.to.to.get(self.probe_address);
        if let Some((socket, address)) = self.probe.take().zip(address) {
            if is_connected(&socket, address) {
                return self.server_answers();
            }
            self.probe_address += 1;
            drop(socket);
            self.probe_next(now);
        }
    }

    fn server_answers(&mut self) {
        self.timers.cancel(Timer::Probe);
        self.phase = Phase::Serving;
        (self.tell)("READY=1");
    }

    // Clients.

    /// Watches the listeners as long as clients can be accepted.
    fn watch_listeners(&mut self) -> io::Result<()> {
        let wanted = self.phase == Phase::Serving && !self.is_paused;
        if wanted != self.is_accepting {
            for (listener, token) in self.to.listeners.iter().zip(LISTENERS..) {
                if wanted {
                    // One of several forwarders is woken for each client.
                    let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLEXCLUSIVE;
                    self.epoll.add(listener, EpollEvent::new(flags, token))?;
                } else {
                    self.epoll.delete(listener)?;
                }
            }
            self.is_accepting = wanted;
        }
        if !matches!(self.phase, Phase::Starting | Phase::Serving) {
            // The queue is the successor's.
            self.to.listeners.clear();
        }
        Ok(())
    }

    fn accept(&mut self, index: usize, now: Instant) {
        for _ in 0..ACCEPT_MAX {
            if self.phase != Phase::Serving || self.is_paused {
                return;
            }
            if self.spare.is_none() {
                let Some(address) = self.to.to.first() else {
                    return;
                };
                match new_socket(address) {
                    Ok(socket) => self.spare = Some(socket),
                    Err(error) => return self.pause(&error, now),
                }
            }
            let Some(listener) = self.to.listeners.get(index) else {
                return;
            };
            match listener.accept4(libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK) {
                Ok((client, peer)) => self.admit(client, &peer, now),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if is_exhausted(&error) => return self.pause(&error, now),
                // An error of the client, which has gone.
                Err(_) => {}
            }
        }
    }

    /// Accepts nobody until a connection has ended, or a while has passed.
    fn pause(&mut self, error: &io::Error, now: Instant) {
        self.is_paused = true;
        self.timers.set(Timer::Accept, now + ACCEPT_PAUSE);
        let is_told = |at: Instant| now.duration_since(at) < COMPLAINT;
        if !self.complained.is_some_and(is_told) {
            self.complained = Some(now);
            let open = self.open();
            let errno = Errno::from_raw(error.raw_os_error().unwrap_or(0));
            log::warn!(
                "cannot accept further clients: {} ({errno:?}); {open} connections are open, and others wait in \
                 the queue until one ends",
                errno.desc()
            );
        }
    }

    fn admit(&mut self, client: Socket, peer: &SockAddr, now: Instant) {
        let header = match self.to.proxy {
            None => Vec::new(),
            Some(version) => match client.local_addr() {
                Ok(local) => proxy::header(version, peer, &local),
                // The client has gone.
                Err(_) => return,
            },
        };
        if peer.is_unix() {
            // Descriptors are not passed on, and the sender is to know.
            sys::refuse_descriptors(&client);
        }
        self.set_options(&client, peer.domain());
        let waiting = Waiting {
            client,
            server: None,
            header,
            address: 0,
            until: now + self.to.connect_timeout,
            pause: RETRY.0,
        };
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        self.connect(slot, waiting, now);
    }

    fn set_options(&self, socket: &Socket, domain: Domain) {
        if !matches!(domain, Domain::IPV4 | Domain::IPV6) {
            return;
        }
        // What comes in small pieces was meant to.
        let _set = socket.set_tcp_nodelay(true);
        if let Some(time) = self.to.keep_alive {
            let settings = TcpKeepalive::new().with_time(time);
            let interval = (time / KEEP_ALIVE_RETRIES).max(Duration::from_secs(1));
            let settings = settings.with_interval(interval);
            let _set = socket.set_tcp_keepalive(&settings.with_retries(KEEP_ALIVE_RETRIES));
        }
    }

    /// Tries to reach the server for a client, at the address that is next.
    fn connect(&mut self, slot: usize, mut waiting: Waiting, now: Instant) {
        while let Some(address) = self.to.to.get(waiting.address) {
            let spare = self.spare.take().filter(|_| waiting.address == 0);
            let socket = match spare.map_or_else(|| new_socket(address), Ok) {
                Ok(socket) => socket,
                Err(_) => break,
            };
            self.set_options(&socket, address.domain());
            let is_connected = match connect(&socket, address) {
                Connecting::Done => true,
                // On this machine it is established by now, unless the server's queue is full.
                Connecting::UnderWay => {
                    socket.peer_addr().is_ok() && is_connected(&socket, address)
                }
                Connecting::Failed => {
                    waiting.address += 1;
                    continue;
                }
            };
            if is_connected {
                return self.link(slot, waiting, socket, IsWatched(false), now);
            }
            let flags = EpollFlags::EPOLLOUT | EpollFlags::EPOLLET;
            if self
                .epoll
                .add(&socket, event(flags, slot, Side::Server))
                .is_err()
            {
                break;
            }
            waiting.server = Some(socket);
            self.timers.set(Timer::Slot(slot), waiting.until);
            self.slots[slot] = Some(Slot::Waiting(waiting));
            return;
        }
        self.try_later(slot, waiting, now);
    }

    /// No address answers: they are all tried again, unless the time is over.
    fn try_later(&mut self, slot: usize, mut waiting: Waiting, now: Instant) {
        let is_hopeless = matches!(self.phase, Phase::Orphaned(_))
            || (self.phase == Phase::Stopping && self.server.is_none());
        if is_hopeless || now >= waiting.until {
            reset(&waiting.client);
            drop(waiting);
            return self.release(slot);
        }
        let at = (now + waiting.pause).min(waiting.until);
        waiting.pause = (waiting.pause * 2).min(RETRY.1);
        waiting.address = 0;
        waiting.server = None;
        self.timers.set(Timer::Slot(slot), at);
        self.slots[slot] = Some(Slot::Waiting(waiting));
    }

    /// The server is reached: bytes may flow.
    fn link(
        &mut self,
        slot: usize,
        waiting: Waiting,
        server: Socket,
        IsWatched(is_watched): IsWatched,
        now: Instant,
    ) {
        if !waiting.header.is_empty() {
            // The buffer of a new connection has room for all of it.
            let sent = server.send_with_flags(&waiting.header, libc::MSG_NOSIGNAL);
            if sent.ok() != Some(waiting.header.len()) {
                return self.try_later(slot, waiting, now);
            }
        }
        let both = EpollFlags::EPOLLIN
            | EpollFlags::EPOLLOUT
            | EpollFlags::EPOLLRDHUP
            | EpollFlags::EPOLLET;
        let client = waiting.client;
        let watched = self.epoll.add(&client, event(both, slot, Side::Client));
        let mut theirs = event(both, slot, Side::Server);
        let watched = watched.and_then(|()| match is_watched {
            false => self.epoll.add(&server, theirs),
            true => self.epoll.modify(&server, &mut theirs),
        });
        if watched.is_err() {
            // ENOSPC: more than fs.epoll.max_user_watches.
            reset(&client);
            return self.release(slot);
        }
        match self.to.idle {
            Some(idle) => self.timers.set(Timer::Slot(slot), now + idle),
            None => self.timers.cancel(Timer::Slot(slot)),
        }
        self.slots[slot] = Some(Slot::Linked(Link::new(client, server, now)));
        self.turn(slot, now);
    }

    fn on_socket(&mut self, slot: usize, side: Side, flags: EpollFlags, now: Instant) {
        match self.slots.get_mut(slot).and_then(Option::as_mut) {
            // Ended in this turn.
            None => {}
            Some(Slot::Linked(link)) => {
                let has = |flag| flags.intersects(flag);
                let gone = has(EpollFlags::EPOLLERR);
                let ends = EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLHUP;
                link.note(side, has(ends), has(EpollFlags::EPOLLOUT), gone);
                if !link.is_queued {
                    self.turn(slot, now);
                }
            }
            Some(Slot::Waiting(_)) => {
                let Some(Some(Slot::Waiting(mut waiting))) =
                    self.slots.get_mut(slot).map(Option::take)
                else {
                    return;
                };
                let address = self.to.to.get(waiting.address);
                let both = waiting.server.as_ref().zip(address);
                if !both.is_some_and(|(socket, address)| is_connected(socket, address)) {
                    waiting.server = None;
                    waiting.address += 1;
                    return self.connect(slot, waiting, now);
                }
                match waiting.server.take() {
                    None => self.try_later(slot, waiting, now),
                    Some(server) => self.link(slot, waiting, server, IsWatched(true), now),
                }
            }
        }
    }

    fn on_slot_timer(&mut self, slot: usize, now: Instant) {
        let Some(found) = self.slots.get_mut(slot) else {
            return;
        };
        match found.take() {
            None => {}
            Some(Slot::Linked(link)) => {
                let idle = self.to.idle.unwrap_or(Duration::MAX);
                if now.saturating_duration_since(link.last) >= idle {
                    link.close_idle(&mut self.means.pipes);
                    return self.release(slot);
                }
                if let Some(next) = link.last.checked_add(idle) {
                    self.timers.set(Timer::Slot(slot), next);
                }
                *found = Some(Slot::Linked(link));
            }
            Some(Slot::Waiting(mut waiting)) => {
                // The time of an attempt is over with that of all of them.
                waiting.server = None;
                if now >= waiting.until {
                    self.try_later(slot, waiting, now);
                } else {
                    self.connect(slot, waiting, now);
                }
            }
        }
    }

    // Connections.

    fn turn(&mut self, slot: usize, now: Instant) {
        let Some(Some(Slot::Linked(link))) = self.slots.get_mut(slot) else {
            return;
        };
        let turn = link.turn(&mut self.means, now);
        link.is_queued = turn == Turn::Busy;
        match turn {
            Turn::Waits => {}
            Turn::Busy => self.busy.push_back(slot),
            Turn::Over => self.end(slot),
        }
    }

    /// Ends a connection, or the waiting of a client.
    fn end(&mut self, slot: usize) {
        match self.slots.get_mut(slot).and_then(Option::take) {
            None => return,
            Some(Slot::Linked(link)) => link.close(&mut self.means.pipes),
            Some(Slot::Waiting(waiting)) => reset(&waiting.client),
        }
        self.timers.cancel(Timer::Slot(slot));
        self.release(slot);
    }

    /// Gives the number of a connection back, whose sockets are closed.
    fn release(&mut self, slot: usize) {
        self.timers.cancel(Timer::Slot(slot));
        self.freed.push(slot);
        if self.is_paused {
            self.timers.cancel(Timer::Accept);
            self.is_paused = false;
        }
    }

    fn end_where(&mut self, which: impl Fn(&Slot) -> bool) {
        for slot in 0..self.slots.len() {
            if self.slots[slot].as_ref().is_some_and(&which) {
                self.end(slot);
            }
        }
    }

    fn end_all(&mut self) {
        self.end_where(|_| true);
    }

    fn open(&self) -> usize {
        self.slots.len() - self.free.len() - self.freed.len()
    }
}

fn event(flags: EpollFlags, slot: usize, side: Side) -> EpollEvent {
    EpollEvent::new(flags, SLOTS + (slot * 2 + side.index()) as u64)
}
