//! `sandbox`: what a sandbox adds to the start of a worker.

use crate::machine::{self, Addresses, Result};
use crate::on_demand::cold_start;
use crate::process::{Process, is_bound_line};
use crate::statistics::{Numbers, Samples, millis};
use crate::table::Row;
use listend::sandbox::paths::{Implied, hiding, rules};
use listend::sandbox::{Preset, Sandbox};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

const ROUNDS: usize = 300;
const MOST_FOR_STRICT: f64 = 3.0;

/// What follows the command in the configuration. The first is what the others are compared with.
const KINDS: [(&str, Option<Preset>); 4] = [
    ("none", None),
    ("basic", Some(Preset::Basic)),
    ("strict", Some(Preset::Strict)),
    ("sealed", Some(Preset::Sealed)),
];

/// Adds the rows of this benchmark.
pub fn run(rows: &mut Vec<Row>) -> Result<()> {
    let worker = machine::compile("greet_one")?;
    if is_hidden(&worker) {
        let why = "sandboxes hide the target folder from a worker";
        rows.push(Row::skipped("sandbox", why));
        return Ok(());
    }
    let addresses = Addresses::for_sockets(KINDS.len() as u32)?;
    let mut daemons = Vec::new();
    for (index, (name, preset)) in (0..).zip(KINDS) {
        let address = SocketAddr::V4(addresses.get(index));
        let yaml = yaml(address, &worker, preset.is_some().then_some(name))?;
        let config = machine::write_config(&format!("sandbox-{name}"), &yaml)?;
        let mut listend = Process::listend(&config)?;
        listend.time_until(1, "bound", |line| is_bound_line(line, 1))?;
        daemons.push((listend, address));
    }

    // One round is not counted, see `in_turn`; the others begin with each of them in turn.
    let mut times = vec![Vec::new(); KINDS.len()];
    for round in 0..=ROUNDS {
        for turn in 0..KINDS.len() {
            let kind = (round + turn) % KINDS.len();
            let (listend, address) = &daemons[kind];
            let time = cold_start(listend, *address)?;
            if round > 0 {
                times[kind].push(time);
            }
        }
    }

    let none = &times[0];
    for ((name, preset), times) in KINDS.iter().zip(&times) {
        let shown = Samples::new(times.iter().copied()).show();
        let what = format!("sandbox: {name}, connect to first byte");
        rows.push(Row::information(&what, shown));
        let what = format!("sandbox: {name}, more than none");
        let more = median_difference(times, none);
        match preset {
            Some(Preset::Strict) => rows.push(Row::at_most(&what, more, MOST_FOR_STRICT, "ms")),
            Some(_) => rows.push(Row::information(&what, format!("{more:.2} ms"))),
            None => {}
        }
    }
    for (mut listend, _) in daemons {
        listend.stop()?;
    }
    Ok(())
}

/// Whether a worker in one of the sandboxes could not be executed where it is.
fn is_hidden(worker: &Path) -> bool {
    let hides = |sandbox: Sandbox| hiding(&rules(&sandbox, &Implied::default()), worker).is_some();
    let mut presets = KINDS.iter().filter_map(|(_, preset)| *preset);
    presets.any(|preset| hides(preset.sandbox()))
}

fn yaml(address: SocketAddr, worker: &Path, preset: Option<&str>) -> Result<String> {
    let sandbox = preset.map_or(String::new(), |name| format!("    sandbox: {name}\n"));
    Ok(format!(
        "listeners: {{ web: '{address}' }}\nworkers:\n  greet:\n    command: [{}]\n    \
         listeners: [web]\n    activation: on-demand\n    trigger_limit: none\n{sandbox}",
        machine::quoted(worker)?
    ))
}

/// The median of what one of two took longer in each round, in milliseconds.
fn median_difference(times: &[Duration], others: &[Duration]) -> f64 {
    let pairs = times.iter().zip(others);
    Numbers::new(pairs.map(|(one, other)| millis(*one) - millis(*other))).median()
}
