//! Lines → what is written of them.

use super::split::{Ends, Piece};
use serde::Serialize;
use std::borrow::Cow;

/// For whom lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// A file or a pipe: `app.1 | ` and the bytes as they came.
    Plain,
    /// A person: the name in a colour, if colours are wanted, and nothing that moves the cursor.
    Terminal {
        /// Whether colours are wanted.
        colours: bool,
    },
    /// The journal, which reads `<N>` at the start of a line as its priority (sd-daemon(3)).
    Journal,
    /// A program: a JSON object for each line.
    Json,
}

/// Writes the lines of one instance.
#[derive(Debug)]
pub struct Tagger {
    worker: String,
    instance: String,
    style: Style,
    /// Of the name, as a number of ECMA-48 (SGR).
    colour: u8,
}

#[derive(Serialize)]
struct Object<'a> {
    time: &'a str,
    worker: &'a str,
    instance: &'a str,
    message: Cow<'a, str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    continued: bool,
}

/// Cyan, yellow, green, magenta, blue, and the bright ones of the same. No red, which looks like an
/// error.
const COLOURS: [u8; 10] = [36, 33, 32, 35, 34, 96, 93, 92, 95, 94];

impl Tagger {
    /// For the lines of `instance`, which is how it is called everywhere: `app.1`. Instances whose
    /// `index` differs by less than ten have different colours.
    pub fn new(worker: &str, instance: &str, index: u32, style: Style) -> Tagger {
        Tagger {
            worker: worker.to_owned(),
            instance: instance.to_owned(),
            style,
            colour: COLOURS[index as usize % COLOURS.len()],
        }
    }

    /// Appends what is written of a piece, always a whole line. `time` is in RFC 3339.
    pub fn write(&self, piece: Piece<'_>, time: &str, out: &mut Vec<u8>) {
        match self.style {
            Style::Plain => {
                self.tag(piece, out);
                out.extend_from_slice(piece.bytes);
            }
            Style::Journal => {
                let (priority, text) = priority(piece);
                out.extend_from_slice(priority);
                self.tag(piece, out);
                out.extend_from_slice(text);
            }
            Style::Terminal { colours } => {
                if colours {
                    out.extend_from_slice(format!("\x1b[{}m", self.colour).as_bytes());
                }
                self.tag(piece, out);
                if colours {
                    out.extend_from_slice(b"\x1b[0m");
                }
                let text = piece.bytes.strip_suffix(b"\r").unwrap_or(piece.bytes);
                out.extend_from_slice(visible(text).as_bytes());
            }
            Style::Json => {
                let object = Object {
                    time,
                    worker: &self.worker,
                    instance: &self.instance,
                    message: String::from_utf8_lossy(piece.bytes),
                    continued: !piece.is_start,
                };
                // Texts have no way to fail, and neither has memory.
                let _written = serde_json::to_writer(&mut *out, &object);
            }
        }
        out.push(b'\n');
    }

    fn tag(&self, piece: Piece<'_>, out: &mut Vec<u8>) {
        out.extend_from_slice(self.instance.as_bytes());
        out.extend_from_slice(if piece.is_start { b" | " } else { b" + " });
    }
}

/// The priority in front of a line, and the rest of it.
fn priority(piece: Piece<'_>) -> (&[u8], &[u8]) {
    match piece.bytes {
        [b'<', b'0'..=b'7', b'>', ..] if piece.is_start => piece.bytes.split_at(3),
        bytes => (&[], bytes),
    }
}

/// Text that a terminal shows as it is: control characters but the tab become visible, in the
/// notation of cat(1) or as a number; what is no UTF-8 becomes U+FFFD.
pub fn visible(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\t' => shown.push('\t'),
            '\0'..='\x1f' => {
                shown.push('^');
                // The control characters lie 64 below the letters that they are named after.
                shown.push(char::from(character as u8 + 64));
            }
            '\x7f' => shown.push_str("^?"),
            // Those that turn the direction of what follows can make a line lie.
            '\u{80}'..='\u{9f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                shown.extend(character.escape_unicode());
            }
            other => shown.push(other),
        }
    }
    shown
}

impl Piece<'_> {
    /// Appends the piece as it was written.
    pub fn write_raw(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.bytes);
        match self.ends {
            Ends::Newline => out.push(b'\n'),
            Ends::Cut | Ends::Output => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(bytes: &[u8], is_start: bool) -> Piece<'_> {
        Piece {
            bytes,
            is_start,
            ends: Ends::Newline,
        }
    }

    fn written(style: Style, bytes: &[u8], is_start: bool) -> Vec<u8> {
        let mut out = Vec::new();
        let tagger = Tagger::new("app", "app.1", 1, style);
        tagger.write(piece(bytes, is_start), "2026-01-31T12:00:00.000Z", &mut out);
        out
    }

    #[test]
    fn a_pipe_gets_the_bytes_as_they_came() {
        let bytes = b"\xff\x1b[31m<3>\r";
        let wanted = [b"app.1 | ".as_slice(), bytes, b"\n"].concat();
        assert_eq!(written(Style::Plain, bytes, true), wanted);
        assert_eq!(written(Style::Plain, b"x", false), b"app.1 + x\n");
    }

    #[test]
    fn a_terminal_gets_nothing_that_moves_the_cursor() {
        let plain = Style::Terminal { colours: false };
        let got = written(
            plain,
            "a\tb\x1b[2J\x07\u{9b}\u{202e}\x7fé\r".as_bytes(),
            true,
        );
        let wanted = "app.1 | a\tb^[[2J^G\\u{9b}\\u{202e}^?é\n";
        assert_eq!(String::from_utf8(got).unwrap(), wanted);
        assert_eq!(
            written(plain, b"\xff", true),
            "app.1 | \u{fffd}\n".as_bytes()
        );
        let coloured = Style::Terminal { colours: true };
        let wanted = b"\x1b[33mapp.1 | \x1b[0mx\n";
        assert_eq!(written(coloured, b"x", true), wanted);
    }

    // sd-daemon(3): the prefix is at the start of the line.
    #[test]
    fn the_journal_gets_the_priority_in_front() {
        assert_eq!(
            written(Style::Journal, b"<3>bad", true),
            b"<3>app.1 | bad\n"
        );
        assert_eq!(
            written(Style::Journal, b"<8>bad", true),
            b"app.1 | <8>bad\n"
        );
        assert_eq!(
            written(Style::Journal, b"<3>bad", false),
            b"app.1 + <3>bad\n"
        );
        assert_eq!(written(Style::Journal, b"", true), b"app.1 | \n");
    }

    #[test]
    fn a_program_gets_json() {
        let got = written(Style::Json, b"a \"b\" \x1b \xff", true);
        let value: serde_json::Value = serde_json::from_slice(&got).unwrap();
        let wanted = serde_json::json!({
            "time": "2026-01-31T12:00:00.000Z",
            "worker": "app",
            "instance": "app.1",
            "message": "a \"b\" \x1b \u{fffd}",
        });
        assert_eq!(value, wanted);
        let got = written(Style::Json, b"x", false);
        let value: serde_json::Value = serde_json::from_slice(&got).unwrap();
        assert_eq!(value["continued"], serde_json::json!(true));
    }
}
