//! `listend status`: what is there as a table.

use super::status::{Instance, Listener, ListenerState, Queue, Status, Worker, WorkerState};
use super::time;
use super::width::{clean, cut_end, cut_middle, width};
use crate::report::Style;

/// Between two columns.
const GAP: &str = "  ";
/// No column that is cut gets narrower, whatever the terminal.
const NARROWEST: usize = 8;

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

const WORKER_COLUMNS: [Column; 7] = [
    Column::new("WORKER", Fit::CutMiddle),
    Column::new("GEN", Fit::Right),
    Column::new("STATE", Fit::Left),
    Column::new("PID", Fit::Right),
    Column::new("UPTIME", Fit::Right),
    Column::new("RESTARTS", Fit::Right),
    Column::new("LAST EXIT", Fit::CutEnd),
];

/// A line for each socket; name and state stand in the first.
fn listener(sheet: &mut Sheet<5>, listener: &Listener) {
    let state = Cell::coloured(listener.state.word(), listener_colour(&listener.state));
    let mut first = Some((Cell::text(&listener.name), state));
    for socket in &listener.sockets {
        let (name, state) = first.take().unwrap_or_default();
        let queue = socket.queue.unwrap_or_default();
        sheet.row([
            name,
            Cell::text(&socket.address),
            Cell::text(&fill(queue)),
            Cell::number(queue.drops),
            state,
        ]);
    }
    if let Some((name, state)) = first {
        sheet.row([name, Cell::default(), Cell::dash(), Cell::dash(), state]);
    }
}

/// `3/4096`, and `-` for what is unknown.
fn fill(queue: Queue) -> String {
    match (queue.depth, queue.limit) {
        (None, None) => "-".to_owned(),
        (Some(depth), None) => depth.to_string(),
        (Some(depth), Some(limit)) => format!("{depth}/{limit}"),
        (None, Some(limit)) => format!("-/{limit}"),
    }
}

/// One line for a worker with one instance; otherwise a line for each instance
/// below the worker's. What an instance says about itself, why the worker is degraded, and what its
/// connections did have lines of their own.
fn worker(sheet: &mut Sheet<7>, worker: &Worker, now: u64) {
    let name = Cell::text(&worker.name);
    let generation = || Cell::text(&worker.generation.to_string());
    match worker.only_instance() {
        Some(only) => {
            let generation = generation_of(only).unwrap_or_else(generation);
            let mut row = instance(name, generation, only, now);
            // The instance goes on; that the worker is degraded is what is to be seen.
            if worker.state == WorkerState::Degraded {
                row[2] = worker_state(worker);
            }
            sheet.row(row);
            says(sheet, "  ", only, now);
        }
        None => {
            let mut row: [Cell; 7] = Default::default();
            [row[0], row[1], row[2]] = [name, generation(), worker_state(worker)];
            sheet.row(row);
            for one in &worker.instances {
                let name = Cell::text(&format!("  {}", one.name));
                let generation = generation_of(one).unwrap_or_default();
                sheet.row(instance(name, generation, one, now));
                says(sheet, "    ", one, now);
            }
        }
    }
    if let Some(setback) = &worker.setback {
        sheet.note(format!("  {}: {}", worker.setback_word(), clean(setback)));
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

/// Its own: two generations overlap for a while. An older listend does not tell it.
fn generation_of(instance: &Instance) -> Option<Cell> {
    (instance.generation > 0).then(|| Cell::text(&instance.generation.to_string()))
}

fn worker_state(worker: &Worker) -> Cell {
    Cell::coloured(worker.state.word(), worker_colour(&worker.state))
}

fn says(sheet: &mut Sheet<7>, indent: &str, instance: &Instance, now: u64) {
    let next = instance.next_try.as_deref();
    if let Some(left) = next.and_then(|at| time::left(at, now)) {
        sheet.note(format!("{indent}next try in {left}"));
    }
    if let Some(words) = &instance.status {
        sheet.note(format!("{indent}says: {}", clean(words)));
    }
}

fn instance(name: Cell, generation: Cell, instance: &Instance, now: u64) -> [Cell; 7] {
    // Without a process, `since` is when it ended, which is no uptime.
    let uptime = instance.pid.and_then(|_| time::age(&instance.since, now));
    [
        name,
        generation,
        Cell::coloured(instance.word(), instance_colour(instance)),
        Cell::number(instance.pid),
        uptime.map_or(Cell::dash(), |words| Cell::text(&words)),
        Cell::text(&instance.restarts.to_string()),
        Cell::text(instance.last_exit.as_deref().unwrap_or("-")),
    ]
}

fn listener_colour(state: &ListenerState) -> Colour {
    match state {
        ListenerState::Listening => Colour::Good,
        ListenerState::Missing | ListenerState::Damaged | ListenerState::Unserved => Colour::Bad,
        ListenerState::Full | ListenerState::Dropping => Colour::Doubtful,
        ListenerState::Former | ListenerState::Other(_) => Colour::None,
    }
}

fn instance_colour(instance: &Instance) -> Colour {
    match instance.reloading {
        true => Colour::Doubtful,
        false => worker_colour(&instance.state),
    }
}

fn worker_colour(state: &WorkerState) -> Colour {
    match state {
        WorkerState::Running => Colour::Good,
        WorkerState::Starting | WorkerState::Stopping | WorkerState::Backoff => Colour::Doubtful,
        WorkerState::Failed | WorkerState::Degraded => Colour::Bad,
        WorkerState::Waiting | WorkerState::Stopped | WorkerState::Other(_) => Colour::None,
    }
}

#[derive(Debug, Clone, Copy, Default)]
enum Colour {
    #[default]
    None,
    Good,
    Doubtful,
    Bad,
}

impl Colour {
    fn escape(self) -> Option<&'static str> {
        match self {
            Colour::None => None,
            Colour::Good => Some("\x1b[32m"),
            Colour::Doubtful => Some("\x1b[33m"),
            Colour::Bad => Some("\x1b[1;31m"),
        }
    }
}

/// What becomes of a column where the line is too long, and on which side its text stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fit {
    /// Never cut.
    Left,
    /// Never cut.
    Right,
    /// The start and the end are kept.
    CutMiddle,
    /// The start is kept.
    CutEnd,
}

