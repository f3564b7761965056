//! Workers that clients start, and connections, against a made-up kernel: random lives with made-up
//! queues, clients, processes and time.
//!
//! What must hold is told here a second time, without a look at how the core does it: who may be
//! accepted, who must be refused, who may be started, and above all that no client waits for ever.
//! `SIM_SEED=n cargo test --test it sim::activation:: -- --nocapture` replays one seed and prints every
//! step of it; `SIM_SEEDS=n` tries n seeds.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a trace is for whoever runs the test"
)]

mod check;
mod drain;
mod kernel;
mod life;
mod perform;
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
fn no_client_waits_for_ever_and_no_limit_is_passed() {
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
