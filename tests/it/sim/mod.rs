//! The core against a made-up kernel: random lives, with the time made up as well.
//!
//! There is one kernel, one shell and one life ([`kernel`], [`perform`], [`life`]), and three grammars
//! ([`life::Grammar`]) of what happens in a life and what must hold: [`workers`], [`activation`] and
//! [`rollout`].
//!
//! `SIM_SEED=n cargo test --test it sim::workers -- --nocapture` replays one seed and prints every step
//! of it; `SIM_SEEDS=n` tries n seeds.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a trace is for whoever runs the test"
)]

mod activation;
mod flows;
mod idle;
mod kernel;
mod life;
mod perform;
mod random;
mod rollout;
mod seeds;
mod survive;
mod workers;
