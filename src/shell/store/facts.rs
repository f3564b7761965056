//! The facts of the shell, as they stand in a snapshot: descriptors and processes, and the texts of the
//! configuration. `docs/snapshot.md` says what every field means.

use crate::connection::{self, Ends};
use crate::core::{Command, ExitStatus, Input, ProcessId, Ticket};
use crate::listener::SocketRecord;
use crate::metrics::WorkerCounters;
use crate::output::{LONGEST, Splitter};
use crate::plan::{Origin, WorkerId};
use crate::shell::folders::Made;
use crate::shell::notify::NotifyCounters;
use crate::shell::rollback_reasons::Lasting;
use crate::store::Identity;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;

/// The kind of [`Fact::Stored`].
pub(super) const STORED: &str = "stored";
/// The kind of [`Fact::Request`].
pub(super) const REQUEST: &str = "request";
/// The kind of [`Fact::HalfLine`].
pub(super) const HALF_LINE: &str = "half_line";

/// The kind of [`Fact::Folder`].
pub(super) const FOLDER: &str = "folder";

/// One fact. Facts of one kind are told apart by their keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(super) enum Fact {
    /// The first: which format the others have.
    Snapshot(Box<Head>),
    Configuration(Configuration),
    Ids(Ids),
    Definition(DefinitionFact),
    Socket(Socket),
    Flows(FlowsFact),
    Process(Box<ProcessFact>),
    Connection(ConnectionFact),
    /// A runtime directory that was made, and is to be removed.
    Folder(Made),
    Stored(Stored),
    Request(Request),
    HalfLine(HalfLine),
    Reason(Reason),
    End(End),
    Line(Line),
    Event(Event),
    Counters(Counters),
    Totals(Totals),
}

/// listend as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    pub(super) format: u32,
    pub(super) written_by: String,
    /// /proc/sys/kernel/random/boot_id: times and inodes mean nothing in another boot.
    pub(super) boot: String,
    pub(super) pid: u32,
    /// When the first listend was started of which this one goes on.
    pub(super) since: u64,
    /// The key of the configuration in force.
    pub(super) configuration: u32,
    /// The value of NOTIFY_SOCKET of the workers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) notify: Option<OwnSocketFact>,
    /// The value of EINHORN_SOCK_PATH of the workers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) einhorn: Option<OwnSocketFact>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) control: Option<OwnSocketFact>,
    /// RLIMIT_NOFILE that listend was started with, soft and hard.
    pub(super) open_files: (Option<u64>, Option<u64>),
    /// The folders that were made for paths.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) folders: Vec<PathBuf>,
}

/// A socket of listend's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct OwnSocketFact {
    pub(super) address: String,
    /// Of one with a path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) record: Option<SocketRecord>,
    /// The socket that all of this is about. What is written may be newer than what is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) identity: Option<String>,
}

impl OwnSocketFact {
    pub(super) fn new(
        address: impl Into<String>,
        record: Option<SocketRecord>,
        socket: Option<BorrowedFd<'_>>,
    ) -> OwnSocketFact {
        let identity = socket.and_then(Identity::of);
        OwnSocketFact {
            address: address.into(),
            record,
            identity: identity.map(|identity| identity.to_string()),
        }
    }

    /// What is known of the file of the socket that was kept. The one before the one that was written down has
    /// none any more.
    pub(super) fn record_of(&self, kept: impl AsFd) -> Option<SocketRecord> {
        let kept = Identity::of(kept).map(|identity| identity.to_string());
        let mut record = self.record.clone()?;
        if self.identity.is_some() && self.identity != kept {
            record.file = Some(NO_FILE);
        }
        Some(record)
    }
}

/// Device and inode of no file.
const NO_FILE: (u64, u64) = (0, 0);

/// The texts of a configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Configuration {
    pub(super) key: u32,
    #[serde(flatten)]
    pub(super) origin: Origin,
}

/// What the numbers of listeners, sockets and workers of the configuration in force mean.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ids {
    /// By name: the number of the listener, and those of its sockets in their order.
    pub(super) listeners: BTreeMap<String, (u32, Vec<u32>)>,
    pub(super) workers: BTreeMap<String, u32>,
    /// The ids of the next listener, worker and socket.
    pub(super) next: (u32, u32, u32),
}

/// A definition of a worker from which something may still be started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct DefinitionFact {
    /// Worker × 2³² + revision.
    pub(super) key: u64,
    pub(super) worker: u32,
    pub(super) revision: u32,
    pub(super) name: String,
    pub(super) configuration: u32,
    /// Of one that was replaced: its sockets with the names of their listeners and their backlogs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) sockets: Option<Vec<(u32, String, u32)>>,
}

/// A held socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Socket {
    pub(super) key: u32,
    /// What the kernel calls it.
    pub(super) identity: String,
    pub(super) listener: u32,
    /// Of one that the configuration has no more: where it was configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) former: Option<Former>,
    #[serde(flatten)]
    pub(super) record: SocketRecord,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Former {
    pub(super) configuration: u32,
    pub(super) listener: String,
    pub(super) index: u32,
}

