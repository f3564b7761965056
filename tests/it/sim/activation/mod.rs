//! Workers that clients start, and connections, against a made-up kernel: random lives with made-up
//! queues, clients, processes and time.
//!
//! What must hold is told here a second time, without a look at how the core does it: who may be
//! accepted, who must be refused, who may be started, and above all that no client waits for ever.

mod check;
mod drain;
mod kernel;
mod life;
mod perform;
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
fn no_client_waits_for_ever_and_no_limit_is_passed() {
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
