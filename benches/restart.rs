//! `restart`: a worker that takes a second to start is replaced under load.
//!
//! Each supervisor holds the listener of the same worker, and has the load to itself. The longest that
//! a client waits while the worker is replaced is compared with the longest that one waits while it
//! is left alone, in turn.

use crate::harness::container::{self, Container};
use crate::harness::load::{Counts, Load, Target};
use crate::harness::{TempDir, probe_path, tool};
use crate::machine::{self, Addresses, Result};
use crate::process::Process;
use crate::statistics::Samples;
use crate::table::Row;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// As many as the processors of a small machine, twice.
const CLIENTS: usize = 4;
/// How often the worker is replaced, each time after it was left alone for as long.
const ROUNDS: usize = 5;
/// How long each of the two is: the start of the worker, the end of the old one, and some time of
/// the supervisor's own.
const WINDOW: Duration = Duration::from_secs(4);
/// How long a supervisor and its worker may take until a client is answered.
const START_PATIENCE: Duration = Duration::from_secs(20);

/// What is asked of the longest wait while the worker is replaced.
const MAX_RATIO: f64 = 2.0;

/// The worker, as words of a command.
const APP: [&str; 5] = ["serve-app", "--version", "pid", "--start-delay", "1s"];

/// A supervisor at work.
trait Supervisor {
    /// Where its worker is.
    fn target(&self) -> Target;
    /// Has the worker replaced, and waits as long as it lets one wait.
    fn restart(&mut self) -> Result<()>;
    /// Ends it.
    fn stop(self: Box<Self>) -> Result<()>;
}

/// A name in the table, what starts it, and the ratio that is asked of it.
type Contender = (
    &'static str,
    fn() -> Result<Started<dyn Supervisor>>,
    Option<f64>,
);

/// Not every peer is on every machine.
pub enum Started<T: ?Sized> {
    Running(Box<T>),
    Missing(&'static str),
}

const CONTENDERS: [Contender; 5] = [
    ("listend restart", Listend::start, Some(MAX_RATIO)),
    ("systemctl restart", Systemd::start, None),
    ("Server::Starter, SIGHUP", Starter::start, None),
    ("circusctl reload", Circus::start, None),
    ("supervisorctl restart", Supervisord::start, None),
];

/// Adds the rows of this benchmark.
pub fn run(rows: &mut Vec<Row>) -> Result<()> {
    build_worker()?;
    for (name, start, target) in CONTENDERS {
        let name = format!("restart: {name}");
        match start() {
            Ok(Started::Missing(what)) => rows.push(Row::skipped(&name, what)),
            Ok(Started::Running(supervisor)) => {
                if let Err(error) = measure(rows, &name, supervisor, target) {
                    rows.push(Row::failed(&name, &error.to_string()));
                    eprintln!("{name}: {error}");
                }
            }
            Err(error) => {
                rows.push(Row::failed(&name, &error.to_string()));
                eprintln!("{name}: {error}");
            }
        }
    }
    Ok(())
}

/// `cargo bench` builds no examples, and the one that is there may be old.
pub fn build_worker() -> Result<()> {
    let folder = probe_path().ancestors().nth(2).and_then(Path::file_name);
    let profile = match folder.and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(name) => name,
    };
    let mut command = Command::new(env!("CARGO"));
    command.args([
        "build",
        "--quiet",
        "--example",
        "probe",
        "--profile",
        profile,
    ]);
    run_to_the_end(command.current_dir(env!("CARGO_MANIFEST_DIR")))
}

