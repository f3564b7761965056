//! What can be told about instances and listeners to whoever asks.

use super::backoff::is_failure;
use super::connections::ConnectionCounts;
use super::ctx::Ctx;
use super::machine::Core;
use super::run::Run;
use super::state::State;
use super::time::Mono;
use super::types::{
    Degraded, Health, InstanceId, LastEnd, ListenerCondition, Phase, Revision, RunRole,
};
use super::worker::Worker;
use crate::config::RestartPolicy;
use crate::plan::{ListenerId, SocketKey, WorkerId};

/// An instance, as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
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
    /// How it is, all in all.
    pub health: Health,
    /// The role of the instance in its worker.
    pub role: RunRole,
}

impl Worker {
    fn facts(&self, ctx: &Ctx, run: &Run) -> Facts {
        Facts {
            state: run.state.clone(),
            since: run.since,
            reloading: run.reloading,
            restarts: run.starts.saturating_sub(1),
            last_end: run.last_end.clone(),
            health: self.health_of(ctx, run),
            role: self.role(run.id),
        }
    }

    fn health_of(&self, ctx: &Ctx, run: &Run) -> Health {
        match run.state {
            _ if self.is_left_failed(ctx, run) => Health::Failed,
            State::Waiting => Health::Waiting,
            State::Preparing { .. } | State::Starting { .. } | State::Activating { .. } => {
                match self.runs.history(run.id) {
                    Some(history) if !history.is_well() => Health::Retrying,
                    _ => Health::Starting,
                }
            }
            State::Running { .. } => Health::Running,
            State::Stopping { .. } | State::Cleaning { .. } => Health::Stopping,
            State::Backoff { .. } => Health::Backoff,
            State::Failed { .. } => Health::Failed,
            State::Stopped => Health::Stopped,
        }
    }

    /// Whether all of it is as it is to be. What clients start is ready without a process, as long as
    /// nothing is wrong with it.
    fn is_ready(&self, ctx: &Ctx) -> bool {
        let is_well = |health: Health| match health {
            Health::Running | Health::Stopped => true,
            Health::Waiting | Health::Starting | Health::Retrying | Health::Stopping => {
                !self.is_eager()
            }
            Health::Backoff | Health::Degraded | Health::Failed => false,
        };
        let mut all = self.runs.all();
        self.stopped || all.all(|run| is_well(self.health_of(ctx, run)))
    }

    /// Whether a rollout went back, or the processes of its connections fail.
    fn is_degraded(&self) -> bool {
        self.degraded.is_some() || self.connection_counts().is_failing
    }

    fn health(&self, ctx: &Ctx) -> Health {
        let has_process = |run: &Run| run.state.process().is_some();
        let accepts = self.accepts_connections();
        if self.stopped && !self.runs.holders().any(has_process) {
            Health::Stopped
        } else if self.is_degraded() {
            Health::Degraded
        } else if accepts && self.connections.live == 0 {
            Health::Waiting
        } else if accepts {
            Health::Running
        } else {
            let all = self.runs.holders().map(|run| self.health_of(ctx, run));
            all_in_all(&all.collect::<Vec<Health>>())
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
        self.find(instance).map(|(_, run)| run.state.clone())
    }

    /// What there is to tell about an instance, or a connection that is open.
    pub fn facts(&self, instance: InstanceId) -> Option<Facts> {
        let (worker, run) = self.find(instance)?;
        Some(worker.facts(&self.ctx, run))
    }

    /// How the start of an instance ended whose command after the end runs; `None` if it was
    /// cancelled before there was a program.
    pub fn ended(&self, instance: InstanceId) -> Option<LastEnd> {
        self.find(instance)?.1.this_end.clone()
    }

    /// Everything that runs or is to, and its state, worker by worker; connections last of each.
    pub fn instances(&self) -> impl Iterator<Item = (InstanceId, State)> + '_ {
        let all = self.workers.values().flat_map(|worker| worker.runs.all());
        all.map(|run| (run.instance, run.state.clone()))
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

    /// The number of the next connection of a worker.
    pub fn next_connection(&self, worker: WorkerId) -> u32 {
        let known = self.workers.get(&worker);
        known.map_or(0, |known| known.connections.next_index)
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

    /// Whether a socket is damaged, as the core has been told.
    pub fn is_damaged(&self, listener: ListenerId, socket: SocketKey) -> bool {
        let repair = self.ctx.listeners.damaged.get(&(listener, socket));
        repair.is_some_and(|repair| !repair.whole)
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

    /// How a worker is; one that is not there counts as stopped.
    pub fn health(&self, worker: WorkerId) -> Health {
        let known = self.workers.get(&worker);
        known.map_or(Health::Stopped, |known| known.health(&self.ctx))
    }

    /// Whether everything of a worker is as it is to be.
    pub fn is_ready(&self, worker: WorkerId) -> bool {
        let known = self.workers.get(&worker);
        known.is_none_or(|known| known.is_ready(&self.ctx))
    }

    /// Whether a rollout of a worker went back, or the processes of its connections fail.
    pub fn is_degraded(&self, worker: WorkerId) -> bool {
        self.workers.get(&worker).is_some_and(Worker::is_degraded)
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

    /// Which definition of a worker the configuration has, or had last; `None` if there is no such
    /// worker.
    pub fn latest(&self, worker: WorkerId) -> Option<Revision> {
        Some(self.workers.get(&worker)?.latest)
    }

    /// The workers whose latest definition was rolled back. The next reload tries it again, or what
    /// it is replaced by.
    pub fn rolled_back(&self) -> impl Iterator<Item = WorkerId> + '_ {
        let went_back = |worker: &&Worker| worker.given_up.is_some();
        let all = self.workers.values().filter(went_back);
        all.map(|worker| worker.id)
    }

    /// The worker's generation, from 1.
    pub fn generation(&self, worker: WorkerId) -> u32 {
        let known = self.workers.get(&worker);
        known.map_or(0, |known| known.generation)
    }
}

/// What the instances of a worker come to, with what is on its way in or out.
fn all_in_all(instances: &[Health]) -> Health {
    if instances.contains(&Health::Failed) {
        let has_failed = |health: &Health| *health == Health::Failed;
        return match instances.iter().all(has_failed) {
            true => Health::Failed,
            false => Health::Degraded,
        };
    }
    // The first that any of them is in.
    let order = [
        Health::Backoff,
        Health::Retrying,
        Health::Starting,
        Health::Stopping,
        Health::Running,
        Health::Waiting,
    ];
    let found = order.into_iter().find(|health| instances.contains(health));
    found.unwrap_or(Health::Stopped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_health_of_a_worker_follows_from_its_instances() {
        use Health::{Backoff, Degraded, Failed, Running, Starting, Stopped, Waiting};
        for (instances, expected) in [
            (&[][..], Stopped),
            (&[Stopped, Running], Running),
            (&[Running, Waiting], Running),
            (&[Running, Starting], Starting),
            (&[Running, Backoff], Backoff),
            (&[Failed, Failed], Failed),
            (&[Failed, Running], Degraded),
            (&[Failed, Stopped], Degraded),
        ] {
            assert_eq!(all_in_all(instances), expected, "{instances:?}");
        }
    }
}
