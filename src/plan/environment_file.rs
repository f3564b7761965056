//! Files of `NAME=value` lines, as systemd.exec(5) EnvironmentFile= and shells have them.

use crate::report::{FileId, Kind, Place, Problem, Report, Sources};

/// Reads the lines: blank lines and those that start with `#` or `;` are skipped, `export ` in front
/// is ignored, a value may be quoted with `'` (as it stands) or `"` (with `\"`, `\\`, `\$`, `` \` ``
/// and `\n`). A backslash at the end of a line joins it with the next one, but between `'`; a value in
/// quotes may have several lines. Nothing is expanded. Every line that is none of that is a problem with its place, and
/// without its text: such files hold secrets, and what is told ends in the log. A byte order mark at the
/// beginning, which editors of Windows write, is skipped, as docker does.
pub(super) fn parse(
    name: &str,
    text: &str,
    sources: &mut Sources,
) -> (Vec<(String, String)>, Report) {
    let mut variables = Vec::new();
    let mut wrong = Vec::new();
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines: Vec<&str> = text.lines().collect();
    let mut next = 0;
    while let Some(raw) = lines.get(next) {
        let index = next;
        next += 1;
        let line = raw.trim();
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        let (whole, more) = continued(line, &lines[next..]);
        next += more;
        match assignment(whole.trim()) {
            Ok(pair) => variables.push(pair),
            Err(mut message) => {
                if more > 0 {
                    message.push_str(&format!("; it goes on to line {next}"));
                }
                let column = raw.chars().take_while(|c| c.is_whitespace()).count() as u32 + 1;
                let length = line.chars().count().max(1) as u32;
                wrong.push((index as u32 + 1, column, length, message));
            }
        }
    }
    let mut report = Report::default();
    if !wrong.is_empty() {
        let file: FileId = sources.add(name, "");
        for (line, column, length, message) in wrong {
            let place = Place {
                file,
                line,
                column,
                length,
            };
            report.add(
                Problem::new(Kind::EnvironmentFile, message)
                    .at(place)
                    .with_hint("a line is NAME=value, or a comment with `#`"),
            );
        }
    }
    (variables, report)
}

/// A line with those behind it that belong to it, and how many they are. A quote that is never closed has
/// none.
fn continued(line: &str, behind: &[&str]) -> (String, usize) {
    let value = line.split_once('=').map_or("", |(_, value)| value);
    let mut whole = line.to_owned();
    let mut letters = value.trim_start().chars();
    let Some(quote) = letters.next().filter(|c| matches!(c, '"' | '\'')) else {
        let mut more = 0;
        while whole.ends_with('\\')
            && let Some(next) = behind.get(more)
        {
            whole.pop();
            whole.push_str(next.trim_end());
            more += 1;
        }
        return (whole, more);
    };
    let is_closed = |letters: std::str::Chars<'_>| {
        let mut is_escaped = false;
        letters.into_iter().any(|letter| {
            let is_plain = std::mem::take(&mut is_escaped);
            is_escaped = !is_plain && letter == '\\' && quote == '"';
            !is_plain && letter == quote
        })
    };
    let mut more = 0;
    let mut closed = is_closed(letters);
    while !closed {
        let Some(next) = behind.get(more) else {
            return (line.to_owned(), 0);
        };
        closed = is_closed(next.chars());
        whole.extend(["\n", next]);
        more += 1;
    }
    (whole, more)
}

fn assignment(line: &str) -> Result<(String, String), String> {
    let line = line.strip_prefix("export ").map_or(line, str::trim_start);
    let Some((name, value)) = line.split_once('=') else {
        return Err("there is no `=` in this line".to_owned());
    };
    let letter = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if name.is_empty()
        || !name.chars().all(letter)
        || name.starts_with(|c: char| c.is_ascii_digit())
    {
        return Err("the text before `=` is not the name of a variable".to_owned());
    }
    if matches!(
        name,
        "LISTEN_FDS" | "LISTEN_PID" | "LISTEN_FDNAMES" | "LISTEN_PIDFDID"
    ) {
        // As in `environment:`. Two of one name would leave it to the worker which one counts.
        return Err(format!(
            "`{name}` is set by listend for the sockets it passes"
        ));
    }
    if value.contains('\0') {
        return Err(format!("the value of `{name}` contains a NUL byte"));
    }
    Ok((name.to_owned(), unquote(value.trim())?))
}

