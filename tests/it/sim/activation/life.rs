//! One life of a daemon: random steps, and the way inputs and effects go.

use crate::sim::activation::kernel::Proc;
use crate::sim::activation::seen::Seen;
use crate::sim::activation::world;
use crate::sim::activation::world::{Connection, Past, Socket, World};
use crate::sim::random::{Rng, SECOND};
use crate::sim::seeds::Trace;
use listend::core::{
    ConnectionId, Core, DaemonEvent, Effect, Event, ExitStatus, Input, InstanceId, Mono, ProcessId,
    State, WhenDone,
};
use listend::plan::{Lifecycle, WorkerId};
use listend::stage::LaunchFailure;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// Something that the shell was asked and has not answered.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Answer {
    Spawned(ProcessId),
    NotSpawned(ProcessId, LaunchFailure),
    Accept(ConnectionId),
    Look(WorkerId),
}

/// How kernel, workers and clients behave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    /// Anything happens.
    Wild,
    /// Workers take nothing and end at once, launches and accepts fail.
    Useless,
    /// Workers take everybody and end well.
    Good,
}

/// What goes wrong all the time in a storm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Misery {
    /// Programs end so.
    Ends(ExitStatus),
    /// No process can be made.
    Launches,
    /// No connection can be accepted.
    Accepts,
}

/// One life of a daemon, from its start to its exit.
pub(crate) struct Life {
    pub(crate) rng: Rng,
    pub(crate) trace: Trace,
    pub(crate) now: Mono,
    pub(crate) core: Core,
    pub(crate) workers: Vec<Lifecycle>,
    pub(crate) sockets: Vec<Socket>,
    pub(crate) past: Vec<Past>,
    pub(crate) processes: BTreeMap<ProcessId, Proc>,
    pub(crate) gone: Vec<ProcessId>,
    pub(crate) connections: BTreeMap<ConnectionId, Connection>,
    pub(crate) last_connection: Option<ConnectionId>,
    pub(crate) next_client: u64,
    pub(crate) answers: VecDeque<Answer>,
    /// Effects that were taken, each with the time it was wanted at.
    pub(crate) todo: VecDeque<(Effect, Mono)>,
    /// The times of the effects that were not taken.
    pub(crate) stamps: VecDeque<Mono>,
    /// Whom the core wanted to be asked to stop, and since when.
    pub(crate) asked: BTreeMap<ProcessId, Mono>,
    /// Whom the core wanted to be killed.
    pub(crate) killed: BTreeSet<ProcessId>,
    pub(crate) mood: Mood,
    pub(crate) misery: Misery,
    pub(crate) stop_at: Option<Mono>,
    pub(crate) hurried: bool,
    pub(crate) closed: bool,
    pub(crate) exited: bool,
    pub(crate) seen: Seen,
}

impl Life {
    pub(crate) fn new(mut rng: Rng, trace: Trace) -> Life {
        let world = World::new(&mut rng);
        Life::of(world, rng, trace)
    }

    pub(crate) fn of(world: World, rng: Rng, trace: Trace) -> Life {
        let World {
            workers,
            listeners,
            sockets,
            shared,
        } = world;
        if trace == Trace::Print {
            println!("{workers:#?} {listeners:?}");
        }
        Life {
            core: Core::new(workers.clone(), WhenDone::Hold).with_listeners(listeners),
            rng,
            trace,
            now: Mono(SECOND),
            past: vec![Past::default(); workers.len()],
            workers,
            sockets,
            processes: BTreeMap::new(),
            gone: Vec::new(),
            connections: BTreeMap::new(),
            last_connection: None,
            next_client: 0,
            answers: VecDeque::new(),
            todo: VecDeque::new(),
            stamps: VecDeque::new(),
            asked: BTreeMap::new(),
            killed: BTreeSet::new(),
            mood: Mood::Wild,
            misery: Misery::Launches,
            stop_at: None,
            hurried: false,
            closed: false,
            exited: false,
            seen: Seen {
                shared: u64::from(shared),
                ..Seen::default()
            },
        }
    }

    /// Lives for so many steps; returns the numbers to go on with.
    pub(crate) fn live(mut self, steps: u32) -> (Rng, Seen) {
        if !self.rng.one_in(20) {
            self.give(Input::Start);
        }
        let stop_in = self.rng.below(u64::from(steps) * 2) as u32;
        for left in (0..steps).rev() {
            if left == stop_in {
                // It comes while clients come.
                for _ in 0..self.rng.below(6) {
                    self.arrive();
                    self.tell_of_a_client();
                    self.work();
                }
                self.give(Input::Stop);
            }
            self.step();
        }
        if self.stop_at.is_none() {
            self.give(Input::Start);
            self.work();
            if self.rng.one_in(2) {
                self.storm();
            }
            if !self.rng.one_in(4) {
                self.calm_down();
            }
        }
        self.end();
        (self.rng, self.seen)
    }

