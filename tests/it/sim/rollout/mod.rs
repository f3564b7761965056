//! Rollouts, readiness, hooks and reloads against a made-up kernel: random lives with made-up
//! processes, definitions, operators and time.
//!
//! What must hold is told here a second time, without a look at how the core does it: whom a new
//! instance may replace and when, what a rollback leaves behind, what is never started again, and
//! that everything comes to rest once the programs behave.

mod ask;
mod check;
mod drain;
mod kernel;
mod life;
mod scenarios;
mod seen;
mod world;

use crate::sim::random::Rng;
use crate::sim::seeds::{Tally, Trace, every};
use life::Life;
use seen::Seen;

const STEPS: u32 = 2000;
/// How long one life is at most.
const LIFE: u32 = 250;

#[test]
fn nothing_is_lost_in_a_rollout_and_everything_comes_to_rest() {
    every(run);
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
