//! What must hold between any two inputs.

use super::instance::Slot;
use super::machine::Core;
use super::state::State;
use super::types::{Next, Phase, Role};
use super::worker::{Counts, Worker};
use crate::plan::WorkerId;
use std::collections::{BTreeMap, BTreeSet};

impl Core {
    /// Checks that the indices agree with the states, by looking at every instance; for tests.
    /// `Err` says what is wrong, which is a mistake in this module and never in the input.
    pub fn check_invariants(&self) -> Result<(), String> {
        let mut deadlines = BTreeSet::new();
        let mut processes = 0;
        for (index, slot) in self.slots.iter().enumerate() {
            let state = slot.state;
            if let Some(process) = state.process() {
                processes += 1;
                if self.ctx.processes.get(&process) != Some(&index) {
                    return Err(format!("{process:?} does not lead to {:?}", slot.instance));
                }
                if process >= self.ctx.ids.next_process {
                    return Err(format!("{process:?} was never allotted"));
                }
            }
            deadlines.extend(slot.deadline().map(|at| (at, index)));
            let wants_to_live = match state {
                State::Activating { .. }
                | State::Running { .. }
                | State::Backoff { .. }
                | State::Waiting => true,
                State::Preparing { cancelled, .. } => !cancelled,
                State::Cleaning { next, .. } => !matches!(next, Next::Stopping | Next::Done),
                State::Starting { ending, .. } => ending.is_none(),
                State::Stopping { .. } | State::Failed { .. } | State::Stopped => false,
            };
            if wants_to_live && self.ctx.phase >= Phase::Stopping {
                return Err(format!("{:?} is {state:?} after a stop", slot.instance));
            }
        }
        if processes != self.ctx.processes.len() {
            return Err(format!(
                "{processes} instances have a process, {} processes have an instance",
                self.ctx.processes.len()
            ));
        }
        if deadlines != self.ctx.timers.runs {
            return Err(format!("{deadlines:?} is not {:?}", self.ctx.timers.runs));
        }
        if self.ctx.phase >= Phase::Stopping
            && (self.ctx.processes.is_empty()
                && self.accepting.is_empty()
                && self.helpers.is_empty())
                != (self.ctx.phase == Phase::Exited)
        {
            return Err(format!("{processes} processes in {:?}", self.ctx.phase));
        }
        for (id, worker) in &self.workers.0 {
            let failed = self
                .slots
                .iter()
                .filter(|slot| {
                    slot.instance.worker == *id
                        && slot.role == Role::Instance
                        && matches!(slot.state, State::Failed { .. })
                })
                .count();
            if failed != worker.failed as usize {
                return Err(format!("{failed} have failed, not {}", worker.failed));
            }
            self.check_clients(*id, worker)?;
            self.check_roles(*id, worker)?;
        }
        for index in &self.vacant {
            let slot = &self.slots[*index];
            let is_free = slot.role == Role::Leaving && slot.state == State::Stopped;
            if slot.connection.is_some() || !is_free {
                return Err(format!("{slot:?} is vacant"));
            }
        }
        Ok(())
    }

    /// Which slots a worker has, and what they are to it.
    fn check_roles(&self, id: WorkerId, worker: &Worker) -> Result<(), String> {
        for index in &worker.slots {
            let slot = &self.slots[*index];
            if slot.role != Role::Instance || slot.instance.worker != id {
                return Err(format!("{slot:?} is an instance of {id:?}"));
            }
        }
        for index in &worker.others {
            let slot = &self.slots[*index];
            let is_on_its_way = slot.role == Role::Candidate && self.rollouts.contains_key(&id)
                || slot.role == Role::Leaving && slot.state.is_busy();
            if !is_on_its_way || slot.instance.worker != id {
                return Err(format!("{slot:?} is one more of {id:?}"));
            }
        }
        let on_trial = |slot: &Slot| slot.on_trial && slot.instance.worker == id;
        if !self.rollouts.contains_key(&id) && self.slots.iter().any(on_trial) {
            return Err(format!("{id:?} is on trial, and is not rolling"));
        }
        Ok(())
    }

    /// What is counted for a worker, and whether somebody waits whom it would take.
    fn check_clients(&self, id: WorkerId, worker: &Worker) -> Result<(), String> {
        let of_it = |slot: &&Slot| slot.instance.worker == id;
        let mut counts = Counts::default();
        let mut sources = BTreeMap::new();
        let mut live = 0;
        for slot in &self.slots {
            if !of_it(&slot) || !slot.is_taken() {
                continue;
            }
            counts.change(slot.state, 1);
            if let Some(held) = slot.connection {
                live += 1;
                *sources.entry(held.source).or_insert(0) += 1;
            }
        }
        if counts != worker.counts {
            return Err(format!("{counts:?}, not {:?}", worker.counts));
        }
        let connections = &worker.connections;
        if live != connections.live || sources != connections.sources {
            return Err(format!("{live} of {sources:?}, not {connections:?}"));
        }
        let under_way = self.accepting.values().filter(|worker| **worker == id);
        if under_way.count() != connections.under_way as usize {
            return Err(format!("not {} are being accepted", connections.under_way));
        }
        let gate = &worker.gate;
        let due = self
            .ctx
            .timers
            .gates
            .iter()
            .find(|(_, worker)| *worker == id);
        if self.ctx.phase == Phase::Running && due.map(|(at, _)| *at) != gate.resume_at {
            return Err(format!("{due:?} is not {:?}", gate.resume_at));
        }
        if !gate.parked.is_empty() && self.takes_clients(id) {
            return Err(format!("{:?} of {id:?} is not watched", gate.parked));
        }
        Ok(())
    }
}
