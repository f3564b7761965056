//! listend as the package installs it, in a booted Debian: start, failure, reload, upgrade, removal.

use crate::harness::container::Container;
use crate::harness::package::{self, install, installed, property};
use crate::harness::{TempDir, eventually};
use std::path::Path;
use std::process::{Child, Command, Stdio};

const UNIT: &str = "listend.service";
const CONFIG: &str = "/etc/listend/listend.yaml";
const ADDRESS: &str = "127.0.0.1:20000";

/// Two workers on one listener.
const SERVES: &str = "
listeners: { web: '127.0.0.1:20000' }
workers:
  app: { command: ['{listend}', hello-worker], listeners: [web], instances: 2 }
";

/// A daemon with this configuration, started by systemd.
fn started(yaml: &str) -> Option<Container> {
    let container = installed()?;
    container.write(CONFIG, yaml);
    restart(&container);
    Some(container)
}

#[track_caller]
fn restart(container: &Container) {
    let restarted = container.output(["systemctl", "restart", UNIT]);
    assert!(restarted.status.success(), "{}", container.journal(UNIT));
}

/// A client that connects again and again until it is told to stop.
struct Load {
    client: Child,
}

/// What became of the connections.
#[derive(Debug)]
struct Tally {
    answered: u64,
    refused: u64,
    /// Those that were accepted, and then not answered.
    broken: u64,
}

impl Load {
    fn start(container: &Container) -> Load {
        let program = "
import os, socket
tally = [0, 0, 0]
while not os.path.exists('/run/load.stop'):
    try:
        with socket.create_connection(('127.0.0.1', 20000), 10) as server:
            server.sendall(b'GET / HTTP/1.0\\r\\n\\r\\n')
            tally[0 if server.recv(65536).startswith(b'HTTP/1.') else 2] += 1
    except ConnectionRefusedError:
        tally[1] += 1
    except OSError:
        tally[2] += 1
    with open('/run/load.new', 'w') as file:
        print(*tally, file=file)
    os.rename('/run/load.new', '/run/load')
";
        let mut client = container.command(["python3", "-c", program]);
        let client = client.stdout(Stdio::null()).spawn().expect("start nsenter");
        let load = Load { client };
        load.goes_on(container);
        load
    }

    fn tally(&self, container: &Container) -> Option<Tally> {
        let text = container.read("/run/load")?;
        let numbers: Vec<u64> = text.split_whitespace().flat_map(str::parse).collect();
        let [answered, refused, broken] = numbers[..] else {
            return None;
        };
        Some(Tally {
            answered,
            refused,
            broken,
        })
    }

    /// Waits until more have been answered.
    #[track_caller]
    fn goes_on(&self, container: &Container) {
        let answered = || self.tally(container).map_or(0, |tally| tally.answered);
        let before = answered();
        eventually("clients are answered", || answered() > before + 20);
    }

    fn stop(mut self, container: &Container) -> Tally {
        container.write("/run/load.stop", "");
        self.client.wait().expect("wait for the client");
        self.tally(container).expect("a tally")
    }
}

#[test]
fn a_fresh_install_runs_and_does_nothing_yet() {
    let Some(container) = installed() else {
        return;
    };
    assert_eq!(property(&container, UNIT, "ActiveState"), "active");
    assert_eq!(property(&container, UNIT, "UnitFileState"), "enabled");
    let listening = container.run(["ss", "--no-header", "--listening", "--tcp", "--udp"]);
    assert_eq!(listening, "");
    container.run(["listend", "status"]);
    container.run(["listend", "check"]);
    // The same again is nothing new.
    let said = container.run(["dpkg", "--install", "/opt/listend.deb"]);
    assert!(said.contains("still the version before"), "{said}");
}

