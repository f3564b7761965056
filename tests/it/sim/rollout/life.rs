//! One life of a daemon: random steps, and the made-up shell that does what the core wants.

use crate::sim::random::{Rng, SECOND};
use crate::sim::rollout::kernel::Proc;
use crate::sim::rollout::seen::Seen;
use crate::sim::rollout::world::{SHARED, WORKERS, Worker, definition, lives};
use crate::sim::seeds::Trace;
use listend::config::Presence;
use listend::connection::Source;
use listend::core::{
    ConnectionId, Core, Effect, Event, Input, InstanceEvent, InstanceId, ListenerEvent,
    ListenerLife, Missing, Mono, NotAccepted, ProcessEvent, ProcessId, Repaired, State, Ticket,
    Waiting, WhenDone, WorkerEvent,
};
use listend::plan::{ListenerId, WorkerId};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// Something that the core waits for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Due {
    Bind(ListenerId),
    Repair(ListenerId, u32),
    Evidence(ProcessId),
    Look(WorkerId),
    Accept(ConnectionId),
}

/// What was answered to a request so far.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Asked {
    pub(crate) done: u32,
    pub(crate) of: u32,
    pub(crate) is_over: bool,
}

/// One life of a daemon, from its start to its exit.
pub(crate) struct Life {
    pub(crate) rng: Rng,
    pub(crate) trace: Trace,
    pub(crate) now: Mono,
    pub(crate) last_tick: Mono,
    pub(crate) core: Core,
    pub(crate) workers: Vec<Worker>,
    pub(crate) listeners: BTreeMap<ListenerId, ListenerLife>,
    pub(crate) bound: BTreeSet<ListenerId>,
    pub(crate) watched: BTreeSet<ListenerId>,
    pub(crate) processes: BTreeMap<ProcessId, Proc>,
    /// The one of which the end was told last.
    pub(crate) ended: Option<(ProcessId, Proc)>,
    pub(crate) last_process: Option<ProcessId>,
    /// Since when who is ready, as seen from here.
    pub(crate) ready: BTreeMap<InstanceId, Mono>,
    /// Whose command before the start went well.
    pub(crate) prepared: BTreeSet<InstanceId>,
    /// Who is to be cleaned up after; whether its program has run.
    pub(crate) uncleaned: BTreeMap<InstanceId, bool>,
    /// What was cleaned up after before all of it was told.
    pub(crate) cleaned: BTreeSet<ProcessId>,
    /// Who has to get somewhere before everything is up.
    pub(crate) awaited: BTreeSet<InstanceId>,
    pub(crate) due: VecDeque<Due>,
    pub(crate) asked: BTreeMap<Ticket, Asked>,
    pub(crate) next_ticket: u64,
    pub(crate) replanning: bool,
    pub(crate) started: bool,
    pub(crate) start_noted: bool,
    pub(crate) is_up: bool,
    pub(crate) stop_at: Option<Mono>,
    pub(crate) hurried: bool,
    pub(crate) closed: bool,
    pub(crate) exited: bool,
    /// Programs and hooks do what they should.
    pub(crate) calm: bool,
    pub(crate) seen: Seen,
}

impl Life {
    pub(crate) fn new(mut rng: Rng, trace: Trace) -> Life {
        let workers: Vec<Worker> = (0..1 + rng.below(3))
            .map(|_| Worker::new(definition(&mut rng), rng.one_in(3)))
            .collect();
        let all = lives(&mut rng, &workers);
        let lifecycles = workers.iter().map(|worker| worker.life().clone());
        let core = Core::new(lifecycles.collect(), WhenDone::Hold)
            .with_listeners(all.iter().map(|(_, life)| life.clone()).collect());
        let ids = all.iter().map(|(id, _)| *id);
        Life {
            rng,
            trace,
            now: Mono(SECOND),
            last_tick: Mono(0),
            core,
            workers,
            bound: ids.clone().collect(),
            watched: ids.collect(),
            listeners: all.into_iter().collect(),
            processes: BTreeMap::new(),
            ended: None,
            last_process: None,
            ready: BTreeMap::new(),
            prepared: BTreeSet::new(),
            uncleaned: BTreeMap::new(),
            cleaned: BTreeSet::new(),
            awaited: BTreeSet::new(),
            due: VecDeque::new(),
            asked: BTreeMap::new(),
            next_ticket: 0,
            replanning: false,
            started: false,
            start_noted: false,
            is_up: false,
            stop_at: None,
            hurried: false,
            closed: false,
            exited: false,
            calm: false,
            seen: Seen::default(),
        }
    }

