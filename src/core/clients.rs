//! When clients are listened to: the gate between the sockets of a worker and its instances.
//!
//! A socket is watched while somebody would act on a client there. That is never decided ahead for
//! all sockets of a worker, of which there may be thousands: a client that comes while the gate is
//! shut has its socket *parked*, so that it is told about once, and the parked sockets are watched
//! again when the gate opens. What opens and shuts a gate is looked up where it is asked
//! ([`Worker::takes_clients`]), so that there is no flag that could be left wrong: whatever changes,
//! the worker is noted as touched, and its gate is looked at before the input is done with.

use super::ctx::{Ctx, Elsewhere};
use super::effect::Effect;
use super::event::{Event, WorkerEvent};
use super::machine::Core;
use super::time::Mono;
use super::types::{ConnectionId, NotAccepted, Phase, Waiting};
use super::worker::Worker;
use crate::config::{Overflow, Rate};
use crate::connection::Source;
use crate::plan::{Activation, ListenerId, SocketKey, WorkerId};

impl Worker {
    /// Whether a client of this worker would be acted on.
    pub(super) fn takes_clients(&self, ctx: &Ctx, elsewhere: &Elsewhere) -> bool {
        let is_shut = self.gate.resume_at.is_some() || self.stopped || self.removed;
        if ctx.phase != Phase::Running || is_shut {
            return false;
        }
        let counts = self.counts;
        match &self.lifecycle.activation {
            Activation::Eager => false,
            Activation::OnDemand { .. } => {
                counts.waiting > 0
                    && self.instances_with_process() == 0
                    && counts.resting == 0
                    && self.gate.looking.is_none()
                    && !ctx.listeners.lacks_or_has_closed(self.id)
                    && !self.waits_for_an_end(elsewhere)
            }
            Activation::PerConnection(limits) => {
                let taken = self.connections.live + self.connections.under_way;
                let room =
                    limits.overflow == Overflow::Close || limits.max.is_none_or(|max| taken < max);
                // After a launch that failed, one is tried at a time.
                let well = self.connections.launches.is_well() || counts.starting == 0;
                room && well && counts.resting == 0
            }
        }
    }

    fn take_client(&mut self, ctx: &mut Ctx, at: (ListenerId, SocketKey)) {
        match self.lifecycle.activation {
            Activation::Eager => {}
            Activation::OnDemand { limit } => {
                if !self.holds_back(ctx, limit) {
                    self.activate(ctx, at);
                }
            }
            Activation::PerConnection(ref limits) => {
                let rate = limits.rate;
                if !self.holds_back(ctx, rate) {
                    self.accept(ctx, at);
                }
            }
        }
    }

    /// Shuts the gate until the limit allows one more, if it does not now.
    fn holds_back(&mut self, ctx: &mut Ctx, limit: Option<Rate>) -> bool {
        let Some(limit) = limit else { return false };
        let under_way = self.connections.under_way;
        let Some(free_at) = self.gate.recent.full(ctx.now, limit, under_way) else {
            return false;
        };
        if self.gate.told_rate.again(ctx.now) {
            let worker = self.id;
            ctx.emit(Event::Worker(worker, WorkerEvent::RateLimited { limit }));
        }
        self.shut_until(ctx, free_at);
        true
    }

    /// Shuts the gate for a time.
    pub(super) fn shut_until(&mut self, ctx: &mut Ctx, at: Mono) {
        if let Some(before) = self.gate.resume_at.replace(at) {
            ctx.timers.gates.remove(&(before, self.id));
        }
        ctx.timers.gates.insert((at, self.id));
    }

    /// Ends the pause that is over.
    pub(super) fn resume_gate(&mut self, ctx: &mut Ctx) {
        self.gate.resume_at = None;
        ctx.stir(self.id);
    }
}

impl Core {
    pub(super) fn takes_clients(&self, worker: WorkerId) -> bool {
        let known = self.workers.get(&worker);
        known.is_some_and(|known| known.takes_clients(&self.ctx, &self.elsewhere(worker)))
    }

    /// Somebody waits at a socket.
    pub(super) fn client_waits(&mut self, listener: ListenerId, socket: SocketKey) {
        let users = self.users_of(listener);
        if users.is_empty() || self.ctx.phase == Phase::Exited {
            return self.ctx.ignore();
        }
        for id in users.iter().copied() {
            if self.takes_clients(id) {
                self.on(id, |worker, ctx| {
                    worker.take_client(ctx, (listener, socket))
                });
            }
        }
        if !users.iter().any(|id| self.takes_clients(*id)) {
            // Even if it is parked already: a socket that was repaired is watched anew.
            self.ctx.outbox.push(Effect::Unwatch { listener, socket });
            for id in users {
                self.on(id, |worker, _| {
                    worker.gate.parked.insert((listener, socket))
                });
            }
        }
    }

    /// Watches the parked sockets of the workers that something has happened to, if they take
    /// clients now.
    pub(super) fn open_gates(&mut self) {
        self.on_stirred(Core::open_gate);
    }

    fn open_gate(&mut self, id: WorkerId) {
        let known = self.workers.get(&id);
        if known.is_none_or(|known| known.gate.parked.is_empty()) || !self.takes_clients(id) {
            return;
        }
        let parked = self.on(id, |worker, _| std::mem::take(&mut worker.gate.parked));
        for (listener, socket) in parked.unwrap_or_default() {
            self.ctx.outbox.push(Effect::Watch { listener, socket });
            for user in self.users_of(listener) {
                self.on(user, |worker, _| {
                    worker.gate.parked.remove(&(listener, socket))
                });
            }
        }
    }

    /// Who waits for a worker whose last instance has ended cleanly.
    pub(super) fn looked(&mut self, worker: WorkerId, waiting: Waiting) {
        let known = self.on(worker, |worker, ctx| worker.looked(ctx, waiting));
        if known.is_none() {
            self.ctx.ignore();
        }
    }

    pub(super) fn accepted(&mut self, connection: ConnectionId, source: Source) {
        if let Some(id) = self.end_accept(connection) {
            self.on(id, |worker, ctx| worker.accepted(ctx, connection, source));
        }
    }

    pub(super) fn not_accepted(&mut self, connection: ConnectionId, why: NotAccepted) {
        if let Some(id) = self.end_accept(connection) {
            self.on(id, |worker, ctx| worker.not_accepted(ctx, why));
        }
    }

    /// The worker that a connection was being accepted for.
    fn end_accept(&mut self, connection: ConnectionId) -> Option<WorkerId> {
        let worker = self.ctx.accepting.remove(&connection);
        if worker.is_none() {
            self.ctx.ignore();
        }
        worker
    }
}
