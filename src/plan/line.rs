//! Lines about differences, in future or past tense.

use super::model::SocketKey;
use crate::config::Endpoint;

/// Whether a difference is applied, or only would be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tense {
    /// `is bound`: by a reload.
    Present,
    /// `would be bound`: by a dry run.
    Conditional,
}

/// A verb in both tenses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verb {
    present: &'static str,
    base: &'static str,
}

impl Verb {
    /// Another generation starts.
    pub const ROLLS: Verb = Verb::new("rolls", "roll");
    /// Something is done.
    pub const IS: Verb = Verb::new("is", "be");
    pub(super) const ARE: Verb = Verb::new("are", "be");
    pub(super) const APPLIES: Verb = Verb::new("applies", "apply");
    pub(super) const APPLY: Verb = Verb::new("apply", "apply");
    pub(super) const CHANGES: Verb = Verb::new("changes", "change");

    const fn new(present: &'static str, base: &'static str) -> Verb {
        Verb { present, base }
    }
}

/// So many addresses are named one by one.
const NAMED: usize = 4;

/// The address of a socket that a line is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) key: SocketKey,
    /// As configured.
    pub(super) endpoint: Endpoint,
    /// What tells it from another of the same text, with a space before it; or nothing.
    pub(super) detail: String,
}

/// A line about a difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    start: String,
    /// Listed behind the start.
    addresses: Vec<Named>,
    verb: Option<(Verb, String)>,
}

impl Line {
    /// A line that is the same in each tense.
    pub(super) fn plain(title: &str, words: &str) -> Line {
        Line {
            start: format!("{title}: {words}"),
            addresses: Vec::new(),
            verb: None,
        }
    }

    /// `subject` may be empty, where the title says it.
    pub fn new(title: &str, subject: &str, verb: Verb, rest: impl Into<String>) -> Line {
        let gap = if subject.is_empty() { "" } else { " " };
        Line {
            start: format!("{title}:{gap}{subject}"),
            addresses: Vec::new(),
            verb: Some((verb, rest.into())),
        }
    }

    /// `A is bound`, `A, B and 3 more are bound`, with words of its own before the addresses.
    pub(super) fn list(title: &str, before: &str, addresses: Vec<Named>, done: &str) -> Line {
        let verb = match addresses.len() {
            1 => Verb::IS,
            _ => Verb::ARE,
        };
        Line {
            addresses,
            ..Line::new(title, before, verb, done)
        }
    }

    /// The line in words.
    pub fn told(&self, tense: Tense) -> String {
        self.told_with(tense, |_| None)
    }

    /// The line in words. `bound` knows where a socket is bound, which is not as configured where the kernel
    /// was to choose the port.
    pub(super) fn told_with<'a>(
        &self,
        tense: Tense,
        bound: impl Fn(SocketKey) -> Option<&'a Endpoint>,
    ) -> String {
        let named = self.addresses.iter().take(NAMED);
        let named = named.map(|one| {
            let endpoint = bound(one.key).unwrap_or(&one.endpoint);
            format!("{endpoint}{}", one.detail)
        });
        let named = named.collect::<Vec<_>>().join(", ");
        let start = match (named.as_str(), self.addresses.len().saturating_sub(NAMED)) {
            ("", _) => self.start.clone(),
            (named, 0) => format!("{} {named}", self.start),
            (named, more) => format!("{} {named} and {more} more", self.start),
        };
        match (&self.verb, tense) {
            (None, _) => start,
            (Some((verb, rest)), Tense::Present) => format!("{start} {} {rest}", verb.present),
            (Some((verb, rest)), Tense::Conditional) => {
                format!("{start} would {} {rest}", verb.base)
            }
        }
    }
}
