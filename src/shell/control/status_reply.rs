//! An answer to `Status` while it is made.

use crate::control::Instance;
use crate::core::InstanceId;
use crate::listener::DepthReader;
use crate::plan::{ListenerId, WorkerId};
use crate::shell::token::ClientId;
use serde::Serialize;
use std::collections::HashMap;

/// So many bytes are sent at a time.
const PART: usize = 64 << 10;

/// An answer to `Status` that is being made.
pub(super) struct StatusReply {
    pub(super) client: ClientId,
    /// Only what is called so, with details.
    pub(super) name: Option<String>,
    /// What there is of it and was not sent yet.
    pub(super) json: Vec<u8>,
    pub(super) listeners: std::vec::IntoIter<ListenerId>,
    /// The listeners that the configuration has no more, by name.
    pub(super) before: std::vec::IntoIter<String>,
    pub(super) workers: std::vec::IntoIter<WorkerId>,
    /// The worker that is under way: there may be thousands of instances.
    pub(super) worker: Option<WorkerPiece>,
    pub(super) queues: DepthReader,
    /// How workers run, as far as that was asked.
    pub(super) running: HashMap<WorkerId, Runs>,
    /// Whether the listeners are done.
    pub(super) is_at_workers: bool,
}

/// How a worker runs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Runs {
    /// Whether it has a running instance.
    pub(super) at_all: bool,
    /// Whether it has a process by its present definition.
    pub(super) by_the_plan: bool,
}

/// A worker while its instances are looked at.
pub(super) struct WorkerPiece {
    pub(super) id: WorkerId,
    pub(super) left: std::vec::IntoIter<InstanceId>,
    pub(super) done: Vec<Instance>,
}

impl StatusReply {
    /// For whom it is.
    pub(super) fn client(&self) -> ClientId {
        self.client
    }

    /// What there is, when it is enough to be sent, but for the last byte: [`StatusReply::add`] looks at it.
    pub(super) fn take_part(&mut self) -> Option<Vec<u8>> {
        let last = self.json.len().saturating_sub(1);
        (last >= PART).then(|| {
            let rest = self.json.split_off(last);
            std::mem::replace(&mut self.json, rest)
        })
    }

    /// Adds a piece to a list.
    pub(super) fn add(&mut self, piece: &impl Serialize) {
        if !self.json.ends_with(b"[") {
            self.json.push(b',');
        }
        // Only maps whose keys are no strings have no JSON, and there are none; memory has no end.
        let _always = serde_json::to_writer(&mut self.json, piece);
    }
}
