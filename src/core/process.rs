//! What is heard about a process, and what follows from its end.

use super::backoff::{self, History};
use super::ctx::Ctx;
use super::effect::Effect;
use super::event::{Event, InstanceEvent, ProcessEvent, WorkerEvent};
use super::input::News;
use super::state::{Ending, Launch, State};
use super::types::{
    AT_NEXT_CLIENT, ExitStatus, FailureReason, Fault, HookEnd, LastEnd, Next, Phase, ProcessId,
    RunId, Task,
};
use super::worker::Worker;
use crate::config::{KillMode, RestartPolicy};
use crate::plan::Activation;
use crate::stage::LaunchFailure;
use std::time::Duration;

/// A shell's exit status for a command that a signal ended is this and the signal's number.
const SHELL_SIGNAL_BASE: i32 = 128;
/// A shell's exit status for a command that it could not execute.
const SHELL_NOT_EXECUTED: u8 = 127;

impl Worker {
    pub(super) fn on_process_event(
        &mut self,
        ctx: &mut Ctx,
        id: RunId,
        process: ProcessId,
        news: News,
    ) {
        match self.runs[id].state.clone() {
            State::Starting {
                since,
                launch,
                ending,
                ..
            } => match (launch, news) {
                (Launch::Forking, News::Spawned) => self.spawned(ctx, id, process, ending),
                // Whatever the stage: there is no process as long as none was told of.
                (Launch::Forking, News::LaunchFailed(failure)) => {
                    self.launch_failed(ctx, id, process, failure);
                }
                (Launch::Execing, News::ExecSucceeded) => {
                    self.exec_succeeded(ctx, id, process, ending);
                }
                (Launch::Execing, News::LaunchFailed(failure)) => {
                    self.launch_is(id, Launch::Failed { failure });
                }
                (Launch::Execing, News::Exited(status)) => {
                    self.launch_is(
                        id,
                        Launch::Exited {
                            status,
                            at: ctx.now,
                        },
                    );
                }
                (Launch::Failed { failure }, News::Exited(_)) => {
                    self.launch_failed(ctx, id, process, failure);
                }
                (Launch::Exited { status, at }, News::ExecSucceeded) => {
                    let instance = self.runs[id].instance;
                    ctx.emit(Event::Process(instance, process, ProcessEvent::Started));
                    self.note_served(ctx, id);
                    self.exited(ctx, id, process, status, at.since(since));
                }
                (Launch::Exited { .. }, News::LaunchFailed(failure)) => {
                    self.launch_failed(ctx, id, process, failure);
                }
                (_, News::MainExited(_))
                | (Launch::Forking, News::ExecSucceeded | News::Exited(_))
                | (Launch::Execing, News::Spawned)
                | (
                    Launch::Failed { .. },
                    News::Spawned | News::ExecSucceeded | News::LaunchFailed(_),
                )
                | (Launch::Exited { .. }, News::Spawned | News::Exited(_)) => ctx.ignore(),
            },
            State::Activating { since, .. }
            | State::Running { since, .. }
            | State::Stopping { since, .. } => match news {
                News::MainExited(status) if self.runs[id].main_ended.is_none() => {
                    self.main_exited(ctx, id, process, status);
                }
                News::Exited(status) => {
                    let at = self.runs[id].main_ended.unwrap_or(ctx.now);
                    self.exited(ctx, id, process, status, at.since(since));
                }
                News::MainExited(_) => ctx.ignore(),
                News::Spawned | News::ExecSucceeded | News::LaunchFailed(_) => ctx.ignore(),
            },
            // Without a process, so that none leads here.
            State::Waiting
            | State::Preparing { .. }
            | State::Cleaning { .. }
            | State::Backoff { .. }
            | State::Failed { .. }
            | State::Stopped => {
                ctx.ignore();
            }
        }
    }

