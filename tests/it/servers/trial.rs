//! One server, tried: it starts, answers at each socket, is restarted and killed under load, and stops.

use super::recipe::{Kind, Places, Recipe};
use super::source::Source;
use crate::harness::load::{Counts, Load, Target};
use crate::harness::varlink::{self, Varlink};
use crate::harness::{Daemon, World, children, eventually, listend_path};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use serde_json::{Value as Json, json};
use serde_yaml::{Mapping, Value};
use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

/// Clients at each socket.
const CLIENTS: usize = 2;
/// For one start, of a runtime that is slow on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(90);
const RESTARTS: u32 = 100;
const KILLS: u32 = 20;

/// What was seen.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// The settings of the worker, as `listend explain` has them.
    pub settings: BTreeMap<String, String>,
    pub restarts: Losses,
    pub kills: Losses,
}

/// Who was lost in so many rounds.
#[derive(Debug, Clone, Default)]
pub struct Losses {
    pub rounds: u32,
    pub counts: Counts,
}

impl Losses {
    fn add(&mut self, other: &Losses) {
        self.rounds += other.rounds;
        self.counts.add(&other.counts);
    }
}

fn number(variable: &str) -> Option<u32> {
    std::env::var(variable).ok()?.parse().ok()
}

/// How long the restarts of a server may take, and a half of it its kills: a slow one does fewer.
fn budget() -> Duration {
    Duration::from_secs(number("LISTEND_SERVERS_SECONDS").unwrap_or(120).into())
}

/// Tries it; panics where it does not do as it should.
pub fn trial(recipe: &Recipe) -> Outcome {
    let sockets = &recipe.sockets;
    let parts: Vec<&[Kind]> = match recipe.one_at_a_time {
        true => sockets.chunks(1).collect(),
        false => vec![sockets],
    };
    let restarts = number("LISTEND_SERVERS_ROUNDS").unwrap_or(RESTARTS);
    let kills = restarts.div_ceil(RESTARTS / KILLS);
    let mut outcome = Outcome::default();
    for (done, kinds) in (0..).zip(&parts) {
        // Each kind of socket has a share, of what is left.
        let share = u32::try_from(parts.len()).expect("few kinds") - done;
        let restarts = (restarts - outcome.restarts.rounds).div_ceil(share);
        let kills = (kills - outcome.kills.rounds).div_ceil(share);
        Trial::start(recipe, kinds).run(restarts, kills, budget() / share, &mut outcome);
    }
    outcome
}

struct Trial<'a> {
    recipe: &'a Recipe,
    places: Places,
    kinds: Vec<Kind>,
    address: SocketAddr,
    /// It ends before its folder goes.
    daemon: Daemon,
    world: World,
}

