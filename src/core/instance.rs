//! The states of one instance.

use super::backoff::History;
use super::connections::Held;
use super::event::FailureReason;
use super::facts::LastEnd;
use super::input::{ExitStatus, InstanceId, ProcessId};
use super::time::Mono;
use crate::stage::LaunchFailure;

/// Where an instance is in its life.
///
/// ```text
///            Start                  exec succeeded
///  Waiting ─────────▶ Starting ─────────────────────▶ Running
///                      ▲    │                            │
///                 Tick │    │ launch failed              │ exited
///                      │    ▼                            ▼
///                      │    ├────────────────────────────┤
///                      │    │ again      │ policy        │ too often
///                      │    ▼            ▼               ▼
///                      └─ Backoff     Stopped          Failed
///
///  Stop:  Waiting, Backoff, Failed ───────────────────────▶ Stopped
///         Running ──────▶ Stopping ── exited ─────────────▶ Stopped
///         Starting ─ exec succeeded ─▶ Stopping             ▲
///             └──────────── launch failed ──────────────────┘
/// ```
///
/// An instance has at most one process, and has one exactly in `Starting`, `Running` and
/// `Stopping`. It leaves those only when the process is known to be gone, so that two processes
/// never run as one instance.
///
/// `Starting` is left when both the fate of the exec and, if that was a failure, the exit are
/// known. They come on different descriptors (the status pipe and the pidfd) and so in any order;
/// [`Launch`] holds the half that came first. A stop request that arrives meanwhile is kept in
/// `ending`: the signal itself waits for the exec, because a child that has not reset its signals
/// yet may ignore it, but the time until SIGKILL runs from the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Not running: waits for its listeners, or for a client that starts it.
    Waiting,
    /// A process is on its way to the program.
    Starting {
        /// The process.
        process: ProcessId,
        /// When it was created, or asked for while there is none.
        since: Mono,
        /// How far it got.
        launch: Launch,
        /// Set if it is to be stopped.
        ending: Option<Ending>,
    },
    /// The program runs.
    Running {
        /// The process.
        process: ProcessId,
        /// Since when it runs the program.
        since: Mono,
        /// When it has run long enough (`connection_timeout`); `None` is never.
        until: Option<Mono>,
    },
    /// The program was asked to stop and has not ended.
    Stopping {
        /// The process.
        process: ProcessId,
        /// Since when it runs the program.
        since: Mono,
        /// How it is being ended.
        ending: Ending,
    },
    /// Ended; to be started again.
    Backoff {
        /// When.
        until: Mono,
    },
    /// Ended; not to be started again, because something is wrong. Its listeners stay bound.
    Failed {
        /// What is wrong.
        reason: FailureReason,
        /// When that is forgotten, and a client may start it again; `None` is never.
        until: Option<Mono>,
    },
    /// Ended; not to be started again, by its restart policy or because listend stops.
    Stopped,
}

/// How far a launch got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Launch {
    /// [`super::Effect::Spawn`] is not answered yet.
    Forking,
    /// The process exists; whether it reaches its program is not known yet.
    Execing,
    /// It did not; its exit is not known yet.
    Failed {
        /// Where and why.
        failure: LaunchFailure,
    },
    /// It exited; whether it had reached its program is not known yet.
    Exited {
        /// How.
        status: ExitStatus,
        /// When.
        at: Mono,
    },
}

/// How a process is being ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It was asked.
    Graceful {
        /// When SIGKILL follows; `None` waits for ever.
        kill_at: Option<Mono>,
    },
    /// SIGKILL was sent, or will be as soon as there is a process to send it to.
    Killed,
}

impl State {
    /// The process, in the states that have one.
    pub fn process(&self) -> Option<ProcessId> {
        match self {
            State::Starting { process, .. }
            | State::Running { process, .. }
            | State::Stopping { process, .. } => Some(*process),
            State::Waiting | State::Backoff { .. } | State::Failed { .. } | State::Stopped => None,
        }
    }

    /// When something is to happen by itself.
    pub fn deadline(&self) -> Option<Mono> {
        match self {
            State::Backoff { until } => Some(*until),
            State::Starting { .. } | State::Stopping { .. } => match self.ending() {
                Some(Ending::Graceful { kill_at }) => kill_at,
                Some(Ending::Killed) | None => None,
            },
            State::Running { until, .. } | State::Failed { until, .. } => *until,
            State::Waiting | State::Stopped => None,
        }
    }

    /// How the process is being ended, if it is.
    pub fn ending(&self) -> Option<Ending> {
        match self {
            State::Starting { ending, .. } => *ending,
            State::Stopping { ending, .. } => Some(*ending),
            State::Waiting
            | State::Running { .. }
            | State::Backoff { .. }
            | State::Failed { .. }
            | State::Stopped => None,
        }
    }
}

/// The place of one instance: what it is, where it is in its life, and its past.
#[derive(Debug, Clone)]
pub(super) struct Slot {
    pub(super) instance: InstanceId,
    pub(super) state: State,
    pub(super) history: History,
    /// It is being stopped only to be started again.
    pub(super) again: bool,
    /// Whether it is one of the worker's own instances.
    pub(super) is_instance: bool,
    /// What it serves, if it is not.
    pub(super) connection: Option<Held>,
    /// Since when it is in its state.
    pub(super) since: Mono,
    /// How often it was started.
    pub(super) starts: u64,
    /// How its last process ended.
    pub(super) last_end: Option<LastEnd>,
}

impl Slot {
    /// A place that nothing has happened in.
    pub(super) fn new(instance: InstanceId, now: Mono) -> Slot {
        Slot {
            instance,
            state: State::Stopped,
            history: History::default(),
            again: false,
            is_instance: false,
            connection: None,
            since: now,
            starts: 0,
            last_end: None,
        }
    }

    /// Whether it is an instance or a connection; one that is on its way out is neither.
    pub(super) fn is_taken(&self) -> bool {
        self.is_instance || self.connection.is_some() || self.state.process().is_some()
    }
}
