//! `shards`: `distribute: shards` beside one shared socket, with the same workers and the same clients.
//!
//! listend is on no client's way in either mode: what is compared is the kernel with one accept queue for
//! all instances, and with one for each. The two have their rounds in turn.

use crate::harness::load::Load;
use crate::harness::{Daemon, World};
use crate::machine::{self, Result};
use crate::statistics::Samples;
use crate::table::Row;
use std::time::Duration;

/// Twice as many as there are instances.
const CLIENTS: usize = 8;
const INSTANCES: usize = 4;
/// One round is thrown away.
const ROUNDS: usize = 6;
/// How many clients are answered in a round.
const ANSWERS: usize = 2000;
/// What is asked of the largest share beside the smallest.
const FAIR: f64 = 1.2;

const MODES: [&str; 2] = ["shards", "shared"];

/// Adds the rows of this benchmark.
pub fn run(rows: &mut Vec<Row>) -> Result<()> {
    crate::restart::build_worker()?;
    let app = "[$PROBE, serve-app, --version, pid]";
    compare(rows, "probe", app, "nonblocking: true\n    ready: notify")?;
    let gunicorn = machine::target_dir().join("venv/bin/gunicorn");
    match gunicorn.is_file() {
        true => {
            let command = format!(
                "[{}, --chdir, $DIR, --workers, '1', --log-level, error, 'app:app']",
                gunicorn.display()
            );
            compare(rows, "gunicorn", &command, "preset: gunicorn")
        }
        false => {
            rows.push(Row::skipped("shards: gunicorn", "not installed"));
            Ok(())
        }
    }
}

/// What one mode has shown.
#[derive(Default)]
struct Seen {
    /// The time of a round.
    rounds: Vec<Duration>,
    median: Vec<Duration>,
    slowest: Vec<Duration>,
    unfairness: Vec<f64>,
}

fn compare(rows: &mut Vec<Row>, name: &str, command: &str, lines: &str) -> Result<()> {
    let worlds = MODES.map(|_| World::new());
    let daemons: Vec<Daemon> = worlds
        .iter()
        .zip(MODES)
        .map(|(world, mode)| start(world, command, lines, mode))
        .collect();
    let mut seen: [Seen; 2] = Default::default();
    for round in 0..=ROUNDS {
        for (daemon, seen) in daemons.iter().zip(&mut seen) {
            let load = Load::start(daemon.address("web"), CLIENTS);
            load.wait_for_answers(ANSWERS);
            let summary = load.stop();
            if summary.counts.failed() > 0 {
                return Err(format!("{name}: {summary}").into());
            }
            if round == 0 {
                continue;
            }
            let shares = summary.versions.values();
            let (least, most) = (shares.clone().min(), shares.max());
            let all = summary.versions.len() == INSTANCES;
            let ratio = match (least, most) {
                (Some(least), Some(most)) if all => *most as f64 / *least as f64,
                // One has served nobody at all.
                _ => f64::INFINITY,
            };
            seen.unfairness.push(ratio);
            let one = summary.time.as_secs_f64() / summary.counts.answered as f64;
            seen.rounds.push(Duration::from_secs_f64(one));
            seen.median.push(summary.quantile(0.5));
            seen.slowest.push(summary.quantile(0.99));
        }
    }
    daemons.iter().for_each(Daemon::stop);
    let [shards, shared] = seen;
    let name = format!("shards: {name}");
    let fair = [&shards, &shared].map(|seen| median(&seen.unfairness));
    let what = format!("{name}, largest share / smallest");
    let row = Row::at_most(&what, fair[0], FAIR, "");
    rows.push(row.beside(format!("{:.2}", fair[1])));
    let pairs = [
        ("time for a client", &shards.rounds, &shared.rounds),
        ("p50", &shards.median, &shared.median),
        ("p99", &shards.slowest, &shared.slowest),
    ];
    for (what, shards, shared) in pairs {
        let samples = |all: &Vec<Duration>| Samples::new(all.iter().copied());
        let what = format!("{name}, {what}");
        rows.push(Row::ratio(&what, &samples(shards), &samples(shared), None));
    }
    Ok(())
}

fn start(world: &World, command: &str, lines: &str, mode: &str) -> Daemon {
    world.write("app.py", APP);
    let yaml = format!(
        "
listeners: {{ web: '127.0.0.1:0' }}
workers:
  app:
    command: {command}
    listeners: [web]
    instances: {INSTANCES}
    distribute: {mode}
    {lines}
"
    );
    let daemon = world.run(&yaml);
    daemon.line(&["every eager worker"]);
    daemon
}

/// Tells which instance answers: the parent of what runs it.
const APP: &str = "
import os
BODY = b'%d ' % os.getppid() + b'.' * 240
def app(environ, start_response):
    start_response('200 OK', [('Content-Length', str(len(BODY))), ('Connection', 'close')])
    return [BODY]
";

fn median(all: &[f64]) -> f64 {
    let mut all = all.to_vec();
    all.sort_by(f64::total_cmp);
    all.get(all.len() / 2).copied().unwrap_or(f64::NAN)
}
