//! Connections that listend accepts, each for a process of its own.
//!
//! A connection is an instance for as long as it lasts: it has a slot, goes through the same states
//! and is stopped like any other. Its slot is given back when its process is gone. All paths end in
//! [`Core::end_connection`], which is why no count can be left behind.
//!
//! What was accepted is not given up: a connection whose process cannot be launched is held, and
//! tried again, while no more are taken out of the queue.

use super::backoff::History;
use super::connections::{ConnectionCounts, FAILING_AFTER, PAUSE_MAX, PAUSE_MIN};
use super::effect::Effect;
use super::event::Event;
use super::gate::Told;
use super::instance::{Held, Slot};
use super::machine::Core;
use super::state::State;
use super::time::Mono;
use super::types::{
    ConnectionId, ExitStatus, InstanceId, Next, NotAccepted, Phase, ProcessId, Refusal,
};
use crate::config::{ConnectionLimits, Overflow};
use crate::connection::Source;
use crate::plan::{Activation, ListenerId, WorkerId};
use std::sync::Arc;

impl Core {
    /// The connections of a worker; all 0 for one that accepts its own.
    pub fn connections(&self, worker: WorkerId) -> ConnectionCounts {
        let known = self.workers.get(worker);
        known.map_or_else(ConnectionCounts::default, |known| ConnectionCounts {
            live: known.connections.live,
            is_failing: known.connections.launches != History::default()
                || known.connections.totals.failures >= FAILING_AFTER,
            ..known.connections.totals
        })
    }

    fn limits(&self, worker: WorkerId) -> &ConnectionLimits {
        match &self.workers[worker].lifecycle.activation {
            Activation::PerConnection(limits) => limits,
            // Asked only of those.
            Activation::Eager | Activation::OnDemand { .. } => &ConnectionLimits::NONE,
        }
    }

    /// Takes one client out of a queue.
    pub(super) fn accept(&mut self, worker: WorkerId, (listener, socket): (ListenerId, u32)) {
        let connection = self.ctx.ids.connection();
        self.workers[worker].connections.under_way += 1;
        self.accepting.insert(connection, worker);
        self.ctx.outbox.push(Effect::Accept {
            listener,
            socket,
            connection,
        });
    }

    /// The worker that a connection is being accepted for.
    fn accept_is_over(&mut self, connection: ConnectionId) -> Option<WorkerId> {
        let Some(worker) = self.accepting.remove(&connection) else {
            self.ctx.ignore();
            return None;
        };
        self.workers[worker].connections.under_way -= 1;
        self.touched.push(worker);
        Some(worker)
    }

    pub(super) fn accepted(&mut self, connection: ConnectionId, source: Source) {
        let Some(worker) = self.accept_is_over(connection) else {
            return;
        };
        self.is_it_gone(worker);
        let rate = self.limits(worker).rate;
        let known = &mut self.workers[worker];
        known.gate.recent.count(self.ctx.now, rate);
        known.connections.exhausted = 0;
        known.connections.totals.accepted += 1;
        let known = &self.workers[worker];
        // A reload may have taken away who was to serve it.
        let serves = matches!(known.lifecycle.activation, Activation::PerConnection(_));
        if self.ctx.phase != Phase::Running || known.removed || !serves {
            return self.ctx.outbox.push(Effect::Close { connection });
        }
        let known = &self.workers[worker];
        let of_source = known.connections.sources.get(&source).copied();
        let of_source = of_source.unwrap_or_default();
        let limits = self.limits(worker);
        let why = match (limits.max, limits.max_per_source) {
            (Some(max), _) if known.connections.live >= max => Refusal::Connections { max },
            (_, Some(max)) if of_source >= max => Refusal::OfSource { source, max },
            _ => return self.serve(worker, connection, source),
        };
        self.refuse(worker, connection, why);
    }

    fn refuse(&mut self, worker: WorkerId, connection: ConnectionId, why: Refusal) {
        let known = &mut self.workers[worker];
        known.connections.totals.refused += 1;
        let (gate, now) = (&mut known.gate, self.ctx.now);
        let full = match why {
            Refusal::Connections { max } => {
                let is_told = gate.told_full.again(now);
                is_told.then_some(Event::ConnectionsFull {
                    worker,
                    max,
                    overflow: Overflow::Close,
                })
            }
            Refusal::OfSource { source, max } => {
                let is_told = gate.told_source.again(now);
                is_told.then_some(Event::SourceFull {
                    worker,
                    source,
                    max,
                })
            }
        };
        if let Some(full) = full {
            self.ctx.emit(full);
        }
        self.ctx.emit(Event::ConnectionRefused {
            worker,
            connection,
            why,
        });
        self.ctx.outbox.push(Effect::Close { connection });
    }

    fn serve(&mut self, worker: WorkerId, id: ConnectionId, source: Source) {
        let generation = self.workers[worker].generation;
        let connections = &mut self.workers[worker].connections;
        let instance = InstanceId {
            worker,
            index: connections.next_index,
            generation,
        };
        connections.next_index = connections.next_index.wrapping_add(1);
        connections.live += 1;
        *connections.sources.entry(source).or_default() += 1;
        let live = connections.live;
        let known = &self.workers[worker];
        let life = Arc::clone(&known.lifecycle);
        let slot = Slot {
            connection: Some(Held {
                id,
                source,
                open: true,
            }),
            ..Slot::new(instance, known.edition, life, self.ctx.now)
        };
        let index = self.take_slot(slot);
        self.spawn(index);
        let limits = self.limits(worker);
        if let (Some(max), Overflow::Wait) = (limits.max, limits.overflow)
            && live >= max
            && self.workers[worker].gate.told_full.again(self.ctx.now)
        {
            let overflow = Overflow::Wait;
            self.ctx.emit(Event::ConnectionsFull {
                worker,
                max,
                overflow,
            });
        }
    }

