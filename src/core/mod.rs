//! What happens to the workers: decided here, done elsewhere.
//!
//! A pure state machine: [`Core::handle`] takes what happened and the time it happened at,
//! [`Core::next_effect`] gives what is to be done about it, and [`Core::deadline`] says when to
//! come back without being asked. There is no system call in here, no clock, no descriptor and no
//! log line; processes are known by a [`ProcessId`] that the core allots and the shell maps to a
//! pid. That is what lets `tests/it/sim` run years of a daemon's life in a second.
//!
//! Nothing in here panics or loops on any sequence of inputs: an input that fits no process, or
//! comes a second time, is counted and has no other consequence.

mod at_most;
mod backoff;
mod clients;
mod connections;
mod ctx;
mod demand;
mod effect;
mod event;
mod facts;
mod flows;
mod following;
mod gate;
mod held_up;
mod helpers;
mod hooks;
mod idle;
mod input;
mod invariants;
mod job;
mod listeners;
mod machine;
mod nonblocking;
mod operate;
mod operate_on;
mod opposed;
mod picture;
mod process;
mod ready;
mod reload;
mod repair;
mod replan;
mod resume;
mod rolling;
mod rollout;
mod run;
mod scaling;
mod serving;
mod shards;
mod signals;
mod snapshot;
mod state;
mod stopping;
mod time;
mod types;
mod unused;
mod watch;
mod window;
mod worker;

#[cfg(test)]
mod tests;

pub use backoff::{STABLE_AFTER, is_failure};
pub use connections::{ConnectionCounts, PAUSE_MAX, PAUSE_MIN};
pub use effect::Effect;
pub use event::{
    DaemonEvent, Event, InstanceEvent, ListenerEvent, ProcessEvent, RolloutEvent, SocketEvent,
    WorkerEvent,
};
pub use facts::Facts;
pub use input::{Configuration, Input, WorkerUpdate};
pub use listeners::{REPAIR_PAUSE, RETRY_MAX, RETRY_MIN, retry_delay};
pub use machine::Core;
pub use nonblocking::{Flag, Needs, flag};
pub use ready::{LOOK_MAX, LOOK_MIN};
pub use scaling::{DOWN_AFTER, DOWN_AFTER_MAX, EVERY, MISSED_WITHIN, UP_AFTER};
pub use snapshot::{Change, FORMAT, Fact, Key, Known, Lent, Reading, Snapshot, ThawError};
pub use state::{Ending, Launch, State};
pub use time::Mono;
pub use types::{
    Answer, Bad, Command, ConnectionId, Degraded, Evidence, ExitStatus, FailureReason, Fault,
    FormerTaker, Health, HookEnd, HookKind, InstanceId, Lane, LastEnd, ListenerCondition,
    ListenerLife, Missing, Next, NotAccepted, Notice, ProcessId, Refusal, Refused, Repaired,
    Revision, RunRole, Scope, Task, Ticket, Use, Waiting, WhenDone,
};
