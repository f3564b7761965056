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
mod follow;
mod held_up;
mod idle;
mod kernel;
mod life;
mod orders;
mod perform;
pub(crate) mod random;
mod rollout;
mod seeds;
mod shards;
mod survive;
mod workers;

/// One life, which the bytes decide: the first one its grammar, the others every number in it.
pub(crate) fn one_life(bytes: &[u8]) {
    let Some((grammar, tape)) = bytes.split_first() else {
        return;
    };
    match grammar % 3 {
        0 => workers::one_life(tape),
        1 => activation::one_life(tape),
        _ => rollout::one_life(tape),
    }
}

/// Those that the fuzzer has found to be interesting, and some that it begins with.
#[test]
fn lives_on_tape_keep_the_rules() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/seeds/lives");
    let mut lives = 0;
    for entry in std::fs::read_dir(folder).expect("the folder is there") {
        let path = entry.expect("an entry").path();
        println!("{}", path.display());
        one_life(&std::fs::read(path).expect("a file"));
        lives += 1;
    }
    assert!(lives > 0, "there are none in {folder}");
}
