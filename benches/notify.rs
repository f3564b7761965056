//! `notify`: what a worker that notifies ten thousand times a second takes from everybody else.

use crate::machine::{self, Addresses, Result};
use crate::process::Process;
use crate::status;
use crate::table::Row;

const COUNT: u32 = 50_000;
/// Milliseconds: a turn that reads what has come is to be short.
const MAX_HELD: f64 = 10.0;

/// Adds the rows of this benchmark.
pub fn run(rows: &mut Vec<Row>) -> Result<()> {
    let folder = status::folder();
    std::fs::create_dir_all(&folder)?;
    let flood = machine::compile("notify_flood")?;
    let yaml = format!(
        "{}workers:\n  flood:\n    command: [{}, '{COUNT}']\n    listeners: [l0]\n    ready: notify\n",
        Addresses::for_sockets(1)?.yaml(1),
        machine::quoted(&flood)?
    );
    let config = machine::write_config("notify", &yaml)?;
    let control = folder.join("control");
    let mut listend = Process::listend_with(&config, &control)?;
    listend.time_until(1, "ready", |line| line.contains("flood.0: ready"))?;

    let before = machine::processor_time(listend.pid())?;
    let mut took = None;
    let meanwhile = status::beside(&control, || {
        listend.time_until(1, "the end of the flood", |line| {
            took = took.or(milliseconds(line));
            took.is_some()
        })?;
        Ok(())
    })?;
    let time = machine::processor_time(listend.pid())? - before;
    let took = took.ok_or("the flood has not told its time")?;
    listend.stop()?;
    std::fs::remove_dir_all(&folder)?;

    let rate = f64::from(COUNT) / took * 1e3;
    rows.push(Row::information(
        "notify: notifications per second",
        format!("{rate:.0}"),
    ));
    let each = time.as_secs_f64() * 1e6 / f64::from(COUNT);
    let name = "notify: processor time of each, with the calls of another client";
    rows.push(Row::information(name, format!("{each:.1} µs")));
    let others = "notify: another call meanwhile";
    let longest = format!("{others}, longest");
    rows.push(status::at_most(&longest, &meanwhile, 1.0, MAX_HELD));
    rows.push(Row::information(others, status::spread(&meanwhile)));
    Ok(())
}

fn milliseconds(line: &str) -> Option<f64> {
    let (_, rest) = line.split_once("flood done in ")?;
    rest.split(' ').next()?.parse().ok()
}
