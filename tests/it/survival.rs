//! The daemon is killed or replaced while something is under way, and the next one goes on.
//!
//! The workers are `probe heir` where they are puppets: `probe puppet` dies with its parent.

mod against;
mod damaged;
mod flood;
mod flows;
mod kinds;
mod load;
mod many;
mod midway;
mod room;
mod unwatched;
mod written;

use crate::harness::reloading::{ask, state_of};
use crate::harness::varlink::Varlink;
use crate::harness::{Daemon, Puppet, Start, World, children, eventually, kill, settled, state};
use nix::sys::signal::Signal;
use serde_json::json;
use std::fs;
use std::path::Path;

/// A daemon below a guard.
pub(crate) struct Guarded<'a> {
    world: &'a World,
    pub(crate) guard: Daemon,
    /// The pid of the guard, which may be a child of what was started.
    guard_pid: i32,
    daemon: i32,
    /// How many the guard has started so far.
    started: usize,
    /// How many listends have gone on so far.
    resumed: usize,
}

/// What happens to the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Blow {
    Kill,
    Upgrade,
}

pub(crate) const BLOWS: [Blow; 2] = [Blow::Kill, Blow::Upgrade];

pub(crate) fn guarded<'a>(world: &'a World, yaml: &str) -> Guarded<'a> {
    guarded_through(world, yaml, &[])
}

/// Behind the words of another command that executes it, as its child if that is `unshare --fork`.
fn guarded_through<'a>(world: &'a World, yaml: &str, words: &[&'static str]) -> Guarded<'a> {
    let guard = world.run_with(yaml, |start| {
        start.words_behind(["--guard", "--control", "$DIR/control.sock"]);
        start.env("NOTIFY_SOCKET", "$DIR/manager");
        start.through(words.iter().copied());
    });
    let mut guard_pid = guard.pid();
    if words.contains(&"--fork") {
        eventually("unshare has started it", || {
            let all = children(guard.pid());
            all.first().inspect(|pid| guard_pid = **pid).is_some()
        });
    }
    let mut guarded = Guarded {
        world,
        guard,
        guard_pid,
        daemon: 0,
        started: 0,
        resumed: 0,
    };
    guarded.daemon = guarded.next_daemon();
    guarded
}

/// What both blows leave as it was: a daemon of its own for each, which is stopped at the end.
pub(crate) fn at_each_blow(yaml: &str, test: impl Fn(&World, &mut Guarded<'_>, Blow)) {
    for blow in BLOWS {
        let world = World::new();
        let mut guarded = guarded(&world, yaml);
        test(&world, &mut guarded, blow);
        guarded.stop();
    }
}

fn is_ready(puppet: &mut Puppet) {
    puppet.ask("notify READY=1");
}

fn wait_for(world: &World, wanted: &str) {
    eventually(&format!("app is {wanted}"), || {
        state_of(world, "workers", "app") == wanted
    });
}

/// A command of the client, which runs on.
fn asks(world: &World, words: &str) -> Daemon {
    let words = words.split(' ').chain(["--control", "$DIR/control.sock"]);
    world.start(Start::new(words))
}

impl Guarded<'_> {
    /// The daemon, its children, and those of the daemons before it.
    fn processes(&self) -> Vec<i32> {
        let mut all = children(self.guard_pid);
        all.extend(children(self.daemon));
        all
    }

    /// The daemon that the guard has started after the one before.
    #[track_caller]
    fn next_daemon(&mut self) -> i32 {
        let started = self.guard.guarded(self.started + 1);
        self.started = started.len();
        // In a pid namespace it has that number there, and another here.
        let inner = started[self.started - 1].to_string();
        let is_it = |pid: &i32| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let mut lines = status.lines();
            let numbers = lines.find_map(|line| line.strip_prefix("NSpid:"));
            numbers.and_then(|numbers| numbers.split_whitespace().last()) == Some(inner.as_str())
        };
        let mut found = None;
        eventually("there is a daemon", || {
            found = children(self.guard_pid).into_iter().find(is_it);
            found.is_some()
        });
        found.expect("found")
    }

    /// The next goes on, and can be asked.
    #[track_caller]
    fn goes_on(&mut self) {
        self.resumed += 1;
        self.guard.lines(&["going on where listend"], self.resumed);
        let _answered = Varlink::connect(self.world).ask("Status", json!({}));
    }

    /// Kills the daemon, and the next one goes on.
    #[track_caller]
    fn kill(&mut self) {
        kill(self.daemon, Signal::SIGKILL);
        self.daemon = self.next_daemon();
        self.goes_on();
    }

    #[track_caller]
    pub(crate) fn strike(&mut self, blow: Blow) {
        match blow {
            Blow::Kill => {
                // What it does in the turn in which it is killed is not written down.
                settled(self.daemon);
                self.kill();
            }
            Blow::Upgrade => {
                self.resumed += 1;
                let done = ask(self.world, "upgrade --now").expect_code(0);
                assert!(done.stdout.contains(" upgraded to "), "{}", done.stdout);
            }
        }
    }

    /// Kills the daemon, and before the next one is started something happens.
    #[track_caller]
    fn kill_and_meanwhile(&mut self, meanwhile: impl FnOnce()) {
        self.pause();
        kill(self.daemon, Signal::SIGKILL);
        eventually("it is dead", || state(self.daemon) == Some('Z'));
        meanwhile();
        self.resume();
        self.daemon = self.next_daemon();
        self.goes_on();
    }

    /// Stops the guard, so that it starts nothing.
    fn pause(&self) {
        // All that the daemon has sent is kept.
        settled(self.daemon);
        settled(self.guard_pid);
        kill(self.guard_pid, Signal::SIGSTOP);
        eventually("the guard is stopped", || {
            state(self.guard_pid) == Some('T')
        });
    }

    fn resume(&self) {
        kill(self.guard_pid, Signal::SIGCONT);
    }

    /// The descriptors that the guard keeps, by what they are.
    fn kept(&self) -> Vec<String> {
        let folder = fs::read_dir(format!("/proc/{}/fd", self.guard_pid)).expect("it runs");
        let targets = folder.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
        let targets = targets.map(|path| path.to_string_lossy().into_owned());
        targets.collect()
    }

    /// How many snapshots, and other files, the guard keeps.
    pub(crate) fn kept_like(&self, what: &str) -> usize {
        let kept = self.kept();
        kept.iter().filter(|path| path.contains(what)).count()
    }

    #[track_caller]
    pub(crate) fn stop(&self) {
        self.guard.stop();
    }
}

/// The path of the snapshot, through the guard.
fn snapshot_of(guarded: &Guarded<'_>) -> std::path::PathBuf {
    let folder = fs::read_dir(format!("/proc/{}/fd", guarded.guard_pid)).expect("it runs");
    let mut paths = folder.filter_map(|entry| Some(entry.ok()?.path()));
    let is_it = |path: &std::path::PathBuf| {
        let target = fs::read_link(path).unwrap_or_default();
        target.starts_with(Path::new("/memfd:listend-snapshot (deleted)"))
    };
    paths.find(is_it).expect("a snapshot is kept")
}

/// A configuration of one worker that does as the test tells it, with these lines more.
pub(crate) fn puppets(lines: &str) -> String {
    let lines: String = lines.lines().map(|line| format!("    {line}\n")).collect();
    format!(
        "workers:
  app:
    command: [$PROBE, heir, $EVENTS]
    ready: notify
    notify_access: all
{lines}"
    )
}
