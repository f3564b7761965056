//! A worker: what it is, and all that is its.

use super::connections::Connections;
use super::ctx::Ctx;
use super::gate::Gate;
use super::helpers::Helpers;
use super::idle::Idle;
use super::job::{Job, Reloading};
use super::rollout::{Rollout, Target};
use super::run::{Run, Runs};
use super::scaling::Follows;
use super::state::State;
use super::types::{Degraded, InstanceId, Revision, RunId, RunRole};
use crate::plan::{Activation, Lifecycle, WorkerId};
use std::collections::BTreeSet;
use std::sync::Arc;

/// A worker, and all that it owns. What a method needs besides comes with [`Ctx`].
#[derive(Debug, Clone)]
pub(super) struct Worker {
    pub(super) id: WorkerId,
    /// How an instance that is started now lives.
    pub(super) lifecycle: Arc<Lifecycle>,
    /// By which definition it is started.
    pub(super) revision: Revision,
    /// The revision that the configuration has: another one only after a rollback.
    pub(super) latest: Revision,
    /// The instances, those that are stopping, and the connections.
    pub(super) runs: Runs,
    /// The commands around its instances that run.
    pub(super) helpers: Helpers,
    /// The rollout under way, or being watched.
    pub(super) rollout: Option<Box<Rollout>>,
    /// The commands under way.
    pub(super) jobs: Vec<Job>,
    /// Who waits for instances that read their configuration again.
    pub(super) reloads: Vec<Reloading>,
    /// What has changed in this input.
    pub(super) changed: Vec<RunId>,
    /// Stopped on request.
    pub(super) stopped: bool,
    /// Removed from the configuration; only stopping processes are left.
    pub(super) removed: bool,
    /// The shell was told that nothing is left of it.
    pub(super) gone: bool,
    /// Definitions before the present one may still be needed, and are to be retired.
    pub(super) outdated: bool,
    /// The shards that new clients are sent to, as far as anybody was told.
    pub(super) steered: Option<BTreeSet<u32>>,
    /// How many instances there are to be when no rollout is under way.
    pub(super) wanted: u32,
    /// The generation that serves.
    pub(super) generation: u32,
    /// The latest there was.
    pub(super) last_generation: u32,
    /// What went wrong with the last rollout.
    pub(super) degraded: Option<Degraded>,
    /// What the configuration in force says, if a rollout to it went back.
    pub(super) given_up: Option<Target>,
    /// How many of its instances and connections are in which states.
    pub(super) counts: Counts,
    /// What is between it and its clients; without meaning for an eager one.
    pub(super) gate: Gate,
    /// Who uses it.
    pub(super) idle: Idle,
    /// How it follows its queues.
    pub(super) follows: Follows,
    /// How many connections listend accepts for it.
    pub(super) connections: Connections,
}

/// How many instances and connections of a worker are in some states; kept by
/// [`Worker::become_state`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Counts {
    /// In [`State::Waiting`].
    pub(super) waiting: u32,
    /// In [`State::Preparing`] and [`State::Starting`].
    pub(super) starting: u32,
    /// In [`State::Starting`], [`State::Activating`], [`State::Running`], [`State::Stopping`], and
    /// in the two in which a command runs before or after.
    pub(super) with_process: u32,
    /// In [`State::Backoff`].
    pub(super) resting: u32,
}

impl Counts {
    /// Counts one more in this state, or one less.
    pub(super) fn change(&mut self, state: &State, by: i32) {
        let add = |count: &mut u32| *count = count.saturating_add_signed(by);
        match state {
            State::Waiting => add(&mut self.waiting),
            State::Preparing { .. } | State::Starting { .. } => {
                add(&mut self.starting);
                add(&mut self.with_process);
            }
            State::Activating { .. }
            | State::Running { .. }
            | State::Stopping { .. }
            | State::Cleaning { .. } => add(&mut self.with_process),
            State::Backoff { .. } => add(&mut self.resting),
            State::Failed { .. } | State::Stopped => {}
        }
    }
}

impl Worker {
    /// A worker with instances that wait.
    pub(super) fn new(ctx: &mut Ctx, id: WorkerId, life: Arc<Lifecycle>) -> Worker {
        ctx.record.worker(id);
        let instances = life.instances;
        let mut worker = Worker::without_instances(id, life);
        worker.wanted = instances;
        if ctx.record.is_on {
            worker.runs.record();
            worker.helpers.record();
        }
        for number in 0..instances {
            worker.add_instance(ctx, number, State::Waiting);
        }
        worker
    }

    /// One that runs nothing yet.
    pub(super) fn without_instances(id: WorkerId, life: Arc<Lifecycle>) -> Worker {
        Worker {
            id,
            lifecycle: life,
            revision: Revision::FIRST,
            latest: Revision::FIRST,
            runs: Runs::default(),
            helpers: Helpers::default(),
            rollout: None,
            jobs: Vec::new(),
            reloads: Vec::new(),
            changed: Vec::new(),
            stopped: false,
            removed: false,
            gone: false,
            outdated: false,
            steered: None,
            wanted: 0,
            generation: 1,
            last_generation: 1,
            degraded: None,
            given_up: None,
            counts: Counts::default(),
            gate: Gate::default(),
            idle: Idle::default(),
            follows: Follows::default(),
            connections: Connections::default(),
        }
    }

    pub(super) fn is_eager(&self) -> bool {
        self.lifecycle.activation == Activation::Eager
    }

    pub(super) fn accepts_connections(&self) -> bool {
        matches!(self.lifecycle.activation, Activation::PerConnection(_))
    }