/// The sockets of one address between which packets are steered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FlowsFact {
    /// The socket that the table has.
    pub(super) key: u32,
    /// Whose that is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) present: Option<u64>,
    /// Its number in the group.
    pub(super) generation: u32,
    /// The last number that was given out.
    pub(super) last: u32,
    pub(super) settings: crate::config::Flows,
    pub(super) members: Vec<FlowMember>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FlowMember {
    pub(super) lane: u64,
    pub(super) generation: u32,
    /// What the kernel calls its socket, if that is another than the present one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) identity: Option<String>,
}

/// A process that listend has started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ProcessFact {
    pub(super) key: u64,
    pub(super) worker: u32,
    pub(super) index: u32,
    pub(super) generation: u32,
    pub(super) revision: u32,
    /// `program`, or the command beside an instance.
    pub(super) task: Task,
    pub(super) pid: i32,
    pub(super) session: i32,
    /// Of its pidfd (Linux 6.9).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) inode: Option<u64>,
    /// When it was started, by the clock of all times here.
    pub(super) started: u64,
    pub(super) uid: u32,
    /// The sockets that it has for itself, if it has some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) lane: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) client: Option<connection::End>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) connection: Option<u64>,
    /// What it has told: STATUS=, ERRNO=, BUSERROR=, EXIT_STATUS=.
    #[serde(default, skip_serializing_if = "ToldFact::is_empty")]
    pub(super) told: ToldFact,
    /// Whether the process that was started here before it named this one is reaped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) first_reaped: Option<bool>,
    /// How it ended, and the process groups of it that go on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) rest: Option<RestFact>,
    #[serde(default)]
    pub(super) killed: bool,
    /// The identity of the pipe that it writes to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) output: Option<String>,
    /// The identity of the pipe on which its newline is waited for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) newline: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Task {
    Program,
    BeforeStart,
    AfterReady,
    AfterStop,
    Reload,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ToldFact {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) status: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) errno: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) bus_error: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) exit_status: Option<u8>,
}

/// What was read of a line that a process has not ended yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct HalfLine {
    /// The process.
    pub(super) key: u64,
    /// Each byte is the character of that number: it may be half a character, too.
    pub(super) text: String,
    /// A part of the line before was passed on already.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) continued: bool,
    /// More is being read. Without a later fact that is lost, and so is where the line ended.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) open: bool,
}

impl HalfLine {
    pub(super) fn of(process: ProcessId, splitter: &Splitter) -> Option<HalfLine> {
        let (text, continued) = (splitter.rest(), splitter.is_cut());
        (continued || !text.is_empty()).then(|| HalfLine {
            key: process.0,
            text: text.iter().map(|byte| char::from(*byte)).collect(),
            continued,
            open: splitter.is_broken(),
        })
    }

    /// The same while more of it is read.
    pub(super) fn opened(self) -> HalfLine {
        HalfLine { open: true, ..self }
    }

    pub(super) fn splitter(&self) -> Splitter {
        let bytes = self.text.chars().filter_map(|one| u8::try_from(one).ok());
        Splitter::continued(bytes.take(LONGEST).collect(), self.continued, self.open)
    }
}

/// What somebody has asked for in a turn that is not over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Request {
    pub(super) key: u64,
    pub(super) command: Requested,
    /// Of whom; of listend itself where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) worker: Option<u32>,
    /// The index of the instance; absent for all instances.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) index: Option<u32>,
    /// How many there are to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) instances: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Requested {
    Start,
    Stop,
    Restart,
    Scale,
    Follow,
    Reset,
}

impl Request {
    /// What an input asks for, if it may be done twice.
    pub(super) fn of(input: &Input, key: u64) -> Option<Request> {
        let (worker, index, asked) = match *input {
            Input::Stop => (None, None, Command::Stop),
            Input::Operate {
                worker,
                index,
                command,
                ..
            } => (Some(worker.0), index, command),
            _ => return None,
        };
        let (command, instances) = match asked {
            Command::Start => (Requested::Start, None),
            Command::Stop => (Requested::Stop, None),
            Command::Restart => (Requested::Restart, None),
            Command::Scale(count) => (Requested::Scale, Some(count)),
            Command::Follow => (Requested::Follow, None),
            Command::Reset => (Requested::Reset, None),
            // Whoever hears it a second time would act a second time.
            Command::Signal(_) | Command::Reload => return None,
        };
        Some(Request {
            key,
            command,
            worker,
            index,
            instances,
        })
    }

    /// Whether listend itself is to stop.
    pub(super) fn is_for_listend(&self) -> bool {
        self.worker.is_none() && self.command == Requested::Stop
    }

    /// As the core is told; `None` if it says too little.
    pub(super) fn input(&self, ticket: Ticket) -> Option<Input> {
        if self.is_for_listend() {
            return Some(Input::Stop);
        }
        let command = match self.command {
            Requested::Start => Command::Start,
            Requested::Stop => Command::Stop,
            Requested::Restart => Command::Restart,
            Requested::Scale => Command::Scale(self.instances?),
            Requested::Follow => Command::Follow,
            Requested::Reset => Command::Reset,
        };
        Some(Input::Operate {
            ticket,
            worker: WorkerId(self.worker?),
            index: self.index,
            command,
        })
    }
}

