//! The core against made-up kernels: random lives, with the time made up as well.
//!
//! `SIM_SEED=n cargo test --test it sim::workers -- --nocapture` replays one seed and prints every step
//! of it; `SIM_SEEDS=n` tries n seeds.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a trace is for whoever runs the test"
)]

mod activation;
mod random;
mod rollout;
mod seeds;
mod workers;
