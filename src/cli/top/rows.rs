//! The lines of the lists of `listend top`.

use super::state::TopState;
use super::style::Theme;
use crate::control::{
    Fit, Queue, Severity, Usage, WORKER_COLUMNS, Worker, WorkerRow, fitted, listener_severity,
    or_dash,
};
use ratatui::layout::Rect;
use ratatui::style::Style;
use std::collections::HashMap;
use std::ops::Range;

/// The column of the CPU time.
const CPU: usize = 4;
/// The column of the memory.
const MEMORY: usize = 5;

/// What is known of control groups, behind the memory: the most of it, and how many processes the OOM killer ended.
/// The titles, and the widths.
const OF_GROUPS: [(&str, usize); 2] = [("PEAK", 5), ("OOM", 3)];
/// A screen that is narrower has no column for the first of them.
const WIDE: usize = 100;

/// The width of the bar of a queue, in columns.
const BAR: usize = 6;

/// The marks of a bar, from empty to full.
const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
const ASCII_LEVELS: [char; 8] = ['_', '.', ':', '-', '=', '+', '*', '#'];

/// A line: texts, each in its style.
pub struct Row(pub Vec<(String, Style)>);

/// The number of lines of the listeners: one for each socket, and one for a listener without sockets.
pub fn listener_lines(top: &TopState) -> usize {
    let sockets = top
        .status
        .listeners
        .iter()
        .map(|one| one.sockets.len().max(1));
    sockets.sum()
}

/// The number of lines of the workers.
pub fn worker_lines(top: &TopState) -> usize {
    top.status.workers.iter().map(lines_of).sum()
}

fn lines_of(worker: &Worker) -> usize {
    let instances = match is_alone(worker) {
        true => 1,
        false => 1 + worker.instances.len(),
    };
    let says = worker.instances.iter();
    let says = says.filter(|one| one.status.is_some()).count();
    let notes = usize::from(worker.setback.is_some())
        + usize::from(worker.scaling.is_some())
        + usize::from(worker.unused_since.is_some())
        + usize::from(worker.connections.is_some());
    instances + says + notes
}

/// Whether the worker has one instance, so that both stand in one line.
fn is_alone(worker: &Worker) -> bool {
    worker.only_instance().is_some()
}

/// Titles, lines, and which of the lines are the chosen listener's.
pub fn listeners(top: &TopState, area: Rect, theme: Theme) -> (String, Vec<Row>, Range<usize>) {
    let all = usize::from(area.width);
    // What a wide screen has to spare shows more of the past.
    let past = (10 + all.saturating_sub(80) / 4).min(40);
    let fixed = 1 + 1 + 9 + 1 + BAR + 1 + past + 1 + 6 + 1 + 9;
    let room = all.saturating_sub(fixed + 1);
    let (name, address) = (room * 2 / 5, room - room * 2 / 5);
    let titles = [
        fitted("LISTENER", name, Fit::Left),
        fitted("ADDRESS", address, Fit::Left),
        fitted("QUEUE", 9, Fit::Right),
        fitted("", BAR, Fit::Left),
        fitted("DEPTH", past, Fit::Right),
        fitted("DROPS", 6, Fit::Right),
        fitted("STATE", 9, Fit::Left),
    ];
    let mut lines = Vec::new();
    let mut chosen = 0..0;
    for (index, one) in top.status.listeners.iter().enumerate() {
        let start = lines.len();
        let severity = listener_severity(&one.state);
        let mut first = Some((one.name.as_str(), one.state.word()));
        let sockets = one.sockets.iter();
        let none = one.sockets.is_empty().then_some(None);
        for socket in sockets.map(Some).chain(none) {
            let (called, state) = first.take().unwrap_or_default();
            let queue = socket.and_then(|socket| socket.queue).unwrap_or_default();
            let at = socket.map_or(String::new(), |socket| socket.name());
            let samples = top.samples(&one.name, &at);
            let plain = [
                fitted(called, name, Fit::CutMiddle),
                fitted(&at, address, Fit::CutMiddle),
                fitted(&queue.fill(), 9, Fit::Right),
                bar(queue, theme),
                spark(samples, past, theme),
                fitted(&or_dash(queue.drops), 6, Fit::Right),
            ];
            let state = fitted(state, 9, Fit::Left);
            lines.push(Row(vec![
                (format!(" {} ", plain.join(" ")), Style::new()),
                (state, theme.style(severity)),
            ]));
        }
        if index == top.listener_index() {
            chosen = start..lines.len();
        }
    }
    if lines.is_empty() {
        lines.push(Row(vec![(" none".to_owned(), Style::new())]));
    }
    (format!(" {}", titles.join(" ")), lines, chosen)
}

