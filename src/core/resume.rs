//! Going on where another core was.
//!
//! What that one had begun and not finished is begun again, or counts as not begun. `super::snapshot` lists
//! the rules.

use super::ctx::Ctx;
use super::effect::Effect;
use super::machine::Core;
use super::run::{Run, Watchdog};
use super::state::{Launch, State};
use super::types::{ConnectionId, ExitStatus, HookEnd, Next, Phase, ProcessId, RunId};
use super::worker::Worker;
use crate::config::Ready;
use crate::connection::Source;
use crate::plan::WorkerId;
use std::time::Duration;

impl Worker {
    /// Processes from `own` on are those that this core has asked for itself.
    fn resume(&mut self, ctx: &mut Ctx, own: ProcessId) {
        ctx.stir(self.id);
        self.steer_anew();
        for id in self.runs.ids() {
            self.resume_run(ctx, id, own);
        }
        self.resume_use(ctx);
        let never = self.helpers.running();
        let never = never.filter(|(process, helper)| !helper.exists && *process < own);
        let never: Vec<ProcessId> = never.map(|(process, _)| process).collect();
        for process in never {
            let status = ExitStatus::Unknown;
            self.helper_ended(ctx, process, HookEnd::Exited { status });
        }
    }

    fn resume_run(&mut self, ctx: &mut Ctx, id: RunId, own: ProcessId) {
        if self.has_lost_listend(id) {
            self.comes_back(id, true);
            self.await_end(ctx, id);
        }
        let state = &self.runs[id].state;
        let ends = state.process().is_none() || state.ending().is_some();
        let goes_on = ends || self.keeps_its_flows(ctx, id);
        let goes = self.runs.is_leaving(id) || self.makes_room(id);
        let drained = self.runs[id].is_to_drain();
        if goes && (drained || !goes_on) && !self.drain(ctx, id) {
            self.stop_instance(ctx, id);
        }
        match self.runs[id].state {
            State::Starting { process, .. } if process >= own => {}
            State::Starting {
                launch: Launch::Forking,
                ..
            } => self.was_never_launched(ctx, id),
            // Nobody is left who could tell whether it had reached its program.
            State::Starting {
                process,
                since,
                launch: Launch::Exited { status, at },
                ..
            } => self.exited(ctx, id, process, status, at.since(since)),
            State::Activating {
                process,
                look_at: None,
                ..
            } if matches!(self.runs[id].life.ready, Ready::Accepting(_)) => {
                ctx.outbox.push(Effect::LookForEvidence { process });
            }
            State::Running { .. } => {
                self.watch_anew(ctx, id);
                if self.keeps_its_flows(ctx, id) {
                    self.watch_flows(ctx, id);
                }
            }
            State::Waiting
            | State::Starting { .. }
            | State::Preparing { .. }
            | State::Activating { .. }
            | State::Stopping { .. }
            | State::Cleaning { .. }
            | State::Backoff { .. }
            | State::Failed { .. }
            | State::Stopped => {}
        }
    }

    /// Whether it runs, and asks a listend that is not there any more.
    fn has_lost_listend(&self, id: RunId) -> bool {
        let Run { state, life, .. } = &self.runs[id];
        let has_connection = state.process().is_some() && !state.is_asked_for();
        let is_placed = self.runs.instance(id).is_some();
        is_placed && life.ends_with_listend && has_connection && state.ending().is_none()
    }

    /// It ends by itself. Should it hang, the time of a stop has begun.
    fn await_end(&mut self, ctx: &mut Ctx, id: RunId) {
        match self.runs[id].state {
            State::Activating { process, since, .. } | State::Running { process, since, .. } => {
                self.begin_ending(ctx, id, process, since);
            }
            _ => self.stop_instance(ctx, id),
        }
    }

    /// A process was asked for, and there is none: as if it had not been.
    fn was_never_launched(&mut self, ctx: &mut Ctx, id: RunId) {
        let run = &mut self.runs[id];
        run.starts = run.starts.saturating_sub(1);
        let next = match run.state.ending() {
            Some(_) => self.after_stop(ctx, id),
            None => Next::RestartIn(Duration::ZERO),
        };
        self.wind_up(ctx, id, next);
    }

    fn watch_anew(&mut self, ctx: &mut Ctx, id: RunId) {
        if let Some(run) = self.runs.quiet_mut(id)
            && let Some(Watchdog { interval, due }) = &mut run.watchdog
        {
            *due = ctx.now + *interval;
        }
        self.reschedule(ctx, id);
    }
}

impl Core {
    /// It is known by now what became of every process.
    pub(super) fn resume(&mut self) {
        let Some(own) = self.ctx.to_resume.take() else {
            return self.ctx.ignore();
        };
        if self.ctx.phase == Phase::Idle {
            return self.start();
        }
        self.on_all(|worker, ctx| worker.resume(ctx, own));
        self.resume_listeners();
        self.start_what_waits();
    }

    /// listend's own descriptor of a connection is lost.
    pub(super) fn connection_lost(&mut self, connection: ConnectionId) {
        let mut lost = None;
        for (id, worker) in &self.workers {
            let mut all = worker.runs.connections();
            if let Some(one) = all.find(|one| one.id == connection && one.open) {
                lost = Some((*id, one.run.id));
                break;
            }
        }
        let Some((id, run)) = lost else {
            return self.ctx.ignore();
        };
        self.on(id, |worker, ctx| worker.connection_lost(ctx, run));
    }

    /// A process of a connection is left of which nothing was written.
    pub(super) fn connection_found(&mut self, worker: WorkerId, index: u32, source: Source) {
        let is_over = self.ctx.phase == Phase::Exited;
        let found = (!is_over)
            .then(|| self.on(worker, |worker, ctx| worker.found(ctx, index, source)))
            .flatten();
        if found != Some(true) {
            self.ctx.ignore();
        }
    }

    /// The connections of which listend has a descriptor: because no process has them, or none that is known
    /// to run its program.
    pub fn open_connections(&self) -> impl Iterator<Item = ConnectionId> + '_ {
        let all = self.workers.values();
        let all = all.flat_map(|worker| worker.runs.connections());
        all.filter(|one| one.open).map(|one| one.id)
    }
}

impl Worker {
    /// What has a process may have the connection, and what has none never will.
    fn connection_lost(&mut self, ctx: &mut Ctx, id: RunId) {
        if let Some(connection) = self.runs.connection_mut(id) {
            connection.open = false;
        }
        let is_there = |state: &State| state.process().is_some() && !state.is_asked_for();
        if !is_there(&self.runs[id].state) {
            self.end_connection(ctx, id);
        }
    }
}
