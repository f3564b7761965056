//! Listeners that are not there yet, and listeners that a worker has damaged.
//!
//! A listener is bound before the core hears of it, and then there is nothing to decide. The rest is
//! here. One that is missing is tried again: when the machine's addresses change, if that is what it
//! waits for, and else with growing delays. The workers that take a listener which is *waited for*
//! do not start without it; an *optional* one they do without, if they have another, and are started
//! again when it has come, since a process gets its listeners only when it starts. One that was damaged
//! is repaired at once, but not in a loop, should a worker damage it over and over. The rights of a path, of which
//! somebody else has another opinion, are restored less and less often.
//!
//! A repair by another socket takes a restart of the workers that have the old one, and some damage
//! what they share whenever they end. So when it happens again and again all of them end first, then it
//! is bound, then they start (`vacate`). If not even that lasts, it comes later each time, loudly.
//!
//! No wait ever ends for good: `wait_for_address: 30s` says when to complain, not when to give up.

use super::ctx::Ctx;
use super::effect::Effect;
use super::event::{Event, ListenerEvent, SocketEvent};
use super::listeners::{
    Absence, FIGHT, FREE_REPAIRS, FUTILE, ListenerTimer, QUIET, REPAIR_PAUSE, Rebound, RepairState,
    retry_delay,
};
use super::machine::Core;
use super::run::Run;
use super::state::State;
use super::types::{ListenerLife, Missing, Phase, Repaired, RunId};
use super::worker::Worker;
use crate::config::{OnFailure, Presence};
use crate::plan::{ListenerId, SocketKey, WorkerId};
use std::collections::BTreeSet;
use std::time::Duration;

impl Worker {
    /// Whether one of its processes has its listeners.
    fn holds_listeners(&self) -> bool {
        self.runs.holders().any(|run| run.state.process().is_some())
    }

    /// A listener of it is closed: what has its sockets is started again, when it is there.
    fn let_go_of_listeners(&mut self, ctx: &mut Ctx) {
        ctx.stir(self.id);
        // What is ending already comes back only if it was to. What is being prepared would run without it, and
        // keep the address from being bound.
        let goes_on = |run: &&Run| match run.state {
            State::Preparing { cancelled, .. } => !cancelled,
            _ => run.state.process().is_some() && run.state.ending().is_none(),
        };
        let holders = self.runs.instances().filter(goes_on).map(|run| run.id);
        for id in holders.collect::<Vec<RunId>>() {
            self.refresh(ctx, id);
        }
    }

    /// A listener of it is there, or has another socket: what runs without it is started again.
    fn take_listeners(&mut self, ctx: &mut Ctx) {
        if self.waits_for_a_listener(ctx) {
            return;
        }
        ctx.stir(self.id);
        let all: Vec<RunId> = self.runs.instances().map(|run| run.id).collect();
        for id in all {
            match self.runs[id].state {
                State::Waiting if !self.is_eager() => {}
                State::Waiting => self.spawn(ctx, id),
                State::Starting { ending: None, .. }
                | State::Activating { .. }
                | State::Running { .. } => {
                    self.refresh(ctx, id);
                }
                State::Preparing { .. }
                | State::Starting { .. }
                | State::Stopping { .. }
                | State::Cleaning { .. }
                | State::Backoff { .. }
                | State::Failed { .. }
                | State::Stopped => {}
            }
        }
    }
}

impl Core {
    /// Tells the core about the listeners; [`ListenerId`] counts them. Without this there are none
    /// to wait for or to repair.
    #[must_use]
    pub fn with_listeners(mut self, lives: Vec<ListenerLife>) -> Core {
        self.ctx.listeners.lives = (0..).map(ListenerId).zip(lives).collect();
        self
    }

    /// All instances of a worker have failed: where that is what is wanted, the listeners that only
    /// such workers take are closed, so that clients are refused instead of waiting in vain.
    pub(super) fn refuse_clients(&mut self) {
        while let Some(worker) = self.ctx.failing.pop_first() {
            let on_failure = self
                .workers
                .get(&worker)
                .map(|one| one.lifecycle.on_failure);
            if on_failure == Some(OnFailure::Refuse) {
                self.refuse_clients_of(worker);
            }
        }
    }

