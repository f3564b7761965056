//! Instances that are asked to read their own configuration again, and who waits for that.
//!
//! A command is waited for, and then, as systemd does, an instance that has said `RELOADING=1` until
//! it says `READY=1`. A signal says nothing of its end: an instance with `ready: notify` is given
//! [`SAYS_WITHIN`] to say that it has begun, and is then waited for in the same way.

use super::effect::Effect;
use super::instance::Rereading;
use super::job::{Pending, Reloading};
use super::machine::Core;
use super::state::State;
use super::time::Mono;
use super::types::{Answer, HookKind, InstanceId, ProcessId, Refused, Scope, Ticket};
use crate::config::Ready;
use crate::plan::{ReloadBy, WorkerId};
use std::collections::BTreeSet;
use std::time::Duration;

/// How long after the signal an instance is expected to say `RELOADING=1`, if it ever does.
pub const SAYS_WITHIN: Duration = Duration::from_secs(1);

impl Core {
    pub(super) fn reload_worker(
        &mut self,
        ticket: Ticket,
        worker: WorkerId,
    ) -> Result<(), Refused> {
        if self.workers[worker].lifecycle.reload.is_none() {
            return Err(Refused::NotReloadable);
        }
        // During a rollout each does as its own definition says.
        let ready = |index: &usize| match (self.slots[*index].state, self.slots[*index].life.reload)
        {
            (State::Running { process, .. }, Some(by)) => Some((*index, process, by)),
            _ => None,
        };
        let slots = self.slots_of(worker);
        let ready: Vec<(usize, ProcessId, ReloadBy)> = slots.iter().filter_map(ready).collect();
        if ready.is_empty() {
            return Err(Refused::NoProcess);
        }
        let of = u32::try_from(ready.len()).unwrap_or(u32::MAX);
        self.ctx.answer(ticket, Answer::Progress { done: 0, of });
        let mut pending = BTreeSet::new();
        for (index, process, by) in ready {
            match by {
                ReloadBy::Signal(signal) => {
                    let scope = Scope::Process;
                    self.ctx.outbox.push(Effect::Signal {
                        process,
                        signal,
                        scope,
                    });
                    if self.slots[index].life.ready == Ready::Notify {
                        let until = match self.slots[index].reloading {
                            true => self.read_until(index),
                            false => Some(self.ctx.now + SAYS_WITHIN),
                        };
                        self.listen_to(index, until);
                        pending.insert(Pending::Slot(index));
                    }
                }
                ReloadBy::Command(timeout) => {
                    let hook = self.start_helper(index, HookKind::Reload, timeout);
                    pending.insert(Pending::Command(hook));
                }
            }
        }
        if pending.is_empty() {
            self.ctx.answer(ticket, Answer::Done);
        } else {
            self.reloads.push(Reloading {
                ticket,
                worker,
                pending,
                failed: None,
                of,
            });
        }
        Ok(())
    }

    /// The command that has an instance read its configuration again has ended.
    pub(super) fn reload_ended(
        &mut self,
        process: ProcessId,
        index: usize,
        instance: InstanceId,
        well: bool,
    ) {
        let slot = &self.slots[index];
        let goes_on = well
            && slot.reloading
            && slot.instance == instance
            && matches!(slot.state, State::Running { .. });
        if !goes_on {
            return self.is_read(Pending::Command(process), instance, well);
        }
        let until = self.read_until(index);
        for reload in &mut self.reloads {
            if reload.pending.remove(&Pending::Command(process)) {
                reload.pending.insert(Pending::Slot(index));
            }
        }
        self.listen_to(index, until);
    }

    /// It has said that it has begun.
    pub(super) fn says_reloading(&mut self, index: usize) {
        let slot = &mut self.slots[index];
        let before = std::mem::replace(&mut slot.reloading, true);
        if slot.rereading.is_some() && !before {
            let until = self.read_until(index);
            self.listen_to(index, until);
        }
    }

    /// It has said that it is done, or it ends or has had its time before that.
    pub(super) fn has_reread(&mut self, index: usize, well: bool) {
        let slot = &mut self.slots[index];
        let instance = slot.instance;
        if slot.rereading.take().is_some() {
            self.reschedule(index);
            self.is_read(Pending::Slot(index), instance, well);
        }
    }

    /// One that has begun wants more time.
    pub(super) fn extend_rereading(&mut self, index: usize, at: Mono) {
        let slot = &mut self.slots[index];
        if let Some(rereading) = slot.rereading.as_mut().filter(|_| slot.reloading) {
            rereading.until = rereading.until.map(|until| until.max(at));
            self.reschedule(index);
        }
    }

    /// The time is over. One that has not begun does not speak of it.
    pub(super) fn rereads_too_long(&mut self, index: usize) {
        let well = !self.slots[index].reloading;
        self.has_reread(index, well);
    }

    /// It has as long as for a start.
    fn read_until(&self, index: usize) -> Option<Mono> {
        let timeout = self.slots[index].life.start_timeout;
        timeout.map(|timeout| self.ctx.now + timeout)
    }

    fn listen_to(&mut self, index: usize, until: Option<Mono>) {
        self.slots[index].rereading = Some(Rereading { until });
        self.reschedule(index);
    }

    /// One is not waited for any more, by none of those who did.
    fn is_read(&mut self, what: Pending, instance: InstanceId, well: bool) {
        let mut reloads = std::mem::take(&mut self.reloads);
        reloads.retain_mut(|reload| {
            if !reload.pending.remove(&what) {
                return true;
            }
            if !well {
                reload.failed.get_or_insert(instance);
            }
            let left = u32::try_from(reload.pending.len()).unwrap_or(u32::MAX);
            let (done, of) = (reload.of.saturating_sub(left), reload.of);
            self.ctx
                .answer(reload.ticket, Answer::Progress { done, of });
            if left == 0 {
                let answer = match reload.failed {
                    None => Answer::Done,
                    Some(instance) => Answer::Failed { instance },
                };
                self.ctx.answer(reload.ticket, answer);
            }
            left > 0
        });
        self.reloads = reloads;
    }
}
