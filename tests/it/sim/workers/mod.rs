//! The core against a made-up kernel: random lives of a daemon, with the time made up as well.
//!
//! A shadow of the rules (restart policy, delay, crash-loop limit) is kept here independently and
//! compared after each step.

mod kernel;
mod life;
mod shadow;

use crate::sim::random::{Rng, SECOND};
use crate::sim::seeds::{Tally, Trace, every};
use life::Life;
use listend::config::Restart;
use listend::core::{Core, Effect, ExitStatus, Input, InstanceId, Mono, State, WhenDone};
use listend::plan::{Lifecycle, WorkerId};
use listend::stage::Stage;

const STEPS: u32 = 2000;

#[test]
fn every_seed_keeps_the_rules() {
    every(run);
}

/// The steps of one seed, in as many lives as they last for.
fn run(seed: u64, trace: Trace) -> Seen {
    let mut seen = Seen::default();
    let (mut steps, mut rng) = (STEPS, Rng(seed));
    while steps > 0 {
        let (left, next, this) = Life::new(rng, trace).live(steps);
        seen.add(&this);
        (steps, rng) = (left, next);
    }
    seen
}

/// How often the interesting things happened.
#[derive(Debug, Default)]
struct Seen {
    stages: [u64; Stage::ALL.len()],
    crash_loops: u64,
    timeouts: u64,
    hurried: u64,
    exit_first: u64,
    restarts: u64,
    ignored: u64,
    stops_while_starting: u64,
    failed_workers: u64,
    rests: u64,
}

impl Tally for Seen {
    fn add(&mut self, other: &Seen) {
        for (mine, theirs) in self.stages.iter_mut().zip(other.stages) {
            *mine += theirs;
        }
        self.crash_loops += other.crash_loops;
        self.timeouts += other.timeouts;
        self.hurried += other.hurried;
        self.exit_first += other.exit_first;
        self.restarts += other.restarts;
        self.ignored += other.ignored;
        self.stops_while_starting += other.stops_while_starting;
        self.failed_workers += other.failed_workers;
        self.rests += other.rests;
    }

    fn list(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("crash loops", self.crash_loops),
            ("timeouts", self.timeouts),
            ("hurried stops", self.hurried),
            ("exits before the exec status", self.exit_first),
            ("restarts", self.restarts),
            ("ignored inputs", self.ignored),
            ("stops while starting", self.stops_while_starting),
            ("failed workers", self.failed_workers),
            ("ends that left others of the group", self.rests),
        ]
    }

    fn check(&self, _seeds: u64) {
        assert!(self.stages.iter().all(|count| *count > 0), "{self:?}");
        for (what, count) in self.list() {
            assert!(count > 20, "only {count} {what}");
        }
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
        let now = Mono(round * SECOND);
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