impl Fact {
    /// The line that tells it.
    pub(super) fn text(&self) -> String {
        // Facts have nothing that JSON has not: paths that are not UTF-8 are refused with the
        // configuration.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The fields that are not known here of the line from which it was read.
    pub(super) fn unknown_fields(&self, line: &str) -> Map<String, Value> {
        let mut of: Map<String, Value> = serde_json::from_str(line).unwrap_or_default();
        if let Ok(Value::Object(known)) = serde_json::to_value(self) {
            of.retain(|field, value| !known.contains_key(field) && !value.is_null());
        }
        of
    }

    /// What it is about.
    pub(super) fn key(&self) -> (&'static str, u64) {
        match self {
            Fact::Snapshot(_) => ("snapshot", 0),
            Fact::Configuration(fact) => ("configuration", u64::from(fact.key)),
            Fact::Ids(_) => ("ids", 0),
            Fact::Definition(fact) => ("definition", fact.key),
            Fact::Socket(fact) => ("socket", u64::from(fact.key)),
            Fact::Flows(fact) => ("flows", u64::from(fact.key)),
            Fact::Process(fact) => ("process", fact.key),
            Fact::Connection(fact) => ("connection", fact.key),
            Fact::Folder(fact) => (FOLDER, fact.key),
            Fact::Stored(fact) => (STORED, fact.key),
            Fact::Request(fact) => (REQUEST, fact.key),
            Fact::HalfLine(fact) => (HALF_LINE, fact.key),
            Fact::Reason(fact) => ("reason", u64::from(fact.key)),
            Fact::End(fact) => ("end", fact.key),
            Fact::Line(fact) => ("line", fact.key),
            Fact::Event(fact) => ("event", fact.key),
            Fact::Counters(fact) => ("counters", u64::from(fact.key)),
            Fact::Totals(_) => ("totals", 0),
        }
    }
}

/// The line that says that nothing is known any more of what this key is of.
pub(super) fn gone((kind, key): (&'static str, u64)) -> String {
    format!("{{\"kind\":\"{kind}\",\"key\":{key},\"gone\":true}}")
}

impl ToldFact {
    fn is_empty(&self) -> bool {
        *self == ToldFact::default()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RestFact {
    pub(super) status: Ended,
    pub(super) groups: Vec<i32>,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Ended {
    Code(i32),
    Signal { number: i32, core_dumped: bool },
    Unknown,
}

impl From<ExitStatus> for Ended {
    fn from(status: ExitStatus) -> Ended {
        match status {
            ExitStatus::Code(code) => Ended::Code(code),
            ExitStatus::Signal {
                number,
                core_dumped,
            } => Ended::Signal {
                number,
                core_dumped,
            },
            ExitStatus::Unknown => Ended::Unknown,
        }
    }
}

impl From<Ended> for ExitStatus {
    fn from(ended: Ended) -> ExitStatus {
        match ended {
            Ended::Code(code) => ExitStatus::Code(code),
            Ended::Signal {
                number,
                core_dumped,
            } => ExitStatus::Signal {
                number,
                core_dumped,
            },
            Ended::Unknown => ExitStatus::Unknown,
        }
    }
}

/// A connection that listend has accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ConnectionFact {
    pub(super) key: u64,
    pub(super) ends: Ends,
}

/// A descriptor that an instance has left for its successor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stored {
    pub(super) key: u64,
    pub(super) worker: u32,
    pub(super) index: u32,
    pub(super) name: String,
    /// Whether it is given up when its other end hangs up.
    pub(super) polled: bool,
}

/// Why a worker is in its state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Reason {
    /// The worker.
    pub(super) key: u32,
    #[serde(flatten)]
    pub(super) of: Lasting,
}

/// Why an instance is not there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct End {
    pub(super) key: u64,
    pub(super) worker: u32,
    pub(super) index: u32,
    pub(super) generation: u32,
    pub(super) words: String,
}

/// A line that a worker has written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Line {
    /// Its number among the lines of all workers.
    pub(super) key: u64,
    pub(super) worker: u32,
    pub(super) index: u32,
    pub(super) process: u64,
    /// When it was read, in nanoseconds since 1970.
    pub(super) time: u64,
    /// Continues the line before, which was too long for one piece.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) continued: bool,
    /// What is no UTF-8 became U+FFFD.
    pub(super) text: String,
}

/// An event of the past.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Event {
    /// Later ones have higher ones.
    pub(super) key: u64,
    pub(super) event: crate::control::Event,
}

/// What the metrics count of a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Counters {
    /// The worker.
    pub(super) key: u32,
    #[serde(flatten)]
    pub(super) of: WorkerCounters,
}

/// What the metrics count of listend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Totals {
    /// When counting began, in nanoseconds since 1970.
    pub(super) since: u64,
    pub(super) reloads: u64,
    pub(super) notifications: NotifyCounters,
}
