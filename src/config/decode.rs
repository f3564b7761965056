//! Mappings, lists and single values out of the tree, each mistake filed where it stands.

use super::draft::{Field, Written};
use super::keys::{self, Key};
use super::template::{self, Dollar, Mention};
use super::value_error::{Diagnostics, ValueError};
use super::values::{Located, Template};
use super::yaml::{Content, Node, QUOTE_BRACKETS};
use crate::report::{Kind, Place, did_you_mean};
use foldhash::{HashMap, HashMapExt, HashSet};

/// A key with its value.
pub(super) struct Entry<'n> {
    pub name: &'n str,
    pub place: Place,
    pub value: &'n Node,
}

/// The entries of a mapping, each name once, and behind them what its merge key (`<<`) adds. Filed and
/// left out: names that are not text, and every further entry of a name. `None` is not a mapping, also
/// filed. `what` is the mapping in words that a message can hold.
pub(super) fn entries<'n>(
    node: &'n Node,
    what: &str,
    out: &mut Diagnostics,
) -> Option<Vec<Entry<'n>>> {
    let pairs = match &node.content {
        Content::Map(pairs) => pairs,
        _ => {
            out.add(wrong_type(what, MAPPING, node).at(node.place));
            return None;
        }
    };
    // Most mappings are so small that looking through them is faster than hashing.
    let is_small = pairs.len() <= 16;
    let mut seen: HashMap<&str, Place> = HashMap::new();
    let mut entries: Vec<Entry> = Vec::with_capacity(pairs.len());
    let mut merged: Vec<&Node> = Vec::new();
    for (key, value) in pairs {
        let Content::Scalar(scalar) = &key.content else {
            let value_error = ValueError::new(
                Kind::WrongType,
                format!("{} cannot be a name in {what}", key.what()),
            );
            let value_error = value_error.hint("write a word, or quote it");
            out.add(value_error.at(key.place));
            continue;
        };
        let name = scalar.text.as_str();
        if name == "<<" && scalar.plain {
            merged.extend(list(value));
            continue;
        }
        let first = if is_small {
            let mut earlier = entries.iter();
            earlier
                .find(|entry| entry.name == name)
                .map(|entry| entry.place)
        } else {
            seen.get(name).copied()
        };
        if let Some(first) = first {
            let problem = ValueError::new(
                Kind::DuplicateKey,
                format!("`{name}` occurs twice in {what}"),
            )
            .hint("delete one of them")
            .at(key.place)
            .with_related(first, "first written here");
            out.add(problem);
            continue;
        }
        if !is_small {
            seen.insert(name, key.place);
        }
        entries.push(Entry {
            name,
            place: key.place,
            value,
        });
    }
    if !merged.is_empty() {
        let mut names: HashSet<&str> = entries.iter().map(|entry| entry.name).collect();
        for node in merged {
            let added = self::entries(node, "`<<`", out).unwrap_or_default();
            entries.extend(added.into_iter().filter(|entry| names.insert(entry.name)));
        }
    }
    Some(entries)
}

/// The entries of a mapping with a fixed set of keys.
pub(super) struct Fields<'n> {
    table: &'static [Key],
    /// Few of many keys are written.
    found: Vec<Found<'n>>,
    #[cfg(debug_assertions)]
    taken: usize,
}

struct Found<'n> {
    name: &'static str,
    value: &'n Node,
    /// Whether the value is no text of the file, but a preset's.
    is_filled: bool,
}