/// The limits of the unit are shorter than those of its workers: nothing is cut by them, neither at
/// the start, nor in a reload, nor at the stop.
#[test]
fn the_limits_of_the_unit_end_nothing() {
    let Some(container) = installed() else {
        return;
    };
    container.run(["mkdir", "-p", "/etc/systemd/system/listend.service.d"]);
    container.write(
        "/etc/systemd/system/listend.service.d/short.conf",
        "[Service]\nTimeoutStartSec=2\nTimeoutStopSec=2\n",
    );
    container.run(["systemctl", "daemon-reload"]);
    let yaml = "
listeners: { web: '127.0.0.1:20000' }
workers:
  app: { command: ['{listend}', hello-worker], listeners: [web], instances: 2 }
  never: { command: [sleep, '1000'], ready: notify, start_timeout: 5s, restart: { backoff: 1h } }
  slow: { command: [sh, -c, 'trap \"sleep 5; exit 0\" TERM; while :; do sleep 0.1; done'] }
";
    container.write(CONFIG, yaml);
    restart(&container);
    let load = Load::start(&container);
    let pid = property(&container, UNIT, "MainPID");
    assert_eq!(property(&container, UNIT, "NRestarts"), "0");
    let status = property(&container, UNIT, "StatusText");
    assert!(status.starts_with("degraded: never"), "{status:?}");
    // The old instance of this worker takes its five seconds.
    container.write(CONFIG, &yaml.replace("sleep 5;", "sleep 5; :;"));
    container.run(["systemctl", "reload", UNIT]);
    assert_eq!(property(&container, UNIT, "MainPID"), pid);
    let tally = load.stop(&container);
    assert_eq!((tally.refused, tally.broken), (0, 0), "{tally:?}");
    container.run(["systemctl", "stop", UNIT]);
    assert_eq!(property(&container, UNIT, "Result"), "success");
    let journal = container.journal(UNIT);
    assert!(!journal.contains("timed out. "), "{journal}");
    assert!(!journal.contains("operation timed out"), "{journal}");
}

#[test]
fn it_is_up_after_a_boot_and_serves() {
    let Some(container) = started(SERVES) else {
        return;
    };
    // Everything of the user space is stopped and started again (systemd-soft-reboot.service(8)).
    container.soft_reboot();
    assert_eq!(property(&container, UNIT, "ActiveState"), "active");
    answers_http(&container);
    container.run(["systemctl", "stop", UNIT]);
    assert_eq!(property(&container, UNIT, "Result"), "success");
    assert_eq!(container.output(["pgrep", "listend"]).stdout, b"");
}

#[track_caller]
fn answers_http(container: &Container) {
    let url = format!("http://{ADDRESS}/");
    container.run(["curl", "-sS", "--fail", "--retry", "3", &url]);
}

// Exit status 69 is in RestartPreventExitStatus=.
#[test]
fn a_bind_conflict_fails_the_start_once_with_the_whole_diagnosis_in_the_journal() {
    let Some(container) = installed() else {
        return;
    };
    container.run(["systemctl", "stop", UNIT]);
    let mut holder = container.command([
        "python3",
        "-c",
        "import socket, time; s = socket.create_server(('127.0.0.1', 20000)); time.sleep(3600)",
    ]);
    let mut holder = holder.spawn().expect("start nsenter");
    eventually("the port is held", || {
        let listening = container.run(["ss", "--no-header", "--listening", "--tcp", "--numeric"]);
        listening.contains(ADDRESS)
    });
    let yaml = SERVES.replace("listeners: {", "listeners: { other: '192.0.2.7:20001',");
    container.write(CONFIG, &yaml);
    let start = container.output(["systemctl", "start", UNIT]);
    assert!(!start.status.success());
    assert_eq!(property(&container, UNIT, "ActiveState"), "failed");
    assert_eq!(property(&container, UNIT, "ExecMainStatus"), "69");
    assert_eq!(property(&container, UNIT, "NRestarts"), "0");
    let journal = container.journal(UNIT);
    for wanted in [
        "cannot bind listener `web` to 127.0.0.1:20000: address already in use",
        "held by python3",
        "cannot bind listener `other` to 192.0.2.7:20001: cannot assign requested address",
        "nothing was started",
    ] {
        assert_eq!(journal.matches(wanted).count(), 1, "{wanted}: {journal}");
    }
    // By another way than nsenter, which only waits for it.
    container.run(["pkill", "--full", "create_server"]);
    holder.wait().expect("wait for nsenter");
    container.write(CONFIG, SERVES);
    // A start that failed for good does not count against the next.
    container.run(["systemctl", "start", UNIT]);
    answers_http(&container);
}