    fn spawned(&mut self, ctx: &mut Ctx, id: RunId, process: ProcessId, ending: Option<Ending>) {
        let instance = self.runs[id].instance;
        ctx.emit(Event::Process(instance, process, ProcessEvent::Starting));
        if ending == Some(Ending::Killed) {
            ctx.kill(process);
        }
        self.become_state(
            ctx,
            id,
            State::Starting {
                process,
                since: ctx.now,
                launch: Launch::Execing,
                ending,
            },
        );
    }

    fn exec_succeeded(
        &mut self,
        ctx: &mut Ctx,
        id: RunId,
        process: ProcessId,
        ending: Option<Ending>,
    ) {
        let instance = self.runs[id].instance;
        ctx.emit(Event::Process(instance, process, ProcessEvent::Started));
        self.note_served(ctx, id);
        // Of a connection's process it is known only some time after.
        let created = match self.runs[id].state {
            State::Starting { since, .. } if self.runs.is_connection(id) => Some(since),
            _ => None,
        };
        let since = created.unwrap_or(ctx.now);
        match ending {
            None => self.program_runs(ctx, id, process, since),
            Some(ending) => {
                if let Ending::Graceful { .. } = ending {
                    self.ask_to_stop(ctx, id, process);
                }
                let state = State::Stopping {
                    process,
                    since,
                    ending,
                };
                self.become_state(ctx, id, state);
            }
        }
    }

    fn launch_is(&mut self, id: RunId, launch: Launch) {
        if let State::Starting {
            launch: current, ..
        } = &mut self.runs[id].state
        {
            *current = launch;
        }
    }

    fn launch_failed(
        &mut self,
        ctx: &mut Ctx,
        id: RunId,
        process: ProcessId,
        failure: LaunchFailure,
    ) {
        let end = LastEnd::NotLaunched {
            failure: failure.clone(),
        };
        self.runs[id].ended(end);
        let next = self.after_launch_failure(ctx, id, Some(&failure));
        let next = self.if_in_time(ctx, id, next);
        let instance = self.runs[id].instance;
        ctx.emit(Event::Process(
            instance,
            process,
            ProcessEvent::LaunchFailed { failure, next },
        ));
        if let Next::Failed(_) = next {
            ctx.judge(SHELL_NOT_EXECUTED);
        }
        self.wind_up(ctx, id, next);
    }

    /// The command before the start has failed: so has the start.
    pub(super) fn not_prepared(&mut self, ctx: &mut Ctx, id: RunId, end: HookEnd) -> Next {
        let failure = match &end {
            HookEnd::NotLaunched { failure } => Some(failure),
            HookEnd::Exited { .. } | HookEnd::TimedOut { .. } => None,
        };
        let next = self.after_launch_failure(ctx, id, failure);
        let next = self.if_in_time(ctx, id, next);
        self.runs[id].ended(LastEnd::NotPrepared { end });
        if let Next::Failed(_) = next {
            ctx.judge(SHELL_NOT_EXECUTED);
        }
        next
    }

    /// The main process has ended, and others of its process group go on. If that was asked for, or
    /// went well, they finish what they do until `stop_timeout` is over. After a crash nobody leads
    /// them any more: they are asked to end, as systemd does it.
    fn main_exited(&mut self, ctx: &mut Ctx, id: RunId, process: ProcessId, status: ExitStatus) {
        let run = &mut self.runs[id];
        run.main_ended = Some(ctx.now);
        let was_ending = run.state.ending();
        let was_asked = was_ending.is_some() && !run.by_itself && run.fault.is_none();
        let crashed =
            run.fault.is_some() || !was_asked && backoff::is_failure(status, &run.life.restart);
        let has_the_signal = match run.life.kill_mode {
            KillMode::Process => !crashed,
            KillMode::Group => was_asked || run.fault == Some(Fault::NotReady),
        };
        let instance = run.instance;
        if let State::Activating { since, .. } | State::Running { since, .. } = run.state {
            run.by_itself = true;
            self.begin_ending(ctx, id, process, since);
        }
        if was_ending == Some(Ending::Killed) {
            return;
        }
        let kill_at = self.runs[id].state.deadline();
        ctx.emit(Event::Process(
            instance,
            process,
            ProcessEvent::MainExited {
                status,
                left: kill_at.map(|at| at.since(ctx.now)),
            },
        ));
        if !has_the_signal {
            self.ask_to_stop(ctx, id, process);
        }
    }

