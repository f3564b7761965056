//! What is heard about a process, and what follows from its end.

use super::backoff::{self, History};
use super::event::Event;
use super::input::News;
use super::instance::Slot;
use super::machine::Core;
use super::state::{Ending, Launch, State};
use super::types::{
    AT_NEXT_CLIENT, ExitStatus, FailureReason, Fault, HookEnd, LastEnd, Next, Phase, ProcessId,
    Role,
};
use crate::config::{KillMode, RestartPolicy};
use crate::plan::Activation;
use crate::stage::LaunchFailure;
use std::time::Duration;

/// A shell's exit status for a command that a signal ended is this and the signal's number.
const SHELL_SIGNAL_BASE: i32 = 128;
/// A shell's exit status for a command that it could not execute.
const SHELL_NOT_EXECUTED: u8 = 127;

impl Core {
    pub(super) fn hear(&mut self, process: ProcessId, news: News) {
        let Some(index) = self.ctx.processes.get(&process).copied() else {
            return self.helper_heard(process, news);
        };
        match self.slots[index].state {
            State::Starting {
                since,
                launch,
                ending,
                ..
            } => match (launch, news) {
                (Launch::Forking, News::Spawned) => self.spawned(index, process, ending),
                // Whatever the stage: there is no process as long as none was told of.
                (Launch::Forking, News::LaunchFailed(failure)) => {
                    self.launch_failed(index, process, failure);
                }
                (Launch::Execing, News::ExecSucceeded) => {
                    self.exec_succeeded(index, process, ending);
                }
                (Launch::Execing, News::LaunchFailed(failure)) => {
                    self.launch_is(index, Launch::Failed { failure });
                }
                (Launch::Execing, News::Exited(status)) => {
                    self.launch_is(
                        index,
                        Launch::Exited {
                            status,
                            at: self.ctx.now,
                        },
                    );
                }
                (Launch::Failed { failure }, News::Exited(_)) => {
                    self.launch_failed(index, process, failure);
                }
                (Launch::Exited { status, at }, News::ExecSucceeded) => {
                    let instance = self.slots[index].instance;
                    self.ctx.emit(Event::InstanceStarted { instance, process });
                    self.is_served(index);
                    self.exited(index, process, status, at.since(since));
                }
                (Launch::Exited { .. }, News::LaunchFailed(failure)) => {
                    self.launch_failed(index, process, failure);
                }
                (_, News::MainExited(_))
                | (Launch::Forking, News::ExecSucceeded | News::Exited(_))
                | (Launch::Execing, News::Spawned)
                | (
                    Launch::Failed { .. },
                    News::Spawned | News::ExecSucceeded | News::LaunchFailed(_),
                )
                | (Launch::Exited { .. }, News::Spawned | News::Exited(_)) => self.ctx.ignore(),
            },
            State::Activating { since, .. }
            | State::Running { since, .. }
            | State::Stopping { since, .. } => match news {
                News::MainExited(status) if self.slots[index].main_ended.is_none() => {
                    self.main_exited(index, process, status);
                }
                News::Exited(status) => {
                    let at = self.slots[index].main_ended.unwrap_or(self.ctx.now);
                    self.exited(index, process, status, at.since(since));
                }
                News::MainExited(_) => self.ctx.ignore(),
                News::Spawned | News::ExecSucceeded | News::LaunchFailed(_) => self.ctx.ignore(),
            },
            // Without a process, so that none leads here.
            State::Waiting
            | State::Preparing { .. }
            | State::Cleaning { .. }
            | State::Backoff { .. }
            | State::Failed { .. }
            | State::Stopped => {
                self.ctx.ignore();
            }
        }
    }

    fn spawned(&mut self, index: usize, process: ProcessId, ending: Option<Ending>) {
        let instance = self.slots[index].instance;
        self.ctx.emit(Event::InstanceStarting { instance, process });
        if ending == Some(Ending::Killed) {
            self.ctx.kill(process);
        }
        self.become_state(
            index,
            State::Starting {
                process,
                since: self.ctx.now,
                launch: Launch::Execing,
                ending,
            },
        );
    }