impl<'n> Fields<'n> {
    /// A mapping without a key.
    pub fn empty(table: &'static [Key]) -> Fields<'n> {
        Fields {
            table,
            found: Vec::new(),
            #[cfg(debug_assertions)]
            taken: 0,
        }
    }

    /// Files unknown keys. A key without a value is filed too and then treated as if it were
    /// not there, except for the keys in `may_be_null`.
    pub fn open(
        node: &'n Node,
        table: &'static [Key],
        what: &str,
        may_be_null: &[&str],
        out: &mut Diagnostics,
    ) -> Option<Fields<'n>> {
        let mut fields = Fields::empty(table);
        let entries = entries(node, what, out)?;
        fields.found.reserve_exact(entries.len());
        for entry in entries {
            let Some(key) = table.iter().find(|key| key.name == entry.name) else {
                let names = table.iter().map(|key| key.name);
                let value_error = ValueError::new(
                    Kind::UnknownKey,
                    format!("unknown key `{}` in {what}", entry.name),
                )
                .maybe_hint(
                    keys::hint(table, entry.name).or_else(|| did_you_mean(entry.name, names)),
                );
                out.add(value_error.at(entry.place));
                continue;
            };
            let null = matches!(entry.value.content, Content::Null { .. });
            if null && !may_be_null.contains(&entry.name) {
                let value_error =
                    ValueError::new(Kind::WrongType, format!("`{}` has no value", entry.name))
                        .hint(match key.default {
                            "" => "write a value after it".to_owned(),
                            default => format!(
                                "write a value, or delete the line for the default ({default})"
                            ),
                        });
                out.add(value_error.at(entry.value.place));
                // What must be there but is empty has been reported, so it is not missing, too.
                if !key.default.is_empty() {
                    continue;
                }
            }
            fields.add(key, entry.value, false);
        }
        Some(fields)
    }

    fn add(&mut self, key: &'static Key, value: &'n Node, is_filled: bool) {
        self.found.push(Found {
            name: key.name,
            value,
            is_filled,
        });
    }

    fn find(&self, name: &str) -> Option<&Found<'n>> {
        self.found.iter().find(|found| found.name == name)
    }

    /// Gives values to keys that are not written. One of a pair that says the same stays away where the
    /// other is written.
    pub fn fill(&mut self, values: &'n [(&'static str, Node)]) {
        let pairs = [("reload_signal", "reload_command")];
        for (name, node) in values {
            let rival = pairs.iter().find(|(one, _)| one == name);
            let is_said = rival.is_some_and(|(_, other)| self.find(other).is_some());
            let Some(key) = self.table.iter().find(|key| key.name == *name) else {
                continue;
            };
            if !is_said && self.find(name).is_none() {
                self.add(key, node, true);
            }
        }
    }

    /// Each key of the table with its value, if it has one, and whether that is a preset's.
    pub fn each(&self) -> impl Iterator<Item = (&'static Key, Option<&'n Node>, bool)> + '_ {
        self.table.iter().map(|key| match self.find(key.name) {
            Some(found) => (key, Some(found.value), found.is_filled),
            None => (key, None, false),
        })
    }

    /// The value of a key, which is still to be taken.
    pub fn peek(&self, name: &str) -> Option<&'n Node> {
        self.find(name).map(|found| found.value)
    }

    /// The value of a key, if it is there.
    pub fn take(&mut self, name: &'static str) -> Option<&'n Node> {
        debug_assert!(
            self.table.iter().any(|key| key.name == name),
            "`{name}` is missing in keys.rs"
        );
        #[cfg(debug_assertions)]
        {
            self.taken += 1;
        }
        self.peek(name)
    }

    /// Reads the value of a key; `parse` gets the key and the text.
    pub fn read<T>(
        &mut self,
        name: &'static str,
        out: &mut Diagnostics,
        parse: impl FnOnce(&str, &str) -> Result<T, ValueError>,
    ) -> Field<T> {
        let Some(node) = self.take(name) else {
            return Field::Absent;
        };
        let place = node.place;
        let value = text(node, name, out).and_then(|text| out.check(place, parse(name, text)));
        value.map_or(Field::Broken(place), |value| {
            Field::Set(Located { value, place })
        })
    }

    /// Reads the value of a key into `to`. Answers with the key and the place of the value, unless the
    /// key is not written or its value is invalid.
    pub fn set<T>(
        &mut self,
        name: &'static str,
        to: &mut T,
        out: &mut Diagnostics,
        parse: impl FnOnce(&str, &str) -> Result<T, ValueError>,
    ) -> Option<Written> {
        let value = self.read(name, out, parse).into_set()?;
        *to = value.value;
        Some((name, value.place))
    }

    /// Checks, in debug builds, that the decoder asked for every key of the table.
    pub fn finish(self) {
        #[cfg(debug_assertions)]
        assert_eq!(
            self.taken,
            self.table.len(),
            "keys.rs and the decoder disagree"
        );
    }
}

