//! What the other methods answer; `Status` is in its own file.
//!
//! `docs/io.listend.Manager.varlink` describes the same shapes; a test compares them.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What `GetInterfaceDescription` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DescriptionReply {
    /// See [`super::description`].
    pub description: String,
}

/// What the methods that can wait answer, at each step and at the end.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// So many steps are done, usually instances.
    pub done: u64,
    /// Of so many.
    pub of: u64,
    /// What was done last, for people; in the first reply, how long all of it takes at most.
    pub message: Option<String>,
    /// Only in the first reply and the last to `Reload`: what was or would be changed, a line each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changes: Option<Vec<String>>,
}

/// What `Watch` answers again and again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchReply {
    /// `None` in the first reply.
    pub event: Option<Event>,
}

/// Something that happened.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When, as [`super::rfc3339`] has it.
    pub time: String,
    /// What, as a word for programs: `instance-started`, `listener-missing`.
    pub kind: String,
    /// The listener that it is about.
    pub listener: Option<String>,
    /// The worker that it is about.
    pub worker: Option<String>,
    /// The instance that it is about.
    pub instance: Option<String>,
    /// The process that it is about.
    pub pid: Option<u32>,
    /// The exit status of a process that has ended; `None` where it has none.
    #[serde(default)]
    pub exit_status: Option<i32>,
    /// The signal that killed it, by name; `None` where none did.
    #[serde(default)]
    pub exit_signal: Option<String>,
    /// The same for people, as it stands in the log.
    pub message: String,
}

/// What `Logs` answers again and again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogsReply {
    /// `None` if there is nothing to show at all.
    pub line: Option<LogLine>,
}

/// A line of the log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// When, as [`super::rfc3339`] has it.
    pub time: String,
    /// Who wrote it; `None` for listend itself.
    pub worker: Option<String>,
    /// Which instance of it.
    pub instance: Option<String>,
    /// The line, without its end.
    pub text: String,
}

/// What `Check` answers, with problems as [`crate::report::to_json`] has them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CheckReply {
    /// What would stop a start.
    pub errors: Vec<Value>,
    /// What may surprise.
    pub advice: Vec<Value>,
    /// How many of which kind were left out, where there are too many of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub omitted: Option<Value>,
}

/// What `Explain` answers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainReply {
    /// For people, of several lines.
    pub text: String,
}

/// What `Metrics` answers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetricsReply {
    /// OpenMetrics text, up to and including its `# EOF` line.
    pub text: String,
}