    fn exec_succeeded(&mut self, index: usize, process: ProcessId, ending: Option<Ending>) {
        let instance = self.slots[index].instance;
        self.ctx.emit(Event::InstanceStarted { instance, process });
        self.is_served(index);
        // Of a connection's process it is known only some time after.
        let created = match self.slots[index] {
            Slot {
                connection: Some(_),
                state: State::Starting { since, .. },
                ..
            } => Some(since),
            _ => None,
        };
        let since = created.unwrap_or(self.ctx.now);
        match ending {
            None => self.runs(index, process, since),
            Some(ending) => {
                if let Ending::Graceful { .. } = ending {
                    self.ask_to_stop(index, process);
                }
                let state = State::Stopping {
                    process,
                    since,
                    ending,
                };
                self.become_state(index, state);
            }
        }
    }

    fn launch_is(&mut self, index: usize, launch: Launch) {
        if let State::Starting {
            launch: current, ..
        } = &mut self.slots[index].state
        {
            *current = launch;
        }
    }

    fn launch_failed(&mut self, index: usize, process: ProcessId, failure: LaunchFailure) {
        self.slots[index].ended(LastEnd::NotLaunched { failure });
        let next = self.after_launch_failure(index, Some(failure));
        let instance = self.slots[index].instance;
        self.ctx.emit(Event::LaunchFailed {
            instance,
            process,
            failure,
            next,
        });
        if let Next::Failed(_) = next {
            self.judge(SHELL_NOT_EXECUTED);
        }
        self.wind_up(index, next);
    }

    /// The command before the start has failed: so has the start.
    pub(super) fn not_prepared(&mut self, index: usize, end: HookEnd) -> Next {
        self.slots[index].ended(LastEnd::NotPrepared { end });
        let failure = match end {
            HookEnd::NotLaunched { failure } => Some(failure),
            HookEnd::Exited { .. } | HookEnd::TimedOut { .. } => None,
        };
        let next = self.after_launch_failure(index, failure);
        if let Next::Failed(_) = next {
            self.judge(SHELL_NOT_EXECUTED);
        }
        next
    }

    /// The main process has ended, and others of its process group go on. If that was asked for, or
    /// went well, they finish what they do until `stop_timeout` is over. After a crash nobody leads
    /// them any more: they are asked to end, as systemd does it.
    fn main_exited(&mut self, index: usize, process: ProcessId, status: ExitStatus) {
        let slot = &mut self.slots[index];
        slot.main_ended = Some(self.ctx.now);
        let was_ending = slot.state.ending();
        let was_asked = was_ending.is_some() && !slot.by_itself && slot.fault.is_none();
        let crashed =
            slot.fault.is_some() || !was_asked && backoff::is_failure(status, &slot.life.restart);
        let has_the_signal = match slot.life.kill_mode {
            KillMode::Process => !crashed,
            KillMode::Group => was_asked || slot.fault == Some(Fault::NotReady),
        };
        let instance = slot.instance;
        if let State::Activating { since, .. } | State::Running { since, .. } = slot.state {
            slot.by_itself = true;
            self.is_being_ended(index, process, since);
        }
        if was_ending == Some(Ending::Killed) {
            return;
        }
        let kill_at = self.slots[index].state.deadline();
        self.ctx.emit(Event::MainExited {
            instance,
            process,
            status,
            left: kill_at.map(|at| at.since(self.ctx.now)),
        });
        if !has_the_signal {
            self.ask_to_stop(index, process);
        }
    }

    pub(super) fn exited(
        &mut self,
        index: usize,
        process: ProcessId,
        status: ExitStatus,
        uptime: Duration,
    ) {
        let slot = &mut self.slots[index];
        let too_late = slot.overdue.then_some(Fault::NotStopped);
        let cause = slot.fault.or(too_late);
        slot.to_clean = true;
        slot.ended(LastEnd::Exited {
            status,
            uptime,
            cause,
        });
        let next = self.after_exit(index, status, uptime);
        let instance = self.slots[index].instance;
        self.ctx.emit(Event::InstanceExited {
            instance,
            process,
            status,
            uptime,
            cause,
            next,
        });
        if matches!(next, Next::StaysStopped | Next::Failed(_)) {
            self.judge(match status {
                ExitStatus::Code(code) => u8::try_from(code).unwrap_or(u8::MAX),
                ExitStatus::Signal { number, .. } => {
                    u8::try_from(number.saturating_add(SHELL_SIGNAL_BASE)).unwrap_or(u8::MAX)
                }
            });
        }
        self.wind_up(index, next);
    }

