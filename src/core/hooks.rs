//! Commands around an instance: before its start, when it is ready, after its end, and to make it
//! read its configuration again.
//!
//! Each is a process beside the instance's own, killed when its time is over. What they have in
//! common is here: a table of those that run. Two of them an instance waits for, and is in a state
//! of its own meanwhile ([`State::Preparing`], [`State::Cleaning`]); the others only have their
//! failure told.

use super::effect::Effect;
use super::event::Event;
use super::helpers::Helper;
use super::input::News;
use super::machine::Core;
use super::state::State;
use super::types::{ExitStatus, HookEnd, HookKind, Next, Phase, ProcessId, Task};
use std::time::Duration;

impl Core {
    /// Starts a command for an instance.
    pub(super) fn start_helper(
        &mut self,
        index: usize,
        kind: HookKind,
        timeout: Duration,
    ) -> ProcessId {
        let process = self.ctx.ids.process();
        let slot = &self.slots[index];
        let helper = Helper {
            index,
            instance: slot.instance,
            kind,
            timeout,
            until: self.ctx.now + timeout,
            exists: false,
            failed: None,
            killed: false,
            timed_out: false,
        };
        self.ctx.outbox.push(Effect::Spawn {
            process,
            instance: slot.instance,
            edition: slot.edition,
            task: Task::Hook(kind),
            connection: None,
        });
        self.ctx.timers.hooks.insert((helper.until, process));
        self.helpers.running.insert(process, helper);
        process
    }

    /// Runs the command before the start.
    pub(super) fn prepare(&mut self, index: usize, timeout: Duration) {
        let hook = self.start_helper(index, HookKind::BeforeStart, timeout);
        let cancelled = false;
        self.become_state(index, State::Preparing { hook, cancelled });
    }

    /// Nothing runs of an instance any more but commands around it. What follows waits for them:
    /// first those beside it are ended, and then the one after its end is run, if its program or the
    /// command before it has run.
    pub(super) fn wind_up(&mut self, index: usize, next: Next) {
        if let Some(hook) = self.helpers.beside(index, self.slots[index].instance) {
            self.kill_helper(hook);
            return self.become_state(index, State::Cleaning { hook, next });
        }
        let slot = &mut self.slots[index];
        let cleans = std::mem::take(&mut slot.to_clean) && slot.connection.is_none();
        match slot.life.hooks.after_stop.filter(|_| cleans) {
            // Nothing is started any more once everything was to be killed.
            Some(timeout) if self.ctx.phase < Phase::Hurried => {
                let hook = self.start_helper(index, HookKind::AfterStop, timeout);
                self.become_state(index, State::Cleaning { hook, next });
            }
            Some(_) | None => self.follow(index, next),
        }
    }

    /// Ends the commands beside an instance that is ending: none of them outlives it.
    pub(super) fn end_helpers(&mut self, index: usize) {
        while let Some(hook) = self.helpers.lives_beside(index, self.slots[index].instance) {
            self.kill_helper(hook);
        }
    }

    /// What is heard about a process that is no instance's.
    pub(super) fn helper_heard(&mut self, process: ProcessId, news: News) {
        let Some(helper) = self.helpers.running.get_mut(&process) else {
            return self.ctx.ignore();
        };
        match news {
            News::Spawned if !helper.exists => {
                helper.exists = true;
                if helper.killed {
                    self.ctx.kill(process);
                }
            }
            News::LaunchFailed(failure) if !helper.exists => {
                self.helper_ended(process, HookEnd::NotLaunched { failure });
            }
            News::LaunchFailed(failure) => helper.failed = Some(failure),
            News::Exited(status) if helper.exists => {
                let end = match (helper.failed, helper.timed_out) {
                    (Some(failure), _) => HookEnd::NotLaunched { failure },
                    (None, true) => HookEnd::TimedOut {
                        timeout: helper.timeout,
                    },
                    (None, false) => HookEnd::Exited { status },
                };
                self.helper_ended(process, end);
            }
            News::ExecSucceeded if helper.exists => {}
            News::Spawned | News::ExecSucceeded | News::MainExited(_) | News::Exited(_) => {
                self.ctx.ignore();
            }
        }
    }

    fn take_helper(&mut self, process: ProcessId) -> Option<Helper> {
        let helper = self.helpers.running.remove(&process)?;
        self.ctx.timers.hooks.remove(&(helper.until, process));
        Some(helper)
    }

    fn helper_ended(&mut self, process: ProcessId, end: HookEnd) {
        let Some(helper) = self.take_helper(process) else {
            return;
        };
        let succeeded = end
            == HookEnd::Exited {
                status: ExitStatus::Code(0),
            };
        let kind = helper.kind;
        let mut next = None;
        match (kind, self.slots[helper.index].state) {
            (HookKind::BeforeStart, State::Preparing { hook, cancelled }) if hook == process => {
                let has_run = !matches!(end, HookEnd::NotLaunched { .. });
                self.slots[helper.index].to_clean = has_run;
                if cancelled {
                    next = Some(self.after_stop(helper.index));
                } else if succeeded {
                    self.launch(helper.index);
                } else {
                    next = Some(self.not_prepared(helper.index, end));
                }
            }
            (HookKind::AfterStop, State::Cleaning { hook, next: then }) if hook == process => {
                next = Some(if self.ctx.phase == Phase::Running {
                    then
                } else {
                    Next::Stopping
                });
            }
            // The instance has ended, and waits for it.
            (HookKind::AfterReady | HookKind::Reload, State::Cleaning { hook, next: then })
                if hook == process =>
            {
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
            self.ctx.emit(Event::HookFailed {
                instance: helper.instance,
                process,
                kind,
                end,
                next: next.filter(|_| kind == HookKind::BeforeStart),
            });
        }
        // Why it failed is told before that it did.
        if kind == HookKind::Reload {
            self.reload_ended(process, helper.index, helper.instance, succeeded);
        }
        if let Some(next) = next {
            self.wind_up(helper.index, next);
        }
        self.is_it_gone(helper.instance.worker);
    }

    /// Kills a command, if it still runs.
    pub(super) fn kill_helper(&mut self, process: ProcessId) {
        let Some(helper) = self.helpers.running.get_mut(&process) else {
            return;
        };
        let before = std::mem::replace(&mut helper.killed, true);
        if helper.exists && !before {
            self.ctx.kill(process);
        }
    }

    pub(super) fn kill_helpers(&mut self) {
        let all: Vec<ProcessId> = self.helpers.running.keys().copied().collect();
        for process in all {
            self.kill_helper(process);
        }
    }

    /// Its spawn was taken back: there will be no process. What waits for it goes on as stopped.
    pub(super) fn forget_helper(&mut self, process: ProcessId) {
        let Some(helper) = self.take_helper(process) else {
            return;
        };
        let waits = match self.slots[helper.index].state {
            State::Preparing { hook, .. } | State::Cleaning { hook, .. } => hook == process,
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
            self.wind_up(helper.index, Next::Stopping);
        }
        if helper.kind == HookKind::Reload {
            self.reload_ended(process, helper.index, helper.instance, false);
        }
    }

    pub(super) fn helpers_timed_out(&mut self) {
        while let Some((at, process)) = self.ctx.timers.hooks.first().copied() {
            if at > self.ctx.now {
                break;
            }
            self.ctx.timers.hooks.pop_first();
            if let Some(helper) = self.helpers.running.get_mut(&process) {
                helper.timed_out = !helper.killed;
                self.kill_helper(process);
            }
        }
    }
}
