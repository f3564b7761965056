//! When an instance counts as ready, and what it tells about itself from then on.
//!
//! Who is ready is believed only what the worker's configuration says: the instance itself
//! (`notify`, `fd N`, `einhorn`), or the kernel, that shows whether it takes clients (`accepting`). The kernel
//! has to be asked, which is done at growing intervals and only while an instance starts. One that
//! is not ready in time, or gives no sign of life later, is ended as if it had crashed.

use super::ctx::Ctx;
use super::effect::Effect;
use super::event::{Event, ProcessEvent};
use super::run::{Run, Watchdog};
use super::signals::{SIGABRT, SIGCONT};
use super::state::{Ending, State};
use super::time::Mono;
use super::types::{Evidence, Fault, HookKind, Notice, ProcessId, RunId, Scope};
use super::worker::Worker;
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
fn watchdog_of(now: Mono, run: &Run) -> Option<Watchdog> {
    let configured = run.life.watchdog?;
    let interval = run.told_interval.unwrap_or(configured);
    (!interval.is_zero()).then(|| Watchdog {
        interval,
        due: now + interval,
    })
}

impl Worker {
    /// An instance runs its program from now on.
    pub(super) fn program_runs(
        &mut self,
        ctx: &mut Ctx,
        id: RunId,
        process: ProcessId,
        since: Mono,
    ) {
        let run = &self.runs[id];
        let ready = run.life.ready;
        if self.runs.is_connection(id) || ready == Ready::Started {
            return self.become_ready(ctx, id, process, since);
        }
        let until = run.life.start_timeout.map(|timeout| ctx.now + timeout);
        let look_at = match ready {
            Ready::Accepting(_) => Some(look_after(ctx.now, since)),
            Ready::Started | Ready::Notify | Ready::Fd(_) | Ready::Einhorn => None,
        };
        let state = State::Activating {
            process,
            since,
            until,
            look_at,
        };
        self.become_state(ctx, id, state);
    }

    fn become_ready(&mut self, ctx: &mut Ctx, id: RunId, process: ProcessId, since: Mono) {
        let until = self.time_out_at(since, id);
        let run = &mut self.runs[id];
        run.watchdog = watchdog_of(ctx.now, run);
        let instance = run.instance;
        let hook = run.life.hooks.after_ready;
        let is_told = run.life.ready != Ready::Started;
        self.become_state(
            ctx,
            id,
            State::Running {
                process,
                since,
                until,
            },
        );
        if self.runs.is_connection(id) {
            return;
        }
        if is_told {
            let after = ctx.now.since(since);
            ctx.emit(Event::Process(
                instance,
                process,
                ProcessEvent::Ready { after },
            ));
        }
        if let Some(timeout) = hook {
            self.start_helper(ctx, id, HookKind::AfterReady, timeout);
        }
    }

    /// The watchdog of an instance that is ready is another now.
    pub(super) fn new_watchdog(&mut self, ctx: &mut Ctx, id: RunId) {
        let run = &mut self.runs[id];
        let interval = run.life.watchdog;
        if let State::Running { .. } = run.state
            && run.told_interval.is_none()
            && run.watchdog.map(|watchdog| watchdog.interval) != interval
        {
            // It was told of the interval when it was started: it cannot know of another.
            run.watchdog = run.watchdog.and(interval).map(|interval| Watchdog {
                interval,
                due: ctx.now + interval,
            });
            self.reschedule(ctx, id);
        }
    }

    /// The time to become ready is over, or it is time to look whether it is.
    pub(super) fn not_ready_yet(&mut self, ctx: &mut Ctx, id: RunId, process: ProcessId) {
        let State::Activating { since, until, .. } = self.runs[id].state else {
            return;
        };
        if until.is_some_and(|until| until <= ctx.now) {
            let instance = self.runs[id].instance;
            let life = &self.runs[id].life;
            let (timeout, ready) = (life.start_timeout.unwrap_or_default(), life.ready);
            ctx.emit(Event::Process(
                instance,
                process,
                ProcessEvent::StartTimedOut {
                    timeout: timeout.max(ctx.now.since(since)),
                    ready,
                },
            ));
            self.runs[id].fault = Some(Fault::NotReady);
            self.ask_to_stop(ctx, id, process);
            return self.begin_ending(ctx, id, process, since);
        }
        ctx.outbox.push(Effect::LookForEvidence { process });
        let state = State::Activating {
            process,
            since,
            until,
            look_at: None,
        };
        self.become_state(ctx, id, state);
    }