    /// Remembers how an instance ended for good.
    fn judge(&mut self, code: u8) {
        if self.verdict == 0 {
            self.verdict = code;
        }
    }

    fn after_launch_failure(&mut self, index: usize, failure: Option<LaunchFailure>) -> Next {
        if self.slots[index].state.ending().is_some() {
            return self.after_stop(index);
        }
        // What listend could not do now is nothing that the worker has done, whatever its policy is.
        let is_momentary = failure.is_some_and(LaunchFailure::is_momentary);
        if self.slots[index].on_trial || (!is_momentary && self.fails_rollout(index)) {
            return Next::RolledBack;
        }
        match self.slots[index].life.activation {
            Activation::Eager if is_momentary => {
                return Next::RestartIn(self.delay_of(index));
            }
            Activation::OnDemand { .. } if is_momentary => {
                let delay = self.delay_of(index);
                return self.at_next_client_or_at_once(index, delay);
            }
            Activation::Eager => {}
            Activation::OnDemand { .. } => return self.after_crash_on_demand(index),
            Activation::PerConnection(_) => {
                return self.after_launch_failure_of_connection(index);
            }
        }
        match self.slots[index].life.restart.policy {
            RestartPolicy::Always | RestartPolicy::OnFailure => self.after_crash(index),
            RestartPolicy::Never => Next::Failed(FailureReason::NeverLaunched),
        }
    }

    fn after_exit(&mut self, index: usize, status: ExitStatus, uptime: Duration) -> Next {
        let slot = &mut self.slots[index];
        let by_itself = std::mem::take(&mut slot.by_itself);
        // How its main process ended decides, if it did.
        let never_ended = by_itself && slot.overdue && slot.main_ended.is_none();
        let fault = slot.fault.take();
        let fault = fault.or(never_ended.then_some(Fault::NotStopped));
        if fault.is_none() && !by_itself && slot.state.ending().is_some() {
            return self.after_stop(index);
        }
        let restart = &self.slots[index].life.restart;
        let is_fine = self.is_on_demand(index) && !backoff::is_failure(status, restart);
        if self.slots[index].on_trial && (fault.is_some() || !is_fine) {
            return Next::RolledBack;
        }
        let crashed = backoff::is_crash(status) && backoff::is_failure(status, restart);
        if (fault.is_some() || crashed) && self.fails_rollout(index) {
            return Next::RolledBack;
        }
        if let Activation::PerConnection(_) = self.slots[index].life.activation {
            let restart = &self.slots[index].life.restart;
            let failed = fault.is_some() || backoff::is_failure(status, restart);
            self.connection_ended(index, status, failed);
        }
        if fault.is_some() {
            return self.after_fault(index);
        }
        match self.slots[index].life.activation {
            Activation::Eager => {}
            Activation::OnDemand { .. } => {
                return self.after_exit_on_demand(index, status, uptime);
            }
            Activation::PerConnection(_) => return Next::Done,
        }
        let slot = &mut self.slots[index];
        let restart = &slot.life.restart;
        let again = match restart.policy {
            RestartPolicy::Always => true,
            RestartPolicy::OnFailure => backoff::is_failure(status, restart),
            RestartPolicy::Never => false,
        };
        if !again {
            return Next::StaysStopped;
        }
        slot.history.ran(uptime, restart);
        if backoff::is_crash(status) {
            self.after_crash(index)
        } else {
            Next::RestartIn(restart.backoff_min)
        }
    }

    /// What becomes of an instance that listend has ended because it was not well, however it took
    /// that.
    fn after_fault(&mut self, index: usize) -> Next {
        match (
            &self.slots[index].life.activation,
            self.slots[index].life.restart.policy,
        ) {
            (Activation::OnDemand { .. }, _) => self.after_crash_on_demand(index),
            // Its connection was given away with it.
            (Activation::PerConnection(_), _) => Next::Done,
            (_, RestartPolicy::Always | RestartPolicy::OnFailure) => self.after_crash(index),
            (_, RestartPolicy::Never) => Next::StaysStopped,
        }
    }

