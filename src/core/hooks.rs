//! Commands around an instance: before its start, when it is ready, after its end, and to make it
//! read its configuration again.
//!
//! Each is a process beside the instance's own, killed when its time is over. What they have in
//! common is here: a table of those that run. Two of them an instance waits for, and is in a state
//! of its own meanwhile ([`State::Preparing`], [`State::Cleaning`]); the others only have their
//! failure told.

use super::ctx::Ctx;
use super::effect::Effect;
use super::event::{Event, ProcessEvent};
use super::helpers::Helper;
use super::input::News;
use super::state::State;
use super::types::{ExitStatus, HookEnd, HookKind, Next, Phase, ProcessId, RunId, Task};
use super::worker::Worker;
use std::time::Duration;

impl Worker {
    /// Starts a command for an instance.
    pub(super) fn start_helper(
        &mut self,
        ctx: &mut Ctx,
        id: RunId,
        kind: HookKind,
        timeout: Duration,
    ) -> ProcessId {
        let process = ctx.ids.process();
        let run = &self.runs[id];
        let helper = Helper {
            run: id,
            instance: run.instance,
            kind,
            timeout,
            until: ctx.now + timeout,
            exists: false,
            failed: None,
            killed: false,
            timed_out: false,
        };
        ctx.outbox.push(Effect::Spawn {
            process,
            instance: run.instance,
            revision: run.revision,
            task: Task::Hook(kind),
            connection: None,
            lane: id.lane(),
        });
        ctx.timers.hooks.insert((helper.until, process));
        ctx.hooks.insert(process, self.id);
        self.helpers.insert(process, helper);
        process
    }

    /// Runs the command before the start.
    pub(super) fn run_before_start(&mut self, ctx: &mut Ctx, id: RunId, timeout: Duration) {
        let hook = self.start_helper(ctx, id, HookKind::BeforeStart, timeout);
        let cancelled = false;
        self.become_state(ctx, id, State::Preparing { hook, cancelled });
    }

    /// Nothing runs of an instance any more but commands around it. What follows waits for them:
    /// first those beside it are ended, and then the one after its end is run, if its program or the
    /// command before it has run.
    pub(super) fn wind_up(&mut self, ctx: &mut Ctx, id: RunId, next: Next) {
        if let Some(hook) = self.helpers.beside(id, self.runs[id].instance) {
            self.kill_helper(ctx, hook);
            return self.become_state(ctx, id, State::Cleaning { hook, next });
        }
        let is_connection = self.runs.is_connection(id);
        let run = &mut self.runs[id];
        let cleans = std::mem::take(&mut run.to_clean) && !is_connection;
        match run.life.hooks.after_stop.filter(|_| cleans) {
            // Nothing is started any more once everything was to be killed.
            Some(timeout) if ctx.phase < Phase::Hurried => {
                let hook = self.start_helper(ctx, id, HookKind::AfterStop, timeout);
                self.become_state(ctx, id, State::Cleaning { hook, next });
            }
            Some(_) | None => self.follow(ctx, id, next),
        }
    }

    /// Ends the commands beside an instance that is ending: none of them outlives it.
    pub(super) fn end_helpers(&mut self, ctx: &mut Ctx, id: RunId) {
        while let Some(hook) = self.helpers.lives_beside(id, self.runs[id].instance) {
            self.kill_helper(ctx, hook);
        }
    }

    /// What is heard about a process that is no instance's.
    pub(super) fn helper_heard(&mut self, ctx: &mut Ctx, process: ProcessId, news: News) {
        let Some(helper) = self.helpers.get_mut(process) else {
            return ctx.ignore();
        };
        match news {
            News::Spawned if !helper.exists => {
                helper.exists = true;
                if helper.killed {
                    ctx.kill(process);
                }
            }
            News::LaunchFailed(failure) if !helper.exists => {
                self.helper_ended(ctx, process, HookEnd::NotLaunched { failure });
            }
            News::LaunchFailed(failure) => helper.failed = Some(failure),
            News::Exited(status) if helper.exists => {
                let end = match (helper.failed.take(), helper.timed_out) {
                    (Some(failure), _) => HookEnd::NotLaunched { failure },
                    (None, true) => HookEnd::TimedOut {
                        timeout: helper.timeout,
                    },
                    (None, false) => HookEnd::Exited { status },
                };
                self.helper_ended(ctx, process, end);
            }
            News::ExecSucceeded if helper.exists => {}
            News::Spawned | News::ExecSucceeded | News::MainExited(_) | News::Exited(_) => {
                ctx.ignore();
            }
        }
    }