#[test]
fn systemctl_reload_applies_a_good_file_and_fails_with_a_broken_one() {
    let Some(container) = started(SERVES) else {
        return;
    };
    let pid = property(&container, UNIT, "MainPID");
    let more = SERVES.replace("listeners: {", "listeners: { more: '127.0.0.1:20001',");
    container.write(CONFIG, &more.replace("[web]", "[web, more]"));
    let reload = container.output(["systemctl", "reload", UNIT]);
    assert!(reload.status.success(), "{}", container.journal(UNIT));
    container.run(["curl", "-sS", "--fail", "http://127.0.0.1:20001/"]);

    container.write(
        CONFIG,
        &SERVES.replace("listeners: [web]", "listeners: [wep]"),
    );
    let reload = container.output(["systemctl", "reload", UNIT]);
    assert!(!reload.status.success(), "a mistake is told");
    let journal = container.journal(UNIT);
    assert!(journal.contains("wep"), "{journal}");
    // All or nothing: what was there before is there still.
    container.run(["curl", "-sS", "--fail", "http://127.0.0.1:20001/"]);
    answers_http(&container);
    assert_eq!(property(&container, UNIT, "ActiveState"), "active");
    assert_eq!(property(&container, UNIT, "MainPID"), pid);
}

/// The same package with another version.
fn newer(of: &Path) -> (TempDir, std::path::PathBuf) {
    let dir = TempDir::new();
    let (tree, path) = (dir.path().join("tree"), dir.path().join("newer.deb"));
    let dpkg = |words: &[&std::ffi::OsStr]| {
        let mut command = Command::new("dpkg-deb");
        command.args(words).stdout(Stdio::null());
        let done = command.status().expect("start dpkg-deb");
        assert!(done.success(), "dpkg-deb {words:?}");
    };
    dpkg(&["-R".as_ref(), of.as_ref(), tree.as_ref()]);
    let control = tree.join("DEBIAN/control");
    let text = std::fs::read_to_string(&control).expect("read the control file");
    let line = |line: &str| match line.strip_prefix("Version:") {
        Some(_) => "Version: 999.0-1\n".to_owned(),
        None => format!("{line}\n"),
    };
    let text: String = text.lines().map(line).collect();
    std::fs::write(&control, text).expect("write the control file");
    dpkg(&[
        "-Znone".as_ref(),
        "-b".as_ref(),
        tree.as_ref(),
        path.as_ref(),
    ]);
    (dir, path)
}

#[test]
fn an_upgrade_under_load_refuses_nobody_and_leaves_the_daemon_alone() {
    let Some(package) = package::deb() else {
        return;
    };
    let Some(container) = crate::harness::container::boot() else {
        return;
    };
    install(&container, package.path());
    container.write(CONFIG, SERVES);
    restart(&container);
    let load = Load::start(&container);
    let pid = property(&container, UNIT, "MainPID");
    let (_dir, newer) = newer(package.path());
    // The configuration that somebody has written stays, without a question.
    let said = install(&container, &newer);
    assert!(
        said.contains("the next \"systemctl restart listend\""),
        "{said}"
    );
    let version = container.run(["dpkg-query", "-W", "-f", "${Version}", "listend"]);
    assert_eq!(version, "999.0-1");
    assert_eq!(container.read(CONFIG).as_deref(), Some(SERVES));
    assert_eq!(property(&container, UNIT, "MainPID"), pid);
    assert_eq!(property(&container, UNIT, "NeedDaemonReload"), "no");
    load.goes_on(&container);
    let tally = load.stop(&container);
    assert_eq!((tally.refused, tally.broken), (0, 0), "{tally:?}");
}

