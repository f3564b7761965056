//! The YAML that is made, entry by entry, and the comments for what has no equivalent.

use crate::config::{self, SourceFile, is_allowed};
use std::collections::HashSet;
use std::fmt::Write as _;
use std::path::PathBuf;

/// The value of a key.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    /// A scalar.
    Text(String),
    List(Vec<String>),
    Map(Vec<(String, String)>),
    /// A mapping with a line for each key.
    Block(Vec<(String, Value)>),
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Value {
        Value::Text(text)
    }
}

impl From<Vec<String>> for Value {
    fn from(list: Vec<String>) -> Value {
        Value::List(list)
    }
}

/// A listener or a worker.
#[derive(Debug, Clone, Default)]
pub(super) struct Entry {
    pub name: String,
    keys: Vec<(String, Value)>,
    notes: Vec<String>,
}

impl Entry {
    pub fn new(name: &str) -> Entry {
        Entry {
            name: name_from(name),
            ..Entry::default()
        }
    }

    /// Sets a key; the last value counts.
    pub fn set(&mut self, key: &str, value: impl Into<Value>) {
        let value = value.into();
        match self.keys.iter_mut().find(|(name, _)| name == key) {
            Some((_, old)) => *old = value,
            None => self.keys.push((key.to_owned(), value)),
        }
    }

    /// Adds to the list or the mapping of a key.
    pub fn add(&mut self, key: &str, more: Value) {
        let old = self.keys.iter_mut().find(|(name, _)| name == key);
        match (old.map(|(_, value)| value), more) {
            (Some(Value::List(list)), Value::List(more)) => list.extend(more),
            (Some(Value::Map(map)), Value::Map(more)) => {
                for (name, value) in more {
                    map.retain(|(other, _)| *other != name);
                    map.push((name, value));
                }
            }
            (_, more) => self.set(key, more),
        }
    }

    pub fn get(&self, key: &str) -> Option<&Value> {
        let found = self.keys.iter().find(|(name, _)| name == key);
        found.map(|(_, value)| value)
    }

    pub fn remove(&mut self, key: &str) {
        self.keys.retain(|(name, _)| name != key);
    }

    /// The keys whose value, as it is written, is one that `test` looks for.
    pub fn keys_with(&self, test: impl Fn(&str) -> bool) -> Vec<(String, String)> {
        let written = self
            .keys
            .iter()
            .map(|(key, value)| (key.clone(), shown(value)));
        written.filter(|(_, value)| test(value)).collect()
    }

