//! What an input is handled with: the time it came at, and what all workers share.
//!
//! It is handed down to whatever is concerned. Nothing in here decides anything.

use super::effect::Effect;
use super::event::Event;
use super::job::Replanning;
use super::listeners::Listeners;
use super::picture::Drawn;
use super::signals::SIGKILL;
use super::snapshot::record::Record;
use super::time::Mono;
use super::types::{
    Answer, Bad, ConnectionId, HookKind, Phase, ProcessId, Revision, RunId, Scope, Task, Ticket,
};
use crate::plan::{ListenerId, WorkerId};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// What is lent to everything that acts on an input.
#[derive(Debug, Clone)]
pub(super) struct Ctx {
    /// The time of the input.
    pub(super) now: Mono,
    /// How far listend is.
    pub(super) phase: Phase,
    /// It goes on where another one was, and was not told to yet: the first process that it asks for
    /// itself.
    pub(super) to_resume: Option<ProcessId>,
    /// What is to be done, oldest first.
    pub(super) outbox: Outbox,
    /// What is to happen by itself, and when.
    pub(super) timers: Timers,
    /// The numbers to give out next.
    pub(super) ids: Ids,
    /// Whose process is which. A tree and not a hash table, whose seed would be taken from the
    /// operating system.
    pub(super) processes: BTreeMap<ProcessId, RunId>,
    /// Around whose instances which command runs.
    pub(super) hooks: BTreeMap<ProcessId, WorkerId>,
    /// The connections that are being accepted, and for whom.
    pub(super) accepting: BTreeMap<ConnectionId, WorkerId>,
    /// The listeners, which several workers may share.
    pub(super) listeners: Listeners,
    /// The reload under way.
    pub(super) replanning: Option<Replanning>,
    /// How the processes of other workers need O_NONBLOCK, of the sockets of the worker that this is
    /// handed to.
    pub(super) elsewhere: Elsewhere,
    /// The workers that something has happened to in this input.
    pub(super) stirred: Stirred,
    /// The workers among them that have failed entirely, so that clients may have to be refused.
    pub(super) failing: BTreeSet<WorkerId>,
    /// Whose processes have ended that others may have waited for.
    pub(super) let_go: BTreeSet<(WorkerId, Revision)>,
    /// The instances that have to be ready before listend says that it is.
    pub(super) awaited: BTreeSet<RunId>,
    /// The exit status that the instances add up to: that of the first that did not end well.
    pub(super) verdict: u8,
    /// Whether everything was as the pictures show it.
    pub(super) drawn: Drawn,
    /// What has changed since somebody took the changes.
    pub(super) record: Record,
    /// How many inputs fitted nothing.
    pub(super) ignored: u64,
}

/// The effects that the shell has not taken yet.
#[derive(Debug, Clone, Default)]
pub(super) struct Outbox(VecDeque<Effect>);

/// Workers in order, mostly one. Its memory is used again by every input.
#[derive(Debug, Clone, Default)]
pub(super) struct Stirred {
    workers: Vec<WorkerId>,
    /// Of a pass over them.
    pass: Vec<WorkerId>,
}

/// When what is due.
#[derive(Debug, Clone, Default)]
pub(super) struct Timers {
    /// The deadlines of all states.
    pub(super) runs: BTreeSet<(Mono, RunId)>,
    /// When the time of which command around an instance is over.
    pub(super) hooks: BTreeSet<(Mono, ProcessId)>,
    /// When which gate is to be looked at again.
    pub(super) gates: BTreeSet<(Mono, WorkerId)>,
    /// When the queues of which worker are to be looked at.
    pub(super) queues: BTreeSet<(Mono, WorkerId)>,
    /// When it is to be looked who uses which worker.
    pub(super) uses: BTreeSet<(Mono, WorkerId)>,
    /// When which rollout is to be looked at again.
    pub(super) rollouts: BTreeSet<(Mono, WorkerId)>,
    /// When the configuration is to be read again.
    pub(super) reread: Option<Mono>,
}

/// The numbers to give out next. None is given out twice.
#[derive(Debug, Clone)]
pub(super) struct Ids {
    pub(super) next_process: ProcessId,
    pub(super) next_connection: ConnectionId,
    pub(super) next_run: u64,
}

