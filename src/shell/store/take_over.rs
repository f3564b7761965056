//! Going on with the workers of a listend that was killed and of which no snapshot is kept.
//!
//! What a snapshot would say is made up from what /proc says of the processes: a core that has not been
//! started yet is written down, with those that live in their places, and another is thawed from it. From
//! there on everything is as after an upgrade ([`super::resume`]).

use super::UNREAD;
use super::facts;
use super::readopt::{ByName, Started};
use super::resume::Resumed;
use crate::core::{Core, FORMAT, Known, Revision, Snapshot, WhenDone};
use crate::diagnose::Orphan;
use crate::listener::{BindError, SocketTable};
use crate::plan::{Activation, ListenerId, Plan, WorkerId, WorkerPlan};
use crate::shell::clock;
use crate::shell::definitions::{Definitions, listener_lives};
use crate::shell::signals::Signals;
use crate::shell::strays::Stray;
use crate::shell::turn::Shell;
use crate::store::Name;
use crate::sys;
use crate::worker::DaemonContext;
use nix::unistd::geteuid;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

/// A process that a listend has left behind.
#[derive(Debug)]
pub struct LeftWorker {
    /// What is known of it.
    pub orphan: Orphan,
    /// Stands for it, and nobody else.
    pub pidfd: OwnedFd,
    /// How long it has been running.
    pub age: Duration,
    /// Whether the configuration was changed after its start.
    pub is_outdated: bool,
}

/// An instance and its process.
struct Adopted<'a> {
    worker: WorkerId,
    plan: &'a WorkerPlan,
    index: u32,
    process: LeftWorker,
}

/// A place of a worker.
type PlaceOf = (WorkerId, u32);

impl Shell {
    /// Supervises what another listend has left behind. What cannot be supervised is asked to stop as soon as
    /// all else is ready.
    ///
    /// # Errors
    ///
    /// Why that cannot be, in words.
    pub fn take_over(
        plan: Plan,
        sockets: SocketTable,
        given: (Signals, DaemonContext),
        when_done: WhenDone,
        (left, missing): (Vec<LeftWorker>, Vec<BindError>),
    ) -> Result<Resumed, String> {
        let lifecycles = plan
            .workers
            .values()
            .map(|worker| Arc::clone(&worker.lifecycle));
        let fresh = Core::new(lifecycles, when_done)
            .with_listeners(listener_lives(&plan).into_values().collect());
        let definitions = Definitions::new(&plan, &fresh);
        let workers = plan.clone();
        let (adopted, strays) = sort(&workers, left);
        let absent: BTreeSet<ListenerId> = missing.iter().map(|error| error.listener).collect();
        let (snapshot, processes) = write_down(&fresh, &workers, &adopted, &absent)?;
        let known = Known {
            definitions: definitions.lifecycles(),
            listeners: listener_lives(&plan),
            former: Vec::new(),
            when_done,
        };
        let core = Core::thaw(&snapshot, known).map_err(|why| why.to_string())?;
        let to_replace = to_replace(&adopted);
        let mut notify = adopted.iter().map(|one| one.process.orphan.notify.clone());
        let notify = notify.find_map(|address| address);
        let hear: BTreeSet<WorkerId> = adopted
            .iter()
            .filter(|one| one.process.orphan.notify.is_some())
            .map(|one| one.worker)
            .collect();
        let mut fds = ByName::new();
        let pidfds = adopted.into_iter().map(|one| one.process.pidfd);
        for (fact, pidfd) in processes.iter().zip(pidfds) {
            fds.insert(Name::Process(fact.key), vec![pidfd]);
        }
        let mut shell = Shell::with_core(plan, sockets, given, core, definitions)
            .map_err(|error| error.to_string())?;
        let of = Started {
            connections: Vec::new(),
            stored: Vec::new(),
            processes,
            half_lines: HashMap::new(),
            by: std::process::id(),
        };
        shell.readopt(of, &mut fds);
        shell.strays = strays;
        Ok(Resumed {
            unheld: BTreeSet::new(),
            shell,
            missing,
            to_replace,
            notify: notify.map(|address| (address, hear)),
            acks: None,
        })
    }
}

/// Finds out which is which instance, and what cannot be one.
fn sort(plan: &Plan, left: Vec<LeftWorker>) -> (Vec<Adopted<'_>>, Vec<Stray>) {
    let mains = left.iter().filter(|one| one.orphan.is_main);
    let mains: BTreeSet<String> = mains.map(|one| one.orphan.instance.clone()).collect();
    let mut taken: BTreeMap<PlaceOf, i32> = BTreeMap::new();
    let (mut adopted, mut strays) = (Vec::new(), Vec::new());
    for process in left {
        let orphan = &process.orphan;
        if !orphan.is_main && mains.contains(&orphan.instance) {
            // A child of another, which is its own matter.
            continue;
        }
        match place(plan, orphan, &taken) {
            Ok(None) => log::info!(
                "{} (pid {}) serves a connection, and ends with it",
                orphan.instance,
                orphan.pid
            ),
            Ok(Some((worker, plan, index))) => {
                taken.insert((worker, index), orphan.pid);
                adopted.push(Adopted {
                    worker,
                    plan,
                    index,
                    process,
                });
            }
            Err(why) => {
                log::warn!(
                    "{} (pid {}) cannot be supervised: {why}; it is asked to stop when all workers are ready",
                    orphan.instance,
                    orphan.pid
                );
                strays.push(Stray {
                    name: orphan.instance.clone(),
                    pid: orphan.pid,
                    pidfd: process.pidfd,
                });
            }
        }
    }
    (adopted, strays)
}