    /// Lives for so many steps; returns the numbers to go on with.
    pub(crate) fn live(mut self, steps: u32) -> (Rng, Seen) {
        for id in (0..=WORKERS).map(ListenerId) {
            if self.listeners[&id].presence != Presence::Required && self.rng.one_in(3) {
                self.bound.remove(&id);
                let why = self.rng.pick(&[Missing::Address, Missing::Other]);
                self.give(Input::ListenerMissing { listener: id, why });
            }
        }
        self.give(Input::Start);
        for _ in 0..steps {
            self.step();
            if self.exited {
                break;
            }
        }
        self.drain();
        (self.rng, self.seen)
    }

    fn step(&mut self) {
        match self.rng.below(100) {
            0..20 => self.pass_time(),
            20..35 => self.give(Input::Tick),
            35..74 => self.kernel(),
            74..82 => self.answer(),
            82..86 => self.client(),
            86..92 => self.operate(),
            92..95 => self.reload(),
            95..97 => self.trouble(),
            97..98 => self.nonsense(),
            98 if self.rng.one_in(6) => self.stop(),
            _ if self.stop_at.is_some() && self.rng.one_in(8) => self.stop(),
            _ => self.kernel(),
        }
    }

    fn pass_time(&mut self) {
        let by = match self.rng.below(6) {
            0 => 0,
            1 => self.rng.below(1_000_000),
            2 => self.rng.below(SECOND),
            3 => self.rng.below(20 * SECOND),
            _ => match self.core.deadline() {
                // Exactly there, just before, or just after.
                Some(at) => (at.0 + self.rng.below(3)).saturating_sub(self.now.0 + 1),
                None => self.rng.below(100_000_000),
            },
        };
        self.now = self.now + Duration::from_nanos(by);
    }

    /// Somebody asks for the end, sometimes before what is to be done was done.
    pub(crate) fn stop(&mut self) {
        if self.stop_at.is_none() {
            let rolls = (0..self.workers.len() as u32).any(|id| self.core.is_rolling(WorkerId(id)));
            self.seen.stop_rolling += u64::from(rolls);
            let hooks = self.processes.values().any(|proc| proc.hook().is_some());
            self.seen.stop_hooks += u64::from(hooks);
            if self.rng.one_in(2) {
                self.seen.stop_lazy += 1;
                let ticket = self.ticket();
                self.lazily(ticket);
            }
            self.stop_at = Some(self.now);
        } else {
            self.seen.hurried += u64::from(!self.hurried && !self.closed);
            self.hurried = true;
        }
        self.give(Input::Stop);
    }

    /// Hands in an input, and does at once what the core wants.
    pub(crate) fn give(&mut self, input: Input) {
        if self.trace == Trace::Print {
            println!("{:>16} > {input:?}", self.now.0);
        }
        if input == Input::Start {
            self.started = true;
        }
        self.core.handle(self.now, input.clone());
        let wanted = self.take(&format!("{input:?}"));
        self.perform_all(wanted);
        if input == Input::Tick {
            self.last_tick = self.now;
            self.check_deadline();
        }
    }

    /// What is done at a tick can be due at once again, such as a stop that may take no time; but
    /// not over and over.
    fn check_deadline(&mut self) {
        for _ in 0..5 {
            if self.core.deadline().is_none_or(|at| at > self.now) {
                return;
            }
            self.core.handle(self.now, Input::Tick);
            let wanted = self.take("another tick");
            self.perform_all(wanted);
        }
        panic!("still due after Tick: the loop would spin");
    }

    /// Everything that the core wants, after it was checked.
    pub(crate) fn take(&mut self, after: &str) -> Vec<Effect> {
        let wanted: Vec<Effect> = std::iter::from_fn(|| self.core.next_effect()).collect();
        for effect in &wanted {
            if self.trace == Trace::Print {
                println!("{:>16}   < {effect:?}", self.now.0);
            }
        }
        if let Err(wrong) = self.core.check_invariants() {
            panic!("after {after}: {wrong}");
        }
        self.check(&wanted);
        wanted
    }

    pub(crate) fn perform_all(&mut self, wanted: Vec<Effect>) {
        for effect in wanted {
            self.perform(effect);
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Spawn { .. } | Effect::Signal { .. } | Effect::Answer { .. } => {}
            Effect::LookForEvidence { process } => self.due.push_back(Due::Evidence(process)),
            Effect::Bind { listener } => {
                assert!(!self.bound.contains(&listener), "{listener:?} is bound");
                self.due.push_back(Due::Bind(listener));
            }
            Effect::Unbind { listener } => {
                assert!(self.bound.remove(&listener), "{listener:?} is not bound");
            }
            Effect::Repair { listener, socket } => {
                self.due.push_back(Due::Repair(listener, socket.0));
            }
            Effect::Watch { listener, .. } => drop(self.watched.insert(listener)),
            Effect::Unwatch { listener, .. } => drop(self.watched.remove(&listener)),
            Effect::Accept { connection, .. } => self.due.push_back(Due::Accept(connection)),
            Effect::LookForClients { worker } => self.due.push_back(Due::Look(worker)),
            Effect::Close { .. } | Effect::WatchAddresses { .. } => {}
            Effect::Retire { .. } => {}
            Effect::CloseListeners => self.closed = true,
            Effect::Exit { code } => {
                assert_eq!(code, 0);
                assert!(self.closed && self.stop_at.is_some());
                self.exited = true;
            }
            Effect::Emit(_) => {}
        }
    }

