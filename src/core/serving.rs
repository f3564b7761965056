//! Connections that listend accepts, each for a process of its own.
//!
//! A connection is an instance for as long as it lasts: it has a run, goes through the same states
//! and is stopped like any other. Its run is given back when its process is gone. All paths end in
//! `Worker::end_connection`, which is why no count can be left behind.
//!
//! What was accepted is not given up: a connection whose process cannot be launched is held, and
//! tried again, while no more are taken out of the queue.

use super::backoff::History;
use super::connections::{ConnectionCounts, FAILING_AFTER, PAUSE_MAX, PAUSE_MIN};
use super::ctx::Ctx;
use super::effect::Effect;
use super::event::{Event, ProcessEvent, WorkerEvent};
use super::gate::Told;
use super::run::{Connection, Run};
use super::state::State;
use super::time::Mono;
use super::types::{
    ConnectionId, ExitStatus, InstanceId, Next, NotAccepted, Phase, ProcessId, Refusal, RunId,
};
use super::worker::Worker;
use crate::config::{ConnectionLimits, Overflow};
use crate::connection::Source;
use crate::plan::{Activation, Lifecycle, ListenerId, SocketKey};
use std::sync::Arc;

fn limits_in(life: &Lifecycle) -> &ConnectionLimits {
    match &life.activation {
        Activation::PerConnection(limits) => limits,
        // Asked only of those.
        Activation::Eager | Activation::OnDemand { .. } => &ConnectionLimits::NONE,
    }
}

impl Worker {
    /// How many it has had.
    pub(super) fn connection_counts(&self) -> ConnectionCounts {
        ConnectionCounts {
            live: self.connections.live,
            is_failing: self.connections.launches != History::default()
                || self.connections.totals.failures >= FAILING_AFTER,
            ..self.connections.totals
        }
    }

    fn limits(&self) -> &ConnectionLimits {
        limits_in(&self.lifecycle)
    }

    /// The limits of a connection: those of its worker or, if that accepts none any more, those that it was accepted
    /// under.
    fn limits_of(&self, id: RunId) -> &ConnectionLimits {
        let life = match self.accepts_connections() {
            true => &self.lifecycle,
            false => &self.runs[id].life,
        };
        limits_in(life)
    }

    /// Takes one client out of a queue.
    pub(super) fn accept(&mut self, ctx: &mut Ctx, (listener, socket): (ListenerId, SocketKey)) {
        let connection = ctx.ids.connection();
        self.connections.under_way += 1;
        ctx.accepting.insert(connection, self.id);
        ctx.outbox.push(Effect::Accept {
            listener,
            socket,
            connection,
        });
    }

    pub(super) fn accepted(&mut self, ctx: &mut Ctx, connection: ConnectionId, source: Source) {
        self.connections.under_way -= 1;
        ctx.stir(self.id);
        self.tell_if_gone(ctx);
        let rate = self.limits().rate;
        self.gate.recent.count(ctx.now, rate);
        self.connections.exhausted = 0;
        self.connections.totals.accepted += 1;
        // A reload may have taken away who was to serve it.
        let serves = self.accepts_connections();
        if ctx.phase != Phase::Running || self.removed || !serves {
            return ctx.outbox.push(Effect::Close { connection });
        }
        let of_source = self.connections.sources.get(&source).copied();
        let of_source = of_source.unwrap_or_default();
        let limits = self.limits();
        let why = match (limits.max, limits.max_per_source) {
            (Some(max), _) if self.connections.live >= max => Refusal::Connections { max },
            (_, Some(max)) if of_source >= max => Refusal::OfSource { source, max },
            _ => return self.serve(ctx, connection, source),
        };
        self.refuse(ctx, connection, why);
    }

