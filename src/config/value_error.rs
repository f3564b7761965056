//! Errors in one piece of text, before its place is known.

use crate::report::{Kind, Place, Problem, Report};

/// A problem without a place: what the parsers of single values return.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ValueError {
    pub kind: Kind,
    pub message: String,
    pub hint: Option<String>,
}

impl ValueError {
    /// An error of any kind.
    pub fn new(kind: Kind, message: impl Into<String>) -> ValueError {
        ValueError {
            kind,
            message: message.into(),
            hint: None,
        }
    }

    /// The right type, but a value that is not allowed.
    pub fn bad(message: impl Into<String>) -> ValueError {
        ValueError::new(Kind::BadValue, message)
    }

    /// Says what to write instead.
    pub fn hint(mut self, hint: impl Into<String>) -> ValueError {
        self.hint = Some(hint.into());
        self
    }

    /// The hint that `did_you_mean` found, if any.
    pub fn maybe_hint(mut self, hint: Option<String>) -> ValueError {
        self.hint = hint;
        self
    }

    /// Adds the place in the configuration.
    pub fn at(self, place: Place) -> Problem {
        Problem::new(self.kind, self.message)
            .at(place)
            .maybe_hint(self.hint)
    }
}

/// Collects problems, and says whom they concern.
pub(super) struct Diagnostics<'r> {
    pub report: &'r mut Report,
    pub listener: Option<&'r str>,
    pub worker: Option<&'r str>,
}

impl Diagnostics<'_> {
    /// Files a problem under its listener or worker.
    pub fn add(&mut self, mut problem: Problem) {
        problem.listener = problem.listener.or(self.listener.map(str::to_owned));
        problem.worker = problem.worker.or(self.worker.map(str::to_owned));
        self.report.add(problem);
    }

    /// The value, or its error filed and `None`.
    pub fn check<T>(&mut self, place: Place, result: Result<T, ValueError>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(value_error) => {
                self.add(value_error.at(place));
                None
            }
        }
    }
}
