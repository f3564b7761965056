//! When an instance counts as ready, and what it tells about itself from then on.
//!
//! Who is ready is believed only what the worker's configuration says: the instance itself
//! (`notify`, `fd N`), or the kernel, that shows whether it takes clients (`accepting`). The kernel
//! has to be asked, which is done at growing intervals and only while an instance starts. One that
//! is not ready in time, or gives no sign of life later, is ended as if it had crashed.

use super::effect::Effect;
use super::event::Event;
use super::instance::{Slot, Watchdog};
use super::machine::Core;
use super::signals::{SIGABRT, SIGCONT};
use super::state::{Ending, State};
use super::time::Mono;
use super::types::{Evidence, Fault, HookKind, Notice, Phase, ProcessId, Role, Scope};
use crate::config::{Rate, Ready};
use std::time::Duration;

/// The first time between two looks whether an instance takes clients; it grows with the time that
/// the instance has taken so far, up to [`LOOK_MAX`].
pub const LOOK_MIN: Duration = Duration::from_millis(10);
/// The longest time between two such looks.
pub const LOOK_MAX: Duration = Duration::from_secs(1);

/// So many looks in a row have to show nothing before an instance is taken to be ready all the same:
/// what cannot be read may be of a process that is just ending.
const HIDDEN_LOOKS: u32 = 3;

/// How often it is told of an instance that it has read its configuration again: it may say so without
/// end.
const RELOADS_TOLD: Rate = Rate {
    count: 5,
    interval: Duration::from_secs(10),
};

/// Half as long as it has taken so far.
fn look_after(now: Mono, since: Mono) -> Mono {
    now + (now.since(since) / 2).clamp(LOOK_MIN, LOOK_MAX)
}

/// The signs of life that an instance is to give from now on: where its worker has a watchdog, and at
/// the interval that it has chosen itself, if it has; 0 is none (`WATCHDOG_USEC=`, sd_notify(3)).
fn watchdog_of(now: Mono, slot: &Slot) -> Option<Watchdog> {
    let configured = slot.life.watchdog?;
    let interval = slot.told_interval.unwrap_or(configured);
    (!interval.is_zero()).then(|| Watchdog {
        interval,
        due: now + interval,
    })
}

impl Core {
    /// An instance runs its program from now on.
    pub(super) fn runs(&mut self, index: usize, process: ProcessId, since: Mono) {
        let slot = &self.slots[index];
        let ready = slot.life.ready;
        if slot.connection.is_some() || ready == Ready::Started {
            return self.become_ready(index, process, since);
        }
        let until = slot
            .life
            .start_timeout
            .map(|timeout| self.ctx.now + timeout);
        let look_at = match ready {
            Ready::Accepting(_) => Some(look_after(self.ctx.now, since)),
            Ready::Started | Ready::Notify | Ready::Fd(_) => None,
        };
        let state = State::Activating {
            process,
            since,
            until,
            look_at,
        };
        self.become_state(index, state);
    }

    fn become_ready(&mut self, index: usize, process: ProcessId, since: Mono) {
        let until = self.time_out_at(since, index);
        let slot = &mut self.slots[index];
        slot.watchdog = watchdog_of(self.ctx.now, slot);
        let instance = slot.instance;
        let hook = slot.life.hooks.after_ready;
        let is_told = slot.life.ready != Ready::Started;
        let is_connection = slot.connection.is_some();
        self.become_state(
            index,
            State::Running {
                process,
                since,
                until,
            },
        );
        if is_connection {
            return;
        }
        if is_told {
            let after = self.ctx.now.since(since);
            self.ctx.emit(Event::InstanceReady {
                instance,
                process,
                after,
            });
        }
        if let Some(timeout) = hook {
            self.start_helper(index, HookKind::AfterReady, timeout);
        }
    }

    /// The watchdog of an instance that is ready is another now.
    pub(super) fn new_watchdog(&mut self, index: usize) {
        let slot = &mut self.slots[index];
        let interval = slot.life.watchdog;
        if let State::Running { .. } = slot.state
            && slot.told_interval.is_none()
            && slot.watchdog.map(|watchdog| watchdog.interval) != interval
        {
            // It was told of the interval when it was started: it cannot know of another.
            slot.watchdog = slot.watchdog.and(interval).map(|interval| Watchdog {
                interval,
                due: self.ctx.now + interval,
            });
            self.reschedule(index);
        }
    }