fn measure(
    rows: &mut Vec<Row>,
    name: &str,
    mut supervisor: Box<dyn Supervisor>,
    target: Option<f64>,
) -> Result<()> {
    wait_until_answering(&supervisor.target())?;
    let load = Load::start(supervisor.target(), CLIENTS);
    // The first start of everything is in no window.
    thread::sleep(WINDOW / 4);
    let alone = load.counts();
    let (mut disturbed, mut undisturbed) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        undisturbed.push(worst(&load, WINDOW, || Ok(()))?);
        disturbed.push(worst(&load, WINDOW, || supervisor.restart())?);
    }
    let summary = load.stop();
    supervisor.stop()?;
    eprintln!("{name}: {summary}");
    // The answers have the worker's pid for a version.
    let replaced = summary.versions.len().saturating_sub(1);
    if replaced < ROUNDS {
        return Err(format!("replaced {replaced} times instead of {ROUNDS}").into());
    }
    let (ours, baseline) = (Samples::new(disturbed), Samples::new(undisturbed));
    let what = format!("{name}, longest wait");
    rows.push(Row::ratio(&what, &ours, &baseline, target));
    lost(rows, name, &summary.counts, &alone, target.is_some());
    Ok(())
}

/// The longest wait of all who were answered within a window in which this is done.
pub fn worst(load: &Load, window: Duration, work: impl FnOnce() -> Result<()>) -> Result<Duration> {
    let start = Instant::now();
    load.checkpoint();
    work()?;
    thread::sleep(window.saturating_sub(start.elapsed()));
    Ok(load.checkpoint())
}

/// The ways in which clients were not answered.
pub fn lost(rows: &mut Vec<Row>, name: &str, counts: &Counts, before: &Counts, has_target: bool) {
    let refused = counts.refused - before.refused;
    let cut = counts.reset + counts.short - before.reset - before.short;
    let others = counts.failed() - before.failed() - refused - cut;
    if !has_target {
        let name = format!("{name}, refused / cut / lost");
        let counts = format!("{refused} / {cut} / {others}");
        return rows.push(Row::information(&name, counts));
    }
    for (what, count) in [("refused", refused), ("cut", cut), ("lost", others)] {
        rows.push(Row::at_most(
            &format!("{name}, {what}"),
            count as f64,
            0.0,
            "",
        ));
    }
}

/// One client, again and again, until it is answered for the first time.
pub fn wait_until_answering(target: &Target) -> Result<()> {
    let load = Load::start(target.clone(), 1);
    let deadline = Instant::now() + START_PATIENCE;
    while load.counts().answered == 0 {
        if Instant::now() > deadline {
            return Err(format!("does not answer: {}", load.stop()).into());
        }
        thread::sleep(Duration::from_millis(20));
    }
    load.stop();
    Ok(())
}

/// Where each of them listens, when it has its turn.
pub fn address() -> Result<SocketAddr> {
    Ok(Addresses::for_sockets(1)?.get(0).into())
}

/// The command of the worker, with these words behind it.
fn app(words: &[&str]) -> Result<String> {
    command_line(&APP, words)
}

/// The probe with these words, as a line of a configuration.
pub fn command_line(app: &[&str], words: &[&str]) -> Result<String> {
    let path = words_of(probe_path())?;
    if path.contains(char::is_whitespace) {
        return Err("the target folder has a space in its name".into());
    }
    let words = app.iter().chain(words).copied();
    let words = [path.as_str()].into_iter().chain(words);
    Ok(words.collect::<Vec<_>>().join(" "))
}

/// Runs a command that has to succeed.
pub fn run_to_the_end(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let said = said + &String::from_utf8_lossy(&output.stdout);
    Err(format!("{:?}: {}: {said}", command.get_program(), output.status).into())
}

/// A program, in a folder of its own.
struct Program {
    process: Process,
    dir: TempDir,
    address: SocketAddr,
    /// What restarts it; `None` is SIGHUP.
    restart: Option<Vec<String>>,
}

impl Program {
    fn start(
        dir: TempDir,
        process: Process,
        restart: Option<Vec<String>>,
    ) -> Result<Started<dyn Supervisor>> {
        Ok(Started::Running(Box::new(Program {
            process,
            dir,
            address: address()?,
            restart,
        })))
    }
}

impl Supervisor for Program {
    fn target(&self) -> Target {
        self.address.into()
    }

