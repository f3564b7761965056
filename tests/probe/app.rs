//! A small server of HTTP/1.0, with the life of a real one: it takes its time to start, tells when
//! it is ready, and finishes what it has accepted when it is asked to stop.
//!
//! Datagrams are answered, too, and what comes from anything else is appended to a file (`--sink`).

use crate::{children, serve, talk};
use nix::libc;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal};
use nix::sys::signal::{sigaction, sigprocmask};
use nix::sys::time::TimeSpec;
use socket2::{Domain, SockAddr, SockRef, Socket, Type};
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long a client may take to ask, and to take the answer.
const CLIENT_TIME: Duration = Duration::from_secs(5);

/// What the words of its command say.
struct App {
    /// `--version`: the first word of every answer; `pid` stands for the process id.
    version: String,
    /// `--start-delay`: it sleeps so long before it does anything, as one that imports would.
    start_delay: Duration,
    /// `--answer-delay`: so long it works on each answer.
    answer_delay: Duration,
    /// `--length`: of the body.
    length: usize,
    /// `--fd`: instead of what `LISTEN_FDS` says.
    fds: Vec<RawFd>,
    /// `--say`: a line on standard error, before anything else.
    says: Option<String>,
    /// `--outlive`: it is not tied to its parent.
    outlives: bool,
    /// `--lifetime`: how many seconds it then lives at most.
    lifetime: String,
    /// `--sink`: the file for what comes from a FIFO, a message queue or netlink.
    sink: Option<String>,
    /// `--log-every`: after so many clients it says so on standard output.
    log_every: Option<usize>,
    /// `--stop-signal`: what asks it to stop.
    stop_signal: Signal,
    /// `--crash-at-start`, after the delay.
    crashes_at_start: bool,
    /// `--hang-at-start`, after the delay.
    hangs_at_start: bool,
    /// `--hang-after-ready`: it takes nobody.
    hangs_when_ready: bool,
    /// `--crash-after-ready`.
    crash_after: Option<Duration>,
    /// `--alive`: so often it tells that it is (`WATCHDOG=1`), also when it has nothing to do.
    alive: Option<Duration>,
}

/// Serves until it is asked to stop; the exit status.
pub fn run(words: &[String]) -> i32 {
    let app = App::parse(words);
    match app.outlives {
        true => children::outlive_its_parent(Some(&app.lifetime)),
        false => children::die_with_parent(),
    }
    children::ignore(Signal::SIGPIPE);
    if let Some(line) = &app.says {
        // All at once: others may write to the same pipe.
        let _ = std::io::stderr().write_all(format!("{line}\n").as_bytes());
    }
    std::thread::sleep(app.start_delay);
    if app.crashes_at_start {
        return 1;
    }
    if app.hangs_at_start {
        hang();
    }
    app.serve()
}

impl App {
    fn parse(words: &[String]) -> App {
        let mut app = App {
            version: std::env::var("APP_VERSION").unwrap_or_else(|_| "1".to_owned()),
            start_delay: Duration::ZERO,
            answer_delay: Duration::ZERO,
            length: 256,
            fds: Vec::new(),
            outlives: false,
            lifetime: "600".to_owned(),
            sink: None,
            log_every: None,
            stop_signal: Signal::SIGTERM,
            crashes_at_start: false,
            hangs_at_start: false,
            hangs_when_ready: false,
            crash_after: None,
            says: None,
            alive: None,
        };
        // `--name value` and `--name=value` are the same.
        let mut words = words.iter().flat_map(|word| word.split('='));
        while let Some(word) = words.next() {
            let mut value = || words.next().unwrap_or_else(|| panic!("{word}: no value"));
            match word {
                "--version" => app.version = value().to_owned(),
                "--start-delay" => app.start_delay = duration(value()),
                "--answer-delay" => app.answer_delay = duration(value()),
                "--length" => app.length = value().parse().expect("a number"),
                "--fd" => app.fds.push(value().parse().expect("a number")),
                "--outlive" => app.outlives = true,
                "--lifetime" => app.lifetime = value().to_owned(),
                "--sink" => app.sink = Some(value().to_owned()),
                "--log-every" => app.log_every = Some(value().parse().expect("a number")),
                "--stop-signal" => app.stop_signal = value().parse().expect("a signal"),
                "--crash-at-start" => app.crashes_at_start = true,
                "--hang-at-start" => app.hangs_at_start = true,
                "--hang-after-ready" => app.hangs_when_ready = true,
                "--crash-after-ready" => app.crash_after = Some(duration(value())),
                "--alive" => app.alive = Some(duration(value())),
                "--say" => app.says = Some(value().to_owned()),
                other => panic!("{other}: no such option"),
            }
        }
        if app.version == "pid" {
            app.version = std::process::id().to_string();
        }
        if app.fds.is_empty() {
            app.fds = serve::inherited();
        }
        app
    }