struct Column {
    title: &'static str,
    fit: Fit,
}

impl Column {
    const fn new(title: &'static str, fit: Fit) -> Column {
        Column { title, fit }
    }

    fn can_be_cut(&self) -> bool {
        match self.fit {
            Fit::Left | Fit::Right => false,
            Fit::CutMiddle | Fit::CutEnd => true,
        }
    }
}

#[derive(Default)]
struct Cell {
    text: String,
    width: usize,
    colour: Colour,
}

impl Cell {
    fn text(text: &str) -> Cell {
        Cell::coloured(text, Colour::None)
    }

    fn coloured(text: &str, colour: Colour) -> Cell {
        let text = clean(text);
        let width = width(&text);
        Cell {
            text,
            width,
            colour,
        }
    }

    fn dash() -> Cell {
        Cell::text("-")
    }

    fn number(number: Option<impl ToString>) -> Cell {
        number.map_or(Cell::dash(), |number| Cell::text(&number.to_string()))
    }
}

/// Lines, and how wide each column would like to be.
struct Sheet<const N: usize> {
    columns: &'static [Column; N],
    wanted: [usize; N],
    lines: Vec<Line<N>>,
}

enum Line<const N: usize> {
    /// A cell for each column.
    Row([Cell; N]),
    /// Words across the columns.
    Note(String),
}

impl<const N: usize> Sheet<N> {
    fn new(columns: &'static [Column; N]) -> Sheet<N> {
        let mut sheet = Sheet {
            columns,
            wanted: [0; N],
            lines: Vec::new(),
        };
        sheet.row(columns.each_ref().map(|column| Cell::text(column.title)));
        sheet
    }

    fn row(&mut self, cells: [Cell; N]) {
        for (wanted, cell) in self.wanted.iter_mut().zip(&cells) {
            *wanted = (*wanted).max(cell.width);
        }
        self.lines.push(Line::Row(cells));
    }

    fn note(&mut self, words: String) {
        self.lines.push(Line::Note(words));
    }

    fn print(self, out: &mut String, line: usize, style: Style) {
        let widths = self.widths(line);
        for one in &self.lines {
            match one {
                Line::Row(cells) => self.print_row(out, cells, widths, style),
                Line::Note(words) => out.push_str(&cut_end(words, line)),
            }
            out.push('\n');
        }
    }

    fn print_row(&self, out: &mut String, cells: &[Cell; N], widths: [usize; N], style: Style) {
        // Blanks are written only when something follows: lines do not end in them.
        let mut blanks = 0;
        for ((cell, column), width) in cells.iter().zip(self.columns).zip(widths) {
            let (text, used) = fitted(cell, column, width);
            let padding = width.saturating_sub(used);
            let (before, after) = match column.fit {
                Fit::Right => (padding, 0),
                Fit::Left | Fit::CutMiddle | Fit::CutEnd => (0, padding),
            };
            blanks += before;
            if used > 0 {
                out.extend(std::iter::repeat_n(' ', blanks));
                blanks = 0;
                paint(out, &text, cell.colour, style);
            }
            blanks += after + GAP.len();
        }
    }

    /// Those that can be cut share what the others leave: none gets more than it wants, and what
    /// one does not want goes to the others.
    fn widths(&self, line: usize) -> [usize; N] {
        let mut widths = self.wanted;
        let mut room = line.saturating_sub(GAP.len() * (N - 1));
        let mut flexible = Vec::new();
        for (index, column) in self.columns.iter().enumerate() {
            match column.can_be_cut() {
                true => flexible.push(index),
                false => room = room.saturating_sub(widths[index]),
            }
        }
        flexible.sort_by_key(|index| widths[*index]);
        let mut left = flexible.len();
        for index in flexible {
            // Never zero: it counts those that are not served yet, this one included.
            let share = (room / left).max(NARROWEST);
            widths[index] = widths[index].min(share);
            room = room.saturating_sub(widths[index]);
            left -= 1;
        }
        widths
    }
}

/// The text as it is shown, and its width.
fn fitted(cell: &Cell, column: &Column, columns: usize) -> (String, usize) {
    if cell.width <= columns {
        return (cell.text.clone(), cell.width);
    }
    let text = match column.fit {
        Fit::Left | Fit::Right => cell.text.clone(),
        Fit::CutMiddle => cut_middle(&cell.text, columns),
        Fit::CutEnd => cut_end(&cell.text, columns),
    };
    let used = width(&text);
    (text, used)
}

fn paint(out: &mut String, text: &str, colour: Colour, style: Style) {
    match (colour.escape(), style) {
        (Some(escape), Style::Colour) => {
            out.push_str(escape);
            out.push_str(text);
            out.push_str("\x1b[0m");
        }
        (None, Style::Colour) | (_, Style::Plain) => out.push_str(text),
    }
}
