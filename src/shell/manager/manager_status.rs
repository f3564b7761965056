//! What the daemon has to tell its service manager, and when.

use super::{Manager, Phase, ReadyWhen, Summary};
use crate::config::Presence;
use crate::core::{DaemonEvent, Event, ListenerCondition};
use crate::plan::{ListenerId, WorkerId};
use crate::shell::clock;
use crate::shell::turn::Shell;
use std::collections::{BTreeMap, BTreeSet};

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
        if let Event::Daemon(DaemonEvent::StopRequested { .. }) = event {
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

    /// Tells the manager that the reload is over, whether it succeeded or not.
    pub(in crate::shell) fn manager_reloaded(&mut self) {
        if self.manager.phase == Phase::Ready && self.manager.is_there() {
            let status = self.summary().to_string();
            self.manager.reloaded(&status, clock::now());
        }
    }

    /// What was ready is so without the sockets that only its workers have now.
    pub(in crate::shell) fn goes_on_without(&mut self, listeners: BTreeSet<ListenerId>) {
        if self.core.is_up() {
            self.manager.unheld = listeners;
        }
    }

    /// Whether everything is there that has to be.
    fn is_ready(&self) -> bool {
        let listeners = self.plan.listeners();
        let unheld = &self.manager.unheld;
        let mut needed = listeners.filter(|(id, listener)| {
            listener.settings.presence != Presence::Optional && !unheld.contains(id)
        });
        let is_bound = |id| self.core.listener_state(id) != ListenerCondition::Missing;
        needed.all(|(id, _)| is_bound(id))
            && match self.manager.ready_when {
                ReadyWhen::Bound => true,
                ReadyWhen::Ready => self.core.is_up(),
            }
    }

    /// How many instances and connections of each worker have a process.
    fn processes(&self) -> BTreeMap<WorkerId, usize> {
        let workers = self.plan.workers.keys();
        let mut processes: BTreeMap<WorkerId, usize> = workers.map(|id| (*id, 0)).collect();
        for (instance, state) in self.core.instances() {
            let count = processes.entry(instance.worker).or_default();
            *count += usize::from(state.process().is_some());
        }
        processes
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
        for (id, processes) in self.processes() {
            let is_ill = self.core.health(id).is_ill();
            let worker = self.definitions.worker(id);
            if worker.is_built_in() && !is_ill {
                continue;
            }
            summary.instances += processes;
            if self.core.is_stopped(id) || !self.plan.workers.contains_key(&id) {
                continue;
            }
            summary.workers += 1;
            summary.ready += usize::from(self.core.is_ready(id));
            if is_ill {
                summary.degraded.push(&worker.name);
            }
        }
        summary
    }

    fn stopping_status(&self) -> String {
        match self.processes().values().sum::<usize>() {
            0 => "stopping".to_owned(),
            1 => "stopping: 1 instance is left".to_owned(),
            more => format!("stopping: {more} instances are left"),
        }
    }
}