    /// Says what has no equivalent, and why.
    pub fn note(&mut self, what: &str, why: &str) {
        let note = format!("not translated: {what}: {why}");
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    /// Says something else to the reader.
    pub fn remark(&mut self, text: &str) {
        self.notes.push(text.to_owned());
    }
}

/// A whole configuration.
#[derive(Debug, Default)]
pub(super) struct Document {
    pub listeners: Vec<Entry>,
    pub workers: Vec<Entry>,
    /// Comments that belong to no entry.
    pub notes: Vec<String>,
}

impl Document {
    /// Says what has no equivalent outside of an entry.
    pub fn note(&mut self, what: &str, why: &str) {
        let note = format!("not translated: {what}: {why}");
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    /// Whether it defines nothing.
    pub fn is_empty(&self) -> bool {
        self.listeners.is_empty() && self.workers.is_empty()
    }

    /// Whether there is a listener with this name.
    pub fn has(&self, name: &str) -> bool {
        self.listeners.iter().any(|listener| listener.name == name)
    }

    /// The YAML. A line that `listend check` would refuse becomes a comment with its reason.
    pub fn into_yaml(mut self) -> String {
        unique(&mut self.listeners);
        unique(&mut self.workers);
        let mut lines = self.lines();
        // Each pass takes out at least one line.
        for _ in 0..lines.len() {
            let text = text(&lines);
            let file = SourceFile {
                name: "import".to_owned(),
                bytes: text.into_bytes(),
                folder: PathBuf::from("/"),
            };
            if !comment_out(&mut lines, &config::read(vec![file]).report.errors) {
                break;
            }
        }
        text(&lines)
    }

    fn lines(&self) -> Vec<Line> {
        let mut lines: Vec<Line> = self
            .notes
            .iter()
            .flat_map(|note| comments("", note))
            .collect();
        for (table, entries) in [("listeners", &self.listeners), ("workers", &self.workers)] {
            if entries.is_empty() {
                continue;
            }
            if !lines.is_empty() {
                lines.push(Line::written(0, String::new()));
            }
            lines.push(Line::written(0, format!("{table}:")));
            for entry in entries {
                lines.push(Line::written(2, format!("{}:", scalar(&entry.name))));
                for note in &entry.notes {
                    lines.extend(comments("    ", note));
                }
                for (key, value) in &entry.keys {
                    let Value::Block(keys) = value else {
                        lines.push(Line::written(4, format!("{key}: {}", shown(value))));
                        continue;
                    };
                    lines.push(Line::written(4, format!("{key}:")));
                    for (key, value) in keys {
                        lines.push(Line::written(6, format!("{key}: {}", shown(value))));
                    }
                }
            }
        }
        lines
    }
}

/// A line of the YAML.
struct Line {
    indent: usize,
    text: String,
    /// Why it is a comment.
    refused: Option<String>,
}

impl Line {
    fn written(indent: usize, text: String) -> Line {
        Line {
            indent,
            text,
            refused: None,
        }
    }
}

fn text(lines: &[Line]) -> String {
    let mut out = String::new();
    for line in lines {
        let indent = " ".repeat(line.indent);
        let written = match &line.refused {
            None => writeln!(out, "{indent}{}", line.text),
            Some(why) => {
                let why = why
                    .replace(['\n', '\r'], " ")
                    .replace(|one| !is_comment(one), "");
                let what = line.text.trim_end_matches(':');
                writeln!(out, "{indent}# not translated: {what}: {why}")
            }
        };
        // A string takes everything.
        debug_assert!(written.is_ok());
    }
    out
}

/// Makes comments of the lines in which errors stand. An error at a name takes the whole entry. Whether
/// something has changed.
fn comment_out(lines: &mut [Line], errors: &[crate::report::Problem]) -> bool {
    let mut changed = false;
    for problem in errors {
        let Some(place) = problem.place else {
            continue;
        };
        let first = place.line as usize - 1;
        let Some(line) = lines.get(first) else {
            continue;
        };
        let (outer, is_table) = (line.indent, line.indent == 0);
        let end = lines[first + 1..]
            .iter()
            .take_while(|line| !is_table && line.indent > outer)
            .count();
        for line in &mut lines[first..=first + end] {
            if line.refused.is_none() && !line.text.starts_with('#') {
                line.refused = Some(problem.message.clone());
                changed = true;
            }
        }
    }
    changed
}

/// Whether a comment may have the character.
fn is_comment(letter: char) -> bool {
    is_allowed(letter) && !letter.is_control() && letter != '\u{feff}'
}

/// A note as lines of comments.
fn comments(indent: &str, note: &str) -> Vec<Line> {
    let lines = note.lines().map(|line| {
        let line: String = line.chars().filter(|letter| is_comment(*letter)).collect();
        Line::written(indent.len(), format!("# {line}"))
    });
    lines.collect()
}

/// Gives a number to names that come twice.
fn unique(entries: &mut [Entry]) {
    let mut seen = HashSet::new();
    for entry in entries {
        let wanted = entry.name.clone();
        let mut number = 2;
        while !seen.insert(entry.name.clone()) {
            entry.name = format!("{wanted}-{number}");
            number += 1;
        }
    }
}

/// The nearest name that a listener or worker can have.
pub(super) fn name_from(text: &str) -> String {
    let fits = |letter: char| letter.is_ascii_alphanumeric() || "-_.@".contains(letter);
    let name: String = text
        .chars()
        .map(|letter| if fits(letter) { letter } else { '-' })
        .take(200)
        .collect();
    match name.trim_matches('-') {
        "" => "unnamed".to_owned(),
        name => name.to_owned(),
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Text(text) => scalar(text),
        Value::List(list) => {
            let list: Vec<String> = list.iter().map(|text| scalar(text)).collect();
            format!("[{}]", list.join(", "))
        }
        Value::Map(map) => {
            let map = map.iter();
            let map: Vec<String> = map
                .map(|(key, value)| match value.is_empty() {
                    true => format!("{}: \"\"", scalar(key)),
                    false => format!("{}: {}", scalar(key), nested(value)),
                })
                .collect();
            format!("{{ {} }}", map.join(", "))
        }
        Value::Block(keys) => {
            let keys = keys
                .iter()
                .map(|(key, value)| format!("{key}: {}", shown(value)));
            keys.collect::<Vec<String>>().join(", ")
        }
    }
}

/// A value in a mapping: a list where it is written as one.
fn nested(value: &str) -> String {
    if value.starts_with("[ ") && value.ends_with(" ]") {
        return value.to_owned();
    }
    scalar(value)
}

/// A scalar, quoted where it has to be.
fn scalar(text: &str) -> String {
    // A dash alone, or before a blank, begins an element of a list.
    let first = |letter: char| letter.is_ascii_alphanumeric() || "/_.-".contains(letter);
    let rest = |letter: char| letter.is_ascii_alphanumeric() || "/_.:@%+=-".contains(letter);
    let words = ["null", "true", "false", "yes", "no", "on", "off", "y", "n"];
    let is_plain = text.starts_with(first)
        && text.contains(|letter: char| letter.is_ascii_alphanumeric())
        && text.chars().all(rest)
        && !text.ends_with(':')
        && (!words.contains(&text.to_ascii_lowercase().as_str())
            || text == "true"
            || text == "false");
    if is_plain {
        return text.to_owned();
    }
    // JSON is YAML, but for some characters that only YAML wants to be escaped. All have four digits.
    let quoted = serde_json::Value::from(text).to_string();
    let quoted = quoted.chars().map(|letter| match is_comment(letter) {
        true => letter.to_string(),
        false => format!("\\u{:04x}", u32::from(letter)),
    });
    quoted.collect()
}

/// Has a program that binds the port of its variable `PORT` serve the clients of a listener.
pub(super) fn forwarded(worker: &mut Entry, listener: &Entry) {
    worker.remark(
        "It binds the port in PORT itself, and listend passes the connections on. A program that takes its\n\
         listener, by a `preset` or a placeholder such as {fd:NAME}, needs no `forward`, and costs less.",
    );
    worker.set("listeners", vec![listener.name.clone()]);
    worker.set("forward", "127.0.0.1:{port}");
    let pair = ("PORT".to_owned(), "{port}".to_owned());
    worker.add("environment", Value::Map(vec![pair]));
}

/// Text in which no brace begins a placeholder.
pub(super) fn literal(text: &str) -> String {
    text.replace('{', "{{").replace('}', "}}")
}

/// The same, but for the braces of `${NAME}`, which `expand_environment` is for.
pub(super) fn with_variables(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once("${") {
        let Some((name, after)) = behind.split_once('}') else {
            break;
        };
        out.push_str(&literal(before));
        out.push_str(&format!("${{{name}}}"));
        rest = after;
    }
    out + &literal(rest)
}
