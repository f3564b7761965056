//! `supervisor`: the supervisor itself is replaced, or killed, under load.
//!
//! Each holds the listener of the same worker, and has the load to itself. What is told is the longest wait of a
//! client beside that of the same clients while nothing is done, whether the worker goes on, and whether it is
//! started again when it ends afterwards.

use crate::harness::container::Container;
use crate::harness::load::{Load, Target};
use crate::harness::{TempDir, tool};
use crate::machine::{self, Result};
use crate::process::Process;
use crate::restart::{
    CIRCUS_SOCKET, IN_CONTAINER, Started, address, booted_with_app, build_worker, circus_command,
    circus_config, circus_reload, command_line, find, lost, run_to_the_end, wait_until_answering,
    worst, write,
};
use crate::statistics::Samples;
use crate::survive::{guarded_pid, upgrade};
use crate::table::Row;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

const CLIENTS: usize = 4;
/// How often it is done, each time after nothing was done for as long. What cannot be done twice is done once.
const ROUNDS: usize = 3;
const WINDOW: Duration = Duration::from_secs(1);
/// How long a worker that has ended may be missed until nobody starts it again.
const STARTED_AGAIN: Duration = Duration::from_secs(3);
const GLIMPSE: Duration = Duration::from_millis(200);

/// The worker answers with its pid.
const APP: [&str; 4] = ["serve-app", "--version", "pid", "--outlive"];

/// A supervisor at work.
trait Subject {
    /// Where its worker is.
    fn target(&self) -> Target;
    /// Replaces or kills it.
    fn disturb(&mut self) -> Result<()>;
    /// Kills the worker that answers with this.
    fn kill_worker(&mut self, pid: &str) -> Result<()>;
    /// Ends it.
    fn stop(self: Box<Self>) -> Result<()>;
}

/// A name in the table, what starts it, and how often it can be disturbed.
type Contender = (&'static str, fn() -> Result<Started<dyn Subject>>, usize);

const CONTENDERS: [Contender; 6] = [
    ("listend upgrade", Listend::to_upgrade, ROUNDS),
    ("listend run --guard, kill -9", Listend::to_kill, ROUNDS),
    ("systemctl daemon-reexec", Systemd::start, ROUNDS),
    ("circusctl reload", Circus::to_reload, ROUNDS),
    ("circusd, kill -9 and another", Circus::to_kill, 1),
    ("einhornsh -e upgrade", Einhorn::start, ROUNDS),
];

/// Adds the rows of this benchmark.
pub fn run(rows: &mut Vec<Row>) -> Result<()> {
    build_worker()?;
    for (name, start, rounds) in CONTENDERS {
        let name = format!("supervisor: {name}");
        let measured = start().and_then(|started| match started {
            Started::Missing(what) => {
                rows.push(Row::skipped(&name, what));
                Ok(())
            }
            Started::Running(subject) => measure(rows, &name, subject, rounds),
        });
        if let Err(error) = measured {
            eprintln!("{name}: {error}");
            rows.push(Row::failed(&name, &error.to_string()));
        }
    }
    rows.push(Row::skipped(
        "supervisor: systemd, kill -9",
        "the kernel takes no SIGKILL for PID 1",
    ));
    Ok(())
}

fn measure(
    rows: &mut Vec<Row>,
    name: &str,
    mut subject: Box<dyn Subject>,
    rounds: usize,
) -> Result<()> {
    wait_until_answering(&subject.target())?;
    let load = Load::start(subject.target(), CLIENTS);
    thread::sleep(WINDOW / 3);
    let before = load.counts();
    let (mut disturbed, mut alone) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        alone.push(worst(&load, WINDOW, || Ok(()))?);
        disturbed.push(worst(&load, WINDOW, || subject.disturb())?);
    }
    let summary = load.stop();
    eprintln!("{name}: {summary}");
    let (ours, baseline) = (Samples::new(disturbed), Samples::new(alone));
    let what = format!("{name}, longest wait");
    rows.push(Row::ratio(&what, &ours, &baseline, None));
    lost(rows, name, &summary.counts, &before, false);
    let kept = match summary.versions.len() {
        1 => "kept".to_owned(),
        others => format!("replaced {} times", others.saturating_sub(1)),
    };
    rows.push(Row::information(&format!("{name}, worker"), kept));
    let again = match is_started_again(subject.as_mut())? {
        true => "started again",
        false => "not started again",
    };
    let what = format!("{name}, worker that ends afterwards");
    rows.push(Row::information(&what, again.to_owned()));
    subject.stop()
}

