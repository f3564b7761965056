//! What the core tells about.

use super::types::{
    ConnectionId, ExitStatus, FailureReason, Fault, HookEnd, HookKind, InstanceId, Next, ProcessId,
    Refusal, Repaired,
};
use crate::config::{Overflow, Rate, Ready};
use crate::connection::Source;
use crate::plan::{ListenerId, SocketKey, WorkerId};
use crate::stage::LaunchFailure;
use std::time::Duration;

/// Something worth telling. The log, the tests and later the metrics and the control socket all
/// read these same values; whoever shows one has in it what happens next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// listend as a whole.
    Daemon(DaemonEvent),
    /// A listener.
    Listener(ListenerId, ListenerEvent),
    /// A socket of a listener that was damaged.
    Socket {
        /// The listener.
        listener: ListenerId,
        /// Its socket.
        socket: SocketKey,
        /// What was done to the socket, as [`super::Input::ListenerDamaged`] has it; `None` is not known.
        damage: Option<String>,
        /// What happens to it now.
        event: SocketEvent,
    },
    /// A worker.
    Worker(WorkerId, WorkerEvent),
    /// The rollout of a worker.
    Rollout(WorkerId, RolloutEvent),
    /// An instance, which may have no process.
    Instance(InstanceId, InstanceEvent),
    /// A process of an instance, or what would have become one.
    Process(InstanceId, ProcessId, ProcessEvent),
}

/// What happens to listend as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DaemonEvent {
    /// Every instance that is to run from the start on is ready, or has failed once. Comes once.
    Up {
        /// How many have failed, and are not ready by now.
        failed: usize,
    },
    /// The configuration that was read again is in force; workers may still be rolling.
    Replanned,
    /// Everything that a reload has changed has happened.
    ReplanDone {
        /// One instance of each worker for which it has not.
        bad: Vec<InstanceId>,
    },
    /// The first request to stop.
    StopRequested {
        /// How many instances have a process to wait for.
        live: usize,
    },
    /// The second request to stop: SIGKILL goes to everything that is left.
    StopHurried {
        /// How many instances have a process.
        live: usize,
    },
    /// No process is left; the listeners are closed and listend ends.
    AllStopped,
}

/// What happens to a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListenerEvent {
    /// The listener was closed, because the workers that take it have failed; it is bound again when
    /// one of them is started again.
    Refuses,
    /// A listener waits for its address; the workers that take it wait with it.
    Awaited {
        /// After which time that is an error.
        limit: Duration,
    },
    /// The address of the listener is still missing after the limit; it is still waited for.
    Overdue {
        /// How long it has been waited for.
        after: Duration,
    },
    /// A listener could not be bound.
    Missing {
        /// When it is tried again.
        again_in: Duration,
    },
    /// A listener that was missing is bound.
    Bound {
        /// After which time.
        after: Duration,
    },
}

/// What happens to a socket that was damaged, and so to its listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SocketEvent {
    /// A socket takes no clients any more.
    Damaged,
    /// The damaged socket accepts clients again.
    Repaired {
        /// By which socket.
        by: Repaired,
    },
    /// The damaged socket is closed until its workers have exited, and then bound again.
    Vacated,
    /// The socket was bound again several times, and a process damages it each time.
    RepairFutile {
        /// How often it was bound anew.
        times: u32,
        /// When it is bound again.
        again_in: Duration,
    },
    /// The damaged socket could not be repaired.
    RepairFailed {
        /// When it is tried again.
        again_in: Duration,
    },
}

/// What happens to a worker and its clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerEvent {
    /// Every instance of the worker has failed.
    Failed,
    /// A client starts a worker.
    Activated {
        /// At which listener it waits.
        listener: ListenerId,
        /// Its socket.
        socket: SocketKey,
    },
    /// The number of instances follows the queues.
    Scaled {
        /// How many there were.
        before: u32,
        /// How many there are to be.
        instances: u32,
        /// How many clients wait.
        waiting: u64,
        /// More have waited than this, or at most so many where an instance is removed.
        limit: u64,
        /// For how long.
        lasting: Duration,
    },
    /// No client used the worker for so long: it is stopped, and the next client starts it again.
    Unused {
        /// How long no client used it.
        after: Duration,
        /// How many instances are stopped.
        instances: u32,
    },
    /// A worker is started or connections are accepted as often as allowed: clients wait. Told at
    /// most once a minute for each worker.
    RateLimited {
        /// The limit that was reached.
        limit: Rate,
    },
    /// As many connections are open as allowed: clients wait or are closed. Told at most once a
    /// minute for each worker.
    ConnectionsFull {
        /// The limit.
        max: u32,
        /// What happens to the next.
        overflow: Overflow,
    },
    /// As many connections of one source are open as allowed, and its next are closed. Told at most
    /// once a minute for each worker.
    SourceFull {
        /// The source of the connections.
        source: Source,
        /// The limit.
        max: u32,
    },
    /// A connection was closed unserved, because there are too many.
    ConnectionRefused {
        /// The connection.
        connection: ConnectionId,
        /// Too many of what.
        why: Refusal,
    },
    /// Connections cannot be accepted for want of descriptors or memory. They wait.
    AcceptPaused {
        /// What accept4(2) said.
        errno: i32,
        /// When it is tried again.
        again_in: Duration,
    },
    /// The processes of so many connections in a row have failed.
    ConnectionsFailing {
        /// The last of them.
        instance: InstanceId,
        /// The number of failed connections in a row.
        failures: u64,
        /// How the last one ended.
        status: ExitStatus,
    },
}

