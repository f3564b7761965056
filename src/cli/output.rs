//! Printing what a verb has to say.

use crate::control::clean;
use crate::report::{Report, Sources, Style, describe, render};
use crate::shell::logging::{Sink, wants_colour};
use std::io::{self, IsTerminal, Write};

/// Prints errors and advice on standard error: in colour for a person, with priorities for the
/// journal.
pub fn print_report(report: &Report, sources: &Sources, sink: Sink) {
    if report.errors.is_empty() && report.advice.is_empty() {
        return;
    }
    let style = match sink {
        Sink::Terminal if wants_colour() => Style::Colour,
        Sink::Terminal | Sink::Journal | Sink::Plain => Style::Plain,
    };
    let mut out = String::new();
    match sink {
        Sink::Journal => {
            for (problems, priority) in [(&report.errors, 3), (&report.advice, 5)] {
                let part = Report {
                    errors: problems.clone(),
                    ..Report::default()
                };
                for line in render(&part, sources, style).lines() {
                    // An empty line would be an empty entry.
                    if !line.is_empty() {
                        out.push_str(&format!("<{priority}>{line}\n"));
                    }
                }
            }
        }
        Sink::Terminal | Sink::Plain => out = render(report, sources, style),
    }
    // Nobody reads it? Then there is nobody to tell.
    let _closed = io::stderr().lock().write_all(out.as_bytes());
}

/// Prints text on standard output.
///
/// # Errors
///
/// Standard output is closed or full.
pub fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// `1 listener`, `2 listeners`.
pub fn count(number: usize, one: &str) -> String {
    if number == 1 {
        format!("1 {one}")
    } else {
        format!("{number} {one}s")
    }
}

/// Says on standard error what is wrong.
pub fn complain(text: &str) {
    // Nobody reads it? Then there is nobody to tell.
    let _closed = writeln!(io::stderr().lock(), "listend: {text}");
}

/// Says what to do about it.
pub fn hint(text: &str) {
    let _closed = writeln!(io::stderr().lock(), "  hint: {text}");
}

/// An error of the system in the words that are used everywhere else.
pub fn reason(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(errno) => describe(errno),
        None => error.to_string(),
    }
}

/// What standard output can show: in colour only to a person who has not asked for plain text.
pub fn style() -> Style {
    match io::stdout().is_terminal() && wants_colour() {
        true => Style::Colour,
        false => Style::Plain,
    }
}

/// How many columns standard output has; 80 where nobody knows.
pub fn columns() -> usize {
    let known = io::stdout().is_terminal();
    let size = known.then(crossterm::terminal::size).and_then(Result::ok);
    // A serial line says that it has none.
    let size = size.filter(|(columns, _)| *columns > 0);
    size.map_or(80, |(columns, _)| usize::from(columns))
}

/// Without what would move the cursor: a worker may have written anything. Tabs stay.
pub fn shown(text: &str) -> String {
    text.split('\t').map(clean).collect::<Vec<_>>().join("\t")
}
