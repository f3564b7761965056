//! `large`: where it bends, on paper with 100,000 listeners and with up to 10,000 instances.

use crate::machine::{self, Addresses, Result};
use crate::process::{Process, started_pid};
use crate::statistics::Samples;
use crate::table::{Row, Target};
use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Listeners of a file that is only checked.
const LISTENERS: [u32; 3] = [1_000, 10_000, 100_000];
/// Listeners that are held, and workers that run, of two daemons each.
const HELD: [u32; 2] = [1_000, 9_000];
const WORKERS: [u32; 2] = [100, 1_100];
const INSTANCES: [u32; 4] = [100, 1_000, 5_000, 10_000];
const ROUNDS: usize = 5;
/// From the last started worker to the look at the memory: what the start needed was given back.
const SETTLE: Duration = Duration::from_millis(500);
/// What one of many may cost, compared with one of few.
const MAX_GROWTH: f64 = 1.5;

/// Adds the rows of this benchmark.
pub fn run(rows: &mut Vec<Row>) -> Result<()> {
    let pause = machine::compile("pause")?;
    on_paper(rows, &pause)?;
    let further_listener = |count| listeners_and_worker(count, &pause);
    let name = "large: memory for a further listener";
    rows.push(further(name, HELD, further_listener, |_| 1, 0.6)?);
    let further_worker = |count| workers(count, &pause);
    let name = "large: memory for a further worker";
    rows.push(further(name, WORKERS, further_worker, |count| count, 6.0)?);
    instances(rows, &pause)
}

/// Reads and checks, and binds nothing, so that no limit of descriptors counts.
fn on_paper(rows: &mut Vec<Row>, pause: &Path) -> Result<()> {
    let mut each = Vec::new();
    for count in LISTENERS {
        let config = machine::write_config("large", &listeners(count, pause)?)?;
        let check = || -> Result<Duration> {
            let start = Instant::now();
            let status = Command::new(machine::listend())
                .args(["check", "--no-bind", "-c"])
                .arg(&config)
                .env_clear()
                .stdin(Stdio::null())
                .stderr(Stdio::null())
                .stdout(Stdio::null())
                .status()?;
            let time = start.elapsed();
            status
                .success()
                .then_some(time)
                .ok_or_else(|| format!("listend check: {status}").into())
        };
        check()?;
        let times: Result<Vec<Duration>> = (0..ROUNDS).map(|_| check()).collect();
        let times = Samples::new(times?);
        each.push(times.median().as_secs_f64() * 1e6 / f64::from(count));
        rows.push(Row::information(
            &format!("large: {count} listeners on paper"),
            times.show(),
        ));
    }
    // The first is mostly the start of a process.
    let name = "large: one of 100,000 listeners against one of 10,000";
    rows.push(growth(name, (each[2], each[1]), Some(MAX_GROWTH)));
    Ok(())
}

fn listeners(count: u32, pause: &Path) -> Result<String> {
    let mut yaml = String::from("listeners:\n");
    for index in 0..count {
        let (host, port) = (index % 10_000, 20_000 + index / 10_000);
        writeln!(
            yaml,
            "  l{index}: 127.1.{}.{}:{port}",
            host / 100,
            1 + host % 100
        )?;
    }
    write!(
        yaml,
        "workers:\n  pause:\n    command: [{}]\n    listeners: [l0]\n",
        machine::quoted(pause)?
    )?;
    Ok(yaml)
}

fn listeners_and_worker(count: u32, pause: &Path) -> Result<String> {
    let listeners = Addresses::for_sockets(count)?.yaml(count);
    Ok(format!("{listeners}workers:\n{}", worker(0, pause)?))
}

fn workers(count: u32, pause: &Path) -> Result<String> {
    let listeners = Addresses::for_sockets(1)?.yaml(1);
    let workers: Result<String> = (0..count).map(|index| worker(index, pause)).collect();
    Ok(format!("{listeners}workers:\n{}", workers?))
}

fn worker(index: u32, pause: &Path) -> Result<String> {
    let command = machine::quoted(pause)?;
    Ok(format!(
        "  w{index}:\n    command: [{command}]\n    listeners: [l0]\n"
    ))
}

/// The private memory of two daemons, one of few and one of many, as KiB for each of the difference.
/// `starts` is how many processes start.
fn further(
    name: &str,
    [few, many]: [u32; 2],
    yaml: impl Fn(u32) -> Result<String>,
    starts: impl Fn(u32) -> u32,
    target: f64,
) -> Result<Row> {
    if !machine::allows_sockets(many) {
        return Ok(Row::skipped(name, "the limit of open files is too low"));
    }
    let memory = |count| -> Result<u64> {
        let config = machine::write_config("large", &yaml(count)?)?;
        let mut listend = Process::listend(&config)?;
        let is_started = |line: &str| started_pid(line).is_some();
        listend.time_until(starts(count) as usize, "started", is_started)?;
        thread::sleep(SETTLE);
        let memory = machine::private_memory(listend.pid())?;
        listend.stop()?;
        Ok(memory)
    };
    let kibibytes = memory(many)?.saturating_sub(memory(few)?) as f64 / f64::from(many - few);
    Ok(Row::at_most(name, kibibytes, target, "KiB"))
}

/// One worker with ever more instances.
fn instances(rows: &mut Vec<Row>, pause: &Path) -> Result<()> {
    let mut all: Vec<(u32, f64, u64)> = Vec::new();
    for count in INSTANCES {
        let name = format!("large: {count} instances");
        if !machine::allows_sockets(count) {
            rows.push(Row::skipped(&name, "the limit of open files is too low"));
            continue;
        }
        let yaml = format!(
            "{}workers:\n  pause:\n    command: [{}]\n    listeners: [l0]\n    instances: {count}\n",
            Addresses::for_sockets(1)?.yaml(1),
            machine::quoted(pause)?
        );
        let config = machine::write_config("large", &yaml)?;
        let mut listend = Process::listend(&config)?;
        let is_started = |line: &str| started_pid(line).is_some();
        let time = listend.time_until(count as usize, "started", is_started)?;
        let memory = machine::private_memory(listend.pid())?;
        let stop = listend.stop()?;
        let micros = |time: Duration| time.as_secs_f64() * 1e6 / f64::from(count);
        rows.push(Row::information(
            &format!("{name}: start of each, stop of each"),
            format!("{:.0} µs, {:.0} µs", micros(time), micros(stop)),
        ));
        all.push((count, micros(time), memory));
    }
    if let ([(few, _, before), rest @ ..], Some((most, slow, memory))) = (&all[..], all.last()) {
        let kibibytes = memory.saturating_sub(*before) as f64 / f64::from(most - few);
        let name = "large: memory for a further instance";
        rows.push(Row::at_most(name, kibibytes, 3.0, "KiB"));
        // The first is mostly the start of listend.
        if let Some((few, quick, _)) = rest.first() {
            let name = format!("large: one of {most} instances against one of {few}");
            rows.push(growth(&name, (*slow, *quick), None));
        }
    }
    Ok(())
}

fn growth(name: &str, (many, few): (f64, f64), target: Option<f64>) -> Row {
    let show = |micros: f64| format!("{micros:.1} µs");
    let target = target.map(Target::AtMost);
    Row::compared(name, show(many), show(few), many / few, target)
}
