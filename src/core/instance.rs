//! The place of one instance, or of one connection: what it is, and its past.

use super::backoff::History;
use super::state::State;
use super::time::Mono;
use super::types::{ConnectionId, Edition, Fault, InstanceId, LastEnd, Role};
use super::window::Window;
use crate::connection::Source;
use crate::plan::Lifecycle;
use std::sync::Arc;
use std::time::Duration;

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

/// Somebody waits for what an instance says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rereading {
    /// Until then; `None` is for ever.
    pub(super) until: Option<Mono>,
}

/// What a slot knows about its connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Held {
    pub(super) id: ConnectionId,
    pub(super) source: Source,
    /// Whether listend still has a descriptor of it.
    pub(super) open: bool,
}
