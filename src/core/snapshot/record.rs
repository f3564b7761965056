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
    /// Whether more than the connections of workers may have changed.
    pub(in crate::core) is_urgent: bool,
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
pub struct Lent<T>(Option<Noted<T>>);

#[derive(Debug, Clone)]
struct Noted<T> {
    /// In order. Nearly all come in order, and connections go soon: a tree would cost each of them a node.
    lent: Vec<T>,
    /// The one that was noted last, and still is: mostly it is lent again and again.
    latest: Option<T>,
    /// Those that were told of.
    told: BTreeSet<T>,
}

impl<T: Ord + Copy> Noted<T> {
    fn insert(&mut self, one: T) {
        if self.lent.last().is_none_or(|last| *last < one) {
            self.lent.push(one);
        } else if let Err(at) = self.lent.binary_search(&one) {
            self.lent.insert(at, one);
        }
    }
}

impl<T> Default for Lent<T> {
    fn default() -> Lent<T> {
        Lent(None)
    }
}

impl<T: Ord + Copy> Lent<T> {
    /// It is lent out.
    pub fn note(&mut self, one: T) {
        if let Some(noted) = &mut self.0
            && noted.latest != Some(one)
        {
            noted.insert(one);
            noted.latest = Some(one);
        }
    }

    /// It is taken out. Of what came and went between two looks there is nothing to tell.
    pub fn over(&mut self, one: T) {
        if let Some(noted) = &mut self.0 {
            noted.latest = None;
            if noted.told.contains(&one) {
                noted.insert(one);
            } else if let Ok(at) = noted.lent.binary_search(&one) {
                noted.lent.remove(at);
            }
        }
    }

    /// Notes from now on; of these is told.
    pub fn record(&mut self, told: impl IntoIterator<Item = T>) {
        self.0.get_or_insert_with(|| Noted {
            lent: Vec::new(),
            latest: None,
            told: told.into_iter().collect(),
        });
    }

    /// Whether anything is noted at all.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Whether any were lent since.
    pub fn has_any(&self) -> bool {
        self.0.as_ref().is_some_and(|noted| !noted.lent.is_empty())
    }

    /// Those that were lent since, in order, and are told of now.
    pub fn take(&mut self) -> Vec<T> {
        let Some(noted) = &mut self.0 else {
            return Vec::new();
        };
        noted.latest = None;
        let lent = std::mem::take(&mut noted.lent);
        noted.told.extend(&lent);
        lent
    }

    /// Of this was told before the others.
    pub fn tell(&mut self, one: T) {
        if let Some(noted) = &mut self.0 {
            noted.told.insert(one);
        }
    }

    /// It was told that this is gone.
    pub fn forget(&mut self, one: T) {
        if let Some(noted) = &mut self.0 {
            noted.told.remove(&one);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_lent_is_told_in_order_and_what_came_and_went_is_not() {
        let mut lent = Lent::default();
        lent.note(1);
        assert!(!lent.is_on() && !lent.has_any() && lent.take().is_empty());
        lent.record([7]);
        assert!(lent.is_on() && !lent.has_any());
        for one in [3, 1, 3, 3, 2, 1] {
            lent.note(one);
        }
        assert!(lent.has_any());
        lent.over(2);
        assert_eq!(lent.take(), [1, 3]);
        // Of these was told.
        lent.tell(5);
        for one in [3, 5, 7, 9] {
            lent.over(one);
        }
        assert_eq!(lent.take(), [3, 5, 7]);
        lent.forget(3);
        lent.over(3);
        assert!(!lent.has_any());
    }
}
