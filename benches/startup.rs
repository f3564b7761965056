//! `startup`: from exec to thousands of bound listeners, against a bare loop of system calls.

use crate::machine::{self, Addresses, Memory, Result};
use crate::process::{Process, is_bound_line};
use crate::statistics::{Samples, in_turn, millis};
use crate::table::{self, Row};
use std::path::Path;
use std::thread;
use std::time::Duration;

/// The number of listeners that has a target, and its rounds.
const MAIN: (u32, usize) = (10_000, 7);

/// The numbers that show whether the cost of a listener stays the same.
const LADDER: [u32; 4] = [1_000, 5_000, 10_000, 15_000];
const LADDER_ROUNDS: usize = 3;

const MAX_RATIO: f64 = 3.0;
const MAX_MEMORY_MIB: f64 = 16.0;

/// The memory is read this long after the last line, when the worker has been started as well.
const SETTLE: Duration = Duration::from_millis(500);

/// Adds the rows of this benchmark.
pub fn run(rows: &mut Vec<Row>) -> Result<()> {
    let bind_loop = machine::compile("bind_loop")?;
    let pause = machine::compile("pause")?;
    for count in LADDER {
        let name = format!("startup: {count} listeners");
        if machine::allows_sockets(count) {
            rung(rows, &name, count, &bind_loop, &pause)?;
        } else {
            rows.push(Row::skipped(&name, "the limit of open files is too low"));
        }
    }
    Ok(())
}

fn rung(rows: &mut Vec<Row>, name: &str, count: u32, bind_loop: &Path, pause: &Path) -> Result<()> {
    let is_main = count == MAIN.0;
    let addresses = Addresses::for_sockets(count)?;
    let config = machine::write_config("startup", &yaml(addresses, count, pause)?)?;
    let (ours, baseline) = in_turn(
        if is_main { MAIN.1 } else { LADDER_ROUNDS },
        || bind_with_listend(&config, count),
        || until_done(bind_loop, addresses, count),
    )?;

    let samples = Samples::new(ours);
    let baseline = Samples::new(baseline);
    let target = is_main.then_some(MAX_RATIO);
    rows.push(Row::ratio(name, &samples, &baseline, target));
    let each = |samples: &Samples| {
        let micros = millis(samples.median()) * 1e3 / f64::from(count);
        format!("{micros:.1} µs")
    };
    rows.push(Row::information(&format!("{name}, each"), each(&samples)).beside(each(&baseline)));
    if is_main {
        let memory = memory_with_listend(&config, count)?;
        rows.extend(table::memory(&format!("{name}, "), &memory, MAX_MEMORY_MIB));
    }
    Ok(())
}

/// One worker, which takes one listener: what is measured is binding, not starting.
fn yaml(addresses: Addresses, count: u32, pause: &Path) -> Result<String> {
    Ok(format!(
        "{}workers:\n  pause:\n    command: [{}]\n    listeners: [l0]\n",
        addresses.yaml(count),
        machine::quoted(pause)?
    ))
}

fn bind_with_listend(config: &Path, count: u32) -> Result<Duration> {
    let mut listend = Process::listend(config)?;
    let time = until_bound(&mut listend, count)?;
    listend.stop()?;
    Ok(time)
}

/// How long a baseline takes for these addresses.
pub fn until_done(program: &Path, addresses: Addresses, count: u32) -> Result<Duration> {
    let arguments = std::iter::once(count.to_string()).chain(addresses.as_arguments());
    let mut process = Process::baseline(program, arguments)?;
    let time = process.time_until(1, "done", |line| line == "done")?;
    process.stop()?;
    Ok(time)
}

fn memory_with_listend(config: &Path, count: u32) -> Result<Memory> {
    let mut listend = Process::listend(config)?;
    until_bound(&mut listend, count)?;
    thread::sleep(SETTLE);
    let memory = machine::memory(listend.pid())?;
    listend.stop()?;
    Ok(memory)
}

/// How long listend takes until so many listeners are bound.
pub fn until_bound(listend: &mut Process, count: u32) -> Result<Duration> {
    listend.time_until(1, "bound", |line| is_bound_line(line, count))
}
