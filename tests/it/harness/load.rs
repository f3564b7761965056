//! Clients without end: each connects, asks, reads the whole answer, and does it again.
//!
//! A closed loop: there are never more requests than clients, and a server that stands still is
//! seen as latency. What fails is counted and asked again, and the time runs on until it is
//! answered, as it does for a person who reloads a page.
//!
//! Such a load runs out of ports within seconds, if every connection leaves one of 28,000 behind in
//! TIME_WAIT for a minute. So the server has to close first, and the client, once it has read the
//! end, closes with SO_LINGER 0: the reset finds a server that waits for nothing but the end of the
//! connection, and takes away the last of it on both sides (tcp(7), RFC 9293 3.10.7.4). Nothing
//! that could still be lost is on its way by then. A client that fails closes as usual.

mod question;

use nix::sched::{CloneFlags, setns};
pub use question::{Answer, Question};
use socket2::SockAddr;
use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A client that waits longer than this has been lost, not delayed.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// A load that nobody stops ends by itself, after this time or so many answers. A thousand upgrades take ten
/// minutes on a busy machine.
const LONGEST: Duration = Duration::from_secs(3600);
const MOST: usize = 10_000_000;
/// After a failure. A client that is refused would otherwise take the processor that those need who
/// start the server.
const PAUSE: Duration = Duration::from_millis(2);
/// So many failures are kept in words.
const WORDS: usize = 10;
/// How requests ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// The whole answer came, and it was the right one.
    pub answered: usize,
    /// ECONNREFUSED, or no socket at a path: nobody listened.
    pub refused: usize,
    /// ECONNRESET or EPIPE: the connection was thrown away.
    pub reset: usize,
    /// The end came before the whole answer.
    pub short: usize,
    /// No answer within [`PATIENCE`].
    pub timed_out: usize,
    /// Answered with something else.
    pub wrong: usize,
    /// What has nothing to do with the server, such as no port to connect from.
    pub others: usize,
}

impl Counts {
    /// Adds those of another load.
    pub fn add(&mut self, other: &Counts) {
        self.answered += other.answered;
        self.refused += other.refused;
        self.reset += other.reset;
        self.short += other.short;
        self.timed_out += other.timed_out;
        self.wrong += other.wrong;
        self.others += other.others;
    }

    /// All that were not answered as they should be.
    pub fn failed(&self) -> usize {
        let Counts {
            answered: _,
            refused,
            reset,
            short,
            timed_out,
            wrong,
            others,
        } = *self;
        refused + reset + short + timed_out + wrong + others
    }
}

/// What a load has seen, from its start to its end.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    /// How requests ended.
    pub counts: Counts,
    /// The first failures, in words, and when they were.
    pub failures: Vec<String>,
    /// How often whom answered: the first word of the answer, by which the probe tells its version.
    pub versions: BTreeMap<String, usize>,
    /// From start to stop.
    pub time: Duration,
    /// In microseconds, sorted.
    latencies: Vec<u32>,
}

impl Summary {
    /// The latency below which this share of all lies; 1.0 is the worst. Zero without an answer.
    pub fn quantile(&self, share: f64) -> Duration {
        let last = self.latencies.len().saturating_sub(1);
        let index = (last as f64 * share).round() as usize;
        let micros = self.latencies.get(index).copied().unwrap_or(0);
        Duration::from_micros(micros.into())
    }

    /// Answers in a second.
    pub fn per_second(&self) -> f64 {
        self.counts.answered as f64 / self.time.as_secs_f64()
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts {
            answered,
            refused,
            reset,
            short,
            timed_out,
            wrong,
            others,
        } = self.counts;
        write!(
            f,
            "{answered} answered ({:.0}/s), {refused} refused, {reset} reset, {short} short, \
             {timed_out} timed out, {wrong} wrong, {others} others; latency in µs:",
            self.per_second()
        )?;
        for (name, share) in [
            ("least", 0.0),
            ("median", 0.5),
            ("99 %", 0.99),
            ("worst", 1.0),
        ] {
            write!(f, " {name} {}", self.quantile(share).as_micros())?;
        }
        write!(f, "; by {:?}", self.versions)?;
        self.failures
            .iter()
            .try_for_each(|one| write!(f, "\n  {one}"))
    }
}

/// Clients at work. Dropped, they stop.
pub struct Load {
    shared: Arc<Shared>,
    started: Instant,
    clients: Vec<JoinHandle<Vec<u32>>>,
}

/// Where the server is.
#[derive(Clone)]
pub struct Target {
    address: SockAddr,
    /// The network namespace that it is in, unless it is this one. A unix path is in none.
    namespace: Option<Arc<File>>,
}

impl From<SocketAddr> for Target {
    fn from(address: SocketAddr) -> Target {
        Target {
            address: address.into(),
            namespace: None,
        }
    }
}

impl From<&Path> for Target {
    fn from(path: &Path) -> Target {
        Target {
            address: SockAddr::unix(path).expect("a path of a socket"),
            namespace: None,
        }
    }
}

impl Target {
    /// The same in the network namespace of this process. Only root may go there.
    pub fn in_namespace_of(mut self, pid: i32) -> Target {
        let path = format!("/proc/{pid}/ns/net");
        let file = File::open(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        self.namespace = Some(Arc::new(file));
        self
    }
}

#[derive(Default)]
struct State {
    counts: Counts,
    failures: Vec<String>,
    versions: BTreeMap<String, usize>,
    /// Since the last checkpoint.
    worst: Duration,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    ends: AtomicBool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A test that panicked elsewhere leaves the state whole: it only grows.
        self.state.lock().unwrap_or_else(|error| error.into_inner())
    }
}

