//! Ending everything: first asked, then killed.

use super::ctx::Ctx;
use super::effect::Effect;
use super::event::{Event, InstanceEvent, ProcessEvent};
use super::machine::Core;
use super::shards::has_shards;
use super::signals::SIGCONT;
use super::state::{Ending, Launch, State};
use super::types::{Next, ProcessId, RunId, Scope};
use super::worker::Worker;
use crate::config::KillMode;

impl Core {
    /// Whether a process that has ended leaves its listeners to others that have them (`has_others`), which end as
    /// well since listend stops: the last of them leaves them in order. Nobody else has its shard.
    pub fn leaves_listeners_to_others(&self, process: ProcessId, has_others: bool) -> bool {
        let run = self.ctx.processes.get(&process);
        let run = run.and_then(|id| self.workers.get(&id.worker)?.runs.get(*id));
        has_others && self.is_stopping() && run.is_some_and(|run| !has_shards(&run.life))
    }
}

impl Worker {
    /// Stops an instance that has a process, to start it again at once.
    pub(super) fn refresh(&mut self, ctx: &mut Ctx, id: RunId) {
        let instance = self.runs[id].instance;
        ctx.emit(Event::Instance(instance, InstanceEvent::Refreshed));
        self.comes_back(id, true);
        self.stop_instance(ctx, id);
    }

    pub(super) fn stop_instance(&mut self, ctx: &mut Ctx, id: RunId) {
        // Whatever it is being ended for, it is not to be started again for that.
        let run = &mut self.runs[id];
        run.fault = None;
        run.drain = None;
        // Who has said that it stops has got no signal yet, and may hang.
        let says_so = std::mem::take(&mut run.by_itself) && run.main_ended.is_none();
        let was_asked = run.state.ending().is_some() && !says_so;
        let timeout = self.runs[id].life.stop_timeout;
        let asked = Ending::Graceful {
            kill_at: timeout.map(|timeout| ctx.now + timeout),
        };
        let state = match self.runs[id].state.clone() {
            State::Waiting | State::Backoff { .. } | State::Failed { .. } | State::Stopped => {
                State::Stopped
            }
            State::Starting {
                process,
                since,
                launch,
                ending,
            } => State::Starting {
                process,
                since,
                launch,
                ending: ending.or(Some(asked)),
            },
            State::Activating { process, since, .. } | State::Running { process, since, .. } => {
                self.ask_to_stop(ctx, id, process);
                self.end_helpers(ctx, id);
                State::Stopping {
                    process,
                    since,
                    ending: asked,
                }
            }
            stopping @ State::Stopping {
                process,
                ending: Ending::Graceful { .. },
                ..
            } if says_so => {
                self.ask_to_stop(ctx, id, process);
                stopping
            }
            stopping @ State::Stopping { .. } => stopping,
            State::Preparing { hook, .. } => {
                self.kill_helper(ctx, hook);
                State::Preparing {
                    hook,
                    cancelled: true,
                }
            }
            State::Cleaning { hook, .. } => State::Cleaning {
                hook,
                next: Next::Stopping,
            },
        };
        if state == State::Stopped {
            if self.runs.is_instance(id) || self.runs[id].state != State::Stopped {
                self.leave(ctx, id);
            }
            return;
        }
        let (process, deadline) = (state.process(), state.deadline());
        self.become_state(ctx, id, state);
        if let Some(process) = process.filter(|_| !was_asked) {
            let instance = self.runs[id].instance;
            let signal = self.runs[id].life.stop_signal;
            // That of a program that has said that it stops is running already.
            let left = match deadline {
                Some(at) if says_so => Some(at.since(ctx.now)),
                Some(_) | None => timeout,
            };
            ctx.emit(Event::Process(
                instance,
                process,
                ProcessEvent::Stopping {
                    signal,
                    timeout: left,
                },
            ));
        }
    }

    /// Sends SIGKILL to an instance that is being stopped, unless that was done.
    fn kill_instance(&mut self, ctx: &mut Ctx, id: RunId) {
        let ending = Ending::Killed;
        match self.runs[id].state.clone() {
            State::Starting {
                ending: None | Some(Ending::Killed),
                ..
            }
            | State::Stopping {
                ending: Ending::Killed,
                ..
            } => {}
            State::Starting {
                process,
                since,
                launch,
                ending: Some(Ending::Graceful { .. }),
            } => match launch {
                // It is gone; only the report on its exec is missing, and no longer waited for.
                Launch::Exited { status, at } => {
                    self.exited(ctx, id, process, status, at.since(since));
                }
                Launch::Forking | Launch::Execing | Launch::Failed { .. } => {
                    // While forking there is nothing to kill yet; see `spawned`.
                    if launch != Launch::Forking {
                        ctx.kill(process);
                    }
                    self.become_state(
                        ctx,
                        id,
                        State::Starting {
                            process,
                            since,
                            launch,
                            ending: Some(ending),
                        },
                    );
                }
            },
            State::Stopping { process, since, .. } => {
                ctx.kill(process);
                self.become_state(
                    ctx,
                    id,
                    State::Stopping {
                        process,
                        since,
                        ending,
                    },
                );
            }
            State::Waiting
            | State::Preparing { .. }
            | State::Activating { .. }
            | State::Running { .. }
            | State::Cleaning { .. }
            | State::Backoff { .. }
            | State::Failed { .. }
            | State::Stopped => {}
        }
    }

    /// The time to stop is over. A process that is gone already, and only its exec not reported,
    /// was in time.
    pub(super) fn stop_timed_out(&mut self, ctx: &mut Ctx, id: RunId, process: ProcessId) {
        let gone = matches!(
            self.runs[id].state,
            State::Starting {
                launch: Launch::Exited { .. },
                ..
            }
        );
        if !gone {
            self.runs[id].overdue = true;
            let instance = self.runs[id].instance;
            let timeout = self.runs[id].life.stop_timeout;
            ctx.emit(Event::Process(
                instance,
                process,
                ProcessEvent::StopTimedOut {
                    timeout: timeout.unwrap_or_default(),
                },
            ));
        }
        self.kill_instance(ctx, id);
    }

    /// Stops every worker.
    pub(super) fn stop_all(&mut self, ctx: &mut Ctx) {
        for id in self.runs.ids() {
            self.stop_instance(ctx, id);
        }
    }

    /// Kills everything that is being stopped.
    pub(super) fn kill_all(&mut self, ctx: &mut Ctx) {
        for id in self.runs.ids() {
            self.kill_instance(ctx, id);
        }
        self.kill_helpers(ctx);
    }

    pub(super) fn ask_to_stop(&self, ctx: &mut Ctx, id: RunId, process: ProcessId) {
        let run = &self.runs[id];
        let scope = match (run.life.kill_mode, run.main_ended) {
            (KillMode::Process, None) => Scope::Process,
            (KillMode::Group, _) | (_, Some(_)) => Scope::Group,
        };
        // A process that is stopped (SIGSTOP, a debugger) acts on no signal until it continues.
        for signal in [run.life.stop_signal, SIGCONT] {
            ctx.outbox.push(Effect::Signal {
                process,
                signal,
                scope,
            });
        }
    }
}
