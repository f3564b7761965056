//! YAML bytes → a tree with places, and values → YAML text.
//!
//! Reading goes through an event parser that knows positions, so that every mistake can be shown
//! where it stands and one mistake does not hide the next. Writing is serde_yaml's, which is
//! named in this file only because upstream has archived it.

use crate::report::{FileId, Kind, Place, Problem, Sources};
use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Span};
use serde::Serialize;
use std::collections::HashMap;

/// Lists and mappings may be this deep in one another; the schema needs five.
const MAX_DEPTH: usize = 64;
/// Aliases may copy this many bytes in all, so that a few lines cannot ask for all memory.
const ALIAS_BUDGET: usize = 16 << 20;
/// What one copied node is counted as, besides its text.
const NODE_WEIGHT: usize = 96;

/// A value of the file and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    pub place: Place,
    pub content: Content,
}

/// What stands there.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Content {
    /// Nothing, `~` or `null`; whether it was written out is told by `written`.
    Null {
        written: bool,
    },
    Scalar(Scalar),
    List(Vec<Node>),
    Map(Vec<(Node, Node)>),
}

/// Text; numbers and booleans are read from it by whoever knows what is expected.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Scalar {
    pub text: String,
    /// Without quotes, and not a block of lines.
    pub plain: bool,
}

impl Node {
    /// What the node is, in the user's words.
    pub fn what(&self) -> &'static str {
        match self.content {
            Content::Null { .. } => "nothing",
            Content::Scalar(_) => "a single value",
            Content::List(_) => "a list",
            Content::Map(_) => "a mapping",
        }
    }

    /// Bytes that a copy costs, roughly, and how deep it is.
    fn weight_and_height(&self) -> (usize, usize) {
        let mut weight = 0;
        let mut height = 0;
        let mut todo = vec![(self, 1)];
        while let Some((node, depth)) = todo.pop() {
            weight += NODE_WEIGHT;
            height = height.max(depth);
            match &node.content {
                Content::Null { .. } => {}
                Content::Scalar(scalar) => weight += scalar.text.len(),
                Content::List(items) => todo.extend(items.iter().map(|item| (item, depth + 1))),
                Content::Map(pairs) => {
                    for (key, value) in pairs {
                        todo.push((key, depth + 1));
                        todo.push((value, depth + 1));
                    }
                }
            }
        }
        (weight, height)
    }
}

/// Writes a value as YAML.
///
/// # Errors
///
/// The words of serde_yaml, for a value that YAML cannot hold.
pub fn to_yaml(value: &impl Serialize) -> Result<String, String> {
    serde_yaml::to_string(value).map_err(|error| error.to_string())
}

/// Adds the file to the sources and reads it; `Ok(None)` is a file without content.
pub(super) fn parse(
    name: &str,
    bytes: &[u8],
    sources: &mut Sources,
) -> Result<(FileId, Option<Node>), Box<Problem>> {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text.strip_prefix('\u{feff}').unwrap_or(text),
        Err(error) => {
            // Lossy text has one replacement character exactly where the first bad byte is.
            let file = sources.add(name, String::from_utf8_lossy(bytes));
            let good = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
            return Err(Box::new(not_utf8(bytes, end_of(file, &good))));
        }
    };
    let file = sources.add(name, text);
    if let Some(problem) = forbidden_character(file, text) {
        return Err(Box::new(problem));
    }
    let mut builder = Builder {
        file,
        sources,
        open: Vec::new(),
        anchors: HashMap::new(),
        budget: ALIAS_BUDGET,
        root: None,
    };
    let root = builder.run(text)?;
    Ok((file, root))
}

fn not_utf8(bytes: &[u8], place: Place) -> Problem {
    let hint = if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        "the file is UTF-16; save it as UTF-8"
    } else {
        "save the file as UTF-8"
    };
    Problem::new(Kind::YamlSyntax, "this byte is not UTF-8 text")
        .at(place)
        .with_hint(hint.to_owned())
}

/// The place just behind a text.
fn end_of(file: FileId, text: &str) -> Place {
    let line = text.matches('\n').count() + 1;
    let column = text.rsplit('\n').next().unwrap_or("").chars().count() + 1;
    Place {
        file,
        line: number(line),
        column: number(column),
        length: 1,
    }
}