    fn step(&mut self) {
        match self.rng.below(100) {
            0..15 => self.pass_time(),
            15..25 => self.give(Input::Tick),
            25..40 => self.arrive(),
            40..43 => self.vanish(),
            43..60 => self.tell_of_a_client(),
            60..85 => self.kernel(),
            85..88 => self.nonsense(),
            88..89 => {
                for _ in 0..self.processes.len() * 3 {
                    self.kernel();
                }
            }
            89..90 if self.stop_at.is_some() && self.rng.one_in(4) => self.give(Input::Stop),
            _ => self.answer(),
        }
        // Effects may lie about while more happens.
        if !self.rng.one_in(5) {
            self.take_effects();
        }
        self.work();
    }

    fn pass_time(&mut self) {
        let by = match self.rng.below(6) {
            0 => 0,
            1 => self.rng.below(1_000_000),
            2 => self.rng.below(SECOND),
            3 => self.rng.below(5 * SECOND),
            _ => match self.core.deadline() {
                // Exactly there, just before, or just after.
                Some(at) => (at.0 + self.rng.below(3)).saturating_sub(self.now.0 + 1),
                None => self.rng.below(100_000_000),
            },
        };
        self.now = self.now + Duration::from_nanos(by);
    }

    /// Somebody comes, as a rule not alone.
    fn arrive(&mut self) {
        let socket = self.rng.below(self.sockets.len() as u64) as usize;
        for _ in 0..=self.rng.below(4) {
            self.client(socket);
        }
    }

    pub(crate) fn client(&mut self, socket: usize) {
        let client = world::Client {
            id: self.next_client,
            source: world::source(&mut self.rng),
        };
        self.next_client += 1;
        let queue = &mut self.sockets[socket].queue;
        if queue.len() < 8 {
            queue.push_back(client);
        }
    }

    fn vanish(&mut self) {
        let socket = self.rng.below(self.sockets.len() as u64) as usize;
        let socket = &mut self.sockets[socket];
        if socket.vanish && !socket.queue.is_empty() {
            let who = self.rng.below(socket.queue.len() as u64) as usize;
            socket.queue.remove(who);
            self.seen.vanished += 1;
        }
    }

    /// epoll_wait(2), which tells of any of those that are ready.
    fn tell_of_a_client(&mut self) {
        let ready = self.ready();
        if !ready.is_empty() {
            let socket = self.rng.pick(&ready);
            self.client_waits(socket);
        }
    }

    /// The watched sockets at which somebody waits.
    pub(crate) fn ready(&self) -> Vec<usize> {
        let sockets = self.sockets.iter().enumerate();
        sockets
            .filter(|(_, socket)| socket.watched && !socket.queue.is_empty())
            .map(|(index, _)| index)
            .collect()
    }

    pub(crate) fn client_waits(&mut self, socket: usize) {
        let Socket {
            listener, index, ..
        } = self.sockets[socket];
        let socket = index;
        self.give(Input::ClientWaits {
            listener,
            socket: listend::plan::SocketKey(socket),
        });
    }

    pub(crate) fn give(&mut self, input: Input) {
        if self.trace == Trace::Print {
            println!("{:>16} > {input:?}", self.now.0);
        }
        let before: Vec<(InstanceId, State)> = self.core.instances().collect();
        self.before(&input);
        self.core.handle(self.now, input.clone());
        let lazy = self.mood == Mood::Wild && self.rng.one_in(6);
        let mut wanted = Vec::new();
        if lazy {
            let mut peek = self.core.clone();
            while let Some(effect) = peek.next_effect() {
                wanted.push(effect);
            }
        } else {
            while let Some(effect) = self.core.next_effect() {
                wanted.push(effect);
            }
        }
        // A stop takes back some of what nobody has taken, and says so first.
        if input == Input::Stop {
            let is_new = |effect: &Effect| {
                let Effect::Emit(event) = effect else {
                    return false;
                };
                matches!(
                    event,
                    Event::Daemon(
                        DaemonEvent::StopRequested { .. } | DaemonEvent::StopHurried { .. }
                    )
                )
            };
            let old = wanted.iter().rposition(is_new).unwrap_or(wanted.len());
            self.stamps.resize(old, self.now);
        }
        let new = self.stamps.len();
        assert!(wanted.len() >= new, "an effect got lost");
        self.stamps.resize(wanted.len(), self.now);
        if self.trace == Trace::Print {
            for effect in &wanted[new..] {
                println!("{:>16}   < {effect:?}", self.now.0);
            }
        }
        self.check(&input, &before, &wanted[new..]);
        if !lazy {
            self.todo
                .extend(wanted.into_iter().zip(self.stamps.drain(..)));
        }
    }

    /// Takes what lies about.
    pub(crate) fn take_effects(&mut self) {
        while let Some(effect) = self.core.next_effect() {
            let at = self.stamps.pop_front().expect("each has its time");
            self.todo.push_back((effect, at));
        }
    }

    /// Does what was taken.
    pub(crate) fn work(&mut self) {
        while let Some((effect, at)) = self.todo.pop_front() {
            assert!(!self.exited, "{effect:?} after Exit");
            self.perform(effect, at);
        }
    }
}