    /// A stop ends in another start only if it was meant to, and listend itself is not stopping.
    pub(super) fn after_stop(&mut self, index: usize) -> Next {
        let again = std::mem::take(&mut self.slots[index].again);
        if !again || self.ctx.phase != Phase::Running {
            Next::Stopping
        } else if self.is_on_demand(index) {
            AT_NEXT_CLIENT
        } else {
            Next::RestartIn(Duration::ZERO)
        }
    }

    /// The delay before the next start after what does not count towards the limit.
    fn delay_of(&mut self, index: usize) -> Duration {
        let slot = &mut self.slots[index];
        let salt = u64::from(slot.instance.index);
        slot.history.delayed(self.ctx.now, &slot.life.restart, salt)
    }

    pub(super) fn after_crash(&mut self, index: usize) -> Next {
        let slot = &mut self.slots[index];
        let restart = &slot.life.restart;
        let salt = u64::from(slot.instance.index);
        match slot.history.crashed(self.ctx.now, restart, salt) {
            Ok(delay) => Next::RestartIn(delay),
            Err(crashes) => Next::Failed(FailureReason::CrashLoop {
                crashes,
                interval: restart.limit.map_or(Duration::ZERO, |limit| limit.interval),
            }),
        }
    }

    /// Puts into effect what was decided about an instance whose process is gone.
    pub(super) fn follow(&mut self, index: usize, next: Next) {
        let worker = self.slots[index].instance.worker;
        match next {
            Next::RestartIn(delay) => {
                self.become_state(
                    index,
                    State::Backoff {
                        until: self.ctx.now + delay,
                    },
                );
            }
            Next::AtNextClient {
                not_before: Duration::ZERO,
            } => self.become_state(index, State::Waiting),
            Next::AtNextClient { not_before } => {
                let until = self.ctx.now + not_before;
                self.become_state(index, State::Backoff { until });
            }
            Next::Failed(reason) => self.failed_for_good(index, reason),
            Next::Done | Next::StaysStopped | Next::Stopping | Next::RolledBack => {
                self.leave(index);
            }
        }
        self.retire_unused(worker);
    }

    /// Nothing runs in this slot any more, and nothing will by itself.
    pub(super) fn leave(&mut self, index: usize) {
        if self.slots[index].connection.is_some() {
            return self.end_connection(index);
        }
        self.become_state(index, State::Stopped);
        if self.slots[index].role == Role::Leaving {
            let worker = self.slots[index].instance.worker;
            self.workers[worker].others.retain(|other| *other != index);
            self.slots[index].on_trial = false;
            self.vacant.push(index);
            self.retire_unused(worker);
            self.is_it_gone(worker);
        }
    }

    fn failed_for_good(&mut self, index: usize, reason: FailureReason) {
        let chosen = self.slots[index].life.restart.cool_down;
        let cool_down = match reason {
            FailureReason::CrashLoop { interval, .. } if self.is_on_demand(index) => {
                Some(chosen.unwrap_or(interval))
            }
            FailureReason::CrashLoop { .. } => chosen,
            FailureReason::NeverLaunched => None,
        };
        let until = cool_down.map(|time| self.ctx.now + time);
        self.become_state(index, State::Failed { reason, until });
        let instance = self.slots[index].instance;
        self.ctx.emit(Event::InstanceFailed {
            instance,
            reason,
            cool_down,
        });
        let worker = self.worker(index);
        if worker.failed as usize == worker.slots.len() {
            let worker = instance.worker;
            self.ctx.emit(Event::WorkerFailed { worker });
            self.refuse_clients(worker);
        }
    }

    /// The time for which a failed instance was left alone is over.
    pub(super) fn cooled_down(&mut self, index: usize) {
        self.slots[index].history = History::default();
        let worker = self.slots[index].instance.worker;
        self.take_clients_again(worker);
        if self.is_on_demand(index) {
            // Or none would come.
            self.take_clients_again(self.slots[index].instance.worker);
            self.rested(index);
        } else {
            self.start_again(index);
        }
    }

    /// Starts an instance once more, or has it wait for its listeners.
    pub(super) fn start_again(&mut self, index: usize) {
        let worker = self.slots[index].instance.worker;
        self.take_clients_again(worker);
        if self.waits_for_a_listener(worker) {
            self.become_state(index, State::Waiting);
        } else {
            self.spawn(index);
        }
    }
}
