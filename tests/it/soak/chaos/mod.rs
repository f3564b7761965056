//! One daemon with every feature at once, under load, and an adversary who does what operators and machines do.
//! After each of its acts everything has to come to rest as it should be.
//!
//! `make soak` runs it for an hour, `make soak MINUTES=N SEED=S` as long and in the order that is asked for. All
//! choices follow from the seed; what the processes do meanwhile does not, so a failure that a seed has found may
//! need several runs. `LISTEND_SOAK_ONLY=act,act` has only these acts.
//!
//! It runs in namespaces of its own (pid, net, mount, ipc): whatever is there belongs to it, addresses come and
//! go, and nothing is left at the end.

mod acts;
mod faults;
mod load;
mod look;
mod model;
mod patience;

use self::acts::{ACTS, Act};
use self::load::{Allowed, Load};
use self::look::{Look, Who};
use self::model::{ENDPOINTS, Model};
use self::patience::Since;
use crate::harness::{Daemon, TempDir, World, eventually, require_root, require_tool, skip};
use crate::sandbox::groups::Group;
use crate::sim::random::Rng;
use listend::control::Status;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// How long it takes to come to rest, at most: several stops one after the other, on a busy machine.
const REST: Duration = Duration::from_secs(90);
/// What is not at rest is told so often.
const TELL: Duration = Duration::from_secs(20);
/// So many steps after which everything is as in the beginning, and compared with that.
const ROUND: usize = 12;
/// No act has more instances than that of what has shards.
const MOST_INSTANCES: usize = 5;
/// What the memory of a process may differ by from what it was after the first round, in KiB. Lines of
/// the log, events and buffers are kept up to a limit, which is reached only after a while.
const GROWTH: u64 = 8 * 1024;
/// The pid outside, for what is in no namespace.
const INSIDE: &str = "LISTEND_SOAK_INSIDE";

/// In the namespaces: mounts that are the soak's own.
const SETUP: &str = "mount -t tmpfs -o mode=755 tmpfs /run && mount -t tmpfs tmpfs /dev/shm && ip link set lo up || exit 9
mkdir /run/lock
test ! -d /dev/mqueue || mount -t mqueue mqueue /dev/mqueue || exit 9
\"$@\"
exit $?";

#[test]
fn everything_at_once_survives_an_adversary() {
    if std::env::var_os(INSIDE).is_some() {
        return Soak::run();
    }
    if time().is_none() {
        skip("neither LISTEND_TEST_LONG nor LISTEND_SOAK_MINUTES is set");
        return;
    }
    let tools = ["unshare", "ip", "prlimit", "python3"];
    if !require_root() || tools.iter().any(|name| require_tool(name).is_none()) {
        return;
    }
    let namespaces = [
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
        "--net",
        "--mount",
        "--ipc",
    ];
    let unshare = |words: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(namespaces).args(words);
        command
    };
    if !unshare(&["true"]).status().is_ok_and(|one| one.success()) {
        skip("no namespaces to be had");
        return;
    }
    let program = std::env::current_exe().expect("the path of this program");
    let program = program.to_str().expect("UTF-8");
    let test = "soak::chaos::everything_at_once_survives_an_adversary";
    let dir = TempDir::new();
    let ended = unshare(&[
        "sh",
        "-c",
        SETUP,
        "sh",
        program,
        "--exact",
        test,
        "--nocapture",
    ])
    .env(INSIDE, std::process::id().to_string())
    .env("TMPDIR", dir.path())
    .status()
    .expect("start unshare");
    assert!(ended.success(), "see above: {ended}");
    assert!(dir.path().join("done").exists(), "it has run");
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// How long, if that is asked for.
fn time() -> Option<Duration> {
    let is_long = std::env::var_os("LISTEND_TEST_LONG").is_some();
    let minutes = number("LISTEND_SOAK_MINUTES").or(is_long.then_some(10))?;
    Some(Duration::from_secs(60 * minutes))
}

/// How long, and from which seed.
fn task() -> (Duration, u64) {
    let time = time().expect("it is asked for outside");
    (time, number("LISTEND_SOAK_SEED").unwrap_or(1))
}

#[expect(clippy::print_stdout, reason = "shown by cargo test -- --show-output")]
fn say(text: &str) {
    println!("{text}");
}

