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

mod backoff;
mod connections;
mod ctx;
mod demand;
mod effect;
mod event;
mod facts;
mod gate;
mod hooks;
mod input;
mod instance;
mod invariants;
mod listeners;
mod machine;
mod nonblocking;
mod operate;
mod opposed;
mod process;
mod ready;
mod reload;
mod replan;
mod rollout;
mod signals;
mod stopping;
mod time;
mod watch;
mod window;

#[cfg(test)]
mod tests;

pub use backoff::{STABLE_AFTER, is_failure};
pub use connections::{ConnectionCounts, PAUSE_MAX, PAUSE_MIN};
pub use effect::{Effect, Scope};
pub use event::{Event, FailureReason, HookEnd, Next, Refusal};
pub use facts::{Facts, LastEnd, ListenerCondition};
pub use input::{
    ConnectionId, Edition, Evidence, ExitStatus, HookKind, Input, InstanceId, NotAccepted, Notice,
    ProcessId, Task, Waiting,
};
pub use instance::{Ending, Fault, Launch, Role, State};
pub use listeners::{ListenerLife, Missing, REPAIR_PAUSE, RETRY_MAX, RETRY_MIN, Repaired};
pub use machine::{Core, WhenDone};
pub use nonblocking::{Flag, Needs, flag};
pub use operate::{Answer, Command, Refused, Ticket};
pub use opposed::FormerTaker;
pub use ready::{LOOK_MAX, LOOK_MIN};
pub use replan::{Replan, WorkerChange};
pub use rollout::Degraded;
pub use time::Mono;
