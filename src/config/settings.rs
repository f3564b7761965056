//! Every setting of a worker, and where it comes from.

use super::by_preset;
use super::decode::{Entry, Fields, entries};
use super::defaults;
use super::value_error::Diagnostics;
use super::worker;
use super::yaml::{self, Content, Node};
use crate::report::{FileId, Place, Report, Sources};

/// A key with its value, as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// The name of the key.
    pub key: &'static str,
    /// The value, in one line.
    pub value: String,
    /// The origin of the value.
    pub source: Source,
}

/// The origin of a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The file, at this place.
    Written(Place),
    /// The preset of this name.
    Preset(&'static str),
    /// The default, in words where it depends on something else.
    Default,
}

/// Every setting of a worker, by the rules that [`super::read()`] has read these texts by; empty if there is
/// no such worker.
pub fn settings(sources: &Sources, name: &str) -> Vec<Setting> {
    // What is wrong has been reported when the texts were read.
    let mut known = Sources::default();
    let mut report = Report::default();
    let mut out = Diagnostics {
        report: &mut report,
        listener: None,
        worker: None,
    };
    let mut roots = Vec::new();
    for (index, file) in (0..).zip(sources.names()) {
        let text = sources.text(FileId(index));
        if let Ok((_, Some(root))) = yaml::parse(&file, text.as_bytes(), &mut known) {
            roots.push(root);
        }
    }
    let mut defaults = None;
    for root in &roots {
        defaults = defaults.or_else(|| value(root, "defaults"));
        let Some(workers) = value(root, "workers") else {
            continue;
        };
        let workers = entries(workers, "`workers`", &mut out).unwrap_or_default();
        if let Some(entry) = workers.iter().find(|entry| entry.name == name) {
            let merged = defaults::merged(entry.value, defaults);
            let value = merged.as_ref().unwrap_or(entry.value);
            if let Some(fields) = worker::open(&Entry { value, ..*entry }, &mut out) {
                return of_worker(fields, &mut out);
            }
        }
    }
    Vec::new()
}

/// The value of a key at the top of a file.
fn value<'n>(root: &'n Node, name: &str) -> Option<&'n Node> {
    let Content::Map(pairs) = &root.content else {
        return None;
    };
    let found = pairs.iter().find(|(key, _)| is_word(key, name));
    found.map(|(_, value)| value)
}

fn of_worker(mut fields: Fields, out: &mut Diagnostics) -> Vec<Setting> {
    let mut preset = fields.read("preset", out, by_preset::find).into_set();
    if let Some(preset) = &mut preset {
        preset.value = by_preset::in_mode(preset.value, fields.peek("command"));
    }
    let filled = by_preset::nodes(preset.as_ref());
    // For as long as what it is filled with.
    let mut fields: Fields = fields;
    fields.fill(&filled);
    let preset = preset.map_or("", |preset| preset.value.name);
    let settings = fields.each().map(|(key, node, is_filled)| Setting {
        key: key.name,
        value: match node {
            Some(node) if key.name == "environment" => names(node),
            Some(node) => in_one_line(node),
            None => key.default.to_owned(),
        },
        source: match node {
            Some(_) if is_filled => Source::Preset(preset),
            Some(node) => Source::Written(node.place),
            None => Source::Default,
        },
    });
    settings.collect()
}

fn is_word(node: &Node, word: &str) -> bool {
    matches!(&node.content, Content::Scalar(scalar) if scalar.text == word)
}

/// The names of variables. Their values may be secrets, and who may ask for this may not be allowed to
/// read the file.
fn names(environment: &Node) -> String {
    let Content::Map(pairs) = &environment.content else {
        return String::new();
    };
    let names: Vec<String> = pairs.iter().map(|(name, _)| in_one_line(name)).collect();
    names.join(", ")
}

/// The value as YAML that fits into one line.
fn in_one_line(node: &Node) -> String {
    match &node.content {
        Content::Null { .. } => "null".to_owned(),
        Content::Scalar(scalar) if scalar.plain => scalar.text.clone(),
        // A string of JSON is one of YAML.
        Content::Scalar(scalar) => serde_json::json!(scalar.text).to_string(),
        Content::List(items) => {
            let items: Vec<String> = items.iter().map(in_one_line).collect();
            format!("[{}]", items.join(", "))
        }
        Content::Map(pairs) => {
            let pair = |(key, value): &(Node, Node)| {
                format!("{}: {}", in_one_line(key), in_one_line(value))
            };
            let pairs: Vec<String> = pairs.iter().map(pair).collect();
            format!("{{{}}}", pairs.join(", "))
        }
    }
}