    pub(super) fn begin_ending(
        &mut self,
        ctx: &mut Ctx,
        id: RunId,
        process: ProcessId,
        since: Mono,
    ) {
        self.end_helpers(ctx, id);
        let timeout = self.runs[id].life.stop_timeout;
        let ending = Ending::Graceful {
            kill_at: timeout.map(|timeout| ctx.now + timeout),
        };
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

    /// What the kernel shows of an instance that starts.
    pub(super) fn evidence(
        &mut self,
        ctx: &mut Ctx,
        id: RunId,
        process: ProcessId,
        evidence: Evidence,
    ) {
        let State::Activating {
            since,
            until,
            look_at: None,
            ..
        } = self.runs[id].state
        else {
            return ctx.ignore();
        };
        match evidence {
            Evidence::Seen => self.become_ready(ctx, id, process, since),
            Evidence::Hidden if self.runs[id].hidden + 1 < HIDDEN_LOOKS => {
                self.runs[id].hidden += 1;
                self.look_again(ctx, id, process, since, until);
            }
            Evidence::Hidden => {
                let instance = self.runs[id].instance;
                ctx.emit(Event::Process(
                    instance,
                    process,
                    ProcessEvent::ReadinessHidden,
                ));
                self.become_ready(ctx, id, process, since);
            }
            Evidence::NotYet => {
                self.runs[id].hidden = 0;
                self.look_again(ctx, id, process, since, until);
            }
        }
    }

    fn look_again(
        &mut self,
        ctx: &mut Ctx,
        id: RunId,
        process: ProcessId,
        since: Mono,
        until: Option<Mono>,
    ) {
        let state = State::Activating {
            process,
            since,
            until,
            look_at: Some(look_after(ctx.now, since)),
        };
        self.become_state(ctx, id, state);
    }

    /// What an instance tells about itself.
    pub(super) fn notified(
        &mut self,
        ctx: &mut Ctx,
        id: RunId,
        process: ProcessId,
        notice: Notice,
    ) {
        match notice {
            Notice::Ready => self.says_ready(ctx, id, process),
            Notice::Acknowledged => self.acknowledges(ctx, id, process),
            Notice::Reloading => self.says_reloading(ctx, id),
            Notice::Stopping => self.says_stopping(ctx, id, process),
            Notice::Alive => {
                // What is told of it is the interval.
                let run = self.runs.quiet_mut(id);
                if let Some(watchdog) = run.and_then(|run| run.watchdog.as_mut()) {
                    watchdog.due = ctx.now + watchdog.interval;
                }
                self.reschedule(ctx, id);
            }
            Notice::Trigger => {
                if let State::Running { .. } = self.runs[id].state {
                    self.fell_silent(ctx, id, process, None);
                }
            }
            Notice::WatchdogInterval(interval) => {
                let run = &mut self.runs[id];
                run.told_interval = Some(interval);
                if let State::Running { .. } = run.state {
                    run.watchdog = watchdog_of(ctx.now, run);
                    self.reschedule(ctx, id);
                }
            }
            Notice::ExtendTimeout(time) => self.extend(ctx, id, ctx.now + time),
            Notice::Busy(busy) => self.runs[id].busy = busy,
        }
    }

    /// It ends by itself, and has as long for that as if it had been asked to.
    fn says_stopping(&mut self, ctx: &mut Ctx, id: RunId, process: ProcessId) {
        let run = &mut self.runs[id];
        if let State::Activating { since, .. } | State::Running { since, .. } = run.state {
            run.by_itself = true;
            let instance = run.instance;
            let timeout = run.life.stop_timeout;
            ctx.emit(Event::Process(
                instance,
                process,
                ProcessEvent::SaysStopping { timeout },
            ));
            self.begin_ending(ctx, id, process, since);
        }
    }

    fn says_ready(&mut self, ctx: &mut Ctx, id: RunId, process: ProcessId) {
        let run = &mut self.runs[id];
        if std::mem::take(&mut run.reloading)
            && let State::Running { .. } = run.state
        {
            self.has_reread(ctx, id, true);
            let run = &mut self.runs[id];
            if run.reloads_told.full(ctx.now, RELOADS_TOLD, 0).is_some() {
                run.reloads_untold = run.reloads_untold.saturating_add(1);
                return;
            }
            run.reloads_told.count(ctx.now, Some(RELOADS_TOLD));
            let untold = std::mem::take(&mut run.reloads_untold);
            let instance = run.instance;
            ctx.emit(Event::Process(
                instance,
                process,
                ProcessEvent::Reloaded { untold },
            ));
        } else if let (State::Activating { since, .. }, Ready::Notify | Ready::Fd(_)) =
            (&run.state, run.life.ready)
        {
            let since = *since;
            self.become_ready(ctx, id, process, since);
        }
    }

    /// It is up, where that is what it is asked; a worker of einhorn may say so unasked.
    fn acknowledges(&mut self, ctx: &mut Ctx, id: RunId, process: ProcessId) {
        let run = &self.runs[id];
        if let (State::Activating { since, .. }, Ready::Einhorn) = (&run.state, run.life.ready) {
            let since = *since;
            self.become_ready(ctx, id, process, since);
        }
    }

    /// Gives an instance until then for what it is doing, if it has not that long anyway.
    fn extend(&mut self, ctx: &mut Ctx, id: RunId, at: Mono) {
        let later = |before: Option<Mono>| before.map(|before| before.max(at));
        let mut state = self.runs[id].state.clone();
        match &mut state {
            State::Activating { until, .. } => *until = later(*until),
            State::Stopping {
                ending: Ending::Graceful { kill_at },
                ..
            } => *kill_at = later(*kill_at),
            State::Running { .. } => return self.extend_rereading(ctx, id, at),
            State::Waiting
            | State::Preparing { .. }
            | State::Starting { .. }
            | State::Stopping { .. }
            | State::Cleaning { .. }
            | State::Backoff { .. }
            | State::Failed { .. }
            | State::Stopped => return,
        }
        self.become_state(ctx, id, state);
    }

    /// No sign of life came in time, or, without a time, the instance reports that it is not well.
    pub(super) fn fell_silent(
        &mut self,
        ctx: &mut Ctx,
        id: RunId,
        process: ProcessId,
        in_time: Option<Duration>,
    ) {
        let State::Running { since, .. } = self.runs[id].state else {
            return;
        };
        let instance = self.runs[id].instance;
        self.runs[id].watchdog = None;
        ctx.emit(Event::Process(
            instance,
            process,
            ProcessEvent::WatchdogTimedOut { timeout: in_time },
        ));
        self.runs[id].fault = Some(match in_time {
            Some(_) => Fault::Silent,
            None => Fault::Reported,
        });
        for signal in [SIGABRT, SIGCONT] {
            let scope = Scope::Process;
            ctx.outbox.push(Effect::Signal {
                process,
                signal,
                scope,
            });
        }
        self.begin_ending(ctx, id, process, since);
    }
}