    /// The time to become ready is over, or it is time to look whether it is.
    pub(super) fn not_ready_yet(&mut self, index: usize, process: ProcessId) {
        let State::Activating { since, until, .. } = self.slots[index].state else {
            return;
        };
        if until.is_some_and(|until| until <= self.ctx.now) {
            let instance = self.slots[index].instance;
            let timeout = self.slots[index].life.start_timeout.unwrap_or_default();
            self.ctx.emit(Event::StartTimedOut {
                instance,
                process,
                timeout: timeout.max(self.ctx.now.since(since)),
            });
            self.slots[index].fault = Some(Fault::NotReady);
            self.ask_to_stop(index, process);
            return self.is_being_ended(index, process, since);
        }
        self.ctx.outbox.push(Effect::LookForEvidence { process });
        let state = State::Activating {
            process,
            since,
            until,
            look_at: None,
        };
        self.become_state(index, state);
    }

    pub(super) fn is_being_ended(&mut self, index: usize, process: ProcessId, since: Mono) {
        self.end_helpers(index);
        let timeout = self.slots[index].life.stop_timeout;
        let ending = Ending::Graceful {
            kill_at: timeout.map(|timeout| self.ctx.now + timeout),
        };
        self.become_state(
            index,
            State::Stopping {
                process,
                since,
                ending,
            },
        );
    }

    /// What the kernel shows of an instance that starts.
    pub(super) fn evidence(&mut self, process: ProcessId, evidence: Evidence) {
        let index = self.ctx.processes.get(&process).copied();
        let Some(index) = index else {
            return self.ctx.ignore();
        };
        let State::Activating {
            since,
            until,
            look_at: None,
            ..
        } = self.slots[index].state
        else {
            return self.ctx.ignore();
        };
        match evidence {
            Evidence::Seen => self.become_ready(index, process, since),
            Evidence::Hidden if self.slots[index].hidden + 1 < HIDDEN_LOOKS => {
                self.slots[index].hidden += 1;
                self.look_again(index, process, since, until);
            }
            Evidence::Hidden => {
                let instance = self.slots[index].instance;
                self.ctx.emit(Event::ReadinessHidden { instance, process });
                self.become_ready(index, process, since);
            }
            Evidence::NotYet => {
                self.slots[index].hidden = 0;
                self.look_again(index, process, since, until);
            }
        }
    }

    fn look_again(&mut self, index: usize, process: ProcessId, since: Mono, until: Option<Mono>) {
        let state = State::Activating {
            process,
            since,
            until,
            look_at: Some(look_after(self.ctx.now, since)),
        };
        self.become_state(index, state);
    }

    /// What an instance tells about itself.
    pub(super) fn notified(&mut self, process: ProcessId, notice: Notice) {
        let Some(index) = self.ctx.processes.get(&process).copied() else {
            return self.ctx.ignore();
        };
        match notice {
            Notice::Ready => self.says_ready(index, process),
            Notice::Reloading => self.says_reloading(index),
            Notice::Stopping => self.says_stopping(index, process),
            Notice::Alive => {
                if let Some(watchdog) = &mut self.slots[index].watchdog {
                    watchdog.due = self.ctx.now + watchdog.interval;
                }
                self.reschedule(index);
            }
            Notice::Trigger => {
                if let State::Running { .. } = self.slots[index].state {
                    self.is_silent(index, process);
                }
            }
            Notice::WatchdogInterval(interval) => {
                let slot = &mut self.slots[index];
                slot.told_interval = Some(interval);
                if let State::Running { .. } = slot.state {
                    slot.watchdog = watchdog_of(self.ctx.now, slot);
                    self.reschedule(index);
                }
            }
            Notice::ExtendTimeout(time) => self.extend(index, self.ctx.now + time),
        }
    }

