//! What every test of the real program needs: folders, the daemon, puppets, clients.
//!
//! Nothing here sleeps where there is an event to wait for, and every wait has a deadline.

#![allow(dead_code, reason = "the benchmarks use a part of this")]
#![allow(unused_imports, reason = "the benchmarks use a part of this")]

pub mod activation;
pub mod app;
pub mod client;
pub mod container;
mod daemon;
pub mod left;
pub mod load;
pub mod network;
pub mod package;
pub mod podman;
pub mod ports;
mod puppet;
pub mod reloading;
#[path = "../../probe/report.rs"]
pub mod report;
pub mod rollout;
pub mod servers;
pub mod standin;
pub mod varlink;

pub use daemon::{Daemon, Finished, Start, Watch};
pub use ports::free_port;
pub use puppet::{Puppet, Puppets};
pub use report::Report;

use std::cell::RefCell;
use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How long anything may take before a test gives it up. Generous: the machine may be busy, and
/// only a failing test ever waits so long.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// A folder of its own for a test, gone at its end. Open to other users, since some workers run
/// as one.
#[derive(Debug)]
pub struct TempDir(PathBuf);

impl TempDir {
    /// Makes the folder. Its path is short: a unix socket's has 107 bytes (unix(7)).
    pub fn new() -> TempDir {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("listend.{}.{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).expect("create a temporary folder");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("chmod");
        TempDir(path)
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        // podman, for one, mounts its storage and leaves it so.
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let places = mounts.lines().filter_map(|line| line.split(' ').nth(1));
        for place in places.filter(|place| Path::new(place).starts_with(&self.0)) {
            let _ = nix::mount::umount2(place, nix::mount::MntFlags::MNT_DETACH);
        }
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The surroundings of one test: a folder, and the strings its puppets hang on.
///
/// In the texts given to it, `$DIR`, `$PROBE`, `$EVENTS` and `$LISTEND` stand for the folder, the
/// probe, the socket that puppets connect to and the program under test.
pub struct World {
    dir: TempDir,
    puppets: Puppets,
    daemons: RefCell<Vec<Watch>>,
}

impl World {
    /// A fresh one.
    pub fn new() -> World {
        let dir = TempDir::new();
        let puppets = Puppets::listen(&dir.path().join("events"));
        World {
            dir,
            puppets,
            daemons: RefCell::default(),
        }
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A path in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Fills in `$DIR` and the others.
    pub fn fill(&self, text: &str) -> String {
        let path = |path: &Path| path.to_str().expect("a path in UTF-8").to_owned();
        text.replace("$DIR", &path(self.dir()))
            .replace("$PROBE", &path(probe_path()))
            .replace("$EVENTS", &path(&self.path("events")))
            .replace("$LISTEND", &path(listend_path()))
    }

    /// Writes a file in the folder, filled in. By another process: while this one had it open
    /// for writing, a fork of another test's thread could keep it so, and executing the file
    /// would fail with ETXTBSY (execve(2)).
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        let mut child = Command::new("sh")
            .args(["-c", "exec cat > \"$0\""])
            .arg(&path)
            .stdin(std::process::Stdio::piped())
            .spawn()
            .expect("start sh");
        let mut stdin = child.stdin.take().expect("a pipe");
        stdin
            .write_all(self.fill(text).as_bytes())
            .expect("write to sh");
        drop(stdin);
        assert!(child.wait().expect("wait for sh").success());
        path
    }

    /// Writes an executable file in the folder, filled in.
    pub fn write_script(&self, name: &str, text: &str) -> PathBuf {
        let path = self.write(name, text);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("chmod");
        path
    }

    /// `listend run -c FILE` with this YAML.
    pub fn run(&self, yaml: &str) -> Daemon {
        self.run_with(yaml, |_| {})
    }

    /// `listend run -c FILE` with this YAML, started in another way.
    pub fn run_with(&self, yaml: &str, adjust: impl FnOnce(&mut Start)) -> Daemon {
        let file = self.write("listend.yaml", yaml);
        let mut start = Start::new(["run", "-c", file.to_str().expect("UTF-8")]);
        adjust(&mut start);
        // All of root's would want the same path.
        if !start.has_word("--control") {
            start.words_behind(["--control", "none"]);
        }
        self.start(start)
    }

    /// Any verb, left running.
    pub fn start(&self, start: Start) -> Daemon {
        let daemon = Daemon::start(start.filled(|text| self.fill(text)));
        self.daemons.borrow_mut().push(daemon.watch());
        daemon
    }

    /// Any verb, until it has ended.
    pub fn finish<'a>(&self, words: impl IntoIterator<Item = &'a str>) -> Finished {
        self.start(Start::new(words)).finish()
    }

    /// `listend check` of this YAML, until it has ended.
    pub fn check(&self, yaml: &str, options: &[&str]) -> Finished {
        let file = self.write("listend.yaml", yaml);
        let words = ["check", "-c", file.to_str().expect("UTF-8")];
        self.finish(words.into_iter().chain(options.iter().copied()))
    }

    /// The next puppet that starts.
    #[track_caller]
    pub fn puppet(&self) -> Puppet {
        // Nobody starts one any more once every daemon has ended.
        let hopeless = || self.daemons.borrow().iter().all(Watch::has_exited);
        self.puppets.next(hopeless)
    }

    /// The next puppets that start.
    #[track_caller]
    pub fn puppets(&self, count: usize) -> Vec<Puppet> {
        (0..count).map(|_| self.puppet()).collect()
    }

    /// Whether no puppet has started that was not asked for.
    pub fn no_puppet_is_waiting(&self) -> bool {
        self.puppets.nobody_waits()
    }
}

/// The program under test: this build's, or an installed one that `LISTEND_UNDER_TEST` names.
pub fn listend_path() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| match std::env::var_os("LISTEND_UNDER_TEST") {
        Some(path) => PathBuf::from(path),
        None => PathBuf::from(env!("CARGO_BIN_EXE_listend")),
    })
}

