//! A booted Debian with systemd in it, to compare with and to be a service in.
//!
//! The root is made once by `scripts/test-root`, in a cache outside the checkout. Each boot has an
//! overlay of its own that is gone afterwards, so that tests share the root and leave it clean.

use super::{TempDir, children, is_root, kill, require_tool, skip};
use nix::sys::signal::Signal;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// The exit code of `scripts/test-root` for what this machine cannot do.
const CANNOT: i32 = 75;
/// A boot takes about a second on an idle machine.
const BOOT: Duration = Duration::from_secs(90);
/// A command inside, in seconds: none of them takes long on an idle machine.
const COMMAND: &str = "90";
/// A question to its systemd, in seconds. Who is connected when all of it ends or starts anew may
/// wait for an answer for ever.
const ASK: &str = "5";
/// What a boot of systemd does that no test looks at: caches that are made once for an updated
/// `/usr`, device nodes, a login on the console.
const LEFT_OUT: &[&str] = &[
    "systemd.condition_needs_update=no",
    "systemd.mask=console-getty.service",
    "systemd.mask=dev-hugepages.mount",
    "systemd.mask=systemd-journal-flush.service",
    "systemd.mask=systemd-remount-fs.service",
    "systemd.mask=systemd-sysctl.service",
    "systemd.mask=systemd-tmpfiles-setup-dev-early.service",
    "systemd.mask=systemd-tmpfiles-setup-dev.service",
    "systemd.mask=systemd-user-sessions.service",
];
/// Where cgroups are: version 2, alone or beside version 1, and what systemd-nspawn mirrors to.
const CGROUPS: [&str; 3] = [
    "/sys/fs/cgroup/unified",
    "/sys/fs/cgroup/systemd",
    "/sys/fs/cgroup",
];

/// What the container's PID 1 belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum System {
    Systemd,
    OpenRc,
    /// systemd-nspawn, which only reaps what is left to it.
    Nobody,
}

/// It runs until it is dropped.
pub struct Container {
    system: System,
    /// unshare(1), whose child is systemd-nspawn.
    outer: Child,
    leader: i32,
    name: String,
    /// Its own, below each of [`CGROUPS`]; none where there cannot be one.
    cgroup: Option<PathBuf>,
    /// Holds what the console said.
    dir: TempDir,
}

/// Boots one with systemd; if this machine cannot, the test is skipped.
pub fn boot() -> Option<Container> {
    boot_with(System::Systemd)
}

/// The same, with listend and the probe in `/opt`.
pub fn boot_with_listend() -> Option<Container> {
    let container = boot()?;
    container.install(super::probe_path(), "/opt/probe");
    container.install(super::listend_path(), "/opt/listend");
    Some(container)
}

/// Boots one with OpenRC, which has runit and s6 too; if this machine cannot, the test is skipped.
pub fn boot_openrc() -> Option<Container> {
    boot_with(System::OpenRc)
}

/// Starts one of the same root without booting it; if this machine cannot, the test is skipped.
pub fn start_without_init() -> Option<Container> {
    boot_with(System::Nobody)
}

fn boot_with(system: System) -> Option<Container> {
    let root = root(system)?;
    match Container::start(&root, system) {
        Ok(container) => Some(container),
        Err(reason) => {
            skip(&format!("no {system:?} boots in a container: {reason}"));
            None
        }
    }
}

/// Where the Debian is that tests boot, which nobody may change; if there is none, the test is skipped.
pub fn debian() -> Option<PathBuf> {
    root(System::Systemd)
}

