//! What can be told about instances and listeners to whoever asks.

use super::backoff::is_failure;
use super::connections::ConnectionCounts;
use super::ctx::Ctx;
use super::machine::Core;
use super::run::Run;
use super::state::State;
use super::time::Mono;
use super::types::{Degraded, Edition, InstanceId, LastEnd, ListenerCondition, Phase, Role};
use super::worker::Worker;
use crate::config::RestartPolicy;
use crate::plan::{ListenerId, WorkerId};

/// An instance, as it is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// The state of the instance.
    pub state: State,
    /// Since when it is in a state of that kind.
    pub since: Mono,
    /// Whether its process has said that it reads its configuration again, and not yet that it has.
    pub reloading: bool,
    /// How often it was started again.
    pub restarts: u64,
    /// How its last process ended.
    pub last_end: Option<LastEnd>,
    /// Whether it has ended badly and is not started again, as its restart policy says and nobody has
    /// asked for.
    pub failed: bool,
    /// The role of the instance in its worker.
    pub role: Role,
}

impl Worker {
    fn facts(&self, ctx: &Ctx, run: &Run) -> Facts {
        Facts {
            state: run.state,
            since: run.since,
            reloading: run.reloading,
            restarts: run.starts.saturating_sub(1),
            last_end: run.last_end,
            failed: self.is_left_failed(ctx, run),
            role: self.role(run.id),
        }
    }

    fn is_left_failed(&self, ctx: &Ctx, run: &Run) -> bool {
        let restart = &run.life.restart;
        let is_left = run.state == State::Stopped
            && restart.policy == RestartPolicy::Never
            && ctx.phase == Phase::Running
            && !self.stopped;
        let badly = match run.last_end {
            Some(LastEnd::Exited { status, cause, .. }) => {
                cause.is_some() || is_failure(status, restart)
            }
            Some(LastEnd::NotLaunched { .. } | LastEnd::NotPrepared { .. }) => true,
            None => false,
        };
        is_left && badly
    }
}

impl Core {
    fn find(&self, instance: InstanceId) -> Option<(&Worker, &Run)> {
        let worker = self.workers.get(&instance.worker)?;
        Some((worker, worker.find(instance)?))
    }

    /// The state of an instance, if there is such an instance.
    pub fn state(&self, instance: InstanceId) -> Option<State> {
        self.find(instance).map(|(_, run)| run.state)
    }

    /// What there is to tell about an instance, or a connection that is open.
    pub fn facts(&self, instance: InstanceId) -> Option<Facts> {
        let (worker, run) = self.find(instance)?;
        Some(worker.facts(&self.ctx, run))
    }

    /// How the start of an instance ended whose command after the end runs; `None` if it was
    /// cancelled before there was a program.
    pub fn ended(&self, instance: InstanceId) -> Option<LastEnd> {
        self.find(instance)?.1.this_end
    }

    /// Everything that runs or is to, and its state, worker by worker; connections last of each.
    pub fn instances(&self) -> impl Iterator<Item = (InstanceId, State)> + '_ {
        let all = self.workers.values().flat_map(|worker| worker.runs.all());
        all.map(|run| (run.instance, run.state))
    }

    /// A worker's own instances, in order, without its connections; then the candidates for their
    /// places, and those on their way out.
    pub fn instances_of(&self, worker: WorkerId) -> impl Iterator<Item = InstanceId> + '_ {
        let known = self.workers.get(&worker).into_iter();
        let all = known.flat_map(|worker| worker.runs.places().chain(worker.runs.others()));
        all.map(|run| run.instance)
    }

    /// The connections of a worker; all 0 for one that accepts its own.
    pub fn connections(&self, worker: WorkerId) -> ConnectionCounts {
        let known = self.workers.get(&worker);
        known.map_or_else(ConnectionCounts::default, Worker::connection_counts)
    }

    /// How a listener is.
    pub fn listener_state(&self, listener: ListenerId) -> ListenerCondition {
        if self.ctx.listeners.is_missing(listener) {
            ListenerCondition::Missing
        } else if self.ctx.listeners.is_damaged(listener) {
            ListenerCondition::Damaged
        } else {
            ListenerCondition::Listening
        }
    }

    /// The workers that use a listener.
    pub fn takers(&self, listener: ListenerId) -> &[WorkerId] {
        self.ctx.listeners.takers(listener)
    }

    /// Whether everything is being stopped, or has been.
    pub fn is_stopping(&self) -> bool {
        self.ctx.phase >= Phase::Stopping
    }

    /// Whether a rollout, a reload or something that was asked for is under way.
    pub fn is_changing(&self) -> bool {
        let changes = |worker: &Worker| worker.is_rolling() || !worker.jobs.is_empty();
        self.ctx.replanning.is_some() || self.workers.values().any(changes)
    }

    /// Whether a rollout of the worker is under way.
    pub fn is_rolling(&self, worker: WorkerId) -> bool {
        self.workers.get(&worker).is_some_and(Worker::is_rolling)
    }

    /// Whether a crash of an instance of the worker would fail a rollout, under way or over.
    pub fn is_watched(&self, worker: WorkerId) -> bool {
        self.workers.get(&worker).is_some_and(Worker::is_watched)
    }

    /// What went wrong with the last rollout of a worker, if it did.
    pub fn degraded(&self, worker: WorkerId) -> Option<Degraded> {
        self.workers.get(&worker)?.degraded
    }

    /// How many of a worker's instances have failed.
    pub fn failed(&self, worker: WorkerId) -> u32 {
        let failed = self.workers.get(&worker).map_or(0, Worker::failed);
        u32::try_from(failed).unwrap_or(u32::MAX)
    }

    /// Whether a worker was stopped by [`super::Command::Stop`], and stays so.
    pub fn is_stopped(&self, worker: WorkerId) -> bool {
        let known = self.workers.get(&worker);
        known.is_some_and(|known| known.stopped)
    }

    /// The definition by which a worker's instances are started; `None` if there is no such worker.
    pub fn edition(&self, worker: WorkerId) -> Option<Edition> {
        let known = self.workers.get(&worker)?;
        (!known.removed).then_some(known.edition)
    }

    /// The worker's generation, from 1.
    pub fn generation(&self, worker: WorkerId) -> u32 {
        let known = self.workers.get(&worker);
        known.map_or(0, |known| known.generation)
    }
}
