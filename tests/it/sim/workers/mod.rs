//! The core against a made-up kernel: random lives of a daemon, with the time made up as well.
//!
//! A shadow of the rules (restart policy, delay, crash-loop limit) is kept here independently and
//! compared after each step.

mod shadow;

use crate::sim::kernel::Proc;
use crate::sim::life::{Due, Grammar, Heard, Life, Mood, Spawn, every_seed, one};
use crate::sim::random::{Rng, SECOND, lifecycle};
use crate::sim::seeds::{Tally, seen};
use listend::config::Restart;
use listend::core::{
    Core, Effect, Ending, Event, ExitStatus, FailureReason, Input, InstanceEvent, InstanceId,
    Launch, Mono, ProcessId, Revision, State, Task, WhenDone, WorkerEvent,
};
use listend::plan::{Lifecycle, WorkerId};
use listend::stage::Stage;
use shadow::{Expected, Shadow};
use std::collections::BTreeMap;
use std::time::Duration;

pub(crate) fn one_life(tape: &[u8]) {
    one::<Workers>(tape);
}

#[test]
fn every_seed_keeps_the_rules() {
    every_seed::<Workers>();
}

seen! {
    crash_loops: "crash loops",
    restarts: "restarts",
    stops_while_starting: "stops while starting",
    failed_workers: "failed workers",
}

/// How often a launch failed in each stage.
#[derive(Debug, Default)]
pub(crate) struct Stages([u64; Stage::ALL.len()]);

impl Tally for Stages {
    fn add(&mut self, other: &Stages) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine += theirs;
        }
    }

    fn list(&self) -> Vec<(&'static str, u64)> {
        let phrases = Stage::ALL.iter().map(|stage| stage.phrase());
        phrases.zip(self.0).collect()
    }
}

/// Eager workers without listeners.
struct Workers {
    lives: Vec<Lifecycle>,
    shadows: BTreeMap<InstanceId, Shadow>,
}

impl Grammar for Workers {
    type Role = ();
    type Seen = (Seen, Stages);
    const LIFE: u32 = 2000;
    const LAUNCHES: [u64; 2] = [5, 8];
    const ERRORS: &'static [i32] = &[1, 2, 7, 11, 12, 13, 23, 24, 28, 40];
    const TOLD: u64 = 5;
    const AT_ONCE: bool = false;
    const TICKS: u32 = 0;

    fn new(rng: &mut Rng) -> (Workers, Core) {
        let lives: Vec<_> = (0..1 + rng.below(3)).map(|_| lifecycle(rng)).collect();
        let core = Core::new(lives.clone(), WhenDone::Hold);
        let shadows = BTreeMap::new();
        (Workers { lives, shadows }, core)
    }

    fn step(life: &mut Life<Workers>, _which: u64) {
        life.kernel();
    }

    /// All have failed, or are stopped.
    fn is_over(life: &Life<Workers>) -> bool {
        let over = |state| matches!(state, State::Failed { .. } | State::Stopped);
        life.core.instances().all(|(_, state)| over(state))
    }

    fn rests(life: &Life<Workers>) -> bool {
        life.core.deadline().is_none()
    }

    fn check_rest(life: &Life<Workers>) {
        for (instance, state) in life.core.instances() {
            let rests = matches!(
                state,
                State::Running { .. } | State::Stopped | State::Failed { .. }
            );
            assert!(rests, "{instance:?} is {state:?} and nothing will happen");
        }
    }

    fn before(life: &mut Life<Workers>, input: &Input) {
        if *input == Input::Stop && life.stop_at.is_none() {
            let starts = |(_, state): &(_, State)| matches!(state, State::Starting { .. });
            let starting = life.core.instances().filter(starts).count();
            life.seen.0.stops_while_starting += starting as u64;
        }
    }