/// The instance of a process; `None` if it serves a connection. `Err` says why it cannot be an instance.
fn place<'a>(
    plan: &'a Plan,
    orphan: &Orphan,
    taken: &BTreeMap<PlaceOf, i32>,
) -> Result<Option<(WorkerId, &'a WorkerPlan, u32)>, String> {
    let (name, index) = orphan
        .place()
        .ok_or("it does not say which instance it is")?;
    let mut workers = plan.workers();
    let known = workers.find(|(_, worker)| worker.name == name);
    let (id, worker) = known.ok_or_else(|| format!("the configuration has no worker `{name}`"))?;
    let life = &worker.lifecycle;
    if matches!(life.activation, Activation::PerConnection(_)) {
        return Ok(None);
    }
    if !orphan.is_main {
        return Err("the process that was started is gone, and this is a child of it".to_owned());
    }
    if index >= life.instances {
        return Err(format!("the configuration has {} of it", life.instances));
    }
    let credentials = worker.launch.credentials.as_ref();
    let uid = credentials.and_then(|known| known.uid);
    if orphan.uid != uid.unwrap_or_else(|| geteuid().as_raw()) {
        return Err("it runs as another user than the configuration says".to_owned());
    }
    match taken.get(&(id, index)) {
        Some(pid) => Err(format!("process {pid} is this instance")),
        None => Ok(Some((id, worker, index))),
    }
}

/// The workers that have to be replaced, and why.
fn to_replace(adopted: &[Adopted<'_>]) -> BTreeMap<WorkerId, &'static str> {
    let mut all = BTreeMap::new();
    for one in adopted {
        if one.plan.output.is_read() {
            all.insert(one.worker, UNREAD);
        } else if one.process.is_outdated {
            all.insert(one.worker, "the configuration was changed after its start");
        }
    }
    all
}

/// What a snapshot would say: of the core, and of the processes.
fn write_down(
    fresh: &Core,
    plan: &Plan,
    adopted: &[Adopted<'_>],
    absent: &BTreeSet<ListenerId>,
) -> Result<(Snapshot, Vec<facts::ProcessFact>), String> {
    let places: HashMap<PlaceOf, usize> = adopted
        .iter()
        .enumerate()
        .map(|(at, one)| ((one.worker, one.index), at))
        .collect();
    let head =
        json!({"kind": "snapshot", "format": FORMAT, "written_by": env!("CARGO_PKG_VERSION")});
    let mut lines = vec![head.to_string()];
    let mut processes: BTreeMap<usize, facts::ProcessFact> = BTreeMap::new();
    for change in fresh.freeze().changes() {
        let fact = serde_json::from_str(&change.text()).map_err(|error| error.to_string())?;
        let mut fact: Map<String, Value> = fact;
        let number = |fact: &Map<String, Value>, name: &str| fact.get(name).and_then(Value::as_u64);
        match fact.get("kind").and_then(Value::as_str) {
            Some("daemon") => {
                let next = number(&fact, "next_process").unwrap_or_default();
                fact.insert("phase".to_owned(), "running".into());
                fact.insert(
                    "next_process".to_owned(),
                    (next + adopted.len() as u64).into(),
                );
            }
            Some("run") => {
                let of = |name: &str| number(&fact, name).map(|number| number as u32);
                let (Some(worker), Some(index)) = (of("worker").map(WorkerId), of("index")) else {
                    continue;
                };
                let found = places.get(&(worker, index));
                match found.and_then(|at| Some((*at, adopted.get(*at)?))) {
                    Some((at, one)) => {
                        let process = process_fact(at as u64, one, &fact);
                        lives(&mut fact, &process, one.plan);
                        processes.insert(at, process);
                    }
                    None => {
                        let worker = plan.worker(worker);
                        let is_eager = worker.lifecycle.activation == Activation::Eager;
                        let waits = worker.listeners.iter().any(|id| absent.contains(id));
                        fact.insert("awaited".to_owned(), (is_eager && !waits).into());
                    }
                }
            }
            _ => {}
        }
        lines.push(Value::Object(fact).to_string());
    }
    let reading = Snapshot::read(lines.iter().map(String::as_str));
    let reading = reading.map_err(|why| why.to_string())?;
    Ok((reading.snapshot, processes.into_values().collect()))
}

/// Says of an instance that it runs.
fn lives(fact: &mut Map<String, Value>, process: &facts::ProcessFact, plan: &WorkerPlan) {
    let state = json!({"name": "running", "process": process.key, "since": process.started});
    fact.insert("state".to_owned(), state);
    fact.insert("since".to_owned(), process.started.into());
    fact.insert("starts".to_owned(), 1.into());
    if let Some(interval) = plan.lifecycle.watchdog {
        let interval = u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX);
        fact.insert("watchdog".to_owned(), interval.into());
    }
}

fn process_fact(key: u64, one: &Adopted<'_>, run: &Map<String, Value>) -> facts::ProcessFact {
    let number = |name: &str| run.get(name).and_then(Value::as_u64).unwrap_or(1) as u32;
    let LeftWorker {
        orphan, pidfd, age, ..
    } = &one.process;
    let age = u64::try_from(age.as_nanos()).unwrap_or(u64::MAX);
    facts::ProcessFact {
        lane: run.get("key").and_then(Value::as_u64),
        key,
        worker: one.worker.0,
        index: one.index,
        generation: number("generation"),
        revision: Revision(number("revision")).0,
        task: facts::Task::Program,
        pid: orphan.pid,
        session: orphan.session,
        inode: sys::pidfd_inode(pidfd),
        started: clock::now().0.saturating_sub(age),
        uid: orphan.uid,
        client: None,
        connection: None,
        told: facts::ToldFact::default(),
        first_reaped: None,
        rest: None,
        killed: false,
        output: None,
        newline: None,
    }
}
