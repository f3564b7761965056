//! A program under measurement: started, listened to on its standard error, and ended.

use crate::machine::{self, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::VecDeque;
use std::io::Read;
use std::net::SocketAddrV4;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

/// How long any program may take to say what is expected of it, or to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long a program that is thrown away may take to end by itself.
const LAST_PATIENCE: Duration = Duration::from_secs(10);

/// The precision with which the end of a program is seen.
const EXIT_STEP: Duration = Duration::from_micros(500);

/// How many of the last lines an error quotes.
const QUOTED_LINES: usize = 5;

/// A line of standard error, and when it was read.
pub struct Line {
    /// When the read(2) that brought its end returned.
    pub at: Instant,
    /// Without the newline.
    pub text: String,
}

/// How a program is asked to end.
#[derive(Clone, Copy)]
enum Ending {
    /// By SIGTERM, as listend is.
    Terminate,
    /// By the end of its standard input, as the baselines are.
    EndOfInput,
    /// By SIGTERM, whatever status that gives: a loop that waits for clients alone, and the
    /// programs of others.
    Signal,
}

/// A running program. Dropping it ends it and whatever it started.
pub struct Process {
    child: Child,
    started: Instant,
    lines: Receiver<Line>,
    last: VecDeque<String>,
    ending: Ending,
}

impl Process {
    /// Starts `listend run -c CONFIG` with its default log level.
    pub fn listend(config: &Path) -> Result<Process> {
        let mut command = Command::new(machine::listend());
        command.args(["run", "-c"]).arg(config);
        Process::start(command, Ending::Terminate)
    }

    /// The same with a control socket at a path of its own.
    pub fn listend_with(config: &Path, control: &Path) -> Result<Process> {
        let mut command = Command::new(machine::listend());
        command.args(["run", "-c"]).arg(config);
        command.arg("--control").arg(control);
        Process::start(command, Ending::Terminate)
    }

    /// The same in a session of its own, as the daemon of a guard is: the scheduler shares out the processors among
    /// sessions (sched(7), autogroup), and who shares one with its clients is woken less often, for more at a time.
    pub fn listend_in_session(config: &Path, control: &Path) -> Result<Process> {
        // It does not fork, since it leads no process group here.
        let mut command = Command::new("setsid");
        command.arg(machine::listend()).args(["run", "-c"]);
        command.arg(config).arg("--control").arg(control);
        Process::start(command, Ending::Terminate)
    }

    /// The same under a guard, which is the process that is started.
    pub fn listend_guarded(config: &Path, control: &Path) -> Result<Process> {
        let mut command = Command::new(machine::listend());
        command.args(["run", "--guard", "-c"]).arg(config);
        command.arg("--control").arg(control);
        Process::start(command, Ending::Terminate)
    }

    /// Starts a baseline, which holds what it made until its standard input ends.
    pub fn baseline(
        program: &Path,
        arguments: impl IntoIterator<Item = String>,
    ) -> Result<Process> {
        let mut command = Command::new(program);
        command.args(arguments);
        Process::start(command, Ending::EndOfInput)
    }

    /// Starts a baseline that serves clients until it is ended, and waits until it listens.
    pub fn c_loop(name: &str, address: SocketAddrV4, worker: &Path) -> Result<Process> {
        let mut command = Command::new(machine::compile(name)?);
        command
            .args([address.ip().to_string(), address.port().to_string()])
            .arg(worker);
        let mut process = Process::start(command, Ending::Signal)?;
        process.time_until(1, "done", |line| line == "done")?;
        Ok(process)
    }

    /// Starts the program of somebody else.
    pub fn peer(command: Command) -> Result<Process> {
        Process::start(command, Ending::Signal)
    }

    fn start(mut command: Command, ending: Ending) -> Result<Process> {
        // RUST_LOG and the like would change what is measured.
        command
            .env_clear()
            .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
            .stdin(match ending {
                Ending::Terminate | Ending::Signal => Stdio::null(),
                Ending::EndOfInput => Stdio::piped(),
            })
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let started = Instant::now();
        let mut child = command
            .spawn()
            .map_err(|error| format!("{}: {error}", command.get_program().display()))?;
        let pipe = child.stderr.take().ok_or("no standard error")?;
        let (sender, lines) = channel();
        thread::spawn(move || read_lines(pipe, &sender));
        Ok(Process {
            child,
            started,
            lines,
            last: VecDeque::new(),
            ending,
        })
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        // Process ids are at most 2^22 (proc(5), pid_max).
        self.child.id() as i32
    }

    /// The time from its start until `count` lines that `matches` have been read.
    pub fn time_until(
        &mut self,
        count: usize,
        what: &str,
        mut matches: impl FnMut(&str) -> bool,
    ) -> Result<Duration> {
        let deadline = Instant::now() + PATIENCE;
        let mut found = 0;
        while let Some(line) = self.next_line(deadline)? {
            found += usize::from(matches(&line.text));
            if found == count {
                return Ok(line.at - self.started);
            }
        }
        Err(self.story(&format!(
            "{found} of {count} lines with {what} after {PATIENCE:?}"
        )))
    }

    /// The next line, or none when the deadline passes first; an error when the program has ended.
    pub fn next_line(&mut self, deadline: Instant) -> Result<Option<Line>> {
        let wait = deadline.saturating_duration_since(Instant::now());
        match self.lines.recv_timeout(wait) {
            Ok(line) => {
                self.last.truncate(QUOTED_LINES - 1);
                self.last.push_front(line.text.clone());
                Ok(Some(line))
            }
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => {
                let status = self.wait_for_exit(LAST_PATIENCE)?;
                let status = status.map_or("with standard error closed".to_owned(), |status| {
                    status.to_string()
                });
                Err(self.story(&format!("ended too early: {status}")))
            }
        }
    }

    /// Asks it to end, and returns how long that took. Any status but success is an error.
    pub fn stop(&mut self) -> Result<Duration> {
        let asked = Instant::now();
        self.ask_to_end();
        match self.wait_for_exit(PATIENCE)? {
            Some(status) if status.success() || matches!(self.ending, Ending::Signal) => {
                Ok(asked.elapsed())
            }
            Some(status) => Err(self.story(&format!("ended with {status}"))),
            None => Err(self.story(&format!(
                "still runs {PATIENCE:?} after it was asked to end"
            ))),
        }
    }

    fn ask_to_end(&mut self) {
        match self.ending {
            // It is our child and has not been waited for: the number cannot be another's.
            Ending::Terminate | Ending::Signal => {
                let _ = kill(Pid::from_raw(self.pid()), Signal::SIGTERM);
            }
            Ending::EndOfInput => drop(self.child.stdin.take()),
        }
    }

    fn wait_for_exit(&mut self, patience: Duration) -> Result<Option<ExitStatus>> {
        let deadline = Instant::now() + patience;
        loop {
            match self.child.try_wait()? {
                Some(status) => return Ok(Some(status)),
                None if Instant::now() > deadline => return Ok(None),
                None => thread::sleep(EXIT_STEP),
            }
        }
    }

    /// What went wrong, and the last lines that the program wrote.
    fn story(&self, what: &str) -> Box<dyn std::error::Error> {
        let lines: Vec<String> = self.last.iter().rev().map(|l| format!("    {l}")).collect();
        if lines.is_empty() {
            return what.into();
        }
        format!("{what}\n  its last lines:\n{}", lines.join("\n")).into()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        self.ask_to_end();
        if matches!(self.wait_for_exit(LAST_PATIENCE), Ok(None)) {
            // Its children are read while it is alive, and killed after it, so that it starts no others.
            let orphans = machine::children(self.pid());
            let _ = self.child.kill();
            let _ = self.child.wait();
            for orphan in orphans {
                let _ = kill(Pid::from_raw(orphan), Signal::SIGKILL);
            }
        }
    }
}

/// Reads until the end of the pipe. The time is taken as soon as a read returns, before the text is
/// looked at.
fn read_lines(mut pipe: impl Read, lines: &Sender<Line>) {
    let mut buffer = vec![0; 64 << 10];
    let mut rest = Vec::new();
    loop {
        let count = match pipe.read(&mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(count) => count,
        };
        let at = Instant::now();
        for piece in buffer[..count].split_inclusive(|byte| *byte == b'\n') {
            rest.extend_from_slice(piece);
            if let Some(line) = rest.strip_suffix(b"\n") {
                let text = String::from_utf8_lossy(line).into_owned();
                if lines.send(Line { at, text }).is_err() {
                    // Nobody listens any more, but a full pipe would block the program.
                    let _ = std::io::copy(&mut pipe, &mut std::io::sink());
                    return;
                }
                rest.clear();
            }
        }
    }
}

/// Whether the line is listend's summary of so many bound listeners.
pub fn is_bound_line(line: &str, listeners: u32) -> bool {
    line.contains("bound") && line.contains(&format!("{listeners} listener"))
}

/// The process id in the line that reports a started instance.
pub fn started_pid(line: &str) -> Option<i32> {
    let (_, rest) = line.split_once("started, pid ")?;
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}