    fn refuse_clients_of(&mut self, worker: WorkerId) {
        // Who is being replaced may have somebody who takes clients in a moment.
        let has_failed = |user: &WorkerId| {
            let known = self.workers.get(user);
            known.is_some_and(|known| known.has_failed() && !known.is_rolling())
        };
        let lives = self.ctx.listeners.lives.iter();
        let all: Vec<ListenerId> = lives
            .filter(|(_, life)| life.users.contains(&worker) && life.users.iter().all(has_failed))
            .map(|(listener, _)| *listener)
            .filter(|listener| !self.ctx.listeners.missing.contains_key(listener))
            .collect();
        self.ctx.record.listeners();
        for listener in all {
            self.forget_sockets(&[listener]);
            self.ctx.listeners.refusing.insert(listener);
            let absence = Absence {
                why: Missing::Other,
                since: self.ctx.now,
                tries: 0,
                trying: false,
                again: false,
            };
            self.ctx.listeners.missing.insert(listener, absence);
            self.ctx
                .emit(Event::Listener(listener, ListenerEvent::Refuses));
            self.ctx.outbox.push(Effect::Unbind { listener });
        }
    }

    /// Binds the listeners that were closed for workers that had failed, and that others take now, or for
    /// which nobody wants that any more.
    pub(super) fn bind_taken(&mut self) {
        let refusing = self.ctx.listeners.refusing.iter().copied();
        let is_taken = |listener: &ListenerId| {
            let users = self.users_of(*listener);
            let mut known = users.iter().map(|user| self.workers.get(user));
            let refuses = |one: &Worker| one.lifecycle.on_failure == OnFailure::Refuse;
            let is_well = |user: Option<&Worker>| !user.is_some_and(Worker::has_failed);
            known.clone().any(is_well) || !known.any(|user| user.is_some_and(refuses))
        };
        for listener in refusing.filter(is_taken).collect::<Vec<ListenerId>>() {
            self.ctx.try_to_bind(listener);
        }
    }

    /// Forgets what is wrong with the sockets of listeners: there are others now.
    pub(super) fn forget_sockets(&mut self, listeners: &[ListenerId]) {
        let of_it: BTreeSet<ListenerId> = listeners.iter().copied().collect();
        if of_it.is_empty() {
            return;
        }
        self.ctx.record.listeners();
        self.ctx
            .listeners
            .missing
            .retain(|id, _| !of_it.contains(id));
        self.ctx.listeners.refusing.retain(|id| !of_it.contains(id));
        self.ctx.listeners.vacated.retain(|id| !of_it.contains(id));
        self.ctx
            .listeners
            .damaged
            .retain(|(id, _), _| !of_it.contains(id));
        self.ctx.listeners.due.retain(|(_, timer)| match timer {
            ListenerTimer::Retry(id)
            | ListenerTimer::Complain(id)
            | ListenerTimer::Repair(id, _) => !of_it.contains(id),
        });
        self.unpark(listeners);
        self.watch_addresses_as_needed();
    }

    /// Forgets that clients wait at listeners: they are watched anew, and tell.
    pub(super) fn unpark(&mut self, listeners: &[ListenerId]) {
        let of_it: BTreeSet<ListenerId> = listeners.iter().copied().collect();
        if of_it.is_empty() {
            return;
        }
        for known in self.workers.values_mut() {
            known.gate.parked.retain(|(id, _)| !of_it.contains(id));
        }
    }

    /// Takes over what a reload says about a listener.
    pub(super) fn redefine_listener(&mut self, listener: ListenerId, life: ListenerLife) {
        let listeners = &mut self.ctx.listeners;
        if life == ListenerLife::nobody() && !listeners.is_missing(listener) {
            listeners.lives.remove(&listener);
        } else {
            listeners.lives.insert(listener, life);
        }
    }

    /// The same, for a caller that changes something meanwhile.
    pub(super) fn users_of(&self, listener: ListenerId) -> Vec<WorkerId> {
        self.ctx.listeners.takers(listener).to_vec()
    }

