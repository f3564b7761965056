//! `on-demand`: from connect to the first byte when the worker has to be started first.

use crate::load::connect;
use crate::machine::{self, Addresses, Result};
use crate::process::{Process, is_bound_line};
use crate::statistics::{Samples, in_turn, millis};
use crate::table::{Row, Target};
use std::io::Read;
use std::net::SocketAddr;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

const STARTS: usize = 500;
const MAX_RATIO: f64 = 1.3;

/// How long the end of a worker may take after its connection has ended.
const EXIT_PATIENCE: Duration = Duration::from_secs(5);

/// Between two looks at the children of a program.
const EXIT_STEP: Duration = Duration::from_micros(200);

/// From the end of a worker until its supervisor certainly sleeps again: what is measured is a
/// start, not how long the supervisor was still busy with the exit before it.
const SETTLE: Duration = Duration::from_millis(2);

/// Adds the rows of this benchmark.
pub fn run(rows: &mut Vec<Row>) -> Result<()> {
    let worker = machine::compile("greet_one")?;
    let addresses = Addresses::for_sockets(2)?;
    let config = machine::write_config("on-demand", &yaml(addresses, &worker)?)?;
    let mut listend = Process::listend(&config)?;
    listend.time_until(1, "bound", |line| is_bound_line(line, 1))?;
    let bare = Process::c_loop("demand_loop", addresses.get(1), &worker)?;

    let (ours, baseline) = in_turn(
        STARTS,
        || cold_start(&listend, SocketAddr::V4(addresses.get(0))),
        || cold_start(&bare, SocketAddr::V4(addresses.get(1))),
    )?;
    let (ours, baseline) = (Samples::new(ours), Samples::new(baseline));
    for (what, share, target) in [
        ("median", 0.5, Some(Target::AtMost(MAX_RATIO))),
        ("95 %", 0.95, None),
    ] {
        let (ours, baseline) = (ours.quantile(share), baseline.quantile(share));
        let show = |time: Duration| format!("{:.0} µs", millis(time) * 1e3);
        rows.push(Row::compared(
            &format!("on-demand: connect to first byte, {what} of {STARTS}"),
            show(ours),
            show(baseline),
            ours.as_secs_f64() / baseline.as_secs_f64(),
            target,
        ));
    }
    listend.stop()?;
    Ok(())
}

fn yaml(addresses: Addresses, worker: &Path) -> Result<String> {
    Ok(format!(
        "{}workers:\n  greet:\n    command: [{}]\n    listeners: [l0]\n    \
         activation: on-demand\n    trigger_limit: none\n",
        addresses.yaml(1),
        machine::quoted(worker)?
    ))
}

/// The time from before connect to the first byte. Returns when the worker has gone, been waited
/// for, and its supervisor had time to wait for the next client.
pub fn cold_start(supervisor: &Process, address: SocketAddr) -> Result<Duration> {
    let start = Instant::now();
    let mut stream = connect(address)?;
    let mut answer = Vec::new();
    stream.read_exact(&mut [0])?;
    let time = start.elapsed();
    stream.read_to_end(&mut answer)?;

    let deadline = Instant::now() + EXIT_PATIENCE;
    while !machine::children(supervisor.pid()).is_empty() {
        if Instant::now() > deadline {
            return Err(format!("a worker still runs after {EXIT_PATIENCE:?}").into());
        }
        thread::sleep(EXIT_STEP);
    }
    thread::sleep(SETTLE);
    Ok(time)
}