    fn serve(&self) -> i32 {
        // SAFETY: nothing in this process closes an inherited descriptor.
        let listeners = self
            .fds
            .iter()
            .map(|fd| unsafe { BorrowedFd::borrow_raw(*fd) });
        let listeners: Vec<_> = listeners.collect();
        for fd in &listeners {
            // Another generation may be faster, and accept would then wait for the next client.
            SockRef::from(fd).set_nonblocking(true).expect("O_NONBLOCK");
        }
        let while_waiting = catch_the_end(self.stop_signal);
        notify("READY=1\n");
        if self.hangs_when_ready {
            hang();
        }
        let mut answered = 0;
        let crash_at = self.crash_after.map(|after| Instant::now() + after);
        let mut alive_at = self.alive.map(|_| Instant::now());
        let mut polled: Vec<PollFd> = listeners
            .iter()
            .map(|fd| PollFd::new(*fd, PollFlags::POLLIN))
            .collect();
        while !ENDS.load(Ordering::Relaxed) {
            let left = crash_at.map(|at| at.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                return 1;
            }
            if let (Some(at), Some(every)) = (alive_at, self.alive)
                && at <= Instant::now()
            {
                notify("WATCHDOG=1\n");
                alive_at = Some(Instant::now() + every);
            }
            let until_alive = alive_at.map(|at| at.saturating_duration_since(Instant::now()));
            let wait = left.into_iter().chain(until_alive).min();
            match ppoll(&mut polled, wait.map(TimeSpec::from), Some(while_waiting)) {
                Ok(_) => {}
                Err(nix::errno::Errno::EINTR) => continue,
                Err(error) => panic!("ppoll: {error}"),
            }
            for (fd, entry) in listeners.iter().zip(&polled) {
                let is_ready = entry.revents().is_some_and(|events| !events.is_empty());
                if !is_ready {
                    continue;
                }
                if !matches!(SockRef::from(fd).is_listener(), Ok(true)) {
                    self.take(fd.as_raw_fd());
                } else if let Ok((client, _)) = SockRef::from(fd).accept() {
                    self.answer(client);
                    answered += 1;
                    if self.log_every.is_some_and(|every| answered % every == 0) {
                        let line = format!("answered {answered}\n");
                        // Nobody may read it any more.
                        let _ = std::io::stdout().write_all(line.as_bytes());
                    }
                }
            }
        }
        notify("STOPPING=1\n");
        0
    }

    /// One datagram, which is answered, or what else comes.
    fn take(&self, fd: RawFd) {
        let answer = format!("{} {}\n", self.version, std::process::id());
        // Another generation may have been faster.
        let Ok(Some(bytes)) = talk::take(fd, answer.as_bytes()) else {
            return;
        };
        if let Some(path) = &self.sink {
            let file = std::fs::OpenOptions::new()
                .create(true)
                .append(true)
                .open(path);
            // A disk that is full is not this program's affair.
            let _ = file.and_then(|mut file| file.write_all(&bytes));
        }
    }

    /// One client, to the end. What becomes of it is its own affair.
    fn answer(&self, mut client: Socket) {
        // Accepted sockets do not inherit O_NONBLOCK (accept(2)).
        let _ = client.set_read_timeout(Some(CLIENT_TIME));
        let _ = client.set_write_timeout(Some(CLIENT_TIME));
        let mut request = Vec::new();
        let mut buffer = [0; 1024];
        // All of it: closing with something unread would reset the connection.
        while !request.ends_with(b"\r\n\r\n") {
            match client.read(&mut buffer) {
                Ok(0) | Err(_) => return,
                Ok(length) => request.extend_from_slice(&buffer[..length]),
            }
        }
        std::thread::sleep(self.answer_delay);
        let mut body = format!("{} {}\n", self.version, std::process::id());
        while body.len() < self.length {
            body.push('.');
        }
        let answer = format!(
            "HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let _ = client.write_all(answer.as_bytes());
    }
}

fn hang() -> ! {
    loop {
        nix::unistd::pause();
    }
}

static ENDS: AtomicBool = AtomicBool::new(false);

extern "C" fn ends(_: i32) {
    ENDS.store(true, Ordering::Relaxed);
}

/// Blocks this signal but while it waits, so that none comes between a look and the wait. The mask for
/// waiting.
fn catch_the_end(signal: Signal) -> SigSet {
    let action = SigAction::new(SigHandler::Handler(ends), SaFlags::empty(), SigSet::empty());
    // SAFETY: the handler stores one atomic.
    unsafe { sigaction(signal, &action) }.expect("sigaction");
    let blocked = SigSet::from(signal);
    let mut before = SigSet::empty();
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&blocked), Some(&mut before)).expect("sigprocmask");
    before.remove(signal);
    before
}

/// sd_notify(3), if there is anybody to be told.
fn notify(message: &str) {
    let Ok(name) = std::env::var("NOTIFY_SOCKET") else {
        return;
    };
    let address = SockAddr::unix(name.replacen('@', "\0", 1)).expect("NOTIFY_SOCKET");
    let socket = Socket::new(Domain::UNIX, Type::DGRAM, None).expect("socket");
    // A manager that has gone away is no reason not to serve.
    let _ = socket.send_to_with_flags(message.as_bytes(), &address, libc::MSG_NOSIGNAL);
}

/// `1s`, `100ms`, or milliseconds.
fn duration(text: &str) -> Duration {
    let number = |digits: &str| digits.parse().expect("a duration");
    if let Some(digits) = text.strip_suffix("ms") {
        Duration::from_millis(number(digits))
    } else if let Some(digits) = text.strip_suffix('s') {
        Duration::from_secs(number(digits))
    } else {
        Duration::from_millis(number(text))
    }
}
