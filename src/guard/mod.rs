//! `listend run --guard`: a parent that keeps descriptors for the daemon, and starts it again when it
//! dies. It does nothing else, so that there is little in it that could fail.
//!
//! It speaks the protocol of systemd's fd store: what the daemon sends with `FDSTORE=1` to its
//! NOTIFY_SOCKET is kept, and the next daemon gets it by LISTEN_FDS and LISTEN_FDNAMES. Nothing is
//! looked at: what a descriptor is, and whether it is still of use, the daemon knows. Everything else
//! that the daemon says goes on to whoever started the guard.
//!
//! Of the rooms it uses `sys` and `notify` only. The loop waits in poll(2) and nowhere else.

mod orphans;
mod outbox;
mod policy;
mod socket;
mod store;

use crate::notify::{self, ManagerAddress};
use crate::sys::{self, Heir, How, SharedFd, Started, Then, Whom};
use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::time::{ClockId, clock_gettime};
use orphans::Orphans;
use outbox::Outbox;
use policy::{End, Next, Policy};
use socket::NotifySocket;
use std::collections::BTreeSet;
use std::ffi::{CString, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::time::Duration;
use store::Store;

/// systemd reads so much of a message (NOTIFY_BUFFER_MAX, PIPE_BUF).
const LONGEST_MESSAGE: usize = 4096;
/// So many messages are taken before signals are looked at again.
const MOST_MESSAGES: usize = 256;
/// And so many signals before messages are.
const MOST_SIGNALS: usize = 256;
/// No more messages wait at a time, whatever the system allows (net.unix.max_dgram_qlen).
const MOST_WAITING: usize = 10_000;
/// How long a turn reaps: a worker can leave orphans without end.
const SLICE: Duration = Duration::from_millis(5);
/// Where there is no limit on open files: the kernel's own (fs.nr_open).
const MOST_OPEN: u64 = 1 << 20;
/// How long orphans may take to end, as a worker may by default (`stop_timeout`).
const SWEEP: Duration = Duration::from_secs(30);
/// How long nothing is said again about messages that count for nothing.
const QUIET: Duration = Duration::from_secs(60);

/// What the daemon has its own handlers for. It starts with them blocked, so that one that is passed on
/// before it has installed those waits and does not end it.
const LATER: [Signal; 5] = [
    Signal::SIGHUP,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGALRM,
    Signal::SIGWINCH,
];
const STOP: [Signal; 3] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT];

/// Variables that are about the guard, or that the daemon gets with other values.
const REPLACED: [&str; 4] = ["NOTIFY_SOCKET", "WATCHDOG_PID", "FDSTORE", "MAINPID"];

/// The daemon, as it is to be started.
#[derive(Debug)]
pub struct Command {
    /// The paths of its program; the next is tried where one cannot be executed.
    pub programs: Vec<CString>,
    /// argv.
    pub words: Vec<CString>,
    /// RLIMIT_NOFILE that it is to have, soft and hard. The guard needs as many as there are.
    pub open_files: (u64, u64),
}

/// Runs the daemon until it ends in order, or cannot be started at all; its exit code. `given` are
/// the descriptors that were inherited for it, with their names.
///
/// # Errors
///
/// No descriptors are left for the guard's own needs.
pub fn run(command: Command, given: Vec<(OwnedFd, String)>) -> io::Result<u8> {
    let mut guard = Guard::new(command, given)?;
    loop {
        if let Some(code) = guard.turn()? {
            return Ok(code);
        }
    }
}

struct Guard {
    command: Command,
    /// Without what changes from one start to the next.
    environment: Vec<CString>,
    socket: NotifySocket,
    signals: SignalFd,
    /// The terminal's hangup was ignored when the guard was started (nohup(1)), and stays so.
    nohup: bool,
    store: Store,
    outbox: Outbox,
    policy: Policy,
    orphans: Orphans,
    phase: Phase,
    /// A child may have ended.
    is_to_reap: bool,
    /// More have ended than a turn reaps.
    more_have_ended: bool,
    /// When to look after what closes descriptors. The daemon keeps those of its workers here, and the
    /// last close(2) may wait for whoever is at the other end ([`sys::close_apart`]).
    closing: Option<Duration>,
    /// What came with BARRIER=1, until what was given up before is closed: its addresses are free then.
    barriers: Vec<SharedFd>,
    /// When it was said last that messages count for nothing.
    complained: Option<Duration>,
    /// The signals without effect that were told of since listend ran: a flood of them would take the room in the
    /// log from what matters.
    told: BTreeSet<Signal>,
}

