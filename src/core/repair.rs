//! Listeners that are not there yet, and listeners that a worker has damaged.
//!
//! A listener is bound before the core hears of it, and then there is nothing to decide. The rest is
//! here. One that is missing is tried again: when the machine's addresses change, if that is what it
//! waits for, and else with growing delays. The workers that take a listener which is *waited for*
//! do not start without it; an *optional* one they do without, if they have another, and are started
//! again when it has come, since a process gets its listeners only when it starts. One that was damaged
//! is repaired at once, but not in a loop, should a worker damage it over and over.
//!
//! A repair by another socket takes a restart of the workers that have the old one, and some damage
//! what they share whenever they end. So when it happens again and again all of them end first, then it
//! is bound, then they start (`vacate`). If not even that lasts, it comes later each time, loudly.
//!
//! No wait ever ends for good: `wait_for_address: 30s` says when to complain, not when to give up.

use super::effect::Effect;
use super::event::Event;
use super::listeners::{
    Absence, Errand, FIGHT, FREE_REPAIRS, FUTILE, Mending, QUIET, REPAIR_PAUSE, RETRY_MAX,
    RETRY_MIN, Rebound,
};
use super::machine::Core;
use super::state::State;
use super::time::Mono;
use super::types::{ListenerLife, Missing, Phase, Repaired, Role};
use crate::config::{OnFailure, Presence};
use crate::plan::{ListenerId, WorkerId};
use std::collections::BTreeSet;
use std::time::Duration;

impl Core {
    /// Tells the core about the listeners; [`ListenerId`] counts them. Without this there are none
    /// to wait for or to repair.
    #[must_use]
    pub fn with_listeners(mut self, lives: Vec<ListenerLife>) -> Core {
        self.listeners.lives = lives;
        self
    }

    /// Whether the worker has to wait for a listener of its own: for its socket, or for the end of
    /// those who need it otherwise.
    pub(super) fn waits_for_a_listener(&self, worker: WorkerId) -> bool {
        self.lacks_or_has_closed(worker) || self.waits_for_an_end(worker)
    }

    /// Whether it has to wait for a socket: one that is waited for, or any where there is none at all,
    /// since a server without a socket can only fail.
    pub(super) fn lacks_or_has_closed(&self, worker: WorkerId) -> bool {
        let mut refusing = self.listeners.refusing.iter();
        let takes = |listener: &ListenerId| {
            let life = self.listeners.lives.get(listener.0 as usize);
            life.is_some_and(|life| life.users.contains(&worker))
        };
        refusing.any(takes) || self.lacks_a_listener(worker)
    }

    /// The same, but for listeners that were closed on purpose: its start binds them again.
    pub(super) fn lacks_a_listener(&self, worker: WorkerId) -> bool {
        let mut missing = 0;
        for listener in self.listeners.missing.keys() {
            let life = self.listeners.lives.get(listener.0 as usize);
            let is_refusing = self.listeners.refusing.contains(listener);
            let Some(life) = life.filter(|life| life.users.contains(&worker) && !is_refusing)
            else {
                continue;
            };
            let is_vacated = self.listeners.vacated.contains(listener);
            if is_vacated || matches!(life.presence, Presence::WaitFor(_)) {
                return true;
            }
            missing += 1;
        }
        let takes = || {
            let lives = self.listeners.lives.iter();
            lives.filter(|life| life.users.contains(&worker)).count()
        };
        missing > 0 && missing == takes()
    }

