//! Clients of every endpoint, and an account of what became of each request.

use super::model::{ENDPOINTS, Endpoint, Way};
use super::patience::Since;
use socket2::{Domain, SockAddr, Socket, Type};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

/// A client that waits longer than this has been lost, not delayed.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// So often is looked whether that is so.
const SLICE: Duration = Duration::from_millis(500);
/// The page closes a client after this time on the clock.
const TIME_OF_PAGE: Duration = Duration::from_secs(10);
/// A datagram that is not answered in this time was in a process that was killed.
const DATAGRAM_PATIENCE: Duration = Duration::from_secs(4);
/// Between two requests of a client: a load that leaves the processors to others.
const PAUSE: Duration = Duration::from_millis(15);

/// How a request can fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Loss {
    /// Nobody listened.
    Refused,
    /// The connection was reset, or ended before the whole answer.
    Cut,
    /// A datagram was not answered.
    Lost,
    /// No answer in time.
    Late,
    /// Something else was answered, or happened.
    Wrong,
}

/// A failure, with its time.
#[derive(Debug, Clone)]
pub struct Failure {
    pub endpoint: &'static Endpoint,
    pub loss: Loss,
    text: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {:?}: {}", self.endpoint.name, self.loss, self.text)
    }
}

/// What a step may cost.
#[derive(Debug, Default)]
pub struct Allowed {
    /// So many accepted connections, or datagrams, of a worker.
    in_hand: BTreeMap<&'static str, usize>,
    /// Of an endpoint that cannot be reached for a moment.
    absent: BTreeSet<&'static str>,
}

impl Allowed {
    /// A process of this worker is killed: what it had in hand is lost, at most so many.
    pub fn killed(&mut self, worker: &'static str, in_hand: usize) {
        *self.in_hand.entry(worker).or_default() += in_hand;
    }

    /// The path of this endpoint is taken away.
    pub fn absent(&mut self, endpoint: &'static str) {
        self.absent.insert(endpoint);
    }

    /// Those that are not allowed.
    pub fn check(&self, failures: &[Failure]) -> Vec<String> {
        let mut left = self.in_hand.clone();
        let mut bad = Vec::new();
        for failure in failures {
            let endpoint = failure.endpoint;
            if self.absent.contains(endpoint.name) && failure.loss != Loss::Wrong {
                continue;
            }
            let is_in_hand = matches!(failure.loss, Loss::Cut | Loss::Lost);
            match left.get_mut(endpoint.worker) {
                Some(count) if is_in_hand && *count > 0 => *count -= 1,
                _ => bad.push(failure.to_string()),
            }
        }
        bad
    }
}

#[derive(Default)]
struct State {
    is_open: bool,
    ends: bool,
    busy: usize,
    closed: BTreeSet<&'static str>,
    answered: BTreeMap<&'static str, u64>,
    failures: Vec<Failure>,
    /// Clients that the page has closed while others had the processors.
    starved: usize,
    slowest: Duration,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // What a client that panicked leaves is whole: it only counts.
        self.state.lock().unwrap_or_else(|error| error.into_inner())
    }
}

/// The clients. Dropped, they stop.
pub struct Load {
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    /// Clients that wait until [`Load::resume`].
    pub fn start(dir: &Path) -> Load {
        let shared = Arc::new(Shared::default());
        let mut clients = Vec::new();
        for endpoint in ENDPOINTS {
            for _ in 0..endpoint.clients {
                let (shared, dir) = (Arc::clone(&shared), dir.to_owned());
                let client = move || be_client(&shared, endpoint, &dir);
                clients.push(std::thread::spawn(client));
            }
        }
        Load { shared, clients }
    }

    /// Lets clients come, but not to these endpoints.
    pub fn resume(&self, closed: BTreeSet<&'static str>) {
        let mut state = self.shared.lock();
        state.closed = closed;
        state.is_open = true;
        state.slowest = Duration::ZERO;
        self.shared.changed.notify_all();
    }

    /// No more clients of this endpoint, for it is taken away; waits for those that are there.
    pub fn close(&self, endpoint: &'static str) {
        self.shared.lock().closed.insert(endpoint);
        // Each client of it is asking at most once more.
        self.pause_for(|| {});
    }

    /// Waits until every client has its answer, does this, and goes on.
    pub fn pause_for(&self, act: impl FnOnce()) {
        let _ = self.wait_for_all();
        act();
        self.shared.lock().is_open = true;
        self.shared.changed.notify_all();
    }

    fn wait_for_all(&self) -> Duration {
        let since = Since::now();
        let mut state = self.shared.lock();
        state.is_open = false;
        while state.busy > 0 {
            let is_over = since.is_over(2 * PATIENCE);
            assert!(!is_over, "{} clients do not come back", state.busy);
            let waited = self.shared.changed.wait_timeout(state, SLICE);
            state = waited.unwrap_or_else(|error| error.into_inner()).0;
        }
        state.slowest
    }

