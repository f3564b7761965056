//! YAML bytes → a tree with places, and values → YAML text.
//!
//! Reading goes through an event parser that knows positions, so that every mistake can be shown
//! where it stands and one mistake does not hide the next. Writing is serde_yaml's, which is
//! named in this file only because upstream has archived it.

use crate::report::{FileId, Kind, Place, Problem, Sources};
use foldhash::{HashMap, HashMapExt};
use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Span};
use serde::Serialize;

/// Lists and mappings may be this deep in one another; the schema needs five.
const MAX_DEPTH: usize = 64;
/// Aliases may copy this many bytes in all, so that a few lines cannot ask for all memory.
const ALIAS_BUDGET: usize = 16 << 20;
/// The bytes counted for one copied node, besides its text.
const NODE_WEIGHT: usize = 96;

/// A value of the file and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    pub place: Place,
    pub content: Content,
}

/// The content of a node.
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

/// A scalar as text; the decoder, which knows what is expected, reads numbers and booleans from it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Scalar {
    pub text: String,
    /// Whether the scalar is written without quotes, and not as a block of lines.
    pub plain: bool,
}

impl Node {
    /// The kind of the node, in the user's words.
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

/// The YAML of another program as a tree in which every scalar is a text, as it is written.
///
/// # Errors
///
/// What is wrong with the YAML, and where.
pub fn yaml_tree(name: &str, text: &str) -> Result<serde_json::Value, String> {
    let mut sources = Sources::default();
    match parse(name, text.as_bytes(), &mut sources) {
        Ok((_, root)) => Ok(root.map_or(serde_json::Value::Null, |root| tree(&root))),
        Err(problem) => {
            let place = problem.place.map(|place| format!("line {}: ", place.line));
            Err(format!("{}{}", place.unwrap_or_default(), problem.message))
        }
    }
}

fn tree(node: &Node) -> serde_json::Value {
    match &node.content {
        Content::Null { .. } => serde_json::Value::Null,
        Content::Scalar(scalar) => scalar.text.clone().into(),
        Content::List(items) => items.iter().map(tree).collect(),
        Content::Map(pairs) => {
            let pairs = pairs.iter().filter_map(|(key, value)| match &key.content {
                Content::Scalar(key) => Some((key.text.clone(), tree(value))),
                Content::Null { .. } | Content::List(_) | Content::Map(_) => None,
            });
            serde_json::Value::Object(pairs.collect())
        }
    }
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
        .with_hint(hint)
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

/// Whether YAML 1.2 §5.1 has the character. A byte order mark is one, but only at the beginning of a file or
/// between quotes.
pub fn is_allowed(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | '\u{85}')
        || !c.is_control() && !matches!(c, '\u{fffe}' | '\u{ffff}')
}

/// YAML 1.2 §5.1 has no control characters. Refusing them here also keeps NUL away from the
/// parser, which takes it for the end of the file, and keeps its idea of a line (it also ends
/// lines at a lone CR) the same as that of [`Sources`].
fn forbidden_character(file: FileId, text: &str) -> Option<Problem> {
    // Most files have nothing but these.
    let is_plain = |byte: &u8| matches!(byte, b' '..=b'~' | b'\n' | b'\t');
    if text.as_bytes().iter().all(is_plain) {
        return None;
    }
    let mut rest = text.char_indices().peekable();
    while let Some((at, c)) = rest.next() {
        let message = match c {
            '\r' if !matches!(rest.peek(), Some((_, '\n'))) => {
                "a carriage return without a line feed".to_owned()
            }
            c if !is_allowed(c) => {
                format!(
                    "the character U+{:04X} is not allowed in YAML",
                    u32::from(c)
                )
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
                        return Err(fail("a second document in one file", place)
                            .hint("put it into its own file under conf.d, or delete the `---`"));
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
                fail("a tag such as `!name` is not supported", self.place(span))
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
            return Err(fail("an alias inside its own anchor", place).hint("write the value out"));
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
        Some(QUOTE_BRACKETS)
    } else if value.starts_with("*:") {
        Some("quote an address that begins with `*`, or write it without, as in `:8080`")
    } else if has_bare_ipv6(line) {
        Some(QUOTE_BRACKETS)
    } else if value.starts_with('@') {
        Some("an abstract unix socket is written `unix:@name`")
    } else if line.contains("={") {
        Some("quote a word that contains a `{`, as in \"--fd={fd:web}\"")
    } else if value.starts_with(['%', '`', '@', '|', '>', '&', '*', '!']) {
        Some("quote a value that begins with punctuation")
    } else if info.contains("mapping values are not allowed") {
        Some("check the indentation, and quote a value that contains `: `")
    } else if info.contains("expected") || info.contains("indent") {
        Some("check the indentation and the brackets here and on the lines above")
    } else {
        None
    }
}

pub(super) const QUOTE_BRACKETS: &str = "quote an address with brackets, as in \"[::1]:8080\"";

/// Whether `[IPv6]:PORT` stands in the line outside of quotes, where a bracket begins a list.
fn has_bare_ipv6(line: &str) -> bool {
    let mut quote = None;
    // What is behind the last bare `[`, as long as it may be an address.
    let mut host = None;
    for (at, byte) in line.bytes().enumerate() {
        match (quote, byte) {
            (Some(open), _) if open == byte => quote = None,
            (Some(_), _) => {}
            (None, b'"' | b'\'') => (quote, host) = (Some(byte), None),
            (None, b'[') => host = Some(at + 1),
            (None, b']') => {
                let is_address = host.is_some_and(|host| line[host..at].contains(':'));
                let port = line[at + 1..].strip_prefix(':');
                if is_address
                    && port.is_some_and(|port| port.starts_with(|c: char| c.is_ascii_digit()))
                {
                    return true;
                }
                host = None;
            }
            (None, b':' | b'.') => {}
            (None, byte) if byte.is_ascii_hexdigit() => {}
            (None, _) => host = None,
        }
    }
    false
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_yaml::Value;

    fn tree(text: &str) -> (Option<Node>, Sources) {
        let mut sources = Sources::default();
        match parse("f", text.as_bytes(), &mut sources) {
            Ok((_, node)) => (node, sources),
            Err(problem) => panic!("{problem:?}\n{text}"),
        }
    }

    /// The characters a place covers.
    fn covered(sources: &Sources, place: Place) -> String {
        let line = sources.line(place).unwrap();
        let start = place.column as usize - 1;
        line.chars()
            .skip(start)
            .take(place.length as usize)
            .collect()
    }

    /// A single line's plain scalar stands exactly where its place says.
    fn check_plain_places(node: &Node, sources: &Sources) {
        match &node.content {
            Content::Null { .. } => {}
            Content::Scalar(scalar) => {
                let covered = covered(sources, node.place);
                if scalar.plain && covered.chars().count() == scalar.text.chars().count() {
                    assert_eq!(covered, scalar.text);
                } else if scalar.plain {
                    assert!(
                        scalar.text.starts_with(covered.trim_end()),
                        "{covered} {scalar:?}"
                    );
                }
            }
            Content::List(items) => items
                .iter()
                .for_each(|item| check_plain_places(item, sources)),
            Content::Map(pairs) => pairs.iter().for_each(|(key, value)| {
                check_plain_places(key, sources);
                check_plain_places(value, sources);
            }),
        }
    }

    fn same(node: &Node, value: &Value) -> bool {
        match (&node.content, value) {
            (Content::Null { .. }, Value::Null) => true,
            (Content::Scalar(scalar), Value::String(text)) => scalar.text == *text,
            (Content::Scalar(scalar), Value::Bool(_) | Value::Number(_)) => {
                scalar.plain
                    && serde_yaml::from_str::<Value>(&scalar.text).ok().as_ref() == Some(value)
            }
            (Content::List(items), Value::Sequence(values)) => {
                items.len() == values.len() && items.iter().zip(values).all(|(a, b)| same(a, b))
            }
            (Content::Map(pairs), Value::Mapping(values)) => {
                pairs.len() == values.len()
                    && pairs
                        .iter()
                        .zip(values)
                        .all(|((k, v), (a, b))| same(k, a) && same(v, b))
            }
            _ => false,
        }
    }

    #[test]
    fn places_are_where_things_stand() {
        let (node, sources) = tree("é: [ab, 'c d']\r\nx:\r\n  y: |\r\n    z\r\nq:\r\n");
        let Content::Map(pairs) = node.unwrap().content else {
            panic!()
        };
        assert_eq!(covered(&sources, pairs[0].1.place), "[ab, 'c d']");
        let Content::List(items) = &pairs[0].1.content else {
            panic!()
        };
        assert_eq!(covered(&sources, items[1].place), "'c d'");
        let Content::Map(inner) = &pairs[1].1.content else {
            panic!()
        };
        assert_eq!(covered(&sources, inner[0].1.place), "z");
        assert_eq!(pairs[2].1.place, pairs[2].0.place);
    }

    #[test]
    fn an_ipv6_address_that_lacks_quotes_is_what_is_said_to_be_wrong() {
        let hint = |text: &str| {
            let read = parse("f", text.as_bytes(), &mut Sources::default());
            read.unwrap_err().hint.unwrap_or_default()
        };
        for text in [
            "web: [::1]:80\n",
            "listeners: { web: [::1]:80 }\n",
            "listeners: { web: { address: [fd00::1]:80, mode: 0600 } }\n",
            "web: [127.0.0.1:80, tcp://[::1]:80]\n",
        ] {
            assert_eq!(hint(text), QUOTE_BRACKETS, "{text}");
        }
        for text in ["a: { web: \"[::1]:80\" ]\n", "a: { b: [1]:2 ]\n"] {
            assert_ne!(hint(text), QUOTE_BRACKETS, "{text}");
        }
        // In a time that grows with the length of the line only.
        assert!(!has_bare_ipv6(&"[::1".repeat(100_000)));
    }

    #[test]
    fn aliases_are_copies_that_stand_where_they_are_used() {
        let (node, sources) = tree("a: &x {k: v}\nb: *x\n");
        let Content::Map(pairs) = node.unwrap().content else {
            panic!()
        };
        assert_eq!(pairs[0].1.content, pairs[1].1.content);
        assert_eq!(covered(&sources, pairs[1].1.place), "*x");
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(Value::from),
            "[ -~é€\n\t]{0,24}".prop_map(Value::String),
            "(null|~|true|0660|1:2|[-:?] |#x|&a|\\*a|!t|yes|\\{|\\[)?[a-z: ]{0,6}"
                .prop_map(Value::String),
        ];
        leaf.prop_recursive(4, 40, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::Sequence),
                prop::collection::btree_map("[ -~é]{0,8}", inner, 0..6).prop_map(|map| {
                    Value::Mapping(
                        map.into_iter()
                            .map(|(k, v)| (Value::String(k), v))
                            .collect(),
                    )
                }),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn scalars_are_what_serde_yaml_reads(value in values()) {
            let text = to_yaml(&value).unwrap();
            let theirs: Value = serde_yaml::from_str(&text).unwrap();
            let (node, sources) = tree(&text);
            let node = node.unwrap();
            prop_assert!(same(&node, &theirs), "{text}\n{node:?}\n{theirs:?}");
            check_plain_places(&node, &sources);
        }
    }
}
