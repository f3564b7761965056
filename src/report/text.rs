//! Problems as text for people: position, message, the source line with a caret, cause and cure.

use super::{Kind, Place, Problem, Report, Severity, Sources};
use std::fmt::Write;

/// Whether to colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// No escape sequences.
    Plain,
    /// ANSI colours, for a terminal.
    Colour,
}

struct Palette {
    error: &'static str,
    advice: &'static str,
    dim: &'static str,
    bold: &'static str,
    reset: &'static str,
}

const PLAIN: Palette = Palette {
    error: "",
    advice: "",
    dim: "",
    bold: "",
    reset: "",
};
const COLOUR: Palette = Palette {
    error: "\x1b[1;31m",
    advice: "\x1b[1;36m",
    dim: "\x1b[2m",
    bold: "\x1b[1m",
    reset: "\x1b[0m",
};

/// The source line is cut to this many characters around the caret.
const LINE_WIDTH: usize = 160;

/// All problems, errors first, each ended by a blank line.
pub fn render(report: &Report, sources: &Sources, style: Style) -> String {
    let palette = match style {
        Style::Plain => &PLAIN,
        Style::Colour => &COLOUR,
    };
    let mut out = String::new();
    for problem in report.errors.iter().chain(&report.advice) {
        one(&mut out, problem, sources, palette);
        out.push('\n');
    }
    for (kind, count) in &report.omitted {
        let what = match (kind.severity(), *count) {
            (Severity::Error, 1) => "error",
            (Severity::Error, _) => "errors",
            (Severity::Advice, 1) => "piece of advice",
            (Severity::Advice, _) => "pieces of advice",
        };
        let _ = writeln!(out, "and {count} more {what} [{}]\n", kind.code());
    }
    out
}

// Writing into a String cannot fail, so the results of write! are dropped in this file.
fn one(out: &mut String, problem: &Problem, sources: &Sources, palette: &Palette) {
    let Palette {
        dim, bold, reset, ..
    } = palette;
    if let Some(place) = problem.place {
        let _ = write!(out, "{bold}{}:{reset} ", sources.position(place));
    }
    let (word, colour) = match problem.kind.severity() {
        Severity::Error => ("error", palette.error),
        Severity::Advice => ("advice", palette.advice),
    };
    // The words of an errno end with its name.
    let code = match problem.kind {
        Kind::Errno(_) => String::new(),
        kind => format!(" {dim}[{}]{reset}", kind.code()),
    };
    let message = &problem.message;
    let _ = writeln!(out, "{colour}{word}{reset}{bold}: {message}{reset}{code}");
    if let Some(place) = problem.place {
        excerpt(out, place, sources, colour, palette);
    }
    for (place, words) in &problem.related {
        let _ = writeln!(out, "  {}: {}", sources.position(*place), words);
        excerpt(out, *place, sources, palette.dim, palette);
    }
    for cause in &problem.causes {
        let _ = writeln!(out, "  {bold}cause:{reset} {}", cause);
    }
    if let Some(hint) = &problem.hint {
        let _ = writeln!(out, "  {bold}hint:{reset} {}", hint);
    }
}

fn excerpt(out: &mut String, place: Place, sources: &Sources, colour: &str, palette: &Palette) {
    let Palette { dim, reset, .. } = palette;
    let Some(line) = sources.line(place) else {
        return;
    };
    let start = (place.column as usize).saturating_sub(1);
    let skipped = if start + place.length as usize > LINE_WIDTH {
        start.saturating_sub(LINE_WIDTH / 3)
    } else {
        0
    };
    // A tab or control character would move the caret or the terminal; show one column each.
    let shown: String = line
        .chars()
        .skip(skipped)
        .take(LINE_WIDTH)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    let number = place.line.to_string();
    let margin = " ".repeat(number.len());
    let indent = " ".repeat(start - skipped);
    let width = shown.chars().count();
    let carets = (place.length as usize)
        .min(width.saturating_sub(start - skipped))
        .max(1);
    let _ = writeln!(
        out,
        "  {dim}{number} |{reset} {shown}\n  {dim}{margin} |{reset} {indent}{colour}{}{reset}",
        "^".repeat(carets)
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::FileId;

    fn place(line: u32, column: u32, length: u32) -> Place {
        Place {
            file: FileId(0),
            line,
            column,
            length,
        }
    }

    #[test]
    fn a_problem_shows_position_line_caret_cause_and_hint() {
        let mut sources = Sources::default();
        sources.add("app.yaml", "listeners:\n  web: 127.0.0.1:8080\n");
        let mut report = Report::default();
        report.add(
            Problem::new(Kind::Errno(98), "cannot bind listener `web`")
                .at(place(2, 8, 14))
                .with_cause("held by nginx")
                .with_hint("stop it"),
        );
        assert_eq!(
            render(&report, &sources, Style::Plain),
            "app.yaml:2:8: error: cannot bind listener `web`\n\
             \x20 2 |   web: 127.0.0.1:8080\n\
             \x20   |        ^^^^^^^^^^^^^^\n\
             \x20 cause: held by nginx\n\
             \x20 hint: stop it\n\n"
        );
    }

    #[test]
    fn one_that_was_left_out_is_one() {
        for (count, words) in [
            (1, "and 1 more error [bad-value]"),
            (2, "and 2 more errors"),
        ] {
            let report = Report {
                omitted: vec![(Kind::BadValue, count)],
                ..Report::default()
            };
            let text = render(&report, &Sources::default(), Style::Plain);
            assert!(text.starts_with(words), "{text}");
        }
    }

    #[test]
    fn a_place_beyond_the_text_is_shown_without_a_line_and_does_not_panic() {
        let mut sources = Sources::default();
        sources.add("app.yaml", "a");
        let mut report = Report::default();
        report.add(Problem::new(Kind::BadValue, "x").at(place(9, 400, 3)));
        report.add(Problem::new(Kind::BadValue, "y").at(place(1, 400, 3)));
        let text = render(&report, &sources, Style::Plain);
        assert!(text.starts_with("app.yaml:9:400: error: x [bad-value]\n"));
    }

    #[test]
    fn control_characters_of_the_file_do_not_reach_the_terminal() {
        let mut sources = Sources::default();
        sources.add("app.yaml", "\u{1b}[31mred: \tx");
        let mut report = Report::default();
        report.add(Problem::new(Kind::BadValue, "x").at(place(1, 1, 3)));
        assert!(!render(&report, &sources, Style::Plain).contains('\u{1b}'));
    }
}
