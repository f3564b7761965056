//! `defaults:`, the keys of every worker that does not have them.
//!
//! They are merged before a worker is read, so that each key is checked as if it stood in the worker.

use super::decode::Fields;
use super::draft::Draft;
use super::keys;
use super::preset;
use super::value_error::{Diagnostics, ValueError};
use super::yaml::{Content, Node};
use crate::report::Kind;

/// The keys that say what a worker is.
const OF_ONE_WORKER: &[&str] = &["command", "listeners"];

/// Takes the defaults for the workers of this file and of those behind it. What is wrong is filed.
pub(super) fn declare(node: &Node, draft: &mut Draft, out: &mut Diagnostics) {
    if let Some(first) = &draft.defaults {
        let value_error = ValueError::new(Kind::DuplicateKey, "`defaults` occurs in two files");
        let problem = value_error.hint("delete one of them").at(node.place);
        out.add(problem.with_related(first.place, "first written here"));
        return;
    }
    if Fields::open(node, keys::WORKER, "`defaults`", &["output"], out).is_none() {
        return;
    }
    let Content::Map(pairs) = &node.content else {
        return;
    };
    for (key, _) in pairs {
        if let Some(name) = word(key).filter(|name| OF_ONE_WORKER.contains(name)) {
            let message = format!("`{name}` cannot be the same for every worker");
            let value_error = ValueError::new(Kind::UnknownKey, message);
            out.add(value_error.hint("write it in each worker").at(key.place));
        }
    }
    draft.defaults = Some(node.clone());
}

/// A worker with the defaults that it does not have itself; `None` if there are none to add. Of mappings,
/// such as `environment`, the keys are merged. The settings of a worker's own preset win over defaults.
pub(super) fn merged(worker: &Node, defaults: Option<&Node>) -> Option<Node> {
    let (Content::Map(own), Content::Map(defaults)) = (&worker.content, &defaults?.content) else {
        return None;
    };
    let mut pairs = own.clone();
    let preset = value_of(own, "preset").or_else(|| value_of(defaults, "preset"));
    let preset = preset.and_then(word).and_then(|name| {
        let mut all = preset::ALL.iter();
        all.find(|preset| preset.name == name)
    });
    for (key, value) in defaults {
        let Some(name) = word(key).filter(|name| !OF_ONE_WORKER.contains(name)) else {
            continue;
        };
        let is_known = keys::WORKER.iter().any(|key| key.name == name);
        let is_of_preset =
            preset.is_some_and(|preset| preset.settings.iter().any(|(key, _)| *key == name));
        match pairs.iter_mut().find(|(own, _)| word(own) == Some(name)) {
            Some((_, own)) => add_missing(own, value),
            None if is_known && !is_of_preset => pairs.push((key.clone(), value.clone())),
            None => {}
        }
    }
    Some(Node {
        place: worker.place,
        content: Content::Map(pairs),
    })
}

/// Adds the keys of one mapping that the other lacks.
fn add_missing(own: &mut Node, defaults: &Node) {
    let (Content::Map(own), Content::Map(defaults)) = (&mut own.content, &defaults.content) else {
        return;
    };
    for (key, value) in defaults {
        if word(key).is_some_and(|name| value_of(own, name).is_none()) {
            own.push((key.clone(), value.clone()));
        }
    }
}

fn word(node: &Node) -> Option<&str> {
    match &node.content {
        Content::Scalar(scalar) => Some(&scalar.text),
        Content::Null { .. } | Content::List(_) | Content::Map(_) => None,
    }
}

fn value_of<'n>(pairs: &'n [(Node, Node)], name: &str) -> Option<&'n Node> {
    let found = pairs.iter().find(|(key, _)| word(key) == Some(name));
    found.map(|(_, value)| value)
}
