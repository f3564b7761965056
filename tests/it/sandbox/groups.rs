//! Limits: each process of a worker in a control group of its own, as far as the kernel has groups of version 2 here.
//!
//! The machine may have no controllers for them, so most limits are `infinity`: groups are made all the same. What
//! the files hold and which obstacles there are is tested beside the code (`cgroup::tests`).

use crate::harness::app::{PUPPET, yaml};
use crate::harness::reloading::ask;
use crate::harness::{Daemon, World, client, eventually, require_tool, skip};
use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// A group below that of the test, which listend may divide. What is in it ends with it.
pub(crate) struct Group(PathBuf);

impl Group {
    pub(crate) fn new() -> Option<Group> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let Some(own) = own_group() else {
            skip("no control groups of version 2");
            return None;
        };
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        // Groups are those of other pid namespaces as well.
        let namespace = fs::metadata("/proc/self/ns/pid").map_or(0, |file| file.ino());
        let pid = std::process::id();
        let path = own.join(format!("test-of-listend-{namespace}-{pid}-{number}"));
        if let Err(error) = fs::create_dir(&path) {
            skip(&format!("no control group can be made: {error}"));
            return None;
        }
        let group = Group(path);
        if !group.holds(&mut group.shell("exit 0")) || !group.0.join("cgroup.kill").exists() {
            skip("nobody can be moved to a control group here, or killed in it");
            return None;
        }
        Some(group)
    }

    /// Words that enter it and execute what follows.
    pub(crate) fn words(&self) -> [String; 4] {
        let enter = format!("echo 0 > {}/cgroup.procs && exec \"$@\"", self.0.display());
        ["sh".to_owned(), "-c".to_owned(), enter, "sh".to_owned()]
    }

    fn shell(&self, script: &str) -> Child {
        let words = self.words();
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).args(["sh", "-c", script]);
        let command = command.stderr(Stdio::null()).stdin(Stdio::null());
        command.spawn().expect("start a shell")
    }

    fn holds(&self, child: &mut Child) -> bool {
        child.wait().expect("wait for it").success()
    }

    fn run(&self, world: &World, yaml: &str, more: &[&str]) -> Daemon {
        let words = self.words();
        world.run_with(yaml, |start| {
            start.through(words.iter().map(String::as_str));
            start.words_behind(more.iter().copied());
        })
    }

    /// The groups of workers, and who is in each.
    pub(crate) fn workers(&self) -> Vec<(String, Vec<i32>)> {
        let entries = fs::read_dir(&self.0).expect("the group").flatten();
        let names = entries.map(|entry| entry.file_name().into_string().expect("UTF-8"));
        let names = names.filter(|name| name.starts_with("listend.") && name != "listend.daemon");
        let mut all: Vec<_> = names
            .map(|name| (name.clone(), pids(&self.0.join(name))))
            .collect();
        all.sort();
        all
    }

    /// Who is in the groups of the workers.
    fn pids(&self) -> Vec<i32> {
        self.workers()
            .into_iter()
            .flat_map(|(_, pids)| pids)
            .collect()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _nobody = fs::write(self.0.join("cgroup.kill"), "1");
        eventually("the groups of the test are empty", || {
            let below = fs::read_dir(&self.0).into_iter().flatten().flatten();
            for entry in below.filter(|entry| entry.path().is_dir()) {
                let _busy = fs::remove_dir(entry.path());
            }
            fs::remove_dir(&self.0).is_ok() || !self.0.exists()
        });
    }
}

fn pids(group: &Path) -> Vec<i32> {
    let text = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|pid| pid.parse().ok()).collect()
}

/// Where the group of this process is, as a folder.
fn own_group() -> Option<PathBuf> {
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = own
        .lines()
        .find_map(|line| line.strip_prefix("0::/"))?
        .to_owned();
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    let mut mounts = mounts
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>());
    let mount = mounts.find(|words| words.get(2) == Some(&"cgroup2"))?;
    let own = Path::new(mount[1]).join(own);
    own.join("cgroup.procs").exists().then_some(own)
}

