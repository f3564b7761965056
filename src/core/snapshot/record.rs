//! What has changed since the changes were taken, noted where it changes.
//!
//! Whoever lends out something to be changed notes that it was lent: a fact can be noted that is as it
//! was, but none can be left out. Nothing is noted as long as nobody takes the changes.

use super::fact::{Extra, Fact, Key};
use crate::plan::WorkerId;
use std::collections::{BTreeMap, BTreeSet};

/// What is noted for listend as a whole.
#[derive(Debug, Clone, Default)]
pub(in crate::core) struct Record {
    /// Whether anything is.
    pub(in crate::core) is_on: bool,
    /// The workers of which something may have changed.
    pub(in crate::core) workers: BTreeSet<WorkerId>,
    /// What went with its worker.
    pub(in crate::core) gone: Vec<Key>,
    /// Whether something may have changed about the listeners.
    pub(in crate::core) listeners: bool,
    /// The facts that are lent out all the time, as they were handed out last.
    pub(in crate::core) handed_out: BTreeMap<Key, Fact>,
    /// What a newer listend has written into facts that are known here otherwise.
    pub(in crate::core) extra: BTreeMap<Key, Extra>,
}

impl Record {
    pub(in crate::core) fn worker(&mut self, worker: WorkerId) {
        if self.is_on {
            self.workers.insert(worker);
        }
    }

    pub(in crate::core) fn listeners(&mut self) {
        self.listeners = self.is_on;
    }
}

/// Which members of a collection were lent out to be changed.
#[derive(Debug, Clone)]
pub(in crate::core) struct Lent<T>(Option<BTreeSet<T>>);

impl<T> Default for Lent<T> {
    fn default() -> Lent<T> {
        Lent(None)
    }
}

impl<T: Ord> Lent<T> {
    pub(in crate::core) fn note(&mut self, one: T) {
        if let Some(lent) = &mut self.0 {
            lent.insert(one);
        }
    }

    /// Notes from now on.
    pub(in crate::core) fn record(&mut self) {
        self.0.get_or_insert_default();
    }

    /// Those that were lent since.
    pub(in crate::core) fn take(&mut self) -> BTreeSet<T> {
        self.0.as_mut().map(std::mem::take).unwrap_or_default()
    }
}