    fn restart(&mut self) -> Result<()> {
        match &self.restart {
            None => Ok(kill(Pid::from_raw(self.process.pid()), Signal::SIGHUP)?),
            Some(words) => {
                let mut command = Command::new(&words[0]);
                run_to_the_end(command.args(&words[1..]).current_dir(self.dir.path()))
            }
        }
    }

    fn stop(mut self: Box<Self>) -> Result<()> {
        self.process.stop().map(drop)
    }
}

/// Writes a file into a folder; its path as text.
pub fn write(dir: &TempDir, name: &str, text: &str) -> Result<String> {
    let path = dir.path().join(name);
    std::fs::write(&path, text)?;
    words_of(&path)
}

pub fn words_of(path: &Path) -> Result<String> {
    Ok(path.to_str().ok_or("a path is not UTF-8")?.to_owned())
}

/// A program of a peer: installed, or where `scripts/test-setup` puts Python's.
pub fn find(program: &str) -> Option<PathBuf> {
    let venv = machine::target_dir().join("venv/bin").join(program);
    venv.is_file().then_some(venv).or_else(|| tool(program))
}

pub fn strings(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

struct Listend;

impl Listend {
    fn start() -> Result<Started<dyn Supervisor>> {
        let dir = TempDir::new();
        let yaml = format!(
            "listeners: {{ web: '{}' }}\nworkers:\n  app:\n    command: {}\n    listeners: [web]\n    \
             nonblocking: true\n    ready: notify\n    rollout: {{ min_ready: 100ms }}\n",
            address()?,
            app(&[])?
        );
        let config = write(&dir, "listend.yaml", &yaml)?;
        let control = words_of(&dir.path().join("control"))?;
        let process = Process::listend_with(Path::new(&config), Path::new(&control))?;
        let listend = words_of(&machine::listend())?;
        let restart = strings(&[&listend, "restart", "app", "--control", &control]);
        Program::start(dir, process, Some(restart))
    }
}

/// The new worker comes first; the old one is ended when the new one has lived for a second, which
/// is the default.
struct Starter;

impl Starter {
    fn start() -> Result<Started<dyn Supervisor>> {
        let Some(program) = find("start_server") else {
            return Ok(Started::Missing("start_server is not installed"));
        };
        // It has the number of the descriptor in the text of a variable.
        let worker = format!("exec {}", app(&["--fd", "${SERVER_STARTER_PORT##*=}"])?);
        let mut command = Command::new(program);
        command.arg(format!("--port={}", address()?));
        command.args(["--", "sh", "-c", &worker]);
        Program::start(TempDir::new(), Process::peer(command)?, None)
    }
}

/// Its graceful way: the new worker comes first, and nobody waits until it is ready.
struct Circus;

impl Circus {
    fn start() -> Result<Started<dyn Supervisor>> {
        let (Some(program), Some(client)) = (find("circusd"), find("circusctl")) else {
            return Ok(Started::Missing("circus is not installed"));
        };
        let dir = TempDir::new();
        let worker = app(&["--fd", CIRCUS_SOCKET])?;
        let config = circus_config(&dir, address()?, &worker)?;
        let restart = circus_reload(&dir, &client)?;
        Program::start(
            dir,
            Process::peer(circus_command(&program, &config))?,
            Some(restart),
        )
    }
}

/// The descriptor of its socket, in the words of a worker.
pub const CIRCUS_SOCKET: &str = "$(circus.sockets.web)";

fn circus_endpoint(dir: &TempDir, name: &str) -> String {
    format!("ipc://{}/{name}", dir.path().display())
}

/// The path of a configuration with one socket and one worker.
pub fn circus_config(dir: &TempDir, address: SocketAddr, worker: &str) -> Result<String> {
    let config = format!(
        "[circus]\nendpoint = {}\npubsub_endpoint = {}\nstatsd = False\n\
         [socket:web]\nhost = {}\nport = {}\n\
         [watcher:app]\ncmd = {worker}\nuse_sockets = True\nnumprocesses = 1\ncopy_env = True\n",
        circus_endpoint(dir, "control"),
        circus_endpoint(dir, "events"),
        address.ip(),
        address.port(),
    );
    write(dir, "circus.ini", &config)
}

/// What starts it.
pub fn circus_command(program: &Path, config: &str) -> Command {
    let mut command = Command::new(program);
    command.args(["--log-level", "error", config]);
    command
}

/// What has it replace the worker.
pub fn circus_reload(dir: &TempDir, client: &Path) -> Result<Vec<String>> {
    let (client, control) = (words_of(client)?, circus_endpoint(dir, "control"));
    Ok(strings(&[&client, "--endpoint", &control, "reload", "app"]))
}

/// The old worker is ended first, and its socket is closed with it.
struct Supervisord;

impl Supervisord {
    fn start() -> Result<Started<dyn Supervisor>> {
        let (Some(program), Some(client)) = (find("supervisord"), find("supervisorctl")) else {
            return Ok(Started::Missing("supervisor is not installed"));
        };
        let dir = TempDir::new();
        let control = words_of(&dir.path().join("control"))?;
        let config = format!(
            "[supervisord]\nnodaemon = true\nlogfile = /dev/null\nlogfile_maxbytes = 0\n\
             pidfile = {0}.pid\n\
             [unix_http_server]\nfile = {0}\n\
             [rpcinterface:supervisor]\nsupervisor.rpcinterface_factory = \
             supervisor.rpcinterface:make_main_rpcinterface\n\
             [supervisorctl]\nserverurl = unix://{0}\n\
             [fcgi-program:app]\nsocket = tcp://{1}\nsocket_backlog = 4096\ncommand = {2}\n",
            control,
            address()?,
            app(&["--fd", "0"])?
        );
        let config = write(&dir, "supervisord.conf", &config)?;
        let mut command = Command::new(program);
        command.args(["-c", &config]);
        let client = words_of(&client)?;
        let restart = strings(&[&client, "-c", &config, "restart", "app:*"]);
        Program::start(dir, Process::peer(command)?, Some(restart))
    }
}

/// The address of the socket unit, in a container, whose network has nothing but its own loopback.
pub const IN_CONTAINER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 20_000);

