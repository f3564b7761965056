//! The end of a life: calm, in which everything must come to rest, and the stop.

use crate::sim::rollout::life::Life;
use listend::core::{Input, InstanceId, ListenerLife, Mono, Notice, State, Task};
use listend::plan::{ListenerId, WorkerId};
use std::time::Duration;

/// More moments than any wait takes: cool-downs and delays of half a minute, and a look every
/// second.
const MOMENTS: usize = 1000;

impl Life {
    /// From now on every program does what it should.
    pub(crate) fn drain(&mut self) {
        self.calm = self.stop_at.is_none() || self.rng.one_in(2);
        if self.stop_at.is_none() && !self.rng.one_in(4) {
            self.come_to_rest();
        }
        if self.stop_at.is_none() {
            self.stop();
        }
        for moment in 0..MOMENTS {
            self.settle();
            if self.exited {
                break;
            }
            if moment == MOMENTS / 2 {
                // Those that may take for ever and are deaf.
                self.stop();
            }
            self.next_moment();
        }
        assert!(self.exited, "it never ends: {:#?}", self.core);
        assert!(self.processes.is_empty(), "left: {:?}", self.processes);
        for input in [Input::Start, Input::Stop, Input::Tick] {
            self.give(input);
        }
        for (ticket, asked) in &self.asked {
            assert!(asked.is_over, "{ticket:?} was never answered: {asked:?}");
        }
    }

    fn come_to_rest(&mut self) {
        for _ in 0..MOMENTS {
            self.settle();
            if self.rests() {
                self.check_rest();
                self.seen.rested += 1;
                return;
            }
            self.next_moment();
        }
        let unanswered = self.asked.iter().filter(|(_, asked)| !asked.is_over);
        let unanswered: Vec<_> = unanswered.collect();
        panic!(
            "it never rests, nor answers {unanswered:?}: {:#?}",
            self.core
        );
    }

    /// Runs everything that can happen at this moment.
    fn settle(&mut self) {
        for _ in 0..1000 {
            let ids: Vec<_> = self.processes.keys().copied().collect();
            let mut any = !self.due.is_empty();
            while !self.due.is_empty() {
                self.answer();
            }
            for process in ids {
                any |= self.happens(process) && self.calm;
            }
            if !any {
                return;
            }
        }
        panic!("it spins: {:#?}", self.core);
    }

    /// Everybody who can gives a sign of life, and time goes on.
    fn next_moment(&mut self) {
        let alive: Vec<_> = self
            .processes
            .iter()
            .filter(|(_, p)| p.task == Task::Program && p.exec_told && p.exit.is_none() && p.known)
            .map(|(id, _)| *id)
            .collect();
        for process in alive {
            if self.processes.contains_key(&process) && self.calm {
                self.tell(process, Notice::Alive);
            }
        }
        let soon = self.now + Duration::from_secs(1);
        let next = self.core.deadline().map_or(soon, |at| at.min(soon));
        self.now = self.now.max(next).max(Mono(self.now.0 + 1));
        self.give(Input::Tick);
        // Every address is there by now.
        if self.stop_at.is_none() && self.calm {
            self.give(Input::AddressesChanged);
        }
    }

    fn rests(&self) -> bool {
        let ids = || (0..self.workers.len() as u32).map(WorkerId);
        let hooks = self.processes.values().any(|proc| proc.hook().is_some());
        let still = |(_, state): (InstanceId, State)| {
            matches!(
                state,
                State::Running { .. } | State::Waiting | State::Stopped
            ) || matches!(state, State::Failed { until: None, .. })
        };
        // Or there is nobody who could take a client.
        let has_failed = |id: &WorkerId| {
            let known = &self.workers[id.0 as usize];
            let nobody = self.core.instances_of(*id).next().is_none();
            nobody && !known.serves_connections()
                || self.core.failed(*id) > 0
                || self.core.is_stopped(*id)
        };
        let is_open = |(listener, life): (&ListenerId, &ListenerLife)| {
            self.bound.contains(listener) || life.users.iter().all(has_failed)
        };
        !hooks
            && self.listeners.iter().all(is_open)
            && self.due.is_empty()
            && !self.replanning
            // Whoever asked may wait for what an instance says, for a while.
            && self.asked.values().all(|asked| asked.is_over)
            && !ids().any(|id| self.core.is_watched(id))
            && self.core.instances().all(still)
    }

    fn check_rest(&mut self) {
        assert!(self.is_up, "it is not up: {:#?}", self.core);
        for id in (0..self.workers.len() as u32).map(WorkerId) {
            let known = &self.workers[id.0 as usize];
            assert_eq!(known.removed, known.gone, "{id:?} is still there");
            // A connection goes on as it began.
            if known.gone || known.gave_up || self.core.connections(id).live > 0 {
                continue;
            }
            assert_eq!(
                known.kept.len(),
                1 + usize::from(known.given_up.is_some()),
                "{id:?} keeps its past: {:?}",
                known.kept
            );
            for proc in self.processes.values().filter(|p| p.instance.worker == id) {
                assert_eq!(proc.revision, known.current, "{proc:?} is of the past");
            }
            let bound = |(listener, life): (&ListenerId, &ListenerLife)| {
                !life.users.contains(&id) || self.bound.contains(listener)
            };
            if known.is_eager() && self.listeners.iter().all(bound) {
                let waits = |one: &InstanceId| self.core.state(*one) == Some(State::Waiting);
                let left = self.core.instances_of(id).find(waits);
                assert_eq!(left, None, "left behind");
            }
        }
    }
}