    pub(super) fn listener_missing(&mut self, listener: ListenerId, why: Missing) {
        let Some(life) = self.ctx.listeners.lives.get(&listener) else {
            self.ctx.ignore();
            return;
        };
        if self.ctx.phase >= Phase::Stopping {
            return;
        }
        let presence = life.presence;
        self.ctx.record.listeners();
        let first = !self.ctx.listeners.missing.contains_key(&listener);
        let absence = self
            .ctx
            .listeners
            .missing
            .entry(listener)
            .or_insert(Absence {
                why,
                since: self.ctx.now,
                tries: 0,
                trying: false,
                again: false,
            });
        absence.why = why;
        absence.trying = false;
        let again = std::mem::take(&mut absence.again);
        let tries = absence.tries;
        absence.tries = absence.tries.saturating_add(1);
        if first && let Presence::WaitFor(limit) = presence {
            let at = self.ctx.now + limit;
            self.ctx
                .listeners
                .due
                .insert((at, ListenerTimer::Complain(listener)));
            self.ctx
                .emit(Event::Listener(listener, ListenerEvent::Awaited { limit }));
        }
        let delay = retry_delay(tries);
        let announces_itself = why == Missing::Address && !matches!(presence, Presence::Optional);
        if self.ctx.listeners.refusing.contains(&listener) && !(announces_itself && again) {
            let again_in = (!announces_itself).then_some(delay);
            for user in self.users_of(listener) {
                self.on(user, |worker, ctx| {
                    worker.tell_not_bound(ctx, listener, again_in)
                });
            }
        }
        // An address that is waited for announces itself; anything else has to be tried.
        if announces_itself {
            if again {
                self.ctx.try_to_bind(listener);
            }
        } else {
            self.ctx
                .listeners
                .due
                .insert((self.ctx.now + delay, ListenerTimer::Retry(listener)));
            self.ctx.emit(Event::Listener(
                listener,
                ListenerEvent::Missing { again_in: delay },
            ));
        }
        self.watch_addresses_as_needed();
    }

    pub(super) fn listener_bound(&mut self, listener: ListenerId) {
        let Some(absence) = self.ctx.listeners.missing.remove(&listener) else {
            self.ctx.ignore();
            return;
        };
        self.ctx.record.listeners();
        self.ctx.listeners.refusing.remove(&listener);
        self.ctx.listeners.vacated.remove(&listener);
        self.ctx.listeners.due.retain(|(_, timer)| {
            !matches!(timer, ListenerTimer::Retry(id) | ListenerTimer::Complain(id) if *id == listener)
        });
        self.ctx.emit(Event::Listener(
            listener,
            ListenerEvent::Bound {
                after: self.ctx.now.since(absence.since),
            },
        ));
        self.watch_addresses_as_needed();
        if self.ctx.phase == Phase::Running {
            self.refresh_users(listener);
        }
    }

    pub(super) fn addresses_changed(&mut self) {
        let waiting: Vec<ListenerId> = self
            .ctx
            .listeners
            .missing
            .iter()
            .filter(|(_, absence)| absence.why == Missing::Address)
            .map(|(listener, _)| *listener)
            .collect();
        for listener in waiting {
            self.ctx.try_to_bind(listener);
        }
    }

    pub(super) fn listener_damaged(
        &mut self,
        (listener, socket): (ListenerId, SocketKey),
        what: String,
        of_rights: bool,
    ) {
        if self.ctx.phase >= Phase::Stopping {
            return;
        }
        let before = self.ctx.listeners.damaged.get(&(listener, socket));
        if of_rights && before.is_some_and(|repair| !repair.whole) {
            // It is seen again whenever something else happens beside it.
            return;
        }
        self.ctx.record.listeners();
        let wait_until = before.map_or(self.ctx.now, |repair| repair.not_before.max(self.ctx.now));
        let earlier = before.map_or(0, |repair| {
            let since = self.ctx.now.since(repair.damaged);
            let forgotten = match of_rights {
                true if since < QUIET => 0,
                true => u32::MAX,
                false => {
                    u32::try_from(since.as_secs() / REPAIR_PAUSE.as_secs()).unwrap_or(u32::MAX)
                }
            };
            repair.repairs.saturating_sub(forgotten)
        });
        let repairs = earlier.saturating_add(1);
        let pause = match repairs.checked_sub(FREE_REPAIRS) {
            None => Duration::ZERO,
            // Another listend that declares the path with other rights would restore them in turn for ever.
            Some(more) if of_rights => retry_delay(more),
            Some(_) => REPAIR_PAUSE,
        };
        let repair = RepairState {
            what: Some(what),
            failures: before.map_or(0, |repair| repair.failures),
            repairs,
            damaged: self.ctx.now,
            not_before: wait_until + pause,
            whole: false,
        };
        self.ctx
            .listeners
            .damaged
            .insert((listener, socket), repair);
        self.emit_of_socket((listener, socket), SocketEvent::Damaged);
        if wait_until > self.ctx.now {
            let timer = ListenerTimer::Repair(listener, socket);
            self.ctx.listeners.due.insert((wait_until, timer));
        } else {
            self.ctx.outbox.push(Effect::Repair { listener, socket });
        }
    }

