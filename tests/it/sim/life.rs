//! One life of a daemon: the core, the clock, the processes of the made-up kernel, and what the shell
//! was asked and has not done. What a life is about is said by its [`Grammar`].

use crate::sim::kernel::Proc;
use crate::sim::random::{Rng, SECOND};
use crate::sim::seeds::{Tally, Trace, every, seen};
use listend::core::{
    ConnectionId, Core, DaemonEvent, Effect, Event, ExitStatus, Input, InstanceId, Mono, ProcessId,
    Revision, Snapshot, State, Task,
};
use listend::plan::{Lifecycle, ListenerId, SocketKey, WorkerId};
use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::fmt::Debug;
use std::mem::Discriminant;
use std::time::Duration;

/// The steps of one seed, in as many lives as they last for.
const STEPS: u32 = 2000;
/// More rounds than anything takes that can come up at one moment.
const AT_ONCE: usize = 5000;
/// More moments than anything takes until it rests: at worst 96 clients wait, of whom one is accepted
/// in ten seconds, and cool-downs take a minute.
const MOMENTS: usize = 2000;

seen! {
    rests: "ends that left others of the process group",
    exit_first: "exits before the news of the exec",
    killed_late: "processes killed after their stop timeout",
    stop_timed_out: "stops that took too long",
    stop_lazy: "stops with effects not taken",
    hurried: "stops that were hurried",
    held_up: "times that something was late",
    rested: "lives that came to rest",
    survived: "times that another process went on",
    unseen: "ends that nobody saw",
    nonsense: "inputs that made no sense",
}

/// What a life is about: which workers there are, what happens to them, and what must hold.
pub(crate) trait Grammar: Sized {
    /// What there is to know of a process beside what the kernel knows.
    type Role: Debug + Clone;
    type Seen: Tally;
    /// How many steps one life takes at most.
    const LIFE: u32;
    /// Of ten launches, how many get to their program, and with those that say why they did not.
    const LAUNCHES: [u64; 2];
    /// The error numbers of those.
    const ERRORS: &'static [i32];
    /// Of ten chances, in how many the exec is told of before the program does anything.
    const TOLD: u64;
    /// Whether the shell does everything at once, or takes effects later and answers at once.
    const AT_ONCE: bool;
    /// How many more ticks may be due at the moment of one.
    const TICKS: u32;

    fn new(rng: &mut Rng) -> (Self, Core);
    /// What happens before the start.
    fn begin(_life: &mut Life<Self>) {}
    fn step(life: &mut Life<Self>, which: u64);
    /// Whether nothing more comes of it.
    fn is_over(_life: &Life<Self>) -> bool {
        false
    }
    /// A stop is about to come.
    fn before_stop(_life: &mut Life<Self>) {}
    /// All steps are done, and nobody has asked for a stop.
    fn after_steps(_life: &mut Life<Self>) {}
    /// Whether everything has come to rest, and what must hold then.
    fn rests(life: &Life<Self>) -> bool;
    fn check_rest(life: &Life<Self>);
    /// Time is about to go on while everything comes to rest.
    fn next_moment(_life: &mut Life<Self>) {}
    /// What must hold at the end.
    fn check_end(_life: &Life<Self>) {}

