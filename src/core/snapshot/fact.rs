//! The facts of the core, as they stand in a snapshot.
//!
//! Each is an object of its own with a kind and, where there are several of the kind, a key. A later fact
//! with the same kind and key replaces the earlier one. `docs/snapshot.md` says what every field means.

use super::words::{
    EndWord, FailureWord, FaultWord, HookWord, MissingWord, PhaseWord, SourceWord, StateWord,
};
use crate::core::types::ProcessId;
use crate::plan::{ListenerId, WorkerId};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// What a fact has that this listend does not know: a newer one has written it, and gets it back.
pub(in crate::core) type Extra = Map<String, Value>;

/// What a fact is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// listend as a whole.
    Daemon,
    /// A worker.
    Worker(WorkerId),
    /// The connections that are accepted for a worker, as numbers.
    Connections(WorkerId),
    /// An instance or a connection.
    Run(u64),
    /// A command beside an instance.
    Hook(ProcessId),
    /// A listener that is not as it should be.
    Listener(ListenerId),
}

/// Something that is different from before.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// This holds from now on.
    Set(Fact),
    /// Nothing is known about this any more.
    Gone(Key),
}

/// One fact. What is in it is the core's own matter, and the format's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fact(pub(in crate::core) FactKind);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(in crate::core) enum FactKind {
    Daemon(DaemonFact),
    Worker(Box<WorkerFact>),
    Connections(ConnectionsFact),
    Run(Box<RunFact>),
    Hook(HookFact),
    Listener(ListenerFact),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(in crate::core) struct DaemonFact {
    pub(in crate::core) phase: PhaseWord,
    pub(in crate::core) up: bool,
    pub(in crate::core) verdict: u8,
    pub(in crate::core) next_process: u64,
    pub(in crate::core) next_connection: u64,
    pub(in crate::core) next_run: u64,
    #[serde(flatten)]
    pub(in crate::core) extra: Extra,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(in crate::core) struct WorkerFact {
    pub(in crate::core) key: u32,
    pub(in crate::core) revision: u32,
    pub(in crate::core) latest: u32,
    pub(in crate::core) generation: u32,
    pub(in crate::core) last_generation: u32,
    pub(in crate::core) wanted: u32,
    pub(in crate::core) stopped: bool,
    pub(in crate::core) removed: bool,
    pub(in crate::core) outdated: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::core) degraded: Option<DegradedFact>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::core) given_up: Option<GivenUpFact>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::core) paused_until: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::core) rollout: Option<RolloutFact>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::core) unused_since: Option<u64>,
    #[serde(default, skip_serializing_if = "is_false")]
    pub(in crate::core) scaled: bool,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(in crate::core) missed: u32,
    #[serde(flatten)]
    pub(in crate::core) extra: Extra,
}

/// An instance of the worker that the fact is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::core) struct InstanceFact {
    pub(in crate::core) index: u32,
    pub(in crate::core) generation: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::core) struct DegradedFact {
    pub(in crate::core) index: u32,
    pub(in crate::core) generation: u32,
    pub(in crate::core) since: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::core) struct GivenUpFact {
    pub(in crate::core) revision: u32,
    pub(in crate::core) can_go_back: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::core) struct RolloutFact {
    pub(in crate::core) from_revision: u32,
    pub(in crate::core) from_generation: u32,
    pub(in crate::core) can_go_back: bool,
    pub(in crate::core) generation: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::core) back: Option<DegradedFact>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::core) crashed: Option<InstanceFact>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::core) watched_until: Option<u64>,
    pub(in crate::core) todo: Vec<u32>,
    pub(in crate::core) steps: Vec<StepFact>,
    pub(in crate::core) replaced: Vec<u32>,
    pub(in crate::core) done: u32,
    pub(in crate::core) of: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::core) struct StepFact {
    pub(in crate::core) position: u32,
    pub(in crate::core) new: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::core) old: Option<u64>,
    pub(in crate::core) at: AtWord,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case")]