fn number(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

/// YAML 1.2 §5.1 has no control characters. Refusing them here also keeps NUL away from the
/// parser, which takes it for the end of the file, and keeps its idea of a line (it also ends
/// lines at a lone CR) the same as that of [`Sources`].
fn forbidden_character(file: FileId, text: &str) -> Option<Problem> {
    let mut rest = text.char_indices().peekable();
    while let Some((at, c)) = rest.next() {
        let message = match c {
            '\r' if !matches!(rest.peek(), Some((_, '\n'))) => {
                "a carriage return without a line feed".to_owned()
            }
            '\t' | '\n' | '\r' | '\u{85}' => continue,
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => {
                format!("the character U+{:04X} may not stand in YAML", u32::from(c))
            }
            _ => continue,
        };
        let hint = match c {
            '\r' => "end lines with LF or CR LF".to_owned(),
            c => format!(
                "delete it, or write \"\\u{:04x}\" in double quotes",
                u32::from(c)
            ),
        };
        return Some(
            Problem::new(Kind::YamlSyntax, message)
                .at(end_of(file, &text[..at]))
                .with_hint(hint),
        );
    }
    None
}

/// A list or mapping whose end has not come yet.
struct Open {
    anchor: usize,
    start: Marker,
    content: OpenContent,
}

enum OpenContent {
    List(Vec<Node>),
    Map(Vec<(Node, Node)>, Option<Node>),
}

struct Builder<'s> {
    file: FileId,
    sources: &'s Sources,
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    budget: usize,
    root: Option<Node>,
}

impl Builder<'_> {
    fn run(&mut self, text: &str) -> Result<Option<Node>, Box<Problem>> {
        let mut parser = Parser::new_from_str(text);
        let mut documents = 0;
        // The parser is never asked again after an error: it has no state for that.
        while let Some(event) = parser.next_event() {
            let (event, span) = event.map_err(|error| self.syntax_error(&error))?;
            match event {
                Event::DocumentStart(_) => {
                    documents += 1;
                    if documents > 1 {
                        let place = self.place(span);
                        return Err(fail("a second document in one file", place).hint(
                            "put it into a file of its own under conf.d, or delete the `---`",
                        ));
                    }
                }
                Event::StreamEnd => break,
                Event::Scalar(text, style, anchor, tag) => {
                    self.refuse_tag(tag.is_some(), span)?;
                    let node = self.scalar(text.into_owned(), style, span);
                    self.finish(node, anchor)?;
                }
                Event::SequenceStart(anchor, tag) => {
                    self.refuse_tag(tag.is_some(), span)?;
                    self.enter(anchor, span, OpenContent::List(Vec::new()))?;
                }
                Event::MappingStart(anchor, tag) => {
                    self.refuse_tag(tag.is_some(), span)?;
                    self.enter(anchor, span, OpenContent::Map(Vec::new(), None))?;
                }
                Event::SequenceEnd | Event::MappingEnd => self.leave(span)?,
                Event::Alias(anchor) => {
                    let node = self.alias(anchor, span)?;
                    self.finish(node, 0)?;
                }
                Event::Nothing | Event::StreamStart | Event::DocumentEnd => {}
            }
        }
        Ok(self.root.take())
    }

    fn refuse_tag(&self, tagged: bool, span: Span) -> Result<(), Box<Problem>> {
        if tagged {
            return Err(
                fail("a tag such as `!name` means nothing here", self.place(span))
                    .hint("delete the tag; to keep a value that begins with `!`, quote it"),
            );
        }
        Ok(())
    }

    fn scalar(&self, text: String, style: ScalarStyle, span: Span) -> Node {
        let plain = style == ScalarStyle::Plain;
        let null = plain && matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL");
        let content = if null {
            Content::Null {
                written: span.end.index() > span.start.index(),
            }
        } else {
            Content::Scalar(Scalar { text, plain })
        };
        Node {
            place: self.place(span),
            content,
        }
    }

    fn enter(
        &mut self,
        anchor: usize,
        span: Span,
        content: OpenContent,
    ) -> Result<(), Box<Problem>> {
        if self.open.len() >= MAX_DEPTH {
            return Err(fail(
                &format!("lists and mappings more than {MAX_DEPTH} deep"),
                self.place(span),
            )
            .hint("nothing in the configuration is that deep; check the brackets"));
        }
        self.open.push(Open {
            anchor,
            start: span.start,
            content,
        });
        Ok(())
    }

    fn leave(&mut self, span: Span) -> Result<(), Box<Problem>> {
        let Some(open) = self.open.pop() else {
            return Ok(()); // The parser pairs starts and ends.
        };
        let place = self.place(Span::new(open.start, span.end));
        let content = match open.content {
            OpenContent::List(items) => Content::List(items),
            OpenContent::Map(pairs, _) => Content::Map(pairs),
        };
        self.finish(Node { place, content }, open.anchor)
    }

    /// Puts a complete node where it belongs.
    fn finish(&mut self, node: Node, anchor: usize) -> Result<(), Box<Problem>> {
        if anchor > 0 {
            let (weight, _) = node.weight_and_height();
            self.pay(weight, node.place)?;
            self.anchors.insert(anchor, node.clone());
        }
        match self.open.last_mut().map(|open| &mut open.content) {
            None => self.root = Some(node),
            Some(OpenContent::List(items)) => items.push(node),
            Some(OpenContent::Map(pairs, key)) => match key.take() {
                None => *key = Some(node),
                Some(key) => {
                    let mut value = node;
                    // The parser has the missing value of `key:` where the next thing begins.
                    if let Content::Null { written: false } = value.content {
                        value.place = key.place;
                    }
                    pairs.push((key, value));
                }
            },
        }
        Ok(())
    }

    fn alias(&mut self, anchor: usize, span: Span) -> Result<Node, Box<Problem>> {
        let place = self.place(span);
        let Some(target) = self.anchors.get(&anchor) else {
            return Err(
                fail("an alias inside of what it stands for", place).hint("write the value out")
            );
        };
        let (weight, height) = target.weight_and_height();
        if self.open.len() + height > MAX_DEPTH {
            return Err(fail(
                &format!("aliases make lists and mappings more than {MAX_DEPTH} deep"),
                place,
            )
            .hint("write the values out"));
        }
        let mut node = target.clone();
        node.place = place;
        self.pay(weight, place)?;
        Ok(node)
    }

    fn pay(&mut self, weight: usize, place: Place) -> Result<(), Box<Problem>> {
        match self.budget.checked_sub(weight) {
            Some(left) => {
                self.budget = left;
                Ok(())
            }
            None => Err(fail("aliases copy more than 16 MiB", place).hint("write the values out")),
        }
    }

    /// The part of a span that is on its first line, and in the file.
    fn place(&self, span: Span) -> Place {
        let mut place = Place {
            file: self.file,
            line: number(span.start.line()),
            column: number(span.start.col() + 1),
            length: 1,
        };
        if span.end.line() == span.start.line() && span.end.col() > span.start.col() {
            place.length = number(span.end.col() - span.start.col());
        } else {
            // Several lines, or a point that may be behind the last character.
            self.confine(&mut place, span.end.line() > span.start.line());
        }
        place
    }

    fn confine(&self, place: &mut Place, several_lines: bool) {
        while place.line > 1 && self.sources.line(*place).is_none() {
            place.line -= 1;
            place.column = u32::MAX;
        }
        let line = self.sources.line(*place).unwrap_or("");
        let width = number(line.trim_end().chars().count());
        place.column = place.column.clamp(1, width.max(1));
        if several_lines {
            place.length = (width + 1).saturating_sub(place.column).max(1);
        }
    }

    fn syntax_error(&self, error: &ScanError) -> Box<Problem> {
        let place = self.place(Span::empty(*error.marker()));
        let line = self.sources.line(place).unwrap_or("");
        let mut problem = fail(&format!("not valid YAML: {}", error.info()), place);
        problem.hint = syntax_hint(error.info(), line).map(str::to_owned);
        problem
    }
}

