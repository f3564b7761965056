//! What the core knows, as facts.

use super::fact::{
    AbsenceFact, AtWord, Change, ConnectionFact, ConnectionsFact, CrashesFact, DaemonFact,
    DamageFact, DegradedFact, Extra, Fact, FactKind, GivenUpFact, HookFact, InstanceFact, Key,
    ListenerFact, ReboundFact, RoleWord, RolloutFact, RunFact, StepFact, WorkerFact,
};
use super::text::Snapshot;
use super::words::As;
use crate::core::backoff::History;
use crate::core::ctx::Ctx;
use crate::core::helpers::Helper;
use crate::core::input::Input;
use crate::core::listeners::{ListenerTimer, Listeners};
use crate::core::machine::Core;
use crate::core::rollout::{At, Rollout, Step};
use crate::core::run::Run;
use crate::core::time::Mono;
use crate::core::types::{Degraded, InstanceId, Phase, ProcessId, RunId, RunRole};
use crate::core::worker::Worker;
use crate::plan::Activation;
use crate::plan::{ListenerId, SocketKey, WorkerId};
use std::collections::{BTreeMap, BTreeSet};

impl Core {
    /// All that another core needs to go on where this one is. To be taken when every effect is carried out.
    pub fn freeze(&self) -> Snapshot {
        let mut facts = vec![self.daemon_fact()];
        for (id, worker) in &self.workers {
            facts.extend(worker.facts_of_it(*id));
            facts.extend(worker.runs.all().map(|run| worker.run_fact(&self.ctx, run)));
            let hooks = worker.helpers.running();
            facts.extend(hooks.map(|(process, helper)| hook_fact(*id, process, helper)));
        }
        facts.extend(listener_facts(&self.ctx.listeners));
        let facts = facts.into_iter().map(|fact| self.with_extra(fact));
        Snapshot {
            facts: facts.map(|fact| (fact.key(), fact)).collect(),
        }
    }

    /// What has changed since this was asked for the last time; at first everything. To be taken when every
    /// effect is carried out. Costs what has changed, and nothing is noted for whoever never asks.
    pub fn take_changes(&mut self) -> Vec<Change> {
        if !self.ctx.record.is_on {
            return self.record();
        }
        self.ctx.record.is_urgent = false;
        let mut changes = Vec::new();
        let daemon = self.daemon_fact();
        self.set_if_new(daemon, &mut changes);
        for id in std::mem::take(&mut self.ctx.record.workers) {
            self.changes_of(id, &mut changes);
        }
        if std::mem::take(&mut self.ctx.record.listeners) {
            let facts = listener_facts(&self.ctx.listeners);
            let left: BTreeSet<Key> = facts.iter().map(Fact::key).collect();
            for fact in facts {
                self.set_if_new(fact, &mut changes);
            }
            let known = self.ctx.record.handed_out.keys();
            let gone = known.filter(|key| matches!(key, Key::Listener(_)) && !left.contains(key));
            self.ctx
                .record
                .gone
                .extend(gone.copied().collect::<Vec<_>>());
        }
        for key in std::mem::take(&mut self.ctx.record.gone) {
            self.gone(key, &mut changes);
        }
        changes
    }

    /// Whether there may be something to tell.
    pub fn has_changes(&self) -> bool {
        let record = &self.ctx.record;
        !record.is_on || record.is_urgent || !record.workers.is_empty()
    }

    /// Whether all that has changed is connections, of which most are over soon: whoever is killed before it has
    /// told of one leaves a process that ends by itself.
    pub fn changes_can_wait(&self) -> bool {
        let record = &self.ctx.record;
        record.is_on && !record.is_urgent && self.ctx.phase == Phase::Running
    }

    /// Whether an input is about connections alone, which are accepted for workers.
    pub(in crate::core) fn is_of_connections(&self, input: &Input) -> bool {
        match input {
            Input::Spawned { process }
            | Input::ExecSucceeded { process }
            | Input::LaunchFailed { process, .. }
            | Input::MainExited { process, .. }
            | Input::Exited { process, .. } => {
                let run = self.ctx.processes.get(process);
                let worker = run.and_then(|run| Some((run, self.workers.get(&run.worker)?)));
                worker.is_some_and(|(run, worker)| worker.runs.is_connection(*run))
            }
            Input::Accepted { .. } | Input::NotAccepted { .. } => true,
            Input::ClientWaits { listener, .. } => {
                let mut takers = self.ctx.listeners.takers(*listener).iter();
                takers.all(|id| {
                    let worker = self.workers.get(id);
                    worker.is_some_and(|worker| {
                        matches!(worker.lifecycle.activation, Activation::PerConnection(_))
                    })
                })
            }
            _ => false,
        }
    }

