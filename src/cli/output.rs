//! Printing what a verb has to say.

use crate::report::{Report, Sources, Style, render};
use crate::shell::logging::{Sink, wants_colour};
use std::io::{self, Write};

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