/// The bar that shows how full a queue is. A client that waits makes at least one mark.
fn bar(queue: Queue, theme: Theme) -> String {
    let (Some(depth), Some(limit @ 1..)) = (queue.depth, queue.limit) else {
        return " ".repeat(BAR);
    };
    let share = depth.min(limit).saturating_mul(BAR as u64).div_ceil(limit);
    let marks = usize::try_from(share).unwrap_or(BAR).min(BAR);
    let (full, empty) = match theme.unicode {
        true => ("█", "░"),
        false => ("#", "."),
    };
    full.repeat(marks) + &empty.repeat(BAR - marks)
}

/// The last samples, as high as the highest of them; the newest stands last.
fn spark(samples: impl DoubleEndedIterator<Item = u64>, columns: usize, theme: Theme) -> String {
    let samples: Vec<u64> = samples.rev().take(columns).collect();
    let highest = samples.iter().copied().max().unwrap_or(0).max(1);
    let levels = match theme.unicode {
        true => LEVELS,
        false => ASCII_LEVELS,
    };
    let mark = |sample: &u64| {
        let level = sample.saturating_mul(7).div_ceil(highest);
        // The highest sample has the last level.
        levels[usize::try_from(level).unwrap_or(7).min(7)]
    };
    let marks: String = samples.iter().rev().map(mark).collect();
    fitted(&marks, columns, Fit::Right)
}

/// Titles, lines, and which of the lines are the chosen worker's.
pub fn workers(
    top: &TopState,
    area: Rect,
    now: u64,
    theme: Theme,
) -> (String, Vec<Row>, Range<usize>) {
    let sheet = WorkerSheet::new(usize::from(area.width), now, theme, top);
    let titles = WORKER_COLUMNS.each_ref().map(|column| column.title);
    let of_groups = OF_GROUPS.map(|(title, _)| title);
    let titles = sheet.line(titles, of_groups, Severity::Plain).0.into_iter();
    let mut lines = Vec::new();
    let mut chosen = 0..0;
    for (index, one) in top.status.workers.iter().enumerate() {
        let start = lines.len();
        sheet.worker(one, &mut lines);
        if index == top.worker_index() {
            chosen = start..lines.len();
        }
    }
    if lines.is_empty() {
        lines.push(Row(vec![(" none".to_owned(), Style::new())]));
    }
    (titles.map(|(text, _)| text).collect(), lines, chosen)
}

/// The sheet from which the lines of the workers are made.
struct WorkerSheet<'a> {
    all: usize,
    columns: [usize; 9],
    /// The first of [`OF_GROUPS`] that is shown.
    of_groups: usize,
    now: u64,
    theme: Theme,
    shares: &'a HashMap<u32, u64>,
}

