//! Ending everything: first asked, then killed.

use super::effect::Effect;
use super::event::Event;
use super::machine::Core;
use super::state::{Ending, Launch, State};
use super::types::{HookKind, Next, Phase, ProcessId, Task};

impl Core {
    pub(super) fn stop(&mut self) {
        match self.ctx.phase {
            Phase::Idle | Phase::Running => {
                self.ctx.phase = Phase::Stopping;
                self.take_back_spawns();
                self.forget_listeners();
                self.forget_rollouts();
                self.forget_replanning();
                self.ctx.timers.gates.clear();
                self.ctx.emit(Event::StopRequested {
                    live: self.ctx.processes.len(),
                });
                for index in 0..self.slots.len() {
                    self.stop_instance(index);
                }
            }
            Phase::Stopping => {
                self.ctx.phase = Phase::Hurried;
                self.ctx.emit(Event::StopHurried {
                    live: self.ctx.processes.len(),
                });
                for index in 0..self.slots.len() {
                    self.kill_instance(index);
                }
                self.kill_helpers();
            }
            Phase::Hurried | Phase::Exited => {}
        }
    }

    /// Forgets the spawns and accepts that nobody has taken yet: nothing starts after a request to
    /// stop.
    fn take_back_spawns(&mut self) {
        let mut taken = Vec::new();
        let accepting = &mut self.accepting;
        let workers = &mut self.workers;
        self.ctx.outbox.retain(|effect| match effect {
            // What ran before it is cleaned up all the same.
            Effect::Spawn {
                task: Task::Hook(HookKind::AfterStop),
                ..
            } => true,
            Effect::Spawn { process, .. } => {
                taken.push(*process);
                false
            }
            Effect::Accept { connection, .. } => {
                if let Some(worker) = accepting.remove(connection) {
                    workers[worker].connections.under_way -= 1;
                }
                false
            }
            Effect::Signal { .. }
            | Effect::LookForEvidence { .. }
            | Effect::Unbind { .. }
            | Effect::Retire { .. }
            | Effect::Gone { .. }
            | Effect::Bind { .. }
            | Effect::Repair { .. }
            | Effect::WatchAddresses { .. }
            | Effect::Answer { .. }
            | Effect::Watch { .. }
            | Effect::Unwatch { .. }
            | Effect::Close { .. }
            | Effect::LookForClients { .. }
            | Effect::CloseListeners
            | Effect::Exit { .. }
            | Effect::Emit(_) => true,
        });
        for process in taken {
            self.forget_helper(process);
            if let Some(index) = self.ctx.processes.get(&process).copied() {
                self.wind_up(index, Next::Stopping);
            }
        }
    }

    /// Stops an instance that has a process, to start it again at once.
    pub(super) fn refresh(&mut self, index: usize) {
        let instance = self.slots[index].instance;
        self.ctx.emit(Event::InstanceRefreshed { instance });
        let on_trial = self.slots[index].on_trial;
        self.slots[index].again = true;
        self.stop_instance(index);
        self.slots[index].on_trial = on_trial;
    }

    pub(super) fn stop_instance(&mut self, index: usize) {
        // Whatever it is being ended for, it is not to be started again for that.
        let slot = &mut self.slots[index];
        slot.fault = None;
        slot.on_trial = false;
        // Who has said that it stops has got no signal yet, and may hang.
        let says_so = std::mem::take(&mut slot.by_itself) && slot.main_ended.is_none();
        let was_asked = slot.state.ending().is_some() && !says_so;
        let timeout = self.slots[index].life.stop_timeout;
        let asked = Ending::Graceful {
            kill_at: timeout.map(|timeout| self.ctx.now + timeout),
        };
        let state = match self.slots[index].state {
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
                self.ask_to_stop(index, process);
                self.end_helpers(index);
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
                self.ask_to_stop(index, process);
                stopping
            }
            stopping @ State::Stopping { .. } => stopping,
            State::Preparing { hook, .. } => {
                self.kill_helper(hook);
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
            if self.slots[index].is_taken() || self.slots[index].state != State::Stopped {
                self.leave(index);
            }
            return;
        }
        self.become_state(index, state);
        if let Some(process) = state.process().filter(|_| !was_asked) {
            let instance = self.slots[index].instance;
            let signal = self.slots[index].life.stop_signal;
            // That of a program that has said that it stops is running already.
            let left = match state.deadline() {
                Some(at) if says_so => Some(at.since(self.ctx.now)),
                Some(_) | None => timeout,
            };
            self.ctx.emit(Event::Stopping {
                instance,
                process,
                signal,
                timeout: left,
            });
        }
    }

    /// Sends SIGKILL to an instance that is being stopped, unless that was done.
    fn kill_instance(&mut self, index: usize) {
        let ending = Ending::Killed;
        match self.slots[index].state {
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
                    self.exited(index, process, status, at.since(since));
                }
                Launch::Forking | Launch::Execing | Launch::Failed { .. } => {
                    // While forking there is nothing to kill yet; see `spawned`.
                    if launch != Launch::Forking {
                        self.ctx.kill(process);
                    }
                    self.become_state(
                        index,
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
                self.ctx.kill(process);
                self.become_state(
                    index,
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
    pub(super) fn stop_timed_out(&mut self, index: usize, process: ProcessId) {
        let gone = matches!(
            self.slots[index].state,
            State::Starting {
                launch: Launch::Exited { .. },
                ..
            }
        );
        if !gone {
            self.slots[index].overdue = true;
            let instance = self.slots[index].instance;
            let timeout = self.slots[index].life.stop_timeout;
            self.ctx.emit(Event::StopTimedOut {
                instance,
                process,
                timeout: timeout.unwrap_or_default(),
            });
        }
        self.kill_instance(index);
    }
}