#[derive(Debug)]
enum Phase {
    Runs(Daemon),
    /// Until it is started again.
    Waits {
        until: Duration,
    },
    /// Until what a daemon has left has ended, with this exit code then; what has not by this time is
    /// killed.
    Sweeps {
        code: u8,
        kill_at: Option<Duration>,
    },
}

#[derive(Debug)]
struct Daemon {
    started: Started,
    since: Duration,
}

/// CLOCK_MONOTONIC.
fn now() -> Duration {
    // The call cannot fail for this clock, which every Linux has (clock_gettime(2)).
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from)
}

impl Guard {
    fn new(command: Command, given: Vec<(OwnedFd, String)>) -> io::Result<Guard> {
        sys::reset_child_signal();
        if let Err(errno) = nix::sys::prctl::set_child_subreaper(true) {
            log::warn!("guard: cannot become a child subreaper: {errno}");
        }
        let orphans = Orphans::new();
        let nohup = sys::is_ignored(libc::SIGHUP);
        let socket = NotifySocket::new()?;
        let mut environment = Vec::new();
        let watchdog = watchdog();
        for (name, value) in std::env::vars_os() {
            // Without WATCHDOG_PID it would be meant for any process.
            let is_foreign = name == "WATCHDOG_USEC" && watchdog.is_none();
            if !is_foreign && !REPLACED.iter().any(|replaced| name == *replaced) {
                environment.extend(variable([name, OsString::from("="), value]));
            }
        }
        environment.extend(variable(["NOTIFY_SOCKET=".into(), socket.address().into()]));
        // systemd.exec(5): how many descriptors may be stored.
        let mut store = Store::new(command.open_files.1.min(MOST_OPEN) as usize);
        let most = store.most().to_string();
        environment.extend(variable(["FDSTORE=".into(), most.into()]));
        for (fd, name) in given {
            if !store.add(fd.into(), &name) {
                log::error!("guard: the inherited descriptor {name} is not kept: there is no room");
            }
        }
        Ok(Guard {
            command,
            environment,
            socket,
            signals: take_signals()?,
            nohup,
            store,
            outbox: Outbox::new(manager(), watchdog),
            policy: Policy::default(),
            orphans,
            phase: Phase::Waits { until: now() },
            // Children of whatever program executed the guard.
            is_to_reap: true,
            more_have_ended: false,
            closing: None,
            barriers: Vec::new(),
            complained: None,
            told: BTreeSet::new(),
        })
    }

    /// One turn of the loop; the exit code at the end.
    fn turn(&mut self) -> io::Result<Option<u8>> {
        // Messages first: whoever sent one is known by its number, which is its own only until it is
        // reaped.
        self.take_messages(MOST_MESSAGES);
        self.take_signals();
        self.reap();
        let now = now();
        self.closing = sys::close_apart(now.as_nanos() as u64).map(Duration::from_nanos);
        if !self.barriers.is_empty() && !sys::is_closing() {
            self.barriers.clear();
            sys::close_foreign();
        }
        self.outbox.turn(now);
        match self.phase {
            Phase::Waits { until } if until <= now => self.start(),
            Phase::Sweeps { code, .. } if self.orphans.count() == 0 => return Ok(Some(code)),
            Phase::Sweeps {
                code,
                kill_at: Some(at),
            } if at <= now => self.kill_orphans(code),
            Phase::Runs(_) | Phase::Waits { .. } | Phase::Sweeps { .. } => {}
        }
        self.wait()?;
        Ok(None)
    }

