//! What the core tells about.

use super::types::{
    ConnectionId, ExitStatus, FailureReason, Fault, HookEnd, HookKind, InstanceId, Next, ProcessId,
    Refusal, Repaired,
};
use crate::config::{Overflow, Rate};
use crate::connection::Source;
use crate::plan::{ListenerId, WorkerId};
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
        /// Which.
        instance: InstanceId,
        /// The process.
        process: ProcessId,
    },
    /// The instance is ready, and was not as soon as it ran its program.
    InstanceReady {
        /// Which.
        instance: InstanceId,
        /// The process.
        process: ProcessId,
        /// How long it has run its program.
        after: Duration,
    },
    /// Whether the instance takes clients cannot be seen; it counts as ready.
    ReadinessHidden {
        /// Which.
        instance: InstanceId,
        /// The process.
        process: ProcessId,
    },
    /// The instance was not ready in time; it is ended as if it had crashed.
    StartTimedOut {
        /// Which.
        instance: InstanceId,
        /// The process.
        process: ProcessId,
        /// The time it had.
        timeout: Duration,
    },
    /// The instance has given no sign of life in time, or has said that it is not well; SIGABRT goes
    /// to it.
    WatchdogTimedOut {
        /// Which.
        instance: InstanceId,
        /// The process.
        process: ProcessId,
        /// The time it had.
        timeout: Duration,
    },
    /// The instance says that it ends by itself, without having been asked.
    SaysStopping {
        /// Which.
        instance: InstanceId,
        /// The process.
        process: ProcessId,
        /// After this time SIGKILL follows; `None` waits for ever.
        timeout: Option<Duration>,
    },
    /// The instance's main process has ended, and others of its process group go on.
    MainExited {
        /// Which.
        instance: InstanceId,
        /// The process.
        process: ProcessId,
        /// How it ended.
        status: ExitStatus,
        /// After this time SIGKILL follows; `None` waits for ever.
        left: Option<Duration>,
    },
    /// The instance says that it has read its own configuration again.
    InstanceReloaded {
        /// Which.
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
        /// Which command.
        kind: HookKind,
        /// How it ended.
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
        /// Of which.
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
        /// Which worker.
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
        /// Which.
        listener: ListenerId,
    },
    /// The instance did not get to its program.
    LaunchFailed {
        /// Which.
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
        /// Which.
        instance: InstanceId,
        /// The process.
        process: ProcessId,
        /// How.
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
        /// Which.
        instance: InstanceId,
        /// Why.
        reason: FailureReason,
        /// After which time a client may start it again; `None` is never.
        cool_down: Option<Duration>,
    },
    /// Every instance of the worker has failed.
    WorkerFailed {
        /// Which.
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
        /// Which.
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
        /// Which.
        instance: InstanceId,
        /// The process.
        process: ProcessId,
        /// The time it had.
        timeout: Duration,
    },
    /// A listener waits for its address; the workers that take it wait with it.
    ListenerAwaited {
        /// Which.
        listener: ListenerId,
        /// After which time that is an error.
        limit: Duration,
    },
    /// That time is over. It is waited for all the same.
    ListenerOverdue {
        /// Which.
        listener: ListenerId,
        /// How long it has been waited for.
        after: Duration,
    },
    /// A listener could not be bound.
    ListenerMissing {
        /// Which.
        listener: ListenerId,
        /// When it is tried again.
        again_in: Duration,
    },
    /// A listener that was missing is bound.
    ListenerBound {
        /// Which.
        listener: ListenerId,
        /// After which time.
        after: Duration,
    },
    /// An instance is restarted to get a listener that it was started without.
    InstanceRefreshed {
        /// Which.
        instance: InstanceId,
    },
    /// A socket takes no clients any more.
    ListenerDamaged {
        /// Of which listener.
        listener: ListenerId,
        /// Which of its sockets.
        socket: u32,
    },
    /// It does again.
    ListenerRepaired {
        /// Of which listener.
        listener: ListenerId,
        /// Which of its sockets.
        socket: u32,
        /// By which socket.
        by: Repaired,
    },
    /// It is closed until its workers have ended, and then bound anew.
    ListenerVacated {
        /// Which one.
        listener: ListenerId,
        /// Which of its sockets is damaged.
        socket: u32,
    },
    /// The same, and it was of no use before: whatever takes it damages it again.
    RepairFutile {
        /// Which one.
        listener: ListenerId,
        /// Which of its sockets is damaged.
        socket: u32,
        /// How often it was bound anew.
        times: u32,
        /// When it is bound again.
        again_in: Duration,
    },
    /// It could not be repaired.
    RepairFailed {
        /// Of which listener.
        listener: ListenerId,
        /// Which of its sockets.
        socket: u32,
        /// When it is tried again.
        again_in: Duration,
    },
    /// A client starts a worker.
    Activated {
        /// Which.
        worker: WorkerId,
        /// At which listener it waits.
        listener: ListenerId,
        /// At which of its sockets.
        socket: u32,
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
        /// Which.
        worker: WorkerId,
        /// The limit.
        limit: Rate,
    },
    /// As many connections are open as allowed: clients wait or are closed. Told at most once a
    /// minute for each worker.
    ConnectionsFull {
        /// Of which worker.
        worker: WorkerId,
        /// How many.
        max: u32,
        /// What happens to the next.
        overflow: Overflow,
    },
    /// As many connections of one source are open as allowed, and its next are closed. Told at most
    /// once a minute for each worker.
    SourceFull {
        /// Of which worker.
        worker: WorkerId,
        /// Which source.
        source: Source,
        /// How many.
        max: u32,
    },
    /// A connection was closed unserved, because there are too many.
    ConnectionRefused {
        /// Of which worker.
        worker: WorkerId,
        /// Which.
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
        /// Which.
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
        /// How many.
        failures: u64,
        /// How the last one ended.
        status: ExitStatus,
    },
    /// No process is left; the listeners are closed and listend ends.
    AllStopped,
}