pub(in crate::core) enum AtWord {
    MakingRoom,
    Starting,
    Settling { until: u64 },
    Draining,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(in crate::core) struct ConnectionsFact {
    pub(in crate::core) key: u32,
    pub(in crate::core) next_index: u32,
    pub(in crate::core) accepted: u64,
    pub(in crate::core) refused: u64,
    pub(in crate::core) failures: u64,
    pub(in crate::core) failed_launches: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::core) held_until: Option<u64>,
    pub(in crate::core) exhausted: u32,
    #[serde(flatten)]
    pub(in crate::core) extra: Extra,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(in crate::core) struct RunFact {
    pub(in crate::core) key: u64,
    pub(in crate::core) worker: u32,
    pub(in crate::core) index: u32,
    pub(in crate::core) generation: u32,
    pub(in crate::core) revision: u32,
    pub(in crate::core) role: RoleWord,
    pub(in crate::core) state: StateWord,
    pub(in crate::core) since: u64,
    pub(in crate::core) starts: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::core) connection: Option<ConnectionFact>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::core) crashes: Option<CrashesFact>,
    #[serde(default, skip_serializing_if = "is_false")]
    pub(in crate::core) again: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    pub(in crate::core) awaited: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::core) fault: Option<FaultWord>,
    #[serde(default, skip_serializing_if = "is_false")]
    pub(in crate::core) by_itself: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::core) main_ended: Option<u64>,
    #[serde(default, skip_serializing_if = "is_false")]
    pub(in crate::core) overdue: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    pub(in crate::core) drains: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::core) watchdog: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::core) told_interval: Option<u64>,
    #[serde(default, skip_serializing_if = "is_false")]
    pub(in crate::core) busy: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    pub(in crate::core) reloading: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    pub(in crate::core) to_clean: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::core) this_end: Option<EndWord>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::core) last_end: Option<EndWord>,
    #[serde(flatten)]
    pub(in crate::core) extra: Extra,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::core) enum RoleWord {
    Instance,
    Candidate,
    Leaving,
    Connection,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::core) struct ConnectionFact {
    pub(in crate::core) id: u64,
    pub(in crate::core) source: SourceWord,
    pub(in crate::core) open: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::core) struct CrashesFact {
    pub(in crate::core) in_a_row: u32,
    pub(in crate::core) recent: Vec<u64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(in crate::core) struct HookFact {
    pub(in crate::core) key: u64,
    pub(in crate::core) worker: u32,
    pub(in crate::core) run: u64,
    pub(in crate::core) index: u32,
    pub(in crate::core) generation: u32,
    pub(in crate::core) hook: HookWord,
    pub(in crate::core) timeout: u64,
    pub(in crate::core) until: u64,
    pub(in crate::core) exists: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::core) failure: Option<FailureWord>,
    pub(in crate::core) killed: bool,
    pub(in crate::core) timed_out: bool,
    #[serde(flatten)]
    pub(in crate::core) extra: Extra,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(in crate::core) struct ListenerFact {
    pub(in crate::core) key: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::core) missing: Option<AbsenceFact>,
    #[serde(default, skip_serializing_if = "is_false")]
    pub(in crate::core) refusing: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    pub(in crate::core) vacated: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(in crate::core) damaged: Vec<DamageFact>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::core) rebound: Option<ReboundFact>,
    #[serde(flatten)]
    pub(in crate::core) extra: Extra,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::core) struct AbsenceFact {
    pub(in crate::core) why: MissingWord,
    pub(in crate::core) since: u64,
    pub(in crate::core) tries: u32,
    pub(in crate::core) trying: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    pub(in crate::core) again: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::core) retry_at: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::core) complain_at: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::core) struct DamageFact {
    pub(in crate::core) socket: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::core) what: Option<String>,
    pub(in crate::core) failures: u32,
    pub(in crate::core) repairs: u32,
    pub(in crate::core) damaged: u64,
    pub(in crate::core) not_before: u64,
    pub(in crate::core) whole: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::core) repair_at: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::core) struct ReboundFact {
    pub(in crate::core) times: u32,
    pub(in crate::core) sockets: Vec<u32>,
    pub(in crate::core) last: u64,
}

/// What serde asks for a field that is left out where it says nothing.
#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands fields over by reference"
)]
fn is_false(is: &bool) -> bool {
    !is
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands fields over by reference"
)]
fn is_zero(count: &u32) -> bool {
    *count == 0
}

impl Key {
    /// The kind of the fact, as it stands in the text.
    pub fn kind(self) -> &'static str {
        match self {
            Key::Daemon => "daemon",
            Key::Worker(_) => "worker",
            Key::Connections(_) => "connections",
            Key::Run(_) => "run",
            Key::Hook(_) => "hook",
            Key::Listener(_) => "listener",
        }
    }

    /// The key of the fact, as it stands in the text; `None` where there is one fact of the kind.
    pub fn number(self) -> Option<u64> {
        match self {
            Key::Daemon => None,
            Key::Worker(WorkerId(id)) | Key::Connections(WorkerId(id)) => Some(u64::from(id)),
            Key::Run(number) => Some(number),
            Key::Hook(ProcessId(id)) => Some(id),
            Key::Listener(ListenerId(id)) => Some(u64::from(id)),
        }
    }

    /// The fact that has this kind and key, if it is one of the core's.
    pub(in crate::core) fn of(kind: &str, number: Option<u64>) -> Option<Key> {
        let short = || number.and_then(|number| u32::try_from(number).ok());
        match kind {
            "daemon" => Some(Key::Daemon),
            "worker" => short().map(|id| Key::Worker(WorkerId(id))),
            "connections" => short().map(|id| Key::Connections(WorkerId(id))),
            "run" => number.map(Key::Run),
            "hook" => number.map(|id| Key::Hook(ProcessId(id))),
            "listener" => short().map(|id| Key::Listener(ListenerId(id))),
            _ => None,
        }
    }
}

impl Fact {
    /// What the fact is about.
    pub fn key(&self) -> Key {
        match &self.0 {
            FactKind::Daemon(_) => Key::Daemon,
            FactKind::Worker(fact) => Key::Worker(WorkerId(fact.key)),
            FactKind::Connections(fact) => Key::Connections(WorkerId(fact.key)),
            FactKind::Run(fact) => Key::Run(fact.key),
            FactKind::Hook(fact) => Key::Hook(ProcessId(fact.key)),
            FactKind::Listener(fact) => Key::Listener(ListenerId(fact.key)),
        }
    }

    pub(in crate::core) fn extra_mut(&mut self) -> &mut Extra {
        match &mut self.0 {
            FactKind::Daemon(fact) => &mut fact.extra,
            FactKind::Worker(fact) => &mut fact.extra,
            FactKind::Connections(fact) => &mut fact.extra,
            FactKind::Run(fact) => &mut fact.extra,
            FactKind::Hook(fact) => &mut fact.extra,
            FactKind::Listener(fact) => &mut fact.extra,
        }
    }
}

impl Change {
    /// What has changed.
    pub fn key(&self) -> Key {
        match self {
            Change::Set(fact) => fact.key(),
            Change::Gone(key) => *key,
        }
    }
}