/// Where the root is, made if it has to be.
fn root(system: System) -> Option<PathBuf> {
    if !is_root() {
        skip("needs root, for a container");
        return None;
    }
    for program in ["systemd-nspawn", "nsenter", "setpriv"] {
        require_tool(program)?;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/test-root");
    let which = match system {
        System::Systemd => None,
        System::OpenRc | System::Nobody => Some("openrc"),
    };
    let output = Command::new("sh").arg(script).args(which).output();
    let output = output.expect("start sh");
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    match output.status.code() {
        Some(0) => {
            let path = String::from_utf8(output.stdout).expect("UTF-8");
            Some(PathBuf::from(path.trim_end()))
        }
        Some(CANNOT) => {
            skip(&format!("no Debian for a container: {said}"));
            None
        }
        other => panic!("scripts/test-root: {other:?}: {said}"),
    }
}

impl Container {
    fn start(root: &Path, system: System) -> Result<Container, String> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("listend-{}-{number}", std::process::id());
        let dir = TempDir::new();
        let console = fs::File::create(dir.path().join("console")).expect("create a file");
        let cgroup = own_cgroup(&name);
        let mut command = Command::new("sh");
        // In the same cgroup, the systemd of one would find the processes of another among its own.
        command.args([
            "-c",
            "[ -z \"$0\" ] || echo $$ >\"$0/cgroup.procs\"; exec \"$@\"",
        ]);
        command.arg(cgroup.as_ref().map_or(Path::new(""), |(path, _)| path));
        command.arg("setpriv");
        // A test that is killed takes its container with it: the end of systemd-nspawn, which is
        // PID 1 of a namespace of its own, ends everything in that and in the namespaces below.
        // Its own PR_SET_PDEATHSIG does not do for every init.
        command.args(["--pdeathsig", "KILL", "unshare", "--pid", "--fork"]);
        command.args(["--kill-child=KILL", "--mount-proc", "systemd-nspawn"]);
        command.args(["--quiet", "--register=no", "--keep-unit"]);
        command.args(["--private-network", "--volatile=overlay"]);
        // Which it allows for nobody by itself.
        let calls = "pidfd_getfd landlock_create_ruleset landlock_add_rule landlock_restrict_self";
        command.arg(format!("--system-call-filter={calls}"));
        command.args(["--resolv-conf=off", "--timezone=off", "--link-journal=no"]);
        command.arg(format!("--machine={name}"));
        command.arg("--directory").arg(root);
        match system {
            System::Systemd => command.arg("--boot").args(LEFT_OUT),
            System::OpenRc => command.arg("--boot"),
            System::Nobody => command.args(["--as-pid2", "sleep", "infinity"]),
        };
        let outer = command
            // Others boot from the same root at the same time; none of them writes to it.
            .env("SYSTEMD_NSPAWN_LOCK", "0")
            .stdin(Stdio::null())
            .stdout(console.try_clone().expect("dup"))
            .stderr(console)
            .spawn()
            .expect("start sh");
        let mut container = Container {
            system,
            outer,
            leader: 0,
            name,
            cgroup: cgroup.map(|(_, within)| within),
            dir,
        };
        let deadline = Instant::now() + BOOT;
        loop {
            if let Some(status) = container.outer.try_wait().expect("wait for nspawn") {
                return Err(format!("{status}: {}", container.console()));
            }
            if container.has_booted() {
                return Ok(container);
            }
            if Instant::now() > deadline {
                return Err(format!("it hangs: {}", container.console()));
            }
            // Before systemd answers there is nothing to wait for.
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Whether it has started everything. Waits for it as soon as it answers.
    fn has_booted(&mut self) -> bool {
        let nspawn = children(self.outer.id() as i32);
        let mut candidates = nspawn.into_iter().flat_map(children);
        let Some(leader) = candidates.find(|pid| is_init(*pid)) else {
            return false;
        };
        self.leader = leader;
        match self.system {
            // It answers when this socket is there.
            System::Systemd => self.path("/run/systemd/private").exists() && self.is_up(),
            // The one when it enters a runlevel, the other when everything in it is started.
            System::OpenRc => {
                self.read("/run/openrc/softlevel").as_deref() == Some("default")
                    && !self.path("/run/openrc/rc.starting").exists()
            }
            // The last thing that systemd-nspawn does.
            System::Nobody => children(self.leader).into_iter().any(|pid| {
                let name = fs::read_to_string(format!("/proc/{pid}/comm"));
                name.is_ok_and(|name| name == "sleep\n")
            }),
        }
    }

    /// The last lines of its console.
    pub fn console(&self) -> String {
        let bytes = fs::read(self.dir.path().join("console")).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// A command that will run inside, as root and in `/`.
    pub fn command<'a>(&self, words: impl IntoIterator<Item = &'a str>) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.leader.to_string()]);
        command.args(["--mount", "--uts", "--ipc", "--net", "--pid"]);
        command.args(["--root", "--wd", "--"]).args(words);
        command.env_clear().stdin(Stdio::null());
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command.env("SYSTEMD_PAGER", "").env("SYSTEMD_COLORS", "0");
        command
    }

    /// Runs a command inside until it ends, well or not. One that hangs fails the test, with what
    /// systemd is doing meanwhile.
    #[track_caller]
    pub fn output<'a>(&self, words: impl IntoIterator<Item = &'a str>) -> Output {
        let words: Vec<&str> = words.into_iter().collect();
        let Some(output) = self.output_within(COMMAND, &words) else {
            let ask = |words: &[&str]| {
                let output = self.output_within(ASK, words);
                output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
            };
            let jobs = ask(&["systemctl", "list-jobs"]);
            let journal = ask(&["journalctl", "--no-pager", "--lines=40"]);
            panic!(
                "{words:?} hangs\njobs: {jobs:?}\njournal: {}",
                journal.unwrap_or_default()
            );
        };
        output
    }

    /// None if it has not ended by then.
    fn output_within(&self, time: &str, words: &[&str]) -> Option<Output> {
        let inside = self.command(words.iter().copied());
        let mut command = Command::new("timeout");
        command.args(["--kill-after=5", time]);
        command.arg(inside.get_program()).args(inside.get_args());
        command.env_clear().envs(
            inside
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        );
        let output = command.stdin(Stdio::null()).output();
        let output = output.unwrap_or_else(|error| panic!("nsenter {words:?}: {error}"));
        // timeout(1); 137 is its own death by SIGKILL.
        (!matches!(output.status.code(), Some(124 | 137))).then_some(output)
    }

    /// Runs a command inside that has to succeed; what it said on standard output.
    #[track_caller]
    pub fn run<'a>(&self, words: impl IntoIterator<Item = &'a str>) -> String {
        let words: Vec<&str> = words.into_iter().collect();
        let output = self.output(words.iter().copied());
        let (said, complained) = (
            String::from_utf8_lossy(&output.stdout).into_owned(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        );
        assert!(
            output.status.success(),
            "{words:?}: {}\n{said}{complained}",
            output.status
        );
        said
    }

    /// Where a path of the inside is, seen from outside. No symbolic link on it may be absolute.
    pub fn path(&self, inside: &str) -> PathBuf {
        let inside = inside.trim_start_matches('/');
        PathBuf::from(format!("/proc/{}/root/{inside}", self.leader))
    }

    /// Writes a file inside, and the folders on its way.
    #[track_caller]
    pub fn write(&self, inside: &str, text: &str) {
        let path = self.path(inside);
        let folder = path.parent().expect("a folder");
        fs::create_dir_all(folder).unwrap_or_else(|error| panic!("{inside}: {error}"));
        fs::write(&path, text).unwrap_or_else(|error| panic!("{inside}: {error}"));
    }

    /// The text of a file inside, if it is there.
    pub fn read(&self, inside: &str) -> Option<String> {
        fs::read_to_string(self.path(inside)).ok()
    }

    /// Starts listend as a unit, with these lines of `[Service]` and a worker at 127.0.0.1:20000. It
    /// has to be in `/opt`.
    pub fn start_unit(&self, service: &str) {
        self.write(
            "/run/test/listend.yaml",
            "listeners: { web: '127.0.0.1:20000' }\n\
             workers: { app: { command: [/opt/probe, serve], listeners: [web] } }\n",
        );
        let start = "ExecStart=/opt/listend run -c /run/test/listend.yaml";
        let unit = format!("[Service]\n{service}{start}\n");
        self.write("/run/systemd/system/listend.service", &unit);
        self.run(["systemctl", "daemon-reload"]);
        self.run(["systemctl", "start", "listend.service"]);
    }

    /// Copies a program in, to be executed there. By another process, see `World::write`.
    #[track_caller]
    pub fn install(&self, program: &Path, inside: &str) {
        let to = self.path(inside);
        fs::create_dir_all(to.parent().expect("a folder")).expect("create a folder");
        let mut copy = Command::new("cp");
        copy.arg("--preserve=mode").arg(program).arg(&to);
        assert!(copy.status().expect("start cp").success(), "cp to {inside}");
    }

    /// What the journal has of a unit.
    pub fn journal(&self, unit: &str) -> String {
        let words = ["journalctl", "--no-pager", "-o", "cat", "-u", unit];
        String::from_utf8_lossy(&self.output(words).stdout).into_owned()
    }

    /// Stops all of its user space and starts it anew (systemd-soft-reboot.service(8)), as a boot
    /// does; waits until it is up. What was written stays.
    #[track_caller]
    pub fn soft_reboot(&self) {
        let ask = |words: &[&str]| {
            let words = [&["systemctl"], words].concat();
            let output = self.output_within(ASK, &words);
            output.map_or_else(String::new, |output| {
                String::from_utf8_lossy(&output.stdout).into_owned()
            })
        };
        let count = || ask(&["show", "-P", "SoftRebootsCount"]);
        let before = count();
        ask(&["soft-reboot"]);
        let deadline = Instant::now() + BOOT;
        let is_up = || {
            let now = count();
            !now.is_empty() && now != before && is_running(&ask(&["is-system-running"]))
        };
        while !is_up() {
            assert!(Instant::now() < deadline, "it does not start anew");
            // Before systemd answers there is nothing to wait for.
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Whether its systemd has started everything; it waits for that.
    fn is_up(&self) -> bool {
        let words = ["systemctl", "is-system-running", "--wait"];
        let answer = self.output_within(ASK, &words);
        answer.is_some_and(|answer| is_running(&String::from_utf8_lossy(&answer.stdout)))
    }

    /// Its PID 1, as seen from here.
    pub fn leader(&self) -> i32 {
        self.leader
    }
}

/// Whether an answer of `systemctl is-system-running` means that everything has been started.
fn is_running(answer: &str) -> bool {
    // Degraded: some unit that is not ours failed.
    ["running", "degraded"].contains(&answer.trim())
}

/// A cgroup below that of this process: where it is, and its path below each of [`CGROUPS`].
fn own_cgroup(name: &str) -> Option<(PathBuf, PathBuf)> {
    let mine = fs::read_to_string("/proc/self/cgroup").ok()?;
    let mine = mine.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let within = Path::new(mine).join(name);
    let mounts = CGROUPS.iter().map(Path::new);
    let version_2 = mounts.filter(|mount| mount.join("cgroup.controllers").exists());
    let made = version_2
        .map(|mount| mount.join(&within))
        .find(|path| fs::create_dir(path).is_ok());
    made.map(|path| (path, within))
}

/// With those in it. What is not empty stays.
fn remove_cgroup(path: &Path) {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.path().is_dir()) {
        remove_cgroup(&entry.path());
    }
    let _ = fs::remove_dir(path);
}

/// Whether a process is PID 1 of a namespace of its own.
fn is_init(pid: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let mut lines = status
        .lines()
        .filter_map(|line| line.strip_prefix("NSpid:"));
    lines.next().is_some_and(|pids| {
        let pids: Vec<&str> = pids.split_whitespace().collect();
        pids.len() > 1 && pids.last() == Some(&"1")
    })
}

impl Drop for Container {
    #[expect(clippy::print_stderr, reason = "shown by cargo test for a failed test")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- console of the container:\n{}\n---", self.console());
        }
        // unshare has not reaped its child yet, so the pid is still its own. The end of that is the
        // end of its PID namespace; nothing that it holds is to be written back.
        if matches!(self.outer.try_wait(), Ok(None)) {
            let nspawn = children(self.outer.id() as i32);
            if nspawn.is_empty() {
                let _ = self.outer.kill();
            }
            for nspawn in nspawn {
                kill(nspawn, Signal::SIGKILL);
            }
            let _ = self.outer.wait();
        }
        if let Some(within) = &self.cgroup {
            for mount in CGROUPS {
                remove_cgroup(&Path::new(mount).join(within));
            }
        }
        // It leaves this one behind where it cannot tell what it is on.
        let _ = fs::remove_dir(format!("/run/systemd/nspawn/propagate/{}", self.name));
    }
}
