//! What must hold after each input.

use crate::sim::activation::Clients;
use crate::sim::activation::world::Stage;
use crate::sim::life::{Due, Heard, Life};
use listend::config::{ConnectionLimits, Overflow, Rate, RestartPolicy};
use listend::connection::Source;
use listend::core::{
    ConnectionId, Effect, Event, FailureReason, Input, InstanceEvent, InstanceId, Mono, State,
    WorkerEvent,
};
use listend::plan::{Activation, WorkerId};

const SIGKILL: i32 = 9;

impl Life<Clients> {
    pub(crate) fn check_heard(&mut self, heard: &Heard<'_>) {
        let Heard {
            input,
            before,
            wanted,
            is_held_up,
            ..
        } = *heard;
        if let Input::Accepted { connection, source } = *input {
            let known = self.own.connections.get(&connection);
            if known.is_some_and(|known| known.stage == Stage::Accepting) {
                self.check_admission(connection, source, wanted);
            }
        }
        self.check_limits();
        for id in 0..self.own.workers.len() {
            if self.somebody_waits(WorkerId(id as u32)) {
                self.own.past[id].used_at = self.now;
            }
        }
        for effect in wanted {
            if self.stop_at.is_some() {
                let starts = matches!(
                    effect,
                    Effect::Spawn { .. }
                        | Effect::Accept { .. }
                        | Effect::Watch { .. }
                        | Effect::LookForClients { .. }
                        | Effect::LookForUse { .. }
                );
                assert!(!starts, "{effect:?} after a stop");
            }
            if let Effect::Emit(event) = effect {
                self.check_event(input, event.clone(), before);
            }
        }
        self.check_starts(before, wanted);
        self.check_accepts(before, wanted);
        self.note_signals(wanted);
        if *input == Input::Tick && !is_held_up {
            self.check_timeouts();
        }
    }

    pub(crate) fn limits(&self, worker: WorkerId) -> Option<&ConnectionLimits> {
        match &self.own.workers[worker.0 as usize].activation {
            Activation::PerConnection(limits) => Some(limits),
            Activation::Eager | Activation::OnDemand { .. } => None,
        }
    }

    /// Connections of a worker that are not over: (accepts under way, the rest, the rest of one
    /// source).
    fn count(&self, worker: WorkerId, source: Source) -> (u32, u32, u32) {
        let mut counts = (0, 0, 0);
        for connection in self.own.connections.values().filter(|c| c.worker == worker) {
            match connection.stage {
                Stage::Accepting => counts.0 += 1,
                Stage::Held { .. } | Stage::Served { .. } => {
                    counts.1 += 1;
                    counts.2 += u32::from(connection.source == Some(source));
                }
                Stage::Over => {}
            }
        }
        counts
    }

    /// A connection was accepted: it must be refused exactly if there is a reason.
    fn check_admission(&mut self, id: ConnectionId, source: Source, wanted: &[Effect]) {
        let worker = self.own.connections[&id].worker;
        let (_, served, of_source) = self.count(worker, source);
        let limits = self.limits(worker).expect("it serves connections");
        let full = limits.max.is_some_and(|max| served >= max);
        let many = limits.max_per_source.is_some_and(|max| of_source >= max);
        let rate = limits.rate;
        let refuse = full || many || self.stop_at.is_some();
        let close = Effect::Close { connection: id };
        assert_eq!(
            wanted.contains(&close),
            refuse,
            "{id:?} of {source:?}: {served} are served, {of_source} of its source"
        );
        let connection = self.own.connections.get_mut(&id).expect("just seen");
        connection.stage = if refuse {
            Stage::Over
        } else {
            Stage::Held { before: false }
        };
        let asked_at = connection.asked_at;
        self.check_rate(worker, asked_at, rate);
    }

    /// Never more than allowed in any stretch of time as long as the rate's.
    fn check_rate(&mut self, worker: WorkerId, at: Mono, rate: Option<Rate>) {
        let starts = &mut self.own.past[worker.0 as usize].starts;
        starts.push(at);
        let Some(rate) = rate else { return };
        starts.sort_unstable();
        let many = rate.count as usize;
        for window in starts.windows(many + 1) {
            let apart = window[many].since(window[0]);
            assert!(
                apart >= rate.interval,
                "{} in {apart:?}: {rate:?}",
                many + 1
            );
        }
        // What is long past does not come into any window again.
        let keep = starts.len().saturating_sub(64);
        starts.drain(..keep);
    }

    fn check_limits(&self) {
        for worker in (0..self.own.workers.len() as u32).map(WorkerId) {
            let Some(limits) = self.limits(worker) else {
                continue;
            };
            let Some(max) = limits.max else { continue };
            let (accepting, served, _) = self.count(worker, Source::Unknown);
            let many = match limits.overflow {
                Overflow::Wait => accepting + served,
                Overflow::Close => served,
            };
            assert!(many <= max, "{worker:?} has {many} connections of {max}");
        }
    }

