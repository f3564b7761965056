//! What people ask for: commands and reloads.

use crate::sim::life::Life;
use crate::sim::rollout::world::{Definition, WORKERS, Worker, definition, lives, settings};
use crate::sim::rollout::{Asked, Rollouts, Seen};
use listend::config::Ready;
use listend::core::{
    Command, Configuration, Input, InstanceId, Mono, Revision, RunRole, State, Ticket, WorkerUpdate,
};
use listend::plan::{Activation, HookTimes, Lifecycle, ListenerId, SocketKey, WorkerId};
use std::collections::BTreeSet;

impl Life<Rollouts> {
    pub(crate) fn ticket(&mut self) -> Ticket {
        let ticket = Ticket(self.own.next_ticket);
        self.own.next_ticket += 1;
        self.own.asked.insert(ticket, Asked::default());
        ticket
    }

    fn command(&mut self) -> (WorkerId, Option<u32>, Command) {
        // Sometimes one that is not there.
        let worker = WorkerId(self.rng.below(self.own.workers.len() as u64 + 1) as u32);
        let command = match self.rng.below(12) {
            0 | 1 => Command::Start,
            2 => Command::Stop,
            3..7 => Command::Restart,
            7 | 8 => Command::Scale(self.rng.below(5) as u32),
            9 => Command::Signal(10),
            10 => Command::Reset,
            _ => Command::Reload,
        };
        let index = self.rng.one_in(4).then(|| self.rng.below(4) as u32);
        if let (Some(known), Command::Stop | Command::Scale(_)) =
            (self.own.workers.get_mut(worker.0 as usize), command)
        {
            known.lessened = Some(self.now);
        }
        (worker, index, command)
    }

    pub(crate) fn operate(&mut self) {
        let ticket = self.ticket();
        let (worker, index, command) = self.command();
        self.note_command(worker, index, command);
        self.give(Input::Operate {
            ticket,
            worker,
            index,
            command,
        });
    }

    /// Asks for something, and the shell does nothing about it yet: what follows comes first.
    pub(crate) fn lazily(&mut self, ticket: Ticket) {
        let (worker, index, command) = self.command();
        self.note_command(worker, index, command);
        let input = Input::Operate {
            ticket,
            worker,
            index,
            command,
        };
        self.hand(input, true);
    }

    /// Notes what a command means.
    fn note_command(&mut self, worker: WorkerId, index: Option<u32>, command: Command) {
        let has_place = |one: InstanceId| {
            let facts = self.core.facts(one);
            facts.is_some_and(|facts| facts.role == RunRole::Instance) && Some(one.index) == index
        };
        let is_there = self.core.instances_of(worker).any(has_place);
        let Some(known) = self.own.workers.get_mut(worker.0 as usize) else {
            return;
        };
        // A rollout that it stops does not go back any more.
        if (index, command) == (None, Command::Stop)
            && self.stop_at.is_none()
            && self.started
            && !known.removed
        {
            known.from = None;
            known.trial = None;
            known.watch = None;
            known.back = false;
            // It has gone back all the same.
            known.is_reloaded = false;
            known.is_reload_watched = false;
            known.allowed = BTreeSet::from([known.current]);
        }
        // Who stops one of those that are watched has seen them.
        let stops_one = is_there && command == Command::Stop;
        if stops_one && self.stop_at.is_none() && self.started && !known.removed {
            known.watch = None;
        }
    }

    /// The configuration is read again.
    pub(crate) fn reload(&mut self) {
        let mut configuration = Configuration {
            ticket: Some(self.ticket()),
            ..Configuration::default()
        };
        self.seen.replans += 1;
        self.seen.replans_at_once += u64::from(self.own.replanning);
        for known in &mut self.own.workers {
            // Whoever waited for it was told that another has come.
            known.forget_reload();
        }
        for id in (0..WORKERS).map(WorkerId) {
            if let Some(change) = self.change(id) {
                configuration.workers.push((id, change));
            }
            let Some(known) = self.own.workers.get_mut(id.0 as usize) else {
                continue;
            };
            if !Worker::can_go_back(known.latest()) {
                configuration.final_for.insert(id);
            }
        }
        if self.rng.one_in(2) {
            let all = lives(&mut self.rng, &self.own.workers);
            for (id, life) in all {
                if self.rng.one_in(2) || life.users != self.own.listeners[&id].users {
                    self.own.listeners.insert(id, life.clone());
                    configuration.listeners.push((id, life));
                }
                if self.rng.one_in(8) {
                    configuration.touched.push(id);
                }
            }
        } else {
            let all = lives(&mut self.rng, &self.own.workers);
            for (id, life) in all {
                if life.users != self.own.listeners[&id].users {
                    self.own.listeners.insert(id, life.clone());
                    configuration.listeners.push((id, life));
                }
            }
        }
        if self.stop_at.is_none() {
            self.own.replanning = true;
            for id in &configuration.touched {
                self.bound.insert(*id);
            }
            // Whoever reads the configuration watches what clients start.
            let all = (0..=WORKERS).map(ListenerId);
            self.watched.extend(all.map(|id| (id, SocketKey(0))));
        }
        self.give(Input::Configure(Box::new(configuration)));
    }

