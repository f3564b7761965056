//! Facts as text, a JSON object each, and what they come to one after the other.

use super::error::ThawError;
use super::fact::{Change, Extra, Fact, Key, Kind};
use super::words::As;
use crate::core::types::{Phase, Revision};
use crate::plan::WorkerId;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// The format that is written, and the newest that can be read. A format gets another number only when what
/// reads the one before would misunderstand it: see `docs/snapshot.md`.
pub const FORMAT: u32 = 1;

/// The kind of the fact that says which format the others have.
const HEAD: &str = "snapshot";

/// Everything that the core needs to go on where another one was.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Snapshot {
    pub(in crate::core) facts: BTreeMap<Key, Fact>,
}

/// What text says, fact by fact.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Reading {
    /// What is the core's.
    pub snapshot: Snapshot,
    /// What is others', and what nobody here knows: to be written again as it is. In the order in which each
    /// was first told.
    pub others: Vec<Extra>,
}

impl Snapshot {
    /// Whether listend was about to end.
    pub fn is_stopping(&self) -> bool {
        matches!(self.phase(), Some(Phase::Stopping | Phase::Hurried))
    }

    /// Whether listend had ended.
    pub fn is_over(&self) -> bool {
        self.phase() == Some(Phase::Exited)
    }

    fn phase(&self) -> Option<Phase> {
        match self.facts.get(&Key::Daemon).map(|fact| &fact.0) {
            Some(Kind::Daemon(daemon)) => Some(daemon.phase.cast()),
            _ => None,
        }
    }

    /// Takes over a change.
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Set(fact) => drop(self.facts.insert(fact.key(), fact)),
            Change::Gone(key) => drop(self.facts.remove(&key)),
        }
    }

    /// All of it, as changes to nothing.
    pub fn changes(&self) -> impl Iterator<Item = Change> + '_ {
        self.facts.values().cloned().map(Change::Set)
    }

    /// The definitions by which something runs or may be started: `Core::thaw` needs the life cycle
    /// of each.
    pub fn definitions(&self) -> BTreeSet<(WorkerId, Revision)> {
        let mut all = BTreeSet::new();
        for fact in self.facts.values() {
            match &fact.0 {
                Kind::Worker(worker) => {
                    let from = worker.rollout.as_ref().map(|rollout| rollout.from_revision);
                    let given_up = worker.given_up.as_ref().map(|one| one.revision);
                    let revisions = [Some(worker.revision), from, given_up];
                    let revisions = revisions.into_iter().flatten();
                    all.extend(revisions.map(|one| (WorkerId(worker.key), Revision(one))));
                }
                Kind::Run(run) => drop(all.insert((WorkerId(run.worker), Revision(run.revision)))),
                Kind::Daemon(_) | Kind::Connections(_) | Kind::Hook(_) | Kind::Listener(_) => {}
            }
        }
        all
    }

    /// Reads text, an object a line. Later lines replace earlier ones of the same kind and key.
    ///
    /// # Errors
    ///
    /// A line is no fact, or one that this listend cannot understand; or the format is newer, or not said.
    pub fn read<'a>(lines: impl IntoIterator<Item = &'a str>) -> Result<Reading, ThawError> {
        let mut reading = Reading::default();
        let mut others: Vec<Option<Extra>> = Vec::new();
        let mut places: BTreeMap<(String, String), usize> = BTreeMap::new();
        for line in lines {
            let object = object(line)?;
            let kind = kind_of(&object)?;
            let (kind, key) = (kind.to_owned(), object.get("key").unwrap_or(&Value::Null));
            let is_gone = object.get("gone") == Some(&Value::Bool(true));
            if let Some(known) = Key::of(&kind, key.as_u64()) {
                reading.snapshot.apply(match is_gone {
                    true => Change::Gone(known),
                    false => Change::Set(fact(object, &kind)?),
                });
                continue;
            }
            if let "daemon" | "worker" | "connections" | "run" | "hook" | "listener" = &*kind {
                return Err(ThawError::new(format!("{kind} {key}: no such key")));
            }
            let at = places.entry((kind, key.to_string())).or_insert_with(|| {
                others.push(None);
                others.len() - 1
            });
            // Pushed above, or by an earlier line.
            if let Some(place) = others.get_mut(*at) {
                *place = (!is_gone).then_some(object);
            }
        }
        reading.others = others.into_iter().flatten().collect();
        check_format(&reading.others)?;
        Ok(reading)
    }
}

impl Change {
    /// The line that tells it.
    pub fn text(&self) -> String {
        let value = match self {
            Change::Set(fact) => serde_json::to_value(fact),
            Change::Gone(key) => Ok(match key.number() {
                Some(number) => json!({"kind": key.kind(), "key": number, "gone": true}),
                None => json!({"kind": key.kind(), "gone": true}),
            }),
        };
        // Facts have nothing that JSON has not: numbers, words, lists, and objects whose keys are words.
        value.unwrap_or_default().to_string()
    }
}

fn object(line: &str) -> Result<Extra, ThawError> {
    let value: Value = serde_json::from_str(line)
        .map_err(|error| ThawError::new(format!("a fact is not JSON: {error}")))?;
    match value {
        Value::Object(object) => Ok(object),
        _ => Err(ThawError::new("a fact is no JSON object")),
    }
}

fn kind_of(object: &Extra) -> Result<&str, ThawError> {
    let kind = object.get("kind").and_then(Value::as_str);
    kind.ok_or_else(|| ThawError::new("a fact does not say of what kind it is"))
}

fn fact(object: Extra, kind: &str) -> Result<Fact, ThawError> {
    let key = object.get("key").map(Value::to_string).unwrap_or_default();
    let fact: Fact = serde_json::from_value(Value::Object(object))
        .map_err(|error| ThawError::new(format!("{kind} {key}: {error}")))?;
    Ok(fact)
}

/// Whether what is written can be read here.
fn check_format(others: &[Extra]) -> Result<(), ThawError> {
    let is_head = |one: &&Extra| one.get("kind").and_then(Value::as_str) == Some(HEAD);
    let Some(head) = others.iter().find(is_head) else {
        return Err(ThawError::new("it does not say which format it has"));
    };
    let format = head.get("format").and_then(Value::as_u64);
    let by = head.get("written_by").and_then(Value::as_str);
    let by = by.unwrap_or("an unknown version");
    match format {
        Some(0) | None => Err(ThawError::new("it does not say which format it has")),
        Some(format) if format > u64::from(FORMAT) => Err(ThawError::new(format!(
            "it has format {format}, written by listend {by}, and this listend reads formats up to {FORMAT}"
        ))),
        Some(_) => Ok(()),
    }
}
