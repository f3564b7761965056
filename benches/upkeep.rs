//! `upkeep`: what it costs to write down what happens, and how long those wait who need the daemon at the
//! moment in which it is killed.

use crate::load::{Run, Server, connect};
use crate::machine::{self, Addresses, Result};
use crate::process::{Process, is_bound_line};
use crate::statistics::{Numbers, Samples, median_ratio, millis};
use crate::survive::guarded_pid;
use crate::table::{Row, Target};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::Read;
use std::net::SocketAddr;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// As in `connections`: many short runs.
const CONNECTIONS: u32 = 200;
const ROUNDS: usize = 101;
const MAX_UPKEEP: f64 = 1.02;

/// So many listeners are held while the daemon is killed.
const LISTENERS: u32 = 100;
const KILLS: usize = 41;
const MAX_WAIT: f64 = 50.0;

/// How long the next daemon may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// From an answer to the next kill: what was started meanwhile has ended, and is written.
const SETTLE: Duration = Duration::from_millis(150);

/// Adds the rows of this benchmark.
pub fn run(rows: &mut Vec<Row>) -> Result<()> {
    let folder = crate::status::folder();
    std::fs::create_dir_all(&folder)?;
    let measured = written(&folder, rows).and_then(|()| killed(&folder, rows));
    std::fs::remove_dir_all(&folder)?;
    measured
}

/// One daemon that nobody keeps anything for, and one under a guard.
fn written(folder: &Path, rows: &mut Vec<Row>) -> Result<()> {
    let greet = machine::compile("greet")?;
    let addresses = Addresses::for_sockets(2)?;
    let config = |index: u32| {
        let yaml = format!(
            "listeners:\n  l0: {}\nworkers:\n  greet:\n    command: [{}]\n    listeners: [l0]\n    \
             activation: per-connection\n    handoff: inetd\n    accept_rate: none\n",
            addresses.get(index),
            machine::quoted(&greet)?
        );
        machine::write_config(&format!("upkeep-{index}"), &yaml)
    };
    let alone = Process::listend_in_session(&config(0)?, &folder.join("alone"))?;
    let alone = Server::new(alone, addresses, 0, 1);
    let mut guard = Process::listend_guarded(&config(1)?, &folder.join("kept"))?;
    let daemon = next_daemon(&mut guard)?;
    let kept = Server::new(guard, addresses, 1, 1).measured_at(daemon);
    for server in [&alone, &kept] {
        server.wait_until_answering()?;
        server.run(CONNECTIONS)?;
    }
    let guard_before = machine::processor_time(kept.pid())?;
    let mut runs: [Vec<Run>; 2] = Default::default();
    for round in 0..ROUNDS {
        let both = [&kept, &alone].into_iter().enumerate();
        let mut both: Vec<_> = both.collect();
        if round % 2 == 1 {
            both.reverse();
        }
        for (side, server) in both {
            runs[side].push(server.run(CONNECTIONS)?);
        }
    }
    let of_guard = machine::processor_time(kept.pid())? - guard_before;
    let micros = |runs: &[Run]| {
        let micros: Option<Vec<f64>> = runs.iter().map(|run| run.micros).collect();
        micros
            .map(Numbers::new)
            .ok_or("the kernel has no schedstat")
    };
    let (ours, base) = (micros(&runs[0])?, micros(&runs[1])?);
    rows.push(Row::compared(
        "upkeep: processor time of the daemon for a connection, under a guard",
        ours.show(1, " µs"),
        base.show(1, " µs"),
        median_ratio(&ours, &base),
        Some(Target::AtMost(MAX_UPKEEP)),
    ));
    let rates = |runs: &[Run]| Numbers::new(runs.iter().map(|run| run.per_second));
    let (ours, base) = (rates(&runs[0]), rates(&runs[1]));
    rows.push(Row::compared(
        "upkeep: connections per second, under a guard",
        ours.show(0, "/s"),
        base.show(0, "/s"),
        median_ratio(&ours, &base),
        None,
    ));
    let each = of_guard.as_secs_f64() * 1e6 / (ROUNDS as f64 * f64::from(CONNECTIONS));
    let name = "upkeep: processor time of the guard for a connection";
    rows.push(Row::information(name, format!("{each:.2} µs")));
    Ok(())
}

/// The pid of the daemon that the guard starts next.
fn next_daemon(guard: &mut Process) -> Result<i32> {
    let end = Instant::now() + PATIENCE;
    while let Some(line) = guard.next_line(end)? {
        if let Some(pid) = guarded_pid(&line.text) {
            return Ok(pid);
        }
    }
    Err("the guard starts no daemon".into())
}

/// Clients that come in the moment of the kill, each of whom needs a process.
fn killed(folder: &Path, rows: &mut Vec<Row>) -> Result<()> {
    let (greet, greet_one) = (machine::compile("greet")?, machine::compile("greet_one")?);
    let addresses = Addresses::for_sockets(LISTENERS)?;
    let last = LISTENERS - 1;
    let others: Vec<String> = (0..last).map(|index| format!("l{index}")).collect();
    let yaml = format!(
        "{}workers:\n  each:\n    command: [{}]\n    listeners: [{}]\n    activation: per-connection\n    \
         handoff: inetd\n    accept_rate: none\n  demand:\n    command: [{}]\n    listeners: [l{last}]\n    \
         activation: on-demand\n    trigger_limit: none\n",
        addresses.yaml(LISTENERS),
        machine::quoted(&greet)?,
        others.join(", "),
        machine::quoted(&greet_one)?
    );
    let config = machine::write_config("upkeep-killed", &yaml)?;
    let mut guard = Process::listend_guarded(&config, &folder.join("killed"))?;
    let mut daemon = next_daemon(&mut guard)?;
    guard.time_until(1, "bound", |line| is_bound_line(line, LISTENERS))?;
    for (what, index) in [("per-connection", 0), ("on-demand", last)] {
        let address = SocketAddr::V4(addresses.get(index));
        // The first is started, and in no sample.
        wait_of_one(address)?;
        let mut undisturbed = Vec::new();
        let mut waits = Vec::new();
        for _ in 0..KILLS {
            thread::sleep(SETTLE);
            undisturbed.push(wait_of_one(address)?);
            thread::sleep(SETTLE);
            kill(Pid::from_raw(daemon), Signal::SIGKILL)?;
            waits.push(wait_of_one(address)?);
            daemon = next_daemon(&mut guard)?;
        }
        let (waits, base) = (Samples::new(waits), Samples::new(undisturbed));
        let name = format!("upkeep: kill -9, {LISTENERS} listeners: wait of a {what} client");
        let longest = millis(waits.quantile(1.0));
        let row = Row::at_most(&format!("{name}, longest"), longest, MAX_WAIT, "ms");
        rows.push(row.beside(format!("{:.1} ms", millis(base.quantile(1.0)))));
        rows.push(Row::ratio(&name, &waits, &base, None));
    }
    guard.stop()?;
    Ok(())
}

/// From connect to the first byte.
fn wait_of_one(address: SocketAddr) -> Result<Duration> {
    let start = Instant::now();
    let mut stream = connect(address)?;
    stream.read_exact(&mut [0])?;
    let time = start.elapsed();
    stream.read_to_end(&mut Vec::new())?;
    Ok(time)
}