    /// Waits until every client has its answer, and lets no more come. What has failed since the last time, and
    /// the slowest answer.
    pub fn pause(&self) -> (Vec<Failure>, Duration) {
        let slowest = self.wait_for_all();
        (std::mem::take(&mut self.shared.lock().failures), slowest)
    }

    /// Waits until so many more have been answered at every endpoint that is open.
    pub fn wait_for_answers(&self, more: u64) {
        let since = Since::now();
        let mut state = self.shared.lock();
        let before = state.answered.clone();
        loop {
            let of = |all: &BTreeMap<&'static str, u64>, name: &'static str| {
                all.get(name).copied().unwrap_or(0)
            };
            let open = ENDPOINTS
                .iter()
                .filter(|one| !state.closed.contains(one.name));
            let slow: Vec<&'static str> = open
                .map(|one| one.name)
                .filter(|name| of(&state.answered, name) < of(&before, name) + more)
                .collect();
            if slow.is_empty() {
                return;
            }
            let failures: Vec<String> = state.failures.iter().map(Failure::to_string).collect();
            let is_over = since.is_over(2 * PATIENCE);
            assert!(!is_over, "no answers from {slow:?}: {failures:#?}");
            let waited = self.shared.changed.wait_timeout(state, SLICE);
            state = waited.unwrap_or_else(|error| error.into_inner()).0;
        }
    }

    /// How many were answered, all in all, and how many were closed for want of processors.
    pub fn answered(&self) -> (BTreeMap<&'static str, u64>, usize) {
        let state = self.shared.lock();
        (state.answered.clone(), state.starved)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.lock().ends = true;
        self.shared.changed.notify_all();
        for client in self.clients.drain(..) {
            let _ = client.join();
        }
    }
}

fn be_client(shared: &Shared, endpoint: &'static Endpoint, dir: &Path) {
    loop {
        let mut state = shared.lock();
        while !state.ends && (!state.is_open || state.closed.contains(endpoint.name)) {
            let waited = shared.changed.wait(state);
            state = waited.unwrap_or_else(|error| error.into_inner());
        }
        if state.ends {
            return;
        }
        state.busy += 1;
        drop(state);
        let since = Since::now();
        let result = ask(endpoint.way, dir);
        let time = since.elapsed();
        let mut state = shared.lock();
        state.busy -= 1;
        match result {
            Ok(_) => {
                *state.answered.entry(endpoint.name).or_default() += 1;
                state.slowest = state.slowest.max(time);
            }
            Err(_) if is_starved(endpoint, since) => state.starved += 1,
            Err(error) => {
                let loss = loss(endpoint.way, &error);
                let quiet = since.quiet().as_millis();
                let text = format!("{error} after {} ms ({quiet} quiet)", time.as_millis());
                state.failures.push(Failure {
                    endpoint,
                    loss,
                    text,
                });
            }
        }
        drop(state);
        shared.changed.notify_all();
        std::thread::sleep(PAUSE);
    }
}

/// Whether the page has closed a client that came too late only since others had the processors.
fn is_starved(endpoint: &Endpoint, since: Since) -> bool {
    let is_page = matches!(endpoint.way, Way::Page(_));
    is_page && since.elapsed() >= TIME_OF_PAGE && since.quiet() < TIME_OF_PAGE
}

fn loss(way: Way, error: &io::Error) -> Loss {
    match error.kind() {
        ErrorKind::ConnectionRefused | ErrorKind::NotFound | ErrorKind::AddrNotAvailable => {
            Loss::Refused
        }
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::UnexpectedEof => Loss::Cut,
        ErrorKind::TimedOut | ErrorKind::WouldBlock => match way {
            Way::Udp(_) | Way::Datagrams(_) => Loss::Lost,
            _ => Loss::Late,
        },
        _ if error.raw_os_error() == Some(nix::libc::EINPROGRESS) => Loss::Late,
        // Somebody else has the path.
        _ if error.raw_os_error() == Some(nix::libc::EPROTOTYPE) => Loss::Refused,
        _ => Loss::Wrong,
    }
}

const QUESTION: &[u8] = b"GET / HTTP/1.0\r\nHost: soak\r\n\r\n";