    pub(super) fn exited(
        &mut self,
        ctx: &mut Ctx,
        id: RunId,
        process: ProcessId,
        status: ExitStatus,
        uptime: Duration,
    ) {
        let run = &mut self.runs[id];
        let too_late = run.overdue.then_some(Fault::NotStopped);
        let cause = run.fault.or(too_late);
        run.to_clean = true;
        run.ended(LastEnd::Exited {
            status,
            uptime,
            cause,
        });
        let next = self.after_exit(ctx, id, status, uptime);
        let next = self.if_in_time(ctx, id, next);
        let instance = self.runs[id].instance;
        ctx.emit(Event::Process(
            instance,
            process,
            ProcessEvent::Exited {
                status,
                uptime,
                cause,
                next,
            },
        ));
        if matches!(next, Next::StaysStopped | Next::Failed(_)) {
            ctx.judge(match status {
                ExitStatus::Code(code) => u8::try_from(code).unwrap_or(u8::MAX),
                ExitStatus::Signal { number, .. } => {
                    u8::try_from(number.saturating_add(SHELL_SIGNAL_BASE)).unwrap_or(u8::MAX)
                }
                ExitStatus::Unknown => u8::MAX,
            });
        }
        self.wind_up(ctx, id, next);
    }

    fn after_launch_failure(
        &mut self,
        ctx: &mut Ctx,
        id: RunId,
        failure: Option<&LaunchFailure>,
    ) -> Next {
        if self.runs[id].state.ending().is_some() {
            return self.after_stop(ctx, id);
        }
        // What listend could not do now is nothing that the worker has done, whatever its policy is.
        let is_momentary = failure.is_some_and(LaunchFailure::is_momentary);
        if self.is_on_trial(id) || (!is_momentary && self.note_crash(ctx, id)) {
            return Next::RolledBack;
        }
        match self.runs[id].life.activation {
            Activation::Eager if is_momentary => {
                return Next::RestartIn(self.delay_of(ctx, id));
            }
            Activation::OnDemand { .. } if is_momentary => {
                let delay = self.delay_of(ctx, id);
                return self.at_next_client_or_at_once(id, delay);
            }
            Activation::Eager => {}
            Activation::OnDemand { .. } => return self.after_crash_on_demand(ctx, id),
            // Without its descriptor nothing can serve it, and with another activation nothing is to.
            Activation::PerConnection(_)
                if !self.accepts_connections()
                    || !self.runs.connection(id).is_some_and(|one| one.open) =>
            {
                return Next::Done;
            }
            Activation::PerConnection(_) => {
                return self.after_launch_failure_of_connection(ctx);
            }
        }
        match self.runs[id].life.restart.policy {
            RestartPolicy::Always | RestartPolicy::OnFailure => self.after_crash(ctx, id),
            RestartPolicy::Never => Next::Failed(FailureReason::NeverLaunched),
        }
    }

