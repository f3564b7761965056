//! What must hold between any two inputs.

use super::instance::State;
use super::machine::{Core, Phase};
use std::collections::BTreeSet;

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
                if self.processes.get(&process) != Some(&index) {
                    return Err(format!("{process:?} does not lead to {:?}", slot.instance));
                }
                if process >= self.next_process {
                    return Err(format!("{process:?} was never allotted"));
                }
            }
            deadlines.extend(state.deadline().map(|at| (at, index)));
            let wants_to_live = match state {
                State::Running { .. } | State::Backoff { .. } | State::Waiting => true,
                State::Starting { ending, .. } => ending.is_none(),
                State::Stopping { .. } | State::Failed { .. } | State::Stopped => false,
            };
            if wants_to_live && self.phase >= Phase::Stopping {
                return Err(format!("{:?} is {state:?} after a stop", slot.instance));
            }
        }
        if processes != self.processes.len() {
            return Err(format!(
                "{processes} instances have a process, {} processes have an instance",
                self.processes.len()
            ));
        }
        if deadlines != self.deadlines {
            return Err(format!("{deadlines:?} is not {:?}", self.deadlines));
        }
        if self.phase >= Phase::Stopping
            && self.processes.is_empty() != (self.phase == Phase::Exited)
        {
            return Err(format!("{processes} processes in {:?}", self.phase));
        }
        for (index, worker) in self.workers.iter().enumerate() {
            let failed = self
                .slots
                .iter()
                .filter(|slot| {
                    slot.instance.worker.0 as usize == index
                        && matches!(slot.state, State::Failed { .. })
                })
                .count();
            if failed != worker.failed as usize {
                return Err(format!("{failed} have failed, not {}", worker.failed));
            }
        }
        Ok(())
    }
}