    pub(super) fn not_accepted(&mut self, connection: ConnectionId, why: NotAccepted) {
        let Some(worker) = self.accept_is_over(connection) else {
            return;
        };
        self.is_it_gone(worker);
        match why {
            NotAccepted::Gone => {}
            NotAccepted::Exhausted { errno } if self.ctx.phase == Phase::Running => {
                let known = &mut self.workers[worker];
                let factor = 1_u32.checked_shl(known.connections.exhausted);
                let pause = PAUSE_MIN.saturating_mul(factor.unwrap_or(u32::MAX));
                let again_in = pause.min(PAUSE_MAX);
                known.connections.exhausted = known.connections.exhausted.saturating_add(1);
                if known.gate.told_exhausted.again(self.ctx.now) {
                    self.ctx.emit(Event::AcceptPaused {
                        worker,
                        errno,
                        again_in,
                    });
                }
                self.shut_until(worker, self.ctx.now + again_in);
            }
            NotAccepted::Exhausted { .. } => {}
        }
    }

    /// The process has the connection now: listend has no more to do with it.
    pub(super) fn is_served(&mut self, index: usize) {
        let slot = &mut self.slots[index];
        let Some(held) = &mut slot.connection else {
            return;
        };
        let connection = held.id;
        let open = std::mem::take(&mut held.open);
        let worker = slot.instance.worker;
        self.workers[worker].connections.launches = History::default();
        self.touched.push(worker);
        if open {
            self.ctx.outbox.push(Effect::Close { connection });
        }
    }

    /// When a connection that is served from now on has had its time.
    pub(super) fn time_out_at(&self, now: Mono, index: usize) -> Option<Mono> {
        let slot = &self.slots[index];
        slot.connection.as_ref()?;
        let timeout = self.limits(slot.instance.worker).timeout?;
        Some(now + timeout)
    }

    /// What is served is given as long as a new connection would be, from its own start on.
    pub(super) fn new_time_outs(&mut self, worker: WorkerId) {
        for index in 0..self.slots.len() {
            let slot = &self.slots[index];
            let is_one = slot.connection.is_some() && slot.instance.worker == worker;
            if let State::Running { process, since, .. } = slot.state
                && is_one
            {
                let until = self.time_out_at(since, index);
                self.slots[index].state = State::Running {
                    process,
                    since,
                    until,
                };
                self.reschedule(index);
            }
        }
    }

    pub(super) fn connection_timed_out(&mut self, index: usize, process: ProcessId) {
        let instance = self.slots[index].instance;
        let timeout = self.limits(instance.worker).timeout.unwrap_or_default();
        self.ctx.emit(Event::ConnectionTimedOut {
            instance,
            process,
            timeout,
        });
        self.stop_instance(index);
    }

    /// What becomes of a connection that has no process yet. Of several that fail together only the
    /// first counts, and the others wait as long as it does.
    pub(super) fn after_launch_failure_of_connection(&mut self, index: usize) -> Next {
        let worker = self.slots[index].instance.worker;
        let known = &mut self.workers[worker];
        let restart = &known.lifecycle.restart;
        if let Some(until) = known
            .connections
            .held_until
            .filter(|until| *until > self.ctx.now)
        {
            return Next::RestartIn(until.since(self.ctx.now));
        }
        // However often: the client waits, and there is nobody to give up for it.
        let delay = known.connections.launches.delayed(self.ctx.now, restart, 0);
        known.connections.held_until = Some(self.ctx.now + delay);
        Next::RestartIn(delay)
    }

    /// What the end of a connection's process says about its worker.
    pub(super) fn connection_ended(&mut self, index: usize, status: ExitStatus, failed: bool) {
        let instance = self.slots[index].instance;
        let known = &mut self.workers[instance.worker];
        let failures = &mut known.connections.totals.failures;
        *failures = if failed {
            failures.saturating_add(1)
        } else {
            0
        };
        let failures = *failures;
        if failures >= FAILING_AFTER && known.gate.told_failing.again(self.ctx.now) {
            self.ctx.emit(Event::ConnectionsFailing {
                instance,
                failures,
                status,
            });
        }
    }

    /// What was wrong is not held against what the worker is from now on.
    pub(super) fn forgive_connections(&mut self, worker: WorkerId) {
        let known = &mut self.workers[worker];
        known.connections.totals.failures = 0;
        known.gate.told_failing = Told::default();
    }

    /// Forgets a connection, and what it counted for.
    pub(super) fn end_connection(&mut self, index: usize) {
        let slot = &mut self.slots[index];
        let Some(held) = slot.connection.take() else {
            return;
        };
        let worker = slot.instance.worker;
        if held.open {
            let connection = held.id;
            self.ctx.outbox.push(Effect::Close { connection });
        }
        self.become_state(index, State::Stopped);
        self.vacant.push(index);
        let connections = &mut self.workers[worker].connections;
        connections.live -= 1;
        if let Some(count) = connections.sources.get_mut(&held.source) {
            *count -= 1;
            if *count == 0 {
                connections.sources.remove(&held.source);
            }
        }
        self.touched.push(worker);
        self.is_it_gone(worker);
    }
}
