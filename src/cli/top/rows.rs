//! The lines of the lists of `listend top`.

use super::state::Top;
use super::style::{Look, Mood};
use crate::control::{
    Instance, ListenerState, Queue, Worker, WorkerState, age, clean, cut_end, cut_middle, width,
};
use ratatui::layout::Rect;
use ratatui::style::Style;
use std::ops::Range;

/// How wide the bar of a queue is.
const BAR: usize = 6;

/// From empty to full.
const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
const ASCII_LEVELS: [char; 8] = ['_', '.', ':', '-', '=', '+', '*', '#'];

/// A line: texts, each in its style.
pub struct Row(pub Vec<(String, Style)>);

/// On which side of its column a text stands.
#[derive(Clone, Copy)]
enum Side {
    Left,
    Right,
}

/// What stands in a column: padded, and cut if it has to be.
fn cell(text: &str, columns: usize, side: Side) -> String {
    let text = cut_end(text, columns);
    let padding = " ".repeat(columns.saturating_sub(width(&text)));
    match side {
        Side::Left => text + &padding,
        Side::Right => padding + &text,
    }
}

/// How many lines the listeners have: one for each socket, and one for what has none.
pub fn listener_lines(top: &Top) -> usize {
    let sockets = top
        .status
        .listeners
        .iter()
        .map(|one| one.sockets.len().max(1));
    sockets.sum()
}

/// How many lines the workers have.
pub fn worker_lines(top: &Top) -> usize {
    top.status.workers.iter().map(lines_of).sum()
}

fn lines_of(worker: &Worker) -> usize {
    let instances = match is_alone(worker) {
        true => 1,
        false => 1 + worker.instances.len(),
    };
    let says = worker.instances.iter();
    let says = says.filter(|one| one.status.is_some()).count();
    let notes = usize::from(worker.setback.is_some()) + usize::from(worker.connections.is_some());
    instances + says + notes
}

/// Whether it has one instance, and both fit in a line.
fn is_alone(worker: &Worker) -> bool {
    worker.only_instance().is_some()
}