/// The probe.
pub fn probe_path() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| example("probe"))
}

/// A guard of any program, which follows as its arguments.
pub fn guard_path() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| example("guard"))
}

/// An example of this crate. `cargo test` builds them, but `cargo test --test it` does not, so one that
/// is missing is built here.
pub fn example(name: &str) -> PathBuf {
    let target = Path::new(env!("CARGO_BIN_EXE_listend"))
        .parent()
        .expect("target/PROFILE/listend");
    let path = target.join("examples").join(name);
    if !path.exists() {
        let profile = match target.file_name().and_then(|name| name.to_str()) {
            Some("debug") | None => "dev",
            Some(name) => name,
        };
        let built = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--example", name, "--profile", profile])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .status()
            .expect("start cargo");
        assert!(built.success(), "cargo build --example {name}");
    }
    assert!(path.exists(), "{} is not there", path.display());
    path
}

/// The probe where every user may execute it: the build may be in a folder of root's.
pub fn public_probe(world: &World) -> PathBuf {
    let path = world.path("probe");
    // Copied by another process, see `World::write`.
    let copied = Command::new("cp").arg(probe_path()).arg(&path).status();
    assert!(copied.expect("start cp").success());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("chmod");
    path
}

/// Whether this test has a process to itself. If not, it is run in one, and nothing is left to do
/// here: `if !alone() { return; }`. For a test that changes what the whole process has, such as
/// descriptors that every child inherits. nextest gives each test a process anyway.
#[track_caller]
pub fn alone() -> bool {
    const ALONE: &str = "LISTEND_TEST_ALONE";
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("main");
    let has = |name| std::env::var_os(name).is_some();
    // With `--test-threads 1` no other test runs at the same time, and this is the main thread.
    if has("NEXTEST") || has(ALONE) || test == "main" {
        return true;
    }
    let program = std::env::current_exe().expect("the path of this program");
    let mut again = Command::new(program);
    again.args(["--exact", test, "--include-ignored", "--nocapture"]);
    let output = again
        .env(ALONE, "1")
        .output()
        .expect("start the test again");
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}"
    );
    false
}

/// Says that this test cannot be done here, and why. With `LISTEND_TEST_SKIPS` naming a file, a
/// line is added to it, so that whoever runs the tests can count.
#[expect(clippy::print_stdout, reason = "shown by cargo test -- --show-output")]
pub fn skip(reason: &str) {
    let test = std::thread::current().name().unwrap_or("?").to_owned();
    println!("SKIPPED: {test}: {reason}");
    if let Some(path) = std::env::var_os("LISTEND_TEST_SKIPS") {
        let mut file = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .expect("open the file named by LISTEND_TEST_SKIPS");
        writeln!(file, "{test}: {reason}").expect("write to the file of skipped tests");
    }
}

/// Whether this is root; if not, the test is skipped.
pub fn require_root() -> bool {
    let root = is_root();
    if !root {
        skip("needs root");
    }
    root
}

/// Whether this is root.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// A program on this machine.
pub fn tool(name: &str) -> Option<PathBuf> {
    let folders = std::env::var_os("PATH")?;
    let found = std::env::split_paths(&folders).map(|folder| folder.join(name));
    found
        .filter(|path| fs::metadata(path).is_ok_and(|m| m.permissions().mode() & 0o111 != 0))
        .find(|path| path.is_file())
}