/// A booted systemd with a socket unit and its service, which has these further settings; `None` where no
/// systemd boots.
pub fn booted_with_app(settings: &str) -> Result<Option<Container>> {
    // The container is the tests', which panic where something is wrong.
    let booted = catch_unwind(|| {
        let container = container::boot()?;
        container.install(probe_path(), "/opt/probe");
        let socket = format!("[Socket]\nListenStream={IN_CONTAINER}\n");
        container.write("/run/systemd/system/app.socket", &socket);
        let service = format!(
            "[Service]\nType=notify\nNonBlocking=yes\n{settings}ExecStart=/opt/probe {}\n",
            APP.join(" ")
        );
        container.write("/run/systemd/system/app.service", &service);
        container.run(["systemctl", "daemon-reload"]);
        container.run(["systemctl", "start", "app.socket", "app.service"]);
        Some(container)
    });
    booted.map_err(|_| "the units do not start".into())
}

/// A `.socket` unit and its service in a booted systemd.
struct Systemd(Container);

impl Systemd {
    fn start() -> Result<Started<dyn Supervisor>> {
        Ok(match booted_with_app("")? {
            Some(container) => Started::Running(Box::new(Systemd(container))),
            None => Started::Missing("no systemd boots in a container here"),
        })
    }
}

impl Supervisor for Systemd {
    fn target(&self) -> Target {
        Target::from(IN_CONTAINER).in_namespace_of(self.0.leader())
    }

    fn restart(&mut self) -> Result<()> {
        run_to_the_end(&mut self.0.command(["systemctl", "restart", "app.service"]))
    }

    fn stop(self: Box<Self>) -> Result<()> {
        let ended = catch_unwind(AssertUnwindSafe(|| drop(self.0)));
        ended.map_err(|_| "the container does not end".into())
    }
}