    /// What a reload changes about a worker, if it does.
    fn change(&mut self, id: WorkerId) -> Option<WorkerUpdate> {
        let at = id.0 as usize;
        let stops = self.stop_at.is_some();
        let many = self.own.workers.len();
        let now = self.now;
        match self.own.workers.get_mut(at) {
            None if at == many && self.rng.one_in(8) && !stops => {
                let fresh = Worker::new(definition(&mut self.rng), self.rng.one_in(3));
                let life = fresh.life().clone();
                self.own.workers.push(fresh);
                Some(WorkerUpdate::Added { life: life.into() })
            }
            None => None,
            Some(_) if stops => None,
            Some(known) if known.gone => self.rng.one_in(4).then(|| {
                *known = Worker::new(definition(&mut self.rng), self.rng.one_in(3));
                let life = known.life().clone();
                WorkerUpdate::Added { life: life.into() }
            }),
            Some(known) if known.removed => None,
            Some(known) => match self.rng.below(12) {
                0..3 => {
                    let mut fresh = definition(&mut self.rng);
                    if !self.rng.one_in(4) {
                        // As a rule what starts it stays what it is.
                        fresh.life.activation = known.life().activation.clone();
                        fresh.life.instances = match fresh.life.activation {
                            Activation::PerConnection(_) => {
                                fresh.life.hooks = HookTimes::default();
                                fresh.life.ready = Ready::Started;
                                0
                            }
                            Activation::Eager | Activation::OnDemand { .. } => {
                                fresh.life.instances.max(1)
                            }
                        };
                    }
                    Some(define(known, fresh, now, &mut self.seen))
                }
                3 => {
                    let latest = known.latest();
                    let mut life = known.definitions[&latest].life.clone();
                    settings(&mut self.rng, &mut life);
                    if known.given_up.is_some() {
                        self.try_again(id, Some(&life));
                        return Some(WorkerUpdate::Settings { life: life.into() });
                    }
                    known.lessened = Some(now);
                    known.parallel = known.parallel.max(life.rollout.parallel);
                    known.min_ready = known.min_ready.min(life.rollout.min_ready);
                    known.longest = known.longest.max(life.rollout.min_ready);
                    let definition = known.definitions.get_mut(&latest).expect("it is there");
                    definition.life = life.clone();
                    Some(WorkerUpdate::Settings { life: life.into() })
                }
                4 if self.rng.one_in(3) => {
                    let of_it = |(one, state): (InstanceId, State)| {
                        one.worker == id && state.process().is_some()
                    };
                    self.seen.removed += u64::from(self.core.instances().any(of_it));
                    known.removed = true;
                    known.lessened = Some(now);
                    known.trial = None;
                    known.watch = None;
                    known.from = None;
                    known.allowed.clear();
                    Some(WorkerUpdate::Removed)
                }
                _ => {
                    self.try_again(id, None);
                    None
                }
            },
        }
    }

    /// What went back is tried again as another definition, perhaps with other settings.
    fn try_again(&mut self, id: WorkerId, settings: Option<&Lifecycle>) {
        let known = &mut self.own.workers[id.0 as usize];
        if known.given_up.is_some() {
            self.seen.tried_again += 1;
            let mut again = known.definitions[&known.latest()].clone();
            if let Some(life) = settings {
                again.life = life.clone();
            }
            define(known, again, self.now, &mut self.seen);
        }
    }
}

/// Notes another definition of a worker.
fn define(known: &mut Worker, fresh: Definition, now: Mono, seen: &mut Seen) -> WorkerUpdate {
    let revision = Revision(known.latest().0 + 1);
    let kind = |life: &Lifecycle| std::mem::discriminant(&life.activation);
    let life = fresh.life.clone();
    known.lessened = Some(now);
    known.kept.insert(revision);
    known.given_up = None;
    if kind(&life) == kind(known.life()) {
        // What goes well is known only when RolloutStarted was told.
        known.from = known.from.or(Some(known.current));
        known.allowed.insert(revision);
        known.is_reloaded = true;
    } else {
        seen.activation_changed += 1;
        known.from = None;
        known.trial = None;
        known.watch = None;
        known.back = false;
        known.degraded = false;
        known.allowed = BTreeSet::from([revision]);
    }
    known.current = revision;
    known.definitions.insert(revision, fresh);
    WorkerUpdate::Definition { life: life.into() }
}
