//! The states of one instance.

use super::picture::Picture;
use super::time::Mono;
use super::types::{ExitStatus, FailureReason, Next, ProcessId};
use crate::stage::LaunchFailure;

/// Where an instance is in its life.
///
/// ```text
///            Start                  exec succeeded              ready
///  Waiting ─────────▶ Starting ───────────────────▶ Activating ───────▶ Running
///                      ▲    │                            │                 │
///                 Tick │    │ launch failed              │ exited          │ exited
///                      │    ▼                            ▼                 ▼
///                      │    ├────────────────────────────┴─────────────────┤
///                      │    │ again      │ policy        │ too often
///                      │    ▼            ▼               ▼
///                      └─ Backoff     Stopped          Failed
///
///  Stop:  Waiting, Backoff, Failed ───────────────────────▶ Stopped
///         Activating, Running ──▶ Stopping ── exited ─────▶ Stopped
///         Starting ─ exec succeeded ─▶ Stopping             ▲
///             └──────────── launch failed ──────────────────┘
/// ```
///
/// `before_start` puts `Preparing` before `Starting`, and `after_stop` puts `Cleaning` behind the
/// end of a program that ran. Where nothing is to be waited for (`ready: started`) an instance is
/// `Running` as soon as it runs its program.
///
/// An instance is over when its process group is: if its main process ends before the others, it is
/// `Stopping` until they have ended as well.
///
/// An instance has at most one process, and has one exactly in `Starting`, `Activating`, `Running`
/// and `Stopping`; the commands around it are not counted. It leaves those only when the process is
/// known to be gone, so that two processes never run as one instance.
///
/// `Starting` is left when both the fate of the exec and, if that was a failure, the exit are
/// known. They come on different descriptors (the status pipe, and SIGCHLD or a pidfd) and so in any order;
/// [`Launch`] holds the half that came first. A stop request that arrives meanwhile is kept in
/// `ending`: the signal itself waits for the exec, because a child that has not reset its signals
/// yet may ignore it, but the time until SIGKILL runs from the request.
#[derive(Debug, Clone, PartialEq, Eq)]
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
    /// The command before the start runs.
    Preparing {
        /// The command's process.
        hook: ProcessId,
        /// Whether the start is cancelled.
        cancelled: bool,
    },
    /// The program runs, and is not ready.
    Activating {
        /// The process.
        process: ProcessId,
        /// Since when it runs the program.
        since: Mono,
        /// When it has taken too long; `None` is never.
        until: Option<Mono>,
        /// When to look next whether it takes clients, where that is what counts.
        look_at: Option<Mono>,
    },
    /// The program runs, and is ready.
    Running {
        /// The process.
        process: ProcessId,
        /// Since when it runs the program.
        since: Mono,
        /// When it has run long enough (`connection_timeout`; or it was replaced and keeps its flows); `None`
        /// is never.
        until: Option<Mono>,
    },
    /// The program was asked to stop or ends by itself, and it or others of its process group have
    /// not ended.
    Stopping {
        /// The process.
        process: ProcessId,
        /// Since when it runs the program.
        since: Mono,
        /// The way in which it is being stopped.
        ending: Ending,
    },
    /// The program has ended, and the command after it runs.
    Cleaning {
        /// The command's process.
        hook: ProcessId,
        /// The next step.
        next: Next,
    },
    /// Ended; to be started again.
    Backoff {
        /// The time of the next step.
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
#[derive(Debug, Clone, PartialEq, Eq)]
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
        /// The exit status.
        status: ExitStatus,
        /// The time of the exit.
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
            | State::Activating { process, .. }
            | State::Running { process, .. }
            | State::Stopping { process, .. } => Some(*process),
            State::Waiting
            | State::Preparing { .. }
            | State::Cleaning { .. }
            | State::Backoff { .. }
            | State::Failed { .. }
            | State::Stopped => None,
        }
    }

    /// Whether its process was only asked for yet.
    pub(super) fn is_asked_for(&self) -> bool {
        let launch = Launch::Forking;
        matches!(self, State::Starting { launch: asked, .. } if *asked == launch)
    }

    /// Whether a process of it runs, be it only a command before or after its program.
    pub fn is_busy(&self) -> bool {
        matches!(self, State::Preparing { .. } | State::Cleaning { .. }) || self.process().is_some()
    }

    /// When something is to happen by itself.
    pub fn deadline(&self) -> Option<Mono> {
        match self {
            State::Backoff { until } => Some(*until),
            State::Starting { .. } | State::Stopping { .. } => match self.ending() {
                Some(Ending::Graceful { kill_at }) => kill_at,
                Some(Ending::Killed) | None => None,
            },
            State::Activating { until, look_at, .. } => {
                [*until, *look_at].into_iter().flatten().min()
            }
            State::Running { until, .. } | State::Failed { until, .. } => *until,
            State::Waiting | State::Preparing { .. } | State::Cleaning { .. } | State::Stopped => {
                None
            }
        }
    }

    /// How the process is being ended, if it is.
    pub fn ending(&self) -> Option<Ending> {
        match self {
            State::Starting { ending, .. } => *ending,
            State::Stopping { ending, .. } => Some(*ending),
            State::Waiting
            | State::Preparing { .. }
            | State::Activating { .. }
            | State::Running { .. }
            | State::Cleaning { .. }
            | State::Backoff { .. }
            | State::Failed { .. }
            | State::Stopped => None,
        }
    }

    /// Which state it is, without what is in it.
    pub(super) fn kind(&self) -> Kind {
        match self {
            State::Waiting => Kind::Waiting,
            State::Starting { .. } => Kind::Starting,
            State::Preparing { .. } => Kind::Preparing,
            State::Activating { .. } => Kind::Activating,
            State::Running { .. } => Kind::Running,
            State::Stopping { .. } => Kind::Stopping,
            State::Cleaning { .. } => Kind::Cleaning,
            State::Backoff { .. } => Kind::Backoff,
            State::Failed { .. } => Kind::Failed,
            State::Stopped => Kind::Stopped,
        }
    }
}