    /// Notes what changes from now on.
    fn record(&mut self) -> Vec<Change> {
        let snapshot = self.freeze();
        self.ctx.record.is_on = true;
        for worker in self.workers.values_mut() {
            worker.runs.record();
            worker.helpers.record();
        }
        let is_lent_always = |key: &Key| !matches!(key, Key::Run(_) | Key::Hook(_));
        let facts = snapshot.facts.iter();
        let lent = facts.filter(|(key, _)| is_lent_always(key));
        self.ctx.record.handed_out = lent.map(|(key, fact)| (*key, fact.clone())).collect();
        snapshot.changes().collect()
    }

    fn changes_of(&mut self, id: WorkerId, changes: &mut Vec<Change>) {
        let Some(worker) = self.workers.get_mut(&id) else {
            return;
        };
        let (runs, hooks) = (worker.runs.take_lent(), worker.helpers.take_lent());
        for run in &runs {
            if worker.runs.get(*run).is_none() {
                worker.runs.told_gone(*run);
            }
        }
        for process in &hooks {
            if worker.helpers.get(*process).is_none() {
                worker.helpers.told_gone(*process);
            }
        }
        let worker = &self.workers[&id];
        let facts: Vec<Fact> = worker.facts_of_it(id).collect();
        let mut gone = Vec::new();
        if facts.len() == 1 {
            gone.push(Key::Connections(id));
        }
        let mut set = Vec::new();
        for run in runs {
            match worker.runs.get(run) {
                Some(run) => set.push(worker.run_fact(&self.ctx, run)),
                None => gone.push(Key::Run(run.number)),
            }
        }
        for process in hooks {
            match worker.helpers.get(process) {
                Some(helper) => set.push(hook_fact(id, process, helper)),
                None => gone.push(Key::Hook(process)),
            }
        }
        let set = set.into_iter().map(|fact| self.with_extra(fact));
        changes.extend(set.map(Change::Set));
        for fact in facts {
            self.set_if_new(fact, changes);
        }
        for key in gone {
            self.gone(key, changes);
        }
    }

    fn set_if_new(&mut self, fact: Fact, changes: &mut Vec<Change>) {
        let fact = self.with_extra(fact);
        let key = fact.key();
        if self.ctx.record.handed_out.get(&key) != Some(&fact) {
            self.ctx.record.handed_out.insert(key, fact.clone());
            changes.push(Change::Set(fact));
        }
    }

    fn gone(&mut self, key: Key, changes: &mut Vec<Change>) {
        self.ctx.record.extra.remove(&key);
        let was_known = self.ctx.record.handed_out.remove(&key).is_some();
        if was_known || matches!(key, Key::Run(_) | Key::Hook(_)) {
            changes.push(Change::Gone(key));
        }
    }

    fn with_extra(&self, mut fact: Fact) -> Fact {
        let known = &self.ctx.record.extra;
        if !known.is_empty()
            && let Some(extra) = known.get(&fact.key())
        {
            fact.extra_mut().clone_from(extra);
        }
        fact
    }

    fn daemon_fact(&self) -> Fact {
        Fact(FactKind::Daemon(DaemonFact {
            phase: self.ctx.phase.cast(),
            up: self.is_up(),
            verdict: self.ctx.verdict,
            next_process: self.ctx.ids.next_process.cast(),
            next_connection: self.ctx.ids.next_connection.cast(),
            next_run: self.ctx.ids.next_run,
            extra: Extra::new(),
        }))
    }