/// The default of a key, as its table has it.
pub(super) fn default<T>(
    table: &[Key],
    name: &str,
    parse: impl FnOnce(&str, &str) -> Result<T, ValueError>,
) -> T {
    let key = table.iter().find(|key| key.name == name);
    match parse(name, key.map_or("", |key| key.default)) {
        Ok(value) => value,
        // Callers name a key of the table, and every reading of a configuration asks for all of them.
        Err(value_error) => unreachable!("the default of `{name}`: {}", value_error.message),
    }
}

/// What a key with names below it takes.
const MAPPING: &str = "a mapping of names to values";

/// The error for a node of the wrong kind.
pub(super) fn wrong_type(what: &str, expected: &str, node: &Node) -> ValueError {
    let value_error = ValueError::new(
        Kind::WrongType,
        format!("{what} takes {expected}, not {}", node.what()),
    );
    // `{fd:web}` without quotes is a YAML mapping.
    if let Content::Map(pairs) = &node.content
        && let [(only, value)] = pairs.as_slice()
        && let (Content::Scalar(word), Content::Null { .. }) = (&only.content, &value.content)
    {
        return value_error.hint(format!(
            "quote a word with a placeholder: \"{{{}}}\"",
            word.text
        ));
    }
    // So is `[::]:80` in a list.
    if let Content::Map(pairs) = &node.content
        && let [(only, _)] = pairs.as_slice()
        && let Content::List(_) = only.content
    {
        return value_error.hint(QUOTE_BRACKETS);
    }
    match (&node.content, expected) {
        (Content::Null { .. }, _) => {
            value_error.hint("write a value; quote it if it is a word like `null`")
        }
        (Content::List(_) | Content::Scalar(_), MAPPING) => {
            value_error.hint("write each as `NAME: VALUE`")
        }
        _ => value_error,
    }
}

/// The text of a single value.
pub(super) fn text<'n>(node: &'n Node, key: &str, out: &mut Diagnostics) -> Option<&'n str> {
    match &node.content {
        Content::Scalar(scalar) if scalar.text.contains('\0') => {
            let value_error =
                ValueError::bad(format!("`{key}`: the value contains a NUL character"));
            out.add(
                value_error
                    .hint("the kernel reads text only up to a NUL; delete it")
                    .at(node.place),
            );
            None
        }
        Content::Scalar(scalar) => Some(&scalar.text),
        _ => {
            out.add(wrong_type(&format!("`{key}`"), "a single value", node).at(node.place));
            None
        }
    }
}

/// The nodes of a list, or the one node that stands for a list of one.
pub(super) fn list(node: &Node) -> &[Node] {
    match &node.content {
        Content::List(items) => items,
        _ => std::slice::from_ref(node),
    }
}

/// The texts of a list or of a single value; what is no text is filed.
pub(super) fn texts(node: &Node, key: &str, out: &mut Diagnostics) -> Vec<Located<String>> {
    let mut texts = Vec::new();
    if let Content::Map(_) = node.content {
        let expected = "a single value or a list of them";
        out.add(wrong_type(&format!("`{key}`"), expected, node).at(node.place));
        return texts;
    }
    for item in list(node) {
        if let Some(text) = text(item, key, out) {
            texts.push(Located {
                value: text.to_owned(),
                place: item.place,
            });
        }
    }
    texts
}

