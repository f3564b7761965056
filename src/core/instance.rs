//! The states of one instance.

use super::backoff::History;
use super::connections::Held;
use super::event::{FailureReason, Next};
use super::facts::LastEnd;
use super::input::{Edition, ExitStatus, InstanceId, ProcessId};
use super::reload::Rereading;
use super::time::Mono;
use super::window::Window;
use crate::plan::Lifecycle;
use crate::stage::LaunchFailure;
use std::sync::Arc;
use std::time::Duration;

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
    /// The command before the start runs.
    Preparing {
        /// The command's process.
        hook: ProcessId,
        /// Whether it is to be started no more.
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
        /// When it has run long enough (`connection_timeout`); `None` is never.
        until: Option<Mono>,
    },
    /// The program was asked to stop or ends by itself, and it or others of its process group have
    /// not ended.
    Stopping {
        /// The process.
        process: ProcessId,
        /// Since when it runs the program.
        since: Mono,
        /// How it is being ended.
        ending: Ending,
    },
    /// The program has ended, and the command after it runs.
    Cleaning {
        /// The command's process.
        hook: ProcessId,
        /// What follows.
        next: Next,
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
}

/// What a slot is to its worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
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
    /// It was not ready in time.
    NotReady,
    /// It gave no sign of life in time.
    Silent,
    /// It did not end in time, whoever had it end.
    NotStopped,
}

/// The signs of life that an instance gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Watchdog {
    /// The longest time between two.
    pub(super) interval: Duration,
    /// When the next is due.
    pub(super) due: Mono,
}

/// The place of one instance: what it is, where it is in its life, and its past.
#[derive(Debug, Clone)]
pub(super) struct Slot {
    pub(super) instance: InstanceId,
    pub(super) state: State,
    pub(super) role: Role,
    /// By which definition of the worker it runs.
    pub(super) edition: Edition,
    /// How it lives, by that definition.
    pub(super) life: Arc<Lifecycle>,
    pub(super) history: History,
    /// It is being stopped only to be started again.
    pub(super) again: bool,
    /// It is new, and the rollout goes back if it ends.
    pub(super) on_trial: bool,
    /// Why it is being ended, if nobody has asked for that.
    pub(super) fault: Option<Fault>,
    /// It is ending by itself: it has said so, or its main process has ended unasked.
    pub(super) by_itself: bool,
    /// When its main process ended, while others of its process group go on.
    pub(super) main_ended: Option<Mono>,
    /// The time that it had to end is over.
    pub(super) overdue: bool,
    /// How often in a row it could not be seen whether it takes clients.
    pub(super) hidden: u32,
    /// While it is ready.
    pub(super) watchdog: Option<Watchdog>,
    /// The longest time between two signs of life that it has chosen itself. Also before it is
    /// ready, when there is no watchdog yet.
    pub(super) told_interval: Option<Duration>,
    /// It has said that it reads its configuration again, and not yet that it has done so.
    pub(super) reloading: bool,
    /// Somebody waits for it to say so.
    pub(super) rereading: Option<Rereading>,
    /// When it was told lately that it has done so, and how often it was not told since.
    pub(super) reloads_told: Window,
    pub(super) reloads_untold: u32,
    /// What it serves, if it is no instance.
    pub(super) connection: Option<Held>,
    /// Since when it is in its state.
    pub(super) since: Mono,
    /// How often it was started.
    pub(super) starts: u64,
    /// What has to be cleaned up after this start: the command before it has run, or the program.
    pub(super) to_clean: bool,
    /// How this start ended, if it has.
    pub(super) this_end: Option<LastEnd>,
    /// How its last process ended.
    pub(super) last_end: Option<LastEnd>,
    /// The deadline that is noted for it.
    pub(super) due: Option<Mono>,
}

impl Slot {
    /// A place that nothing has happened in.
    pub(super) fn new(
        instance: InstanceId,
        edition: Edition,
        life: Arc<Lifecycle>,
        now: Mono,
    ) -> Slot {
        Slot {
            instance,
            state: State::Stopped,
            role: Role::Leaving,
            edition,
            life,
            history: History::default(),
            again: false,
            on_trial: false,
            fault: None,
            by_itself: false,
            main_ended: None,
            overdue: false,
            hidden: 0,
            watchdog: None,
            told_interval: None,
            reloading: false,
            rereading: None,
            reloads_told: Window::default(),
            reloads_untold: 0,
            connection: None,
            since: now,
            starts: 0,
            to_clean: false,
            this_end: None,
            last_end: None,
            due: None,
        }
    }

    /// A start has come to its end.
    pub(super) fn ended(&mut self, end: LastEnd) {
        self.this_end = Some(end);
        self.last_end = Some(end);
    }

    /// Whether it is an instance or a connection; one that is on its way out is neither.
    pub(super) fn is_taken(&self) -> bool {
        self.role != Role::Leaving || self.connection.is_some() || self.state.is_busy()
    }

    /// How long it is waited for while it reads its configuration again.
    pub(super) fn rereads_until(&self) -> Option<Mono> {
        self.rereading.and_then(|rereading| rereading.until)
    }

    /// When something is to happen by itself.
    pub(super) fn deadline(&self) -> Option<Mono> {
        let watchdog = match self.state {
            State::Running { .. } => self.watchdog.map(|watchdog| watchdog.due),
            State::Waiting
            | State::Preparing { .. }
            | State::Starting { .. }
            | State::Activating { .. }
            | State::Stopping { .. }
            | State::Cleaning { .. }
            | State::Backoff { .. }
            | State::Failed { .. }
            | State::Stopped => None,
        };
        [self.state.deadline(), watchdog, self.rereads_until()]
            .into_iter()
            .flatten()
            .min()
    }
}
