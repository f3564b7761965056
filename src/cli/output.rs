//! Printing what a verb has to say.

use crate::control::clean;
use crate::report::{Problem, Report, Sources, Style, readable, render};
use crate::shell::logging::{self, Entry, Sink, Stream, wants_colour};
use std::io::{self, IsTerminal, Write};

/// The syslog priorities of errors and of advice (sd-daemon(3)).
const PRIORITIES: (u8, u8) = (3, 5);

/// Prints errors and advice where the log goes: in colour for a person, an entry each for the
/// journal and for syslog.
pub fn print_report(report: &Report, sources: &Sources, sink: Sink) {
    if report.errors.is_empty() && report.advice.is_empty() {
        return;
    }
    match sink {
        Sink::Journal | Sink::Syslog => {
            let left = tell_report(report, sources, sink);
            print_on(Stream::of(&io::stderr()), &left, sources);
        }
        Sink::Stderr(stream) => print_on(stream, report, sources),
    }
}

/// Sends each problem as an entry; those that could not be sent.
fn tell_report(report: &Report, sources: &Sources, sink: Sink) -> Report {
    let tell = |problems: &[Problem], priority| {
        let untold = problems.iter().filter(|problem| {
            let mut alone = Report::default();
            alone.add((*problem).clone());
            let text = render(&alone, sources, Style::Plain);
            !logging::tell(sink, &entry(problem, priority, text.trim_end()))
        });
        untold.cloned().collect()
    };
    Report {
        errors: tell(&report.errors, PRIORITIES.0),
        advice: tell(&report.advice, PRIORITIES.1),
        omitted: report.omitted.clone(),
    }
}

fn entry(problem: &Problem, priority: u8, message: &str) -> Entry {
    let code = problem.kind.code();
    let fields = [
        ("problem", Some(&code)),
        ("listener", problem.listener.as_ref()),
        ("worker", problem.worker.as_ref()),
        ("address", problem.address.as_ref()),
    ];
    let fields = fields.into_iter().filter_map(|(key, value)| {
        let value = value?;
        Some((key.to_owned(), value.clone()))
    });
    Entry {
        priority,
        message: message.to_owned(),
        fields: fields.collect(),
    }
}

fn print_on(stream: Stream, report: &Report, sources: &Sources) {
    let mut out = String::new();
    match stream {
        Stream::Journal => {
            let (errors, advice) = PRIORITIES;
            for (problems, priority) in [(&report.errors, errors), (&report.advice, advice)] {
                let part = Report {
                    errors: problems.clone(),
                    ..Report::default()
                };
                for line in render(&part, sources, Style::Plain).lines() {
                    // An empty line would be an empty entry.
                    if !line.is_empty() {
                        out.push_str(&format!("<{priority}>{line}\n"));
                    }
                }
            }
        }
        Stream::Terminal if wants_colour() => out = render(report, sources, Style::Colour),
        Stream::Terminal | Stream::Plain => out = render(report, sources, Style::Plain),
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

/// Says on standard error what is wrong. An answer of the daemon may have several lines.
pub fn complain(text: &str) {
    let lines: Vec<String> = text.lines().map(|line| readable(line.to_owned())).collect();
    let text = lines.join("\n");
    // Nobody reads it? Then there is nobody to tell.
    let _closed = writeln!(io::stderr().lock(), "listend: {text}");
}

/// Says what to do about it.
pub fn hint(text: &str) {
    let text = readable(text.to_owned());
    let _closed = writeln!(io::stderr().lock(), "  hint: {text}");
}

/// The style of standard output: colours only on a terminal, and only if plain text was not asked for.
pub fn style() -> Style {
    match io::stdout().is_terminal() && wants_colour() {
        true => Style::Colour,
        false => Style::Plain,
    }
}

/// The number of columns of standard output; 80 if unknown.
pub fn columns() -> usize {
    if !io::stdout().is_terminal() {
        // For a file or a program nothing is cut.
        return usize::MAX;
    }
    let size = crossterm::terminal::size().ok();
    // A serial line says that it has none.
    let size = size.filter(|(columns, _)| *columns > 0);
    size.map_or(80, |(columns, _)| usize::from(columns))
}

/// The text without characters that would move the cursor: a worker may have written anything. Tabs
/// stay.
pub fn shown(text: &str) -> String {
    text.split('\t').map(clean).collect::<Vec<_>>().join("\t")
}