    /// Gives one of the answers that are due; they come in any order.
    pub(crate) fn answer(&mut self) {
        if self.due.is_empty() {
            return;
        }
        let which = self.rng.below(self.due.len() as u64) as usize;
        let fails = !self.calm && self.rng.one_in(3);
        match self.due.remove(which).expect("below the length") {
            Due::Bind(listener) if self.bound.contains(&listener) => {}
            Due::Bind(listener) if fails => {
                let why = self.rng.pick(&[Missing::Address, Missing::Other]);
                self.give(Input::ListenerMissing { listener, why });
            }
            Due::Bind(listener) => {
                self.bound.insert(listener);
                self.watched.insert(listener);
                self.give(Input::ListenerBound { listener });
            }
            Due::Repair(listener, socket) if fails => {
                self.give(Input::RepairFailed {
                    listener,
                    socket: listend::plan::SocketKey(socket),
                });
            }
            Due::Repair(listener, socket) => {
                let by = self
                    .rng
                    .pick(&[Repaired::SameSocket, Repaired::AnotherSocket]);
                self.give(Input::ListenerRepaired {
                    listener,
                    socket: listend::plan::SocketKey(socket),
                    by,
                });
            }
            Due::Evidence(process) => self.answer_evidence(process),
            Due::Look(worker) => {
                let waiting = match fails {
                    true => Waiting::TheSame,
                    false => self.rng.pick(&[Waiting::Nobody, Waiting::Others]),
                };
                self.give(Input::Looked { worker, waiting });
            }
            Due::Accept(connection) if fails => {
                let errno = 24;
                let exhausted = NotAccepted::Exhausted { errno };
                let why = self.rng.pick(&[NotAccepted::Gone, exhausted]);
                self.give(Input::NotAccepted { connection, why });
            }
            Due::Accept(connection) => {
                let source = Source::User(1000);
                self.give(Input::Accepted { connection, source });
            }
        }
    }

    /// A client comes.
    fn client(&mut self) {
        let listener = ListenerId(self.rng.below(u64::from(WORKERS) + 1) as u32);
        let (bound, watched) = (&self.bound, &self.watched);
        if bound.contains(&listener) && watched.contains(&listener) && !self.closed {
            self.give(Input::ClientWaits {
                listener,
                socket: listend::plan::SocketKey(0),
            });
        }
    }

    /// Something happens to a listener.
    fn trouble(&mut self) {
        let listener = self.rng.pick(&[ListenerId(0), ListenerId(1), SHARED]);
        if self.rng.one_in(2) {
            self.give(Input::AddressesChanged);
        } else if self.bound.contains(&listener) {
            let socket = 0;
            self.give(Input::ListenerDamaged {
                listener,
                socket: listend::plan::SocketKey(socket),
            });
        }
    }

    /// Whether an instance of a worker runs by this state.
    pub(crate) fn is_ready(state: State) -> bool {
        matches!(state, State::Running { .. })
    }

    /// Notes what the core told.
    pub(crate) fn count(&mut self, event: Event) {
        let seen = &mut self.seen;
        let count = match event {
            Event::Process(_, _, ProcessEvent::Ready { .. }) => &mut seen.ready,
            Event::Process(_, _, ProcessEvent::StartTimedOut { .. }) => &mut seen.start_timed_out,
            Event::Process(_, _, ProcessEvent::WatchdogTimedOut { .. }) => &mut seen.watchdog,
            Event::Process(_, _, ProcessEvent::StopTimedOut { .. }) => &mut seen.stop_timed_out,
            Event::Process(_, _, ProcessEvent::ReadinessHidden) => &mut seen.hidden,
            Event::Instance(_, InstanceEvent::Failed { .. }) => &mut seen.failed,
            Event::Listener(_, ListenerEvent::Refuses) => &mut seen.refusing,
            Event::Listener(_, ListenerEvent::Bound { .. }) => &mut seen.bound_again,
            Event::Instance(_, InstanceEvent::Refreshed) => &mut seen.refreshed,
            Event::Process(_, _, ProcessEvent::Reloaded { .. }) => &mut seen.reloaded,
            Event::Worker(_, WorkerEvent::Activated { .. }) => &mut seen.activated,
            _ => return,
        };
        *count += 1;
    }
}