    /// Notes what an input means, before the core hears of it.
    fn before(_life: &mut Life<Self>, _input: &Input) {}
    /// What must hold after it.
    fn check(life: &mut Life<Self>, heard: &Heard<'_>);
    /// What must hold when everything that the core wanted is done, if that is at once.
    fn check_done(_life: &mut Life<Self>) {}
    /// The shell does what the core wanted then, if it may be wanted.
    fn wants(life: &mut Life<Self>, effect: &Effect, at: Mono);
    /// A process that may be started.
    fn spawn(life: &mut Life<Self>, spawn: &Spawn) -> Self::Role;
    /// Whether there is a reason to send a process the stop signal, or SIGKILL.
    fn may_stop(life: &Life<Self>, id: ProcessId, proc: &Proc<Self::Role>, at: Mono) -> bool;
    fn may_kill(life: &Life<Self>, proc: &Proc<Self::Role>, at: Mono) -> bool {
        let since = [proc.asked, life.stop_at, proc.main_told];
        let since = since.into_iter().flatten().min();
        let since = since.expect("killed without being asked");
        let timeout = life.own.lifecycle(proc).stop_timeout;
        timeout.is_some_and(|timeout| at >= since + timeout)
    }
    /// Another signal than those.
    fn signal(_life: &mut Life<Self>, process: ProcessId, signal: i32) {
        panic!("{signal} for {process:?}");
    }
    fn answer(life: &mut Life<Self>, due: Due);

    /// By which terms a process lives.
    fn lifecycle(&self, proc: &Proc<Self::Role>) -> &Lifecycle;
    /// A running program does what it is there for; whether it did anything.
    fn works(life: &mut Life<Self>, process: ProcessId, fate: u64) -> bool;
    /// It is about to be told that a process runs its program.
    fn runs(_life: &mut Life<Self>, _process: ProcessId) {}
    /// It is about to be told that nothing is left of a process.
    fn ended(life: &mut Life<Self>, process: ProcessId, proc: &Proc<Self::Role>);
    /// Clients that wait are told of; whether there are any.
    fn tell_of_clients(_life: &mut Life<Self>) -> bool {
        false
    }
    /// Another process goes on, and nothing has happened yet.
    fn survived(_life: &mut Life<Self>) {}
    /// What a crash takes away.
    fn lost(_life: &mut Life<Self>) {}
    /// A connection that is over.
    fn stale(_life: &mut Life<Self>) -> Option<ConnectionId> {
        None
    }
}

/// An input, and what came of it.
pub(crate) struct Heard<'a> {
    pub(crate) input: &'a Input,
    /// The instances before it.
    pub(crate) before: &'a [(InstanceId, State)],
    /// Everything that is wanted, with what was wanted before and not taken.
    pub(crate) all: &'a [Effect],
    /// What is wanted because of the input.
    pub(crate) wanted: &'a [Effect],
    /// It is a tick at which nothing is done yet, because others are heard first.
    pub(crate) is_held_up: bool,
}

/// [`Effect::Spawn`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spawn {
    pub(crate) process: ProcessId,
    pub(crate) instance: InstanceId,
    pub(crate) revision: Revision,
    pub(crate) task: Task,
    pub(crate) connection: Option<ConnectionId>,
}

/// Something that the core waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    Bind(ListenerId),
    Repair(ListenerId, SocketKey),
    Evidence(ProcessId),
    Look(WorkerId),
    Use(WorkerId),
    Accept(ConnectionId),
}

/// How kernel, workers and clients behave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    /// Anything happens.
    Wild,
    /// Workers take nothing and end at once, or this goes wrong all the time.
    Useless(Misery),
    /// Workers do what they should.
    Good,
}

/// What goes wrong all the time.
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
pub(crate) struct Life<G: Grammar> {
    pub(crate) rng: Rng,
    pub(crate) trace: Trace,
    pub(crate) now: Mono,
    /// Of those that were not held up.
    pub(crate) last_tick: Mono,
    /// Until when nothing that is due is done, because something was late.
    pub(crate) held_up_until: Mono,
    /// How many ticks came at this moment because it was due again.
    ticks: u32,
    /// For a moment the shell takes nothing.
    dawdles: bool,
    /// Nothing else in here is the core's: another one can go on with the rest.
    pub(crate) core: Core,
    /// What another process would go on from.
    pub(crate) written: Snapshot,
    /// That is brought up to date and compared with all there is after each input, which takes long, and
    /// else when another process goes on.
    pub(crate) compares: bool,
    pub(crate) processes: BTreeMap<ProcessId, Proc<G::Role>>,
    /// Those that are over, to tell the core about again.
    pub(crate) gone: Vec<ProcessId>,
    pub(crate) last_process: Option<ProcessId>,
    pub(crate) bound: BTreeSet<ListenerId>,
    pub(crate) watched: BTreeSet<(ListenerId, SocketKey)>,
    pub(crate) due: VecDeque<Due>,
    /// Effects that were taken, each with the time it was wanted at.
    pub(crate) todo: VecDeque<(Effect, Mono)>,
    /// The times of the effects that were not taken.
    pub(crate) stamps: VecDeque<Mono>,
    pub(crate) mood: Mood,
    pub(crate) started: bool,
    pub(crate) stop_at: Option<Mono>,
    pub(crate) hurried: bool,
    pub(crate) closed: bool,
    pub(crate) exited: bool,
    /// The stops that the core told about; each kind once.
    pub(crate) announced: HashSet<Discriminant<DaemonEvent>>,
    pub(crate) counts: Seen,
    pub(crate) seen: G::Seen,
    pub(crate) own: G,
}

