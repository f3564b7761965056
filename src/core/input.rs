//! What the core is told.

use super::listeners::{Missing, Repaired};
use super::operate::{Command, Ticket};
use crate::connection::Source;
use crate::plan::{ListenerId, WorkerId};
use crate::stage::LaunchFailure;
use std::time::Duration;

/// One instance of a worker, as in `app.0`; or the process of one connection, which are counted
/// from 0 as they come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceId {
    /// The worker.
    pub worker: WorkerId,
    /// Which of its instances, from 0.
    pub index: u32,
    /// Of which generation, from 1: two of them can overlap.
    pub generation: u32,
}

/// One attempt to run an instance. Allotted by the core with [`super::Effect::Spawn`] and never
/// used again, so that news of a process that is gone cannot be taken for news of its successor,
/// whatever the kernel does with pids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessId(pub u64);

/// One connection, from [`super::Effect::Accept`] to [`super::Effect::Close`]. Allotted by the core
/// and never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// One way in which a worker was defined: what it runs, as whom, with which listeners. Counted for
/// each worker; a reload that changes its definition makes another. Two of them run beside each
/// other while one takes the other's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Edition(pub u32);

/// What a process is started for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// To be the instance.
    Program,
    /// To run a command beside it.
    Hook(HookKind),
}

/// A command around an instance's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HookKind {
    /// Before it starts.
    BeforeStart,
    /// When it is ready.
    AfterReady,
    /// After it has ended.
    AfterStop,
    /// To make it read its own configuration again.
    Reload,
}

/// What a process says about itself (sd_notify(3)), as far as the core acts on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice {
    /// It is ready, or has read its configuration again.
    Ready,
    /// It reads its configuration again; ready once more when it says so.
    Reloading,
    /// It ends by itself.
    Stopping,
    /// It is alive.
    Alive,
    /// It is not well, and is to be treated as if it had not said that it is alive.
    Trigger,
    /// From now on it says that it is alive at least so often.
    WatchdogInterval(Duration),
    /// It needs so much longer, from now on, for what it does: to start, or to stop.
    ExtendTimeout(Duration),
}

/// What the kernel shows about whether a process takes clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evidence {
    /// It does.
    Seen,
    /// It does not do so yet.
    NotYet,
    /// It may or may not: what it does cannot be seen.
    Hidden,
}

/// Why there is no connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotAccepted {
    /// Nobody was waiting any more.
    Gone,
    /// There is no room for it: EMFILE, ENFILE, ENOBUFS, ENOMEM; or another error that would come
    /// again at once.
    Exhausted {
        /// Which.
        errno: i32,
    },
}

/// Who waits in the queues of a worker that has just ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waiting {
    /// Nobody.
    Nobody,
    /// Only clients that did not wait when this was asked before, or it cannot be known.
    Others,
    /// At least one, and all who waited when this was asked before: the worker took none of them.
    TheSame,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitStatus {
    /// It returned from main or called exit(3).
    Code(i32),
    /// A signal ended it.
    Signal {
        /// The signal's number.
        number: i32,
        /// Whether the kernel wrote a core dump.
        core_dumped: bool,
    },
}

/// Something that happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// The listeners are bound; workers may start. Only the first one counts.
    Start,
    /// [`super::Effect::Spawn`] was done: the process exists.
    Spawned {
        /// Which.
        process: ProcessId,
    },
    /// The process runs its program now (the status pipe closed without a failure).
    ExecSucceeded {
        /// Which.
        process: ProcessId,
    },
    /// The process did not get to its program.
    ///
    /// A failure before there is a process ([`crate::stage::Stage::Prepare`],
    /// [`crate::stage::Stage::Fork`]) comes instead of [`Input::Spawned`], and nothing follows
    /// it. Any other comes after `Spawned`, and an [`Input::Exited`] follows or came before.
    LaunchFailed {
        /// Which.
        process: ProcessId,
        /// Where and why.
        failure: LaunchFailure,
    },
    /// The process has ended, and others of its process group go on; [`Input::Exited`] follows when
    /// they have ended as well. Comes after the news of its exec.
    MainExited {
        /// Which.
        process: ProcessId,
        /// How.
        status: ExitStatus,
    },
    /// The process has ended and is reaped, and nothing is left of its process group. May come
    /// before the news of its exec.
    Exited {
        /// Which.
        process: ProcessId,
        /// How the process itself ended.
        status: ExitStatus,
    },
    /// The process, or another of its instance that may, has told something about itself.
    Notified {
        /// Which.
        process: ProcessId,
        /// What.
        notice: Notice,
    },
    /// The answer to [`super::Effect::LookForEvidence`].
    Evidence {
        /// Which.
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
        /// Which.
        listener: ListenerId,
        /// Why.
        why: Missing,
    },
    /// [`super::Effect::Bind`] was done: the listener is bound.
    ListenerBound {
        /// Which.
        listener: ListenerId,
    },
    /// The machine has other addresses than before.
    AddressesChanged,
    /// A socket takes no clients any more: a worker has shut it down or removed its path.
    ListenerDamaged {
        /// Of which listener.
        listener: ListenerId,
        /// Which of its sockets.
        socket: u32,
    },
    /// [`super::Effect::Repair`] was done.
    ListenerRepaired {
        /// Of which listener.
        listener: ListenerId,
        /// Which of its sockets.
        socket: u32,
        /// By which socket.
        by: Repaired,
    },
    /// [`super::Effect::Repair`] cannot be done while a worker has the old socket.
    SocketHeld {
        /// Of which listener.
        listener: ListenerId,
        /// Which of its sockets.
        socket: u32,
    },
    /// [`super::Effect::Repair`] could not be done.
    RepairFailed {
        /// Of which listener.
        listener: ListenerId,
        /// Which of its sockets.
        socket: u32,
    },
    /// A client, a datagram or a message waits at a socket that is watched
    /// ([`super::Effect::Watch`]). Told as long as it is so.
    ClientWaits {
        /// At which listener.
        listener: ListenerId,
        /// At which of its sockets.
        socket: u32,
    },
    /// [`super::Effect::Accept`] was done.
    Accepted {
        /// Which.
        connection: ConnectionId,
        /// Who it is from.
        source: Source,
    },
    /// [`super::Effect::Accept`] could not be done.
    NotAccepted {
        /// Which.
        connection: ConnectionId,
        /// Why.
        why: NotAccepted,
    },
    /// The answer to [`super::Effect::LookForClients`].
    Looked {
        /// At whose listeners.
        worker: WorkerId,
        /// Who waits there.
        waiting: Waiting,
    },
    /// Somebody asks for something; answered by [`super::Effect::Answer`].
    Operate {
        /// What to call the request.
        ticket: Ticket,
        /// What to do it with.
        worker: WorkerId,
        /// What to do.
        command: Command,
    },
    /// [`super::Core::deadline`] has passed. Harmless when it has not.
    Tick,
}
