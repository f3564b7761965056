//! The words that the core and those who use it have in common: numbers, reasons, answers.

use super::time::Mono;
use crate::config::Presence;
use crate::connection::Source;
use crate::plan::{ListenerId, WorkerId};
use crate::stage::LaunchFailure;
use std::time::Duration;

pub use crate::verb::Command;

/// One instance of a worker, as in `app.0`; or the process of one connection, which are counted
/// from 0 as they come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceId {
    /// The worker of the instance.
    pub worker: WorkerId,
    /// The index of the instance in the worker, from 0.
    pub index: u32,
    /// Of which generation, from 1: two of them can overlap.
    pub generation: u32,
}

/// What a worker runs, as one: an instance, or the process of a connection. Allotted by the core and
/// never used again; what it is called ([`InstanceId`]) may change from one start to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct RunId {
    pub(super) worker: WorkerId,
    pub(super) number: u64,
}

/// The sockets that a worker's instance has for itself where flows stay with their generation
/// (`flows: sticky`): the same for all processes that follow each other in its place, another for what
/// replaces it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lane(pub u64);

/// One attempt to run an instance. Allotted by the core with [`super::Effect::Spawn`] and never
/// used again, so that news of a process that is gone cannot be taken for news of its successor,
/// whatever the kernel does with pids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessId(pub u64);

/// One connection, from [`super::Effect::Accept`] to [`super::Effect::Close`]. Allotted by the core
/// and never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// One way in which a worker was defined: what it runs, as whom, with which listeners. Allotted by the
/// core for each worker, from 1; a reload that changes its definition makes another. Two of them run beside each
/// other while one takes the other's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u32);

impl RunId {
    /// The sockets that it has for itself.
    pub(super) fn lane(self) -> Lane {
        Lane(self.number)
    }
}

impl Revision {
    /// Every worker's first.
    pub(super) const FIRST: Revision = Revision(1);

    pub(super) fn next(self) -> Revision {
        Revision(self.0.saturating_add(1))
    }
}

/// The number of a request, chosen by the client, by which its answer is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// How far listend is, in the order in which it gets there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// Listeners are not bound yet.
    Idle,
    /// The workers run.
    Running,
    /// Workers were asked to stop.
    Stopping,
    /// Workers were killed.
    Hurried,
    /// [`super::Effect::Exit`] was given; nothing follows.
    Exited,
}

/// What listend does when no instance runs or will run again, without having been asked to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenDone {
    /// The daemon keeps its listeners: clients wait until the worker is repaired.
    Hold,
    /// The daemon exits with the exit status of its workers, as a shell would.
    Exit,
}

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

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitStatus {
    /// The exit status, from main or exit(3).
    Code(i32),
    /// A signal ended it.
    Signal {
        /// The signal's number.
        number: i32,
        /// Whether the kernel wrote a core dump.
        core_dumped: bool,
    },
    /// Unknown: the process ended while listend did not run, or another process reaped it. Counts as a
    /// crash.
    Unknown,
}

/// What a process says about itself (sd_notify(3)), as far as the core acts on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice {
    /// The worker is ready, or has reloaded its configuration.
    Ready,
    /// The worker is up, as einhorn's workers say it.
    Acknowledged,
    /// The worker reloads its configuration, until it reports readiness again.
    Reloading,
    /// The worker stops by itself.
    Stopping,
    /// A keep-alive.
    Alive,
    /// The worker reports a failure; treated as a missing keep-alive.
    Trigger,
    /// From now on it says that it is alive at least so often.
    WatchdogInterval(Duration),
    /// The time, from now on, that the worker needs to start or to stop.
    ExtendTimeout(Duration),
    /// Whether it has something to do that no client shows.
    Busy(bool),
}

/// What the kernel shows about whether a process takes clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evidence {
    /// The process accepts clients.
    Seen,
    /// The process does not accept clients yet.
    NotYet,
    /// Whether the process accepts clients cannot be detected.
    Hidden,
}

/// Why there is no connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotAccepted {
    /// The client had gone.
    Gone,
    /// There is no room for it: EMFILE, ENFILE, ENOBUFS, ENOMEM; or another error that would come
    /// again at once.
    Exhausted {
        /// The error number, errno(3).
        errno: i32,
    },
}