/// Lives through every seed.
pub(crate) fn every_seed<G: Grammar>() {
    every(|seed, trace| {
        let mut seen = <(Seen, G::Seen)>::default();
        let (mut steps, mut rng) = (STEPS, Rng::from_seed(seed));
        while steps > 0 {
            let (left, next, this) = Life::<G>::new(rng, trace).live(steps);
            seen.add(&this);
            (steps, rng) = (left, next);
        }
        seen
    });
}

/// Lives once, as the bytes say.
pub(crate) fn one<G: Grammar>(bytes: &[u8]) {
    let rng = Rng::from_tape(bytes);
    Life::<G>::new(rng, Trace::Quiet).live(bytes.len().min(STEPS as usize) as u32 + 1);
}

impl<G: Grammar> Life<G> {
    fn new(mut rng: Rng, trace: Trace) -> Life<G> {
        let (own, core) = G::new(&mut rng);
        let compares = rng.one_in(48);
        Life {
            rng,
            trace,
            now: Mono(SECOND),
            last_tick: Mono(0),
            held_up_until: Mono(0),
            ticks: 0,
            dawdles: false,
            core,
            written: Snapshot::default(),
            compares,
            processes: BTreeMap::new(),
            gone: Vec::new(),
            last_process: None,
            bound: BTreeSet::new(),
            watched: BTreeSet::new(),
            due: VecDeque::new(),
            todo: VecDeque::new(),
            stamps: VecDeque::new(),
            mood: Mood::Wild,
            started: false,
            stop_at: None,
            hurried: false,
            closed: false,
            exited: false,
            announced: HashSet::new(),
            counts: Seen::default(),
            seen: G::Seen::default(),
            own,
        }
    }

    /// Lives for at most so many steps; returns how many are left, and the numbers to go on with.
    fn live(mut self, steps: u32) -> (u32, Rng, (Seen, G::Seen)) {
        let mut left = steps.min(G::LIFE);
        let unused = steps - left;
        G::begin(&mut self);
        if !self.rng.one_in(20) {
            self.give(Input::Start);
            self.work();
        }
        let stop_in = self.rng.below(u64::from(left) * 3 / 2) as u32;
        let dawdles = self.rng.below(6) as u32;
        let mut after_life = 20;
        while left > 0 && after_life > 0 {
            left -= 1;
            self.dawdles = (0..dawdles).contains(&left.wrapping_sub(stop_in));
            if left == stop_in {
                G::before_stop(&mut self);
                self.give(Input::Stop);
            }
            self.step();
            after_life -= u32::from(G::is_over(&self));
        }
        if self.stop_at.is_none() {
            self.give(Input::Start);
            self.work();
            G::after_steps(&mut self);
            if !self.rng.one_in(4) {
                self.come_to_rest();
            }
        }
        self.end();
        (unused + left, self.rng, (self.counts, self.seen))
    }