/// How processes that have a socket need its O_NONBLOCK.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Elsewhere {
    /// The holders that need it set.
    pub(super) set: Holders,
    /// The holders that need it clear.
    pub(super) clear: Holders,
}

/// Whether there are any, and any that are on their way out.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Holders {
    pub(super) any: bool,
    pub(super) leaving: bool,
}

impl Elsewhere {
    /// The holders that need the opposite.
    pub(super) fn opposed_to(&self, nonblocking: bool) -> Holders {
        if nonblocking { self.clear } else { self.set }
    }
}

impl Ctx {
    pub(super) fn new() -> Ctx {
        Ctx {
            now: Mono(0),
            phase: Phase::Idle,
            to_resume: None,
            outbox: Outbox::default(),
            timers: Timers::default(),
            ids: Ids {
                next_process: ProcessId(0),
                next_connection: ConnectionId(0),
                next_run: 0,
            },
            processes: BTreeMap::new(),
            hooks: BTreeMap::new(),
            accepting: BTreeMap::new(),
            listeners: Listeners::default(),
            replanning: None,
            elsewhere: Elsewhere::default(),
            stirred: Stirred::default(),
            failing: BTreeSet::new(),
            let_go: BTreeSet::new(),
            awaited: BTreeSet::new(),
            verdict: 0,
            drawn: Drawn::default(),
            record: Record::default(),
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

    /// Has a worker looked at when the input is dealt with.
    pub(super) fn stir(&mut self, worker: WorkerId) {
        self.stirred.insert(worker);
    }

    /// Remembers how an instance ended for good.
    pub(super) fn judge(&mut self, code: u8) {
        if self.verdict == 0 {
            self.verdict = code;
        }
    }

    /// Binds the listeners of a worker that were closed because it had failed.
    pub(super) fn take_clients_again(&mut self, worker: WorkerId) {
        for listener in self.listeners.refused_by(worker) {
            self.try_to_bind(listener);
        }
    }

    pub(super) fn try_to_bind(&mut self, listener: ListenerId) {
        self.record.listeners();
        if self.listeners.begin_to_bind(listener) {
            self.outbox.push(Effect::Bind { listener });
        }
    }

    /// What a reload wanted of a worker has happened, or will not.
    pub(super) fn replanned(&mut self, worker: WorkerId, bad: Option<Bad>) {
        let Some(replanning) = &mut self.replanning else {
            return;
        };
        if !replanning.pending.remove(&worker) {
            return;
        }
        replanning.added.remove(&worker);
        if let Some(bad) = bad {
            replanning.bad.push(bad);
            // Whoever waits is told at the end.
            return;
        }
        replanning.well.insert(worker);
        replanning.done += 1;
        let (done, of) = (replanning.done, replanning.of);
        if let Some(ticket) = replanning.ticket {
            self.answer(ticket, Answer::Progress { done, of });
        }
    }

    /// What a reload that is not over has brought a worker, and was done with, is given up.
    pub(super) fn replanned_in_vain(&mut self, worker: WorkerId, bad: Bad) {
        if let Some(replanning) = &mut self.replanning
            && replanning.well.remove(&worker)
        {
            replanning.bad.push(bad);
        }
    }

    /// Whether a reload waits for a worker.
    pub(super) fn is_being_replanned(&self, worker: WorkerId) -> bool {
        let waits = |replanning: &Replanning| replanning.pending.contains(&worker);
        self.replanning.as_ref().is_some_and(waits)
    }

    /// Whether a reload waits for the instances of a worker that it has added.
    pub(super) fn is_being_added(&self, worker: WorkerId) -> bool {
        let is_added = |replanning: &Replanning| replanning.added.contains(&worker);
        self.replanning.as_ref().is_some_and(is_added)
    }

    /// Whether anything runs, or is being accepted.
    pub(super) fn is_busy(&self) -> bool {
        !(self.processes.is_empty() && self.accepting.is_empty() && self.hooks.is_empty())
    }

    /// Counts an input that fits nothing.
    pub(super) fn ignore(&mut self) {
        self.ignored = self.ignored.saturating_add(1);
    }
}

impl Stirred {
    pub(super) fn insert(&mut self, worker: WorkerId) {
        if let Err(place) = self.workers.binary_search(&worker) {
            self.workers.insert(place, worker);
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = WorkerId> {
        self.workers.iter().copied()
    }

    /// Takes out those of a pass over all that are there now; to be given back after it.
    pub(super) fn begin_pass(&mut self) -> Vec<WorkerId> {
        let mut pass = std::mem::take(&mut self.pass);
        pass.extend_from_slice(&self.workers);
        pass
    }

    pub(super) fn end_pass(&mut self, mut pass: Vec<WorkerId>) {
        pass.clear();
        self.pass = pass;
    }

    pub(super) fn clear(&mut self) {
        self.workers.clear();
    }
}

impl Outbox {
    pub(super) fn push(&mut self, effect: Effect) {
        self.0.push_back(effect);
    }

    pub(super) fn pop(&mut self) -> Option<Effect> {
        self.0.pop_front()
    }

    /// Takes back the spawns and the accepts. What cleans up after an end stays: what ran before it
    /// is cleaned up all the same.
    pub(super) fn take_back(&mut self) -> (Vec<ProcessId>, Vec<ConnectionId>) {
        let (mut spawns, mut accepts) = (Vec::new(), Vec::new());
        self.0.retain(|effect| match effect {
            Effect::Spawn {
                task: Task::Hook(HookKind::AfterStop),
                ..
            } => true,
            Effect::Spawn { process, .. } => {
                spawns.push(*process);
                false
            }
            Effect::Accept { connection, .. } => {
                accepts.push(*connection);
                false
            }
            Effect::Signal { .. }
            | Effect::LookForEvidence { .. }
            | Effect::Unbind { .. }
            | Effect::Retire { .. }
            | Effect::ReadAgain
            | Effect::Bind { .. }
            | Effect::Repair { .. }
            | Effect::WatchAddresses { .. }
            | Effect::Answer { .. }
            | Effect::Watch { .. }
            | Effect::Unwatch { .. }
            | Effect::Close { .. }
            | Effect::LookForClients { .. }
            | Effect::HoldShards { .. }
            | Effect::Steer { .. }
            | Effect::LookAtShard { .. }
            | Effect::LookAtQueues { .. }
            | Effect::LookForUse { .. }
            | Effect::TakeFlows { .. }
            | Effect::WatchFlows { .. }
            | Effect::EndFlows { .. }
            | Effect::CloseListeners
            | Effect::Exit { .. }
            | Effect::Emit(_) => true,
        });
        (spawns, accepts)
    }

    /// Takes back what is not wanted any more.
    pub(super) fn retain(&mut self, is_wanted: impl FnMut(&Effect) -> bool) {
        self.0.retain(is_wanted);
    }
}

impl Timers {
    /// When a rollout is to be looked at again, if at all.
    pub(super) fn rollout(&mut self, worker: WorkerId, at: Option<Mono>) {
        self.rollouts.retain(|(_, one)| *one != worker);
        self.rollouts.extend(at.map(|at| (at, worker)));
    }

    /// Nothing is due for a worker any more. The looks at its queues and its use end with it by themselves.
    pub(super) fn forget(&mut self, worker: WorkerId) {
        self.rollout(worker, None);
        self.gates.retain(|(_, one)| *one != worker);
    }

    /// The earliest of all.
    pub(super) fn deadline(&self) -> Option<Mono> {
        let runs = self.runs.first().map(|(at, _)| *at);
        let hooks = self.hooks.first().map(|(at, _)| *at);
        let gates = self.gates.first().map(|(at, _)| *at);
        let rollouts = self.rollouts.first().map(|(at, _)| *at);
        let uses = self.uses.first().map(|(at, _)| *at);
        let queues = self.queues.first().map(|(at, _)| *at);
        [runs, hooks, gates, uses, queues, rollouts, self.reread]
            .into_iter()
            .flatten()
            .min()
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

    pub(super) fn run(&mut self, worker: WorkerId) -> RunId {
        let number = self.next_run;
        self.next_run = number.saturating_add(1);
        RunId { worker, number }
    }
}