/// The usual reasons for a syntax error in a file of addresses and commands.
fn syntax_hint(info: &str, line: &str) -> Option<&'static str> {
    let value = line
        .split_once(": ")
        .map_or(line, |(_, value)| value)
        .trim_start_matches(['-', ' ']);
    if line.starts_with('\t') || info.contains("tab") {
        Some("indent with spaces, not tabs")
    } else if value.starts_with('[') && value.contains("]:") {
        Some("quote an address that begins with `[`, as in \"[::1]:8080\"")
    } else if value.starts_with("*:") {
        Some("quote an address that begins with `*`, or write it without, as in `:8080`")
    } else if value.starts_with('@') {
        Some("an abstract unix socket is written `unix:@name`")
    } else if line.contains("={") {
        Some("quote a word that contains a `{`, as in \"--fd={fd:web}\"")
    } else if value.starts_with(['%', '`', '@', '|', '>', '&', '*', '!']) {
        Some("quote a value that begins with a sign of punctuation")
    } else if info.contains("mapping values are not allowed") {
        Some("check the indentation, and quote a value that contains `: `")
    } else if info.contains("expected") || info.contains("indent") {
        Some("check the indentation and the brackets here and on the lines above")
    } else {
        None
    }
}

fn fail(message: &str, place: Place) -> Box<Problem> {
    Box::new(Problem::new(Kind::YamlSyntax, message).at(place))
}

/// Adds a hint to a boxed problem.
trait Hint {
    fn hint(self, words: &str) -> Self;
}

impl Hint for Box<Problem> {
    fn hint(mut self, words: &str) -> Self {
        self.hint = Some(words.to_owned());
        self
    }
}
