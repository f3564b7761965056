//! `survive`: listend is upgraded, and killed, under load; what clients notice, how long nobody answers at
//! the control socket, and what it costs to be ready for it.

use crate::kill::{Tally, join, start_clients};
use crate::machine::{self, Addresses, Result};
use crate::process::{Process, is_bound_line, started_pid};
use crate::statistics::{Samples, millis};
use crate::status::{INSTANCES, LISTENERS, call, folder, large};
use crate::table::Row;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::cell::Cell;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const ALONE: Duration = Duration::from_secs(5);
const DISTURBED: Duration = Duration::from_secs(10);
/// From one upgrade, or kill, to the next.
const EVERY: Duration = Duration::from_millis(250);
/// An upgrade of a large daemon is repeated so often.
const ROUNDS: usize = 11;

/// The longest wait may be so many times the undisturbed one.
const MAX_WAIT: f64 = 2.0;
const MAX_DEAF: f64 = 300.0;
/// Private memory of the guard, in KiB.
const MAX_GUARD: f64 = 1024.0;

/// Adds the rows of this benchmark.
pub fn run(rows: &mut Vec<Row>) -> Result<()> {
    let folder = folder();
    std::fs::create_dir_all(&folder)?;
    let measured = under_load(&folder, rows).and_then(|()| large_daemon(&folder, rows));
    std::fs::remove_dir_all(&folder)?;
    measured
}

/// What clients notice.
fn under_load(folder: &Path, rows: &mut Vec<Row>) -> Result<()> {
    let addresses = Addresses::for_sockets(1)?;
    let yaml = format!(
        "{}workers:\n  hello:\n    command: [{}, hello-worker]\n    listeners: [l0]\n    instances: 2\n",
        addresses.yaml(1),
        machine::quoted(&machine::listend())?
    );
    let config = machine::write_config("survive", &yaml)?;
    let control = folder.join("control");
    let mut guard = Process::listend_guarded(&config, &control)?;
    let daemon = Cell::new(0);
    guard.time_until(3, "started", |line| {
        daemon.set(guarded_pid(line).unwrap_or(daemon.get()));
        started_pid(line).is_some() || guarded_pid(line).is_some()
    })?;
    let address = SocketAddr::V4(addresses.get(0));
    let alone = join(start_clients(address, Instant::now() + ALONE))?;
    let upgrades = disturb(address, || upgrade(&control))?;
    let kills = disturb(address, || {
        kill(Pid::from_raw(daemon.get()), Signal::SIGKILL)?;
        let end = Instant::now() + ALONE;
        while let Some(line) = guard.next_line(end)? {
            if let Some(pid) = guarded_pid(&line.text) {
                daemon.set(pid);
                return Ok(());
            }
        }
        Err("the guard has not started another daemon".into())
    })?;
    for (what, (tally, times)) in [("upgrades", &upgrades), ("kill -9", &kills)] {
        let name = |words: &str| format!("survive: {what}: {words}");
        rows.push(Row::information(&name("how often"), times.to_string()));
        let failed = tally.refused() + tally.lost() + tally.cut + tally.others();
        rows.push(Row::at_most(
            &name("clients refused, cut or lost"),
            failed as f64,
            0.0,
            "",
        ));
        let (ours, base) = (longest(tally), longest(&alone));
        rows.push(Row::compared(
            &name("longest wait of a client"),
            format!("{:.2} ms", millis(ours)),
            format!("{:.2} ms", millis(base)),
            ours.as_secs_f64() / base.as_secs_f64(),
            Some(crate::table::Target::AtMost(MAX_WAIT)),
        ));
    }
    let private = machine::private_memory(guard.pid())?;
    rows.push(Row::at_most(
        "survive: private memory of the guard",
        private as f64,
        MAX_GUARD,
        "KiB",
    ));
    let before = machine::context_switches(guard.pid())?;
    thread::sleep(ALONE);
    let woken = machine::context_switches(guard.pid())? - before;
    rows.push(Row::at_most(
        "survive: wake-ups of the guard in 5 s",
        woken as f64,
        0.0,
        "",
    ));
    guard.stop()?;
    Ok(())
}

/// Clients while this is done again and again, and how often it was.
fn disturb(address: SocketAddr, mut work: impl FnMut() -> Result<()>) -> Result<(Tally, usize)> {
    let end = Instant::now() + DISTURBED;
    let clients = start_clients(address, end);
    let mut times = 0;
    let mut done = Ok(());
    while done.is_ok() && Instant::now() + EVERY < end {
        thread::sleep(EVERY);
        done = work();
        times += 1;
    }
    let tally = join(clients)?;
    done.map(|()| (tally, times))
}

fn longest(tally: &Tally) -> Duration {
    tally.latencies.iter().copied().max().unwrap_or_default()
}

/// The process id in `guard: started listend (pid 12) with …`.
pub fn guarded_pid(line: &str) -> Option<i32> {
    let (_, rest) = line.split_once("guard: started listend (pid ")?;
    rest.split_once(')')?.0.parse().ok()
}

pub fn upgrade(control: &Path) -> Result<()> {
    let output = Command::new(machine::listend())
        .args(["upgrade", "--control"])
        .arg(control)
        .env_clear()
        .stdin(Stdio::null())
        .output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("listend upgrade: {}: {said}", output.status).into());
    }
    Ok(())
}

/// How long nobody answers.
fn large_daemon(folder: &Path, rows: &mut Vec<Row>) -> Result<()> {
    let name = format!(
        "survive: upgrade of {LISTENERS} listeners, {INSTANCES} instances: longest wait at \
                        the control socket"
    );
    if !machine::allows_sockets(LISTENERS + 3 * INSTANCES) {
        rows.push(Row::skipped(&name, "the limit of open files is too low"));
        return Ok(());
    }
    let pause = machine::compile("pause")?;
    let control = folder.join("large");
    let config = machine::write_config("survive-large", &large(&pause)?)?;
    let mut listend = Process::listend_with(&config, &control)?;
    listend.time_until(1, "bound", |line| is_bound_line(line, LISTENERS))?;
    let count = INSTANCES as usize;
    listend.time_until(count, "started", |line| started_pid(line).is_some())?;
    let done = AtomicBool::new(false);
    let waits = thread::scope(|scope| {
        let asks = scope.spawn(|| {
            let mut waits = Vec::new();
            while !done.load(Ordering::Relaxed) || waits.is_empty() {
                let start = Instant::now();
                // The connection ends with an upgrade. Another waits for the next listend.
                while UnixStream::connect(&control)
                    .and_then(|mut stream| call(&mut stream))
                    .is_err()
                {}
                waits.push(start.elapsed());
            }
            waits
        });
        let upgraded = (0..ROUNDS).try_for_each(|_| upgrade(&control));
        done.store(true, Ordering::Relaxed);
        let waits = asks.join().map_err(|_| "the client panicked")?;
        upgraded.map(|()| Samples::new(waits))
    })?;
    let longest = millis(waits.quantile(1.0));
    rows.push(Row::at_most(&name, longest, MAX_DEAF, "ms"));
    listend.stop()?;
    Ok(())
}
