//! The benchmarks: `cargo bench`, or `cargo bench -- NAME…` for some of them.
//!
//! Every claim is a ratio within one run: listend and a bare C program that does the same work are
//! started in turn on the same machine, and the medians are compared. The absolute numbers depend
//! on the machine and on who else uses it; the ratios hardly do. `docs/performance.md` says what
//! each benchmark measures and why it is fair.
//!
//! Nothing here is part of `cargo test`: a test must not depend on the speed of a machine.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a benchmark's output is its result"
)]

mod connections;
mod flows;
mod forward;
#[path = "../tests/it/harness/mod.rs"]
mod harness;
mod idle;
mod kill;
mod large;
mod load;
mod machine;
mod many_listeners;
mod notify;
mod on_demand;
mod options;
mod peers;
mod process;
mod reload;
mod restart;
mod sandbox;
mod shards;
mod spawn;
mod startup;
mod statistics;
mod status;
mod supervisor;
mod survive;
mod table;
mod upkeep;

use machine::Result;
use std::process::ExitCode;
use table::Row;

/// A benchmark: its name on the command line, and the function that adds its rows.
///
/// The rows are added one by one so that those measured before a failure are not lost with it.
type Benchmark = (&'static str, fn(&mut Vec<Row>) -> Result<()>);

/// In the order in which they run.
const BENCHMARKS: [Benchmark; 20] = [
    ("startup", startup::run),
    ("options", options::run),
    ("idle", idle::run),
    ("spawn", spawn::run),
    ("kill", kill::run),
    ("on-demand", on_demand::run),
    ("sandbox", sandbox::run),
    ("connections", connections::run),
    ("forward", forward::run),
    ("flows", flows::run),
    ("many-listeners", many_listeners::run),
    ("large", large::run),
    ("notify", notify::run),
    ("status", status::run),
    ("restart", restart::run),
    ("reload", reload::run),
    ("survive", survive::run),
    ("upkeep", upkeep::run),
    ("shards", shards::run),
    ("supervisor", supervisor::run),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (flags, names): (Vec<&String>, Vec<&String>) =
        arguments.iter().partition(|word| word.starts_with("--"));

    if let Some(unknown) = names
        .iter()
        .find(|name| BENCHMARKS.iter().all(|(known, _)| known != **name))
    {
        let known: Vec<&str> = BENCHMARKS.iter().map(|(name, _)| *name).collect();
        eprintln!(
            "no benchmark is called {unknown}; there are {}",
            known.join(", ")
        );
        return ExitCode::from(64);
    }
    // `cargo bench` passes --bench; `cargo test --all-targets` runs this program without it.
    if !flags.iter().any(|flag| *flag == "--bench") {
        println!("benchmarks run with: cargo bench");
        return ExitCode::SUCCESS;
    }

    let about = machine::describe();
    println!("{about}\n");
    machine::raise_descriptor_limit();
    let mut rows = Vec::new();
    for (name, run) in BENCHMARKS {
        if names.is_empty() || names.iter().any(|wanted| *wanted == name) {
            eprintln!("{name} …");
            if let Err(error) = run(&mut rows) {
                eprintln!("{name}: {error}");
                rows.push(Row::failed(name, &error.to_string()));
            }
        }
    }

    let table = table::render(&rows);
    println!("\n{table}");
    let file = machine::target_dir().join("bench-results.md");
    match std::fs::write(&file, format!("# Benchmark results\n\n{about}\n\n{table}")) {
        Ok(()) => println!("written to {}", file.display()),
        Err(error) => eprintln!("{}: {error}", file.display()),
    }
    if rows.iter().any(Row::is_bad) {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}
