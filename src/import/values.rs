//! Values as others write them: words with quotes, time spans, permission bits.

use std::iter::Peekable;
use std::str::Chars;
use std::time::Duration;

/// The words of a line, with quotes and backslashes as a shell has them; where they do not match, what stands
/// between blanks. `#` begins no comment: nobody else has one within a line.
pub(super) fn words(line: &str) -> Vec<String> {
    split(line, |letters, quote| {
        match (quote, letters.peek().copied()) {
            (Some('\''), _) => None,
            (Some('"'), Some('$' | '`' | '"' | '\\')) | (None, _) => letters.next(),
            _ => None,
        }
    })
}

/// The words of a line of a unit: with the escapes of C, also between quotes (systemd.syntax(7)).
pub(super) fn unit_words(line: &str) -> Vec<String> {
    split(line, |letters, _| {
        let mut rest = letters.clone();
        let letter = match rest.next()? {
            'a' => '\x07',
            'b' => '\x08',
            'f' => '\x0c',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\x0b',
            's' => ' ',
            'x' => number(&mut rest, "", (2, 16))?,
            'u' => number(&mut rest, "", (4, 16))?,
            'U' => number(&mut rest, "", (8, 16))?,
            digit @ '0'..='7' => number(&mut rest, &digit.to_string(), (3, 8))?,
            itself @ ('\\' | '"' | '\'' | ';') => itself,
            _ => return None,
        };
        *letters = rest;
        Some(letter)
    })
}

/// The commands of a line of a unit: a semicolon that is a word of its own, without quotes, is between two
/// (systemd.service(5)).
pub(super) fn unit_commands(line: &str) -> Vec<String> {
    let (mut commands, mut start, mut quote) = (Vec::new(), 0, None);
    let mut before = ' ';
    let mut letters = line.char_indices().peekable();
    while let Some((at, letter)) = letters.next() {
        let next = letters.peek().map_or(' ', |(_, next)| *next);
        match (quote, letter) {
            (_, '\\') => {
                letters.next();
            }
            (None, '"' | '\'') => quote = Some(letter),
            (Some(end), letter) if letter == end => quote = None,
            (None, ';') if before.is_whitespace() && next.is_whitespace() => {
                commands.push(line[start..at].trim().to_owned());
                start = at + 1;
            }
            _ => {}
        }
        before = letter;
    }
    commands.push(line[start..].trim().to_owned());
    commands.retain(|command| !command.is_empty());
    commands
}

/// The character with a number of so many digits, to some base, that begins with these.
fn number(
    rest: &mut Peekable<Chars<'_>>,
    first: &str,
    (digits, base): (usize, u32),
) -> Option<char> {
    let mut text = first.to_owned();
    text.extend(rest.by_ref().take(digits.checked_sub(first.len())?));
    let number = u32::from_str_radix(&text, base).ok()?;
    char::from_u32(number).filter(|_| text.len() == digits)
}

/// Splits at blanks that are not quoted. `escape` has what a backslash and what follows it stand for, within this
/// quote; without an answer it stands for itself.
fn split(
    line: &str,
    escape: impl Fn(&mut Peekable<Chars<'_>>, Option<char>) -> Option<char>,
) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    let mut letters = line.chars().peekable();
    while let Some(letter) = letters.next() {
        match (quote, letter) {
            (None, ' ' | '\t' | '\n' | '\r') => words.extend(word.take()),
            (None, '"' | '\'') => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (Some(end), letter) if letter == end => quote = None,
            (_, '\\') => {
                let meant = escape(&mut letters, quote).unwrap_or('\\');
                word.get_or_insert_default().push(meant);
            }
            _ => word.get_or_insert_default().push(letter),
        }
    }
    if quote.is_some() {
        return line.split_whitespace().map(str::to_owned).collect();
    }
    words.extend(word);
    words
}

/// `45`, `1min 30s` and `infinity` (systemd.time(7)) as a duration of the configuration.
pub(super) fn span(text: &str) -> Option<String> {
    let text = text.trim();
    if text == "infinity" {
        return Some(text.to_owned());
    }
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(seconds_text(seconds));
    }
    let span = match text.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).ok()?,
        Err(_) => parts_of_time(text)?,
    };
    // What is shorter than a millisecond is not none.
    let span = match span.is_zero() {
        true => span,
        false => span.max(Duration::from_millis(1)),
    };
    Some(match (span.as_secs(), span.subsec_millis()) {
        (seconds, 0) => seconds_text(seconds),
        (0, millis) => format!("{millis}ms"),
        (seconds, millis) => format!("{seconds}s{millis}ms"),
    })
}

/// Numbers with units, one behind the other.
fn parts_of_time(text: &str) -> Option<Duration> {
    let (mut sum, mut rest) = (Duration::ZERO, text.trim());
    while !rest.is_empty() {
        let is_number = |letter: char| letter.is_ascii_digit() || letter == '.';
        let unit = rest.find(|letter| !is_number(letter))?;
        let number: f64 = rest[..unit].parse().ok()?;
        let behind = rest[unit..].trim_start();
        let end = behind
            .find(|letter: char| letter.is_ascii_digit() || letter.is_whitespace())
            .unwrap_or(behind.len());
        let seconds = match &behind[..end] {
            "usec" | "us" | "μs" | "µs" => 0.000_001,
            "msec" | "ms" => 0.001,
            "seconds" | "second" | "sec" | "s" => 1.0,
            "minutes" | "minute" | "min" | "m" => 60.0,
            "hours" | "hour" | "hr" | "h" => 3600.0,
            "days" | "day" | "d" => 86_400.0,
            "weeks" | "week" | "w" => 604_800.0,
            _ => return None,
        };
        let part = Duration::try_from_secs_f64(number * seconds).ok()?;
        sum = sum.checked_add(part)?;
        rest = behind[end..].trim_start();
    }
    Some(sum)
}

/// Seconds as a duration of the configuration.
pub(super) fn seconds_text(seconds: u64) -> String {
    match seconds {
        0 => "0".to_owned(),
        seconds => format!("{seconds}s"),
    }
}

/// Permission bits with four digits.
pub(super) fn octal(text: &str) -> String {
    let digits = text.trim_start_matches("0o").trim_start_matches('0');
    format!("0{digits:0>3}")
}

/// The port of a service by its number, or by its name in the registry.
pub(super) fn port(name: &str, protocol: &str) -> Option<u16> {
    name.parse()
        .ok()
        .or_else(|| crate::diagnose::port_of(name, protocol))
}