/// The words that a key takes: each with what it stands for, and what other programs call it.
pub(super) type Words<T> = [(&'static str, T, &'static [&'static str])];

/// One row for each word: the word, its value, and the words of other programs.
macro_rules! words {
    ($($word:literal = $value:expr $(, $synonym:literal)*;)*) => {
        &[$(($word, $value, &[$($synonym),*]),)*]
    };
}
pub(super) use words;

/// The error for a word that a key does not take.
pub(super) fn unknown(key: &str, text: &str) -> ValueError {
    ValueError::bad(format!("`{key}`: unknown value `{text}`"))
}

/// Reads one of a set of words, and tells a word of another program from a typing error.
pub(super) fn choice<T: Copy>(key: &str, text: &str, words: &Words<T>) -> Result<T, ValueError> {
    if let Some((_, value, _)) = words.iter().find(|(word, ..)| *word == text) {
        return Ok(*value);
    }
    let mut all = words.iter();
    let hint = match all.find(|(_, _, synonyms)| synonyms.contains(&text)) {
        Some((word, ..)) => Some(format!("did you mean `{word}`?")),
        None => did_you_mean(text, words.iter().map(|(word, ..)| *word)),
    };
    Err(unknown(key, text).maybe_hint(hint))
}

/// A user's or group's name or number.
pub(super) fn account(key: &str, text: &str) -> Result<String, ValueError> {
    if text.is_empty() || text.chars().any(|c| c.is_whitespace() || c == ':') {
        let value_error = ValueError::bad(format!("`{key}`: `{text}` cannot be a name"));
        return Err(match text.split_once(':') {
            Some((user, group)) if key == "user" => value_error.hint(format!(
                "write `user: {user}`, and the group as `group: {group}`"
            )),
            _ => value_error.hint("write a name or a number"),
        });
    }
    Ok(text.to_owned())
}

/// `silence:`, at any level.
pub(super) fn silence(node: Option<&Node>, out: &mut Diagnostics) -> Vec<String> {
    let mut codes = Vec::new();
    for code in node
        .map(|node| texts(node, "silence", out))
        .unwrap_or_default()
    {
        if Kind::advice_from_code(&code.value).is_some() {
            codes.push(code.value);
            continue;
        }
        let is_error = Kind::ALL.iter().any(|kind| kind.code() == code.value);
        let value_error = if is_error {
            ValueError::bad(format!(
                "`{}` is an error; only advice can be suppressed",
                code.value
            ))
        } else {
            let known: Vec<String> = Kind::silenceable().map(Kind::code).collect();
            ValueError::bad(format!("there is no advice `{}`", code.value))
                .maybe_hint(did_you_mean(&code.value, known.iter().map(String::as_str)))
        };
        out.add(value_error.at(code.place));
    }
    codes
}

/// Reads a template; its mentions of listeners are kept to be checked when all are known.
pub(super) fn read_template(
    text: &str,
    place: Place,
    mentions: &mut Vec<(Place, Mention)>,
    out: &mut Diagnostics,
) -> Template {
    read_with_dollars(text, Dollar::Plain, place, mentions, out)
}

/// Reads a template as [`read_template`] does, with this meaning of the dollar.
pub(super) fn read_with_dollars(
    text: &str,
    dollar: Dollar,
    place: Place,
    mentions: &mut Vec<(Place, Mention)>,
    out: &mut Diagnostics,
) -> Template {
    let (template, mentioned, mistakes) = template::parse(text, dollar);
    if mentioned.is_empty() && mistakes.is_empty() {
        return template;
    }
    let width = text.chars().count();
    for mistake in mistakes {
        let place = within(place, width, mistake.start, mistake.length);
        out.add(mistake.value_error.at(place));
    }
    for mention in mentioned {
        mentions.push((within(place, width, mention.start, mention.length), mention));
    }
    template
}

/// The place of a part of a text. Escapes in quotes and folded lines make the text differ from
/// what stands in the file; the whole is shown then.
fn within(place: Place, width: usize, start: usize, length: usize) -> Place {
    let (Ok(width), Ok(start), Ok(length)) = (
        u32::try_from(width),
        u32::try_from(start),
        u32::try_from(length),
    ) else {
        return place;
    };
    let quotes = match place.length.checked_sub(width) {
        Some(0) => 0,
        Some(2) => 1,
        _ => return place,
    };
    Place {
        column: place.column + quotes + start,
        length: length.max(1),
        ..place
    }
}
