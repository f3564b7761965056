//! One life of a daemon: random steps, and what must hold after each.

use crate::sim::random::{Rng, SECOND, lifecycle, signal, stop_scope};
use crate::sim::seeds::Trace;
use crate::sim::workers::Seen;
use crate::sim::workers::kernel::Proc;
use crate::sim::workers::shadow::{Expected, Shadow};
use listend::core::{
    Core, DaemonEvent, Effect, Ending, Event, FailureReason, Input, InstanceEvent, InstanceId,
    Mono, ProcessEvent, ProcessId, Revision, Scope, State, Task, WhenDone, WorkerEvent,
};
use listend::plan::Lifecycle;
use listend::stage::{LaunchFailure, Stage};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

const SIGKILL: i32 = 9;
const SIGCONT: i32 = 18;
const EAGAIN: i32 = 11;

/// One life of a daemon, from its start to its exit.
pub(crate) struct Life {
    pub(crate) rng: Rng,
    pub(crate) trace: Trace,
    pub(crate) now: Mono,
    pub(crate) core: Core,
    pub(crate) workers: Vec<Lifecycle>,
    pub(crate) processes: BTreeMap<ProcessId, Proc>,
    /// Every process that was ever spawned, to tell the core about again.
    pub(crate) gone: Vec<ProcessId>,
    pub(crate) shadows: BTreeMap<InstanceId, Shadow>,
    /// Answers to `Spawn` that are still on their way.
    pub(crate) answers: VecDeque<Input>,
    pub(crate) started: bool,
    pub(crate) stop_at: Option<Mono>,
    pub(crate) hurried: bool,
    /// The stops the core told about; each kind once.
    pub(crate) announced: Vec<DaemonEvent>,
    pub(crate) closed: bool,
    pub(crate) exited: bool,
    pub(crate) stage: usize,
    pub(crate) seen: Seen,
}

impl Life {
    pub(crate) fn new(mut rng: Rng, trace: Trace) -> Life {
        let workers: Vec<_> = (0..1 + rng.below(3)).map(|_| lifecycle(&mut rng)).collect();
        let stage = rng.below(100) as usize;
        Life {
            core: Core::new(workers.clone(), WhenDone::Hold),
            rng,
            trace,
            now: Mono(SECOND),
            workers,
            processes: BTreeMap::new(),
            gone: Vec::new(),
            shadows: BTreeMap::new(),
            answers: VecDeque::new(),
            started: false,
            stop_at: None,
            hurried: false,
            announced: Vec::new(),
            closed: false,
            exited: false,
            stage,
            seen: Seen::default(),
        }
    }

    /// Lives for at most so many steps; returns how many are left, and the numbers to go on with.
    pub(crate) fn live(mut self, mut steps: u32) -> (u32, Rng, Seen) {
        if !self.rng.one_in(20) {
            self.give(Input::Start);
        }
        let stop_in = self.rng.below(u64::from(steps) * 3 / 2 + 1) as u32;
        let mut after_life = 20;
        while steps > 0 && after_life > 0 {
            steps -= 1;
            if steps == stop_in {
                self.give(Input::Stop);
            }
            self.step();
            // Nothing more comes of a life in which all have failed, or that is over.
            let over = |state| matches!(state, State::Failed { .. } | State::Stopped);
            if self.core.instances().all(|(_, state)| over(state)) {
                after_life -= 1;
            }
        }
        self.drain();
        self.seen.ignored = self.core.ignored_inputs();
        (steps, self.rng, self.seen)
    }

