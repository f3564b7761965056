//! Serves the metrics: takes scrapers' requests, samples, renders, answers; a little in each turn.
//!
//! Nobody is waited for. A scraper that is slow, silent or broken costs its own place, of which
//! there are few, and loses it after a while. Without `metrics:` there is no socket, and nothing of
//! this runs but the counters.

use super::clock;
use super::definitions::name_before;
use super::token::Token;
use super::turn::Shell;
use crate::core::{ListenerCondition, Mono, State};
use crate::listener::{self, BoundSocket, Depth, DepthReader, Unit};
use crate::metrics::http::{self, Refused, Request};
use crate::metrics::{
    Counters, DaemonRow, Format, ListenerRow, Notices, Page, Rendering, SocketRow, States,
    WorkerRow,
};
use crate::plan::{Activation, ListenerId, SocketKey, WorkerId};
use crate::sys::{self, SharedFd};
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::socket::{MsgFlags, Shutdown, send, shutdown};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// How many scrapers are served at a time.
const SCRAPERS_MAX: usize = 32;
/// How long one may take for everything.
const SCRAPER_TIME: Duration = Duration::from_secs(10);
/// When accepting is tried again after it failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);
/// How much is sent to one in one turn.
const SENT_AT_ONCE: usize = 256 * 1024;
/// How many listeners are sampled in one turn, each at the cost of a few system calls.
const LISTENERS_AT_ONCE: usize = 256;

/// What the metrics need to keep.
pub(super) struct Metrics {
    pub(super) counters: Counters,
    /// When listend started, since the epoch.
    started: Duration,
    /// By number, so that the first one came first.
    scrapers: BTreeMap<u32, Scraper>,
    next: u32,
    /// What is being made for those who wait.
    job: Option<Job>,
    /// The sockets that are not accepted from, and until when.
    paused: Option<(Mono, Vec<SocketKey>)>,
}

/// Somebody who asks for the metrics.
struct Scraper {
    connection: SharedFd,
    /// When it is given up.
    until: Mono,
    stage: Stage,
}

enum Stage {
    /// Its request is on its way.
    Asking(Vec<u8>),
    /// It waits for the metrics; `joined` if what is being made now is for it.
    Waiting {
        format: Format,
        head_only: bool,
        joined: bool,
    },
    /// The answer is on its way: the head, then the body, which several may share.
    Answering {
        head: Vec<u8>,
        body: Rc<str>,
        sent: usize,
    },
    /// It has everything, and is to see the end before the connection is closed: closing with
    /// something unread would reset it, and could destroy the answer on its way (RFC 9112, 9.6).
    Leaving,
}

/// The text of one scrape in the making. Each [`Job::step`] takes a small part of a turn.
pub(super) struct Job {
    format: Format,
    making: Making,
}

enum Making {
    Sampling(Box<Sampling>),
    Rendering(Rendering),
}

/// A page that is being filled.
#[derive(Default)]
struct Sampling {
    page: Page,
    /// The listeners from this one on are to be looked at.
    next: u32,
    queues: DepthReader,
}

impl Metrics {
    pub(super) fn new() -> Metrics {
        Metrics {
            counters: Counters::default(),
            started: clock::wall(),
            scrapers: BTreeMap::new(),
            next: 0,
            job: None,
            paused: None,
        }
    }

    /// When to come back without being asked: at once, as long as somebody waits.
    pub(super) fn deadline(&self) -> Option<Mono> {
        let mut stages = self.scrapers.values().map(|scraper| &scraper.stage);
        if stages.any(|stage| matches!(stage, Stage::Waiting { .. })) {
            return Some(Mono(0));
        }
        let times = self.scrapers.values().map(|scraper| scraper.until);
        times.chain(self.paused.iter().map(|(at, _)| *at)).min()
    }

    /// Whether what is being made is for somebody who is still there.
    fn is_awaited(&self) -> bool {
        let mut stages = self.scrapers.values().map(|scraper| &scraper.stage);
        stages.any(|stage| matches!(stage, Stage::Waiting { joined: true, .. }))
    }
}

impl Job {
    /// Nothing is made yet.
    pub(super) fn new(format: Format) -> Job {
        Job {
            format,
            making: Making::Sampling(Box::default()),
        }
    }

