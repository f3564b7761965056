//! `{fd:web}` and its like, in commands, variables and paths.

use super::value_error::ValueError;
use super::values::{FdList, Piece, SocketRef, Template};
use crate::report::{Kind, nearest};
use std::fmt;

const PLACEHOLDERS: &[&str] = &[
    "fd",
    "fds",
    "address",
    "host",
    "port",
    "instance",
    "generation",
    "listend",
    "supervisor_pid",
    "runtime_dir",
];

/// Between the numbers of `{fds}`, unless another text is given.
const SEPARATOR: &str = ",";

/// The meaning of a dollar in a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dollar {
    /// A letter like any other.
    Plain,
    /// `${NAME}`, and `$NAME` alone in a word, are variables; `$$` is a dollar.
    Variable,
}

/// A mistake, and which characters of the text it is about.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mistake {
    pub start: usize,
    pub length: usize,
    pub value_error: ValueError,
}

/// A socket that a template names, or all of them.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mention {
    pub start: usize,
    pub length: usize,
    /// `fd`, `fds`, `address`, `host` or `port`.
    pub what: &'static str,
    /// `None` is every socket of the worker, with `fds`.
    pub socket: Option<SocketRef>,
}

/// Reads a template; offsets are in characters.
pub(super) fn parse(text: &str, dollar: Dollar) -> (Template, Vec<Mention>, Vec<Mistake>) {
    let mut reader = Reader::default();
    let mut rest = match (dollar, text.strip_prefix('$')) {
        (Dollar::Variable, Some(name)) if !name.starts_with(['$', '{']) => {
            reader.words(name);
            ""
        }
        (Dollar::Plain | Dollar::Variable, _) => text,
    };
    while let Some(at) = rest
        .find(|letter| matches!(letter, '{' | '}') || (letter == '$' && dollar == Dollar::Variable))
    {
        reader.text(&rest[..at]);
        let tail = &rest[at..];
        rest = if let Some(behind) = tail.strip_prefix('$') {
            reader.dollar(behind)
        } else if tail.starts_with("{{") || tail.starts_with("}}") {
            reader.position += 1;
            reader.text(&tail[..1]);
            &tail[2..]
        } else if let Some(tail) = tail.strip_prefix('}') {
            reader.text("}");
            tail
        } else if let Some(end) = tail.find('}') {
            reader.placeholder(&tail[1..end]);
            &tail[end + 1..]
        } else {
            reader.mistake(
                tail.chars().count(),
                ValueError::new(Kind::BadTemplate, format!("`{tail}` has no closing brace"))
                    .hint("write `{{` for a brace, or close the placeholder with `}`"),
            );
            ""
        };
    }
    reader.text(rest);
    let mut pieces = reader.pieces;
    if !reader.literal.is_empty() {
        pieces.push(Piece::Text(reader.literal));
    }
    (Template { pieces }, reader.mentions, reader.mistakes)
}

/// The template in the notation of the configuration, but for the `{{` of a brace.
impl fmt::Display for Template {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let socket = |what: &str, of: &SocketRef| match of.index {
            None => format!("{{{what}:{}}}", of.listener),
            Some(index) => format!("{{{what}:{}:{index}}}", of.listener),
        };
        for piece in &self.pieces {
            match piece {
                Piece::Fd(of) => to.write_str(&socket("fd", of))?,
                Piece::Fds(of) => {
                    to.write_str("{fds")?;
                    if let Some(listener) = &of.listener {
                        write!(to, ":{listener}")?;
                    }
                    if of.separator != SEPARATOR {
                        write!(to, "|{}", of.separator)?;
                    }
                    to.write_str("}")?;
                }
                Piece::Address(of) => to.write_str(&socket("address", of))?,
                Piece::Port(of) => to.write_str(&socket("port", of))?,
                Piece::Host(of) => to.write_str(&socket("host", of))?,
                Piece::Text(text) => to.write_str(text)?,
                Piece::Instance => to.write_str("{instance}")?,
                Piece::Generation => to.write_str("{generation}")?,
                Piece::Listend => to.write_str("{listend}")?,
                Piece::SupervisorPid => to.write_str("{supervisor_pid}")?,
                Piece::RuntimeDir => to.write_str("{runtime_dir}")?,
                Piece::ServerPort => to.write_str("{port}")?,
                Piece::Variable(name) => write!(to, "${{{name}}}")?,
                Piece::Words(name) => write!(to, "${name}")?,
            }
        }
        Ok(())
    }
}

#[derive(Default)]
struct Reader {
    pieces: Vec<Piece>,
    literal: String,
    mentions: Vec<Mention>,
    mistakes: Vec<Mistake>,
    /// Characters behind us.
    position: usize,
}

impl Reader {
    fn text(&mut self, text: &str) {
        self.literal.push_str(text);
        self.position += text.chars().count();
    }

