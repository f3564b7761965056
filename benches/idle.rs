//! `idle`: a listend whose workers run and whose clients are silent does nothing at all.

use crate::machine::{self, Addresses, Result};
use crate::process::{Process, started_pid};
use crate::table::{self, Row};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const LISTENERS: u32 = 100;
const WORKERS: u32 = 10;
const MAX_MEMORY_MIB: f64 = 6.0;

/// How long listend is watched, once by the kernel's counters and once by strace.
const WATCH: Duration = Duration::from_secs(5);

/// From the last started worker to the first look.
const SETTLE: Duration = Duration::from_secs(2);

/// Attaching strace interrupts the wait that it wants to see, and the program waits again. That is
/// strace's doing, so the count starts a little later.
const STRACE_SETTLE: Duration = Duration::from_secs(1);

/// Adds the rows of this benchmark.
pub fn run(rows: &mut Vec<Row>) -> Result<()> {
    let pause = machine::compile("pause")?;
    let config = machine::write_config("idle", &yaml(&pause)?)?;
    let mut listend = Process::listend(&config)?;
    listend.time_until(WORKERS as usize, "started", |line| {
        started_pid(line).is_some()
    })?;
    thread::sleep(SETTLE);

    let before = machine::context_switches(listend.pid())?;
    thread::sleep(WATCH);
    let switches = machine::context_switches(listend.pid())? - before;
    let name = format!("idle: context switches in {WATCH:?}");
    rows.push(Row::at_most(&name, switches as f64, 0.0, ""));

    let memory = machine::memory(listend.pid())?;
    rows.extend(table::memory("idle: ", &memory, MAX_MEMORY_MIB));

    // Last, because being traced leaves its own marks on the counters.
    rows.push(calls_row("idle", &listend, &config));
    listend.stop()?;
    Ok(())
}

/// How many system calls it does while it is watched; none are wanted.
pub fn calls_row(what: &str, listend: &Process, config: &Path) -> Row {
    let name = format!("{what}: system calls in {WATCH:?}");
    match system_calls(listend.pid(), &config.with_file_name("strace")) {
        Ok(calls) => Row::at_most(&name, calls as f64, 0.0, ""),
        Err(why) => Row::skipped(&name, &why.to_string()),
    }
}

/// Every worker takes its share of the listeners, so that none is left over.
fn yaml(pause: &Path) -> Result<String> {
    let mut yaml = Addresses::for_sockets(LISTENERS)?.yaml(LISTENERS);
    let share = LISTENERS / WORKERS;
    let command = machine::quoted(pause)?;
    yaml.push_str("workers:\n");
    for worker in 0..WORKERS {
        let names: Vec<String> = (worker * share..(worker + 1) * share)
            .map(|index| format!("l{index}"))
            .collect();
        yaml.push_str(&format!(
            "  w{worker}:\n    command: [{command}]\n    listeners: [{}]\n",
            names.join(", ")
        ));
    }
    Ok(yaml)
}

/// How many lines strace writes about the process while it is watched: system calls, returns from
/// those that slept, and signals.
fn system_calls(pid: i32, file: &Path) -> Result<usize> {
    let mut strace = attach(pid, file)?;
    thread::sleep(STRACE_SETTLE);
    let from = since_epoch()?;
    thread::sleep(WATCH);
    let until = since_epoch()?;
    // Our own child, not yet waited for. SIGINT makes it detach and leave the process alone.
    kill(Pid::from_raw(strace.id() as i32), Signal::SIGINT)?;
    strace.wait()?;

    let text = std::fs::read_to_string(file)?;
    let times = text.lines().filter_map(time_of);
    Ok(times.filter(|time| (from..until).contains(time)).count())
}

/// Starts strace, and returns when it has attached.
fn attach(pid: i32, file: &Path) -> Result<Child> {
    let mut strace = Command::new("strace")
        .args(["-f", "-ttt", "-p", &pid.to_string(), "-o"])
        .arg(file)
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("no strace: {error}"))?;
    let stderr = strace.stderr.take().ok_or("no standard error")?;
    let mut reader = BufReader::new(stderr);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    // Kept open: strace writes again when it detaches, and must not die of SIGPIPE before it has.
    strace.stderr = Some(reader.into_inner());
    if line.contains("attached") {
        return Ok(strace);
    }
    strace.kill()?;
    strace.wait()?;
    Err(line.trim().to_owned().into())
}

/// The time of a line of `strace -f -ttt -o`: "PID SECONDS.MICROSECONDS call(…".
fn time_of(line: &str) -> Option<Duration> {
    let seconds: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}

fn since_epoch() -> Result<Duration> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?)
}
