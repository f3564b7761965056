//! `reload`: one of many listeners is changed, against reading the same file.

use crate::harness::TempDir;
use crate::machine::{self, Addresses, Result};
use crate::process::Process;
use crate::startup::until_bound;
use crate::statistics::{Samples, in_turn};
use crate::table::{self, Row};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const LISTENERS: u32 = 10_000;
/// The one that is changed, somewhere in the middle.
const CHANGED: u32 = 5_000;
const ROUNDS: usize = 11;

/// What comes to reading: the start of a process, which both have, and finding what is different.
const MAX_RATIO: f64 = 2.0;

/// Adds the rows of this benchmark.
pub fn run(rows: &mut Vec<Row>) -> Result<()> {
    let name = format!("reload: 1 of {LISTENERS} listeners");
    if !machine::allows_sockets(LISTENERS + 1) {
        rows.push(Row::skipped(&name, "the limit of open files is too low"));
        return Ok(());
    }
    let dir = TempDir::new();
    let (config, control) = (dir.path().join("listend.yaml"), dir.path().join("control"));
    let pause = machine::compile("pause")?;
    // One more than there are, for the changed one to have where to go.
    let addresses = Addresses::for_sockets(LISTENERS + 1)?;
    let texts = [false, true].map(|is_changed| yaml(addresses, is_changed, &pause));
    let [first, second] = texts;
    let texts = [first?, second?];
    std::fs::write(&config, &texts[0])?;
    let mut listend = Process::listend_with(&config, &control)?;
    until_bound(&mut listend, LISTENERS)?;
    let before = machine::memory(listend.pid())?.resident;

    let mut turn = 0;
    let (ours, baseline) = in_turn(
        ROUNDS,
        || {
            turn += 1;
            std::fs::write(&config, &texts[turn % 2])?;
            time(&["reload", "--control"], &control)
        },
        || time(&["check", "--no-bind", "-c"], &config),
    )?;
    let (ours, baseline) = (Samples::new(ours), Samples::new(baseline));
    rows.push(Row::ratio(&name, &ours, &baseline, Some(MAX_RATIO)));
    let after = machine::memory(listend.pid())?.resident;
    let memory = Row::information(&format!("{name}, resident"), table::mebibytes(after));
    rows.push(memory.beside(table::mebibytes(before)));
    listend.stop()?;
    Ok(())
}

/// All listeners, of which one has another address if it `is_changed`.
fn yaml(addresses: Addresses, is_changed: bool, pause: &Path) -> Result<String> {
    let listeners = addresses.yaml(LISTENERS);
    let line = |address: u32| format!("  l{CHANGED}: {}\n", addresses.get(address));
    let listeners = match is_changed {
        false => listeners,
        true => listeners.replace(&line(CHANGED), &line(LISTENERS)),
    };
    Ok(format!(
        "{listeners}workers:\n  pause:\n    command: [{}]\n    listeners: [l0]\n",
        machine::quoted(pause)?
    ))
}

/// The whole life of a client, or of a check.
fn time(words: &[&str], path: &Path) -> Result<Duration> {
    let mut command = Command::new(machine::listend());
    command.args(words).arg(path).env_clear();
    let start = Instant::now();
    let output = command.stdin(Stdio::null()).output()?;
    let time = start.elapsed();
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let (words, status) = (words.join(" "), output.status);
        return Err(format!("listend {words}: {status}: {said}").into());
    }
    Ok(time)
}
