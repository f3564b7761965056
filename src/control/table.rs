//! `listend status`: what is there as a table.

use super::columns::{Cell, Column, Fit, Severity, Sheet};
use super::status::{Flows, Instance, Listener, ListenerState, Status, Worker, WorkerState};
use super::time;
use super::width::clean;
use crate::report::Style;

/// Listeners and workers, each line at most `columns` wide where the columns that cannot be cut
/// leave room. `now` is in seconds since 1970, of this machine's wall clock as `since` is.
pub fn table(status: &Status, columns: usize, style: Style, now: u64) -> String {
    let mut out = String::new();
    if !status.listeners.is_empty() {
        let mut sheet = Sheet::new(&LISTENER_COLUMNS);
        for one in &status.listeners {
            listener(&mut sheet, one);
        }
        sheet.print(&mut out, columns, style);
    }
    if !status.workers.is_empty() {
        if !out.is_empty() {
            out.push('\n');
        }
        let mut sheet = Sheet::new(&WORKER_COLUMNS);
        for one in &status.workers {
            worker(&mut sheet, one, now);
        }
        sheet.print(&mut out, columns, style);
    }
    out
}

const LISTENER_COLUMNS: [Column; 5] = [
    Column::new("LISTENER", Fit::CutMiddle),
    Column::new("ADDRESS", Fit::CutMiddle),
    Column::new("QUEUE", Fit::Right),
    Column::new("DROPS", Fit::Right),
    Column::new("STATE", Fit::Left),
];

/// The columns of [`WorkerRow`].
pub const WORKER_COLUMNS: [Column; 9] = [
    Column::new("WORKER", Fit::CutMiddle),
    Column::new("GEN", Fit::Right),
    Column::new("STATE", Fit::Left),
    Column::new("PID", Fit::Right),
    Column::new("CPU", Fit::Right),
    Column::new("MEM", Fit::Right),
    Column::new("UPTIME", Fit::Right),
    Column::new("RESTARTS", Fit::Right),
    Column::new("LAST EXIT", Fit::CutEnd),
];

/// A line for each socket; name and state stand in the first.
fn listener(sheet: &mut Sheet<5>, listener: &Listener) {
    let state = Cell::coloured(listener.state.word(), listener_severity(&listener.state));
    let mut first = Some((Cell::text(&listener.name), state));
    for socket in &listener.sockets {
        let (name, state) = first.take().unwrap_or_default();
        let queue = socket.queue.unwrap_or_default();
        sheet.row([
            name,
            Cell::text(&socket.name()),
            Cell::text(&queue.fill()),
            Cell::text(&or_dash(queue.drops)),
            state,
        ]);
        for flows in socket.flows.iter().flatten() {
            let text = Cell::text(&flows_text(flows));
            let empty = Cell::default;
            sheet.row([empty(), text, empty(), empty(), empty()]);
        }
    }
    if let Some((name, state)) = first {
        let dash = || Cell::text("-");
        sheet.row([name, Cell::default(), dash(), dash(), state]);
    }
}

/// `  17 flows with app.0, generation 2`.
fn flows_text(flows: &Flows) -> String {
    let count = match flows.count {
        Some(1) => "1 flow".to_owned(),
        count => format!("{} flows", or_dash(count)),
    };
    let with = match (&flows.instance, flows.generation) {
        (Some(instance), Some(generation)) => format!("with {instance}, generation {generation}"),
        (Some(instance), None) => format!("with {instance}"),
        (None, _) => "with no instance".to_owned(),
    };
    let new = if flows.present { ", and new ones" } else { "" };
    format!("  {count} {with}{new}")
}

/// The value as text, and `-` for none.
pub fn or_dash(some: Option<impl ToString>) -> String {
    some.map_or("-".to_owned(), |some| some.to_string())
}

/// A worker or an instance, in columns.
#[derive(Debug)]
pub struct WorkerRow {
    /// The text for each of [`WORKER_COLUMNS`].
    pub cells: [String; 9],
    /// The severity of the state, the third of the cells.
    pub severity: Severity,
}

impl WorkerRow {
    /// A worker, above its instances.
    pub fn worker(worker: &Worker) -> WorkerRow {
        let mut cells: [String; 9] = Default::default();
        cells[0].clone_from(&worker.name);
        cells[1] = worker.generation.to_string();
        worker.state.word().clone_into(&mut cells[2]);
        WorkerRow {
            cells,
            severity: worker_severity(&worker.state),
        }
    }