/// How far a rollout has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RolloutEvent {
    /// The instances of a worker are replaced one after the other.
    Started {
        /// By this generation.
        generation: u32,
        /// How many there are.
        instances: u32,
        /// The only one that is restarted; `None` if all are.
        only: Option<u32>,
    },
    /// All of them are replaced.
    Done {
        /// By this generation.
        generation: u32,
        /// Addresses of the definition before are closed: although it is to be watched, nothing can
        /// be gone back to.
        is_final: bool,
    },
    /// A new instance has failed: the old definition goes on serving. The worker is degraded until
    /// a rollout goes well.
    RolledBack {
        /// The new instance.
        instance: InstanceId,
        /// How many instances have to be started by the old definition again.
        again: u32,
    },
}

/// What happens to an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InstanceEvent {
    /// The instance is not started again. Follows the event that has [`Next::Failed`].
    Failed {
        /// The reason.
        reason: FailureReason,
        /// After which time a client may start it again; `None` is never.
        cool_down: Option<Duration>,
    },
    /// The instance is not needed any more, and serves who waits in its shard before it is stopped.
    Draining {
        /// After which time it is stopped whoever waits; `None` is never.
        limit: Option<Duration>,
    },
    /// An instance is restarted to get a listener that it was started without.
    Refreshed,
    /// The instance was replaced, and serves the flows that it has until none is seen any more.
    KeepsFlows {
        /// After this time it is asked to stop in any case; `None` is never.
        timeout: Option<Duration>,
    },
    /// All instances of a worker that clients start have ended without taking any of those who
    /// wait, which counts as a crash.
    NobodyTaken {
        /// What happens next.
        next: Next,
    },
}

/// What happens to a process of an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProcessEvent {
    /// A process was created for the instance; it is on its way to the program.
    Starting,
    /// The instance runs its program.
    Started,
    /// The instance is ready, and was not as soon as it ran its program.
    Ready {
        /// How long it has run its program.
        after: Duration,
    },
    /// Whether the instance takes clients cannot be seen; it counts as ready.
    ReadinessHidden,
    /// The instance was not ready in time; it is ended as if it had crashed.
    StartTimedOut {
        /// The time it had.
        timeout: Duration,
        /// What it would have been ready by.
        ready: Ready,
    },
    /// The instance has given no sign of life in time, or has said that it is not well; SIGABRT goes
    /// to it.
    WatchdogTimedOut {
        /// The time it had; `None` if it reports that it is not well.
        timeout: Option<Duration>,
    },
    /// The instance says that it ends by itself, without having been asked.
    SaysStopping {
        /// After this time SIGKILL follows; `None` waits for ever.
        timeout: Option<Duration>,
    },
    /// The instance's main process has ended, and others of its process group go on.
    MainExited {
        /// The exit status.
        status: ExitStatus,
        /// After this time SIGKILL follows; `None` waits for ever.
        left: Option<Duration>,
    },
    /// The instance says that it has read its own configuration again.
    Reloaded {
        /// How often it has said so before without being told of, because that was too often.
        untold: u32,
    },
    /// A command around an instance failed.
    HookFailed {
        /// The hook.
        kind: HookKind,
        /// The result of the hook.
        end: HookEnd,
        /// What happens next with the instance, if that follows from it.
        next: Option<Next>,
    },
    /// The instance did not get to its program.
    LaunchFailed {
        /// Where and why.
        failure: LaunchFailure,
        /// What happens next.
        next: Next,
    },
    /// The instance's process ended.
    Exited {
        /// The exit status.
        status: ExitStatus,
        /// How long it ran its program.
        uptime: Duration,
        /// Why listend has ended it, if it was not well.
        cause: Option<Fault>,
        /// What happens next.
        next: Next,
    },
    /// The instance is asked to stop, at once or, if it has not reached its program yet, then.
    Stopping {
        /// The signal that asks it.
        signal: i32,
        /// After this time SIGKILL follows; `None` waits for ever.
        timeout: Option<Duration>,
    },
    /// The instance did not stop in time: SIGKILL goes to its process group.
    StopTimedOut {
        /// The time it had.
        timeout: Duration,
    },
    /// A connection's process took longer than `connection_timeout`; it is stopped.
    ConnectionTimedOut {
        /// The time it had.
        timeout: Duration,
    },
}
