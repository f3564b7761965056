//! What the daemon has to tell its service manager, and when.

use super::{Manager, Phase, ReadyWhen, Summary};
use crate::config::Presence;
use crate::core::{Event, ListenerCondition, State};
use crate::plan::{Activation, WorkerId};
use crate::shell::clock;
use crate::shell::turn::Shell;
use std::collections::BTreeMap;

/// How one instance contributes to the whole.
enum Standing {
    Ready,
    NotYet,
    /// Something is wrong with it.
    Ill,
    /// It has ended, and that is well.
    Over,
}

fn standing(state: State) -> Standing {
    match state {
        State::Running { .. } => Standing::Ready,
        State::Waiting
        | State::Preparing { .. }
        | State::Starting { .. }
        | State::Activating { .. }
        | State::Stopping { .. }
        | State::Cleaning { .. } => Standing::NotYet,
        State::Backoff { .. } | State::Failed { .. } => Standing::Ill,
        State::Stopped => Standing::Over,
    }
}

/// What the instances of one worker come to.
#[derive(Debug, Clone, Default)]
struct Tally {
    processes: usize,
    not_yet: usize,
    ill: usize,
}

impl Shell {
    /// With somebody to be told how it goes.
    pub fn with_manager(mut self, manager: Manager, ready_when: ReadyWhen) -> Shell {
        self.manager = manager;
        self.manager.ready_when = ready_when;
        self.manager.something_changed();
        self
    }

    /// Something has happened: it may change the status.
    pub(in crate::shell) fn manager_hears(&mut self, event: &Event) {
        self.manager.something_changed();
        if let Event::StopRequested { .. } = event {
            self.manager.phase = Phase::Stopping;
            let status = self.stopping_status();
            self.manager.stopping(&status, clock::now());
        }
    }

    /// Tells the manager what there is to tell. Costs nothing without a manager, and next to nothing
    /// while nothing happens.
    pub(in crate::shell) fn tell_manager(&mut self) {
        if !self.manager.is_there() {
            return;
        }
        let now = clock::now();
        if self.manager.phase == Phase::Starting && self.manager.is_stale && self.is_ready() {
            self.manager.phase = Phase::Ready;
            let status = self.summary().to_string();
            self.manager.ready(&status, now);
        }
        if self.manager.wants_status(now) {
            let status = match self.manager.phase {
                Phase::Starting => format!("starting; {}", self.summary()),
                Phase::Ready => self.summary().to_string(),
                Phase::Stopping => self.stopping_status(),
            };
            self.manager.status(&status, now);
        }
        let moving = match self.manager.phase {
            Phase::Starting | Phase::Stopping => true,
            Phase::Ready => self.manager.is_reloading || self.core.is_changing(),
        };
        self.manager.set_moving(moving, now);
        self.manager.turn(now);
    }

    /// The configuration is being read again.
    pub(in crate::shell) fn manager_reloading(&mut self) {
        if self.manager.phase == Phase::Ready {
            self.manager.reloading(clock::now());
        }
    }

    /// That is over, however it went.
    pub(in crate::shell) fn manager_reloaded(&mut self) {
        if self.manager.phase == Phase::Ready && self.manager.is_there() {
            let status = self.summary().to_string();
            self.manager.reloaded(&status, clock::now());
        }
    }

    /// Whether everything is there that has to be.
    fn is_ready(&self) -> bool {
        let listeners = self.plan.listeners();
        let mut needed = listeners.filter(|(_, listener)| listener.presence != Presence::Optional);
        let is_bound = |id| self.core.listener_state(id) != ListenerCondition::Missing;
        needed.all(|(id, _)| is_bound(id))
            && match self.manager.ready_when {
                ReadyWhen::Bound => true,
                ReadyWhen::Ready => self.core.is_up(),
            }
    }

    /// Those that clients start are ready without a process, as long as nothing is wrong with them.
    fn is_worker_ready(&self, id: WorkerId, tally: &Tally) -> bool {
        if self.core.is_stopped(id) {
            return true;
        }
        match &self.definitions.worker(id).lifecycle.activation {
            Activation::Eager => tally.not_yet + tally.ill == 0,
            Activation::OnDemand { .. } | Activation::PerConnection(_) => tally.ill == 0,
        }
    }

    fn tallies(&self) -> BTreeMap<WorkerId, Tally> {
        let workers = self.plan.workers.keys();
        let mut tallies: BTreeMap<WorkerId, Tally> =
            workers.map(|id| (*id, Tally::default())).collect();
        for (instance, state) in self.core.instances() {
            let tally = tallies.entry(instance.worker).or_default();
            tally.processes += usize::from(state.process().is_some());
            match standing(state) {
                Standing::Ready | Standing::Over => {}
                Standing::NotYet => tally.not_yet += 1,
                Standing::Ill => tally.ill += 1,
            }
        }
        tallies
    }

    fn summary(&self) -> Summary<'_> {
        let mut summary = Summary::default();
        for (id, listener) in self.plan.listeners() {
            match self.core.listener_state(id) {
                ListenerCondition::Listening => summary.listeners += 1,
                ListenerCondition::Missing | ListenerCondition::Damaged => {
                    summary.degraded.push(&listener.name);
                }
            }
        }
        for (id, tally) in self.tallies() {
            let is_ill = tally.ill > 0 || self.core.degraded(id).is_some();
            let worker = self.definitions.worker(id);
            if worker.is_built_in() && !is_ill {
                continue;
            }
            summary.instances += tally.processes;
            if self.core.is_stopped(id) || !self.plan.workers.contains_key(&id) {
                continue;
            }
            summary.workers += 1;
            summary.ready += usize::from(self.is_worker_ready(id, &tally));
            if is_ill {
                summary.degraded.push(&worker.name);
            }
        }
        summary
    }

    fn stopping_status(&self) -> String {
        let left = self.tallies().values().map(|tally| tally.processes).sum();
        match left {
            0 => "stopping".to_owned(),
            1 => "stopping: 1 instance is left".to_owned(),
            more => format!("stopping: {more} instances are left"),
        }
    }
}
