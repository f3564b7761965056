//! What is to be looked at where it may not answer, and who is to be told.

mod serve;
mod use_of_worker;

use super::token::ClientId;
use crate::core::{ProcessId, Ticket};
use crate::listener::{BindError, Connections};
use crate::plan::{ListenerId, Plan, WorkerId};
use crate::report::Sources;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, VecDeque};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

/// What is to be looked at.
#[derive(Debug)]
pub(super) enum Look {
    /// Whether a process of this worker takes clients.
    Evidence(ProcessId, WorkerId),
    /// Why listeners could not be bound.
    Diagnosis(Box<Failed>),
    /// Whether a client is connected to a worker, or a file keeps it running.
    Use(WorkerId, Box<UseQuestion>),
    /// What is left of one that nobody waits for any more.
    Nothing,
}

/// Listeners that could not be bound.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) plan: Rc<Plan>,
    pub(super) errors: Vec<BindError>,
    pub(super) tell: Tell,
}

/// What is asked about the use of a worker.
#[derive(Debug, Default)]
pub(super) struct UseQuestion {
    pub(super) connections: Connections,
    /// The file that keeps it running.
    pub(super) unless: Option<PathBuf>,
    /// A client has connected since the look before.
    pub(super) has_come: bool,
}

/// Who is to be told why.
#[derive(Debug)]
pub(super) enum Tell {
    /// The log, a line for each.
    Log,
    /// The log, and whoever has asked for a start that needs this listener.
    Start(ListenerId),
    /// Who asked for a reload, or the log if that was a signal; with what the places point into.
    Reload(Option<ClientId>, Box<Sources>),
}

/// Why listeners could not be bound, in the forms in which it is told.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Diagnosis {
    lines: Vec<String>,
    pub(super) rendered: String,
    pub(super) errors: Vec<serde_json::Value>,
}

/// What waits for its turn.
#[derive(Debug, Default)]
pub(super) struct Looks {
    waiting: VecDeque<Look>,
    /// The listeners of which it is being looked why they could not be bound.
    unbound: BTreeSet<ListenerId>,
    /// The workers of which it was told that their use cannot be detected.
    hidden: BTreeSet<WorkerId>,
    /// Who is to be told why, and when it is tried again.
    asked: Vec<(Ticket, ListenerId, Option<Duration>)>,
}

impl Look {
    /// What is to be known of one that has not answered.
    pub(super) fn trace(&self) -> Look {
        match self {
            Look::Evidence(process, worker) => Look::Evidence(*process, *worker),
            Look::Use(worker, _) => Look::Use(*worker, Box::default()),
            Look::Diagnosis(_) | Look::Nothing => Look::Nothing,
        }
    }
}