    /// All instances of a worker have failed: where that is what is wanted, the listeners that only
    /// such workers take are closed, so that clients are refused instead of waiting in vain.
    pub(super) fn refuse_clients(&mut self, worker: WorkerId) {
        if self.workers[worker].lifecycle.on_failure != OnFailure::Refuse {
            return;
        }
        // Who is being replaced may have somebody who takes clients in a moment.
        let has_failed = |user: &WorkerId| {
            let known = &self.workers[*user];
            let all = known.failed > 0 && known.failed as usize == known.slots.len();
            all && !self.is_rolling(*user)
        };
        let all: Vec<ListenerId> = (0..)
            .map(ListenerId)
            .zip(&self.listeners.lives)
            .filter(|(_, life)| life.users.contains(&worker) && life.users.iter().all(has_failed))
            .map(|(listener, _)| listener)
            .filter(|listener| !self.listeners.missing.contains_key(listener))
            .collect();
        for listener in all {
            self.forget_sockets(&[listener]);
            self.listeners.refusing.insert(listener);
            let absence = Absence {
                why: Missing::Other,
                since: self.ctx.now,
                tries: 0,
                trying: false,
                again: false,
            };
            self.listeners.missing.insert(listener, absence);
            self.ctx.emit(Event::ListenerRefuses { listener });
            self.ctx.outbox.push(Effect::Unbind { listener });
        }
    }

    /// Binds the listeners of a worker that were closed because it had failed.
    pub(super) fn take_clients_again(&mut self, worker: WorkerId) {
        let refusing = self.listeners.refusing.iter().copied();
        let of_it = refusing.filter(|listener| self.takers(*listener).contains(&worker));
        for listener in of_it.collect::<Vec<ListenerId>>() {
            self.try_to_bind(listener);
        }
    }

    /// Binds the listeners that were closed for workers that had failed, and that others take now.
    pub(super) fn bind_what_is_taken(&mut self) {
        let refusing = self.listeners.refusing.iter().copied();
        let is_taken = |listener: &ListenerId| {
            let users = self.users_of(*listener);
            users.iter().any(|user| {
                let known = &self.workers[*user];
                known.failed == 0 || known.failed as usize != known.slots.len()
            })
        };
        for listener in refusing.filter(is_taken).collect::<Vec<ListenerId>>() {
            self.try_to_bind(listener);
        }
    }