    fn after_exit(
        &mut self,
        ctx: &mut Ctx,
        id: RunId,
        status: ExitStatus,
        uptime: Duration,
    ) -> Next {
        let run = &mut self.runs[id];
        let by_itself = std::mem::take(&mut run.by_itself);
        // How its main process ended decides, if it did.
        let never_ended = by_itself && run.overdue && run.main_ended.is_none();
        let fault = run.fault.take();
        let fault = fault.or(never_ended.then_some(Fault::NotStopped));
        if fault.is_none() && !by_itself && run.state.ending().is_some() {
            return self.after_stop(ctx, id);
        }
        // It had ended with the listend before, which says nothing about it.
        if ctx.to_resume.is_some() && run.life.ends_with_listend && fault.is_none() {
            self.comes_back(id, true);
            return self.after_stop(ctx, id);
        }
        // Its flows are new ones now, for what has replaced it.
        if self.runs.is_leaving(id) && !self.runs[id].is_to_drain() {
            return Next::Stopping;
        }
        let restart = &self.runs[id].life.restart;
        let is_fine = self.is_on_demand(id) && !backoff::is_failure(status, restart);
        if self.is_on_trial(id) && (fault.is_some() || !is_fine) {
            return Next::RolledBack;
        }
        let crashed = backoff::ended_by_itself(status) && backoff::is_failure(status, restart);
        if (fault.is_some() || crashed) && self.note_crash(ctx, id) {
            return Next::RolledBack;
        }
        if let Activation::PerConnection(_) = self.runs[id].life.activation {
            let restart = &self.runs[id].life.restart;
            let failed = fault.is_some() || backoff::is_failure(status, restart);
            self.connection_ended(ctx, id, status, failed);
        }
        if fault.is_some() {
            return self.after_fault(ctx, id);
        }
        match self.runs[id].life.activation {
            Activation::Eager => {}
            Activation::OnDemand { .. } => {
                return self.after_exit_on_demand(ctx, id, status, uptime);
            }
            Activation::PerConnection(_) => return Next::Done,
        }
        let Some((run, history)) = self.runs.history_mut(id) else {
            return Next::Stopping;
        };
        let restart = &run.life.restart;
        let again = match restart.policy {
            RestartPolicy::Always => true,
            RestartPolicy::OnFailure => backoff::is_failure(status, restart),
            RestartPolicy::Never => false,
        };
        if !again {
            return Next::StaysStopped;
        }
        history.ran(uptime, restart);
        let delay = restart.backoff_min;
        if backoff::ended_by_itself(status) {
            self.after_crash(ctx, id)
        } else {
            Next::RestartIn(delay)
        }
    }

    /// What becomes of an instance that listend has ended because it was not well, however it took
    /// that.
    fn after_fault(&mut self, ctx: &mut Ctx, id: RunId) -> Next {
        match (
            &self.runs[id].life.activation,
            self.runs[id].life.restart.policy,
        ) {
            (Activation::OnDemand { .. }, _) => self.after_crash_on_demand(ctx, id),
            // Its connection was given away with it.
            (Activation::PerConnection(_), _) => Next::Done,
            (_, RestartPolicy::Always | RestartPolicy::OnFailure) => self.after_crash(ctx, id),
            (_, RestartPolicy::Never) => Next::StaysStopped,
        }
    }

    /// A stop ends in another start only if it was meant to, and listend itself is not stopping.
    pub(super) fn after_stop(&mut self, ctx: &mut Ctx, id: RunId) -> Next {
        let again = self
            .runs
            .instance_mut(id)
            .map(|one| std::mem::take(&mut one.again));
        let again = again.unwrap_or_default() || self.runs[id].is_to_drain();
        if !again || ctx.phase != Phase::Running {
            Next::Stopping
        } else if self.is_on_demand(id) {
            AT_NEXT_CLIENT
        } else {
            Next::RestartIn(Duration::ZERO)
        }
    }

    /// The delay before the next start after what does not count towards the limit.
    fn delay_of(&mut self, ctx: &mut Ctx, id: RunId) -> Duration {
        let Some((run, history)) = self.runs.history_mut(id) else {
            return Duration::ZERO;
        };
        let salt = u64::from(run.instance.index);
        history.delayed(ctx.now, &run.life.restart, salt)
    }

    pub(super) fn after_crash(&mut self, ctx: &mut Ctx, id: RunId) -> Next {
        if self.runs.is_leaving(id) && !self.runs[id].is_to_drain() {
            return Next::Stopping;
        }
        let Some((run, history)) = self.runs.history_mut(id) else {
            // Others are never restarted.
            return Next::Stopping;
        };
        let restart = &run.life.restart;
        let salt = u64::from(run.instance.index);
        match history.crashed(ctx.now, restart, salt) {
            Ok(delay) => Next::RestartIn(delay),
            Err(crashes) => Next::Failed(FailureReason::CrashLoop {
                crashes,
                interval: restart.limit.map_or(Duration::ZERO, |limit| limit.interval),
            }),
        }
    }