    fn emit_of_socket(&mut self, (listener, socket): (ListenerId, SocketKey), event: SocketEvent) {
        let damage = self.ctx.listeners.damage(listener, socket);
        self.ctx.emit(Event::Socket {
            listener,
            socket,
            damage,
            event,
        });
    }

    pub(super) fn listener_repaired(
        &mut self,
        (listener, socket): (ListenerId, SocketKey),
        by: Repaired,
    ) {
        let Some(repair) = self.ctx.listeners.damaged.get_mut(&(listener, socket)) else {
            return;
        };
        repair.whole = true;
        repair.failures = 0;
        self.ctx.record.listeners();
        self.emit_of_socket((listener, socket), SocketEvent::Repaired { by });
        if self.ctx.phase != Phase::Running {
            return;
        }
        match by {
            Repaired::SameSocket | Repaired::PutBack => {}
            Repaired::AnotherNamespace => self.refresh_users(listener),
            // A worker that removes the path when it ends removes the new one as well.
            Repaired::AnotherSocket => match self.count_rebound((listener, socket)) {
                ..FIGHT => self.refresh_users(listener),
                FIGHT.. => self.vacate((listener, socket)),
            },
        }
    }

    /// How often it was bound anew since it was left alone for [`QUIET`].
    fn count_rebound(&mut self, (listener, socket): (ListenerId, SocketKey)) -> u32 {
        self.ctx.record.listeners();
        let known = self.ctx.listeners.rebound.entry(listener).or_default();
        if self.ctx.now.since(known.last) >= QUIET {
            *known = Rebound::default();
        }
        known.last = self.ctx.now;
        if known.times == 0 || !known.sockets.insert(socket) {
            known.times = known.times.saturating_add(1);
            known.sockets = BTreeSet::from([socket]);
        }
        known.times
    }

    /// A socket can be bound anew only when no worker has the old one any more.
    pub(super) fn on_socket_held(&mut self, (listener, socket): (ListenerId, SocketKey)) {
        // Of several sockets of a listener each may be held, and all of them are closed by then.
        let is_vacated = self.ctx.listeners.vacated.contains(&listener);
        if self.ctx.phase == Phase::Running && !is_vacated {
            self.count_rebound((listener, socket));
            self.vacate((listener, socket));
        }
    }

    /// Closes a listener, and ends those that have its sockets; then it is bound, and they start again.
    /// Where that did not help either, it comes later each time.
    fn vacate(&mut self, (listener, socket): (ListenerId, SocketKey)) {
        let damage = self.ctx.listeners.damage(listener, socket);
        self.forget_sockets(&[listener]);
        let absence = Absence {
            why: Missing::Other,
            since: self.ctx.now,
            tries: 0,
            trying: false,
            again: false,
        };
        self.ctx.listeners.missing.insert(listener, absence);
        self.ctx.record.listeners();
        self.ctx.listeners.vacated.insert(listener);
        let times = self
            .ctx
            .listeners
            .rebound
            .get(&listener)
            .map_or(0, |known| known.times);
        let event = if times >= FUTILE {
            let again_in = retry_delay(times.saturating_sub(FUTILE).saturating_add(2));
            let at = self.ctx.now + again_in;
            self.ctx
                .listeners
                .due
                .insert((at, ListenerTimer::Retry(listener)));
            SocketEvent::RepairFutile { times, again_in }
        } else {
            SocketEvent::Vacated
        };
        self.ctx.emit(Event::Socket {
            listener,
            socket,
            damage,
            event,
        });
        self.ctx.outbox.push(Effect::Unbind { listener });
        for user in self.users_of(listener) {
            self.on(user, Worker::let_go_of_listeners);
        }
    }

    /// Binds what was vacated, as soon as nobody has the old sockets. To be called after every input.
    pub(super) fn bind_vacant(&mut self) {
        if self.ctx.listeners.vacated.is_empty() {
            return;
        }
        let is_delayed = |listener: &ListenerId| {
            let mut due = self.ctx.listeners.due.iter();
            due.any(|(_, timer)| *timer == ListenerTimer::Retry(*listener))
        };
        let is_vacant = |listener: &ListenerId| {
            let absence = self.ctx.listeners.missing.get(listener);
            let untried = absence.is_some_and(|absence| absence.tries == 0 && !absence.trying);
            let users = self.ctx.listeners.takers(*listener).iter();
            let mut users = users.filter_map(|user| self.workers.get(user));
            untried && !is_delayed(listener) && !users.any(Worker::holds_listeners)
        };
        let vacated = self.ctx.listeners.vacated.iter().copied();
        for listener in vacated.filter(is_vacant).collect::<Vec<_>>() {
            self.ctx.try_to_bind(listener);
        }
    }

