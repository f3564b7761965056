//! What has been replaced is watched for a while, because most releases that are bad live longer than
//! `min_ready`.
//!
//! While a rollout lasts, and for the time `watch` after it, a crash of an instance that the rollout
//! has started fails it: a program that ended by itself and not well, that could not be launched, or
//! that listend had to end. What is only watched counts as done: whoever asked has been answered,
//! commands for the worker are carried out, and another rollout goes back to it.
//!
//! A restart by the same definition is watched as long as it lasts only, and so is a definition whose
//! predecessor had sockets that are to be closed: there is nothing to go back to.

use super::ctx::Ctx;
use super::rollout::{Course, Rollout};
use super::time::Mono;
use super::types::RunId;
use super::worker::Worker;

impl Worker {
    /// Whether a crash of an instance of the worker would fail a rollout, under way or over.
    pub(super) fn is_watched(&self) -> bool {
        self.rollout.is_some()
    }

    /// An instance has crashed. Whether that fails the rollout that has started it.
    pub(super) fn note_crash(&mut self, ctx: &mut Ctx, id: RunId) -> bool {
        let run = &self.runs[id];
        let (revision, now) = (self.revision, ctx.now);
        let Some(rollout) = self.rollout.as_mut() else {
            return false;
        };
        let is_new = self.runs.is_placed(id)
            && run.revision == revision
            && run.instance.generation >= rollout.generation;
        let is_over = rollout.watched.is_some_and(|until| until <= now);
        if rollout.back.is_some() || is_over || !is_new {
            return false;
        }
        rollout.crashed.get_or_insert(run.instance);
        true
    }

    fn is_to_be_watched(&self, rollout: &Rollout) -> bool {
        let accepts = self.accepts_connections();
        let is_another = rollout.from.revision != self.revision;
        !(self.lifecycle.rollout.watch.is_zero() || self.stopped || accepts) && is_another
    }

    /// Whether what was replaced would be watched, but for the sockets of the definition before, which
    /// are closed: nobody would take the clients that wait there meanwhile.
    pub(super) fn cannot_go_back(&self, rollout: &Rollout) -> bool {
        self.is_to_be_watched(rollout) && !rollout.can_go_back
    }

    /// Every instance was replaced. Whether they are watched from now on.
    pub(super) fn begin_to_watch(&mut self, ctx: &mut Ctx, mut rollout: Box<Rollout>) -> bool {
        if !self.is_to_be_watched(&rollout) || !rollout.can_go_back {
            return false;
        }
        let time = self.lifecycle.rollout.watch;
        ctx.drawn.hold(rollout.course(), Course::Watched);
        rollout.watched = Some(ctx.now + time);
        ctx.timers.rollout(self.id, Some(ctx.now + time));
        self.rollout = Some(rollout);
        true
    }

    /// Goes on watching, or ends that.
    pub(super) fn watch_rollout(&mut self, ctx: &mut Ctx, rollout: Box<Rollout>, until: Mono) {
        if until > ctx.now {
            ctx.timers.rollout(self.id, Some(until));
            self.rollout = Some(rollout);
        } else {
            ctx.drawn.hold(rollout.course(), Course::Over);
            self.forget_revisions(ctx);
        }
    }

    /// Ends the watch: the worker is another, or is stopped.
    pub(super) fn end_watch(&mut self, ctx: &mut Ctx) {
        if self.is_watched() && !self.is_rolling() {
            self.rollout = None;
            ctx.drawn.hold(Course::Watched, Course::Over);
            ctx.timers.rollout(self.id, None);
            self.forget_revisions(ctx);
        }
    }
}