/// Everything that belongs to a run.
pub struct Soak<'a> {
    world: &'a World,
    guard: Daemon,
    /// Where the groups of workers are, if there can be any; it goes after the guard.
    group: Option<Group>,
    load: Load,
    model: Model,
    random: Rng,
    allowed: Allowed,
    /// Whether the late address is there: a listener that is bound stays so without it.
    has_address: bool,
    control: PathBuf,
    has_clock: bool,
    /// What each shape took when it was seen first.
    before: BTreeMap<String, BTreeMap<String, BTreeMap<String, usize>>>,
    memory: Option<[u64; 2]>,
    rounds: usize,
}

impl Soak<'_> {
    fn run() {
        let (time, seed) = task();
        let world = World::new();
        let disk = world.path("disk");
        for name in ["disk", "src"] {
            fs::create_dir(world.path(name)).expect("create a folder");
        }
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=512k,mode=755", "tmpfs"])
            .arg(&disk)
            .status();
        assert!(mounted.expect("start mount").success(), "mount");
        fs::write(world.path("src/main"), "0").expect("write");
        world.write("flood.py", faults::FLOOD);
        let outside: u32 = std::env::var(INSIDE)
            .ok()
            .and_then(|pid| pid.parse().ok())
            .unwrap_or(0);
        let port = 20_000 + outside % 40_000;
        let vsock = world.check(&format!("listeners: {{ it: 'vsock::{port}' }}"), &[]);
        let vsock = (vsock.code == Some(0)).then_some(port);
        let flows = "listeners: { it: { address: 'udp://127.0.0.1:9', flows: sticky } }";
        let flows = world.check(flows, &["--json"]);
        let is_sticky = !flows.text().contains("flows-not-kept");
        let group = Group::new();
        let model = Model::new(world.dir(), vsock, is_sticky, group.is_some());
        let library = faults::clock_library();
        let holder = library.map(faults::Clock::start);
        let enter = group.as_ref().map(Group::words);
        let guard = world.run_with(&model.yaml(), |start| {
            if let Some(words) = &enter {
                start.through(words.iter().map(String::as_str));
            }
            start.words_behind(["--guard", "--control", "$DIR/control.sock"]);
            start.env("RUST_BACKTRACE", "1");
            if let (Some(library), Some(holder)) = (&library, &holder) {
                fs::write(world.path("time"), "+0").expect("write");
                start.env("LD_PRELOAD", library);
                start.env("FAKETIME_TIMESTAMP_FILE", "$DIR/time");
                start.env("FAKETIME_SHARED", &holder.name());
                start.env("FAKETIME_NO_CACHE", "1");
                start.env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
            }
        });
        let mut soak = Soak {
            world: &world,
            guard,
            group,
            load: Load::start(world.dir()),
            model,
            random: Rng::from_seed(seed),
            allowed: Allowed::default(),
            has_address: false,
            control: world.path("control.sock"),
            has_clock: library.is_some(),
            before: BTreeMap::new(),
            memory: None,
            rounds: 0,
        };
        say(&format!(
            "soak: seed {seed}, {time:?}; vsock {vsock:?}, sticky flows {is_sticky}, clock {}, groups {}",
            soak.has_clock,
            soak.group.is_some()
        ));
        soak.rest("the start");
        soak.resume();
        soak.load.wait_for_answers(3);
        soak.go_on_until(Instant::now() + time);
        let (answered, starved) = soak.load.answered();
        say(&format!("soak: answered {answered:?}, {starved} starved"));
        soak.guard.stop();
        drop(holder);
        soak.nothing_is_left();
        let done = std::env::temp_dir().join("done");
        fs::write(done, "").expect("write");
    }

    fn go_on_until(&mut self, end: Instant) {
        let started = Instant::now();
        let mut step = 0;
        while Instant::now() < end {
            step += 1;
            let act = match step % ROUND {
                0 => acts::HOME,
                _ => self.choose(),
            };
            self.step(step, started, &act);
        }
        // The last comparison.
        self.step(step + 1, started, &acts::HOME);
    }

    fn choose(&mut self) -> Act {
        let only = std::env::var("LISTEND_SOAK_ONLY").unwrap_or_default();
        let is_meant = |act: &&Act| only.is_empty() || only.split(',').any(|one| one == act.name);
        let possible: Vec<&Act> = ACTS
            .iter()
            .filter(is_meant)
            .filter(|act| (act.can)(self))
            .collect();
        let all: u32 = possible.iter().map(|act| act.weight).sum();
        assert!(all > 0, "no act is possible: {only}");
        let mut at = self.random.below(u64::from(all)) as u32;
        for act in possible {
            if at < act.weight {
                return *act;
            }
            at -= act.weight;
        }
        acts::HOME
    }

    fn step(&mut self, step: usize, started: Instant, act: &Act) {
        self.allowed = Allowed::default();
        let begun = Instant::now();
        let told = (act.act)(self);
        let at = started.elapsed().as_secs_f32();
        let line = format!("{at:8.1}s step {step}: {}: {told}", act.name);
        say(&line);
        let acted = begun.elapsed();
        let look = self.rest(&line);
        self.resume();
        self.load.wait_for_answers(1);
        if act.name == acts::HOME.name {
            self.rounds += 1;
            let memory = self.memory.get_or_insert(look.memory);
            if self.rounds == 2 {
                *memory = look.memory;
            }
            for (now, before) in look.memory.iter().zip(*memory) {
                let is_bounded = self.rounds < 2 || *now < before + GROWTH;
                assert!(is_bounded, "{now} KiB after {before} KiB; {line}");
            }
        }
        let rested = begun.elapsed().saturating_sub(acted);
        let [guard, daemon] = look.memory;
        say(&format!(
            "          acted {:.1}s, rested {:.1}s; adopted {}, {guard} + {daemon} KiB",
            acted.as_secs_f32(),
            rested.as_secs_f32(),
            look.adopted
        ));
    }

    /// The endpoints where nobody listens, or can be reached.
    fn closed(&self) -> BTreeSet<&'static str> {
        let mut closed: BTreeSet<&str> = ENDPOINTS
            .iter()
            .filter(|one| !self.model.is_served(one) || self.model.stopped.contains(one.worker))
            .map(|one| one.name)
            .collect();
        if !self.has_address {
            closed.insert("late");
        }
        closed
    }

    fn resume(&self) {
        self.load.resume(self.closed());
    }

    /// Waits until everything rests as it should, nobody being there; else the test has failed.
    fn rest(&mut self, after: &str) -> Look {
        let begun = Since::now();
        // Those who wait for somebody who starts have their answers first.
        let (failures, slowest) = self.load.pause();
        let bad = self.allowed.check(&failures);
        let (count, paused) = (failures.len(), begun.elapsed());
        assert!(bad.is_empty(), "clients were lost; {after}: {bad:#?}");
        let mut last: Option<(String, Look)> = None;
        let mut told = TELL;
        loop {
            let mut bad = match self.status() {
                Ok(status) => look::unrest(&self.model, &status)
                    .into_iter()
                    .map(Err)
                    .chain([Ok(status)])
                    .collect::<Vec<_>>(),
                Err(error) => vec![Err(format!("status: {error}"))],
            };
            let status = bad.pop_if(|one| one.is_ok()).and_then(Result::ok);
            let mut bad: Vec<String> = bad.into_iter().filter_map(Result::err).collect();
            if let Some(status) = status.filter(|_| bad.is_empty()) {
                let who = self.who(&status);
                let mut look = look::look(&self.model, self.world.dir(), &who, &status);
                if let Some(group) = &self.group {
                    look.bad.extend(look::groups(&status, group));
                }
                let key = self.key(&status, &look);
                // What comes and goes shows in one of two looks.
                let is_steady = last
                    .as_ref()
                    .is_some_and(|(before, one)| *before == key && one.same == look.same);
                bad.extend(look.bad.clone());
                if is_steady && bad.is_empty() {
                    bad.extend(self.compare(&key, &look));
                }
                if is_steady && bad.is_empty() {
                    bad.extend(look::unquiet(&who));
                }
                if is_steady && bad.is_empty() {
                    let dir = self.world.dir();
                    bad.extend(look::ask_everybody(&self.model, dir, &self.closed()));
                }
                if is_steady && bad.is_empty() {
                    say(&format!(
                        "          {count} losses, slowest {:.1}s, paused after {:.1}s",
                        slowest.as_secs_f32(),
                        paused.as_secs_f32()
                    ));
                    return look;
                }
                last = Some((key, look));
            }
            if begun.elapsed() > told {
                say(&format!("          no rest yet: {bad:?}"));
                told += TELL;
            }
            if begun.is_over(REST) {
                panic!(
                    "no rest; {after}: {bad:#?}
{}
{}",
                    self.model.shape(),
                    self.told()
                );
            }
            // Much of this makes no event that could be waited for.
            std::thread::sleep(Duration::from_millis(60));
        }
    }

    /// What the comparison depends on.
    fn key(&self, status: &Status, look: &Look) -> String {
        let mut key = self.model.shape();
        for worker in &status.workers {
            let count = look::pids(status, &worker.name).len();
            key.push_str(&format!(" {} {count}", worker.name));
        }
        key.push_str(&format!(" adopted {} {}", look.adopted, look.helpers));
        key
    }

    /// More than at an earlier rest of the same shape.
    fn compare(&mut self, key: &str, look: &Look) -> Vec<String> {
        let before = self.before.entry(key.to_owned());
        let before = before.or_insert_with(|| look.same.clone());
        let mut bad = Vec::new();
        for (whose, now) in &look.same {
            // Not all instances of a worker whose number follows the queue have the same places again.
            let Some(all) = before.get(whose) else {
                continue;
            };
            for (kind, count) in now {
                let known = all.get(kind);
                // The socket of an instance stays open for the next time.
                let is_shard = self.model.may_be_several(kind) && *count <= MOST_INSTANCES;
                if !is_shard && known.is_none_or(|known| count > known) {
                    bad.push(format!("{whose} has {count} × {kind}, not {known:?}"));
                }
            }
        }
        if bad.is_empty() {
            // Fewer are as good, and the measure from now on.
            before.clone_from(&look.same);
        }
        bad
    }

    fn who(&self, status: &Status) -> Who {
        let daemon = status.daemon.as_ref().map_or(0, |daemon| daemon.pid);
        Who {
            guard: self.guard.pid(),
            daemon: i32::try_from(daemon).unwrap_or(0),
        }
    }

    /// What the daemon says, as soon as there is one.
    fn status(&self) -> io::Result<Status> {
        let since = Since::now();
        loop {
            match look::status(&self.control) {
                Err(error) if since.is_over(REST) => return Err(error),
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
                Ok(status) => return Ok(status),
            }
        }
    }

    /// What status tells people.
    fn told(&self) -> String {
        let words = ["status", "--control", "$DIR/control.sock"];
        self.world.finish(words).text()
    }

    fn now(&self) -> Status {
        self.status().expect("the daemon answers")
    }

    fn daemon(&self) -> i32 {
        self.who(&self.now()).daemon
    }

    /// A call that succeeds; what it replies.
    #[track_caller]
    fn ask(&self, method: &str, parameters: &Value) -> Value {
        let mut reply = look::call(&self.control, method, parameters).expect(method);
        assert!(reply["error"].is_null(), "{method} {parameters}: {reply}");
        reply["parameters"].take()
    }

    /// Writes the configuration, filled in.
    fn write(&self) {
        self.world.write("listend.yaml", &self.model.yaml());
    }

    /// Has the configuration follow the model.
    #[track_caller]
    fn reload(&self) {
        self.write();
        self.ask("Reload", &json!({}));
    }

    /// A process of a worker.
    fn pids(&self, worker: &str) -> Vec<i32> {
        let all = look::pids(&self.now(), worker).into_iter();
        all.map(|(_, pid)| pid).collect()
    }

    /// When listend has ended, nothing of it is left.
    fn nothing_is_left(&self) {
        let files = |folder: &str| {
            let entries = fs::read_dir(folder).into_iter().flatten();
            let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
            names.collect::<BTreeSet<String>>()
        };
        // mount(8) keeps a list there.
        let others = ["lock", "mount"].map(str::to_owned);
        let left: Vec<String> = files("/run").difference(&others.into()).cloned().collect();
        assert!(left.is_empty(), "left in /run: {left:?}");
        let ours = std::process::id() as i32;
        eventually("nobody is left", || {
            let left = look::everybody().into_iter();
            left.filter(|pid| *pid != 1 && *pid != ours).count() == 0
        });
        for name in self.model.files() {
            assert!(!self.world.path(&name).exists(), "{name} is left");
        }
    }
}

/// A file in the way of another.
fn exists(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

/// A tool that is there, for what is not worth a dependency.
#[track_caller]
fn run(words: &[&str]) -> String {
    let output = Command::new(words[0]).args(&words[1..]).output();
    let output = output.unwrap_or_else(|error| panic!("start {words:?}: {error}"));
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words:?}: {told}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