fn unquote(value: &str) -> Result<String, String> {
    let mut letters = value.chars();
    let Some(quote) = letters.next().filter(|c| matches!(c, '"' | '\'')) else {
        return Ok(value.to_owned());
    };
    let mut out = String::new();
    while let Some(letter) = letters.next() {
        if letter == quote {
            return match letters.as_str() {
                "" => Ok(out),
                _ => Err("there is text after the closing quote".to_owned()),
            };
        }
        if letter == '\\' && quote == '"' {
            match letters.next() {
                Some('n') => out.push('\n'),
                Some('\n') => {}
                Some(plain @ ('"' | '\\' | '$' | '`')) => out.push(plain),
                Some(other) => out.extend(['\\', other]),
                None => break,
            }
        } else {
            out.push(letter);
        }
    }
    Err("the quote is not closed".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Style, render};

    #[test]
    fn lines_are_read_as_a_shell_would() {
        let text = "# comment\n\nA=1\nexport B = x\nC='a \"b'\nD=\"x\\n\\\"y\\\" \\q\"\nE=\n";
        let mut sources = Sources::default();
        let (variables, report) = parse("f", text, &mut sources);
        let get = |name: &str| {
            let found = variables.iter().find(|(known, _)| known == name);
            found.map(|(_, value)| value.as_str())
        };
        assert_eq!(get("A"), Some("1"));
        assert_eq!(get("C"), Some("a \"b"));
        assert_eq!(get("D"), Some("x\n\"y\" \\q"));
        assert_eq!(get("E"), Some(""));
        assert_eq!(report.errors.len(), 1, "`B ` is not a name");
        assert_eq!(report.errors[0].place.unwrap().line, 4);
    }

    #[test]
    fn values_may_have_several_lines() {
        let text = "A=\"-a :80 \\\n   -b\"\nB=x \\\n  y\nC='one\ntwo\\\n# three'\nD=\"k\\\"\nl\"\n# end \\\nE=1\\";
        let mut sources = Sources::default();
        let (variables, report) = parse("f", text, &mut sources);
        let wanted = [
            ("A", "-a :80    -b"),
            ("B", "x   y"),
            ("C", "one\ntwo\\\n# three"),
            ("D", "k\"\nl"),
            ("E", "1\\"),
        ];
        let wanted = wanted.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(variables, wanted);
        assert!(report.errors.is_empty(), "{report:?}");
    }

    #[test]
    fn a_mistake_in_several_lines_names_the_last() {
        let mut sources = Sources::default();
        let (variables, report) = parse("f", "A=1\nB=\"open\nC=2\nD=\"z\"\nE=3\n", &mut sources);
        let names: Vec<&str> = variables.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["A", "E"]);
        let [error] = report.errors.as_slice() else {
            panic!("{report:?}");
        };
        assert_eq!(error.place.map(|place| place.line), Some(2));
        let told = "there is text after the closing quote; it goes on to line 4";
        assert_eq!(error.message, told);
    }

    #[test]
    fn a_byte_order_mark_is_skipped_at_the_beginning_alone() {
        let mut sources = Sources::default();
        let (variables, report) = parse("f", "\u{feff}A=1\r\n\u{feff}B=2\r\n", &mut sources);
        assert_eq!(variables, [("A".to_owned(), "1".to_owned())]);
        let lines: Vec<u32> = report
            .errors
            .iter()
            .map(|problem| problem.place.unwrap().line)
            .collect();
        assert_eq!(lines, [2]);
    }

    #[test]
    fn mistakes_have_their_place() {
        let mut sources = Sources::default();
        let (_, report) = parse("f", "A=1\n  no equals\nX=\"open\n", &mut sources);
        let places: Vec<(u32, u32)> = report
            .errors
            .iter()
            .map(|problem| problem.place.unwrap())
            .map(|place| (place.line, place.column))
            .collect();
        assert_eq!(places, [(2, 3), (3, 1)]);
        let told = render(&report, &sources, Style::Plain);
        assert!(told.contains("f:2:3"), "{told}");
        assert!(
            !told.contains("no equals") && !told.contains("open"),
            "{told}"
        );
    }
}
