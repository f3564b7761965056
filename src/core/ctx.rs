//! What an input is handled with: the time it came at, and what all workers share.
//!
//! It is handed down to whatever is concerned. Nothing in here decides anything.

use super::effect::Effect;
use super::event::Event;
use super::signals::SIGKILL;
use super::time::Mono;
use super::types::{Answer, ConnectionId, Phase, ProcessId, Scope, Ticket};
use crate::plan::WorkerId;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// What is lent to everything that acts on an input.
#[derive(Debug, Clone)]
pub(super) struct Ctx {
    /// The time of the input.
    pub(super) now: Mono,
    /// How far listend is.
    pub(super) phase: Phase,
    /// What is to be done, oldest first.
    pub(super) outbox: Outbox,
    /// What is to happen by itself, and when.
    pub(super) timers: Timers,
    /// The numbers to give out next.
    pub(super) ids: Ids,
    /// The index into [`super::Core::slots`] for every process there is. A tree and not a hash
    /// table, whose seed would be taken from the operating system.
    pub(super) processes: BTreeMap<ProcessId, usize>,
    /// How many inputs fitted nothing.
    pub(super) ignored: u64,
}

/// The effects that the shell has not taken yet.
#[derive(Debug, Clone, Default)]
pub(super) struct Outbox(VecDeque<Effect>);

/// When what is due.
#[derive(Debug, Clone, Default)]
pub(super) struct Timers {
    /// The deadlines of all states, as (when, index into [`super::Core::slots`]).
    pub(super) runs: BTreeSet<(Mono, usize)>,
    /// When the time of which command around an instance is over.
    pub(super) hooks: BTreeSet<(Mono, ProcessId)>,
    /// When which gate is to be looked at again.
    pub(super) gates: BTreeSet<(Mono, WorkerId)>,
    /// When which rollout is to be looked at again.
    pub(super) rollouts: BTreeSet<(Mono, WorkerId)>,
}

/// The numbers to give out next. None is given out twice.
#[derive(Debug, Clone)]
pub(super) struct Ids {
    pub(super) next_process: ProcessId,
    next_connection: ConnectionId,
}

impl Ctx {
    pub(super) fn new() -> Ctx {
        Ctx {
            now: Mono(0),
            phase: Phase::Idle,
            outbox: Outbox::default(),
            timers: Timers::default(),
            ids: Ids {
                next_process: ProcessId(0),
                next_connection: ConnectionId(0),
            },
            processes: BTreeMap::new(),
            ignored: 0,
        }
    }

    /// Tells everybody who listens.
    pub(super) fn emit(&mut self, event: Event) {
        self.outbox.push(Effect::Emit(event));
    }

    /// Tells the client that asked.
    pub(super) fn answer(&mut self, ticket: Ticket, answer: Answer) {
        self.outbox.push(Effect::Answer { ticket, answer });
    }

    /// Sends SIGKILL to a process and its group.
    pub(super) fn kill(&mut self, process: ProcessId) {
        self.outbox.push(Effect::Signal {
            process,
            signal: SIGKILL,
            scope: Scope::Group,
        });
    }

    /// Counts an input that fits nothing.
    pub(super) fn ignore(&mut self) {
        self.ignored = self.ignored.saturating_add(1);
    }
}

impl Outbox {
    pub(super) fn push(&mut self, effect: Effect) {
        self.0.push_back(effect);
    }

    pub(super) fn pop(&mut self) -> Option<Effect> {
        self.0.pop_front()
    }

    /// Takes back what is not wanted any more.
    pub(super) fn retain(&mut self, is_wanted: impl FnMut(&Effect) -> bool) {
        self.0.retain(is_wanted);
    }
}

impl Timers {
    /// The earliest of all.
    pub(super) fn deadline(&self) -> Option<Mono> {
        let runs = self.runs.first().map(|(at, _)| *at);
        let hooks = self.hooks.first().map(|(at, _)| *at);
        let gates = self.gates.first().map(|(at, _)| *at);
        let rollouts = self.rollouts.first().map(|(at, _)| *at);
        [runs, hooks, gates, rollouts].into_iter().flatten().min()
    }
}

impl Ids {
    pub(super) fn process(&mut self) -> ProcessId {
        let process = self.next_process;
        // Not exhaustible: at a million a second this takes half a million years.
        self.next_process = ProcessId(process.0.saturating_add(1));
        process
    }

    pub(super) fn connection(&mut self) -> ConnectionId {
        let connection = self.next_connection;
        self.next_connection = ConnectionId(connection.0.saturating_add(1));
        connection
    }
}