    /// The processes that the core knows of, the last of each instance and every command beside one; what it
    /// has only asked for is not among them.
    pub fn processes(&self) -> impl Iterator<Item = ProcessId> + '_ {
        let is_there = |worker: &WorkerId, process: &ProcessId| {
            let known = self.workers.get(worker);
            let helper = known.and_then(|known| known.helpers.get(*process));
            helper.is_some_and(|helper| helper.exists)
        };
        let runs = self.ctx.processes.iter();
        let runs = runs.filter(|(_, id)| {
            let known = self.workers.get(&id.worker);
            let run = known.and_then(|known| known.runs.get(**id));
            run.is_some_and(|run| !run.state.is_asked_for())
        });
        let hooks = self.ctx.hooks.iter();
        let hooks = hooks.filter(move |(process, worker)| is_there(worker, process));
        let runs = runs.map(|(process, _)| *process);
        runs.chain(hooks.map(|(process, _)| *process))
    }
}

impl Worker {
    fn facts_of_it(&self, id: WorkerId) -> impl Iterator<Item = Fact> + use<> {
        let worker = Fact(FactKind::Worker(Box::new(WorkerFact {
            key: id.0,
            revision: self.revision.0,
            latest: self.latest.0,
            generation: self.generation,
            last_generation: self.last_generation,
            wanted: self.wanted,
            stopped: self.stopped,
            removed: self.removed,
            outdated: self.outdated,
            degraded: self.degraded.map(degraded_fact),
            given_up: self.given_up.as_ref().map(|one| GivenUpFact {
                revision: one.revision.0,
                can_go_back: one.can_go_back,
            }),
            paused_until: self.gate.resume_at.cast(),
            rollout: self.rollout.as_deref().map(rollout_fact),
            unused_since: self.idle.stopped_at.cast(),
            scaled: self.follows.is_overridden,
            missed: self.follows.missed,
            extra: Extra::new(),
        })));
        let known = &self.connections;
        let connections = ConnectionsFact {
            key: id.0,
            next_index: known.next_index,
            accepted: known.totals.accepted,
            refused: known.totals.refused,
            failures: known.totals.failures,
            failed_launches: known.launches.consecutive,
            held_until: known.held_until.cast(),
            exhausted: known.exhausted,
            extra: Extra::new(),
        };
        let nothing = ConnectionsFact {
            key: id.0,
            ..ConnectionsFact::default()
        };
        let connections = (connections != nothing).then_some(connections);
        let connections = connections.map(|fact| Fact(FactKind::Connections(fact)));
        [worker].into_iter().chain(connections)
    }

    fn run_fact(&self, ctx: &Ctx, run: &Run) -> Fact {
        let held = self.runs.connection(run.id);
        let instance = self.runs.instance(run.id);
        let crashes = self.runs.history(run.id);
        let crashes = crashes.filter(|history| **history != History::default());
        let role = match self.role(run.id) {
            _ if held.is_some() => RoleWord::Connection,
            RunRole::Instance => RoleWord::Instance,
            RunRole::Candidate => RoleWord::Candidate,
            RunRole::Leaving => RoleWord::Leaving,
        };
        Fact(FactKind::Run(Box::new(RunFact {
            key: run.id.number,
            worker: run.id.worker.0,
            index: run.instance.index,
            generation: run.instance.generation,
            revision: run.revision.0,
            role,
            state: run.state.clone().cast(),
            since: run.since.cast(),
            starts: run.starts,
            connection: held.map(|one| ConnectionFact {
                id: one.id.cast(),
                source: one.source.cast(),
                open: one.open,
            }),
            crashes: crashes.map(|history| CrashesFact {
                in_a_row: history.consecutive,
                recent: history.recent.iter().copied().map(As::cast).collect(),
            }),
            again: instance.is_some_and(|one| one.again),
            awaited: ctx.awaited.contains(&run.id),
            fault: run.fault.cast(),
            by_itself: run.by_itself,
            main_ended: run.main_ended.cast(),
            overdue: run.overdue,
            drains: run.is_to_drain(),
            watchdog: run.watchdog.map(|watchdog| watchdog.interval).cast(),
            told_interval: run.told_interval.cast(),
            busy: run.busy,
            reloading: run.reloading,
            to_clean: run.to_clean,
            this_end: run.this_end.clone().cast(),
            last_end: run.last_end.clone().cast(),
            extra: Extra::new(),
        })))
    }
}

fn degraded_fact(degraded: Degraded) -> DegradedFact {
    DegradedFact {
        index: degraded.instance.index,
        generation: degraded.instance.generation,
        since: degraded.since.cast(),
    }
}