/// A worker of which a process leaves the session, and writes down its number.
fn yaml_of_escape(lines: &str) -> String {
    let script = "setsid sh -c \"echo \\$\\$ > $DIR/escaped; exec sleep 1000\" & exec sleep 1000";
    let lines = format!("sandbox: {{ tasks_max: infinity }}\nrestart: never\n{lines}");
    yaml(&format!("[sh, -c, '{script}']"), &lines)
}

fn escaped(world: &World) -> i32 {
    let mut pid = None;
    eventually("the process has left", || {
        let text = fs::read_to_string(world.path("escaped")).unwrap_or_default();
        pid = text.trim_end().parse().ok();
        pid.is_some()
    });
    pid.expect("a number")
}

fn is_gone(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ")
        .is_none_or(|(_, rest)| rest.starts_with('Z'))
}

#[test]
fn each_process_has_a_group_and_none_is_left() {
    let Some(group) = Group::new() else { return };
    let world = World::new();
    let daemon = group.run(
        &world,
        "
listeners: { web: '127.0.0.1:0' }
workers:
  one:
    command: [cat, /proc/self/cgroup]
    listeners: [web]
    activation: per-connection
    handoff: inetd
    sandbox: { memory_max: infinity }
  app:
    command: [$PROBE, puppet, $EVENTS]
    instances: 3
    before_start: [sh, -c, 'cat /proc/self/cgroup >> $DIR/hooks']
    sandbox: { preset: basic, private_tmp: false, cpu_quota: infinity, best_effort: true }
  free:
    command: [sleep, '1000']
",
        &[],
    );
    let puppets = world.puppets(3);
    daemon.line(&["free.0: started"]);
    let names: Vec<String> = group.workers().into_iter().map(|(name, _)| name).collect();
    for (index, puppet) in puppets.iter().enumerate() {
        let pid = puppet.report.pid;
        let is_its =
            |name: &&String| name.starts_with("listend.app.") && name.ends_with(&format!(".{pid}"));
        assert_eq!(
            names.iter().filter(is_its).count(),
            1,
            "{index} of {names:?}"
        );
    }
    let hooks = fs::read_to_string(world.path("hooks")).expect("what the hooks wrote");
    assert_eq!(hooks.matches("/listend.app.").count(), 3, "{hooks}");
    for _ in 0..3 {
        let mut text = String::new();
        let mut stream = client::tcp(daemon.address("web")).expect("connect");
        stream.read_to_string(&mut text).expect("read");
        assert!(text.contains("/listend.one."), "{text}");
    }
    eventually("groups of what has ended are gone", || {
        group.workers().len() == 3
    });
    daemon.stop();
    eventually("no group is left", || group.workers().is_empty());
}

#[test]
fn who_left_the_session_is_killed_with_the_rest() {
    let Some(group) = Group::new() else { return };
    let world = World::new();
    // It ends by itself.
    let daemon = group.run(&world, &yaml_of_escape(""), &[]);
    let pid = escaped(&world);
    let [(_, pids)] = &group.workers()[..] else {
        panic!("one group");
    };
    let main = pids
        .iter()
        .copied()
        .find(|other| *other != pid)
        .expect("the main process");
    assert!(pids.contains(&pid), "{pids:?}");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(main), nix::sys::signal::SIGTERM)
        .expect("signal the main process");
    eventually("the rest is killed", || is_gone(pid));
    eventually("the group is removed", || group.workers().is_empty());
    daemon.stop();
    // It has to be killed.
    fs::remove_file(world.path("escaped")).expect("remove a file");
    let script = "trap \"\" TERM; setsid sh -c \"echo \\$\\$ > $DIR/escaped; exec sleep 1000\" & while :; do sleep 1000; done";
    let lines = "sandbox: { tasks_max: infinity }\nstop_timeout: 100ms";
    let daemon = group.run(&world, &yaml(&format!("[sh, -c, '{script}']"), lines), &[]);
    let pid = escaped(&world);
    daemon.stop();
    eventually("whoever left is killed, too", || is_gone(pid));
    assert!(group.workers().is_empty(), "before the daemon has ended");
}

