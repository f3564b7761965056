//! What an attacker can do in a worker that it has taken over, for each preset: the table of docs/sandbox.md.

use crate::harness::{World, eventually, is_root, public_probe, skip};
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

const NOBODY: u32 = 65_534;

/// Who runs listend, and who the worker.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Who {
    /// listend as root, the worker as a user.
    UserOfRoot,
    /// Both as root.
    Root,
    /// Both as a user.
    User,
}

const PRESETS: [&str; 4] = ["none", "basic", "strict", "sealed"];

/// Another worker, of the same user.
struct Victim(Child);

/// Not [`NOBODY`]: in a user namespace the files of all others seem to be that one's.
const USER: u32 = 60_001;

impl Victim {
    fn start(probe: &Path, who: Who) -> Victim {
        let mut command = Command::new(probe);
        command
            .arg("victim")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        match who {
            Who::Root => &mut command,
            Who::UserOfRoot => command.uid(NOBODY).gid(NOBODY),
            Who::User => command.uid(USER).gid(USER),
        };
        let mut child = command.spawn().expect("start a victim");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("a pipe");
        BufReader::new(stdout).read_line(&mut line).expect("read");
        assert_eq!(line, "ready\n");
        Victim(child)
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ended = self.0.wait();
    }
}

/// What the attacker could do, in its order.
fn attack(who: Who, preset: &str) -> Vec<(String, bool)> {
    let world = World::new();
    let everybody = |path: &Path, mode: u32| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("chmod");
    };
    everybody(world.dir(), 0o755);
    fs::create_dir(world.path("bin")).expect("create a folder");
    let probe = world.path("bin/probe");
    fs::rename(public_probe(&world), &probe).expect("rename");
    for folder in ["open", "run"] {
        fs::create_dir(world.path(folder)).expect("create a folder");
        everybody(&world.path(folder), 0o777);
    }
    everybody(&world.write("open/secret", "secret"), 0o644);
    let victim = Victim::start(&probe, who);
    let server = TcpListener::bind("127.0.0.1:0").expect("bind");
    let control = world.path("run/control");
    let yaml = format!(
        "
listeners: {{ web: '127.0.0.1:0' }}
workers:
  app:
    command: [$DIR/bin/probe, attack, '{}', '{}', {}, $DIR/open]
    listeners: [web]
    output: 'file:$DIR/run/out'
    restart: never
    sandbox: {{ preset: {preset}{} }}
{}",
        victim.0.id(),
        server.local_addr().expect("an address"),
        control.display(),
        if preset == "none" {
            ""
        } else {
            ", read_only_paths: [$DIR/bin, $DIR/run]"
        },
        if who == Who::UserOfRoot {
            "    user: nobody\n"
        } else {
            ""
        },
    );
    let daemon = world.run_with(&yaml, |start| {
        start.words_behind(["--control", control.to_str().expect("UTF-8")]);
        if who == Who::User {
            let ids = [format!("--reuid={USER}"), format!("--regid={USER}")];
            start.through(["setpriv", &ids[0], &ids[1], "--clear-groups"]);
        }
    });
    let read = || fs::read_to_string(world.path("run/out")).unwrap_or_default();
    eventually("the attacker has tried everything", || {
        assert!(daemon.is_running(), "{}", daemon.stderr());
        assert!(
            !daemon.stderr().contains("failed while"),
            "{}",
            daemon.stderr()
        );
        read().ends_with("done\n")
    });
    let out = read();
    let lines = out.lines().filter_map(|line| line.split_once(": "));
    let lines = lines.filter(|(name, _)| !name.starts_with("listend"));
    let outcomes = lines
        .map(|(name, outcome)| (name.to_owned(), outcome == "yes"))
        .collect();
    daemon.stop();
    outcomes
}

/// The rows of a table: an attempt, and in which presets it succeeds.
fn table(who: Who) -> Vec<String> {
    let mut rows: Vec<String> = Vec::new();
    let mut all: BTreeMap<String, Vec<bool>> = BTreeMap::new();
    let mut order = Vec::new();
    for preset in PRESETS {
        for (name, could) in attack(who, preset) {
            if preset == PRESETS[0] {
                order.push(name.clone());
            }
            all.entry(name).or_default().push(could);
        }
    }
    for name in order {
        let cells = all[&name]
            .iter()
            .map(|could| if *could { "**yes**" } else { "–" });
        let cells: Vec<&str> = cells.collect();
        assert_eq!(cells.len(), PRESETS.len(), "{name}");
        rows.push(format!("| {name} | {} |", cells.join(" | ")));
    }
    rows
}

/// Compares a table of the documentation with what happens; with UPDATE_GOLDEN it is written.
fn is_documented(who: Who, title: &str) {
    if !is_root() {
        return skip("needs root, for workers of several users");
    }
    let rows = table(who).join("\n");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/sandbox.md");
    let page = fs::read_to_string(&path).expect("read docs/sandbox.md");
    let start = page
        .find(&format!("### {title}\n"))
        .expect("the title of the table");
    let start = start
        + page[start..]
            .find("|---|\n")
            .expect("the head of the table")
        + 6;
    let end = start + page[start..].find("\n\n").expect("the end of the table");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        let page = format!("{}{rows}{}", &page[..start], &page[end..]);
        fs::write(path, page).expect("write docs/sandbox.md");
    } else {
        no_less_is_stopped(&page[start..end], &rows);
    }
}

/// What is said to be stopped is. A machine may stop more by itself, as far as that is not what shows that an
/// attempt is one.
fn no_less_is_stopped(said: &str, done: &str) {
    assert_eq!(
        said.lines().count(),
        done.lines().count(),
        "UPDATE_GOLDEN=1 writes it:\n{done}"
    );
    for (said, done) in said.lines().zip(done.lines()) {
        let cells = |line: &str| -> Vec<String> { line.split('|').map(str::to_owned).collect() };
        let (of_page, of_run) = (cells(said), cells(done));
        assert_eq!(of_page[1], of_run[1]);
        for (said, done) in of_page.iter().zip(&of_run) {
            let is_worse = done.contains("yes") && !said.contains("yes");
            assert!(!is_worse, "said:{of_page:?}\ndone: {of_run:?}");
        }
        let everywhere = [
            "write where",
            "read temporary",
            "signal a",
            "change the limits",
            "connect to a server",
            "setuid program",
        ];
        if everywhere.iter().any(|name| of_run[1].contains(name)) {
            assert!(
                of_run[2].contains("yes"),
                "without a sandbox, too: {of_run:?}"
            );
        }
    }
}

#[test]
fn what_a_worker_of_a_user_can_do_under_root() {
    is_documented(
        Who::UserOfRoot,
        "listend as root, the worker as another user",
    );
}

#[test]
fn what_a_worker_of_root_can_do() {
    is_documented(Who::Root, "listend and the worker as root");
}

#[test]
fn what_a_worker_can_do_under_its_own_user() {
    is_documented(Who::User, "listend and the worker as the same user");
}