fn instance_fact(instance: InstanceId) -> InstanceFact {
    InstanceFact {
        index: instance.index,
        generation: instance.generation,
    }
}

fn rollout_fact(rollout: &Rollout) -> RolloutFact {
    let number = |id: RunId| id.number;
    let step = |step: &Step| StepFact {
        position: step.position,
        new: number(step.new),
        old: step.old.map(number),
        at: match step.at {
            At::MakingRoom => AtWord::MakingRoom,
            At::Starting => AtWord::Starting,
            At::Settling(until) => AtWord::Settling {
                until: until.cast(),
            },
            At::Draining => AtWord::Draining,
        },
    };
    RolloutFact {
        from_revision: rollout.from.revision.0,
        from_generation: rollout.from.generation,
        can_go_back: rollout.can_go_back,
        generation: rollout.generation,
        back: rollout.back.map(degraded_fact),
        crashed: rollout.crashed.map(instance_fact),
        watched_until: rollout.watched.cast(),
        todo: rollout.todo.iter().copied().collect(),
        steps: rollout.steps.iter().map(step).collect(),
        replaced: rollout.replaced.clone(),
        done: rollout.done,
        of: rollout.of,
    }
}

fn hook_fact(worker: WorkerId, process: ProcessId, helper: &Helper) -> Fact {
    Fact(FactKind::Hook(HookFact {
        key: process.cast(),
        worker: worker.0,
        run: helper.run.number,
        index: helper.instance.index,
        generation: helper.instance.generation,
        hook: helper.kind.cast(),
        timeout: helper.timeout.cast(),
        until: helper.until.cast(),
        exists: helper.exists,
        failure: helper.failed.clone().cast(),
        killed: helper.killed,
        timed_out: helper.timed_out,
        extra: Extra::new(),
    }))
}

/// What there is to tell about listeners, each with when something is to be done about it.
fn listener_facts(listeners: &Listeners) -> Vec<Fact> {
    let mut all: BTreeMap<ListenerId, ListenerFact> = BTreeMap::new();
    let mut of = |id: ListenerId, tell: &dyn Fn(&mut ListenerFact)| {
        let fact = all.entry(id).or_insert_with(|| ListenerFact {
            key: id.0,
            ..ListenerFact::default()
        });
        tell(fact);
    };
    let (mut retries, mut complaints) = (BTreeMap::new(), BTreeMap::new());
    let mut repairs: BTreeMap<(ListenerId, SocketKey), Mono> = BTreeMap::new();
    // The earliest of several counts; there is one of each as a rule.
    for (at, timer) in listeners.due.iter().rev() {
        match timer {
            ListenerTimer::Retry(id) => drop(retries.insert(*id, *at)),
            ListenerTimer::Complain(id) => drop(complaints.insert(*id, *at)),
            ListenerTimer::Repair(id, socket) => drop(repairs.insert((*id, *socket), *at)),
        }
    }
    for (id, absence) in &listeners.missing {
        of(*id, &|fact| {
            fact.missing = Some(AbsenceFact {
                why: absence.why.cast(),
                since: absence.since.cast(),
                tries: absence.tries,
                trying: absence.trying,
                again: absence.again,
                retry_at: retries.get(id).copied().cast(),
                complain_at: complaints.get(id).copied().cast(),
            });
        });
    }
    for id in &listeners.refusing {
        of(*id, &|fact| fact.refusing = true);
    }
    for id in &listeners.vacated {
        of(*id, &|fact| fact.vacated = true);
    }
    for ((id, socket), repair) in &listeners.damaged {
        of(*id, &|fact| {
            fact.damaged.push(DamageFact {
                socket: socket.0,
                what: repair.what.clone(),
                failures: repair.failures,
                repairs: repair.repairs,
                damaged: repair.damaged.cast(),
                not_before: repair.not_before.cast(),
                whole: repair.whole,
                repair_at: repairs.get(&(*id, *socket)).copied().cast(),
            });
        });
    }
    for (id, rebound) in &listeners.rebound {
        of(*id, &|fact| {
            fact.rebound = Some(ReboundFact {
                times: rebound.times,
                sockets: rebound.sockets.iter().map(|socket| socket.0).collect(),
                last: rebound.last.cast(),
            });
        });
    }
    let facts = all.into_values().map(FactKind::Listener);
    facts.map(Fact).collect()
}
