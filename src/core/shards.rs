//! `distribute: shards`: which shards get new clients, and when an instance may stop whose shard nobody
//! else is to serve.
//!
//! A shard is a socket that the instance of the same number has, and no other: the old and the new one in a
//! rollout, and each successor after a crash. listend holds all of them, so that who waits in one stays
//! there while nobody serves it. New clients are sent to the shards whose instance is ready; where none is,
//! to all, so that who comes early waits for an instance that is on its way.
//!
//! An instance that is not to be replaced, since there are to be fewer, or by one that has no shard, since the
//! sockets are to be shared, is the last to accept from its shard. No client is sent there any more, but some are in its queue or on
//! their way into it. It *drains*: it goes on until its queue has been empty for a while, or for
//! `stop_timeout`, and only then is it asked to stop. If it ends before, it is started again for that, as its
//! restart policy has it; so is one that a rollout finds on its way to another start. Only the first shard needs
//! none of this: it is there whatever there is to be, and who waits in it is served by whoever comes next.

use super::ctx::Ctx;
use super::effect::Effect;
use super::event::{Event, InstanceEvent};
use super::rollout::Target;
use super::run::{Drain, Run};
use super::state::State;
use super::time::Mono;
use super::types::{Next, Phase, ProcessId, RunId};
use super::worker::Worker;
use crate::config::Distribute;
use crate::plan::Lifecycle;
use std::collections::BTreeSet;
use std::time::Duration;

/// How long the queue has to be empty: who had got an answer to its first packet by the time the shard was
/// given up is in the queue a round trip later.
pub(super) const EMPTY_FOR: Duration = Duration::from_secs(1);
/// The time from one look at the queue to the next: at first, and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

pub(super) fn has_shards(life: &Lifecycle) -> bool {
    life.distribute == Distribute::Shards
}

impl Worker {
    /// Has new clients sent to the shards that are served, if those are others than before.
    pub(super) fn steer(&mut self, ctx: &mut Ctx) {
        if ctx.phase != Phase::Running || self.removed {
            return;
        }
        let Some(shards) = self.served() else { return };
        if self.steered.as_ref() != Some(&shards) {
            ctx.outbox.push(Effect::Steer {
                worker: self.id,
                shards: shards.clone(),
            });
            self.steered = Some(shards);
        }
    }

    /// The shards that are to get new clients; `None` if there are none, or no instances.
    fn served(&self) -> Option<BTreeSet<u32>> {
        if !has_shards(&self.lifecycle) {
            // The first is the socket that all share. While others are left, nobody is sent there.
            return self.steered.as_ref().map(|_| BTreeSet::from([0]));
        }
        let is_ready = |run: &&Run| matches!(run.state, State::Running { .. });
        let ready = self.runs.instances().filter(is_ready);
        let served: BTreeSet<u32> = ready.filter_map(|run| self.serves(run)).collect();
        if served.is_empty() {
            // What they all shared is served whether that is gone back to or not.
            if self.may_come_to_share() {
                return Some(BTreeSet::from([0]));
            }
            // One that still shares the sockets has no shard that anybody is on the way to.
            let all = self.runs.places().filter(|run| has_shards(&run.life));
            let all: BTreeSet<u32> = all.map(|run| run.instance.index).collect();
            return Some(match all.is_empty() {
                // The first instance that there is has this one.
                true => BTreeSet::from([0]),
                false => all,
            });
        }
        Some(served)
    }

    /// The shard in which clients are served whatever becomes of an instance: one that is on trial may be
    /// taken back, and then the old one has to be at its shard.
    fn serves(&self, run: &Run) -> Option<u32> {
        let index = run.instance.index;
        let at_its_place = self.runs.at(index).map(|id| &self.runs[id])?;
        match (has_shards(&run.life), has_shards(&at_its_place.life)) {
            (true, true) => Some(index),
            // What is gone back to has it, whatever was tried in between.
            (true, false) => (!self.may_come_to_share()).then_some(index),
            // It runs by a definition before, and has what all shared.
            (false, _) => Some(0),
        }
    }