#[test]
fn a_group_is_found_again_by_the_next_listend() {
    let Some(group) = Group::new() else { return };
    let world = World::new();
    let control = world
        .path("control.sock")
        .to_str()
        .expect("UTF-8")
        .to_owned();
    let more = ["--control", &control, "--guard"];
    let guard = group.run(&world, &yaml_of_escape("stop_timeout: 5s"), &more);
    let first = guard.guarded(1)[0];
    let pid = escaped(&world);
    let before = group.workers();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(first), nix::sys::signal::SIGKILL)
        .expect("kill the daemon");
    let second = guard.guarded(2)[1];
    assert_ne!(first, second);
    eventually("it answers", || ask(&world, "status").code == Some(0));
    assert_eq!(group.workers(), before, "nobody is moved");
    ask(&world, "upgrade").expect_code(0);
    assert_eq!(group.workers(), before, "nor by an upgrade");
    ask(&world, "stop app").expect_code(0);
    eventually("whoever left is killed", || is_gone(pid));
    eventually("the group is removed", || group.workers().is_empty());
    guard.stop();
}

// Nobody who is not listend's may be moved, or be in a group that is killed.
#[test]
fn a_group_with_others_in_it_is_not_divided() {
    let Some(group) = Group::new() else { return };
    let world = World::new();
    let mut other = group.shell("exec sleep 1000");
    eventually("it is in the group", || !pids(&group.0).is_empty());
    let daemon = group.run(
        &world,
        &yaml(PUPPET, "sandbox: { tasks_max: infinity }"),
        &[],
    );
    let said = daemon.finish().expect_code(69);
    let said = said.stderr;
    assert!(
        said.contains("has processes that are not listend's"),
        "{said}"
    );
    assert!(said.contains("limit-not-enforced"), "{said}");
    assert!(group.workers().is_empty() && pids(&group.0).contains(&other.id().cast_signed()));
    let _ended = other.kill();
    other.wait().expect("wait for it");
}

#[test]
fn a_hundred_instances_have_a_hundred_groups() {
    let Some(group) = Group::new() else { return };
    let world = World::new();
    let lines = "instances: 100\nsandbox: { tasks_max: infinity }";
    let daemon = group.run(&world, &yaml("[sleep, '1000']", lines), &[]);
    daemon.lines(&["app.", ": started"], 100);
    assert_eq!((group.workers().len(), group.pids().len()), (100, 100));
    daemon.stop();
    eventually("no group is left", || group.workers().is_empty());
}

// Without a controller there is no limit: an error, or with `best_effort` a line.
#[test]
fn a_limit_that_nothing_enforces_is_an_error() {
    let Some(group) = Group::new() else { return };
    let controllers =
        fs::read_to_string(group.0.join("cgroup.controllers")).expect("the controllers");
    if controllers.contains("memory") {
        return skip("there is a memory controller");
    }
    let world = World::new();
    let of = |more: &str| yaml(PUPPET, &format!("sandbox: {{ memory_max: 1G{more} }}"));
    let said = group
        .run(&world, &of(""), &[])
        .finish()
        .expect_code(69)
        .stderr;
    assert!(
        said.contains("`memory_max` of its sandbox cannot be enforced"),
        "{said}"
    );
    let daemon = group.run(&world, &of(", best_effort: true"), &[]);
    daemon.line(&["`memory_max` is not enforced"]);
    let _puppet = world.puppet();
    assert_eq!(group.workers().len(), 1, "it has a group all the same");
    daemon.stop();
}