/// A [`State`] without what is in it.
///
/// What may follow what, `before_start`, `after_stop` and every way to end included:
///
/// ```text
/// Waiting    → Preparing, Starting, Backoff, Failed, Stopped
/// Preparing  → Starting, Cleaning, Backoff, Waiting, Failed, Stopped
/// Starting   → Activating, Running, Stopping, Cleaning, Backoff, Waiting, Failed, Stopped
/// Activating → Running, Stopping, Cleaning, Backoff, Waiting, Failed, Stopped
/// Running    → Stopping, Cleaning, Backoff, Waiting, Failed, Stopped
/// Stopping   → Cleaning, Backoff, Waiting, Failed, Stopped
/// Cleaning   → Backoff, Waiting, Failed, Stopped
/// Backoff    → Preparing, Starting, Waiting, Stopped
/// Failed     → Preparing, Starting, Waiting, Stopped
/// Stopped    → Preparing, Starting, Waiting
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Waiting,
    Preparing,
    Starting,
    Activating,
    Running,
    Stopping,
    Cleaning,
    Backoff,
    Failed,
    Stopped,
}

impl Picture for Kind {
    const NAME: &'static str = "Kind";

    fn next(self) -> &'static [Kind] {
        match self {
            Kind::Waiting => &[
                Kind::Preparing,
                Kind::Starting,
                Kind::Backoff,
                Kind::Failed,
                Kind::Stopped,
            ],
            Kind::Preparing => &[
                Kind::Starting,
                Kind::Cleaning,
                Kind::Backoff,
                Kind::Waiting,
                Kind::Failed,
                Kind::Stopped,
            ],
            Kind::Starting => &[
                Kind::Activating,
                Kind::Running,
                Kind::Stopping,
                Kind::Cleaning,
                Kind::Backoff,
                Kind::Waiting,
                Kind::Failed,
                Kind::Stopped,
            ],
            Kind::Activating => &[
                Kind::Running,
                Kind::Stopping,
                Kind::Cleaning,
                Kind::Backoff,
                Kind::Waiting,
                Kind::Failed,
                Kind::Stopped,
            ],
            Kind::Running => &[
                Kind::Stopping,
                Kind::Cleaning,
                Kind::Backoff,
                Kind::Waiting,
                Kind::Failed,
                Kind::Stopped,
            ],
            Kind::Stopping => &[
                Kind::Cleaning,
                Kind::Backoff,
                Kind::Waiting,
                Kind::Failed,
                Kind::Stopped,
            ],
            Kind::Cleaning => &[Kind::Backoff, Kind::Waiting, Kind::Failed, Kind::Stopped],
            Kind::Backoff => &[
                Kind::Preparing,
                Kind::Starting,
                Kind::Waiting,
                Kind::Stopped,
            ],
            Kind::Failed => &[
                Kind::Preparing,
                Kind::Starting,
                Kind::Waiting,
                Kind::Stopped,
            ],
            Kind::Stopped => &[Kind::Preparing, Kind::Starting, Kind::Waiting],
        }
    }
}