    fn refuse(&mut self, ctx: &mut Ctx, connection: ConnectionId, why: Refusal) {
        self.connections.totals.refused += 1;
        let (gate, worker) = (&mut self.gate, self.id);
        let full = match why {
            Refusal::Connections { max } => {
                let is_told = gate.told_full.again(ctx.now);
                is_told.then_some(Event::Worker(
                    worker,
                    WorkerEvent::ConnectionsFull {
                        max,
                        overflow: Overflow::Close,
                    },
                ))
            }
            Refusal::OfSource { source, max } => {
                let is_told = gate.told_source.again(ctx.now);
                is_told.then_some(Event::Worker(
                    worker,
                    WorkerEvent::SourceFull { source, max },
                ))
            }
        };
        if let Some(full) = full {
            ctx.emit(full);
        }
        ctx.emit(Event::Worker(
            self.id,
            WorkerEvent::ConnectionRefused { connection, why },
        ));
        ctx.outbox.push(Effect::Close { connection });
    }

    fn serve(&mut self, ctx: &mut Ctx, connection: ConnectionId, source: Source) {
        let index = self.connections.next_index;
        self.connections.next_index = index.wrapping_add(1);
        self.connect(ctx, index, (connection, source));
        let live = self.connections.live;
        let limits = self.limits();
        if let (Some(max), Overflow::Wait) = (limits.max, limits.overflow)
            && live >= max
            && self.gate.told_full.again(ctx.now)
        {
            let overflow = Overflow::Wait;
            ctx.emit(Event::Worker(
                self.id,
                WorkerEvent::ConnectionsFull { max, overflow },
            ));
        }
    }

    fn connect(
        &mut self,
        ctx: &mut Ctx,
        index: u32,
        (connection, source): (ConnectionId, Source),
    ) -> RunId {
        let instance = InstanceId {
            worker: self.id,
            index,
            generation: self.generation,
        };
        self.connections.live += 1;
        *self.connections.sources.entry(source).or_default() += 1;
        let life = Arc::clone(&self.lifecycle);
        let id = ctx.ids.run(self.id);
        self.runs.connect(Connection {
            run: Run::new(id, instance, self.revision, life, ctx.now),
            id: connection,
            source,
            open: true,
            over: false,
        });
        self.spawn(ctx, id);
        id
    }

    /// A connection has a process already. It counts, and its number is not given out again; or it is stopped, as it
    /// would have been with the others. `false` if no connections are accepted for this worker.
    pub(super) fn found(&mut self, ctx: &mut Ctx, index: u32, source: Source) -> bool {
        if !self.accepts_connections() {
            return false;
        }
        let next = self.connections.next_index;
        // The numbers go round.
        if index.wrapping_sub(next) < u32::MAX / 2 {
            self.connections.next_index = index.wrapping_add(1);
        }
        self.connections.totals.accepted += 1;
        let connection = ctx.ids.connection();
        let id = self.connect(ctx, index, (connection, source));
        let is_stopping = matches!(ctx.phase, Phase::Stopping | Phase::Hurried);
        if is_stopping || self.stopped || self.removed {
            self.stop_instance(ctx, id);
        }
        true
    }

    pub(super) fn not_accepted(&mut self, ctx: &mut Ctx, why: NotAccepted) {
        self.connections.under_way -= 1;
        ctx.stir(self.id);
        match why {
            NotAccepted::Gone => {}
            NotAccepted::Exhausted { errno } if ctx.phase == Phase::Running => {
                let factor = 1_u32.checked_shl(self.connections.exhausted);
                let pause = PAUSE_MIN.saturating_mul(factor.unwrap_or(u32::MAX));
                let again_in = pause.min(PAUSE_MAX);
                self.connections.exhausted = self.connections.exhausted.saturating_add(1);
                if self.gate.told_exhausted.again(ctx.now) {
                    ctx.emit(Event::Worker(
                        self.id,
                        WorkerEvent::AcceptPaused { errno, again_in },
                    ));
                }
                self.shut_until(ctx, ctx.now + again_in);
            }
            NotAccepted::Exhausted { .. } => {}
        }
        // Last: of what is gone nothing is due any more.
        self.tell_if_gone(ctx);
    }

