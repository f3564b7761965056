//! What the core is told.

use super::types::{
    Command, ConnectionId, Evidence, ExitStatus, FormerTaker, Lane, ListenerLife, Missing,
    NotAccepted, Notice, ProcessId, Repaired, Ticket, Use, Waiting,
};
use crate::connection::Source;
use crate::plan::{Lifecycle, ListenerId, SocketKey, WorkerId};
use crate::stage::LaunchFailure;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// The listeners are bound; workers may start. Only the first one counts.
    Start,
    /// Of a core that was thawed ([`super::Core::thaw`]): everything is told that happened meanwhile, and it
    /// goes on. Instead of [`Input::Start`], and only once.
    Resumed,
    /// Of a core that was thawed: listend's own descriptor of the connection was not kept.
    ConnectionLost {
        /// The connection.
        connection: ConnectionId,
    },
    /// A process serves a connection of which nothing is known: the listend that has started it was killed before
    /// it had written that down. [`super::Effect::Spawn`] follows, for that process.
    ConnectionFound {
        /// For which worker it was accepted.
        worker: WorkerId,
        /// The number of the instance.
        index: u32,
        /// The source of the connection.
        source: Source,
    },
    /// [`super::Effect::Spawn`] was done: the process exists.
    Spawned {
        /// The process.
        process: ProcessId,
    },
    /// The process runs its program now (the status pipe closed without a failure).
    ExecSucceeded {
        /// The process.
        process: ProcessId,
    },
    /// The process did not get to its program.
    ///
    /// A failure before there is a process ([`crate::stage::Stage::Prepare`],
    /// [`crate::stage::Stage::Fork`]) comes instead of [`Input::Spawned`], and nothing follows
    /// it. Any other comes after `Spawned`, and an [`Input::Exited`] follows or came before.
    LaunchFailed {
        /// The process.
        process: ProcessId,
        /// Where and why.
        failure: LaunchFailure,
    },
    /// The process has ended, and others of its process group go on; [`Input::Exited`] follows when
    /// they have ended as well. Comes after the news of its exec.
    MainExited {
        /// The process.
        process: ProcessId,
        /// The exit status.
        status: ExitStatus,
    },
    /// The process has ended and is reaped, and nothing is left of its process group. May come
    /// before the news of its exec.
    Exited {
        /// The process.
        process: ProcessId,
        /// How the process itself ended.
        status: ExitStatus,
    },
    /// The process, or another of its instance that may, has told something about itself.
    Notified {
        /// The process.
        process: ProcessId,
        /// The notification.
        notice: Notice,
    },
    /// The answer to [`super::Effect::LookForEvidence`].
    Evidence {
        /// The process.
        process: ProcessId,
        /// What was seen.
        evidence: Evidence,
    },
    /// Somebody asks listend to stop (SIGTERM, SIGINT). The second one hurries; any more change
    /// nothing.
    Stop,
    /// The listener could not be bound: at the start, before [`Input::Start`], or in answer to
    /// [`super::Effect::Bind`]. Only for one whose configuration allows that.
    ListenerMissing {
        /// The listener.
        listener: ListenerId,
        /// The reason.
        why: Missing,
    },
    /// [`super::Effect::Bind`] was done: the listener is bound.
    ListenerBound {
        /// The listener.
        listener: ListenerId,
    },
    /// The machine has other addresses than before.
    AddressesChanged,
    /// A reload could not bind addresses that are taken until others close their copies of sockets that were given
    /// up. [`super::Effect::ReadAgain`] follows.
    ReloadBlocked,
    /// A socket takes no clients any more: a worker has shut it down or removed its path.
    ListenerDamaged {
        /// Of which listener.
        listener: ListenerId,
        /// Its socket.
        socket: SocketKey,
        /// What was done to it, and who may have done it: comes back in each event about it.
        what: String,
        /// Whether only owner, group or mode of its path are others. Whoever wants them so may do it again and again.
        of_rights: bool,
    },
    /// [`super::Effect::Repair`] was done.
    ListenerRepaired {
        /// Of which listener.
        listener: ListenerId,
        /// Its socket.
        socket: SocketKey,
        /// By which socket.
        by: Repaired,
    },
    /// [`super::Effect::Repair`] cannot be done while a worker has the old socket.
    SocketHeld {
        /// Of which listener.
        listener: ListenerId,
        /// Its socket.
        socket: SocketKey,
    },
    /// [`super::Effect::Repair`] could not be done.
    RepairFailed {
        /// Of which listener.
        listener: ListenerId,
        /// Its socket.
        socket: SocketKey,
    },
    /// A client, a datagram or a message waits at a socket that is watched
    /// ([`super::Effect::Watch`]). Told as long as it is so.
    ClientWaits {
        /// At which listener.
        listener: ListenerId,
        /// Its socket.
        socket: SocketKey,
    },
    /// [`super::Effect::Accept`] was done.
    Accepted {
        /// The connection.
        connection: ConnectionId,
        /// The source of the connection.
        source: Source,
    },
    /// [`super::Effect::Accept`] could not be done.
    NotAccepted {
        /// The connection.
        connection: ConnectionId,
        /// The reason.
        why: NotAccepted,
    },
    /// The answer to [`super::Effect::LookForClients`].
    Looked {
        /// At whose listeners.
        worker: WorkerId,
        /// The clients that wait there.
        waiting: Waiting,
    },
    /// The answer to [`super::Effect::LookAtShard`].
    ShardLooked {
        /// The process of the instance.
        process: ProcessId,
        /// Whether clients wait in its shard.
        clients: bool,
    },
    /// The answer to [`super::Effect::LookAtQueues`].
    QueuesSeen {
        /// The worker.
        worker: WorkerId,
        /// How many clients wait in each of its queues, of which it has one for each shard, or one; `None`
        /// is not known.
        waiting: Option<Vec<u64>>,
    },
    /// The answer to [`super::Effect::LookForUse`].
    UseSeen {
        /// The worker.
        worker: WorkerId,
        /// What was seen.
        seen: Use,
    },
    /// The answer to [`super::Effect::WatchFlows`]: it has no flows any more.
    FlowsQuiet {
        /// The worker.
        worker: WorkerId,
        /// The sockets.
        lane: Lane,
    },
    /// Somebody asks for something; answered by [`super::Effect::Answer`].
    Operate {
        /// What to call the request.
        ticket: Ticket,
        /// What to do it with.
        worker: WorkerId,
        /// With which of its instances alone; `None` is all of it.
        index: Option<u32>,
        /// What to do.
        command: Command,
    },
    /// The configuration was read again, and is in force: everything new in it is bound.
    Configure(Box<Configuration>),
    /// [`super::Core::deadline`] has passed. Harmless when it has not.
    Tick,
}