    /// Does the next part; the text after the last one.
    pub(super) fn step(&mut self, shell: &mut Shell) -> Option<String> {
        match &mut self.making {
            Making::Sampling(sampling) => {
                let from = ListenerId(sampling.next);
                let ids = shell.plan.listeners.range(from..).map(|(id, _)| *id);
                let ids: Vec<ListenerId> = ids.take(LISTENERS_AT_ONCE).collect();
                for id in &ids {
                    shell.sample_listener(*id, sampling);
                    sampling.next = id.0.saturating_add(1);
                }
                if ids.len() < LISTENERS_AT_ONCE {
                    shell.sample_before(sampling);
                    let mut page = std::mem::take(&mut sampling.page);
                    shell.sample_workers(&mut page);
                    page.daemon = shell.sample_daemon();
                    self.making = Making::Rendering(Rendering::new(page, self.format));
                }
                None
            }
            Making::Rendering(rendering) => rendering.step(),
        }
    }
}

impl Shell {
    /// A scraper has connected.
    pub(super) fn take_scraper(&mut self, key: SocketKey) {
        self.prepare_to_accept(key);
        let Some(held) = self.sockets.get(key) else {
            return;
        };
        match listener::accept(held, true) {
            Ok(accepted) => {
                // Nobody has anything to hand over here.
                sys::refuse_descriptors(&accepted.fd);
                self.add_scraper(accepted.fd);
            }
            Err(listener::NotAccepted::Gone) => {}
            Err(listener::NotAccepted::Exhausted(errno)) => {
                log::warn!(
                    "cannot accept who asks for metrics: {}",
                    Errno::from_raw(errno).desc()
                );
                self.pause_scrapers(key);
            }
        }
    }

    /// Level-triggered, the event would come again at once.
    fn pause_scrapers(&mut self, socket: SocketKey) {
        self.watch_clients(socket, false);
        let until = clock::now() + ACCEPT_PAUSE;
        let paused = &mut self.metrics.paused;
        paused.get_or_insert((until, Vec::new())).1.push(socket);
    }

    fn add_scraper(&mut self, connection: SharedFd) {
        let metrics = &mut self.metrics;
        if metrics.scrapers.len() >= SCRAPERS_MAX {
            // Whoever has said least for longest makes room; who is being answered does not.
            let silent = metrics
                .scrapers
                .iter()
                .find(|(_, scraper)| matches!(scraper.stage, Stage::Asking(_) | Stage::Leaving));
            let Some(number) = silent.map(|(number, _)| *number) else {
                return;
            };
            self.end_scraper(number);
        }
        let metrics = &mut self.metrics;
        let number = metrics.next;
        metrics.next = metrics.next.wrapping_add(1);
        let event = EpollEvent::new(EpollFlags::EPOLLIN, Token::Scraper(number).pack());
        if let Err(errno) = self.epoll.add(&connection, event) {
            log::warn!("cannot watch who asks for metrics: {}", errno.desc());
            return;
        }
        let scraper = Scraper {
            connection,
            until: clock::now() + SCRAPER_TIME,
            stage: Stage::Asking(Vec::new()),
        };
        metrics.scrapers.insert(number, scraper);
    }

    /// Something happened at a scraper's connection.
    pub(super) fn scraper_event(&mut self, number: u32, flags: EpollFlags) {
        let Some(scraper) = self.metrics.scrapers.get_mut(&number) else {
            return;
        };
        let lives = match &scraper.stage {
            Stage::Asking(_) => scraper.read_request(),
            // Nothing was asked for: it is gone, or the connection is broken.
            Stage::Waiting { .. } => !flags.intersects(EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR),
            Stage::Answering { .. } => scraper.send(),
            Stage::Leaving => scraper.drain(),
        };
        if lives {
            self.watch_scraper(number);
        } else {
            self.end_scraper(number);
        }
    }

    /// Waits for what the stage of a scraper needs next.
    fn watch_scraper(&self, number: u32) {
        let Some(scraper) = self.metrics.scrapers.get(&number) else {
            return;
        };
        let flags = match scraper.stage {
            Stage::Asking(_) | Stage::Leaving => EpollFlags::EPOLLIN,
            Stage::Waiting { .. } => EpollFlags::empty(),
            Stage::Answering { .. } => EpollFlags::EPOLLOUT,
        };
        let mut event = EpollEvent::new(flags, Token::Scraper(number).pack());
        // It is watched already, so there is nothing to run out of.
        let _changed = self.epoll.modify(&scraper.connection, &mut event);
    }

    fn end_scraper(&mut self, number: u32) {
        if let Some(scraper) = self.metrics.scrapers.remove(&number) {
            forget(&self.epoll, &scraper.connection);
        }
    }

