//! `options`: thousands of listeners with five socket options each, against the same system calls.

use crate::machine::{self, Addresses, Result};
use crate::process::Process;
use crate::startup::{until_bound, until_done};
use crate::statistics::{Samples, in_turn, millis};
use crate::table::Row;
use std::path::Path;

/// The number of listeners that has a target, and its rounds.
const MAIN: (u32, usize) = (10_000, 7);

/// The numbers that show whether the cost of a listener stays the same.
const LADDER: [u32; 4] = [1_000, 5_000, 10_000, 15_000];
const LADDER_ROUNDS: usize = 3;

const MAX_RATIO: f64 = 3.0;

/// The most by which one listener may be dearer at the top of the ladder than at its foot: the
/// start of the program, which counts for both, makes it cheaper.
const MAX_GROWTH: f64 = 1.5;

/// The same as in `benches/c/option_loop.c`.
const OPTIONS: &str =
    "receive_buffer: 64K, keep_alive: true, keep_alive_time: 60s, no_delay: true, ip_tos: 72";

/// Adds the rows of this benchmark.
pub fn run(rows: &mut Vec<Row>) -> Result<()> {
    let option_loop = machine::compile("option_loop")?;
    let pause = machine::compile("pause")?;
    let mut each = Vec::new();
    for count in LADDER {
        let name = format!("options: {count} listeners, 5 each");
        if machine::allows_sockets(count) {
            each.push(rung(rows, &name, count, &option_loop, &pause)?);
        } else {
            rows.push(Row::skipped(&name, "the limit of open files is too low"));
        }
    }
    if let [first, .., last] = each[..] {
        let name = "options: one listener, last rung : first";
        rows.push(Row::at_most(name, last / first, MAX_GROWTH, "×"));
    }
    Ok(())
}

/// Answers with the microseconds for one listener.
fn rung(
    rows: &mut Vec<Row>,
    name: &str,
    count: u32,
    option_loop: &Path,
    pause: &Path,
) -> Result<f64> {
    let is_main = count == MAIN.0;
    let addresses = Addresses::for_sockets(count)?;
    let config = machine::write_config("options", &yaml(addresses, count, pause)?)?;
    let (ours, baseline) = in_turn(
        if is_main { MAIN.1 } else { LADDER_ROUNDS },
        || {
            let mut listend = Process::listend(&config)?;
            let time = until_bound(&mut listend, count)?;
            listend.stop()?;
            Ok(time)
        },
        || until_done(option_loop, addresses, count),
    )?;
    let (ours, baseline) = (Samples::new(ours), Samples::new(baseline));
    let target = is_main.then_some(MAX_RATIO);
    rows.push(Row::ratio(name, &ours, &baseline, target));
    let each = |samples: &Samples| millis(samples.median()) * 1e3 / f64::from(count);
    let show = |micros: f64| format!("{micros:.1} µs");
    rows.push(
        Row::information(&format!("{name}, each listener"), show(each(&ours)))
            .beside(show(each(&baseline))),
    );
    Ok(each(&ours))
}

/// One worker, which takes one listener: what is measured is binding, not starting.
fn yaml(addresses: Addresses, count: u32, pause: &Path) -> Result<String> {
    let entries = (0..count).map(|index| {
        let address = addresses.get(index);
        format!("  l{index}: {{ address: '{address}', {OPTIONS} }}\n")
    });
    let listeners: String = std::iter::once("listeners:\n".to_owned())
        .chain(entries)
        .collect();
    Ok(format!(
        "{listeners}workers:\n  pause:\n    command: [{}]\n    listeners: [l0]\n",
        machine::quoted(pause)?
    ))
}