    /// Puts into effect what was decided about an instance whose process is gone.
    pub(super) fn follow(&mut self, ctx: &mut Ctx, id: RunId, next: Next) {
        if !matches!(next, Next::RestartIn(_)) {
            // Whoever waits in its shard waits for another start.
            self.runs[id].drain = None;
        }
        match next {
            Next::RestartIn(delay) => {
                self.become_state(
                    ctx,
                    id,
                    State::Backoff {
                        until: ctx.now + delay,
                    },
                );
            }
            Next::AtNextClient {
                not_before: Duration::ZERO,
            } => self.become_state(ctx, id, State::Waiting),
            Next::AtNextClient { not_before } => {
                let until = ctx.now + not_before;
                self.become_state(ctx, id, State::Backoff { until });
            }
            Next::Failed(_) if self.runs.is_leaving(id) => self.leave(ctx, id),
            Next::Failed(reason) => self.failed_for_good(ctx, id, reason),
            Next::Done | Next::StaysStopped | Next::Stopping | Next::RolledBack => {
                self.leave(ctx, id);
            }
        }
        self.retire_unused(ctx);
    }

    /// Nothing runs in this run any more, and nothing will by itself.
    pub(super) fn leave(&mut self, ctx: &mut Ctx, id: RunId) {
        if self.runs.is_connection(id) {
            return self.end_connection(ctx, id);
        }
        self.become_state(ctx, id, State::Stopped);
        if self.runs.is_leaving(id) {
            self.end_flows(ctx, id);
            self.runs.finish(id);
            self.retire_unused(ctx);
            self.tell_if_gone(ctx);
        }
    }

    fn failed_for_good(&mut self, ctx: &mut Ctx, id: RunId, reason: FailureReason) {
        let chosen = self.runs[id].life.restart.cool_down;
        let cool_down = match reason {
            FailureReason::CrashLoop { interval, .. } if self.is_on_demand(id) => {
                Some(chosen.unwrap_or(interval))
            }
            FailureReason::CrashLoop { .. } => chosen,
            FailureReason::NeverLaunched => None,
        };
        let until = cool_down.map(|time| ctx.now + time);
        self.become_state(ctx, id, State::Failed { reason, until });
        let instance = self.runs[id].instance;
        ctx.emit(Event::Instance(
            instance,
            InstanceEvent::Failed { reason, cool_down },
        ));
        if self.has_failed() {
            let worker = self.id;
            ctx.emit(Event::Worker(worker, WorkerEvent::Failed));
            ctx.failing.insert(self.id);
        }
    }

    /// The time for which a failed instance was left alone is over.
    pub(super) fn cooled_down(&mut self, ctx: &mut Ctx, id: RunId) {
        if let Some(instance) = self.runs.instance_mut(id) {
            instance.history = History::default();
        }
        // Or no client would come.
        ctx.take_clients_again(self.id);
        if self.is_on_demand(id) {
            self.rested(ctx, id);
        } else {
            self.start_again(ctx, id);
        }
    }

    /// Starts an instance once more, or has it wait for its listeners. The process of a connection gets that
    /// and no listener.
    pub(super) fn start_again(&mut self, ctx: &mut Ctx, id: RunId) {
        ctx.take_clients_again(self.id);
        if self.runs[id].is_to_drain() && !self.may_drain(ctx, id) {
            return self.stop_instance(ctx, id);
        }
        if !self.runs.is_connection(id) && self.waits_for_a_listener(ctx) {
            self.become_state(ctx, id, State::Waiting);
        } else {
            self.spawn(ctx, id);
        }
    }