#[test]
fn a_killed_daemon_is_started_again_and_nothing_of_the_old_one_is_left() {
    let Some(container) = started(SERVES) else {
        return;
    };
    // With cgroups of version 1 systemd in a container may not be told that all of a unit's processes
    // have gone, and waits so long for them.
    let drop_in = "/etc/systemd/system/listend.service.d/test.conf";
    container.write(drop_in, "[Service]\nTimeoutStopSec=2s\n");
    container.run(["systemctl", "daemon-reload"]);
    answers_http(&container);
    let old = container.run(["pgrep", "listend"]);
    let is_started_again = |times: &str| {
        eventually("systemd starts it again", || {
            property(&container, UNIT, "NRestarts") == times
                && property(&container, UNIT, "ActiveState") == "active"
        });
    };
    container.run(["systemctl", "kill", "--kill-whom=main", "-s", "KILL", UNIT]);
    is_started_again("1");
    answers_http(&container);
    let new = container.run(["pgrep", "listend"]);
    let both: Vec<&str> = old.lines().filter(|pid| new.contains(pid)).collect();
    assert!(both.is_empty(), "{both:?}");
    // All of it at once, workers too.
    container.run(["systemctl", "kill", "-s", "KILL", UNIT]);
    is_started_again("2");
    answers_http(&container);
}

/// Every path that has listend in its name, but those of this test.
fn traces(container: &Container) -> Vec<String> {
    let found = container.run([
        "find",
        "/etc",
        "/usr",
        "/var",
        "/run",
        "-xdev",
        "(",
        "-path",
        "/var/lib/dpkg/info",
        "-prune",
        ")",
        "-o",
        "-name",
        "*listend*",
        "-print",
    ]);
    let mut found: Vec<String> = found.lines().map(str::to_owned).collect();
    found.sort();
    found
}

#[test]
fn purging_it_leaves_nothing_but_the_user() {
    let Some(package) = package::deb() else {
        return;
    };
    let Some(container) = crate::harness::container::boot() else {
        return;
    };
    let before = traces(&container);
    install(&container, package.path());
    let drop_ins = container.path("/etc/listend/conf.d");
    assert!(drop_ins.is_dir());
    let yaml = "
listeners: { web: '127.0.0.1:20000' }
workers:
  app:
    command: ['{listend}', hello-worker]
    listeners: [web]
    output: file:/var/log/listend/app.log
";
    container.write(CONFIG, yaml);
    container.write("/etc/listend/other.yaml", "{}");
    restart(&container);
    container.run(["systemctl", "start", "listend@other"]);
    assert!(traces(&container).len() > before.len() + 10);
    container.run(["dpkg", "--remove", "listend"]);
    assert_eq!(container.output(["pgrep", "listend"]).stdout, b"");
    assert_eq!(container.read(CONFIG).as_deref(), Some(yaml));
    container.run(["dpkg", "--purge", "listend"]);
    let mut left = traces(&container);
    left.retain(|path| !before.contains(path));
    // Not the package's: somebody has written what is in it.
    assert_eq!(left, ["/etc/listend"]);
    assert!(!drop_ins.exists());
    assert!(container.path("/etc/listend/other.yaml").exists());
    container.run(["id", "listend"]);
    let units = container.run([
        "systemctl",
        "list-units",
        "--all",
        "--plain",
        "--no-legend",
        "listend*",
    ]);
    // systemd may know the name for a while, as one of which it has found nothing.
    let is_there = |line: &&str| !line.contains(" not-found inactive dead ");
    assert_eq!(units.lines().find(is_there), None);
}
