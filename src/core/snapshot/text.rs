//! Facts as text, a JSON object each, and what they come to one after the other.

use super::error::ThawError;
use super::fact::{Change, Fact, FactKind, Key};
use super::words::As;
use crate::core::types::{Phase, Revision};
use crate::plan::WorkerId;
use serde::Deserialize;
use serde_json::Value;
use serde_json::error::Category;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};

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
    /// What is others', and what nobody here knows: to be written again as it is. The line of each, and its kind,
    /// in the order in which they were first told.
    pub others: Vec<(String, String)>,
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
            Some(FactKind::Daemon(daemon)) => Some(daemon.phase.cast()),
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
                FactKind::Worker(worker) => {
                    let from = worker.rollout.as_ref().map(|rollout| rollout.from_revision);
                    let given_up = worker.given_up.as_ref().map(|one| one.revision);
                    let revisions = [Some(worker.revision), from, given_up];
                    let revisions = revisions.into_iter().flatten();
                    all.extend(revisions.map(|one| (WorkerId(worker.key), Revision(one))));
                }
                FactKind::Run(run) => {
                    all.insert((WorkerId(run.worker), Revision(run.revision)));
                }
                FactKind::Daemon(_)
                | FactKind::Connections(_)
                | FactKind::Hook(_)
                | FactKind::Listener(_) => {}
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
        let mut others: Vec<Option<(String, &str)>> = Vec::new();
        let mut places: HashMap<(String, Value), usize> = HashMap::new();
        for line in lines {
            let Head { kind, key, gone } = head(line)?;
            if let Some(known) = Key::of(&kind, key.as_u64()) {
                reading.snapshot.apply(match gone {
                    true => Change::Gone(known),
                    false => Change::Set(fact(line, &kind, &key)?),
                });
                continue;
            }
            if let "daemon" | "worker" | "connections" | "run" | "hook" | "listener" = &*kind {
                return Err(ThawError::new(format!("{kind} {key}: no such key")));
            }
            let told = (!gone).then(|| (kind.clone(), line));
            match places.entry((kind, key)) {
                Entry::Occupied(place) => {
                    // Pushed below, by an earlier line.
                    if let Some(other) = others.get_mut(*place.get()) {
                        *other = told;
                    }
                }
                Entry::Vacant(place) => {
                    place.insert(others.len());
                    others.push(told);
                }
            }
        }
        let others = others.into_iter().flatten();
        let others = others.map(|(kind, line)| (kind, line.to_owned()));
        reading.others = others.collect();
        check_format(&reading.others)?;
        Ok(reading)
    }
}

impl Change {
    /// The line that tells it.
    pub fn text(&self) -> String {
        match self {
            // Facts have nothing that JSON has not: numbers, words, lists, and objects whose keys are words.
            Change::Set(fact) => serde_json::to_string(fact).unwrap_or_default(),
            Change::Gone(key) => match key.number() {
                Some(number) => {
                    format!(r#"{{"kind":"{}","key":{number},"gone":true}}"#, key.kind())
                }
                None => format!(r#"{{"kind":"{}","gone":true}}"#, key.kind()),
            },
        }
    }
}

/// What every line has.
#[derive(Deserialize)]
struct Head {
    kind: String,
    #[serde(default)]
    key: Value,
    #[serde(default)]
    gone: bool,
}

fn head(line: &str) -> Result<Head, ThawError> {
    serde_json::from_str(line).map_err(|error| match error.classify() {
        Category::Data => ThawError::new(format!("a line is no fact: {error}")),
        _ => ThawError::new(format!("a fact is not JSON: {error}")),
    })
}

fn fact(line: &str, kind: &str, key: &Value) -> Result<Fact, ThawError> {
    serde_json::from_str(line).map_err(|error| ThawError::new(format!("{kind} {key}: {error}")))
}

/// Whether what is written can be read here.
fn check_format(others: &[(String, String)]) -> Result<(), ThawError> {
    let head = others.iter().find(|(kind, _)| kind == HEAD);
    let head = head.and_then(|(_, line)| serde_json::from_str::<Value>(line).ok());
    let Some(head) = head else {
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
