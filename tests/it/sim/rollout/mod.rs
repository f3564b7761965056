//! Rollouts, readiness, hooks and reloads against a made-up kernel: random lives with made-up
//! processes, definitions, operators and time.
//!
//! What must hold is told here a second time, without a look at how the core does it: whom a new
//! instance may replace and when, what a rollback leaves behind, what is never started again, and
//! that everything comes to rest once the programs behave. `SIM_SEED=n cargo test --test
//! sim_rollout -- --nocapture` replays one seed and prints every step of it; `SIM_SEEDS=n` tries n
//! seeds.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a trace is for whoever runs the test"
)]

mod ask;
mod check;
mod drain;
mod kernel;
mod life;
mod scenarios;
mod seen;
mod world;

use crate::sim::random::Rng;
use life::Life;
use seen::Seen;

const SEEDS: u64 = 300;
const STEPS: u32 = 2000;
/// How long one life is at most.
const LIFE: u32 = 250;

#[test]
fn nothing_is_lost_in_a_rollout_and_everything_comes_to_rest() {
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
    if seeds >= SEEDS {
        for (what, count) in seen.list() {
            assert!(count > 20, "only {count} of {what}: {seen:?}");
        }
    }
}

/// The steps of one seed, in as many lives as they last for.
fn run(seed: u64, trace: Trace) -> Seen {
    let mut seen = Seen::default();
    let (mut steps, mut rng) = (STEPS, Rng(seed));
    while steps > 0 {
        let length = steps.min(LIFE);
        let (next, this) = Life::new(rng, trace).live(length);
        seen.add(&this);
        steps -= length;
        rng = next;
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