impl WorkerSheet<'_> {
    fn new(all: usize, now: u64, theme: Theme, top: &TopState) -> WorkerSheet<'_> {
        let instances = top.status.workers.iter().flat_map(|one| &one.instances);
        let mut usage = instances.filter_map(|one| one.usage);
        let has_groups = usage.any(|one| one.memory_peak_bytes.or(one.oom_kills).is_some());
        let of_groups = match has_groups {
            false => OF_GROUPS.len(),
            true => usize::from(all < WIDE),
        };
        let more = OF_GROUPS.iter().skip(of_groups).map(|(_, width)| 1 + width);
        let fixed = 1 + 1 + 4 + 1 + 9 + 1 + 7 + 1 + 5 + 1 + 5 + 1 + 7 + 1 + 8 + 1;
        let room = all.saturating_sub(fixed + more.sum::<usize>() + 1);
        let (name, last) = (room * 3 / 5, room - room * 3 / 5);
        WorkerSheet {
            all,
            columns: [name, 4, 9, 7, 5, 5, 7, 8, last],
            of_groups,
            now,
            theme,
            shares: &top.shares,
        }
    }

    fn line(&self, cells: [&str; 9], of_groups: [&str; 2], severity: Severity) -> Row {
        let columns = self.columns.iter().zip(&WORKER_COLUMNS);
        let cells = cells.iter().zip(columns);
        let cells = cells.map(|(text, (columns, of))| fitted(text, *columns, of.fit));
        let mut cells: Vec<String> = cells.collect();
        let more = of_groups.iter().zip(OF_GROUPS).skip(self.of_groups);
        let more = more.map(|(text, (_, width))| fitted(text, width, Fit::Right));
        cells.splice(MEMORY + 1..MEMORY + 1, more);
        // There are nine, and more.
        let (before, rest) = cells.split_at(2);
        let (state, behind) = rest.split_at(1);
        Row(vec![
            (format!(" {} ", before.join(" ")), Style::new()),
            (state.concat(), self.theme.style(severity)),
            (format!(" {}", behind.join(" ")), Style::new()),
        ])
    }

    fn row(&self, row: &WorkerRow, usage: Option<Usage>) -> Row {
        let peak = usage.and_then(|usage| usage.peak());
        let killed = usage.and_then(|usage| usage.oom_kills);
        let killed = killed.map(|killed| killed.to_string());
        let of_groups = [peak, killed].map(Option::unwrap_or_default);
        let cells = row.cells.each_ref().map(String::as_str);
        let of_groups = of_groups.each_ref().map(String::as_str);
        self.line(cells, of_groups, row.severity)
    }

    /// Words across the columns.
    fn note(&self, words: &str) -> Row {
        Row(vec![(fitted(words, self.all, Fit::Left), Style::new())])
    }

    fn worker(&self, worker: &Worker, lines: &mut Vec<Row>) {
        if !is_alone(worker) {
            lines.push(self.row(&WorkerRow::worker(worker), None));
        }
        for instance in &worker.instances {
            let mut row = WorkerRow::instance(worker, instance, self.now);
            // Here it is what is used at the moment.
            let share = instance.pid.and_then(|pid| self.shares.get(&pid));
            row.cells[CPU] = or_dash(share.map(|share| format!("{share}%")));
            lines.push(self.row(&row, instance.usage));
            if let Some(words) = &instance.status {
                let indent = if is_alone(worker) { "   " } else { "     " };
                lines.push(self.note(&format!("{indent}status: {words}")));
            }
        }
        if let Some(setback) = &worker.setback {
            let what = worker.setback_word();
            lines.push(self.note(&format!("   {what}: {setback}")));
        }
        if let Some(some) = worker.scaling {
            let words = some.words(worker.instances.len());
            lines.push(self.note(&format!("   {words}")));
        }
        if let Some(since) = &worker.unused_since {
            let ago = crate::control::age(since, self.now).unwrap_or_default();
            lines.push(self.note(&format!("   stopped without clients {ago} ago")));
        }
        if let Some(some) = worker.connections {
            let (live, accepted, refused) = (some.live, some.accepted, some.refused);
            let words = format!("   {live} open, {accepted} accepted, {refused} refused");
            lines.push(self.note(&words));
        }
    }
}
