//! `status`: what it costs to look at a large daemon, whoever else it has to serve meanwhile.

use crate::idle;
use crate::machine::{self, Addresses, Result};
use crate::process::{Process, started_pid};
use crate::statistics::{Samples, millis};
use crate::table::Row;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

pub const LISTENERS: u32 = 10_000;
pub const INSTANCES: u32 = 1_000;
const ROUNDS: usize = 41;

const MAX_TIME: f64 = 100.0;
const MAX_HELD: f64 = 10.0;

/// How long the others ask alone, for comparison.
const ALONE: Duration = Duration::from_secs(1);

/// From the last started worker to the first look.
const SETTLE: Duration = Duration::from_secs(2);

/// A call that costs nothing but a turn of the loop.
const CHEAP: &[u8] = b"{\"method\":\"org.varlink.service.GetInfo\"}\0";

/// Adds the rows of this benchmark.
pub fn run(rows: &mut Vec<Row>) -> Result<()> {
    let folder = folder();
    std::fs::create_dir_all(&folder)?;
    let pause = machine::compile("pause")?;
    // One after the other: both use the same addresses.
    let measured = at_rest(&folder, &pause, rows).and_then(|()| asked(&folder, &pause, rows));
    std::fs::remove_dir_all(&folder)?;
    measured
}

/// Somebody asks.
fn asked(folder: &Path, pause: &Path, rows: &mut Vec<Row>) -> Result<()> {
    let name = format!("status: {LISTENERS} listeners, {INSTANCES} instances");
    if !machine::allows_sockets(LISTENERS) {
        let why = "the limit of open files is too low";
        rows.push(Row::skipped(&name, why));
        return Ok(());
    }
    let control = folder.join("control");
    let config = machine::write_config("status", &large(pause)?)?;
    let mut listend = Process::listend_with(&config, &control)?;
    let count = INSTANCES as usize;
    listend.time_until(count, "started", |line| started_pid(line).is_some())?;
    thread::sleep(SETTLE);

    ask(&control)?;
    let times: Result<Vec<Duration>> = (0..ROUNDS).map(|_| ask(&control)).collect();
    let times = Samples::new(times?);
    rows.push(at_most(&name, &times, 0.5, MAX_TIME));
    rows.push(Row::information(&format!("{name}, all"), times.show()));

    let alone = beside(&control, || {
        thread::sleep(ALONE);
        Ok(())
    })?;
    let meanwhile = beside(&control, || {
        (0..ROUNDS).try_for_each(|_| ask(&control).map(drop))
    })?;
    let others = "status: another call meanwhile";
    rows.push(at_most(
        &format!("{others}, longest"),
        &meanwhile,
        1.0,
        MAX_HELD,
    ));
    rows.push(Row::information(others, spread(&meanwhile)));
    let others = "status: another call, nobody else";
    rows.push(Row::information(others, spread(&alone)));
    listend.stop()?;
    Ok(())
}

/// As [`idle`], with all that could be asked for and nobody asking.
fn at_rest(folder: &Path, pause: &Path, rows: &mut Vec<Row>) -> Result<()> {
    let (control, metrics) = (folder.join("control"), folder.join("metrics"));
    let yaml = format!(
        "{}workers:\n  pause:\n    command: [{}]\n    listeners: [l0]\n    output: tag\n\
         metrics: {}\n",
        Addresses::for_sockets(1)?.yaml(1),
        machine::quoted(pause)?,
        machine::quoted(Path::new(&format!("unix:{}", metrics.display())))?,
    );
    let config = machine::write_config("status-idle", &yaml)?;
    let mut listend = Process::listend_with(&config, &control)?;
    listend.time_until(1, "started", |line| started_pid(line).is_some())?;
    // Somebody asks once, so that it is what stays behind of it that is counted.
    ask(&control)?;
    thread::sleep(SETTLE);
    rows.push(idle::calls_row("status: nobody asks", &listend, &config));
    listend.stop()?;
    Ok(())
}

/// One worker for each instance takes ten listeners of its own.
pub fn large(pause: &Path) -> Result<String> {
    let mut yaml = Addresses::for_sockets(LISTENERS)?.yaml(LISTENERS);
    let share = LISTENERS / INSTANCES;
    let command = machine::quoted(pause)?;
    yaml.push_str("workers:\n");
    for worker in 0..INSTANCES {
        let names = (worker * share..(worker + 1) * share).map(|index| format!("l{index}"));
        let names: Vec<String> = names.collect();
        yaml.push_str(&format!(
            "  w{worker}:\n    command: [{command}]\n    listeners: [{}]\n",
            names.join(", ")
        ));
    }
    Ok(yaml)
}

/// For sockets: it has a short name, as the path of one has at most 107 bytes.
pub fn folder() -> PathBuf {
    std::env::temp_dir().join(format!("listend-bench-{}", std::process::id()))
}

/// The whole life of a client, with the answer read to its end.
fn ask(control: &Path) -> Result<Duration> {
    let start = Instant::now();
    let output = Command::new(machine::listend())
        .args(["status", "--json", "--control"])
        .arg(control)
        .env_clear()
        .stdin(Stdio::null())
        .output()?;
    let time = start.elapsed();
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("listend status: {}: {said}", output.status).into());
    }
    Ok(time)
}

/// How long a cheap call of somebody else takes while this is done.
pub fn beside(control: &Path, mut work: impl FnMut() -> Result<()>) -> Result<Samples> {
    let done = AtomicBool::new(false);
    let mut stream = UnixStream::connect(control)?;
    thread::scope(|scope| {
        let asks = scope.spawn(|| {
            let mut times = Vec::new();
            while !done.load(Ordering::Relaxed) || times.is_empty() {
                times.push(call(&mut stream)?);
            }
            Ok::<_, std::io::Error>(times)
        });
        let worked = work();
        done.store(true, Ordering::Relaxed);
        let times = asks.join().map_err(|_| "the client panicked")??;
        worked.map(|()| Samples::new(times))
    })
}

/// One call, and its reply up to the NUL that ends it.
pub fn call(stream: &mut UnixStream) -> std::io::Result<Duration> {
    let start = Instant::now();
    stream.write_all(CHEAP)?;
    let mut bytes = [0; 4096];
    loop {
        let count = stream.read(&mut bytes)?;
        if count == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        if bytes[..count].ends_with(b"\0") {
            return Ok(start.elapsed());
        }
    }
}

/// The quantile of these samples, which may be so many milliseconds.
pub fn at_most(name: &str, samples: &Samples, share: f64, limit: f64) -> Row {
    let value = millis(samples.quantile(share));
    Row::at_most(name, (value * 100.0).round() / 100.0, limit, "ms")
}

/// Median, 95 % and longest.
pub fn spread(samples: &Samples) -> String {
    let of = |share| millis(samples.quantile(share));
    let (median, most, longest) = (of(0.5), of(0.95), of(1.0));
    format!("{median:.2} ms, 95 % {most:.2}, longest {longest:.2}")
}