/// Asks once: what was answered, without the head of HTTP.
pub fn ask(way: Way, dir: &Path) -> io::Result<String> {
    match way {
        Way::Tcp(host, port) => http(tcp(host, port)?, QUESTION),
        Way::Unix(name) => {
            let socket = unix(Type::STREAM, &SockAddr::unix(dir.join(name))?)?;
            http(socket, QUESTION)
        }
        Way::Packets(name) => {
            let socket = unix(Type::SEQPACKET, &SockAddr::unix(dir.join(name))?)?;
            http(socket, QUESTION)
        }
        Way::Abstract(name) => {
            let socket = unix(Type::STREAM, &SockAddr::unix(format!("\0{name}"))?)?;
            http(socket, QUESTION)
        }
        Way::Echo(port) => echo(tcp("127.0.0.1", port)?),
        Way::Page(port) => {
            let question = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
            http(tcp("127.0.0.1", port)?, question)
        }
        Way::Udp(port) => {
            let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
            socket.connect(&SocketAddr::from(([127, 0, 0, 1], port)).into())?;
            datagram(&socket)
        }
        Way::Datagrams(name) => {
            static COUNT: AtomicU64 = AtomicU64::new(0);
            let number = COUNT.fetch_add(1, Ordering::Relaxed);
            let socket = Socket::new(Domain::UNIX, Type::DGRAM, None)?;
            socket.bind(&SockAddr::unix(format!("\0soak-client-{number}"))?)?;
            socket.set_write_timeout(Some(Since::at_most(PATIENCE)))?;
            socket.connect(&SockAddr::unix(dir.join(name))?)?;
            datagram(&socket)
        }
    }
}

fn patient(socket: &Socket) -> io::Result<()> {
    socket.set_read_timeout(Some(SLICE))?;
    // This is for connect(2) as well (socket(7)), which cannot be looked at in between.
    socket.set_write_timeout(Some(Since::at_most(PATIENCE)))
}

/// Reads what comes before the patience is over.
fn read(
    mut socket: &Socket,
    buffer: &mut [u8],
    since: Since,
    limit: Duration,
) -> io::Result<usize> {
    loop {
        match socket.read(buffer) {
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
                    && !since.is_over(limit) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

fn tcp(host: &str, port: u16) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    patient(&socket)?;
    let address: SocketAddr = SocketAddr::new(host.parse().map_err(io::Error::other)?, port);
    socket.connect(&address.into())?;
    Ok(socket)
}

fn unix(kind: Type, address: &SockAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, kind, None)?;
    patient(&socket)?;
    socket.connect(address)?;
    Ok(socket)
}

fn wrong(answer: &[u8]) -> io::Error {
    let text = String::from_utf8_lossy(&answer[..answer.len().min(300)]).into_owned();
    io::Error::new(ErrorKind::InvalidData, text)
}

fn http(mut socket: Socket, question: &[u8]) -> io::Result<String> {
    let since = Since::now();
    socket.write_all(question)?;
    let mut answer = Vec::new();
    let mut buffer = vec![0; 1 << 16];
    // Not read_to_end, which would cut a record that is longer than its first buffer.
    loop {
        match read(&socket, &mut buffer, since, PATIENCE)? {
            0 => break,
            count => answer.extend_from_slice(&buffer[..count]),
        }
    }
    let text = String::from_utf8_lossy(&answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return Err(ErrorKind::UnexpectedEof.into());
    };
    match head.split(' ').nth(1) {
        Some("200") => {}
        // The page says so when the daemon that it asks has gone.
        Some("503") => return Err(ErrorKind::ConnectionReset.into()),
        _ => return Err(wrong(&answer)),
    }
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let is_it = name.eq_ignore_ascii_case("content-length");
        is_it.then(|| value.trim().parse::<usize>().ok())?
    });
    if length.is_some_and(|length| length != body.len()) {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    close(&socket);
    Ok(body.to_owned())
}

/// No port is left in TIME_WAIT: the other side has closed first.
fn close(socket: &Socket) {
    let _ = socket.set_linger(Some(Duration::ZERO));
}

fn echo(mut socket: Socket) -> io::Result<String> {
    let since = Since::now();
    socket.write_all(QUESTION)?;
    socket.shutdown(Shutdown::Write)?;
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match read(&socket, &mut buffer, since, PATIENCE)? {
            0 => break,
            count => answer.extend_from_slice(&buffer[..count]),
        }
    }
    match answer == QUESTION {
        true => {
            close(&socket);
            Ok(String::new())
        }
        false if QUESTION.starts_with(&answer) => Err(ErrorKind::UnexpectedEof.into()),
        false => Err(wrong(&answer)),
    }
}

fn datagram(socket: &Socket) -> io::Result<String> {
    let since = Since::now();
    socket.set_read_timeout(Some(SLICE))?;
    socket.send(b"?")?;
    let mut answer = [0; 2048];
    let count = read(socket, &mut answer, since, DATAGRAM_PATIENCE)?;
    Ok(String::from_utf8_lossy(&answer[..count]).into_owned())
}
