//! What is to be done when: at most one time for each token.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::time::Instant;

/// The times, by what they are for.
#[derive(Debug)]
pub(super) struct Timers<T> {
    at: HashMap<T, Instant>,
    order: BTreeSet<(Instant, T)>,
}

impl<T: Copy + Ord + Hash> Timers<T> {
    pub fn new() -> Timers<T> {
        Timers {
            at: HashMap::new(),
            order: BTreeSet::new(),
        }
    }

    pub fn set(&mut self, token: T, at: Instant) {
        self.cancel(token);
        self.at.insert(token, at);
        self.order.insert((at, token));
    }

    pub fn cancel(&mut self, token: T) {
        if let Some(at) = self.at.remove(&token) {
            self.order.remove(&(at, token));
        }
    }

    /// The next time.
    pub fn next(&self) -> Option<Instant> {
        self.order.first().map(|(at, _)| *at)
    }

    /// Takes one that is due.
    pub fn due(&mut self, now: Instant) -> Option<T> {
        let (at, token) = *self.order.first()?;
        if at > now {
            return None;
        }
        self.order.pop_first();
        self.at.remove(&token);
        Some(token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_last_time_counts_and_each_comes_once() {
        let now = Instant::now();
        let second = |count| now + Duration::from_secs(count);
        let mut timers = Timers::new();
        timers.set('a', second(1));
        timers.set('b', second(2));
        timers.set('a', second(3));
        timers.set('c', second(1));
        timers.cancel('c');
        assert_eq!(timers.next(), Some(second(2)));
        assert_eq!(timers.due(second(1)), None);
        assert_eq!(timers.due(second(4)), Some('b'));
        assert_eq!(timers.due(second(4)), Some('a'));
        assert_eq!(timers.due(second(4)), None);
        assert_eq!(timers.next(), None);
    }
}
