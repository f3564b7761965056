//! What must hold between any two inputs.

use super::machine::Core;
use super::run::Run;
use super::state::State;
use super::types::{Next, Phase, RunRole};
use super::worker::{Counts, Worker};
use crate::plan::WorkerId;
use std::collections::{BTreeMap, BTreeSet};

impl Core {
    /// Checks that the indices agree with the states, by looking at everything that runs; for tests.
    /// `Err` says what is wrong, which is a mistake in this module and never in the input.
    pub fn check_invariants(&self) -> Result<(), String> {
        if let Some(missing) = &self.ctx.drawn.missing {
            return Err(missing.clone());
        }
        let mut deadlines = BTreeSet::new();
        let mut processes = 0;
        for (worker, run) in self.runs() {
            let state = &run.state;
            if run.id.worker != worker.id || run.instance.worker != worker.id {
                return Err(format!("{run:?} is run by {:?}", worker.id));
            }
            if let Some(process) = state.process() {
                processes += 1;
                if self.ctx.processes.get(&process) != Some(&run.id) {
                    return Err(format!("{process:?} does not lead to {:?}", run.instance));
                }
                if process >= self.ctx.ids.next_process {
                    return Err(format!("{process:?} was never allotted"));
                }
            }
            deadlines.extend(run.deadline().map(|at| (at, run.id)));
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
                return Err(format!("{:?} is {state:?} after a stop", run.instance));
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
        // What was being accepted is not carried on: then the end comes with `Input::Resumed`.
        if self.ctx.phase >= Phase::Stopping
            && self.ctx.to_resume.is_none()
            && self.ctx.is_busy() == (self.ctx.phase == Phase::Exited)
        {
            return Err(format!("{processes} processes in {:?}", self.ctx.phase));
        }
        for (id, worker) in &self.workers {
            let went_back = worker.given_up.as_ref().map(|it| it.revision);
            let follows = worker.revision == worker.latest || worker.removed;
            if !follows && went_back != Some(worker.latest) || went_back == Some(worker.revision) {
                return Err(format!(
                    "{id:?} is to run by {:?}, not {went_back:?}",
                    worker.latest
                ));
            }
            self.check_clients(*id, worker)?;
            self.check_others(worker)?;
            self.check_helpers(worker)?;
        }
        Ok(())
    }

    fn runs(&self) -> impl Iterator<Item = (&Worker, &Run)> {
        let workers = self.workers.values();
        workers.flat_map(|worker| worker.runs.all().map(move |run| (worker, run)))
    }

    /// What a worker runs beside its instances.
    fn check_others(&self, worker: &Worker) -> Result<(), String> {
        if worker.removed && (worker.runs.len() > 0 || worker.rollout.is_some()) {
            return Err(format!("{:?} was removed, and has instances", worker.id));
        }
        for run in worker.runs.others() {
            let is_on_its_way = match worker.role(run.id) {
                RunRole::Instance => false,
                RunRole::Candidate => worker.rollout.is_some(),
                // What is to drain may be between two starts.
                RunRole::Leaving => {
                    run.state.is_busy()
                        || run.is_to_drain() && matches!(run.state, State::Backoff { .. })
                }
            };
            if !is_on_its_way {
                return Err(format!("{run:?} is one more of {:?}", worker.id));
            }
        }
        Ok(())
    }

    fn check_helpers(&self, worker: &Worker) -> Result<(), String> {
        let of_it = self.ctx.hooks.iter().filter(|(_, id)| **id == worker.id);
        let of_it: Vec<_> = of_it.map(|(process, _)| *process).collect();
        let running: Vec<_> = worker
            .helpers
            .running()
            .map(|(process, _)| process)
            .collect();
        if of_it != running {
            return Err(format!(
                "{of_it:?} run for {:?}, not {running:?}",
                worker.id
            ));
        }
        Ok(())
    }

    /// What is counted for a worker, and whether somebody waits whom it would take.
    fn check_clients(&self, id: WorkerId, worker: &Worker) -> Result<(), String> {
        let mut counts = Counts::default();
        for run in worker.runs.all() {
            counts.change(&run.state, 1);
        }
        let mut sources = BTreeMap::new();
        let mut live = 0;
        for connection in worker.runs.connections() {
            live += 1;
            *sources.entry(connection.source).or_insert(0) += 1;
        }
        if counts != worker.counts {
            return Err(format!("{counts:?}, not {:?}", worker.counts));
        }
        let connections = &worker.connections;
        if live != connections.live || sources != connections.sources {
            return Err(format!("{live} of {sources:?}, not {connections:?}"));
        }
        let under_way = self.ctx.accepting.values().filter(|worker| **worker == id);
        if under_way.count() != connections.under_way as usize {
            return Err(format!("not {} are being accepted", connections.under_way));
        }
        let gate = &worker.gate;
        let mut due = self.ctx.timers.gates.iter();
        let due = due.find(|(_, worker)| *worker == id).map(|(at, _)| *at);
        if self.ctx.phase == Phase::Running && due != gate.resume_at {
            return Err(format!("{due:?} is not {:?}", gate.resume_at));
        }
        let mut due = self.ctx.timers.uses.iter();
        let due = due.find(|(_, worker)| *worker == id).map(|(at, _)| *at);
        let is_looked_at = worker.idle.look.is_some() && due.is_none();
        if self.ctx.phase == Phase::Running && due != worker.idle.look_at && !is_looked_at {
            return Err(format!("{due:?} is not {:?}", worker.idle.look_at));
        }
        if !gate.parked.is_empty() && self.takes_clients(id) {
            return Err(format!("{:?} of {id:?} is not watched", gate.parked));
        }
        Ok(())
    }
}
