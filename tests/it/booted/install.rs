//! listend as the package installs it, in a booted Debian: start, failure, reload, upgrade, removal.

use super::load::Load;
use crate::harness::container::Container;
use crate::harness::package::{self, install, installed, property};
use crate::harness::{TempDir, eventually};
use std::path::Path;
use std::process::{Command, Stdio};

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
    // The same again: nothing changes but the process's program.
    let pid = property(&container, UNIT, "MainPID");
    let (said, _) = dpkg(&container, &["--install", "/opt/listend.deb"]);
    assert!(said.contains("listend.service: listend "), "{said}");
    assert_eq!(property(&container, UNIT, "MainPID"), pid);
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
    newer_with(of, |_| Ok(()))
}

/// The same with a change in its files.
fn newer_with(
    of: &Path,
    change: impl FnOnce(&Path) -> std::io::Result<()>,
) -> (TempDir, std::path::PathBuf) {
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
    change(&tree).expect("change the package");
    dpkg(&[
        "-Znone".as_ref(),
        "-b".as_ref(),
        tree.as_ref(),
        path.as_ref(),
    ]);
    (dir, path)
}

/// What dpkg says, on both outputs, and whether it succeeded.
fn dpkg(container: &Container, words: &[&str]) -> (String, bool) {
    let output = container.output([&["dpkg"][..], words].concat());
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let said = text(&output.stdout) + &text(&output.stderr);
    (said, output.status.success())
}

#[test]
fn an_upgrade_under_load_refuses_nobody_and_keeps_daemon_and_workers() {
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
    let workers = container.run(["pgrep", "listend"]);
    let program = || {
        container.run([
            "stat",
            "--format=%i",
            "--dereference",
            &format!("/proc/{pid}/exe"),
        ])
    };
    let before = program();
    let (_dir, newer) = newer(package.path());
    container.install(&newer, "/opt/listend.deb");
    // The configuration that somebody has written stays, without a question.
    let (said, is_done) = dpkg(&container, &["--install", "/opt/listend.deb"]);
    assert!(is_done && said.contains(" upgraded to "), "{said}");
    // The program is the new one, and is all that has changed.
    assert_ne!(program(), before);
    assert_eq!(container.run(["pgrep", "listend"]), workers);
    let version = container.run(["dpkg-query", "-W", "-f", "${Version}", "listend"]);
    assert_eq!(version, "999.0-1");
    assert_eq!(container.read(CONFIG).as_deref(), Some(SERVES));
    assert_eq!(property(&container, UNIT, "MainPID"), pid);
    assert_eq!(property(&container, UNIT, "NeedDaemonReload"), "no");
    load.goes_on(&container);
    let tally = load.stop(&container);
    assert_eq!((tally.refused, tally.broken), (0, 0), "{tally:?}");
}

/// A program that does everything but go on where another was.
const REFUSES: &str = "#!/bin/sh
case $* in *--preflight*) echo 'I do not understand it'; exit 69 ;; esac
exec /opt/listend.old \"$@\"
";

#[test]
fn a_daemon_that_refuses_the_upgrade_goes_on_and_says_why() {
    let Some(package) = package::deb() else {
        return;
    };
    let Some(container) = started(SERVES) else {
        return;
    };
    let pid = property(&container, UNIT, "MainPID");
    let (dir, newer) = newer_with(package.path(), |tree| {
        std::fs::write(tree.join("usr/bin/listend"), REFUSES)
    });
    container.run(["cp", "/usr/bin/listend", "/opt/listend.old"]);
    container.install(&newer, "/opt/listend.deb");
    drop(dir);
    let (said, is_done) = dpkg(&container, &["--install", "/opt/listend.deb"]);
    assert!(is_done, "{said}");
    assert!(said.contains("the version before goes on"), "{said}");
    assert!(said.contains("I do not understand it"), "{said}");
    assert_eq!(property(&container, UNIT, "MainPID"), pid);
    answers_http(&container);
}

#[test]
fn a_daemon_that_is_killed_with_its_workers_is_started_again_and_starts_others() {
    let Some(container) = started(SERVES) else {
        return;
    };
    answers_http(&container);
    let old = container.run(["pgrep", "listend"]);
    // All of it at once, workers too.
    container.run(["systemctl", "kill", "-s", "KILL", UNIT]);
    eventually("systemd starts it again", || {
        property(&container, UNIT, "NRestarts") == "1"
            && property(&container, UNIT, "ActiveState") == "active"
    });
    answers_http(&container);
    let new = container.run(["pgrep", "listend"]);
    let both: Vec<&str> = old.lines().filter(|pid| new.contains(pid)).collect();
    assert!(both.is_empty(), "{both:?}");
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