/// What was heard about one process.
#[derive(Debug, Clone)]
pub(super) enum News {
    Spawned,
    ExecSucceeded,
    LaunchFailed(LaunchFailure),
    MainExited(ExitStatus),
    Exited(ExitStatus),
}

/// What a reload changes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Configuration {
    /// Who waits until all of it has happened.
    pub ticket: Option<Ticket>,
    /// The workers that are others, or are defined in another way. What was rolled back is tried again,
    /// as another definition, whether it is among them or not.
    pub workers: Vec<(WorkerId, WorkerUpdate)>,
    /// The listeners that are others, or are taken by others; one that is gone is taken by nobody.
    pub listeners: Vec<(ListenerId, ListenerLife)>,
    /// Who has a listener by a definition that is no more: all of them.
    pub former: Vec<FormerTaker>,
    /// Those of the listeners that have other sockets than before.
    pub touched: Vec<ListenerId>,
    /// The listeners that could not be bound, and that the plan can do without.
    pub missing: Vec<(ListenerId, Missing)>,
    /// The workers with an earlier definition whose sockets the configuration has no more: a rollout
    /// of theirs that is over cannot be rolled back.
    pub final_for: BTreeSet<WorkerId>,
}

/// What is different about a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WorkerUpdate {
    /// It is new; no other worker ever had its number.
    Added {
        /// The life cycle of its instances.
        life: Arc<Lifecycle>,
    },
    /// The worker is removed.
    Removed,
    /// The terms on which its instances live, and no more than that.
    Settings {
        /// The new ones.
        life: Arc<Lifecycle>,
    },
    /// What it runs.
    Definition {
        /// The life cycle of its instances.
        life: Arc<Lifecycle>,
    },
}
