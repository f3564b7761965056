//! Lines about differences, in future or past tense.

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
    pub(super) const IS: Verb = Verb::new("is", "be");
    pub(super) const ARE: Verb = Verb::new("are", "be");
    pub(super) const APPLIES: Verb = Verb::new("applies", "apply");
    pub(super) const APPLY: Verb = Verb::new("apply", "apply");
    pub(super) const CHANGES: Verb = Verb::new("changes", "change");

    const fn new(present: &'static str, base: &'static str) -> Verb {
        Verb { present, base }
    }
}

/// A line about a difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    start: String,
    verb: Option<(Verb, String)>,
}

impl Line {
    /// A line that is the same in each tense.
    pub(super) fn plain(title: &str, words: &str) -> Line {
        Line {
            start: format!("{title}: {words}"),
            verb: None,
        }
    }

    /// `subject` may be empty, where the title says it.
    pub fn new(title: &str, subject: &str, verb: Verb, rest: impl Into<String>) -> Line {
        let gap = if subject.is_empty() { "" } else { " " };
        Line {
            start: format!("{title}:{gap}{subject}"),
            verb: Some((verb, rest.into())),
        }
    }

    /// The line in words.
    pub fn told(&self, tense: Tense) -> String {
        let start = &self.start;
        match (&self.verb, tense) {
            (None, _) => start.clone(),
            (Some((verb, rest)), Tense::Present) => format!("{start} {} {rest}", verb.present),
            (Some((verb, rest)), Tense::Conditional) => {
                format!("{start} would {} {rest}", verb.base)
            }
        }
    }
}