/// The clients in the accept queues of a worker whose last instance has exited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waiting {
    /// No client.
    Nobody,
    /// Only clients that did not wait when this was asked before, or it cannot be known.
    Others,
    /// At least one, and all who waited when this was asked before: the worker took none of them.
    TheSame,
}

/// The use that clients make of a worker, as the kernel shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// No client is connected or waits, and none has connected since the last look.
    None,
    /// No client is connected or waits, but one has connected since the last look.
    Before,
    /// A client is connected or waits, or another reason keeps the worker running.
    Now,
    /// The kernel does not tell.
    Unknown,
}

/// How far a signal reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The process.
    Process,
    /// The process and its process group, or what is left of that. The process also when it has not
    /// made its group yet (it is a child before setsid(2)).
    Group,
}

/// What happens after an instance ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// The instance is restarted after this time.
    RestartIn(Duration),
    /// The next client starts it again, but not before this time is over.
    AtNextClient {
        /// The time before which no client starts it.
        not_before: Duration,
    },
    /// Nothing: the process served one connection, which is over.
    Done,
    /// The instance has failed, and is not restarted.
    Failed(FailureReason),
    /// The instance is not restarted, by its restart policy.
    StaysStopped,
    /// The instance is not restarted, because it was told to stop.
    Stopping,
    /// The instance was new, and its rollout is rolled back.
    RolledBack,
}

/// How a command around an instance ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HookEnd {
    /// The program ran, and exited.
    Exited {
        /// The exit status.
        status: ExitStatus,
    },
    /// The program was not executed.
    NotLaunched {
        /// Where and why.
        failure: LaunchFailure,
    },
    /// The hook took longer than its timeout, and was killed.
    TimedOut {
        /// The time it had.
        timeout: Duration,
    },
}

/// Why an instance is not started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureReason {
    /// The instance crashed more often than its limit allows.
    CrashLoop {
        /// How often, the last crash included.
        crashes: u32,
        /// In which time.
        interval: Duration,
    },
    /// The program was not executed, and the restart policy is `never`.
    NeverLaunched,
}

/// Of what there are too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Connections.
    Connections {
        /// How many are allowed.
        max: u32,
    },
    /// Connections of this source.
    OfSource {
        /// The source of the connections.
        source: Source,
        /// How many are allowed.
        max: u32,
    },
}

/// What a run is to its worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunRole {
    /// One of its instances.
    Instance,
    /// To take the place of one, if it does well.
    Candidate,
    /// On its way out, or a connection; its place is given to another when it is gone.
    Leaving,
}

/// Why listend itself ends an instance that nobody has asked to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The instance was not ready in time.
    NotReady,
    /// The instance sent no keep-alive in time.
    Silent,
    /// The instance reported a failure itself (`WATCHDOG=trigger`).
    Reported,
    /// The instance did not exit in time after it was told to stop.
    NotStopped,
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LastEnd {
    /// The program ran.
    Exited {
        /// The exit status.
        status: ExitStatus,
        /// How long it ran.
        uptime: Duration,
        /// Why listend had it end or killed it, if it was not well.
        cause: Option<Fault>,
    },
    /// The program was not executed.
    NotLaunched {
        /// Where and why.
        failure: LaunchFailure,
    },
    /// The command before its start failed.
    NotPrepared {
        /// The result of the hook.
        end: HookEnd,
    },
}

/// How a listener is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListenerCondition {
    /// Every socket is bound and listens.
    Listening,
    /// Not bound; it is tried again.
    Missing,
    /// One of its sockets takes no clients; it is being repaired.
    Damaged,
}

/// What the core has to know about a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerLife {
    /// What to do while it cannot be bound.
    pub presence: Presence,
    /// The workers that use the listener.
    pub users: Vec<WorkerId>,
}

impl ListenerLife {
    /// The life of a listener that is gone.
    pub fn nobody() -> ListenerLife {
        ListenerLife {
            presence: Presence::Required,
            users: Vec::new(),
        }
    }
}

/// Why a listener is not bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// The machine does not have its address, or the interface it names.
    Address,
    /// Something else, which may pass by itself: another process has it, say.
    Other,
}