// Where the daemon has none left, it takes what it keeps for that.
#[test]
fn what_left_the_session_is_killed_without_descriptors_too() {
    let Some(group) = Group::new() else { return };
    let Some(prlimit) = require_tool("prlimit") else {
        return;
    };
    let world = World::new();
    let daemon = group.run(&world, &yaml_of_escape(""), &[]);
    let left = escaped(&world);
    let pids = group.pids();
    let main = pids.iter().copied().find(|pid| *pid != left);
    let main = nix::unistd::Pid::from_raw(main.expect("the main process"));
    let pid = daemon.pid().to_string();
    // The soft limit.
    let status = Command::new(prlimit)
        .args(["--pid", &pid, "--nofile=0:"])
        .status();
    assert!(status.expect("start prlimit").success());
    nix::sys::signal::kill(main, nix::sys::signal::SIGTERM).expect("signal it");
    eventually("the rest is killed", || is_gone(left));
    eventually("the group is removed", || group.workers().is_empty());
    daemon.stop();
}

#[test]
fn groups_that_a_worker_has_made_go_with_its_own() {
    let Some(group) = Group::new() else { return };
    let world = World::new();
    let own = format!("{}/listend.app.0.$$", group.0.display());
    let script = format!("mkdir -p {own}/below/deep {own}/beside; exec sleep 1000");
    let yaml = yaml(
        &format!("[sh, -c, '{script}']"),
        "sandbox: { tasks_max: infinity }",
    );
    let daemon = group.run(&world, &yaml, &[]);
    eventually("there is a group below", || {
        let workers = group.workers();
        workers
            .iter()
            .any(|(name, _)| group.0.join(name).join("beside").exists())
    });
    daemon.stop();
    eventually("no group is left", || group.workers().is_empty());
}

// A listend that is killed between the end of a process and that of its group knows nothing of it any more.
#[test]
fn what_a_listend_before_has_left_is_killed_and_removed() {
    let Some(group) = Group::new() else { return };
    let world = World::new();
    let control = world.path("control.sock");
    let control = control.to_str().expect("UTF-8");
    let yaml = yaml("[sleep, '1000']", "sandbox: { tasks_max: infinity }");
    let guard = group.run(&world, &yaml, &["--control", control, "--guard"]);
    guard.line(&["app.0: started"]);
    let before = group.workers();
    let first = guard.guarded(1)[0];
    let mut gone = Command::new("true").spawn().expect("start true");
    let pid = gone.id();
    gone.wait().expect("wait for it");
    let left = |worker: &str| {
        let path = group.0.join(format!("listend.{worker}.0.{pid}"));
        fs::create_dir(&path).expect("make a group");
        let enter = format!("echo 0 > {}/cgroup.procs; exec sleep 1000", path.display());
        let who = Command::new("sh").args(["-c", &enter]).spawn();
        let who = who.expect("start a shell");
        eventually("it is in the group", || !pids(&path).is_empty());
        (path, who)
    };
    let (path, mut who) = left("app");
    let (other_path, mut other) = left("other");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(first), nix::sys::signal::SIGKILL)
        .expect("kill the daemon");
    guard.guarded(2);
    eventually("who was left is killed", || {
        who.try_wait().expect("wait for it").is_some()
    });
    eventually("the group is removed", || !path.exists());
    assert!(
        other.try_wait().expect("wait for it").is_none(),
        "it is nobody's that listend knows"
    );
    assert!(before.iter().all(|one| group.workers().contains(one)));
    other.kill().expect("kill it");
    other.wait().expect("wait for it");
    eventually("nobody is in it", || pids(&other_path).is_empty());
    guard.stop();
}

// cgroups(7): mkdir fails with EAGAIN.
#[test]
fn where_no_more_groups_may_be_made_a_start_is_tried_again() {
    let Some(group) = Group::new() else { return };
    let limit = |most: &str| fs::write(group.0.join("cgroup.max.descendants"), most);
    if limit("1").is_err() {
        return skip("the number of groups cannot be limited");
    }
    let world = World::new();
    let lines = "instances: 2\nsandbox: { tasks_max: infinity }";
    let daemon = group.run(&world, &yaml("[sleep, '1000']", lines), &[]);
    daemon.line(&["EAGAIN; see cgroup.max.descendants", "restarting in"]);
    limit("max").expect("lift the limit");
    eventually("both have started", || group.pids().len() == 2);
    daemon.stop();
    eventually("no group is left", || group.workers().is_empty());
}
