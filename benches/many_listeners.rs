//! `many-listeners`: a process for each connection, with ten listeners open and with ten thousand.

use crate::load::Server;
use crate::machine::{self, Addresses, Result};
use crate::process::{Process, is_bound_line};
use crate::statistics::{Numbers, median_ratio};
use crate::table::{Row, Target};
use std::path::Path;

const FEW: u32 = 10;
const MANY: u32 = 10_000;
const CONNECTIONS: u32 = 200;
const ROUNDS: usize = 41;

/// Ten thousand listeners should cost nothing; what is left is the processor's cache.
const MIN_RATIO: f64 = 0.9;

/// Adds the rows of this benchmark.
pub fn run(rows: &mut Vec<Row>) -> Result<()> {
    let name = format!("many-listeners: per second, {MANY} against {FEW}");
    if !machine::allows_sockets(MANY) {
        rows.push(Row::skipped(&name, "the limit of open files is too low"));
        return Ok(());
    }
    let greet = machine::compile("greet")?;
    let addresses = Addresses::for_sockets(FEW + MANY)?;
    let few = listend(addresses, 0, FEW, &greet)?;
    let many = listend(addresses, FEW, MANY, &greet)?;

    let mut runs = (Vec::new(), Vec::new());
    // The first round does not count, as in `statistics::in_turn`.
    for round in 0..=ROUNDS {
        let pair = (many.run(CONNECTIONS)?, few.run(CONNECTIONS)?);
        if round > 0 {
            runs.0.push(pair.0);
            runs.1.push(pair.1);
        }
    }
    let rates = |runs: &[crate::load::Run]| Numbers::new(runs.iter().map(|run| run.per_second));
    let (ours, baseline) = (rates(&runs.0), rates(&runs.1));
    rows.push(Row::compared(
        &name,
        ours.show(0, "/s"),
        baseline.show(0, "/s"),
        median_ratio(&ours, &baseline),
        Some(Target::AtLeast(MIN_RATIO)),
    ));
    Ok(())
}

fn listend(addresses: Addresses, first: u32, count: u32, greet: &Path) -> Result<Server> {
    let names: Vec<String> = (0..count).map(|index| format!("l{index}")).collect();
    let entries: String = (0..count)
        .map(|index| format!("  l{index}: {}\n", addresses.get(first + index)))
        .collect();
    let yaml = format!(
        "listeners:\n{entries}workers:\n  greet:\n    command: [{}]\n    listeners: [{}]\n    \
         activation: per-connection\n    handoff: inetd\n    accept_rate: none\n",
        machine::quoted(greet)?,
        names.join(", ")
    );
    let config = machine::write_config(&format!("many-listeners-{count}"), &yaml)?;
    let mut process = Process::listend(&config)?;
    process.time_until(1, "bound", |line| is_bound_line(line, count))?;
    Ok(Server::new(process, addresses, first, count))
}