    /// An instance below its worker, or both in one where it is the only one.
    pub fn instance(worker: &Worker, instance: &Instance, now: u64) -> WorkerRow {
        let is_alone = worker.only_instance().is_some();
        // Its own: two generations overlap for a while. An older listend does not tell it.
        let generation = match (instance.generation, is_alone) {
            (0, true) => worker.generation.to_string(),
            (0, false) => String::new(),
            (number, _) => number.to_string(),
        };
        // The instance goes on; that the worker is degraded is what is to be seen.
        let (state, severity) = match (is_alone, &worker.state, instance.reloading) {
            (true, WorkerState::Degraded, _) => {
                (worker.state.word(), worker_severity(&worker.state))
            }
            (_, _, true) => (instance.word(), Severity::Doubtful),
            (_, _, false) => (instance.word(), worker_severity(&instance.state)),
        };
        // Without a process, `since` is when it ended, which is no uptime.
        let uptime = instance.pid.and_then(|_| time::age(&instance.since, now));
        let cells = [
            match is_alone {
                true => worker.name.clone(),
                false => format!("  {}", instance.name),
            },
            generation,
            state.to_owned(),
            or_dash(instance.pid),
            or_dash(instance.usage.map(|usage| usage.cpu())),
            or_dash(instance.usage.map(|usage| usage.memory())),
            or_dash(uptime),
            instance.restarts.to_string(),
            or_dash(instance.last_exit.as_deref()),
        ];
        WorkerRow { cells, severity }
    }

    fn print(&self, sheet: &mut Sheet<9>) {
        let mut cells = self.cells.each_ref().map(|text| Cell::text(text));
        cells[2] = Cell::coloured(&self.cells[2], self.severity);
        sheet.row(cells);
    }
}

/// Adds one line for a worker with one instance; otherwise a line for each instance below the worker's.
/// The status of an instance, the reason of a degraded worker and the counts of its connections have
/// lines of their own.
fn worker(sheet: &mut Sheet<9>, worker: &Worker, now: u64) {
    let is_alone = worker.only_instance().is_some();
    if !is_alone {
        WorkerRow::worker(worker).print(sheet);
    }
    for one in &worker.instances {
        WorkerRow::instance(worker, one, now).print(sheet);
        says(sheet, if is_alone { "  " } else { "    " }, one, now);
    }
    if let Some(setback) = &worker.setback {
        sheet.note(format!("  {}: {}", worker.setback_word(), clean(setback)));
    }
    if let Some(some) = worker.scaling {
        sheet.note(format!("  {}", some.words(worker.instances.len())));
    }
    if let Some(since) = &worker.unused_since {
        let ago = time::age(since, now).unwrap_or_default();
        sheet.note(format!(
            "  stopped without clients {ago} ago; the next one starts it"
        ));
    }
    if let Some(some) = worker.connections {
        let (live, accepted, refused) = (some.live, some.accepted, some.refused);
        let failed = match some.failures {
            0 => String::new(),
            many => format!("; the last {many} failed"),
        };
        sheet.note(format!(
            "  connections: {live} open, {accepted} accepted, {refused} refused{failed}"
        ));
    }
}

fn says(sheet: &mut Sheet<9>, indent: &str, instance: &Instance, now: u64) {
    let next = instance.next_try.as_deref();
    if let Some(left) = next.and_then(|at| time::left(at, now)) {
        sheet.note(format!("{indent}retry in {left}"));
    }
    if let Some(words) = &instance.status {
        sheet.note(format!("{indent}status: {}", clean(words)));
    }
    let kills = instance
        .usage
        .and_then(|usage| Some((usage, usage.oom_kills?)));
    if let Some((usage, kills @ 1..)) = kills {
        let peak = usage
            .peak()
            .map_or(String::new(), |peak| format!(", which had {peak} at most"));
        let processes = if kills == 1 { "process" } else { "processes" };
        sheet.note(format!(
            "{indent}OOM killer: {kills} {processes} of its control group{peak}"
        ));
    }
}

/// How bad the state of a listener is: clients that wait or are dropped may be so for a moment.
pub fn listener_severity(state: &ListenerState) -> Severity {
    match state {
        ListenerState::Listening => Severity::Good,
        ListenerState::Missing | ListenerState::Damaged | ListenerState::Unserved => Severity::Bad,
        ListenerState::Full | ListenerState::Dropping => Severity::Doubtful,
        ListenerState::Former | ListenerState::Given | ListenerState::Other(_) => Severity::Plain,
    }
}

fn worker_severity(state: &WorkerState) -> Severity {
    match state {
        WorkerState::Running => Severity::Good,
        WorkerState::Starting | WorkerState::Stopping | WorkerState::Backoff => Severity::Doubtful,
        WorkerState::Failed | WorkerState::Degraded => Severity::Bad,
        WorkerState::Waiting | WorkerState::Stopped | WorkerState::Other(_) => Severity::Plain,
    }
}