/// Where the scripts put what they install.
pub fn cache() -> PathBuf {
    let variable = |name| std::env::var_os(name).map(PathBuf::from);
    let home = || variable("HOME").unwrap_or_else(|| "/root".into());
    let base = || variable("XDG_CACHE_HOME").unwrap_or_else(|| home().join(".cache"));
    variable("LISTEND_CACHE").unwrap_or_else(|| base().join("listend"))
}

/// A program on this machine; if it is missing, the test is skipped.
pub fn require_tool(name: &str) -> Option<PathBuf> {
    let found = tool(name);
    if found.is_none() {
        skip(&format!("{name} is not installed"));
    }
    found
}

/// Whether this machine has `::1`; if not, the test is skipped.
pub fn require_ipv6() -> bool {
    let works = TcpListener::bind("[::1]:0").is_ok();
    if !works {
        skip("no IPv6 loopback");
    }
    works
}

/// Waits for something that makes no event, such as a file's or a process's disappearance.
#[track_caller]
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < deadline, "still not so: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Whether a process exists, zombies included.
pub fn exists(pid: i32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

/// The state of a process (`S`, `Z`, …), if it exists.
pub fn state(pid: i32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    rest.trim_start().chars().next()
}

/// How often a process of one thread has waited for something. (How often others were given its processor instead
/// depends on how busy the machine is.)
pub fn context_switches(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let numbers = status.lines().filter_map(|line| {
        let (name, number) = line.split_once(':')?;
        (name == "voluntary_ctxt_switches").then(|| number.trim().parse::<u64>().expect("a number"))
    });
    numbers.sum()
}

/// Waits until a process of one thread sleeps and goes on sleeping; how often it has been switched
/// away from.
#[track_caller]
pub fn settled(pid: i32) -> u64 {
    let mut before = None;
    eventually("it has nothing to do", || {
        let now = context_switches(pid);
        let rests = state(pid) == Some('S') && before == Some(now);
        before = Some(now);
        rests
    });
    before.unwrap_or_default()
}

/// How many descriptors a process of one thread has open, once it has nothing to do: those of a
/// launch, say, come and go.
#[track_caller]
pub fn settled_descriptors(pid: i32) -> usize {
    settled(pid);
    descriptors(pid)
}

/// Waits until a process that has nothing to do has so many descriptors: what is closed beside listend may be closed
/// later.
#[track_caller]
pub fn descriptors_become(pid: i32, count: usize) {
    eventually(&format!("{count} descriptors"), || {
        settled_descriptors(pid) == count
    });
}

/// How many descriptors a process has open.
pub fn descriptors(pid: i32) -> usize {
    let folder = fs::read_dir(format!("/proc/{pid}/fd"));
    folder.expect("the process runs").count()
}

/// The lowest number that no descriptor of a process has.
pub fn first_free(pid: i32) -> i32 {
    let open = fs::read_dir(format!("/proc/{pid}/fd")).expect("the process runs");
    let numbers = open.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let open: std::collections::BTreeSet<i32> = numbers.collect();
    let free = (0..).find(|number| !open.contains(number));
    free.expect("one is free")
}

/// The resident memory of a process, in KiB.
pub fn resident_kib(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    number
        .and_then(|number| number.parse().ok())
        .expect("VmRSS")
}

/// How many clients wait in the accept queue of a TCP listener of 127.0.0.1: what /proc/net/tcp
/// has as the receive queue of a socket that listens (proc_net_tcp(5)).
pub fn queued(address: std::net::SocketAddr) -> u32 {
    let text = fs::read_to_string("/proc/net/tcp").expect("the table");
    let port = format!("0100007F:{:04X}", address.port());
    let row = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (local, state, queues) = (words.get(1)?, words.get(3)?, words.get(4)?);
        let (_, receive) = queues.split_once(':')?;
        let listens = *local == port && *state == "0A";
        listens.then(|| u32::from_str_radix(receive, 16).expect("a hexadecimal number"))
    };
    let found = text.lines().find_map(row);
    found.unwrap_or_else(|| panic!("nobody listens at {address}"))
}

/// The children of a process, zombies included.
pub fn children(parent: i32) -> Vec<i32> {
    let is_child = |pid: &i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        rest.split_whitespace().nth(1) == Some(parent.to_string().as_str())
    };
    let entries = fs::read_dir("/proc").expect("list /proc");
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let pids = names.filter_map(|name| name.parse().ok());
    pids.filter(is_child).collect()
}

/// The number behind a setting in /proc/sys.
pub fn sysctl(name: &str) -> u32 {
    let path = format!("/proc/sys/{name}");
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("read {path}: {error}"));
    text.split_whitespace()
        .next()
        .and_then(|word| word.parse().ok())
        .unwrap_or_else(|| panic!("{path} has no number"))
}

/// Sends a signal to a process of the test's own.
pub fn kill(pid: i32, signal: nix::sys::signal::Signal) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).expect("kill");
}