/// What takes clients in place of a damaged socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repaired {
    /// The same socket listens again: every process that has it continues.
    SameSocket,
    /// The same socket, with its path, permissions and links restored.
    PutBack,
    /// A new one at the same place. Workers that run have the old one, which no client finds, and
    /// are started again.
    AnotherSocket,
    /// The same, in the network namespace that has taken the place of the former one: no worker had a
    /// part in it.
    AnotherNamespace,
}

/// What came of a [`Command`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// So many instances are where they are wanted; the first time, none.
    Progress {
        /// How many are.
        done: u32,
        /// Of how many.
        of: u32,
    },
    /// All is done. Nothing follows.
    Done,
    /// These did not get where they are wanted; the others are as they are, and for a reload of the
    /// configuration all else is done. The last answer.
    Failed {
        /// At least one.
        bad: Vec<Bad>,
    },
    /// This listener could not be bound, which is retried; the worker starts when it is bound. The
    /// last answer.
    NotBound {
        /// The listener.
        listener: ListenerId,
        /// When it is tried again; `None` is when its address comes.
        again_in: Option<Duration>,
    },
    /// Nothing was done, or no more will be. Nothing follows.
    Refused(Refused),
}

impl Answer {
    /// The last one, where these did not get where they are wanted.
    pub(super) fn of(bad: Vec<Bad>) -> Answer {
        match bad.is_empty() {
            true => Answer::Done,
            false => Answer::Failed { bad },
        }
    }
}

/// What did not get where a command or a reload wanted it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bad {
    /// This new instance failed: the old definition keeps serving.
    WentBack(InstanceId),
    /// This instance is not as requested, and nothing replaces it.
    NotUp(InstanceId),
}

impl Bad {
    /// The one that failed.
    pub fn instance(self) -> InstanceId {
        let (Bad::WentBack(instance) | Bad::NotUp(instance)) = self;
        instance
    }
}

/// Why a command is not carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// There is no such worker.
    NoSuchWorker,
    /// listend has not started yet, or is stopping.
    NotRunning,
    /// A rollout of the worker is under way.
    Busy,
    /// A later command or reload has taken its place.
    Superseded,
    /// The worker runs one process for each connection, and has no instances.
    NoInstances,
    /// The worker has flows that stay with one instance, and is to have no more.
    OneInstance,
    /// The worker has no such instance, or the command is for a worker only.
    NoSuchInstance,
    /// The worker is stopped, and so are all its instances.
    WorkerStopped,
    /// The number of its instances follows no queue.
    NoScaling,
    /// The worker has no process that could be signalled, or that could read anything again.
    NoProcess,
    /// The worker has neither `reload_signal` nor `reload_command`.
    NotReloadable,
    /// The worker waits for a listener that is missing.
    WaitsForListener,
}

/// What went wrong with the last rollout of a worker. Kept until one goes well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Degraded {
    /// The new instance that was no good.
    pub instance: InstanceId,
    /// The time since which it holds.
    pub since: Mono,
}

/// A definition that the configuration has no more, and a listener of which it has a socket.
pub type FormerTaker = (ListenerId, WorkerId, Revision);

/// What a start by the next client is called when there is no delay.
pub(super) const AT_NEXT_CLIENT: Next = Next::AtNextClient {
    not_before: Duration::ZERO,
};

/// How an instance or a worker is, all in all. The one statement of it: the status, the metrics and
/// what the service manager is told all read this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// Nothing runs, or is to.
    Stopped,
    /// Waiting for clients, or for a listener.
    Waiting,
    /// Running and ready.
    Running,
    /// Starting.
    Starting,
    /// Starting again after a crash, and not ready since.
    Retrying,
    /// Stopping.
    Stopping,
    /// Ended; restarted after a delay.
    Backoff,
    /// Of a worker: some instances have failed, a rollout went back, or the processes of its
    /// connections fail.
    Degraded,
    /// Failed and not restarted; of a worker, all instances have failed.
    Failed,
}

impl Health {
    /// Whether something is wrong.
    pub fn is_ill(self) -> bool {
        match self {
            Health::Backoff | Health::Retrying | Health::Degraded | Health::Failed => true,
            Health::Stopped
            | Health::Waiting
            | Health::Running
            | Health::Starting
            | Health::Stopping => false,
        }
    }
}
