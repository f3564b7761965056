//! The core against a made-up kernel: random lives of a daemon, with the time made up as well.
//!
//! A shadow of the rules (restart policy, delay, crash-loop limit) is kept here independently and
//! compared after each step. `SIM_SEED=n cargo test --test it sim::workers:: -- --nocapture` replays one seed
//! and prints every step of it; `SIM_SEEDS=n` tries n seeds.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a trace is for whoever runs the test"
)]

mod kernel;
mod life;
mod shadow;

use crate::sim::random::{Rng, SECOND};
use life::Life;
use listend::config::Restart;
use listend::core::{Core, Effect, ExitStatus, Input, InstanceId, Mono, State, WhenDone};
use listend::plan::{Lifecycle, WorkerId};
use listend::stage::Stage;

const SEEDS: u64 = 300;
const STEPS: u32 = 2000;

#[test]
fn every_seed_keeps_the_rules() {
    if let Ok(seed) = std::env::var("SIM_SEED") {
        let seed = seed.parse().expect("SIM_SEED is a number");
        run(seed, Trace::Print);
        return;
    }
    let mut seen = Seen::default();
    let seeds = std::env::var("SIM_SEEDS")
        .map_or(SEEDS, |seeds| seeds.parse().expect("SIM_SEEDS is a number"));
    for seed in 0..seeds {
        let guard = NameTheSeed(seed);
        seen.add(&run(seed, Trace::Quiet));
        std::mem::forget(guard);
    }
    println!("{seen:?}");
    // A simulation that never gets to the interesting places proves nothing.
    assert!(seen.stages.iter().all(|count| *count > 0), "{seen:?}");
    for (what, count) in [
        ("crash loops", seen.crash_loops),
        ("timeouts", seen.timeouts),
        ("hurried stops", seen.hurried),
        ("exits before the exec status", seen.exit_first),
        ("restarts", seen.restarts),
        ("ignored inputs", seen.ignored),
        ("stops while starting", seen.stops_while_starting),
        ("failed workers", seen.failed_workers),
        ("ends that left others of the group", seen.rests),
    ] {
        assert!(count > 20, "only {count} {what}");
    }
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

/// Says which seed to replay when a check fails.
struct NameTheSeed(u64);

impl Drop for NameTheSeed {
    fn drop(&mut self) {
        eprintln!("replay with SIM_SEED={}", self.0);
    }
}

/// Whether every step is printed.
#[derive(Clone, Copy, PartialEq)]
enum Trace {
    Print,
    Quiet,
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

impl Seen {
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