impl Load {
    /// Starts so many clients of a server that speaks HTTP.
    pub fn start(target: impl Into<Target>, clients: usize) -> Load {
        Load::asking(target, clients, Question::http())
    }

    /// Starts so many clients that ask this.
    pub fn asking(target: impl Into<Target>, clients: usize, question: Question) -> Load {
        let question = Arc::new(question);
        let shared = Arc::new(Shared::default());
        let target = target.into();
        let started = Instant::now();
        let client = |_| {
            let (target, shared) = (target.clone(), Arc::clone(&shared));
            let question = Arc::clone(&question);
            let share = MOST / clients;
            std::thread::spawn(move || be_client(&target, &question, &shared, started, share))
        };
        let clients = (0..clients).map(client).collect();
        Load {
            shared,
            started,
            clients,
        }
    }

    /// The worst latency of those that were answered since the last checkpoint, or the start. Who
    /// waits at this moment is in the next.
    pub fn checkpoint(&self) -> Duration {
        std::mem::take(&mut self.shared.lock().worst)
    }

    /// How requests have ended so far.
    pub fn counts(&self) -> Counts {
        self.shared.lock().counts.clone()
    }

    /// Waits until so many more have been answered.
    #[track_caller]
    pub fn wait_for_answers(&self, more: usize) {
        let wanted = self.counts().answered + more;
        self.wait(&format!("{more} more answers"), |state| {
            state.counts.answered >= wanted
        });
    }

    /// Waits until so many more have been answered by this version.
    #[track_caller]
    pub fn wait_for_version(&self, version: &str, more: usize) {
        let of = |state: &State| state.versions.get(version).copied().unwrap_or(0);
        let wanted = of(&self.shared.lock()) + more;
        self.wait(&format!("{more} more answers of {version}"), |state| {
            of(state) >= wanted
        });
    }

    #[track_caller]
    fn wait(&self, what: &str, is_so: impl Fn(&State) -> bool) {
        let deadline = Instant::now() + 3 * PATIENCE;
        let mut state = self.shared.lock();
        while !is_so(&state) {
            let left = deadline.saturating_duration_since(Instant::now());
            let (counts, failures) = (&state.counts, &state.failures);
            assert!(!left.is_zero(), "no {what}: {counts:?} {failures:#?}");
            let waited = self.shared.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(|error| error.into_inner()).0;
        }
    }

    /// Lets each client finish its request; what all of them have seen.
    pub fn stop(mut self) -> Summary {
        self.shared.ends.store(true, Ordering::Relaxed);
        let clients = std::mem::take(&mut self.clients).into_iter();
        let mut latencies: Vec<u32> = clients
            .flat_map(|client| client.join().expect("a client that does not panic"))
            .collect();
        let time = self.started.elapsed();
        latencies.sort_unstable();
        let mut state = self.shared.lock();
        Summary {
            counts: state.counts.clone(),
            failures: std::mem::take(&mut state.failures),
            versions: std::mem::take(&mut state.versions),
            time,
            latencies,
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.ends.store(true, Ordering::Relaxed);
    }
}

/// One client until the end; the latencies of what it was answered, in microseconds.
fn be_client(
    target: &Target,
    question: &Question,
    shared: &Shared,
    started: Instant,
    share: usize,
) -> Vec<u32> {
    if let Some(namespace) = &target.namespace {
        setns(namespace, CloneFlags::CLONE_NEWNET).expect("setns");
    }
    let mut latencies = Vec::new();
    let mut since = Instant::now();
    let is_over = |latencies: &Vec<u32>| {
        let is_enough = latencies.len() >= share || started.elapsed() > LONGEST;
        is_enough || shared.ends.load(Ordering::Relaxed)
    };
    while !is_over(&latencies) {
        let result = question.ask(&target.address);
        let latency = since.elapsed();
        let is_answered = result.is_ok();
        let mut state = shared.lock();
        match result {
            Ok(version) => {
                state.counts.answered += 1;
                state.worst = state.worst.max(latency);
                // Most answers are of a version that has answered before.
                match state.versions.get_mut(&version) {
                    Some(count) => *count += 1,
                    None => drop(state.versions.insert(version, 1)),
                }
                latencies.push(u32::try_from(latency.as_micros()).unwrap_or(u32::MAX));
                since = Instant::now();
            }
            Err(error) => {
                *counter(&mut state.counts, &error) += 1;
                if state.failures.len() < WORDS {
                    let at = started.elapsed().as_millis();
                    state.failures.push(format!("after {at} ms: {error}"));
                }
            }
        }
        drop(state);
        shared.changed.notify_all();
        if !is_answered {
            std::thread::sleep(PAUSE);
        } else if !question.pause.is_zero() {
            std::thread::sleep(question.pause);
            since = Instant::now();
        }
    }
    latencies
}

/// What kind of failure it is.
fn counter<'a>(counts: &'a mut Counts, error: &io::Error) -> &'a mut usize {
    match error.kind() {
        ErrorKind::ConnectionRefused | ErrorKind::NotFound => &mut counts.refused,
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => &mut counts.reset,
        ErrorKind::UnexpectedEof => &mut counts.short,
        // A blocking call that takes longer than SO_RCVTIMEO or SO_SNDTIMEO ends with EAGAIN
        // (socket(7)).
        ErrorKind::TimedOut | ErrorKind::WouldBlock => &mut counts.timed_out,
        ErrorKind::InvalidData => &mut counts.wrong,
        _ => &mut counts.others,
    }
}