    fn piece(&mut self, piece: Piece) {
        if !self.literal.is_empty() {
            let literal = std::mem::take(&mut self.literal);
            self.pieces.push(Piece::Text(literal));
        }
        self.pieces.push(piece);
    }

    fn mistake(&mut self, length: usize, value_error: ValueError) {
        self.mistakes.push(Mistake {
            start: self.position,
            length,
            value_error,
        });
    }

    /// `$NAME`, which is the whole word.
    fn words(&mut self, name: &str) {
        if is_variable(name) {
            self.piece(Piece::Words(name.to_owned()));
        } else {
            let value_error = ValueError::new(
                Kind::BadTemplate,
                format!("`{name}` cannot be the name of a variable"),
            );
            let value_error = value_error.hint("write `$$` for a dollar");
            self.mistake(name.chars().count() + 1, value_error);
        }
    }

    /// Reads what a dollar begins, of which this is behind it; the rest.
    fn dollar<'t>(&mut self, behind: &'t str) -> &'t str {
        if let Some(rest) = behind.strip_prefix('$') {
            self.position += 1;
            self.text("$");
            return rest;
        }
        let variable = behind
            .strip_prefix('{')
            .and_then(|tail| tail.split_once('}'));
        if let Some((name, rest)) = variable
            && is_variable(name)
        {
            self.piece(Piece::Variable(name.to_owned()));
            self.position += name.len() + "${}".len();
            return rest;
        }
        self.text("$");
        behind
    }

    fn placeholder(&mut self, inner: &str) {
        let length = inner.chars().count() + 2;
        match read(inner) {
            Ok((piece, None)) => self.piece(piece),
            Ok((piece, Some((what, socket)))) => {
                self.mentions.push(Mention {
                    start: self.position,
                    length,
                    what,
                    socket,
                });
                self.piece(piece);
            }
            Err(value_error) => self.mistake(length, value_error),
        }
        self.position += length;
    }
}

/// Whether the text can be the name of a variable.
pub(super) fn is_variable(name: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.bytes().all(is_letter)
}