    fn check_event(&mut self, input: &Input, event: Event, before: &[(InstanceId, State)]) {
        match event {
            Event::Worker(worker, WorkerEvent::Activated { .. }) => {
                assert!(self.stop_at.is_none(), "{worker:?} is started after a stop");
                self.seen.activations += 1;
                self.check_activation(worker, before);
            }
            Event::Instance(
                instance,
                InstanceEvent::Failed {
                    reason: FailureReason::CrashLoop { crashes, interval },
                    cool_down,
                },
            ) => {
                self.seen.failed += 1;
                assert_eq!(cool_down, Some(interval), "its limit is permanent");
                let past = &mut self.own.past[instance.worker.0 as usize];
                past.has_failed = true;
                let recent = |at: Mono| self.now.since(at) <= interval;
                // Who took nobody fails with all of its pool, whichever of it crashed before.
                let all = matches!(input, Input::Looked { .. });
                let counts =
                    |(at, of): &&(Mono, InstanceId)| (all || *of == instance) && recent(*at);
                let own = past.crashes.iter().filter(counts).count();
                let idle = past.idle_ends.iter().filter(|at| recent(**at)).count();
                assert!(
                    own + idle >= crashes as usize,
                    "{crashes} crashes are told of; {own} were, and {idle} idle ends"
                );
            }
            Event::Instance(_, InstanceEvent::Failed { cool_down, .. }) => {
                assert_ne!(cool_down, None, "no client starts it ever again");
            }
            _ => {}
        }
    }

    /// A pool starts when all of it is down, and whole.
    fn check_activation(&mut self, worker: WorkerId, before: &[(InstanceId, State)]) {
        let limit = match self.own.workers[worker.0 as usize].activation {
            Activation::OnDemand { limit } => limit,
            Activation::Eager | Activation::PerConnection(_) => {
                panic!("no client starts {worker:?}")
            }
        };
        let looks = self.due.contains(&Due::Look(worker));
        assert!(!looks, "it is not known who waits");
        let mut started = 0;
        for (instance, state) in before.iter().filter(|(i, _)| i.worker == worker) {
            assert_eq!(state.process(), None, "{instance:?} was up");
            let rests = matches!(state, State::Backoff { .. });
            assert!(!rests, "{instance:?} still rests, the pool is not whole");
            let now = self.core.state(*instance).expect("it is there");
            if *state == State::Waiting {
                assert_ne!(now, State::Waiting, "{instance:?} was left out");
            }
            started += u32::from(now.process().is_some());
        }
        assert!(started > 0, "{worker:?} is said to start");
        self.seen.pools_started += u64::from(started > 1);
        let past = &mut self.own.past[worker.0 as usize];
        self.seen.cooled_down += u64::from(std::mem::take(&mut past.has_failed));
        self.check_rate(worker, self.now, limit);
    }

    /// Nobody gets a process without a client, but for a member of a pool that crashed.
    fn check_starts(&mut self, before: &[(InstanceId, State)], wanted: &[Effect]) {
        for effect in wanted {
            let Effect::Spawn {
                instance,
                connection: None,
                ..
            } = *effect
            else {
                continue;
            };
            let worker = instance.worker;
            let is_it = |effect: &Effect| matches!(effect, Effect::Emit(Event::Worker(of, WorkerEvent::Activated { .. })) if *of == worker);
            if wanted.iter().any(is_it) {
                continue;
            }
            let mut was = before.iter().filter(|(i, _)| *i == instance);
            let was = was.next().map(|(_, state)| state.clone());
            let rested = matches!(
                was,
                Some(State::Backoff { until } | State::Failed { until: Some(until), .. })
                    if until <= self.now
            );
            assert!(rested, "{was:?} started");
            let policy = self.own.workers[worker.0 as usize].restart.policy;
            assert_ne!(policy, RestartPolicy::Never, "{instance:?} is restarted");
            let mut others = before.iter().filter(|(i, _)| i.worker == worker);
            let up = others.any(|(_, state)| state.process().is_some());
            assert!(up, "{instance:?} starts without a client");
            self.seen.members_restarted += 1;
        }
    }

    /// While a connection is held nothing more is accepted.
    fn check_accepts(&self, before: &[(InstanceId, State)], wanted: &[Effect]) {
        for effect in wanted {
            let Effect::Accept {
                listener, socket, ..
            } = *effect
            else {
                continue;
            };
            let worker = self.own.sockets[self.socket((listener, socket))].users[0];
            let mut held = before.iter().filter(|(i, _)| i.worker == worker);
            let held = held.find(|(_, state)| matches!(state, State::Backoff { .. }));
            assert_eq!(held, None, "{effect:?} while one is held");
        }
    }

    /// Notes which processes the core wants to be signalled, and when.
    fn note_signals(&mut self, wanted: &[Effect]) {
        for effect in wanted {
            match *effect {
                Effect::Signal {
                    process,
                    signal: SIGKILL,
                    ..
                } => drop(self.own.killed.insert(process)),
                Effect::Signal { process, .. } => {
                    self.own.asked.entry(process).or_insert(self.now);
                }
                _ => {}
            }
        }
    }

    /// Whoever has had its time was asked to stop, and killed when that did not help.
    fn check_timeouts(&self) {
        for (id, proc) in &self.processes {
            let worker = proc.instance.worker;
            let timeout = self.limits(worker).and_then(|limits| limits.timeout);
            let overdue = timeout.is_some_and(|timeout| proc.spawned_at + timeout <= self.now);
            let killed = self.own.killed.contains(id);
            if killed || !proc.exec_told || proc.exit_told || proc.exec != Some(Ok(())) {
                continue;
            }
            let asked = self.own.asked.get(id).or(proc.main_told.as_ref());
            let late = self.own.workers[worker.0 as usize].stop_timeout;
            let late = late
                .zip(asked)
                .is_some_and(|(t, asked)| *asked + t <= self.now);
            assert!(
                !overdue || asked.is_some(),
                "{id:?} takes too long: {proc:?}"
            );
            assert!(!late, "{id:?} does not stop: {proc:?}");
        }
    }
}