    /// Goes on with what is being made, and gives up who took too long.
    pub(super) fn serve_metrics(&mut self) {
        let Metrics {
            scrapers,
            paused,
            job,
            ..
        } = &self.metrics;
        if scrapers.is_empty() && paused.is_none() && job.is_none() {
            return;
        }
        self.start_job();
        // Whoever it was for may have left meanwhile.
        let job = self.metrics.job.take();
        if let Some(mut job) = job.filter(|_| self.metrics.is_awaited()) {
            match job.step(self) {
                Some(text) => self.answer_scrapers(&Rc::from(text)),
                None => self.metrics.job = Some(job),
            }
        }
        let now = clock::now();
        let scrapers = self.metrics.scrapers.iter();
        let late: Vec<u32> = scrapers
            .filter(|(_, scraper)| scraper.until <= now)
            .map(|(number, _)| *number)
            .collect();
        for number in late {
            self.end_scraper(number);
        }
        if self
            .metrics
            .paused
            .as_ref()
            .is_some_and(|(at, _)| *at <= now)
        {
            let (_, sockets) = self.metrics.paused.take().unwrap_or_default();
            for socket in sockets {
                self.watch_clients(socket, true);
            }
        }
    }

    /// All who want the same share what is made. Who comes later gets fresh values.
    fn start_job(&mut self) {
        let metrics = &mut self.metrics;
        if metrics.job.is_some() {
            return;
        }
        let mut wanted = None;
        for scraper in metrics.scrapers.values_mut() {
            if let Stage::Waiting { format, joined, .. } = &mut scraper.stage {
                *joined = *wanted.get_or_insert(*format) == *format;
            }
        }
        metrics.job = wanted.map(Job::new);
    }

    fn answer_scrapers(&mut self, text: &Rc<str>) {
        let mut answered = Vec::new();
        for (number, scraper) in &mut self.metrics.scrapers {
            let Stage::Waiting {
                format,
                head_only,
                joined: true,
            } = scraper.stage
            else {
                continue;
            };
            scraper.stage = Stage::Answering {
                head: http::found(format, text.len()),
                body: if head_only {
                    "".into()
                } else {
                    Rc::clone(text)
                },
                sent: 0,
            };
            answered.push(*number);
        }
        for number in answered {
            self.watch_scraper(number);
        }
    }

    fn sample_listener(&mut self, id: ListenerId, sampling: &mut Sampling) {
        let plan = self.plan.listener(id);
        let name: Arc<str> = Arc::from(plan.name.as_str());
        let now = clock::now();
        let is_abandoned = self.is_abandoned(id);
        let mut is_held = false;
        for (socket, held) in (0..).zip(self.sockets.of(plan)) {
            is_held = true;
            let depth = sampling.queues.depth(held);
            if let Some(depth) = &depth {
                // Where only Prometheus looks, a full queue is to be in the log as well.
                let log = &mut self.control.queue_log;
                log.look(now, &name, held, depth, is_abandoned);
            }
            let row = socket_row(&name, socket, held, depth);
            sampling.page.sockets.push(row);
        }
        sampling.page.listeners.push(ListenerRow {
            is_up: is_held && self.core.listener_state(id) == ListenerCondition::Listening,
            name,
        });
    }

    /// What a reload has left over, under the names that `status` has for it.
    fn sample_before(&self, sampling: &mut Sampling) {
        for before in self.definitions.before(&self.sockets) {
            let name: Arc<str> = Arc::from(name_before(before.listener));
            for (socket, held) in (0..).zip(before.sockets) {
                let depth = sampling.queues.depth(held);
                let row = socket_row(&name, socket, held, depth);
                sampling.page.sockets.push(row);
            }
            sampling
                .page
                .listeners
                .push(ListenerRow { is_up: true, name });
        }
    }

    fn sample_workers(&self, page: &mut Page) {
        let now = clock::now();
        let mut found: BTreeMap<WorkerId, (States, Duration)> = BTreeMap::new();
        for (instance, state) in self.core.instances() {
            let (states, backoff) = found.entry(instance.worker).or_default();
            states.add(&state);
            if let State::Backoff { until } = state {
                *backoff = until.since(now).max(*backoff);
            }
        }
        let workers = self.plan.workers();
        page.workers = workers
            .map(|(id, worker)| (id, worker, found.remove(&id).unwrap_or_default()))
            .map(|(id, worker, (states, backoff))| WorkerRow {
                name: worker.name.clone(),
                states,
                backoff,
                counters: self.metrics.counters.worker(id),
                is_degraded: self.core.degraded(id).is_some()
                    || self.core.connections(id).is_failing,
                connections: match worker.lifecycle.activation {
                    Activation::PerConnection(_) => Some(self.core.connections(id)),
                    Activation::Eager | Activation::OnDemand { .. } => None,
                },
            })
            .collect();
    }

