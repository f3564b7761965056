//! Whole lives of a daemon: the simulation of tests/it/sim, whose random numbers are the bytes of the input.
#![no_main]
#![allow(
    dead_code,
    unused_imports,
    reason = "the tests of the simulation are not run here"
)]

#[path = "../../tests/it/sim/mod.rs"]
mod sim;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    sim::one_life(bytes);
});