    /// Whether a rollout may go back to what shares the sockets.
    fn may_come_to_share(&self) -> bool {
        let rollout = self.rollout.as_ref().filter(|one| one.back.is_none());
        rollout.is_some_and(|one| !has_shards(&one.from.life))
    }

    /// Steers the clients anew: the kernel has no program yet.
    pub(super) fn steer_anew(&mut self) {
        let had = self.runs.holders().any(|run| has_shards(&run.life));
        self.steered = had.then(BTreeSet::new);
    }

    /// Has a shard held for an instance that is about to start, beyond those that the configuration has.
    pub(super) fn hold_shard(&self, ctx: &mut Ctx, id: RunId) {
        let run = &self.runs[id];
        let index = run.instance.index;
        if has_shards(&run.life) && index >= run.life.instances {
            let places = u32::try_from(self.runs.len()).unwrap_or(u32::MAX);
            ctx.outbox.push(Effect::HoldShards {
                worker: self.id,
                shards: places.max(index.saturating_add(1)),
            });
        }
    }

    /// Whether an instance is the last to serve its shard.
    fn is_last_at_shard(&self, id: RunId) -> bool {
        let run = &self.runs[id];
        let index = run.instance.index;
        let heir = self.runs.at(index).filter(|heir| *heir != id);
        // All that has no shards is at the first.
        let is_served = heir.is_some_and(|heir| has_shards(&self.runs[heir].life) || index == 0);
        // The first shard is what all share otherwise, and where they wait while there is no instance.
        let is_kept = index == 0 && (!has_shards(&self.lifecycle) || self.runs.len() == 0);
        has_shards(&run.life) && !is_served && !is_kept
    }

    /// Whether somebody may wait in the shard of an instance for that and nobody else.
    fn is_needed_at_shard(&self, ctx: &Ctx, id: RunId) -> bool {
        let is_wanted = ctx.phase == Phase::Running && !self.removed && !self.stopped;
        is_wanted && self.is_last_at_shard(id)
    }

    /// Whether an instance runs, or will by itself, that nobody would follow at its shard.
    pub(super) fn is_alone_at_shard(&self, ctx: &Ctx, id: RunId) -> bool {
        let state = &self.runs[id].state;
        let serves = !matches!(state, State::Waiting | State::Failed { .. }) && !self.goes_down(id);
        serves && self.is_needed_at_shard(ctx, id)
    }

    /// An instance is to be none any more: if it is the last one at its shard, it goes on until nobody
    /// waits there. Answers whether it does.
    pub(super) fn drain(&mut self, ctx: &mut Ctx, id: RunId) -> bool {
        let drains = self.is_alone_at_shard(ctx, id);
        if drains {
            self.begin_to_drain(ctx, id);
        }
        drains
    }

    /// An instance that does not run, or not for long, is to be replaced by what shares the sockets: whoever waits
    /// in its shard is served by it before. Answers whether that is so.
    pub(super) fn drain_once_more(&mut self, ctx: &mut Ctx, id: RunId) -> bool {
        let run = &self.runs[id];
        let is_bad = |bad: &Target| bad.revision == run.revision;
        let cannot = match run.state {
            State::Waiting | State::Failed { .. } => true,
            // It goes on beside what comes.
            State::Activating { .. } | State::Running { .. } => true,
            State::Preparing { cancelled, .. } => !cancelled,
            State::Starting { ending, .. } => ending.is_none(),
            State::Stopping { .. }
            | State::Cleaning { .. }
            | State::Backoff { .. }
            | State::Stopped => self.given_up.as_ref().is_some_and(is_bad),
        };
        if cannot || has_shards(&self.lifecycle) || !self.is_needed_at_shard(ctx, id) {
            return false;
        }
        self.begin_to_drain(ctx, id);
        true
    }