    fn sample_notices(&self) -> Notices {
        let counted = self.notify_counters();
        let others = [counted.malformed, counted.foreign, counted.truncated];
        let taken = others
            .into_iter()
            .fold(counted.received, u64::saturating_sub);
        Notices {
            taken,
            malformed: counted.malformed,
            foreign: counted.foreign,
            truncated: counted.truncated,
        }
    }

    fn sample_daemon(&self) -> DaemonRow {
        let stat = procfs::process::Process::myself()
            .and_then(|own| own.stat())
            .ok();
        let ticks = procfs::ticks_per_second();
        let stat = stat.as_ref();
        DaemonRow {
            started: self.metrics.started,
            open_fds: open_fds(),
            max_fds: getrlimit(Resource::RLIMIT_NOFILE)
                .ok()
                .map(|(soft, _)| soft),
            resident: stat.map(|stat| stat.rss * procfs::page_size()),
            virtual_memory: stat.map(|stat| stat.vsize),
            cpu: stat.map(|stat| (stat.utime + stat.stime) as f64 / ticks as f64),
            reloads: self.metrics.counters.reloads,
            notices: self.sample_notices(),
        }
    }
}

/// What the kernel tells of a socket.
fn socket_row(
    listener: &Arc<str>,
    socket: u32,
    held: &BoundSocket,
    known: Option<Depth>,
) -> SocketRow {
    let is_bytes = known.is_some_and(|known| known.unit == Unit::Bytes);
    let (depth, limit) = known.map_or((None, None), |known| (known.depth, known.limit));
    SocketRow {
        listener: Arc::clone(listener),
        socket,
        address: held.address.to_string(),
        depth: depth.filter(|_| !is_bytes),
        limit: limit.filter(|_| !is_bytes),
        bytes: depth.filter(|_| is_bytes),
        bytes_limit: limit.filter(|_| is_bytes),
        drops: known.and_then(|known| known.drops),
    }
}

/// Since Linux 6.2 the size of the folder is their number; before, they have to be counted.
fn open_fds() -> Option<u64> {
    let folder = std::path::Path::new("/proc/self/fd");
    match folder.metadata() {
        Ok(metadata) if metadata.len() > 0 => Some(metadata.len()),
        // One of them is the folder's own.
        Ok(_) => Some((folder.read_dir().ok()?.count() as u64).saturating_sub(1)),
        Err(_) => None,
    }
}

/// By hand: a child on its way to exec has a copy for a moment, which would keep events coming.
fn forget(epoll: &Epoll, connection: &SharedFd) {
    let _not_watched = epoll.delete(connection);
}

fn is_momentary(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

impl Scraper {
    /// Reads what has come of the request. Whether the connection is to live on; so below.
    fn read_request(&mut self) -> bool {
        let Stage::Asking(request) = &mut self.stage else {
            return true;
        };
        let mut buffer = [0; http::HEAD_MAX];
        let room = buffer.len().min(http::HEAD_MAX + 1 - request.len());
        match sys::receive_bytes(&self.connection, &mut buffer[..room]) {
            Ok(0) => return false,
            Ok(count) => request.extend_from_slice(buffer.get(..count).unwrap_or_default()),
            Err(error) => return is_momentary(&error),
        }
        match http::parse(request) {
            None => {}
            Some(Request::Metrics { format, head_only }) => {
                self.stage = Stage::Waiting {
                    format,
                    head_only,
                    joined: false,
                };
            }
            Some(Request::Refused(why)) => self.refuse(why),
        }
        true
    }

    fn refuse(&mut self, why: Refused) {
        self.stage = Stage::Answering {
            head: why.answer(),
            body: "".into(),
            sent: 0,
        };
    }

    /// Sends the next part of the answer.
    fn send(&mut self) -> bool {
        let Stage::Answering { head, body, sent } = &mut self.stage else {
            return true;
        };
        let rest = match head.get(*sent..) {
            Some(rest) if !rest.is_empty() => rest,
            _ => body
                .as_bytes()
                .get(*sent - head.len()..)
                .unwrap_or_default(),
        };
        let part = &rest[..rest.len().min(SENT_AT_ONCE)];
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        match send(self.connection.as_raw_fd(), part, flags) {
            Ok(count) => *sent += count,
            Err(Errno::EAGAIN | Errno::EINTR) => return true,
            Err(_) => return false,
        }
        if *sent < head.len() + body.len() {
            return true;
        }
        self.stage = Stage::Leaving;
        shutdown(self.connection.as_raw_fd(), Shutdown::Write).is_ok()
    }

    /// Throws away what comes after the request.
    fn drain(&self) -> bool {
        let mut buffer = [0; 4096];
        match sys::receive_bytes(&self.connection, &mut buffer) {
            Ok(count) => count > 0,
            Err(error) => is_momentary(&error),
        }
    }
}