/// Titles, lines, and which of the lines are the chosen listener's.
pub fn listeners(top: &Top, area: Rect, look: Look) -> (String, Vec<Row>, Range<usize>) {
    let all = usize::from(area.width);
    // What a wide screen has to spare shows more of the past.
    let past = (10 + all.saturating_sub(80) / 4).min(40);
    let fixed = 1 + 1 + 9 + 1 + BAR + 1 + past + 1 + 6 + 1 + 9;
    let room = all.saturating_sub(fixed + 1);
    let (name, address) = (room * 2 / 5, room - room * 2 / 5);
    let titles = [
        cell("LISTENER", name, Side::Left),
        cell("ADDRESS", address, Side::Left),
        cell("QUEUE", 9, Side::Right),
        cell("", BAR, Side::Left),
        cell("DEPTH", past, Side::Right),
        cell("DROPS", 6, Side::Right),
        cell("STATE", 9, Side::Left),
    ];
    let mut lines = Vec::new();
    let mut chosen = 0..0;
    for (index, one) in top.status.listeners.iter().enumerate() {
        let start = lines.len();
        let mood = listener_mood(&one.state);
        let mut first = Some((clean(&one.name), one.state.word()));
        let sockets = one.sockets.iter();
        let none = one.sockets.is_empty().then_some(None);
        for socket in sockets.map(Some).chain(none) {
            let (called, state) = first.take().unwrap_or_default();
            let queue = socket.and_then(|socket| socket.queue).unwrap_or_default();
            let at = socket.map_or("", |socket| &socket.address);
            let samples = top.samples(&one.name, at);
            let plain = [
                cell(&cut_middle(&called, name), name, Side::Left),
                cell(&cut_middle(&clean(at), address), address, Side::Left),
                cell(&fill(queue), 9, Side::Right),
                bar(queue, look),
                spark(samples, past, look),
                cell(&number(queue.drops), 6, Side::Right),
            ];
            let state = cell(&clean(state), 9, Side::Left);
            lines.push(Row(vec![
                (format!(" {} ", plain.join(" ")), Style::new()),
                (state, look.style(mood)),
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

fn number(number: Option<impl ToString>) -> String {
    number.map_or("-".to_owned(), |number| number.to_string())
}

/// `3/4096`, and `-` for what is unknown.
fn fill(queue: Queue) -> String {
    match (queue.depth, queue.limit) {
        (None, None) => "-".to_owned(),
        (Some(depth), None) => depth.to_string(),
        (depth, Some(limit)) => format!("{}/{limit}", number(depth)),
    }
}

/// How full the queue is. Whoever waits makes at least one mark.
fn bar(queue: Queue, look: Look) -> String {
    let (Some(depth), Some(limit @ 1..)) = (queue.depth, queue.limit) else {
        return " ".repeat(BAR);
    };
    let share = depth.min(limit).saturating_mul(BAR as u64).div_ceil(limit);
    let marks = usize::try_from(share).unwrap_or(BAR).min(BAR);
    let (full, empty) = match look.unicode {
        true => ("█", "░"),
        false => ("#", "."),
    };
    full.repeat(marks) + &empty.repeat(BAR - marks)
}

/// The last samples, as high as the highest of them; the newest stands last.
fn spark(samples: impl DoubleEndedIterator<Item = u64>, columns: usize, look: Look) -> String {
    let samples: Vec<u64> = samples.rev().take(columns).collect();
    let highest = samples.iter().copied().max().unwrap_or(0).max(1);
    let levels = match look.unicode {
        true => LEVELS,
        false => ASCII_LEVELS,
    };
    let mark = |sample: &u64| {
        let level = sample.saturating_mul(7).div_ceil(highest);
        // The highest sample has the last level.
        levels[usize::try_from(level).unwrap_or(7).min(7)]
    };
    let marks: String = samples.iter().rev().map(mark).collect();
    cell(&marks, columns, Side::Right)
}

/// Titles, lines, and which of the lines are the chosen worker's.
pub fn workers(top: &Top, area: Rect, now: u64, look: Look) -> (String, Vec<Row>, Range<usize>) {
    let sheet = WorkerSheet::new(usize::from(area.width), now, look);
    let titles = [
        "WORKER",
        "GEN",
        "STATE",
        "PID",
        "UPTIME",
        "RESTARTS",
        "LAST EXIT",
    ];
    let titles = sheet.line(titles, Mood::Plain).0.into_iter();
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

/// How the lines of the workers are made.
struct WorkerSheet {
    all: usize,
    columns: [usize; 7],
    now: u64,
    look: Look,
}

impl WorkerSheet {
    fn new(all: usize, now: u64, look: Look) -> WorkerSheet {
        let fixed = 1 + 1 + 4 + 1 + 9 + 1 + 7 + 1 + 7 + 1 + 8 + 1;
        let room = all.saturating_sub(fixed + 1);
        let (name, last) = (room / 2, room - room / 2);
        WorkerSheet {
            all,
            columns: [name, 4, 9, 7, 7, 8, last],
            now,
            look,
        }
    }

    fn line(&self, cells: [&str; 7], mood: Mood) -> Row {
        let [called, generation, state, pid, uptime, restarts, exit] = cells;
        let [a, b, c, d, e, f, g] = self.columns;
        let before = [
            cell(&cut_middle(called, a), a, Side::Left),
            cell(generation, b, Side::Right),
        ];
        let behind = [
            cell(pid, d, Side::Right),
            cell(uptime, e, Side::Right),
            cell(restarts, f, Side::Right),
            cell(exit, g, Side::Left),
        ];
        Row(vec![
            (format!(" {} ", before.join(" ")), Style::new()),
            (cell(state, c, Side::Left), self.look.style(mood)),
            (format!(" {}", behind.join(" ")), Style::new()),
        ])
    }

    /// Words across the columns.
    fn note(&self, words: &str) -> Row {
        Row(vec![(cell(words, self.all, Side::Left), Style::new())])
    }

    fn worker(&self, worker: &Worker, lines: &mut Vec<Row>) {
        if !is_alone(worker) {
            let (name, word) = (clean(&worker.name), clean(worker.state.word()));
            let generation = worker.generation.to_string();
            let cells = [&name, &generation, &word, "", "", "", ""];
            lines.push(self.line(cells, worker_mood(&worker.state)));
        }
        for instance in &worker.instances {
            lines.push(self.instance(worker, instance));
            if let Some(words) = &instance.status {
                let indent = if is_alone(worker) { "   " } else { "     " };
                lines.push(self.note(&format!("{indent}says: {}", clean(words))));
            }
        }
        if let Some(setback) = &worker.setback {
            let what = worker.setback_word();
            lines.push(self.note(&format!("   {what}: {}", clean(setback))));
        }
        if let Some(some) = worker.connections {
            let (live, accepted, refused) = (some.live, some.accepted, some.refused);
            let words = format!("   {live} open, {accepted} accepted, {refused} refused");
            lines.push(self.note(&words));
        }
    }

    fn instance(&self, worker: &Worker, instance: &Instance) -> Row {
        // Its own: two generations overlap for a while. An older listend does not tell it.
        let generation = match (instance.generation, is_alone(worker)) {
            (0, true) => worker.generation.to_string(),
            (0, false) => String::new(),
            (number, _) => number.to_string(),
        };
        let called = match is_alone(worker) {
            true => clean(&worker.name),
            false => format!("  {}", clean(&instance.name)),
        };
        let [mut word, pid, uptime, restarts, exit] = words(instance, self.now);
        let mut mood = match instance.reloading {
            true => Mood::Doubtful,
            false => worker_mood(&instance.state),
        };
        // The instance goes on; that the worker is degraded is what is to be seen.
        if is_alone(worker) && worker.state == WorkerState::Degraded {
            word = clean(worker.state.word());
            mood = worker_mood(&worker.state);
        }
        let cells = [&called, &generation, &word, &pid, &uptime, &restarts, &exit];
        self.line(cells.map(String::as_str), mood)
    }
}

/// State, process, uptime, restarts, last exit.
fn words(instance: &Instance, now: u64) -> [String; 5] {
    // Without a process, `since` is when it ended, which is no uptime.
    let uptime = instance.pid.and_then(|_| age(&instance.since, now));
    [
        clean(instance.word()),
        number(instance.pid),
        uptime.unwrap_or_else(|| "-".to_owned()),
        instance.restarts.to_string(),
        clean(instance.last_exit.as_deref().unwrap_or("-")),
    ]
}

fn listener_mood(state: &ListenerState) -> Mood {
    match state {
        ListenerState::Listening => Mood::Good,
        ListenerState::Missing
        | ListenerState::Damaged
        | ListenerState::Full
        | ListenerState::Unserved
        | ListenerState::Dropping => Mood::Bad,
        ListenerState::Former | ListenerState::Other(_) => Mood::Plain,
    }
}

fn worker_mood(state: &WorkerState) -> Mood {
    match state {
        WorkerState::Running => Mood::Good,
        WorkerState::Starting | WorkerState::Stopping | WorkerState::Backoff => Mood::Doubtful,
        WorkerState::Failed | WorkerState::Degraded => Mood::Bad,
        WorkerState::Waiting | WorkerState::Stopped | WorkerState::Other(_) => Mood::Plain,
    }
}
