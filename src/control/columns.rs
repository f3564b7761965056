//! Text in columns: how wide each is, and how a text is cut and padded to fit.

use super::width::{clean, cut_end, cut_middle, width};
use crate::report::Style;

/// Between two columns.
const GAP: &str = "  ";
/// No column that is cut gets narrower, whatever the terminal.
const NARROWEST: usize = 8;

/// The severity of a state, for its colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Severity {
    /// Neither good nor bad.
    #[default]
    Plain,
    /// In order.
    Good,
    /// In transition.
    Doubtful,
    /// In need of attention.
    Bad,
}

impl Severity {
    fn escape(self) -> Option<&'static str> {
        match self {
            Severity::Plain => None,
            Severity::Good => Some("\x1b[32m"),
            Severity::Doubtful => Some("\x1b[33m"),
            Severity::Bad => Some("\x1b[1;31m"),
        }
    }
}

/// The alignment of a column, and whether it is cut where the line is too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// A [`Sheet`] makes it as wide as its widest text.
    Left,
    /// As [`Fit::Left`], with the text on the right.
    Right,
    /// The start and the end are kept.
    CutMiddle,
    /// The start is kept.
    CutEnd,
}

impl Fit {
    fn cut(self, text: &str, columns: usize) -> String {
        match self {
            Fit::CutMiddle => cut_middle(text, columns),
            Fit::Left | Fit::Right | Fit::CutEnd => cut_end(text, columns),
        }
    }

    /// The blanks before and after a text, of those that are left.
    fn padding(self, blanks: usize) -> (usize, usize) {
        match self {
            Fit::Right => (blanks, 0),
            Fit::Left | Fit::CutMiddle | Fit::CutEnd => (0, blanks),
        }
    }
}

/// A text as wide as this: cut or padded.
pub fn fitted(text: &str, columns: usize, fit: Fit) -> String {
    let text = fit.cut(&clean(text), columns);
    let (before, after) = fit.padding(columns.saturating_sub(width(&text)));
    " ".repeat(before) + &text + &" ".repeat(after)
}

/// A column of a [`Sheet`].
#[derive(Debug)]
pub struct Column {
    /// The title, in the first line.
    pub title: &'static str,
    /// The alignment of the texts.
    pub fit: Fit,
}

impl Column {
    /// A column with this title.
    pub const fn new(title: &'static str, fit: Fit) -> Column {
        Column { title, fit }
    }

    fn can_be_cut(&self) -> bool {
        match self.fit {
            Fit::Left | Fit::Right => false,
            Fit::CutMiddle | Fit::CutEnd => true,
        }
    }
}

/// A cell: the text in a column of a line.
#[derive(Debug, Default)]
pub struct Cell {
    text: String,
    width: usize,
    severity: Severity,
}

impl Cell {
    /// A text without a colour.
    pub fn text(text: &str) -> Cell {
        Cell::coloured(text, Severity::Plain)
    }

    pub(super) fn coloured(text: &str, severity: Severity) -> Cell {
        let text = clean(text);
        let width = width(&text);
        Cell {
            text,
            width,
            severity,
        }
    }
}

/// Lines, and how wide each column would like to be.
#[derive(Debug)]
pub struct Sheet<const N: usize> {
    columns: &'static [Column; N],
    wanted: [usize; N],
    lines: Vec<Line<N>>,
}

#[derive(Debug)]
enum Line<const N: usize> {
    /// A cell for each column.
    Row([Cell; N]),
    /// Words across the columns.
    Note(String),
}

impl<const N: usize> Sheet<N> {
    /// A sheet with the titles as its first line.
    pub fn new(columns: &'static [Column; N]) -> Sheet<N> {
        let mut sheet = Sheet {
            columns,
            wanted: [0; N],
            lines: Vec::new(),
        };
        sheet.row(columns.each_ref().map(|column| Cell::text(column.title)));
        sheet
    }

    /// Adds a cell for each column.
    pub fn row(&mut self, cells: [Cell; N]) {
        for (wanted, cell) in self.wanted.iter_mut().zip(&cells) {
            *wanted = (*wanted).max(cell.width);
        }
        self.lines.push(Line::Row(cells));
    }

    pub(super) fn note(&mut self, words: String) {
        self.lines.push(Line::Note(words));
    }

    /// Writes it, each line at most `line` columns wide where the columns that cannot be cut leave room.
    pub fn print(self, out: &mut String, line: usize, style: Style) {
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
            let cut = (cell.width > width).then(|| column.fit.cut(&cell.text, width));
            let text = cut.as_ref().unwrap_or(&cell.text);
            let used = cut.as_deref().map_or(cell.width, self::width);
            let (before, after) = column.fit.padding(width.saturating_sub(used));
            blanks += before;
            if used > 0 {
                out.extend(std::iter::repeat_n(' ', blanks));
                blanks = 0;
                paint(out, text, cell.severity, style);
            }
            blanks += after + GAP.len();
        }
    }

    /// The widths of the columns. Columns that can be cut share what the others leave: none gets more
    /// than its text takes, and the rest goes to the others.
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

fn paint(out: &mut String, text: &str, severity: Severity, style: Style) {
    match (severity.escape(), style) {
        (Some(escape), Style::Colour) => {
            out.push_str(escape);
            out.push_str(text);
            out.push_str("\x1b[0m");
        }
        (None, Style::Colour) | (_, Style::Plain) => out.push_str(text),
    }
}
