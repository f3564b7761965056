//! `connections`: a process for each connection, against a bare loop and against other programs.

use crate::load::{Run, Server};
use crate::machine::{self, Addresses, Result};
use crate::peers::PEERS;
use crate::process::{Process, is_bound_line};
use crate::statistics::{Numbers, median_ratio};
use crate::table::{Row, Target};
use std::path::Path;

/// Many short runs rather than a few long ones: what disturbs the machine for a second then spoils
/// a few of the ratios, and not the median.
const CONNECTIONS: u32 = 200;
const ROUNDS: usize = 61;

/// After so many rounds, those that are clearly slower than the fastest of them leave: their place
/// in the order is known, and the time is better spent on those that are close to each other.
const FIRST_ROUNDS: usize = 7;
const CLEARLY_SLOWER: f64 = 0.8;

/// Of the speed of the bare loop, and of that of the fastest peer.
const MIN_OF_LOOP: f64 = 0.95;
const MIN_OF_FASTEST: f64 = 1.0;

/// Of the processor time that the bare loop itself takes.
const MAX_PROCESSOR_TIME: f64 = 1.2;

const OURS: &str = "listend";
const UNLIMITED: &str = "listend, max_connections: none";
const LOOP: &str = "a C loop";

/// One program and its runs, one for each round.
struct Contestant {
    name: &'static str,
    server: Server,
    runs: Vec<Run>,
}

/// Adds the rows of this benchmark.
pub fn run(rows: &mut Vec<Row>) -> Result<()> {
    let mut contestants = start_all(rows)?;
    let mut gone = Vec::new();
    contestants.retain(|one| keep(rows, one.name, one.warm_up()));
    for round in 0..ROUNDS {
        if round == FIRST_ROUNDS {
            let best = contestants.iter().filter(|one| one.is_peer());
            let best = best.map(|one| one.rates().median()).fold(0.0, f64::max);
            gone.extend(contestants.extract_if(.., |one| {
                one.is_peer() && one.rates().median() < best * CLEARLY_SLOWER
            }));
        }
        contestants.retain_mut(|one| keep(rows, one.name, one.run()));
        // Whoever follows the slowest always would also wait for its last processes to end.
        contestants.reverse();
    }
    contestants.extend(gone);
    if let Some(index) = contestants.iter().position(|one| one.name == OURS) {
        let ours = contestants.swap_remove(index);
        report(rows, &ours, &contestants);
    }
    Ok(())
}

/// One address for each: they all run all the time, and those that nobody asks do nothing.
fn start_all(rows: &mut Vec<Row>) -> Result<Vec<Contestant>> {
    let greet = machine::compile("greet")?;
    let addresses = Addresses::for_sockets(3 + PEERS.len() as u32)?;
    let mut contestants = vec![
        Contestant::new(OURS, listend("64", addresses, 0, &greet)?),
        Contestant::new(LOOP, accept_loop(addresses, 1, &greet)?),
    ];
    for (index, peer) in (3..).zip(&PEERS) {
        match peer.command(addresses.get(index), &greet)? {
            Some(command) => {
                let server = Server::new(Process::peer(command)?, addresses, index, 1);
                contestants.push(Contestant::new(peer.name, server));
            }
            None => rows.push(Row::skipped(&row_name(peer.name), "not installed")),
        }
    }
    let unlimited = listend("none", addresses, 2, &greet)?;
    contestants.push(Contestant::new(UNLIMITED, unlimited));
    Ok(contestants)
}

/// A program that fails is a row of the table, and the others go on without it.
fn keep(rows: &mut Vec<Row>, name: &str, result: Result<()>) -> bool {
    match result {
        Ok(()) => true,
        Err(error) => {
            rows.push(Row::failed(&row_name(name), &error.to_string()));
            false
        }
    }
}

fn row_name(other: &str) -> String {
    format!("connections: per second, against {other}")
}

fn listend(most: &str, addresses: Addresses, index: u32, greet: &Path) -> Result<Server> {
    let yaml = format!(
        "listeners:\n  l0: {}\nworkers:\n  greet:\n    command: [{}]\n    listeners: [l0]\n    \
         activation: per-connection\n    handoff: inetd\n    accept_rate: none\n    \
         max_connections: {most}\n",
        addresses.get(index),
        machine::quoted(greet)?
    );
    let config = machine::write_config(&format!("connections-{most}"), &yaml)?;
    let mut process = Process::listend(&config)?;
    process.time_until(1, "bound", |line| is_bound_line(line, 1))?;
    Ok(Server::new(process, addresses, index, 1))
}

fn accept_loop(addresses: Addresses, index: u32, greet: &Path) -> Result<Server> {
    let process = Process::c_loop("accept_loop", addresses.get(index), greet)?;
    Ok(Server::new(process, addresses, index, 1))
}

impl Contestant {
    fn new(name: &'static str, server: Server) -> Contestant {
        Contestant {
            name,
            server,
            runs: Vec::new(),
        }
    }

    /// The first run pays for the page cache and the first allocations, and does not count.
    fn warm_up(&self) -> Result<()> {
        self.server.wait_until_answering()?;
        self.server.run(CONNECTIONS)?;
        Ok(())
    }

    /// Whether it is the program of somebody else.
    fn is_peer(&self) -> bool {
        PEERS.iter().any(|peer| peer.name == self.name)
    }

    fn run(&mut self) -> Result<()> {
        self.runs.push(self.server.run(CONNECTIONS)?);
        Ok(())
    }

    fn rates(&self) -> Numbers {
        Numbers::new(self.runs.iter().map(|run| run.per_second))
    }

    /// Microseconds of processor time for each connection, where the kernel counts it.
    fn micros(&self) -> Option<Numbers> {
        let micros: Option<Vec<f64>> = self.runs.iter().map(|run| run.micros).collect();
        micros.map(Numbers::new)
    }
}

fn report(rows: &mut Vec<Row>, ours: &Contestant, others: &[Contestant]) {
    let fastest = others
        .iter()
        .filter(|other| other.is_peer())
        .max_by(|a, b| a.rates().median().total_cmp(&b.rates().median()))
        .map(|fastest| fastest.name);
    // In the order in which they were started, however often they have been reversed.
    let names = [LOOP, UNLIMITED].into_iter();
    for name in names.chain(PEERS.iter().map(|peer| peer.name)) {
        let Some(other) = others.iter().find(|other| other.name == name) else {
            continue;
        };
        let target = if name == LOOP {
            Some(Target::AtLeast(MIN_OF_LOOP))
        } else {
            (fastest == Some(name)).then_some(Target::AtLeast(MIN_OF_FASTEST))
        };
        let (rates, theirs) = (ours.rates(), other.rates());
        rows.push(Row::compared(
            &row_name(name),
            rates.show(0, "/s"),
            theirs.show(0, "/s"),
            median_ratio(&rates, &theirs),
            target,
        ));
        if name == LOOP {
            rows.push(processor_time(ours, other));
        }
    }
}

fn processor_time(ours: &Contestant, bare: &Contestant) -> Row {
    let name = "connections: its own processor time for each";
    match (ours.micros(), bare.micros()) {
        (Some(ours), Some(bare)) => Row::compared(
            name,
            ours.show(1, " µs"),
            bare.show(1, " µs"),
            median_ratio(&ours, &bare),
            Some(Target::AtMost(MAX_PROCESSOR_TIME)),
        ),
        _ => Row::skipped(name, "the kernel has no schedstat"),
    }
}
