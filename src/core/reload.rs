//! Instances that are asked to read their own configuration again, and who waits for that.
//!
//! A command is waited for, and then, as systemd does, an instance that has said `RELOADING=1` until
//! it says `READY=1`. A signal says nothing of its end: an instance with `ready: notify` is given
//! [`SAYS_WITHIN`] to say that it has begun, and is then waited for in the same way.

use super::ctx::Ctx;
use super::effect::Effect;
use super::job::{Pending, Reloading};
use super::run::{Rereading, Run};
use super::state::State;
use super::time::Mono;
use super::types::{Answer, Bad, HookKind, InstanceId, ProcessId, Refused, RunId, Scope, Ticket};
use super::worker::Worker;
use crate::config::Ready;
use crate::plan::ReloadBy;
use std::collections::BTreeSet;
use std::time::Duration;

/// How long after the signal an instance is expected to say `RELOADING=1`, if it ever does.
pub const SAYS_WITHIN: Duration = Duration::from_secs(1);

impl Worker {
    /// Has those that are meant and are ready read their configuration again.
    pub(super) fn reload_runs(
        &mut self,
        ctx: &mut Ctx,
        ticket: Ticket,
        is_meant: impl Fn(&Run) -> bool,
    ) -> Result<(), Refused> {
        if self.lifecycle.reload.is_none() {
            return Err(Refused::NotReloadable);
        }
        // During a rollout each does as its own definition says.
        let ready = |run: &Run| match (&run.state, run.life.reload) {
            (State::Running { process, .. }, Some(by)) => Some((run.id, *process, by)),
            _ => None,
        };
        let ready: Vec<(RunId, ProcessId, ReloadBy)> = self
            .runs
            .places()
            .filter(|run| is_meant(run))
            .filter_map(ready)
            .collect();
        if ready.is_empty() {
            return Err(Refused::NoProcess);
        }
        let of = u32::try_from(ready.len()).unwrap_or(u32::MAX);
        ctx.answer(ticket, Answer::Progress { done: 0, of });
        let mut pending = BTreeSet::new();
        for (id, process, by) in ready {
            match by {
                ReloadBy::Signal(signal) => {
                    let scope = Scope::Process;
                    ctx.outbox.push(Effect::Signal {
                        process,
                        signal,
                        scope,
                    });
                    if self.runs[id].life.ready == Ready::Notify {
                        let until = match self.runs[id].reloading {
                            true => self.read_until(ctx, id),
                            false => Some(ctx.now + SAYS_WITHIN),
                        };
                        self.listen_to(ctx, id, until);
                        pending.insert(Pending::Run(id));
                    }
                }
                ReloadBy::Command(timeout) => {
                    let hook = self.start_helper(ctx, id, HookKind::Reload, timeout);
                    pending.insert(Pending::Command(hook));
                }
            }
        }
        if pending.is_empty() {
            ctx.answer(ticket, Answer::Done);
        } else {
            self.reloads.push(Reloading {
                ticket,
                pending,
                bad: Vec::new(),
                of,
            });
        }
        Ok(())
    }

    /// The command that has an instance read its configuration again has ended.
    pub(super) fn reload_ended(
        &mut self,
        ctx: &mut Ctx,
        process: ProcessId,
        id: RunId,
        instance: InstanceId,
        well: bool,
    ) {
        let reloads = |run: &Run| {
            run.reloading && run.instance == instance && matches!(run.state, State::Running { .. })
        };
        let goes_on = well && self.runs.get(id).is_some_and(reloads);
        if !goes_on {
            return self.note_read(ctx, Pending::Command(process), instance, well);
        }
        let until = self.read_until(ctx, id);
        for reload in &mut self.reloads {
            if reload.pending.remove(&Pending::Command(process)) {
                reload.pending.insert(Pending::Run(id));
            }
        }
        self.listen_to(ctx, id, until);
    }

    /// Handles the report that a reload has begun.
    pub(super) fn says_reloading(&mut self, ctx: &mut Ctx, id: RunId) {
        let run = &mut self.runs[id];
        let before = std::mem::replace(&mut run.reloading, true);
        if run.rereading.is_some() && !before {
            let until = self.read_until(ctx, id);
            self.listen_to(ctx, id, until);
        }
    }

    /// Ends a reload: the instance reported that, ended, or took too long.
    pub(super) fn has_reread(&mut self, ctx: &mut Ctx, id: RunId, well: bool) {
        let run = &mut self.runs[id];
        let instance = run.instance;
        if run.rereading.take().is_some() {
            self.reschedule(ctx, id);
            self.note_read(ctx, Pending::Run(id), instance, well);
        }
    }

    /// One that has begun wants more time.
    pub(super) fn extend_rereading(&mut self, ctx: &mut Ctx, id: RunId, at: Mono) {
        let run = &mut self.runs[id];
        if let Some(rereading) = run.rereading.as_mut().filter(|_| run.reloading) {
            rereading.until = rereading.until.map(|until| until.max(at));
            self.reschedule(ctx, id);
        }
    }

    /// The time is over. One that has not begun does not speak of it.
    pub(super) fn rereads_too_long(&mut self, ctx: &mut Ctx, id: RunId) {
        let well = !self.runs[id].reloading;
        self.has_reread(ctx, id, well);
    }

    /// The deadline of a reload, which has as long as a start.
    fn read_until(&self, ctx: &Ctx, id: RunId) -> Option<Mono> {
        let timeout = self.runs[id].life.start_timeout;
        timeout.map(|timeout| ctx.now + timeout)
    }

    fn listen_to(&mut self, ctx: &mut Ctx, id: RunId, until: Option<Mono>) {
        self.runs[id].rereading = Some(Rereading { until });
        self.reschedule(ctx, id);
    }

    /// One is not waited for any more, by none of those who did.
    fn note_read(&mut self, ctx: &mut Ctx, what: Pending, instance: InstanceId, well: bool) {
        let mut reloads = std::mem::take(&mut self.reloads);
        reloads.retain_mut(|reload| {
            if !reload.pending.remove(&what) {
                return true;
            }
            if !well {
                reload.bad.push(Bad::NotUp(instance));
            }
            let left = u32::try_from(reload.pending.len()).unwrap_or(u32::MAX);
            let (done, of) = (reload.of.saturating_sub(left), reload.of);
            ctx.answer(reload.ticket, Answer::Progress { done, of });
            if left == 0 {
                let bad = std::mem::take(&mut reload.bad);
                ctx.answer(reload.ticket, Answer::of(bad));
            }
            left > 0
        });
        self.reloads = reloads;
    }
}