    /// How many of its instances have a process. Connections have one, too, that were accepted before a reload has
    /// changed the activation.
    pub(super) fn instances_with_process(&self) -> u32 {
        let mut served = Counts::default();
        for connection in self.runs.connections() {
            served.change(&connection.run.state, 1);
        }
        self.counts.with_process - served.with_process
    }

    /// Whether it serves connections, and nothing is under way with it: nothing can follow from an input for it,
    /// but at its gate.
    pub(super) fn only_serves(&self) -> bool {
        self.accepts_connections()
            && self.lifecycle.scaling.is_none()
            && self.rollout.is_none()
            && self.jobs.is_empty()
            && self.steered.is_none()
            && self.idle.look_at.is_none()
            && self.follows.look_at.is_none()
    }

    /// Whether all its instances have failed, and there are any.
    pub(super) fn has_failed(&self) -> bool {
        self.runs.len() > 0 && self.failed() == self.runs.len()
    }

    /// How many of its instances have failed.
    pub(super) fn failed(&self) -> usize {
        let has_failed = |run: &&Run| matches!(run.state, State::Failed { .. });
        self.runs.places().filter(has_failed).count()
    }

    /// Whether no instance of it has a process.
    pub(super) fn is_down(&self) -> bool {
        self.runs.places().all(|run| !run.state.is_busy())
    }

    /// Whether a rollout is under way; one that is only watched is not.
    pub(super) fn is_rolling(&self) -> bool {
        let rollout = self.rollout.as_ref();
        rollout.is_some_and(|rollout| rollout.watched.is_none())
    }

    /// Whether this is new and not relied on yet, so that its end is the end of the rollout.
    pub(super) fn is_on_trial(&self, id: RunId) -> bool {
        let rollout = self.rollout.as_ref();
        rollout.is_some_and(|rollout| rollout.tries(id))
    }

    /// What one of its runs is to it.
    pub(super) fn role(&self, id: RunId) -> RunRole {
        if !self.runs.is_instance(id) {
            RunRole::Leaving
        } else if self.runs.is_placed(id) {
            RunRole::Instance
        } else {
            RunRole::Candidate
        }
    }

    /// An instance or a connection by its name.
    pub(super) fn find(&self, instance: InstanceId) -> Option<&Run> {
        let is_it = |run: &&Run| run.instance == instance;
        let in_place = self
            .runs
            .at(instance.index)
            .and_then(|id| self.runs.get(id));
        let known = in_place
            .filter(is_it)
            .or_else(|| self.runs.others().find(is_it));
        known.or_else(|| self.runs.connections().map(|one| &one.run).find(is_it))
    }

    /// Has the worker be of another generation if one of this number and its present generation is
    /// still there: on its way out, or in.
    pub(super) fn find_name(&mut self, number: u32) {
        let name = (number, self.generation);
        let has_it = |run: &Run| (run.instance.index, run.instance.generation) == name;
        if self.runs.others().any(has_it) {
            self.next_generation();
        }
    }

    /// What is started from now on is of a generation that nothing else is of.
    pub(super) fn next_generation(&mut self) {
        self.last_generation += 1;
        self.generation = self.last_generation;
    }

    /// One more instance, by the present definition.
    pub(super) fn add_instance(&mut self, ctx: &mut Ctx, number: u32, state: State) -> RunId {
        self.find_name(number);
        let id = self.add_candidate(ctx, number);
        self.runs.append(id);
        self.become_state(ctx, id, state);
        id
    }

    /// An instance that has no place yet, by the present definition.
    pub(super) fn add_candidate(&mut self, ctx: &mut Ctx, number: u32) -> RunId {
        let instance = InstanceId {
            worker: self.id,
            index: number,
            generation: self.generation,
        };
        let id = ctx.ids.run(self.id);
        let life = Arc::clone(&self.lifecycle);
        let run = Run::new(id, instance, self.revision, life, ctx.now);
        self.runs.add(run);
        id
    }

    /// The only place where a state changes to one with another process or deadline, so that
    /// the indices cannot disagree with the states.
    pub(super) fn become_state(&mut self, ctx: &mut Ctx, id: RunId, state: State) {
        let run = &mut self.runs[id];
        let revision = run.revision;
        let old = std::mem::replace(&mut run.state, state.clone());
        ctx.drawn.hold(old.kind(), state.kind());
        if std::mem::discriminant(&old) != std::mem::discriminant(&state) {
            run.since = ctx.now;
        }
        if let State::Running { .. }
        | State::Backoff { .. }
        | State::Failed { .. }
        | State::Stopped = state
        {
            ctx.awaited.remove(&id);
        }
        self.changed.push(id);
        ctx.stir(self.id);
        self.counts.change(&old, -1);
        self.counts.change(&state, 1);
        if old.process() != state.process() {
            if let Some(process) = old.process() {
                ctx.processes.remove(&process);
            }
            // The process of a connection never had a listener.
            let is_instance = self.runs.is_instance(id);
            let goes = self.runs.is_leaving(id) || is_instance && revision != self.revision;
            if state.process().is_none() && goes {
                ctx.let_go.insert((self.id, revision));
            }
            if let Some(process) = state.process() {
                ctx.processes.insert(process, id);
            }
        }
        self.reschedule(ctx, id);
        if !matches!(state, State::Running { .. }) {
            self.has_reread(ctx, id, false);
        }
    }

    /// Notes the deadline of a run, where anything that it follows from has changed.
    pub(super) fn reschedule(&mut self, ctx: &mut Ctx, id: RunId) {
        let Some(run) = self.runs.quiet_mut(id) else {
            return;
        };
        let at = run.deadline();
        let before = std::mem::replace(&mut run.due, at);
        if before != at {
            if let Some(before) = before {
                ctx.timers.runs.remove(&(before, id));
            }
            if let Some(at) = at {
                ctx.timers.runs.insert((at, id));
            }
        }
    }
}