    fn step(&mut self) {
        match self.rng.below(100) {
            0..25 => self.pass_time(),
            25..40 => self.give(Input::Tick),
            40..85 => self.kernel(),
            85..90 => self.nonsense(),
            90..91 => {
                for _ in 0..self.rng.below(20) {
                    self.give(Input::AddressesChanged);
                }
            }
            91..92 => {
                // A storm: everything that can happen to anyone, at one moment.
                for _ in 0..self.processes.len() * 3 {
                    self.kernel();
                }
            }
            92..93 if self.stop_at.is_some() && self.rng.one_in(4) => {
                // Somebody leans on Ctrl-C.
                for _ in 0..=self.rng.below(3) {
                    self.give(Input::Stop);
                }
            }
            93..94 if self.rng.one_in(10) => self.give(Input::Start),
            _ => self.answer(),
        }
        // Effects may lie about while more happens.
        if !self.rng.one_in(5) {
            self.take_effects(u64::MAX);
        } else {
            let some = self.rng.below(3);
            self.take_effects(some);
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

    pub(crate) fn give(&mut self, input: Input) {
        if self.trace == Trace::Print {
            println!("{:>16} > {input:?}", self.now.0);
        }
        match input {
            Input::Start if self.stop_at.is_none() => self.started = true,
            Input::Stop if self.stop_at.is_none() => {
                self.stop_at = Some(self.now);
                for (_, state) in self.core.instances() {
                    if let State::Starting { .. } = state {
                        self.seen.stops_while_starting += 1;
                    }
                }
            }
            Input::Stop => {
                self.seen.hurried += u64::from(!self.hurried && !self.closed);
                self.hurried = true;
            }
            _ => {}
        }
        self.core.handle(self.now, input.clone());
        self.check(&input);
    }

    fn check(&mut self, input: &Input) {
        if let Err(wrong) = self.core.check_invariants() {
            panic!("after {input:?}: {wrong}");
        }
        let mut earliest: Option<Mono> = None;
        for (instance, state) in self.core.instances() {
            let expected = self
                .shadows
                .get_mut(&instance)
                .and_then(|s| s.expected.take());
            if let Some(mut expected) = expected {
                if self.stop_at.is_some() {
                    expected = Expected::Stopped;
                }
                match (expected, state) {
                    (Expected::Backoff { from, to }, State::Backoff { until })
                        if from <= until && until <= to =>
                    {
                        self.seen.restarts += 1;
                        let restart = &self.workers[instance.worker.0 as usize].restart;
                        assert!(until >= self.now + restart.backoff_min, "restarts too soon");
                    }
                    (Expected::Failed, State::Failed { .. })
                    | (Expected::Stopped, State::Stopped) => {}
                    _ => panic!("{instance:?} is {state:?}, not {expected:?}, after {input:?}"),
                }
            }
            let due = match state {
                State::Backoff { until } => Some(until),
                State::Starting {
                    ending: Some(Ending::Graceful { kill_at }),
                    ..
                }
                | State::Stopping {
                    ending: Ending::Graceful { kill_at },
                    ..
                } => kill_at,
                _ => None,
            };
            earliest = [earliest, due].into_iter().flatten().min();
            if self.started || self.stop_at.is_some() {
                assert!(state != State::Waiting, "{instance:?} was left behind");
            }
        }
        assert_eq!(self.core.deadline(), earliest);
        if *input == Input::Tick {
            assert!(
                self.core.deadline().is_none_or(|at| at > self.now),
                "still due after Tick: the loop would spin"
            );
        }
    }

    pub(crate) fn take_effects(&mut self, mut at_most: u64) {
        while at_most > 0
            && let Some(effect) = self.core.next_effect()
        {
            at_most -= 1;
            if self.trace == Trace::Print {
                println!("{:>16}   < {effect:?}", self.now.0);
            }
            assert!(!self.exited, "{effect:?} after Exit");
            self.perform(effect);
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::LookForEvidence { .. }
            | Effect::Bind { .. }
            | Effect::Repair { .. }
            | Effect::WatchAddresses { .. }
            | Effect::Answer { .. }
            | Effect::Unbind { .. }
            | Effect::Retire { .. } => {
                panic!("{effect:?}: there are no listeners in this life");
            }
            Effect::Watch { .. }
            | Effect::Unwatch { .. }
            | Effect::Accept { .. }
            | Effect::Close { .. }
            | Effect::LookForClients { .. } => {
                panic!("{effect:?}, and every worker of this life is eager");
            }
            Effect::Spawn {
                process,
                instance,
                revision,
                task,
                connection: _,
            } => {
                assert_eq!((revision, task), (Revision(1), Task::Program));
                assert_eq!(instance.generation, 1);
                assert!(
                    self.started && self.stop_at.is_none(),
                    "spawned after a stop"
                );
                assert!(
                    self.processes.values().all(|p| p.instance != instance),
                    "{instance:?} has a process already"
                );
                let deaf = self.rng.one_in(4);
                self.processes
                    .insert(process, Proc::new(instance, deaf, self.now));
                let answer = if self.rng.one_in(10) {
                    let (stage, errno) = self.rng.pick(&[
                        (Stage::Fork, EAGAIN),
                        (Stage::Prepare, 2),
                        (Stage::RuntimeDirectory, 13),
                    ]);
                    let detail = 0;
                    let failure = LaunchFailure {
                        stage,
                        errno,
                        detail,
                    };
                    Input::LaunchFailed { process, failure }
                } else {
                    Input::Spawned { process }
                };
                self.answers.push_back(answer);
                // As a rule it is answered at once.
                if !self.rng.one_in(4) {
                    while !self.answers.is_empty() {
                        self.answer();
                    }
                }
            }
            Effect::Signal {
                process,
                signal: number,
                scope,
            } => self.signal(process, number, scope),
            Effect::CloseListeners => {
                assert!(
                    self.processes.values().all(|p| p.exit_told),
                    "workers are left"
                );
                assert!(!self.closed);
                self.closed = true;
            }
            Effect::Exit { code } => {
                assert_eq!(code, 0);
                assert!(self.closed && self.stop_at.is_some());
                self.exited = true;
            }
            Effect::Emit(event) => self.heard(event),
        }
    }

    fn signal(&mut self, process: ProcessId, number: i32, scope: Scope) {
        // It may be gone by the time the effect is taken, but the core must have known it.
        assert!(
            self.gone.contains(&process) || self.processes.get(&process).is_some_and(|p| p.known),
            "{process:?} does not exist"
        );
        let Some(proc) = self.processes.get_mut(&process) else {
            return;
        };
        let lifecycle = &self.workers[proc.instance.worker.0 as usize];
        let since = [self.stop_at, proc.main_told].into_iter().flatten().min();
        let since = since.expect("no signal before a stop or an end");
        if number == SIGKILL {
            assert_eq!(scope, Scope::Group);
            assert!(!proc.killed, "killed twice");
            assert!(
                self.hurried
                    || lifecycle
                        .stop_timeout
                        .is_some_and(|t| self.now >= since + t),
                "SIGKILL before its time"
            );
            proc.killed = true;
            if proc.exit.is_none() {
                proc.exit = Some(signal(SIGKILL));
                proc.exec.get_or_insert(Ok(()));
            }
        } else if number == SIGCONT {
            assert!(proc.asked, "SIGCONT follows the stop signal");
        } else {
            assert_eq!(number, lifecycle.stop_signal);
            assert_eq!(scope, stop_scope(lifecycle, proc.rest_due));
            assert!(proc.exec_told, "a signal before exec may be lost");
            assert!(!proc.asked, "asked twice");
            assert!(proc.rest_due || self.stop_at.is_some(), "asked unasked");
            proc.rest_due = false;
            proc.asked = true;
        }
    }

    fn heard(&mut self, event: Event) {
        match event {
            Event::Process(_, _, ProcessEvent::StopTimedOut { .. }) => self.seen.timeouts += 1,
            Event::Instance(
                _,
                InstanceEvent::Failed {
                    reason: FailureReason::CrashLoop { .. },
                    ..
                },
            ) => self.seen.crash_loops += 1,
            Event::Daemon(
                event @ (DaemonEvent::StopRequested { .. } | DaemonEvent::StopHurried { .. }),
            ) => {
                let kind = std::mem::discriminant(&event);
                let said = |earlier: &DaemonEvent| std::mem::discriminant(earlier) == kind;
                assert!(!self.announced.iter().any(said), "{event:?} came before");
                self.announced.push(event);
            }
            Event::Worker(_, WorkerEvent::Failed) => self.seen.failed_workers += 1,
            _ => {}
        }
    }

    /// The end: whatever state things are in, a stop leads to Exit.
    fn drain(&mut self) {
        if self.stop_at.is_none() {
            self.give(Input::Stop);
        }
        for round in 0..400 {
            self.take_effects(u64::MAX);
            self.answer();
            if self.exited && self.processes.is_empty() {
                break;
            }
            for _ in 0..50 {
                self.kernel();
                self.take_effects(u64::MAX);
            }
            if round == 200 {
                // Those that may take for ever and are deaf.
                self.give(Input::Stop);
            }
            if let Some(at) = self.core.deadline() {
                self.now = self.now.max(at);
            }
            self.give(Input::Tick);
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
        assert_eq!(self.core.next_effect(), None, "an effect after Exit");
        assert!(
            self.processes.is_empty(),
            "not reaped: {:?}",
            self.processes
        );
    }
}