    fn take_helper(&mut self, ctx: &mut Ctx, process: ProcessId) -> Option<Helper> {
        let helper = self.helpers.remove(process)?;
        ctx.hooks.remove(&process);
        ctx.timers.hooks.remove(&(helper.until, process));
        Some(helper)
    }

    pub(super) fn helper_ended(&mut self, ctx: &mut Ctx, process: ProcessId, end: HookEnd) {
        let Some(helper) = self.take_helper(ctx, process) else {
            return;
        };
        let succeeded = end
            == HookEnd::Exited {
                status: ExitStatus::Code(0),
            };
        let kind = helper.kind;
        let mut next = None;
        let state = self.runs.get(helper.run).map(|run| run.state.clone());
        match (kind, state.unwrap_or(State::Stopped)) {
            (HookKind::BeforeStart, State::Preparing { cancelled, .. }) => {
                let has_run = !matches!(end, HookEnd::NotLaunched { .. });
                self.runs[helper.run].to_clean = has_run;
                if cancelled {
                    next = Some(self.after_stop(ctx, helper.run));
                } else if succeeded {
                    self.ask_for_process(ctx, helper.run);
                } else {
                    next = Some(self.not_prepared(ctx, helper.run, end.clone()));
                }
            }
            (HookKind::AfterStop, State::Cleaning { next: then, .. }) => {
                next = Some(if ctx.phase == Phase::Running {
                    then
                } else {
                    Next::Stopping
                });
            }
            // The instance has ended, and waits for it.
            (HookKind::AfterReady | HookKind::Reload, State::Cleaning { next: then, .. }) => {
                next = Some(then);
            }
            // The instance did not wait for it.
            (
                HookKind::BeforeStart
                | HookKind::AfterReady
                | HookKind::AfterStop
                | HookKind::Reload,
                _,
            ) => {}
        }
        let is_cancelled = helper.killed && !helper.timed_out;
        if !succeeded && !is_cancelled {
            ctx.emit(Event::Process(
                helper.instance,
                process,
                ProcessEvent::HookFailed {
                    kind,
                    end,
                    next: next.filter(|_| kind == HookKind::BeforeStart),
                },
            ));
        }
        // Why it failed is told before that it did.
        if kind == HookKind::Reload {
            self.reload_ended(ctx, process, helper.run, helper.instance, succeeded);
        }
        if let Some(next) = next {
            self.wind_up(ctx, helper.run, next);
        }
        self.tell_if_gone(ctx);
    }

    /// Kills a command, if it still runs.
    pub(super) fn kill_helper(&mut self, ctx: &mut Ctx, process: ProcessId) {
        let Some(helper) = self.helpers.get_mut(process) else {
            return;
        };
        let before = std::mem::replace(&mut helper.killed, true);
        ctx.timers.hooks.remove(&(helper.until, process));
        if helper.exists && !before {
            ctx.kill(process);
        }
    }

    pub(super) fn kill_helpers(&mut self, ctx: &mut Ctx) {
        let all: Vec<ProcessId> = self.helpers.running().map(|(process, _)| process).collect();
        for process in all {
            self.kill_helper(ctx, process);
        }
    }

    /// Its spawn was taken back: there will be no process. What waits for it goes on as stopped.
    pub(super) fn forget_helper(&mut self, ctx: &mut Ctx, process: ProcessId) {
        let Some(helper) = self.take_helper(ctx, process) else {
            return;
        };
        let state = self.runs.get(helper.run).map(|run| &run.state);
        let waits = match state.unwrap_or(&State::Stopped) {
            State::Preparing { hook, .. } | State::Cleaning { hook, .. } => *hook == process,
            State::Waiting
            | State::Starting { .. }
            | State::Activating { .. }
            | State::Running { .. }
            | State::Stopping { .. }
            | State::Backoff { .. }
            | State::Failed { .. }
            | State::Stopped => false,
        };
        if waits {
            self.wind_up(ctx, helper.run, Next::Stopping);
        }
        if helper.kind == HookKind::Reload {
            self.reload_ended(ctx, process, helper.run, helper.instance, false);
        }
    }

    /// The time of a command is over.
    pub(super) fn helper_timed_out(&mut self, ctx: &mut Ctx, process: ProcessId) {
        if let Some(helper) = self.helpers.get_mut(process) {
            helper.timed_out = !helper.killed;
            self.kill_helper(ctx, process);
        }
    }
}