    /// It ends by itself, and has as long for that as if it had been asked to.
    fn says_stopping(&mut self, index: usize, process: ProcessId) {
        let slot = &mut self.slots[index];
        if let State::Activating { since, .. } | State::Running { since, .. } = slot.state {
            slot.by_itself = true;
            let instance = slot.instance;
            let timeout = slot.life.stop_timeout;
            self.ctx.emit(Event::SaysStopping {
                instance,
                process,
                timeout,
            });
            self.is_being_ended(index, process, since);
        }
    }

    fn says_ready(&mut self, index: usize, process: ProcessId) {
        let slot = &mut self.slots[index];
        if std::mem::take(&mut slot.reloading)
            && let State::Running { .. } = slot.state
        {
            self.has_reread(index, true);
            let slot = &mut self.slots[index];
            if slot
                .reloads_told
                .full(self.ctx.now, RELOADS_TOLD, 0)
                .is_some()
            {
                slot.reloads_untold = slot.reloads_untold.saturating_add(1);
                return;
            }
            slot.reloads_told.count(self.ctx.now, Some(RELOADS_TOLD));
            let untold = std::mem::take(&mut slot.reloads_untold);
            let instance = slot.instance;
            self.ctx.emit(Event::InstanceReloaded {
                instance,
                process,
                untold,
            });
        } else if let (State::Activating { since, .. }, Ready::Notify | Ready::Fd(_)) =
            (slot.state, slot.life.ready)
        {
            self.become_ready(index, process, since);
        }
    }

    /// Gives an instance until then for what it is doing, if it has not that long anyway.
    fn extend(&mut self, index: usize, at: Mono) {
        let later = |before: Option<Mono>| before.map(|before| before.max(at));
        let mut state = self.slots[index].state;
        match &mut state {
            State::Activating { until, .. } => *until = later(*until),
            State::Stopping {
                ending: Ending::Graceful { kill_at },
                ..
            } => *kill_at = later(*kill_at),
            State::Running { .. } => return self.extend_rereading(index, at),
            State::Waiting
            | State::Preparing { .. }
            | State::Starting { .. }
            | State::Stopping { .. }
            | State::Cleaning { .. }
            | State::Backoff { .. }
            | State::Failed { .. }
            | State::Stopped => return,
        }
        self.become_state(index, state);
    }

    /// No sign of life came in time.
    pub(super) fn is_silent(&mut self, index: usize, process: ProcessId) {
        let State::Running { since, .. } = self.slots[index].state else {
            return;
        };
        let instance = self.slots[index].instance;
        let watchdog = self.slots[index].watchdog.take();
        self.ctx.emit(Event::WatchdogTimedOut {
            instance,
            process,
            timeout: watchdog.map_or(Duration::ZERO, |watchdog| watchdog.interval),
        });
        self.slots[index].fault = Some(Fault::Silent);
        for signal in [SIGABRT, SIGCONT] {
            let scope = Scope::Process;
            self.ctx.outbox.push(Effect::Signal {
                process,
                signal,
                scope,
            });
        }
        self.is_being_ended(index, process, since);
    }

    /// Whether every instance that was to run from the start on is ready, or has failed once.
    pub fn is_up(&self) -> bool {
        self.told_up
    }

    /// Whether a rollout, a reload or something that was asked for is under way.
    pub fn is_changing(&self) -> bool {
        let mut rollouts = self.rollouts.values();
        rollouts.any(|rollout| rollout.watched.is_none())
            || self.replanning.is_some()
            || !self.jobs.is_empty()
    }

    /// Tells once that every instance that was to run from the start on is ready, or has failed
    /// once.
    pub(super) fn tell_when_up(&mut self) {
        if self.told_up || self.ctx.phase != Phase::Running {
            return;
        }
        if self.awaited.is_empty() {
            self.told_up = true;
            let has_failed = |slot: &&Slot| {
                slot.role == Role::Instance
                    && matches!(slot.state, State::Backoff { .. } | State::Failed { .. })
            };
            let failed = self.slots.iter().filter(has_failed).count();
            self.ctx.emit(Event::Up { failed });
        }
    }
}