impl<'a> Trial<'a> {
    fn start(recipe: &'a Recipe, kinds: &[Kind]) -> Trial<'a> {
        let world = World::new();
        let socket = kinds.first().map(|kind| recipe.name_of(*kind));
        let unpacked = match &recipe.from {
            Source::Unpacked(name) => Some(name.as_str()),
            _ => None,
        };
        let socket = socket.unwrap_or_default();
        let (places, port) = Places::new(world.dir(), listend_path(), &socket, unpacked);
        for (name, text) in &recipe.files {
            world.write_script(name, &places.fill(text));
        }
        if let Some(prepare) = &recipe.prepare {
            let mut command = Command::new("sh");
            command
                .args(["-ec", &places.fill(prepare)])
                .current_dir(world.dir());
            let output = command.output().expect("start sh");
            assert!(output.status.success(), "prepare: {output:?}");
        }
        let yaml = configuration(recipe, kinds, &places);
        let yaml = serde_yaml::to_string(&yaml).expect("YAML");
        let checked = world.check(&yaml, &[]).expect_code(0).text();
        if checked.contains("warning") {
            super::told(&checked);
        }
        let daemon = varlink::run(&world, &yaml);
        let trial = Trial {
            recipe,
            places,
            kinds: kinds.to_vec(),
            address: SocketAddr::from(([127, 0, 0, 1], port)),
            world,
            daemon,
        };
        trial.is_ready();
        for kind in kinds {
            let load = trial.load(*kind, 1);
            load.wait_for_answers(1);
            let summary = load.stop();
            assert_eq!(summary.counts.failed(), 0, "{}: {summary}", kind.name());
        }
        trial
    }

    fn target(&self, kind: Kind) -> Target {
        match kind {
            Kind::Tcp | Kind::Udp => self.address.into(),
            Kind::Unix => self.world.path("server.sock").as_path().into(),
        }
    }

    fn load(&self, kind: Kind, clients: usize) -> Load {
        let question = self.recipe.question(kind, &self.places);
        Load::asking(self.target(kind), clients, question)
    }

    fn status(&self) -> Json {
        let mut status = Varlink::connect(&self.world).ask("Status", json!({ "name": "server" }));
        status["workers"][0].take()
    }

    /// The processes that count as ready.
    fn running(&self) -> Vec<i32> {
        let status = self.status();
        let all = status["instances"].as_array().into_iter().flatten();
        let running = all.filter(|one| one["state"] == "running");
        let pids = running.filter_map(|one| one["pid"].as_i64());
        pids.filter_map(|pid| i32::try_from(pid).ok()).collect()
    }

    #[track_caller]
    fn is_ready(&self) {
        self.daemon.line(&["bound in"]);
        if self.recipe.is_started_by_clients() {
            return;
        }
        in_time("it is ready", || {
            assert!(self.daemon.is_running(), "listend has ended");
            !self.running().is_empty()
        });
    }

    fn run(self, restarts: u32, kills: u32, time: Duration, outcome: &mut Outcome) {
        outcome.settings = self.settings();
        outcome
            .restarts
            .add(&self.under_load(restarts, time, |trial| {
                let mut client = Varlink::connect(&trial.world).patient(PATIENCE);
                let reply = client.call("Restart", json!({ "worker": "server" }));
                assert!(reply["error"].is_null(), "Restart: {reply}");
            }));
        outcome
            .kills
            .add(&self.under_load(kills, time / 2, |trial| trial.kill()));
        self.end();
    }

    fn settings(&self) -> BTreeMap<String, String> {
        let file = self.world.path("listend.yaml");
        let file = file.to_str().expect("UTF-8");
        let words = ["explain", "server", "--json", "-c", file];
        let explained = self.world.finish(words).expect_code(0).json();
        let all = explained["worker"]["settings"].as_array();
        let text = |one: &Json, name: &str| one[name].as_str().unwrap_or_default().to_owned();
        let pair = |one| (text(one, "key"), text(one, "value"));
        all.expect("settings").iter().map(pair).collect()
    }

    /// Does it again and again while clients ask.
    fn under_load(&self, most: u32, time: Duration, blow: impl Fn(&Trial<'_>)) -> Losses {
        let loads: Vec<Load> = self
            .kinds
            .iter()
            .map(|kind| self.load(*kind, CLIENTS))
            .collect();
        let since = Instant::now();
        let mut rounds = 0;
        while rounds < most && (since.elapsed() < time || rounds < 5) {
            loads.iter().for_each(|load| load.wait_for_answers(2));
            blow(self);
            rounds += 1;
        }
        loads.iter().for_each(|load| load.wait_for_answers(2));
        let mut counts = Counts::default();
        for load in loads {
            let summary = load.stop();
            counts.add(&summary.counts);
            super::told(&format!("    {summary}"));
        }
        Losses { rounds, counts }
    }

    fn kill(&self) {
        if self.recipe.is_started_by_clients() {
            // The process of whom it hits.
            eventually("somebody is served", || {
                let daemon = self.daemon.pid();
                let served = children(daemon).into_iter();
                // It may have others: listend's own helpers.
                served.filter(|pid| is_of(*pid, daemon)).any(kill)
            });
            return;
        }
        let before = self.running();
        for pid in &before {
            kill(*pid);
        }
        in_time("another runs", || {
            let now = self.running();
            !now.is_empty() && now.iter().all(|pid| !before.contains(pid))
        });
    }

    /// Stops it: no process and no path is left.
    fn end(self) {
        let pid = self.daemon.pid();
        self.daemon.stop();
        for kind in &self.kinds {
            let path = self.world.path("server.sock");
            assert!(*kind != Kind::Unix || !path.exists(), "the path is left");
        }
        let mut left = Vec::new();
        let since = Instant::now();
        // What a worker has left to itself may take a moment to notice.
        while since.elapsed() < Duration::from_secs(5) {
            left = of_daemon(pid);
            if left.is_empty() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("processes are left: {left:?}");
    }
}

impl Drop for Trial<'_> {
    fn drop(&mut self) {
        // After a failure; listend itself stops with `daemon`.
        let pid = self.daemon.pid();
        if self.daemon.is_running() {
            self.daemon.signal(Signal::SIGTERM);
        }
        for (pid, _) in of_daemon(pid) {
            kill(pid);
        }
    }
}

fn in_time(what: &str, condition: impl Fn() -> bool) {
    let since = Instant::now();
    while !condition() {
        assert!(since.elapsed() < PATIENCE, "still not so: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn kill(pid: i32) -> bool {
    nix::sys::signal::kill(Pid::from_raw(pid), Signal::SIGKILL).is_ok()
}

/// Whether a process descends from a worker of this listend, as its environment says.
fn is_of(pid: i32, daemon: i32) -> bool {
    let variable = format!("LISTEND_PID={daemon}");
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let mut all = environment.split(|byte| *byte == 0);
    pid != daemon && all.any(|one| one == variable.as_bytes())
}

/// The processes that descend from workers of this listend, and their commands.
fn of_daemon(daemon: i32) -> Vec<(i32, String)> {
    let entries = fs::read_dir("/proc").expect("list /proc");
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let pids = names.filter_map(|name| name.parse::<i32>().ok());
    let command = |pid| fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    pids.filter(|pid| is_of(*pid, daemon))
        .map(|pid| (pid, command(pid).replace('\0', " ")))
        .collect()
}

/// Where runtimes find what scripts/server-setup has installed, and write nothing.
const VARIABLES: &[(&str, &str)] = &[
    ("HOME", "$DIR"),
    ("PYTHONPATH", "$APPS"),
    ("PYTHONDONTWRITEBYTECODE", "1"),
    ("NODE_PATH", "$NPM/node_modules"),
    ("NODE_ENV", "production"),
];

/// The configuration of listend for these listeners.
fn configuration(recipe: &Recipe, kinds: &[Kind], places: &Places) -> Value {
    let mut listeners = Mapping::new();
    for kind in kinds {
        let text = match kind {
            Kind::Tcp => "{ address: '$TCP' }",
            Kind::Udp => "{ address: 'udp://$TCP' }",
            Kind::Unix => "{ address: 'unix:$UNIX', mode: 0666 }",
        };
        let value = serde_yaml::from_str(&places.fill(text)).expect("YAML");
        listeners.insert(recipe.name_of(*kind).into(), value);
    }
    let mut worker = recipe.worker.clone();
    let names: Vec<String> = kinds.iter().map(|kind| recipe.name_of(*kind)).collect();
    let default = |worker: &mut Mapping, key: &str, text: &str| {
        let value = serde_yaml::from_str(text).expect("YAML");
        worker.entry(key.into()).or_insert(value);
    };
    default(
        &mut worker,
        "listeners",
        &serde_yaml::to_string(&names).expect("YAML"),
    );
    if recipe.is_per_connection() {
        default(&mut worker, "accept_rate", "none");
    } else {
        if recipe.key("preset").is_none() {
            default(&mut worker, "ready", "accepting");
            default(&mut worker, "stop_timeout", "15s");
        }
        default(
            &mut worker,
            "restart",
            "{ backoff: 10ms..50ms, limit: none }",
        );
        default(&mut worker, "rollout", "{ min_ready: 0s, watch: 0s }");
    }
    let mut environment = Mapping::new();
    for (name, value) in VARIABLES {
        environment.insert((*name).into(), (*value).into());
    }
    if let Some(Value::Mapping(own)) = worker.remove("environment") {
        environment.extend(own);
    }
    worker.insert("environment".into(), Value::Mapping(environment));
    let mut workers = Mapping::new();
    workers.insert("server".into(), places.fill_value(&Value::Mapping(worker)));
    let beside = |name: &str| {
        let some = recipe.beside.get(name).cloned().unwrap_or_default();
        match places.fill_value(&Value::Mapping(some)) {
            Value::Mapping(some) => some,
            _ => Mapping::new(),
        }
    };
    listeners.extend(beside("listeners"));
    workers.extend(beside("workers"));
    let mut all = Mapping::new();
    all.insert("listeners".into(), Value::Mapping(listeners));
    all.insert("workers".into(), Value::Mapping(workers));
    Value::Mapping(all)
}
