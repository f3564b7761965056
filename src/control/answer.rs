//! The answers of the methods but `Status`, which has a file of its own.
//!
//! `docs/io.listend.Manager.varlink` describes the same shapes; a test compares them.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The answer of `GetInterfaceDescription`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DescriptionReply {
    /// The definition of the interface ([`super::description`]).
    pub description: String,
}

/// The answer of the methods that can wait, at each step and at the end.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// So many steps are done, usually instances.
    pub done: u64,
    /// The number of all steps.
    pub of: u64,
    /// The last step, for people; in the first reply, the longest time that all steps can take.
    pub message: Option<String>,
    /// The changes made or planned, a line each; only in the first and the last reply to `Reload`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changes: Option<Vec<String>>,
}

/// The answer of `Watch`, repeated for each event.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchReply {
    /// `None` in the first reply.
    pub event: Option<Event>,
}

/// An event.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// The time, as [`super::rfc3339`] has it.
    pub time: String,
    /// The kind, as a word for programs: `instance-started`, `listener-missing`.
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
    /// The event for people, as in the log.
    pub message: String,
}

/// The answer of `Logs`, repeated for each line.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogsReply {
    /// `None` if there is nothing to show at all.
    pub line: Option<LogLine>,
}

/// A line of the log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// The time, as [`super::rfc3339`] has it.
    pub time: String,
    /// The worker that wrote the line; `None` for listend itself.
    pub worker: Option<String>,
    /// The instance of the worker.
    pub instance: Option<String>,
    /// The line, without its end.
    pub text: String,
}

/// The answer of `Check`, with problems as [`crate::report::to_json`] has them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CheckReply {
    /// The errors, which would prevent a start.
    pub errors: Vec<Value>,
    /// The advice.
    pub advice: Vec<Value>,
    /// The number of problems left out of each kind of which there are too many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub omitted: Option<Value>,
}

/// The answer of `Explain`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainReply {
    /// The report for people, of several lines.
    pub text: String,
}

/// The answer of `TakeListener`. With it come as many descriptors (SCM_RIGHTS) as it lists sockets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakeReply {
    /// The sockets, in the order of their descriptors.
    pub sockets: Vec<TakenSocket>,
}

/// The answer of `GiveListener`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GiveReply {
    /// What became of the sockets; `None` if there were none, and the next call may bring them.
    pub message: Option<String>,
}

/// A socket whose descriptor is passed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakenSocket {
    /// The listener's name.
    pub listener: String,
    /// The address, as in the configuration.
    pub address: String,
}

/// The answer of `Metrics`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetricsReply {
    /// OpenMetrics text, up to and including its `# EOF` line.
    pub text: String,
}