    /// The process has the connection now: listend has no more to do with it.
    pub(super) fn note_served(&mut self, ctx: &mut Ctx, id: RunId) {
        let Some(held) = self.runs.connection_mut(id) else {
            return;
        };
        let connection = held.id;
        let open = std::mem::take(&mut held.open);
        self.connections.launches = History::default();
        ctx.stir(self.id);
        if open {
            ctx.outbox.push(Effect::Close { connection });
        }
    }

    /// When a connection that is served from now on has had its time.
    pub(super) fn time_out_at(&self, now: Mono, id: RunId) -> Option<Mono> {
        self.runs.connection(id)?;
        let timeout = self.limits_of(id).timeout?;
        Some(now + timeout)
    }

    /// What is served is given as long as a new connection would be, from its own start on.
    pub(super) fn new_time_outs(&mut self, ctx: &mut Ctx) {
        let served: Vec<RunId> = self.runs.connections().map(|one| one.run.id).collect();
        for id in served {
            if let State::Running { process, since, .. } = self.runs[id].state {
                let until = self.time_out_at(since, id);
                self.runs[id].state = State::Running {
                    process,
                    since,
                    until,
                };
                self.reschedule(ctx, id);
            }
        }
    }

    pub(super) fn connection_timed_out(&mut self, ctx: &mut Ctx, id: RunId, process: ProcessId) {
        let instance = self.runs[id].instance;
        let timeout = self.limits_of(id).timeout.unwrap_or_default();
        ctx.emit(Event::Process(
            instance,
            process,
            ProcessEvent::ConnectionTimedOut { timeout },
        ));
        self.stop_instance(ctx, id);
    }

    /// What becomes of a connection that has no process yet. Of several that fail together only the
    /// first counts, and the others wait as long as it does.
    pub(super) fn after_launch_failure_of_connection(&mut self, ctx: &mut Ctx) -> Next {
        let restart = &self.lifecycle.restart;
        if let Some(until) = self.connections.held_until.filter(|until| *until > ctx.now) {
            return Next::RestartIn(until.since(ctx.now));
        }
        // However often: the client waits, and there is nobody to give up for it.
        let delay = self.connections.launches.delayed(ctx.now, restart, 0);
        self.connections.held_until = Some(ctx.now + delay);
        Next::RestartIn(delay)
    }

    /// What the end of a connection's process says about its worker.
    pub(super) fn connection_ended(
        &mut self,
        ctx: &mut Ctx,
        id: RunId,
        status: ExitStatus,
        failed: bool,
    ) {
        let instance = self.runs[id].instance;
        let failures = &mut self.connections.totals.failures;
        *failures = if failed {
            failures.saturating_add(1)
        } else {
            0
        };
        let failures = *failures;
        if failures >= FAILING_AFTER && self.gate.told_failing.again(ctx.now) {
            ctx.emit(Event::Worker(
                self.id,
                WorkerEvent::ConnectionsFailing {
                    instance,
                    failures,
                    status,
                },
            ));
        }
    }

    /// What was wrong is not held against what the worker is from now on.
    pub(super) fn forgive_connections(&mut self) {
        self.connections.totals.failures = 0;
        self.gate.told_failing = Told::default();
    }

    /// Forgets a connection, and what it counted for.
    pub(super) fn end_connection(&mut self, ctx: &mut Ctx, id: RunId) {
        let Some(held) = self.runs.connection_mut(id) else {
            return;
        };
        held.over = true;
        let (connection, source) = (held.id, held.source);
        if held.open {
            ctx.outbox.push(Effect::Close { connection });
        }
        self.become_state(ctx, id, State::Stopped);
        self.runs.finish(id);
        let connections = &mut self.connections;
        connections.live -= 1;
        if let Some(count) = connections.sources.get_mut(&source) {
            *count -= 1;
            if *count == 0 {
                connections.sources.remove(&source);
            }
        }
        ctx.stir(self.id);
        self.tell_if_gone(ctx);
    }
}