    /// Forgets what is wrong with the sockets of listeners: there are others now.
    pub(super) fn forget_sockets(&mut self, listeners: &[ListenerId]) {
        let of_it: BTreeSet<ListenerId> = listeners.iter().copied().collect();
        if of_it.is_empty() {
            return;
        }
        self.listeners.missing.retain(|id, _| !of_it.contains(id));
        self.listeners.refusing.retain(|id| !of_it.contains(id));
        self.listeners.vacated.retain(|id| !of_it.contains(id));
        self.listeners
            .damaged
            .retain(|(id, _), _| !of_it.contains(id));
        self.listeners.due.retain(|(_, errand)| match errand {
            Errand::Retry(id) | Errand::Complain(id) | Errand::Repair(id, _) => !of_it.contains(id),
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
        for known in self.workers.0.values_mut() {
            known.gate.parked.retain(|(id, _)| !of_it.contains(id));
        }
    }

    /// Takes over what a reload says about a listener.
    pub(super) fn redefine_listener(&mut self, listener: ListenerId, life: ListenerLife) {
        let nobody = ListenerLife {
            presence: Presence::Required,
            users: Vec::new(),
        };
        let place = listener.0 as usize;
        if self.listeners.lives.len() <= place {
            self.listeners.lives.resize(place + 1, nobody);
        }
        self.listeners.lives[place] = life;
    }

    /// Who takes a listener.
    pub fn takers(&self, listener: ListenerId) -> &[WorkerId] {
        let life = self.listeners.lives.get(listener.0 as usize);
        life.map_or(&[], |life| life.users.as_slice())
    }

    /// The same, for a caller that changes something meanwhile.
    pub(super) fn users_of(&self, listener: ListenerId) -> Vec<WorkerId> {
        self.takers(listener).to_vec()
    }

    /// The earliest errand.
    pub(super) fn errand_due(&self) -> Option<Mono> {
        self.listeners.due.first().map(|(at, _)| *at)
    }

    pub(super) fn listener_missing(&mut self, listener: ListenerId, why: Missing) {
        let Some(life) = self.listeners.lives.get(listener.0 as usize) else {
            self.ctx.ignore();
            return;
        };
        if self.ctx.phase >= Phase::Stopping {
            return;
        }
        let presence = life.presence;
        let first = !self.listeners.missing.contains_key(&listener);
        let absence = self.listeners.missing.entry(listener).or_insert(Absence {
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
            self.listeners.due.insert((at, Errand::Complain(listener)));
            self.ctx.emit(Event::ListenerAwaited { listener, limit });
        }
        let delay = growing(tries);
        let announces_itself = why == Missing::Address && !matches!(presence, Presence::Optional);
        if self.listeners.refusing.contains(&listener) && !(announces_itself && again) {
            self.tell_not_bound(listener, (!announces_itself).then_some(delay));
        }
        // An address that is waited for announces itself; anything else has to be tried.
        if announces_itself {
            if again {
                self.try_to_bind(listener);
            }
        } else {
            self.listeners
                .due
                .insert((self.ctx.now + delay, Errand::Retry(listener)));
            self.ctx.emit(Event::ListenerMissing {
                listener,
                again_in: delay,
            });
        }
        self.watch_addresses_as_needed();
    }

    pub(super) fn listener_bound(&mut self, listener: ListenerId) {
        let Some(absence) = self.listeners.missing.remove(&listener) else {
            self.ctx.ignore();
            return;
        };
        self.listeners.refusing.remove(&listener);
        self.listeners.vacated.remove(&listener);
        self.listeners.due.retain(|(_, errand)| {
            !matches!(errand, Errand::Retry(id) | Errand::Complain(id) if *id == listener)
        });
        self.ctx.emit(Event::ListenerBound {
            listener,
            after: self.ctx.now.since(absence.since),
        });
        self.watch_addresses_as_needed();
        if self.ctx.phase == Phase::Running {
            self.refresh_users(listener);
        }
    }

    pub(super) fn addresses_changed(&mut self) {
        let waiting: Vec<ListenerId> = self
            .listeners
            .missing
            .iter()
            .filter(|(_, absence)| absence.why == Missing::Address)
            .map(|(listener, _)| *listener)
            .collect();
        for listener in waiting {
            self.try_to_bind(listener);
        }
    }

    pub(super) fn listener_damaged(&mut self, listener: ListenerId, socket: u32) {
        if self.ctx.phase >= Phase::Stopping {
            return;
        }
        self.ctx.emit(Event::ListenerDamaged { listener, socket });
        let before = self.listeners.damaged.get(&(listener, socket));
        let wait_until = before.map_or(self.ctx.now, |mending| mending.not_before);
        let recent = before.filter(|mending| self.ctx.now.since(mending.damaged) < QUIET);
        let repairs = recent
            .map_or(0, |mending| mending.repairs)
            .saturating_add(1);
        let pause = if repairs < FREE_REPAIRS {
            Duration::ZERO
        } else {
            REPAIR_PAUSE
        };
        let mending = Mending {
            failures: before.map_or(0, |mending| mending.failures),
            repairs,
            damaged: self.ctx.now,
            not_before: self.ctx.now + pause,
            whole: false,
        };
        self.listeners.damaged.insert((listener, socket), mending);
        if wait_until > self.ctx.now {
            let errand = Errand::Repair(listener, socket);
            self.listeners.due.insert((wait_until, errand));
        } else {
            self.ctx.outbox.push(Effect::Repair { listener, socket });
        }
    }

    pub(super) fn listener_repaired(
        &mut self,
        (listener, socket): (ListenerId, u32),
        by: Repaired,
    ) {
        let Some(mending) = self.listeners.damaged.get_mut(&(listener, socket)) else {
            return;
        };
        mending.whole = true;
        mending.failures = 0;
        self.ctx.emit(Event::ListenerRepaired {
            listener,
            socket,
            by,
        });
        if by == Repaired::AnotherSocket && self.ctx.phase == Phase::Running {
            // A worker that removes the path when it ends removes the new one as well.
            match self.count_rebound((listener, socket)) {
                ..FIGHT => self.refresh_users(listener),
                FIGHT.. => self.vacate((listener, socket)),
            }
        }
    }

    /// How often it was bound anew since it was left alone for [`QUIET`].
    fn count_rebound(&mut self, (listener, socket): (ListenerId, u32)) -> u32 {
        let known = self.listeners.rebound.entry(listener).or_default();
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
    pub(super) fn socket_is_held(&mut self, (listener, socket): (ListenerId, u32)) {
        // Of several sockets of a listener each may be held, and all of them are closed by then.
        let is_vacated = self.listeners.vacated.contains(&listener);
        if self.ctx.phase == Phase::Running && !is_vacated {
            self.count_rebound((listener, socket));
            self.vacate((listener, socket));
        }
    }

    /// Closes a listener, and ends those that have its sockets; then it is bound, and they start again.
    /// Where that did not help either, it comes later each time.
    fn vacate(&mut self, (listener, socket): (ListenerId, u32)) {
        self.forget_sockets(&[listener]);
        let absence = Absence {
            why: Missing::Other,
            since: self.ctx.now,
            tries: 0,
            trying: false,
            again: false,
        };
        self.listeners.missing.insert(listener, absence);
        self.listeners.vacated.insert(listener);
        let times = self
            .listeners
            .rebound
            .get(&listener)
            .map_or(0, |known| known.times);
        if times >= FUTILE {
            let again_in = growing(times.saturating_sub(FUTILE).saturating_add(2));
            let at = self.ctx.now + again_in;
            self.listeners.due.insert((at, Errand::Retry(listener)));
            self.ctx.emit(Event::RepairFutile {
                listener,
                socket,
                times,
                again_in,
            });
        } else {
            self.ctx.emit(Event::ListenerVacated { listener, socket });
        }
        self.ctx.outbox.push(Effect::Unbind { listener });
        for worker in self.users_of(listener) {
            self.touched.push(worker);
            self.rolling.insert(worker);
            for index in self.holders_of(worker) {
                let slot = &self.slots[index];
                // What is ending already comes back only if it was to.
                if slot.role != Role::Leaving && slot.state.ending().is_none() {
                    self.refresh(index);
                }
            }
        }
    }

    /// The slots of a worker whose processes have its listeners.
    fn holders_of(&self, worker: WorkerId) -> Vec<usize> {
        let mut all = self.slots_of(worker);
        all.extend(self.workers[worker].others.iter().copied());
        all.retain(|index| {
            let slot = &self.slots[*index];
            slot.connection.is_none() && slot.state.process().is_some()
        });
        all
    }

    /// Binds what was vacated, as soon as nobody has the old sockets. To be called after every input.
    pub(super) fn bind_what_is_vacant(&mut self) {
        if self.listeners.vacated.is_empty() {
            return;
        }
        let is_delayed = |listener: &ListenerId| {
            let mut due = self.listeners.due.iter();
            due.any(|(_, errand)| *errand == Errand::Retry(*listener))
        };
        let is_vacant = |listener: &ListenerId| {
            let absence = self.listeners.missing.get(listener);
            let untried = absence.is_some_and(|absence| absence.tries == 0 && !absence.trying);
            let users = self.takers(*listener).iter();
            let mut holders = users.flat_map(|worker| self.holders_of(*worker));
            untried && !is_delayed(listener) && holders.next().is_none()
        };
        let vacated = self.listeners.vacated.iter().copied();
        for listener in vacated.filter(is_vacant).collect::<Vec<_>>() {
            self.try_to_bind(listener);
        }
    }

    /// Gives a listener to the workers that take it and run without it, or with another socket.
    fn refresh_users(&mut self, listener: ListenerId) {
        for worker in self.users_of(listener) {
            if self.waits_for_a_listener(worker) {
                continue;
            }
            self.touched.push(worker);
            self.rolling.insert(worker);
            let mut all = self.slots_of(worker);
            let others = self.workers[worker].others.iter().copied();
            all.extend(others.filter(|other| self.slots[*other].role == Role::Candidate));
            for index in all {
                match self.slots[index].state {
                    State::Waiting if !self.is_eager(worker) => {}
                    State::Waiting => self.spawn(index),
                    State::Starting { ending: None, .. }
                    | State::Activating { .. }
                    | State::Running { .. } => {
                        self.refresh(index);
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

    pub(super) fn repair_failed(&mut self, listener: ListenerId, socket: u32) {
        if self.ctx.phase >= Phase::Stopping {
            return;
        }
        let Some(mending) = self.listeners.damaged.get_mut(&(listener, socket)) else {
            return;
        };
        let delay = growing(mending.failures);
        mending.failures = mending.failures.saturating_add(1);
        mending.not_before = self.ctx.now + delay;
        let errand = Errand::Repair(listener, socket);
        self.listeners.due.insert((self.ctx.now + delay, errand));
        self.ctx.emit(Event::RepairFailed {
            listener,
            socket,
            again_in: delay,
        });
    }

    /// Runs the errands that are due.
    pub(super) fn run_errands(&mut self) {
        while let Some((at, errand)) = self.listeners.due.first().copied() {
            if at > self.ctx.now {
                break;
            }
            self.listeners.due.pop_first();
            match errand {
                Errand::Retry(listener) => self.try_to_bind(listener),
                Errand::Complain(listener) => {
                    if let Some(absence) = self.listeners.missing.get(&listener) {
                        let after = self.ctx.now.since(absence.since);
                        self.ctx.emit(Event::ListenerOverdue { listener, after });
                    }
                }
                Errand::Repair(listener, socket) => {
                    let mending = self.listeners.damaged.get_mut(&(listener, socket));
                    if let Some(mending) = mending.filter(|mending| !mending.whole) {
                        mending.not_before = self.ctx.now + REPAIR_PAUSE;
                        self.ctx.outbox.push(Effect::Repair { listener, socket });
                    }
                }
            }
        }
    }

    /// Nothing is bound or repaired any more.
    pub(super) fn forget_listeners(&mut self) {
        self.listeners.due.clear();
        self.listeners.missing.clear();
        self.listeners.damaged.clear();
        self.listeners.refusing.clear();
        self.listeners.vacated.clear();
        self.watch_addresses_as_needed();
        self.ctx
            .outbox
            .retain(|effect| !matches!(effect, Effect::Bind { .. } | Effect::Repair { .. }));
    }

    fn try_to_bind(&mut self, listener: ListenerId) {
        let Some(absence) = self.listeners.missing.get_mut(&listener) else {
            return;
        };
        if absence.trying {
            absence.again = true;
            return;
        }
        absence.trying = true;
        let retry = |errand: &Errand| matches!(errand, Errand::Retry(id) if *id == listener);
        self.listeners.due.retain(|(_, errand)| !retry(errand));
        self.ctx.outbox.push(Effect::Bind { listener });
    }

    fn watch_addresses_as_needed(&mut self) {
        let mut missing = self.listeners.missing.values();
        let wanted = missing.any(|absence| absence.why == Missing::Address);
        if wanted != self.listeners.watching {
            self.listeners.watching = wanted;
            self.ctx.outbox.push(Effect::WatchAddresses { wanted });
        }
    }
}

/// [`RETRY_MIN`] doubled for each time before, at most [`RETRY_MAX`].
fn growing(times_before: u32) -> Duration {
    let factor = 1_u32.checked_shl(times_before).unwrap_or(u32::MAX);
    RETRY_MIN.saturating_mul(factor).min(RETRY_MAX)
}
