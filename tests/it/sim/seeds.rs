//! One seed after another, and how often the interesting things happened.

use std::fmt::Debug;

/// So many seeds come to every interesting place; SIM_SEEDS says how many are tried.
const SEEDS: u64 = 300;

/// Whether every step is printed.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Trace {
    Print,
    Quiet,
}

/// How often the interesting things happened.
pub(crate) trait Tally: Default + Debug {
    fn add(&mut self, other: &Self);
    /// Each with its name.
    fn list(&self) -> Vec<(&'static str, u64)>;

    /// A simulation that never gets to the interesting places proves nothing.
    fn check(&self, seeds: u64) {
        if seeds >= SEEDS {
            for (what, count) in self.list() {
                assert!(count > 20, "only {count} of {what}: {self:?}");
            }
        }
    }
}

impl<A: Tally, B: Tally> Tally for (A, B) {
    fn add(&mut self, other: &(A, B)) {
        self.0.add(&other.0);
        self.1.add(&other.1);
    }

    fn list(&self) -> Vec<(&'static str, u64)> {
        [self.0.list(), self.1.list()].concat()
    }
}

/// Declares `Seen`, a [`Tally`].
macro_rules! seen {
    ($($name:ident: $what:literal,)*) => {
        /// How often the interesting things happened.
        #[derive(Debug, Default, Clone)]
        pub(crate) struct Seen {
            $(pub(crate) $name: u64,)*
        }

        impl $crate::sim::seeds::Tally for Seen {
            fn add(&mut self, other: &Seen) {
                $(self.$name += other.$name;)*
            }

            fn list(&self) -> Vec<(&'static str, u64)> {
                vec![$(($what, self.$name),)*]
            }
        }
    };
}
pub(crate) use seen;

/// Says which seed to replay when a check fails.
struct NameTheSeed(u64);

impl Drop for NameTheSeed {
    fn drop(&mut self) {
        eprintln!("replay with SIM_SEED={}", self.0);
    }
}

/// Runs every seed, or prints the steps of the one that SIM_SEED names.
pub(crate) fn every<Seen: Tally>(run: impl Fn(u64, Trace) -> Seen) {
    if let Ok(seed) = std::env::var("SIM_SEED") {
        run(seed.parse().expect("SIM_SEED is a number"), Trace::Print);
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
    seen.check(seeds);
}