/// Whether a worker that is killed is followed by another.
fn is_started_again(subject: &mut dyn Subject) -> Result<bool> {
    let seen = glimpse(subject);
    let last = seen.iter().next_back().ok_or("nobody answers")?;
    subject.kill_worker(last)?;
    let deadline = Instant::now() + STARTED_AGAIN;
    while Instant::now() < deadline {
        if glimpse(subject).iter().any(|one| !seen.contains(one)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Who answers at this moment.
fn glimpse(subject: &dyn Subject) -> BTreeSet<String> {
    let load = Load::start(subject.target(), 1);
    thread::sleep(GLIMPSE);
    load.stop().versions.into_keys().collect()
}

/// The words of the worker's command, with these behind them.
fn app(words: &[&str]) -> Result<String> {
    command_line(&APP, words)
}

fn kill_pid(pid: &str) -> Result<()> {
    Ok(kill(Pid::from_raw(pid.parse()?), Signal::SIGKILL)?)
}

struct Listend {
    process: Process,
    address: SocketAddr,
    control: PathBuf,
    /// The daemon, if it is to be killed.
    daemon: Option<i32>,
    _dir: TempDir,
}

impl Listend {
    fn to_upgrade() -> Result<Started<dyn Subject>> {
        Listend::start(false)
    }

    fn to_kill() -> Result<Started<dyn Subject>> {
        Listend::start(true)
    }

    fn start(has_guard: bool) -> Result<Started<dyn Subject>> {
        let dir = TempDir::new();
        let address = address()?;
        let yaml = format!(
            "listeners: {{ web: '{address}' }}\nworkers:\n  app:\n    command: {}\n    \
             listeners: [web]\n    nonblocking: true\n",
            app(&[])?
        );
        let config = write(&dir, "listend.yaml", &yaml)?;
        let control = dir.path().join("control");
        let mut daemon = None;
        let process = if has_guard {
            let mut process = Process::listend_guarded(Path::new(&config), &control)?;
            daemon = Some(next_daemon(&mut process)?);
            process
        } else {
            Process::listend_with(Path::new(&config), &control)?
        };
        Ok(Started::Running(Box::new(Listend {
            process,
            address,
            control,
            daemon,
            _dir: dir,
        })))
    }
}

/// The pid of the daemon that the guard starts next.
fn next_daemon(guard: &mut Process) -> Result<i32> {
    let end = Instant::now() + STARTED_AGAIN;
    while let Some(line) = guard.next_line(end)? {
        if let Some(pid) = guarded_pid(&line.text) {
            return Ok(pid);
        }
    }
    Err("the guard starts no daemon".into())
}

impl Subject for Listend {
    fn target(&self) -> Target {
        self.address.into()
    }

    fn disturb(&mut self) -> Result<()> {
        let Some(daemon) = self.daemon else {
            return upgrade(&self.control);
        };
        kill(Pid::from_raw(daemon), Signal::SIGKILL)?;
        self.daemon = Some(next_daemon(&mut self.process)?);
        Ok(())
    }

    fn kill_worker(&mut self, pid: &str) -> Result<()> {
        kill_pid(pid)
    }

    fn stop(mut self: Box<Self>) -> Result<()> {
        self.process.stop().map(drop)
    }
}

/// It replaces no program of its own in place: `reload` replaces the workers. One that was killed leaves them
/// with the socket.
struct Circus {
    process: Process,
    address: SocketAddr,
    program: PathBuf,
    config: String,
    reload: Option<Vec<String>>,
    _dir: TempDir,
}

impl Circus {
    fn to_reload() -> Result<Started<dyn Subject>> {
        Circus::start(true)
    }

    fn to_kill() -> Result<Started<dyn Subject>> {
        Circus::start(false)
    }

    fn start(reloads: bool) -> Result<Started<dyn Subject>> {
        let (Some(program), Some(client)) = (find("circusd"), find("circusctl")) else {
            return Ok(Started::Missing("circus is not installed"));
        };
        let dir = TempDir::new();
        let address = address()?;
        let config = circus_config(&dir, address, &app(&["--fd", CIRCUS_SOCKET])?)?;
        let words = circus_reload(&dir, &client)?;
        Ok(Started::Running(Box::new(Circus {
            process: Process::peer(circus_command(&program, &config))?,
            address,
            program,
            config,
            reload: reloads.then_some(words),
            _dir: dir,
        })))
    }
}

impl Subject for Circus {
    fn target(&self) -> Target {
        self.address.into()
    }

    fn disturb(&mut self) -> Result<()> {
        if let Some(words) = &self.reload {
            return run_to_the_end(Command::new(&words[0]).args(&words[1..]));
        }
        kill(Pid::from_raw(self.process.pid()), Signal::SIGKILL)?;
        // As an init system would start it again; the one before is dropped, with what is left of it.
        let next = Process::peer(circus_command(&self.program, &self.config))?;
        let _killed = std::mem::replace(&mut self.process, next);
        Ok(())
    }

    fn kill_worker(&mut self, pid: &str) -> Result<()> {
        kill_pid(pid)
    }

    fn stop(mut self: Box<Self>) -> Result<()> {
        // One that has found its address taken may have ended.
        let _ended = self.process.stop();
        Ok(())
    }
}

/// It executes itself in place, and then replaces the workers; there is no command for the first alone.
struct Einhorn {
    process: Process,
    address: SocketAddr,
    control: PathBuf,
    dir: TempDir,
}

impl Einhorn {
    fn start() -> Result<Started<dyn Subject>> {
        if !einhorn("einhorn").is_file() || tool("ruby").is_none() {
            return Ok(Started::Missing(
                "no ruby, or no checkout of einhorn at target/peers/einhorn",
            ));
        }
        let dir = TempDir::new();
        let address = address()?;
        let control = dir.path().join("control");
        let worker = app(&["--stop-signal", "SIGUSR2", "--fd", "$EINHORN_FD_0"])?;
        let mut command = Einhorn::command("einhorn");
        // A worker is believed to be there when it has lived for a tenth of a second.
        command.args(["--quiet", "--quiet", "--ack-mode", "0.1"]);
        command.args(["--bind", &format!("{address},r"), "--backlog", "4096"]);
        command.arg("--socket-path").arg(&control);
        command.arg("--pidfile").arg(dir.path().join("pid"));
        command.arg("--lockfile").arg(dir.path().join("lock"));
        command.args(["--", "sh", "-c", &format!("exec {worker}")]);
        Ok(Started::Running(Box::new(Einhorn {
            process: Process::peer(command)?,
            address,
            control,
            dir,
        })))
    }

    /// It executes itself by its path, with the environment that it has.
    fn command(program: &str) -> Command {
        let mut command = Command::new("env");
        let mut library = OsString::from("RUBYLIB=");
        library.push(einhorn("").with_file_name("lib"));
        command.arg(library).arg("ruby").arg(einhorn(program));
        command
    }
}

/// A program of the checkout.
fn einhorn(program: &str) -> PathBuf {
    machine::target_dir()
        .join("peers/einhorn/bin")
        .join(program)
}

impl Subject for Einhorn {
    fn target(&self) -> Target {
        self.address.into()
    }

    fn disturb(&mut self) -> Result<()> {
        let mut command = Einhorn::command("einhornsh");
        command.arg("--socket-path").arg(&self.control);
        command.args(["--execute", "upgrade"]);
        run_to_the_end(command.current_dir(self.dir.path()))
    }

    fn kill_worker(&mut self, pid: &str) -> Result<()> {
        kill_pid(pid)
    }

    fn stop(mut self: Box<Self>) -> Result<()> {
        self.process.stop().map(drop)
    }
}

/// A `.socket` unit and its service in a booted systemd.
struct Systemd(Container);

impl Systemd {
    fn start() -> Result<Started<dyn Subject>> {
        Ok(match booted_with_app("Restart=always\n")? {
            Some(container) => Started::Running(Box::new(Systemd(container))),
            None => Started::Missing("no systemd boots in a container here"),
        })
    }
}

impl Subject for Systemd {
    fn target(&self) -> Target {
        Target::from(IN_CONTAINER).in_namespace_of(self.0.leader())
    }

    fn disturb(&mut self) -> Result<()> {
        run_to_the_end(&mut self.0.command(["systemctl", "daemon-reexec"]))
    }

    fn kill_worker(&mut self, pid: &str) -> Result<()> {
        run_to_the_end(&mut self.0.command(["kill", "-KILL", pid]))
    }

    fn stop(self: Box<Self>) -> Result<()> {
        let ended = catch_unwind(AssertUnwindSafe(|| drop(self.0)));
        ended.map_err(|_| "the container does not end".into())
    }
}