    /// Starts what waits when listend starts.
    pub(super) fn start(&mut self, ctx: &mut Ctx) {
        let starts = self.is_eager() && !self.waits_for_a_listener(ctx);
        for id in self.runs.placed() {
            self.runs[id].since = ctx.now;
            if starts {
                ctx.awaited.insert(id);
                self.spawn(ctx, id);
            }
        }
        ctx.stir(self.id);
    }

    /// Starts what waits, unless it has to go on waiting.
    pub(super) fn start_waiting(&mut self, ctx: &mut Ctx) {
        ctx.stir(self.id);
        if !self.is_eager() || self.waits_for_a_listener(ctx) {
            return;
        }
        for id in self.runs.placed() {
            if self.runs[id].state == State::Waiting {
                self.spawn(ctx, id);
            }
        }
    }

    /// Starts an instance, or first the command before it.
    pub(super) fn spawn(&mut self, ctx: &mut Ctx, id: RunId) {
        self.bring_up_to_date(id);
        self.drain_anew(ctx.now, id);
        self.idle.stopped_at = None;
        let run = &mut self.runs[id];
        run.starts = run.starts.saturating_add(1);
        run.fault = None;
        run.by_itself = false;
        run.main_ended = None;
        run.overdue = false;
        run.to_clean = false;
        run.this_end = None;
        run.busy = false;
        run.reloading = false;
        run.rereading = None;
        run.watchdog = None;
        run.told_interval = None;
        run.hidden = 0;
        let before_start = run.life.hooks.before_start;
        match before_start {
            Some(timeout) if !self.runs.is_connection(id) => {
                self.run_before_start(ctx, id, timeout)
            }
            Some(_) | None => self.ask_for_process(ctx, id),
        }
    }

    pub(super) fn ask_for_process(&mut self, ctx: &mut Ctx, id: RunId) {
        self.hold_shard(ctx, id);
        let process = ctx.ids.process();
        let run = &self.runs[id];
        ctx.outbox.push(Effect::Spawn {
            process,
            instance: run.instance,
            revision: run.revision,
            task: Task::Program,
            connection: self.runs.connection(id).map(|one| one.id),
            lane: id.lane(),
        });
        let state = State::Starting {
            process,
            since: ctx.now,
            launch: Launch::Forking,
            ending: None,
        };
        self.become_state(ctx, id, state);
    }

    /// Its deadline has come. Whether it had one: then it has a later one now, or another at the same
    /// time, or none.
    pub(super) fn on_deadline(&mut self, ctx: &mut Ctx, id: RunId) -> bool {
        let Some(run) = self.runs.get(id) else {
            return false;
        };
        if let Some(process) = run.state.process()
            && run.drains_until().is_some_and(|at| at <= ctx.now)
        {
            self.look_at_shard(ctx, id, process);
            return true;
        }
        match run.state {
            State::Backoff { .. } if self.is_on_demand(id) => self.rested(ctx, id),
            State::Backoff { .. } => self.start_again(ctx, id),
            State::Starting { process, .. } | State::Stopping { process, .. } => {
                self.stop_timed_out(ctx, id, process);
            }
            State::Activating { process, .. } => self.not_ready_yet(ctx, id, process),
            State::Running { until, .. }
                if self.runs.is_leaving(id) && until.is_some_and(|until| until <= ctx.now) =>
            {
                self.stop_instance(ctx, id);
            }
            State::Running { process, until, .. } => match until {
                _ if run.rereads_until().is_some_and(|until| until <= ctx.now) => {
                    self.rereads_too_long(ctx, id);
                }
                Some(until) if until <= ctx.now => self.connection_timed_out(ctx, id, process),
                Some(_) | None => {
                    let interval = run.watchdog.as_ref().map(|watchdog| watchdog.interval);
                    self.fell_silent(ctx, id, process, interval);
                }
            },
            State::Failed { .. } => self.cooled_down(ctx, id),
            // Without a deadline, so that none leads here.
            State::Waiting | State::Preparing { .. } | State::Cleaning { .. } | State::Stopped => {
                return false;
            }
        }
        true
    }
}
