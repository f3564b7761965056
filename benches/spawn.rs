//! `spawn`: from exec to a thousand running instances, against a bare loop of fork and exec.

use crate::machine::{self, Addresses, Result};
use crate::process::{Process, started_pid};
use crate::statistics::{Samples, in_turn};
use crate::table::{self, Row};
use std::path::Path;
use std::time::Duration;

const INSTANCES: usize = 1_000;
const ROUNDS: usize = 5;
const MAX_RATIO: f64 = 1.5;

/// One life of a program with its children.
struct Life {
    /// From exec until every child runs its own program.
    start: Duration,
    /// From the request to stop until the program has gone, after its children.
    stop: Duration,
    /// What it held in memory with all children running.
    resident: u64,
}

/// Adds the rows of this benchmark.
pub fn run(rows: &mut Vec<Row>) -> Result<()> {
    let spawn_loop = machine::compile("spawn_loop")?;
    let pause = machine::compile("pause")?;
    let config = machine::write_config("spawn", &yaml(&pause)?)?;

    let (ours, fork) = in_turn(
        ROUNDS,
        || with_listend(&config),
        || with_loop(&spawn_loop, "fork", &pause),
    )?;
    let name = format!("spawn: {INSTANCES} instances");
    let (started, stopped) = times(&ours);
    let (fork_started, fork_stopped) = times(&fork);
    let target = Some(MAX_RATIO);
    rows.push(Row::ratio(&name, &started, &fork_started, target));
    let stop_name = format!("{name}, stop");
    rows.push(Row::ratio(&stop_name, &stopped, &fork_stopped, None));
    if let Some(life) = ours.last() {
        let resident = table::mebibytes(life.resident);
        rows.push(Row::information(&format!("{name}, resident"), resident));
    }

    // How a supervisor that never copies its page tables would do; no target, as it is no fork.
    let mut vfork = Vec::new();
    for _ in 0..ROUNDS {
        vfork.push(with_loop(&spawn_loop, "vfork", &pause)?);
    }
    let (vfork_started, _) = times(&vfork);
    let vfork_name = format!("{name}, against vfork");
    rows.push(Row::ratio(&vfork_name, &started, &vfork_started, None));
    Ok(())
}

/// Each instance inherits a listener: a supervisor without one would not need listend.
fn yaml(pause: &Path) -> Result<String> {
    Ok(format!(
        "{}workers:\n  pause:\n    command: [{}]\n    listeners: [l0]\n    instances: {INSTANCES}\n",
        Addresses::for_sockets(1)?.yaml(1),
        machine::quoted(pause)?
    ))
}

fn with_listend(config: &Path) -> Result<Life> {
    let mut listend = Process::listend(config)?;
    let start = listend.time_until(INSTANCES, "started", |line| started_pid(line).is_some())?;
    let resident = machine::memory(listend.pid())?.resident;
    let stop = listend.stop()?;
    Ok(Life {
        start,
        stop,
        resident,
    })
}

fn with_loop(program: &Path, call: &str, pause: &Path) -> Result<Life> {
    let pause = pause.to_str().ok_or("the target folder is not UTF-8")?;
    let arguments = [call, &INSTANCES.to_string(), pause].map(str::to_owned);
    let mut process = Process::baseline(program, arguments)?;
    let start = process.time_until(1, "done", |line| line == "done")?;
    let resident = machine::memory(process.pid())?.resident;
    let stop = process.stop()?;
    Ok(Life {
        start,
        stop,
        resident,
    })
}

fn times(lives: &[Life]) -> (Samples, Samples) {
    (
        Samples::new(lives.iter().map(|life| life.start)),
        Samples::new(lives.iter().map(|life| life.stop)),
    )
}
