//! When clients are listened to: the gate between the sockets of a worker and its instances.
//!
//! A socket is watched while somebody would act on a client there. That is never decided ahead for
//! all sockets of a worker, of which there may be thousands: a client that comes while the gate is
//! shut has its socket *parked*, so that it is told about once, and the parked sockets are watched
//! again when the gate opens. What opens and shuts a gate is looked up where it is asked
//! ([`Core::takes_clients`]), so that there is no flag that could be left wrong: whatever changes,
//! the worker is noted as touched, and its gate is looked at before the input is done with.

use super::effect::Effect;
use super::event::Event;
use super::machine::Core;
use super::time::Mono;
use super::types::Phase;
use crate::config::{Overflow, Rate};
use crate::plan::{Activation, ListenerId, WorkerId};

impl Core {
    /// Whether a client of this worker would be acted on.
    pub(super) fn takes_clients(&self, worker: WorkerId) -> bool {
        let Some(known) = self.workers.get(worker) else {
            return false;
        };
        if self.ctx.phase != Phase::Running
            || known.gate.resume_at.is_some()
            || known.stopped
            || known.removed
        {
            return false;
        }
        match &known.lifecycle.activation {
            Activation::Eager => false,
            Activation::OnDemand { .. } => {
                let counts = known.counts;
                counts.waiting > 0
                    && counts.with_process == 0
                    && counts.resting == 0
                    && known.gate.looking.is_none()
                    && !self.waits_for_a_listener(worker)
            }
            Activation::PerConnection(limits) => {
                let taken = known.connections.live + known.connections.under_way;
                let room =
                    limits.overflow == Overflow::Close || limits.max.is_none_or(|max| taken < max);
                // After a launch that failed, one is tried at a time.
                let counts = known.counts;
                let well = known.connections.launches.is_well() || counts.starting == 0;
                room && well && counts.resting == 0
            }
        }
    }

    /// Somebody waits at a socket.
    pub(super) fn client_waits(&mut self, listener: ListenerId, socket: u32) {
        let users = self.users_of(listener);
        if users.is_empty() || self.ctx.phase == Phase::Exited {
            self.ctx.ignore();
            return;
        }
        for worker in users.iter().copied() {
            if self.takes_clients(worker) {
                self.take_client(worker, (listener, socket));
            }
        }
        if !users.iter().any(|worker| self.takes_clients(*worker)) {
            // Even if it is parked already: a socket that was repaired is watched anew.
            self.ctx.outbox.push(Effect::Unwatch { listener, socket });
            for worker in users {
                if let Some(known) = self.workers.get_mut(worker) {
                    known.gate.parked.insert((listener, socket));
                }
            }
        }
    }

    fn take_client(&mut self, worker: WorkerId, at: (ListenerId, u32)) {
        match self.workers[worker].lifecycle.activation {
            Activation::Eager => {}
            Activation::OnDemand { limit } => {
                if !self.is_too_often(worker, limit) {
                    self.activate(worker, at);
                }
            }
            Activation::PerConnection(ref limits) => {
                let rate = limits.rate;
                if !self.is_too_often(worker, rate) {
                    self.accept(worker, at);
                }
            }
        }
    }

    /// Shuts the gate until the limit allows one more, if it does not now.
    fn is_too_often(&mut self, worker: WorkerId, limit: Option<Rate>) -> bool {
        let Some(limit) = limit else { return false };
        let known = &mut self.workers[worker];
        let under_way = known.connections.under_way;
        let Some(free_at) = known.gate.recent.full(self.ctx.now, limit, under_way) else {
            return false;
        };
        if known.gate.told_rate.again(self.ctx.now) {
            self.ctx.emit(Event::RateLimited { worker, limit });
        }
        self.shut_until(worker, free_at);
        true
    }

    /// Shuts a worker's gate for a time.
    pub(super) fn shut_until(&mut self, worker: WorkerId, at: Mono) {
        let gate = &mut self.workers[worker].gate;
        if let Some(before) = gate.resume_at.replace(at) {
            self.ctx.timers.gates.remove(&(before, worker));
        }
        self.ctx.timers.gates.insert((at, worker));
    }

    /// Ends the pauses that are over.
    pub(super) fn resume_gates(&mut self) {
        while let Some((at, worker)) = self.ctx.timers.gates.first().copied() {
            if at > self.ctx.now {
                break;
            }
            self.ctx.timers.gates.pop_first();
            self.workers[worker].gate.resume_at = None;
            self.touched.push(worker);
        }
    }

    /// Watches the parked sockets of the workers that something has happened to, if they take
    /// clients now.
    pub(super) fn open_gates(&mut self) {
        while let Some(worker) = self.touched.pop() {
            if self.workers[worker].gate.parked.is_empty() || !self.takes_clients(worker) {
                continue;
            }
            let parked = std::mem::take(&mut self.workers[worker].gate.parked);
            for (listener, socket) in parked {
                self.ctx.outbox.push(Effect::Watch { listener, socket });
                for user in self.users_of(listener) {
                    if let Some(known) = self.workers.get_mut(user) {
                        known.gate.parked.remove(&(listener, socket));
                    }
                }
            }
        }
    }
}