    fn check(life: &mut Life<Workers>, heard: &Heard<'_>) {
        let mut earliest: Option<Mono> = None;
        for (instance, state) in life.core.instances() {
            let shadow = life.own.shadows.get_mut(&instance);
            if let Some(mut expected) = shadow.and_then(|shadow| shadow.expected.take()) {
                if life.stop_at.is_some() {
                    expected = Expected::Stopped;
                }
                match (expected, state.clone()) {
                    (Expected::Backoff { from, to }, State::Backoff { until })
                        if from <= until && until <= to =>
                    {
                        life.seen.0.restarts += 1;
                        let restart = &life.own.lives[instance.worker.0 as usize].restart;
                        assert!(until >= life.now + restart.backoff_min, "restarts too soon");
                    }
                    (Expected::Failed, State::Failed { .. })
                    | (Expected::Stopped, State::Stopped) => {}
                    _ => panic!(
                        "{instance:?} is {state:?}, not {expected:?}, after {:?}",
                        heard.input
                    ),
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
            if life.started || life.stop_at.is_some() {
                assert!(state != State::Waiting, "{instance:?} was left behind");
            }
        }
        let earliest = earliest.map(|at| at.max(life.held_up_until));
        assert_eq!(life.core.deadline(), earliest);
    }

    fn wants(life: &mut Life<Workers>, effect: &Effect, _at: Mono) {
        match effect {
            Effect::Spawn { .. }
            | Effect::Signal { .. }
            | Effect::CloseListeners
            | Effect::Exit { .. } => {}
            Effect::Emit(Event::Instance(
                _,
                InstanceEvent::Failed {
                    reason: FailureReason::CrashLoop { .. },
                    ..
                },
            )) => life.seen.0.crash_loops += 1,
            Effect::Emit(Event::Worker(_, WorkerEvent::Failed)) => life.seen.0.failed_workers += 1,
            Effect::Emit(_) => {}
            _ => panic!("{effect:?}: every worker is eager, and there are no listeners"),
        }
    }

    fn spawn(life: &mut Life<Workers>, spawn: &Spawn) {
        let instance = spawn.instance;
        assert_eq!((spawn.revision, spawn.task), (Revision(1), Task::Program));
        assert_eq!((instance.generation, spawn.connection), (1, None));
        let lives = life.started && life.stop_at.is_none();
        assert!(lives, "spawned after a stop");
        let mut others = life.processes.values();
        let twice = others.any(|proc| proc.instance == instance);
        assert!(!twice, "{instance:?} has a process already");
    }

    fn may_stop(life: &Life<Workers>, _: ProcessId, proc: &Proc<()>, _: Mono) -> bool {
        assert!(proc.asked.is_none(), "asked twice: {proc:?}");
        proc.rest_due || life.stop_at.is_some()
    }

    fn answer(_life: &mut Life<Workers>, due: Due) {
        panic!("{due:?}: there are no listeners");
    }

    fn lifecycle(&self, proc: &Proc<()>) -> &Lifecycle {
        &self.lives[proc.instance.worker.0 as usize]
    }

    /// It does nothing but to end at some time.
    fn works(life: &mut Life<Workers>, process: ProcessId, fate: u64) -> bool {
        let status = life.any_status();
        let proc = life.processes.get_mut(&process).expect("it is there");
        let ends = life.mood == Mood::Wild && fate < 4 && !proc.deaf;
        if ends {
            proc.exit = Some(status);
        }
        ends
    }

    /// Tells the shadow.
    fn ended(life: &mut Life<Workers>, _process: ProcessId, proc: &Proc<()>) {
        let (end, uptime) = match proc.exec.clone().expect("told") {
            Err(failure) => {
                life.seen.1.0[failure.stage as usize] += 1;
                (Err(failure), 0)
            }
            Ok(()) => {
                // Whether the exit was told first, although at the same time.
                let late_exec = matches!(
                    life.core.state(proc.instance),
                    Some(State::Starting {
                        launch: Launch::Exited { .. },
                        ..
                    })
                );
                let from = match proc.exec_told_at > proc.exit_told_at || late_exec {
                    true => proc.spawned_at,
                    false => proc.exec_told_at,
                };
                let uptime = proc.exit_told_at.0.saturating_sub(from.0);
                (Ok(proc.exit.expect("told")), uptime)
            }
        };
        let restart = &life.own.lives[proc.instance.worker.0 as usize].restart;
        let shadow = life.own.shadows.entry(proc.instance).or_default();
        shadow.ended(life.now, restart, end, uptime);
    }
}

#[test]
fn ten_thousand_instances_are_handled_without_looking_at_all_of_them() {
    let lifecycle = Lifecycle {
        activation: listend::plan::Activation::Eager,
        instances: 10_000,
        restart: Restart::default(),
        stop_signal: 15,
        stop_timeout: None,
        ..Lifecycle::default()
    };
    let mut core = Core::new(vec![lifecycle], WhenDone::Hold);
    core.handle(Mono(0), Input::Start);
    for round in 0..3 {
        // The first comes late.
        let now = Mono(round * 2 * SECOND);
        core.handle(now, Input::Tick);
        let now = now + Duration::from_secs(1);
        core.handle(now, Input::Tick);
        let mut spawned = Vec::new();
        while let Some(effect) = core.next_effect() {
            if let Effect::Spawn { process, .. } = effect {
                spawned.push(process);
            }
        }
        assert_eq!(spawned.len(), 10_000);
        for process in spawned {
            core.handle(now, Input::Spawned { process });
            core.handle(now, Input::ExecSucceeded { process });
            let status = ExitStatus::Code(1);
            core.handle(now, Input::Exited { process, status });
        }
    }
    core.check_invariants().expect("the indices agree");
    let last = InstanceId {
        worker: WorkerId(0),
        index: 9_999,
        generation: 1,
    };
    assert!(matches!(core.state(last), Some(State::Backoff { .. })));
}
