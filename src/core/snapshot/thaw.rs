//! A core that goes on where another one was.
//!
//! Whatever a snapshot says is checked before it is believed: the rest of the core relies on what holds in
//! a core that has always run, and must not be led to where nothing is.

use super::error::ThawError;
use super::fact::{
    AtWord, ConnectionsFact, DaemonFact, DegradedFact, Fact, FactKind, HookFact, InstanceFact, Key,
    ListenerFact, RoleWord, RolloutFact, RunFact, StepFact, WorkerFact,
};
use super::text::Snapshot;
use super::words::As;
use crate::core::backoff::History;
use crate::core::connections::ConnectionCounts;
use crate::core::helpers::Helper;
use crate::core::listeners::{Absence, ListenerTimer, Rebound, RepairState};
use crate::core::machine::Core;
use crate::core::rollout::{At, Definition, Rollout, Step, Target};
use crate::core::run::{Connection, Drain, Run, Watchdog};
use crate::core::state::State;
use crate::core::time::Mono;
use crate::core::types::{
    Degraded, FormerTaker, InstanceId, ListenerLife, Phase, ProcessId, Revision, RunId, WhenDone,
};
use crate::core::worker::Worker;
use crate::plan::{Lifecycle, ListenerId, SocketKey, WorkerId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// More of anything than this one worker never has.
const MOST: u32 = 1 << 20;
/// Nothing that is counted comes near to this.
const HIGHEST: u64 = 1 << 62;

/// What a core has to know that no snapshot of it says.
#[derive(Debug, Clone)]
pub struct Known {
    /// The life cycles by every definition that [`Snapshot::definitions`] names.
    pub definitions: BTreeMap<(WorkerId, Revision), Arc<Lifecycle>>,
    /// The listeners of the configuration.
    pub listeners: BTreeMap<ListenerId, ListenerLife>,
    /// Who has one of them by a definition that is no more.
    pub former: Vec<FormerTaker>,
    /// What to do when nothing runs any more.
    pub when_done: WhenDone,
}

/// A core that is not complete yet.
struct Thaw {
    core: Core,
    lives: BTreeMap<(WorkerId, Revision), Arc<Lifecycle>>,
    /// The instances that have a place, by worker and place.
    places: BTreeMap<(WorkerId, u32), RunId>,
    connections: BTreeSet<u64>,
}

fn refuse<T>(why: impl Into<String>) -> Result<T, ThawError> {
    Err(ThawError::new(why))
}

impl Core {
    /// A core that goes on where the one was that has written the snapshot, as soon as
    /// [`super::super::Input::Resumed`] comes.
    ///
    /// # Errors
    ///
    /// The snapshot says what cannot be, or names a definition that is not known.
    pub fn thaw(snapshot: &Snapshot, known: Known) -> Result<Core, ThawError> {
        let Some(FactKind::Daemon(daemon)) = snapshot.facts.get(&Key::Daemon).map(|fact| &fact.0)
        else {
            return refuse("it says nothing of listend itself (daemon)");
        };
        let mut thaw = Thaw {
            core: Core::new([] as [Lifecycle; 0], known.when_done),
            lives: known.definitions,
            places: BTreeMap::new(),
            connections: BTreeSet::new(),
        };
        thaw.daemon(daemon)?;
        thaw.core.ctx.listeners.lives = known.listeners;
        thaw.core.ctx.listeners.set_former(known.former);
        // In the order of their kinds: workers come before what is theirs.
        for (key, fact) in &snapshot.facts {
            thaw.fact(fact)?;
            let extra = fact.clone().extra_mut().clone();
            if !extra.is_empty() {
                thaw.core.ctx.record.extra.insert(*key, extra);
            }
        }
        thaw.place()?;
        // What they name is there by now.
        for fact in snapshot.facts.values() {
            if let FactKind::Worker(worker) = &fact.0
                && let Some(rollout) = &worker.rollout
            {
                thaw.rollout(WorkerId(worker.key), rollout)?;
            }
        }
        thaw.expect_commands()?;
        let core = thaw.core;
        core.check_invariants().map_err(ThawError::new)?;
        Ok(core)
    }
}

impl Thaw {
    fn daemon(&mut self, daemon: &DaemonFact) -> Result<(), ThawError> {
        let phase: Phase = daemon.phase.cast();
        if phase == Phase::Exited {
            return refuse("it is of a listend that had ended");
        }
        let numbers = [daemon.next_process, daemon.next_connection, daemon.next_run];
        if numbers.iter().any(|number| *number > HIGHEST) {
            return refuse("a number that was to be given out next is too high");
        }
        let core = &mut self.core;
        core.ctx.to_resume = Some(daemon.next_process.cast());
        core.told_up = daemon.up;
        core.ctx.phase = phase;
        core.ctx.verdict = daemon.verdict;
        core.ctx.ids.next_process = daemon.next_process.cast();
        core.ctx.ids.next_connection = daemon.next_connection.cast();
        core.ctx.ids.next_run = daemon.next_run;
        Ok(())
    }

    fn fact(&mut self, fact: &Fact) -> Result<(), ThawError> {
        match &fact.0 {
            FactKind::Daemon(_) => Ok(()),
            FactKind::Worker(fact) => self.worker(fact),
            FactKind::Connections(fact) => self.connections(fact),
            FactKind::Run(fact) => self.run(fact),
            FactKind::Hook(fact) => self.hook(fact),
            FactKind::Listener(fact) => self.listener(fact),
        }
    }

    fn life(&self, of: &str, worker: WorkerId, revision: u32) -> Result<Arc<Lifecycle>, ThawError> {
        let life = self.lives.get(&(worker, Revision(revision)));
        life.cloned().ok_or_else(|| {
            let worker = worker.0;
            ThawError::new(format!(
                "{of}: definition {revision} of worker {worker} is not known"
            ))
        })
    }

    fn worker(&mut self, fact: &WorkerFact) -> Result<(), ThawError> {
        let id = WorkerId(fact.key);
        let of = format!("worker {}", fact.key);
        let life = self.life(&of, id, fact.revision)?;
        let mut worker = Worker::without_instances(id, life);
        if !(1..=fact.last_generation).contains(&fact.generation)
            || fact.last_generation > i32::MAX as u32
        {
            return refuse(format!(
                "{of}: generation {} of {}",
                fact.generation, fact.last_generation
            ));
        }
        if fact.wanted > MOST {
            return refuse(format!("{of}: {} instances are wanted", fact.wanted));
        }
        if !(1..=fact.latest).contains(&fact.revision) || fact.latest > i32::MAX as u32 {
            return refuse(format!(
                "{of}: definition {} of {}",
                fact.revision, fact.latest
            ));
        }
        worker.revision = Revision(fact.revision);
        worker.latest = Revision(fact.latest);
        worker.generation = fact.generation;
        worker.last_generation = fact.last_generation;
        worker.wanted = fact.wanted;
        worker.stopped = fact.stopped;
        worker.removed = fact.removed;
        worker.outdated = fact.outdated;
        worker.degraded = fact.degraded.map(|one| degraded(id, one));
        if let Some(one) = &fact.given_up {
            worker.given_up = Some(Target {
                revision: Revision(one.revision),
                life: self.life(&of, id, one.revision)?,
                can_go_back: one.can_go_back,
            });
        }
        worker.gate.resume_at = fact.paused_until.cast();
        let ctx = &mut self.core.ctx;
        if let Some(at) = worker.gate.resume_at
            && ctx.phase == Phase::Running
        {
            ctx.timers.gates.insert((at, id));
        }
        worker.idle.stopped_at = fact.unused_since.cast();
        worker.follows.is_overridden = fact.scaled;
        worker.follows.missed = fact.missed;
        self.core.workers.insert(id, worker);
        Ok(())
    }

    fn known(&mut self, of: &str, id: u32) -> Result<&mut Worker, ThawError> {
        let known = self.core.workers.get_mut(&WorkerId(id));
        known.ok_or_else(|| ThawError::new(format!("{of}: worker {id} is not known")))
    }

    fn connections(&mut self, fact: &ConnectionsFact) -> Result<(), ThawError> {
        let of = format!("connections {}", fact.key);
        if fact.accepted.max(fact.refused) > HIGHEST {
            return refuse(format!("{of}: more than there can have been"));
        }
        let known = &mut self.known(&of, fact.key)?.connections;
        known.next_index = fact.next_index;
        known.totals = ConnectionCounts {
            accepted: fact.accepted,
            refused: fact.refused,
            failures: fact.failures,
            ..ConnectionCounts::default()
        };
        known.launches.consecutive = fact.failed_launches;
        known.held_until = fact.held_until.cast();
        known.exhausted = fact.exhausted;
        Ok(())
    }

    /// Notes whose process this is, which nobody else has and which was given out.
    fn claim(&mut self, of: &str, process: ProcessId) -> Result<(), ThawError> {
        let ctx = &self.core.ctx;
        let number = process.0;
        if ctx.processes.contains_key(&process) || ctx.hooks.contains_key(&process) {
            return refuse(format!("{of}: process {number} is another's as well"));
        }
        if process >= ctx.ids.next_process {
            return refuse(format!("{of}: process {number} was never given out"));
        }
        Ok(())
    }

    fn run(&mut self, fact: &RunFact) -> Result<(), ThawError> {
        let of = format!("run {}", fact.key);
        let worker = WorkerId(fact.worker);
        let id = RunId {
            worker,
            number: fact.key,
        };
        if id.number >= self.core.ctx.ids.next_run {
            return refuse(format!("{of} was never given out"));
        }
        if fact.generation > i32::MAX as u32 {
            return refuse(format!("{of}: generation {}", fact.generation));
        }
        self.known(&of, fact.worker)?;
        let life = self.life(&of, worker, fact.revision)?;
        let state: State = fact.state.clone().cast();
        if let Some(process) = state.process() {
            self.claim(&of, process)?;
            self.core.ctx.processes.insert(process, id);
        }
        let instance = InstanceId {
            worker,
            index: fact.index,
            generation: fact.generation,
        };
        let mut run = Run::new(
            id,
            instance,
            Revision(fact.revision),
            life,
            fact.since.cast(),
        );
        run.state = state.clone();
        run.starts = fact.starts;
        run.fault = fact.fault.cast();
        run.by_itself = fact.by_itself;
        run.main_ended = fact.main_ended.cast();
        run.overdue = fact.overdue;
        // The time for it begins when listend goes on.
        run.drain = fact.drains.then_some(Drain::UNTOLD);
        // It begins when listend goes on.
        run.watchdog = fact.watchdog.map(|interval| Watchdog {
            interval: interval.cast(),
            due: Mono(u64::MAX),
        });
        run.told_interval = fact.told_interval.cast();
        run.busy = fact.busy;
        run.reloading = fact.reloading;
        run.to_clean = fact.to_clean;
        run.this_end = fact.this_end.clone().cast();
        run.last_end = fact.last_end.clone().cast();
        run.due = run.deadline();
        if let Some(at) = run.due {
            self.core.ctx.timers.runs.insert((at, id));
        }
        if fact.awaited {
            self.core.ctx.awaited.insert(id);
        }
        let connection = match (fact.role, fact.connection) {
            (RoleWord::Connection, Some(connection)) => Some(connection),
            (RoleWord::Connection, None) => return refuse(format!("{of}: no connection is said")),
            _ => None,
        };
        if let Some(connection) = connection {
            let is_given_out = connection.id < self.core.ctx.ids.next_connection.0;
            if !is_given_out || !self.connections.insert(connection.id) {
                return refuse(format!(
                    "{of}: connection {} was never given out, or is another's as well",
                    connection.id
                ));
            }
        }
        if fact.role == RoleWord::Instance && self.places.insert((worker, fact.index), id).is_some()
        {
            return refuse(format!(
                "{of}: place {} of worker {} is another's as well",
                fact.index, fact.worker
            ));
        }
        let known = self.known(&of, fact.worker)?;
        known.counts.change(&state, 1);
        if let Some(connection) = connection {
            let source = connection.source.cast();
            known.connections.live += 1;
            *known.connections.sources.entry(source).or_default() += 1;
            known.runs.connect(Connection {
                run,
                id: connection.id.cast(),
                source,
                open: connection.open,
                over: false,
            });
            return Ok(());
        }
        known.runs.add(run);
        if let Some(instance) = known.runs.instance_mut(id) {
            instance.again = fact.again;
        }
        if let Some((_, history)) = known.runs.history_mut(id)
            && let Some(crashes) = &fact.crashes
        {
            *history = History {
                consecutive: crashes.in_a_row,
                recent: crashes.recent.iter().copied().map(As::cast).collect(),
            };
        }
        if fact.role == RoleWord::Leaving {
            known.runs.send_off(id);
        }
        Ok(())
    }

    /// Gives the instances their places, of which none may be left out.
    fn place(&mut self) -> Result<(), ThawError> {
        let mut next = BTreeMap::new();
        for ((worker, index), id) in std::mem::take(&mut self.places) {
            let place: &mut u32 = next.entry(worker).or_default();
            if index != *place {
                let (number, worker) = (id.number, worker.0);
                return refuse(format!(
                    "run {number}: it has place {index} of worker {worker}, and nothing has place {place}"
                ));
            }
            *place += 1;
            if let Some(known) = self.core.workers.get_mut(&worker) {
                known.runs.append(id);
            }
        }
        Ok(())
    }

    fn hook(&mut self, fact: &HookFact) -> Result<(), ThawError> {
        let of = format!("hook {}", fact.key);
        let process: ProcessId = fact.key.cast();
        let worker = WorkerId(fact.worker);
        self.known(&of, fact.worker)?;
        self.claim(&of, process)?;
        self.core.ctx.hooks.insert(process, worker);
        let until: Mono = fact.until.cast();
        if !fact.killed {
            self.core.ctx.timers.hooks.insert((until, process));
        }
        let helper = Helper {
            run: RunId {
                worker,
                number: fact.run,
            },
            instance: InstanceId {
                worker,
                index: fact.index,
                generation: fact.generation,
            },
            kind: fact.hook.cast(),
            timeout: fact.timeout.cast(),
            until,
            exists: fact.exists,
            failed: fact.failure.clone().cast(),
            killed: fact.killed,
            timed_out: fact.timed_out,
        };
        self.known(&of, fact.worker)?
            .helpers
            .insert(process, helper);
        Ok(())
    }

    /// What waits for a command waits for one that is there.
    fn expect_commands(&self) -> Result<(), ThawError> {
        for worker in self.core.workers.values() {
            for run in worker.runs.all() {
                let (State::Preparing { hook, .. } | State::Cleaning { hook, .. }) = run.state
                else {
                    continue;
                };
                let helper = worker.helpers.get(hook);
                if helper.is_none_or(|helper| helper.run != run.id) {
                    let (number, hook) = (run.id.number, hook.0);
                    return refuse(format!(
                        "run {number}: it waits for the command {hook}, which is not there"
                    ));
                }
            }
        }
        Ok(())
    }

    fn rollout(&mut self, id: WorkerId, fact: &RolloutFact) -> Result<(), ThawError> {
        let of = format!("rollout of worker {}", id.0);
        let from = Definition {
            revision: Revision(fact.from_revision),
            life: self.life(&of, id, fact.from_revision)?,
            generation: fact.from_generation,
        };
        let number = |number: u64| RunId { worker: id, number };
        let step = |step: &StepFact| Step {
            position: step.position,
            new: number(step.new),
            old: step.old.map(number),
            at: match step.at {
                AtWord::MakingRoom => At::MakingRoom,
                AtWord::Starting => At::Starting,
                AtWord::Settling { until } => At::Settling(until.cast()),
                AtWord::Draining => At::Draining,
            },
        };
        let rollout = Rollout {
            tickets: Vec::new(),
            from,
            can_go_back: fact.can_go_back,
            generation: fact.generation,
            back: fact.back.map(|one| degraded(id, one)),
            crashed: fact.crashed.map(|one| instance(id, one)),
            watched: fact.watched_until.cast(),
            todo: fact.todo.iter().copied().collect(),
            steps: fact.steps.iter().map(step).collect(),
            replaced: fact.replaced.clone(),
            done: fact.done,
            of: fact.of,
        };
        if fact.done.max(fact.of) > MOST || fact.from_generation > i32::MAX as u32 {
            return refuse(format!("{of}: {} of {} are done", fact.done, fact.of));
        }
        let worker = self.known(&of, id.0)?;
        for step in &rollout.steps {
            if !worker.runs.is_instance(step.new) {
                let number = step.new.number;
                return refuse(format!("{of}: run {number} is no instance of it"));
            }
        }
        let settle = rollout.steps.iter().filter_map(|step| match step.at {
            At::Settling(until) => Some(until),
            At::MakingRoom | At::Starting | At::Draining => None,
        });
        let at = rollout.watched.or(settle.min());
        worker.rollout = Some(Box::new(rollout));
        self.core.ctx.timers.rollout(id, at);
        Ok(())
    }

    /// What is said of a listener that is no more does not matter.
    fn listener(&mut self, fact: &ListenerFact) -> Result<(), ThawError> {
        let id = ListenerId(fact.key);
        let listeners = &mut self.core.ctx.listeners;
        if (fact.refusing || fact.vacated) && fact.missing.is_none() {
            return refuse(format!(
                "listener {}: it was closed, and is not missing",
                fact.key
            ));
        }
        if let Some(missing) = &fact.missing {
            let absence = Absence {
                why: missing.why.cast(),
                since: missing.since.cast(),
                tries: missing.tries,
                trying: missing.trying,
                again: missing.again,
            };
            listeners.missing.insert(id, absence);
            let retry = missing
                .retry_at
                .map(|at| (Mono(at), ListenerTimer::Retry(id)));
            let complain = missing
                .complain_at
                .map(|at| (Mono(at), ListenerTimer::Complain(id)));
            listeners.due.extend(retry.into_iter().chain(complain));
        }
        if fact.refusing {
            listeners.refusing.insert(id);
        }
        if fact.vacated {
            listeners.vacated.insert(id);
        }
        for one in &fact.damaged {
            let socket = SocketKey(one.socket);
            let repair = RepairState {
                what: one.what.clone(),
                failures: one.failures,
                repairs: one.repairs,
                damaged: one.damaged.cast(),
                not_before: one.not_before.cast(),
                whole: one.whole,
            };
            listeners.damaged.insert((id, socket), repair);
            let timer = ListenerTimer::Repair(id, socket);
            listeners
                .due
                .extend(one.repair_at.map(|at| (Mono(at), timer)));
        }
        if let Some(rebound) = &fact.rebound {
            let known = Rebound {
                times: rebound.times,
                sockets: rebound.sockets.iter().copied().map(SocketKey).collect(),
                last: rebound.last.cast(),
            };
            listeners.rebound.insert(id, known);
        }
        Ok(())
    }
}

fn instance(worker: WorkerId, fact: InstanceFact) -> InstanceId {
    InstanceId {
        worker,
        index: fact.index,
        generation: fact.generation,
    }
}

fn degraded(worker: WorkerId, fact: DegradedFact) -> Degraded {
    Degraded {
        instance: InstanceId {
            worker,
            index: fact.index,
            generation: fact.generation,
        },
        since: fact.since.cast(),
    }
}

impl Core {
    /// What [`Core::thaw`] has to know to make this core again; for tests.
    pub fn known(&self) -> Known {
        let mut definitions = BTreeMap::new();
        for (id, worker) in &self.workers {
            let runs = worker.runs.all().map(|run| (run.revision, &run.life));
            let from = worker.rollout.as_ref();
            let from = from.map(|rollout| (rollout.from.revision, &rollout.from.life));
            let given_up = worker
                .given_up
                .as_ref()
                .map(|one| (one.revision, &one.life));
            // What connections keep of earlier settings is overruled by the settings that hold.
            let present = Some((worker.revision, &worker.lifecycle));
            let all = runs.chain(given_up).chain(from).chain(present);
            definitions.extend(all.map(|(revision, life)| ((*id, revision), Arc::clone(life))));
        }
        Known {
            definitions,
            listeners: self.ctx.listeners.lives.clone(),
            former: self.ctx.listeners.former.clone(),
            when_done: self.when_done,
        }
    }
}
