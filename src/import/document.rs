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

impl Value {
    /// As it stands in the YAML.
    pub fn written(&self) -> String {
        shown(self)
    }
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

    /// Removes what `test` looks for in the value of a key, as it is written: elements of a list, or all of it.
    /// What was removed.
    pub fn take_out(&mut self, key: &str, test: impl Fn(&str) -> bool) -> Vec<String> {
        let Some((_, value)) = self.keys.iter_mut().find(|(name, _)| name == key) else {
            return Vec::new();
        };
        match value {
            Value::List(list) if !is_command(key) => {
                let (out, left): (Vec<String>, Vec<String>) =
                    list.drain(..).partition(|element| test(element));
                *list = left;
                if list.is_empty() {
                    self.remove(key);
                }
                out
            }
            value if test(&shown(value)) => {
                let written = shown(value);
                self.remove(key);
                vec![written]
            }
            _ => Vec::new(),
        }
    }

    /// The keys that are set.
    pub fn keys(&self) -> Vec<String> {
        self.keys.iter().map(|(key, _)| key.clone()).collect()
    }

    /// Says what has no equivalent, and why.
    pub fn note(&mut self, what: &str, why: &str) {
        add_note(&mut self.notes, what, why);
    }

    /// Says something else to the reader.
    pub fn remark(&mut self, text: &str) {
        self.notes.push(text.to_owned());
    }
}

/// Each once.
fn add_note(notes: &mut Vec<String>, what: &str, why: &str) {
    let note = format!("not translated: {what}: {why}");
    if !notes.contains(&note) {
        notes.push(note);
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
        add_note(&mut self.notes, what, why);
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
        // Each pass takes a line apart, or takes out at least one.
        let passes: usize = lines.iter().map(|line| 2 + line.parts.len()).sum();
        for _ in 0..passes {
            let text = text(&lines);
            let file = SourceFile {
                name: "import".to_owned(),
                bytes: text.into_bytes(),
                folder: PathBuf::from("/"),
            };
            let errors = config::read(vec![file]).report.errors;
            if !take_apart(&mut lines, &errors) && !comment_out(&mut lines, &errors) {
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
                        lines.push(Line {
                            parts: parts(key, value),
                            ..Line::written(4, format!("{key}: {}", shown(value)))
                        });
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
    /// Lines below the key alone that say the same.
    parts: Vec<String>,
    /// Why it is a comment.
    refused: Option<String>,
}

impl Line {
    fn written(indent: usize, text: String) -> Line {
        Line {
            indent,
            text,
            parts: Vec::new(),
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
                let what = line.text.trim_start_matches("- ").trim_end_matches(':');
                writeln!(out, "{indent}# not translated: {what}: {why}")
            }
        };
        // A string takes everything.
        debug_assert!(written.is_ok());
    }
    out
}

/// Whether the value is a command, which is another one without one of its words.
fn is_command(key: &str) -> bool {
    let hooks = ["before_start", "after_ready", "after_stop"];
    ["command", "reload_command"].contains(&key) || hooks.contains(&key)
}

/// The elements of a value, each in a line of its own.
fn parts(key: &str, value: &Value) -> Vec<String> {
    match value {
        Value::List(list) if !is_command(key) => list
            .iter()
            .map(|one| format!("- {}", scalar(one)))
            .collect(),
        Value::Map(map) => map.iter().map(pair).collect(),
        Value::List(_) | Value::Text(_) | Value::Block(_) => Vec::new(),
    }
}

/// Gives each element of the values in which errors stand a line of its own, so that only those are lost that
/// are wrong. Whether there is such a value.
fn take_apart(lines: &mut Vec<Line>, errors: &[crate::report::Problem]) -> bool {
    let places = errors.iter().filter_map(|problem| problem.place);
    let wrong: HashSet<usize> = places.map(|place| place.line as usize - 1).collect();
    let mut changed = false;
    let old = std::mem::take(lines);
    for (index, mut line) in old.into_iter().enumerate() {
        let parts = match wrong.contains(&index) && line.refused.is_none() {
            true => std::mem::take(&mut line.parts),
            false => Vec::new(),
        };
        let indent = line.indent + 2;
        if !parts.is_empty() {
            changed = true;
            line.text = line.text.split(' ').next().unwrap_or_default().to_owned();
        }
        lines.push(line);
        lines.extend(parts.into_iter().map(|part| Line::written(indent, part)));
    }
    changed
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
        let line = line.replace('\t', " ");
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
            let map: Vec<String> = map.iter().map(pair).collect();
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

/// A key of a mapping with its value.
fn pair((key, value): &(String, String)) -> String {
    match value.is_empty() {
        true => format!("{}: \"\"", scalar(key)),
        false => format!("{}: {}", scalar(key), nested(value)),
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