    /// Waits until there is something to do.
    fn wait(&self) -> io::Result<()> {
        let own = match self.phase {
            Phase::Runs(_) => None,
            Phase::Waits { until } => Some(until),
            Phase::Sweeps { kill_at, .. } => kill_at,
        };
        let at_once = self.more_have_ended.then(now);
        let others = [self.outbox.deadline(), self.closing, at_once];
        let timeout = match own.into_iter().chain(others.into_iter().flatten()).min() {
            None => PollTimeout::NONE,
            Some(at) => {
                let left = at.saturating_sub(now()).as_micros().div_ceil(1000);
                PollTimeout::try_from(left.min(i32::MAX as u128) as i32)
                    .unwrap_or(PollTimeout::ZERO)
            }
        };
        let mut fds = [self.socket.as_fd(), self.signals.as_fd()]
            .map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    fn start(&mut self) {
        self.execute();
        // Of ten thousand names there were several copies.
        sys::return_free_memory();
    }

    fn execute(&mut self) {
        self.policy.starts();
        self.told.clear();
        self.outbox.is_relieved();
        let kept = self.store.len();
        let (descriptors, names) = self.store.all();
        let mut environment = self.environment.clone();
        if kept > 0 {
            environment.extend(variable(["LISTEN_FDS=".into(), kept.to_string().into()]));
            environment.extend(variable(["LISTEN_FDNAMES=".into(), names.into()]));
        }
        let heir = Heir {
            programs: &self.command.programs,
            words: &self.command.words,
            environment,
            descriptors: &descriptors,
            open_files: self.command.open_files,
            blocked: SigSet::from_iter(LATER),
        };
        let since = now();
        match heir.start() {
            Ok(started) => {
                log::info!(
                    "guard: started listend (pid {}) with {}",
                    started.pid,
                    count(kept, "descriptor", "descriptors")
                );
                self.phase = Phase::Runs(Daemon { started, since });
            }
            Err(error) => {
                let what = format!("listend cannot be started: {error}");
                self.ended(End::NotStarted, Duration::ZERO, &what);
            }
        }
    }

    /// There is no daemon any more.
    fn ended(&mut self, end: End, ran: Duration, what: &str) {
        if end != End::Of(How::Exited(0)) {
            self.orphans.look();
        }
        let now = now();
        let kept = count(self.store.len(), "descriptor", "descriptors");
        let left = count(self.orphans.count(), "process", "processes");
        match self.policy.ended(end, ran) {
            Next::End(code) => {
                log::debug!("guard: {what}");
                self.end(code);
            }
            Next::Start(delay) => {
                log::warn!(
                    "guard: {what}, leaving {kept} and {left}; starting it again {}",
                    match delay.as_millis() {
                        0 => "at once".to_owned(),
                        milliseconds => format!("in {milliseconds} ms"),
                    }
                );
                self.wait_until(now + delay, what);
            }
            Next::Loop(delay) => {
                log::error!(
                    "guard: {what}; it has failed {} times in a row; {kept} and {left} remain in use; \
                     trying again in {} s, or at once after SIGHUP",
                    self.policy.failures(),
                    delay.as_secs()
                );
                self.wait_until(now + delay, what);
            }
        }
    }

    fn wait_until(&mut self, until: Duration, what: &str) {
        self.outbox.status(what, now());
        self.outbox.stand_in(now());
        self.phase = Phase::Waits { until };
    }

    /// Nothing is started any more. What is left of a daemon that was killed would never be ended.
    fn end(&mut self, code: u8) {
        if self.orphans.count() > 0 {
            let left = count(self.orphans.count(), "process", "processes");
            log::info!("guard: stopping {left} that listend has left");
            self.orphans.ask_to_end();
        }
        let kill_at = Some(now() + SWEEP);
        self.phase = Phase::Sweeps { code, kill_at };
        self.outbox.stand_in(now());
    }

    fn kill_orphans(&mut self, code: u8) {
        let left = count(self.orphans.count(), "process", "processes");
        log::warn!("guard: killing {left} that did not stop");
        self.orphans.kill();
        let kill_at = None;
        self.phase = Phase::Sweeps { code, kill_at };
    }

    fn take_signals(&mut self) {
        for _ in 0..MOST_SIGNALS {
            let Ok(Some(info)) = self.signals.read_signal() else {
                return;
            };
            let Ok(signal) = Signal::try_from(info.ssi_signo as i32) else {
                continue;
            };
            // SI_KERNEL: the terminal was closed, which means a stop and not a reload. The daemon is in
            // a session of its own, and would take it for a process's.
            let is_hangup = signal == Signal::SIGHUP && info.ssi_code > 0;
            match signal {
                _ if is_hangup && self.nohup => {}
                _ if is_hangup => self.signal(Signal::SIGTERM),
                _ if STOP.contains(&signal) || LATER.contains(&signal) => self.signal(signal),
                // One, however many children have ended.
                Signal::SIGCHLD => self.is_to_reap = true,
                // They would end the guard, and have no meaning for the daemon.
                _ => {}
            }
        }
    }

    fn signal(&mut self, signal: Signal) {
        let is_stop = STOP.contains(&signal);
        match &self.phase {
            Phase::Runs(daemon) => {
                if is_stop {
                    self.policy.stops();
                }
                // It is not reaped, so the number is its own.
                if let Err(error) = sys::send_signal_to_child(daemon.started.pid, signal as i32) {
                    log::error!("guard: cannot pass {signal} on to listend: {error}");
                }
            }
            Phase::Waits { .. } if is_stop => {
                log::info!("guard: received {signal} while listend does not run");
                self.end(0);
            }
            Phase::Waits { .. } if signal == Signal::SIGHUP => self.start(),
            Phase::Sweeps {
                code,
                kill_at: Some(_),
            } if is_stop => self.kill_orphans(*code),
            Phase::Waits { .. } | Phase::Sweeps { .. } => {
                if self.told.insert(signal) {
                    log::info!("guard: received {signal} while listend does not run: no effect");
                }
            }
        }
    }

    /// Reaps whatever has ended: the daemon, and everything that has lost its parent.
    fn reap(&mut self) {
        // With ten thousand orphans, to ask costs more than a millisecond.
        if !std::mem::take(&mut self.is_to_reap) && !self.more_have_ended {
            return;
        }
        let end = now() + SLICE;
        self.more_have_ended = false;
        while let Ok(Some(ended)) = sys::wait(Whom::Anybody, Then::Leave) {
            let is_daemon =
                matches!(&self.phase, Phase::Runs(daemon) if daemon.started.pid == ended.pid);
            if is_daemon {
                // What it has said last counts. It says nothing more.
                self.take_messages(MOST_WAITING);
            }
            let is_sweep = matches!(self.phase, Phase::Sweeps { .. });
            self.orphans.ended(ended.pid, is_sweep);
            let reaped = sys::wait(Whom::Pid(ended.pid), Then::Reap);
            if !matches!(reaped, Ok(Some(_))) {
                // Somebody traces it: it comes again.
                self.is_to_reap = true;
                return;
            }
            if is_daemon {
                self.daemon_ended(ended.how);
            }
            if now() >= end {
                self.more_have_ended = true;
                return;
            }
        }
    }

    fn daemon_ended(&mut self, how: How) {
        let waits = Phase::Waits { until: now() };
        let Phase::Runs(daemon) = std::mem::replace(&mut self.phase, waits) else {
            return;
        };
        let pid = daemon.started.pid;
        let ran = now().saturating_sub(daemon.since);
        match daemon.started.failure() {
            Some(errno) => {
                let what = format!("listend cannot be started: {}", errno.desc());
                self.ended(End::NotStarted, ran, &what);
            }
            None => {
                let what = format!("listend (pid {pid}) {}", words(how));
                self.ended(End::Of(how), ran, &what);
            }
        }
    }

    fn take_messages(&mut self, most: usize) {
        let mut taken = 0;
        while taken < most && self.take_message() {
            taken += 1;
            // What came with it and is not kept.
            sys::close_foreign();
        }
    }

    /// Takes one message; whether there was one.
    fn take_message(&mut self) -> bool {
        let mut buffer = [0; LONGEST_MESSAGE];
        let datagram = match sys::receive_datagram(&self.socket, &mut buffer, true) {
            Ok(datagram) => datagram,
            Err(error) => return error.kind() == io::ErrorKind::Interrupted,
        };
        let sender = datagram.from.sender.map_or(0, |sender| sender.pid);
        if !matches!(&self.phase, Phase::Runs(daemon) if daemon.started.pid == sender) {
            self.complain(&format!("a message of process {sender} counts for nothing"));
            return true;
        }
        if datagram.is_truncated {
            self.complain("a message of listend, or its descriptors, came cut");
        }
        let text = buffer.get_mut(..datagram.length).unwrap_or_default();
        let message = notify::parse(text);
        if message.ready {
            self.policy.is_ready();
        }
        let name = message.name.as_deref();
        if message.barrier {
            self.barriers.extend(datagram.descriptors);
        } else if message.store {
            self.policy.has_left_something();
            let name = name.unwrap_or(notify::STORED);
            for fd in datagram.descriptors {
                if !self.store.add(fd, name) {
                    self.complain(&format!(
                        "no room for {name}: {} descriptors are kept, and at most {} of them with \
                         names of 128 KiB altogether can be",
                        self.store.len(),
                        self.store.most()
                    ));
                }
            }
        }
        if let Some(name) = name.filter(|_| message.remove) {
            self.store.remove(name);
        }
        self.outbox.pass(text, now());
        true
    }

    /// Says something is wrong, unless that was said lately.
    fn complain(&mut self, what: &str) {
        let now = now();
        let is_new = self
            .complained
            .is_none_or(|at| now.saturating_sub(at) >= QUIET);
        if is_new {
            self.complained = Some(now);
            log::warn!("guard: {what}");
        }
    }
}

/// Who started the guard and wants to be told, if anybody does.
fn manager() -> Option<ManagerAddress> {
    let name = std::env::var_os("NOTIFY_SOCKET")?;
    let to = ManagerAddress::to(&name);
    if let Err(why) = &to {
        log::warn!(
            "guard: NOTIFY_SOCKET={}: {why}; the service manager is not notified",
            name.display()
        );
    }
    to.ok()
}

fn watchdog() -> Option<Duration> {
    let text = |name| std::env::var(name).ok();
    notify::watchdog_interval(
        text("WATCHDOG_USEC").as_deref(),
        text("WATCHDOG_PID").as_deref(),
        std::process::id(),
    )
}

/// Takes all signals but those that stop it, those that the kernel raises because of what a program does,
/// and abort(3).
fn take_signals() -> io::Result<SignalFd> {
    let mut taken = SigSet::all();
    for signal in [
        Signal::SIGSEGV,
        Signal::SIGBUS,
        Signal::SIGFPE,
        Signal::SIGILL,
        Signal::SIGTRAP,
        Signal::SIGSYS,
        Signal::SIGABRT,
        Signal::SIGTSTP,
        Signal::SIGTTIN,
        Signal::SIGTTOU,
    ] {
        taken.remove(signal);
    }
    taken.thread_set_mask()?;
    let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
    Ok(SignalFd::with_flags(&taken, flags)?)
}

/// `None` for what holds a NUL, which no environment does.
fn variable<const PARTS: usize>(parts: [OsString; PARTS]) -> Option<CString> {
    let bytes: Vec<u8> = parts.into_iter().flat_map(OsString::into_vec).collect();
    CString::new(bytes).ok()
}

fn count(number: usize, one: &str, several: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { several })
}

fn words(how: How) -> String {
    let name = |signal: i32| match Signal::try_from(signal) {
        Ok(signal) => signal.to_string(),
        Err(_) => format!("signal {signal}"),
    };
    match how {
        How::Exited(code) => format!("ended with exit status {code}"),
        How::Killed(signal) => format!("was killed by {}", name(signal)),
        How::Dumped(signal) => format!("was killed by {} and dumped core", name(signal)),
    }
}
