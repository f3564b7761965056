//! What the core tells about.

use super::types::{
    ConnectionId, ExitStatus, FailureReason, Fault, HookEnd, HookKind, InstanceId, Next, ProcessId,
    Refusal, Repaired,
};
use crate::config::{Overflow, Rate};
use crate::connection::Source;
use crate::plan::{ListenerId, SocketKey, WorkerId};
use crate::stage::LaunchFailure;
use std::time::Duration;

/// Something worth telling. The log, the tests and later the metrics and the control socket all
/// read these same values; whoever shows one has in it what happens next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A process was created for the instance; it is on its way to the program.
    InstanceStarting {
        /// Of which instance.
        instance: InstanceId,
        /// The process.
        process: ProcessId,
    },
    /// The instance runs its program.
    InstanceStarted {
        /// The instance.
        instance: InstanceId,
        /// The process.
        process: ProcessId,
    },
    /// The instance is ready, and was not as soon as it ran its program.
    InstanceReady {
        /// The instance.
        instance: InstanceId,
        /// The process.
        process: ProcessId,
        /// How long it has run its program.
        after: Duration,
    },
    /// Whether the instance takes clients cannot be seen; it counts as ready.
    ReadinessHidden {
        /// The instance.
        instance: InstanceId,
        /// The process.
        process: ProcessId,
    },
    /// The instance was not ready in time; it is ended as if it had crashed.
    StartTimedOut {
        /// The instance.
        instance: InstanceId,
        /// The process.
        process: ProcessId,
        /// The time it had.
        timeout: Duration,
    },
    /// The instance has given no sign of life in time, or has said that it is not well; SIGABRT goes
    /// to it.
    WatchdogTimedOut {
        /// The instance.
        instance: InstanceId,
        /// The process.
        process: ProcessId,
        /// The time it had.
        timeout: Duration,
    },
    /// The instance says that it ends by itself, without having been asked.
    SaysStopping {
        /// The instance.
        instance: InstanceId,
        /// The process.
        process: ProcessId,
        /// After this time SIGKILL follows; `None` waits for ever.
        timeout: Option<Duration>,
    },
    /// The instance's main process has ended, and others of its process group go on.
    MainExited {
        /// The instance.
        instance: InstanceId,
        /// The process.
        process: ProcessId,
        /// The exit status.
        status: ExitStatus,
        /// After this time SIGKILL follows; `None` waits for ever.
        left: Option<Duration>,
    },
    /// The instance says that it has read its own configuration again.
    InstanceReloaded {
        /// The instance.
        instance: InstanceId,
        /// The process.
        process: ProcessId,
        /// How often it has said so before without being told of, because that was too often.
        untold: u32,
    },
    /// A command around an instance failed.
    HookFailed {
        /// Of which instance.
        instance: InstanceId,
        /// The command's process.
        process: ProcessId,
        /// The hook.
        kind: HookKind,
        /// The result of the hook.
        end: HookEnd,
        /// What happens next with the instance, if that follows from it.
        next: Option<Next>,
    },
    /// Every instance that is to run from the start on is ready, or has failed once. Comes once.
    Up {
        /// How many have failed, and are not ready by now.
        failed: usize,
    },
    /// The instances of a worker are replaced one after the other.
    RolloutStarted {
        /// The worker of the hook.
        worker: WorkerId,
        /// By this generation.
        generation: u32,
        /// How many there are.
        instances: u32,
    },
    /// All of them are replaced.
    RolloutDone {
        /// Of which worker.
        worker: WorkerId,
        /// By this generation.
        generation: u32,
        /// Addresses of the definition before are closed: although it is to be watched, nothing can
        /// be gone back to.
        is_final: bool,
    },
    /// A new instance was no good: the old definition goes on serving. The worker is degraded until
    /// a rollout goes well.
    RolledBack {
        /// The worker.
        worker: WorkerId,
        /// The new instance.
        instance: InstanceId,
        /// How many instances have to be started by the old definition again.
        again: u32,
    },
    /// The configuration that was read again is in force; workers may still be rolling.
    Replanned,
    /// Everything that a reload has changed has happened.
    ReplanDone {
        /// A new instance that was no good, if there was one.
        bad: Option<InstanceId>,
    },
    /// The listener was closed, because the workers that take it have failed; it is bound again when
    /// one of them is started again.
    ListenerRefuses {
        /// The listener.
        listener: ListenerId,
    },
    /// The instance did not get to its program.
    LaunchFailed {
        /// The instance.
        instance: InstanceId,
        /// The process, or what would have become one.
        process: ProcessId,
        /// Where and why.
        failure: LaunchFailure,
        /// What happens next.
        next: Next,
    },
    /// The instance's process ended.
    InstanceExited {
        /// The instance.
        instance: InstanceId,
        /// The process.
        process: ProcessId,
        /// The exit status.
        status: ExitStatus,
        /// How long it ran its program.
        uptime: Duration,
        /// Why listend has ended it, if it was not well.
        cause: Option<Fault>,
        /// What happens next.
        next: Next,
    },
    /// The instance is not started again. Follows the event that has [`Next::Failed`].
    InstanceFailed {
        /// The instance.
        instance: InstanceId,
        /// The reason.
        reason: FailureReason,
        /// After which time a client may start it again; `None` is never.
        cool_down: Option<Duration>,
    },
    /// Every instance of the worker has failed.
    WorkerFailed {
        /// The worker.
        worker: WorkerId,
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
    /// The instance is asked to stop, at once or, if it has not reached its program yet, then.
    Stopping {
        /// The instance.
        instance: InstanceId,
        /// The process.
        process: ProcessId,
        /// The signal that asks it.
        signal: i32,
        /// After this time SIGKILL follows; `None` waits for ever.
        timeout: Option<Duration>,
    },
    /// The instance did not stop in time: SIGKILL goes to its process group.
    StopTimedOut {
        /// The instance.
        instance: InstanceId,
        /// The process.
        process: ProcessId,
        /// The time it had.
        timeout: Duration,
    },
    /// A listener waits for its address; the workers that take it wait with it.
    ListenerAwaited {
        /// The listener.
        listener: ListenerId,
        /// After which time that is an error.
        limit: Duration,
    },
    /// The address of the listener is still missing after the limit; it is still waited for.
    ListenerOverdue {
        /// The listener.
        listener: ListenerId,
        /// How long it has been waited for.
        after: Duration,
    },
    /// A listener could not be bound.
    ListenerMissing {
        /// The listener.
        listener: ListenerId,
        /// When it is tried again.
        again_in: Duration,
    },
    /// A listener that was missing is bound.
    ListenerBound {
        /// The listener.
        listener: ListenerId,
        /// After which time.
        after: Duration,
    },
    /// An instance is restarted to get a listener that it was started without.
    InstanceRefreshed {
        /// The instance.
        instance: InstanceId,
    },
    /// A socket takes no clients any more.
    ListenerDamaged {
        /// Of which listener.
        listener: ListenerId,
        /// Its socket.
        socket: SocketKey,
    },
    /// The damaged listener accepts clients again.
    ListenerRepaired {
        /// Of which listener.
        listener: ListenerId,
        /// Its socket.
        socket: SocketKey,
        /// By which socket.
        by: Repaired,
    },
    /// The damaged listener is closed until its workers have exited, and then bound again.
    ListenerVacated {
        /// The listener.
        listener: ListenerId,
        /// The index of the damaged socket in the listener, from 0.
        socket: SocketKey,
    },
    /// The listener was bound again several times, and a process damages it each time.
    RepairFutile {
        /// The listener.
        listener: ListenerId,
        /// The index of the damaged socket in the listener, from 0.
        socket: SocketKey,
        /// How often it was bound anew.
        times: u32,
        /// When it is bound again.
        again_in: Duration,
    },
    /// The damaged listener could not be repaired.
    RepairFailed {
        /// Of which listener.
        listener: ListenerId,
        /// Its socket.
        socket: SocketKey,
        /// When it is tried again.
        again_in: Duration,
    },
    /// A client starts a worker.
    Activated {
        /// The worker.
        worker: WorkerId,
        /// At which listener it waits.
        listener: ListenerId,
        /// Its socket.
        socket: SocketKey,
    },
    /// All instances of a worker that clients start have ended without taking any of those who
    /// wait, which counts as a crash.
    NobodyTaken {
        /// The last one to end.
        instance: InstanceId,
        /// What happens next.
        next: Next,
    },
    /// A worker is started or connections are accepted as often as allowed: clients wait. Told at
    /// most once a minute for each worker.
    RateLimited {
        /// The worker.
        worker: WorkerId,
        /// The limit that was reached.
        limit: Rate,
    },
    /// As many connections are open as allowed: clients wait or are closed. Told at most once a
    /// minute for each worker.
    ConnectionsFull {
        /// Of which worker.
        worker: WorkerId,
        /// The limit.
        max: u32,
        /// What happens to the next.
        overflow: Overflow,
    },
    /// As many connections of one source are open as allowed, and its next are closed. Told at most
    /// once a minute for each worker.
    SourceFull {
        /// Of which worker.
        worker: WorkerId,
        /// The source of the connections.
        source: Source,
        /// The limit.
        max: u32,
    },
    /// A connection was closed unserved, because there are too many.
    ConnectionRefused {
        /// Of which worker.
        worker: WorkerId,
        /// The connection.
        connection: ConnectionId,
        /// Too many of what.
        why: Refusal,
    },
    /// Connections cannot be accepted for want of descriptors or memory. They wait.
    AcceptPaused {
        /// Of which worker.
        worker: WorkerId,
        /// What accept4(2) said.
        errno: i32,
        /// When it is tried again.
        again_in: Duration,
    },
    /// A connection's process took longer than `connection_timeout`; it is stopped.
    ConnectionTimedOut {
        /// The instance.
        instance: InstanceId,
        /// The process.
        process: ProcessId,
        /// The time it had.
        timeout: Duration,
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
    /// No process is left; the listeners are closed and listend ends.
    AllStopped,
}