type Read = (Piece, Option<(&'static str, Option<SocketRef>)>);

/// Reads what is behind `fds`: `:NAME`, `|SEPARATOR`, both or neither.
fn list(inner: &str, behind: &str) -> Result<Read, ValueError> {
    let bad = |message: String| ValueError::new(Kind::BadTemplate, message);
    let (name, separator) = behind.split_once('|').unwrap_or((behind, SEPARATOR));
    if separator.is_empty() {
        return Err(bad(format!("`{{{inner}}}` has no separator behind `|`"))
            .hint("write `{fds| }` for a space between the numbers"));
    }
    let listener = name.strip_prefix(':');
    if listener.is_some_and(|name| name.is_empty() || name.contains(':')) {
        return Err(bad(format!("`{{{inner}}}` does not name a listener"))
            .hint("write `{fds:NAME}`, or `{fds}` for the sockets of every listener"));
    }
    let socket = listener.map(|name| SocketRef {
        listener: name.to_owned(),
        index: None,
    });
    let piece = Piece::Fds(FdList {
        listener: listener.map(str::to_owned),
        separator: separator.to_owned(),
    });
    Ok((piece, Some(("fds", socket))))
}

fn read(inner: &str) -> Result<Read, ValueError> {
    let bad = |message: String| ValueError::new(Kind::BadTemplate, message);
    if let Some(behind) = inner.strip_prefix("fds")
        && (behind.is_empty() || behind.starts_with([':', '|']))
    {
        return list(inner, behind);
    }
    let mut words = inner.split(':');
    let word = words.next().unwrap_or("");
    let (listener, index) = (words.next(), words.next());
    let bare = |piece: Piece| match listener {
        None => Ok((piece, None)),
        Some(_) => Err(bad(format!("`{{{word}}}` takes nothing after a colon"))
            .hint(format!("write `{{{word}}}`"))),
    };
    let what = match word {
        "instance" => return bare(Piece::Instance),
        "generation" => return bare(Piece::Generation),
        "listend" => return bare(Piece::Listend),
        "supervisor_pid" => return bare(Piece::SupervisorPid),
        "runtime_dir" => return bare(Piece::RuntimeDir),
        "fd" => "fd",
        "address" => "address",
        "host" => "host",
        "port" => "port",
        _ => {
            let known = "known here: `{fd:NAME}`, `{fds:NAME}`, `{address:NAME}`, `{host:NAME}`, `{port:NAME}`, \
                         `{port}`, `{instance}`, `{generation}`, `{listend}`, `{supervisor_pid}`, `{runtime_dir}`; \
                         write `{{` for a brace";
            return Err(bad(format!("`{{{inner}}}` is not a placeholder")).hint(
                match nearest(word, PLACEHOLDERS.iter().copied()) {
                    Some(right) => format!(
                        "did you mean `{{{right}{}}}`? write `{{{{` for a brace",
                        &inner[word.len()..]
                    ),
                    None => known.to_owned(),
                },
            ));
        }
    };
    // Where no port is chosen, that is found by `forward`.
    if word == "port" && listener.is_none() {
        return Ok((Piece::ServerPort, None));
    }
    let listener = listener.unwrap_or("");
    if listener.is_empty() {
        return Err(bad(format!("`{{{inner}}}` does not name a listener"))
            .hint(format!("write `{{{what}:NAME}}`")));
    }
    let index = match index {
        None => None,
        Some(digits) => Some(
            digits
                .parse::<u32>()
                .ok()
                .filter(|_| digits.bytes().all(|b| b.is_ascii_digit()) && words.next().is_none())
                .ok_or_else(|| {
                    bad(format!(
                        "`{{{inner}}}`: what follows the listener is not a number"
                    ))
                    .hint(format!(
                        "write `{{{what}:{listener}:0}}` for its first socket"
                    ))
                })?,
        ),
    };
    let socket = SocketRef {
        listener: listener.to_owned(),
        index,
    };
    let piece = match what {
        "fd" => Piece::Fd(socket.clone()),
        "address" => Piece::Address(socket.clone()),
        "host" => Piece::Host(socket.clone()),
        _ => Piece::Port(socket.clone()),
    };
    Ok((piece, Some((what, Some(socket)))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        shown_with(text, Dollar::Plain)
    }

    fn shown_with(text: &str, dollar: Dollar) -> String {
        let (template, _, mistakes) = parse(text, dollar);
        let mut out = String::new();
        for piece in template.pieces {
            match piece {
                Piece::Text(text) => out.push_str(&text),
                Piece::Fd(s) => out += &format!("<fd {} {:?}>", s.listener, s.index),
                other => out += &format!("<{other:?}>"),
            }
        }
        for mistake in mistakes {
            out += &format!("!{}+{}", mistake.start, mistake.length);
        }
        out
    }

    #[test]
    fn placeholders_braces_and_mistakes() {
        for (text, want) in [
            ("--fd={fd:web}", "--fd=<fd web None>"),
            ("{fd:web:1}x", "<fd web Some(1)>x"),
            ("{{a}} } {instance}", "{a} } <Instance>"),
            ("é{nope}", "é!1+6"),
            ("a{fd:web", "a!1+7"),
            ("{{{fd}", "{!2+4"),
            ("{instance:1}", "!0+12"),
            ("{fd:web:x}", "!0+10"),
            ("{fd:web:1:2}", "!0+12"),
            ("{fds:}", "!0+6"),
            ("{fds:a:b}", "!0+9"),
            ("{fds|}", "!0+6"),
            ("", ""),
        ] {
            assert_eq!(shown(text), want, "{text}");
        }
        assert_eq!(shown("$A ${{A}} $$"), "$A ${A} $$");
        let hint = parse("{adress:web}", Dollar::Plain)
            .2
            .remove(0)
            .value_error
            .hint
            .unwrap();
        assert!(hint.contains("`{address:web}`"), "{hint}");
    }

    #[test]
    fn numbers_in_a_list_have_a_separator() {
        for (text, listener, separator) in [
            ("{fds}", None, ","),
            ("{fds:web}", Some("web"), ","),
            ("{fds| }", None, " "),
            ("{fds:web|:}", Some("web"), ":"),
        ] {
            let (template, mentions, mistakes) = parse(text, Dollar::Plain);
            assert_eq!(mistakes, [], "{text}");
            let list = Piece::Fds(FdList {
                listener: listener.map(str::to_owned),
                separator: separator.to_owned(),
            });
            assert_eq!(template.pieces, [list], "{text}");
            assert_eq!(template.to_string(), text);
            let [mention] = &mentions[..] else {
                panic!("{text}: {mentions:?}");
            };
            let named = mention.socket.as_ref().map(|socket| &*socket.listener);
            assert_eq!((mention.what, named), ("fds", listener), "{text}");
        }
    }

    // systemd.service(5), COMMAND LINES.
    #[test]
    fn a_dollar_is_what_systemd_makes_of_it() {
        for (text, want) in [
            ("$A", "<Words(\"A\")>"),
            ("${A}", "<Variable(\"A\")>"),
            ("-x${A_1}y", "-x<Variable(\"A_1\")>y"),
            ("-x$A", "-x$A"),
            ("end$", "end$"),
            ("$$A", "$A"),
            ("a$$", "a$"),
            ("$$${A}", "$<Variable(\"A\")>"),
            ("{instance}${A}", "<Instance><Variable(\"A\")>"),
            ("${A}{nope}", "<Variable(\"A\")>!4+6"),
            ("$1", "!0+2"),
            ("$", "!0+1"),
            ("$A-b", "!0+4"),
            ("${A:-b}", "$!1+6"),
        ] {
            assert_eq!(shown_with(text, Dollar::Variable), want, "{text}");
        }
    }
}
