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
    let span: jiff::SignedDuration = text.parse().ok()?;
    let span = Duration::try_from(span).ok()?;
    Some(match (span.as_secs(), span.subsec_millis()) {
        (seconds, 0) => seconds_text(seconds),
        (0, millis) => format!("{millis}ms"),
        (seconds, millis) => format!("{seconds}s{millis}ms"),
    })
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