    /// Gives a listener to the workers that take it and run without it, or with another socket.
    fn refresh_users(&mut self, listener: ListenerId) {
        for user in self.users_of(listener) {
            self.on(user, Worker::take_listeners);
        }
    }

    pub(super) fn repair_failed(&mut self, listener: ListenerId, socket: SocketKey) {
        if self.ctx.phase >= Phase::Stopping {
            return;
        }
        let Some(repair) = self.ctx.listeners.damaged.get_mut(&(listener, socket)) else {
            return;
        };
        let delay = retry_delay(repair.failures);
        repair.failures = repair.failures.saturating_add(1);
        repair.not_before = self.ctx.now + delay;
        self.ctx.record.listeners();
        let timer = ListenerTimer::Repair(listener, socket);
        self.ctx.listeners.due.insert((self.ctx.now + delay, timer));
        let event = SocketEvent::RepairFailed { again_in: delay };
        self.emit_of_socket((listener, socket), event);
    }

    /// Runs the timers that are due.
    pub(super) fn run_listener_timers(&mut self) {
        while let Some((at, timer)) = self.ctx.listeners.due.first().copied() {
            if at > self.ctx.now {
                break;
            }
            self.ctx.listeners.due.pop_first();
            self.ctx.record.listeners();
            match timer {
                ListenerTimer::Retry(listener) => self.ctx.try_to_bind(listener),
                ListenerTimer::Complain(listener) => {
                    if let Some(absence) = self.ctx.listeners.missing.get(&listener) {
                        let after = self.ctx.now.since(absence.since);
                        self.ctx
                            .emit(Event::Listener(listener, ListenerEvent::Overdue { after }));
                    }
                }
                ListenerTimer::Repair(listener, socket) => {
                    let repair = self.ctx.listeners.damaged.get_mut(&(listener, socket));
                    if let Some(repair) = repair.filter(|repair| !repair.whole) {
                        repair.not_before = repair.not_before.max(self.ctx.now + REPAIR_PAUSE);
                        self.ctx.outbox.push(Effect::Repair { listener, socket });
                    }
                }
            }
        }
    }

    /// Begins again what was under way in the core whose place this takes.
    pub(super) fn resume_listeners(&mut self) {
        let missing = self.ctx.listeners.missing.iter_mut();
        let tried = missing.filter(|(_, absence)| absence.trying);
        let tried = tried.map(|(listener, absence)| {
            (absence.trying, absence.again) = (false, false);
            *listener
        });
        for listener in tried.collect::<Vec<_>>() {
            self.ctx.try_to_bind(listener);
        }
        let is_due = |at: (ListenerId, SocketKey)| {
            let mut due = self.ctx.listeners.due.iter();
            due.any(|(_, timer)| *timer == ListenerTimer::Repair(at.0, at.1))
        };
        let damaged = self.ctx.listeners.damaged.iter();
        let under_way = damaged.filter(|(at, repair)| !repair.whole && !is_due(**at));
        for (listener, socket) in under_way.map(|(at, _)| *at).collect::<Vec<_>>() {
            self.ctx.outbox.push(Effect::Repair { listener, socket });
        }
        self.watch_addresses_as_needed();
    }

    /// Nothing is bound or repaired any more.
    pub(super) fn forget_listeners(&mut self) {
        self.ctx.record.listeners();
        self.ctx.listeners.due.clear();
        self.ctx.listeners.missing.clear();
        self.ctx.listeners.damaged.clear();
        self.ctx.listeners.refusing.clear();
        self.ctx.listeners.vacated.clear();
        self.watch_addresses_as_needed();
        self.ctx
            .outbox
            .retain(|effect| !matches!(effect, Effect::Bind { .. } | Effect::Repair { .. }));
    }

    fn watch_addresses_as_needed(&mut self) {
        let mut missing = self.ctx.listeners.missing.values();
        let wanted = missing.any(|absence| absence.why == Missing::Address);
        if wanted != self.ctx.listeners.watching {
            self.ctx.listeners.watching = wanted;
            self.ctx.outbox.push(Effect::WatchAddresses { wanted });
        }
    }
}