    /// Whether what is to drain may be started for that, or again.
    pub(super) fn may_drain(&self, ctx: &Ctx, id: RunId) -> bool {
        self.is_needed_at_shard(ctx, id) && !self.waits_for_a_listener(ctx)
    }

    /// What follows the end of what is to drain, unless its time is over by then.
    pub(super) fn if_in_time(&self, ctx: &Ctx, id: RunId, next: Next) -> Next {
        let limit = self.runs[id].drain.and_then(|drain| drain.limit);
        match (next, limit) {
            (Next::RestartIn(delay), Some(limit)) if ctx.now + delay >= limit => Next::Stopping,
            (next, _) => next,
        }
    }

    fn begin_to_drain(&mut self, ctx: &mut Ctx, id: RunId) {
        let run = &mut self.runs[id];
        let to_start = match run.state {
            State::Running { .. } => Some(Duration::ZERO),
            _ => run.life.start_timeout,
        };
        let limit = run
            .life
            .stop_timeout
            .zip(to_start)
            .map(|(stop, start)| stop + start);
        run.drain = Some(Drain {
            limit: limit.map(|limit| ctx.now + limit),
            look_at: Some(ctx.now + FIRST_PAUSE),
            pause: FIRST_PAUSE,
            empty_since: None,
        });
        let instance = run.instance;
        ctx.emit(Event::Instance(instance, InstanceEvent::Draining { limit }));
        ctx.stir(self.id);
        self.reschedule(ctx, id);
        match self.runs[id].state {
            State::Stopped | State::Backoff { .. } => self.start_again(ctx, id),
            State::Cleaning { hook, .. } => {
                let next = Next::RestartIn(Duration::ZERO);
                self.become_state(ctx, id, State::Cleaning { hook, next });
            }
            _ => {}
        }
    }

    /// What is to drain is started: its queue is looked at anew.
    pub(super) fn drain_anew(&mut self, now: Mono, id: RunId) {
        if let Some(drain) = &mut self.runs[id].drain {
            (drain.look_at, drain.pause) = (Some(now + FIRST_PAUSE), FIRST_PAUSE);
            drain.empty_since = None;
        }
    }

    /// Cancels the drain of an instance that was not told to stop yet.
    pub(super) fn drain_no_more(&mut self, ctx: &mut Ctx, id: RunId) {
        if self.runs[id].drain.take().is_some() {
            ctx.stir(self.id);
            self.reschedule(ctx, id);
        }
    }

    /// Looks whether clients wait in the shard of an instance.
    pub(super) fn look_at_shard(&mut self, ctx: &mut Ctx, id: RunId, process: ProcessId) {
        if let Some(drain) = &mut self.runs[id].drain {
            drain.look_at = None;
            ctx.outbox.push(Effect::LookAtShard { process });
        }
        self.reschedule(ctx, id);
    }

    /// Handles the result of a look at the shard of an instance.
    pub(super) fn shard_looked_at(&mut self, ctx: &mut Ctx, id: RunId, clients: bool) {
        let is_last = self.is_last_at_shard(id);
        let now = ctx.now;
        let run = &mut self.runs[id];
        let ends = run.state.process().is_none() || run.state.ending().is_some();
        let Some(drain) = run.drain.as_mut().filter(|_| !ends) else {
            return ctx.ignore();
        };
        drain.empty_since = match clients {
            true => None,
            false => drain.empty_since.or(Some(now)),
        };
        let is_empty = drain
            .empty_since
            .is_some_and(|since| since + EMPTY_FOR <= now);
        let is_over = drain.limit.is_some_and(|limit| limit <= now);
        if is_empty || is_over || !is_last {
            return self.stop_instance(ctx, id);
        }
        let next = now + drain.pause;
        drain.look_at = Some(drain.limit.map_or(next, |limit| limit.min(next)));
        drain.pause = (drain.pause * 2).min(LONGEST_PAUSE);
        self.reschedule(ctx, id);
    }
}