    fn step(&mut self) {
        match self.rng.below(100) {
            0..15 => self.pass_time(),
            15..28 => self.give(Input::Tick),
            28..53 => self.kernel(),
            53..56 => self.nonsense(),
            // A storm: everything that can happen to anyone, at one moment.
            56 => (0..self.processes.len() * 3).for_each(|_| self.kernel()),
            // Somebody leans on Ctrl-C.
            57 if self.stop_at.is_some() && self.rng.one_in(4) => {
                (0..=self.rng.below(3)).for_each(|_| self.give(Input::Stop));
            }
            58 if self.rng.one_in(10) => self.give(Input::Start),
            59 => (0..self.rng.below(20)).for_each(|_| self.give(Input::AddressesChanged)),
            60..68 => self.answer(),
            which => G::step(self, which),
        }
        // Effects may lie about while more happens.
        let some = self.rng.below(3);
        let at_most = match (self.dawdles, self.rng.one_in(5)) {
            (true, _) => 0,
            (_, true) => some,
            _ => u64::MAX,
        };
        self.take_effects(at_most);
        self.work();
        if (self.started || self.stop_at.is_some()) && self.rng.one_in(500) {
            self.survive();
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

    /// The only way to the core.
    pub(crate) fn give(&mut self, input: Input) {
        let is_lazy =
            !G::AT_ONCE && self.mood == Mood::Wild && (self.dawdles || self.rng.one_in(6));
        self.hand(input, is_lazy);
    }

    /// Gives an input; if the shell is lazy it takes nothing of what the core wants.
    pub(crate) fn hand(&mut self, input: Input, is_lazy: bool) {
        if self.trace == Trace::Print {
            println!("{:>16} > {input:?}", self.now.0);
        }
        let before: Vec<(InstanceId, State)> = self.core.instances().collect();
        self.note(&input);
        self.note_hold_up();
        let is_held_up = input == Input::Tick && self.now < self.held_up_until;
        self.core.handle(self.now, input.clone());
        if let Err(wrong) = self.core.check_invariants() {
            panic!("after {input:?}: {wrong}");
        }
        if self.compares {
            self.write();
        }
        let mut peek = is_lazy.then(|| self.core.clone());
        let from = peek.as_mut().unwrap_or(&mut self.core);
        let wanted: Vec<Effect> = std::iter::from_fn(|| from.next_effect()).collect();
        // A stop takes back some of what nobody has taken, and says so first.
        if input == Input::Stop {
            let is_new = |effect: &Effect| {
                matches!(
                    effect,
                    Effect::Emit(Event::Daemon(
                        DaemonEvent::StopRequested { .. } | DaemonEvent::StopHurried { .. }
                    ))
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
        let heard = Heard {
            input: &input,
            before: &before,
            all: &wanted,
            wanted: &wanted[new..],
            is_held_up,
        };
        if is_held_up {
            assert_eq!(heard.wanted, [], "although others were not heard");
            let next = self.core.deadline();
            assert!(next.is_none_or(|at| at >= self.held_up_until));
        }
        G::check(self, &heard);
        if !is_lazy {
            self.todo
                .extend(wanted.into_iter().zip(self.stamps.drain(..)));
        }
        if G::AT_ONCE && !is_lazy {
            self.work();
            G::check_done(self);
        }
        if input == Input::Tick {
            if !is_held_up {
                self.last_tick = self.now;
            }
            self.check_deadline();
        }
    }

    /// Notes whether something is done late, so that others are heard first: for as long again and a second at
    /// most, once.
    fn note_hold_up(&mut self) {
        let Some(due) = self.core.deadline() else {
            return;
        };
        let late = self.now.since(due);
        if due > self.held_up_until && late > Duration::from_millis(50) {
            self.held_up_until = self.now + late.min(Duration::from_secs(1));
            self.counts.held_up += 1;
        }
    }

    /// What is done at a tick can be due at once again, such as a stop that may take no time; but
    /// not over and over.
    fn check_deadline(&mut self) {
        if self.core.deadline().is_some_and(|at| at <= self.now) {
            let again = self.ticks < G::TICKS;
            assert!(again, "still due after Tick: the loop would spin");
            self.ticks += 1;
            self.give(Input::Tick);
        }
        self.ticks = 0;
    }

    fn note(&mut self, input: &Input) {
        G::before(self, input);
        match input {
            Input::Start if self.stop_at.is_none() => self.started = true,
            Input::Stop if self.stop_at.is_none() => {
                self.counts.stop_lazy += u64::from(!self.stamps.is_empty());
                self.stop_at = Some(self.now);
            }
            Input::Stop => {
                self.counts.hurried += u64::from(!self.hurried && !self.closed);
                self.hurried = true;
            }
            _ => {}
        }
    }

    /// Takes so many of the effects that lie about.
    pub(crate) fn take_effects(&mut self, at_most: u64) {
        for _ in 0..at_most {
            let Some(effect) = self.core.next_effect() else {
                return;
            };
            let at = self.stamps.pop_front().expect("each has its time");
            self.todo.push_back((effect, at));
        }
    }

    /// Does what was taken.
    pub(crate) fn work(&mut self) {
        while let Some((effect, at)) = self.todo.pop_front() {
            self.perform(effect, at);
        }
    }

    /// Takes everything that lies about, and does it.
    pub(crate) fn catch_up(&mut self) {
        self.take_effects(u64::MAX);
        self.work();
    }

    /// Gives one of the answers that are due; they come in any order.
    pub(crate) fn answer(&mut self) {
        if !self.due.is_empty() {
            let which = self.rng.below(self.due.len() as u64) as usize;
            let due = self.due.remove(which).expect("below the length");
            G::answer(self, due);
        }
    }

    /// Runs everything that can happen at this moment.
    pub(crate) fn settle(&mut self) {
        for _ in 0..AT_ONCE {
            if !self.anything_happens() {
                return;
            }
        }
        panic!("it spins: {:#?}", self.core);
    }

    /// Everything that can happen happens once; whether there was anything.
    fn anything_happens(&mut self) -> bool {
        self.catch_up();
        let mut any = !self.due.is_empty();
        while !self.due.is_empty() {
            self.answer();
            self.catch_up();
        }
        for process in self.processes.keys().copied().collect::<Vec<_>>() {
            any |= self.happens(process);
            self.catch_up();
        }
        any |= G::tell_of_clients(self);
        if self.core.deadline().is_some_and(|at| at <= self.now) {
            any = true;
            self.give(Input::Tick);
            self.catch_up();
        }
        any
    }

    /// All behave well, and time goes on to where the core wants to be woken, and by a second at
    /// most: everything must come to rest.
    fn come_to_rest(&mut self) {
        self.mood = Mood::Good;
        for _ in 0..MOMENTS {
            self.settle();
            if G::rests(self) {
                G::check_rest(self);
                self.counts.rested += 1;
                return;
            }
            G::next_moment(self);
            let soon = self.now + Duration::from_secs(1);
            let next = self.core.deadline().map_or(soon, |at| at.min(soon));
            self.wake(next);
        }
        panic!("it never rests: {:#?}", self.core);
    }

    fn wake(&mut self, at: Mono) {
        self.now = self.now.max(at);
        self.give(Input::Tick);
        self.catch_up();
    }

    /// The end: whatever state things are in, a stop leads to Exit.
    fn end(&mut self) {
        self.mood = [Mood::Wild, Mood::Good][usize::from(self.rng.one_in(3))];
        if self.stop_at.is_none() {
            G::before_stop(self);
            self.give(Input::Stop);
        }
        for round in 0..400 {
            self.catch_up();
            if self.exited && self.processes.is_empty() {
                break;
            }
            for _ in 0..50 {
                self.answer();
                self.kernel();
                self.catch_up();
            }
            if round == 200 {
                // Those that may take for ever and are deaf.
                self.give(Input::Stop);
            }
            self.wake(self.core.deadline().unwrap_or(self.now));
        }
        assert!(self.exited, "it never ends: {:#?}", self.core);
        for input in [
            Input::Start,
            Input::Stop,
            Input::Tick,
            Input::AddressesChanged,
        ] {
            self.give(input);
        }
        self.take_effects(u64::MAX);
        assert!(self.todo.is_empty(), "{:?} after Exit", self.todo);
        assert!(self.processes.is_empty(), "left: {:?}", self.processes);
        G::check_end(self);
    }
}
